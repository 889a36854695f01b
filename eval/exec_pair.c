/* exec_pair.c - the same places of the same images in two networks: what a convolution reads in one, what it answers in the
 * other. Images come in batches whose samples fit a limit; a batch is summed in a fixed order, strip by strip of columns. */
#include "eval/exec_internal.h"

#include <string.h>

enum { BLOCK_ROWS = 256, STRIP = 4 * NAS__EXEC_LANES };
static const size_t samples_max = (size_t)1 << 26; /* floats of samples held at a time */

typedef struct pair_run {
    nas_exec *small, *dense;
    const nas__exec_step *step, *dense_step; /* the convolution in both */
    nas_value other;                         /* second operand of its sum, or NAS_VALUE_NONE */
    size_t n, first, images;                 /* all; of this batch */
    int32_t positions;
    uint64_t seed;
    nas_exec_read_fn read;
    void *arg;
    float *scratch;
    size_t image_floats;
    int32_t size, pitch, outputs, target_pitch, strips;
    float *weight;         /* [size][target_pitch] of the dense network, the bias last */
    float *rows, *targets; /* [batch * positions][pitch], [target_pitch] */
    nas_exec_pair *out;
} pair_run;

static void copy_patch(const nas__exec_step *step, const float *in, int32_t at, float *to) {
    const float *from = in + step->in_at[at];
    for (int32_t t = 0; t < step->n_taps; t++, to += step->group_in)
        memcpy(to, from + step->taps[t], (size_t)step->group_in * sizeof *to);
    *to = 1;
}

/* to += sign * the pixel of a value. */
static void add_pixel(const nas_exec *e, float *space, nas_value value, int32_t slot, int32_t pixel,
                      float sign, float *to) {
    const nas__exec_value *v = nas__exec_root(e, value);
    const float *x = nas__exec_at(e, space, value) + slot * v->image + pixel / v->w * v->row +
                     (ptrdiff_t)(pixel % v->w) * v->cs;
    for (int32_t c = 0; c < v->c; c++)
        to[c] += sign * x[c];
}

static void sample_image(const pair_run *r, float *space, float *dense_space, int32_t slot,
                         size_t image, float *patch) {
    const nas_graph *g = r->small->graph;
    const nas_value read = nas_graph_node(g, r->step->node)->inputs[0];
    const float *in = nas__exec_at(r->small, space, read),
                *dense_in = nas__exec_at(r->dense, dense_space, read);
    nas_rng rng = nas_rng_stream(r->seed, image, "gram");
    for (int32_t k = 0; k < (int32_t)r->step->node % 64; k++) /* the places of nas_exec_grams */
        (void)nas_rng_u64(&rng);
    for (int32_t k = 0; k < r->positions; k++) {
        const int32_t p = (int32_t)nas_rng_below(&rng, (uint32_t)r->step->pixels);
        const int32_t at = slot * r->step->pixels + p;
        const size_t row = (image - r->first) * (size_t)r->positions + (size_t)k;
        float *to = r->targets + row * (size_t)r->target_pitch;
        copy_patch(r->step, in, at, r->rows + row * (size_t)r->pitch);
        copy_patch(r->dense_step, dense_in, at, patch);
        memset(to, 0, (size_t)r->target_pitch * sizeof *to);
        for (int32_t i = 0; i < r->size; i++)
            r->dense->kernels->add_scaled(r->weight + (size_t)i * (size_t)r->target_pitch, patch[i],
                                          to, (size_t)r->target_pitch);
        if (r->other == NAS_VALUE_NONE) continue;
        add_pixel(r->dense, dense_space, r->other, slot, p, 1, to);
        add_pixel(r->small, space, r->other, slot, p, -1, to);
    }
}

static nas_status sample_chunk(nas_ctx *ctx, void *arg, size_t index, int worker) {
    const pair_run *r = arg;
    const size_t chunk = (size_t)r->small->options.chunk, end = r->first + r->images;
    const size_t first = r->first + index * chunk, left = end - first;
    const int32_t n = (int32_t)(left < chunk ? left : chunk);
    nas_status status = nas_check_cancel(ctx);
    float *patch = nas_alloc_array(ctx, (size_t)r->pitch, sizeof *patch);
    if (patch == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) {
        float *space = r->small->spaces[worker], *dense_space = r->dense->spaces[worker];
        float *scratch = r->scratch + (size_t)worker * r->image_floats;
        nas__exec_load(r->small, space, first, n, r->read, r->arg, scratch);
        nas__exec_forward(r->small, space, n, r->step->node);
        nas__exec_load(r->dense, dense_space, first, n, r->read, r->arg, scratch);
        nas__exec_forward(r->dense, dense_space, n, r->step->node);
        for (int32_t i = 0; i < n; i++)
            sample_image(r, space, dense_space, i, first + (size_t)i, patch);
    }
    nas_free(patch);
    return status;
}

/* Adds rows^T b of one strip of b's columns to out [n_a][columns]; blocks of rows in float, their sums in double. */
static nas_status sum_strip(nas_ctx *ctx, const pair_run *r, const float *b, int32_t b_pitch,
                            int32_t column, int32_t n_a, int32_t columns, double *out) {
    const size_t rows = r->images * (size_t)r->positions;
    const int32_t width = b_pitch - column < STRIP ? b_pitch - column : STRIP;
    const size_t floats = (size_t)n_a * STRIP;
    float *block = nas_alloc_aligned(ctx, floats, sizeof *block, 64);
    if (block == NULL) return NAS_ERR_NOMEM;
    int32_t a_at[BLOCK_ROWS], b_at[BLOCK_ROWS];
    for (int32_t k = 0; k < BLOCK_ROWS; k++) {
        a_at[k] = k * r->pitch;
        b_at[k] = k * b_pitch;
    }
    for (size_t first = 0; first < rows; first += BLOCK_ROWS) {
        memset(block, 0, floats * sizeof *block);
        const nas__exec_outer job = {
            .a = r->rows + first * (size_t)r->pitch,
            .b = b + first * (size_t)b_pitch + column,
            .a_at = a_at,
            .b_at = b_at,
            .rows = (int32_t)(rows - first < BLOCK_ROWS ? rows - first : BLOCK_ROWS),
            .n_a = n_a,
            .vectors = width / NAS__EXEC_LANES,
            .out = block,
            .out_row = STRIP};
        r->small->kernels->outer(&job);
        for (int32_t i = 0; i < n_a; i++) {
            for (int32_t k = 0; k < width && column + k < columns; k++)
                out[(size_t)i * (size_t)columns + (size_t)(column + k)] +=
                    (double)block[i * STRIP + k];
        }
    }
    nas_free(block);
    return NAS_OK;
}

static nas_status sum_batch(nas_ctx *ctx, void *arg, size_t index, int worker) {
    (void)worker;
    const pair_run *r = arg;
    if ((int32_t)index >= r->strips)
        return sum_strip(ctx, r, r->targets, r->target_pitch, ((int32_t)index - r->strips) * STRIP,
                         r->size, r->outputs, r->out->cross);
    const int32_t column = (int32_t)index * STRIP;
    const int32_t end = column + STRIP < r->size ? column + STRIP : r->size; /* upper triangle */
    return sum_strip(ctx, r, r->rows, r->pitch, column, end, r->size, r->out->gram);
}

static void sum_squares(const pair_run *r) {
    for (size_t k = 0; k < r->images * (size_t)r->positions; k++) {
        const float *t = r->targets + k * (size_t)r->target_pitch;
        for (int32_t o = 0; o < r->outputs; o++)
            r->out->square[o] += (double)t[o] * (double)t[o];
    }
}

static const nas__exec_step *step_of(const nas_exec *e, nas_value v) {
    for (int32_t i = 0; i < e->n_steps; i++) {
        if (e->steps[i].node == v) return &e->steps[i];
    }
    return NULL;
}

static void load_weight(const pair_run *r, const nas_node *node) {
    const nas_graph *g = r->dense->graph;
    const float *w = nas_graph_param_const(g, node->params[0])->data;
    const size_t n = (size_t)r->size - 1, pitch = (size_t)r->target_pitch;
    for (size_t o = 0; o < (size_t)r->outputs; o++) {
        for (size_t i = 0; i < n; i++)
            r->weight[i * pitch + o] = w[o * n + i];
        if (node->conv.has_bias)
            r->weight[n * pitch + o] = nas_graph_param_const(g, node->params[1])->data[o];
    }
}

/* How many images a batch has; whole chunks. */
static size_t batch_of(const pair_run *r) {
    const size_t chunk = (size_t)r->small->options.chunk;
    const size_t image = (size_t)r->positions * (size_t)(r->pitch + r->target_pitch);
    const size_t chunks = samples_max / (image * chunk);
    return (chunks > 0 ? chunks : 1) * chunk;
}

static nas_status prepare(nas_ctx *ctx, pair_run *r, nas_value conv, int32_t threads) {
    const nas_graph *g = r->dense->graph;
    const nas_node *node = nas_graph_node(g, conv);
    const nas_shape in = nas_graph_node(g, nas_graph_input(g))->shape;
    r->step = step_of(r->small, conv);
    r->dense_step = step_of(r->dense, conv);
    r->size = r->step->n_taps * r->step->group_in + 1;
    r->pitch = nas__exec_lanes_up(r->size);
    r->outputs = node->shape.c;
    r->target_pitch = nas__exec_lanes_up(r->outputs);
    r->strips = (r->pitch + STRIP - 1) / STRIP;
    r->image_floats = (size_t)in.h * (size_t)in.w * (size_t)in.c;
    const size_t size = (size_t)r->size, outputs = (size_t)r->outputs;
    const size_t batch = batch_of(r), held = (batch < r->n ? batch : r->n) * (size_t)r->positions;
    nas_exec_pair *out = r->out;
    *out = (nas_exec_pair){
        .conv = conv, .size = r->size, .outputs = r->outputs, .rows = r->n * (size_t)r->positions};
    out->gram = nas_alloc_array(ctx, size * size, sizeof *out->gram);
    out->cross = nas_alloc_array(ctx, size * outputs, sizeof *out->cross);
    out->square = nas_alloc_array(ctx, outputs, sizeof *out->square);
    r->scratch = nas_alloc_array(ctx, r->image_floats * (size_t)threads, sizeof *r->scratch);
    r->weight = nas_alloc_aligned(ctx, size * (size_t)r->target_pitch, sizeof *r->weight, 64);
    r->rows = nas_alloc_aligned(ctx, held * (size_t)r->pitch, sizeof *r->rows, 64);
    r->targets = nas_alloc_aligned(ctx, held * (size_t)r->target_pitch, sizeof *r->targets, 64);
    if (out->gram == NULL || out->cross == NULL || out->square == NULL || r->scratch == NULL ||
        r->weight == NULL || r->rows == NULL || r->targets == NULL)
        return NAS_ERR_NOMEM;
    load_weight(r, node);
    return NAS_OK;
}

static nas_status sum_all(nas_ctx *ctx, pair_run *r, int32_t threads) {
    const size_t chunk = (size_t)r->small->options.chunk, batch = batch_of(r);
    const size_t strips = (size_t)r->strips + (size_t)(r->target_pitch + STRIP - 1) / STRIP;
    nas_status status = NAS_OK;
    for (r->first = 0; r->first < r->n && status == NAS_OK; r->first += batch) {
        r->images = r->n - r->first < batch ? r->n - r->first : batch;
        status = nas_parallel(ctx, threads, (r->images + chunk - 1) / chunk, sample_chunk, r);
        if (status == NAS_OK) status = nas_parallel(ctx, threads, strips, sum_batch, r);
        if (status == NAS_OK) sum_squares(r);
    }
    double *gram = r->out->gram;
    const size_t size = (size_t)r->size;
    for (size_t i = 0; i < size; i++) {
        for (size_t k = 0; k < i; k++)
            gram[i * size + k] = gram[k * size + i];
    }
    return status;
}

static nas_status check(nas_ctx *ctx, const nas_graph *graph, const nas_graph *dense,
                        nas_value conv, nas_value other, size_t n, int32_t positions) {
    const nas_node *node = nas_graph_node(dense, conv);
    if (n < 1 || positions < 1)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "moments from %zu images at %d positions: at least one", n, (int)positions);
    if (node->op != NAS_OP_CONV || node->conv.groups > 1)
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED, "moments: node '%s' is no plain convolution",
                        node->name);
    if (nas_graph_node_count(graph) != nas_graph_node_count(dense))
        return nas_fail(ctx, NAS_ERR_INVALID, "moments: networks of %d and of %d nodes",
                        (int)nas_graph_node_count(graph), (int)nas_graph_node_count(dense));
    const nas_shape a = node->shape,
                    b = other == NAS_VALUE_NONE ? a : nas_graph_node(dense, other)->shape;
    if (other >= conv || a.h != b.h || a.w != b.w || a.c != b.c)
        return nas_fail(ctx, NAS_ERR_SHAPE, "moments: '%s' is no earlier operand beside '%s'",
                        nas_graph_node(dense, other)->name, node->name);
    return NAS_OK;
}

nas_status nas_exec_pair_moments(nas_ctx *ctx, const nas_graph *graph, const nas_graph *dense,
                                 const nas_exec_options *options, nas_value conv, nas_value other,
                                 size_t n, int32_t positions, uint64_t seed, nas_exec_read_fn read,
                                 void *arg, nas_exec_pair *out) {
    pair_run r = {.other = other,
                  .n = n,
                  .positions = positions,
                  .seed = seed,
                  .read = read,
                  .arg = arg,
                  .out = out};
    *out = (nas_exec_pair){0};
    nas_status status = check(ctx, graph, dense, conv, other, n, positions);
    if (status == NAS_OK) status = nas__exec_plan(ctx, graph, options, true, &r.small);
    if (status == NAS_OK) status = nas__exec_plan(ctx, dense, options, true, &r.dense);
    if (status == NAS_OK) status = prepare(ctx, &r, conv, options->threads);
    if (status == NAS_OK) status = sum_all(ctx, &r, options->threads);
    if (status != NAS_OK) nas_exec_pair_deinit(out);
    nas_free(r.scratch);
    nas_free(r.weight);
    nas_free(r.rows);
    nas_free(r.targets);
    nas_exec_free(r.small);
    nas_exec_free(r.dense);
    return nas_wrap(ctx, status, "statistics of '%s' in two networks",
                    nas_graph_node(dense, conv)->name);
}

void nas_exec_pair_deinit(nas_exec_pair *pair) {
    nas_free(pair->gram);
    nas_free(pair->cross);
    nas_free(pair->square);
    *pair = (nas_exec_pair){0};
}
