/* graph_slice.c - channels that need no computing go: those that are the same number everywhere, whatever the image, because
 * all weights of their filter are zero, and those that no filter reads. Their producers do not make them, their readers do
 * not meet them; what a constant adds to the sums of its readers goes into biases.
 *
 * Channels that only exist together (those of an addition, before and after a depthwise convolution, of a concatenation and
 * its members) are one class, which goes or stays as a whole. A class stays when one of its channels is an image's, the
 * network's result's, or of an operator that mixes channels other than a convolution; and when a filter reads one that is
 * not constant, or is but not where the filter pads: zeros of the padding and a constant other than 0 are no constant.
 *
 * Unlike the passes of graph_passes.c this one looks at the numbers in the weights; only what is made for these weights
 * (the layer form, whose sparse kernels do so too) may use it. Networks with integers stay as they are. */
#include "compiler/graph_slice_internal.h"

#include <math.h>
#include <string.h>

/* ---- classes ------------------------------------------------------------------------------------------------------ */

static int32_t root(nas__slice *s, int32_t i) {
    while (s->same[i] != i) {
        s->same[i] = s->same[s->same[i]];
        i = s->same[i];
    }
    return i;
}

static void join(nas__slice *s, int32_t a, int32_t b) {
    const int32_t x = root(s, a), y = root(s, b);
    if (x != y) s->same[x > y ? x : y] = x > y ? y : x;
}

bool nas__slice_gone(nas__slice *s, nas_value v, int32_t c) {
    return s->gone[root(s, s->first[v] + c)];
}

static const nas_node *node_of(const nas__slice *s, nas_value v) {
    return nas_graph_node(s->in, v);
}

static int32_t channels(const nas__slice *s, nas_value v) {
    return node_of(s, v)->shape.c;
}

static const float *weights_of(const nas__slice *s, const nas_node *node, int32_t slot) {
    return node->params[slot] < 0 ? NULL : nas_graph_param_const(s->in, node->params[slot])->data;
}

nas__slice_kind nas__slice_kind_of(const nas__slice *s, nas_value v) {
    const nas_node *node = node_of(s, v);
    switch (node->op) {
    case NAS_OP_CONV:
        if (node->conv.groups == 1) return NAS__SLICE_CONV;
        return node->conv.groups == channels(s, node->inputs[0]) &&
                       node->conv.groups == node->shape.c
                   ? NAS__SLICE_DEPTHWISE
                   : NAS__SLICE_MIXES;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_UNARY:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE: return NAS__SLICE_CHANNELWISE;
    case NAS_OP_PAD:
        return node->begin[3] == 0 && node->end[3] == 0 ? NAS__SLICE_CHANNELWISE : NAS__SLICE_MIXES;
    case NAS_OP_CONCAT: return node->axis == 3 ? NAS__SLICE_CONCAT : NAS__SLICE_CHANNELWISE;
    case NAS_OP_CONSTANT: return NAS__SLICE_CONSTANT;
    case NAS_OP_INPUT:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_SLICE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    return NAS__SLICE_MIXES;
}

static void find_classes(nas__slice *s) {
    for (int32_t i = 0; i < s->first[s->n]; i++)
        s->same[i] = i;
    for (nas_value v = 0; v < s->n; v++) {
        const nas__slice_kind kind = nas__slice_kind_of(s, v);
        const nas_node *node = node_of(s, v);
        int32_t at = s->first[v];
        for (int32_t k = 0; k < node->n_inputs; k++) {
            const nas_value x = node->inputs[k];
            const bool apart = kind == NAS__SLICE_CONCAT;
            if (kind != NAS__SLICE_CHANNELWISE && kind != NAS__SLICE_DEPTHWISE && !apart) continue;
            if (!apart && channels(s, x) != channels(s, v)) continue; /* one number for all */
            for (int32_t c = 0; c < channels(s, x); c++)
                join(s, s->first[x] + c, at + c);
            if (apart) at += channels(s, x);
        }
    }
}

/* ---- constants ---------------------------------------------------------------------------------------------------- */

static bool pads(const nas_conv_attributes *c) {
    return c->pad_top != 0 || c->pad_left != 0 || c->pad_bottom != 0 || c->pad_right != 0;
}

bool nas__slice_folds(const nas__slice *s, const nas_node *conv, double value) {
    (void)s;
    return !isnan(value) && (value == 0 || !pads(&conv->conv));
}

/* Weight of output o, tap t, input i. */
static double weight_at(const nas_node *node, const float *weight, int32_t inputs, int32_t o,
                        int32_t t, int32_t i) {
    const size_t taps = (size_t)node->conv.kernel_h * (size_t)node->conv.kernel_w;
    return (double)weight[((size_t)o * taps + (size_t)t) * (size_t)inputs + (size_t)i];
}

/* One output of a convolution of inputs [from, to); NAN as soon as it reads something that is not constant. */
static double conv_value(const nas__slice *s, const nas_node *node, int32_t o, int32_t from,
                         int32_t to) {
    const float *weight = weights_of(s, node, 0), *bias = weights_of(s, node, 1);
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    double sum = bias != NULL ? (double)bias[o] : 0;
    for (int32_t t = 0; t < taps; t++) {
        for (int32_t i = from; i < to; i++) {
            const double w = weight_at(node, weight, to - from, o, t, i - from);
            const double x = s->value[s->first[node->inputs[0]] + i];
            if (w == 0) continue;
            if (!nas__slice_folds(s, node, x)) return NAN;
            sum += w * x;
        }
    }
    return sum;
}

static double binary(nas_op op, double a, double b) {
    if (op == NAS_OP_MUL && (a == 0 || b == 0)) return 0;
    switch (op) {
    case NAS_OP_ADD: return a + b;
    case NAS_OP_SUB: return a - b;
    case NAS_OP_MUL: return a * b;
    default: return b == 0 ? NAN : a / b;
    }
}

/* Channel c of a channelwise node; NAN of a NAN. */
static double channel_value(const nas__slice *s, const nas_node *node, int32_t c) {
    const double x = s->value[s->first[node->inputs[0]] + c];
    const nas_pool_attributes *p = &node->pool;
    switch (node->op) {
    case NAS_OP_RELU: return isnan(x) ? NAN : fmax(x, 0);
    case NAS_OP_PRELU: return x > 0 ? x : x * (double)weights_of(s, node, 0)[c];
    case NAS_OP_UNARY: return isnan(x) ? NAN : nas__unary_value(node, x);
    case NAS_OP_ADD_SCALAR: return x + (double)node->scalar;
    case NAS_OP_BATCH_NORM:
        return (double)weights_of(s, node, 0)[c] * (x - (double)weights_of(s, node, 2)[c]) /
                   sqrt((double)weights_of(s, node, 3)[c] + (double)node->epsilon) +
               (double)weights_of(s, node, 1)[c];
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: {
        const nas_value b = node->inputs[1];
        return binary(node->op, x, s->value[s->first[b] + (channels(s, b) == 1 ? 0 : c)]);
    }
    case NAS_OP_AVG_POOL:
        return x == 0 || !p->count_include_pad ||
                       (p->pad_top == 0 && p->pad_left == 0 && p->pad_bottom == 0 &&
                        p->pad_right == 0)
                   ? x
                   : NAN;
    case NAS_OP_PAD: return x == (double)node->scalar ? x : NAN;
    case NAS_OP_CONCAT: /* along an axis other than channels */
        for (int32_t k = 1; k < node->n_inputs; k++) {
            if (s->value[s->first[node->inputs[k]] + c] != x) return NAN;
        }
        return x;
    default: return x; /* MAX_POOL, RESIZE */
    }
}

/* A channel of a CONSTANT: one number, or not. */
static double constant_value(const nas__slice *s, const nas_node *node, int32_t c) {
    const float *data = weights_of(s, node, 0);
    const nas_shape shape = node->shape;
    const size_t pixels = (size_t)shape.n * (size_t)shape.h * (size_t)shape.w;
    for (size_t i = 1; i < pixels; i++) {
        if (data[i * (size_t)shape.c + (size_t)c] != data[c]) return NAN;
    }
    return (double)data[c];
}

static void find_constants(nas__slice *s) {
    for (nas_value v = 0; v < s->n; v++) {
        const nas_node *node = node_of(s, v);
        double *out = s->value + s->first[v];
        int32_t done = 0;
        switch (nas__slice_kind_of(s, v)) {
        case NAS__SLICE_CONV:
            for (int32_t c = 0; c < node->shape.c; c++)
                out[c] = conv_value(s, node, c, 0, channels(s, node->inputs[0]));
            break;
        case NAS__SLICE_DEPTHWISE:
            for (int32_t c = 0; c < node->shape.c; c++)
                out[c] = conv_value(s, node, c, c, c + 1);
            break;
        case NAS__SLICE_CHANNELWISE:
            for (int32_t c = 0; c < node->shape.c; c++)
                out[c] = channel_value(s, node, c);
            break;
        case NAS__SLICE_CONSTANT:
            for (int32_t c = 0; c < node->shape.c; c++)
                out[c] = constant_value(s, node, c);
            break;
        case NAS__SLICE_CONCAT:
            for (int32_t k = 0; k < node->n_inputs; k++) {
                const nas_value x = node->inputs[k];
                memcpy(out + done, s->value + s->first[x], (size_t)channels(s, x) * sizeof *out);
                done += channels(s, x);
            }
            break;
        case NAS__SLICE_MIXES:
            for (int32_t c = 0; c < node->shape.c; c++)
                out[c] = NAN;
            break;
        }
    }
}

/* ---- what stays --------------------------------------------------------------------------------------------------- */

static void pin_all(nas__slice *s, nas_value v) {
    for (int32_t c = 0; c < channels(s, v); c++)
        s->pinned[root(s, s->first[v] + c)] = true;
}

/* Does an output that stays read input i? */
static bool reads(nas__slice *s, nas_value v, int32_t i) {
    const nas_node *node = node_of(s, v);
    const float *weight = weights_of(s, node, 0);
    const int32_t inputs = channels(s, node->inputs[0]);
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    for (int32_t o = 0; o < node->shape.c; o++) {
        if (nas__slice_gone(s, v, o)) continue;
        for (int32_t t = 0; t < taps; t++) {
            if (weight_at(node, weight, inputs, o, t, i) != 0) return true;
        }
    }
    return false;
}

static void pin(nas__slice *s, nas_value v) {
    const nas_node *node = node_of(s, v);
    const nas__slice_kind kind = nas__slice_kind_of(s, v);
    if (kind == NAS__SLICE_MIXES) pin_all(s, v);
    for (int32_t k = 0; k < node->n_inputs; k++) {
        const nas_value x = node->inputs[k];
        if (kind == NAS__SLICE_MIXES ||
            (kind == NAS__SLICE_CHANNELWISE && channels(s, x) != channels(s, v)))
            pin_all(s, x);
    }
    if (kind != NAS__SLICE_CONV) return;
    for (int32_t i = 0; i < channels(s, node->inputs[0]); i++) {
        const int32_t at = s->first[node->inputs[0]] + i;
        if (!s->pinned[root(s, at)] && !nas__slice_folds(s, node, s->value[at]) && reads(s, v, i))
            s->pinned[root(s, at)] = true;
    }
}

/* The classes that nobody needs, as filters go that read others. */
static void find_gone(nas__slice *s) {
    const size_t n = (size_t)s->first[s->n];
    memset(s->gone, 0, n * sizeof *s->gone);
    for (bool more = true; more;) {
        more = false;
        memcpy(s->pinned, s->keep, n * sizeof *s->pinned);
        pin_all(s, nas_graph_output(s->in));
        for (nas_value v = 0; v < s->n; v++)
            pin(s, v);
        for (size_t i = 0; i < n; i++) {
            if (s->same[i] != (int32_t)i || s->gone[i] || s->pinned[i]) continue;
            s->gone[i] = more = true;
        }
    }
}

/* A part of a vector costs what a whole one does, and pixels that begin within vectors more: channels stay in whole vectors,
 * at least one. Returns whether that takes some back. */
static bool fill_vectors(nas__slice *s, int32_t lanes) {
    bool changed = false;
    for (nas_value v = 0; v < s->n; v++) {
        const int32_t all = channels(s, v);
        int32_t left = 0;
        for (int32_t c = 0; c < all; c++)
            left += !nas__slice_gone(s, v, c);
        if (left == all) continue;
        int32_t missing = left == 0 ? lanes : (lanes - left % lanes) % lanes;
        for (int32_t c = 0; c < all && missing > 0; c++) {
            const int32_t class = root(s, s->first[v] + c);
            if (!s->gone[class]) continue;
            s->gone[class] = false;
            s->keep[class] = changed = true;
            missing--;
        }
    }
    return changed;
}

/* ---- all ---------------------------------------------------------------------------------------------------------- */

static bool has_integers(const nas_graph *g) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        if (nas_graph_node(g, v)->quant.is_set) return true;
    }
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        if (nas_graph_param_const(g, p)->scales != NULL) return true;
    }
    return false;
}

/* Is there a convolution with an empty filter, or an input that it does not read? Nothing can go without. */
static bool worth_a_look(nas__slice *s) {
    for (nas_value v = 0; v < s->n; v++) {
        const nas_node *node = node_of(s, v);
        if (node->op != NAS_OP_CONV) continue;
        const float *weight = weights_of(s, node, 0);
        const size_t per =
            nas_graph_param_const(s->in, node->params[0])->count / (size_t)node->shape.c;
        for (size_t o = 0; o < (size_t)node->shape.c; o++) {
            size_t i = 0;
            while (i < per && weight[o * per + i] == 0)
                i++;
            if (i == per) return true;
        }
        for (int32_t i = 0; node->conv.groups == 1 && i < channels(s, node->inputs[0]); i++) {
            if (!reads(s, v, i)) return true;
        }
    }
    return false;
}

static nas_status slice_init(nas__slice *s, nas_ctx *ctx, const nas_graph *in, nas_arena *arena) {
    *s = (nas__slice){.ctx = ctx, .in = in, .n = nas_graph_node_count(in)};
    s->first = nas_arena_alloc(ctx, arena, (size_t)s->n + 1, sizeof *s->first);
    if (s->first == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < s->n; v++) {
        if (s->first[v] > INT32_MAX - channels(s, v))
            return nas_fail(ctx, NAS_ERR_RANGE, "graph '%s': too many channels",
                            nas_graph_name(in));
        s->first[v + 1] = s->first[v] + channels(s, v);
    }
    const size_t n = (size_t)s->first[s->n];
    s->same = nas_arena_alloc(ctx, arena, n, sizeof *s->same);
    s->value = nas_arena_alloc(ctx, arena, n, sizeof *s->value);
    s->pinned = nas_arena_alloc(ctx, arena, n, sizeof *s->pinned);
    s->keep = nas_arena_alloc(ctx, arena, n, sizeof *s->keep);
    s->gone = nas_arena_alloc(ctx, arena, n, sizeof *s->gone);
    s->map = nas_arena_alloc(ctx, arena, (size_t)s->n, sizeof *s->map);
    return s->same == NULL || s->value == NULL || s->pinned == NULL || s->keep == NULL ||
                   s->gone == NULL || s->map == NULL
               ? NAS_ERR_NOMEM
               : NAS_OK;
}

static nas_status slice(nas__slice *s, int32_t lanes, nas_graph **out) {
    bool any = false;
    find_classes(s);
    if (!worth_a_look(s)) return NAS_OK;
    find_constants(s);
    do {
        find_gone(s);
    } while (fill_vectors(s, lanes));
    for (int32_t i = 0; i < s->first[s->n]; i++)
        any = any || s->gone[i];
    return any ? nas__slice_build(s, out) : NAS_OK;
}

nas_status nas__graph_slice(nas_ctx *ctx, const nas_graph *in, int32_t lanes, nas_graph **out) {
    enum { ARENA_BLOCK = 64 * 1024 };
    *out = NULL;
    if (!nas_graph_has_weights(in) || has_integers(in)) return NAS_OK;
    nas_arena *arena = nas_arena_new(ctx, ARENA_BLOCK);
    if (arena == NULL) return NAS_ERR_NOMEM;
    nas__slice s;
    nas_status status = slice_init(&s, ctx, in, arena);
    if (status == NAS_OK) status = slice(&s, lanes, out);
    nas_arena_free(arena);
    return nas_wrap(ctx, status, "channels that need no computing");
}
