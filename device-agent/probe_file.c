/* probe_file.c - small files of /proc and /sys: read, written back where that is allowed, below a root that whoever
 * starts the agent may choose. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Set once at the start, before anything is read. */
static char root[256];

nas_status nas__probe_set_root(nas_ctx *ctx, const char *path) {
    if (path[0] != '/' || strlen(path) >= sizeof root || !nas_file_exists(path)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "--sys-root %.200s: need a folder's absolute path of at most 255 bytes",
                        path);
    }
    (void)snprintf(root, sizeof root, "%s", strcmp(path, "/") == 0 ? "" : path);
    return NAS_OK;
}

const char *nas__probe_root(void) {
    return root;
}

bool nas__probe_path(char *out, size_t size, const char *path) {
    const int n = snprintf(out, size, "%s%s", root, path);
    return n > 0 && (size_t)n < size;
}

int nas__probe_text(const char *path, char *out, size_t size) {
    char full[1024];
    out[0] = '\0';
    if (!nas__probe_path(full, sizeof full, path)) return ENAMETOOLONG;
    const int fd = open(full, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    size_t len = 0;
    int code = 0;
    while (len + 1 < size) {
        const ssize_t n = read(fd, out + len, size - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = errno;
        if (n <= 0) break;
        len += (size_t)n;
    }
    (void)close(fd); /* only read */
    while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == ' ' || out[len - 1] == '\0'))
        len--;
    out[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        const unsigned char u = (unsigned char)out[i];
        if (u >= 0x7f || (u < 0x20 && u != '\n' && u != '\t')) out[i] = '?';
    }
    return code != 0 ? code : len == 0 ? ENODATA : 0;
}

int nas__probe_i64(const char *path, int64_t *out) {
    char text[64];
    char *end = NULL;
    int code = nas__probe_text(path, text, sizeof text);
    if (code != 0) return code;
    errno = 0;
    const long long number = strtoll(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0) return EINVAL;
    *out = number;
    return 0;
}

int nas__probe_write(const char *path, const char *text) {
    char full[1024];
    if (!nas__probe_path(full, sizeof full, path)) return ENAMETOOLONG;
    const int fd = open(full, O_WRONLY | O_CLOEXEC | O_TRUNC);
    if (fd < 0) return errno;
    const size_t len = strlen(text);
    const ssize_t n = write(fd, text, len);
    int code = n == (ssize_t)len ? 0 : n < 0 ? errno : EIO;
    if (close(fd) != 0 && code == 0) code = errno;
    return code;
}

void nas__probe_unavailable(nas_json *j, int code) {
    nas_json_object(j);
    nas_json_key(j, "unavailable");
    nas_json_string(j, strerror(code));
    nas_json_object_end(j);
}

void nas__probe_text_member(nas_json *j, const char *key, const char *path) {
    char text[512];
    const int code = nas__probe_text(path, text, sizeof text);
    nas_json_key(j, key);
    if (code != 0) {
        nas__probe_unavailable(j, code);
    } else {
        nas_json_string(j, text);
    }
}

void nas__probe_number_member(nas_json *j, const char *key, const char *path) {
    int64_t number = 0;
    const int code = nas__probe_i64(path, &number);
    nas_json_key(j, key);
    if (code != 0) {
        nas__probe_unavailable(j, code);
    } else {
        nas_json_int(j, number);
    }
}
