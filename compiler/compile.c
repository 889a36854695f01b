/* compile.c - graph to executable: lower, emit, pack the weights, build what is new. */
#include "compiler/compiler_internal.h"

static nas_status take_weights(nas_ctx *ctx, const nas__program *p, nas__sources *s) {
    s->weight_bytes = p->plan.weight_floats * sizeof(float);
    s->weights = nas_alloc_array(ctx, p->plan.weight_floats, sizeof(float));
    return s->weights != NULL ? nas__pack_weights(ctx, p, s->weights) : NAS_ERR_NOMEM;
}

nas_status nas_compile(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas_artifact *out) {
    if (options->target == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "compile: no target");
    nas__program *p = NULL;
    nas__sources sources = {0};
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK)
        status = nas__lower(ctx, graph, options->target, options->max_threads, NULL, &p);
    if (status == NAS_OK) status = nas__emit_sources(ctx, p, &sources);
    if (status == NAS_OK) status = take_weights(ctx, p, &sources);
    nas__program_free(p);
    if (status == NAS_OK) status = nas__build_program(ctx, options, &sources, out);
    nas__sources_deinit(&sources);
    return status;
}
