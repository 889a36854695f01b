/* statement.c - prepared statements with one sticky status, and the translation of SQLite's result codes into
 * messages that say what to do. */
#include "db/db_internal.h"

#include <limits.h>
#include <math.h>
#include <string.h>

/* SQLite keeps the system's reason only for some calls: a failed write is told with the likely ones. */
static nas_status io_error(nas_ctx *ctx, const nas_db *db, int code, const char *what) {
    switch (code) {
    case SQLITE_FULL:
    case SQLITE_IOERR_WRITE:
    case SQLITE_IOERR_FSYNC:
    case SQLITE_IOERR_TRUNCATE:
    case SQLITE_IOERR_SHMSIZE:
    case SQLITE_IOERR_SHMMAP:
        return nas_fail(ctx, NAS_ERR_IO,
                        "cannot %s in %s: %s (code %d): no space left, a quota or a file size "
                        "limit, or a failing "
                        "disk; everything committed before is kept: free some space and run the "
                        "same command again",
                        what, db->path, sqlite3_errstr(code), code);
    default:
        return nas_fail(ctx, NAS_ERR_IO,
                        "cannot %s in %s: %s (SQLite code %d): check the disk and the rights", what,
                        db->path, sqlite3_errstr(code), code);
    }
}

nas_status nas__db_error(nas_ctx *ctx, const nas_db *db, int code, const char *what) {
    /* A code that SQLite did not just report itself has no message of the connection. */
    const bool own = db->handle != NULL && (sqlite3_errcode(db->handle) & 0xff) == (code & 0xff);
    const char *text = own ? sqlite3_errmsg(db->handle) : sqlite3_errstr(code);
    switch (code & 0xff) {
    case SQLITE_NOMEM:
        return nas_fail(ctx, NAS_ERR_NOMEM, "cannot %s in %s: out of memory", what, db->path);
    case SQLITE_FULL:
    case SQLITE_IOERR: return io_error(ctx, db, code, what);
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_READONLY:
        return nas_fail(ctx, NAS_ERR_IO,
                        "cannot %s in %s: %s; check that the file and its folder may be written",
                        what, db->path, text);
    case SQLITE_NOTADB:
        return nas_fail(ctx, NAS_ERR_DB,
                        "%s is not a study database (not an SQLite file): check the path",
                        db->path);
    case SQLITE_CORRUPT:
        return nas_fail(ctx, NAS_ERR_DB,
                        "%s is damaged (%s): restore a copy, or save what can be read with "
                        "'sqlite3 FILE .recover' and start over with --fresh",
                        db->path, text);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return nas_fail(
            ctx, NAS_ERR_DB,
            "cannot %s in %s: another program holds SQLite's write lock: end its transaction "
            "(a database shell?) and run the same command again",
            what, db->path);
    case SQLITE_INTERRUPT: return nas_fail(ctx, NAS_ERR_CANCELLED, "cannot %s: interrupted", what);
    case SQLITE_TOOBIG:
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "cannot %s in %s: a value is larger than SQLite's limit", what, db->path);
    default: return nas_fail(ctx, NAS_ERR_DB, "cannot %s in %s: %s", what, db->path, text);
    }
}

static void check(nas__stmt *s, int code) {
    if (code == SQLITE_OK || s->status != NAS_OK) return;
    s->status = nas__db_error(s->ctx, s->db, code, s->what);
}

nas__stmt nas__stmt_prepare(nas_ctx *ctx, nas_db *db, const char *what, const char *sql) {
    nas__stmt s = {.ctx = ctx, .db = db, .what = what};
    if (db->in_transaction && sqlite3_get_autocommit(db->handle) != 0) {
        /* A full disk or no memory can end the transaction inside SQLite: what follows must not be kept alone. */
        s.status = nas_fail(ctx, NAS_ERR_DB,
                            "cannot %s in %s: an earlier failure undid the transaction: roll back",
                            what, db->path);
        return s;
    }
    check(&s, sqlite3_prepare_v2(db->handle, sql, -1, &s.handle, NULL));
    return s;
}

void nas__bind_i64(nas__stmt *s, int index, int64_t value) {
    if (s->status == NAS_OK) check(s, sqlite3_bind_int64(s->handle, index, value));
}

void nas__bind_u64(nas__stmt *s, int index, uint64_t value) {
    if (s->status == NAS_OK && value > INT64_MAX) {
        s->status = nas_fail(s->ctx, NAS_ERR_RANGE,
                             "cannot %s: value %" PRIu64 " (column %d), limit %" PRId64, s->what,
                             value, index, INT64_MAX);
    }
    nas__bind_i64(s, index, (int64_t)value);
}

void nas__bind_double(nas__stmt *s, int index, double value) {
    if (s->status != NAS_OK) return;
    if (!isfinite(
            value)) { /* SQLite would store NaN as NULL: a failure that looks like "unknown" */
        s->status = nas_fail(s->ctx, NAS_ERR_INVALID,
                             "cannot %s: value %d is %g, only finite numbers are stored", s->what,
                             index, value);
        return;
    }
    check(s, sqlite3_bind_double(s->handle, index, value));
}

void nas__bind_text(nas__stmt *s, int index, const char *text) {
    if (s->status != NAS_OK || text == NULL) return; /* unbound is NULL */
    check(s, sqlite3_bind_text64(s->handle, index, text, strlen(text), SQLITE_STATIC, SQLITE_UTF8));
}

void nas__bind_text_or_null(nas__stmt *s, int index, const char *text) {
    if (text != NULL && text[0] != '\0') nas__bind_text(s, index, text);
}

void nas__bind_blob(nas__stmt *s, int index, const void *data, size_t len) {
    if (s->status != NAS_OK) return;
    check(s, len == 0 ? sqlite3_bind_zeroblob(s->handle, index, 0)
                      : sqlite3_bind_blob64(s->handle, index, data, len, SQLITE_STATIC));
}

void nas__bind_opt_double(nas__stmt *s, int index, nas_opt_double value) {
    if (value.is_set) nas__bind_double(s, index, value.value);
}

void nas__bind_opt_i64(nas__stmt *s, int index, nas_opt_i64 value) {
    if (value.is_set) nas__bind_i64(s, index, value.value);
}

void nas__bind_id_or_null(nas__stmt *s, int index, int64_t id) {
    if (id != 0) nas__bind_i64(s, index, id);
}

bool nas__stmt_row(nas__stmt *s) {
    if (s->status != NAS_OK) return false;
    const int code = sqlite3_step(s->handle);
    if (code == SQLITE_ROW) return true;
    check(s, code == SQLITE_DONE ? SQLITE_OK : code);
    return false;
}

nas_status nas__stmt_end(nas__stmt *s) {
    (void)sqlite3_finalize(s->handle); /* repeats the step's failure, already recorded */
    s->handle = NULL;
    return s->status;
}

nas_status nas__stmt_run(nas__stmt *s) {
    while (nas__stmt_row(s)) {
    }
    return nas__stmt_end(s);
}

nas_status nas__stmt_run_changed(nas__stmt *s, bool *changed) {
    const nas_status status = nas__stmt_run(s);
    *changed = status == NAS_OK && sqlite3_changes64(s->db->handle) == 1;
    return status;
}

int64_t nas__column_i64(nas__stmt *s, int index) {
    return sqlite3_column_int64(s->handle, index);
}

nas_opt_double nas__column_opt_double(nas__stmt *s, int index) {
    if (sqlite3_column_type(s->handle, index) == SQLITE_NULL) return (nas_opt_double){0};
    return nas_some_double(sqlite3_column_double(s->handle, index));
}

nas_opt_i64 nas__column_opt_i64(nas__stmt *s, int index) {
    if (sqlite3_column_type(s->handle, index) == SQLITE_NULL) return (nas_opt_i64){0};
    return nas_some_i64(sqlite3_column_int64(s->handle, index));
}

/* NULL for SQL NULL, and (sticky) when SQLite had no memory for the text. */
static const char *column_raw(nas__stmt *s, int index) {
    if (s->status != NAS_OK || sqlite3_column_type(s->handle, index) == SQLITE_NULL) return NULL;
    const char *text = (const char *)sqlite3_column_text(s->handle, index);
    if (text == NULL) check(s, SQLITE_NOMEM);
    return text;
}

void nas__column_text(nas__stmt *s, int index, char *out, size_t size) {
    const char *text = column_raw(s, index);
    const size_t len = text == NULL ? 0 : strlen(text);
    out[0] = '\0';
    if (len >= size) {
        s->status =
            nas_fail(s->ctx, NAS_ERR_DB, "%s: %s '%.40s...' has %zu bytes, limit %zu", s->db->path,
                     sqlite3_column_name(s->handle, index), text, len, size - 1);
    } else if (len > 0) {
        memcpy(out, text, len + 1);
    }
}

char *nas__column_strdup(nas__stmt *s, int index) {
    const char *text = column_raw(s, index);
    if (text == NULL) return NULL;
    char *copy = nas_strdup(s->ctx, text);
    if (copy == NULL) s->status = NAS_ERR_NOMEM;
    return copy;
}

nas_status nas__db_exec(nas_ctx *ctx, nas_db *db, const char *what, const char *sql) {
    nas__stmt s = nas__stmt_prepare(ctx, db, what, sql);
    return nas__stmt_run(&s);
}

nas_status nas__atomic_begin(nas_ctx *ctx, nas_db *db) {
    return nas__db_exec(ctx, db, "begin a change", "SAVEPOINT nas_change");
}

nas_status nas__atomic_end(nas_ctx *ctx, nas_db *db, nas_status status) {
    if (status == NAS_OK) status = nas__db_exec(ctx, db, "keep a change", "RELEASE nas_change");
    if (status == NAS_OK || sqlite3_get_autocommit(db->handle) != 0) return status;
    /* The first failure is what the caller must see, so these two speak only through their result. */
    const int undone =
        sqlite3_exec(db->handle, "ROLLBACK TO nas_change; RELEASE nas_change", NULL, NULL, NULL);
    if (undone != SQLITE_OK) (void)sqlite3_exec(db->handle, "ROLLBACK", NULL, NULL, NULL);
    return status;
}
