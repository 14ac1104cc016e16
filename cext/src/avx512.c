/* 512 blocks a pass on x86-64 CPUs with AVX-512. */
#include "kernels.h"

#if CC_X86_LEVELS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define LANE_WORDS 8
#include "level.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif

const cc_kernels cc_avx512 = KERNELS("avx512");
#endif
