/* graph.c - building, reading, copying and resizing a graph. See ir/graph.h.
 *
 * Invariant: a node that is in the graph has legal attributes, inputs before it, an inferred shape, its params, and
 * costs that fit int64. A failed call leaves the graph as it was. */
#include "ir/ir_internal.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

const char *nas_op_name(nas_op op) {
    static const char *const names[NAS_OP_COUNT] = {
#define NAS_OPERATOR(code, name, inputs_min, inputs_max) [NAS_OP_##code] = name,
#include "ir/ops.def"
#undef NAS_OPERATOR
    };
    return (int)op >= 0 && op < NAS_OP_COUNT ? names[op] : "unknown";
}

const char *nas_unary_name(nas_unary fn) {
    static const char *const names[NAS_UNARY_COUNT] = {
        "clip", "leaky_relu", "sigmoid", "hard_sigmoid", "hard_swish", "swish", "tanh",
        "erf",  "gelu",       "exp",     "sqrt",         "neg",        "abs",   "affine"};
    return (int)fn >= 0 && fn < NAS_UNARY_COUNT ? names[fn] : "unknown";
}

/* ---- names --------------------------------------------------------------------------------------------------- */

/* Of ASCII, whatever the locale. */
static bool is_name_character(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.';
}

static bool legal_text(const char *name, const char *also) {
    for (const char *p = name; *p != '\0'; p++) {
        if (!is_name_character(*p) && strchr(also, *p) == NULL) return false;
    }
    return true;
}

static nas_status check_name(nas_ctx *ctx, const char *what, const char *name, const char *also) {
    if (name == NULL || name[0] == '\0')
        return nas_fail(ctx, NAS_ERR_INVALID, "%s name is empty", what);
    if (strlen(name) > NAS_GRAPH_NAME_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "%s name '%.40s...' has %zu characters, at most %d",
                        what, name, strlen(name), NAS_GRAPH_NAME_MAX);
    }
    if (!legal_text(name, also)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "%s name '%s': only letters, digits and _.%s are allowed", what, name,
                        also);
    }
    return NAS_OK;
}

nas_status nas__check_node_name(nas_ctx *ctx, const char *name) {
    const nas_status status = check_name(ctx, "node", name, "");
    if (status != NAS_OK) return status;
    static const char *const reserved[] = {".weight", ".bias", ".slope",    ".scalar",
                                           ".scale",  ".mean", ".variance", ".value"};
    const size_t len = strlen(name);
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        const size_t tail = strlen(reserved[i]);
        if (len >= tail && strcmp(name + len - tail, reserved[i]) == 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "node name '%s': names ending in '%s' are for params", name,
                            reserved[i]);
        }
    }
    return NAS_OK;
}

/* ---- life ------------------------------------------------------------------------------------------------------ */

nas_graph *nas_graph_new(nas_ctx *ctx, const char *name) {
    if (check_name(ctx, "graph", name, "-") != NAS_OK) return NULL;
    nas_graph *g = nas_alloc_array(ctx, 1, sizeof *g);
    if (g == NULL) return NULL;
    g->output = NAS_VALUE_NONE;
    g->name = nas_strdup(ctx, name);
    if (g->name == NULL) {
        nas_graph_free(g);
        return NULL;
    }
    return g;
}

void nas_graph_free(nas_graph *graph) {
    if (graph == NULL) return;
    for (size_t i = 0; i < graph->n_params; i++) {
        nas_free(graph->params[i].scales);
        nas_free(graph->params[i].data);
    }
    for (size_t i = 0; i < graph->n_nodes; i++)
        nas_free((void *)(uintptr_t)graph->nodes[i].name); /* ours; const for readers only */
    nas_free(graph->params);
    nas_free(graph->nodes);
    nas_free(graph->name);
    nas_free(graph);
}

/* Names a node and its params in one block, which node->name owns: "conv", "conv.weight", "conv.bias". `params` by slot,
 * rank 0 = unused. On failure nothing has a name. */
static nas_status name_node(nas_ctx *ctx, const char *name, nas_node *node,
                            nas_param *params[NAS_NODE_PARAMS_MAX]) {
    const size_t length = strlen(name);
    size_t total = length + 1;
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++) {
        if (params[i] != NULL) total += length + strlen(nas__param_suffix(node->op, i)) + 2;
    }
    char *block = nas_alloc_array(ctx, total, 1);
    if (block == NULL) return NAS_ERR_NOMEM;
    memcpy(block, name, length + 1);
    node->name = block;
    char *next = block + length + 1;
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++) {
        if (params[i] == NULL) continue;
        const char *suffix = nas__param_suffix(node->op, i);
        const size_t tail = strlen(suffix) + 1;
        memcpy(next, name, length);
        next[length] = '.';
        memcpy(next + length + 1, suffix, tail);
        params[i]->name = next;
        next += length + 1 + tail;
    }
    return NAS_OK;
}

/* Data of param `from` for its copy `to`, which is the graph's already. */
static nas_status copy_param_data(nas_ctx *ctx, nas_param *to, const nas_param *from) {
    if (from->data != NULL) {
        to->data = nas_alloc_aligned(ctx, from->count, sizeof(float), NAS_PARAM_ALIGN);
        if (to->data == NULL) return NAS_ERR_NOMEM;
        memcpy(to->data, from->data, from->count * sizeof(float));
    }
    if (from->scales != NULL) {
        const size_t n = (size_t)from->dims[0];
        to->scales = nas_alloc_array(ctx, n, sizeof(float));
        if (to->scales == NULL) return NAS_ERR_NOMEM;
        memcpy(to->scales, from->scales, n * sizeof(float));
    }
    return NAS_OK;
}

/* The next node of the copy, with names of its own for its params, whose places and slots stay. */
static nas_status copy_node(nas_ctx *ctx, nas_graph *to, const nas_node *from) {
    nas_node node = *from;
    nas_param *params[NAS_NODE_PARAMS_MAX] = {NULL};
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++)
        if (node.params[i] >= 0) params[i] = &to->params[node.params[i]];
    const nas_status status = name_node(ctx, from->name, &node, params);
    if (status == NAS_OK) to->nodes[to->n_nodes++] = node;
    return status;
}

nas_status nas_graph_clone(nas_ctx *ctx, const nas_graph *graph, nas_graph **out) {
    nas_graph *copy = nas_graph_new(ctx, graph->name);
    if (copy == NULL) return NAS_ERR_NOMEM; /* the name is legal */
    nas_status status =
        nas_grow(ctx, &copy->nodes, &copy->cap_nodes, graph->n_nodes, sizeof(nas_node));
    if (status == NAS_OK) {
        status =
            nas_grow(ctx, &copy->params, &copy->cap_params, graph->n_params, sizeof(nas_param));
    }
    for (size_t i = 0; i < graph->n_params && status == NAS_OK; i++) {
        nas_param *param = &copy->params[copy->n_params++]; /* the copy's, also on failure */
        *param = graph->params[i];
        param->data = param->scales = NULL;
        status = copy_param_data(ctx, param, &graph->params[i]);
    }
    for (size_t i = 0; i < graph->n_nodes && status == NAS_OK; i++)
        status = copy_node(ctx, copy, &graph->nodes[i]);
    if (status != NAS_OK) {
        nas_graph_free(copy);
        return status;
    }
    copy->output = graph->output;
    *out = copy;
    return NAS_OK;
}

/* ---- builders -------------------------------------------------------------------------------------------------- */

static nas_status check_new_node(nas_ctx *ctx, const nas_graph *g, const char *name,
                                 const nas_node *node) {
    nas_status status = nas__check_node_name(ctx, name);
    if (status == NAS_OK) status = nas__check_arity(ctx, node);
    if (status == NAS_OK) status = nas__check_quant(ctx, &node->quant);
    if (status != NAS_OK) return status;
    if (g->n_nodes >= NAS_GRAPH_NODES_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "the graph has %zu nodes already, the limit",
                        g->n_nodes);
    }
    if (nas_graph_find(g, name) != NAS_VALUE_NONE) {
        return nas_fail(ctx, NAS_ERR_INVALID, "the name is taken: choose another");
    }
    for (int32_t i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] < 0 || (size_t)node->inputs[i] >= g->n_nodes) {
            return nas_fail(ctx, NAS_ERR_INVALID, "input %" PRId32 " is value %" PRId32 " of %zu",
                            i, node->inputs[i], g->n_nodes);
        }
    }
    return NAS_OK;
}

/* Everything about the new node that can be wrong without allocating; fills its shape. */
static nas_status infer_new_node(nas_ctx *ctx, const nas_graph *g, const char *name, nas_node *node,
                                 nas_param expected[NAS_NODE_PARAMS_MAX]) {
    nas_status status = check_new_node(ctx, g, name, node);
    if (status == NAS_OK) status = nas__infer_shape(ctx, g, node, &node->shape);
    if (status == NAS_OK) status = nas__expected_params(ctx, g, node, expected);
    nas_node_cost cost;
    if (status == NAS_OK) status = nas__node_cost(ctx, g, node, node->shape, &cost);
    return status;
}

/* For one node more. Begins with what small networks need: spaces decode many of them. */
static nas_status make_room(nas_ctx *ctx, nas_graph *g) {
    enum { FIRST = 48 };
    const size_t nodes = g->n_nodes + 1, params = g->n_params + NAS_NODE_PARAMS_MAX;
    nas_status status =
        nas_grow(ctx, &g->nodes, &g->cap_nodes, nodes < FIRST ? FIRST : nodes, sizeof(nas_node));
    if (status == NAS_OK)
        status = nas_grow(ctx, &g->params, &g->cap_params, params < FIRST ? FIRST : params,
                          sizeof(nas_param));
    return status;
}

static nas_status append(nas_ctx *ctx, nas_graph *g, const char *name, nas_node node,
                         nas_value *out) {
    nas_param expected[NAS_NODE_PARAMS_MAX];
    nas_status status = infer_new_node(ctx, g, name, &node, expected);
    if (status == NAS_OK) status = make_room(ctx, g);
    if (status != NAS_OK) {
        return nas_wrap(ctx, status, "add %s '%.*s'", nas_op_name(node.op), NAS_GRAPH_NAME_MAX,
                        name == NULL ? "" : name);
    }
    nas_param *params[NAS_NODE_PARAMS_MAX] = {NULL};
    size_t n_params = g->n_params;
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++) {
        node.params[i] = -1;
        if (expected[i].rank == 0) continue;
        node.params[i] = (int32_t)n_params;
        params[i] = &g->params[n_params++];
        *params[i] = expected[i];
    }
    status = name_node(ctx, name, &node, params);
    if (status != NAS_OK) return status;
    g->n_params = n_params;
    g->nodes[g->n_nodes] = node;
    *out = (nas_value)g->n_nodes++;
    return NAS_OK;
}

static nas_node node_of(nas_op op, int32_t n_inputs, nas_value a, nas_value b) {
    return (nas_node){.op = op, .n_inputs = n_inputs, .inputs = {a, b}, .params = {-1, -1}};
}

nas_status nas_graph_add_input(nas_ctx *ctx, nas_graph *g, const char *name, nas_shape shape,
                               nas_value *out) {
    nas_node node = node_of(NAS_OP_INPUT, 0, NAS_VALUE_NONE, NAS_VALUE_NONE);
    node.shape = shape;
    return append(ctx, g, name, node, out);
}

nas_status nas_graph_add_conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                              const nas_conv_attributes *conv, nas_value *out) {
    nas_node node = node_of(NAS_OP_CONV, 1, x, NAS_VALUE_NONE);
    node.conv = *conv;
    return append(ctx, g, name, node, out);
}

nas_status nas_graph_add_relu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                              nas_value *out) {
    return append(ctx, g, name, node_of(NAS_OP_RELU, 1, x, NAS_VALUE_NONE), out);
}

nas_status nas_graph_add_prelu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                               nas_value *out) {
    return append(ctx, g, name, node_of(NAS_OP_PRELU, 1, x, NAS_VALUE_NONE), out);
}

nas_status nas_graph_add_add(nas_ctx *ctx, nas_graph *g, const char *name, nas_value a, nas_value b,
                             nas_value *out) {
    return append(ctx, g, name, node_of(NAS_OP_ADD, 2, a, b), out);
}

nas_status nas_graph_add_scalar(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                                float scalar, nas_value *out) {
    if (!isfinite(scalar)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "add_scalar '%.*s': the scalar is not a finite number", NAS_GRAPH_NAME_MAX,
                        name == NULL ? "" : name);
    }
    nas_node node = node_of(NAS_OP_ADD_SCALAR, 1, x, NAS_VALUE_NONE);
    node.scalar = scalar;
    return append(ctx, g, name, node, out);
}

nas_status nas_graph_add_depth_to_space(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                                        int32_t block, nas_value *out) {
    nas_node node = node_of(NAS_OP_DEPTH_TO_SPACE, 1, x, NAS_VALUE_NONE);
    node.block = block;
    return append(ctx, g, name, node, out);
}

nas_status nas_graph_add_node(nas_ctx *ctx, nas_graph *g, const char *name, const nas_node *proto,
                              nas_value *out) {
    nas_node node = *proto;
    for (int32_t i = node.n_inputs < 0 ? 0 : node.n_inputs; i < NAS_NODE_INPUTS_MAX; i++)
        node.inputs[i] = NAS_VALUE_NONE;
    return append(ctx, g, name, node, out);
}

nas_status nas_graph_set_quant(nas_ctx *ctx, nas_graph *g, nas_value v, nas_quant quant) {
    if (v < 0 || (size_t)v >= g->n_nodes) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "graph '%s': quantization of value %" PRId32 " of %zu", g->name, v,
                        g->n_nodes);
    }
    const nas_status status = nas__check_quant(ctx, &quant);
    if (status != NAS_OK) return nas_wrap(ctx, status, "node '%s'", g->nodes[v].name);
    g->nodes[v].quant = quant;
    return NAS_OK;
}

nas_status nas_graph_set_weight_scales(nas_ctx *ctx, nas_graph *g, int32_t param, int32_t bits,
                                       const float *scales) {
    if (param < 0 || (size_t)param >= g->n_params) {
        return nas_fail(ctx, NAS_ERR_INVALID, "graph '%s': scales of param %" PRId32 " of %zu",
                        g->name, param, g->n_params);
    }
    nas_param *p = &g->params[param];
    const nas_status status = nas__check_scales(ctx, p->name, bits, scales, (size_t)p->dims[0]);
    if (status != NAS_OK) return status;
    float *copy = nas_alloc_array(ctx, (size_t)p->dims[0], sizeof *copy);
    if (copy == NULL) return NAS_ERR_NOMEM;
    memcpy(copy, scales, (size_t)p->dims[0] * sizeof *copy);
    nas_free(p->scales);
    p->scales = copy;
    p->bits = bits;
    return NAS_OK;
}

nas_status nas_graph_set_output(nas_ctx *ctx, nas_graph *g, nas_value value) {
    if (value < 0 || (size_t)value >= g->n_nodes) {
        return nas_fail(ctx, NAS_ERR_INVALID, "graph '%s': output value %" PRId32 " of %zu",
                        g->name, value, g->n_nodes);
    }
    g->output = value;
    return NAS_OK;
}

/* ---- reading --------------------------------------------------------------------------------------------------- */

const char *nas_graph_name(const nas_graph *g) {
    return g->name;
}

int32_t nas_graph_node_count(const nas_graph *g) {
    return (int32_t)g->n_nodes;
}

const nas_node *nas_graph_node(const nas_graph *g, nas_value v) {
    assert(v >= 0 && (size_t)v < g->n_nodes);
    return &g->nodes[v];
}

nas_value nas_graph_output(const nas_graph *g) {
    return g->output;
}

nas_value nas_graph_input(const nas_graph *g) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (g->nodes[i].op == NAS_OP_INPUT) return (nas_value)i;
    }
    return NAS_VALUE_NONE;
}

nas_value nas_graph_find(const nas_graph *g, const char *node_name) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        if (strcmp(g->nodes[i].name, node_name) == 0) return (nas_value)i;
    }
    return NAS_VALUE_NONE;
}

int32_t nas_graph_param_count(const nas_graph *g) {
    return (int32_t)g->n_params;
}

nas_param *nas_graph_param(nas_graph *g, int32_t index) {
    assert(index >= 0 && (size_t)index < g->n_params);
    return &g->params[index];
}

const nas_param *nas_graph_param_const(const nas_graph *g, int32_t index) {
    assert(index >= 0 && (size_t)index < g->n_params);
    return &g->params[index];
}

/* ---- weights and extents ---------------------------------------------------------------------------------------- */

nas_status nas_graph_alloc_weights(nas_ctx *ctx, nas_graph *g) {
    float **fresh = nas_alloc_array(ctx, g->n_params, sizeof *fresh);
    if (fresh == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < g->n_params && status == NAS_OK; i++) {
        if (g->params[i].data != NULL) continue;
        fresh[i] = nas_alloc_aligned(ctx, g->params[i].count, sizeof(float), NAS_PARAM_ALIGN);
        if (fresh[i] == NULL) {
            status = nas_wrap(ctx, NAS_ERR_NOMEM, "weights of '%s'", g->params[i].name);
        }
    }
    for (size_t i = 0; i < g->n_params; i++) {
        if (fresh[i] == NULL) continue;
        if (status == NAS_OK) {
            g->params[i].data = fresh[i];
        } else {
            nas_free(fresh[i]);
        }
    }
    nas_free(fresh);
    return status;
}

bool nas_graph_has_weights(const nas_graph *g) {
    for (size_t i = 0; i < g->n_params; i++) {
        if (g->params[i].data == NULL) return false;
    }
    return true;
}

void nas_graph_drop_weights(nas_graph *g) {
    for (size_t i = 0; i < g->n_params; i++) {
        nas_free(g->params[i].data);
        g->params[i].data = NULL;
    }
}

/* Extent `out` of an axis that was `old_in` long, for `new_in`: the same ratio, which must come out even. */
static nas_status follow(nas_ctx *ctx, int32_t old_in, int32_t new_in, int32_t *out) {
    const int64_t scaled = (int64_t)*out * new_in;
    if (scaled % old_in != 0 || scaled / old_in > INT32_MAX) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "extent %" PRId32 " for an input of %" PRId32
                        " has no whole counterpart for %" PRId32,
                        *out, old_in, new_in);
    }
    *out = (int32_t)(scaled / old_in);
    return NAS_OK;
}

/* Attributes that mean "relative to the input": the target of a RESIZE, the window of a global pool. `old` is the shape
 * of the input before. Fixed shapes (RESHAPE, CONSTANT) stay; inference reports what no longer fits. */
static nas_status follow_input(nas_ctx *ctx, const nas_graph *g, nas_node *node, nas_shape old) {
    const nas_shape in = g->nodes[node->inputs[0]].shape;
    if (node->op == NAS_OP_RESIZE) {
        const nas_status status = follow(ctx, old.h, in.h, &node->shape.h);
        return status != NAS_OK ? status : follow(ctx, old.w, in.w, &node->shape.w);
    }
    nas_pool_attributes *p = &node->pool;
    const bool padded = p->pad_top + p->pad_left + p->pad_bottom + p->pad_right > 0;
    const bool is_global = p->kernel_h == old.h && p->kernel_w == old.w && !padded;
    if (is_global && (old.h > 1 || old.w > 1)) {
        p->kernel_h = in.h;
        p->kernel_w = in.w;
    }
    return NAS_OK;
}

/* `saved` are the nodes before the resize. */
static nas_status infer_all(nas_ctx *ctx, nas_graph *g, const nas_node *saved) {
    for (size_t i = 0; i < g->n_nodes; i++) {
        nas_node *node = &g->nodes[i];
        nas_node_cost cost;
        nas_status status = NAS_OK;
        if (node->op == NAS_OP_RESIZE || node->op == NAS_OP_MAX_POOL ||
            node->op == NAS_OP_AVG_POOL) {
            status = follow_input(ctx, g, node, saved[node->inputs[0]].shape);
        }
        if (status == NAS_OK) status = nas__infer_shape(ctx, g, node, &node->shape);
        if (status == NAS_OK) status = nas__node_cost(ctx, g, node, node->shape, &cost);
        if (status != NAS_OK)
            return nas_wrap(ctx, status, "%s '%s'", nas_op_name(node->op), node->name);
    }
    return NAS_OK;
}

static size_t count_inputs(const nas_graph *g) {
    size_t n = 0;
    for (size_t i = 0; i < g->n_nodes; i++)
        n += g->nodes[i].op == NAS_OP_INPUT ? 1 : 0;
    return n;
}

nas_status nas_graph_resize_input(nas_ctx *ctx, nas_graph *g, int32_t h, int32_t w) {
    const size_t inputs = count_inputs(g);
    if (inputs != 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "resize of '%s': the graph has %zu inputs, needs exactly 1", g->name,
                        inputs);
    }
    nas_node *saved = nas_alloc_array(ctx, g->n_nodes, sizeof *saved);
    if (saved == NULL) return NAS_ERR_NOMEM;
    memcpy(saved, g->nodes, g->n_nodes * sizeof *saved);
    nas_shape *in = &g->nodes[nas_graph_input(g)].shape;
    *in = (nas_shape){.n = 1, .h = h, .w = w, .c = in->c};
    const nas_status status = infer_all(ctx, g, saved);
    if (status != NAS_OK) memcpy(g->nodes, saved, g->n_nodes * sizeof *saved);
    nas_free(saved);
    return nas_wrap(ctx, status, "resize of '%s' to %" PRId32 "x%" PRId32, g->name, h, w);
}
