/* SCP02 wrapping of a segment for many cards at once: lanes are cards, which share the commands and differ in keys and data.
 *
 * GlobalPlatform Card Specification E.4.4 (C-MAC on the unmodified command, ICV encryption as in i=15 and i=55) and E.4.6 (command data
 * encryption). */

typedef struct {
    tdes_key enc, mac;
    lane state[64], gap[GAP], result[64], gap2[GAP], chain[64];
    uint8_t edge[8 * LANES];
} scp02_workspace;

typedef struct {
    const uint8_t *plain;
    size_t plain_stride;
    uint8_t *out;
    size_t out_stride, count;
} scp02_cards;

/* Eight bytes at `at` of header || data || 80 00 .., for every card. The header may be empty. */
static void load_command(scp02_workspace *work, const scp02_cards *cards, const uint8_t *header, size_t header_size, const cc_apdu *apdu,
                         size_t at)
{
    const size_t end = header_size + apdu->length;
    const uint8_t *const data = cards->plain + apdu->offset;
    if (at >= header_size && at + 8 <= end) {
        load_state(work->state, data + (at - header_size), cards->plain_stride, cards->count);
        return;
    }
    for (size_t card = 0; card < cards->count; card++)
        for (size_t i = at; i < at + 8; i++)
            work->edge[8 * card + i - at] = i < header_size ? header[i]
                                            : i < end       ? data[card * cards->plain_stride + i - header_size]
                                            : i == end      ? 0x80
                                                            : 0;
    load_state(work->state, work->edge, 8, cards->count);
}

/* The next chaining value: retail MAC of the padded command. Its initial value is the last C-MAC under single DES with KL; before the first
 * command of a channel, which a chain of zeros marks, zeros. */
static void mac_command(scp02_workspace *work, const scp02_cards *cards, const cc_apdu *apdu, int first)
{
    const uint8_t header[5] = {apdu->cla | 0x04, apdu->ins, apdu->p1, apdu->p2, (uint8_t)(apdu->length + 8)};
    lane open = first ? ZERO : ONES;
    for (int i = 0; i < 64; i++)
        open |= work->chain[i];
    fill_state(work->state, 0);
    chain(work->state, work->chain);
    des_pass(work->state, 0, &work->mac.left, 0);
    for (int i = 0; i < 64; i++)
        work->result[i] = work->state[i] & open;
    for (size_t at = 0; at <= 5u + apdu->length; at += 8) {
        load_command(work, cards, header, 5, apdu, at);
        chain(work->state, work->result);
        des_pass(work->state, 0, &work->mac.left, 0);
        memcpy(work->result, work->state, sizeof work->result);
    }
    des_pass(work->result, 32, &work->mac.right, 1);
    des_pass(work->result, 0, &work->mac.left, 0);
}

/* Command data encryption: 3DES-CBC with an initial value of zeros over the padded data, written at `out` of every row. */
static void encrypt_command(scp02_workspace *work, const scp02_cards *cards, const cc_apdu *apdu, uint8_t *out)
{
    memset(work->result, 0, sizeof work->result);
    for (size_t at = 0; at <= apdu->length; at += 8) {
        load_command(work, cards, NULL, 0, apdu, at);
        chain(work->state, work->result);
        tdes_encrypt(work->state, &work->enc);
        store_result(work->state, out + at, cards->out_stride, cards->count);
        memcpy(work->result, work->state, sizeof work->result);
    }
}

/* One secured command for every card at `out` of its row; returns how many bytes it has. */
static size_t wrap_command(scp02_workspace *work, const scp02_cards *cards, const cc_apdu *apdu, int first, uint8_t *out)
{
    const size_t encrypted = apdu->encrypt && apdu->length ? apdu->length / 8 * 8 + 8 : 0;
    const size_t body = encrypted ? encrypted : apdu->length;
    const uint8_t header[5] = {apdu->cla | 0x04, apdu->ins, apdu->p1, apdu->p2, (uint8_t)(body + 8)};
    mac_command(work, cards, apdu, first);
    memcpy(work->chain, work->result, sizeof work->chain);
    for (size_t card = 0; card < cards->count; card++) {
        uint8_t *const row = out + card * cards->out_stride;
        memcpy(row, header, sizeof header);
        if (!encrypted)
            memcpy(row + 5, cards->plain + card * cards->plain_stride + apdu->offset, body);
        if (apdu->le >= 0)
            row[5 + body + 8] = (uint8_t)apdu->le;
    }
    if (encrypted)
        encrypt_command(work, cards, apdu, out + 5);
    store_result(work->chain, out + 5 + body, cards->out_stride, cards->count);
    return 5 + body + 8 + (apdu->le >= 0);
}

static void tdes_scp02_wrap(const cc_segment *segment, size_t n)
{
    scp02_workspace work;
    for (size_t done = 0; done < n; done += LANES) {
        const size_t count = pass_size(done, n);
        const scp02_cards cards = {segment->plain + done * segment->plain_stride, segment->plain_stride,
                                   segment->out + done * segment->out_stride, segment->out_stride, count};
        uint8_t *out = cards.out;
        tdes_key_load(&work.enc, segment->enc_keys + 16 * done, 16, count);
        tdes_key_load(&work.mac, segment->mac_keys + 16 * done, 16, count);
        load_result(work.chain, segment->chain + 8 * done, 8, count);
        for (size_t i = 0; i < segment->commands; i++) {
            const size_t len = wrap_command(&work, &cards, segment->apdus + i, i == 0, out + segment->prefix);
            if (segment->prefix)
                cc_put_lengths(out, cards.out_stride, len, count);
            out += segment->prefix + len;
        }
        store_result(work.chain, segment->chain + 8 * done, 8, count);
    }
    finish(&work, sizeof work);
}
