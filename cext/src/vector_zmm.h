/* 512-bit vectors of four blocks: moving them, and what every cipher needs. Include after the unit chose its target. */
#include "frame.h"

typedef __m512i vec;

/* The registers may hold keys, and nothing else would overwrite zmm16 and above. */
static __attribute__((noinline)) void wipe_registers(void)
{
#define CLEAR(n) "vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n "\n\t"
    __asm__ __volatile__("vzeroall\n\t" CLEAR(16) CLEAR(17) CLEAR(18) CLEAR(19) CLEAR(20) CLEAR(21) CLEAR(22) CLEAR(23) CLEAR(24) CLEAR(25)
                             CLEAR(26) CLEAR(27) CLEAR(28) CLEAR(29) CLEAR(30) CLEAR(31)
                         :
                         :
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                           "xmm14", "xmm15", "xmm16", "xmm17", "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26",
                           "xmm27", "xmm28", "xmm29", "xmm30", "xmm31", "memory");
#undef CLEAR
}

INLINE vec vec_load(const uint8_t *bytes)
{
    return _mm512_loadu_si512(bytes);
}

INLINE void vec_store(uint8_t *bytes, vec v)
{
    _mm512_storeu_si512(bytes, v);
}

INLINE vec vec_broadcast(const uint8_t *block)
{
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)block));
}

INLINE vec vec_broadcast32(uint32_t word)
{
    return _mm512_set1_epi32((int)word);
}

INLINE vec vec_xor(vec a, vec b)
{
    return _mm512_xor_si512(a, b);
}

INLINE vec vec_xor3(vec a, vec b, vec c)
{
    return _mm512_ternarylogic_epi64(a, b, c, 0x96);
}

INLINE __m128i block_at(const uint8_t *rows, size_t stride, size_t index, size_t last)
{
    return _mm_loadu_si128((const __m128i *)(rows + stride * (index < last ? index : last)));
}

/* The blocks of rows first..first+3; a row beyond `last` is the last. Rows of two blocks come two to a load. */
INLINE vec vec_gather(const uint8_t *rows, size_t stride, size_t first, size_t last)
{
    if (stride == 32 && first + 3 <= last) {
        const vec front = _mm512_maskz_loadu_epi64(0x33, rows + 32 * first), back = _mm512_maskz_loadu_epi64(0x33, rows + 32 * first + 64);
        return _mm512_shuffle_i64x2(front, back, 0x88);
    }
    vec v = _mm512_castsi128_si512(block_at(rows, stride, first, last));
    v = _mm512_inserti32x4(v, block_at(rows, stride, first + 1, last), 1);
    v = _mm512_inserti32x4(v, block_at(rows, stride, first + 2, last), 2);
    return _mm512_inserti32x4(v, block_at(rows, stride, first + 3, last), 3);
}

INLINE void vec_scatter(uint8_t *rows, size_t stride, size_t first, size_t count, vec v)
{
    uint8_t *const target = rows + stride * first;
    _mm_storeu_si128((__m128i *)target, _mm512_castsi512_si128(v));
    if (first + 1 < count)
        _mm_storeu_si128((__m128i *)(target + stride), _mm512_extracti32x4_epi32(v, 1));
    if (first + 2 < count)
        _mm_storeu_si128((__m128i *)(target + 2 * stride), _mm512_extracti32x4_epi32(v, 2));
    if (first + 3 < count)
        _mm_storeu_si128((__m128i *)(target + 3 * stride), _mm512_extracti32x4_epi32(v, 3));
}
