/* test_front.c - the incremental Pareto front and its hypervolume, against brute force. */
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

TestSuite(strategies_front, .init = fixture_setup, .fini = fixture_teardown);

enum { GRID = 6, POINTS = 40 };

static nas_front *new_front(int32_t n_objectives) {
    nas_front *front = NULL;
    cr_assert(eq(int, (int)nas_front_new(ctx, n_objectives, &front), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return front;
}

static bool add(nas_front *front, int64_t trial, const double *values) {
    bool joined = false;
    cr_assert(eq(int, (int)nas_front_add(ctx, front, trial, values, &joined), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return joined;
}

/* Is added[i] on the front of added[0..n)? Of equal points the first is. */
static bool belongs(int32_t n_objectives, double added[][NAS_OBJECTIVES_MAX], int n, int i) {
    for (int j = 0; j < n; j++) {
        const bool same = memcmp(added[i], added[j], (size_t)n_objectives * sizeof(double)) == 0;
        if ((same && j < i) || nas_dominates(n_objectives, added[j], 0, added[i], 0)) return false;
    }
    return true;
}

/* Unit cells of the grid below the reference GRID^n that some point dominates. */
static double volume_by_cells(int32_t n_objectives, double added[][NAS_OBJECTIVES_MAX], int n) {
    int cells = 1, count = 0;
    for (int32_t k = 0; k < n_objectives; k++)
        cells *= GRID;
    for (int cell = 0; cell < cells; cell++) {
        bool dominated = false;
        for (int i = 0; i < n && !dominated; i++) {
            bool below = true;
            for (int32_t k = 0, rest = cell; k < n_objectives; k++, rest /= GRID) {
                below = below && added[i][k] <= rest % GRID;
            }
            dominated = below;
        }
        count += dominated;
    }
    return count;
}

Test(strategies_front, members_and_volume_equal_brute_force) {
    nas_rng rng = nas_rng_stream(fixture_seed(41), 0, "front");
    static const double reference[] = {GRID, GRID, GRID, GRID};
    for (int round = 0; round < 80; round++) {
        const int32_t n_objectives = 1 + round % NAS_OBJECTIVES_MAX;
        nas_front *front = new_front(n_objectives);
        double added[POINTS][NAS_OBJECTIVES_MAX];
        for (int n = 0; n < POINTS; n++) {
            for (int k = 0; k < NAS_OBJECTIVES_MAX; k++)
                added[n][k] = nas_rng_below(&rng, GRID + 2); /* some outside */
            const bool joined = add(front, n, added[n]);
            cr_assert(eq(int, joined, belongs(n_objectives, added, n + 1, n)), "round %d, point %d",
                      round, n);
            size_t expected = 0;
            for (int i = 0; i <= n; i++)
                expected += belongs(n_objectives, added, n + 1, i);
            cr_assert(eq(sz, nas_front_size(front), expected), "round %d, point %d", round, n);
            if (n % 8 != 7) continue;
            cr_assert(eq(dbl, nas_front_hypervolume(front, reference),
                         volume_by_cells(n_objectives, added, n + 1)),
                      "round %d, %d objectives, %d points", round, (int)n_objectives, n + 1);
        }
        for (size_t i = 0; i < nas_front_size(front); i++) {
            const int64_t trial = nas_front_trial(front, i);
            cr_assert(belongs(n_objectives, added, POINTS, (int)trial));
            cr_assert(eq(dbl, nas_front_values(front, i)[0], added[trial][0]));
            if (i > 0) cr_assert(nas_front_values(front, i - 1)[0] <= added[trial][0]);
        }
        nas_front_free(front);
    }
}

Test(strategies_front, volume_of_real_values_equals_a_sample_estimate) {
    /* 200000 samples of a share near one half: standard deviation 0.0011, bound of five. */
    enum { SAMPLES = 200000 };
    nas_rng rng = nas_rng_stream(7, 0, "estimate");
    for (int32_t n_objectives = 2; n_objectives <= 3; n_objectives++) {
        nas_front *front = new_front(n_objectives);
        static const double reference[] = {1, 1, 1};
        for (int i = 0; i < 12; i++) {
            double v[3];
            for (int k = 0; k < 3; k++)
                v[k] = nas_rng_uniform(&rng);
            (void)add(front, i, v);
        }
        int below = 0;
        for (int i = 0; i < SAMPLES; i++) {
            double v[3];
            for (int k = 0; k < 3; k++)
                v[k] = nas_rng_uniform(&rng);
            for (size_t m = 0; m < nas_front_size(front); m++) {
                if (!nas_dominates(n_objectives, nas_front_values(front, m), 0, v, 0)) continue;
                below++;
                break;
            }
        }
        const double estimate = (double)below / SAMPLES,
                     exact = nas_front_hypervolume(front, reference);
        cr_assert(fabs(exact - estimate) < 0.006, "%d objectives: %g, estimate %g",
                  (int)n_objectives, exact, estimate);
        nas_front_free(front);
    }
}

Test(strategies_front, an_empty_front_and_points_beyond_the_reference_have_no_volume) {
    static const double reference[] = {1, 1};
    nas_front *front = new_front(2);
    cr_assert(eq(dbl, nas_front_hypervolume(front, reference), 0.0));
    cr_assert(add(front, 1, (double[]){1, 0}));
    cr_assert(add(front, 2, (double[]){0, 1}));
    cr_assert(eq(dbl, nas_front_hypervolume(front, reference), 0.0));
    cr_assert(add(front, 3, (double[]){0.5, 0.5}));
    cr_assert(eq(dbl, nas_front_hypervolume(front, reference), 0.25));
    nas_front_free(front);
    nas_front_free(NULL);
}

Test(strategies_front, values_that_are_not_finite_and_bad_sizes_are_refused) {
    nas_front *front = NULL;
    cr_assert(eq(int, (int)nas_front_new(ctx, 0, &front), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_front_new(ctx, NAS_OBJECTIVES_MAX + 1, &front), (int)NAS_ERR_RANGE));
    front = new_front(2);
    bool joined = true;
    cr_assert(eq(int, (int)nas_front_add(ctx, front, 5, (double[]){1, NAN}, &joined),
                 (int)NAS_ERR_RANGE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "value 1 of trial 5"), NULL));
    cr_assert(eq(int, (int)nas_front_add(ctx, front, 5, (double[]){-INFINITY, 1}, &joined),
                 (int)NAS_ERR_RANGE));
    cr_assert(eq(sz, nas_front_size(front), (size_t)0));
    nas_front_free(front);
}

Test(strategies_front, a_failed_allocation_leaves_the_front_as_it_was) {
    static const double reference[] = {20, 20, 20};
    nas_front *front = new_front(3);
    int failures = 0;
    for (int i = 0; i < 20; i++) {
        const double v[] = {i, 19 - i, i % 2};
        const double volume = nas_front_hypervolume(front, reference);
        const size_t size = nas_front_size(front);
        for (long n = 1;; n++) {
            bool joined = false;
            nas_mem_fail_after(n);
            const nas_status status = nas_front_add(ctx, front, i, v, &joined);
            nas_mem_fail_after(0);
            if (status == NAS_OK) break;
            failures++;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
            cr_assert(eq(sz, nas_front_size(front), size));
            cr_assert(eq(dbl, nas_front_hypervolume(front, reference), volume));
        }
    }
    cr_assert(failures > 2);
    nas_front_free(front);
}
