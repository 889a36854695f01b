/* onnx_import_dense.c - ONNX operators of transformers: matrix products with weights and of two values, softmax and layer
 * norm over any axes. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

/* ---- products with weights ------------------------------------------------------------------------------------------ */

/* A matrix of the file that is the second operand, and what Gemm adds to it. */
typedef struct dense {
    const nas__onnx_value *w, *bias; /* bias may be NULL */
    bool transposed;                 /* w is [outputs, inputs] */
    double alpha, beta;
    int64_t inputs, outputs;
} dense;

/* Which of n, h, w, c the last axis of x fills; false when it shares one of them or leaves part of the channels. */
static bool filled(const nas__onnx_value *x, bool out[4]) {
    bool shared[4] = {false};
    int32_t first = 0, count = 0;
    nas__onnx_span(x, x->rank - 1, &first, &count);
    memset(out, 0, 4 * sizeof *out);
    for (int32_t k = 0; k < x->layout.n; k++)
        (k >= first ? out : shared)[x->layout.f[k].axis] = true;
    return !out[0] && !(out[1] && shared[1]) && !(out[2] && shared[2]) && !shared[3];
}

/* place[k]: the ONNX number of what memory has as number k of the last axis. */
static void number_inputs(const nas__onnx_value *x, size_t *place, size_t inputs) {
    int32_t first = 0, count = 0, order[NAS__ONNX_FACTORS_MAX], at[NAS__ONNX_FACTORS_MAX] = {0};
    size_t step[NAS__ONNX_FACTORS_MAX] = {0}, stride = 1, number = 0;
    nas__onnx_span(x, x->rank - 1, &first, &count);
    const nas__onnx_factor *f = x->layout.f + first;
    for (int32_t i = count; i-- > 0; stride *= (size_t)f[i].extent)
        step[i] = stride;
    for (int32_t i = 0; i < count; i++) { /* by IR axis and place */
        int32_t to = i;
        for (; to > 0; to--) {
            const nas__onnx_factor *b = &f[order[to - 1]];
            if (b->axis < f[i].axis || (b->axis == f[i].axis && b->place < f[i].place)) break;
            order[to] = order[to - 1];
        }
        order[to] = i;
    }
    for (size_t k = 0; k < inputs; k++) {
        place[k] = number;
        for (int32_t i = count; i-- > 0;) {
            const int32_t digit = order[i];
            number += step[digit];
            if (++at[digit] < f[digit].extent) break;
            number -= step[digit] * (size_t)f[digit].extent;
            at[digit] = 0;
        }
    }
}

static nas_status dense_weights(nas__onnx *m, const nas__onnx_value *x, const dense *d,
                                nas_value v) {
    const size_t inputs = (size_t)d->inputs, outputs = (size_t)d->outputs;
    nas_status status = nas__onnx_weights(m, v);
    size_t *place = status == NAS_OK ? nas_alloc_array(m->ctx, inputs, sizeof *place) : NULL;
    if (place == NULL) return status == NAS_OK ? NAS_ERR_NOMEM : status;
    number_inputs(x, place, inputs);
    float *to = nas__onnx_param(m, v, 0);
    const size_t by_o = d->transposed ? inputs : 1, by_i = d->transposed ? 1 : outputs;
    for (size_t o = 0; o < outputs && to != NULL; o++)
        for (size_t k = 0; k < inputs; k++)
            *to++ = (float)(d->alpha * nas__onnx_at(d->w, o * by_o + place[k] * by_i));
    nas_free(place);
    to = nas__onnx_param(m, v, 1);
    for (size_t o = 0; o < outputs && d->bias != NULL && to != NULL; o++)
        to[o] = (float)(d->beta * nas__onnx_at(d->bias, d->bias->count == 1 ? 0 : o));
    return d->alpha == 1 ? nas__onnx_weight_scales(m, v, d->w, d->transposed ? 0 : 1) : NAS_OK;
}

/* A convolution whose kernel is what the last axis fills: 1x1 where that is the channels, the whole image where that was
 * flattened; then the weights are permuted instead of the image. */
static nas_status emit_dense(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value x,
                             const dense *d) {
    bool in[4];
    if (d->outputs < 1 || d->outputs > INT32_MAX || d->inputs != x.dims[x.rank - 1])
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%" PRId64 " inputs, weights for %" PRId64,
                        x.dims[x.rank - 1], d->inputs);
    if (!filled(&x, in) || x.layout.n == NAS__ONNX_FACTORS_MAX) {
        const nas__onnx_axes rows = nas__onnx_rows(m, x.dims, x.rank);
        const nas_status status = nas__onnx_arrange_axes(m, n, &x, &rows);
        if (status != NAS_OK) return status;
        (void)filled(&x, in); /* now it does */
    }
    const nas_shape s = x.layout.shape;
    const nas_node proto = {.op = NAS_OP_CONV,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .conv = {.out_channels = (int32_t)d->outputs,
                                     .kernel_h = in[1] ? s.h : 1,
                                     .kernel_w = in[2] ? s.w : 1,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .groups = 1,
                                     .has_bias = d->bias != NULL}};
    nas_value v = NAS_VALUE_NONE;
    nas_status status = nas__onnx_add(m, n, "", &proto, &v);
    if (status == NAS_OK) status = dense_weights(m, &x, d, v);
    if (status != NAS_OK) return status;
    int32_t first = 0, count = 0;
    nas__onnx_span(&x, x.rank - 1, &first, &count);
    x.layout.n = first;
    x.layout.shape = nas_graph_node(m->g, v)->shape;
    if (d->outputs > 1) x.layout.f[x.layout.n++] = (nas__onnx_factor){(int32_t)d->outputs, 3, 0};
    x.dims[x.rank - 1] = d->outputs;
    x.v = v;
    return nas__onnx_output(m, n, x);
}

/* ---- products of two values ------------------------------------------------------------------------------------------ */

/* Rows of a product in w, what is summed in the channels; leading axes in h, the batch in n. */
static nas__onnx_axes product_axes(const nas__onnx *m, const int64_t *dims, int32_t rank,
                                   bool transposed) {
    nas__onnx_axes axes = {{0}};
    for (int32_t i = 0; i < rank - 2; i++)
        axes.of[i] = i == 0 && dims[0] == m->batch ? 0 : 1;
    axes.of[rank - 2] = transposed ? 3 : 2;
    axes.of[rank - 1] = transposed ? 2 : 3;
    return axes;
}

/* 0: the leading axes of b are those of a or 1; 1: the other way; 2: neither. */
static int32_t leading_axes(const nas__onnx_value *a, const nas__onnx_value *b,
                            int64_t dims[NAS__ONNX_RANK_MAX]) {
    bool a_covers = true, b_covers = true;
    for (int32_t i = 0; i < a->rank - 2; i++) {
        const int64_t x = a->dims[i], y = b->dims[i];
        dims[i] = x > y ? x : y;
        a_covers = a_covers && (x == y || y == 1);
        b_covers = b_covers && (x == y || x == 1);
    }
    return a_covers ? 0 : b_covers ? 1 : 2;
}

static nas_status product(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value a,
                          nas__onnx_value b, nas__onnx_value *out) {
    const int32_t rank = a.rank > b.rank ? a.rank : b.rank;
    if (a.rank < 2 || b.rank < 2) return nas__onnx_unsupported(m, "an operand of rank below 2");
    nas__onnx_pad_rank(&a, rank);
    nas__onnx_pad_rank(&b, rank);
    if (a.dims[rank - 1] != b.dims[rank - 2])
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "inner extents %" PRId64 " and %" PRId64,
                        a.dims[rank - 1], b.dims[rank - 2]);
    nas__onnx_value y = {.kind = NAS__ONNX_VALUE};
    int64_t dims[NAS__ONNX_RANK_MAX] = {0};
    const int32_t leading = leading_axes(&a, &b, dims);
    dims[rank - 2] = a.dims[rank - 2];
    dims[rank - 1] = b.dims[rank - 1];
    /* The IR repeats the second operand alone: (a*b) transposed is b transposed times a transposed. */
    const bool swapped = leading == 1;
    nas__onnx_value *first = swapped ? &b : &a, *second = swapped ? &a : &b;
    const nas__onnx_axes axes = product_axes(m, dims, rank, swapped), plain = axes,
                         turned = product_axes(m, dims, rank, !swapped);
    /* Transposed only where it lies so: the kernel for that is the slower one. */
    const bool transpose_second =
        nas__onnx_moves(m, second, &plain) && !nas__onnx_moves(m, second, &turned);
    const nas__onnx_axes axes_second = transpose_second ? turned : plain;
    nas_status status = leading == 2 ? nas__onnx_unsupported(m, "both operands are repeated")
                                     : nas__onnx_arrange_axes(m, n, first, &axes);
    if (status == NAS_OK) status = nas__onnx_arrange_axes(m, n, second, &axes_second);
    if (status != NAS_OK) return status;
    const nas_shape s = first->layout.shape, t = second->layout.shape;
    if ((t.n != s.n && t.n != 1) || (t.h != s.h && t.h != 1))
        return nas__onnx_unsupported(m, "an operand is repeated along some of several axes");
    const nas_node proto = {.op = NAS_OP_MATMUL,
                            .n_inputs = 2,
                            .inputs = {first->v, second->v},
                            .transpose_b = transpose_second};
    status = nas__onnx_add(m, n, "", &proto, &y.v);
    nas__onnx_set_dims(&y, dims, rank);
    if (status == NAS_OK) status = nas__onnx_layout_of(m, dims, rank, &axes, &y.layout);
    *out = y;
    return status;
}

static bool is_weight(const nas__onnx_value *w) {
    return w->kind == NAS__ONNX_CONST && w->rank == 2;
}

static nas_status import_matmul(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value a = *nas__onnx_input(m, n, 0), *b = nas__onnx_input(m, n, 1);
    if (is_weight(b) && a.kind != NAS__ONNX_CONST && a.rank >= 2) {
        const dense d = {
            .w = b, .alpha = 1, .beta = 1, .inputs = b->dims[0], .outputs = b->dims[1]};
        return emit_dense(m, n, a, &d);
    }
    if (a.kind == NAS__ONNX_CONST && b->kind == NAS__ONNX_CONST)
        return nas__onnx_unsupported(m, "two constants");
    nas__onnx_value y;
    const nas_status status = product(m, n, a, *b, &y);
    return status == NAS_OK ? nas__onnx_output(m, n, y) : status;
}

static nas_status import_gemm(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    static const int32_t swap[2] = {1, 0};
    (void)arg;
    nas__onnx_value a = *nas__onnx_input(m, n, 0), b = *nas__onnx_input(m, n, 1);
    const bool trans_a = nas__onnx_attr_int(n, "transA", 0) != 0,
               trans_b = nas__onnx_attr_int(n, "transB", 0) != 0;
    dense d = {.w = nas__onnx_input(m, n, 1),
               .transposed = trans_b,
               .alpha = (double)nas__onnx_attr_float(n, "alpha", 1),
               .beta = (double)nas__onnx_attr_float(n, "beta", 1),
               .inputs = b.dims[trans_b ? 1 : 0],
               .outputs = b.dims[trans_b ? 0 : 1]};
    if (a.rank != 2 || b.rank != 2) return nas__onnx_unsupported(m, "operands not of rank 2");
    if (a.kind == NAS__ONNX_CONST) return nas__onnx_unsupported(m, "a constant first operand");
    nas_status status = trans_a ? nas__onnx_permute(m, n, &a, swap) : NAS_OK;
    if (status != NAS_OK) return status;
    if (trans_a) a.name = NULL; /* the transposed operand has no name in the file */
    if (b.kind != NAS__ONNX_CONST) {
        if (nas__onnx_input(m, n, 2) != NULL || d.alpha != 1)
            return nas__onnx_unsupported(m, "alpha or a third operand with two values");
        if (trans_b) status = nas__onnx_permute(m, n, &b, swap);
        if (trans_b) b.name = NULL;
        nas__onnx_value y;
        if (status == NAS_OK) status = product(m, n, a, b, &y);
        return status == NAS_OK ? nas__onnx_output(m, n, y) : status;
    }
    if (nas__onnx_input(m, n, 2) != NULL) {
        status = nas__onnx_need_const(m, n, 2, "the bias", &d.bias);
        if (status != NAS_OK) return status;
        if (d.bias->count != 1 && (int64_t)d.bias->count != d.outputs)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "bias of %zu elements for %" PRId64 " outputs",
                            d.bias->count, d.outputs);
    }
    return emit_dense(m, n, a, &d);
}

/* ---- over the channels ----------------------------------------------------------------------------------------------- */

/* x such that the ONNX axes `last` are its channels, in order. */
static nas_status as_channels(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                              const bool *last) {
    int32_t place = 0;
    bool lies = true;
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        for (int32_t k = first; k < first + count; k++) {
            const nas__onnx_factor *f = &x->layout.f[k];
            lies = lies && last[i] == (f->axis == 3) && (!last[i] || f->place == place++);
        }
    }
    if (lies) return NAS_OK;
    const nas__onnx_axes axes = nas__onnx_last(m, x->dims, x->rank, last);
    return nas__onnx_arrange_axes(m, n, x, &axes);
}

static nas_status import_softmax(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    int32_t axis = 0;
    bool last[NAS__ONNX_RANK_MAX] = {false};
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK)
        status =
            nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", m->opset < 13 ? 1 : -1), x.rank, &axis);
    if (status != NAS_OK) return status;
    last[axis] = true;
    for (int32_t i = axis; i < x.rank && m->opset < 13; i++)
        last[i] = true; /* before opset 13 over all axes from `axis` on */
    status = as_channels(m, n, &x, last);
    return status == NAS_OK ? nas__onnx_elementwise(m, n, (nas_node){.op = NAS_OP_SOFTMAX}, x)
                            : status;
}

static nas_status import_layer_norm(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas__onnx_value *scale = NULL, *bias = NULL;
    int32_t axis = 0;
    bool last[NAS__ONNX_RANK_MAX] = {false};
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK)
        status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", -1), x.rank, &axis);
    if (status == NAS_OK) status = nas__onnx_need_const(m, n, 1, "the scale", &scale);
    if (status == NAS_OK && nas__onnx_input(m, n, 2) != NULL)
        status = nas__onnx_need_const(m, n, 2, "the bias", &bias);
    for (int32_t i = axis; i < x.rank && status == NAS_OK; i++)
        last[i] = true;
    if (status == NAS_OK) status = as_channels(m, n, &x, last);
    if (status != NAS_OK) return status;
    const size_t channels = (size_t)x.layout.shape.c;
    if ((scale->count != 1 && scale->count != channels) ||
        (bias != NULL && bias->count != 1 && bias->count != channels))
        return nas__onnx_unsupported(m, "scale or bias that do not have an element a channel");
    const nas_node proto = {.op = NAS_OP_LAYER_NORM,
                            .n_inputs = 1,
                            .inputs = {x.v},
                            .epsilon = nas__onnx_attr_float(n, "epsilon", 1e-5f)};
    status = nas__onnx_add(m, n, "", &proto, &x.v);
    if (status == NAS_OK) status = nas__onnx_weights(m, x.v);
    if (status != NAS_OK) return status;
    float *to = nas__onnx_param(m, x.v, 0), *shift = nas__onnx_param(m, x.v, 1);
    for (size_t c = 0; c < channels && to != NULL && shift != NULL; c++) {
        to[c] = (float)nas__onnx_at(scale, scale->count == 1 ? 0 : c);
        if (bias != NULL) shift[c] = (float)nas__onnx_at(bias, bias->count == 1 ? 0 : c);
    }
    return nas__onnx_output(m, n, x);
}

const nas__onnx_operator *nas__onnx_find_dense_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Gemm", 2, import_gemm, 0},
        {"MatMul", 2, import_matmul, 0},
        {"Softmax", 1, import_softmax, 0},
        {"LayerNormalization", 2, import_layer_norm, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
