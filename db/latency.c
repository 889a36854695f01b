/* latency.c - what several devices add to a study: its queues, a trial's latency in each, the front by all objectives. */
#include "db/db_internal.h"

#include <string.h>

static const char *role_text(bool final) {
    return final ? "final" : "search";
}

nas_status nas_db_device_set_queue(nas_ctx *ctx, nas_db *db, int64_t device_id, const char *queue) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "store a device's queue",
                                    "UPDATE devices SET queue = ?2 WHERE id = ?1");
    nas__bind_i64(&s, 1, device_id);
    nas__bind_text(&s, 2, queue);
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no device with id %" PRId64, device_id);
}

nas_status nas_db_device_runs(nas_ctx *ctx, nas_db *db, int64_t device_id, int32_t threads,
                              size_t max, nas_db_run **rows, size_t *n) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the runs of a device",
        "SELECT sha256, p50_us FROM (SELECT m.id AS id, a.sha256, m.p50_us FROM measurements m"
        " JOIN artifacts a ON a.id = m.artifact_id WHERE m.device_id = ?1 AND m.threads = ?2"
        " ORDER BY m.id DESC LIMIT ?3) ORDER BY id");
    nas__bind_i64(&s, 1, device_id);
    nas__bind_i64(&s, 2, threads);
    nas__bind_u64(&s, 3, max);
    nas_db_run *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        nas__column_text(&s, 0, list[count].sha256, sizeof list[count].sha256);
        list[count++].p50_us = nas__column_opt_double(&s, 1).value;
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

nas_status nas_db_device_last(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *name,
                              char fingerprint[NAS_SHA256_HEX], char **info_json) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "look for a device",
        "SELECT d.fingerprint, d.info_json FROM devices d WHERE d.name = ?2 AND EXISTS"
        " (SELECT 1 FROM measurements m WHERE m.device_id = d.id AND m.study_id = ?1)"
        " ORDER BY d.last_seen_ms DESC, d.id DESC LIMIT 1");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_text(&s, 2, name);
    char *info = NULL;
    const bool found = nas__stmt_row(&s);
    if (found) {
        nas__column_text(&s, 0, fingerprint, NAS_SHA256_HEX);
        info = nas__column_strdup(&s, 1);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK || !found) {
        nas_free(info);
        return status != NAS_OK ? status
                                : nas_fail(ctx, NAS_ERR_NOTFOUND, "device '%s' is new", name);
    }
    *info_json = info;
    return NAS_OK;
}

nas_status nas_db_study_set_queues(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                   const char *const *names, size_t n) {
    nas_status status = nas__atomic_begin(ctx, db);
    if (status != NAS_OK) return status;
    nas__stmt s = nas__stmt_prepare(ctx, db, "replace the study's queues",
                                    "DELETE FROM study_queues WHERE study_id = ?");
    nas__bind_i64(&s, 1, study_id);
    status = nas__stmt_run(&s);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        s = nas__stmt_prepare(
            ctx, db, "store the study's queues",
            "INSERT INTO study_queues (study_id, position, name) VALUES (?, ?, ?)");
        nas__bind_i64(&s, 1, study_id);
        nas__bind_u64(&s, 2, i);
        nas__bind_text(&s, 3, names[i]);
        status = nas__stmt_run(&s);
    }
    return nas__atomic_end(ctx, db, status);
}

nas_status nas_db_trial_latency_put(nas_ctx *ctx, nas_db *db, const nas_db_latency *row) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store a latency",
        "INSERT INTO trial_latencies (trial_id, role, queue, measurement_id, p50_us, p50_lo_us,"
        " p50_hi_us, p90_us, noisy, checked) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (trial_id, role, queue) DO UPDATE SET"
        " measurement_id = excluded.measurement_id, p50_us = excluded.p50_us,"
        " p50_lo_us = excluded.p50_lo_us, p50_hi_us = excluded.p50_hi_us, p90_us = excluded.p90_us,"
        " noisy = excluded.noisy, checked = excluded.checked");
    nas__bind_i64(&s, 1, row->trial_id);
    nas__bind_text(&s, 2, role_text(row->final));
    nas__bind_text(&s, 3, row->queue);
    nas__bind_id_or_null(&s, 4, row->measurement_id);
    nas__bind_double(&s, 5, row->p50_us);
    nas__bind_double(&s, 6, row->p50_lo_us);
    nas__bind_double(&s, 7, row->p50_hi_us);
    nas__bind_double(&s, 8, row->p90_us);
    nas__bind_i64(&s, 9, row->noisy ? 1 : 0);
    nas__bind_text_or_null(&s, 10, row->checked);
    return nas_wrap(ctx, nas__stmt_run(&s), "latency of trial id %" PRId64 " in queue '%s'",
                    row->trial_id, row->queue);
}

static void read_latency(nas__stmt *s, nas_db_latency *row) {
    char role[16] = "";
    *row = (nas_db_latency){.trial_id = nas__column_i64(s, 0),
                            .measurement_id = nas__column_opt_i64(s, 3).value,
                            .p50_us = nas__column_opt_double(s, 4).value,
                            .p50_lo_us = nas__column_opt_double(s, 5).value,
                            .p50_hi_us = nas__column_opt_double(s, 6).value,
                            .p90_us = nas__column_opt_double(s, 7).value,
                            .noisy = nas__column_i64(s, 8) != 0};
    nas__column_text(s, 1, role, sizeof role);
    row->final = strcmp(role, role_text(true)) == 0;
    nas__column_text(s, 2, row->queue, sizeof row->queue);
    nas__column_text(s, 9, row->checked, sizeof row->checked);
}

nas_status nas_db_trial_latencies(nas_ctx *ctx, nas_db *db, int64_t study_id, nas_db_latency **rows,
                                  size_t *n) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the latencies",
        "SELECT l.trial_id, l.role, l.queue, l.measurement_id, l.p50_us, l.p50_lo_us, l.p50_hi_us,"
        " l.p90_us, l.noisy, l.checked FROM trial_latencies l JOIN trials t ON t.id = l.trial_id"
        " WHERE t.study_id = ? ORDER BY t.number, l.role, l.queue");
    nas__bind_i64(&s, 1, study_id);
    nas_db_latency *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        read_latency(&s, &list[count++]);
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

nas_status nas_db_study_set_front(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                  const int64_t *trial_ids, size_t n) {
    nas_status status = nas__atomic_begin(ctx, db);
    if (status != NAS_OK) return status;
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "replace the front", "DELETE FROM fronts WHERE study_id = ?");
    nas__bind_i64(&s, 1, study_id);
    status = nas__stmt_run(&s);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        s = nas__stmt_prepare(ctx, db, "store the front",
                              "INSERT INTO fronts (study_id, trial_id) VALUES (?, ?)");
        nas__bind_i64(&s, 1, study_id);
        nas__bind_i64(&s, 2, trial_ids[i]);
        status = nas__stmt_run(&s);
    }
    return nas__atomic_end(ctx, db, status);
}
