/* Modes of operation of two-key triple DES: lanes are messages, all of one length. */

typedef struct {
    tdes_key key;
    lane state[64], gap[GAP], result[64], gap2[GAP], subkey[64];
} tdes_workspace;

static void tdes_ecb(const uint8_t *keys, size_t key_stride, const uint8_t *blocks, uint8_t *out, size_t n)
{
    tdes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_next(&work.key, keys, key_stride, done, count);
        load_state(work.state, blocks + 8 * done, 8, count);
        tdes_encrypt(work.state, &work.key);
        store_result(work.state, out + 8 * done, 8, count);
    }
    finish(&work, sizeof work);
}

/* NIST SP 800-38A 6.2; `length` is a multiple of 8. */
static void tdes_cbc(const uint8_t *keys, size_t key_stride, const uint8_t *plain, size_t length, const uint8_t *iv, size_t iv_stride,
                     uint8_t *out, size_t n)
{
    tdes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_next(&work.key, keys, key_stride, done, count);
        load_result(work.result, iv + done * iv_stride, iv_stride, count);
        for (size_t at = 0; at < length; at += 8) {
            load_state(work.state, plain + done * length + at, length, count);
            chain(work.state, work.result);
            tdes_encrypt(work.state, &work.key);
            store_result(work.state, out + done * length + at, length, count);
            memcpy(work.result, work.state, sizeof work.result);
        }
    }
    finish(&work, sizeof work);
}

/* ISO/IEC 9797-1 MAC algorithm 3 on padded messages: single DES down the chain with KL, then D_KR and E_KL. */
static void tdes_retail_mac(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, const uint8_t *iv,
                            size_t iv_stride, uint8_t *out, size_t n)
{
    tdes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_next(&work.key, keys, key_stride, done, count);
        load_result(work.result, iv + done * iv_stride, iv_stride, count);
        for (size_t at = 0; at < length; at += 8) {
            load_state(work.state, messages + done * length + at, length, count);
            chain(work.state, work.result);
            des_pass(work.state, 0, &work.key.left, 0);
            memcpy(work.result, work.state, sizeof work.result);
        }
        des_pass(work.result, 32, &work.key.right, 1);
        des_pass(work.result, 0, &work.key.left, 0);
        store_result(work.result, out + 8 * done, 8, count);
    }
    finish(&work, sizeof work);
}

/* Column `at` of messages that may end inside it: then padded with 80 00 .. (ISO/IEC 9797-1 padding method 2). */
static void load_padded(lane state[64], const uint8_t *messages, size_t stride, size_t length, size_t at, size_t count)
{
    uint8_t padded[8 * LANES] = {0};
    if (at + 8 <= length) {
        load_state(state, messages + at, stride, count);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        memcpy(padded + 8 * i, messages + i * stride + at, length - at);
        padded[8 * i + length - at] = 0x80;
    }
    load_state(state, padded, 8, count);
    wipe(padded, sizeof padded);
}

/* NIST SP 800-38B, any length above 0. */
static void tdes_cmac(const uint8_t *keys, size_t key_stride, const uint8_t *messages, size_t length, uint8_t *out, size_t n)
{
    tdes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        const uint8_t *const first = messages + done * length;
        tdes_key_next(&work.key, keys, key_stride, done, count);
        if (done == 0 || key_stride) {
            fill_state(work.subkey, 0);
            tdes_encrypt(work.subkey, &work.key);
            double_result(work.subkey);
            if (length % 8)
                double_result(work.subkey);
        }
        memset(work.result, 0, sizeof work.result);
        for (size_t at = 0; at < length; at += 8) {
            load_padded(work.state, first, length, length, at, count);
            chain(work.state, work.result);
            if (at + 8 >= length)
                chain(work.state, work.subkey);
            tdes_encrypt(work.state, &work.key);
            memcpy(work.result, work.state, sizeof work.result);
        }
        store_result(work.result, out + 8 * done, 8, count);
    }
    finish(&work, sizeof work);
}

static void tdes_kcv(const uint8_t *keys, int method, uint8_t *out, size_t n)
{
    const size_t size = cc_kcv_size(method);
    tdes_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_load(&work.key, keys + 16 * done, 16, count);
        tdes_check(work.result, &work.key, method);
        store_check(work.result, out + size * done, size, count);
    }
    finish(&work, sizeof work);
}
