/* 256 blocks a pass on x86-64 CPUs with AVX2. */
#include "kernels.h"

#if CC_X86_LEVELS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define LANE_WORDS 4
#include "level.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const cc_kernels cc_avx2 = KERNELS("avx2");
#endif
