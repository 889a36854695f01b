/* onnx_import_shape.c - ONNX operators that move elements or compute shapes: reshapes, slices, concatenations, resizes,
 * and the folding of what is known now. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

/* IR axis (n, h, w, c) of an ONNX axis (n, c, h, w) and back. */
static const int32_t ir_axis[4] = {0, 3, 1, 2};
static const int32_t onnx_axis[4] = {0, 2, 3, 1};

static nas_status emit_reshape(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                               nas_value x, nas_shape shape, nas_value *out) {
    const nas_node proto = {.op = NAS_OP_RESHAPE, .n_inputs = 1, .inputs = {x}, .shape = shape};
    return nas__onnx_add(m, n, suffix, &proto, out);
}

nas_status nas__onnx_flatten(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x) {
    const nas_shape s = nas_graph_node(m->g, x->v)->shape;
    nas_value v = x->v;
    nas_status status = NAS_OK;
    int64_t count = (int64_t)s.h * s.w;
    if (count > INT32_MAX / s.c) return nas_fail(m->ctx, NAS_ERR_RANGE, "too many elements");
    count *= s.c;
    if (s.h > 1 || s.w > 1) {
        if (s.c > 1) { /* memory order [n,c,h,w] */
            const nas_node proto = {
                .op = NAS_OP_TRANSPOSE, .n_inputs = 1, .inputs = {v}, .perm = {0, 3, 1, 2}};
            status = nas__onnx_add(m, n, "_order", &proto, &v);
        }
        const nas_shape flat = {s.n, 1, 1, (int32_t)count};
        if (status == NAS_OK) status = emit_reshape(m, n, "_flat", v, flat, &v);
    }
    if (status == NAS_OK) *x = nas__onnx_plain_value(m, v, 2);
    return status;
}

/* ---- reshapes ------------------------------------------------------------------------------------------------------ */

/* Elements of a shape whose extents are checked here: each 0..2^31-1, product at most 2^40. */
static nas_status count_of(nas__onnx *m, const int64_t *dims, int32_t rank, int64_t *out) {
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

static bool same_dims(const nas__onnx_value *x, const int64_t *dims, int32_t rank) {
    return x->rank == rank && memcmp(x->dims, dims, (size_t)rank * sizeof *dims) == 0;
}

static void set_dims(nas__onnx_value *x, const int64_t *dims, int32_t rank) {
    x->rank = rank;
    memset(x->dims, 0, sizeof x->dims);
    memcpy(x->dims, dims, (size_t)rank * sizeof *dims);
}

/* [N,C,H,W] in ONNX order from a flat value. */
static nas_status unflatten(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value x,
                            const int64_t *dims) {
    nas_value v = NAS_VALUE_NONE;
    const bool pixel = dims[2] == 1 && dims[3] == 1;
    const nas_shape shape = {(int32_t)dims[0], pixel ? 1 : (int32_t)dims[1],
                             pixel ? 1 : (int32_t)dims[2],
                             pixel ? (int32_t)dims[1] : (int32_t)dims[3]};
    nas_status status = emit_reshape(m, n, pixel ? "" : "_split", x.v, shape, &v);
    if (status == NAS_OK && !pixel) {
        const nas_node proto = {
            .op = NAS_OP_TRANSPOSE, .n_inputs = 1, .inputs = {v}, .perm = {0, 2, 3, 1}};
        status = nas__onnx_add(m, n, "", &proto, &v);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, 4)) : status;
}

/* Between rank 4 and the rank 5 of a channel shuffle; *done when the pattern fits. */
static nas_status reshape_grouped(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value x,
                                  const int64_t *dims, int32_t rank, bool *done) {
    const nas_shape s = nas_graph_node(m->g, x.v)->shape;
    *done = true;
    if (rank == 5 && x.kind == NAS__ONNX_PLAIN && x.rank == 4 && dims[0] == s.n && dims[1] >= 1 &&
        dims[1] <= s.c && dims[1] * dims[2] == s.c && dims[3] == s.h && dims[4] == s.w) {
        x.kind = NAS__ONNX_GROUPED;
        x.groups = (int32_t)dims[1];
        set_dims(&x, dims, 5);
        return nas__onnx_output(m, n, x);
    }
    const int64_t image[4] = {s.n, s.c, s.h, s.w};
    const bool back = rank == 4 && memcmp(dims, image, sizeof image) == 0;
    if (back && x.kind == NAS__ONNX_GROUPED)
        return nas__onnx_output(m, n, nas__onnx_plain_value(m, x.v, 4));
    if (back && x.kind == NAS__ONNX_SHUFFLED) {
        const nas_node proto = {
            .op = NAS_OP_CHANNEL_SHUFFLE, .n_inputs = 1, .inputs = {x.v}, .block = x.groups};
        return nas__onnx_emit(m, n, &proto, 4);
    }
    *done = false;
    return NAS_OK;
}

static nas_status reshape_to(nas__onnx *m, const nas__onnx_node *n, const int64_t *dims,
                             int32_t rank) {
    nas__onnx_value x = *nas__onnx_input(m, n, 0);
    int64_t from = 0, to = 0;
    nas_status status = count_of(m, x.dims, x.rank, &from);
    if (status == NAS_OK) status = count_of(m, dims, rank, &to);
    if (status != NAS_OK) return status;
    if (from != to || to == 0)
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%" PRId64 " elements to %" PRId64, from, to);
    if (x.kind == NAS__ONNX_CONST) {
        set_dims(&x, dims, rank);
        return nas__onnx_output(m, n, x);
    }
    if (same_dims(&x, dims, rank)) return nas__onnx_output(m, n, x);
    bool done = false;
    status = reshape_grouped(m, n, x, dims, rank, &done);
    if (status != NAS_OK || done) return status;
    if (x.kind == NAS__ONNX_GROUPED || x.kind == NAS__ONNX_SHUFFLED || (rank != 2 && rank != 4))
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "rank %" PRId32 " to rank %" PRId32
                        ": rank 2, rank 4 and the channel shuffle are known",
                        x.rank, rank);
    const nas_shape s = nas_graph_node(m->g, x.v)->shape;
    if (rank == 2 && dims[0] == s.n) { /* flattened: Gemm follows as a rule */
        x.kind = s.h == 1 && s.w == 1 ? NAS__ONNX_PLAIN : NAS__ONNX_FLAT;
        set_dims(&x, dims, 2);
        return nas__onnx_output(m, n, x);
    }
    const int64_t image[4] = {s.n, s.c, s.h, s.w};
    if (rank == 4 && memcmp(dims, image, sizeof image) == 0)
        return nas__onnx_output(m, n, nas__onnx_plain_value(m, x.v, 4));
    status = nas__onnx_flatten(m, n, &x);
    if (status != NAS_OK || rank == 4) return status == NAS_OK ? unflatten(m, n, x, dims) : status;
    nas_value v = NAS_VALUE_NONE;
    const nas_shape shape = {(int32_t)dims[0], 1, 1, (int32_t)dims[1]};
    status = emit_reshape(m, n, "", x.v, shape, &v);
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, 2)) : status;
}

static nas_status import_reshape(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    int64_t dims[2 * NAS__ONNX_RANK_MAX], total = 0, known = 1;
    int32_t rank = 0, open = -1;
    nas_status status = nas__onnx_int_list(m, n, "shape", 1, dims, &rank);
    if (status == NAS_OK) status = count_of(m, x->dims, x->rank, &total);
    if (status != NAS_OK) return status;
    if (rank < 0 || rank > NAS__ONNX_RANK_MAX)
        return nas__onnx_unsupported(m, "no shape, or one of more than 8 axes");
    for (int32_t i = 0; i < rank; i++) {
        if (i < x->rank && dims[i] == 0 && nas__onnx_attr_int(n, "allowzero", 0) == 0)
            dims[i] = x->dims[i];
        if (dims[i] == -1 && open < 0) {
            open = i;
            continue;
        }
        if (dims[i] < 1 || dims[i] > INT32_MAX || known > ((int64_t)1 << 40) / dims[i])
            return nas_fail(m->ctx, NAS_ERR_RANGE, "extent %" PRId64 " of axis %" PRId32, dims[i],
                            i);
        known *= dims[i];
    }
    if (open >= 0) dims[open] = total / known; /* a remainder shows in the count */
    return reshape_to(m, n, dims, rank);
}

static nas_status import_flatten(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    int64_t axis = nas__onnx_attr_int(n, "axis", 1), dims[2] = {1, 1};
    if (axis < 0) axis += x->rank;
    if (axis < 0 || axis > x->rank) return nas_fail(m->ctx, NAS_ERR_RANGE, "axis %" PRId64, axis);
    nas_status status = count_of(m, x->dims, (int32_t)axis, &dims[0]);
    if (status == NAS_OK) status = count_of(m, x->dims + axis, x->rank - (int32_t)axis, &dims[1]);
    return status == NAS_OK ? reshape_to(m, n, dims, 2) : status;
}

static nas_status import_squeeze(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    int64_t axes[2 * NAS__ONNX_RANK_MAX], dims[NAS__ONNX_RANK_MAX] = {0};
    bool drop[NAS__ONNX_RANK_MAX] = {false};
    int32_t count = 0, rank = 0;
    nas_status status = nas__onnx_int_list(m, n, "axes", 1, axes, &count);
    for (int32_t i = 0; i < x->rank; i++)
        drop[i] = count < 0 && x->dims[i] == 1;
    for (int32_t i = 0; i < count && status == NAS_OK; i++) {
        int32_t axis = 0;
        status = nas__onnx_axis(m, axes[i], x->rank, &axis);
        if (status == NAS_OK && x->dims[axis] != 1)
            status = nas_fail(m->ctx, NAS_ERR_SHAPE, "axis %" PRId32 " has extent %" PRId64, axis,
                              x->dims[axis]);
        if (status == NAS_OK) drop[axis] = true;
    }
    for (int32_t i = 0; i < x->rank; i++) {
        if (!drop[i]) dims[rank++] = x->dims[i];
    }
    return status == NAS_OK ? reshape_to(m, n, dims, rank) : status;
}

static nas_status import_unsqueeze(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    int64_t axes[2 * NAS__ONNX_RANK_MAX], dims[NAS__ONNX_RANK_MAX] = {0};
    bool fresh[NAS__ONNX_RANK_MAX] = {false};
    int32_t count = 0, from = 0;
    nas_status status = nas__onnx_int_list(m, n, "axes", 1, axes, &count);
    if (status != NAS_OK) return status;
    if (count < 0 || x->rank + count > NAS__ONNX_RANK_MAX)
        return nas__onnx_unsupported(m, "no axes, or a rank above 8");
    const int32_t rank = x->rank + count;
    for (int32_t i = 0; i < count && status == NAS_OK; i++) {
        int32_t axis = 0;
        status = nas__onnx_axis(m, axes[i], rank, &axis);
        if (status == NAS_OK && fresh[axis])
            status = nas_fail(m->ctx, NAS_ERR_INVALID, "axis %" PRId32 " twice", axis);
        if (status == NAS_OK) fresh[axis] = true;
    }
    for (int32_t i = 0; i < rank && status == NAS_OK; i++)
        dims[i] = fresh[i] ? 1 : x->dims[from++];
    return status == NAS_OK ? reshape_to(m, n, dims, rank) : status;
}

static nas_status import_same(nas__onnx *m, const nas__onnx_node *n, int32_t is_dropout) {
    for (size_t i = 1; i < n->n_output && is_dropout; i++) {
        if (n->output[i][0] != '\0' && nas__onnx_find(m, n->output[i]) != NULL)
            return nas__onnx_unsupported(m, "the mask as a second output");
    }
    return nas__onnx_output(m, n, *nas__onnx_input(m, n, 0));
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
    set_dims(&c, x->dims, x->rank);
    return nas__onnx_output(m, n, c);
}

/* ---- transpose ----------------------------------------------------------------------------------------------------- */

static nas_status transpose_const(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                  const int32_t *perm) {
    nas__onnx_value c;
    const nas_status status = nas__onnx_new_const(m, nas__onnx_is_int(x), x->count, &c);
    if (status != NAS_OK) return status;
    size_t step[NAS__ONNX_RANK_MAX] = {0}, at[NAS__ONNX_RANK_MAX] = {0}, stride = 1;
    for (int32_t i = x->rank; i-- > 0;) {
        step[i] = stride;
        stride *= (size_t)x->dims[i];
    }
    c.rank = x->rank;
    for (int32_t i = 0; i < x->rank; i++)
        c.dims[i] = x->dims[perm[i]];
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t k = 0; k < c.count; k++) {
        size_t from = 0;
        for (int32_t i = 0; i < c.rank; i++)
            from += at[i] * step[perm[i]];
        if (nas__onnx_is_int(x)) {
            ((int64_t *)data)[k] = nas__onnx_int_at(x, from);
        } else {
            ((double *)data)[k] = nas__onnx_at(x, from);
        }
        for (int32_t i = c.rank; i-- > 0;) {
            if (++at[i] < (size_t)c.dims[i]) break;
            at[i] = 0;
        }
    }
    return nas__onnx_output(m, n, c);
}

static nas_status import_transpose(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x = *nas__onnx_input(m, n, 0);
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, "perm");
    int32_t perm[NAS__ONNX_RANK_MAX] = {0};
    bool seen[NAS__ONNX_RANK_MAX] = {false};
    if (a != NULL && a->n_ints != (size_t)x.rank)
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "perm of %zu axes for rank %" PRId32, a->n_ints,
                        x.rank);
    for (int32_t i = 0; i < x.rank; i++) {
        const int64_t axis = a != NULL ? a->ints[i] : x.rank - 1 - i;
        if (axis < 0 || axis >= x.rank || seen[axis])
            return nas_fail(m->ctx, NAS_ERR_INVALID, "perm is no permutation");
        seen[axis] = true;
        perm[i] = (int32_t)axis;
    }
    if (x.kind == NAS__ONNX_CONST) return transpose_const(m, n, &x, perm);
    static const int32_t shuffle[5] = {0, 2, 1, 3, 4};
    if (x.kind == NAS__ONNX_GROUPED && memcmp(perm, shuffle, sizeof shuffle) == 0) {
        const int64_t groups = x.dims[1];
        x.kind = NAS__ONNX_SHUFFLED;
        x.dims[1] = x.dims[2];
        x.dims[2] = groups;
        return nas__onnx_output(m, n, x);
    }
    const nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status != NAS_OK) return status;
    if (x.rank != 4) return nas__onnx_unsupported(m, "rank other than 4");
    nas_node proto = {.op = NAS_OP_TRANSPOSE, .n_inputs = 1, .inputs = {x.v}};
    for (int32_t i = 0; i < 4; i++)
        proto.perm[i] = ir_axis[perm[onnx_axis[i]]];
    return nas__onnx_emit(m, n, &proto, 4);
}

/* ---- concatenation, slices, padding ---------------------------------------------------------------------------------- */

static nas_status concat_consts(nas__onnx *m, const nas__onnx_node *n) {
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

static nas_status import_concat(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    bool all_const = true;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *x = nas__onnx_input(m, n, i);
        if (x == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu is missing", i);
        all_const = all_const && x->kind == NAS__ONNX_CONST;
    }
    if (all_const) return concat_consts(m, n);
    nas_node proto = {.op = NAS_OP_CONCAT};
    int32_t rank = 0, axis = 0;
    for (size_t i = 0; i < n->n_input; i++) {
        nas__onnx_value x;
        nas_status status = nas__onnx_plain(m, n, i, &x);
        if (status != NAS_OK) return status;
        if (i > 0 && x.rank != rank) return nas__onnx_unsupported(m, "operands of different rank");
        rank = x.rank;
        if (proto.n_inputs == NAS_NODE_INPUTS_MAX) { /* a long list in parts */
            nas_value v = NAS_VALUE_NONE;
            status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 1), rank, &axis);
            proto.axis = ir_axis[axis];
            if (status == NAS_OK) status = nas__onnx_add(m, n, "_part", &proto, &v);
            if (status != NAS_OK) return status;
            proto = (nas_node){.op = NAS_OP_CONCAT, .n_inputs = 1, .inputs = {v}};
        }
        proto.inputs[proto.n_inputs++] = x.v;
    }
    const nas_status status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 1), rank, &axis);
    proto.axis = ir_axis[axis];
    return status == NAS_OK ? nas__onnx_emit(m, n, &proto, rank) : status;
}

static void whole(nas_shape s, nas_node *slice) {
    const int32_t extents[4] = {s.n, s.h, s.w, s.c};
    for (int32_t i = 0; i < 4; i++) {
        slice->begin[i] = 0;
        slice->end[i] = extents[i];
    }
}

/* Part sizes of Split: input, attribute, num_outputs, or equal. */
static nas_status split_sizes(nas__onnx *m, const nas__onnx_node *n, int64_t extent,
                              int64_t sizes[2 * NAS__ONNX_RANK_MAX]) {
    int32_t count = 0;
    if (n->n_output > 2 * NAS__ONNX_RANK_MAX)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "%zu outputs, at most 16", n->n_output);
    nas_status status = nas__onnx_int_list(m, n, "split", 1, sizes, &count);
    if (status != NAS_OK) return status;
    const int64_t parts = (int64_t)n->n_output;
    if (count >= 0 && count != parts)
        return nas_fail(m->ctx, NAS_ERR_PARSE, "%" PRId32 " sizes for %" PRId64 " outputs", count,
                        parts);
    int64_t sum = 0;
    const int64_t each = (extent + parts - 1) / parts;
    for (int64_t i = 0; i < parts; i++) {
        if (count < 0) sizes[i] = i + 1 < parts ? each : extent - each * (parts - 1);
        if (sizes[i] < 1 || sizes[i] > extent - sum)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "part %" PRId64 " of an extent of %" PRId64, i,
                            extent);
        sum += sizes[i];
    }
    return sum == extent ? NAS_OK : nas_fail(m->ctx, NAS_ERR_SHAPE, "the parts do not add up");
}

static nas_status import_split(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    int64_t sizes[2 * NAS__ONNX_RANK_MAX];
    int32_t axis = 0, at = 0;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK)
        status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 0), x.rank, &axis);
    if (status == NAS_OK) status = split_sizes(m, n, x.dims[axis], sizes);
    for (size_t i = 0; i < n->n_output && status == NAS_OK; i++) {
        nas_node proto = {.op = NAS_OP_SLICE, .n_inputs = 1, .inputs = {x.v}};
        whole(nas_graph_node(m->g, x.v)->shape, &proto);
        proto.begin[ir_axis[axis]] = at;
        at += (int32_t)sizes[i];
        proto.end[ir_axis[axis]] = at;
        if (n->output[i][0] == '\0') continue;
        nas__onnx_node one = *n; /* named for its own output */
        one.output = n->output + i;
        status = nas__onnx_emit(m, &one, &proto, x.rank);
    }
    return status;
}

/* A start or end of Slice: negative ones count from the end, all are clamped. */
static int64_t slice_bound(int64_t x, int64_t extent) {
    if (x < 0) x = x < -extent ? 0 : x + extent;
    return x > extent ? extent : x;
}

static nas_status slice_const(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                              int64_t begin, int64_t end) {
    nas__onnx_value c;
    const nas_status status =
        nas__onnx_new_const(m, nas__onnx_is_int(x), (size_t)(end - begin), &c);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        if (nas__onnx_is_int(x)) {
            ((int64_t *)data)[i] = nas__onnx_int_at(x, (size_t)begin + i);
        } else {
            ((double *)data)[i] = nas__onnx_at(x, (size_t)begin + i);
        }
    }
    return nas__onnx_output(m, n, c);
}

static nas_status import_slice(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *found = nas__onnx_input(m, n, 0);
    const bool is_const = found->kind == NAS__ONNX_CONST;
    nas__onnx_value x = *found;
    int64_t starts[2 * NAS__ONNX_RANK_MAX], ends[2 * NAS__ONNX_RANK_MAX];
    int64_t axes[2 * NAS__ONNX_RANK_MAX], steps[2 * NAS__ONNX_RANK_MAX];
    int32_t n_starts = 0, n_ends = 0, n_axes = 0, n_steps = 0;
    nas_status status = is_const ? NAS_OK : nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "starts", 1, starts, &n_starts);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "ends", 2, ends, &n_ends);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "axes", 3, axes, &n_axes);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "steps", 4, steps, &n_steps);
    if (status != NAS_OK) return status;
    if (n_starts < 0 || n_starts != n_ends || n_starts > x.rank ||
        (n_axes >= 0 && n_axes != n_starts) || (n_steps >= 0 && n_steps != n_starts))
        return nas_fail(m->ctx, NAS_ERR_PARSE, "starts, ends, axes and steps of different length");
    if (is_const && (x.rank != 1 || n_starts != 1))
        return nas__onnx_unsupported(m, "a slice of a constant of rank above 1");
    nas_node proto = {.op = NAS_OP_SLICE, .n_inputs = 1, .inputs = {x.v}};
    if (!is_const) whole(nas_graph_node(m->g, x.v)->shape, &proto);
    int32_t stride[4] = {1, 1, 1, 1}; /* n, h, w, c */
    bool cuts = false;
    for (int32_t i = 0; i < n_starts; i++) {
        int32_t axis = 0;
        status = nas__onnx_axis(m, n_axes >= 0 ? axes[i] : i, x.rank, &axis);
        if (status != NAS_OK) return status;
        const int64_t step = n_steps >= 0 ? steps[i] : 1;
        if (step < 1 || step > 1 << 20 || (step > 1 && (is_const || axis < 2)))
            return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "a step of %" PRId64 " on axis %" PRId32,
                            step, axis);
        const int64_t extent = x.dims[axis];
        const int64_t begin = slice_bound(starts[i], extent);
        const int64_t end = slice_bound(ends[i], extent);
        if (begin >= end)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "an empty slice of axis %" PRId32, axis);
        if (is_const) return slice_const(m, n, &x, begin, end);
        proto.begin[ir_axis[axis]] = (int32_t)begin;
        proto.end[ir_axis[axis]] = (int32_t)end;
        stride[ir_axis[axis]] = (int32_t)step;
        cuts = cuts || begin > 0 || end < extent;
    }
    const bool steps_over = stride[1] > 1 || stride[2] > 1;
    nas_value v = x.v;
    if (cuts) status = nas__onnx_add(m, n, steps_over ? "_cut" : "", &proto, &v);
    if (status == NAS_OK && steps_over) { /* every s-th pixel: a pool of one tap */
        const nas_node pool = {
            .op = NAS_OP_MAX_POOL,
            .n_inputs = 1,
            .inputs = {v},
            .pool = {.kernel_h = 1, .kernel_w = 1, .stride_h = stride[1], .stride_w = stride[2]}};
        status = nas__onnx_add(m, n, "", &pool, &v);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, nas__onnx_plain_value(m, v, x.rank)) : status;
}

static nas_status import_pad(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    int64_t pads[2 * NAS__ONNX_RANK_MAX];
    int32_t count = 0;
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK)
        status = nas__onnx_int_list(
            m, n, nas__onnx_attribute(n, "pads") != NULL ? "pads" : "paddings", 1, pads, &count);
    if (status != NAS_OK) return status;
    if (!nas__onnx_attr_is(n, "mode", "constant", true) || nas__onnx_input(m, n, 3) != NULL)
        return nas__onnx_unsupported(m, "a mode other than constant, or axes");
    if (count != 2 * x.rank) return nas_fail(m->ctx, NAS_ERR_PARSE, "%" PRId32 " pads", count);
    nas_node proto = {.op = NAS_OP_PAD,
                      .n_inputs = 1,
                      .inputs = {x.v},
                      .scalar = nas__onnx_attr_float(n, "value", 0)};
    const nas__onnx_value *value = nas__onnx_input(m, n, 2);
    if (value != NULL && (value->kind != NAS__ONNX_CONST || value->count != 1))
        return nas__onnx_unsupported(m, "a value that is not one constant");
    if (value != NULL) proto.scalar = (float)nas__onnx_at(value, 0);
    for (int32_t i = 0; i < count; i++) {
        if (pads[i] < 0 || pads[i] > 1 << 20)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "a pad of %" PRId64, pads[i]);
        int32_t *side = i < x.rank ? proto.begin : proto.end;
        side[ir_axis[i % x.rank]] = (int32_t)pads[i];
    }
    return nas__onnx_emit(m, n, &proto, x.rank);
}

/* ---- pixels -------------------------------------------------------------------------------------------------------- */

static nas_status import_depth_to_space(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    const nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status != NAS_OK) return status;
    const int64_t r = nas__onnx_attr_int(n, "blocksize", 0);
    const bool crd = nas__onnx_attr_is(n, "mode", "CRD", false);
    if (x.rank != 4 || r < 1 || r > 1024)
        return nas_fail(m->ctx, NAS_ERR_RANGE, "blocksize %" PRId64, r);
    if (!crd && !nas__onnx_attr_is(n, "mode", "DCR", true))
        return nas__onnx_unsupported(m, "unknown mode");
    nas_value v = x.v;
    if (!crd && x.dims[1] % (r * r) == 0 && x.dims[1] > r * r) {
        /* DCR numbers the channels (i, j, c), ours (c, i, j): that is a shuffle. */
        const nas_node shuffle = {
            .op = NAS_OP_CHANNEL_SHUFFLE, .n_inputs = 1, .inputs = {v}, .block = (int32_t)(r * r)};
        const nas_status added = nas__onnx_add(m, n, "_order", &shuffle, &v);
        if (added != NAS_OK) return added;
    }
    const nas_node proto = {
        .op = NAS_OP_DEPTH_TO_SPACE, .n_inputs = 1, .inputs = {v}, .block = (int32_t)r};
    return nas__onnx_emit(m, n, &proto, 4);
}

static nas_status resize_mode(nas__onnx *m, const nas__onnx_node *n, bool upsample,
                              const int64_t in[2], const int64_t out[2], nas_resize_mode *mode) {
    const char *key = "coordinate_transformation_mode";
    const bool plain = upsample || m->opset < 11;
    const bool asymmetric = plain || nas__onnx_attr_is(n, key, "asymmetric", false);
    const bool corners = !plain && nas__onnx_attr_is(n, key, "align_corners", false);
    const bool half =
        !plain &&
        (nas__onnx_attr_is(n, key, "half_pixel", true) ||
         (nas__onnx_attr_is(n, key, "pytorch_half_pixel", false) && out[0] > 1 && out[1] > 1));
    if (nas__onnx_attr_is(n, "mode", "linear", false) ||
        nas__onnx_attr_is(n, "mode", "bilinear", false)) {
        if (!asymmetric && !corners && !half)
            return nas__onnx_unsupported(m, "this coordinate_transformation_mode");
        *mode = asymmetric ? NAS_RESIZE_BILINEAR_ASYMMETRIC
                : corners  ? NAS_RESIZE_BILINEAR_ALIGN_CORNERS
                           : NAS_RESIZE_BILINEAR_HALF_PIXEL;
        return nas__onnx_attr_int(n, "antialias", 0) == 0 ? NAS_OK
                                                          : nas__onnx_unsupported(m, "antialias");
    }
    if (!nas__onnx_attr_is(n, "mode", "nearest", true))
        return nas__onnx_unsupported(m, "a mode other than nearest and linear");
    /* Enlarging by whole factors at pixel centres: every way of rounding finds the same pixel. */
    const bool whole_factor = out[0] % in[0] == 0 && out[1] % in[1] == 0;
    const bool floors = plain || nas__onnx_attr_is(n, "nearest_mode", "floor", false);
    const bool rounds = nas__onnx_attr_is(n, "nearest_mode", "round_prefer_floor", true);
    if (asymmetric && floors) {
        *mode = NAS_RESIZE_NEAREST_ASYMMETRIC;
    } else if (half &&
               (rounds || (whole_factor &&
                           nas__onnx_attr_is(n, "nearest_mode", "round_prefer_ceil", false)))) {
        *mode = NAS_RESIZE_NEAREST_HALF_PIXEL;
    } else {
        return nas__onnx_unsupported(m, "this coordinate_transformation_mode and nearest_mode");
    }
    return NAS_OK;
}

/* Output extents from sizes, scales or, in the oldest files, height_scale and width_scale. */
static nas_status resize_extents(nas__onnx *m, const nas__onnx_node *n, bool upsample,
                                 const nas__onnx_value *x, int64_t out[2]) {
    double scales[4] = {1, 1, 1, 1};
    const size_t at = upsample || m->opset < 11 ? 1 : 2;
    const nas__onnx_value *s = nas__onnx_input(m, n, at);
    const nas__onnx_value *sizes = upsample ? NULL : nas__onnx_input(m, n, 3);
    const Onnx__AttributeProto *a = nas__onnx_attribute(n, "scales");
    if ((s != NULL && s->kind != NAS__ONNX_CONST) ||
        (sizes != NULL && sizes->kind != NAS__ONNX_CONST))
        return nas__onnx_unsupported(m, "scales or sizes that are computed while the network runs");
    const bool has_scales = s != NULL && s->count > 0;
    if (has_scales      ? s->count != 4
        : sizes != NULL ? sizes->count != 4
                        : a != NULL && a->n_floats != 4)
        return nas__onnx_unsupported(m, "scales or sizes of other than 4 axes");
    for (size_t i = 0; i < 4; i++) {
        if (has_scales) {
            scales[i] = nas__onnx_at(s, i);
        } else if (sizes != NULL) {
            scales[i] = (double)nas__onnx_int_at(sizes, i) / (double)x->dims[i];
        } else if (a != NULL) {
            scales[i] = (double)a->floats[i];
        }
    }
    if (!has_scales && sizes == NULL && a == NULL) {
        scales[2] = (double)nas__onnx_attr_float(n, "height_scale", 0);
        scales[3] = (double)nas__onnx_attr_float(n, "width_scale", 0);
    }
    if (!(fabs(scales[0] - 1) < 1e-9) || !(fabs(scales[1] - 1) < 1e-9))
        return nas__onnx_unsupported(m, "a change of batch or channels");
    for (size_t i = 0; i < 2; i++) {
        const double extent = sizes != NULL && !has_scales
                                  ? (double)nas__onnx_int_at(sizes, i + 2)
                                  : floor((double)x->dims[i + 2] * scales[i + 2] + 1e-6);
        if (!(extent >= 1 && extent <= 1 << 20))
            return nas_fail(m->ctx, NAS_ERR_RANGE, "an output extent of %g", extent);
        out[i] = (int64_t)extent;
        /* The coordinates of ONNX follow the scale, ours the extents: they must say the same. */
        if (fabs((double)x->dims[i + 2] * scales[i + 2] - extent) > 1e-3)
            return nas__onnx_unsupported(m, "a scale that does not give a whole extent");
    }
    return NAS_OK;
}

static nas_status import_resize(nas__onnx *m, const nas__onnx_node *n, int32_t upsample) {
    nas__onnx_value x;
    int64_t out[2] = {0, 0};
    nas_status status = nas__onnx_plain(m, n, 0, &x);
    if (status == NAS_OK && x.rank != 4) status = nas__onnx_unsupported(m, "rank other than 4");
    if (status == NAS_OK) status = resize_extents(m, n, upsample != 0, &x, out);
    if (status != NAS_OK) return status;
    nas_node proto = {.op = NAS_OP_RESIZE, .n_inputs = 1, .inputs = {x.v}};
    status = resize_mode(m, n, upsample != 0, x.dims + 2, out, &proto.resize);
    if (status != NAS_OK) return status;
    proto.shape = nas_graph_node(m->g, x.v)->shape;
    proto.shape.h = (int32_t)out[0];
    proto.shape.w = (int32_t)out[1];
    return nas__onnx_emit(m, n, &proto, 4);
}

/* ---- constants ------------------------------------------------------------------------------------------------------ */

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
    status = count_of(m, dims, rank, &count);
    if (status == NAS_OK && count > 1 << 28)
        status = nas_fail(m->ctx, NAS_ERR_RANGE, "a constant of %" PRId64 " elements", count);
    if (status != NAS_OK) return status;
    set_dims(&c, dims, rank);
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

static nas_status import_gather(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0), *index = nas__onnx_input(m, n, 1);
    if (x->kind != NAS__ONNX_CONST || index->kind != NAS__ONNX_CONST || x->rank != 1 ||
        index->rank > 1 || !nas__onnx_is_int(x))
        return nas__onnx_unsupported(m, "anything but numbers of a constant list");
    nas__onnx_value c;
    const nas_status status = nas__onnx_new_const(m, true, index->count, &c);
    if (status != NAS_OK) return status;
    int64_t *to = (int64_t *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        int64_t k = nas__onnx_int_at(index, i);
        const int64_t len = (int64_t)x->count;
        if (k < -len || k >= len)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "index %" PRId64 " of %" PRId64, k, len);
        to[i] = nas__onnx_int_at(x, (size_t)(k < 0 ? k + len : k));
    }
    c.rank = index->rank;
    return nas__onnx_output(m, n, c);
}

const nas__onnx_operator *nas__onnx_find_shape_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Reshape", 1, import_reshape, 0},
        {"Flatten", 1, import_flatten, 0},
        {"Squeeze", 1, import_squeeze, 0},
        {"Unsqueeze", 1, import_unsqueeze, 0},
        {"Identity", 1, import_same, 0},
        {"Dropout", 1, import_same, 1},
        {"Cast", 1, import_cast, 0},
        {"Transpose", 1, import_transpose, 0},
        {"Concat", 1, import_concat, 0},
        {"Split", 1, import_split, 0},
        {"Slice", 1, import_slice, 0},
        {"Pad", 1, import_pad, 0},
        {"DepthToSpace", 1, import_depth_to_space, 0},
        {"Resize", 1, import_resize, 0},
        {"Upsample", 1, import_resize, 1},
        {"Constant", 0, import_constant, 0},
        {"ConstantOfShape", 1, import_constant_of_shape, 0},
        {"Shape", 1, import_shape, 0},
        {"Gather", 2, import_gather, 0},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
