/* db_internal.h - what the files of db/ share: the handle, the write lock, prepared statements, migrations.
 *
 * A statement collects the first failure of its binds and steps in `status`, so that callers check once, at the end.
 * Every SQLite failure becomes a message through nas__db_error, the one place that says what to do about it. */
#ifndef NAS_DB_DB_INTERNAL_H
#define NAS_DB_DB_INTERNAL_H

#include "db/db.h"

#include <sqlite3.h>

enum {
    NAS__DB_APPLICATION_ID = 0x6e617331, /* "nas1": tells our files from other SQLite files */
    NAS__DB_BUSY_MS = 5000,              /* how long a foreign writer may hold SQLite's own lock */
    NAS__DB_PATH_MAX = 4096,
    NAS__DB_OWNER_HEX = 33 /* with NUL */
};

struct nas_db {
    sqlite3 *handle;
    char path[NAS__DB_PATH_MAX];
    int lock_fd; /* -1 for readers */
    bool readonly;
    bool in_transaction; /* between nas_db_begin and commit or rollback */
    char owner
        [NAS__DB_OWNER_HEX]; /* of leases: random, one a handle; another owner's process is dead */
};

/* ---- open.c, lock.c, snapshot.c, migrate.c ------------------------------------------------------------------------ */

nas_status nas__db_new(nas_ctx *ctx, const char *path,
                       nas_db **out); /* resolves links in the path */
/* nas__db_release - closes the connection and the lock without checkpoint; NULL is a no-op. */
void nas__db_release(nas_db *db);
nas_status nas__db_connect(nas_ctx *ctx, nas_db *db, int flags, int32_t busy_ms);
/* nas__db_lock - exclusive flock on "<path>.lock", kept by db->lock_fd; the kernel drops it with the process. */
nas_status nas__db_lock(nas_ctx *ctx, nas_db *db);
/* nas__db_lock_shared - for a moment's snapshot: *fd -1 when there is no lock file; *held_by_writer instead of waiting. */
nas_status nas__db_lock_shared(nas_ctx *ctx, const nas_db *db, int *fd, bool *held_by_writer);
/* nas__db_load_snapshot - replaces the connection by an in-memory copy of the file; no writer may be alive. */
nas_status nas__db_load_snapshot(nas_ctx *ctx, nas_db *db);
/* nas__db_identify - *version of our file, 0 for a new one. DB: not a database, or another program's. */
nas_status nas__db_identify(nas_ctx *ctx, nas_db *db, int32_t *version);
nas_status nas__db_migrate(nas_ctx *ctx, nas_db *db, const nas_db_migration *list, int32_t n);

/* ---- statement.c -------------------------------------------------------------------------------------------------- */

/* nas__db_error - "cannot <what> in <path>: ..." for SQLite result `code`; never returns NAS_OK. */
nas_status nas__db_error(nas_ctx *ctx, const nas_db *db, int code, const char *what);

typedef struct nas__stmt {
    nas_ctx *ctx;
    nas_db *db;
    const char *what; /* completes "cannot ...": "finish the trial" */
    sqlite3_stmt *handle;
    nas_status status;
} nas__stmt;

nas__stmt nas__stmt_prepare(nas_ctx *ctx, nas_db *db, const char *what, const char *sql);
/* Bound memory must live until nas__stmt_end. Index from 1. Doubles must be finite, u64 below 2^63. */
void nas__bind_i64(nas__stmt *s, int index, int64_t value);
void nas__bind_u64(nas__stmt *s, int index, uint64_t value);
void nas__bind_double(nas__stmt *s, int index, double value);
void nas__bind_text(nas__stmt *s, int index, const char *text);         /* NULL binds NULL */
void nas__bind_text_or_null(nas__stmt *s, int index, const char *text); /* "" binds NULL as well */
void nas__bind_blob(nas__stmt *s, int index, const void *data, size_t len);
void nas__bind_opt_double(nas__stmt *s, int index, nas_opt_double value);
void nas__bind_opt_i64(nas__stmt *s, int index, nas_opt_i64 value);
void nas__bind_id_or_null(nas__stmt *s, int index, int64_t id); /* 0 binds NULL */
bool nas__stmt_row(nas__stmt *s);       /* true: a row is there; false: done or failed */
nas_status nas__stmt_end(nas__stmt *s); /* finalizes */
nas_status nas__stmt_run(nas__stmt *s); /* steps to the end and finalizes */
/* nas__stmt_run_one - nas__stmt_run that must change exactly one row; *changed tells. */
nas_status nas__stmt_run_changed(nas__stmt *s, bool *changed);

/* Columns of the current row; text fails (sticky) with DB when it does not fit, strdup with NOMEM. */
int64_t nas__column_i64(nas__stmt *s, int index);
nas_opt_double nas__column_opt_double(nas__stmt *s, int index);
nas_opt_i64 nas__column_opt_i64(nas__stmt *s, int index);
void nas__column_text(nas__stmt *s, int index, char *out, size_t size); /* NULL gives "" */
char *nas__column_strdup(nas__stmt *s, int index); /* NULL gives NULL; owned by the caller */

nas_status nas__db_exec(nas_ctx *ctx, nas_db *db, const char *what, const char *sql);

/* Several statements as one: a savepoint, so it works inside and outside a transaction. `end` releases it when status
 * is OK, else undoes everything since begin and returns status with its message kept. */
nas_status nas__atomic_begin(nas_ctx *ctx, nas_db *db);
nas_status nas__atomic_end(nas_ctx *ctx, nas_db *db, nas_status status);

/* ---- schema.c, schema_views.c ------------------------------------------------------------------------------------- */

extern const char *const nas__schema_1[]; /* NULL-terminated, like all */
extern const char *const nas__schema_2[];
extern const char *const nas__schema_3[];         /* schema_devices.c */
extern const char *const nas__schema_classes[];   /* schema_classes.c */
extern const char *const nas__schema_levels[];    /* schema_classes.c */
extern const char *const nas__schema_finalists[]; /* schema_classes.c */
extern const char *const nas__schema_predictor[]; /* schema_predictor.c */
extern const char *const nas__schema_sparse[];    /* schema_sparse.c */

#endif
