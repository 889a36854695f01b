/* gp.c - posterior of the Gaussian process by its inducing rows, held-out residuals, robust weights. */
#include "latency/gp.h"

#include <gsl/gsl_sort.h>
#include <math.h>
#include <string.h>

enum { ITERATIONS_FIRST = 25, ITERATIONS_AGAIN = 10, ROWS_ROBUST_MIN = 40 };
#define JITTER 1e-6         /* of the noise, as in gp_choose.c */
#define NUGGET 1e-8         /* of the kernel matrix, against rounding */
#define STUDENT_DEGREES 4.0 /* of freedom: what a residual far out still counts */

void nas__gp_deinit(nas__gp *gp) {
    double *const all[] = {gp->hyper.log_inverse_length,
                           gp->inducing,
                           gp->scaled,
                           gp->half,
                           gp->inverse_length,
                           gp->beta,
                           gp->slope,
                           gp->factor,
                           gp->information};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        nas_free(all[i]);
    *gp = (nas__gp){0};
}

static size_t scratch_size(const nas__gp *gp) {
    return gp->pad + gp->d;
}

/* Kernel between x and the inducing rows: out[pad] Gaussian part only; point: [d] scratch. */
static void gauss_row(const nas__gp *gp, const double *x, double *point, double *out) {
    for (size_t k = 0; k < gp->d; k++)
        point[k] = x[k] * gp->inverse_length[k];
    nas__dense()->gauss(gp->scaled, gp->pad, gp->d, point, out);
}

static void kernel_row(const nas__gp *gp, const double *x, double *scratch, double *out) {
    const double signal = exp(gp->hyper.log_signal);
    const double linear = exp(gp->hyper.log_linear) / (double)gp->d;
    gauss_row(gp, x, scratch + gp->pad, scratch);
    for (size_t j = 0; j < gp->m; j++) {
        out[j] =
            signal * scratch[j] + linear * nas__dense()->dot(x, gp->inducing + j * gp->d, gp->d);
    }
}

static double kernel_self(const nas__gp *gp, const double *x) {
    return exp(gp->hyper.log_signal) +
           exp(gp->hyper.log_linear) / (double)gp->d * nas__dense()->dot(x, x, gp->d);
}

void nas__gp_means(const nas__gp *gp, const double *x, double *scratch,
                   double out[static NAS__TILE]) {
    for (size_t k = 0; k < gp->d; k++)
        for (size_t r = 0; r < NAS__TILE; r++)
            scratch[k * NAS__TILE + r] = x[r * gp->d + k] * gp->inverse_length[k];
    nas__dense()->gauss_sums(gp->scaled, gp->pad, gp->d, gp->half, gp->beta, scratch, out);
    for (size_t r = 0; r < NAS__TILE; r++) {
        const double value = out[r] + nas__dense()->dot(x + r * gp->d, gp->slope, gp->d);
        out[r] = gp->mean + gp->scale * value;
    }
}

/* ---- posterior -------------------------------------------------------------------------------------------------- */

static nas_status allocate(nas_ctx *ctx, nas__gp *gp) {
    gp->pad = (gp->m + NAS__DENSE_PAD - 1) / NAS__DENSE_PAD * NAS__DENSE_PAD;
    struct {
        double **array;
        size_t count;
    } const all[] = {{&gp->inducing, gp->m * gp->d}, {&gp->scaled, gp->d * gp->pad},
                     {&gp->half, gp->pad},           {&gp->inverse_length, gp->d},
                     {&gp->beta, gp->pad},           {&gp->slope, gp->d},
                     {&gp->factor, gp->m * gp->m},   {&gp->information, gp->m * gp->m}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        if (*all[i].array != NULL) continue;
        *all[i].array = nas_alloc_array(ctx, all[i].count, sizeof(double));
        if (*all[i].array == NULL) return NAS_ERR_NOMEM;
    }
    return NAS_OK;
}

/* A random order of the rows by the seed: the first are those of the basis and those the hyper-parameters see. */
static void shuffled(uint64_t seed, size_t n, size_t *order) {
    nas_rng rng = nas_rng_stream(seed, n, "gp-rows");
    for (size_t i = 0; i < n; i++)
        order[i] = i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = nas_rng_below(&rng, (uint32_t)i), t = order[i - 1];
        order[i - 1] = order[j];
        order[j] = t;
    }
}

static void set_basis(nas__gp *gp, const nas__gp_rows *rows, const size_t *order) {
    memset(gp->scaled, 0, gp->d * gp->pad * sizeof *gp->scaled);
    memset(gp->half, 0, gp->pad * sizeof *gp->half);
    for (size_t k = 0; k < gp->d; k++) {
        const double inverse = exp(gp->hyper.log_inverse_length[k]);
        gp->inverse_length[k] = inverse;
        for (size_t j = 0; j < gp->m; j++) {
            const double x = rows->x[order[j] * gp->d + k];
            gp->inducing[j * gp->d + k] = x;
            gp->scaled[k * gp->pad + j] = inverse * x;
            gp->half[j] += 0.5 * inverse * x * inverse * x;
        }
    }
}

/* Work of one posterior; v [n][m]: rows L^-1 k(x_i), vt [m][n]: transposed, times the root of the row's precision. */
typedef struct work {
    double *v, *vt, *target, *right, *scratch;
    size_t *order;
} work;

static void work_deinit(work *w) {
    nas_free(w->order);
    nas_free(w->scratch);
    nas_free(w->right);
    nas_free(w->target);
    nas_free(w->vt);
    nas_free(w->v);
}

static nas_status work_init(nas_ctx *ctx, const nas__gp *gp, size_t n, work *w) {
    size_t cells = 0;
    nas_status status = nas_mul_size(ctx, n, gp->m, &cells);
    if (status != NAS_OK) return status;
    w->v = nas_alloc_array(ctx, cells, sizeof(double));
    w->vt = nas_alloc_array(ctx, cells, sizeof(double));
    w->target = nas_alloc_array(ctx, n, sizeof(double));
    w->right = nas_alloc_array(ctx, gp->m, sizeof(double));
    w->scratch = nas_alloc_array(ctx, scratch_size(gp), sizeof(double));
    w->order = nas_alloc_array(ctx, n, sizeof(size_t));
    return w->v == NULL || w->vt == NULL || w->target == NULL || w->right == NULL ||
                   w->scratch == NULL || w->order == NULL
               ? NAS_ERR_NOMEM
               : NAS_OK;
}

static void center(const nas__gp_rows *rows, double *sorted, double *mean, double *scale) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < rows->n; i++)
        sum += sorted[i] = rows->y[i];
    gsl_sort(sorted, 1, rows->n);
    *mean = 0.5 * (sorted[(rows->n - 1) / 2] + sorted[rows->n / 2]);
    sum /= (double)rows->n;
    for (size_t i = 0; i < rows->n; i++)
        squares += (rows->y[i] - sum) * (rows->y[i] - sum);
    *scale = sqrt(squares / (double)rows->n);
    if (!(*scale > 1e-9)) *scale = 1; /* all equal */
}

static nas_status kernel_matrix(nas_ctx *ctx, nas__gp *gp, const nas__gp_rows *rows, work *w) {
    for (size_t j = 0; j < gp->m; j++) {
        double *row = gp->factor + j * gp->m;
        kernel_row(gp, gp->inducing + j * gp->d, w->scratch, row);
        row[j] += NUGGET * (1 + row[j]);
    }
    if (!nas__cholesky(gp->factor, gp->m)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "device model: kernel matrix of %zu rows is not positive definite", gp->m);
    }
    for (size_t i = 0; i < rows->n; i++)
        kernel_row(gp, rows->x + i * gp->d, w->scratch, w->v + i * gp->m);
    return nas__solve_rows(ctx, gp->factor, gp->m, w->v, rows->n, nas_cpu_count());
}

/* From w->v: information matrix, beta and slope; w->right is left with the coefficients of v. */
static nas_status solve(nas_ctx *ctx, nas__gp *gp, const nas__gp_rows *rows, work *w) {
    const size_t n = rows->n, m = gp->m;
    const double noise = exp(gp->hyper.log_noise) + JITTER;
    for (size_t i = 0; i < n; i++) {
        const double root = sqrt(rows->weight[i] / noise);
        for (size_t j = 0; j < m; j++)
            w->vt[j * n + i] = root * w->v[i * m + j];
        w->target[i] = root * (rows->y[i] - gp->mean) / gp->scale;
    }
    const nas_status status = nas__gram(ctx, w->vt, m, n, gp->information, nas_cpu_count());
    if (status != NAS_OK) return status;
    for (size_t j = 0; j < m; j++)
        gp->information[j * m + j] += 1;
    if (!nas__cholesky(gp->information, m)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "device model: information of %zu rows is not positive definite", n);
    }
    for (size_t j = 0; j < m; j++) {
        const double *row = gp->information + j * m;
        w->right[j] =
            (nas__dense()->dot(w->vt + j * n, w->target, n) - nas__dense()->dot(row, w->right, j)) /
            row[j];
    }
    nas__solve_transposed(gp->information, m, w->right);
    memset(gp->beta, 0, gp->pad * sizeof *gp->beta);
    memcpy(gp->beta, w->right, m * sizeof *gp->beta); /* of v; next those of the rows */
    nas__solve_transposed(gp->factor, m, gp->beta);
    const double linear = exp(gp->hyper.log_linear) / (double)gp->d;
    memset(gp->slope, 0, gp->d * sizeof *gp->slope);
    for (size_t j = 0; j < m; j++) {
        for (size_t k = 0; k < gp->d; k++)
            gp->slope[k] += linear * gp->beta[j] * gp->inducing[j * gp->d + k];
    }
    const double signal = exp(gp->hyper.log_signal);
    for (size_t j = 0; j < m; j++)
        gp->beta[j] *= signal;
    return NAS_OK;
}

/* Residual of each row had it been left out (weight-space leave-one-out), and its expected deviation with the noise of
 * one measurement. Uses up w->vt. */
static nas_status leave_one_out(nas_ctx *ctx, const nas__gp *gp, const nas__gp_rows *rows, work *w,
                                double *loo, double *loo_sd) {
    const size_t n = rows->n, m = gp->m;
    const double noise = exp(gp->hyper.log_noise) + JITTER;
    memcpy(w->vt, w->v, n * m * sizeof *w->vt);
    const nas_status status = nas__solve_rows(ctx, gp->information, m, w->vt, n, nas_cpu_count());
    if (status != NAS_OK) return status;
    for (size_t i = 0; i < n; i++) {
        const double *v = w->v + i * m, *s = w->vt + i * m;
        const double spread = nas__dense()->dot(s, s, m);
        const double unexplained =
            kernel_self(gp, rows->x + i * gp->d) - nas__dense()->dot(v, v, m);
        const double left = fmax(1 - spread * rows->weight[i] / noise, 1e-6);
        const double mean = nas__dense()->dot(v, w->right, m);
        loo[i] = gp->scale * ((rows->y[i] - gp->mean) / gp->scale - mean) / left;
        loo_sd[i] = gp->scale * sqrt(spread / left + fmax(unexplained, 0) + noise);
    }
    return NAS_OK;
}

static nas_status posterior(nas_ctx *ctx, nas__gp *gp, const nas__gp_rows *rows, work *w,
                            double *loo, double *loo_sd) {
    set_basis(gp, rows, w->order);
    nas_status status = kernel_matrix(ctx, gp, rows, w);
    if (status == NAS_OK) status = solve(ctx, gp, rows, w);
    if (status == NAS_OK && loo != NULL) status = leave_one_out(ctx, gp, rows, w, loo, loo_sd);
    return status;
}

/* ---- fit -------------------------------------------------------------------------------------------------------- */

static nas_status choose(nas_ctx *ctx, nas__gp *gp, const nas__gp_rows *rows, const work *w,
                         int iterations) {
    const size_t n = rows->n < NAS__GP_CHOOSE_ROWS ? rows->n : NAS__GP_CHOOSE_ROWS;
    double *x = nas_alloc_array(ctx, n * gp->d, sizeof *x);
    double *y = nas_alloc_array(ctx, n, sizeof *y);
    double *weight = nas_alloc_array(ctx, n, sizeof *weight);
    nas_status status = x == NULL || y == NULL || weight == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        memcpy(x + i * gp->d, rows->x + w->order[i] * gp->d, gp->d * sizeof *x);
        y[i] = (rows->y[w->order[i]] - gp->mean) / gp->scale;
        weight[i] = rows->weight[w->order[i]];
    }
    if (status == NAS_OK) {
        status = nas__gp_choose(ctx, x, y, weight, n, gp->d, iterations, &gp->hyper);
    }
    nas_free(weight);
    nas_free(y);
    nas_free(x);
    return status;
}

/* Weights of a Student-t likelihood around the held-out residuals. */
static void reweigh(nas__gp_rows *rows, const double *loo, double *sorted) {
    for (size_t i = 0; i < rows->n; i++)
        sorted[i] = fabs(loo[i]);
    gsl_sort(sorted, 1, rows->n);
    const double sd = sorted[rows->n / 2] / 0.6745;
    if (!(sd > 0)) return;
    for (size_t i = 0; i < rows->n; i++) {
        const double off = loo[i] / sd;
        rows->weight[i] *= fmin(1, (STUDENT_DEGREES + 1) / (STUDENT_DEGREES + off * off));
    }
}

nas_status nas__gp_fit(nas_ctx *ctx, nas__gp_rows *rows, uint64_t seed, nas__gp *out, double *loo,
                       double *loo_sd, bool *seen) {
    nas__gp gp = {.d = rows->d, .m = rows->n < NAS__GP_INDUCING ? rows->n : NAS__GP_INDUCING};
    work w = {0};
    gp.hyper.log_inverse_length = nas_alloc_array(ctx, gp.d, sizeof(double));
    nas_status status = gp.hyper.log_inverse_length == NULL ? NAS_ERR_NOMEM : allocate(ctx, &gp);
    if (status == NAS_OK) status = work_init(ctx, &gp, rows->n, &w);
    if (status == NAS_OK) {
        nas__gp_hyper_start(gp.d, &gp.hyper);
        shuffled(seed, rows->n, w.order);
        for (size_t i = 0; i < rows->n; i++)
            seen[w.order[i]] = i < NAS__GP_CHOOSE_ROWS;
        center(rows, w.target, &gp.mean, &gp.scale);
        status = choose(ctx, &gp, rows, &w, ITERATIONS_FIRST);
    }
    if (status == NAS_OK) status = posterior(ctx, &gp, rows, &w, loo, loo_sd);
    if (status == NAS_OK && rows->n >= ROWS_ROBUST_MIN) {
        reweigh(rows, loo, w.target);
        status = choose(ctx, &gp, rows, &w, ITERATIONS_AGAIN);
        if (status == NAS_OK) status = posterior(ctx, &gp, rows, &w, loo, loo_sd);
    }
    work_deinit(&w);
    if (status != NAS_OK) {
        nas__gp_deinit(&gp);
        return status;
    }
    *out = gp;
    return NAS_OK;
}

nas_status nas__gp_restore(nas_ctx *ctx, const nas__gp_rows *rows, nas__gp_hyper take_hyper,
                           uint64_t seed, nas__gp *out) {
    nas__gp gp = {.d = rows->d,
                  .m = rows->n < NAS__GP_INDUCING ? rows->n : NAS__GP_INDUCING,
                  .hyper = take_hyper};
    work w = {0};
    nas_status status = allocate(ctx, &gp);
    if (status == NAS_OK) status = work_init(ctx, &gp, rows->n, &w);
    if (status == NAS_OK) {
        shuffled(seed, rows->n, w.order);
        center(rows, w.target, &gp.mean, &gp.scale);
        status = posterior(ctx, &gp, rows, &w, NULL, NULL);
    }
    work_deinit(&w);
    if (status != NAS_OK) {
        nas__gp_deinit(&gp);
        return status;
    }
    *out = gp;
    return NAS_OK;
}

/* ---- variance --------------------------------------------------------------------------------------------------- */

enum { VARIANCE_BLOCK = 64 };

typedef struct variance_job {
    const nas__gp *gp;
    const double *x;
    size_t n;
    double *out;
} variance_job;

static nas_status variance_block(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const variance_job *job = arg;
    const nas__gp *gp = job->gp;
    const size_t first = index * VARIANCE_BLOCK, m = gp->m;
    const size_t rows = job->n - first < VARIANCE_BLOCK ? job->n - first : VARIANCE_BLOCK;
    const double noise = exp(gp->hyper.log_noise) + JITTER;
    double *v = nas_alloc_array(ctx, rows * m, sizeof *v);
    double *scratch = nas_alloc_array(ctx, scratch_size(gp), sizeof *scratch);
    nas_status status = v == NULL || scratch == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < rows && status == NAS_OK; i++)
        kernel_row(gp, job->x + (first + i) * gp->d, scratch, v + i * m);
    if (status == NAS_OK) status = nas__solve_rows(ctx, gp->factor, m, v, rows, 1);
    for (size_t i = 0; i < rows && status == NAS_OK; i++) {
        const double *x = job->x + (first + i) * gp->d;
        job->out[first + i] =
            fmax(kernel_self(gp, x) - nas__dense()->dot(v + i * m, v + i * m, m), 0);
    }
    if (status == NAS_OK) status = nas__solve_rows(ctx, gp->information, m, v, rows, 1);
    for (size_t i = 0; i < rows && status == NAS_OK; i++) {
        double *out = &job->out[first + i];
        *out += nas__dense()->dot(v + i * m, v + i * m, m) + noise;
        *out *= gp->scale * gp->scale;
    }
    nas_free(scratch);
    nas_free(v);
    return status;
}

nas_status nas__gp_variances(nas_ctx *ctx, const nas__gp *gp, const double *x, size_t n,
                             int threads, double *out) {
    variance_job job = {.gp = gp, .x = x, .n = n, .out = out};
    return nas_parallel(ctx, threads, (n + VARIANCE_BLOCK - 1) / VARIANCE_BLOCK, variance_block,
                        &job);
}
