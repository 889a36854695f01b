/* record.c - what is recorded about trials: artifacts, devices, measurements, predictions, layers. */
#include "db/db_internal.h"

#include <string.h>

/* The id an upsert returned. */
static nas_status run_for_id(nas__stmt *s, int64_t *id) {
    int64_t value = 0;
    while (nas__stmt_row(s))
        value = nas__column_i64(s, 0);
    const nas_status status = nas__stmt_end(s);
    if (status == NAS_OK) *id = value;
    return status;
}

nas_status nas_db_artifact_put(nas_ctx *ctx, nas_db *db, const nas_db_artifact *row, int64_t *id) {
    /* The no-op update makes RETURNING give the id of the row that is there already. */
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the artifact",
        "INSERT INTO artifacts (sha256, source_sha256, target, compiler, flags, size_bytes,"
        " arena_bytes, compile_s, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (sha256) DO UPDATE SET sha256 = excluded.sha256 RETURNING id");
    nas__bind_text(&s, 1, row->sha256);
    nas__bind_text_or_null(&s, 2, row->source_sha256);
    nas__bind_text(&s, 3, row->target);
    nas__bind_text(&s, 4, row->compiler);
    nas__bind_text(&s, 5, row->flags);
    nas__bind_u64(&s, 6, row->size_bytes);
    nas__bind_u64(&s, 7, row->arena_bytes);
    nas__bind_double(&s, 8, row->compile_s);
    nas__bind_i64(&s, 9, nas_unix_time_ms());
    return nas_wrap(ctx, run_for_id(&s, id), "artifact %.12s", row->sha256);
}

nas_status nas_db_trial_set_artifact(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                     int64_t artifact_id, const char *role) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "link trial and artifact",
        "INSERT INTO trial_artifacts (trial_id, artifact_id, role) VALUES (?, ?, ?)"
        " ON CONFLICT (trial_id, role) DO UPDATE SET artifact_id = excluded.artifact_id");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_i64(&s, 2, artifact_id);
    nas__bind_text(&s, 3, role);
    return nas__stmt_run(&s);
}

nas_status nas_db_device_put(nas_ctx *ctx, nas_db *db, const char *name, const char *connect,
                             const char *fingerprint, const char *info_json, bool simulated,
                             int64_t *id) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the device",
        "INSERT INTO devices (name, connect, fingerprint, info_json, simulated,"
        " first_seen_ms, last_seen_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6)"
        " ON CONFLICT (name, fingerprint) DO UPDATE SET connect = excluded.connect,"
        " info_json = excluded.info_json, simulated = excluded.simulated,"
        " last_seen_ms = excluded.last_seen_ms RETURNING id");
    nas__bind_text(&s, 1, name);
    nas__bind_text(&s, 2, connect);
    nas__bind_text(&s, 3, fingerprint);
    nas__bind_text(&s, 4, info_json);
    nas__bind_i64(&s, 5, simulated ? 1 : 0);
    nas__bind_i64(&s, 6, nas_unix_time_ms());
    return nas_wrap(ctx, run_for_id(&s, id), "device '%s'", name);
}

/* Samples as little-endian float64 whatever this machine's order; 8 * n bytes into `out`. */
static void samples_to_bytes(const double *samples, size_t n, unsigned char *out) {
    for (size_t i = 0; i < n; i++) {
        uint64_t bits = 0;
        memcpy(&bits, &samples[i], sizeof bits);
        for (size_t b = 0; b < 8; b++)
            out[8 * i + b] = (unsigned char)(bits >> (8 * b));
    }
}

static void bind_measurement(nas__stmt *s, const nas_db_measurement *m) {
    nas__bind_id_or_null(s, 1, m->study_id);
    nas__bind_id_or_null(s, 2, m->trial_id);
    nas__bind_id_or_null(s, 3, m->artifact_id);
    nas__bind_i64(s, 4, m->device_id);
    nas__bind_text(s, 5, m->role);
    nas__bind_i64(s, 6, m->threads);
    nas__bind_i64(s, 7, m->batch_size);
    nas__bind_i64(s, 8, m->batches);
    nas__bind_i64(s, 9, m->dropped);
    nas__bind_i64(s, 10, m->repeats);
    nas__bind_i64(s, 11, m->noisy ? 1 : 0);
    nas__bind_i64(s, 12, m->simulated ? 1 : 0);
    nas__bind_double(s, 13, m->p50_us);
    nas__bind_double(s, 14, m->p50_lo_us);
    nas__bind_double(s, 15, m->p50_hi_us);
    nas__bind_double(s, 16, m->p90_us);
    nas__bind_double(s, 17, m->p10_us);
    nas__bind_double(s, 18, m->min_us);
    nas__bind_double(s, 19, m->mad_us);
    nas__bind_opt_double(s, 20, m->init_us);
    nas__bind_opt_double(s, 21, m->first_us);
    nas__bind_opt_double(s, 22, m->drift_ratio);
    nas__bind_text(s, 23, m->passport_json);
}

nas_status nas_db_measurement_insert(nas_ctx *ctx, nas_db *db, const nas_db_measurement *row,
                                     int64_t *id) {
    unsigned char *bytes = nas_alloc_array(ctx, row->n_samples, 8);
    if (bytes == NULL) return NAS_ERR_NOMEM;
    samples_to_bytes(row->samples_us, row->n_samples, bytes);
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the measurement",
        "INSERT INTO measurements (study_id, trial_id, artifact_id, device_id, role, threads, "
        "batch_size, batches,"
        " dropped, repeats, noisy, simulated, p50_us, p50_lo_us, p50_hi_us, p90_us, p10_us, "
        "min_us, mad_us, init_us,"
        " first_us, drift_ratio, passport, samples_us, n_samples, taken_ms) VALUES ("
        "coalesce(?1, (SELECT study_id FROM trials WHERE id = ?2)), ?2, ?3, ?4, ?5, ?6, ?7, ?8, "
        "?9, ?10, ?11, ?12,"
        " ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26) RETURNING id");
    bind_measurement(&s, row);
    nas__bind_blob(&s, 24, bytes, row->n_samples * 8);
    nas__bind_u64(&s, 25, row->n_samples);
    nas__bind_i64(&s, 26, nas_unix_time_ms());
    const nas_status status = run_for_id(&s, id);
    nas_free(bytes);
    return nas_wrap(ctx, status, "measurement of trial id %" PRId64, row->trial_id);
}

nas_status nas_db_prediction_insert(nas_ctx *ctx, nas_db *db, const nas_db_prediction *row) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the prediction",
        "INSERT INTO predictions (trial_id, device_id, predictor, p50_us, lo_us, hi_us, decided, "
        "in_sample, made_ms)"
        " VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7,"
        " ?9 = 0 AND EXISTS (SELECT 1 FROM measurements WHERE trial_id = ?1 AND device_id = ?2), "
        "?8)");
    nas__bind_i64(&s, 1, row->trial_id);
    nas__bind_i64(&s, 2, row->device_id);
    nas__bind_text(&s, 3, row->predictor);
    nas__bind_double(&s, 4, row->p50_us);
    nas__bind_double(&s, 5, row->lo_us);
    nas__bind_double(&s, 6, row->hi_us);
    nas__bind_i64(&s, 7, row->decided ? 1 : 0);
    nas__bind_i64(&s, 8, nas_unix_time_ms());
    nas__bind_i64(&s, 9, row->held_out ? 1 : 0);
    return nas_wrap(ctx, nas__stmt_run(&s), "prediction for trial id %" PRId64, row->trial_id);
}

nas_status nas_db_trial_has_prediction(nas_ctx *ctx, nas_db *db, int64_t trial_id, bool *out) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "look for a prediction",
                          "SELECT 1 FROM predictions WHERE trial_id = ? AND in_sample = 0 LIMIT 1");
    nas__bind_i64(&s, 1, trial_id);
    const bool found = nas__stmt_row(&s);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *out = found;
    return status;
}

static nas_status insert_layer(nas_ctx *ctx, nas_db *db, int64_t trial_id, size_t index,
                               const nas_db_layer *row) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store a layer",
        "INSERT INTO layers (trial_id, layer, node, family, h, w, c_in, c_out, kernel,"
        " macs, macs_padded, bytes, flop_per_byte)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_u64(&s, 2, index);
    nas__bind_text(&s, 3, row->node);
    nas__bind_text(&s, 4, row->family);
    nas__bind_i64(&s, 5, row->h);
    nas__bind_i64(&s, 6, row->w);
    nas__bind_i64(&s, 7, row->c_in);
    nas__bind_i64(&s, 8, row->c_out);
    nas__bind_i64(&s, 9, row->kernel);
    nas__bind_u64(&s, 10, row->macs);
    nas__bind_u64(&s, 11, row->macs_padded);
    nas__bind_u64(&s, 12, row->bytes);
    nas__bind_double(&s, 13, row->intensity);
    return nas_wrap(ctx, nas__stmt_run(&s), "layer %zu of trial id %" PRId64, index, trial_id);
}

nas_status nas_db_layers_put(nas_ctx *ctx, nas_db *db, int64_t trial_id, const nas_db_layer *rows,
                             size_t n) {
    nas_status status = nas__atomic_begin(ctx, db);
    if (status != NAS_OK) return status;
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "replace the layers", "DELETE FROM layers WHERE trial_id = ?");
    nas__bind_i64(&s, 1, trial_id);
    status = nas__stmt_run(&s);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = insert_layer(ctx, db, trial_id, i, &rows[i]);
    return nas__atomic_end(ctx, db, status);
}
