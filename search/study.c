/* study.c - the study from end to end: the phases in order, and the plan that --dry-run prints. */
#include "search/compress_internal.h"
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static bool compresses(const nas_study_options *options) {
    return strcmp(options->config->task.kind, "classify") == 0;
}

static nas_status run_phases(nas__study *s, bool *feasible) {
    nas_status status = nas__phase_train(s);
    if (status == NAS_OK) status = nas__phase_baselines(s);
    if (status == NAS_OK) status = nas__phase_search(s);
    if (status == NAS_OK) status = nas__phase_final(s);
    if (status == NAS_OK) status = nas__phase_profile(s);
    if (status == NAS_OK) status = nas__phase_report(s, feasible);
    return status;
}

static void note_end(nas__study *s, nas_status status) {
    if (s->db == NULL || s->id == 0) return;
    nas_db_rollback(s->db);
    char message[1024];
    (void)snprintf(message, sizeof message, "%s",
                   status == NAS_OK ? "report printed" : nas_ctx_message(s->ctx));
    const char *kind = status == NAS_OK              ? "end"
                       : status == NAS_ERR_CANCELLED ? "interrupt"
                                                     : "error";
    if (nas_db_event(s->ctx, s->db, s->id, kind, message) != NAS_OK) {
        nas_log(s->ctx, NAS_LOG_WARN, "the end of the run could not be recorded: %s",
                nas_ctx_message(s->ctx));
    }
    if (status != NAS_OK)
        (void)nas_fail(s->ctx, status, "%s", message); /* the first failure is the one to report */
}

nas_status nas_study_run(nas_ctx *ctx, const nas_study_options *options, bool *feasible) {
    if (compresses(options)) return nas__compress_run(ctx, options, feasible);
    nas__study s;
    nas_status status = nas__study_open(ctx, options, &s);
    nas_ctx_set_log(ctx, nas__progress_log, &s.progress, NAS_LOG_INFO);
    if (status == NAS_OK) status = run_phases(&s, feasible);
    note_end(&s, status);
    if (status == NAS_ERR_CANCELLED) {
        nas_log(ctx, NAS_LOG_INFO, "interrupted; run the same command again to continue in %s",
                s.dir);
    }
    const nas_status closed = nas__study_close(&s);
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_INFO);
    return status == NAS_OK ? closed : status;
}

/* ---- plan ------------------------------------------------------------------------------------------------------------- */

static nas_status print_costs(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                              const char *name) {
    nas_graph *graph = NULL;
    nas_graph_cost cost = {0};
    nas_status status = nas_space_decode(ctx, space, point, &graph);
    if (status == NAS_OK) status = nas_graph_cost_total(ctx, graph, &cost);
    if (status == NAS_OK) {
        printf("  %-9s %10.3f GMACs  %9" PRIu64 " params  %8.1f MB peak activations\n", name,
               (double)cost.macs * 1e-9, cost.params, (double)cost.peak_activation_bytes * 1e-6);
    }
    nas_graph_free(graph);
    return status;
}

static void print_device_plan(const nas_config *c) {
    const double per_run = fmax(c->measure.min_time_ms * 1e-3, 0.3);
    for (int32_t i = 0; i < c->n_devices; i++) {
        const nas_config_device *d = &c->devices[i];
        const bool cores = d->cores[0] != '\0', pool = d->pool[0] != '\0';
        printf("device    %s (%s), %d threads%s%s, %s%s%s, for %s\n", d->name, d->connect,
               (int)d->threads, cores ? " on cores " : "", d->cores, d->mode, pool ? ", pool " : "",
               d->pool, d->target[0] != '\0' ? d->target : c->compile.target);
    }
    printf("search    %d trials by %s in batches of %d; each: emit and compile about 1 s, score on "
           "at most %d images, then "
           "at least %d timed batches and %.1f s, %.0f s at most, alone on the device\n",
           (int)c->search.trials, c->search.strategy, (int)c->search.options.population,
           (int)c->data.select_max, (int)c->measure.min_batches, per_run,
           c->measure.max_time_ms * 1e-3);
    printf("          the drift reference is timed every %d trials\n",
           (int)c->measure.reference_every);
    printf("final     at most %d front members: %d steps each, then timed for up to %.0f s; the "
           "winner %d steps more\n",
           (int)c->eval.finetune_max, (int)c->eval.finetune_steps,
           c->measure.final_max_time_ms * 1e-3, (int)c->eval.winner_steps);
}

static void print_bounds(const nas_config *c) {
    for (int32_t i = 0; i < c->n_constraints; i++) {
        const nas_constraint *k = &c->constraints[i];
        char name[NAS_METRIC_TEXT_MAX];
        nas_config_metric_text(c, k->metric, k->queue, name);
        printf("bound     %s %s %g%s\n", name, k->at_most ? "<=" : ">=", k->bound,
               k->is_percent ? " % of the full-width supernet" : "");
    }
}

nas_status nas_study_plan(nas_ctx *ctx, const nas_study_options *options) {
    const nas_config *c = options->config;
    if (compresses(options)) return nas__compress_plan(ctx, options);
    nas_space *space = NULL;
    const nas_target *target = NULL;
    const bool found_later = strcmp(c->compile.target, "auto") == 0;
    nas_status status = nas_target_find(ctx, found_later ? "native" : c->compile.target, &target);
    if (status == NAS_OK) status = nas_space_sr_new(ctx, &c->space, &space);
    if (status != NAS_OK) return status;
    printf("study     %s, seed %" PRIu64 ", folder %s\n", c->study.name, c->study.seed,
           c->study.dir);
    printf("task      x%d super-resolution, %dx%d to %dx%d, target %s\n", (int)c->task.scale,
           (int)c->space.lr_width, (int)c->space.lr_height, (int)c->task.out_width,
           (int)c->task.out_height, found_later ? "auto" : target->name);
    printf("space     %s: %.4g networks\n", nas_space_name(space), nas_space_size(space));
    nas_point point;
    nas_space_smallest(space, &point);
    status = print_costs(ctx, space, &point, "smallest");
    nas_space_largest(space, &point);
    if (status == NAS_OK) status = print_costs(ctx, space, &point, "largest");
    print_bounds(c);
    printf("training  supernet %d steps of 4 x %d patches %dx%d (largest, smallest, 2 random); "
           "FSRCNN baseline %d steps\n",
           (int)c->eval.supernet_steps, (int)c->eval.batch, (int)c->eval.patch, (int)c->eval.patch,
           (int)c->eval.baseline_steps);
    print_device_plan(c);
    if (c->budget.time_s > 0) printf("budget    %.0f s for the whole study\n", c->budget.time_s);
    nas_space_free(space);
    return status;
}
