/* bench_document.h - statistics of the batches, and the JSON document of --bench. */
#ifndef BENCH_DOCUMENT_H
#define BENCH_DOCUMENT_H

#include "bench_batches.h"
#include "bench_state.h"
#include "model_facts.h"
#include "ranks.h"

#include <sys/resource.h>

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

#endif
