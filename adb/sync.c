/* sync.c - files of a phone: sent, fetched, looked at. A file counts as sent when the phone said OKAY. */
#include "adb/adb_internal.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_BYTES = 8, STAT_BYTES = 12 };

static void put_head(uint8_t *out, const char *tag, size_t number) {
    memcpy(out, tag, 4);
    for (int i = 0; i < 4; i++)
        out[4 + i] = (uint8_t)(number >> (8 * i));
}

static nas_status send_path(nas_ctx *ctx, nas__adb_link *link, const char *tag, const char *text) {
    uint8_t packet[HEAD_BYTES + NAS__ADB_PATH_MAX];
    const size_t len = strlen(text);
    if (len < 1 || len > NAS__ADB_PATH_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: path of %zu bytes, limit %d", link->who, len,
                        (int)NAS__ADB_PATH_MAX);
    put_head(packet, tag, len);
    memcpy(packet + HEAD_BYTES, text, len);
    return nas__adb_write(ctx, link, packet, HEAD_BYTES + len, NULL);
}

/* FAIL's text as a status; the path is in the message. */
static nas_status failed(nas_ctx *ctx, nas__adb_link *link, size_t len, const char *path) {
    char text[512];
    if (len >= sizeof text)
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: error text of %zu bytes", link->who, len);
    const nas_status status = nas__adb_read(ctx, link, text, len);
    if (status != NAS_OK) return status;
    text[len] = '\0';
    if (strstr(text, "No such file") != NULL)
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: %s: %.200s", link->who, path, text);
    const nas__adb_problem problem = nas__adb_problem_of_text(text);
    if (problem != NAS__ADB_PROBLEM_COUNT)
        return nas_wrap(ctx, nas__adb_problem_fail(ctx, problem, link->who, text), "%s", path);
    return nas_fail(ctx, NAS_ERR_DEVICE, "%s: %s: %.200s", link->who, path, text);
}

static nas_status read_head(nas_ctx *ctx, nas__adb_link *link, char tag[5], size_t *number) {
    uint8_t head[HEAD_BYTES];
    const nas_status status = nas__adb_read(ctx, link, head, sizeof head);
    if (status != NAS_OK) return status;
    memcpy(tag, head, 4);
    tag[4] = '\0';
    *number = nas__adb_u32(head + 4);
    return NAS_OK;
}

static nas_status unexpected(nas_ctx *ctx, const nas__adb_link *link, const char *wanted) {
    return nas_fail(ctx, NAS_ERR_PARSE, "%s: the phone answered something else than %s", link->who,
                    wanted);
}

static nas_status send_data(nas_ctx *ctx, nas__adb_link *link, const uint8_t *data, size_t len,
                            bool *answered) {
    nas_status status = NAS_OK;
    uint8_t head[HEAD_BYTES];
    while (status == NAS_OK && len > 0 && !*answered) {
        const size_t n = len < NAS__ADB_SYNC_MAX ? len : NAS__ADB_SYNC_MAX;
        put_head(head, "DATA", n);
        status = nas__adb_write(ctx, link, head, sizeof head, answered);
        if (status == NAS_OK && !*answered) status = nas__adb_write(ctx, link, data, n, answered);
        data += n;
        len -= n;
    }
    if (status != NAS_OK || *answered) return status;
    put_head(head, "DONE", (size_t)(nas_unix_time_ms() / 1000)); /* the file's time */
    return nas__adb_write(ctx, link, head, sizeof head, answered);
}

nas_status nas__adb_sync_send(nas_ctx *ctx, nas__adb_link *link, const void *data, size_t len,
                              const char *path, unsigned mode) {
    char target[NAS__ADB_PATH_MAX + 16], tag[5];
    bool answered = false; /* early: the phone refuses */
    size_t number = 0;
    (void)snprintf(target, sizeof target, "%s,%u", path, 0100000U | (mode & 0777U));
    nas_status status = send_path(ctx, link, "SEND", target);
    if (status == NAS_OK) status = send_data(ctx, link, data, len, &answered);
    if (status == NAS_OK) status = read_head(ctx, link, tag, &number);
    if (status != NAS_OK) return status;
    if (strcmp(tag, "FAIL") == 0) return failed(ctx, link, number, path);
    return strcmp(tag, "OKAY") == 0 && !answered ? NAS_OK : unexpected(ctx, link, "OKAY");
}

nas_status nas__adb_sync_recv(nas_ctx *ctx, nas__adb_link *link, const char *path, size_t max,
                              nas_buf *out) {
    size_t have = 0;
    nas_status status = send_path(ctx, link, "RECV", path);
    while (status == NAS_OK) {
        char tag[5];
        uint8_t chunk[4096];
        size_t len = 0;
        status = read_head(ctx, link, tag, &len);
        if (status != NAS_OK || strcmp(tag, "DONE") == 0) break;
        if (strcmp(tag, "FAIL") == 0) return failed(ctx, link, len, path);
        if (strcmp(tag, "DATA") != 0 || len > NAS__ADB_SYNC_MAX)
            return unexpected(ctx, link, "DATA of at most 64 KiB");
        if (len > max - have)
            return nas_fail(ctx, NAS_ERR_RANGE, "%s: %s is larger than %zu bytes", link->who, path,
                            max);
        have += len;
        while (status == NAS_OK && len > 0) {
            const size_t n = len < sizeof chunk ? len : sizeof chunk;
            status = nas__adb_read(ctx, link, chunk, n);
            if (status == NAS_OK) nas_buf_append(out, chunk, n);
            len -= n;
        }
    }
    return status == NAS_OK ? nas_buf_status(ctx, out) : status;
}

nas_status nas__adb_sync_stat(nas_ctx *ctx, nas__adb_link *link, const char *path, uint32_t *mode,
                              uint32_t *size) {
    uint8_t answer[4 + STAT_BYTES];
    nas_status status = send_path(ctx, link, "STAT", path);
    if (status == NAS_OK) status = nas__adb_read(ctx, link, answer, sizeof answer);
    if (status != NAS_OK) return status;
    if (memcmp(answer, "STAT", 4) != 0) return unexpected(ctx, link, "STAT");
    *mode = nas__adb_u32(answer + 4);
    *size = nas__adb_u32(answer + 8);
    return NAS_OK;
}

/* Ends the session, so that the phone does not log a broken one. */
static void quit(nas__adb_link *link) {
    uint8_t head[HEAD_BYTES];
    put_head(head, "QUIT", 0);
    if (link->fd >= 0) (void)nas__adb_write(NULL, link, head, sizeof head, NULL);
    nas__adb_close(link);
}

nas_status nas_adb_push(nas_ctx *ctx, const nas_adb *adb, const char *serial, const void *data,
                        size_t len, const char *path, unsigned mode) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_service(ctx, adb, serial, "sync:", &link);
    if (status == NAS_OK) status = nas__adb_sync_send(ctx, &link, data, len, path, mode);
    quit(&link);
    return status;
}

nas_status nas_adb_pull(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *path,
                        size_t max, nas_buf *out) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_service(ctx, adb, serial, "sync:", &link);
    if (status == NAS_OK) status = nas__adb_sync_recv(ctx, &link, path, max, out);
    quit(&link);
    return status;
}

nas_status nas_adb_stat(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *path,
                        uint32_t *mode, uint32_t *size) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_service(ctx, adb, serial, "sync:", &link);
    if (status == NAS_OK) status = nas__adb_sync_stat(ctx, &link, path, mode, size);
    quit(&link);
    return status;
}
