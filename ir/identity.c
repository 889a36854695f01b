/* identity.c - which networks are the same: a hash over structure, attributes and, if asked, weights. The byte stream
 * is specified at nas_graph_hash in ir/graph.h; integers are written little-endian, so that every machine agrees. */
#include "ir/ir_internal.h"

#include <string.h>

/* ---- canonical order -------------------------------------------------------------------------------------------- */

/* order[k] = k-th node in canonical order, position[v] = place of node v in it. */
typedef struct canonical {
    nas_value *order;
    int32_t *position; /* -1 = not placed yet */
    nas_value *stack;
    int32_t n;
} canonical;

/* Post-order from `root`, first operand first. The stack holds a path of the graph, so n_nodes entries are enough. */
static void place(const nas_graph *g, nas_value root, canonical *c) {
    size_t depth = 0;
    c->stack[depth++] = root;
    while (depth > 0) {
        const nas_value v = c->stack[depth - 1];
        const nas_node *node = &g->nodes[v];
        nas_value next = NAS_VALUE_NONE;
        for (int32_t k = 0; k < node->n_inputs && next == NAS_VALUE_NONE; k++) {
            if (c->position[node->inputs[k]] < 0) next = node->inputs[k];
        }
        if (next != NAS_VALUE_NONE) {
            c->stack[depth++] = next;
            continue;
        }
        if (c->position[v] < 0) {
            c->position[v] = c->n;
            c->order[c->n++] = v;
        }
        depth--;
    }
}

static void canonical_deinit(canonical *c) {
    nas_free(c->stack);
    nas_free(c->position);
    nas_free(c->order);
}

static nas_status canonical_init(nas_ctx *ctx, const nas_graph *g, canonical *c) {
    *c = (canonical){0};
    c->order = nas_alloc_array(ctx, g->n_nodes, sizeof *c->order);
    c->position = nas_alloc_array(ctx, g->n_nodes, sizeof *c->position);
    c->stack = nas_alloc_array(ctx, g->n_nodes, sizeof *c->stack);
    if (c->order == NULL || c->position == NULL || c->stack == NULL) {
        canonical_deinit(c);
        return NAS_ERR_NOMEM;
    }
    for (size_t i = 0; i < g->n_nodes; i++)
        c->position[i] = -1;
    place(g, g->output, c);
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (c->position[i] < 0) place(g, (nas_value)i, c);
    }
    return NAS_OK;
}

/* ---- the byte stream -------------------------------------------------------------------------------------------- */

static void put_u32(nas_sha256 *h, uint32_t value) {
    const uint8_t bytes[4] = {(uint8_t)value, (uint8_t)(value >> 8), (uint8_t)(value >> 16),
                              (uint8_t)(value >> 24)};
    nas_sha256_update(h, bytes, sizeof bytes);
}

static void put_i32(nas_sha256 *h, int32_t value) {
    put_u32(h, (uint32_t)value);
}

static void put_floats(nas_sha256 *h, const float *values, size_t n) {
    enum { CHUNK = 512 };
    uint8_t bytes[CHUNK * 4];
    while (n > 0) {
        const size_t take = n < CHUNK ? n : CHUNK;
        for (size_t i = 0; i < take; i++) {
            uint32_t bits = 0;
            memcpy(&bits, &values[i], sizeof bits);
            for (size_t k = 0; k < 4; k++)
                bytes[4 * i + k] = (uint8_t)(bits >> (8 * k));
        }
        nas_sha256_update(h, bytes, take * 4);
        values += take;
        n -= take;
    }
}

void nas__param_sha256_hex(const nas_param *param, char out[NAS_SHA256_HEX]) {
    nas_sha256 h;
    nas_sha256_init(&h);
    put_floats(&h, param->data, param->count);
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, out);
}

static int32_t input_ordinal(const nas_graph *g, nas_value v) {
    int32_t ordinal = 0;
    for (nas_value i = 0; i < v; i++)
        ordinal += g->nodes[i].op == NAS_OP_INPUT ? 1 : 0;
    return ordinal;
}

static void put_i32s(nas_sha256 *h, const int32_t *values, size_t n) {
    for (size_t i = 0; i < n; i++)
        put_i32(h, values[i]);
}

static void put_attributes(nas_sha256 *h, const nas_graph *g, nas_value v) {
    const nas_node *node = &g->nodes[v];
    const nas_conv_attributes *a = &node->conv;
    switch (node->op) {
    case NAS_OP_INPUT: put_i32(h, input_ordinal(g, v)); break;
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE: {
        const int32_t fields[] = {a->out_channels,    a->kernel_h,   a->kernel_w,   a->stride_h,
                                  a->stride_w,        a->dilation_h, a->dilation_w, a->pad_top,
                                  a->pad_left,        a->pad_bottom, a->pad_right,  a->groups,
                                  a->has_bias ? 1 : 0};
        put_i32s(h, fields, sizeof fields / sizeof fields[0]);
        if (node->op == NAS_OP_CONV_TRANSPOSE) {
            put_i32(h, node->output_pad_h);
            put_i32(h, node->output_pad_w);
        }
        break;
    }
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: {
        const nas_pool_attributes *p = &node->pool;
        const int32_t fields[] = {p->kernel_h,   p->kernel_w,  p->stride_h,
                                  p->stride_w,   p->pad_top,   p->pad_left,
                                  p->pad_bottom, p->pad_right, p->count_include_pad ? 1 : 0};
        put_i32s(h, fields, sizeof fields / sizeof fields[0]);
        break;
    }
    case NAS_OP_UNARY: {
        const char *fn = nas_unary_name(node->unary);
        nas_sha256_update(h, fn, strlen(fn) + 1);
        put_floats(h, &node->alpha, 1);
        put_floats(h, &node->beta, 1);
        break;
    }
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM: put_floats(h, &node->epsilon, 1); break;
    case NAS_OP_LRN:
        put_i32(h, node->size);
        put_floats(h, &node->alpha, 1);
        put_floats(h, &node->beta, 1);
        put_floats(h, &node->epsilon, 1);
        break;
    case NAS_OP_CONCAT: put_i32(h, node->axis); break;
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
        put_i32s(h, node->begin, 4);
        put_i32s(h, node->end, 4);
        if (node->op == NAS_OP_PAD) put_floats(h, &node->scalar, 1);
        break;
    case NAS_OP_RESIZE: put_i32(h, (int32_t)node->resize); break;
    case NAS_OP_MATMUL: put_i32(h, node->transpose_b ? 1 : 0); break;
    case NAS_OP_TRANSPOSE: put_i32s(h, node->perm, 4); break;
    case NAS_OP_ADD_SCALAR: put_floats(h, &node->scalar, 1); break;
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CHANNEL_SHUFFLE: put_i32(h, node->block); break;
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_SOFTMAX:
    case NAS_OP_RESHAPE: /* the shape is in the stream already */
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_COUNT: break;
    }
}

/* Enters only where it is declared, so that graphs of floats keep their hashes. */
static void put_quantization(nas_sha256 *h, const nas_graph *g, const nas_node *node,
                             bool with_weights) {
    if (node->quant.is_set) {
        nas_sha256_update(h, "quant", 6);
        put_i32(h, node->quant.is_signed ? 1 : 0);
        put_floats(h, &node->quant.scale, 1);
        put_i32(h, node->quant.zero_point);
    }
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *param = &g->params[node->params[slot]];
        if (param->scales == NULL) continue;
        nas_sha256_update(h, "bits", 5);
        put_i32(h, slot);
        put_i32(h, param->bits);
        if (with_weights) put_floats(h, param->scales, (size_t)param->dims[0]);
    }
}

static void put_node(nas_sha256 *h, const nas_graph *g, nas_value v, const canonical *c,
                     bool with_weights) {
    const nas_node *node = &g->nodes[v];
    const char *op = nas_op_name(node->op);
    nas_sha256_update(h, op,
                      strlen(op) + 1); /* the name, not the enum: new operators keep old hashes */
    put_i32(h, node->n_inputs);
    for (int32_t k = 0; k < node->n_inputs; k++)
        put_i32(h, c->position[node->inputs[k]]);
    const int32_t shape[] = {node->shape.n, node->shape.h, node->shape.w, node->shape.c};
    for (size_t i = 0; i < 4; i++)
        put_i32(h, shape[i]);
    put_attributes(h, g, v);
    put_quantization(h, g, node, with_weights);
    if (!with_weights) return;
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        const nas_param *param = &g->params[node->params[slot]];
        put_floats(h, param->data, param->count);
    }
}

nas_status nas_graph_hash(nas_ctx *ctx, const nas_graph *g, bool with_weights,
                          char out[NAS_SHA256_HEX]) {
    if (g->output == NAS_VALUE_NONE) {
        return nas_fail(ctx, NAS_ERR_INVALID, "hash of '%s': the output is not set", g->name);
    }
    if (with_weights && !nas_graph_has_weights(g)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "hash of '%s' with weights: the graph carries none",
                        g->name);
    }
    canonical c;
    const nas_status status = canonical_init(ctx, g, &c);
    if (status != NAS_OK) return status;
    nas_sha256 h;
    nas_sha256_init(&h);
    const char *const format = with_weights ? "nas-graph-1-weights" : "nas-graph-1";
    nas_sha256_update(&h, format, strlen(format) + 1);
    put_i32(&h, c.n);
    for (int32_t i = 0; i < c.n; i++)
        put_node(&h, g, c.order[i], &c, with_weights);
    put_i32(&h, c.position[g->output]);
    canonical_deinit(&c);
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, out);
    return NAS_OK;
}
