/* Bitsliced SM4 on x86-64 CPUs with AVX2: 256 blocks a pass. */
#include "kernels.h"

#if CC_X86_LEVELS
#include "target_avx2.h"

#include "sm4_bitslice.h"
#include "target_end.h"

const cc_sm4_kernels cc_sm4_avx2 = SM4_KERNELS("avx2");
#endif
