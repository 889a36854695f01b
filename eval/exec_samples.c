/* exec_samples.c - samples of the values of a network over images, for grids of activations. */
#include "eval/codes.h"
#include "eval/exec_internal.h"

typedef struct sampler {
    nas_exec *e;
    const nas_value *values;
    size_t n_values, n;
    int32_t each;
    uint64_t seed;
    nas_exec_read_fn read;
    void *arg;
    float *out, *scratch;
    size_t image_floats;
} sampler;

static void sample(const sampler *s, float *space, size_t k, size_t first, int32_t image) {
    const nas__exec_value *v = nas__exec_root(s->e, s->values[k]);
    const float *at = nas__exec_at(s->e, space, s->values[k]) + image * v->image;
    const size_t index = first + (size_t)image;
    nas_rng rng = nas_rng_stream(s->seed, index * s->n_values + k, "activation samples");
    for (int32_t i = 0; i < s->each; i++) {
        const int32_t p = (int32_t)nas_rng_below(&rng, (uint32_t)(v->h * v->w));
        const uint32_t c = nas_rng_below(&rng, (uint32_t)v->c);
        s->out[(k * s->n + index) * (size_t)s->each + (size_t)i] =
            at[p / v->w * v->row + (ptrdiff_t)(p % v->w) * v->cs + (ptrdiff_t)c];
    }
}

static nas_status run_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const sampler *s = arg;
    const size_t chunk = (size_t)s->e->options.chunk, first = index * chunk, left = s->n - first;
    const int32_t n = (int32_t)(left < chunk ? left : chunk);
    float *space = s->e->spaces[worker];
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    nas__exec_load(s->e, space, first, n, s->read, s->arg,
                   s->scratch + (size_t)worker * s->image_floats);
    nas__exec_forward(s->e, space, n, NAS_GRAPH_NODES_MAX);
    for (size_t k = 0; k < s->n_values; k++) {
        for (int32_t image = 0; image < n; image++)
            sample(s, space, k, first, image);
    }
    return NAS_OK;
}

nas_status nas_exec_samples(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                            const nas_value *values, size_t n_values, size_t n, int32_t each,
                            uint64_t seed, nas_exec_read_fn read, void *arg, float *out) {
    const nas_shape in = nas_graph_node(graph, nas_graph_input(graph))->shape;
    sampler s = {.values = values,
                 .n_values = n_values,
                 .n = n,
                 .each = each,
                 .seed = seed,
                 .read = read,
                 .arg = arg,
                 .out = out,
                 .image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c};
    if (each < 1) return nas_fail(ctx, NAS_ERR_INVALID, "%d samples of a value", (int)each);
    nas_status status = nas__exec_plan(ctx, graph, options, true, &s.e);
    if (status != NAS_OK) return status;
    s.scratch = nas_alloc_array(ctx, s.image_floats * (size_t)options->threads, sizeof(float));
    if (s.scratch == NULL) status = NAS_ERR_NOMEM;
    const size_t chunks = (n + (size_t)options->chunk - 1) / (size_t)options->chunk;
    if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, run_chunk, &s);
    nas_free(s.scratch);
    nas_exec_free(s.e);
    return status;
}
