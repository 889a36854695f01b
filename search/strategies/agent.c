/* agent.c - the actor-critic that decides a point gene by gene: DDPG as in AMC (He et al., arXiv:1802.03494).
 *
 * One episode is one point. With discount 1 and a reward that is known at the end alone, the return of every step is the
 * episode's reward; the critic is fitted to it, less a moving baseline: Q(s_t, a_t) -> R - b. The actor climbs Q.
 * What differs from the paper, and why:
 *   - Its public code copies the reward to every transition and bootstraps from target networks,
 *     y_t = R - b + Q'(s_(t+1), mu'(s_(t+1))). On an invented task of 52 steps and 160 episodes (means of 5 seeds) that
 *     found 0.394 where the return itself found 0.415 and random search 0.386, so there are no target networks here.
 *   - Rewards are standardised over the feasible episodes so far, because objectives come in any unit; an infeasible
 *     episode is worth less than the worst feasible one, by its violation.
 *   - An action is stored as realised, after rounding to a choice and the limits of the space.
 *   - 32 hidden units a layer, not 300: states have some twenty numbers and searches a few hundred episodes. With them
 *     the whole history is learnt again in seconds, so a saved state is the history alone.
 *   - A batch is whole episodes, drawn from all so far; an episode is worth at most 16 updates.
 *   - In "agmc" encoder and decoder follow the actor's gradient through the states; the critic's does not reach them. */
#include "search/strategies/policy_internal.h"

#include <math.h>
#include <string.h>

enum { HIDDEN = 32, EMBEDDING = 16, BATCH_TRANSITIONS = 64, UPDATES_MAX = 16, DYNAMIC = 3 };

static const double actor_rate = 1e-4, critic_rate = 1e-3, baseline_rate = 0.5;
/* Of one choice: with less noise the same point comes again and again, and samples of the space take its place. */
static const double noise_least = 0.3;

/* What a step of an episode adds to the description of its layer. */
typedef struct moment {
    double reduced, rest; /* before the action */
    double action;        /* realised, [0,1] */
} moment;

struct nas__agent {
    const nas_space *space;
    nas_space_steps *steps;
    bool graph;
    int32_t warmup, n_steps, state_size;
    uint64_t seed;
    nas__encoder encoder; /* graph only; its weights come first in `actor` */
    nas__mlp mu, q;
    nas__weights actor, critic;
    double baseline;
    bool baseline_is_set;
    int32_t learnt;
    moment *moments; /* [cap_moments][n_steps] */
    double *rewards; /* of the episodes, as they are seen now */
    size_t cap_moments, cap_rewards;
    /* scratch of one pass */
    nas__trace trace;
    double *states, *dstates, *dhidden; /* n_steps of them */
    double *input, *dinput;             /* of the critic: a state and an action */
    double *acts;                       /* of the actor */
};

static nas_status allocate(nas_ctx *ctx, nas__agent *a) {
    const size_t n = (size_t)(a->n_steps * a->state_size);
    a->states = nas_alloc_array(ctx, n, sizeof(double));
    a->dstates = nas_alloc_array(ctx, n, sizeof(double));
    a->input = nas_alloc_array(ctx, (size_t)a->state_size + 1, sizeof(double));
    a->dinput = nas_alloc_array(ctx, (size_t)a->state_size + 1, sizeof(double));
    a->acts = nas_alloc_array(ctx, 2 * HIDDEN, sizeof(double));
    a->dhidden = nas_alloc_array(ctx, (size_t)(a->n_steps * EMBEDDING), sizeof(double));
    const bool ok = a->states != NULL && a->dstates != NULL && a->input != NULL &&
                    a->dinput != NULL && a->acts != NULL && a->dhidden != NULL;
    return ok ? NAS_OK : NAS_ERR_NOMEM;
}

static void draw(nas__agent *a) {
    nas_rng rng = nas_rng_stream(a->seed, 0, "policy weights");
    if (a->graph) nas__graphcoder_draw(&a->encoder, &rng, a->actor.value);
    nas__mlp_draw(&a->mu, &rng, a->actor.value);
    nas__mlp_draw(&a->q, &rng, a->critic.value);
}

nas_status nas__agent_new(nas_ctx *ctx, const nas_space *space, bool graph, int32_t warmup,
                          uint64_t seed, nas__agent **out) {
    nas__agent *a = nas_alloc_array(ctx, 1, sizeof *a);
    if (a == NULL) return NAS_ERR_NOMEM;
    a->space = space;
    a->graph = graph;
    a->warmup = warmup;
    a->seed = seed;
    nas_status status = nas_space_steps_new(ctx, space, &a->steps);
    size_t at = 0;
    if (status == NAS_OK) {
        a->n_steps = a->steps->n_steps;
        a->state_size = graph ? EMBEDDING + DYNAMIC - 1 : a->steps->n_features + DYNAMIC;
        if (graph) status = nas__graphcoder_init(ctx, a->steps, EMBEDDING, 0, &a->encoder);
    }
    if (status == NAS_OK && graph) {
        at = nas__graphcoder_end(&a->encoder);
        status = nas__trace_init(ctx, &a->encoder, &a->trace);
    }
    if (status == NAS_OK) {
        a->mu = nas__mlp_at(at, a->state_size, HIDDEN);
        a->q = nas__mlp_at(0, a->state_size + 1, HIDDEN);
        status = nas__weights_init(ctx, nas__mlp_end(&a->mu), &a->actor);
    }
    if (status == NAS_OK) status = nas__weights_init(ctx, nas__mlp_end(&a->q), &a->critic);
    if (status == NAS_OK) status = allocate(ctx, a);
    if (status != NAS_OK) {
        nas__agent_free(a);
        return status;
    }
    draw(a);
    *out = a;
    return NAS_OK;
}

void nas__agent_free(nas__agent *a) {
    if (a == NULL) return;
    nas_free(a->dhidden);
    nas_free(a->acts);
    nas_free(a->dinput);
    nas_free(a->input);
    nas_free(a->dstates);
    nas_free(a->states);
    nas_free(a->rewards);
    nas_free(a->moments);
    nas__weights_deinit(&a->critic);
    nas__weights_deinit(&a->actor);
    nas__trace_deinit(&a->trace);
    nas__graphcoder_deinit(&a->encoder);
    nas_space_steps_free(a->steps);
    nas_free(a);
}

size_t nas__agent_encoder_size(const nas__agent *a) {
    return a->graph ? nas__graphcoder_end(&a->encoder) : 0;
}

int32_t nas__agent_encoder_features(const nas__agent *a) {
    return a->graph ? a->encoder.n_features : 0;
}

const double *nas__agent_encoder(const nas__agent *a) {
    return a->actor.value;
}

void nas__agent_start_from(nas__agent *a, const double *weights) {
    memcpy(a->actor.value, weights, nas__agent_encoder_size(a) * sizeof *weights);
}

nas_status nas__agent_reserve(nas_ctx *ctx, nas__agent *a, size_t n) {
    nas_status status = nas_grow(ctx, &a->rewards, &a->cap_rewards, n, sizeof *a->rewards);
    if (status == NAS_OK)
        status =
            nas_grow(ctx, &a->moments, &a->cap_moments, n, (size_t)a->n_steps * sizeof *a->moments);
    return status;
}

/* ---- states ------------------------------------------------------------------------------------------------------ */

static double action_of(const nas__agent *a, int32_t step, int32_t choice) {
    const int32_t last = nas_space_gene(a->space, step)->cardinality - 1;
    return last > 0 ? (double)choice / last : 0;
}

/* The state of one step, after those before it; for the graph kind this advances the trace. */
static void state_of(nas__agent *a, const double *actor, int32_t step, double reduced, double rest,
                     double before, double *state) {
    if (a->graph) {
        if (step == 0) nas__graphcoder_begin(&a->encoder, actor, &a->trace);
        nas__graphcoder_step(&a->encoder, actor, step, before, &a->trace);
        memcpy(state, a->trace.hidden + (ptrdiff_t)step * EMBEDDING, EMBEDDING * sizeof(double));
        state += EMBEDDING;
    } else {
        const float *f = a->steps->features + (ptrdiff_t)step * a->steps->n_features;
        for (int32_t i = 0; i < a->steps->n_features; i++)
            *state++ = (double)f[i];
        state[2] = before;
    }
    state[0] = reduced;
    state[1] = rest;
}

static void states_of(nas__agent *a, const double *actor, const moment *m, double *states) {
    for (int32_t t = 0; t < a->n_steps; t++) {
        state_of(a, actor, t, m[t].reduced, m[t].rest, t > 0 ? m[t - 1].action : 0,
                 states + (ptrdiff_t)t * a->state_size);
    }
}

static double sigmoid(double x) {
    return 1 / (1 + exp(-x));
}

static double policy(nas__agent *a, const double *actor, const double *state) {
    return sigmoid(nas__mlp_forward(&a->mu, actor, state, a->acts));
}

/* Q(s, a); a->input and acts [2 * HIDDEN] keep what backward needs. */
static double value_of(nas__agent *a, const double *critic, const double *state, double action,
                       double *acts) {
    memcpy(a->input, state, (size_t)a->state_size * sizeof *a->input);
    a->input[a->state_size] = action;
    return nas__mlp_forward(&a->q, critic, a->input, acts);
}

/* ---- acting ------------------------------------------------------------------------------------------------------ */

/* A normal around `mean`, drawn again until it falls into [0,1]. */
static double noisy(double mean, double sigma, nas_rng *rng) {
    enum { TRIES = 100 };
    if (sigma <= 0) return mean;
    for (int i = 0; i < TRIES; i++) {
        const double x = mean + sigma * nas_rng_normal(rng);
        if (x >= 0 && x <= 1) return x;
    }
    return mean;
}

static int32_t last_choice(const nas__agent *a, int32_t step) {
    return nas_space_gene(a->space, step)->cardinality - 1;
}

/* What the actor wants at one step, with noise. */
static double want(nas__agent *a, int32_t step, const nas_outlook *open, double before,
                   double sigma, nas_rng *rng) {
    const int32_t last = last_choice(a, step);
    state_of(a, a->actor.value, step, open->reduced, open->rest, before, a->states);
    const double least = last > 0 ? noise_least / last : 0;
    return noisy(policy(a, a->actor.value, a->states), sigma > 0 ? fmax(sigma, least) : 0, rng);
}

static int32_t nearest_choice(const nas__agent *a, int32_t step, double action) {
    const int32_t last = last_choice(a, step);
    return (int32_t)floor(fmin(action, 1) * last + 0.5);
}

/* AMC: every action is clipped to what keeps the budget in reach. */
static void act_clipped(nas__agent *a, double sigma, nas_rng *rng, nas_point *p) {
    double before = 0;
    for (int32_t t = 0; t < a->n_steps; t++) {
        nas_outlook open;
        nas_space_outlook(a->space, p, t, &open);
        int32_t choice = nearest_choice(a, t, want(a, t, &open, before, sigma, rng));
        if (choice > open.hi) choice = open.hi;
        if (choice < open.lo) choice = open.lo;
        p->gene[t] = choice;
        before = action_of(a, t, choice);
    }
}

/* All actions times one factor; whether that meets the budget. */
static bool scaled(const nas__agent *a, const double *wanted, double factor, nas_point *p) {
    bool fits = true;
    for (int32_t t = 0; t < a->n_steps && fits; t++) {
        nas_outlook open;
        nas_space_outlook(a->space, p, t, &open);
        p->gene[t] = nearest_choice(a, t, wanted[t] * factor);
        fits = p->gene[t] <= open.hi;
    }
    return fits;
}

/* AGMC: all actions first, then one factor for all of them, found by bisection, so that the budget is met and spent; its
 * public code corrects once, to first order, which does not guarantee the budget. */
static void act_bisected(nas__agent *a, double sigma, nas_rng *rng, nas_point *p) {
    enum { HALVINGS = 20 };
    double wanted[NAS_POINT_GENES_MAX], lo = 0, hi = 8;
    for (int32_t t = 0; t < a->n_steps; t++) {
        nas_outlook open;
        nas_space_outlook(a->space, p, t, &open);
        wanted[t] = want(a, t, &open, t > 0 ? wanted[t - 1] : 0, sigma, rng);
        p->gene[t] = nearest_choice(a, t, wanted[t]);
    }
    for (int k = 0; k < HALVINGS; k++) {
        const double middle = (lo + hi) / 2;
        if (scaled(a, wanted, middle, p)) {
            lo = middle;
        } else {
            hi = middle;
        }
    }
    (void)scaled(a, wanted, lo, p); /* it fits: known, or everything at its least */
}

void nas__agent_act(nas__agent *a, double sigma, nas_rng *rng, nas_point *out) {
    nas_point p = {.n = a->n_steps};
    if (a->graph && a->steps->spend) {
        act_bisected(a, sigma, rng, &p);
    } else {
        act_clipped(a, sigma, rng, &p);
    }
    *out = p;
}

/* ---- learning ---------------------------------------------------------------------------------------------------- */

static void remember(nas__agent *a, const nas_point *point, moment *m) {
    for (int32_t t = 0; t < a->n_steps; t++) {
        nas_outlook open;
        nas_space_outlook(a->space, point, t, &open);
        m[t] = (moment){
            .reduced = open.reduced, .rest = open.rest, .action = action_of(a, t, point->gene[t])};
    }
}

static void rate_episodes(nas__agent *a, const nas__member *members, int32_t n) {
    double sum = 0, squares = 0, worst = -INFINITY;
    int32_t feasible = 0;
    for (int32_t i = 0; i < n; i++) {
        if (members[i].violation > 0) continue;
        const double v = members[i].values[0];
        feasible++;
        sum += v;
        worst = fmax(worst, v);
    }
    const double mean = feasible > 0 ? sum / feasible : 0;
    for (int32_t i = 0; i < n; i++) {
        if (!(members[i].violation > 0)) squares += pow(members[i].values[0] - mean, 2);
    }
    const double deviation = feasible > 1 && squares > 0 ? sqrt(squares / feasible) : 1;
    const double floor_reward = feasible > 0 ? (mean - worst) / deviation - 1 : 0;
    for (int32_t i = 0; i < n; i++) {
        const nas__member *m = &members[i];
        a->rewards[i] = m->violation > 0 ? floor_reward - fmin(m->violation, 1)
                                         : (mean - m->values[0]) / deviation;
    }
}

/* Adds the gradient of the critic's squared error over one episode. */
static void critic_episode(nas__agent *a, const moment *m, double reward, double share) {
    double scratch[2 * HIDDEN], acts[2 * HIDDEN];
    states_of(a, a->actor.value, m, a->states);
    for (int32_t t = 0; t < a->n_steps; t++) {
        const double *state = a->states + (ptrdiff_t)t * a->state_size;
        const double q = value_of(a, a->critic.value, state, m[t].action, acts);
        nas__mlp_backward(&a->q, a->critic.value, a->input, acts,
                          2 * share * (q - (reward - a->baseline)), a->critic.gradient, NULL,
                          scratch);
    }
}

/* Adds the gradient of - mean Q(s, mu(s)) over one episode. */
static void actor_episode(nas__agent *a, const moment *m, double share) {
    double scratch[2 * HIDDEN], acts[2 * HIDDEN];
    states_of(a, a->actor.value, m, a->states);
    memset(a->dstates, 0, (size_t)(a->n_steps * a->state_size) * sizeof *a->dstates);
    for (int32_t t = 0; t < a->n_steps; t++) {
        const double *state = a->states + (ptrdiff_t)t * a->state_size;
        const double action = policy(a, a->actor.value, state);
        (void)value_of(a, a->critic.value, state, action, acts);
        memset(a->dinput, 0, ((size_t)a->state_size + 1) * sizeof *a->dinput);
        nas__mlp_backward(&a->q, a->critic.value, a->input, acts, -share, NULL, a->dinput, scratch);
        const double d = a->dinput[a->state_size] * action * (1 - action);
        nas__mlp_backward(&a->mu, a->actor.value, state, a->acts, d, a->actor.gradient,
                          a->dstates + (ptrdiff_t)t * a->state_size, scratch);
    }
    if (!a->graph) return;
    for (int32_t t = 0; t < a->n_steps; t++) {
        memcpy(a->dhidden + (ptrdiff_t)t * EMBEDDING, a->dstates + (ptrdiff_t)t * a->state_size,
               EMBEDDING * sizeof(double));
    }
    nas__graphcoder_backward(&a->encoder, a->actor.value, &a->trace, a->dhidden, a->actor.gradient);
}

/* One update from some of the first n episodes. */
static void update(nas__agent *a, int32_t n, nas_rng *rng) {
    const int32_t wanted = (BATCH_TRANSITIONS + a->n_steps - 1) / a->n_steps;
    int32_t picked[BATCH_TRANSITIONS];
    double mean = 0;
    for (int32_t i = 0; i < wanted; i++) {
        picked[i] = (int32_t)nas_rng_below(rng, (uint32_t)n);
        mean += a->rewards[picked[i]] / wanted;
    }
    a->baseline = a->baseline_is_set ? a->baseline + baseline_rate * (mean - a->baseline) : mean;
    a->baseline_is_set = true;
    const double share = 1.0 / (wanted * a->n_steps);
    for (int32_t i = 0; i < wanted; i++)
        critic_episode(a, a->moments + (ptrdiff_t)picked[i] * a->n_steps, a->rewards[picked[i]],
                       share);
    nas__dense_adam(&a->critic, critic_rate);
    for (int32_t i = 0; i < wanted; i++)
        actor_episode(a, a->moments + (ptrdiff_t)picked[i] * a->n_steps, share);
    nas__dense_adam(&a->actor, actor_rate);
}

void nas__agent_learn(nas__agent *a, const nas__member *members, int32_t n) {
    const int32_t updates = a->n_steps < UPDATES_MAX ? a->n_steps : UPDATES_MAX;
    for (; a->learnt < n; a->learnt++) {
        const int32_t known = a->learnt + 1;
        remember(a, &members[a->learnt].point, a->moments + (ptrdiff_t)a->learnt * a->n_steps);
        if (known < a->warmup) continue;
        rate_episodes(a, members, known);
        nas_rng rng = nas_rng_stream(a->seed, (uint64_t)known, "policy batches");
        for (int32_t i = 0; i < updates; i++)
            update(a, known, &rng);
    }
}
