/* compress_final.c - front members are fine-tuned with the original as teacher, or their layers compressed in turn; then compiled
 * and timed again, and scored on REPORT images. The original, fine-tuned in the same way where that is done, is the baseline
 * that losses are counted from. */
#include "search/compress_levels.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int nas__comp_by_top1(const void *a, const void *b) {
    const nas__comp_place *x = a, *y = b;
    if (x->top1 != y->top1) return x->top1 > y->top1 ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

/* The front of the feasible trials: with a bound on something that is no objective, the front of all has none of them. */
static nas_status feasible_front(nas__comp *c, nas_front **out) {
    nas_status status = nas_front_new(c->ctx, c->config->n_objectives, out);
    for (size_t i = 0; i < c->n_trials && status == NAS_OK; i++) {
        const nas__comp_trial *t = &c->trials[i];
        double objectives[NAS_OBJECTIVES_MAX];
        bool joined = false;
        if (!t->from_strategy || t->row.state != NAS_TRIAL_COMPLETE) continue;
        if (nas__comp_violation(c, t, false) > 0 || !nas__comp_objectives(c, t, objectives))
            continue;
        status = nas_front_add(c->ctx, *out, t->row.number, objectives, &joined);
    }
    return status;
}

/* Members of a front, at most finetune_max: spread evenly from the most accurate, which is always one, to the least. */
static nas_status spread(nas__comp *c, const nas_front *front, nas__comp_place **out,
                         size_t *n_out) {
    const size_t n = nas_front_size(front), limit = (size_t)c->config->eval.finetune_max;
    nas__comp_place *list = nas_alloc_array(c->ctx, n, sizeof *list);
    if (list == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < n; i++) {
        list[i] = (nas__comp_place){.index = (size_t)nas_front_trial(front, i)};
        (void)nas__comp_metric(&c->trials[list[i].index], NAS_METRIC_TOP1, false,
                               &list[i].top1); /* else 0: last */
    }
    if (n > 1) qsort(list, n, sizeof *list, nas__comp_by_top1);
    for (size_t i = 1; i < limit && n > limit; i++)
        list[i] = list[i * (n - 1) / (limit - 1)];
    *out = list;
    *n_out = n < limit ? n : limit;
    return NAS_OK;
}

/* Of the feasible front, or of the front of all when nothing is feasible. */
static nas_status choose(nas__comp *c, nas__comp_place **out, size_t *n_out) {
    nas_front *feasible = NULL;
    nas_status status = feasible_front(c, &feasible);
    if (status == NAS_OK)
        status = spread(c, nas_front_size(feasible) > 0 ? feasible : c->front, out, n_out);
    nas_front_free(feasible);
    return status;
}

static nas_status record(nas__comp *c, size_t index, const nas_db_values *timed) {
    nas__comp_trial *t = &c->trials[index];
    nas_db_values *v = &t->row.values;
    v->final_latency_p50_us = timed->latency_p50_us;
    v->final_latency_p50_lo_us = timed->latency_p50_lo_us;
    v->final_latency_p50_hi_us = timed->latency_p50_hi_us;
    v->final_latency_p90_us = timed->latency_p90_us;
    v->final_violation = nas_some_double(nas__comp_violation(c, t, true));
    const nas_db_values final = {.final_latency_p50_us = v->final_latency_p50_us,
                                 .final_latency_p50_lo_us = v->final_latency_p50_lo_us,
                                 .final_latency_p50_hi_us = v->final_latency_p50_hi_us,
                                 .final_latency_p90_us = v->final_latency_p90_us,
                                 .final_violation = v->final_violation};
    nas_status status = nas_db_begin(c->ctx, c->db);
    if (status == NAS_OK) status = nas_db_class_values_put(c->ctx, c->db, t->row.id, &t->top1);
    if (status == NAS_OK) status = nas_db_trial_set_final(c->ctx, c->db, t->row.id, &final);
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    return status;
}

/* Scores of a tuned network, its ONNX file, its time. */
static nas_status finish(nas__comp *c, size_t index, const nas_graph *graph) {
    nas__comp_trial *t = &c->trials[index];
    double reward = 0, report = 0;
    char name[48], path[NAS__COMP_PATH_MAX];
    nas_db_values timed = {0};
    (void)snprintf(name, sizeof name, "tuned/%zu.onnx", index);
    nas_status status = nas__comp_top1(c, graph, NAS_CLASS_REWARD, &reward);
    if (status == NAS_OK) status = nas__comp_top1(c, graph, NAS_CLASS_REPORT, &report);
    if (status == NAS_OK) status = nas__comp_path(c, name, path);
    if (status == NAS_OK) status = nas_onnx_export(c->ctx, graph, path);
    if (status == NAS_OK) status = nas__comp_measure(c, graph, index, "final", true, &timed);
    if (status != NAS_OK) return status;
    t->top1.tuned_reward_top1 = nas_some_double(reward);
    t->top1.report_top1 = nas_some_double(report);
    t->row.values.final_latency_p50_us = timed.latency_p50_us; /* the recipe tells it */
    if (c->levels != NULL && t->from_strategy) status = nas__levels_keep(c, index, graph);
    return status == NAS_OK ? record(c, index, &timed) : status;
}

static bool is_final(const nas__comp_trial *t) {
    return t->row.values.final_latency_p50_us.is_set; /* of an earlier start */
}

/* take_tuned: NULL, or the network after a short tuning, from which it goes on. */
static nas_status tune_finalist(nas__comp *c, size_t index, size_t number, size_t n,
                                nas_graph *take_tuned) {
    nas__comp_trial *t = &c->trials[index];
    nas_graph *graph = take_tuned;
    if (is_final(t)) {
        nas_graph_free(graph);
        return NAS_OK;
    }
    char label[48];
    (void)snprintf(label, sizeof label, "%s %zu of %zu",
                   c->channels == NULL ? "final networks" : "fine-tuning", number + 1, n);
    nas_status status = nas_check_cancel(c->ctx);
    if (status == NAS_OK && !t->from_strategy && c->channels == NULL) {
        status = nas_graph_clone(c->ctx, c->model, &graph);
    } else if (status == NAS_OK && !t->from_strategy) {
        status = nas__comp_tuned_original(c, label, &graph);
    } else if (status == NAS_OK && c->levels != NULL) {
        nas__progress_phase(&c->progress, label, 0, 1);
        status = nas__levels_final(c, index, &graph);
    } else if (status == NAS_OK && graph != NULL) {
        status = nas__comp_tune(c, graph, label, index);
    } else if (status == NAS_OK) {
        c->refits = c->config->compress.refit;
        status = nas_space_decode(c->ctx, c->space, &t->point, &graph);
        c->refits = false;
        if (status == NAS_OK) status = nas__comp_tune(c, graph, label, index);
    }
    if (status == NAS_OK) status = finish(c, index, graph);
    nas_graph_free(graph);
    return nas_wrap(c->ctx, status, "final figures of trial %zu", index);
}

static nas_status tune_front(nas__comp *c) {
    nas__comp_place *list = NULL;
    size_t n = 0;
    nas_status status = choose(c, &list, &n);
    if (status == NAS_OK) status = tune_finalist(c, 0, 0, n + 1, NULL);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = tune_finalist(c, list[i].index, i + 1, n + 1, NULL);
    nas_free(list);
    return status;
}

/* The one that a short tuning chooses, unless an earlier start has finished it. */
static nas_status tune_chosen(nas__comp *c) {
    nas_graph *graph = NULL;
    size_t index = 0;
    nas_status status = tune_finalist(c, 0, 0, 2, NULL);
    for (size_t i = 1; i < c->n_trials && status == NAS_OK; i++) {
        if (is_final(&c->trials[i])) return NAS_OK;
    }
    if (status == NAS_OK) status = nas__comp_finalist(c, &index, &graph);
    return status == NAS_OK ? tune_finalist(c, index, 1, 2, graph) : status;
}

nas_status nas__comp_final(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX];
    nas_status status = nas__comp_path(c, "tuned", path);
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, path);
    if (status != NAS_OK) return status;
    /* the original first: trial 0 */
    return c->config->compress.finalists > 0 ? tune_chosen(c) : tune_front(c);
}
