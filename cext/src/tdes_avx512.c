/* Bitsliced triple DES on x86-64 CPUs with AVX-512: 512 blocks a pass. */
#include "kernels.h"

#if CC_X86_LEVELS
#include "target_avx512.h"
#include "tdes_bitslice.h"
#include "target_end.h"

const cc_tdes_kernels cc_tdes_avx512 = TDES_KERNELS("avx512");
#endif
