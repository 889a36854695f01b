/* bench_state.h - what --bench is asked for, works on and finds out; clock and memory. Part of the main program of an emitted
 * executable, see bench_main.c. */
#ifndef BENCH_STATE_H
#define BENCH_STATE_H

#include "conditions.h"
#include "model.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <time.h>

enum {
    EXIT_USAGE = 2,
    ALIGNMENT = 4096,    /* of arena and tensors: page aligned, so that runs resemble each other */
    SAMPLES_MAX = 65536, /* batches kept in memory: a minute of the shortest batches */
    SAMPLES_PRINTED = 1024,
    TASKS_MAX = 65, /* the main thread and 64 workers */
    GROUP_MAX = 9,  /* batches in one warm-up group */
    GROUP_MS = 50,
    CURVE_MAX = 120,           /* points of a sustained run */
    SUSTAINED_SAMPLES = 16384, /* at most so many batches in its last third */
    PROFILE_ROUNDS = 31,
    HOPELESS_MIN = 10 /* batches seen before a run is given up early */
};

/* Share of a batch's wall time that a thread may lose to others: runnable but not running where the kernel counts that,
 * else off the CPU beyond what the calmest batch was. A switch that costs some microseconds is no disturbance. */
static const double lost_share_max = 0.02;
/* Of all batches disturbed: above the first the controller measures again; above the second there is no hope. */
static const double dropped_share_max = 0.30, hopeless_share = 0.50;

typedef struct bench_options {
    long threads;
    const char *cpus;
    long min_batches, min_time_ms, max_time_ms, batch_ms;
    long warmup_runs, warmup_ms, warmup_cap_ms;
    long sustained_s; /* 0: a burst */
    int profile;      /* time the layers, too */
    conditions_options around;
} bench_options;

double peak_gflops(double seconds); /* peak.c */

/* What --bench works on: buffers, and the threads of this process with their run-queue counters. */
typedef struct bench {
    bench_options o;
    void *arena;
    float *in, *out;
    int n_tasks;
    pid_t task[TASKS_MAX];
    double idle_floor;        /* smallest share of a batch that the main thread was off the CPU */
    int schedstat[TASKS_MAX]; /* descriptors, -1 where the kernel has none */
    int pinned_cpu;           /* of the main thread, -1 when it may use several */
    conditions around;
} bench;

/* Disturbance counters before or after one batch. */
typedef struct counters {
    long switches;  /* involuntary, all threads */
    int cpu;        /* of the main thread */
    int64_t cpu_ns; /* of the main thread */
    uint64_t wait_ns[TASKS_MAX];
} counters;

/* A stretch of a sustained run. */
typedef struct stretch {
    double inferences, seconds, mhz, celsius; /* mhz, celsius at its end; 0 unknown */
} stretch;

typedef struct bench_result {
    double init_us, first_us;
    long warmup_runs;
    int warmup_steady, all_disturbed;
    long batch_size;
    size_t n_kept, n_dropped;
    double *samples_us; /* SAMPLES_MAX, kept ones from the front */
    double *dropped_us; /* disturbed ones */
    long switches, migrations;
    double wall_s, mhz_before, mhz_after; /* MHz 0: unknown */
    double peak_gflops;                   /* of one core */
    double *layer_us;                     /* MODEL_LAYERS medians, NULL when not asked for */
    double inferences;                    /* in all batches */
    stretch curve[CURVE_MAX];             /* of a sustained run */
} bench_result;

static size_t input_floats(void) {
    return (size_t)MODEL_INPUT_C * (size_t)MODEL_INPUT_H * (size_t)MODEL_INPUT_W;
}

static size_t output_floats(void) {
    return (size_t)MODEL_OUTPUT_C * (size_t)MODEL_OUTPUT_H * (size_t)MODEL_OUTPUT_W;
}

static int64_t now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC_RAW, &t); /* cannot fail: Linux has it since 2.6.28 */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Page-aligned, zeroed and touched memory; NULL with a message on stderr. */
static void *memory(const char *what, size_t bytes) {
    void *p = NULL;
    const size_t rounded = (bytes / ALIGNMENT + 1) * ALIGNMENT;
    if (rounded < bytes || posix_memalign(&p, ALIGNMENT, rounded) != 0) {
        fprintf(stderr, "%s: no memory for %zu bytes\n", what, bytes);
        return NULL;
    }
    memset(p, 0, rounded);
    return p;
}

#endif
