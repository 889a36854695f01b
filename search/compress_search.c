/* compress_search.c - ask, evaluate, tell. A batch is asked in one transaction with the strategy's state and told in another,
 * so that a killed run continues without losing or repeating a proposal. */
#include "search/compress_joint.h"
#include "search/stored.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_finished(const nas__comp_trial *t) {
    return t->row.state == NAS_TRIAL_COMPLETE || t->row.state == NAS_TRIAL_PRUNED ||
           t->row.state == NAS_TRIAL_FAIL;
}

static size_t strategy_trials(const nas__comp *c) {
    size_t n = 0;
    for (size_t i = 0; i < c->n_trials; i++)
        n += c->trials[i].from_strategy;
    return n;
}

static nas_status ask_into(nas__comp *c, size_t n) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        nas_point point;
        nas_graph *graph = NULL;
        size_t index = 0;
        status = nas_strategy_ask(c->ctx, c->strategy, &point);
        if (status == NAS_ERR_NOTFOUND && i > 0) { /* the space is used up: a shorter, last batch */
            nas_ctx_clear(c->ctx);
            status = NAS_OK;
            break;
        }
        c->shapes_only = true; /* a row has extents and costs */
        if (status == NAS_OK) status = nas_space_decode(c->ctx, c->space, &point, &graph);
        c->shapes_only = false;
        if (status == NAS_OK) status = nas__comp_add(c, &point, graph, "strategy", &index);
        nas_graph_free(graph);
    }
    if (status == NAS_OK) status = nas__strategy_store(c->ctx, c->db, c->id, c->strategy);
    return status;
}

static nas_status ask_batch(nas__comp *c, size_t remaining) {
    size_t n = (size_t)nas_strategy_ready(c->strategy);
    const size_t population = (size_t)c->config->search.options.population;
    if (n > population) n = population;
    if (n > remaining) n = remaining;
    nas_status status = nas_db_begin(c->ctx, c->db);
    if (status == NAS_OK) status = ask_into(c, n);
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    return status;
}

/* Objectives, with an estimate in place of a latency that was not measured. */
static bool told_values(const nas__comp *c, const nas__comp_trial *t, double *values) {
    for (int32_t i = 0; i < c->config->n_objectives; i++) {
        const nas_metric metric = c->config->objectives[i].metric;
        double value = 0;
        if (!nas__comp_metric(t, metric, false, &value) &&
            !nas__comp_estimate(c, (size_t)t->row.number, metric, &value))
            return false;
        if (!isfinite(value)) return false;
        values[i] = nas_metric_maximise(metric) ? -value : value;
    }
    return true;
}

static nas_told told_from(const nas__comp *c, const nas__comp_trial *t) {
    nas_told told = {.trial = t->row.number,
                     .point = t->point,
                     .n_values = c->config->n_objectives,
                     .state = NAS_TOLD_COMPLETE};
    if (t->row.state != NAS_TRIAL_COMPLETE || !told_values(c, t, told.values))
        told.state = NAS_TOLD_FAILED;
    if (t->row.values.violation.is_set) told.violation = t->row.values.violation.value;
    return told;
}

static nas_status tell_batch(nas__comp *c, size_t first) {
    char text[32];
    (void)snprintf(text, sizeof text, "%zu", c->n_trials);
    nas_status status = nas_db_begin(c->ctx, c->db);
    for (size_t i = first; i < c->n_trials && status == NAS_OK; i++) {
        if (!c->trials[i].from_strategy) continue;
        const nas_told told = told_from(c, &c->trials[i]);
        status = nas_strategy_tell(c->ctx, c->strategy, &told);
    }
    if (status == NAS_OK) status = nas__strategy_store(c->ctx, c->db, c->id, c->strategy);
    if (status == NAS_OK) status = nas_db_meta_set(c->ctx, c->db, c->id, "told", text);
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    return status;
}

static void show_best(nas__comp *c) {
    const nas_metric share = c->levels != NULL ? NAS_METRIC_WEIGHT_BYTES : NAS_METRIC_MACS;
    double best = -1, left = 0;
    for (size_t i = 0; i < c->n_trials; i++) {
        const nas__comp_trial *t = &c->trials[i];
        double top1 = 0;
        if (!t->from_strategy || t->row.state != NAS_TRIAL_COMPLETE) continue;
        if (nas__comp_violation(c, t, false) > 0) continue;
        if (!nas__comp_metric(t, NAS_METRIC_TOP1, false, &top1) || top1 <= best) continue;
        best = top1;
        (void)nas__comp_metric(t, share, false, &left); /* of every trial */
    }
    if (best < 0) {
        nas__progress_update(&c->progress, c->progress.done + 1, "none feasible yet");
    } else {
        nas__progress_update(&c->progress, c->progress.done + 1,
                             "best %.1f %% with %.1f %% of the %s", best,
                             100 * left / c->baseline[share], c->levels != NULL ? "bytes" : "MACs");
    }
}

static nas_status run_batch(nas__comp *c, size_t first) {
    nas_status status = NAS_OK;
    for (size_t i = first; i < c->n_trials && status == NAS_OK; i++) {
        if (!c->trials[i].from_strategy || is_finished(&c->trials[i])) continue;
        nas_graph *graph = NULL;
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK)
            status = nas_space_decode(c->ctx, c->space, &c->trials[i].point, &graph);
        if (status == NAS_OK && c->levels != NULL)
            status = nas__levels_code(c, NAS__LEVEL_SAMPLE, &c->trials[i].point, &graph);
        if (status == NAS_OK) status = nas__comp_evaluate(c, i, graph, "search");
        nas_graph_free(graph);
        if (status == NAS_OK) show_best(c);
    }
    return status;
}

/* What an earlier start had told, and its front. */
static nas_status restore(nas__comp *c, size_t *told, size_t *finished) {
    char *text = NULL;
    nas_status status = nas_db_meta_get(c->ctx, c->db, c->id, "told", &text);
    *told = status == NAS_OK ? (size_t)strtoul(text, NULL, 10) : 0;
    nas_free(text);
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(c->ctx);
        status = NAS_OK;
    }
    *finished = 0;
    for (size_t i = 0; i < c->n_trials && status == NAS_OK; i++) {
        double objectives[NAS_OBJECTIVES_MAX];
        bool joined = false;
        if (!c->trials[i].from_strategy || !is_finished(&c->trials[i])) continue;
        (*finished)++;
        if (nas__comp_objectives(c, &c->trials[i], objectives))
            status = nas_front_add(c->ctx, c->front, c->trials[i].row.number, objectives, &joined);
    }
    return status;
}

static bool out_of_time(const nas__comp *c) {
    const double spent = (double)(nas_now_ns() - c->started_ns) * 1e-9;
    return c->config->budget.time_s > 0 && spent > 0.6 * c->config->budget.time_s;
}

static void log_timed(const nas__comp *c) {
    size_t timed = 0;
    for (size_t i = 0; i < c->n_trials; i++)
        timed += c->trials[i].from_strategy && c->trials[i].row.values.latency_p50_us.is_set;
    nas_log(c->ctx, NAS_LOG_INFO, "%zu of %zu candidates were compiled and timed", timed,
            strategy_trials(c));
    if (c->levels == NULL || c->levels->joint == NULL) return;
    nas_log(c->ctx, NAS_LOG_INFO, "%zu layers were asked for, %zu of them compressed",
            c->levels->joint->asked, c->levels->joint->compressed);
}

/* The same share everywhere; for layers what rules and losses say, too. */
static nas_status seed(nas__comp *c) {
    nas_point first;
    if (c->levels != NULL) return c->channels != NULL ? nas__joint_seed(c) : nas__levels_seed(c);
    nas_space_largest(c->space, &first);
    return nas_strategy_seed(c->ctx, c->strategy, &first);
}

nas_status nas__comp_search(nas__comp *c) {
    size_t told = 0, finished = 0;
    nas_status status = restore(c, &told, &finished);
    const size_t planned = (size_t)c->config->search.trials;
    if (status == NAS_OK && strategy_trials(c) == 0) status = seed(c);
    nas__progress_phase(&c->progress, "search", (double)finished, (double)planned);
    while (status == NAS_OK) {
        const size_t asked = strategy_trials(c);
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK && told == c->n_trials) {
            if (asked >= planned) break;
            if (out_of_time(c)) {
                nas_log(c->ctx, NAS_LOG_WARN,
                        "the time budget ends the search after %zu of %zu trials", asked, planned);
                break;
            }
            status = ask_batch(c, planned - asked);
            if (status == NAS_ERR_NOTFOUND) {
                nas_log(c->ctx, NAS_LOG_WARN,
                        "the space has no untried network left after %zu trials", asked);
                nas_ctx_clear(c->ctx);
                status = NAS_OK;
                break;
            }
        }
        if (status == NAS_OK) status = run_batch(c, told);
        if (status == NAS_OK) status = tell_batch(c, told);
        if (status == NAS_OK) told = c->n_trials;
    }
    if (status == NAS_OK) {
        nas__progress_end(&c->progress);
        log_timed(c);
    }
    return nas_wrap(c->ctx, status, "search");
}
