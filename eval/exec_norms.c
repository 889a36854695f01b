/* exec_norms.c - normalisations with the statistics of a chunk of images, as in training, and the gradient through them; averages
 * of such statistics for the time after. Rows are summed in their order by the one worker that has the chunk: results depend on
 * how images are cut into chunks, but not on the threads. */
#include "eval/exec_internal.h"

#include <math.h>
#include <string.h>

/* A normalisation while one chunk passes. */
typedef struct norm {
    const nas_exec *e;
    const nas__exec_step *s;
    const nas_node *node;
    const nas__exec_value *x, *y;
    int32_t n, channels; /* channels: whole vectors */
    float *mean, *variance, *scale, *shift;
} norm;

static norm norm_of(const nas_exec *e, const nas__exec_step *s, float *space, int32_t n) {
    const nas_node *node = nas_graph_node(e->graph, s->node);
    const nas__exec_value *y = nas__exec_root(e, s->out);
    const int32_t channels = nas__exec_lanes_up(y->c);
    float *mean = space + s->statistics;
    return (norm){.e = e,
                  .s = s,
                  .node = node,
                  .x = nas__exec_root(e, node->inputs[0]),
                  .y = y,
                  .n = n,
                  .channels = channels,
                  .mean = mean,
                  .variance = mean + channels,
                  .scale = mean + 2 * channels,
                  .shift = mean + 3 * channels};
}

static const float *param(const norm *k, int slot) {
    return nas_graph_param_const(k->e->graph, k->node->params[slot])->data;
}

static double pixels_of(const norm *k) {
    return (double)k->n * k->y->h * k->y->w;
}

static nas__exec_norm_row row_of(const norm *k) {
    return (nas__exec_norm_row){.x_step = k->x->cs,
                                .y_step = k->y->cs,
                                .pixels = k->y->w,
                                .channels = k->channels,
                                .scale = k->scale,
                                .shift = k->shift};
}

static ptrdiff_t row_at(const nas__exec_value *v, int32_t index) {
    return index / v->h * v->image + index % v->h * v->row;
}

/* Sums of distances from the first pixel: what is squared stays of the size of the deviation. Lanes past the channels are 0. */
static void take_statistics(const norm *k, const float *x) {
    const size_t bytes = (size_t)k->channels * sizeof(float);
    const double count = pixels_of(k);
    nas__exec_norm_row row = row_of(k);
    memcpy(k->shift, x, bytes);
    memset(k->mean, 0, bytes);
    memset(k->variance, 0, bytes);
    row.center = k->shift;
    row.sums = k->mean;
    row.products = k->variance;
    for (int32_t i = 0; i < k->n * k->x->h; i++) {
        row.x = x + row_at(k->x, i);
        k->e->kernels->norm_moments(&row);
    }
    for (int32_t c = 0; c < k->channels; c++) {
        const double apart = (double)k->mean[c] / count,
                     square = (double)k->variance[c] / count - apart * apart;
        k->mean[c] = (float)((double)k->shift[c] + apart);
        k->variance[c] = (float)(square > 0 ? square : 0);
    }
}

void nas__exec_norm_run(const nas_exec *e, const nas__exec_step *s, float *space, int32_t n) {
    const norm k = norm_of(e, s, space, n);
    const float *x = nas__exec_at(e, space, k.node->inputs[0]);
    float *y = nas__exec_at(e, space, s->out);
    take_statistics(&k, x);
    memset(k.scale, 0, 2 * (size_t)k.channels * sizeof *k.scale); /* and shift */
    for (int32_t c = 0; c < k.y->c; c++) {
        k.scale[c] = param(&k, 0)[c] / sqrtf(k.variance[c] + k.node->epsilon);
        k.shift[c] = param(&k, 1)[c] - k.mean[c] * k.scale[c];
    }
    nas__exec_norm_row row = row_of(&k);
    for (int32_t i = 0; i < n * k.y->h; i++) {
        row.x = x + row_at(k.x, i);
        row.y = y + row_at(k.y, i);
        e->kernels->norm_apply(&row, s->lo, s->hi);
    }
}

/* With x^ = (x - mean)/deviation: dx = scale/deviation * (dy - mean(dy) - x^*mean(dy*x^)). */
void nas__exec_norm_back(const nas_exec *e, const nas__exec_step *s, float *space, float *grads,
                         int32_t n, const size_t *param_at, float *gradient) {
    const norm k = norm_of(e, s, space, n), g = norm_of(e, s, grads, n);
    const nas_value in = k.node->inputs[0];
    const float *x = nas__exec_at(e, space, in), *y = nas__exec_at(e, space, s->out);
    float *dx = nas__exec_at(e, grads, in), *dy = nas__exec_at(e, grads, s->out);
    const bool gated = !isinf(s->lo) || !isinf(s->hi);
    const double count = pixels_of(&k);
    nas__exec_norm_row row = row_of(&k);
    memset(g.mean, 0, 2 * (size_t)g.channels * sizeof *g.mean); /* and variance: sums, here */
    row.center = k.mean;
    row.sums = g.mean;
    row.products = g.variance;
    for (int32_t i = 0; i < n * k.y->h; i++) {
        const ptrdiff_t at = row_at(k.y, i);
        if (gated)
            e->kernels->gate(y + at, dy + at, dy + at, (size_t)k.y->w * (size_t)k.y->cs, s->lo,
                             s->hi);
        row.x = x + row_at(k.x, i);
        row.dy = dy + at;
        e->kernels->norm_slopes(&row);
    }
    for (int32_t c = 0; c < k.y->c; c++) {
        const float inverse = 1 / sqrtf(k.variance[c] + k.node->epsilon);
        const float along = inverse * g.variance[c]; /* sum of dy*x^ */
        gradient[param_at[k.node->params[0]] + (size_t)c] += along;
        gradient[param_at[k.node->params[1]] + (size_t)c] += g.mean[c];
        g.scale[c] = -k.scale[c] * inverse * along / (float)count;
        g.shift[c] = -k.scale[c] * g.mean[c] / (float)count;
    }
    row.slope = g.scale;
    row.shift = g.shift;
    for (int32_t i = 0; i < n * k.y->h; i++) {
        row.x = x + row_at(k.x, i);
        row.dx = dx + row_at(k.x, i);
        row.dy = dy + row_at(k.y, i);
        e->kernels->norm_back(&row);
    }
}

/* ---- averages ----------------------------------------------------------------------------------------------------- */

typedef struct average_run {
    nas_exec *e;
    size_t n, image_floats, channels; /* channels: of all normalisations */
    nas_exec_read_fn read;
    void *arg;
    float *scratch;
    double *sums; /* [chunks][channels][2]: means and variances, times images */
} average_run;

static int32_t images_of(const average_run *r, size_t chunk) {
    const size_t size = (size_t)r->e->options.chunk, left = r->n - chunk * size;
    return (int32_t)(left < size ? left : size);
}

static nas_status average_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const average_run *r = arg;
    const nas_exec *e = r->e;
    const int32_t n = images_of(r, index);
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    float *space = e->spaces[worker];
    nas__exec_load(e, space, index * (size_t)e->options.chunk, n, r->read, r->arg,
                   r->scratch + (size_t)worker * r->image_floats);
    nas__exec_forward(e, space, n, NAS_GRAPH_NODES_MAX);
    double *to = r->sums + index * r->channels * 2;
    for (int32_t i = 0; i < e->n_steps; i++) {
        if (nas_graph_node(e->graph, e->steps[i].node)->op != NAS_OP_BATCH_NORM) continue;
        const norm k = norm_of(e, &e->steps[i], space, n);
        for (int32_t c = 0; c < k.y->c; c++) {
            *to++ = n * (double)k.mean[c];
            *to++ = n * (double)k.variance[c];
        }
    }
    return NAS_OK;
}

static void set_averages(const average_run *r, nas_graph *graph, size_t chunks) {
    size_t at = 0;
    for (int32_t i = 0; i < r->e->n_steps; i++) {
        const nas_node *node = nas_graph_node(graph, r->e->steps[i].node);
        if (node->op != NAS_OP_BATCH_NORM) continue;
        for (int32_t c = 0; c < node->shape.c; c++, at++) {
            double sums[2] = {0, 0};
            for (size_t k = 0; k < chunks; k++) {
                sums[0] += r->sums[(k * r->channels + at) * 2];
                sums[1] += r->sums[(k * r->channels + at) * 2 + 1];
            }
            nas_graph_param(graph, node->params[2])->data[c] = (float)(sums[0] / (double)r->n);
            nas_graph_param(graph, node->params[3])->data[c] = (float)(sums[1] / (double)r->n);
        }
    }
}

nas_status nas_exec_average_norms(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options,
                                  size_t n, nas_exec_read_fn read, void *arg) {
    average_run r = {.n = n, .read = read, .arg = arg};
    if (n < 1) return nas_fail(ctx, NAS_ERR_INVALID, "averages of normalisations: no images");
    nas_status status = nas__exec_plan(ctx, graph, options, false, &r.e);
    if (status != NAS_OK) return status;
    const nas_shape in = nas_graph_node(graph, nas_graph_input(graph))->shape;
    const size_t chunk = (size_t)options->chunk, chunks = (n + chunk - 1) / chunk;
    r.e->chunk_norms = true;
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        r.channels += node->op == NAS_OP_BATCH_NORM ? (size_t)node->shape.c : 0;
    }
    r.image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    r.scratch = nas_alloc_array(ctx, r.image_floats * (size_t)options->threads, sizeof(float));
    r.sums = nas_alloc_array(ctx, chunks * (r.channels * 2 + 1), sizeof *r.sums);
    if (r.scratch == NULL || r.sums == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, average_chunk, &r);
    if (status == NAS_OK) set_averages(&r, graph, chunks);
    nas_free(r.scratch);
    nas_free(r.sums);
    nas_exec_free(r.e);
    return nas_wrap(ctx, status, "averages of normalisations");
}
