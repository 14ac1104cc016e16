/* SM4 on LANES blocks at once, bitsliced (GB/T 32907-2016): for CPUs without instructions that help. Slice 0 of a word is its most
 * significant bit. */
#include "bitslice_batch.h"

static const uint32_t fk[4] = {0xA3B1BAC6u, 0x56AA3350u, 0x677D9197u, 0xB27022DCu};

/* A bitslice has a key per lane even where all keys are alike. */
typedef struct {
    lane keys[32][32];
} schedule;

#define FRAME (2 * sizeof(schedule) + 24 * sizeof(batch))

/* tau: the S-box on the four bytes of a word, in place. */
static NO_INLINE void substitute_byte(lane byte[8])
{
    lane out[8];
    sm4_sbox(byte, out);
    memcpy(byte, out, sizeof out);
}

/* mixed = tau(a ^ b ^ c ^ k). */
static inline void substitute(lane mixed[32], const lane *a, const lane *b, const lane *c, const lane *k)
{
    for (int i = 0; i < 32; i++)
        mixed[i] = a[i] ^ b[i] ^ c[i] ^ k[i];
    for (int byte = 0; byte < 32; byte += 8)
        substitute_byte(mixed + byte);
}

/* CK_round, byte j = (4*round + j) * 7 mod 256, as slices. */
static void round_constant(lane slices[32], int round)
{
    for (int i = 0; i < 32; i++) {
        const unsigned byte = ((unsigned)(4 * round + i / 8) * 7u) & 0xFFu;
        slices[i] = byte >> (7 - i % 8) & 1u ? ONES : ZERO;
    }
}

/* 7.3 key expansion: rk_i = K_i ^ L'(tau(K_i+1 ^ K_i+2 ^ K_i+3 ^ CK_i)), L'(B) = B ^ B<<<13 ^ B<<<23. Destroys `key`. */
static __attribute__((noinline)) void expand_words(schedule *s, batch *key)
{
    lane *const k = key->slices;
    lane constant[32], mixed[32];
    for (int i = 0; i < 128; i++)
        if (fk[i / 32] >> (31 - i % 32) & 1u)
            k[i] = ~k[i];
    for (int round = 0; round < 32; round++) {
        lane *const target = k + 32 * (round % 4);
        round_constant(constant, round);
        substitute(mixed, k + 32 * ((round + 1) % 4), k + 32 * ((round + 2) % 4), k + 32 * ((round + 3) % 4), constant);
        for (int i = 0; i < 32; i++)
            target[i] ^= mixed[i] ^ mixed[(i + 13) % 32] ^ mixed[(i + 23) % 32];
        memcpy(s->keys[round], target, sizeof s->keys[round]);
    }
}

static void cipher_expand(schedule *s, const uint8_t *keys, size_t stride, size_t len, size_t count)
{
    batch key;
    (void)len;
    load_slices(key.slices, keys, stride, stride ? count : LANES);
    load_slices(key.slices + 64, keys + 8, stride, stride ? count : LANES);
    expand_words(s, &key);
}

/* 6.1 and 7.1: words X_0..X_3 in, Y_0..Y_3 = X_35..X_32 out; L(B) = B ^ B<<<2 ^ B<<<10 ^ B<<<18 ^ B<<<24. */
static __attribute__((noinline)) void cipher_encrypt(const schedule *s, batch *b)
{
    lane *const x = b->slices;
    lane m[32];
    for (int round = 0; round < 32; round++) {
        lane *const target = x + 32 * (round % 4);
        substitute(m, x + 32 * ((round + 1) % 4), x + 32 * ((round + 2) % 4), x + 32 * ((round + 3) % 4), s->keys[round]);
        for (int i = 0; i < 32; i++)
            target[i] ^= m[i] ^ m[(i + 2) % 32] ^ m[(i + 10) % 32] ^ m[(i + 18) % 32] ^ m[(i + 24) % 32];
    }
    for (int i = 0; i < 32; i++) {
        lane swapped = x[i];
        x[i] = x[i + 96];
        x[i + 96] = swapped;
        swapped = x[i + 32];
        x[i + 32] = x[i + 64];
        x[i + 64] = swapped;
    }
}

/* A key that was computed is in slices already, and its round keys stay so. */
static void cipher_encrypt_under(const batch *keys, batch *b)
{
    schedule s;
    batch key = *keys;
    expand_words(&s, &key);
    cipher_encrypt(&s, b);
}

/* X || ~X of 8-byte factors. */
static void batch_load_factors(batch *b, const uint8_t *rows, size_t stride, size_t count)
{
    load_slices(b->slices, rows, stride, count);
    for (int i = 0; i < 64; i++)
        b->slices[i + 64] = ~b->slices[i];
}

static void sbox_table(uint8_t *out)
{
    lane in[8], result[8];
    for (int base = 0; base < 256; base += 64) {
        sbox_inputs(in, 8, base);
        sm4_sbox(in, result);
        sbox_outputs(result, 8, out + base);
    }
}

#include "modes.h"
#include "sm4_ops.h"
