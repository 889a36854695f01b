/* transfer_internal.h - what the files of the transferred model share (model_transfer.c says what the model is).
 *
 *   transfer_basis.c      architectures through the sources' eyes: predictions, features, coordinates, their products
 *   transfer_grid.c       shares of the covariance, averaged by their likelihood on the few rows
 *   transfer_rehearsal.c  which rows to measure; each source in turn as the new device, which calibrates the interval
 *   model_transfer.c      the model itself: fit, predict, explain */
#ifndef NAS_LATENCY_TRANSFER_INTERNAL_H
#define NAS_LATENCY_TRANSFER_INTERNAL_H

#include "latency/model_internal.h"

enum { NAS__POOL_MAX = 800, NAS__GRID_MAX = 256, NAS__SHAPES_MAX = 32, NAS__STRETCHES = 3 };
#define NAS__CONSTANT_VARIANCE 100.0

/* A point of the grid: shares of the variance of a source's log latency. */
typedef struct nas__share {
    double spread, shape, noise;
    size_t stretch; /* of the kernels' lengths, 0..NAS__STRETCHES-1 */
    double log_prior;
    double weight; /* of the average, 0 = dropped */
} nas__share;

/* Sources as functions of an architecture. */
typedef struct nas__basis {
    size_t n;                       /* sources */
    size_t width;                   /* and shape features behind them */
    size_t shapes[NAS__SHAPES_MAX]; /* their places among the features */
    double shape_weight;            /* of each: together they count as one source */
    const nas_device_model *const *sources;
    double *center, *spread; /* [width] of the log predictions and features over the pool */
    double scale;            /* mean of spread */
} nas__basis;

/* Architectures seen through the basis: z, its mean over the sources; and its coordinates for every kernel. */
typedef struct nas__view {
    size_t rows;
    double *z;            /* [rows][width] */
    double *common;       /* [rows] mean of z */
    double **coordinates; /* [n + 1] -> [rows][d_s] over the lengths; the last: all alike */
} nas__view;

/* Parts of the covariance of two rows: common, spread and, for each stretch, shape. */
typedef struct nas__parts {
    double common, spread, shape[NAS__STRETCHES];
} nas__parts;

/* What n rows say: grid with weights, alpha [n_grid][n] and inverse [n_grid][n][n] of the covariance. */
typedef struct nas__posterior {
    nas__share *grid;
    size_t n_grid, n;
    double *alpha, *inverse;
} nas__posterior;

/* ---- transfer_basis.c ------------------------------------------------------------------------------------------- */

/* nas__transfer_pool - rows of the sources' tables, raw features, at most NAS__POOL_MAX, chosen by the seed; caller
 * frees *x. */
nas_status nas__transfer_pool(nas_ctx *ctx, const nas_device_model *const *sources,
                              size_t n_sources, uint64_t seed, double **x, size_t *n);
/* nas__basis_of - sources standardised over the pool; they are borrowed. */
nas_status nas__basis_of(nas_ctx *ctx, const nas_device_model *const *sources, size_t n,
                         const double *pool, size_t rows, nas__basis *out);
void nas__basis_deinit(nas__basis *b);
nas_status nas__view_of(nas_ctx *ctx, const nas__basis *b, const double *x, size_t rows,
                        nas__view *out);
void nas__view_deinit(nas__view *v, size_t n_sources);
/* nas__parts_of - of row i of va and row j of vb. skip: a source left out (b->n: none); then the mean is over the
 * others. */
nas__parts nas__parts_of(const nas__basis *b, const nas__view *va, size_t i, const nas__view *vb,
                         size_t j, size_t skip);

/* ---- transfer_grid.c -------------------------------------------------------------------------------------------- */

static inline double nas__covariance(const nas__share *g, const nas__parts *p) {
    return NAS__CONSTANT_VARIANCE + p->common + g->spread * p->spread +
           g->shape * p->shape[g->stretch];
}

size_t nas__grid_fill(nas__share *grid); /* [NAS__GRID_MAX]; how many points it has */
/* nas__grid_average - p: [n][n]; y: [n] centred, over the scale. Sets weights, alpha and inverse; points of no weight
 * are left with weight 0. INTERNAL when no point has a positive definite covariance. */
nas_status nas__grid_average(nas_ctx *ctx, const nas__parts *p, const double *y, nas__posterior *q);
/* nas__grid_combine - mean, and variance (NULL: not asked for), over the scale, of a row: its parts [n] with the n
 * rows, and with itself. */
double nas__grid_combine(const nas__posterior *q, const nas__parts *row, const nas__parts *self,
                         double *variance);

/* ---- transfer_rehearsal.c --------------------------------------------------------------------------------------- */

/* nas__centred - log values of rows[index] centred and over the scale, to y [n]; returns the mean. */
double nas__centred(const double *log_y, const size_t *index, size_t n, double scale, double *y);
/* nas__transfer_calibrate - the quantile of the interval, from each source in turn as the new device with `count` rows. */
nas_status nas__transfer_calibrate(nas_ctx *ctx, const nas__basis *b, size_t count, double level,
                                   uint64_t seed, double *quantile);

#endif
