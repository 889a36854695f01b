/* compress_layers.c - what each part costs (a group of channels, or a layer): the original with that part alone as in the chosen
 * network, scored on REWARD images; and what it gains: the time of its layers. One figure a part, so they are kept in the
 * study's database. */
#include "search/compress_levels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

size_t nas__comp_parts(const nas__comp *c) {
    return c->levels != NULL ? c->levels->list.n_layers
                             : (size_t)nas_channels_group_count(c->channels);
}

/* One number a part, apart by blanks. */
static bool read_values(const char *text, size_t n, double *values) {
    for (size_t g = 0; g < n; g++) {
        char *end = NULL;
        values[g] = strtod(text, &end);
        if (end == text) return false;
        text = end;
    }
    return true;
}

static nas_status score_alone(nas__comp *c, int32_t group, int32_t kept, double *top1) {
    const int32_t n = nas_channels_group_count(c->channels);
    int32_t *all = nas_alloc_array(c->ctx, (size_t)n, sizeof *all);
    nas_graph *graph = NULL;
    if (all == NULL) return NAS_ERR_NOMEM;
    for (int32_t g = 0; g < n; g++)
        all[g] = g == group ? kept : nas_channels_group(c->channels, g)->channels;
    nas_status status = nas__comp_decode(c->ctx, c, all, &graph);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, top1);
    nas_graph_free(graph);
    nas_free(all);
    return status;
}

static nas_status score_layer(nas__comp *c, size_t layer, int32_t level, double *top1) {
    nas_graph *graph = NULL;
    const nas_layer_scheme *s = &nas__levels_at(c, layer, level)->scheme;
    if (!s->is_sparse && s->bits == 0) return NAS_OK;
    nas_status status = nas_graph_clone(c->ctx, c->model, &graph);
    if (status == NAS_OK) status = nas__cells_put(c->ctx, c, layer, level, graph);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, top1);
    nas_graph_free(graph);
    return status;
}

static nas_status score_group(nas__comp *c, int32_t g, const nas_point *point, double *top1) {
    const int32_t kept = nas_space_amc_kept(c->space, point, g);
    if (kept == nas_channels_group(c->channels, g)->channels) return NAS_OK;
    return score_alone(c, g, kept, top1);
}

static nas_status score_all(nas__comp *c, const nas_point *point, double *top1) {
    const size_t n = nas__comp_parts(c);
    int32_t *level = nas_alloc_array(c->ctx, n, sizeof *level);
    nas_status status = level == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (level != NULL && c->levels != NULL) nas_space_levels_of(c->space, point, level);
    nas__progress_phase(&c->progress, c->levels != NULL ? "each layer alone" : "each group alone",
                        0, (double)n);
    for (size_t g = 0; g < n && status == NAS_OK; g++) {
        top1[g] = c->trials[0].top1.reward_top1.value; /* nothing taken: the original */
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK)
            status = c->levels != NULL ? score_layer(c, g, level[g], &top1[g])
                                       : score_group(c, (int32_t)g, point, &top1[g]);
        nas__progress_update(&c->progress, (double)g + 1, "%s", "");
    }
    nas_free(level);
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return status;
}

/* Figures of an earlier report, when there are any. */
static nas_status recall(nas__comp *c, const char *name, double *values, bool *found) {
    char *known = NULL;
    nas_status status = nas_db_meta_get(c->ctx, c->db, c->id, name, &known);
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(c->ctx);
        status = NAS_OK;
    }
    *found = status == NAS_OK && known != NULL && read_values(known, nas__comp_parts(c), values);
    nas_free(known);
    return status;
}

static nas_status remember(nas__comp *c, const char *name, const double *values) {
    nas_buf text = {0};
    for (size_t g = 0; g < nas__comp_parts(c); g++)
        nas_buf_printf(&text, "%s%.17g", g == 0 ? "" : " ", values[g]);
    nas_status status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) status = nas_db_meta_set(c->ctx, c->db, c->id, name, text.data);
    nas_buf_deinit(&text);
    return status;
}

nas_status nas__comp_alone(nas__comp *c, size_t index, double *top1) {
    char name[48];
    bool found = false;
    (void)snprintf(name, sizeof name, "alone %zu", index);
    nas_status status = recall(c, name, top1, &found);
    if (status != NAS_OK || found) return status;
    status = score_all(c, &c->trials[index].point, top1);
    if (status == NAS_OK) status = remember(c, name, top1);
    return nas_wrap(c->ctx, status, "what each %s costs", c->levels != NULL ? "layer" : "group");
}

nas_status nas__comp_ratios(nas__comp *c, size_t index, const nas_graph *delivered, double *ratio) {
    char name[48];
    bool found = false;
    (void)snprintf(name, sizeof name, "layer times %zu", index);
    nas_status status = recall(c, name, ratio, &found);
    if (status != NAS_OK || found) return status;
    for (size_t g = 0; g < nas__comp_parts(c); g++)
        ratio[g] = NAN;
    if (nas_device_is_simulated(c->device)) return NAS_OK; /* nothing can be measured there */
    status = nas__comp_time_parts(c, delivered, ratio);
    if (status == NAS_OK) return remember(c, name, ratio);
    if (status == NAS_ERR_CANCELLED || status == NAS_ERR_NOMEM) return status;
    nas_log(c->ctx, NAS_LOG_WARN,
            "layers.csv is written without measured_ratio (the same command tries again): %s",
            nas_ctx_message(c->ctx));
    nas_ctx_clear(c->ctx);
    return NAS_OK;
}
