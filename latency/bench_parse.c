/* bench_parse.c - reading what an agent reports: hostile or garbled text gives PARSE, never a number that was not
 * measured. */
#include "latency/device_internal.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLES_MAX = 1024 };
static const double time_us_max = 1e9; /* a quarter of an hour for one inference is no latency */

static json_t *load_object(nas_ctx *ctx, const nas_buf *json) {
    json_error_t error;
    json_t *root =
        json_loadb(json->data != NULL ? json->data : "", json->len, JSON_REJECT_DUPLICATES, &error);
    if (root != NULL && json_is_object(root)) return root;
    (void)nas_fail(ctx, NAS_ERR_PARSE, "the agent's answer is no JSON object: %s (byte %d of %zu)",
                   root == NULL ? error.text : "another type", root == NULL ? error.position : 0,
                   json->len);
    json_decref(root);
    return NULL;
}

nas_status nas__json_member_int(nas_ctx *ctx, const nas_buf *json, const char *name, int64_t *out) {
    json_t *root = load_object(ctx, json);
    if (root == NULL) return NAS_ERR_PARSE;
    const json_t *member = json_object_get(root, name);
    const bool ok = json_is_integer(member);
    if (ok) *out = (int64_t)json_integer_value(member);
    json_decref(root);
    return ok ? NAS_OK
              : nas_fail(ctx, NAS_ERR_PARSE, "the agent's answer has no whole number '%s'", name);
}

nas_status nas__json_member_text(nas_ctx *ctx, const nas_buf *json, const char *name, char *out,
                                 size_t size) {
    json_t *root = load_object(ctx, json);
    if (root == NULL) return NAS_ERR_PARSE;
    const json_t *member = json_object_get(root, name);
    const bool ok = json_is_string(member);
    if (ok) (void)snprintf(out, size, "%s", json_string_value(member));
    json_decref(root);
    return ok ? NAS_OK : nas_fail(ctx, NAS_ERR_PARSE, "the agent's answer has no text '%s'", name);
}

/* Reads members one after another; the first that is missing or out of range is remembered. */
typedef struct reader {
    nas_ctx *ctx;
    const json_t *object;
    nas_status status;
} reader;

static double time_of(reader *r, const char *name) {
    const json_t *member = json_object_get(r->object, name);
    const double value = json_is_number(member) ? json_number_value(member) : -1;
    if (!(value >= 0 && value <= time_us_max) && r->status == NAS_OK) {
        r->status = nas_fail(r->ctx, NAS_ERR_PARSE,
                             "timing document: '%s' is missing or not in 0..1e9", name);
    }
    return value;
}

static int32_t count_of(reader *r, const char *name, int64_t least) {
    const json_t *member = json_object_get(r->object, name);
    const int64_t value = json_is_integer(member) ? (int64_t)json_integer_value(member) : -1;
    if ((value < least || value > INT32_MAX) && r->status == NAS_OK) {
        r->status =
            nas_fail(r->ctx, NAS_ERR_PARSE,
                     "timing document: '%s' is missing or not a count >= %" PRId64, name, least);
    }
    return value > INT32_MAX ? INT32_MAX : (int32_t)value;
}

static void read_samples(reader *r, nas_measurement *m) {
    const json_t *array = json_object_get(r->object, "samples_us");
    const size_t n = json_is_array(array) ? json_array_size(array) : 0;
    if (r->status != NAS_OK) return;
    if (n < 1 || n > SAMPLES_MAX || n > (size_t)m->batches) {
        r->status =
            nas_fail(r->ctx, NAS_ERR_PARSE, "timing document: %zu samples for %d batches, limit %d",
                     n, (int)m->batches, (int)SAMPLES_MAX);
        return;
    }
    m->samples_us = nas_alloc_array(r->ctx, n, sizeof *m->samples_us);
    if (m->samples_us == NULL) {
        r->status = NAS_ERR_NOMEM;
        return;
    }
    m->n_samples = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i);
        m->samples_us[i] = json_is_number(item) ? json_number_value(item) : -1;
        if (m->samples_us[i] > 0 && m->samples_us[i] <= time_us_max) continue;
        r->status = nas_fail(r->ctx, NAS_ERR_PARSE,
                             "timing document: sample %zu is no time in 0..1e9 us", i);
        return;
    }
}

/* The layers of a profiled program; none in other documents. */
static void read_layers(reader *r, nas_measurement *m) {
    const json_t *array = json_object_get(r->object, "layers");
    const size_t n = json_is_array(array) ? json_array_size(array) : 0;
    if (r->status != NAS_OK || n == 0) return;
    m->layers = nas_alloc_array(r->ctx, n, sizeof *m->layers);
    if (m->layers == NULL) {
        r->status = NAS_ERR_NOMEM;
        return;
    }
    m->n_layers = n;
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_array_get(array, i), *time = json_object_get(item, "p50_us");
        const char *name = json_string_value(json_object_get(item, "name"));
        const double us = json_is_number(time) ? json_number_value(time) : -1;
        if (name == NULL || strlen(name) >= sizeof m->layers[i].name ||
            !(us >= 0 && us <= time_us_max)) {
            r->status =
                nas_fail(r->ctx, NAS_ERR_PARSE,
                         "timing document: layer %zu has no name or no time in 0..1e9 us", i);
            return;
        }
        (void)snprintf(m->layers[i].name, sizeof m->layers[i].name, "%s", name);
        m->layers[i].p50_us = us;
    }
}

/* A document whose numbers do not belong together was damaged or made up. */
static void check_consistent(reader *r, const nas_measurement *m) {
    nas_sample_stats s;
    if (r->status != NAS_OK) return;
    if (!(m->min_us > 0 && m->min_us <= m->p50_lo_us && m->p50_lo_us <= m->p50_us &&
          m->p50_us <= m->p50_hi_us && m->min_us <= m->p10_us && m->p10_us <= m->p50_us &&
          m->p50_us <= m->p90_us)) {
        r->status = nas_fail(r->ctx, NAS_ERR_PARSE,
                             "timing document: min, quantiles and interval are out of order");
        return;
    }
    if (m->n_samples != (size_t)m->batches) return; /* thinned: the median cannot be recomputed */
    r->status = nas_sample_stats_of(r->ctx, m->samples_us, m->n_samples, &s);
    if (r->status == NAS_OK && fabs(s.median - m->p50_us) > 1e-6 * m->p50_us) {
        r->status =
            nas_fail(r->ctx, NAS_ERR_PARSE, "timing document: p50_us is %g, its samples say %g",
                     m->p50_us, s.median);
    }
}

/* A number of `object` that may be absent; `least` then. */
static double optional_number(reader *r, const json_t *object, const char *name, double least,
                              double most) {
    const json_t *member = json_object_get(object, name);
    const double value = json_is_number(member) ? json_number_value(member) : least;
    if (member == NULL || (json_is_number(member) && value >= least && value <= most)) return value;
    if (r->status == NAS_OK) {
        r->status = nas_fail(r->ctx, NAS_ERR_PARSE, "timing document: '%s' is not in %g..%g", name,
                             least, most);
    }
    return least;
}

/* What surrounded the run, where the device shows it. */
static void read_conditions(reader *r, nas_measurement *m) {
    const json_t *sustained = json_object_get(r->object, "sustained"),
                 *energy = json_object_get(r->object, "energy");
    m->rate_per_s = optional_number(r, sustained, "rate_per_s", 0, 1e9);
    m->celsius_max = optional_number(r, r->object, "celsius_max", 0, 150);
    if (!json_is_object(energy)) return;
    m->has_energy = json_is_number(json_object_get(energy, "mj_per_inference"));
    m->energy_mj = optional_number(r, energy, "mj_per_inference", -1e9, 1e9);
    m->energy_coarse = json_is_true(json_object_get(energy, "coarse"));
}

static nas_status read_bench(nas_ctx *ctx, const json_t *bench, nas__run *run) {
    reader r = {ctx, bench, NAS_OK};
    nas_measurement *m = &run->m;
    const json_t *schema = json_object_get(bench, "schema");
    if (!json_is_integer(schema) || json_integer_value(schema) != 1) {
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "timing document: schema is not 1; build program and agent from one tree");
    }
    m->p50_us = time_of(&r, "p50_us");
    m->p50_lo_us = time_of(&r, "p50_lo_us");
    m->p50_hi_us = time_of(&r, "p50_hi_us");
    m->p90_us = time_of(&r, "p90_us");
    m->p10_us = time_of(&r, "p10_us");
    m->min_us = time_of(&r, "min_us");
    m->mad_us = time_of(&r, "mad_us");
    m->init_us = time_of(&r, "init_us");
    m->first_us = time_of(&r, "first_us");
    m->wall_s = time_of(&r, "wall_s");
    m->batch_size = count_of(&r, "batch_size", 1);
    m->batches = count_of(&r, "batches", 1);
    m->dropped = count_of(&r, "dropped", 0);
    m->threads = count_of(&r, "threads", 1);
    run->all_disturbed = json_is_true(json_object_get(bench, "all_disturbed"));
    read_samples(&r, m);
    read_layers(&r, m);
    check_consistent(&r, m);
    read_conditions(&r, m);
    return r.status;
}

static int append_text(const char *text, size_t size, void *user) {
    nas_buf *out = user;
    nas_buf_append(out, text, size);
    return out->failed ? -1 : 0;
}

/* The report without what is stored elsewhere, as one line of text. */
static nas_status keep_report(nas_ctx *ctx, json_t *root, char **out) {
    json_t *bench = json_object_get(root, "bench");
    (void)json_object_del(bench, "samples_us"); /* absent: nothing to remove */
    (void)json_object_del(root, "id");
    nas_buf text = {0};
    const int code = json_dump_callback(root, append_text, &text, JSON_COMPACT | JSON_SORT_KEYS);
    if (code != 0 || text.failed) {
        nas_buf_deinit(&text);
        return nas_fail(ctx, NAS_ERR_NOMEM, "measurement report: out of memory");
    }
    *out = nas_strdup(ctx, text.data);
    nas_buf_deinit(&text);
    return *out != NULL ? NAS_OK : NAS_ERR_NOMEM;
}

static const char *text_of(const json_t *root, const char *name) {
    const json_t *member = json_object_get(root, name);
    return json_is_string(member) ? json_string_value(member) : "";
}

static nas_status read_done(nas_ctx *ctx, json_t *root, const char *member, nas__run *run) {
    const json_t *bench = json_object_get(root, "bench");
    if (!json_is_object(bench))
        return nas_fail(ctx, NAS_ERR_PARSE, "finished run without a timing document");
    if (member != NULL) {
        const json_t *text = json_object_get(bench, member);
        if (!json_is_string(text))
            return nas_fail(ctx, NAS_ERR_PARSE, "document of the program: no text '%s'", member);
        run->text = nas_strdup(ctx, json_string_value(text));
        return run->text != NULL ? NAS_OK : NAS_ERR_NOMEM;
    }
    const nas_status status = read_bench(ctx, bench, run);
    const json_t *frequency = json_object_get(root, "frequency");
    run->m.frequency_pinned = json_is_true(json_object_get(frequency, "pinned"));
    return status == NAS_OK ? keep_report(ctx, root, &run->report) : status;
}

static nas_status parse(nas_ctx *ctx, const nas_buf *json, const char *member, nas__run *out) {
    nas__run run = {0};
    json_t *root = load_object(ctx, json);
    if (root == NULL) return NAS_ERR_PARSE;
    const char *said = text_of(root, "stderr");
    (void)snprintf(run.state, sizeof run.state, "%s", text_of(root, "state"));
    (void)snprintf(run.error, sizeof run.error, "%.500s%s%.500s", text_of(root, "error"),
                   said[0] != '\0' ? "; it said: " : "", said);
    nas_status status = NAS_OK;
    if (strcmp(run.state, "done") == 0) {
        status = read_done(ctx, root, member, &run);
    } else if (strcmp(run.state, "running") != 0 && strcmp(run.state, "failed") != 0 &&
               strcmp(run.state, "killed") != 0) {
        status = nas_fail(ctx, NAS_ERR_PARSE, "run state '%s' is unknown", run.state);
    }
    json_decref(root);
    if (status != NAS_OK) {
        nas__run_deinit(&run);
        return status;
    }
    *out = run;
    return NAS_OK;
}

nas_status nas__run_parse(nas_ctx *ctx, const nas_buf *json, nas__run *out) {
    return parse(ctx, json, NULL, out);
}

nas_status nas__run_parse_text(nas_ctx *ctx, const nas_buf *json, const char *member,
                               nas__run *out) {
    return parse(ctx, json, member, out);
}

void nas__run_deinit(nas__run *run) {
    nas_measurement_deinit(&run->m);
    nas_free(run->report);
    nas_free(run->text);
    run->report = NULL;
    run->text = NULL;
}
