/* graph_slice_build.c - the network without the channels that graph_slice.c found to need no computing. */
#include "compiler/graph_slice_internal.h"

#include <math.h>

static int32_t left_of(nas__slice *s, nas_value v) {
    int32_t left = 0;
    for (int32_t c = 0; c < nas_graph_node(s->in, v)->shape.c; c++)
        left += !nas__slice_gone(s, v, c);
    return left;
}

static const nas_param *param_of(const nas__slice *s, const nas_node *node, int32_t slot) {
    return nas_graph_param_const(s->in, node->params[slot]);
}

/* What the input channels that are gone add to output o. */
static double folded(nas__slice *s, const nas_node *node, int32_t o) {
    const nas_value x = node->inputs[0];
    const float *weight = param_of(s, node, 0)->data;
    const int32_t inputs = nas_graph_node(s->in, x)->shape.c;
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    double sum = 0;
    for (int32_t i = 0; i < inputs; i++) {
        const double value = s->value[s->first[x] + i];
        if (!nas__slice_gone(s, x, i) || !nas__slice_folds(s, node, value)) continue;
        for (int32_t t = 0; t < taps; t++)
            sum +=
                value *
                (double)weight[((size_t)o * (size_t)taps + (size_t)t) * (size_t)inputs + (size_t)i];
    }
    return sum;
}

static bool needs_bias(nas__slice *s, nas_value v) {
    const nas_node *node = nas_graph_node(s->in, v);
    for (int32_t o = 0; o < node->shape.c && !node->conv.has_bias; o++) {
        if (!nas__slice_gone(s, v, o) && folded(s, node, o) != 0) return true;
    }
    return node->conv.has_bias;
}

static nas_status add_node(nas__slice *s, nas_value v, nas_graph *g) {
    nas_node proto = *nas_graph_node(s->in, v);
    for (int32_t k = 0; k < proto.n_inputs; k++)
        proto.inputs[k] = s->map[proto.inputs[k]];
    switch (nas__slice_kind_of(s, v)) {
    case NAS__SLICE_CONV:
        proto.conv.has_bias = needs_bias(s, v);
        proto.conv.out_channels = left_of(s, v);
        break;
    case NAS__SLICE_DEPTHWISE: proto.conv.groups = proto.conv.out_channels = left_of(s, v); break;
    case NAS__SLICE_CONSTANT: proto.shape.c = left_of(s, v); break;
    case NAS__SLICE_CHANNELWISE: /* inferred */
    case NAS__SLICE_CONCAT:
    case NAS__SLICE_MIXES: break;
    }
    return nas_graph_add_node(s->ctx, g, nas_graph_node(s->in, v)->name, &proto, &s->map[v]);
}

static void copy_conv(nas__slice *s, nas_value v, const nas_node *made, nas_graph *g) {
    const nas_node *node = nas_graph_node(s->in, v);
    const nas_value x = node->inputs[0];
    const bool depthwise = node->conv.groups > 1;
    const int32_t inputs = depthwise ? 1 : nas_graph_node(s->in, x)->shape.c;
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    const float *weight = param_of(s, node, 0)->data;
    float *to = nas_graph_param(g, made->params[0])->data;
    float *bias = made->conv.has_bias ? nas_graph_param(g, made->params[1])->data : NULL;
    for (int32_t o = 0; o < node->shape.c; o++) {
        if (nas__slice_gone(s, v, o)) continue;
        const float *from = weight + (size_t)o * (size_t)taps * (size_t)inputs;
        for (int32_t k = 0; k < taps * inputs; k++) {
            if (depthwise || !nas__slice_gone(s, x, k % inputs)) *to++ = from[k];
        }
        if (bias == NULL) continue;
        const double old = node->conv.has_bias ? (double)param_of(s, node, 1)->data[o] : 0;
        *bias++ = (float)(old + (depthwise ? 0 : folded(s, node, o)));
    }
}

/* Params whose last extent is the channels of the value. */
static void copy_by_channel(nas__slice *s, nas_value v, const nas_node *made, nas_graph *g) {
    const nas_node *node = nas_graph_node(s->in, v);
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *from = param_of(s, node, slot);
        float *to = nas_graph_param(g, made->params[slot])->data;
        for (size_t i = 0; i < from->count; i++) {
            const int32_t c = (int32_t)(i % (size_t)node->shape.c);
            if (!nas__slice_gone(s, v, c)) *to++ = from->data[i];
        }
    }
}

static void copy_params(nas__slice *s, nas_value v, nas_graph *g) {
    const nas_node *node = nas_graph_node(s->in, v), *made = nas_graph_node(g, s->map[v]);
    switch (nas__slice_kind_of(s, v)) {
    case NAS__SLICE_CONV:
    case NAS__SLICE_DEPTHWISE: copy_conv(s, v, made, g); return;
    case NAS__SLICE_CHANNELWISE:
    case NAS__SLICE_CONCAT:
    case NAS__SLICE_CONSTANT: copy_by_channel(s, v, made, g); return;
    case NAS__SLICE_MIXES: break;
    }
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *from = param_of(s, node, slot);
        for (size_t i = 0; i < from->count; i++)
            nas_graph_param(g, made->params[slot])->data[i] = from->data[i];
    }
}

nas_status nas__slice_build(nas__slice *s, nas_graph **out) {
    nas_graph *g = nas_graph_new(s->ctx, nas_graph_name(s->in));
    if (g == NULL) return NAS_ERR_NOMEM; /* the name is legal */
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < s->n && status == NAS_OK; v++)
        status = add_node(s, v, g);
    if (status == NAS_OK) status = nas_graph_alloc_weights(s->ctx, g);
    for (nas_value v = 0; v < s->n && status == NAS_OK; v++)
        copy_params(s, v, g);
    if (status == NAS_OK) status = nas_graph_set_output(s->ctx, g, s->map[nas_graph_output(s->in)]);
    if (status == NAS_OK) status = nas_graph_verify(s->ctx, g);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    *out = g;
    return NAS_OK;
}
