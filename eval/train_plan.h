/* train_plan.h - how one graph runs: a list of fused steps over row-planar tensors in one workspace.
 *
 * A plan is made for one graph and one input extent, either for training (every value is kept, gradients have
 * buffers) or for the forward pass alone (buffers are reused as soon as their last reader is done). It holds no
 * weights: they are packed into a separate block, so that threads share them. Internal to eval/. */
#ifndef NAS_EVAL_TRAIN_PLAN_H
#define NAS_EVAL_TRAIN_PLAN_H

#include "eval/train_kernels.h"
#include "ir/graph.h"

enum {
    NAS__HIDDEN_CHUNK = 24
}; /* hidden channels of a fused pair computed at a time; a multiple of NAS__BLOCK */

typedef struct nas__layer {
    int32_t weight, bias; /* param indices, bias -1 when absent */
    int32_t inputs, outputs, kernel_h, kernel_w;
    size_t forward_at, backward_at, bias_at; /* floats into the packed block */
} nas__layer;

/* Element (0,0,0) lies `at` floats into the workspace; row stride c*pitch, channel stride pitch. */
typedef struct nas__tensor {
    int32_t c, h, w, pitch;
    size_t at;
    bool is_free; /* while planning */
} nas__tensor;

typedef enum nas__step_kind {
    NAS__STEP_CONV, /* out = conv(in) (+ other) (then ReLU) */
    NAS__STEP_PAIR, /* out = second(relu(first(in))) (+ other), both 1x1 */
    NAS__STEP_RELU,
    NAS__STEP_PRELU,
    NAS__STEP_ADD,
    NAS__STEP_ADD_SCALAR,
    NAS__STEP_DEPTH_TO_SPACE
} nas__step_kind;

/* What backward does with the gradient of one operand. */
typedef enum nas__gradient_mode {
    NAS__GRADIENT_NONE,  /* not wanted */
    NAS__GRADIENT_MOVE,  /* the buffer of the output's gradient becomes the operand's */
    NAS__GRADIENT_WRITE, /* first contribution to a fresh buffer */
    NAS__GRADIENT_ADD    /* added to what is there */
} nas__gradient_mode;

typedef struct nas__step {
    nas__step_kind kind;
    int32_t in, other, out;                   /* tensors; other -1 when absent */
    int32_t in_value, other_value, out_value; /* graph values */
    int32_t first, second;                    /* layers; second for PAIR only */
    bool relu;                                /* CONV */
    float scalar;                             /* ADD_SCALAR */
    int32_t block;                            /* DEPTH_TO_SPACE */
    int32_t slope;                            /* PRELU: param index */
    int32_t grad_in, grad_other,
        grad_out; /* tensors, -1 when absent; grad_out -1: no gradient reaches this step */
    nas__gradient_mode in_mode, other_mode;
} nas__step;

typedef struct nas__plan {
    nas_arena *arena; /* owns the plan and all its arrays */
    int32_t n_steps, n_layers, n_tensors, n_params;
    nas__step *steps;
    nas__layer *layers;
    nas__tensor *tensors;
    size_t *param_at; /* offset of each graph param in a dense block of all of them */
    size_t dense_floats;
    size_t packed_floats;
    size_t space_floats, scratch_floats, lanes_floats;
    int32_t radius;                       /* zero rows above and below every tensor */
    int32_t input, output;                /* tensors */
    int32_t output_gradient;              /* tensor, training only */
    uint64_t macs_forward, macs_backward; /* of one image, without the recomputed part */
} nas__plan;

/* nas__plan_new - h, w: extents of the input image. UNSUPPORTED names an operator or attribute it cannot run. */
nas_status nas__plan_new(nas_ctx *ctx, const nas_graph *graph, int32_t h, int32_t w, bool training,
                         const nas__kernels *kernels, nas__plan **out);
void nas__plan_free(nas__plan *plan);
/* nas__plan_pack - params[i]: dense data of the graph's param i; packed: plan->packed_floats, 64-byte aligned. */
void nas__plan_pack(const nas__plan *plan, const float *const *params, bool training,
                    float *packed);

/* One thread's view of a running plan. space must be zeroed before its first use with a plan of another layout. */
typedef struct nas__run {
    const nas__plan *plan;
    const nas__kernels *kernels;
    const float *packed;
    const float *const *params;     /* PReLU slopes are read from here */
    float *space, *scratch, *lanes; /* 64-byte aligned */
    float *gradient;                /* dense, added to by backward */
} nas__run;

/* nas__pair_scratch - floats a fused pair needs beside its tensors, whose input is `in`. */
size_t nas__pair_scratch(const nas__tensor *in);

nas__view nas__tensor_view(const nas__run *run, int32_t tensor);
int32_t nas__step_rows(const nas__plan *plan,
                       const nas__step *step); /* rows forward may be split into */
void nas__step_forward(const nas__run *run, const nas__step *step, int32_t row_begin,
                       int32_t row_end);
void nas__step_backward(const nas__run *run, const nas__step *step);
/* The steps that train_exec.c leaves to train_simple.c: no weight matrices. */
void nas__simple_forward(const nas__run *run, const nas__step *step, int32_t row_begin,
                         int32_t row_end);
void nas__simple_backward(const nas__run *run, const nas__step *step);

#endif
