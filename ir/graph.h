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
enum { NAS_VALUE_NONE = -1, NAS_NODE_INPUTS_MAX = 16, NAS_NODE_PARAMS_MAX = 4 };
enum {
    NAS_GRAPH_NAME_MAX = 127,   /* characters of a graph's or node's name */
    NAS_GRAPH_NODES_MAX = 8192, /* nodes of a graph */
    NAS_PARAM_ALIGN = 64        /* bytes; alignment of weight data */
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

/* Window of MAX_POOL and AVG_POOL. Output extent as for a convolution of dilation 1 (pads may differ on the two sides,
 * which is how ceil mode and global pooling are expressed). AVG_POOL divides by kernel_h*kernel_w when
 * count_include_pad, else by the taps that lie inside the input; MAX_POOL ignores taps outside. Each pad < kernel. */
typedef struct nas_pool_attributes {
    int32_t kernel_h, kernel_w;
    int32_t stride_h, stride_w;
    int32_t pad_top, pad_left, pad_bottom, pad_right;
    bool count_include_pad;
} nas_pool_attributes;

/* Elementwise functions of UNARY; alpha and beta as given. */
typedef enum nas_unary {
    NAS_UNARY_CLIP,         /* min(max(x, alpha), beta), alpha <= beta; RELU6 is alpha 0, beta 6 */
    NAS_UNARY_LEAKY_RELU,   /* x > 0 ? x : alpha*x */
    NAS_UNARY_SIGMOID,      /* 1/(1 + exp(-x)) */
    NAS_UNARY_HARD_SIGMOID, /* min(max(alpha*x + beta, 0), 1) */
    NAS_UNARY_HARD_SWISH,   /* x*min(max(x/6 + 0.5, 0), 1) */
    NAS_UNARY_SWISH,        /* x*sigmoid(x) */
    NAS_UNARY_TANH,
    NAS_UNARY_ERF,
    NAS_UNARY_GELU, /* x*(1 + erf(x/sqrt(2)))/2 */
    NAS_UNARY_EXP,
    NAS_UNARY_SQRT,
    NAS_UNARY_NEG,
    NAS_UNARY_ABS,
    NAS_UNARY_AFFINE, /* alpha*x + beta */
    NAS_UNARY_COUNT
} nas_unary;
const char *nas_unary_name(nas_unary fn); /* "clip", "leaky_relu" ... */

/* RESIZE: how output pixel centres map to the input (ONNX coordinate_transformation_mode). */
typedef enum nas_resize_mode {
    NAS_RESIZE_NEAREST_ASYMMETRIC,    /* input index floor(i*in/out) */
    NAS_RESIZE_NEAREST_HALF_PIXEL,    /* round half down of (i + 0.5)*in/out - 0.5 */
    NAS_RESIZE_BILINEAR_ASYMMETRIC,   /* at i*in/out, edges clamped */
    NAS_RESIZE_BILINEAR_HALF_PIXEL,   /* at (i + 0.5)*in/out - 0.5 */
    NAS_RESIZE_BILINEAR_ALIGN_CORNERS /* at i*(in - 1)/(out - 1) */
} nas_resize_mode;

/* How the output value of a node is stored by integer kernels: real = scale*(q - zero_point). bits 8: q in 0..255 when
 * !is_signed, -128..127 when is_signed. Absent (is_set false): fp32. */
typedef struct nas_quant {
    bool is_set, is_signed;
    float scale; /* finite, > 0 */
    int32_t zero_point;
} nas_quant;

/* nas_conv_same - stride 1, dilation 1, groups 1, odd kernel k x k, zero "same" padding, with bias. */
nas_conv_attributes nas_conv_same(int32_t out_channels, int32_t kernel);

/* One weight tensor, named "<node>.<slot>". Slots of the operators and their dims, in the order of nas_node.params:
 *   CONV, CONV_TRANSPOSE  weight [O,KH,KW,I/groups], bias [O] when has_bias
 *   PRELU                 slope [C]
 *   BATCH_NORM            scale, bias, mean, variance, each [C]
 *   LAYER_NORM            scale, bias, each [C]
 *   CONSTANT              value [N,H,W,C] */
typedef struct nas_param {
    const char *name; /* unique in the graph */
    int32_t rank;     /* 1..4 */
    int32_t dims[4];
    size_t count; /* product of dims */
    float *data;  /* NULL when the graph carries no weights */
    float *
        scales; /* [dims[0]] when the param is quantized (symmetric), else NULL; owned by the graph */
    int32_t bits; /* 2..8 with scales, else 0 */
} nas_param;

/* Each field names the operators it belongs to; with others it is ignored. RELU, PRELU, ADD, SUB, MUL, DIV and SOFTMAX have
 * none, INPUT, CONSTANT and RESHAPE just `shape`. What an operator has but does not need (alpha and beta of a UNARY like
 * tanh, count_include_pad of MAX_POOL) should be 0: it enters the hash. */
typedef struct nas_node {
    nas_op op;
    /* Unique; [A-Za-z0-9_.]+, and not ending like a param or a scalar in ONNX: .weight .bias .slope .scale .mean .variance
     * .value .scalar */
    const char *name;
    int32_t n_inputs;
    nas_value inputs[NAS_NODE_INPUTS_MAX];
    nas_conv_attributes conv; /* CONV; CONV_TRANSPOSE: groups 1 */
    float scalar;             /* ADD_SCALAR; PAD: the fill */
    int32_t block;            /* DEPTH_TO_SPACE: factor r, C = r*r*C_out; CHANNEL_SHUFFLE: groups */
    int32_t output_pad_h,
        output_pad_w;         /* CONV_TRANSPOSE: rows/columns added at the end, < stride */
    nas_pool_attributes pool; /* MAX_POOL, AVG_POOL; count_include_pad: AVG_POOL */
    nas_unary unary;          /* UNARY */
    float alpha, beta;        /* UNARY: see nas_unary; LRN */
    float epsilon;            /* BATCH_NORM >= 0; LAYER_NORM > 0; LRN: the constant k > 0 */
    int32_t size;             /* LRN: channels of the window, >= 1 */
    int32_t axis;             /* CONCAT: 0 n, 1 h, 2 w, 3 c */
    int32_t begin[4], end[4]; /* SLICE: [begin, end) on n, h, w, c; PAD: elements before, after */
    int32_t perm[4];          /* TRANSPOSE: output axis i is input axis perm[i], axes n, h, w, c */
    nas_resize_mode resize;   /* RESIZE, to shape.h x shape.w */
    bool transpose_b;         /* MATMUL */
    nas_quant quant;          /* of the output value */
    int32_t params[NAS_NODE_PARAMS_MAX]; /* param indices by slot, -1 = unused: see nas_param */
    /* Of the output value, inferred when the node is added; given for INPUT, CONSTANT, RESHAPE and, h and w, for RESIZE. */
    nas_shape shape;
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
nas_status nas_graph_add_input(nas_ctx *ctx, nas_graph *g, const char *name, nas_shape shape,
                               nas_value *out);
nas_status nas_graph_add_conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                              const nas_conv_attributes *conv, nas_value *out);
nas_status nas_graph_add_relu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                              nas_value *out);
/* prelu: per-channel slope. y = x > 0 ? x : slope[c]*x (He et al., arXiv:1502.01852) */
nas_status nas_graph_add_prelu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                               nas_value *out);
nas_status nas_graph_add_add(nas_ctx *ctx, nas_graph *g, const char *name, nas_value a, nas_value b,
                             nas_value *out);
nas_status nas_graph_add_scalar(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                                float scalar, nas_value *out);
/* depth_to_space: PixelShuffle / ONNX mode CRD (Shi et al., arXiv:1609.05158):
 * out[n, h*r+i, w*r+j, c] = in[n, h, w, c*r*r + i*r + j]. */
nas_status nas_graph_add_depth_to_space(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x,
                                        int32_t block, nas_value *out);
/* nas_graph_add_node - the general builder: `proto` names operator, inputs and attributes; its name, params and (where it
 * is inferred) shape are ignored. Semantics, with b broadcast meaning each extent of the second operand is that of the
 * first or 1:
 *   conv_transpose   weight [O,KH,KW,I] (groups 1), out extent (in - 1)*stride - pads + dilation*(kernel - 1) + 1 +
 *                    output_pad; out[y*stride + k - pad] += w[k]*in[y]
 *   batch_norm       scale*(x - mean)/sqrt(variance + epsilon) + bias, per channel
 *   add sub mul div  elementwise, b broadcast
 *   concat           along `axis`; other extents equal
 *   slice, pad       see begin, end; pad fills with `scalar`
 *   softmax, layer_norm   over the channels of each pixel
 *   lrn              x/(epsilon + alpha/size*sum of squares over a window of `size` channels)^beta; the window has
 *                    (size - 1)/2 channels before and size/2 after, cut at the ends
 *   matmul           for each n and h: [w, c] x [k, c'], b as [n|1, h|1, c, c'] or, transposed, [n|1, h|1, c', c]
 *   reshape          same elements in [n,h,w,c] memory order
 *   constant         its param, [n,h,w,c]
 *   unary, resize, max_pool, avg_pool   see their types
 *   transpose        see perm
 *   channel_shuffle  out[c] = in[(c % groups)*(C/groups) + c/groups]
 * Errors: as the builders above. */
nas_status nas_graph_add_node(nas_ctx *ctx, nas_graph *g, const char *name, const nas_node *proto,
                              nas_value *out);
/* nas_graph_set_quant - declares how a value is stored; INVALID for a scale that is not finite and > 0 or a zero point
 * outside the type. A quantized conv also needs weight scales: see nas_param.scales. */
nas_status nas_graph_set_quant(nas_ctx *ctx, nas_graph *g, nas_value v, nas_quant quant);
/* nas_graph_set_weight_scales - of one param: per output channel (dims[0] of them), each finite and > 0; bits 2..8.
 * The stored floats need not be multiples of the scale; integer kernels round and saturate them. */
nas_status nas_graph_set_weight_scales(nas_ctx *ctx, nas_graph *g, int32_t param, int32_t bits,
                                       const float *scales);

/* nas_graph_set_output - the one network output. */
nas_status nas_graph_set_output(nas_ctx *ctx, nas_graph *g, nas_value value);

const char *nas_graph_name(const nas_graph *g);
int32_t nas_graph_node_count(const nas_graph *g);
const nas_node *nas_graph_node(const nas_graph *g,
                               nas_value v); /* borrowed until the graph changes */
nas_value nas_graph_output(const nas_graph *g);
nas_value
nas_graph_input(const nas_graph *g); /* the first INPUT node, NAS_VALUE_NONE when there is none */
nas_value nas_graph_find(const nas_graph *g,
                         const char *node_name); /* NAS_VALUE_NONE when absent */
int32_t nas_graph_param_count(const nas_graph *g);
nas_param *nas_graph_param(nas_graph *g, int32_t index); /* data may be written through it */
const nas_param *nas_graph_param_const(const nas_graph *g, int32_t index);
/* nas_graph_alloc_weights - gives every param zeroed data (keeps data that is there). */
nas_status nas_graph_alloc_weights(nas_ctx *ctx, nas_graph *g);
bool nas_graph_has_weights(const nas_graph *g);
/* nas_graph_drop_weights - frees all param data: a shape-only graph again. */
void nas_graph_drop_weights(nas_graph *g);
/* nas_graph_resize_input - same network for another input [1,h,w,c]: re-infers every shape. The target of a RESIZE keeps its
 * ratio to its input (SHAPE when that is no whole number), a pool over the whole input stays one; SLICE, PAD, RESHAPE and
 * CONSTANT stay as given. INVALID unless the graph has exactly one INPUT; after an error (SHAPE, RANGE) the graph is as
 * before. */
nas_status nas_graph_resize_input(nas_ctx *ctx, nas_graph *g, int32_t h, int32_t w);

/* nas_graph_verify - everything a pass may rely on: order, arity, legal and unique names, finite scalars, shapes equal to
 * a fresh inference, params of the right name and shape that belong to one node each, finite weights where there are
 * weights, BATCH_NORM variance >= 0 and with epsilon > 0, legal quantization, output set, every node leading to the
 * output. The message names the node. Errors: INVALID, SHAPE, RANGE. */
nas_status nas_graph_verify(nas_ctx *ctx, const nas_graph *g);

/* nas_conv_out_extent - output extent of one spatial axis of a convolution:
 *   out = floor((in + pad - dilation*(kernel - 1) - 1) / stride) + 1
 * in, kernel, stride, dilation   elements, >= 1
 * pad                            elements, both sides together, >= 0
 * Errors: INVALID (argument out of range), SHAPE (kernel wider than the padded input), RANGE (exceeds int32).
 * Source: Dumoulin & Visin, arXiv:1603.07285. */
nas_status nas_conv_out_extent(nas_ctx *ctx, int32_t in, int32_t kernel, int32_t stride,
                               int32_t dilation, int32_t pad, int32_t *out);

/* ---- costs ---------------------------------------------------------------------------------------------------- */

typedef struct nas_node_cost {
    uint64_t
        macs; /* multiply-accumulates; 1 MAC = 2 FLOPs; CONV (taps in the padding count), CONV_TRANSPOSE (each input
               * pixel meets each tap) and MATMUL, others 0 */
    uint64_t params;      /* elements of all params */
    uint64_t input_bytes; /* activations read, fp32, each operand once (x + x reads x twice) */
    uint64_t output_bytes;
    uint64_t weight_bytes; /* of params, fp32 */
} nas_node_cost;

/* Totals. peak_activation_bytes: nodes run one by one in list order, each value in its own fp32 buffer, nothing fused
 * or in place. A network input lives from the start to its last reader, any other value from its node to its last
 * reader, the network output to the end. At each node the living values, its inputs and its output included, are
 * summed; the peak is the largest sum. Weights do not count. */
typedef struct nas_graph_cost {
    uint64_t macs;
    uint64_t params;
    uint64_t peak_activation_bytes;
} nas_graph_cost;

nas_node_cost nas_graph_node_cost(const nas_graph *g, nas_value v);
/* nas_graph_cost_total - RANGE when a total exceeds INT64_MAX. */
nas_status nas_graph_cost_total(nas_ctx *ctx, const nas_graph *g, nas_graph_cost *out);

/* ---- identity and text ----------------------------------------------------------------------------------------- */

/* nas_graph_hash - SHA-256 hex over structure and attributes, and over weights when with_weights.
 * Names of graph and nodes do not enter, nor does the order in which independent nodes were added, so that equal
 * networks hash equal. Nodes are taken in canonical order: depth first from the output, operands first (first operand
 * before second); then those that do not lead to the output. Stream, integers as little-endian int32:
 *   "nas-graph-1" or "nas-graph-1-weights", NUL; number of nodes; then for each node
 *   operator name, NUL; number of inputs; their places in canonical order; n, h, w, c;
 *   attributes, floats as their bits:
 *     INPUT            its number among the inputs in list order
 *     CONV             the fields of nas_conv_attributes in order
 *     CONV_TRANSPOSE   the same, output_pad_h, output_pad_w
 *     MAX_POOL, AVG_POOL   the fields of nas_pool_attributes in order
 *     UNARY            nas_unary_name, NUL; alpha, beta
 *     BATCH_NORM, LAYER_NORM   epsilon
 *     LRN              size, alpha, beta, epsilon
 *     CONCAT           axis
 *     SLICE, PAD       begin[4], end[4]; PAD: scalar
 *     RESIZE           the number of the mode
 *     MATMUL           transpose_b
 *     TRANSPOSE        perm[4]
 *     ADD_SCALAR       scalar
 *     DEPTH_TO_SPACE, CHANNEL_SHUFFLE   block
 *     others           nothing
 *   where quant.is_set: "quant", NUL; is_signed, bits of the scale, zero_point;
 *   for each param with scales, in slot order: "bits", NUL; slot, bits; with weights: the scales;
 *   with weights: the floats of its params in slot order;
 *   last the place of the output. Booleans are 0 or 1.
 * Errors: INVALID (no output; with_weights without weights), NOMEM. */
nas_status nas_graph_hash(nas_ctx *ctx, const nas_graph *g, bool with_weights,
                          char out[NAS_SHA256_HEX]);
/* nas_graph_dump - appends a line for the graph with its costs, one line a node, weights as shape and the first 8 digits
 * of their SHA-256, and the output: for people and --dump-after. */
nas_status nas_graph_dump(nas_ctx *ctx, const nas_graph *g, nas_buf *out);
/* nas_graph_to_json - appends one JSON object, the "graph" member of a recipe (no weights):
 *   name, structure_sha256 (nas_graph_hash without weights), output, macs, params, peak_activation_bytes,
 *   nodes: [{name, op, inputs: [names], shape: [n,h,w,c],
 *            conv: kernel [h,w], stride [h,w], dilation [h,w], pad [top,left,bottom,right], groups, bias;
 *            conv_transpose: the same, output_pad [h,w];
 *            max_pool, avg_pool: kernel [h,w], stride [h,w], pad [top,left,bottom,right], count_include_pad;
 *            unary: function, alpha, beta;  batch_norm, layer_norm: epsilon;  lrn: size, alpha, beta, k;
 *            concat: axis;  slice: begin [4], end [4];  pad: begin, end, scalar;  resize: mode;
 *            matmul: transpose_b;  transpose: perm [4];  add_scalar: scalar;
 *            depth_to_space: block;  channel_shuffle: groups;
 *            quant: {signed, scale, zero_point} where it is set;  macs, params}]
 * Errors: INVALID (no output), RANGE, NOMEM. */
nas_status nas_graph_to_json(nas_ctx *ctx, const nas_graph *g, nas_buf *out);

/* ---- ONNX ------------------------------------------------------------------------------------------------------ */

/* nas_onnx_export - opset 13, IR version 7, float tensors, NCHW, weights as initializers [O,I,KH,KW].
 * ADD_SCALAR becomes Add with a scalar initializer, PRELU PRelu with slope [C,1,1], DEPTH_TO_SPACE DepthToSpace mode CRD,
 * CONSTANT an initializer. In parts, since opset 13 has no such operator: LAYER_NORM, MATMUL and RESHAPE (with the
 * transpositions to [N,H,W,C] and back), CHANNEL_SHUFFLE, and of UNARY hard_swish, swish, gelu and affine. Quantization is not
 * written (nas_onnx_export_quantized does): the file computes in floats.
 * Values carry the names of their nodes, values inside of parts "<node>/...". Same graph, same bytes. The graph must verify
 * and have weights; the file appears whole or not at all. Errors: those of nas_graph_verify, INVALID (no weights, or the
 * output is an input or a constant), RANGE (2 GiB limit of the format), IO, NOMEM. */
nas_status nas_onnx_export(nas_ctx *ctx, const nas_graph *g, const char *path);

/* nas_onnx_export_quantized - the same file with its integers, for engines that read QuantizeLinear and DequantizeLinear:
 *   value with a quantization   a pair behind it, uint8 or int8, one scale; what reads it takes the second's output
 *   weights with scales         int8 codes (nas_quant_weights) -> DequantizeLinear, a scale for each output channel along `axis`;
 *                               the bias int32 codes (nas_quant_bias) -> DequantizeLinear by the products of the scales, or,
 *                               where the input has no codes or float products would not give the same codes back, floats
 *   fewer than 8 bits           in 8-bit types; clips that narrow a value are nodes of the graph
 * Imported again the network has the same codes of everything and the same `bits` or fewer (those that its codes need), so that
 * integer programs of it answer the same bits. Nodes keep their names.
 * Errors besides those of nas_onnx_export: INVALID (nothing is stored as integers), UNSUPPORTED (a constant is). */
nas_status nas_onnx_export_quantized(nas_ctx *ctx, const nas_graph *g, const char *path);

/* How an ONNX file is read. */
typedef struct nas_onnx_import_options {
    int32_t batch; /* >= 1: for an input whose batch extent the file leaves open */
    int32_t h,
        w; /* > 0: height and width of every rank-4 input, whatever the file says; 0: as in the file */
    size_t max_file_bytes;   /* larger files are refused */
    size_t max_weight_bytes; /* of all weights of the graph, fp32 */
} nas_onnx_import_options;

nas_onnx_import_options nas_onnx_import_options_default(void); /* batch 1, 0 x 0, 2 GiB each */

/* nas_onnx_import - a graph with weights from an ONNX file (operators of opset 1 to 21 with constant shapes). [N,C,H,W]
 * becomes [N,H,W,C], [N,C] becomes [N,1,1,C]; other ranks up to 8 lie in four axes as their operators need them: the
 * channels are what a matrix product, softmax or layer norm runs over, and reshapes and transposes that only rename the
 * axes leave no node. Inputs of rank 2 to 4; planes [C,H,W] of input and output are the order of the file. Flatten before
 * Gemm is absorbed in the weights. Nodes carry the names of
 * their ONNX values, made legal and unique. Errors name the node, its op_type and the reason: PARSE (no ONNX file, wrong
 * counts, undefined or cyclic values), UNSUPPORTED (operator, attribute, open shape, external data, several outputs),
 * SHAPE, RANGE (limits), IO, NOTFOUND, NOMEM. */
nas_status nas_onnx_import(nas_ctx *ctx, const char *path, const nas_onnx_import_options *options,
                           nas_graph **out);
/* nas_onnx_import_bytes - the same from memory; `name` names the graph when the file does not. */
nas_status nas_onnx_import_bytes(nas_ctx *ctx, const void *data, size_t len, const char *name,
                                 const nas_onnx_import_options *options, nas_graph **out);

#endif
