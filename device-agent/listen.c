/* listen.c - where the agent listens: 127.0.0.1, an abstract unix socket (phones: adb forwards to it), a unix path.
 *
 * A unix socket belongs to this user: others are turned away by SO_PEERCRED before a byte of theirs is read. Root and
 * Android's shell (uid 2000, adbd) are let in, because adbd connects on behalf of a controller. Any other IPv4 address
 * needs --allow-remote; the key is needed everywhere. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANDROID_SHELL_UID = 2000, BACKLOG = 8 };

static nas_status parse_unix(nas_ctx *ctx, const char *text, const char *name, nas__address *out) {
    if (name[0] == '\0' || strlen(name) >= sizeof out->name) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--listen %s: need a name of 1 to %zu bytes", text,
                        sizeof out->name - 1);
    }
    (void)snprintf(out->name, sizeof out->name, "%s", name);
    return NAS_OK;
}

nas_status nas__address_parse(nas_ctx *ctx, const char *text, nas__address *out) {
    static const char abstract_prefix[] = "unix-abstract:", path_prefix[] = "unix:";
    nas__address a = {.kind = NAS__ADDRESS_TCP};
    nas_status status = NAS_OK;
    if (text[0] == '@' || strncmp(text, abstract_prefix, sizeof abstract_prefix - 1) == 0) {
        a.kind = NAS__ADDRESS_ABSTRACT;
        status = parse_unix(ctx, text,
                            text[0] == '@' ? text + 1 : text + sizeof abstract_prefix - 1, &a);
    } else if (text[0] == '/' || strncmp(text, path_prefix, sizeof path_prefix - 1) == 0) {
        a.kind = NAS__ADDRESS_PATH;
        status = parse_unix(ctx, text, text[0] == '/' ? text : text + sizeof path_prefix - 1, &a);
    } else {
        const char *colon = strrchr(text, ':');
        int64_t port = 0;
        if (colon == NULL || colon == text || (size_t)(colon - text) >= sizeof a.name) {
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "--listen %s: need ADDRESS:PORT like 127.0.0.1:7917, @NAME for an "
                            "abstract unix socket, or a path",
                            text);
        }
        if (nas_parse_i64(ctx, "--listen", colon + 1, 0, 65535, &port) != NAS_OK)
            return nas_fail(ctx, NAS_ERR_INVALID, "--listen %s: need a port from 0 to 65535", text);
        (void)snprintf(a.name, sizeof a.name, "%.*s", (int)(colon - text), text);
        a.port = (int)port;
    }
    if (status == NAS_OK) *out = a;
    return status;
}

void nas__address_text(const nas__address *a, char *out, size_t size) {
    switch (a->kind) {
    case NAS__ADDRESS_TCP: (void)snprintf(out, size, "%s:%d", a->name, a->port); return;
    case NAS__ADDRESS_ABSTRACT: (void)snprintf(out, size, "@%s", a->name); return;
    case NAS__ADDRESS_PATH: (void)snprintf(out, size, "unix:%s", a->name); return;
    }
}

static nas_status listen_tcp(nas_ctx *ctx, nas__address *a, bool allow_remote, int *listener) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)a->port)};
    if (inet_pton(AF_INET, a->name, &address.sin_addr) != 1) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--listen %s: need a numeric IPv4 address", a->name);
    }
    const bool loopback = (ntohl(address.sin_addr.s_addr) >> 24) == 127;
    if (!loopback && !allow_remote) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--listen %s: not a loopback address; whoever reaches it and has the key "
                        "runs programs here. Use "
                        "127.0.0.1 and an ssh or adb forward, or add --allow-remote",
                        a->name);
    }
    const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return nas_fail(ctx, NAS_ERR_NET, "socket: %s", strerror(errno));
    const int on = 1;
    socklen_t size = sizeof address;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fd, BACKLOG) != 0 || getsockname(fd, (struct sockaddr *)&address, &size) != 0) {
        const nas_status status =
            nas_fail(ctx, NAS_ERR_NET, "listen %s:%d: %s", a->name, a->port, strerror(errno));
        (void)close(fd);
        return status;
    }
    *listener = fd;
    a->port = ntohs(address.sin_port);
    return NAS_OK;
}

/* A socket left by an agent that was killed; anything else at that path stays. */
static void remove_stale(const char *path) {
    struct stat info;
    if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode) && info.st_uid == geteuid())
        (void)unlink(path);
}

static nas_status listen_unix(nas_ctx *ctx, const nas__address *a, int *listener) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t at = a->kind == NAS__ADDRESS_ABSTRACT ? 1 : 0, len = strlen(a->name);
    char text[sizeof a->name + 8];
    nas__address_text(a, text, sizeof text);
    if (at + len >= sizeof address.sun_path) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--listen %s: longer than %zu bytes", text,
                        sizeof address.sun_path - 2);
    }
    memcpy(address.sun_path + at, a->name, len);
    const socklen_t size =
        (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at + len + (at == 0 ? 1 : 0));
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return nas_fail(ctx, NAS_ERR_NET, "socket: %s", strerror(errno));
    if (at == 0) remove_stale(a->name);
    const mode_t mask = umask(0177);
    const bool bound = bind(fd, (const struct sockaddr *)&address, size) == 0;
    const int code = errno;
    (void)umask(mask);
    if (bound && listen(fd, BACKLOG) == 0) {
        *listener = fd;
        return NAS_OK;
    }
    const nas_status status =
        nas_fail(ctx, NAS_ERR_NET, "listen %s: %s%s", text, strerror(bound ? errno : code),
                 code == EADDRINUSE ? "; another agent listens there: stop it first" : "");
    (void)close(fd);
    return status;
}

nas_status nas__listen(nas_ctx *ctx, nas__address *address, bool allow_remote, int *listener) {
    switch (address->kind) {
    case NAS__ADDRESS_TCP: return listen_tcp(ctx, address, allow_remote, listener);
    case NAS__ADDRESS_ABSTRACT:
    case NAS__ADDRESS_PATH: return listen_unix(ctx, address, listener);
    }
    return NAS_ERR_INVALID;
}

void nas__listen_end(const nas__address *address, int listener) {
    if (listener < 0) return;
    (void)close(listener);
    if (address->kind == NAS__ADDRESS_PATH) (void)unlink(address->name);
}

bool nas__peer_allowed(const nas__address *address, int fd, int64_t *uid) {
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    *uid = -1;
    if (address->kind == NAS__ADDRESS_TCP) return true; /* the key decides */
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) return false;
    *uid = (int64_t)peer.uid;
    return nas__uid_allowed((int64_t)peer.uid, (int64_t)geteuid());
}

bool nas__uid_allowed(int64_t peer, int64_t self) {
    return peer == 0 || peer == ANDROID_SHELL_UID || peer == self;
}
