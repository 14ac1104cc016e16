/* Two functions that leak their key, each in one way. A check of constant time proves with them, in the same run, that it can fail. */
#include <stddef.h>
#include <stdint.h>

/* A branch: as many rounds as the key begins with bytes equal to `guess`. */
static __attribute__((noinline)) void leak_branch(const uint8_t *key, const uint8_t *guess, uint8_t *out)
{
    size_t i = 0;
    while (i < 16 && key[i] == guess[i]) {
        __asm__ __volatile__("" : : : "memory");
        i++;
    }
    out[0] = (uint8_t)i;
}

/* A table: an S-box of bytes looked up by the key. */
static __attribute__((noinline)) void leak_table(const uint8_t *key, const uint8_t *table, uint8_t *out)
{
    for (size_t i = 0; i < 16; i++)
        out[i] = table[key[i]];
}
