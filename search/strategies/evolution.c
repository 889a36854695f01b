/* evolution.c - regularized evolution (Real et al., arXiv:1802.01548): the best of a random sample of the population is
 * mutated, and members leave by age, not by merit. */
#include "search/strategies/strategies_internal.h"

#include <string.h>

/* Paper: one child at a time. We breed small batches, so that proposals do not depend on the order in which parallel
 * results arrive. */
static int32_t batch_size(const nas_strategy *s) {
    return s->batches == 0 ? s->options.population : s->options.population / 4;
}

static void propose(nas_strategy *s, nas_point *out) {
    if (s->n_members == 0) { /* the first batch, or nothing completed yet */
        nas_space_sample(s->space, &s->rng, out);
        return;
    }
    const uint32_t n = (uint32_t)s->n_members;
    int32_t winner = (int32_t)nas_rng_below(&s->rng, n);
    for (int32_t i = 1; i < s->options.tournament; i++) { /* with replacement, as in the paper */
        const int32_t rival = (int32_t)nas_rng_below(&s->rng, n);
        if (nas__ranked_before(&s->ranking, rival, winner)) winner = rival;
    }
    nas_space_mutate(s->space, &s->members[winner].point, s->options.mutation_rate, &s->rng, out);
}

static void advance(nas_strategy *s) {
    nas__completed_join(s);
    const int32_t excess = s->n_members - s->options.population;
    if (excess > 0) {
        s->n_members -= excess;
        memmove(&s->members[0], &s->members[excess], (size_t)s->n_members * sizeof s->members[0]);
    }
    nas__members_rank(s);
}

const nas__strategy_ops nas__evolution_ops = {
    .name = "evolution",
    .batch_size = batch_size,
    .propose = propose,
    .advance = advance,
};
