/* exec_dispatch.c - which copy of the executor's kernels this CPU runs. */
#include "eval/exec_kernels.h"

void nas__exec_kernels_all(const nas__exec_kernels *out[4]) {
    int n = 0;
    out[n++] = &nas__exec_kernels_base;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        out[n++] = &nas__exec_kernels_avx2;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        out[n++] = &nas__exec_kernels_avx512;
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
