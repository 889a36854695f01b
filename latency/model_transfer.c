/* model_transfer.c - a device from a few rows of its own and the models of other devices.
 *
 * The log latency of the new device is a Gaussian process whose prior is what the other devices have in common: with
 * z_s the standardised prediction of source s, m their mean and r_s = z_s - m,
 *   cov = scale^2 (common m m' + spread sum_s r_s r_s' + shape mean_s k_s + noise), and a free constant,
 * the sum being over the shape features, too (logarithms of work: what a device would be that follows it alone), and
 * k_s being the Gaussian kernel source s learned: what the sources cannot say is taken to vary as they do. The shares
 * (spread, shape, noise, stretch of the kernels) are averaged over a grid by their likelihood on the few rows, with a
 * prior. The interval is calibrated on the sources: each is in turn the new device. */
#include "latency/transfer_internal.h"

#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <string.h>

enum { FAST_TERMS = 2 + NAS__STRETCHES };

struct nas__transfer {
    nas_device_model **owned; /* sources of this model's own, or NULL */
    const nas_device_model **sources;
    nas__basis basis;
    size_t n; /* rows of the target */
    double *x, *log_y;
    double mean; /* of log_y */
    nas__view rows;
    nas__share grid[NAS__GRID_MAX];
    size_t n_grid;
    double *alpha;   /* [n_grid][n] */
    double *fast;    /* [n][2 + NAS__STRETCHES] the grid's weighted sums of alpha: see fast_mean */
    double *inverse; /* [n_grid][n][n] of the covariance */
};

/* ---- fit -------------------------------------------------------------------------------------------------------- */

void nas__transfer_free(nas__transfer *t) {
    if (t == NULL) return;
    nas__view_deinit(&t->rows, t->basis.n);
    for (size_t s = 0; t->owned != NULL && s < t->basis.n; s++)
        nas_device_model_free(t->owned[s]);
    nas__basis_deinit(&t->basis);
    nas_free(t->inverse);
    nas_free(t->fast);
    nas_free(t->alpha);
    nas_free(t->log_y);
    nas_free(t->x);
    nas_free(t->sources);
    nas_free(t->owned);
    nas_free(t);
}

static nas__posterior posterior_of(const nas__transfer *t) {
    return (nas__posterior){.grid = (nas__share *)(uintptr_t)t->grid,
                            .n_grid = t->n_grid,
                            .n = t->n,
                            .alpha = t->alpha,
                            .inverse = t->inverse};
}

/* The mean is linear in the parts of the covariance, so the grid can be summed before any row is seen. */
static void set_fast(nas__transfer *t) {
    memset(t->fast, 0, t->n * FAST_TERMS * sizeof *t->fast);
    for (size_t g = 0; g < t->n_grid; g++) {
        const nas__share *s = &t->grid[g];
        for (size_t i = 0; i < t->n && s->weight > 0; i++) {
            const double part = s->weight * t->alpha[g * t->n + i];
            double *fast = t->fast + i * FAST_TERMS;
            fast[0] += part;
            fast[1] += part * s->spread;
            fast[2 + s->stretch] += part * s->shape;
        }
    }
}

static double fast_mean(const nas__transfer *t, const nas__parts *row) {
    double mean = 0;
    for (size_t i = 0; i < t->n; i++) {
        const double *fast = t->fast + i * FAST_TERMS;
        mean += fast[0] * (NAS__CONSTANT_VARIANCE + row[i].common) + fast[1] * row[i].spread;
        for (size_t k = 0; k < NAS__STRETCHES; k++)
            mean += fast[2 + k] * row[i].shape[k];
    }
    return mean;
}

static nas_status learn(nas_ctx *ctx, nas__transfer *t) {
    const size_t n = t->n;
    nas__parts *p = nas_alloc_array(ctx, n * n, sizeof *p);
    double *y = nas_alloc_array(ctx, n, sizeof *y);
    size_t *index = nas_alloc_array(ctx, n, sizeof *index);
    nas_status status = p == NULL || y == NULL || index == NULL
                            ? NAS_ERR_NOMEM
                            : nas__view_of(ctx, &t->basis, t->x, n, &t->rows);
    if (status == NAS_OK) {
        t->n_grid = nas__grid_fill(t->grid);
        for (size_t i = 0; i < n; i++)
            index[i] = i;
        for (size_t i = 0; i < n * n; i++)
            p[i] = nas__parts_of(&t->basis, &t->rows, i / n, &t->rows, i % n, t->basis.n);
        t->mean = nas__centred(t->log_y, index, n, t->basis.scale, y);
        nas__posterior q = posterior_of(t);
        status = nas__grid_average(ctx, p, y, &q);
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
    t->alpha = nas_alloc_array(ctx, NAS__GRID_MAX * t->n, sizeof *t->alpha);
    t->inverse = nas_alloc_array(ctx, NAS__GRID_MAX * t->n * t->n, sizeof *t->inverse);
    t->fast = nas_alloc_array(ctx, t->n * FAST_TERMS, sizeof *t->fast);
    if (t->x == NULL || t->log_y == NULL || t->alpha == NULL || t->inverse == NULL ||
        t->fast == NULL) {
        return NAS_ERR_NOMEM;
    }
    memcpy(t->x, target->x, t->n * width * sizeof *t->x);
    memcpy(t->log_y, target->log_y, t->n * sizeof *t->log_y);
    double *pool = NULL;
    size_t n_pool = 0;
    nas_status status = nas__transfer_pool(ctx, t->sources, n_sources, seed, &pool, &n_pool);
    if (status == NAS_OK) {
        status = nas__basis_of(ctx, t->sources, n_sources, pool, n_pool, &t->basis);
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
        status = nas__transfer_calibrate(ctx, &t->basis, t->n, level, seed, quantile);
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
    const nas__view *v;
    double *log_mean, *sd;
} predict_job;

static nas_status predict_block(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const predict_job *job = arg;
    const nas__transfer *t = job->t;
    const nas__view *v = job->v;
    nas__parts *row = nas_alloc_array(ctx, t->n, sizeof *row);
    if (row == NULL) return NAS_ERR_NOMEM;
    const nas__posterior q = posterior_of(t);
    const size_t first = index * PREDICT_BLOCK;
    const size_t end = v->rows - first < PREDICT_BLOCK ? v->rows : first + PREDICT_BLOCK;
    for (size_t i = first; i < end; i++) {
        for (size_t j = 0; j < t->n; j++)
            row[j] = nas__parts_of(&t->basis, v, i, &t->rows, j, t->basis.n);
        job->log_mean[i] = t->mean + t->basis.scale * fast_mean(t, row);
        if (job->sd == NULL) continue;
        const nas__parts self = nas__parts_of(&t->basis, v, i, v, i, t->basis.n);
        double variance = 0;
        (void)nas__grid_combine(&q, row, &self, &variance);
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
        nas__view v = {0};
        status = nas__view_of(ctx, &t->basis, x + i * width, rows, &v);
        predict_job job = {
            .t = t, .v = &v, .log_mean = log_mean + i, .sd = sd != NULL ? sd + i : NULL};
        if (status == NAS_OK) {
            status = nas_parallel(ctx, nas_cpu_count(), (rows + PREDICT_BLOCK - 1) / PREDICT_BLOCK,
                                  predict_block, &job);
        }
        nas__view_deinit(&v, t->basis.n);
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
