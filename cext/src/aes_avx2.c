/* Bitsliced AES on x86-64 CPUs with AVX2: 256 blocks a pass. */
#include "kernels.h"

#if CC_X86_LEVELS
#include "target_avx2.h"

#include "aes_bitslice.h"
#include "target_end.h"

const cc_aes_kernels cc_aes_avx2 = AES_KERNELS("avx2");
#endif
