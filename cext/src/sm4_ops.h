/* Card keys by SM4 (PBOC dispersion), for every instruction set: include after the batch and modes.h. */

/* SM4(key, X || ~X), factor after factor: the first under the masters, each later one under the key before. */
INLINE void disperse(const schedule *masters, batch *keys, const uint8_t *factors, size_t levels, size_t count)
{
    batch_load_factors(keys, factors, 8 * levels, count);
    cipher_encrypt(masters, keys);
    for (size_t level = 1; level < levels; level++) {
        batch next;
        batch_load_factors(&next, factors + 8 * level, 8 * levels, count);
        cipher_encrypt_under(keys, &next);
        *keys = next;
    }
}

OWN_FRAME void pboc_in_frame(const cc_derivation *what, size_t n)
{
    const cc_rows masters = {what->masters, what->master_stride, 16};
    const cc_rows iv = {what->iv ? what->iv : zero_block, what->iv ? what->iv_stride : 0, 16};
    schedule s, kek;
    batch keys;
    if (what->kek)
        cipher_expand(&kek, what->kek, 0, 16, n);
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, masters, done, n);
        disperse(&s, &keys, what->factors + 8 * what->levels * done, what->levels, count);
        if (what->kek)
            wrap_derived(&kek, iv, &keys, what->out, done, count);
        else
            batch_store(&keys, what->out + 16 * done, 16, count);
        if (what->kcv_method != CC_KCV_NONE)
            derived_check_values(&keys, what->kcv_method, what->kcv + cc_kcv_size(what->kcv_method) * done, count);
    }
}
KERNEL(pboc, (const cc_derivation *what, size_t n), (what, n))

/* The table of a unit. */
#define SM4_KERNELS(title)                                                                                                               \
    {                                                                                                                                    \
        .name = title, .modes = MODES, .pboc = pboc, .sbox_table = sbox_table,                                                           \
    }
