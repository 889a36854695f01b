/* graph_features.c - see graph_features.h. */
#include "latency/graph_features.h"

#include "latency/predictor_internal.h"

#include <math.h>

/* Kinds of layers; those with MACs first. */
#define KINDS(X)                                                                                   \
    X(conv1x1)                                                                                     \
    X(conv3x3)                                                                                     \
    X(conv5x5)                                                                                     \
    X(conv7x7) X(conv_other) X(conv_group) X(depthwise3) X(depthwise5) X(depthwise7)               \
        X(conv_transpose) X(matmul) X(pool) X(norm) X(activation) X(add) X(mul) X(move)
typedef enum kind {
#define NAME(k) KIND_##k,
    KINDS(NAME)
#undef NAME
        KIND_COUNT,
    KIND_NONE
} kind;
enum { MAC_KINDS = KIND_pool };

#define TOTALS(X)                                                                                  \
    X("bytes.activations", TERM)                                                                   \
    X("bytes.weights", TERM) X("bytes.peak", TERM) X("path.layers", TERM) X("path.convs", TERM)    \
        X("path.macs", TERM) X("shared.reads", TERM) X("macs.level0", TERM) X("macs.level1", TERM) \
            X("macs.level2", TERM) X("macs.level3", TERM) X("macs.level4", TERM)                   \
                X("macs.level5", TERM) X("layers.level0", TERM) X("layers.level1", TERM)           \
                    X("layers.level2", TERM) X("layers.level3", TERM) X("layers.level4", TERM)     \
                        X("layers.level5", TERM) X("log.macs", SHAPE) X("log.padded", SHAPE)       \
                            X("log.bytes", SHAPE) X("log.layers", SHAPE) X("log.path", SHAPE)      \
                                X("share.pointwise", SHAPE) X("share.depthwise", SHAPE)

static const nas_feature features[] = {
#define TERM(text) {text, NAS_FEATURE_TERM},
#define LAYERS(k) TERM("layers." #k)
#define MACS(k) TERM("macs." #k)
#define PADDED(k) TERM("padded." #k)
#define ELEMENTS(k) TERM("elements." #k)
#define TOTAL(name, what) {name, NAS_FEATURE_##what},
    KINDS(LAYERS) KINDS(MACS) KINDS(PADDED) KINDS(ELEMENTS) TOTALS(TOTAL)
#undef TERM
#undef LAYERS
#undef MACS
#undef PADDED
#undef ELEMENTS
#undef TOTAL
};
enum {
    FEATURES = sizeof features / sizeof features[0],
    AT_LAYERS = 0,
    AT_MACS = KIND_COUNT,
    AT_PADDED = 2 * KIND_COUNT,
    AT_ELEMENTS = 3 * KIND_COUNT,
    AT_TOTALS = 4 * KIND_COUNT,
    LEVELS = 6,
    AT_LEVELS = AT_TOTALS + 7 /* behind shared.reads */
};

_Static_assert(FEATURES == AT_LEVELS + 2 * LEVELS + 7, "the list and the places agree");

const nas_feature *nas_graph_features_list(size_t *n) {
    *n = FEATURES;
    return features;
}

static kind conv_kind(const nas_node *node, int32_t in_channels) {
    const nas_conv_attributes *c = &node->conv;
    const int32_t side = c->kernel_h == c->kernel_w ? c->kernel_h : 0;
    if (c->groups == 1) {
        if (side == 1) return KIND_conv1x1;
        if (side == 3) return KIND_conv3x3;
        if (side == 5) return KIND_conv5x5;
        return side == 7 ? KIND_conv7x7 : KIND_conv_other;
    }
    if (c->groups != in_channels) return KIND_conv_group;
    if (side == 5) return KIND_depthwise5;
    return side == 7 ? KIND_depthwise7 : KIND_depthwise3;
}

static kind kind_of(const nas_node *node, int32_t in_channels) {
    switch (node->op) {
    case NAS_OP_CONV: return conv_kind(node, in_channels);
    case NAS_OP_CONV_TRANSPOSE: return KIND_conv_transpose;
    case NAS_OP_MATMUL: return KIND_matmul;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: return KIND_pool;
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_SOFTMAX: return KIND_norm;
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_UNARY: return KIND_activation;
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_ADD_SCALAR: return KIND_add;
    case NAS_OP_MUL:
    case NAS_OP_DIV: return KIND_mul;
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_DEPTH_TO_SPACE:
    case NAS_OP_RESIZE: return KIND_move;
    case NAS_OP_INPUT:
    case NAS_OP_CONSTANT:
    case NAS_OP_COUNT: break;
    }
    return KIND_NONE;
}

static double rounded_up(int32_t extent, int32_t step) {
    return ceil((double)extent / step) * step;
}

/* MACs with rows padded to vectors and output channels to tiles of 4; small images put channels into the lanes, so the
 * cheaper of the two paddings counts. */
static double padded_macs(const nas_node *node, double macs, int32_t lanes) {
    enum { TILE = 4 };
    const double w = rounded_up(node->shape.w, lanes) / node->shape.w,
                 c = rounded_up(node->shape.c, TILE) / node->shape.c,
                 channels_in_lanes = rounded_up(node->shape.c, lanes) / node->shape.c;
    return macs * fmin(w * c, channels_in_lanes);
}

typedef struct path {
    double layers, convs, macs; /* most on any way to this value */
    int32_t readers;
} path;

/* How often the image was halved on the way here: the larger extent of its input over that of the value. */
static int level_of(const nas_graph *graph, nas_shape shape) {
    const nas_value input = nas_graph_input(graph);
    if (input == NAS_VALUE_NONE) return 0;
    const nas_shape in = nas_graph_node(graph, input)->shape;
    const double ratio = in.h >= in.w ? (double)in.h / shape.h : (double)in.w / shape.w;
    const int level = (int)lround(log2(ratio));
    return level < 0 ? 0 : level >= LEVELS ? LEVELS - 1 : level;
}

/* Adds one layer to the amounts in x; its own MACs and padded MACs come back. */
static void add_layer(const nas_graph *graph, const nas_node *node, nas_value v, int32_t lanes,
                      double *x, double totals[2], path *p) {
    const int32_t in_channels =
        node->n_inputs > 0 ? nas_graph_node(graph, node->inputs[0])->shape.c : 0;
    const kind k = kind_of(node, in_channels);
    if (k == KIND_NONE) return;
    const nas_node_cost cost = nas_graph_node_cost(graph, v);
    const double macs = (double)cost.macs, padded = padded_macs(node, macs, lanes);
    x[AT_LAYERS + k] += 1;
    x[AT_MACS + k] += macs * 1e-6;
    x[AT_PADDED + k] += padded * 1e-6;
    x[AT_ELEMENTS + k] += (double)cost.output_bytes / sizeof(float) * 1e-3;
    x[AT_TOTALS] += ((double)cost.input_bytes + (double)cost.output_bytes) * 1e-6;
    x[AT_TOTALS + 1] += (double)cost.weight_bytes * 1e-6;
    const int level = level_of(graph, node->shape);
    x[AT_LEVELS + level] += macs * 1e-6;
    x[AT_LEVELS + LEVELS + level] += 1;
    totals[0] += macs * 1e-6;
    totals[1] += padded * 1e-6;
    p->layers += 1;
    p->convs += (int)k < (int)MAC_KINDS;
    p->macs += macs * 1e-6;
}

static void walk(const nas_graph *graph, int32_t lanes, path *paths, double *x, double totals[2]) {
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        path p = {0};
        for (int32_t i = 0; i < node->n_inputs; i++) {
            path *from = &paths[node->inputs[i]];
            p.layers = fmax(p.layers, from->layers);
            p.convs = fmax(p.convs, from->convs);
            p.macs = fmax(p.macs, from->macs);
            from->readers++;
        }
        add_layer(graph, node, v, lanes, x, totals, &p);
        paths[v] = p;
    }
}

static double share(double part, double whole) {
    return whole > 0 ? part / whole : 0;
}

static void fill_totals(const nas_graph *graph, const path *paths, const double totals[2],
                        uint64_t peak, double *x) {
    const path *end = &paths[nas_graph_output(graph)];
    double layers = 0, shared = 0;
    for (int k = 0; k < KIND_COUNT; k++)
        layers += x[AT_LAYERS + k];
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++)
        shared += paths[v].readers > 1 ? paths[v].readers : 0;
    double *t = x + AT_TOTALS + 2; /* bytes of activations and weights are there */
    *t++ = (double)peak * 1e-6;
    *t++ = end->layers;
    *t++ = end->convs;
    *t++ = end->macs;
    *t = shared;
    t += 1 + (ptrdiff_t)2 * LEVELS; /* the levels are there */
    *t++ = log1p(totals[0]);
    *t++ = log1p(totals[1]);
    *t++ = log1p(x[AT_TOTALS] + x[AT_TOTALS + 1]);
    *t++ = log1p(layers);
    *t++ = log1p(end->layers);
    *t++ = share(x[AT_MACS + KIND_conv1x1], totals[0]);
    *t = share(x[AT_MACS + KIND_depthwise3] + x[AT_MACS + KIND_depthwise5] +
                   x[AT_MACS + KIND_depthwise7],
               totals[0]);
}

nas_status nas_graph_features_of(nas_ctx *ctx, const nas_graph *graph, int32_t lanes, double *x) {
    nas_status status = nas__check_lanes(ctx, lanes);
    nas_graph_cost cost = {0};
    if (status == NAS_OK && nas_graph_output(graph) == NAS_VALUE_NONE) {
        status = nas_fail(ctx, NAS_ERR_INVALID, "graph '%s' has no output", nas_graph_name(graph));
    }
    if (status == NAS_OK) status = nas_graph_cost_total(ctx, graph, &cost);
    if (status != NAS_OK) return status;
    path *paths = nas_alloc_array(ctx, (size_t)nas_graph_node_count(graph), sizeof *paths);
    if (paths == NULL) return NAS_ERR_NOMEM;
    for (int k = 0; k < FEATURES; k++)
        x[k] = 0;
    double totals[2] = {0, 0};
    walk(graph, lanes, paths, x, totals);
    fill_totals(graph, paths, totals, cost.peak_activation_bytes, x);
    nas_free(paths);
    return NAS_OK;
}
