/* exec_variants.c - networks that differ from one another by one convolution: what comes before it is run once. */
#include "eval/exec_internal.h"

typedef struct variants_run {
    nas_exec *e;
    const nas_exec_variant *variants;
    float *const *packed; /* [graphs] */
    int32_t *steps;       /* [n_variants] of the convolution */
    size_t n_variants, n;
    nas_exec_read_fn read;
    void *arg;
    nas_exec_answer_fn answer;
    void *answer_arg;
    float *scratch; /* one image, or one answer, a worker */
    size_t scratch_floats;
} variants_run;

static nas_status run_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const variants_run *r = arg;
    const nas_exec *e = r->e;
    const nas_value output = nas_graph_output(e->graph);
    const size_t chunk = (size_t)e->options.chunk, first = index * chunk, left = r->n - first;
    const int32_t n = (int32_t)(left < chunk ? left : chunk);
    float *space = e->spaces[worker], *scratch = r->scratch + (size_t)worker * r->scratch_floats;
    int32_t done = 0; /* steps of the network as it is, whose values stand */
    nas__exec_load(e, space, first, n, r->read, r->arg, scratch);
    for (size_t k = 0; k < r->n_variants; k++) {
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        for (; done < r->steps[k]; done++)
            nas__exec_run_step(e, &e->steps[done], space, n);
        nas_exec other = *e;
        other.packed = r->packed[r->variants[k].graph];
        nas__exec_run_step(&other, &e->steps[done], space, n);
        for (int32_t i = done + 1; i < e->n_steps; i++)
            nas__exec_run_step(e, &e->steps[i], space, n);
        for (int32_t image = 0; image < n; image++) {
            nas__exec_store(e, space, output, image, scratch);
            r->answer(r->answer_arg, k, first + (size_t)image, scratch);
        }
    }
    return NAS_OK;
}

/* Where the variants are among the steps. */
static nas_status find_steps(nas_ctx *ctx, const nas_exec *e, const nas_exec_variant *variants,
                             size_t n_variants, size_t n_graphs, int32_t *steps) {
    int32_t at = 0;
    for (size_t k = 0; k < n_variants; k++) {
        while (at < e->n_steps && e->steps[at].node != variants[k].conv)
            at++;
        if (at == e->n_steps || variants[k].graph >= n_graphs ||
            nas_graph_node(e->graph, variants[k].conv)->op != NAS_OP_CONV)
            return nas_fail(ctx, NAS_ERR_INVALID,
                            "variant %zu: node %d of graph %zu is no convolution, or comes before "
                            "that of the variant before",
                            k, (int)variants[k].conv, variants[k].graph);
        steps[k] = at;
    }
    return NAS_OK;
}

static nas_status pack_all(nas_ctx *ctx, const nas_exec *e, const nas_graph *const *graphs,
                           size_t n_graphs, float **packed) {
    for (size_t i = 0; i < n_graphs; i++) {
        if (nas_graph_node_count(graphs[i]) != nas_graph_node_count(e->graph))
            return nas_fail(ctx, NAS_ERR_INVALID, "variants: networks of %d and of %d nodes",
                            (int)nas_graph_node_count(graphs[i]),
                            (int)nas_graph_node_count(e->graph));
        packed[i] = nas_alloc_aligned(ctx, e->packed_floats + 1, sizeof *packed[i], 64);
        if (packed[i] == NULL) return NAS_ERR_NOMEM;
        nas__exec_pack(e, graphs[i], packed[i]);
    }
    return NAS_OK;
}

static size_t floats_of(const nas_graph *g, nas_value v) {
    const nas_shape s = nas_graph_node(g, v)->shape;
    return (size_t)s.h * (size_t)s.w * (size_t)s.c;
}

nas_status nas_exec_run_variants(nas_ctx *ctx, const nas_graph *graph,
                                 const nas_graph *const *graphs, size_t n_graphs,
                                 const nas_exec_options *options, const nas_exec_variant *variants,
                                 size_t n_variants, size_t n, nas_exec_read_fn read, void *arg,
                                 nas_exec_answer_fn answer, void *answer_arg) {
    variants_run r = {.variants = variants,
                      .n_variants = n_variants,
                      .n = n,
                      .read = read,
                      .arg = arg,
                      .answer = answer,
                      .answer_arg = answer_arg};
    nas_status status = nas__exec_plan(ctx, graph, options, true, &r.e);
    if (status != NAS_OK) return status;
    const size_t in = floats_of(graph, nas_graph_input(graph)),
                 out = floats_of(graph, nas_graph_output(graph));
    r.scratch_floats = in > out ? in : out;
    float **packed = nas_alloc_array(ctx, n_graphs, sizeof *packed);
    r.steps = nas_alloc_array(ctx, n_variants, sizeof *r.steps);
    r.scratch = nas_alloc_array(ctx, r.scratch_floats * (size_t)options->threads, sizeof(float));
    r.packed = packed;
    if (packed == NULL || r.steps == NULL || r.scratch == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = find_steps(ctx, r.e, variants, n_variants, n_graphs, r.steps);
    if (status == NAS_OK) status = pack_all(ctx, r.e, graphs, n_graphs, packed);
    const size_t chunks = (n + (size_t)options->chunk - 1) / (size_t)options->chunk;
    if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, run_chunk, &r);
    for (size_t i = 0; packed != NULL && i < n_graphs; i++)
        nas_free(packed[i]);
    nas_free(packed);
    nas_free(r.steps);
    nas_free(r.scratch);
    nas_exec_free(r.e);
    return status;
}
