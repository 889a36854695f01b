/* dense.c - factorisations from tiles of 4 x 4 inner products: left-looking, rows contiguous. */
#include "latency/dense.h"

#include <math.h>
#include <string.h>

const nas__dense_kernels *nas__dense(void) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return &nas__dense_kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return &nas__dense_kernels_avx2;
    }
#endif
    return &nas__dense_kernels_base;
}

/* Inner products of `rows` x `cols` <= 4 x 4 rows into out[4][4]. */
static void products(const double *a, size_t lda, size_t rows, const double *b, size_t ldb,
                     size_t cols, size_t n, double *out) {
    const nas__dense_kernels *kernels = nas__dense();
    if (rows == NAS__TILE && cols == NAS__TILE) {
        kernels->tile(a, lda, b, ldb, n, out);
        return;
    }
    for (size_t r = 0; r < rows; r++) {
        for (size_t c = 0; c < cols; c++)
            out[r * NAS__TILE + c] = kernels->dot(a + r * lda, b + c * ldb, n);
    }
}

static size_t tile_at(size_t start, size_t n) {
    return n - start < NAS__TILE ? n - start : NAS__TILE;
}

/* Columns j..j+cols of up to four rows of x: x = (x - products) L_jj^-T, all columns before j being done and the
 * first `zeros` being 0. */
static void finish_columns(double *x, size_t ldx, size_t rows, const double *l, size_t n,
                           size_t zeros, size_t j, size_t cols) {
    double s[NAS__TILE * NAS__TILE];
    products(x + zeros, ldx, rows, l + j * n + zeros, n, cols, j - zeros, s);
    for (size_t r = 0; r < rows; r++) {
        double *row = x + r * ldx;
        for (size_t c = 0; c < cols; c++) {
            double value = row[j + c] - s[r * NAS__TILE + c];
            for (size_t k = 0; k < c; k++)
                value -= row[j + k] * l[(j + c) * n + j + k];
            row[j + c] = value / l[(j + c) * n + j + c];
        }
    }
}

bool nas__cholesky(double *a, size_t n) {
    for (size_t i = 0; i < n; i += NAS__TILE) {
        const size_t rows = tile_at(i, n);
        for (size_t j = 0; j < i; j += NAS__TILE)
            finish_columns(a + i * n, n, rows, a, n, 0, j, NAS__TILE);
        double s[NAS__TILE * NAS__TILE];
        products(a + i * n, n, rows, a + i * n, n, rows, i, s);
        for (size_t r = 0; r < rows; r++) {
            double *row = a + (i + r) * n + i;
            for (size_t c = 0; c <= r; c++) {
                const double *other = a + (i + c) * n + i;
                double value = row[c] - s[r * NAS__TILE + c];
                for (size_t k = 0; k < c; k++)
                    value -= row[k] * other[k];
                if (c < r) {
                    row[c] = value / other[c];
                    continue;
                }
                if (!(value > 0) || !isfinite(value)) return false;
                row[c] = sqrt(value);
            }
        }
    }
    return true;
}

typedef struct rows_job {
    const double *l;
    double *x;
    size_t n, rows;
} rows_job;

static nas_status solve_tile(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)ctx, (void)worker;
    const rows_job *job = arg;
    const size_t first = index * NAS__TILE, rows = tile_at(first, job->rows);
    for (size_t j = 0; j < job->n; j += NAS__TILE) {
        finish_columns(job->x + first * job->n, job->n, rows, job->l, job->n, 0, j,
                       tile_at(j, job->n));
    }
    return NAS_OK;
}

nas_status nas__solve_rows(nas_ctx *ctx, const double *l, size_t n, double *x, size_t rows,
                           int threads) {
    rows_job job = {.l = l, .x = x, .n = n, .rows = rows};
    return nas_parallel(ctx, threads, (rows + NAS__TILE - 1) / NAS__TILE, solve_tile, &job);
}

void nas__solve_transposed(const double *l, size_t n, double *b) {
    for (size_t i = n; i-- > 0;) {
        b[i] /= l[i * n + i];
        for (size_t j = 0; j < i; j++)
            b[j] -= l[i * n + j] * b[i];
    }
}

typedef struct gram_job {
    const double *a;
    double *out;
    size_t n, k;
} gram_job;

static nas_status gram_tile(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)ctx, (void)worker;
    const gram_job *job = arg;
    const size_t i = index * NAS__TILE, rows = tile_at(i, job->n);
    double s[NAS__TILE * NAS__TILE];
    for (size_t j = 0; j <= i; j += NAS__TILE) {
        const size_t cols = tile_at(j, job->n);
        products(job->a + i * job->k, job->k, rows, job->a + j * job->k, job->k, cols, job->k, s);
        for (size_t r = 0; r < rows; r++)
            memcpy(job->out + (i + r) * job->n + j, s + r * NAS__TILE, cols * sizeof *s);
    }
    return NAS_OK;
}

nas_status nas__gram(nas_ctx *ctx, const double *a, size_t n, size_t k, double *out, int threads) {
    gram_job job = {.a = a, .out = out, .n = n, .k = k};
    return nas_parallel(ctx, threads, (n + NAS__TILE - 1) / NAS__TILE, gram_tile, &job);
}

void nas__inverse(const double *l, size_t n, double *work, double *out) {
    memset(work, 0, n * n * sizeof *work);
    for (size_t i = 0; i < n; i++)
        work[i * n + i] = 1;
    /* Rows of L^-T, then their inner products; row i begins with i zeros in both. */
    for (size_t i = 0; i < n; i += NAS__TILE) {
        for (size_t j = i; j < n; j += NAS__TILE)
            finish_columns(work + i * n, n, tile_at(i, n), l, n, i, j, tile_at(j, n));
    }
    double s[NAS__TILE * NAS__TILE];
    for (size_t i = 0; i < n; i += NAS__TILE) {
        for (size_t j = 0; j <= i; j += NAS__TILE) {
            const size_t rows = tile_at(i, n), cols = tile_at(j, n);
            products(work + i * n + i, n, rows, work + j * n + i, n, cols, n - i, s);
            for (size_t r = 0; r < rows; r++)
                memcpy(out + (i + r) * n + j, s + r * NAS__TILE, cols * sizeof *s);
        }
    }
}
