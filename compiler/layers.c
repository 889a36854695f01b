/* layers.c - a graph as a list of kernel calls: which nodes become one layer, which values are only other names. */
#include "compiler/layers_network_internal.h"

static const nas_node *node_of(const nas__layers *l, nas_value v) {
    return nas__layers_node(l, v);
}

const nas_quant *nas__layers_quant(const nas__layers *l, nas_value v) {
    if (v >= l->n_values / 2) return NULL;
    const nas_node *node = node_of(l, v);
    return node->quant.is_set ? &node->quant : NULL;
}

bool nas__same_quant(const nas_quant *a, const nas_quant *b) {
    return a->is_signed == b->is_signed && a->scale == b->scale && a->zero_point == b->zero_point;
}

size_t nas__layers_element(const nas__layers *l, nas_value v) {
    return nas__layers_quant(l, v) != NULL ? 1 : sizeof(float);
}

static bool coded(const nas__layers *l, nas_value v) {
    return nas__layers_quant(l, v) != NULL;
}

static bool same_shape(const nas_shape *a, const nas_shape *b) {
    return a->n == b->n && a->h == b->h && a->w == b->w && a->c == b->c;
}

/* ---- users of values ---------------------------------------------------------------------------------------------- */

/* How often each value is read, and by whom last; the network output counts as a reader of its own. */
typedef struct users {
    int32_t *count;
    nas_value *last;
} users;

static nas_status find_users(nas_ctx *ctx, const nas__layers *l, users *out) {
    const int32_t n = nas_graph_node_count(l->graph);
    out->count = nas_arena_alloc(ctx, l->arena, (size_t)n, sizeof *out->count);
    out->last = nas_arena_alloc(ctx, l->arena, (size_t)n, sizeof *out->last);
    if (out->count == NULL || out->last == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < n; v++) {
        out->count[v] = v == l->output ? 1 : 0;
        out->last[v] = NAS_VALUE_NONE;
    }
    for (nas_value v = 0; v < n; v++) {
        const nas_node *node = node_of(l, v);
        for (int32_t i = 0; i < node->n_inputs; i++) {
            out->count[node->inputs[i]]++;
            out->last[node->inputs[i]] = v;
        }
    }
    return NAS_OK;
}

/* The only reader of v, NAS_VALUE_NONE when there are several or it is the output. */
static nas_value only_user(const users *u, nas_value v) {
    return u->count[v] == 1 ? u->last[v] : NAS_VALUE_NONE;
}

/* ---- fusion ------------------------------------------------------------------------------------------------------- */

/* The activation of `node` in a form that kernels can apply to a result. */
static bool as_activation(const nas_node *node, nas__layer *layer, nas__layer_act *act, float *lo,
                          float *hi) {
    switch (node->op) {
    case NAS_OP_RELU: *act = NAS__LACT_RELU; return true;
    case NAS_OP_PRELU:
        if (layer->kind != NAS__LAYER_CONV) return false;
        *act = NAS__LACT_PRELU;
        return true;
    case NAS_OP_UNARY: break;
    case NAS_OP_INPUT:
    case NAS_OP_CONV:
    case NAS_OP_ADD:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
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
    case NAS_OP_COUNT: return false;
    }
    *lo = node->alpha;
    *hi = node->beta;
    if (node->unary == NAS_UNARY_CLIP) *act = NAS__LACT_CLIP;
    if (node->unary == NAS_UNARY_LEAKY_RELU) *act = NAS__LACT_LEAKY;
    if (node->unary == NAS_UNARY_HARD_SWISH) *act = NAS__LACT_HARD_SWISH;
    if (node->unary == NAS_UNARY_LEAKY_RELU || node->unary == NAS_UNARY_HARD_SWISH) *hi = 0;
    if (node->unary == NAS_UNARY_HARD_SWISH) *lo = 0;
    return *act != NAS__LACT_NONE;
}

static bool takes_activation(const nas_node *node) {
    return node->op == NAS_OP_CONV || node->op == NAS_OP_CONV_TRANSPOSE || node->op == NAS_OP_ADD ||
           node->op == NAS_OP_SUB || node->op == NAS_OP_MUL || node->op == NAS_OP_DIV ||
           node->op == NAS_OP_BATCH_NORM || node->op == NAS_OP_AVG_POOL;
}

/* The only reader of v, if that may be computed together with it: codes are rounded, so their reader is not. */
static nas_value next_of(const nas__layers *l, const users *u, nas_value v) {
    return coded(l, v) ? NAS_VALUE_NONE : only_user(u, v);
}

/* conv + residual: the sum is the conv's only reader. Of two convolutions the later one takes the sum. */
static void fuse_residual(const nas__layers *l, const users *u, nas__layer *layer) {
    const nas_value v = layer->value, sum = next_of(l, u, v);
    if (sum == NAS_VALUE_NONE) return;
    const nas_node *node = node_of(l, sum);
    if (node->op != NAS_OP_ADD) return;
    const nas_value other = node->inputs[node->inputs[0] == v ? 1 : 0];
    const nas_node *o = node_of(l, other);
    if (other == v || o->op == NAS_OP_CONSTANT || !same_shape(&o->shape, &node->shape)) return;
    if (other > v && o->op == NAS_OP_CONV && next_of(l, u, other) == sum) return;
    layer->inputs[1] = other;
    layer->n_inputs = 2;
    layer->conv.has_residual = true;
    layer->value = sum;
}

static void fuse_activation(const nas__layers *l, const users *u, nas__layer *layer) {
    const nas_value user = next_of(l, u, layer->value);
    if (user == NAS_VALUE_NONE || !takes_activation(node_of(l, layer->node))) return;
    nas__layer_act act = NAS__LACT_NONE;
    float lo = 0, hi = 0;
    if (!as_activation(node_of(l, user), layer, &act, &lo, &hi)) return;
    if (act == NAS__LACT_PRELU) layer->slope = user;
    if (layer->kind == NAS__LAYER_CONV) {
        layer->conv.act = act;
        layer->conv.lo = lo;
        layer->conv.hi = hi;
    } else {
        layer->op.act = act;
        layer->op.lo = lo;
        layer->op.hi = hi;
    }
    layer->value = user;
}

/* Codes that differ by less than the limit of added operands. */
static bool scales_fit(const nas_quant *a, const nas_quant *sum) {
    return (double)a->scale / (double)sum->scale < NAS_QUANT_ADD_RATIO_MAX;
}

/* Where the sum `sum` ends as codes: there, or at a clamp that alone reads it; NONE when it does not. */
static nas_value end_of_sum(const nas__layers *l, const users *u, nas_value sum,
                            nas__layer *layer) {
    if (coded(l, sum)) return sum;
    const nas_value user = only_user(u, sum);
    if (user == NAS_VALUE_NONE || !coded(l, user)) return NAS_VALUE_NONE;
    nas__op *op = &layer->op;
    if (!as_activation(node_of(l, user), layer, &op->act, &op->lo, &op->hi)) return NAS_VALUE_NONE;
    return op->act == NAS__LACT_RELU || op->act == NAS__LACT_CLIP ? user : NAS_VALUE_NONE;
}

/* An integer convolution whose codes are read by a sum alone adds the other operand before it stores: the same codes as
 * from two layers. */
static void fuse_sum_of_codes(const nas__layers *l, const users *u, nas__layer *layer) {
    const nas_value v = layer->value, sum = only_user(u, v);
    if (layer->conv.has_residual || !coded(l, v) || sum == NAS_VALUE_NONE) return;
    const nas_node *node = node_of(l, sum);
    if (node->op != NAS_OP_ADD) return;
    const nas_value other = node->inputs[node->inputs[0] == v ? 1 : 0];
    const nas_node *o = node_of(l, other);
    if (other == v || !coded(l, other) || !same_shape(&o->shape, &node->shape)) return;
    if (other > v && o->op == NAS_OP_CONV && only_user(u, other) == sum) return; /* it adds */
    nas__layer made = *layer;
    made.inputs[0] = l->places[layer->inputs[0]].same;
    if (!nas__layer_to_integers(l, &made)) return;
    made = *layer;
    const nas_value end = end_of_sum(l, u, sum, &made);
    if (end == NAS_VALUE_NONE || !scales_fit(nas__layers_quant(l, v), nas__layers_quant(l, end)) ||
        !scales_fit(nas__layers_quant(l, other), nas__layers_quant(l, end)))
        return;
    *layer = made;
    layer->between = v;
    layer->inputs[1] = other;
    layer->n_inputs = 2;
    layer->conv.has_residual = true;
    layer->value = end;
}

/* ---- lowering ----------------------------------------------------------------------------------------------------- */

static nas__conv conv_of(const nas__layers *l, const nas_node *node) {
    const nas_conv_attributes *a = &node->conv;
    return (nas__conv){.in_c = node_of(l, node->inputs[0])->shape.c,
                       .out_c = a->out_channels,
                       .groups = a->groups,
                       .out_h = node->shape.h,
                       .out_w = node->shape.w,
                       .kernel_h = a->kernel_h,
                       .kernel_w = a->kernel_w,
                       .stride_h = a->stride_h,
                       .stride_w = a->stride_w,
                       .dilation_h = a->dilation_h,
                       .dilation_w = a->dilation_w};
}

/* A reshape to the same extents (Flatten after a global pool, say) moves nothing. */
static bool is_alias(const nas__layers *l, nas_value v) {
    const nas_node *node = node_of(l, v);
    if (node->op != NAS_OP_RESHAPE) return false;
    const nas_value x = l->places[node->inputs[0]].same;
    if (!same_shape(&node->shape, &node_of(l, node->inputs[0])->shape)) return false;
    return !node->quant.is_set ||
           (coded(l, x) && nas__same_quant(&node->quant, nas__layers_quant(l, x)));
}

/* Codes that the output is depth-to-space of need not be moved: they are decoded where they belong. */
static bool is_last_shuffle(const nas__layers *l, nas_value v) {
    const nas_node *node = node_of(l, v);
    if (node->op != NAS_OP_DEPTH_TO_SPACE || v != l->output) return false;
    const nas_quant *x = nas__layers_quant(l, l->places[node->inputs[0]].same);
    return x != NULL && (!node->quant.is_set || nas__same_quant(&node->quant, x));
}

static nas__layer layer_of(nas__layer_kind kind, nas_value node) {
    return (nas__layer){.kind = kind,
                        .node = node,
                        .value = node,
                        .between = NAS_VALUE_NONE,
                        .slope = NAS_VALUE_NONE};
}

/* Codes to floats or back, between a value and its twin. */
static void convert(nas__layers *l, nas__qop_kind kind, nas_value from, nas_value to) {
    nas__layer *layer = &l->layers[l->n_layers++];
    *layer = layer_of(NAS__LAYER_QOP, kind == NAS__QOP_DECODE ? from : to);
    layer->qop.kind = kind;
    layer->value = to;
    layer->n_inputs = 1;
    layer->inputs[0] = from;
    l->integers = true;
}

static nas_value twin_of(const nas__layers *l, nas_value v) {
    return v + l->n_values / 2;
}

/* The value as floats: codes are decoded before the first reader that wants them so. */
static nas_value floats_of(nas__layers *l, nas_value v) {
    v = l->places[v].same;
    if (!coded(l, v)) return v;
    const nas_value twin = twin_of(l, v);
    if (!l->places[twin].decoded) convert(l, NAS__QOP_DECODE, v, twin);
    l->places[twin].decoded = true;
    return twin;
}

/* Adds a layer, in integers where it can be. */
static void append(nas__layers *l, nas__layer layer) {
    const nas_value result = layer.value;
    for (int32_t k = 0; k < layer.n_inputs && k < 2; k++) /* an alias is what it names */
        layer.inputs[k] = l->places[layer.inputs[k]].same;
    const bool integers = nas__layer_to_integers(l, &layer);
    for (int32_t k = 0; k < layer.n_inputs && k < 2 && !integers; k++)
        layer.inputs[k] = floats_of(l, layer.inputs[k]);
    if (coded(l, result) && !integers) layer.value = twin_of(l, result);
    l->integers = l->integers || integers;
    l->layers[l->n_layers++] = layer;
    if (layer.value != result) convert(l, NAS__QOP_ENCODE, layer.value, result);
}

/* May member m of a concatenation be computed where the concatenation wants it? */
static bool can_move_in(const nas__layers *l, nas_value concat, nas_value m) {
    const nas_node *node = node_of(l, concat);
    const nas_value n = l->n_values / 2;
    int32_t times = 0;
    for (int32_t i = 0; i < node->n_inputs; i++)
        times += l->places[node->inputs[i]].same == m % n;
    if (coded(l, m) && !nas__same_quant(nas__layers_quant(l, m), nas__layers_quant(l, concat)))
        return false;
    return node->axis == 3 && times == 1 && l->places[m].host == m && !l->places[m].constant;
}

/* Members that can be computed in place are placed, the others are copied. */
static void lower_concat(nas__layers *l, nas_value v) {
    const nas_node *node = node_of(l, v);
    bool codes = coded(l, v);
    for (int32_t i = 0; i < node->n_inputs; i++)
        codes = codes && coded(l, l->places[node->inputs[i]].same);
    const nas_value whole = coded(l, v) && !codes ? twin_of(l, v) : v;
    int32_t channel = 0;
    for (int32_t i = 0; i < node->n_inputs; i++) {
        const nas_value member =
            codes ? l->places[node->inputs[i]].same : floats_of(l, node->inputs[i]);
        if (can_move_in(l, v, member)) {
            l->places[member].host = whole;
            l->places[member].channel = channel;
        } else {
            nas__layer *layer = &l->layers[l->n_layers++];
            *layer = layer_of(codes ? NAS__LAYER_QOP : NAS__LAYER_OP, v);
            layer->qop = nas__qop_copy();
            layer->value = whole;
            layer->n_inputs = 1;
            layer->inputs[0] = member;
            layer->part = i;
        }
        channel += node_of(l, member)->shape.c;
    }
    l->integers = l->integers || codes;
    if (whole != v) convert(l, NAS__QOP_ENCODE, whole, v);
}

/* The layer that begins at node v and ends at its `value`; *made false when v needs none. */
static nas_status lower_node(nas_ctx *ctx, nas__layers *l, const users *u, nas_value v,
                             nas__layer *layer, bool *made) {
    const nas_node *node = node_of(l, v);
    *made = false;
    if (node->shape.n != 1) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s': a batch of %d; compiled networks take one image at a time",
                        node->name, node->shape.n);
    }
    nas__place *place = &l->places[v];
    place->constant = node->op == NAS_OP_CONSTANT;
    if (place->constant && coded(l, v)) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "node '%s': a constant stored as integers",
                        node->name);
    }
    if (place->constant) return NAS_OK;
    if (is_alias(l, v) || is_last_shuffle(l, v)) {
        place->same = l->places[node->inputs[0]].same;
        if (node->op == NAS_OP_DEPTH_TO_SPACE) l->shuffle = v;
        return NAS_OK;
    }
    if (node->op == NAS_OP_CONCAT) {
        lower_concat(l, v);
        return NAS_OK;
    }
    const bool conv = node->op == NAS_OP_CONV;
    *layer = layer_of(conv ? NAS__LAYER_CONV : NAS__LAYER_OP, v);
    *made = true;
    layer->n_inputs = node->n_inputs;
    for (int32_t i = 0; i < node->n_inputs && i < 2; i++)
        layer->inputs[i] = node->inputs[i];
    if (conv) {
        layer->conv = conv_of(l, node);
        fuse_residual(l, u, layer);
    }
    fuse_activation(l, u, layer);
    if (conv) fuse_sum_of_codes(l, u, layer);
    return NAS_OK;
}

/* Every node once, in order; a fused chain stands where its last node stood, so that its residual is there. */
static nas_status lower_all(nas_ctx *ctx, nas__layers *l) {
    users u;
    nas_status status = find_users(ctx, l, &u);
    const int32_t n = nas_graph_node_count(l->graph);
    bool *done = status == NAS_OK ? nas_arena_alloc(ctx, l->arena, (size_t)n, 1) : NULL;
    nas__layer **waiting =
        done != NULL ? nas_arena_alloc(ctx, l->arena, (size_t)n, sizeof *waiting) : NULL;
    if (waiting == NULL) return status == NAS_OK ? NAS_ERR_NOMEM : status;
    for (nas_value v = 0; v < l->n_values; v++)
        l->places[v] = (nas__place){.same = v, .host = v};
    for (nas_value v = 0; v < n && status == NAS_OK; v++) {
        if (done[v]) { /* the middle of a chain is never read; its end may have a layer waiting */
            if (waiting[v] != NULL) append(l, *waiting[v]);
            continue;
        }
        nas__layer layer;
        bool made = false;
        status = lower_node(ctx, l, &u, v, &layer, &made);
        if (status != NAS_OK || !made) continue;
        if (layer.value == v) {
            append(l, layer);
            continue;
        }
        waiting[layer.value] = nas_arena_alloc(ctx, l->arena, 1, sizeof layer);
        if (waiting[layer.value] == NULL) return NAS_ERR_NOMEM;
        *waiting[layer.value] = layer;
        for (nas_value w = v; w != layer.value; w = u.last[w])
            done[u.last[w]] = true;
    }
    return status;
}

static nas_status check_io(nas_ctx *ctx, const nas__layers *l) {
    int32_t inputs = 0;
    for (nas_value v = 0; v < nas_graph_node_count(l->graph); v++)
        inputs += node_of(l, v)->op == NAS_OP_INPUT;
    if (inputs != 1 || l->output == NAS_VALUE_NONE) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "graph '%s' has %d inputs and %s output; compiled networks have one each",
                        nas_graph_name(l->graph), inputs,
                        l->output == NAS_VALUE_NONE ? "no" : "one");
    }
    return NAS_OK;
}

static nas_status lower(nas_ctx *ctx, nas__layers *l) {
    l->input = nas_graph_input(l->graph);
    l->output = nas_graph_output(l->graph);
    nas_status status = check_io(ctx, l);
    if (status != NAS_OK) return status;
    const size_t n = (size_t)nas_graph_node_count(l->graph);
    size_t layers = 4 * n + 1; /* each with its operands decoded and its result coded */
    for (nas_value v = 0; v < (nas_value)n; v++) {
        const nas_node *node = node_of(l, v);
        if (node->op == NAS_OP_CONCAT) layers += 2 * (size_t)node->n_inputs;
    }
    l->places = nas_arena_alloc(ctx, l->arena, (size_t)l->n_values, sizeof *l->places);
    l->layers = nas_arena_alloc(ctx, l->arena, layers, sizeof *l->layers);
    if (l->places == NULL || l->layers == NULL) return NAS_ERR_NOMEM;
    status = lower_all(ctx, l);
    if (status != NAS_OK) return status;
    nas__layer *out = &l->layers[l->n_layers++];
    *out = layer_of(NAS__LAYER_OUTPUT, l->output);
    out->n_inputs = 1;
    out->inputs[0] = l->places[l->output].same;
    return nas__layers_plan(ctx, l);
}

nas_status nas__layers_lower(nas_ctx *ctx, const nas_graph *graph,
                             const nas_compile_options *options, nas__layers **out) {
    const int32_t max_threads = options->max_threads;
    *out = NULL;
    if (max_threads < 1 || max_threads > 64) {
        return nas_fail(ctx, NAS_ERR_INVALID, "%d threads: need 1 to 64", max_threads);
    }
    nas_arena *arena = nas_arena_new(ctx, (size_t)64 * 1024);
    if (arena == NULL) return NAS_ERR_NOMEM;
    nas__layers *l = nas_arena_alloc(ctx, arena, 1, sizeof *l);
    nas_target *target = nas_arena_alloc(ctx, arena, 1, sizeof *target);
    if (l == NULL || target == NULL) {
        nas_arena_free(arena);
        return NAS_ERR_NOMEM;
    }
    *target = *options->target;
    target->bf16 = options->dtype == NAS_DTYPE_BF16;
    *l = (nas__layers){.arena = arena,
                       .options = options,
                       .start_ns = nas_now_ns(),
                       .target = target,
                       .max_threads = max_threads};
    nas_status status = nas_graph_verify(ctx, graph);
    l->graph = graph;
    l->n_values = 2 * nas_graph_node_count(graph);
    l->shuffle = NAS_VALUE_NONE;
    if (status == NAS_OK) status = lower(ctx, l);
    if (status != NAS_OK) {
        nas__layers_free(l);
        return status;
    }
    l->options = NULL;
    *out = l;
    return NAS_OK;
}

void nas__layers_free(nas__layers *l) {
    if (l == NULL) return;
    nas_arena_free(l->arena);
}
