/* final_phase.c - the front's members get a short fine-tune on their own weights, are compiled again, timed for longer,
 * and scored on the REPORT images by the very program that was timed. The network that satisfies the constraints best
 * may train on. Which one that is, is decided on SELECT images: REPORT is looked at for the table only. */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct finalist {
    size_t index; /* into s->trials */
    double latency_us;
    nas_weights *weights;
    nas__built built;
    nas_sr_score select, report; /* of the built program */
} finalist;

typedef struct finals {
    const nas__study *s;
    finalist *list;
} finals;

static bool is_finished(const nas__study *s, const finalist *f) {
    return s->trials[f->index].row.values.final_psnr_y_db.is_set;
}

static int by_latency(const void *a, const void *b) {
    const double x = ((const finalist *)a)->latency_us, y = ((const finalist *)b)->latency_us;
    return x < y ? -1 : x > y;
}

/* The feasible best is no member where a bound is on something that is no objective: it takes the place of the next slower
 * one, or of the last, or a place of its own while there are fewer than `limit`. Returns how many there are. */
static size_t with_best(const nas__study *s, finalist *list, size_t n, size_t limit) {
    size_t best = SIZE_MAX, at = 0;
    if (limit == 0 || !nas__pick_best(s, &best)) return n;
    const finalist joins = {.index = best,
                            .latency_us = s->trials[best].search[s->first_queue].p50_us};
    for (size_t i = 0; i < n; i++) {
        if (list[i].index == best) return n;
    }
    while (at < n && list[at].latency_us < joins.latency_us)
        at++;
    if (n < limit) {
        memmove(list + at + 1, list + at, (n - at) * sizeof *list);
        n++;
    } else if (at == n) {
        at = n - 1;
    }
    list[at] = joins;
    return n;
}

/* Members of the front that are spread evenly over latency, both ends included; the feasible best is always one. */
static nas_status choose(nas__study *s, finalist **out, size_t *n_out) {
    const size_t n = nas_front_size(s->front);
    const size_t limit = (size_t)s->config->eval.finetune_max;
    finalist *all = nas_alloc_array(s->ctx, n + 1, sizeof *all);
    if (all == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        all[i].index = (size_t)nas_front_trial(s->front, i);
        all[i].latency_us = s->trials[all[i].index].search[s->first_queue].p50_us;
    }
    if (n > 1) qsort(all, n, sizeof *all, by_latency);
    for (size_t i = 0; i < limit && n > limit; i++)
        all[i] = all[limit == 1 ? n - 1 : i * (n - 1) / (limit - 1)]; /* never one before i */
    *n_out = with_best(s, all, n < limit ? n : limit, limit);
    *out = all;
    return NAS_OK;
}

static nas_status finetune_path(nas__study *s, size_t index, const char *suffix,
                                char out[NAS__PATH_MAX]) {
    char name[64];
    (void)snprintf(name, sizeof name, "finetune/%zu%s.weights", index, suffix);
    return nas__study_path(s, name, out);
}

/* The time budget, if any, is shared evenly by the finalists that are left. */
static double fair_share(const nas__study *s, size_t left) {
    static const double end = 0.78;
    const double budget = s->config->budget.time_s;
    if (budget <= 0) return end;
    const double now = nas__study_elapsed_s(s) / budget;
    return now + fmax(0.0, end - now) / (double)left;
}

static nas_status finetune(nas__study *s, finalist *f, size_t left) {
    nas_graph *graph = NULL;
    nas_status status = nas__study_decode(s, &s->trials[f->index].point, &graph);
    if (status == NAS_OK) status = nas_weights_inherit(s->ctx, s->weights, graph, &f->weights);
    char label[32];
    (void)snprintf(label, sizeof label, "finetune %zu", f->index);
    nas__training t = {.label = label,
                       .trial = f->index,
                       .steps = s->config->eval.finetune_steps,
                       .graph = graph,
                       .learning_rate = s->config->eval.finetune_learning_rate,
                       .until_fraction = fair_share(s, left)};
    if (status == NAS_OK) status = finetune_path(s, f->index, "", t.path);
    if (status == NAS_OK && t.steps > 0) status = nas__train(s, f->weights, &t);
    nas_graph_free(graph);
    return status;
}

/* SELECT score of a finalist's present weights, by the forward pass. */
static nas_status score_select(nas__study *s, const finalist *f, double *psnr) {
    nas_graph *graph = NULL;
    nas_sr_score score = {0};
    nas_status status = nas__study_decode(s, &s->trials[f->index].point, &graph);
    if (status == NAS_OK) status = nas_weights_fill(s->ctx, f->weights, graph);
    if (status == NAS_OK) {
        nas_upscale_graph upscale = {.graph = graph, .threads = s->config->eval.threads};
        status = nas_sr_score_split(s->ctx, s->data, NAS_SPLIT_SELECT, s->config->task.scale,
                                    nas_upscale_by_graph, &upscale, &score);
    }
    nas_graph_free(graph);
    if (status == NAS_OK) *psnr = score.psnr_y_db;
    return status;
}

/* Further training of the feasible finalist with the best SELECT score. */
static nas_status train_winner(nas__study *s, finalist *finalists, size_t n) {
    if (s->config->eval.winner_steps == 0 || nas__study_out_of_time(s, 0.8)) return NAS_OK;
    finalist *winner = NULL;
    double best = -INFINITY;
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        const nas__figures figures = nas__search_figures(&s->trials[finalists[i].index]);
        if (nas__violation(s, &figures) > 0) continue;
        double psnr = 0;
        status = score_select(s, &finalists[i], &psnr);
        if (status == NAS_OK && psnr > best) {
            best = psnr;
            winner = &finalists[i];
        }
    }
    if (status != NAS_OK || winner == NULL) return status;
    nas_graph *graph = NULL;
    nas_weights *longer = NULL;
    status = nas__study_decode(s, &s->trials[winner->index].point, &graph);
    if (status == NAS_OK) status = nas_weights_inherit(s->ctx, winner->weights, graph, &longer);
    nas__training t = {.label = "winner",
                       .trial = winner->index,
                       .steps = s->config->eval.winner_steps,
                       .graph = graph,
                       .learning_rate = s->config->eval.finetune_learning_rate,
                       .until_fraction = 0.84};
    if (status == NAS_OK) status = finetune_path(s, winner->index, ".winner", t.path);
    if (status == NAS_OK) status = nas__train(s, longer, &t);
    if (status == NAS_OK) {
        nas_weights_free(winner->weights);
        winner->weights = longer;
        longer = NULL;
    }
    nas_weights_free(longer);
    nas_graph_free(graph);
    return status;
}

/* Builds and scores one finalist by its program; runs in parallel with others, before anything is timed. */
static nas_status build_finalist(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    finals *all = arg;
    finalist *f = &all->list[i];
    const nas__study *s = all->s;
    if (is_finished(s, f)) return NAS_OK;
    nas_graph *graph = NULL;
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK) {
        status = nas_space_decode(ctx, s->space, &s->trials[f->index].point, &graph);
    }
    if (status == NAS_OK) status = nas__build(ctx, s, graph, f->weights, &f->built);
    if (status == NAS_OK) status = nas__build_here(ctx, s, &f->built);
    if (status == NAS_OK) {
        status = nas__score_artifact(ctx, s, &f->built, NAS_SPLIT_SELECT, &f->select);
    }
    if (status == NAS_OK) {
        status = nas__score_artifact(ctx, s, &f->built, NAS_SPLIT_REPORT, &f->report);
    }
    return nas_wrap(ctx, status, "trial %zu", f->index);
}

static nas_status finish_finalist(nas__study *s, const finalist *f) {
    nas__note_difference(s, f->built.max_difference);
    const nas_db_values final = {.final_psnr_y_db = nas_some_double(f->report.psnr_y_db),
                                 .final_ssim_y = nas_some_double(f->report.ssim_y),
                                 .final_select_psnr_y_db = nas_some_double(f->select.psnr_y_db)};
    return nas_wrap(s->ctx, nas__trial_set_final(s, f->index, &final), "final figures of trial %zu",
                    f->index);
}

/* A prediction for front members that were measured before the predictor knew enough: by a model that has not seen
 * their own measurement. */
static nas_status predict_held_out(nas__study *s, size_t index) {
    nas_predictor *p = NULL;
    nas_graph *graph = NULL;
    nas_status status = nas_predictor_new(
        s->ctx, nas__first_target(s)->row.vector_bytes / (int32_t)sizeof(float), &p);
    size_t rows = 0;
    for (size_t i = 0; i < s->n_trials && status == NAS_OK; i++) {
        const nas__latency *l = &s->trials[i].search[s->first_queue];
        if (i == index || !s->trials[i].from_strategy || !l->is_set) continue;
        nas_graph *other = NULL;
        status = nas__study_decode(s, &s->trials[i].point, &other);
        if (status == NAS_OK) {
            status = nas_predictor_add(s->ctx, p, other, l->p50_us, l->noisy);
        }
        nas_graph_free(other);
        rows++;
    }
    nas_prediction prediction = {0};
    if (status == NAS_OK && rows >= nas_predictor_min_rows()) {
        status = nas_predictor_fit(s->ctx, p);
        if (status == NAS_OK) status = nas__study_decode(s, &s->trials[index].point, &graph);
        if (status == NAS_OK) status = nas_predictor_predict(s->ctx, p, graph, &prediction);
        const nas_db_prediction row = {.trial_id = s->trials[index].row.id,
                                       .device_id = nas__queue_device_id(s, s->first_queue),
                                       .predictor = nas_predictor_id(p),
                                       .p50_us = prediction.p50_us,
                                       .lo_us = prediction.lo_us,
                                       .hi_us = prediction.hi_us,
                                       .held_out = true};
        if (status == NAS_OK) status = nas_db_prediction_insert(s->ctx, s->db, &row);
    }
    nas_graph_free(graph);
    nas_predictor_free(p);
    return status;
}

static nas_status predict_missing(nas__study *s, const finalist *finalists, size_t n) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        bool has = false;
        status =
            nas_db_trial_has_prediction(s->ctx, s->db, s->trials[finalists[i].index].row.id, &has);
        if (status == NAS_OK && !has) status = predict_held_out(s, finalists[i].index);
    }
    return status;
}

/* Times the finalists that have no final figures yet; one that fails on a device keeps its search values. */
static nas_status time_finalists(nas__study *s, finalist *list, size_t n) {
    nas__job *jobs = nas_alloc_array(s->ctx, n, sizeof *jobs);
    size_t *from = nas_alloc_array(s->ctx, n, sizeof *from);
    nas_status status = jobs == NULL || from == NULL ? NAS_ERR_NOMEM : NAS_OK;
    size_t n_jobs = 0;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        if (is_finished(s, &list[i])) continue;
        from[n_jobs] = i;
        jobs[n_jobs++] = (nas__job){.index = list[i].index, .built = &list[i].built};
    }
    if (status == NAS_OK) status = nas__measure_jobs(s, jobs, n_jobs, "final", true);
    for (size_t i = 0; i < n_jobs && status == NAS_OK; i++) {
        if (jobs[i].failed) {
            nas_log(s->ctx, NAS_LOG_WARN, "trial %zu has no final figures: %s", jobs[i].index,
                    jobs[i].reason);
            status = nas_db_event(s->ctx, s->db, s->id, "final", jobs[i].reason);
            continue;
        }
        status = finish_finalist(s, &list[from[i]]);
        nas__progress_update(&s->progress, s->progress.done + 1, "timing the front");
    }
    nas_free(from);
    nas_free(jobs);
    return status;
}

static nas_status finish_all(nas__study *s, finalist *list, size_t n, size_t pending) {
    finals all = {.s = s, .list = list};
    nas__progress_phase(&s->progress, "final", (double)(n - pending), (double)n);
    nas__progress_update(&s->progress, s->progress.done, "compiling and scoring the front");
    nas_status status = nas_parallel(s->ctx, s->config->eval.threads, n, build_finalist, &all);
    if (status == NAS_OK) status = time_finalists(s, list, n);
    if (status == NAS_OK) nas__progress_end(&s->progress);
    return status;
}

nas_status nas__phase_final(nas__study *s) {
    finalist *list = NULL;
    size_t n = 0, pending = 0;
    nas_status status = choose(s, &list, &n);
    for (size_t i = 0; status == NAS_OK && i < n; i++)
        pending += !is_finished(s, &list[i]);
    char path[NAS__PATH_MAX];
    if (status == NAS_OK) status = nas__study_path(s, "finetune", path);
    if (status == NAS_OK) status = nas_mkdirs(s->ctx, path);
    if (status == NAS_OK) status = predict_missing(s, list, n);
    for (size_t i = 0; pending > 0 && i < n && status == NAS_OK; i++) {
        status = finetune(s, &list[i], n - i);
    }
    if (pending > 0 && status == NAS_OK) status = train_winner(s, list, n);
    if (status == NAS_OK) status = finish_all(s, list, n, pending);
    for (size_t i = 0; i < n; i++) {
        nas_weights_free(list[i].weights);
        nas__built_deinit(&list[i].built);
    }
    nas_free(list);
    return nas_wrap(s->ctx, status, "final phase");
}
