/* study_rows.c - rows of whole studies for predictors: what was measured, and what was foretold before. */
#include "db/db_internal.h"

static void read_forecast(nas__stmt *s, nas_db_forecast *row) {
    *row = (nas_db_forecast){.trial_id = nas__column_i64(s, 0),
                             .p50_us = nas__column_opt_double(s, 2).value,
                             .lo_us = nas__column_opt_double(s, 3).value,
                             .hi_us = nas__column_opt_double(s, 4).value,
                             .decided = nas__column_i64(s, 5) != 0};
    nas__column_text(s, 1, row->queue, sizeof row->queue);
}

nas_status nas_db_study_forecasts(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                  nas_db_forecast **rows, size_t *n) {
    /* A held-out prediction of the end is made after the measurement, as one that is in sample. */
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the predictions",
        "SELECT p.trial_id, coalesce(d.queue, d.name) AS queue, p.p50_us, p.lo_us, p.hi_us,"
        " p.decided, min(p.id) FROM predictions p JOIN devices d ON d.id = p.device_id"
        " JOIN trials t ON t.id = p.trial_id WHERE t.study_id = ? AND p.in_sample = 0"
        " AND NOT EXISTS (SELECT 1 FROM measurements m WHERE m.trial_id = p.trial_id"
        "  AND m.device_id = p.device_id AND m.taken_ms < p.made_ms)"
        " GROUP BY p.trial_id, coalesce(d.queue, d.name) ORDER BY t.number, queue");
    nas__bind_i64(&s, 1, study_id);
    nas_db_forecast *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        read_forecast(&s, &list[count++]);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) {
        nas_free(list);
        return status;
    }
    *rows = list;
    *n = count;
    return NAS_OK;
}

nas_status nas_db_study_drift(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *queue,
                              nas_opt_double *out) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the drift",
        "SELECT avg(m.drift_ratio) FROM trial_latencies l JOIN trials t ON t.id = l.trial_id"
        " JOIN measurements m ON m.id = l.measurement_id WHERE t.study_id = ? AND l.queue = ?"
        " AND l.role = 'search' AND t.origin IN ('strategy', 'seed')");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_text(&s, 2, queue);
    nas_opt_double found = {0};
    if (nas__stmt_row(&s)) found = nas__column_opt_double(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *out = found;
    return status;
}

static void read_study_latency(nas__stmt *s, nas_db_study_latency *row) {
    *row = (nas_db_study_latency){.study_id = nas__column_i64(s, 0),
                                  .measurement_id = nas__column_i64(s, 1),
                                  .trial = nas__column_i64(s, 2),
                                  .study = nas__column_strdup(s, 3),
                                  .point = nas__column_strdup(s, 4),
                                  .target = nas__column_strdup(s, 5),
                                  .threads = (int32_t)nas__column_i64(s, 9),
                                  .scale = (int32_t)nas__column_i64(s, 10),
                                  .out_height = (int32_t)nas__column_i64(s, 11),
                                  .out_width = (int32_t)nas__column_i64(s, 12),
                                  .p50_us = nas__column_opt_double(s, 13).value,
                                  .noisy = nas__column_i64(s, 14) != 0,
                                  .simulated = nas__column_i64(s, 15) != 0};
    nas__column_text(s, 6, row->device, sizeof row->device);
    nas__column_text(s, 7, row->queue, sizeof row->queue);
    nas__column_text(s, 8, row->fingerprint, sizeof row->fingerprint);
}

void nas_db_study_latencies_free(nas_db_study_latency *rows, size_t n) {
    for (size_t i = 0; i < n && rows != NULL; i++) {
        nas_free(rows[i].target);
        nas_free(rows[i].point);
        nas_free(rows[i].study);
    }
    nas_free(rows);
}

nas_status nas_db_study_latencies(nas_ctx *ctx, nas_db *db, const char *space,
                                  nas_db_study_latency **rows, size_t *n) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the latencies of all studies",
        "SELECT s.id, m.id, t.number, s.name, t.point, coalesce(a.target, ''), d.name, l.queue,"
        " d.fingerprint, m.threads, coalesce(json_extract(s.config_json, '$.\"task.scale\"'), 0),"
        " coalesce(json_extract(s.config_json, '$.\"task.out_height\"'), 0),"
        " coalesce(json_extract(s.config_json, '$.\"task.out_width\"'), 0),"
        " l.p50_us, l.noisy, m.simulated"
        " FROM trial_latencies l JOIN trials t ON t.id = l.trial_id"
        " JOIN studies s ON s.id = t.study_id JOIN measurements m ON m.id = l.measurement_id"
        " JOIN devices d ON d.id = m.device_id LEFT JOIN artifacts a ON a.id = m.artifact_id"
        " WHERE l.role = 'search' AND s.space = ? AND t.origin IN ('strategy', 'seed')"
        " ORDER BY m.id");
    nas__bind_text(&s, 1, space);
    nas_db_study_latency *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        read_study_latency(&s, &list[count++]);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) {
        nas_db_study_latencies_free(list, count);
        return status;
    }
    *rows = list;
    *n = count;
    return NAS_OK;
}
