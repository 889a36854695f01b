/* model_transfer.c - a device from a few rows of its own and the models of other devices.
 *
 * The log latency of the new device is a Gaussian process whose prior is what the other devices have in common: with
 * z_s the standardised prediction of source s, m their mean and r_s = z_s - m,
 *   cov = scale^2 (common m m' + spread sum_s r_s r_s' + shape mean_s k_s + noise), and a free constant,
 * the sum being over the shape features, too (logarithms of work: what a device would be that follows it alone), and
 * k_s being the Gaussian kernel source s learned: what the sources cannot say is taken to vary as they do. The shares
 * (spread, shape, noise, stretch of the kernels) are averaged over a grid by their likelihood on the few rows, with a
 * prior. The interval is calibrated on the sources: each is in turn the new device. */
#include "latency/model_internal.h"

#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { POOL_MAX = 800, GRID_MAX = 256, SHAPES_MAX = 32 };
#define CONSTANT_VARIANCE 100.0
#define KEPT_SHARE 1e-3 /* of the likelihood: grid points below it are dropped */

/* Values of the grid: shares of the variance of a source's log latency. */
static const double SPREADS[] = {0.03, 0.1, 0.3, 1.0};
static const double SHAPES[] = {0.01, 0.05, 0.2, 0.8};
static const double NOISES[] = {0.003, 0.015, 0.06, 0.2};
enum { N_SPREADS = 4, N_SHAPES = 4, N_NOISES = 4, N_STRETCHES = 3 };
#define WIDEST_STRETCH 2.0 /* of the kernels' lengths; the others 1 and 1/2 */
#define ALIKE_LENGTH 1.4   /* times the root of the coordinates: of the kernel that favours none */
#define ALIKE_SHARE 0.5
#define FOLLOWED                                                                                   \
    0.5          /* correlation with a source from which a shape feature may stand for a device */
#define CLIP 3.0 /* standardised predictions bend towards it */

typedef struct share {
    double spread, shape, noise;
    size_t stretch;
    double log_prior;
    double weight; /* of the average, 0 = dropped */
} share;

/* Sources as functions of an architecture. */
typedef struct basis {
    size_t n;                  /* sources */
    size_t width;              /* and shape features behind them */
    size_t shapes[SHAPES_MAX]; /* their places among the features */
    double shape_weight;       /* of each: together they count as one source */
    const nas_device_model *const *sources;
    double *center, *spread; /* [width] of the log predictions and features over the pool */
    double scale;            /* mean of spread */
} basis;

/* Architectures seen through the basis: z, its mean over the sources; and its coordinates for every kernel. */
typedef struct view {
    size_t rows;
    double *z;            /* [rows][width] */
    double *common;       /* [rows] mean of z */
    double **coordinates; /* [n + 1] -> [rows][d_s] over the lengths; the last: all alike */
} view;

enum { FAST_TERMS = 2 + N_STRETCHES };

struct nas__transfer {
    nas_device_model **owned; /* sources of this model's own, or NULL */
    const nas_device_model **sources;
    basis basis;
    size_t n; /* rows of the target */
    double *x, *log_y;
    double mean; /* of log_y */
    view rows;
    share grid[GRID_MAX];
    size_t n_grid;
    double *alpha;   /* [n_grid][n] */
    double *fast;    /* [n][2 + N_STRETCHES] the grid's weighted sums of alpha: see fast_mean */
    double *inverse; /* [n_grid][n][n] of the covariance */
};

/* ---- sources as functions --------------------------------------------------------------------------------------- */

static void view_deinit(view *v, size_t n_sources) {
    for (size_t s = 0; v->coordinates != NULL && s <= n_sources; s++)
        nas_free(v->coordinates[s]);
    nas_free(v->coordinates);
    nas_free(v->common);
    nas_free(v->z);
    *v = (view){0};
}

static nas_status raw_predictions(nas_ctx *ctx, const basis *b, const double *x, size_t rows,
                                  double *out) {
    double *column = nas_alloc_array(ctx, rows, sizeof *column);
    nas_status status = column == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t s = 0; s < b->n && status == NAS_OK; s++) {
        status = nas__model_predict_log(ctx, b->sources[s], x, rows, column, NULL);
        for (size_t i = 0; i < rows && status == NAS_OK; i++)
            out[i * b->width + s] = column[i];
    }
    const size_t n_features = b->sources[0]->encoder.n_features;
    for (size_t i = 0; i < rows; i++) {
        for (size_t s = b->n; s < b->width; s++)
            out[i * b->width + s] = x[i * n_features + b->shapes[s - b->n]];
    }
    nas_free(column);
    return status;
}

/* Distances need the coordinates over the lengths; stored so. */
static nas_status source_coordinates(nas_ctx *ctx, const nas_device_model *source, const double *x,
                                     size_t rows, bool alike, double **out) {
    const size_t d = source->encoder.d, n = source->encoder.n_features;
    double *z = nas_alloc_array(ctx, rows * d, sizeof *z);
    if (z == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < rows; i++) {
        nas__encode(&source->encoder, x + i * n, z + i * d);
        for (size_t k = 0; k < d; k++)
            z[i * d + k] *= alike ? 1 / (ALIKE_LENGTH * sqrt((double)d))
                                  : exp(source->gp.hyper.log_inverse_length[k]);
    }
    *out = z;
    return NAS_OK;
}

static nas_status view_of(nas_ctx *ctx, const basis *b, const double *x, size_t rows, view *out) {
    view v = {.rows = rows,
              .z = nas_alloc_array(ctx, rows * b->width, sizeof(double)),
              .common = nas_alloc_array(ctx, rows, sizeof(double)),
              .coordinates = nas_alloc_array(ctx, b->n + 1, sizeof(double *))};
    nas_status status = v.z == NULL || v.common == NULL || v.coordinates == NULL
                            ? NAS_ERR_NOMEM
                            : raw_predictions(ctx, b, x, rows, v.z);
    for (size_t s = 0; s < b->n && status == NAS_OK; s++)
        status = source_coordinates(ctx, b->sources[s], x, rows, false, &v.coordinates[s]);
    if (status == NAS_OK) {
        status = source_coordinates(ctx, b->sources[0], x, rows, true, &v.coordinates[b->n]);
    }
    for (size_t i = 0; i < rows && status == NAS_OK; i++) {
        for (size_t s = 0; s < b->width; s++) {
            double *z = &v.z[i * b->width + s];
            *z = CLIP * tanh((*z - b->center[s]) / (b->spread[s] * CLIP));
            if (s < b->n) v.common[i] += *z / (double)b->n;
        }
    }
    if (status != NAS_OK) {
        view_deinit(&v, b->n);
        return status;
    }
    *out = v;
    return NAS_OK;
}

/* Parts of the covariance of row i of a and row j of b: common, spread and, for each stretch, shape. `skip`: a source
 * left out (n: none); then the mean is over the others. */
typedef struct parts {
    double common, spread, shape[N_STRETCHES];
} parts;

/* One exponential for all stretches: each is half the next. */
static void add_shape(size_t d, const double *a, size_t i, const double *b, size_t j, double part,
                      double *shape) {
    const double distance = nas__dense()->distance(a + i * d, b + j * d, d);
    double value = exp(-0.5 * distance / (WIDEST_STRETCH * WIDEST_STRETCH));
    for (size_t t = N_STRETCHES; t-- > 0;) {
        shape[t] += part * value;
        value *= value;
        value *= value;
    }
}

static parts parts_of(const basis *b, const view *va, size_t i, const view *vb, size_t j,
                      size_t skip) {
    const double *za = va->z + i * b->width, *zb = vb->z + j * b->width;
    const double n = (double)b->n;
    double ma = va->common[i], mb = vb->common[j];
    if (skip < b->n) {
        ma = (ma * n - za[skip]) / (n - 1);
        mb = (mb * n - zb[skip]) / (n - 1);
    }
    parts p = {.common = ma * mb};
    const double part = (1 - ALIKE_SHARE) / (skip < b->n ? n - 1 : n);
    for (size_t s = 0; s < b->n; s++) {
        if (s == skip) continue;
        p.spread += (za[s] - ma) * (zb[s] - mb);
        add_shape(b->sources[s]->encoder.d, va->coordinates[s], i, vb->coordinates[s], j, part,
                  p.shape);
    }
    for (size_t s = b->n; s < b->width; s++)
        p.spread += b->shape_weight * (za[s] - ma) * (zb[s] - mb);
    add_shape(b->sources[0]->encoder.d, va->coordinates[b->n], i, vb->coordinates[b->n], j,
              ALIKE_SHARE, p.shape);
    return p;
}

/* ---- grid ------------------------------------------------------------------------------------------------------- */

static double log_normal(double value, double middle, double sd) {
    const double off = log(value / middle) / sd;
    return -0.5 * off * off;
}

static size_t fill_grid(share *grid) {
    size_t n = 0;
    for (size_t a = 0; a < N_SPREADS; a++) {
        for (size_t b = 0; b < N_SHAPES; b++) {
            for (size_t c = 0; c < N_NOISES; c++) {
                for (size_t t = 0; t < N_STRETCHES; t++) {
                    share g = {
                        .spread = SPREADS[a], .shape = SHAPES[b], .noise = NOISES[c], .stretch = t};
                    g.log_prior = log_normal(g.spread, 0.15, 1.2) + log_normal(g.shape, 0.05, 1.2) +
                                  log_normal(g.noise, 0.012, 1.2);
                    grid[n++] = g;
                }
            }
        }
    }
    return n;
}

static double covariance(const share *g, const parts *p) {
    return CONSTANT_VARIANCE + p->common + g->spread * p->spread + g->shape * p->shape[g->stretch];
}

/* Inverse of the covariance, alpha and log likelihood of y (centred, over the scale) at one point of the grid. */
static bool weigh(const share *g, const parts *p, size_t n, const double *y, double *factor,
                  double *inverse, double *alpha, double *log_likelihood) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            factor[i * n + j] = covariance(g, &p[i * n + j]);
        factor[i * n + i] += g->noise;
    }
    if (!nas__cholesky(factor, n)) return false;
    double value = 0;
    for (size_t c = 0; c < n; c++) {
        double *column = inverse + c * n;
        for (size_t i = 0; i < n; i++) {
            double s = i == c ? 1 : 0;
            for (size_t j = 0; j < i; j++)
                s -= factor[i * n + j] * column[j];
            column[i] = s / factor[i * n + i];
        }
        nas__solve_transposed(factor, n, column);
        value -= log(factor[c * n + c]);
    }
    for (size_t i = 0; i < n; i++) {
        alpha[i] = 0;
        for (size_t j = 0; j < n; j++)
            alpha[i] += inverse[i * n + j] * y[j];
        value -= 0.5 * alpha[i] * y[i];
    }
    *log_likelihood = value;
    return true;
}

/* What n rows say: grid with weights, alpha and inverse for each point. */
typedef struct posterior {
    share *grid;
    size_t n_grid, n;
    double *alpha, *inverse;
} posterior;

/* p: [n][n]; y: [n] centred, over the scale. Points of no weight are left with weight 0. */
static nas_status average(nas_ctx *ctx, const parts *p, const double *y, posterior *q) {
    const size_t n = q->n;
    double *factor = nas_alloc_array(ctx, n * n, sizeof *factor);
    double *log_weight = nas_alloc_array(ctx, q->n_grid, sizeof *log_weight);
    nas_status status = factor == NULL || log_weight == NULL ? NAS_ERR_NOMEM : NAS_OK;
    double best = -INFINITY, sum = 0;
    for (size_t g = 0; g < q->n_grid && status == NAS_OK; g++) {
        if (!weigh(&q->grid[g], p, n, y, factor, q->inverse + g * n * n, q->alpha + g * n,
                   &log_weight[g])) {
            log_weight[g] = -INFINITY;
        }
        log_weight[g] += q->grid[g].log_prior;
        best = fmax(best, log_weight[g]);
    }
    if (status == NAS_OK && !isfinite(best)) {
        status = nas_fail(ctx, NAS_ERR_INTERNAL, "transfer: no covariance fits the %zu rows", n);
    }
    for (size_t g = 0; g < q->n_grid && status == NAS_OK; g++) {
        const double w = exp(log_weight[g] - best);
        q->grid[g].weight = w >= KEPT_SHARE ? w : 0;
        sum += q->grid[g].weight;
    }
    for (size_t g = 0; g < q->n_grid && status == NAS_OK; g++)
        q->grid[g].weight /= sum;
    nas_free(log_weight);
    nas_free(factor);
    return status;
}

/* Mean and variance (NULL: not asked for), over the scale, from the parts [n] between a row and the n rows. */
static double combine(const posterior *q, const parts *row, const parts *self, double *variance) {
    double mean = 0, square = 0, within = 0;
    for (size_t g = 0; g < q->n_grid; g++) {
        const share *s = &q->grid[g];
        if (s->weight <= 0) continue;
        double value = 0, explained = 0;
        for (size_t i = 0; i < q->n; i++) {
            const double k = covariance(s, &row[i]);
            value += k * q->alpha[g * q->n + i];
            if (variance == NULL) continue;
            double inner = 0;
            for (size_t j = 0; j < q->n; j++)
                inner += q->inverse[(g * q->n + i) * q->n + j] * covariance(s, &row[j]);
            explained += k * inner;
        }
        mean += s->weight * value;
        square += s->weight * value * value;
        if (variance != NULL)
            within += s->weight * (fmax(covariance(s, self) - explained, 0) + s->noise);
    }
    if (variance != NULL) *variance = within + fmax(square - mean * mean, 0);
    return mean;
}

/* ---- pool ------------------------------------------------------------------------------------------------------- */

/* Rows of the sources' tables, raw features, at most POOL_MAX, chosen by the seed. */
static nas_status pool_of(nas_ctx *ctx, const nas_device_model *const *sources, size_t n_sources,
                          uint64_t seed, double **x, size_t *n) {
    const size_t width = sources[0]->encoder.n_features;
    size_t total = 0;
    for (size_t s = 0; s < n_sources; s++)
        total += sources[s]->rows.n;
    const size_t count = total < POOL_MAX ? total : POOL_MAX;
    double *pool = nas_alloc_array(ctx, count * width, sizeof *pool);
    if (pool == NULL) return NAS_ERR_NOMEM;
    nas_rng rng = nas_rng_stream(seed, total, "transfer-pool");
    size_t seen = 0, taken = 0; /* selection sampling (Knuth, algorithm S) */
    for (size_t s = 0; s < n_sources; s++) {
        for (size_t i = 0; i < sources[s]->rows.n; i++, seen++) {
            if (nas_rng_uniform(&rng) * (double)(total - seen) >= (double)(count - taken)) continue;
            memcpy(pool + taken++ * width, sources[s]->rows.x + i * width, width * sizeof *pool);
        }
    }
    *x = pool;
    *n = taken;
    return NAS_OK;
}

static void basis_deinit(basis *b) {
    nas_free(b->center);
    nas_free(b->spread);
    *b = (basis){0};
}

/* Shape features that no source follows (shares, say) are no device: they leave the basis and `all` [rows][width]. */
static void keep_followed(basis *b, double *all, size_t rows) {
    const size_t before = b->width;
    bool kept[NAS__SOURCES_MAX + SHAPES_MAX] = {false};
    b->width = b->n;
    for (size_t s = 0; s < before; s++) {
        double best = s < b->n ? 1 : -1;
        for (size_t t = 0; t < b->n && s >= b->n; t++) {
            const double r = gsl_stats_correlation(all + s, before, all + t, before, rows);
            if (r > best) best = r; /* a constant has none */
        }
        kept[s] = best >= FOLLOWED;
        if (kept[s] && s >= b->n) {
            b->shapes[b->width - b->n] = b->shapes[s - b->n];
            b->width++;
        }
    }
    double *to = all;
    for (size_t i = 0; i < rows * before; i++)
        if (kept[i % before]) *to++ = all[i];
    b->shape_weight = b->width > b->n ? 1.0 / (double)(b->width - b->n) : 0;
}

static nas_status basis_of(nas_ctx *ctx, const nas_device_model *const *sources, size_t n,
                           const double *pool, size_t rows, basis *out) {
    basis b = {.n = n, .width = n, .sources = sources};
    const nas__encoder *encoder = &sources[0]->encoder;
    for (size_t k = 0; k < encoder->n_features && b.width < n + SHAPES_MAX; k++) {
        if (encoder->features[k].kind == NAS_FEATURE_SHAPE) b.shapes[b.width++ - n] = k;
    }
    b.center = nas_alloc_array(ctx, b.width, sizeof(double));
    b.spread = nas_alloc_array(ctx, b.width, sizeof(double));
    double *all = nas_alloc_array(ctx, rows * b.width, sizeof *all);
    nas_status status = b.center == NULL || b.spread == NULL || all == NULL
                            ? NAS_ERR_NOMEM
                            : raw_predictions(ctx, &b, pool, rows, all);
    if (status == NAS_OK) keep_followed(&b, all, rows);
    for (size_t s = 0; s < b.width && status == NAS_OK; s++) {
        double *column = all + s;
        gsl_sort(column, b.width, rows);
        b.center[s] = gsl_stats_median_from_sorted_data(column, b.width, rows);
        b.spread[s] = (gsl_stats_quantile_from_sorted_data(column, b.width, rows, 0.84) -
                       gsl_stats_quantile_from_sorted_data(column, b.width, rows, 0.16)) /
                      2;
        if (!(b.spread[s] > 1e-9)) b.spread[s] = 1;
        if (s < n) b.scale += b.spread[s] / (double)n;
    }
    nas_free(all);
    if (status != NAS_OK) {
        basis_deinit(&b);
        return status;
    }
    *out = b;
    return NAS_OK;
}

/* ---- which rows to measure -------------------------------------------------------------------------------------- */

static const share TYPICAL = {.spread = 0.15, .shape = 0.05, .noise = 0.02};

/* Greedy: each pick lowers the sum of the variances of all candidates the most. c: [n][n] covariance, used up. */
static void pick_greedily(double *c, size_t n, size_t count, bool *taken, size_t *picks) {
    for (size_t p = 0; p < count; p++) {
        size_t best = n;
        double best_gain = -1;
        for (size_t i = 0; i < n; i++) {
            if (taken[i]) continue;
            const double *row = c + i * n;
            const double gain = nas__dense()->dot(row, row, n) / (row[i] + TYPICAL.noise);
            if (gain > best_gain) best = i, best_gain = gain;
        }
        taken[best] = true;
        picks[p] = best;
        const double divisor = c[best * n + best] + TYPICAL.noise;
        for (size_t i = 0; i < n; i++) {
            if (i == best) continue;
            const double factor = c[i * n + best] / divisor;
            for (size_t j = 0; j < n; j++)
                c[i * n + j] -= factor * c[best * n + j];
        }
        const double left = TYPICAL.noise / divisor;
        for (size_t j = 0; j < n; j++)
            c[best * n + j] *= left;
    }
}

static nas_status pick_from_view(nas_ctx *ctx, const basis *b, const view *v, size_t skip,
                                 size_t count, size_t *picks) {
    const size_t n = v->rows;
    double *c = nas_alloc_array(ctx, n * n, sizeof *c);
    bool *taken = nas_alloc_array(ctx, n, sizeof *taken);
    if (c != NULL && taken != NULL) {
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j <= i; j++) {
                const parts p = parts_of(b, v, i, v, j, skip);
                c[i * n + j] = c[j * n + i] = covariance(&TYPICAL, &p);
            }
        }
        pick_greedily(c, n, count, taken, picks);
    }
    const bool ok = c != NULL && taken != NULL;
    nas_free(taken);
    nas_free(c);
    return ok ? NAS_OK : NAS_ERR_NOMEM;
}

nas_status nas__transfer_pick(nas_ctx *ctx, const nas_device_model *const *sources,
                              size_t n_sources, const nas__merged_rows *candidates, size_t count,
                              uint64_t seed, size_t *picks) {
    const size_t width = sources[0]->encoder.n_features;
    double *pool = NULL;
    size_t n_pool = 0, n = candidates->n < POOL_MAX ? candidates->n : POOL_MAX, taken = 0;
    if (n < count) n = count;
    basis b = {0};
    view v = {0};
    double *x = nas_alloc_array(ctx, n * width, sizeof *x);
    size_t *from = nas_alloc_array(ctx, n, sizeof *from);
    nas_status status = x == NULL || from == NULL
                            ? NAS_ERR_NOMEM
                            : pool_of(ctx, sources, n_sources, seed, &pool, &n_pool);
    nas_rng rng = nas_rng_stream(seed, candidates->n, "transfer-candidates");
    for (size_t i = 0; i < candidates->n && status == NAS_OK; i++) {
        const double left = (double)(candidates->n - i);
        if (nas_rng_uniform(&rng) * left >= (double)(n - taken)) continue;
        memcpy(x + taken * width, candidates->x + i * width, width * sizeof *x);
        from[taken++] = i;
    }
    if (status == NAS_OK) status = basis_of(ctx, sources, n_sources, pool, n_pool, &b);
    if (status == NAS_OK) status = view_of(ctx, &b, x, taken, &v);
    if (status == NAS_OK) status = pick_from_view(ctx, &b, &v, n_sources, count, picks);
    for (size_t i = 0; i < count && status == NAS_OK; i++)
        picks[i] = from[picks[i]];
    view_deinit(&v, n_sources);
    basis_deinit(&b);
    nas_free(pool);
    nas_free(from);
    nas_free(x);
    return status;
}

/* ---- calibration on the sources ---------------------------------------------------------------------------------- */

enum { REHEARSAL_ROWS = 150 };

typedef struct scores {
    double *values;
    size_t n, cap;
} scores;

/* Log values of rows[index] centred and over the scale; returns the mean. */
static double centred(const double *log_y, const size_t *index, size_t n, double scale, double *y) {
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += log_y[index[i]] / (double)n;
    for (size_t i = 0; i < n; i++)
        y[i] = (log_y[index[i]] - mean) / scale;
    return mean;
}

/* Source `skip` as if it were new: `count` of the rows of v measured, the others scored. */
static nas_status rehearse(nas_ctx *ctx, const basis *b, const view *v, const double *log_y,
                           size_t skip, size_t count, scores *out) {
    posterior q = {.n = count,
                   .grid = nas_alloc_array(ctx, GRID_MAX, sizeof(share)),
                   .alpha = nas_alloc_array(ctx, GRID_MAX * count, sizeof(double)),
                   .inverse = nas_alloc_array(ctx, GRID_MAX * count * count, sizeof(double))};
    size_t *picks = nas_alloc_array(ctx, count, sizeof *picks);
    parts *p = nas_alloc_array(ctx, count * count, sizeof *p);
    double *y = nas_alloc_array(ctx, count, sizeof *y);
    nas_status status = q.grid == NULL || q.alpha == NULL || q.inverse == NULL || picks == NULL ||
                                p == NULL || y == NULL
                            ? NAS_ERR_NOMEM
                            : pick_from_view(ctx, b, v, skip, count, picks);
    double mean = 0;
    if (status == NAS_OK) {
        q.n_grid = fill_grid(q.grid);
        for (size_t i = 0; i < count * count; i++)
            p[i] = parts_of(b, v, picks[i / count], v, picks[i % count], skip);
        mean = centred(log_y, picks, count, b->scale, y);
        status = average(ctx, p, y, &q);
    }
    for (size_t i = 0; i < v->rows && status == NAS_OK; i++) {
        bool is_picked = false;
        for (size_t j = 0; j < count; j++) {
            is_picked |= picks[j] == i;
            p[j] = parts_of(b, v, i, v, picks[j], skip);
        }
        if (is_picked) continue;
        const parts self = parts_of(b, v, i, v, i, skip);
        double variance = 0;
        const double value = combine(&q, p, &self, &variance);
        out->values[out->n++] = fabs((log_y[i] - mean) / b->scale - value) / sqrt(variance);
    }
    nas_free(y);
    nas_free(p);
    nas_free(picks);
    nas_free(q.inverse);
    nas_free(q.alpha);
    nas_free(q.grid);
    return status;
}

/* With one source there is nothing to rehearse on: the normal quantile of a variance the model believes in. */
static double normal_quantile(double level) {
    double lo = 0, hi = 10; /* erf(q / sqrt 2) = level */
    for (int i = 0; i < 60; i++) {
        const double q = 0.5 * (lo + hi);
        if (erf(q / sqrt(2)) < level)
            lo = q;
        else
            hi = q;
    }
    return 0.5 * (lo + hi);
}

static nas_status calibrate(nas_ctx *ctx, const basis *b, size_t count, double level, uint64_t seed,
                            double *quantile) {
    *quantile = normal_quantile(level);
    if (b->n < 2) return NAS_OK;
    scores all = {.values = nas_alloc_array(ctx, b->n * REHEARSAL_ROWS, sizeof(double))};
    nas_status status = all.values == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t s = 0; s < b->n && status == NAS_OK; s++) {
        const nas_device_model *source = b->sources[s];
        const size_t width = source->encoder.n_features;
        const size_t n = source->rows.n < REHEARSAL_ROWS ? source->rows.n : REHEARSAL_ROWS;
        if (n < count + 10) continue; /* too few rows to be scored on */
        double *x = nas_alloc_array(ctx, n * width, sizeof *x);
        double *log_y = nas_alloc_array(ctx, n, sizeof *log_y);
        status = x == NULL || log_y == NULL ? NAS_ERR_NOMEM : NAS_OK;
        nas_rng rng = nas_rng_stream(seed, s, "transfer-rehearsal");
        for (size_t i = 0, taken = 0; i < source->rows.n && status == NAS_OK; i++) {
            const double left = (double)(source->rows.n - i);
            if (nas_rng_uniform(&rng) * left >= (double)(n - taken)) continue;
            memcpy(x + taken * width, source->rows.x + i * width, width * sizeof *x);
            log_y[taken++] = source->rows.log_y[i];
        }
        view v = {0};
        if (status == NAS_OK) status = view_of(ctx, b, x, n, &v);
        if (status == NAS_OK) status = rehearse(ctx, b, &v, log_y, s, count, &all);
        view_deinit(&v, b->n);
        nas_free(log_y);
        nas_free(x);
    }
    if (status == NAS_OK && all.n > 0) {
        *quantile = nas__quantile_of_scores(all.values, all.n, level);
    }
    nas_free(all.values);
    return status;
}

/* ---- fit -------------------------------------------------------------------------------------------------------- */

void nas__transfer_free(nas__transfer *t) {
    if (t == NULL) return;
    view_deinit(&t->rows, t->basis.n);
    for (size_t s = 0; t->owned != NULL && s < t->basis.n; s++)
        nas_device_model_free(t->owned[s]);
    basis_deinit(&t->basis);
    nas_free(t->inverse);
    nas_free(t->fast);
    nas_free(t->alpha);
    nas_free(t->log_y);
    nas_free(t->x);
    nas_free(t->sources);
    nas_free(t->owned);
    nas_free(t);
}

static posterior posterior_of(const nas__transfer *t) {
    return (posterior){.grid = (share *)(uintptr_t)t->grid,
                       .n_grid = t->n_grid,
                       .n = t->n,
                       .alpha = t->alpha,
                       .inverse = t->inverse};
}

/* The mean is linear in the parts of the covariance, so the grid can be summed before any row is seen. */
static void set_fast(nas__transfer *t) {
    memset(t->fast, 0, t->n * FAST_TERMS * sizeof *t->fast);
    for (size_t g = 0; g < t->n_grid; g++) {
        const share *s = &t->grid[g];
        for (size_t i = 0; i < t->n && s->weight > 0; i++) {
            const double part = s->weight * t->alpha[g * t->n + i];
            double *fast = t->fast + i * FAST_TERMS;
            fast[0] += part;
            fast[1] += part * s->spread;
            fast[2 + s->stretch] += part * s->shape;
        }
    }
}

static double fast_mean(const nas__transfer *t, const parts *row) {
    double mean = 0;
    for (size_t i = 0; i < t->n; i++) {
        const double *fast = t->fast + i * FAST_TERMS;
        mean += fast[0] * (CONSTANT_VARIANCE + row[i].common) + fast[1] * row[i].spread;
        for (size_t k = 0; k < N_STRETCHES; k++)
            mean += fast[2 + k] * row[i].shape[k];
    }
    return mean;
}

static nas_status learn(nas_ctx *ctx, nas__transfer *t) {
    const size_t n = t->n;
    parts *p = nas_alloc_array(ctx, n * n, sizeof *p);
    double *y = nas_alloc_array(ctx, n, sizeof *y);
    size_t *index = nas_alloc_array(ctx, n, sizeof *index);
    nas_status status = p == NULL || y == NULL || index == NULL
                            ? NAS_ERR_NOMEM
                            : view_of(ctx, &t->basis, t->x, n, &t->rows);
    if (status == NAS_OK) {
        t->n_grid = fill_grid(t->grid);
        for (size_t i = 0; i < n; i++)
            index[i] = i;
        for (size_t i = 0; i < n * n; i++)
            p[i] = parts_of(&t->basis, &t->rows, i / n, &t->rows, i % n, t->basis.n);
        t->mean = centred(t->log_y, index, n, t->basis.scale, y);
        posterior q = posterior_of(t);
        status = average(ctx, p, y, &q);
        if (status == NAS_OK) set_fast(t);
    }
    nas_free(index);
    nas_free(y);
    nas_free(p);
    return status;
}

/* Room, the target's rows (merged, in first order) and the basis. */
static nas_status transfer_init(nas_ctx *ctx, const nas__merged_rows *target, size_t width,
                                nas__transfer *t, size_t n_sources, uint64_t seed) {
    t->n = target->n;
    t->x = nas_alloc_array(ctx, t->n * width, sizeof *t->x);
    t->log_y = nas_alloc_array(ctx, t->n, sizeof *t->log_y);
    t->alpha = nas_alloc_array(ctx, GRID_MAX * t->n, sizeof *t->alpha);
    t->inverse = nas_alloc_array(ctx, GRID_MAX * t->n * t->n, sizeof *t->inverse);
    t->fast = nas_alloc_array(ctx, t->n * FAST_TERMS, sizeof *t->fast);
    if (t->x == NULL || t->log_y == NULL || t->alpha == NULL || t->inverse == NULL ||
        t->fast == NULL) {
        return NAS_ERR_NOMEM;
    }
    memcpy(t->x, target->x, t->n * width * sizeof *t->x);
    memcpy(t->log_y, target->log_y, t->n * sizeof *t->log_y);
    double *pool = NULL;
    size_t n_pool = 0;
    nas_status status = pool_of(ctx, t->sources, n_sources, seed, &pool, &n_pool);
    if (status == NAS_OK) {
        status = basis_of(ctx, t->sources, n_sources, pool, n_pool, &t->basis);
    }
    nas_free(pool);
    return status;
}

nas_status nas__transfer_new(nas_ctx *ctx, const nas_device_model *const *sources, size_t n_sources,
                             const nas__merged_rows *target, double level, uint64_t seed,
                             double *quantile, nas__transfer **out) {
    nas__transfer *t = nas_alloc_array(ctx, 1, sizeof *t);
    if (t == NULL) return NAS_ERR_NOMEM;
    const size_t width = sources[0]->encoder.n_features;
    t->sources = nas_alloc_array(ctx, n_sources, sizeof *t->sources);
    nas_status status = t->sources == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        memcpy(t->sources, sources, n_sources * sizeof *sources);
        status = transfer_init(ctx, target, width, t, n_sources, seed);
    }
    if (status == NAS_OK) status = learn(ctx, t);
    if (status == NAS_OK && quantile != NULL) {
        status = calibrate(ctx, &t->basis, t->n, level, seed, quantile);
    }
    if (status != NAS_OK) {
        nas__transfer_free(t);
        return status;
    }
    *out = t;
    return NAS_OK;
}

void nas__transfer_own(nas__transfer *t, nas_device_model **take_sources) {
    t->owned = take_sources;
}

/* ---- predict ---------------------------------------------------------------------------------------------------- */

enum { PREDICT_BLOCK = 256 };

typedef struct predict_job {
    const nas__transfer *t;
    const view *v;
    double *log_mean, *sd;
} predict_job;

static nas_status predict_block(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const predict_job *job = arg;
    const nas__transfer *t = job->t;
    const view *v = job->v;
    parts *row = nas_alloc_array(ctx, t->n, sizeof *row);
    if (row == NULL) return NAS_ERR_NOMEM;
    const posterior q = posterior_of(t);
    const size_t first = index * PREDICT_BLOCK;
    const size_t end = v->rows - first < PREDICT_BLOCK ? v->rows : first + PREDICT_BLOCK;
    for (size_t i = first; i < end; i++) {
        for (size_t j = 0; j < t->n; j++)
            row[j] = parts_of(&t->basis, v, i, &t->rows, j, t->basis.n);
        job->log_mean[i] = t->mean + t->basis.scale * fast_mean(t, row);
        if (job->sd == NULL) continue;
        const parts self = parts_of(&t->basis, v, i, v, i, t->basis.n);
        double variance = 0;
        (void)combine(&q, row, &self, &variance);
        job->sd[i] = t->basis.scale * sqrt(variance);
    }
    nas_free(row);
    return NAS_OK;
}

enum { VIEW_ROWS = 16 * PREDICT_BLOCK }; /* what is looked at together, to bound the memory */

nas_status nas__transfer_predict(nas_ctx *ctx, const nas__transfer *t, const double *x, size_t n,
                                 double *log_mean, double *sd) {
    const size_t width = t->sources[0]->encoder.n_features;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i += VIEW_ROWS) {
        const size_t rows = n - i < VIEW_ROWS ? n - i : VIEW_ROWS;
        view v = {0};
        status = view_of(ctx, &t->basis, x + i * width, rows, &v);
        predict_job job = {
            .t = t, .v = &v, .log_mean = log_mean + i, .sd = sd != NULL ? sd + i : NULL};
        if (status == NAS_OK) {
            status = nas_parallel(ctx, nas_cpu_count(), (rows + PREDICT_BLOCK - 1) / PREDICT_BLOCK,
                                  predict_block, &job);
        }
        view_deinit(&v, t->basis.n);
    }
    return status;
}

/* ---- look inside ------------------------------------------------------------------------------------------------ */

size_t nas__transfer_sources(const nas__transfer *t, const nas_device_model *const **sources) {
    *sources = t->sources;
    return t->basis.n;
}

double nas__transfer_noise(const nas__transfer *t) {
    double noise = 0;
    for (size_t g = 0; g < t->n_grid; g++)
        noise += t->grid[g].weight * t->grid[g].noise;
    return t->basis.scale * sqrt(noise);
}

void nas__transfer_explain(const nas__transfer *t, nas_json *json) {
    double spread = 0, shape = 0;
    for (size_t g = 0; g < t->n_grid; g++) {
        spread += t->grid[g].weight * t->grid[g].spread;
        shape += t->grid[g].weight * t->grid[g].shape;
    }
    nas_json_key(json, "shares");
    nas_json_object(json);
    nas_json_key(json, "spread");
    nas_json_double(json, spread);
    nas_json_key(json, "shape");
    nas_json_double(json, shape);
    nas_json_object_end(json);
    nas_json_key(json, "sources");
    nas_json_array(json);
    for (size_t s = 0; s < t->basis.n; s++) {
        const double *z = t->rows.z + s; /* column of the target's rows */
        nas_json_object(json);
        nas_json_key(json, "device");
        nas_json_string(json, t->sources[s]->device);
        nas_json_key(json, "rows");
        nas_json_int(json, (int64_t)t->sources[s]->n_train);
        nas_json_key(json, "correlation");
        nas_json_double(json, gsl_stats_correlation(z, t->basis.width, t->log_y, 1, t->n));
        nas_json_object_end(json);
    }
    nas_json_array_end(json);
}
