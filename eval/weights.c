/* weights.c - the weight store: one tensor a param name, sized for the largest net; smaller nets are slices. */
#include "eval/weights_internal.h"

#include <string.h>

/* ---- slices ---------------------------------------------------------------------------------------------------- */

static const nas__weight *find_weight(const nas_weights *weights, const char *name) {
    for (size_t i = 0; i < weights->n; i++) {
        if (strcmp(weights->items[i].name, name) == 0) return &weights->items[i];
    }
    return NULL;
}

/* Params of rank 1 are [O,1,1,1]; anything but 1 and 4 does not exist in a graph this module trains. */
static void dims_of(const nas_param *param, int32_t dims[4]) {
    for (int32_t i = 0; i < 4; i++)
        dims[i] = i < param->rank ? param->dims[i] : 1;
}

nas_status nas__weights_slice(nas_ctx *ctx, const nas_weights *weights, const nas_param *param,
                              nas__slice *out) {
    const nas__weight *w = find_weight(weights, param->name);
    if (w == NULL) {
        return nas_fail(ctx, NAS_ERR_NOTFOUND,
                        "param '%s': the weight store of %zu tensors has none of that name; was it "
                        "made for another space?",
                        param->name, weights->n);
    }
    nas__slice s = {.weight = w, .index = (size_t)(w - weights->items)};
    dims_of(param, s.dims);
    bool fits = w->rank == param->rank;
    for (int32_t i = 0; i < 4; i++)
        fits = fits && s.dims[i] >= 1 && s.dims[i] <= w->dims[i];
    fits = fits && (w->dims[1] - s.dims[1]) % 2 == 0 && (w->dims[2] - s.dims[2]) % 2 == 0;
    if (!fits) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "param '%s': [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "] is no slice of the stored [%" PRId32 ",%" PRId32 ",%" PRId32 ",%" PRId32
                        "]",
                        param->name, s.dims[0], s.dims[1], s.dims[2], s.dims[3], w->dims[0],
                        w->dims[1], w->dims[2], w->dims[3]);
    }
    s.top = (w->dims[1] - s.dims[1]) / 2;
    s.left = (w->dims[2] - s.dims[2]) / 2;
    *out = s;
    return NAS_OK;
}

/* Offset in the stored tensor of the run of input channels of row `row` = (o, ky, kx) of the slice. */
static size_t run_at(const nas__slice *s, size_t row) {
    const size_t kw = (size_t)s->dims[2], kh = (size_t)s->dims[1];
    const size_t x = row % kw + (size_t)s->left, y = row / kw % kh + (size_t)s->top;
    const size_t o = row / kw / kh;
    const int32_t *d = s->weight->dims;
    return ((o * (size_t)d[1] + y) * (size_t)d[2] + x) * (size_t)d[3];
}

static size_t runs_of(const nas__slice *s) {
    return (size_t)s->dims[0] * (size_t)s->dims[1] * (size_t)s->dims[2];
}

void nas__slice_read(const nas__slice *slice, const float *store, float *dense) {
    const size_t run = (size_t)slice->dims[3];
    for (size_t r = 0; r < runs_of(slice); r++) {
        memcpy(dense + r * run, store + run_at(slice, r), run * sizeof *dense);
    }
}

void nas__slice_write(const nas__slice *slice, const float *dense, float *store) {
    const size_t run = (size_t)slice->dims[3];
    for (size_t r = 0; r < runs_of(slice); r++) {
        memcpy(store + run_at(slice, r), dense + r * run, run * sizeof *dense);
    }
}

void nas__slice_add(const nas__slice *slice, const float *dense, float *store, uint8_t *touched) {
    const size_t run = (size_t)slice->dims[3];
    for (size_t r = 0; r < runs_of(slice); r++) {
        const size_t at = run_at(slice, r);
        for (size_t i = 0; i < run; i++)
            store[at + i] += dense[r * run + i];
        memset(touched + at, 1, run);
    }
}

/* ---- life ------------------------------------------------------------------------------------------------------- */

static nas_status alloc_weight(nas_ctx *ctx, const nas_param *param, nas__weight *w) {
    w->rank = param->rank;
    dims_of(param, w->dims);
    w->count = param->count;
    w->name = nas_strdup(ctx, param->name);
    w->value = nas_alloc_array(ctx, w->count, sizeof *w->value);
    w->mean = nas_alloc_array(ctx, w->count, sizeof *w->mean);
    w->variance = nas_alloc_array(ctx, w->count, sizeof *w->variance);
    w->steps = nas_alloc_array(ctx, w->count, sizeof *w->steps);
    const bool complete = w->name != NULL && w->value != NULL && w->mean != NULL &&
                          w->variance != NULL && w->steps != NULL;
    return complete ? NAS_OK : NAS_ERR_NOMEM;
}

nas_status nas__weights_alloc(nas_ctx *ctx, const nas_graph *graph, nas_weights **out) {
    nas_weights *weights = nas_alloc_array(ctx, 1, sizeof *weights);
    if (weights == NULL) return NAS_ERR_NOMEM;
    const size_t n = (size_t)nas_graph_param_count(graph);
    weights->items = nas_alloc_array(ctx, n, sizeof *weights->items);
    if (weights->items == NULL) {
        nas_free(weights);
        return NAS_ERR_NOMEM;
    }
    weights->n = n;
    for (size_t i = 0; i < n; i++) {
        const nas_param *param = nas_graph_param_const(graph, (int32_t)i);
        const nas_status status = alloc_weight(ctx, param, &weights->items[i]);
        if (status != NAS_OK) {
            nas_weights_free(weights);
            return status;
        }
    }
    *out = weights;
    return NAS_OK;
}

nas_status nas_weights_new(nas_ctx *ctx, const nas_graph *largest, nas_rng *rng,
                           nas_weights **out) {
    nas_weights *weights = NULL;
    nas_status status = nas__weights_alloc(ctx, largest, &weights);
    if (status != NAS_OK) return status;
    status = nas__weights_initialise(ctx, weights, largest, rng);
    if (status != NAS_OK) {
        nas_weights_free(weights);
        return status;
    }
    *out = weights;
    return NAS_OK;
}

nas_status nas_weights_inherit(nas_ctx *ctx, const nas_weights *from, const nas_graph *graph,
                               nas_weights **out) {
    nas_weights *weights = NULL;
    nas_status status = nas__weights_alloc(ctx, graph, &weights);
    for (size_t i = 0; status == NAS_OK && i < weights->n; i++) {
        nas__slice slice;
        status = nas__weights_slice(ctx, from, nas_graph_param_const(graph, (int32_t)i), &slice);
        if (status == NAS_OK) nas__slice_read(&slice, slice.weight->value, weights->items[i].value);
    }
    if (status != NAS_OK) {
        nas_weights_free(weights);
        return status;
    }
    *out = weights;
    return NAS_OK;
}

void nas_weights_free(nas_weights *weights) {
    if (weights == NULL) return;
    for (size_t i = weights->n; i > 0; i--) {
        nas__weight *w = &weights->items[i - 1];
        nas_free(w->steps);
        nas_free(w->variance);
        nas_free(w->mean);
        nas_free(w->value);
        nas_free(w->name);
    }
    nas_free(weights->items);
    nas_free(weights);
}

nas_status nas_weights_fill(nas_ctx *ctx, const nas_weights *weights, nas_graph *graph) {
    const int32_t n = nas_graph_param_count(graph);
    nas__slice slice;
    for (int32_t i = 0; i < n; i++) { /* all are checked before any is written */
        const nas_status status =
            nas__weights_slice(ctx, weights, nas_graph_param_const(graph, i), &slice);
        if (status != NAS_OK) return status;
    }
    const nas_status status = nas_graph_alloc_weights(ctx, graph);
    if (status != NAS_OK) return status;
    for (int32_t i = 0; i < n; i++) {
        nas_param *param = nas_graph_param(graph, i);
        const nas_status found = nas__weights_slice(ctx, weights, param, &slice);
        if (found != NAS_OK) return found;
        nas__slice_read(&slice, slice.weight->value, param->data);
    }
    return NAS_OK;
}

uint64_t nas_weights_steps(const nas_weights *weights) {
    return weights->steps;
}
