/* Known answers, and one way to call every kernel of a level: by its Python name, for n rows. Shared by all drivers of this folder. */
#ifndef CITYCARD_TESTS_CALLS_H
#define CITYCARD_TESTS_CALLS_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels.h"

/* One call as cext/selftest.json tells it: all values for one row, and what comes out. */
typedef struct {
    const char *id, *kernel;
    const uint8_t *keys;
    size_t key_len;
    int shared; /* one key for all rows */
    const uint8_t *data;
    size_t length;
    const uint8_t *kek;
    size_t kek_len;
    const uint8_t *iv;
    int method, parity;
    const uint8_t *mac_keys, *chain;
    size_t chain_len;
    const cc_apdu *apdus;
    size_t commands, prefix;
    const uint8_t *expect;
    size_t width;
    const uint8_t *kcv;
    size_t kcv_len;
} cc_call;

static const cc_call calls[] = {
#include "vectors.inc"
};
enum { CALLS = sizeof calls / sizeof *calls };

/* The values of a call for n rows, each in memory of exactly its size. `secret` are those that are keys. */
typedef struct {
    uint8_t *keys, *mac_keys, *kek, *data, *iv, *chain, *out, *kcv;
    size_t keys_len, mac_len, kek_len;
    size_t n;
} cc_room;

static uint8_t *repeated(const uint8_t *row, size_t size, size_t n)
{
    if (!row || !size)
        return NULL;
    uint8_t *const rows = malloc(size * n);
    if (!rows)
        abort();
    for (size_t i = 0; i < n; i++)
        memcpy(rows + i * size, row, size);
    return rows;
}

static inline cc_room make_room(const cc_call *call, size_t n)
{
    const size_t keys = call->shared ? 1 : n;
    const uint8_t *const nothing = calloc(call->width + call->kcv_len, 1);
    cc_room room = {
        .keys = repeated(call->keys, call->key_len, keys),
        .mac_keys = repeated(call->mac_keys, call->key_len, n),
        .kek = repeated(call->kek, call->kek_len, 1),
        .data = repeated(call->data, call->length, n),
        .iv = repeated(call->iv, call->iv ? (strncmp(call->kernel, "tdes", 4) ? 16 : 8) : 0, 1),
        .chain = repeated(call->chain, call->chain_len, n),
        .out = repeated(nothing, call->width, n),
        .kcv = repeated(nothing, call->kcv_len, n),
        .keys_len = call->key_len * keys,
        .mac_len = call->mac_keys ? call->key_len * n : 0,
        .kek_len = call->kek_len,
        .n = n,
    };
    free((void *)nothing);
    /* with aes_kw what is wrapped is keys too */
    if (!strcmp(call->kernel, "aes_kw")) {
        room.keys = room.data;
        room.keys_len = call->length * n;
    }
    return room;
}

static inline void leave_room(cc_room *room)
{
    if (room->data != room->keys)
        free(room->data);
    free(room->keys), free(room->mac_keys), free(room->kek), free(room->iv), free(room->chain), free(room->out), free(room->kcv);
}

static inline cc_derivation derivation_of(const cc_call *call, const cc_room *room)
{
    return (cc_derivation){
        .masters = room->keys, .master_stride = call->shared ? 0 : call->key_len, .factors = room->data, .levels = call->length / 8,
        .parity = call->parity, .kek = room->kek, .kek_len = call->kek_len, .iv = room->iv, .kcv_method = call->method, .out = room->out,
        .kcv = room->kcv};
}

static inline cc_segment segment_of(const cc_call *call, const cc_room *room)
{
    return (cc_segment){
        .enc_keys = room->keys, .mac_keys = room->mac_keys, .key_len = call->key_len, .chain = room->chain, .apdus = call->apdus,
        .commands = call->commands, .plain = room->data, .plain_stride = call->length, .out = room->out, .out_stride = call->width,
        .prefix = call->prefix};
}

#include "calls_sm4.h"
#include "calls_aes.h"
#include "calls_tdes.h"

/* Runs a call at a level; 0 when no kernel has that name. */
static inline int run_call(const cc_level *level, const cc_call *call, const cc_room *room)
{
    const char *const name = strchr(call->kernel, '_') + 1;
    if (!strcmp(call->kernel, "scp02_wrap") || !strncmp(call->kernel, "tdes_", 5))
        return call_tdes(level->tdes, name, call, room);
    if (!strncmp(call->kernel, "sm4_", 4))
        return call_sm4(level->sm4, name, call, room);
    return call_aes(level->aes, name, call, room);
}

/* Whether no call before this one is of the same kernel and form: what the slow checks take. */
static inline int is_first(size_t c)
{
    for (size_t before = 0; before < c; before++)
        if (!strcmp(calls[before].kernel, calls[c].kernel) && calls[before].shared == calls[c].shared &&
            calls[before].key_len == calls[c].key_len && calls[before].method == calls[c].method && !calls[before].iv == !calls[c].iv &&
            calls[before].prefix == calls[c].prefix)
            return 0;
    return 1;
}

#endif
