/* compile.c - graph to executable: lower, emit, pack the weights, build what is new. */
#include "compiler/compiler_internal.h"

static nas_status take_weights(nas_ctx *ctx, const nas__form *f, nas__sources *s) {
    s->weight_bytes = nas__form_weight_bytes(f);
    s->weights = nas_alloc_array(ctx, s->weight_bytes, 1);
    return s->weights != NULL ? nas__form_pack(ctx, f, s->weights) : NAS_ERR_NOMEM;
}

nas_status nas_compile(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas_artifact *out) {
    if (options->target == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "compile: no target");
    nas__form form = {0};
    nas__sources sources = {0};
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK) status = nas__form_lower(ctx, graph, options, &form);
    if (status == NAS_OK) status = nas__form_emit(ctx, &form, &sources);
    if (status == NAS_OK) status = take_weights(ctx, &form, &sources);
    nas__form_free(&form);
    if (status == NAS_OK) status = nas__build_program(ctx, options, &sources, out);
    nas__sources_deinit(&sources);
    return status;
}
