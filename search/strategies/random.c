/* random.c - independent samples of the space: the yardstick of every other strategy. */
#include "search/strategies/strategies_internal.h"

static void propose(nas_strategy *s, nas_point *out) {
    nas_space_sample(s->space, &s->rng, out);
}

const nas__strategy_ops nas__random_ops = {.name = "random", .propose = propose};
