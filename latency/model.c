/* model.c - a device model from the device's own rows: coordinates, Gaussian process over log values, conformal
 * interval from the held-out residuals of the same fit (Vovk et al. 2005; leave-one-out in closed form). */
#include "latency/model_internal.h"

#include <gsl/gsl_sort.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const names[] = {"gp", NULL};

const char *const *nas_device_model_names(void) {
    return names;
}

nas_device_model_options nas_device_model_options_default(void) {
    return (nas_device_model_options){.model = "auto", .seed = 1, .level = 0.90};
}

void nas_device_model_free(nas_device_model *model) {
    if (model == NULL) return;
    nas__transfer_free(model->transfer);
    nas__gp_deinit(&model->gp);
    nas__merged_rows_deinit(&model->rows);
    nas__encoder_deinit(&model->encoder);
    nas_free(model->device);
    nas_free(model);
}

const char *nas_device_model_id(const nas_device_model *model) {
    return model->id;
}
size_t nas_device_model_n_train(const nas_device_model *model) {
    return model->n_train;
}
double nas_device_model_level(const nas_device_model *model) {
    return model->level;
}
const nas_feature *nas_device_model_features(const nas_device_model *model, size_t *n) {
    *n = model->encoder.n_features;
    return model->encoder.features;
}

double nas__quantile_of_scores(double *scores, size_t n, double level) {
    gsl_sort(scores, 1, n);
    const double rank = ceil((double)(n + 1) * level);
    return scores[rank > (double)n ? n - 1 : (size_t)rank - 1];
}

enum { UNSEEN_ROWS_MIN = 100 };

/* ---- fit -------------------------------------------------------------------------------------------------------- */

nas_status nas__check_options(nas_ctx *ctx, const nas_device_model_options *options) {
    if (!(options->level >= 0.5 && options->level <= 0.99)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "level of the interval %g: must be 0.5..0.99",
                        options->level);
    }
    const char *name = options->model;
    if (name != NULL && strcmp(name, "auto") == 0) return NAS_OK;
    for (size_t i = 0; name != NULL && names[i] != NULL; i++) {
        if (strcmp(name, names[i]) == 0) return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "no device model '%s': must be \"auto\" or \"gp\"",
                    name == NULL ? "" : name);
}

nas_status nas__encode_rows(nas_ctx *ctx, const nas__encoder *encoder, const double *x, size_t n,
                            double **out) {
    double *z = nas_alloc_array(ctx, n * encoder->d, sizeof *z);
    if (z == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        nas__encode(encoder, x + i * encoder->n_features, z + i * encoder->d);
    *out = z;
    return NAS_OK;
}

/* A score for every measurement, not for every merged row, whose mean is quieter. Held-out residuals of rows that took
 * part in choosing the hyper-parameters are a little too small: where there are enough others, these alone calibrate.
 * scores: [table->n_rows]. */
static double calibrated(const nas_latency_table *table, const nas__merged_rows *rows,
                         const bool *seen, double level, const double *loo, const double *sd,
                         double *scores) {
    size_t unseen = 0, n = 0;
    for (size_t i = 0; i < table->n_rows; i++)
        unseen += !seen[rows->of_row[i]];
    for (size_t i = 0; i < table->n_rows; i++) {
        const size_t at = rows->of_row[i];
        if (unseen >= UNSEEN_ROWS_MIN && seen[at]) continue;
        const double held_out = rows->log_y[at] - loo[at];
        scores[n++] = fabs(log(table->y[i]) - held_out) / sd[at];
    }
    return nas__quantile_of_scores(scores, n, level);
}

static nas_status fit_rows(nas_ctx *ctx, const nas_latency_table *table, nas_device_model *m) {
    nas__merged_rows *rows = &m->rows;
    double *z = NULL;
    double *loo = nas_alloc_array(ctx, rows->n, sizeof *loo);
    double *sd = nas_alloc_array(ctx, rows->n, sizeof *sd);
    bool *seen = nas_alloc_array(ctx, rows->n, sizeof *seen);
    double *scores = nas_alloc_array(ctx, table->n_rows, sizeof *scores);
    nas_status status = loo == NULL || sd == NULL || seen == NULL || scores == NULL
                            ? NAS_ERR_NOMEM
                            : nas__encode_rows(ctx, &m->encoder, rows->x, rows->n, &z);
    if (status == NAS_OK) {
        nas__gp_rows gp_rows = {
            .x = z, .y = rows->log_y, .weight = rows->weight, .n = rows->n, .d = m->encoder.d};
        status = nas__gp_fit(ctx, &gp_rows, m->seed, &m->gp, loo, sd, seen);
    }
    if (status == NAS_OK) m->quantile = calibrated(table, rows, seen, m->level, loo, sd, scores);
    nas_free(z);
    nas_free(scores);
    nas_free(seen);
    nas_free(sd);
    nas_free(loo);
    return status;
}

nas_status nas_device_model_fit(nas_ctx *ctx, const nas_latency_table *table,
                                const nas_device_model_options *options, nas_device_model **out) {
    nas_status status = nas_latency_table_check(ctx, table, true);
    if (status == NAS_OK) status = nas__check_options(ctx, options);
    if (status != NAS_OK) return status;
    if (table->n_rows < NAS__FIT_ROWS_MIN) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "table of device '%s': %zu rows, a fit needs %d at least: measure more or "
                        "transfer from other devices",
                        table->device != NULL ? table->device : "?", table->n_rows,
                        NAS__FIT_ROWS_MIN);
    }
    const int64_t start = nas_now_ns();
    nas_device_model *m = nas_alloc_array(ctx, 1, sizeof *m);
    if (m == NULL) return NAS_ERR_NOMEM;
    m->level = options->level;
    m->seed = options->seed;
    m->n_train = table->n_rows;
    m->device = nas_strdup(ctx, table->device != NULL ? table->device : "");
    status = m->device == NULL ? NAS_ERR_NOMEM : nas__merge_rows(ctx, table, &m->rows);
    if (status == NAS_OK) status = nas__encoder_of(ctx, table, &m->encoder);
    if (status == NAS_OK) status = fit_rows(ctx, table, m);
    if (status != NAS_OK) {
        nas_device_model_free(m);
        return status;
    }
    (void)snprintf(m->id, sizeof m->id, "gp/1 n=%zu", m->n_train);
    m->fit_s = (double)(nas_now_ns() - start) * 1e-9;
    *out = m;
    return NAS_OK;
}

/* ---- predict ---------------------------------------------------------------------------------------------------- */

enum { MEAN_BLOCK = 256 };

typedef struct mean_job {
    const nas_device_model *model;
    const double *x;
    size_t n;
    double *out;
} mean_job;

static nas_status mean_block(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const mean_job *job = arg;
    const nas_device_model *m = job->model;
    const size_t first = index * MEAN_BLOCK;
    const size_t end = job->n - first < MEAN_BLOCK ? job->n : first + MEAN_BLOCK;
    const size_t d = m->encoder.d;
    double *z = nas_alloc_array(ctx, 2 * NAS__TILE * d, sizeof *z);
    if (z == NULL) return NAS_ERR_NOMEM;
    for (size_t i = first; i < end; i += NAS__TILE) {
        const size_t rows = end - i < NAS__TILE ? end - i : NAS__TILE; /* the rest stays as it is */
        double means[NAS__TILE];
        for (size_t r = 0; r < rows; r++)
            nas__encode(&m->encoder, job->x + (i + r) * m->encoder.n_features, z + r * d);
        nas__gp_means(&m->gp, z, z + NAS__TILE * d, means);
        memcpy(job->out + i, means, rows * sizeof *means);
    }
    nas_free(z);
    return NAS_OK;
}

nas_status nas__model_predict_log(nas_ctx *ctx, const nas_device_model *m, const double *x,
                                  size_t n, double *log_mean, double *sd) {
    if (m->transfer != NULL) return nas__transfer_predict(ctx, m->transfer, x, n, log_mean, sd);
    mean_job job = {.model = m, .x = x, .n = n, .out = log_mean};
    nas_status status =
        nas_parallel(ctx, nas_cpu_count(), (n + MEAN_BLOCK - 1) / MEAN_BLOCK, mean_block, &job);
    if (status != NAS_OK || sd == NULL) return status;
    double *z = NULL;
    status = nas__encode_rows(ctx, &m->encoder, x, n, &z);
    if (status == NAS_OK) status = nas__gp_variances(ctx, &m->gp, z, n, nas_cpu_count(), sd);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        sd[i] = sqrt(sd[i]);
    nas_free(z);
    return status;
}

static nas_status check_for_prediction(nas_ctx *ctx, const nas_device_model *m,
                                       const nas_latency_table *table) {
    const nas_status status = nas_latency_table_check(ctx, table, false);
    if (status != NAS_OK) return status;
    return nas__same_features(ctx, "the model", m->encoder.features, m->encoder.n_features, table);
}

nas_status nas_device_model_predict_fast(nas_ctx *ctx, const nas_device_model *model,
                                         const nas_latency_table *table, double *out) {
    nas_status status = check_for_prediction(ctx, model, table);
    if (status == NAS_OK) {
        status = nas__model_predict_log(ctx, model, table->x, table->n_rows, out, NULL);
    }
    for (size_t i = 0; i < table->n_rows && status == NAS_OK; i++)
        out[i] = exp(out[i]);
    return status;
}

nas_status nas_device_model_predict(nas_ctx *ctx, const nas_device_model *model,
                                    const nas_latency_table *table, nas_prediction *out) {
    nas_status status = check_for_prediction(ctx, model, table);
    if (status != NAS_OK) return status;
    double *mean = nas_alloc_array(ctx, table->n_rows, sizeof *mean);
    double *sd = nas_alloc_array(ctx, table->n_rows, sizeof *sd);
    status = mean == NULL || sd == NULL
                 ? NAS_ERR_NOMEM
                 : nas__model_predict_log(ctx, model, table->x, table->n_rows, mean, sd);
    for (size_t i = 0; i < table->n_rows && status == NAS_OK; i++) {
        const double half = model->quantile * sd[i];
        out[i] = (nas_prediction){
            .p50_us = exp(mean[i]), .lo_us = exp(mean[i] - half), .hi_us = exp(mean[i] + half)};
    }
    nas_free(sd);
    nas_free(mean);
    return status;
}
