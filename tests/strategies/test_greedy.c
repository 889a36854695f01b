/* test_greedy.c - hill climbing stays with the best point. */
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>

TestSuite(strategies_greedy, .init = fixture_setup, .fini = fixture_teardown);

/* Genes in which two points differ. */
static int difference(const nas_point *a, const nas_point *b) {
    int n = 0;
    for (int32_t i = 0; i < a->n; i++)
        n += a->gene[i] != b->gene[i];
    return n;
}

Test(strategies_greedy, later_points_are_small_changes_of_the_best_so_far) {
    nas_strategy *s = fixture_strategy("greedy", space, 8, 1, 3);
    nas_point best = {0};
    double least = 1e300;
    double far = 0;
    int later = 0;
    for (int64_t trial = 0; trial < 40;) {
        nas_point batch[8];
        int n = 0;
        while (nas_strategy_ready(s) > 0 && n < 8)
            cr_assert(nas_strategy_ask(ctx, s, &batch[n++]) == NAS_OK);
        const nas_point before = best;
        for (int i = 0; i < n; i++, trial++) {
            const nas_told told = fixture_result(&batch[i], trial, 1, 1e9, false);
            if (trial >= 8) {
                far += difference(&before, &batch[i]);
                later++;
            }
            if (told.state == NAS_TOLD_COMPLETE && told.values[0] < least) {
                least = told.values[0];
                best = batch[i];
            }
            cr_assert(nas_strategy_tell(ctx, s, &told) == NAS_OK);
        }
    }
    cr_assert(later == 32);
    cr_assert(far / later < 6, "%g genes changed on average", far / later);
    nas_strategy_free(s);
}
