/* slice.c - the smaller network, node by node: attributes that count channels are recomputed, weights are gathered. */
#include "compress/compress_internal.h"

#include <string.h>

/* Kept positions of a node's output and of its inputs. */
typedef struct kept {
    int32_t *out, n_out;
    int32_t *in, n_in; /* of the first input */
} kept;

typedef struct slicer {
    const nas_channels *ch;
    const nas_graph *from;
    nas_graph *to;
    const bool *keep;
    kept k;
} slicer;

static int32_t in_range(const int32_t *list, int32_t n, int32_t begin, int32_t end) {
    int32_t count = 0;
    for (int32_t i = 0; i < n; i++)
        count += list[i] >= begin && list[i] < end;
    return count;
}

/* begin[3], end[3] of SLICE and PAD for the channels that stay. */
static void shift_channels(const slicer *s, const nas_node *node, nas_node *proto) {
    const kept *k = &s->k;
    if (node->op == NAS_OP_SLICE) {
        proto->begin[3] = in_range(k->in, k->n_in, 0, node->begin[3]);
        proto->end[3] = proto->begin[3] + in_range(k->in, k->n_in, node->begin[3], node->end[3]);
        return;
    }
    const int32_t before = node->begin[3], c = nas_graph_node(s->from, node->inputs[0])->shape.c;
    proto->begin[3] = in_range(k->out, k->n_out, 0, before);
    proto->end[3] = in_range(k->out, k->n_out, before + c, node->shape.c);
}

static nas_node smaller_node(const slicer *s, const nas_node *node) {
    nas_node proto = *node;
    switch (node->op) {
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE:
        if (nas__is_depthwise(s->from, node)) proto.conv.groups = s->k.n_out;
        proto.conv.out_channels = s->k.n_out;
        break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD: shift_channels(s, node, &proto); break;
    case NAS_OP_CONSTANT:
    case NAS_OP_INPUT: proto.shape.c = s->k.n_out; break;
    case NAS_OP_RELU: /* shapes follow the inputs; RESHAPE's channels are fixed */
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONCAT:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    return proto;
}

/* Weights of a convolution: rows of kept outputs, within them taps of kept inputs. */
static void gather_weight(const slicer *s, const nas_node *node, const float *from, float *to) {
    const bool depthwise = nas__is_depthwise(s->from, node);
    const bool all = node->conv.groups > 1; /* grouped: the inputs of a filter are fixed */
    const int32_t c = nas_graph_node(s->from, node->inputs[0])->shape.c;
    const int32_t width = depthwise ? 1 : c / node->conv.groups;
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    for (int32_t o = 0; o < s->k.n_out; o++) {
        const float *filter = from + (size_t)s->k.out[o] * (size_t)taps * (size_t)width;
        for (int32_t t = 0; t < taps; t++) {
            const int32_t n = all ? width : s->k.n_in;
            for (int32_t i = 0; i < n; i++)
                *to++ = filter[t * width + (all ? i : s->k.in[i])];
        }
    }
}

static void gather_params(const slicer *s, const nas_node *node, const nas_node *made) {
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *from = nas_graph_param_const(s->from, node->params[slot]);
        float *to = nas_graph_param(s->to, made->params[slot])->data;
        if (node->op == NAS_OP_CONV && slot == 0) {
            gather_weight(s, node, from->data, to);
            continue;
        }
        if (from->count == nas_graph_param_const(s->to, made->params[slot])->count) {
            memcpy(to, from->data, from->count * sizeof *to);
            continue;
        }
        /* the last axis is channels: biases, norms, slopes, constants [n,h,w,c] */
        const size_t c = (size_t)node->shape.c, rows = from->count / c;
        for (size_t row = 0; row < rows; row++) {
            for (int32_t i = 0; i < s->k.n_out; i++)
                *to++ = from->data[row * c + (size_t)s->k.out[i]];
        }
    }
}

static nas_status slice_nodes(nas_ctx *ctx, slicer *s, bool weights) {
    nas_status status = NAS_OK;
    for (nas_value v = 0; v < s->ch->n_values && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(s->from, v);
        s->k.n_out = nas__kept_channels(s->ch, s->from, v, s->keep, s->k.out);
        if (node->n_inputs > 0)
            s->k.n_in = nas__kept_channels(s->ch, s->from, node->inputs[0], s->keep, s->k.in);
        if (s->k.n_out == 0)
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "pruning '%s': node '%s' would lose all its %d channels",
                            nas_graph_name(s->from), node->name, (int)node->shape.c);
        if (!weights) {
            const nas_node proto = smaller_node(s, node);
            nas_value made = 0;
            status = nas_graph_add_node(ctx, s->to, node->name, &proto, &made);
            if (status == NAS_OK && node->quant.is_set)
                status = nas_graph_set_quant(ctx, s->to, made, node->quant);
        } else {
            gather_params(s, node, nas_graph_node(s->to, v));
        }
    }
    return status;
}

nas_status nas_channels_slice(nas_ctx *ctx, const nas_channels *ch, const nas_graph *graph,
                              const bool *keep, nas_graph **out) {
    int32_t widest = 1;
    for (nas_value v = 0; v < ch->n_values; v++) {
        const int32_t c = nas_graph_node(graph, v)->shape.c;
        if (c > widest) widest = c;
    }
    slicer s = {.ch = ch, .from = graph, .keep = keep};
    s.k.out = nas_alloc_array(ctx, (size_t)widest, sizeof *s.k.out);
    s.k.in = nas_alloc_array(ctx, (size_t)widest, sizeof *s.k.in);
    s.to = nas_graph_new(ctx, nas_graph_name(graph));
    nas_status status = s.k.out == NULL || s.k.in == NULL || s.to == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = slice_nodes(ctx, &s, false);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, s.to, nas_graph_output(graph));
    if (status == NAS_OK && nas_graph_has_weights(graph)) {
        status = nas_graph_alloc_weights(ctx, s.to);
        if (status == NAS_OK) status = slice_nodes(ctx, &s, true);
    }
    if (status == NAS_OK) status = nas_graph_verify(ctx, s.to);
    nas_free(s.k.out);
    nas_free(s.k.in);
    if (status != NAS_OK) {
        nas_graph_free(s.to);
        return nas_wrap(ctx, status, "slicing channels");
    }
    *out = s.to;
    return NAS_OK;
}

nas_status nas_channels_mask(nas_ctx *ctx, const nas_channels *ch, nas_graph *graph,
                             const bool *keep) {
    if (!nas_graph_has_weights(graph))
        return nas_fail(ctx, NAS_ERR_INVALID, "masking '%s': no weights", nas_graph_name(graph));
    for (nas_value v = 0; v < ch->n_values; v++) {
        const nas_node *node = nas_graph_node(graph, v);
        if (node->op != NAS_OP_CONV || node->conv.groups > 1) continue;
        nas_param *p = nas_graph_param(graph, node->params[0]);
        const int32_t c = p->dims[3];
        for (size_t i = 0; i < p->count; i++) {
            const int32_t number = ch->of[node->inputs[0]][i % (size_t)c];
            if (number != NAS_CLASS_FIXED && !keep[number]) p->data[i] = 0;
        }
    }
    return NAS_OK;
}
