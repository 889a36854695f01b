/* onnx_import_ops.c - ONNX operators that compute: convolutions, pools, activations, arithmetic. Each function turns one
 * node into IR nodes and defines its output. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- shared by the operators --------------------------------------------------------------------------------------- */

nas__onnx_value nas__onnx_plain_value(const nas__onnx *m, nas_value v, int32_t rank) {
    const nas_shape s = nas_graph_node(m->g, v)->shape;
    nas__onnx_value x = {.kind = NAS__ONNX_PLAIN, .rank = rank, .v = v};
    x.dims[0] = s.n;
    x.dims[1] = s.c;
    if (rank == 4) {
        x.dims[2] = s.h;
        x.dims[3] = s.w;
    }
    return x;
}

nas_status nas__onnx_emit(nas__onnx *m, const nas__onnx_node *n, const nas_node *proto,
                          int32_t rank) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas__onnx_add(m, n, "", proto, &v);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, rank)) : status;
}

static float *param_data(nas__onnx *m, nas_value v, int32_t slot) {
    const int32_t index = nas_graph_node(m->g, v)->params[slot];
    return index < 0 ? NULL : nas_graph_param(m->g, index)->data;
}

static nas_status need_const(nas__onnx *m, const nas__onnx_node *n, size_t i, const char *what,
                             const nas__onnx_value **out) {
    const nas__onnx_value *c = nas__onnx_input(m, n, i);
    if (c == NULL || c->kind != NAS__ONNX_CONST) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "%s is not a constant of the file", what);
    }
    *out = c;
    return NAS_OK;
}

/* Element `index` of a constant as the float of a weight. */
static float weight_at(const nas__onnx_value *c, size_t index) {
    return (float)nas__onnx_at(c, index);
}

/* c, right-aligned to `rank` ONNX axes, as extents on n, h, w, c and strides on them. */
typedef struct broadcast {
    nas_shape shape;
    size_t step[4]; /* n, h, w, c; 0 where the extent is 1 */
} broadcast;

static nas_status align_const(nas__onnx *m, const nas__onnx_value *c, int32_t rank,
                              broadcast *out) {
    static const int32_t axis_of[4] = {0, 3, 1, 2}; /* ONNX n, c, h, w among n, h, w, c */
    int64_t extents[4] = {1, 1, 1, 1};
    size_t step = 1;
    memset(out, 0, sizeof *out);
    for (int32_t i = c->rank - 1; i >= 0; i--) {
        const int32_t onnx_axis = i + rank - c->rank;
        if (onnx_axis < 0) {
            if (c->dims[i] == 1) continue;
            return nas_fail(m->ctx, NAS_ERR_SHAPE,
                            "a constant of rank %" PRId32 " does not broadcast to rank %" PRId32,
                            c->rank, rank);
        }
        const int32_t axis = axis_of[onnx_axis];
        extents[axis] = c->dims[i];
        out->step[axis] = c->dims[i] == 1 ? 0 : step;
        step *= (size_t)c->dims[i];
    }
    for (int32_t i = 0; i < 4; i++) {
        if (extents[i] < 1 || extents[i] > INT32_MAX)
            return nas__onnx_unsupported(m, "an empty constant");
    }
    out->shape = (nas_shape){(int32_t)extents[0], (int32_t)extents[1], (int32_t)extents[2],
                             (int32_t)extents[3]};
    return NAS_OK;
}

nas_status nas__onnx_constant_node(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                                   const nas__onnx_value *c, nas_shape shape, nas_value *out) {
    broadcast from;
    nas_status status =
        align_const(m, c, shape.h == 1 && shape.w == 1 && c->rank <= 2 ? 2 : 4, &from);
    if (status != NAS_OK) return status;
    const int32_t of[] = {from.shape.n, from.shape.h, from.shape.w, from.shape.c},
                  want[] = {shape.n, shape.h, shape.w, shape.c};
    for (int32_t i = 0; i < 4; i++) {
        if (of[i] != 1 && of[i] != want[i])
            return nas_fail(m->ctx, NAS_ERR_SHAPE,
                            "a constant of extent %" PRId32 " where %" PRId32 " are needed", of[i],
                            want[i]);
    }
    const nas_node proto = {.op = NAS_OP_CONSTANT, .shape = shape};
    status = nas__onnx_add(m, n, suffix, &proto, out);
    if (status == NAS_OK) status = nas__onnx_weights(m, *out);
    if (status != NAS_OK) return status;
    float *to = param_data(m, *out, 0);
    if (to == NULL) return nas_fail(m->ctx, NAS_ERR_INTERNAL, "a constant without data");
    for (size_t in = 0; in < (size_t)shape.n; in++)
        for (size_t ih = 0; ih < (size_t)shape.h; ih++)
            for (size_t iw = 0; iw < (size_t)shape.w; iw++)
                for (size_t ic = 0; ic < (size_t)shape.c; ic++)
                    *to++ = weight_at(c, in * from.step[0] + ih * from.step[1] + iw * from.step[2] +
                                             ic * from.step[3]);
    return NAS_OK;
}

nas_status nas__onnx_plain(nas__onnx *m, const nas__onnx_node *n, size_t i, nas__onnx_value *out) {
    const nas__onnx_value *found = nas__onnx_input(m, n, i);
    if (found == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu is missing", i);
    nas__onnx_value x = *found;
    nas_status status = NAS_OK;
    if (x.kind == NAS__ONNX_FLAT) status = nas__onnx_flatten(m, n, &x);
    if (status == NAS_OK && x.kind == NAS__ONNX_CONST) {
        const int32_t rank = x.rank <= 2 ? 2 : 4;
        broadcast from;
        if (x.rank > 4 || nas__onnx_is_int(&x))
            return nas__onnx_unsupported(m, "a constant as data");
        status = align_const(m, &x, rank, &from);
        nas_value v = NAS_VALUE_NONE;
        if (status == NAS_OK) status = nas__onnx_constant_node(m, n, "_const", &x, from.shape, &v);
        if (status == NAS_OK) x = nas__onnx_plain_value(m, v, rank);
    }
    if (status == NAS_OK && x.kind != NAS__ONNX_PLAIN)
        status = nas__onnx_unsupported(m, "a value of rank 5");
    if (status == NAS_OK) *out = x;
    return status;
}

static nas_status need_image(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x) {
    const nas_status status = nas__onnx_plain(m, n, 0, x);
    if (status != NAS_OK || x->rank == 4) return status;
    return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "input of rank %" PRId32 ", rank 4 is supported",
                    x->rank);
}

/* ---- convolutions -------------------------------------------------------------------------------------------------- */

typedef struct window {
    int32_t kernel[2], stride[2], dilation[2];
    int32_t pads[4]; /* top, left, bottom, right */
} window;

/* SAME: out = ceil(in/stride); the odd element goes to the end (UPPER) or the start. */
static nas_status auto_pad(nas__onnx *m, const nas__onnx_node *n, nas_shape in, window *w) {
    const bool upper = nas__onnx_attr_is(n, "auto_pad", "SAME_UPPER", false);
    if (!upper && !nas__onnx_attr_is(n, "auto_pad", "SAME_LOWER", false)) {
        if (nas__onnx_attr_is(n, "auto_pad", "VALID", false)) {
            memset(w->pads, 0, sizeof w->pads);
            return NAS_OK;
        }
        return nas__onnx_attr_is(n, "auto_pad", "NOTSET", true)
                   ? NAS_OK
                   : nas__onnx_unsupported(m, "unknown auto_pad");
    }
    for (int32_t i = 0; i < 2; i++) {
        const int64_t extent = i == 0 ? in.h : in.w;
        const int64_t outputs = (extent + w->stride[i] - 1) / w->stride[i];
        const int64_t span = (int64_t)w->dilation[i] * (w->kernel[i] - 1) + 1;
        int64_t pad = (outputs - 1) * w->stride[i] + span - extent;
        if (pad < 0) pad = 0;
        if (pad > INT32_MAX) return nas_fail(m->ctx, NAS_ERR_RANGE, "padding %" PRId64, pad);
        w->pads[i] = (int32_t)(upper ? pad / 2 : pad - pad / 2);
        w->pads[i + 2] = (int32_t)(pad - w->pads[i]);
    }
    return NAS_OK;
}

static nas_status read_window(nas__onnx *m, const nas__onnx_node *n, nas_shape in, window *w) {
    nas_status status = nas__onnx_attr_ints(m, n, "kernel_shape", 2, 1, w->kernel[0], w->kernel);
    if (status == NAS_OK) status = nas__onnx_attr_ints(m, n, "strides", 2, 1, 1, w->stride);
    if (status == NAS_OK) status = nas__onnx_attr_ints(m, n, "dilations", 2, 1, 1, w->dilation);
    if (status == NAS_OK) status = nas__onnx_attr_ints(m, n, "pads", 4, 0, 0, w->pads);
    return status == NAS_OK ? auto_pad(m, n, in, w) : status;
}

/* Extents of a [.,.,KH,KW] weight, each >= 1; the kernel_shape attribute must agree. */
static nas_status weight_window(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *w,
                                nas_shape in, window *out) {
    if (w->rank != 4) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "weights of rank %" PRId32 ", 4 is supported",
                        w->rank);
    }
    for (int32_t i = 0; i < 4; i++) {
        if (w->dims[i] < 1) return nas__onnx_unsupported(m, "empty weights");
    }
    const int32_t kernel[2] = {(int32_t)w->dims[2], (int32_t)w->dims[3]};
    memcpy(out->kernel, kernel, sizeof kernel);
    nas_status status = read_window(m, n, in, out);
    if (nas__onnx_attribute(n, "kernel_shape") == NULL) memcpy(out->kernel, kernel, sizeof kernel);
    if (status == NAS_OK && memcmp(out->kernel, kernel, sizeof kernel) != 0)
        status = nas_fail(m->ctx, NAS_ERR_SHAPE, "kernel_shape differs from the weights");
    if (status == NAS_OK && nas__onnx_attribute(n, "kernel_shape") == NULL)
        status = auto_pad(m, n, in, out); /* again, with the kernel known */
    return status;
}

static nas_conv_attributes conv_of(const window *w, int64_t outputs, int32_t groups, bool bias) {
    return (nas_conv_attributes){.out_channels = (int32_t)outputs,
                                 .kernel_h = w->kernel[0],
                                 .kernel_w = w->kernel[1],
                                 .stride_h = w->stride[0],
                                 .stride_w = w->stride[1],
                                 .dilation_h = w->dilation[0],
                                 .dilation_w = w->dilation[1],
                                 .pad_top = w->pads[0],
                                 .pad_left = w->pads[1],
                                 .pad_bottom = w->pads[2],
                                 .pad_right = w->pads[3],
                                 .groups = groups,
                                 .has_bias = bias};
}

static nas_status read_bias(nas__onnx *m, const nas__onnx_node *n, size_t i, int64_t outputs,
                            const nas__onnx_value **bias) {
    *bias = NULL;
    if (nas__onnx_input(m, n, i) == NULL) return NAS_OK;
    const nas_status status = need_const(m, n, i, "the bias", bias);
    if (status != NAS_OK || (int64_t)(*bias)->count == outputs) return status;
    return nas_fail(m->ctx, NAS_ERR_SHAPE, "bias of %zu elements for %" PRId64 " channels",
                    (*bias)->count, outputs);
}

/* The node with its weights: element (o, tap, i) of ours is number o*by_o + i*by_i + tap of theirs. */
static nas_status emit_conv(nas__onnx *m, const nas__onnx_node *n, const nas_node *proto,
                            const nas__onnx_value *w, const nas__onnx_value *bias, size_t by_o,
                            size_t by_i) {
    nas_value v = NAS_VALUE_NONE;
    nas_status status = nas__onnx_add(m, n, "", proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    if (status != NAS_OK) return status;
    const nas_param *p = nas_graph_param(m->g, nas_graph_node(m->g, v)->params[0]);
    const size_t n_o = (size_t)p->dims[0], n_i = (size_t)p->dims[3];
    const size_t taps = (size_t)p->dims[1] * (size_t)p->dims[2];
    if (p->count != w->count)
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%zu weights, needs %zu", w->count, p->count);
    float *to = p->data;
    for (size_t o = 0; o < n_o; o++)
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t i = 0; i < n_i; i++)
                *to++ = weight_at(w, o * by_o + i * by_i + tap);
    to = param_data(m, v, 1);
    for (size_t o = 0; o < n_o && bias != NULL && to != NULL; o++)
        to[o] = weight_at(bias, o);
    /* by_o > by_i: outputs are the first axis of the file, as in Conv */
    status = nas__onnx_weight_scales(m, v, w, by_o > by_i || n_i == 1 ? 0 : 1);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, 4)) : status;
}

static nas_status import_conv(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas__onnx_value *w = NULL, *bias = NULL;
    window win = {.kernel = {1, 1}};
    nas_status status = need_image(m, n, &x);
    if (status == NAS_OK) status = need_const(m, n, 1, "the weight", &w);
    if (status != NAS_OK) return status;
    status = weight_window(m, n, w, nas_graph_node(m->g, x.v)->shape, &win);
    if (status == NAS_OK) status = read_bias(m, n, 2, w->dims[0], &bias);
    if (status != NAS_OK) return status;
    const int64_t groups = nas__onnx_attr_int(n, "group", 1);
    if (groups < 1 || groups > INT32_MAX || x.dims[1] != w->dims[1] * groups) {
        return nas_fail(m->ctx, NAS_ERR_SHAPE,
                        "%" PRId64 " input channels, %" PRId64 " groups of %" PRId64, x.dims[1],
                        groups, w->dims[1]);
    }
    const nas_node proto = {.op = NAS_OP_CONV,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .conv = conv_of(&win, w->dims[0], (int32_t)groups, bias != NULL)};
    const size_t taps = (size_t)(w->dims[2] * w->dims[3]);
    return emit_conv(m, n, &proto, w, bias, (size_t)w->dims[1] * taps, taps);
}

static nas_status import_conv_transpose(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas__onnx_value *w = NULL, *bias = NULL;
    window win = {.kernel = {1, 1}};
    nas_status status = need_image(m, n, &x);
    if (status == NAS_OK) status = need_const(m, n, 1, "the weight", &w);
    if (status != NAS_OK) return status;
    if (nas__onnx_attr_int(n, "group", 1) != 1)
        return nas__onnx_unsupported(m, "groups of a transposed convolution");
    if (nas__onnx_attribute(n, "output_shape") != NULL ||
        !nas__onnx_attr_is(n, "auto_pad", "NOTSET", true))
        return nas__onnx_unsupported(m, "output_shape and auto_pad: give pads and output_padding");
    int32_t extra[2] = {0, 0};
    status = weight_window(m, n, w, nas_graph_node(m->g, x.v)->shape, &win);
    if (status == NAS_OK) status = nas__onnx_attr_ints(m, n, "output_padding", 2, 0, 0, extra);
    if (status == NAS_OK) status = read_bias(m, n, 2, w->dims[1], &bias);
    if (status != NAS_OK) return status;
    if (x.dims[1] != w->dims[0])
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%" PRId64 " input channels, weights for %" PRId64,
                        x.dims[1], w->dims[0]);
    const nas_node proto = {.op = NAS_OP_CONV_TRANSPOSE,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .conv = conv_of(&win, w->dims[1], 1, bias != NULL),
                            .output_pad_h = extra[0],
                            .output_pad_w = extra[1]};
    const size_t taps = (size_t)(w->dims[2] * w->dims[3]);
    return emit_conv(m, n, &proto, w, bias, taps, (size_t)w->dims[1] * taps);
}

/* Fully connected: a convolution whose kernel is the whole input. Weight rows of the file follow c, h, w. */
static nas_status import_dense(nas__onnx *m, const nas__onnx_node *n, int32_t is_gemm) {
    const nas__onnx_value *found = nas__onnx_input(m, n, 0), *w = NULL, *bias = NULL;
    const bool transposed = is_gemm && nas__onnx_attr_int(n, "transB", 0) != 0;
    const double alpha = is_gemm ? (double)nas__onnx_attr_float(n, "alpha", 1) : 1;
    const double beta = is_gemm ? (double)nas__onnx_attr_float(n, "beta", 1) : 1;
    nas_status status = need_const(m, n, 1, "the second operand", &w);
    if (status != NAS_OK) return status;
    const nas__onnx_value x = *found;
    if ((x.kind != NAS__ONNX_PLAIN && x.kind != NAS__ONNX_FLAT) || x.rank != 2 || w->rank != 2)
        return nas__onnx_unsupported(m, "operands that are not of rank 2");
    if (is_gemm && nas__onnx_attr_int(n, "transA", 0) != 0)
        return nas__onnx_unsupported(m, "transA");
    const int64_t outputs = w->dims[transposed ? 0 : 1], inputs = w->dims[transposed ? 1 : 0];
    if (outputs < 1 || inputs != x.dims[1])
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%" PRId64 " inputs, weights for %" PRId64,
                        x.dims[1], inputs);
    if (is_gemm && nas__onnx_input(m, n, 2) != NULL) {
        status = need_const(m, n, 2, "the bias", &bias);
        if (status != NAS_OK) return status;
        if (bias->count != 1 && (int64_t)bias->count != outputs)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "bias of %zu elements for %" PRId64 " outputs",
                            bias->count, outputs);
    }
    const nas_shape s = nas_graph_node(m->g, x.v)->shape;
    const window win = {.kernel = {s.h, s.w}, .stride = {1, 1}, .dilation = {1, 1}};
    const nas_node proto = {.op = NAS_OP_CONV,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .conv = conv_of(&win, outputs, 1, bias != NULL)};
    nas_value v = NAS_VALUE_NONE;
    status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    if (status != NAS_OK) return status;
    float *to = param_data(m, v, 0);
    const size_t taps = (size_t)s.h * (size_t)s.w, n_c = (size_t)s.c, n_o = (size_t)outputs;
    const size_t by_o = transposed ? (size_t)inputs : 1, by_k = transposed ? 1 : n_o;
    for (size_t o = 0; o < n_o; o++)
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t c = 0; c < n_c; c++)
                *to++ = (float)(alpha * nas__onnx_at(w, o * by_o + (c * taps + tap) * by_k));
    to = param_data(m, v, 1);
    for (size_t o = 0; o < n_o && bias != NULL && to != NULL; o++)
        to[o] = (float)(beta * nas__onnx_at(bias, bias->count == 1 ? 0 : o));
    if (alpha == 1) status = nas__onnx_weight_scales(m, v, w, transposed ? 0 : 1);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, 2)) : status;
}

static nas_status import_batch_norm(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status != NAS_OK) return status;
    if (nas__onnx_attr_int(n, "training_mode", 0) != 0)
        return nas__onnx_unsupported(m, "training mode");
    const nas_node proto = {.op = NAS_OP_BATCH_NORM,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .epsilon = nas__onnx_attr_float(n, "epsilon", 1e-5f)};
    nas_value v = NAS_VALUE_NONE;
    status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    for (int32_t slot = 0; slot < 4 && status == NAS_OK; slot++) { /* scale, bias, mean, variance */
        const nas__onnx_value *c = NULL;
        status = need_const(m, n, (size_t)slot + 1, "a statistic", &c);
        if (status == NAS_OK && (int64_t)c->count != x.dims[1])
            status = nas_fail(m->ctx, NAS_ERR_SHAPE, "%zu statistics for %" PRId64 " channels",
                              c->count, x.dims[1]);
        float *to = param_data(m, v, slot);
        for (size_t i = 0; status == NAS_OK && to != NULL && i < c->count; i++)
            to[i] = weight_at(c, i);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank)) : status;
}

/* ---- activations --------------------------------------------------------------------------------------------------- */

/* An elementwise node of one operand: the output is of the same kind as the input. */
static nas_status elementwise(nas__onnx *m, const nas__onnx_node *n, nas_node proto,
                              nas__onnx_value x) {
    proto.n_inputs = 1;
    proto.inputs[0] = x.v;
    const nas_status status = nas__onnx_add(m, n, "", &proto, &x.v);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

static nas_status need_activation(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x) {
    const nas__onnx_value *found = nas__onnx_input(m, n, 0);
    if (found->kind == NAS__ONNX_CONST) return nas__onnx_plain(m, n, 0, x);
    *x = *found;
    return NAS_OK;
}

static nas_status import_relu(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas_status status = need_activation(m, n, &x);
    return status == NAS_OK ? elementwise(m, n, (nas_node){.op = NAS_OP_RELU}, x) : status;
}

static nas_status import_unary(nas__onnx *m, const nas__onnx_node *n, int32_t fn) {
    nas__onnx_value x;
    const nas_status status = need_activation(m, n, &x);
    if (status != NAS_OK) return status;
    nas_node proto = {.op = NAS_OP_UNARY, .unary = (nas_unary)fn};
    if (proto.unary == NAS_UNARY_LEAKY_RELU) proto.alpha = nas__onnx_attr_float(n, "alpha", 0.01f);
    if (proto.unary == NAS_UNARY_HARD_SIGMOID) {
        proto.alpha = nas__onnx_attr_float(n, "alpha", 0.2f);
        proto.beta = nas__onnx_attr_float(n, "beta", 0.5f);
    }
    if (proto.unary == NAS_UNARY_GELU && !nas__onnx_attr_is(n, "approximate", "none", true))
        return nas__onnx_unsupported(m, "the approximation by tanh");
    return elementwise(m, n, proto, x);
}

static nas_status clip_bound(nas__onnx *m, const nas__onnx_node *n, const char *name, size_t input,
                             float otherwise, float *out) {
    *out = nas__onnx_attr_float(n, name, otherwise);
    if (nas__onnx_input(m, n, input) != NULL) {
        const nas__onnx_value *c = NULL;
        const nas_status status = need_const(m, n, input, "a bound", &c);
        if (status != NAS_OK) return status;
        if (c->count != 1)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "a bound of %zu elements", c->count);
        *out = weight_at(c, 0);
    }
    if (isnan(*out)) return nas_fail(m->ctx, NAS_ERR_INVALID, "a bound is not a number");
    *out = fminf(fmaxf(*out, -FLT_MAX), FLT_MAX); /* infinite: no bound */
    return NAS_OK;
}

static nas_status import_clip(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas_node proto = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_CLIP};
    nas_status status = need_activation(m, n, &x);
    if (status == NAS_OK) status = clip_bound(m, n, "min", 1, -FLT_MAX, &proto.alpha);
    if (status == NAS_OK) status = clip_bound(m, n, "max", 2, FLT_MAX, &proto.beta);
    if (status != NAS_OK) return status;
    if (proto.alpha == 0 && proto.beta == FLT_MAX) proto = (nas_node){.op = NAS_OP_RELU};
    return elementwise(m, n, proto, x);
}

static nas_status import_prelu(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas__onnx_value *slope = NULL;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK) status = need_const(m, n, 1, "the slope", &slope);
    if (status != NAS_OK) return status;
    if (slope->count != 1 && (int64_t)slope->count != x.dims[1])
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "%zu slopes for %" PRId64 " channels",
                        slope->count, x.dims[1]);
    const nas_node proto = {.op = NAS_OP_PRELU, .n_inputs = 1, .inputs = {x.v}};
    nas_value v = NAS_VALUE_NONE;
    status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    if (status != NAS_OK) return status;
    float *to = param_data(m, v, 0);
    for (size_t c = 0; c < (size_t)x.dims[1]; c++)
        to[c] = weight_at(slope, slope->count == 1 ? 0 : c);
    return nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank));
}

static nas_status import_softmax(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    int32_t axis = 0;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK)
        status =
            nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", m->opset < 13 ? 1 : -1), x.rank, &axis);
    if (status != NAS_OK) return status;
    const bool pixels = x.rank == 4 && (x.dims[2] > 1 || x.dims[3] > 1);
    if (axis != 1 || (pixels && m->opset < 13)) /* before opset 13 over all axes from `axis` on */
        return nas__onnx_unsupported(m, "an axis other than the channels");
    return elementwise(m, n, (nas_node){.op = NAS_OP_SOFTMAX}, x);
}

static nas_status import_lrn(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status != NAS_OK) return status;
    const int64_t size = nas__onnx_attr_int(n, "size", 0);
    if (size < 1 || size > 1 << 20) return nas_fail(m->ctx, NAS_ERR_RANGE, "size %" PRId64, size);
    const nas_node proto = {.op = NAS_OP_LRN,
                            .size = (int32_t)size,
                            .alpha = nas__onnx_attr_float(n, "alpha", 0.0001f),
                            .beta = nas__onnx_attr_float(n, "beta", 0.75f),
                            .epsilon = nas__onnx_attr_float(n, "bias", 1)};
    return elementwise(m, n, proto, x);
}

/* ---- pools --------------------------------------------------------------------------------------------------------- */

/* Ceil mode is padding at the end that is not counted; a last window that would start in it is dropped. */
static nas_status ceil_pads(nas__onnx *m, nas_shape in, window *w, bool counted) {
    for (int32_t i = 0; i < 2; i++) {
        const int64_t extent = i == 0 ? in.h : in.w;
        const int64_t rest = extent + w->pads[i] + w->pads[i + 2] - w->kernel[i];
        if (rest < 0) continue; /* the builder says so */
        int64_t steps = (rest + w->stride[i] - 1) / w->stride[i];
        if (steps * w->stride[i] >= extent + w->pads[i]) steps--;
        const int64_t extra = steps * w->stride[i] - rest;
        if (extra <= 0) continue;
        if (counted)
            return nas__onnx_unsupported(m, "ceil_mode with count_include_pad where it pads");
        w->pads[i + 2] = (int32_t)(w->pads[i + 2] + extra);
    }
    return NAS_OK;
}

static nas_status import_pool(nas__onnx *m, const nas__onnx_node *n, int32_t op) {
    nas__onnx_value x;
    window w = {.kernel = {0, 0}};
    nas_status status = need_image(m, n, &x);
    if (status != NAS_OK) return status;
    if (n->n_output > 1 && n->output[1][0] != '\0')
        return nas__onnx_unsupported(m, "the indices as a second output");
    const nas_shape in = nas_graph_node(m->g, x.v)->shape;
    status = read_window(m, n, in, &w);
    const bool counted = nas__onnx_attr_int(n, "count_include_pad", 0) != 0;
    if (status == NAS_OK && (w.dilation[0] != 1 || w.dilation[1] != 1))
        status = nas__onnx_unsupported(m, "dilations");
    if (status == NAS_OK && nas__onnx_attr_int(n, "ceil_mode", 0) != 0)
        status = ceil_pads(m, in, &w, counted);
    if (status != NAS_OK) return status;
    const nas_node proto = {.op = (nas_op)op,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .pool = {.kernel_h = w.kernel[0],
                                     .kernel_w = w.kernel[1],
                                     .stride_h = w.stride[0],
                                     .stride_w = w.stride[1],
                                     .pad_top = w.pads[0],
                                     .pad_left = w.pads[1],
                                     .pad_bottom = w.pads[2],
                                     .pad_right = w.pads[3],
                                     .count_include_pad = counted && op == NAS_OP_AVG_POOL}};
    return nas__onnx_emit(m, n, &proto, 4);
}

static nas_status emit_global_pool(nas__onnx *m, const nas__onnx_node *n, nas_op op,
                                   nas__onnx_value x, int32_t rank) {
    const nas_shape in = nas_graph_node(m->g, x.v)->shape;
    const nas_node proto = {
        .op = op,
        .n_inputs = 1,
        .inputs = {x.v},
        .pool = {.kernel_h = in.h, .kernel_w = in.w, .stride_h = 1, .stride_w = 1}};
    return nas__onnx_emit(m, n, &proto, rank);
}

static nas_status import_global_pool(nas__onnx *m, const nas__onnx_node *n, int32_t op) {
    nas__onnx_value x;
    const nas_status status = need_image(m, n, &x);
    return status == NAS_OK ? emit_global_pool(m, n, (nas_op)op, x, 4) : status;
}

static nas_status import_reduce_mean(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    int64_t axes[2 * NAS__ONNX_RANK_MAX];
    int32_t count = 0, a = 0, b = 0;
    nas_status status = need_image(m, n, &x);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "axes", 1, axes, &count);
    if (status != NAS_OK) return status;
    if (count == 2) {
        status = nas__onnx_axis(m, axes[0], 4, &a);
        if (status == NAS_OK) status = nas__onnx_axis(m, axes[1], 4, &b);
        if (status != NAS_OK) return status;
    }
    if (a + b != 5 || a < 2 || b < 2)
        return nas__onnx_unsupported(m, "axes other than height and width");
    return emit_global_pool(m, n, NAS_OP_AVG_POOL, x,
                            nas__onnx_attr_int(n, "keepdims", 1) != 0 ? 4 : 2);
}

/* ---- arithmetic ---------------------------------------------------------------------------------------------------- */

static double calculate(nas_op op, double a, double b) {
    if (op == NAS_OP_ADD) return a + b;
    if (op == NAS_OP_SUB) return a - b;
    return op == NAS_OP_MUL ? a * b : a / b;
}

/* Two constants: of one shape, or one of them a single element. */
static nas_status fold_binary(nas__onnx *m, const nas__onnx_node *n, nas_op op,
                              const nas__onnx_value *a, const nas__onnx_value *b) {
    if (a->count != b->count && a->count != 1 && b->count != 1)
        return nas__onnx_unsupported(m, "broadcast of two constants");
    const bool is_int = nas__onnx_is_int(a) && nas__onnx_is_int(b);
    const nas__onnx_value *shape = a->count >= b->count ? a : b;
    nas__onnx_value c;
    const nas_status status = nas__onnx_new_const(m, is_int, shape->count, &c);
    if (status != NAS_OK) return status;
    c.rank = shape->rank;
    memcpy(c.dims, shape->dims, sizeof c.dims);
    void *to = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        const double x = nas__onnx_at(a, a->count == 1 ? 0 : i);
        const double y = nas__onnx_at(b, b->count == 1 ? 0 : i);
        if (is_int && op == NAS_OP_DIV && y == 0)
            return nas_fail(m->ctx, NAS_ERR_INVALID, "a constant divided by zero");
        const double r = calculate(op, x, y);
        if (!is_int) {
            ((double *)to)[i] = r;
        } else if (fabs(r) < 9e15) {
            ((int64_t *)to)[i] = (int64_t)r;
        } else {
            return nas_fail(m->ctx, NAS_ERR_RANGE, "a folded constant overflows");
        }
    }
    return nas__onnx_output(m, n, c);
}

/* x op s and s op x for one number s. */
static nas_status scalar_operand(nas__onnx *m, const nas__onnx_node *n, nas_op op,
                                 nas__onnx_value x, float s, bool first) {
    if (op == NAS_OP_ADD || (op == NAS_OP_SUB && !first)) {
        const nas_node proto = {.op = NAS_OP_ADD_SCALAR, .scalar = op == NAS_OP_ADD ? s : -s};
        return elementwise(m, n, proto, x);
    }
    nas_node proto = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_AFFINE, .alpha = s};
    if (op == NAS_OP_SUB) {
        proto.alpha = -1;
        proto.beta = s;
    } else if (op == NAS_OP_DIV) {
        proto.alpha = 1 / s;
    }
    if (!isfinite(proto.alpha) || !isfinite(proto.beta))
        return nas_fail(m->ctx, NAS_ERR_INVALID, "a constant operand of %g", (double)s);
    return elementwise(m, n, proto, x);
}

static nas_shape broadcast_shape(nas_shape a, nas_shape b) {
    return (nas_shape){a.n > b.n ? a.n : b.n, a.h > b.h ? a.h : b.h, a.w > b.w ? a.w : b.w,
                       a.c > b.c ? a.c : b.c};
}

static bool covers(nas_shape a, nas_shape b) {
    return (b.n == a.n || b.n == 1) && (b.h == a.h || b.h == 1) && (b.w == a.w || b.w == 1) &&
           (b.c == a.c || b.c == 1);
}

/* a op b with b broadcast; what only the first operand would broadcast to is swapped where the operator allows. */
static nas_status emit_binary(nas__onnx *m, const nas__onnx_node *n, const char *suffix, nas_op op,
                              nas_value a, nas_value b, nas_value *out) {
    const nas_shape sa = nas_graph_node(m->g, a)->shape, sb = nas_graph_node(m->g, b)->shape;
    const bool commutes = op == NAS_OP_ADD || op == NAS_OP_MUL;
    const bool swap = !covers(sa, sb) && covers(sb, sa);
    if (!covers(sa, sb) && (!swap || !commutes)) {
        const nas_shape s = broadcast_shape(sa, sb);
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "broadcast of both operands, or of the first, to [%" PRId32 ",%" PRId32
                        ",%" PRId32 ",%" PRId32 "] (n, c, h, w)",
                        s.n, s.c, s.h, s.w);
    }
    const nas_node proto = {.op = op, .n_inputs = 2, .inputs = {swap ? b : a, swap ? a : b}};
    return nas__onnx_add(m, n, suffix, &proto, out);
}

static nas_status const_operand(nas__onnx *m, const nas__onnx_node *n, nas_op op, nas__onnx_value x,
                                const nas__onnx_value *c, bool first) {
    if (c->count == 1 && !(op == NAS_OP_DIV && first))
        return scalar_operand(m, n, op, x, weight_at(c, 0), first);
    nas_status status = NAS_OK;
    if (x.kind == NAS__ONNX_FLAT) status = nas__onnx_flatten(m, n, &x);
    if (status == NAS_OK && x.kind != NAS__ONNX_PLAIN)
        status = nas__onnx_unsupported(m, "an operand of rank 5");
    if (status != NAS_OK) return status;
    const int32_t rank = c->rank > x.rank ? 4 : x.rank;
    if (c->rank > 4 || (c->rank > x.rank && c->count != 1))
        return nas__onnx_unsupported(m, "a constant of higher rank than the value");
    broadcast of;
    status = align_const(m, c, rank, &of);
    const nas_shape sx = nas_graph_node(m->g, x.v)->shape;
    if (status == NAS_OK && first && op != NAS_OP_ADD && op != NAS_OP_MUL)
        of.shape = broadcast_shape(of.shape, sx); /* the first operand in full */
    nas__onnx_value four = *c;                    /* rank 2 of a rank-2 value, rank 4 else */
    if (rank == 4 && c->rank < 4) {
        four.rank = 4;
        for (int32_t i = 0; i < 4; i++)
            four.dims[i] = i < 4 - c->rank ? 1 : c->dims[i - (4 - c->rank)];
    }
    nas_value k = NAS_VALUE_NONE, v = NAS_VALUE_NONE;
    if (status == NAS_OK) status = nas__onnx_constant_node(m, n, "_const", &four, of.shape, &k);
    if (status == NAS_OK) status = emit_binary(m, n, "", op, first ? k : x.v, first ? x.v : k, &v);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank)) : status;
}

static nas_status import_binary(nas__onnx *m, const nas__onnx_node *n, int32_t op) {
    const nas__onnx_value *a = nas__onnx_input(m, n, 0), *b = nas__onnx_input(m, n, 1);
    if (nas__onnx_attr_int(n, "broadcast", 0) != 0 && b->rank > 0 && b->count != 1)
        return nas__onnx_unsupported(m, "the broadcast attribute of opset 6 and before");
    const bool const_a = a->kind == NAS__ONNX_CONST, const_b = b->kind == NAS__ONNX_CONST;
    if (const_a && const_b) return fold_binary(m, n, (nas_op)op, a, b);
    if (const_a) return const_operand(m, n, (nas_op)op, *b, a, true);
    if (const_b) return const_operand(m, n, (nas_op)op, *a, b, false);
    nas__onnx_value x = *a, y = *b;
    nas_status status = NAS_OK;
    const nas_shape sx = nas_graph_node(m->g, x.v)->shape, sy = nas_graph_node(m->g, y.v)->shape;
    if (x.kind != y.kind || x.kind != NAS__ONNX_FLAT || !covers(sx, sy) || !covers(sy, sx)) {
        status = nas__onnx_plain(m, n, 0, &x);
        if (status == NAS_OK) status = nas__onnx_plain(m, n, 1, &y);
    }
    if (status == NAS_OK && x.rank != y.rank)
        status = nas__onnx_unsupported(m, "operands of different rank");
    if (status == NAS_OK) status = emit_binary(m, n, "", (nas_op)op, x.v, y.v, &x.v);
    if (status != NAS_OK) return status;
    return nas__onnx_output(m, n,
                            x.kind == NAS__ONNX_FLAT ? x : nas__onnx_plain_value(m, x.v, x.rank));
}

static nas_status import_sum(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    for (size_t i = 1; i < n->n_input && status == NAS_OK; i++) {
        nas__onnx_value y;
        status = nas__onnx_plain(m, n, i, &y);
        if (status == NAS_OK && y.rank != x.rank)
            status = nas__onnx_unsupported(m, "operands of different rank");
        if (status == NAS_OK)
            status =
                emit_binary(m, n, i + 1 < n->n_input ? "_part" : "", NAS_OP_ADD, x.v, y.v, &x.v);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, x.v, x.rank))
                            : status;
}

const nas__onnx_operator *nas__onnx_find_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Conv", 2, import_conv, 0},
        {"ConvTranspose", 2, import_conv_transpose, 0},
        {"Gemm", 2, import_dense, 1},
        {"MatMul", 2, import_dense, 0},
        {"BatchNormalization", 5, import_batch_norm, 0},
        {"Relu", 1, import_relu, 0},
        {"Clip", 1, import_clip, 0},
        {"PRelu", 2, import_prelu, 0},
        {"LeakyRelu", 1, import_unary, NAS_UNARY_LEAKY_RELU},
        {"Sigmoid", 1, import_unary, NAS_UNARY_SIGMOID},
        {"HardSigmoid", 1, import_unary, NAS_UNARY_HARD_SIGMOID},
        {"HardSwish", 1, import_unary, NAS_UNARY_HARD_SWISH},
        {"Tanh", 1, import_unary, NAS_UNARY_TANH},
        {"Erf", 1, import_unary, NAS_UNARY_ERF},
        {"Gelu", 1, import_unary, NAS_UNARY_GELU},
        {"Exp", 1, import_unary, NAS_UNARY_EXP},
        {"Sqrt", 1, import_unary, NAS_UNARY_SQRT},
        {"Neg", 1, import_unary, NAS_UNARY_NEG},
        {"Abs", 1, import_unary, NAS_UNARY_ABS},
        {"Softmax", 1, import_softmax, 0},
        {"LRN", 1, import_lrn, 0},
        {"MaxPool", 1, import_pool, NAS_OP_MAX_POOL},
        {"AveragePool", 1, import_pool, NAS_OP_AVG_POOL},
        {"GlobalAveragePool", 1, import_global_pool, NAS_OP_AVG_POOL},
        {"GlobalMaxPool", 1, import_global_pool, NAS_OP_MAX_POOL},
        {"ReduceMean", 1, import_reduce_mean, 0},
        {"Add", 2, import_binary, NAS_OP_ADD},
        {"Sub", 2, import_binary, NAS_OP_SUB},
        {"Mul", 2, import_binary, NAS_OP_MUL},
        {"Div", 2, import_binary, NAS_OP_DIV},
        {"Sum", 1, import_sum, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
