/* oneshot_sequential.c - layers compressed one after another, each against what the compressed ones before it give it. */
#include "search/oneshot.h"

nas_value nas__oneshot_summed_with(const nas_graph *g, nas_value conv) {
    nas_value sum = NAS_VALUE_NONE, other = NAS_VALUE_NONE;
    for (nas_value v = conv + 1; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        for (int32_t i = 0; i < node->n_inputs; i++) {
            if (node->inputs[i] != conv) continue;
            if (sum != NAS_VALUE_NONE || node->op != NAS_OP_ADD) return NAS_VALUE_NONE;
            sum = v;
            other = node->inputs[1 - i];
        }
    }
    return sum != NAS_VALUE_NONE && other < conv ? other : NAS_VALUE_NONE;
}

static nas_status compress_next(nas_ctx *ctx, nas_oneshot *o, size_t layer,
                                const nas_layer_scheme *scheme, const nas_layer_options *options,
                                nas_layer_result *result, nas_graph *graph) {
    const nas_exec_options e = {.chunk = 8, .threads = o->options.threads};
    const nas_value v = o->layers[layer];
    nas_exec_pair p;
    if (!scheme->is_sparse && scheme->bits == 0)
        return nas_layer_compress(ctx, graph, v, scheme, &o->moments[layer], options, result);
    nas_status status = nas_exec_pair_moments(
        ctx, graph, o->model, &e, v, nas__oneshot_summed_with(graph, v), o->n_sample,
        o->options.positions, o->sample_seed, nas__oneshot_read_sample, o, &p);
    const nas_moments m = {
        .conv = v, .size = p.size, .gram = p.gram, .cross = p.cross, .square = p.square};
    if (status == NAS_OK) status = nas_layer_compress(ctx, graph, v, scheme, &m, options, result);
    nas_exec_pair_deinit(&p);
    return status;
}

nas_status nas_oneshot_apply_sequential(nas_ctx *ctx, nas_oneshot *o,
                                        const nas_layer_scheme *schemes,
                                        const nas_layer_options *options, nas_layer_result *results,
                                        nas_graph **out) {
    nas_graph *graph = NULL;
    if (o->moments == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "layers in turn need a calibrated model");
    nas_status status = nas_graph_clone(ctx, o->model, &graph);
    for (size_t i = 0; i < o->n_layers && status == NAS_OK; i++) {
        if (o->note != NULL)
            o->note(o->note_arg, "compressing in turn", (double)i, (double)o->n_layers);
        status = compress_next(ctx, o, i, &schemes[i], options,
                               results != NULL ? &results[i] : NULL, graph);
    }
    if (status == NAS_OK) {
        if (o->note != NULL)
            o->note(o->note_arg, "compressing in turn", (double)o->n_layers, (double)o->n_layers);
        *out = graph;
        return NAS_OK;
    }
    nas_graph_free(graph);
    return status;
}
