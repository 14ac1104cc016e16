/* Which levels run here. This unit is compiled for the plain machine: it must run before anything is known about the CPU. */
#include "kernels.h"

size_t cc_levels(const cc_kernels *found[CC_MAX_LEVELS])
{
    size_t count = 0;
    found[count++] = &cc_portable;
#if CC_X86_LEVELS
    /* These ask the operating system too: without its support the wide registers are not saved. */
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2"))
        found[count++] = &cc_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        found[count++] = &cc_avx512;
#endif
    return count;
}
