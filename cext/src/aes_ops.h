/* What the key system does with AES beyond modes of operation, for every instruction set: include after the batch and modes.h. */

/* AES-128 keys that are CMACs of messages, their check values, and the keys under a KEK; the keys themselves leave no trace. */
OWN_FRAME void cmac_wrapped_in_frame(cc_rows masters, cc_rows messages, cc_rows kek, cc_rows iv, int method, uint8_t *out, uint8_t *kcvs,
                                     size_t n)
{
    schedule s, kek_schedule;
    batch subkey, keys;
    cipher_expand(&kek_schedule, kek.bytes, 0, kek.len, n);
    batch_fill(&subkey, zero_block);
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, masters, done, n);
        if (done == 0 || masters.stride)
            cmac_subkey(&s, &subkey, messages.len);
        batch_fill(&keys, zero_block);
        cmac_finish(&s, &subkey, &keys, row_at(messages, done), messages.stride, messages.len, count);
        wrap_derived(&kek_schedule, iv, &keys, out, done, count);
        derived_check_values(&keys, method, kcvs + cc_kcv_size(method) * done, count);
    }
}
KERNEL(cmac_wrapped, (cc_rows masters, cc_rows messages, cc_rows kek, cc_rows iv, int method, uint8_t *out, uint8_t *kcvs, size_t n),
       (masters, messages, kek, iv, method, out, kcvs, n))

/* RFC 3394 2.2.1 with the initial value of 2.2.3.1. A block is A || R[i]; r[i] has R[i+1] as its last half. */
OWN_FRAME void kw_in_frame(cc_rows kek, cc_rows keys, uint8_t *out, size_t n)
{
    static const uint8_t initial[16] = {0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6, 0xA6};
    const size_t semiblocks = keys.len / 8, width = keys.len + 8;
    schedule s;
    batch a, step, r[4];
    cipher_expand(&s, kek.bytes, 0, kek.len, n);
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        const uint8_t *const rows = row_at(keys, done);
        uint8_t *const target = out + width * done;
        uint8_t counter[16] = {0};
        batch_load(&r[0], rows, keys.stride, count);
        batch_swap(&r[0]);
        for (size_t i = 1; i < semiblocks; i++)
            batch_load(&r[i], rows + 8 * (i - 1), keys.stride, count);
        batch_fill(&a, initial);
        for (int j = 0; j < 6; j++)
            for (size_t i = 0; i < semiblocks; i++) {
                batch_join(&a, &r[i]);
                cipher_encrypt(&s, &a);
                r[i] = a;
                counter[7]++;
                batch_fill(&step, counter);
                batch_xor(&a, &step);
            }
        batch_join(&a, &r[0]);
        batch_store(&a, target, width, count);
        for (size_t i = 1; i < semiblocks; i++) { /* R[i] || R[i+1]: some bytes are written twice, alike */
            batch_swap(&r[i - 1]);
            a = r[i - 1];
            batch_join(&a, &r[i]);
            batch_store(&a, target + 8 * i, width, count);
            batch_swap(&r[i - 1]);
        }
    }
}
KERNEL(kw, (cc_rows kek, cc_rows keys, uint8_t *out, size_t n), (kek, keys, out, n))
