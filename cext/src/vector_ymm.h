/* What units for AVX2 share. Include after the unit chose its target. */
#include "frame.h"

/* The registers may hold keys. */
static __attribute__((noinline)) void wipe_registers(void)
{
    __asm__ __volatile__("vzeroall"
                         :
                         :
                         : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13",
                           "xmm14", "xmm15", "memory");
}
