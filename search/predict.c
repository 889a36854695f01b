/* predict.c - the predictors of a running study: what they learn from, what they foretell, what is skipped for it.
 *
 * They learn at the end of a batch and nowhere else, in order of trials, and decisions of a batch refer to the front at
 * its beginning: a run that was interrupted in the middle of a batch decides as one that was not. Forecasts are stored
 * beside the measurements (table predictions), never among them; a trial that was not measured is PRUNED and has no
 * latency. */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- forecasts that were put to the test ------------------------------------------------------------------------------ */

typedef struct pairs {
    nas__forecast *forecasts; /* some unset */
    double *measured_us;
    size_t n;
} pairs;

static void pairs_deinit(pairs *p) {
    nas_free(p->measured_us);
    nas_free(p->forecasts);
    *p = (pairs){0};
}

static nas_status pairs_of(nas__study *s, int32_t queue, size_t end, pairs *out) {
    pairs p = {.forecasts = nas_alloc_array(s->ctx, end, sizeof *p.forecasts),
               .measured_us = nas_alloc_array(s->ctx, end, sizeof *p.measured_us)};
    if (p.forecasts == NULL || p.measured_us == NULL) {
        pairs_deinit(&p);
        return NAS_ERR_NOMEM;
    }
    for (size_t i = 0; i < end; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy || !trial->search[queue].is_set) continue;
        p.forecasts[p.n] = trial->forecast[queue];
        p.measured_us[p.n++] = trial->search[queue].p50_us;
    }
    *out = p;
    return NAS_OK;
}

nas_status nas__predictor_foresight(nas__study *s, int32_t queue, nas__foresight *out) {
    pairs p = {0};
    nas_status status = pairs_of(s, queue, s->n_trials, &p);
    if (status == NAS_OK) status = nas__foresight_of(s->ctx, p.forecasts, p.measured_us, p.n, out);
    pairs_deinit(&p);
    return status;
}

/* Of the trials before `end`, the ones that the predictor has seen. */
static nas_status note_error(nas__study *s, int32_t queue, size_t end) {
    pairs p = {0};
    nas_status status = pairs_of(s, queue, end, &p);
    if (status == NAS_OK)
        status = nas__foretold_error(s->ctx, p.forecasts, p.measured_us, p.n,
                                     s->config->search.skip_confidence, &s->foretold_error[queue]);
    pairs_deinit(&p);
    return status;
}

/* ---- learning ---------------------------------------------------------------------------------------------------------- */

/* Every queue has a predictor of its own: what is slow here need not be slow there. */
static nas_status learn_one(nas__study *s, const nas__trial *trial) {
    nas_graph *graph = NULL;
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        const nas__latency *l = &trial->search[q];
        if (!l->is_set || s->predictors[q] == NULL) continue;
        if (graph == NULL) status = nas__study_decode(s, &trial->point, &graph);
        if (status == NAS_OK)
            status = nas_predictor_add(s->ctx, s->predictors[q], graph, l->p50_us, l->noisy);
        if (status == NAS_OK) s->predictor_rows[q]++;
    }
    nas_graph_free(graph);
    return status;
}

static void queue_key(const nas__study *s, const char *name, int32_t queue, char *out,
                      size_t size) {
    const bool first = queue == s->first_queue;
    (void)snprintf(out, size, "%s%s%s", name, first ? "" : "@",
                   first ? "" : nas__queue_name(s, queue));
}

static nas_status note_quality(nas__study *s, int32_t queue) {
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictors[queue]);
    if (!q.is_set) return NAS_OK;
    nas__foresight f = {0};
    nas_status status = nas__predictor_foresight(s, queue, &f);
    const struct {
        const char *name;
        double value;
        bool is_set;
    } rows[] = {{"predictor_mape", q.mape, true},
                {"predictor_spearman", q.spearman, true},
                {"predictor_rows", (double)q.n_train, true},
                {"predictor_foretold", (double)f.n, true},
                {"predictor_foretold_spearman", f.spearman, f.is_set},
                {"predictor_foretold_coverage", f.coverage, f.is_set}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && status == NAS_OK; i++) {
        char key[NAS_DEVICE_NAME_MAX + 32];
        queue_key(s, rows[i].name, queue, key, sizeof key);
        if (rows[i].is_set) status = nas__meta_set_double(s, key, rows[i].value);
    }
    return status;
}

nas_status nas__predictor_note_drift(nas__study *s) {
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        char key[NAS_DEVICE_NAME_MAX + 32];
        nas_opt_double drift = {0};
        queue_key(s, "drift", q, key, sizeof key);
        status = nas_db_study_drift(s->ctx, s->db, s->id, nas__queue_name(s, q), &drift);
        if (status == NAS_OK && drift.is_set) status = nas__meta_set_double(s, key, drift.value);
        if (status == NAS_OK && drift.is_set) s->drift[q] = drift.value;
    }
    return status;
}

nas_status nas__predictor_load_drift(nas__study *s) {
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        char key[NAS_DEVICE_NAME_MAX + 32];
        bool found = false;
        queue_key(s, "drift", q, key, sizeof key);
        status = nas__meta_get_double(s, key, &s->drift[q], &found);
        if (status == NAS_OK && !found) s->drift[q] = 1;
    }
    return status;
}

nas_status nas__predictor_learn(nas__study *s, size_t first, size_t end) {
    nas_status status = NAS_OK;
    for (size_t i = first; i < end && status == NAS_OK; i++) {
        if (s->trials[i].from_strategy && nas__trial_is_finished(&s->trials[i]))
            status = learn_one(s, &s->trials[i]);
    }
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        if (s->predictors[q] == NULL || s->predictor_rows[q] < nas_predictor_min_rows()) continue;
        status = nas_predictor_fit(s->ctx, s->predictors[q]);
        if (status == NAS_ERR_INVALID) { /* equal networks only: nothing to tell apart yet */
            nas_ctx_clear(s->ctx);
            status = NAS_OK;
        }
        if (status == NAS_OK) status = note_error(s, q, end);
        if (status == NAS_OK) status = note_quality(s, q);
    }
    return status;
}

/* ---- rows of earlier studies ------------------------------------------------------------------------------------------- */

/* Measured on the same kind of device, by a program for the same target, on as many threads, for frames of this size. */
static bool is_comparable(const nas__study *s, const nas_db_study_latency *row,
                          const nas__device *d) {
    const nas_config *c = s->config;
    return row->study_id < s->id && row->threads == d->config->threads &&
           row->scale == c->task.scale && row->out_height == c->task.out_height &&
           row->out_width == c->task.out_width &&
           strcmp(row->fingerprint, nas_device_fingerprint(d->handle)) == 0 &&
           strcmp(row->target, s->targets[d->target].row.name) == 0;
}

static nas_status learn_earlier(nas__study *s, const nas_db_study_latency *row, int32_t queue) {
    nas_graph *graph = NULL;
    nas_status status = nas_sr_text_graph(s->ctx, row->point, s->config->space.lr_height,
                                          s->config->space.lr_width, &graph);
    if (status == NAS_OK)
        status = nas_predictor_add(s->ctx, s->predictors[queue], graph, row->p50_us, row->noisy);
    if (status == NAS_OK) s->predictor_rows[queue]++;
    nas_graph_free(graph);
    return nas_wrap(s->ctx, status, "study '%s', trial %" PRId64, row->study, row->trial);
}

/* Rows measured since this study began would change its decisions when it is resumed: the first run says how far. */
static nas_status rows_until(nas__study *s, const nas_db_study_latency *rows, size_t n,
                             int64_t *until) {
    double value = 0;
    bool found = false;
    nas_status status = nas__meta_get_double(s, "earlier_rows_until", &value, &found);
    if (status != NAS_OK) return status;
    for (size_t i = 0; i < n && !found; i++)
        value = fmax(value, (double)rows[i].measurement_id);
    if (!found) status = nas__meta_set_double(s, "earlier_rows_until", value);
    *until = (int64_t)value;
    return status;
}

nas_status nas__predictor_learn_earlier(nas__study *s) {
    if (strcmp(s->config->search.skip_learn, "database") != 0) return NAS_OK;
    nas_db_study_latency *rows = NULL;
    size_t n = 0;
    int64_t until = 0;
    nas_status status = nas_db_study_latencies(s->ctx, s->db, nas_space_name(s->space), &rows, &n);
    if (status == NAS_OK) status = rows_until(s, rows, n, &until);
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        const nas__device *d = nas__queue_device(s, q);
        size_t used = 0;
        for (size_t i = 0; i < n && status == NAS_OK && d != NULL; i++) {
            if (s->predictors[q] == NULL || rows[i].measurement_id > until ||
                !is_comparable(s, &rows[i], d))
                continue;
            status = learn_earlier(s, &rows[i], q);
            used++;
        }
        if (status == NAS_OK && d != NULL && s->predictors[q] != NULL)
            nas_log(s->ctx, NAS_LOG_INFO, "predictor of %s: %zu rows of earlier studies",
                    nas__queue_name(s, q), used);
    }
    nas_db_study_latencies_free(rows, n);
    return status;
}

/* ---- foretelling ------------------------------------------------------------------------------------------------------- */

static bool is_trusted(const nas__study *s, int32_t queue) {
    if (s->predictors[queue] == NULL) return false;
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictors[queue]);
    return q.is_set && q.n_train >= (size_t)s->config->search.skip_min_rows;
}

nas_status nas__predictor_foretell(nas__study *s, size_t index) {
    nas__trial *trial = &s->trials[index];
    nas_graph *graph = NULL;
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        nas__forecast *f = &trial->forecast[q];
        if (f->is_set || s->predictors[q] == NULL ||
            !nas_predictor_quality_of(s->predictors[q]).is_set)
            continue;
        nas_prediction p = {0};
        if (graph == NULL) status = nas__study_decode(s, &trial->point, &graph);
        if (status == NAS_OK) status = nas_predictor_predict(s->ctx, s->predictors[q], graph, &p);
        if (status == NAS_OK)
            *f = nas__widened((nas__forecast){true, p.p50_us, p.lo_us, p.hi_us},
                              s->foretold_error[q], s->drift[q]);
    }
    nas_graph_free(graph);
    return status;
}

nas_status nas__predictor_store(nas__study *s, size_t index, bool decided) {
    bool has = false;
    const nas__trial *trial = &s->trials[index];
    nas_status status = nas_db_trial_has_prediction(s->ctx, s->db, trial->row.id, &has);
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK && !has; q++) {
        const nas__forecast *f = &trial->forecast[q];
        if (!f->is_set) continue;
        const nas_db_prediction row = {.trial_id = trial->row.id,
                                       .device_id = nas__queue_device_id(s, q),
                                       .predictor = nas_predictor_id(s->predictors[q]),
                                       .p50_us = f->p50_us,
                                       .lo_us = f->lo_us,
                                       .hi_us = f->hi_us,
                                       .decided = decided};
        status = nas_db_prediction_insert(s->ctx, s->db, &row);
    }
    return status;
}

/* ---- deciding ---------------------------------------------------------------------------------------------------------- */

/* Smallest absolute upper bound on a queue's latency, in us; INFINITY when there is none. A p90 is never below the p50
 * that is foretold, so a bound on either is one on the forecast. */
static double latency_bound_us(const nas__study *s, int32_t queue) {
    double lowest = INFINITY;
    for (int32_t i = 0; i < s->config->n_constraints; i++) {
        const nas_constraint *c = &s->config->constraints[i];
        double bound_ms = 0;
        if (nas_metric_is_timed(c->metric) && c->queue == queue && c->at_most &&
            nas__constraint_bound(s, c, &bound_ms))
            lowest = fmin(lowest, bound_ms * 1e3);
    }
    return lowest;
}

void nas__decide_feasible(const nas__study *s, size_t index, nas__skipping *out) {
    *out = (nas__skipping){0};
    for (int32_t q = 0; q < s->config->n_queues && s->config->search.skip_by_prediction; q++) {
        const nas__forecast *f = &s->trials[index].forecast[q];
        const double bound = latency_bound_us(s, q);
        if (!is_trusted(s, q)) continue;
        const double excess = nas__certain_excess(f, bound, s->config->search.skip_margin);
        if (excess <= 0) continue;
        const bool several = s->config->n_queues > 1;
        out->skip = true;
        out->violation += excess;
        (void)snprintf(out->reason, sizeof out->reason,
                       "predicted %.4g ms [%.4g, %.4g]%s%s, bound %.4g ms", f->p50_us * 1e-3,
                       f->lo_us * 1e-3, f->hi_us * 1e-3, several ? " on " : "",
                       several ? nas__queue_name(s, q) : "", bound * 1e-3);
    }
}

/* The best the candidate may turn out to be: its known values, and the lower end of each interval. False when a queue
 * that matters has no forecast to be trusted. */
static bool best_case_of(const nas__study *s, size_t index, const nas_sr_score *score,
                         double out[NAS_OBJECTIVES_MAX]) {
    nas__figures f = {.values = s->trials[index].row.values};
    f.values.psnr_y_db = nas_some_double(score->psnr_y_db);
    f.values.ssim_y = nas_some_double(score->ssim_y);
    for (int32_t q = 0; q < s->config->n_queues; q++) {
        const nas__forecast *c = &s->trials[index].forecast[q];
        if (!c->is_set || !is_trusted(s, q)) continue;
        f.latency[q] = (nas__latency){.is_set = true, .p50_us = c->lo_us, .p90_us = c->lo_us};
    }
    return nas__objective_values(s, &f, out);
}

nas_status nas__rivals_of(nas__study *s, nas__rivals *out) {
    const size_t n = nas_front_size(s->front);
    nas__rivals r = {.values = nas_alloc_array(s->ctx, n, sizeof *r.values),
                     .trials = nas_alloc_array(s->ctx, n, sizeof *r.trials)};
    if (r.values == NULL || r.trials == NULL) {
        nas__rivals_deinit(&r);
        return NAS_ERR_NOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        const size_t trial = (size_t)nas_front_trial(s->front, i);
        const nas__figures f = nas__search_figures(&s->trials[trial]);
        if (nas__violation(s, &f) > 0) continue; /* a feasible candidate is worth more than it */
        memcpy(r.values[r.n], nas_front_values(s->front, i),
               (size_t)s->config->n_objectives * sizeof(double));
        r.trials[r.n++] = trial;
    }
    *out = r;
    return NAS_OK;
}

void nas__rivals_deinit(nas__rivals *r) {
    nas_free(r->values);
    nas_free(r->trials);
    *r = (nas__rivals){0};
}

void nas__decide_beaten(const nas__study *s, size_t index, const nas_sr_score *score,
                        const nas__rivals *rivals, nas__skipping *out) {
    double best_case[NAS_OBJECTIVES_MAX];
    size_t which = 0;
    *out = (nas__skipping){0};
    if (!s->config->search.skip_by_prediction || !s->config->search.skip_dominated) return;
    if (!best_case_of(s, index, score, best_case)) return;
    if (!nas__certainly_beaten(s->config->n_objectives, best_case,
                               (const double(*)[NAS_OBJECTIVES_MAX])rivals->values, rivals->n,
                               &which))
        return;
    out->skip = out->beaten = true;
    const nas__forecast *f = &s->trials[index].forecast[s->first_queue];
    (void)snprintf(out->reason, sizeof out->reason,
                   "predicted %.4g ms [%.4g, %.4g]: trial %zu was measured and is better in every "
                   "objective",
                   f->p50_us * 1e-3, f->lo_us * 1e-3, f->hi_us * 1e-3, rivals->trials[which]);
}

/* ---- what it was worth --------------------------------------------------------------------------------------------------- */

nas__skip_counts nas__count_skips(const nas__study *s) {
    nas__skip_counts c = {0};
    for (size_t i = 0; i < s->n_trials; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy) continue;
        const bool pruned = trial->row.state == NAS_TRIAL_PRUNED;
        c.measured += trial->row.state == NAS_TRIAL_COMPLETE;
        c.infeasible += pruned && trial->row.values.violation.is_set;
        c.beaten += pruned && !trial->row.values.violation.is_set;
    }
    return c;
}
