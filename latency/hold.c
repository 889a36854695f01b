/* hold.c - one controller at a time: this process takes the agent when it opens the device and gives it back when it
 * closes it; another controller is told who holds it. A private local agent is nobody else's and is not taken.
 *
 * The lease only lapses during long pauses (training, compiling) when another controller may take the device; the next
 * request then takes it anew or says who has it now. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "latency/device_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LEASE_MS = 300 * 1000, RELEASE_MS = 2000 };

/* Letters, digits, '.', '_', '-' of `text`, at most size - 1. */
static void put_name(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; *text != '\0' && n + 1 < size; text++) {
        const char c = *text;
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                           (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        out[n++] = plain ? c : '-';
    }
    out[n] = '\0';
}

/* user/host/pid: what another controller's person is told. */
static void holder_name(char *out, size_t size) {
    const char *user = getenv("USER");
    char host[256] = "", name[20], machine[28];
    if (gethostname(host, sizeof host - 1) != 0) host[0] = '\0';
    put_name(name, sizeof name, user != NULL && user[0] != '\0' ? user : "user");
    put_name(machine, sizeof machine, host[0] != '\0' ? host : "host");
    (void)snprintf(out, size, "%s/%s/%ld", name, machine, (long)getpid());
}

nas_status nas__hold_take(nas_ctx *ctx, nas_device *d) {
    char target[160], holder[64];
    nas__reply reply = {0};
    d->session[0] = '\0';
    holder_name(holder, sizeof holder);
    (void)snprintf(target, sizeof target, "/v1/session?holder=%s&lease_ms=%d", holder,
                   (int)LEASE_MS);
    const nas__request post = {.method = "POST", .target = target, .timeout_ms = NAS__REQUEST_MS};
    nas_status status = nas__client_send(ctx, d->client, &post, &reply);
    if (status != NAS_OK) return status;
    if (reply.status == 201) {
        status = nas__json_member_text(ctx, &reply.body, "session", d->session, sizeof d->session);
    } else {
        status = nas__reply_error(ctx, reply.status == 409 ? "the device" : "session", &reply);
    }
    nas_buf_deinit(&reply.body);
    return status;
}

void nas__hold_release(nas_device *d) {
    char target[80];
    nas__reply reply = {0};
    if (d->session[0] == '\0' || d->client == NULL) return;
    (void)snprintf(target, sizeof target, "/v1/session/%s", d->session);
    const nas__request request = {
        .method = "DELETE", .target = target, .timeout_ms = RELEASE_MS, .no_cancel = true};
    (void)nas__client_send(NULL, d->client, &request, &reply); /* its lease ends it otherwise */
    nas_buf_deinit(&reply.body);
    d->session[0] = '\0';
}

nas_status nas__held_send(nas_ctx *ctx, nas_device *d, const nas__request *request,
                          nas__reply *out) {
    char target[1024];
    for (int attempt = 0;; attempt++) {
        nas__request r = *request;
        if (d->session[0] != '\0') {
            const char *join = strchr(r.target, '?') != NULL ? "&" : "?";
            (void)snprintf(target, sizeof target, "%s%ssession=%s", r.target, join, d->session);
            r.target = target;
        }
        nas_status status = nas__client_send(ctx, d->client, &r, out);
        if (status != NAS_OK || out->status != 410 || attempt > 0) return status;
        nas_buf_deinit(&out->body);
        *out = (nas__reply){0};
        status = nas__hold_take(ctx, d);
        if (status != NAS_OK) return status;
    }
}
