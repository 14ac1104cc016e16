/* Two-key triple DES on LANES blocks at once (FIPS 46-3). */

/* FIPS 46-3 initial permutation: slice of the block that becomes slice i of L || R. */
static const uint8_t ip[64] = {
    57, 49, 41, 33, 25, 17, 9,  1, 59, 51, 43, 35, 27, 19, 11, 3, 61, 53, 45, 37, 29, 21, 13, 5, 63, 55, 47, 39, 31, 23, 15, 7,
    56, 48, 40, 32, 24, 16, 8,  0, 58, 50, 42, 34, 26, 18, 10, 2, 60, 52, 44, 36, 28, 20, 12, 4, 62, 54, 46, 38, 30, 22, 14, 6};

/* PC-1: key slices that make C (first 28) and D. */
static const uint8_t pc1[56] = {56, 48, 40, 32, 24, 16, 8,  0,  57, 49, 41, 33, 25, 17, 9,  1,  58, 50, 42, 34, 26, 18, 10, 2,  59, 51, 43, 35,
                                62, 54, 46, 38, 30, 22, 14, 6,  61, 53, 45, 37, 29, 21, 13, 5,  60, 52, 44, 36, 28, 20, 12, 4,  27, 19, 11, 3};

/* Total left rotation of C and D in round 1..16. */
static const uint8_t rotation[16] = {1, 2, 4, 6, 8, 10, 12, 14, 15, 17, 19, 21, 23, 25, 27, 28};

/* C and D written twice, so that a rotation by s is the base offset s and PC-2 becomes constants in the round. */
typedef struct {
    lane c[56], d[56];
} des_key;

static void des_key_load(des_key *key, const uint8_t *bytes, size_t stride, size_t count)
{
    lane slices[64];
    load_slices(slices, bytes, stride, count);
    for (int i = 0; i < 28; i++) {
        key->c[i] = key->c[i + 28] = slices[pc1[i]];
        key->d[i] = key->d[i + 28] = slices[pc1[i + 28]];
    }
    wipe(slices, sizeof slices);
}

/* One S-box of a round: expansion E picks r[e0..e5], PC-2 picks six key slices, P scatters the outputs. */
#define SBOX(box, e0, e1, e2, e3, e4, e5, k, k0, k1, k2, k3, k4, k5, p0, p1, p2, p3)                                                      \
    do {                                                                                                                                 \
        const lane in[6] = {r[e0] ^ (k)[k0], r[e1] ^ (k)[k1], r[e2] ^ (k)[k2], r[e3] ^ (k)[k3], r[e4] ^ (k)[k4], r[e5] ^ (k)[k5]};          \
        lane out[4];                                                                                                                     \
        box(in, out);                                                                                                                    \
        l[p0] ^= out[0];                                                                                                                 \
        l[p1] ^= out[1];                                                                                                                 \
        l[p2] ^= out[2];                                                                                                                 \
        l[p3] ^= out[3];                                                                                                                 \
        BARRIER;                                                                                                                         \
    } while (0)

/* Keeps the compiler from interleaving S-boxes, which would spill more than it gains. */
#if defined(__GNUC__)
#define BARRIER __asm__ __volatile__("" : : : "memory")
#else
#define BARRIER (void)0
#endif

/* l ^= f(r, subkey): FIPS 46-3 E, PC-2 (here minus 1, the second half minus 29) and P (here as destination of each output bit). */
static NO_INLINE void des_round(lane l[32], const lane r[32], const lane *c, const lane *d)
{
    SBOX(des_s1, 31, 0, 1, 2, 3, 4, c, 13, 16, 10, 23, 0, 4, 8, 16, 22, 30);
    SBOX(des_s2, 3, 4, 5, 6, 7, 8, c, 2, 27, 14, 5, 20, 9, 12, 27, 1, 17);
    SBOX(des_s3, 7, 8, 9, 10, 11, 12, c, 22, 18, 11, 3, 25, 7, 23, 15, 29, 5);
    SBOX(des_s4, 11, 12, 13, 14, 15, 16, c, 15, 6, 26, 19, 12, 1, 25, 19, 9, 0);
    SBOX(des_s5, 15, 16, 17, 18, 19, 20, d, 12, 23, 2, 8, 18, 26, 7, 13, 24, 2);
    SBOX(des_s6, 19, 20, 21, 22, 23, 24, d, 1, 11, 22, 16, 4, 19, 3, 28, 10, 18);
    SBOX(des_s7, 23, 24, 25, 26, 27, 28, d, 15, 20, 10, 27, 5, 24, 31, 11, 21, 6);
    SBOX(des_s8, 27, 28, 29, 30, 31, 0, d, 17, 13, 21, 7, 0, 3, 4, 26, 14, 20);
}

/* Sixteen rounds on halves[0..31] = L, [32..63] = R. After an even number of rounds the halves are back in place; the standard's final
 * swap is left to the caller, who reads R || L. */
static void des_rounds(lane halves[64], const des_key *key, int decrypt)
{
    lane *l = halves, *r = halves + 32;
    for (int round = 0; round < 16; round++) {
        const int shift = rotation[decrypt ? 15 - round : round];
        des_round(l, r, key->c + shift, key->d + shift);
        lane *const swapped = l;
        l = r;
        r = swapped;
    }
}

typedef struct {
    des_key left, right;
    lane block[64], halves[64], result[64];
} des_workspace;

static void tdes_key_load(des_workspace *work, const uint8_t *keys, size_t stride, size_t count)
{
    des_key_load(&work->left, keys, stride, count);
    des_key_load(&work->right, keys + 8, stride, count);
}

/* result = 3DES(block ^ flip). Between the three passes FP and IP cancel and only the swap of halves remains, which a change of
 * the half that a pass calls L performs: so each pass starts from exchanged halves. */
static void tdes_encrypt(des_workspace *work, lane flip)
{
    lane *const halves = work->halves;
    for (int i = 0; i < 64; i++)
        halves[i] = work->block[ip[i]] ^ flip;
    for (int pass = 0; pass < 3; pass++) {
        if (pass)
            for (int i = 0; i < 32; i++) {
                const lane swapped = halves[i];
                halves[i] = halves[i + 32];
                halves[i + 32] = swapped;
            }
        des_rounds(halves, pass == 1 ? &work->right : &work->left, pass == 1);
    }
    for (int i = 0; i < 32; i++) {
        work->result[ip[i]] = halves[i + 32];
        work->result[ip[i + 32]] = halves[i];
    }
}

static void set_odd_parity(lane slices[64])
{
    for (int byte = 0; byte < 64; byte += 8) {
        lane sum = ONES;
        for (int bit = 0; bit < 7; bit++)
            sum ^= slices[byte + bit];
        slices[byte + 7] = sum;
    }
}

static void tdes_ecb(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n)
{
    des_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        if (done == 0 || key_stride)
            tdes_key_load(&work, keys + done * key_stride, key_stride, key_stride ? count : LANES);
        load_slices(work.block, blocks + 8 * done, 8, count);
        tdes_encrypt(&work, ZERO);
        store_slices(work.result, out + 8 * done, 8, count);
    }
    wipe(&work, sizeof work);
}

static void tdes_pboc(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n, int parity)
{
    des_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        if (done == 0 || key_stride)
            tdes_key_load(&work, keys + done * key_stride, key_stride, key_stride ? count : LANES);
        load_slices(work.block, factors + 8 * done, 8, count);
        for (int half = 0; half < 2; half++) {
            tdes_encrypt(&work, half ? ONES : ZERO);
            if (parity)
                set_odd_parity(work.result);
            store_slices(work.result, out + 16 * done + 8 * half, 16, count);
        }
    }
    wipe(&work, sizeof work);
}

static void tdes_kcv(const uint8_t *keys, uint8_t *out, size_t n)
{
    des_workspace work;
    uint8_t encrypted[8 * LANES];
    memset(work.block, 0, sizeof work.block);
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_load(&work, keys + 16 * done, 16, count);
        tdes_encrypt(&work, ZERO);
        store_slices(work.result, encrypted, 8, count);
        for (size_t i = 0; i < count; i++)
            memcpy(out + 3 * (done + i), encrypted + 8 * i, 3);
    }
    wipe(&work, sizeof work);
    wipe(encrypted, sizeof encrypted);
}
