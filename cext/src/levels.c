/* Which levels run here, and what each is made of. Compiled for the plain machine: this runs before anything is known about the CPU. */
#include "kernels.h"

#if CC_X86_LEVELS
#include <cpuid.h>
#endif

const char *const cc_feature_names[CC_FEATURES] = {"avx2", "aesni", "avx512", "gfni", "vaes"};

unsigned cc_features(void)
{
    unsigned features = 0;
#if CC_X86_LEVELS
    unsigned a, b, c, d;
    /* These ask the operating system too: without its support the wide registers are not saved. */
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2"))
        return 0;
    features |= CC_AVX2;
    if (__get_cpuid(1, &a, &b, &c, &d) && c & bit_AES)
        features |= CC_AESNI;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl") && __get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        features |= CC_AVX512;
        features |= c & 1u << 8 ? CC_GFNI : 0;
        features |= c & 1u << 9 ? CC_VAES : 0;
    }
#endif
    return features;
}

size_t cc_levels(cc_level found[CC_MAX_LEVELS])
{
    return cc_levels_with(cc_features(), found);
}

size_t cc_levels_with(unsigned features, cc_level found[CC_MAX_LEVELS])
{
    size_t count = 0;
    cc_level level = {"portable", &cc_tdes_portable, &cc_sm4_portable, &cc_aes_portable};
    found[count++] = level;
#if CC_X86_LEVELS
    if (features & CC_AVX2) {
        level = (cc_level){"avx2", &cc_tdes_avx2, &cc_sm4_avx2, &cc_aes_avx2};
        if (features & CC_AESNI) {
            level.sm4 = &cc_sm4_aesni;
            level.aes = &cc_aes_aesni;
        }
        found[count++] = level;
    }
    if (features & CC_AVX512) {
        /* What has no kernel of its own here stays as it is one level below. */
        level.name = "avx512";
        level.tdes = &cc_tdes_avx512;
        if (features & CC_GFNI)
            level.sm4 = &cc_sm4_gfni;
        if (features & CC_VAES)
            level.aes = &cc_aes_vaes;
        found[count++] = level;
    }
#else
    (void)features;
#endif
    return count;
}
