/* All kernels for one level. Include once per translation unit, after the unit chose its instruction set and LANE_WORDS.
 *
 * Everything a unit compiles is static but its table: a helper compiled for a wider CPU can never be the copy that the linker hands to the
 * portable unit, and no vector crosses from a unit to another. */
#include "lane.h"
#include "des_sbox.h"
#include "tower_sbox.h"

#include "aes.h"
#include "des.h"
#include "sbox_table.h"
#include "sm4.h"

#define KERNELS(name)                                                                                                                     \
    {                                                                                                                                    \
        .level = name, .tdes_ecb = tdes_ecb, .tdes_pboc = tdes_pboc, .tdes_kcv = tdes_kcv, .sm4_ecb = sm4_ecb, .sm4_pboc = sm4_pboc,        \
        .sm4_kcv = sm4_kcv, .aes_ecb = aes_ecb, .aes_kcv01 = aes_kcv01, .sbox_table = sbox_table,                                         \
    }
