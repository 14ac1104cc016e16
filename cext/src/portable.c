/* The level of every machine. */
#include "kernels.h"
#include "level.h"

const cc_kernels cc_portable = KERNELS("portable");
