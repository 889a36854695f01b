/* search_phase.c - ask, build and score, measure, tell: one batch after the other.
 *
 * A batch is asked in one transaction with the strategy's state; its trials are built and scored in parallel; then they
 * are measured alone, one by one, in groups bracketed by the drift reference; then all are told in one transaction with
 * the new state. What is finished is never done again: after a resume the batch that was under way is completed
 * first, from the values in the database where they are there. */
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Work on one trial of a batch. */
typedef struct job {
    size_t index; /* into s->trials */
    nas__built built;
    nas_sr_score score;
    nas_db_values fresh; /* of the latest measurement */
    nas__kept kept;      /* the measurement that stands */
    bool failed;
    char reason[512];
} job;

typedef struct batch {
    nas__study *s;
    job *jobs;
    size_t n;
} batch;

static size_t strategy_trials(const nas__study *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_trials; i++)
        n += s->trials[i].from_strategy;
    return n;
}

/* ---- predictor -------------------------------------------------------------------------------------------------------- */

static nas_status learn(nas__study *s, size_t index) {
    const nas__trial *trial = &s->trials[index];
    const nas_db_values *v = &trial->row.values;
    if (!trial->from_strategy || !v->latency_p50_us.is_set) return NAS_OK;
    nas_graph *graph = NULL;
    nas_status status = nas__study_decode(s, &trial->point, &graph);
    if (status != NAS_OK) return status;
    status = nas_predictor_add(s->ctx, s->predictor, graph, v->latency_p50_us.value,
                               v->noisy.is_set && v->noisy.value != 0);
    nas_graph_free(graph);
    return status;
}

static nas_status refit(nas__study *s) {
    size_t rows = 0;
    for (size_t i = 0; i < s->n_trials; i++) {
        rows += s->trials[i].from_strategy && s->trials[i].row.values.latency_p50_us.is_set;
    }
    if (rows < nas_predictor_min_rows()) return NAS_OK;
    nas_status status = nas_predictor_fit(s->ctx, s->predictor);
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictor);
    if (status == NAS_OK && q.is_set) {
        status = nas__meta_set_double(s, "predictor_mape", q.mape);
        if (status == NAS_OK) status = nas__meta_set_double(s, "predictor_spearman", q.spearman);
        if (status == NAS_OK) status = nas__meta_set_double(s, "predictor_rows", (double)q.n_train);
    }
    return status;
}

/* Smallest absolute upper bound on latency, in us; INFINITY when there is none. */
static double latency_bound_us(const nas__study *s) {
    double lowest = INFINITY;
    for (int32_t i = 0; i < s->config->n_constraints; i++) {
        const nas_constraint *c = &s->config->constraints[i];
        double bound_ms = 0;
        const bool latency =
            c->metric == NAS_METRIC_LATENCY_P50_MS || c->metric == NAS_METRIC_LATENCY_P90_MS;
        if (latency && c->at_most && nas__constraint_bound(s, c, &bound_ms))
            lowest = fmin(lowest, bound_ms * 1e3);
    }
    return lowest;
}

/* Stores the prediction made before measuring; *skip when even its lower end misses the deadline by the margin. */
static nas_status predict(nas__study *s, size_t index, bool *skip, char reason[512],
                          double *violation) {
    *skip = false;
    if (!nas_predictor_quality_of(s->predictor).is_set) return NAS_OK;
    nas_graph *graph = NULL;
    nas_status status = nas__study_decode(s, &s->trials[index].point, &graph);
    nas_prediction p = {0};
    if (status == NAS_OK) status = nas_predictor_predict(s->ctx, s->predictor, graph, &p);
    nas_graph_free(graph);
    if (status != NAS_OK) return status;
    const double bound = latency_bound_us(s);
    *skip = s->config->search.skip_by_prediction &&
            p.lo_us > bound * (1 + s->config->search.skip_margin);
    if (*skip) {
        *violation = p.lo_us / bound - 1;
        (void)snprintf(reason, 512, "predicted %.1f ms [%.1f, %.1f], bound %.1f ms",
                       p.p50_us * 1e-3, p.lo_us * 1e-3, p.hi_us * 1e-3, bound * 1e-3);
    }
    const nas_db_prediction row = {.trial_id = s->trials[index].row.id,
                                   .device_id = s->device_id,
                                   .predictor = nas_predictor_id(s->predictor),
                                   .p50_us = p.p50_us,
                                   .lo_us = p.lo_us,
                                   .hi_us = p.hi_us,
                                   .decided = *skip};
    return nas_db_prediction_insert(s->ctx, s->db, &row);
}

/* ---- build and score, in parallel ------------------------------------------------------------------------------------- */

/* A failure of one candidate fails that trial; a failure of the machine (disk, memory, cancel) ends the run. */
static bool fails_the_run(nas_status status) {
    return status == NAS_ERR_CANCELLED || status == NAS_ERR_NOMEM || status == NAS_ERR_IO;
}

static nas_status build_and_score(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    batch *b = arg;
    job *j = &b->jobs[i];
    nas_status status = nas_check_cancel(ctx);
    nas_graph *graph = NULL;
    if (status == NAS_OK)
        status = nas_space_decode(ctx, b->s->space, &b->s->trials[j->index].point, &graph);
    if (status == NAS_OK) status = nas__build(ctx, b->s, graph, b->s->weights, &j->built);
    if (status == NAS_OK) {
        nas_upscale_graph upscale = {.graph = j->built.graph, .threads = 1};
        status = nas_sr_score_split(ctx, b->s->data, NAS_SPLIT_SELECT, b->s->config->task.scale,
                                    nas_upscale_by_graph, &upscale, &j->score);
    }
    if (status == NAS_OK || fails_the_run(status)) return status;
    j->failed = true;
    (void)snprintf(j->reason, sizeof j->reason, "%s", nas_ctx_message(ctx));
    return NAS_OK;
}

/* ---- measuring --------------------------------------------------------------------------------------------------------- */

static nas_status measure_one(nas__study *s, job *j) {
    j->fresh = (nas_db_values){0};
    const nas_status status =
        nas__time_artifact(s, &j->built, j->index, "search", false, &j->fresh);
    /* A dead agent or network ends the run; a program that fails on the device fails its trial. */
    if (status != NAS_ERR_DEVICE && status != NAS_ERR_TIMEOUT) return status;
    if (nas_device_alive(s->ctx, s->device) != NAS_OK) return status;
    j->failed = true;
    (void)snprintf(j->reason, sizeof j->reason, "%s", nas_ctx_message(s->ctx));
    return NAS_OK;
}

static void describe_best(const nas__study *s, char *out, size_t size) {
    size_t best = 0;
    int n = 0;
    if (nas__pick_best(s, &best)) {
        const nas_db_values *v = &s->trials[best].row.values;
        n = snprintf(out, size, "best %.2f dB at p90 %.1f ms (trial %zu)", v->psnr_y_db.value,
                     v->latency_p90_us.value * 1e-3, best);
    } else {
        n = snprintf(out, size, "nothing feasible yet");
    }
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictor);
    if (n > 0 && (size_t)n < size && q.is_set) {
        (void)snprintf(out + n, size - (size_t)n, "  predictor error %.1f %%", q.mape * 100);
    }
}

/* Times jobs [from, to) between two runs of the drift reference. */
static nas_status measure_group(nas__study *s, batch *b, size_t from, size_t to,
                                double *before_us) {
    nas_status status = NAS_OK;
    for (size_t i = from; i < to && status == NAS_OK; i++) {
        if (b->jobs[i].failed) continue;
        status = measure_one(s, &b->jobs[i]);
        char note[160];
        describe_best(s, note, sizeof note);
        nas__progress_update(&s->progress, s->progress.done, "timing trial %zu  %s",
                             b->jobs[i].index, note);
    }
    double after_us = 0;
    if (status == NAS_OK) status = nas__time_reference(s, &after_us);
    if (status != NAS_OK) return status;
    const double slowdown = nas__slowdown(s, *before_us, after_us);
    *before_us = after_us;
    for (size_t i = from; i < to; i++) {
        job *j = &b->jobs[i];
        if (!j->failed) nas__keep_calmer(s, &j->kept, &j->fresh, slowdown);
    }
    return NAS_OK;
}

/* Groups whose state was off the calm one are timed again at the end of the batch, when the state may have changed. */
static nas_status measure_rounds(nas__study *s, batch *b) {
    const size_t every = (size_t)s->config->measure.reference_every;
    nas_status status = NAS_OK;
    for (int round = 0; round < NAS__ROUNDS_MAX && status == NAS_OK; round++) {
        double before_us = 0;
        bool begun = false;
        for (size_t from = 0; from < b->n && status == NAS_OK; from += every) {
            const size_t to = from + every < b->n ? from + every : b->n;
            const job *first = &b->jobs[from];
            if (first->kept.is_set && first->kept.slowdown <= s->config->measure.drift_limit) {
                begun = false; /* the reference before the next group is taken anew */
                continue;
            }
            if (!begun) status = nas__time_reference(s, &before_us);
            begun = true;
            if (status == NAS_OK) status = measure_group(s, b, from, to, &before_us);
        }
    }
    return status;
}

static nas_status finish_job(nas__study *s, job *j) {
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK && j->failed) {
        status = nas__trial_finish(s, j->index, NAS_TRIAL_FAIL, j->reason, &j->kept.values);
        nas_log(s->ctx, NAS_LOG_WARN, "trial %zu failed: %s", j->index, j->reason);
    } else if (status == NAS_OK) {
        j->kept.values.psnr_y_db = nas_some_double(j->score.psnr_y_db);
        j->kept.values.ssim_y = nas_some_double(j->score.ssim_y);
        nas__note_difference(s, j->built.max_difference);
        status = nas__store_layers(s, j->index, j->built.graph);
        if (status == NAS_OK)
            status = nas__trial_finish(s, j->index, NAS_TRIAL_COMPLETE, NULL, &j->kept.values);
    }
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    if (status == NAS_OK) status = learn(s, j->index);
    return status;
}

static nas_status measure_batch(nas__study *s, batch *b) {
    nas_status status = measure_rounds(s, b);
    for (size_t i = 0; i < b->n && status == NAS_OK; i++) {
        status = finish_job(s, &b->jobs[i]);
        if (status != NAS_OK) break;
        char note[160];
        describe_best(s, note, sizeof note);
        nas__progress_update(&s->progress, s->progress.done + 1, "%s", note);
    }
    if (status == NAS_OK) status = refit(s);
    if (status == NAS_OK) status = nas__meta_set_double(s, "elapsed_s", nas__study_elapsed_s(s));
    return status;
}

/* ---- one batch ----------------------------------------------------------------------------------------------------------- */

/* Starts the unfinished trials of [first, n_trials); those that certainly miss the deadline are PRUNED here. */
static nas_status start_jobs(nas__study *s, size_t first, batch *b) {
    nas_status status = NAS_OK;
    for (size_t i = first; i < s->n_trials && status == NAS_OK; i++) {
        if (!s->trials[i].from_strategy || nas__trial_is_finished(&s->trials[i])) continue;
        status = nas_db_begin(s->ctx, s->db);
        if (status == NAS_OK) status = nas__trial_start(s, i);
        bool skip = false;
        char reason[512];
        double violation = 0;
        if (status == NAS_OK) status = predict(s, i, &skip, reason, &violation);
        if (status == NAS_OK && skip) {
            const nas_db_values values = {.violation = nas_some_double(violation)};
            status = nas__trial_finish(s, i, NAS_TRIAL_PRUNED, reason, &values);
            s->progress.done += 1;
        }
        if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
        if (status != NAS_OK) {
            nas_db_rollback(s->db);
        } else if (!skip) {
            b->jobs[b->n++].index = i;
        }
    }
    return status;
}

static nas_status run_batch(nas__study *s, size_t first) {
    batch b = {.s = s, .jobs = nas_alloc_array(s->ctx, s->n_trials - first, sizeof *b.jobs)};
    if (b.jobs == NULL) return NAS_ERR_NOMEM;
    nas_status status = start_jobs(s, first, &b);
    if (status == NAS_OK)
        status = nas_parallel(s->ctx, s->config->eval.threads, b.n, build_and_score, &b);
    if (status == NAS_OK) status = measure_batch(s, &b);
    for (size_t i = 0; i < b.n; i++)
        nas__built_deinit(&b.jobs[i].built);
    nas_free(b.jobs);
    return status;
}

/* ---- strategy -------------------------------------------------------------------------------------------------------------- */

static nas_status save_strategy(nas__study *s) {
    nas_buf state = {0};
    nas_status status = nas_strategy_save(s->ctx, s->strategy, &state);
    if (status == NAS_OK)
        status = nas_db_study_set_strategy_state(s->ctx, s->db, s->id, state.data);
    nas_buf_deinit(&state);
    return status;
}

static nas_status ask_into(nas__study *s, size_t n) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        nas_point point;
        nas_graph *graph = NULL;
        size_t index = 0;
        const bool seed = strategy_trials(s) < s->n_seeds;
        status = nas_strategy_ask(s->ctx, s->strategy, &point);
        if (status == NAS_ERR_NOTFOUND && i > 0) { /* the space is used up: a shorter, last batch */
            nas_ctx_clear(s->ctx);
            status = NAS_OK;
            break;
        }
        if (status == NAS_OK) status = nas__study_decode(s, &point, &graph);
        if (status == NAS_OK)
            status = nas__study_add_trial(s, &point, graph, seed ? "seed" : "strategy", &index);
        nas_graph_free(graph);
    }
    if (status == NAS_OK) status = save_strategy(s);
    return status;
}

static nas_status ask_batch(nas__study *s, size_t remaining) {
    size_t n = (size_t)nas_strategy_ready(s->strategy);
    const size_t population = (size_t)s->config->search.options.population;
    if (n > population) n = population;
    if (n > remaining) n = remaining;
    if (n == 0)
        return nas_fail(s->ctx, NAS_ERR_INTERNAL, "strategy %s proposes nothing",
                        nas_strategy_name(s->strategy));
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK) status = ask_into(s, n);
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

static nas_told told_from(const nas__study *s, const nas__trial *trial) {
    nas_told told = {
        .trial = trial->row.number, .point = trial->point, .n_values = s->config->n_objectives};
    switch (trial->row.state) {
    case NAS_TRIAL_COMPLETE: told.state = NAS_TOLD_COMPLETE; break;
    case NAS_TRIAL_PRUNED: told.state = NAS_TOLD_PRUNED; break;
    case NAS_TRIAL_FAIL:
    case NAS_TRIAL_WAITING:
    case NAS_TRIAL_RUNNING:
    case NAS_TRIAL_STATE_COUNT: told.state = NAS_TOLD_FAILED; break;
    }
    if (told.state == NAS_TOLD_COMPLETE &&
        !nas__objective_values(s, &trial->row.values, told.values)) {
        told.state = NAS_TOLD_FAILED;
    }
    if (trial->row.values.violation.is_set) told.violation = trial->row.values.violation.value;
    return told;
}

/* Tells [first, n_trials) in order and records how far in the same transaction. */
static nas_status tell_batch(nas__study *s, size_t first) {
    nas_status status = nas_db_begin(s->ctx, s->db);
    for (size_t i = first; i < s->n_trials && status == NAS_OK; i++) {
        if (!s->trials[i].from_strategy) continue;
        const nas_told told = told_from(s, &s->trials[i]);
        status = nas_strategy_tell(s->ctx, s->strategy, &told);
    }
    if (status == NAS_OK) status = save_strategy(s);
    if (status == NAS_OK) status = nas__meta_set_double(s, "told", (double)s->n_trials);
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

/* ---- the phase ---------------------------------------------------------------------------------------------------------------- */

/* Front and predictor from the finished trials of an earlier run. */
static nas_status restore(nas__study *s, size_t *told, size_t *finished) {
    double value = 0;
    bool found = false;
    nas_status status = nas__meta_get_double(s, "told", &value, &found);
    *told = found ? (size_t)value : 0;
    *finished = 0;
    for (size_t i = 0; i < s->n_trials && status == NAS_OK; i++) {
        const nas__trial *trial = &s->trials[i];
        if (!trial->from_strategy || !nas__trial_is_finished(trial)) continue;
        (*finished)++;
        double objectives[NAS_OBJECTIVES_MAX];
        bool joined = false;
        if (trial->row.state == NAS_TRIAL_COMPLETE &&
            nas__objective_values(s, &trial->row.values, objectives)) {
            status = nas_front_add(s->ctx, s->front, trial->row.number, objectives, &joined);
        }
        if (status == NAS_OK) status = learn(s, i);
    }
    if (status == NAS_OK && *finished > 0) status = refit(s);
    return status;
}

nas_status nas__phase_search(nas__study *s) {
    size_t told = 0, finished = 0;
    nas_status status = restore(s, &told, &finished);
    const size_t planned = (size_t)s->config->search.trials;
    nas_point smallest;
    nas_space_smallest(s->space, &smallest);
    s->n_seeds = 1;
    if (status == NAS_OK && strategy_trials(s) == 0)
        status = nas_strategy_seed(s->ctx, s->strategy, &smallest);
    nas__progress_phase(&s->progress, "search", (double)finished, (double)planned);
    while (status == NAS_OK) {
        status = nas_check_cancel(s->ctx);
        if (status == NAS_OK && told == s->n_trials) {
            const size_t asked = strategy_trials(s);
            if (asked >= planned) break;
            if (nas__study_out_of_time(s, 0.62)) {
                nas_log(s->ctx, NAS_LOG_WARN,
                        "the time budget ends the search after %zu of %zu trials", asked, planned);
                break;
            }
            status = ask_batch(s, planned - asked);
            if (status == NAS_ERR_NOTFOUND) { /* every point of the space was tried */
                nas_log(s->ctx, NAS_LOG_WARN,
                        "the space has no untried network left after %zu trials", asked);
                nas_ctx_clear(s->ctx);
                status = NAS_OK;
                break;
            }
        }
        if (status == NAS_OK) status = run_batch(s, told);
        if (status == NAS_OK) status = tell_batch(s, told);
        if (status == NAS_OK) told = s->n_trials;
    }
    if (status == NAS_OK) nas__progress_end(&s->progress);
    return nas_wrap(s->ctx, status, "search");
}
