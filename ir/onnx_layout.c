/* onnx_layout.c - how ONNX values of any rank lie in four IR axes, and the nodes that bring one into another layout. See
 * nas__onnx_factor in ir/onnx_internal.h.
 *
 * The layout of a value is normal: factors that follow each other in their ONNX axis and in memory are one, and places
 * count from 0. Equal layouts are then equal lists. */
#include "ir/onnx_internal.h"

#include <string.h>

enum {
    SPLIT = 64,                           /* places between two factors, for parts of the first */
    PAIRS_MAX = 2 * NAS__ONNX_FACTORS_MAX /* factors of two layouts, split until they agree */
};

/* ---- axes ---------------------------------------------------------------------------------------------------------- */

nas__onnx_axes nas__onnx_image(int32_t rank) {
    if (rank == 4) return (nas__onnx_axes){{0, 3, 1, 2}};
    return rank == 3 ? (nas__onnx_axes){{0, 3, 2}} : (nas__onnx_axes){{rank < 2 ? 3 : 0, 3}};
}

static bool leads(const nas__onnx *m, const int64_t *dims, int32_t rank) {
    return rank > 1 && dims[0] == m->batch;
}

nas__onnx_axes nas__onnx_last(const nas__onnx *m, const int64_t *dims, int32_t rank,
                              const bool *last) {
    nas__onnx_axes axes = {{0}};
    int32_t next = 2; /* w for the innermost of the others, h for the rest */
    for (int32_t i = rank; i-- > 0;) {
        if (last[i]) {
            axes.of[i] = 3;
        } else {
            axes.of[i] = i == 0 && leads(m, dims, rank) ? 0 : next;
            next = 1;
        }
    }
    return axes;
}

nas__onnx_axes nas__onnx_rows(const nas__onnx *m, const int64_t *dims, int32_t rank) {
    bool last[NAS__ONNX_RANK_MAX] = {false};
    if (rank > 0) last[rank - 1] = true;
    return nas__onnx_last(m, dims, rank, last);
}

nas__onnx_axes nas__onnx_around(const nas__onnx *m, const int64_t *dims, int32_t rank,
                                int32_t axis) {
    nas__onnx_axes axes = {{0}};
    for (int32_t i = 0; i < rank; i++)
        axes.of[i] = i < axis ? 1 : i == axis ? 2 : 3;
    if (axis > 0 && leads(m, dims, rank)) axes.of[0] = 0;
    return axes;
}

/* ---- layouts ------------------------------------------------------------------------------------------------------- */

static int32_t *extent_of(nas_shape *s, int32_t axis) {
    return axis == 0 ? &s->n : axis == 1 ? &s->h : axis == 2 ? &s->w : &s->c;
}

nas_status nas__onnx_layout_of(nas__onnx *m, const int64_t *dims, int32_t rank,
                               const nas__onnx_axes *axes, nas__onnx_layout *out) {
    nas__onnx_layout l = {.shape = {1, 1, 1, 1}};
    int16_t places[4] = {0};
    for (int32_t i = 0; i < rank; i++) {
        const int32_t axis = axes->of[i];
        if (dims[i] == 1) continue;
        int32_t *extent = extent_of(&l.shape, axis);
        if (dims[i] < 1 || dims[i] > INT32_MAX / *extent)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "extent %" PRId64 " of axis %" PRId32, dims[i],
                            i);
        *extent = (int32_t)(*extent * dims[i]);
        l.f[l.n++] = (nas__onnx_factor){(int32_t)dims[i], (int16_t)axis, places[axis]++};
    }
    *out = l;
    return NAS_OK;
}

bool nas__onnx_same_layout(const nas__onnx_layout *a, const nas__onnx_layout *b) {
    if (a->n != b->n) return false;
    for (int32_t i = 0; i < a->n; i++) {
        if (a->f[i].extent != b->f[i].extent || a->f[i].axis != b->f[i].axis ||
            a->f[i].place != b->f[i].place)
            return false;
    }
    return true;
}

void nas__onnx_set_dims(nas__onnx_value *x, const int64_t *dims, int32_t rank) {
    int64_t copy[NAS__ONNX_RANK_MAX] = {0}; /* dims may be those of x */
    memcpy(copy, dims, (size_t)rank * sizeof *dims);
    memcpy(x->dims, copy, sizeof copy);
    x->rank = rank;
}

void nas__onnx_pad_rank(nas__onnx_value *x, int32_t rank) {
    int64_t dims[NAS__ONNX_RANK_MAX] = {0};
    for (int32_t i = 0; i < rank; i++)
        dims[i] = i < rank - x->rank ? 1 : x->dims[i - (rank - x->rank)];
    nas__onnx_set_dims(x, dims, rank);
}

void nas__onnx_span(const nas__onnx_value *x, int32_t axis, int32_t *first, int32_t *count) {
    int32_t at = 0;
    for (int32_t i = 0; i <= axis; i++) {
        int64_t extent = 1;
        *first = at;
        while (at < x->layout.n && extent < x->dims[i])
            extent *= x->layout.f[at++].extent;
    }
    *count = at - *first;
}

/* order[k]: the factor that is number k in memory. */
static void memory_order(const nas__onnx_layout *l, int32_t order[NAS__ONNX_FACTORS_MAX]) {
    for (int32_t i = 0; i < l->n; i++) {
        int32_t at = i;
        for (; at > 0; at--) {
            const nas__onnx_factor *before = &l->f[order[at - 1]];
            if (before->axis < l->f[i].axis ||
                (before->axis == l->f[i].axis && before->place < l->f[i].place))
                break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

static void number_places(nas__onnx_layout *l) {
    int32_t order[NAS__ONNX_FACTORS_MAX];
    int16_t places[4] = {0};
    memory_order(l, order);
    for (int32_t k = 0; k < l->n; k++) {
        nas__onnx_factor *f = &l->f[order[k]];
        f->place = places[f->axis]++;
    }
}

/* Joins what belongs together; `whole`: across ONNX axes too. */
static void normalise(nas__onnx_value *x, bool whole) {
    nas__onnx_layout *l = &x->layout;
    bool begins[NAS__ONNX_FACTORS_MAX + 1] = {false};
    for (int32_t i = 0; i < x->rank && !whole; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        begins[first] = true;
    }
    number_places(l);
    int32_t n = 0;
    int16_t end = 0; /* place of the last part of f[n - 1] */
    for (int32_t i = 0; i < l->n; i++) {
        const nas__onnx_factor f = l->f[i];
        if (i > 0 && !begins[i] && l->f[n - 1].axis == f.axis && f.place == end + 1) {
            l->f[n - 1].extent *= f.extent; /* within an IR extent */
        } else {
            l->f[n++] = f;
        }
        end = f.place;
    }
    l->n = n;
    number_places(l);
}

/* ONNX axes of extent 1 are in no IR axis yet: each gets a free one, from the inside out. */
static void place_ones(const nas__onnx_value *x, nas__onnx_axes *axes) {
    nas_shape taken = x->layout.shape;
    for (int32_t i = x->rank; i-- > 0;) {
        for (int32_t ir = 3; ir >= 0 && axes->of[i] < 0; ir--) {
            if (*extent_of(&taken, ir) != 1) continue;
            *extent_of(&taken, ir) = 0;
            axes->of[i] = ir;
        }
    }
}

static bool lies_as(nas__onnx *m, const nas__onnx_value *x, const nas__onnx_axes *axes) {
    nas__onnx_layout l;
    return nas__onnx_layout_of(m, x->dims, x->rank, axes, &l) == NAS_OK &&
           nas__onnx_same_layout(&l, &x->layout);
}

bool nas__onnx_axes_of(nas__onnx *m, const nas__onnx_value *x, nas__onnx_axes *out) {
    *out = nas__onnx_image(x->rank);
    if (x->rank <= 4 && lies_as(m, x, out)) return true;
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        if (count > 1) return false;
        out->of[i] = count == 1 ? x->layout.f[first].axis : -1;
    }
    place_ones(x, out);
    nas__onnx_axes known = *out;
    for (int32_t i = 0; i < x->rank; i++)
        known.of[i] = known.of[i] < 0 ? 0 : known.of[i];
    return lies_as(m, x, &known);
}

void nas__onnx_set_axis(nas__onnx_value *x, int32_t axis, int32_t ir, int64_t extent) {
    nas__onnx_layout *l = &x->layout;
    int32_t first = 0, count = 0;
    nas__onnx_span(x, axis, &first, &count);
    *extent_of(&l->shape, ir) =
        (int32_t)(*extent_of(&l->shape, ir) / x->dims[axis] * extent); /* as the IR inferred it */
    const int32_t now = extent > 1 ? 1 : 0;
    memmove(l->f + first + now, l->f + first + count,
            (size_t)(l->n - first - count) * sizeof *l->f);
    if (now == 1) l->f[first] = (nas__onnx_factor){(int32_t)extent, (int16_t)ir, -1};
    l->n += now - count;
    x->dims[axis] = extent;
    normalise(x, false);
}

/* ---- moving -------------------------------------------------------------------------------------------------------- */

/* A node that only moves elements of x: named for the value, stored as it is stored. */
static nas_status move(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                       nas_node proto, nas_value *v) {
    const nas_quant quant = nas_graph_node(m->g, *v)->quant;
    const bool named = x->name != NULL && x->name[0] != '\0';
    char *names[] = {named ? (char *)(uintptr_t)x->name : n->output[0]};
    nas__onnx_node at = *n;
    at.output = names;
    proto.n_inputs = 1;
    proto.inputs[0] = *v;
    const nas_status status = nas__onnx_add(m, &at, named ? "" : "_order", &proto, v);
    return status == NAS_OK && quant.is_set ? nas_graph_set_quant(m->ctx, m->g, *v, quant) : status;
}

static bool same_shape(nas_shape a, nas_shape b) {
    return a.n == b.n && a.h == b.h && a.w == b.w && a.c == b.c;
}

/* A reshape of a reshape is one of its operand. */
static nas_status reshape(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                          nas_shape shape, nas_value *v) {
    while (nas_graph_node(m->g, *v)->op == NAS_OP_RESHAPE &&
           !nas_graph_node(m->g, *v)->quant.is_set)
        *v = nas_graph_node(m->g, *v)->inputs[0];
    if (same_shape(nas_graph_node(m->g, *v)->shape, shape)) return NAS_OK;
    return move(m, n, x, (nas_node){.op = NAS_OP_RESHAPE, .shape = shape}, v);
}

/* The factors of two layouts of one value, split until they are the same list in ONNX order. */
typedef struct pairs {
    int32_t n;
    int32_t extent[PAIRS_MAX];
    int32_t from[PAIRS_MAX], to[PAIRS_MAX];             /* keys of their memory order */
    int32_t from_order[PAIRS_MAX], to_order[PAIRS_MAX]; /* pair number k in memory */
} pairs;

static int32_t key_of(const nas__onnx_factor *f) {
    return (f->axis * SPLIT + f->place) * SPLIT;
}

static int32_t axis_of_key(int32_t key) {
    return key / (SPLIT * SPLIT);
}

static void sort_pairs(const int32_t *keys, int32_t n, int32_t *order) {
    for (int32_t i = 0; i < n; i++) {
        int32_t at = i;
        for (; at > 0 && keys[order[at - 1]] > keys[i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static bool refine(const nas__onnx_layout *from, const nas__onnx_layout *to, pairs *p) {
    int32_t i = 0, k = 0, a = 0, b = 0, a_part = 0, b_part = 0;
    p->n = 0;
    while ((i < from->n || a > 1) && (k < to->n || b > 1)) {
        if (a <= 1) {
            a = from->f[i++].extent;
            a_part = 0;
        }
        if (b <= 1) {
            b = to->f[k++].extent;
            b_part = 0;
        }
        const int32_t both = a < b ? a : b;
        if (a % both != 0 || b % both != 0 || p->n == PAIRS_MAX) return false;
        p->extent[p->n] = both;
        p->from[p->n] = key_of(&from->f[i - 1]) + a_part++;
        p->to[p->n++] = key_of(&to->f[k - 1]) + b_part++;
        a /= both;
        b /= both;
    }
    sort_pairs(p->from, p->n, p->from_order);
    sort_pairs(p->to, p->n, p->to_order);
    return true;
}

/* Pairs [*first, + the result) of an order lie in IR axis `axis`. */
static int32_t run_of(const int32_t *keys, const int32_t *order, int32_t n, int32_t axis,
                      int32_t *first) {
    int32_t at = 0, count = 0;
    while (at < n && axis_of_key(keys[order[at]]) < axis)
        at++;
    *first = at;
    while (at + count < n && axis_of_key(keys[order[at + count]]) == axis)
        count++;
    return count;
}

/* Are whole IR axes permuted? perm as in nas_node. */
static bool permutes_axes(const pairs *p, int32_t perm[4]) {
    bool used[4] = {false};
    for (int32_t axis = 0; axis < 4; axis++) {
        int32_t to = 0, from = 0;
        const int32_t count = run_of(p->to, p->to_order, p->n, axis, &to);
        perm[axis] = -1;
        if (count == 0) continue;
        const int32_t source = axis_of_key(p->from[p->to_order[to]]);
        if (used[source] || run_of(p->from, p->from_order, p->n, source, &from) != count ||
            memcmp(p->from_order + from, p->to_order + to, (size_t)count * sizeof *perm) != 0)
            return false;
        used[source] = true;
        perm[axis] = source;
    }
    for (int32_t axis = 0; axis < 4; axis++) { /* extents of 1, in place where they can be */
        int32_t source = axis;
        for (int32_t k = 0; k < 4 && perm[axis] < 0 && used[source]; k++)
            source = k;
        if (perm[axis] < 0) perm[axis] = source;
        used[perm[axis]] = true;
    }
    return true;
}

/* The groups of a channel shuffle that is all there is to do, 0 when it is not. */
static int32_t shuffle_of(const pairs *p) {
    int32_t at = 0, shift = 0, groups = 1;
    const int32_t count = run_of(p->from, p->from_order, p->n, 3, &at);
    if (count < 2 || at + count != p->n ||
        memcmp(p->from_order, p->to_order, (size_t)at * sizeof *p->to_order) != 0)
        return 0;
    for (int32_t i = 0; i < p->n; i++) {
        if (axis_of_key(p->from[i]) != axis_of_key(p->to[i])) return 0;
    }
    while (shift < count && p->from_order[at + shift] != p->to_order[at])
        groups *= p->extent[p->from_order[at + shift++]];
    for (int32_t i = 0; i < count; i++) {
        if (p->to_order[at + i] != p->from_order[at + (shift + i) % count]) return 0;
    }
    return groups;
}

/* Runs of pairs that stay together: group[k] of the memory order before, by number in the order after. */
typedef struct groups {
    int32_t n;
    int64_t extent[PAIRS_MAX]; /* of the group that comes to place k */
    int32_t order[PAIRS_MAX];  /* before: which group is number k */
} groups;

static void find_groups(const pairs *p, int32_t batch, groups *out) {
    int32_t place[PAIRS_MAX] = {0}; /* of a pair in the order before */
    int32_t starts[PAIRS_MAX] = {0};
    for (int32_t k = 0; k < p->n; k++)
        place[p->from_order[k]] = k;
    out->n = 0;
    for (int32_t k = 0; k < p->n; k++) {
        const int32_t pair = p->to_order[k];
        const bool batch_alone = k == 1 && batch > 1 && p->from_order[0] == p->to_order[0] &&
                                 p->extent[p->to_order[0]] == batch;
        if (k > 0 && place[pair] == place[p->to_order[k - 1]] + 1 && !batch_alone) {
            out->extent[out->n - 1] *= p->extent[pair];
            continue;
        }
        starts[out->n] = place[pair];
        out->extent[out->n++] = p->extent[pair];
    }
    sort_pairs(starts, out->n, out->order);
}

/* One TRANSPOSE of three axes: memory [a][b][c] with the groups before `first`, `second` and the end in it. */
static nas_status transpose_three(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                  int32_t batch, const int64_t extents[3], const int32_t perm[3],
                                  nas_value *v) {
    for (int32_t i = 0; i < 3; i++) {
        if (extents[i] > INT32_MAX)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "%" PRId64 " elements on an axis", extents[i]);
    }
    const nas_shape shape = {batch, (int32_t)extents[0], (int32_t)extents[1], (int32_t)extents[2]};
    nas_status status = reshape(m, n, x, shape, v);
    if (status != NAS_OK) return status;
    const nas_node proto = {.op = NAS_OP_TRANSPOSE,
                            .perm = {0, perm[0] + 1, perm[1] + 1, perm[2] + 1}};
    return move(m, n, x, proto, v);
}

static int64_t product_of(const groups *g, int32_t begin, int32_t end) {
    int64_t product = 1;
    for (int32_t i = begin; i < end; i++)
        product *= g->extent[g->order[i]];
    return product;
}

/* Any permutation: three axes at a time, because the batch has the fourth. */
static nas_status permute_groups(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                 groups *g, nas_value *v) {
    const bool led = m->batch > 1 && g->order[0] == 0 && g->extent[0] == m->batch;
    const int32_t lead = led ? 1 : 0, batch = led ? m->batch : 1;
    if (g->n - lead == 3) {
        int32_t perm[3] = {0};
        int64_t extents[3];
        for (int32_t i = 0; i < 3; i++) {
            extents[i] = g->extent[g->order[lead + i]];
            perm[g->order[lead + i] - lead] = i;
        }
        return transpose_three(m, n, x, batch, extents, perm, v);
    }
    nas_status status = NAS_OK;
    for (int32_t i = lead; i < g->n && status == NAS_OK; i++) {
        int32_t from = i;
        while (g->order[from] != i)
            from++;
        if (from == i) continue;
        int32_t end = from + 1;
        while (end < g->n && g->order[end] == g->order[end - 1] + 1)
            end++;
        const int64_t before = product_of(g, lead, i), swapped = product_of(g, i, from),
                      taken = product_of(g, from, end), after = product_of(g, end, g->n);
        static const int32_t outer[3] = {1, 0, 2}, inner[3] = {0, 2, 1};
        if (end == g->n) {
            status = transpose_three(m, n, x, batch, (int64_t[]){before, swapped, taken}, inner, v);
        } else { /* to the front and behind what was there: long runs stay whole */
            status = transpose_three(m, n, x, batch, (int64_t[]){before * swapped, taken, after},
                                     outer, v);
            if (status == NAS_OK && before > 1)
                status = transpose_three(m, n, x, batch,
                                         (int64_t[]){taken, before, swapped * after}, outer, v);
        }
        int32_t moved[PAIRS_MAX];
        memcpy(moved, g->order + i, (size_t)(from - i) * sizeof *moved);
        memmove(g->order + i, g->order + from, (size_t)(end - from) * sizeof *moved);
        memcpy(g->order + i + (end - from), moved, (size_t)(from - i) * sizeof *moved);
    }
    return status;
}

static nas_status arrange_pairs(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                const pairs *p, nas_shape shape, nas_value *v) {
    int32_t perm[4];
    if (memcmp(p->from_order, p->to_order, (size_t)p->n * sizeof *p->to_order) == 0)
        return reshape(m, n, x, shape, v);
    if (permutes_axes(p, perm)) {
        nas_node proto = {.op = NAS_OP_TRANSPOSE};
        memcpy(proto.perm, perm, sizeof perm);
        return move(m, n, x, proto, v);
    }
    const int32_t shuffled = shuffle_of(p);
    if (shuffled > 0)
        return move(m, n, x, (nas_node){.op = NAS_OP_CHANNEL_SHUFFLE, .block = shuffled}, v);
    groups g;
    find_groups(p, m->batch, &g);
    const nas_status status = permute_groups(m, n, x, &g, v);
    return status == NAS_OK ? reshape(m, n, x, shape, v) : status;
}

nas_status nas__onnx_arrange(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const nas__onnx_layout *to) {
    if (x->kind == NAS__ONNX_CONST)
        return nas__onnx_constant(m, n, "_const", x, x->dims, x->rank, to, x);
    if (nas__onnx_same_layout(&x->layout, to)) return NAS_OK;
    pairs p;
    nas_status status = NAS_OK;
    if (!refine(&x->layout, to, &p)) { /* 2*3 to 3*2: over memory in ONNX order */
        const nas__onnx_axes rows = nas__onnx_rows(m, x->dims, x->rank);
        nas__onnx_layout straight;
        status = nas__onnx_layout_of(m, x->dims, x->rank, &rows, &straight);
        if (status == NAS_OK && !refine(&x->layout, &straight, &p))
            status =
                nas_fail(m->ctx, NAS_ERR_INTERNAL, "a layout of more than %d factors", PAIRS_MAX);
        if (status == NAS_OK) status = arrange_pairs(m, n, x, &p, straight.shape, &x->v);
        if (status == NAS_OK) x->layout = straight;
        if (status == NAS_OK && !refine(&x->layout, to, &p))
            status =
                nas_fail(m->ctx, NAS_ERR_INTERNAL, "a layout of more than %d factors", PAIRS_MAX);
    }
    if (status == NAS_OK) status = arrange_pairs(m, n, x, &p, to->shape, &x->v);
    if (status == NAS_OK) x->layout = *to;
    return status;
}

nas_status nas__onnx_arrange_axes(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                                  const nas__onnx_axes *axes) {
    nas__onnx_layout to;
    const nas_status status = nas__onnx_layout_of(m, x->dims, x->rank, axes, &to);
    return status == NAS_OK ? nas__onnx_arrange(m, n, x, &to) : status;
}

bool nas__onnx_moves(nas__onnx *m, const nas__onnx_value *x, const nas__onnx_axes *axes) {
    nas__onnx_layout to;
    pairs p;
    if (x->kind == NAS__ONNX_CONST) return false;
    return nas__onnx_layout_of(m, x->dims, x->rank, axes, &to) != NAS_OK ||
           !refine(&x->layout, &to, &p) ||
           memcmp(p.from_order, p.to_order, (size_t)p.n * sizeof *p.to_order) != 0;
}

/* ---- constants ----------------------------------------------------------------------------------------------------- */

nas_status nas__onnx_constant(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                              const nas__onnx_value *c, const int64_t *dims, int32_t rank,
                              const nas__onnx_layout *to, nas__onnx_value *out) {
    nas__onnx_value y = {.name = c->name, .kind = NAS__ONNX_VALUE, .layout = *to};
    size_t step[NAS__ONNX_FACTORS_MAX] = {0}, stride = 1; /* of each factor in c */
    nas__onnx_set_dims(&y, dims, rank);
    if (nas__onnx_is_int(c)) return nas__onnx_unsupported(m, "integers as data");
    for (int32_t i = rank; i-- > 0;) {
        const int32_t own = i - (rank - c->rank);
        const int64_t extent = own >= 0 ? c->dims[own] : 1;
        if (extent != 1 && extent != dims[i])
            return nas_fail(m->ctx, NAS_ERR_SHAPE,
                            "a constant of extent %" PRId64 " where %" PRId64 " are needed", extent,
                            dims[i]);
        int32_t first = 0, count = 0;
        nas__onnx_span(&y, i, &first, &count);
        size_t inner = extent == 1 ? 0 : stride;
        for (int32_t k = first + count; k-- > first; inner *= (size_t)to->f[k].extent)
            step[k] = inner;
        stride *= (size_t)extent;
    }
    const nas_node proto = {.op = NAS_OP_CONSTANT, .shape = to->shape};
    nas_status status = nas__onnx_add(m, n, suffix, &proto, &y.v);
    if (status == NAS_OK) status = nas__onnx_weights(m, y.v);
    if (status != NAS_OK) return status;
    int32_t order[NAS__ONNX_FACTORS_MAX], at[NAS__ONNX_FACTORS_MAX] = {0};
    memory_order(to, order);
    const size_t total = nas_graph_param(m->g, nas_graph_node(m->g, y.v)->params[0])->count;
    float *data = nas__onnx_param(m, y.v, 0);
    size_t from = 0;
    for (size_t e = 0; data != NULL && e < total; e++) {
        data[e] = (float)nas__onnx_at(c, from);
        for (int32_t k = to->n; k-- > 0;) { /* innermost first */
            const int32_t f = order[k];
            from += step[f];
            if (++at[f] < to->f[f].extent) break;
            from -= step[f] * (size_t)to->f[f].extent;
            at[f] = 0;
        }
    }
    *out = y;
    return NAS_OK;
}

/* ---- transposes and reshapes ---------------------------------------------------------------------------------------- */

/* How the factors of one ONNX axis lie: in one IR axis, in several but one after the other, or apart. */
typedef enum coherence { ONE_AXIS, FOLLOWING, APART } coherence;

static coherence worst_coherence(const nas__onnx_value *x) {
    int32_t order[NAS__ONNX_FACTORS_MAX], place[NAS__ONNX_FACTORS_MAX] = {0};
    coherence worst = ONE_AXIS;
    memory_order(&x->layout, order);
    for (int32_t k = 0; k < x->layout.n; k++)
        place[order[k]] = k;
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, i, &first, &count);
        for (int32_t k = first + 1; k < first + count; k++) {
            if (place[k] != place[k - 1] + 1) return APART;
            if (x->layout.f[k].axis != x->layout.f[k - 1].axis) worst = FOLLOWING;
        }
    }
    return worst;
}

static bool in_order(const nas__onnx_layout *l) {
    int32_t order[NAS__ONNX_FACTORS_MAX];
    memory_order(l, order);
    for (int32_t k = 0; k < l->n; k++) {
        if (order[k] != k) return false;
    }
    return true;
}

/* An axis in several IR axes makes every later operator move it, so it is moved once, here. Rank 2 waits for its matrix
 * product; memory that is only in another order waits for the Transpose that as a rule follows. */
static nas_status settle(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x) {
    const coherence c = x->rank >= 3 ? worst_coherence(x) : ONE_AXIS;
    if (c == ONE_AXIS || (c == FOLLOWING && !in_order(&x->layout))) return NAS_OK;
    int32_t order[NAS__ONNX_FACTORS_MAX];
    memory_order(&x->layout, order);
    const bool rows =
        x->rank != 4 || in_order(&x->layout) || order[x->layout.n - 1] == x->layout.n - 1;
    const nas__onnx_axes axes =
        rows ? nas__onnx_rows(m, x->dims, x->rank) : nas__onnx_image(x->rank);
    return nas__onnx_arrange_axes(m, n, x, &axes);
}

nas_status nas__onnx_permute(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const int32_t *perm) {
    nas__onnx_value y = *x;
    y.layout.n = 0;
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t first = 0, count = 0;
        nas__onnx_span(x, perm[i], &first, &count);
        y.dims[i] = x->dims[perm[i]];
        memcpy(y.layout.f + y.layout.n, x->layout.f + first, (size_t)count * sizeof *y.layout.f);
        y.layout.n += count;
    }
    y.name = n->output[0];
    *x = y;
    return settle(m, n, x);
}

/* Splits the factors of x at the ends of `dims`; false when an end falls inside a factor. */
static bool split_at(nas__onnx_value *x, const int64_t *dims, int32_t rank) {
    nas__onnx_layout from = x->layout, to = {.shape = from.shape};
    int32_t at = 0;
    for (int32_t i = 0; i < from.n; i++)
        from.f[i].place = (int16_t)(from.f[i].place * SPLIT);
    for (int32_t i = 0; i < rank; i++) {
        for (int64_t rest = dims[i]; rest > 1;) {
            nas__onnx_factor *f = &from.f[at];
            const int64_t part = f->extent < rest ? f->extent : rest;
            if (rest % part != 0 || f->extent % part != 0 || to.n == NAS__ONNX_FACTORS_MAX)
                return false;
            to.f[to.n++] = (nas__onnx_factor){(int32_t)part, f->axis, f->place};
            rest /= part;
            f->extent = (int32_t)(f->extent / part);
            f->place++;
            at += f->extent == 1 ? 1 : 0;
        }
    }
    x->layout = to;
    nas__onnx_set_dims(x, dims, rank);
    normalise(x, false);
    return true;
}

nas_status nas__onnx_regroup(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const int64_t *dims, int32_t rank) {
    nas__onnx_value y = *x;
    y.name = n->output[0];
    normalise(&y, true);
    if (split_at(&y, dims, rank)) {
        *x = y;
        return settle(m, n, x);
    }
    const nas__onnx_axes before = nas__onnx_rows(m, x->dims, x->rank),
                         after = nas__onnx_rows(m, dims, rank);
    nas_status status = nas__onnx_arrange_axes(m, n, x, &before);
    if (status == NAS_OK) status = nas__onnx_layout_of(m, dims, rank, &after, &y.layout);
    y.v = x->v;
    if (status == NAS_OK) status = reshape(m, n, &y, y.layout.shape, &y.v);
    if (status != NAS_OK) return status;
    nas__onnx_set_dims(&y, dims, rank);
    *x = y;
    return NAS_OK;
}
