/* csv.h - reads comma-separated tables (RFC 4180: quotes, doubled quotes, line ends inside quotes, CRLF), plain or gzip.
 * Shared inside tools/ and by fuzz/. */
#ifndef NAS_TOOLS_CSV_H
#define NAS_TOOLS_CSV_H

#include "core/core.h"

enum { NAS_CSV_COLUMNS_MAX = 4096 };

/* nas_read_maybe_gzip - a whole file, unpacked when it is gzip. NOTFOUND, IO (damaged), RANGE above max_bytes. */
nas_status nas_read_maybe_gzip(nas_ctx *ctx, const char *path, size_t max_bytes, nas_buf *out);

/* A reader over text in memory, which it changes (fields are unquoted in place) and which must outlive it. */
typedef struct nas_csv {
    char *at, *end;
    size_t row;       /* number of the row last read, the header is 1 */
    size_t n;         /* its fields */
    size_t n_columns; /* of the first row */
    char **fields;    /* [n], NUL-terminated, borrowed from the text */
    size_t cap;
} nas_csv;

/* nas_csv_init - text: len bytes and a NUL behind them. A byte order mark is skipped. */
void nas_csv_init(nas_csv *csv, char *text, size_t len);
void nas_csv_deinit(nas_csv *csv);
/* nas_csv_next - *more false at the end. Empty lines are skipped (and counted). PARSE with the row's number: a quote that is not
 * closed or not at the edge of a field, a NUL byte, another number of fields than the first row has, too many. */
nas_status nas_csv_next(nas_ctx *ctx, nas_csv *csv, bool *more);

#endif
