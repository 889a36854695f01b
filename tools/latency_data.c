/* latency_data.c - see latency_data.h. */
#include "tools/latency_data.h"

#include <jansson.h>
#include <math.h>
#include <string.h>

nas_status nas_latency_data_load(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                                 nas_latency_data *out) {
    nas_latency_data data = {.series = *series};
    const nas_status status = nas_db_series_values(ctx, db, series->id, &data.rows, &data.n);
    if (status != NAS_OK) return nas_wrap(ctx, status, "device '%s'", series->device);
    *out = data;
    return NAS_OK;
}

void nas_latency_data_deinit(nas_latency_data *data) {
    nas_db_series_values_free(data->rows, data->n);
    *data = (nas_latency_data){0};
}

size_t nas_latency_data_find(const nas_latency_data *data, const char *arch) {
    size_t lo = 0, hi = data->n;
    while (lo < hi) {
        const size_t middle = lo + (hi - lo) / 2;
        const int order = strcmp(data->rows[middle].arch, arch);
        if (order == 0) return middle;
        if (order < 0) lo = middle + 1;
        if (order > 0) hi = middle;
    }
    return data->n;
}

void nas_features_json(const double *x, size_t n, nas_buf *out) {
    nas_json j = nas_json_begin(out);
    nas_json_array(&j);
    for (size_t i = 0; i < n; i++)
        nas_json_double(&j, x[i]);
    nas_json_array_end(&j);
}

nas_status nas_features_parse(nas_ctx *ctx, const char *text, size_t n, double *x) {
    json_t *root = json_loads(text, 0, NULL);
    bool good = json_is_array(root) && json_array_size(root) == n;
    for (size_t i = 0; i < n && good; i++) {
        const json_t *item = json_array_get(root, i);
        good = json_is_number(item);
        x[i] = json_number_value(item);
    }
    json_decref(root);
    if (good) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_PARSE,
                    "stored features are not %zu numbers: another version wrote them, import again",
                    n);
}

static nas_status stored_rows(nas_ctx *ctx, const nas_latency_data *data, const size_t *index,
                              size_t count, size_t width, double *x) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < count && status == NAS_OK; i++) {
        const nas_db_value *row = &data->rows[index[i]];
        if (row->features == NULL) {
            return nas_fail(ctx, NAS_ERR_NOTFOUND,
                            "network '%s' of device '%s' is known by its name alone: import it "
                            "again with --onnx FILE",
                            row->arch, data->series.device);
        }
        status = nas_wrap(ctx, nas_features_parse(ctx, row->features, width, x + i * width),
                          "network '%s'", row->arch);
    }
    return status;
}

static nas_status encoded_rows(nas_ctx *ctx, const nas_encoder *encoder,
                               const nas_latency_data *data, const size_t *index, size_t count,
                               double *x) {
    const char **archs = nas_alloc_array(ctx, count, sizeof *archs);
    if (archs == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < count; i++)
        archs[i] = data->rows[index[i]].arch;
    const nas_status status = nas_encoder_rows(ctx, encoder, archs, count, x);
    nas_free(archs);
    return status;
}

nas_status nas_latency_data_table(nas_ctx *ctx, const nas_encoder *encoder,
                                  const nas_latency_data *data, const size_t *index, size_t count,
                                  nas_owned_table *out) {
    size_t width = 0, cells = 0;
    const nas_feature *features = nas_encoder_features(encoder, &width);
    nas_status status = nas_mul_size(ctx, count, width, &cells);
    if (status != NAS_OK) return status;
    nas_owned_table t = {0};
    t.x = nas_alloc_array(ctx, cells, sizeof *t.x);
    t.y = nas_alloc_array(ctx, count, sizeof *t.y);
    status = t.x == NULL || t.y == NULL ? NAS_ERR_NOMEM
             : nas_encoder_is_network(encoder)
                 ? stored_rows(ctx, data, index, count, width, t.x)
                 : encoded_rows(ctx, encoder, data, index, count, t.x);
    if (status != NAS_OK) {
        nas_owned_table_deinit(&t);
        return status;
    }
    for (size_t i = 0; i < count; i++)
        t.y[i] = data->rows[index[i]].value * 1e-3;
    t.table = (nas_latency_table){.device = data->series.device,
                                  .features = features,
                                  .n_features = width,
                                  .n_rows = count,
                                  .x = t.x,
                                  .y = t.y};
    *out = t;
    return NAS_OK;
}

void nas_owned_table_deinit(nas_owned_table *table) {
    nas_free(table->x);
    nas_free(table->y);
    *table = (nas_owned_table){0};
}

void nas_shuffled(uint64_t seed, const char *purpose, size_t n, size_t *index) {
    nas_rng rng = nas_rng_stream(seed, 0, purpose);
    for (size_t i = 0; i < n; i++)
        index[i] = i;
    for (size_t i = n; i > 1; i--) {
        const size_t j = nas_rng_below(&rng, (uint32_t)i);
        const size_t keep = index[i - 1];
        index[i - 1] = index[j];
        index[j] = keep;
    }
}
