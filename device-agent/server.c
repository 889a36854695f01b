/* server.c - the agent's sockets: a listener and at most NAS_AGENT_CONNECTIONS_MAX connections in one ppoll loop.
 *
 * Invariants: a body's announced size is compared with its limit before it is read; nothing but GET /v1/nonce is acted
 * on before its mac is verified; one thread, so a request sees the agent at rest. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    REQUEST_MS_MAX = 60 * 1000, /* from the first byte of a request to its last */
    LINGER_MS =
        1000, /* reading on after an answer that closes, so that the client gets to see it */
    PARENT_CHECK_MS = 1000,
    FDS_MAX = NAS_AGENT_CONNECTIONS_MAX + 3,
    NONCE_HEX = 2 * NAS_AGENT_NONCE_BYTES
};

typedef enum phase { READING, HOLDING, WRITING, DRAINING } phase;

typedef struct connection {
    int fd; /* -1: free slot */
    phase phase;
    nas_buf in, out;
    size_t sent;
    int64_t last_ns, begun_ns; /* last progress; first byte of the current request, 0 = none */
    bool close_after, continued;
    bool has_nonce;
    char nonce[NONCE_HEX + 1];
    uint64_t counter;
    char request_mac[NAS_SHA256_HEX];
    int64_t hold_until_ns, hold_id; /* HOLDING: GET /v1/run/<id>?wait_ms */
} connection;

typedef struct server {
    nas__agent agent;
    int listener;
    nas__address address;
    connection connections[NAS_AGENT_CONNECTIONS_MAX];
} server;

/* Set by signal handlers, which can reach nothing else. */
static volatile sig_atomic_t end_requested;

static void on_end(int number) {
    (void)number;
    end_requested = 1;
}

static void on_wake(int number) {
    (void)number; /* SIGCHLD, or the parent's end: ppoll returns and the loop looks for itself */
}

/* ---- answers ------------------------------------------------------------------------------------------------------ */

static const char *reason(int status) {
    switch (status) {
    case 200: return "OK";
    case 201: return "Created";
    case 202: return "Accepted";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 409: return "Conflict";
    case 410: return "Gone";
    case 411: return "Length Required";
    case 413: return "Content Too Large";
    case 422: return "Unprocessable Content";
    case 503: return "Service Unavailable";
    case 507: return "Insufficient Storage";
    default: return "Internal Server Error";
    }
}

static void connection_close(connection *c) {
    if (c->fd >= 0) (void)close(c->fd);
    nas_buf_deinit(&c->in);
    nas_buf_deinit(&c->out);
    *c = (connection){.fd = -1};
}

static void flush(connection *c) {
    while (c->sent < c->out.len) {
        const ssize_t n = send(c->fd, c->out.data + c->sent, c->out.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) {
            connection_close(c);
            return;
        }
        c->sent += (size_t)n;
        c->last_ns = nas_now_ns();
    }
    nas_buf_clear(&c->out);
    c->sent = 0;
    c->phase = READING;
    if (c->close_after) {
        (void)shutdown(c->fd, SHUT_WR);
        nas_buf_deinit(&c->in);
        c->phase = DRAINING;
    }
}

/* Queues one answer; signed when `mac` names the request it answers. Takes the body. */
static void reply(const uint8_t *key, connection *c, nas__answer *answer, const char *mac) {
    char own_mac[NAS_SHA256_HEX];
    if (answer->body.failed) {
        nas_buf_deinit(&answer->body);
        answer->status = 500;
        nas_buf_puts(&answer->body, "{\"error\":\"the agent is out of memory\"}");
    }
    nas_buf_printf(&c->out,
                   "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: "
                   "%zu\r\nConnection: %s\r\n",
                   answer->status, reason(answer->status), answer->body.len,
                   c->close_after ? "close" : "keep-alive");
    if (mac != NULL) {
        nas_agent_sign_answer(key, mac, answer->status, answer->body.data, answer->body.len,
                              own_mac);
        nas_buf_printf(&c->out, "X-Nas-Mac: %s\r\n", own_mac);
    }
    nas_buf_puts(&c->out, "\r\n");
    nas_buf_append(&c->out, answer->body.data != NULL ? answer->body.data : "", answer->body.len);
    const bool lost = c->out.failed;
    nas_buf_deinit(&answer->body);
    if (lost) { /* no memory for an answer: the client sees the connection end */
        connection_close(c);
        return;
    }
    c->phase = WRITING;
    flush(c);
}

static void reply_error(const uint8_t *key, connection *c, int status, const char *message,
                        const char *mac) {
    nas__answer answer = {0};
    nas__answer_error(&answer, status, message);
    reply(key, c, &answer, mac);
}

/* ---- requests ----------------------------------------------------------------------------------------------------- */

static void give_nonce(server *s, connection *c) {
    uint8_t raw[NAS_AGENT_NONCE_BYTES];
    if (nas_random_bytes(s->agent.ctx, raw, sizeof raw) != NAS_OK) {
        reply_error(s->agent.key, c, 500, nas_ctx_message(s->agent.ctx), NULL);
        return;
    }
    nas_hex(raw, sizeof raw, c->nonce);
    c->has_nonce = true;
    c->counter = 0;
    nas__answer answer = {.status = 200};
    nas_buf_printf(&answer.body, "{\"nonce\":\"%s\",\"protocol\":%d}", c->nonce,
                   (int)NAS_AGENT_PROTOCOL);
    reply(s->agent.key, c, &answer, NULL);
}

/* NULL when the request is authentic; else why not. The counter moves only for authentic requests. */
static const char *authenticate(const server *s, connection *c, const nas__http_request *r,
                                const char *body_hash) {
    char method[16], target[NAS_AGENT_HEADER_MAX + 1], expected[NAS_SHA256_HEX];
    if (!c->has_nonce) return "GET /v1/nonce first: this connection has no nonce";
    if (r->mac.len != NAS_SHA256_HEX - 1 || !r->has_counter)
        return "X-Nas-Mac or X-Nas-Counter is missing";
    if (r->method.len >= sizeof method || r->target.len >= sizeof target)
        return "method or target too long";
    (void)snprintf(method, sizeof method, "%.*s", (int)r->method.len, r->method.data);
    (void)snprintf(target, sizeof target, "%.*s", (int)r->target.len, r->target.data);
    nas__sign_request_hashed(s->agent.key, method, target, body_hash, c->nonce, r->counter,
                             expected);
    if (!nas_equal_constant_time(expected, r->mac.data, NAS_SHA256_HEX - 1)) {
        return "signature does not match: do both sides use the same key?";
    }
    if (r->counter <= c->counter) return "counter did not rise: request replayed";
    c->counter = r->counter;
    return NULL;
}

static void handle(server *s, connection *c, const nas__http_request *r, const char *body,
                   size_t len) {
    c->close_after = !r->keep_alive;
    if (nas__slice_is(r->method, "GET") && nas__slice_is(r->path, "/v1/nonce")) {
        give_nonce(s, c);
        return;
    }
    char body_hash[NAS_SHA256_HEX];
    nas_sha256_hex(len > 0 ? body : "", len, body_hash);
    const char *refused = authenticate(s, c, r, body_hash);
    if (refused != NULL) {
        nas_log(s->agent.ctx, NAS_LOG_WARN, "request refused: %s", refused);
        reply_error(s->agent.key, c, 401, refused, NULL);
        return;
    }
    s->agent.asked_ns = nas_now_ns();
    nas__answer answer = {0};
    (void)snprintf(c->request_mac, sizeof c->request_mac, "%.*s", (int)r->mac.len, r->mac.data);
    nas__route(&s->agent, r, body, len, body_hash, &answer);
    if (!answer.hold) {
        reply(s->agent.key, c, &answer, c->request_mac);
        return;
    }
    c->phase = HOLDING;
    c->hold_id = s->agent.job.id;
    c->hold_until_ns = nas_now_ns() + answer.hold_ms * 1000000;
}

static void take(connection *c, size_t n) {
    if (c->fd < 0 || c->in.data == NULL) return; /* closed while it was answered */
    if (n >= c->in.len) {
        nas_buf_deinit(&c->in); /* an upload's buffer goes back at once */
    } else {
        memmove(c->in.data, c->in.data + n, c->in.len - n);
        c->in.len -= n;
        c->in.data[c->in.len] = '\0';
    }
    c->continued = false;
    c->begun_ns = c->in.len > 0 ? nas_now_ns() : 0;
}

/* Carries out every complete request in the buffer, as long as the answers go out. */
static void process(server *s, connection *c) {
    while (c->fd >= 0 && c->phase == READING && c->in.len > 0) {
        nas__http_request r;
        const nas__http_result result = nas__http_parse(c->in.data, c->in.len, &r);
        if (result == NAS__HTTP_MORE) return;
        int status = result == NAS__HTTP_BAD ? r.error_status : 0;
        const char *error = r.error;
        if (result == NAS__HTTP_OK && !r.has_length &&
            (nas__slice_is(r.method, "PUT") || nas__slice_is(r.method, "POST"))) {
            status = 411;
            error = "Content-Length is missing";
        } else if (result == NAS__HTTP_OK && r.content_length > nas__route_body_max(&r)) {
            status = 413;
            error = "body too large: blobs have at most 67108864 bytes, other requests 4096";
        }
        if (status != 0) { /* where the next request would begin is unknown: the connection ends */
            c->close_after = true;
            reply_error(s->agent.key, c, status, error, NULL);
            return;
        }
        const size_t body = (size_t)r.content_length, total = r.head_bytes + body;
        if (c->in.len < total) {
            static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
            if (r.expect_continue && !c->continued)
                (void)send(c->fd, go_on, sizeof go_on - 1, MSG_NOSIGNAL);
            c->continued = true;
            return;
        }
        handle(s, c, &r, c->in.data + r.head_bytes, body);
        take(c, total);
    }
}

static void receive(server *s, connection *c) {
    char chunk[65536];
    const ssize_t n = recv(c->fd, chunk, sizeof chunk, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n <= 0) {
        connection_close(c);
        return;
    }
    if (c->phase == DRAINING) return;
    c->last_ns = nas_now_ns();
    if (c->begun_ns == 0) c->begun_ns = c->last_ns;
    nas_buf_append(&c->in, chunk, (size_t)n);
    if (c->in.failed) {
        connection_close(c);
        return;
    }
    process(s, c);
}

/* ---- the loop ----------------------------------------------------------------------------------------------------- */

static void accept_one(server *s) {
    static const char full[] =
        "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 34\r\nConnection: close\r\n\r\n"
        "{\"error\":\"too many connections\"}\r\n";
    const int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return; /* the client went away again, or no descriptors: the next wake-up tries anew */
    int64_t uid = 0;
    if (!nas__peer_allowed(&s->address, fd, &uid)) {
        nas_log(s->agent.ctx, NAS_LOG_WARN, "connection refused uid=%" PRId64, uid);
        (void)close(fd);
        return;
    }
    const int on = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* slower without, not wrong */
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        if (s->connections[i].fd >= 0) continue;
        s->connections[i] = (connection){.fd = fd, .last_ns = nas_now_ns()};
        return;
    }
    (void)send(fd, full, sizeof full - 1, MSG_NOSIGNAL);
    (void)close(fd);
}

/* When the connection is to be closed for idleness, or its held answer is due. */
static int64_t due_ns(const connection *c) {
    const int64_t ms = 1000000;
    if (c->phase == HOLDING) return c->hold_until_ns;
    if (c->phase == DRAINING) return c->last_ns + LINGER_MS * ms;
    const int64_t idle = c->last_ns + NAS_AGENT_IDLE_MS * ms;
    const int64_t whole = c->begun_ns + REQUEST_MS_MAX * ms;
    return c->begun_ns > 0 && whole < idle ? whole : idle;
}

static void check_times(server *s) {
    const int64_t now = nas_now_ns();
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        connection *c = &s->connections[i];
        if (c->fd < 0) continue;
        if (c->phase == HOLDING) {
            const bool same = s->agent.job.id == c->hold_id;
            if (same && !s->agent.job.reaped && now < c->hold_until_ns) continue;
            nas__answer answer = {.status = 200};
            nas_json j = nas_json_begin(&answer.body);
            if (same) nas__job_json(&j, &s->agent.job);
            if (!same) nas__answer_error(&answer, 404, "no such run: only the last one is kept");
            reply(s->agent.key, c, &answer, c->request_mac);
            process(s, c);
        } else if (now >= due_ns(c)) {
            connection_close(c);
        }
    }
}

/* Does a controller wait for the run right now? */
static bool is_held(const server *s) {
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        if (s->connections[i].fd >= 0 && s->connections[i].phase == HOLDING) return true;
    }
    return false;
}

static struct timespec next_timeout(const server *s) {
    const int64_t now = nas_now_ns();
    int64_t wait = (int64_t)NAS_AGENT_IDLE_MS * 1000000;
    if (s->agent.o->parent_pid > 0) wait = (int64_t)PARENT_CHECK_MS * 1000000;
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        const connection *c = &s->connections[i];
        if (c->fd >= 0 && due_ns(c) - now < wait) wait = due_ns(c) - now;
    }
    const int64_t job_due = nas__job_due_ns(&s->agent.job);
    if (job_due - now < wait) wait = job_due - now;
    const int64_t due = nas__lease_due_ns(&s->agent);
    if (due - now < wait) wait = due - now;
    if (wait < 0) wait = 0;
    return (struct timespec){(time_t)(wait / 1000000000), (long)(wait % 1000000000)};
}

static void wait_and_serve(server *s, const sigset_t *open_signals) {
    struct pollfd fds[FDS_MAX];
    connection *of[FDS_MAX] = {NULL};
    nfds_t n = 0;
    fds[n++] = (struct pollfd){.fd = s->listener, .events = POLLIN};
    fds[n++] =
        (struct pollfd){.fd = s->agent.job.pid > 0 ? s->agent.job.out_fd : -1, .events = POLLIN};
    fds[n++] =
        (struct pollfd){.fd = s->agent.job.pid > 0 ? s->agent.job.err_fd : -1, .events = POLLIN};
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        connection *c = &s->connections[i];
        if (c->fd < 0) continue;
        const short events = c->phase == WRITING   ? POLLOUT
                             : c->phase == HOLDING ? POLLRDHUP
                                                   : POLLIN;
        of[n] = c;
        fds[n++] = (struct pollfd){.fd = c->fd, .events = events};
    }
    const struct timespec timeout = next_timeout(s);
    const int ready = ppoll(fds, n, &timeout, open_signals);
    nas__job_step(s->agent.ctx, &s->agent.job);
    check_times(s);
    nas__lease_check(&s->agent, is_held(s));
    if (ready <= 0) return;
    for (nfds_t i = 3; i < n; i++) {
        connection *c = of[i];
        if (fds[i].revents == 0 || c->fd != fds[i].fd) continue;
        if (c->phase == WRITING && (fds[i].revents & POLLOUT) != 0) {
            flush(c);
            process(s, c);
        } else if (c->phase == HOLDING && (fds[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
            connection_close(c);
        } else if (c->phase == READING || c->phase == DRAINING) {
            receive(s, c);
        } else if ((fds[i].revents & (POLLHUP | POLLERR)) != 0) {
            connection_close(c);
        }
    }
    if ((fds[0].revents & POLLIN) != 0) accept_one(s);
}

static bool still_writing(const server *s) {
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        if (s->connections[i].fd >= 0 && s->connections[i].phase == WRITING) return true;
    }
    return false;
}

/* SIGCHLD, SIGUSR1 (parent death) and the ending signals arrive inside ppoll and nowhere else. */
static void install_signals(sigset_t *outside) {
    static const int ends[] = {SIGTERM, SIGINT, SIGHUP}, wakes[] = {SIGCHLD, SIGUSR1};
    struct sigaction action = {0};
    sigset_t blocked;
    sigemptyset(&blocked);
    sigemptyset(&action.sa_mask);
    action.sa_handler = on_end;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        (void)sigaction(ends[i], &action, NULL);
        sigaddset(&blocked, ends[i]);
    }
    action.sa_handler = on_wake;
    for (size_t i = 0; i < sizeof wakes / sizeof *wakes; i++) {
        (void)sigaction(wakes[i], &action, NULL);
        sigaddset(&blocked, wakes[i]);
    }
    (void)signal(SIGPIPE, SIG_IGN);
    (void)sigprocmask(SIG_BLOCK, &blocked, outside);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        sigdelset(outside, ends[i]);
    for (size_t i = 0; i < sizeof wakes / sizeof *wakes; i++)
        sigdelset(outside, wakes[i]);
}

static nas_status watch_parent(nas_ctx *ctx, int64_t parent_pid) {
    if (parent_pid <= 0) return NAS_OK;
    if (prctl(PR_SET_PDEATHSIG, SIGUSR1, 0, 0, 0) != 0) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "parent death signal: %s", strerror(errno));
    }
    if ((int64_t)getppid() != parent_pid) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--parent-pid %" PRId64 ": the parent is %ld",
                        parent_pid, (long)getppid());
    }
    return NAS_OK;
}

static nas_status server_open(nas_ctx *ctx, const nas__agent_options *o, server *s) {
    nas_status status = nas_agent_key_read(ctx, o->key_file, s->agent.key);
    if (status == NAS_OK)
        status = nas__blobs_init(ctx, &s->agent.blobs, o->cache_dir, o->cache_bytes);
    if (status == NAS_OK) status = nas__sandbox_probe(ctx, &s->agent.limits);
    if (status != NAS_OK) return status;
    nas__job_sweep(o->cache_dir);
    char memory[1000];
    (void)snprintf(memory, sizeof memory, "%s/" NAS__FREQUENCY_MEMORY, o->cache_dir);
    nas__frequency_recover(ctx, memory);
    nas_json j = nas_json_begin(&s->agent.machine);
    nas_json_object(&j);
    nas__probe_machine(&j);
    nas_json_object_end(&j);
    status = nas_buf_status(ctx, &s->agent.machine);
    if (status == NAS_OK) status = nas__listen(ctx, &s->address, o->allow_remote, &s->listener);
    return status;
}

nas_status nas__serve(nas_ctx *ctx, const nas__agent_options *o) {
    sigset_t outside;
    char where[128];
    server *s = nas_alloc_array(ctx, 1, sizeof *s);
    if (s == NULL) return NAS_ERR_NOMEM;
    s->agent.ctx = ctx;
    s->agent.o = o;
    s->address = o->address;
    s->listener = -1;
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++)
        s->connections[i].fd = -1;
    end_requested = 0;
    install_signals(&outside);
    nas_status status = watch_parent(ctx, o->parent_pid);
    if (status == NAS_OK) status = server_open(ctx, o, s);
    if (status == NAS_OK) {
        nas__address_text(&s->address, where, sizeof where);
        status = o->ready(ctx, o->ready_user, where);
    }
    int64_t stop_ns = 0; /* after /v1/stop the answer has a second to go out */
    while (status == NAS_OK && !end_requested) {
        if (o->parent_pid > 0 && (int64_t)getppid() != o->parent_pid) break;
        if (s->agent.stopping && stop_ns == 0)
            stop_ns = nas_now_ns() + (int64_t)LINGER_MS * 1000000;
        if (s->agent.stopping && (!still_writing(s) || nas_now_ns() > stop_ns)) break;
        wait_and_serve(s, &outside);
    }
    nas__job_deinit(ctx, &s->agent.job);
    nas_buf_deinit(&s->agent.machine);
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++)
        connection_close(&s->connections[i]);
    nas__listen_end(&s->address, s->listener);
    nas_free(s);
    return status;
}
