/* Calls of the triple DES kernels. */
static inline int call_tdes(const cc_tdes_kernels *tdes, const char *name, const cc_call *call, const cc_room *room)
{
    static const uint8_t zeros[8];
    const size_t stride = call->shared ? 0 : call->key_len, n = room->n;
    const uint8_t *const iv = room->iv ? room->iv : zeros;
    if (!strcmp(name, "ecb"))
        tdes->ecb(room->keys, stride, room->data, room->out, n);
    else if (!strcmp(name, "cbc"))
        tdes->cbc(room->keys, stride, room->data, call->length, iv, 0, room->out, n);
    else if (!strcmp(name, "retail_mac"))
        tdes->retail_mac(room->keys, stride, room->data, call->length, iv, 0, room->out, n);
    else if (!strcmp(name, "cmac"))
        tdes->cmac(room->keys, stride, room->data, call->length, room->out, n);
    else if (!strcmp(name, "kcv"))
        tdes->kcv(room->keys, call->method, room->out, n);
    else if (!strcmp(name, "pboc") || !strcmp(name, "pboc_wrapped")) {
        const cc_derivation what = derivation_of(call, room);
        tdes->pboc(&what, n);
    } else if (!strcmp(name, "wrap")) {
        const cc_segment segment = segment_of(call, room);
        tdes->scp02_wrap(&segment, n);
    } else
        return 0;
    return 1;
}
