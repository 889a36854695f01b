/* onnx_export_ops.c - what each operator becomes in ONNX opset 13. Values are [n,h,w,c] here and [N,C,H,W] there, so every
 * axis, shape and constant is reordered on the way. Operators that opset 13 lacks are written in parts; onnx_export_quant.c adds
 * what says how values and weights are stored. */
#include "ir/onnx_export_internal.h"

#include <string.h>

typedef nas__onnx_writer writer;

/* The ONNX axis of each of n, h, w, c, and the one of ours for each of N, C, H, W. */
static const int32_t onnx_axis[4] = {0, 2, 3, 1};
static const int32_t ir_axis[4] = {0, 3, 1, 2};
/* Transpositions between the two orders. */
static const int32_t to_nhwc[4] = {0, 2, 3, 1};
static const int32_t to_nchw[4] = {0, 3, 1, 2};

/* ---- nodes ------------------------------------------------------------------------------------------------------- */

enum { ATTRIBUTES_MAX = 6 };

Onnx__NodeProto *nas__onnx_put_node(writer *w, const char *name, const char *suffix,
                                    const char *op_type, size_t n, const char *const *inputs) {
    Onnx__NodeProto *proto = nas__onnx_take(w, 1, sizeof *proto);
    char **output = nas__onnx_take(w, 1, sizeof *output);
    char **names = nas__onnx_take(w, n, sizeof *names);
    Onnx__AttributeProto **attributes = nas__onnx_take(w, ATTRIBUTES_MAX, sizeof *attributes);
    if (attributes == NULL) return NULL; /* takes fail in a row */
    *proto = (Onnx__NodeProto)ONNX__NODE_PROTO__INIT;
    proto->name = nas__onnx_text(w, name, suffix);
    proto->op_type = nas__onnx_text(w, op_type, "");
    output[0] = nas__onnx_text(w, name, suffix);
    proto->output = output;
    proto->n_output = 1;
    for (size_t i = 0; i < n; i++)
        names[i] = nas__onnx_text(w, inputs[i], "");
    proto->input = names;
    proto->n_input = n;
    proto->attribute = attributes;
    w->graph->node[w->graph->n_node++] = proto;
    return w->status == NAS_OK ? proto : NULL;
}

/* A node whose value is "<node><suffix>"; suffix "" is the value of the IR node itself. NULL once something failed. */
static Onnx__NodeProto *emit(writer *w, const nas_node *node, const char *suffix,
                             const char *op_type, size_t n, const char *const *inputs) {
    return nas__onnx_put_node(w, node->name,
                              suffix[0] == '\0' ? nas__onnx_raw_suffix(w, node) : suffix, op_type,
                              n, inputs);
}

static const char *emit_1(writer *w, const nas_node *node, const char *suffix, const char *op_type,
                          const char *a) {
    const Onnx__NodeProto *proto = emit(w, node, suffix, op_type, 1, &a);
    return proto == NULL ? NULL : proto->output[0];
}

static const char *emit_2(writer *w, const nas_node *node, const char *suffix, const char *op_type,
                          const char *a, const char *b) {
    const char *const inputs[] = {a, b};
    const Onnx__NodeProto *proto = emit(w, node, suffix, op_type, 2, inputs);
    return proto == NULL ? NULL : proto->output[0];
}

/* The value of operand k. */
static const char *operand(writer *w, const nas_node *node, int32_t k) {
    return nas__onnx_stored_name(w, &w->g->nodes[node->inputs[k]]);
}

static nas_shape operand_shape(const writer *w, const nas_node *node, int32_t k) {
    return w->g->nodes[node->inputs[k]].shape;
}

/* One node of all operands and params in slot order, as most operators are. */
static Onnx__NodeProto *emit_plain(writer *w, const nas_node *node, const char *op_type) {
    const char *inputs[NAS_NODE_INPUTS_MAX + NAS_NODE_PARAMS_MAX];
    size_t n = 0;
    for (int32_t k = 0; k < node->n_inputs; k++)
        inputs[n++] = operand(w, node, k);
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] >= 0) inputs[n++] = w->g->params[node->params[slot]].name;
    }
    return emit(w, node, "", op_type, n, inputs);
}

/* ---- attributes -------------------------------------------------------------------------------------------------- */

static Onnx__AttributeProto *attribute(writer *w, Onnx__NodeProto *proto, const char *name,
                                       Onnx__AttributeProto__AttributeType type) {
    Onnx__AttributeProto *a = nas__onnx_take(w, 1, sizeof *a);
    if (a == NULL || proto == NULL) return NULL;
    *a = (Onnx__AttributeProto)ONNX__ATTRIBUTE_PROTO__INIT;
    a->name = nas__onnx_text(w, name, "");
    a->type = type;
    a->has_type = 1;
    proto->attribute[proto->n_attribute++] = a;
    return a;
}

void nas__onnx_put_int(writer *w, Onnx__NodeProto *proto, const char *name, int64_t value) {
    Onnx__AttributeProto *a = attribute(w, proto, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT);
    if (a == NULL) return;
    a->i = value;
    a->has_i = 1;
}

static void put_float(writer *w, Onnx__NodeProto *proto, const char *name, float value) {
    Onnx__AttributeProto *a =
        attribute(w, proto, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT);
    if (a == NULL) return;
    a->f = value;
    a->has_f = 1;
}

static void put_ints(writer *w, Onnx__NodeProto *proto, const char *name, const int32_t *values,
                     size_t n) {
    Onnx__AttributeProto *a =
        attribute(w, proto, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS);
    int64_t *ints = nas__onnx_take(w, n, sizeof *ints);
    if (a == NULL || ints == NULL) return;
    for (size_t i = 0; i < n; i++)
        ints[i] = values[i];
    a->ints = ints;
    a->n_ints = n;
}

static void put_text(writer *w, Onnx__NodeProto *proto, const char *name, const char *value) {
    Onnx__AttributeProto *a =
        attribute(w, proto, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING);
    char *copy = nas__onnx_text(w, value, "");
    if (a == NULL || copy == NULL) return;
    a->s.data = (uint8_t *)copy;
    a->s.len = strlen(copy);
    a->has_s = 1;
}

/* ---- initializers ------------------------------------------------------------------------------------------------ */

/* raw_data is little-endian */
static void store(uint8_t *at, uint64_t value, size_t size) {
    for (size_t k = 0; k < size; k++)
        at[k] = (uint8_t)(value >> (8 * k));
}

static void store_float(uint8_t *at, float value) {
    uint32_t bits = 0;
    memcpy(&bits, &value, sizeof bits);
    store(at, bits, sizeof bits);
}

static size_t size_of(Onnx__TensorProto__DataType type) {
    if (type == ONNX__TENSOR_PROTO__DATA_TYPE__INT8 || type == ONNX__TENSOR_PROTO__DATA_TYPE__UINT8)
        return 1;
    return type == ONNX__TENSOR_PROTO__DATA_TYPE__INT64 ? sizeof(int64_t) : sizeof(int32_t);
}

static Onnx__TensorProto *tensor(writer *w, const char *name, const char *suffix,
                                 Onnx__TensorProto__DataType type, const int64_t *dims, size_t rank,
                                 size_t count) {
    const size_t size = size_of(type);
    Onnx__TensorProto *t = nas__onnx_take(w, 1, sizeof *t);
    int64_t *own_dims = nas__onnx_take(w, rank, sizeof *own_dims);
    uint8_t *bytes = nas__onnx_take(w, count, size);
    if (bytes == NULL) return NULL; /* takes fail in a row */
    *t = (Onnx__TensorProto)ONNX__TENSOR_PROTO__INIT;
    t->name = nas__onnx_text(w, name, suffix);
    t->data_type = type;
    t->has_data_type = 1;
    for (size_t i = 0; i < rank; i++)
        own_dims[i] = dims[i];
    t->dims = own_dims;
    t->n_dims = rank;
    t->raw_data.data = bytes;
    t->raw_data.len = count * size;
    t->has_raw_data = 1;
    w->graph->initializer[w->graph->n_initializer++] = t;
    return w->status == NAS_OK ? t : NULL;
}

static Onnx__TensorProto *float_tensor(writer *w, const char *name, const char *suffix,
                                       const int64_t *dims, size_t rank, size_t count) {
    return tensor(w, name, suffix, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, dims, rank, count);
}

/* One number; returns its name. */
static const char *scalar(writer *w, const nas_node *node, const char *suffix, float value) {
    Onnx__TensorProto *t = float_tensor(w, node->name, suffix, NULL, 0, 1);
    if (t == NULL) return NULL;
    store_float(t->raw_data.data, value);
    return t->name;
}

/* A list of integers; returns its name. */
static const char *int_list(writer *w, const nas_node *node, const char *suffix,
                            const int32_t *values, size_t n) {
    const int64_t dims[] = {(int64_t)n};
    Onnx__TensorProto *t =
        tensor(w, node->name, suffix, ONNX__TENSOR_PROTO__DATA_TYPE__INT64, dims, 1, n);
    if (t == NULL) return NULL;
    for (size_t i = 0; i < n; i++)
        store(t->raw_data.data + sizeof(int64_t) * i, (uint64_t)values[i], sizeof(int64_t));
    return t->name;
}

const char *nas__onnx_put_floats(writer *w, const char *name, const char *suffix, bool is_list,
                                 const float *values, size_t n) {
    const int64_t dims[] = {(int64_t)n};
    Onnx__TensorProto *t = float_tensor(w, name, suffix, dims, is_list ? 1 : 0, n);
    if (t == NULL) return NULL;
    for (size_t i = 0; i < n; i++)
        store_float(t->raw_data.data + sizeof(float) * i, values[i]);
    return t->name;
}

const char *nas__onnx_put_codes(writer *w, const char *name, const char *suffix,
                                Onnx__TensorProto__DataType type, bool is_list,
                                const int32_t *values, size_t n) {
    const int64_t dims[] = {(int64_t)n};
    const size_t size = size_of(type);
    Onnx__TensorProto *t = tensor(w, name, suffix, type, dims, is_list ? 1 : 0, n);
    if (t == NULL) return NULL;
    for (size_t i = 0; i < n; i++)
        store(t->raw_data.data + size * i, (uint64_t)values[i], size);
    return t->name;
}

/* The four axes of `p` in the order `axes`: its floats, or codes [count] in their places. */
static void reordered(writer *w, const nas_param *p, const int8_t *codes, const char *name,
                      const int32_t axes[4]) {
    size_t step[4] = {0}, at[4] = {0};
    int64_t dims[4];
    step[3] = 1;
    for (int32_t i = 2; i >= 0; i--)
        step[i] = step[i + 1] * (size_t)p->dims[i + 1];
    for (int32_t i = 0; i < 4; i++)
        dims[i] = p->dims[axes[i]];
    Onnx__TensorProto *t = codes == NULL
                               ? float_tensor(w, name, "", dims, 4, p->count)
                               : tensor(w, name, NAS__ONNX_CODES,
                                        ONNX__TENSOR_PROTO__DATA_TYPE__INT8, dims, 4, p->count);
    for (size_t k = 0; k < p->count && t != NULL; k++) {
        size_t from = 0;
        for (int32_t i = 0; i < 4; i++)
            from += at[i] * step[axes[i]];
        if (codes == NULL) {
            store_float(t->raw_data.data + k * sizeof(float), p->data[from]);
        } else {
            store(t->raw_data.data + k, (uint64_t)codes[from], 1);
        }
        for (int32_t i = 3; i >= 0; i--) {
            if (++at[i] < (size_t)dims[i]) break;
            at[i] = 0;
        }
    }
}

/* A vector of C elements, [C] or [C,1,1]: the latter broadcasts over height and width. */
static void vector(writer *w, const nas_param *p, size_t rank) {
    const int64_t dims[] = {p->dims[0], 1, 1};
    Onnx__TensorProto *t = float_tensor(w, p->name, "", dims, rank, p->count);
    for (size_t i = 0; i < p->count && t != NULL; i++)
        store_float(t->raw_data.data + i * sizeof(float), p->data[i]);
}

static const nas_param *param(const writer *w, const nas_node *node, int32_t slot) {
    return node->params[slot] < 0 ? NULL : &w->g->params[node->params[slot]];
}

static void vectors(writer *w, const nas_node *node, int32_t first, size_t rank) {
    for (int32_t slot = first; slot < NAS_NODE_PARAMS_MAX; slot++) {
        const nas_param *p = param(w, node, slot);
        if (p != NULL) vector(w, p, rank);
    }
}

/* ---- operators --------------------------------------------------------------------------------------------------- */

static void export_conv(writer *w, const nas_node *node) {
    const nas_conv_attributes *c = &node->conv;
    const bool forward = node->op == NAS_OP_CONV;
    const int32_t dilations[] = {c->dilation_h, c->dilation_w};
    const int32_t kernel[] = {c->kernel_h, c->kernel_w};
    const int32_t pads[] = {c->pad_top, c->pad_left, c->pad_bottom, c->pad_right};
    const int32_t strides[] = {c->stride_h, c->stride_w};
    const int32_t output_padding[] = {node->output_pad_h, node->output_pad_w};
    static const int32_t oihw[4] = {0, 3, 1, 2}, iohw[4] = {3, 0, 1, 2};
    const nas_param *weight = param(w, node, 0), *bias = param(w, node, 1);
    const int8_t *codes = nas__onnx_weight_codes(w, node, forward ? 0 : 1);
    const bool has_bias_codes = nas__onnx_bias_codes(w, node);
    reordered(w, weight, codes, weight->name, forward ? oihw : iohw);
    if (bias != NULL && !has_bias_codes) vector(w, bias, 1);
    Onnx__NodeProto *proto = emit_plain(w, node, forward ? "Conv" : "ConvTranspose");
    put_ints(w, proto, "dilations", dilations, 2);
    nas__onnx_put_int(w, proto, "group", c->groups);
    put_ints(w, proto, "kernel_shape", kernel, 2);
    if (!forward) put_ints(w, proto, "output_padding", output_padding, 2);
    put_ints(w, proto, "pads", pads, 4);
    put_ints(w, proto, "strides", strides, 2);
}

static void export_pool(writer *w, const nas_node *node) {
    const nas_pool_attributes *p = &node->pool;
    const int32_t kernel[] = {p->kernel_h, p->kernel_w}, strides[] = {p->stride_h, p->stride_w};
    const int32_t pads[] = {p->pad_top, p->pad_left, p->pad_bottom, p->pad_right};
    const bool average = node->op == NAS_OP_AVG_POOL;
    Onnx__NodeProto *proto = emit_plain(w, node, average ? "AveragePool" : "MaxPool");
    if (average) nas__onnx_put_int(w, proto, "count_include_pad", p->count_include_pad ? 1 : 0);
    put_ints(w, proto, "kernel_shape", kernel, 2);
    put_ints(w, proto, "pads", pads, 4);
    put_ints(w, proto, "strides", strides, 2);
}

/* x*(1 + erf(x/sqrt(2)))/2; Gelu is of opset 20. */
static void export_gelu(writer *w, const nas_node *node, const char *x) {
    const char *half = scalar(w, node, "/half", 0.5F), *one = scalar(w, node, "/one", 1.0F);
    const char *root = scalar(w, node, "/root_half", 0.70710678118654752F);
    const char *scaled = emit_2(w, node, "/scaled", "Mul", x, root);
    const char *erf = emit_1(w, node, "/erf", "Erf", scaled);
    const char *gate = emit_2(w, node, "/gate", "Add", erf, one);
    const char *product = emit_2(w, node, "/product", "Mul", x, gate);
    (void)emit_2(w, node, "", "Mul", product, half);
}

static void export_affine(writer *w, const nas_node *node, const char *x) {
    const bool moves = node->beta != 0;
    const char *factor = scalar(w, node, "/alpha", node->alpha);
    const char *scaled = emit_2(w, node, moves ? "/scaled" : "", "Mul", x, factor);
    if (moves) (void)emit_2(w, node, "", "Add", scaled, scalar(w, node, "/beta", node->beta));
}

static void export_clip(writer *w, const nas_node *node, const char *x) {
    const char *const inputs[] = {x, scalar(w, node, "/min", node->alpha),
                                  scalar(w, node, "/max", node->beta)};
    (void)emit(w, node, "", "Clip", 3, inputs);
}

static Onnx__NodeProto *hard_sigmoid(writer *w, const nas_node *node, const char *suffix,
                                     const char *x, float alpha, float beta) {
    Onnx__NodeProto *proto = emit(w, node, suffix, "HardSigmoid", 1, &x);
    put_float(w, proto, "alpha", alpha);
    put_float(w, proto, "beta", beta);
    return proto;
}

static void export_unary(writer *w, const nas_node *node) {
    const char *x = operand(w, node, 0);
    Onnx__NodeProto *proto = NULL;
    switch (node->unary) {
    case NAS_UNARY_CLIP: export_clip(w, node, x); break;
    case NAS_UNARY_LEAKY_RELU:
        proto = emit_plain(w, node, "LeakyRelu");
        put_float(w, proto, "alpha", node->alpha);
        break;
    case NAS_UNARY_SIGMOID: (void)emit_plain(w, node, "Sigmoid"); break;
    case NAS_UNARY_HARD_SIGMOID: (void)hard_sigmoid(w, node, "", x, node->alpha, node->beta); break;
    case NAS_UNARY_HARD_SWISH: /* HardSwish is of opset 14 */
        proto = hard_sigmoid(w, node, "/gate", x, 1.0F / 6, 0.5F);
        if (proto != NULL) (void)emit_2(w, node, "", "Mul", x, proto->output[0]);
        break;
    case NAS_UNARY_SWISH:
        (void)emit_2(w, node, "", "Mul", x, emit_1(w, node, "/gate", "Sigmoid", x));
        break;
    case NAS_UNARY_TANH: (void)emit_plain(w, node, "Tanh"); break;
    case NAS_UNARY_ERF: (void)emit_plain(w, node, "Erf"); break;
    case NAS_UNARY_GELU: export_gelu(w, node, x); break;
    case NAS_UNARY_EXP: (void)emit_plain(w, node, "Exp"); break;
    case NAS_UNARY_SQRT: (void)emit_plain(w, node, "Sqrt"); break;
    case NAS_UNARY_NEG: (void)emit_plain(w, node, "Neg"); break;
    case NAS_UNARY_ABS: (void)emit_plain(w, node, "Abs"); break;
    case NAS_UNARY_AFFINE: export_affine(w, node, x); break;
    case NAS_UNARY_COUNT: break;
    }
}

static const char *mean(writer *w, const nas_node *node, const char *suffix, const char *x) {
    static const int32_t channels[] = {1};
    Onnx__NodeProto *proto = emit(w, node, suffix, "ReduceMean", 1, &x);
    put_ints(w, proto, "axes", channels, 1);
    nas__onnx_put_int(w, proto, "keepdims", 1);
    return proto == NULL ? NULL : proto->output[0];
}

/* LayerNormalization is of opset 17, and over the last axes only. */
static void export_layer_norm(writer *w, const nas_node *node) {
    const char *x = operand(w, node, 0);
    const char *centered = emit_2(w, node, "/centered", "Sub", x, mean(w, node, "/mean", x));
    const char *square = emit_2(w, node, "/square", "Mul", centered, centered);
    const char *variance = mean(w, node, "/variance", square);
    const char *epsilon = scalar(w, node, "/epsilon", node->epsilon);
    const char *positive = emit_2(w, node, "/positive", "Add", variance, epsilon);
    const char *deviation = emit_1(w, node, "/deviation", "Sqrt", positive);
    const char *normal = emit_2(w, node, "/normal", "Div", centered, deviation);
    const char *scaled = emit_2(w, node, "/scaled", "Mul", normal, param(w, node, 0)->name);
    (void)emit_2(w, node, "", "Add", scaled, param(w, node, 1)->name);
    vectors(w, node, 0, 3);
}

static void export_slice(writer *w, const nas_node *node) {
    int32_t starts[4], ends[4];
    for (int32_t i = 0; i < 4; i++) {
        starts[i] = node->begin[ir_axis[i]];
        ends[i] = node->end[ir_axis[i]];
    }
    const char *const inputs[] = {operand(w, node, 0), int_list(w, node, "/starts", starts, 4),
                                  int_list(w, node, "/ends", ends, 4)};
    (void)emit(w, node, "", "Slice", 3, inputs);
}

static void export_pad(writer *w, const nas_node *node) {
    int32_t pads[8];
    for (int32_t i = 0; i < 4; i++) {
        pads[i] = node->begin[ir_axis[i]];
        pads[i + 4] = node->end[ir_axis[i]];
    }
    const char *const inputs[] = {operand(w, node, 0), int_list(w, node, "/pads", pads, 8),
                                  scalar(w, node, "/fill", node->scalar)};
    (void)emit(w, node, "", "Pad", 3, inputs);
}

static void export_resize(writer *w, const nas_node *node) {
    static const struct {
        const char *mode, *coordinates;
    } modes[] = {[NAS_RESIZE_NEAREST_ASYMMETRIC] = {"nearest", "asymmetric"},
                 [NAS_RESIZE_NEAREST_HALF_PIXEL] = {"nearest", "half_pixel"},
                 [NAS_RESIZE_BILINEAR_ASYMMETRIC] = {"linear", "asymmetric"},
                 [NAS_RESIZE_BILINEAR_HALF_PIXEL] = {"linear", "half_pixel"},
                 [NAS_RESIZE_BILINEAR_ALIGN_CORNERS] = {"linear", "align_corners"}};
    const nas_shape s = node->shape;
    const int32_t sizes[] = {s.n, s.c, s.h, s.w};
    const char *const inputs[] = {operand(w, node, 0), "", "",
                                  int_list(w, node, "/sizes", sizes, 4)};
    Onnx__NodeProto *proto = emit(w, node, "", "Resize", 4, inputs); /* no region, no scales */
    put_text(w, proto, "coordinate_transformation_mode", modes[node->resize].coordinates);
    put_text(w, proto, "mode", modes[node->resize].mode);
    if (node->resize == NAS_RESIZE_NEAREST_ASYMMETRIC) put_text(w, proto, "nearest_mode", "floor");
    if (node->resize == NAS_RESIZE_NEAREST_HALF_PIXEL)
        put_text(w, proto, "nearest_mode", "round_prefer_floor");
}

static const char *transposed(writer *w, const nas_node *node, const char *suffix, const char *x,
                              const int32_t *perm, size_t rank) {
    Onnx__NodeProto *proto = emit(w, node, suffix, "Transpose", 1, &x);
    put_ints(w, proto, "perm", perm, rank);
    return proto == NULL ? NULL : proto->output[0];
}

/* Batches of matrices are the last two axes in ONNX: [n,h,w,c], as here. */
static void export_matmul(writer *w, const nas_node *node) {
    static const int32_t flipped[4] = {0, 2, 1, 3}; /* [n,k,h,c'] of a transposed b to [n,h,k,c'] */
    const char *a = transposed(w, node, "/a", operand(w, node, 0), to_nhwc, 4);
    const char *b =
        transposed(w, node, "/b", operand(w, node, 1), node->transpose_b ? flipped : to_nhwc, 4);
    (void)transposed(w, node, "", emit_2(w, node, "/product", "MatMul", a, b), to_nchw, 4);
}

/* Are the elements of [n,h,w,c] and [N,C,H,W] in the same order? */
static bool order_agrees(nas_shape s) {
    return s.c == 1 || (s.h == 1 && s.w == 1);
}

static void export_reshape(writer *w, const nas_node *node) {
    const nas_shape from = operand_shape(w, node, 0), to = node->shape;
    const bool last = order_agrees(to);
    const int32_t nhwc[] = {to.n, to.h, to.w, to.c}, nchw[] = {to.n, to.c, to.h, to.w};
    const char *x = operand(w, node, 0);
    if (!order_agrees(from)) x = transposed(w, node, "/nhwc", x, to_nhwc, 4);
    x = emit_2(w, node, last ? "" : "/reshaped", "Reshape", x,
               int_list(w, node, "/shape", last ? nchw : nhwc, 4));
    if (!last) (void)transposed(w, node, "", x, to_nchw, 4);
}

static void export_transpose(writer *w, const nas_node *node) {
    int32_t perm[4];
    for (int32_t i = 0; i < 4; i++)
        perm[i] = onnx_axis[node->perm[ir_axis[i]]];
    (void)transposed(w, node, "", operand(w, node, 0), perm, 4);
}

/* [N,C,H,W] as [N,g,C/g,H,W], the two axes exchanged, and back. */
static void export_channel_shuffle(writer *w, const nas_node *node) {
    const nas_shape s = node->shape;
    static const int32_t exchange[5] = {0, 2, 1, 3, 4};
    const int32_t grouped[] = {s.n, node->block, s.c / node->block, s.h, s.w};
    const int32_t shape[] = {s.n, s.c, s.h, s.w};
    const char *x = emit_2(w, node, "/grouped", "Reshape", operand(w, node, 0),
                           int_list(w, node, "/groups", grouped, 5));
    x = transposed(w, node, "/exchanged", x, exchange, 5);
    (void)emit_2(w, node, "", "Reshape", x, int_list(w, node, "/shape", shape, 4));
}

static void export_lrn(writer *w, const nas_node *node) {
    Onnx__NodeProto *proto = emit_plain(w, node, "LRN");
    put_float(w, proto, "alpha", node->alpha);
    put_float(w, proto, "beta", node->beta);
    put_float(w, proto, "bias", node->epsilon);
    nas__onnx_put_int(w, proto, "size", node->size);
}

static void export_add_scalar(writer *w, const nas_node *node) {
    (void)emit_2(w, node, "", "Add", operand(w, node, 0), scalar(w, node, ".scalar", node->scalar));
}

void nas__onnx_export_node(nas__onnx_writer *w, const nas_node *node) {
    Onnx__NodeProto *proto = NULL;
    switch (node->op) {
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE: export_conv(w, node); break;
    case NAS_OP_RELU: (void)emit_plain(w, node, "Relu"); break;
    case NAS_OP_PRELU:
        (void)emit_plain(w, node, "PRelu");
        vectors(w, node, 0, 3);
        break;
    case NAS_OP_ADD: (void)emit_plain(w, node, "Add"); break;
    case NAS_OP_SUB: (void)emit_plain(w, node, "Sub"); break;
    case NAS_OP_MUL: (void)emit_plain(w, node, "Mul"); break;
    case NAS_OP_DIV: (void)emit_plain(w, node, "Div"); break;
    case NAS_OP_ADD_SCALAR: export_add_scalar(w, node); break;
    case NAS_OP_DEPTH_TO_SPACE:
        proto = emit_plain(w, node, "DepthToSpace");
        nas__onnx_put_int(w, proto, "blocksize", node->block);
        put_text(w, proto, "mode", "CRD");
        break;
    case NAS_OP_BATCH_NORM:
        proto = emit_plain(w, node, "BatchNormalization");
        put_float(w, proto, "epsilon", node->epsilon);
        vectors(w, node, 0, 1);
        break;
    case NAS_OP_UNARY: export_unary(w, node); break;
    case NAS_OP_CONSTANT: reordered(w, param(w, node, 0), NULL, node->name, to_nchw); break;
    case NAS_OP_CONCAT:
        proto = emit_plain(w, node, "Concat");
        nas__onnx_put_int(w, proto, "axis", onnx_axis[node->axis]);
        break;
    case NAS_OP_SLICE: export_slice(w, node); break;
    case NAS_OP_PAD: export_pad(w, node); break;
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: export_pool(w, node); break;
    case NAS_OP_RESIZE: export_resize(w, node); break;
    case NAS_OP_SOFTMAX:
        proto = emit_plain(w, node, "Softmax");
        nas__onnx_put_int(w, proto, "axis", 1);
        break;
    case NAS_OP_LAYER_NORM: export_layer_norm(w, node); break;
    case NAS_OP_LRN: export_lrn(w, node); break;
    case NAS_OP_MATMUL: export_matmul(w, node); break;
    case NAS_OP_RESHAPE: export_reshape(w, node); break;
    case NAS_OP_TRANSPOSE: export_transpose(w, node); break;
    case NAS_OP_CHANNEL_SHUFFLE: export_channel_shuffle(w, node); break;
    case NAS_OP_INPUT: /* of the graph, no node */
    case NAS_OP_COUNT: break;
    }
    nas__onnx_export_quant(w, node);
}
