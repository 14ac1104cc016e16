/* Shrinks a circuit for one DES S-box by simulated annealing over resubstitutions.
 *
 * A circuit has six inputs, gates of two or three inputs, four outputs. A step takes a gate g, finds the inputs on which a flip of g would
 * be seen at an output (its care set), and replaces g by another gate over other nets that agrees there; nets that nobody needs any more
 * fall away. Every fourth step first adds a random gate, and replaces g by one that uses it. A circuit no larger than before is always
 * taken, a larger one sometimes, by how hot it is; the heat falls and rises again every twenty seconds. All 64 inputs are simulated at
 * once, one bit each.
 *
 *   anneal INPUTS_PER_GATE BOX SECONDS SEED HEAT [FILE]
 *
 * BOX is 0..7. FILE holds the circuit to start from, else the S-box as a tree of selections. Every better circuit goes to standard output
 * in the text form that des_circuit.py describes. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define INPUTS 6
#define OUTPUTS 4
#define MOST_NETS 220
#define MOST_CANDIDATES 4096
#define HEAT_CYCLE 20.0

typedef struct {
    int nets;
    uint64_t value[MOST_NETS]; /* truth table: bit x for input value x */
    short in[MOST_NETS][3];
    uint8_t function[MOST_NETS];
    short out[OUTPUTS];
    uint8_t complement[OUTPUTS];
} circuit;

typedef struct {
    short in[3];
    uint8_t function;
} candidate;

/* and, or, xor, a and not b, b and not a: what every CPU has */
static const uint8_t two_input[5] = {0xC0, 0xFC, 0x3C, 0x30, 0x0C};

/* FIPS 46-3, appendix 1: four rows of sixteen per box. */
static const char *const tables[8] = {
    "E4D12FB83A6C59070F74E2D1A6CB953841E8D62BFC973A50FC8249175B3EA06D", "F18E6B34972DC05A3D47F28EC01A69B50E7BA4D158C6932FD8A13F42B67C05E9",
    "A09E63F51DC7B428D709346A285ECBF1D6498F30B12C5AE71AD069874FE3B52C", "7DE3069A1285BC4FD8B56F03472C1AE9A690CB7DF13E52843F06A1D8945BC72E",
    "2C417AB6853FD0E9EB2C47D150FA3986421BAD78F9C5630EB8C71E2D6F09A453", "C1AF92680D34E75BAF427C9561DE0B389EF528C3704A1DB6432C95FABE17608D",
    "4B2EF08D3C975A61D0B7491AE35C2F8614BDC37EAF6805926BD814A7950FE23C", "D2846FB1A93E50C71FD8A374C56B0E927B419CE206ADF35821E74A8DFC90356B"};

static int gate_inputs; /* 2 or 3 */
static uint64_t wanted[OUTPUTS];
static double heat;
static uint64_t random_state;

/* Nets that a step may use, in random order, and the gates that would do. */
static short usable[MOST_NETS];
static int usable_count;
static candidate candidates[MOST_CANDIDATES];
static int candidate_count;

static inline uint64_t random_word(void)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static inline int below(int bound)
{
    return (int)(((random_word() >> 32) * (uint64_t)bound) >> 32);
}

static inline double fraction(void)
{
    return (double)(random_word() >> 11) * 0x1p-53;
}

static void shuffle(short *items, int count)
{
    for (int i = count - 1; i > 0; i--) {
        const int j = below(i + 1);
        const short other = items[i];
        items[i] = items[j];
        items[j] = other;
    }
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Bit 4a + 2b + c of `function` is the value for a, b, c. */
static inline uint64_t apply(uint8_t function, uint64_t a, uint64_t b, uint64_t c)
{
    uint64_t result = 0;
    for (int row = 0; row < 8; row++)
        if (function >> row & 1)
            result |= (row & 4 ? a : ~a) & (row & 2 ? b : ~b) & (row & 1 ? c : ~c);
    return result;
}

static inline uint64_t gate_value(const circuit *c, int g)
{
    const short *in = c->in[g];
    return apply(c->function[g], c->value[in[0]], c->value[in[1]], gate_inputs == 3 ? c->value[in[2]] : 0);
}

static void set_targets(int box)
{
    for (int x = 0; x < 64; x++) {
        const char digit = tables[box][(((x >> 5 & 1) << 1) | (x & 1)) * 16 + (x >> 1 & 15)];
        const int value = digit >= 'A' ? digit - 'A' + 10 : digit - '0';
        for (int bit = 0; bit < OUTPUTS; bit++)
            if (value >> (3 - bit) & 1)
                wanted[bit] |= (uint64_t)1 << x;
    }
}

static uint64_t input_value(int input)
{
    uint64_t value = 0;
    for (int x = 0; x < 64; x++)
        if (x >> (5 - input) & 1)
            value |= (uint64_t)1 << x;
    return value;
}

static circuit compacted;
static short renamed[MOST_NETS];
enum { UNSEEN = -1, UNDER_WAY = -2 };

/* The net's number in `compacted`, where it is put after what it reads; negative if the circuit has a loop. */
static int visit(const circuit *c, int g)
{
    int in[3] = {0, 0, 0};
    if (renamed[g] != UNSEEN)
        return renamed[g] == UNDER_WAY ? -1 : renamed[g];
    renamed[g] = UNDER_WAY;
    for (int k = 0; k < gate_inputs; k++)
        if ((in[k] = visit(c, c->in[g][k])) < 0)
            return -1;
    const int net = compacted.nets++;
    for (int k = 0; k < 3; k++)
        compacted.in[net][k] = (short)in[k];
    compacted.function[net] = c->function[g];
    compacted.value[net] = gate_value(&compacted, net);
    return renamed[g] = (short)net;
}

/* Drop what no output needs and sort the rest; false, and nothing changed, where that is no circuit for the S-box. */
static int compact(circuit *c)
{
    short order[OUTPUTS] = {0, 1, 2, 3};
    for (int i = 0; i < MOST_NETS; i++)
        renamed[i] = (short)(i < INPUTS ? i : UNSEEN);
    memcpy(compacted.value, c->value, INPUTS * sizeof c->value[0]);
    compacted.nets = INPUTS;
    shuffle(order, OUTPUTS);
    for (int i = 0; i < OUTPUTS; i++) {
        const int net = visit(c, c->out[order[i]]);
        if (net < 0)
            return 0;
        compacted.out[order[i]] = (short)net;
    }
    for (int o = 0; o < OUTPUTS; o++) {
        const uint64_t value = compacted.value[compacted.out[o]];
        compacted.complement[o] = value != wanted[o];
        if (value != wanted[o] && (gate_inputs == 2 || value != ~wanted[o]))
            return 0;
    }
    memcpy(c, &compacted, sizeof compacted);
    return 1;
}

/* The inputs on which a flip of g shows at an output; marks in `depends` what is computed from g. */
static uint64_t care_set(const circuit *c, int g, uint8_t depends[MOST_NETS])
{
    static uint64_t flipped[MOST_NETS];
    uint64_t care = 0;
    memset(depends, 0, MOST_NETS);
    depends[g] = 1;
    flipped[g] = ~c->value[g];
    for (int i = g + 1; i < c->nets; i++) {
        uint64_t in[3] = {0, 0, 0};
        for (int k = 0; k < gate_inputs; k++) {
            const int net = c->in[i][k];
            depends[i] |= depends[net];
            in[k] = depends[net] ? flipped[net] : c->value[net];
        }
        if (depends[i])
            flipped[i] = apply(c->function[i], in[0], in[1], in[2]);
    }
    for (int o = 0; o < OUTPUTS; o++)
        if (depends[c->out[o]])
            care |= flipped[c->out[o]] ^ c->value[c->out[o]];
    return care;
}

static void add_candidate(int a, int b, int c, uint8_t function)
{
    if (candidate_count < MOST_CANDIDATES)
        candidates[candidate_count++] = (candidate){{(short)a, (short)b, (short)c}, function};
}

/* Three nets of which some function is 1 on `on` and 0 on `off`: no row of the three may have both. The first is `must`, unless -1. */
static void find_three(const circuit *c, uint64_t on, uint64_t off, int must)
{
    candidate_count = 0;
    for (int i = 0; i < (must >= 0 ? 1 : usable_count); i++) {
        const int first = must >= 0 ? must : usable[i];
        const uint64_t a = c->value[first];
        for (int j = must >= 0 ? 0 : i + 1; j < usable_count; j++) {
            const uint64_t b = c->value[usable[j]];
            const uint64_t rows[4] = {~a & ~b, ~a & b, a & ~b, a & b};
            uint64_t mixed_on[4], mixed_off[4];
            int mixed = 0;
            if (usable[j] == first)
                continue;
            for (int q = 0; q < 4; q++)
                if ((on & rows[q]) && (off & rows[q])) {
                    mixed_on[mixed] = on & rows[q];
                    mixed_off[mixed++] = off & rows[q];
                }
            for (int l = j + 1; l < usable_count; l++) {
                const uint64_t third = c->value[usable[l]];
                int parted = usable[l] != first;
                for (int q = 0; q < mixed && parted; q++)
                    parted = !((mixed_on[q] & third) && (mixed_off[q] & third)) && !((mixed_on[q] & ~third) && (mixed_off[q] & ~third));
                if (parted)
                    add_candidate(first, usable[j], usable[l], 0);
            }
        }
    }
}

/* The same with two nets and the functions of `two_input`. */
static void find_two(const circuit *c, uint64_t on, uint64_t off, int must)
{
    candidate_count = 0;
    for (int i = 0; i < (must >= 0 ? 1 : usable_count); i++) {
        const int first = must >= 0 ? must : usable[i];
        const uint64_t a = c->value[first];
        for (int j = must >= 0 ? 0 : i + 1; j < usable_count; j++) {
            const uint64_t b = c->value[usable[j]];
            const uint64_t values[5] = {a & b, a | b, a ^ b, a & ~b, b & ~a};
            for (int q = 0; q < 5 && usable[j] != first; q++)
                if (!((values[q] ^ on) & (on | off)))
                    add_candidate(first, usable[j], 0, two_input[q]);
        }
    }
}

static void find(const circuit *c, uint64_t on, uint64_t off, int must)
{
    if (gate_inputs == 3)
        find_three(c, on, off, must);
    else
        find_two(c, on, off, must);
}

/* The function of a candidate of three: 1 where `on` demands it, and where nothing is demanded. */
static uint8_t fill_function(uint64_t on, uint64_t off, const circuit *c, const short in[3])
{
    uint8_t function = 0;
    for (int row = 0; row < 8; row++) {
        const uint64_t cases = apply((uint8_t)(1 << row), c->value[in[0]], c->value[in[1]], c->value[in[2]]);
        if ((cases & on) || (!(cases & off) && (random_word() & 1024)))
            function |= (uint8_t)(1 << row);
    }
    return function;
}

/* Let what reads g read `net` instead, which is equal where it matters, or its complement. */
static void redirect(circuit *c, int g, short net, int complement)
{
    for (int reader = INPUTS; reader < c->nets; reader++)
        for (int k = 0; k < gate_inputs; k++)
            if (c->in[reader][k] == g) {
                uint8_t turned = 0;
                c->in[reader][k] = net;
                for (int row = 0; row < 8; row++)
                    if (c->function[reader] >> (row ^ (4 >> k)) & 1)
                        turned |= (uint8_t)(1 << row);
                if (complement)
                    c->function[reader] = turned;
            }
    for (int o = 0; o < OUTPUTS; o++)
        if (c->out[o] == g)
            c->out[o] = net;
}

/* Adds a random gate to `next` with which g can be replaced; its net, or -1. */
static int add_helper(circuit *next, uint64_t on, uint64_t off)
{
    const int helper = next->nets;
    for (int tries = 0; tries < 24; tries++) {
        const short a = usable[below(usable_count)], b = usable[below(usable_count)], c = usable[below(usable_count)];
        if (a == b || (gate_inputs == 3 && (a == c || b == c)))
            continue;
        next->in[helper][0] = a;
        next->in[helper][1] = b;
        next->in[helper][2] = gate_inputs == 3 ? c : 0;
        next->function[helper] = gate_inputs == 3 ? (uint8_t)(1 + below(254)) : two_input[below(5)];
        next->nets = helper + 1;
        next->value[helper] = gate_value(next, helper);
        find(next, on, off, helper);
        if (candidate_count)
            return helper;
    }
    return -1;
}

static void step(circuit *current)
{
    static circuit next;
    static uint8_t depends[MOST_NETS];
    const int g = INPUTS + below(current->nets - INPUTS);
    const uint64_t care = care_set(current, g, depends), on = care & current->value[g], off = care & ~current->value[g];
    usable_count = 0;
    for (int i = 0; i < current->nets; i++)
        if (!depends[i])
            usable[usable_count++] = (short)i;
    shuffle(usable, usable_count);
    memcpy(&next, current, sizeof next);
    for (int i = 0; i < usable_count; i++) {
        const uint64_t value = current->value[usable[i]];
        const int same = !((value ^ on) & care), opposite = gate_inputs == 3 && !((~value ^ on) & care);
        if (!same && !opposite)
            continue;
        redirect(&next, g, usable[i], !same);
        if (compact(&next)) {
            memcpy(current, &next, sizeof next);
            return;
        }
        memcpy(&next, current, sizeof next);
    }
    if (below(4) == 0 && current->nets < MOST_NETS - 2) {
        if (add_helper(&next, on, off) < 0)
            return;
    } else {
        find(current, on, off, -1);
        if (!candidate_count)
            return;
    }
    const candidate chosen = candidates[below(candidate_count)];
    memcpy(next.in[g], chosen.in, sizeof chosen.in);
    next.function[g] = gate_inputs == 3 ? fill_function(on, off, &next, chosen.in) : chosen.function;
    if (!compact(&next))
        return;
    const int growth = next.nets - current->nets;
    if (growth <= 0 || fraction() < exp(-growth / heat))
        memcpy(current, &next, sizeof next);
}

static void show(const circuit *c)
{
    for (int g = INPUTS; g < c->nets; g++)
        printf("%d %d %d %d\n", c->function[g], c->in[g][0], c->in[g][1], c->in[g][2]);
    printf("outputs");
    for (int o = 0; o < OUTPUTS; o++)
        printf(" %s%d", c->complement[o] ? "~" : "", c->out[o]);
    printf("\n%d gates\n\n", c->nets - INPUTS);
    fflush(stdout);
}

/* A tree of selections for a function of the inputs depth..5, given by its truth table; one gate serves the last three. */
static int select_tree(circuit *c, uint64_t table, int depth)
{
    const int half = 1 << (5 - depth), leaf = depth == 3;
    const short high = (short)(leaf ? 4 : select_tree(c, table >> half, depth + 1));
    const short low = (short)(leaf ? 5 : select_tree(c, table, depth + 1));
    const int g = c->nets++;
    c->in[g][0] = (short)depth;
    c->in[g][1] = high;
    c->in[g][2] = low;
    c->function[g] = leaf ? (uint8_t)table : 0xCA;
    c->value[g] = gate_value(c, g);
    return g;
}

static int read_circuit(circuit *c, const char *path)
{
    char line[200], out[OUTPUTS][16];
    int function, a, b, d, complete = 0;
    FILE *const file = fopen(path, "r");
    if (!file)
        return 0;
    while (fgets(line, sizeof line, file)) {
        if (sscanf(line, "outputs %15s %15s %15s %15s", out[0], out[1], out[2], out[3]) == 4) {
            for (int o = 0; o < OUTPUTS; o++)
                c->out[o] = (short)atoi(out[o] + (out[o][0] == '~'));
            complete = 1;
        } else if (c->nets < MOST_NETS && sscanf(line, "%d %d %d %d", &function, &a, &b, &d) == 4) {
            const int g = c->nets++;
            if (a < 0 || b < 0 || d < 0 || a >= g || b >= g || d >= g)
                break;
            c->function[g] = (uint8_t)function;
            c->in[g][0] = (short)a;
            c->in[g][1] = (short)b;
            c->in[g][2] = (short)d;
            c->value[g] = gate_value(c, g);
        }
    }
    fclose(file);
    return complete;
}

int main(int argc, char **argv)
{
    static circuit current, best;
    if (argc < 6 || (gate_inputs = atoi(argv[1])) < 2 || gate_inputs > 3 || atoi(argv[2]) < 0 || atoi(argv[2]) > 7) {
        fprintf(stderr, "usage: anneal INPUTS_PER_GATE BOX SECONDS SEED HEAT [FILE]\n");
        return 2;
    }
    const double seconds = atof(argv[3]), start = now(), mean_heat = atof(argv[5]);
    random_state = (uint64_t)strtoull(argv[4], NULL, 10) * 0x9E3779B97F4A7C15u + 88172645463325252u;
    for (int i = 0; i < 20; i++)
        random_word();
    set_targets(atoi(argv[2]));
    for (current.nets = 0; current.nets < INPUTS; current.nets++)
        current.value[current.nets] = input_value(current.nets);
    if (argc > 6) {
        if (!read_circuit(&current, argv[6]))
            return 3;
    } else if (gate_inputs == 3) {
        for (int o = 0; o < OUTPUTS; o++)
            current.out[o] = (short)select_tree(&current, wanted[o], 0);
    }
    if (!compact(&current)) {
        fprintf(stderr, "no circuit for that S-box to start from\n");
        return 1;
    }
    memcpy(&best, &current, sizeof best);
    show(&best);
    for (double phase = 0, left = seconds; left > 0; left = start + seconds - now()) {
        phase = fmod(now() - start, HEAT_CYCLE) / HEAT_CYCLE;
        heat = mean_heat * (1.3 - phase);
        if (current.nets > best.nets + 6 && phase < 0.02)
            memcpy(&current, &best, sizeof best);
        for (int i = 0; i < 256; i++) {
            step(&current);
            if (current.nets < best.nets) {
                memcpy(&best, &current, sizeof best);
                show(&best);
            }
        }
    }
    return 0;
}
