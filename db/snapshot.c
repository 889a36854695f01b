/* snapshot.c - reading a database in a folder that may not be written to.
 *
 * SQLite reads a WAL database through a shared-memory file beside it. Where that cannot be made (a read-only disk,
 * another user's folder) a file without a live writer and without a left-over log is complete by itself: it is copied
 * into memory, under a shared lock so that no writer can start meanwhile. Opening the file as "immutable" instead would
 * go on reading it while a new writer changes it. */
#include "db/db_internal.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEADER_BYTES = 100, WRITE_VERSION_AT = 18, READ_VERSION_AT = 19, VERSION_ROLLBACK = 1 };
static const size_t snapshot_max_bytes = (size_t)1 << 30;

static nas_status refuse_if_log_left(nas_ctx *ctx, const nas_db *db) {
    char wal[NAS__DB_PATH_MAX + 8];
    (void)snprintf(wal, sizeof wal, "%s-wal",
                   db->path); /* cannot be cut: 8 bytes more than the path */
    struct stat info;
    if (stat(wal, &info) != 0 || info.st_size == 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_IO,
                    "cannot read %s: commits are still in %s, and the folder is not writable: copy "
                    "both files to a "
                    "writable folder and read the copy",
                    db->path, wal);
}

/* The copy belongs to the connection from here on (SQLite frees it, so it is SQLite's memory). */
static nas_status load(nas_ctx *ctx, nas_db *db, const nas_buf *file) {
    if (file->len < HEADER_BYTES) return nas__db_error(ctx, db, SQLITE_NOTADB, "read");
    unsigned char *copy = sqlite3_malloc64(file->len);
    if (copy == NULL) return nas__db_error(ctx, db, SQLITE_NOMEM, "read");
    memcpy(copy, file->data, file->len);
    copy[WRITE_VERSION_AT] = VERSION_ROLLBACK; /* memory has no log file */
    copy[READ_VERSION_AT] = VERSION_ROLLBACK;
    const int code = sqlite3_deserialize(
        db->handle, "main", copy, (sqlite3_int64)file->len, (sqlite3_int64)file->len,
        SQLITE_DESERIALIZE_READONLY | SQLITE_DESERIALIZE_FREEONCLOSE);
    return code == SQLITE_OK ? NAS_OK : nas__db_error(ctx, db, code, "read");
}

nas_status nas__db_load_snapshot(nas_ctx *ctx, nas_db *db) {
    int fd = -1;
    bool held = false;
    nas_status status = nas__db_lock_shared(ctx, db, &fd, &held);
    if (status == NAS_OK && held) {
        status = nas_fail(ctx, NAS_ERR_IO,
                          "cannot read %s while a study writes it: its folder is not writable for "
                          "this user (read as "
                          "the study's user, or when the study has ended)",
                          db->path);
    }
    if (status == NAS_OK) status = refuse_if_log_left(ctx, db);
    nas_buf file = {0};
    if (status == NAS_OK) status = nas_file_read(ctx, db->path, snapshot_max_bytes, &file);
    if (fd >= 0) (void)close(fd); /* ends the shared lock */
    if (status != NAS_OK) return status;
    (void)sqlite3_close(db->handle); /* nothing was read through it */
    db->handle = NULL;
    int code =
        sqlite3_open_v2(":memory:", &db->handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX, NULL);
    status = code == SQLITE_OK ? load(ctx, db, &file) : nas__db_error(ctx, db, code, "read");
    nas_buf_deinit(&file);
    return status;
}
