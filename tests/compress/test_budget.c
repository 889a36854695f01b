/* test_budget.c - the budget solvers against brute force and against published answers. */
#include "compress/budget.h"
#include "tests/compress/budget_tables.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

TestSuite(compress_budget, .init = nets_setup, .fini = nets_teardown, .timeout = 120);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

enum { LAYERS = 5, LEVELS = 4 };

/* Levels whose costs and losses are neither monotone nor apart: ties and dominated ones occur. */
static void random_layers(uint64_t seed, nas_budget_level levels[LAYERS][LEVELS],
                          nas_budget_layer layers[LAYERS]) {
    nas_rng rng = nas_rng_stream(seed, 0, "budget");
    for (int l = 0; l < LAYERS; l++) {
        for (int k = 0; k < LEVELS; k++) {
            levels[l][k].cost = seed % 3 == 0 ? nas_rng_below(&rng, 6) : nas_rng_uniform(&rng);
            levels[l][k].loss = seed % 2 == 0 ? nas_rng_below(&rng, 5) : nas_rng_uniform(&rng);
        }
        layers[l] = (nas_budget_layer){levels[l], LEVELS};
    }
}

static double brute_force(const nas_budget_layer layers[LAYERS], double limit) {
    double best = INFINITY;
    for (int n = 0; n < LEVELS * LEVELS * LEVELS * LEVELS * LEVELS; n++) {
        double cost = 0, loss = 0;
        for (int l = 0, code = n; l < LAYERS; l++, code /= LEVELS) {
            cost += layers[l].levels[code % LEVELS].cost;
            loss += layers[l].levels[code % LEVELS].loss;
        }
        if (cost <= limit * (1 + 1e-12)) best = fmin(best, loss);
    }
    return best;
}

Test(compress_budget, the_exact_answer_is_that_of_brute_force_and_fits) {
    for (uint64_t seed = 0; seed < 300; seed++) {
        nas_budget_level levels[LAYERS][LEVELS];
        nas_budget_layer layers[LAYERS];
        int32_t choice[LAYERS], other[LAYERS];
        nas_budget_total total, rounded;
        random_layers(seed, levels, layers);
        const double limit = (seed % 3 == 0 ? 6 : 1) * (0.3 + 0.01 * (double)seed);
        const double best = brute_force(layers, limit);
        const nas_status status = nas_budget_solve(ctx, layers, LAYERS, limit, choice, &total);
        if (isinf(best)) {
            cr_assert(status == NAS_ERR_RANGE);
            continue;
        }
        cr_assert(status == NAS_OK, "%s", nas_ctx_message(ctx));
        cr_assert(total.exact && fabs(total.loss - best) < 1e-12, "seed %d: %g, not %g", (int)seed,
                  total.loss, best);
        cr_assert(total.cost <= limit * (1 + 1e-12));
        if (nas_budget_buckets(ctx, layers, LAYERS, limit, 5000, other, &rounded) != NAS_OK)
            continue; /* rounding up leaves nothing: allowed when it is tight */
        cr_assert(rounded.cost <= limit * (1 + 1e-12) && rounded.loss >= best - 1e-12);
    }
}

Test(compress_budget, few_buckets_never_exceed_the_limit) {
    for (uint64_t seed = 1; seed < 200; seed++) {
        nas_budget_level levels[LAYERS][LEVELS];
        nas_budget_layer layers[LAYERS];
        int32_t choice[LAYERS];
        nas_budget_total total;
        random_layers(seed, levels, layers);
        for (int32_t buckets = 3; buckets < 40; buckets += 6) {
            if (nas_budget_buckets(ctx, layers, LAYERS, 2.5, buckets, choice, &total) != NAS_OK)
                continue;
            double cost = 0;
            for (int l = 0; l < LAYERS; l++)
                cost += levels[l][choice[l]].cost;
            cr_assert(cost <= 2.5 * (1 + 1e-12) && fabs(cost - total.cost) < 1e-12);
        }
    }
}

/* Rounding up with 10,000 buckets gives the published cost and speed; the exact answer is at least as good. */
Test(compress_budget, resnet18_timings_of_spdy_give_the_published_choices) {
    static nas_budget_level levels[SPDY_LAYERS][SPDY_LEVELS];
    nas_budget_layer layers[SPDY_LAYERS];
    const double target[] = {1.5, 2.0, 2.5}, cost[] = {0.54610, 1.86437, 3.30874},
                 speed[] = {1.5014, 2.0014, 2.5015};
    const int32_t twice[SPDY_LAYERS] = {14, 0, 0,  14, 12, 15, 2, 14, 16, 11,
                                        16, 5, 15, 17, 14, 18, 0, 15, 16};
    double fixed = spdy_base;
    for (int l = 0; l < SPDY_LAYERS; l++) {
        for (int k = 0; k < SPDY_LEVELS; k++)
            levels[l][k] = (nas_budget_level){spdy_rn18[l][k], pow(k / 41.0, 2)};
        layers[l] = (nas_budget_layer){levels[l], SPDY_LEVELS};
        fixed -= spdy_rn18[l][0];
    }
    for (int t = 0; t < 3; t++) {
        const double limit = spdy_base / target[t] - fixed;
        int32_t choice[SPDY_LAYERS];
        nas_budget_total total, best;
        OK(nas_budget_buckets(ctx, layers, SPDY_LAYERS, limit, 10000, choice, &total));
        cr_assert(fabs(total.loss - cost[t]) < 6e-6, "target %g: %.5f", target[t], total.loss);
        cr_assert(fabs(spdy_base / (total.cost + fixed) - speed[t]) < 6e-5);
        if (t == 1) cr_assert(memcmp(choice, twice, sizeof twice) == 0);
        OK(nas_budget_solve(ctx, layers, SPDY_LAYERS, limit, choice, &best));
        cr_assert(best.exact && best.loss <= total.loss + 1e-12 && best.cost <= limit);
    }
}

typedef struct hawq_case {
    int what; /* 0 size, 1 bit operations, 2 latency */
    double share, omega;
} hawq_case;

static double hawq_cost(const hawq_layer *l, int what, bool eight) {
    if (what == 0) return l->weights * (eight ? 1 : 0.5);
    if (what == 1) return l->bops / (eight ? 16 : 64);
    return eight ? l->ms_8 : l->ms_4;
}

/* Layers in `tied` pairs have the same bits: the second is added to the first. */
static void check_hawq(const hawq_layer *net, int n, const int (*tied)[2], int n_tied,
                       const hawq_case *c, const char *bits) {
    static nas_budget_level levels[HAWQ_50][2];
    nas_budget_layer layers[HAWQ_50];
    int32_t choice[HAWQ_50];
    int of[HAWQ_50], n_layers = 0;
    double low = 0, high = 0;
    for (int l = 0; l < n; l++) {
        of[l] = -1;
        for (int k = 0; k < n_tied; k++) {
            if (tied[k][1] == l) of[l] = of[tied[k][0]];
        }
        if (of[l] < 0) {
            of[l] = n_layers++;
            memset(levels[of[l]], 0, sizeof levels[0]);
        }
        for (int k = 0; k < 2; k++) {
            levels[of[l]][k].cost += hawq_cost(&net[l], c->what, k == 1);
            levels[of[l]][k].loss += net[l].trace * (k == 1 ? net[l].change_8 : net[l].change_4);
        }
        low += hawq_cost(&net[l], c->what, false);
        high += hawq_cost(&net[l], c->what, true);
    }
    for (int l = 0; l < n_layers; l++)
        layers[l] = (nas_budget_layer){levels[l], 2};
    nas_budget_total total;
    OK(nas_budget_solve(ctx, layers, (size_t)n_layers, low + (high - low) * c->share, choice,
                        &total));
    cr_assert(total.exact && fabs(total.loss - c->omega) < 1e-6, "%d at %g: %.6f, published %.6f",
              c->what, c->share, total.loss, c->omega);
    for (int l = 0; bits != NULL && l < n; l++)
        cr_assert(bits[l] == (choice[of[l]] == 1 ? '8' : '4'), "%d at %g, layer %d", c->what,
                  c->share, l);
}

Test(compress_budget, resnet18_of_hawq_gets_the_published_bits) {
    static const int tied[][2] = {{4, 6}, {9, 11}, {14, 16}};
    static const hawq_case cases[] = {{0, .75, .033441}, {0, .5, .074506}, {0, .25, .118300},
                                      {1, .75, .079965}, {1, .5, .215689}, {1, .25, .460424},
                                      {2, .75, .079965}, {2, .5, .202674}, {2, .25, .460424}};
    static const char *const bits[] = {
        "8888888888888488884", "8888888888888884844", "8888888888888844444",
        "8888888848888484884", "8884888848884444444", "8884848444444444444",
        "8888888848888484884", "8888848848884484844", "8884848444444444444"};
    for (int i = 0; i < 9; i++)
        check_hawq(hawq_18, HAWQ_18, tied, 3, &cases[i], bits[i]);
}

Test(compress_budget, resnet50_of_hawq_gets_the_published_sensitivities) {
    static const int tied[][2] = {{0, 3}, {10, 13}, {23, 26}, {42, 45}};
    static const hawq_case cases[] = {{0, .75, .012215}, {0, .5, .031024}, {0, .25, .074949},
                                      {1, .75, .024105}, {1, .5, .056440}, {1, .25, .148948},
                                      {2, .75, .022658}, {2, .5, .054861}, {2, .25, .137505}};
    for (int i = 0; i < 9; i++)
        check_hawq(hawq_50, HAWQ_50, tied, 4, &cases[i], NULL);
}

Test(compress_budget, nonsense_is_refused) {
    nas_budget_level levels[] = {{1, 2}, {3, 1}};
    nas_budget_layer layers[] = {{levels, 2}};
    int32_t choice[1];
    nas_budget_total total;
    cr_assert(nas_budget_solve(ctx, layers, 1, 0.5, choice, &total) == NAS_ERR_RANGE);
    cr_assert(strstr(nas_ctx_message(ctx), "needs 1") != NULL);
    cr_assert(nas_budget_solve(ctx, layers, 0, 5, choice, &total) == NAS_ERR_RANGE);
    cr_assert(nas_budget_solve(ctx, layers, 1, NAN, choice, &total) == NAS_ERR_INVALID);
    cr_assert(nas_budget_buckets(ctx, layers, 1, 5, 0, choice, &total) == NAS_ERR_RANGE);
    levels[0].cost = -1;
    cr_assert(nas_budget_solve(ctx, layers, 1, 5, choice, &total) == NAS_ERR_INVALID);
    levels[0].cost = NAN;
    cr_assert(nas_budget_solve(ctx, layers, 1, 5, choice, &total) == NAS_ERR_INVALID);
    levels[0].cost = 0;
    levels[1].cost = 0;
    OK(nas_budget_solve(ctx, layers, 1, 0, choice, &total)); /* nothing to spend, nothing costs */
    cr_assert(choice[0] == 1);
}
