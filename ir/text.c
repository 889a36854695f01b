/* text.c - a graph as lines for people and as JSON for programs. Both are deterministic. */
#include "ir/ir_internal.h"

/* ---- lines ------------------------------------------------------------------------------------------------------ */

static void dump_param(const nas_node *node, int32_t slot, const nas_param *param, nas_buf *out) {
    nas_buf_printf(out, " %s[", nas__param_suffix(node->op, slot));
    for (int32_t i = 0; i < param->rank; i++) {
        nas_buf_printf(out, "%s%" PRId32, i > 0 ? "," : "", param->dims[i]);
    }
    nas_buf_puts(out, "]");
    if (param->scales != NULL) nas_buf_printf(out, ":%" PRId32 "bit", param->bits);
    if (param->data == NULL) return;
    char hex[NAS_SHA256_HEX];
    nas__param_sha256_hex(param, hex);
    nas_buf_printf(out, "=%.8s", hex);
}

static void dump_ints(nas_buf *out, const char *key, const int32_t *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        nas_buf_printf(out, "%s%s%" PRId32, i == 0 ? key : ",", i == 0 ? "=" : "", values[i]);
}

static void dump_pool(const nas_pool_attributes *p, nas_buf *out) {
    const int32_t pad[] = {p->pad_top, p->pad_left, p->pad_bottom, p->pad_right};
    nas_buf_printf(out, " kernel=%" PRId32 "x%" PRId32 " stride=%" PRId32 "x%" PRId32, p->kernel_h,
                   p->kernel_w, p->stride_h, p->stride_w);
    dump_ints(out, " pad", pad, 4);
    if (p->count_include_pad) nas_buf_puts(out, " count_include_pad");
}

static const char *resize_name(nas_resize_mode mode) {
    switch (mode) {
    case NAS_RESIZE_NEAREST_ASYMMETRIC: return "nearest_asymmetric";
    case NAS_RESIZE_NEAREST_HALF_PIXEL: return "nearest_half_pixel";
    case NAS_RESIZE_BILINEAR_ASYMMETRIC: return "bilinear_asymmetric";
    case NAS_RESIZE_BILINEAR_HALF_PIXEL: return "bilinear_half_pixel";
    case NAS_RESIZE_BILINEAR_ALIGN_CORNERS: return "bilinear_align_corners";
    }
    return "unknown";
}

static void dump_attributes(const nas_node *node, nas_buf *out) {
    const nas_conv_attributes *a = &node->conv;
    switch (node->op) {
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE:
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
        if (node->op == NAS_OP_CONV_TRANSPOSE) {
            nas_buf_printf(out, " output_pad=%" PRId32 ",%" PRId32, node->output_pad_h,
                           node->output_pad_w);
        }
        break;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: dump_pool(&node->pool, out); break;
    case NAS_OP_UNARY:
        nas_buf_printf(out, " %s alpha=%.9g beta=%.9g", nas_unary_name(node->unary),
                       (double)node->alpha, (double)node->beta);
        break;
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM: nas_buf_printf(out, " epsilon=%.9g", (double)node->epsilon); break;
    case NAS_OP_LRN:
        nas_buf_printf(out, " size=%" PRId32 " alpha=%.9g beta=%.9g k=%.9g", node->size,
                       (double)node->alpha, (double)node->beta, (double)node->epsilon);
        break;
    case NAS_OP_CONCAT: nas_buf_printf(out, " axis=%" PRId32, node->axis); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
        dump_ints(out, " begin", node->begin, 4);
        dump_ints(out, " end", node->end, 4);
        if (node->op == NAS_OP_PAD) nas_buf_printf(out, " scalar=%.9g", (double)node->scalar);
        break;
    case NAS_OP_RESIZE: nas_buf_printf(out, " mode=%s", resize_name(node->resize)); break;
    case NAS_OP_MATMUL: nas_buf_puts(out, node->transpose_b ? " transpose_b" : ""); break;
    case NAS_OP_TRANSPOSE: dump_ints(out, " perm", node->perm, 4); break;
    case NAS_OP_CHANNEL_SHUFFLE: nas_buf_printf(out, " groups=%" PRId32, node->block); break;
    case NAS_OP_ADD_SCALAR: nas_buf_printf(out, " scalar=%.9g", (double)node->scalar); break;
    case NAS_OP_DEPTH_TO_SPACE: nas_buf_printf(out, " block=%" PRId32, node->block); break;
    case NAS_OP_INPUT:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_SOFTMAX:
    case NAS_OP_RESHAPE:
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
    if (node->quant.is_set) {
        nas_buf_printf(out, " quant=%s,%.9g,%" PRId32, node->quant.is_signed ? "s8" : "u8",
                       (double)node->quant.scale, node->quant.zero_point);
    }
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

static void json_real(nas_json *j, const char *key, float value) {
    nas_json_key(j, key);
    nas_json_double(j, (double)value);
}

static void json_pool(nas_json *j, const nas_pool_attributes *p) {
    const int32_t kernel[] = {p->kernel_h, p->kernel_w}, stride[] = {p->stride_h, p->stride_w};
    const int32_t pad[] = {p->pad_top, p->pad_left, p->pad_bottom, p->pad_right};
    json_ints(j, "kernel", kernel, 2);
    json_ints(j, "stride", stride, 2);
    json_ints(j, "pad", pad, 4);
    nas_json_key(j, "count_include_pad");
    nas_json_bool(j, p->count_include_pad);
}

static void json_attributes(nas_json *j, const nas_node *node) {
    const int32_t output_pad[] = {node->output_pad_h, node->output_pad_w};
    switch (node->op) {
    case NAS_OP_CONV: json_conv(j, &node->conv); break;
    case NAS_OP_CONV_TRANSPOSE:
        json_conv(j, &node->conv);
        json_ints(j, "output_pad", output_pad, 2);
        break;
    case NAS_OP_ADD_SCALAR: json_real(j, "scalar", node->scalar); break;
    case NAS_OP_DEPTH_TO_SPACE: json_int(j, "block", (uint64_t)node->block); break;
    case NAS_OP_CHANNEL_SHUFFLE: json_int(j, "groups", (uint64_t)node->block); break;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: json_pool(j, &node->pool); break;
    case NAS_OP_UNARY:
        json_text(j, "function", nas_unary_name(node->unary));
        json_real(j, "alpha", node->alpha);
        json_real(j, "beta", node->beta);
        break;
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM: json_real(j, "epsilon", node->epsilon); break;
    case NAS_OP_LRN:
        json_int(j, "size", (uint64_t)node->size);
        json_real(j, "alpha", node->alpha);
        json_real(j, "beta", node->beta);
        json_real(j, "k", node->epsilon);
        break;
    case NAS_OP_CONCAT: json_int(j, "axis", (uint64_t)node->axis); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
        json_ints(j, "begin", node->begin, 4);
        json_ints(j, "end", node->end, 4);
        if (node->op == NAS_OP_PAD) json_real(j, "scalar", node->scalar);
        break;
    case NAS_OP_RESIZE: json_text(j, "mode", resize_name(node->resize)); break;
    case NAS_OP_MATMUL:
        nas_json_key(j, "transpose_b");
        nas_json_bool(j, node->transpose_b);
        break;
    case NAS_OP_TRANSPOSE: json_ints(j, "perm", node->perm, 4); break;
    case NAS_OP_INPUT:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_SOFTMAX:
    case NAS_OP_RESHAPE:
    case NAS_OP_COUNT: break;
    }
}

static void json_quant(nas_json *j, const nas_quant *quant) {
    nas_json_key(j, "quant");
    nas_json_object(j);
    nas_json_key(j, "signed");
    nas_json_bool(j, quant->is_signed);
    json_real(j, "scale", quant->scale);
    nas_json_key(j, "zero_point");
    nas_json_int(j, quant->zero_point);
    nas_json_object_end(j);
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
    json_attributes(j, node);
    if (node->quant.is_set) json_quant(j, &node->quant);
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
