/* baselines.c - the networks every table compares with: the full-width supernet and an FSRCNN-shaped net, both trained
 * here and timed on the same device. They are trials 0 and 1; percentages in constraints refer to trial 0. */
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
    if (status == NAS_OK) status = nas__time_artifact(s, &built, index, "baseline", true, &values);
    if (status == NAS_OK) {
        nas__note_difference(s, built.max_difference);
        final.final_latency_p50_us = values.latency_p50_us;
        final.final_latency_p50_lo_us = values.latency_p50_lo_us;
        final.final_latency_p50_hi_us = values.latency_p50_hi_us;
        final.final_latency_p90_us = values.latency_p90_us;
        status = nas_db_begin(ctx, s->db);
    }
    if (status == NAS_OK) status = nas__trial_finish(s, index, NAS_TRIAL_COMPLETE, NULL, &values);
    if (status == NAS_OK) status = nas__trial_set_final(s, index, &final);
    if (status == NAS_OK) status = nas_db_commit(ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
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
    const nas_db_values *base = &s->trials[find_origin(s, "baseline:supernet")].row.values;
    for (int m = 0; m < NAS_METRIC_COUNT; m++) {
        (void)nas__metric_value(base, (nas_metric)m,
                                &s->baseline_values[m]); /* unknown stays NAN */
    }
    return NAS_OK;
}
