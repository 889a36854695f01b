/* test_evolution.c - what is particular to regularized evolution: ageing, tournaments, gain over random search. */
#include "search/strategies/strategies_internal.h"
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(strategies_evolution, .init = fixture_setup, .fini = fixture_teardown);

Test(strategies_evolution, the_population_is_the_youngest_completed_points) {
    nas_strategy *s = fixture_strategy("evolution", space, 8, 1, 3);
    int64_t completed[200];
    int32_t n = 0;
    for (int32_t trial = 0; trial < 120; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        const nas_told told = fixture_result(&p, trial, 1, 0, true);
        if (told.state == NAS_TOLD_COMPLETE) completed[n++] = trial;
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
        if (s->n_batch > 0) continue; /* members change with the batch */
        const int32_t alive = n < 8 ? n : 8;
        cr_assert(eq(int, s->n_members, alive), "after trial %d", (int)trial);
        for (int32_t i = 0; i < alive; i++) {
            cr_assert(eq(i64, s->members[i].trial, completed[n - alive + i]), "after trial %d",
                      (int)trial);
        }
    }
    nas_strategy_free(s);
}

Test(strategies_evolution, age_is_the_trial_number_whatever_the_order_of_asking) {
    nas_strategy *s = fixture_strategy("evolution", space, 8, 1, 3);
    nas_point batch[8];
    for (int i = 0; i < 8; i++)
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &batch[i]), NAS_OK));
    static const int64_t trials[8] = {14, 3, 11, 9, 2, 5, 30, 1};
    static const int youngest_last[8] = {7, 4, 1, 5, 3, 2, 0, 6};
    for (int i = 0; i < 8; i++) {
        const nas_told told = fixture_result(&batch[i], trials[i], 1, 0, false);
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
    }
    for (int i = 0; i < 8; i++) {
        cr_assert(eq(i64, s->members[i].trial, trials[youngest_last[i]]));
        cr_assert(nas_point_equal(&s->members[i].point, &batch[youngest_last[i]]));
    }
    nas_strategy_free(s);
}

/* Lowest values[0] of one objective = - quality + cost/30, over `trials`. */
static double best_found(const char *name, int32_t trials, uint64_t seed) {
    nas_strategy *s = fixture_strategy(name, space, 16, 1, seed);
    double best = 1e9;
    for (int32_t trial = 0; trial < trials; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        nas_told told = fixture_result(&p, trial, 2, 0, false);
        told.n_values = 1;
        told.values[0] = told.values[1] + told.values[0] / 30;
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
        if (told.values[0] < best) best = told.values[0];
    }
    nas_strategy_free(s);
    return best;
}

Test(strategies_evolution, finds_better_points_than_random_search_at_equal_trials) {
    enum { SEEDS = 5, TRIALS = 200 };
    double evolution = 0, random = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        evolution += best_found("evolution", TRIALS, seed) / SEEDS;
        random += best_found("random", TRIALS, seed) / SEEDS;
    }
    cr_log_info("mean of the best: evolution %.4f, random %.4f", evolution, random);
    cr_assert(evolution < random, "evolution %g, random %g", evolution, random);
}

Test(strategies_evolution, a_budget_is_learnt_from_violations) {
    nas_strategy *s = fixture_strategy("evolution", space, 16, 2, 4);
    fixture_run(s, 200, 2, 12, NULL);
    int32_t feasible = 0;
    for (int32_t i = 0; i < s->n_members; i++)
        feasible += !(s->members[i].violation > 0);
    nas_strategy *r = fixture_strategy("random", space, 16, 2, 4);
    int32_t feasible_of_random = 0;
    for (int32_t trial = 0; trial < 200; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, r, &p), NAS_OK));
        const nas_told told = fixture_result(&p, trial, 2, 12, false);
        feasible_of_random += !(told.violation > 0);
    }
    cr_assert(feasible * 200 > 2 * feasible_of_random * s->n_members, "%d of %d, random %d of 200",
              (int)feasible, (int)s->n_members, (int)feasible_of_random);
    nas_strategy_free(s);
    nas_strategy_free(r);
}
