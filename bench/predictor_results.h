/* predictor_results.h - one row of the table that bench_predictor prints: sums over seeds, then over devices. */
#ifndef NAS_BENCH_PREDICTOR_RESULTS_H
#define NAS_BENCH_PREDICTOR_RESULTS_H

#include "bench/predictor_tables.h"

#include <stddef.h>

enum { SEEDS_MAX = 32 };

typedef struct results {
    int n, devices; /* what the sums are over: seeds of a device, or `devices` of a mean */
    double by_seed[SEEDS_MAX]; /* rank correlation of each seed, summed over devices */
    int seeds;
    /* sums; from here on all doubles */
    double spearman, mape, within5, within10, coverage, width, fit_s, rate, macs, simple, bound;
} results;

/* Rank correlations of the baselines: MACs alone, and what a line fitted to the same rows makes of simple columns. */
typedef struct baselines {
    double macs, simple, bound;
} baselines;

static void add(results *r, const nas_device_model_quality *q, const baselines *base) {
    if (r->seeds < SEEDS_MAX) r->by_seed[r->seeds++] = q->spearman;
    r->n++;
    r->spearman += q->spearman;
    r->mape += q->mape;
    r->within5 += q->within5;
    r->within10 += q->within10;
    r->coverage += q->coverage90;
    r->width += q->width90;
    r->fit_s += q->fit_s;
    r->rate += q->predictions_per_s;
    r->macs += base->macs;
    r->simple += base->simple;
    r->bound += base->bound;
}

static void join(results *all, const results *r) {
    double *to = &all->spearman;
    const double *from = &r->spearman;
    for (size_t i = 0; i < (sizeof *all - offsetof(results, spearman)) / sizeof *to; i++)
        to[i] += from[i] / r->n;
    for (int s = 0; s < r->seeds; s++)
        all->by_seed[s] += r->by_seed[s];
    all->seeds = r->seeds;
    all->n++;
    all->devices++;
}

/* Standard deviation over the seeds. */
static double spread(const results *r) {
    double mean = 0, squares = 0;
    const double devices = r->devices > 0 ? r->devices : 1;
    for (int s = 0; s < r->seeds; s++)
        mean += r->by_seed[s] / devices / r->seeds;
    for (int s = 0; s < r->seeds; s++)
        squares += pow(r->by_seed[s] / devices - mean, 2);
    return r->seeds > 1 ? sqrt(squares / (r->seeds - 1)) : 0;
}

static void head(void) {
    printf("%-10s %-24s %-9s %4s | %-12s %5s %5s %5s %6s %7s | %-10s %6s %6s %6s %7s | %6s %8s\n",
           "data", "device", "protocol", "n", "spearman", "mape", "in5%", "in10%", "cov.90",
           "width90", "published", "MACs", "simple", "bound", "to it", "fit s", "rows/s");
}

static void optional(double sum, double n, char text[static 16]) {
    if (sum == 0)
        (void)snprintf(text, 16, "-");
    else
        (void)snprintf(text, 16, "%.3f", sum / n);
}

static void show(const char *data, const char *device, const char *protocol, size_t n,
                 const results *r, const char *published) {
    const double k = r->n;
    char bound[16], macs[16], simple[16], distance[16] = "-";
    optional(r->bound, k, bound);
    optional(r->macs, k, macs);
    optional(r->simple, k, simple);
    if (r->bound > 0)
        (void)snprintf(distance, sizeof distance, "%+.3f", (r->spearman - r->bound) / k);
    printf("%-10s %-24.24s %-9s %4zu | %.4f ±%.3f %5.3f %5.3f %5.3f %6.3f %7.3f | %-10s %6s %6s "
           "%6s %7s | %6.2f %8.0f\n",
           data, device, protocol, n, r->spearman / k, spread(r), r->mape / k, r->within5 / k,
           r->within10 / k, r->coverage / k, r->width / k, published, macs, simple, bound, distance,
           r->fit_s / k, r->rate / k);
    (void)fflush(stdout);
}

#endif
