/* From here to the end of the unit: code for CPUs with AVX2, and lanes of 256 bits. A per-file flag would do the same, but then every build
 * tool would have to know it. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2"))), apply_to = function)
#else
#pragma GCC target("avx2")
#endif
#define LANE_WORDS 4
