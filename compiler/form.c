/* form.c - which of the two forms a network is compiled in, and the questions that do not depend on the answer. */
#include "compiler/layers_network_internal.h"

#include <string.h>

/* Below it a whole image fits the cache, and rows are too short to fill vectors well. */
enum { ROWS_EXTENT_MIN = 96 };

static bool large_image(const nas_graph *graph) {
    const nas_value v = nas_graph_input(graph);
    const nas_shape *s = v == NAS_VALUE_NONE ? NULL : &nas_graph_node(graph, v)->shape;
    return s != NULL && s->h >= ROWS_EXTENT_MIN && s->w >= ROWS_EXTENT_MIN;
}

/* A node whose value or weights are stored as integers, NULL when there is none. Rows compute in floats alone. */
static const nas_node *find_integers(const nas_graph *g) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->quant.is_set) return node;
        for (int32_t k = 0; k < NAS_NODE_PARAMS_MAX; k++) {
            const int32_t p = node->params[k];
            if (p >= 0 && nas_graph_param_const(g, p)->scales != NULL) return node;
        }
    }
    return NULL;
}

/* The simplified network as rows; it stays the network as given by name. */
static nas_status lower_rows(nas_ctx *ctx, const nas_compile_options *o, nas__form *f) {
    const nas_status status = nas__lower(ctx, f->graph, o, NULL, &f->rows);
    if (status == NAS_OK) memcpy(f->rows->graph_hash, f->graph_hash, sizeof f->graph_hash);
    return status;
}

/* NAS_ERR_UNSUPPORTED where the rows cannot express the network: the caller goes on with the other form. */
static nas_status try_rows(nas_ctx *ctx, const nas_compile_options *o, nas__form *f) {
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet == NULL) return nas_fail(ctx, NAS_ERR_NOMEM, "no memory for a context");
    nas_status status = lower_rows(quiet, o, f);
    if (status != NAS_OK && status != NAS_ERR_UNSUPPORTED)
        status = nas_fail(ctx, status, "%s", nas_ctx_message(quiet));
    nas_ctx_free(quiet);
    return status;
}

static nas_status lower_layers(nas_ctx *ctx, const nas_compile_options *o, nas__form *f) {
    nas_graph_free(f->phases);
    nas_graph_free(f->sliced);
    f->phases = f->sliced = NULL;
    nas_status status = nas__graph_phases(ctx, f->graph, &f->phases);
    const nas_graph *g = f->phases != NULL ? f->phases : f->graph;
    if (status == NAS_OK)
        status =
            nas__graph_slice(ctx, g, o->target->vector_bytes / (int32_t)sizeof(float), &f->sliced);
    if (status == NAS_OK)
        status = nas__layers_lower(ctx, f->sliced != NULL ? f->sliced : g, o, &f->layers);
    if (status == NAS_OK) memcpy(f->layers->graph_hash, f->graph_hash, sizeof f->graph_hash);
    return status;
}

/* ---- which form is faster: coarse, for networks that both can express ------------------------------------------------ */

/* Rows reach this share of the multiply-add bound (0.53 to 0.65 measured on AVX2), whatever the kernel sizes are. */
static const double rows_share = 0.6;
/* Layers stream whole images from beyond the L2 cache. */
static const double stream_bytes_cycle = 4;

static double rows_cycles(const nas_graph *g, const nas_target *target) {
    return (double)nas__graph_macs(g) / (2.0 * target->vector_bytes / 4) / rows_share;
}

static double view_bytes(const nas__layers *l, nas_value v) {
    const nas_shape *s = &nas_graph_node(l->graph, v)->shape;
    return 4.0 * s->h * s->w * s->c;
}

static double layer_cycles(const nas__layers *l, const nas__layer *layer) {
    double bytes = view_bytes(l, layer->value);
    for (int32_t k = 0; k < layer->n_inputs; k++)
        bytes += view_bytes(l, layer->inputs[k]);
    if (layer->n_inputs == 0) bytes *= 2; /* the caller's image */
    double kernel = 0;
    if (layer->kind == NAS__LAYER_CONV) kernel = layer->ways[layer->way].cycles;
    if (layer->kind == NAS__LAYER_OP) /* products that are no convolutions have plain kernels */
        kernel = (double)nas_graph_node_cost(l->graph, layer->node).macs / 2;
    return kernel + bytes / stream_bytes_cycle;
}

/* Lowers by layers into *out when that is faster than rows: Winograd makes up for the traffic where channels are many.
 * Estimates alone decide, nothing is measured for it. */
static void try_layers(nas_ctx *ctx, const nas_compile_options *o, nas__form *f) {
    nas_compile_options untuned = *o;
    untuned.memory = NULL;
    nas_ctx *quiet = nas_ctx_child(ctx);
    double cycles = 0;
    if (quiet == NULL || lower_layers(quiet, &untuned, f) != NAS_OK) {
        nas_ctx_free(quiet); /* the rows, or a lowering that is not quiet, say what is wrong */
        return;
    }
    nas_ctx_free(quiet);
    for (int32_t i = 0; i < f->layers->n_layers; i++)
        cycles += layer_cycles(f->layers, &f->layers->layers[i]);
    /* Rows compute the phases of a transposed convolution without the zeros, in a tenth of the memory. */
    if (f->phases == NULL && cycles < rows_cycles(f->graph, o->target)) return;
    nas__layers_free(f->layers);
    f->layers = NULL;
}

/* Half precision has kernels for rows alone. */
static nas_status lower_half(nas_ctx *ctx, const nas_compile_options *o, const nas_node *integers,
                             nas__form *f) {
    if (o->form == NAS_FORM_LAYERS)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "dtype fp16 has kernels for rows alone, not for layers: take form rows or "
                        "auto, or dtype fp32");
    if (integers != NULL)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s' is quantized; a network of integers is not compiled in half "
                        "precision: take dtype fp32, which keeps its integers",
                        integers->name);
    const nas_status status = lower_rows(ctx, o, f);
    if (status != NAS_ERR_UNSUPPORTED) return status;
    return nas_wrap(ctx, status,
                    "dtype fp16 takes networks that compile by rows (stride 1, image to image); "
                    "this one needs dtype fp32");
}

/* Products of bf16 have kernels for layers alone. The tuning program has none of them: estimates decide. */
static nas_status lower_bf16(nas_ctx *ctx, const nas_compile_options *o, const nas_node *integers,
                             nas__form *f) {
    if (o->form == NAS_FORM_ROWS)
        return nas_fail(
            ctx, NAS_ERR_UNSUPPORTED,
            "dtype bf16 has kernels for layers alone, not for rows: take form layers or "
            "auto, or dtype fp32");
    if (integers != NULL)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s' is quantized; a network of integers is not compiled in bf16: "
                        "take dtype fp32, which keeps its integers",
                        integers->name);
    nas_compile_options untuned = *o;
    untuned.memory = NULL;
    return lower_layers(ctx, &untuned, f);
}

static nas_status choose_form(nas_ctx *ctx, const nas_compile_options *o, nas__form *f) {
    nas_status status = NAS_ERR_UNSUPPORTED;
    const nas_node *integers = find_integers(f->graph);
    if (o->dtype == NAS_DTYPE_FP16) return lower_half(ctx, o, integers, f);
    if (o->dtype == NAS_DTYPE_BF16) return lower_bf16(ctx, o, integers, f);
    switch (o->form) {
    case NAS_FORM_ROWS:
        if (integers == NULL) return lower_rows(ctx, o, f);
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "node '%s' is quantized; networks of integers are compiled as layers, not "
                        "as rows",
                        integers->name);
    case NAS_FORM_AUTO:
        if (!large_image(f->graph) || integers != NULL) break;
        try_layers(ctx, o, f);
        if (f->layers == NULL) status = try_rows(ctx, o, f);
        if (f->layers != NULL && o->memory == NULL) return NAS_OK;
        break;
    case NAS_FORM_LAYERS: break;
    }
    if (status != NAS_ERR_UNSUPPORTED) return status;
    nas__layers_free(f->layers); /* an untuned one */
    return lower_layers(ctx, o, f);
}

nas_status nas__form_lower(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *o,
                           nas__form *out) {
    *out = (nas__form){0};
    nas_status status = nas_graph_verify(
        ctx, graph); /* first: what passes make of bad input is no defect of theirs */
    if (status == NAS_OK) status = nas_target_check_dtype(ctx, o->target, o->dtype);
    if (status == NAS_OK) status = nas_graph_hash(ctx, graph, false, out->graph_hash);
    if (status == NAS_OK) status = nas__graph_optimize(ctx, graph, NULL, NULL, &out->graph);
    if (status == NAS_OK) status = choose_form(ctx, o, out);
    if (status != NAS_OK) nas__form_free(out);
    return status;
}

void nas__form_free(nas__form *form) {
    nas__program_free(form->rows);
    nas__layers_free(form->layers);
    nas_graph_free(form->graph);
    nas_graph_free(form->phases);
    nas_graph_free(form->sliced);
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

bool nas__form_has_integers(const nas__form *f) {
    return f->layers != NULL && nas__layers_words(f->layers);
}

bool nas__form_is_half(const nas__form *f) {
    return f->rows != NULL && f->rows->dtype == NAS_DTYPE_FP16;
}

size_t nas__form_weight_bytes(const nas__form *f) {
    return nas__form_weight_floats(f) *
           (f->rows != NULL ? nas__real_bytes(f->rows) : sizeof(float));
}

nas_status nas__form_pack(nas_ctx *ctx, const nas__form *f, void *out) {
    return f->rows != NULL ? nas__pack_weights(ctx, f->rows, out)
                           : nas__layers_pack(ctx, f->layers, out);
}

const nas_graph *nas__form_graph(const nas__form *f) {
    return f->graph;
}

const char *nas__form_graph_hash(const nas__form *f) {
    return f->graph_hash;
}
