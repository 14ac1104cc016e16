/* Bitsliced triple DES on x86-64 CPUs with AVX2: 256 blocks a pass. */
#include "kernels.h"

#if CC_X86_LEVELS
#include "target_avx2.h"
#include "tdes_bitslice.h"
#include "target_end.h"

const cc_tdes_kernels cc_tdes_avx2 = TDES_KERNELS("avx2");
#endif
