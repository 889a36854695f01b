/* test_policy.c - the learnt strategies: gradients against finite differences, what an agent learns, and that it learns
 * the same however the calls are cut. */
#include "search/strategies/policy_internal.h"
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

TestSuite(strategies_policy, .init = fixture_setup, .fini = fixture_teardown);

static void fill(nas_rng *rng, double *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = nas_rng_normal(rng);
}

static void assert_near(double got, double wanted, const char *what, size_t at) {
    cr_assert(fabs(got - wanted) <= 1e-5 * (1 + fabs(wanted)),
              "%s %zu: %.9g, differences give %.9g", what, at, got, wanted);
}

static const double small_step = 1e-6;

/* ---- gradients --------------------------------------------------------------------------------------------------- */

Test(strategies_policy, the_gradient_of_a_dense_net_is_that_of_finite_differences) {
    enum { IN = 5, HIDDEN = 7 };
    nas_rng rng = nas_rng_stream(fixture_seed(1), 0, "dense");
    const nas__mlp net = nas__mlp_at(3, IN, HIDDEN); /* not at the start */
    nas__weights w;
    cr_assert(eq(int, (int)nas__weights_init(ctx, nas__mlp_end(&net), &w), NAS_OK));
    nas__mlp_draw(&net, &rng, w.value);
    double x[IN], dx[IN] = {0}, acts[2 * HIDDEN], scratch[2 * HIDDEN];
    fill(&rng, x, IN);
    (void)nas__mlp_forward(&net, w.value, x, acts);
    nas__mlp_backward(&net, w.value, x, acts, 1, w.gradient, dx, scratch);
    for (size_t i = 0; i < w.n; i++) {
        const double kept = w.value[i];
        w.value[i] = kept + small_step;
        const double above = nas__mlp_forward(&net, w.value, x, acts);
        w.value[i] = kept - small_step;
        const double below = nas__mlp_forward(&net, w.value, x, acts);
        w.value[i] = kept;
        assert_near(w.gradient[i], (above - below) / (2 * small_step), "weight", i);
    }
    for (size_t i = 0; i < IN; i++) {
        const double kept = x[i];
        x[i] = kept + small_step;
        const double above = nas__mlp_forward(&net, w.value, x, acts);
        x[i] = kept - small_step;
        const double below = nas__mlp_forward(&net, w.value, x, acts);
        x[i] = kept;
        assert_near(dx[i], (above - below) / (2 * small_step), "input", i);
    }
    nas__weights_deinit(&w);
}

/* A loss of all states: their inner product with fixed numbers. */
static double pass(const nas__encoder *e, const double *weights, const double *actions,
                   const double *toward, nas__trace *t) {
    double loss = 0;
    nas__graphcoder_begin(e, weights, t);
    for (int32_t step = 0; step < e->n_steps; step++)
        nas__graphcoder_step(e, weights, step, step > 0 ? actions[step - 1] : 0, t);
    for (int32_t i = 0; i < e->n_steps * e->width; i++)
        loss += toward[i] * t->hidden[i];
    return loss;
}

Test(strategies_policy, the_gradient_of_the_encoder_is_that_of_finite_differences) {
    enum { WIDTH = 4, GENES = 10 };
    nas_rng rng = nas_rng_stream(fixture_seed(2), 0, "encoder");
    nas_space *small = fixture_small_space(true);
    nas_space_steps *steps = NULL;
    cr_assert(eq(int, (int)nas_space_steps_new(ctx, small, &steps), NAS_OK));
    cr_assert(eq(int, steps->n_steps, GENES));
    nas__encoder e;
    nas__trace t;
    nas__weights w;
    cr_assert(eq(int, (int)nas__graphcoder_init(ctx, steps, WIDTH, 0, &e), NAS_OK));
    cr_assert(eq(int, (int)nas__trace_init(ctx, &e, &t), NAS_OK));
    cr_assert(eq(int, (int)nas__weights_init(ctx, nas__graphcoder_end(&e), &w), NAS_OK));
    nas__graphcoder_draw(&e, &rng, w.value);
    double actions[GENES], toward[GENES * WIDTH], dhidden[GENES * WIDTH];
    fill(&rng, actions, GENES);
    fill(&rng, toward, GENES * WIDTH);
    memcpy(dhidden, toward, sizeof toward);
    (void)pass(&e, w.value, actions, toward, &t);
    nas__graphcoder_backward(&e, w.value, &t, dhidden, w.gradient);
    int moved = 0;
    for (size_t i = 0; i < w.n; i++) {
        const double kept = w.value[i];
        w.value[i] = kept + small_step;
        const double above = pass(&e, w.value, actions, toward, &t);
        w.value[i] = kept - small_step;
        const double below = pass(&e, w.value, actions, toward, &t);
        w.value[i] = kept;
        assert_near(w.gradient[i], (above - below) / (2 * small_step), "weight", i);
        moved += w.gradient[i] != 0;
    }
    cr_assert(moved > (int)w.n / 2, "%d of %zu weights matter", moved, w.n);
    nas__weights_deinit(&w);
    nas__trace_deinit(&t);
    nas__graphcoder_deinit(&e);
    nas_space_steps_free(steps);
    nas_space_free(small);
}

Test(strategies_policy, adam_finds_the_bottom_of_a_bowl) {
    nas__weights w;
    cr_assert(eq(int, (int)nas__weights_init(ctx, 2, &w), NAS_OK));
    w.value[0] = 3;
    w.value[1] = -2;
    for (int i = 0; i < 2000; i++) {
        w.gradient[0] = 2 * (w.value[0] - 1);
        w.gradient[1] = 20 * (w.value[1] + 1);
        nas__dense_adam(&w, 0.01);
    }
    cr_assert(fabs(w.value[0] - 1) < 1e-3 && fabs(w.value[1] + 1) < 1e-3, "%g %g", w.value[0],
              w.value[1]);
    cr_assert(w.gradient[0] == 0 && w.gradient[1] == 0);
    nas__weights_deinit(&w);
}

/* ---- agents ------------------------------------------------------------------------------------------------------ */

/* Episodes of the default space; the value to minimise is how far the genes are from their largest choices. */
static void episodes(nas__member *out, int32_t n, uint64_t seed) {
    nas_rng rng = nas_rng_stream(seed, 0, "episodes");
    for (int32_t i = 0; i < n; i++) {
        nas_point p;
        nas_space_sample(space, &rng, &p);
        double missing = 0;
        for (int32_t g = 0; g < p.n; g++)
            missing += nas_space_gene(space, g)->cardinality - 1 - p.gene[g];
        out[i] = (nas__member){.point = p, .trial = i, .values = {missing}};
    }
}

static double genes_sum(const nas_point *p) {
    double sum = 0;
    for (int32_t g = 0; g < p->n; g++)
        sum += (double)p->gene[g];
    return sum;
}

static void assert_learns_alike(bool graph) {
    enum { N = 24 };
    static nas__member members[N];
    episodes(members, N, 3);
    nas_point acted[2];
    for (int cut = 0; cut < 2; cut++) {
        nas__agent *agent = NULL;
        cr_assert(eq(int, (int)nas__agent_new(ctx, space, graph, 6, 9, &agent), NAS_OK));
        cr_assert(eq(int, (int)nas__agent_reserve(ctx, agent, N), NAS_OK));
        for (int32_t n = cut == 0 ? N : 5; n <= N; n += 7) /* 5, 12, 19, then all */
            nas__agent_learn(agent, members, n);
        nas__agent_learn(agent, members, N);
        nas_rng rng = nas_rng_stream(4, 0, "noise");
        nas__agent_act(agent, 0.2, &rng, &acted[cut]);
        nas__agent_free(agent);
    }
    cr_assert(nas_point_equal(&acted[0], &acted[1]));
}

Test(strategies_policy, learning_does_not_depend_on_how_the_calls_are_cut) {
    assert_learns_alike(false);
    assert_learns_alike(true);
}

/* Without noise, after learning that large genes are good (or, negated, bad). */
static double taught(bool graph, bool negate) {
    enum { N = 60 };
    static nas__member members[N];
    episodes(members, N, 5);
    for (int32_t i = 0; i < N && negate; i++)
        members[i].values[0] = -members[i].values[0];
    nas__agent *agent = NULL;
    cr_assert(eq(int, (int)nas__agent_new(ctx, space, graph, 8, 2, &agent), NAS_OK));
    cr_assert(eq(int, (int)nas__agent_reserve(ctx, agent, N), NAS_OK));
    nas__agent_learn(agent, members, N);
    nas_rng rng = nas_rng_stream(1, 0, "noise");
    nas_point p;
    nas__agent_act(agent, 0, &rng, &p);
    nas__agent_free(agent);
    return genes_sum(&p);
}

Test(strategies_policy, an_agent_prefers_what_was_rewarded) {
    for (int graph = 0; graph < 2; graph++) {
        const double up = taught(graph, false), down = taught(graph, true);
        cr_assert(up > 1.5 * down + 5, "graph %d: %g taught upwards, %g downwards", graph, up,
                  down);
    }
}

Test(strategies_policy, a_policy_finds_better_points_than_random_search_at_equal_trials) {
    enum { SEEDS = 4, TRIALS = 120 };
    static const char *const names[] = {"random", "ddpg", "agmc"};
    double best[3] = {0};
    for (int k = 0; k < 3; k++) {
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            nas_strategy *s = fixture_strategy(names[k], space, 24, 1, seed);
            double least = INFINITY;
            for (int32_t trial = 0; trial < TRIALS; trial++) {
                nas_point p;
                cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
                nas_told told = fixture_result(&p, trial, 2, 0, false);
                told.n_values = 1;
                told.values[0] = told.values[1] + told.values[0] / 30;
                cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
                least = fmin(least, told.values[0]);
            }
            best[k] += least / SEEDS;
            nas_strategy_free(s);
        }
    }
    cr_log_info("mean of the best: random %.4f, ddpg %.4f, agmc %.4f", best[0], best[1], best[2]);
    cr_assert(best[1] < best[0] && best[2] < best[0], "random %g, ddpg %g, agmc %g", best[0],
              best[1], best[2]);
}
