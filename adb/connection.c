/* connection.c - one socket to the adb server: bounded reads and writes, requests and their answers. */
#include "adb/adb_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { WAKE_MS = 50 };

/* Waits until the socket is ready, the deadline passes or the call is cancelled. */
static nas_status await(nas_ctx *ctx, const nas__adb_link *link, short events, short *seen) {
    for (;;) {
        nas_status status = ctx != NULL ? nas_check_cancel(ctx) : NAS_OK;
        if (status != NAS_OK) return status;
        const int64_t left_ms = (link->end_ns - nas_now_ns()) / 1000000;
        if (left_ms <= 0) return nas_fail(ctx, NAS_ERR_TIMEOUT, "%s: no answer in time", link->who);
        struct pollfd wait = {.fd = link->fd, .events = events};
        const int ready = poll(&wait, 1, left_ms < WAKE_MS ? (int)left_ms : WAKE_MS);
        if (ready > 0) {
            *seen = wait.revents;
            return NAS_OK;
        }
        if (ready < 0 && errno != EINTR)
            return nas_fail(ctx, NAS_ERR_IO, "%s: poll: %s", link->who, strerror(errno));
    }
}

nas_status nas__adb_connect(nas_ctx *ctx, const nas_adb *adb, const char *who, nas__adb_link *out) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)adb->port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    nas__adb_link link = {.fd = socket(AF_INET, SOCK_STREAM, 0),
                          .end_ns = nas_now_ns() + adb->timeout_ms * 1000000,
                          .who = who};
    if (link.fd < 0) return nas_fail(ctx, NAS_ERR_IO, "socket: %s", strerror(errno));
    const int on = 1;
    (void)fcntl(link.fd, F_SETFD, FD_CLOEXEC);
    (void)setsockopt(link.fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on); /* only slower without */
    /* Loopback: connecting takes no time, the server accepts at once or nobody listens. */
    if (connect(link.fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        fcntl(link.fd, F_SETFL, O_NONBLOCK) != 0) {
        const nas_status status =
            nas_fail(ctx, errno == ECONNREFUSED ? NAS_ERR_NOTFOUND : NAS_ERR_NET,
                     "adb server 127.0.0.1:%d: %s", adb->port, strerror(errno));
        nas__adb_close(&link);
        return status;
    }
    *out = link;
    return NAS_OK;
}

nas_status nas__adb_dial(nas_ctx *ctx, const nas_adb *adb, const char *who, nas__adb_link *out) {
    const nas_status status = nas__adb_connect(ctx, adb, who, out);
    /* it ended since it was started: as if unplugged, since it can be started again */
    return status == NAS_ERR_NOTFOUND
               ? nas_fail(ctx, NAS_ERR_NET, "%s: the adb server has ended", who)
               : status;
}

void nas__adb_close(nas__adb_link *link) {
    if (link->fd >= 0) (void)close(link->fd); /* nothing to lose: answers have been read */
    link->fd = -1;
}

nas_status nas__adb_read_some(nas_ctx *ctx, nas__adb_link *link, void *data, size_t cap,
                              size_t *n) {
    for (;;) {
        short seen = 0;
        const nas_status status = await(ctx, link, POLLIN, &seen);
        if (status != NAS_OK) return status;
        const ssize_t got = recv(link->fd, data, cap, 0);
        if (got >= 0) {
            *n = (size_t)got;
            return NAS_OK;
        }
        if (errno == EINTR || errno == EAGAIN) continue;
        if (errno == ECONNRESET) {
            *n = 0;
            return NAS_OK;
        }
        return nas_fail(ctx, NAS_ERR_NET, "%s: %s", link->who, strerror(errno));
    }
}

nas_status nas__adb_read(nas_ctx *ctx, nas__adb_link *link, void *data, size_t len) {
    for (size_t have = 0; have < len;) {
        size_t n = 0;
        const nas_status status =
            nas__adb_read_some(ctx, link, (uint8_t *)data + have, len - have, &n);
        if (status != NAS_OK) return status;
        if (n == 0) return nas__adb_problem_fail(ctx, NAS__ADB_GONE, link->who, "");
        have += n;
    }
    return NAS_OK;
}

nas_status nas__adb_write(nas_ctx *ctx, nas__adb_link *link, const void *data, size_t len,
                          bool *answered) {
    for (size_t sent = 0; sent < len;) {
        short seen = 0;
        const short events = (short)(answered != NULL ? POLLIN | POLLOUT : POLLOUT);
        const nas_status status = await(ctx, link, events, &seen);
        if (status != NAS_OK) return status;
        if (answered != NULL && (seen & (POLLIN | POLLHUP | POLLERR)) != 0) {
            *answered = true;
            return NAS_OK;
        }
        const ssize_t n = send(link->fd, (const uint8_t *)data + sent, len - sent, MSG_NOSIGNAL);
        if (n >= 0) {
            sent += (size_t)n;
        } else if (errno != EINTR && errno != EAGAIN) {
            return nas__adb_problem_fail(ctx, NAS__ADB_GONE, link->who, strerror(errno));
        }
    }
    return NAS_OK;
}

static nas_status read_length(nas_ctx *ctx, nas__adb_link *link, size_t *out) {
    char hex[5] = "";
    uint8_t raw[2];
    const nas_status status = nas__adb_read(ctx, link, hex, 4);
    if (status != NAS_OK) return status;
    if (!nas_unhex(hex, sizeof raw, raw))
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: the server sent no length", link->who);
    *out = (size_t)raw[0] << 8 | raw[1];
    return NAS_OK;
}

nas_status nas__adb_text(nas_ctx *ctx, nas__adb_link *link, nas_buf *out) {
    size_t len = 0;
    nas_status status = read_length(ctx, link, &len);
    while (status == NAS_OK && len > 0) {
        char chunk[4096];
        const size_t n = len < sizeof chunk ? len : sizeof chunk;
        status = nas__adb_read(ctx, link, chunk, n);
        if (status == NAS_OK) nas_buf_append(out, chunk, n);
        len -= n;
    }
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

nas_status nas__adb_okay(nas_ctx *ctx, nas__adb_link *link) {
    char tag[4];
    nas_status status = nas__adb_read(ctx, link, tag, sizeof tag);
    if (status != NAS_OK || memcmp(tag, "OKAY", 4) == 0) return status;
    if (memcmp(tag, "FAIL", 4) != 0)
        return nas__adb_problem_fail(ctx, NAS__ADB_SERVER_FOREIGN, "adb", "");
    nas_buf text = {0};
    status = nas__adb_text(ctx, link, &text);
    if (status == NAS_OK) {
        const char *said = text.data != NULL ? text.data : "";
        const nas__adb_problem problem = nas__adb_problem_of_text(said);
        status = problem != NAS__ADB_PROBLEM_COUNT
                     ? nas__adb_problem_fail(ctx, problem, link->who, said)
                     : nas_fail(ctx, NAS_ERR_NET, "%s: adb refuses: %.200s", link->who, said);
    }
    nas_buf_deinit(&text);
    return status;
}

nas_status nas__adb_request(nas_ctx *ctx, nas__adb_link *link, const char *format, ...) {
    char text[NAS__ADB_REQUEST_MAX + 8];
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(text + 4, sizeof text - 4, format, args);
    va_end(args);
    if (n < 1 || n > NAS__ADB_REQUEST_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: request of %d bytes, limit %d", link->who, n,
                        (int)NAS__ADB_REQUEST_MAX);
    char hex[5];
    (void)snprintf(hex, sizeof hex, "%04x", (unsigned)n & 0xffffU);
    memcpy(text, hex, 4);
    const nas_status status = nas__adb_write(ctx, link, text, (size_t)n + 4, NULL);
    return status == NAS_OK ? nas__adb_okay(ctx, link) : status;
}

nas_status nas__adb_service(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                            const char *service, nas__adb_link *out) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_dial(ctx, adb, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host:transport:%s", serial);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "%s", service);
    if (status != NAS_OK) {
        nas__adb_close(&link);
        return status;
    }
    *out = link;
    return NAS_OK;
}

uint32_t nas__adb_u32(const uint8_t b[4]) {
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}
