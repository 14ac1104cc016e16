/* SM4 on LANES blocks at once (GB/T 32907-2016). Slice 0 of a word is its most significant bit. */

static const uint32_t fk[4] = {0xA3B1BAC6u, 0x56AA3350u, 0x677D9197u, 0xB27022DCu};

typedef struct {
    lane round_keys[32][32];
    lane words[128], mixed[32];
} sm4_workspace;

/* tau: the S-box on the four bytes of a word, in place. */
static NO_INLINE void substitute_byte(lane byte[8])
{
    lane out[8];
    sm4_sbox(byte, out);
    memcpy(byte, out, sizeof out);
}

/* mixed = tau(a ^ b ^ c ^ k). */
static inline void substitute(lane mixed[32], const lane *a, const lane *b, const lane *c, const lane *k)
{
    for (int i = 0; i < 32; i++)
        mixed[i] = a[i] ^ b[i] ^ c[i] ^ k[i];
    for (int byte = 0; byte < 32; byte += 8)
        substitute_byte(mixed + byte);
}

/* CK_round, byte j = (4*round + j) * 7 mod 256, as slices. */
static void round_constant(lane slices[32], int round)
{
    for (int i = 0; i < 32; i++) {
        const unsigned byte = ((unsigned)(4 * round + i / 8) * 7u) & 0xFFu;
        slices[i] = byte >> (7 - i % 8) & 1u ? ONES : ZERO;
    }
}

/* 7.3 key expansion: rk_i = K_i ^ L'(tau(K_i+1 ^ K_i+2 ^ K_i+3 ^ CK_i)), L'(B) = B ^ B<<<13 ^ B<<<23. */
static void sm4_expand_keys(sm4_workspace *work, const uint8_t *keys, size_t stride, size_t count)
{
    lane *const k = work->words;
    lane constant[32];
    load_slices(k, keys, stride, count);
    load_slices(k + 64, keys + 8, stride, count);
    for (int i = 0; i < 128; i++)
        if (fk[i / 32] >> (31 - i % 32) & 1u)
            k[i] = ~k[i];
    for (int round = 0; round < 32; round++) {
        lane *const target = k + 32 * (round % 4);
        round_constant(constant, round);
        substitute(work->mixed, k + 32 * ((round + 1) % 4), k + 32 * ((round + 2) % 4), k + 32 * ((round + 3) % 4), constant);
        for (int i = 0; i < 32; i++)
            target[i] ^= work->mixed[i] ^ work->mixed[(i + 13) % 32] ^ work->mixed[(i + 23) % 32];
        memcpy(work->round_keys[round], target, sizeof work->round_keys[round]);
    }
}

/* 6.1 and 7.1: words = X_0..X_3 in, Y_0..Y_3 = X_35..X_32 out; L(B) = B ^ B<<<2 ^ B<<<10 ^ B<<<18 ^ B<<<24. */
static void encrypt_words(sm4_workspace *work)
{
    lane *const x = work->words;
    const lane *const m = work->mixed;
    for (int round = 0; round < 32; round++) {
        lane *const target = x + 32 * (round % 4);
        substitute(work->mixed, x + 32 * ((round + 1) % 4), x + 32 * ((round + 2) % 4), x + 32 * ((round + 3) % 4),
                   work->round_keys[round]);
        for (int i = 0; i < 32; i++)
            target[i] ^= m[i] ^ m[(i + 2) % 32] ^ m[(i + 10) % 32] ^ m[(i + 18) % 32] ^ m[(i + 24) % 32];
    }
    for (int i = 0; i < 32; i++) {
        lane swapped = x[i];
        x[i] = x[i + 96];
        x[i + 96] = swapped;
        swapped = x[i + 32];
        x[i + 32] = x[i + 64];
        x[i + 64] = swapped;
    }
}

static void keys_for_pass(sm4_workspace *work, const uint8_t *keys, size_t key_stride, size_t done, size_t count)
{
    if (done == 0 || key_stride)
        sm4_expand_keys(work, keys + done * key_stride, key_stride, key_stride ? count : LANES);
}

static void sm4_ecb(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n)
{
    sm4_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        keys_for_pass(&work, keys, key_stride, done, count);
        load_slices(work.words, blocks + 16 * done, 16, count);
        load_slices(work.words + 64, blocks + 16 * done + 8, 16, count);
        encrypt_words(&work);
        store_slices(work.words, out + 16 * done, 16, count);
        store_slices(work.words + 64, out + 16 * done + 8, 16, count);
    }
    wipe(&work, sizeof work);
}

static void sm4_pboc(const uint8_t *keys, size_t key_stride, const uint8_t *factors, uint8_t *out, size_t n)
{
    sm4_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        keys_for_pass(&work, keys, key_stride, done, count);
        load_slices(work.words, factors + 8 * done, 8, count);
        for (int i = 0; i < 64; i++)
            work.words[i + 64] = ~work.words[i];
        encrypt_words(&work);
        store_slices(work.words, out + 16 * done, 16, count);
        store_slices(work.words + 64, out + 16 * done + 8, 16, count);
    }
    wipe(&work, sizeof work);
}

static void sm4_kcv(const uint8_t *keys, uint8_t *out, size_t n)
{
    sm4_workspace work;
    uint8_t encrypted[8 * LANES];
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        sm4_expand_keys(&work, keys + 16 * done, 16, count);
        memset(work.words, 0, sizeof work.words);
        encrypt_words(&work);
        store_slices(work.words, encrypted, 8, count);
        for (size_t i = 0; i < count; i++)
            memcpy(out + 3 * (done + i), encrypted + 8 * i, 3);
    }
    wipe(&work, sizeof work);
    wipe(encrypted, sizeof encrypted);
}
