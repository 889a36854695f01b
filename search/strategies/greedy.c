/* greedy.c - hill climbing: small changes of the best point so far, the best of them is the next one to change. The
 * yardstick between random sampling and strategies that keep more than one point. */
#include "search/strategies/strategies_internal.h"

/* A population of samples to begin with; then small batches, so that a step is taken as soon as a few neighbours are known. */
static int32_t batch_size(const nas_strategy *s) {
    return s->batches == 0 ? s->options.population : s->options.population / 4;
}

static void propose(nas_strategy *s, nas_point *out) {
    if (s->n_members == 0) { /* nothing completed yet */
        nas_space_sample(s->space, &s->rng, out);
        return;
    }
    const int32_t genes = nas_space_gene_count(s->space);
    nas_space_mutate(s->space, &s->members[0].point, 1.0 / (genes > 0 ? genes : 1), &s->rng, out);
}

/* Less violation, then a better first objective; of equals the earlier one stays. */
static bool is_better(const nas__member *a, const nas__member *b) {
    if (a->violation < b->violation) return true;
    if (a->violation > b->violation) return false;
    return a->values[0] < b->values[0];
}

static void advance(nas_strategy *s) {
    nas__completed_join(s);
    int32_t best = 0;
    for (int32_t i = 1; i < s->n_members; i++) {
        if (is_better(&s->members[i], &s->members[best])) best = i;
    }
    if (s->n_members == 0) return;
    if (best != 0) s->members[0] = s->members[best];
    s->n_members = 1;
}

const nas__strategy_ops nas__greedy_ops = {
    .name = "greedy",
    .batch_size = batch_size,
    .propose = propose,
    .advance = advance,
};
