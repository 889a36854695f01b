/* test_state.c - saving and loading: the continuation is identical, and damaged text changes nothing. */
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(strategies_state, .init = fixture_setup, .fini = fixture_teardown);

enum { TRIALS = 120, OUT_MAX = 8 };

/* A study with several points out at a time, told in random order. `kills` of a thousand steps end the process: the
 * strategy is dropped and a fresh one loads what was saved. Writes the points asked. */
static void study(const char *name, uint64_t seed, uint32_t kills, int32_t trials,
                  nas_point *asked) {
    nas_rng order = nas_rng_stream(seed, 0, "order"), killer = nas_rng_stream(seed, 0, "killer");
    nas_strategy *s = fixture_strategy(name, space, 8, 2, seed);
    nas_point corner;
    nas_space_smallest(space, &corner);
    cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &corner), NAS_OK));
    nas_space_largest(space, &corner);
    cr_assert(eq(int, (int)nas_strategy_seed(ctx, s, &corner), NAS_OK));
    int32_t out[OUT_MAX], n_out = 0, n_asked = 0;
    while (n_asked < trials || n_out > 0) {
        const bool can_ask = n_asked < trials && n_out < OUT_MAX && nas_strategy_ready(s) > 0;
        if (can_ask && (n_out == 0 || nas_rng_below(&order, 2) == 0)) {
            cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &asked[n_asked]), NAS_OK), "%s",
                      nas_ctx_message(ctx));
            out[n_out++] = n_asked++;
        } else {
            const uint32_t at = nas_rng_below(&order, (uint32_t)n_out);
            const nas_told told = fixture_result(&asked[out[at]], out[at], 2, 20, true);
            cr_assert(eq(int, (int)nas_strategy_tell(ctx, s, &told), NAS_OK), "%s",
                      nas_ctx_message(ctx));
            out[at] = out[--n_out];
        }
        if (nas_rng_below(&killer, 1000) >= kills) continue;
        nas_buf state = {0}, again = {0};
        cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &state), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_strategy_free(s);
        s = fixture_strategy(name, space, 8, 2, 999); /* the state brings its own stream */
        cr_assert(eq(int, (int)nas_strategy_load(ctx, s, state.data), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &again), NAS_OK));
        cr_assert(eq(str, again.data, state.data));
        nas_buf_deinit(&state);
        nas_buf_deinit(&again);
    }
    nas_strategy_free(s);
}

Test(strategies_state, a_study_killed_at_random_continues_as_if_nothing_had_happened) {
    const uint64_t seed = fixture_seed(51);
    const char *const *name = nas_strategy_names();
    for (; *name != NULL; name++) {
        static nas_point whole[TRIALS], killed[TRIALS];
        const int32_t trials = fixture_trials(*name, TRIALS);
        const uint64_t rounds = trials < TRIALS ? 1 : 4;
        for (uint64_t round = 0; round < rounds; round++) {
            study(*name, seed + round, 0, trials, whole);
            study(*name, seed + round, 150, trials, killed);
            for (int i = 0; i < trials; i++) {
                cr_assert(nas_point_equal(&whole[i], &killed[i]), "%s, round %d, trial %d", *name,
                          (int)round, i);
            }
        }
    }
}

/* A strategy in the middle of a batch, with parents, seeds used up and one point out. */
static nas_strategy *busy_strategy(const char *name) {
    nas_strategy *s = fixture_strategy(name, space, 4, 2, 77);
    fixture_run(s, 11, 2, 20, NULL);
    nas_point p;
    cr_assert(eq(int, (int)nas_strategy_ask(ctx, s, &p), NAS_OK));
    return s;
}

static void assert_saves_as(const nas_strategy *s, const char *expected, const char *what) {
    nas_buf now = {0};
    cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &now), NAS_OK));
    cr_assert(eq(str, now.data, (char *)expected), "%s", what);
    nas_buf_deinit(&now);
}

Test(strategies_state, damaged_text_is_refused_and_changes_nothing) {
    nas_rng rng = nas_rng_stream(fixture_seed(52), 0, "damage");
    const char *const *name = nas_strategy_names();
    for (; *name != NULL; name++) {
        nas_strategy *s = busy_strategy(*name);
        nas_strategy *victim = fixture_strategy(*name, space, 4, 2, 78);
        nas_buf good = {0}, own = {0}, bad = {0};
        cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &good), NAS_OK));
        cr_assert(eq(int, (int)nas_strategy_save(ctx, victim, &own), NAS_OK));
        for (size_t len = 0; len < good.len; len++) { /* cut anywhere */
            nas_buf_clear(&bad);
            nas_buf_append(&bad, good.data, len);
            const nas_status status = nas_strategy_load(ctx, victim, bad.data);
            cr_assert(status == NAS_ERR_PARSE || status == NAS_ERR_INVALID ||
                          status == NAS_ERR_RANGE,
                      "%s, %zu bytes", *name, len);
            cr_assert(eq(int, strncmp(nas_ctx_message(ctx), "strategy state, line ", 21), 0), "%s",
                      nas_ctx_message(ctx));
        }
        assert_saves_as(victim, own.data, *name);
        int refused = 0;
        for (int round = 0; round < 1500; round++) {
            nas_buf_clear(&bad);
            nas_buf_append(&bad, good.data, good.len);
            bad.data[nas_rng_below(&rng, (uint32_t)bad.len)] = (char)nas_rng_below(&rng, 256);
            nas_strategy *other = fixture_strategy(*name, space, 4, 2, 79);
            if (nas_strategy_load(ctx, other, bad.data) != NAS_OK) {
                refused++;
            } else { /* another legal state: it must still work */
                nas_point p;
                const nas_status status = nas_strategy_ask(ctx, other, &p);
                cr_assert(status == NAS_OK || status == NAS_ERR_INVALID, "%s",
                          nas_ctx_message(ctx));
            }
            nas_strategy_free(other);
        }
        cr_assert(refused > 700, "%s: %d", *name, refused);
        nas_buf_deinit(&good);
        nas_buf_deinit(&own);
        nas_buf_deinit(&bad);
        nas_strategy_free(s);
        nas_strategy_free(victim);
    }
}

/* Loads `text` with the first `from` replaced by `to`; the load must fail with `status` and `message`. */
static void refuses(nas_strategy *s, const char *text, const char *from, const char *to,
                    nas_status status, const char *message) {
    nas_buf bad = {0};
    const char *at = strstr(text, from);
    cr_assert(ne(ptr, (void *)(uintptr_t)at, NULL), "'%s' is not in the state", from);
    nas_buf_append(&bad, text, (size_t)(at - text));
    nas_buf_puts(&bad, to);
    nas_buf_puts(&bad, at + strlen(from));
    cr_assert(eq(int, (int)nas_strategy_load(ctx, s, bad.data), (int)status), "'%s' -> '%s'", from,
              to);
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), message), NULL), "wanted '%s' in '%s'", message,
              nas_ctx_message(ctx));
    nas_buf_deinit(&bad);
}

Test(strategies_state, refusals_name_what_differs) {
    nas_strategy *s = busy_strategy("nsga2");
    nas_buf state = {0};
    cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &state), NAS_OK));
    const char *t = state.data;
    refuses(s, t, "nas-strategy 1 ", "nas-strategy 2 ", NAS_ERR_INVALID,
            "line 1: the state has format version '2'");
    refuses(s, t, " nsga2", " random", NAS_ERR_INVALID, "has name 'random', this strategy 'nsga2'");
    refuses(s, t, "space sr", "space xy", NAS_ERR_INVALID, "line 2: the state has space 'xy'");
    refuses(s, t, "options 4", "options 5", NAS_ERR_INVALID,
            "line 3: the state has population '5'");
    refuses(s, t, "rng ", "rng 0", NAS_ERR_PARSE, "line 4: rng: '0");
    refuses(s, t, "members 4", "members 5", NAS_ERR_RANGE, "line 7: members: 5 is outside 0..4");
    refuses(s, t, "members 4", "members -1", NAS_ERR_RANGE, "members: -1");
    refuses(s, t, "members 4", "members 99999999999999999999", NAS_ERR_RANGE, "members");
    refuses(s, t, "members 4", "people 4", NAS_ERR_PARSE, "expected 'members', found 'people'");
    refuses(s, t, "complete ", "finished ", NAS_ERR_PARSE, "a point is 'finished'");
    refuses(s, t, "asked sr", "complete 77 0x0p+0 0x1p+0 0x1p+0 sr", NAS_ERR_PARSE,
            "4 points of the batch are told");
    refuses(s, t, " 0x0p+0", " -0x1p+0", NAS_ERR_RANGE, "violation");
    refuses(s, t, " 0x0p+0", " nan", NAS_ERR_PARSE, "violation: 'nan' is not a number");
    refuses(s, t, " 0x0p+0", " inf", NAS_ERR_RANGE, "violation");
    refuses(s, t, "sr x2", "sr x3", NAS_ERR_INVALID, "point text: column 5: scale is x3");
    refuses(s, t, "seen 12", "seen 11", NAS_ERR_PARSE, "at the end of the line");
    refuses(s, t, "seen 12", "seen 13", NAS_ERR_PARSE, "hash is missing");
    refuses(s, t, "\nend\n", "\nend\nx\n", NAS_ERR_PARSE, "text after the end");
    assert_saves_as(s, t, "after refusals");
    nas_buf_deinit(&state);
    nas_strategy_free(s);
}

Test(strategies_state, a_state_does_not_load_into_another_space) {
    nas_space *small = fixture_small_space(false), *larger = fixture_small_space(true);
    nas_strategy *s = fixture_strategy("random", small, 4, 2, 1),
                 *t = fixture_strategy("random", larger, 4, 2, 1);
    nas_buf state = {0};
    cr_assert(eq(int, (int)nas_strategy_save(ctx, s, &state), NAS_OK));
    cr_assert(eq(int, (int)nas_strategy_load(ctx, t, state.data), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "space hash"), NULL));
    nas_buf_deinit(&state);
    nas_strategy_free(s);
    nas_strategy_free(t);
    nas_space_free(small);
    nas_space_free(larger);
}

Test(strategies_state, failed_allocations_leak_nothing_and_change_nothing) {
    const char *const *name = nas_strategy_names();
    for (; *name != NULL; name++) {
        nas_strategy *s = busy_strategy(*name), *t = fixture_strategy(*name, space, 4, 2, 1);
        nas_buf state = {0}, fresh = {0};
        cr_assert(eq(int, (int)nas_strategy_save(ctx, t, &fresh), NAS_OK));
        int failures = 0;
        for (long n = 1;; n++) {
            const long live = nas_mem_live();
            nas_mem_fail_after(n);
            const nas_status status = nas_strategy_save(ctx, s, &state);
            nas_mem_fail_after(0);
            if (status == NAS_OK) break;
            failures++;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
            nas_buf_deinit(&state);
            cr_assert(eq(long, nas_mem_live(), live), "%s: save, allocation %ld", *name, n);
        }
        for (long n = 1;; n++) {
            const long live = nas_mem_live();
            nas_mem_fail_after(n);
            const nas_status status = nas_strategy_load(ctx, t, state.data);
            nas_mem_fail_after(0);
            if (status == NAS_OK) break;
            failures++;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "%s", nas_ctx_message(ctx));
            cr_assert(eq(long, nas_mem_live(), live), "%s: load, allocation %ld", *name, n);
            assert_saves_as(t, fresh.data, *name);
        }
        cr_assert(failures > 8, "%s", *name);
        assert_saves_as(t, state.data, *name);
        nas_buf_deinit(&state);
        nas_buf_deinit(&fresh);
        nas_strategy_free(s);
        nas_strategy_free(t);
    }
}
