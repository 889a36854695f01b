/* query.c - read-only SQL for people: one SELECT, text out.
 *
 * Two fences, because the text comes from a command line: SQLite's own "this statement writes nothing", and an
 * authorizer that admits reading only (no ATTACH, PRAGMA, transaction or extension). */
#include "db/db_internal.h"

#include <math.h>
#include <string.h>

enum { COLUMNS_MAX = 256, PROGRESS_OPS = 10000 };

typedef struct row_view {
    const char *names[COLUMNS_MAX];
    const char *values[COLUMNS_MAX];
    bool is_number[COLUMNS_MAX];
    nas_buf text; /* the values of one row, NUL-terminated one after the other */
    size_t at[COLUMNS_MAX];
} row_view;

/* *denied tells apart what we refuse from what SQLite cannot compile. */
static int allow_reading(void *denied, int action, const char *a, const char *b, const char *c,
                         const char *d) {
    (void)a;
    (void)c;
    (void)d;
    switch (action) {
    case SQLITE_SELECT:
    case SQLITE_READ:
    case SQLITE_RECURSIVE: return SQLITE_OK;
    case SQLITE_FUNCTION:
        if (b == NULL || strcmp(b, "load_extension") != 0) return SQLITE_OK;
        break;
    default: break;
    }
    *(bool *)denied = true;
    return SQLITE_DENY;
}

static int stop_when_cancelled(void *arg) {
    return nas_ctx_cancelled(arg) ? 1 : 0;
}

/* Blanks, semicolons and comments only. */
static bool is_blank_sql(const char *p) {
    for (;;) {
        p += strspn(p, " \t\r\n\f;");
        if (strncmp(p, "--", 2) == 0) {
            p += strcspn(p, "\n");
        } else if (strncmp(p, "/*", 2) == 0) {
            const char *end = strstr(p + 2, "*/");
            if (end == NULL) return true; /* SQLite accepts an open comment at the end */
            p = end + 2;
        } else {
            return *p == '\0';
        }
    }
}

static nas_status prepare_select(nas_ctx *ctx, nas_db *db, const char *sql, sqlite3_stmt **out) {
    const char *tail = NULL;
    sqlite3_stmt *handle = NULL;
    bool denied = false;
    /* Setting it cannot fail with a live handle; it comes off again, for the writer's own statements. */
    (void)sqlite3_set_authorizer(db->handle, allow_reading, &denied);
    const int code = sqlite3_prepare_v2(db->handle, sql, -1, &handle, &tail);
    nas_status status = NAS_OK;
    if (code != SQLITE_OK && denied) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "'%.200s': only one SELECT is allowed, the database is not changed", sql);
    } else if (code != SQLITE_OK) {
        status = nas__db_error(ctx, db, code, "run the query");
    } else if (handle == NULL || !is_blank_sql(tail) || sqlite3_stmt_readonly(handle) == 0 ||
               sqlite3_column_count(handle) < 1 || sqlite3_column_count(handle) > COLUMNS_MAX) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "'%.200s': give exactly one SELECT of 1..%d columns", sql, COLUMNS_MAX);
    }
    (void)sqlite3_set_authorizer(db->handle, NULL, NULL);
    if (status != NAS_OK) {
        (void)sqlite3_finalize(handle);
        return status;
    }
    *out = handle;
    return NAS_OK;
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629: no overlong forms, no surrogates), 0 when there is none. */
static size_t utf8_length(const unsigned char *p, size_t left) {
    if (p[0] < 0x80) return 1;
    size_t len = 0;
    if (p[0] >= 0xc2 && p[0] <= 0xdf) len = 2;
    if (p[0] >= 0xe0 && p[0] <= 0xef) len = 3;
    if (p[0] >= 0xf0 && p[0] <= 0xf4) len = 4;
    if (len == 0 || len > left) return 0;
    for (size_t i = 1; i < len; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
    }
    const bool overlong = (p[0] == 0xe0 && p[1] < 0xa0) || (p[0] == 0xf0 && p[1] < 0x90);
    const bool beyond = (p[0] == 0xed && p[1] > 0x9f) || (p[0] == 0xf4 && p[1] > 0x8f);
    return overlong || beyond ? 0 : len;
}

static void append_utf8(nas_buf *out, const unsigned char *text, size_t len) {
    size_t i = 0;
    while (i < len) {
        const size_t n = text[i] == 0 ? 0 : utf8_length(text + i, len - i);
        if (n == 0) {
            nas_buf_puts(out, "\xef\xbf\xbd"); /* U+FFFD */
        } else {
            nas_buf_append(out, text + i, n);
        }
        i += n == 0 ? 1 : n;
    }
}

static void append_hex(nas_buf *out, const unsigned char *bytes, size_t len) {
    for (size_t i = 0; i < len; i++) {
        char pair[3];
        nas_hex(bytes + i, 1, pair);
        nas_buf_puts(out, pair);
    }
}

/* Appends column i; false when it is NULL. Infinity (an expression can give it) has no JSON form: NULL too. */
static bool append_value(nas_buf *out, sqlite3_stmt *handle, int i, bool *is_number,
                         bool *no_memory) {
    const int type = sqlite3_column_type(handle, i);
    *is_number = type == SQLITE_INTEGER || type == SQLITE_FLOAT;
    if (type == SQLITE_NULL) return false;
    if (type == SQLITE_INTEGER) {
        nas_buf_printf(out, "%" PRId64, (int64_t)sqlite3_column_int64(handle, i));
        return true;
    }
    if (type == SQLITE_FLOAT) {
        const double value = sqlite3_column_double(handle, i);
        nas_json number = nas_json_begin(out);
        if (isfinite(value)) nas_json_double(&number, value);
        return isfinite(value);
    }
    const unsigned char *data =
        type == SQLITE_BLOB ? sqlite3_column_blob(handle, i) : sqlite3_column_text(handle, i);
    const size_t len = (size_t)sqlite3_column_bytes(handle, i);
    if (data == NULL) {
        if (len > 0 || type == SQLITE_TEXT) *no_memory = true;
    } else if (type == SQLITE_BLOB) {
        append_hex(out, data, len);
    } else {
        append_utf8(out, data, len);
    }
    return true;
}

static nas_status give_row(nas_ctx *ctx, const nas_db *db, sqlite3_stmt *handle, row_view *row,
                           nas_db_row_fn fn, void *arg) {
    const int n = sqlite3_column_count(handle);
    bool no_memory = false;
    bool is_set[COLUMNS_MAX];
    nas_buf_clear(&row->text);
    for (int i = 0; i < n; i++) {
        row->names[i] = sqlite3_column_name(handle, i);
        if (row->names[i] == NULL) no_memory = true;
        row->at[i] = row->text.len;
        is_set[i] = append_value(&row->text, handle, i, &row->is_number[i], &no_memory);
        nas_buf_append(&row->text, "", 1);
    }
    const nas_status status = nas_buf_status(ctx, &row->text);
    if (status != NAS_OK) return status;
    if (no_memory) return nas__db_error(ctx, db, SQLITE_NOMEM, "read a row");
    for (int i = 0; i < n; i++)
        row->values[i] = is_set[i] ? row->text.data + row->at[i] : NULL;
    return fn(ctx, arg, n, row->names, row->values, row->is_number);
}

static nas_status run_select(nas_ctx *ctx, nas_db *db, sqlite3_stmt *handle, nas_db_row_fn fn,
                             void *arg) {
    row_view *row = nas_alloc_array(ctx, 1, sizeof *row);
    if (row == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    int code = SQLITE_ROW;
    while (status == NAS_OK) {
        code = sqlite3_step(handle);
        if (code != SQLITE_ROW) break;
        status = give_row(ctx, db, handle, row, fn, arg);
    }
    if (status == NAS_OK && code != SQLITE_DONE)
        status = nas__db_error(ctx, db, code, "run the query");
    nas_buf_deinit(&row->text);
    nas_free(row);
    return status;
}

nas_status nas_db_query(nas_ctx *ctx, nas_db *db, const char *sql, const char *const *params,
                        int32_t n_params, nas_db_row_fn fn, void *arg) {
    sqlite3_stmt *handle = NULL;
    nas_status status = prepare_select(ctx, db, sql, &handle);
    if (status != NAS_OK) return status;
    if (n_params != sqlite3_bind_parameter_count(handle)) {
        status =
            nas_fail(ctx, NAS_ERR_INVALID, "'%.200s' has %d parameters, %" PRId32 " were given",
                     sql, sqlite3_bind_parameter_count(handle), n_params);
    }
    for (int32_t i = 0; i < n_params && status == NAS_OK; i++) {
        const int code = sqlite3_bind_text(handle, i + 1, params[i], -1, SQLITE_STATIC);
        if (code != SQLITE_OK) status = nas__db_error(ctx, db, code, "run the query");
    }
    sqlite3_progress_handler(db->handle, PROGRESS_OPS, stop_when_cancelled, ctx);
    if (status == NAS_OK) status = run_select(ctx, db, handle, fn, arg);
    sqlite3_progress_handler(db->handle, 0, NULL, NULL);
    (void)sqlite3_finalize(handle); /* repeats the step's failure, already reported */
    return status;
}
