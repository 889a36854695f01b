/* bench_batches.h - warm-up and batches: who runs where, what is timed, and whether somebody else was in the way.
 * Invariant: nothing but the k inferences of a batch lies between its two clock readings. */
#ifndef BENCH_BATCHES_H
#define BENCH_BATCHES_H

#include "bench_state.h"
#include "cpus.h"
#include "ranks.h"

#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

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

#endif
