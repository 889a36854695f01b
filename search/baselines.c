/* baselines.c - the networks every table compares with: the full-width supernet and an FSRCNN-shaped net, both trained
 * here and timed on the same devices. They are trials 0 and 1; percentages in constraints refer to trial 0. */
#include "search/study_internal.h"

#include <string.h>

static size_t find_origin(const nas__study *s, const char *origin) {
    for (size_t i = 0; i < s->n_trials; i++) {
        if (strcmp(s->trials[i].row.origin, origin) == 0) return i;
    }
    return s->n_trials;
}

static nas_status add_baseline(nas__study *s, const char *origin, const nas_graph *graph,
                               size_t *index) {
    *index = find_origin(s, origin);
    if (*index < s->n_trials) return NAS_OK;
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK) status = nas__study_add_trial(s, NULL, graph, origin, index);
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

/* Scores with the trained weights on SELECT and REPORT; the program itself was compared with the same forward. */
static nas_status score_baseline(nas__study *s, const nas_graph *graph, nas_db_values *values,
                                 nas_db_values *final) {
    nas_upscale_graph upscale = {.graph = graph, .threads = s->config->eval.threads};
    nas_sr_score select = {0}, report = {0};
    nas_status status = nas_sr_score_split(s->ctx, s->data, NAS_SPLIT_SELECT, s->config->task.scale,
                                           nas_upscale_by_graph, &upscale, &select);
    if (status == NAS_OK) {
        status = nas_sr_score_split(s->ctx, s->data, NAS_SPLIT_REPORT, s->config->task.scale,
                                    nas_upscale_by_graph, &upscale, &report);
    }
    if (status != NAS_OK) return status;
    values->psnr_y_db = nas_some_double(select.psnr_y_db);
    values->ssim_y = nas_some_double(select.ssim_y);
    final->final_psnr_y_db = nas_some_double(report.psnr_y_db);
    final->final_ssim_y = nas_some_double(report.ssim_y);
    final->final_select_psnr_y_db = values->psnr_y_db;
    return NAS_OK;
}

/* The search values and the final ones of a baseline are the same: it is trained once. */
static nas_status finish_baseline(nas__study *s, size_t index, const nas__built *built,
                                  nas_db_values *values, const nas_db_values *final) {
    nas__trial *trial = &s->trials[index];
    const nas__target *target = nas__first_target(s);
    values->arena_bytes = nas_some_i64((int64_t)built->artifacts[target - s->targets].arena_bytes);
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK) status = nas__trial_finish(s, index, NAS_TRIAL_COMPLETE, NULL, values);
    memcpy(trial->final, trial->search, sizeof trial->final);
    if (status == NAS_OK) status = nas__trial_set_final(s, index, final);
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

static nas_status run_baseline(nas__study *s, const char *origin, const nas_graph *shape,
                               const nas_weights *weights) {
    nas_ctx *ctx = s->ctx;
    size_t index = 0;
    nas_status status = add_baseline(s, origin, shape, &index);
    if (status != NAS_OK || s->trials[index].row.state == NAS_TRIAL_COMPLETE) return status;
    status = nas__trial_start(s, index);
    nas_graph *graph = NULL;
    if (status == NAS_OK) status = nas_graph_clone(ctx, shape, &graph);
    nas__built built = {0};
    if (status == NAS_OK) status = nas__build(ctx, s, graph, weights, &built);
    nas_db_values values = {0}, final = {0};
    if (status == NAS_OK) status = score_baseline(s, built.graph, &values, &final);
    nas__job job = {.index = index, .built = &built};
    if (status == NAS_OK) status = nas__measure_jobs(s, &job, 1, "baseline", true);
    if (status == NAS_OK && job.failed) status = nas_fail(ctx, NAS_ERR_DEVICE, "%s", job.reason);
    if (status == NAS_OK) {
        nas__note_difference(s, built.max_difference);
        status = finish_baseline(s, index, &built, &values, &final);
    }
    nas__built_deinit(&built);
    return nas_wrap(ctx, status, "baseline %s", origin);
}

nas_status nas__phase_baselines(nas__study *s) {
    nas__progress_phase(&s->progress, "baselines", 0, 2);
    nas_status status = run_baseline(s, "baseline:supernet", s->largest, s->weights);
    if (status != NAS_OK) return status;
    nas__progress_update(&s->progress, 1, "supernet measured");
    if (s->config->eval.baseline_steps > 0) {
        status = run_baseline(s, "baseline:fsrcnn", s->fsrcnn, s->fsrcnn_weights);
        if (status != NAS_OK) return status;
    }
    nas__progress_update(&s->progress, 2, "bicubic %.2f dB on the select images",
                         s->bicubic_select.psnr_y_db);
    nas__progress_end(&s->progress);
    s->baseline = nas__search_figures(&s->trials[find_origin(s, "baseline:supernet")]);
    return NAS_OK;
}
