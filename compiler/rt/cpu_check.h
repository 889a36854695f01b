/* cpu_check.h - which features of a list does this processor (and its operating system) lack?
 *
 * Part of the compiler and, as text, of every emitted program, so: C99 and Linux alone. The names are those of
 * /proc/cpuinfo where it has one. A name that this file does not know counts as lacking. */
#ifndef CPU_CHECK_H
#define CPU_CHECK_H

#include <stddef.h>
#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

typedef struct cpu_feature {
    const char *name;
    unsigned leaf, reg, bit; /* CPUID; reg 1..3: ebx, ecx, edx; 0: eax of its subleaf 1 */
    unsigned saved;          /* XCR0 bits: the registers that the system must save */
} cpu_feature;

static const cpu_feature cpu_features[] = {
    {"fma", 1, 2, 12, 0x6},
    {"movbe", 1, 2, 22, 0},
    {"f16c", 1, 2, 29, 0x6},
    {"bmi1", 7, 1, 3, 0},
    {"avx2", 7, 1, 5, 0x6},
    {"bmi2", 7, 1, 8, 0},
    {"avx512f", 7, 1, 16, 0xe6},
    {"avx512dq", 7, 1, 17, 0xe6},
    {"avx512ifma", 7, 1, 21, 0xe6},
    {"avx512cd", 7, 1, 28, 0xe6},
    {"avx512bw", 7, 1, 30, 0xe6},
    {"avx512vl", 7, 1, 31, 0xe6},
    {"avx512vbmi", 7, 2, 1, 0xe6},
    {"avx512vbmi2", 7, 2, 6, 0xe6},
    {"avx512vnni", 7, 2, 11, 0xe6},
    {"avx512bitalg", 7, 2, 12, 0xe6},
    {"avx512vpopcntdq", 7, 2, 14, 0xe6},
    {"avx512bf16", 7, 0, 5, 0xe6},
    {"amx_bf16", 7, 3, 22, 0x600e6},
    {"avx512fp16", 7, 3, 23, 0xe6},
    {"amx_tile", 7, 3, 24, 0x600e6},
    {"amx_int8", 7, 3, 25, 0x600e6},
    {"lzcnt", 0x80000001U, 2, 5, 0},
};

/* XCR0: the register sets that the system saves; 0 without XGETBV. */
static unsigned cpu_saved_state(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & (1U << 27)) == 0) return 0;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a;
}

static int cpu_has(const char *name, size_t len) {
    enum { ARCH_REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    for (size_t i = 0; i < sizeof cpu_features / sizeof cpu_features[0]; i++) {
        const cpu_feature *f = &cpu_features[i];
        if (strlen(f->name) != len || memcmp(f->name, name, len) != 0) continue;
        unsigned r[4] = {0, 0, 0, 0};
        if (__get_cpuid_count(f->leaf, f->reg == 0, &r[0], &r[1], &r[2], &r[3]) == 0) return 0;
        if ((r[f->reg] >> f->bit & 1U) == 0) return 0;
        if (f->saved != 0 && (cpu_saved_state() & f->saved) != f->saved) return 0;
        /* Linux hands out the tile registers on request, to the whole process. */
        return (f->saved & 0x60000U) == 0 ||
               syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, TILE_DATA) == 0;
    }
    return 0;
}

#elif defined(__aarch64__) || defined(__arm__)
#include <sys/auxv.h>

typedef struct cpu_feature {
    const char *name;
    unsigned long type; /* of the auxiliary vector */
    unsigned bit;
} cpu_feature;

static const cpu_feature cpu_features[] = {
#if defined(__aarch64__)
    {"asimd", 16, 1},   {"asimdhp", 16, 10}, {"asimddp", 16, 20}, {"sve", 16, 22},
    {"atomics", 16, 8}, {"i8mm", 26, 13},    {"bf16", 26, 14},    {"sve2", 26, 1},
#else
    {"neon", 16, 12},
    {"vfpv4", 16, 16},
#endif
};

static int cpu_has(const char *name, size_t len) {
    for (size_t i = 0; i < sizeof cpu_features / sizeof cpu_features[0]; i++) {
        const cpu_feature *f = &cpu_features[i];
        if (strlen(f->name) == len && memcmp(f->name, name, len) == 0)
            return (int)(getauxval(f->type) >> f->bit & 1UL);
    }
    return 0;
}

#elif defined(__riscv)
#include <sys/auxv.h>

/* Version 1.0 of the vectors: Linux does not tell of those before it. */
static int cpu_has(const char *name, size_t len) {
    unsigned long bytes = 0;
    if ((getauxval(AT_HWCAP) >> ('v' - 'a') & 1UL) == 0) return 0;
    if (len == 1) return *name == 'v';
    if (len != 7 || memcmp(name, "zvl256b", len) != 0) return 0;
    __asm__("csrr %0, 0xc22" : "=r"(bytes)); /* vlenb */
    return bytes >= 32;
}

#else
static int cpu_has(const char *name, size_t len) {
    (void)name;
    (void)len;
    return 0;
}
#endif

/* The first name of the comma-separated list that is missing here, *len its length; NULL when all are there. */
static const char *cpu_missing(const char *needs, size_t *len) {
    while (*needs != '\0') {
        *len = strcspn(needs, ",");
        if (!cpu_has(needs, *len)) return needs;
        needs += *len;
        if (*needs == ',') needs++;
    }
    return NULL;
}

#endif
