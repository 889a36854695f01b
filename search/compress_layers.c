/* compress_layers.c - what each group of channels costs: the original with that group alone cut to what the chosen network keeps
 * of it, repaired in the same way, scored on REWARD images. One score a group, so they are kept in the study's database. */
#include "search/compress_internal.h"

#include <stdio.h>
#include <stdlib.h>

static void meta_name(size_t index, char out[48]) {
    (void)snprintf(out, 48, "alone %zu", index);
}

/* Scores of an earlier report: one share a group, apart by blanks. */
static bool read_scores(const char *text, int32_t n, double *top1) {
    for (int32_t g = 0; g < n; g++) {
        char *end = NULL;
        top1[g] = strtod(text, &end);
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

static nas_status score_all(nas__comp *c, const nas_point *point, double *top1, nas_buf *text) {
    const int32_t n = nas_channels_group_count(c->channels);
    nas_status status = NAS_OK;
    nas__progress_phase(&c->progress, "each group alone", 0, n);
    for (int32_t g = 0; g < n && status == NAS_OK; g++) {
        const int32_t kept = nas_space_amc_kept(c->space, point, g);
        top1[g] = c->trials[0].top1.reward_top1.value; /* nothing taken: the original */
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK && kept < nas_channels_group(c->channels, g)->channels)
            status = score_alone(c, g, kept, &top1[g]);
        nas_buf_printf(text, "%s%.17g", g == 0 ? "" : " ", top1[g]);
        nas__progress_update(&c->progress, g + 1, "%s", "");
    }
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return status == NAS_OK ? nas_buf_status(c->ctx, text) : status;
}

nas_status nas__comp_alone(nas__comp *c, size_t index, double *top1) {
    char name[48], *known = NULL;
    meta_name(index, name);
    nas_status status = nas_db_meta_get(c->ctx, c->db, c->id, name, &known);
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(c->ctx);
        status = NAS_OK;
    }
    const bool done = status == NAS_OK && known != NULL &&
                      read_scores(known, nas_channels_group_count(c->channels), top1);
    nas_free(known);
    if (status != NAS_OK || done) return status;
    nas_buf text = {0};
    status = score_all(c, &c->trials[index].point, top1, &text);
    if (status == NAS_OK) status = nas_db_meta_set(c->ctx, c->db, c->id, name, text.data);
    nas_buf_deinit(&text);
    return nas_wrap(c->ctx, status, "what each group costs");
}
