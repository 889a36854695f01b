/* vclock.c - a virtual clock for qemu-user: a program's time is the cost of the instructions it executed.
 *
 * Costs come by class of instruction from the profile of the simulated device, in cycles; a block of translated code
 * adds the sum of its instructions to the counter of the thread that enters it. When clock_gettime returns, the time
 * since that thread's previous reading, floor(cycles / MHz), is added to its clock and the counter starts again at
 * zero: what lies between two readings alone decides their distance, so equal work gives equal times in every process,
 * whatever went before. No caches, no overlap, no waiting: such numbers compare programs, they are no phone's latency.
 * One thread: time that a thread waits for another does not pass.
 *
 * Needs guest addresses that are host addresses (qemu -B 0). Plugin API version 1 (qemu 4.2 to 9), declared here from
 * its documentation since Debian packages no header. Arguments: mhz=N and int|mul|div|load|store|simd|fma|dot|matrix|
 * branch|other=CYCLES. Programs of other machines than AArch64 cost `other` for every instruction. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t plugin_id;
typedef struct plugin_block plugin_block;
typedef struct plugin_insn plugin_insn;
/* The head of qemu_info_t. */
typedef struct plugin_info {
    const char *target_name;
} plugin_info;

typedef void (*block_translated)(plugin_id, plugin_block *);
typedef void (*block_entered)(unsigned vcpu, void *);
typedef void (*call_begins)(plugin_id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                            uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7,
                            uint64_t a8);
typedef void (*call_ends)(plugin_id, unsigned vcpu, int64_t number, int64_t result);

extern void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, block_translated);
extern void qemu_plugin_register_vcpu_tb_exec_cb(plugin_block *, block_entered, int flags, void *);
extern void qemu_plugin_register_vcpu_syscall_cb(plugin_id, call_begins);
extern void qemu_plugin_register_vcpu_syscall_ret_cb(plugin_id, call_ends);
extern size_t qemu_plugin_tb_n_insns(const plugin_block *);
extern plugin_insn *qemu_plugin_tb_get_insn(const plugin_block *, size_t);
extern const void *qemu_plugin_insn_data(const plugin_insn *);
EXPORT int qemu_plugin_install(plugin_id, const plugin_info *, int argc, char **argv);
EXPORT extern int qemu_plugin_version;
int qemu_plugin_version = 1;

enum { THREADS_MAX = 256, MILLI = 1000 };

/* Classes of instructions; `other` last. */
#define CLASSES(X)                                                                                 \
    X(int, 500)                                                                                    \
    X(mul, 1000)                                                                                   \
    X(div, 8000)                                                                                   \
    X(load, 1000)                                                                                  \
    X(store, 1000)                                                                                 \
    X(simd, 1000)                                                                                  \
    X(fma, 1000)                                                                                   \
    X(dot, 1000)                                                                                   \
    X(matrix, 2000)                                                                                \
    X(branch, 500)                                                                                 \
    X(other, 1000)
#define CLASS_ENUM(name, cost) C_##name,
#define CLASS_NAME(name, cost) #name,
#define CLASS_COST(name, cost) cost,
enum { CLASSES(CLASS_ENUM) N_CLASSES };
static const char *const class_names[] = {CLASSES(CLASS_NAME)};
static uint64_t class_cost[] = {CLASSES(CLASS_COST)}; /* thousandths of a cycle */

static uint64_t mhz = 1000;
static bool is_aarch64, is_arm;

static struct {
    uint64_t cost;  /* since the last reading, thousandths of a cycle */
    uint64_t ns;    /* the clock */
    uint64_t where; /* the timespec of the call under way, 0: another call */
    bool narrow;    /* two 32-bit words */
    uint64_t apart[4];
} threads[THREADS_MAX];

/* Vectors of AArch64: what a neural network spends its time in. Patterns of the Arm Architecture Reference Manual,
 * "Advanced SIMD"; bit 30 (Q) and the size bits are left open. */
static int vector_class(uint32_t w) {
    static const struct {
        uint32_t mask, value;
        int class_of;
    } rows[] = {
        {0x9f20fc00, 0x0e009400, C_dot},    /* SDOT vector */
        {0x9f20fc00, 0x0e009c00, C_dot},    /* USDOT vector */
        {0x9f00f400, 0x0f00e000, C_dot},    /* SDOT by element */
        {0xbf20fc00, 0x2e00fc00, C_dot},    /* BFDOT vector */
        {0x9f20f400, 0x0e00a400, C_matrix}, /* SMMLA, USMMLA */
        {0xbfe0fc00, 0x2e40ec00, C_matrix}, /* BFMMLA */
        {0xbf20fc00, 0x0e20cc00, C_fma},    /* FMLA, FMLS vector */
        {0xbf00f400, 0x0f001000, C_fma},    /* FMLA by element */
        {0xff000000, 0x1f000000, C_fma},    /* FMADD and its kin */
        {0x9f20fc00, 0x0e208000, C_fma},    /* SMLAL, UMLAL */
        {0xbf20fc00, 0x0e209400, C_fma},    /* MLA */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if ((w & (rows[i].mask & ~UINT32_C(0x20000000))) == (rows[i].value & ~UINT32_C(0x20000000)))
            return rows[i].class_of; /* bit 29, signed or unsigned, does not change the cost */
    }
    return C_simd;
}

/* Bits 28 to 25 name the encoding group. */
static int aarch64_class(uint32_t w) {
    const uint32_t group = w >> 25 & 15;
    if ((group & 5) ==
        4) { /* bit 22 tells loads from stores, but for loads relative to the program counter */
        const bool literal = (w & 0x3b000000) == 0x18000000;
        return literal || (w >> 22 & 1) != 0 ? C_load : C_store;
    }
    if ((group & 7) == 7) return vector_class(w);
    if (group == 2) return C_simd; /* SVE */
    if ((group & 14) == 10) return C_branch;
    if ((group & 7) == 5) {
        if ((w >> 24 & 0x1f) == 0x1b) return C_mul;
        if ((w & 0x7fe0f800) == 0x1ac00800) return C_div;
    }
    return C_int;
}

static uint64_t cost_of(const plugin_insn *insn) {
    uint32_t w;
    if (!is_aarch64) return class_cost[C_other];
    memcpy(&w, qemu_plugin_insn_data(insn), sizeof w);
    return class_cost[aarch64_class(w)];
}

static void entered(unsigned vcpu, void *cost) {
    threads[vcpu % THREADS_MAX].cost += (uint64_t)(uintptr_t)cost;
}

static void translated(plugin_id id, plugin_block *block) {
    (void)id;
    uint64_t cost = 0;
    const size_t n = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < n; i++)
        cost += cost_of(qemu_plugin_tb_get_insn(block, i));
    qemu_plugin_register_vcpu_tb_exec_cb(block, entered, 0, (void *)(uintptr_t)cost);
}

/* Number of clock_gettime: 113 where call numbers are the generic ones; 32-bit Arm has an old and a wide one. */
static bool reads_clock(int64_t number, bool *narrow) {
    *narrow = is_arm && number == 263;
    return is_arm ? number == 263 || number == 403 : number == 113;
}

static void begins(plugin_id id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2,
                   uint64_t a3, uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8) {
    (void)id, (void)a1, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    vcpu %= THREADS_MAX;
    threads[vcpu].where = reads_clock(number, &threads[vcpu].narrow) ? a2 : 0;
}

static void ends(plugin_id id, unsigned vcpu, int64_t number, int64_t result) {
    (void)id, (void)number;
    vcpu %= THREADS_MAX;
    if (threads[vcpu].where == 0 || result != 0) return;
    threads[vcpu].ns += threads[vcpu].cost / mhz; /* thousandths of a cycle / MHz = ns */
    threads[vcpu].cost = 0;
    const uint64_t ns = threads[vcpu].ns, second = UINT64_C(1000000000);
    void *to = (void *)(uintptr_t)threads[vcpu].where;
    if (threads[vcpu].narrow) {
        const int32_t words[2] = {(int32_t)(ns / second), (int32_t)(ns % second)};
        memcpy(to, words, sizeof words);
    } else {
        const int64_t words[2] = {(int64_t)(ns / second), (int64_t)(ns % second)};
        memcpy(to, words, sizeof words);
    }
}

static int argument(const char *text) {
    const char *equals = strchr(text, '=');
    char *end = NULL;
    const double value = equals != NULL ? strtod(equals + 1, &end) : 0;
    if (equals == NULL || end == equals + 1 || *end != '\0' || !(value > 0)) return -1;
    const size_t n = (size_t)(equals - text);
    if (n == 3 && strncmp(text, "mhz", n) == 0) {
        mhz = (uint64_t)value;
        return mhz > 0 ? 0 : -1;
    }
    for (size_t i = 0; i < N_CLASSES; i++) {
        if (strlen(class_names[i]) != n || strncmp(text, class_names[i], n) != 0) continue;
        class_cost[i] = (uint64_t)(value * MILLI + 0.5);
        return 0;
    }
    return -1;
}

int qemu_plugin_install(plugin_id id, const plugin_info *info, int argc, char **argv) {
    is_aarch64 = strcmp(info->target_name, "aarch64") == 0;
    is_arm = strcmp(info->target_name, "arm") == 0;
    for (int i = 0; i < argc; i++) {
        if (argument(argv[i]) == 0) continue;
        fprintf(stderr, "vclock: '%s': need mhz=N or <class>=CYCLES, above 0\n", argv[i]);
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_vcpu_syscall_cb(id, begins);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, ends);
    return 0;
}
