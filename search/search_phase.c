/* search_phase.c - ask, build and score, measure, tell: one batch after the other.
 *
 * A batch is asked in one transaction with the strategy's state; its trials are built and scored in parallel; then they
 * are measured on the study's devices (schedule.c); then all are told, in order, in one transaction with the new state. What is finished is never done again: after a resume the batch that was under way is completed
 * first, from the values in the database where they are there. */
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

/* ---- predictor -------------------------------------------------------------------------------------------------------- */

/* Every queue has a predictor of its own: what is slow here need not be slow there. */
static nas_status learn(nas__study *s, size_t index) {
    const nas__trial *trial = &s->trials[index];
    nas_graph *graph = NULL;
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        const nas__latency *l = &trial->search[q];
        if (!trial->from_strategy || !l->is_set || s->predictors[q] == NULL) continue;
        if (graph == NULL) status = nas__study_decode(s, &trial->point, &graph);
        if (status == NAS_OK)
            status = nas_predictor_add(s->ctx, s->predictors[q], graph, l->p50_us, l->noisy);
    }
    nas_graph_free(graph);
    return status;
}

static nas_status note_quality(nas__study *s, int32_t queue) {
    const nas_predictor_quality q = nas_predictor_quality_of(s->predictors[queue]);
    if (!q.is_set) return NAS_OK;
    const struct {
        const char *name;
        double value;
    } rows[] = {{"predictor_mape", q.mape},
                {"predictor_spearman", q.spearman},
                {"predictor_rows", (double)q.n_train}};
    nas_status status = NAS_OK;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0] && status == NAS_OK; i++) {
        char key[NAS_DEVICE_NAME_MAX + 32];
        const bool first = queue == s->first_queue;
        (void)snprintf(key, sizeof key, "%s%s%s", rows[i].name, first ? "" : "@",
                       first ? "" : nas__queue_name(s, queue));
        status = nas__meta_set_double(s, key, rows[i].value);
    }
    return status;
}

static nas_status refit(nas__study *s) {
    nas_status status = NAS_OK;
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        size_t rows = 0;
        for (size_t i = 0; i < s->n_trials; i++)
            rows += s->trials[i].from_strategy && s->trials[i].search[q].is_set;
        if (s->predictors[q] == NULL || rows < nas_predictor_min_rows()) continue;
        status = nas_predictor_fit(s->ctx, s->predictors[q]);
        if (status == NAS_OK) status = note_quality(s, q);
    }
    return status;
}

/* Smallest absolute upper bound on a queue's latency, in us; INFINITY when there is none. */
static double latency_bound_us(const nas__study *s, int32_t queue) {
    double lowest = INFINITY;
    for (int32_t i = 0; i < s->config->n_constraints; i++) {
        const nas_constraint *c = &s->config->constraints[i];
        double bound_ms = 0;
        if (nas_metric_is_timed(c->metric) && c->queue == queue && c->at_most &&
            nas__constraint_bound(s, c, &bound_ms))
            lowest = fmin(lowest, bound_ms * 1e3);
    }
    return lowest;
}

/* A candidate that is skipped: why, and by how much it misses the bounds. */
typedef struct skipping {
    bool skip;
    char reason[NAS__REASON_MAX];
    double violation;
} skipping;

static nas_status predict_in(nas__study *s, size_t index, const nas_graph *graph, int32_t queue,
                             skipping *skip) {
    const nas_predictor *predictor = s->predictors[queue];
    nas_prediction p = {0};
    const nas_status status = nas_predictor_predict(s->ctx, predictor, graph, &p);
    if (status != NAS_OK) return status;
    const double bound = latency_bound_us(s, queue);
    const bool misses = s->config->search.skip_by_prediction &&
                        p.lo_us > bound * (1 + s->config->search.skip_margin);
    if (misses) {
        skip->skip = true;
        skip->violation += p.lo_us / bound - 1;
        const bool several = s->config->n_queues > 1;
        (void)snprintf(skip->reason, sizeof skip->reason,
                       "predicted %.1f ms [%.1f, %.1f]%s%s, bound %.1f ms", p.p50_us * 1e-3,
                       p.lo_us * 1e-3, p.hi_us * 1e-3, several ? " on " : "",
                       several ? nas__queue_name(s, queue) : "", bound * 1e-3);
    }
    const nas_db_prediction row = {.trial_id = s->trials[index].row.id,
                                   .device_id = nas__queue_device_id(s, queue),
                                   .predictor = nas_predictor_id(predictor),
                                   .p50_us = p.p50_us,
                                   .lo_us = p.lo_us,
                                   .hi_us = p.hi_us,
                                   .decided = misses};
    return nas_db_prediction_insert(s->ctx, s->db, &row);
}

/* Stores the predictions made before measuring; skips when the lower end of one misses its deadline by the margin. */
static nas_status predict(nas__study *s, size_t index, skipping *skip) {
    nas_graph *graph = NULL;
    nas_status status = NAS_OK;
    *skip = (skipping){0};
    for (int32_t q = 0; q < s->config->n_queues && status == NAS_OK; q++) {
        if (s->predictors[q] == NULL || !nas_predictor_quality_of(s->predictors[q]).is_set)
            continue;
        if (graph == NULL) status = nas__study_decode(s, &s->trials[index].point, &graph);
        if (status == NAS_OK) status = predict_in(s, index, graph, q, skip);
    }
    nas_graph_free(graph);
    return status;
}

/* ---- build and score, in parallel ------------------------------------------------------------------------------------- */

/* A failure of one candidate fails that trial; a failure of the machine (disk, memory, cancel) ends the run. */
static bool fails_the_run(nas_status status) {
    return status == NAS_ERR_CANCELLED || status == NAS_ERR_NOMEM || status == NAS_ERR_IO;
}

static nas_status build_and_score(nas_ctx *ctx, void *arg, size_t i, int worker) {
    (void)worker;
    batch *b = arg;
    nas__job *j = &b->jobs[i];
    nas_status status = nas_check_cancel(ctx);
    nas_graph *graph = NULL;
    if (status == NAS_OK)
        status = nas_space_decode(ctx, b->s->space, &b->s->trials[j->index].point, &graph);
    if (status == NAS_OK) status = nas__build(ctx, b->s, graph, b->s->weights, &b->built[i]);
    if (status == NAS_OK) {
        nas_upscale_graph upscale = {.graph = b->built[i].graph, .threads = 1};
        status = nas_sr_score_split(ctx, b->s->data, NAS_SPLIT_SELECT, b->s->config->task.scale,
                                    nas_upscale_by_graph, &upscale, &b->scores[i]);
    }
    if (status == NAS_OK || fails_the_run(status)) return status;
    j->failed = true;
    (void)snprintf(j->reason, sizeof j->reason, "%s", nas_ctx_message(ctx));
    return NAS_OK;
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
    if (n > 0 && (size_t)n < size && q.is_set) {
        (void)snprintf(out + n, size - (size_t)n, "  predictor error %.1f %%", q.mape * 100);
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
    if (status == NAS_OK) status = learn(s, j->index);
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
        skipping skip = {0};
        if (status == NAS_OK) status = predict(s, i, &skip);
        if (status == NAS_OK && skip.skip) {
            const nas_db_values values = {.violation = nas_some_double(skip.violation)};
            status = nas__trial_finish(s, i, NAS_TRIAL_PRUNED, skip.reason, &values);
            s->progress.done += 1;
        }
        if (status == NAS_OK) status = nas_db_commit(s->ctx, s->db);
        if (status != NAS_OK) {
            nas_db_rollback(s->db);
        } else if (!skip.skip) {
            b->jobs[b->n] = (nas__job){.index = i, .built = &b->built[b->n]};
            b->n++;
        }
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
    if (status == NAS_OK)
        status = nas_parallel(s->ctx, s->config->eval.threads, b.n, build_and_score, &b);
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
        const nas__figures figures = nas__search_figures(trial);
        if (trial->row.state == NAS_TRIAL_COMPLETE &&
            nas__objective_values(s, &figures, objectives)) {
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
