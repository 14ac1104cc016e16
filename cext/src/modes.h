/* Modes of operation of a cipher of 16-byte blocks, many rows at once: written once, for every cipher and instruction set.
 *
 * The unit that includes this supplies the batch: a fixed number of blocks, one of each row, in the layout its instructions like.
 *
 *   batch, BATCH                               the type, and how many blocks it holds
 *   schedule                                   round keys: of one key for all rows, or of a key per row
 *   batch_load(b, rows, stride, count)         a block from each of `count` rows, `stride` bytes apart; the other blocks are arbitrary
 *   batch_store(b, rows, stride, count)        and back
 *   batch_fill(b, block)                       the same block everywhere
 *   batch_xor(a, b)                            a ^= b
 *   batch_double(b)                            each block times u modulo u^128 + u^7 + u^2 + u + 1 (NIST SP 800-38B 5.3)
 *   cipher_expand(s, keys, stride, len, count) round keys; stride 0: one key, for a total of `count` rows
 *   cipher_encrypt(s, b)                       b = E(keys of s, b)
 *   cipher_encrypt_under(keys, b)              b = E(keys, b), a 16-byte key per row that was computed, not loaded
 *   FRAME, wipe_registers()                   see frame.h
 */
#include "frame.h"

static const uint8_t one_block[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

static __attribute__((noinline)) void overwrite_frame(void)
{
    uint8_t frame[FRAME];
    memset(frame, 0, sizeof frame);
    FORGET_BYTES(frame);
}

INLINE size_t batch_count(size_t done, size_t n)
{
    return n - done < BATCH ? n - done : BATCH;
}

INLINE const uint8_t *row_at(cc_rows rows, size_t index)
{
    return rows.bytes + rows.stride * index;
}

/* Round keys for the batch of rows from `done`: made once if one key serves all. */
INLINE void keys_for_batch(schedule *s, cc_rows keys, size_t done, size_t n)
{
    if (done == 0 || keys.stride)
        cipher_expand(s, row_at(keys, done), keys.stride, keys.len, keys.stride ? batch_count(done, n) : n);
}

/* A block from each row, or the one that serves all. */
INLINE void batch_load_rows(batch *b, cc_rows rows, size_t done, size_t count)
{
    if (rows.stride)
        batch_load(b, row_at(rows, done), rows.stride, count);
    else
        batch_fill(b, rows.bytes);
}

OWN_FRAME void ecb_in_frame(cc_rows keys, const uint8_t *blocks, uint8_t *out, size_t n)
{
    schedule s;
    batch b;
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, keys, done, n);
        batch_load(&b, blocks + 16 * done, 16, count);
        cipher_encrypt(&s, &b);
        batch_store(&b, out + 16 * done, 16, count);
    }
}
KERNEL(ecb, (cc_rows keys, const uint8_t *blocks, uint8_t *out, size_t n), (keys, blocks, out, n))

/* NIST SP 800-38A 6.2. Each row is a message of whole blocks. */
OWN_FRAME void cbc_in_frame(cc_rows keys, cc_rows iv, cc_rows plain, uint8_t *out, size_t n)
{
    schedule s;
    batch state, b;
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, keys, done, n);
        batch_load_rows(&state, iv, done, count);
        for (size_t at = 0; at < plain.len; at += 16) {
            batch_load(&b, row_at(plain, done) + at, plain.stride, count);
            batch_xor(&state, &b);
            cipher_encrypt(&s, &state);
            batch_store(&state, out + plain.len * done + at, plain.len, count);
        }
    }
}
KERNEL(cbc, (cc_rows keys, cc_rows iv, cc_rows plain, uint8_t *out, size_t n), (keys, iv, plain, out, n))

/* ISO/IEC 9797-1 algorithm 1 without padding; the whole last block. */
OWN_FRAME void cbc_mac_in_frame(cc_rows keys, cc_rows iv, cc_rows messages, uint8_t *out, size_t n)
{
    schedule s;
    batch state, b;
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, keys, done, n);
        batch_load_rows(&state, iv, done, count);
        for (size_t at = 0; at < messages.len; at += 16) {
            batch_load(&b, row_at(messages, done) + at, messages.stride, count);
            batch_xor(&state, &b);
            cipher_encrypt(&s, &state);
        }
        batch_store(&state, out + 16 * done, 16, count);
    }
}
KERNEL(cbc_mac, (cc_rows keys, cc_rows iv, cc_rows messages, uint8_t *out, size_t n), (keys, iv, messages, out, n))

/* `len` < 16 bytes by at most two moves that may overlap: rows are many, and a call per row would cost more than the copy. */
INLINE void copy_short(uint8_t *to, const uint8_t *from, size_t len)
{
    if (len >= 8) {
        memcpy(to, from, 8);
        memmove(to + len - 8, from + len - 8, 8);
    } else if (len >= 4) {
        memcpy(to, from, 4);
        memcpy(to + len - 4, from + len - 4, 4);
    } else {
        for (size_t i = 0; i < len; i++)
            to[i] = from[i];
    }
}

/* The last, short block of each row with padding method 2 (ISO/IEC 9797-1 6.3.3): 80, then 00s. */
INLINE void batch_load_padded(batch *b, const uint8_t *rows, size_t stride, size_t len, size_t count)
{
    uint8_t blocks[16 * BATCH];
    for (size_t i = 0; i < count; i++) {
        memset(blocks + 16 * i, 0, 16);
        copy_short(blocks + 16 * i, rows + stride * i, len);
        blocks[16 * i + len] = 0x80;
    }
    batch_load(b, blocks, 16, count);
}

/* NIST SP 800-38B 6.1: K1, or K2 for messages whose last block is short. */
INLINE void cmac_subkey(const schedule *s, batch *subkey, size_t message_len)
{
    batch_fill(subkey, zero_block);
    cipher_encrypt(s, subkey);
    batch_double(subkey);
    if (message_len % 16)
        batch_double(subkey);
}

/* NIST SP 800-38B 6.2 from a state that has all earlier blocks (or zeros) in it; rows of `len` > 0 bytes are the rest. */
INLINE void cmac_finish(const schedule *s, const batch *subkey, batch *state, const uint8_t *rows, size_t stride, size_t len, size_t count)
{
    batch b;
    for (; len > 16; rows += 16, len -= 16) {
        batch_load(&b, rows, stride, count);
        batch_xor(state, &b);
        cipher_encrypt(s, state);
    }
    if (len == 16)
        batch_load(&b, rows, stride, count);
    else
        batch_load_padded(&b, rows, stride, len, count);
    batch_xor(state, &b);
    batch_xor(state, subkey);
    cipher_encrypt(s, state);
}

OWN_FRAME void cmac_in_frame(cc_rows keys, cc_rows messages, uint8_t *out, size_t n)
{
    schedule s;
    batch subkey, state;
    batch_fill(&subkey, zero_block);
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, keys, done, n);
        if (done == 0 || keys.stride)
            cmac_subkey(&s, &subkey, messages.len);
        batch_fill(&state, zero_block);
        cmac_finish(&s, &subkey, &state, row_at(messages, done), messages.stride, messages.len, count);
        batch_store(&state, out + 16 * done, 16, count);
    }
}
KERNEL(cmac, (cc_rows keys, cc_rows messages, uint8_t *out, size_t n), (keys, messages, out, n))

/* The first bytes of each block, close together. */
INLINE void store_check_values(const batch *b, int method, uint8_t *out, size_t count)
{
    uint8_t blocks[16 * BATCH];
    const size_t size = cc_kcv_size(method);
    batch_store(b, blocks, 16, count);
    if (size == 3)
        for (size_t i = 0; i + 1 < count; i++)
            memcpy(out + 3 * i, blocks + 16 * i, 4); /* one move, whose last byte the next row overwrites */
    else
        for (size_t i = 0; i + 1 < count; i++)
            memcpy(out + 5 * i, blocks + 16 * i, 5);
    memcpy(out + size * (count - 1), blocks + 16 * (count - 1), size);
}

INLINE void check_block(batch *b, int method)
{
    batch_fill(b, method == CC_KCV_ONE_BLOCK ? one_block : zero_block);
}

OWN_FRAME void kcv_in_frame(cc_rows keys, int method, uint8_t *out, size_t n)
{
    schedule s;
    batch b;
    for (size_t done = 0; done < n; done += BATCH) {
        const size_t count = batch_count(done, n);
        keys_for_batch(&s, keys, done, n);
        check_block(&b, method);
        cipher_encrypt(&s, &b);
        if (method == CC_KCV_CMAC) { /* CMAC of one zero block is E(K1) */
            batch_double(&b);
            cipher_encrypt(&s, &b);
        }
        store_check_values(&b, method, out + cc_kcv_size(method) * done, count);
    }
}
KERNEL(kcv, (cc_rows keys, int method, uint8_t *out, size_t n), (keys, method, out, n))

/* The same for keys that were computed. */
INLINE void derived_check_values(const batch *keys, int method, uint8_t *out, size_t count)
{
    batch b;
    check_block(&b, method);
    cipher_encrypt_under(keys, &b);
    if (method == CC_KCV_CMAC) {
        batch_double(&b);
        cipher_encrypt_under(keys, &b);
    }
    store_check_values(&b, method, out, count);
}

/* One-block keys under a KEK, each a CBC message of its own; ECB is an `iv` of zeros. */
INLINE void wrap_derived(const schedule *kek, cc_rows iv, const batch *keys, uint8_t *out, size_t done, size_t count)
{
    batch b;
    batch_load_rows(&b, iv, done, count);
    batch_xor(&b, keys);
    cipher_encrypt(kek, &b);
    batch_store(&b, out + 16 * done, 16, count);
}

#define MODES                                                                                                                            \
    {                                                                                                                                    \
        .ecb = ecb, .cbc = cbc, .cbc_mac = cbc_mac, .cmac = cmac, .kcv = kcv,                                                            \
    }
