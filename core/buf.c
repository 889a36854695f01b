/* buf.c - growing text/byte buffer and the JSON writer on top of it. */
#include "core/core.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

void nas_buf_deinit(nas_buf *buf) {
    nas_free(buf->data);
    *buf = (nas_buf){0};
}

void nas_buf_clear(nas_buf *buf) {
    buf->len = 0;
    buf->failed = false;
    if (buf->data != NULL) buf->data[0] = '\0';
}

/* Room for `more` bytes and the NUL. */
static bool reserve(nas_buf *buf, size_t more) {
    size_t need = 0;
    if (buf->failed || nas_add_size(NULL, buf->len, more, &need) != NAS_OK ||
        nas_add_size(NULL, need, 1, &need) != NAS_OK ||
        nas_grow(NULL, &buf->data, &buf->cap, need, 1) != NAS_OK) {
        buf->failed = true;
        return false;
    }
    return true;
}

void nas_buf_append(nas_buf *buf, const void *data, size_t len) {
    if (!reserve(buf, len)) return;
    if (len > 0) memcpy(buf->data + buf->len, data, len);
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void nas_buf_puts(nas_buf *buf, const char *text) {
    nas_buf_append(buf, text, strlen(text));
}

void nas_buf_vprintf(nas_buf *buf, const char *format, va_list args) {
    va_list again;
    va_copy(again, args);
    const int len = vsnprintf(NULL, 0, format, args);
    if (len < 0) {
        buf->failed = true;
    } else if (reserve(buf, (size_t)len)) {
        (void)vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    va_end(again);
}

void nas_buf_printf(nas_buf *buf, const char *format, ...) {
    va_list args;
    va_start(args, format);
    nas_buf_vprintf(buf, format, args);
    va_end(args);
}

nas_status nas_buf_status(nas_ctx *ctx, const nas_buf *buf) {
    if (!buf->failed) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_NOMEM, "out of memory while writing a text of %zu bytes",
                    buf->len);
}

/* ---- JSON ---------------------------------------------------------------------------------------------------- */

nas_json nas_json_begin(nas_buf *out) {
    return (nas_json){.out = out};
}

static void separate(nas_json *j) {
    if (j->need_comma) nas_buf_puts(j->out, ",");
    j->need_comma = true;
}

static void quoted(nas_json *j, const char *text) {
    nas_buf_puts(j->out, "\"");
    for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
        switch (*p) {
        case '"': nas_buf_puts(j->out, "\\\""); break;
        case '\\': nas_buf_puts(j->out, "\\\\"); break;
        case '\n': nas_buf_puts(j->out, "\\n"); break;
        case '\r': nas_buf_puts(j->out, "\\r"); break;
        case '\t': nas_buf_puts(j->out, "\\t"); break;
        default:
            if (*p < 0x20) {
                nas_buf_printf(j->out, "\\u%04x", *p);
            } else {
                nas_buf_append(j->out, p, 1);
            }
        }
    }
    nas_buf_puts(j->out, "\"");
}

void nas_json_object(nas_json *j) {
    separate(j);
    nas_buf_puts(j->out, "{");
    j->depth++;
    j->need_comma = false;
}

void nas_json_object_end(nas_json *j) {
    nas_buf_puts(j->out, "}");
    j->depth--;
    j->need_comma = true;
}

void nas_json_array(nas_json *j) {
    separate(j);
    nas_buf_puts(j->out, "[");
    j->depth++;
    j->need_comma = false;
}

void nas_json_array_end(nas_json *j) {
    nas_buf_puts(j->out, "]");
    j->depth--;
    j->need_comma = true;
}

void nas_json_key(nas_json *j, const char *key) {
    separate(j);
    quoted(j, key);
    nas_buf_puts(j->out, ":");
    j->need_comma = false;
}

void nas_json_string(nas_json *j, const char *value) {
    separate(j);
    if (value == NULL) {
        nas_buf_puts(j->out, "null");
    } else {
        quoted(j, value);
    }
}

void nas_json_int(nas_json *j, int64_t value) {
    separate(j);
    nas_buf_printf(j->out, "%" PRId64, value);
}

void nas_json_double(nas_json *j, double value) {
    separate(j);
    if (!isfinite(value)) {
        nas_buf_puts(j->out, "null");
        return;
    }
    char text[40];
    for (int digits = 15; digits <= 17; digits++) { /* the shortest form that reads back equal */
        double back = 0;
        (void)snprintf(text, sizeof text, "%.*g", digits, value);
        if (sscanf(text, "%lf", &back) == 1 && back == value) break;
    }
    nas_buf_puts(j->out, text);
}

void nas_json_bool(nas_json *j, bool value) {
    separate(j);
    nas_buf_puts(j->out, value ? "true" : "false");
}

void nas_json_null(nas_json *j) {
    separate(j);
    nas_buf_puts(j->out, "null");
}

void nas_json_raw(nas_json *j, const char *json_text) {
    separate(j);
    nas_buf_puts(j->out, json_text);
}
