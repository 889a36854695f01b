/* compress_layers.c - what each group of channels costs: the original with that group alone cut to what the chosen network keeps
 * of it, repaired in the same way, scored on REWARD images; and what it gains: the time of its layers. One figure a group, so
 * they are kept in the study's database. */
#include "search/compress_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* One number a group, apart by blanks. */
static bool read_values(const char *text, int32_t n, double *values) {
    for (int32_t g = 0; g < n; g++) {
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

static nas_status score_all(nas__comp *c, const nas_point *point, double *top1) {
    const int32_t n = nas_channels_group_count(c->channels);
    nas_status status = NAS_OK;
    nas__progress_phase(&c->progress, "each group alone", 0, n);
    for (int32_t g = 0; g < n && status == NAS_OK; g++) {
        const int32_t kept = nas_space_amc_kept(c->space, point, g);
        top1[g] = c->trials[0].top1.reward_top1.value; /* nothing taken: the original */
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK && kept < nas_channels_group(c->channels, g)->channels)
            status = score_alone(c, g, kept, &top1[g]);
        nas__progress_update(&c->progress, g + 1, "%s", "");
    }
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
    *found = status == NAS_OK && known != NULL &&
             read_values(known, nas_channels_group_count(c->channels), values);
    nas_free(known);
    return status;
}

static nas_status remember(nas__comp *c, const char *name, const double *values) {
    nas_buf text = {0};
    for (int32_t g = 0; g < nas_channels_group_count(c->channels); g++)
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
    return nas_wrap(c->ctx, status, "what each group costs");
}

nas_status nas__comp_ratios(nas__comp *c, size_t index, const nas_graph *delivered, double *ratio) {
    char name[48];
    bool found = false;
    (void)snprintf(name, sizeof name, "layer times %zu", index);
    nas_status status = recall(c, name, ratio, &found);
    if (status != NAS_OK || found) return status;
    for (int32_t g = 0; g < nas_channels_group_count(c->channels); g++)
        ratio[g] = NAN;
    if (nas_device_is_simulated(c->device)) return NAS_OK; /* nothing can be measured there */
    status = nas__comp_time_groups(c, delivered, ratio);
    if (status == NAS_OK) return remember(c, name, ratio);
    if (status == NAS_ERR_CANCELLED || status == NAS_ERR_NOMEM) return status;
    nas_log(c->ctx, NAS_LOG_WARN,
            "layers.csv is written without measured_ratio (the same command tries again): %s",
            nas_ctx_message(c->ctx));
    nas_ctx_clear(c->ctx);
    return NAS_OK;
}
