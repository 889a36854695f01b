/* test_nsga2.c - what is particular to NSGA-II: who survives, newcomers, gain over random search. */
#include "search/strategies/strategies_internal.h"
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

TestSuite(strategies_nsga2, .init = fixture_setup, .fini = fixture_teardown);

enum { POPULATION = 12, ALL = 2 * POPULATION };

/* Runs one generation; appends its completed results to pool. Returns the new length. */
static int32_t generation(nas_strategy *s, int64_t first_trial, nas__member *pool, int32_t n) {
    for (int64_t trial = first_trial; trial < first_trial + POPULATION; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        const nas_told told = fixture_result(&p, trial, 2, 15, true);
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
        if (told.state != NAS_TOLD_COMPLETE) continue;
        pool[n] = (nas__member){.point = p, .trial = trial, .violation = told.violation};
        for (int k = 0; k < 2; k++)
            pool[n].values[k] = told.values[k];
        n++;
    }
    return n;
}

static bool survives(const nas_strategy *s, int64_t trial) {
    for (int32_t i = 0; i < s->n_members; i++) {
        if (s->members[i].trial == trial) return true;
    }
    return false;
}

Test(strategies_nsga2, the_best_of_parents_and_children_survive) {
    nas_strategy *s = fixture_strategy("nsga2", space, POPULATION, 2, 21);
    nas__ranking r;
    cr_assert(eq(int, (int)nas__ranking_init(ctx, ALL, &r), NAS_OK));
    for (int g = 0; g < 12; g++) {
        nas__member pool[ALL];
        int32_t n = s->n_members;
        for (int32_t i = 0; i < n; i++)
            pool[i] = s->members[i];
        n = generation(s, g * POPULATION, pool, n);
        cr_assert(eq(int, s->n_members, n < POPULATION ? n : POPULATION));
        nas__rank(&r, 2, pool, n);
        for (int32_t i = 0; i < n; i++) {
            for (int32_t j = 0; j < n; j++) { /* nobody survives at the cost of a better one */
                if (!survives(s, pool[i].trial) || survives(s, pool[j].trial)) continue;
                cr_assert(not(nas__ranked_before(&r, j, i)), "generation %d: %d for %d", g, (int)i,
                          (int)j);
            }
        }
    }
    nas__ranking_deinit(&r);
    nas_strategy_free(s);
}

/* Genes that differ between the point and its nearest parent, whose index is *nearest. */
static int32_t distance(const nas_point *p, const nas__member *parents, int32_t n,
                        int32_t *nearest) {
    int32_t least = p->n + 1;
    for (int32_t i = 0; i < n; i++) {
        int32_t differ = 0;
        for (int32_t k = 0; k < p->n; k++)
            differ += p->gene[k] != parents[i].point.gene[k];
        if (differ >= least) continue;
        least = differ;
        *nearest = i;
    }
    return least;
}

/* Children are one change away from a parent. */
static nas_strategy *mutating_strategy(int32_t population) {
    nas_strategy_options o = nas_strategy_options_default();
    o.population = population;
    o.crossover_rate = 0;
    o.mutation_rate = 1e-9;
    nas_strategy *s = NULL;
    cr_assert(eq(int, (int)nas_strategy_new(ctx, "nsga2", space, &o, 5, &s), NAS_OK));
    return s;
}

Test(strategies_nsga2, better_parents_have_more_children) {
    enum { MANY = 200 };
    nas_strategy *s = mutating_strategy(MANY);
    fixture_run(s, MANY, 2, 0, NULL);
    double mean_rank = 0, mean_parent_rank = 0;
    for (int32_t i = 0; i < MANY; i++) {
        nas_point p;
        int32_t parent = 0;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        (void)distance(&p, s->members, s->n_members, &parent);
        mean_rank += (double)s->ranking.rank[i] / MANY;
        mean_parent_rank += (double)s->ranking.rank[parent] / MANY;
    }
    /* The better of two: with evenly spread ranks two thirds of the mean. */
    cr_assert(mean_parent_rank < 0.8 * mean_rank, "parents %g, all %g", mean_parent_rank,
              mean_rank);
    nas_strategy_free(s);
}

Test(strategies_nsga2, missing_survivors_are_replaced_by_samples) {
    nas_strategy *s = mutating_strategy(POPULATION);
    enum { SURVIVORS = 2 };
    for (int64_t trial = 0; trial < POPULATION; trial++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        nas_told told = fixture_result(&p, trial, 2, 0, false);
        if (trial >= SURVIVORS) told.state = trial % 2 == 0 ? NAS_TOLD_PRUNED : NAS_TOLD_FAILED;
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK));
    }
    cr_assert(eq(int, s->n_members, SURVIVORS));
    for (int32_t i = 0; i < POPULATION; i++) {
        nas_point p;
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
        int32_t parent = 0; /* samples are far from all, a change touches one or two blocks */
        const bool sampled = distance(&p, s->members, s->n_members, &parent) > 6;
        cr_assert(eq(int, sampled, i < POPULATION / 2 - SURVIVORS), "point %d", (int)i);
    }
    nas_strategy_free(s);
}

Test(strategies_nsga2, dominates_more_volume_than_random_search_at_equal_trials) {
    enum { SEEDS = 5, TRIALS = 240 };
    static const double budgets[] = {0, 25}; /* without and with a constraint */
    for (int b = 0; b < 2; b++) {
        double nsga2 = 0, random = 0;
        for (uint64_t seed = 0; seed < SEEDS; seed++) {
            const double of_nsga2 = fixture_hypervolume("nsga2", 24, TRIALS, budgets[b], seed);
            const double of_random = fixture_hypervolume("random", 24, TRIALS, budgets[b], seed);
            cr_log_info("budget %g, seed %d: hypervolume nsga2 %.3f, random %.3f", budgets[b],
                        (int)seed, of_nsga2, of_random);
            nsga2 += of_nsga2 / SEEDS;
            random += of_random / SEEDS;
        }
        cr_assert(nsga2 > random, "budget %g: nsga2 %g, random %g", budgets[b], nsga2, random);
    }
}
