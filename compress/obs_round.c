/* obs_round.c - rounding row by row. Rows of one mask share a Cholesky factor, with which the grid of each row is searched for
 * by the error that is left after compensation (columns in falling order of their moments, as GPTQ with activation order);
 * then the same grid with the greedy order of OBQ. The better of both stays. */
#include "compress/obs_internal.h"

#include <cblas.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Ranges that are tried, of 1, 0.95 ... */
enum { SHARES = 17 };

typedef struct rounder {
    nas__obs *o;
    const int32_t *leader;
    int32_t group;             /* the leader of the rows in turn */
    int32_t *list, m;          /* their columns in order; the bias last */
    double *factor;            /* [m][m] */
    double *row;               /* [threads][3][size]: in order, tried, best */
    nas__obs_state *states;    /* [threads] */
    const nas_grid *of_tensor; /* NULL: one a row */
} rounder;

nas_status nas__obs_factor(nas_ctx *ctx, const nas__obs *o, const int32_t *list, int32_t m,
                           double *out, bool *definite) {
    (void)ctx;
    const size_t n = (size_t)m;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            out[i * n + j] = o->h[(size_t)list[i] * (size_t)o->size + (size_t)list[j]];
    }
    *definite = LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', m, out, m) == 0 &&
                LAPACKE_dpotri(LAPACK_ROW_MAJOR, 'U', m, out, m) == 0 &&
                LAPACKE_dpotrf(LAPACK_ROW_MAJOR, 'U', m, out, m) == 0;
    return NAS_OK;
}

/* w [m] in order becomes its rounding; returns the loss. */
static double round_in_order(const rounder *t, const nas_grid *g, double *w) {
    const int32_t last = t->m - t->o->bias;
    double loss = 0;
    for (int32_t j = 0; j < last; j++) {
        const double *u = t->factor + (size_t)j * (size_t)t->m;
        const double q = (double)nas_grid_round(g, (float)w[j]), e = (w[j] - q) / u[j];
        w[j] = q;
        loss += e * e;
        cblas_daxpy(t->m - j - 1, -e, u + j + 1, 1, w + j + 1, 1);
    }
    return loss;
}

static double search_grid(const rounder *t, const double *w, double *tried, double *best,
                          nas_grid *grid) {
    const nas_layer_scheme *scheme = t->o->scheme;
    float low = 0, high = 0;
    double least = INFINITY;
    for (int32_t j = 0; j < t->m - t->o->bias; j++) {
        low = fminf(low, (float)w[j]);
        high = fmaxf(high, (float)w[j]);
    }
    for (int k = 0; k < SHARES; k++) {
        const float share = 1 - 0.05F * (float)k;
        const nas_grid g = t->of_tensor != NULL
                               ? *t->of_tensor
                               : nas_grid_of_range(scheme->grid, scheme->bits, low, high, share);
        memcpy(tried, w, (size_t)t->m * sizeof *w);
        const double loss = round_in_order(t, &g, tried);
        if (loss < least) {
            least = loss;
            *grid = g;
            memcpy(best, tried, (size_t)t->m * sizeof *w);
        }
        if (t->of_tensor != NULL) break;
    }
    return least;
}

/* What is off the grid by more than half a step goes first, the worst of it; else what costs least. */
static int32_t pick(const nas__obs_state *s, const nas__obs *o, const nas_grid *g, double *to,
                    double *loss) {
    int32_t best = -1, worst = -1;
    double least = INFINITY, far = g->kind == NAS_GRID_POWER ? INFINITY : 0.5 * (double)g->scale;
    far *= 1 + 1e-6; /* halves are no outliers */
    for (int32_t k = 0; k < s->m; k++) {
        if (s->column[k] >= o->n) continue;
        const double q = (double)nas_grid_round(g, (float)s->w[k]), e = fabs(q - s->w[k]);
        const double cost = e * e / s->inverse[(size_t)k * (size_t)s->stride + (size_t)k];
        if (e > far) {
            far = e;
            worst = k;
        }
        if (cost < least || best < 0) {
            least = cost;
            best = k;
        }
    }
    if (worst >= 0) best = worst;
    *to = (double)nas_grid_round(g, (float)s->w[best]);
    const double e = *to - s->w[best];
    *loss += e * e / s->inverse[(size_t)best * (size_t)s->stride + (size_t)best];
    return s->column[best];
}

/* The row by the greedy order, written over w when it loses less than `loss`. */
static nas_status round_greedily(nas_ctx *ctx, const rounder *t, int32_t row, int worker,
                                 double loss, double *result) {
    nas__obs *o = t->o;
    nas__obs_state *s = &t->states[worker];
    const uint8_t *kept = o->kept + (size_t)row * (size_t)o->n;
    double total = 0;
    nas__obs_state_load(s, o, &row, 1);
    for (int32_t k = 0; k < o->n; k++) {
        const double zero = 0; /* what is pruned is zero already: only the inverse changes */
        result[k] = 0;
        if (kept[k] == 0) nas__obs_state_drop(s, k, &zero);
    }
    while (s->m > o->bias) {
        double to = 0;
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        const int32_t c = pick(s, o, &o->grids[row], &to, &total);
        nas__obs_state_drop(s, c, &to);
        result[c] = to;
        if (total >= loss) return NAS_OK; /* no better than in order */
    }
    if (o->bias != 0) result[o->n] = s->w[0];
    memcpy(o->w + (size_t)row * (size_t)o->size, result, (size_t)o->size * sizeof *result);
    return NAS_OK;
}

static nas_status round_row(nas_ctx *ctx, void *arg, size_t row, int worker) {
    const rounder *t = arg;
    nas__obs *o = t->o;
    if (t->leader[row] != t->group) return NAS_OK;
    const size_t size = (size_t)o->size;
    double *w = t->row + (size_t)worker * 3 * size, *tried = w + size, *best = tried + size;
    double *dense = o->w + row * size;
    for (int32_t j = 0; j < t->m; j++)
        w[j] = dense[t->list[j]];
    const double loss = search_grid(t, w, tried, best, &o->grids[row]);
    nas_status status = NAS_OK;
    double *result = tried;
    /* the greedy way starts from the row as it is, so that comes first */
    memcpy(w, dense, size * sizeof *w);
    status = round_greedily(ctx, t, (int32_t)row, worker, loss, result);
    if (status == NAS_OK && memcmp(w, dense, size * sizeof *w) == 0) {
        for (int32_t j = 0; j < t->m; j++)
            dense[t->list[j]] = best[j];
    }
    return status;
}

typedef struct ranked {
    double moment;
    int32_t column;
} ranked;

static int by_moment_falling(const void *a, const void *b) {
    const ranked *x = a, *y = b;
    if (x->moment != y->moment) return x->moment < y->moment ? 1 : -1;
    return x->column < y->column ? -1 : x->column > y->column;
}

/* The columns that a row keeps, in falling order of their moments, then the bias. */
static nas_status list_columns(nas_ctx *ctx, rounder *t) {
    const nas__obs *o = t->o;
    ranked *list = nas_alloc_array(ctx, (size_t)o->n, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    t->m = 0;
    for (int32_t k = 0; k < o->n; k++) {
        if (o->kept[(size_t)t->group * (size_t)o->n + (size_t)k] == 0) continue;
        list[t->m++] = (ranked){o->h[(size_t)k * (size_t)o->size + (size_t)k], k};
    }
    qsort(list, (size_t)t->m, sizeof *list, by_moment_falling);
    for (int32_t j = 0; j < t->m; j++)
        t->list[j] = list[j].column;
    if (o->bias != 0) t->list[t->m++] = o->n;
    nas_free(list);
    return NAS_OK;
}

static nas_status round_group(nas_ctx *ctx, rounder *t) {
    bool definite = false;
    nas_status status = list_columns(ctx, t);
    if (status == NAS_OK && t->m == 0) return NAS_OK;
    if (status == NAS_OK) status = nas__obs_factor(ctx, t->o, t->list, t->m, t->factor, &definite);
    if (status == NAS_OK && !definite)
        status = nas_fail(ctx, NAS_ERR_INTERNAL, "the moments of the kept weights are singular");
    if (status == NAS_OK)
        status = nas_parallel(ctx, t->o->options->threads, (size_t)t->o->rows, round_row, t);
    return status;
}

static nas_status tensor_grid(nas_ctx *ctx, const nas__obs *o, nas_grid *out) {
    float *all = nas_alloc_array(ctx, (size_t)o->rows * (size_t)o->n, sizeof *all);
    double *weight = nas_alloc_array(ctx, (size_t)o->rows * (size_t)o->n, sizeof *weight);
    size_t count = 0;
    for (size_t i = 0; all != NULL && weight != NULL && i < (size_t)o->rows * (size_t)o->n; i++) {
        const size_t r = i / (size_t)o->n, k = i % (size_t)o->n;
        if (o->kept[i] == 0) continue;
        weight[count] = o->h[k * (size_t)o->size + k];
        all[count++] = (float)o->w[r * (size_t)o->size + k];
    }
    const bool done = all != NULL && weight != NULL;
    if (done) *out = nas_grid_fit(o->scheme->grid, o->scheme->bits, all, weight, count);
    nas_free(all);
    nas_free(weight);
    return done ? NAS_OK : NAS_ERR_NOMEM;
}

nas_status nas__obs_round(nas_ctx *ctx, nas__obs *o) {
    const size_t size = (size_t)o->size, threads = (size_t)o->options->threads;
    int32_t *leader = nas_alloc_array(ctx, (size_t)o->rows, sizeof *leader);
    rounder t = {.o = o, .leader = leader};
    nas_grid grid;
    t.list = nas_alloc_array(ctx, size, sizeof *t.list);
    t.factor = nas_alloc_array(ctx, size * size, sizeof *t.factor);
    t.row = nas_alloc_array(ctx, threads * 3 * size, sizeof *t.row);
    t.states = nas_alloc_array(ctx, threads, sizeof *t.states);
    nas_status status =
        leader == NULL || t.list == NULL || t.factor == NULL || t.row == NULL || t.states == NULL
            ? NAS_ERR_NOMEM
            : NAS_OK;
    for (size_t k = 0; k < threads && status == NAS_OK; k++)
        status = nas__obs_state_init(ctx, o, 1, 1, &t.states[k]);
    if (status == NAS_OK && o->scheme->per_tensor) {
        status = tensor_grid(ctx, o, &grid);
        t.of_tensor = &grid;
    }
    if (status == NAS_OK) nas__obs_leaders(o, leader);
    for (int32_t r = 0; r < o->rows && status == NAS_OK; r++) {
        t.group = r;
        if (leader[r] == r) status = round_group(ctx, &t);
    }
    for (size_t k = 0; t.states != NULL && k < threads; k++)
        nas__obs_state_deinit(&t.states[k]);
    nas_free(leader);
    nas_free(t.list);
    nas_free(t.factor);
    nas_free(t.row);
    nas_free(t.states);
    return status;
}
