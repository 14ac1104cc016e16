/* All SM4 kernels of a unit with vectors of words: include once, after its vector operations. */
#include "sm4_vector.h"
#include "modes.h"
#include "sm4_ops.h"
