/* exec_stats.c - what layers see: second moments of the inputs of convolutions, mean and variance for normalisations.
 * Samples of a chunk of images go to places of their own and are summed in a fixed order afterwards: the same bits for any
 * number of threads. */
#include "eval/exec_internal.h"

#include <string.h>

/* ---- second moments --------------------------------------------------------------------------------------------- */

enum { BLOCK_ROWS = 256, STRIP = 4 * NAS__EXEC_LANES };
static const size_t samples_max = (size_t)1 << 27; /* floats of samples held at a time: 512 MiB */

/* Samples of one convolution: rows of `pitch` floats, (patch, 1, zeros). */
typedef struct sampled {
    const nas__exec_step *step;
    int32_t size, pitch;
    float *rows;
    nas_exec_gram *out;
} sampled;

typedef struct gram_run {
    nas_exec *e;
    sampled *list;
    size_t n_list;
    size_t n;
    int32_t positions;
    uint64_t seed;
    nas_exec_read_fn read;
    void *arg;
    float *scratch;
    size_t image_floats;
    nas_value last;
} gram_run;

/* Rows of one image: `positions` output pixels, drawn with repetition. */
static void sample_image(const gram_run *r, const sampled *s, const float *in, int32_t slot,
                         size_t image) {
    const nas__exec_step *step = s->step;
    nas_rng rng = nas_rng_stream(r->seed, image, "gram");
    for (int32_t k = 0; k < (int32_t)step->node % 64; k++) /* another draw for another layer */
        (void)nas_rng_u64(&rng);
    for (int32_t k = 0; k < r->positions; k++) {
        const int32_t p = (int32_t)nas_rng_below(&rng, (uint32_t)step->pixels);
        const float *from = in + step->in_at[slot * step->pixels + p];
        float *to = s->rows + (image * (size_t)r->positions + (size_t)k) * (size_t)s->pitch;
        for (int32_t t = 0; t < step->n_taps; t++, to += step->group_in)
            memcpy(to, from + step->taps[t], (size_t)step->group_in * sizeof *to);
        *to = 1;
    }
}

static nas_status sample_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const gram_run *r = arg;
    const nas_exec *e = r->e;
    const size_t first = index * (size_t)e->options.chunk, left = r->n - first;
    const int32_t n = left < (size_t)e->options.chunk ? (int32_t)left : e->options.chunk;
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    float *space = e->spaces[worker];
    nas__exec_load(e, space, first, n, r->read, r->arg,
                   r->scratch + (size_t)worker * r->image_floats);
    nas__exec_forward(e, space, n, r->last);
    for (size_t k = 0; k < r->n_list; k++) {
        const sampled *s = &r->list[k];
        const float *in =
            nas__exec_at(e, space, nas_graph_node(e->graph, s->step->node)->inputs[0]);
        for (int32_t i = 0; i < n; i++)
            sample_image(r, s, in, i, first + (size_t)i);
    }
    return NAS_OK;
}

/* The upper triangle strip by strip, blocks of rows in float, their sums in double. */
static nas_status sum_layer(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const gram_run *r = arg;
    const sampled *s = &r->list[index];
    const size_t size = (size_t)s->size, pitch = (size_t)s->pitch, rows = s->out->rows;
    float *block = nas_alloc_aligned(ctx, pitch * pitch, sizeof *block, 64);
    if (block == NULL) return NAS_ERR_NOMEM;
    int32_t at[BLOCK_ROWS];
    for (int32_t k = 0; k < BLOCK_ROWS; k++)
        at[k] = k * s->pitch;
    for (size_t first = 0; first < rows; first += BLOCK_ROWS) {
        memset(block, 0, pitch * pitch * sizeof *block);
        for (int32_t column = 0; column < s->pitch; column += STRIP) {
            const int32_t end = column + STRIP < s->pitch ? column + STRIP : s->pitch;
            const float *x = s->rows + first * pitch;
            const nas__exec_outer job = {
                .a = x,
                .b = x + column,
                .a_at = at,
                .b_at = at,
                .rows = (int32_t)(rows - first < BLOCK_ROWS ? rows - first : BLOCK_ROWS),
                .n_a = end < s->size ? end : s->size,
                .vectors = (end - column) / NAS__EXEC_LANES,
                .out = block + column,
                .out_row = s->pitch};
            r->e->kernels->outer(&job);
        }
        for (size_t i = 0; i < size; i++) {
            for (size_t k = i; k < size; k++)
                s->out->gram[i * size + k] += (double)block[i * pitch + k];
        }
    }
    for (size_t i = 0; i < size; i++) {
        for (size_t k = 0; k < i; k++)
            s->out->gram[i * size + k] = s->out->gram[k * size + i];
    }
    nas_free(block);
    return NAS_OK;
}

static const nas__exec_step *step_of(const nas_exec *e, nas_value v) {
    for (int32_t i = 0; i < e->n_steps; i++) {
        if (e->steps[i].node == v) return &e->steps[i];
    }
    return NULL;
}

static nas_status prepare(nas_ctx *ctx, const gram_run *r, nas_value conv, sampled *s,
                          nas_exec_gram *out) {
    const nas_node *node = nas_graph_node(r->e->graph, conv);
    if (node->op != NAS_OP_CONV || node->conv.groups > 1)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "moments: node '%s' is no plain convolution",
                        node->name);
    const nas__exec_step *step = step_of(r->e, conv);
    s->step = step;
    s->size = step->n_taps * step->group_in + 1;
    s->pitch = nas__exec_lanes_up(s->size);
    s->out = out;
    const size_t size = (size_t)s->size;
    *out = (nas_exec_gram){.conv = conv, .size = s->size, .rows = r->n * (size_t)r->positions};
    out->gram = nas_alloc_array(ctx, size * size, sizeof *out->gram);
    s->rows = nas_alloc_aligned(ctx, out->rows * (size_t)s->pitch, sizeof *s->rows, 64);
    return out->gram == NULL || s->rows == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

/* As many convolutions from `first` on as the memory for samples allows; one at least. */
static nas_status some_grams(nas_ctx *ctx, gram_run *r, const nas_value *convs, size_t n_convs,
                             size_t *first, nas_exec_gram *out) {
    size_t floats = 0;
    nas_status status = NAS_OK;
    r->n_list = 0;
    r->last = 0;
    while (*first < n_convs && status == NAS_OK && (floats < samples_max || r->n_list == 0)) {
        sampled *s = &r->list[r->n_list++];
        *s = (sampled){0};
        status = prepare(ctx, r, convs[*first], s, &out[*first]);
        floats += status == NAS_OK ? out[*first].rows * (size_t)s->pitch : 0;
        if (convs[*first] > r->last) r->last = convs[*first];
        (*first)++;
    }
    const size_t chunk = (size_t)r->e->options.chunk;
    const int32_t threads = r->e->options.threads;
    if (status == NAS_OK)
        status = nas_parallel(ctx, threads, (r->n + chunk - 1) / chunk, sample_chunk, r);
    if (status == NAS_OK) status = nas_parallel(ctx, threads, r->n_list, sum_layer, r);
    for (size_t i = 0; i < r->n_list; i++)
        nas_free(r->list[i].rows);
    return status;
}

nas_status nas_exec_grams(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                          const nas_value *convs, size_t n_convs, size_t n, int32_t positions,
                          uint64_t seed, nas_exec_read_fn read, void *arg, nas_exec_gram *out) {
    if (n < 1 || positions < 1)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "moments from %zu images at %d positions: at least one", n, (int)positions);
    gram_run r = {.n = n, .positions = positions, .seed = seed, .read = read, .arg = arg};
    nas_status status = nas__exec_plan(ctx, graph, options, true, &r.e);
    if (status != NAS_OK) return status;
    const nas_shape in = nas_graph_node(graph, nas_graph_input(graph))->shape;
    r.image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    r.scratch = nas_alloc_array(ctx, r.image_floats * (size_t)options->threads, sizeof(float));
    r.list = nas_alloc_array(ctx, n_convs, sizeof *r.list);
    if (r.scratch == NULL || r.list == NULL) status = NAS_ERR_NOMEM;
    for (size_t i = 0; i < n_convs; i++)
        out[i] = (nas_exec_gram){0};
    for (size_t first = 0; first < n_convs && status == NAS_OK;)
        status = some_grams(ctx, &r, convs, n_convs, &first, out);
    for (size_t i = 0; status != NAS_OK && i < n_convs; i++)
        nas_exec_gram_deinit(&out[i]);
    nas_free(r.scratch);
    nas_free(r.list);
    nas_exec_free(r.e);
    return nas_wrap(ctx, status, "statistics of layers");
}

void nas_exec_gram_deinit(nas_exec_gram *gram) {
    nas_free(gram->gram);
    *gram = (nas_exec_gram){0};
}

/* ---- normalisations ----------------------------------------------------------------------------------------------- */

typedef struct norm_run {
    nas_exec *e;
    nas_value norm;
    size_t n, image_floats;
    nas_exec_read_fn read;
    void *arg;
    float *scratch;
    double *sums; /* [chunk][2][c]: sums and sums of squares */
} norm_run;

static nas_status norm_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const norm_run *r = arg;
    const nas_exec *e = r->e;
    const size_t first = index * (size_t)e->options.chunk, left = r->n - first;
    const int32_t n = left < (size_t)e->options.chunk ? (int32_t)left : e->options.chunk;
    const nas_status status = nas_check_cancel(ctx);
    if (status != NAS_OK) return status;
    float *space = e->spaces[worker];
    nas__exec_load(e, space, first, n, r->read, r->arg,
                   r->scratch + (size_t)worker * r->image_floats);
    nas__exec_forward(e, space, n, r->norm);
    const nas_value in = nas_graph_node(e->graph, r->norm)->inputs[0];
    const nas__exec_value *v = nas__exec_root(e, in);
    const float *at = nas__exec_at(e, space, in);
    double *sum = r->sums + index * 2 * (size_t)v->c, *squares = sum + v->c;
    for (int32_t k = 0; k < n * v->h * v->w; k++) {
        const int32_t image = k / (v->h * v->w), p = k % (v->h * v->w);
        const float *x = at + image * v->image + p / v->w * v->row + (ptrdiff_t)(p % v->w) * v->cs;
        for (int32_t c = 0; c < v->c; c++) {
            sum[c] += (double)x[c];
            squares[c] += (double)x[c] * (double)x[c];
        }
    }
    return NAS_OK;
}

static void set_norm(const norm_run *r, nas_graph *graph, size_t chunks) {
    const nas_node *node = nas_graph_node(graph, r->norm);
    const nas_shape in = nas_graph_node(graph, node->inputs[0])->shape;
    const double count = (double)r->n * in.h * in.w;
    for (int32_t c = 0; c < in.c; c++) {
        double sum = 0, squares = 0;
        for (size_t k = 0; k < chunks; k++) {
            sum += r->sums[k * 2 * (size_t)in.c + (size_t)c];
            squares += r->sums[(k * 2 + 1) * (size_t)in.c + (size_t)c];
        }
        const double mean = sum / count, variance = squares / count - mean * mean;
        nas_graph_param(graph, node->params[2])->data[c] = (float)mean;
        nas_graph_param(graph, node->params[3])->data[c] = (float)(variance > 0 ? variance : 0);
    }
}

nas_status nas_exec_recalibrate(nas_ctx *ctx, nas_graph *graph, const nas_exec_options *options,
                                size_t n, nas_exec_read_fn read, void *arg) {
    norm_run r = {.n = n, .read = read, .arg = arg};
    nas_status status = nas__exec_plan(ctx, graph, options, true, &r.e);
    if (status != NAS_OK) return status;
    const nas_shape in = nas_graph_node(graph, nas_graph_input(graph))->shape;
    r.image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    r.scratch = nas_alloc_array(ctx, r.image_floats * (size_t)options->threads, sizeof(float));
    if (r.scratch == NULL) status = NAS_ERR_NOMEM;
    const size_t chunk = (size_t)options->chunk, chunks = (n + chunk - 1) / chunk;
    for (nas_value v = 0; v < nas_graph_node_count(graph) && status == NAS_OK; v++) {
        if (nas_graph_node(graph, v)->op != NAS_OP_BATCH_NORM) continue;
        r.norm = v;
        r.sums = nas_alloc_array(ctx, chunks * 2 * (size_t)nas_graph_node(graph, v)->shape.c,
                                 sizeof *r.sums);
        if (r.sums == NULL) status = NAS_ERR_NOMEM;
        if (status == NAS_OK) status = nas_parallel(ctx, options->threads, chunks, norm_chunk, &r);
        if (status == NAS_OK) {
            set_norm(&r, graph, chunks);
            nas_exec_update(r.e);
        }
        nas_free(r.sums);
    }
    nas_free(r.scratch);
    nas_exec_free(r.e);
    return nas_wrap(ctx, status, "recalibrating normalisations");
}
