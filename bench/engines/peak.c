/* peak.c - what the FMA units give right now: `peak THREADS` prints fp32 GFLOP/s, all threads together.
 *
 * Each thread runs on one CPU of the process's mask, for ~50 ms in slices of ~1 ms; its rate is the median slice, so a
 * slice that was preempted does not count, while a lower clock does: the same view as the median latency beside it. */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#if defined(__AVX512F__)
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif

typedef float vec __attribute__((vector_size(BYTES)));
enum { LANES = BYTES / 4, ACCUMULATORS = 12, SLICES = 50, SLICE_NS = 1000000, THREADS_MAX = 64 };

typedef struct worker {
    pthread_t thread;
    int cpu;
    double gflops;
} worker;

static double now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;
}

/* 12 independent chains: more than latency (4-5 cycles) times units (2), so that only the issue rate counts. */
static float fma_chains(long rounds) {
    const float one = 1.0f;
    const vec m = one - 1e-7f - (vec){0}, b = 1e-7f - (vec){0};
    vec a0 = b, a1 = b, a2 = b, a3 = b, a4 = b, a5 = b, a6 = b, a7 = b, a8 = b, a9 = b, aa = b,
        ab = b;
    for (long i = 0; i < rounds; i++) {
        a0 = a0 * m + b, a1 = a1 * m + b, a2 = a2 * m + b, a3 = a3 * m + b;
        a4 = a4 * m + b, a5 = a5 * m + b, a6 = a6 * m + b, a7 = a7 * m + b;
        a8 = a8 * m + b, a9 = a9 * m + b, aa = aa * m + b, ab = ab * m + b;
        /* Equal chains would be computed once. */
        __asm__ volatile("" : "+x"(a0), "+x"(a1), "+x"(a2), "+x"(a3), "+x"(a4), "+x"(a5));
        __asm__ volatile("" : "+x"(a6), "+x"(a7), "+x"(a8), "+x"(a9), "+x"(aa), "+x"(ab));
    }
    const vec sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + aa + ab;
    return sum[0];
}

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void *run(void *argument) {
    worker *w = argument;
    volatile float sink = 0;
    double rates[SLICES];
    long rounds = 1000;
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(w->cpu, &set);
    (void)sched_setaffinity(0, sizeof set,
                            &set); /* best effort: the mask of the process holds anyway */
    for (double took = 0; took < SLICE_NS / 2.0; rounds *= 2) {
        const double start = now_ns();
        sink += fma_chains(rounds);
        took = now_ns() - start;
    }
    for (int i = 0; i < SLICES; i++) {
        const double start = now_ns();
        sink += fma_chains(rounds);
        rates[i] = 2.0 * LANES * ACCUMULATORS * (double)rounds / (now_ns() - start);
    }
    qsort(rates, SLICES, sizeof rates[0], compare);
    w->gflops = rates[SLICES / 2];
    return NULL;
}

int main(int argc, char **argv) {
    const int threads = argc == 2 ? (int)strtol(argv[1], NULL, 10) : 1;
    worker workers[THREADS_MAX];
    cpu_set_t mine;
    double total = 0;
    int cpu = -1;
    if (threads < 1 || threads > THREADS_MAX || sched_getaffinity(0, sizeof mine, &mine) != 0 ||
        CPU_COUNT(&mine) < threads) {
        fprintf(stderr, "usage: %s THREADS, at most one a CPU of the mask\n", argv[0]);
        return 2;
    }
    for (int i = 0; i < threads; i++) {
        do
            cpu++;
        while (!CPU_ISSET(cpu, &mine));
        workers[i].cpu = cpu;
        if (pthread_create(&workers[i].thread, NULL, run, &workers[i]) != 0) return 1;
    }
    for (int i = 0; i < threads; i++) {
        (void)pthread_join(workers[i].thread, NULL);
        total += workers[i].gflops;
    }
    printf("%.1f\n", total);
    return 0;
}
