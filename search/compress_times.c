/* compress_times.c - the delivered network's layers against those of the dense original: both programs run by turns on the
 * device and time each of their layers inside the whole (nas_measure_options.profile), so that a ratio is of what runs, with
 * its fused sums and activations and the caches as they are. */
#include "search/compress_levels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 3 };

/* One of the two programs. */
typedef struct program {
    const nas_graph *graph;
    nas_artifact artifact;
    double *us; /* [node of the original][ROUNDS] of a convolution; NAN = unknown */
} program;

/* The node that reads v first; -1: none. */
static nas_value first_reader(const nas_graph *g, nas_value v) {
    for (nas_value r = v + 1; r < nas_graph_node_count(g); r++) {
        const nas_node *node = nas_graph_node(g, r);
        for (int32_t i = 0; i < node->n_inputs; i++) {
            if (node->inputs[i] == v) return r;
        }
    }
    return -1;
}

/* A layer has the name of the last node that it computes: the convolution, or what was fused behind it. */
static double time_of(const nas_graph *g, const char *name, const nas_measurement *m) {
    nas_value v = 0;
    while (v < nas_graph_node_count(g) && strcmp(nas_graph_node(g, v)->name, name) != 0)
        v++;
    if (v == nas_graph_node_count(g)) return NAN;
    for (; v >= 0; v = first_reader(g, v)) {
        for (size_t i = 0; i < m->n_layers; i++) {
            if (strcmp(m->layers[i].name, nas_graph_node(g, v)->name) == 0)
                return m->layers[i].p50_us;
        }
    }
    return NAN;
}

static nas_status run(nas__comp *c, program *p, int round) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = c->config->measure.min_batches;
    o.min_time_ms = c->config->measure.min_time_ms;
    o.max_time_ms = c->config->measure.max_time_ms;
    o.max_repeats = 0;
    o.needs = c->target->needs;
    o.profile = true;
    nas_measurement m = {0};
    const nas_status status =
        nas_measure(c->ctx, c->device, p->graph, p->artifact.path, p->artifact.sha256, &o, &m);
    for (nas_value v = 0; status == NAS_OK && v < nas_graph_node_count(c->model); v++) {
        const nas_node *node = nas_graph_node(c->model, v);
        const bool is_conv = node->op == NAS_OP_CONV;
        p->us[v * ROUNDS + round] = is_conv ? time_of(p->graph, node->name, &m) : NAN;
    }
    nas_measurement_deinit(&m);
    return status;
}

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(const program *p, nas_value v) {
    double list[ROUNDS];
    for (int i = 0; i < ROUNDS; i++) {
        list[i] = p->us[v * ROUNDS + i];
        if (isnan(list[i])) return NAN;
    }
    qsort(list, ROUNDS, sizeof *list, by_value);
    return list[ROUNDS / 2];
}

/* A channel of the value is of the group. */
static bool has_channels(const nas__comp *c, nas_value v, int32_t group) {
    const int32_t *classes = nas_channels_of(c->channels, v);
    for (int32_t k = 0; k < nas_graph_node(c->model, v)->shape.c; k++) {
        if (classes[k] != NAS_CLASS_FIXED &&
            nas_channels_group_of(c->channels, classes[k]) == group)
            return true;
    }
    return false;
}

/* Over the convolutions that write or read the group's channels. */
static double ratio_of(const nas__comp *c, const program *dense, const program *small,
                       int32_t group) {
    double before = 0, after = 0;
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++) {
        const nas_node *node = nas_graph_node(c->model, v);
        if (node->op != NAS_OP_CONV) continue;
        if (!has_channels(c, v, group) && !has_channels(c, node->inputs[0], group)) continue;
        before += median(dense, v); /* one unknown time makes the ratio unknown */
        after += median(small, v);
    }
    return before > 0 ? after / before : NAN;
}

static double layer_ratio(const nas__comp *c, const program *dense, const program *small,
                          size_t layer) {
    const nas_value v = c->levels->list.layers[layer].conv;
    const double before = median(dense, v);
    return before > 0 ? median(small, v) / before : NAN;
}

/* All groups at once have no layers of their own. */
static double part_ratio(const nas__comp *c, const program *dense, const program *small,
                         size_t part) {
    const size_t groups = c->channels == NULL ? 0 : (size_t)nas_channels_group_count(c->channels);
    if (part < groups) return ratio_of(c, dense, small, (int32_t)part);
    if (groups == 0) return layer_ratio(c, dense, small, part);
    return part == groups ? NAN : layer_ratio(c, dense, small, part - groups - 1);
}

nas_status nas__comp_time_parts(nas__comp *c, const nas_graph *delivered, double *ratio) {
    const size_t n = (size_t)nas_graph_node_count(c->model);
    program list[2] = {{.graph = c->model}, {.graph = delivered}};
    nas_status status = NAS_OK;
    for (int i = 0; i < 2 && status == NAS_OK; i++) {
        list[i].us = nas_alloc_array(c->ctx, n * ROUNDS, sizeof *list[i].us);
        status = list[i].us == NULL
                     ? NAS_ERR_NOMEM
                     : nas_compile(c->ctx, list[i].graph, &c->compile, &list[i].artifact);
    }
    nas__progress_phase(&c->progress, "time of each layer", 0, 2 * ROUNDS);
    for (int k = 0; k < 2 * ROUNDS && status == NAS_OK; k++) {
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK) status = run(c, &list[k % 2], k / 2);
        nas__progress_update(&c->progress, k + 1, "%s", "");
    }
    for (size_t k = 0; k < nas__comp_parts(c) && status == NAS_OK; k++)
        ratio[k] = part_ratio(c, &list[0], &list[1], k);
    if (status == NAS_OK) nas__progress_end(&c->progress);
    nas_free(list[0].us);
    nas_free(list[1].us);
    return nas_wrap(c->ctx, status, "time of each layer");
}
