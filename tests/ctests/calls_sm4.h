/* Calls of the SM4 kernels, and of the modes that SM4 and AES have alike. */
static inline cc_rows rows_of(const uint8_t *bytes, size_t len, int shared)
{
    return (cc_rows){bytes, shared ? 0 : len, len};
}

static inline int call_modes(const cc_modes *modes, const char *name, const cc_call *call, const cc_room *room)
{
    static const uint8_t zeros[16];
    const cc_rows keys = rows_of(room->keys, call->key_len, call->shared), data = rows_of(room->data, call->length, 0);
    const cc_rows iv = rows_of(room->iv ? room->iv : zeros, 16, 1);
    if (!strcmp(name, "ecb"))
        modes->ecb(keys, room->data, room->out, room->n);
    else if (!strcmp(name, "cbc"))
        modes->cbc(keys, iv, data, room->out, room->n);
    else if (!strcmp(name, "cbc_mac"))
        modes->cbc_mac(keys, iv, data, room->out, room->n);
    else if (!strcmp(name, "cmac"))
        modes->cmac(keys, data, room->out, room->n);
    else if (!strcmp(name, "kcv"))
        modes->kcv(keys, call->method, room->out, room->n);
    else
        return 0;
    return 1;
}

static inline int call_sm4(const cc_sm4_kernels *sm4, const char *name, const cc_call *call, const cc_room *room)
{
    if (strncmp(name, "pboc", 4))
        return call_modes(&sm4->modes, name, call, room);
    const cc_derivation what = derivation_of(call, room);
    sm4->pboc(&what, room->n);
    return 1;
}
