/* bundle.c - the network as files for an app: model.c, model.h, weights.c, example.c, README.txt. */
#include "compiler/compiler_internal.h"

#include <stdio.h>
#include <string.h>

static nas_status put(nas_ctx *ctx, const char *dir, const char *name, const char *text,
                      size_t len) {
    char path[1024];
    const int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return nas_fail(ctx, NAS_ERR_RANGE, "bundle folder '%s': path too long", dir);
    return nas_file_write(ctx, path, text, len, 0644);
}

static void emit_readme(const nas__form *f, const nas_compile_options *o, const char *compiler,
                        nas_buf *out) {
    const nas_graph *g = nas__form_graph(f);
    const nas_shape *in = &nas_graph_node(g, nas_graph_input(g))->shape;
    const nas_shape *result = &nas_graph_node(g, nas_graph_output(g))->shape;
    nas_buf_printf(out, "Network '%s' as C for target %s (%s).\n\n", nas_graph_name(g),
                   o->target->name, o->target->flags);
    nas_buf_printf(out,
                   "Build the example:\n\n    %s -O2 -std=gnu99 -ffp-contract=fast %s -pthread "
                   "model.c weights.c "
                   "example.c -o example\n\n",
                   compiler, o->target->flags);
    nas_buf_printf(out,
                   "Run it on raw 32-bit floats, planar [channels][rows][columns]:\n\n    "
                   "./example in.raw out.raw\n\n"
                   "in.raw   %d x %d x %d\nout.raw  %d x %d x %d\n\n",
                   in->c, in->h, in->w, result->c, result->h, result->w);
    nas_buf_printf(out,
                   "In an app: allocate MODEL_ARENA_BYTES (%zu bytes, aligned to 64), model_open "
                   "once with 1..%d\n"
                   "threads, model_run for each frame, model_close at the end. Nothing else is "
                   "allocated; no run-time\n"
                   "library is needed besides the C library and pthreads. -O3 and -ffast-math make "
                   "it slower.\n",
                   nas__form_arena_bytes(f), o->max_threads);
}

static nas_status write_files(nas_ctx *ctx, const nas__form *f, const nas_compile_options *options,
                              const char *compiler, const char *dir) {
    nas__sources sources = {0};
    nas_buf c = {0}, weights = {0}, readme = {0};
    const char *example = nas__rt_file("example.c");
    nas_status status =
        example != NULL ? NAS_OK : nas_fail(ctx, NAS_ERR_INTERNAL, "example.c is not embedded");
    if (status == NAS_OK) status = nas__form_emit(ctx, f, &sources);
    if (status == NAS_OK) {
        nas__sources_text(&sources, &c);
        status = nas_buf_status(ctx, &c);
    }
    if (status == NAS_OK) status = nas__form_emit_weights_c(ctx, f, options->target, &weights);
    if (status == NAS_OK) {
        emit_readme(f, options, compiler, &readme);
        status = nas_buf_status(ctx, &readme);
    }
    if (status == NAS_OK) status = nas_mkdirs(ctx, dir);
    if (status == NAS_OK) status = put(ctx, dir, "model.c", c.data, c.len);
    if (status == NAS_OK)
        status = put(ctx, dir, "model.h", sources.header.data, sources.header.len);
    if (status == NAS_OK) status = put(ctx, dir, "weights.c", weights.data, weights.len);
    if (status == NAS_OK) status = put(ctx, dir, "example.c", example, strlen(example));
    if (status == NAS_OK) status = put(ctx, dir, "README.txt", readme.data, readme.len);
    nas_buf_deinit(&readme);
    nas_buf_deinit(&weights);
    nas_buf_deinit(&c);
    nas__sources_deinit(&sources);
    return status;
}

nas_status nas_emit_bundle(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                           const char *dir) {
    if (options->target == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "bundle: no target");
    nas__form form = {0};
    nas_status status = nas__form_lower(ctx, graph, options, &form);
    if (status != NAS_OK) return status;
    const char *compiler =
        options->compiler != NULL ? options->compiler : options->target->compiler;
    status = write_files(ctx, &form, options, compiler, dir);
    nas__form_free(&form);
    return status;
}
