/* exec_plan.c - from a graph to places and steps: borders, fused activations, buffers that are used again. */
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

nas_exec_options nas_exec_options_default(void) {
    return (nas_exec_options){.chunk = 8, .threads = 2};
}

bool nas__exec_is_depthwise(const nas_graph *g, const nas_node *node) {
    const int32_t c = nas_graph_node(g, node->inputs[0])->shape.c;
    return node->conv.groups > 1 && node->conv.groups == c && node->conv.out_channels == c;
}

/* ---- values ------------------------------------------------------------------------------------------------------- */

static int32_t larger(int32_t a, int32_t b) {
    return a > b ? a : b;
}

static int32_t count_readers(const nas_graph *g, nas_value v) {
    int32_t readers = nas_graph_output(g) == v;
    for (nas_value i = v + 1; i < nas_graph_node_count(g); i++) {
        const nas_node *node = nas_graph_node(g, i);
        for (int32_t k = 0; k < node->n_inputs; k++)
            readers += node->inputs[k] == v;
    }
    return readers;
}

static bool takes_activation(nas_op op) {
    return op == NAS_OP_CONV || op == NAS_OP_ADD || op == NAS_OP_BATCH_NORM;
}

/* The producer that computes this RELU or CLIP along, or NAS_VALUE_NONE. */
static nas_value fused_into(const nas_graph *g, const nas_node *node) {
    const bool clip = node->op == NAS_OP_UNARY && node->unary == NAS_UNARY_CLIP;
    if (node->op != NAS_OP_RELU && !clip) return NAS_VALUE_NONE;
    const nas_value from = node->inputs[0];
    const bool alone = takes_activation(nas_graph_node(g, from)->op) && count_readers(g, from) == 1;
    return alone ? from : NAS_VALUE_NONE;
}

/* Kernels store whole vectors: the last group of a grouped convolution may reach beyond the channels. */
static int32_t channel_stride(const nas_graph *g, const nas_node *node) {
    const int32_t c = node->shape.c;
    if (node->op != NAS_OP_CONV || node->conv.groups == 1 || nas__exec_is_depthwise(g, node))
        return nas__exec_lanes_up(c);
    const int32_t group = c / node->conv.groups;
    return nas__exec_lanes_up(c - group + nas__exec_lanes_up(group));
}

static void widen_border(nas__exec_value *v, const nas_conv_attributes *conv) {
    v->top = larger(v->top, conv->pad_top);
    v->left = larger(v->left, conv->pad_left);
    v->bottom = larger(v->bottom, conv->pad_bottom);
    v->right = larger(v->right, conv->pad_right);
}

static bool keeps_extents(const nas_graph *g, const nas_node *node) {
    const nas_shape in = nas_graph_node(g, node->inputs[0])->shape;
    return node->conv.stride_h == 1 && node->conv.stride_w == 1 && in.h == node->shape.h &&
           in.w == node->shape.w;
}

/* Where extents stay, the gradient of the input is a convolution over that of the output, whose border has to be as wide as
 * the kernel reaches to the other side. */
static void widen_for_gradient(nas__exec_value *v, const nas_conv_attributes *conv) {
    const int32_t h = (conv->kernel_h - 1) * conv->dilation_h;
    const int32_t w = (conv->kernel_w - 1) * conv->dilation_w;
    v->top = larger(v->top, h - conv->pad_top);
    v->left = larger(v->left, w - conv->pad_left);
    v->bottom = larger(v->bottom, h - conv->pad_bottom);
    v->right = larger(v->right, w - conv->pad_right);
}

static void lay_out_values(nas_exec *e) {
    const nas_graph *g = e->graph;
    const int32_t n = nas_graph_node_count(g);
    for (nas_value i = 0; i < n; i++) {
        const nas_node *node = nas_graph_node(g, i);
        nas__exec_value *v = &e->values[i];
        *v = (nas__exec_value){.root = i,
                               .h = node->shape.h,
                               .w = node->shape.w,
                               .c = node->shape.c,
                               .cs = channel_stride(g, node),
                               .slot = -1,
                               .last_reader = nas_graph_output(g) == i ? n : i};
        const nas_value into = fused_into(g, node);
        if (into != NAS_VALUE_NONE) v->root = e->values[into].root;
        for (int32_t k = 0; k < node->n_inputs; k++) {
            nas__exec_value *in = &e->values[e->values[node->inputs[k]].root];
            in->last_reader = larger(in->last_reader, i);
            if (node->op == NAS_OP_CONV) widen_border(in, &node->conv);
        }
        nas__exec_value *root = &e->values[v->root];
        if (e->keep && node->op == NAS_OP_CONV && keeps_extents(g, node))
            widen_for_gradient(root, &node->conv);
        root->last_reader = larger(root->last_reader, v->last_reader);
    }
    for (nas_value i = 0; i < n; i++) {
        nas__exec_value *v = &e->values[i];
        v->row = (ptrdiff_t)(v->left + v->w + v->right) * v->cs;
        v->image = v->row * (v->top + v->h + v->bottom);
        v->origin = v->top * v->row + (ptrdiff_t)v->left * v->cs;
    }
}

/* Buffers of equal extents and borders may follow each other in one slot: the borders stay zero. */
static bool same_place(const nas__exec_value *a, const nas__exec_value *b) {
    return a->h == b->h && a->w == b->w && a->c == b->c && a->cs == b->cs && a->top == b->top &&
           a->left == b->left && a->bottom == b->bottom && a->right == b->right;
}

static nas_status give_slots(nas_ctx *ctx, nas_exec *e) {
    const int32_t n = nas_graph_node_count(e->graph);
    nas_value *holder = nas_arena_alloc(ctx, e->arena, (size_t)n, sizeof *holder);
    e->slot_at = nas_arena_alloc(ctx, e->arena, (size_t)n, sizeof *e->slot_at);
    if (holder == NULL || e->slot_at == NULL) return NAS_ERR_NOMEM;
    for (nas_value i = 0; i < n; i++) {
        nas__exec_value *v = &e->values[i];
        if (v->root != i) continue;
        /* constants are written once, before the first run */
        const bool constant = nas_graph_node(e->graph, i)->op == NAS_OP_CONSTANT;
        for (int32_t s = 0; s < e->n_slots && !e->keep && !constant; s++) {
            const nas__exec_value *before = &e->values[holder[s]];
            const bool kept = nas_graph_node(e->graph, holder[s])->op == NAS_OP_CONSTANT;
            if (kept || before->last_reader >= i || !same_place(before, v)) continue;
            v->slot = s;
            break;
        }
        if (v->slot < 0) {
            const size_t floats = (size_t)v->image * (size_t)e->options.chunk;
            if (floats > INT32_MAX)
                return nas_fail(ctx, NAS_ERR_RANGE,
                                "executor: value '%s' of %d images has %zu floats, limit %d: lower "
                                "the chunk",
                                nas_graph_node(e->graph, i)->name, (int)e->options.chunk, floats,
                                INT32_MAX);
            v->slot = e->n_slots++;
            e->slot_at[v->slot] = e->space_floats;
            e->space_floats += (floats + 15) / 16 * 16;
        }
        holder[v->slot] = i;
    }
    return NAS_OK;
}

/* ---- steps -------------------------------------------------------------------------------------------------------- */

static nas_status plan_gradient(nas_ctx *ctx, nas_exec *e, nas__exec_step *step,
                                const nas__exec_value *out) {
    const nas_node *node = nas_graph_node(e->graph, step->node);
    const nas_conv_attributes *c = &node->conv;
    const size_t in = (size_t)nas__exec_lanes_up(step->group_in);
    step->back_group = (size_t)step->n_taps * (size_t)step->group_out * in;
    step->back_weights = e->packed_floats;
    step->zeros = step->back_weights + step->back_group * (size_t)c->groups;
    e->packed_floats = step->zeros + in;
    if (!keeps_extents(e->graph, node)) return NAS_OK;
    step->back_taps = nas_arena_alloc(ctx, e->arena, (size_t)step->n_taps, sizeof *step->back_taps);
    if (step->back_taps == NULL) return NAS_ERR_NOMEM;
    for (int32_t t = 0; t < step->n_taps; t++) {
        const int32_t y = c->pad_top - t / c->kernel_w * c->dilation_h;
        const int32_t x = c->pad_left - t % c->kernel_w * c->dilation_w;
        step->back_taps[t] = (int32_t)(y * out->row + (ptrdiff_t)x * out->cs);
    }
    return NAS_OK;
}

static nas_status plan_conv(nas_ctx *ctx, nas_exec *e, nas__exec_step *step) {
    const nas_node *node = nas_graph_node(e->graph, step->node);
    const nas_conv_attributes *c = &node->conv;
    const nas__exec_value *in = nas__exec_root(e, node->inputs[0]);
    const nas__exec_value *out = nas__exec_root(e, step->node);
    const bool depthwise = nas__exec_is_depthwise(e->graph, node);
    step->n_taps = c->kernel_h * c->kernel_w;
    step->group_in = depthwise ? 1 : in->c / c->groups;
    step->group_out = depthwise ? out->c : c->out_channels / c->groups;
    step->vectors = nas__exec_lanes_up(step->group_out) / NAS__EXEC_LANES;
    step->pixels = out->h * out->w;
    const size_t places = (size_t)step->pixels * (size_t)e->options.chunk;
    step->taps = nas_arena_alloc(ctx, e->arena, (size_t)step->n_taps, sizeof *step->taps);
    step->in_at = nas_arena_alloc(ctx, e->arena, places, sizeof *step->in_at);
    step->out_at = nas_arena_alloc(ctx, e->arena, places, sizeof *step->out_at);
    if (step->taps == NULL || step->in_at == NULL || step->out_at == NULL) return NAS_ERR_NOMEM;
    for (int32_t t = 0; t < step->n_taps; t++) {
        const int32_t y = t / c->kernel_w * c->dilation_h - c->pad_top;
        const int32_t x = t % c->kernel_w * c->dilation_w - c->pad_left;
        step->taps[t] = (int32_t)(y * in->row + (ptrdiff_t)x * in->cs);
    }
    size_t p = 0;
    for (int32_t image = 0; image < e->options.chunk; image++) {
        for (int32_t y = 0; y < out->h; y++) {
            for (int32_t x = 0; x < out->w; x++, p++) {
                step->in_at[p] = (int32_t)(image * in->image + y * c->stride_h * in->row +
                                           (ptrdiff_t)x * c->stride_w * in->cs);
                step->out_at[p] =
                    (int32_t)(image * out->image + y * out->row + (ptrdiff_t)x * out->cs);
            }
        }
    }
    const size_t width = (size_t)step->vectors * NAS__EXEC_LANES;
    step->group_weights = (size_t)step->n_taps * (size_t)step->group_in * width;
    step->weights = e->packed_floats;
    e->packed_floats += step->group_weights * (depthwise ? 1 : (size_t)c->groups);
    step->bias = e->packed_floats;
    e->packed_floats += width * (depthwise ? 1 : (size_t)c->groups);
    if (e->options.bf16 && c->groups == 1) return nas__exec_tiles_plan(ctx, e, step);
    return e->keep && !depthwise ? plan_gradient(ctx, e, step, out) : NAS_OK;
}

static void activation_of(const nas_exec *e, nas__exec_step *step) {
    const nas_graph *g = e->graph;
    step->lo = -INFINITY;
    step->hi = INFINITY;
    for (nas_value i = step->node + 1; i < nas_graph_node_count(g); i++) {
        const nas_node *node = nas_graph_node(g, i);
        if (fused_into(g, node) == NAS_VALUE_NONE || node->inputs[0] != step->node) continue;
        step->lo = node->op == NAS_OP_RELU ? 0 : node->alpha;
        step->hi = node->op == NAS_OP_RELU ? INFINITY : node->beta;
    }
    const nas_node *self = nas_graph_node(g, step->node);
    if (self->op == NAS_OP_RELU) step->lo = 0;
    if (self->op == NAS_OP_UNARY && self->unary == NAS_UNARY_CLIP) {
        step->lo = self->alpha;
        step->hi = self->beta;
    }
}

static nas_status plan_steps(nas_ctx *ctx, nas_exec *e) {
    const int32_t n = nas_graph_node_count(e->graph);
    nas_status status = NAS_OK;
    for (nas_value i = 0; i < n && status == NAS_OK; i++) {
        const nas_node *node = nas_graph_node(e->graph, i);
        if (e->values[i].root != i || node->op == NAS_OP_INPUT) continue;
        nas__exec_step *step = &e->steps[e->n_steps++];
        step->node = step->out = i;
        activation_of(e, step);
        if (node->op == NAS_OP_CONV) {
            status = plan_conv(ctx, e, step);
        } else if (node->op == NAS_OP_BATCH_NORM) {
            step->weights = e->packed_floats;
            step->bias = step->weights + (size_t)e->values[i].cs;
            e->packed_floats += 2 * (size_t)e->values[i].cs;
            step->statistics = e->space_floats;
            e->space_floats += (4 * (size_t)e->values[i].cs + 15) / 16 * 16;
        }
    }
    return status;
}

/* ---- weights ------------------------------------------------------------------------------------------------------ */

/* [o][tap][i] of one group to blocks of vectors of outputs. */
static void pack_group(const nas_exec *e, const nas__exec_step *s, const float *weight, float *to) {
    const size_t in = (size_t)s->group_in, taps = (size_t)s->n_taps;
    for (int32_t v = 0; v < s->vectors;) {
        const int32_t n = e->kernels->block(s->vectors - v);
        for (size_t t = 0; t < taps * in; t++) {
            for (int32_t k = 0; k < n * NAS__EXEC_LANES; k++) {
                const int32_t o = v * NAS__EXEC_LANES + k;
                *to++ = o < s->group_out ? weight[(size_t)o * taps * in + t] : 0;
            }
        }
        v += n;
    }
}

/* Inputs [v, v + n) of one tap, [output][lane]. */
static float *pack_back_tap(const nas__exec_step *s, const float *weight, int32_t tap, int32_t v,
                            int32_t n, float *to) {
    const size_t filter = (size_t)s->n_taps * (size_t)s->group_in;
    const int32_t left = s->group_in - v * NAS__EXEC_LANES, all = n * NAS__EXEC_LANES;
    const size_t inside = (size_t)(left < all ? left : all);
    for (int32_t o = 0; o < s->group_out; o++, to += all)
        memcpy(to,
               weight + (size_t)o * filter + (size_t)tap * (size_t)s->group_in +
                   (size_t)v * NAS__EXEC_LANES,
               inside * sizeof *to); /* lanes beyond stay zero */
    return to;
}

static void pack_back(const nas_exec *e, const nas__exec_step *s, const float *weight, float *to) {
    const int32_t vectors = nas__exec_lanes_up(s->group_in) / NAS__EXEC_LANES;
    const int32_t outer = s->back_taps == NULL ? s->n_taps : 1, inner = s->n_taps / outer;
    for (int32_t tap = 0; tap < outer; tap++) {
        for (int32_t v = 0; v < vectors;) {
            const int32_t n = e->kernels->block(vectors - v);
            for (int32_t k = 0; k < inner; k++)
                to = pack_back_tap(s, weight, tap + k, v, n, to);
            v += n;
        }
    }
}

static void pack_conv(const nas_exec *e, const nas_graph *from, const nas__exec_step *s,
                      float *packed) {
    const nas_node *node = nas_graph_node(from, s->node);
    const float *weight = nas_graph_param_const(from, node->params[0])->data;
    const float *bias =
        node->conv.has_bias ? nas_graph_param_const(from, node->params[1])->data : NULL;
    float *to = packed + s->weights, *bias_to = packed + s->bias;
    const size_t width = (size_t)s->vectors * NAS__EXEC_LANES;
    if (nas__exec_is_depthwise(e->graph, node)) { /* [c][tap] to [tap][c] */
        for (int32_t c = 0; c < s->group_out; c++) {
            for (int32_t t = 0; t < s->n_taps; t++)
                to[(size_t)t * width + (size_t)c] = weight[c * s->n_taps + t];
            bias_to[c] = bias == NULL ? 0 : bias[c];
        }
        return;
    }
    const size_t filters = (size_t)s->group_out * (size_t)s->n_taps * (size_t)s->group_in;
    for (int32_t g = 0; g < node->conv.groups; g++) {
        pack_group(e, s, weight + (size_t)g * filters, to + (size_t)g * s->group_weights);
        if (e->keep)
            pack_back(e, s, weight + (size_t)g * filters,
                      packed + s->back_weights + (size_t)g * s->back_group);
        for (int32_t o = 0; o < s->group_out; o++)
            bias_to[(size_t)g * width + (size_t)o] = bias == NULL ? 0 : bias[g * s->group_out + o];
    }
}

static void pack_norm(const nas_graph *from, const nas__exec_step *s, float *packed) {
    const nas_node *node = nas_graph_node(from, s->node);
    const float *p[4];
    for (int i = 0; i < 4; i++)
        p[i] = nas_graph_param_const(from, node->params[i])->data;
    for (int32_t c = 0; c < node->shape.c; c++) {
        const float scale = p[0][c] / sqrtf(p[3][c] + node->epsilon);
        packed[s->weights + (size_t)c] = scale;
        packed[s->bias + (size_t)c] = p[1][c] - p[2][c] * scale;
    }
}

/* A constant lies in its slot once for every image. */
static void write_constant(const nas_exec *e, float *space, nas_value v) {
    const nas__exec_value *value = &e->values[v];
    const float *data =
        nas_graph_param_const(e->graph, nas_graph_node(e->graph, v)->params[0])->data;
    for (int32_t image = 0; image < e->options.chunk; image++) {
        for (int32_t p = 0; p < value->h * value->w; p++) {
            float *to = nas__exec_at(e, space, v) + image * value->image +
                        p / value->w * value->row + (ptrdiff_t)(p % value->w) * value->cs;
            memcpy(to, data + (size_t)p * (size_t)value->c, (size_t)value->c * sizeof *to);
        }
    }
}

void nas__exec_pack(const nas_exec *e, const nas_graph *from, float *packed) {
    for (int32_t i = 0; i < e->n_steps; i++) {
        const nas_op op = nas_graph_node(from, e->steps[i].node)->op;
        if (op == NAS_OP_CONV) pack_conv(e, from, &e->steps[i], packed);
        if (op == NAS_OP_BATCH_NORM) pack_norm(from, &e->steps[i], packed);
    }
}

void nas_exec_update(nas_exec *e) {
    nas__exec_pack(e, e->graph, e->packed);
    for (int32_t i = 0; i < e->n_steps; i++) {
        const nas_op op = nas_graph_node(e->graph, e->steps[i].node)->op;
        if (e->steps[i].tiles != NULL) nas__exec_tiles_pack(e, &e->steps[i]);
        for (int32_t t = 0; op == NAS_OP_CONSTANT && t < e->options.threads; t++)
            write_constant(e, e->spaces[t], e->steps[i].node);
    }
}

/* ---- whole -------------------------------------------------------------------------------------------------------- */

const nas__exec_value *nas__exec_root(const nas_exec *e, nas_value v) {
    return &e->values[e->values[v].root];
}

float *nas__exec_at(const nas_exec *e, float *space, nas_value v) {
    const nas__exec_value *value = nas__exec_root(e, v);
    return space + e->slot_at[value->slot] + value->origin;
}

static nas_status check_graph(nas_ctx *ctx, const nas_graph *g, const nas_exec_options *o) {
    int32_t inputs = 0;
    if (o->chunk < 1 || o->chunk > 256 || o->threads < 1 || o->threads > 64)
        return nas_fail(ctx, NAS_ERR_INVALID, "executor: chunk %d (1..256), threads %d (1..64)",
                        (int)o->chunk, (int)o->threads);
    if (!nas_graph_has_weights(g) || nas_graph_output(g) == NAS_VALUE_NONE)
        return nas_fail(ctx, NAS_ERR_INVALID, "executor: graph '%s' has no %s", nas_graph_name(g),
                        nas_graph_has_weights(g) ? "output" : "weights");
    for (nas_value i = 0; i < nas_graph_node_count(g); i++) {
        const nas_node *node = nas_graph_node(g, i);
        inputs += node->op == NAS_OP_INPUT;
        const char *problem = nas__exec_supported(g, node);
        if (problem == NULL && node->shape.n != 1) problem = "batch above 1";
        if (problem != NULL)
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "executor: node '%s' (%s): %s", node->name,
                            nas_op_name(node->op), problem);
    }
    if (inputs != 1)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "executor: graph '%s' has %d inputs, limit 1",
                        nas_graph_name(g), (int)inputs);
    return NAS_OK;
}

static nas_status alloc_parts(nas_ctx *ctx, nas_exec *e) {
    const size_t n = (size_t)nas_graph_node_count(e->graph);
    e->values = nas_arena_alloc(ctx, e->arena, n, sizeof *e->values);
    e->steps = nas_arena_alloc(ctx, e->arena, n, sizeof *e->steps);
    e->spaces = nas_arena_alloc(ctx, e->arena, (size_t)e->options.threads, sizeof *e->spaces);
    return e->values == NULL || e->steps == NULL || e->spaces == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

static nas_status plan(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                       bool keep, nas_exec **out) {
    nas_status status = check_graph(ctx, graph, options);
    if (status != NAS_OK) return status;
    nas_exec *e = nas_alloc_array(ctx, 1, sizeof *e);
    if (e == NULL) return NAS_ERR_NOMEM;
    e->graph = graph;
    e->options = *options;
    e->kernels = nas__exec_kernels_best();
    e->keep = keep;
    e->arena = nas_arena_new(ctx, 1 << 16);
    if (e->arena == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = alloc_parts(ctx, e);
    if (status == NAS_OK) {
        lay_out_values(e);
        status = give_slots(ctx, e);
    }
    if (status == NAS_OK) status = plan_steps(ctx, e);
    if (status == NAS_OK) {
        e->packed = nas_arena_alloc(ctx, e->arena, e->packed_floats + 1, sizeof *e->packed);
        e->halves = nas_alloc_aligned(ctx, e->n_halves + 1, sizeof *e->halves, 64);
        if (e->packed == NULL || e->halves == NULL) status = NAS_ERR_NOMEM;
        e->strip_at = e->space_floats;
        e->space_floats += (e->strip_values + 31) / 32 * 16;
    }
    for (int32_t i = 0; i < options->threads && status == NAS_OK; i++) {
        /* the last group of a grouped convolution reads and rewrites a few floats too far */
        e->spaces[i] = nas_alloc_aligned(ctx, e->space_floats + 64, sizeof(float), 64);
        if (e->spaces[i] == NULL) status = NAS_ERR_NOMEM;
    }
    if (status != NAS_OK) {
        nas_exec_free(e);
        return status;
    }
    nas_exec_update(e);
    *out = e;
    return NAS_OK;
}

nas_status nas__exec_plan(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          bool keep, nas_exec **out) {
    if (options->bf16)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "executor: bf16 is for answers alone");
    return plan(ctx, graph, options, keep, out);
}

nas_status nas_exec_new(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                        nas_exec **out) {
    if (options->bf16 && !nas_exec_has_bf16())
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "executor: bf16 wants a processor with AMX-BF16, and a system that lets "
                        "programs use it");
    return plan(ctx, graph, options, false, out);
}

void nas_exec_free(nas_exec *e) {
    if (e == NULL) return;
    for (int32_t i = 0; e->spaces != NULL && i < e->options.threads; i++)
        nas_free(e->spaces[i]);
    nas_free(e->halves);
    nas_arena_free(e->arena);
    nas_free(e);
}
