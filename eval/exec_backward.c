/* exec_backward.c - gradients of one chunk of images, step by step from the output back. A value's gradient lies where the
 * value does, in a space of its own; readers add to it. A convolution's input gradient is a convolution over the output's
 * gradient where image and result are of one size, otherwise one matrix product a tap from the output's places to the
 * input's, so that strides and borders need no kernel of their own. Normalisations are affine maps: their statistics are
 * constants here; with those of the chunk see exec_norms.c. */
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

const char *nas__exec_trainable(const nas_graph *g, const nas_node *node) {
    const char *problem = nas__exec_supported(g, node);
    if (problem != NULL) return problem;
    switch (node->op) {
    case NAS_OP_DIV:
    case NAS_OP_SOFTMAX:
    case NAS_OP_PRELU: return "no gradient of this operator here";
    case NAS_OP_UNARY:
        return node->unary == NAS_UNARY_ERF || node->unary == NAS_UNARY_GELU ||
                       node->unary == NAS_UNARY_SQRT
                   ? "no gradient of this function here"
                   : NULL;
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_ADD:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    return NULL;
}

/* A value and its gradient. */
typedef struct pair {
    const nas__exec_value *v;
    float *x, *d;
} pair;

typedef struct back {
    const nas_exec *e;
    const nas__exec_step *s;
    const nas_node *node;
    int32_t n;
    pair out, in[NAS_NODE_INPUTS_MAX];
    const size_t *param_at;
    float *gradient, *scratch;
    float *space, *grads;
} back;

static ptrdiff_t place(const pair *p, int32_t image, int32_t y, int32_t x) {
    return image * p->v->image + y * p->v->row + (ptrdiff_t)x * p->v->cs;
}

/* ---- convolution -------------------------------------------------------------------------------------------------- */

static size_t conv_floats(const nas__exec_step *s) {
    const size_t out = (size_t)s->vectors * NAS__EXEC_LANES;
    return (size_t)s->n_taps * (size_t)s->group_in * out + out + 64;
}

size_t nas__exec_backward_floats(const nas_exec *e) {
    size_t most = 64;
    for (int32_t i = 0; i < e->n_steps; i++) {
        const nas_op op = nas_graph_node(e->graph, e->steps[i].node)->op;
        const size_t floats = op == NAS_OP_CONV ? conv_floats(&e->steps[i]) : 0;
        if (floats > most) most = floats;
    }
    return most;
}

static void bias_gradient(const back *b, int32_t pixels, int32_t shift, int32_t width, float *sum) {
    memset(sum, 0, (size_t)width * sizeof *sum);
    for (int32_t p = 0; p < pixels; p++)
        b->e->kernels->add_scaled(b->out.d + b->s->out_at[p] + shift, 1, sum, (size_t)width);
}

/* dW[tap][i][o] = sum over pixels of x[p + tap][i] * dy[p][o], then added in the layout of the param. */
static void weight_gradient(const back *b, int32_t group, float *product) {
    const nas__exec_step *s = b->s;
    const int32_t width = s->vectors * NAS__EXEC_LANES;
    memset(product, 0, (size_t)s->n_taps * (size_t)s->group_in * (size_t)width * sizeof *product);
    for (int32_t t = 0; t < s->n_taps; t++) {
        const nas__exec_outer job = {.a = b->in[0].x + s->taps[t] + group * s->group_in,
                                     .b = b->out.d + group * s->group_out,
                                     .a_at = s->in_at,
                                     .b_at = s->out_at,
                                     .rows = s->pixels * b->n,
                                     .n_a = s->group_in,
                                     .vectors = s->vectors,
                                     .out =
                                         product + (size_t)t * (size_t)s->group_in * (size_t)width,
                                     .out_row = width};
        b->e->kernels->outer(&job);
    }
    const size_t filter = (size_t)s->n_taps * (size_t)s->group_in;
    float *to = b->gradient + b->param_at[b->node->params[0]] +
                (size_t)group * (size_t)s->group_out * filter;
    for (int32_t o = 0; o < s->group_out; o++) {
        for (size_t k = 0; k < filter; k++)
            *to++ += product[k * (size_t)width + (size_t)o];
    }
}

/* Products of single taps left garbage where the input's gradient has its border. */
static void clear_border(const back *b) {
    const nas__exec_value *v = b->out.v;
    const size_t pixel = (size_t)v->cs * sizeof(float);
    for (int32_t image = 0; image < b->n; image++) {
        float *first = b->out.d - v->origin + image * v->image;
        for (int32_t y = 0; y < v->top + v->h + v->bottom; y++) {
            float *row = first + y * v->row;
            const bool inside = y >= v->top && y < v->top + v->h;
            memset(row, 0, inside ? (size_t)v->left * pixel : (size_t)v->row * sizeof *row);
            if (inside) memset(row + (v->left + v->w) * v->cs, 0, (size_t)v->right * pixel);
        }
    }
}

static void input_gradient(const back *b, int32_t group) {
    static const int32_t here = 0;
    const nas__exec_step *s = b->s;
    const bool whole = s->back_taps != NULL;
    const float *weights = b->e->packed + s->back_weights + (size_t)group * s->back_group;
    for (int32_t t = 0; t < (whole ? 1 : s->n_taps); t++) {
        const nas__exec_conv job = {
            .in = b->out.d + group * s->group_out,
            .out = b->in[0].d + (whole ? 0 : s->taps[t]) + group * s->group_in,
            .in_at = s->out_at,
            .out_at = s->in_at,
            .pixels = s->pixels * b->n,
            .taps = whole ? s->back_taps : &here,
            .n_taps = whole ? s->n_taps : 1,
            .channels = s->group_out,
            .vectors = nas__exec_lanes_up(s->group_in) / NAS__EXEC_LANES,
            .weights = weights + (whole ? 0 : (size_t)t * (s->back_group / (size_t)s->n_taps)),
            .bias = b->e->packed + s->zeros,
            .lo = -INFINITY,
            .hi = INFINITY,
            .accumulate = true};
        b->e->kernels->conv(&job);
    }
}

static void depthwise_gradient(const back *b, float *product, float *sum) {
    const nas__exec_step *s = b->s;
    const size_t width = (size_t)s->vectors * NAS__EXEC_LANES;
    const float *packed = b->e->packed + s->weights;
    memset(product, 0, (size_t)s->n_taps * width * sizeof *product);
    for (int32_t p = 0; p < s->pixels * b->n; p++) {
        const float *dy = b->out.d + s->out_at[p];
        for (int32_t t = 0; t < s->n_taps; t++) {
            const ptrdiff_t at = s->in_at[p] + s->taps[t];
            b->e->kernels->multiply_add(dy, packed + (size_t)t * width, b->in[0].d + at, width);
            b->e->kernels->multiply_add(dy, b->in[0].x + at, product + (size_t)t * width, width);
        }
    }
    float *to = b->gradient + b->param_at[b->node->params[0]];
    for (int32_t c = 0; c < s->group_out; c++) {
        for (int32_t t = 0; t < s->n_taps; t++)
            *to++ += product[(size_t)t * width + (size_t)c];
    }
    if (!b->node->conv.has_bias) return;
    bias_gradient(b, s->pixels * b->n, 0, (int32_t)width, sum);
    for (int32_t c = 0; c < s->group_out; c++)
        b->gradient[b->param_at[b->node->params[1]] + (size_t)c] += sum[c];
}

static void back_conv(const back *b) {
    const nas__exec_step *s = b->s;
    const int32_t width = s->vectors * NAS__EXEC_LANES;
    float *sum = b->scratch, *product = sum + width;
    if (nas__exec_is_depthwise(b->e->graph, b->node)) {
        depthwise_gradient(b, product, sum);
        return;
    }
    const bool first = nas_graph_node(b->e->graph, b->node->inputs[0])->op == NAS_OP_INPUT;
    if (s->back_taps != NULL) clear_border(b);
    for (int32_t g = 0; g < b->node->conv.groups; g++) {
        weight_gradient(b, g, product);
        if (!first) input_gradient(b, g); /* nobody asks for the image's */
        if (!b->node->conv.has_bias) continue;
        bias_gradient(b, s->pixels * b->n, g * s->group_out, width, sum);
        float *to = b->gradient + b->param_at[b->node->params[1]] + g * s->group_out;
        for (int32_t o = 0; o < s->group_out; o++)
            to[o] += sum[o];
    }
}

/* ---- pixel by pixel ----------------------------------------------------------------------------------------------- */

static float slope_of(const nas_node *n, float x, float y) {
    switch (n->unary) {
    case NAS_UNARY_CLIP: return x > n->alpha && x < n->beta ? 1 : 0;
    case NAS_UNARY_LEAKY_RELU: return x > 0 ? 1 : n->alpha;
    case NAS_UNARY_SIGMOID: return y * (1 - y);
    case NAS_UNARY_HARD_SIGMOID: return y > 0 && y < 1 ? n->alpha : 0;
    case NAS_UNARY_HARD_SWISH: return x <= -3 ? 0 : x >= 3 ? 1 : x / 3 + 0.5F;
    case NAS_UNARY_SWISH: {
        const float s = 1 / (1 + expf(-x));
        return s * (1 + x * (1 - s));
    }
    case NAS_UNARY_TANH: return 1 - y * y;
    case NAS_UNARY_EXP: return y;
    case NAS_UNARY_NEG: return -1;
    case NAS_UNARY_ABS: return x < 0 ? -1 : 1;
    case NAS_UNARY_AFFINE: return n->alpha;
    case NAS_UNARY_ERF:
    case NAS_UNARY_GELU:
    case NAS_UNARY_SQRT:
    case NAS_UNARY_COUNT: break; /* refused by nas__exec_trainable */
    }
    return 0;
}

static void back_map(const back *b, ptrdiff_t in, ptrdiff_t out) {
    const float *x = b->in[0].x + in, *y = b->out.x + out, *dy = b->out.d + out;
    float *dx = b->in[0].d + in;
    for (int32_t c = 0; c < b->out.v->c; c++) {
        const float slope = b->node->op == NAS_OP_UNARY        ? slope_of(b->node, x[c], y[c])
                            : b->node->op == NAS_OP_ADD_SCALAR ? 1
                                                               : (float)(x[c] > 0);
        dx[c] += slope * dy[c];
    }
}

static void back_binary(const back *b, int32_t image, int32_t y, int32_t x) {
    const pair *second = &b->in[1];
    const ptrdiff_t at = place(&b->out, image, y, x), first = place(&b->in[0], image, y, x);
    const ptrdiff_t other =
        place(second, image, second->v->h == 1 ? 0 : y, second->v->w == 1 ? 0 : x);
    for (int32_t c = 0; c < b->out.v->c; c++) {
        const int32_t k = second->v->c == 1 ? 0 : c;
        const float dy = b->out.d[at + c];
        const bool product = b->node->op == NAS_OP_MUL;
        const float to_first = product ? dy * second->x[other + k] : dy;
        const float to_second = product                     ? dy * b->in[0].x[first + c]
                                : b->node->op == NAS_OP_SUB ? -dy
                                                            : dy;
        b->in[0].d[first + c] += to_first;
        second->d[other + k] += to_second;
    }
}

static void back_pool(const back *b, int32_t image, int32_t oy, int32_t ox) {
    const nas_pool_attributes *p = &b->node->pool;
    const pair *in = &b->in[0];
    const ptrdiff_t out = place(&b->out, image, oy, ox);
    const int32_t top = oy * p->stride_h - p->pad_top, left = ox * p->stride_w - p->pad_left;
    const int32_t y0 = top < 0 ? 0 : top, x0 = left < 0 ? 0 : left;
    const int32_t y1 = top + p->kernel_h < in->v->h ? top + p->kernel_h : in->v->h;
    const int32_t x1 = left + p->kernel_w < in->v->w ? left + p->kernel_w : in->v->w;
    const int32_t taps = p->count_include_pad ? p->kernel_h * p->kernel_w : (y1 - y0) * (x1 - x0);
    for (int32_t c = 0; c < b->out.v->c; c++) {
        bool given = false; /* the first tap that holds the maximum takes all of it */
        for (int32_t y = y0; y < y1; y++) {
            for (int32_t x = x0; x < x1; x++) {
                const ptrdiff_t at = place(in, image, y, x) + c;
                if (b->node->op == NAS_OP_AVG_POOL) {
                    in->d[at] += b->out.d[out + c] / (float)taps;
                } else if (!given && in->x[at] >= b->out.x[out + c]) {
                    in->d[at] += b->out.d[out + c];
                    given = true;
                }
            }
        }
    }
}

static void back_concat(const back *b, int32_t image, int32_t y, int32_t x) {
    const float *dy = b->out.d + place(&b->out, image, y, x);
    int32_t at[3] = {0, y, x};
    for (int32_t k = 0; k < b->node->n_inputs; k++) {
        const pair *in = &b->in[k];
        const int32_t axis = b->node->axis;
        const int32_t extent = axis == 1 ? in->v->h : in->v->w;
        if (axis == 3 || at[axis] < extent) {
            float *dx = in->d + place(in, image, at[1], at[2]);
            for (int32_t c = 0; c < in->v->c; c++)
                dx[c] += dy[c];
            if (axis != 3) return;
            dy += in->v->c;
        } else {
            at[axis] -= extent;
        }
    }
}

static void back_shift(const back *b, int32_t image, int32_t y, int32_t x) {
    const pair *in = &b->in[0];
    const bool cut = b->node->op == NAS_OP_SLICE;
    const int32_t *begin = b->node->begin;
    const int32_t iy = cut ? y + begin[1] : y - begin[1], ix = cut ? x + begin[2] : x - begin[2];
    if (iy < 0 || iy >= in->v->h || ix < 0 || ix >= in->v->w) return;
    const float *dy = b->out.d + place(&b->out, image, y, x);
    float *dx = in->d + place(in, image, iy, ix);
    for (int32_t i = 0; i < b->out.v->c; i++) {
        const int32_t c = cut ? i + begin[3] : i - begin[3];
        if (c >= 0 && c < in->v->c) dx[c] += dy[i];
    }
}

/* scale*(x - mean)/deviation + bias with constant statistics. */
static void back_norm(const back *b, ptrdiff_t in, ptrdiff_t out) {
    const nas_graph *g = b->e->graph;
    const float *mean = nas_graph_param_const(g, b->node->params[2])->data;
    const float *variance = nas_graph_param_const(g, b->node->params[3])->data;
    const float *dy = b->out.d + out, *x = b->in[0].x + in;
    float *scale_to = b->gradient + b->param_at[b->node->params[0]];
    float *bias_to = b->gradient + b->param_at[b->node->params[1]];
    for (int32_t c = 0; c < b->out.v->c; c++) {
        b->in[0].d[in + c] += dy[c] * b->e->packed[b->s->weights + (size_t)c];
        scale_to[c] += dy[c] * (x[c] - mean[c]) / sqrtf(variance[c] + b->node->epsilon);
        bias_to[c] += dy[c];
    }
}

static void back_shuffle(const back *b, ptrdiff_t in, ptrdiff_t out) {
    const int32_t c = b->out.v->c, groups = b->node->block;
    for (int32_t i = 0; i < c; i++)
        b->in[0].d[in + i % groups * (c / groups) + i / groups] += b->out.d[out + i];
}

static void back_move(const back *b, int32_t image) {
    const pair *in = &b->in[0], *out = &b->out;
    const int32_t w = out->v->w, c = out->v->c;
    for (int32_t k = 0; k < out->v->h * w * c; k++) {
        const int32_t to[3] = {k / (w * c), k / c % w, k % c};
        int32_t from[3] = {k / (in->v->w * in->v->c), k / in->v->c % in->v->w, k % in->v->c};
        for (int i = 0; i < 3 && b->node->op == NAS_OP_TRANSPOSE; i++)
            from[b->node->perm[i + 1] - 1] = to[i];
        in->d[place(in, image, from[0], from[1]) + from[2]] +=
            out->d[place(out, image, to[0], to[1]) + to[2]];
    }
}

static void back_pixel(const back *b, int32_t image, int32_t y, int32_t x) {
    const ptrdiff_t out = place(&b->out, image, y, x);
    switch (b->node->op) {
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL: back_binary(b, image, y, x); break;
    case NAS_OP_RELU:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_UNARY: back_map(b, place(&b->in[0], image, y, x), out); break;
    case NAS_OP_BATCH_NORM: back_norm(b, place(&b->in[0], image, y, x), out); break;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: back_pool(b, image, y, x); break;
    case NAS_OP_CONCAT: back_concat(b, image, y, x); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD: back_shift(b, image, y, x); break;
    case NAS_OP_CHANNEL_SHUFFLE: back_shuffle(b, place(&b->in[0], image, y, x), out); break;
    case NAS_OP_INPUT: /* no gradient wanted, done as a whole, or refused by nas__exec_trainable */
    case NAS_OP_CONSTANT:
    case NAS_OP_CONV:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_PRELU:
    case NAS_OP_DIV:
    case NAS_OP_SOFTMAX:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_RESIZE:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_COUNT: break;
    }
}

/* A sum of two values of one shape hands its gradient to both. */
static bool back_sum(const back *b) {
    const nas__exec_value *v = b->out.v;
    if (b->node->op != NAS_OP_ADD) return false;
    for (int i = 0; i < 2; i++) {
        const nas__exec_value *in = b->in[i].v;
        if (in->h != v->h || in->w != v->w || in->c != v->c || in->cs != v->cs) return false;
    }
    for (int32_t k = 0; k < 2 * b->n * v->h; k++) {
        const pair *in = &b->in[k % 2];
        const int32_t image = k / 2 / v->h, y = k / 2 % v->h;
        b->e->kernels->add_scaled(b->out.d + place(&b->out, image, y, 0), 1,
                                  in->d + place(in, image, y, 0), (size_t)v->w * (size_t)v->cs);
    }
    return true;
}

/* The fused activation first: its output lies where the step's does. */
static void gate_output(const back *b) {
    const nas__exec_value *v = b->out.v;
    const bool rounded = b->e->grids != NULL && b->e->grids[v->root].is_set;
    const ptrdiff_t before = rounded ? b->e->before_at : 0; /* the activation saw that */
    if (isinf(b->s->lo) && isinf(b->s->hi)) return;
    for (int32_t k = 0; k < b->n * v->h; k++) {
        const ptrdiff_t at = place(&b->out, k / v->h, k % v->h, 0);
        b->e->kernels->gate(b->out.x + before + at, b->out.d + at, b->out.d + at,
                            (size_t)v->w * (size_t)v->cs, b->s->lo, b->s->hi);
    }
}

static void back_step(back *b) {
    const nas_op op = b->node->op;
    if (op == NAS_OP_CONSTANT) return;
    const nas__exec_grid *grid =
        b->e->grids == NULL ? NULL : &b->e->grids[b->e->values[b->s->out].root];
    if (grid != NULL && grid->is_set)
        nas__exec_round_back(b->e, b->s->out, b->space, b->grads, b->n, &b->gradient[grid->at]);
    if (op == NAS_OP_BATCH_NORM && b->e->chunk_norms) {
        nas__exec_norm_back(b->e, b->s, b->space, b->grads, b->n, b->param_at, b->gradient);
        return;
    }
    if (op == NAS_OP_CONV || op == NAS_OP_ADD || op == NAS_OP_BATCH_NORM) gate_output(b);
    if (op == NAS_OP_CONV) {
        back_conv(b);
        return;
    }
    if (back_sum(b)) return;
    for (int32_t image = 0; image < b->n; image++) {
        if (op == NAS_OP_RESHAPE || op == NAS_OP_TRANSPOSE) {
            back_move(b, image);
            continue;
        }
        for (int32_t p = 0; p < b->out.v->h * b->out.v->w; p++)
            back_pixel(b, image, p / b->out.v->w, p % b->out.v->w);
    }
}

static pair pair_of(const nas_exec *e, float *space, float *grads, nas_value v) {
    return (pair){nas__exec_root(e, v), nas__exec_at(e, space, v), nas__exec_at(e, grads, v)};
}

void nas__exec_backward(const nas_exec *e, float *space, float *grads, int32_t n, nas_value from,
                        const size_t *param_at, float *gradient, float *scratch) {
    const nas_value root = e->values[from].root;
    for (int32_t i = e->n_steps; i-- > 0;) {
        const nas__exec_step *s = &e->steps[i];
        if (s->node > root) continue;
        back b = {.e = e,
                  .s = s,
                  .node = nas_graph_node(e->graph, s->node),
                  .n = n,
                  .out = pair_of(e, space, grads, s->out),
                  .param_at = param_at,
                  .gradient = gradient,
                  .scratch = scratch,
                  .space = space,
                  .grads = grads};
        for (int32_t k = 0; k < b.node->n_inputs; k++)
            b.in[k] = pair_of(e, space, grads, b.node->inputs[k]);
        back_step(&b);
    }
}
