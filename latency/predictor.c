/* predictor.c - measured rows in, latency with an interval out, of 95 % unless told otherwise.
 *
 * The interval is conformal (Vovk et al. 2005; Barber et al., arXiv:1905.02928, cross-conformal): rows are held out in
 * turn, the errors are divided by the model's own standard deviation, and the interval is that deviation times the
 * small-sample corrected quantile of the level of these scores. The held-out errors are also the reported quality. */
#include "latency/predictor_internal.h"

#include <gsl/gsl_cdf.h>
#include <gsl/gsl_errno.h>
#include <gsl/gsl_sort.h>
#include <gsl/gsl_statistics_double.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { ROWS_MIN = 8, FOLDS_MAX = 10 };
#define LEVEL_DEFAULT 0.95
#define NOISY_WEIGHT 0.25   /* a noisy row has twice the standard deviation */
#define LATENCY_MAX_US 1e12 /* eleven days: anything above is a wrong unit */

struct nas_predictor {
    int32_t lanes;
    nas__network_row *rows;
    size_t n, cap, n_groups;
    bool is_fitted;
    nas__latency_model model;
    double level;    /* share of measurements inside the interval */
    double quantile; /* of |log error| / sd */
    nas_predictor_quality quality;
    char id[64];
};

nas_status nas_predictor_new(nas_ctx *ctx, int32_t lanes, nas_predictor **out) {
    const nas_status status = nas__check_lanes(ctx, lanes);
    if (status != NAS_OK) return status;
    nas_predictor *p = nas_alloc_array(ctx, 1, sizeof *p);
    if (p == NULL) return NAS_ERR_NOMEM;
    p->lanes = lanes;
    p->level = LEVEL_DEFAULT;
    (void)snprintf(p->id, sizeof p->id, "terms-gp/1 n=0");
    (void)
        gsl_set_error_handler_off(); /* GSL's default handler aborts; its status codes are checked instead */
    *out = p;
    return NAS_OK;
}

void nas_predictor_free(nas_predictor *p) {
    if (p == NULL) return;
    nas__latency_model_deinit(&p->model);
    nas_free(p->rows);
    nas_free(p);
}

nas_status nas_predictor_set_level(nas_ctx *ctx, nas_predictor *p, double level) {
    if (!(level >= 0.5 && level <= 0.999))
        return nas_fail(ctx, NAS_ERR_RANGE, "latency predictor: level %g, must be 0.5..0.999",
                        level);
    p->level = level;
    return NAS_OK;
}

size_t nas_predictor_min_rows(void) {
    return ROWS_MIN;
}

nas_predictor_quality nas_predictor_quality_of(const nas_predictor *p) {
    return p->quality;
}

const char *nas_predictor_id(const nas_predictor *p) {
    return p->id;
}

static bool same_features(const nas__network_row *a, const nas__network_row *b) {
    return memcmp(a->terms, b->terms, sizeof a->terms) == 0 &&
           memcmp(a->shape, b->shape, sizeof a->shape) == 0;
}

nas_status nas_predictor_add(nas_ctx *ctx, nas_predictor *p, const nas_graph *graph, double p50_us,
                             bool noisy) {
    if (!isfinite(p50_us) || p50_us <= 0 || p50_us > LATENCY_MAX_US) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "latency of graph '%s': %g us, must be above 0, at most %g",
                        nas_graph_name(graph), p50_us, LATENCY_MAX_US);
    }
    nas__network_row row;
    nas_status status = nas__network_features(ctx, graph, p->lanes, &row);
    if (status == NAS_OK) status = nas_grow(ctx, &p->rows, &p->cap, p->n + 1, sizeof *p->rows);
    if (status != NAS_OK) return status;
    row.latency_us = p50_us;
    row.weight = noisy ? NOISY_WEIGHT : 1.0;
    row.group = p->n_groups;
    for (size_t i = 0; i < p->n && row.group == p->n_groups; i++) {
        if (same_features(&p->rows[i], &row)) row.group = p->rows[i].group;
    }
    if (row.group == p->n_groups) p->n_groups++;
    p->rows[p->n++] = row;
    return NAS_OK;
}

/* ---- held-out errors -------------------------------------------------------------------------------------------- */

typedef struct held_out {
    double *predicted_us, *measured_us, *score; /* [n] */
    double *ranks;                              /* [2 n] work space */
    size_t *index;                              /* [n] */
} held_out;

static void held_out_deinit(held_out *h) {
    nas_free(h->index);
    nas_free(h->ranks);
    nas_free(h->score);
    nas_free(h->measured_us);
    nas_free(h->predicted_us);
}

static nas_status held_out_init(nas_ctx *ctx, size_t n, held_out *out) {
    held_out h = {.predicted_us = nas_alloc_array(ctx, n, sizeof(double)),
                  .measured_us = nas_alloc_array(ctx, n, sizeof(double)),
                  .score = nas_alloc_array(ctx, n, sizeof(double)),
                  .ranks = nas_alloc_array(ctx, 2 * n, sizeof(double)),
                  .index = nas_alloc_array(ctx, n, sizeof(size_t))};
    *out = h;
    if (h.predicted_us != NULL && h.measured_us != NULL && h.score != NULL && h.ranks != NULL &&
        h.index != NULL) {
        return NAS_OK;
    }
    held_out_deinit(out);
    return NAS_ERR_NOMEM;
}

/* Rows of one group stay together, so a repeated network never predicts itself. */
static nas_status cross_validate(nas_ctx *ctx, const nas_predictor *p,
                                 const nas__latency_hyper *hyper, nas__latency_model *model,
                                 held_out *h) {
    const size_t folds = p->n_groups < FOLDS_MAX ? p->n_groups : FOLDS_MAX;
    for (size_t fold = 0; fold < folds; fold++) {
        size_t n = 0;
        for (size_t i = 0; i < p->n; i++) {
            if (p->rows[i].group % folds != fold) h->index[n++] = i;
        }
        const nas_status status = nas__latency_model_fit(ctx, model, p->rows, h->index, n, hyper);
        if (status != NAS_OK) return status;
        for (size_t i = 0; i < p->n; i++) {
            if (p->rows[i].group % folds != fold) continue;
            double log_us = 0, sd = 0;
            nas__latency_model_predict(model, &p->rows[i], &log_us, &sd);
            h->predicted_us[i] = exp(log_us);
            h->measured_us[i] = p->rows[i].latency_us;
            /* A noisy row's error is judged by a noisy row's deviation. */
            h->score[i] = fabs(log(p->rows[i].latency_us) - log_us) / sd * sqrt(p->rows[i].weight);
        }
    }
    return NAS_OK;
}

/* The ceil((n + 1) level)-th smallest score. With few rows (below 20 at 95 %) there is none that large: then Student's t on their root
 * mean square, and at least the largest. */
static double calibrate(double *score, size_t n, double level) {
    gsl_sort(score, 1, n);
    const double rank = ceil(((double)n + 1.0) * level);
    if (rank <= (double)n) return score[(size_t)rank - 1];
    double squares = 0;
    for (size_t i = 0; i < n; i++)
        squares += score[i] * score[i];
    const double rms = sqrt(squares / (double)n);
    const double t = gsl_cdf_tdist_Pinv(0.5 + level / 2.0, (double)n - 1.0);
    return fmax(score[n - 1], rms * t * sqrt(1.0 + 1.0 / (double)n));
}

static nas_predictor_quality quality_from(const held_out *h, size_t n) {
    nas_predictor_quality q = {.n_train = n, .is_set = true};
    for (size_t i = 0; i < n; i++)
        q.mape += fabs(h->predicted_us[i] / h->measured_us[i] - 1.0) / (double)n;
    q.spearman = gsl_stats_spearman(h->predicted_us, 1, h->measured_us, 1, n, h->ranks);
    if (!isfinite(q.spearman)) q.spearman = 0; /* all latencies equal: no order to find */
    return q;
}

/* The usual level needs no mention. */
static void name_model(nas_predictor *p) {
    const bool usual = !(p->level < LEVEL_DEFAULT) && !(p->level > LEVEL_DEFAULT);
    const int n = snprintf(p->id, sizeof p->id, "terms-gp/1 n=%zu", p->n);
    if (n > 0 && !usual)
        (void)snprintf(p->id + n, sizeof p->id - (size_t)n, " level=%.4g", p->level);
}

static nas_status fit_all(nas_ctx *ctx, const nas_predictor *p, held_out *h,
                          nas__latency_model *model) {
    for (size_t i = 0; i < p->n; i++)
        h->index[i] = i;
    return nas__latency_model_fit(ctx, model, p->rows, h->index, p->n, NULL);
}

nas_status nas_predictor_fit(nas_ctx *ctx, nas_predictor *p) {
    if (p->n < ROWS_MIN || p->n_groups < 2) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "latency predictor: %zu rows of %zu networks, needs %d rows of at least 2: "
                        "measure more first",
                        p->n, p->n_groups, ROWS_MIN);
    }
    nas__latency_model full = {0}, part = {0};
    held_out h = {0};
    nas_status status = held_out_init(ctx, p->n, &h);
    if (status != NAS_OK) return status;
    status = nas__latency_model_init(ctx, p->n, &full);
    if (status == NAS_OK) status = nas__latency_model_init(ctx, p->n, &part);
    if (status == NAS_OK) status = fit_all(ctx, p, &h, &full);
    if (status == NAS_OK) status = cross_validate(ctx, p, &full.hyper, &part, &h);
    if (status == NAS_OK) {
        p->quality = quality_from(&h, p->n);
        p->quantile = calibrate(h.score, p->n, p->level);
        p->is_fitted = true;
        name_model(p);
        nas__latency_model_deinit(&p->model);
        p->model = full;
        full = (nas__latency_model){0};
    }
    nas__latency_model_deinit(&part);
    nas__latency_model_deinit(&full);
    held_out_deinit(&h);
    return status;
}

nas_status nas_predictor_predict(nas_ctx *ctx, const nas_predictor *p, const nas_graph *graph,
                                 nas_prediction *out) {
    if (!p->is_fitted)
        return nas_fail(ctx, NAS_ERR_INVALID, "latency predictor: not fitted yet, call fit first");
    nas__network_row row;
    const nas_status status = nas__network_features(ctx, graph, p->lanes, &row);
    if (status != NAS_OK) return status;
    double log_us = 0, sd = 0;
    nas__latency_model_predict(&p->model, &row, &log_us, &sd);
    const double half = p->quantile * sd;
    const nas_prediction prediction = {exp(log_us), exp(log_us - half), exp(log_us + half)};
    if (!isfinite(prediction.p50_us) || !isfinite(prediction.hi_us) || prediction.lo_us <= 0) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "latency predictor: graph '%s' is too far from everything measured",
                        nas_graph_name(graph));
    }
    *out = prediction;
    return NAS_OK;
}
