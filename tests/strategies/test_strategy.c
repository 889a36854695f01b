/* test_strategy.c - the conformance suite: what every strategy promises in strategy.h. */
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

TestSuite(strategies_strategy, .init = fixture_setup, .fini = fixture_teardown);

/* Loops `name` over all strategies. */
#define EACH_STRATEGY(name)                                                                        \
    const char *const *next = nas_strategy_names();                                                \
    for (const char *name = *next; name != NULL; name = *++next)

static nas_point ask(nas_strategy *s) {
    nas_point p = {0};
    cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK), "%s", nas_ctx_message(ctx));
    return p;
}

static void tell(nas_strategy *s, const nas_told *told) {
    cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, told), NAS_OK), "%s", nas_ctx_message(ctx));
}

Test(strategies_strategy, names_are_complete_and_unknown_ones_are_listed) {
    int n = 0;
    EACH_STRATEGY(name) {
        nas_strategy *s = fixture_strategy(name, space, 8, 2, 1);
        cr_assert(eq(str, (char *)nas_strategy_name(s), (char *)name));
        nas_strategy_free(s);
        n++;
    }
    cr_assert(eq(int, n, 6));
    const nas_strategy_options o = nas_strategy_options_default();
    nas_strategy *s = NULL;
    cr_assert(
        eq(int, (int)nas_strategy_new(ctx, "nsga3", space, &o, 1, &s), (int)NAS_ERR_NOTFOUND));
    cr_assert(eq(str, (char *)nas_ctx_message(ctx),
                 "no strategy 'nsga3': use one of random, evolution, nsga2, greedy, ddpg, agmc"));
    nas_strategy_free(NULL);
}

Test(strategies_strategy, bad_options_are_refused_by_name) {
    const nas_strategy_options good = nas_strategy_options_default();
    nas_strategy_options o[11];
    for (size_t i = 0; i < 11; i++)
        o[i] = good;
    o[0].population = 3;
    o[1].population = 4097;
    o[2].tournament = 1;
    o[3].tournament = good.population + 1;
    o[4].mutation_rate = 0;
    o[5].mutation_rate = NAN;
    o[6].mutation_rate = 1.5;
    o[7].crossover_rate = -0.1;
    o[8].crossover_rate = NAN;
    o[9].n_objectives = 0;
    o[10].n_objectives = NAS_OBJECTIVES_MAX + 1;
    static const char *const option[] = {"population",    "population",     "tournament",
                                         "tournament",    "mutation_rate",  "mutation_rate",
                                         "mutation_rate", "crossover_rate", "crossover_rate",
                                         "n_objectives",  "n_objectives"};
    for (size_t i = 0; i < 11; i++) {
        nas_strategy *s = NULL;
        cr_assert(
            eq(int, (int)nas_strategy_new(ctx, "nsga2", space, &o[i], 1, &s), (int)NAS_ERR_RANGE),
            "row %zu", i);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), option[i]), NULL), "%s",
                  nas_ctx_message(ctx));
    }
}

Test(strategies_strategy, equal_seeds_give_equal_proposals_and_others_differ) {
    EACH_STRATEGY(name) {
        nas_strategy *a = fixture_strategy(name, space, 8, 2, 5),
                     *b = fixture_strategy(name, space, 8, 2, 5);
        nas_strategy *c = fixture_strategy(name, space, 8, 2, 6);
        int equal_to_c = 0;
        for (int32_t trial = 0; trial < fixture_trials(name, 60); trial++) {
            const nas_point p = ask(a), q = ask(b), r = ask(c);
            cr_assert(nas_point_equal(&p, &q), "%s, trial %d", name, (int)trial);
            equal_to_c += nas_point_equal(&p, &r);
            const nas_told told = fixture_result(&p, trial, 2, 20, true),
                           other = fixture_result(&r, trial, 2, 20, true);
            tell(a, &told);
            tell(b, &told);
            tell(c, &other);
        }
        cr_assert(equal_to_c < 5, "%s", name);
        nas_strategy_free(a);
        nas_strategy_free(b);
        nas_strategy_free(c);
    }
}

Test(strategies_strategy, no_point_comes_twice_until_the_space_is_exhausted) {
    EACH_STRATEGY(name) {
        nas_space *small = fixture_small_space(false);
        const int size = (int)nas_space_size(small);
        cr_assert(eq(int, size, 16));
        nas_strategy *s = fixture_strategy(name, small, 4, 1, fixture_seed(2));
        nas_point found[16], p;
        for (int trial = 0; trial < size; trial++) {
            found[trial] = ask(s);
            for (int i = 0; i < trial; i++)
                cr_assert(not(nas_point_equal(&found[i], &found[trial])), "%s", name);
            const nas_told told = {
                .trial = trial, .point = found[trial], .n_values = 1, .values = {trial % 5}};
            tell(s, &told);
        }
        nas_buf before = {0}, after = {0};
        cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &before), NAS_OK));
        cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), (int)NAS_ERR_NOTFOUND), "%s", name);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "exhausted: 16 of its 16 points"), NULL));
        cr_assert(eq(i64, nas_strategy_asked(s), (int64_t)16));
        cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &after), NAS_OK));
        cr_assert(eq(str, after.data, before.data));
        nas_buf_deinit(&before);
        nas_buf_deinit(&after);
        nas_strategy_free(s);
        nas_space_free(small);
    }
}

Test(strategies_strategy, proposals_are_legal_whatever_is_told) {
    nas_rng rng = nas_rng_stream(fixture_seed(3), 0, "legal");
    EACH_STRATEGY(name) {
        nas_strategy *s = fixture_strategy(name, space, 6, 3, nas_rng_u64(&rng));
        for (int32_t trial = 0; trial < fixture_trials(name, 300); trial++) {
            const nas_point p = ask(s);
            cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), NAS_OK), "%s",
                      nas_ctx_message(ctx));
            nas_told told = {.trial = trial, .point = p, .n_values = 3};
            told.state = (nas_told_state)nas_rng_below(&rng, 3);
            for (int k = 0; k < 3; k++)
                told.values[k] = nas_rng_below(&rng, 3) == 0 ? 1e308 : nas_rng_normal(&rng);
            if (nas_rng_below(&rng, 2) == 0) told.violation = nas_rng_uniform(&rng);
            tell(s, &told);
        }
        nas_strategy_free(s);
    }
}

Test(strategies_strategy, seeds_come_first_in_order_and_once) {
    EACH_STRATEGY(name) {
        nas_strategy *s = fixture_strategy(name, space, 4, 2, 9);
        nas_rng rng = nas_rng_stream(4, 0, "seeds");
        nas_point seeds[6]; /* more than a batch */
        for (int i = 0; i < 6; i++)
            nas_space_sample(space, &rng, &seeds[i]);
        for (int i = 0; i < 6; i++) {
            cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &seeds[i]), NAS_OK));
            cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &seeds[0]), NAS_OK));
        }
        nas_point bad = seeds[0];
        bad.gene[0] = 99;
        cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &bad), (int)NAS_ERR_RANGE));
        for (int trial = 0; trial < 10; trial++) {
            const nas_point p = ask(s);
            for (int i = 0; i < 6; i++)
                cr_assert(eq(int, nas_point_equal(&p, &seeds[i]), i == trial), "%s", name);
            const nas_told told = fixture_result(&p, trial, 2, 0, false);
            tell(s, &told);
            nas_buf state = {0}; /* also across a restart */
            cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &state), NAS_OK));
            nas_strategy_free(s);
            s = fixture_strategy(name, space, 4, 2, 10);
            cr_assert(eq(int, (int)nas_strategy_load(ctx, s, state.data), NAS_OK), "%s",
                      nas_ctx_message(ctx));
            nas_buf_deinit(&state);
        }
        cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &seeds[0]), (int)NAS_ERR_INVALID));
        nas_strategy_free(s);
    }
}

Test(strategies_strategy, ready_is_the_rest_of_the_batch) {
    EACH_STRATEGY(name) {
        const bool batched = strcmp(name, "random") != 0;
        const int later = !batched ? INT32_MAX
                          : strcmp(name, "evolution") == 0 || strcmp(name, "greedy") == 0 ? 2
                          : strcmp(name, "nsga2") == 0                                    ? 8
                                                                                          : 1;
        nas_strategy *s = fixture_strategy(name, space, 8, 2, 3);
        nas_point batch[8], p;
        for (int i = 0; i < 8; i++) {
            cr_assert(eq(int, nas_strategy_ready(s), batched ? 8 - i : INT32_MAX), "%s", name);
            batch[i] = ask(s);
        }
        if (batched) {
            cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), (int)NAS_ERR_INVALID));
            cr_assert(ne(
                ptr,
                strstr(nas_ctx_message(ctx), "all 8 points of the batch are asked, 8 are not told"),
                NULL));
        }
        for (int i = 0; i < 8; i++) {
            cr_assert(eq(int, nas_strategy_ready(s), batched ? 0 : INT32_MAX), "%s", name);
            const nas_told told = fixture_result(&batch[i], i, 2, 0, false);
            tell(s, &told);
        }
        cr_assert(eq(int, nas_strategy_ready(s), later), "%s", name);
        nas_strategy_free(s);
    }
}

/* Asks a whole batch (8 without batches) into batch; returns its size. */
static int ask_batch(nas_strategy *s, nas_point *batch) {
    const int n = nas_strategy_ready(s) < 8 ? nas_strategy_ready(s) : 8;
    for (int i = 0; i < n; i++)
        batch[i] = ask(s);
    return n;
}

Test(strategies_strategy, the_order_of_telling_a_batch_does_not_matter) {
    nas_rng rng = nas_rng_stream(fixture_seed(8), 0, "order");
    EACH_STRATEGY(name) {
        nas_strategy *a = fixture_strategy(name, space, 8, 2, 12),
                     *b = fixture_strategy(name, space, 8, 2, 12);
        for (int trial = 0; trial < fixture_trials(name, 120);) {
            nas_point of_a[8], of_b[8];
            const int n = ask_batch(a, of_a);
            cr_assert(eq(int, ask_batch(b, of_b), n));
            int order[8];
            for (int i = 0; i < n; i++) {
                cr_assert(nas_point_equal(&of_a[i], &of_b[i]), "%s, trial %d", name, trial + i);
                order[i] = i;
            }
            for (int i = n - 1; i > 0; i--) {
                const int j = (int)nas_rng_below(&rng, (uint32_t)i + 1), kept = order[i];
                order[i] = order[j];
                order[j] = kept;
            }
            for (int i = 0; i < n; i++) {
                const nas_told forward = fixture_result(&of_a[i], trial + i, 2, 20, true);
                const nas_told shuffled =
                    fixture_result(&of_b[order[i]], trial + order[i], 2, 20, true);
                tell(a, &forward);
                tell(b, &shuffled);
            }
            trial += n;
        }
        nas_strategy_free(a);
        nas_strategy_free(b);
    }
}

Test(strategies_strategy, results_that_make_no_sense_are_refused) {
    EACH_STRATEGY(name) {
        nas_strategy *s = fixture_strategy(name, space, 4, 2, 3);
        const nas_point p = ask(s), q = ask(s);
        const nas_told good = fixture_result(&p, 7, 2, 0, false);
        nas_told bad[9];
        for (int i = 0; i < 9; i++)
            bad[i] = good;
        bad[0].n_values = 1;
        bad[1].values[1] = NAN;
        bad[2].values[0] = INFINITY;
        bad[3].violation = -0.5;
        bad[4].violation = NAN;
        bad[5].trial = -1;
        bad[6].point.gene[0] = bad[6].point.gene[0] == 0; /* never asked */
        bad[7].point.n = 0;
        bad[8].point.n = INT32_MAX;
        for (int i = 0; i < 9; i++) {
            const nas_status status = nas_strategy_tell(ctx, s, &bad[i]);
            cr_assert(status == NAS_ERR_INVALID || status == NAS_ERR_RANGE, "%s, row %d", name, i);
        }
        tell(s, &good);
        cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &good), (int)NAS_ERR_INVALID),
                  "%s: told twice", name);
        if (strcmp(name, "random") != 0) {
            const nas_told same_trial = fixture_result(&q, 7, 2, 0, false);
            cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &same_trial), (int)NAS_ERR_INVALID));
        }
        nas_told pruned = {
            .trial = 8, .point = q, .state = NAS_TOLD_PRUNED, .violation = NAN}; /* values unread */
        tell(s, &pruned);
        nas_strategy_free(s);
    }
}

Test(strategies_strategy, trials_that_all_fail_are_followed_by_fresh_points) {
    EACH_STRATEGY(name) {
        nas_strategy *s = fixture_strategy(name, space, 8, 2, 3);
        for (int trial = 0; trial < 40; trial++) {
            const nas_told told = {.trial = trial, .point = ask(s), .state = NAS_TOLD_FAILED};
            tell(s, &told);
        }
        cr_assert(eq(i64, nas_strategy_asked(s), (int64_t)40));
        nas_strategy_free(s);
    }
}

/* Runs a short study in which every step is first tried with each allocation failing; returns how many failed. */
static int run_with_faults(const char *name, bool faults, nas_point *asked) {
    int failures = 0;
    nas_strategy_options o = nas_strategy_options_default();
    o.population = 4;
    nas_strategy *s = NULL;
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK; n++) {
        const long live = nas_mem_live();
        nas_mem_fail_after(faults ? n : 0);
        status = nas_strategy_new(ctx, name, space, &o, 1, &s);
        nas_mem_fail_after(0);
        if (status != NAS_OK)
            cr_assert(eq(long, nas_mem_live(), live), "%s: new, allocation %ld", name, n);
        failures += status != NAS_OK;
    }
    for (int trial = 0; trial < 40; trial++) {
        status = NAS_ERR_NOMEM;
        for (long n = 1; status != NAS_OK; n++) {
            nas_mem_fail_after(faults ? n : 0);
            status = nas_strategy_ask(ctx, s, &asked[trial]);
            nas_mem_fail_after(0);
            cr_assert(status == NAS_OK || status == NAS_ERR_NOMEM, "%s", name);
            failures += status != NAS_OK;
        }
        const nas_told told = fixture_result(&asked[trial], trial, 2, 20, true);
        nas_mem_fail_after(faults ? 1 : 0);
        tell(s, &told);
        nas_mem_fail_after(0);
    }
    nas_strategy_free(s);
    return failures;
}

Test(strategies_strategy, failed_allocations_change_no_proposal) {
    EACH_STRATEGY(name) {
        nas_point clean[40], faulty[40];
        cr_assert(eq(int, run_with_faults(name, false, clean), 0));
        cr_assert(run_with_faults(name, true, faulty) > 3, "%s", name);
        for (int i = 0; i < 40; i++)
            cr_assert(nas_point_equal(&clean[i], &faulty[i]), "%s, trial %d", name, i);
    }
}
