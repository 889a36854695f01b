/* features.c - what a layer costs to run, as numbers: the rows of v_layer and the raw material of the predictor.
 *
 * Generated kernels hold pixels in vector lanes and a few output channels in registers; both are padded here, because a
 * row of 17 pixels costs as much as one of 32 where a vector has 16 lanes. */
#include "latency/predictor_internal.h"

#include <math.h>
#include <string.h>

enum { CHANNEL_TILE = 4, LANES_MAX = 64 };

/* Family of a convolution by its larger kernel side; anything unusual is plain "conv". */
static const char *conv_family(const nas_conv_attributes *conv) {
    static const char *const square[] = {
        [1] = "conv1x1", [3] = "conv3x3", [5] = "conv5x5", [7] = "conv7x7", [9] = "conv9x9"};
    const int32_t side = conv->kernel_h;
    const bool usual = side == conv->kernel_w &&
                       side < (int32_t)(sizeof square / sizeof square[0]) && square[side] != NULL &&
                       conv->groups == 1;
    return usual ? square[side] : "conv";
}

static const char *family_of(const nas_node *node) {
    switch (node->op) {
    case NAS_OP_CONV_TRANSPOSE: return "conv_transpose";
    case NAS_OP_MATMUL: return "matmul";
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: return "pool";
    case NAS_OP_CONV: return conv_family(&node->conv);
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD:
    case NAS_OP_UNARY:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_RESIZE:
    case NAS_OP_ADD_SCALAR: return "elementwise";
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_DEPTH_TO_SPACE: return "shuffle";
    case NAS_OP_INPUT:
    case NAS_OP_CONSTANT:
    case NAS_OP_COUNT: break;
    }
    return NULL; /* costs nothing */
}

static uint64_t rounded_up(int32_t extent, int32_t step) {
    const uint64_t e = (uint64_t)extent, s = (uint64_t)step;
    return (e + s - 1) / s * s;
}

/* MACs with the row padded to lanes and the output channels to the tile. */
static nas_status padded_macs(nas_ctx *ctx, const nas_node *node, int32_t in_channels,
                              int32_t lanes, uint64_t *out) {
    const nas_conv_attributes *conv = &node->conv;
    const uint64_t factors[] = {(uint64_t)node->shape.n,
                                (uint64_t)node->shape.h,
                                rounded_up(node->shape.w, lanes),
                                rounded_up(node->shape.c, CHANNEL_TILE),
                                (uint64_t)conv->kernel_h,
                                (uint64_t)conv->kernel_w,
                                (uint64_t)(in_channels / conv->groups)};
    uint64_t product = 1;
    for (size_t i = 0; i < sizeof factors / sizeof factors[0]; i++) {
        if (__builtin_mul_overflow(product, factors[i], &product) || product > INT64_MAX) {
            return nas_fail(ctx, NAS_ERR_RANGE, "node '%s': padded MACs exceed %" PRId64,
                            node->name, INT64_MAX);
        }
    }
    *out = product;
    return NAS_OK;
}

static nas_status fill_row(nas_ctx *ctx, const nas_graph *graph, nas_value v, int32_t lanes,
                           nas_layer_features *row) {
    const nas_node *node = nas_graph_node(graph, v);
    const nas_node_cost cost = nas_graph_node_cost(graph, v);
    const nas_shape in = nas_graph_node(graph, node->inputs[0])->shape;
    nas_layer_features r = {.node = node->name,
                            .family = family_of(node),
                            .h = node->shape.h,
                            .w = node->shape.w,
                            .c_in = in.c,
                            .c_out = node->shape.c,
                            .kernel = 1,
                            .macs = cost.macs};
    double flops = (double)(cost.output_bytes / sizeof(float)); /* elementwise: one an element */
    if (node->op == NAS_OP_CONV) {
        const nas_conv_attributes *conv = &node->conv;
        r.kernel = conv->kernel_h > conv->kernel_w ? conv->kernel_h : conv->kernel_w;
        flops = 2.0 * (double)cost.macs;
        const nas_status status = padded_macs(ctx, node, in.c, lanes, &r.macs_padded);
        if (status != NAS_OK) return status;
    } else if (node->op == NAS_OP_DEPTH_TO_SPACE) {
        flops = 0; /* moves only */
    }
    if (__builtin_add_overflow(cost.input_bytes, cost.output_bytes, &r.bytes) ||
        __builtin_add_overflow(r.bytes, cost.weight_bytes, &r.bytes) || r.bytes > INT64_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "node '%s': bytes exceed %" PRId64, node->name,
                        INT64_MAX);
    }
    r.intensity = flops / (double)r.bytes; /* outputs are never empty */
    *row = r;
    return NAS_OK;
}

nas_status nas__check_lanes(nas_ctx *ctx, int32_t lanes) {
    if (lanes >= 1 && lanes <= LANES_MAX) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "%" PRId32 " vector lanes: must be 1..%d", lanes,
                    LANES_MAX);
}

nas_status nas_layer_features_of(nas_ctx *ctx, const nas_graph *graph, int32_t lanes,
                                 nas_layer_features *rows, size_t max, size_t *n) {
    nas_status status = nas__check_lanes(ctx, lanes);
    if (status != NAS_OK) return status;
    size_t needed = 0;
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        if (family_of(nas_graph_node(graph, v)) == NULL) continue;
        if (needed < max) status = fill_row(ctx, graph, v, lanes, &rows[needed]);
        if (status != NAS_OK) return status;
        needed++;
    }
    *n = needed;
    return NAS_OK;
}

/* ---- one network as a row of the predictor ---------------------------------------------------------------------- */

static int mac_term(const char *family) {
    if (strcmp(family, "conv1x1") == 0) return NAS__TERM_MACS_1X1;
    if (strcmp(family, "conv3x3") == 0) return NAS__TERM_MACS_3X3;
    return NAS__TERM_MACS_OTHER;
}

/* Rows of its input that a convolution keeps at hand, in bytes: what has to fit a cache in a row pipeline. */
static double ring_bytes(const nas_layer_features *row) {
    return (double)sizeof(float) * row->kernel * row->w * row->c_in;
}

static void set_shape(nas__network_row *r, double convs, double ring) {
    const double work = r->terms[NAS__TERM_MACS_1X1] + r->terms[NAS__TERM_MACS_3X3] +
                        r->terms[NAS__TERM_MACS_OTHER];
    r->shape[NAS__SHAPE_WORK] = log(work);
    r->shape[NAS__SHAPE_POINTWISE] = r->terms[NAS__TERM_MACS_1X1] / work;
    r->shape[NAS__SHAPE_DEPTH] = log(convs);
    r->shape[NAS__SHAPE_REUSE] = log(work / r->terms[NAS__TERM_OUTPUTS]);
    r->shape[NAS__SHAPE_RING] = log(ring);
}

/* What one layer adds to the row of its network. */
typedef struct layer_sums {
    double convs, ring;
} layer_sums;

static void add_layer(nas__network_row *r, const nas_layer_features *layer, int32_t lanes,
                      layer_sums *sums) {
    const double pixels = (double)rounded_up(layer->w, lanes) * layer->h;
    if (layer->macs_padded == 0) {
        r->terms[NAS__TERM_ELEMENTS] += pixels * layer->c_out * 1e-6;
        return;
    }
    r->terms[mac_term(layer->family)] += (double)layer->macs_padded * 1e-9;
    r->terms[NAS__TERM_OUTPUTS] += pixels * (double)rounded_up(layer->c_out, CHANNEL_TILE) * 1e-6;
    r->terms[NAS__TERM_ROWS] += layer->h * 1e-3;
    sums->ring += ring_bytes(layer);
    sums->convs += 1;
}

nas_status nas__network_features(nas_ctx *ctx, const nas_graph *graph, int32_t lanes,
                                 nas__network_row *out) {
    nas_status status = nas__check_lanes(ctx, lanes);
    if (status != NAS_OK) return status;
    nas__network_row r = {.terms = {[NAS__TERM_FRAME] = 1}};
    layer_sums sums = {0};
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        nas_layer_features layer;
        if (family_of(nas_graph_node(graph, v)) == NULL) continue;
        status = fill_row(ctx, graph, v, lanes, &layer);
        if (status != NAS_OK) return status;
        add_layer(&r, &layer, lanes, &sums);
    }
    if (!(sums.convs > 0)) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "graph '%s' has no convolution: nothing to predict from",
                        nas_graph_name(graph));
    }
    set_shape(&r, sums.convs, sums.ring);
    *out = r;
    return NAS_OK;
}
