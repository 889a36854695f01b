/* model_json.c - a device model as one JSON object, and back.
 *
 * Format, version 1 (numbers with 17 digits, so that they come back bit for bit):
 *   {"format": "nas-device-model", "version": 1, "id", "device", "level", "quantile", "seed", "n_train", "fit_s",
 *    "features": [{"name", "kind": "term"|"shape"|"code"}], "coordinates": [[feature, code, center, spread]],
 *    "x": [[...] per row], "log_y": [..], "weight": [..],
 *    "hyper": {"linear", "signal", "noise", "inverse_length": [..]}   a model of its own rows, or
 *    "sources": [model, ...]}                                         a transferred one
 * The posterior is computed again from the rows: deterministic, hence equal. */
#include "latency/model_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { VERSION = 1, ROWS_MAX = 1000000, COORDINATES_MAX = NAS__FEATURES_MAX * (NAS__CODE_MAX + 1) };

static const char *const kinds[] = {
    [NAS_FEATURE_TERM] = "term", [NAS_FEATURE_SHAPE] = "shape", [NAS_FEATURE_CODE] = "code"};

/* ---- explain ---------------------------------------------------------------------------------------------------- */

enum { EXPLAIN_ROWS = 200 };

/* Standard deviation of the log prediction when feature k alone takes the values it has in other rows. */
static nas_status effect_of(nas_ctx *ctx, const nas_device_model *m, const double *rows_x,
                            size_t n_rows, size_t k, double *x, double *base, double *moved,
                            double *out) {
    const size_t width = m->encoder.n_features;
    memcpy(x, rows_x, n_rows * width * sizeof *x);
    for (size_t i = 0; i < n_rows; i++)
        x[i * width + k] = rows_x[(i + n_rows / 2) % n_rows * width + k];
    const nas_status status = nas__model_predict_log(ctx, m, x, n_rows, moved, NULL);
    if (status != NAS_OK) return status;
    double square = 0;
    for (size_t i = 0; i < n_rows; i++)
        square += (moved[i] - base[i]) * (moved[i] - base[i]) / (double)n_rows;
    *out = sqrt(square);
    return NAS_OK;
}

static nas_status write_effects(nas_ctx *ctx, const nas_device_model *m, nas_json *json) {
    const nas__merged_rows *from = &m->rows;
    if (m->transfer != NULL) {
        const nas_device_model *const *sources = NULL;
        (void)nas__transfer_sources(m->transfer, &sources);
        from = &sources[0]->rows; /* ten rows say little about how features vary */
    }
    const size_t width = m->encoder.n_features, n = from->n < EXPLAIN_ROWS ? from->n : EXPLAIN_ROWS;
    double *x = nas_alloc_array(ctx, n * width, sizeof *x);
    double *base = nas_alloc_array(ctx, n, sizeof *base);
    double *moved = nas_alloc_array(ctx, n, sizeof *moved);
    nas_status status = x == NULL || base == NULL || moved == NULL
                            ? NAS_ERR_NOMEM
                            : nas__model_predict_log(ctx, m, from->x, n, base, NULL);
    nas_json_key(json, "features");
    nas_json_array(json);
    for (size_t k = 0; k < width && status == NAS_OK; k++) {
        double effect = 0;
        status = effect_of(ctx, m, from->x, n, k, x, base, moved, &effect);
        nas_json_object(json);
        nas_json_key(json, "name");
        nas_json_string(json, m->encoder.features[k].name);
        nas_json_key(json, "kind");
        nas_json_string(json, kinds[m->encoder.features[k].kind]);
        nas_json_key(json, "effect");
        nas_json_double(json, effect);
        nas_json_object_end(json);
    }
    nas_json_array_end(json);
    nas_free(moved);
    nas_free(base);
    nas_free(x);
    return status;
}

nas_status nas_device_model_explain(nas_ctx *ctx, const nas_device_model *m, nas_buf *out) {
    nas_json json = nas_json_begin(out);
    nas_json_object(&json);
    nas_json_key(&json, "model");
    nas_json_string(&json, m->id);
    nas_json_key(&json, "device");
    nas_json_string(&json, m->device);
    nas_json_key(&json, "rows");
    nas_json_int(&json, (int64_t)m->rows.n);
    nas_json_key(&json, "noise");
    nas_json_double(&json, m->transfer != NULL ? nas__transfer_noise(m->transfer)
                                               : m->gp.scale * exp(0.5 * m->gp.hyper.log_noise));
    if (m->transfer != NULL) nas__transfer_explain(m->transfer, &json);
    const nas_status status = write_effects(ctx, m, &json);
    nas_json_object_end(&json);
    return status != NAS_OK ? status : nas_buf_status(ctx, out);
}

/* ---- save ------------------------------------------------------------------------------------------------------- */

static void write_numbers(nas_json *json, const char *key, const double *values, size_t n) {
    if (key != NULL) nas_json_key(json, key);
    nas_json_array(json);
    for (size_t i = 0; i < n; i++)
        nas_json_double(json, values[i]);
    nas_json_array_end(json);
}

static void write_number(nas_json *json, const char *key, double value) {
    nas_json_key(json, key);
    nas_json_double(json, value);
}

static void write_encoder(nas_json *json, const nas__encoder *e) {
    nas_json_key(json, "features");
    nas_json_array(json);
    for (size_t k = 0; k < e->n_features; k++) {
        nas_json_object(json);
        nas_json_key(json, "name");
        nas_json_string(json, e->features[k].name);
        nas_json_key(json, "kind");
        nas_json_string(json, kinds[e->features[k].kind]);
        nas_json_object_end(json);
    }
    nas_json_array_end(json);
    nas_json_key(json, "coordinates");
    nas_json_array(json);
    for (size_t k = 0; k < e->d; k++) {
        const nas__coordinate *c = &e->coordinates[k];
        const double values[] = {(double)c->feature, (double)c->code, c->center, c->spread};
        write_numbers(json, NULL, values, 4);
    }
    nas_json_array_end(json);
}

static void write_model(nas_json *json, const nas_device_model *m) {
    nas_json_object(json);
    nas_json_key(json, "format");
    nas_json_string(json, "nas-device-model");
    nas_json_key(json, "version");
    nas_json_int(json, VERSION);
    nas_json_key(json, "id");
    nas_json_string(json, m->id);
    nas_json_key(json, "device");
    nas_json_string(json, m->device);
    write_number(json, "level", m->level);
    write_number(json, "quantile", m->quantile);
    char seed[24];
    (void)snprintf(seed, sizeof seed, "%" PRIu64, m->seed);
    nas_json_key(json, "seed"); /* as text: JSON numbers end at 2^53 in many readers */
    nas_json_string(json, seed);
    nas_json_key(json, "n_train");
    nas_json_int(json, (int64_t)m->n_train);
    write_number(json, "fit_s", m->fit_s);
    write_encoder(json, &m->encoder);
    nas_json_key(json, "x");
    nas_json_array(json);
    for (size_t i = 0; i < m->rows.n; i++)
        write_numbers(json, NULL, m->rows.x + i * m->encoder.n_features, m->encoder.n_features);
    nas_json_array_end(json);
    write_numbers(json, "log_y", m->rows.log_y, m->rows.n);
    write_numbers(json, "weight", m->rows.weight, m->rows.n);
    if (m->transfer != NULL) {
        const nas_device_model *const *sources = NULL;
        const size_t n = nas__transfer_sources(m->transfer, &sources);
        nas_json_key(json, "sources");
        nas_json_array(json);
        for (size_t s = 0; s < n; s++)
            write_model(json, sources[s]); /* depth 1: own rows only */
        nas_json_array_end(json);
    } else {
        nas_json_key(json, "hyper");
        nas_json_object(json);
        write_number(json, "linear", m->gp.hyper.log_linear);
        write_number(json, "signal", m->gp.hyper.log_signal);
        write_number(json, "noise", m->gp.hyper.log_noise);
        write_numbers(json, "inverse_length", m->gp.hyper.log_inverse_length, m->gp.d);
        nas_json_object_end(json);
    }
    nas_json_object_end(json);
}

nas_status nas_device_model_save(nas_ctx *ctx, const nas_device_model *model, nas_buf *out) {
    nas_json json = nas_json_begin(out);
    write_model(&json, model);
    return nas_buf_status(ctx, out);
}

/* ---- load ------------------------------------------------------------------------------------------------------- */

static nas_status bad(nas_ctx *ctx, const char *key, const char *want) {
    return nas_fail(ctx, NAS_ERR_PARSE, "device model: '%s' must be %s", key, want);
}

static nas_status read_number(nas_ctx *ctx, const json_t *object, const char *key, double lo,
                              double hi, double *out) {
    const json_t *value = json_object_get(object, key);
    if (!json_is_number(value)) return bad(ctx, key, "a number");
    const double number = json_number_value(value);
    if (!(number >= lo && number <= hi)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "device model: '%s' is %g, must be %g..%g", key, number,
                        lo, hi);
    }
    *out = number;
    return NAS_OK;
}

/* An array of exactly n finite numbers into out. */
static nas_status read_numbers(nas_ctx *ctx, const json_t *array, const char *key, size_t n,
                               double *out) {
    if (!json_is_array(array) || json_array_size(array) != n) {
        return nas_fail(ctx, NAS_ERR_PARSE, "device model: '%s' must be an array of %zu numbers",
                        key, n);
    }
    for (size_t i = 0; i < n; i++) {
        const json_t *value = json_array_get(array, i);
        if (!json_is_number(value) || !isfinite(json_number_value(value))) {
            return bad(ctx, key, "of finite numbers");
        }
        out[i] = json_number_value(value);
    }
    return NAS_OK;
}

static nas_status read_features(nas_ctx *ctx, const json_t *object, nas__encoder *e) {
    const json_t *array = json_object_get(object, "features");
    const size_t n = json_array_size(array);
    if (n < 1 || n > NAS__FEATURES_MAX) return bad(ctx, "features", "an array of 1..512");
    e->features = nas_alloc_array(ctx, n, sizeof *e->features);
    if (e->features == NULL) return NAS_ERR_NOMEM;
    e->n_features = n;
    for (size_t k = 0; k < n; k++) {
        const json_t *feature = json_array_get(array, k);
        const char *name = json_string_value(json_object_get(feature, "name"));
        const char *kind = json_string_value(json_object_get(feature, "kind"));
        size_t which = 0;
        while (kind != NULL && which < 3 && strcmp(kinds[which], kind) != 0)
            which++;
        if (name == NULL || kind == NULL || which == 3 || strlen(name) > NAS__FEATURE_NAME_MAX) {
            return bad(ctx, "features", "objects with a name and a kind: term, shape or code");
        }
        e->features[k].kind = (nas_feature_kind)which;
        e->features[k].name = nas_strdup(ctx, name);
        if (e->features[k].name == NULL) return NAS_ERR_NOMEM;
    }
    return NAS_OK;
}

static nas_status read_coordinates(nas_ctx *ctx, const json_t *object, nas__encoder *e) {
    const json_t *array = json_object_get(object, "coordinates");
    const size_t d = json_array_size(array);
    if (d < 1 || d > COORDINATES_MAX) return bad(ctx, "coordinates", "an array, not empty");
    e->coordinates = nas_alloc_array(ctx, d, sizeof *e->coordinates);
    if (e->coordinates == NULL) return NAS_ERR_NOMEM;
    e->d = d;
    for (size_t k = 0; k < d; k++) {
        double v[4];
        const nas_status status = read_numbers(ctx, json_array_get(array, k), "coordinates", 4, v);
        if (status != NAS_OK) return status;
        if (!(v[0] >= 0 && v[0] < (double)e->n_features && v[0] == floor(v[0]) && v[1] >= -1 &&
              v[1] <= NAS__CODE_MAX && v[1] == floor(v[1]) && v[3] > 0)) {
            return bad(ctx, "coordinates", "[feature, code, center, spread above 0]");
        }
        e->coordinates[k] = (nas__coordinate){
            .feature = (size_t)v[0], .code = (int32_t)v[1], .center = v[2], .spread = v[3]};
    }
    return NAS_OK;
}

static nas_status read_rows(nas_ctx *ctx, const json_t *object, size_t width,
                            nas__merged_rows *rows) {
    const json_t *array = json_object_get(object, "x");
    const size_t n = json_array_size(array);
    if (n < 1 || n > ROWS_MAX) return bad(ctx, "x", "an array of rows");
    rows->x = nas_alloc_array(ctx, n * width, sizeof(double));
    rows->log_y = nas_alloc_array(ctx, n, sizeof(double));
    rows->weight = nas_alloc_array(ctx, n, sizeof(double));
    if (rows->x == NULL || rows->log_y == NULL || rows->weight == NULL) return NAS_ERR_NOMEM;
    rows->n = n;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = read_numbers(ctx, json_array_get(array, i), "x", width, rows->x + i * width);
    if (status == NAS_OK) {
        status = read_numbers(ctx, json_object_get(object, "log_y"), "log_y", n, rows->log_y);
    }
    if (status == NAS_OK) {
        status = read_numbers(ctx, json_object_get(object, "weight"), "weight", n, rows->weight);
    }
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (!(rows->weight[i] > 0)) status = bad(ctx, "weight", "above 0");
    }
    return status;
}

static nas_status restore_gp(nas_ctx *ctx, const json_t *object, nas_device_model *m) {
    const json_t *json = json_object_get(object, "hyper");
    nas__gp_hyper hyper = {0};
    double *z = NULL;
    hyper.log_inverse_length = nas_alloc_array(ctx, m->encoder.d, sizeof(double));
    nas_status status = hyper.log_inverse_length == NULL
                            ? NAS_ERR_NOMEM
                            : read_number(ctx, json, "linear", -50, 50, &hyper.log_linear);
    if (status == NAS_OK) status = read_number(ctx, json, "signal", -50, 50, &hyper.log_signal);
    if (status == NAS_OK) status = read_number(ctx, json, "noise", -50, 50, &hyper.log_noise);
    if (status == NAS_OK) {
        status = read_numbers(ctx, json_object_get(json, "inverse_length"), "inverse_length",
                              m->encoder.d, hyper.log_inverse_length);
    }
    if (status == NAS_OK) status = nas__encode_rows(ctx, &m->encoder, m->rows.x, m->rows.n, &z);
    if (status != NAS_OK) {
        nas_free(hyper.log_inverse_length);
        return status;
    }
    const nas__gp_rows rows = {
        .x = z, .y = m->rows.log_y, .weight = m->rows.weight, .n = m->rows.n, .d = m->encoder.d};
    status = nas__gp_restore(ctx, &rows, hyper, m->seed, &m->gp);
    nas_free(z);
    return status;
}

static nas_status read_model(nas_ctx *ctx, const json_t *object, bool nested,
                             nas_device_model **out);

static nas_status restore_transfer(nas_ctx *ctx, const json_t *sources, nas_device_model *m) {
    const size_t n = json_array_size(sources);
    if (n < 1 || n > NAS__SOURCES_MAX) return bad(ctx, "sources", "an array of 1..64 models");
    if (m->rows.n > NAS__TRANSFER_ROWS_MAX) return bad(ctx, "x", "100 rows at most");
    nas_device_model **models = nas_alloc_array(ctx, n, sizeof *models);
    if (models == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    for (size_t s = 0; s < n && status == NAS_OK; s++) {
        status = read_model(ctx, json_array_get(sources, s), true, &models[s]);
        if (status == NAS_OK && models[s]->encoder.n_features != m->encoder.n_features) {
            status = bad(ctx, "sources", "of models with the features of the whole");
        }
    }
    if (status == NAS_OK) {
        status = nas__transfer_new(ctx, (const nas_device_model *const *)models, n, &m->rows,
                                   m->level, m->seed, NULL, &m->transfer);
    }
    if (status == NAS_OK) {
        nas__transfer_own(m->transfer, models);
        return NAS_OK;
    }
    for (size_t s = 0; s < n; s++)
        nas_device_model_free(models[s]);
    nas_free(models);
    return status;
}

static nas_status read_head(nas_ctx *ctx, const json_t *object, nas_device_model *m) {
    const char *format = json_string_value(json_object_get(object, "format"));
    if (format == NULL || strcmp(format, "nas-device-model") != 0) {
        return bad(ctx, "format", "\"nas-device-model\"");
    }
    double number = 0;
    nas_status status = read_number(ctx, object, "version", VERSION, VERSION, &number);
    const char *id = json_string_value(json_object_get(object, "id"));
    const char *device = json_string_value(json_object_get(object, "device"));
    const char *seed = json_string_value(json_object_get(object, "seed"));
    if (status == NAS_OK && (id == NULL || device == NULL || seed == NULL)) {
        status = bad(ctx, "id, device, seed", "texts");
    }
    if (status == NAS_OK) status = read_number(ctx, object, "level", 0.5, 0.99, &m->level);
    if (status == NAS_OK) status = read_number(ctx, object, "quantile", 0, 1e9, &m->quantile);
    if (status == NAS_OK) status = read_number(ctx, object, "fit_s", 0, 1e9, &m->fit_s);
    if (status == NAS_OK) status = read_number(ctx, object, "n_train", 1, 1e12, &number);
    if (status != NAS_OK) return status;
    m->n_train = (size_t)number;
    if (sscanf(seed, "%" SCNu64, &m->seed) != 1) return bad(ctx, "seed", "a whole number as text");
    (void)snprintf(m->id, sizeof m->id, "%s", id);
    m->device = nas_strdup(ctx, device);
    return m->device == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

static nas_status read_model(nas_ctx *ctx, const json_t *object, bool nested,
                             nas_device_model **out) {
    if (!json_is_object(object)) {
        return nas_fail(ctx, NAS_ERR_PARSE, "device model: must be a JSON object");
    }
    nas_device_model *m = nas_alloc_array(ctx, 1, sizeof *m);
    if (m == NULL) return NAS_ERR_NOMEM;
    nas_status status = read_head(ctx, object, m);
    if (status == NAS_OK) status = read_features(ctx, object, &m->encoder);
    if (status == NAS_OK) status = read_coordinates(ctx, object, &m->encoder);
    if (status == NAS_OK) status = read_rows(ctx, object, m->encoder.n_features, &m->rows);
    const json_t *sources = json_object_get(object, "sources");
    if (status == NAS_OK && sources == NULL) status = restore_gp(ctx, object, m);
    if (status == NAS_OK && sources != NULL) {
        status = nested ? bad(ctx, "sources", "models of their own rows")
                        : restore_transfer(ctx, sources, m);
    }
    if (status != NAS_OK) {
        nas_device_model_free(m);
        return status;
    }
    *out = m;
    return NAS_OK;
}

nas_status nas_device_model_load(nas_ctx *ctx, const char *text, size_t length,
                                 nas_device_model **out) {
    json_error_t error;
    json_t *object = json_loadb(text, length, JSON_REJECT_DUPLICATES, &error);
    if (object == NULL) {
        return nas_fail(ctx, NAS_ERR_PARSE, "device model: line %d: %s", error.line, error.text);
    }
    const nas_status status = read_model(ctx, object, false, out);
    json_decref(object);
    return status;
}
