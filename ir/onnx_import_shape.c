/* onnx_import_shape.c - ONNX operators whose result is known now: constants, shapes and what is calculated from them. See
 * ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <string.h>

/* Elements of a shape whose extents are checked here: each 0..2^31-1, product at most 2^40. */
nas_status nas__onnx_count(nas__onnx *m, const int64_t *dims, int32_t rank, int64_t *out) {
    int64_t count = 1;
    for (int32_t i = 0; i < rank; i++) {
        if (dims[i] < 0 || dims[i] > INT32_MAX ||
            (dims[i] > 0 && count > ((int64_t)1 << 40) / dims[i]))
            return nas_fail(m->ctx, NAS_ERR_RANGE, "extent %" PRId64 " of axis %" PRId32, dims[i],
                            i);
        count *= dims[i];
    }
    *out = count;
    return NAS_OK;
}

nas_status nas__onnx_reindex(nas__onnx *m, const nas__onnx_value *x, const int64_t *dims,
                             int32_t rank, const size_t *step, size_t from, nas__onnx_value *out) {
    int64_t count = 0, at[NAS__ONNX_RANK_MAX] = {0};
    nas__onnx_value c;
    nas_status status = nas__onnx_count(m, dims, rank, &count);
    if (status == NAS_OK) status = nas__onnx_new_const(m, nas__onnx_is_int(x), (size_t)count, &c);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t k = 0; k < c.count; k++) {
        if (nas__onnx_is_int(x)) {
            ((int64_t *)data)[k] = nas__onnx_int_at(x, from);
        } else {
            ((double *)data)[k] = nas__onnx_at(x, from);
        }
        for (int32_t i = rank; i-- > 0;) {
            from += step[i];
            if (++at[i] < dims[i]) break;
            from -= step[i] * (size_t)dims[i];
            at[i] = 0;
        }
    }
    nas__onnx_set_dims(&c, dims, rank);
    *out = c;
    return NAS_OK;
}

void nas__onnx_steps(const nas__onnx_value *x, size_t step[NAS__ONNX_RANK_MAX]) {
    size_t stride = 1;
    for (int32_t i = x->rank; i-- > 0;) {
        step[i] = stride;
        stride *= (size_t)x->dims[i];
    }
}

nas_status nas__onnx_expand_const(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                  const int64_t *dims) {
    size_t step[NAS__ONNX_RANK_MAX] = {0};
    nas__onnx_value c;
    nas__onnx_steps(x, step);
    for (int32_t i = 0; i < x->rank; i++)
        step[i] = x->dims[i] == 1 ? 0 : step[i];
    const nas_status status = nas__onnx_reindex(m, x, dims, x->rank, step, 0, &c);
    return status == NAS_OK ? nas__onnx_output(m, n, c) : status;
}

nas_status nas__onnx_concat_consts(nas__onnx *m, const nas__onnx_node *n) {
    size_t count = 0;
    bool is_int = true;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *c = nas__onnx_input(m, n, i);
        if (c->rank != 1) return nas__onnx_unsupported(m, "constants of rank above 1");
        is_int = is_int && nas__onnx_is_int(c);
        count += c->count; /* each at most 2^28 */
    }
    nas__onnx_value out;
    const nas_status status = nas__onnx_new_const(m, is_int, count, &out);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)out.data; /* fresh, ours */
    size_t k = 0;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *c = nas__onnx_input(m, n, i);
        for (size_t e = 0; e < c->count; e++, k++) {
            if (is_int) {
                ((int64_t *)data)[k] = nas__onnx_int_at(c, e);
            } else {
                ((double *)data)[k] = nas__onnx_at(c, e);
            }
        }
    }
    return nas__onnx_output(m, n, out);
}

/* A change between integers and floats concerns constants only; an activation stays float. */
static nas_status import_cast(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    const int64_t to = nas__onnx_attr_int(n, "to", 0);
    const bool to_float = to == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT ||
                          to == ONNX__TENSOR_PROTO__DATA_TYPE__DOUBLE ||
                          to == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16;
    if (x->kind != NAS__ONNX_CONST) {
        return to == ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT
                   ? nas__onnx_output(m, n, *x)
                   : nas__onnx_unsupported(m, "a cast of a value to another type than float");
    }
    if (nas__onnx_is_int(x) != to_float) return nas__onnx_output(m, n, *x); /* the same kind */
    nas__onnx_value c;
    const nas_status status = nas__onnx_new_const(m, !to_float, x->count, &c);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        if (to_float) {
            ((double *)data)[i] = nas__onnx_at(x, i);
        } else {
            ((int64_t *)data)[i] = nas__onnx_int_at(x, i);
        }
    }
    nas__onnx_set_dims(&c, x->dims, x->rank);
    return nas__onnx_output(m, n, c);
}

static nas_status import_constant(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, "value");
    nas__onnx_value c;
    if (a != NULL && a->t != NULL) {
        const nas_status status = nas__onnx_tensor(m, a->t, &c);
        return status == NAS_OK ? nas__onnx_output(m, n, c) : status;
    }
    const Onnx__AttributeProto *f = nas__onnx_attribute(n, "value_float");
    const Onnx__AttributeProto *i = nas__onnx_attribute(n, "value_int");
    const Onnx__AttributeProto *is = nas__onnx_attribute(n, "value_ints");
    if (f == NULL && i == NULL && is == NULL)
        return nas__onnx_unsupported(m, "a constant that is no tensor, float or integers");
    const nas_status status =
        nas__onnx_new_const(m, f == NULL, is != NULL && f == NULL ? is->n_ints : 1, &c);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    if (f != NULL) {
        *(double *)data = (double)f->f;
    } else if (is == NULL) {
        *(int64_t *)data = i->i;
    } else {
        for (size_t k = 0; k < c.count; k++)
            ((int64_t *)data)[k] = is->ints[k];
    }
    if (f != NULL || is == NULL) c.rank = 0;
    return nas__onnx_output(m, n, c);
}

static nas_status import_constant_of_shape(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    int64_t dims[2 * NAS__ONNX_RANK_MAX];
    int32_t rank = 0;
    nas_status status = nas__onnx_int_list(m, n, "", 0, dims, &rank);
    if (status != NAS_OK) return status;
    if (rank > NAS__ONNX_RANK_MAX) return nas__onnx_unsupported(m, "a rank above 8");
    nas__onnx_value c = {.kind = NAS__ONNX_CONST,
                         .v = NAS_VALUE_NONE,
                         .storage = NAS__ONNX_FILL,
                         .data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT};
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, "value");
    if (a != NULL && a->t != NULL) {
        nas__onnx_value one;
        status = nas__onnx_tensor(m, a->t, &one);
        if (status != NAS_OK) return status;
        if (one.count != 1) return nas_fail(m->ctx, NAS_ERR_PARSE, "a value of %zu", one.count);
        c.fill = nas__onnx_at(&one, 0);
        c.data_type = one.data_type;
    }
    int64_t count = 0;
    status = nas__onnx_count(m, dims, rank, &count);
    if (status == NAS_OK && count > 1 << 28)
        status = nas_fail(m->ctx, NAS_ERR_RANGE, "a constant of %" PRId64 " elements", count);
    if (status != NAS_OK) return status;
    nas__onnx_set_dims(&c, dims, rank);
    c.count = (size_t)count;
    return nas__onnx_output(m, n, c);
}

static nas_status import_shape(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    if (nas__onnx_attribute(n, "start") != NULL || nas__onnx_attribute(n, "end") != NULL)
        return nas__onnx_unsupported(m, "start and end");
    nas__onnx_value c;
    const nas_status status = nas__onnx_new_const(m, true, (size_t)x->rank, &c);
    if (status != NAS_OK) return status;
    memcpy((void *)(uintptr_t)c.data, x->dims, c.count * sizeof(int64_t)); /* fresh, ours */
    return nas__onnx_output(m, n, c);
}

/* Constants of one shape, or of one element: what exporters calculate the shape of an Expand with. */
static nas_status folded_like(nas__onnx *m, const nas__onnx_node *n, size_t operands, bool is_int,
                              nas__onnx_value *out) {
    const nas__onnx_value *most = nas__onnx_input(m, n, 0);
    for (size_t i = 0; i < operands; i++) {
        const nas__onnx_value *c = nas__onnx_input(m, n, i);
        if (c->kind != NAS__ONNX_CONST) return nas__onnx_unsupported(m, "anything but constants");
        most = c->count > most->count ? c : most;
    }
    for (size_t i = 0; i < operands; i++) {
        const nas__onnx_value *c = nas__onnx_input(m, n, i);
        if (c->count != 1 && c->count != most->count)
            return nas__onnx_unsupported(m, "broadcast of constants");
    }
    const nas_status status = nas__onnx_new_const(m, is_int, most->count, out);
    if (status == NAS_OK) nas__onnx_set_dims(out, most->dims, most->rank);
    return status;
}

static size_t element(const nas__onnx_value *c, size_t index) {
    return c->count == 1 ? 0 : index;
}

static nas_status import_equal(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *a = nas__onnx_input(m, n, 0), *b = nas__onnx_input(m, n, 1);
    nas__onnx_value c;
    const nas_status status = folded_like(m, n, 2, true, &c);
    if (status != NAS_OK) return status;
    int64_t *to = (int64_t *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++)
        to[i] = nas__onnx_at(a, element(a, i)) == nas__onnx_at(b, element(b, i));
    return nas__onnx_output(m, n, c);
}

static nas_status import_where(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *which = nas__onnx_input(m, n, 0), *a = nas__onnx_input(m, n, 1),
                          *b = nas__onnx_input(m, n, 2);
    const bool is_int = nas__onnx_is_int(a) && nas__onnx_is_int(b);
    nas__onnx_value c;
    const nas_status status = folded_like(m, n, 3, is_int, &c);
    if (status != NAS_OK) return status;
    void *to = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        const nas__onnx_value *from = nas__onnx_at(which, element(which, i)) != 0 ? a : b;
        if (is_int) {
            ((int64_t *)to)[i] = nas__onnx_int_at(from, element(from, i));
        } else {
            ((double *)to)[i] = nas__onnx_at(from, element(from, i));
        }
    }
    return nas__onnx_output(m, n, c);
}

const nas__onnx_operator *nas__onnx_find_shape_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Cast", 1, import_cast, 0},
        {"Constant", 0, import_constant, 0},
        {"ConstantOfShape", 1, import_constant_of_shape, 0},
        {"Shape", 1, import_shape, 0},
        {"Equal", 2, import_equal, 0},
        {"Where", 3, import_where, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
