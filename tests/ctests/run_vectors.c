/* Every known answer at every level, for one row and for more rows than a pass has lanes; exit status 1 when one is wrong.
 *
 * Built with AddressSanitizer and UndefinedBehaviorSanitizer, and for arm64: each buffer has exactly the size that the kernel may use. */
#include "calls.h"

static int wrong(const cc_level *level, const cc_call *call, const cc_room *room)
{
    int bad = 0;
    for (size_t i = 0; i < room->n; i++) {
        bad |= memcmp(room->out + i * call->width, call->expect, call->width) != 0;
        bad |= call->kcv && memcmp(room->kcv + i * call->kcv_len, call->kcv, call->kcv_len) != 0;
    }
    if (bad)
        printf("WRONG %s at level %s, %zu rows\n", call->id, level->name, room->n);
    return bad;
}

int main(void)
{
    static const size_t sizes[] = {1, 2, 17, 515};
    cc_level levels[CC_MAX_LEVELS];
    const size_t count = cc_levels(levels);
    int failures = 0;
    for (size_t i = 0; i < count; i++) {
        const int before = failures;
        for (size_t c = 0; c < CALLS; c++)
            for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
                cc_room room = make_room(&calls[c], sizes[s]);
                if (!run_call(&levels[i], &calls[c], &room)) {
                    printf("MISSING %s\n", calls[c].kernel);
                    failures++;
                } else
                    failures += wrong(&levels[i], &calls[c], &room);
                leave_room(&room);
            }
        printf("%-9s tdes %-9s sm4 %-9s aes %-9s %zu answers, %d wrong\n", levels[i].name, levels[i].tdes->name, levels[i].sm4->name,
               levels[i].aes->name, (size_t)CALLS, failures - before);
    }
    return failures != 0;
}
