/* What AVX-512 adds for lanes of 512 bits: gates of three inputs, and a faster step of the transpose. */
#include <immintrin.h>

/* Any function of three bits in one instruction: bit 4a + 2b + c of `function` is its value. */
#define TERNARY(function, a, b, c) ((lane)_mm512_ternarylogic_epi64((__m512i)(a), (__m512i)(b), (__m512i)(c), (function)))

/* See lane_transpose.h. Where whole bytes move, a masked shuffle puts the other row's half in place; below that, a shift and a select. */
static inline ALWAYS_INLINE void exchange(lane *low_row, lane *high_row, int distance)
{
    const __m512i a = (__m512i)*low_row, b = (__m512i)*high_row;
    if (distance >= 8) {
        const __m512i turn = distance == 32   ? _mm512_set4_epi32(0x0B0A0908, 0x0F0E0D0C, 0x03020100, 0x07060504)
                             : distance == 16 ? _mm512_set4_epi32(0x0D0C0F0E, 0x09080B0A, 0x05040706, 0x01000302)
                                              : _mm512_set4_epi32(0x0E0F0C0D, 0x0A0B0809, 0x06070405, 0x02030001);
        const __mmask64 high = distance == 32 ? 0xF0F0F0F0F0F0F0F0u : distance == 16 ? 0xCCCCCCCCCCCCCCCCu : 0xAAAAAAAAAAAAAAAAu;
        *low_row = (lane)_mm512_mask_shuffle_epi8(a, high, b, turn);
        *high_row = (lane)_mm512_mask_shuffle_epi8(b, ~high, a, turn);
    } else {
        const lane low = ZERO + (distance == 4 ? 0x0F0F0F0F0F0F0F0Fu : distance == 2 ? 0x3333333333333333u : 0x5555555555555555u);
        *low_row = TERNARY(0xCA, low, a, (lane)b << distance);
        *high_row = TERNARY(0xCA, low, (lane)a >> distance, b);
    }
}

/* The words of two lanes in turn, to memory. */
static inline ALWAYS_INLINE void interleave(uint8_t *out, lane first, lane second)
{
    const __m512i low = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0), high = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    _mm512_storeu_si512(out, _mm512_permutex2var_epi64((__m512i)first, low, (__m512i)second));
    _mm512_storeu_si512(out + 64, _mm512_permutex2var_epi64((__m512i)first, high, (__m512i)second));
}
