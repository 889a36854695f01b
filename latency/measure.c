/* measure.c - the protocol of one measurement, controller side: upload once, run, wait quietly, accept or repeat.
 *
 * A run is accepted when its interval is narrow and few batches were disturbed; else the program is started anew, up to
 * max_repeats times, and the best run is kept and flagged noisy. Everything that was seen goes into the passport. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum {
    WAIT_MS = 5000,
    SLACK_MS = 10 * 1000,
    BUSY_PAUSE_MS = 200,
    BLOB_TIMEOUT_MS = 60 * 1000,
    IDLE_MS = 5000
};
enum { INTERVAL_MIN = 6 }; /* batches below which no 95 % interval exists */
static const double dropped_max =
    0.30; /* share of disturbed batches above which a run is repeated */

nas_measure_options nas_measure_options_default(void) {
    return (nas_measure_options){.min_batches = 30,
                                 .min_time_ms = 500,
                                 .max_time_ms = 10000,
                                 .max_repeats = 3,
                                 .accept_half_width = 0.02,
                                 .deadline_ms = 60000};
}

void nas_measurement_deinit(nas_measurement *m) {
    nas_free(m->samples_us);
    nas_free(m->layers);
    nas_free(m->passport_json);
    m->samples_us = NULL;
    m->layers = NULL;
    m->n_layers = 0;
    m->passport_json = NULL;
    m->n_samples = 0;
}

static nas_status check_options(nas_ctx *ctx, const nas_measure_options *o) {
    if (o->min_batches < 1 || o->min_batches > 65536) {
        return nas_fail(ctx, NAS_ERR_RANGE, "measure: min_batches %d, need 1 to 65536",
                        (int)o->min_batches);
    }
    if (o->min_time_ms < 0 || o->max_time_ms < 1 || o->max_time_ms > 600000 ||
        o->min_time_ms > o->max_time_ms) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "measure: min_time_ms %d, max_time_ms %d, need 0 <= min <= max <= 600000",
                        (int)o->min_time_ms, (int)o->max_time_ms);
    }
    if (o->warmup_ms < 0 || o->warmup_ms > 60000) {
        return nas_fail(ctx, NAS_ERR_RANGE, "measure: warmup_ms %d, need 0 to 60000",
                        (int)o->warmup_ms);
    }
    if (o->max_repeats < 0 || o->max_repeats > 100 || !(o->accept_half_width > 0)) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "measure: max_repeats %d, need 0 to 100; accept_half_width %g, need > 0",
                        (int)o->max_repeats, o->accept_half_width);
    }
    if (o->deadline_ms < 1 || o->deadline_ms > NAS_AGENT_RUN_MS_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "measure: deadline_ms %" PRId64 ", need 1 to %d",
                        o->deadline_ms, (int)NAS_AGENT_RUN_MS_MAX);
    }
    return NAS_OK;
}

/* ---- upload ------------------------------------------------------------------------------------------------------- */

static nas_status upload(nas_ctx *ctx, nas_device *d, const char *path, const char *sha256,
                         const char *needs, const char *target) {
    nas_buf bytes = {0};
    char seen[NAS_SHA256_HEX];
    nas_status status = nas_file_read(ctx, path, NAS_AGENT_BODY_MAX, &bytes);
    if (status != NAS_OK) return nas_wrap(ctx, status, "artifact");
    nas_sha256_hex(bytes.data != NULL ? bytes.data : "", bytes.len, seen);
    if (strcmp(seen, sha256) != 0) {
        nas_buf_deinit(&bytes);
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "artifact %s has SHA-256 %s, expected %s: it changed since it was compiled",
                        path, seen, sha256);
    }
    status = nas__artifact_suits(ctx, d, bytes.data, bytes.len, needs);
    if (status != NAS_OK) {
        nas_buf_deinit(&bytes);
        return nas_wrap(ctx, status, "artifact %s", path);
    }
    const nas__request put = {"PUT", target, bytes.data, bytes.len, BLOB_TIMEOUT_MS, false};
    nas__reply reply = {0};
    status = nas__client_send(ctx, d->client, &put, &reply);
    nas_buf_deinit(&bytes);
    if (status == NAS_OK && reply.status != 200 && reply.status != 201) {
        status = nas__reply_error(ctx, "upload of the artifact", &reply);
    }
    nas_buf_deinit(&reply.body);
    return status;
}

static nas_status ensure_blob(nas_ctx *ctx, nas_device *d, const char *path, const char *sha256,
                              const char *needs) {
    char target[96];
    uint8_t raw[NAS_SHA256_BYTES];
    if (!nas_unhex(sha256, sizeof raw, raw)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "artifact hash '%.80s': need 64 hex digits", sha256);
    }
    (void)snprintf(target, sizeof target, "/v1/blob/%s", sha256);
    const nas__request get = {.method = "GET", .target = target, .timeout_ms = NAS__REQUEST_MS};
    nas__reply reply = {0};
    nas_status status = nas__client_send(ctx, d->client, &get, &reply);
    if (status != NAS_OK) return status;
    if (reply.status == 404) {
        status = upload(ctx, d, path, sha256, needs, target);
    } else if (reply.status != 200) {
        status = nas__reply_error(ctx, "question for the artifact", &reply);
    }
    nas_buf_deinit(&reply.body);
    return status;
}

/* ---- run ---------------------------------------------------------------------------------------------------------- */

static void pause_ms(long ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL); /* a signal may shorten it */
}

/* A sustained run has its own length besides what the program needs around it. */
static int64_t deadline_of(const nas_device *d, const nas_measure_options *o) {
    return o->deadline_ms + (d->mode == NAS_DEVICE_SUSTAINED ? (int64_t)d->sustained_s * 1000 : 0);
}

/* What the study wants to be so around a run, as members of the query. Power at rest is worth its time before a long
 * run alone. */
static void conditions_query(const nas_device *d, char *out, size_t size) {
    int n = snprintf(out, size, "&gate-ms=%d", (int)d->gate_ms);
    if (d->mode == NAS_DEVICE_SUSTAINED)
        n += snprintf(out + n, size - (size_t)n, "&sustained-s=%d&idle-ms=%d", (int)d->sustained_s,
                      (int)IDLE_MS);
    if (d->frequency[0] != '\0')
        n += snprintf(out + n, size - (size_t)n, "&frequency=%s", d->frequency);
    if (d->max_temperature_c > 0)
        (void)snprintf(out + n, size - (size_t)n, "&max-celsius=%.1f", d->max_temperature_c);
}

/* What is run: a model that is measured, or (text_member not NULL) another program that says something. */
typedef struct run_request {
    const char *sha256;
    int32_t threads;
    const nas_measure_options *o;
    const char *text_member;
} run_request;

/* Starts the run; waits while another controller's run occupies the device. */
static nas_status start_run(nas_ctx *ctx, nas_device *d, const run_request *request, int64_t *id) {
    const nas_measure_options *o = request->o;
    char target[768], more[256], warmup[64] = "";
    const char *cpus_key = d->cpus[0] != '\0' ? "&cpus=" : "";
    conditions_query(d, more, sizeof more);
    if (o->warmup_ms > 0)
        (void)snprintf(warmup, sizeof warmup, "&warmup-ms=%d&warmup-cap-ms=%d", (int)o->warmup_ms,
                       (int)o->warmup_ms);
    (void)snprintf(target, sizeof target,
                   "/v1/run?blob=%s&deadline_ms=%" PRId64
                   "&threads=%d%s%s&min-batches=%d&min-time-ms=%d&max-time-ms=%d%s%s%s",
                   request->sha256, deadline_of(d, o), (int)request->threads, cpus_key, d->cpus,
                   (int)o->min_batches, (int)o->min_time_ms, (int)o->max_time_ms, warmup,
                   o->profile ? "&profile=1" : "", more);
    const nas__request post = {.method = "POST", .target = target, .timeout_ms = NAS__REQUEST_MS};
    const int64_t give_up_ns = nas_now_ns() + (int64_t)NAS_AGENT_RUN_MS_MAX * 1000000;
    for (;;) {
        nas__reply reply = {0};
        nas_status status = nas__client_send(ctx, d->client, &post, &reply);
        if (status != NAS_OK) return status;
        const bool busy = reply.status == 409 && nas_now_ns() < give_up_ns;
        if (reply.status == 202) {
            status = nas__json_member_int(ctx, &reply.body, "id", id);
        } else if (!busy) {
            status = nas__reply_error(ctx, "start of the run", &reply);
        }
        nas_buf_deinit(&reply.body);
        if (!busy || status != NAS_OK) return status;
        pause_ms(BUSY_PAUSE_MS);
        status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
    }
}

static void kill_run(nas_device *d, int64_t id) {
    char target[64];
    (void)snprintf(target, sizeof target, "/v1/run/%" PRId64, id);
    const nas__request delete = {
        .method = "DELETE", .target = target, .timeout_ms = 2000, .no_cancel = true};
    nas__reply reply = {0};
    (void)nas__client_send(NULL, d->client, &delete, &reply); /* its deadline ends it otherwise */
    nas_buf_deinit(&reply.body);
}

static nas_status ask_run(nas_ctx *ctx, nas_device *d, const char *text_member, int64_t id,
                          nas__run *out) {
    char target[96];
    (void)snprintf(target, sizeof target, "/v1/run/%" PRId64 "?wait_ms=%d", id, (int)WAIT_MS);
    const nas__request get = {
        .method = "GET", .target = target, .timeout_ms = WAIT_MS + NAS__REQUEST_MS};
    nas__reply reply = {0};
    nas_status status = nas__client_send(ctx, d->client, &get, &reply);
    if (status != NAS_OK) return status;
    if (reply.status != 200)
        status = nas__reply_error(ctx, "result", &reply);
    else
        status = text_member == NULL ? nas__run_parse(ctx, &reply.body, out)
                                     : nas__run_parse_text(ctx, &reply.body, text_member, out);
    nas_buf_deinit(&reply.body);
    return status;
}

static nas_status run_once(nas_ctx *ctx, nas_device *d, const run_request *request, nas__run *out) {
    const nas_measure_options *o = request->o;
    int64_t id = 0;
    nas_status status = start_run(ctx, d, request, &id);
    if (status != NAS_OK) return status;
    const int64_t most_ms = d->gate_ms + IDLE_MS + deadline_of(d, o) + SLACK_MS;
    const int64_t give_up_ns = nas_now_ns() + most_ms * 1000000;
    nas__run run = {0};
    for (;;) {
        status = ask_run(ctx, d, request->text_member, id, &run);
        if (status != NAS_OK || strcmp(run.state, "running") != 0) break;
        nas__run_deinit(&run);
        if (nas_now_ns() > give_up_ns) {
            status = nas_fail(ctx, NAS_ERR_TIMEOUT,
                              "run %" PRId64 ": no end after its deadline of %" PRId64 " ms", id,
                              o->deadline_ms);
            break;
        }
    }
    if (status != NAS_OK) {
        kill_run(d, id);
        return status;
    }
    if (strcmp(run.state, "done") == 0) {
        *out = run;
        return NAS_OK;
    }
    const bool killed = strcmp(run.state, "killed") == 0;
    status = nas_fail(ctx, killed ? NAS_ERR_TIMEOUT : NAS_ERR_DEVICE, "run of %.12s: %s",
                      request->sha256, run.error);
    nas__run_deinit(&run);
    return status;
}

/* ---- judgement and passport --------------------------------------------------------------------------------------- */

static double half_width(const nas_measurement *m) {
    const double up = m->p50_hi_us - m->p50_us, down = m->p50_us - m->p50_lo_us;
    return (up > down ? up : down) / m->p50_us;
}

static bool calm(const nas__run *run) {
    const double all = (double)run->m.batches + (double)run->m.dropped;
    return !run->all_disturbed && run->m.batches >= INTERVAL_MIN &&
           (double)run->m.dropped <= dropped_max * all;
}

static bool better(const nas__run *a, const nas__run *b) {
    if (calm(a) != calm(b)) return calm(a);
    return half_width(&a->m) < half_width(&b->m);
}

static void passport_head(nas_json *j, const nas_device *d, const char *sha256,
                          const nas_measure_options *o) {
    nas_json_key(j, "device");
    nas_json_string(j, d->name);
    nas_json_key(j, "fingerprint");
    nas_json_string(j, d->fingerprint);
    nas_json_key(j, "client_version");
    nas_json_string(j, NAS_VERSION);
    nas_json_key(j, "artifact_sha256");
    nas_json_string(j, sha256);
    nas_json_key(j, "options");
    nas_json_object(j);
    nas_json_key(j, "threads");
    nas_json_int(j, d->threads);
    nas_json_key(j, "cpus");
    nas_json_string(j, d->cpus);
    nas_json_key(j, "mode");
    nas_json_string(j, d->mode == NAS_DEVICE_SUSTAINED ? "sustained" : "burst");
    if (d->mode == NAS_DEVICE_SUSTAINED) {
        nas_json_key(j, "sustained_s");
        nas_json_int(j, d->sustained_s);
    }
    nas_json_key(j, "frequency");
    nas_json_string(j, d->frequency);
    if (d->max_temperature_c > 0) {
        nas_json_key(j, "max_temperature_c");
        nas_json_double(j, d->max_temperature_c);
    }
    nas_json_key(j, "min_batches");
    nas_json_int(j, o->min_batches);
    nas_json_key(j, "min_time_ms");
    nas_json_int(j, o->min_time_ms);
    nas_json_key(j, "max_time_ms");
    nas_json_int(j, o->max_time_ms);
    nas_json_key(j, "warmup_ms");
    nas_json_int(j, o->warmup_ms);
    nas_json_key(j, "max_repeats");
    nas_json_int(j, o->max_repeats);
    nas_json_key(j, "accept_half_width");
    nas_json_double(j, o->accept_half_width);
    nas_json_object_end(j);
}

/* One line an attempt: what the accepted run was chosen from. */
static void note_attempt(nas_json *j, const nas__run *run) {
    nas_json_object(j);
    nas_json_key(j, "p50_us");
    nas_json_double(j, run->m.p50_us);
    nas_json_key(j, "p50_lo_us");
    nas_json_double(j, run->m.p50_lo_us);
    nas_json_key(j, "p50_hi_us");
    nas_json_double(j, run->m.p50_hi_us);
    nas_json_key(j, "batches");
    nas_json_int(j, run->m.batches);
    nas_json_key(j, "dropped");
    nas_json_int(j, run->m.dropped);
    nas_json_object_end(j);
}

static void note_repeat(nas_json *j, const nas_device *d) {
    nas_json_key(j, "repeatability");
    nas_json_object(j);
    nas_json_key(j, "scatter");
    nas_json_double(j, d->repeat.scatter);
    nas_json_key(j, "repeats_seen");
    nas_json_double(j, d->repeat.freedom);
    nas_json_key(j, "reach_down");
    nas_json_double(j, d->repeat.reach_down);
    nas_json_key(j, "reach_up");
    nas_json_double(j, d->repeat.reach_up);
    nas_json_object_end(j);
}

static nas_status finish(nas_ctx *ctx, const nas_device *d, const char *sha256,
                         const nas_measure_options *o, const nas_buf *attempts, nas__run *best,
                         int32_t repeats, bool accepted, nas_measurement *out) {
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, nas_device_is_simulated(d));
    passport_head(&j, d, sha256, o);
    nas_json_key(&j, "attempts");
    nas_json_raw(&j, attempts->data != NULL ? attempts->data : "[]");
    note_repeat(&j, d);
    nas_json_key(&j, "run");
    nas_json_raw(&j, best->report);
    nas_json_object_end(&j);
    nas_status status = nas_buf_status(ctx, attempts);
    if (status == NAS_OK) status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) {
        best->m.passport_json = nas_strdup(ctx, text.data);
        if (best->m.passport_json == NULL) status = NAS_ERR_NOMEM;
    }
    nas_buf_deinit(&text);
    if (status != NAS_OK) return status;
    best->m.repeats = repeats;
    best->m.noisy = !accepted;
    best->m.simulated = nas_device_is_simulated(d);
    best->m.run_lo_us = best->m.p50_lo_us;
    best->m.run_hi_us = best->m.p50_hi_us;
    nas__repeat_widen(&d->repeat, &best->m);
    *out = best->m;
    best->m = (nas_measurement){0}; /* owned by the caller now */
    return NAS_OK;
}

static nas_status measure_agent(nas_ctx *ctx, nas_device *d, const char *path, const char *sha256,
                                const nas_measure_options *o, nas_measurement *out) {
    nas__run best = {0};
    nas_buf attempts = {0};
    nas_json j = nas_json_begin(&attempts);
    bool have = false, accepted = false;
    int32_t repeats = 0;
    nas_json_array(&j);
    nas_status status =
        o->needs != NULL ? nas_device_suits(ctx, d, d->facts.arch, o->needs) : NAS_OK;
    if (status == NAS_OK) status = ensure_blob(ctx, d, path, sha256, o->needs);
    for (; status == NAS_OK && !accepted; repeats++) {
        nas__run run = {0};
        const run_request request = {sha256, d->threads, o, NULL};
        status = run_once(ctx, d, &request, &run);
        if (status != NAS_OK) break;
        note_attempt(&j, &run);
        accepted = calm(&run) && half_width(&run.m) <= o->accept_half_width;
        if (!have || accepted || better(&run, &best)) {
            nas__run_deinit(&best);
            best = run;
            have = true;
        } else {
            nas__run_deinit(&run);
        }
        /* Minutes back to back are long enough to be what they are: no second time. */
        const int32_t most = d->mode == NAS_DEVICE_SUSTAINED ? 0 : o->max_repeats;
        if (accepted || repeats == most) break;
    }
    nas_json_array_end(&j);
    if (status == NAS_OK) status = nas__repeat_add(ctx, &d->repeat, sha256, best.m.p50_us);
    if (status == NAS_OK)
        status = finish(ctx, d, sha256, o, &attempts, &best, repeats, accepted, out);
    nas_buf_deinit(&attempts);
    nas__run_deinit(&best);
    return status;
}

static nas_status measure_simulated(nas_ctx *ctx, const nas_device *d, const nas_graph *graph,
                                    const char *sha256, const nas_measure_options *o,
                                    nas_measurement *out) {
    nas_measurement m = {
        .batch_size = 1, .batches = 1, .threads = d->threads, .simulated = true, .n_samples = 1};
    double us = 0;
    nas_status status = nas__simulated_us(ctx, graph, d->threads, &us);
    if (status != NAS_OK) return status;
    us *= d->simulated_factor;
    m.p50_us = m.p50_lo_us = m.p50_hi_us = m.p90_us = m.p10_us = m.min_us = m.first_us = us;
    m.run_lo_us = m.run_hi_us = us;
    m.samples_us = nas_alloc_array(ctx, 1, sizeof *m.samples_us);
    if (m.samples_us == NULL) return NAS_ERR_NOMEM;
    m.samples_us[0] = us;
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, true);
    nas_json_key(&j, "model");
    nas_json_string(&j, nas__simulated_id);
    passport_head(&j, d, sha256, o);
    nas_json_object_end(&j);
    status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) {
        m.passport_json = nas_strdup(ctx, text.data);
        if (m.passport_json == NULL) status = NAS_ERR_NOMEM;
    }
    nas_buf_deinit(&text);
    if (status != NAS_OK) {
        nas_measurement_deinit(&m);
        return status;
    }
    *out = m;
    return NAS_OK;
}

nas_status nas_measure(nas_ctx *ctx, nas_device *device, const nas_graph *graph,
                       const char *artifact_path, const char *artifact_sha256,
                       const nas_measure_options *options, nas_measurement *out) {
    nas_status status = check_options(ctx, options);
    if (status == NAS_OK) status = nas_check_cancel(ctx);
    if (status == NAS_OK && !device->simulated &&
        (artifact_path == NULL || artifact_sha256 == NULL)) {
        status =
            nas_fail(ctx, NAS_ERR_INVALID, "measure: an artifact path and its hash are needed");
    }
    if (status == NAS_OK && !device->simulated && device->client == NULL)
        status = nas_fail(ctx, NAS_ERR_NET, "not connected");
    if (status == NAS_OK) {
        status = device->simulated
                     ? measure_simulated(ctx, device, graph, artifact_sha256, options, out)
                     : measure_agent(ctx, device, artifact_path, artifact_sha256, options, out);
    }
    return nas_wrap(ctx, status, "device %s", device->name);
}

/* ---- other programs ---------------------------------------------------------------------------------------------- */

static nas_status run_program(nas_ctx *ctx, nas_device *d, const nas_device_program *p,
                              nas_buf *out) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = 1;
    o.min_time_ms = 0;
    o.max_time_ms = (int32_t)(p->seconds * 1000) + 1;
    o.deadline_ms = NAS_AGENT_RUN_MS_MAX;
    const run_request request = {p->sha256, p->threads, &o, p->member};
    nas__run run = {0};
    nas_status status = ensure_blob(ctx, d, p->path, p->sha256, NULL);
    if (status == NAS_OK) status = run_once(ctx, d, &request, &run);
    if (status == NAS_OK) nas_buf_puts(out, run.text);
    nas__run_deinit(&run);
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

nas_status nas_device_run(nas_ctx *ctx, nas_device *device, const nas_device_program *program,
                          nas_buf *out) {
    enum { SECONDS_MAX = 60, THREADS_MAX = 64 };
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK && device->simulated)
        status = nas_fail(ctx, NAS_ERR_UNSUPPORTED, "simulated: no program runs there");
    if (status == NAS_OK && device->client == NULL)
        status = nas_fail(ctx, NAS_ERR_NET, "not connected");
    if (status == NAS_OK && (!(program->seconds > 0) || program->seconds > SECONDS_MAX ||
                             program->threads < 1 || program->threads > THREADS_MAX))
        status =
            nas_fail(ctx, NAS_ERR_INVALID, "run: %g s on %d threads, need up to %d s and %d",
                     program->seconds, (int)program->threads, (int)SECONDS_MAX, (int)THREADS_MAX);
    if (status == NAS_OK) status = run_program(ctx, device, program, out);
    return nas_wrap(ctx, status, "device %s", device->name);
}
