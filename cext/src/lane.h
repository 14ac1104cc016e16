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
#define NO_INLINE __attribute__((noinline, unused))
#ifndef LANE_WORDS
#define LANE_WORDS 2
#endif
typedef uint64_t lane __attribute__((vector_size(8 * LANE_WORDS), may_alias));
typedef uint64_t lane_word __attribute__((may_alias));
#define ZERO ((lane){0})
#define ONES ((lane)~ZERO)
#else
#define ALWAYS_INLINE
#define NO_INLINE
#define LANE_WORDS 1
typedef uint64_t lane, lane_word;
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

/* The vector registers still hold what the last pass left in them: a kernel that touched keys ends with this. */
#define REGISTERS_0_15(_) _(0) _(1) _(2) _(3) _(4) _(5) _(6) _(7) _(8) _(9) _(10) _(11) _(12) _(13) _(14) _(15)
#define REGISTERS_16_31(_) _(16) _(17) _(18) _(19) _(20) _(21) _(22) _(23) _(24) _(25) _(26) _(27) _(28) _(29) _(30) _(31)

static NO_INLINE void wipe_registers(void)
{
#if defined(__GNUC__) && defined(__x86_64__)
#if LANE_WORDS == 8
#define CLEAR(n) __asm__ __volatile__("vpxorq %%zmm" #n ", %%zmm" #n ", %%zmm" #n : : : "xmm" #n);
    REGISTERS_0_15(CLEAR) REGISTERS_16_31(CLEAR)
#elif LANE_WORDS == 4
#define CLEAR(n) __asm__ __volatile__("vpxor %%ymm" #n ", %%ymm" #n ", %%ymm" #n : : : "xmm" #n);
    REGISTERS_0_15(CLEAR)
#else
#define CLEAR(n) __asm__ __volatile__("pxor %%xmm" #n ", %%xmm" #n : : : "xmm" #n);
    REGISTERS_0_15(CLEAR)
#endif
#undef CLEAR
#elif defined(__GNUC__) && defined(__aarch64__)
#define CLEAR(n) __asm__ __volatile__("movi v" #n ".2d, #0" : : : "v" #n);
    REGISTERS_0_15(CLEAR) REGISTERS_16_31(CLEAR)
#undef CLEAR
#endif
}

#include "lane_transpose.h"

#endif
