/* repeat.c - what a second run would show. The interval of one run says where the median of that run lies: 30 batches of one
 * process in one minute. A fresh process lands elsewhere (page placement, clock, a neighbour), typically by several times
 * that interval, so a stored interval must hold this scatter too.
 *
 * log p50 of a program's run = log of its usual latency + a deviation of the device, pooled over all programs that ran
 * more than once, the drift reference first of all. How far a run's interval must reach on each side is the larger of
 *
 *   - a Student quantile times a scale: 1.4826 times the median absolute deviation, joined with a scaled inverse
 *     chi-squared prior that stands in for repeats until they are seen (Gelman et al., Bayesian Data Analysis, 3.2);
 *   - the deviation that a run of the opposite side shows: a shared machine has states, and one process in five may
 *     find itself in a faster one. The 97.5 % order statistic of the deviations is what the lower end must reach down
 *     by, the 2.5 % one is for the upper end, without a shape assumed (below 39 deviations: the extreme ones).
 *
 * A state that runs seldom show leaves the one side alone, and a single stray run among many leaves both. */
#include "latency/device_internal.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RUNS_MAX = 256 }; /* later ones push out the oldest */
static const double prior_runs = 3, prior_scatter = 0.02, mad_to_sigma = 1.4826;

static nas_status add(nas_ctx *ctx, nas__repeat *r, const char *sha256, double p50_us) {
    if (r->n == RUNS_MAX) {
        memmove(r->runs, r->runs + 1, (RUNS_MAX - 1) * sizeof *r->runs);
        r->n--;
    }
    const nas_status status = nas_grow(ctx, &r->runs, &r->capacity, r->n + 1, sizeof *r->runs);
    if (status != NAS_OK) return status;
    nas__repeat_run *run = &r->runs[r->n++];
    *run = (nas__repeat_run){.log_us = log(p50_us)};
    (void)snprintf(run->sha256, sizeof run->sha256, "%s", sha256);
    return NAS_OK;
}

/* Deviations of the runs of one program, `first` being its first, from its median; 0 when it ran once. Few runs
 * lie closer to their own median than to the true one: hence the factor. */
static size_t deviations(const nas__repeat *r, size_t first, double *out) {
    double logs[RUNS_MAX], sorted[RUNS_MAX];
    size_t n = 0;
    for (size_t i = 0; i < r->n; i++) {
        if (strcmp(r->runs[i].sha256, r->runs[first].sha256) != 0) continue;
        if (i < first) return 0; /* seen already */
        logs[n++] = r->runs[i].log_us;
    }
    if (n < 2) return 0;
    memcpy(sorted, logs, n * sizeof *logs);
    const double middle = gsl_stats_median(sorted, 1, n);
    for (size_t i = 0; i < n; i++)
        out[i] = (logs[i] - middle) * sqrt((double)n / (double)(n - 1));
    return n;
}

static double median_size(const double *off, size_t n) {
    double sizes[RUNS_MAX];
    for (size_t i = 0; i < n; i++)
        sizes[i] = fabs(off[i]);
    return n == 0 ? 0 : gsl_stats_median(sizes, 1, n);
}

/* Joint scale and degrees of freedom, and the reach of an interval. */
static void pool(nas__repeat *r) {
    double off[RUNS_MAX];
    size_t n = 0, programs = 0;
    for (size_t i = 0; i < r->n; i++) {
        const size_t more = deviations(r, i, off + n);
        n += more;
        programs += more > 0;
    }
    r->freedom = (double)(n - programs);
    const double scale = mad_to_sigma * median_size(off, n);
    r->scatter = sqrt((prior_runs * prior_scatter * prior_scatter + r->freedom * scale * scale) /
                      (prior_runs + r->freedom));
    const double student = gsl_cdf_tdist_Pinv(0.975, prior_runs + r->freedom) * r->scatter;
    r->reach_down = r->reach_up = student;
    if (n == 0) return;
    gsl_sort(off, 1, n);
    const size_t tail = (size_t)floor(0.025 * (double)(n + 1)); /* this many may lie beyond */
    const size_t beyond = tail > 0 ? tail - 1 : 0;
    r->reach_down = fmax(student, off[n - 1 - beyond]);
    r->reach_up = fmax(student, -off[beyond]);
}

nas_status nas__repeat_add(nas_ctx *ctx, nas__repeat *r, const char *sha256, double p50_us) {
    const nas_status status = add(ctx, r, sha256, p50_us);
    pool(r);
    return status;
}

void nas__repeat_widen(const nas__repeat *r, nas_measurement *m) {
    const double up = log(m->p50_hi_us / m->p50_us), down = log(m->p50_us / m->p50_lo_us);
    m->p50_hi_us = m->p50_us * exp(hypot(up, r->reach_up));
    m->p50_lo_us = m->p50_us * exp(-hypot(down, r->reach_down));
}

void nas__repeat_deinit(nas__repeat *r) {
    nas_free(r->runs);
    *r = (nas__repeat){0};
}

nas_status nas_device_know_run(nas_ctx *ctx, nas_device *device, const char *sha256,
                               double p50_us) {
    if (!(p50_us > 0)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "device %s: an earlier run of %g us, need > 0",
                        device->name, p50_us);
    }
    return nas__repeat_add(ctx, &device->repeat, sha256, p50_us);
}
