/* compress_cells.c - layers at levels, each compressed once. Beyond compress.cache_mb those that were used longest ago go to
 * files in the study's folder; what an earlier start left there is not read, as it may have ended in the middle. */
#include "search/compress_levels.h"

#include <stdio.h>
#include <string.h>

nas__layer_parts nas__cell_parts(const nas_graph *g, nas_value v, bool scaled) {
    const nas_node *node = nas_graph_node(g, v);
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const size_t rows = (size_t)weight->dims[0];
    return (nas__layer_parts){.weight = weight,
                              .weights = weight->count,
                              .biases = node->conv.has_bias ? rows : 0,
                              .scales = scaled ? rows : 0};
}

size_t nas__cell_floats(const nas__layer_parts *p) {
    return p->weights + p->biases + p->scales;
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

static nas_status path_of(nas__comp *c, size_t cell, char path[NAS__COMP_PATH_MAX]) {
    char name[48];
    (void)snprintf(name, sizeof name, "levels/%zu.bin", cell);
    return nas__comp_path(c, name, path);
}

static nas_status put_away(nas__comp *c, size_t index, size_t bytes) {
    nas__cell *cell = &c->levels->cells[index];
    char path[NAS__COMP_PATH_MAX];
    nas_status status = NAS_OK;
    if (!cell->is_filed) {
        status = nas__comp_path(c, "levels", path);
        if (status == NAS_OK) status = nas_mkdirs(c->ctx, path);
        if (status == NAS_OK) status = path_of(c, index, path);
        if (status == NAS_OK) status = nas_file_write(c->ctx, path, cell->data, bytes, 0644);
    }
    if (status != NAS_OK) return status;
    cell->is_filed = true;
    nas_free(cell->data);
    cell->data = NULL;
    c->levels->bytes -= bytes;
    return NAS_OK;
}

static nas_status take_back(nas__comp *c, size_t index, size_t bytes) {
    nas__cell *cell = &c->levels->cells[index];
    char path[NAS__COMP_PATH_MAX];
    nas_buf text = {0};
    nas_status status = path_of(c, index, path);
    if (status == NAS_OK) status = nas_file_read(c->ctx, path, bytes, &text);
    if (status == NAS_OK && text.len != bytes)
        status = nas_fail(c->ctx, NAS_ERR_IO, "%s: %zu bytes, not %zu: start again", path, text.len,
                          bytes);
    if (status == NAS_OK) {
        cell->data = nas_alloc_array(c->ctx, bytes, 1);
        status = cell->data == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status == NAS_OK) {
        memcpy(cell->data, text.data, bytes);
        c->levels->bytes += bytes;
    }
    nas_buf_deinit(&text);
    return status;
}

/* ---- memory --------------------------------------------------------------------------------------------------------------- */

static size_t layer_of(const nas__level_list *list, size_t cell) {
    size_t i = 0;
    while (i + 1 < list->n_layers && list->layers[i + 1].first <= cell)
        i++;
    return i;
}

/* All but the cell `stays`, until the rest is within the bound. */
static nas_status make_room(nas__comp *c, size_t stays) {
    nas__levels *l = c->levels;
    const size_t most = (size_t)c->config->compress.cache_mb * 1000000;
    while (l->bytes > most) {
        size_t oldest = stays;
        for (size_t i = 0; i < l->list.n_levels; i++) {
            if (i == stays || l->cells[i].data == NULL) continue;
            if (oldest == stays || l->cells[i].used < l->cells[oldest].used) oldest = i;
        }
        if (oldest == stays) return NAS_OK; /* one layer alone is larger than the bound */
        const nas__level_layer *layer = &l->list.layers[layer_of(&l->list, oldest)];
        const nas__layer_parts p =
            nas__cell_parts(c->model, layer->conv, l->cells[oldest].is_scaled);
        const nas_status status = put_away(c, oldest, nas__cell_floats(&p) * sizeof(float));
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

/* ---- compressing ------------------------------------------------------------------------------------------------------------ */

void nas__cell_put(const nas__layer_parts *p, const float *data, nas_graph *g, nas_value v) {
    const nas_node *node = nas_graph_node(g, v);
    memcpy(nas_graph_param(g, node->params[0])->data, data, p->weights * sizeof *data);
    if (p->biases > 0)
        memcpy(nas_graph_param(g, node->params[1])->data, data + p->weights,
               p->biases * sizeof *data);
}

void nas__cell_take(const nas__layer_parts *p, const nas_graph *g, nas_value v, float *data) {
    const nas_node *node = nas_graph_node(g, v);
    memcpy(data, nas_graph_param_const(g, node->params[0])->data, p->weights * sizeof *data);
    if (p->biases > 0)
        memcpy(data + p->weights, nas_graph_param_const(g, node->params[1])->data,
               p->biases * sizeof *data);
    if (p->scales > 0)
        memcpy(data + p->weights + p->biases, p->weight->scales, p->scales * sizeof *data);
}

/* Steps of grids stay declared, and do no harm. */
void nas__cells_restore(const nas__comp *c, size_t layer, nas_graph *graph) {
    const nas_value v = c->levels->list.layers[layer].conv;
    const nas_node *node = nas_graph_node(c->model, v), *to = nas_graph_node(graph, v);
    for (int k = 0; k < 1 + node->conv.has_bias; k++) {
        const nas_param *p = nas_graph_param_const(c->model, node->params[k]);
        memcpy(nas_graph_param(graph, to->params[k])->data, p->data, p->count * sizeof *p->data);
    }
}

static nas_status compress(nas_ctx *ctx, nas__comp *c, size_t layer, size_t index) {
    nas__levels *l = c->levels;
    nas__cell *cell = &l->cells[index];
    const nas_value v = l->list.layers[layer].conv;
    nas_layer_options options = nas_layer_options_default();
    options.threads = c->config->eval.threads;
    nas_status status = nas_layer_compress(ctx, l->work, v, &l->list.levels[index].scheme,
                                           &l->view.moments[layer], &options, &cell->result);
    if (status != NAS_OK) return status;
    cell->is_scaled = l->list.levels[index].scheme.bits > 0;
    const nas__layer_parts p = nas__cell_parts(l->work, v, cell->is_scaled);
    cell->data = nas_alloc_array(ctx, nas__cell_floats(&p), sizeof *cell->data);
    if (cell->data == NULL) return NAS_ERR_NOMEM;
    nas__cell_take(&p, l->work, v, cell->data);
    nas__cells_restore(c, layer, l->work);
    cell->is_known = true;
    l->bytes += nas__cell_floats(&p) * sizeof *cell->data;
    return NAS_OK;
}

nas_status nas__cells_put(nas_ctx *ctx, nas__comp *c, size_t layer, int32_t level,
                          nas_graph *graph) {
    nas__levels *l = c->levels;
    const size_t index = l->list.layers[layer].first + (size_t)level;
    const nas_value v = l->list.layers[layer].conv;
    nas__cell *cell = &l->cells[index];
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK && !cell->is_known) status = compress(ctx, c, layer, index);
    if (status != NAS_OK) return status;
    const nas__layer_parts p = nas__cell_parts(c->model, v, cell->is_scaled);
    if (cell->data == NULL) status = take_back(c, index, nas__cell_floats(&p) * sizeof *cell->data);
    cell->used = ++l->clock;
    if (status == NAS_OK) status = make_room(c, index);
    if (status != NAS_OK) return status;
    nas__cell_put(&p, cell->data, graph, v);
    if (!cell->is_scaled) return NAS_OK;
    return nas_graph_set_weight_scales(ctx, graph, nas_graph_node(graph, v)->params[0],
                                       l->list.levels[index].scheme.bits,
                                       cell->data + p.weights + p.biases);
}

void nas__cells_free(nas__levels *l) {
    for (size_t i = 0; l->cells != NULL && i < l->list.n_levels; i++)
        nas_free(l->cells[i].data);
    nas_free(l->cells);
    l->cells = NULL;
}
