/* compress_layers.c - what each part costs (a group of channels, or a layer): the original with that part alone as in the chosen
 * network, scored on REWARD images; and what it gains: the time of its layers. One figure a part, so they are kept in the
 * study's database. */
#include "search/compress_joint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static size_t group_count(const nas__comp *c) {
    return c->channels == NULL ? 0 : (size_t)nas_channels_group_count(c->channels);
}

static bool is_joint(const nas__comp *c) {
    return c->channels != NULL && c->levels != NULL;
}

size_t nas__comp_parts(const nas__comp *c) {
    const size_t layers = c->levels == NULL ? 0 : c->levels->list.n_layers;
    return group_count(c) + is_joint(c) + layers;
}

void nas__comp_kept(const nas__comp *c, const nas_point *point, int32_t *kept) {
    if (is_joint(c)) {
        nas_space_levels_kept(c->space, point, kept);
        return;
    }
    for (size_t g = 0; g < group_count(c); g++)
        kept[g] = nas_space_amc_kept(c->space, point, (int32_t)g);
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

static nas_status score_kept(nas__comp *c, const int32_t *kept, double *top1) {
    nas_graph *graph = NULL;
    nas_status status = nas__comp_decode(c->ctx, c, kept, &graph);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, top1);
    nas_graph_free(graph);
    return status;
}

static nas_status score_alone(nas__comp *c, size_t group, int32_t kept, double *top1) {
    int32_t *all = nas_alloc_array(c->ctx, group_count(c), sizeof *all);
    if (all == NULL) return NAS_ERR_NOMEM;
    for (size_t g = 0; g < group_count(c); g++)
        all[g] = g == group ? kept : nas_channels_group(c->channels, (int32_t)g)->channels;
    const nas_status status = score_kept(c, all, top1);
    nas_free(all);
    return status;
}

static bool is_nothing(const nas_layer_scheme *s) {
    return !s->is_sparse && s->bits == 0;
}

static nas_status score_layer(nas__comp *c, size_t layer, int32_t level, double *top1) {
    nas_graph *graph = NULL;
    if (is_nothing(&nas__levels_at(c, layer, level)->scheme)) return NAS_OK;
    nas_status status = nas_graph_clone(c->ctx, c->model, &graph);
    if (status == NAS_OK) status = nas__cells_put(c->ctx, c, layer, level, graph);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, top1);
    nas_graph_free(graph);
    return status;
}

/* One part of the point that has kept[group] and level[layer]; top1[part] is that of nothing done. */
static nas_status score_part(nas__comp *c, size_t part, const int32_t *kept, const int32_t *level,
                             double *top1) {
    const size_t groups = group_count(c);
    if (part < groups) {
        if (kept[part] == nas_channels_group(c->channels, (int32_t)part)->channels) return NAS_OK;
        return score_alone(c, part, kept[part], &top1[part]);
    }
    if (!is_joint(c)) return score_layer(c, part, level[part], &top1[part]);
    if (part == groups) return score_kept(c, kept, &top1[part]);
    const size_t layer = part - groups - 1;
    top1[part] = top1[groups];
    if (is_nothing(&nas__levels_at(c, layer, level[layer])->scheme)) return NAS_OK;
    return nas__joint_score_layer(c, kept, layer, level[layer], &top1[part]);
}

static nas_status score_all(nas__comp *c, const nas_point *point, double *top1) {
    const size_t n = nas__comp_parts(c);
    int32_t *level = nas_alloc_array(c->ctx, n, sizeof *level);
    int32_t *kept = nas_alloc_array(c->ctx, n, sizeof *kept);
    nas_status status = level == NULL || kept == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK && c->levels != NULL) nas_space_levels_of(c->space, point, level);
    if (status == NAS_OK && c->channels != NULL) nas__comp_kept(c, point, kept);
    nas__progress_phase(&c->progress, c->levels != NULL ? "each layer alone" : "each group alone",
                        0, (double)n);
    for (size_t k = 0; k < n && status == NAS_OK; k++) {
        top1[k] = c->trials[0].top1.reward_top1.value; /* nothing taken: the original */
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK) status = score_part(c, k, kept, level, top1);
        nas__progress_update(&c->progress, (double)k + 1, "%s", "");
    }
    nas_free(level);
    nas_free(kept);
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
