/* graph.h - the network: operators, shapes, weights, costs, text form, ONNX export.
 *
 * A graph is a list of nodes in topological order; a node has exactly one output value, so a value is named by the
 * index of its node. Activations are [N,H,W,C], convolution weights [O,KH,KW,I], fp32. The graph owns its names and
 * weights. Weights may be absent (shape-only graph): then only costs, text form and timing-independent passes work.
 * Layer 1: includes core only. */
#ifndef NAS_IR_GRAPH_H
#define NAS_IR_GRAPH_H

#include "core/core.h"

typedef enum nas_op {
#define NAS_OPERATOR(code, name, inputs_min, inputs_max) NAS_OP_##code,
#include "ir/ops.def"
#undef NAS_OPERATOR
    NAS_OP_COUNT
} nas_op;

const char *nas_op_name(nas_op op);

typedef struct nas_shape {
    int32_t n, h, w, c; /* each >= 1 */
} nas_shape;

/* Index of a node and of the value it produces. */
typedef int32_t nas_value;
enum { NAS_VALUE_NONE = -1, NAS_NODE_INPUTS_MAX = 2, NAS_NODE_PARAMS_MAX = 2 };
enum {
    NAS_GRAPH_NAME_MAX = 127,    /* characters of a graph's or node's name */
    NAS_GRAPH_NODES_MAX = 65536, /* nodes of a graph */
    NAS_PARAM_ALIGN = 64         /* bytes; alignment of weight data */
};

/* Convolution attributes. Output extent: see nas_conv_out_extent. Zero padding. */
typedef struct nas_conv_attributes {
    int32_t out_channels;
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t dilation_h, dilation_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    int32_t groups;
    bool has_bias;
} nas_conv_attributes;

/* nas_conv_same - stride 1, dilation 1, groups 1, odd kernel k x k, zero "same" padding, with bias. */
nas_conv_attributes nas_conv_same(int32_t out_channels, int32_t kernel);

/* One weight tensor. dims for conv weight: [O,KH,KW,I/groups]; bias [O]; prelu slope [C]. */
typedef struct nas_param {
    const char *name; /* "<node>.weight", "<node>.bias", "<node>.slope"; unique in the graph */
    int32_t rank;     /* 1..4 */
    int32_t dims[4];
    size_t count;     /* product of dims */
    float *data;      /* NULL when the graph carries no weights */
} nas_param;

typedef struct nas_node {
    nas_op op;
    const char *name; /* unique; [A-Za-z0-9_.]+, not ending in .weight .bias .slope .scalar (names of weights) */
    int32_t n_inputs;
    nas_value inputs[NAS_NODE_INPUTS_MAX];
    nas_conv_attributes conv;            /* CONV only */
    float scalar;                        /* ADD_SCALAR only */
    int32_t block;                       /* DEPTH_TO_SPACE only: factor r, C = r*r*C_out */
    int32_t params[NAS_NODE_PARAMS_MAX]; /* param indices: conv {weight, bias or -1}, prelu {slope, -1} */
    nas_shape shape;                     /* of the output value, inferred when the node is added */
} nas_node;

typedef struct nas_graph nas_graph;

/* nas_graph_new - an empty graph named `name` ([A-Za-z0-9_.-]+). NULL with message on failure. */
nas_graph *nas_graph_new(nas_ctx *ctx, const char *name);
void nas_graph_free(nas_graph *graph);
/* nas_graph_clone - deep copy, weights included. */
nas_status nas_graph_clone(nas_ctx *ctx, const nas_graph *graph, nas_graph **out);

/* Builders: append one node, infer its shape, create its params (without data), return its value. A failed call leaves
 * the graph as it was.
 * Errors: SHAPE, INVALID (bad attribute, duplicate name, unknown input), RANGE (too many nodes; bytes or MACs of the
 * node exceed INT64_MAX), NOMEM. */
nas_status nas_graph_add_input(nas_ctx *ctx, nas_graph *g, const char *name, nas_shape shape, nas_value *out);
nas_status nas_graph_add_conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                              const nas_conv_attributes *conv, nas_value *out);
nas_status nas_graph_add_relu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, nas_value *out);
/* prelu: per-channel slope. y = x > 0 ? x : slope[c]*x (He et al., arXiv:1502.01852) */
nas_status nas_graph_add_prelu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, nas_value *out);
nas_status nas_graph_add_add(nas_ctx *ctx, nas_graph *g, const char *name, nas_value a, nas_value b, nas_value *out);
nas_status nas_graph_add_scalar(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, float scalar,
                                nas_value *out);
/* depth_to_space: PixelShuffle / ONNX mode CRD (Shi et al., arXiv:1609.05158):
 * out[n, h*r+i, w*r+j, c] = in[n, h, w, c*r*r + i*r + j]. */
nas_status nas_graph_add_depth_to_space(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, int32_t block,
                                        nas_value *out);
/* nas_graph_set_output - the one network output. */
nas_status nas_graph_set_output(nas_ctx *ctx, nas_graph *g, nas_value value);

const char *nas_graph_name(const nas_graph *g);
int32_t nas_graph_node_count(const nas_graph *g);
const nas_node *nas_graph_node(const nas_graph *g, nas_value v); /* borrowed until the graph changes */
nas_value nas_graph_output(const nas_graph *g);
nas_value nas_graph_input(const nas_graph *g); /* the first INPUT node, NAS_VALUE_NONE when there is none */
nas_value nas_graph_find(const nas_graph *g, const char *node_name); /* NAS_VALUE_NONE when absent */
int32_t nas_graph_param_count(const nas_graph *g);
nas_param *nas_graph_param(nas_graph *g, int32_t index); /* data may be written through it */
const nas_param *nas_graph_param_const(const nas_graph *g, int32_t index);
/* nas_graph_alloc_weights - gives every param zeroed data (keeps data that is there). */
nas_status nas_graph_alloc_weights(nas_ctx *ctx, nas_graph *g);
bool nas_graph_has_weights(const nas_graph *g);
/* nas_graph_drop_weights - frees all param data: a shape-only graph again. */
void nas_graph_drop_weights(nas_graph *g);
/* nas_graph_resize_input - same network for another input [1,h,w,c]: re-infers every shape. INVALID unless the graph has
 * exactly one INPUT; after an error (SHAPE, RANGE) all shapes are as before. */
nas_status nas_graph_resize_input(nas_ctx *ctx, nas_graph *g, int32_t h, int32_t w);

/* nas_graph_verify - everything a pass may rely on: order, arity, unique names, shapes equal to a fresh inference,
 * params of the right shape, output set and reachable, finite weights. The message names the node. */
nas_status nas_graph_verify(nas_ctx *ctx, const nas_graph *g);

/* nas_conv_out_extent - output extent of one spatial axis of a convolution:
 *   out = floor((in + pad - dilation*(kernel - 1) - 1) / stride) + 1
 * in, kernel, stride, dilation   elements, >= 1
 * pad                            elements, both sides together, >= 0
 * Errors: INVALID (argument out of range), SHAPE (kernel wider than the padded input), RANGE (exceeds int32).
 * Source: Dumoulin & Visin, arXiv:1603.07285. */
nas_status nas_conv_out_extent(nas_ctx *ctx, int32_t in, int32_t kernel, int32_t stride, int32_t dilation,
                               int32_t pad, int32_t *out);

/* ---- costs ---------------------------------------------------------------------------------------------------- */

typedef struct nas_node_cost {
    uint64_t macs;              /* multiply-accumulates; 1 MAC = 2 FLOPs; conv only, others 0 */
    uint64_t params;            /* weights + biases + slopes */
    uint64_t input_bytes;       /* activations read, fp32 */
    uint64_t output_bytes;
    uint64_t weight_bytes;
} nas_node_cost;

typedef struct nas_graph_cost {
    uint64_t macs;
    uint64_t params;
    uint64_t peak_activation_bytes; /* max over nodes of live values by liveness, layer by layer, no fusion */
} nas_graph_cost;

nas_node_cost nas_graph_node_cost(const nas_graph *g, nas_value v);
nas_status nas_graph_cost_total(nas_ctx *ctx, const nas_graph *g, nas_graph_cost *out); /* RANGE on overflow */

/* ---- identity and text ----------------------------------------------------------------------------------------- */

/* nas_graph_hash - SHA-256 hex over structure and attributes, and over weights when with_weights.
 * Names of graph and nodes do not enter, so that equal networks hash equal. */
nas_status nas_graph_hash(nas_ctx *ctx, const nas_graph *g, bool with_weights, char out[NAS_SHA256_HEX]);
/* nas_graph_dump - one line a node, weights as shape and short hash: for people and --dump-after. */
nas_status nas_graph_dump(nas_ctx *ctx, const nas_graph *g, nas_buf *out);
/* nas_graph_to_json - nodes, attributes, shapes, costs (no weights): the "graph" member of a recipe. */
nas_status nas_graph_to_json(nas_ctx *ctx, const nas_graph *g, nas_buf *out);

/* ---- ONNX ------------------------------------------------------------------------------------------------------ */

/* nas_onnx_export - opset 13, IR version 7, float tensors, NCHW, weights as initializers [O,I,KH,KW].
 * DEPTH_TO_SPACE becomes DepthToSpace mode CRD. Needs weights. Errors: INVALID, IO, NOMEM. */
nas_status nas_onnx_export(nas_ctx *ctx, const nas_graph *g, const char *path);

#endif
