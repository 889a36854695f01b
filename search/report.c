/* report.c - the end of a run: the front as a table on stdout, the baselines below it, front.csv, and best/.
 * The rows are those of nas-query: one set of views serves people, scripts and this report. */
#include "search/study_internal.h"

#include "core/rows.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static nas_status print_rows(nas__study *s, nas_db_report_kind kind, nas_rows_format format,
                             bool brief, FILE *out) {
    nas_rows rows = nas_rows_new(format, false, out);
    const nas_status status =
        nas_db_report(s->ctx, s->db, kind, s->config->study.name, 0, brief, nas_rows_add, &rows);
    if (status != NAS_OK) {
        nas_rows_deinit(&rows);
        return status;
    }
    return nas_rows_end(s->ctx, &rows);
}

/* Written beside and renamed: the old or the new file, never half of one. */
static nas_status write_front_csv(nas__study *s) {
    char path[NAS__PATH_MAX], fresh[NAS__PATH_MAX];
    nas_status status = nas__study_path(s, "front.csv", path);
    if (status == NAS_OK) status = nas__study_path(s, "front.csv.new", fresh);
    if (status != NAS_OK) return status;
    FILE *file = fopen(fresh, "w");
    if (file == NULL) return nas_fail(s->ctx, NAS_ERR_IO, "%s: %s", fresh, strerror(errno));
    status = print_rows(s, NAS_DB_REPORT_FINAL, NAS_ROWS_CSV, false, file);
    if (fclose(file) != 0 && status == NAS_OK) {
        status = nas_fail(s->ctx, NAS_ERR_IO, "%s: %s", fresh, strerror(errno));
    }
    if (status == NAS_OK && rename(fresh, path) != 0) {
        status = nas_fail(s->ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    }
    return status;
}

/* What surrounds the rows of a table, for people: not printed with json, csv and value. */
static void print_heading(const nas__study *s) {
    const nas_config *c = s->config;
    printf("\nPareto front: x%d super-resolution to %dx%d", (int)c->task.scale,
           (int)c->task.out_width, (int)c->task.out_height);
    for (int32_t i = 0; i < s->n_devices; i++) {
        const nas__device *d = &s->devices[i];
        const bool simulated = d->handle != NULL && nas_device_is_simulated(d->handle);
        const bool pool = d->config->pool[0] != '\0';
        printf("%s%s%s%s (%s%s), %d thread%s", s->n_devices == 1 ? " on " : "\n  ", d->config->name,
               pool ? " of pool " : "", pool ? d->config->pool : "", s->targets[d->target].row.name,
               simulated ? ", SIMULATED latency: nothing was timed" : "", (int)d->config->threads,
               d->config->threads == 1 ? "" : "s");
    }
    if (nas__first_target(s)->compile.dtype == NAS_DTYPE_FP16)
        printf("\nthe timed programs compute in half precision (compile.dtype = \"fp16\")");
    const bool timed = nas__first_target(s)->row.runs_here;
    printf("\npsnr_y, ssim_y: %s; by %s. latency: median [95 %% interval], p90, in ms\n",
           nas_sr_data_describe(s->data),
           timed ? "the timed program" : "a native build of the timed network");
    if (!timed) {
        printf("the timed program of %s is not run on those images: column `checked` of -f csv "
               "says how it was compared\n",
               nas__queue_name(s, s->first_queue));
    }
}

static void print_notes(const nas__study *s, bool feasible, size_t best) {
    const nas_config *c = s->config;
    printf("bicubic: psnr_y %.2f  ssim_y %.4f\n", s->bicubic_report.psnr_y_db,
           s->bicubic_report.ssim_y);
    if (feasible) {
        const nas__figures figures = nas__final_figures(&s->trials[best]);
        const nas_db_values v = figures.values;
        printf("\nbest under the constraints: trial %zu", best);
        if (v.final_psnr_y_db.is_set) {
            printf(", psnr_y %.2f (%+.2f over bicubic)", v.final_psnr_y_db.value,
                   v.final_psnr_y_db.value - s->bicubic_report.psnr_y_db);
        }
        for (int32_t q = 0; q < c->n_queues; q++) {
            const nas__latency *l = &figures.latency[q];
            if (!l->is_set) continue;
            printf(", p50 %.2f ms, p90 %.2f ms%s%s%s", l->p50_us * 1e-3, l->p90_us * 1e-3,
                   c->n_queues > 1 ? " on " : "", c->n_queues > 1 ? nas__queue_name(s, q) : "",
                   l->noisy ? " (noisy: judged by the upper end of its interval)" : "");
        }
        printf(" -> %s/best\n", s->dir);
    } else {
        printf("\nno trial satisfies the constraints:");
        for (int32_t i = 0; i < c->n_constraints; i++) {
            double bound = 0;
            if (!nas__constraint_bound(s, &c->constraints[i], &bound)) continue;
            char name[NAS_METRIC_TEXT_MAX];
            nas_config_metric_text(c, c->constraints[i].metric, c->constraints[i].queue, name);
            printf(" %s %s %g", name, c->constraints[i].at_most ? "<=" : ">=", bound);
        }
        printf("; relax them, widen the space, or add trials\n");
    }
    if (s->checked_networks > 0) {
        printf("emitted code against the trainer's forward: max abs difference %.1e over %" PRId64
               " networks\n",
               s->worst_difference, s->checked_networks);
    }
    const nas__skip_counts n = nas__count_skips(s);
    printf("candidates: %zu measured, %zu skipped: %zu certain to miss a bound, %zu certain to be "
           "beaten\n",
           n.measured, n.infeasible + n.beaten, n.infeasible, n.beaten);
}

/* By held-out rows, and by the networks that were foretold before they were measured. */
static nas_status print_predictors(nas__study *s) {
    const nas_config *c = s->config;
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < c->n_queues && status == NAS_OK; i++) {
        if (s->predictors[i] == NULL) continue;
        const nas_predictor_quality q = nas_predictor_quality_of(s->predictors[i]);
        if (!q.is_set) continue;
        nas__foresight f = {0};
        status = nas__predictor_foresight(s, i, &f);
        if (status != NAS_OK) break;
        printf("predictor%s%s: held-out error %.1f %%, rank correlation %.3f, %zu rows\n",
               c->n_queues > 1 ? " of " : "", c->n_queues > 1 ? nas__queue_name(s, i) : "",
               q.mape * 100, q.spearman, q.n_train);
        if (!f.is_set) continue;
        printf("  foretold before they were measured: %zu networks, error %.1f %%, rank "
               "correlation %.3f, %.0f %% inside the %.4g %% interval\n",
               f.n, f.mape * 100, f.spearman, f.coverage * 100, c->search.skip_confidence * 100);
    }
    return status;
}

nas_status nas__phase_report(nas__study *s, bool *feasible) {
    size_t best = 0;
    *feasible = nas__pick_best(s, &best);
    nas_rows_format format = NAS_ROWS_TABLE;
    nas_status status = nas_rows_format_parse(s->ctx, s->options->format, &format);
    char number[32] = "";
    if (*feasible) (void)snprintf(number, sizeof number, "%zu", best);
    if (status == NAS_OK) status = nas_db_meta_set(s->ctx, s->db, s->id, "best_trial", number);
    if (status == NAS_OK && *feasible) status = nas__deliver(s, best, "best");
    if (status == NAS_OK) status = write_front_csv(s);
    const bool table = format == NAS_ROWS_TABLE;
    if (status == NAS_OK && table) print_heading(s);
    if (status == NAS_OK) status = print_rows(s, NAS_DB_REPORT_FINAL, format, table, stdout);
    if (status == NAS_OK && table) {
        printf("\nbaselines\n");
        status = print_rows(s, NAS_DB_REPORT_BASELINES, format, true, stdout);
        if (status == NAS_OK) print_notes(s, *feasible, best);
        if (status == NAS_OK) status = print_predictors(s);
    }
    if (status == NAS_OK) status = nas__deliver_wanted(s);
    return nas_wrap(s->ctx, status, "report");
}
