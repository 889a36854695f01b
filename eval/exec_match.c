/* exec_match.c - mean and deviation of what layers give, and bringing those of a changed network back to what they were: one
 * walk through the layers for all images at once, each corrected before the next one reads it. Sums are kept for each image
 * and added in their order: the same bits for any number of threads. */
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

enum { CHUNK = 32, CHUNKS_MAX = 64 };

/* Deviations that are nothing but rounding: no factor is taken from them. */
static const double flat = 1e-6;

typedef struct walk {
    nas_exec *e; /* a worker's space for each chunk */
    size_t n;
    nas_exec_read_fn read;
    void *arg;
    nas__exec_step *step;
    double *sums; /* [image][2][widest]: sums and sums of squares */
    size_t widest;
    float lo, hi;         /* activation of the step */
    float *scale, *shift; /* [whole vectors]: 0 past the last channel */
    bool matched;
} walk;

bool nas_exec_is_matched(const nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    return (node->op == NAS_OP_CONV && node->conv.has_bias) || node->op == NAS_OP_BATCH_NORM;
}

size_t nas_exec_channel_count(const nas_graph *g) {
    size_t n = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        n += nas_exec_is_matched(g, v) ? (size_t)nas_graph_node(g, v)->shape.c : 0;
    return n;
}

/* ---- one chunk ------------------------------------------------------------------------------------------------------ */

static int32_t images_of(const walk *w, size_t chunk) {
    const size_t left = w->n - chunk * CHUNK;
    return left < CHUNK ? (int32_t)left : CHUNK;
}

static nas_status load_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const walk *w = arg;
    const nas_shape in = nas_graph_node(w->e->graph, nas_graph_input(w->e->graph))->shape;
    float *image = nas_alloc_array(ctx, (size_t)in.h * (size_t)in.w * (size_t)in.c, sizeof *image);
    if (image == NULL) return NAS_ERR_NOMEM;
    nas__exec_load(w->e, w->e->spaces[index], index * CHUNK, images_of(w, index), w->read, w->arg,
                   image);
    nas_free(image);
    return NAS_OK;
}

static void sum_image(const walk *w, const nas__exec_value *v, const float *at, double *sum) {
    double *squares = sum + w->widest;
    for (int32_t c = 0; c < v->c; c++)
        sum[c] = squares[c] = 0;
    for (int32_t y = 0; y < v->h; y++)
        w->e->kernels->moments(at + y * v->row, v->cs, v->w, v->c, sum, squares);
}

static nas_status run_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const walk *w = arg;
    const nas__exec_value *v = nas__exec_root(w->e, w->step->node);
    float *space = w->e->spaces[index];
    const int32_t n = images_of(w, index);
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    nas__exec_run_step(w->e, w->step, space, n);
    if (!w->matched) return NAS_OK; /* nothing is asked of this step */
    const float *at = nas__exec_at(w->e, space, w->step->node);
    for (int32_t image = 0; image < n; image++)
        sum_image(w, v, at + image * v->image,
                  w->sums + (index * CHUNK + (size_t)image) * 2 * w->widest);
    return NAS_OK;
}

/* The step's values after the correction and the activation that was left out. */
static nas_status finish_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)ctx;
    (void)worker;
    const walk *w = arg;
    const nas__exec_value *v = nas__exec_root(w->e, w->step->node);
    float *at = nas__exec_at(w->e, w->e->spaces[index], w->step->node);
    for (int32_t i = 0; i < images_of(w, index) * v->h; i++) {
        float *x = at + i / v->h * v->image + i % v->h * v->row;
        const nas__exec_norm_row row = {.x = x,
                                        .y = x,
                                        .x_step = v->cs,
                                        .y_step = v->cs,
                                        .pixels = v->w,
                                        .channels = v->cs,
                                        .scale = w->scale,
                                        .shift = w->shift};
        w->e->kernels->norm_apply(&row, w->lo, w->hi);
    }
    return NAS_OK;
}

/* ---- one layer ------------------------------------------------------------------------------------------------------ */

static void statistics_of(const walk *w, int32_t channels, nas_exec_channel *out) {
    const nas_shape s = nas_graph_node(w->e->graph, w->step->node)->shape;
    const double count = (double)w->n * s.h * s.w;
    for (int32_t c = 0; c < channels; c++) {
        double sum = 0, squares = 0;
        for (size_t i = 0; i < w->n; i++) {
            sum += w->sums[i * 2 * w->widest + (size_t)c];
            squares += w->sums[(i * 2 + 1) * w->widest + (size_t)c];
        }
        const double mean = sum / count, variance = squares / count - mean * mean;
        out[c] = (nas_exec_channel){mean, variance > 0 ? sqrt(variance) : 0};
    }
}

/* scale*x + shift gives every channel x the wanted mean and deviation. */
static void choose_correction(walk *w, int32_t channels, const nas_exec_channel *got,
                              const nas_exec_channel *want) {
    const size_t vectors = (size_t)nas__exec_root(w->e, w->step->node)->cs;
    memset(w->scale, 0, vectors * sizeof *w->scale);
    memset(w->shift, 0, vectors * sizeof *w->shift);
    for (int32_t c = 0; c < channels; c++) {
        w->scale[c] = 1;
        w->shift[c] = 0;
        if (want == NULL) continue;
        if (got[c].deviation > flat && want[c].deviation > flat)
            w->scale[c] = (float)(want[c].deviation / got[c].deviation);
        w->shift[c] = (float)(want[c].mean - (double)w->scale[c] * got[c].mean);
    }
}

/* Weights on a grid stay on it: it moves with them, their codes are as they were. */
static void scale_filter(nas_param *weight, size_t each, int32_t c, float factor) {
    float *w = weight->data + (size_t)c * each;
    if (weight->scales == NULL) {
        for (size_t i = 0; i < each; i++)
            w[i] *= factor;
        return;
    }
    const float before = weight->scales[c], after = before * factor;
    for (size_t i = 0; i < each; i++)
        w[i] = nearbyintf(w[i] / before) * after;
    weight->scales[c] = after;
}

static void correct_params(const walk *w, nas_graph *g, const nas_node *node) {
    nas_param *weight = nas_graph_param(g, node->params[0]);
    nas_param *bias = nas_graph_param(g, node->params[1]);
    const size_t each = weight->count / (size_t)node->shape.c; /* 1 of a normalisation */
    for (int32_t c = 0; c < node->shape.c; c++) {
        scale_filter(weight, each, c, w->scale[c]);
        bias->data[c] = w->scale[c] * bias->data[c] + w->shift[c];
    }
}

static nas_status walk_step(nas_ctx *ctx, walk *w, int threads, nas_graph *graph,
                            nas_exec_channel *got, const nas_exec_channel *want) {
    const size_t chunks = (w->n + CHUNK - 1) / CHUNK;
    const nas_node *node = nas_graph_node(w->e->graph, w->step->node);
    w->matched = got != NULL;
    if (got == NULL) return nas_parallel(ctx, threads, chunks, run_chunk, w);
    w->lo = w->step->lo;
    w->hi = w->step->hi;
    w->step->lo = -INFINITY;
    w->step->hi = INFINITY;
    nas_status status = nas_parallel(ctx, threads, chunks, run_chunk, w);
    if (status != NAS_OK) return status;
    statistics_of(w, node->shape.c, got);
    choose_correction(w, node->shape.c, got, want);
    status = nas_parallel(ctx, threads, chunks, finish_chunk, w);
    if (status == NAS_OK && want != NULL) correct_params(w, graph, node);
    return status;
}

/* ---- all ------------------------------------------------------------------------------------------------------------ */

static nas_status check(nas_ctx *ctx, size_t n) {
    if (n >= 1 && n <= (size_t)CHUNK * CHUNKS_MAX) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE, "statistics of layers from %zu images, limit 1..%d", n,
                    CHUNK * CHUNKS_MAX);
}

/* graph: corrected when want is given. got: room for all channels. */
static nas_status walk_all(nas_ctx *ctx, const nas_graph *g, nas_graph *graph,
                           const nas_exec_options *options, size_t n, nas_exec_read_fn read,
                           void *arg, nas_exec_channel *got, const nas_exec_channel *want) {
    const size_t chunks = (n + CHUNK - 1) / CHUNK;
    const nas_exec_options o = {.chunk = CHUNK, .threads = (int32_t)chunks};
    walk w = {.n = n, .read = read, .arg = arg, .widest = 1};
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const size_t c = (size_t)nas_graph_node(g, v)->shape.c;
        if (nas_exec_is_matched(g, v) && c > w.widest) w.widest = c;
    }
    nas_status status = nas__exec_plan(ctx, g, &o, false, &w.e);
    if (status != NAS_OK) return status;
    w.sums = nas_alloc_array(ctx, n * 2 * w.widest, sizeof *w.sums);
    w.scale = nas_alloc_array(ctx, w.widest + NAS__EXEC_LANES, sizeof *w.scale);
    w.shift = nas_alloc_array(ctx, w.widest + NAS__EXEC_LANES, sizeof *w.shift);
    if (w.sums == NULL || w.scale == NULL || w.shift == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, load_chunk, &w);
    size_t at = 0;
    for (int32_t i = 0; i < w.e->n_steps && status == NAS_OK; i++) {
        w.step = &w.e->steps[i];
        const bool matched = nas_exec_is_matched(g, w.step->node);
        status = walk_step(ctx, &w, options->threads, graph, matched ? got + at : NULL,
                           matched && want != NULL ? want + at : NULL);
        at += matched ? (size_t)nas_graph_node(g, w.step->node)->shape.c : 0;
    }
    nas_free(w.sums);
    nas_free(w.scale);
    nas_free(w.shift);
    nas_exec_free(w.e);
    return status;
}

nas_status nas_exec_statistics(nas_ctx *ctx, const nas_graph *graph,
                               const nas_exec_options *options, size_t n, nas_exec_read_fn read,
                               void *arg, nas_exec_channel *out) {
    nas_status status = check(ctx, n);
    if (status == NAS_OK) status = walk_all(ctx, graph, NULL, options, n, read, arg, out, NULL);
    return nas_wrap(ctx, status, "statistics of layers");
}

nas_status nas_exec_match(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options, size_t n,
                          nas_exec_read_fn read, void *arg, const nas_exec_channel *want) {
    nas_status status = check(ctx, n);
    nas_exec_channel *got = nas_alloc_array(ctx, nas_exec_channel_count(graph) + 1, sizeof *got);
    if (got == NULL) return NAS_ERR_NOMEM;
    if (status == NAS_OK) status = walk_all(ctx, graph, graph, options, n, read, arg, got, want);
    nas_free(got);
    return nas_wrap(ctx, status, "recalibration");
}
