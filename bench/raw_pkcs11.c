/* The yardstick of bench/test_bench_token.py: the calls that derive and wrap card keys in a token, in C and nothing around them.
   Built as a shared library and run in the same process, on the same session and keys. Types are those of PKCS#11 v2.40. */
#include <stddef.h>

typedef unsigned long ck;
struct mechanism { ck type; void *parameter; ck parameter_len; };
struct attribute { ck type; void *value; ck value_len; };
struct string_data { unsigned char *data; ck data_len; };

typedef ck (*derive_fn)(ck session, struct mechanism *, ck base, struct attribute *, ck count, ck *key);
typedef ck (*init_fn)(ck session, struct mechanism *, ck key);
typedef ck (*crypt_fn)(ck session, unsigned char *in, ck in_len, unsigned char *out, ck *out_len);
typedef ck (*wrap_fn)(ck session, struct mechanism *, ck kek, ck key, unsigned char *out, ck *out_len);
typedef ck (*destroy_fn)(ck session, ck key);

enum { C_DESTROY_OBJECT = 22, C_ENCRYPT_INIT = 29, C_ENCRYPT = 30, C_WRAP_KEY = 60, C_DERIVE_KEY = 62 };
enum { DES3_ECB = 0x132, DES3_ECB_ENCRYPT_DATA = 0x1102, AES_KEY_WRAP = 0x2109 };

/* Card keys of n cards from blocks of 16 bytes, DES2 objects, each with the 8 bytes of its check value and 24 wrapped bytes. */
ck raw_derive_wrap(void **functions, ck session, ck base, ck kek, unsigned char *blocks, ck n, unsigned char *wrapped, unsigned char *checks)
{
    derive_fn derive = (derive_fn)functions[1 + C_DERIVE_KEY];
    init_fn encrypt_init = (init_fn)functions[1 + C_ENCRYPT_INIT];
    crypt_fn encrypt = (crypt_fn)functions[1 + C_ENCRYPT];
    wrap_fn wrap = (wrap_fn)functions[1 + C_WRAP_KEY];
    destroy_fn destroy = (destroy_fn)functions[1 + C_DESTROY_OBJECT];
    ck secret_key = 4, des2 = 0x14;
    unsigned char yes = 1, no = 0, zeros[8] = {0};
    struct attribute template[] = {
        {0x000, &secret_key, sizeof secret_key}, {0x100, &des2, sizeof des2}, {0x001, &no, 1},  {0x162, &yes, 1},
        {0x103, &yes, 1},                        {0x104, &yes, 1},
    };
    struct string_data data = {NULL, 16};
    struct mechanism deriving = {DES3_ECB_ENCRYPT_DATA, &data, sizeof data}, ecb = {DES3_ECB, NULL, 0}, wrapping = {AES_KEY_WRAP, NULL, 0};
    for (ck i = 0; i < n; i++) {
        ck key, length, failed;
        data.data = blocks + 16 * i;
        if ((failed = derive(session, &deriving, base, template, sizeof template / sizeof *template, &key)))
            return failed;
        if ((failed = encrypt_init(session, &ecb, key)))
            return failed;
        length = 8;
        if ((failed = encrypt(session, zeros, 8, checks + 8 * i, &length)))
            return failed;
        length = 24;
        if ((failed = wrap(session, &wrapping, kek, key, wrapped + 24 * i, &length)))
            return failed;
        if ((failed = destroy(session, key)))
            return failed;
    }
    return 0;
}
