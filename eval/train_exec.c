/* train_exec.c - runs the steps of a plan, forward by rows and backward as a whole.
 *
 * A fused pair (1x1, ReLU, 1x1) never stores its hidden tensor: forward computes some hidden channels of a few rows
 * into a scratch and adds their share to the output; backward computes them again. */
#include "eval/train_plan.h"

#include <string.h>

enum {
    FORWARD_CHUNK =
        48, /* hidden channels at a time: with the tile below, scratch and operands stay in L1 */
    FORWARD_TILE = 96,   /* pixels */
    BACKWARD_TILE = 192, /* pixels; whole rows */
    TAPS_MAX = NAS__KERNEL_MAX * NAS__KERNEL_MAX
};

nas__view nas__tensor_view(const nas__run *run, int32_t tensor) {
    const nas__tensor *t = &run->plan->tensors[tensor];
    return (nas__view){
        .at = run->space + t->at, .row = (ptrdiff_t)t->c * t->pitch, .channel = t->pitch};
}

static nas__view rows_from(nas__view v, int32_t y) {
    v.at += y * v.row;
    return v;
}

int32_t nas__step_rows(const nas__plan *plan, const nas__step *step) {
    return plan->tensors[step->in].h;
}

/* Floats of the interior rows [begin, end), padding between rows included. */
static size_t span_of(const nas__tensor *t, int32_t begin, int32_t end) {
    return (size_t)(end - begin) * (size_t)t->c * (size_t)t->pitch;
}

static void fill_taps(const nas__layer *l, ptrdiff_t row, ptrdiff_t *taps) {
    for (int32_t y = 0; y < l->kernel_h; y++) {
        for (int32_t x = 0; x < l->kernel_w; x++) {
            *taps++ = (y - l->kernel_h / 2) * row + (x - l->kernel_w / 2);
        }
    }
}

static const float *bias_of(const nas__run *run, const nas__layer *l) {
    return l->bias < 0 ? NULL : run->packed + l->bias_at;
}

/* ---- convolution ------------------------------------------------------------------------------------------- */

static void conv_forward(const nas__run *run, const nas__step *s, int32_t begin, int32_t end) {
    const nas__layer *l = &run->plan->layers[s->first];
    const nas__view in = nas__tensor_view(run, s->in), out = nas__tensor_view(run, s->out);
    ptrdiff_t taps[TAPS_MAX];
    fill_taps(l, in.row, taps);
    const int32_t n_taps = l->kernel_h * l->kernel_w;
    nas__conv_job job = {.in = rows_from(in, begin),
                         .out = rows_from(out, begin),
                         .extra = rows_from(out, begin),
                         .weights = run->packed + l->forward_at,
                         .bias = bias_of(run, l),
                         .weight_block = (ptrdiff_t)n_taps * l->inputs * NAS__BLOCK,
                         .taps = taps,
                         .n_taps = n_taps,
                         .inputs = l->inputs,
                         .outputs = l->outputs,
                         .rows = end - begin,
                         .width = run->plan->tensors[s->in].w,
                         .finish = s->relu ? NAS__FINISH_RELU : NAS__FINISH_PLAIN,
                         .zero_tail = true};
    if (s->other >= 0) {
        job.extra = rows_from(nas__tensor_view(run, s->other), begin);
        job.finish = NAS__FINISH_ADD;
    }
    run->kernels->conv(&job);
}

static void conv_backward_weights(const nas__run *run, const nas__step *s) {
    const nas__layer *l = &run->plan->layers[s->first];
    const nas__tensor *t = &run->plan->tensors[s->in];
    const nas__kernels *k = run->kernels;
    const nas__view in = nas__tensor_view(run, s->in), grad = nas__tensor_view(run, s->grad_out);
    const int32_t n_taps = l->kernel_h * l->kernel_w;
    ptrdiff_t taps[TAPS_MAX];
    fill_taps(l, in.row, taps);
    const size_t floats = k->pairs_size(l->outputs, l->inputs, n_taps);
    const size_t bias_floats = (size_t)(l->outputs * k->lanes);
    memset(run->lanes, 0, (floats + bias_floats) * sizeof *run->lanes);
    const nas__pairs_job job = {.a = grad,
                                .b = in,
                                .n_a = l->outputs,
                                .n_b = l->inputs,
                                .taps = taps,
                                .n_taps = n_taps,
                                .rows = t->h,
                                .width = t->w,
                                .lanes = run->lanes};
    k->pairs(&job);
    k->pairs_reduce(run->lanes, l->outputs, l->inputs, n_taps, (ptrdiff_t)n_taps * l->inputs, 1,
                    l->inputs, run->gradient + run->plan->param_at[l->weight]);
    if (l->bias < 0) return;
    k->channel_lanes(grad, l->outputs, t->h, t->w, run->lanes + floats);
    k->lanes_sum(run->lanes + floats, l->outputs, run->gradient + run->plan->param_at[l->bias]);
}

static void conv_backward_data(const nas__run *run, const nas__step *s) {
    const nas__layer *l = &run->plan->layers[s->first];
    const nas__tensor *t = &run->plan->tensors[s->in];
    const nas__view grad = nas__tensor_view(run, s->grad_out);
    const nas__view out = nas__tensor_view(run, s->grad_in);
    ptrdiff_t taps[TAPS_MAX];
    fill_taps(l, grad.row, taps);
    const int32_t n_taps = l->kernel_h * l->kernel_w;
    const nas__conv_job job = {.in = grad,
                               .out = out,
                               .extra = out,
                               .weights = run->packed + l->backward_at,
                               .weight_block = (ptrdiff_t)n_taps * l->outputs * NAS__BLOCK,
                               .taps = taps,
                               .n_taps = n_taps,
                               .inputs = l->outputs,
                               .outputs = l->inputs,
                               .rows = t->h,
                               .width = t->w,
                               .finish = s->in_mode == NAS__GRADIENT_ADD ? NAS__FINISH_ADD
                                                                         : NAS__FINISH_PLAIN,
                               .zero_tail = true};
    run->kernels->conv(&job);
}

static void conv_backward(const nas__run *run, const nas__step *s) {
    if (s->relu) {
        const nas__tensor *t = &run->plan->tensors[s->out];
        float *grad = nas__tensor_view(run, s->grad_out).at;
        run->kernels->relu_back(nas__tensor_view(run, s->out).at, grad, grad, span_of(t, 0, t->h),
                                false);
    }
    conv_backward_weights(run, s);
    if (s->in_mode != NAS__GRADIENT_NONE) conv_backward_data(run, s);
}

/* ---- fused pair ------------------------------------------------------------------------------------------------ */

static const ptrdiff_t no_shift[1] = {0};

static int32_t row_floats(const nas__tensor *t) {
    return t->pitch - NAS__PAD;
}

static int32_t tile_rows(int32_t row, int32_t pixels) {
    return row >= pixels ? 1 : pixels / row;
}

size_t nas__pair_scratch(const nas__tensor *in) {
    const size_t row = (size_t)row_floats(in);
    const size_t backward = (size_t)tile_rows((int32_t)row, BACKWARD_TILE) * row;
    return (2 * NAS__HIDDEN_CHUNK + NAS__OVERREAD) * backward + FORWARD_CHUNK * FORWARD_TILE * 2;
}

/* Hidden channels [h, h + n) = relu(first(in)) of a tile. */
static void hidden_forward(const nas__run *run, const nas__layer *l, nas__view in, nas__view hidden,
                           int32_t h, int32_t n, int32_t rows, int32_t width) {
    const float *bias = bias_of(run, l);
    const nas__conv_job job = {.in = in,
                               .out = hidden,
                               .extra = hidden,
                               .weights = run->packed + l->forward_at + (ptrdiff_t)h * l->inputs,
                               .bias = bias == NULL ? NULL : bias + h,
                               .weight_block = (ptrdiff_t)l->inputs * NAS__BLOCK,
                               .taps = no_shift,
                               .n_taps = 1,
                               .inputs = l->inputs,
                               .outputs = n,
                               .rows = rows,
                               .width = width,
                               .finish = NAS__FINISH_RELU};
    run->kernels->conv(&job);
}

/* out (+)= second's share of hidden channels [h, h + n); the first share brings bias and the added operand. */
static void project_forward(const nas__run *run, const nas__step *s, nas__view hidden,
                            nas__view out, const nas__view *other, int32_t h, int32_t n,
                            int32_t rows, int32_t width) {
    const nas__layer *l = &run->plan->layers[s->second];
    nas__conv_job job = {.in = hidden,
                         .out = out,
                         .extra = out,
                         .weights = run->packed + l->forward_at + (ptrdiff_t)h * NAS__BLOCK,
                         .bias = h == 0 ? bias_of(run, l) : NULL,
                         .weight_block = (ptrdiff_t)l->inputs * NAS__BLOCK,
                         .taps = no_shift,
                         .n_taps = 1,
                         .inputs = n,
                         .outputs = l->outputs,
                         .rows = rows,
                         .width = width,
                         .finish = h == 0 ? NAS__FINISH_PLAIN : NAS__FINISH_ADD,
                         .zero_tail = true};
    if (h == 0 && other != NULL) {
        job.extra = *other;
        job.finish = NAS__FINISH_ADD;
    }
    run->kernels->conv(&job);
}

static void pair_tile_forward(const nas__run *run, const nas__step *s, int32_t y, int32_t x,
                              int32_t rows, int32_t width) {
    const nas__layer *first = &run->plan->layers[s->first];
    nas__view in = rows_from(nas__tensor_view(run, s->in), y);
    nas__view out = rows_from(nas__tensor_view(run, s->out), y), other = out;
    if (s->other >= 0) other = rows_from(nas__tensor_view(run, s->other), y);
    in.at += x;
    out.at += x;
    other.at += x;
    const int32_t row = (width + NAS__LANES_MAX - 1) / NAS__LANES_MAX * NAS__LANES_MAX;
    const nas__view hidden = {
        .at = run->scratch, .row = (ptrdiff_t)FORWARD_CHUNK * row, .channel = row};
    for (int32_t h = 0; h < first->outputs; h += FORWARD_CHUNK) {
        const int32_t n = first->outputs - h < FORWARD_CHUNK ? first->outputs - h : FORWARD_CHUNK;
        hidden_forward(run, first, in, hidden, h, n, rows, width);
        project_forward(run, s, hidden, out, s->other >= 0 ? &other : NULL, h, n, rows, width);
    }
}

static void pair_forward(const nas__run *run, const nas__step *s, int32_t begin, int32_t end) {
    const nas__tensor *t = &run->plan->tensors[s->in];
    const int32_t step = tile_rows(row_floats(t), FORWARD_TILE);
    for (int32_t y = begin; y < end; y += step) {
        const int32_t rows = end - y < step ? end - y : step;
        for (int32_t x = 0; x < t->w; x += FORWARD_TILE) {
            pair_tile_forward(run, s, y, x, rows,
                              t->w - x < FORWARD_TILE ? t->w - x : FORWARD_TILE);
        }
    }
}

/* One chunk of hidden channels in backward: its scratch and its per-lane sums. */
typedef struct pair_chunk {
    int32_t h, n;
    nas__view hidden, grad_hidden;
    float *sums_first, *sums_second, *sums_bias;
} pair_chunk;

/* grad_hidden = second^T(grad_out) where hidden > 0. */
static void hidden_backward(const nas__run *run, const nas__step *s, const pair_chunk *c,
                            nas__view grad_out, int32_t rows, int32_t width) {
    const nas__layer *l = &run->plan->layers[s->second];
    const nas__conv_job job = {.in = grad_out,
                               .out = c->grad_hidden,
                               .extra = c->hidden,
                               .weights =
                                   run->packed + l->backward_at + (ptrdiff_t)c->h * l->outputs,
                               .weight_block = (ptrdiff_t)l->outputs * NAS__BLOCK,
                               .taps = no_shift,
                               .n_taps = 1,
                               .inputs = l->outputs,
                               .outputs = c->n,
                               .rows = rows,
                               .width = width,
                               .finish = NAS__FINISH_GATE,
                               .zero_tail = true};
    run->kernels->conv(&job);
}

/* grad_in (+)= first^T(grad_hidden) of one chunk. */
static void input_backward(const nas__run *run, const nas__step *s, const pair_chunk *c,
                           nas__view grad_in, int32_t rows, int32_t width) {
    const nas__layer *l = &run->plan->layers[s->first];
    const bool fresh = c->h == 0 && s->in_mode == NAS__GRADIENT_WRITE;
    const nas__conv_job job = {.in = c->grad_hidden,
                               .out = grad_in,
                               .extra = grad_in,
                               .weights =
                                   run->packed + l->backward_at + (ptrdiff_t)c->h * NAS__BLOCK,
                               .weight_block = (ptrdiff_t)l->outputs * NAS__BLOCK,
                               .taps = no_shift,
                               .n_taps = 1,
                               .inputs = c->n,
                               .outputs = l->inputs,
                               .rows = rows,
                               .width = width,
                               .finish = fresh ? NAS__FINISH_PLAIN : NAS__FINISH_ADD,
                               .zero_tail = true};
    run->kernels->conv(&job);
}

static void pair_tile_backward(const nas__run *run, const nas__step *s, const pair_chunk *c,
                               int32_t y, int32_t rows, int32_t width) {
    const nas__layer *first = &run->plan->layers[s->first], *second = &run->plan->layers[s->second];
    const nas__kernels *k = run->kernels;
    const nas__view in = rows_from(nas__tensor_view(run, s->in), y);
    const nas__view grad_out = rows_from(nas__tensor_view(run, s->grad_out), y);
    hidden_forward(run, first, in, c->hidden, c->h, c->n, rows, width);
    hidden_backward(run, s, c, grad_out, rows, width);
    const nas__pairs_job to_second = {.a = grad_out,
                                      .b = c->hidden,
                                      .n_a = second->outputs,
                                      .n_b = c->n,
                                      .taps = no_shift,
                                      .n_taps = 1,
                                      .rows = rows,
                                      .width = width,
                                      .lanes = c->sums_second};
    k->pairs(&to_second);
    const nas__pairs_job to_first = {.a = c->grad_hidden,
                                     .b = in,
                                     .n_a = c->n,
                                     .n_b = first->inputs,
                                     .taps = no_shift,
                                     .n_taps = 1,
                                     .rows = rows,
                                     .width = width,
                                     .lanes = c->sums_first};
    k->pairs(&to_first);
    if (first->bias >= 0) k->channel_lanes(c->grad_hidden, c->n, rows, width, c->sums_bias);
    if (s->in_mode == NAS__GRADIENT_NONE) return;
    input_backward(run, s, c, rows_from(nas__tensor_view(run, s->grad_in), y), rows, width);
}

/* Adds the chunk's sums to the gradients of both layers' weights and of the first bias. */
static void pair_chunk_reduce(const nas__run *run, const nas__step *s, const pair_chunk *c) {
    const nas__layer *first = &run->plan->layers[s->first], *second = &run->plan->layers[s->second];
    const nas__kernels *k = run->kernels;
    const size_t *at = run->plan->param_at;
    k->pairs_reduce(c->sums_second, second->outputs, c->n, 1, second->inputs, 1, 0,
                    run->gradient + at[second->weight] + c->h);
    k->pairs_reduce(c->sums_first, c->n, first->inputs, 1, first->inputs, 1, 0,
                    run->gradient + at[first->weight] + (ptrdiff_t)c->h * first->inputs);
    if (first->bias >= 0) {
        k->lanes_sum(c->sums_bias, c->n, run->gradient + at[first->bias] + c->h);
    }
}

static void pair_bias_backward(const nas__run *run, const nas__step *s) {
    const nas__layer *second = &run->plan->layers[s->second];
    if (second->bias < 0) return;
    const nas__tensor *t = &run->plan->tensors[s->in];
    memset(run->lanes, 0, (size_t)(second->outputs * run->kernels->lanes) * sizeof *run->lanes);
    run->kernels->channel_lanes(nas__tensor_view(run, s->grad_out), second->outputs, t->h, t->w,
                                run->lanes);
    run->kernels->lanes_sum(run->lanes, second->outputs,
                            run->gradient + run->plan->param_at[second->bias]);
}

static void pair_backward(const nas__run *run, const nas__step *s) {
    const nas__layer *first = &run->plan->layers[s->first], *second = &run->plan->layers[s->second];
    const nas__tensor *t = &run->plan->tensors[s->in];
    const int32_t row = row_floats(t), step = tile_rows(row, BACKWARD_TILE);
    const nas__kernels *k = run->kernels;
    pair_chunk c = {
        .hidden = {.at = run->scratch, .row = (ptrdiff_t)NAS__HIDDEN_CHUNK * row, .channel = row}};
    c.grad_hidden = c.hidden;
    c.grad_hidden.at += (ptrdiff_t)NAS__HIDDEN_CHUNK * row * step;
    const size_t first_floats = k->pairs_size(NAS__HIDDEN_CHUNK, first->inputs, 1);
    const size_t second_floats = k->pairs_size(second->outputs, NAS__HIDDEN_CHUNK, 1);
    const size_t floats = first_floats + second_floats + (size_t)(NAS__HIDDEN_CHUNK * k->lanes);
    c.sums_first = run->lanes;
    c.sums_second = run->lanes + first_floats;
    c.sums_bias = c.sums_second + second_floats;
    for (c.h = 0; c.h < first->outputs; c.h += NAS__HIDDEN_CHUNK) {
        c.n = first->outputs - c.h < NAS__HIDDEN_CHUNK ? first->outputs - c.h : NAS__HIDDEN_CHUNK;
        memset(run->lanes, 0, floats * sizeof *run->lanes);
        for (int32_t y = 0; y < t->h; y += step) {
            pair_tile_backward(run, s, &c, y, t->h - y < step ? t->h - y : step, t->w);
        }
        pair_chunk_reduce(run, s, &c);
    }
    pair_bias_backward(run, s);
}

/* ---- dispatch ---------------------------------------------------------------------------------------------------- */

void nas__step_forward(const nas__run *run, const nas__step *step, int32_t row_begin,
                       int32_t row_end) {
    switch (step->kind) {
    case NAS__STEP_CONV: conv_forward(run, step, row_begin, row_end); return;
    case NAS__STEP_PAIR: pair_forward(run, step, row_begin, row_end); return;
    case NAS__STEP_RELU:
    case NAS__STEP_PRELU:
    case NAS__STEP_ADD:
    case NAS__STEP_ADD_SCALAR:
    case NAS__STEP_DEPTH_TO_SPACE: nas__simple_forward(run, step, row_begin, row_end); return;
    }
}

/* The added operand of a fused step, after the step itself has read the output's gradient. */
static void other_backward(const nas__run *run, const nas__step *s) {
    if (s->other_mode != NAS__GRADIENT_ADD && s->other_mode != NAS__GRADIENT_WRITE) return;
    const nas__tensor *t = &run->plan->tensors[s->grad_out];
    const float *from = nas__tensor_view(run, s->grad_out).at;
    float *to = nas__tensor_view(run, s->grad_other).at;
    const size_t floats = span_of(t, 0, t->h);
    if (s->other_mode == NAS__GRADIENT_ADD) {
        run->kernels->add(to, from, to, floats);
    } else {
        memcpy(to, from, floats * sizeof *to);
    }
}

void nas__step_backward(const nas__run *run, const nas__step *step) {
    if (step->grad_out < 0) return;
    switch (step->kind) {
    case NAS__STEP_CONV: conv_backward(run, step); break;
    case NAS__STEP_PAIR: pair_backward(run, step); break;
    case NAS__STEP_RELU:
    case NAS__STEP_PRELU:
    case NAS__STEP_ADD:
    case NAS__STEP_ADD_SCALAR:
    case NAS__STEP_DEPTH_TO_SPACE: nas__simple_backward(run, step); break;
    }
    other_backward(run, step);
}
