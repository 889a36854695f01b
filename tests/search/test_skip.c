/* test_skip.c - what a forecast may cost a candidate: nothing while its interval leaves any doubt. SEED=n replays. */
#include "search/skip.h"
#include "search/study_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TRIALS = 6, TRAINED = 20 };

static nas_ctx *ctx;
static nas_config config;
static nas__study s;
static nas__trial trials[TRIALS];
static uint64_t seed = 7;

static void setup(void) {
    ctx = nas_ctx_new();
    nas_config_default(&config);
    memset(trials, 0, sizeof trials);
    s = (nas__study){.ctx = ctx, .config = &config, .trials = trials, .n_trials = TRIALS};
    const char *text = getenv("SEED");
    if (text != NULL) seed = strtoull(text, NULL, 10);
    for (size_t i = 0; i < TRIALS; i++)
        trials[i] = (nas__trial){.row.number = (int64_t)i, .from_strategy = true};
}

static void teardown(void) {
    nas_predictor_free(s.predictors[0]);
    nas_front_free(s.front);
    nas_ctx_free(ctx);
}

TestSuite(search_skip, .init = setup, .fini = teardown);

/* A predictor that was fitted to TRAINED networks: one that decisions may rest on. */
static void train(void) {
    nas_sr_options o = nas_sr_options_default();
    o.lr_height = 32;
    o.lr_width = 48;
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_sr_new(ctx, &o, &space), NAS_OK));
    cr_assert(eq(int, (int)nas_predictor_new(ctx, 8, &s.predictors[0]), NAS_OK));
    nas_rng rng = nas_rng_stream(seed, 0, "skip test");
    for (int i = 0; i < TRAINED; i++) {
        nas_point p;
        nas_graph *g = NULL;
        nas_graph_cost cost;
        nas_space_sample(space, &rng, &p);
        cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
        const double us = 50 + (double)cost.macs * 1e-4;
        cr_assert(eq(int, (int)nas_predictor_add(ctx, s.predictors[0], g, us, false), NAS_OK));
        nas_graph_free(g);
    }
    cr_assert(eq(int, (int)nas_predictor_fit(ctx, s.predictors[0]), NAS_OK));
    nas_space_free(space);
}

static void bound_ms(double value) {
    config.constraints[config.n_constraints++] =
        (nas_constraint){.metric = NAS_METRIC_LATENCY_P90_MS, .at_most = true, .bound = value};
}

/* ---- deadlines --------------------------------------------------------------------------------------------------------- */

Test(search_skip, an_interval_that_touches_the_limit_is_never_skipped) {
    nas_rng rng = nas_rng_stream(seed, 0, "intervals");
    for (int i = 0; i < 20000; i++) {
        const double bound = 1 + 1e5 * nas_rng_uniform(&rng);
        const double margin = i % 2 == 0 ? 0 : nas_rng_uniform(&rng);
        const double lo = 2e5 * nas_rng_uniform(&rng), width = 1e5 * nas_rng_uniform(&rng);
        const nas__forecast f = {true, lo + width / 2, lo, lo + width};
        const double excess = nas__certain_excess(&f, bound, margin);
        if (lo <= bound * (1 + margin)) {
            cr_assert(eq(dbl, excess, 0.0), "lo %g, bound %g (SEED=%" PRIu64 ")", lo, bound, seed);
        } else {
            cr_assert(excess > 0);
        }
    }
    const nas__forecast edge = {true, 35000, 33000, 37000};
    cr_expect(eq(dbl, nas__certain_excess(&edge, 33000, 0), 0.0));
    cr_expect(eq(dbl, nas__certain_excess(&edge, INFINITY, 0), 0.0));
    const nas__forecast unknown = {false, 1e9, 1e9, 1e9};
    cr_expect(eq(dbl, nas__certain_excess(&unknown, 1, 0), 0.0), "nothing was foretold");
}

Test(search_skip, only_a_whole_interval_above_the_bound_ends_a_trial) {
    nas__skipping skip;
    train();
    bound_ms(33);
    trials[0].forecast[0] = (nas__forecast){true, 40000, 32900, 50000};
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(not(skip.skip), "it may take 32.9 ms");
    trials[0].forecast[0].lo_us = 36300;
    nas__decide_feasible(&s, 0, &skip);
    cr_assert(skip.skip && !skip.beaten);
    cr_expect(epsilon_eq(dbl, skip.violation, 0.1, 1e-12));
    cr_expect(ne(ptr, strstr(skip.reason, "bound 33 ms"), NULL), "%s", skip.reason);
    config.search.skip_margin = 0.2;
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(not(skip.skip));
}

Test(search_skip, too_few_rows_or_a_switch_decide_nothing) {
    nas__skipping skip;
    bound_ms(1);
    trials[0].forecast[0] = (nas__forecast){true, 40000, 39000, 41000};
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(not(skip.skip), "no predictor");
    train();
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(skip.skip);
    config.search.skip_min_rows = TRAINED + 1;
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(not(skip.skip));
    config.search.skip_min_rows = TRAINED;
    config.search.skip_by_prediction = false;
    nas__decide_feasible(&s, 0, &skip);
    cr_expect(not(skip.skip));
}

/* ---- rivals ------------------------------------------------------------------------------------------------------------ */

Test(search_skip, a_candidate_that_might_join_the_front_is_never_called_beaten) {
    nas_rng rng = nas_rng_stream(seed, 0, "rivals");
    for (int i = 0; i < 5000; i++) {
        const int32_t n = 1 + (int32_t)nas_rng_below(&rng, NAS_OBJECTIVES_MAX);
        double members[8][NAS_OBJECTIVES_MAX], best[NAS_OBJECTIVES_MAX];
        nas_front *front = NULL;
        cr_assert(eq(int, (int)nas_front_new(ctx, n, &front), NAS_OK));
        bool joined = false;
        for (size_t m = 0; m < 8; m++) {
            for (int32_t k = 0; k < n; k++)
                members[m][k] = nas_rng_below(&rng, 6);
            cr_assert(
                eq(int, (int)nas_front_add(ctx, front, (int64_t)m, members[m], &joined), NAS_OK));
        }
        for (int32_t k = 0; k < n; k++)
            best[k] = nas_rng_below(&rng, 6);
        size_t which = 0;
        const bool beaten =
            nas__certainly_beaten(n, best, (const double(*)[NAS_OBJECTIVES_MAX])members, 8, &which);
        cr_assert(eq(int, (int)nas_front_add(ctx, front, 8, best, &joined), NAS_OK));
        cr_assert(eq(int, beaten, !joined), "SEED=%" PRIu64 " round %d", seed, i);
        nas_front_free(front);
    }
}

static void member(size_t i, double psnr, double ms) {
    trials[i].row.state = NAS_TRIAL_COMPLETE;
    trials[i].row.values.psnr_y_db = nas_some_double(psnr);
    trials[i].search[0] = (nas__latency){.is_set = true, .p50_us = ms * 1e3, .p90_us = ms * 1e3};
    const double values[] = {-psnr, ms};
    bool joined = false;
    cr_assert(eq(int, (int)nas_front_add(ctx, s.front, (int64_t)i, values, &joined), NAS_OK));
}

Test(search_skip, only_measured_feasible_members_beat_a_candidate) {
    nas__rivals rivals = {0};
    nas__skipping skip;
    train();
    bound_ms(33);
    cr_assert(eq(int, (int)nas_front_new(ctx, 2, &s.front), NAS_OK));
    member(0, 33, 20);
    member(1, 34, 40); /* misses the deadline */
    cr_assert(eq(int, (int)nas__rivals_of(&s, &rivals), NAS_OK));
    cr_assert(eq(sz, rivals.n, (size_t)1));
    cr_assert(eq(sz, rivals.trials[0], (size_t)0));
    const nas_sr_score low = {.psnr_y_db = 32.9}, high = {.psnr_y_db = 33.1};
    trials[2].forecast[0] = (nas__forecast){true, 25000, 20100, 30000};
    nas__decide_beaten(&s, 2, &low, &rivals, &skip);
    cr_expect(skip.skip && skip.beaten);
    cr_expect(ne(ptr, strstr(skip.reason, "trial 0"), NULL), "%s", skip.reason);
    nas__decide_beaten(&s, 2, &high, &rivals, &skip);
    cr_expect(not(skip.skip), "better in one objective");
    trials[2].forecast[0].lo_us = 19900;
    nas__decide_beaten(&s, 2, &low, &rivals, &skip);
    cr_expect(not(skip.skip), "it may be faster than the member");
    trials[2].forecast[0] = (nas__forecast){0};
    nas__decide_beaten(&s, 2, &low, &rivals, &skip);
    cr_expect(not(skip.skip), "nothing was foretold");
    trials[2].forecast[0] = (nas__forecast){true, 45000, 41000, 50000};
    nas__decide_beaten(&s, 2, &high, &rivals, &skip);
    cr_expect(not(skip.skip), "only an infeasible member is better");
    config.search.skip_dominated = false;
    trials[2].forecast[0] = (nas__forecast){true, 25000, 20100, 30000};
    nas__decide_beaten(&s, 2, &low, &rivals, &skip);
    cr_expect(not(skip.skip));
    nas__rivals_deinit(&rivals);
}

/* ---- forecasts against measurements ------------------------------------------------------------------------------------ */

Test(search_skip, intervals_are_at_least_as_wide_as_earlier_forecasts_were_wrong) {
    const nas__forecast f[] = {{true, 100, 99, 101}, {false, 0, 0, 0}, {true, 100, 99, 101}};
    const double measured[] = {100, 5, 125};
    double error = 0;
    cr_assert(eq(int, (int)nas__foretold_error(ctx, f, measured, 3, 0.95, &error), NAS_OK));
    cr_expect(epsilon_eq(dbl, error, log(1.25), 1e-12));
    const nas__forecast wide = nas__widened((nas__forecast){true, 200, 190, 400}, error, 1);
    cr_expect(epsilon_eq(dbl, wide.lo_us, 160, 1e-9));
    cr_expect(eq(dbl, wide.hi_us, 400.0), "never narrower than it was");
    const nas__forecast calm = nas__widened((nas__forecast){true, 200, 190, 400}, 0, 1.25);
    cr_expect(epsilon_eq(dbl, calm.lo_us, 152, 1e-9), "the rows were taken on a slow device");
    cr_expect(eq(dbl, calm.hi_us, 400.0));
    cr_assert(eq(int, (int)nas__foretold_error(ctx, f, measured, 0, 0.95, &error), NAS_OK));
    cr_expect(eq(dbl, error, 0.0));
}

Test(search_skip, the_quantile_of_many_errors_leaves_the_largest_out) {
    enum { N = 99 };
    nas__forecast f[N];
    double measured[N], error = 0;
    for (int i = 0; i < N; i++) {
        f[i] = (nas__forecast){true, 100, 90, 110};
        measured[i] = 100 * exp(0.01 * (i + 1));
    }
    cr_assert(eq(int, (int)nas__foretold_error(ctx, f, measured, N, 0.9, &error), NAS_OK));
    cr_expect(epsilon_eq(dbl, error, 0.9, 1e-9));
}

Test(search_skip, foresight_counts_only_what_was_foretold) {
    const nas__forecast f[] = {{true, 10, 9, 11},
                               {true, 20, 18, 22},
                               {false, 0, 0, 0},
                               {true, 30, 29, 31},
                               {true, 40, 39, 41}};
    const double measured[] = {10.5, 21, 1, 33, 44};
    nas__foresight out = {0};
    cr_assert(eq(int, (int)nas__foresight_of(ctx, f, measured, 5, &out), NAS_OK));
    cr_assert(out.is_set);
    cr_expect(eq(sz, out.n, (size_t)4));
    cr_expect(epsilon_eq(dbl, out.spearman, 1.0, 1e-12));
    cr_expect(epsilon_eq(dbl, out.coverage, 0.5, 1e-12));
    cr_assert(eq(int, (int)nas__foresight_of(ctx, f, measured, 2, &out), NAS_OK));
    cr_expect(not(out.is_set), "two pairs say nothing");
}
