/* timing.c - one measurement: taken alone on the device, stored with its passport, and the drift reference.
 * Nothing else of ours runs while a local device measures: the phases call this from the main thread only, after their
 * parallel work has ended. */
#include "search/study_internal.h"

#include <math.h>
#include <string.h>

static nas_measure_options measure_options(const nas__study *s, bool final) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = s->config->measure.min_batches;
    o.min_time_ms = s->config->measure.min_time_ms;
    o.max_time_ms = final ? s->config->measure.final_max_time_ms : s->config->measure.max_time_ms;
    o.max_repeats = 1; /* what was not calm is timed once more anyway */
    o.deadline_ms = (int64_t)o.max_time_ms * 2 + 20000;
    if (o.deadline_ms > NAS_AGENT_RUN_MS_MAX) o.deadline_ms = NAS_AGENT_RUN_MS_MAX;
    return o;
}

static nas_status store_artifact(nas__study *s, const nas_artifact *a, int64_t *id) {
    nas_db_artifact row = {.target = a->target,
                           .compiler = a->compiler,
                           .flags = a->flags,
                           .size_bytes = a->size_bytes,
                           .arena_bytes = a->arena_bytes,
                           .compile_s = a->compile_s};
    memcpy(row.sha256, a->sha256, sizeof row.sha256);
    memcpy(row.source_sha256, a->source_sha256, sizeof row.source_sha256);
    return nas_db_artifact_put(s->ctx, s->db, &row, id);
}

static nas_status store(nas__study *s, const nas__built *built, int64_t trial_id, const char *role,
                        const nas_measurement *m) {
    nas_db_measurement row = {.trial_id = trial_id,
                              .device_id = s->device_id,
                              .role = role,
                              .threads = m->threads,
                              .batch_size = m->batch_size,
                              .batches = m->batches,
                              .dropped = m->dropped,
                              .repeats = m->repeats,
                              .noisy = m->noisy,
                              .simulated = m->simulated,
                              .p50_us = m->p50_us,
                              .p50_lo_us = m->p50_lo_us,
                              .p50_hi_us = m->p50_hi_us,
                              .p90_us = m->p90_us,
                              .p10_us = m->p10_us,
                              .min_us = m->min_us,
                              .mad_us = m->mad_us,
                              .passport_json = m->passport_json == NULL ? "{}" : m->passport_json,
                              .samples_us = m->samples_us,
                              .n_samples = m->n_samples};
    if (!m->simulated) {
        row.init_us = nas_some_double(m->init_us);
        row.first_us = nas_some_double(m->first_us);
    }
    if (s->reference_last_us > 0)
        row.drift_ratio = nas_some_double(s->reference_last_us / s->reference_best_us);
    int64_t id = 0;
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK) status = store_artifact(s, &built->artifact, &row.artifact_id);
    if (status == NAS_OK) status = nas_db_measurement_insert(s->ctx, s->db, &row, &id);
    if (status == NAS_OK && trial_id != 0) {
        status = nas_db_trial_set_artifact(s->ctx, s->db, trial_id, row.artifact_id,
                                           strcmp(role, "final") == 0 ? "final" : "search");
    }
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

nas_status nas__time_artifact(nas__study *s, const nas__built *built, size_t trial_index,
                              const char *role, bool final, nas_db_values *values) {
    const nas_measure_options o = measure_options(s, final);
    nas_measurement m = {0};
    nas_status status = nas_measure(s->ctx, s->device, built->graph, built->artifact.path,
                                    built->artifact.sha256, &o, &m);
    if (status == NAS_OK) status = store(s, built, s->trials[trial_index].row.id, role, &m);
    if (status == NAS_OK) {
        values->latency_p50_us = nas_some_double(m.p50_us);
        values->latency_p50_lo_us = nas_some_double(m.p50_lo_us);
        values->latency_p50_hi_us = nas_some_double(m.p50_hi_us);
        values->latency_p90_us = nas_some_double(m.p90_us);
        values->noisy = nas_some_i64(m.noisy ? 1 : 0);
        values->arena_bytes = nas_some_i64((int64_t)built->artifact.arena_bytes);
    }
    nas_measurement_deinit(&m);
    return status;
}

nas_status nas__store_layers(nas__study *s, size_t trial_index, const nas_graph *graph) {
    enum { LAYERS_MAX = 512 };
    nas_layer_features *features = nas_alloc_array(s->ctx, LAYERS_MAX, sizeof *features);
    nas_db_layer *rows = nas_alloc_array(s->ctx, LAYERS_MAX, sizeof *rows);
    nas_status status = features == NULL || rows == NULL ? NAS_ERR_NOMEM : NAS_OK;
    size_t n = 0;
    if (status == NAS_OK) {
        status =
            nas_layer_features_of(s->ctx, graph, s->target->vector_bytes / (int32_t)sizeof(float),
                                  features, LAYERS_MAX, &n);
    }
    for (size_t i = 0; status == NAS_OK && i < n && i < LAYERS_MAX; i++) {
        const nas_layer_features *f = &features[i];
        rows[i] = (nas_db_layer){.node = f->node,
                                 .family = f->family,
                                 .h = f->h,
                                 .w = f->w,
                                 .c_in = f->c_in,
                                 .c_out = f->c_out,
                                 .kernel = f->kernel,
                                 .macs = f->macs,
                                 .macs_padded = f->macs_padded,
                                 .bytes = f->bytes,
                                 .intensity = f->intensity};
    }
    if (status == NAS_OK) {
        status = nas_db_layers_put(s->ctx, s->db, s->trials[trial_index].row.id, rows,
                                   n < LAYERS_MAX ? n : LAYERS_MAX);
    }
    nas_free(features);
    nas_free(rows);
    return status;
}

/* The reference is the space's smallest network with seeded weights: the same program in every run of a study. */
static nas_status build_reference(nas__study *s, nas__built *out) {
    nas_point point;
    nas_space_smallest(s->space, &point);
    nas_graph *graph = NULL;
    nas_status status = nas_space_decode(s->ctx, s->space, &point, &graph);
    if (status != NAS_OK) return status;
    nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "reference");
    nas_weights *weights = NULL;
    status = nas_weights_new(s->ctx, graph, &rng, &weights);
    if (status == NAS_OK) {
        status = nas__build(s->ctx, s, graph, weights, out);
    } else {
        nas_graph_free(graph);
    }
    nas_weights_free(weights);
    return status;
}

/* The calmest state of the device seen in this study, across resumes. */
static nas_status update_best_reference(nas__study *s, const nas_measurement *m) {
    bool found = false;
    nas_status status = NAS_OK;
    if (s->reference_best_us <= 0) {
        status = nas__meta_get_double(s, "reference_best_us", &s->reference_best_us, &found);
        if (!found) s->reference_best_us = INFINITY;
    }
    if (status != NAS_OK || m->p50_us >= s->reference_best_us) return status;
    if (m->noisy && isfinite(s->reference_best_us))
        return NAS_OK; /* a lucky few batches are no level */
    s->reference_best_us = m->p50_us;
    return nas__meta_set_double(s, "reference_best_us", m->p50_us);
}

nas_status nas__time_reference(nas__study *s, double *p50_us) {
    nas_status status = NAS_OK;
    if (s->reference.graph == NULL) status = build_reference(s, &s->reference);
    const nas_measure_options o = measure_options(s, false);
    nas_measurement m = {0};
    if (status == NAS_OK) {
        status = nas_measure(s->ctx, s->device, s->reference.graph, s->reference.artifact.path,
                             s->reference.artifact.sha256, &o, &m);
    }
    if (status == NAS_OK) status = update_best_reference(s, &m);
    if (status == NAS_OK) {
        s->reference_last_us = m.p50_us;
        *p50_us = m.p50_us;
        status = store(s, &s->reference, 0, "reference", &m);
    }
    nas_measurement_deinit(&m);
    return nas_wrap(s->ctx, status, "drift reference");
}

double nas__slowdown(const nas__study *s, double before_us, double after_us) {
    return fmax(before_us, after_us) / s->reference_best_us - 1;
}

void nas__keep_calmer(const nas__study *s, nas__kept *kept, const nas_db_values *fresh,
                      double slowdown) {
    if (!kept->is_set || fresh->latency_p50_us.value < kept->values.latency_p50_us.value) {
        kept->values = *fresh;
    }
    kept->slowdown = kept->is_set ? fmin(kept->slowdown, slowdown) : slowdown;
    kept->is_set = true;
    if (kept->slowdown > s->config->measure.drift_limit) kept->values.noisy = nas_some_i64(1);
}
