/* policy.c - "ddpg" (AMC) and "agmc": an agent decides a point gene by gene and learns from what it was told.
 *
 * The first batch is samples of the space. Then sigma, the deviation of the noise around the agent's actions, shrinks
 * by 5 % an episode from 0.5 (He et al., arXiv:1802.03494), down to one that still moves an action now and then. */
#include "search/strategies/policy_internal.h"

#include <math.h>

static int32_t batch_size(const nas_strategy *s) {
    enum { LATER = 8 }; /* learn often, and yet keep a few devices busy */
    if (s->batches == 0) return s->options.population;
    return s->options.population < LATER ? 1 : s->options.population / LATER;
}

static void propose(nas_strategy *s, nas_point *out) {
    const double sigma_first = 0.5, decay = 0.95, sigma_least = 0.03;
    const int32_t learnt = s->n_members - s->options.population;
    if (s->batches == 0 || s->n_members == 0) {
        nas_space_sample(s->space, &s->rng, out);
        return;
    }
    nas__agent_learn(s->agent, s->members, s->n_members);
    const double sigma = sigma_first * pow(decay, learnt > 0 ? learnt : 0);
    nas__agent_act(s->agent, fmax(sigma, sigma_least), &s->rng, out);
}

static void advance(nas_strategy *s) {
    nas__completed_join(s); /* learnt when the next point is asked */
}

static nas_status start(nas_ctx *ctx, nas_strategy *s, bool graph) {
    if (s->agent != NULL) return NAS_OK;
    return nas__agent_new(ctx, s->space, graph, s->options.population, s->seed, &s->agent);
}

static nas_status start_ddpg(nas_ctx *ctx, nas_strategy *s) {
    return start(ctx, s, false);
}

static nas_status start_agmc(nas_ctx *ctx, nas_strategy *s) {
    return start(ctx, s, true);
}

static nas_status reserve(nas_ctx *ctx, nas_strategy *s, size_t members) {
    return nas__agent_reserve(ctx, s->agent, members);
}

const nas__strategy_ops nas__ddpg_ops = {
    .name = "ddpg",
    .batch_size = batch_size,
    .propose = propose,
    .advance = advance,
    .start = start_ddpg,
    .reserve = reserve,
};

const nas__strategy_ops nas__agmc_ops = {
    .name = "agmc",
    .batch_size = batch_size,
    .propose = propose,
    .advance = advance,
    .start = start_agmc,
    .reserve = reserve,
};
