/* text.c - a graph as lines for people and as JSON for programs. Both are deterministic. */
#include "ir/ir_internal.h"

/* ---- lines ------------------------------------------------------------------------------------------------------ */

static void dump_param(const nas_node *node, int32_t slot, const nas_param *param, nas_buf *out) {
    nas_buf_printf(out, " %s[", nas__param_suffix(node->op, slot));
    for (int32_t i = 0; i < param->rank; i++) {
        nas_buf_printf(out, "%s%" PRId32, i > 0 ? "," : "", param->dims[i]);
    }
    nas_buf_puts(out, "]");
    if (param->data == NULL) return;
    char hex[NAS_SHA256_HEX];
    nas__param_sha256_hex(param, hex);
    nas_buf_printf(out, "=%.8s", hex);
}

static void dump_attributes(const nas_node *node, nas_buf *out) {
    const nas_conv_attributes *a = &node->conv;
    switch (node->op) {
    case NAS_OP_CONV:
        nas_buf_printf(out, " kernel=%" PRId32 "x%" PRId32, a->kernel_h, a->kernel_w);
        if (a->stride_h != 1 || a->stride_w != 1) {
            nas_buf_printf(out, " stride=%" PRId32 "x%" PRId32, a->stride_h, a->stride_w);
        }
        if (a->dilation_h != 1 || a->dilation_w != 1) {
            nas_buf_printf(out, " dilation=%" PRId32 "x%" PRId32, a->dilation_h, a->dilation_w);
        }
        nas_buf_printf(out, " pad=%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32, a->pad_top,
                       a->pad_left, a->pad_bottom, a->pad_right);
        if (a->groups != 1) nas_buf_printf(out, " groups=%" PRId32, a->groups);
        break;
    case NAS_OP_ADD_SCALAR: nas_buf_printf(out, " scalar=%.9g", (double)node->scalar); break;
    case NAS_OP_DEPTH_TO_SPACE: nas_buf_printf(out, " block=%" PRId32, node->block); break;
    case NAS_OP_INPUT:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_COUNT: break;
    }
}

static void dump_node(const nas_graph *g, size_t index, nas_buf *out) {
    const nas_node *node = &g->nodes[index];
    const nas_shape s = node->shape;
    nas_buf_printf(out, "%%%zu = %s '%s'", index, nas_op_name(node->op), node->name);
    for (int32_t k = 0; k < node->n_inputs; k++) {
        nas_buf_printf(out, "%s%%%" PRId32, k == 0 ? " (" : ", ", node->inputs[k]);
    }
    if (node->n_inputs > 0) nas_buf_puts(out, ")");
    dump_attributes(node, out);
    nas_buf_printf(out, " -> [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32 "]", s.n, s.h, s.w,
                   s.c);
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] >= 0) dump_param(node, slot, &g->params[node->params[slot]], out);
    }
    nas_buf_puts(out, "\n");
}

nas_status nas_graph_dump(nas_ctx *ctx, const nas_graph *g, nas_buf *out) {
    nas_graph_cost cost;
    const nas_status status = nas_graph_cost_total(ctx, g, &cost);
    if (status != NAS_OK) return status;
    nas_buf_printf(out,
                   "graph '%s': %zu nodes, %" PRIu64 " params, %" PRIu64 " MACs, peak %" PRIu64
                   " bytes\n",
                   g->name, g->n_nodes, cost.params, cost.macs, cost.peak_activation_bytes);
    for (size_t i = 0; i < g->n_nodes; i++)
        dump_node(g, i, out);
    if (g->output == NAS_VALUE_NONE) {
        nas_buf_puts(out, "output not set\n");
    } else {
        nas_buf_printf(out, "output %%%" PRId32 "\n", g->output);
    }
    return nas_buf_status(ctx, out);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void json_ints(nas_json *j, const char *key, const int32_t *values, size_t n) {
    nas_json_key(j, key);
    nas_json_array(j);
    for (size_t i = 0; i < n; i++)
        nas_json_int(j, values[i]);
    nas_json_array_end(j);
}

static void json_int(nas_json *j, const char *key, uint64_t value) {
    nas_json_key(j, key);
    nas_json_int(j, (int64_t)value); /* costs fit int64: see cost.c */
}

static void json_text(nas_json *j, const char *key, const char *value) {
    nas_json_key(j, key);
    nas_json_string(j, value);
}

static void json_conv(nas_json *j, const nas_conv_attributes *a) {
    const int32_t kernel[] = {a->kernel_h, a->kernel_w};
    const int32_t stride[] = {a->stride_h, a->stride_w};
    const int32_t dilation[] = {a->dilation_h, a->dilation_w};
    const int32_t pad[] = {a->pad_top, a->pad_left, a->pad_bottom, a->pad_right};
    json_ints(j, "kernel", kernel, 2);
    json_ints(j, "stride", stride, 2);
    json_ints(j, "dilation", dilation, 2);
    json_ints(j, "pad", pad, 4);
    json_int(j, "groups", (uint64_t)a->groups);
    nas_json_key(j, "bias");
    nas_json_bool(j, a->has_bias);
}

static void json_node(nas_json *j, const nas_graph *g, size_t index) {
    const nas_node *node = &g->nodes[index];
    nas_json_object(j);
    json_text(j, "name", node->name);
    json_text(j, "op", nas_op_name(node->op));
    nas_json_key(j, "inputs");
    nas_json_array(j);
    for (int32_t k = 0; k < node->n_inputs; k++)
        nas_json_string(j, g->nodes[node->inputs[k]].name);
    nas_json_array_end(j);
    const int32_t shape[] = {node->shape.n, node->shape.h, node->shape.w, node->shape.c};
    json_ints(j, "shape", shape, 4);
    if (node->op == NAS_OP_CONV) json_conv(j, &node->conv);
    if (node->op == NAS_OP_ADD_SCALAR) {
        nas_json_key(j, "scalar");
        nas_json_double(j, (double)node->scalar);
    }
    if (node->op == NAS_OP_DEPTH_TO_SPACE) json_int(j, "block", (uint64_t)node->block);
    const nas_node_cost cost = nas_graph_node_cost(g, (nas_value)index);
    json_int(j, "macs", cost.macs);
    json_int(j, "params", cost.params);
    nas_json_object_end(j);
}

nas_status nas_graph_to_json(nas_ctx *ctx, const nas_graph *g, nas_buf *out) {
    char hash[NAS_SHA256_HEX];
    nas_graph_cost cost;
    nas_status status = nas_graph_hash(ctx, g, false, hash);
    if (status == NAS_OK) status = nas_graph_cost_total(ctx, g, &cost);
    if (status != NAS_OK) return status;
    nas_json j = nas_json_begin(out);
    nas_json_object(&j);
    json_text(&j, "name", g->name);
    json_text(&j, "structure_sha256", hash);
    json_text(&j, "output", g->nodes[g->output].name);
    json_int(&j, "macs", cost.macs);
    json_int(&j, "params", cost.params);
    json_int(&j, "peak_activation_bytes", cost.peak_activation_bytes);
    nas_json_key(&j, "nodes");
    nas_json_array(&j);
    for (size_t i = 0; i < g->n_nodes; i++)
        json_node(&j, g, i);
    nas_json_array_end(&j);
    nas_json_object_end(&j);
    return nas_buf_status(ctx, out);
}
