/* SM4 on x86-64 CPUs with AVX2 and AES-NI: eight words to a register, the S-box through AES's last round. */
#include "kernels.h"

#if CC_X86_LEVELS
#include <immintrin.h>

#include "target_aesni.h"
#define SM4_TABLES
#include "sm4_affine.h"
#include "vector_ymm.h"

typedef __m256i vec;
#define VEC_BLOCKS 2
#define GROUPS 2
#define EACH_GROUP EACH2

INLINE vec vec_load(const uint8_t *bytes)
{
    return _mm256_loadu_si256((const __m256i *)bytes);
}

INLINE void vec_store(uint8_t *bytes, vec v)
{
    _mm256_storeu_si256((__m256i *)bytes, v);
}

INLINE vec vec_broadcast(const uint8_t *block)
{
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)block));
}

INLINE vec vec_broadcast32(uint32_t word)
{
    return _mm256_set1_epi32((int)word);
}

INLINE vec vec_xor(vec a, vec b)
{
    return _mm256_xor_si256(a, b);
}

INLINE vec vec_xor3(vec a, vec b, vec c)
{
    return _mm256_xor_si256(_mm256_xor_si256(a, b), c);
}

INLINE __m128i block_at(const uint8_t *rows, size_t stride, size_t index, size_t last)
{
    return _mm_loadu_si128((const __m128i *)(rows + stride * (index < last ? index : last)));
}

/* The blocks of rows first and first + 1; a row beyond `last` is the last. */
INLINE vec vec_gather(const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    return _mm256_inserti128_si256(_mm256_castsi128_si256(block_at(rows, stride, first, last)), block_at(rows, stride, first + 1, last), 1);
}

INLINE void vec_scatter(uint8_t *rows, size_t stride, size_t first, size_t count, vec v)
{
    _mm_storeu_si128((__m128i *)(rows + stride * first), _mm256_castsi256_si128(v));
    if (first + 1 < count)
        _mm_storeu_si128((__m128i *)(rows + stride * (first + 1)), _mm256_extracti128_si256(v, 1));
}

INLINE vec vec_low_words(vec a, vec b)
{
    return _mm256_unpacklo_epi32(a, b);
}

INLINE vec vec_high_words(vec a, vec b)
{
    return _mm256_unpackhi_epi32(a, b);
}

INLINE vec vec_first_halves(vec a, vec b)
{
    return _mm256_unpacklo_epi64(a, b);
}

INLINE vec vec_last_halves(vec a, vec b)
{
    return _mm256_unpackhi_epi64(a, b);
}

/* Words as memory has them <-> numbers. */
INLINE vec vec_swap_bytes(vec a)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    return _mm256_shuffle_epi8(a, vec_broadcast(order));
}

/* The words of a, one bit up, with the highest bits of b's words below. */
INLINE vec vec_shifted_pair(vec a, vec b)
{
    return vec_xor(_mm256_slli_epi32(a, 1), _mm256_srli_epi32(b, 31));
}

/* 86 where the highest bit of a word is set: the last 1 of 87 is shifted in by vec_shifted_pair. */
INLINE vec vec_reduction(vec a)
{
    return _mm256_and_si256(_mm256_srai_epi32(a, 31), vec_broadcast32(0x86));
}

/* The two words of each of 8 factors, in the order of load_group. */
INLINE void vec_load_factors(vec v[2], const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    uint8_t factors[64];
    for (size_t i = 0; i < 8; i++)
        memcpy(factors + 8 * i, rows + stride * (first + i < last ? first + i : last), 8);
    /* Lane l wants rows l, 2 + l, 4 + l, 6 + l: a row is two words, so these are pairs of words two pairs apart. */
    const vec order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const vec low = _mm256_permutevar8x32_epi32(vec_load(factors), order);
    const vec high = _mm256_permutevar8x32_epi32(vec_load(factors + 32), order);
    v[0] = _mm256_unpacklo_epi64(low, high);
    v[1] = _mm256_unpackhi_epi64(low, high);
}

/* A map of bytes as the sum of tables for their halves. */
INLINE vec mapped(const uint8_t tables[2][16], vec low, vec high)
{
    return vec_xor(_mm256_shuffle_epi8(vec_broadcast(tables[0]), low), _mm256_shuffle_epi8(vec_broadcast(tables[1]), high));
}

INLINE vec low_halves(vec v)
{
    return _mm256_and_si256(v, _mm256_set1_epi8(15));
}

INLINE vec high_halves(vec v)
{
    return low_halves(_mm256_srli_epi16(v, 4));
}

INLINE vec vec_into(vec v)
{
    return mapped(sm4_into, low_halves(v), high_halves(v));
}

INLINE vec vec_back(vec v)
{
    return mapped(sm4_back, low_halves(v), high_halves(v));
}

/* AES's SubBytes of each byte; ShiftRows moves them. */
INLINE vec inverted(vec v)
{
    const __m128i zero = _mm_setzero_si128();
    const __m128i low = _mm_aesenclast_si128(_mm256_castsi256_si128(v), zero);
    return _mm256_inserti128_si256(_mm256_castsi128_si256(low), _mm_aesenclast_si128(_mm256_extracti128_si256(v, 1), zero), 1);
}

/* Undoes ShiftRows and takes byte j + k of a word to byte j: byte r of column c is at 4 * (c - r mod 4) + r. */
static const uint8_t bytes_from[4][16] = {
    {0, 13, 10, 7, 4, 1, 14, 11, 8, 5, 2, 15, 12, 9, 6, 3},
    {13, 10, 7, 0, 1, 14, 11, 4, 5, 2, 15, 8, 9, 6, 3, 12},
    {10, 7, 0, 13, 14, 11, 4, 1, 2, 15, 8, 5, 6, 3, 12, 9},
    {7, 0, 13, 10, 11, 4, 1, 14, 15, 8, 5, 2, 3, 12, 9, 6},
};
#define BYTES_FROM(v, k) _mm256_shuffle_epi8(v, vec_broadcast(bytes_from[k]))

INLINE vec add_round(vec x, vec t)
{
    const vec y = inverted(t), low = low_halves(y), high = high_halves(y);
    const vec t0 = mapped(sm4_l0, low, high), t3 = mapped(sm4_l3, low, high), t12 = vec_xor(t0, t3);
    x = vec_xor3(x, BYTES_FROM(t0, 0), BYTES_FROM(t3, 3));
    return vec_xor3(x, BYTES_FROM(t12, 1), BYTES_FROM(t12, 2));
}

INLINE vec add_key_round(vec k, vec t)
{
    const vec y = inverted(t), low = low_halves(y), high = high_halves(y);
    k = vec_xor3(k, BYTES_FROM(mapped(sm4_k0, low, high), 0), BYTES_FROM(mapped(sm4_k1, low, high), 1));
    return vec_xor3(k, BYTES_FROM(mapped(sm4_k2, low, high), 2), BYTES_FROM(mapped(sm4_k3, low, high), 3));
}

#include "sm4_unit.h"
#include "target_end.h"

const cc_sm4_kernels cc_sm4_aesni = SM4_KERNELS("aesni");
#endif
