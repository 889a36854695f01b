/* rows.h - prints query rows as a table, JSON, CSV or bare values.
 *
 * table  columns aligned, numbers right-aligned and rounded for reading, long text cut; one record can be shown as
 *        "name  value" lines. NULL is "-".
 * json   one array of objects, numbers unrounded, NULL is null.
 * csv    a header line, then RFC 4180 rows ("\n" line ends), NULL is empty. Nothing when there is no row.
 * value  bare values, a tab between them, a line a row, NULL is empty. */
#ifndef NAS_CORE_ROWS_H
#define NAS_CORE_ROWS_H

#include "core/core.h"

#include <stdio.h>

typedef enum nas_rows_format {
    NAS_ROWS_TABLE,
    NAS_ROWS_JSON,
    NAS_ROWS_CSV,
    NAS_ROWS_VALUE
} nas_rows_format;

/* nas_rows_format_parse - INVALID lists the names. */
nas_status nas_rows_format_parse(nas_ctx *ctx, const char *text, nas_rows_format *out);

enum { NAS_ROWS_COLUMNS_MAX = 256 };

typedef struct nas_rows_cell {
    size_t at; /* into rows.text */
    bool is_set, is_number;
} nas_rows_cell;

typedef struct nas_rows {
    nas_rows_format format;
    bool vertical; /* table only: one "name  value" line a column */
    FILE *out;
    size_t n; /* rows seen */
    int32_t n_columns;
    nas_buf text; /* table: names and cells, NUL-terminated; others: output not yet written */
    size_t names[NAS_ROWS_COLUMNS_MAX];
    nas_rows_cell *cells; /* table: n * n_columns */
    size_t cells_cap;
} nas_rows;

nas_rows nas_rows_new(nas_rows_format format, bool vertical, FILE *out);
/* nas_rows_add - one row; has the type of nas_db_row_fn, `rows` is the nas_rows. Every row has the columns of the
 * first. IO when the output cannot be written. */
nas_status nas_rows_add(nas_ctx *ctx, void *rows, int32_t n, const char *const *names,
                        const char *const *values, const bool *is_number);
/* nas_rows_end - writes what is left (an empty JSON array for no rows) and flushes; frees also on failure. */
nas_status nas_rows_end(nas_ctx *ctx, nas_rows *rows);
void nas_rows_deinit(nas_rows *rows);

#endif
