/* onnx_import_math.c - ONNX operators that calculate element by element with broadcasting, and those that reduce axes.
 * They take their operands as they lie where that is possible. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

/* ---- two operands -------------------------------------------------------------------------------------------------- */

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
        return nas__onnx_elementwise(m, n, proto, x);
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
    proto.n_inputs = 1;
    proto.inputs[0] = x.v;
    const nas_status status = nas__onnx_add_pattern(m, n, &proto, &x.v);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* The shape that a and b broadcast to; both get its rank. */
static nas_status broadcast_dims(nas__onnx *m, nas__onnx_value *a, nas__onnx_value *b,
                                 int64_t dims[NAS__ONNX_RANK_MAX]) {
    const int32_t rank = a->rank > b->rank ? a->rank : b->rank;
    nas__onnx_pad_rank(a, rank);
    nas__onnx_pad_rank(b, rank);
    for (int32_t i = 0; i < rank; i++) {
        dims[i] = a->dims[i] == 1 ? b->dims[i] : a->dims[i];
        if (dims[i] != b->dims[i] && b->dims[i] != 1)
            return nas_fail(m->ctx, NAS_ERR_SHAPE,
                            "axis %" PRId32 " has extent %" PRId64 " and %" PRId64, i, a->dims[i],
                            b->dims[i]);
    }
    int64_t count = 0;
    return nas__onnx_count(m, dims, rank, &count);
}

static bool has_dims(const nas__onnx_value *x, const int64_t *dims) {
    return memcmp(x->dims, dims, (size_t)x->rank * sizeof *dims) == 0;
}

/* `whole` without the factors of IR axes along which no axis of `dims` extends. false: one IR axis holds an axis that
 * `dims` has and one that it lacks, so an operand of `dims` cannot be broadcast to it. */
static bool part_of(const nas__onnx_value *whole, const int64_t *dims, nas__onnx_layout *out) {
    bool has[4] = {false}, lacks[4] = {false};
    nas__onnx_layout l = {.shape = {1, 1, 1, 1}};
    for (int32_t i = 0; i < whole->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(whole, i, &first, &count);
        for (int32_t k = first; k < first + count; k++) {
            const nas__onnx_factor f = whole->layout.f[k];
            has[f.axis] = has[f.axis] || dims[i] != 1;
            lacks[f.axis] = lacks[f.axis] || dims[i] == 1;
            if (dims[i] != 1) l.f[l.n++] = f;
        }
    }
    const nas_shape s = whole->layout.shape;
    l.shape = (nas_shape){has[0] ? s.n : 1, has[1] ? s.h : 1, has[2] ? s.w : 1, has[3] ? s.c : 1};
    *out = l;
    return !(has[0] && lacks[0]) && !(has[1] && lacks[1]) && !(has[2] && lacks[2]) &&
           !(has[3] && lacks[3]);
}

/* A constant operand lies as x does; along an IR axis where it does not vary it has extent 1, unless `full`. */
static nas_status constant_like(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *c,
                                const nas__onnx_value *x, bool full, nas__onnx_value *out) {
    nas__onnx_layout to = x->layout;
    int64_t dims[NAS__ONNX_RANK_MAX];
    bool varies[4] = {false};
    memcpy(dims, x->dims, sizeof dims);
    for (int32_t i = 0; i < x->rank && !full; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        for (int32_t k = first; k < first + count; k++)
            varies[to.f[k].axis] = varies[to.f[k].axis] || c->dims[i] != 1;
    }
    for (int32_t i = 0; i < x->rank && !full;
         i++) { /* an axis shares an IR axis or not: all of it */
        int32_t first = 0, count = 0;
        bool kept = false;
        nas__onnx_span(x, i, &first, &count);
        for (int32_t k = first; k < first + count; k++)
            kept = kept || varies[to.f[k].axis];
        for (int32_t k = first; k < first + count && kept; k++)
            varies[to.f[k].axis] = true;
        if (!kept) dims[i] = 1;
    }
    if (!full && !part_of(x, dims, &to)) {
        to = x->layout;
        memcpy(dims, x->dims, sizeof dims);
    }
    return nas__onnx_constant(m, n, "_const", c, dims, x->rank, &to, out);
}

/* The operand that has all the elements first: x in a layout to which y, in *to, can be broadcast. */
static nas_status make_room(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                            const nas__onnx_value *y, nas__onnx_layout *to) {
    if (part_of(x, y->dims, to)) return NAS_OK;
    nas__onnx_axes axes =
        x->rank <= 4 ? nas__onnx_rows(m, x->dims, x->rank) : (nas__onnx_axes){{0}};
    nas__onnx_value trial = *x;
    nas_status status = nas__onnx_layout_of(m, x->dims, x->rank, &axes, &trial.layout);
    if (status != NAS_OK) return status;
    if (x->rank > 4 || !part_of(&trial, y->dims, to)) {
        for (int32_t i = 0; i < x->rank; i++)
            axes.of[i] = y->dims[i] == 1 ? 2 : 3;
    }
    status = nas__onnx_arrange_axes(m, n, x, &axes);
    if (status == NAS_OK && !part_of(x, y->dims, to))
        status = nas_fail(m->ctx, NAS_ERR_INTERNAL, "no layout for a broadcast");
    return status;
}

/* x in all elements of `dims`: added to zeros, since no IR operator repeats. */
static nas_status expand(nas__onnx *m, const nas__onnx_node *n, const int64_t *dims,
                         nas__onnx_value *x) {
    static const float zero = 0;
    const nas__onnx_value one = {.name = "",
                                 .kind = NAS__ONNX_CONST,
                                 .storage = NAS__ONNX_FLOATS,
                                 .data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
                                 .count = 1,
                                 .data = &zero};
    nas__onnx_axes axes;
    nas__onnx_layout to;
    nas__onnx_value all = {.kind = NAS__ONNX_VALUE};
    nas__onnx_set_dims(&all, dims, x->rank);
    if (!nas__onnx_axes_of(m, x, &axes)) axes = nas__onnx_rows(m, dims, x->rank);
    for (int32_t i = 0; i < x->rank; i++)
        axes.of[i] = axes.of[i] < 0 ? 1 : axes.of[i];
    nas_status status = nas__onnx_layout_of(m, dims, x->rank, &axes, &all.layout);
    if (status == NAS_OK && !part_of(&all, x->dims, &to)) {
        for (int32_t i = 0; i < x->rank; i++)
            axes.of[i] = x->dims[i] == 1 ? 2 : 3;
        status = nas__onnx_layout_of(m, dims, x->rank, &axes, &all.layout);
        if (status == NAS_OK && !part_of(&all, x->dims, &to))
            status = nas_fail(m->ctx, NAS_ERR_INTERNAL, "no layout for a broadcast");
    }
    if (status == NAS_OK) status = nas__onnx_arrange(m, n, x, &to);
    if (status == NAS_OK)
        status = nas__onnx_constant(m, n, "_zeros", &one, dims, x->rank, &all.layout, &all);
    if (status != NAS_OK) return status;
    const nas_node proto = {.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {all.v, x->v}};
    status = nas__onnx_add(m, n, "_expanded", &proto, &all.v);
    all.name = x->name;
    *x = all;
    return status;
}

/* a op b: the second operand is the one that may be smaller. */
static nas_status operands(nas__onnx *m, const nas__onnx_node *n, const char *suffix, nas_op op,
                           nas__onnx_value a, nas__onnx_value b, nas__onnx_value *out) {
    int64_t dims[NAS__ONNX_RANK_MAX] = {0};
    nas__onnx_layout to;
    const bool commutes = op == NAS_OP_ADD || op == NAS_OP_MUL;
    nas_status status = broadcast_dims(m, &a, &b, dims);
    if (status != NAS_OK) return status;
    if (!has_dims(&a, dims) && commutes && has_dims(&b, dims)) {
        const nas__onnx_value c = a;
        a = b;
        b = c;
    }
    if (!has_dims(&a, dims)) status = expand(m, n, dims, &a);
    if (status != NAS_OK) return status;
    if (!has_dims(&b, dims)) {
        status = make_room(m, n, &a, &b, &to);
    } else {
        nas__onnx_axes axes;
        to = nas__onnx_axes_of(m, &a, &axes) || !nas__onnx_axes_of(m, &b, &axes) ? a.layout
                                                                                 : b.layout;
        status = nas__onnx_arrange(m, n, &a, &to);
    }
    if (status == NAS_OK) status = nas__onnx_arrange(m, n, &b, &to);
    if (status != NAS_OK) return status;
    const nas_node proto = {.op = op, .n_inputs = 2, .inputs = {a.v, b.v}};
    status = suffix[0] == '\0' ? nas__onnx_add_pattern(m, n, &proto, &a.v)
                               : nas__onnx_add(m, n, suffix, &proto, &a.v);
    *out = a;
    return status;
}

static nas_status const_operand(nas__onnx *m, const nas__onnx_node *n, nas_op op, nas__onnx_value x,
                                const nas__onnx_value *constant, bool first) {
    nas__onnx_value c = *constant, k;
    int64_t dims[NAS__ONNX_RANK_MAX] = {0};
    nas_status status = broadcast_dims(m, &x, &c, dims);
    if (status != NAS_OK) return status;
    if (c.count == 1 && !(op == NAS_OP_DIV && first))
        return scalar_operand(m, n, op, x, (float)nas__onnx_at(&c, 0), first);
    const bool swaps = first && op != NAS_OP_ADD && op != NAS_OP_MUL;
    if (!has_dims(&x, dims)) { /* the constant is larger */
        const nas__onnx_axes axes =
            x.rank <= 4 ? nas__onnx_image(x.rank) : nas__onnx_rows(m, dims, x.rank);
        nas__onnx_layout to;
        status = nas__onnx_layout_of(m, dims, x.rank, &axes, &to);
        if (status == NAS_OK)
            status = nas__onnx_constant(m, n, "_const", &c, dims, x.rank, &to, &k);
    } else {
        status = constant_like(m, n, &c, &x, swaps, &k);
    }
    if (status != NAS_OK) return status;
    if (has_dims(&x, dims)) { /* they fit as they are */
        const nas_node proto = {
            .op = op, .n_inputs = 2, .inputs = {swaps ? k.v : x.v, swaps ? x.v : k.v}};
        status = nas__onnx_add_pattern(m, n, &proto, &x.v);
    } else {
        status = operands(m, n, "", op, first ? k : x, first ? x : k, &x);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

static nas_status import_binary(nas__onnx *m, const nas__onnx_node *n, int32_t op) {
    const nas__onnx_value *a = nas__onnx_input(m, n, 0), *b = nas__onnx_input(m, n, 1);
    if (nas__onnx_attr_int(n, "broadcast", 0) != 0 && b->rank > 0 && b->count != 1)
        return nas__onnx_unsupported(m, "the broadcast attribute of opset 6 and before");
    const bool const_a = a->kind == NAS__ONNX_CONST, const_b = b->kind == NAS__ONNX_CONST;
    if (const_a && const_b) return fold_binary(m, n, (nas_op)op, a, b);
    if (const_a) return const_operand(m, n, (nas_op)op, *b, a, true);
    if (const_b) return const_operand(m, n, (nas_op)op, *a, b, false);
    nas__onnx_value y;
    const nas_status status = operands(m, n, "", (nas_op)op, *a, *b, &y);
    return status == NAS_OK ? nas__onnx_output(m, n, y) : status;
}

static nas_status import_sum(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    for (size_t i = 1; i < n->n_input && status == NAS_OK; i++) {
        nas__onnx_value y;
        status = nas__onnx_activation(m, n, i, &y);
        if (status == NAS_OK)
            status = operands(m, n, i + 1 < n->n_input ? "_part" : "", NAS_OP_ADD, x, y, &x);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* Of a constant it is part of a scale that exporters calculate: sqrt(1/sqrt(extent)). */
static nas_status import_sqrt(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x = *nas__onnx_input(m, n, 0), c;
    if (x.kind != NAS__ONNX_CONST) {
        const nas_node root = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_SQRT};
        return nas__onnx_elementwise(m, n, root, x);
    }
    const nas_status status = nas__onnx_new_const(m, false, x.count, &c);
    if (status != NAS_OK) return status;
    double *to = (double *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++)
        to[i] = sqrt(nas__onnx_at(&x, i));
    nas__onnx_set_dims(&c, x.dims, x.rank);
    return nas__onnx_output(m, n, c);
}

/* Powers that are products and roots. */
static nas_status import_pow(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *power = NULL;
    nas__onnx_value x;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK) status = nas__onnx_need_const(m, n, 1, "the exponent", &power);
    if (status != NAS_OK) return status;
    const double p = power->count == 1 ? nas__onnx_at(power, 0) : 0;
    if (power->count == 1 && power->rank > x.rank) nas__onnx_pad_rank(&x, power->rank);
    if (p == 1) return nas__onnx_output(m, n, x);
    if (p == 0.5) {
        const nas_node root = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_SQRT};
        return nas__onnx_elementwise(m, n, root, x);
    }
    if (p != 2 && p != 3) return nas__onnx_unsupported(m, "an exponent other than 0.5, 1, 2 and 3");
    nas_node proto = {.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {x.v, x.v}};
    status = nas__onnx_add(m, n, p == 3 ? "_square" : "", &proto, &proto.inputs[0]);
    if (status == NAS_OK && p == 3) status = nas__onnx_add(m, n, "", &proto, &proto.inputs[0]);
    x.v = proto.inputs[0];
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x^3)))/2 (Hendrycks & Gimpel, arXiv:1606.08415); without approximation one operator. */
static nas_status import_gelu(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status != NAS_OK) return status;
    if (nas__onnx_attr_is(n, "approximate", "none", true)) {
        const nas_node gelu = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_GELU};
        return nas__onnx_elementwise(m, n, gelu, x);
    }
    if (!nas__onnx_attr_is(n, "approximate", "tanh", false))
        return nas__onnx_unsupported(m, "an unknown approximation");
    /* steps[i] reads the step before it, and x as second operand */
    const nas_node scaled = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_AFFINE, .alpha = 0.044715f},
                   inner = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_AFFINE, .alpha = 0.7978845608f},
                   curve = {.op = NAS_OP_UNARY, .unary = NAS_UNARY_TANH},
                   half = {.op = NAS_OP_UNARY,
                           .unary = NAS_UNARY_AFFINE,
                           .alpha = 0.5f,
                           .beta = 0.5f},
                   times = {.op = NAS_OP_MUL}, plus = {.op = NAS_OP_ADD};
    const nas_node *const steps[] = {&times, &times, &scaled, &plus, &inner, &curve, &half, &times};
    enum { STEPS = sizeof steps / sizeof steps[0] };
    nas_value v = x.v;
    for (int32_t i = 0; i < STEPS && status == NAS_OK; i++) {
        nas_node step = *steps[i];
        step.n_inputs = step.op == NAS_OP_UNARY ? 1 : 2;
        step.inputs[0] = v;
        step.inputs[1] = x.v;
        status = nas__onnx_add(m, n, i + 1 < STEPS ? "_part" : "", &step, &v);
    }
    x.v = v;
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

static nas_status import_expand(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    int64_t list[2 * NAS__ONNX_RANK_MAX], dims[NAS__ONNX_RANK_MAX] = {0};
    int32_t rank = 0;
    nas__onnx_value x = *nas__onnx_input(m, n, 0), to = {.kind = NAS__ONNX_CONST};
    nas_status status = nas__onnx_int_list(m, n, "", 1, list, &rank);
    if (status != NAS_OK) return status;
    if (rank > NAS__ONNX_RANK_MAX) return nas__onnx_unsupported(m, "a rank above 8");
    nas__onnx_set_dims(&to, list, rank);
    int64_t count = 0;
    status = nas__onnx_count(m, list, rank, &count);
    if (status == NAS_OK) status = broadcast_dims(m, &x, &to, dims);
    if (status != NAS_OK) return status;
    if (has_dims(&x, dims)) return nas__onnx_output(m, n, x);
    if (x.kind == NAS__ONNX_CONST) return nas__onnx_expand_const(m, n, &x, dims);
    status = expand(m, n, dims, &x);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* ---- reductions ---------------------------------------------------------------------------------------------------- */

typedef enum reduction { MEAN, SUM, MAX } reduction;

/* IR axes whose elements are all reduced; false when one IR axis has both, or has them where the operator cannot. */
static bool reduced_axes(const nas__onnx_value *x, const bool *reduced, reduction how,
                         bool out[4]) {
    bool kept[4] = {false};
    memset(out, 0, 4 * sizeof *out);
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        for (int32_t k = first; k < first + count; k++)
            (reduced[i] ? out : kept)[x->layout.f[k].axis] = true;
    }
    return !out[0] && !(out[1] && kept[1]) && !(out[2] && kept[2]) && !(out[3] && kept[3]) &&
           !(out[3] && how == MAX);
}

/* The mean over channels is a convolution with one output. */
static nas_status channel_mean(nas__onnx *m, const nas__onnx_node *n, nas_value *v) {
    const int32_t channels = nas_graph_node(m->g, *v)->shape.c;
    const nas_node proto = {.op = NAS_OP_CONV,
                            .n_inputs = 1,
                            .inputs = {*v},
                            .conv = {.out_channels = 1,
                                     .kernel_h = 1,
                                     .kernel_w = 1,
                                     .stride_h = 1,
                                     .stride_w = 1,
                                     .dilation_h = 1,
                                     .dilation_w = 1,
                                     .groups = 1}};
    nas_status status = nas__onnx_add(m, n, "", &proto, v);
    if (status == NAS_OK) status = nas__onnx_weights(m, *v);
    float *weight = status == NAS_OK ? nas__onnx_param(m, *v, 0) : NULL;
    for (int32_t c = 0; c < channels && weight != NULL; c++)
        weight[c] = (float)(1.0 / channels);
    return status;
}

static nas_status reduce_nodes(nas__onnx *m, const nas__onnx_node *n, reduction how,
                               const bool axes[4], double count, nas_value *v) {
    nas_status status = NAS_OK;
    if (axes[1] || axes[2]) {
        const nas_shape s = nas_graph_node(m->g, *v)->shape;
        const nas_node proto = {.op = how == MAX ? NAS_OP_MAX_POOL : NAS_OP_AVG_POOL,
                                .n_inputs = 1,
                                .inputs = {*v},
                                .pool = {.kernel_h = axes[1] ? s.h : 1,
                                         .kernel_w = axes[2] ? s.w : 1,
                                         .stride_h = 1,
                                         .stride_w = 1}};
        status = nas__onnx_add(m, n, "", &proto, v);
    }
    if (status == NAS_OK && axes[3]) status = channel_mean(m, n, v);
    if (status == NAS_OK && how == SUM && count > 1) {
        const nas_node proto = {.op = NAS_OP_UNARY,
                                .n_inputs = 1,
                                .inputs = {*v},
                                .unary = NAS_UNARY_AFFINE,
                                .alpha = (float)count};
        status = nas__onnx_add(m, n, "", &proto, v);
    }
    return status;
}

/* Which ONNX axes; all when the list is absent or empty. */
static nas_status read_axes(nas__onnx *m, const nas__onnx_node *n, int32_t rank, bool *reduced) {
    int64_t axes[2 * NAS__ONNX_RANK_MAX];
    int32_t count = 0;
    nas_status status = nas__onnx_int_list(m, n, "axes", 1, axes, &count);
    const bool all = count <= 0 && nas__onnx_attr_int(n, "noop_with_empty_axes", 0) == 0;
    for (int32_t i = 0; i < rank; i++)
        reduced[i] = all;
    for (int32_t i = 0; i < count && status == NAS_OK; i++) {
        int32_t axis = 0;
        status = nas__onnx_axis(m, axes[i], rank, &axis);
        if (status == NAS_OK) reduced[axis] = true;
    }
    return status;
}

static nas_status import_reduce(nas__onnx *m, const nas__onnx_node *n, int32_t how) {
    nas__onnx_value x;
    bool reduced[NAS__ONNX_RANK_MAX] = {false}, axes[4];
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK) status = read_axes(m, n, x.rank, reduced);
    if (status != NAS_OK) return status;
    if (!reduced_axes(&x, reduced, (reduction)how, axes)) {
        nas__onnx_axes to = nas__onnx_last(m, x.dims, x.rank, reduced);
        int32_t innermost = 3; /* of the kept axes */
        for (int32_t i = x.rank; i-- > 0 && how == MAX;) {
            to.of[i] = reduced[i] ? 2 : innermost;
            if (!reduced[i]) innermost = 1;
        }
        status = nas__onnx_arrange_axes(m, n, &x, &to);
        if (status != NAS_OK) return status;
        (void)reduced_axes(&x, reduced, (reduction)how, axes); /* now they are */
    }
    const bool keep = nas__onnx_attr_int(n, "keepdims", 1) != 0;
    int64_t dims[NAS__ONNX_RANK_MAX] = {0};
    int32_t rank = 0;
    double count = 1;
    nas__onnx_layout l = {.shape = x.layout.shape};
    for (int32_t i = 0; i < x.rank; i++) {
        int32_t first = 0, factors = 0;
        nas__onnx_span(&x, i, &first, &factors);
        if (reduced[i]) count *= (double)x.dims[i];
        if (!reduced[i] || keep) dims[rank++] = reduced[i] ? 1 : x.dims[i];
        for (int32_t k = first; k < first + factors && !reduced[i]; k++)
            l.f[l.n++] = x.layout.f[k];
    }
    l.shape.h = axes[1] ? 1 : l.shape.h;
    l.shape.w = axes[2] ? 1 : l.shape.w;
    l.shape.c = axes[3] ? 1 : l.shape.c;
    status = reduce_nodes(m, n, (reduction)how, axes, count, &x.v);
    if (status != NAS_OK) return status;
    x.layout = l;
    nas__onnx_set_dims(&x, dims, rank);
    return nas__onnx_output(m, n, x);
}

const nas__onnx_operator *nas__onnx_find_math_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Add", 2, import_binary, NAS_OP_ADD},
        {"Sub", 2, import_binary, NAS_OP_SUB},
        {"Mul", 2, import_binary, NAS_OP_MUL},
        {"Div", 2, import_binary, NAS_OP_DIV},
        {"Sum", 1, import_sum, 0},
        {"Pow", 2, import_pow, 0},
        {"Sqrt", 1, import_sqrt, 0},
        {"Gelu", 1, import_gelu, 0},
        {"Expand", 2, import_expand, 0},
        {"ReduceMean", 1, import_reduce, MEAN},
        {"ReduceSum", 1, import_reduce, SUM},
        {"ReduceMax", 1, import_reduce, MAX},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
