/* model_table.c - tables of features: checked, merged, turned into coordinates. */
#include "latency/model_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- check ------------------------------------------------------------------------------------------------------ */

static const char *name_of(const nas_latency_table *table) {
    return table->device != NULL ? table->device : "?";
}

static nas_status check_features(nas_ctx *ctx, const nas_latency_table *table) {
    if (table->n_features < 1 || table->n_features > NAS__FEATURES_MAX || table->features == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s': %zu features, must be 1..%d",
                        name_of(table), table->n_features, NAS__FEATURES_MAX);
    }
    for (size_t k = 0; k < table->n_features; k++) {
        const char *name = table->features[k].name;
        if (name == NULL || name[0] == '\0' || strlen(name) > NAS__FEATURE_NAME_MAX) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "table of device '%s': feature %zu needs a name of 1..%d characters",
                            name_of(table), k, NAS__FEATURE_NAME_MAX);
        }
        for (size_t j = 0; j < k; j++) {
            if (strcmp(table->features[j].name, name) != 0) continue;
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "table of device '%s': features %zu and %zu are both '%s'",
                            name_of(table), j, k, name);
        }
    }
    return NAS_OK;
}

static nas_status check_value(nas_ctx *ctx, const nas_latency_table *table, size_t row, size_t k) {
    const double value = table->x[row * table->n_features + k];
    const nas_feature *feature = &table->features[k];
    const char *why = NULL;
    if (!isfinite(value)) {
        why = "must be finite";
    } else if (feature->kind == NAS_FEATURE_TERM && value < 0) {
        why = "an amount of work must not be negative";
    } else if (feature->kind == NAS_FEATURE_CODE &&
               (value < 0 || value > NAS__CODE_MAX || value != floor(value))) {
        why = "a code must be a whole number 0..31";
    }
    if (why == NULL) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s', row %zu, feature '%s': %g, %s",
                    name_of(table), row, feature->name, value, why);
}

nas_status nas_latency_table_check(nas_ctx *ctx, const nas_latency_table *table, bool with_y) {
    nas_status status = check_features(ctx, table);
    if (status != NAS_OK) return status;
    if (table->n_rows == 0 || table->x == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s' has no rows", name_of(table));
    }
    if (table->n_rows > UINT32_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "table of device '%s': %zu rows, at most %" PRIu32,
                        name_of(table), table->n_rows, UINT32_MAX);
    }
    if (with_y && table->y == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s' has no measured values",
                        name_of(table));
    }
    for (size_t i = 0; i < table->n_rows && status == NAS_OK; i++) {
        for (size_t k = 0; k < table->n_features && status == NAS_OK; k++)
            status = check_value(ctx, table, i, k);
        if (status != NAS_OK || !with_y || (isfinite(table->y[i]) && table->y[i] > 0)) continue;
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "table of device '%s', row %zu: value %g, must be finite and above 0",
                          name_of(table), i, table->y[i]);
    }
    return status;
}

nas_status nas__same_features(nas_ctx *ctx, const char *what, const nas_feature *features, size_t n,
                              const nas_latency_table *table) {
    for (size_t k = 0; k < n && k < table->n_features; k++) {
        const nas_feature *a = &features[k], *b = &table->features[k];
        if (strcmp(a->name, b->name) == 0 && a->kind == b->kind) continue;
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "feature %zu of the table of device '%s' is '%s', that of %s is '%s'", k,
                        name_of(table), b->name, what, a->name);
    }
    if (n == table->n_features) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID, "table of device '%s' has %zu features, %s has %zu",
                    name_of(table), table->n_features, what, n);
}

/* ---- coordinates ------------------------------------------------------------------------------------------------ */

void nas__encoder_deinit(nas__encoder *encoder) {
    for (size_t k = 0; k < encoder->n_features && encoder->features != NULL; k++)
        nas_free((void *)(uintptr_t)encoder->features[k].name);
    nas_free(encoder->features);
    nas_free(encoder->coordinates);
    *encoder = (nas__encoder){0};
}

static double raw_coordinate(const nas__coordinate *c, const double *x) {
    if (c->code < 0) return x[c->feature];
    return x[c->feature] == (double)c->code ? 1 : 0;
}

/* Center and spread over the table; false when constant. */
static bool standardise(const nas_latency_table *table, nas__coordinate *c) {
    double sum = 0, squares = 0, largest = 0;
    for (size_t i = 0; i < table->n_rows; i++) {
        const double value = raw_coordinate(c, table->x + i * table->n_features);
        sum += value;
        largest = fmax(largest, fabs(value));
    }
    c->center = sum / (double)table->n_rows;
    for (size_t i = 0; i < table->n_rows; i++) {
        const double off = raw_coordinate(c, table->x + i * table->n_features) - c->center;
        squares += off * off;
    }
    c->spread = sqrt(squares / (double)table->n_rows);
    return c->spread > 1e-9 * largest;
}

static nas_status add_coordinates(nas_ctx *ctx, const nas_latency_table *table, size_t feature,
                                  size_t *cap, nas__encoder *out) {
    const bool is_code = table->features[feature].kind == NAS_FEATURE_CODE;
    for (int32_t code = is_code ? 0 : -1; code <= (is_code ? NAS__CODE_MAX : -1); code++) {
        nas__coordinate c = {.feature = feature, .code = code};
        if (!standardise(table, &c)) continue;
        const nas_status status =
            nas_grow(ctx, &out->coordinates, cap, out->d + 1, sizeof *out->coordinates);
        if (status != NAS_OK) return status;
        out->coordinates[out->d++] = c;
    }
    return NAS_OK;
}

nas_status nas__encoder_of(nas_ctx *ctx, const nas_latency_table *table, nas__encoder *out) {
    nas__encoder e = {.n_features = table->n_features};
    size_t cap = 0;
    e.features = nas_alloc_array(ctx, e.n_features, sizeof *e.features);
    nas_status status = e.features == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t k = 0; k < e.n_features && status == NAS_OK; k++) {
        e.features[k] = (nas_feature){.name = nas_strdup(ctx, table->features[k].name),
                                      .kind = table->features[k].kind};
        status =
            e.features[k].name == NULL ? NAS_ERR_NOMEM : add_coordinates(ctx, table, k, &cap, &e);
    }
    if (status == NAS_OK && e.d == 0) {
        status = nas_grow(ctx, &e.coordinates, &cap, 1, sizeof *e.coordinates);
        if (status == NAS_OK) {
            e.coordinates[0] = (nas__coordinate){.code = -1, .center = table->x[0], .spread = 1};
            e.d = 1;
        }
    }
    if (status != NAS_OK) {
        nas__encoder_deinit(&e);
        return status;
    }
    *out = e;
    return NAS_OK;
}

void nas__encode(const nas__encoder *encoder, const double *x, double *out) {
    for (size_t k = 0; k < encoder->d; k++) {
        const nas__coordinate *c = &encoder->coordinates[k];
        out[k] = (raw_coordinate(c, x) - c->center) / c->spread;
    }
}

/* ---- equal rows ------------------------------------------------------------------------------------------------- */

void nas__merged_rows_deinit(nas__merged_rows *rows) {
    nas_free(rows->of_row);
    nas_free(rows->weight);
    nas_free(rows->log_y);
    nas_free(rows->x);
    *rows = (nas__merged_rows){0};
}

typedef struct hashed_row {
    uint64_t hash;
    size_t row;
} hashed_row;

static int by_hash(const void *pa, const void *pb) {
    const hashed_row *a = pa, *b = pb;
    if (a->hash != b->hash) return a->hash < b->hash ? -1 : 1;
    return a->row < b->row ? -1 : a->row > b->row;
}

static uint64_t hash_of(const double *x, size_t n) {
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a over the words, -0 as 0 */
    for (size_t k = 0; k < n; k++) {
        const double value = x[k] + 0.0;
        uint64_t word;
        memcpy(&word, &value, sizeof word);
        hash = (hash ^ word) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return hash;
}

static bool equal_rows(const double *a, const double *b, size_t n) {
    for (size_t k = 0; k < n; k++) {
        if (a[k] != b[k]) return false;
    }
    return true;
}

/* first[i]: the first row with the features of row i. */
static nas_status first_equal(nas_ctx *ctx, const nas_latency_table *table, size_t *first) {
    const size_t n = table->n_rows, d = table->n_features;
    hashed_row *order = nas_alloc_array(ctx, n, sizeof *order);
    if (order == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        order[i] = (hashed_row){.hash = hash_of(table->x + i * d, d), .row = i};
    qsort(order, n, sizeof *order, by_hash);
    for (size_t i = 0; i < n; i++) {
        const size_t row = order[i].row;
        first[row] = row;
        for (size_t j = i; j > 0 && order[j - 1].hash == order[i].hash; j--) {
            const size_t other = order[j - 1].row;
            if (equal_rows(table->x + row * d, table->x + other * d, d)) first[row] = first[other];
        }
    }
    nas_free(order);
    return NAS_OK;
}

nas_status nas__merge_rows(nas_ctx *ctx, const nas_latency_table *table, nas__merged_rows *out) {
    const size_t n = table->n_rows, d = table->n_features;
    nas__merged_rows m = {.x = nas_alloc_array(ctx, n * d, sizeof(double)),
                          .log_y = nas_alloc_array(ctx, n, sizeof(double)),
                          .weight = nas_alloc_array(ctx, n, sizeof(double)),
                          .of_row = nas_alloc_array(ctx, n, sizeof(size_t))};
    size_t *first = nas_alloc_array(ctx, n, sizeof *first);
    size_t *place = nas_alloc_array(ctx, n, sizeof *place);
    nas_status status = m.x == NULL || m.log_y == NULL || m.weight == NULL || m.of_row == NULL ||
                                first == NULL || place == NULL
                            ? NAS_ERR_NOMEM
                            : first_equal(ctx, table, first);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (first[i] == i) {
            place[i] = m.n;
            memcpy(m.x + m.n * d, table->x + i * d, d * sizeof *m.x);
            m.n++;
        }
        const size_t at = place[first[i]];
        m.of_row[i] = at;
        m.weight[at] += 1;
        if (table->y != NULL) m.log_y[at] += (log(table->y[i]) - m.log_y[at]) / m.weight[at];
    }
    nas_free(place);
    nas_free(first);
    if (status != NAS_OK) {
        nas__merged_rows_deinit(&m);
        return status;
    }
    *out = m;
    return NAS_OK;
}
