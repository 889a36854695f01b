/* graph_phases.c - transposed convolutions as convolutions: output pixel (y*r + i, x*r + j) is a sum over input pixels around
 * (y, x) with the taps that meet phase (i, j), so r*r times as many channels at the input's size, then depth-to-space
 * (Shi et al., arXiv:1609.07009). Taps that a phase lacks are zeros of the window. The layer form has kernels for both; the
 * row form computes phases itself and never sees this. */
#include "compiler/compiler_internal.h"

#include <stdio.h>

typedef struct phases {
    int32_t rate;             /* r */
    int32_t reach_h, reach_w; /* input pixels that taps reach to either side */
} phases;

/* False for other operators, and where the output is not r times the input. */
static bool phases_of(const nas_graph *g, const nas_node *node, phases *out) {
    if (node->op != NAS_OP_CONV_TRANSPOSE) return false;
    const nas_conv_attributes *c = &node->conv;
    const nas_shape *in = &nas_graph_node(g, node->inputs[0])->shape;
    if (c->stride_h != c->stride_w || c->stride_h < 2 || c->groups != 1 || c->dilation_h != 1 ||
        c->dilation_w != 1 || node->shape.h != in->h * c->stride_h ||
        node->shape.w != in->w * c->stride_w ||
        c->out_channels > INT32_MAX / (c->stride_h * c->stride_h))
        return false;
    *out = (phases){.rate = c->stride_h,
                    .reach_h = nas__phase_reach(c->stride_h, c->kernel_h, c->pad_top),
                    .reach_w = nas__phase_reach(c->stride_h, c->kernel_w, c->pad_left)};
    return true;
}

static nas_status add_convolution(nas_ctx *ctx, const nas_node *node, const phases *p, nas_value x,
                                  nas_graph *g, nas_value *out) {
    char name[NAS_GRAPH_NAME_MAX + 1];
    (void)snprintf(name, sizeof name, "%.*s_phases", (int)(NAS_GRAPH_NAME_MAX - 7), node->name);
    nas_node proto = {.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}, .quant = node->quant};
    proto.conv = nas_conv_same(node->conv.out_channels * p->rate * p->rate, 1);
    proto.conv.kernel_h = 2 * p->reach_h + 1;
    proto.conv.kernel_w = 2 * p->reach_w + 1;
    proto.conv.pad_top = proto.conv.pad_bottom = p->reach_h;
    proto.conv.pad_left = proto.conv.pad_right = p->reach_w;
    proto.conv.has_bias = node->conv.has_bias;
    return nas_graph_add_node(ctx, g, name, &proto, out);
}

/* [O,KH,KW,I] of the transposed convolution to [O*r*r, window, I]; scales and biases once for each phase. */
static nas_status copy_phases(nas_ctx *ctx, const nas_graph *in, const nas_node *node,
                              const phases *p, nas_graph *g, nas_value conv) {
    const nas_conv_attributes *c = &node->conv;
    const nas_node *made = nas_graph_node(g, conv);
    const nas_param *from = nas_graph_param_const(in, node->params[0]);
    nas_param *to = nas_graph_param(g, made->params[0]);
    const size_t channels = (size_t)from->dims[3];
    const int32_t square = p->rate * p->rate, height = made->conv.kernel_h,
                  width = made->conv.kernel_w;
    for (int32_t o = 0; o < to->dims[0] && from->data != NULL; o++) {
        const int32_t phase = o % square;
        for (int32_t w = 0; w < height * width; w++) {
            const int32_t y = nas__phase_tap(p->rate, c->kernel_h, c->pad_top, phase / p->rate,
                                             w / width - p->reach_h),
                          x = nas__phase_tap(p->rate, c->kernel_w, c->pad_left, phase % p->rate,
                                             w % width - p->reach_w);
            if (y < 0 || x < 0) continue; /* stays 0 */
            const size_t tap =
                (size_t)(o / square * c->kernel_h + y) * (size_t)c->kernel_w + (size_t)x;
            for (size_t i = 0; i < channels; i++)
                to->data[((size_t)o * (size_t)(height * width) + (size_t)w) * channels + i] =
                    from->data[tap * channels + i];
        }
    }
    if (c->has_bias && from->data != NULL) {
        const float *bias = nas_graph_param_const(in, node->params[1])->data;
        for (int32_t o = 0; o < to->dims[0]; o++)
            nas_graph_param(g, made->params[1])->data[o] = bias[o / square];
    }
    if (from->scales == NULL) return NAS_OK;
    float *scales = nas_alloc_array(ctx, (size_t)to->dims[0], sizeof *scales);
    if (scales == NULL) return NAS_ERR_NOMEM;
    for (int32_t o = 0; o < to->dims[0]; o++)
        scales[o] = from->scales[o / square];
    const nas_status status =
        nas_graph_set_weight_scales(ctx, g, made->params[0], from->bits, scales);
    nas_free(scales);
    return status;
}

static nas_status copy_params(nas_ctx *ctx, const nas_graph *in, const nas_node *node, nas_graph *g,
                              nas_value v) {
    nas_status status = NAS_OK;
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX && status == NAS_OK; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *from = nas_graph_param_const(in, node->params[slot]);
        const int32_t index = nas_graph_node(g, v)->params[slot];
        nas_param *to = nas_graph_param(g, index);
        for (size_t i = 0; i < from->count && from->data != NULL; i++)
            to->data[i] = from->data[i];
        if (from->scales != NULL)
            status = nas_graph_set_weight_scales(ctx, g, index, from->bits, from->scales);
    }
    return status;
}

static nas_status build(nas_ctx *ctx, const nas_graph *in, nas_graph *g, nas_value *map) {
    const int32_t n = nas_graph_node_count(in);
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < n && status == NAS_OK; v++) {
        nas_node proto = *nas_graph_node(in, v);
        const nas_node *node = nas_graph_node(in, v);
        phases p;
        for (int32_t k = 0; k < proto.n_inputs; k++)
            proto.inputs[k] = map[proto.inputs[k]];
        if (phases_of(in, node, &p)) {
            nas_value conv = NAS_VALUE_NONE;
            status = add_convolution(ctx, node, &p, proto.inputs[0], g, &conv);
            proto = (nas_node){.op = NAS_OP_DEPTH_TO_SPACE,
                               .n_inputs = 1,
                               .inputs = {conv},
                               .block = p.rate,
                               .quant = node->quant};
        }
        if (status == NAS_OK) status = nas_graph_add_node(ctx, g, node->name, &proto, &map[v]);
    }
    if (status == NAS_OK && nas_graph_has_weights(in)) status = nas_graph_alloc_weights(ctx, g);
    for (nas_value v = 0; v < n && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(in, v);
        phases p;
        if (phases_of(in, node, &p)) {
            status = copy_phases(ctx, in, node, &p, g, nas_graph_node(g, map[v])->inputs[0]);
        } else {
            status = copy_params(ctx, in, node, g, map[v]);
        }
    }
    return status == NAS_OK ? nas_graph_set_output(ctx, g, map[nas_graph_output(in)]) : status;
}

nas_status nas__graph_phases(nas_ctx *ctx, const nas_graph *in, nas_graph **out) {
    const int32_t n = nas_graph_node_count(in);
    bool any = false;
    *out = NULL;
    for (nas_value v = 0; v < n; v++) {
        phases p;
        any = any || phases_of(in, nas_graph_node(in, v), &p);
    }
    if (!any) return NAS_OK;
    nas_graph *g = nas_graph_new(ctx, nas_graph_name(in));
    nas_value *map = nas_alloc_array(ctx, (size_t)n, sizeof *map);
    nas_status status = g == NULL || map == NULL ? NAS_ERR_NOMEM : build(ctx, in, g, map);
    nas_free(map);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    *out = g;
    return NAS_OK;
}
