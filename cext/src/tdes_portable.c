/* Bitsliced triple DES for every machine. */
#include "kernels.h"
#include "tdes_bitslice.h"

const cc_tdes_kernels cc_tdes_portable = TDES_KERNELS("portable");
