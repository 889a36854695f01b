/* exec_dispatch.c - which copy of the executor's kernels this CPU runs, and whether it has tile registers. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE /* syscall */
#endif
#include "eval/exec.h"
#include "eval/exec_kernels.h"
#include "eval/exec_tiles.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#if defined(__x86_64__)
static bool has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl");
}
#endif

void nas__exec_kernels_all(const nas__exec_kernels *out[4]) {
    int n = 0;
    out[n++] = &nas__exec_kernels_base;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &nas__exec_kernels_avx2;
    if (has_avx512()) out[n++] = &nas__exec_kernels_avx512;
#endif
    out[n] = NULL;
}

const nas__exec_kernels *nas__exec_kernels_best(void) {
    const nas__exec_kernels *all[4];
    nas__exec_kernels_all(all);
    int last = 0;
    while (all[last + 1] != NULL)
        last++;
    return all[last];
}

/* CPUID 7: AMX-BF16 and AMX-TILE, AVX512_BF16; XCR0: the system saves their registers. Linux hands out tile data on request,
 * to the whole process. */
bool nas_exec_has_bf16(void) {
#if defined(__x86_64__)
    enum { ARCH_REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    const unsigned tiles = 1U << 22 | 1U << 24, half = 1U << 5, saved = 0x600e6;
    unsigned a = 0, b = 0, c = 0, d = 0, state = 0, high = 0;
    if (!nas__exec_tiles_built || !has_avx512()) return false;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & tiles) != tiles) return false;
    if (__get_cpuid_count(7, 1, &a, &b, &c, &d) == 0 || (a & half) == 0) return false;
    __asm__ volatile("xgetbv" : "=a"(state), "=d"(high) : "c"(0)); /* there: AVX-512 is */
    (void)high;
    return (state & saved) == saved &&
           syscall(SYS_arch_prctl, ARCH_REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}
