/* config_assign.c - entries of the document into the fields of nas_config. Each value is checked against its row of the
 * key table; a wrong one is recorded as a problem and the field keeps its default, so that every later mistake of the
 * file is still found. */
#include "search/config_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SUGGESTIONS_MAX = 1000 }; /* a hostile file gets no more look-ups than this */

/* ---- where an entry belongs ------------------------------------------------------------------------------------ */

/* "device[2].threads" is root "device", index 2, rest "threads". */
typedef struct location {
    char root[64];    /* "" when too long or quoted: such a section does not exist */
    int32_t index;    /* -1 = none */
    const char *rest; /* NULL = the section itself */
} location;

/* End of the first component; quoted ones may hold dots. */
static const char *component_end(const char *path) {
    const char *p = path;
    if (*p != '"') return p + strcspn(p, ".");
    for (p++; *p != '\0' && *p != '"'; p++) {
        if (*p == '\\' && p[1] != '\0') p++;
    }
    return p + strcspn(p, ".");
}

static location locate(const char *path) {
    location at = {.index = -1};
    const char *end = component_end(path);
    size_t len = (size_t)(end - path);
    const char *bracket = path[0] == '"' ? NULL : memchr(path, '[', len);
    if (bracket != NULL) {
        len = (size_t)(bracket - path);
        const long index = strtol(bracket + 1, NULL, 10);
        at.index = index < 0 || index > INT32_MAX ? INT32_MAX : (int32_t)index;
    }
    if (len < sizeof at.root && path[0] != '"') memcpy(at.root, path, len);
    at.rest = *end == '.' ? end + 1 : NULL;
    return at;
}

static bool from_command_line(const nas__config_entry *e) {
    return e->key.line == 0;
}

/* ---- what is wrong with a name --------------------------------------------------------------------------------- */

static void unknown_section(nas__config_doc *doc, const nas__config_entry *e) {
    const bool table = e->value.type == NAS__TOML_TABLE;
    const char *what = table ? "unknown section" : "unknown key outside of any section";
    const char *near = NULL, *key = NULL;
    if (doc->n_problems < SUGGESTIONS_MAX) {
        near = nas__config_nearest_section(locate(e->path).root);
        key = nas__config_nearest_key(e->path);
    }
    if (near != NULL) {
        nas__config_problem_add(doc, e->key, e->path, "%s (did you mean [%s]?)", what, near);
    } else if (key != NULL) {
        nas__config_problem_add(doc, e->key, e->path, "%s (did you mean %s?)", what, key);
    } else {
        nas__config_problem_add(
            doc, e->key, e->path,
            "%s (sections: study, task, model, data, space, compress, eval, search, "
            "objectives, constraints, device, measure, compile, budget)",
            what);
    }
}

static void unknown_key(nas__config_doc *doc, const nas__config_entry *e, const char *path) {
    if (strcmp(path, "device.cpus") == 0) {
        nas__config_problem_add(doc, e->key, e->path,
                                "is called cores now: \"big\", \"little\", \"0-3\" or \"0,1\"");
        return;
    }
    const char *near = doc->n_problems < SUGGESTIONS_MAX ? nas__config_nearest_key(path) : NULL;
    if (near != NULL) {
        nas__config_problem_add(doc, e->key, e->path, "unknown key (did you mean %s?)", near);
        return;
    }
    nas_buf names = {0};
    size_t n = 0;
    const nas__config_key *keys = nas__config_keys(&n);
    const size_t len = strcspn(path, ".");
    for (size_t i = 0; i < n && doc->n_problems < SUGGESTIONS_MAX; i++) {
        if (strncmp(keys[i].path, path, len + 1) != 0) continue;
        nas_buf_printf(&names, "%s%s", names.len == 0 ? "" : ", ", keys[i].path + len + 1);
    }
    nas__config_problem_add(doc, e->key, e->path, "unknown key (keys of [%.*s]: %s)", (int)len,
                            path, names.data == NULL ? "see configs/README.md" : names.data);
    nas_buf_deinit(&names);
}

/* A section written as something else than a section. */
static void check_section(nas__config_doc *doc, const nas__config_entry *e, const location *at) {
    const bool device = strcmp(at->root, "device") == 0;
    const bool table = e->value.type == NAS__TOML_TABLE;
    if (!nas__config_is_section(at->root, strlen(at->root))) {
        if (at->index <= 0) unknown_section(doc, e);
    } else if (device && table && at->index < 0) {
        nas__config_problem_add(doc, e->key, e->path, "devices are a list: write [[device]]");
    } else if (device && table && at->index == NAS_DEVICES_MAX) {
        nas__config_problem_add(doc, e->key, e->path, "at most %d devices", NAS_DEVICES_MAX);
    } else if (device && !table) {
        nas__config_problem_add(
            doc, e->key, e->path,
            "write one or more [[device]] tables, or leave it out for the local device");
    } else if (!device && at->index == 0) {
        nas__config_problem_add(doc, e->key, e->path, "not a list: write [%s] once", at->root);
    } else if (!table) {
        nas__config_problem_add(doc, e->key, e->path, "is a section: write [%s] and its keys below",
                                at->root);
    }
}

/* ---- what is wrong with a value -------------------------------------------------------------------------------- */

/* "[4, 3, ...]" of a list's integers, "a list of 5" when it holds anything else. */
static const char *seen_list(nas__config_doc *doc, const nas__toml_value *list) {
    enum { SHOWN_ITEMS_MAX = 8 };
    nas_buf text = {0};
    nas_buf_puts(&text, "[");
    bool plain = true;
    for (size_t i = 0; i < list->n_items && i < SHOWN_ITEMS_MAX; i++) {
        plain = plain && list->items[i].type == NAS__TOML_INTEGER;
        nas_buf_printf(&text, "%s%" PRId64, i == 0 ? "" : ", ", list->items[i].integer);
    }
    nas_buf_puts(&text, list->n_items > SHOWN_ITEMS_MAX ? ", ...]" : "]");
    const char *kept = NULL;
    if (!plain) {
        kept = nas_arena_printf(doc->ctx, doc->arena, "a list of %zu", list->n_items);
    } else if (nas_buf_status(doc->ctx, &text) == NAS_OK) {
        kept = nas_arena_printf(doc->ctx, doc->arena, "%s", text.data);
    }
    nas_buf_deinit(&text);
    return kept;
}

static const char *seen_text(nas__config_doc *doc, const nas__toml_value *value) {
    const char *text = "";
    switch (value->type) {
    case NAS__TOML_TEXT:
        text =
            nas_arena_printf(doc->ctx, doc->arena, "\"%s\"", nas__config_shown(doc, value->text));
        break;
    case NAS__TOML_INTEGER:
        text = nas_arena_printf(doc->ctx, doc->arena, "%" PRId64, value->integer);
        break;
    case NAS__TOML_NUMBER:
        text = nas_arena_printf(doc->ctx, doc->arena, "%.15g", value->number);
        break;
    case NAS__TOML_FLAG: return value->flag ? "true" : "false";
    case NAS__TOML_LIST: text = seen_list(doc, value); break;
    case NAS__TOML_TABLE: return "a table";
    case NAS__TOML_DATE: return "a date or time";
    }
    if (text == NULL) doc->failed = true;
    return text == NULL ? "" : text;
}

static const char *kind_text(nas__key_type type) {
    switch (type) {
    case NAS__KEY_TEXT: return "text in quotes: ";
    case NAS__KEY_INTEGER: return "a whole number, ";
    case NAS__KEY_NUMBER: return "a number, ";
    case NAS__KEY_FLAG:
    case NAS__KEY_RANGE:
    case NAS__KEY_KERNELS:
    case NAS__KEY_FREQUENCY:
    case NAS__KEY_METRICS:
    case NAS__KEY_BOUND: return "";
    }
    return "";
}

/* "must be a whole number, 1..64 threads, not 0" */
static void wrong_value(nas__config_doc *doc, const nas__config_entry *e,
                        const nas__config_key *key, const nas__toml_value *value) {
    nas_buf range = {0};
    nas__config_range_text(key, &range);
    const nas__config_place place =
        from_command_line(e) ? e->key : (nas__config_place){value->line, value->column};
    nas__config_problem_add(doc, place, e->path, "must be %s%s%s%s, not %s", kind_text(key->type),
                            range.data == NULL ? "" : range.data, key->unit[0] == '\0' ? "" : " ",
                            key->unit, seen_text(doc, value));
    nas_buf_deinit(&range);
}

/* ---- one value of each type ------------------------------------------------------------------------------------ */

static bool in_range(const nas__config_key *key, double value) {
    return isfinite(value) && value <= key->hi &&
           (key->lo_open ? value > key->lo : value >= key->lo);
}

static bool is_choice(const char *choices, const char *text) {
    const size_t len = strlen(text);
    for (const char *p = choices; p != NULL;) {
        const char *end = p + strcspn(p, "|");
        if ((size_t)(end - p) == len && memcmp(p, text, len) == 0) return true;
        p = *end == '|' ? end + 1 : NULL;
    }
    return false;
}

static bool set_text(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_TEXT || value->text_len >= key->size) return false;
    if (strlen(value->text) != value->text_len) return false; /* a NUL inside */
    if (key->choices != NULL && !is_choice(key->choices, value->text)) return false;
    memset(base + key->offset, 0, key->size);
    memcpy(base + key->offset, value->text, value->text_len);
    return true;
}

static bool set_integer(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_INTEGER || !in_range(key, value->number)) return false;
    const int64_t wide = value->integer;
    const int32_t narrow = (int32_t)wide; /* hi of 32-bit keys is below INT32_MAX */
    if (key->size == sizeof narrow) {
        memcpy(base + key->offset, &narrow, sizeof narrow);
    } else {
        memcpy(base + key->offset, &wide, sizeof wide);
    }
    return true;
}

static bool set_number(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_NUMBER && value->type != NAS__TOML_INTEGER) return false;
    if (!in_range(key, value->number)) return false;
    memcpy(base + key->offset, &value->number, sizeof value->number);
    return true;
}

static bool set_flag(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_FLAG) return false;
    memcpy(base + key->offset, &value->flag, sizeof value->flag);
    return true;
}

static bool set_range(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_LIST || value->n_items != 3) return false;
    int32_t v[3];
    for (size_t i = 0; i < 3; i++) {
        if (value->items[i].type != NAS__TOML_INTEGER || !in_range(key, value->items[i].number))
            return false;
        v[i] = (int32_t)value->items[i].integer;
    }
    const nas_range range = {.min = v[0], .max = v[1], .step = v[2]};
    memcpy(base + key->offset, &range, sizeof range);
    return true;
}

static bool set_kernels(const nas__config_key *key, const nas__toml_value *value, char *base) {
    if (value->type != NAS__TOML_LIST || value->n_items < 1 ||
        value->n_items > NAS_KERNEL_CHOICES_MAX) {
        return false;
    }
    int32_t kernels[NAS_KERNEL_CHOICES_MAX] = {0};
    for (size_t i = 0; i < value->n_items; i++) {
        const nas__toml_value *item = &value->items[i];
        if (item->type != NAS__TOML_INTEGER || !in_range(key, item->number) ||
            item->integer % 2 == 0) {
            return false;
        }
        kernels[i] = (int32_t)item->integer;
    }
    const int32_t n = (int32_t)value->n_items;
    memcpy(base + key->offset, kernels, sizeof kernels);
    memcpy(base + key->count_offset, &n, sizeof n);
    return true;
}

/* "max" or MHz of each cluster; kept as the text that a device's options take. */
static bool set_frequency(const nas__config_key *key, const nas__toml_value *value, char *base) {
    char text[64] = "";
    _Static_assert(sizeof text == sizeof((nas_config_device *)0)->frequency, "room of the field");
    if (value->type == NAS__TOML_TEXT) {
        if (strcmp(value->text, "max") != 0 && value->text_len != 0) return false;
        (void)snprintf(text, sizeof text, "%s", value->text);
    } else if (value->type == NAS__TOML_LIST && value->n_items >= 1 && value->n_items <= 8) {
        size_t len = 0;
        for (size_t i = 0; i < value->n_items; i++) {
            const nas__toml_value *item = &value->items[i];
            if (item->type != NAS__TOML_INTEGER || !in_range(key, item->number)) return false;
            const int n = snprintf(text + len, sizeof text - len, "%s%" PRId64, i == 0 ? "" : ",",
                                   item->integer);
            len += (size_t)n; /* 8 x 6 bytes at most */
        }
    } else {
        return false;
    }
    memcpy(base + key->offset, text, sizeof text);
    return true;
}

static void assign_value(nas__config_doc *doc, const nas__config_entry *e,
                         const nas__config_key *key, char *base) {
    bool fine = true;
    switch (key->type) {
    case NAS__KEY_TEXT: fine = set_text(key, &e->value, base); break;
    case NAS__KEY_INTEGER: fine = set_integer(key, &e->value, base); break;
    case NAS__KEY_NUMBER: fine = set_number(key, &e->value, base); break;
    case NAS__KEY_FLAG: fine = set_flag(key, &e->value, base); break;
    case NAS__KEY_RANGE: fine = set_range(key, &e->value, base); break;
    case NAS__KEY_KERNELS: fine = set_kernels(key, &e->value, base); break;
    case NAS__KEY_FREQUENCY: fine = set_frequency(key, &e->value, base); break;
    case NAS__KEY_METRICS:      /* once the devices are known, by assign_objectives */
    case NAS__KEY_BOUND: break; /* and by assign_bounds */
    }
    if (!fine) wrong_value(doc, e, key, &e->value);
}

/* ---- the document ---------------------------------------------------------------------------------------------- */

/* Bounds name a metric, maybe with its device, which TOML wants in quotes: constraints."latency_p90_ms@s21" is
 * constraints.latency_p90_ms. False when the path is too long for any key. */
static bool table_path(const location *at, char path[160], const char **metric) {
    const char *rest = at->rest;
    size_t len = strlen(rest);
    const bool bound = strcmp(at->root, "constraints") == 0;
    if (bound && len >= 2 && rest[0] == '"' && rest[len - 1] == '"' && strchr(rest, '@') != NULL) {
        rest++;
        len -= 2;
    }
    const int n = snprintf(path, 160, "%s.%.*s", at->root, (int)(len < 160 ? len : 160), rest);
    if (n < 0 || n >= 160) return false;
    *metric = path + strlen(at->root) + 1;
    return true;
}

static const nas__config_key *find_bound_or_key(char path[160], char metric_text[160],
                                                const char *metric) {
    (void)snprintf(metric_text, 160, "%s", metric);
    char *device = strncmp(path, "constraints.", 12) == 0 ? strchr(path, '@') : NULL;
    if (device != NULL) *device = '\0';
    return nas__config_key_find(path);
}

static void assign_key(nas__config_doc *doc, const nas__config_entry *e, const location *at,
                       nas_config *config) {
    char path[160], metric_text[160];
    const char *metric = NULL;
    const nas__config_key *key =
        table_path(at, path, &metric) ? find_bound_or_key(path, metric_text, metric) : NULL;
    const bool nested = *component_end(at->rest) == '.';
    if (key == NULL) {
        /* The table around a nested key was reported already, unless it stands on the command line. */
        if (!nested || from_command_line(e)) unknown_key(doc, e, path);
        return;
    }
    if (e->value.type == NAS__TOML_TABLE) {
        wrong_value(doc, e, key, &e->value);
        return;
    }
    const bool device = nas__config_is_device_key(key);
    assign_value(doc, e, key, device ? (char *)&config->devices[at->index] : (char *)config);
}

static void assign_entry(nas__config_doc *doc, const nas__config_entry *e, nas_config *config) {
    const location at = locate(e->path);
    if (at.rest == NULL) {
        check_section(doc, e, &at);
        return;
    }
    const bool device = strcmp(at.root, "device") == 0;
    if (!nas__config_is_section(at.root, strlen(at.root)) || (device != (at.index >= 0))) {
        if (from_command_line(e)) unknown_section(doc, e);
        return; /* in the file, its section was reported */
    }
    if (at.index < NAS_DEVICES_MAX) assign_key(doc, e, &at, config);
}

/* The bounds, now that it is known which devices there are. */
static void assign_bounds(nas__config_doc *doc, nas_config *config) {
    for (size_t i = 0; i < doc->n_entries && !doc->failed; i++) {
        const nas__config_entry *e = &doc->entries[i];
        const location at = locate(e->path);
        char path[160], metric_text[160];
        const char *metric = NULL;
        if (e->dropped || at.rest == NULL || at.index >= 0 || strcmp(at.root, "constraints") != 0 ||
            e->value.type == NAS__TOML_TABLE || !table_path(&at, path, &metric))
            continue;
        if (find_bound_or_key(path, metric_text, metric) == NULL) continue; /* reported */
        nas__config_bounds(doc, e, metric_text, config);
    }
}

/* The default minimises "the" latency, which must be chosen where there are several. */
static void check_default_objectives(nas__config_doc *doc, const nas_config *config) {
    if (config->n_queues < 2) return;
    nas__config_problem_add(doc, nas__config_place_of(doc, "objectives.minimise"),
                            "objectives.minimise",
                            "%" PRId32 " devices or pools: say whose latency is minimised, such as "
                            "\"latency_p50_ms@%s\"",
                            config->n_queues, config->queues[0]);
}

/* When either list is given the two of them are all there is; the maximised come first. */
static void assign_objectives(nas__config_doc *doc, nas_config *config) {
    static const char *const lists[] = {"objectives.maximise", "objectives.minimise"};
    if (!nas__config_has(doc, lists[0]) && !nas__config_has(doc, lists[1])) {
        check_default_objectives(doc, config);
        return;
    }
    config->n_objectives = 0;
    for (int i = 0; i < 2; i++) {
        for (size_t k = 0; k < doc->n_entries; k++) {
            const nas__config_entry *e = &doc->entries[k];
            if (!e->dropped && strcmp(e->path, lists[i]) == 0)
                nas__config_metrics(doc, e, i == 0, config);
        }
    }
}

/* Names of devices that have none: by what they are, by number for remote ones. */
static void name_devices(nas__config_doc *doc, nas_config *config) {
    for (int32_t i = 0; i < config->n_devices; i++) {
        nas_config_device *device = &config->devices[i];
        char key[32];
        (void)snprintf(key, sizeof key, "device[%" PRId32 "].name", i);
        if (nas__config_has(doc, key)) continue;
        const bool plain =
            strcmp(device->connect, "local") == 0 || strcmp(device->connect, "simulated") == 0;
        if (plain) {
            (void)snprintf(device->name, sizeof device->name, "%.32s", device->connect);
        } else {
            (void)snprintf(device->name, sizeof device->name, "device%" PRId32, i);
        }
    }
}

/* One queue for each pool and for each device that is in none, in the order of the file. */
static void make_queues(nas_config *config) {
    config->n_queues = 0;
    for (int32_t i = 0; i < config->n_devices; i++) {
        nas_config_device *device = &config->devices[i];
        const char *name = device->pool[0] == '\0' ? device->name : device->pool;
        int32_t q = 0;
        while (q < config->n_queues && strcmp(config->queues[q], name) != 0)
            q++;
        device->queue = q;
        if (q < config->n_queues) continue;
        memcpy(config->queues[q], name, strlen(name) + 1); /* both have the same room */
        config->n_queues++;
    }
}

void nas__config_assign(nas__config_doc *doc, nas_config *config) {
    const int32_t devices = nas__config_doc_devices(doc);
    if (devices > 0) config->n_devices = devices < NAS_DEVICES_MAX ? devices : NAS_DEVICES_MAX;
    for (int32_t i = 0; i < config->n_devices; i++)
        config->devices[i] = nas__config_device_default();
    for (size_t i = 0; i < doc->n_entries && !doc->failed; i++) {
        if (!doc->entries[i].dropped) assign_entry(doc, &doc->entries[i], config);
    }
    name_devices(doc, config);
    make_queues(config);
    assign_bounds(doc, config);
    assign_objectives(doc, config);
    if (config->study.dir[0] == '\0') {
        (void)snprintf(config->study.dir, sizeof config->study.dir, "runs/%s", config->study.name);
    }
    config->search.options.n_objectives = config->n_objectives;
    config->space.scale = config->task.scale;
    config->space.lr_height = config->task.out_height / config->task.scale;
    config->space.lr_width = config->task.out_width / config->task.scale;
}
