/* onnx_import_move.c - ONNX operators that move elements: reshapes, slices, concatenations, resizes. Most of them change
 * the layout of a value and nothing else. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <math.h>
#include <string.h>

/* ---- reshapes ------------------------------------------------------------------------------------------------------ */

static nas_status reshape_to(nas__onnx *m, const nas__onnx_node *n, const int64_t *dims,
                             int32_t rank) {
    nas__onnx_value x = *nas__onnx_input(m, n, 0);
    int64_t from = 0, to = 0;
    nas_status status = nas__onnx_count(m, x.dims, x.rank, &from);
    if (status == NAS_OK) status = nas__onnx_count(m, dims, rank, &to);
    if (status != NAS_OK) return status;
    if (from != to || to == 0)
        return nas_fail(m->ctx, NAS_ERR_SHAPE, "%" PRId64 " elements to %" PRId64, from, to);
    if (x.kind == NAS__ONNX_CONST) {
        nas__onnx_set_dims(&x, dims, rank);
    } else {
        status = nas__onnx_regroup(m, n, &x, dims, rank);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

static nas_status import_reshape(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    const nas__onnx_value *x = nas__onnx_input(m, n, 0);
    int64_t dims[2 * NAS__ONNX_RANK_MAX], total = 0, known = 1;
    int32_t rank = 0, open = -1;
    nas_status status = nas__onnx_int_list(m, n, "shape", 1, dims, &rank);
    if (status == NAS_OK) status = nas__onnx_count(m, x->dims, x->rank, &total);
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
    nas_status status = nas__onnx_count(m, x->dims, (int32_t)axis, &dims[0]);
    if (status == NAS_OK)
        status = nas__onnx_count(m, x->dims + axis, x->rank - (int32_t)axis, &dims[1]);
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

/* ---- transpose ----------------------------------------------------------------------------------------------------- */

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
    nas_status status = NAS_OK;
    if (x.kind == NAS__ONNX_CONST) {
        size_t step[NAS__ONNX_RANK_MAX] = {0}, moved[NAS__ONNX_RANK_MAX] = {0};
        int64_t dims[NAS__ONNX_RANK_MAX] = {0};
        nas__onnx_steps(&x, step);
        for (int32_t i = 0; i < x.rank; i++) {
            dims[i] = x.dims[perm[i]];
            moved[i] = step[perm[i]];
        }
        status = nas__onnx_reindex(m, &x, dims, x.rank, moved, 0, &x);
    } else {
        status = nas__onnx_permute(m, n, &x, perm);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* ---- parts of axes ------------------------------------------------------------------------------------------------- */

/* The IR axis of ONNX axis `axis` of x, when a range of it is a range of that one: it is alone there, or outermost.
 * `inner`: elements of the IR axis to one of the ONNX axis. */
static bool range_axis(const nas__onnx_value *x, int32_t axis, int32_t *ir, int32_t *inner) {
    int32_t first = 0, count = 0;
    nas__onnx_span(x, axis, &first, &count);
    if (count != 1 || x->layout.f[first].place != 0) return false;
    *ir = x->layout.f[first].axis;
    *inner = 1;
    for (int32_t k = 0; k < x->layout.n; k++) {
        if (k != first && x->layout.f[k].axis == *ir) *inner *= x->layout.f[k].extent;
    }
    return true;
}

static void whole(nas_shape s, nas_node *slice) {
    const int32_t extents[4] = {s.n, s.h, s.w, s.c};
    for (int32_t i = 0; i < 4; i++) {
        slice->begin[i] = 0;
        slice->end[i] = extents[i];
    }
}

/* Ranges of the axes of x, in one SLICE where they are ranges of different IR axes. */
static nas_status cut(nas__onnx *m, const nas__onnx_node *n, const char *suffix, nas__onnx_value *x,
                      const int64_t *begin, const int64_t *end) {
    nas_node proto = {.op = NAS_OP_SLICE, .n_inputs = 1, .inputs = {x->v}};
    nas_status status = NAS_OK;
    bool pending[4] = {false}, any = false;
    whole(x->layout.shape, &proto);
    nas__onnx_value y = *x;
    for (int32_t i = 0; i < x->rank && status == NAS_OK; i++) {
        int32_t ir = 2, inner = 1;
        if (begin[i] == 0 && end[i] == x->dims[i]) continue;
        const bool fits = range_axis(&y, i, &ir, &inner);
        if (any && (!fits || pending[ir])) {
            status = nas__onnx_add(m, n, "_part", &proto, &y.v);
            memset(pending, 0, sizeof pending);
        }
        if (!fits && status == NAS_OK) {
            const nas__onnx_axes axes = nas__onnx_around(m, y.dims, y.rank, i);
            status = nas__onnx_arrange_axes(m, n, &y, &axes);
            ir = 2;
            inner = 1;
        }
        if (status != NAS_OK) break;
        if (proto.inputs[0] != y.v) whole(y.layout.shape, &proto);
        proto.inputs[0] = y.v;
        proto.begin[ir] = (int32_t)begin[i] * inner;
        proto.end[ir] = (int32_t)end[i] * inner;
        nas__onnx_set_axis(&y, i, ir, end[i] - begin[i]);
        pending[ir] = any = true;
    }
    if (status == NAS_OK && any) status = nas__onnx_add(m, n, suffix, &proto, &y.v);
    if (status == NAS_OK) *x = y;
    return status;
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
    int64_t sizes[2 * NAS__ONNX_RANK_MAX] = {0};
    int64_t begin[NAS__ONNX_RANK_MAX] = {0}, end[NAS__ONNX_RANK_MAX], at = 0;
    int32_t axis = 0, ir = 0, inner = 0;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK)
        status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 0), x.rank, &axis);
    if (status == NAS_OK) status = split_sizes(m, n, x.dims[axis], sizes);
    if (status != NAS_OK) return status;
    if (n->n_output > 1 && !range_axis(&x, axis, &ir, &inner)) {
        const nas__onnx_axes axes = nas__onnx_around(m, x.dims, x.rank, axis);
        status = nas__onnx_arrange_axes(m, n, &x, &axes); /* once for all parts */
    }
    memcpy(end, x.dims, sizeof end);
    for (size_t i = 0; i < n->n_output && status == NAS_OK; i++) {
        nas__onnx_value y = x;
        nas__onnx_node one = *n; /* named for its own output */
        one.output = n->output + i;
        begin[axis] = at;
        at += sizes[i];
        end[axis] = at;
        if (n->output[i][0] == '\0') continue;
        status = cut(m, &one, "", &y, begin, end);
        if (status == NAS_OK) status = nas__onnx_output(m, &one, y);
    }
    return status;
}

/* A start or end of Slice: negative ones count from the end, all are clamped. */
static int64_t slice_bound(int64_t x, int64_t extent) {
    if (x < 0) x = x < -extent ? 0 : x + extent;
    return x > extent ? extent : x;
}

/* What Slice says of each axis of x; all of it where it says nothing. */
static nas_status slice_ranges(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                               int64_t begin[NAS__ONNX_RANK_MAX], int64_t end[NAS__ONNX_RANK_MAX],
                               int64_t step[NAS__ONNX_RANK_MAX]) {
    int64_t starts[2 * NAS__ONNX_RANK_MAX], ends[2 * NAS__ONNX_RANK_MAX];
    int64_t axes[2 * NAS__ONNX_RANK_MAX], steps[2 * NAS__ONNX_RANK_MAX];
    int32_t n_starts = 0, n_ends = 0, n_axes = 0, n_steps = 0;
    nas_status status = nas__onnx_int_list(m, n, "starts", 1, starts, &n_starts);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "ends", 2, ends, &n_ends);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "axes", 3, axes, &n_axes);
    if (status == NAS_OK) status = nas__onnx_int_list(m, n, "steps", 4, steps, &n_steps);
    if (status != NAS_OK) return status;
    if (n_starts < 0 || n_starts != n_ends || n_starts > x->rank ||
        (n_axes >= 0 && n_axes != n_starts) || (n_steps >= 0 && n_steps != n_starts))
        return nas_fail(m->ctx, NAS_ERR_PARSE, "starts, ends, axes and steps of different length");
    for (int32_t i = 0; i < x->rank; i++) {
        begin[i] = 0;
        end[i] = x->dims[i];
        step[i] = 1;
    }
    for (int32_t i = 0; i < n_starts; i++) {
        int32_t axis = 0;
        status = nas__onnx_axis(m, n_axes >= 0 ? axes[i] : i, x->rank, &axis);
        if (status != NAS_OK) return status;
        step[axis] = n_steps >= 0 ? steps[i] : 1;
        if (step[axis] < 1 || step[axis] > 1 << 20)
            return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "a step of %" PRId64 " on axis %" PRId32,
                            step[axis], axis);
        begin[axis] = slice_bound(starts[i], x->dims[axis]);
        end[axis] = slice_bound(ends[i], x->dims[axis]);
        if (begin[axis] >= end[axis])
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "an empty slice of axis %" PRId32, axis);
    }
    return NAS_OK;
}

/* Does every stepped axis fill h or w? */
static bool steps_in_place(const nas__onnx_value *x, const int64_t *step, int32_t strides[4]) {
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t ir = 0, inner = 0;
        if (step[i] == 1 || x->dims[i] == 1) continue;
        if (!range_axis(x, i, &ir, &inner) || inner != 1 || (ir != 1 && ir != 2)) return false;
        strides[ir] = (int32_t)step[i];
    }
    return true;
}

/* Every step-th element of axes: a pool of one tap. */
static nas_status stride(nas__onnx *m, const nas__onnx_node *n, const int64_t *step,
                         nas__onnx_value *x) {
    int32_t strides[4] = {1, 1, 1, 1};
    nas_status status = NAS_OK;
    if (!steps_in_place(x, step, strides)) { /* one after the other */
        int32_t stepped = 0, first = 0;
        int64_t one[NAS__ONNX_RANK_MAX], rest[NAS__ONNX_RANK_MAX];
        for (int32_t i = x->rank; i-- > 0;) {
            one[i] = 1;
            rest[i] = step[i];
            if (step[i] == 1 || x->dims[i] == 1) continue;
            first = i;
            stepped++;
        }
        one[first] = step[first];
        rest[first] = 1;
        const nas__onnx_axes axes = nas__onnx_around(m, x->dims, x->rank, first);
        status = nas__onnx_arrange_axes(m, n, x, &axes);
        if (status == NAS_OK) status = stride(m, n, one, x);
        return status == NAS_OK && stepped > 1 ? stride(m, n, rest, x) : status;
    }
    const nas_node pool = {
        .op = NAS_OP_MAX_POOL,
        .n_inputs = 1,
        .inputs = {x->v},
        .pool = {.kernel_h = 1, .kernel_w = 1, .stride_h = strides[1], .stride_w = strides[2]}};
    if (strides[1] == 1 && strides[2] == 1) return NAS_OK;
    status = nas__onnx_add(m, n, "", &pool, &x->v);
    for (int32_t i = 0; i < x->rank && status == NAS_OK; i++) {
        int32_t ir = 0, inner = 0;
        if (step[i] > 1 && x->dims[i] > 1 && range_axis(x, i, &ir, &inner))
            nas__onnx_set_axis(x, i, ir, (x->dims[i] + step[i] - 1) / step[i]);
    }
    return status;
}

static nas_status import_slice(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x = *nas__onnx_input(m, n, 0);
    int64_t begin[NAS__ONNX_RANK_MAX], end[NAS__ONNX_RANK_MAX], step[NAS__ONNX_RANK_MAX];
    bool steps = false;
    nas_status status = slice_ranges(m, n, &x, begin, end, step);
    for (int32_t i = 0; i < x.rank && status == NAS_OK; i++)
        steps = steps || step[i] > 1;
    if (status == NAS_OK && x.kind == NAS__ONNX_CONST) {
        size_t by[NAS__ONNX_RANK_MAX] = {0}, from = 0;
        int64_t dims[NAS__ONNX_RANK_MAX] = {0};
        nas__onnx_steps(&x, by);
        for (int32_t i = 0; i < x.rank; i++) {
            from += (size_t)begin[i] * by[i];
            dims[i] = (end[i] - begin[i] + step[i] - 1) / step[i];
            by[i] *= (size_t)step[i];
        }
        status = nas__onnx_reindex(m, &x, dims, x.rank, by, from, &x);
    } else if (status == NAS_OK) {
        status = cut(m, n, steps ? "_cut" : "", &x, begin, end);
        if (status == NAS_OK && steps) status = stride(m, n, step, &x);
    }
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* Where Gather looks; indices of the file count from 0. */
static nas_status read_index(nas__onnx *m, const nas__onnx_node *n, int64_t extent,
                             nas__onnx_value *out) {
    const nas__onnx_value *index = NULL;
    nas__onnx_value c;
    nas_status status = nas__onnx_need_const(m, n, 1, "the index", &index);
    if (status != NAS_OK) return status;
    if (index->count < 1) return nas__onnx_unsupported(m, "an empty index");
    status = nas__onnx_new_const(m, true, index->count, &c);
    if (status != NAS_OK) return status;
    int64_t *at = (int64_t *)(uintptr_t)c.data; /* fresh, ours */
    for (size_t i = 0; i < c.count; i++) {
        const int64_t k = nas__onnx_int_at(index, i);
        if (k < -extent || k >= extent)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "index %" PRId64 " of %" PRId64, k, extent);
        at[i] = k < 0 ? k + extent : k;
    }
    nas__onnx_set_dims(&c, index->dims, index->rank);
    *out = c;
    return NAS_OK;
}

/* Of a constant any elements: it may be the table of a position bias. */
static nas_status gather_const(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                               int32_t axis, const nas__onnx_value *index, const int64_t *dims,
                               int32_t rank) {
    nas__onnx_value c;
    int64_t count = 0, outer = 0, inner = 0;
    nas_status status = nas__onnx_count(m, dims, rank, &count);
    if (status == NAS_OK) status = nas__onnx_count(m, x->dims, axis, &outer);
    if (status == NAS_OK)
        status = nas__onnx_count(m, x->dims + axis + 1, x->rank - axis - 1, &inner);
    const bool is_int = nas__onnx_is_int(x);
    if (status == NAS_OK) status = nas__onnx_new_const(m, is_int, (size_t)count, &c);
    if (status != NAS_OK) return status;
    void *data = (void *)(uintptr_t)c.data; /* fresh, ours */
    const size_t len = index->count, extent = (size_t)x->dims[axis], run = (size_t)inner;
    for (size_t i = 0; i < c.count; i++) {
        const size_t k = (size_t)nas__onnx_int_at(index, i / run % len);
        const size_t from = (i / (run * len) * extent + k) * run + i % run;
        if (is_int) {
            ((int64_t *)data)[i] = nas__onnx_int_at(x, from);
        } else {
            ((double *)data)[i] = nas__onnx_at(x, from);
        }
    }
    nas__onnx_set_dims(&c, dims, rank);
    return nas__onnx_output(m, n, c);
}

/* Gather of one element drops the axis, of a list of numbers in a row it is a slice. */
static nas_status import_gather(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x = *nas__onnx_input(m, n, 0), index;
    int32_t axis = 0;
    nas_status status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 0), x.rank, &axis);
    if (status == NAS_OK) status = read_index(m, n, x.dims[axis], &index);
    if (status != NAS_OK) return status;
    const int32_t rank = x.rank - 1 + index.rank;
    int64_t dims[2 * NAS__ONNX_RANK_MAX] = {0};
    for (int32_t i = 0; i < rank; i++)
        dims[i] = i < axis                ? x.dims[i]
                  : i < axis + index.rank ? index.dims[i - axis]
                                          : x.dims[i - index.rank + 1];
    if (rank > NAS__ONNX_RANK_MAX) return nas__onnx_unsupported(m, "a rank above 8");
    if (x.kind == NAS__ONNX_CONST) return gather_const(m, n, &x, axis, &index, dims, rank);
    const int64_t first = nas__onnx_int_at(&index, 0), len = (int64_t)index.count;
    if (index.rank > 1) return nas__onnx_unsupported(m, "an index of rank above 1");
    for (int64_t i = 0; i < len; i++) {
        if (nas__onnx_int_at(&index, (size_t)i) != first + i)
            return nas__onnx_unsupported(m, "indices that are not in a row");
    }
    int64_t begin[NAS__ONNX_RANK_MAX] = {0}, end[NAS__ONNX_RANK_MAX];
    memcpy(end, x.dims, sizeof end);
    begin[axis] = first;
    end[axis] = first + len;
    status = cut(m, n, "", &x, begin, end);
    nas__onnx_set_dims(&x, dims, rank); /* what is dropped has extent 1: no factor */
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
}

/* ---- concatenation, padding ---------------------------------------------------------------------------------------- */

/* Is ONNX axis `axis` alone in its IR axis? */
static bool alone(const nas__onnx_value *x, const nas__onnx_axes *axes, int32_t axis) {
    for (int32_t i = 0; i < x->rank; i++) {
        if (i != axis && x->dims[i] > 1 && axes->of[i] == axes->of[axis]) return false;
    }
    return axes->of[axis] >= 0;
}

/* The largest operand tells the layout of all; without its axis `axis`, which each has of its own extent. */
static nas_status concat_axes(nas__onnx *m, const nas__onnx_node *n, int32_t axis,
                              nas__onnx_axes *axes) {
    const nas__onnx_value *most = NULL;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *x = nas__onnx_input(m, n, i);
        if (x->kind == NAS__ONNX_VALUE && (most == NULL || x->dims[axis] > most->dims[axis]))
            most = x;
    }
    if (most == NULL) return nas__onnx_unsupported(m, "constants alone");
    if (!nas__onnx_axes_of(m, most, axes) || !alone(most, axes, axis))
        *axes = nas__onnx_around(m, most->dims, most->rank, axis);
    if (axes->of[axis] == 0 && most->rank != 4) /* stacked: n is for the batch alone */
        *axes = nas__onnx_around(m, most->dims, most->rank, axis);
    for (int32_t i = 0; i < most->rank; i++)
        axes->of[i] = axes->of[i] < 0 ? 0 : axes->of[i]; /* of extent 1 */
    return NAS_OK;
}

static nas_status check_members(nas__onnx *m, const nas__onnx_node *n, int32_t axis) {
    const nas__onnx_value *first = nas__onnx_input(m, n, 0);
    int64_t sum = 0;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *x = nas__onnx_input(m, n, i);
        if (x->rank != first->rank)
            return nas_fail(m->ctx, NAS_ERR_SHAPE, "operands of rank %" PRId32 " and %" PRId32,
                            first->rank, x->rank);
        for (int32_t k = 0; k < x->rank; k++) {
            if (x->dims[k] < 1 || (k != axis && x->dims[k] != first->dims[k]))
                return nas_fail(m->ctx, NAS_ERR_SHAPE,
                                "input %zu has extent %" PRId64 " on axis %" PRId32, i, x->dims[k],
                                k);
        }
        sum += x->dims[axis];
        if (sum > INT32_MAX) return nas_fail(m->ctx, NAS_ERR_RANGE, "extent %" PRId64, sum);
    }
    return NAS_OK;
}

static nas_status import_concat(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    bool all_const = true;
    for (size_t i = 0; i < n->n_input; i++) {
        const nas__onnx_value *x = nas__onnx_input(m, n, i);
        if (x == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu is missing", i);
        all_const = all_const && x->kind == NAS__ONNX_CONST;
    }
    if (all_const) return nas__onnx_concat_consts(m, n);
    nas__onnx_axes axes;
    int32_t axis = 0;
    const int32_t rank = nas__onnx_input(m, n, 0)->rank;
    nas_status status = nas__onnx_axis(m, nas__onnx_attr_int(n, "axis", 1), rank, &axis);
    if (status == NAS_OK) status = check_members(m, n, axis);
    if (status == NAS_OK) status = concat_axes(m, n, axis, &axes);
    nas_node proto = {.op = NAS_OP_CONCAT, .axis = status == NAS_OK ? axes.of[axis] : 0};
    nas__onnx_value y = *nas__onnx_input(m, n, 0);
    y.kind = NAS__ONNX_VALUE;
    for (size_t i = 0; i < n->n_input && status == NAS_OK; i++) {
        nas__onnx_value x = *nas__onnx_input(m, n, i);
        status = nas__onnx_arrange_axes(m, n, &x, &axes);
        if (status == NAS_OK && proto.n_inputs == NAS_NODE_INPUTS_MAX) { /* in parts */
            status = nas__onnx_add(m, n, "_part", &proto, &proto.inputs[0]);
            proto.n_inputs = 1;
        }
        if (status != NAS_OK) break;
        proto.inputs[proto.n_inputs++] = x.v;
        y.dims[axis] = x.dims[axis] + (i > 0 ? y.dims[axis] : 0);
    }
    if (status == NAS_OK) status = nas__onnx_add(m, n, "", &proto, &y.v);
    if (status == NAS_OK) status = nas__onnx_layout_of(m, y.dims, rank, &axes, &y.layout);
    return status == NAS_OK ? nas__onnx_output(m, n, y) : status;
}

static nas_status import_pad(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    (void)arg;
    nas__onnx_value x;
    nas__onnx_axes axes;
    int64_t pads[2 * NAS__ONNX_RANK_MAX];
    int32_t count = 0;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status == NAS_OK)
        status = nas__onnx_int_list(
            m, n, nas__onnx_attribute(n, "pads") != NULL ? "pads" : "paddings", 1, pads, &count);
    if (status != NAS_OK) return status;
    if (!nas__onnx_attr_is(n, "mode", "constant", true) || nas__onnx_input(m, n, 3) != NULL)
        return nas__onnx_unsupported(m, "a mode other than constant, or axes");
    if (count != 2 * x.rank) return nas_fail(m->ctx, NAS_ERR_PARSE, "%" PRId32 " pads", count);
    nas_node proto = {.op = NAS_OP_PAD, .scalar = nas__onnx_attr_float(n, "value", 0)};
    const nas__onnx_value *value = nas__onnx_input(m, n, 2);
    if (value != NULL && (value->kind != NAS__ONNX_CONST || value->count != 1))
        return nas__onnx_unsupported(m, "a value that is not one constant");
    if (value != NULL) proto.scalar = (float)nas__onnx_at(value, 0);
    bool fits = nas__onnx_axes_of(m, &x, &axes);
    for (int32_t i = 0; i < count; i++) {
        if (pads[i] < 0 || pads[i] > 1 << 20)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "a pad of %" PRId64, pads[i]);
        fits = fits && (pads[i] == 0 || alone(&x, &axes, i % x.rank));
    }
    if (!fits) {
        if (x.rank > 4) return nas__onnx_unsupported(m, "pads of a value of rank above 4");
        axes = nas__onnx_image(x.rank);
        status = nas__onnx_arrange_axes(m, n, &x, &axes);
        if (status != NAS_OK) return status;
    }
    for (int32_t i = 0; i < count; i++) {
        int32_t *side = i < x.rank ? proto.begin : proto.end;
        if (pads[i] > 0) side[axes.of[i % x.rank]] = (int32_t)pads[i];
        x.dims[i % x.rank] += pads[i];
        axes.of[i % x.rank] = axes.of[i % x.rank] < 0 ? 0 : axes.of[i % x.rank];
    }
    proto.n_inputs = 1;
    proto.inputs[0] = x.v;
    status = nas__onnx_add(m, n, "", &proto, &x.v);
    if (status == NAS_OK) status = nas__onnx_layout_of(m, x.dims, x.rank, &axes, &x.layout);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
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

/* [N,C,H,W] to [N,r*r*C,H/r,W/r]; channels in the order (row, column, channel) or, of mode CRD, (channel, row, column). */
static nas_status import_space_to_depth(nas__onnx *m, const nas__onnx_node *n, int32_t arg) {
    static const int32_t dcr[6] = {0, 3, 5, 1, 2, 4}, crd[6] = {0, 1, 3, 5, 2, 4};
    (void)arg;
    nas__onnx_value x;
    nas_status status = nas__onnx_activation(m, n, 0, &x);
    if (status != NAS_OK) return status;
    const int64_t r = nas__onnx_attr_int(n, "blocksize", 0);
    const bool is_crd = nas__onnx_attr_is(n, "mode", "CRD", false);
    if (x.rank != 4 || r < 1 || r > 1024 || x.dims[2] % r != 0 || x.dims[3] % r != 0)
        return nas_fail(m->ctx, NAS_ERR_RANGE, "blocksize %" PRId64, r);
    if (!is_crd && !nas__onnx_attr_is(n, "mode", "DCR", true))
        return nas__onnx_unsupported(m, "unknown mode");
    const int64_t parts[6] = {x.dims[0], x.dims[1], x.dims[2] / r, r, x.dims[3] / r, r};
    const int64_t dims[4] = {x.dims[0], x.dims[1] * r * r, x.dims[2] / r, x.dims[3] / r};
    status = nas__onnx_regroup(m, n, &x, parts, 6);
    if (status == NAS_OK) status = nas__onnx_permute(m, n, &x, is_crd ? crd : dcr);
    if (status == NAS_OK) status = nas__onnx_regroup(m, n, &x, dims, 4);
    return status == NAS_OK ? nas__onnx_output(m, n, x) : status;
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

const nas__onnx_operator *nas__onnx_find_move_operator(const char *op_type) {
    static const nas__onnx_operator table[] = {
        {"Reshape", 1, import_reshape, 0},
        {"Flatten", 1, import_flatten, 0},
        {"Squeeze", 1, import_squeeze, 0},
        {"Unsqueeze", 1, import_unsqueeze, 0},
        {"Identity", 1, import_same, 0},
        {"Dropout", 1, import_same, 1},
        {"Transpose", 1, import_transpose, 0},
        {"Concat", 1, import_concat, 0},
        {"Split", 1, import_split, 0},
        {"Slice", 1, import_slice, 0},
        {"Gather", 2, import_gather, 0},
        {"Pad", 1, import_pad, 0},
        {"DepthToSpace", 1, import_depth_to_space, 0},
        {"SpaceToDepth", 1, import_space_to_depth, 0},
        {"Resize", 1, import_resize, 0},
        {"Upsample", 1, import_resize, 1},
    };
    for (size_t i = 0; i < sizeof table / sizeof table[0]; i++) {
        if (strcmp(table[i].op_type, op_type) == 0) return &table[i];
    }
    return NULL;
}
