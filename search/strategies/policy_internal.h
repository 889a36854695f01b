/* policy_internal.h - learnt policies: small dense nets with hand-written gradients, the graph encoder with its recurrent
 * decoder, and the actor-critic agent that "ddpg" and "agmc" share. Shared inside search/strategies/ only.
 *
 * Doubles throughout: the nets are tiny, and gradients can be held against finite differences. */
#ifndef NAS_SEARCH_STRATEGIES_POLICY_INTERNAL_H
#define NAS_SEARCH_STRATEGIES_POLICY_INTERNAL_H

#include "search/strategies/strategies_internal.h"

/* ---- dense.c ---- */

/* All parameters that one optimiser moves. */
typedef struct nas__weights {
    size_t n;
    double *value, *gradient;
    double *m, *v; /* Adam's moments */
    int64_t updates;
} nas__weights;

nas_status nas__weights_init(nas_ctx *ctx, size_t n, nas__weights *out);
void nas__weights_deinit(nas__weights *w);
/* nas__dense_adam - one step against the gradient, which becomes 0 (Kingma & Ba, arXiv:1412.6980). */
void nas__dense_adam(nas__weights *w, double rate);

/* y = W x + b: `out` rows of `in` weights from value[at], then `out` biases. */
typedef struct nas__affine {
    size_t at;
    int32_t in, out;
} nas__affine;

size_t nas__affine_end(const nas__affine *a); /* the first weight after it */
/* nas__affine_draw - uniform in +-1/sqrt(in). */
void nas__affine_draw(const nas__affine *a, nas_rng *rng, double *weights);
void nas__affine_forward(const nas__affine *a, const double *weights, const double *x, double *y);
/* nas__affine_backward - adds to `gradient` (may be NULL) and to dx (may be NULL). */
void nas__affine_backward(const nas__affine *a, const double *weights, const double *x,
                          const double *dy, double *gradient, double *dx);

/* in -> hidden -> hidden -> 1 with ReLU between. */
typedef struct nas__mlp {
    nas__affine layer[3];
} nas__mlp;

nas__mlp nas__mlp_at(size_t at, int32_t in, int32_t hidden);
size_t nas__mlp_end(const nas__mlp *net);
void nas__mlp_draw(const nas__mlp *net, nas_rng *rng, double *weights);
/* nas__mlp_forward - `acts` [2 * hidden] keeps what backward needs. */
double nas__mlp_forward(const nas__mlp *net, const double *weights, const double *x, double *acts);
/* nas__mlp_backward - d: derivative of the loss by the output; scratch [2 * hidden]; adds as affine_backward does. */
void nas__mlp_backward(const nas__mlp *net, const double *weights, const double *x,
                       const double *acts, double d, double *gradient, double *dx, double *scratch);

/* ---- encoder.c ---- */

/* AGMC's encoder and decoder (Yu, Mazaheri & Jannesari, arXiv:2011.12641), one state a step:
 *   H = ReLU(D^-1/2 (A+I) D^-1/2 X W1 + b),  g = mean of H over the nodes
 *   h_t, c_t = LSTM([H[node_of t]; g; a_(t-1)], h_(t-1), c_(t-1)),  state_t = h_t
 * Paper: the node features X are random and the decoder sees g alone; here X describes the nodes and each step sees the
 * embedding of the node that it shapes, because random features tell the nodes apart by noise only. */
typedef struct nas__encoder {
    int32_t n_nodes, n_features, width, n_steps;
    double *smoothed; /* D^-1/2 (A+I) D^-1/2 X, [n_nodes][n_features] */
    const int32_t *node_of;
    nas__affine gcn, gates; /* gates: input, forget, output, candidate */
} nas__encoder;

/* What one pass leaves for its backward pass; arrays of n_steps. */
typedef struct nas__trace {
    double *embedding, *mean; /* [n_nodes][width], [width] */
    double *input;            /* [3 width + 1] a step */
    double *gate;             /* [4 width] a step, after the nonlinearity */
    double *cell, *hidden;    /* [width] a step */
    double *scratch;          /* [n_nodes * width + 9 width + 1] */
} nas__trace;

nas_status nas__graphcoder_init(nas_ctx *ctx, const nas_space_steps *steps, int32_t width,
                                size_t at, nas__encoder *out);
void nas__graphcoder_deinit(nas__encoder *e);
size_t nas__graphcoder_end(const nas__encoder *e);
void nas__graphcoder_draw(const nas__encoder *e, nas_rng *rng, double *weights);
nas_status nas__trace_init(nas_ctx *ctx, const nas__encoder *e, nas__trace *out);
void nas__trace_deinit(nas__trace *t);
/* nas__graphcoder_begin - embeds the nodes; then _step for t = 0, 1, ... with the action before (0 at first). The state is
 * trace->hidden + t * width. */
void nas__graphcoder_begin(const nas__encoder *e, const double *weights, nas__trace *t);
void nas__graphcoder_step(const nas__encoder *e, const double *weights, int32_t step, double action,
                          nas__trace *t);
/* nas__graphcoder_backward - after all steps: dhidden [n_steps][width] is overwritten; adds to gradient. */
void nas__graphcoder_backward(const nas__encoder *e, const double *weights, nas__trace *t,
                              double *dhidden, double *gradient);

/* ---- agent.c ---- */

/* nas__agent_new - a policy over the steps of `space` (borrowed); `graph`: the encoder's states (agmc), else the features
 * of the steps (AMC). It learns from the `warmup`-th episode on. UNSUPPORTED when the space cannot be decided gene by
 * gene. */
nas_status nas__agent_new(nas_ctx *ctx, const nas_space *space, bool graph, int32_t warmup,
                          uint64_t seed, nas__agent **out);
void nas__agent_free(nas__agent *agent);
/* nas__agent_reserve - room for `n` episodes: learning up to there allocates nothing. */
nas_status nas__agent_reserve(nas_ctx *ctx, nas__agent *agent, size_t n);
/* nas__agent_act - a point by the policy; each action is drawn around it from a normal of deviation `sigma`, cut to what
 * is open (0: the policy itself). */
void nas__agent_act(nas__agent *agent, double sigma, nas_rng *rng, nas_point *out);
/* nas__agent_learn - members[0..n) are all episodes so far, in order; learns from those after the last call's. The
 * result depends on the members alone, not on how calls cut them. */
void nas__agent_learn(nas__agent *agent, const nas__member *members, int32_t n);
/* The encoder's weights, graph policies only; of the others the size is 0. start_from: before anything is learnt. */
size_t nas__agent_encoder_size(const nas__agent *agent);
int32_t nas__agent_encoder_features(const nas__agent *agent);
const double *nas__agent_encoder(const nas__agent *agent);
void nas__agent_start_from(nas__agent *agent, const double *weights);

/* ---- transfer.c ---- */

uint64_t nas__encoder_hash(const nas_strategy *s); /* 0: no encoder was handed over */
/* nas__encoder_share - `to` begins with the encoder that was handed to `from`. */
nas_status nas__encoder_share(nas_ctx *ctx, const nas_strategy *from, nas_strategy *to);

#endif
