/* Constant time by valgrind: every key byte is marked undefined, and memcheck reports each branch and each address that depends on one.
 *
 * Run under `valgrind -q`. valgrind tells programs that the CPU has no AVX-512: this covers portable and avx2 (AES-NI among it).
 * Exit status 1 when a kernel is reported, or when a planted leak is not. */
#include <valgrind/memcheck.h>

#include "calls.h"
#include "leaks.h"

static void undefine(uint8_t *bytes, size_t size)
{
    if (bytes)
        (void)VALGRIND_MAKE_MEM_UNDEFINED(bytes, size);
}

static unsigned reports_of(const cc_level *level, const cc_call *call, size_t n)
{
    cc_room room = make_room(call, n);
    undefine(room.keys, room.keys_len);
    undefine(room.mac_keys, room.mac_len);
    undefine(room.kek, room.kek_len);
    const unsigned before = VALGRIND_COUNT_ERRORS;
    run_call(level, call, &room);
    const unsigned found = VALGRIND_COUNT_ERRORS - before;
    leave_room(&room);
    return found;
}

static int planted_are_found(void)
{
    uint8_t key[16] = {1, 2, 3}, guess[16] = {1, 2, 4}, table[256] = {0}, out[16];
    undefine(key, sizeof key);
    const unsigned start = VALGRIND_COUNT_ERRORS;
    leak_branch(key, guess, out);
    const unsigned branch = VALGRIND_COUNT_ERRORS - start;
    leak_table(key, table, out);
    const unsigned lookup = VALGRIND_COUNT_ERRORS - start - branch;
    printf("planted branch: %u reports, planted table: %u reports (both must be found)\n", branch, lookup);
    return branch && lookup;
}

int main(void)
{
    static const size_t sizes[] = {1, 17, 131};
    cc_level levels[CC_MAX_LEVELS];
    const size_t count = cc_levels(levels);
    int failures = 0;
    if (!RUNNING_ON_VALGRIND) {
        fprintf(stderr, "run this under valgrind\n");
        return 2;
    }
    if (!planted_are_found())
        failures++;
    for (size_t i = 0; i < count; i++) {
        for (size_t c = 0; c < CALLS; c++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                const unsigned found = reports_of(&levels[i], &calls[c], sizes[s]);
                if (found)
                    printf("LEAK %s at level %s, %zu rows: %u reports\n", calls[c].id, levels[i].name, sizes[s], found), failures++;
            }
        printf("%-9s tdes %-9s sm4 %-9s aes %-9s %zu calls with undefined keys\n", levels[i].name, levels[i].tdes->name, levels[i].sm4->name,
               levels[i].aes->name, (size_t)CALLS);
    }
    return failures != 0;
}
