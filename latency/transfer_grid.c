/* transfer_grid.c - shares of a transferred model's covariance (spread, shape, noise, stretch of the kernels), averaged
 * over a grid by their likelihood on the few rows, with a prior. */
#include "latency/transfer_internal.h"

#include <math.h>

#define KEPT_SHARE 1e-3 /* of the likelihood: grid points below it are dropped */

/* Values of the grid: shares of the variance of a source's log latency. */
static const double SPREADS[] = {0.03, 0.1, 0.3, 1.0};
static const double SHAPES[] = {0.01, 0.05, 0.2, 0.8};
static const double NOISES[] = {0.003, 0.015, 0.06, 0.2};
enum { N_SPREADS = 4, N_SHAPES = 4, N_NOISES = 4 };
_Static_assert(N_SPREADS *N_SHAPES *N_NOISES *NAS__STRETCHES <= NAS__GRID_MAX, "grid has room");

/* ---- grid ------------------------------------------------------------------------------------------------------- */

static double log_normal(double value, double middle, double sd) {
    const double off = log(value / middle) / sd;
    return -0.5 * off * off;
}

size_t nas__grid_fill(nas__share *grid) {
    size_t n = 0;
    for (size_t a = 0; a < N_SPREADS; a++) {
        for (size_t b = 0; b < N_SHAPES; b++) {
            for (size_t c = 0; c < N_NOISES; c++) {
                for (size_t t = 0; t < NAS__STRETCHES; t++) {
                    nas__share g = {
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

/* Inverse of the covariance, alpha and log likelihood of y (nas__centred, over the scale) at one point of the grid. */
static bool weigh(const nas__share *g, const nas__parts *p, size_t n, const double *y,
                  double *factor, double *inverse, double *alpha, double *log_likelihood) {
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j < n; j++)
            factor[i * n + j] = nas__covariance(g, &p[i * n + j]);
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

/* p: [n][n]; y: [n] nas__centred, over the scale. Points of no weight are left with weight 0. */
nas_status nas__grid_average(nas_ctx *ctx, const nas__parts *p, const double *y,
                             nas__posterior *q) {
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
double nas__grid_combine(const nas__posterior *q, const nas__parts *row, const nas__parts *self,
                         double *variance) {
    double mean = 0, square = 0, within = 0;
    for (size_t g = 0; g < q->n_grid; g++) {
        const nas__share *s = &q->grid[g];
        if (s->weight <= 0) continue;
        double value = 0, explained = 0;
        for (size_t i = 0; i < q->n; i++) {
            const double k = nas__covariance(s, &row[i]);
            value += k * q->alpha[g * q->n + i];
            if (variance == NULL) continue;
            double inner = 0;
            for (size_t j = 0; j < q->n; j++)
                inner += q->inverse[(g * q->n + i) * q->n + j] * nas__covariance(s, &row[j]);
            explained += k * inner;
        }
        mean += s->weight * value;
        square += s->weight * value * value;
        if (variance != NULL)
            within += s->weight * (fmax(nas__covariance(s, self) - explained, 0) + s->noise);
    }
    if (variance != NULL) *variance = within + fmax(square - mean * mean, 0);
    return mean;
}
