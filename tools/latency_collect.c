#include "tools/latency_commands.h"
nas_status nas_latency_collect(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    (void)db;
    (void)args;
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "not yet");
}
