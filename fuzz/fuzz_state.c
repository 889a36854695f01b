/* fuzz_state.c - libFuzzer target of the strategy state reader: any text is refused with a message, or becomes a
 * strategy that saves the state it has, and still proposes. The first byte picks the strategy. */
#include "search/strategies/strategy.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void use(nas_ctx *ctx, nas_strategy *s) {
    nas_buf state = {0}, again = {0};
    require(nas_strategy_save(ctx, s, &state) == NAS_OK);
    require(nas_strategy_load(ctx, s, state.data) == NAS_OK);
    require(nas_strategy_save(ctx, s, &again) == NAS_OK);
    require(strcmp(state.data, again.data) == 0);
    nas_buf_deinit(&state);
    nas_buf_deinit(&again);
    nas_told told = {.n_values = 2, .values = {1, 2}};
    for (int i = 0; i < 8 && nas_strategy_ready(s) > 0; i++) {
        told.trial = INT64_MAX - i;
        if (nas_strategy_ask(ctx, s, &told.point) != NAS_OK) break; /* exhausted */
        (void)nas_strategy_tell(ctx, s, &told); /* refused when the state knew the trial number */
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size == 0) return 0;
    nas_ctx *ctx = nas_ctx_new();
    nas_sr_options of_space = nas_sr_options_default();
    of_space.blocks_max = 2; /* short texts: the fuzzer reaches the end of the format sooner */
    nas_strategy_options options = nas_strategy_options_default();
    options.population = 4;
    nas_space *space = NULL;
    nas_strategy *s = NULL;
    require(ctx != NULL && nas_space_sr_new(ctx, &of_space, &space) == NAS_OK);
    require(nas_strategy_new(ctx, nas_strategy_names()[data[0] % 3], space, &options, 1, &s) ==
            NAS_OK);
    char *text = nas_alloc_array(ctx, size, 1); /* exact size: reading past the NUL is seen */
    require(text != NULL);
    memcpy(text, data + 1, size - 1);
    if (nas_strategy_load(ctx, s, text) == NAS_OK) {
        use(ctx, s);
    } else {
        require(nas_ctx_message(ctx)[0] != '\0');
    }
    nas_free(text);
    nas_strategy_free(s);
    nas_space_free(space);
    nas_ctx_free(ctx);
    return 0;
}
