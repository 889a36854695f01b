/* routes.c - what each authenticated request does; the table of routes is in protocol.h. */
#include "device-agent/agent_internal.h"

#include <stdio.h>
#include <string.h>

enum { SMALL_BODY_MAX = 4096 };

void nas__answer_error(nas__answer *answer, int status, const char *message) {
    nas_buf_clear(&answer->body);
    answer->status = status;
    nas_json j = nas_json_begin(&answer->body);
    nas_json_object(&j);
    nas_json_key(&j, "error");
    nas_json_string(&j, message);
    nas_json_object_end(&j);
}

uint64_t nas__route_body_max(const nas__http_request *request) {
    nas__slice hash;
    const bool blob = nas__slice_is(request->method, "PUT") &&
                      nas__slice_after(request->path, "/v1/blob/", &hash);
    return blob ? (uint64_t)NAS_AGENT_BODY_MAX : (uint64_t)SMALL_BODY_MAX;
}

void nas__info_json(nas_json *j, const nas__limits *limits, const nas__agent *agent) {
    nas_json_object(j);
    nas_json_key(j, "agent");
    nas_json_string(j, "nas-agent");
    nas_json_key(j, "version");
    nas_json_string(j, NAS_VERSION);
    nas_json_key(j, "protocol");
    nas_json_int(j, NAS_AGENT_PROTOCOL);
    nas_json_key(j, "limits");
    nas__limits_json(j, limits);
    if (!limits->seccomp) {
        nas_json_key(j, "seccomp_unavailable");
        nas_json_string(j, strerror(limits->seccomp_errno));
    }
    if (limits->landlock_abi == 0) {
        nas_json_key(j, "landlock_unavailable");
        nas_json_string(j, strerror(limits->landlock_errno));
    }
    if (agent != NULL) {
        nas_json_key(j, "session");
        nas__lease_json(j, &agent->session);
        nas__probe_copy_members(j, &agent->machine);
    } else {
        nas__probe_machine(j);
    }
    nas_json_key(j, "state");
    nas__probe_state(j);
    nas_json_object_end(j);
}

static void blob_route(nas__agent *agent, const nas__http_request *r, nas__slice hash,
                       const char *body, size_t len, const char *body_hash, nas__answer *answer) {
    char path[1024];
    if (!nas__blob_path(&agent->blobs, hash, path, sizeof path)) {
        nas__answer_error(answer, 400, "blob name: need 64 lower-case hex digits");
        return;
    }
    if (nas__slice_is(r->method, "GET")) {
        if (nas__blob_present(&agent->blobs, hash)) {
            answer->status = 200;
            nas_buf_puts(&answer->body, "{\"present\":true}");
        } else {
            nas__answer_error(answer, 404, "no such blob");
        }
        return;
    }
    const bool running = agent->job.state == NAS__JOB_RUNNING;
    nas__blob_put(agent->ctx, &agent->blobs, hash, body, len, body_hash,
                  running ? agent->job_blob : "", &answer->status);
    if (answer->status == 200 || answer->status == 201) {
        nas_buf_puts(&answer->body, "{\"stored\":true}");
    } else {
        nas__answer_error(answer, answer->status, nas_ctx_message(agent->ctx));
    }
}

typedef struct run_request {
    nas__slice blob;
    nas__run_options o;
} run_request;

/* NULL or a static error text. */
static const char *read_run_query(nas__slice query, run_request *out) {
    nas__slice key, value;
    out->o = nas__run_options_default();
    while (nas__http_query_next(&query, &key, &value)) {
        if (nas__slice_is(key, "blob")) {
            if (out->blob.data != NULL) return "blob given twice";
            out->blob = value;
        } else if (!nas__slice_is(key, "session")) { /* that one was looked at before */
            const char *error = nas__run_option_add(&out->o, key, value);
            if (error != NULL) return error;
        }
    }
    return out->blob.data == NULL ? "blob=<sha256> is missing" : nas__run_options_check(&out->o);
}

static void run_route(nas__agent *agent, const nas__http_request *r, nas__answer *answer) {
    run_request run = {0};
    char path[1024];
    const char *error = read_run_query(r->query, &run);
    if (error == NULL && !nas__blob_path(&agent->blobs, run.blob, path, sizeof path)) {
        error = "blob name: need 64 lower-case hex digits";
    }
    if (error != NULL) {
        nas__answer_error(answer, 400, error);
        return;
    }
    nas__job_step(agent->ctx, &agent->job);
    if (nas__job_runs(&agent->job)) {
        nas__answer_error(answer, 409,
                          "busy: one measurement at a time; wait for the running one or delete it");
        return;
    }
    nas_status status = nas__blob_use(agent->ctx, &agent->blobs, run.blob);
    if (status != NAS_OK) {
        nas__answer_error(answer, status == NAS_ERR_NOTFOUND ? 404 : 500,
                          nas_ctx_message(agent->ctx));
        return;
    }
    (void)snprintf(agent->job_blob, sizeof agent->job_blob, "%.*s", (int)run.blob.len,
                   run.blob.data);
    const int64_t id = ++agent->next_id;
    status = nas__job_start(agent->ctx, &agent->job, id, path, agent->o->cache_dir, &run.o);
    if (status != NAS_OK) {
        nas__answer_error(answer, status == NAS_ERR_INVALID ? 400 : 500,
                          nas_ctx_message(agent->ctx));
        return;
    }
    agent->job_in_session = agent->session.token[0] != '\0';
    nas_log(agent->ctx, NAS_LOG_INFO, "run started id=%" PRId64 " blob=%s", id, agent->job_blob);
    answer->status = 202;
    nas_buf_printf(&answer->body, "{\"id\":%" PRId64 "}", id);
}

static void result_route(nas__agent *agent, const nas__http_request *r, nas__slice id_text,
                         nas__answer *answer) {
    uint64_t id = 0, wait_ms = 0;
    nas__slice query = r->query, key, value;
    const bool known =
        nas__slice_u64(id_text, INT64_MAX, &id) && (int64_t)id == agent->job.id && id > 0;
    if (!known) {
        nas__answer_error(answer, 404, "no such run: only the last one is kept");
        return;
    }
    while (nas__http_query_next(&query, &key, &value)) {
        if (nas__slice_is(key, "session")) continue;
        if (!nas__slice_is(key, "wait_ms") ||
            !nas__slice_u64(value, NAS_AGENT_WAIT_MS_MAX, &wait_ms)) {
            nas__answer_error(answer, 400, "query: only wait_ms=0..60000 is known");
            return;
        }
    }
    nas__job_step(agent->ctx, &agent->job);
    if (nas__slice_is(r->method, "DELETE")) {
        nas__job_kill(&agent->job, "killed", "killed on request");
        nas__job_step(agent->ctx, &agent->job);
    } else if (wait_ms > 0 && !agent->job.reaped) {
        answer->hold = true;
        answer->hold_ms = (int64_t)wait_ms;
        return;
    }
    answer->status = 200;
    nas_json j = nas_json_begin(&answer->body);
    nas__job_json(&j, &agent->job);
}

void nas__route(nas__agent *agent, const nas__http_request *request, const char *body, size_t len,
                const char *body_hash, nas__answer *answer) {
    const bool get = nas__slice_is(request->method, "GET"),
               put = nas__slice_is(request->method, "PUT");
    const bool post = nas__slice_is(request->method, "POST"),
               delete = nas__slice_is(request->method, "DELETE");
    nas__slice rest;
    const bool run = post && nas__slice_is(request->path, "/v1/run");
    const bool result = (get || delete) && nas__slice_after(request->path, "/v1/run/", &rest);
    const bool upload = put && nas__slice_after(request->path, "/v1/blob/", &rest);
    nas__lease_check(agent, false);
    if ((run || result || upload) && !nas__lease_admit(agent, request->query, answer)) return;
    if (get && nas__slice_is(request->path, "/v1/info")) {
        nas_json j = nas_json_begin(&answer->body);
        answer->status = 200;
        nas__info_json(&j, &agent->limits, agent);
    } else if (get && nas__slice_is(request->path, "/v1/log")) {
        nas_json j = nas_json_begin(&answer->body);
        answer->status = 200;
        nas__log_json(&j, agent->o->log_file);
    } else if (post && nas__slice_is(request->path, "/v1/session")) {
        nas__lease_take(agent, request->query, answer);
    } else if (delete &&nas__slice_after(request->path, "/v1/session/", &rest)) {
        nas__lease_release(agent, rest, answer);
    } else if ((get || put) && nas__slice_after(request->path, "/v1/blob/", &rest)) {
        blob_route(agent, request, rest, body, len, body_hash, answer);
    } else if (run) {
        run_route(agent, request, answer);
    } else if (result && nas__slice_after(request->path, "/v1/run/", &rest)) {
        result_route(agent, request, rest, answer);
    } else if (post && nas__slice_is(request->path, "/v1/stop")) {
        agent->stopping = true;
        answer->status = 200;
        nas_buf_puts(&answer->body, "{\"stopping\":true}");
    } else {
        nas__answer_error(answer, 404, "no such route; see device-agent/protocol.h");
    }
}
