/* compress_trial.c - one candidate: scored, compiled, checked, timed, recorded. */
#include "search/compress_levels.h"
#include "search/stored.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LEASE_MS = 3600 * 1000, STEPS_MAX = 2 };

/* Emitted code sums fp32 products in another order than the executor; a wrong tap shows as 1e-2 and more of the largest
 * output. */
static const double difference_max = 1e-3;
/* Products of bf16 are off by up to 2^-8 of themselves; 5e-3 was seen of networks with 56 layers. */
static const double bf16_difference_max = 2e-2;

nas_status nas__comp_path(nas__comp *c, const char *name, char out[NAS__COMP_PATH_MAX]) {
    const int n = snprintf(out, NAS__COMP_PATH_MAX, "%s/%s", c->dir, name);
    if (n < 0 || n >= NAS__COMP_PATH_MAX)
        return nas_fail(c->ctx, NAS_ERR_RANGE, "study folder '%s': path longer than %d bytes",
                        c->dir, NAS__COMP_PATH_MAX - 1);
    return NAS_OK;
}

nas_status nas__comp_path_in(nas__comp *c, const char *folder, const char *file,
                             char out[NAS__COMP_PATH_MAX]) {
    char name[96];
    (void)snprintf(name, sizeof name, "%s%s%s", folder, *file == '\0' ? "" : "/", file);
    return nas__comp_path(c, name, out);
}

/* ---- metrics ------------------------------------------------------------------------------------------------------------ */

static bool pick(nas_opt_double late, nas_opt_double early, bool final, double factor,
                 double *out) {
    const nas_opt_double v = final && late.is_set ? late : early;
    if (v.is_set) *out = v.value * factor;
    return v.is_set;
}

static bool whole(nas_opt_i64 v, double factor, double *out) {
    if (v.is_set) *out = (double)v.value * factor;
    return v.is_set;
}

bool nas__comp_metric(const nas__comp_trial *t, nas_metric metric, bool final, double *out) {
    const nas_db_values *v = &t->row.values;
    switch (metric) {
    case NAS_METRIC_TOP1:
        return pick(t->top1.tuned_reward_top1, t->top1.reward_top1, final, 100, out);
    case NAS_METRIC_LATENCY_P50_MS:
        return pick(v->final_latency_p50_us, v->latency_p50_us, final, 1e-3, out);
    case NAS_METRIC_LATENCY_P90_MS:
        return pick(v->final_latency_p90_us, v->latency_p90_us, final, 1e-3, out);
    case NAS_METRIC_MACS: return whole(v->macs, 1, out);
    case NAS_METRIC_PARAMS: return whole(v->params, 1, out);
    case NAS_METRIC_PEAK_ACTIVATION_BYTES: return whole(v->peak_activation_bytes, 1, out);
    case NAS_METRIC_WEIGHT_BYTES:
        return whole(t->top1.weight_bytes, 1, out) || whole(v->params, NAS_WEIGHT_BYTES_EACH, out);
    case NAS_METRIC_BOPS: return whole(t->top1.bops, 1, out) || whole(v->macs, NAS_BOPS_EACH, out);
    case NAS_METRIC_PSNR_Y: /* refused by the config */
    case NAS_METRIC_SSIM_Y:
    case NAS_METRIC_COUNT: break;
    }
    return false;
}

bool nas__comp_bound(const nas__comp *c, const nas_constraint *k, double *bound) {
    *bound = k->is_percent ? c->baseline[k->metric] * k->bound / 100 : k->bound;
    return isfinite(*bound);
}

double nas__comp_violation(const nas__comp *c, const nas__comp_trial *t, bool final) {
    double sum = 0;
    for (int32_t i = 0; i < c->config->n_constraints; i++) {
        const nas_constraint *k = &c->config->constraints[i];
        double bound = 0, value = 0;
        const size_t index = (size_t)t->row.number;
        const bool known = nas__comp_metric(t, k->metric, final, &value) ||
                           (!final && nas__comp_estimate(c, index, k->metric, &value));
        if (!nas__comp_bound(c, k, &bound) || !known) {
            sum += 1;
            continue;
        }
        const double excess = k->at_most ? value - bound : bound - value;
        if (excess > 0) sum += excess / fmax(fabs(bound), 1e-12);
    }
    return sum;
}

bool nas__comp_objectives(const nas__comp *c, const nas__comp_trial *t,
                          double out[NAS_OBJECTIVES_MAX]) {
    for (int32_t i = 0; i < c->config->n_objectives; i++) {
        const nas_metric metric = c->config->objectives[i].metric;
        double value = 0;
        if (!nas__comp_metric(t, metric, false, &value) || !isfinite(value)) return false;
        out[i] = nas_metric_maximise(metric) ? -value : value;
    }
    return true;
}

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

static nas_status append(nas__comp *c, nas_db_trial take_row) {
    nas__comp_trial trial = {.row = take_row};
    trial.from_strategy = strncmp(take_row.origin, "baseline:", 9) != 0;
    nas_status status = NAS_OK;
    if (trial.from_strategy)
        status = nas_space_parse(c->ctx, c->space, take_row.point, &trial.point);
    if (status == NAS_OK) status = nas_db_class_values_get(c->ctx, c->db, take_row.id, &trial.top1);
    if (status == NAS_OK)
        status = nas_grow(c->ctx, &c->trials, &c->cap_trials, c->n_trials + 1, sizeof *c->trials);
    if (status != NAS_OK) {
        nas_db_trial_deinit(&take_row);
        return status;
    }
    c->trials[c->n_trials++] = trial;
    return NAS_OK;
}

nas_status nas__comp_load(nas__comp *c) {
    nas_db_trial *rows = NULL;
    size_t n = 0;
    nas_status status = nas_db_trials(c->ctx, c->db, c->id, &rows, &n);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        status = append(c, rows[i]);
        rows[i] = (nas_db_trial){0}; /* moved */
    }
    if (rows != NULL) nas_db_trials_free(rows, n);
    return status;
}

nas_status nas__comp_add(nas__comp *c, const nas_point *point, const nas_graph *graph,
                         const char *origin, size_t *index) {
    nas_db_trial row = {
        .study_id = c->id, .number = (int64_t)c->n_trials, .state = NAS_TRIAL_WAITING};
    (void)snprintf(row.origin, sizeof row.origin, "%s", origin);
    nas_buf text = {0};
    nas_status status = NAS_OK;
    if (point != NULL) {
        status = nas_space_format(c->ctx, c->space, point, &text);
    } else {
        nas_buf_puts(&text, nas_graph_name(graph));
        status = nas_buf_status(c->ctx, &text);
    }
    nas_graph_cost cost = {0};
    if (status == NAS_OK) status = nas_graph_hash(c->ctx, graph, false, row.graph_hash);
    if (status == NAS_OK) status = nas_graph_cost_total(c->ctx, graph, &cost);
    if (status == NAS_OK) {
        row.point = nas_strdup(c->ctx, text.data);
        if (row.point == NULL) status = NAS_ERR_NOMEM;
    }
    nas_buf_deinit(&text);
    if (status == NAS_OK) status = nas_db_trial_insert(c->ctx, c->db, &row, &row.id);
    if (status != NAS_OK) {
        nas_db_trial_deinit(&row);
        return status;
    }
    row.values.macs = nas_some_i64((int64_t)cost.macs);
    row.values.params = nas_some_i64((int64_t)cost.params);
    row.values.peak_activation_bytes = nas_some_i64((int64_t)cost.peak_activation_bytes);
    status = append(c, row);
    if (status == NAS_OK) *index = c->n_trials - 1;
    return status;
}

/* ---- timing ------------------------------------------------------------------------------------------------------------- */

/* One REWARD image through the program and through the executor. */
static nas_status compare(nas__comp *c, const nas_graph *graph, const nas_artifact *artifact) {
    const nas_shape in = nas_graph_node(graph, nas_graph_input(graph))->shape;
    const nas_shape out = nas_graph_node(graph, nas_graph_output(graph))->shape;
    const size_t plane = (size_t)in.h * (size_t)in.w, floats = plane * (size_t)in.c;
    const nas_exec_options o = {.chunk = 1, .threads = 1};
    nas_class_reader reader = {c->data, NAS_CLASS_REWARD};
    float *pixels = nas_alloc_array(c->ctx, 2 * floats, sizeof *pixels);
    float *scores = nas_alloc_array(c->ctx, 2 * (size_t)out.c, sizeof *scores);
    const nas_quant *stored = &nas_graph_node(graph, nas_graph_output(graph))->quant;
    char dir[NAS__COMP_PATH_MAX];
    nas_status status = pixels == NULL || scores == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas__comp_path(c, "work", dir);
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, dir);
    if (status == NAS_OK) status = nas__oneshot_run(c->ctx, graph, &o, 1, &reader, scores);
    if (status == NAS_OK) {
        nas_class_reader_read(&reader, 0, pixels);
        for (size_t i = 0; i < floats; i++)
            pixels[floats + i % (size_t)in.c * plane + i / (size_t)in.c] = pixels[i];
        status =
            nas_artifact_run(c->ctx, artifact, graph, 1, pixels + floats, scores + out.c, 1, dir);
    }
    double worst = 0, largest = 1;
    for (int32_t i = 0; i < out.c && status == NAS_OK; i++) {
        largest = fmax(largest, fabs((double)scores[i]));
        const double d = fabs((double)scores[i] - (double)scores[out.c + i]);
        if (!(d <= worst)) worst = d; /* a NaN sticks */
    }
    /* integers are the same but behind an operator in floats, which may round to a neighbouring code */
    const double share = c->compile.dtype == NAS_DTYPE_BF16 ? bf16_difference_max : difference_max;
    const double limit = share * largest + (stored->is_set ? STEPS_MAX * (double)stored->scale : 0);
    if (status == NAS_OK && !(worst <= limit))
        status = nas_fail(c->ctx, NAS_ERR_TOOLCHAIN,
                          "the compiled network differs from the reference by %g of %g (limit %g): "
                          "miscompiled",
                          worst, largest, limit);
    if (status == NAS_OK) c->worst_difference = fmax(c->worst_difference, worst / largest);
    nas_free(pixels);
    nas_free(scores);
    return status;
}

static nas_status store(nas__comp *c, const nas_artifact *a, int64_t trial_id, const char *role,
                        const nas_measurement *m) {
    const nas_db_artifact artifact = nas__artifact_row(a);
    nas_db_measurement row = nas__measurement_row(m);
    row.trial_id = trial_id;
    row.device_id = c->device_id;
    row.role = role;
    int64_t id = 0;
    nas_status status = nas_db_begin(c->ctx, c->db);
    if (status == NAS_OK) status = nas_db_artifact_put(c->ctx, c->db, &artifact, &row.artifact_id);
    if (status == NAS_OK) status = nas_db_measurement_insert(c->ctx, c->db, &row, &id);
    if (status == NAS_OK)
        status = nas_db_trial_set_artifact(c->ctx, c->db, trial_id, row.artifact_id,
                                           strcmp(role, "final") == 0 ? "final" : "search");
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    return status;
}

nas_status nas__comp_measure(nas__comp *c, const nas_graph *graph, size_t index, const char *role,
                             bool final, nas_db_values *values) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = c->config->measure.min_batches;
    o.min_time_ms = c->config->measure.min_time_ms;
    o.max_time_ms = final ? c->config->measure.final_max_time_ms : c->config->measure.max_time_ms;
    o.needs = c->target->needs;
    o.deadline_ms = (int64_t)o.max_time_ms * 2 + 20000;
    if (o.deadline_ms > NAS_AGENT_RUN_MS_MAX) o.deadline_ms = NAS_AGENT_RUN_MS_MAX;
    nas_artifact artifact = {0};
    nas_measurement m = {0};
    nas_status status = nas_compile(c->ctx, graph, &c->compile, &artifact);
    if (status == NAS_OK && c->target->runs_here) status = compare(c, graph, &artifact);
    if (status == NAS_OK)
        status = nas_measure(c->ctx, c->device, graph, artifact.path, artifact.sha256, &o, &m);
    if (status == NAS_OK) status = store(c, &artifact, c->trials[index].row.id, role, &m);
    if (status == NAS_OK) {
        values->latency_p50_us = nas_some_double(m.p50_us);
        values->latency_p50_lo_us = nas_some_double(m.p50_lo_us);
        values->latency_p50_hi_us = nas_some_double(m.p50_hi_us);
        values->latency_p90_us = nas_some_double(m.p90_us);
        values->noisy = nas_some_i64(m.noisy ? 1 : 0);
        values->arena_bytes = nas_some_i64((int64_t)artifact.arena_bytes);
    }
    nas_measurement_deinit(&m);
    return status;
}

/* ---- a trial -------------------------------------------------------------------------------------------------------------- */

static nas_status finish(nas__comp *c, size_t index) {
    nas__comp_trial *t = &c->trials[index];
    double objectives[NAS_OBJECTIVES_MAX];
    bool joined = false;
    t->row.values.violation = nas_some_double(nas__comp_violation(c, t, false));
    nas_status status = NAS_OK;
    if (t->from_strategy && nas__comp_objectives(c, t, objectives))
        status = nas_front_add(c->ctx, c->front, t->row.number, objectives, &joined);
    if (status == NAS_OK) status = nas_db_begin(c->ctx, c->db);
    if (status == NAS_OK) status = nas_db_class_values_put(c->ctx, c->db, t->row.id, &t->top1);
    if (status == NAS_OK)
        status =
            nas_db_trial_finish(c->ctx, c->db, t->row.id, NAS_TRIAL_COMPLETE, NULL, &t->row.values);
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    if (status == NAS_OK) t->row.state = NAS_TRIAL_COMPLETE;
    return status;
}

/* What is known without the device. */
static nas_status score(nas__comp *c, size_t index, const nas_graph *graph) {
    nas__comp_trial *t = &c->trials[index];
    nas_graph_cost cost = {0};
    double top1 = 0;
    nas_status status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, &top1);
    if (status == NAS_OK) status = nas_graph_cost_total(c->ctx, graph, &cost);
    if (status != NAS_OK) return status;
    t->row.values.macs = nas_some_i64((int64_t)cost.macs);
    t->row.values.params = nas_some_i64((int64_t)cost.params);
    t->row.values.peak_activation_bytes = nas_some_i64((int64_t)cost.peak_activation_bytes);
    t->top1.reward_top1 = nas_some_double(top1);
    if (c->levels != NULL && t->from_strategy) nas__levels_values(c, t);
    return NAS_OK;
}

nas_status nas__comp_evaluate(nas__comp *c, size_t index, const nas_graph *graph,
                              const char *role) {
    nas__comp_trial *t = &c->trials[index];
    nas_status status = nas_db_trial_lease(c->ctx, c->db, t->row.id, c->worker, LEASE_MS);
    if (status == NAS_OK) status = score(c, index, graph);
    if (status == NAS_OK && nas__comp_worth_timing(c, index))
        status = nas__comp_measure(c, graph, index, role, false, &t->row.values);
    if (status == NAS_OK) {
        if (!t->from_strategy) { /* percentages refer to it */
            for (int m = 0; m < NAS_METRIC_COUNT; m++)
                (void)nas__comp_metric(t, (nas_metric)m, false, &c->baseline[m]); /* else NAN */
        }
        status = finish(c, index);
    }
    return nas_wrap(c->ctx, status, "trial %zu", index);
}
