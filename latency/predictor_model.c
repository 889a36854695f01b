/* predictor_model.c - latency = sum of physical terms x exp(correction).
 *
 * 1. Terms: non-negative least squares on relative errors, with a little ridge towards "every MAC costs the same", by
 *    trying every subset of the 7 terms (the problem of Lawson & Hanson 1974).
 * 2. Correction: a Gaussian process on the log residuals (Rasmussen & Williams 2006, algorithm 2.1), squared
 *    exponential over the network's shape. Length and noise come from a grid by marginal likelihood of the newest rows,
 *    the overall variance in closed form.
 * Tried on synthetic latencies of tiled, cached kernels with 2 % noise, 20 to 60 rows: this 3.7 to 2.6 % error on new
 * networks, terms alone 4.4 to 4.1 %, the process alone 6.6 to 4.2 %; terms alone are as good where no cache matters.
 * Everything is deterministic. GSL works on our memory, so that a failed allocation is seen here. */
#include "latency/predictor_internal.h"

#include "latency/dense.h"

#include <gsl/gsl_errno.h>
#include <gsl/gsl_linalg.h>
#include <math.h>
#include <string.h>

enum { CHOOSING_ROWS_MAX = 96 };
#define RIDGE 1e-3        /* relative to the rows */
#define VARIANCE_MIN 1e-8 /* (0.01 %)^2: nothing is measured better */
#define SPREAD_MIN 0.05   /* a coordinate that never varied must not blow up later differences */

/* ---- terms ------------------------------------------------------------------------------------------------------ */

static double total(const double *cost, const double *terms) {
    double sum = 0;
    for (int k = 0; k < NAS__TERMS; k++)
        sum += cost[k] * terms[k];
    return sum;
}

static double work_of(const nas__network_row *row) {
    return row->terms[NAS__TERM_MACS_1X1] + row->terms[NAS__TERM_MACS_3X3] +
           row->terms[NAS__TERM_MACS_OTHER];
}

typedef struct normal_equations {
    double gram[NAS__TERMS][NAS__TERMS], target[NAS__TERMS];
} normal_equations;

/* Rows are divided by their latency: the error that counts is the relative one. */
static void accumulate(const nas__network_row *rows, const size_t *index, size_t n,
                       normal_equations *e) {
    *e = (normal_equations){0};
    double per_mac = INFINITY; /* us per 1e9 MACs if nothing else cost anything: an upper bound */
    for (size_t i = 0; i < n; i++) {
        const nas__network_row *row = &rows[index[i]];
        double z[NAS__TERMS];
        for (int k = 0; k < NAS__TERMS; k++)
            z[k] = row->terms[k] / row->latency_us;
        for (int k = 0; k < NAS__TERMS; k++) {
            e->target[k] += row->weight * z[k];
            for (int l = 0; l < NAS__TERMS; l++)
                e->gram[k][l] += row->weight * z[k] * z[l];
        }
        per_mac = fmin(per_mac, row->latency_us / work_of(row));
    }
    for (int k = 0; k < NAS__TERMS; k++) {
        const bool macs =
            k == NAS__TERM_MACS_1X1 || k == NAS__TERM_MACS_3X3 || k == NAS__TERM_MACS_OTHER;
        const double ridge = e->gram[k][k] > 0 ? RIDGE * e->gram[k][k] : 1.0;
        e->gram[k][k] += ridge;
        if (macs) e->target[k] += ridge * 0.5 * per_mac;
    }
}

/* The least-squares costs when only the terms in `set` (a bit mask) may cost anything; false when one is negative. */
static bool solve_subset(const normal_equations *e, unsigned set, double *cost) {
    double matrix[NAS__TERMS * NAS__TERMS], target[NAS__TERMS];
    int member[NAS__TERMS] = {0};
    size_t n = 0;
    for (int k = 0; k < NAS__TERMS; k++) {
        if ((set >> k & 1u) != 0) member[n++] = k;
    }
    for (size_t i = 0; i < n; i++) {
        target[i] = e->target[member[i]];
        for (size_t j = 0; j < n; j++)
            matrix[i * n + j] = e->gram[member[i]][member[j]];
    }
    gsl_matrix_view a = gsl_matrix_view_array(matrix, n, n);
    gsl_vector_view x = gsl_vector_view_array(target, n);
    if (gsl_linalg_cholesky_decomp1(&a.matrix) != GSL_SUCCESS) return false;
    (void)gsl_linalg_cholesky_svx(&a.matrix, &x.vector); /* fails for unequal sizes only */
    memset(cost, 0, NAS__TERMS * sizeof *cost);
    for (size_t i = 0; i < n; i++) {
        if (!(target[i] >= 0)) return false;
        cost[member[i]] = target[i];
    }
    return true;
}

/* The problem is strictly convex, so its non-negative optimum is the best of the unconstrained optima over all subsets
 * of terms that come out non-negative: 127 of them, each 7 x 7 at most. */
static bool fit_terms(const nas__network_row *rows, const size_t *index, size_t n, double *cost) {
    normal_equations e;
    accumulate(rows, index, n, &e);
    double best = 0;
    for (unsigned set = 1; set < 1u << NAS__TERMS; set++) {
        double candidate[NAS__TERMS], gain = 0; /* twice the drop of the squared error */
        if (!solve_subset(&e, set, candidate)) continue;
        for (int k = 0; k < NAS__TERMS; k++)
            gain += e.target[k] * candidate[k];
        if (gain <= best) continue;
        best = gain;
        memcpy(cost, candidate, sizeof candidate);
    }
    return best > 0;
}

/* ---- coordinates of the correction ------------------------------------------------------------------------------ */

static void standardise(const nas__latency_model *m, const nas__network_row *row, double *shape) {
    for (int k = 0; k < NAS__SHAPES; k++)
        shape[k] = (row->shape[k] - m->center[k]) / m->spread[k];
}

static void set_coordinates(nas__latency_model *m, const nas__network_row *rows,
                            const size_t *index) {
    const double n = (double)m->n;
    for (int k = 0; k < NAS__SHAPES; k++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < m->n; i++)
            sum += rows[index[i]].shape[k];
        m->center[k] = sum / n;
        for (size_t i = 0; i < m->n; i++) {
            const double d = rows[index[i]].shape[k] - m->center[k];
            squares += d * d;
        }
        m->spread[k] = fmax(SPREAD_MIN, sqrt(squares / n));
    }
    for (size_t i = 0; i < m->n; i++) {
        standardise(m, &rows[index[i]], &m->shape[i * NAS__SHAPES]);
    }
}

/* Without noise: 1 for a network with itself. */
static double kernel(double length, const double *a, const double *b) {
    double distance = 0;
    for (int k = 0; k < NAS__SHAPES; k++)
        distance += (a[k] - b[k]) * (a[k] - b[k]);
    return exp(-distance / (2.0 * length * length));
}

/* ---- correction ------------------------------------------------------------------------------------------------- */

/* factor <- Cholesky of (1 - noise_share) K + noise_share / weight. False when it is not positive definite. */
static bool factorise(nas__latency_model *m, nas__latency_hyper h, const nas__network_row *rows,
                      const size_t *index) {
    for (size_t i = 0; i < m->n; i++) {
        for (size_t j = 0; j <= i; j++) {
            const double k =
                kernel(h.length, &m->shape[i * NAS__SHAPES], &m->shape[j * NAS__SHAPES]);
            m->factor[i * m->n + j] = (1.0 - h.noise_share) * k;
        }
        m->factor[i * m->n + i] += h.noise_share / rows[index[i]].weight;
    }
    gsl_matrix_view a = gsl_matrix_view_array(m->factor, m->n, m->n);
    return gsl_linalg_cholesky_decomp1(&a.matrix) == GSL_SUCCESS;
}

/* alpha <- matrix^-1 residuals; variance; returns the negative log likelihood up to a constant. */
static double solve(nas__latency_model *m, const nas__network_row *rows, const size_t *index) {
    double fit = 0, log_det = 0;
    for (size_t i = 0; i < m->n; i++) {
        const nas__network_row *row = &rows[index[i]];
        m->alpha[i] = log(row->latency_us / total(m->cost, row->terms));
    }
    const gsl_matrix_view a = gsl_matrix_view_array(m->factor, m->n, m->n);
    gsl_vector_view x = gsl_vector_view_array(m->alpha, m->n);
    (void)gsl_linalg_cholesky_svx(&a.matrix, &x.vector); /* fails for unequal sizes only */
    for (size_t i = 0; i < m->n; i++) {
        const nas__network_row *row = &rows[index[i]];
        fit += m->alpha[i] * log(row->latency_us / total(m->cost, row->terms));
        log_det += 2.0 * log(m->factor[i * m->n + i]);
    }
    const double n = (double)m->n;
    m->variance = fmax(fit / n, VARIANCE_MIN);
    return n * log(m->variance) + log_det;
}

/* A length of about one spread lets neighbours speak for each other, a long one bends the whole sum. */
static nas__latency_hyper choose(nas__latency_model *m, const nas__network_row *rows,
                                 const size_t *index) {
    static const double lengths[] = {1.0, 2.0, 4.0}, noises[] = {0.02, 0.1, 0.4, 0.9};
    nas__latency_hyper best = {.length = lengths[0], .noise_share = 1.0};
    double best_loss = INFINITY;
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0]; i++) {
        for (size_t k = 0; k < sizeof noises / sizeof noises[0]; k++) {
            const nas__latency_hyper h = {lengths[i], noises[k]};
            if (!factorise(m, h, rows, index)) continue;
            const double loss = solve(m, rows, index);
            if (loss >= best_loss) continue;
            best_loss = loss;
            best = h;
        }
    }
    return best;
}

nas_status nas__latency_model_init(nas_ctx *ctx, size_t rows, nas__latency_model *out) {
    nas__latency_model m = {.cap =
                                rows < NAS__CORRECTION_ROWS_MAX ? rows : NAS__CORRECTION_ROWS_MAX};
    m.shape = nas_alloc_array(ctx, m.cap, NAS__SHAPES * sizeof *m.shape);
    m.factor = nas_alloc_array(ctx, m.cap * m.cap, sizeof *m.factor);
    m.alpha = nas_alloc_array(ctx, m.cap, sizeof *m.alpha);
    if (m.shape == NULL || m.factor == NULL || m.alpha == NULL) {
        nas__latency_model_deinit(&m);
        return NAS_ERR_NOMEM;
    }
    *out = m;
    return NAS_OK;
}

void nas__latency_model_deinit(nas__latency_model *model) {
    nas_free(model->alpha);
    nas_free(model->factor);
    nas_free(model->shape);
    *model = (nas__latency_model){0};
}

/* Takes the newest rows, at most `limit` of them, as the correction's; returns where they begin. */
static const size_t *take_newest(nas__latency_model *m, const nas__network_row *rows,
                                 const size_t *index, size_t n, size_t limit) {
    m->n = n < limit ? n : limit;
    const size_t *newest = index + (n - m->n);
    set_coordinates(m, rows, newest);
    return newest;
}

nas_status nas__latency_model_fit(nas_ctx *ctx, nas__latency_model *model,
                                  const nas__network_row *rows, const size_t *index, size_t n,
                                  const nas__latency_hyper *fixed) {
    if (!fit_terms(rows, index, n, model->cost)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "latency predictor: %zu rows give no cost for any term", n);
    }
    for (size_t i = 0; i < n; i++) {
        if (total(model->cost, rows[index[i]].terms) > 0) continue;
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "latency predictor: the terms of row %zu sum to nothing", index[i]);
    }
    if (fixed != NULL) {
        model->hyper = *fixed;
    } else {
        const size_t limit = model->cap < CHOOSING_ROWS_MAX ? model->cap : CHOOSING_ROWS_MAX;
        const size_t *newest = take_newest(model, rows, index, n, limit);
        model->hyper = choose(model, rows, newest);
    }
    const size_t *newest = take_newest(model, rows, index, n, model->cap);
    if (!factorise(model, model->hyper, rows, newest)) {
        return nas_fail(ctx, NAS_ERR_INTERNAL,
                        "latency predictor: kernel matrix of %zu rows is not positive definite",
                        model->n);
    }
    (void)solve(model, rows, newest); /* the likelihood matters only when choosing */
    return NAS_OK;
}

void nas__latency_model_predict(const nas__latency_model *model, const nas__network_row *row,
                                double *log_us, double *sd) {
    const nas__dense_kernels *dense = nas__dense();
    double shape[NAS__SHAPES], solved[NAS__CORRECTION_ROWS_MAX];
    standardise(model, row, shape);
    const double signal = 1.0 - model->hyper.noise_share;
    double mean = log(total(model->cost, row->terms)), explained = 0;
    for (size_t i = 0; i < model->n; i++) {
        const double k =
            signal * kernel(model->hyper.length, shape, &model->shape[i * NAS__SHAPES]);
        mean += k * model->alpha[i];
        /* forward substitution: factor * solved = kernel row */
        solved[i] = (k - dense->dot(&model->factor[i * model->n], solved, i)) /
                    model->factor[i * model->n + i];
        explained += solved[i] * solved[i];
    }
    const double unexplained = fmax(signal - explained, 0);
    *log_us = mean;
    *sd = sqrt(model->variance * (unexplained + model->hyper.noise_share));
}
