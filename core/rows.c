/* rows.c - see rows.h. JSON, CSV and values stream; a table is kept until the end, because every cell may widen its
 * column. */
#include "core/rows.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { CELL_CHARACTERS_MAX = 48, FLUSH_BYTES = 64 * 1024 };

nas_status nas_rows_format_parse(nas_ctx *ctx, const char *text, nas_rows_format *out) {
    static const struct {
        const char *name;
        nas_rows_format format;
    } known[] = {{"table", NAS_ROWS_TABLE},
                 {"json", NAS_ROWS_JSON},
                 {"csv", NAS_ROWS_CSV},
                 {"value", NAS_ROWS_VALUE}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(text, known[i].name) != 0) continue;
        *out = known[i].format;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "format '%s' is unknown: use table, json, csv or value",
                    text);
}

nas_rows nas_rows_new(nas_rows_format format, bool vertical, FILE *out) {
    return (nas_rows){.format = format, .vertical = vertical, .out = out};
}

void nas_rows_deinit(nas_rows *rows) {
    nas_free(rows->cells);
    nas_buf_deinit(&rows->text);
    rows->cells = NULL;
}

/* ---- streaming formats -------------------------------------------------------------------------------------------- */

static nas_status flush(nas_ctx *ctx, nas_rows *rows) {
    const nas_status status = nas_buf_status(ctx, &rows->text);
    if (status != NAS_OK) return status;
    if (rows->text.len > 0 &&
        fwrite(rows->text.data, 1, rows->text.len, rows->out) != rows->text.len) {
        return nas_fail(ctx, NAS_ERR_IO, "cannot write the output: %s", strerror(errno));
    }
    nas_buf_clear(&rows->text);
    return NAS_OK;
}

static void add_json(nas_rows *rows, int32_t n, const char *const *names, const char *const *values,
                     const bool *is_number) {
    nas_buf_puts(&rows->text, rows->n == 0 ? "[\n" : ",\n");
    nas_json j = nas_json_begin(&rows->text);
    nas_json_object(&j);
    for (int32_t i = 0; i < n; i++) {
        nas_json_key(&j, names[i]);
        if (values[i] != NULL && is_number[i]) {
            nas_json_raw(&j, values[i]);
        } else {
            nas_json_string(&j, values[i]);
        }
    }
    nas_json_object_end(&j);
}

static void add_csv_field(nas_buf *out, const char *text) {
    if (strpbrk(text, ",\"\r\n") == NULL) {
        nas_buf_puts(out, text);
        return;
    }
    nas_buf_puts(out, "\"");
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == '"') nas_buf_puts(out, "\"");
        nas_buf_append(out, p, 1);
    }
    nas_buf_puts(out, "\"");
}

static void add_csv_line(nas_buf *out, int32_t n, const char *const *fields) {
    for (int32_t i = 0; i < n; i++) {
        if (i > 0) nas_buf_puts(out, ",");
        add_csv_field(out, fields[i] == NULL ? "" : fields[i]);
    }
    nas_buf_puts(out, "\n");
}

/* One line a row and no terminal control: blanks for anything below U+0020, and for DEL. */
static void append_plain(nas_buf *out, const char *text) {
    for (const char *p = text; *p != '\0'; p++) {
        const unsigned char c = (unsigned char)*p;
        nas_buf_append(out, c < 0x20 || c == 0x7f ? " " : p, 1);
    }
}

static void add_values(nas_buf *out, int32_t n, const char *const *values) {
    for (int32_t i = 0; i < n; i++) {
        if (i > 0) nas_buf_puts(out, "\t");
        if (values[i] != NULL) append_plain(out, values[i]);
    }
    nas_buf_puts(out, "\n");
}

/* ---- table -------------------------------------------------------------------------------------------------------- */

static nas_status keep_row(nas_ctx *ctx, nas_rows *rows, const char *const *names,
                           const char *const *values, const bool *is_number) {
    const size_t columns = (size_t)rows->n_columns;
    for (size_t c = 0; c < columns && rows->n == 0; c++) {
        rows->names[c] = rows->text.len;
        nas_buf_append(&rows->text, names[c], strlen(names[c]) + 1);
    }
    const size_t first = rows->n * columns;
    const nas_status status =
        nas_grow(ctx, &rows->cells, &rows->cells_cap, first + columns, sizeof *rows->cells);
    if (status != NAS_OK) return status;
    for (size_t c = 0; c < columns; c++) {
        rows->cells[first + c] = (nas_rows_cell){
            .at = rows->text.len, .is_set = values[c] != NULL, .is_number = is_number[c]};
        if (values[c] != NULL) append_plain(&rows->text, values[c]);
        nas_buf_append(&rows->text, "", 1);
    }
    return nas_buf_status(ctx, &rows->text);
}

static size_t characters(const char *text) {
    size_t n = 0;
    for (const char *p = text; *p != '\0'; p++)
        n += ((unsigned char)*p & 0xc0) != 0x80;
    return n;
}

static bool is_real(const char *number) {
    return strpbrk(number, ".eE") != NULL;
}

/* Decimals that leave about four significant digits in numbers up to `largest`. */
static int decimals_for(double largest) {
    if (largest >= 1000) return 1;
    if (largest >= 10) return 2;
    return largest >= 1 ? 3 : 4;
}

/* How column c prints: decimals for its reals (-1: whole numbers or text), and whether it is right-aligned. */
typedef struct column_style {
    int decimals;
    bool right;
    size_t width; /* characters */
} column_style;

static column_style column_kind(const nas_rows *rows, size_t c) {
    column_style style = {.decimals = -1, .right = true};
    double largest = 0;
    bool any_real = false;
    for (size_t r = 0; r < rows->n; r++) {
        const nas_rows_cell *cell = &rows->cells[r * (size_t)rows->n_columns + c];
        if (!cell->is_set) continue;
        if (!cell->is_number) return (column_style){.decimals = -1};
        const char *text = rows->text.data + cell->at;
        largest = fmax(largest, fabs(strtod(text, NULL)));
        any_real = any_real || is_real(text);
    }
    if (any_real) style.decimals = decimals_for(largest);
    return style;
}

/* The text a cell shows, appended to out. */
static void render(const nas_rows *rows, const nas_rows_cell *cell, int decimals, bool cut,
                   nas_buf *out) {
    const char *text = rows->text.data + cell->at;
    if (!cell->is_set) {
        nas_buf_puts(out, "-");
        return;
    }
    if (cell->is_number && decimals >= 0) {
        const double value = strtod(text, NULL);
        if (value != 0 && fabs(value) < 5e-4) {
            nas_buf_printf(out, "%.2e", value);
        } else {
            nas_buf_printf(out, "%.*f", decimals, value);
        }
        return;
    }
    if (!cut || characters(text) <= CELL_CHARACTERS_MAX) {
        nas_buf_puts(out, text);
        return;
    }
    size_t seen = 0;
    const char *end = text;
    while (seen < CELL_CHARACTERS_MAX || ((unsigned char)*end & 0xc0) == 0x80) {
        seen += ((unsigned char)*end & 0xc0) != 0x80;
        end++;
    }
    nas_buf_append(out, text, (size_t)(end - text));
    nas_buf_puts(out, "\xe2\x80\xa6"); /* ellipsis */
}

static void pad(nas_buf *out, size_t n) {
    for (size_t i = 0; i < n; i++)
        nas_buf_puts(out, " ");
}

static void put_cell(nas_buf *out, const char *text, const column_style *style, bool last) {
    const size_t room = style->width - characters(text);
    if (style->right) pad(out, room);
    nas_buf_puts(out, text);
    if (!style->right && !last) pad(out, room);
    nas_buf_puts(out, last ? "\n" : "  ");
}

static nas_status write_table(nas_ctx *ctx, nas_rows *rows, nas_buf *out) {
    column_style styles[NAS_ROWS_COLUMNS_MAX];
    const size_t columns = (size_t)rows->n_columns;
    nas_buf cell = {0};
    for (size_t c = 0; c < columns; c++) {
        styles[c] = column_kind(rows, c);
        styles[c].width = characters(rows->text.data + rows->names[c]);
        for (size_t r = 0; r < rows->n && !cell.failed; r++) {
            nas_buf_clear(&cell);
            render(rows, &rows->cells[r * columns + c], styles[c].decimals, true, &cell);
            if (cell.failed) break;
            const size_t width = characters(cell.data);
            if (width > styles[c].width) styles[c].width = width;
        }
    }
    nas_status status = nas_buf_status(ctx, &cell);
    for (size_t c = 0; c < columns && status == NAS_OK; c++) {
        put_cell(out, rows->text.data + rows->names[c], &styles[c], c + 1 == columns);
    }
    for (size_t i = 0; i < rows->n * columns && status == NAS_OK; i++) {
        const size_t c = i % columns;
        nas_buf_clear(&cell);
        render(rows, &rows->cells[i], styles[c].decimals, true, &cell);
        status = nas_buf_status(ctx, &cell);
        if (status == NAS_OK) put_cell(out, cell.data, &styles[c], c + 1 == columns);
    }
    nas_buf_deinit(&cell);
    return status;
}

static void write_records(const nas_rows *rows, nas_buf *out) {
    const size_t columns = (size_t)rows->n_columns;
    column_style name = {.decimals = -1};
    for (size_t c = 0; c < columns; c++) {
        const size_t width = characters(rows->text.data + rows->names[c]);
        if (width > name.width) name.width = width;
    }
    for (size_t i = 0; i < rows->n * columns; i++) {
        if (i > 0 && i % columns == 0) nas_buf_puts(out, "\n");
        const nas_rows_cell *cell = &rows->cells[i];
        const char *text = rows->text.data + cell->at;
        const bool real = cell->is_set && cell->is_number && is_real(text);
        put_cell(out, rows->text.data + rows->names[i % columns], &name, false);
        render(rows, cell, real ? decimals_for(fabs(strtod(text, NULL))) : -1, false, out);
        nas_buf_puts(out, "\n");
    }
}

/* ---- rows in, text out -------------------------------------------------------------------------------------------- */

nas_status nas_rows_add(nas_ctx *ctx, void *arg, int32_t n, const char *const *names,
                        const char *const *values, const bool *is_number) {
    nas_rows *rows = arg;
    if (n < 1 || n > NAS_ROWS_COLUMNS_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "%" PRId32 " columns, limit %d", n,
                        NAS_ROWS_COLUMNS_MAX);
    }
    if (rows->n == 0) rows->n_columns = n;
    nas_status status = NAS_OK;
    switch (rows->format) {
    case NAS_ROWS_TABLE: status = keep_row(ctx, rows, names, values, is_number); break;
    case NAS_ROWS_JSON: add_json(rows, n, names, values, is_number); break;
    case NAS_ROWS_CSV:
        if (rows->n == 0) add_csv_line(&rows->text, n, names);
        add_csv_line(&rows->text, n, values);
        break;
    case NAS_ROWS_VALUE: add_values(&rows->text, n, values); break;
    }
    rows->n++;
    if (status != NAS_OK) return status;
    if (rows->format != NAS_ROWS_TABLE && rows->text.len >= FLUSH_BYTES) return flush(ctx, rows);
    return nas_buf_status(ctx, &rows->text);
}

static nas_status finish(nas_ctx *ctx, nas_rows *rows) {
    if (rows->format == NAS_ROWS_JSON) nas_buf_puts(&rows->text, rows->n == 0 ? "[]\n" : "\n]\n");
    if (rows->format == NAS_ROWS_TABLE && rows->n > 0) {
        nas_buf out = {0};
        nas_status status = NAS_OK;
        if (rows->vertical) {
            write_records(rows, &out);
        } else {
            status = write_table(ctx, rows, &out);
        }
        nas_buf_deinit(&rows->text);
        rows->text = out;
        if (status != NAS_OK) return status;
    }
    const nas_status status = flush(ctx, rows);
    if (status != NAS_OK || fflush(rows->out) == 0) return status;
    return nas_fail(ctx, NAS_ERR_IO, "cannot write the output: %s", strerror(errno));
}

nas_status nas_rows_end(nas_ctx *ctx, nas_rows *rows) {
    const nas_status status = finish(ctx, rows);
    nas_rows_deinit(rows);
    return status;
}
