/* SCP03 command wrapping for many cards at once (GlobalPlatform Card Specification 2.3 Amendment D 6.2.4 and 6.2.6, S8 mode). */

#define MAC_LEN 8

/* C-DECRYPTION: AES-CBC from an encrypted counter over padded data. `body` is where it goes in the first row. */
INLINE void encrypt_body(const schedule *s, const cc_apdu *apdu, const uint8_t *plain, size_t plain_stride, uint8_t *body, size_t width,
                           size_t count)
{
    uint8_t counter[16] = {0};
    batch state, b;
    size_t at = 0;
    for (int i = 0; i < 4; i++)
        counter[15 - i] = (uint8_t)(apdu->counter >> 8 * i);
    batch_fill(&state, counter);
    cipher_encrypt(s, &state);
    for (; at + 16 <= apdu->length; at += 16) {
        batch_load(&b, plain + at, plain_stride, count);
        batch_xor(&state, &b);
        cipher_encrypt(s, &state);
        batch_store(&state, body + at, width, count);
    }
    batch_load_padded(&b, plain + at, plain_stride, apdu->length - at, count);
    batch_xor(&state, &b);
    cipher_encrypt(s, &state);
    batch_store(&state, body + at, width, count);
}

/* One secured command for each row, at `target` in the first; gives its length. */
INLINE size_t wrap_apdu(const schedule *enc, const schedule *mac, const batch subkeys[2], batch *chain, const cc_apdu *apdu,
                        const uint8_t *plain, size_t plain_stride, uint8_t *target, size_t width, size_t count)
{
    uint8_t macs[16 * BATCH];
    const int encrypted = apdu->encrypt && apdu->length;
    size_t len = encrypted ? apdu->length + 16u - apdu->length % 16u : apdu->length;
    const uint8_t header[8] = {(uint8_t)(apdu->cla | 4), apdu->ins, apdu->p1, apdu->p2, (uint8_t)(len + MAC_LEN)};
    for (size_t i = 0; i < count; i++)
        memcpy(target + width * i, header, sizeof header); /* one move; three bytes are written again below */
    if (encrypted)
        encrypt_body(enc, apdu, plain + apdu->offset, plain_stride, target + 5, width, count);
    else
        for (size_t i = 0; i < count; i++)
            memcpy(target + width * i + 5, plain + plain_stride * i + apdu->offset, len);
    len += 5;
    cipher_encrypt(mac, chain); /* the chaining value is the message's first block */
    cmac_finish(mac, &subkeys[len % 16 != 0], chain, target, width, len, count);
    batch_store(chain, macs, 16, count);
    for (size_t i = 0; i < count; i++) {
        memcpy(target + width * i + len, macs + 16 * i, MAC_LEN);
        if (apdu->le >= 0)
            target[width * i + len + MAC_LEN] = (uint8_t)apdu->le;
    }
    return len + MAC_LEN + (apdu->le >= 0);
}

OWN_FRAME void scp03_wrap_in_frame(const cc_segment *segment, size_t n)
{
    const cc_rows enc_keys = {segment->enc_keys, segment->key_len, segment->key_len};
    const cc_rows mac_keys = {segment->mac_keys, segment->key_len, segment->key_len};
    const size_t width = segment->out_stride;
    schedule enc, mac;
    batch subkeys[2], chain;
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        const uint8_t *const plain = segment->plain + segment->plain_stride * done;
        uint8_t *target = segment->out + width * done;
        keys_for_batch(&enc, enc_keys, done, n);
        keys_for_batch(&mac, mac_keys, done, n);
        cmac_subkey(&mac, &subkeys[0], 16);
        subkeys[1] = subkeys[0];
        batch_double(&subkeys[1]);
        batch_load(&chain, segment->chain + 16 * done, 16, count);
        for (size_t at = 0; at < segment->commands; at++) {
            const size_t len = wrap_apdu(&enc, &mac, subkeys, &chain, segment->apdus + at, plain, segment->plain_stride,
                                         target + segment->prefix, width, count);
            if (segment->prefix)
                cc_put_lengths(target, width, len, count);
            target += segment->prefix + len;
            if (segment->chains)
                batch_store(&chain, segment->chains + 16 * (segment->commands * done + at), 16 * segment->commands, count);
        }
        batch_store(&chain, segment->chain + 16 * done, 16, count);
    }
}
KERNEL(scp03_wrap, (const cc_segment *segment, size_t n), (segment, n))

/* The table of a unit. */
#define AES_KERNELS(title)                                                                                                               \
    {                                                                                                                                    \
        .name = title, .modes = MODES, .cmac_wrapped = cmac_wrapped, .kw = kw, .scp03_wrap = scp03_wrap, .sbox_table = sbox_table,        \
    }
