/* reference_quantized.c - the plain walk of reference_forward.c in floats, except that the values of integer operators are
 * computed from codes by quant_reference.c, and that values with a quantization exist as codes. */
#include "reference_quantized.h"

#include "quant_reference.h"
#include "reference.h"

#include <math.h>

/* Codes by value, one byte each, [h][w][c]; NULL for values in floats. */
typedef struct walk {
    uint8_t **codes;
} walk;

static const nas_quant *quant_of(const nas_graph *g, nas_value v) {
    return &nas_graph_node(g, v)->quant;
}

/* Of all channels, as large as the result or repeated along an axis. */
static bool spreads(nas_shape a, nas_shape result) {
    return (a.h == 1 || a.h == result.h) && (a.w == 1 || a.w == result.w) && a.c == result.c;
}

static bool same_quant(const nas_quant *a, const nas_quant *b) {
    return a->is_signed == b->is_signed && a->scale == b->scale && a->zero_point == b->zero_point;
}

/* ---- who computes in integers -------------------------------------------------------------------------------------- */

static int32_t readers(const nas_graph *g, nas_value v) {
    int32_t n = nas_graph_output(g) == v ? 1 : 0;
    for (nas_value r = v + 1; r < nas_graph_node_count(g); r++) {
        const nas_node *node = nas_graph_node(g, r);
        for (int32_t i = 0; i < node->n_inputs; i++)
            n += node->inputs[i] == v ? 1 : 0;
    }
    return n;
}

/* Of a node whose result has the quantization `out`. */
static reference_kind kind_of(const nas_graph *g, nas_value v, const nas_quant *out) {
    const nas_node *node = nas_graph_node(g, v);
    for (int32_t i = 0; i < node->n_inputs; i++) {
        if (!quant_of(g, node->inputs[i])->is_set) return REFERENCE_FLOAT;
    }
    if (node->op == NAS_OP_CONV) {
        const bool coded = nas_graph_param_const(g, node->params[0])->scales != NULL;
        return coded ? REFERENCE_QCONV : REFERENCE_FLOAT;
    }
    if (node->op == NAS_OP_ADD || node->op == NAS_OP_MUL) {
        for (int32_t i = 0; i < 2; i++) {
            if (!spreads(nas_graph_node(g, node->inputs[i])->shape, node->shape))
                return REFERENCE_FLOAT;
        }
        return node->op == NAS_OP_ADD ? REFERENCE_QADD : REFERENCE_QMUL;
    }
    if (node->op == NAS_OP_MAX_POOL)
        return same_quant(quant_of(g, node->inputs[0]), out) ? REFERENCE_QMAX_POOL
                                                             : REFERENCE_FLOAT;
    if (node->op == NAS_OP_PRELU) return REFERENCE_QPRELU;
    return node->op == NAS_OP_AVG_POOL ? REFERENCE_QAVG_POOL : REFERENCE_FLOAT;
}

reference_kind reference_quantized_kind(const nas_graph *g, nas_value v, nas_value *source) {
    const nas_node *node = nas_graph_node(g, v);
    *source = v;
    if (!node->quant.is_set) return REFERENCE_FLOAT;
    const bool clamps =
        node->op == NAS_OP_RELU || (node->op == NAS_OP_UNARY && node->unary == NAS_UNARY_CLIP);
    if (!clamps) return kind_of(g, v, &node->quant);
    const nas_value before = node->inputs[0];
    if (quant_of(g, before)->is_set || readers(g, before) != 1) return REFERENCE_FLOAT;
    const reference_kind kind = kind_of(g, before, &node->quant);
    if (kind != REFERENCE_QCONV && kind != REFERENCE_QADD && kind != REFERENCE_QMUL)
        return REFERENCE_FLOAT;
    *source = before;
    return kind;
}

/* ---- integer operators --------------------------------------------------------------------------------------------- */

/* Zero point and bounds of v, which may be an activation. */
static nas_requant requant_of(const nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    const nas_quant *q = &node->quant;
    nas_requant r = {.zero_out = q->zero_point, .low = q->is_signed ? -128 : 0};
    r.high = r.low + 255;
    const int32_t low = r.low, high = r.high;
    if (node->op == NAS_OP_RELU) r.low = q->zero_point;
    if (node->op == NAS_OP_UNARY) {
        r.low = nas_quant_value((double)node->alpha, (double)q->scale, q->zero_point, low, high);
        r.high = nas_quant_value((double)node->beta, (double)q->scale, q->zero_point, low, high);
    }
    return r;
}

static nas__view view_of(nas_shape s) {
    return (nas__view){.shape = s, .pitch = s.c, .row = (size_t)s.w * (size_t)s.c};
}

/* The input with a border of zero points: the extents that the last taps need. */
static uint8_t *with_border(nas_ctx *ctx, const nas_node *node, nas_shape in, const uint8_t *codes,
                            int32_t zero, nas_shape *extents) {
    const nas_conv_attributes *c = &node->conv;
    *extents =
        (nas_shape){1, in.h + c->pad_top + c->pad_bottom, in.w + c->pad_left + c->pad_right, in.c};
    const size_t row = (size_t)in.w * (size_t)in.c;
    const size_t wide = (size_t)extents->w * (size_t)in.c;
    uint8_t *out = nas_alloc_array(ctx, (size_t)extents->h * wide, 1);
    if (out == NULL) return NULL;
    for (size_t i = 0; i < (size_t)extents->h * wide; i++)
        out[i] = (uint8_t)zero;
    for (int32_t y = 0; y < in.h; y++) {
        uint8_t *to = out + (size_t)(y + c->pad_top) * wide + (size_t)(c->pad_left * in.c);
        for (size_t i = 0; i < row; i++)
            to[i] = codes[(size_t)y * row + i];
    }
    return out;
}

/* The numbers of a convolution; arrays of [O] and of all weights, from the caller. */
typedef struct conv_codes {
    int8_t *weight;
    int32_t *bias, *multiplier;
} conv_codes;

static double ratio_of(const nas_quant *in, const nas_param *weight, int32_t o,
                       const nas_quant *out) {
    return (double)in->scale * (double)weight->scales[o] / (double)out->scale;
}

static nas_status channel_codes(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                                const nas_quant *in, int32_t o, const conv_codes *codes) {
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const size_t n = weight->count / (size_t)weight->dims[0];
    int8_t *to = codes->weight + (size_t)o * n;
    const double scale = (double)weight->scales[o];
    nas_quant_weights(weight->data + (size_t)o * n, n, scale, weight->bits, to);
    nas_status status = NAS_OK;
    if (node->conv.has_bias) {
        const double bias = (double)nas_graph_param_const(g, node->params[1])->data[o];
        status = nas_quant_bias(ctx, bias, (double)in->scale, scale, &codes->bias[o]);
    }
    return status == NAS_OK ? nas_quant_accumulator(ctx, to, n, codes->bias[o]) : status;
}

/* Everything of `data` but the arrays' owners; the bias is zeroed before. */
static nas_status conv_numbers(nas_ctx *ctx, const nas_graph *g, nas_value v, const nas_node *node,
                               const conv_codes *codes, nas__qconv_data *data) {
    const nas_quant *in = quant_of(g, node->inputs[0]), *out = quant_of(g, v);
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    *data = (nas__qconv_data){.weight = codes->weight,
                              .bias = codes->bias,
                              .multiplier = codes->multiplier,
                              .zero_in = in->zero_point,
                              .requant = requant_of(g, v)};
    double most = 0;
    for (int32_t o = 0; o < weight->dims[0]; o++)
        most = fmax(most, ratio_of(in, weight, o, out));
    nas_status status = nas_quant_left(ctx, most, &data->requant.left);
    for (int32_t o = 0; o < weight->dims[0] && status == NAS_OK; o++) {
        status = channel_codes(ctx, g, node, in, o, codes);
        if (status == NAS_OK)
            status = nas_quant_multiplier(ctx, ratio_of(in, weight, o, out), data->requant.left,
                                          &codes->multiplier[o]);
    }
    return status;
}

static nas__qconv qconv_of(const nas_graph *g, nas_value v, const nas_node *node,
                           nas_shape extents) {
    const nas_conv_attributes *c = &node->conv;
    const nas_shape out = nas_graph_node(g, v)->shape;
    const nas_quant *in = quant_of(g, node->inputs[0]);
    return (nas__qconv){.conv = {.in_c = extents.c,
                                 .out_c = out.c,
                                 .groups = c->groups,
                                 .out_h = out.h,
                                 .out_w = out.w,
                                 .kernel_h = c->kernel_h,
                                 .kernel_w = c->kernel_w,
                                 .stride_h = c->stride_h,
                                 .stride_w = c->stride_w,
                                 .dilation_h = c->dilation_h,
                                 .dilation_w = c->dilation_w,
                                 .in_pitch = extents.c,
                                 .out_pitch = out.c,
                                 .in_row = (size_t)extents.w * (size_t)extents.c,
                                 .out_row = (size_t)out.w * (size_t)out.c},
                        .in_signed = in->is_signed,
                        .out_signed = quant_of(g, v)->is_signed,
                        .weight_bits = 8};
}

static nas_status run_conv(nas_ctx *ctx, const nas_graph *g, nas_value v, nas_value source,
                           const walk *w) {
    const nas_node *node = nas_graph_node(g, source);
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const nas_value x = node->inputs[0];
    const size_t channels = (size_t)weight->dims[0];
    nas_shape extents;
    conv_codes codes = {.weight = nas_alloc_array(ctx, weight->count, sizeof *codes.weight),
                        .bias = nas_alloc_array(ctx, channels, sizeof *codes.bias),
                        .multiplier = nas_alloc_array(ctx, channels, sizeof *codes.multiplier)};
    uint8_t *in = with_border(ctx, node, nas_graph_node(g, x)->shape, w->codes[x],
                              quant_of(g, x)->zero_point, &extents);
    nas_status status = NAS_ERR_NOMEM;
    if (codes.weight != NULL && codes.bias != NULL && codes.multiplier != NULL && in != NULL) {
        nas__qconv_data data;
        status = conv_numbers(ctx, g, v, node, &codes, &data);
        if (status == NAS_OK) {
            const nas__qconv q = qconv_of(g, v, node, extents);
            quant_reference_conv(&q, &data, in, NULL, w->codes[v]);
        }
    }
    nas_free(in);
    nas_free(codes.multiplier);
    nas_free(codes.bias);
    nas_free(codes.weight);
    return status;
}

static nas_status run_op(nas_ctx *ctx, const nas_graph *g, nas_value v, nas_value source,
                         nas__qop_kind kind, const walk *w) {
    const nas_node *node = nas_graph_node(g, source);
    nas__qop op = {.kind = kind,
                   .out = view_of(nas_graph_node(g, v)->shape),
                   .out_signed = quant_of(g, v)->is_signed,
                   .pool = node->pool};
    nas__qop_data data = {.requant = requant_of(g, v)};
    const double scale_out = (double)quant_of(g, v)->scale;
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < node->n_inputs && status == NAS_OK; i++) {
        const nas_quant *q = quant_of(g, node->inputs[i]);
        op.in[i] = view_of(nas_graph_node(g, node->inputs[i])->shape);
        op.in_signed[i] = q->is_signed;
        data.zero_in[i] = q->zero_point;
        if (kind == NAS__QOP_ADD)
            status =
                nas_quant_add_multiplier(ctx, (double)q->scale / scale_out, &data.multiplier[i]);
        else
            data.ratio = i == 0 ? (double)q->scale / scale_out : data.ratio * (double)q->scale;
    }
    if (status == NAS_OK) {
        quant_reference_op(&op, &data, w->codes[node->inputs[0]],
                           node->n_inputs > 1 ? w->codes[node->inputs[1]] : NULL, w->codes[v]);
    }
    return status;
}

static nas_status run_prelu(nas_ctx *ctx, const nas_graph *g, nas_value v, const walk *w) {
    const nas_node *node = nas_graph_node(g, v);
    const nas_quant *in = quant_of(g, node->inputs[0]), *out = quant_of(g, v);
    const double ratio = (double)in->scale / (double)out->scale;
    const float *slope = nas_graph_param_const(g, node->params[0])->data;
    const nas_requant r = requant_of(g, v);
    int32_t above = 0;
    nas_status status = nas_quant_add_multiplier(ctx, ratio, &above);
    const size_t count = reference_count(g, v), channels = (size_t)node->shape.c;
    for (size_t i = 0; i < count && status == NAS_OK; i++) {
        const int32_t q =
            quant_reference_code(w->codes[node->inputs[0]][i], in->is_signed) - in->zero_point;
        int32_t m = above;
        if (q < 0) status = nas_quant_slope_multiplier(ctx, ratio, (double)slope[i % channels], &m);
        w->codes[v][i] = (uint8_t)nas_quant_add(q, m, 0, 0, &r);
    }
    return status;
}

static nas_status run_integers(nas_ctx *ctx, const nas_graph *g, nas_value v, nas_value source,
                               reference_kind kind, const walk *w) {
    switch (kind) {
    case REFERENCE_FLOAT: break;
    case REFERENCE_QCONV: return run_conv(ctx, g, v, source, w);
    case REFERENCE_QADD: return run_op(ctx, g, v, source, NAS__QOP_ADD, w);
    case REFERENCE_QMUL: return run_op(ctx, g, v, source, NAS__QOP_MUL, w);
    case REFERENCE_QMAX_POOL: return run_op(ctx, g, v, source, NAS__QOP_MAX_POOL, w);
    case REFERENCE_QPRELU: return run_prelu(ctx, g, v, w);
    case REFERENCE_QAVG_POOL: return run_op(ctx, g, v, source, NAS__QOP_AVG_POOL, w);
    }
    return nas_fail(ctx, NAS_ERR_INTERNAL, "not an integer operator");
}

/* ---- values ---------------------------------------------------------------------------------------------------------- */

static void quantize(const nas_quant *q, const double *value, size_t count, uint8_t *codes) {
    const int32_t low = q->is_signed ? -128 : 0;
    for (size_t i = 0; i < count; i++) {
        const float ratio = (float)value[i] / q->scale;
        codes[i] = (uint8_t)nas_quant_value((double)ratio, 1, q->zero_point, low, low + 255);
    }
}

static void dequantize(const nas_quant *q, const uint8_t *codes, size_t count, double *value) {
    for (size_t i = 0; i < count; i++) {
        const int32_t code = quant_reference_code(codes[i], q->is_signed) - q->zero_point;
        value[i] = (double)((float)code * q->scale);
    }
}

static nas_status finish(nas_ctx *ctx, const nas_graph *g, nas_value v, double *value, void *user) {
    const walk *w = user;
    const nas_quant *q = quant_of(g, v);
    const size_t count = reference_count(g, v);
    nas_value source;
    const reference_kind kind = reference_quantized_kind(g, v, &source);
    for (size_t i = 0; i < count; i++)
        value[i] = (double)(float)value[i];
    if (!q->is_set) return NAS_OK;
    w->codes[v] = nas_alloc_array(ctx, count, 1);
    if (w->codes[v] == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    if (kind == REFERENCE_FLOAT)
        quantize(q, value, count, w->codes[v]);
    else
        status = run_integers(ctx, g, v, source, kind, w);
    if (status != NAS_OK) return nas_wrap(ctx, status, "node '%s'", nas_graph_node(g, v)->name);
    dequantize(q, w->codes[v], count, value);
    return NAS_OK;
}

nas_status reference_quantized(nas_ctx *ctx, const nas_graph *g, const float *in, float *out) {
    const size_t n = (size_t)nas_graph_node_count(g),
                 count = reference_count(g, nas_graph_output(g));
    double magnitude;
    walk w = {.codes = nas_alloc_array(ctx, n, sizeof *w.codes)};
    double *y = nas_alloc_array(ctx, count, sizeof *y);
    nas_status status = NAS_ERR_NOMEM;
    if (w.codes != NULL && y != NULL)
        status = reference_forward_with(ctx, g, in, finish, &w, y, &magnitude);
    for (size_t i = 0; i < count && status == NAS_OK; i++)
        out[i] = (float)y[i];
    for (size_t v = 0; v < n && w.codes != NULL; v++)
        nas_free(w.codes[v]);
    nas_free(y);
    nas_free(w.codes);
    return status;
}
