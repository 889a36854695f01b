/* artifact_run.c - one artifact on given frames, through raw files: what quality checks use. */
#include "compiler/compiler_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RUN_TIMEOUT_MS = 10 * 60 * 1000, MESSAGE_MAX = 1000 };

static nas_status frame_bytes(nas_ctx *ctx, nas_shape s, int32_t frames, size_t *out) {
    size_t n = sizeof(float);
    nas_status status = nas_mul_size(ctx, n, (size_t)s.h, &n);
    if (status == NAS_OK) status = nas_mul_size(ctx, n, (size_t)s.w, &n);
    if (status == NAS_OK) status = nas_mul_size(ctx, n, (size_t)s.c, &n);
    if (status == NAS_OK) status = nas_mul_size(ctx, n, (size_t)frames, &n);
    if (status == NAS_OK) *out = n;
    return status;
}

static nas_status run_program(nas_ctx *ctx, const nas_artifact *artifact, const char *in,
                              const char *out, int32_t threads) {
    char count[16];
    (void)snprintf(count, sizeof count, "%d", threads);
    const char *const argv[] = {artifact->runner, artifact->path, "--run", in, out,
                                "--threads",      count,          NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = artifact->runner[0] == '\0' ? argv + 1 : argv;
    options.timeout_ms = RUN_TIMEOUT_MS;
    nas_process_result result = {0};
    nas_status status = nas_process_run(ctx, &options, &result);
    if (status != NAS_OK) return nas_wrap(ctx, status, "artifact %.12s", artifact->sha256);
    if (result.exit_code != 0) {
        status = nas_fail(ctx, NAS_ERR_DEVICE, "artifact %s: exit code %d, signal %d: %.*s",
                          artifact->path, result.exit_code, result.signal, MESSAGE_MAX,
                          result.err.data != NULL ? result.err.data : "");
    }
    nas_process_result_deinit(&result);
    return status;
}

static nas_status run_in(nas_ctx *ctx, const nas_artifact *artifact, const char *dir,
                         const float *in, size_t in_bytes, float *out, size_t out_bytes,
                         int32_t threads) {
    char in_path[1024], out_path[1024];
    (void)snprintf(in_path, sizeof in_path, "%s/in.raw", dir);
    (void)snprintf(out_path, sizeof out_path, "%s/out.raw", dir);
    nas_status status = nas_file_write(ctx, in_path, in, in_bytes, 0600);
    if (status == NAS_OK) status = run_program(ctx, artifact, in_path, out_path, threads);
    nas_buf bytes = {0};
    if (status == NAS_OK) status = nas_file_read(ctx, out_path, out_bytes, &bytes);
    if (status == NAS_OK && bytes.len != out_bytes) {
        status = nas_fail(ctx, NAS_ERR_DEVICE, "artifact %s wrote %zu bytes, expected %zu",
                          artifact->path, bytes.len, out_bytes);
    }
    if (status == NAS_OK) memcpy(out, bytes.data, out_bytes);
    nas_buf_deinit(&bytes);
    return status;
}

nas_status nas_artifact_run(nas_ctx *ctx, const nas_artifact *artifact, const nas_graph *graph,
                            int32_t frames, const float *in, float *out, int32_t threads,
                            const char *work_dir) {
    if (frames < 1 || threads < 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "artifact run: %d frames, %d threads; both at least 1", frames, threads);
    }
    size_t in_bytes = 0, out_bytes = 0;
    nas_status status =
        frame_bytes(ctx, nas_graph_node(graph, nas_graph_input(graph))->shape, frames, &in_bytes);
    if (status == NAS_OK) {
        status = frame_bytes(ctx, nas_graph_node(graph, nas_graph_output(graph))->shape, frames,
                             &out_bytes);
    }
    if (status == NAS_OK) status = nas_mkdirs(ctx, work_dir);
    if (status != NAS_OK) return status;
    char dir[512];
    const int n = snprintf(dir, sizeof dir, "%s/run-XXXXXX", work_dir);
    if (n < 0 || (size_t)n >= sizeof dir)
        return nas_fail(ctx, NAS_ERR_RANGE, "work folder path too long: %s", work_dir);
    if (mkdtemp(dir) == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", dir, strerror(errno));
    status = run_in(ctx, artifact, dir, in, in_bytes, out, out_bytes, threads);
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet != NULL)
        (void)nas_remove_tree(quiet, dir); /* best effort, after the answer is known */
    nas_ctx_free(quiet);
    return status;
}
