/* The kernels as the Cython door sees them. Every pointer is checked by the caller; `key_stride` is 0 for one key for all blocks, else the
 * key length. All write `n` results; none keeps state; each wipes its working memory before it returns. Outputs may be the very same
 * memory as the blocks, but overlap them in no other way. */
#ifndef CITYCARD_KERNELS_H
#define CITYCARD_KERNELS_H

#include <stddef.h>
#include <stdint.h>

/* ISO/IEC 18033-3 TDEA, keying option 2 (K1, K2, K1): E_KL D_KR E_KL per 8-byte block. */
void cc_tdes_ecb(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n);
/* 3DES(key, X) || 3DES(key, ~X) for 8-byte factors X; with `parity` every output byte gets odd parity. */
void cc_tdes_pboc(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n, int parity);
/* First three bytes of the encrypted zero block. */
void cc_tdes_kcv(const uint8_t *keys, uint8_t *out, size_t n);

/* GB/T 32907 SM4, 16-byte blocks. */
void cc_sm4_ecb(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n);
/* SM4(key, X || ~X). */
void cc_sm4_pboc(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n);
void cc_sm4_kcv(const uint8_t *keys, uint8_t *out, size_t n);

/* FIPS 197 AES; `key_len` is 16, 24 or 32. */
void cc_aes_ecb(const uint8_t *keys, size_t key_stride, size_t key_len, const uint8_t *blocks, uint8_t *out, size_t n);
/* First three bytes of the encrypted block 01 01 .. 01 (GlobalPlatform Amendment D, 7.2.2 as PUT KEY uses it). */
void cc_aes_kcv01(const uint8_t *keys, size_t key_len, uint8_t *out, size_t n);

/* The compiled S-box circuits run on every input: box 1..8 gives 64 DES outputs, 9 AES and 10 SM4 give 256. For self-tests. */
void cc_sbox_table(int box, uint8_t *out);

#endif
