/* The kernels as the Cython door sees them: a table of functions per family of algorithms, and a table for each way to run it.
 *
 * Every pointer is checked by the caller; `key_stride` and `iv_stride` are 0 for one value for all rows, else the distance of rows. All
 * write `n` results, n > 0; none keeps state; each wipes its working memory, and the vector registers it used, before it returns. Outputs
 * may be the very same memory as the blocks where a function has blocks, but overlap inputs in no other way. */
#ifndef CITYCARD_KERNELS_H
#define CITYCARD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* How a key's check value is made: 3 bytes of the encrypted block of 00s or 01s, or 5 bytes of the CMAC of a block of 00s. */
enum { CC_KCV_NONE, CC_KCV_ZERO_BLOCK, CC_KCV_ONE_BLOCK, CC_KCV_CMAC };

static inline size_t cc_kcv_size(int method)
{
    return method == CC_KCV_CMAC ? 5 : 3;
}

/* One command of a segment that cards share: its header, and where in a row of plain data its data lie. `le` is -1 for none. */
typedef struct {
    uint32_t offset;
    uint16_t length;
    uint8_t cla, ins, p1, p2, encrypt;
    int16_t le;
    uint32_t counter;
} cc_apdu;

/* What is derived from masters, and in what form it goes out. */
typedef struct {
    const uint8_t *masters;
    size_t master_stride;
    const uint8_t *factors; /* per key, `levels` of 8 bytes, root first */
    size_t levels;
    int parity;         /* odd parity after each level; only triple DES looks at it */
    const uint8_t *kek; /* or NULL: the keys go out clear */
    size_t kek_len;
    const uint8_t *iv; /* of CBC under the kek, or NULL for ECB */
    size_t iv_stride;
    int kcv_method;
    uint8_t *out, *kcv;
} cc_derivation;

/* Cards that take the same commands, each with its own keys, chaining value and data. */
typedef struct {
    const uint8_t *enc_keys, *mac_keys;
    size_t key_len;
    uint8_t *chain;
    const cc_apdu *apdus;
    size_t commands;
    const uint8_t *plain;
    size_t plain_stride;
    uint8_t *out;
    size_t out_stride;
    size_t prefix;   /* 2: before each command goes its length[2], as in a slab; 0: nothing does */
    uint8_t *chains; /* NULL, or where the chaining value after each command goes: n x commands x 16 bytes (SCP03 only) */
} cc_segment;

/* The length[2] of a command before it, in each of `count` rows. */
static inline void cc_put_lengths(uint8_t *target, size_t width, size_t len, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        target[width * i] = (uint8_t)(len >> 8);
        target[width * i + 1] = (uint8_t)len;
    }
}

/* ISO/IEC 18033-3 TDEA, keying option 2 (K1, K2, K1): E_KL D_KR E_KL per 8-byte block. */
typedef struct {
    const char *name;
    void (*ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n);
    void (*cbc)(const uint8_t *keys, size_t key_stride, const uint8_t *plain, size_t length, const uint8_t *iv, size_t iv_stride, uint8_t *out,
                size_t n);
    /* ISO/IEC 9797-1 MAC algorithm 3 on padded messages. */
    void (*retail_mac)(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, const uint8_t *iv, size_t iv_stride,
                       uint8_t *out, size_t n);
    /* NIST SP 800-38B, any length above 0. */
    void (*cmac)(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, uint8_t *out, size_t n);
    void (*kcv)(const uint8_t *keys, int method, uint8_t *out, size_t n);
    /* 3DES(key, X) || 3DES(key, ~X) for 8-byte factors X, level upon level. */
    void (*pboc)(const cc_derivation *what, size_t n);
    /* GlobalPlatform Card Specification E.4.4 and E.4.6; the C-MAC of the last command is the chaining value of the next. */
    void (*scp02_wrap)(const cc_segment *segment, size_t n);
    /* The compiled circuit of box 1..8 on every input: 64 outputs. For self-tests. */
    void (*sbox_table)(int box, uint8_t *out);
} cc_tdes_kernels;

/* Rows of `len` bytes, `stride` bytes apart; stride 0 is one row that serves for all. */
typedef struct {
    const uint8_t *bytes;
    size_t stride, len;
} cc_rows;

/* Modes of operation of a cipher of 16-byte blocks. */
typedef struct {
    void (*ecb)(cc_rows keys, const uint8_t *blocks, uint8_t *out, size_t n);
    /* NIST SP 800-38A 6.2, whole blocks. */
    void (*cbc)(cc_rows keys, cc_rows iv, cc_rows plain, uint8_t *out, size_t n);
    /* ISO/IEC 9797-1 algorithm 1 without padding: whole blocks. */
    void (*cbc_mac)(cc_rows keys, cc_rows iv, cc_rows messages, uint8_t *out, size_t n);
    /* NIST SP 800-38B, any length above 0. */
    void (*cmac)(cc_rows keys, cc_rows messages, uint8_t *out, size_t n);
    void (*kcv)(cc_rows keys, int method, uint8_t *out, size_t n);
} cc_modes;

/* GB/T 32907 SM4, 16-byte keys. */
typedef struct {
    const char *name;
    cc_modes modes;
    /* SM4(key, X || ~X) for 8-byte factors X, level upon level. */
    void (*pboc)(const cc_derivation *what, size_t n);
    /* The S-box as compiled, on every input: 256 outputs. */
    void (*sbox_table)(uint8_t *out);
} cc_sm4_kernels;

/* FIPS 197 AES, keys of 16, 24 or 32 bytes. */
typedef struct {
    const char *name;
    cc_modes modes;
    /* AES-128 keys that are CMACs of messages, each under the KEK as a CBC message of its own (`iv` zeros: ECB), and their check values. */
    void (*cmac_wrapped)(cc_rows masters, cc_rows messages, cc_rows kek, cc_rows iv, int method, uint8_t *out, uint8_t *kcvs, size_t n);
    /* RFC 3394 key wrap, 8 bytes longer than the keys, under one KEK. */
    void (*kw)(cc_rows kek, cc_rows keys, uint8_t *out, size_t n);
    /* GlobalPlatform Amendment D 6.2.4 and 6.2.6; the whole CMAC of the last command is the chaining value of the next. */
    void (*scp03_wrap)(const cc_segment *segment, size_t n);
    void (*sbox_table)(uint8_t *out);
} cc_aes_kernels;

/* Which instruction sets this compiler can build. Windows stays portable: GCC does not align the stack for 32-byte vectors there
 * (GCC bug 54412). */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define CC_X86_LEVELS 1
#else
#define CC_X86_LEVELS 0
#endif

extern const cc_tdes_kernels cc_tdes_portable, cc_tdes_avx2, cc_tdes_avx512;
extern const cc_sm4_kernels cc_sm4_portable, cc_sm4_avx2, cc_sm4_aesni, cc_sm4_gfni;
extern const cc_aes_kernels cc_aes_portable, cc_aes_avx2, cc_aes_aesni, cc_aes_vaes;

/* A level: what runs of each family when it is chosen. */
typedef struct {
    const char *name;
    const cc_tdes_kernels *tdes;
    const cc_sm4_kernels *sm4;
    const cc_aes_kernels *aes;
} cc_level;

#define CC_MAX_LEVELS 3

/* The levels that were built and that this CPU and operating system run, narrowest lane first; returns how many. */
size_t cc_levels(cc_level found[CC_MAX_LEVELS]);

/* The same for a CPU that has these features of cc_features() and no others. */
size_t cc_levels_with(unsigned features, cc_level found[CC_MAX_LEVELS]);

/* What the CPU has of the features that decide between kernels: bit i for cc_feature_names[i]. */
enum { CC_AVX2 = 1, CC_AESNI = 2, CC_AVX512 = 4, CC_GFNI = 8, CC_VAES = 16, CC_FEATURES = 5 };
extern const char *const cc_feature_names[CC_FEATURES];
unsigned cc_features(void);

#endif
