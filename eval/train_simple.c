/* train_simple.c - the steps without weight matrices: ReLU, PReLU, add, add scalar, pixel shuffle. */
#include "eval/train_plan.h"

static const nas__tensor *tensor_at(const nas__run *run, int32_t tensor) {
    return &run->plan->tensors[tensor];
}

static size_t row_span(const nas__tensor *t) {
    return (size_t)t->c * (size_t)t->pitch;
}

static void prelu_forward(const nas__run *run, const nas__step *s, int32_t begin, int32_t end) {
    const nas__view in = nas__tensor_view(run, s->in), out = nas__tensor_view(run, s->out);
    const nas__tensor *t = tensor_at(run, s->in);
    const float *slope = run->params[s->slope];
    for (int32_t y = begin; y < end; y++) {
        for (int32_t c = 0; c < t->c; c++) {
            run->kernels->prelu(in.at + y * in.row + c * in.channel, slope[c],
                                out.at + y * out.row + c * out.channel,
                                (size_t)t->pitch - NAS__PAD);
        }
    }
}

static void prelu_backward(const nas__run *run, const nas__step *s) {
    const nas__view in = nas__tensor_view(run, s->in), grad = nas__tensor_view(run, s->grad_out);
    const nas__view to = nas__tensor_view(run, s->grad_in < 0 ? s->grad_out : s->grad_in);
    const nas__tensor *t = tensor_at(run, s->in);
    const float *slope = run->params[s->slope];
    float *sums = run->gradient + run->plan->param_at[s->slope];
    for (int32_t y = 0; y < t->h; y++) {
        for (int32_t c = 0; c < t->c; c++) {
            sums[c] += run->kernels->prelu_back(
                in.at + y * in.row + c * in.channel, grad.at + y * grad.row + c * grad.channel,
                slope[c], to.at + y * to.row + c * to.channel, (size_t)t->pitch - NAS__PAD,
                s->in_mode == NAS__GRADIENT_ADD);
        }
    }
}

static void add_scalar_forward(const nas__run *run, const nas__step *s, int32_t begin,
                               int32_t end) {
    const nas__view in = nas__tensor_view(run, s->in), out = nas__tensor_view(run, s->out);
    const nas__tensor *t = tensor_at(run, s->in);
    for (int32_t y = begin; y < end; y++) {
        for (int32_t c = 0; c < t->c; c++) {
            const float *from = in.at + y * in.row + c * in.channel;
            float *to = out.at + y * out.row + c * out.channel;
            for (int32_t x = 0; x < t->w; x++)
                to[x] = from[x] + s->scalar;
        }
    }
}

/* One row of one output phase: columns j, j + r, ... of `wide` and the row `narrow`, n columns. */
static void spread(const float *narrow, float *wide, int32_t n, int32_t r) {
    for (int32_t x = 0; x < n; x++)
        wide[(ptrdiff_t)x * r] = narrow[x];
}

static void gather(const float *wide, float *narrow, int32_t n, int32_t r, bool accumulate) {
    for (int32_t x = 0; x < n; x++) {
        narrow[x] = accumulate ? narrow[x] + wide[(ptrdiff_t)x * r] : wide[(ptrdiff_t)x * r];
    }
}

static void shuffle_forward(const nas__run *run, const nas__step *s, int32_t begin, int32_t end) {
    const nas__view in = nas__tensor_view(run, s->in), out = nas__tensor_view(run, s->out);
    const nas__tensor *narrow = tensor_at(run, s->in), *wide = tensor_at(run, s->out);
    const int32_t r = s->block;
    for (int32_t y = begin; y < end; y++) {
        for (int32_t c = 0; c < wide->c * r; c++) { /* c: output channel and row phase */
            const float *from = in.at + y * in.row + (ptrdiff_t)c * r * in.channel;
            float *to = out.at + ((ptrdiff_t)y * r + c % r) * out.row + c / r * out.channel;
            if (r == 2 && narrow->w % run->kernels->lanes == 0) {
                run->kernels->zip(from, from + in.channel, to, narrow->w);
                continue;
            }
            for (int32_t j = 0; j < r; j++)
                spread(from + j * in.channel, to + j, narrow->w, r);
        }
    }
}

static void shuffle_backward(const nas__run *run, const nas__step *s) {
    const nas__view to = nas__tensor_view(run, s->grad_in),
                    grad = nas__tensor_view(run, s->grad_out);
    const nas__tensor *narrow = tensor_at(run, s->in), *wide = tensor_at(run, s->out);
    const int32_t r = s->block;
    const bool add = s->in_mode == NAS__GRADIENT_ADD;
    for (int32_t y = 0; y < narrow->h; y++) {
        for (int32_t c = 0; c < wide->c * r; c++) {
            float *into = to.at + y * to.row + (ptrdiff_t)c * r * to.channel;
            const float *from =
                grad.at + ((ptrdiff_t)y * r + c % r) * grad.row + c / r * grad.channel;
            if (r == 2 && !add && narrow->w % run->kernels->lanes == 0) {
                run->kernels->unzip(from, into, into + to.channel, narrow->w);
                continue;
            }
            for (int32_t j = 0; j < r; j++) {
                gather(from + j, into + j * to.channel, narrow->w, r, add);
            }
        }
    }
}

void nas__simple_forward(const nas__run *run, const nas__step *step, int32_t row_begin,
                         int32_t row_end) {
    const nas__view in = nas__tensor_view(run, step->in), out = nas__tensor_view(run, step->out);
    const float *from = in.at + row_begin * in.row;
    float *to = out.at + row_begin * out.row;
    const size_t floats = (size_t)(row_end - row_begin) * row_span(tensor_at(run, step->in));
    switch (step->kind) {
    case NAS__STEP_RELU: run->kernels->relu(from, to, floats); return;
    case NAS__STEP_ADD:
        run->kernels->add(from, nas__tensor_view(run, step->other).at + row_begin * in.row, to,
                          floats);
        return;
    case NAS__STEP_PRELU: prelu_forward(run, step, row_begin, row_end); return;
    case NAS__STEP_ADD_SCALAR: add_scalar_forward(run, step, row_begin, row_end); return;
    case NAS__STEP_DEPTH_TO_SPACE: shuffle_forward(run, step, row_begin, row_end); return;
    case NAS__STEP_CONV:
    case NAS__STEP_PAIR: return; /* train_exec.c */
    }
}

void nas__simple_backward(const nas__run *run, const nas__step *step) {
    const nas__tensor *t = tensor_at(run, step->grad_out);
    const size_t floats = (size_t)t->h * row_span(t);
    const float *grad = nas__tensor_view(run, step->grad_out).at;
    switch (step->kind) {
    case NAS__STEP_PRELU: prelu_backward(run, step); return;
    case NAS__STEP_DEPTH_TO_SPACE:
        if (step->in_mode != NAS__GRADIENT_NONE) shuffle_backward(run, step);
        return;
    case NAS__STEP_RELU:
        if (step->in_mode == NAS__GRADIENT_NONE) return;
        run->kernels->relu_back(nas__tensor_view(run, step->out).at, grad,
                                nas__tensor_view(run, step->grad_in).at, floats,
                                step->in_mode == NAS__GRADIENT_ADD);
        return;
    case NAS__STEP_ADD:
    case NAS__STEP_ADD_SCALAR:
        if (step->in_mode != NAS__GRADIENT_ADD) return; /* moved: the same buffer */
        run->kernels->add(nas__tensor_view(run, step->grad_in).at, grad,
                          nas__tensor_view(run, step->grad_in).at, floats);
        return;
    case NAS__STEP_CONV:
    case NAS__STEP_PAIR: return;
    }
}
