/* Leaving nothing behind: a kernel works in a frame of its own, and its caller overwrites that part of the stack and the registers.
 *
 * The compiler keeps intermediate values where it likes, in registers or in spill slots without a name. Overwriting the whole frame
 * afterwards catches them all; a unit says with FRAME how much a kernel may have used, and with wipe_registers() what else. */
#ifndef CITYCARD_FRAME_H
#define CITYCARD_FRAME_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define OWN_FRAME static __attribute__((noinline))
#define FORGET_BYTES(memory) __asm__ __volatile__("" : : "r"(memory) : "memory")
#else
#define INLINE static inline
#define OWN_FRAME static
#define FORGET_BYTES(memory) (void)*(volatile uint8_t *)(memory)
#endif

static const uint8_t zero_block[16] = {0};

/* Defines `name`, which runs `name`_in_frame and overwrites what that left. */
#define KERNEL(name, parameters, arguments)                                                                                              \
    static void name parameters                                                                                                          \
    {                                                                                                                                    \
        name##_in_frame arguments;                                                                                                       \
        overwrite_frame();                                                                                                               \
        wipe_registers();                                                                                                               \
    }

#endif
