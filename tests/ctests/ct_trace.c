/* Constant time by execution: a kernel runs with several keys, one instruction at a time, and the addresses it executes and the addresses it
 * reads and writes must be the same. For the levels above avx2, which valgrind cannot run; it watches the very instructions that ship.
 *
 *     ct_trace TABLE [level]
 *
 * TABLE comes from trace_table.py: for each instruction of this program with a memory operand, how its address is made from registers
 * (instructions that take addresses from vector registers are refused there). The CPU's trap flag gives a signal after each instruction;
 * the runs use the same buffers and differ in the key bytes and in nothing else. Exit status 1 when traces differ, or when those of a
 * planted leak do not. */
#define _GNU_SOURCE
#include <signal.h>
#include <stddef.h>
#include <ucontext.h>

#include "calls.h"
#include "leaks.h"

enum { NONE = 16 };

/* The memory operand of the instruction at an address: base + index * scale + offset; `base` and `index` as x86 numbers them. */
typedef struct {
    uint8_t base, index, scale;
    int64_t offset;
} operand;

static operand *operands;
static uint64_t text_start, text_size;

static void read_table(const char *path)
{
    FILE *const file = fopen(path, "r");
    unsigned long start, end, at;
    if (!file || fscanf(file, "%lx %lx", &start, &end) != 2)
        exit(2);
    text_start = start, text_size = end - start;
    operands = calloc(text_size, sizeof *operands);
    for (uint64_t i = 0; i < text_size; i++)
        operands[i].base = operands[i].index = NONE, operands[i].scale = 0;
    int base, index, scale;
    long offset;
    while (fscanf(file, "%lx %d %d %d %ld", &at, &base, &index, &scale, &offset) == 5)
        operands[at - start] = (operand){(uint8_t)base, (uint8_t)index, (uint8_t)scale, offset};
    fclose(file);
}

static const int numbered[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                                 REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

static uint64_t value(const greg_t *registers, int number)
{
    return number == NONE ? 0 : (uint64_t)registers[numbered[number]];
}

static uint64_t mixed(uint64_t hash, uint64_t word)
{
    hash = (hash ^ word) * 0x9E3779B97F4A7C15u;
    return hash ^ hash >> 29;
}

typedef struct {
    uint64_t hash, steps;
} summary;

static const cc_level *level;
static const cc_call *call;
static cc_room room;
static int leak;
static uint8_t table[256], guess[16];

static void __attribute__((noinline)) subject(void)
{
    if (leak == 1)
        leak_branch(room.keys, guess, room.out);
    else if (leak == 2)
        leak_table(room.keys, table, room.out);
    else
        run_call(level, call, &room);
}

static summary seen;

/* After each instruction: where the next one is, and what address it will use. */
static void step(int signal_number, siginfo_t *info, void *context)
{
    const greg_t *const registers = ((const ucontext_t *)context)->uc_mcontext.gregs;
    const uint64_t at = (uint64_t)registers[REG_RIP];
    (void)signal_number, (void)info;
    seen.steps++;
    seen.hash = mixed(seen.hash, at);
    if (at - text_start < text_size) {
        const operand *const o = &operands[at - text_start];
        if (o->scale)
            seen.hash = mixed(seen.hash, value(registers, o->base) + value(registers, o->index) * o->scale + (uint64_t)o->offset);
    }
}

static void catch_steps(void)
{
    static uint8_t stack[1 << 16];
    const stack_t own = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_flags = SA_SIGINFO | SA_ONSTACK};
    action.sa_sigaction = step;
    if (sigaltstack(&own, NULL) || sigaction(SIGTRAP, &action, NULL))
        exit(2);
}

static void fill(uint8_t *bytes, size_t size, unsigned seed)
{
    for (size_t i = 0; bytes && i < size; i++) {
        seed = seed * 1103515245u + 12345u;
        bytes[i] = (uint8_t)(seed >> 16);
    }
}

/* One run with the keys of a seed. */
static summary run(unsigned seed)
{
    fill(room.keys, room.keys_len, seed);
    fill(room.mac_keys, room.mac_len, seed + 1);
    fill(room.kek, room.kek_len, seed + 2);
    if (call && call->chain)
        memcpy(room.chain, call->chain, call->chain_len);
    seen = (summary){0, 0};
    __asm__ __volatile__("leaq -128(%%rsp), %%rsp; pushfq; orq $0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" : : : "memory", "cc");
    subject();
    __asm__ __volatile__("leaq -128(%%rsp), %%rsp; pushfq; andq $~0x100, (%%rsp); popfq; leaq 128(%%rsp), %%rsp" : : : "memory", "cc");
    return seen;
}

static int differs(uint64_t *steps)
{
    const summary one = run(1), other = run(7919);
    *steps += one.steps + other.steps;
    return other.hash != one.hash || other.steps != one.steps;
}

static int planted_are_found(void)
{
    static uint8_t key[16], out[16];
    uint64_t steps = 0;
    room = (cc_room){.keys = key, .keys_len = 16, .out = out};
    fill(guess, sizeof guess, 1);
    leak = 1;
    const int branch = differs(&steps);
    leak = 2;
    const int lookup = differs(&steps);
    leak = 0;
    printf("planted branch %s, planted table %s (both must be found)\n", branch ? "found" : "MISSED", lookup ? "found" : "MISSED");
    return branch && lookup;
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return 2;
    read_table(argv[1]);
    catch_steps();
    cc_level levels[CC_MAX_LEVELS];
    const size_t count = cc_levels(levels);
    int failures = !planted_are_found();
    fflush(stdout);
    for (size_t i = 0; i < count; i++) {
        if (argc > 2 && strcmp(argv[2], levels[i].name))
            continue;
        uint64_t steps = 0;
        size_t traced = 0;
        level = &levels[i];
        for (size_t c = 0; c < CALLS; c++) {
            if (!is_first(c))
                continue;
            call = &calls[c];
            room = make_room(call, 2);
            if (differs(&steps))
                printf("LEAK %s at level %s\n", call->id, level->name), failures++;
            leave_room(&room);
            traced++;
        }
        printf("%-9s tdes %-9s sm4 %-9s aes %-9s %zu calls, %lu instructions, two keys each\n", level->name, level->tdes->name,
               level->sm4->name, level->aes->name, traced, (unsigned long)steps);
        fflush(stdout);
    }
    return failures != 0;
}
