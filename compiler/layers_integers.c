/* layers_integers.c - layers that compute on codes: which can, with what scales, and their weight blocks.
 *
 * A layer is one of integers when its operands and its result are stored as codes and ir/quantize.h says what it computes:
 * convolutions with quantized weights, sums, products, pools, moves, and ReLU or clip, alone or at the end of those. */
#include "compiler/layers_network_internal.h"

#include <math.h>
#include <string.h>

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

static const nas_quant *quant_of(const nas__layers *l, nas_value v) {
    return nas__layers_quant(l, v);
}

static const nas_param *param_of(const nas__layers *l, nas_value v, int32_t slot) {
    const int32_t index = v == NAS_VALUE_NONE ? -1 : node_of(l, v)->params[slot];
    return index < 0 ? NULL : nas_graph_param_const(l->graph, index);
}

/* ---- which layers ------------------------------------------------------------------------------------------------- */

static bool is_clamp(nas__layer_act act) {
    return act == NAS__LACT_NONE || act == NAS__LACT_RELU || act == NAS__LACT_CLIP;
}

/* As large as the result, or one row or column that is repeated. */
static bool spreads(const nas_shape *a, const nas_shape *result) {
    return (a->h == result->h || a->h == 1) && (a->w == result->w || a->w == 1) &&
           a->c == result->c;
}

/* Sums and products of two operands of all channels, where their ratios have multipliers. */
static bool pair_to_integers(const nas__layers *l, nas__layer *layer, nas__qop_kind kind) {
    const double out = (double)quant_of(l, layer->value)->scale;
    double product = 1;
    layer->qop.kind = kind;
    for (int32_t k = 0; k < 2; k++) {
        const double scale = (double)quant_of(l, layer->inputs[k])->scale;
        product *= scale;
        if (!spreads(&node_of(l, layer->inputs[k])->shape, &node_of(l, layer->value)->shape) ||
            (kind == NAS__QOP_ADD && !(scale / out < NAS_QUANT_ADD_RATIO_MAX)))
            return false;
    }
    return kind == NAS__QOP_ADD || product / out < (double)(1 << NAS_QUANT_LEFT_MAX);
}

static bool conv_to_integers(const nas__layers *l, nas__layer *layer) {
    if (param_of(l, layer->node, 0)->scales == NULL || !is_clamp(layer->conv.act)) return false;
    layer->kind = NAS__LAYER_QCONV;
    return true;
}

/* Slopes are numbers of the network, not of its structure: those that have no multiplier are refused when packed. Scales
 * decide here. */
static bool slopes_fit(const nas__layers *l, nas__layer *layer) {
    layer->qop.kind = NAS__QOP_PRELU;
    return (double)quant_of(l, layer->inputs[0])->scale / (double)quant_of(l, layer->value)->scale <
           NAS_QUANT_ADD_RATIO_MAX;
}

/* An activation on codes alone: a copy with other bounds. */
static bool clamp_to_integers(nas__layer *layer, nas__layer_act act, float lo, float hi) {
    layer->qop = nas__qop_copy();
    layer->op.act = act;
    layer->op.lo = lo;
    layer->op.hi = hi;
    return true;
}

static bool op_to_integers(const nas__layers *l, nas__layer *layer) {
    const nas_node *node = node_of(l, layer->node);
    const nas_quant *out = quant_of(l, layer->value);
    const nas_quant *in = layer->n_inputs > 0 ? quant_of(l, layer->inputs[0]) : NULL;
    if (!is_clamp(layer->op.act)) return false;
    layer->qop = (nas__qop){.pool = node->pool};
    switch (node->op) {
    case NAS_OP_INPUT: layer->qop.kind = NAS__QOP_QUANTIZE; return true;
    case NAS_OP_MAX_POOL: layer->qop.kind = NAS__QOP_MAX_POOL; return nas__same_quant(in, out);
    case NAS_OP_AVG_POOL: layer->qop.kind = NAS__QOP_AVG_POOL; return true;
    case NAS_OP_ADD: return pair_to_integers(l, layer, NAS__QOP_ADD);
    case NAS_OP_MUL: return pair_to_integers(l, layer, NAS__QOP_MUL);
    case NAS_OP_DEPTH_TO_SPACE:
        layer->qop.kind = NAS__QOP_DEPTH_TO_SPACE;
        layer->qop.block = node->block;
        layer->qop.mapped = !nas__same_quant(in, out);
        return true;
    case NAS_OP_RESIZE:
        layer->qop.kind = NAS__QOP_NEAREST;
        layer->qop.resize = node->resize;
        layer->qop.mapped = !nas__same_quant(in, out);
        return node->resize == NAS_RESIZE_NEAREST_ASYMMETRIC ||
               node->resize == NAS_RESIZE_NEAREST_HALF_PIXEL;
    case NAS_OP_RELU:
        if (nas__same_quant(in, out)) return clamp_to_integers(layer, NAS__LACT_RELU, 0, 0);
        layer->qop.kind = NAS__QOP_TABLE;
        return true;
    case NAS_OP_PRELU: return slopes_fit(l, layer);
    case NAS_OP_UNARY:
        if (node->unary == NAS_UNARY_CLIP && nas__same_quant(in, out))
            return clamp_to_integers(layer, NAS__LACT_CLIP, node->alpha, node->beta);
        layer->qop.kind = NAS__QOP_TABLE;
        return true;
    case NAS_OP_ADD_SCALAR: layer->qop.kind = NAS__QOP_TABLE; return true;
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_SUB:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    return false;
}

bool nas__layer_to_integers(const nas__layers *l, nas__layer *layer) {
    bool codes = quant_of(l, layer->value) != NULL;
    for (int32_t k = 0; k < layer->n_inputs && k < 2; k++)
        codes = codes && quant_of(l, layer->inputs[k]) != NULL;
    if (!codes) return false;
    if (layer->kind == NAS__LAYER_CONV) return conv_to_integers(l, layer);
    nas__layer made = *layer;
    if (!op_to_integers(l, &made)) return false;
    *layer = made;
    layer->kind = NAS__LAYER_QOP;
    return true;
}

/* ---- scales ------------------------------------------------------------------------------------------------------- */

/* Codes of the result between which an activation holds it. */
static nas_requant bounds_of(const nas_quant *q, nas__layer_act act, float lo, float hi) {
    const int32_t least = q->is_signed ? -128 : 0;
    nas_requant r = {.zero_out = q->zero_point, .low = least, .high = least + 255};
    if (act == NAS__LACT_RELU) r.low = q->zero_point;
    if (act == NAS__LACT_CLIP) {
        r.low = nas_quant_value((double)lo, (double)q->scale, q->zero_point, least, least + 255);
        r.high = nas_quant_value((double)hi, (double)q->scale, q->zero_point, least, least + 255);
    }
    return r;
}

/* Of output channel o: steps of the result for one step of the accumulator. */
static double ratio_of(const nas__layers *l, const nas__layer *layer, int32_t o) {
    const nas_value result = layer->between == NAS_VALUE_NONE ? layer->value : layer->between;
    const double in = (double)quant_of(l, layer->inputs[0])->scale,
                 out = (double)quant_of(l, result)->scale,
                 weight = (double)param_of(l, layer->node, 0)->scales[o];
    const double ratio = in * weight / out;
    return layer->conv.has_residual && layer->between == NAS_VALUE_NONE
               ? ratio * (1 << NAS_QUANT_FRACTION)
               : ratio;
}

static double ratio_max(const nas__layers *l, const nas__layer *layer) {
    double most = 0;
    for (int32_t o = 0; o < layer->conv.out_c; o++)
        most = fmax(most, ratio_of(l, layer, o));
    return most;
}

/* ---- numbers ------------------------------------------------------------------------------------------------------ */

typedef struct channels {
    int8_t *weight;
    int32_t *bias, *multiplier, *below;
} channels;

static nas_status channel_data(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                               int32_t left, const channels *out) {
    const nas_param *weight = param_of(l, layer->node, 0), *bias = param_of(l, layer->node, 1);
    const size_t n = weight->count / (size_t)weight->dims[0];
    const double in = (double)quant_of(l, layer->inputs[0])->scale;
    nas_status status = NAS_OK;
    for (int32_t o = 0; o < weight->dims[0] && status == NAS_OK; o++) {
        const double scale = (double)weight->scales[o];
        nas_quant_weights(weight->data + (size_t)o * n, n, scale, weight->bits,
                          out->weight + (size_t)o * n);
        out->bias[o] = 0;
        if (bias != NULL)
            status = nas_quant_bias(ctx, (double)bias->data[o], in, scale, &out->bias[o]);
        if (status == NAS_OK)
            status = nas_quant_multiplier(ctx, ratio_of(l, layer, o), left, &out->multiplier[o]);
    }
    return status;
}

/* Multipliers of a prelu that ends the layer, of codes below the zero point. */
static nas_status slopes(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                         int32_t *below) {
    const nas_param *slope = param_of(l, layer->slope, 0);
    const double ratio =
        (double)quant_of(l, layer->between)->scale / (double)quant_of(l, layer->value)->scale;
    nas_status status = NAS_OK;
    for (size_t c = 0; c < slope->count && status == NAS_OK; c++)
        status = nas_quant_slope_multiplier(ctx, ratio, (double)slope->data[c], &below[c]);
    return status;
}

static void channels_free(channels *c) {
    nas_free(c->below);
    nas_free(c->weight);
    nas_free(c->bias);
    nas_free(c->multiplier);
}

/* The numbers of a convolution, in `c`, which is the caller's to free whatever the status. */
static nas_status numbers_of(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                             channels *c, nas__qconv_data *data) {
    const nas_param *weight = param_of(l, layer->node, 0);
    const size_t channels_n = (size_t)weight->dims[0];
    const nas_quant *result = quant_of(l, layer->value);
    *data = (nas__qconv_data){
        .zero_in = quant_of(l, layer->inputs[0])->zero_point,
        .requant = bounds_of(result, layer->conv.act, layer->conv.lo, layer->conv.hi)};
    nas_status status = nas_quant_left(ctx, ratio_max(l, layer), &data->requant.left);
    if (status == NAS_OK && layer->between != NAS_VALUE_NONE) {
        const nas_quant *between = quant_of(l, layer->between);
        data->between = bounds_of(between, layer->conv.act, layer->conv.lo, layer->conv.hi);
        data->between.left = data->requant.left;
        data->requant = bounds_of(result, layer->op.act, layer->op.lo, layer->op.hi);
        data->requant.left = data->between.left;
        status = nas_quant_add_multiplier(ctx, (double)between->scale / (double)result->scale,
                                          &data->multiplier_between);
    }
    if (status == NAS_OK && layer->conv.has_residual) {
        const nas_quant *residual = quant_of(l, layer->inputs[1]);
        data->requant.zero_residual = residual->zero_point;
        status = nas_quant_add_multiplier(ctx, (double)residual->scale / (double)result->scale,
                                          &data->requant.multiplier_residual);
    }
    if (status != NAS_OK) return status;
    c->below = nas_alloc_array(ctx, channels_n, sizeof *c->below);
    c->weight = nas_alloc_array(ctx, weight->count, sizeof *c->weight);
    c->bias = nas_alloc_array(ctx, channels_n, sizeof *c->bias);
    c->multiplier = nas_alloc_array(ctx, channels_n, sizeof *c->multiplier);
    if (c->weight == NULL || c->bias == NULL || c->multiplier == NULL || c->below == NULL)
        return NAS_ERR_NOMEM;
    status = channel_data(ctx, l, layer, data->requant.left, c);
    data->weight = c->weight;
    data->bias = c->bias;
    data->multiplier = c->multiplier;
    data->below = c->below;
    if (status == NAS_OK && layer->slope != NAS_VALUE_NONE)
        status = slopes(ctx, l, layer, c->below);
    return status;
}

/* ---- plan --------------------------------------------------------------------------------------------------------- */

/* The codes of the weights, [O,KH,KW,I]; nas_free. NULL: no memory. */
static int8_t *codes_of(nas_ctx *ctx, const nas_param *weight) {
    const size_t n = weight->count / (size_t)weight->dims[0];
    int8_t *codes = nas_alloc_array(ctx, weight->count, sizeof *codes);
    for (int32_t o = 0; codes != NULL && o < weight->dims[0]; o++)
        nas_quant_weights(weight->data + (size_t)o * n, n, (double)weight->scales[o], weight->bits,
                          codes + (size_t)o * n);
    return codes;
}

/* Which codes are 0: those of weights that are 0, and of small ones; of dense weights in 4 bits that is many. And are all of
 * them powers of two? */
static nas_status look_at_codes(nas_ctx *ctx, const nas__layers *l, nas__layer *layer,
                                bool *powers) {
    enum { SHARE_MIN = 16 };
    const nas_param *w = param_of(l, layer->node, 0);
    *powers = layer->conv.groups == 1 && w->data != NULL;
    if (!*powers) return NAS_OK;
    int8_t *codes = codes_of(ctx, w);
    uint8_t *kept = codes != NULL ? nas_arena_alloc(ctx, l->arena, w->count, 1) : NULL;
    size_t zeros = 0;
    for (size_t i = 0; kept != NULL && i < w->count; i++) {
        kept[i] = codes[i] != 0;
        zeros += codes[i] == 0;
        *powers = *powers && nas__quant_is_power(codes[i]);
    }
    nas_free(codes);
    if (kept == NULL) return NAS_ERR_NOMEM;
    if (zeros == 0 || zeros * SHARE_MIN < w->count) return NAS_OK;
    layer->conv.kept = kept;
    layer->zeros = (double)zeros / (double)w->count;
    return NAS_OK;
}

/* What do the numbers allow? Numbers that the packer will refuse are its business; without numbers nobody knows. */
static nas_status look_at_numbers(nas_ctx *ctx, const nas__layers *l, nas__layer *layer) {
    const nas_param *bias = param_of(l, layer->node, 1), *slope = param_of(l, layer->slope, 0);
    if (param_of(l, layer->node, 0)->data == NULL || (bias != NULL && bias->data == NULL) ||
        (slope != NULL && slope->data == NULL))
        return NAS_OK;
    channels c = {0};
    nas__qconv_data data = {0};
    const nas_status status = numbers_of(ctx, l, layer, &c, &data);
    if (status == NAS_OK) nas__qconv_look(&layer->qconv, &data);
    channels_free(&c);
    return status == NAS_ERR_NOMEM ? status : NAS_OK;
}

/* Taps that few outputs do not have, as phases of a transposed convolution; the code grows with the outputs. */
static nas_status find_absent(nas_ctx *ctx, const nas__layers *l, nas__layer *layer) {
    enum { OUTPUTS_MAX = 16, SHARE_MIN = 12 };
    const nas_param *w = param_of(l, layer->node, 0);
    const nas__conv *c = &layer->conv;
    const size_t in_c = (size_t)c->in_c;
    const size_t taps = (size_t)c->out_c * (size_t)(c->kernel_h * c->kernel_w);
    if (w->data == NULL || in_c == 1 || c->out_c > OUTPUTS_MAX) return NAS_OK;
    uint8_t *absent = nas_arena_alloc(ctx, l->arena, taps, 1);
    if (absent == NULL) return NAS_ERR_NOMEM;
    size_t n = 0;
    for (size_t tap = 0; tap < taps; tap++) {
        absent[tap] = 1;
        for (size_t i = 0; i < in_c && absent[tap] != 0; i++)
            absent[tap] = w->data[tap * in_c + i] == 0;
        n += absent[tap];
    }
    if (n * SHARE_MIN >= taps) layer->qconv.absent = absent;
    return NAS_OK;
}

static nas_status plan_conv(nas_ctx *ctx, const nas__layers *l, nas__layer *layer) {
    nas__qconv *q = &layer->qconv;
    const nas__view in = nas__layers_view(l, layer->inputs[0]),
                    out = nas__layers_view(l, layer->value);
    bool powers = false;
    nas_status status = look_at_codes(ctx, l, layer, &powers);
    if (status != NAS_OK) return status;
    *q = (nas__qconv){.conv = layer->conv,
                      .in_signed = quant_of(l, layer->inputs[0])->is_signed,
                      .out_signed = quant_of(l, layer->value)->is_signed,
                      .joins = layer->between != NAS_VALUE_NONE && layer->conv.has_residual,
                      .weight_bits = param_of(l, layer->node, 0)->bits,
                      .powers = powers && param_of(l, layer->node, 0)->bits > 4,
                      .has_left = ratio_max(l, layer) >= 1};
    q->conv.act = NAS__LACT_NONE;
    q->conv.lo = q->conv.hi = 0;
    q->conv.in_pitch = in.pitch;
    q->conv.in_row = in.row;
    q->conv.out_pitch = out.pitch;
    q->conv.out_row = out.row;
    if (out.plane > 0) {
        q->in_plane = in.plane;
        q->out_plane = out.plane;
        q->half = ratio_max(l, layer) < 0.5;
        q->prelu = layer->slope != NAS_VALUE_NONE;
        status = find_absent(ctx, l, layer);
    }
    if (status == NAS_OK && (out.plane > 0 || nas__qconv_looks(l->target)))
        status = look_at_numbers(ctx, l, layer);
    if (status != NAS_OK) return status;
    if (q->conv.has_residual) {
        const nas__view residual = nas__layers_view(l, layer->inputs[1]);
        q->residual_plane = residual.plane;
        q->residual_signed = quant_of(l, layer->inputs[1])->is_signed;
        q->conv.residual_pitch = residual.pitch;
        q->conv.residual_row = residual.row;
    }
    layer->n_ways = nas__qconv_ways(l->target, q, layer->qways);
    layer->way = 0;
    return NAS_OK;
}

void nas__layer_size_integers(const nas__layers *l, nas__layer *layer, size_t *scratch_bytes,
                              size_t *weight_bytes) {
    *scratch_bytes = 0;
    if (layer->kind != NAS__LAYER_QCONV) {
        layer->units = nas__qop_units(&layer->qop);
        *weight_bytes = nas__qop_weight_bytes(&layer->qop);
        return;
    }
    const nas__qconv *q = &layer->qconv;
    const nas__qconv_way *way = &layer->qways[layer->way];
    layer->units = nas__qconv_units(l->target, q, way);
    *scratch_bytes = nas__qconv_scratch_bytes(l->target, q, way);
    *weight_bytes = nas__qconv_weight_bytes(l->target, q, way);
}

nas_status nas__layer_plan_integers(nas_ctx *ctx, const nas__layers *l, nas__layer *layer) {
    if (layer->kind == NAS__LAYER_QCONV) return plan_conv(ctx, l, layer);
    nas__qop *op = &layer->qop;
    if (layer->kind == NAS__LAYER_OUTPUT) {
        *op = (nas__qop){.kind = NAS__QOP_DEQUANTIZE};
        if (l->shuffle != NAS_VALUE_NONE) op->block = node_of(l, l->shuffle)->block;
    } else {
        op->out = nas__layers_view(l, layer->value);
        op->out_signed = op->kind != NAS__QOP_DECODE && quant_of(l, layer->value)->is_signed;
        /* a copy into a concatenation is as large as what it copies */
        if (layer->value == layer->node && node_of(l, layer->node)->op == NAS_OP_CONCAT &&
            op->kind == NAS__QOP_AVG_POOL)
            op->out.shape = node_of(l, layer->inputs[0])->shape;
    }
    for (int32_t k = 0; k < layer->n_inputs; k++) {
        const nas_quant *q = quant_of(l, layer->inputs[k]);
        op->in[k] = nas__layers_view(l, layer->inputs[k]);
        op->in_signed[k] = q != NULL && q->is_signed;
    }
    return NAS_OK;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

static nas_status pack_conv(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                            void *out) {
    channels c = {0};
    nas__qconv_data data = {0};
    nas_status status = numbers_of(ctx, l, layer, &c, &data);
    if (status == NAS_OK) {
        status =
            nas__qconv_pack(ctx, l->target, &layer->qconv, &layer->qways[layer->way], &data, out);
    }
    channels_free(&c);
    return status;
}

/* What a node makes of each code, by the byte of the code. */
static void fill_table(const nas__layers *l, const nas__layer *layer, uint8_t *table) {
    const nas_node *node = node_of(l, layer->node);
    const nas_quant *in = quant_of(l, layer->inputs[0]), *out = quant_of(l, layer->value);
    const nas_requant r = bounds_of(out, NAS__LACT_NONE, 0, 0);
    for (int32_t byte = 0; byte < 256; byte++) {
        const int32_t code = in->is_signed && byte > 127 ? byte - 256 : byte;
        const float real = (float)(code - in->zero_point) * in->scale;
        float value = layer->qop.mapped ? real : real > 0 ? real : 0;
        if (node->op == NAS_OP_ADD_SCALAR) value = real + node->scalar;
        if (node->op == NAS_OP_UNARY) value = (float)nas__unary_value(node, (double)real);
        table[byte] = (uint8_t)nas_quant_value((double)(value / out->scale), 1, out->zero_point,
                                               r.low, r.high);
    }
}

static nas_status pack_map(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                           nas__qop_data *data, void *out) {
    uint8_t table[256];
    if (nas__qop_has_table(&layer->qop)) {
        fill_table(l, layer, table);
        data->table = table;
        return nas__qop_pack(ctx, &layer->qop, data, out);
    }
    const nas_param *slope = param_of(l, layer->node, 0);
    int32_t *below = nas_alloc_array(ctx, slope->count, sizeof *below);
    nas_status status = below == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas_quant_add_multiplier(ctx, data->ratio, &data->multiplier[0]);
    for (size_t c = 0; c < slope->count && status == NAS_OK; c++)
        status = nas_quant_slope_multiplier(ctx, data->ratio, (double)slope->data[c], &below[c]);
    data->below = below;
    if (status == NAS_OK) status = nas__qop_pack(ctx, &layer->qop, data, out);
    nas_free(below);
    return status;
}

static nas_status pack_op(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer, void *out) {
    nas__qop_data data = {.scale = 1, .ratio = 1};
    const nas_quant *result = layer->kind == NAS__LAYER_OUTPUT ? NULL : quant_of(l, layer->value);
    if (result != NULL) {
        data.requant = bounds_of(result, layer->op.act, layer->op.lo, layer->op.hi);
        data.scale = result->scale;
    }
    for (int32_t k = 0; k < layer->n_inputs; k++) {
        const nas_quant *q = quant_of(l, layer->inputs[k]);
        if (q == NULL) continue;
        data.zero_in[k] = q->zero_point;
        if (result == NULL) { /* decoded */
            data.scale = q->scale;
            continue;
        }
        const double ratio = (double)q->scale / (double)result->scale;
        if (k == 0) data.ratio = ratio;
        if (k == 1 && layer->qop.kind == NAS__QOP_MUL) data.ratio *= (double)q->scale;
        if (layer->qop.kind != NAS__QOP_ADD) continue;
        const nas_status status = nas_quant_add_multiplier(ctx, ratio, &data.multiplier[k]);
        if (status != NAS_OK) return status;
    }
    if (layer->qop.kind == NAS__QOP_PRELU || nas__qop_has_table(&layer->qop))
        return pack_map(ctx, l, layer, &data, out);
    return nas__qop_pack(ctx, &layer->qop, &data, out);
}

nas_status nas__layer_pack_integers(nas_ctx *ctx, const nas__layers *l, const nas__layer *layer,
                                    void *out) {
    return layer->kind == NAS__LAYER_QCONV ? pack_conv(ctx, l, layer, out)
                                           : pack_op(ctx, l, layer, out);
}
