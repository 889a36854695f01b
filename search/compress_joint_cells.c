/* compress_joint_cells.c - candidates with fewer channels whose layers are compressed, too. */
#include "search/compress_joint.h"

#include <string.h>

/* Multiply-adds of the exact solver that a candidate's layer may take: about a tenth of a second. */
static const double exact_macs_max = 2e8;

/* ---- moments of the inputs that stay --------------------------------------------------------------------------------- */

typedef struct inputs {
    int32_t *rows; /* of the original's moments; the last is that of the bias */
    int32_t n;
} inputs;

static nas_status list_inputs(nas_ctx *ctx, const nas__comp *c, nas_value conv, const bool *keep,
                              inputs *out) {
    const nas_node *node = nas_graph_node(c->model, conv);
    const int32_t *classes = nas_channels_of(c->channels, node->inputs[0]);
    const int32_t channels = nas_graph_node(c->model, node->inputs[0])->shape.c;
    const int32_t taps = node->conv.kernel_h * node->conv.kernel_w;
    out->n = 0;
    out->rows = nas_alloc_array(ctx, (size_t)(taps * channels + 1), sizeof *out->rows);
    if (out->rows == NULL) return NAS_ERR_NOMEM;
    for (int32_t t = 0; t < taps; t++) {
        for (int32_t i = 0; i < channels; i++) {
            if (classes[i] == NAS_CLASS_FIXED || keep[classes[i]])
                out->rows[out->n++] = t * channels + i;
        }
    }
    out->rows[out->n++] = taps * channels;
    return NAS_OK;
}

static nas_status compress(nas_ctx *ctx, nas__comp *c, size_t layer, int32_t level,
                           const inputs *in, nas_graph *graph) {
    const nas_moments *all = &c->moments[layer];
    const size_t n = (size_t)in->n;
    nas_layer_options o = nas_layer_options_default();
    double *gram = nas_alloc_array(ctx, n * n, sizeof *gram);
    if (gram == NULL) return NAS_ERR_NOMEM;
    for (size_t r = 0; r < n; r++) {
        const double *row = all->gram + (size_t)in->rows[r] * (size_t)all->size;
        for (size_t k = 0; k < n; k++)
            gram[r * n + k] = row[in->rows[k]];
    }
    const nas_moments m = {.conv = all->conv, .size = in->n, .gram = gram};
    o.exact_macs = exact_macs_max;
    o.threads = c->config->eval.threads;
    const nas_status status = nas_layer_compress(
        ctx, graph, all->conv, &nas__levels_at(c, layer, level)->scheme, &m, &o, NULL);
    nas_free(gram);
    return status;
}

/* ---- cells -------------------------------------------------------------------------------------------------------------- */

static void key_of(const nas_graph *graph, nas_value conv, size_t layer, int32_t level,
                   const inputs *in, uint8_t key[NAS_SHA256_BYTES]) {
    const nas__layer_parts p = nas__cell_parts(graph, conv, false);
    const nas_node *node = nas_graph_node(graph, conv);
    const uint64_t place[] = {layer, (uint64_t)level};
    nas_sha256 h;
    nas_sha256_init(&h);
    nas_sha256_update(&h, place, sizeof place);
    nas_sha256_update(&h, in->rows, (size_t)in->n * sizeof *in->rows);
    nas_sha256_update(&h, p.weight->data, p.weights * sizeof *p.weight->data);
    if (p.biases > 0)
        nas_sha256_update(&h, nas_graph_param_const(graph, node->params[1])->data,
                          p.biases * sizeof *p.weight->data);
    nas_sha256_final(&h, key);
}

static void drop(nas__joint *joint, size_t cell) {
    joint->bytes -= joint->cells[cell].bytes;
    nas_free(joint->cells[cell].data);
    joint->cells[cell] = joint->cells[--joint->n_cells];
}

/* Those that were used longest ago go, until `bytes` more are within the bound. */
static void make_room(const nas__comp *c, nas__joint *joint, size_t bytes) {
    const size_t most = (size_t)c->config->compress.cache_mb * 1000000;
    while (joint->n_cells > 0 && joint->bytes + bytes > most) {
        size_t oldest = 0;
        for (size_t i = 1; i < joint->n_cells; i++) {
            if (joint->cells[i].used < joint->cells[oldest].used) oldest = i;
        }
        drop(joint, oldest);
    }
}

static nas_status keep_cell(nas_ctx *ctx, const nas__comp *c, const nas_graph *graph,
                            nas_value conv, bool scaled, const uint8_t key[NAS_SHA256_BYTES]) {
    nas__joint *joint = c->levels->joint;
    const nas__layer_parts p = nas__cell_parts(graph, conv, scaled);
    nas__joint_cell cell = {.bytes = nas__cell_floats(&p) * sizeof *cell.data,
                            .used = ++joint->clock};
    make_room(c, joint, cell.bytes);
    cell.data = nas_alloc_array(ctx, nas__cell_floats(&p), sizeof *cell.data);
    nas_status status = cell.data == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK)
        status = nas_grow(ctx, &joint->cells, &joint->cap_cells, joint->n_cells + 1,
                          sizeof *joint->cells);
    if (status != NAS_OK) {
        nas_free(cell.data);
        return status;
    }
    memcpy(cell.key, key, sizeof cell.key);
    nas__cell_take(&p, graph, conv, cell.data);
    joint->bytes += cell.bytes;
    joint->cells[joint->n_cells++] = cell;
    return NAS_OK;
}

static nas__joint_cell *find(nas__joint *joint, const uint8_t key[NAS_SHA256_BYTES]) {
    for (size_t i = 0; i < joint->n_cells; i++) {
        if (memcmp(joint->cells[i].key, key, NAS_SHA256_BYTES) == 0) return &joint->cells[i];
    }
    return NULL;
}

static nas_status take_cell(nas_ctx *ctx, nas__joint *joint, nas__joint_cell *cell,
                            nas_graph *graph, nas_value conv, int32_t bits) {
    const nas__layer_parts p = nas__cell_parts(graph, conv, bits > 0);
    cell->used = ++joint->clock;
    nas__cell_put(&p, cell->data, graph, conv);
    if (bits == 0) return NAS_OK;
    return nas_graph_set_weight_scales(ctx, graph, nas_graph_node(graph, conv)->params[0], bits,
                                       cell->data + p.weights + p.biases);
}

/* A layer of a sliced and repaired network at a level. */
static nas_status put_layer(nas_ctx *ctx, nas__comp *c, size_t layer, int32_t level,
                            const bool *keep, nas_graph *graph) {
    nas__joint *joint = c->levels->joint;
    const nas_value conv = c->levels->list.layers[layer].conv;
    const nas_layer_scheme *s = &nas__levels_at(c, layer, level)->scheme;
    uint8_t key[NAS_SHA256_BYTES];
    inputs in = {0};
    if (!s->is_sparse && s->bits == 0) return NAS_OK;
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK) status = list_inputs(ctx, c, conv, keep, &in);
    if (status != NAS_OK) return status;
    key_of(graph, conv, layer, level, &in, key);
    nas__joint_cell *cell = find(joint, key);
    joint->asked++;
    if (cell != NULL) {
        status = take_cell(ctx, joint, cell, graph, conv, s->bits);
    } else {
        joint->compressed++;
        status = compress(ctx, c, layer, level, &in, graph);
        if (status == NAS_OK) status = keep_cell(ctx, c, graph, conv, s->bits > 0, key);
    }
    nas_free(in.rows);
    return status;
}

/* ---- candidates --------------------------------------------------------------------------------------------------------- */

/* only: NULL, or the one layer that is compressed. */
static nas_status build(nas_ctx *ctx, nas__comp *c, const int32_t *kept, const int32_t *level,
                        const size_t *only, nas_graph **out) {
    bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(c->channels), sizeof *keep);
    if (keep == NULL) return NAS_ERR_NOMEM;
    nas_graph *graph = NULL;
    nas_status status = nas__comp_slice(ctx, c, kept, keep, &graph);
    for (size_t i = 0; i < c->levels->list.n_layers && status == NAS_OK; i++) {
        if (only == NULL || *only == i) status = put_layer(ctx, c, i, level[i], keep, graph);
    }
    if (status == NAS_OK && c->outputs != NULL) status = nas__comp_recalibrate(ctx, c, keep, graph);
    nas_free(keep);
    if (status != NAS_OK) {
        nas_graph_free(graph);
        return status;
    }
    *out = graph;
    return NAS_OK;
}

nas_status nas__joint_decode(nas_ctx *ctx, void *arg, const int32_t *kept, const int32_t *level,
                             nas_graph **out) {
    return build(ctx, arg, kept, level, NULL, out);
}

nas_status nas__joint_score_layer(nas__comp *c, const int32_t *kept, size_t layer, int32_t level,
                                  double *top1) {
    int32_t *all = nas_alloc_array(c->ctx, c->levels->list.n_layers, sizeof *all);
    nas_graph *graph = NULL;
    if (all == NULL) return NAS_ERR_NOMEM;
    all[layer] = level;
    nas_status status = build(c->ctx, c, kept, all, &layer, &graph);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, top1);
    nas_graph_free(graph);
    nas_free(all);
    return status;
}

void nas__joint_free(nas__joint *joint) {
    if (joint == NULL) return;
    while (joint->n_cells > 0)
        drop(joint, joint->n_cells - 1);
    nas_free(joint->cells);
    nas_free(joint);
}
