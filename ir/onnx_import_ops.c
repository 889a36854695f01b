/* onnx_import_ops.c - ONNX operators on images: convolutions, pools, normalizations by channel; and activations. Each
 * function turns one node into IR nodes and defines its output. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <float.h>
#include <math.h>
#include <string.h>

/* ---- shared by the operators --------------------------------------------------------------------------------------- */

nas__onnx_value nas__onnx_plain_value(const nas__onnx *m, nas_value v, int32_t rank) {
    const nas_shape s = nas_graph_node(m->g, v)->shape;
    const int32_t extents[] = {s.n, s.h, s.w, s.c};
    const nas__onnx_axes axes = nas__onnx_image(rank);
    nas__onnx_value x = {.kind = NAS__ONNX_VALUE, .rank = rank, .v = v, .layout = {.shape = s}};
    for (int32_t i = 0; i < rank; i++) {
        const int32_t axis = axes.of[i], extent = extents[axis];
        x.dims[i] = extent;
        if (extent > 1) x.layout.f[x.layout.n++] = (nas__onnx_factor){extent, (int16_t)axis, 0};
    }
    return x;
}

nas_status nas__onnx_emit(nas__onnx *m, const nas__onnx_node *n, const nas_node *proto,
                          int32_t rank) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas__onnx_add(m, n, "", proto, &v);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, rank)) : status;
}

float *nas__onnx_param(nas__onnx *m, nas_value v, int32_t slot) {
    const int32_t index = nas_graph_node(m->g, v)->params[slot];
    return index < 0 ? NULL : nas_graph_param(m->g, index)->data;
}

nas_status nas__onnx_need_const(nas__onnx *m, const nas__onnx_node *n, size_t i, const char *what,
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

nas_status nas__onnx_activation(nas__onnx *m, const nas__onnx_node *n, size_t i,
                                nas__onnx_value *out) {
    const nas__onnx_value *found = nas__onnx_input(m, n, i);
    if (found == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu is missing", i);
    nas__onnx_value x = *found;
    nas_status status = NAS_OK;
    if (x.kind == NAS__ONNX_CONST) {
        const nas__onnx_axes axes =
            x.rank <= 4 ? nas__onnx_image(x.rank) : nas__onnx_rows(m, x.dims, x.rank);
        status = nas__onnx_arrange_axes(m, n, &x, &axes);
    }
    if (status == NAS_OK) *out = x;
    return status;
}

nas_status nas__onnx_plain(nas__onnx *m, const nas__onnx_node *n, size_t i, nas__onnx_value *out) {
    const nas__onnx_value *found = nas__onnx_input(m, n, i);
    if (found == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu is missing", i);
    if (found->rank < 2 || found->rank > 4)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "input of rank %" PRId32 ", ranks 2 to 4 are supported", found->rank);
    nas__onnx_value x = *found;
    const nas__onnx_axes axes = nas__onnx_image(x.rank);
    const nas_status status = nas__onnx_arrange_axes(m, n, &x, &axes);
    if (status == NAS_OK) *out = x;
    return status;
}

nas_status nas__onnx_elementwise(nas__onnx *m, const nas__onnx_node *n, nas_node proto,
                                 nas__onnx_value x) {
    proto.n_inputs = 1;
    proto.inputs[0] = x.v;
    const nas_status status = nas__onnx_add(m, n, "", &proto, &x.v);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
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
    const nas_status status = nas__onnx_need_const(m, n, i, "the bias", bias);
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
    to = nas__onnx_param(m, v, 1);
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
    if (status == NAS_OK) status = nas__onnx_need_const(m, n, 1, "the weight", &w);
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
    if (status == NAS_OK) status = nas__onnx_need_const(m, n, 1, "the weight", &w);
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
        status = nas__onnx_need_const(m, n, (size_t)slot + 1, "a statistic", &c);
        if (status == NAS_OK && (int64_t)c->count != x.dims[1])
            status = nas_fail(m->ctx, NAS_ERR_SHAPE, "%zu statistics for %" PRId64 " channels",
                              c->count, x.dims[1]);
        float *to = nas__onnx_param(m, v, slot);
        for (size_t i = 0; status == NAS_OK && to != NULL && i < c->count; i++)
            to[i] = weight_at(c, i);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank)) : status;
}

/* ---- activations --------------------------------------------------------------------------------------------------- */

static nas_status import_relu(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas_status status = nas__onnx_activation(m, n, 0, &x);
    return status == NAS_OK ? nas__onnx_elementwise(m, n, (nas_node){.op = NAS_OP_RELU}, x)
                            : status;
}

static nas_status import_unary(nas__onnx *m, const nas__onnx_node *n, int32_t fn) {
    nas__onnx_value x;
    const nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status != NAS_OK) return status;
    nas_node proto = {.op = NAS_OP_UNARY, .unary = (nas_unary)fn};
    if (proto.unary == NAS_UNARY_LEAKY_RELU) proto.alpha = nas__onnx_attr_float(n, "alpha", 0.01f);
    if (proto.unary == NAS_UNARY_HARD_SIGMOID) {
        proto.alpha = nas__onnx_attr_float(n, "alpha", 0.2f);
        proto.beta = nas__onnx_attr_float(n, "beta", 0.5f);
    }
    return nas__onnx_elementwise(m, n, proto, x);
}

static nas_status clip_bound(nas__onnx *m, const nas__onnx_node *n, const char *name, size_t input,
                             float otherwise, float *out) {
    *out = nas__onnx_attr_float(n, name, otherwise);
    if (nas__onnx_input(m, n, input) != NULL) {
        const nas__onnx_value *c = NULL;
        const nas_status status = nas__onnx_need_const(m, n, input, "a bound", &c);
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
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK) status = clip_bound(m, n, "min", 1, -FLT_MAX, &proto.alpha);
    if (status == NAS_OK) status = clip_bound(m, n, "max", 2, FLT_MAX, &proto.beta);
    if (status != NAS_OK) return status;
    if (proto.alpha == 0 && proto.beta == FLT_MAX) proto = (nas_node){.op = NAS_OP_RELU};
    return nas__onnx_elementwise(m, n, proto, x);
}

static nas_status import_prelu(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas__onnx_value *slope = NULL;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK) status = nas__onnx_need_const(m, n, 1, "the slope", &slope);
    if (status != NAS_OK) return status;
    if (slope->count != 1 && (int64_t)slope->count != x.dims[1])
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "%zu slopes for %" PRId64 " channels",
                        slope->count, x.dims[1]);
    const nas_node proto = {.op = NAS_OP_PRELU, .n_inputs = 1, .inputs = {x.v}};
    nas_value v = NAS_VALUE_NONE;
    status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = nas__onnx_weights(m, v);
    if (status != NAS_OK) return status;
    float *to = nas__onnx_param(m, v, 0);
    for (size_t c = 0; c < (size_t)x.dims[1]; c++)
        to[c] = weight_at(slope, slope->count == 1 ? 0 : c);
    return nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank));
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
    return nas__onnx_elementwise(m, n, proto, x);
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

const nas__onnx_operator *nas__onnx_find_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Conv", 2, import_conv, 0},
        {"ConvTranspose", 2, import_conv_transpose, 0},
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
        {"Exp", 1, import_unary, NAS_UNARY_EXP},
        {"Neg", 1, import_unary, NAS_UNARY_NEG},
        {"Abs", 1, import_unary, NAS_UNARY_ABS},
        {"LRN", 1, import_lrn, 0},
        {"MaxPool", 1, import_pool, NAS_OP_MAX_POOL},
        {"AveragePool", 1, import_pool, NAS_OP_AVG_POOL},
        {"GlobalAveragePool", 1, import_global_pool, NAS_OP_AVG_POOL},
        {"GlobalMaxPool", 1, import_global_pool, NAS_OP_MAX_POOL},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
