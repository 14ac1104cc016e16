/* From here to the end of the unit: code for CPUs with AVX2 and AES-NI. */
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,aes"))), apply_to = function)
#else
#pragma GCC target("avx2,aes")
#endif
