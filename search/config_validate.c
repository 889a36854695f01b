/* config_validate.c - rules between keys: each names the key to change, stands where that key stands, and says why.
 * Values are already within the ranges of the key table. */
#include "search/config_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM(doc, path, ...)                                                                    \
    nas__config_problem_add((doc), nas__config_place_of((doc), (path)), (path), __VA_ARGS__)

/* The key of a rule that the file spells out; the other one when only that is there. */
static const char *given(const nas__config_doc *doc, const char *first, const char *second) {
    return nas__config_has(doc, first) || !nas__config_has(doc, second) ? first : second;
}

/* ---- study, task, space, training ------------------------------------------------------------------------------ */

bool nas__config_is_plain_name(const char *name) {
    static const char *const legal =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-";
    return name[0] != '\0' && name[0] != '.' && name[0] != '-' &&
           strspn(name, legal) == strlen(name);
}

static void check_study(nas__config_doc *doc, const nas_config *c) {
    if (nas__config_is_plain_name(c->study.name)) return;
    PROBLEM(doc, "study.name",
            "\"%s\" must be letters, digits, '.', '_', '-' and begin with a letter or digit",
            nas__config_shown(doc, c->study.name));
}

static void check_extent(nas__config_doc *doc, const char *path, int32_t extent, int32_t scale) {
    const int32_t rest = extent % scale;
    if (rest == 0) return;
    PROBLEM(doc, given(doc, path, "task.scale"),
            "%s = %" PRId32 " is not a multiple of task.scale = %" PRId32 " (nearest: %" PRId32
            " or %" PRId32 ")",
            path, extent, scale, extent - rest, extent - rest + scale);
}

static void check_range(nas__config_doc *doc, const char *path, const nas_range *r) {
    if (r->min > r->max) {
        PROBLEM(doc, path, "[%" PRId32 ", %" PRId32 ", %" PRId32 "] is empty: min is above max",
                r->min, r->max, r->step);
    } else if ((r->max - r->min) % r->step != 0) {
        const int32_t last = r->max - (r->max - r->min) % r->step;
        PROBLEM(doc, path,
                "[%" PRId32 ", %" PRId32 ", %" PRId32
                "] never reaches its max: the last step is %" PRId32,
                r->min, r->max, r->step, last);
    }
}

static void check_kernels(nas__config_doc *doc, const char *path, int32_t n,
                          const int32_t *kernels) {
    for (int32_t i = 1; i < n; i++) {
        if (kernels[i] > kernels[i - 1]) continue;
        PROBLEM(doc, path, "sizes must rise, each once: %" PRId32 " comes after %" PRId32,
                kernels[i], kernels[i - 1]);
        return;
    }
}

static void check_space(nas__config_doc *doc, const nas_config *c) {
    const nas_sr_options *s = &c->space;
    if (s->blocks_min > s->blocks_max) {
        PROBLEM(doc, given(doc, "space.blocks_min", "space.blocks_max"),
                "space.blocks_min = %" PRId32 " is above space.blocks_max = %" PRId32,
                s->blocks_min, s->blocks_max);
    }
    check_range(doc, "space.residual", &s->residual);
    check_range(doc, "space.expand", &s->expand);
    check_range(doc, "space.project", &s->project);
    check_kernels(doc, "space.head_kernels", s->n_head_kernels, s->head_kernels);
    check_kernels(doc, "space.tail_kernels", s->n_tail_kernels, s->tail_kernels);
    check_kernels(doc, "space.skip_kernels", s->n_skip_kernels, s->skip_kernels);
}

static void check_training(nas__config_doc *doc, const nas_config *c) {
    const int32_t patch = c->eval.patch * c->task.scale;
    if (c->data.train[0] == '\0' && patch > c->data.leaves_size) {
        PROBLEM(doc, given(doc, "eval.patch", "data.leaves_size"),
                "patches of %" PRId32 " x %" PRId32
                " upscaled pixels do not fit data.leaves_size = %" PRId32
                " (lower eval.patch or raise data.leaves_size)",
                patch, patch, c->data.leaves_size);
    }
    if (c->search.options.tournament > c->search.options.population) {
        PROBLEM(doc, given(doc, "search.tournament", "search.population"),
                "search.tournament = %" PRId32 " is above search.population = %" PRId32,
                c->search.options.tournament, c->search.options.population);
    }
}

/* ---- objectives and bounds ------------------------------------------------------------------------------------- */

static void check_objectives(nas__config_doc *doc, const nas_config *c) {
    if (c->n_objectives > 0 || doc->n_problems > 0) return; /* an unknown metric was reported */
    PROBLEM(doc, given(doc, "objectives.maximise", "objectives.minimise"),
            "no objective is left: name at least one metric");
}

static void bound_problem(nas__config_doc *doc, const nas_config *c, const nas_constraint *a,
                          const nas_constraint *b, const char *what) {
    nas_buf text = {0};
    char first[NAS_METRIC_TEXT_MAX], second[NAS_METRIC_TEXT_MAX], path[NAS_METRIC_TEXT_MAX + 16];
    nas_config_metric_text(c, a->metric, a->queue, first);
    nas_config_metric_text(c, b->metric, b->queue, second);
    nas_buf_printf(&text, "%s ", first);
    nas__config_bound_text(a, &text);
    nas_buf_printf(&text, " and %s ", second);
    nas__config_bound_text(b, &text);
    const char *quote = strchr(second, '@') == NULL ? "" : "\"";
    (void)snprintf(path, sizeof path, "constraints.%s%s%s", quote, second, quote);
    PROBLEM(doc, path, "%s: %s", text.data == NULL ? "" : text.data, what);
    nas_buf_deinit(&text);
}

/* The median never exceeds the 90th percentile, so bounds on the two can contradict each other. */
static bool at_least_implies(nas_metric low, nas_metric high) {
    return low == high || (low == NAS_METRIC_LATENCY_P50_MS && high == NAS_METRIC_LATENCY_P90_MS);
}

static void check_pair(nas__config_doc *doc, const nas_config *config, const nas_constraint *a,
                       const nas_constraint *b) {
    if (a->queue != b->queue) return;           /* of different devices */
    if (a->is_percent != b->is_percent) return; /* comparable only once the baseline is measured */
    if (a->metric == b->metric && a->at_most == b->at_most) {
        bound_problem(doc, config, a, b, "given twice: keep the tighter one");
        return;
    }
    const nas_constraint *low = a->at_most ? b : a, *high = a->at_most ? a : b;
    if (low->at_most || !high->at_most || !at_least_implies(low->metric, high->metric)) return;
    if (low->bound > high->bound) bound_problem(doc, config, a, b, "nothing can satisfy both");
}

static void check_constraints(nas__config_doc *doc, const nas_config *c) {
    for (int32_t i = 0; i < c->n_constraints; i++) {
        for (int32_t k = i + 1; k < c->n_constraints; k++) {
            check_pair(doc, c, &c->constraints[i], &c->constraints[k]);
        }
    }
}

/* ---- measuring ----------------------------------------------------------------------------------------------------- */

static void check_measure(nas__config_doc *doc, const nas_config *c) {
    static const char *const shortest = "measure.min_time_ms";
    if (c->measure.min_time_ms > c->measure.max_time_ms) {
        PROBLEM(doc, given(doc, shortest, "measure.max_time_ms"),
                "measure.min_time_ms = %" PRId32 " is above measure.max_time_ms = %" PRId32,
                c->measure.min_time_ms, c->measure.max_time_ms);
    }
    if (c->measure.min_time_ms > c->measure.final_max_time_ms) {
        PROBLEM(doc, given(doc, shortest, "measure.final_max_time_ms"),
                "measure.min_time_ms = %" PRId32 " is above measure.final_max_time_ms = %" PRId32,
                c->measure.min_time_ms, c->measure.final_max_time_ms);
    }
}

static void check_paths(nas__config_doc *doc, const nas_config *c) {
    if (c->compile.target[0] == '\0') {
        PROBLEM(doc, "compile.target",
                "is empty: write \"native\" for this CPU, \"auto\" for each device's own");
    }
    if (c->compile.cache_dir[0] == '\0') {
        PROBLEM(doc, "compile.cache_dir", "is empty: name a folder, it is created");
    }
}

void nas__config_validate(nas__config_doc *doc, const nas_config *config) {
    check_study(doc, config);
    check_extent(doc, "task.out_height", config->task.out_height, config->task.scale);
    check_extent(doc, "task.out_width", config->task.out_width, config->task.scale);
    check_space(doc, config);
    check_training(doc, config);
    check_objectives(doc, config);
    check_constraints(doc, config);
    nas__config_devices_validate(doc, config);
    check_measure(doc, config);
    check_paths(doc, config);
}
