/* bench_main.c - main program of an emitted executable: --run, --bench and --info over the functions of model.h.
 *
 * Travels as text into emitted programs, so it stands on C99, pthreads and Linux alone: no core/, no libm. --bench is
 * the measuring loop of device-agent/protocol.h: pin, open, first inference, warm-up, batches, order statistics, one
 * JSON document on stdout. Invariant: nothing but the k inferences of a batch lies between its two clock readings. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "conditions.h"
#include "cpu_check.h"
#include "cpus.h"
#include "model.h"
#include "model_facts.h"
#include "npy.h"
#include "ranks.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

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

/* ---- small helpers ------------------------------------------------------------------------------------------- */

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

static int parse_long(const char *name, const char *text, long lo, long hi, long *out) {
    char *end = NULL;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < lo || value > hi) {
        fprintf(stderr, "%s %s: need a whole number from %ld to %ld\n", name, text, lo, hi);
        return -1;
    }
    *out = value;
    return 0;
}

static void json_text(const char *text) {
    putchar('"');
    for (const char *c = text; *c != '\0'; c++) {
        const unsigned char u = (unsigned char)*c;
        if (u == '"' || u == '\\') {
            printf("\\%c", u);
        } else if (u < 0x20) {
            printf("\\u%04x", (unsigned)u);
        } else {
            putchar(u);
        }
    }
    putchar('"');
}

/* ---- processors ---------------------------------------------------------------------------------------------- */

/* The threads of this process, main thread first, workers in the order of their creation (ids ascend). */
static void find_tasks(bench *b) {
    DIR *dir = opendir("/proc/self/task");
    b->n_tasks = 1;
    b->task[0] = getpid();
    if (dir != NULL) {
        for (struct dirent *e = readdir(dir); e != NULL && b->n_tasks < TASKS_MAX;
             e = readdir(dir)) {
            const pid_t id = (pid_t)strtol(e->d_name, NULL, 10);
            if (id <= 0 || id == b->task[0]) continue;
            int at = b->n_tasks++;
            for (; at > 1 && b->task[at - 1] > id; at--)
                b->task[at] = b->task[at - 1];
            b->task[at] = id;
        }
        (void)closedir(dir);
    }
    for (int i = 0; i < b->n_tasks; i++) {
        char path[64];
        (void)snprintf(path, sizeof path, "/proc/self/task/%ld/schedstat", (long)b->task[i]);
        b->schedstat[i] = open(path, O_RDONLY | O_CLOEXEC);
    }
}

/* Thread i goes to entry i when the list has an entry for each; else all share the list. Called with the list already
 * in force for the process, so nothing has run elsewhere. */
static int pin_tasks(bench *b, const int *cpus, int n) {
    b->pinned_cpu = n == 1 ? cpus[0] : -1;
    if (n < 2 || n < b->n_tasks) return 0;
    for (int i = 0; i < b->n_tasks; i++) {
        if (pin(b->task[i], &cpus[i], 1, b->o.cpus) != 0) return -1;
    }
    b->pinned_cpu = cpus[0];
    return 0;
}

/* One string a thread: the mask the kernel reports, as ranges. */
static void print_effective(const bench *b) {
    printf("[");
    for (int i = 0; i < b->n_tasks; i++) {
        printf(i > 0 ? ", \"" : "\"");
        print_mask(b->task[i]);
        printf("\"");
    }
    printf("]");
}

/* ---- batches ------------------------------------------------------------------------------------------------- */

/* Of the calling thread: the clock of the whole process is up to a tick late for threads on other CPUs. */
static int64_t thread_cpu_ns(void) {
    struct timespec t = {0, 0};
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); /* cannot fail with this clock */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void read_counters(const bench *b, counters *c) {
    struct rusage usage;
    c->switches = getrusage(RUSAGE_SELF, &usage) == 0 ? usage.ru_nivcsw : 0;
    c->cpu = sched_getcpu();
    c->cpu_ns = thread_cpu_ns();
    for (int i = 0; i < b->n_tasks; i++) {
        char text[96];
        const ssize_t n =
            b->schedstat[i] >= 0 ? pread(b->schedstat[i], text, sizeof text - 1, 0) : -1;
        c->wait_ns[i] = 0;
        if (n <= 0) continue;
        text[n] = '\0';
        const char *space = strchr(text, ' '); /* "<ran ns> <waited ns> <slices>" */
        if (space != NULL) c->wait_ns[i] = strtoull(space + 1, NULL, 10);
    }
}

static int64_t run_batch_ns(const bench *b, long k) {
    const int64_t start = now_ns();
    for (long i = 0; i < k; i++)
        model_run(b->arena, b->in, b->out);
    return now_ns() - start;
}

/* Share of the batch that the main thread was off the CPU: preempted, or asleep because a worker was late. */
static double idle_share(const counters *before, const counters *after, int64_t batch_ns) {
    return 1.0 - (double)(after->cpu_ns - before->cpu_ns) / (double)batch_ns;
}

/* The longest that a thread waited in the run queue. */
static uint64_t longest_wait_ns(const bench *b, const counters *before, const counters *after) {
    uint64_t wait_ns = 0;
    for (int i = 0; i < b->n_tasks; i++) {
        const uint64_t waited = after->wait_ns[i] - before->wait_ns[i];
        if (waited > wait_ns) wait_ns = waited;
    }
    return wait_ns;
}

/* Was somebody else in the way between the two readings? */
static int disturbed(const bench *b, const counters *before, const counters *after,
                     int64_t batch_ns) {
    return (double)longest_wait_ns(b, before, after) > lost_share_max * (double)batch_ns ||
           idle_share(before, after, batch_ns) > b->idle_floor + lost_share_max ||
           (b->pinned_cpu >= 0 && after->cpu != b->pinned_cpu);
}

/* Grows k until a batch lasts batch_ms: by max(target/t + 1, 1.618 k), the rule of TVM's time_evaluator. The fastest
 * of three batches decides, so that one interruption does not pass for a long batch. */
static long find_batch_size(const bench *b, long *runs) {
    const double target_ns = (double)b->o.batch_ms * 1e6;
    long k = 1;
    for (;;) {
        double ns = (double)run_batch_ns(b, k);
        *runs += k;
        for (int i = 0; i < 2 && ns >= target_ns; i++) {
            const double again = (double)run_batch_ns(b, k);
            *runs += k;
            if (again < ns) ns = again;
        }
        if (ns >= target_ns || k >= 100000000L) return k;
        const double by_time = target_ns / (ns > 1.0 ? ns : 1.0) * (double)k + 1.0;
        const double by_growth = 1.618 * (double)k;
        const double next = by_time > by_growth ? by_time : by_growth;
        k = next < 1e8 ? (long)next : 100000000L;
        if (k < 1) k = 1;
    }
}

/* Median time of one inference over up to GROUP_MAX batches or GROUP_MS, whichever ends first. */
static double group_median(const bench *b, long k, long *runs) {
    double t[GROUP_MAX];
    size_t n = 0;
    const int64_t start = now_ns();
    do {
        t[n++] = (double)run_batch_ns(b, k) / (double)k;
        *runs += k;
    } while (n < GROUP_MAX && now_ns() - start < (int64_t)GROUP_MS * 1000000);
    qsort(t, n, sizeof *t, compare_doubles);
    return quantile_sorted(t, n, 0.5);
}

/* Warm-up: runs and time asked for, then until two group medians agree within 2 %, or the cap. */
static void warm_up(const bench *b, bench_result *r) {
    const int64_t start = now_ns();
    for (long i = 0; i < b->o.warmup_runs; i++)
        model_run(b->arena, b->in, b->out);
    r->warmup_runs = b->o.warmup_runs;
    long k = find_batch_size(b, &r->warmup_runs);
    double previous = group_median(b, k, &r->warmup_runs);
    for (;;) {
        const double current = group_median(b, k, &r->warmup_runs);
        const double change = current > previous ? current - previous : previous - current;
        const int64_t spent = now_ns() - start;
        r->warmup_steady = change <= 0.02 * previous;
        if (r->warmup_steady && spent >= (int64_t)b->o.warmup_ms * 1000000) break;
        if (spent >= (int64_t)b->o.warmup_cap_ms * 1000000) break;
        previous = current;
    }
    r->batch_size = find_batch_size(b, &r->warmup_runs); /* warm now: k may have to be larger */
}

/* Enough calm batches, out of time or memory - or so many disturbed ones that more would not save the run. */
static int finished(const bench_options *o, const bench_result *r, int64_t spent_ns) {
    const int64_t least_ns = (int64_t)o->min_time_ms * 1000000;
    const size_t least = (size_t)o->min_batches, all = r->n_kept + r->n_dropped;
    const double share = all > 0 ? (double)r->n_dropped / (double)all : 0.0;
    const int lost = (share > dropped_share_max && all >= 2 * least) ||
                     (share > hopeless_share && all >= HOPELESS_MIN);
    if (r->n_kept >= least && spent_ns >= least_ns) return 1;
    if (lost && spent_ns >= 2 * least_ns) return 1;
    if (r->n_kept == SAMPLES_MAX || r->n_dropped == SAMPLES_MAX) return 1;
    return spent_ns >= (int64_t)o->max_time_ms * 1000000;
}

/* One batch with everything that is noted about it; its time. `count`: its sample enters the statistics. */
static int64_t noted_batch_ns(bench *b, bench_result *r, int count) {
    counters before, after;
    conditions_look(&b->around, now_ns());
    read_counters(b, &before);
    const int64_t ns = run_batch_ns(b, r->batch_size);
    read_counters(b, &after);
    const double us = (double)ns / 1000.0 / (double)r->batch_size;
    const double idle = idle_share(&before, &after, ns);
    if (idle < b->idle_floor) b->idle_floor = idle;
    const int kept = !disturbed(b, &before, &after, ns);
    if (count && !kept) r->dropped_us[r->n_dropped++] = us;
    if (count && kept) r->samples_us[r->n_kept++] = us;
    const point p = {us,
                     b->around.mhz,
                     b->around.celsius,
                     (double)longest_wait_ns(b, &before, &after) * 1e-3,
                     after.switches - before.switches,
                     after.cpu != before.cpu,
                     kept};
    add_point(&b->around, &p);
    r->switches += p.switches;
    r->migrations += p.migrated;
    r->inferences += (double)r->batch_size;
    return ns;
}

/* Nothing calm was seen: report what there is, and say so. */
static void use_disturbed(bench_result *r) {
    double *swap = r->samples_us;
    if (r->n_kept > 0) return;
    r->samples_us = r->dropped_us;
    r->dropped_us = swap;
    r->n_kept = r->n_dropped;
    r->all_disturbed = 1;
}

static void measure_burst(bench *b, bench_result *r) {
    const int64_t start = now_ns();
    energy_begin(&b->around, start);
    do {
        (void)noted_batch_ns(b, r, 1);
    } while (!finished(&b->o, r, now_ns() - start));
    energy_end(&b->around, now_ns());
    r->wall_s = (double)(now_ns() - start) * 1e-9;
    use_disturbed(r);
}

/* Back to back for the time asked; the batches of the last third are the samples. */
static void measure_sustained(bench *b, bench_result *r) {
    const int64_t total = (int64_t)b->o.sustained_s * 1000000000;
    const int64_t start = now_ns();
    int64_t spent = 0;
    energy_begin(&b->around, start);
    while (spent < total || r->n_kept + r->n_dropped == 0) {
        const int64_t begun = spent;
        const int room = r->n_kept < SAMPLES_MAX && r->n_dropped < SAMPLES_MAX;
        (void)noted_batch_ns(b, r, 3 * spent >= 2 * total && room);
        spent = now_ns() - start;
        const int64_t at = begun < total ? begun * CURVE_MAX / total : CURVE_MAX - 1;
        stretch *s = &r->curve[at];
        s->inferences += (double)r->batch_size;
        s->seconds += (double)(spent - begun) * 1e-9;
        s->mhz = b->around.mhz;
        s->celsius = b->around.celsius;
    }
    energy_end(&b->around, now_ns());
    r->wall_s = (double)spent * 1e-9;
    use_disturbed(r);
}

static void measure(bench *b, bench_result *r) {
    if (b->o.sustained_s > 0) {
        measure_sustained(b, r);
    } else {
        measure_burst(b, r);
    }
}

/* ---- statistics and the document ------------------------------------------------------------------------------- */

/* Upper end of the interval when the kept samples are too few for one: no batch took longer, disturbed ones included.
 * 0 when there are enough. */
static double longest_of_few(const bench_result *r) {
    double longest = 0.0;
    for (size_t i = 0; r->n_kept < INTERVAL_MIN && !r->all_disturbed && i < r->n_dropped; i++) {
        if (r->dropped_us[i] > longest) longest = r->dropped_us[i];
    }
    return longest;
}

/* Returns the median. */
static double print_statistics(const bench_result *r) {
    const size_t n = r->n_kept;
    const double longest = longest_of_few(r);
    double *sorted = r->dropped_us; /* no longer needed: scratch */
    memcpy(sorted, r->samples_us, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    const size_t rank = median_rank(n);
    const double median = quantile_sorted(sorted, n, 0.5);
    const double high = sorted[n - rank] > longest ? sorted[n - rank] : longest;
    printf("  \"p50_us\": %.17g, \"p50_lo_us\": %.17g, \"p50_hi_us\": %.17g,\n", median,
           sorted[rank - 1], high);
    printf("  \"p10_us\": %.17g, \"p90_us\": %.17g, \"min_us\": %.17g,",
           quantile_sorted(sorted, n, 0.1), quantile_sorted(sorted, n, 0.9), sorted[0]);
    for (size_t i = 0; i < n; i++)
        sorted[i] = sorted[i] > median ? sorted[i] - median : median - sorted[i];
    qsort(sorted, n, sizeof *sorted, compare_doubles);
    printf(" \"mad_us\": %.17g,\n", quantile_sorted(sorted, n, 0.5));
    return median;
}

/* The rate of the network's own operations, and what share that is of the peak loop on as many cores. */
static void print_rate(const bench *b, const bench_result *r, double median_us) {
    const double peak = r->peak_gflops * (double)b->o.threads;
    const double gflops = median_us > 0.0 ? 2e-3 * (double)MODEL_MACS / median_us : 0.0;
    printf("  \"gflops\": %.6g, \"peak_gflops\": %.6g, \"peak_share\": %.4g,\n", gflops, peak,
           peak > 0.0 ? gflops / peak : 0.0);
}

static void print_layers(const bench_result *r) {
    if (r->layer_us == NULL) return;
    printf("  \"layers\": [");
    for (int i = 0; i < the_model.layers; i++) {
        printf("%s\n    {\"name\": ", i > 0 ? "," : "");
        json_text(the_model.layer_names[i]);
        printf(", \"p50_us\": %.6g}", r->layer_us[i]);
    }
    printf("],\n");
}

/* Inferences a second over the stretches from `first` to before `last`. */
static double rate_of(const bench_result *r, int first, int last) {
    double inferences = 0.0, seconds = 0.0;
    for (int i = first; i < last; i++) {
        inferences += r->curve[i].inferences;
        seconds += r->curve[i].seconds;
    }
    return seconds > 0.0 ? inferences / seconds : 0.0;
}

static void print_sustained(const bench *b, const bench_result *r) {
    printf("  \"mode\": \"%s\",\n", b->o.sustained_s > 0 ? "sustained" : "burst");
    if (b->o.sustained_s == 0) return;
    printf("  \"sustained\": {\"seconds\": %ld, \"rate_per_s\": %.6g, \"first_third_rate_per_s\": "
           "%.6g,\n    \"curve\": [",
           b->o.sustained_s, rate_of(r, 2 * CURVE_MAX / 3, CURVE_MAX),
           rate_of(r, 0, CURVE_MAX / 3));
    const char *comma = "";
    for (int i = 0; i < CURVE_MAX; i++) {
        const stretch *s = &r->curve[i];
        if (s->inferences <= 0.0) continue;
        printf("%s{\"t_s\": %.4g, \"us\": %.6g", comma,
               (double)(i + 1) * (double)b->o.sustained_s / CURVE_MAX,
               s->seconds * 1e6 / s->inferences);
        if (s->mhz > 0.0) printf(", \"mhz\": %.6g", s->mhz);
        if (s->celsius > 0.0) printf(", \"celsius\": %.4g", s->celsius);
        printf("}");
        comma = ", ";
    }
    printf("]},\n");
}

static void print_document(const bench *b, const bench_result *r) {
    struct rusage usage;
    printf("{\"schema\": 1, \"name\": ");
    json_text(MODEL_NAME);
    printf(", \"graph_hash\": ");
    json_text(MODEL_GRAPH_HASH);
    printf(",\n  \"threads\": %ld, \"cpus_asked\": ", b->o.threads);
    json_text(b->o.cpus);
    printf(", \"cpus_effective\": ");
    print_effective(b);
    printf(",\n  \"init_us\": %.17g, \"first_us\": %.17g, \"warmup_runs\": %ld, \"warmup_steady\": "
           "%s,\n",
           r->init_us, r->first_us, r->warmup_runs, r->warmup_steady ? "true" : "false");
    printf("  \"batch_size\": %ld, \"batches\": %zu, \"dropped\": %zu, \"all_disturbed\": %s,\n",
           r->batch_size, r->n_kept, r->n_dropped, r->all_disturbed ? "true" : "false");
    const double median_us = print_statistics(r);
    print_rate(b, r, median_us);
    print_layers(r);
    print_sustained(b, r);
    print_conditions(&b->around, r->inferences);
    printf("  \"wall_s\": %.6f, \"involuntary_switches\": %ld, \"migrations\": %ld", r->wall_s,
           r->switches, r->migrations);
    if (getrusage(RUSAGE_SELF, &usage) == 0)
        printf(", \"peak_rss_bytes\": %lld", (long long)usage.ru_maxrss * 1024);
    if (r->mhz_before > 0.0) printf(", \"mhz_before\": %.3f", r->mhz_before);
    if (r->mhz_after > 0.0) printf(", \"mhz_after\": %.3f", r->mhz_after);
    const size_t step = (r->n_kept + SAMPLES_PRINTED - 1) / SAMPLES_PRINTED;
    printf(",\n  \"samples_us\": [");
    for (size_t i = 0; i < r->n_kept; i += step)
        printf(i > 0 ? ", %.9g" : "%.9g", r->samples_us[i]);
    printf("]}\n");
}

/* ---- modes --------------------------------------------------------------------------------------------------- */

static int buffers_open(bench *b) {
    b->arena = memory("arena", (size_t)MODEL_ARENA_BYTES);
    b->in = memory("input", input_floats() * sizeof(float));
    b->out = memory("output", output_floats() * sizeof(float));
    return b->arena != NULL && b->in != NULL && b->out != NULL ? 0 : -1;
}

static void buffers_close(bench *b) {
    free(b->out);
    free(b->in);
    free(b->arena);
}

static int open_model(bench *b) {
    const int code = model_open(b->arena, (int)b->o.threads);
    if (code != 0)
        fprintf(stderr, "model_open with %ld threads: %s\n", b->o.threads, strerror(code));
    return code == 0 ? 0 : -1;
}

/* Same values in every process: an LCG mapped to [0, 1). */
static void fill_input(float *in, size_t n) {
    uint32_t x = 12345u;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        in[i] = (float)(x >> 8) * (1.0f / 16777216.0f);
    }
}

/* The median time of each layer over some rounds; -1 when there is no memory. */
static int profile_layers(const bench *b, bench_result *r) {
    const size_t n = (size_t)the_model.layers;
    if (n == 0) {
        fprintf(stderr,
                "--profile: this network goes through all layers a row at a time; there are no "
                "times of single layers\n");
        return 0;
    }
    double *all = memory("profile", PROFILE_ROUNDS * n * sizeof *all);
    r->layer_us = memory("profile", n * sizeof *r->layer_us);
    if (all == NULL || r->layer_us == NULL) {
        free(all);
        return -1;
    }
    for (size_t round = 0; round < PROFILE_ROUNDS; round++)
        the_model.profile(b->arena, b->in, b->out, all + round * n);
    for (size_t i = 0; i < n; i++) {
        double t[PROFILE_ROUNDS];
        for (size_t round = 0; round < PROFILE_ROUNDS; round++)
            t[round] = all[round * n + i];
        qsort(t, PROFILE_ROUNDS, sizeof *t, compare_doubles);
        r->layer_us[i] = quantile_sorted(t, PROFILE_ROUNDS, 0.5);
    }
    free(all);
    return 0;
}

static int bench_opened(bench *b, const int *cpus, int n_cpus, bench_result *r) {
    const int64_t before_open = now_ns();
    if (open_model(b) != 0) return EXIT_FAILURE;
    r->init_us = (double)(now_ns() - before_open) / 1000.0;
    find_tasks(b);
    int code = pin_tasks(b, cpus, n_cpus) == 0 ? EXIT_SUCCESS : EXIT_USAGE;
    if (code == EXIT_SUCCESS) {
        r->first_us = (double)run_batch_ns(b, 1) / 1000.0;
        warm_up(b, r);
        conditions_open(&b->around, &b->o.around);
        r->mhz_before = current_mhz(&b->around);
        measure(b, r);
        r->mhz_after = current_mhz(&b->around);
        conditions_close(&b->around);
        r->peak_gflops = peak_gflops(0.02); /* after: a burst of it disturbs what follows */
        if (b->o.profile && profile_layers(b, r) != 0) code = EXIT_FAILURE;
        if (code == EXIT_SUCCESS) print_document(b, r);
        if (fflush(stdout) != 0 || ferror(stdout)) code = EXIT_FAILURE;
    }
    model_close(b->arena);
    for (int i = 0; i < b->n_tasks; i++) {
        if (b->schedstat[i] >= 0) (void)close(b->schedstat[i]);
    }
    return code;
}

static int run_bench(const bench_options *o) {
    bench b = {.o = *o, .idle_floor = 1.0};
    /* Few enough batches in the last third of a long run. */
    const long least_ms = o->sustained_s * 1000 / 3 / SUSTAINED_SAMPLES + 1;
    if (o->sustained_s > 0 && least_ms > b.o.batch_ms) b.o.batch_ms = least_ms;
    bench_result r = {0};
    int cpus[CPU_SETSIZE];
    const int n_cpus = parse_cpus(o->cpus, cpus, CPU_SETSIZE);
    if (n_cpus < 0 || (n_cpus > 0 && pin(0, cpus, n_cpus, o->cpus) != 0)) return EXIT_USAGE;
    r.samples_us = memory("samples", SAMPLES_MAX * sizeof(double));
    r.dropped_us = memory("samples", SAMPLES_MAX * sizeof(double));
    int code = EXIT_FAILURE;
    if (buffers_open(&b) == 0 && r.samples_us != NULL && r.dropped_us != NULL) {
        fill_input(b.in, input_floats());
        code = bench_opened(&b, cpus, n_cpus, &r);
    }
    buffers_close(&b);
    free(r.samples_us);
    free(r.dropped_us);
    free(r.layer_us);
    return code;
}

/* Frame by frame from `in` to `out`; a trailing part of a frame is an error. */
static int run_frames(const bench *b, FILE *in, const char *in_path, FILE *out,
                      const char *out_path) {
    const size_t n_in = input_floats(), n_out = output_floats();
    const int npy = is_npy(out_path);
    long frames = 0;
    if (is_npy(in_path) && npy_open(in, in_path) != 0) return EXIT_USAGE;
    if (npy && npy_header(out, 0) != 0) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        return EXIT_FAILURE;
    }
    for (;; frames++) {
        const size_t bytes = fread(b->in, 1, n_in * sizeof(float), in);
        if (bytes == 0 && !ferror(in) && frames > 0) {
            if (!npy || (fseek(out, 0, SEEK_SET) == 0 && npy_header(out, frames) == 0))
                return EXIT_SUCCESS;
            fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
            return EXIT_FAILURE;
        }
        if (bytes != n_in * sizeof(float)) {
            fprintf(stderr,
                    "%s: frame %ld has %zu bytes, the model reads %zu (%d x %d x %d floats)\n",
                    in_path, frames, bytes, n_in * sizeof(float), MODEL_INPUT_C, MODEL_INPUT_H,
                    MODEL_INPUT_W);
            return EXIT_FAILURE;
        }
        model_run(b->arena, b->in, b->out);
        if (fwrite(b->out, sizeof(float), n_out, out) != n_out) {
            fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
            return EXIT_FAILURE;
        }
    }
}

static int run_files(const char *in_path, const char *out_path, long threads) {
    bench b = {.o = {.threads = threads}};
    FILE *in = fopen(in_path, "rb");
    if (in == NULL) {
        fprintf(stderr, "%s: %s\n", in_path, strerror(errno));
        return EXIT_FAILURE;
    }
    FILE *out = fopen(out_path, "wb");
    if (out == NULL) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        (void)fclose(in);
        return EXIT_FAILURE;
    }
    int code = EXIT_FAILURE;
    if (buffers_open(&b) == 0 && open_model(&b) == 0) {
        code = run_frames(&b, in, in_path, out, out_path);
        model_close(b.arena);
    }
    buffers_close(&b);
    (void)fclose(in);
    if (fclose(out) != 0 && code == EXIT_SUCCESS) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        code = EXIT_FAILURE;
    }
    return code;
}

static int print_info(void) {
    printf("{\"name\": ");
    json_text(MODEL_NAME);
    printf(", \"graph_hash\": ");
    json_text(MODEL_GRAPH_HASH);
    printf(", \"input\": [%d, %d, %d], \"output\": [%d, %d, %d], \"arena_bytes\": %zu, "
           "\"max_threads\": %d}\n",
           MODEL_INPUT_C, MODEL_INPUT_H, MODEL_INPUT_W, MODEL_OUTPUT_C, MODEL_OUTPUT_H,
           MODEL_OUTPUT_W, (size_t)MODEL_ARENA_BYTES, MODEL_MAX_THREADS);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(const char *program, const char *problem) {
    if (problem[0] != '\0') fprintf(stderr, "%s: unknown or incomplete option\n", problem);
    fprintf(
        stderr,
        "usage: %s --run IN OUT [--threads N]   raw floats or .npy, planar [C][H][W], frames one "
        "after another\n"
        "       %s --bench [--threads N] [--cpus LIST] [--min-batches N] [--min-time-ms N] "
        "[--max-time-ms N]\n"
        "           [--batch-ms N] [--warmup-runs N] [--warmup-ms N] [--warmup-cap-ms N] "
        "[--profile]\n"
        "           [--sustained-s N] [--temperature FILE] [--rapl DIR].. [--battery DIR] "
        "[--idle-mw N] "
        "[--sys-root DIR]\n"
        "       %s --info\n",
        program, program, program);
    return EXIT_USAGE;
}

/* Where the value of an option that is no number goes; NULL for another option. */
static const char **text_option(const char *name, bench_options *o) {
    if (strcmp(name, "--cpus") == 0) return &o->cpus;
    if (strcmp(name, "--temperature") == 0) return &o->around.temperature;
    if (strcmp(name, "--battery") == 0) return &o->around.battery;
    if (strcmp(name, "--sys-root") == 0) return &o->around.sys_root;
    if (strcmp(name, "--rapl") == 0 && o->around.n_rapl < RAPL_MAX)
        return &o->around.rapl[o->around.n_rapl++];
    return NULL;
}

/* Options from argv[from] on; 0, or -1 after a message. */
static int parse_options(int argc, char **argv, int from, bench_options *o) {
    const struct {
        const char *name;
        long *value, lo, hi;
    } numbers[] = {
        {"--threads", &o->threads, 1, MODEL_MAX_THREADS},
        {"--min-batches", &o->min_batches, 1, SAMPLES_MAX},
        {"--min-time-ms", &o->min_time_ms, 0, 600000},
        {"--max-time-ms", &o->max_time_ms, 1, 600000},
        {"--batch-ms", &o->batch_ms, 1, 10000},
        {"--warmup-runs", &o->warmup_runs, 0, 1000000},
        {"--warmup-ms", &o->warmup_ms, 0, 600000},
        {"--warmup-cap-ms", &o->warmup_cap_ms, 0, 600000},
        {"--sustained-s", &o->sustained_s, 0, 3600},
        {"--idle-mw", &o->around.idle_mw, 0, 100000000},
    };
    const size_t n = sizeof numbers / sizeof *numbers;
    for (int i = from; i < argc; i += 2) {
        if (strcmp(argv[i], "--profile") == 0) {
            o->profile = 1;
            i--; /* takes no value */
            continue;
        }
        size_t at = 0;
        while (at < n && strcmp(argv[i], numbers[at].name) != 0)
            at++;
        const char **text = at == n ? text_option(argv[i], o) : NULL;
        if (i + 1 >= argc || (at == n && text == NULL)) {
            (void)usage(argv[0], argv[i]);
            return -1;
        }
        if (text != NULL) {
            *text = argv[i + 1];
        } else if (parse_long(argv[i], argv[i + 1], numbers[at].lo, numbers[at].hi,
                              numbers[at].value) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Compiled without the vector flags of the model, so it runs where the model does not. */
static int check_cpu(const char *program) {
    size_t len = 0;
    const char *missing = cpu_missing(MODEL_NEEDS, &len);
    if (missing == NULL) return 0;
    fprintf(stderr, "%s: this processor has no %.*s; the program was built for %s\n", program,
            (int)len, missing, MODEL_NEEDS);
    return -1;
}

int main(int argc, char **argv) {
    if (check_cpu(argv[0]) != 0) return EXIT_USAGE;
    bench_options o = {.threads = 1,
                       .cpus = "",
                       .min_batches = 30,
                       .min_time_ms = 500,
                       .max_time_ms = 10000,
                       .batch_ms = 1,
                       .warmup_runs = 3,
                       .warmup_ms = 200,
                       .warmup_cap_ms = 2000,
                       .around = {.sys_root = "", .idle_mw = -1}};
    if (argc == 2 && strcmp(argv[1], "--info") == 0) return print_info();
    if (argc >= 2 && strcmp(argv[1], "--bench") == 0) {
        return parse_options(argc, argv, 2, &o) == 0 ? run_bench(&o) : EXIT_USAGE;
    }
    if (argc >= 4 && strcmp(argv[1], "--run") == 0) {
        return parse_options(argc, argv, 4, &o) == 0 ? run_files(argv[2], argv[3], o.threads)
                                                     : EXIT_USAGE;
    }
    return usage(argv[0], "");
}
