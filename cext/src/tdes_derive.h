/* Dispersion of keys, and what becomes of a derived key: check value and wrapping. It stays in slices all the way. */

typedef struct {
    tdes_key master, kek, derived;
    lane left[64], gap[GAP], right[64], gap2[GAP], check[64];
} derive_workspace;

/* left || right = 3DES(key, X) || 3DES(key, ~X) as results, for the factors at `factors`. */
static void disperse(derive_workspace *work, const tdes_key *key, const uint8_t *factors, size_t stride, size_t count, int parity)
{
    load_state(work->left, factors, stride, count);
    for (int i = 0; i < 64; i++)
        work->right[i] = ~work->left[i];
    tdes_encrypt_pair(work->left, work->right, key);
    if (parity) {
        set_odd_parity(work->left);
        set_odd_parity(work->right);
    }
}

static void use_derived(derive_workspace *work)
{
    des_key_from_result(&work->derived.left, work->left);
    des_key_from_result(&work->derived.right, work->right);
}

/* The derived key's two blocks under the key-encryption key, in place; `iv` in check, or none for ECB. */
static void wrap_derived(derive_workspace *work, int cbc)
{
    lane *const left = work->left, *const right = work->right;
    for (int i = 0; i < 32; i++) {
        const lane first = left[i], second = right[i];
        left[i] = left[i + 32];
        left[i + 32] = first;
        right[i] = right[i + 32];
        right[i + 32] = second;
    }
    if (!cbc) {
        tdes_encrypt_pair(left, right, &work->kek);
        return;
    }
    chain(left, work->check);
    tdes_encrypt(left, &work->kek);
    chain(right, left);
    tdes_encrypt(right, &work->kek);
}

static void tdes_pboc(const cc_derivation *what, size_t n)
{
    derive_workspace work;
    const size_t levels = what->levels, kcv_size = cc_kcv_size(what->kcv_method);
    if (what->kek)
        tdes_key_load(&work.kek, what->kek, 0, LANES);
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        tdes_key_next(&work.master, what->masters, what->master_stride, done, count);
        for (size_t level = 0; level < levels; level++) {
            if (level)
                use_derived(&work);
            disperse(&work, level ? &work.derived : &work.master, what->factors + 8 * (done * levels + level), 8 * levels, count, what->parity);
        }
        if (what->kcv_method != CC_KCV_NONE) {
            use_derived(&work);
            tdes_check(work.check, &work.derived, what->kcv_method);
            store_check(work.check, what->kcv + kcv_size * done, kcv_size, count);
        }
        if (what->kek) {
            if (what->iv)
                load_result(work.check, what->iv + done * what->iv_stride, what->iv_stride, count);
            wrap_derived(&work, what->iv != NULL);
        }
        store_result_pair(work.left, work.right, what->out + 16 * done, count);
    }
    finish(&work, sizeof work);
}
