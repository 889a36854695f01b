/* exec_steps.c - one chunk of images through every operator. Convolutions, sums, normalisations and pools use the
 * kernels; what only moves elements or is rare in classifiers is plain C over pixels. */
#include "eval/exec_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

const char *nas__exec_supported(const nas_graph *g, const nas_node *node) {
    (void)g;
    switch (node->op) {
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_CONSTANT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_SOFTMAX:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE: return NULL;
    case NAS_OP_CONCAT: return node->axis == 0 ? "joins images" : NULL;
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_RESIZE:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL: return "not among the operators of classifiers that are run here";
    case NAS_OP_COUNT: break;
    }
    return "unknown operator";
}

/* One operand while a step runs. */
typedef struct operand {
    const nas__exec_value *v;
    float *at;
} operand;

static operand operand_of(const nas_exec *e, float *space, nas_value v) {
    return (operand){nas__exec_root(e, v), nas__exec_at(e, space, v)};
}

static float *pixel(const operand *o, int32_t image, int32_t y, int32_t x) {
    return o->at + image * o->v->image + y * o->v->row + (ptrdiff_t)x * o->v->cs;
}

/* ---- convolution -------------------------------------------------------------------------------------------------- */

static void run_conv(const nas_exec *e, const nas__exec_step *s, const nas_node *node, float *space,
                     int32_t n) {
    const size_t width = (size_t)s->vectors * NAS__EXEC_LANES;
    if (s->tiles != NULL) {
        nas__exec_tiles_conv(e, s, space, n);
        return;
    }
    nas__exec_conv job = {.in = nas__exec_at(e, space, node->inputs[0]),
                          .out = nas__exec_at(e, space, s->out),
                          .in_at = s->in_at,
                          .out_at = s->out_at,
                          .pixels = s->pixels * n,
                          .taps = s->taps,
                          .n_taps = s->n_taps,
                          .channels = s->group_in,
                          .vectors = s->vectors,
                          .weights = e->packed + s->weights,
                          .bias = e->packed + s->bias,
                          .lo = s->lo,
                          .hi = s->hi};
    if (nas__exec_is_depthwise(e->graph, node)) {
        e->kernels->depthwise(&job);
        return;
    }
    for (int32_t g = 0; g < node->conv.groups; g++) {
        e->kernels->conv(&job);
        job.in += s->group_in;
        job.out += s->group_out;
        job.weights += s->group_weights;
        job.bias += width;
    }
}

/* ---- pixel by pixel ----------------------------------------------------------------------------------------------- */

typedef struct row_job {
    const nas_exec *e;
    const nas__exec_step *s;
    const nas_node *node;
    operand in[NAS_NODE_INPUTS_MAX], out;
} row_job;

static float apply_unary(const nas_node *n, float x) {
    switch (n->unary) {
    case NAS_UNARY_CLIP: return fminf(fmaxf(x, n->alpha), n->beta);
    case NAS_UNARY_LEAKY_RELU: return x > 0 ? x : n->alpha * x;
    case NAS_UNARY_SIGMOID: return 1 / (1 + expf(-x));
    case NAS_UNARY_HARD_SIGMOID: return fminf(fmaxf(n->alpha * x + n->beta, 0), 1);
    case NAS_UNARY_HARD_SWISH: return x * fminf(fmaxf(x / 6 + 0.5F, 0), 1);
    case NAS_UNARY_SWISH: return x / (1 + expf(-x));
    case NAS_UNARY_TANH: return tanhf(x);
    case NAS_UNARY_ERF: return erff(x);
    case NAS_UNARY_GELU: return x * (1 + erff(x * 0.70710678F)) / 2;
    case NAS_UNARY_EXP: return expf(x);
    case NAS_UNARY_SQRT: return sqrtf(x);
    case NAS_UNARY_NEG: return -x;
    case NAS_UNARY_ABS: return fabsf(x);
    case NAS_UNARY_AFFINE: return n->alpha * x + n->beta;
    case NAS_UNARY_COUNT: break;
    }
    return x;
}

static float combine(nas_op op, float a, float b) {
    return op == NAS_OP_ADD ? a + b : op == NAS_OP_SUB ? a - b : op == NAS_OP_MUL ? a * b : a / b;
}

static void softmax(const float *in, float *out, int32_t c) {
    float top = in[0], sum = 0;
    for (int32_t i = 1; i < c; i++)
        top = fmaxf(top, in[i]);
    for (int32_t i = 0; i < c; i++) {
        out[i] = expf(in[i] - top);
        sum += out[i];
    }
    for (int32_t i = 0; i < c; i++)
        out[i] /= sum;
}

/* The second operand of a sum or product may have extents of one, which stand for all. */
static void binary_pixel(const row_job *j, int32_t image, int32_t y, int32_t x, float *out) {
    const operand *b = &j->in[1];
    const float *first = pixel(&j->in[0], image, y, x);
    const float *second = pixel(b, image, b->v->h == 1 ? 0 : y, b->v->w == 1 ? 0 : x);
    const int32_t c = j->out.v->c;
    for (int32_t i = 0; i < c; i++) {
        const float value = combine(j->node->op, first[i], second[b->v->c == 1 ? 0 : i]);
        out[i] = fminf(fmaxf(value, j->s->lo), j->s->hi);
    }
}

static void map_pixel(const row_job *j, const float *in, float *out) {
    const nas_node *node = j->node;
    const int32_t c = j->out.v->c;
    const float *slope =
        node->op == NAS_OP_PRELU ? nas_graph_param_const(j->e->graph, node->params[0])->data : NULL;
    if (node->op == NAS_OP_SOFTMAX) {
        softmax(in, out, c);
        return;
    }
    for (int32_t i = 0; i < c; i++) {
        if (slope != NULL) {
            out[i] = in[i] > 0 ? in[i] : slope[i] * in[i];
        } else if (node->op == NAS_OP_ADD_SCALAR) {
            out[i] = in[i] + node->scalar;
        } else if (node->op == NAS_OP_UNARY) {
            out[i] = apply_unary(node, in[i]);
        } else {
            out[i] = fmaxf(in[i], 0);
        }
    }
}

/* ---- pools -------------------------------------------------------------------------------------------------------- */

static void pool_pixel(const row_job *j, int32_t image, int32_t oy, int32_t ox, float *out) {
    const nas_pool_attributes *p = &j->node->pool;
    const operand *in = &j->in[0];
    const bool is_max = j->node->op == NAS_OP_MAX_POOL;
    const int32_t lanes = nas__exec_lanes_up(in->v->c);
    int32_t taps = 0;
    for (int32_t i = 0; i < lanes; i++)
        out[i] = is_max && i < in->v->c ? -FLT_MAX : 0;
    for (int32_t ky = 0; ky < p->kernel_h; ky++) {
        const int32_t y = oy * p->stride_h + ky - p->pad_top;
        for (int32_t kx = 0; kx < p->kernel_w; kx++) {
            const int32_t x = ox * p->stride_w + kx - p->pad_left;
            if (y < 0 || y >= in->v->h || x < 0 || x >= in->v->w) continue;
            const float *from = pixel(in, image, y, x);
            taps++;
            if (is_max) {
                j->e->kernels->max(from, out, (size_t)lanes);
            } else {
                j->e->kernels->add_scaled(from, 1, out, (size_t)lanes);
            }
        }
    }
    if (is_max) {
        for (int32_t i = in->v->c; i < lanes; i++)
            out[i] = 0;
        return;
    }
    if (p->count_include_pad) taps = p->kernel_h * p->kernel_w;
    for (int32_t i = 0; i < lanes; i++)
        out[i] /= (float)taps;
}

/* ---- moves -------------------------------------------------------------------------------------------------------- */

static void concat_pixel(const row_job *j, int32_t image, int32_t y, int32_t x, float *out) {
    int32_t from[4] = {0, y, x, 0};
    for (int32_t k = 0; k < j->node->n_inputs; k++) {
        const operand *in = &j->in[k];
        if (j->node->axis == 3) {
            memcpy(out, pixel(in, image, y, x), (size_t)in->v->c * sizeof *out);
            out += in->v->c;
            continue;
        }
        const int32_t extent = j->node->axis == 1 ? in->v->h : in->v->w;
        if (from[j->node->axis] < extent) {
            memcpy(out, pixel(in, image, from[1], from[2]), (size_t)in->v->c * sizeof *out);
            return;
        }
        from[j->node->axis] -= extent;
    }
}

/* SLICE begins inside, PAD before its input: both are a shift, with a fill outside. */
static void shift_pixel(const row_job *j, int32_t image, int32_t y, int32_t x, float *out) {
    const operand *in = &j->in[0];
    const bool cut = j->node->op == NAS_OP_SLICE;
    const int32_t *begin = j->node->begin;
    const int32_t iy = cut ? y + begin[1] : y - begin[1], ix = cut ? x + begin[2] : x - begin[2];
    const int32_t shift = cut ? begin[3] : -begin[3];
    const bool inside = iy >= 0 && iy < in->v->h && ix >= 0 && ix < in->v->w;
    const float *from = inside ? pixel(in, image, iy, ix) : NULL;
    for (int32_t i = 0; i < j->out.v->c; i++) {
        const int32_t c = i + shift;
        out[i] = inside && c >= 0 && c < in->v->c ? from[c] : j->node->scalar;
    }
}

static void shuffle_pixel(const row_job *j, const float *in, float *out) {
    const int32_t c = j->out.v->c, groups = j->node->block;
    for (int32_t i = 0; i < c; i++)
        out[i] = in[i % groups * (c / groups) + i / groups];
}

/* RESHAPE and TRANSPOSE: element k of the output in memory order. */
static void move_elements(const row_job *j, int32_t image) {
    const operand *in = &j->in[0], *out = &j->out;
    const int32_t extent[3] = {out->v->h, out->v->w, out->v->c};
    const int32_t total = extent[0] * extent[1] * extent[2];
    for (int32_t k = 0; k < total; k++) {
        const int32_t to[3] = {k / (extent[1] * extent[2]), k / extent[2] % extent[1],
                               k % extent[2]};
        int32_t from[3];
        if (j->node->op == NAS_OP_RESHAPE) {
            from[0] = k / (in->v->w * in->v->c);
            from[1] = k / in->v->c % in->v->w;
            from[2] = k % in->v->c;
        } else { /* output axis i is input axis perm[i]; axis 0 is the image */
            for (int i = 0; i < 3; i++)
                from[j->node->perm[i + 1] - 1] = to[i];
        }
        pixel(out, image, to[0], to[1])[to[2]] = pixel(in, image, from[0], from[1])[from[2]];
    }
}

/* ---- steps -------------------------------------------------------------------------------------------------------- */

static void run_pixel(const row_job *j, int32_t image, int32_t y, int32_t x) {
    float *out = pixel(&j->out, image, y, x);
    switch (j->node->op) {
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: binary_pixel(j, image, y, x, out); break;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_UNARY:
    case NAS_OP_SOFTMAX: map_pixel(j, pixel(&j->in[0], image, y, x), out); break;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: pool_pixel(j, image, y, x, out); break;
    case NAS_OP_CONCAT: concat_pixel(j, image, y, x, out); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD: shift_pixel(j, image, y, x, out); break;
    case NAS_OP_CHANNEL_SHUFFLE: shuffle_pixel(j, pixel(&j->in[0], image, y, x), out); break;
    case NAS_OP_INPUT: /* loaded, written before, or run as a whole */
    case NAS_OP_CONSTANT:
    case NAS_OP_CONV:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_DEPTH_TO_SPACE: /* refused by nas__exec_supported */
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_RESIZE:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_COUNT: break;
    }
}

/* Whole rows in vectors: sums of equal shapes, activations, normalisations. False when the step is none of them. */
static bool run_rows(const row_job *j, int32_t n) {
    const nas__exec_value *o = j->out.v;
    const nas_op op = j->node->op;
    const bool add = op == NAS_OP_ADD && j->in[1].v->h == o->h && j->in[1].v->w == o->w &&
                     j->in[1].v->c == o->c && j->in[1].v->cs == o->cs;
    const bool clamp =
        op == NAS_OP_RELU || (op == NAS_OP_UNARY && j->node->unary == NAS_UNARY_CLIP &&
                              j->node->alpha <= 0 && j->node->beta >= 0); /* lanes past c stay 0 */
    const bool norm = op == NAS_OP_BATCH_NORM;
    if ((!add && !clamp && !norm) || j->in[0].v->cs != o->cs) return false;
    const size_t floats = (size_t)o->w * (size_t)o->cs;
    for (int32_t k = 0; k < n * o->h; k++) {
        const int32_t image = k / o->h, y = k % o->h;
        const float *in = pixel(&j->in[0], image, y, 0);
        float *out = pixel(&j->out, image, y, 0);
        if (add) {
            j->e->kernels->add_clamp(in, pixel(&j->in[1], image, y, 0), out, floats, j->s->lo,
                                     j->s->hi);
        } else if (clamp) {
            j->e->kernels->clamp(in, out, floats, j->s->lo, j->s->hi);
        } else {
            for (int32_t x = 0; x < o->w; x++) {
                j->e->kernels->affine(in + (ptrdiff_t)x * o->cs, j->e->packed + j->s->weights,
                                      j->e->packed + j->s->bias, out + (ptrdiff_t)x * o->cs,
                                      (size_t)o->cs, j->s->lo, j->s->hi);
            }
        }
    }
    return true;
}

static void run_plain(const nas_exec *e, const nas__exec_step *s, float *space, int32_t n) {
    const nas_node *node = nas_graph_node(e->graph, s->node);
    row_job j = {.e = e, .s = s, .node = node, .out = operand_of(e, space, s->out)};
    if (node->op == NAS_OP_CONSTANT) return;
    if (node->op == NAS_OP_CONV) {
        run_conv(e, s, node, space, n);
        return;
    }
    if (node->op == NAS_OP_BATCH_NORM && e->chunk_norms) {
        nas__exec_norm_run(e, s, space, n);
        return;
    }
    for (int32_t k = 0; k < node->n_inputs; k++)
        j.in[k] = operand_of(e, space, node->inputs[k]);
    if (run_rows(&j, n)) return;
    for (int32_t image = 0; image < n; image++) {
        if (node->op == NAS_OP_RESHAPE || node->op == NAS_OP_TRANSPOSE) {
            move_elements(&j, image);
            continue;
        }
        for (int32_t p = 0; p < j.out.v->h * j.out.v->w; p++)
            run_pixel(&j, image, p / j.out.v->w, p % j.out.v->w);
    }
}

void nas__exec_run_step(const nas_exec *e, const nas__exec_step *s, float *space, int32_t n) {
    run_plain(e, s, space, n);
    nas__exec_round(e, s->out, space, n);
}

void nas__exec_forward(const nas_exec *e, float *space, int32_t n, nas_value stop) {
    for (int32_t i = 0; i < e->n_steps && e->steps[i].node < stop; i++)
        nas__exec_run_step(e, &e->steps[i], space, n);
}

void nas__exec_load(const nas_exec *e, float *space, size_t first, int32_t n, nas_exec_read_fn read,
                    void *arg, float *scratch) {
    const operand in = operand_of(e, space, nas_graph_input(e->graph));
    const size_t c = (size_t)in.v->c;
    for (int32_t image = 0; image < n; image++) {
        read(arg, first + (size_t)image, scratch);
        for (int32_t p = 0; p < in.v->h * in.v->w; p++)
            memcpy(pixel(&in, image, p / in.v->w, p % in.v->w), scratch + (size_t)p * c,
                   c * sizeof *scratch);
    }
}

void nas__exec_store(const nas_exec *e, float *space, nas_value v, int32_t image, float *hwc) {
    const operand o = operand_of(e, space, v);
    const size_t c = (size_t)o.v->c;
    for (int32_t p = 0; p < o.v->h * o.v->w; p++)
        memcpy(hwc + (size_t)p * c, pixel(&o, image, p / o.v->w, p % o.v->w), c * sizeof *hwc);
}

/* ---- running ------------------------------------------------------------------------------------------------------ */

typedef struct run_all {
    nas_exec *e;
    size_t n;
    nas_exec_read_fn read;
    void *arg;
    float *out;
    float *scratch; /* one image a worker */
    size_t image_floats;
} run_all;

static nas_status run_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const run_all *r = arg;
    const nas_exec *e = r->e;
    const size_t first = index * (size_t)e->options.chunk;
    const size_t left = r->n - first;
    const int32_t n = left < (size_t)e->options.chunk ? (int32_t)left : e->options.chunk;
    float *space = e->spaces[worker];
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    nas__exec_load(e, space, first, n, r->read, r->arg,
                   r->scratch + (size_t)worker * r->image_floats);
    nas__exec_forward(e, space, n, NAS_GRAPH_NODES_MAX);
    const nas_value output = nas_graph_output(e->graph);
    const nas__exec_value *v = nas__exec_root(e, output);
    const size_t floats = (size_t)v->h * (size_t)v->w * (size_t)v->c;
    for (int32_t image = 0; image < n; image++)
        nas__exec_store(e, space, output, image, r->out + (first + (size_t)image) * floats);
    return NAS_OK;
}

nas_status nas_exec_run(nas_ctx *ctx, nas_exec *e, size_t n, nas_exec_read_fn read, void *arg,
                        float *out) {
    const nas_shape in = nas_graph_node(e->graph, nas_graph_input(e->graph))->shape;
    run_all r = {.e = e,
                 .n = n,
                 .read = read,
                 .arg = arg,
                 .out = out,
                 .image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c};
    r.scratch = nas_alloc_array(ctx, r.image_floats * (size_t)e->options.threads, sizeof(float));
    if (r.scratch == NULL) return NAS_ERR_NOMEM;
    const size_t chunks = (n + (size_t)e->options.chunk - 1) / (size_t)e->options.chunk;
    const nas_status status = nas_parallel(ctx, e->options.threads, chunks, run_chunk, &r);
    nas_free(r.scratch);
    return status;
}
