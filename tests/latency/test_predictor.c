/* test_predictor.c - the predictor on synthetic latencies that have what real ones have: register tiles that fit some
 * widths better than others, padding to lanes, a cost per row and layer, a cache that large networks leave, 2 % noise.
 * SEED=n replays a property test with another stream. */
#include "latency/latency.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 16 };
#define NOISE 0.02

static nas_ctx *ctx;
static long live_before;
static uint64_t seed = 20;

static void setup(void) {
    live_before = nas_mem_live();
    ctx = nas_ctx_new();
    const char *text = getenv("SEED");
    if (text != NULL) seed = strtoull(text, NULL, 10);
}

static void teardown(void) {
    nas_mem_fail_after(0);
    nas_ctx_free(ctx);
    cr_expect(eq(long, nas_mem_live(), live_before));
}

TestSuite(latency_predictor, .init = setup, .fini = teardown);

/* ---- networks and their true latency ----------------------------------------------------------------------------- */

/* WDSR-B shaped: head 3x3, blocks of 1x1 - relu - 1x1 - 3x3 - add, tail 3x3, shuffle; at 96 x 160. */
static nas_graph *network(int32_t blocks, int32_t width, int32_t expand, int32_t project) {
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0, y = 0;
    const nas_conv_attributes head = nas_conv_same(width, 3), up = nas_conv_same(expand, 1);
    const nas_conv_attributes down = nas_conv_same(project, 1), tail = nas_conv_same(12, 3);
    nas_status status = nas_graph_add_input(ctx, g, "in", (nas_shape){1, 96, 160, 3}, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "head", x, &head, &x);
    for (int32_t i = 0; i < blocks && status == NAS_OK; i++) {
        char name[5][32];
        for (int k = 0; k < 5; k++)
            (void)snprintf(name[k], sizeof name[k], "b%d.%d", (int)i, k);
        status = nas_graph_add_conv(ctx, g, name[0], x, &up, &y);
        if (status == NAS_OK) status = nas_graph_add_relu(ctx, g, name[1], y, &y);
        if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, name[2], y, &down, &y);
        if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, name[3], y, &head, &y);
        if (status == NAS_OK) status = nas_graph_add_add(ctx, g, name[4], x, y, &x);
    }
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "tail", x, &tail, &x);
    if (status == NAS_OK) status = nas_graph_add_depth_to_space(ctx, g, "shuffle", x, 2, &x);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return g;
}

static nas_graph *random_network(nas_rng *rng) {
    const int32_t blocks = 1 + (int32_t)nas_rng_below(rng, 6),
                  width = 8 + 4 * (int32_t)nas_rng_below(rng, 5);
    const int32_t expand = 16 + 16 * (int32_t)nas_rng_below(rng, 6);
    return network(blocks, width, expand, 4 + 2 * (int32_t)nas_rng_below(rng, 9));
}

/* Cycles of one tile of outputs: 4 pixel vectors, at most 6 outputs; short sums and odd rests are less efficient. */
static double tile_cycles(int32_t outputs, double taps) {
    return 12.0 + 6.0 * outputs + taps * fmax(4.0, 2.0 * outputs + 1.0);
}

static double true_us(const nas_graph *g) {
    double us = 25.0, ring = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV) continue;
        const nas_shape in = nas_graph_node(g, node->inputs[0])->shape;
        const double taps = (double)node->conv.kernel_h * node->conv.kernel_w * in.c;
        const int32_t rest = node->shape.c % 6;
        double cycles =
            node->shape.c / 6 * tile_cycles(6, taps) + (rest > 0 ? tile_cycles(rest, taps) : 0);
        cycles *= ceil(ceil(node->shape.w / (double)LANES) / 4.0);
        us += node->shape.h * (cycles / 2500.0 + 0.05);
        ring += 4.0 * (node->conv.kernel_h + 1) * node->shape.w * in.c;
    }
    return ring > 250e3 ? 1.12 * us : us; /* the cache cliff */
}

static nas_predictor *trained(nas_rng *rng, size_t rows) {
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    for (size_t i = 0; i < rows; i++) {
        nas_graph *g = random_network(rng);
        const double us = true_us(g) * exp(NOISE * nas_rng_normal(rng));
        cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, us, false), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_graph_free(g);
    }
    cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK), "%s", nas_ctx_message(ctx));
    return p;
}

typedef struct outcome {
    double mape, coverage, half_width; /* against fresh, noisy measurements of new networks */
} outcome;

static outcome tried(nas_rng *rng, const nas_predictor *p, int tests) {
    outcome o = {0};
    for (int i = 0; i < tests; i++) {
        nas_graph *g = random_network(rng);
        const double us = true_us(g) * exp(NOISE * nas_rng_normal(rng));
        nas_prediction prediction;
        cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, g, &prediction), NAS_OK));
        cr_expect(prediction.lo_us < prediction.p50_us && prediction.p50_us < prediction.hi_us);
        o.mape += fabs(prediction.p50_us / us - 1.0) / tests;
        o.coverage += (us >= prediction.lo_us && us <= prediction.hi_us ? 1.0 : 0.0) / tests;
        o.half_width += (prediction.hi_us / prediction.p50_us - 1.0) / tests;
        nas_graph_free(g);
    }
    return o;
}

/* ---- accuracy ---------------------------------------------------------------------------------------------------- */

/* Bounds leave room for unlucky streams; the noise alone is 1.6 % of mean error. */
Test(latency_predictor, new_networks_are_predicted_within_a_few_percent) {
    static const struct {
        size_t rows;
        double mape_max, half_width_max;
    } cases[] = {{15, 0.09, 0.60}, {30, 0.07, 0.30}, {60, 0.05, 0.20}};
    cr_log_info("SEED=%" PRIu64, seed);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        double mape = 0, half = 0;
        enum { REPEATS = 8 };
        for (uint64_t r = 0; r < REPEATS; r++) {
            nas_rng rng = nas_rng_stream(seed, r, "predictor accuracy");
            nas_predictor *p = trained(&rng, cases[i].rows);
            const outcome o = tried(&rng, p, 40);
            const nas_predictor_quality q = nas_predictor_quality_of(p);
            cr_expect(q.is_set && q.n_train == cases[i].rows);
            cr_expect(q.mape > 0.3 * o.mape && q.mape < 3.0 * o.mape,
                      "SEED=%" PRIu64 " rows %zu: held-out error %g is told, new networks have %g",
                      seed, cases[i].rows, q.mape, o.mape);
            cr_expect(q.spearman > 0.9, "SEED=%" PRIu64 " rows %zu: spearman %g", seed,
                      cases[i].rows, q.spearman);
            mape += o.mape / REPEATS;
            half += o.half_width / REPEATS;
            nas_predictor_free(p);
        }
        cr_log_info("rows %zu: error %.2f %%, interval +%.1f %%", cases[i].rows, 100 * mape,
                    100 * half);
        cr_expect(mape < cases[i].mape_max, "SEED=%" PRIu64 " rows %zu: error %g", seed,
                  cases[i].rows, mape);
        cr_expect(half < cases[i].half_width_max, "SEED=%" PRIu64 " rows %zu: width %g", seed,
                  cases[i].rows, half);
    }
}

Test(latency_predictor, intervals_cover_about_95_percent) {
    static const size_t rows[] = {10, 25, 60};
    cr_log_info("SEED=%" PRIu64, seed);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        double coverage = 0;
        enum { REPEATS = 12 };
        for (uint64_t r = 0; r < REPEATS; r++) {
            nas_rng rng = nas_rng_stream(seed, r, "predictor coverage");
            nas_predictor *p = trained(&rng, rows[i]);
            coverage += tried(&rng, p, 40).coverage / REPEATS;
            nas_predictor_free(p);
        }
        cr_log_info("rows %zu: coverage %.3f", rows[i], coverage);
        cr_expect(coverage > 0.88, "SEED=%" PRIu64 " rows %zu: coverage %g", seed, rows[i],
                  coverage);
    }
}

Test(latency_predictor, far_networks_get_wider_intervals) {
    nas_rng rng = nas_rng_stream(seed, 0, "predictor far");
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    for (int i = 0; i < 40; i++) { /* small networks only */
        nas_graph *g = network(1 + (int32_t)nas_rng_below(&rng, 2), 8,
                               16 + 16 * (int32_t)nas_rng_below(&rng, 2),
                               4 + 2 * (int32_t)nas_rng_below(&rng, 4));
        const double us = true_us(g) * exp(NOISE * nas_rng_normal(&rng));
        cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, us, false), NAS_OK));
        nas_graph_free(g);
    }
    cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK));
    nas_graph *near = network(2, 8, 32, 6), *far = network(6, 24, 96, 20);
    nas_prediction a, b;
    cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, near, &a), NAS_OK));
    cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, far, &b), NAS_OK));
    cr_expect(b.hi_us / b.p50_us >= a.hi_us / a.p50_us);
    cr_expect(b.p50_us > 5 * a.p50_us, "the terms extrapolate: %g against %g us", b.p50_us,
              a.p50_us);
    nas_graph_free(near);
    nas_graph_free(far);
    nas_predictor_free(p);
}

Test(latency_predictor, noisy_rows_count_less) {
    double error[2] = {0};
    for (int noisy = 0; noisy <= 1; noisy++) {
        nas_rng rng = nas_rng_stream(seed, 0, "predictor noisy");
        nas_predictor *p = NULL;
        cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
        for (int i = 0; i < 40; i++) {
            nas_graph *g = random_network(&rng);
            const double us = true_us(g) * exp(NOISE * nas_rng_normal(&rng));
            const bool disturbed = i % 4 == 0; /* the same bad rows both times, flagged or not */
            cr_assert(eq(int,
                         (int)nas_predictor_add(ctx, p, g, disturbed ? 1.3 * us : us,
                                                disturbed && noisy == 1),
                         NAS_OK));
            nas_graph_free(g);
        }
        cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK));
        error[noisy] = tried(&rng, p, 60).mape;
        nas_predictor_free(p);
    }
    cr_expect(error[1] < error[0], "flagged %g, unflagged %g", error[1], error[0]);
}

/* ---- contract ---------------------------------------------------------------------------------------------------- */

Test(latency_predictor, too_few_rows_are_refused) {
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    nas_prediction prediction = {1, 2, 3};
    nas_graph *g = network(1, 8, 16, 4);
    for (size_t i = 0; i + 1 < nas_predictor_min_rows(); i++) {
        nas_graph *row = network(1 + (int32_t)i % 5, 8, 16, 4);
        cr_assert(eq(int, (int)nas_predictor_add(ctx, p, row, true_us(row), false), NAS_OK));
        nas_graph_free(row);
        cr_expect(eq(int, (int)nas_predictor_fit(ctx, p), (int)NAS_ERR_INVALID));
        cr_expect(not(nas_predictor_quality_of(p).is_set));
        cr_expect(
            eq(int, (int)nas_predictor_predict(ctx, p, g, &prediction), (int)NAS_ERR_INVALID));
    }
    cr_expect(eq(dbl, prediction.p50_us, 1.0), "no output on failure");
    cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, true_us(g), false), NAS_OK));
    cr_expect(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_expect(nas_predictor_quality_of(p).is_set);
    cr_expect(eq(str, (char *)nas_predictor_id(p), "terms-gp/1 n=8"));
    nas_graph_free(g);
    nas_predictor_free(p);
}

Test(latency_predictor, one_network_measured_many_times_is_not_enough) {
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    nas_graph *g = network(1, 8, 16, 4);
    for (int i = 0; i < 20; i++)
        cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, 100 + i, false), NAS_OK));
    cr_expect(eq(int, (int)nas_predictor_fit(ctx, p), (int)NAS_ERR_INVALID));
    nas_graph_free(g);
    nas_predictor_free(p);
}

Test(latency_predictor, repeated_rows_do_not_predict_themselves) {
    nas_rng rng = nas_rng_stream(seed, 3, "predictor repeats");
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    for (int i = 0; i < 12;
         i++) { /* every network's latency is its own coin toss: unpredictable from the others */
        nas_graph *g = random_network(&rng);
        const double us = true_us(g) * (nas_rng_below(&rng, 2) == 0 ? 0.5 : 2.0);
        for (int k = 0; k < 4; k++)
            cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, us, false), NAS_OK));
        nas_graph_free(g);
    }
    cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK));
    cr_expect(nas_predictor_quality_of(p).mape > 0.3, "mape %g", nas_predictor_quality_of(p).mape);
    nas_predictor_free(p);
}

Test(latency_predictor, equal_latencies_give_a_finite_quality) {
    nas_rng rng = nas_rng_stream(seed, 4, "predictor equal");
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    for (int i = 0; i < 12; i++) {
        nas_graph *g = random_network(&rng);
        cr_assert(eq(int, (int)nas_predictor_add(ctx, p, g, 500, false), NAS_OK));
        nas_graph_free(g);
    }
    cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK), "%s", nas_ctx_message(ctx));
    const nas_predictor_quality q = nas_predictor_quality_of(p);
    cr_expect(isfinite(q.mape) && isfinite(q.spearman));
    nas_predictor_free(p);
}

Test(latency_predictor, impossible_latencies_are_refused) {
    static const double values[] = {0.0, -1.0, (double)NAN, (double)INFINITY, 1e13};
    nas_predictor *p = NULL;
    cr_assert(eq(int, (int)nas_predictor_new(ctx, LANES, &p), NAS_OK));
    nas_graph *g = network(1, 8, 16, 4);
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        cr_expect(
            eq(int, (int)nas_predictor_add(ctx, p, g, values[i], false), (int)NAS_ERR_INVALID),
            "%g", values[i]);
    }
    nas_graph *empty = nas_graph_new(ctx, "empty");
    nas_value x = 0;
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, empty, "in", (nas_shape){1, 4, 4, 3}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, empty, x), NAS_OK));
    cr_expect(eq(int, (int)nas_predictor_add(ctx, p, empty, 5.0, false), (int)NAS_ERR_UNSUPPORTED));
    nas_predictor *none = NULL;
    cr_expect(eq(int, (int)nas_predictor_new(ctx, 0, &none), (int)NAS_ERR_INVALID));
    cr_expect(eq(ptr, none, NULL));
    nas_graph_free(empty);
    nas_graph_free(g);
    nas_predictor_free(p);
    nas_predictor_free(NULL);
}

Test(latency_predictor, same_rows_give_the_same_bits) {
    nas_prediction first = {0};
    for (int run = 0; run < 2; run++) {
        nas_rng rng = nas_rng_stream(seed, 1, "predictor bits");
        nas_predictor *p = trained(&rng, 25);
        nas_graph *g = network(3, 16, 64, 12);
        nas_prediction prediction;
        cr_assert(eq(int, (int)nas_predictor_fit(ctx, p), NAS_OK), "refitting changes nothing");
        cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, g, &prediction), NAS_OK));
        if (run == 0) first = prediction;
        cr_expect(eq(int, memcmp(&first, &prediction, sizeof first), 0));
        nas_graph_free(g);
        nas_predictor_free(p);
    }
}

/* More rows than the correction keeps. */
Test(latency_predictor, hundreds_of_rows_are_fine) {
    nas_rng rng = nas_rng_stream(seed, 2, "predictor many");
    nas_predictor *p = trained(&rng, 200);
    const outcome o = tried(&rng, p, 60);
    cr_expect(o.mape < 0.05, "error %g", o.mape);
    cr_expect(eq(sz, nas_predictor_quality_of(p).n_train, (size_t)200));
    nas_predictor_free(p);
}

Test(latency_predictor, a_failed_fit_keeps_the_last_one_and_leaks_nothing) {
    nas_rng rng = nas_rng_stream(seed, 5, "predictor faults");
    nas_predictor *p = trained(&rng, 12);
    nas_graph *g = network(2, 12, 48, 8);
    nas_prediction before, after;
    cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, g, &before), NAS_OK));
    nas_graph *extra = network(5, 20, 80, 10);
    cr_assert(eq(int, (int)nas_predictor_add(ctx, p, extra, true_us(extra), false), NAS_OK));
    bool clean = false;
    for (long n = 1; n < 100 && !clean; n++) {
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas_predictor_fit(ctx, p);
        nas_mem_fail_after(0);
        clean = status == NAS_OK;
        if (clean) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
        cr_assert(eq(int, (int)nas_predictor_predict(ctx, p, g, &after), NAS_OK));
        cr_assert(eq(int, memcmp(&before, &after, sizeof before), 0));
    }
    cr_expect(clean);
    nas_graph_free(extra);
    nas_graph_free(g);
    nas_predictor_free(p);
}

Test(latency_predictor, adding_and_predicting_survive_failed_allocations) {
    nas_rng rng = nas_rng_stream(seed, 6, "predictor faults");
    nas_predictor *p = trained(&rng, 16); /* the next row needs a larger array */
    nas_graph *g = network(2, 12, 48, 8);
    for (int predicting = 0; predicting <= 1; predicting++) {
        bool clean = false;
        for (long n = 1; n < 100 && !clean; n++) {
            const long live = nas_mem_live();
            nas_prediction prediction;
            nas_mem_fail_after(n);
            const nas_status status = predicting ? nas_predictor_predict(ctx, p, g, &prediction)
                                                 : nas_predictor_add(ctx, p, g, 100, false);
            nas_mem_fail_after(0);
            clean = status == NAS_OK;
            cr_assert(clean || status == NAS_ERR_NOMEM);
            if (!clean) cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
        }
        cr_expect(clean);
    }
    nas_graph_free(g);
    nas_predictor_free(p);
}
