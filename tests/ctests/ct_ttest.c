/* Constant time by statistics, as dudect does it (Reparaz, Balasch, Verbauwhede, DATE 2017): Welch's t-test between the cycle counts of calls
 * with one fixed key and of calls with random keys, the two classes drawn at random and interleaved.
 *
 *     ct_ttest [traces] [level]
 *
 * A trace is one call on a few rows. Interrupts make a long tail, so the test is made on all traces and on those below percentiles that the
 * first traces give; the largest abs(t) counts. A burst of other work can push one measurement over the limit, a leak pushes every one: a
 * call at 4.5 or more is measured again with new traces, up to twice, and each such t is printed. Exit status 1 when it is 4.5 or more each
 * time, or when the planted leaks stay below it. */
#include "calls.h"
#include "leaks.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

#define LIMIT 4.5
#define AGAIN 2
#define WARM_UP 1000
#define ENOUGH 200000
#define CROPS 6
static const double percentiles[CROPS] = {1.0, 0.99, 0.9, 0.75, 0.5, 0.25};

typedef struct {
    double n, mean, squares; /* Welford */
} moments;

static inline uint64_t cycles(void)
{
#if defined(__x86_64__)
    _mm_lfence();
    const uint64_t now = __rdtsc();
    _mm_lfence();
    return now;
#elif defined(__aarch64__)
    uint64_t now;
    __asm__ __volatile__("isb; mrs %0, cntvct_el0; isb" : "=r"(now));
    return now;
#endif
}

/* xorshift64*: what is drawn must not cost differently for the two classes. */
static uint64_t state = 0x9E3779B97F4A7C15u;
static uint64_t draw(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Du;
}

static void add(moments *m, double value)
{
    const double delta = value - m->mean;
    m->n += 1;
    m->mean += delta / m->n;
    m->squares += delta * (value - m->mean);
}

static double square_root(double x)
{
    double root = x > 1 ? x : 1;
    for (int i = 0; i < 200; i++)
        root = (root + x / root) / 2;
    return root;
}

static double t_of(const moments m[2])
{
    if (m[0].n < 100 || m[1].n < 100)
        return 0;
    const double spread = m[0].squares / (m[0].n - 1) / m[0].n + m[1].squares / (m[1].n - 1) / m[1].n;
    const double difference = m[0].mean > m[1].mean ? m[0].mean - m[1].mean : m[1].mean - m[0].mean;
    return spread > 0 ? difference / square_root(spread) : 0;
}

/* A secret in place: the fixed bytes or random ones, chosen without a branch, both at the same cost. */
static void set_secret(uint8_t *bytes, size_t size, const uint8_t *fixed, size_t period, uint64_t random_class)
{
    const uint8_t mask = (uint8_t)(0 - random_class);
    for (size_t i = 0; i < size; i++)
        bytes[i] = (uint8_t)((fixed[i % period] & ~mask) | ((draw() >> 32) & mask));
}

static int ascending(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* What is timed: one call of a kernel, or a planted leak. */
typedef struct {
    const cc_level *level;
    const cc_call *call;
    cc_room room;
    int leak;
} subject;

static uint8_t table[256], guess[16];

#define STAGE 4096
typedef struct {
    uint8_t keys[STAGE], mac_keys[STAGE], kek[STAGE];
} secrets;

/* Every secret of the call. */
static void draw_secrets(const subject *what, secrets *drawn, uint64_t random_class)
{
    const cc_call *const call = what->call;
    const cc_room *const room = &what->room;
    if (room->keys_len > STAGE || room->mac_len > STAGE || room->kek_len > STAGE)
        abort();
    if (room->keys)
        set_secret(drawn->keys, room->keys_len, call->keys ? call->keys : call->data, call->keys ? call->key_len : call->length, random_class);
    if (room->mac_keys)
        set_secret(drawn->mac_keys, room->mac_len, call->mac_keys, call->key_len, random_class);
    if (room->kek)
        set_secret(drawn->kek, room->kek_len, call->kek, call->kek_len, random_class);
}

/* Puts them where the call finds them, and the chaining value it begins with. */
static void place_secrets(subject *what, const secrets *drawn)
{
    if (what->room.keys)
        memcpy(what->room.keys, drawn->keys, what->room.keys_len);
    if (what->room.mac_keys)
        memcpy(what->room.mac_keys, drawn->mac_keys, what->room.mac_len);
    if (what->room.kek)
        memcpy(what->room.kek, drawn->kek, what->room.kek_len);
    if (what->call->chain)
        memcpy(what->room.chain, what->call->chain, what->call->chain_len);
}

static uint64_t trace_leak(subject *what, uint64_t random_class)
{
    set_secret(what->room.keys, 16, guess, 16, random_class);
    for (size_t i = 0; what->leak == 2 && i < sizeof table; i += 64)
        __builtin_ia32_clflush(table + i);
    const uint64_t start = cycles();
    if (what->leak == 1)
        leak_branch(what->room.keys, guess, what->room.out);
    else
        leak_table(what->room.keys, table, what->room.out);
    return cycles() - start;
}

/* Both kinds of secrets are drawn first, then the same call is made with random ones, untimed, and only then with those of the class, which
 * are copied in. So every timed call has the same instructions and the same kind of secrets before it. Without that the way the harness makes
 * a fixed key shows, and nothing of the kernel: t of 5 to 30 at 10^6 traces for calls of a few hundred cycles, for fixed against random keys,
 * and none for one fixed key against another. */
static uint64_t trace(subject *what, uint64_t random_class)
{
    static secrets before, timed;
    if (what->leak)
        return trace_leak(what, random_class);
    draw_secrets(what, &timed, random_class);
    draw_secrets(what, &before, 1);
    place_secrets(what, &before);
    run_call(what->level, what->call, &what->room);
    place_secrets(what, &timed);
    const uint64_t start = cycles();
    run_call(what->level, what->call, &what->room);
    return cycles() - start;
}

static double worst_t(subject *what, size_t traces)
{
    static uint64_t first[WARM_UP];
    uint64_t limits[CROPS];
    moments classes[CROPS][2] = {{{0, 0, 0}}};
    for (size_t i = 0; i < WARM_UP; i++)
        first[i] = trace(what, draw() >> 63);
    qsort(first, WARM_UP, sizeof *first, ascending);
    for (size_t c = 0; c < CROPS; c++)
        limits[c] = c ? first[(size_t)(percentiles[c] * (WARM_UP - 1))] : UINT64_MAX;
    for (size_t i = 0; i < traces; i++) {
        const uint64_t random_class = draw() >> 63, took = trace(what, random_class);
        for (size_t c = 0; c < CROPS; c++)
            if (took <= limits[c])
                add(&classes[c][random_class], (double)took);
    }
    double worst = 0;
    for (size_t c = 0; c < CROPS; c++) {
        const double t = t_of(classes[c]);
        worst = t > worst ? t : worst;
    }
    return worst;
}

static double planted(int leak, size_t traces)
{
    subject what = {.leak = leak};
    what.room.keys = calloc(16, 1);
    what.room.out = calloc(16, 1);
    const double t = worst_t(&what, traces);
    free(what.room.keys), free(what.room.out);
    return t;
}

int main(int argc, char **argv)
{
    const size_t traces = argc > 1 ? strtoul(argv[1], NULL, 10) : 1000000;
    cc_level levels[CC_MAX_LEVELS];
    const size_t count = cc_levels(levels);
    int failures = 0;
    for (size_t i = 0; i < sizeof table; i++)
        table[i] = (uint8_t)(i * 7);
    /* that the test finds a leak must not be left to chance, however few traces the kernels get */
    const size_t enough = traces < ENOUGH ? ENOUGH : traces;
    const double branch = planted(1, enough), lookup = planted(2, enough);
    printf("planted branch t = %.1f, planted table t = %.1f (both must exceed %.1f)\n", branch, lookup, LIMIT);
    failures += branch < LIMIT || lookup < LIMIT;
    for (size_t i = 0; i < count; i++) {
        if (argc > 2 && strcmp(argv[2], levels[i].name))
            continue;
        double most = 0;
        size_t tested = 0;
        for (size_t c = 0; c < CALLS; c++) {
            if (!is_first(c))
                continue;
            subject what = {.level = &levels[i], .call = &calls[c], .room = make_room(&calls[c], 2)};
            double t = worst_t(&what, traces);
            for (int again = 0; again < AGAIN && t >= LIMIT; again++) {
                printf("%s at level %s: t = %.2f, measured again\n", calls[c].id, levels[i].name, t);
                t = worst_t(&what, traces);
            }
            leave_room(&what.room);
            if (t >= LIMIT)
                printf("LEAK %s at level %s: t = %.2f\n", calls[c].id, levels[i].name, t), failures++;
            most = t > most ? t : most;
            tested++;
        }
        printf("%-9s tdes %-9s sm4 %-9s aes %-9s %zu calls, %zu traces each, largest t %.2f\n", levels[i].name, levels[i].tdes->name,
               levels[i].sm4->name, levels[i].aes->name, tested, traces, most);
        fflush(stdout);
    }
    return failures != 0;
}
