/* bench_search_predictor.c - how fast the predictor inside a search learns and foretells, on one thread.
 *
 * Points of the space of configs/sr720p.toml; latencies are made up from their MACs, because speed does not depend on them.
 *     bench_search_predictor [ROWS...]      default 30 200 1000 5000 */
#include "latency/latency.h"
#include "spaces/space.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { POOL = 2000, LANES = 8 };

typedef struct bench {
    nas_ctx *ctx;
    nas_space *space;
    nas_graph *graphs[POOL];
    nas_point points[POOL];
} bench;

static double seconds_since(int64_t start_ns) {
    return (double)(nas_now_ns() - start_ns) * 1e-9;
}

static nas_status open_bench(nas_ctx *ctx, bench *b) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 5;
    o.residual = (nas_range){8, 20, 4};
    o.expand = (nas_range){16, 64, 16};
    o.project = (nas_range){4, 16, 4};
    nas_rng rng = nas_rng_stream(1, 0, "bench predictor");
    b->ctx = ctx;
    nas_status status = nas_space_sr_new(ctx, &o, &b->space);
    for (size_t i = 0; i < POOL && status == NAS_OK; i++) {
        nas_space_sample(b->space, &rng, &b->points[i]);
        status = nas_space_decode(ctx, b->space, &b->points[i], &b->graphs[i]);
    }
    return status;
}

static nas_status learn(bench *b, nas_predictor *p, size_t rows) {
    nas_rng rng = nas_rng_stream(2, 0, "bench predictor noise");
    nas_status status = NAS_OK;
    for (size_t i = 0; i < rows && status == NAS_OK; i++) {
        nas_graph_cost cost;
        const nas_graph *g = b->graphs[i % POOL];
        status = nas_graph_cost_total(b->ctx, g, &cost);
        const double us = (1000 + (double)cost.macs * 2e-5) * exp(0.02 * nas_rng_normal(&rng));
        if (status == NAS_OK) status = nas_predictor_add(b->ctx, p, g, us, false);
    }
    return status;
}

static nas_status measure(bench *b, size_t rows) {
    nas_predictor *p = NULL;
    nas_prediction out;
    double sum = 0;
    nas_status status = nas_predictor_new(b->ctx, LANES, &p);
    int64_t start = nas_now_ns();
    if (status == NAS_OK) status = learn(b, p, rows);
    const double add_s = seconds_since(start);
    start = nas_now_ns();
    if (status == NAS_OK) status = nas_predictor_fit(b->ctx, p);
    const double fit_s = seconds_since(start);
    start = nas_now_ns();
    enum { ROUNDS = 10 };
    for (size_t i = 0; i < ROUNDS * POOL && status == NAS_OK; i++) {
        status = nas_predictor_predict(b->ctx, p, b->graphs[i % POOL], &out);
        sum += out.p50_us;
    }
    const double predict_s = seconds_since(start);
    start = nas_now_ns();
    for (size_t i = 0; i < ROUNDS * POOL && status == NAS_OK; i++) {
        nas_graph *g = NULL;
        status = nas_space_decode(b->ctx, b->space, &b->points[i % POOL], &g);
        if (status == NAS_OK) status = nas_predictor_predict(b->ctx, p, g, &out);
        sum += out.p50_us;
        nas_graph_free(g);
    }
    const double whole_s = seconds_since(start);
    if (status == NAS_OK)
        printf("%6zu rows: add %.3f s, fit %.3f s, %.0f predictions/s of graphs, %.0f/s of points "
               "(mean %.1f us)\n",
               rows, add_s, fit_s, ROUNDS * POOL / predict_s, ROUNDS * POOL / whole_s,
               sum / (2 * ROUNDS * POOL));
    nas_predictor_free(p);
    return status;
}

int main(int argc, char **argv) {
    static const size_t usual[] = {30, 200, 1000, 5000};
    nas_ctx *ctx = nas_ctx_new();
    bench *b = ctx == NULL ? NULL : nas_alloc_array(ctx, 1, sizeof *b);
    if (b == NULL) return NAS_EXIT_FAILED;
    nas_status status = open_bench(ctx, b);
    const size_t n = argc > 1 ? (size_t)argc - 1 : sizeof usual / sizeof usual[0];
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = measure(b, argc > 1 ? strtoull(argv[i + 1], NULL, 10) : usual[i]);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    for (size_t i = 0; i < POOL; i++)
        nas_graph_free(b->graphs[i]);
    nas_space_free(b->space);
    nas_free(b);
    nas_ctx_free(ctx);
    return status == NAS_OK ? 0 : NAS_EXIT_FAILED;
}
