/* test_transfer.c - an encoder that one search trained, at the beginning of another one. */
#include "search/strategies/policy_internal.h"
#include "tests/strategies/fixture.h"

#include <criterion/criterion.h>
#include <string.h>

TestSuite(strategies_transfer, .init = fixture_setup, .fini = fixture_teardown, .timeout = 300);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))
#define SAYS(text) cr_assert(strstr(nas_ctx_message(ctx), text) != NULL, "%s", nas_ctx_message(ctx))

enum { POPULATION = 8 };

static nas_strategy *agmc(uint64_t seed) {
    return fixture_strategy("agmc", space, POPULATION, 1, seed);
}

static void go_on(nas_strategy *s, int64_t first, int64_t end, nas_point *last) {
    for (int64_t trial = first; trial < end; trial++) {
        OK(nas_strategy_ask(ctx, s, last));
        nas_told told = fixture_result(last, trial, 2, 0, false);
        told.n_values = 1;
        OK(nas_strategy_tell(ctx, s, &told));
    }
}

static void encoder_of(nas_strategy *s, nas_buf *out) {
    OK(nas_strategy_encoder_write(ctx, s, out));
}

Test(strategies_transfer, a_search_begins_with_what_another_one_learnt) {
    nas_strategy *first = agmc(1), *second = agmc(2), *fresh = agmc(2);
    nas_buf learnt = {0}, taken = {0}, drawn = {0};
    nas_point p;
    go_on(first, 0, 3 * POPULATION, &p);
    encoder_of(first, &learnt);
    encoder_of(fresh, &drawn);
    OK(nas_strategy_encoder_read(ctx, second, learnt.data));
    encoder_of(second, &taken);
    cr_assert(strcmp(taken.data, learnt.data) == 0);
    cr_assert(strcmp(taken.data, drawn.data) != 0);
    nas_point with, without;
    go_on(second, 0, 3 * POPULATION, &with);
    go_on(fresh, 0, 3 * POPULATION, &without);
    cr_assert(!nas_point_equal(&with, &without), "the encoder changes what is proposed");
    nas_buf_deinit(&learnt);
    nas_buf_deinit(&taken);
    nas_buf_deinit(&drawn);
    nas_strategy_free(first);
    nas_strategy_free(second);
    nas_strategy_free(fresh);
}

Test(strategies_transfer, a_saved_search_goes_on_with_its_encoder_and_no_other) {
    nas_strategy *first = agmc(1), *whole = agmc(2), *again = agmc(2), *bare = agmc(2);
    nas_buf learnt = {0}, state = {0};
    nas_point a, b;
    go_on(first, 0, 2 * POPULATION, &a);
    encoder_of(first, &learnt);
    OK(nas_strategy_encoder_read(ctx, whole, learnt.data));
    OK(nas_strategy_encoder_read(ctx, again, learnt.data));
    go_on(whole, 0, 2 * POPULATION + 1, &a);
    OK(nas_strategy_save(ctx, whole, &state));
    cr_assert(nas_strategy_load(ctx, bare, state.data) == NAS_ERR_INVALID);
    SAYS("another encoder");
    OK(nas_strategy_load(ctx, again, state.data));
    go_on(whole, 2 * POPULATION + 1, 3 * POPULATION, &a);
    go_on(again, 2 * POPULATION + 1, 3 * POPULATION, &b);
    cr_assert(nas_point_equal(&a, &b));
    nas_buf_deinit(&learnt);
    nas_buf_deinit(&state);
    nas_strategy_free(first);
    nas_strategy_free(whole);
    nas_strategy_free(again);
    nas_strategy_free(bare);
}

Test(strategies_transfer, what_does_not_fit_is_refused) {
    static const struct {
        const char *text, *says;
        nas_status status;
    } cases[] = {{"hello", "nas-encoder", NAS_ERR_PARSE},
                 {"nas-encoder 2 4 5\n", "version 2", NAS_ERR_UNSUPPORTED},
                 {"nas-encoder 1 3 100\n", "another space", NAS_ERR_SHAPE}};
    nas_strategy *s = agmc(1), *ddpg = fixture_strategy("ddpg", space, POPULATION, 1, 1);
    nas_buf good = {0};
    nas_point p;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        cr_assert(nas_strategy_encoder_read(ctx, s, cases[i].text) == cases[i].status);
        SAYS(cases[i].says);
    }
    encoder_of(s, &good);
    good.data[good.len / 2] = '\0';
    cr_assert(nas_strategy_encoder_read(ctx, s, good.data) == NAS_ERR_PARSE);
    cr_assert(nas_strategy_encoder_write(ctx, ddpg, &good) == NAS_ERR_INVALID);
    SAYS("only agmc");
    go_on(s, 0, 1, &p);
    nas_buf whole = {0};
    encoder_of(s, &whole);
    cr_assert(nas_strategy_encoder_read(ctx, s, whole.data) == NAS_ERR_INVALID);
    SAYS("before the first");
    nas_buf_deinit(&good);
    nas_buf_deinit(&whole);
    nas_strategy_free(s);
    nas_strategy_free(ddpg);
}
