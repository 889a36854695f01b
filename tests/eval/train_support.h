/* train_support.h - small networks, and a plain double-precision reference of the forward pass. */
#ifndef NAS_TESTS_EVAL_TRAIN_SUPPORT_H
#define NAS_TESTS_EVAL_TRAIN_SUPPORT_H

#include "eval/eval.h"

/* A context that asserts it exists; messages stay inside it. */
nas_ctx *quiet_ctx(void);

/* Builders that fail the test when the graph refuses. */
nas_graph *net_new(nas_ctx *ctx, int32_t channels, int32_t side, nas_value *input);
nas_value net_conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, int32_t channels,
                   int32_t kernel);
nas_value net_relu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x);
nas_value net_prelu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x);
nas_value net_add(nas_ctx *ctx, nas_graph *g, const char *name, nas_value a, nas_value b);
nas_value net_scalar(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, float scalar);
/* net_finish - conv to channels*scale^2, pixel shuffle, output. */
void net_finish(nas_ctx *ctx, nas_graph *g, nas_value x, int32_t channels, int32_t scale);

typedef struct wdsr_shape {
    int32_t channels, expand, project, blocks, head, tail, skip, scale, side;
} wdsr_shape;
/* net_wdsr - y = shuffle(tail(body(head(x - .5))) + skip(x - .5)) + .5 */
nas_graph *net_wdsr(nas_ctx *ctx, const wdsr_shape *shape);

/* reference_forward - the graph in doubles on one planar image [c][h][w]; params[i] by param index. The caller frees
 * the result (nas_free), planar, of the output's channels and extents. */
double *reference_forward(nas_ctx *ctx, const nas_graph *g, double *const *params, const double *in,
                          int32_t h, int32_t w);

/* The graph's params from the store, as doubles; one block that params_free frees. */
double **params_of(nas_ctx *ctx, const nas_weights *weights, nas_graph *g);
void params_free(double **params, const nas_graph *g);

/* Uniform noise in [0,1). */
float *noise(nas_ctx *ctx, size_t n, nas_rng *rng);
uint64_t test_seed(void); /* SEED from the environment, else 1; printed */

#endif
