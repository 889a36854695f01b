/* bench_common.h - what the compiler's benchmarks share: a register multiply-add loop as the yardstick of the moment,
 * one run of an executable's measuring loop, medians. Shared machines change speed within seconds, so every figure is
 * taken between two peak loops and printed beside their mean; ratios are formed pair by pair, then their median. */
#ifndef BENCH_COMMON_H
#define BENCH_COMMON_H

#include "compiler/compiler.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#define BENCH_WIDE __attribute__((target("avx512f")))
#define BENCH_AVX2 __attribute__((target("avx2,fma")))
#else
#define BENCH_WIDE
#define BENCH_AVX2
#endif

/* Processor time of this thread: what others run meanwhile does not count. */
static double bench_cpu_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* cannot fail for the own thread */
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* GFLOP/s of ten independent chains of multiply-adds on data that keeps all bits busy, about 10 ms. */
#define BENCH_PEAK(name, bytes, attribute)                                                         \
    typedef float name##_vector __attribute__((vector_size(bytes)));                               \
    attribute static double name(volatile float *sink) {                                           \
        enum { ROUNDS = 1500000, CHAINS = 10, LANES = (bytes) / 4 };                               \
        name##_vector x, y, a0, a1, a2, a3, a4, a5, a6, a7, a8, a9;                                \
        for (int i = 0; i < LANES; i++) {                                                          \
            x[i] = 0.73F + 0.013F * (float)i;                                                      \
            y[i] = 0.31F + 0.017F * (float)i;                                                      \
        }                                                                                          \
        a0 = x, a1 = y, a2 = x + y, a3 = x - y, a4 = x * y, a5 = a2 * x, a6 = a2 * y, a7 = a3 * x, \
        a8 = a3 * y;                                                                               \
        a9 = a4 * x;                                                                               \
        const double start = bench_cpu_ns();                                                       \
        for (int i = 0; i < ROUNDS; i++) {                                                         \
            a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y;   \
            a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y;   \
            __asm__ volatile("" ::: "memory");                                                     \
        }                                                                                          \
        const double ns = bench_cpu_ns() - start;                                                  \
        const name##_vector sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9;                 \
        *sink = sum[0];                                                                            \
        return 2.0 * ROUNDS * CHAINS * LANES / ns;                                                 \
    }
BENCH_PEAK(bench_peak_16, 16, )
BENCH_PEAK(bench_peak_32, 32, BENCH_AVX2)
BENCH_PEAK(bench_peak_64, 64, BENCH_WIDE)

__attribute__((unused)) static double bench_peak(const nas_target *target) {
    volatile float sink = 0;
    if (target->vector_bytes == 64) return bench_peak_64(&sink);
    return target->vector_bytes == 32 ? bench_peak_32(&sink) : bench_peak_16(&sink);
}

static int bench_compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double bench_median(double *values, size_t n) {
    qsort(values, n, sizeof *values, bench_compare);
    return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

/* A number of the JSON document that --bench prints; exits when it is missing. */
static double bench_field(const char *json, const char *key) {
    char quoted[64];
    (void)snprintf(quoted, sizeof quoted, "\"%s\":", key);
    const char *at = strstr(json, quoted);
    if (at == NULL) {
        (void)fprintf(stderr, "no %s in: %s\n", key, json);
        exit(NAS_EXIT_FAILED);
    }
    return strtod(at + strlen(quoted), NULL);
}

static void bench_check(nas_ctx *ctx, nas_status status) {
    if (status == NAS_OK) return;
    (void)fprintf(stderr, "%s\n", nas_ctx_message(ctx));
    exit(NAS_EXIT_FAILED);
}

/* One short run of the measuring loop; returns the fastest inference in us, p50 through the pointer. */
__attribute__((unused)) static double bench_run(nas_ctx *ctx, const nas_artifact *artifact,
                                                int threads, const char *cpus, double *p50_us) {
    char count[8];
    (void)snprintf(count, sizeof count, "%d", threads);
    const char *const argv[] = {artifact->path,
                                "--bench",
                                "--threads",
                                count,
                                "--cpus",
                                cpus,
                                "--min-batches",
                                "3",
                                "--min-time-ms",
                                "200",
                                "--max-time-ms",
                                "600",
                                "--warmup-ms",
                                "50",
                                "--warmup-cap-ms",
                                "150",
                                NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    nas_process_result result = {0};
    bench_check(ctx, nas_process_run(ctx, &options, &result));
    if (result.exit_code != 0) {
        (void)fprintf(stderr, "%s: %s\n", artifact->path,
                      result.err.data != NULL ? result.err.data : "failed");
        exit(NAS_EXIT_FAILED);
    }
    const double best = bench_field(result.out.data, "min_us");
    *p50_us = bench_field(result.out.data, "p50_us");
    nas_process_result_deinit(&result);
    return best;
}

/* Weights of about unit gain: no denormals, no infinities on the way. */
__attribute__((unused)) static void bench_fill(nas_ctx *ctx, nas_graph *g) {
    bench_check(ctx, nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(1, 0, "bench");
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        nas_param *p = nas_graph_param(g, i);
        const double scale = p->rank == 4 ? 1.7 * (double)p->dims[0] / (double)p->count : 0.1;
        for (size_t k = 0; k < p->count; k++)
            p->data[k] = (float)(scale * (2 * nas_rng_uniform(&rng) - 1));
    }
}

enum { BENCH_ROUNDS = 9 };

/* Prints one line; returns the median of the p50 figures in ms. */
__attribute__((unused)) static double bench_cell(nas_ctx *ctx, const char *name,
                                                 const nas_target *target,
                                                 const nas_artifact *artifact, double gflop,
                                                 int threads, const char *cpus) {
    double ratio[BENCH_ROUNDS], p50[BENCH_ROUNDS], peaks[BENCH_ROUNDS], best = 1e30;
    for (int i = 0; i < BENCH_ROUNDS; i++) {
        const double before = bench_peak(target);
        double p50_us = 0;
        const double fastest = bench_run(ctx, artifact, threads, cpus, &p50_us);
        peaks[i] = 0.5 * (before + bench_peak(target));
        p50[i] = p50_us / 1e3;
        ratio[i] = 100.0 * gflop / p50_us * 1e6 / (peaks[i] * threads);
        best = fastest < best ? fastest : best;
    }
    const double middle = bench_median(p50, BENCH_ROUNDS),
                 share = bench_median(ratio, BENCH_ROUNDS);
    printf("%-28s %dT %9.3f ms (best %.3f) %7.1f GFLOP/s, peak loop %.1f a thread, share %.0f %% "
           "(%.0f-%.0f)\n",
           name, threads, middle, best / 1e3, gflop / middle * 1e3,
           bench_median(peaks, BENCH_ROUNDS), share, ratio[0], ratio[BENCH_ROUNDS - 1]);
    (void)fflush(stdout);
    return middle;
}

#endif
