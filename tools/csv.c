/* csv.c - see csv.h. */
#include "tools/csv.h"

#include <string.h>
#include <zlib.h>

nas_status nas_read_maybe_gzip(nas_ctx *ctx, const char *path, size_t max_bytes, nas_buf *out) {
    gzFile file = gzopen(path, "rb"); /* reads plain files as they are */
    if (file == NULL) {
        return nas_fail(ctx, nas_file_exists(path) ? NAS_ERR_IO : NAS_ERR_NOTFOUND,
                        "cannot open '%s'", path);
    }
    nas_buf buf = {0};
    nas_status status = NAS_OK;
    char chunk[1 << 16];
    int got = 0;
    while (status == NAS_OK) {
        got = gzread(file, chunk, sizeof chunk);
        if (got <= 0) break;
        nas_buf_append(&buf, chunk, (size_t)got);
        status = nas_buf_status(ctx, &buf);
        if (status == NAS_OK && buf.len > max_bytes)
            status =
                nas_fail(ctx, NAS_ERR_RANGE, "'%s' holds more than %zu bytes", path, max_bytes);
    }
    int code = Z_OK;
    const char *why = gzerror(file, &code);
    if (status == NAS_OK && (got < 0 || (code != Z_OK && code != Z_STREAM_END)))
        status = nas_fail(ctx, NAS_ERR_IO, "cannot read '%s': %s", path, why);
    (void)gzclose_r(file); /* only reading: nothing to lose */
    if (status == NAS_OK) {
        nas_buf_append(&buf, "", 0);
        status = nas_buf_status(ctx, &buf);
    }
    if (status != NAS_OK) {
        nas_buf_deinit(&buf);
        return status;
    }
    *out = buf;
    return NAS_OK;
}

void nas_csv_init(nas_csv *csv, char *text, size_t len) {
    *csv = (nas_csv){.at = text, .end = text + len};
    if (len >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) csv->at += 3;
}

void nas_csv_deinit(nas_csv *csv) {
    nas_free(csv->fields);
    csv->fields = NULL;
}

static bool ends_field(const nas_csv *csv, const char *at) {
    return at == csv->end || *at == ',' || *at == '\n' || *at == '\r';
}

/* Unquotes the field that begins at csv->at (a quote) in place; csv->at ends behind the closing quote. */
static nas_status read_quoted(nas_ctx *ctx, nas_csv *csv, char **write) {
    char *to = csv->at++;
    for (;;) {
        if (csv->at == csv->end)
            return nas_fail(ctx, NAS_ERR_PARSE, "row %zu: a quote is not closed", csv->row);
        if (*csv->at == '"') {
            if (csv->at + 1 == csv->end || csv->at[1] != '"') break;
            csv->at++; /* two quotes are one */
        }
        *to++ = *csv->at++;
    }
    csv->at++;
    *write = to;
    if (ends_field(csv, csv->at)) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_PARSE, "row %zu, field %zu: text behind the closing quote",
                    csv->row, csv->n);
}

/* One field and what ends it; *last: it was the last of its row. */
static nas_status read_field(nas_ctx *ctx, nas_csv *csv, bool *last) {
    nas_status status =
        csv->n < NAS_CSV_COLUMNS_MAX
            ? nas_grow(ctx, &csv->fields, &csv->cap, csv->n + 1, sizeof *csv->fields)
            : nas_fail(ctx, NAS_ERR_PARSE, "row %zu: more than %d fields", csv->row,
                       NAS_CSV_COLUMNS_MAX);
    if (status != NAS_OK) return status;
    char *start = csv->at, *stop = NULL;
    csv->fields[csv->n++] = start;
    if (csv->at < csv->end && *csv->at == '"') {
        status = read_quoted(ctx, csv, &stop);
        if (status != NAS_OK) return status;
    } else {
        while (!ends_field(csv, csv->at)) {
            if (*csv->at == '"' || *csv->at == '\0')
                return nas_fail(ctx, NAS_ERR_PARSE, "row %zu, field %zu: a %s inside", csv->row,
                                csv->n, *csv->at == '"' ? "quote" : "NUL byte");
            csv->at++;
        }
        stop = csv->at;
    }
    if (memchr(start, '\0', (size_t)(stop - start)) != NULL)
        return nas_fail(ctx, NAS_ERR_PARSE, "row %zu, field %zu: a NUL byte inside", csv->row,
                        csv->n);
    const char separator = csv->at == csv->end ? '\n' : *csv->at;
    *stop = '\0'; /* over the separator, the closing quote, or the NUL behind the text */
    *last = separator != ',';
    if (separator == '\r' && csv->at + 1 < csv->end && csv->at[1] == '\n') csv->at++;
    if (csv->at < csv->end) csv->at++;
    return NAS_OK;
}

nas_status nas_csv_next(nas_ctx *ctx, nas_csv *csv, bool *more) {
    for (;;) {
        csv->row++;
        if (csv->at == csv->end) {
            *more = false;
            return NAS_OK;
        }
        if (*csv->at != '\n' && *csv->at != '\r') break;
        if (*csv->at == '\r' && csv->at + 1 < csv->end && csv->at[1] == '\n') csv->at++;
        csv->at++;
    }
    csv->n = 0;
    for (bool last = false; !last;) {
        const nas_status status = read_field(ctx, csv, &last);
        if (status != NAS_OK) return status;
    }
    if (csv->n_columns == 0) csv->n_columns = csv->n;
    if (csv->n != csv->n_columns) {
        return nas_fail(ctx, NAS_ERR_PARSE, "row %zu has %zu fields, the header has %zu", csv->row,
                        csv->n, csv->n_columns);
    }
    *more = true;
    return NAS_OK;
}
