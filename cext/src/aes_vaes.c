/* AES on x86-64 CPUs with AVX-512 and VAES: four blocks to a register. */
#include "kernels.h"

#if CC_X86_LEVELS
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,aes,vaes"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,aes,vaes")
#endif
#include "vector_zmm.h"

#define VEC_BLOCKS 4

INLINE vec vec_round(vec a, vec key)
{
    return _mm512_aesenc_epi128(a, key);
}

INLINE vec vec_last_round(vec a, vec key)
{
    return _mm512_aesenclast_epi128(a, key);
}

INLINE vec vec_shuffle(vec a, vec choice)
{
    return _mm512_shuffle_epi8(a, choice);
}

/* Each word moved one place up, or two; zeros come in. */
INLINE vec vec_words_up1(vec a)
{
    return _mm512_bslli_epi128(a, 4);
}

INLINE vec vec_words_up2(vec a)
{
    return _mm512_bslli_epi128(a, 8);
}

INLINE vec vec_last_word(vec a)
{
    return _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)0xFF);
}

INLINE vec vec_first_halves(vec a, vec b)
{
    return _mm512_unpacklo_epi64(a, b);
}

INLINE vec vec_last_halves(vec a, vec b)
{
    return _mm512_unpackhi_epi64(a, b);
}

INLINE vec vec_low_words(vec a, vec b)
{
    return _mm512_unpacklo_epi32(a, b);
}

INLINE vec vec_high_words(vec a, vec b)
{
    return _mm512_unpackhi_epi32(a, b);
}

INLINE vec vec_bytes_doubled(vec a)
{
    return _mm512_add_epi8(a, a);
}

/* FF for each byte with its highest bit set. */
INLINE vec vec_negative_bytes(vec a)
{
    return _mm512_movm_epi8(_mm512_movepi8_mask(a));
}

/* a ^ (b & c) */
INLINE vec vec_add_masked(vec a, vec b, vec c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x78);
}

/* The last half of a, then the first of b. */
INLINE vec vec_middle(vec a, vec b)
{
    return _mm512_alignr_epi8(b, a, 8);
}

INLINE vec vec_join(vec a, vec b)
{
    return _mm512_mask_blend_epi64(0xAA, a, b);
}

INLINE vec vec_swap(vec a)
{
    return _mm512_shuffle_epi32(a, (_MM_PERM_ENUM)0x4E);
}

#include "aes_unit.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const cc_aes_kernels cc_aes_vaes = AES_KERNELS("vaes");
#endif
