/* target.c - the table of targets, and the best row for this processor. */
#include "compiler/compiler_internal.h"

#include <string.h>

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#if defined(__x86_64__)
#define RUNS_X86 true
#else
#define RUNS_X86 false
#endif
#if defined(__aarch64__)
#define RUNS_ARM true
#define ARM_COMPILER "gcc"
#else
#define RUNS_ARM false
#define ARM_COMPILER "aarch64-linux-gnu-gcc"
#endif

/* Worst row first: "native" takes the last one that runs here. Cache sizes are those of the smallest common
 * processor of the row. */
static const nas_target targets[] = {
    {"x86-64", 16, 16, 32 * 1024, 1024 * 1024, "gcc", "-march=x86-64", RUNS_X86},
    {"x86-64-avx2", 32, 16, 32 * 1024, 1024 * 1024, "gcc", "-march=haswell", RUNS_X86},
    {"x86-64-avx512", 64, 32, 32 * 1024, 1024 * 1024, "gcc",
     "-march=skylake-avx512 -mprefer-vector-width=512", RUNS_X86},
    {"aarch64-linux", 16, 32, 32 * 1024, 512 * 1024, ARM_COMPILER, "-march=armv8-a", RUNS_ARM},
};
enum { TARGET_COUNT = sizeof targets / sizeof targets[0] };

#if defined(__x86_64__)
/* Vector state the operating system saves: XCR0. */
static uint64_t saved_state(void) {
    uint32_t low = 0, high = 0;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

/* Lanes this processor and its operating system offer: 4, 8 (AVX2, FMA) or 16 (AVX-512 F, BW, DQ, VL, CD). */
static int32_t native_vector_bytes(void) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (__get_cpuid(1, &a, &b, &c, &d) == 0) return 16;
    const bool fma = (c & bit_FMA) != 0 && (c & bit_MOVBE) != 0 && (c & bit_F16C) != 0;
    if ((c & bit_OSXSAVE) == 0 || !fma || (saved_state() & 0x6) != 0x6) return 16;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return 16;
    if ((b & bit_AVX2) == 0 || (b & bit_BMI) == 0 || (b & bit_BMI2) == 0) return 16;
    const unsigned wide = bit_AVX512F | bit_AVX512BW | bit_AVX512DQ | bit_AVX512VL | bit_AVX512CD;
    return (b & wide) == wide && (saved_state() & 0xe6) == 0xe6 ? 64 : 32;
}
#else
static int32_t native_vector_bytes(void) {
    return 16;
}
#endif

/* A row of the build's architecture is only "here" when the processor has its vectors too. */
static nas_status runnable(nas_ctx *ctx, const nas_target *row) {
    if (row->runs_here && row->vector_bytes > native_vector_bytes()) {
        return nas_fail(
            ctx, NAS_ERR_UNSUPPORTED,
            "target %s needs %d-byte vectors, this processor has %d-byte ones; use 'native'",
            row->name, row->vector_bytes, native_vector_bytes());
    }
    return NAS_OK;
}

nas_status nas_target_find(nas_ctx *ctx, const char *name, const nas_target **out) {
    nas_buf known = {0};
    for (int i = TARGET_COUNT - 1; i >= 0; i--) {
        const nas_target *row = &targets[i];
        const bool native = strcmp(name, "native") == 0 && row->runs_here &&
                            row->vector_bytes <= native_vector_bytes();
        if (native || strcmp(name, row->name) == 0) {
            nas_buf_deinit(&known);
            const nas_status status = runnable(ctx, row);
            if (status == NAS_OK) *out = row;
            return status;
        }
        nas_buf_printf(&known, ", %s", row->name);
    }
    const nas_status status = nas_fail(ctx, NAS_ERR_NOTFOUND, "target '%s': known are native%s",
                                       name, known.data != NULL ? known.data : "");
    nas_buf_deinit(&known);
    return status;
}
