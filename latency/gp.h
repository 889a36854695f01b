/* gp.h - a Gaussian process over coordinates of architectures (Rasmussen & Williams 2006, chapters 2, 5 and 8).
 *
 * Kernel: a linear part over all coordinates plus a Gaussian with one length for each coordinate, learned by maximum
 * likelihood on a subset of the rows with a prior on the lengths. Noise is per row, by weights: rows far off the rest
 * (a disturbed measurement) are given less weight, as under a Student-t likelihood. Up to `inducing` rows the posterior
 * is exact; above, those rows are the basis and all rows are used (deterministic training conditional). */
#ifndef NAS_LATENCY_GP_H
#define NAS_LATENCY_GP_H

#include "latency/dense.h"

enum { NAS__GP_INDUCING = 1000, NAS__GP_CHOOSE_ROWS = 320 };

typedef struct nas__gp_hyper {
    double log_linear, log_signal, log_noise; /* variances, of targets of variance 1 */
    double *log_inverse_length;               /* [d] */
} nas__gp_hyper;

typedef struct nas__gp {
    size_t d, m, pad; /* coordinates, inducing rows, rounded up to NAS__DENSE_PAD */
    nas__gp_hyper hyper;
    double mean, scale;     /* of the targets */
    double *inducing;       /* [m][d] */
    double *scaled;         /* [d][pad] coordinates over lengths, transposed */
    double *inverse_length; /* [d] */
    double *half;           /* [pad] half the square of its columns */
    double *beta;           /* [pad] */
    double *slope;          /* [d] of the linear part */
    double *factor;         /* [m][m] of the kernel matrix of the inducing rows */
    double *information;    /* [m][m] factor of I + V W V' */
} nas__gp;

/* What a fit learns from. Rows must differ from one another (merge equal ones first). */
typedef struct nas__gp_rows {
    const double *x; /* [n][d], standardised */
    const double *y; /* [n] */
    double *
        weight; /* [n] how many measurements a row stands for; a robust fit lowers those of outliers */
    size_t n, d;
} nas__gp_rows;

/* nas__gp_fit - learns hyper-parameters, weights and posterior. loo, loo_sd: [n] held-out residual of each row, and the
 * standard deviation expected of it with one measurement's noise. seen: [n] whether the hyper-parameters were chosen with it. */
nas_status nas__gp_fit(nas_ctx *ctx, nas__gp_rows *rows, uint64_t seed, nas__gp *out, double *loo,
                       double *loo_sd, bool *seen);
/* nas__gp_restore - the posterior alone, from hyper-parameters (taken over) and weights of an earlier fit. */
nas_status nas__gp_restore(nas_ctx *ctx, const nas__gp_rows *rows, nas__gp_hyper take_hyper,
                           uint64_t seed, nas__gp *out);
void nas__gp_deinit(nas__gp *gp);

/* nas__gp_means - of NAS__TILE rows, x [NAS__TILE][d]; a row's value does not depend on the others. scratch:
 * [NAS__TILE * d] */
void nas__gp_means(const nas__gp *gp, const double *x, double *scratch,
                   double out[static NAS__TILE]);
/* nas__gp_variances - of the noisy value, [n] for x [n][d]. */
nas_status nas__gp_variances(nas_ctx *ctx, const nas__gp *gp, const double *x, size_t n,
                             int threads, double *out);

/* nas__gp_choose - hyper-parameters by likelihood on rows[index[0..n)], targets already of mean 0 and variance 1;
 * hyper: start and result. gp_choose.c */
nas_status nas__gp_choose(nas_ctx *ctx, const double *x, const double *y, const double *weight,
                          size_t n, size_t d, int iterations, nas__gp_hyper *hyper);
/* nas__gp_hyper_start - where the search for hyper-parameters begins, also the centre of their prior. */
void nas__gp_hyper_start(size_t d, nas__gp_hyper *hyper);

#endif
