/* shape_inference.c - from attributes and input shapes to output and parameter shapes. One case an operator; every
 * number may come from outside (a config, an imported model), so each is checked before it is used. */
#include "ir/ir_internal.h"

#include <math.h>

nas_status nas_conv_out_extent(nas_ctx *ctx, int32_t in, int32_t kernel, int32_t stride,
                               int32_t dilation, int32_t pad, int32_t *out) {
    if (in < 1 || kernel < 1 || stride < 1 || dilation < 1 || pad < 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "conv axis: in %" PRId32 ", kernel %" PRId32 ", stride %" PRId32
                        ", dilation %" PRId32 " must be >= 1, padding %" PRId32 " >= 0",
                        in, kernel, stride, dilation, pad);
    }
    const int64_t reach = (int64_t)dilation * (kernel - 1) + 1;
    const int64_t padded = (int64_t)in + pad;
    if (reach > padded) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "kernel reaches over %" PRId64 " elements, the padded input has %" PRId64,
                        reach, padded);
    }
    const int64_t extent = (padded - reach) / stride + 1;
    if (extent > INT32_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "output extent %" PRId64 " exceeds %" PRId32, extent,
                        INT32_MAX);
    }
    *out = (int32_t)extent;
    return NAS_OK;
}

nas_conv_attributes nas_conv_same(int32_t out_channels, int32_t kernel) {
    const int32_t pad = kernel / 2;
    return (nas_conv_attributes){.out_channels = out_channels,
                                 .kernel_h = kernel,
                                 .kernel_w = kernel,
                                 .stride_h = 1,
                                 .stride_w = 1,
                                 .dilation_h = 1,
                                 .dilation_w = 1,
                                 .pad_top = pad,
                                 .pad_left = pad,
                                 .pad_bottom = pad,
                                 .pad_right = pad,
                                 .groups = 1,
                                 .has_bias = true};
}

/* Both pads of one axis together. */
static nas_status sum_pads(nas_ctx *ctx, const char *axis, int32_t before, int32_t after,
                           int32_t *out) {
    if (before < 0 || after < 0 || (int64_t)before + after > INT32_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "%s padding %" PRId32 " and %" PRId32
                        ": each must be >= 0, together <= %" PRId32,
                        axis, before, after, INT32_MAX);
    }
    *out = before + after;
    return NAS_OK;
}

static nas_status infer_conv(nas_ctx *ctx, const nas_conv_attributes *a, nas_shape in,
                             nas_shape *out) {
    if (a->out_channels < 1 || a->groups < 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "out_channels %" PRId32 " and groups %" PRId32 " must be >= 1",
                        a->out_channels, a->groups);
    }
    if (in.c % a->groups != 0 || a->out_channels % a->groups != 0) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "groups %" PRId32 " must divide %" PRId32 " input and %" PRId32
                        " output channels",
                        a->groups, in.c, a->out_channels);
    }
    int32_t pad_h = 0, pad_w = 0;
    nas_status status = sum_pads(ctx, "vertical", a->pad_top, a->pad_bottom, &pad_h);
    if (status == NAS_OK) status = sum_pads(ctx, "horizontal", a->pad_left, a->pad_right, &pad_w);
    if (status != NAS_OK) return status;
    nas_shape shape = {.n = in.n, .c = a->out_channels};
    status =
        nas_conv_out_extent(ctx, in.h, a->kernel_h, a->stride_h, a->dilation_h, pad_h, &shape.h);
    if (status != NAS_OK) return nas_wrap(ctx, status, "height");
    status =
        nas_conv_out_extent(ctx, in.w, a->kernel_w, a->stride_w, a->dilation_w, pad_w, &shape.w);
    if (status != NAS_OK) return nas_wrap(ctx, status, "width");
    *out = shape;
    return NAS_OK;
}

/* One axis of a transposed convolution: (in - 1)*stride - pads + dilation*(kernel - 1) + 1 + output_pad. */
static nas_status transpose_extent(nas_ctx *ctx, const char *axis, int32_t in, int32_t kernel,
                                   int32_t stride, int32_t dilation, int32_t pad,
                                   int32_t output_pad, int32_t *out) {
    if (kernel < 1 || stride < 1 || dilation < 1 || output_pad < 0 || output_pad >= stride) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "%s: kernel %" PRId32 ", stride %" PRId32 ", dilation %" PRId32
                        " must be >= 1, output padding %" PRId32 " in 0..stride - 1",
                        axis, kernel, stride, dilation, output_pad);
    }
    /* (2^31)^2 + (2^31)^2 + 2^32 < 2^63 */
    const int64_t reach = (int64_t)dilation * (kernel - 1) + 1;
    const int64_t extent = (int64_t)(in - 1) * stride - pad + reach + output_pad;
    if (extent < 1) {
        return nas_fail(ctx, NAS_ERR_SHAPE, "%s: padding %" PRId32 " leaves no output", axis, pad);
    }
    if (extent > INT32_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: output extent %" PRId64 " exceeds %" PRId32, axis,
                        extent, INT32_MAX);
    }
    *out = (int32_t)extent;
    return NAS_OK;
}

static nas_status infer_conv_transpose(nas_ctx *ctx, const nas_node *node, nas_shape in,
                                       nas_shape *out) {
    const nas_conv_attributes *a = &node->conv;
    if (a->out_channels < 1 || a->groups != 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "out_channels %" PRId32 " must be >= 1, groups %" PRId32 " must be 1",
                        a->out_channels, a->groups);
    }
    int32_t pad_h = 0, pad_w = 0;
    nas_status status = sum_pads(ctx, "vertical", a->pad_top, a->pad_bottom, &pad_h);
    if (status == NAS_OK) status = sum_pads(ctx, "horizontal", a->pad_left, a->pad_right, &pad_w);
    nas_shape shape = {.n = in.n, .c = a->out_channels};
    if (status == NAS_OK) {
        status = transpose_extent(ctx, "height", in.h, a->kernel_h, a->stride_h, a->dilation_h,
                                  pad_h, node->output_pad_h, &shape.h);
    }
    if (status == NAS_OK) {
        status = transpose_extent(ctx, "width", in.w, a->kernel_w, a->stride_w, a->dilation_w,
                                  pad_w, node->output_pad_w, &shape.w);
    }
    if (status == NAS_OK) *out = shape;
    return status;
}

static nas_status infer_pool(nas_ctx *ctx, const nas_pool_attributes *p, nas_shape in,
                             nas_shape *out) {
    int32_t pad_h = 0, pad_w = 0;
    nas_status status = sum_pads(ctx, "vertical", p->pad_top, p->pad_bottom, &pad_h);
    if (status == NAS_OK) status = sum_pads(ctx, "horizontal", p->pad_left, p->pad_right, &pad_w);
    if (status != NAS_OK) return status;
    nas_shape shape = {.n = in.n, .c = in.c};
    status = nas_conv_out_extent(ctx, in.h, p->kernel_h, p->stride_h, 1, pad_h, &shape.h);
    if (status != NAS_OK) return nas_wrap(ctx, status, "height");
    status = nas_conv_out_extent(ctx, in.w, p->kernel_w, p->stride_w, 1, pad_w, &shape.w);
    if (status != NAS_OK) return nas_wrap(ctx, status, "width");
    if (p->pad_top >= p->kernel_h || p->pad_bottom >= p->kernel_h || p->pad_left >= p->kernel_w ||
        p->pad_right >= p->kernel_w) { /* a window could lie in the padding alone */
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "padding %" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        ": each must be less than the window of %" PRId32 "x%" PRId32,
                        p->pad_top, p->pad_left, p->pad_bottom, p->pad_right, p->kernel_h,
                        p->kernel_w);
    }
    *out = shape;
    return NAS_OK;
}

static bool fits(int32_t a, int32_t b) {
    return b == a || b == 1;
}

static nas_status infer_binary(nas_ctx *ctx, nas_shape a, nas_shape b, nas_shape *out) {
    if (!fits(a.n, b.n) || !fits(a.h, b.h) || !fits(a.w, b.w) || !fits(a.c, b.c)) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "operands differ: [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] and [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] (each extent of the second must be that of the first or 1)",
                        a.n, a.h, a.w, a.c, b.n, b.h, b.w, b.c);
    }
    *out = a;
    return NAS_OK;
}

static nas_status infer_depth_to_space(nas_ctx *ctx, int32_t block, nas_shape in, nas_shape *out) {
    if (block < 1) {
        return nas_fail(ctx, NAS_ERR_INVALID, "block %" PRId32 " must be >= 1", block);
    }
    const int64_t area = (int64_t)block * block;
    if (in.c % area != 0) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "%" PRId32 " channels cannot be split into blocks of %" PRId32 "x%" PRId32,
                        in.c, block, block);
    }
    const int64_t h = (int64_t)in.h * block, w = (int64_t)in.w * block;
    if (h > INT32_MAX || w > INT32_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "output of %" PRId64 "x%" PRId64 " exceeds %" PRId32, h,
                        w, INT32_MAX);
    }
    *out = (nas_shape){.n = in.n, .h = (int32_t)h, .w = (int32_t)w, .c = (int32_t)(in.c / area)};
    return NAS_OK;
}

/* ---- moving elements -------------------------------------------------------------------------------------------- */

/* Axes by number, so that CONCAT, SLICE, PAD and TRANSPOSE need no case for each. */
static void to_extents(nas_shape s, int32_t e[4]) {
    e[0] = s.n;
    e[1] = s.h;
    e[2] = s.w;
    e[3] = s.c;
}

static nas_shape from_extents(const int32_t e[4]) {
    return (nas_shape){.n = e[0], .h = e[1], .w = e[2], .c = e[3]};
}

static nas_status infer_concat(nas_ctx *ctx, const nas_node *node, const nas_shape *in,
                               nas_shape *out) {
    if (node->axis < 0 || node->axis > 3) {
        return nas_fail(ctx, NAS_ERR_INVALID, "axis %" PRId32 " must be 0..3", node->axis);
    }
    int32_t total[4], member[4];
    to_extents(in[0], total);
    for (int32_t k = 1; k < node->n_inputs; k++) {
        to_extents(in[k], member);
        for (int32_t i = 0; i < 4; i++) {
            if (i != node->axis && member[i] != total[i]) {
                return nas_fail(ctx, NAS_ERR_SHAPE,
                                "input %" PRId32 " has extent %" PRId32 " on axis %" PRId32
                                ", the first has %" PRId32,
                                k, member[i], i, total[i]);
            }
        }
        if (__builtin_add_overflow(total[node->axis], member[node->axis], &total[node->axis])) {
            return nas_fail(ctx, NAS_ERR_RANGE, "axis %" PRId32 ": extent exceeds %" PRId32,
                            node->axis, INT32_MAX);
        }
    }
    *out = from_extents(total);
    return NAS_OK;
}

static nas_status infer_slice(nas_ctx *ctx, const nas_node *node, nas_shape in, nas_shape *out) {
    int32_t e[4];
    to_extents(in, e);
    for (int32_t i = 0; i < 4; i++) {
        if (node->begin[i] < 0 || node->begin[i] >= node->end[i] || node->end[i] > e[i]) {
            return nas_fail(ctx, NAS_ERR_SHAPE,
                            "axis %" PRId32 ": [%" PRId32 ",%" PRId32 ") of %" PRId32 " elements",
                            i, node->begin[i], node->end[i], e[i]);
        }
        e[i] = node->end[i] - node->begin[i];
    }
    *out = from_extents(e);
    return NAS_OK;
}

static nas_status infer_pad(nas_ctx *ctx, const nas_node *node, nas_shape in, nas_shape *out) {
    int32_t e[4];
    to_extents(in, e);
    for (int32_t i = 0; i < 4; i++) {
        if (node->begin[i] < 0 || node->end[i] < 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "axis %" PRId32 ": padding %" PRId32 " and %" PRId32 " must be >= 0", i,
                            node->begin[i], node->end[i]);
        }
        const int64_t extent = (int64_t)e[i] + node->begin[i] + node->end[i];
        if (extent > INT32_MAX) {
            return nas_fail(ctx, NAS_ERR_RANGE, "axis %" PRId32 ": extent %" PRId64, i, extent);
        }
        e[i] = (int32_t)extent;
    }
    *out = from_extents(e);
    return NAS_OK;
}

static nas_status infer_transpose(nas_ctx *ctx, const nas_node *node, nas_shape in,
                                  nas_shape *out) {
    int32_t e[4], moved[4];
    unsigned seen = 0;
    to_extents(in, e);
    for (int32_t i = 0; i < 4; i++) {
        const int32_t from = node->perm[i];
        if (from < 0 || from > 3 || (seen >> from & 1u) != 0) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "perm %" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                            ": must hold each of 0..3 once",
                            node->perm[0], node->perm[1], node->perm[2], node->perm[3]);
        }
        seen |= 1u << from;
        moved[i] = e[from];
    }
    *out = from_extents(moved);
    return NAS_OK;
}

static nas_status infer_channel_shuffle(nas_ctx *ctx, int32_t groups, nas_shape in,
                                        nas_shape *out) {
    if (groups < 1 || in.c % groups != 0) {
        return nas_fail(ctx, groups < 1 ? NAS_ERR_INVALID : NAS_ERR_SHAPE,
                        "groups %" PRId32 " must be >= 1 and divide %" PRId32 " channels", groups,
                        in.c);
    }
    *out = in;
    return NAS_OK;
}

static nas_status infer_matmul(nas_ctx *ctx, bool transpose_b, nas_shape a, nas_shape b,
                               nas_shape *out) {
    const int32_t inner = transpose_b ? b.c : b.w, columns = transpose_b ? b.w : b.c;
    if (!fits(a.n, b.n) || !fits(a.h, b.h) || inner != a.c) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "[%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32 "] times [%" PRId32
                        ",%" PRId32 ",%" PRId32 ",%" PRId32 "]%s: inner extents differ",
                        a.n, a.h, a.w, a.c, b.n, b.h, b.w, b.c, transpose_b ? " transposed" : "");
    }
    *out = (nas_shape){.n = a.n, .h = a.h, .w = a.w, .c = columns};
    return NAS_OK;
}

static nas_status check_input_shape(nas_ctx *ctx, nas_shape s, nas_shape *out) {
    if (s.n < 1 || s.h < 1 || s.w < 1 || s.c < 1) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "shape [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "]: every extent must be >= 1",
                        s.n, s.h, s.w, s.c);
    }
    *out = s;
    return NAS_OK;
}

/* The shape is an attribute; it must hold the same number of elements. */
static nas_status infer_reshape(nas_ctx *ctx, nas_shape to, nas_shape in, nas_shape *out) {
    nas_status status = check_input_shape(ctx, to, &to);
    uint64_t before = 0, after = 0;
    const int64_t from[] = {in.n, in.h, in.w, in.c}, extents[] = {to.n, to.h, to.w, to.c};
    if (status == NAS_OK) status = nas__product(ctx, "elements", from, 4, &before);
    if (status == NAS_OK) status = nas__product(ctx, "elements", extents, 4, &after);
    if (status != NAS_OK) return status;
    if (before != after) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "%" PRIu64 " elements cannot become [%" PRId32 ",%" PRId32 ",%" PRId32
                        ",%" PRId32 "]",
                        before, to.n, to.h, to.w, to.c);
    }
    *out = to;
    return NAS_OK;
}

static nas_status infer_resize(nas_ctx *ctx, const nas_node *node, nas_shape in, nas_shape *out) {
    if ((int)node->resize < 0 || node->resize > NAS_RESIZE_BILINEAR_ALIGN_CORNERS) {
        return nas_fail(ctx, NAS_ERR_INVALID, "resize mode %d does not exist", (int)node->resize);
    }
    const nas_shape to = {.n = in.n, .h = node->shape.h, .w = node->shape.w, .c = in.c};
    return check_input_shape(ctx, to, out);
}

/* Numbers that do not decide a shape but must not poison a value. */
static nas_status check_numbers(nas_ctx *ctx, const nas_node *node) {
    if (!isfinite(node->alpha) || !isfinite(node->beta) || !isfinite(node->epsilon)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "alpha %g, beta %g, epsilon %g: must be finite",
                        (double)node->alpha, (double)node->beta, (double)node->epsilon);
    }
    if (node->op == NAS_OP_UNARY) {
        if ((int)node->unary < 0 || node->unary >= NAS_UNARY_COUNT) {
            return nas_fail(ctx, NAS_ERR_INVALID, "function %d does not exist", (int)node->unary);
        }
        if (node->unary == NAS_UNARY_CLIP && node->alpha > node->beta) {
            return nas_fail(ctx, NAS_ERR_INVALID, "clip to %g..%g: no such range",
                            (double)node->alpha, (double)node->beta);
        }
        return NAS_OK;
    }
    const bool batch_norm = node->op == NAS_OP_BATCH_NORM; /* its variance may keep the sum > 0 */
    if (node->epsilon < 0 || (!batch_norm && node->epsilon <= 0)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "epsilon %g: must be %s 0", (double)node->epsilon,
                        batch_norm ? ">=" : ">");
    }
    if (node->op == NAS_OP_LRN && (node->size < 1 || node->alpha < 0)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "window of %" PRId32 " channels must be >= 1, alpha %g >= 0", node->size,
                        (double)node->alpha);
    }
    return NAS_OK;
}

static nas_status infer_normalization(nas_ctx *ctx, const nas_node *node, nas_shape in,
                                      nas_shape *out) {
    const nas_status status = check_numbers(ctx, node);
    if (status == NAS_OK) *out = in;
    return status;
}

static nas_status check_scalar(nas_ctx *ctx, float scalar) {
    return isfinite(scalar) ? NAS_OK
                            : nas_fail(ctx, NAS_ERR_INVALID, "the scalar is not a finite number");
}

nas_status nas__infer_shape(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                            nas_shape *out) {
    nas_shape in[NAS_NODE_INPUTS_MAX] = {0};
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < node->n_inputs; i++)
        in[i] = g->nodes[node->inputs[i]].shape;
    switch (node->op) {
    case NAS_OP_CONSTANT:
    case NAS_OP_INPUT: return check_input_shape(ctx, node->shape, out);
    case NAS_OP_CONV: return infer_conv(ctx, &node->conv, in[0], out);
    case NAS_OP_CONV_TRANSPOSE: return infer_conv_transpose(ctx, node, in[0], out);
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL: return infer_pool(ctx, &node->pool, in[0], out);
    case NAS_OP_ADD:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV: return infer_binary(ctx, in[0], in[1], out);
    case NAS_OP_UNARY:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN: return infer_normalization(ctx, node, in[0], out);
    case NAS_OP_CONCAT: return infer_concat(ctx, node, in, out);
    case NAS_OP_SLICE: return infer_slice(ctx, node, in[0], out);
    case NAS_OP_PAD:
        status = check_scalar(ctx, node->scalar);
        return status != NAS_OK ? status : infer_pad(ctx, node, in[0], out);
    case NAS_OP_RESIZE: return infer_resize(ctx, node, in[0], out);
    case NAS_OP_MATMUL: return infer_matmul(ctx, node->transpose_b, in[0], in[1], out);
    case NAS_OP_RESHAPE: return infer_reshape(ctx, node->shape, in[0], out);
    case NAS_OP_TRANSPOSE: return infer_transpose(ctx, node, in[0], out);
    case NAS_OP_CHANNEL_SHUFFLE: return infer_channel_shuffle(ctx, node->block, in[0], out);
    case NAS_OP_DEPTH_TO_SPACE: return infer_depth_to_space(ctx, node->block, in[0], out);
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_SOFTMAX: *out = in[0]; return NAS_OK;
    case NAS_OP_ADD_SCALAR:
        status = check_scalar(ctx, node->scalar);
        if (status == NAS_OK) *out = in[0];
        return status;
    case NAS_OP_COUNT: break;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "operator %d does not exist", (int)node->op);
}

static nas_status expect(nas_ctx *ctx, nas_param *param, int32_t rank, const int32_t *dims) {
    int64_t factors[5] = {(int64_t)sizeof(float), 1, 1, 1, 1};
    *param = (nas_param){.rank = rank};
    for (int32_t i = 0; i < rank; i++) {
        param->dims[i] = dims[i];
        factors[i + 1] = dims[i];
    }
    uint64_t bytes = 0;
    const nas_status status = nas__product(ctx, "bytes of a parameter", factors, 5, &bytes);
    if (status != NAS_OK) return status;
    if (bytes > SIZE_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "a parameter of %" PRIu64 " bytes does not fit this machine", bytes);
    }
    param->count = (size_t)(bytes / sizeof(float));
    return NAS_OK;
}

/* Params that are one float a channel of the input. */
static int32_t channel_vectors(nas_op op) {
    if (op == NAS_OP_PRELU) return 1;
    if (op == NAS_OP_LAYER_NORM) return 2;
    return op == NAS_OP_BATCH_NORM ? 4 : 0;
}

nas_status nas__expected_params(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                                nas_param expected[NAS_NODE_PARAMS_MAX]) {
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++)
        expected[i].rank = 0;
    if (node->op == NAS_OP_CONSTANT) { /* the shape given; no input to take it from */
        const int32_t dims[] = {node->shape.n, node->shape.h, node->shape.w, node->shape.c};
        return expect(ctx, &expected[0], 4, dims);
    }
    const int32_t vectors = channel_vectors(node->op);
    for (int32_t i = 0; i < vectors; i++) { /* cannot overflow: one extent */
        const int32_t channels = g->nodes[node->inputs[0]].shape.c;
        const nas_status status = expect(ctx, &expected[i], 1, &channels);
        if (status != NAS_OK) return status;
    }
    if (node->op != NAS_OP_CONV && node->op != NAS_OP_CONV_TRANSPOSE) return NAS_OK;
    const nas_conv_attributes *a = &node->conv;
    const int32_t in_channels = g->nodes[node->inputs[0]].shape.c;
    const int32_t dims[] = {a->out_channels, a->kernel_h, a->kernel_w, in_channels / a->groups};
    const nas_status status = expect(ctx, &expected[0], 4, dims);
    if (status != NAS_OK || !a->has_bias) return status;
    return expect(ctx, &expected[1], 1, (const int32_t[]){a->out_channels});
}

const char *nas__param_suffix(nas_op op, int32_t slot) {
    static const char *const normalization[NAS_NODE_PARAMS_MAX] = {"scale", "bias", "mean",
                                                                   "variance"};
    if (op == NAS_OP_PRELU) return "slope";
    if (op == NAS_OP_CONSTANT) return "value";
    if (op == NAS_OP_BATCH_NORM || op == NAS_OP_LAYER_NORM) return normalization[slot];
    return slot == 0 ? "weight" : "bias";
}
