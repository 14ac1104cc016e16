/* All AES kernels of a unit with round instructions: include once, after its vector operations. */
#include "aes_vector.h"
#include "modes.h"
#include "aes_ops.h"
#include "aes_scp03.h"
