/* train.h - weights shared by a whole space, the trainer, the forward pass. Part of eval/eval.h.
 *
 * A weight store holds one tensor per param name, sized for the largest net. The params of a smaller graph are the
 * leading slices (of O and I) of the tensors of the same name; a smaller kernel is the centred window. Training a
 * graph trains those slices in place. Nothing here knows a search space.
 * Results do not depend on the number of threads: gradients are summed over fixed groups in fixed order. */
#ifndef NAS_EVAL_TRAIN_H
#define NAS_EVAL_TRAIN_H

#include "eval/data.h"
#include "ir/graph.h"

typedef struct nas_weights nas_weights;

/* nas_weights_new - one tensor per param of `largest`, initialised for training from `rng`, with Adam moments at 0.
 * He normal; the last convolution of a residual branch scaled by 1/sqrt(branches); biases 0, prelu slopes 0.25. Where
 * a convolution leads straight from the image to the final pixel shuffle it starts as bicubic interpolation and the
 * tail beside it near 0, so that the fresh net upscales like bicubic. */
nas_status nas_weights_new(nas_ctx *ctx, const nas_graph *largest, nas_rng *rng, nas_weights **out);
/* nas_weights_inherit - a new, dense store for `graph` alone, filled from `from`'s slices; fresh Adam state. */
nas_status nas_weights_inherit(nas_ctx *ctx, const nas_weights *from, const nas_graph *graph,
                               nas_weights **out);
void nas_weights_free(nas_weights *weights);
/* nas_weights_fill - allocates and fills the params of `graph` from the store. NOTFOUND / SHAPE name the param. */
nas_status nas_weights_fill(nas_ctx *ctx, const nas_weights *weights, nas_graph *graph);
/* Checkpoint file, little-endian, written atomically:
 *   8 bytes "NASWGHT\n"; u32 version 1; u32 tensors; u64 optimiser steps;
 *   a tensor: u32 name length, name; i32 rank, i32 dims[4] (unused ones 1); f32 values, f32 first moments, f32 second
 *   moments, u32 steps of each element (counts = product of dims, [O,KH,KW,I] order);
 *   32 bytes SHA-256 of everything before.
 * load: PARSE when damaged, SHAPE when it belongs to another network, UNSUPPORTED for another version; the store is
 * unchanged then. */
nas_status nas_weights_save(nas_ctx *ctx, const nas_weights *weights, const char *path);
nas_status nas_weights_load(nas_ctx *ctx, nas_weights *weights, const char *path);
uint64_t nas_weights_steps(const nas_weights *weights); /* optimiser steps taken */

typedef struct nas_train_options {
    int32_t batch; /* patches a step, e.g. 16 */
    int32_t patch; /* LR side in pixels, e.g. 48 */
    int32_t scale;
    double learning_rate;         /* of this step; schedules are the caller's */
    double beta1, beta2, epsilon; /* Adam (Kingma & Ba, arXiv:1412.6980) */
    double gradient_clip;         /* global L2 norm, 0 = off */
    int32_t threads;              /* 1..64; a batch keeps at most 8 busy */
} nas_train_options;

nas_train_options nas_train_options_default(void);

/* Buffers and thread state for training graphs of one store; reused over steps. */
typedef struct nas_trainer nas_trainer;
nas_status nas_trainer_new(nas_ctx *ctx, nas_weights *weights, const nas_train_options *options,
                           nas_trainer **out);
void nas_trainer_free(nas_trainer *trainer);
void nas_trainer_set_learning_rate(nas_trainer *trainer, double learning_rate);
/* nas_trainer_accumulate - forward and backward of mean L1 loss over one batch, gradients are added up; graphs with
 * a 1-channel input get the luma of lr/hr. lr [batch][3][patch][patch], hr [batch][3][patch*scale][patch*scale].
 * UNSUPPORTED names an operator it cannot train, INTERNAL: the loss is not finite (nothing was added). */
nas_status nas_trainer_accumulate(nas_ctx *ctx, nas_trainer *trainer, const nas_graph *graph,
                                  const float *lr, const float *hr, double *loss);
/* nas_trainer_apply - one Adam step with the sum of gradients since the last apply divided by their number; touches
 * only elements that got gradients, each with the bias correction of its own number of steps. INTERNAL when a
 * gradient is not finite: the weights are unchanged and the gradients dropped. INVALID when there are none. */
nas_status nas_trainer_apply(nas_ctx *ctx, nas_trainer *trainer);
/* nas_trainer_gradient - the accumulated gradient of one param (store's layout), for tests. NULL when unknown. */
const float *nas_trainer_gradient(const nas_trainer *trainer, const char *param_name,
                                  size_t *count);
/* nas_trainer_flops - done so far: forward and both backwards, 2 per MAC, recomputed parts not counted. */
uint64_t nas_trainer_flops(const nas_trainer *trainer);

/* nas_forward - the trainer's forward on a whole image: in [C][H][W] of any extents, out likewise; graph with
 * weights. *out is made here and freed by the caller (nas_image_deinit). This is the reference that emitted code is
 * checked against; its bits do not depend on the number of threads (1..64). */
nas_status nas_forward(nas_ctx *ctx, const nas_graph *graph, const nas_image *in, nas_image *out,
                       int32_t threads);

/* An nas_upscale_fn over nas_forward: arg points to one of these. Luma graphs upscale Y and take chroma from bicubic. */
typedef struct nas_upscale_graph {
    const nas_graph *graph; /* with weights */
    int32_t threads;
} nas_upscale_graph;
nas_status nas_upscale_by_graph(nas_ctx *ctx, void *arg, const nas_image *lr, nas_image *sr_out);

#endif
