/* exec_internal.h - the plan of the executor: where values lie and what is done in which order. Internal to eval/.
 *
 * A value is kept for `chunk` images as [image][top + h + bottom][left + w + right][cs]: the border is as wide as the
 * widest padding of its readers and always zero, cs are the channels rounded up to whole vectors, and lanes past c are
 * zero. A RELU or CLIP that alone reads a convolution, addition or normalisation is computed by it. */
#ifndef NAS_EVAL_EXEC_INTERNAL_H
#define NAS_EVAL_EXEC_INTERNAL_H

#include "eval/exec.h"
#include "eval/exec_kernels.h"
#include "eval/exec_tiles.h"

typedef struct nas__exec_value {
    nas_value root; /* the value whose place it shares: itself unless it was fused */
    int32_t h, w, c, cs;
    int32_t top, left, bottom, right;
    ptrdiff_t row, image;  /* floats from row to row, image to image */
    ptrdiff_t origin;      /* of element (0,0,0) of the first image */
    int32_t slot;          /* its buffer */
    nas_value last_reader; /* node */
} nas__exec_value;

typedef struct nas__exec_step {
    nas_value node; /* what is computed, without the fused activation */
    nas_value out;  /* = node: values are found by their roots */
    float lo, hi;   /* fused activation */
    /* CONV */
    int32_t n_taps, group_in, group_out, vectors, pixels; /* pixels of one image */
    int32_t *taps, *in_at, *out_at;                       /* offsets for a whole chunk */
    size_t weights, bias;                                 /* in exec->packed */
    size_t group_weights;                                 /* floats of one group */
    /* CONV of an executor with `keep`: weights for the gradient of the input, [group][block of inputs][tap][output][lane]
     * where that is one convolution over the output's gradient (`back_taps`), else [group][tap][block][output][lane]. */
    size_t back_weights, back_group, zeros; /* zeros: biases */
    int32_t *back_taps;
    /* BATCH_NORM: in a worker's space, mean, variance, scale and shift of the chunk, each in whole vectors of channels */
    size_t statistics;
    nas__exec_tiles *tiles; /* CONV with groups 1 of an executor with bf16, else NULL */
} nas__exec_step;

/* Codes that a value is rounded to while a network of integers is trained: scale*(low..high), whole numbers, 0 among them. */
typedef struct nas__exec_grid {
    bool is_set;
    float scale, low, high;
    size_t at; /* of the gradient of the scale, behind those of the params */
} nas__exec_grid;

struct nas_exec {
    const nas_graph *graph;
    nas_exec_options options;
    const nas__exec_kernels *kernels;
    nas_arena *arena; /* all below */
    nas__exec_value *values;
    nas__exec_step *steps;
    int32_t n_steps;
    size_t *slot_at; /* floats from the start of a worker's space */
    int32_t n_slots;
    size_t space_floats;
    float *packed;
    size_t packed_floats;
    nas__bf16 *halves; /* weights for tiles */
    size_t n_halves;
    size_t strip_at; /* in a space: where tiles have their strip; its values */
    size_t strip_values;
    float **spaces;              /* one a worker, its own allocation */
    const nas__exec_grid *grids; /* NULL, or by the roots of values; borrowed */
    ptrdiff_t
        before_at;    /* with grids: from a value in a space to what it was before it was rounded */
    bool keep;        /* every value has a slot of its own: statistics and training */
    bool chunk_norms; /* BATCH_NORMs take mean and variance of the chunk instead of their own */
};

/* nas__exec_plan - like nas_exec_new; keep: no buffer is used twice. */
nas_status nas__exec_plan(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          bool keep, nas_exec **out);
/* nas__exec_use_grids - values are rounded as soon as they are computed; spaces become twice as large. Before the first run. */
nas_status nas__exec_use_grids(nas_ctx *ctx, nas_exec *exec, const nas__exec_grid *grids);
/* nas__exec_round - value v of n images to its grid, if it has one; a step does that with its result by itself. */
void nas__exec_round(const nas_exec *exec, nas_value v, float *space, int32_t n);
/* nas__exec_round_back - the gradient of the rounded value becomes that of the value before: unchanged within the grid, 0 beyond
 * its ends. Adds the gradient of the scale to *sum (LSQ, see eval/class_train.h). */
void nas__exec_round_back(const nas_exec *exec, nas_value v, const float *space, float *grads,
                          int32_t n, float *sum);
/* nas__exec_pack - weights of `from`, which has the nodes of the executor's graph, to packed [exec->packed_floats], zeroed. */
void nas__exec_pack(const nas_exec *exec, const nas_graph *from, float *packed);
const nas__exec_value *nas__exec_root(const nas_exec *exec, nas_value v);
/* nas__exec_at - element (0,0,0) of the first image of a value in a worker's space. */
float *nas__exec_at(const nas_exec *exec, float *space, nas_value v);
/* nas__exec_load - images [first, first + n) of the caller into the input value. */
void nas__exec_load(const nas_exec *exec, float *space, size_t first, int32_t n,
                    nas_exec_read_fn read, void *arg, float *scratch);
/* nas__exec_store - a value of one image, [h][w][c]. */
void nas__exec_store(const nas_exec *exec, float *space, nas_value v, int32_t image, float *hwc);
/* nas__exec_run_step - one step for n <= chunk images, when what it reads is there. */
void nas__exec_run_step(const nas_exec *exec, const nas__exec_step *step, float *space, int32_t n);
/* nas__exec_forward - all steps before node `stop` for n <= chunk images in a worker's space. */
void nas__exec_forward(const nas_exec *exec, float *space, int32_t n, nas_value stop);
/* nas__exec_backward - an executor with `keep`, after nas__exec_forward: `grads` has a space's layout and holds the gradient of
 * the value it starts from; gradients of params are added to gradient[param_at[i]...], in the layout of the params.
 * `scratch`: nas__exec_backward_floats. The first and the last step are given by their values. */
void nas__exec_backward(const nas_exec *exec, float *space, float *grads, int32_t n, nas_value from,
                        const size_t *param_at, float *gradient, float *scratch);
size_t nas__exec_backward_floats(const nas_exec *exec);
/* nas__exec_norm_run, nas__exec_norm_back - a BATCH_NORM and its fused activation with chunk_norms; back: the gradient through
 * mean and variance, too (Ioffe & Szegedy, arXiv:1502.03167). */
void nas__exec_norm_run(const nas_exec *exec, const nas__exec_step *step, float *space, int32_t n);
void nas__exec_norm_back(const nas_exec *exec, const nas__exec_step *step, float *space,
                         float *grads, int32_t n, const size_t *param_at, float *gradient);
/* nas__exec_trainable - NULL, or why no gradient goes through a node. */
const char *nas__exec_trainable(const nas_graph *g, const nas_node *node);
bool nas__exec_is_depthwise(const nas_graph *g, const nas_node *node);
/* nas__exec_tiles_plan - of a step whose taps and weights are planned; nas__exec_tiles_pack, nas__exec_tiles_conv - its weights,
 * and the step itself. */
nas_status nas__exec_tiles_plan(nas_ctx *ctx, nas_exec *exec, nas__exec_step *step);
void nas__exec_tiles_pack(const nas_exec *exec, const nas__exec_step *step);
void nas__exec_tiles_conv(const nas_exec *exec, const nas__exec_step *step, float *space,
                          int32_t n);
/* nas__exec_supported - NULL, or why a node cannot be run. */
const char *nas__exec_supported(const nas_graph *g, const nas_node *node);

static inline int32_t nas__exec_lanes_up(int32_t c) {
    return (c + NAS__EXEC_LANES - 1) / NAS__EXEC_LANES * NAS__EXEC_LANES;
}

#endif
