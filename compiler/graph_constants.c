/* graph_constants.c - the value of a node whose operands are all constants, computed while compiling. Each element by
 * its definition in ir/graph.h, in double, rounded once. */
#include "compiler/compiler_internal.h"

#include <math.h>

bool nas__constant_foldable(nas_op op) {
    switch (op) {
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_UNARY:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_ADD_SCALAR:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_DEPTH_TO_SPACE: return true;
    case NAS_OP_INPUT: /* the rest is work for a kernel, not for a loop that nobody tuned */
    case NAS_OP_CONSTANT:
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_LRN:
    case NAS_OP_COUNT: break;
    }
    return false;
}

static size_t index_of(nas_shape s, const int32_t at[4]) {
    return (((size_t)at[0] * (size_t)s.h + (size_t)at[1]) * (size_t)s.w + (size_t)at[2]) *
               (size_t)s.c +
           (size_t)at[3];
}

static int32_t extent(nas_shape s, int32_t axis) {
    const int32_t extents[] = {s.n, s.h, s.w, s.c};
    return extents[axis];
}

static double clip(double x, double low, double high) {
    return fmin(fmax(x, low), high);
}

double nas__unary_value(const nas_node *node, double x) {
    const double alpha = (double)node->alpha, beta = (double)node->beta;
    switch (node->unary) {
    case NAS_UNARY_CLIP: return clip(x, alpha, beta);
    case NAS_UNARY_LEAKY_RELU: return x > 0 ? x : alpha * x;
    case NAS_UNARY_SIGMOID: return 1 / (1 + exp(-x));
    case NAS_UNARY_HARD_SIGMOID: return clip(alpha * x + beta, 0, 1);
    case NAS_UNARY_HARD_SWISH: return x * clip(x / 6 + 0.5, 0, 1);
    case NAS_UNARY_SWISH: return x / (1 + exp(-x));
    case NAS_UNARY_TANH: return tanh(x);
    case NAS_UNARY_ERF: return erf(x);
    case NAS_UNARY_GELU: return x * (1 + erf(x / sqrt(2.0))) / 2;
    case NAS_UNARY_EXP: return exp(x);
    case NAS_UNARY_SQRT: return sqrt(x);
    case NAS_UNARY_NEG: return -x;
    case NAS_UNARY_ABS: return fabs(x);
    case NAS_UNARY_AFFINE: return alpha * x + beta;
    case NAS_UNARY_COUNT: break;
    }
    return x;
}

static double binary(const nas__constant *k, double a, const int32_t at[4]) {
    int32_t from[4];
    for (int32_t i = 0; i < 4; i++)
        from[i] = extent(k->shapes[1], i) == 1 ? 0 : at[i];
    const double b = (double)k->operands[1][index_of(k->shapes[1], from)];
    if (k->node->op == NAS_OP_ADD) return a + b;
    if (k->node->op == NAS_OP_SUB) return a - b;
    return k->node->op == NAS_OP_MUL ? a * b : a / b;
}

static double softmax(const nas_node *node, const float *pixel, int32_t c) {
    double largest = (double)pixel[0], sum = 0;
    for (int32_t i = 1; i < node->shape.c; i++)
        largest = fmax(largest, (double)pixel[i]);
    for (int32_t i = 0; i < node->shape.c; i++)
        sum += exp((double)pixel[i] - largest);
    return exp((double)pixel[c] - largest) / sum;
}

static double layer_norm(const nas__constant *k, const float *pixel, int32_t c) {
    const int32_t channels = k->node->shape.c;
    double mean = 0, variance = 0;
    for (int32_t i = 0; i < channels; i++)
        mean += (double)pixel[i] / channels;
    for (int32_t i = 0; i < channels; i++)
        variance += ((double)pixel[i] - mean) * ((double)pixel[i] - mean) / channels;
    return (double)k->params[0][c] * ((double)pixel[c] - mean) /
               sqrt(variance + (double)k->node->epsilon) +
           (double)k->params[1][c];
}

static double matmul(const nas__constant *k, const int32_t at[4]) {
    const nas_shape a = k->shapes[0], b = k->shapes[1];
    double sum = 0;
    for (int32_t i = 0; i < a.c; i++) {
        int32_t left[4] = {at[0], at[1], at[2], i};
        int32_t right[4] = {b.n == 1 ? 0 : at[0], b.h == 1 ? 0 : at[1], i, at[3]};
        if (k->node->transpose_b) {
            right[2] = at[3];
            right[3] = i;
        }
        sum +=
            (double)k->operands[0][index_of(a, left)] * (double)k->operands[1][index_of(b, right)];
    }
    return sum;
}

/* Operators that only move elements: which operand, and where in it; -1 for the fill of a PAD. */
static int32_t moved(const nas__constant *k, const int32_t at[4], int32_t from[4]) {
    const nas_node *node = k->node;
    int32_t operand = 0;
    for (int32_t i = 0; i < 4; i++)
        from[i] = at[i];
    if (node->op == NAS_OP_CONCAT) {
        while (from[node->axis] >= extent(k->shapes[operand], node->axis))
            from[node->axis] -= extent(k->shapes[operand++], node->axis);
    } else if (node->op == NAS_OP_TRANSPOSE) {
        for (int32_t i = 0; i < 4; i++)
            from[node->perm[i]] = at[i];
    } else if (node->op == NAS_OP_CHANNEL_SHUFFLE) {
        from[3] = at[3] % node->block * (node->shape.c / node->block) + at[3] / node->block;
    } else if (node->op == NAS_OP_DEPTH_TO_SPACE) {
        const int32_t r = node->block;
        from[1] = at[1] / r;
        from[2] = at[2] / r;
        from[3] = at[3] * r * r + at[1] % r * r + at[2] % r;
    } else { /* SLICE, PAD */
        const int32_t sign = node->op == NAS_OP_SLICE ? 1 : -1;
        for (int32_t i = 0; i < 4; i++) {
            from[i] = at[i] + sign * node->begin[i];
            if (from[i] < 0 || from[i] >= extent(k->shapes[0], i)) operand = -1;
        }
    }
    return operand;
}

static double element(const nas__constant *k, const int32_t at[4]) {
    const nas_node *node = k->node;
    const size_t index = index_of(node->shape, at), c = (size_t)at[3];
    const float *pixel = k->operands[0] + (index - c);
    switch (node->op) {
    case NAS_OP_RELU: return fmax((double)pixel[c], 0);
    case NAS_OP_PRELU: return (pixel[c] > 0 ? 1 : (double)k->params[0][c]) * (double)pixel[c];
    case NAS_OP_UNARY: return nas__unary_value(node, (double)pixel[c]);
    case NAS_OP_BATCH_NORM:
        return (double)k->params[0][c] * ((double)pixel[c] - (double)k->params[2][c]) /
                   sqrt((double)k->params[3][c] + (double)node->epsilon) +
               (double)k->params[1][c];
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: return binary(k, (double)pixel[c], at);
    case NAS_OP_ADD_SCALAR: return (double)pixel[c] + (double)node->scalar;
    case NAS_OP_SOFTMAX: return softmax(node, pixel, at[3]);
    case NAS_OP_LAYER_NORM: return layer_norm(k, pixel, at[3]);
    case NAS_OP_MATMUL: return matmul(k, at);
    case NAS_OP_RESHAPE: return (double)k->operands[0][index];
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_DEPTH_TO_SPACE: {
        int32_t from[4];
        const int32_t operand = moved(k, at, from);
        return operand < 0 ? (double)node->scalar
                           : (double)k->operands[operand][index_of(k->shapes[operand], from)];
    }
    case NAS_OP_INPUT:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONV:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_LRN:
    case NAS_OP_COUNT: break;
    }
    return 0; /* excluded by nas__constant_foldable */
}

nas_status nas__constant_fold(nas_ctx *ctx, const nas__constant *k, float *out) {
    const nas_shape s = k->node->shape;
    int32_t at[4];
    size_t i = 0;
    for (at[0] = 0; at[0] < s.n; at[0]++) {
        for (at[1] = 0; at[1] < s.h; at[1]++) {
            for (at[2] = 0; at[2] < s.w; at[2]++) {
                for (at[3] = 0; at[3] < s.c; at[3]++, i++) {
                    out[i] = (float)element(k, at);
                    if (isfinite(out[i])) continue;
                    return nas_fail(ctx, NAS_ERR_INVALID,
                                    "%s '%s' of constants: element %zu is not a finite number",
                                    nas_op_name(k->node->op), k->node->name, i);
                }
            }
        }
    }
    return NAS_OK;
}
