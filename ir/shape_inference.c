/* shape_inference.c - from attributes and input shapes to output and parameter shapes. One case an operator; every
 * number may come from outside (a config, an imported model), so each is checked before it is used. */
#include "ir/ir_internal.h"

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

static nas_status infer_add(nas_ctx *ctx, nas_shape a, nas_shape b, nas_shape *out) {
    if (a.n != b.n || a.h != b.h || a.w != b.w || a.c != b.c) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "operands differ: [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] and [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] (there is no broadcasting)",
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

nas_status nas__infer_shape(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                            nas_shape *out) {
    nas_shape in[NAS_NODE_INPUTS_MAX] = {0};
    for (int32_t i = 0; i < node->n_inputs; i++)
        in[i] = g->nodes[node->inputs[i]].shape;
    switch (node->op) {
    case NAS_OP_INPUT: return check_input_shape(ctx, node->shape, out);
    case NAS_OP_CONV: return infer_conv(ctx, &node->conv, in[0], out);
    case NAS_OP_ADD: return infer_add(ctx, in[0], in[1], out);
    case NAS_OP_DEPTH_TO_SPACE: return infer_depth_to_space(ctx, node->block, in[0], out);
    case NAS_OP_RELU:
    case NAS_OP_PRELU:
    case NAS_OP_ADD_SCALAR: *out = in[0]; return NAS_OK;
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

nas_status nas__expected_params(nas_ctx *ctx, const nas_graph *g, const nas_node *node,
                                nas_param expected[NAS_NODE_PARAMS_MAX]) {
    for (int32_t i = 0; i < NAS_NODE_PARAMS_MAX; i++)
        expected[i] = (nas_param){0};
    if (node->op == NAS_OP_PRELU) {
        return expect(ctx, &expected[0], 1, (const int32_t[]){g->nodes[node->inputs[0]].shape.c});
    }
    if (node->op != NAS_OP_CONV) return NAS_OK;
    const nas_conv_attributes *a = &node->conv;
    const int32_t in_channels = g->nodes[node->inputs[0]].shape.c;
    const int32_t dims[] = {a->out_channels, a->kernel_h, a->kernel_w, in_channels / a->groups};
    const nas_status status = expect(ctx, &expected[0], 4, dims);
    if (status != NAS_OK || !a->has_bias) return status;
    return expect(ctx, &expected[1], 1, (const int32_t[]){a->out_channels});
}

const char *nas__param_suffix(nas_op op, int32_t slot) {
    if (op == NAS_OP_PRELU) return "slope";
    return slot == 0 ? "weight" : "bias";
}
