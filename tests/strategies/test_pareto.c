/* test_pareto.c - constraint domination, nondominated ranks and crowding. */
#include "search/strategies/strategies_internal.h"
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

TestSuite(strategies_pareto, .init = fixture_setup, .fini = fixture_teardown);

Test(strategies_pareto, domination_puts_feasibility_before_values) {
    static const struct {
        const char *name;
        double a[2], violation_a, b[2], violation_b;
        bool dominates;
    } rows[] = {
        {"better in one", {1, 2}, 0, {1, 3}, 0, true},
        {"better in both", {0, 0}, 0, {1, 3}, 0, true},
        {"equal", {1, 2}, 0, {1, 2}, 0, false},
        {"trade-off", {0, 3}, 0, {1, 2}, 0, false},
        {"worse", {2, 3}, 0, {1, 2}, 0, false},
        {"feasible beats better values", {9, 9}, 0, {0, 0}, 0.1, true},
        {"infeasible never beats feasible", {0, 0}, 0.1, {9, 9}, 0, false},
        {"less violation beats better values", {9, 9}, 0.1, {0, 0}, 0.2, true},
        {"equal violation compares values", {0, 0}, 0.2, {0, 1}, 0.2, true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert(
            eq(int,
               nas_dominates(2, rows[i].a, rows[i].violation_a, rows[i].b, rows[i].violation_b),
               rows[i].dominates),
            "%s", rows[i].name);
    }
}

static void random_members(nas_rng *rng, nas__member *m, int32_t n, int32_t n_objectives) {
    for (int32_t i = 0; i < n; i++) {
        m[i] = (nas__member){.trial = i};
        for (int32_t k = 0; k < n_objectives; k++)
            m[i].values[k] = nas_rng_below(rng, 8); /* with ties */
        if (nas_rng_below(rng, 3) == 0) m[i].violation = nas_rng_below(rng, 3);
    }
}

Test(strategies_pareto, ranks_follow_their_definition) {
    enum { N = 60 };
    nas__member m[N];
    nas__ranking r;
    nas_rng rng = nas_rng_stream(fixture_seed(31), 0, "ranks");
    cr_assert(eq(int, (int)nas__ranking_init(ctx, N, &r), NAS_OK));
    for (int round = 0; round < 60; round++) {
        const int32_t n_objectives = 1 + round % NAS_OBJECTIVES_MAX;
        random_members(&rng, m, N, n_objectives);
        nas__rank(&r, n_objectives, m, N);
        /* rank = 1 + highest rank among those that dominate it: the longest chain above it */
        for (int32_t i = 0; i < N; i++) {
            int32_t expected = 0;
            for (int32_t j = 0; j < N; j++) {
                if (nas_dominates(n_objectives, m[j].values, m[j].violation, m[i].values,
                                  m[i].violation) &&
                    r.rank[j] + 1 > expected) {
                    expected = r.rank[j] + 1;
                }
            }
            cr_assert(eq(int, r.rank[i], expected), "round %d, member %d", round, (int)i);
        }
    }
    nas__ranking_deinit(&r);
}

Test(strategies_pareto, crowding_is_the_share_of_the_neighbours_gap) {
    nas__member m[5] = {
        {.trial = 0, .values = {0, 10}},  {.trial = 1, .values = {1, 6}},
        {.trial = 2, .values = {4, 5}},   {.trial = 3, .values = {10, 0}},
        {.trial = 4, .values = {20, 20}},
    };
    nas__ranking r;
    cr_assert(eq(int, (int)nas__ranking_init(ctx, 5, &r), NAS_OK));
    nas__rank(&r, 2, m, 5);
    cr_assert(isinf(r.crowding[0]) && isinf(r.crowding[3]));
    cr_assert(epsilon_eq(dbl, r.crowding[1], 0.4 + 0.5, 1e-12));
    cr_assert(epsilon_eq(dbl, r.crowding[2], 0.9 + 0.6, 1e-12));
    cr_assert(eq(int, r.rank[4], 1));
    cr_assert(nas__ranked_before(&r, 2, 1)); /* less crowded */
    cr_assert(not(nas__ranked_before(&r, 1, 2)));
    cr_assert(nas__ranked_before(&r, 1, 4)); /* lower rank */
    nas__rank(&r, 3, m, 5); /* a third objective that is 0 everywhere tells nobody apart */
    cr_assert(epsilon_eq(dbl, r.crowding[1], 0.4 + 0.5, 1e-12));
    m[0].values[0] = -1.7e308; /* a range beyond the largest double */
    m[3].values[0] = 1.7e308;
    nas__rank(&r, 2, m, 5);
    cr_assert(epsilon_eq(dbl, r.crowding[1], 0.5 + 0.5, 1e-12));
    cr_assert(epsilon_eq(dbl, r.crowding[2], 0.5 + 0.6, 1e-12));
    nas__ranking_deinit(&r);
}

Test(strategies_pareto, the_ranking_does_not_depend_on_the_order_of_members) {
    enum { N = 40 };
    nas__member m[N], shuffled[N];
    nas__ranking a, b;
    nas_rng rng = nas_rng_stream(fixture_seed(32), 0, "order");
    cr_assert(eq(int, (int)nas__ranking_init(ctx, N, &a), NAS_OK));
    cr_assert(eq(int, (int)nas__ranking_init(ctx, N, &b), NAS_OK));
    for (int round = 0; round < 40; round++) {
        int32_t place[N];
        random_members(&rng, m, N, 3);
        for (int32_t i = 0; i < N; i++)
            place[i] = i;
        for (int32_t i = N - 1; i > 0; i--) {
            const int32_t j = (int32_t)nas_rng_below(&rng, (uint32_t)i + 1);
            const int32_t kept = place[i];
            place[i] = place[j];
            place[j] = kept;
        }
        for (int32_t i = 0; i < N; i++)
            shuffled[place[i]] = m[i];
        nas__rank(&a, 3, m, N);
        nas__rank(&b, 3, shuffled, N);
        for (int32_t i = 0; i < N; i++) {
            cr_assert(eq(int, a.rank[i], b.rank[place[i]]), "round %d", round);
            cr_assert(a.crowding[i] == b.crowding[place[i]], "round %d", round);
        }
    }
    nas__ranking_deinit(&a);
    nas__ranking_deinit(&b);
}

Test(strategies_pareto, a_failed_allocation_leaves_nothing_behind) {
    for (long n = 1;; n++) {
        nas__ranking r = {0};
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas__ranking_init(ctx, 9, &r);
        nas_mem_fail_after(0);
        if (status != NAS_OK) cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
        nas__ranking_deinit(&r);
        if (status == NAS_OK) {
            cr_assert(eq(long, n, 6L)); /* five arrays */
            return;
        }
    }
}
