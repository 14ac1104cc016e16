/* All triple DES kernels for one instruction set: include once per unit, after it chose its target. Everything here is static but the
 * unit's table: a helper compiled for a wider CPU can never be the copy that the linker hands to a narrower unit. */
#include "lane.h"
#if LANE_WORDS == 8
#include "des_sbox_ternary.h"
#else
#include "des_sbox.h"
#endif

#include "sbox_table.h"

#include "des.h"
#include "tdes.h"
#include "tdes_derive.h"
#include "tdes_modes.h"
#include "tdes_scp02.h"

/* The circuits as a round uses them: inputs where the expansion reads them, a key of zeros, outputs where P leaves them. */
static void tdes_sbox_table(int box, uint8_t *out)
{
    static void (*const boxes[8])(lane *l, const lane *r, const lane *k) = {des_s1, des_s2, des_s3, des_s4, des_s5, des_s6, des_s7, des_s8};
    lane in[6], result[4], l[32], r[32], k[28];
    memset(l, 0, sizeof l);
    memset(r, 0, sizeof r);
    memset(k, 0, sizeof k);
    sbox_inputs(in, 6, 0);
    for (int i = 0; i < 6; i++)
        r[(4 * box - 5 + i + 32) % 32] = in[i];
    boxes[box - 1](l, r, k);
    for (int i = 0; i < 4; i++)
        result[i] = l[des_destinations[box - 1][i]];
    sbox_outputs(result, 4, out);
}

#define TDES_KERNELS(level)                                                                                                               \
    {                                                                                                                                    \
        .name = level, .ecb = tdes_ecb, .cbc = tdes_cbc, .retail_mac = tdes_retail_mac, .cmac = tdes_cmac, .kcv = tdes_kcv,                \
        .pboc = tdes_pboc, .scp02_wrap = tdes_scp02_wrap, .sbox_table = tdes_sbox_table,                                                  \
    }
