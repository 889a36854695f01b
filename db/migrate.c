/* migrate.c - brings a file to the newest schema version: all missing steps in one transaction, or none. */
#include "db/db_internal.h"

#include <stdio.h>

static nas_status read_number(nas_ctx *ctx, nas_db *db, const char *sql, int64_t *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read the file's header", sql);
    int64_t value = 0;
    if (nas__stmt_row(&s)) value = nas__column_i64(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *out = value;
    return status;
}

nas_status nas__db_identify(nas_ctx *ctx, nas_db *db, int32_t *version) {
    int64_t application = 0, user_version = 0, objects = 0;
    nas_status status = read_number(ctx, db, "PRAGMA application_id", &application);
    if (status == NAS_OK) status = read_number(ctx, db, "PRAGMA user_version", &user_version);
    if (status == NAS_OK)
        status = read_number(ctx, db, "SELECT count(*) FROM sqlite_schema", &objects);
    if (status != NAS_OK) return status;
    const bool fresh = application == 0 && user_version == 0 && objects == 0;
    if (!fresh && (application != NAS__DB_APPLICATION_ID || user_version < 1)) {
        return nas_fail(ctx, NAS_ERR_DB,
                        "%s is an SQLite database of another program (application id %" PRId64
                        ", %" PRId64 " tables and indexes): check the path",
                        db->path, application, objects);
    }
    *version = (int32_t)user_version;
    return NAS_OK;
}

static nas_status check_foreign_keys(nas_ctx *ctx, nas_db *db) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "check references", "PRAGMA foreign_key_check");
    char table[64] = "";
    const bool broken = nas__stmt_row(&s);
    if (broken) nas__column_text(&s, 0, table, sizeof table);
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK || !broken) return status;
    return nas_fail(ctx, NAS_ERR_DB, "%s: rows of table %s refer to missing rows", db->path, table);
}

static nas_status run_steps(nas_ctx *ctx, nas_db *db, const nas_db_migration *list, int32_t from,
                            int32_t to) {
    for (int32_t i = from; i < to; i++) {
        for (const char *const *sql = list[i].statements; *sql != NULL; sql++) {
            const nas_status status = nas__db_exec(ctx, db, "change the schema", *sql);
            if (status != NAS_OK) {
                return nas_wrap(ctx, status, "schema version %" PRId32 " (%s)", i + 1,
                                list[i].what);
            }
        }
    }
    nas_status status = check_foreign_keys(ctx, db);
    char sql[64];
    (void)snprintf(sql, sizeof sql, "PRAGMA application_id = %d", (int)NAS__DB_APPLICATION_ID);
    if (status == NAS_OK) status = nas__db_exec(ctx, db, "mark the file", sql);
    (void)snprintf(sql, sizeof sql, "PRAGMA user_version = %" PRId32, to);
    if (status == NAS_OK) status = nas__db_exec(ctx, db, "set the schema version", sql);
    return status;
}

nas_status nas__db_migrate(nas_ctx *ctx, nas_db *db, const nas_db_migration *list, int32_t n) {
    int32_t version = 0;
    nas_status status = nas__db_identify(ctx, db, &version);
    if (status != NAS_OK) return status;
    if (version > n) {
        return nas_fail(ctx, NAS_ERR_DB,
                        "%s has schema version %" PRId32
                        ", this program knows versions up to %" PRId32
                        ": use a newer program, or another run folder",
                        db->path, version, n);
    }
    if (version == n) return NAS_OK;
    /* A step may rebuild a table others refer to; the pragma has no effect inside a transaction. */
    status = nas__db_exec(ctx, db, "prepare a schema change", "PRAGMA foreign_keys = OFF");
    if (status == NAS_OK) status = nas_db_begin(ctx, db);
    if (status == NAS_OK) status = run_steps(ctx, db, list, version, n);
    if (status == NAS_OK) status = nas_db_commit(ctx, db);
    if (status != NAS_OK) nas_db_rollback(db);
    if (status != NAS_OK) return status;
    return nas__db_exec(ctx, db, "end a schema change", "PRAGMA foreign_keys = ON");
}
