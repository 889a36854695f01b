/* form.c - which of the two forms a network is compiled in, and the questions that do not depend on the answer. */
#include "compiler/layers_internal.h"

enum {
    ROWS_EXTENT_MIN = 96
}; /* below it a whole image fits the cache and rows are too short to fill vectors well */

static bool large_image(const nas_graph *graph) {
    const nas_value v = nas_graph_input(graph);
    const nas_shape *s = v == NAS_VALUE_NONE ? NULL : &nas_graph_node(graph, v)->shape;
    return s != NULL && s->h >= ROWS_EXTENT_MIN && s->w >= ROWS_EXTENT_MIN;
}

/* NAS_ERR_UNSUPPORTED where the rows cannot express the network: the caller goes on with the other form. */
static nas_status try_rows(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *o,
                           nas__form *out) {
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for a context");
    nas_status status = nas__lower(quiet, graph, o->target, o->max_threads, NULL, &out->rows);
    if (status != NAS_OK && status != NAS_ERR_UNSUPPORTED)
        status = nas_fail(ctx, status, "%s", nas_ctx_message(quiet));
    nas_ctx_free(quiet);
    return status;
}

nas_status nas__form_lower(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *o,
                           nas__form *out) {
    *out = (nas__form){0};
    nas_status status = NAS_ERR_UNSUPPORTED;
    switch (o->form) {
    case NAS_FORM_ROWS: return nas__lower(ctx, graph, o->target, o->max_threads, NULL, &out->rows);
    case NAS_FORM_AUTO:
        if (large_image(graph)) status = try_rows(ctx, graph, o, out);
        break;
    case NAS_FORM_LAYERS: break;
    }
    if (status != NAS_ERR_UNSUPPORTED) return status;
    return nas__layers_lower(ctx, graph, o, &out->layers);
}

void nas__form_free(nas__form *form) {
    nas__program_free(form->rows);
    nas__layers_free(form->layers);
    *form = (nas__form){0};
}

nas_status nas__form_emit(nas_ctx *ctx, const nas__form *f, nas__sources *out) {
    return f->rows != NULL ? nas__emit_sources(ctx, f->rows, out)
                           : nas__layers_emit(ctx, f->layers, out);
}

void nas__form_dump(const nas__form *f, nas_buf *out) {
    if (f->rows != NULL) {
        nas__dump(f->rows, "plan", out);
    } else {
        nas__layers_dump(f->layers, out);
    }
}

size_t nas__form_arena_bytes(const nas__form *f) {
    return f->rows != NULL ? f->rows->plan.arena_bytes : f->layers->arena_bytes;
}

size_t nas__form_weight_floats(const nas__form *f) {
    return f->rows != NULL ? f->rows->plan.weight_floats : f->layers->weight_floats;
}

nas_status nas__form_pack(nas_ctx *ctx, const nas__form *f, float *out) {
    return f->rows != NULL ? nas__pack_weights(ctx, f->rows, out)
                           : nas__layers_pack(ctx, f->layers, out);
}

const nas_graph *nas__form_graph(const nas__form *f) {
    return f->rows != NULL ? f->rows->graph : f->layers->graph;
}

const char *nas__form_graph_hash(const nas__form *f) {
    return f->rows != NULL ? f->rows->graph_hash : f->layers->graph_hash;
}
