/* net.c - appends nodes to one graph for the decoders of the benchmark spaces. */
#include "spaces/spaces_internal.h"

#include <stdio.h>

enum { NAME_MAX_CHARS = NAS_GRAPH_NAME_MAX + 1 };

static void full_name(const nas__net *net, const char *name, char out[NAME_MAX_CHARS]) {
    (void)snprintf(out, NAME_MAX_CHARS, "%s%s", net->prefix, name);
}

static nas_value append(nas__net *net, const char *name, const nas_node *proto) {
    nas_value out = NAS_VALUE_NONE;
    if (net->status != NAS_OK) return out;
    char full[NAME_MAX_CHARS];
    full_name(net, name, full);
    net->status = nas_graph_add_node(net->ctx, net->graph, full, proto, &out);
    return out;
}

nas_value nas__net_input(nas__net *net, int32_t h, int32_t w, int32_t c) {
    nas_value out = NAS_VALUE_NONE;
    const nas_shape shape = {.n = 1, .h = h, .w = w, .c = c};
    if (net->status == NAS_OK)
        net->status = nas_graph_add_input(net->ctx, net->graph, "input", shape, &out);
    return out;
}

nas_value nas__net_conv(nas__net *net, const char *name, nas_value x, nas__conv c) {
    const int32_t pad = (c.kernel - 1) / 2;
    const nas_node proto = {.op = NAS_OP_CONV,
                            .n_inputs = 1,
                            .inputs = {x},
                            .conv = {.out_channels = c.channels,
                                     .kernel_h = c.kernel,
                                     .kernel_w = c.kernel,
                                     .stride_h = c.stride,
                                     .stride_w = c.stride,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .pad_top = pad,
                                     .pad_left = pad,
                                     .pad_bottom = pad,
                                     .pad_right = pad,
                                     .groups = c.groups,
                                     .has_bias = c.bias}};
    return append(net, name, &proto);
}

nas_value nas__net_relu(nas__net *net, const char *name, nas_value x) {
    const nas_node proto = {.op = NAS_OP_RELU, .n_inputs = 1, .inputs = {x}};
    return append(net, name, &proto);
}

nas_value nas__net_add(nas__net *net, const char *name, nas_value a, nas_value b) {
    const nas_node proto = {.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {a, b}};
    return append(net, name, &proto);
}

nas_value nas__net_mul(nas__net *net, const char *name, nas_value a, nas_value b) {
    const nas_node proto = {.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {a, b}};
    return append(net, name, &proto);
}

nas_value nas__net_unary(nas__net *net, const char *name, nas_value x, nas_unary fn, float alpha,
                         float beta) {
    const nas_node proto = {.op = NAS_OP_UNARY,
                            .n_inputs = 1,
                            .inputs = {x},
                            .unary = fn,
                            .alpha = alpha,
                            .beta = beta};
    return append(net, name, &proto);
}

nas_value nas__net_batch_norm(nas__net *net, const char *name, nas_value x) {
    const nas_node proto = {
        .op = NAS_OP_BATCH_NORM, .n_inputs = 1, .inputs = {x}, .epsilon = 1e-5f};
    return append(net, name, &proto);
}

nas_value nas__net_avg_pool(nas__net *net, const char *name, nas_value x, int32_t kernel,
                            int32_t stride, int32_t pad) {
    if (net->status != NAS_OK) return NAS_VALUE_NONE;
    const nas_shape in = nas__net_shape(net, x);
    const nas_node proto = {.op = NAS_OP_AVG_POOL,
                            .n_inputs = 1,
                            .inputs = {x},
                            .pool = {.kernel_h = kernel == 0 ? in.h : kernel,
                                     .kernel_w = kernel == 0 ? in.w : kernel,
                                     .stride_h = stride,
                                     .stride_w = stride,
                                     .pad_top = pad,
                                     .pad_left = pad,
                                     .pad_bottom = pad,
                                     .pad_right = pad}};
    return append(net, name, &proto);
}

nas_value nas__net_shuffle(nas__net *net, const char *name, nas_value x, int32_t groups) {
    const nas_node proto = {
        .op = NAS_OP_CHANNEL_SHUFFLE, .n_inputs = 1, .inputs = {x}, .block = groups};
    return append(net, name, &proto);
}

nas_shape nas__net_shape(const nas__net *net, nas_value x) {
    if (net->status != NAS_OK) return (nas_shape){1, 1, 1, 1};
    return nas_graph_node(net->graph, x)->shape;
}

nas_status nas__net_finish(nas__net *net, nas_value output, nas_graph **out) {
    if (net->status == NAS_OK) net->status = nas_graph_set_output(net->ctx, net->graph, output);
    if (net->status != NAS_OK) {
        nas_graph_free(net->graph);
        return nas_wrap(net->ctx, net->status, "decode");
    }
    *out = net->graph;
    return NAS_OK;
}
