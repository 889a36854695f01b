/* compress_levels.c - opens a study of levels: what the device gains, levels and their costs, second moments of the layers, the
 * space; candidates out of cells. */
#include "search/compress_joint.h"
#include "search/oneshot_codes.h"

#include <stdlib.h>
#include <string.h>

/* ---- what the device gains ---------------------------------------------------------------------------------------------- */

nas_status nas__levels_judge(nas_ctx *ctx, const nas_config *config, nas_db *own,
                             const char *own_fingerprint, char fingerprint[NAS_SHA256_HEX],
                             nas__sparse_judge *judge) {
    const char *file = config->compress.gains, *device = config->compress.gains_device;
    /* with activations of floats, weights of few bits run as floats on their grids */
    *judge =
        (nas__sparse_judge){.fingerprint = fingerprint, .bits = nas__has_acts(config) ? 8 : 32};
    fingerprint[0] = '\0';
    if (!nas__space_has_patterns(config->compress.space)) return NAS_OK;
    if (file[0] == '\0') {
        judge->db = own;
        if (own_fingerprint != NULL) judge->fingerprint = own_fingerprint;
        return NAS_OK;
    }
    nas_status status = nas_db_open_readonly(ctx, file, &judge->db);
    if (status == NAS_OK)
        status =
            nas_db_sparse_device(ctx, judge->db, device[0] == '\0' ? NULL : device, fingerprint);
    if (status == NAS_OK && own_fingerprint != NULL && strcmp(own_fingerprint, fingerprint) != 0)
        nas_log(ctx, NAS_LOG_WARN,
                "compress.gains: %s was measured on another device than the study's", file);
    if (status != NAS_OK && judge->db != NULL) {
        (void)nas_db_close(ctx, judge->db); /* the first failure is the one to report */
        judge->db = NULL;
    }
    return nas_wrap(ctx, status, "compress.gains");
}

static nas_status log_dropped(nas__comp *c) {
    nas__level_list *list = &c->levels->list;
    const char *at = list->dropped.data;
    if (list->asked == 0) return NAS_OK;
    for (; at != NULL && *at != '\0'; at += strcspn(at, "\n") + 1)
        nas_log(c->ctx, NAS_LOG_INFO, "not tried: %.*s", (int)strcspn(at, "\n"), at);
    if (list->unmeasured > 0)
        nas_log(c->ctx, NAS_LOG_INFO,
                "%zu of %zu (layer, pattern, rate) were not measured on the device and are tried "
                "(nas-compile --break-even --db measures them)",
                list->unmeasured, list->asked);
    nas_status status = NAS_OK;
    if (list->dropped.len > 0)
        status = nas_db_event(c->ctx, c->db, c->id, "dropped", list->dropped.data);
    return status;
}

static nas_status make_list(nas__comp *c) {
    char fingerprint[NAS_SHA256_HEX];
    nas__sparse_judge judge;
    nas_status status = nas__levels_judge(c->ctx, c->config, c->db,
                                          nas_device_fingerprint(c->device), fingerprint, &judge);
    if (status == NAS_OK)
        status = nas__level_list_make(c->ctx, c->config, c->model, &judge, &c->levels->list);
    if (judge.db != NULL && judge.db != c->db) {
        const nas_status closed = nas_db_close(c->ctx, judge.db);
        if (status == NAS_OK) status = closed;
    }
    return status == NAS_OK ? log_dropped(c) : status;
}

/* ---- statistics ----------------------------------------------------------------------------------------------------------- */

static nas_status calibrate(nas__comp *c) {
    const nas__level_list *list = &c->levels->list;
    nas_oneshot *view = &c->levels->view;
    view->options = nas_oneshot_options_default();
    view->options.calibration_images = c->config->compress.calibration_images;
    view->options.positions = c->config->compress.positions;
    view->options.threads = c->config->eval.threads;
    view->model = c->model;
    view->data = c->data;
    view->n_layers = list->n_layers;
    view->layers = nas_alloc_array(c->ctx, list->n_layers, sizeof *view->layers);
    if (view->layers == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < list->n_layers; i++)
        view->layers[i] = list->layers[i].conv;
    return nas_oneshot_calibrate(c->ctx, view, c->config->study.seed);
}

/* ---- the space ------------------------------------------------------------------------------------------------------------ */

static nas_level_cost cost_of(nas_metric metric) {
    if (metric == NAS_METRIC_WEIGHT_BYTES) return NAS_LEVEL_BYTES;
    if (metric == NAS_METRIC_MACS) return NAS_LEVEL_MACS;
    if (metric == NAS_METRIC_PARAMS) return NAS_LEVEL_PARAMS;
    return metric == NAS_METRIC_BOPS ? NAS_LEVEL_BOPS : NAS_LEVEL_COSTS;
}

static void find_limits(const nas__comp *c, double limit[NAS_LEVEL_COSTS]) {
    for (int32_t i = 0; i < c->config->n_constraints; i++) {
        const nas_constraint *k = &c->config->constraints[i];
        const nas_level_cost cost = cost_of(k->metric);
        if (!k->at_most || cost == NAS_LEVEL_COSTS) continue;
        const double bound =
            k->is_percent ? c->levels->list.original[cost] * k->bound / 100 : k->bound;
        if (limit[cost] <= 0 || bound < limit[cost]) limit[cost] = bound;
    }
}

static nas_status decode(nas_ctx *ctx, void *arg, const int32_t *kept, const int32_t *level,
                         nas_graph **out) {
    nas__comp *c = arg;
    (void)kept; /* widths stay */
    nas_graph *graph = NULL;
    nas_status status = nas_graph_clone(ctx, c->model, &graph);
    for (size_t i = 0; i < c->levels->list.n_layers && status == NAS_OK; i++)
        status = nas__cells_put(ctx, c, i, level[i], graph);
    if (status != NAS_OK) {
        nas_graph_free(graph);
        return status;
    }
    *out = graph;
    return NAS_OK;
}

static nas_status open_level_space(nas__comp *c) {
    const nas__level_list *list = &c->levels->list;
    nas_levels_layer *layers = nas_alloc_array(c->ctx, list->n_layers, sizeof *layers);
    nas_level *levels = nas_alloc_array(c->ctx, list->n_levels, sizeof *levels);
    nas_levels_value *values = nas_alloc_array(c->ctx, list->n_values, sizeof *values);
    nas_status status = layers == NULL || levels == NULL || values == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        nas_levels_options o = {.name = c->config->compress.space,
                                .layers = layers,
                                .n_layers = (int32_t)list->n_layers,
                                .values = values,
                                .n_values = (int32_t)list->n_values,
                                .uses = list->uses,
                                .n_uses = (int32_t)list->n_uses,
                                .decode = decode,
                                .arg = c};
        memcpy(o.fixed, list->fixed, sizeof o.fixed);
        memcpy(o.limit, c->levels->limit, sizeof o.limit);
        for (size_t i = 0; i < list->n_values; i++)
            values[i] = list->acts;
        for (size_t i = 0; i < list->n_levels; i++) {
            levels[i].text = list->levels[i].text;
            memcpy(levels[i].costs, list->levels[i].costs, sizeof levels[i].costs);
        }
        for (size_t i = 0; i < list->n_layers; i++)
            layers[i] = (nas_levels_layer){.n_forms = list->layers[i].n_forms,
                                           .n_bits = list->layers[i].n_bits,
                                           .reads = list->layers[i].reads,
                                           .levels = levels + list->layers[i].first};
        status = nas_space_levels_new(c->ctx, &o, &c->space);
    }
    nas_free(layers);
    nas_free(levels);
    nas_free(values);
    return status;
}

/* Statistics, and the space; before that what can be known to be impossible. */
static nas_status open_space(nas__comp *c) {
    const bool joint = nas__space_has_channels(c->config->compress.space);
    find_limits(c, c->levels->limit);
    nas_status status = joint ? NAS_OK : open_level_space(c);
    if (status == NAS_OK) status = calibrate(c);
    return status == NAS_OK && joint ? nas__joint_space(c) : status;
}

nas_status nas__levels_open(nas__comp *c) {
    c->levels = nas_alloc_array(c->ctx, 1, sizeof *c->levels);
    if (c->levels == NULL) return NAS_ERR_NOMEM;
    nas__levels *l = c->levels;
    nas_status status = make_list(c);
    if (status == NAS_OK) status = open_space(c);
    if (status == NAS_OK) status = nas_graph_clone(c->ctx, c->model, &l->work);
    if (status != NAS_OK) return status;
    l->cells = nas_alloc_array(c->ctx, l->list.n_levels, sizeof *l->cells);
    l->results = nas_alloc_array(c->ctx, l->list.n_layers, sizeof *l->results);
    return l->cells == NULL || l->results == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

void nas__levels_close(nas__comp *c) {
    nas__levels *l = c->levels;
    if (l == NULL) return;
    l->view.model = NULL; /* the study's */
    l->view.data = NULL;
    nas_oneshot_close(&l->view);
    nas__cells_free(l);
    nas__joint_free(l->joint);
    nas_graph_free(l->work);
    nas_free(l->results);
    nas__level_list_deinit(&l->list);
    nas_free(l);
    c->levels = NULL;
}

/* ---- activations ---------------------------------------------------------------------------------------------------------- */

/* bits[node] of a point: of the values that have a choice; the most there are for the rest. */
static nas_status list_bits(nas__comp *c, const nas_point *point, int32_t *bits) {
    const nas__level_list *list = &c->levels->list;
    int32_t *chosen = nas_alloc_array(c->ctx, list->n_values, sizeof *chosen);
    if (chosen == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++)
        bits[v] = list->acts.bits[list->acts.n_bits - 1];
    nas_space_levels_bits(c->space, point, chosen);
    for (size_t i = 0; i < list->n_values; i++)
        bits[list->values[i]] = chosen[i];
    nas_free(chosen);
    return NAS_OK;
}

nas_status nas__levels_code(nas__comp *c, size_t images, const nas_point *point,
                            nas_graph **graph) {
    nas_oneshot view = c->levels->view; /* borrows */
    nas_oneshot_codes codes = {0};
    nas_graph *coded = NULL;
    if (!nas__has_acts(c->config)) return NAS_OK;
    if (view.n_sample > images) view.n_sample = images;
    int32_t *bits = nas_alloc_array(c->ctx, (size_t)nas_graph_node_count(c->model), sizeof *bits);
    nas_status status = bits == NULL ? NAS_ERR_NOMEM : list_bits(c, point, bits);
    if (status == NAS_OK) status = nas_oneshot_codes_find_each(c->ctx, &view, *graph, bits, &codes);
    if (status == NAS_OK) status = nas_oneshot_codes_apply(c->ctx, *graph, &codes, &coded);
    nas_oneshot_codes_deinit(&codes);
    nas_free(bits);
    if (status != NAS_OK) return status;
    nas_graph_free(*graph);
    *graph = coded;
    return NAS_OK;
}

/* ---- points --------------------------------------------------------------------------------------------------------------- */

const nas__level *nas__levels_at(const nas__comp *c, size_t layer, int32_t level) {
    const nas__level_list *list = &c->levels->list;
    return &list->levels[list->layers[layer].first + (size_t)level];
}

void nas__levels_values(const nas__comp *c, nas__comp_trial *t) {
    int64_t cost[NAS_LEVEL_COSTS];
    for (int k = 0; k < NAS_LEVEL_COSTS; k++)
        cost[k] = (int64_t)nas_space_levels_cost(c->space, &t->point, (nas_level_cost)k);
    t->row.values.macs = nas_some_i64(cost[NAS_LEVEL_MACS]);
    t->row.values.params = nas_some_i64(cost[NAS_LEVEL_PARAMS]);
    t->top1.weight_bytes = nas_some_i64(cost[NAS_LEVEL_BYTES]);
    t->top1.bops = nas_some_i64(cost[NAS_LEVEL_BOPS]);
}

nas_status nas__levels_schemes(const nas__comp *c, const nas_point *point,
                               nas_layer_scheme *schemes) {
    const size_t n = c->levels->list.n_layers;
    int32_t *level = nas_alloc_array(c->ctx, n, sizeof *level);
    if (level == NULL) return NAS_ERR_NOMEM;
    nas_space_levels_of(c->space, point, level);
    for (size_t i = 0; i < n; i++)
        schemes[i] = nas__levels_at(c, i, level[i])->scheme;
    nas_free(level);
    return NAS_OK;
}
