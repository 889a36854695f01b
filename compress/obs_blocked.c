/* obs_blocked.c - one order of columns and one Cholesky factor for all rows (GPTQ, arXiv:2210.17323; SparseGPT,
 * arXiv:2301.00774). Errors flow to later columns: inside a block at once, behind it by one product. Unstructured and N:M masks
 * are chosen as their columns come, from weights that have taken up the errors so far; others are projected beforehand. */
#include "compress/obs_internal.h"

#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCK = 128 };

typedef struct ranked {
    double score;
    size_t index; /* row*n + column */
} ranked;

typedef struct sweep {
    nas__obs *o;
    int32_t *list;  /* [size] order of columns, the bias last */
    double *factor; /* [size][size] */
    double *w;      /* [rows][size] in that order */
    double *errors; /* [rows][BLOCK] */
    ranked *scores; /* [rows][BLOCK] */
} sweep;

static int by_score(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->score != y->score) return x->score < y->score ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* Columns that are read most first; what is sparse keeps its order, since N:M groups are neighbours. */
static nas_status order_columns(nas_ctx *ctx, sweep *s) {
    const nas__obs *o = s->o;
    ranked *list = nas_alloc_array(ctx, (size_t)o->n, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    for (size_t k = 0; k < (size_t)o->n; k++)
        list[k] = (ranked){-o->h[k * (size_t)o->size + k], k};
    if (!o->scheme->is_sparse) qsort(list, (size_t)o->n, sizeof *list, by_score);
    for (int32_t k = 0; k < o->n; k++)
        s->list[k] = (int32_t)list[k].index;
    if (o->bias != 0) s->list[o->n] = o->n;
    nas_free(list);
    return NAS_OK;
}

static double damage(const sweep *s, int32_t row, int32_t column) {
    const size_t size = (size_t)s->o->size, k = (size_t)column;
    const double v = s->w[(size_t)row * size + k] / s->factor[k * size + k];
    return v * v;
}

/* Of the weights of columns [begin, end) so many go that the share is kept at every block's end. */
static void choose_unstructured(sweep *s, int32_t begin, int32_t end) {
    const nas__obs *o = s->o;
    const uint64_t all = (uint64_t)o->rows * (uint64_t)o->n;
    const uint64_t drop = (uint64_t)floor(o->scheme->sparsity.rate * (double)all + 1e-9);
    const uint64_t until = drop * (uint64_t)end / (uint64_t)o->n,
                   before = drop * (uint64_t)begin / (uint64_t)o->n;
    size_t n = 0;
    for (int32_t r = 0; r < o->rows; r++) {
        for (int32_t k = begin; k < end; k++)
            s->scores[n++] = (ranked){damage(s, r, k), (size_t)r * (size_t)o->n + (size_t)k};
    }
    qsort(s->scores, n, sizeof *s->scores, by_score);
    for (uint64_t i = 0; i < until - before; i++)
        o->kept[s->scores[i].index] = 0;
}

/* One group of `of` columns; `outputs` rows share the choice. */
static void choose_n_of_m(sweep *s, int32_t begin, int32_t of) {
    const nas__obs *o = s->o;
    const nas_sparsity *sp = &o->scheme->sparsity;
    const int32_t drop = of - (sp->keep * of + sp->group - 1) / sp->group;
    for (int32_t first = 0; first < o->rows; first += sp->outputs) {
        const int32_t end = first + sp->outputs < o->rows ? first + sp->outputs : o->rows;
        for (int32_t k = 0; k < of; k++) {
            s->scores[k] = (ranked){0, (size_t)(begin + k)};
            for (int32_t r = first; r < end; r++)
                s->scores[k].score += damage(s, r, begin + k);
        }
        qsort(s->scores, (size_t)of, sizeof *s->scores, by_score);
        for (int32_t i = 0; i < drop; i++) {
            for (int32_t r = first; r < end; r++)
                o->kept[(size_t)r * (size_t)o->n + s->scores[i].index] = 0;
        }
    }
}

/* How many columns from here belong to one N:M group, when one begins here; else 0. */
static int32_t group_at(const nas__obs *o, int32_t column) {
    const nas_layer_scheme *scheme = o->scheme;
    if (!scheme->is_sparse || scheme->sparsity.pattern != NAS_SPARSITY_N_OF_M) return 0;
    const int32_t inputs = o->dims[3], i = column % inputs, m = scheme->sparsity.group;
    if (i % m != 0) return 0;
    return inputs - i < m ? inputs - i : m;
}

static void sweep_column(sweep *s, int32_t j, int32_t begin, int32_t end) {
    const nas__obs *o = s->o;
    const size_t size = (size_t)o->size;
    const double *u = s->factor + (size_t)j * size;
    for (int32_t r = 0; r < o->rows; r++) {
        double *w = s->w + (size_t)r * size;
        const bool stays = o->kept[(size_t)r * (size_t)o->n + (size_t)s->list[j]] != 0;
        double q = 0;
        if (stays && o->scheme->bits > 0) q = (double)nas_grid_round(&o->grids[r], (float)w[j]);
        if (stays && o->scheme->bits == 0) q = w[j];
        const double e = (w[j] - q) / u[j];
        w[j] = q;
        s->errors[r * BLOCK + (j - begin)] = e;
        if (e != 0) cblas_daxpy(end - j - 1, -e, u + j + 1, 1, w + j + 1, 1);
    }
}

static nas_status sweep_columns(nas_ctx *ctx, sweep *s) {
    const nas__obs *o = s->o;
    const bool unstructured =
        o->scheme->is_sparse && o->scheme->sparsity.pattern == NAS_SPARSITY_UNSTRUCTURED;
    int32_t end = 0;
    for (int32_t begin = 0; begin < o->n; begin = end) {
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        /* a group of N:M is never cut: it is chosen from weights that are up to date in all its columns */
        end = begin;
        while (end < o->n) {
            const int32_t group = group_at(o, end), next = end + (group > 0 ? group : 1);
            if (next - begin > BLOCK) break;
            end = next;
        }
        if (unstructured) choose_unstructured(s, begin, end);
        for (int32_t j = begin; j < end; j++) {
            const int32_t group = group_at(o, j);
            if (group > 0) choose_n_of_m(s, j, group);
            sweep_column(s, j, begin, end);
        }
        const int32_t rest = o->size - end;
        if (rest > 0)
            cblas_dgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, o->rows, rest, end - begin, -1,
                        s->errors, BLOCK, s->factor + (size_t)begin * (size_t)o->size + end,
                        o->size, 1, s->w + end, o->size);
    }
    return NAS_OK;
}

/* Grids are those of the weights as they are before any error has flown. */
static nas_status fit_grids(nas_ctx *ctx, const nas__obs *o) {
    const size_t n = (size_t)o->n, rows = o->scheme->per_tensor ? 1 : (size_t)o->rows;
    const size_t per_grid = (size_t)o->rows / rows * n;
    float *x = nas_alloc_array(ctx, per_grid, sizeof *x);
    double *weight = nas_alloc_array(ctx, per_grid, sizeof *weight);
    for (size_t g = 0; x != NULL && weight != NULL && g < rows; g++) {
        for (size_t i = 0; i < per_grid; i++) {
            const size_t r = g + i / n, k = i % n;
            x[i] = (float)o->w[r * (size_t)o->size + k];
            weight[i] = o->h[k * (size_t)o->size + k];
        }
        const nas_grid grid = nas_grid_fit(o->scheme->grid, o->scheme->bits, x, weight, per_grid);
        for (size_t r = g; r < g + per_grid / n; r++)
            o->grids[r] = grid;
    }
    const bool done = x != NULL && weight != NULL;
    nas_free(x);
    nas_free(weight);
    return done ? NAS_OK : NAS_ERR_NOMEM;
}

static nas_status run(nas_ctx *ctx, sweep *s) {
    nas__obs *o = s->o;
    const size_t size = (size_t)o->size;
    bool definite = false;
    nas_status status = order_columns(ctx, s);
    if (status == NAS_OK) status = nas__obs_factor(ctx, o, s->list, o->size, s->factor, &definite);
    if (status == NAS_OK && !definite)
        return nas_fail(ctx, NAS_ERR_INTERNAL, "the inverse of the moments is not definite");
    if (status == NAS_OK && o->scheme->bits > 0) status = fit_grids(ctx, o);
    for (size_t i = 0; status == NAS_OK && i < (size_t)o->rows * size; i++)
        s->w[i] = o->w[i / size * size + (size_t)s->list[i % size]];
    if (status == NAS_OK) status = sweep_columns(ctx, s);
    for (size_t i = 0; status == NAS_OK && i < (size_t)o->rows * size; i++)
        o->w[i / size * size + (size_t)s->list[i % size]] = s->w[i];
    return status;
}

nas_status nas__obs_blocked(nas_ctx *ctx, nas__obs *o) {
    const size_t size = (size_t)o->size, rows = (size_t)o->rows;
    const nas_sparsity_pattern pattern = o->scheme->sparsity.pattern;
    sweep s = {.o = o};
    s.list = nas_alloc_array(ctx, size, sizeof *s.list);
    s.factor = nas_alloc_array(ctx, size * size, sizeof *s.factor);
    s.w = nas_alloc_array(ctx, rows * size, sizeof *s.w);
    s.errors = nas_alloc_array(ctx, rows * BLOCK, sizeof *s.errors);
    s.scores = nas_alloc_array(ctx, rows * BLOCK, sizeof *s.scores);
    nas_status status =
        s.list == NULL || s.factor == NULL || s.w == NULL || s.errors == NULL || s.scores == NULL
            ? NAS_ERR_NOMEM
            : NAS_OK;
    memset(o->kept, 1, rows * (size_t)o->n);
    if (status == NAS_OK && o->scheme->is_sparse && pattern != NAS_SPARSITY_UNSTRUCTURED &&
        pattern != NAS_SPARSITY_N_OF_M)
        status = nas__obs_project(ctx, o);
    if (status == NAS_OK) status = run(ctx, &s);
    nas_free(s.list);
    nas_free(s.factor);
    nas_free(s.w);
    nas_free(s.errors);
    nas_free(s.scores);
    return status;
}
