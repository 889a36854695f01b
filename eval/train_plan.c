/* train_plan.c - from a graph to fused steps, buffers and gradient routes.
 *
 * Fused: 1x1 conv -> ReLU -> 1x1 conv (the hidden tensor never exists), conv -> ReLU, conv -> add. A step sits where
 * the last of its nodes is, so that every operand is there. */
#include "eval/train_plan.h"

#include <string.h>

typedef struct builder {
    nas_ctx *ctx;
    const nas_graph *graph;
    const nas__kernels *kernels;
    nas__plan *plan;
    nas_arena *arena; /* temporary arrays, one element a graph node */
    int32_t n_nodes;
    bool training;
    int32_t *uses, *consumer; /* readers of a value (the output counts as one), the last reader */
    int32_t *tensor_of;       /* value -> tensor, -1 */
    int32_t *h, *w;
    bool *needs_gradient;
    int32_t *gradient_of; /* value -> tensor, -1 */
} builder;

static const nas_node *node_at(const builder *b, int32_t v) {
    return nas_graph_node(b->graph, v);
}

/* ---- what can run, extents ------------------------------------------------------------------------------------ */

static nas_status check_conv(nas_ctx *ctx, const nas_node *n) {
    const nas_conv_attributes *a = &n->conv;
    const bool plain = a->stride_h == 1 && a->stride_w == 1 && a->dilation_h == 1 &&
                       a->dilation_w == 1 && a->groups == 1;
    if (!plain) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "conv '%s': stride %" PRId32 "x%" PRId32 ", dilation %" PRId32 "x%" PRId32
                        ", groups %" PRId32 "; training runs stride 1, dilation 1, groups 1",
                        n->name, a->stride_h, a->stride_w, a->dilation_h, a->dilation_w, a->groups);
    }
    const bool same = a->pad_top == a->kernel_h / 2 && a->pad_bottom == a->kernel_h / 2 &&
                      a->pad_left == a->kernel_w / 2 && a->pad_right == a->kernel_w / 2;
    const bool odd = a->kernel_h % 2 == 1 && a->kernel_w % 2 == 1;
    if (!odd || !same || a->kernel_h > NAS__KERNEL_MAX || a->kernel_w > NAS__KERNEL_MAX) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "conv '%s': kernel %" PRId32 "x%" PRId32
                        "; training runs odd kernels up to %d with \"same\" padding",
                        n->name, a->kernel_h, a->kernel_w, NAS__KERNEL_MAX);
    }
    return NAS_OK;
}

static nas_status infer_extents(builder *b, int32_t v, int32_t in_h, int32_t in_w) {
    const nas_node *n = node_at(b, v);
    int32_t h = in_h, w = in_w;
    if (n->n_inputs > 0) {
        h = b->h[n->inputs[0]];
        w = b->w[n->inputs[0]];
    }
    switch (n->op) {
    case NAS_OP_INPUT:
        if (nas_graph_input(b->graph) != v) {
            return nas_fail(b->ctx, NAS_ERR_UNSUPPORTED, "input '%s': only one input is trained",
                            n->name);
        }
        break;
    case NAS_OP_CONV: {
        const nas_status status = check_conv(b->ctx, n);
        if (status != NAS_OK) return status;
        const int32_t k = n->conv.kernel_h > n->conv.kernel_w ? n->conv.kernel_h : n->conv.kernel_w;
        if (k / 2 > b->plan->radius) b->plan->radius = k / 2;
        break;
    }
    case NAS_OP_ADD: {
        const nas_shape *y = &n->shape, *x = &node_at(b, n->inputs[1])->shape;
        if (x->n != y->n || x->h != y->h || x->w != y->w || x->c != y->c) {
            return nas_fail(b->ctx, NAS_ERR_UNSUPPORTED,
                            "add '%s' broadcasts its second operand; training does not", n->name);
        }
        if (b->h[n->inputs[1]] != h || b->w[n->inputs[1]] != w) {
            return nas_fail(b->ctx, NAS_ERR_SHAPE,
                            "add '%s': %" PRId32 "x%" PRId32 " and %" PRId32 "x%" PRId32, n->name,
                            h, w, b->h[n->inputs[1]], b->w[n->inputs[1]]);
        }
        break;
    }
    case NAS_OP_DEPTH_TO_SPACE:
        if (h > INT32_MAX / 4 / n->block || w > INT32_MAX / 4 / n->block) {
            return nas_fail(b->ctx, NAS_ERR_RANGE, "depth_to_space '%s': extent too large",
                            n->name);
        }
        h *= n->block;
        w *= n->block;
        break;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD_SCALAR: break;
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
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
        return nas_fail(b->ctx, NAS_ERR_UNSUPPORTED, "node '%s': %s has no training and no forward",
                        n->name, nas_op_name(n->op));
    case NAS_OP_COUNT:
        return nas_fail(b->ctx, NAS_ERR_UNSUPPORTED, "node '%s': unknown operator", n->name);
    }
    b->h[v] = h;
    b->w[v] = w;
    return NAS_OK;
}

static nas_status survey(builder *b, int32_t h, int32_t w) {
    for (int32_t v = 0; v < b->n_nodes; v++) {
        b->tensor_of[v] = -1;
        b->gradient_of[v] = -1;
        const nas_node *n = node_at(b, v);
        const nas_status status = infer_extents(b, v, h, w);
        if (status != NAS_OK) return status;
        b->needs_gradient[v] = n->params[0] >= 0 && (n->op == NAS_OP_CONV || n->op == NAS_OP_PRELU);
        for (int32_t i = 0; i < n->n_inputs; i++) {
            b->uses[n->inputs[i]]++;
            b->consumer[n->inputs[i]] = v;
            if (b->needs_gradient[n->inputs[i]]) b->needs_gradient[v] = true;
        }
    }
    const int32_t output = nas_graph_output(b->graph);
    if (output < 0)
        return nas_fail(b->ctx, NAS_ERR_INVALID, "graph '%s': no output", nas_graph_name(b->graph));
    b->uses[output]++;
    return NAS_OK;
}

/* ---- buffers --------------------------------------------------------------------------------------------------- */

static nas_status place_tensor(builder *b, nas__tensor *t) {
    nas__plan *plan = b->plan;
    const size_t channels = (size_t)t->c, pitch = (size_t)t->pitch;
    const size_t radius = (size_t)plan->radius;
    size_t rows = 0, floats = 0;
    nas_status status = nas_mul_size(b->ctx, (size_t)t->h + 2 * radius, channels, &rows);
    if (status == NAS_OK) status = nas_mul_size(b->ctx, rows + NAS__OVERREAD, pitch, &floats);
    if (status == NAS_OK) status = nas_add_size(b->ctx, floats, 2 * NAS__PAD, &floats);
    if (status != NAS_OK) return status;
    t->at = plan->space_floats + NAS__PAD + radius * channels * pitch;
    return nas_add_size(b->ctx, plan->space_floats, floats, &plan->space_floats);
}

/* A buffer of these extents: a free one, else a new one. */
static nas_status take_tensor(builder *b, int32_t c, int32_t h, int32_t w, int32_t *out) {
    nas__plan *plan = b->plan;
    for (int32_t i = 0; i < plan->n_tensors; i++) {
        nas__tensor *t = &plan->tensors[i];
        if (!t->is_free || t->c != c || t->h != h || t->w != w) continue;
        t->is_free = false;
        *out = i;
        return NAS_OK;
    }
    nas__tensor *t = &plan->tensors[plan->n_tensors];
    const int32_t rounded = (w + NAS__LANES_MAX - 1) / NAS__LANES_MAX * NAS__LANES_MAX;
    *t = (nas__tensor){.c = c, .h = h, .w = w, .pitch = rounded + NAS__PAD};
    const nas_status status = place_tensor(b, t);
    if (status != NAS_OK) return status;
    *out = plan->n_tensors++;
    return NAS_OK;
}

static nas_status take_value(builder *b, int32_t v) {
    return take_tensor(b, node_at(b, v)->shape.c, b->h[v], b->w[v], &b->tensor_of[v]);
}

/* The forward pass alone: one reader of v is done; its buffer is free after the last. */
static void release_value(builder *b, int32_t v) {
    b->uses[v]--;
    if (!b->training && b->uses[v] == 0) b->plan->tensors[b->tensor_of[v]].is_free = true;
}

/* ---- fusion ---------------------------------------------------------------------------------------------------- */

static bool is_op(const builder *b, int32_t v, nas_op op) {
    return v >= 0 && node_at(b, v)->op == op;
}

static bool is_pointwise(const builder *b, int32_t v) {
    return is_op(b, v, NAS_OP_CONV) && node_at(b, v)->conv.kernel_h == 1 &&
           node_at(b, v)->conv.kernel_w == 1;
}

/* v is the second 1x1 of a fused pair. */
static bool ends_pair(const builder *b, int32_t v) {
    if (!is_pointwise(b, v)) return false;
    const int32_t relu = node_at(b, v)->inputs[0];
    if (!is_op(b, relu, NAS_OP_RELU) || b->uses[relu] != 1) return false;
    const int32_t first = node_at(b, relu)->inputs[0];
    return is_pointwise(b, first) && b->uses[first] == 1 && !ends_pair(b, first);
}

/* The operand of an add that is computed by the same step, -1 when none. */
static int32_t fused_operand(const builder *b, int32_t add) {
    const nas_node *n = node_at(b, add);
    const int32_t late = n->inputs[0] > n->inputs[1] ? n->inputs[0] : n->inputs[1];
    const int32_t early = n->inputs[0] > n->inputs[1] ? n->inputs[1] : n->inputs[0];
    if (is_op(b, late, NAS_OP_CONV) && b->uses[late] == 1) return late;
    if (is_op(b, early, NAS_OP_CONV) && b->uses[early] == 1) return early;
    return -1;
}

/* v has no step of its own: a later node's step computes it. */
static bool is_absorbed(const builder *b, int32_t v) {
    if (b->uses[v] != 1 || nas_graph_output(b->graph) == v) return false;
    const int32_t user = b->consumer[v];
    if (is_op(b, v, NAS_OP_RELU)) return ends_pair(b, user);
    if (!is_op(b, v, NAS_OP_CONV)) return false;
    if (is_op(b, user, NAS_OP_RELU)) return !ends_pair(b, v);
    return is_op(b, user, NAS_OP_ADD) && fused_operand(b, user) == v;
}

/* ---- steps ----------------------------------------------------------------------------------------------------- */

static size_t round_up(size_t n, size_t unit) {
    return (n + unit - 1) / unit * unit;
}

static size_t packed_floats(int32_t outputs, int32_t inputs, int32_t taps) {
    return round_up((size_t)outputs, NAS__BLOCK) * (size_t)inputs * (size_t)taps;
}

static int32_t add_layer(builder *b, int32_t v) {
    nas__plan *plan = b->plan;
    const nas_node *n = node_at(b, v);
    const nas_param *weight = nas_graph_param_const(b->graph, n->params[0]);
    nas__layer *l = &plan->layers[plan->n_layers];
    *l = (nas__layer){.weight = n->params[0],
                      .bias = n->params[1],
                      .outputs = weight->dims[0],
                      .kernel_h = weight->dims[1],
                      .kernel_w = weight->dims[2],
                      .inputs = weight->dims[3]};
    const int32_t taps = l->kernel_h * l->kernel_w;
    l->forward_at = plan->packed_floats;
    l->backward_at = round_up(l->forward_at + packed_floats(l->outputs, l->inputs, taps), 16);
    l->bias_at = round_up(l->backward_at + packed_floats(l->inputs, l->outputs, taps), 16);
    plan->packed_floats = round_up(l->bias_at + (size_t)l->outputs, 16);
    const uint64_t macs = (uint64_t)weight->count * (uint64_t)b->h[v] * (uint64_t)b->w[v];
    plan->macs_forward += macs;
    plan->macs_backward += b->needs_gradient[n->inputs[0]] ? 2 * macs : macs;
    return plan->n_layers++;
}

static nas__step *add_step(builder *b, nas__step_kind kind, int32_t in, int32_t other,
                           int32_t out) {
    nas__step *s = &b->plan->steps[b->plan->n_steps++];
    *s = (nas__step){.kind = kind,
                     .in_value = in,
                     .other_value = other,
                     .out_value = out,
                     .grad_in = -1,
                     .grad_other = -1,
                     .grad_out = -1};
    return s;
}

/* The step of conv v (and its pair's first conv), with an added operand or a ReLU, giving value out. */
static void add_conv_step(builder *b, int32_t v, int32_t other, bool relu, int32_t out) {
    int32_t in = node_at(b, v)->inputs[0];
    if (!ends_pair(b, v)) {
        nas__step *s = add_step(b, NAS__STEP_CONV, in, other, out);
        s->relu = relu;
        s->first = add_layer(b, v);
        return;
    }
    const int32_t first = node_at(b, in)->inputs[0];
    in = node_at(b, first)->inputs[0];
    nas__step *s = add_step(b, NAS__STEP_PAIR, in, other, out);
    s->first = add_layer(b, first);
    s->second = add_layer(b, v);
}

static void add_node_steps(builder *b, int32_t v) {
    const nas_node *n = node_at(b, v);
    switch (n->op) {
    case NAS_OP_INPUT:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
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
    case NAS_OP_COUNT: return; /* refused in infer_extents */
    case NAS_OP_CONV: add_conv_step(b, v, -1, false, v); return;
    case NAS_OP_RELU:
        if (is_absorbed(b, n->inputs[0])) {
            add_conv_step(b, n->inputs[0], -1, true, v);
        } else {
            (void)add_step(b, NAS__STEP_RELU, n->inputs[0], -1, v);
        }
        return;
    case NAS_OP_PRELU:
        add_step(b, NAS__STEP_PRELU, n->inputs[0], -1, v)->slope = n->params[0];
        return;
    case NAS_OP_ADD: {
        const int32_t conv = fused_operand(b, v);
        if (conv < 0) {
            (void)add_step(b, NAS__STEP_ADD, n->inputs[0], n->inputs[1], v);
        } else {
            add_conv_step(b, conv, conv == n->inputs[0] ? n->inputs[1] : n->inputs[0], false, v);
        }
        return;
    }
    case NAS_OP_ADD_SCALAR:
        add_step(b, NAS__STEP_ADD_SCALAR, n->inputs[0], -1, v)->scalar = n->scalar;
        return;
    case NAS_OP_DEPTH_TO_SPACE:
        add_step(b, NAS__STEP_DEPTH_TO_SPACE, n->inputs[0], -1, v)->block = n->block;
        return;
    }
}

static nas_status place_values(builder *b) {
    nas__plan *plan = b->plan;
    nas_status status = take_value(b, nas_graph_input(b->graph));
    for (int32_t i = 0; status == NAS_OK && i < plan->n_steps; i++) {
        nas__step *s = &plan->steps[i];
        status = take_value(b, s->out_value);
        if (status != NAS_OK) return status;
        s->in = b->tensor_of[s->in_value];
        s->out = b->tensor_of[s->out_value];
        s->other = s->other_value < 0 ? -1 : b->tensor_of[s->other_value];
        release_value(b, s->in_value);
        if (s->other_value >= 0) release_value(b, s->other_value);
    }
    plan->input = b->tensor_of[nas_graph_input(b->graph)];
    plan->output = b->tensor_of[nas_graph_output(b->graph)];
    return status;
}

/* ---- gradients --------------------------------------------------------------------------------------------------- */

static nas_status take_gradient(builder *b, int32_t v, int32_t *tensor) {
    const nas_status status =
        take_tensor(b, node_at(b, v)->shape.c, b->h[v], b->w[v], &b->gradient_of[v]);
    *tensor = b->gradient_of[v];
    return status;
}

/* An operand whose gradient is the output's own: takes the buffer over when nobody has it yet, else adds it. */
static nas_status route_through(builder *b, int32_t v, int32_t grad_out, bool *moved,
                                nas__gradient_mode *mode, int32_t *tensor) {
    if (v < 0 || !b->needs_gradient[v]) return NAS_OK;
    *tensor = b->gradient_of[v];
    *mode = NAS__GRADIENT_ADD;
    if (*tensor >= 0) return NAS_OK;
    if (*moved) {
        *mode = NAS__GRADIENT_WRITE;
        return take_gradient(b, v, tensor);
    }
    *moved = true;
    *mode = NAS__GRADIENT_MOVE;
    *tensor = b->gradient_of[v] = grad_out;
    return NAS_OK;
}

/* An operand whose gradient is computed into a buffer of its own. */
static nas_status route_computed(builder *b, int32_t v, nas__gradient_mode *mode, int32_t *tensor) {
    if (!b->needs_gradient[v]) return NAS_OK;
    *tensor = b->gradient_of[v];
    *mode = NAS__GRADIENT_ADD;
    if (*tensor >= 0) return NAS_OK;
    *mode = NAS__GRADIENT_WRITE;
    return take_gradient(b, v, tensor);
}

static nas_status route_step(builder *b, nas__step *s) {
    s->grad_out = b->gradient_of[s->out_value];
    if (s->grad_out < 0) return NAS_OK;
    bool moved = false;
    nas_status status = NAS_OK;
    switch (s->kind) {
    case NAS__STEP_CONV:
    case NAS__STEP_PAIR:
    case NAS__STEP_DEPTH_TO_SPACE:
        status = route_computed(b, s->in_value, &s->in_mode, &s->grad_in);
        break;
    case NAS__STEP_RELU:
    case NAS__STEP_PRELU:
    case NAS__STEP_ADD:
    case NAS__STEP_ADD_SCALAR:
        status = route_through(b, s->in_value, s->grad_out, &moved, &s->in_mode, &s->grad_in);
        break;
    }
    if (status == NAS_OK) {
        status =
            route_through(b, s->other_value, s->grad_out, &moved, &s->other_mode, &s->grad_other);
    }
    if (!moved) b->plan->tensors[s->grad_out].is_free = true;
    return status;
}

static nas_status route_gradients(builder *b) {
    nas_status status = take_gradient(b, nas_graph_output(b->graph), &b->plan->output_gradient);
    for (int32_t i = b->plan->n_steps - 1; status == NAS_OK && i >= 0; i--) {
        status = route_step(b, &b->plan->steps[i]);
    }
    return status;
}

/* ---- scratch ------------------------------------------------------------------------------------------------------ */

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

/* Per-lane sums of the largest layer: one layer's at a time; a pair's chunk needs both weights and the biases. */
static size_t step_lanes(const builder *b, const nas__step *s) {
    const nas__layer *first = &b->plan->layers[s->first];
    const size_t lanes = (size_t)b->kernels->lanes;
    if (s->kind == NAS__STEP_CONV) {
        return b->kernels->pairs_size(first->outputs, first->inputs,
                                      first->kernel_h * first->kernel_w) +
               (size_t)first->outputs * lanes;
    }
    if (s->kind != NAS__STEP_PAIR) return 0;
    const nas__layer *second = &b->plan->layers[s->second];
    return b->kernels->pairs_size(NAS__HIDDEN_CHUNK, first->inputs, 1) +
           b->kernels->pairs_size(second->outputs, NAS__HIDDEN_CHUNK, 1) +
           (size_t)(NAS__HIDDEN_CHUNK + second->outputs) * lanes;
}

static void size_scratch(builder *b) {
    nas__plan *plan = b->plan;
    for (int32_t i = 0; i < plan->n_steps; i++) {
        const nas__step *s = &plan->steps[i];
        if (b->training) plan->lanes_floats = larger(plan->lanes_floats, step_lanes(b, s));
        if (s->kind != NAS__STEP_PAIR) continue;
        plan->scratch_floats =
            larger(plan->scratch_floats, nas__pair_scratch(&plan->tensors[s->in]));
    }
}

static nas_status build(builder *b, int32_t h, int32_t w) {
    nas_status status = survey(b, h, w);
    if (status != NAS_OK) return status;
    for (int32_t v = 0; v < b->n_nodes; v++) {
        if (!is_absorbed(b, v)) add_node_steps(b, v);
    }
    for (int32_t i = 0; i < b->plan->n_params; i++) {
        b->plan->param_at[i] = b->plan->dense_floats;
        b->plan->dense_floats += nas_graph_param_const(b->graph, i)->count;
    }
    status = place_values(b);
    if (status == NAS_OK && b->training) status = route_gradients(b);
    if (status == NAS_OK) size_scratch(b);
    return status;
}

static nas_status prepare(nas_ctx *ctx, builder *b) {
    const size_t n = (size_t)b->n_nodes;
    b->uses = nas_arena_alloc(ctx, b->arena, n, sizeof *b->uses);
    b->consumer = nas_arena_alloc(ctx, b->arena, n, sizeof *b->consumer);
    b->tensor_of = nas_arena_alloc(ctx, b->arena, n, sizeof *b->tensor_of);
    b->gradient_of = nas_arena_alloc(ctx, b->arena, n, sizeof *b->gradient_of);
    b->h = nas_arena_alloc(ctx, b->arena, n, sizeof *b->h);
    b->w = nas_arena_alloc(ctx, b->arena, n, sizeof *b->w);
    b->needs_gradient = nas_arena_alloc(ctx, b->arena, n, sizeof *b->needs_gradient);
    nas__plan *plan = nas_arena_alloc(ctx, b->arena, 1, sizeof *plan);
    if (plan == NULL) return NAS_ERR_NOMEM;
    b->plan = plan;
    plan->arena = b->arena;
    plan->n_params = nas_graph_param_count(b->graph);
    plan->output_gradient = -1;
    plan->steps = nas_arena_alloc(ctx, b->arena, n, sizeof *plan->steps);
    plan->layers = nas_arena_alloc(ctx, b->arena, n, sizeof *plan->layers);
    plan->tensors = nas_arena_alloc(ctx, b->arena, 2 * n + 1, sizeof *plan->tensors);
    plan->param_at =
        nas_arena_alloc(ctx, b->arena, (size_t)plan->n_params + 1, sizeof *plan->param_at);
    const bool complete = b->uses != NULL && b->consumer != NULL && b->tensor_of != NULL &&
                          b->gradient_of != NULL && b->h != NULL && b->w != NULL &&
                          b->needs_gradient != NULL && plan->steps != NULL &&
                          plan->layers != NULL && plan->tensors != NULL && plan->param_at != NULL;
    return complete ? NAS_OK : NAS_ERR_NOMEM;
}

nas_status nas__plan_new(nas_ctx *ctx, const nas_graph *graph, int32_t h, int32_t w, bool training,
                         const nas__kernels *kernels, nas__plan **out) {
    if (nas_graph_input(graph) < 0 || h < 1 || w < 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "graph '%s' on %" PRId32 "x%" PRId32 " pixels: needs an input node and at "
                        "least one pixel",
                        nas_graph_name(graph), h, w);
    }
    builder b = {.ctx = ctx,
                 .graph = graph,
                 .kernels = kernels,
                 .training = training,
                 .n_nodes = nas_graph_node_count(graph)};
    b.arena = nas_arena_new(ctx, 1 << 15);
    if (b.arena == NULL) return NAS_ERR_NOMEM;
    nas_status status = prepare(ctx, &b);
    if (status == NAS_OK) status = build(&b, h, w);
    if (status != NAS_OK) {
        nas_arena_free(b.arena);
        return status;
    }
    *out = b.plan;
    return NAS_OK;
}

void nas__plan_free(nas__plan *plan) {
    if (plan != NULL) nas_arena_free(plan->arena);
}
