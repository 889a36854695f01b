/* layers_planes.c - which values lie in planes of four channels, pixels in lanes, and the activations that convolutions
 * between such values take over.
 *
 * Few channels of large images waste lanes when channels are in lanes, and staging them costs as much as the products.
 * Planes need neither; but only some layers read and write them. Values are taken as far as all layers that touch them can. */
#include "compiler/layers_network_internal.h"

enum { WIDTH_MIN = 64 };

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

/* Zeros among the weights are left out by other kernels: many are worth more than lanes. */
static bool has_many_zeros(const nas__layers *l, const nas__layer *layer) {
    const nas_param *w = nas_graph_param_const(l->graph, node_of(l, layer->node)->params[0]);
    size_t zeros = 0;
    for (size_t i = 0; w->data != NULL && i < w->count; i++)
        zeros += w->data[i] == 0;
    return 2 * zeros > w->count;
}

/* Small weights are wanted: codes of few bits are packed by other kernels. */
static bool wants_packed(const nas__layers *l, const nas__layer *layer) {
    return l->options->weight_price > 0 &&
           nas_graph_param_const(l->graph, node_of(l, layer->node)->params[0])->bits <= 4;
}

static bool can_compute(const nas__layers *l, const nas__layer *layer) {
    return layer->kind == NAS__LAYER_QCONV && nas__qconv_pixels_legal(l->target, &layer->conv) &&
           layer->conv.out_w >= WIDTH_MIN && !has_many_zeros(l, layer) && !wants_packed(l, layer);
}

/* How often layers read each value. */
static int32_t readers(const nas__layers *l, nas_value v) {
    int32_t n = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        for (int32_t k = 0; k < l->layers[i].n_inputs; k++)
            n += l->layers[i].inputs[k] == v;
    }
    return n;
}

/* The convolution whose codes the prelu `layer` alone reads, or NULL. */
static nas__layer *maker_of(const nas__layers *l, const nas__layer *layer) {
    for (int32_t i = 0; i < l->n_layers; i++) {
        nas__layer *conv = &l->layers[i];
        if (conv->value == layer->inputs[0])
            return can_compute(l, conv) && !conv->conv.has_residual && readers(l, conv->value) == 1
                       ? conv
                       : NULL;
    }
    return NULL;
}

static bool is_prelu(const nas__layer *layer) {
    return layer->kind == NAS__LAYER_QOP && layer->qop.kind == NAS__QOP_PRELU;
}

static bool may_lie(const nas__layers *l, nas_value v) {
    return nas__layers_quant(l, v) != NULL && l->places[v].host == v && l->places[v].same == v &&
           !l->places[v].constant && node_of(l, v)->shape.w >= WIDTH_MIN;
}

/* Values of a layer lie all in planes or none; did that change any? */
static bool settle(const nas__layers *l, const nas__layer *layer, bool *lies) {
    const bool conv = can_compute(l, layer), prelu = is_prelu(layer) && maker_of(l, layer) != NULL,
               end = layer->kind == NAS__LAYER_OUTPUT ||
                     (layer->kind == NAS__LAYER_QOP && layer->qop.kind == NAS__QOP_QUANTIZE);
    if (end) return false;
    bool all = (conv || prelu) && lies[layer->value], changed = false;
    for (int32_t k = 0; k < layer->n_inputs; k++) {
        const nas_value v = layer->inputs[k];
        const bool one = conv && k == 0 && layer->conv.in_c == 1; /* is staged */
        if (one && lies[v]) changed = true;
        if (one) lies[v] = false;
        all = all && (one || lies[v]);
    }
    if (all) return changed;
    for (int32_t k = 0; k < layer->n_inputs; k++) {
        changed = changed || lies[layer->inputs[k]];
        lies[layer->inputs[k]] = false;
    }
    changed = changed || lies[layer->value];
    lies[layer->value] = false;
    return changed;
}

/* The prelu of each convolution becomes a part of it. */
static void take_prelus(nas__layers *l) {
    int32_t n = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        nas__layer *layer = &l->layers[i];
        nas__layer *conv =
            is_prelu(layer) && l->places[layer->value].planar ? maker_of(l, layer) : NULL;
        if (conv == NULL) continue;
        conv->between = conv->value;
        conv->slope = layer->node;
        conv->value = layer->value;
        layer->value = NAS_VALUE_NONE;
    }
    for (int32_t i = 0; i < l->n_layers; i++) {
        if (l->layers[i].value == NAS_VALUE_NONE) continue;
        if (n < i) l->layers[n] = l->layers[i];
        n++;
    }
    l->n_layers = n;
}

/* ---- are planes faster? ------------------------------------------------------------------------------------------- */

static const double far_bytes_cycle = 10, prelu_cycles = 4; /* of a vector */

/* The convolution `layer` with values in planes, or with channels in lanes, as far as estimates look at it. */
static nas__qconv conv_with(const nas__layer *layer, bool planes) {
    nas__qconv q = {.conv = layer->conv,
                    .joins = layer->conv.has_residual,
                    .weight_bits = 8,
                    .half = true,
                    .single = true};
    nas__conv *c = &q.conv;
    const int32_t width = c->out_w + (c->kernel_w - 1) * c->dilation_w;
    c->act = NAS__LACT_NONE;
    c->in_pitch = c->in_c;
    c->out_pitch = c->residual_pitch = c->out_c;
    c->in_row = (size_t)(width * c->in_c);
    c->out_row = c->residual_row = (size_t)(c->out_w * c->out_c);
    if (!planes) return q;
    q.out_plane = q.residual_plane = nas__q_plane_bytes(c->out_w, 0);
    if (c->in_c > 1) q.in_plane = nas__q_plane_bytes(c->out_w, width - c->out_w);
    return q;
}

/* Planes are read and written from row to row, so that they stay near; lists of pixels layer by layer. */
static double cycles_with(const nas__layers *l, const nas__layer *layer, bool planes) {
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    const nas__qconv q = conv_with(layer, planes);
    const nas__conv *c = &q.conv;
    (void)nas__qconv_ways(l->target, &q, ways);
    const double pixels = (double)c->out_h * c->out_w, bytes = pixels * (c->in_c + c->out_c);
    return ways[0].cycles + (planes || bytes < l->target->l2_bytes ? 0 : bytes / far_bytes_cycle);
}

/* With matrix units it depends on the channels. */
static bool are_faster(const nas__layers *l, const bool *lies) {
    double with = 0, without = 0;
    if (nas__matrix_of(l->target) == nas__dot_of(l->target)) return true;
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        if (!lies[layer->value]) continue;
        const nas_shape shape = node_of(l, layer->value)->shape;
        if (is_prelu(layer)) without += prelu_cycles / 16 * shape.h * shape.w * shape.c;
        if (!can_compute(l, layer)) continue;
        with += cycles_with(l, layer, true);
        without += cycles_with(l, layer, false);
    }
    return with <= without;
}

nas_status nas__layers_planes(nas_ctx *ctx, nas__layers *l) {
    bool *lies = nas_arena_alloc(ctx, l->arena, (size_t)l->n_values, sizeof *lies);
    if (lies == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < l->n_values; v++)
        lies[v] = may_lie(l, v);
    for (nas_value v = 0; v < l->n_values; v++)
        lies[l->places[v].host] = lies[l->places[v].host] && l->places[v].host == v;
    for (bool changed = true; changed;) {
        changed = false;
        for (int32_t i = 0; i < l->n_layers; i++)
            changed = settle(l, &l->layers[i], lies) || changed;
    }
    if (!are_faster(l, lies)) return NAS_OK;
    for (nas_value v = 0; v < l->n_values; v++)
        l->places[v].planar = lies[v];
    take_prelus(l);
    return NAS_OK;
}
