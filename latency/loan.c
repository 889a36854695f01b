/* loan.c - one controller at a time on a shared agent: a session is taken when a device is opened and given back when
 * it is closed (device-agent/protocol.h).
 *
 * A controller that was killed leaves a session behind until its lease ends. Its token lies in the work folder, so that
 * the same study, resumed, ends it first instead of waiting for itself. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* Longer than the training between two measurements: nobody slips in there. */
enum { LEASE_MS = 600 * 1000, QUICK_MS = 2000, TOKEN_BYTES = 16 };

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

nas_status nas__loan_take(nas_ctx *ctx, nas__client *client, char token[33]) {
    char target[160], holder[NAS_PHONE_HOLDER_BYTES];
    nas__reply reply = {0};
    nas_phone_holder(holder);
    (void)snprintf(target, sizeof target, "/v1/session?holder=%s&lease_ms=%d", holder,
                   (int)LEASE_MS);
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
    nas_status status = nas__loan_take(ctx, d->client, token);
    if (status != NAS_OK) return status;
    nas__client_session(d->client, token);
    if (!keeps) return NAS_OK;
    status = nas_mkdirs(ctx, d->work_dir);
    return status == NAS_OK ? nas_file_write(ctx, path, token, strlen(token), 0600) : status;
}

void nas__loan_end(nas_device *d) {
    char path[4096];
    const char *token = d->client != NULL ? nas__client_session_of(d->client) : "";
    if (token[0] == '\0') return;
    end_session(d, token);
    if (token_path(d, path, sizeof path)) (void)unlink(path); /* a stale token is harmless */
}
