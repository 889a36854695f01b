/* dense.h - linear algebra of the predictors: small tiles of inner products, and what is built of them.
 *
 * Matrices are row-major doubles. The order of every sum depends on the sizes alone, so results do not depend on
 * threads; they may differ in the last bits between instruction sets. */
#ifndef NAS_LATENCY_DENSE_H
#define NAS_LATENCY_DENSE_H

#include "core/core.h"

enum { NAS__TILE = 4, NAS__DENSE_PAD = 16 }; /* columns of `squares` come in multiples of PAD */

typedef struct nas__dense_kernels {
    const char *name;
    /* out[4][4] = inner products of 4 rows of a with 4 rows of b, each n long. */
    void (*tile)(const double *a, size_t lda, const double *b, size_t ldb, size_t n, double *out);
    /* sum of a[i] * b[i] */
    double (*dot)(const double *a, const double *b, size_t n);
    /* sum of (a[i] - b[i])^2 */
    double (*distance)(const double *a, const double *b, size_t n);
    /* out[j] = exp(-1/2 sum_k (x[k] - zt[k * m + j])^2), j < m, m a multiple of NAS__DENSE_PAD. */
    void (*gauss)(const double *zt, size_t m, size_t d, const double *x, double *out);
    /* out[4]: for 4 rows of x (transposed, [d][4]) sum_j weight[j] exp(-1/2 |x - z_j|^2), j < m as above, by inner
     * products: half[j] = |z_j|^2 / 2. */
    void (*gauss_sums)(const double *zt, size_t m, size_t d, const double *half,
                       const double *weight, const double *x, double *out);
} nas__dense_kernels;
extern const nas__dense_kernels nas__dense_kernels_base, nas__dense_kernels_avx2,
    nas__dense_kernels_avx512;

/* nas__dense - the widest kernels this CPU runs. */
const nas__dense_kernels *nas__dense(void);

/* nas__cholesky - a [n][n], lower triangle in, factor L out (the upper triangle is not touched). False when a is not
 * positive definite. */
bool nas__cholesky(double *a, size_t n);
/* nas__solve_rows - each row b of x [rows][n] becomes L^-1 b. threads: of nas_parallel. */
nas_status nas__solve_rows(nas_ctx *ctx, const double *l, size_t n, double *x, size_t rows,
                           int threads);
/* nas__solve_transposed - b becomes L^-T b. */
void nas__solve_transposed(const double *l, size_t n, double *b);
/* nas__gram - out [n][n], lower triangle: inner products of the rows of a [n][k]. */
nas_status nas__gram(nas_ctx *ctx, const double *a, size_t n, size_t k, double *out, int threads);

/* nas__inverse - out [n][n], lower triangle: (L L')^-1. work: [n][n]. */
void nas__inverse(const double *l, size_t n, double *work, double *out);

#endif
