/* AES on x86-64 CPUs with AVX2 and AES-NI: a block to a register. */
#include "kernels.h"

#if CC_X86_LEVELS
#include <immintrin.h>

#include "target_aesni.h"
#include "vector_ymm.h"

typedef __m128i vec;
#define VEC_BLOCKS 1

INLINE vec vec_load(const uint8_t *bytes)
{
    return _mm_loadu_si128((const __m128i *)bytes);
}

INLINE void vec_store(uint8_t *bytes, vec v)
{
    _mm_storeu_si128((__m128i *)bytes, v);
}

INLINE vec vec_broadcast(const uint8_t *block)
{
    return vec_load(block);
}

INLINE vec vec_broadcast32(uint32_t word)
{
    return _mm_set1_epi32((int)word);
}

INLINE vec vec_xor(vec a, vec b)
{
    return _mm_xor_si128(a, b);
}

INLINE vec vec_xor3(vec a, vec b, vec c)
{
    return _mm_xor_si128(_mm_xor_si128(a, b), c);
}

/* The block of row `first`, or of the last row where that is beyond it. */
INLINE vec vec_gather(const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    return vec_load(rows + stride * (first < last ? first : last));
}

INLINE void vec_scatter(uint8_t *rows, size_t stride, size_t first, size_t count, vec v)
{
    (void)count;
    vec_store(rows + stride * first, v);
}

INLINE vec vec_round(vec a, vec key)
{
    return _mm_aesenc_si128(a, key);
}

INLINE vec vec_last_round(vec a, vec key)
{
    return _mm_aesenclast_si128(a, key);
}

INLINE vec vec_shuffle(vec a, vec choice)
{
    return _mm_shuffle_epi8(a, choice);
}

/* Each word moved one place up, or two; zeros come in. */
INLINE vec vec_words_up1(vec a)
{
    return _mm_slli_si128(a, 4);
}

INLINE vec vec_words_up2(vec a)
{
    return _mm_slli_si128(a, 8);
}

INLINE vec vec_last_word(vec a)
{
    return _mm_shuffle_epi32(a, 0xFF);
}

INLINE vec vec_first_halves(vec a, vec b)
{
    return _mm_unpacklo_epi64(a, b);
}

INLINE vec vec_bytes_doubled(vec a)
{
    return _mm_add_epi8(a, a);
}

/* FF for each byte with its highest bit set. */
INLINE vec vec_negative_bytes(vec a)
{
    return _mm_cmpgt_epi8(_mm_setzero_si128(), a);
}

/* a ^ (b & c) */
INLINE vec vec_add_masked(vec a, vec b, vec c)
{
    return _mm_xor_si128(a, _mm_and_si128(b, c));
}

/* The last half of a, then the first of b. */
INLINE vec vec_middle(vec a, vec b)
{
    return _mm_alignr_epi8(b, a, 8);
}

INLINE vec vec_join(vec a, vec b)
{
    return _mm_blend_epi16(a, b, 0xF0);
}

INLINE vec vec_swap(vec a)
{
    return _mm_shuffle_epi32(a, 0x4E);
}

#include "aes_unit.h"
#include "target_end.h"

const cc_aes_kernels cc_aes_aesni = AES_KERNELS("aesni");
#endif
