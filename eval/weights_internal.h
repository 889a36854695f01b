/* weights_internal.h - inside of the weight store, shared by weights*.c, adam.c and train.c. */
#ifndef NAS_EVAL_WEIGHTS_INTERNAL_H
#define NAS_EVAL_WEIGHTS_INTERNAL_H

#include "eval/train.h"

/* One tensor as [O,KH,KW,I]; a bias or slope is [O,1,1,1]. */
typedef struct nas__weight {
    char *name;
    int32_t rank;
    int32_t dims[4];
    size_t count;
    float *value, *mean, *variance; /* variance: second raw moment */
    uint32_t *steps; /* Adam steps each element has taken: slices are trained at different times */
} nas__weight;

struct nas_weights {
    size_t n;
    nas__weight *items;
    uint64_t steps;
};

/* The part of a stored tensor that a graph's param of that name is. */
typedef struct nas__slice {
    const nas__weight *weight;
    size_t index;      /* of weight in the store */
    int32_t dims[4];   /* of the param */
    int32_t top, left; /* where the smaller kernel's window begins */
} nas__slice;

nas_status nas__weights_slice(nas_ctx *ctx, const nas_weights *weights, const nas_param *param,
                              nas__slice *out);
/* store: an array in the tensor's own layout (values, moments, gradients); dense: the param's layout. */
void nas__slice_read(const nas__slice *slice, const float *store, float *dense);
void nas__slice_write(const nas__slice *slice, const float *dense, float *store);
/* nas__slice_add - store += dense, and marks the elements as touched. */
void nas__slice_add(const nas__slice *slice, const float *dense, float *store, uint8_t *touched);

/* nas__weights_alloc - a store of zeros with one tensor a param of graph. */
nas_status nas__weights_alloc(nas_ctx *ctx, const nas_graph *graph, nas_weights **out);
/* nas__weights_initialise - first values for training. */
nas_status nas__weights_initialise(nas_ctx *ctx, nas_weights *weights, const nas_graph *graph,
                                   nas_rng *rng);

/* nas__adam - one step for the touched elements of a tensor: gradient is multiplied by gradient_scale. */
void nas__adam(nas__weight *weight, const float *gradient, const uint8_t *touched,
               float gradient_scale, const nas_train_options *options);

#endif
