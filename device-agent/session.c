/* session.c - one controller at a time: who holds the agent, until when, and what becomes of a run nobody waits for.
 *
 * A session is a random token that its holder puts into the (signed) targets of its requests. Each one renews the
 * lease, and so does a held answer; a controller that dies loses it when the lease ends. */
#include "device-agent/agent_internal.h"

#include <stdio.h>
#include <string.h>

static bool holder_ok(nas__slice holder) {
    return holder.len > 0 && holder.len < sizeof((nas__session *)NULL)->holder;
}

static const char *read_query(nas__slice query, nas__slice *holder, uint64_t *lease_ms) {
    nas__slice key, value;
    while (nas__http_query_next(&query, &key, &value)) {
        if (nas__slice_is(key, "holder")) {
            if (holder->data != NULL) return "holder given twice";
            *holder = value;
        } else if (nas__slice_is(key, "lease_ms")) {
            if (!nas__slice_u64(value, NAS_AGENT_LEASE_MS_MAX, lease_ms) ||
                *lease_ms < NAS_AGENT_LEASE_MS_MIN) {
                return "lease_ms: need 1000 to 3600000";
            }
        } else {
            return "query: only holder and lease_ms are known";
        }
    }
    return holder_ok(*holder) ? NULL : "holder=<who you are>, 1 to 63 characters, is missing";
}

static int64_t lease_left_ms(const nas__session *s) {
    const int64_t left = s->renewed_ns / 1000000 + s->lease_ms - nas_now_ns() / 1000000;
    return left > 0 ? left : 0;
}

/* 409 with the holder as text and as members. */
static void refuse(const nas__session *s, nas__answer *answer) {
    char text[256];
    (void)snprintf(text, sizeof text,
                   "in use by %s; its lease ends in %" PRId64
                   " s unless it renews it: wait, or end that controller",
                   s->holder, (lease_left_ms(s) + 999) / 1000);
    nas_buf_clear(&answer->body);
    answer->status = 409;
    nas_json j = nas_json_begin(&answer->body);
    nas_json_object(&j);
    nas_json_key(&j, "error");
    nas_json_string(&j, text);
    nas_json_key(&j, "holder");
    nas_json_string(&j, s->holder);
    nas_json_key(&j, "lease_left_ms");
    nas_json_int(&j, lease_left_ms(s));
    nas_json_object_end(&j);
}

void nas__lease_take(nas__agent *agent, nas__slice query, nas__answer *answer) {
    nas__session *s = &agent->session;
    nas__slice holder = {NULL, 0};
    uint64_t lease_ms = NAS_AGENT_LEASE_MS;
    uint8_t raw[NAS_AGENT_NONCE_BYTES];
    const char *error = read_query(query, &holder, &lease_ms);
    if (error != NULL) {
        nas__answer_error(answer, 400, error);
        return;
    }
    if (s->token[0] != '\0') {
        refuse(s, answer);
        return;
    }
    if (nas_random_bytes(agent->ctx, raw, sizeof raw) != NAS_OK) {
        nas__answer_error(answer, 500, nas_ctx_message(agent->ctx));
        return;
    }
    nas_hex(raw, sizeof raw, s->token);
    (void)snprintf(s->holder, sizeof s->holder, "%.*s", (int)holder.len, holder.data);
    s->lease_ms = (int64_t)lease_ms;
    s->renewed_ns = nas_now_ns();
    nas_log(agent->ctx, NAS_LOG_INFO, "session begins holder=%s lease_ms=%" PRId64, s->holder,
            s->lease_ms);
    answer->status = 201;
    nas_buf_printf(&answer->body, "{\"session\":\"%s\",\"lease_ms\":%" PRId64 "}", s->token,
                   s->lease_ms);
}

void nas__lease_end(nas__agent *agent, const char *reason, const char *why) {
    nas__session *s = &agent->session;
    if (s->token[0] == '\0') return;
    nas_log(agent->ctx, NAS_LOG_INFO, "session ends holder=%s: %s", s->holder, why);
    if (agent->job_in_session) nas__job_kill(&agent->job, reason, why);
    *s = (nas__session){0};
}

static bool token_is(const nas__session *s, nas__slice token) {
    return s->token[0] != '\0' && token.len == sizeof s->token - 1 &&
           nas_equal_constant_time(s->token, token.data, token.len);
}

void nas__lease_release(nas__agent *agent, nas__slice token, nas__answer *answer) {
    if (!token_is(&agent->session, token)) {
        nas__answer_error(answer, 404, "no such session: it ended already");
        return;
    }
    nas__lease_end(agent, "killed", "its controller released it");
    answer->status = 200;
    nas_buf_puts(&answer->body, "{\"released\":true}");
}

/* Takes "session=..." out of a query; the rest is in `rest` (cut text). */
bool nas__lease_admit(nas__agent *agent, nas__slice query, nas__answer *answer) {
    nas__session *s = &agent->session;
    nas__slice key, value, token = {NULL, 0};
    while (nas__http_query_next(&query, &key, &value)) {
        if (nas__slice_is(key, "session")) token = value;
    }
    if (token.data == NULL) {
        if (s->token[0] == '\0') return true;
        refuse(s, answer);
        return false;
    }
    if (token_is(s, token)) {
        s->renewed_ns = nas_now_ns();
        return true;
    }
    nas__answer_error(answer, 410,
                      "this session ended (lease over, or the agent was restarted): take a new "
                      "one with POST /v1/session");
    return false;
}

void nas__lease_check(nas__agent *agent, bool held) {
    const int64_t now = nas_now_ns();
    nas__session *s = &agent->session;
    nas__job *job = &agent->job;
    if (held) s->renewed_ns = agent->asked_ns = now;
    if (s->token[0] != '\0' && now >= s->renewed_ns + s->lease_ms * 1000000)
        nas__lease_end(agent, "lease", "its controller went away: the lease is over");
    if (nas__job_runs(job) && !job->stopped &&
        now >= agent->asked_ns + agent->o->abandon_ms * 1000000) {
        char why[120];
        (void)snprintf(why, sizeof why,
                       "the controller went away: nobody has asked for this run for %" PRId64 " ms",
                       agent->o->abandon_ms);
        nas_log(agent->ctx, NAS_LOG_WARN, "run killed id=%" PRId64 ": %s", job->id, why);
        nas__job_kill(job, "abandoned", why);
    }
}

int64_t nas__lease_due_ns(const nas__agent *agent) {
    const nas__session *s = &agent->session;
    int64_t due = INT64_MAX;
    if (s->token[0] != '\0') due = s->renewed_ns + s->lease_ms * 1000000;
    const int64_t abandoned = agent->asked_ns + agent->o->abandon_ms * 1000000;
    if (nas__job_runs(&agent->job) && !agent->job.stopped && abandoned < due) due = abandoned;
    return due;
}

void nas__lease_json(nas_json *j, const nas__session *s) {
    if (s->token[0] == '\0') {
        nas_json_null(j);
        return;
    }
    nas_json_object(j);
    nas_json_key(j, "holder");
    nas_json_string(j, s->holder);
    nas_json_key(j, "lease_left_ms");
    nas_json_int(j, lease_left_ms(s));
    nas_json_object_end(j);
}
