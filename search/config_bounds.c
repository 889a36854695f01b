/* config_bounds.c - metrics in a config: lists of objectives, and the grammar of bounds
 *     bound := ("<=" | ">=") number ["%"]   |   number "%"   (short for "<= number %")
 * The unit is the metric's own, it is part of the key's name. A latency is that of one device: "@name" says of which. */
#include "search/config_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static nas__config_place item_place(const nas__config_entry *e, const nas__toml_value *item) {
    return e->key.line == 0 ? e->key : (nas__config_place){item->line, item->column};
}

/* A single text counts as a list of one. */
static const nas__toml_value *items_of(const nas__config_entry *e, size_t *n) {
    if (e->value.type == NAS__TOML_LIST) {
        *n = e->value.n_items;
        return e->value.items;
    }
    *n = 1;
    return &e->value;
}

/* ---- objectives ------------------------------------------------------------------------------------------------ */

/* Where a latency is measured, `device` being what follows the '@' (NULL when nothing does). False with a problem. */
static bool find_queue(nas__config_doc *doc, nas__config_place place, const char *path,
                       nas_metric metric, const char *device, const nas_config *config,
                       int32_t *queue) {
    const char *name = nas_metric_name(metric);
    *queue = 0;
    if (!nas_metric_is_timed(metric)) {
        if (device == NULL) return true;
        nas__config_problem_add(doc, place, path, "%s is the same on every device: remove \"@%s\"",
                                name, nas__config_shown(doc, device));
        return false;
    }
    if (device == NULL && config->n_queues == 1) return true;
    nas_buf choices = {0};
    for (int32_t i = 0; i < config->n_queues; i++) {
        if (device != NULL && strcmp(device, config->queues[i]) == 0) {
            nas_buf_deinit(&choices);
            *queue = i;
            return true;
        }
        nas_buf_printf(&choices, "%s%s@%s", i == 0 ? "" : " or ", name, config->queues[i]);
    }
    const char *list = choices.data == NULL ? "" : choices.data;
    if (device == NULL) {
        nas__config_problem_add(doc, place, path, "%s is measured in %" PRId32 " places: write %s",
                                name, config->n_queues, list);
    } else {
        nas__config_problem_add(doc, place, path, "no device or pool is called \"%s\": write %s",
                                nas__config_shown(doc, device), list);
    }
    nas_buf_deinit(&choices);
    return false;
}

/* "latency_p50_ms@s21" into its two parts; the copy lives in the arena. NULL on no memory. */
static const char *split_metric(nas__config_doc *doc, const char *text, const char **device) {
    char *copy = nas_arena_printf(doc->ctx, doc->arena, "%s", text);
    *device = NULL;
    if (copy == NULL) {
        doc->failed = true;
        return NULL;
    }
    char *at = strchr(copy, '@');
    if (at != NULL) {
        *at = '\0';
        *device = at + 1;
    }
    return copy;
}

static void unknown_metric(nas__config_doc *doc, const nas__config_entry *e,
                           nas__config_place place, const char *text) {
    const char *near = nas__config_nearest_metric(text);
    nas__config_problem_add(
        doc, place, e->path, "unknown metric \"%s\" (%s%s)", nas__config_shown(doc, text),
        near == NULL ? "configs/README.md lists them" : "did you mean ", near == NULL ? "" : near);
}

static void add_metric(nas__config_doc *doc, const nas__config_entry *e,
                       const nas__toml_value *item, bool maximise, nas_config *config) {
    const nas__config_place place = item_place(e, item);
    nas_objective objective = {0};
    if (item->type != NAS__TOML_TEXT) {
        nas__config_problem_add(doc, place, e->path, "must be a list of metrics in quotes");
        return;
    }
    const char *device = NULL;
    const char *name = split_metric(doc, item->text, &device);
    if (name == NULL) return;
    if (strlen(item->text) != item->text_len || !nas_metric_from_name(name, &objective.metric)) {
        unknown_metric(doc, e, place, name);
        return;
    }
    const char *shown = nas__config_shown(doc, item->text);
    if (nas_metric_maximise(objective.metric) != maximise) {
        nas__config_problem_add(doc, place, e->path, "%s of %s is better: move it to objectives.%s",
                                maximise ? "less" : "more", shown,
                                maximise ? "minimise" : "maximise");
        return;
    }
    if (!find_queue(doc, place, e->path, objective.metric, device, config, &objective.queue))
        return;
    for (int32_t i = 0; i < config->n_objectives; i++) {
        if (config->objectives[i].metric != objective.metric ||
            config->objectives[i].queue != objective.queue)
            continue;
        nas__config_problem_add(doc, place, e->path, "\"%s\" is given twice", shown);
        return;
    }
    if (config->n_objectives == NAS_OBJECTIVES_MAX) {
        nas__config_problem_add(doc, place, e->path,
                                "more than %d objectives (make one a constraint)",
                                NAS_OBJECTIVES_MAX);
        return;
    }
    config->objectives[config->n_objectives++] = objective;
}

void nas__config_metrics(nas__config_doc *doc, const nas__config_entry *e, bool maximise,
                         nas_config *config) {
    if (e->value.type == NAS__TOML_TABLE) return; /* reported with the other wrong types */
    size_t n = 0;
    const nas__toml_value *items = items_of(e, &n);
    for (size_t i = 0; i < n && !doc->failed; i++)
        add_metric(doc, e, &items[i], maximise, config);
}

/* ---- bounds ---------------------------------------------------------------------------------------------------- */

static const char *skip_space(const char *p) {
    return p + strspn(p, " \t");
}

/* Decimal only: no hex, no "nan", no "inf". */
static bool read_number(const char **p, double *out) {
    const size_t len = strspn(*p, "0123456789.+-eE");
    if (len == 0) return false;
    char *end = NULL;
    const double value = strtod(*p, &end);
    if (end != *p + len || !isfinite(value)) return false;
    *p = end;
    *out = value;
    return true;
}

/* parse_bound - NULL when fine, otherwise what is wrong. */
static const char *parse_bound(const char *text, nas_constraint *out) {
    static const char *const grammar = "write it as \"<= 33\", \">= 30.5\" or \"<= 60%\"";
    const char *p = skip_space(text);
    const bool has_operator = strncmp(p, "<=", 2) == 0 || strncmp(p, ">=", 2) == 0;
    out->at_most = !has_operator || p[0] == '<';
    if (has_operator) p = skip_space(p + 2);
    if (!read_number(&p, &out->bound)) return grammar;
    p = skip_space(p);
    out->is_percent = *p == '%';
    if (out->is_percent) p = skip_space(p + 1);
    if (*p != '\0') return "the number must end the text: the unit is in the key's name";
    if (!has_operator && !out->is_percent) return grammar;
    return NULL;
}

/* check_bound - is the value one the metric can have? NULL when fine. */
static const char *check_bound(const nas_constraint *c) {
    if (c->is_percent) {
        if (nas_metric_maximise(c->metric)) {
            return "percent of the full-width supernet makes sense only where less is better: give "
                   "a value";
        }
        return c->bound > 0 && c->bound <= 1000 ? NULL : "percent must be above 0, at most 1000";
    }
    switch (c->metric) {
    case NAS_METRIC_PSNR_Y: return c->bound >= 0 && c->bound <= 100 ? NULL : "dB must be 0..100";
    case NAS_METRIC_TOP1:
        return c->bound >= 0 && c->bound <= 100 ? NULL : "percent of images: 0..100";
    case NAS_METRIC_SSIM_Y: return c->bound >= -1 && c->bound <= 1 ? NULL : "must be -1..1";
    case NAS_METRIC_LATENCY_P50_MS:
    case NAS_METRIC_LATENCY_P90_MS:
    case NAS_METRIC_MACS:
    case NAS_METRIC_PARAMS:
    case NAS_METRIC_WEIGHT_BYTES:
    case NAS_METRIC_BOPS:
    case NAS_METRIC_PEAK_ACTIVATION_BYTES: return c->bound > 0 ? NULL : "must be above 0";
    case NAS_METRIC_COUNT: break;
    }
    return "unknown metric";
}

static void add_bound(nas__config_doc *doc, const nas__config_entry *e, const nas__toml_value *item,
                      nas_metric metric, int32_t queue, nas_config *config) {
    const nas__config_place place = item_place(e, item);
    if (item->type != NAS__TOML_TEXT) {
        nas__config_problem_add(
            doc, place, e->path,
            "must be text in quotes such as \"<= 33\", or a list of such texts");
        return;
    }
    nas_constraint bound = {.metric = metric, .queue = queue};
    const char *problem =
        strlen(item->text) == item->text_len ? parse_bound(item->text, &bound) : "not text";
    if (problem == NULL) problem = check_bound(&bound);
    if (problem != NULL) {
        nas__config_problem_add(doc, place, e->path, "\"%s\": %s",
                                nas__config_shown(doc, item->text), problem);
        return;
    }
    if (config->n_constraints == NAS_CONSTRAINTS_MAX) {
        nas__config_problem_add(doc, place, e->path, "more than %d bounds in all",
                                NAS_CONSTRAINTS_MAX);
        return;
    }
    config->constraints[config->n_constraints++] = bound;
}

void nas__config_bounds(nas__config_doc *doc, const nas__config_entry *e, const char *name,
                        nas_config *config) {
    nas_metric metric = NAS_METRIC_PSNR_Y;
    const char *device = NULL;
    const char *plain = split_metric(doc, name, &device);
    int32_t queue = 0;
    if (plain == NULL || !nas_metric_from_name(plain, &metric)) return; /* no row of the table */
    if (!find_queue(doc, e->key, e->path, metric, device, config, &queue)) return;
    size_t n = 0;
    const nas__toml_value *items = items_of(e, &n);
    for (size_t i = 0; i < n && !doc->failed; i++)
        add_bound(doc, e, &items[i], metric, queue, config);
}
