/* timing.c - one measurement: taken alone on the device, stored with its passport, and the drift reference.
 * Nothing else of ours runs while a local device measures: schedule.c lets it work alone, after the phases' parallel
 * work and the other devices. */
#include "search/stored.h"
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

nas_measure_options nas__measure_options(const nas__study *s, const nas__device *d, bool final) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = s->config->measure.min_batches;
    o.min_time_ms = s->config->measure.min_time_ms;
    o.max_time_ms = final ? s->config->measure.final_max_time_ms : s->config->measure.max_time_ms;
    o.needs = s->targets[d->target].row.needs;
    o.max_repeats = 1; /* what was not calm is timed once more anyway */
    o.deadline_ms = (int64_t)o.max_time_ms * 2 + 20000;
    if (o.deadline_ms > NAS_AGENT_RUN_MS_MAX) o.deadline_ms = NAS_AGENT_RUN_MS_MAX;
    return o;
}

static nas_db_measurement row_of(const nas__study *s, const nas__device *d, int64_t trial_id,
                                 const char *role, const nas_measurement *m) {
    nas_db_measurement row = nas__measurement_row(m);
    row.study_id = s->id;
    row.trial_id = trial_id;
    row.device_id = d->id;
    row.role = role;
    if (d->reference_last_us > 0)
        row.drift_ratio = nas_some_double(d->reference_last_us / d->reference_best_us);
    return row;
}

/* One transaction, under the lock: the other devices store theirs in between. */
static nas_status store(nas_ctx *ctx, nas__study *s, const nas__device *d, const nas__built *built,
                        int64_t trial_id, const char *role, const nas_measurement *m, int64_t *id) {
    pthread_mutex_lock(&s->lock);
    const nas_db_artifact artifact = nas__artifact_row(&built->artifacts[d->target]);
    nas_db_measurement row = row_of(s, d, trial_id, role, m);
    nas_status status = nas_db_begin(ctx, s->db);
    if (status == NAS_OK) status = nas_db_artifact_put(ctx, s->db, &artifact, &row.artifact_id);
    if (status == NAS_OK) status = nas_db_measurement_insert(ctx, s->db, &row, id);
    if (status == NAS_OK && trial_id != 0 && d->queue == s->first_queue) {
        status = nas_db_trial_set_artifact(ctx, s->db, trial_id, row.artifact_id,
                                           strcmp(role, "final") == 0 ? "final" : "search");
    }
    if (status == NAS_OK) status = nas_db_commit(ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    pthread_mutex_unlock(&s->lock);
    return status;
}

static nas_status measure(nas_ctx *ctx, nas__study *s, const nas__device *d,
                          const nas__built *built, bool final, nas_measurement *m) {
    const nas_measure_options o = nas__measure_options(s, d, final);
    const nas_artifact *artifact = &built->artifacts[d->target];
    return nas_measure(ctx, d->handle, built->graph, artifact->path, artifact->sha256, &o, m);
}

nas_status nas__time_artifact(nas_ctx *ctx, nas__study *s, nas__device *d, const nas__built *built,
                              size_t trial_index, const char *role, bool final, nas__latency *out) {
    nas_measurement m = {0};
    int64_t id = 0;
    nas_status status = measure(ctx, s, d, built, final, &m);
    if (status == NAS_OK)
        status = store(ctx, s, d, built, s->trials[trial_index].row.id, role, &m, &id);
    if (status == NAS_OK) {
        /* Candidates of one study are judged by their runs: what scatters all of them alike decides nothing. */
        *out = (nas__latency){.is_set = true,
                              .noisy = m.noisy,
                              .p50_us = m.p50_us,
                              .p50_lo_us = m.run_lo_us,
                              .p50_hi_us = m.run_hi_us,
                              .p90_us = m.p90_us,
                              .measurement_id = id};
        (void)snprintf(out->checked, sizeof out->checked, "%s", built->checked[d->target]);
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
        status = nas_layer_features_of(
            s->ctx, graph, nas__first_target(s)->row.vector_bytes / (int32_t)sizeof(float),
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
nas_status nas__build_reference(nas__study *s) {
    nas_point point;
    if (s->reference.graph != NULL) return NAS_OK;
    nas_space_smallest(s->space, &point);
    nas_graph *graph = NULL;
    nas_status status = nas_space_decode(s->ctx, s->space, &point, &graph);
    if (status != NAS_OK) return status;
    nas_rng rng = nas_rng_stream(s->config->study.seed, 0, "reference");
    nas_weights *weights = NULL;
    status = nas_weights_new(s->ctx, graph, &rng, &weights);
    if (status == NAS_OK) {
        status = nas__build(s->ctx, s, graph, weights, &s->reference);
    } else {
        nas_graph_free(graph);
    }
    nas_weights_free(weights);
    return nas_wrap(s->ctx, status, "drift reference");
}

/* The calmest state of the device seen in this study, across resumes. Under the lock. */
static nas_status update_best_reference(nas_ctx *ctx, nas__study *s, nas__device *d,
                                        const nas_measurement *m) {
    char key[NAS_DEVICE_NAME_MAX + 32], text[40];
    const bool only = s->config->n_devices == 1; /* the key of studies that knew one device */
    (void)snprintf(key, sizeof key, "reference_best_us%s%s", only ? "" : "@",
                   only ? "" : d->config->name);
    if (d->reference_best_us <= 0) {
        bool found = false;
        const nas_status status = nas__meta_get_double(s, key, &d->reference_best_us, &found);
        if (status != NAS_OK) return status;
        if (!found) d->reference_best_us = INFINITY;
    }
    if (m->p50_us >= d->reference_best_us) return NAS_OK;
    if (m->noisy && isfinite(d->reference_best_us))
        return NAS_OK; /* a lucky few batches are no level */
    d->reference_best_us = m->p50_us;
    (void)snprintf(text, sizeof text, "%.17g", m->p50_us);
    return nas_db_meta_set(ctx, s->db, s->id, key, text);
}

nas_status nas__time_reference(nas_ctx *ctx, nas__study *s, nas__device *d, double *p50_us) {
    nas_measurement m = {0};
    int64_t id = 0;
    nas_status status = measure(ctx, s, d, &s->reference, false, &m);
    if (status == NAS_OK) {
        pthread_mutex_lock(&s->lock);
        status = update_best_reference(ctx, s, d, &m);
        d->reference_last_us = m.p50_us;
        pthread_mutex_unlock(&s->lock);
    }
    if (status == NAS_OK) {
        *p50_us = m.p50_us;
        status = store(ctx, s, d, &s->reference, 0, "reference", &m, &id);
    }
    nas_measurement_deinit(&m);
    return nas_wrap(ctx, status, "drift reference");
}

double nas__slowdown(const nas__device *d, double before_us, double after_us) {
    return fmax(before_us, after_us) / d->reference_best_us - 1;
}

void nas__keep_calmer(const nas__study *s, nas__kept *kept, const nas__latency *fresh,
                      double slowdown) {
    if (!kept->is_set || fresh->p50_us < kept->latency.p50_us) kept->latency = *fresh;
    kept->slowdown = kept->is_set ? fmin(kept->slowdown, slowdown) : slowdown;
    kept->is_set = true;
    if (kept->slowdown > s->config->measure.drift_limit) kept->latency.noisy = true;
}
