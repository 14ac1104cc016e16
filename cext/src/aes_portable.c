/* Bitsliced AES for every machine. */
#include "kernels.h"
#include "aes_bitslice.h"

const cc_aes_kernels cc_aes_portable = AES_KERNELS("portable");
