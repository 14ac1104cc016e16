/* From here to the end of the unit: code for CPUs with AVX-512 (F, BW, DQ, VL), and lanes of 512 bits. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl")
#endif
#define LANE_WORDS 8
