/* The kernels as the Cython door sees them: one table of functions per level.
 *
 * Every pointer is checked by the caller; `key_stride` is 0 for one key for all blocks, else the key length. All write `n` results; none
 * keeps state; each wipes its working memory before it returns. Outputs may be the very same memory as the blocks, but overlap them in no
 * other way. */
#ifndef CITYCARD_KERNELS_H
#define CITYCARD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const char *level;

    /* ISO/IEC 18033-3 TDEA, keying option 2 (K1, K2, K1): E_KL D_KR E_KL per 8-byte block. */
    void (*tdes_ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n);
    /* 3DES(key, X) || 3DES(key, ~X) for 8-byte factors X; with `parity` every output byte gets odd parity. */
    void (*tdes_pboc)(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n, int parity);
    /* First three bytes of the encrypted zero block. */
    void (*tdes_kcv)(const uint8_t *keys, uint8_t *out, size_t n);

    /* GB/T 32907 SM4, 16-byte blocks. */
    void (*sm4_ecb)(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n);
    /* SM4(key, X || ~X). */
    void (*sm4_pboc)(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n);
    void (*sm4_kcv)(const uint8_t *keys, uint8_t *out, size_t n);

    /* FIPS 197 AES; `key_len` is 16, 24 or 32. */
    void (*aes_ecb)(const uint8_t *keys, size_t key_stride, size_t key_len, const uint8_t *blocks, uint8_t *out, size_t n);
    /* First three bytes of the encrypted block 01 01 .. 01 (GlobalPlatform Amendment D, 7.2.2 as PUT KEY uses it). */
    void (*aes_kcv01)(const uint8_t *keys, size_t key_len, uint8_t *out, size_t n);

    /* The compiled S-box circuits run on every input: box 1..8 gives 64 DES outputs, 9 AES and 10 SM4 give 256. For self-tests. */
    void (*sbox_table)(int box, uint8_t *out);
} cc_kernels;

/* Which levels this compiler can build. Windows stays portable: GCC does not align the stack for 32-byte vectors there (GCC bug 54412). */
#if defined(__GNUC__) && defined(__x86_64__) && !defined(_WIN32)
#define CC_X86_LEVELS 1
#else
#define CC_X86_LEVELS 0
#endif

#define CC_MAX_LEVELS 3

extern const cc_kernels cc_portable, cc_avx2, cc_avx512;

/* The levels that were built and that this CPU and operating system run, narrowest lane first; returns how many. */
size_t cc_levels(const cc_kernels *found[CC_MAX_LEVELS]);

#endif
