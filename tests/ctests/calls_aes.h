/* Calls of the AES kernels. */
static inline int call_aes(const cc_aes_kernels *aes, const char *name, const cc_call *call, const cc_room *room)
{
    static const uint8_t zeros[16];
    const cc_rows kek = rows_of(room->kek, call->kek_len, 1), data = rows_of(room->data, call->length, 0);
    if (!strcmp(name, "cmac_wrapped"))
        aes->cmac_wrapped(rows_of(room->keys, call->key_len, call->shared), data, kek, rows_of(room->iv ? room->iv : zeros, 16, 1), call->method,
                          room->out, room->kcv, room->n);
    else if (!strcmp(name, "kw"))
        aes->kw(kek, data, room->out, room->n);
    else if (!strcmp(name, "wrap")) {
        const cc_segment segment = segment_of(call, room);
        aes->scp03_wrap(&segment, room->n);
    } else
        return call_modes(&aes->modes, name, call, room);
    return 1;
}
