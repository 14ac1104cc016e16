/* AES on vectors that hold one or more blocks, with instructions for a round (FIPS 197). The unit defines `vec` and its operations. */
#include "each.h"

#define AES_MAX_ROUNDS 14
#define REGISTERS 8
#define BATCH (REGISTERS * VEC_BLOCKS)

/* Blocks as they lie in memory, VEC_BLOCKS to a register; enough registers to hide the latency of a round. */
typedef struct {
    vec v[REGISTERS];
} batch;

/* Round key r is keys[r], or keys[r * REGISTERS + i] for register i where every row has its own. `narrow`: only register 0 has rows. */
typedef struct {
    vec keys[(AES_MAX_ROUNDS + 1) * REGISTERS];
    int rounds, shared, narrow;
} schedule;

#define FRAME (2 * sizeof(schedule) + 32 * sizeof(batch))

INLINE void batch_fill(batch *b, const uint8_t *block)
{
    const vec v = vec_broadcast(block);
    EACH8(i, b->v[i] = v)
}

INLINE void batch_xor(batch *a, const batch *b)
{
    EACH8(i, a->v[i] = vec_xor(a->v[i], b->v[i]))
}

/* Rows beyond `count` repeat the last one. */
INLINE void batch_load(batch *b, const uint8_t *rows, size_t stride, size_t count)
{
    if (count == BATCH && stride == 16) {
        EACH8(i, b->v[i] = vec_load(rows + 16 * VEC_BLOCKS * i))
    } else if (count == BATCH) {
        EACH8(i, b->v[i] = vec_gather(rows, stride, VEC_BLOCKS * i, BATCH - 1))
    } else if (count <= VEC_BLOCKS) {
        const vec v = vec_gather(rows, stride, 0, count - 1);
        EACH8(i, b->v[i] = v)
    } else {
        EACH8(i, b->v[i] = vec_gather(rows, stride, VEC_BLOCKS * i, count - 1))
    }
}

INLINE void batch_store(const batch *b, uint8_t *rows, size_t stride, size_t count)
{
    if (count == BATCH && stride == 16) {
        EACH8(i, vec_store(rows + 16 * VEC_BLOCKS * i, b->v[i]))
    } else {
        EACH8(i, if (count > VEC_BLOCKS * i) vec_scatter(rows, stride, VEC_BLOCKS * i, count, b->v[i]))
    }
}

/* Each byte doubled takes the highest bit of the next; the last one takes 87 if the first had it. */
INLINE vec doubled(vec v)
{
    static const uint8_t next[16] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0};
    static const uint8_t taken[16] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0x87};
    return vec_add_masked(vec_bytes_doubled(v), vec_shuffle(vec_negative_bytes(v), vec_broadcast(next)), vec_broadcast(taken));
}

INLINE void batch_double(batch *b)
{
    EACH8(i, b->v[i] = doubled(b->v[i]))
}

/* a with the last half of each block from b. */
INLINE void batch_join(batch *a, const batch *b)
{
    EACH8(i, a->v[i] = vec_join(a->v[i], b->v[i]))
}

/* The two halves of each block exchanged. */
INLINE void batch_swap(batch *b)
{
    EACH8(i, b->v[i] = vec_swap(b->v[i]))
}

/* FIPS 197 5.2. In all of these a step makes its words at once: each is the word before, summed up from the first, plus SubWord of the last
 * word of the step before. The last round instruction on four equal columns is SubWord, because ShiftRows has nothing to move. */
static const uint8_t round_constants[10] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0x1B, 0x36};
static const uint8_t rotate_last_word[16] = {13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12};
static const uint8_t rotate_second_word[16] = {5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4, 5, 6, 7, 4};
static const uint8_t last_word[16] = {12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15, 12, 13, 14, 15};

INLINE vec substituted_word(vec v, const uint8_t choice[16], uint32_t constant)
{
    return vec_last_round(vec_shuffle(v, vec_broadcast(choice)), vec_broadcast32(constant));
}

/* Words w0..w3 -> w0, w0^w1, w0^w1^w2, w0^w1^w2^w3, each ^ t. */
INLINE vec summed(vec v, vec t)
{
    v = vec_xor(v, vec_words_up1(v));
    return vec_xor3(v, vec_words_up2(v), t);
}

INLINE vec next_key_128(vec key, int round)
{
    return summed(key, substituted_word(key, rotate_last_word, round_constants[round - 1]));
}

INLINE void expand_128(vec *keys, size_t step, vec key)
{
    keys[0] = key;
    for (int round = 1; round <= 10; round++)
        keys[step * (size_t)round] = key = next_key_128(key, round);
}

/* Six words a step: `low` has four of them, the first half of `high` the other two. Two steps fill three round keys. */
INLINE void expand_192(vec *keys, size_t step, vec low, vec high)
{
    keys[0] = low;
    for (int i = 0; i < 4; i++) {
        const vec before = high;
        low = summed(low, substituted_word(high, rotate_second_word, round_constants[2 * i]));
        high = vec_xor3(high, vec_words_up1(high), vec_last_word(low));
        keys[step * (size_t)(3 * i + 1)] = vec_first_halves(before, low);
        keys[step * (size_t)(3 * i + 2)] = vec_middle(low, high);
        low = summed(low, substituted_word(high, rotate_second_word, round_constants[2 * i + 1]));
        high = vec_xor3(high, vec_words_up1(high), vec_last_word(low));
        keys[step * (size_t)(3 * i + 3)] = low;
    }
}

INLINE void expand_256(vec *keys, size_t step, vec even, vec odd)
{
    keys[0] = even;
    keys[step] = odd;
    for (int round = 2; round <= 14; round += 2) {
        keys[step * (size_t)round] = even = summed(even, substituted_word(odd, rotate_last_word, round_constants[round / 2 - 1]));
        if (round < 14)
            keys[step * (size_t)(round + 1)] = odd = summed(odd, substituted_word(even, last_word, 0));
    }
}

INLINE void expand_register(vec *keys, size_t step, const uint8_t *bytes, size_t stride, size_t first, size_t last, size_t len)
{
    const vec low = vec_gather(bytes, stride, first, last);
    if (len == 16)
        expand_128(keys, step, low);
    else if (len == 24)
        expand_192(keys, step, low, vec_swap(vec_gather(bytes + 8, stride, first, last)));
    else
        expand_256(keys, step, low, vec_gather(bytes + 16, stride, first, last));
}

static __attribute__((noinline)) void cipher_expand(schedule *s, const uint8_t *keys, size_t stride, size_t len, size_t count)
{
    s->rounds = (int)len / 4 + 6;
    s->shared = stride == 0;
    s->narrow = count <= VEC_BLOCKS;
    if (s->shared)
        expand_register(s->keys, 1, keys, 0, 0, 0, len);
    else
        for (size_t i = 0; i < REGISTERS && VEC_BLOCKS * i < count; i++)
            expand_register(s->keys + i, REGISTERS, keys, stride, VEC_BLOCKS * i, count - 1, len);
}

#define ENCRYPT(EACH, step, key)                                                                                                         \
    do {                                                                                                                                 \
        const vec *k = s->keys, *const last = k + (step) * s->rounds;                                                                    \
        EACH(i, b->v[i] = vec_xor(b->v[i], k[key]))                                                                                      \
        for (k += (step); k < last; k += (step)) {                                                                                       \
            EACH(i, b->v[i] = vec_round(b->v[i], k[key]))                                                                                \
        }                                                                                                                                \
        EACH(i, b->v[i] = vec_last_round(b->v[i], k[key]))                                                                               \
    } while (0)

INLINE void cipher_encrypt(const schedule *s, batch *b)
{
    if (s->narrow && s->shared)
        ENCRYPT(EACH1, 1, 0);
    else if (s->narrow)
        ENCRYPT(EACH1, REGISTERS, 0);
    else if (s->shared)
        ENCRYPT(EACH8, 1, 0);
    else
        ENCRYPT(EACH8, REGISTERS, i);
}

#if VEC_BLOCKS == 4
/* Four registers of blocks to four registers of words, and back: the same exchange. */
INLINE void transpose(vec out[4], const vec in[4])
{
    const vec low01 = vec_low_words(in[0], in[1]), high01 = vec_high_words(in[0], in[1]);
    const vec low23 = vec_low_words(in[2], in[3]), high23 = vec_high_words(in[2], in[3]);
    out[0] = vec_first_halves(low01, low23);
    out[1] = vec_last_halves(low01, low23);
    out[2] = vec_first_halves(high01, high23);
    out[3] = vec_last_halves(high01, high23);
}

/* SubWord(RotWord(w)) of sixteen words: with ShiftRows undone beforehand one last round serves them all. */
static const uint8_t rotate_words[16] = {1, 14, 11, 4, 5, 2, 15, 8, 9, 6, 3, 12, 13, 10, 7, 0};

/* AES-128 under sixteen keys a time. The words of a key are kept in four registers, where adding one to the next needs no moves; each round
 * key is made from the one before and used at once, so that none is ever in memory. */
#define ROUND_UNDER(round, last)                                                                                                         \
    EACH2(g, vec *const w = words + 4 * g; const vec t = substituted_word(w[3], rotate_words, round_constants[(round)-1]);                 \
          w[0] = vec_xor(w[0], t); w[1] = vec_xor(w[1], w[0]); w[2] = vec_xor(w[2], w[1]); w[3] = vec_xor(w[3], w[2]); vec k[4];            \
          transpose(k, w); EACH4(r, b->v[4 * g + r] = last(b->v[4 * g + r], k[r])))

INLINE void cipher_encrypt_under(const batch *keys, batch *b)
{
    vec words[8];
    EACH8(i, b->v[i] = vec_xor(b->v[i], keys->v[i]))
    EACH2(g, transpose(words + 4 * g, keys->v + 4 * g))
    for (int round = 1; round < 10; round++) {
        ROUND_UNDER(round, vec_round)
    }
    ROUND_UNDER(10, vec_last_round)
}
#else
/* AES-128; each round key is made from the one before and used at once, so that none is ever in memory. */
INLINE void cipher_encrypt_under(const batch *keys, batch *b)
{
    batch k = *keys;
    EACH8(i, b->v[i] = vec_xor(b->v[i], k.v[i]))
    for (int round = 1; round < 10; round++) {
        EACH8(i, k.v[i] = next_key_128(k.v[i], round); b->v[i] = vec_round(b->v[i], k.v[i]))
    }
    EACH8(i, k.v[i] = next_key_128(k.v[i], 10); b->v[i] = vec_last_round(b->v[i], k.v[i]))
}
#endif

/* The S-box as these instructions compute it: a last round of four equal columns, without a key. */
static void sbox_table(uint8_t *out)
{
    for (int x = 0; x < 256; x++) {
        uint8_t block[16 * VEC_BLOCKS];
        memset(block, x, sizeof block);
        vec_store(block, vec_last_round(vec_load(block), vec_broadcast(zero_block)));
        out[x] = block[0];
    }
}
