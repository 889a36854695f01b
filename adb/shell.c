/* shell.c - commands on a phone. A command without its exit frame did not succeed, whatever it printed. */
#include "adb/adb_internal.h"

#include <stdio.h>
#include <string.h>

enum { FRAME_IN, FRAME_OUT, FRAME_ERR, FRAME_EXIT, FRAME_CLOSE_IN };
enum { HEAD_BYTES = 5, COMMAND_MAX = 4096, MARK_BYTES = 8 };

void nas_adb_result_deinit(nas_adb_result *result) {
    nas_buf_deinit(&result->out);
    nas_buf_deinit(&result->err);
}

static nas_status send_frame(nas_ctx *ctx, nas__adb_link *link, uint8_t id, const void *data,
                             size_t len) {
    const uint8_t head[HEAD_BYTES] = {id, (uint8_t)len, (uint8_t)(len >> 8), (uint8_t)(len >> 16),
                                      (uint8_t)(len >> 24)};
    const nas_status status = nas__adb_write(ctx, link, head, sizeof head, NULL);
    return status == NAS_OK && len > 0 ? nas__adb_write(ctx, link, data, len, NULL) : status;
}

/* All of the input, then its end. It fits into the buffers on the way, so a command that talks before it reads does not
 * block. One that is gone already has its exit frame waiting for us: a failed write is no verdict. */
static nas_status send_input(nas_ctx *ctx, nas__adb_link *link, const void *data, size_t len) {
    nas_status status = len > 0 ? send_frame(ctx, link, FRAME_IN, data, len) : NAS_OK;
    if (status == NAS_OK) status = send_frame(ctx, link, FRAME_CLOSE_IN, NULL, 0);
    return status == NAS_ERR_NET ? NAS_OK : status;
}

static nas_status keep(nas_ctx *ctx, nas__adb_link *link, size_t len, nas_buf *into, size_t max,
                       bool *cut) {
    while (len > 0) {
        char chunk[8192];
        const size_t n = len < sizeof chunk ? len : sizeof chunk;
        const nas_status status = nas__adb_read(ctx, link, chunk, n);
        if (status != NAS_OK) return status;
        const size_t room = into == NULL || into->len >= max ? 0 : max - into->len;
        if (into != NULL) {
            nas_buf_append(into, chunk, n < room ? n : room);
            *cut |= n > room;
        }
        len -= n;
    }
    return into != NULL ? nas_buf_status(ctx, into) : NAS_OK;
}

/* One frame; *done when it was the exit code. */
static nas_status read_frame(nas_ctx *ctx, nas__adb_link *link, size_t max, nas_adb_result *r,
                             bool *done) {
    uint8_t head[HEAD_BYTES], code = 0;
    nas_status status = nas__adb_read(ctx, link, head, sizeof head);
    if (status != NAS_OK) return status;
    const size_t len = nas__adb_u32(head + 1);
    if (len > NAS__ADB_FRAME_MAX) {
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: shell frame of %zu bytes, limit %d", link->who,
                        len, (int)NAS__ADB_FRAME_MAX);
    }
    if (head[0] == FRAME_EXIT) {
        if (len != 1)
            return nas_fail(ctx, NAS_ERR_PARSE, "%s: exit frame of %zu bytes", link->who, len);
        status = nas__adb_read(ctx, link, &code, 1);
        r->exit_code = code;
        *done = status == NAS_OK;
        return status;
    }
    nas_buf *into = head[0] == FRAME_OUT ? &r->out : head[0] == FRAME_ERR ? &r->err : NULL;
    return keep(ctx, link, len, into, max, &r->cut); /* unknown frames are skipped */
}

nas_status nas__adb_shell_frames(nas_ctx *ctx, nas__adb_link *link, const void *input, size_t len,
                                 size_t max_output, nas_adb_result *out) {
    nas_adb_result r = {0};
    bool done = false;
    nas_status status = send_input(ctx, link, input, len);
    while (status == NAS_OK && !done)
        status = read_frame(ctx, link, max_output, &r, &done);
    if (status == NAS_OK) {
        *out = r;
    } else {
        nas_adb_result_deinit(&r);
    }
    return status;
}

/* ---- phones without shell,v2 ---------------------------------------------------------------------------------------- */

/* Finds "\n<mark>:<code>" at the end of the output and cuts it off. */
static bool take_mark(nas_buf *out, const char *mark, int *code) {
    char tail[64];
    const size_t len = strlen(mark);
    while (out->len > 0 && (out->data[out->len - 1] == '\n' || out->data[out->len - 1] == '\r'))
        out->data[--out->len] = '\0';
    const size_t from = out->len > 40 ? out->len - 40 : 0;
    (void)snprintf(tail, sizeof tail, "%s", out->len > 0 ? out->data + from : "");
    const char *at = strstr(tail, mark);
    int64_t number = 0;
    if (at == NULL || at[len] != ':' ||
        nas_parse_i64(NULL, "code", at + len + 1, 0, 255, &number) != NAS_OK) {
        return false;
    }
    *code = (int)number;
    size_t end = from + (size_t)(at - tail);
    while (end > 0 && (out->data[end - 1] == '\n' || out->data[end - 1] == '\r'))
        end--;
    out->len = end;
    out->data[end] = '\0';
    return true;
}

nas_status nas__adb_shell_plain(nas_ctx *ctx, nas__adb_link *link, const char *mark,
                                size_t max_output, nas_adb_result *out) {
    nas_adb_result r = {0};
    nas_status status = NAS_OK;
    for (;;) {
        char chunk[8192];
        size_t n = 0;
        status = nas__adb_read_some(ctx, link, chunk, sizeof chunk, &n);
        if (status != NAS_OK || n == 0) break;
        if (n > max_output + sizeof chunk - r.out.len) { /* the mark is at the end: keep that */
            r.cut = true;
            nas_buf_clear(&r.out);
        }
        nas_buf_append(&r.out, chunk, n);
    }
    if (status == NAS_OK) status = nas_buf_status(ctx, &r.out);
    if (status == NAS_OK && (r.out.len == 0 || !take_mark(&r.out, mark, &r.exit_code)))
        status = nas__adb_problem_fail(ctx, NAS__ADB_GONE, link->who, "");
    if (status == NAS_OK) {
        *out = r;
    } else {
        nas_adb_result_deinit(&r);
    }
    return status;
}

/* ---- both ------------------------------------------------------------------------------------------------------------- */

static nas_status has_shell_v2(nas_ctx *ctx, const nas_adb *adb, const char *serial, bool *out) {
    nas__adb_link link = {.fd = -1};
    nas_buf text = {0};
    nas_status status = nas__adb_dial(ctx, adb, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host-serial:%s:features", serial);
    if (status == NAS_OK) status = nas__adb_text(ctx, &link, &text);
    if (status == NAS_OK) *out = text.len > 0 && nas__adb_feature(text.data, "shell_v2");
    nas__adb_close(&link);
    nas_buf_deinit(&text);
    return status;
}

static nas_status shell_plain(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                              const char *command, size_t max_output, nas_adb_result *out) {
    uint8_t raw[MARK_BYTES];
    char mark[2 * MARK_BYTES + 1];
    nas_buf service = {0};
    nas__adb_link link = {.fd = -1};
    nas_status status = nas_random_bytes(ctx, raw, sizeof raw); /* no output can know it */
    if (status != NAS_OK) return status;
    nas_hex(raw, sizeof raw, mark);
    nas_buf_printf(&service, "shell:(%s)\necho; echo %s:$?", command, mark);
    status = nas_buf_status(ctx, &service);
    if (status == NAS_OK) status = nas__adb_service(ctx, adb, serial, service.data, &link);
    if (status == NAS_OK) status = nas__adb_shell_plain(ctx, &link, mark, max_output, out);
    nas__adb_close(&link);
    nas_buf_deinit(&service);
    return status;
}

nas_status nas_adb_shell(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *command,
                         const void *input, size_t len, size_t max_output, nas_adb_result *out) {
    if (strlen(command) < 1 || strlen(command) > COMMAND_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: command of %zu bytes, limit %d", serial,
                        strlen(command), (int)COMMAND_MAX);
    if (len > NAS__ADB_SYNC_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "%s: input of %zu bytes, limit %d", serial, len,
                        (int)NAS__ADB_SYNC_MAX);
    bool v2 = false;
    nas_status status = has_shell_v2(ctx, adb, serial, &v2);
    if (status != NAS_OK) return status;
    if (!v2 && len > 0)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "%s: no input for commands before Android 7",
                        serial);
    if (!v2) return shell_plain(ctx, adb, serial, command, max_output, out);
    char service[COMMAND_MAX + 32];
    nas__adb_link link = {.fd = -1};
    (void)snprintf(service, sizeof service, "shell,v2,raw:%s", command);
    status = nas__adb_service(ctx, adb, serial, service, &link);
    if (status == NAS_OK) status = nas__adb_shell_frames(ctx, &link, input, len, max_output, out);
    nas__adb_close(&link);
    return status;
}
