/* open.c - opening, closing and transactions.
 *
 * Order of a writer's opening: lock first (a second writer must not even recover the log), then identify (a foreign or
 * newer file is never touched), then WAL mode, integrity check, migrations. */
#define _XOPEN_SOURCE 700 /* realpath */
#include "db/db_internal.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

nas_opt_double nas_some_double(double value) {
    return (nas_opt_double){.is_set = true, .value = value};
}

nas_opt_i64 nas_some_i64(int64_t value) {
    return (nas_opt_i64){.is_set = true, .value = value};
}

nas_status nas__db_new(nas_ctx *ctx, const char *path, nas_db **out) {
    char real[PATH_MAX];
    const char *name =
        realpath(path, real) != NULL ? real : path; /* one lock however links name the file */
    if (name[0] == '\0' || strlen(name) >= NAS__DB_PATH_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "database path of %zu bytes, limit 1..%d: '%.80s'",
                        strlen(name), NAS__DB_PATH_MAX - 1, name);
    }
    struct stat info;
    if (stat(name, &info) == 0 &&
        !S_ISREG(info.st_mode)) { /* before a lock file is made beside it */
        return nas_fail(ctx, NAS_ERR_IO, "%s is not a regular file", name);
    }
    uint8_t owner[NAS__DB_OWNER_HEX / 2];
    const nas_status status = nas_random_bytes(ctx, owner, sizeof owner);
    if (status != NAS_OK) return status;
    nas_db *db = nas_alloc_array(ctx, 1, sizeof *db);
    if (db == NULL) return NAS_ERR_NOMEM;
    memcpy(db->path, name, strlen(name) + 1);
    nas_hex(owner, sizeof owner, db->owner);
    db->lock_fd = -1;
    *out = db;
    return NAS_OK;
}

void nas__db_release(nas_db *db) {
    if (db == NULL) return;
    (void)sqlite3_close(db->handle); /* statements never outlive a call, so this cannot be busy */
    if (db->lock_fd >= 0) (void)close(db->lock_fd);
    nas_free(db);
}

nas_status nas__db_connect(nas_ctx *ctx, nas_db *db, int flags, int32_t busy_ms) {
    int code = sqlite3_open_v2(db->path, &db->handle, flags | SQLITE_OPEN_NOMUTEX, NULL);
    if (code == SQLITE_OK) code = sqlite3_extended_result_codes(db->handle, 1);
    if (code == SQLITE_OK) code = sqlite3_busy_timeout(db->handle, busy_ms);
    /* The file may come from a stranger: its schema must not call functions with side effects. */
    if (code == SQLITE_OK)
        code = sqlite3_db_config(db->handle, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
    return code == SQLITE_OK ? NAS_OK : nas__db_error(ctx, db, code, "open the database");
}

static nas_status use_wal(nas_ctx *ctx, nas_db *db) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "switch to WAL mode", "PRAGMA journal_mode = WAL");
    char mode[16] = "";
    if (nas__stmt_row(&s)) nas__column_text(&s, 0, mode, sizeof mode);
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK || strcmp(mode, "wal") == 0) return status;
    return nas_fail(ctx, NAS_ERR_DB,
                    "%s: this disk has no shared memory for WAL mode (SQLite stays in '%s' mode): "
                    "put the run on a local disk",
                    db->path, mode);
}

static nas_status quick_check(nas_ctx *ctx, nas_db *db) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "check the file", "PRAGMA quick_check(1)");
    char *found = NULL;
    if (nas__stmt_row(&s)) found = nas__column_strdup(&s, 0);
    nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK && (found == NULL || strcmp(found, "ok") != 0)) {
        status = nas_fail(ctx, NAS_ERR_DB,
                          "%s is damaged (%s): restore a copy, or save what can be read with "
                          "'sqlite3 FILE .recover' and start over with --fresh",
                          db->path, found == NULL ? "no answer of the check" : found);
    }
    nas_free(found);
    return status;
}

static nas_status open_writer(nas_ctx *ctx, nas_db *db, const nas_db_migration *list, int32_t n) {
    nas_status status = nas__db_lock(ctx, db);
    if (status == NAS_OK) {
        status =
            nas__db_connect(ctx, db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, NAS__DB_BUSY_MS);
    }
    if (status == NAS_OK &&
        sqlite3_db_readonly(db->handle, "main") == 1) { /* SQLite's silent fallback */
        status = nas__db_error(ctx, db, SQLITE_READONLY, "open the database");
    }
    int32_t version = 0;
    if (status == NAS_OK) status = nas__db_identify(ctx, db, &version);
    if (status == NAS_OK && version <= n) status = use_wal(ctx, db);
    if (status == NAS_OK)
        status = nas__db_exec(ctx, db, "set up the connection", "PRAGMA synchronous = FULL");
    if (status == NAS_OK)
        status = nas__db_exec(ctx, db, "set up the connection", "PRAGMA foreign_keys = ON");
    if (status == NAS_OK) {
        status =
            nas__db_exec(ctx, db, "set up the connection", "PRAGMA journal_size_limit = 16777216");
    }
    if (status == NAS_OK) status = quick_check(ctx, db);
    if (status == NAS_OK) status = nas__db_migrate(ctx, db, list, n);
    return status;
}

nas_status nas_db_open_schema(nas_ctx *ctx, const char *path, const nas_db_migration *list,
                              int32_t n, nas_db **out) {
    nas_db *db = NULL;
    nas_status status = nas__db_new(ctx, path, &db);
    if (status != NAS_OK) return status;
    status = open_writer(ctx, db, list, n);
    if (status != NAS_OK) {
        nas__db_release(db);
        return status;
    }
    *out = db;
    return NAS_OK;
}

nas_status nas_db_open(nas_ctx *ctx, const char *path, nas_db **out) {
    int32_t n = 0;
    const nas_db_migration *list = nas_db_migrations(&n);
    return nas_db_open_schema(ctx, path, list, n, out);
}

/* Whether the folder's rights, and not the file, stop SQLite from reading. */
static bool needs_snapshot(nas_db *db) {
    const int code =
        sqlite3_exec(db->handle, "SELECT count(*) FROM sqlite_schema", NULL, NULL, NULL);
    return (code & 0xff) == SQLITE_CANTOPEN || (code & 0xff) == SQLITE_READONLY;
}

static nas_status open_reader(nas_ctx *ctx, nas_db *db) {
    if (!nas_file_exists(db->path)) {
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "no database %s: %s", db->path, strerror(errno));
    }
    if (access(db->path, R_OK) != 0)
        return nas_fail(ctx, NAS_ERR_IO, "%s: %s", db->path, strerror(errno));
    db->readonly = true;
    nas_status status = nas__db_connect(ctx, db, SQLITE_OPEN_READONLY, NAS__DB_BUSY_MS);
    if (status == NAS_OK && needs_snapshot(db)) status = nas__db_load_snapshot(ctx, db);
    if (status == NAS_OK)
        status = nas__db_exec(ctx, db, "set up the connection", "PRAGMA query_only = ON");
    int32_t version = 0;
    if (status == NAS_OK) status = nas__db_identify(ctx, db, &version);
    if (status != NAS_OK) return status;
    if (version == 0) {
        return nas_fail(ctx, NAS_ERR_DB, "%s is empty: no study has been started in it yet",
                        db->path);
    }
    if (version == nas_db_schema_version()) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_DB,
                    "%s has schema version %" PRId32 ", this program reads version %" PRId32 ": %s",
                    db->path, version, nas_db_schema_version(),
                    version > nas_db_schema_version()
                        ? "use a newer program"
                        : "resume its study once, which brings it up to date");
}

nas_status nas_db_open_readonly(nas_ctx *ctx, const char *path, nas_db **out) {
    nas_db *db = NULL;
    nas_status status = nas__db_new(ctx, path, &db);
    if (status != NAS_OK) return status;
    status = open_reader(ctx, db);
    if (status != NAS_OK) {
        nas__db_release(db);
        return status;
    }
    *out = db;
    return NAS_OK;
}

nas_status nas_db_close(nas_ctx *ctx, nas_db *db) {
    if (db == NULL) return NAS_OK;
    nas_status status = NAS_OK;
    if (db->in_transaction) {
        nas_db_rollback(db);
        status = nas_fail(ctx, NAS_ERR_DB, "%s was closed inside a transaction, which was undone",
                          db->path);
    }
    if (!db->readonly && status == NAS_OK) {
        /* A reader may keep the log from being emptied: the commits stay in it, which is as safe. */
        (void)sqlite3_busy_timeout(db->handle, 0);
        const int code =
            sqlite3_wal_checkpoint_v2(db->handle, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
        if (code != SQLITE_OK && (code & 0xff) != SQLITE_BUSY && (code & 0xff) != SQLITE_LOCKED) {
            status = nas__db_error(ctx, db, code, "move the log into the database");
        }
    }
    nas__db_release(db);
    return status;
}

nas_status nas_db_begin(nas_ctx *ctx, nas_db *db) {
    if (db->in_transaction) {
        return nas_fail(ctx, NAS_ERR_DB, "%s: a transaction is already open; they do not nest",
                        db->path);
    }
    const nas_status status = nas__db_exec(ctx, db, "begin a transaction", "BEGIN IMMEDIATE");
    db->in_transaction = status == NAS_OK;
    return status;
}

nas_status nas_db_commit(nas_ctx *ctx, nas_db *db) {
    if (!db->in_transaction)
        return nas_fail(ctx, NAS_ERR_DB, "%s: no transaction to commit", db->path);
    const nas_status status = nas__db_exec(ctx, db, "commit", "COMMIT");
    if (status == NAS_OK) db->in_transaction = false;
    return status;
}

void nas_db_rollback(nas_db *db) {
    if (sqlite3_get_autocommit(db->handle) == 0) {
        (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL,
                           NULL); /* on failure nothing was committed either */
    }
    db->in_transaction = false;
}
