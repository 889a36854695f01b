/* gp_choose.c - hyper-parameters of the Gaussian process: maximum of marginal likelihood times prior by BFGS (GSL).
 *
 * The prior keeps every length near that of a function of all coordinates alike, so that a hundred coordinates with a
 * few hundred rows do not overfit; only coordinates that the likelihood asks for leave it. */
#include "latency/gp.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_multimin.h>
#include <math.h>
#include <string.h>

enum { LINEAR, SIGNAL, NOISE, LENGTHS }; /* places in the vector of hyper-parameters */
#define AMPLITUDE_PRIOR_SD 3.0
#define LENGTH_PRIOR_SD 1.0
#define JITTER                                                                                     \
    1e-6 /* of the noise, too: data without any would drive its logarithm to minus infinity */
#define BOUND 30.0 /* of any logarithm */

void nas__gp_hyper_start(size_t d, nas__gp_hyper *hyper) {
    hyper->log_linear = 0;
    hyper->log_signal = 0;
    hyper->log_noise = log(0.05);
    for (size_t k = 0; k < d; k++)
        hyper->log_inverse_length[k] = -log(2 * sqrt((double)d));
}

typedef struct problem {
    nas_ctx *ctx;
    const double *x, *y, *weight;
    size_t n, d, pad;
    double *start;                   /* [3 + d] centre of the prior */
    double *linear;                  /* [n][n] x x' / d */
    double *scaled;                  /* [d][pad] */
    double *point;                   /* [d] */
    double *gauss;                   /* [n][pad] */
    double *factor, *inverse, *gram; /* [n][n] */
    double *alpha, *sums;            /* [n] */
    double *weighted;                /* [d] */
} problem;

static void problem_deinit(problem *p) {
    double *const all[] = {p->start,   p->linear, p->scaled, p->point, p->gauss,   p->factor,
                           p->inverse, p->gram,   p->alpha,  p->sums,  p->weighted};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        nas_free(all[i]);
}

static nas_status problem_init(problem *p) {
    const size_t n = p->n, d = p->d;
    p->pad = (n + NAS__DENSE_PAD - 1) / NAS__DENSE_PAD * NAS__DENSE_PAD;
    struct {
        double **array;
        size_t count;
    } const all[] = {
        {&p->start, LENGTHS + d}, {&p->linear, n * n}, {&p->scaled, d * p->pad}, {&p->point, d},
        {&p->gauss, n * p->pad},  {&p->factor, n * n}, {&p->inverse, n * n},     {&p->gram, n * n},
        {&p->alpha, n},           {&p->sums, n},       {&p->weighted, d}};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
        *all[i].array = nas_alloc_array(p->ctx, all[i].count, sizeof(double));
        if (*all[i].array == NULL) return NAS_ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            const double s = nas__dense()->dot(p->x + i * d, p->x + j * d, d) / (double)d;
            p->linear[i * n + j] = p->linear[j * n + i] = s;
        }
    }
    return NAS_OK;
}

static double prior(const problem *p, const gsl_vector *theta, gsl_vector *gradient) {
    double sum = 0;
    for (size_t k = 0; k < LENGTHS + p->d; k++) {
        const double sd = k < LENGTHS ? AMPLITUDE_PRIOR_SD : LENGTH_PRIOR_SD;
        const double off = gsl_vector_get(theta, k) - p->start[k];
        sum += 0.5 * off * off / (sd * sd);
        if (gradient != NULL) {
            gsl_vector_set(gradient, k, gsl_vector_get(gradient, k) + off / (sd * sd));
        }
    }
    return sum;
}

/* Kernel matrix, its factor and K^-1 y. False when out of bounds or not positive definite. */
static bool factorise(problem *p, const gsl_vector *theta) {
    const size_t n = p->n, d = p->d;
    for (size_t k = 0; k < LENGTHS + d; k++) {
        if (!(fabs(gsl_vector_get(theta, k)) < BOUND)) return false;
    }
    for (size_t k = 0; k < d; k++) {
        const double scale = exp(gsl_vector_get(theta, LENGTHS + k));
        for (size_t i = 0; i < n; i++)
            p->scaled[k * p->pad + i] = scale * p->x[i * d + k];
    }
    const double linear = exp(gsl_vector_get(theta, LINEAR));
    const double signal = exp(gsl_vector_get(theta, SIGNAL));
    const double noise = exp(gsl_vector_get(theta, NOISE));
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < d; k++)
            p->point[k] = p->scaled[k * p->pad + i];
        nas__dense()->gauss(p->scaled, p->pad, d, p->point, p->gauss + i * p->pad);
        for (size_t j = 0; j <= i; j++) {
            p->factor[i * n + j] =
                linear * p->linear[i * n + j] + signal * p->gauss[i * p->pad + j];
        }
        p->factor[i * n + i] += (noise + JITTER) / p->weight[i];
    }
    if (!nas__cholesky(p->factor, n)) return false;
    for (size_t i = 0; i < n; i++) {
        const double *row = p->factor + i * n;
        p->alpha[i] = (p->y[i] - nas__dense()->dot(row, p->alpha, i)) / row[i];
    }
    return true;
}

static double value_of(problem *p, const gsl_vector *theta) {
    double fit = 0;
    for (size_t i = 0; i < p->n; i++)
        fit += 0.5 * p->alpha[i] * p->alpha[i] + log(p->factor[i * p->n + i]);
    return fit + prior(p, theta, NULL);
}

/* weights of the derivative: W = K^-1 - alpha alpha'; d value / d t = 1/2 sum W .* dK/dt. */
static void gradient_of(problem *p, const gsl_vector *theta, gsl_vector *out) {
    const size_t n = p->n, d = p->d;
    nas__solve_transposed(p->factor, n, p->alpha);
    nas__inverse(p->factor, n, p->inverse, p->gram);
    const double signal = exp(gsl_vector_get(theta, SIGNAL));
    double of_linear = 0, of_signal = 0, of_noise = 0;
    for (size_t i = 0; i < n; i++) {
        for (size_t j = 0; j <= i; j++) {
            const double w = p->gram[i * n + j] - p->alpha[i] * p->alpha[j];
            const double twice = i == j ? 1 : 2, g = signal * p->gauss[i * p->pad + j];
            of_linear += twice * w * p->linear[i * n + j];
            of_signal += twice * w * g;
            p->inverse[i * n + j] = p->inverse[j * n + i] = w * g; /* reused: W .* K_gauss */
            if (i == j) of_noise += w / p->weight[i];
        }
    }
    gsl_vector_set(out, LINEAR, 0.5 * exp(gsl_vector_get(theta, LINEAR)) * of_linear);
    gsl_vector_set(out, SIGNAL, 0.5 * of_signal);
    gsl_vector_set(out, NOISE, 0.5 * exp(gsl_vector_get(theta, NOISE)) * of_noise);
    /* -1/2 sum_ij M_ij (s x_ik - s x_jk)^2 = -(sum_i r_i (s x_ik)^2 - sum_ij M_ij s x_ik s x_jk) */
    for (size_t i = 0; i < n; i++) {
        p->sums[i] = 0;
        for (size_t j = 0; j < n; j++)
            p->sums[i] += p->inverse[i * n + j];
    }
    for (size_t k = 0; k < d; k++) {
        const double *column = p->scaled + k * p->pad;
        double sum = 0;
        for (size_t i = 0; i < n; i++) {
            sum += column[i] *
                   (p->sums[i] * column[i] - nas__dense()->dot(p->inverse + i * n, column, n));
        }
        gsl_vector_set(out, LENGTHS + k, -sum);
    }
    (void)prior(p, theta, out);
}

static double objective(const gsl_vector *theta, void *arg) {
    problem *p = arg;
    return factorise(p, theta) ? value_of(p, theta) : GSL_NAN;
}

static void objective_both(const gsl_vector *theta, void *arg, double *value, gsl_vector *out) {
    problem *p = arg;
    *value = GSL_NAN;
    gsl_vector_set_zero(out);
    if (!factorise(p, theta)) return;
    *value = value_of(p, theta);
    gradient_of(p, theta, out);
}

static void objective_gradient(const gsl_vector *theta, void *arg, gsl_vector *out) {
    double value;
    objective_both(theta, arg, &value, out);
}

static double *slot(nas__gp_hyper *h, size_t k) {
    if (k == LINEAR) return &h->log_linear;
    if (k == SIGNAL) return &h->log_signal;
    if (k == NOISE) return &h->log_noise;
    return &h->log_inverse_length[k - LENGTHS];
}

static nas_status minimise(problem *p, int iterations, nas__gp_hyper *hyper) {
    const size_t size = LENGTHS + p->d;
    gsl_multimin_fdfminimizer *search =
        gsl_multimin_fdfminimizer_alloc(gsl_multimin_fdfminimizer_vector_bfgs2, size);
    gsl_vector *theta = gsl_vector_alloc(size);
    nas_status status = NAS_OK;
    if (search == NULL || theta == NULL) {
        status = nas_fail(p->ctx, NAS_ERR_NOMEM, "no memory for %zu hyper-parameters", size);
    } else {
        for (size_t k = 0; k < size; k++)
            gsl_vector_set(theta, k, *slot(hyper, k));
        /* cppcheck-suppress legacyUninitvar ; it misreads the initialiser */
        gsl_multimin_function_fdf f = {.f = objective,
                                       .df = objective_gradient,
                                       .fdf = objective_both,
                                       .n = size,
                                       .params = p};
        int code = gsl_multimin_fdfminimizer_set(search, &f, theta, 0.3, 0.3);
        for (int i = 0; i < iterations && code == GSL_SUCCESS && status == NAS_OK; i++) {
            code = gsl_multimin_fdfminimizer_iterate(search); /* GSL_ENOPROG: at the minimum */
            status = nas_check_cancel(p->ctx);
        }
        if (status == NAS_OK && isfinite(gsl_multimin_fdfminimizer_minimum(search))) {
            const gsl_vector *best = gsl_multimin_fdfminimizer_x(search);
            for (size_t k = 0; k < size; k++)
                *slot(hyper, k) = gsl_vector_get(best, k);
        }
    }
    if (theta != NULL) gsl_vector_free(theta);
    if (search != NULL) gsl_multimin_fdfminimizer_free(search);
    return status;
}

nas_status nas__gp_choose(nas_ctx *ctx, const double *x, const double *y, const double *weight,
                          size_t n, size_t d, int iterations, nas__gp_hyper *hyper) {
    (void)gsl_set_error_handler_off();
    problem p = {.ctx = ctx, .x = x, .y = y, .weight = weight, .n = n, .d = d};
    nas_status status = problem_init(&p);
    if (status == NAS_OK) {
        nas__gp_hyper centre = {.log_inverse_length = p.point};
        nas__gp_hyper_start(d, &centre);
        for (size_t k = 0; k < LENGTHS + d; k++)
            p.start[k] = *slot(&centre, k);
        status = minimise(&p, iterations, hyper);
    }
    problem_deinit(&p);
    return status;
}
