/* DES on LANES blocks at once (FIPS 46-3).
 *
 * A state is 64 slices, L then R, in the order the initial permutation gives. A pass of 16 rounds works in place and leaves R16 where L was
 * read, so its result is the preoutput block with the halves exchanged: slice i of the state that the final permutation would undo is
 * state[i ^ 32]. Nothing moves them back: a following pass starts from the other half, and what reads a result reads it exchanged. */

/* Where bit 0..63 of a block lies in the state. FIPS 46-3 IP is regular: odd bits of each byte make L, even bits R, last byte first. */
#define IP_AT(bit) (((bit) % 2 ? (bit) % 8 / 2 : 4 + (bit) % 8 / 2) * 8 + 7 - (bit) / 8)
static const slice_order ip_order = {{IP_AT(0), IP_AT(1), IP_AT(2), IP_AT(3), IP_AT(4), IP_AT(5), IP_AT(6), IP_AT(7)}, -1};
static const slice_order fp_order = {
    {IP_AT(0) ^ 32, IP_AT(1) ^ 32, IP_AT(2) ^ 32, IP_AT(3) ^ 32, IP_AT(4) ^ 32, IP_AT(5) ^ 32, IP_AT(6) ^ 32, IP_AT(7) ^ 32}, -1};

/* PC-1: key bits that make C (first 28) and D. */
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

/* A key that a pass has just computed: it goes from slices to slices. */
static void des_key_from_result(des_key *key, const lane state[64])
{
    for (int i = 0; i < 28; i++) {
        key->c[i] = key->c[i + 28] = state[IP_AT(pc1[i]) ^ 32];
        key->d[i] = key->d[i + 28] = state[IP_AT(pc1[i + 28]) ^ 32];
    }
}

/* Keeps the compiler from interleaving S-boxes, which would spill more than it gains. */
#if defined(__GNUC__)
#define BARRIER __asm__ __volatile__("" : : : "memory")
#else
#define BARRIER (void)0
#endif

/* l ^= f(r, subkey). */
static inline ALWAYS_INLINE void des_round(lane l[32], const lane r[32], const lane *c, const lane *d)
{
    des_s1(l, r, c);
    BARRIER;
    des_s2(l, r, c);
    BARRIER;
    des_s3(l, r, c);
    BARRIER;
    des_s4(l, r, c);
    BARRIER;
    des_s5(l, r, d);
    BARRIER;
    des_s6(l, r, d);
    BARRIER;
    des_s7(l, r, d);
    BARRIER;
    des_s8(l, r, d);
    BARRIER;
}

#if LANE_WORDS == 8
static inline ALWAYS_INLINE void des_round_pair(lane l[32], lane l2[32], const lane r[32], const lane r2[32], const lane *c, const lane *d)
{
    des_pair_s1(l, l2, r, r2, c);
    BARRIER;
    des_pair_s2(l, l2, r, r2, c);
    BARRIER;
    des_pair_s3(l, l2, r, r2, c);
    BARRIER;
    des_pair_s4(l, l2, r, r2, c);
    BARRIER;
    des_pair_s5(l, l2, r, r2, d);
    BARRIER;
    des_pair_s6(l, l2, r, r2, d);
    BARRIER;
    des_pair_s7(l, l2, r, r2, d);
    BARRIER;
    des_pair_s8(l, l2, r, r2, d);
    BARRIER;
}
#endif

/* Sixteen rounds; `l` is the half of the state that they take for L: 0, or 32 after an odd number of passes. */
static NO_INLINE void des_pass(lane state[64], size_t l, const des_key *key, int decrypt)
{
    lane *left = state + l, *right = state + (l ^ 32);
    for (int round = 0; round < 16; round++) {
        const int shift = rotation[decrypt ? 15 - round : round];
        des_round(left, right, key->c + shift, key->d + shift);
        lane *const swapped = left;
        left = right;
        right = swapped;
    }
}

/* The same for two states under one key. */
#if LANE_WORDS == 8
static NO_INLINE void des_pass_pair(lane state[64], lane state2[64], size_t l, const des_key *key, int decrypt)
{
    lane *left = state + l, *right = state + (l ^ 32), *left2 = state2 + l, *right2 = state2 + (l ^ 32);
    for (int round = 0; round < 16; round++) {
        const int shift = rotation[decrypt ? 15 - round : round];
        des_round_pair(left, left2, right, right2, key->c + shift, key->d + shift);
        lane *const swapped = left, *const swapped2 = left2;
        left = right;
        right = swapped;
        left2 = right2;
        right2 = swapped2;
    }
}
#else
static void des_pass_pair(lane state[64], lane state2[64], size_t l, const des_key *key, int decrypt)
{
    des_pass(state, l, key, decrypt);
    des_pass(state2, l, key, decrypt);
}
#endif
