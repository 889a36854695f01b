/* status.c - status texts, exit codes, the call context and its log. See core/core.h. */
#include "core/core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MESSAGE_MAX = 8192, LINE_MAX_BYTES = 8192 };

struct nas_ctx {
    nas_status status;
    char message[MESSAGE_MAX];
    nas_log_sink sink;
    void *sink_user;
    nas_log_level level;
    const volatile sig_atomic_t *cancel;
};

const char *nas_status_text(nas_status status) {
    switch (status) {
#define NAS_STATUS(code, text)                                                                     \
    case NAS_##code:                                                                               \
        return text;
#include "core/status.def"
#undef NAS_STATUS
    }
    return "unknown status";
}

int nas_exit_code(nas_status status) {
    switch (status) {
    case NAS_OK: return NAS_EXIT_OK;
    case NAS_ERR_DEVICE:
    case NAS_ERR_NET: return NAS_EXIT_DEVICE;
    case NAS_ERR_CANCELLED: return NAS_EXIT_INTERRUPTED;
    case NAS_ERR_NOMEM:
    case NAS_ERR_INVALID:
    case NAS_ERR_RANGE:
    case NAS_ERR_SHAPE:
    case NAS_ERR_UNSUPPORTED:
    case NAS_ERR_NOTFOUND:
    case NAS_ERR_PARSE:
    case NAS_ERR_IO:
    case NAS_ERR_DB:
    case NAS_ERR_TIMEOUT:
    case NAS_ERR_TOOLCHAIN:
    case NAS_ERR_INTERNAL: return NAS_EXIT_FAILED;
    }
    return NAS_EXIT_FAILED;
}

static void stderr_sink(void *user, nas_log_level level, const char *line) {
    (void)user;
    static const char *const prefix[] = {"error: ", "warning: ", "", "debug: "};
    fprintf(stderr, "%s%s\n", prefix[level], line);
}

nas_ctx *nas_ctx_new(void) {
    nas_ctx *ctx = nas_alloc_array(NULL, 1, sizeof *ctx);
    if (ctx == NULL) return NULL;
    ctx->sink = stderr_sink;
    ctx->level = NAS_LOG_INFO;
    return ctx;
}

void nas_ctx_free(nas_ctx *ctx) {
    nas_free(ctx);
}

nas_ctx *nas_ctx_child(const nas_ctx *parent) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL || parent == NULL) return ctx;
    ctx->sink = parent->sink;
    ctx->sink_user = parent->sink_user;
    ctx->level = parent->level;
    ctx->cancel = parent->cancel;
    return ctx;
}

const char *nas_ctx_message(const nas_ctx *ctx) {
    return ctx->message;
}

nas_status nas_ctx_status(const nas_ctx *ctx) {
    return ctx->status;
}

void nas_ctx_clear(nas_ctx *ctx) {
    ctx->status = NAS_OK;
    ctx->message[0] = '\0';
}

void nas_ctx_set_log(nas_ctx *ctx, nas_log_sink sink, void *user, nas_log_level level) {
    ctx->sink = sink == NULL ? stderr_sink : sink;
    ctx->sink_user = user;
    ctx->level = level;
}

void nas_ctx_set_cancel(nas_ctx *ctx, const volatile sig_atomic_t *flag) {
    ctx->cancel = flag;
}

bool nas_ctx_cancelled(const nas_ctx *ctx) {
    return ctx != NULL && ctx->cancel != NULL && *ctx->cancel != 0;
}

nas_status nas_check_cancel(nas_ctx *ctx) {
    if (!nas_ctx_cancelled(ctx)) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_CANCELLED, "interrupted");
}

nas_status nas_fail_at(nas_ctx *ctx, nas_status status, const char *file, int line,
                       const char *format, ...) {
    if (ctx == NULL) return status;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(ctx->message, sizeof ctx->message, format,
                    args); /* a cut message is still one */
    va_end(args);
    ctx->status = status;
    if (ctx->level >= NAS_LOG_DEBUG) {
        nas_log(ctx, NAS_LOG_DEBUG, "failed at=%s:%d status=\"%s\": %s", file, line,
                nas_status_text(status), ctx->message);
    }
    return status;
}

nas_status nas_wrap(nas_ctx *ctx, nas_status status, const char *format, ...) {
    if (status == NAS_OK || ctx == NULL) return status;
    char prefix[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(prefix, sizeof prefix, format, args);
    va_end(args);
    const size_t prefix_len = strlen(prefix);
    const size_t room = sizeof ctx->message - prefix_len - 3;
    const size_t old_len = strlen(ctx->message);
    const size_t keep = old_len < room ? old_len : room;
    memmove(ctx->message + prefix_len + 2, ctx->message, keep);
    memcpy(ctx->message, prefix, prefix_len);
    memcpy(ctx->message + prefix_len, ": ", 2);
    ctx->message[prefix_len + 2 + keep] = '\0';
    return status;
}

void nas_log(nas_ctx *ctx, nas_log_level level, const char *format, ...) {
    if (ctx == NULL || level > ctx->level) return;
    char line[LINE_MAX_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(line, sizeof line, format, args);
    va_end(args);
    ctx->sink(ctx->sink_user, level, line);
}
