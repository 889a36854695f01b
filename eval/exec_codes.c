/* exec_codes.c - a network of integers on the executor of floats. Values lie as the real numbers of their codes; a step on
 * codes turns its operands into codes less their zero points, which are small whole floats, and its result back. Weights of
 * integer convolutions are replaced by their codes in a copy of the graph: where no sum can reach 2^24, the kernels of floats
 * add them exactly in any order; elsewhere plain loops do. */
#include "eval/codes.h"
#include "eval/exec_internal.h"
#include "ir/quantize.h"

#include <math.h>
#include <string.h>

typedef enum coded_kind {
    CODED_FLOATS, /* computed in floats, then coded where there is a quantization */
    CODED_CONV,
    CODED_ADD,
    CODED_MUL,
    CODED_AVERAGE
} coded_kind;

typedef struct coded_step {
    nas__exec_step step; /* without its activation where codes are bounded instead */
    coded_kind kind;
    nas_quant out;       /* of the result, the activation included */
    bool exact;          /* CONV: floats hold every sum */
    nas_requant requant; /* but `left` of AVERAGE */
    int32_t *multiplier; /* CONV: [outputs] */
    int32_t add[2];      /* ADD */
    int32_t product;     /* MUL */
} coded_step;

typedef struct coded {
    const nas_graph *graph;
    nas_graph *codes; /* the copy whose integer convolutions have codes as weights and biases */
    nas_exec *e;
    nas_arena *arena;
    coded_step *steps; /* [e->n_steps] */
    size_t n;
    nas_exec_read_fn read;
    void *arg;
    float *out, *scratch;
    size_t image_floats;
} coded;

static const nas_quant *quant_of(const nas_graph *g, nas_value v) {
    return &nas_graph_node(g, v)->quant;
}

static int32_t least_code(const nas_quant *q) {
    return q->is_signed ? -128 : 0;
}

static bool same_quant(const nas_quant *a, const nas_quant *b) {
    return a->is_set == b->is_set && a->is_signed == b->is_signed && a->scale == b->scale &&
           a->zero_point == b->zero_point;
}

/* ---- who computes on codes -------------------------------------------------------------------------------------------- */

static bool spreads(const nas_shape *a, const nas_shape *result) {
    return (a->h == result->h || a->h == 1) && (a->w == result->w || a->w == 1) &&
           a->c == result->c;
}

static bool pair_fits(const nas_graph *g, const nas_node *node, const nas_quant *out) {
    double product = 1 / (double)out->scale;
    for (int32_t k = 0; k < 2; k++) {
        const double scale = (double)quant_of(g, node->inputs[k])->scale;
        product *= scale;
        if (!spreads(&nas_graph_node(g, node->inputs[k])->shape, &node->shape)) return false;
        if (node->op == NAS_OP_ADD && scale / (double)out->scale >= NAS_QUANT_ADD_RATIO_MAX)
            return false;
    }
    return node->op == NAS_OP_ADD || product < (double)(1 << NAS_QUANT_LEFT_MAX);
}

static coded_kind kind_of(const nas_graph *g, const nas_node *node, const nas_quant *out) {
    if (!out->is_set) return CODED_FLOATS;
    for (int32_t k = 0; k < node->n_inputs; k++) {
        if (!quant_of(g, node->inputs[k])->is_set) return CODED_FLOATS;
    }
    if (node->op == NAS_OP_CONV)
        return nas_graph_param_const(g, node->params[0])->scales != NULL ? CODED_CONV
                                                                         : CODED_FLOATS;
    if (node->op == NAS_OP_ADD) return pair_fits(g, node, out) ? CODED_ADD : CODED_FLOATS;
    if (node->op == NAS_OP_MUL) return pair_fits(g, node, out) ? CODED_MUL : CODED_FLOATS;
    return node->op == NAS_OP_AVG_POOL ? CODED_AVERAGE : CODED_FLOATS;
}

/* What the executor computes with node `root`: itself, or the activation behind it. */
static nas_value last_of(const nas_exec *e, nas_value root) {
    nas_value last = root;
    for (nas_value v = root + 1; v < nas_graph_node_count(e->graph); v++)
        if (e->values[v].root == root) last = v;
    return last;
}

static nas_status check_step(nas_ctx *ctx, const nas_graph *g, const nas_node *node, bool fused) {
    if (fused && node->quant.is_set)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s' has a quantization in front of its activation: only the "
                        "activation may have one",
                        node->name);
    for (int32_t k = 1; node->op == NAS_OP_CONCAT && k < node->n_inputs; k++) {
        if (!same_quant(quant_of(g, node->inputs[k]), quant_of(g, node->inputs[0])) ||
            (node->quant.is_set && !same_quant(&node->quant, quant_of(g, node->inputs[0]))))
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                            "concatenation '%s': operands or result with different quantizations",
                            node->name);
    }
    if (node->op == NAS_OP_PRELU && node->quant.is_set && quant_of(g, node->inputs[0])->is_set)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': PRELU on codes", node->name);
    return NAS_OK;
}

/* ---- numbers of a step -------------------------------------------------------------------------------------------------- */

static nas_requant bounds_of(const nas_graph *g, nas_value last) {
    const nas_node *node = nas_graph_node(g, last);
    const nas_quant *q = &node->quant;
    const int32_t least = least_code(q);
    nas_requant r = {.zero_out = q->zero_point, .low = least, .high = least + 255};
    if (node->op == NAS_OP_RELU) r.low = q->zero_point;
    if (node->op == NAS_OP_UNARY && node->unary == NAS_UNARY_CLIP) {
        r.low = nas_quant_value((double)node->alpha, (double)q->scale, q->zero_point, least,
                                least + 255);
        r.high = nas_quant_value((double)node->beta, (double)q->scale, q->zero_point, least,
                                 least + 255);
    }
    return r;
}

static double conv_ratio(const nas_graph *g, const nas_node *node, int32_t o,
                         const nas_quant *out) {
    return (double)quant_of(g, node->inputs[0])->scale *
           (double)nas_graph_param_const(g, node->params[0])->scales[o] / (double)out->scale;
}

/* Weights and bias of output o become codes; the largest size of a sum is added to *most. */
static nas_status code_filter(nas_ctx *ctx, coded *c, const nas_node *node, int32_t o,
                              int8_t *codes, double *most) {
    const nas_quant *in = quant_of(c->graph, node->inputs[0]);
    const nas_param *weight = nas_graph_param_const(c->graph, node->params[0]);
    const size_t n = weight->count / (size_t)weight->dims[0];
    const int32_t far = in->zero_point - least_code(in);
    float *to = nas_graph_param(c->codes, node->params[0])->data + (size_t)o * n;
    int32_t bias = 0;
    nas_status status = NAS_OK;
    nas_quant_weights(weight->data + (size_t)o * n, n, (double)weight->scales[o], weight->bits,
                      codes);
    if (node->conv.has_bias) {
        float *b = &nas_graph_param(c->codes, node->params[1])->data[o];
        status =
            nas_quant_bias(ctx, (double)*b, (double)in->scale, (double)weight->scales[o], &bias);
        *b = (float)bias;
    }
    if (status == NAS_OK) status = nas_quant_accumulator(ctx, codes, n, bias);
    double sum = fabs((double)bias);
    for (size_t i = 0; i < n; i++) {
        to[i] = codes[i];
        sum += fabs((double)codes[i]) * (far > 127 ? far : 255 - far);
    }
    *most = fmax(*most, sum);
    return status;
}

static nas_status plan_conv(nas_ctx *ctx, coded *c, coded_step *s) {
    const nas_node *node = nas_graph_node(c->graph, s->step.node);
    const nas_param *weight = nas_graph_param_const(c->graph, node->params[0]);
    const int32_t outputs = weight->dims[0];
    double most = 0, ratio = 0;
    int8_t *codes = nas_alloc_array(ctx, weight->count / (size_t)outputs, sizeof *codes);
    s->multiplier = nas_arena_alloc(ctx, c->arena, (size_t)outputs, sizeof *s->multiplier);
    nas_status status = codes == NULL || s->multiplier == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (int32_t o = 0; o < outputs && status == NAS_OK; o++) {
        status = code_filter(ctx, c, node, o, codes, &most);
        ratio = fmax(ratio, conv_ratio(c->graph, node, o, &s->out));
    }
    if (status == NAS_OK) status = nas_quant_left(ctx, ratio, &s->requant.left);
    for (int32_t o = 0; o < outputs && status == NAS_OK; o++)
        status = nas_quant_multiplier(ctx, conv_ratio(c->graph, node, o, &s->out), s->requant.left,
                                      &s->multiplier[o]);
    s->exact = most <= 1 << 24;
    nas_free(codes);
    return status;
}

static nas_status plan_pair(nas_ctx *ctx, const coded *c, coded_step *s) {
    const nas_node *node = nas_graph_node(c->graph, s->step.node);
    const double out = (double)s->out.scale, a = (double)quant_of(c->graph, node->inputs[0])->scale,
                 b = (double)quant_of(c->graph, node->inputs[1])->scale;
    nas_status status = NAS_OK;
    if (s->kind == CODED_MUL) {
        status = nas_quant_left(ctx, a / out * b, &s->requant.left);
        return status != NAS_OK
                   ? status
                   : nas_quant_multiplier(ctx, a / out * b, s->requant.left, &s->product);
    }
    status = nas_quant_add_multiplier(ctx, a / out, &s->add[0]);
    return status == NAS_OK ? nas_quant_add_multiplier(ctx, b / out, &s->add[1]) : status;
}

static nas_status plan_step(nas_ctx *ctx, coded *c, coded_step *s) {
    const nas_value last = last_of(c->e, s->step.node);
    const nas_node *node = nas_graph_node(c->graph, s->step.node);
    nas_status status = check_step(ctx, c->graph, node, last != s->step.node);
    if (status != NAS_OK) return status;
    s->out = *quant_of(c->graph, last);
    s->kind = kind_of(c->graph, node, &s->out);
    if (!s->out.is_set) return NAS_OK;
    s->requant = bounds_of(c->graph, last);
    if (s->kind == CODED_CONV) status = plan_conv(ctx, c, s);
    if (s->kind == CODED_ADD || s->kind == CODED_MUL) status = plan_pair(ctx, c, s);
    if (s->kind == CODED_CONV) {
        s->step.lo = -INFINITY;
        s->step.hi = INFINITY;
    }
    return nas_wrap(ctx, status, "node '%s'", node->name);
}

/* ---- one chunk ------------------------------------------------------------------------------------------------------------ */

typedef struct view {
    const nas__exec_value *v;
    float *at;
    const nas_quant *q;
} view;

static view view_of(const coded *c, float *space, nas_value v) {
    return (view){nas__exec_root(c->e, v), nas__exec_at(c->e, space, v), quant_of(c->graph, v)};
}

/* The pixel; an extent of 1 stands for all. */
static float *pixel(const view *o, int32_t image, int32_t y, int32_t x) {
    return o->at + image * o->v->image + (o->v->h == 1 ? 0 : y) * o->v->row +
           (ptrdiff_t)(o->v->w == 1 ? 0 : x) * o->v->cs;
}

/* Real numbers to codes less their zero point and back, borders (zeros) included. Adding 1.5*2^23 rounds to whole numbers. */
static void to_codes(const view *o, int32_t n) {
    static const float rounding = 12582912.0F;
    const float inverse = 1 / o->q->scale;
    float *x = o->at - o->v->origin;
    for (ptrdiff_t i = 0; i < n * o->v->image; i++)
        x[i] = x[i] * inverse + rounding - rounding;
}

static void to_reals(const view *o, int32_t n) {
    float *x = o->at - o->v->origin;
    for (ptrdiff_t i = 0; i < n * o->v->image; i++)
        x[i] *= o->q->scale;
}

static float real_of(const coded_step *s, int32_t code) {
    return (float)(code - s->out.zero_point) * s->out.scale;
}

/* As the kernels would, sum by sum, for layers whose sums floats do not hold. */
static void plain_conv(const coded *c, const coded_step *s, const view *in, const view *out,
                       int32_t n) {
    const nas_node *node = nas_graph_node(c->codes, s->step.node);
    const nas_param *weight = nas_graph_param_const(c->codes, node->params[0]);
    const float *bias =
        node->conv.has_bias ? nas_graph_param_const(c->codes, node->params[1])->data : NULL;
    const int32_t width = weight->dims[3], outputs = weight->dims[0] / node->conv.groups;
    for (int32_t p = 0; p < s->step.pixels * n; p++) {
        const float *from = in->at + s->step.in_at[p];
        float *to = out->at + s->step.out_at[p];
        for (int32_t o = 0; o < weight->dims[0]; o++) {
            const float *w = weight->data + (size_t)o * (size_t)s->step.n_taps * (size_t)width;
            double acc = bias == NULL ? 0 : (double)bias[o];
            for (int32_t t = 0; t < s->step.n_taps; t++) {
                const float *x = from + s->step.taps[t] + o / outputs * width;
                for (int32_t i = 0; i < width; i++)
                    acc += (double)x[i] * (double)*w++;
            }
            to[o] = real_of(s, nas_requantize((int32_t)acc, s->multiplier[o], &s->requant));
        }
    }
}

static void run_conv(const coded *c, const coded_step *s, float *space, int32_t n) {
    const view in = view_of(c, space, nas_graph_node(c->graph, s->step.node)->inputs[0]),
               out = view_of(c, space, s->step.node);
    to_codes(&in, n);
    if (!s->exact) {
        plain_conv(c, s, &in, &out, n);
    } else {
        nas__exec_run_step(c->e, &s->step, space, n);
        for (int32_t p = 0; p < s->step.pixels * n; p++) {
            float *x = out.at + s->step.out_at[p];
            for (int32_t o = 0; o < out.v->c; o++)
                x[o] = real_of(s, nas_requantize((int32_t)x[o], s->multiplier[o], &s->requant));
        }
    }
    to_reals(&in, n);
}

static int32_t code_of(float real, const nas_quant *q) {
    return (int32_t)rintf(real / q->scale);
}

static void run_pair(const coded *c, const coded_step *s, float *space, int32_t n) {
    const nas_node *node = nas_graph_node(c->graph, s->step.node);
    const view a = view_of(c, space, node->inputs[0]), b = view_of(c, space, node->inputs[1]),
               out = view_of(c, space, s->step.node);
    const int32_t w = out.v->w, pixels = out.v->h * w;
    for (int32_t p = 0; p < pixels * n; p++) {
        const int32_t image = p / pixels, y = p % pixels / w, x = p % w;
        const float *first = pixel(&a, image, y, x), *second = pixel(&b, image, y, x);
        float *to = pixel(&out, image, y, x);
        for (int32_t i = 0; i < out.v->c; i++) {
            const int32_t u = code_of(first[i], a.q), v = code_of(second[i], b.q);
            to[i] = real_of(s, s->kind == CODED_ADD
                                   ? nas_quant_add(u, s->add[0], v, s->add[1], &s->requant)
                                   : nas_requantize(u * v, s->product, &s->requant));
        }
    }
}

/* One `left` serves the fewest taps that a window can have: 1, or all of them when those outside count. */
static nas_status average_pixel(nas_ctx *ctx, const coded_step *s, const nas_pool_attributes *p,
                                const view *in, int32_t image, const int32_t at[2], float *to) {
    const double ratio = (double)in->q->scale / (double)s->out.scale;
    const int32_t top = at[0] * p->stride_h - p->pad_top, left = at[1] * p->stride_w - p->pad_left;
    int32_t taps = 0, multiplier = 0;
    nas_requant r = s->requant;
    for (int32_t c = 0; c < in->v->c; c++)
        to[c] = 0; /* sums of codes: small whole numbers */
    for (int32_t y = top < 0 ? 0 : top; y < top + p->kernel_h && y < in->v->h; y++) {
        for (int32_t x = left < 0 ? 0 : left; x < left + p->kernel_w && x < in->v->w; x++) {
            const float *from = pixel(in, image, y, x);
            taps++;
            for (int32_t c = 0; c < in->v->c; c++)
                to[c] += (float)code_of(from[c], in->q);
        }
    }
    if (p->count_include_pad) taps = p->kernel_h * p->kernel_w;
    nas_status status = nas_quant_left(ctx, ratio / (p->count_include_pad ? taps : 1), &r.left);
    if (status == NAS_OK) status = nas_quant_multiplier(ctx, ratio / taps, r.left, &multiplier);
    for (int32_t c = 0; c < in->v->c; c++)
        to[c] = real_of(s, nas_requantize((int32_t)to[c], multiplier, &r));
    return status;
}

static nas_status run_average(nas_ctx *ctx, const coded *c, const coded_step *s, float *space,
                              int32_t n) {
    const nas_node *node = nas_graph_node(c->graph, s->step.node);
    const view in = view_of(c, space, node->inputs[0]), out = view_of(c, space, s->step.node);
    const int32_t w = out.v->w, pixels = out.v->h * w;
    nas_status status = NAS_OK;
    for (int32_t p = 0; p < pixels * n && status == NAS_OK; p++) {
        const int32_t image = p / pixels, at[2] = {p % pixels / w, p % w};
        status =
            average_pixel(ctx, s, &node->pool, &in, image, at, pixel(&out, image, at[0], at[1]));
    }
    return status;
}

/* A result of floats becomes the nearest code's number. */
static void code_result(const view *out, const nas_quant *q, int32_t n) {
    const int32_t w = out->v->w, pixels = out->v->h * w, least = least_code(q);
    for (int32_t p = 0; p < pixels * n; p++) {
        float *x = pixel(out, p / pixels, p % pixels / w, p % w);
        for (int32_t i = 0; i < out->v->c; i++)
            x[i] = (float)(nas_quant_value((double)(x[i] / q->scale), 1, q->zero_point, least,
                                           least + 255) -
                           q->zero_point) *
                   q->scale;
    }
}

static nas_status run_step(nas_ctx *ctx, const coded *c, const coded_step *s, float *space,
                           int32_t n) {
    switch (s->kind) {
    case CODED_CONV: run_conv(c, s, space, n); return NAS_OK;
    case CODED_ADD:
    case CODED_MUL: run_pair(c, s, space, n); return NAS_OK;
    case CODED_AVERAGE: return run_average(ctx, c, s, space, n);
    case CODED_FLOATS: break;
    }
    const view out = view_of(c, space, s->step.node);
    nas__exec_run_step(c->e, &s->step, space, n);
    if (s->out.is_set) code_result(&out, &s->out, n);
    return NAS_OK;
}

static nas_status run_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const coded *c = arg;
    const nas_exec *e = c->e;
    const size_t first = index * (size_t)e->options.chunk, left = c->n - first;
    const int32_t n = left < (size_t)e->options.chunk ? (int32_t)left : e->options.chunk;
    const view in = view_of(c, e->spaces[worker], nas_graph_input(e->graph)),
               out = view_of(c, e->spaces[worker], nas_graph_output(e->graph));
    nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    nas__exec_load(e, e->spaces[worker], first, n, c->read, c->arg,
                   c->scratch + (size_t)worker * c->image_floats);
    if (in.q->is_set) code_result(&in, in.q, n);
    for (int32_t i = 0; i < e->n_steps && status == NAS_OK; i++)
        status = run_step(ctx, c, &c->steps[i], e->spaces[worker], n);
    const size_t channels = (size_t)out.v->c, pixels = (size_t)(out.v->h * out.v->w);
    for (size_t p = 0; p < pixels * (size_t)n; p++) {
        const int32_t at = (int32_t)(p % pixels);
        memcpy(c->out + (first * pixels + p) * channels,
               pixel(&out, (int32_t)(p / pixels), at / out.v->w, at % out.v->w),
               channels * sizeof(float));
    }
    return status;
}

/* ---- whole ---------------------------------------------------------------------------------------------------------------- */

static nas_status plan(nas_ctx *ctx, coded *c, const nas_exec_options *options) {
    nas_status status = nas_graph_clone(ctx, c->graph, &c->codes);
    if (status == NAS_OK) status = nas__exec_plan(ctx, c->codes, options, false, &c->e);
    if (status != NAS_OK) return status;
    const nas_shape in = nas_graph_node(c->graph, nas_graph_input(c->graph))->shape;
    c->image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    c->arena = nas_arena_new(ctx, 1 << 14);
    if (c->arena == NULL) return NAS_ERR_NOMEM;
    c->steps = nas_arena_alloc(ctx, c->arena, (size_t)c->e->n_steps, sizeof *c->steps);
    c->scratch = nas_arena_alloc(ctx, c->arena, c->image_floats * (size_t)options->threads,
                                 sizeof *c->scratch);
    if (c->steps == NULL || c->scratch == NULL) return NAS_ERR_NOMEM;
    for (int32_t i = 0; i < c->e->n_steps && status == NAS_OK; i++) {
        c->steps[i] = (coded_step){.step = c->e->steps[i]};
        status = plan_step(ctx, c, &c->steps[i]);
    }
    if (status == NAS_OK) nas_exec_update(c->e); /* the copy has its codes now */
    return status;
}

nas_status nas_codes_run(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                         size_t n, nas_exec_read_fn read, void *arg, float *out) {
    coded c = {.graph = graph, .n = n, .read = read, .arg = arg, .out = out};
    nas_status status = plan(ctx, &c, options);
    const size_t chunks = (n + (size_t)options->chunk - 1) / (size_t)options->chunk;
    if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, run_chunk, &c);
    nas_exec_free(c.e);
    nas_graph_free(c.codes);
    nas_arena_free(c.arena);
    return nas_wrap(ctx, status, "network of integers '%s'", nas_graph_name(graph));
}
