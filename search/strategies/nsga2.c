/* nsga2.c - NSGA-II (Deb, Pratap, Agarwal & Meyarivan, IEEE Trans. Evol. Comp. 6(2), 2002): parents and children
 * together are ranked, the best `population` survive. */
#include "search/strategies/strategies_internal.h"

static int32_t batch_size(const nas_strategy *s) {
    return s->options.population;
}

/* Binary tournament by the crowded comparison. */
static const nas_point *parent(nas_strategy *s) {
    const int32_t a = (int32_t)nas_rng_below(&s->rng, (uint32_t)s->n_members);
    const int32_t b = (int32_t)nas_rng_below(&s->rng, (uint32_t)s->n_members);
    return &s->members[nas__ranked_before(&s->ranking, b, a) ? b : a].point;
}

static void propose(nas_strategy *s, nas_point *out) {
    /* Few survivors breed a narrow generation: what is missing to half a population is sampled. */
    const int32_t newcomers = s->options.population / 2 - s->n_members;
    if (s->n_members < 2 || (int32_t)s->n_batch < newcomers) {
        nas_space_sample(s->space, &s->rng, out);
        return;
    }
    nas_point child = *parent(s);
    if (nas_rng_uniform(&s->rng) < s->options.crossover_rate) {
        nas_space_crossover(s->space, &child, parent(s), &s->rng, &child);
    }
    nas_space_mutate(s->space, &child, s->options.mutation_rate, &s->rng, out);
}

/* Is member a kept rather than b? Equal rank and crowding: the older trial. */
static bool kept_before(const nas_strategy *s, int32_t a, int32_t b) {
    if (nas__ranked_before(&s->ranking, a, b)) return true;
    if (nas__ranked_before(&s->ranking, b, a)) return false;
    return s->members[a].trial < s->members[b].trial;
}

static void advance(nas_strategy *s) {
    nas__completed_join(s);
    nas__members_rank(s);
    const int32_t all = s->n_members;
    int32_t kept = 0;
    for (int32_t i = 0; i < all; i++) {
        int32_t better = 0;
        for (int32_t j = 0; j < all; j++)
            better += kept_before(s, j, i);
        s->ranking.order[i] = better < s->options.population; /* order is scratch after ranking */
    }
    for (int32_t i = 0; i < all; i++) {
        if (s->ranking.order[i] != 0) s->members[kept++] = s->members[i];
    }
    s->n_members = kept;
    /* Paper: parents keep the crowding they had among parents and children. We rank the survivors anew, so that the
     * state to save is the members alone. */
    nas__members_rank(s);
}

const nas__strategy_ops nas__nsga2_ops = {
    .name = "nsga2",
    .batch_size = batch_size,
    .propose = propose,
    .advance = advance,
};
