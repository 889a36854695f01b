/* agent_log.c - the agent's log file: lines with the time, bounded to two files of NAS_AGENT_LOG_MAX bytes (FILE and
 * FILE.1, the older one). A log that cannot be written never stops the agent. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int open_append(const char *path) {
    return open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
}

/* The file is full: it becomes FILE.1, a new one begins. */
static void rotate(nas__log *log) {
    char old[sizeof log->path + 4];
    (void)snprintf(old, sizeof old, "%s.1", log->path);
    (void)rename(log->path, old);
    (void)close(log->fd);
    log->fd = open_append(log->path);
    log->bytes = 0;
}

static void sink(void *user, nas_log_level level, const char *line) {
    static const char letters[] = "EWID";
    nas__log *log = user;
    char text[1024], stamp[32] = "";
    struct tm when;
    const time_t now = (time_t)(nas_unix_time_ms() / 1000);
    if (log->fd < 0) return;
    if (gmtime_r(&now, &when) != NULL)
        (void)strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%SZ", &when);
    int n = snprintf(text, sizeof text - 1, "%s %c %s", stamp, letters[level], line);
    if (n < 0) return;
    if (n > (int)sizeof text - 2) n = (int)sizeof text - 2;
    text[n++] = '\n';
    if (log->bytes + n > NAS_AGENT_LOG_MAX) rotate(log);
    if (log->fd >= 0 && write(log->fd, text, (size_t)n) == n) log->bytes += n;
}

nas_status nas__log_open(nas_ctx *ctx, nas__log *log, const char *path) {
    struct stat info;
    *log = (nas__log){.fd = -1};
    if ((size_t)snprintf(log->path, sizeof log->path, "%s", path) >= sizeof log->path)
        return nas_fail(ctx, NAS_ERR_RANGE, "--log-file: path too long");
    log->fd = open_append(path);
    if (log->fd < 0) return nas_fail(ctx, NAS_ERR_IO, "--log-file %s: %s", path, strerror(errno));
    if (fstat(log->fd, &info) == 0) log->bytes = (int64_t)info.st_size;
    nas_ctx_set_log(ctx, sink, log, NAS_LOG_INFO);
    return NAS_OK;
}

void nas__log_close(nas_ctx *ctx, nas__log *log) {
    if (log->fd < 0) return;
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_INFO);
    (void)close(log->fd);
    log->fd = -1;
}

/* The last bytes of one file, from the beginning of a line. */
static void tail_of(const char *path, size_t max, nas_buf *out) {
    nas_buf text = {0};
    if (nas_file_read(NULL, path, 2 * (size_t)NAS_AGENT_LOG_MAX, &text) == NAS_OK && text.len > 0) {
        size_t from = text.len > max ? text.len - max : 0;
        while (from > 0 && from < text.len && text.data[from - 1] != '\n')
            from++;
        for (size_t i = from; i < text.len; i++) {
            const unsigned char u = (unsigned char)text.data[i];
            if (u >= 0x7f || (u < 0x20 && u != '\n')) text.data[i] = '?';
        }
        nas_buf_puts(out, text.data + from);
    }
    nas_buf_deinit(&text);
}

void nas__log_json(nas_json *j, const char *path) {
    nas_buf text = {0};
    char old[1024];
    nas_json_object(j);
    nas_json_key(j, "log");
    if (path == NULL) {
        nas_json_null(j);
    } else {
        (void)snprintf(old, sizeof old, "%s.1", path);
        tail_of(old, NAS_AGENT_LOG_MAX / 4, &text);
        tail_of(path, NAS_AGENT_LOG_MAX, &text);
        nas_json_string(j, text.data != NULL ? text.data : "");
    }
    nas_json_object_end(j);
    nas_buf_deinit(&text);
}
