/* agent_client.c - signed HTTP requests to an agent, and the check of its answers (device-agent/protocol.h).
 *
 * While a measurement runs the controller must stay quiet: the transfer sleeps in curl_multi_poll and wakes every
 * WAKE_MS only to look at the cancel flag. Answers are bounded before they are stored and believed only after their
 * mac has been verified. */
#include "latency/device_internal.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

enum { WAKE_MS = 50, FRESH_MS = NAS_AGENT_IDLE_MS / 2, CONNECT_MS = 5000 };

struct nas__client {
    pthread_mutex_t lock; /* one request at a time: loan.c's heartbeat shares the connection */
    CURL *easy;
    CURLM *multi;
    char *base;
    uint8_t key[NAS_AGENT_KEY_BYTES];
    char nonce[2 * NAS_AGENT_NONCE_BYTES + 1], session[33];
    int lease_ms;
    bool has_nonce;
    uint64_t counter;
    int64_t last_ns;
    char error[CURL_ERROR_SIZE];
};

/* What arrives during one transfer. */
typedef struct arrival {
    nas_buf body;
    char mac[NAS_SHA256_HEX];
    bool too_large;
} arrival;

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_start(void) {
    (void)curl_global_init(CURL_GLOBAL_DEFAULT); /* a failure shows in curl_easy_init */
}

/* Recursive: a session that has ended is taken anew within a request. */
static bool make_lock(pthread_mutex_t *lock) {
    pthread_mutexattr_t a;
    if (pthread_mutexattr_init(&a) != 0) return false;
    const bool made = pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE) == 0 &&
                      pthread_mutex_init(lock, &a) == 0;
    (void)pthread_mutexattr_destroy(&a);
    return made;
}

static size_t on_body(char *data, size_t size, size_t n, void *user) {
    arrival *a = user;
    if (size * n > NAS__REPLY_MAX - a->body.len) {
        a->too_large = true;
        return 0;
    }
    nas_buf_append(&a->body, data, size * n);
    return a->body.failed ? 0 : size * n;
}

static size_t on_header(char *data, size_t size, size_t n, void *user) {
    static const char name[] = "x-nas-mac:";
    arrival *a = user;
    const size_t len = size * n;
    if (len >= 5 && memcmp(data, "HTTP/", 5) == 0)
        a->mac[0] = '\0'; /* a final answer follows "100 Continue" */
    if (len > sizeof name && strncasecmp(data, name, sizeof name - 1) == 0) {
        const char *value = data + sizeof name - 1;
        size_t left = len - (sizeof name - 1);
        while (left > 0 && *value == ' ')
            value++, left--;
        while (left > 0 &&
               (value[left - 1] == '\r' || value[left - 1] == '\n' || value[left - 1] == ' '))
            left--;
        if (left == NAS_SHA256_HEX - 1) {
            memcpy(a->mac, value, left);
            a->mac[left] = '\0';
        }
    }
    return len;
}

nas_status nas__client_new(nas_ctx *ctx, const char *base, const uint8_t key[NAS_AGENT_KEY_BYTES],
                           nas__client **out) {
    nas__client *c = nas_alloc_array(ctx, 1, sizeof *c);
    if (c == NULL) return NAS_ERR_NOMEM;
    if (!make_lock(&c->lock)) {
        nas_free(c);
        return nas_fail(ctx, NAS_ERR_NOMEM, "device %s: no memory for a lock", base);
    }
    (void)pthread_once(&curl_once, curl_start);
    memcpy(c->key, key, sizeof c->key);
    c->base = nas_strdup(ctx, base);
    c->easy = curl_easy_init();
    c->multi = curl_multi_init();
    if (c->base == NULL || c->easy == NULL || c->multi == NULL) {
        nas__client_free(c);
        return nas_fail(ctx, NAS_ERR_NOMEM, "device %s: no memory for a connection", base);
    }
    *out = c;
    return NAS_OK;
}

void nas__client_free(nas__client *c) {
    if (c == NULL) return;
    if (c->easy != NULL) curl_easy_cleanup(c->easy);
    if (c->multi != NULL) (void)curl_multi_cleanup(c->multi);
    (void)pthread_mutex_destroy(&c->lock);
    nas_free(c->base);
    nas_free(c);
}

static bool set_options(nas__client *c, const nas__request *r, const char *url,
                        struct curl_slist *headers, arrival *a) {
    CURL *e = c->easy;
    curl_easy_reset(e); /* keeps connections */
    c->error[0] = '\0';
    CURLcode code = curl_easy_setopt(e, CURLOPT_URL, url);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_PROTOCOLS_STR, "http");
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_PROXY, "");
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    if (code == CURLE_OK)
        code = curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_ERRORBUFFER, c->error);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_TIMEOUT_MS, (long)r->timeout_ms);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_body);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_WRITEDATA, a);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_header);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_HEADERDATA, a);
    if (code == CURLE_OK && strcmp(r->method, "GET") != 0 && strcmp(r->method, "DELETE") != 0) {
        code = curl_easy_setopt(e, CURLOPT_POSTFIELDS, r->len > 0 ? r->body : "");
        if (code == CURLE_OK)
            code = curl_easy_setopt(e, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->len);
    }
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_CUSTOMREQUEST, r->method);
    if (code == CURLE_OK) code = curl_easy_setopt(e, CURLOPT_HTTPHEADER, headers);
    return code == CURLE_OK;
}

/* Drives the transfer to its end, looking at the cancel flag between naps. */
static nas_status drive(nas_ctx *ctx, nas__client *c, const nas__request *r, const arrival *a) {
    int running = 1;
    bool cancelled = false;
    CURLMcode code = curl_multi_add_handle(c->multi, c->easy);
    while (code == CURLM_OK && running > 0 && !cancelled) {
        code = curl_multi_perform(c->multi, &running);
        if (code == CURLM_OK && running > 0)
            code = curl_multi_poll(c->multi, NULL, 0, WAKE_MS, NULL);
        cancelled = !r->no_cancel && ctx != NULL && nas_ctx_cancelled(ctx);
    }
    int left = 0;
    const CURLMsg *message = running == 0 ? curl_multi_info_read(c->multi, &left) : NULL;
    const CURLcode result = message != NULL ? message->data.result : CURLE_ABORTED_BY_CALLBACK;
    (void)curl_multi_remove_handle(c->multi, c->easy);
    c->last_ns = nas_now_ns();
    if (result == CURLE_OK && code == CURLM_OK) return NAS_OK;
    c->has_nonce = false; /* the connection is gone */
    if (cancelled) return nas_fail(ctx, NAS_ERR_CANCELLED, "%s: interrupted", c->base);
    if (a->too_large) {
        return nas_fail(ctx, NAS_ERR_NET, "%s: answer larger than %d bytes", c->base,
                        (int)NAS__REPLY_MAX);
    }
    if (a->body.failed)
        return nas_fail(ctx, NAS_ERR_NOMEM, "%s: no memory for the answer", c->base);
    if (result == CURLE_OPERATION_TIMEDOUT) {
        return nas_fail(ctx, NAS_ERR_TIMEOUT, "%s: no answer to %s %s within %" PRId64 " ms",
                        c->base, r->method, r->target, r->timeout_ms);
    }
    return nas_fail(ctx, NAS_ERR_NET, "%s: %s; is the agent running?", c->base,
                    c->error[0] != '\0' ? c->error : curl_easy_strerror(result));
}

/* One exchange; `mac` is sent when given. On NAS_OK *a holds the answer. */
static nas_status exchange(nas_ctx *ctx, nas__client *c, const nas__request *r, const char *mac,
                           int *status, arrival *a) {
    nas_buf url = {0}, line = {0};
    nas_buf_printf(&url, "%s%s", c->base, r->target);
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:"), *more = headers;
    if (mac != NULL && headers != NULL) {
        nas_buf_printf(&line, "X-Nas-Mac: %s", mac);
        more = curl_slist_append(headers, line.data != NULL ? line.data : "");
        nas_buf_clear(&line);
        nas_buf_printf(&line, "X-Nas-Counter: %" PRIu64, c->counter);
        if (more != NULL) more = curl_slist_append(headers, line.data != NULL ? line.data : "");
    }
    nas_status result = NAS_ERR_NOMEM;
    if (more == NULL || url.failed || line.failed || !set_options(c, r, url.data, headers, a)) {
        result = nas_fail(ctx, NAS_ERR_NOMEM, "%s: no memory for a request", c->base);
    } else {
        result = drive(ctx, c, r, a);
    }
    long http = 0;
    if (result == NAS_OK && curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &http) != CURLE_OK)
        http = 0;
    *status = (int)http;
    curl_slist_free_all(headers);
    nas_buf_deinit(&url);
    nas_buf_deinit(&line);
    if (result != NAS_OK) nas_buf_deinit(&a->body);
    return result;
}

static nas_status take_nonce(nas_ctx *ctx, nas__client *c, bool no_cancel) {
    const nas__request r = {"GET", "/v1/nonce", NULL, 0, NAS__REQUEST_MS, no_cancel};
    arrival a = {0};
    int status = 0;
    uint8_t raw[NAS_AGENT_NONCE_BYTES];
    nas_status result = exchange(ctx, c, &r, NULL, &status, &a);
    if (result != NAS_OK) return result;
    result = status == 200
                 ? nas__json_member_text(NULL, &a.body, "nonce", c->nonce, sizeof c->nonce)
                 : NAS_ERR_NET;
    nas_buf_deinit(&a.body);
    c->has_nonce = result == NAS_OK && nas_unhex(c->nonce, sizeof raw, raw);
    c->counter = 0;
    if (c->has_nonce) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_NET, "%s: no nonce in the answer (HTTP %d); is this a nas-agent?",
                    c->base, status);
}

/* Is the answer signed with our key over our request? */
static nas_status verify(nas_ctx *ctx, const nas__client *c, const char *request_mac, int status,
                         const arrival *a) {
    char expected[NAS_SHA256_HEX];
    nas_agent_sign_answer(c->key, request_mac, status, a->body.data, a->body.len, expected);
    if (strlen(a->mac) == NAS_SHA256_HEX - 1 &&
        nas_equal_constant_time(expected, a->mac, NAS_SHA256_HEX - 1)) {
        return NAS_OK;
    }
    const nas__reply reply = {status, a->body};
    if (status == 401 && a->mac[0] == '\0') {
        return nas_fail(
            ctx, NAS_ERR_DEVICE,
            "%s: the agent refuses our key (HTTP 401), it was started with another: "
            "copy its key file again, or end it ('nas-agent stop adb:SERIAL' on a phone)",
            c->base);
    }
    if (status >= 400 &&
        a->mac[0] == '\0') { /* refused before authentication: an unsigned text, told as such */
        return nas__reply_error(ctx, "request refused, answer unsigned", &reply);
    }
    return nas_fail(
        ctx, NAS_ERR_DEVICE,
        "%s: the answer is not signed with our key (HTTP %d); somebody else listens there", c->base,
        status);
}

/* Takes a nonce when there is none or the agent may have closed the idle connection, then one signed exchange. */
static nas_status send_signed(nas_ctx *ctx, nas__client *c, const nas__request *r,
                              char mac[NAS_SHA256_HEX], int *status, arrival *a) {
    const bool idle = nas_now_ns() - c->last_ns > (int64_t)FRESH_MS * 1000000;
    if (!c->has_nonce || idle) {
        const nas_status result = take_nonce(ctx, c, r->no_cancel);
        if (result != NAS_OK) return result;
    }
    c->counter++;
    nas_agent_sign_request(c->key, r->method, r->target, r->body, r->len, c->nonce, c->counter,
                           mac);
    return exchange(ctx, c, r, mac, status, a);
}

static nas_status send_once(nas_ctx *ctx, nas__client *c, const nas__request *r, nas__reply *out) {
    arrival a = {0};
    char mac[NAS_SHA256_HEX];
    int status = 0;
    nas_status result = send_signed(ctx, c, r, mac, &status, &a);
    if (result == NAS_OK &&
        status == 401) { /* curl may have reconnected, where our nonce is unknown: once more */
        nas_buf_deinit(&a.body);
        a = (arrival){0};
        c->has_nonce = false;
        result = send_signed(ctx, c, r, mac, &status, &a);
    }
    if (result != NAS_OK) return result;
    result = verify(ctx, c, mac, status, &a);
    if (result != NAS_OK) {
        nas_buf_deinit(&a.body);
        c->has_nonce = false;
        return result;
    }
    *out = (nas__reply){status, a.body};
    return NAS_OK;
}

void nas__client_session(nas__client *c, const char *token, int lease_ms) {
    (void)pthread_mutex_lock(&c->lock);
    (void)snprintf(c->session, sizeof c->session, "%s", token);
    c->lease_ms = lease_ms;
    (void)pthread_mutex_unlock(&c->lock);
}

const char *nas__client_session_of(const nas__client *c) {
    return c->session;
}

int64_t nas__client_silent_ms(nas__client *c) {
    (void)pthread_mutex_lock(&c->lock);
    const int64_t ms = (nas_now_ns() - c->last_ns) / 1000000;
    (void)pthread_mutex_unlock(&c->lock);
    return ms;
}

/* The same request with our session in its query. */
static nas_status send_in_session(nas_ctx *ctx, nas__client *c, const nas__request *r,
                                  nas__reply *out) {
    nas_buf target = {0};
    nas_buf_printf(&target, "%s%csession=%s", r->target, strchr(r->target, '?') != NULL ? '&' : '?',
                   c->session);
    nas_status status = nas_buf_status(ctx, &target);
    nas__request with = *r;
    with.target = target.data;
    if (status == NAS_OK) status = send_once(ctx, c, &with, out);
    nas_buf_deinit(&target);
    return status;
}

static nas_status send_held(nas_ctx *ctx, nas__client *c, const nas__request *r, nas__reply *out) {
    const bool needs =
        strncmp(r->target, "/v1/run", 7) == 0 || strncmp(r->target, "/v1/blob/", 9) == 0;
    if (c->session[0] == '\0' || !needs) return send_once(ctx, c, r, out);
    nas__reply reply = {0};
    nas_status status = send_in_session(ctx, c, r, &reply);
    if (status == NAS_OK && reply.status == 410) { /* we were silent for longer than the lease */
        nas_buf_deinit(&reply.body);
        reply = (nas__reply){0};
        status = nas__loan_take(ctx, c, c->lease_ms, c->session);
        if (status == NAS_OK) status = send_in_session(ctx, c, r, &reply);
    }
    if (status == NAS_OK) *out = reply;
    return status;
}

nas_status nas__client_send(nas_ctx *ctx, nas__client *c, const nas__request *r, nas__reply *out) {
    (void)pthread_mutex_lock(&c->lock);
    const nas_status status = send_held(ctx, c, r, out);
    (void)pthread_mutex_unlock(&c->lock);
    return status;
}

nas_status nas__reply_error(nas_ctx *ctx, const char *what, const nas__reply *reply) {
    char text[400] = "";
    if (nas__json_member_text(NULL, &reply->body, "error", text, sizeof text) != NAS_OK) {
        (void)snprintf(text, sizeof text, "no reason given");
    }
    return nas_fail(ctx, NAS_ERR_DEVICE, "%s: HTTP %d: %s", what, reply->status, text);
}
