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

static void put_attributes(nas_sha256 *h, const nas_graph *g, nas_value v) {
    const nas_node *node = &g->nodes[v];
    const nas_conv_attributes *a = &node->conv;
    switch (node->op) {
    case NAS_OP_INPUT: put_i32(h, input_ordinal(g, v)); break;
    case NAS_OP_CONV: {
        const int32_t fields[] = {a->out_channels,    a->kernel_h,   a->kernel_w,   a->stride_h,
                                  a->stride_w,        a->dilation_h, a->dilation_w, a->pad_top,
                                  a->pad_left,        a->pad_bottom, a->pad_right,  a->groups,
                                  a->has_bias ? 1 : 0};
        for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++)
            put_i32(h, fields[i]);
        break;
    }
    case NAS_OP_ADD_SCALAR: put_floats(h, &node->scalar, 1); break;
    case NAS_OP_DEPTH_TO_SPACE: put_i32(h, node->block); break;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_COUNT: break;
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
