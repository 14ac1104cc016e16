/* The S-box circuits as compiled, on every input, so that a self-test or a unit test can compare them with the published tables. */

static void run_sbox(int box, const lane *in, lane *out)
{
    switch (box) {
    case 1: des_s1(in, out); break;
    case 2: des_s2(in, out); break;
    case 3: des_s3(in, out); break;
    case 4: des_s4(in, out); break;
    case 5: des_s5(in, out); break;
    case 6: des_s6(in, out); break;
    case 7: des_s7(in, out); break;
    case 8: des_s8(in, out); break;
    case 9: aes_sbox(in, out); break;
    default: sm4_sbox(in, out); break;
    }
}

static void sbox_table(int box, uint8_t *out)
{
    const int in_bits = box <= 8 ? 6 : 8, out_bits = box <= 8 ? 4 : 8;
    for (int base = 0; base < 1 << in_bits; base += 64) {
        uint64_t words[8][LANE_WORDS] = {{0}};
        lane in[8], result[8];
        for (int bit = 0; bit < in_bits; bit++)
            for (int x = 0; x < 64; x++)
                words[bit][0] |= (uint64_t)((base + x) >> (in_bits - 1 - bit) & 1) << x;
        memcpy(in, words, sizeof in);
        memset(result, 0, sizeof result);
        run_sbox(box, in, result);
        memcpy(words, result, sizeof words);
        for (int x = 0; x < 64; x++) {
            uint8_t value = 0;
            for (int bit = 0; bit < out_bits; bit++)
                value = (uint8_t)(value << 1 | (words[bit][0] >> x & 1));
            out[base + x] = value;
        }
    }
}
