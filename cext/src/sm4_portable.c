/* Bitsliced SM4 for every machine. */
#include "kernels.h"
#include "sm4_bitslice.h"

const cc_sm4_kernels cc_sm4_portable = SM4_KERNELS("portable");
