/* latency_import.c - what all formats share, and CSV. */
#include "tools/latency_import.h"

#include "tools/csv.h"
#include "tools/latency_import_internal.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- units ---------------------------------------------------------------------------------------------------------- */

static const struct unit {
    const char *name;
    double to_micro;
} units[] = {
    [NAS_UNIT_NONE] = {"", 0},   [NAS_UNIT_S] = {"s", 1e6},    [NAS_UNIT_MS] = {"ms", 1e3},
    [NAS_UNIT_US] = {"us", 1},   [NAS_UNIT_NS] = {"ns", 1e-3}, [NAS_UNIT_J] = {"J", 1e6},
    [NAS_UNIT_MJ] = {"mJ", 1e3}, [NAS_UNIT_UJ] = {"uJ", 1},
};
enum { UNITS = sizeof units / sizeof units[0] };

static nas_unit find_unit(const char *text) {
    for (int u = NAS_UNIT_S; u < UNITS; u++) {
        if (strcmp(units[u].name, text) == 0) return (nas_unit)u;
    }
    return NAS_UNIT_NONE;
}

nas_status nas_unit_parse(nas_ctx *ctx, const char *text, nas_unit *out) {
    *out = find_unit(text);
    if (*out != NAS_UNIT_NONE) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "unit '%s' is unknown: use s, ms, us, ns, J, mJ or uJ",
                    text);
}

nas_db_quantity nas_unit_quantity(nas_unit unit) {
    return unit >= NAS_UNIT_J ? NAS_DB_ENERGY : NAS_DB_LATENCY;
}

double nas__unit_to_micro(nas_unit unit) {
    return units[unit].to_micro;
}

/* The unit at the end of a column's name: "lat_ms", "latency [us]", "energy (mJ)", "ms". Bare letters of length 1 do not count. */
static nas_unit unit_of_name(const char *name) {
    const size_t len = strlen(name);
    size_t end = len;
    if (end > 0 && (name[end - 1] == ']' || name[end - 1] == ')')) end--;
    for (int u = NAS_UNIT_S; u < UNITS; u++) {
        const size_t n = strlen(units[u].name);
        if (n < 2 || end < n || (end > n && strchr("_ [(", name[end - n - 1]) == NULL)) continue;
        bool same = true;
        for (size_t i = 0; i < n; i++) /* lat_ms, energy_mj */
            same = same && (name[end - n + i] | 0x20) == (units[u].name[i] | 0x20);
        if (same) return (nas_unit)u;
    }
    return NAS_UNIT_NONE;
}

/* ---- rows and mistakes ------------------------------------------------------------------------------------------------ */

void nas_import_deinit(nas_import *import) {
    for (size_t i = 0; i < import->n; i++)
        nas_free(import->rows[i].arch);
    nas_free(import->rows);
    nas_buf_deinit(&import->mistakes);
    *import = (nas_import){0};
}

void nas__import_mistake(nas_import *import, size_t row, const char *format, ...) {
    if (import->n_mistakes++ >= NAS_IMPORT_MISTAKES) return;
    va_list args;
    va_start(args, format);
    nas_buf_printf(&import->mistakes, "\n  row %zu: ", row);
    nas_buf_vprintf(&import->mistakes, format, args);
    va_end(args);
}

/* The architecture in canonical form as a row; one the space does not know is a mistake. */
nas_status nas__import_add(nas_ctx *ctx, const nas_encoder *encoder, nas_import *import, size_t row,
                           const char *arch, double micro) {
    nas_buf text = {0};
    nas_status status = nas_encoder_canonical(ctx, encoder, arch, &text);
    if (status == NAS_ERR_PARSE || status == NAS_ERR_RANGE || status == NAS_ERR_INVALID) {
        nas__import_mistake(import, row, "architecture '%.60s': %s", arch, nas_ctx_message(ctx));
        nas_ctx_clear(ctx);
        nas_buf_deinit(&text);
        return NAS_OK;
    }
    if (status == NAS_OK)
        status = nas_grow(ctx, &import->rows, &import->cap, import->n + 1, sizeof *import->rows);
    if (status != NAS_OK) {
        nas_buf_deinit(&text);
        return status;
    }
    char *copy = nas_strdup(ctx, text.data == NULL ? "" : text.data);
    nas_buf_deinit(&text);
    if (copy == NULL) return NAS_ERR_NOMEM;
    import->rows[import->n++] = (nas_import_row){.arch = copy, .value = micro, .row = row};
    return NAS_OK;
}

/* A number and perhaps a unit behind it; false with a mistake recorded. */
static bool read_value(nas_import *import, size_t row, const char *text, nas_unit unit,
                       double *micro) {
    while (*text == ' ')
        text++;
    if (*text == '\0') {
        nas__import_mistake(import, row, "the value is missing");
        return false;
    }
    char *end = NULL;
    errno = 0;
    const double value = strtod(text, &end);
    if (end == text || strpbrk(text, "xX") != NULL) {
        nas__import_mistake(import, row, "value '%.40s' is no number", text);
        return false;
    }
    if (!isfinite(value) || errno == ERANGE) {
        nas__import_mistake(import, row, "value '%.40s' is not finite, or out of range", text);
        return false;
    }
    while (*end == ' ')
        end++;
    if (*end != '\0' && find_unit(end) != unit) {
        nas__import_mistake(import, row, "value '%.40s' is not in %s: one unit a column", text,
                            units[unit].name);
        return false;
    }
    if (!(value > 0)) {
        nas__import_mistake(import, row, "value '%.40s' is not above 0", text);
        return false;
    }
    *micro = value * units[unit].to_micro;
    if (*micro > 0 && isfinite(*micro)) return true;
    nas__import_mistake(import, row, "value '%.40s' is out of range", text);
    return false;
}

static int by_arch(const void *pa, const void *pb) {
    const nas_import_row *a = pa, *b = pb;
    const int order = strcmp(a->arch, b->arch);
    if (order != 0) return order;
    return a->row < b->row ? -1 : a->row > b->row;
}

nas_status nas_import_check(nas_ctx *ctx, nas_import *import, const char *file) {
    if (import->n > 0) qsort(import->rows, import->n, sizeof *import->rows, by_arch);
    for (size_t i = 1; i < import->n; i++) {
        const nas_import_row *a = &import->rows[i - 1], *b = &import->rows[i];
        if (strcmp(a->arch, b->arch) == 0)
            nas__import_mistake(import, b->row, "architecture '%.60s' is in row %zu already",
                                b->arch, a->row);
    }
    const nas_status status = nas_buf_status(ctx, &import->mistakes);
    if (status != NAS_OK) return status;
    if (import->n_mistakes > 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "%s: %zu mistake%s, nothing is imported%s%s", file,
                        import->n_mistakes, import->n_mistakes == 1 ? "" : "s",
                        import->mistakes.data,
                        import->n_mistakes > NAS_IMPORT_MISTAKES ? "\n  ..." : "");
    }
    if (import->n == 0) return nas_fail(ctx, NAS_ERR_INVALID, "%s: no rows in it", file);
    return NAS_OK;
}

/* ---- CSV -------------------------------------------------------------------------------------------------------------- */

enum { ARCH_COLUMNS_MAX = 16 };

typedef struct columns {
    size_t arch[ARCH_COLUMNS_MAX], n_arch;
    char names[ARCH_COLUMNS_MAX][64];
    size_t value;
    nas_unit unit;
} columns;

static nas_status find_column(nas_ctx *ctx, const nas_csv *csv, const char *name, size_t len,
                              size_t *out) {
    size_t found = csv->n;
    for (size_t i = 0; i < csv->n; i++) {
        if (strlen(csv->fields[i]) != len || strncmp(csv->fields[i], name, len) != 0) continue;
        if (found < csv->n)
            return nas_fail(ctx, NAS_ERR_INVALID, "two columns are named '%.*s'", (int)len, name);
        found = i;
    }
    if (found < csv->n) {
        *out = found;
        return NAS_OK;
    }
    nas_buf there = {0};
    for (size_t i = 0; i < csv->n && there.len < 400; i++)
        nas_buf_printf(&there, "%s%.40s", i == 0 ? "" : ", ", csv->fields[i]);
    const nas_status status = nas_fail(ctx, NAS_ERR_INVALID, "no column '%.*s'; the file has: %s",
                                       (int)len, name, there.data == NULL ? "none" : there.data);
    nas_buf_deinit(&there);
    return status;
}

static nas_status find_arch_columns(nas_ctx *ctx, const nas_csv *csv, const char *list,
                                    columns *out) {
    nas_status status = NAS_OK;
    for (const char *at = list; status == NAS_OK; at++) {
        const size_t len = strcspn(at, ",");
        if (out->n_arch == ARCH_COLUMNS_MAX || len >= sizeof out->names[0])
            return nas_fail(ctx, NAS_ERR_INVALID, "at most %d columns for an architecture",
                            ARCH_COLUMNS_MAX);
        status = find_column(ctx, csv, at, len, &out->arch[out->n_arch]);
        memcpy(out->names[out->n_arch], at, len);
        out->names[out->n_arch++][len] = '\0';
        at += len;
        if (*at == '\0') break;
    }
    return status;
}

static nas_status find_columns(nas_ctx *ctx, const nas_csv *csv, const nas_import_options *o,
                               columns *out) {
    if (o->arch_columns == NULL || o->value_column == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "a CSV file needs --arch-col and --value-col");
    nas_status status = find_arch_columns(ctx, csv, o->arch_columns, out);
    if (status == NAS_OK)
        status = find_column(ctx, csv, o->value_column, strlen(o->value_column), &out->value);
    if (status != NAS_OK) return status;
    const nas_unit named = unit_of_name(o->value_column);
    out->unit = o->unit == NAS_UNIT_NONE ? named : o->unit;
    if (out->unit == NAS_UNIT_NONE)
        return nas_fail(ctx, NAS_ERR_INVALID, "which unit has column '%s'? Say --unit ms, us ...",
                        o->value_column);
    if (named != NAS_UNIT_NONE && named != out->unit)
        return nas_fail(ctx, NAS_ERR_INVALID, "column '%s' is in %s by its name, not in %s",
                        o->value_column, units[named].name, units[out->unit].name);
    return NAS_OK;
}

static nas_status add_csv_row(nas_ctx *ctx, const nas_encoder *encoder, const nas_csv *csv,
                              const columns *c, nas_import *out) {
    double micro = 0;
    if (!read_value(out, csv->row, csv->fields[c->value], c->unit, &micro)) return NAS_OK;
    if (c->n_arch == 1)
        return nas__import_add(ctx, encoder, out, csv->row, csv->fields[c->arch[0]], micro);
    nas_buf arch = {0};
    for (size_t i = 0; i < c->n_arch; i++)
        nas_buf_printf(&arch, "%s%s=%s", i == 0 ? "" : "; ", c->names[i], csv->fields[c->arch[i]]);
    nas_status status = nas_buf_status(ctx, &arch);
    if (status == NAS_OK) status = nas__import_add(ctx, encoder, out, csv->row, arch.data, micro);
    nas_buf_deinit(&arch);
    return status;
}

nas_status nas_import_csv(nas_ctx *ctx, const nas_encoder *encoder, const nas_import_options *o,
                          char *text, size_t len, nas_import *out) {
    nas_csv csv;
    nas_csv_init(&csv, text, len);
    columns c = {0};
    bool more = false;
    nas_status status = nas_csv_next(ctx, &csv, &more);
    if (status == NAS_OK && !more) status = nas_fail(ctx, NAS_ERR_INVALID, "the file is empty");
    if (status == NAS_OK) status = find_columns(ctx, &csv, o, &c);
    while (status == NAS_OK) {
        status = nas_csv_next(ctx, &csv, &more);
        if (status != NAS_OK || !more) break;
        status = add_csv_row(ctx, encoder, &csv, &c, out);
    }
    nas_csv_deinit(&csv);
    return status;
}
