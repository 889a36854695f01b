/* trial.c - trials: WAITING -> RUNNING (leased) -> COMPLETE, PRUNED or FAIL, with the values learned on the way.
 *
 * The rules are triggers of the schema; the guards here only turn the common mistakes into better messages. */
#include "db/db_internal.h"

#include <string.h>

const char *nas_trial_state_text(nas_trial_state state) {
    switch (state) {
    case NAS_TRIAL_WAITING: return "WAITING";
    case NAS_TRIAL_RUNNING: return "RUNNING";
    case NAS_TRIAL_COMPLETE: return "COMPLETE";
    case NAS_TRIAL_PRUNED: return "PRUNED";
    case NAS_TRIAL_FAIL: return "FAIL";
    case NAS_TRIAL_STATE_COUNT: break;
    }
    return "?";
}

void nas_db_trial_deinit(nas_db_trial *row) {
    nas_free(row->reason);
    nas_free(row->point);
    *row = (nas_db_trial){0};
}

nas_status nas_db_trial_insert(nas_ctx *ctx, nas_db *db, const nas_db_trial *row, int64_t *id) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "add the trial",
                          "INSERT INTO trials (study_id, number, state, point, graph_hash, origin,"
                          " created_ms) VALUES (?, ?, 'WAITING', ?, ?, ?, ?) RETURNING id");
    nas__bind_i64(&s, 1, row->study_id);
    nas__bind_i64(&s, 2, row->number);
    nas__bind_text(&s, 3, row->point);
    nas__bind_text_or_null(&s, 4, row->graph_hash);
    nas__bind_text(&s, 5, row->origin);
    nas__bind_i64(&s, 6, nas_unix_time_ms());
    int64_t fresh =
        0; /* RETURNING, because last_insert_rowid would also be moved by the trigger's insert */
    while (nas__stmt_row(&s))
        fresh = nas__column_i64(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *id = fresh;
    return nas_wrap(ctx, status, "trial %" PRId64, row->number);
}

/* What the row says, for messages of refused changes: NOTFOUND when there is no such trial. */
static nas_status refuse(nas_ctx *ctx, nas_db *db, nas_status code, int64_t trial_id,
                         const char *what) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "read the trial",
                          "SELECT number, state, coalesce(worker, '') FROM trials WHERE id = ?");
    nas__bind_i64(&s, 1, trial_id);
    char state[16] = "", worker[128] = "";
    int64_t number = 0;
    const bool found = nas__stmt_row(&s);
    if (found) {
        number = nas__column_i64(&s, 0);
        nas__column_text(&s, 1, state, sizeof state);
        nas__column_text(&s, 2, worker, sizeof worker);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) return status;
    if (!found)
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "cannot %s: no trial with id %" PRId64, what,
                        trial_id);
    return nas_fail(ctx, code, "cannot %s: trial %" PRId64 " is %s%s%s%s", what, number, state,
                    worker[0] != '\0' ? " (worker " : "", worker, worker[0] != '\0' ? ")" : "");
}

nas_status nas_db_trial_lease(nas_ctx *ctx, nas_db *db, int64_t trial_id, const char *worker,
                              int64_t lease_ms) {
    enum { LEASE_MS_MAX = 24 * 3600 * 1000, WORKER_MAX = 100 };
    if (lease_ms < 1 || lease_ms > LEASE_MS_MAX || worker == NULL || strlen(worker) > WORKER_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "lease of %" PRId64 " ms (1..%d) for worker '%.120s' (at most %d bytes)",
                        lease_ms, LEASE_MS_MAX, worker == NULL ? "" : worker, WORKER_MAX);
    }
    const int64_t now = nas_unix_time_ms();
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "lease the trial",
        "UPDATE trials SET state = 'RUNNING', attempt = attempt + 1, worker = ?2, lease_owner = ?3,"
        " lease_until_ms = ?4, started_ms = ?5 WHERE id = ?1 AND (state = 'WAITING'"
        " OR (state = 'RUNNING' AND (lease_owner <> ?3 OR lease_until_ms <= ?5)))");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_text(&s, 2, worker);
    nas__bind_text(&s, 3, db->owner);
    nas__bind_i64(&s, 4, now + lease_ms);
    nas__bind_i64(&s, 5, now);
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return refuse(ctx, db, NAS_ERR_NOTFOUND, trial_id, "lease the trial");
}

static bool has_final(const nas_db_values *v) {
    return v->final_psnr_y_db.is_set || v->final_ssim_y.is_set ||
           v->final_select_psnr_y_db.is_set || v->final_latency_p50_us.is_set ||
           v->final_latency_p50_lo_us.is_set || v->final_latency_p50_hi_us.is_set ||
           v->final_latency_p90_us.is_set || v->final_violation.is_set;
}

static bool has_search(const nas_db_values *v) {
    return v->psnr_y_db.is_set || v->ssim_y.is_set || v->latency_p50_us.is_set ||
           v->latency_p50_lo_us.is_set || v->latency_p50_hi_us.is_set || v->latency_p90_us.is_set ||
           v->macs.is_set || v->params.is_set || v->peak_activation_bytes.is_set ||
           v->arena_bytes.is_set || v->violation.is_set || v->hypervolume.is_set || v->noisy.is_set;
}

/* Absent fields are bound as NULL, and coalesce keeps what is there. */
static nas_status merge_search_values(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                      const nas_db_values *v) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the trial's values",
        "UPDATE trial_values SET psnr_y_db = coalesce(?2, psnr_y_db), ssim_y = coalesce(?3, "
        "ssim_y),"
        " latency_p50_us = coalesce(?4, latency_p50_us), latency_p50_lo_us = coalesce(?5, "
        "latency_p50_lo_us),"
        " latency_p50_hi_us = coalesce(?6, latency_p50_hi_us), latency_p90_us = coalesce(?7, "
        "latency_p90_us),"
        " macs = coalesce(?8, macs), params = coalesce(?9, params),"
        " peak_activation_bytes = coalesce(?10, peak_activation_bytes), arena_bytes = "
        "coalesce(?11, arena_bytes),"
        " violation = coalesce(?12, violation), hypervolume = coalesce(?13, hypervolume),"
        " noisy = coalesce(?14, noisy)"
        " WHERE trial_id = ?1 AND EXISTS (SELECT 1 FROM trials WHERE id = ?1 AND state = "
        "'RUNNING')");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_opt_double(&s, 2, v->psnr_y_db);
    nas__bind_opt_double(&s, 3, v->ssim_y);
    nas__bind_opt_double(&s, 4, v->latency_p50_us);
    nas__bind_opt_double(&s, 5, v->latency_p50_lo_us);
    nas__bind_opt_double(&s, 6, v->latency_p50_hi_us);
    nas__bind_opt_double(&s, 7, v->latency_p90_us);
    nas__bind_opt_i64(&s, 8, v->macs);
    nas__bind_opt_i64(&s, 9, v->params);
    nas__bind_opt_i64(&s, 10, v->peak_activation_bytes);
    nas__bind_opt_i64(&s, 11, v->arena_bytes);
    nas__bind_opt_double(&s, 12, v->violation);
    nas__bind_opt_double(&s, 13, v->hypervolume);
    nas__bind_opt_i64(&s, 14, v->noisy);
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return refuse(ctx, db, NAS_ERR_DB, trial_id, "store values (only of RUNNING trials)");
}

nas_status nas_db_trial_set_values(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   const nas_db_values *values) {
    if (has_final(values)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "trial id %" PRId64 ": final figures are set after the trial is "
                        "COMPLETE, by nas_db_trial_set_final",
                        trial_id);
    }
    return merge_search_values(ctx, db, trial_id, values);
}

nas_status nas_db_trial_set_final(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                  const nas_db_values *values) {
    if (has_search(values) || !has_final(values)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "trial id %" PRId64 ": set_final takes the final_* fields, and only them",
                        trial_id);
    }
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "store the final figures",
                          "UPDATE trial_values SET final_psnr_y_db = coalesce(?2, final_psnr_y_db),"
                          " final_ssim_y = coalesce(?3, final_ssim_y),"
                          " final_select_psnr_y_db = coalesce(?4, final_select_psnr_y_db),"
                          " final_latency_p50_us = coalesce(?5, final_latency_p50_us),"
                          " final_latency_p50_lo_us = coalesce(?6, final_latency_p50_lo_us),"
                          " final_latency_p50_hi_us = coalesce(?7, final_latency_p50_hi_us),"
                          " final_latency_p90_us = coalesce(?8, final_latency_p90_us),"
                          " final_violation = coalesce(?9, final_violation)"
                          " WHERE trial_id = ?1 AND EXISTS (SELECT 1 FROM trials WHERE id = ?1 AND "
                          "state = 'COMPLETE')");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_opt_double(&s, 2, values->final_psnr_y_db);
    nas__bind_opt_double(&s, 3, values->final_ssim_y);
    nas__bind_opt_double(&s, 4, values->final_select_psnr_y_db);
    nas__bind_opt_double(&s, 5, values->final_latency_p50_us);
    nas__bind_opt_double(&s, 6, values->final_latency_p50_lo_us);
    nas__bind_opt_double(&s, 7, values->final_latency_p50_hi_us);
    nas__bind_opt_double(&s, 8, values->final_latency_p90_us);
    nas__bind_opt_double(&s, 9, values->final_violation);
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return refuse(ctx, db, NAS_ERR_DB, trial_id, "store final figures (only of COMPLETE trials)");
}

static nas_status set_finished(nas_ctx *ctx, nas_db *db, int64_t trial_id, nas_trial_state state,
                               const char *reason) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "finish the trial",
                                    "UPDATE trials SET state = ?2, reason = ?3, finished_ms = ?4"
                                    " WHERE id = ?1 AND state = 'RUNNING'");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_text(&s, 2, nas_trial_state_text(state));
    nas__bind_text(&s, 3, reason);
    nas__bind_i64(&s, 4, nas_unix_time_ms());
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return refuse(ctx, db, NAS_ERR_DB, trial_id, "finish the trial (only RUNNING ones)");
}

nas_status nas_db_trial_finish(nas_ctx *ctx, nas_db *db, int64_t trial_id, nas_trial_state state,
                               const char *reason, const nas_db_values *values) {
    const bool finished =
        state == NAS_TRIAL_COMPLETE || state == NAS_TRIAL_PRUNED || state == NAS_TRIAL_FAIL;
    if (!finished || (state == NAS_TRIAL_COMPLETE && reason != NULL)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "trial id %" PRId64
                        ": finish with state %s%s; use COMPLETE without a reason, PRUNED or FAIL",
                        trial_id, nas_trial_state_text(state),
                        reason != NULL ? " and a reason" : "");
    }
    nas_status status = nas__atomic_begin(ctx, db);
    if (status != NAS_OK) return status;
    if (values != NULL) status = nas_db_trial_set_values(ctx, db, trial_id, values);
    if (status == NAS_OK) status = set_finished(ctx, db, trial_id, state, reason);
    return nas__atomic_end(ctx, db, status);
}

static void read_values(nas__stmt *s, int first, nas_db_values *v) {
    nas_opt_double *const reals[] = {&v->psnr_y_db,
                                     &v->ssim_y,
                                     &v->latency_p50_us,
                                     &v->latency_p50_lo_us,
                                     &v->latency_p50_hi_us,
                                     &v->latency_p90_us,
                                     &v->violation,
                                     &v->hypervolume,
                                     &v->final_psnr_y_db,
                                     &v->final_ssim_y,
                                     &v->final_select_psnr_y_db,
                                     &v->final_latency_p50_us,
                                     &v->final_latency_p50_lo_us,
                                     &v->final_latency_p50_hi_us,
                                     &v->final_latency_p90_us,
                                     &v->final_violation};
    nas_opt_i64 *const wholes[] = {&v->macs, &v->params, &v->peak_activation_bytes, &v->arena_bytes,
                                   &v->noisy};
    const int n_reals = (int)(sizeof reals / sizeof reals[0]);
    for (int i = 0; i < n_reals; i++)
        *reals[i] = nas__column_opt_double(s, first + i);
    for (int i = 0; i < (int)(sizeof wholes / sizeof wholes[0]); i++) {
        *wholes[i] = nas__column_opt_i64(s, first + n_reals + i);
    }
}

static void read_trial(nas__stmt *s, nas_db_trial *row) {
    char state[16] = "";
    row->id = nas__column_i64(s, 0);
    row->study_id = nas__column_i64(s, 1);
    row->number = nas__column_i64(s, 2);
    nas__column_text(s, 3, state, sizeof state);
    for (int i = 0; i < NAS_TRIAL_STATE_COUNT; i++) { /* the schema admits no other text */
        if (strcmp(state, nas_trial_state_text((nas_trial_state)i)) == 0)
            row->state = (nas_trial_state)i;
    }
    row->point = nas__column_strdup(s, 4);
    nas__column_text(s, 5, row->graph_hash, sizeof row->graph_hash);
    nas__column_text(s, 6, row->origin, sizeof row->origin);
    row->attempt = (int32_t)nas__column_i64(s, 7);
    row->reason = nas__column_strdup(s, 8);
    read_values(s, 9, &row->values);
}

nas_status nas_db_trials(nas_ctx *ctx, nas_db *db, int64_t study_id, nas_db_trial **rows,
                         size_t *n) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "read the trials",
        "SELECT id, study_id, number, state, point, graph_hash, origin, attempt, reason,"
        " psnr_y_db, ssim_y, latency_p50_us, latency_p50_lo_us, latency_p50_hi_us, latency_p90_us, "
        "violation,"
        " hypervolume, final_psnr_y_db, final_ssim_y, final_select_psnr_y_db,"
        " final_latency_p50_us, final_latency_p50_lo_us, final_latency_p50_hi_us,"
        " final_latency_p90_us, final_violation,"
        " macs, params, peak_activation_bytes, arena_bytes, noisy"
        " FROM trials JOIN trial_values ON trial_id = id WHERE study_id = ? ORDER BY number");
    nas__bind_i64(&s, 1, study_id);
    nas_db_trial *list = nas_alloc_array(ctx, 0, sizeof *list);
    if (list == NULL) s.status = NAS_ERR_NOMEM;
    size_t count = 0, cap = 0;
    while (nas__stmt_row(&s)) {
        s.status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (s.status != NAS_OK) break;
        read_trial(&s, &list[count]);
        count++;
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) {
        nas_db_trials_free(list, count);
        return status;
    }
    *rows = list;
    *n = count;
    return NAS_OK;
}

void nas_db_trials_free(nas_db_trial *rows, size_t n) {
    if (rows == NULL) return;
    for (size_t i = 0; i < n; i++)
        nas_db_trial_deinit(&rows[i]);
    nas_free(rows);
}
