/* study.c - studies, their strategy's state, small facts (meta) and the diary (events). */
#include "db/db_internal.h"

void nas_db_study_deinit(nas_db_study *row) {
    nas_free(row->strategy_state);
    nas_free(row->config_json);
    nas_free(row->config_toml);
    *row = (nas_db_study){0};
}

static nas_status insert_row(nas_ctx *ctx, nas_db *db, const nas_db_study *row, int64_t *id) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "add the study",
        "INSERT INTO studies (name, space, strategy, seed, config_toml, config_json,"
        " data_hash, created_ms) VALUES (?, ?, ?, ?, ?, ?, ?, ?)");
    nas__bind_text(&s, 1, row->name);
    nas__bind_text(&s, 2, row->space);
    nas__bind_text(&s, 3, row->strategy);
    nas__bind_i64(&s, 4, (int64_t)row->seed); /* the same 64 bits; get turns them back */
    nas__bind_text(&s, 5, row->config_toml);
    nas__bind_text(&s, 6, row->config_json);
    nas__bind_text_or_null(&s, 7, row->data_hash);
    nas__bind_i64(&s, 8, nas_unix_time_ms());
    const nas_status status = nas__stmt_run(&s);
    if (status == NAS_OK) *id = sqlite3_last_insert_rowid(db->handle);
    return nas_wrap(ctx, status, "study '%s'", row->name);
}

nas_status nas_db_study_insert(nas_ctx *ctx, nas_db *db, const nas_db_study *row, int64_t *id) {
    int64_t fresh = 0;
    nas_status status = nas__atomic_begin(ctx, db);
    if (status != NAS_OK) return status;
    status = insert_row(ctx, db, row, &fresh);
    if (status == NAS_OK && row->strategy_state != NULL) {
        status = nas_db_study_set_strategy_state(ctx, db, fresh, row->strategy_state);
    }
    status = nas__atomic_end(ctx, db, status);
    if (status == NAS_OK) *id = fresh;
    return status;
}

nas_status nas_db_study_get(nas_ctx *ctx, nas_db *db, const char *name, nas_db_study *out) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "read the study",
                          "SELECT id, name, space, strategy, seed, config_toml, config_json, state,"
                          " data_hash FROM studies LEFT JOIN strategy_states ON study_id = id"
                          " WHERE name = ?");
    nas__bind_text(&s, 1, name);
    nas_db_study row = {0};
    const bool found = nas__stmt_row(&s);
    if (found) {
        row.id = nas__column_i64(&s, 0);
        nas__column_text(&s, 1, row.name, sizeof row.name);
        nas__column_text(&s, 2, row.space, sizeof row.space);
        nas__column_text(&s, 3, row.strategy, sizeof row.strategy);
        row.seed = (uint64_t)nas__column_i64(&s, 4);
        row.config_toml = nas__column_strdup(&s, 5);
        row.config_json = nas__column_strdup(&s, 6);
        row.strategy_state = nas__column_strdup(&s, 7);
        nas__column_text(&s, 8, row.data_hash, sizeof row.data_hash);
    }
    nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK && !found) {
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "no study '%s' in %s", name, db->path);
    }
    if (status != NAS_OK) {
        nas_db_study_deinit(&row);
        return status;
    }
    *out = row;
    return NAS_OK;
}

nas_status nas_db_study_set_strategy_state(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                           const char *state) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the strategy's state",
        "INSERT INTO strategy_states (study_id, state, updated_ms) VALUES (?, ?, ?)"
        " ON CONFLICT (study_id) DO UPDATE SET state = excluded.state,"
        " updated_ms = excluded.updated_ms");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_text(&s, 2, state);
    nas__bind_i64(&s, 3, nas_unix_time_ms());
    return nas__stmt_run(&s);
}

nas_status nas_db_study_set_data_hash(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                      const char *hash) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "store the data's hash",
                                    "UPDATE studies SET data_hash = ? WHERE id = ?");
    nas__bind_text_or_null(&s, 1, hash);
    nas__bind_i64(&s, 2, study_id);
    bool changed = false;
    const nas_status status = nas__stmt_run_changed(&s, &changed);
    if (status != NAS_OK || changed) return status;
    return nas_fail(ctx, NAS_ERR_NOTFOUND, "no study with id %" PRId64 " in %s", study_id,
                    db->path);
}

nas_status nas_db_event(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *kind,
                        const char *text) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "note an event",
                          "INSERT INTO events (study_id, time_ms, kind, text) VALUES (?, ?, ?, ?)");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_i64(&s, 2, nas_unix_time_ms());
    nas__bind_text(&s, 3, kind);
    nas__bind_text(&s, 4, text);
    return nas__stmt_run(&s);
}

nas_status nas_db_meta_set(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key,
                           const char *value) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "store a fact",
                          "INSERT INTO meta (study_id, key, value, updated_ms) VALUES (?, ?, ?, ?)"
                          " ON CONFLICT (study_id, key) DO UPDATE SET value = excluded.value,"
                          " updated_ms = excluded.updated_ms");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_text(&s, 2, key);
    nas__bind_text(&s, 3, value);
    nas__bind_i64(&s, 4, nas_unix_time_ms());
    return nas__stmt_run(&s);
}

nas_status nas_db_meta_get(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key,
                           char **value) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read a fact",
                                    "SELECT value FROM meta WHERE study_id = ? AND key = ?");
    nas__bind_i64(&s, 1, study_id);
    nas__bind_text(&s, 2, key);
    char *found = nas__stmt_row(&s) ? nas__column_strdup(&s, 0) : NULL;
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) { /* a failed copy is already recorded and gave no memory */
        nas_free(found);
        return status;
    }
    if (found == NULL) return nas_fail(ctx, NAS_ERR_NOTFOUND, "no '%s' stored for the study", key);
    *value = found;
    return NAS_OK;
}
