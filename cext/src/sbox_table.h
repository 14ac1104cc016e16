/* A compiled S-box circuit on 64 inputs at once, so that a self-test can compare it with the published table. */

/* Slice `bit` of input values base .. base + 63, most significant bit first. */
static inline void sbox_inputs(lane *in, int bits, int base)
{
    for (int bit = 0; bit < bits; bit++) {
        uint64_t words[LANE_WORDS] = {0};
        for (int x = 0; x < 64; x++)
            words[0] |= (uint64_t)((base + x) >> (bits - 1 - bit) & 1) << x;
        memcpy(&in[bit], words, sizeof words);
    }
}

static inline void sbox_outputs(const lane *result, int bits, uint8_t *out)
{
    memset(out, 0, 64);
    for (int bit = 0; bit < bits; bit++) {
        uint64_t words[LANE_WORDS];
        memcpy(words, &result[bit], sizeof words);
        for (int x = 0; x < 64; x++)
            out[x] = (uint8_t)(out[x] << 1 | (words[0] >> x & 1));
    }
}
