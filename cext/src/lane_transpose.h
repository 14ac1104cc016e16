/* Blocks in memory <-> slices: the transpose of 64x64 bit matrices, LANE_WORDS of them at once, and how blocks come in and go out.
 *
 * Word w of row r is block LANE_WORDS * r + w as a little-endian number, so that contiguous blocks are loaded as they lie. Slice i is bit i
 * of every block, where bit 0 is the most significant of the first byte, as the standards of block ciphers count. */

/* The transpose by halving (H. S. Warren, Hacker's Delight, 7-3): a step exchanges one bit of the row number with the same bit of the
 * column. `exchange` does it for one pair of rows, `distance` apart. Rows count little-endian bits and slices count bits from the top of
 * each byte: so the steps inside a byte also turn the row bit over, on the side of the slices. */
#if LANE_WORDS == 8
#include "lane_avx512.h"
#else
static inline ALWAYS_INLINE void exchange(lane *low_row, lane *high_row, int distance)
{
    static const uint64_t low_columns[6] = {
        0x5555555555555555u, 0x3333333333333333u, 0x0F0F0F0F0F0F0F0Fu, 0x00FF00FF00FF00FFu, 0x0000FFFF0000FFFFu, 0x00000000FFFFFFFFu};
    const int step = distance == 32 ? 5 : distance == 16 ? 4 : distance == 8 ? 3 : distance == 4 ? 2 : distance - 1;
    const lane swap = ((*low_row >> distance) ^ *high_row) & (ZERO + low_columns[step]);
    *low_row ^= swap << distance;
    *high_row ^= swap;
}
#endif

/* Where slice 8 * byte + bit lies among 64: at[bit] + byte * step. Block ciphers that begin with a permutation choose their own. */
typedef struct {
    int at[8], step;
} slice_order;

static const slice_order plain_order = {{0, 1, 2, 3, 4, 5, 6, 7}, 8};

/* Three steps of the transpose on eight rows in registers. */
static inline ALWAYS_INLINE void exchange_three(lane r[8], int apart)
{
    for (int i = 0; i < 4; i++)
        exchange(&r[i], &r[i + 4], 4 * apart);
    for (int i = 0; i < 8; i += 4) {
        exchange(&r[i], &r[i + 2], 2 * apart);
        exchange(&r[i + 1], &r[i + 3], 2 * apart);
    }
    for (int i = 0; i < 8; i += 2)
        exchange(&r[i], &r[i + 1], apart);
}

/* The steps that move bytes: rows `first`, first + 8, ... */
static inline ALWAYS_INLINE void exchange_bytes(lane *rows)
{
    for (int first = 0; first < 8; first++) {
        lane r[8];
        for (int i = 0; i < 8; i++)
            r[i] = rows[first + 8 * i];
        exchange_three(r, 8);
        for (int i = 0; i < 8; i++)
            rows[first + 8 * i] = r[i];
    }
}

/* slices, in the given order, from rows, which are destroyed. They may be the same memory if the order is plain. */
static inline ALWAYS_INLINE void to_slices(lane *slices, lane *rows, const slice_order *order)
{
    exchange_bytes(rows);
    for (int byte = 0; byte < 8; byte++) {
        lane r[8];
        for (int i = 0; i < 8; i++)
            r[i] = rows[8 * byte + i];
        exchange_three(r, 1);
        for (int bit = 0; bit < 8; bit++)
            slices[order->at[bit] + byte * order->step] = r[7 - bit];
    }
}

/* The inverse; the slices stay as they are, unless they are the same memory. */
static inline ALWAYS_INLINE void to_rows(lane *rows, const lane *slices, const slice_order *order)
{
    for (int byte = 0; byte < 8; byte++) {
        lane r[8];
        for (int bit = 0; bit < 8; bit++)
            r[7 - bit] = slices[order->at[bit] + byte * order->step];
        exchange_three(r, 1);
        for (int i = 0; i < 8; i++)
            rows[8 * byte + i] = r[i];
    }
    exchange_bytes(rows);
}

static NO_INLINE void rows_to_slices(lane rows[64])
{
    to_slices(rows, rows, &plain_order);
}

static NO_INLINE void slices_to_rows(lane slices[64])
{
    to_rows(slices, slices, &plain_order);
}

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define ROWS_AS_THEY_LIE 1
#else
#define ROWS_AS_THEY_LIE 0
#endif

static inline uint64_t load_le64(const uint8_t *bytes)
{
    uint64_t value = 0;
    if (ROWS_AS_THEY_LIE)
        memcpy(&value, bytes, 8);
    else
        for (int i = 7; i >= 0; i--)
            value = value << 8 | bytes[i];
    return value;
}

static inline void store_le64(uint8_t *bytes, uint64_t value)
{
    if (ROWS_AS_THEY_LIE)
        memcpy(bytes, &value, 8);
    else
        for (int i = 0; i < 8; i++, value >>= 8)
            bytes[i] = (uint8_t)value;
}

/* Rows of the 8 bytes at `base + lane * stride`, for `count` <= LANES lanes; absent lanes are zero. stride 0 gives every lane the same. */
static inline void load_rows(lane rows[64], const uint8_t *base, size_t stride, size_t count)
{
    if (ROWS_AS_THEY_LIE && stride == 8) {
        memcpy(rows, base, 8 * count);
        memset((uint8_t *)rows + 8 * count, 0, 8 * (LANES - count));
    } else {
        lane_word *const words = (lane_word *)rows;
        for (size_t i = 0; i < count; i++)
            words[i] = load_le64(base + i * stride);
        memset(words + count, 0, 8 * (LANES - count));
    }
}

static inline void store_rows(const lane rows[64], uint8_t *base, size_t stride, size_t count)
{
    if (ROWS_AS_THEY_LIE && stride == 8) {
        memcpy(base, rows, 8 * count);
    } else {
        const lane_word *const words = (const lane_word *)rows;
        for (size_t i = 0; i < count; i++)
            store_le64(base + i * stride, words[i]);
    }
}

/* Two rows per lane, one after the other in memory. */
static inline void store_row_pairs(const lane first[64], const lane second[64], uint8_t *base, size_t count)
{
    size_t done = 0;
#if LANE_WORDS == 8
    for (; done + LANE_WORDS <= count; done += LANE_WORDS)
        interleave(base + 16 * done, first[done / LANE_WORDS], second[done / LANE_WORDS]);
#endif
    for (; done < count; done++) {
        store_le64(base + 16 * done, ((const lane_word *)first)[done]);
        store_le64(base + 16 * done + 8, ((const lane_word *)second)[done]);
    }
}

/* slices[0..63] of a column of 8 bytes; see load_rows. */
static inline void load_slices(lane slices[64], const uint8_t *base, size_t stride, size_t count)
{
    load_rows(slices, base, stride, count);
    rows_to_slices(slices);
}

/* The inverse: writes `count` lanes of 8 bytes. Destroys `slices`. */
static inline void store_slices(lane slices[64], uint8_t *base, size_t stride, size_t count)
{
    slices_to_rows(slices);
    store_rows(slices, base, stride, count);
}
