/* Two-key triple DES on slices (ISO/IEC 18033-3 TDEA, keying option 2), and how states come from bytes and go back.
 *
 * Names: a *state* is in the order of the initial permutation; a *result* is what an encryption left, with the halves exchanged (des.h). */

/* Lanes between two states: at 512 bits a state is as long as a page, and a load from one would wait for a store to the other, which the CPU
 * tells apart by the place in the page only. */
#define GAP 9

typedef struct {
    des_key left, right;
} tdes_key;

static void tdes_key_load(tdes_key *key, const uint8_t *bytes, size_t stride, size_t count)
{
    des_key_load(&key->left, bytes, stride, count);
    des_key_load(&key->right, bytes + 8, stride, count);
}

/* What a kernel leaves: nothing in its workspace, in the frames of what it called (spilled values of an S-box) or in registers. */
static NO_INLINE void wipe_frames(void)
{
    uint8_t below[16384];
    wipe(below, sizeof below);
}

static void finish(void *workspace, size_t size)
{
    wipe(workspace, size);
    wipe_frames();
    wipe_registers();
}

/* The key for one pass: loaded when lanes have keys of their own, and before the first pass when all share one. */
static void tdes_key_next(tdes_key *key, const uint8_t *keys, size_t stride, size_t done, size_t count)
{
    if (stride)
        tdes_key_load(key, keys + done * stride, stride, count);
    else if (!done)
        tdes_key_load(key, keys, 0, LANES);
}

static void tdes_encrypt(lane state[64], const tdes_key *key)
{
    des_pass(state, 0, &key->left, 0);
    des_pass(state, 32, &key->right, 1);
    des_pass(state, 0, &key->left, 0);
}

static void tdes_encrypt_pair(lane state[64], lane state2[64], const tdes_key *key)
{
    des_pass_pair(state, state2, 0, &key->left, 0);
    des_pass_pair(state, state2, 32, &key->right, 1);
    des_pass_pair(state, state2, 0, &key->left, 0);
}

static NO_INLINE void load_state(lane state[64], const uint8_t *base, size_t stride, size_t count)
{
    lane rows[64];
    load_rows(rows, base, stride, count);
    to_slices(state, rows, &ip_order);
}

/* Bytes loaded as if an encryption had left them: what a chain starts from. */
static NO_INLINE void load_result(lane result[64], const uint8_t *base, size_t stride, size_t count)
{
    lane rows[64];
    load_rows(rows, base, stride, count);
    to_slices(result, rows, &fp_order);
}

/* The results of all lanes, 8 bytes each. */
static NO_INLINE void store_result(const lane result[64], uint8_t *base, size_t stride, size_t count)
{
    lane rows[64];
    to_rows(rows, result, &fp_order);
    store_rows(rows, base, stride, count);
    wipe(rows, sizeof rows);
}

/* Two results per lane, one after the other. */
static NO_INLINE void store_result_pair(const lane left[64], const lane right[64], uint8_t *base, size_t count)
{
    lane rows[64], rows2[64];
    to_rows(rows, left, &fp_order);
    to_rows(rows2, right, &fp_order);
    store_row_pairs(rows, rows2, base, count);
    wipe(rows, sizeof rows);
    wipe(rows2, sizeof rows2);
}

/* The first `size` <= 8 bytes of all lanes' results, one after the other. */
static NO_INLINE void store_check(const lane result[64], uint8_t *base, size_t size, size_t count)
{
    lane rows[64];
    const lane_word *const words = (const lane_word *)rows;
    const size_t last = count < 8 ? 0 : count - 8;
    to_rows(rows, result, &fp_order);
    /* whole words, of which the next one overwrites what is too much */
    for (size_t i = 0; i < last; i++)
        store_le64(base + i * size, words[i]);
    for (size_t i = last; i < count; i++)
        for (size_t byte = 0; byte < size; byte++)
            base[i * size + byte] = (uint8_t)(words[i] >> 8 * byte);
    wipe(rows, sizeof rows);
}

/* state = state ^ result: the next block of a chain, from the last block's encryption. */
static inline void chain(lane state[64], const lane result[64])
{
    for (int i = 0; i < 64; i++)
        state[i] ^= result[i ^ 32];
}

static void fill_state(lane state[64], int one_block)
{
    for (int bit = 0; bit < 64; bit++)
        state[IP_AT(bit)] = one_block && bit % 8 == 7 ? ONES : ZERO;
}

/* Odd parity for each byte of a result that is to be a DES key. */
static void set_odd_parity(lane result[64])
{
    for (int byte = 0; byte < 64; byte += 8) {
        lane sum = ONES;
        for (int bit = byte; bit < byte + 7; bit++)
            sum ^= result[IP_AT(bit) ^ 32];
        result[IP_AT(byte + 7) ^ 32] = sum;
    }
}

/* NIST SP 800-38B 6.1: twice the result in GF(2^64), as a result. */
static void double_result(lane result[64])
{
    const lane carry = result[IP_AT(0) ^ 32];
    for (int bit = 0; bit < 63; bit++)
        result[IP_AT(bit) ^ 32] = result[IP_AT(bit + 1) ^ 32];
    result[IP_AT(63) ^ 32] = carry;
    /* 0x1B, of which the lowest bit is already there */
    result[IP_AT(59) ^ 32] ^= carry;
    result[IP_AT(60) ^ 32] ^= carry;
    result[IP_AT(62) ^ 32] ^= carry;
}

/* The encryption whose first bytes are a key's check value. */
static void tdes_check(lane result[64], const tdes_key *key, int method)
{
    lane subkey[64];
    fill_state(result, method == CC_KCV_ONE_BLOCK);
    tdes_encrypt(result, key);
    if (method == CC_KCV_CMAC) {
        /* of one block of zeros: E(0 ^ K1), K1 twice E(0) */
        double_result(result);
        memcpy(subkey, result, sizeof subkey);
        fill_state(result, 0);
        chain(result, subkey);
        wipe(subkey, sizeof subkey);
        tdes_encrypt(result, key);
    }
}
