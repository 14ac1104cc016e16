/* SM4 on x86-64 CPUs with AVX-512 and GFNI: sixteen words to a register, the S-box as an inversion in AES's field. */
#include "kernels.h"

#if CC_X86_LEVELS
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,gfni"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,gfni")
#endif
#include "sm4_affine.h"
#include "vector_zmm.h"

#define VEC_BLOCKS 4
#define GROUPS 4
#define EACH_GROUP EACH4

INLINE vec vec_low_words(vec a, vec b)
{
    return _mm512_unpacklo_epi32(a, b);
}

INLINE vec vec_high_words(vec a, vec b)
{
    return _mm512_unpackhi_epi32(a, b);
}

INLINE vec vec_first_halves(vec a, vec b)
{
    return _mm512_unpacklo_epi64(a, b);
}

INLINE vec vec_last_halves(vec a, vec b)
{
    return _mm512_unpackhi_epi64(a, b);
}

/* Words as memory has them <-> numbers. */
INLINE vec vec_swap_bytes(vec a)
{
    static const uint8_t order[16] = {3, 2, 1, 0, 7, 6, 5, 4, 11, 10, 9, 8, 15, 14, 13, 12};
    return _mm512_shuffle_epi8(a, vec_broadcast(order));
}

/* The words of a, one bit up, with the highest bits of b's words below. */
INLINE vec vec_shifted_pair(vec a, vec b)
{
    return vec_xor(_mm512_slli_epi32(a, 1), _mm512_srli_epi32(b, 31));
}

/* 86 where the highest bit of a word is set: the last 1 of 87 is shifted in by vec_shifted_pair. */
INLINE vec vec_reduction(vec a)
{
    return _mm512_and_si512(_mm512_srai_epi32(a, 31), vec_broadcast32(0x86));
}

/* The two words of each of 16 factors, in the order of load_group. */
INLINE void vec_load_factors(vec v[2], const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    vec low, high;
    if (stride == 8 && first + 15 <= last) {
        low = vec_load(rows + 8 * first);
        high = vec_load(rows + 8 * first + 64);
    } else {
        uint8_t factors[128];
        for (size_t i = 0; i < 16; i++)
            memcpy(factors + 8 * i, rows + stride * (first + i < last ? first + i : last), 8);
        low = vec_load(factors);
        high = vec_load(factors + 64);
    }
    const vec order = _mm512_setr_epi32(0, 8, 16, 24, 2, 10, 18, 26, 4, 12, 20, 28, 6, 14, 22, 30);
    v[0] = _mm512_permutex2var_epi32(low, order, high);
    v[1] = _mm512_permutex2var_epi32(low, _mm512_add_epi32(order, _mm512_set1_epi32(1)), high);
}

#define MATRIX(matrix) _mm512_set1_epi64((long long)(matrix))

INLINE vec vec_into(vec v)
{
    return _mm512_gf2p8affine_epi64_epi8(v, MATRIX(SM4_INTO), 0);
}

INLINE vec vec_back(vec v)
{
    return _mm512_gf2p8affine_epi64_epi8(v, MATRIX(SM4_BACK), 0);
}

/* Byte j + k of a word to byte j, bytes as in memory. */
#define BYTES_FROM(v, k) _mm512_ror_epi32(v, 8 * (k))

INLINE vec add_round(vec x, vec t)
{
    const vec t0 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_L0), SM4_L0_CONSTANT);
    const vec t3 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_L3), SM4_L3_CONSTANT);
    const vec t12 = vec_xor(t0, t3);
    x = vec_xor3(x, t0, BYTES_FROM(t3, 3));
    return vec_xor3(x, BYTES_FROM(t12, 1), BYTES_FROM(t12, 2));
}

INLINE vec add_key_round(vec k, vec t)
{
    const vec t0 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_K0), SM4_K0_CONSTANT);
    const vec t1 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_K1), SM4_K1_CONSTANT);
    const vec t2 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_K2), SM4_K2_CONSTANT);
    const vec t3 = _mm512_gf2p8affineinv_epi64_epi8(t, MATRIX(SM4_K3), SM4_K3_CONSTANT);
    k = vec_xor3(k, t0, BYTES_FROM(t1, 1));
    return vec_xor3(k, BYTES_FROM(t2, 2), BYTES_FROM(t3, 3));
}

#include "sm4_unit.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const cc_sm4_kernels cc_sm4_gfni = SM4_KERNELS("gfni");
#endif
