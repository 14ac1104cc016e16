/* AES-128/192/256 on LANES blocks at once, bitsliced (FIPS 197): for CPUs without instructions for it. */
#include "bitslice_batch.h"

#define AES_MAX_ROUNDS 14

/* A bitslice has a key per lane even where all keys are alike. */
typedef struct {
    lane keys[128 * (AES_MAX_ROUNDS + 1)];
    size_t rounds;
} schedule;

#define FRAME (2 * sizeof(schedule) + 24 * sizeof(batch))

static NO_INLINE void aes_sub_byte(lane out[8], const lane in[8])
{
    lane result[8];
    aes_sbox(in, result);
    memcpy(out, result, sizeof result);
}

/* 5.2 key expansion, word by word, from the first nk words. */
static __attribute__((noinline)) void expand_words(schedule *s, size_t nk)
{
    lane *const w = s->keys;
    const size_t words = 4 * (nk + 7);
    lane previous[32];
    uint8_t rcon = 1;
    s->rounds = nk + 6;
    for (size_t word = nk; word < words; word++) {
        memcpy(previous, w + 32 * (word - 1), sizeof previous);
        if (word % nk == 0) {
            for (int byte = 0; byte < 4; byte++) /* SubWord(RotWord) */
                aes_sub_byte(previous + 8 * byte, w + 32 * (word - 1) + 8 * ((byte + 1) % 4));
            for (int bit = 0; bit < 8; bit++)
                if (rcon >> (7 - bit) & 1)
                    previous[bit] = ~previous[bit];
            rcon = (uint8_t)(rcon << 1 ^ (rcon & 0x80 ? 0x1B : 0));
        } else if (nk == 8 && word % nk == 4) {
            for (int byte = 0; byte < 4; byte++)
                aes_sub_byte(previous + 8 * byte, w + 32 * (word - 1) + 8 * byte);
        }
        for (int i = 0; i < 32; i++)
            w[32 * word + i] = w[32 * (word - nk) + i] ^ previous[i];
    }
}

static void cipher_expand(schedule *s, const uint8_t *keys, size_t stride, size_t len, size_t count)
{
    for (size_t part = 0; part < len / 8; part++)
        load_slices(s->keys + 64 * part, keys + 8 * part, stride, stride ? count : LANES);
    expand_words(s, len / 4);
}

/* 2 * a in GF(2^8), a as slices. */
static inline ALWAYS_INLINE void xtime(lane out[8], const lane a[8])
{
    out[0] = a[1];
    out[1] = a[2];
    out[2] = a[3];
    out[3] = a[4] ^ a[0];
    out[4] = a[5] ^ a[0];
    out[5] = a[6];
    out[6] = a[7] ^ a[0];
    out[7] = a[0];
}

/* 5.1.3 MixColumns of one column: b_i = 2(a_i ^ a_i+1) ^ a_i ^ all, all = a_0 ^ a_1 ^ a_2 ^ a_3. */
static NO_INLINE void mix_column(lane out[32], const lane a[32])
{
    lane all[8], pair[8], doubled[8];
    for (int bit = 0; bit < 8; bit++)
        all[bit] = a[bit] ^ a[8 + bit] ^ a[16 + bit] ^ a[24 + bit];
    for (int byte = 0; byte < 4; byte++) {
        for (int bit = 0; bit < 8; bit++)
            pair[bit] = a[8 * byte + bit] ^ a[8 * ((byte + 1) % 4) + bit];
        xtime(doubled, pair);
        for (int bit = 0; bit < 8; bit++)
            out[8 * byte + bit] = doubled[bit] ^ a[8 * byte + bit] ^ all[bit];
    }
}

static __attribute__((noinline)) void cipher_encrypt(const schedule *s, batch *b)
{
    lane *const state = b->slices;
    lane shifted[128];
    for (int i = 0; i < 128; i++)
        state[i] ^= s->keys[i];
    for (size_t round = 1; round <= s->rounds; round++) {
        for (int column = 0; column < 4; column++)
            for (int row = 0; row < 4; row++) /* ShiftRows: row r of column c comes from column c + r */
                aes_sub_byte(shifted + 8 * (4 * column + row), state + 8 * (4 * ((column + row) % 4) + row));
        if (round < s->rounds)
            for (int column = 0; column < 4; column++)
                mix_column(state + 32 * column, shifted + 32 * column);
        else
            memcpy(state, shifted, sizeof shifted);
        for (int i = 0; i < 128; i++)
            state[i] ^= s->keys[128 * round + (size_t)i];
    }
}

/* A key that was computed is in slices already, and its round keys stay so. */
static void cipher_encrypt_under(const batch *keys, batch *b)
{
    schedule s;
    memcpy(s.keys, keys->slices, sizeof keys->slices);
    expand_words(&s, 4);
    cipher_encrypt(&s, b);
}

static void sbox_table(uint8_t *out)
{
    lane in[8], result[8];
    for (int base = 0; base < 256; base += 64) {
        sbox_inputs(in, 8, base);
        aes_sbox(in, result);
        sbox_outputs(result, 8, out + base);
    }
}

#include "modes.h"
#include "aes_ops.h"
#include "aes_scp03.h"
