/* A batch of LANES 16-byte blocks as slices: bit i of every block, most significant first, is slice i. */
#include "lane.h"
#include "tower_sbox.h"

#include "frame.h"
#include "sbox_table.h"

#define BATCH LANES

typedef struct {
    lane slices[128];
} batch;

static inline void batch_load(batch *b, const uint8_t *rows, size_t stride, size_t count)
{
    load_slices(b->slices, rows, stride, count);
    load_slices(b->slices + 64, rows + 8, stride, count);
}

static inline void batch_store(const batch *b, uint8_t *rows, size_t stride, size_t count)
{
    batch copy = *b;
    store_slices(copy.slices, rows, stride, count);
    store_slices(copy.slices + 64, rows + 8, stride, count);
}

static inline void batch_fill(batch *b, const uint8_t *block)
{
    for (int i = 0; i < 128; i++)
        b->slices[i] = ZERO - (uint64_t)(block[i / 8] >> (7 - i % 8) & 1);
}

static inline void batch_xor(batch *a, const batch *b)
{
    for (int i = 0; i < 128; i++)
        a->slices[i] ^= b->slices[i];
}

/* A shift by one slice; what falls out comes back as 87. */
static inline void batch_double(batch *b)
{
    lane *const s = b->slices;
    const lane carry = s[0];
    memmove(s, s + 1, sizeof(lane[127]));
    s[127] = carry;
    s[126] ^= carry;
    s[125] ^= carry;
    s[120] ^= carry;
}

/* a with the last half of each block from b. */
static inline void batch_join(batch *a, const batch *b)
{
    memcpy(a->slices + 64, b->slices + 64, sizeof(lane[64]));
}

/* The two halves of each block exchanged. */
static inline void batch_swap(batch *b)
{
    const batch copy = *b;
    memcpy(b->slices, copy.slices + 64, sizeof(lane[64]));
    memcpy(b->slices + 64, copy.slices, sizeof(lane[64]));
}
