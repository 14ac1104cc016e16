/* SM4 on vectors of 32-bit words, a word of many blocks to a register (GB/T 32907-2016). The unit defines `vec`, its operations, and what
 * stands in for the S-box: sm4_affine.py explains the form of the state.
 *
 *   vec_into(v), vec_back(v)        words to the form of the state, and from it
 *   add_round(x, t)                 x + L(S(t)), all in that form
 *   add_key_round(k, t)             k + L'(S(t)) */
#include "each.h"

#define GROUP (4 * VEC_BLOCKS)
#define BATCH (GROUPS * GROUP)

/* Word w of the blocks of group g is v[4 * g + w], bytes as in memory. Blocks l, l + VEC_BLOCKS, l + 2 * VEC_BLOCKS and l + 3 * VEC_BLOCKS
 * of a group are neighbours: that order costs nothing to load or store. */
typedef struct {
    vec v[4 * GROUPS];
} batch;

/* Round key r is keys[r], or keys[r * GROUPS + g] where every row has its own. `narrow`: only group 0 has rows. */
typedef struct {
    vec keys[32 * GROUPS];
    int shared, narrow;
} schedule;

#define FRAME (2 * sizeof(schedule) + 32 * sizeof(batch))

INLINE void batch_fill(batch *b, const uint8_t *block)
{
    uint32_t words[4];
    memcpy(words, block, sizeof words);
    EACH_GROUP(g, EACH4(w, b->v[4 * g + w] = vec_broadcast32(words[w])))
}

INLINE void batch_xor(batch *a, const batch *b)
{
    EACH_GROUP(g, EACH4(w, a->v[4 * g + w] = vec_xor(a->v[4 * g + w], b->v[4 * g + w])))
}

/* Bit 0 of a word is the highest of the next one before; what falls out of the first comes back as 87 in the last. */
INLINE void double_group(vec v[4])
{
    vec w[5];
    EACH4(i, w[i] = vec_swap_bytes(v[i]))
    w[4] = w[0];
    EACH4(i, v[i] = vec_shifted_pair(w[i], w[i + 1]))
    v[3] = vec_xor(v[3], vec_reduction(w[0]));
    EACH4(i, v[i] = vec_swap_bytes(v[i]))
}

INLINE void batch_double(batch *b)
{
    EACH_GROUP(g, double_group(b->v + 4 * g))
}

/* Four registers of blocks to four registers of words, and back: the same exchange. */
INLINE void transpose(vec r[4])
{
    const vec low01 = vec_low_words(r[0], r[1]), high01 = vec_high_words(r[0], r[1]);
    const vec low23 = vec_low_words(r[2], r[3]), high23 = vec_high_words(r[2], r[3]);
    r[0] = vec_first_halves(low01, low23);
    r[1] = vec_last_halves(low01, low23);
    r[2] = vec_first_halves(high01, high23);
    r[3] = vec_last_halves(high01, high23);
}

INLINE void load_group(vec v[4], const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    if (stride == 16 && first + GROUP - 1 <= last) {
        EACH4(r, v[r] = vec_load(rows + 16 * (first + VEC_BLOCKS * r)))
    } else {
        EACH4(r, v[r] = vec_gather(rows, stride, first + VEC_BLOCKS * r, last))
    }
    transpose(v);
}

/* The other groups like the first: they have no rows, but all are computed. */
INLINE void repeat_group(batch *b)
{
    EACH_GROUP(g, EACH4(w, b->v[4 * g + w] = b->v[w]))
}

/* Rows beyond `count` repeat the last one. */
INLINE void batch_load(batch *b, const uint8_t *rows, size_t stride, size_t count)
{
    if (count > GROUP) {
        EACH_GROUP(g, load_group(b->v + 4 * g, rows, stride, GROUP * g, count - 1))
    } else {
        load_group(b->v, rows, stride, 0, count - 1);
        repeat_group(b);
    }
}

INLINE void batch_store(const batch *b, uint8_t *rows, size_t stride, size_t count)
{
    batch copy = *b;
    EACH_GROUP(
        g, if (count > GROUP * g) {
            vec *const v = copy.v + 4 * g;
            transpose(v);
            if (stride == 16 && count >= GROUP * (g + 1)) {
                EACH4(r, vec_store(rows + 16 * (GROUP * g + VEC_BLOCKS * r), v[r]))
            } else {
                EACH4(r, if (count > GROUP * g + VEC_BLOCKS * r) vec_scatter(rows, stride, GROUP * g + VEC_BLOCKS * r, count, v[r]))
            }
        })
}

INLINE void load_factor_group(vec v[4], const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    const vec ones = vec_broadcast32(0xFFFFFFFFu);
    vec_load_factors(v, rows, stride, first, last);
    v[2] = vec_xor(v[0], ones);
    v[3] = vec_xor(v[1], ones);
}

/* X || ~X of 8-byte factors. */
INLINE void batch_load_factors(batch *b, const uint8_t *rows, size_t stride, size_t count)
{
    if (count > GROUP) {
        EACH_GROUP(g, load_factor_group(b->v + 4 * g, rows, stride, GROUP * g, count - 1))
    } else {
        load_factor_group(b->v, rows, stride, 0, count - 1);
        repeat_group(b);
    }
}

/* 7.3 and 6.1, rounds in pairs: of the words a round adds up, two belong to the next one too. The key words k become round keys in turn. */
#define KEY_PAIR(k0, k1, k2, k3, round)                                                                                                  \
    do {                                                                                                                                 \
        const vec pair = vec_xor(k2, k3);                                                                                                \
        k0 = add_key_round(k0, vec_xor3(k1, pair, vec_broadcast32(sm4_ck[round])));                                                      \
        k1 = add_key_round(k1, vec_xor3(k0, pair, vec_broadcast32(sm4_ck[(round) + 1])));                                                \
    } while (0)

#define ROUND_PAIR(x0, x1, x2, x3, key0, key1)                                                                                           \
    do {                                                                                                                                 \
        const vec pair = vec_xor(x2, x3);                                                                                                \
        x0 = add_round(x0, vec_xor3(x1, pair, key0));                                                                                    \
        x1 = add_round(x1, vec_xor3(x0, pair, key1));                                                                                    \
    } while (0)

INLINE void key_words(vec k[4], const vec key[4])
{
    EACH4(w, k[w] = vec_xor(vec_into(key[w]), vec_broadcast32(sm4_fk[w])))
}

INLINE void expand_group(vec *keys, size_t step, const vec key[4])
{
    vec k[4];
    key_words(k, key);
    for (size_t round = 0; round < 32; round += 4) {
        KEY_PAIR(k[0], k[1], k[2], k[3], round);
        KEY_PAIR(k[2], k[3], k[0], k[1], round + 2);
        EACH4(w, keys[step * (round + w)] = k[w])
    }
}

static __attribute__((noinline)) void cipher_expand(schedule *s, const uint8_t *keys, size_t stride, size_t len, size_t count)
{
    vec key[4];
    (void)len;
    s->shared = stride == 0;
    s->narrow = count <= GROUP;
    for (size_t g = 0; g < (s->shared ? 1 : GROUPS) && GROUP * g < count; g++) {
        load_group(key, keys, stride, GROUP * g, s->shared ? 0 : count - 1);
        expand_group(s->keys + g, s->shared ? 1 : GROUPS, key);
    }
}

/* 6.2 R: the last word comes first. */
INLINE void state_out(vec x[4])
{
    const vec x0 = vec_back(x[0]), x1 = vec_back(x[1]);
    x[0] = vec_back(x[3]);
    x[1] = vec_back(x[2]);
    x[2] = x1;
    x[3] = x0;
}

#define ENCRYPT(EACH, step, key)                                                                                                         \
    do {                                                                                                                                 \
        const vec *k = s->keys;                                                                                                          \
        EACH(g, EACH4(w, x[4 * g + w] = vec_into(x[4 * g + w])))                                                                         \
        for (int round = 0; round < 32; round += 4, k += 4 * (step)) {                                                                   \
            EACH(g, ROUND_PAIR(x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3], k[key], k[(step) + key]))                             \
            EACH(g, ROUND_PAIR(x[4 * g + 2], x[4 * g + 3], x[4 * g], x[4 * g + 1], k[2 * (step) + key], k[3 * (step) + key]))            \
        }                                                                                                                                \
        EACH(g, state_out(x + 4 * g))                                                                                                    \
    } while (0)

INLINE void cipher_encrypt(const schedule *s, batch *b)
{
    vec *const x = b->v;
    if (s->narrow && s->shared)
        ENCRYPT(EACH1, 1, 0);
    else if (s->narrow)
        ENCRYPT(EACH1, GROUPS, 0);
    else if (s->shared)
        ENCRYPT(EACH_GROUP, 1, 0);
    else
        ENCRYPT(EACH_GROUP, GROUPS, g);
}

/* Each round key is made from those before and used at once, so that none is ever in memory. Two groups at a time fit the registers. */
INLINE void encrypt_under_groups(const vec *keys, vec *x)
{
    vec k[8];
    EACH2(g, key_words(k + 4 * g, keys + 4 * g); EACH4(w, x[4 * g + w] = vec_into(x[4 * g + w])))
    for (size_t round = 0; round < 32; round += 4) {
        EACH2(g, KEY_PAIR(k[4 * g], k[4 * g + 1], k[4 * g + 2], k[4 * g + 3], round);
              ROUND_PAIR(x[4 * g], x[4 * g + 1], x[4 * g + 2], x[4 * g + 3], k[4 * g], k[4 * g + 1]))
        EACH2(g, KEY_PAIR(k[4 * g + 2], k[4 * g + 3], k[4 * g], k[4 * g + 1], round + 2);
              ROUND_PAIR(x[4 * g + 2], x[4 * g + 3], x[4 * g], x[4 * g + 1], k[4 * g + 2], k[4 * g + 3]))
    }
    EACH2(g, state_out(x + 4 * g))
}

INLINE void cipher_encrypt_under(const batch *keys, batch *b)
{
    encrypt_under_groups(keys->v, b->v);
#if GROUPS == 4
    encrypt_under_groups(keys->v + 8, b->v + 8);
#endif
}

/* The S-box as these instructions compute it: where all bytes of a word are alike, L is a rotation of each byte by two bits. */
static void sbox_table(uint8_t *out)
{
    const vec zero = vec_broadcast32(0);
    for (uint32_t x = 0; x < 256; x++) {
        uint8_t block[16 * VEC_BLOCKS];
        const vec t = vec_xor(vec_into(vec_broadcast32(0x01010101u * x)), vec_broadcast32(0x01010101u * SM4_IN_CONSTANT));
        vec_store(block, vec_back(add_round(zero, t)));
        out[x] = (uint8_t)(block[0] >> 2 | block[0] << 6);
    }
}
