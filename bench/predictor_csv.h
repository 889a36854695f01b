/* predictor_csv.h - a comma-separated table, plain or gzipped, in memory: for the benchmarks of the predictors. */
#ifndef NAS_BENCH_PREDICTOR_CSV_H
#define NAS_BENCH_PREDICTOR_CSV_H

#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CSV_BYTES_MAX = 64 << 20, CSV_COLUMNS_MAX = 512 };

typedef struct csv {
    nas_buf text; /* cells end in NUL here */
    size_t rows, columns;
    char **head, **cells; /* [columns], [rows][columns] */
} csv;

static void csv_deinit(csv *t) {
    nas_free(t->cells);
    nas_free(t->head);
    nas_buf_deinit(&t->text);
    *t = (csv){0};
}

static nas_status csv_unzip(nas_ctx *ctx, const char *path, nas_buf *out) {
    const char *const argv[] = {"gzip", "-dc", path, NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.max_output_bytes = CSV_BYTES_MAX;
    nas_process_result result = {0};
    nas_status status = nas_process_run(ctx, &options, &result);
    if (status == NAS_OK && result.exit_code != 0) {
        status =
            nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, result.err.len ? result.err.data : "gzip");
    }
    if (status == NAS_OK) nas_buf_append(out, result.out.data, result.out.len);
    nas_process_result_deinit(&result);
    return status;
}

/* A quoted cell keeps its commas and loses its quotes. */
static void csv_split(char *line, char **cells, size_t columns) {
    for (size_t c = 0; c < columns; c++) {
        cells[c] = line;
        if (line == NULL) continue;
        char *end = line[0] == '"' ? strchr(line + 1, '"') : NULL;
        if (end != NULL) {
            cells[c] = line + 1;
            *end = '\0';
        }
        char *comma = strchr(end == NULL ? line : end + 1, ',');
        if (comma != NULL) *comma = '\0';
        line = comma == NULL ? NULL : comma + 1;
    }
}

/* csv_read - NOTFOUND when the file is not there. */
static nas_status csv_read(nas_ctx *ctx, const char *path, csv *out) {
    if (!nas_file_exists(path)) return nas_fail(ctx, NAS_ERR_NOTFOUND, "%s is not there", path);
    csv t = {0};
    nas_status status = csv_unzip(ctx, path, &t.text);
    if (status != NAS_OK || t.text.len == 0) {
        csv_deinit(&t);
        return status != NAS_OK ? status : nas_fail(ctx, NAS_ERR_PARSE, "%s is empty", path);
    }
    size_t lines = 0;
    t.columns = 1;
    for (const char *p = t.text.data; *p != '\0'; p++) {
        lines += *p == '\n';
        if (lines == 0) t.columns += *p == ',';
    }
    t.head = nas_alloc_array(ctx, t.columns, sizeof *t.head);
    t.cells = nas_alloc_array(ctx, lines * t.columns + t.columns, sizeof *t.cells);
    if (t.head == NULL || t.cells == NULL) {
        csv_deinit(&t);
        return NAS_ERR_NOMEM;
    }
    char *save = NULL, *line = strtok_r(t.text.data, "\n", &save);
    csv_split(line, t.head, t.columns);
    while ((line = strtok_r(NULL, "\n", &save)) != NULL)
        csv_split(line, t.cells + t.columns * t.rows++, t.columns);
    *out = t;
    return NAS_OK;
}

static size_t csv_column(const csv *t, const char *name) { /* t->columns when there is none */
    size_t c = 0;
    while (c < t->columns && strcmp(t->head[c], name) != 0)
        c++;
    return c;
}

static const char *csv_text(const csv *t, size_t row, size_t column) {
    const char *cell = t->cells[row * t->columns + column];
    return cell == NULL ? "" : cell;
}

static double csv_number(const csv *t, size_t row, size_t column) {
    return strtod(csv_text(t, row, column), NULL);
}

#endif
