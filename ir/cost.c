/* cost.c - MACs, parameters, bytes, and peak activation memory by liveness. Every figure is checked to fit int64,
 * because the database stores int64 and a wrapped cost would win a search. */
#include "ir/ir_internal.h"

#include <assert.h>

nas_status nas__product(nas_ctx *ctx, const char *what, const int64_t *factors, size_t n,
                        uint64_t *out) {
    int64_t product = 1;
    for (size_t i = 0; i < n; i++) {
        if (__builtin_mul_overflow(product, factors[i], &product)) {
            return nas_fail(ctx, NAS_ERR_RANGE, "%s: more than %" PRId64, what, INT64_MAX);
        }
    }
    *out = (uint64_t)product;
    return NAS_OK;
}

static nas_status value_bytes(nas_ctx *ctx, nas_shape s, uint64_t *out) {
    const int64_t factors[] = {(int64_t)sizeof(float), s.n, s.h, s.w, s.c};
    return nas__product(ctx, "bytes of an activation", factors, 5, out);
}

/* MACs of a convolution: output elements times kernel taps times input channels of a group. Taps in the padding count:
 * that is the convention of the field, and the work a dense kernel does. */
static nas_status conv_macs(nas_ctx *ctx, const nas_conv_attributes *a, int32_t in_channels,
                            nas_shape out_shape, uint64_t *out) {
    const int64_t factors[] = {out_shape.n,
                               out_shape.h,
                               out_shape.w,
                               out_shape.c,
                               a->kernel_h,
                               a->kernel_w,
                               in_channels / a->groups};
    return nas__product(ctx, "MACs of a convolution", factors, 7, out);
}

/* Each input pixel meets every tap: padding and output extent do not change the work. */
static nas_status conv_transpose_macs(nas_ctx *ctx, const nas_conv_attributes *a, nas_shape in,
                                      uint64_t *out) {
    const int64_t factors[] = {in.n, in.h, in.w, in.c, a->kernel_h, a->kernel_w, a->out_channels};
    return nas__product(ctx, "MACs of a transposed convolution", factors, 7, out);
}

static nas_status node_macs(nas_ctx *ctx, const nas_graph *g, const nas_node *node, nas_shape shape,
                            uint64_t *out) {
    if (node->op == NAS_OP_CONV) {
        return conv_macs(ctx, &node->conv, g->nodes[node->inputs[0]].shape.c, shape, out);
    }
    if (node->op == NAS_OP_CONV_TRANSPOSE) {
        return conv_transpose_macs(ctx, &node->conv, g->nodes[node->inputs[0]].shape, out);
    }
    if (node->op == NAS_OP_MATMUL) {
        const int64_t factors[] = {shape.n, shape.h, shape.w, shape.c,
                                   g->nodes[node->inputs[0]].shape.c};
        return nas__product(ctx, "MACs of a matrix product", factors, 5, out);
    }
    return NAS_OK;
}

nas_status nas__node_cost(nas_ctx *ctx, const nas_graph *g, const nas_node *node, nas_shape shape,
                          nas_node_cost *out) {
    nas_node_cost cost = {0};
    nas_status status = value_bytes(ctx, shape, &cost.output_bytes);
    if (status == NAS_OK) status = node_macs(ctx, g, node, shape, &cost.macs);
    for (int32_t i = 0; i < node->n_inputs && status == NAS_OK; i++) {
        uint64_t bytes = 0;
        status = value_bytes(ctx, g->nodes[node->inputs[i]].shape, &bytes);
        cost.input_bytes += bytes; /* two terms below 2^63 */
        if (status == NAS_OK && cost.input_bytes > INT64_MAX) {
            status = nas_fail(ctx, NAS_ERR_RANGE, "bytes read: more than %" PRId64, INT64_MAX);
        }
    }
    if (status != NAS_OK) return status;
    nas_param expected[NAS_NODE_PARAMS_MAX];
    status = nas__expected_params(ctx, g, node, expected);
    if (status != NAS_OK) return status;
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++) {
        if (expected[i].rank != 0) cost.params += expected[i].count;
    }
    /* one term of at most 2^61 elements, the others vectors of at most 2^31 */
    cost.weight_bytes = cost.params * sizeof(float);
    *out = cost;
    return NAS_OK;
}

nas_node_cost nas_graph_node_cost(const nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    nas_node_cost cost = {0};
    const nas_status status = nas__node_cost(NULL, g, node, node->shape, &cost);
    assert(status == NAS_OK); /* checked when the node was added or resized */
    (void)status;
    return cost;
}

/* ---- totals ---------------------------------------------------------------------------------------------------- */

static nas_status add_to(nas_ctx *ctx, const char *what, uint64_t value, uint64_t *total) {
    if (value > (uint64_t)INT64_MAX - *total) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: more than %" PRId64, what, INT64_MAX);
    }
    *total += value;
    return NAS_OK;
}

/* last[v] = index of the last node that needs value v, v itself when none does; n for the network's output, which
 * stays until the end. */
static void find_last_uses(const nas_graph *g, int32_t *last) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        const nas_node *node = &g->nodes[i];
        last[i] = (int32_t)i;
        for (int32_t k = 0; k < node->n_inputs; k++)
            last[node->inputs[k]] = (int32_t)i;
    }
    if (g->output != NAS_VALUE_NONE) last[g->output] = (int32_t)g->n_nodes;
}

/* Network inputs are the caller's from the start to their last use; any other value lives from its node on. */
static nas_status peak_bytes(nas_ctx *ctx, const nas_graph *g, const int32_t *last, uint64_t *out) {
    uint64_t live = 0, peak = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op != NAS_OP_INPUT) continue;
        const nas_status status = add_to(ctx, "activation bytes",
                                         nas_graph_node_cost(g, (nas_value)i).output_bytes, &live);
        if (status != NAS_OK) return status;
    }
    for (size_t i = 0; i < g->n_nodes; i++) {
        const nas_node *node = &g->nodes[i];
        const uint64_t bytes = nas_graph_node_cost(g, (nas_value)i).output_bytes;
        if (node->op != NAS_OP_INPUT) {
            const nas_status status = add_to(ctx, "activation bytes", bytes, &live);
            if (status != NAS_OK) return status;
        }
        if (live > peak) peak = live;
        if (last[i] == (int32_t)i) live -= bytes; /* nobody reads it */
        for (int32_t k = 0; k < node->n_inputs; k++) {
            const nas_value v = node->inputs[k];
            bool again = false; /* x + x frees x once */
            for (int32_t earlier = 0; earlier < k; earlier++)
                again = again || node->inputs[earlier] == v;
            if (last[v] == (int32_t)i && !again) live -= nas_graph_node_cost(g, v).output_bytes;
        }
    }
    *out = peak;
    return NAS_OK;
}

nas_status nas_graph_cost_total(nas_ctx *ctx, const nas_graph *g, nas_graph_cost *out) {
    nas_graph_cost total = {0};
    nas_status status = NAS_OK;
    for (size_t i = 0; i < g->n_nodes && status == NAS_OK; i++) {
        const nas_node_cost cost = nas_graph_node_cost(g, (nas_value)i);
        status = add_to(ctx, "MACs", cost.macs, &total.macs);
        if (status == NAS_OK) status = add_to(ctx, "params", cost.params, &total.params);
    }
    if (status != NAS_OK) return nas_wrap(ctx, status, "cost of '%s'", g->name);
    int32_t *last = nas_alloc_array(ctx, g->n_nodes, sizeof *last);
    if (last == NULL) return NAS_ERR_NOMEM;
    find_last_uses(g, last);
    status = peak_bytes(ctx, g, last, &total.peak_activation_bytes);
    nas_free(last);
    if (status != NAS_OK) return nas_wrap(ctx, status, "cost of '%s'", g->name);
    *out = total;
    return NAS_OK;
}
