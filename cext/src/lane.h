/* The lane: one machine word per bit position, one bit per block.
 *
 * A pass works on LANES blocks at once. Bit i of every block lives in slice i; a gate on slices is a gate on LANES blocks. Nothing here
 * depends on the value of a bit: no branch, no table index.
 *
 * With GCC or clang a lane is a 16-byte vector, which every x86-64 and arm64 has (SSE2, NEON) and which the compiler splits into two
 * words elsewhere; any other compiler gets one 64-bit word. A level for a CPU with wider vectors sets LANE_WORDS before it includes this;
 * the kernels are written for any.
 */
#ifndef CITYCARD_LANE_H
#define CITYCARD_LANE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define ALWAYS_INLINE __attribute__((always_inline))
#define NO_INLINE __attribute__((noinline))
#ifndef LANE_WORDS
#define LANE_WORDS 2
#endif
typedef uint64_t lane __attribute__((vector_size(8 * LANE_WORDS), may_alias));
#define ZERO ((lane){0})
#define ONES ((lane)~ZERO)
#else
#define ALWAYS_INLINE
#define NO_INLINE
#define LANE_WORDS 1
typedef uint64_t lane;
#define ZERO ((lane)0)
#define ONES (~ZERO)
#endif

#define LANES (64 * LANE_WORDS)

/* How many of `n` blocks, of which `done` are done, the next pass takes. */
static inline size_t pass_size(size_t done, size_t n)
{
    return n - done < LANES ? n - done : LANES;
}

/* Overwrite memory that held key bits; the barrier keeps the compiler from dropping a store nobody reads. */
static inline void wipe(void *memory, size_t size)
{
#if defined(__GNUC__)
    memset(memory, 0, size);
    __asm__ __volatile__("" : : "r"(memory) : "memory");
#else
    volatile unsigned char *byte = memory;
    while (size--)
        *byte++ = 0;
#endif
}

/* Slices <-> rows: word w of row r holds the 8 bytes of block 64*w+r as a big-endian number before, slice r after (and back: the same map).
 * The transpose of a 64x64 bit matrix by halving (H. S. Warren, Hacker's Delight, 7-3), on LANE_WORDS matrices at once. */
static NO_INLINE void transpose64(lane rows[64])
{
    static const uint64_t masks[6] = {
        0x00000000FFFFFFFFu, 0x0000FFFF0000FFFFu, 0x00FF00FF00FF00FFu, 0x0F0F0F0F0F0F0F0Fu, 0x3333333333333333u, 0x5555555555555555u};
    for (int stage = 0; stage < 6; stage++) {
        const int distance = 32 >> stage;
        const lane mask = ZERO + masks[stage];
        for (int base = 0; base < 64; base += 2 * distance)
            for (int row = base; row < base + distance; row++) {
                const lane swap = (rows[row] ^ (rows[row + distance] >> distance)) & mask;
                rows[row] ^= swap;
                rows[row + distance] ^= swap << distance;
            }
    }
}

static inline uint64_t load_be64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | bytes[i];
    return value;
}

static inline void store_be64(uint8_t *bytes, uint64_t value)
{
    for (int i = 7; i >= 0; i--, value >>= 8)
        bytes[i] = (uint8_t)value;
}

/* Column of 8 bytes: slices[0..63] of the bytes at `base + lane * stride`, for `count` <= LANES lanes; absent lanes are zero.
 * stride 0 gives every lane the same 8 bytes. Slice 0 is the most significant bit of the first byte. */
static inline void load_slices(lane slices[64], const uint8_t *base, size_t stride, size_t count)
{
    uint64_t words[64][LANE_WORDS];
    for (size_t w = 0; w < LANE_WORDS; w++)
        for (size_t row = 0; row < 64; row++)
            words[row][w] = 64 * w + row < count ? load_be64(base + (64 * w + row) * stride) : 0;
    memcpy(slices, words, sizeof words);
    wipe(words, sizeof words);
    transpose64(slices);
}

/* The inverse: writes `count` lanes of 8 bytes. Destroys `slices`. */
static inline void store_slices(lane slices[64], uint8_t *base, size_t stride, size_t count)
{
    uint64_t words[64][LANE_WORDS];
    transpose64(slices);
    memcpy(words, slices, sizeof words);
    for (size_t w = 0; w < LANE_WORDS; w++)
        for (size_t row = 0; row < 64 && 64 * w + row < count; row++)
            store_be64(base + (64 * w + row) * stride, words[row][w]);
    wipe(words, sizeof words);
}

#endif
