/* obs_prune.c - which weights go, by greedy elimination (ExactOBS and its groups, arXiv:2208.11580), and least squares for
 * those that stay. A unit is a set of rows with one mask, a group a set of columns that go together. */
#include "compress/obs_internal.h"

#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct step {
    double loss;
    int32_t group;
} step;

typedef struct pruner {
    nas__obs *o;
    int32_t taps, inputs;
    int32_t unit_rows, n_units;
    int32_t *order;              /* [rows] rows of the units, one unit after another */
    int32_t n_groups, group_max; /* of columns; columns of the largest */
    int32_t *first, *columns;    /* [n_groups + 1], [n] columns by group */
    step *steps;                 /* [n_units][n_groups] in the order of going */
    int32_t *n_steps;            /* [n_units] */
    nas__obs_state *states;      /* [threads] */
    uint8_t *gone;               /* [threads][n_groups] */
    int32_t *full;               /* [threads][n_groups] N:M: columns gone of each block */
    int32_t threads;
} pruner;

static int32_t ceil_div(int32_t a, int32_t b) {
    return (a + b - 1) / b;
}

/* ---- units and groups --------------------------------------------------------------------------------------------------- */

static int32_t unit_rows(const nas_sparsity *s, int32_t rows) {
    switch (s->pattern) {
    case NAS_SPARSITY_CHANNEL: return rows;
    case NAS_SPARSITY_1XN: return s->n;
    case NAS_SPARSITY_N_OF_M:
    case NAS_SPARSITY_BLOCK:
    case NAS_SPARSITY_PUNCHED: return s->outputs;
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_PATTERN:
    case NAS_SPARSITY_PERIODIC:
    case NAS_SPARSITY_COMPLEMENTARY:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return 1;
}

static int32_t group_of(const nas_sparsity *s, int32_t inputs, int32_t column) {
    const int32_t i = column % inputs, tap = column / inputs;
    switch (s->pattern) {
    case NAS_SPARSITY_CHANNEL:
    case NAS_SPARSITY_1XN: return i;
    case NAS_SPARSITY_BLOCK: return i / s->inputs;
    case NAS_SPARSITY_PUNCHED: return tap * ceil_div(inputs, s->inputs) + i / s->inputs;
    case NAS_SPARSITY_N_OF_M:
    case NAS_SPARSITY_UNSTRUCTURED:
    case NAS_SPARSITY_FILTER:
    case NAS_SPARSITY_PATTERN:
    case NAS_SPARSITY_PERIODIC:
    case NAS_SPARSITY_COMPLEMENTARY:
    case NAS_SPARSITY_PATTERN_COUNT: break;
    }
    return column;
}

static bool is_projected(nas_sparsity_pattern pattern) {
    return pattern == NAS_SPARSITY_FILTER || pattern == NAS_SPARSITY_PATTERN ||
           pattern == NAS_SPARSITY_PERIODIC || pattern == NAS_SPARSITY_COMPLEMENTARY;
}

typedef struct ranked {
    double score;
    int32_t index;
} ranked;

static int by_score_falling(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? 1 : -1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Rows by magnitude, largest first, where the pattern rearranges filters. */
static nas_status order_rows(nas_ctx *ctx, pruner *p) {
    const nas__obs *o = p->o;
    const nas_sparsity *s = &o->scheme->sparsity;
    ranked *list = nas_alloc_array(ctx, (size_t)o->rows, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    for (int32_t r = 0; r < o->rows; r++) {
        list[r] = (ranked){.index = r};
        for (int32_t k = 0; k < o->n; k++)
            list[r].score += fabs(o->w[(size_t)r * (size_t)o->size + (size_t)k]);
    }
    if (s->pattern == NAS_SPARSITY_1XN && s->rearrange)
        qsort(list, (size_t)o->rows, sizeof *list, by_score_falling);
    for (int32_t r = 0; r < o->rows; r++)
        p->order[r] = list[r].index;
    nas_free(list);
    return NAS_OK;
}

static void list_groups(pruner *p) {
    const nas_sparsity *s = &p->o->scheme->sparsity;
    const int32_t n = p->o->n;
    for (int32_t k = 0; k < n; k++)
        p->first[group_of(s, p->inputs, k) + 1]++;
    for (int32_t g = 0; g < p->n_groups; g++) {
        if (p->first[g + 1] > p->group_max) p->group_max = p->first[g + 1];
        p->first[g + 1] += p->first[g];
    }
    for (int32_t k = n - 1; k >= 0; k--) /* from the back: first[] ends one too early */
        p->columns[--p->first[group_of(s, p->inputs, k) + 1]] = k;
    for (int32_t g = 0; g < p->n_groups; g++)
        p->first[g] = p->first[g + 1];
    p->first[p->n_groups] = n;
}

static void deinit(pruner *p) {
    for (int32_t t = 0; p->states != NULL && t < p->threads; t++)
        nas__obs_state_deinit(&p->states[t]);
    nas_free(p->order);
    nas_free(p->first);
    nas_free(p->columns);
    nas_free(p->steps);
    nas_free(p->n_steps);
    nas_free(p->states);
    nas_free(p->gone);
    nas_free(p->full);
}

static nas_status init(nas_ctx *ctx, nas__obs *o, pruner *p) {
    const nas_sparsity *s = &o->scheme->sparsity;
    *p = (pruner){.o = o,
                  .taps = o->dims[1] * o->dims[2],
                  .inputs = o->dims[3],
                  .threads = o->options->threads};
    p->unit_rows = unit_rows(s, o->rows);
    if (p->unit_rows > o->rows) p->unit_rows = o->rows;
    p->n_units = ceil_div(o->rows, p->unit_rows);
    p->n_groups = 1 + group_of(s, p->inputs, o->n - 1);
    const size_t groups = (size_t)p->n_groups, threads = (size_t)p->threads;
    p->order = nas_alloc_array(ctx, (size_t)o->rows, sizeof *p->order);
    p->first = nas_alloc_array(ctx, groups + 1, sizeof *p->first);
    p->columns = nas_alloc_array(ctx, (size_t)o->n, sizeof *p->columns);
    p->steps = nas_alloc_array(ctx, (size_t)p->n_units * groups, sizeof *p->steps);
    p->n_steps = nas_alloc_array(ctx, (size_t)p->n_units, sizeof *p->n_steps);
    p->states = nas_alloc_array(ctx, threads, sizeof *p->states);
    p->gone = nas_alloc_array(ctx, threads * groups, sizeof *p->gone);
    p->full = nas_alloc_array(ctx, threads * groups, sizeof *p->full);
    if (p->order == NULL || p->first == NULL || p->columns == NULL || p->steps == NULL ||
        p->n_steps == NULL || p->states == NULL || p->gone == NULL || p->full == NULL)
        return NAS_ERR_NOMEM;
    list_groups(p);
    nas_status status = order_rows(ctx, p);
    for (int32_t t = 0; t < p->threads && status == NAS_OK; t++)
        status = nas__obs_state_init(ctx, o, p->unit_rows, p->group_max, &p->states[t]);
    return status;
}

/* ---- elimination --------------------------------------------------------------------------------------------------------- */

/* The block of an N:M column, and whether it may lose another one. */
static int32_t block_of(const pruner *p, int32_t column) {
    const int32_t m = p->o->scheme->sparsity.group;
    return column / p->inputs * ceil_div(p->inputs, m) + column % p->inputs / m;
}

static bool is_full(const pruner *p, const int32_t *full, int32_t column) {
    const nas_sparsity *s = &p->o->scheme->sparsity;
    const int32_t begin = column % p->inputs / s->group * s->group, left = p->inputs - begin;
    const int32_t of = left < s->group ? left : s->group;
    return full[block_of(p, column)] >= of - ceil_div(s->keep * of, s->group);
}

static nas_status eliminate(nas_ctx *ctx, void *arg, size_t unit, int worker) {
    pruner *p = arg;
    const bool n_of_m = p->o->scheme->sparsity.pattern == NAS_SPARSITY_N_OF_M;
    const int32_t begin = (int32_t)unit * p->unit_rows, left = p->o->rows - begin;
    nas__obs_state *s = &p->states[worker];
    uint8_t *gone = p->gone + (size_t)worker * (size_t)p->n_groups;
    int32_t *full = p->full + (size_t)worker * (size_t)p->n_groups;
    step *steps = p->steps + unit * (size_t)p->n_groups;
    memset(gone, 0, (size_t)p->n_groups);
    memset(full, 0, (size_t)p->n_groups * sizeof *full);
    nas__obs_state_load(s, p->o, p->order + begin, left < p->unit_rows ? left : p->unit_rows);
    for (int32_t n = 0; n < p->n_groups; n++) {
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        step best = {.group = -1};
        for (int32_t g = 0; g < p->n_groups; g++) {
            const int32_t *columns = p->columns + p->first[g];
            if (gone[g] != 0 || (n_of_m && is_full(p, full, columns[0]))) continue;
            const double loss = nas__obs_state_score(s, columns, p->first[g + 1] - p->first[g]);
            if (best.group < 0 || loss < best.loss) best = (step){loss, g};
        }
        if (best.group < 0) break;
        for (int32_t k = p->first[best.group]; k < p->first[best.group + 1]; k++)
            nas__obs_state_drop(s, p->columns[k], NULL);
        gone[best.group] = 1;
        if (n_of_m) full[block_of(p, p->columns[p->first[best.group]])]++;
        steps[p->n_steps[unit]++] = best;
    }
    return NAS_OK;
}

/* ---- what goes in all units together --------------------------------------------------------------------------------------- */

/* Of all steps of all units the cheapest: from each unit as many of its first ones as it has among them. */
static nas_status share_out(nas_ctx *ctx, const pruner *p, int32_t *count) {
    const size_t all = (size_t)p->n_units * (size_t)p->n_groups;
    const size_t drop = (size_t)floor(p->o->scheme->sparsity.rate * (double)all + 1e-9);
    ranked *list = nas_alloc_array(ctx, all, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < all; i++)
        list[i] = (ranked){p->steps[i].loss, (int32_t)(i / (size_t)p->n_groups)};
    qsort(list, all, sizeof *list, by_score_falling);
    for (size_t i = 0; i < drop; i++)
        count[list[all - 1 - i].index]++;
    nas_free(list);
    return NAS_OK;
}

static nas_status make_mask(nas_ctx *ctx, const pruner *p) {
    nas__obs *o = p->o;
    int32_t *count = nas_alloc_array(ctx, (size_t)p->n_units, sizeof *count);
    if (count == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    if (o->scheme->sparsity.pattern == NAS_SPARSITY_N_OF_M) {
        memcpy(count, p->n_steps, (size_t)p->n_units * sizeof *count);
    } else {
        status = share_out(ctx, p, count);
    }
    memset(o->kept, 1, (size_t)o->rows * (size_t)o->n);
    for (int32_t r = 0; r < o->rows && status == NAS_OK; r++) {
        const int32_t unit = r / p->unit_rows;
        uint8_t *kept = o->kept + (size_t)p->order[r] * (size_t)o->n;
        for (int32_t i = 0; i < count[unit]; i++) {
            const int32_t g = p->steps[(size_t)unit * (size_t)p->n_groups + (size_t)i].group;
            for (int32_t k = p->first[g]; k < p->first[g + 1]; k++)
                kept[p->columns[k]] = 0;
        }
    }
    nas_free(count);
    return status;
}

nas_status nas__obs_project(nas_ctx *ctx, nas__obs *o) {
    const size_t n = (size_t)o->n;
    float *scaled = nas_alloc_array(ctx, (size_t)o->rows * n, sizeof *scaled);
    if (scaled == NULL) return NAS_ERR_NOMEM;
    for (size_t r = 0; r < (size_t)o->rows; r++) {
        for (size_t k = 0; k < n; k++)
            scaled[r * n + k] =
                (float)(o->w[r * (size_t)o->size + k] / sqrt(o->inverse[k * (size_t)o->size + k]));
    }
    const nas_status status =
        nas_sparsity_mask(ctx, &o->scheme->sparsity, scaled, o->dims, o->kept);
    nas_free(scaled);
    return status;
}

nas_status nas__obs_choose(nas_ctx *ctx, nas__obs *o) {
    if (is_projected(o->scheme->sparsity.pattern)) return nas__obs_project(ctx, o);
    pruner p;
    nas_status status = init(ctx, o, &p);
    if (status == NAS_OK) status = nas_parallel(ctx, p.threads, (size_t)p.n_units, eliminate, &p);
    if (status == NAS_OK) status = make_mask(ctx, &p);
    deinit(&p);
    return status;
}

/* ---- least squares ---------------------------------------------------------------------------------------------------------- */

typedef struct refit {
    nas__obs *o;
    int32_t *leader; /* [rows] the first row of the same mask */
} refit;

static nas_status refit_rows(nas_ctx *ctx, const refit *f, size_t first) {
    nas__obs *o = f->o;
    const size_t size = (size_t)o->size;
    if (f->leader[first] != (int32_t)first) return NAS_OK; /* done with its leader */
    nas_status status = nas_check_cancel(ctx);
    const uint8_t *kept = o->kept + first * (size_t)o->n;
    int32_t *list = nas_alloc_array(ctx, size, sizeof *list);
    int32_t m = 0, rows = 0;
    for (int32_t k = 0; list != NULL && k < o->size; k++) {
        if (k >= o->n || kept[k] != 0) list[m++] = k;
    }
    for (int32_t r = (int32_t)first; r < o->rows; r++)
        rows += f->leader[r] == (int32_t)first;
    if (m == o->size) { /* nothing is gone */
        nas_free(list);
        return status;
    }
    const size_t alive = (size_t)m, p = (size_t)rows;
    double *a = nas_alloc_array(ctx, alive * alive, sizeof *a);
    double *b = nas_alloc_array(ctx, alive * p, sizeof *b);
    if (list == NULL || a == NULL || b == NULL) status = NAS_ERR_NOMEM;
    for (size_t i = 0; status == NAS_OK && i < alive; i++) {
        const double *h = o->h + (size_t)list[i] * size;
        for (size_t j = 0; j < alive; j++)
            a[i * alive + j] = h[list[j]];
        size_t at = i * p;
        for (size_t r = first; r < (size_t)o->rows; r++) {
            if (f->leader[r] != (int32_t)first) continue;
            for (size_t k = 0; k < size; k++)
                b[at] += h[k] * o->w[r * size + k];
            at++;
        }
    }
    if (status == NAS_OK && m > 0 &&
        LAPACKE_dposv(LAPACK_ROW_MAJOR, 'U', m, rows, a, m, b, rows) != 0)
        status = nas_fail(ctx, NAS_ERR_INTERNAL, "the moments of the kept weights are singular");
    size_t column = 0;
    for (size_t r = first; status == NAS_OK && r < (size_t)o->rows; r++) {
        if (f->leader[r] != (int32_t)first) continue;
        memset(o->w + r * size, 0, size * sizeof *o->w);
        for (size_t i = 0; i < alive; i++)
            o->w[r * size + (size_t)list[i]] = b[i * p + column];
        column++;
    }
    nas_free(list);
    nas_free(a);
    nas_free(b);
    return status;
}

void nas__obs_leaders(const nas__obs *o, int32_t *leader) {
    const size_t n = (size_t)o->n;
    for (int32_t r = 0; r < o->rows; r++) {
        leader[r] = r;
        for (int32_t k = 0; k < r && leader[r] == r; k++) {
            if (leader[k] == k && memcmp(o->kept + (size_t)k * n, o->kept + (size_t)r * n, n) == 0)
                leader[r] = k;
        }
    }
}

nas_status nas__obs_refit(nas_ctx *ctx, nas__obs *o) {
    refit f = {o, nas_alloc_array(ctx, (size_t)o->rows, sizeof *f.leader)};
    if (f.leader == NULL) return NAS_ERR_NOMEM;
    nas__obs_leaders(o, f.leader);
    nas_status status = NAS_OK; /* one after another: LAPACK has threads of its own */
    for (size_t r = 0; r < (size_t)o->rows && status == NAS_OK; r++)
        status = refit_rows(ctx, &f, r);
    nas_free(f.leader);
    return status;
}
