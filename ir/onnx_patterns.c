/* onnx_patterns.c - operators that exporters write in parts: layer norm from means, gelu from erf. A pattern is looked for
 * when its last part is about to be added, among the IR nodes that are there; nodes that nobody else reads go at the end
 * of the import. What carries a quantization is left in its parts. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

static const nas_node *node_at(const nas__onnx *m, nas_value v) {
    return nas_graph_node(m->g, v);
}

/* Is v `op` and not quantized? */
static bool is_op(const nas__onnx *m, nas_value v, nas_op op) {
    return node_at(m, v)->op == op && !node_at(m, v)->quant.is_set;
}

static bool is_unary(const nas__onnx *m, nas_value v, nas_unary fn) {
    return is_op(m, v, NAS_OP_UNARY) && node_at(m, v)->unary == fn;
}

static nas_value operand(const nas__onnx *m, nas_value v, int32_t i) {
    return node_at(m, v)->inputs[i];
}

static bool near(float x, double to) {
    return fabs((double)x - to) <= 1e-6 * fabs(to);
}

/* ---- layer norm ------------------------------------------------------------------------------------------------------ */

/* A convolution that is the mean over the channels. */
static bool is_mean(const nas__onnx *m, nas_value v) {
    const nas_node *n = node_at(m, v);
    if (!is_op(m, v, NAS_OP_CONV) || n->conv.out_channels != 1 || n->conv.has_bias ||
        n->conv.kernel_h != 1 || n->conv.kernel_w != 1 || n->conv.stride_h != 1 ||
        n->conv.stride_w != 1 || n->conv.pad_top + n->conv.pad_bottom != 0 ||
        n->conv.pad_left + n->conv.pad_right != 0)
        return false;
    const nas_param *w = nas_graph_param(m->g, n->params[0]);
    for (size_t i = 0; i < w->count; i++) {
        if (!near(w->data[i], 1.0 / (double)w->count)) return false;
    }
    return true;
}

/* x less its mean: x, or NAS_VALUE_NONE. */
static nas_value centred(const nas__onnx *m, nas_value v) {
    if (!is_op(m, v, NAS_OP_SUB) || !is_mean(m, operand(m, v, 1))) return NAS_VALUE_NONE;
    const nas_value x = operand(m, v, 0);
    return operand(m, operand(m, v, 1), 0) == x ? x : NAS_VALUE_NONE;
}

/* x of (x - mean)/sqrt(mean((x - mean)^2) + epsilon), the operands of the division given. */
static nas_value normalized(const nas__onnx *m, nas_value dividend, nas_value divisor,
                            float *epsilon) {
    const nas_value x = centred(m, dividend);
    if (x == NAS_VALUE_NONE || !is_unary(m, divisor, NAS_UNARY_SQRT)) return NAS_VALUE_NONE;
    const nas_value sum = operand(m, divisor, 0);
    if (!is_op(m, sum, NAS_OP_ADD_SCALAR) || !(node_at(m, sum)->scalar > 0) ||
        !is_mean(m, operand(m, sum, 0)))
        return NAS_VALUE_NONE;
    const nas_value square = operand(m, operand(m, sum, 0), 0);
    if (!is_op(m, square, NAS_OP_MUL) || operand(m, square, 0) != operand(m, square, 1) ||
        centred(m, operand(m, square, 0)) != x)
        return NAS_VALUE_NONE;
    *epsilon = node_at(m, sum)->scalar;
    return x;
}

/* A LAYER_NORM of x: the scale and bias of `from`, or 1 and 0, times `factor` or plus `term`, where they are given. */
static nas_status add_layer_norm(nas__onnx *m, const nas__onnx_node *n, nas_value x, float epsilon,
                                 nas_value from, nas_value factor, nas_value term, nas_value *out) {
    const nas_node proto = {
        .op = NAS_OP_LAYER_NORM, .n_inputs = 1, .inputs = {x}, .epsilon = epsilon};
    nas_value v = NAS_VALUE_NONE;
    nas_status status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    if (status != NAS_OK) return status;
    float *scale = nas__onnx_param(m, v, 0), *bias = nas__onnx_param(m, v, 1);
    const int32_t channels = node_at(m, v)->shape.c;
    for (int32_t c = 0; c < channels && scale != NULL && bias != NULL; c++) {
        scale[c] = from != NAS_VALUE_NONE ? nas__onnx_param(m, from, 0)[c] : 1;
        bias[c] = from != NAS_VALUE_NONE ? nas__onnx_param(m, from, 1)[c] : 0;
        if (factor != NAS_VALUE_NONE) {
            scale[c] *= nas__onnx_param(m, factor, 0)[c];
            bias[c] *= nas__onnx_param(m, factor, 0)[c];
        }
        if (term != NAS_VALUE_NONE) bias[c] += nas__onnx_param(m, term, 0)[c];
    }
    *out = v;
    return NAS_OK;
}

/* A constant that is one number a channel. */
static bool is_vector(const nas__onnx *m, nas_value v, int32_t channels) {
    const nas_shape s = node_at(m, v)->shape;
    return is_op(m, v, NAS_OP_CONSTANT) && s.n == 1 && s.h == 1 && s.w == 1 && s.c == channels;
}

/* ---- gelu ------------------------------------------------------------------------------------------------------------ */

/* x of `factor`*x, or NAS_VALUE_NONE. */
static nas_value multiple(const nas__onnx *m, nas_value v, double factor) {
    const nas_node *n = node_at(m, v);
    return is_unary(m, v, NAS_UNARY_AFFINE) && n->beta == 0 && near(n->alpha, factor)
               ? n->inputs[0]
               : NAS_VALUE_NONE;
}

/* x of 1 + erf(x/sqrt(2)), or NAS_VALUE_NONE. */
static nas_value one_plus_erf(const nas__onnx *m, nas_value v) {
    if (!is_op(m, v, NAS_OP_ADD_SCALAR) || node_at(m, v)->scalar != 1 ||
        !is_unary(m, operand(m, v, 0), NAS_UNARY_ERF))
        return NAS_VALUE_NONE;
    return multiple(m, operand(m, operand(m, v, 0), 0), sqrt(0.5));
}

/* Half of the product is anywhere: in the end, in x or in the other factor. `half`: it is to come. */
static nas_value gelu_product(const nas__onnx *m, nas_value a, nas_value b, bool half) {
    nas_value x = one_plus_erf(m, b);
    if (half) return x != NAS_VALUE_NONE && x == a ? x : NAS_VALUE_NONE;
    if (x != NAS_VALUE_NONE) return multiple(m, a, 0.5) == x ? x : NAS_VALUE_NONE;
    const nas_value halved = multiple(m, b, 0.5);
    x = halved != NAS_VALUE_NONE ? one_plus_erf(m, halved) : NAS_VALUE_NONE;
    return x != NAS_VALUE_NONE && x == a ? x : NAS_VALUE_NONE;
}

static nas_value gelu_of(const nas__onnx *m, const nas_node *last) {
    nas_value x = NAS_VALUE_NONE;
    const nas_value a = last->inputs[0], b = last->inputs[1];
    if (last->op == NAS_OP_MUL) {
        x = gelu_product(m, a, b, false);
        return x != NAS_VALUE_NONE ? x : gelu_product(m, b, a, false);
    }
    if (last->op != NAS_OP_UNARY || last->unary != NAS_UNARY_AFFINE || last->beta != 0 ||
        !near(last->alpha, 0.5) || !is_op(m, a, NAS_OP_MUL))
        return NAS_VALUE_NONE;
    x = gelu_product(m, operand(m, a, 0), operand(m, a, 1), true);
    return x != NAS_VALUE_NONE ? x : gelu_product(m, operand(m, a, 1), operand(m, a, 0), true);
}

/* ---- the last part --------------------------------------------------------------------------------------------------- */

nas_status nas__onnx_add_pattern(nas__onnx *m, const nas__onnx_node *n, const nas_node *last,
                                 nas_value *out) {
    const nas_value a = last->inputs[0], b = last->inputs[1], none = NAS_VALUE_NONE;
    const nas_value gelu = gelu_of(m, last);
    float epsilon = 0;
    if (gelu != none) {
        const nas_node proto = {
            .op = NAS_OP_UNARY, .n_inputs = 1, .inputs = {gelu}, .unary = NAS_UNARY_GELU};
        return nas__onnx_add(m, n, "", &proto, out);
    }
    const nas_value x = last->op == NAS_OP_DIV ? normalized(m, a, b, &epsilon) : none;
    if (x != none) return add_layer_norm(m, n, x, epsilon, none, none, none, out);
    if ((last->op == NAS_OP_MUL || last->op == NAS_OP_ADD) && is_op(m, a, NAS_OP_LAYER_NORM) &&
        is_vector(m, b, node_at(m, a)->shape.c)) {
        return add_layer_norm(m, n, operand(m, a, 0), node_at(m, a)->epsilon, a,
                              last->op == NAS_OP_MUL ? b : none, last->op == NAS_OP_ADD ? b : none,
                              out);
    }
    return nas__onnx_add(m, n, "", last, out);
}
