/* AES-128/192/256 encryption on LANES blocks at once (FIPS 197). Slices 8*i..8*i+7 are byte i of the state, most significant bit first. */

#define AES_MAX_ROUNDS 14

typedef struct {
    lane schedule[(AES_MAX_ROUNDS + 1) * 128];
    lane state[128], shifted[128];
} aes_workspace;

static NO_INLINE void aes_sub_byte(lane out[8], const lane in[8])
{
    lane result[8];
    aes_sbox(in, result);
    memcpy(out, result, sizeof result);
}

/* 5.2 key expansion, word by word: nk words in, 4 * (rounds + 1) words out. */
static void aes_expand_keys(aes_workspace *work, const uint8_t *keys, size_t stride, size_t key_len, size_t count)
{
    lane *const w = work->schedule;
    const size_t nk = key_len / 4, words = 4 * (nk + 7);
    lane loaded[64], previous[32];
    uint8_t rcon = 1;
    for (size_t part = 0; part < key_len / 8; part++) {
        load_slices(loaded, keys + 8 * part, stride, count);
        memcpy(w + 64 * part, loaded, sizeof loaded);
    }
    for (size_t word = nk; word < words; word++) {
        memcpy(previous, w + 32 * (word - 1), sizeof previous);
        if (word % nk == 0) {
            for (int byte = 0; byte < 4; byte++) /* SubWord(RotWord) */
                aes_sub_byte(previous + 8 * byte, w + 32 * (word - 1) + 8 * ((byte + 1) % 4));
            for (int bit = 0; bit < 8; bit++)
                if (rcon >> (7 - bit) & 1)
                    previous[bit] = ~previous[bit];
            rcon = (uint8_t)(rcon << 1 ^ (rcon & 0x80 ? 0x1B : 0));
        } else if (nk == 8 && word % nk == 4) {
            for (int byte = 0; byte < 4; byte++)
                aes_sub_byte(previous + 8 * byte, w + 32 * (word - 1) + 8 * byte);
        }
        for (int i = 0; i < 32; i++)
            w[32 * word + i] = w[32 * (word - nk) + i] ^ previous[i];
    }
    wipe(loaded, sizeof loaded);
    wipe(previous, sizeof previous);
}

/* 2 * a in GF(2^8), a as slices. */
static inline ALWAYS_INLINE void xtime(lane out[8], const lane a[8])
{
    out[0] = a[1];
    out[1] = a[2];
    out[2] = a[3];
    out[3] = a[4] ^ a[0];
    out[4] = a[5] ^ a[0];
    out[5] = a[6];
    out[6] = a[7] ^ a[0];
    out[7] = a[0];
}

/* 5.1.3 MixColumns of one column: b_i = 2(a_i ^ a_i+1) ^ a_i ^ all, all = a_0 ^ a_1 ^ a_2 ^ a_3. */
static NO_INLINE void mix_column(lane out[32], const lane a[32])
{
    lane all[8], pair[8], doubled[8];
    for (int bit = 0; bit < 8; bit++)
        all[bit] = a[bit] ^ a[8 + bit] ^ a[16 + bit] ^ a[24 + bit];
    for (int byte = 0; byte < 4; byte++) {
        for (int bit = 0; bit < 8; bit++)
            pair[bit] = a[8 * byte + bit] ^ a[8 * ((byte + 1) % 4) + bit];
        xtime(doubled, pair);
        for (int bit = 0; bit < 8; bit++)
            out[8 * byte + bit] = doubled[bit] ^ a[8 * byte + bit] ^ all[bit];
    }
}

static void encrypt_state(aes_workspace *work, size_t key_len)
{
    const size_t rounds = key_len / 4 + 6;
    for (int i = 0; i < 128; i++)
        work->state[i] ^= work->schedule[i];
    for (size_t round = 1; round <= rounds; round++) {
        for (int column = 0; column < 4; column++)
            for (int row = 0; row < 4; row++) /* ShiftRows: row r of column c comes from column c + r */
                aes_sub_byte(work->shifted + 8 * (4 * column + row), work->state + 8 * (4 * ((column + row) % 4) + row));
        if (round < rounds)
            for (int column = 0; column < 4; column++)
                mix_column(work->state + 32 * column, work->shifted + 32 * column);
        else
            memcpy(work->state, work->shifted, sizeof work->state);
        for (int i = 0; i < 128; i++)
            work->state[i] ^= work->schedule[128 * round + (size_t)i];
    }
}

static void aes_ecb(const uint8_t *keys, size_t key_stride, size_t key_len, const uint8_t *blocks, uint8_t *out, size_t n)
{
    aes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        if (done == 0 || key_stride)
            aes_expand_keys(&work, keys + done * key_stride, key_stride, key_len, key_stride ? count : LANES);
        load_slices(work.state, blocks + 16 * done, 16, count);
        load_slices(work.state + 64, blocks + 16 * done + 8, 16, count);
        encrypt_state(&work, key_len);
        store_slices(work.state, out + 16 * done, 16, count);
        store_slices(work.state + 64, out + 16 * done + 8, 16, count);
    }
    wipe(&work, sizeof work);
}

static void aes_kcv01(const uint8_t *keys, size_t key_len, uint8_t *out, size_t n)
{
    aes_workspace work;
    uint8_t encrypted[8 * LANES];
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        aes_expand_keys(&work, keys + key_len * done, key_len, key_len, count);
        for (int i = 0; i < 128; i++)
            work.state[i] = i % 8 == 7 ? ONES : ZERO;
        encrypt_state(&work, key_len);
        store_slices(work.state, encrypted, 8, count);
        for (size_t i = 0; i < count; i++)
            memcpy(out + 3 * (done + i), encrypted + 8 * i, 3);
    }
    wipe(&work, sizeof work);
    wipe(encrypted, sizeof encrypted);
}
