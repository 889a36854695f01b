/* graph_passes.c - what can be simplified on the graph itself, before it is lowered to either form.
 *
 * A pass edits a draft: copies of the nodes, their weights, and for each value the value that replaces it. The draft is
 * then built anew through nas_graph_add_node, without the nodes that no longer lead to the output, and verified.
 *
 * Invariant: what a pass does depends on operators, attributes, shapes and readers, never on the numbers in the weights.
 * So a graph without weights keeps the structure of the one with weights, and costs, plans and code made from the one
 * hold for the other. (Hence an ADD of a CONSTANT that happens to be zero stays, and equal convolutions stay two.) */
#include "compiler/compiler_internal.h"

#include <math.h>
#include <string.h>

typedef struct draft {
    nas_ctx *ctx;
    const nas_graph *in;
    nas_arena *arena; /* owns everything here */
    bool has_weights;
    int32_t n;
    nas_node
        *nodes; /* params: indices in `in`, of what the slot's quantization is taken from, or -1 */
    const float *(*data)[NAS_NODE_PARAMS_MAX]; /* by slot; NULL without weights */
    nas_value *same_as;                        /* the value that replaces this one, or itself */
    int32_t *uses; /* readers among live nodes; the network output is one */
    nas_value output;
    bool changed;
} draft;

/* ---- drafts ------------------------------------------------------------------------------------------------------ */

/* Counts the readers of nodes that lead to the output; a node without any is not live. */
static void count_uses(draft *d) {
    memset(d->uses, 0, (size_t)d->n * sizeof *d->uses);
    d->uses[d->output] = 1;
    for (int32_t v = d->n; v-- > 0;) {
        for (int32_t k = 0; k < d->nodes[v].n_inputs && d->uses[v] > 0; k++)
            d->uses[d->nodes[v].inputs[k]]++;
    }
}

static nas_status draft_init(draft *d, nas_ctx *ctx, nas_arena *arena, const nas_graph *in) {
    *d = (draft){.ctx = ctx, .in = in, .arena = arena, .n = nas_graph_node_count(in)};
    d->has_weights = nas_graph_has_weights(in);
    d->output = nas_graph_output(in);
    if (d->output == NAS_VALUE_NONE) {
        return nas_fail(ctx, NAS_ERR_INVALID, "graph '%s': the output is not set",
                        nas_graph_name(in));
    }
    d->nodes = nas_arena_alloc(ctx, arena, (size_t)d->n, sizeof *d->nodes);
    d->data = nas_arena_alloc(ctx, arena, (size_t)d->n, sizeof *d->data);
    d->same_as = nas_arena_alloc(ctx, arena, (size_t)d->n, sizeof *d->same_as);
    d->uses = nas_arena_alloc(ctx, arena, (size_t)d->n, sizeof *d->uses);
    if (d->nodes == NULL || d->data == NULL || d->same_as == NULL || d->uses == NULL)
        return NAS_ERR_NOMEM;
    for (int32_t v = 0; v < d->n; v++) {
        d->nodes[v] = *nas_graph_node(in, v);
        d->same_as[v] = v;
        for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
            const int32_t param = d->nodes[v].params[slot];
            if (param >= 0 && d->has_weights)
                d->data[v][slot] = nas_graph_param_const(in, param)->data;
        }
    }
    count_uses(d);
    for (int32_t v = 0; v < d->n; v++)
        d->changed = d->changed || d->uses[v] == 0;
    return NAS_OK;
}

/* Points the operands of `v` at what replaced them; nodes before it are done. */
static void resolve(draft *d, nas_value v) {
    for (int32_t k = 0; k < d->nodes[v].n_inputs; k++)
        d->nodes[v].inputs[k] = d->same_as[d->nodes[v].inputs[k]];
}

static void replace(draft *d, nas_value v, nas_value by) {
    d->changed = true;
    d->same_as[v] = by;
    if (d->output == v) d->output = by;
}

static bool plain(const draft *d, nas_value v) {
    const nas_node *node = &d->nodes[v];
    if (node->quant.is_set) return false;
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] >= 0 &&
            nas_graph_param_const(d->in, node->params[slot])->scales != NULL)
            return false;
    }
    return true;
}

static nas_status copy_params(const draft *d, nas_value from, nas_graph *g, nas_value to) {
    const int32_t *params = nas_graph_node(g, to)->params;
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (params[slot] < 0) continue;
        nas_param *p = nas_graph_param(g, params[slot]);
        if (d->has_weights) memcpy(p->data, d->data[from][slot], p->count * sizeof *p->data);
        const int32_t old = d->nodes[from].params[slot];
        const nas_param *source = old < 0 ? NULL : nas_graph_param_const(d->in, old);
        if (source == NULL || source->scales == NULL) continue;
        const nas_status status =
            nas_graph_set_weight_scales(d->ctx, g, params[slot], source->bits, source->scales);
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

/* `map`: of the draft's values to those of `g`. */
static nas_status build_into(draft *d, nas_graph *g, nas_value *map) {
    nas_status status = NAS_OK;
    count_uses(d);
    for (nas_value v = 0; v < d->n && status == NAS_OK; v++) {
        if (d->uses[v] == 0) continue;
        nas_node proto = d->nodes[v];
        for (int32_t k = 0; k < proto.n_inputs; k++)
            proto.inputs[k] = map[proto.inputs[k]];
        status = nas_graph_add_node(d->ctx, g, proto.name, &proto, &map[v]);
    }
    if (status == NAS_OK && d->has_weights) status = nas_graph_alloc_weights(d->ctx, g);
    for (nas_value v = 0; v < d->n && status == NAS_OK; v++) {
        if (d->uses[v] > 0) status = copy_params(d, v, g, map[v]);
    }
    return status == NAS_OK ? nas_graph_set_output(d->ctx, g, map[d->output]) : status;
}

static nas_status build(draft *d, nas_graph **out) {
    nas_value *map = nas_arena_alloc(d->ctx, d->arena, (size_t)d->n, sizeof *map);
    if (map == NULL) return NAS_ERR_NOMEM;
    nas_graph *g = nas_graph_new(d->ctx, nas_graph_name(d->in));
    if (g == NULL) return NAS_ERR_NOMEM; /* the name is legal */
    nas_status status = build_into(d, g, map);
    if (status == NAS_OK) status = nas_graph_verify(d->ctx, g);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    *out = g;
    return NAS_OK;
}

/* ---- constants --------------------------------------------------------------------------------------------------- */

static bool same_shape(nas_shape a, nas_shape b) {
    return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
}

static bool identity_perm(const int32_t perm[4]) {
    return perm[0] == 0 && perm[1] == 1 && perm[2] == 2 && perm[3] == 3;
}

/* Does the node hand its operand on as it is? SLICE, PAD and the like do when the shape does not change. */
static bool neutral(const draft *d, nas_value v) {
    const nas_node *node = &d->nodes[v];
    if (node->n_inputs != 1 || !same_shape(node->shape, d->nodes[node->inputs[0]].shape))
        return false;
    const nas_pool_attributes *p = &node->pool;
    switch (node->op) {
    case NAS_OP_ADD_SCALAR: return node->scalar == 0;
    case NAS_OP_UNARY:
        return node->unary == NAS_UNARY_AFFINE && node->alpha == 1 && node->beta == 0;
    case NAS_OP_TRANSPOSE: return identity_perm(node->perm);
    case NAS_OP_CHANNEL_SHUFFLE: return node->block == 1 || node->block == node->shape.c;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
        return p->kernel_h == 1 && p->kernel_w == 1 && p->stride_h == 1 && p->stride_w == 1;
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_RESIZE:
    case NAS_OP_RESHAPE:
    case NAS_OP_DEPTH_TO_SPACE: return true;
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_COUNT: break;
    }
    return false;
}

static bool of_constants(const draft *d, nas_value v) {
    const nas_node *node = &d->nodes[v];
    for (int32_t k = 0; k < node->n_inputs; k++) {
        if (d->nodes[node->inputs[k]].op != NAS_OP_CONSTANT || !plain(d, node->inputs[k]))
            return false;
    }
    return node->n_inputs > 0 && nas__constant_foldable(node->op);
}

/* Turns the node into a CONSTANT of its value. */
static nas_status become_constant(draft *d, nas_value v) {
    nas_node *node = &d->nodes[v];
    float *value = NULL;
    if (d->has_weights) {
        const nas_shape s = node->shape; /* the node's bytes fit: the builder checked */
        const size_t count = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
        value = nas_arena_alloc(d->ctx, d->arena, count, sizeof *value);
        if (value == NULL) return NAS_ERR_NOMEM;
        nas__constant k = {.node = node, .params = d->data[v]};
        for (int32_t i = 0; i < node->n_inputs; i++) {
            k.shapes[i] = d->nodes[node->inputs[i]].shape;
            k.operands[i] = d->data[node->inputs[i]][0];
        }
        const nas_status status = nas__constant_fold(d->ctx, &k, value);
        if (status != NAS_OK) return status;
    }
    d->changed = true;
    *node = (nas_node){.op = NAS_OP_CONSTANT,
                       .name = node->name,
                       .shape = node->shape,
                       .params = {-1, -1, -1, -1}};
    memset(d->data[v], 0, sizeof d->data[v]);
    d->data[v][0] = value;
    return NAS_OK;
}

static nas_status pass_constants(draft *d) {
    for (nas_value v = 0; v < d->n; v++) {
        resolve(d, v);
        if (d->uses[v] == 0 || !plain(d, v)) continue;
        if (of_constants(d, v)) {
            const nas_status status = become_constant(d, v);
            if (status != NAS_OK) return status;
        } else if (neutral(d, v)) {
            const nas_value x = d->nodes[v].inputs[0];
            /* The output stays a computed value: an image handed on is still work. A value stored as integers is
             * rounded, so its reader is not the same as its source. */
            if ((v == d->output && d->nodes[x].op == NAS_OP_INPUT) || d->nodes[x].quant.is_set)
                continue;
            replace(d, v, x);
        }
    }
    return NAS_OK;
}

/* ---- batch_norm -------------------------------------------------------------------------------------------------- */

/* A per-channel constant as second operand: [1,1,1,C] or one number. */
static bool channel_constant(const draft *d, const nas_node *node) {
    const nas_value k = node->inputs[1];
    const nas_shape s = d->nodes[k].shape;
    return d->nodes[k].op == NAS_OP_CONSTANT && plain(d, k) && s.n == 1 && s.h == 1 && s.w == 1;
}

/* Is the node y[c] = factor[c]*x[c] + term[c]? `moves`: can the term be other than 0? */
static bool is_affine(const draft *d, const nas_node *node, bool *moves) {
    *moves = true;
    if (node->op == NAS_OP_BATCH_NORM || node->op == NAS_OP_ADD_SCALAR) return true;
    if (node->op == NAS_OP_UNARY) {
        *moves = node->unary == NAS_UNARY_AFFINE && node->beta != 0;
        return node->unary == NAS_UNARY_AFFINE || node->unary == NAS_UNARY_NEG;
    }
    const bool scales = node->op == NAS_OP_MUL || node->op == NAS_OP_DIV;
    *moves = !scales;
    return (scales || node->op == NAS_OP_ADD || node->op == NAS_OP_SUB) &&
           channel_constant(d, node);
}

typedef struct affine {
    double factor, term;
} affine;

static affine affine_at(const draft *d, nas_value v, size_t c) {
    const nas_node *node = &d->nodes[v];
    const float *const *p = d->data[v];
    double k = 0;
    if (node->n_inputs == 2) {
        const nas_value b = node->inputs[1];
        k = (double)d->data[b][0][d->nodes[b].shape.c == 1 ? 0 : c];
    }
    switch (node->op) {
    case NAS_OP_BATCH_NORM: {
        const double factor = (double)p[0][c] / sqrt((double)p[3][c] + (double)node->epsilon);
        return (affine){factor, (double)p[1][c] - (double)p[2][c] * factor};
    }
    case NAS_OP_ADD_SCALAR: return (affine){1, (double)node->scalar};
    case NAS_OP_UNARY:
        return node->unary == NAS_UNARY_NEG ? (affine){-1, 0}
                                            : (affine){(double)node->alpha, (double)node->beta};
    case NAS_OP_ADD: return (affine){1, k};
    case NAS_OP_SUB: return (affine){1, -k};
    case NAS_OP_MUL: return (affine){k, 0};
    case NAS_OP_DIV: return (affine){1 / k, 0};
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
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
    return (affine){1, 0}; /* excluded by is_affine */
}

/* New weights and biases of convolution `conv` such that it makes the value of `v`. Both kinds keep [O,KH,KW,I]. */
static nas_status scale_conv(draft *d, nas_value conv, nas_value v) {
    const nas_node *node = &d->nodes[conv];
    const size_t outputs = (size_t)node->shape.c;
    const size_t per = nas_graph_param_const(d->in, node->params[0])->count / outputs;
    const float *weight = d->data[conv][0], *bias = d->data[conv][1];
    float *new_weight = nas_arena_alloc(d->ctx, d->arena, outputs * per, sizeof *new_weight);
    float *new_bias = nas_arena_alloc(d->ctx, d->arena, outputs, sizeof *new_bias);
    if (new_weight == NULL || new_bias == NULL) return NAS_ERR_NOMEM;
    bool finite = true;
    for (size_t o = 0; o < outputs; o++) {
        const affine a = affine_at(d, v, o);
        new_bias[o] = (float)((bias == NULL ? 0 : (double)bias[o]) * a.factor + a.term);
        finite = finite && isfinite(new_bias[o]);
        for (size_t i = o * per; i < (o + 1) * per; i++) {
            new_weight[i] = (float)((double)weight[i] * a.factor);
            finite = finite && isfinite(new_weight[i]);
        }
    }
    if (!finite) {
        return nas_fail(d->ctx, NAS_ERR_INVALID,
                        "%s '%s' takes weights of '%s' out of the range of floats",
                        nas_op_name(d->nodes[v].op), d->nodes[v].name, node->name);
    }
    d->data[conv][0] = new_weight;
    d->data[conv][1] = new_bias;
    return NAS_OK;
}

static nas_status pass_batch_norm(draft *d) {
    for (nas_value v = 0; v < d->n; v++) {
        resolve(d, v);
        nas_node *node = &d->nodes[v];
        bool moves = false;
        if (d->uses[v] == 0 || !plain(d, v) || !is_affine(d, node, &moves)) continue;
        const nas_value conv = node->inputs[0];
        nas_node *maker = &d->nodes[conv];
        if ((maker->op != NAS_OP_CONV && maker->op != NAS_OP_CONV_TRANSPOSE) || !plain(d, conv) ||
            d->uses[conv] != 1)
            continue;
        const nas_status status = d->has_weights ? scale_conv(d, conv, v) : NAS_OK;
        if (status != NAS_OK) return status;
        maker->conv.has_bias = maker->conv.has_bias || moves;
        if (!maker->conv.has_bias) d->data[conv][1] = NULL;
        d->uses[conv] = d->uses[v]; /* the readers of v read it now */
        replace(d, v, conv);
    }
    return NAS_OK;
}

/* ---- duplicates -------------------------------------------------------------------------------------------------- */

static bool same_bits(const void *a, const void *b, size_t size) {
    return memcmp(a, b, size) == 0;
}

static bool same_pool(const nas_pool_attributes *a, const nas_pool_attributes *b) {
    return a->kernel_h == b->kernel_h && a->kernel_w == b->kernel_w && a->stride_h == b->stride_h &&
           a->stride_w == b->stride_w && a->pad_top == b->pad_top && a->pad_left == b->pad_left &&
           a->pad_bottom == b->pad_bottom && a->pad_right == b->pad_right &&
           a->count_include_pad == b->count_include_pad;
}

static bool same_attributes(const nas_node *a, const nas_node *b) {
    switch (a->op) {
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: return same_pool(&a->pool, &b->pool);
    case NAS_OP_UNARY:
        return a->unary == b->unary && same_bits(&a->alpha, &b->alpha, sizeof a->alpha) &&
               same_bits(&a->beta, &b->beta, sizeof a->beta);
    case NAS_OP_LRN:
        return a->size == b->size && same_bits(&a->alpha, &b->alpha, sizeof a->alpha) &&
               same_bits(&a->beta, &b->beta, sizeof a->beta) &&
               same_bits(&a->epsilon, &b->epsilon, sizeof a->epsilon);
    case NAS_OP_CONCAT: return a->axis == b->axis;
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
        return same_bits(a->begin, b->begin, sizeof a->begin) &&
               same_bits(a->end, b->end, sizeof a->end) &&
               (a->op == NAS_OP_SLICE || same_bits(&a->scalar, &b->scalar, sizeof a->scalar));
    case NAS_OP_RESIZE: return a->resize == b->resize;
    case NAS_OP_MATMUL: return a->transpose_b == b->transpose_b;
    case NAS_OP_TRANSPOSE: return same_bits(a->perm, b->perm, sizeof a->perm);
    case NAS_OP_ADD_SCALAR: return same_bits(&a->scalar, &b->scalar, sizeof a->scalar);
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CHANNEL_SHUFFLE: return a->block == b->block;
    case NAS_OP_RELU:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_SOFTMAX:
    case NAS_OP_RESHAPE: return true;
    case NAS_OP_INPUT: /* each its own; the others have weights, which must not decide */
    case NAS_OP_CONV:
    case NAS_OP_PRELU:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_CONSTANT:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_COUNT: break;
    }
    return false;
}

static bool same_node(const draft *d, nas_value v, nas_value w) {
    const nas_node *a = &d->nodes[v], *b = &d->nodes[w];
    return a->op == b->op && a->n_inputs == b->n_inputs &&
           same_bits(a->inputs, b->inputs, (size_t)a->n_inputs * sizeof a->inputs[0]) &&
           same_shape(a->shape, b->shape) && plain(d, v) && plain(d, w) && same_attributes(a, b);
}

static nas_status pass_duplicates(draft *d) {
    for (nas_value v = 0; v < d->n; v++) {
        resolve(d, v);
        for (nas_value w = 0; w < v && d->same_as[v] == v; w++) {
            if (d->same_as[w] == w && same_node(d, v, w)) replace(d, v, w);
        }
    }
    return NAS_OK;
}

/* ---- dead -------------------------------------------------------------------------------------------------------- */

/* Building drops them already, after every pass. */
static nas_status pass_dead(draft *d) {
    (void)d;
    return NAS_OK;
}

/* ---- all --------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    nas_status (*run)(draft *d);
} passes[] = {{"constants", pass_constants},
              {"batch_norm", pass_batch_norm},
              {"duplicates", pass_duplicates},
              {"dead", pass_dead}};
enum { N_PASSES = sizeof passes / sizeof passes[0] };

const char *nas__graph_pass(int32_t index) {
    return index >= 0 && index < N_PASSES ? passes[index].name : NULL;
}

/* `keep`: leave *out alone when the pass changes nothing, which saves a copy of the weights. */
static nas_status run_pass(nas_ctx *ctx, size_t index, const nas_graph *in, bool keep,
                           nas_graph **out) {
    enum { ARENA_BLOCK = 64 * 1024 };
    nas_arena *arena = nas_arena_new(ctx, ARENA_BLOCK);
    if (arena == NULL) return NAS_ERR_NOMEM;
    draft d;
    nas_status status = draft_init(&d, ctx, arena, in);
    if (status == NAS_OK) status = passes[index].run(&d);
    if (status == NAS_OK && (d.changed || !keep)) {
        status = build(&d, out);
        if (status != NAS_OK && status != NAS_ERR_NOMEM) status = NAS_ERR_INTERNAL;
    }
    nas_arena_free(arena);
    return nas_wrap(ctx, status, "graph pass '%s'", passes[index].name);
}

static nas_status check_pass_name(nas_ctx *ctx, const char *name) {
    for (size_t i = 0; i < N_PASSES; i++) {
        if (name == NULL || strcmp(name, passes[i].name) == 0) return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no graph pass '%s': choose from %s, %s, %s, %s", name,
                    passes[0].name, passes[1].name, passes[2].name, passes[3].name);
}

nas_status nas__graph_optimize(nas_ctx *ctx, const nas_graph *in, const char *dump_after,
                               nas_buf *dump, nas_graph **out) {
    nas_status status = check_pass_name(ctx, dump_after);
    nas_graph *g = NULL;
    for (size_t i = 0; i < N_PASSES && status == NAS_OK; i++) {
        nas_graph *next = NULL;
        status = run_pass(ctx, i, g == NULL ? in : g, g != NULL, &next);
        if (status != NAS_OK) break;
        if (next != NULL) {
            nas_graph_free(g);
            g = next;
        }
        if (dump_after != NULL && strcmp(dump_after, passes[i].name) == 0)
            status = nas_graph_dump(ctx, g, dump);
    }
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    *out = g;
    return NAS_OK;
}
