/* latency_rows.c - latencies and energies measured elsewhere, or of single layers, and the models learned from them. */
#include "db/db_internal.h"

#include <string.h>

nas_status nas_db_import_put(nas_ctx *ctx, nas_db *db, const char *source, const char *format,
                             const char *sha256, int64_t *id) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "store the import",
                                    "INSERT INTO latency_imports (source, format, sha256,"
                                    " imported_ms) VALUES (?, ?, ?, ?) RETURNING id");
    nas__bind_text(&s, 1, source);
    nas__bind_text(&s, 2, format);
    nas__bind_text_or_null(&s, 3, sha256);
    nas__bind_i64(&s, 4, nas_unix_time_ms());
    int64_t value = 0;
    while (nas__stmt_row(&s))
        value = nas__column_i64(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *id = value;
    return nas_wrap(ctx, status, "%s", source);
}

const char *nas_db_quantity_text(nas_db_quantity quantity) {
    switch (quantity) {
    case NAS_DB_LATENCY: return "latency";
    case NAS_DB_ENERGY: return "energy";
    }
    return "latency";
}

nas_status nas_db_series_put(nas_ctx *ctx, nas_db *db, const char *device, const char *space,
                             nas_db_quantity quantity, int64_t *id) {
    nas__stmt s =
        nas__stmt_prepare(ctx, db, "store the series",
                          "INSERT INTO latency_series (device, space, quantity) VALUES (?, ?, ?)"
                          " ON CONFLICT (device, space, quantity) DO UPDATE SET device = device"
                          " RETURNING id");
    nas__bind_text(&s, 1, device);
    nas__bind_text(&s, 2, space);
    nas__bind_text(&s, 3, nas_db_quantity_text(quantity));
    int64_t value = 0;
    while (nas__stmt_row(&s))
        value = nas__column_i64(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *id = value;
    return nas_wrap(ctx, status, "device '%s'", device);
}

nas_status nas_db_series_find(nas_ctx *ctx, nas_db *db, const char *device, const char *space,
                              nas_db_quantity quantity, nas_db_series *out) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "look for the device",
        "SELECT id, device, space, (SELECT count(*) FROM latency_values v WHERE v.series_id = s.id)"
        " FROM latency_series s WHERE device = ?1 AND quantity = ?2 AND (?3 IS NULL OR space = ?3)"
        " ORDER BY id");
    nas__bind_text(&s, 1, device);
    nas__bind_text(&s, 2, nas_db_quantity_text(quantity));
    nas__bind_text(&s, 3, space);
    nas_db_series found = {.quantity = quantity};
    int n = 0;
    while (nas__stmt_row(&s)) {
        if (n++ > 0) continue;
        found.id = nas__column_i64(&s, 0);
        nas__column_text(&s, 1, found.device, sizeof found.device);
        nas__column_text(&s, 2, found.space, sizeof found.space);
        found.n_rows = (size_t)nas__column_i64(&s, 3);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status != NAS_OK) return nas_wrap(ctx, status, "device '%s'", device);
    if (n == 0) {
        return nas_fail(ctx, NAS_ERR_NOTFOUND,
                        "no %s of device '%s'%s%s in %s: see nas-latency list, or import some",
                        nas_db_quantity_text(quantity), device, space == NULL ? "" : " in space ",
                        space == NULL ? "" : space, db->path);
    }
    if (n > 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "device '%s' has rows of %d spaces: choose one with --space", device, n);
    }
    *out = found;
    return NAS_OK;
}

nas_status nas_db_value_put(nas_ctx *ctx, nas_db *db, const nas_db_value *row, bool replace) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the value",
        replace ? "INSERT INTO latency_values (series_id, arch, value, features, import_id)"
                  " VALUES (?, ?, ?, ?, ?) ON CONFLICT (series_id, arch) DO UPDATE SET"
                  " value = excluded.value, features = excluded.features,"
                  " import_id = excluded.import_id"
                : "INSERT INTO latency_values (series_id, arch, value, features, import_id)"
                  " VALUES (?, ?, ?, ?, ?)");
    nas__bind_i64(&s, 1, row->series_id);
    nas__bind_text(&s, 2, row->arch);
    nas__bind_double(&s, 3, row->value);
    nas__bind_text(&s, 4, row->features);
    nas__bind_i64(&s, 5, row->import_id);
    return nas_wrap(ctx, nas__stmt_run(&s), "architecture '%s'", row->arch);
}

nas_status nas_db_value_get(nas_ctx *ctx, nas_db *db, int64_t series_id, const char *arch,
                            nas_opt_double *value) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "look for an architecture",
                                    "SELECT value FROM latency_values"
                                    " WHERE series_id = ? AND arch = ?");
    nas__bind_i64(&s, 1, series_id);
    nas__bind_text(&s, 2, arch);
    nas_opt_double found = {0};
    if (nas__stmt_row(&s)) found = nas__column_opt_double(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *value = found;
    return status;
}

void nas_db_series_values_free(nas_db_value *rows, size_t n) {
    for (size_t i = 0; i < n && rows != NULL; i++) {
        nas_free(rows[i].arch);
        nas_free(rows[i].features);
    }
    nas_free(rows);
}

nas_status nas_db_series_values(nas_ctx *ctx, nas_db *db, int64_t series_id, nas_db_value **rows,
                                size_t *n) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read the values",
                                    "SELECT arch, value, features, import_id FROM latency_values"
                                    " WHERE series_id = ? ORDER BY arch");
    nas__bind_i64(&s, 1, series_id);
    nas_db_value *list = NULL;
    size_t count = 0, cap = 0;
    nas_status status = NAS_OK;
    while (status == NAS_OK && nas__stmt_row(&s)) {
        status = nas_grow(ctx, &list, &cap, count + 1, sizeof *list);
        if (status != NAS_OK) break;
        list[count++] = (nas_db_value){.series_id = series_id,
                                       .arch = nas__column_strdup(&s, 0),
                                       .value = nas__column_opt_double(&s, 1).value,
                                       .features = nas__column_strdup(&s, 2),
                                       .import_id = nas__column_i64(&s, 3)};
    }
    const nas_status end = nas__stmt_end(&s);
    if (status == NAS_OK) status = end;
    if (status != NAS_OK) {
        nas_db_series_values_free(list, count);
        return status;
    }
    *rows = list;
    *n = count;
    return NAS_OK;
}

nas_status nas_db_model_put(nas_ctx *ctx, nas_db *db, const nas_db_model *row, int64_t *id) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the model",
        "INSERT INTO latency_models (series_id, predictor, options, quality, model, made_ms)"
        " VALUES (?, ?, ?, ?, ?, ?) RETURNING id");
    nas__bind_i64(&s, 1, row->series_id);
    nas__bind_text(&s, 2, row->predictor);
    nas__bind_text(&s, 3, row->options);
    nas__bind_text(&s, 4, row->quality);
    nas__bind_text(&s, 5, row->model);
    nas__bind_i64(&s, 6, nas_unix_time_ms());
    int64_t value = 0;
    while (nas__stmt_row(&s))
        value = nas__column_i64(&s, 0);
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *id = value;
    return status;
}

void nas_db_model_deinit(nas_db_model *row) {
    nas_free(row->predictor);
    nas_free(row->options);
    nas_free(row->quality);
    nas_free(row->model);
    *row = (nas_db_model){0};
}

nas_status nas_db_model_latest(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                               nas_db_model *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read the model",
                                    "SELECT predictor, options, quality, model FROM latency_models"
                                    " WHERE series_id = ? ORDER BY id DESC LIMIT 1");
    nas__bind_i64(&s, 1, series->id);
    nas_db_model row = {.series_id = series->id};
    const bool found = nas__stmt_row(&s);
    if (found) {
        row.predictor = nas__column_strdup(&s, 0);
        row.options = nas__column_strdup(&s, 1);
        row.quality = nas__column_strdup(&s, 2);
        row.model = nas__column_strdup(&s, 3);
    }
    nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK && !found) {
        status = nas_fail(ctx, NAS_ERR_NOTFOUND,
                          "device '%s' has no model of space '%s' yet: nas-latency fit or transfer "
                          "makes one",
                          series->device, series->space);
    }
    if (status != NAS_OK) {
        nas_db_model_deinit(&row);
        return status;
    }
    *out = row;
    return NAS_OK;
}
