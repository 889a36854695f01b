/* config_json.c - a config as text: legal ranges, values, the effective JSON a study stores, the difference of two,
 * and the reference for people. All of it is read off the key table. */
#include "search/config_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- one value ------------------------------------------------------------------------------------------------- */

void nas__config_bound_text(const nas_constraint *c, nas_buf *out) {
    nas_json j = nas_json_begin(out); /* for its shortest round-trip form of a double */
    nas_buf_puts(out, c->at_most ? "<= " : ">= ");
    nas_json_double(&j, c->bound);
    if (c->is_percent) nas_buf_puts(out, "%");
}

static void bounds_json(const nas_config *config, const char *metric, int32_t queue, nas_json *j) {
    nas_json_array(j);
    for (int32_t i = 0; i < config->n_constraints; i++) {
        const nas_constraint *c = &config->constraints[i];
        if (strcmp(nas_metric_name(c->metric), metric) != 0 || c->queue != queue) continue;
        nas_buf text = {0};
        nas__config_bound_text(c, &text);
        if (text.failed) j->out->failed = true;
        nas_json_string(j, text.data);
        nas_buf_deinit(&text);
    }
    nas_json_array_end(j);
}

static void metrics_json(const nas_config *config, bool maximise, nas_json *j) {
    nas_json_array(j);
    for (int32_t i = 0; i < config->n_objectives; i++) {
        const nas_objective *o = &config->objectives[i];
        char text[NAS_METRIC_TEXT_MAX];
        nas_config_metric_text(config, o->metric, o->queue, text);
        if (nas_metric_maximise(o->metric) == maximise) nas_json_string(j, text);
    }
    nas_json_array_end(j);
}

static void kernels_json(const nas__config_key *key, const char *base, nas_json *j) {
    int32_t n = 0, kernels[NAS_KERNEL_CHOICES_MAX] = {0};
    memcpy(&n, base + key->count_offset, sizeof n);
    memcpy(kernels, base + key->offset, sizeof kernels);
    nas_json_array(j);
    for (int32_t i = 0; i < n; i++)
        nas_json_int(j, kernels[i]);
    nas_json_array_end(j);
}

static int64_t integer_of(const nas__config_key *key, const char *base) {
    int32_t narrow = 0;
    int64_t wide = 0; /* the seed is unsigned but at most 2^53 - 1 */
    if (key->size == sizeof narrow) {
        memcpy(&narrow, base + key->offset, sizeof narrow);
        return narrow;
    }
    memcpy(&wide, base + key->offset, sizeof wide);
    return wide;
}

void nas__config_value_json(const nas__config_key *key, const nas_config *config, const void *base,
                            nas_json *j) {
    const char *bytes = base;
    nas_range range = {0};
    double number = 0;
    bool flag = false;
    switch (key->type) {
    case NAS__KEY_TEXT:
    case NAS__KEY_FREQUENCY: nas_json_string(j, bytes + key->offset); break;
    case NAS__KEY_INTEGER: nas_json_int(j, integer_of(key, bytes)); break;
    case NAS__KEY_NUMBER:
        memcpy(&number, bytes + key->offset, sizeof number);
        nas_json_double(j, number);
        break;
    case NAS__KEY_FLAG:
        memcpy(&flag, bytes + key->offset, sizeof flag);
        nas_json_bool(j, flag);
        break;
    case NAS__KEY_RANGE:
        memcpy(&range, bytes + key->offset, sizeof range);
        nas_json_array(j);
        nas_json_int(j, range.min);
        nas_json_int(j, range.max);
        nas_json_int(j, range.step);
        nas_json_array_end(j);
        break;
    case NAS__KEY_KERNELS: kernels_json(key, bytes, j); break;
    case NAS__KEY_METRICS:
        metrics_json(config, strcmp(key->path, "objectives.maximise") == 0, j);
        break;
    case NAS__KEY_BOUND: bounds_json(config, strchr(key->path, '.') + 1, 0, j); break;
    }
}

/* ---- the effective config -------------------------------------------------------------------------------------- */

/* Index of a key and of the device it is for: one row of the JSON object. */
typedef struct json_row {
    char path[128];
    const nas__config_key *key;
    const void *base;
    int32_t queue; /* of bounds on a latency where there are several queues, else -1 */
} json_row;

static int by_path(const void *a, const void *b) {
    return strcmp(((const json_row *)a)->path, ((const json_row *)b)->path);
}

static bool has_bound(const nas_config *config, const char *metric, int32_t queue) {
    for (int32_t i = 0; i < config->n_constraints; i++) {
        const nas_constraint *c = &config->constraints[i];
        if (c->queue == queue && strcmp(nas_metric_name(c->metric), metric) == 0) return true;
    }
    return false;
}

/* Bounds on a latency where there are several queues: a row of each that has some, none of no queue. */
static void add_queue_rows(const nas_config *config, const nas__config_key *key, json_row *rows,
                           size_t *n) {
    for (int32_t q = 0; q < config->n_queues; q++) {
        if (!has_bound(config, strchr(key->path, '.') + 1, q)) continue;
        json_row *row = &rows[(*n)++];
        *row = (json_row){.key = key, .base = config, .queue = q};
        (void)snprintf(row->path, sizeof row->path, "%s@%s", key->path, config->queues[q]);
    }
}

/* Appends the rows of one key: one each device that it may be given for. */
static void add_rows(const nas_config *config, const nas__config_key *key, json_row *rows,
                     size_t *n) {
    const bool of_device = nas__config_is_device_key(key);
    nas_metric metric = NAS_METRIC_PSNR_Y;
    if (config->n_queues > 1 && key->type == NAS__KEY_BOUND &&
        nas_metric_from_name(strchr(key->path, '.') + 1, &metric) && nas_metric_is_timed(metric)) {
        add_queue_rows(config, key, rows, n);
        return;
    }
    for (int32_t i = 0; i < (of_device ? config->n_devices : 1); i++) {
        json_row *row = &rows[(*n)++];
        *row = (json_row){.key = key, .base = config, .queue = -1};
        if (of_device) {
            row->base = &config->devices[i];
            (void)snprintf(row->path, sizeof row->path, "device[%" PRId32 "].%s", i, key->path + 7);
        } else {
            (void)snprintf(row->path, sizeof row->path, "%s", key->path);
        }
    }
}

nas_status nas__config_json(nas_ctx *ctx, const nas_config *config, nas_buf *out) {
    size_t n_keys = 0;
    const nas__config_key *keys = nas__config_keys(&n_keys);
    json_row *rows = nas_alloc_array(ctx, n_keys * NAS_DEVICES_MAX, sizeof *rows);
    if (rows == NULL) return NAS_ERR_NOMEM;
    size_t n = 0;
    for (size_t i = 0; i < n_keys; i++)
        add_rows(config, &keys[i], rows, &n);
    qsort(rows, n, sizeof *rows, by_path);
    nas_json j = nas_json_begin(out);
    nas_json_object(&j);
    for (size_t i = 0; i < n; i++) {
        nas_json_key(&j, rows[i].path);
        if (rows[i].queue >= 0) {
            bounds_json(config, strchr(rows[i].key->path, '.') + 1, rows[i].queue, &j);
        } else {
            nas__config_value_json(rows[i].key, config, rows[i].base, &j);
        }
    }
    nas_json_object_end(&j);
    nas_free(rows);
    return nas_buf_status(ctx, out);
}

/* ---- difference ------------------------------------------------------------------------------------------------ */

static const char *leaf_of_device_key(const char *key) {
    const char *end = strncmp(key, "device[", 7) == 0 ? strstr(key, "].") : NULL;
    return end == NULL ? "" : end + 2;
}

static bool is_simulated(const json_t *connect) {
    const char *text = json_string_value(connect);
    return text == NULL || strncmp(text, "simulated", 9) == 0;
}

/* What a resumed study may change: limits of the run, speed, the address of a device, and more trials than before. */
static bool may_change(const char *key, const json_t *old_value, const json_t *new_value) {
    const char *leaf = leaf_of_device_key(key);
    if (strncmp(key, "budget.", 7) == 0 || strcmp(key, "eval.threads") == 0) return true;
    if (strcmp(key, "measure.away_s") == 0 || strcmp(key, "measure.profile") == 0 ||
        strcmp(leaf, "key_file") == 0)
        return true;
    if (strcmp(leaf, "connect") == 0 && old_value != NULL && new_value != NULL)
        return !is_simulated(old_value) && !is_simulated(new_value);
    if (strcmp(key, "search.trials") != 0) return false;
    return json_is_integer(old_value) && json_is_integer(new_value) &&
           json_integer_value(new_value) >= json_integer_value(old_value);
}

static void puts_value(const json_t *value, nas_buf *out) {
    if (value == NULL) {
        nas_buf_puts(out, "(absent)");
        return;
    }
    char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    if (text == NULL) {
        out->failed = true;
    } else {
        nas_buf_puts(out, text);
    }
    free(text); /* jansson's own memory */
}

/* A key that older programs did not have says nothing new while it stands at its default. */
static bool is_new_default(const char *key, const json_t *defaults, const json_t *old_config,
                           const json_t *value) {
    const char *leaf = leaf_of_device_key(key);
    char path[160];
    if (leaf[0] != '\0') { /* of a device that was there */
        (void)snprintf(path, sizeof path, "%.*s].name", (int)strcspn(key, "]"), key);
        if (json_object_get(old_config, path) == NULL) return false;
        (void)snprintf(path, sizeof path, "device[0].%.100s", leaf);
    } else {
        (void)snprintf(path, sizeof path, "%.150s", key);
    }
    return json_equal(json_object_get(defaults, path), value) == 1;
}

/* Keys by the names they have now. */
static nas_status rename_keys(nas_ctx *ctx, json_t *config) {
    for (int i = 0; i < NAS_DEVICES_MAX; i++) {
        char old_key[32], key[32];
        (void)snprintf(old_key, sizeof old_key, "device[%d].cpus", i);
        (void)snprintf(key, sizeof key, "device[%d].cores", i);
        json_t *value = json_object_get(config, old_key);
        if (value == NULL) continue;
        if (json_object_set(config, key, value) != 0)
            return nas_fail(ctx, NAS_ERR_NOMEM, "config: out of memory");
        (void)json_object_del(config, old_key); /* it is there */
    }
    return NAS_OK;
}

/* No bounds on a metric and an empty list of them are the same. */
static bool is_no_bound(const char *key, const json_t *value) {
    return strncmp(key, "constraints.", 12) == 0 && json_is_array(value) &&
           json_array_size(value) == 0;
}

static void diff_key(const char *key, const json_t *a, const json_t *b, nas_buf *out) {
    if ((a == NULL && is_no_bound(key, b)) || (b == NULL && is_no_bound(key, a))) return;
    if (json_equal(a, b) == 1 || may_change(key, a, b)) return;
    nas_buf_printf(out, "%s: ", key);
    puts_value(a, out);
    nas_buf_puts(out, " -> ");
    puts_value(b, out);
    nas_buf_puts(out, "\n");
}

static nas_status parse_object(nas_ctx *ctx, const char *which, const char *text, json_t **out) {
    json_error_t error;
    json_t *parsed = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (parsed == NULL) {
        return nas_fail(ctx, NAS_ERR_PARSE, "%s config: not JSON, line %d: %s", which, error.line,
                        error.text);
    }
    if (!json_is_object(parsed)) {
        json_decref(parsed);
        return nas_fail(ctx, NAS_ERR_PARSE, "%s config: not a JSON object", which);
    }
    *out = parsed;
    return NAS_OK;
}

static int compare_names(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static nas_status diff_objects(nas_ctx *ctx, json_t *a, json_t *b, const json_t *defaults,
                               nas_buf *out) {
    const char **names =
        nas_alloc_array(ctx, json_object_size(a) + json_object_size(b), sizeof *names);
    if (names == NULL) return NAS_ERR_NOMEM;
    size_t n = 0;
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(a, key, value) names[n++] = key;
    json_object_foreach(b, key, value) {
        if (json_object_get(a, key) == NULL) names[n++] = key;
    }
    if (n > 0) qsort(names, n, sizeof *names, compare_names);
    for (size_t i = 0; i < n; i++) {
        json_t *was = json_object_get(a, names[i]), *is = json_object_get(b, names[i]);
        if (was == NULL && is_new_default(names[i], defaults, a, is)) continue;
        diff_key(names[i], was, is, out);
    }
    nas_free(names);
    return nas_buf_status(ctx, out);
}

static nas_status default_object(nas_ctx *ctx, json_t **out) {
    nas_config *config = nas_alloc_array(ctx, 1, sizeof *config);
    nas_buf text = {0};
    if (config == NULL) return NAS_ERR_NOMEM;
    nas_config_default(config);
    nas_status status = nas__config_json(ctx, config, &text);
    if (status == NAS_OK) status = parse_object(ctx, "default", text.data, out);
    nas_buf_deinit(&text);
    nas_free(config);
    return status;
}

nas_status nas_config_diff(nas_ctx *ctx, const char *old_json, const char *new_json, nas_buf *out) {
    json_t *a = NULL, *b = NULL, *defaults = NULL;
    nas_status status = parse_object(ctx, "stored", old_json, &a);
    if (status == NAS_OK) status = parse_object(ctx, "new", new_json, &b);
    if (status == NAS_OK) status = default_object(ctx, &defaults);
    if (status == NAS_OK) status = rename_keys(ctx, a);
    if (status == NAS_OK) status = diff_objects(ctx, a, b, defaults, out);
    json_decref(defaults);
    json_decref(b);
    json_decref(a);
    return status;
}

/* ---- the reference --------------------------------------------------------------------------------------------- */

static void number_text(double value, nas_buf *out) {
    nas_json j = nas_json_begin(out);
    if (value == floor(value) && fabs(value) < 1e16) {
        nas_json_int(&j, (int64_t)value);
    } else {
        nas_json_double(&j, value);
    }
}

static void choices_text(const char *choices, nas_buf *out) {
    for (const char *p = choices; *p != '\0'; p++) {
        if (*p == '|') {
            nas_buf_puts(out, " or ");
        } else {
            nas_buf_append(out, p, 1);
        }
    }
}

static void interval_text(const nas__config_key *key, nas_buf *out) {
    if (key->lo_open) {
        nas_buf_puts(out, "above ");
        number_text(key->lo, out);
        nas_buf_puts(out, ", at most ");
    } else {
        number_text(key->lo, out);
        nas_buf_puts(out, "..");
    }
    number_text(key->hi, out);
}

void nas__config_range_text(const nas__config_key *key, nas_buf *out) {
    switch (key->type) {
    case NAS__KEY_TEXT:
        if (key->choices != NULL) {
            choices_text(key->choices, out);
        } else {
            nas_buf_printf(out, "at most %zu bytes", key->size - 1);
        }
        break;
    case NAS__KEY_INTEGER:
    case NAS__KEY_NUMBER: interval_text(key, out); break;
    case NAS__KEY_FLAG: nas_buf_puts(out, "true, false"); break;
    case NAS__KEY_RANGE:
        nas_buf_puts(out, "[min, max, step], each ");
        interval_text(key, out);
        break;
    case NAS__KEY_KERNELS:
        nas_buf_printf(out, "1 to %d odd sizes, each ", NAS_KERNEL_CHOICES_MAX);
        interval_text(key, out);
        break;
    case NAS__KEY_FREQUENCY:
        nas_buf_puts(out, "\"max\", or MHz of each cluster, the smallest first: [1800, 2400]");
        break;
    case NAS__KEY_METRICS: nas_buf_puts(out, "list of metrics"); break;
    case NAS__KEY_BOUND:
        nas_buf_puts(out, "\"<= X\", \">= X\", \"<= P%\", or a list of these");
        break;
    }
}

static const char *type_text(nas__key_type type) {
    switch (type) {
    case NAS__KEY_TEXT: return "text";
    case NAS__KEY_INTEGER: return "integer";
    case NAS__KEY_NUMBER: return "number";
    case NAS__KEY_FLAG: return "true/false";
    case NAS__KEY_RANGE:
    case NAS__KEY_KERNELS: return "list of integers";
    case NAS__KEY_FREQUENCY: return "text or list of integers";
    case NAS__KEY_METRICS: return "list of texts";
    case NAS__KEY_BOUND: return "text or list of texts";
    }
    return "unknown";
}

static void default_text(const nas__config_key *key, const nas_config *defaults, nas_buf *out) {
    if (key->shown_default != NULL) {
        nas_buf_puts(out, key->shown_default);
        return;
    }
    const void *base =
        nas__config_is_device_key(key) ? (const void *)&defaults->devices[0] : defaults;
    nas_json j = nas_json_begin(out);
    nas_buf_puts(out, "`");
    nas__config_value_json(key, defaults, base, &j);
    nas_buf_puts(out, "`");
}

static void reference_section(const nas__config_section *section, const nas_config *defaults,
                              nas_buf *out) {
    const bool table_list = strcmp(section->name, "device") == 0;
    nas_buf_printf(out, "### %s%s%s - %s\n\n", table_list ? "[[" : "[", section->name,
                   table_list ? "]]" : "]", section->doc);
    nas_buf_puts(out,
                 "| key | type | default | range | unit | meaning |\n|---|---|---|---|---|---|\n");
    size_t n = 0;
    const nas__config_key *keys = nas__config_keys(&n);
    const size_t len = strlen(section->name);
    for (size_t i = 0; i < n; i++) {
        const nas__config_key *key = &keys[i];
        if (strncmp(key->path, section->name, len) != 0 || key->path[len] != '.') continue;
        nas_buf_printf(out, "| `%s` | %s | ", key->path + len + 1, type_text(key->type));
        default_text(key, defaults, out);
        nas_buf_puts(out, " | ");
        nas__config_range_text(key, out);
        nas_buf_printf(out, " | %s | %s |\n", key->unit, key->doc);
    }
    nas_buf_puts(out, "\n");
}

nas_status nas_config_reference(nas_ctx *ctx, nas_buf *out) {
    nas_config *defaults = nas_alloc_array(ctx, 1, sizeof *defaults);
    if (defaults == NULL) return NAS_ERR_NOMEM;
    nas_config_default(defaults);
    size_t n = 0;
    const nas__config_section *sections = nas__config_sections(&n);
    for (size_t i = 0; i < n; i++)
        reference_section(&sections[i], defaults, out);
    nas_free(defaults);
    return nas_buf_status(ctx, out);
}
