/* transfer_rehearsal.c - what a transferred model asks of its sources before it trusts ten rows: which architectures to
 * measure, and how wide the interval has to be when each source in turn plays the new device. */
#include "latency/transfer_internal.h"

#include <gsl/gsl_cdf.h>
#include <math.h>
#include <string.h>

/* ---- which rows to measure -------------------------------------------------------------------------------------- */

static const nas__share TYPICAL = {.spread = 0.15, .shape = 0.05, .noise = 0.02};

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

static nas_status pick_from_view(nas_ctx *ctx, const nas__basis *b, const nas__view *v, size_t skip,
                                 size_t count, size_t *picks) {
    const size_t n = v->rows;
    double *c = nas_alloc_array(ctx, n * n, sizeof *c);
    bool *taken = nas_alloc_array(ctx, n, sizeof *taken);
    if (c != NULL && taken != NULL) {
        for (size_t i = 0; i < n; i++) {
            for (size_t j = 0; j <= i; j++) {
                const nas__parts p = nas__parts_of(b, v, i, v, j, skip);
                c[i * n + j] = c[j * n + i] = nas__covariance(&TYPICAL, &p);
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
    size_t n_pool = 0, n = candidates->n < NAS__POOL_MAX ? candidates->n : NAS__POOL_MAX, taken = 0;
    if (n < count) n = count;
    nas__basis b = {0};
    nas__view v = {0};
    double *x = nas_alloc_array(ctx, n * width, sizeof *x);
    size_t *from = nas_alloc_array(ctx, n, sizeof *from);
    nas_status status = x == NULL || from == NULL
                            ? NAS_ERR_NOMEM
                            : nas__transfer_pool(ctx, sources, n_sources, seed, &pool, &n_pool);
    nas_rng rng = nas_rng_stream(seed, candidates->n, "transfer-candidates");
    for (size_t i = 0; i < candidates->n && status == NAS_OK; i++) {
        const double left = (double)(candidates->n - i);
        if (nas_rng_uniform(&rng) * left >= (double)(n - taken)) continue;
        memcpy(x + taken * width, candidates->x + i * width, width * sizeof *x);
        from[taken++] = i;
    }
    if (status == NAS_OK) status = nas__basis_of(ctx, sources, n_sources, pool, n_pool, &b);
    if (status == NAS_OK) status = nas__view_of(ctx, &b, x, taken, &v);
    if (status == NAS_OK) status = pick_from_view(ctx, &b, &v, n_sources, count, picks);
    for (size_t i = 0; i < count && status == NAS_OK; i++)
        picks[i] = from[picks[i]];
    nas__view_deinit(&v, n_sources);
    nas__basis_deinit(&b);
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

/* Log values of rows[index] nas__centred and over the scale; returns the mean. */
double nas__centred(const double *log_y, const size_t *index, size_t n, double scale, double *y) {
    double mean = 0;
    for (size_t i = 0; i < n; i++)
        mean += log_y[index[i]] / (double)n;
    for (size_t i = 0; i < n; i++)
        y[i] = (log_y[index[i]] - mean) / scale;
    return mean;
}

/* Source `skip` as if it were new: `count` of the rows of v measured, the others scored. */
static nas_status rehearse(nas_ctx *ctx, const nas__basis *b, const nas__view *v,
                           const double *log_y, size_t skip, size_t count, scores *out) {
    nas__posterior q = {.n = count,
                        .grid = nas_alloc_array(ctx, NAS__GRID_MAX, sizeof(nas__share)),
                        .alpha = nas_alloc_array(ctx, NAS__GRID_MAX * count, sizeof(double)),
                        .inverse =
                            nas_alloc_array(ctx, NAS__GRID_MAX * count * count, sizeof(double))};
    size_t *picks = nas_alloc_array(ctx, count, sizeof *picks);
    nas__parts *p = nas_alloc_array(ctx, count * count, sizeof *p);
    double *y = nas_alloc_array(ctx, count, sizeof *y);
    nas_status status = q.grid == NULL || q.alpha == NULL || q.inverse == NULL || picks == NULL ||
                                p == NULL || y == NULL
                            ? NAS_ERR_NOMEM
                            : pick_from_view(ctx, b, v, skip, count, picks);
    double mean = 0;
    if (status == NAS_OK) {
        q.n_grid = nas__grid_fill(q.grid);
        for (size_t i = 0; i < count * count; i++)
            p[i] = nas__parts_of(b, v, picks[i / count], v, picks[i % count], skip);
        mean = nas__centred(log_y, picks, count, b->scale, y);
        status = nas__grid_average(ctx, p, y, &q);
    }
    for (size_t i = 0; i < v->rows && status == NAS_OK; i++) {
        bool is_picked = false;
        for (size_t j = 0; j < count; j++) {
            is_picked |= picks[j] == i;
            p[j] = nas__parts_of(b, v, i, v, picks[j], skip);
        }
        if (is_picked) continue;
        const nas__parts self = nas__parts_of(b, v, i, v, i, skip);
        double variance = 0;
        const double value = nas__grid_combine(&q, p, &self, &variance);
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

nas_status nas__transfer_calibrate(nas_ctx *ctx, const nas__basis *b, size_t count, double level,
                                   uint64_t seed, double *quantile) {
    /* With one source there is nothing to rehearse on: as if the model believed its variance. */
    *quantile = gsl_cdf_ugaussian_Pinv(0.5 * (1 + level));
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
        nas__view v = {0};
        if (status == NAS_OK) status = nas__view_of(ctx, b, x, n, &v);
        if (status == NAS_OK) status = rehearse(ctx, b, &v, log_y, s, count, &all);
        nas__view_deinit(&v, b->n);
        nas_free(log_y);
        nas_free(x);
    }
    if (status == NAS_OK && all.n > 0) {
        *quantile = nas__quantile_of_scores(all.values, all.n, level);
    }
    nas_free(all.values);
    return status;
}
