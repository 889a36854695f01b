/* latency_import_logs.c - logs of TFLite's benchmark_model and results of Google Benchmark. */
#include "tools/latency_import_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAME_BYTES = 256 };

/* The next line of [*at, end), NUL-terminated in place; false at the end. */
static bool next_line(char **at, char *end, char **line) {
    if (*at >= end) return false;
    *line = *at;
    char *stop = memchr(*at, '\n', (size_t)(end - *at));
    *at = stop == NULL ? end : stop + 1;
    char *last = stop == NULL ? end : stop;
    *last = '\0';
    if (last > *line && last[-1] == '\r') last[-1] = '\0';
    return true;
}

/* A result under the name of the log, or that of the options. Names like "run/421211" are tried by their last part too. */
static nas_status add_named(nas_ctx *ctx, const nas_encoder *encoder, const nas_import_options *o,
                            size_t row, const char *name, double micro, nas_import *out) {
    if (!(micro > 0) || !isfinite(micro)) {
        nas__import_mistake(out, row, "'%.60s': %g us is not above 0 and finite", name, micro);
        return NAS_OK;
    }
    if (o->arch != NULL) return nas__import_add(ctx, encoder, out, row, o->arch, micro);
    const char *last = strrchr(name, '/');
    if (last != NULL && !nas_encoder_is_network(encoder)) {
        nas_buf whole = {0};
        if (nas_encoder_canonical(ctx, encoder, name, &whole) != NAS_OK) {
            nas_ctx_clear(ctx);
            name = last + 1;
        }
        nas_buf_deinit(&whole);
    }
    return nas__import_add(ctx, encoder, out, row, name, micro);
}

/* ---- benchmark_model ------------------------------------------------------------------------------------------------- */

/* File name without folder and ".tflite" from "...Graph: [/data/x.tflite]" and its later forms. */
static bool model_name(const char *line, char name[NAME_BYTES]) {
    static const char *const marks[] = {"Graph: [", "Graph: ", "Loaded model "};
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        const char *at = strstr(line, marks[i]);
        if (at == NULL) continue;
        at += strlen(marks[i]);
        size_t len = strcspn(at, "]\r\n ");
        const char *start = at;
        for (size_t k = 0; k < len; k++) {
            if (at[k] == '/') start = at + k + 1;
        }
        len -= (size_t)(start - at);
        if (len > 7 && strncmp(start + len - 7, ".tflite", 7) == 0) len -= 7;
        if (len == 0 || len >= NAME_BYTES) return false;
        memcpy(name, start, len);
        name[len] = '\0';
        return true;
    }
    return false;
}

nas_status nas_import_benchmark_model(nas_ctx *ctx, const nas_encoder *encoder,
                                      const nas_import_options *o, char *text, size_t len,
                                      nas_import *out) {
    static const char average[] = "Inference (avg): ";
    char *at = text, *line = NULL, name[NAME_BYTES] = "";
    nas_status status = NAS_OK;
    size_t results = 0;
    for (size_t row = 1; status == NAS_OK && next_line(&at, text + len, &line); row++) {
        (void)model_name(line, name);
        const char *figure = strstr(line, average);
        if (figure == NULL) continue;
        results++;
        figure += strlen(average);
        char *end = NULL;
        const double us = strtod(figure, &end);
        if (end == figure || strstr(line, "timings in us") == NULL) {
            nas__import_mistake(out, row, "no \"Inference timings in us\" here: '%.60s'", line);
        } else if (name[0] == '\0' && o->arch == NULL) {
            nas__import_mistake(out, row, "the log does not name its model: give --arch");
        } else {
            status = add_named(ctx, encoder, o, row, name, us, out);
        }
    }
    if (status == NAS_OK && results == 0)
        status = nas_fail(ctx, NAS_ERR_PARSE,
                          "no line \"Inference timings in us: ... Inference (avg): N\": not a log "
                          "of benchmark_model, or a run that failed");
    return status;
}

/* ---- Google Benchmark -------------------------------------------------------------------------------------------------- */

typedef struct result {
    char name[NAME_BYTES];
    double micro;
    size_t row; /* line of the console, number of the entry in JSON */
    bool median;
} result;

typedef struct results {
    result *list;
    size_t n, cap;
} results;

static bool unit_of(const char *text, double *to_micro) {
    static const struct {
        const char *name;
        nas_unit unit;
    } known[] = {{"ns", NAS_UNIT_NS}, {"us", NAS_UNIT_US}, {"ms", NAS_UNIT_MS}, {"s", NAS_UNIT_S}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].name, text) != 0) continue;
        *to_micro = nas__unit_to_micro(known[i].unit);
        return true;
    }
    return false;
}

static nas_status keep(nas_ctx *ctx, results *r, const char *name, size_t name_len, double micro,
                       size_t row, bool median) {
    const nas_status status = nas_grow(ctx, &r->list, &r->cap, r->n + 1, sizeof *r->list);
    if (status != NAS_OK) return status;
    result *to = &r->list[r->n++];
    *to = (result){.micro = micro, .row = row, .median = median};
    const size_t len = name_len < NAME_BYTES ? name_len : NAME_BYTES - 1;
    memcpy(to->name, name, len);
    return NAS_OK;
}

/* Aggregates other than the median say nothing new; the median stands for its repetitions. */
static bool ends_with(const char *name, const char *end, size_t *stem) {
    const size_t n = strlen(name), m = strlen(end);
    if (n <= m || strcmp(name + n - m, end) != 0) return false;
    *stem = n - m;
    return true;
}

static nas_status keep_entry(nas_ctx *ctx, results *r, const char *name, double micro, size_t row) {
    size_t stem = 0;
    if (ends_with(name, "_mean", &stem) || ends_with(name, "_stddev", &stem) ||
        ends_with(name, "_cv", &stem))
        return NAS_OK;
    if (ends_with(name, "_median", &stem)) return keep(ctx, r, name, stem, micro, row, true);
    return keep(ctx, r, name, strlen(name), micro, row, false);
}

static nas_status read_json(nas_ctx *ctx, const char *text, size_t len, results *r,
                            nas_import *out) {
    json_error_t error;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL) return nas_fail(ctx, NAS_ERR_PARSE, "line %d: %s", error.line, error.text);
    const json_t *list = json_object_get(root, "benchmarks");
    nas_status status = json_is_array(list)
                            ? NAS_OK
                            : nas_fail(ctx, NAS_ERR_PARSE, "no array \"benchmarks\" in the JSON");
    for (size_t i = 0; status == NAS_OK && i < json_array_size(list); i++) {
        const json_t *entry = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(entry, "name")),
                   *unit = json_string_value(json_object_get(entry, "time_unit"));
        const json_t *time = json_object_get(entry, "real_time");
        double to_micro = 0;
        if (json_is_true(json_object_get(entry, "error_occurred"))) {
            nas__import_mistake(out, i + 1, "benchmark '%.60s' failed", name == NULL ? "?" : name);
        } else if (name == NULL || unit == NULL || !json_is_number(time) ||
                   !unit_of(unit, &to_micro)) {
            size_t stem = 0; /* percentages have no unit of time */
            if (name == NULL || !ends_with(name, "_cv", &stem))
                nas__import_mistake(out, i + 1, "needs name, real_time and time_unit");
        } else {
            status = keep_entry(ctx, r, name, json_number_value(time) * to_micro, i + 1);
        }
    }
    json_decref(root);
    return status;
}

/* "BM_conv/64      123 ns    120 ns   1000": name, wall time, CPU time, repetitions. */
static nas_status read_console(nas_ctx *ctx, char *text, size_t len, results *r) {
    char *at = text, *line = NULL;
    nas_status status = NAS_OK;
    for (size_t row = 1; status == NAS_OK && next_line(&at, text + len, &line); row++) {
        char name[NAME_BYTES], unit[4], cpu_unit[4];
        double wall = 0, cpu = 0, to_micro = 0;
        if (sscanf(line, "%255s %lf %3s %lf %3s", name, &wall, unit, &cpu, cpu_unit) != 5) continue;
        if (!unit_of(unit, &to_micro) || !unit_of(cpu_unit, &cpu)) continue;
        status = keep_entry(ctx, r, name, wall * to_micro, row);
    }
    return status;
}

static int by_name(const void *pa, const void *pb) {
    const result *a = pa, *b = pb;
    const int order = strcmp(a->name, b->name);
    if (order != 0) return order;
    if (a->median != b->median) return a->median ? -1 : 1;
    return a->micro < b->micro ? -1 : a->micro > b->micro;
}

/* One row for each name: its median entry, else the middle of its repetitions. */
static nas_status add_results(nas_ctx *ctx, const nas_encoder *encoder, const nas_import_options *o,
                              results *r, nas_import *out) {
    if (r->n > 0) qsort(r->list, r->n, sizeof *r->list, by_name);
    nas_status status = NAS_OK;
    for (size_t first = 0, end = 0; first < r->n && status == NAS_OK; first = end) {
        while (end < r->n && strcmp(r->list[end].name, r->list[first].name) == 0)
            end++;
        const result *a = &r->list[first];
        double micro = a->micro;
        if (!a->median) {
            const size_t n = end - first;
            micro = (r->list[first + (n - 1) / 2].micro + r->list[first + n / 2].micro) / 2;
        }
        status = add_named(ctx, encoder, o, a->row, a->name, micro, out);
    }
    return status;
}

nas_status nas_import_google_benchmark(nas_ctx *ctx, const nas_encoder *encoder,
                                       const nas_import_options *o, char *text, size_t len,
                                       nas_import *out) {
    results r = {0};
    const char *first = text + strspn(text, " \t\r\n");
    nas_status status =
        *first == '{' ? read_json(ctx, text, len, &r, out) : read_console(ctx, text, len, &r);
    if (status == NAS_OK && r.n == 0 && out->n_mistakes == 0)
        status = nas_fail(ctx, NAS_ERR_PARSE,
                          "no result of Google Benchmark in it, neither JSON "
                          "nor lines \"name time ns time ns count\"");
    if (status == NAS_OK) status = add_results(ctx, encoder, o, &r, out);
    nas_free(r.list);
    return status;
}
