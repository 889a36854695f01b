/* loan.c - one controller at a time on a shared agent: a session is taken when a device is opened and given back when
 * it is closed (device-agent/protocol.h). In between a thread of its own renews the lease whenever nothing else was
 * asked for a third of it: training may take hours, and the lease is short so that a killed controller's device is
 * soon free. The thread sleeps while a measurement runs, whose questions renew the lease too.
 *
 * A controller that was killed leaves a session behind until its lease ends. Its token lies in the work folder, so that
 * the same study, resumed, ends it first instead of waiting for itself. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LEASE_MS = 120 * 1000, BEATS = 3, QUICK_MS = 2000, TOKEN_BYTES = 16 };

/* ---- the heartbeat --------------------------------------------------------------------------------------------------- */

/* A question about no run: its 404 has renewed the lease. What fails here shows in the next measurement. */
static void renew(nas__client *client) {
    nas__reply reply = {0};
    const nas__request ask = {
        .method = "GET", .target = "/v1/run/0", .timeout_ms = QUICK_MS, .no_cancel = true};
    (void)nas__client_send(NULL, client, &ask, &reply);
    nas_buf_deinit(&reply.body);
}

/* Under the lock; true when it is time to end. */
static bool sleep_ms(nas__heartbeat *h, int64_t ms) {
    struct timespec until;
    (void)clock_gettime(CLOCK_MONOTONIC, &until);
    const int64_t ns = until.tv_nsec + ms % 1000 * 1000000;
    until.tv_sec += (time_t)(ms / 1000 + ns / 1000000000);
    until.tv_nsec = (long)(ns % 1000000000);
    while (!h->ends && pthread_cond_timedwait(&h->wake, &h->lock, &until) == 0) {
    }
    return h->ends;
}

static void *beat(void *user) {
    nas__heartbeat *h = user;
    const int64_t every = h->lease_ms / BEATS;
    int64_t silent = 0;
    (void)pthread_mutex_lock(&h->lock);
    while (!sleep_ms(h, every - silent)) {
        (void)pthread_mutex_unlock(&h->lock);
        silent = nas__client_silent_ms(h->client);
        if (silent >= every) {
            renew(h->client);
            silent = 0; /* also when nobody answered: asked again after a pause */
        }
        (void)pthread_mutex_lock(&h->lock);
    }
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

static bool make_condition(pthread_cond_t *wake) {
    pthread_condattr_t a;
    if (pthread_condattr_init(&a) != 0) return false;
    const bool made =
        pthread_condattr_setclock(&a, CLOCK_MONOTONIC) == 0 && pthread_cond_init(wake, &a) == 0;
    (void)pthread_condattr_destroy(&a);
    return made;
}

static nas_status start_heartbeat(nas_ctx *ctx, nas__heartbeat *h, nas__client *client,
                                  int lease_ms) {
    *h = (nas__heartbeat){.client = client, .lease_ms = lease_ms};
    if (pthread_mutex_init(&h->lock, NULL) != 0)
        return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for a heartbeat");
    const bool has_wake = make_condition(&h->wake);
    h->runs = has_wake && pthread_create(&h->thread, NULL, beat, h) == 0;
    if (h->runs) return NAS_OK;
    if (has_wake) (void)pthread_cond_destroy(&h->wake);
    (void)pthread_mutex_destroy(&h->lock);
    return nas_fail(ctx, NAS_ERR_NOMEM, "no thread for a heartbeat");
}

static void end_heartbeat(nas__heartbeat *h) {
    if (!h->runs) return;
    (void)pthread_mutex_lock(&h->lock);
    h->ends = true;
    (void)pthread_cond_signal(&h->wake);
    (void)pthread_mutex_unlock(&h->lock);
    (void)pthread_join(h->thread, NULL);
    (void)pthread_cond_destroy(&h->wake);
    (void)pthread_mutex_destroy(&h->lock);
    h->runs = false;
}

/* ---- the session ----------------------------------------------------------------------------------------------------- */

static bool token_path(const nas_device *d, char *out, size_t size) {
    char hash[NAS_SHA256_HEX];
    if (d->work_dir == NULL) return false;
    nas_sha256_hex(d->connect, strlen(d->connect), hash);
    return (size_t)snprintf(out, size, "%s/session-%.12s", d->work_dir, hash) < size;
}

static void end_session(nas_device *d, const char *token) {
    char target[80];
    nas__reply reply = {0};
    (void)snprintf(target, sizeof target, "/v1/session/%s", token);
    const nas__request release = {
        .method = "DELETE", .target = target, .timeout_ms = QUICK_MS, .no_cancel = true};
    (void)nas__client_send(NULL, d->client, &release, &reply); /* its lease ends it otherwise */
    nas_buf_deinit(&reply.body);
}

/* Ends the session of a predecessor of this study. */
static void end_left_over(nas_device *d, const char *path) {
    nas_buf text = {0};
    uint8_t raw[TOKEN_BYTES];
    if (nas_file_read(NULL, path, 64, &text) == NAS_OK && text.len == 2 * TOKEN_BYTES &&
        nas_unhex(text.data, sizeof raw, raw)) {
        end_session(d, text.data);
    }
    nas_buf_deinit(&text);
}

nas_status nas__loan_take(nas_ctx *ctx, nas__client *client, int lease_ms, char token[33]) {
    char target[160], holder[NAS_PHONE_HOLDER_BYTES];
    nas__reply reply = {0};
    nas_phone_holder(holder);
    (void)snprintf(target, sizeof target, "/v1/session?holder=%s&lease_ms=%d", holder, lease_ms);
    const nas__request take = {.method = "POST", .target = target, .timeout_ms = NAS__REQUEST_MS};
    nas_status status = nas__client_send(ctx, client, &take, &reply);
    if (status != NAS_OK) return status;
    if (reply.status == 201) {
        status = nas__json_member_text(ctx, &reply.body, "session", token, 33);
    } else if (reply.status == 409) {
        char said[300] = "";
        if (nas__json_member_text(NULL, &reply.body, "error", said, sizeof said) != NAS_OK)
            (void)snprintf(said, sizeof said, "no reason given");
        status = nas_fail(ctx, NAS_ERR_DEVICE, "another controller uses this device: %s", said);
    } else {
        status = nas__reply_error(ctx, "session", &reply);
    }
    nas_buf_deinit(&reply.body);
    return status;
}

nas_status nas__loan_begin(nas_ctx *ctx, nas_device *d) {
    char path[4096], token[33] = "";
    const bool keeps = token_path(d, path, sizeof path);
    if (strstr(d->info, "\"session\":") == NULL) return NAS_OK; /* an agent without sessions */
    if (keeps) end_left_over(d, path);
    const int lease_ms = d->lease_ms > 0 ? d->lease_ms : LEASE_MS;
    nas_status status = nas__loan_take(ctx, d->client, lease_ms, token);
    if (status != NAS_OK) return status;
    nas__client_session(d->client, token, lease_ms);
    status = start_heartbeat(ctx, &d->heartbeat, d->client, lease_ms);
    if (status != NAS_OK || !keeps) return status;
    status = nas_mkdirs(ctx, d->work_dir);
    return status == NAS_OK ? nas_file_write(ctx, path, token, strlen(token), 0600) : status;
}

void nas__loan_end(nas_device *d) {
    char path[4096];
    end_heartbeat(&d->heartbeat);
    const char *token = d->client != NULL ? nas__client_session_of(d->client) : "";
    if (token[0] == '\0') return;
    end_session(d, token);
    if (token_path(d, path, sizeof path)) (void)unlink(path); /* a stale token is harmless */
}
