/* search_phase.c - ask, score, build, measure, tell: one batch after the other.
 *
 * A batch is asked in one transaction with the strategy's state. What certainly misses the deadline ends at once; the
 * others are scored in parallel, and what the front certainly beats ends there (predict.c decides); the rest is built in
 * parallel and measured on the study's devices (schedule.c); then all are told, in order, in one transaction with the new
 * state, and the predictors learn. What is finished is never done again: after a resume the batch that was under way is
 * completed first, from the values in the database where they are there, and with the decisions it would have had. */
#include "search/stored.h"
#include "search/study_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A batch: job i is trial jobs[i].index, built and scored. */
typedef struct batch {
    nas__study *s;
    nas__job *jobs;
    nas__built *built;
    nas_sr_score *scores;
    size_t n;
} batch;

static size_t strategy_trials(const nas__study *s) {
    size_t n = 0;
    for (size_t i = 0; i < s->n_trials; i++)
        n += s->trials[i].from_strategy;
    return n;
}

/* ---- score and build, in parallel ------------------------------------------------------------------------------------- */

/* A failure of one candidate fails that trial; a failure of the machine (disk, memory, cancel) ends the run. */
static bool fails_the_run(nas_status status) {
    return status == NAS_ERR_CANCELLED || status == NAS_ERR_NOMEM || status == NAS_ERR_IO;
}

static nas_status note_failure(nas_ctx *ctx, nas__job *job, nas_status status) {
    if (status == NAS_OK || fails_the_run(status)) return status;
    job->failed = true;
    (void)snprintf(job->reason, sizeof job->reason, "%s", nas_ctx_message(ctx));
    return NAS_OK;
}

/* By the forward pass, before anything is compiled: what is certainly beaten then costs no compiler either. */
static nas_status score(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    batch *b = arg;
    nas_graph *graph = NULL;
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK)
        status = nas_space_decode(ctx, b->s->space, &b->s->trials[b->jobs[i].index].point, &graph);
    if (status == NAS_OK) status = nas_weights_fill(ctx, b->s->weights, graph);
    if (status == NAS_OK) {
        nas_upscale_graph upscale = {.graph = graph, .threads = 1};
        status = nas_sr_score_split(ctx, b->s->data, NAS_SPLIT_SELECT, b->s->config->task.scale,
                                    nas_upscale_by_graph, &upscale, &b->scores[i]);
    }
    nas_graph_free(graph);
    return note_failure(ctx, &b->jobs[i], status);
}

static nas_status build(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    batch *b = arg;
    if (b->jobs[i].failed) return NAS_OK;
    nas_graph *graph = NULL;
    nas_status status = nas_check_cancel(ctx);
    if (status == NAS_OK)
        status = nas_space_decode(ctx, b->s->space, &b->s->trials[b->jobs[i].index].point, &graph);
    if (status == NAS_OK) status = nas__build(ctx, b->s, graph, b->s->weights, &b->built[i]);
    return note_failure(ctx, &b->jobs[i], status);
}

/* ---- measuring --------------------------------------------------------------------------------------------------------- */

static void describe_best(const nas__study *s, char *out, size_t size) {
    size_t best = 0;
    int n = 0;
    if (nas__pick_best(s, &best)) {
        const nas__trial *t = &s->trials[best];
        n = snprintf(out, size, "best %.2f dB at p90", t->row.values.psnr_y_db.value);
        for (int32_t q = 0; q < s->config->n_queues && n > 0 && (size_t)n < size; q++) {
            if (!s->needed[q]) continue;
            const bool several = s->config->n_queues > 1;
            n += snprintf(out + n, size - (size_t)n, " %.1f ms%s%s%s", t->search[q].p90_us * 1e-3,
                          t->search[q].noisy ? "~" : "", several ? " on " : "",
                          several ? nas__queue_name(s, q) : "");
        }
        if (n > 0 && (size_t)n < size)
            n += snprintf(out + n, size - (size_t)n, " (trial %zu)", best);
    } else {
        n = snprintf(out, size, "nothing feasible yet");
    }
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictors[s->first_queue]);
    const nas__skip_counts c = nas__count_skips(s);
    if (n > 0 && (size_t)n < size && q.is_set) {
        (void)snprintf(out + n, size - (size_t)n, "  predictor error %.1f %%, %zu skipped",
                       q.mape * 100, c.infeasible + c.beaten);
    }
}

static nas_status complete(nas__study *s, batch *b, size_t i) {
    const nas__job *j = &b->jobs[i];
    const nas__built *built = &b->built[i];
    const int64_t arena = (int64_t)built->artifacts[nas__first_target(s) - s->targets].arena_bytes;
    const nas_db_values values = {.psnr_y_db = nas_some_double(b->scores[i].psnr_y_db),
                                  .ssim_y = nas_some_double(b->scores[i].ssim_y),
                                  .arena_bytes = nas_some_i64(arena)};
    nas__note_difference(s, built->max_difference);
    const nas_status status = nas__store_layers(s, j->index, built->graph);
    return status == NAS_OK ? nas__trial_finish(s, j->index, NAS_TRIAL_COMPLETE, NULL, &values)
                            : status;
}

static nas_status finish_job(nas__study *s, batch *b, size_t i) {
    const nas__job *j = &b->jobs[i];
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK && j->failed) {
        const nas_db_values none = {0};
        status = nas__trial_finish(s, j->index, NAS_TRIAL_FAIL, j->reason, &none);
        nas_log(s->ctx, NAS_LOG_WARN, "trial %zu failed: %s", j->index, j->reason);
    } else if (status == NAS_OK) {
        status = complete(s, b, i);
    }
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

static nas_status measure_batch(nas__study *s, batch *b) {
    nas_status status = nas__measure_jobs(s, b->jobs, b->n, "search", false);
    for (size_t i = 0; i < b->n && status == NAS_OK; i++) {
        status = finish_job(s, b, i);
        if (status != NAS_OK) break;
        char note[160];
        describe_best(s, note, sizeof note);
        nas__progress_update(&s->progress, s->progress.done + 1, "%s", note);
    }
    if (status == NAS_OK) status = nas__meta_set_double(s, "elapsed_s", nas__study_elapsed_s(s));
    return status;
}

/* ---- one batch ----------------------------------------------------------------------------------------------------------- */

/* Ends a trial that is not worth measuring, or writes down what was foretold of one that is. */
static nas_status settle(nas__study *s, size_t index, const nas__skipping *skip,
                         const nas_sr_score *score) {
    nas_status status = nas_db_begin(s->ctx, s->db);
    if (status == NAS_OK) status = nas__predictor_store(s, index, skip->skip);
    if (status == NAS_OK && skip->skip) {
        nas_db_values values = {0};
        if (!skip->beaten) values.violation = nas_some_double(skip->violation);
        if (score != NULL) {
            values.psnr_y_db = nas_some_double(score->psnr_y_db);
            values.ssim_y = nas_some_double(score->ssim_y);
        }
        status = nas__trial_finish(s, index, NAS_TRIAL_PRUNED, skip->reason, &values);
        s->progress.done += 1;
    }
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

/* Starts the unfinished trials of [first, n_trials); those that certainly miss the deadline end here. */
static nas_status start_jobs(nas__study *s, size_t first, batch *b) {
    nas_status status = NAS_OK;
    for (size_t i = first; i < s->n_trials && status == NAS_OK; i++) {
        if (!s->trials[i].from_strategy || nas__trial_is_finished(&s->trials[i])) continue;
        status = nas_db_begin(s->ctx, s->db);
        if (status == NAS_OK) status = nas__trial_start(s, i);
        if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
        if (status != NAS_OK) nas_db_rollback(s->db);
        if (status == NAS_OK) status = nas__predictor_foretell(s, i);
        if (status != NAS_OK) break;
        nas__skipping skip;
        nas__decide_feasible(s, i, &skip);
        if (skip.skip) {
            status = settle(s, i, &skip, NULL);
        } else {
            b->jobs[b->n++].index = i;
        }
    }
    return status;
}

/* Of the scored ones, those that the front certainly beats end here; the others are closed up. */
static nas_status drop_beaten(nas__study *s, batch *b) {
    nas__rivals rivals = {0};
    nas_status status = nas__rivals_of(s, &rivals);
    size_t kept = 0;
    for (size_t i = 0; i < b->n && status == NAS_OK; i++) {
        nas__skipping skip = {0};
        if (!b->jobs[i].failed)
            nas__decide_beaten(s, b->jobs[i].index, &b->scores[i], &rivals, &skip);
        status = settle(s, b->jobs[i].index, &skip, skip.skip ? &b->scores[i] : NULL);
        if (skip.skip) continue;
        b->scores[kept] = b->scores[i];
        b->jobs[kept++] = b->jobs[i];
    }
    b->n = status == NAS_OK ? kept : b->n;
    for (size_t i = 0; i < b->n; i++)
        b->jobs[i].built = &b->built[i];
    nas__rivals_deinit(&rivals);
    return status;
}

/* Trials of an earlier run that finished in [first, end). */
static nas_status join_front(nas__study *s, size_t first, size_t end) {
    nas_status status = NAS_OK;
    for (size_t i = first; i < end && status == NAS_OK; i++) {
        const nas__trial *trial = &s->trials[i];
        double objectives[NAS_OBJECTIVES_MAX];
        bool joined = false;
        const nas__figures figures = nas__search_figures(trial);
        if (trial->from_strategy && trial->row.state == NAS_TRIAL_COMPLETE &&
            nas__objective_values(s, &figures, objectives))
            status = nas_front_add(s->ctx, s->front, trial->row.number, objectives, &joined);
    }
    return status;
}

static nas_status run_batch(nas__study *s, size_t first) {
    const size_t max = s->n_trials - first;
    batch b = {.s = s,
               .jobs = nas_alloc_array(s->ctx, max, sizeof *b.jobs),
               .built = nas_alloc_array(s->ctx, max, sizeof *b.built),
               .scores = nas_alloc_array(s->ctx, max, sizeof *b.scores)};
    nas_status status =
        b.jobs == NULL || b.built == NULL || b.scores == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = start_jobs(s, first, &b);
    if (status == NAS_OK) status = nas_parallel(s->ctx, s->config->eval.threads, b.n, score, &b);
    if (status == NAS_OK) status = drop_beaten(s, &b);
    if (status == NAS_OK) status = join_front(s, first, s->n_trials);
    if (status == NAS_OK) status = nas_parallel(s->ctx, s->config->eval.threads, b.n, build, &b);
    if (status == NAS_OK) status = measure_batch(s, &b);
    for (size_t i = 0; b.built != NULL && i < b.n; i++)
        nas__built_deinit(&b.built[i]);
    nas_free(b.scores);
    nas_free(b.built);
    nas_free(b.jobs);
    return status;
}

/* ---- strategy -------------------------------------------------------------------------------------------------------------- */

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
    if (status == NAS_OK) status = nas__strategy_store(s->ctx, s->db, s->id, s->strategy);
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
    const nas__figures figures = nas__search_figures(trial);
    if (told.state == NAS_TOLD_COMPLETE && !nas__objective_values(s, &figures, told.values)) {
        told.state = NAS_TOLD_FAILED;
    }
    if (trial->row.values.violation.is_set) told.violation = trial->row.values.violation.value;
    return told;
}

/* What v_front shows of a study with several queues. */
static nas_status store_front(nas__study *s) {
    const size_t n = nas_front_size(s->front);
    int64_t *ids = nas_alloc_array(s->ctx, n, sizeof *ids);
    if (ids == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++)
        ids[i] = s->trials[(size_t)nas_front_trial(s->front, i)].row.id;
    const nas_status status = nas_db_study_set_front(s->ctx, s->db, s->id, ids, n);
    nas_free(ids);
    return status;
}

/* Tells [first, n_trials) in order and records how far in the same transaction. */
static nas_status tell_batch(nas__study *s, size_t first) {
    nas_status status = nas_db_begin(s->ctx, s->db);
    for (size_t i = first; i < s->n_trials && status == NAS_OK; i++) {
        if (!s->trials[i].from_strategy) continue;
        const nas_told told = told_from(s, &s->trials[i]);
        status = nas_strategy_tell(s->ctx, s->strategy, &told);
    }
    if (status == NAS_OK) status = nas__strategy_store(s->ctx, s->db, s->id, s->strategy);
    if (status == NAS_OK) status = store_front(s);
    if (status == NAS_OK) status = nas__predictor_note_drift(s);
    if (status == NAS_OK) status = nas__meta_set_double(s, "told", (double)s->n_trials);
    if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
    if (status != NAS_OK) nas_db_rollback(s->db);
    return status;
}

/* ---- the phase ---------------------------------------------------------------------------------------------------------------- */

/* Front and predictor from the finished trials of an earlier run, as they were when the batch under way began. */
static nas_status restore(nas__study *s, size_t *told, size_t *finished) {
    double value = 0;
    bool found = false;
    nas_status status = nas__meta_get_double(s, "told", &value, &found);
    *told = found ? (size_t)value : 0;
    *finished = 0;
    for (size_t i = 0; i < s->n_trials; i++)
        *finished += s->trials[i].from_strategy && nas__trial_is_finished(&s->trials[i]);
    if (status == NAS_OK) status = join_front(s, 0, *told);
    if (status == NAS_OK) status = nas__predictor_load_drift(s);
    if (status == NAS_OK) status = nas__predictor_learn_earlier(s);
    if (status == NAS_OK) status = nas__predictor_learn(s, 0, *told);
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
        if (status == NAS_OK) status = nas__predictor_learn(s, told, s->n_trials);
        if (status == NAS_OK) told = s->n_trials;
    }
    if (status == NAS_OK) nas__progress_end(&s->progress);
    return nas_wrap(s->ctx, status, "search");
}
