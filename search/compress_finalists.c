/* compress_finalists.c - the best proposals of a search are fine-tuned for a while, on the same images, and the one that answers
 * best then goes on: which network is best before tuning says little of which is best after it. */
#include "search/compress_levels.h"
#include "search/oneshot.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Scored proposals without repetition, feasible ones if there are any; the most accurate first, at most compress.finalists. */
static nas_status choose(nas__comp *c, nas__comp_place **out, size_t *n_out) {
    const size_t most = (size_t)c->config->compress.finalists;
    nas__comp_place *list = nas_alloc_array(c->ctx, c->n_trials, sizeof *list);
    size_t n = 0, kept = 0;
    if (list == NULL) return NAS_ERR_NOMEM;
    for (int pass = 0; pass < 2 && n == 0; pass++) {
        for (size_t i = 0; i < c->n_trials; i++) {
            const nas__comp_trial *t = &c->trials[i];
            double top1 = 0;
            if (!t->from_strategy || t->row.state != NAS_TRIAL_COMPLETE) continue;
            if (!nas__comp_metric(t, NAS_METRIC_TOP1, false, &top1)) continue;
            if (pass == 0 && nas__comp_violation(c, t, false) > 0) continue;
            list[n++] = (nas__comp_place){.index = i, .top1 = top1};
        }
    }
    if (n > 1) qsort(list, n, sizeof *list, nas__comp_by_top1);
    for (size_t i = 0; i < n && kept < most; i++) {
        bool is_new = true;
        for (size_t k = 0; k < kept && is_new; k++)
            is_new =
                strcmp(c->trials[list[k].index].row.point, c->trials[list[i].index].row.point) != 0;
        if (is_new) list[kept++] = list[i];
    }
    *out = list;
    *n_out = kept;
    return NAS_OK;
}

static nas_status path_of(nas__comp *c, size_t index, char path[NAS__COMP_PATH_MAX]) {
    char file[32];
    (void)snprintf(file, sizeof file, "%zu.onnx", index);
    return nas__comp_path_in(c, "finalists", file, path);
}

static nas_status cross_entropy(nas__comp *c, const nas_graph *graph, double *out) {
    nas_oneshot view = {.options = nas_oneshot_options_default(), .data = c->data};
    nas_oneshot_score score = {0};
    view.options.threads = c->config->eval.threads;
    const nas_status status = nas_oneshot_evaluate(c->ctx, &view, graph, NAS_CLASS_REWARD, &score);
    if (status != NAS_OK) return status;
    if (!isfinite(score.cross_entropy))
        return nas_fail(c->ctx, NAS_ERR_INTERNAL, "the cross-entropy is not finite");
    *out = score.cross_entropy;
    return NAS_OK;
}

static nas_status record(nas__comp *c, size_t index, double value) {
    nas__comp_trial *t = &c->trials[index];
    t->top1.finalist_cross_entropy = nas_some_double(value);
    nas_status status = nas_db_begin(c->ctx, c->db);
    if (status == NAS_OK) status = nas_db_class_values_put(c->ctx, c->db, t->row.id, &t->top1);
    if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
    if (status != NAS_OK) nas_db_rollback(c->db);
    return status;
}

/* The file is there before the figure is. */
static nas_status tune(nas__comp *c, size_t index, size_t number, size_t n) {
    char label[64], path[NAS__COMP_PATH_MAX];
    double value = 0;
    nas_graph *graph = NULL;
    (void)snprintf(label, sizeof label, "finalist %zu of %zu", number + 1, n);
    nas_status status = nas_check_cancel(c->ctx);
    if (status == NAS_OK) status = path_of(c, index, path);
    if (status != NAS_OK) return status;
    if (c->trials[index].top1.finalist_cross_entropy.is_set && nas_file_exists(path)) {
        nas_log(c->ctx, NAS_LOG_INFO, "%s was tuned before: trial %zu", label, index);
        return NAS_OK;
    }
    c->refits = c->config->compress.refit;
    status = nas_space_decode(c->ctx, c->space, &c->trials[index].point, &graph);
    c->refits = false;
    if (status == NAS_OK) status = nas__comp_tune_finalist(c, graph, label, index);
    if (status == NAS_OK) status = cross_entropy(c, graph, &value);
    if (status == NAS_OK) status = nas_onnx_export(c->ctx, graph, path);
    if (status == NAS_OK) status = record(c, index, value);
    if (status == NAS_OK)
        nas_log(c->ctx, NAS_LOG_INFO, "%s: trial %zu, cross-entropy %.4f after %d steps", label,
                index, value, (int)c->config->compress.finalist_steps);
    nas_graph_free(graph);
    return nas_wrap(c->ctx, status, "finalist, trial %zu", index);
}

static size_t least(const nas__comp *c, const nas__comp_place *list, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++) {
        if (c->trials[list[i].index].top1.finalist_cross_entropy.value <
            c->trials[list[best].index].top1.finalist_cross_entropy.value)
            best = i;
    }
    return best;
}

/* The chosen one, from its file: what goes on is the same after an interruption. */
static nas_status load(nas__comp *c, size_t index, nas_graph **out) {
    const nas_onnx_import_options as_is = nas_onnx_import_options_default();
    char path[NAS__COMP_PATH_MAX];
    const nas_status status = path_of(c, index, path);
    return status == NAS_OK ? nas_onnx_import(c->ctx, path, &as_is, out) : status;
}

nas_status nas__comp_finalist(nas__comp *c, size_t *index, nas_graph **out) {
    nas__comp_place *list = NULL;
    size_t n = 0;
    char path[NAS__COMP_PATH_MAX];
    nas_status status = choose(c, &list, &n);
    if (status == NAS_OK && n == 0)
        status = nas_fail(c->ctx, NAS_ERR_NOTFOUND, "no proposal was scored: raise search.trials");
    if (status == NAS_OK) status = nas__comp_path(c, "finalists", path);
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, path);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = tune(c, list[i].index, i, n);
    if (status == NAS_OK) {
        *index = list[least(c, list, n)].index;
        nas_log(c->ctx, NAS_LOG_INFO, "trial %zu goes on, for %d of %d steps", *index,
                (int)nas__comp_tune_options(c, *index).steps, (int)c->config->eval.finetune_steps);
        status = load(c, *index, out);
    }
    nas_free(list);
    return status;
}
