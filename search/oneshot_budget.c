/* oneshot_budget.c - the table of levels, and networks put together from it. */
#include "search/oneshot_budget.h"
#include "search/oneshot_gains.h"

#include <math.h>
#include <string.h>

enum { FLOAT_BITS = 32 };

static const char *const cost_names[] = {"bytes", "macs", "bops", "time"};
static const char *const sensitivity_names[] = {"scaled", "measured", "error"};

const char *nas_oneshot_cost_name(nas_oneshot_cost cost) {
    return cost < NAS_ONESHOT_COST_COUNT ? cost_names[cost] : "none";
}

nas_oneshot_cost nas_oneshot_cost_find(const char *name) {
    int i = 0;
    while (i < NAS_ONESHOT_COST_COUNT && strcmp(cost_names[i], name) != 0)
        i++;
    return (nas_oneshot_cost)i;
}

const char *nas_oneshot_sensitivity_name(nas_oneshot_sensitivity kind) {
    return kind < NAS_ONESHOT_SENSITIVITY_COUNT ? sensitivity_names[kind] : "none";
}

nas_oneshot_sensitivity nas_oneshot_sensitivity_find(const char *name) {
    int i = 0;
    while (i < NAS_ONESHOT_SENSITIVITY_COUNT && strcmp(sensitivity_names[i], name) != 0)
        i++;
    return (nas_oneshot_sensitivity)i;
}

static void tell(const nas_oneshot *o, const char *phase, double done, double planned) {
    if (o->note != NULL) o->note(o->note_arg, phase, done, planned);
}

/* ---- costs -------------------------------------------------------------------------------------------------------------- */

nas_status nas_oneshot_layer_cost(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                  size_t layer, const nas_layer_scheme *scheme,
                                  nas_oneshot_cost cost, double *out) {
    const nas_value v = o->layers[layer];
    if (cost == NAS_ONESHOT_BYTES) {
        uint64_t bytes = 0;
        const nas_status status = nas_layer_bytes(ctx, graph, v, scheme, &bytes);
        if (status == NAS_OK) *out = (double)bytes;
        return status;
    }
    if (cost == NAS_ONESHOT_TIME) {
        nas_opt_double us = {0};
        const nas_status status = nas_oneshot_time_us(ctx, o, o->times, layer, scheme, &us);
        if (status == NAS_OK) *out = us.is_set ? us.value : 0;
        return status;
    }
    const nas_node *node = nas_graph_node(graph, v);
    const nas_param *weight = nas_graph_param_const(graph, node->params[0]);
    size_t kept = weight->count;
    for (size_t i = 0; scheme->is_sparse && i < weight->count; i++)
        kept -= weight->data[i] == 0;
    const double macs = (double)kept * node->shape.h * node->shape.w;
    const bool integers = scheme->bits > 0;
    const double weight_bits = integers ? scheme->bits : FLOAT_BITS;
    const double bits = integers && o->input_bits != NULL ? o->input_bits[layer] : FLOAT_BITS;
    *out = cost == NAS_ONESHOT_BOPS ? macs * weight_bits * bits : macs;
    return NAS_OK;
}

nas_status nas_oneshot_cost_of(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                               const nas_layer_scheme *schemes, nas_oneshot_cost cost,
                               double *out) {
    double sum = 0;
    for (size_t i = 0; i < o->n_layers; i++) {
        double one = 0;
        const nas_status status = nas_oneshot_layer_cost(ctx, o, graph, i, &schemes[i], cost, &one);
        if (status != NAS_OK) return status;
        sum += one;
    }
    *out = sum;
    return NAS_OK;
}

/* ---- parts of networks ---------------------------------------------------------------------------------------------------- */

/* Weights, bias and scales of one convolution. */
static nas_status copy_layer(nas_ctx *ctx, const nas_graph *from, nas_graph *to, nas_value v) {
    const nas_node *node = nas_graph_node(from, v);
    for (int k = 0; k < 1 + node->conv.has_bias; k++) {
        const nas_param *p = nas_graph_param_const(from, node->params[k]);
        memcpy(nas_graph_param(to, nas_graph_node(to, v)->params[k])->data, p->data,
               p->count * sizeof *p->data);
    }
    const nas_param *weight = nas_graph_param_const(from, node->params[0]);
    if (weight->scales == NULL) return NAS_OK;
    return nas_graph_set_weight_scales(ctx, to, nas_graph_node(to, v)->params[0], weight->bits,
                                       weight->scales);
}

/* ---- probes ---------------------------------------------------------------------------------------------------------------- */

enum { PART = 256 }; /* images between two lines of progress */

typedef struct probing {
    const nas_oneshot_reference *dense;
    nas_class_reader reader;
    size_t first; /* image of the part that is run */
    bool is_softmax;
    double *of; /* [probes][images] */
} probing;

static void read_image(void *arg, size_t index, float *hwc) {
    probing *p = arg;
    nas_class_reader_read(&p->reader, p->first + index, hwc);
}

static void take_answer(void *arg, size_t probe, size_t index, const float *scores) {
    const probing *p = arg;
    const nas_oneshot_reference *dense = p->dense;
    const size_t image = p->first + index;
    p->of[probe * dense->images + image] = nas__oneshot_diverge(
        dense->logs + image * (size_t)dense->classes, scores, dense->classes, p->is_softmax);
}

static nas_status probe_floats(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                               const nas_graph *graph, const nas_oneshot_reference *dense,
                               const nas_oneshot_probe *probes, size_t n, const char *phase,
                               double *out) {
    const nas_exec_options options = {.chunk = 8, .threads = o->options.threads};
    probing p = {.dense = dense,
                 .reader = {o->data, dense->split},
                 .is_softmax =
                     nas_graph_node(graph, nas_graph_output(graph))->op == NAS_OP_SOFTMAX};
    nas_exec_variant *variants = nas_alloc_array(ctx, n, sizeof *variants);
    p.of = nas_alloc_array(ctx, n * dense->images, sizeof *p.of);
    nas_status status = variants == NULL || p.of == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t k = 0; k < n && status == NAS_OK; k++)
        variants[k] = (nas_exec_variant){o->layers[probes[k].layer], (size_t)probes[k].level};
    for (; p.first < dense->images && status == NAS_OK; p.first += PART) {
        const size_t left = dense->images - p.first;
        tell(o, phase, (double)p.first, (double)dense->images);
        status = nas_exec_run_variants(ctx, graph, (const nas_graph *const *)t->graphs, t->n_levels,
                                       &options, variants, n, left < PART ? left : PART, read_image,
                                       &p, take_answer, &p);
    }
    if (status == NAS_OK) tell(o, phase, (double)dense->images, (double)dense->images);
    for (size_t k = 0; k < n && status == NAS_OK; k++) {
        out[k] = 0;
        for (size_t i = 0; i < dense->images; i++)
            out[k] += p.of[k * dense->images + i];
        out[k] /= (double)dense->images;
    }
    nas_free(variants);
    nas_free(p.of);
    return status;
}

/* A network that came with codes for its values is run whole for each probe. */
static nas_status probe_codes(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                              const nas_graph *graph, const nas_oneshot_reference *dense,
                              const nas_oneshot_probe *probes, size_t n, const char *phase,
                              double *out) {
    nas_graph *work = NULL;
    nas_status status = nas_graph_clone(ctx, graph, &work);
    for (size_t k = 0; k < n && status == NAS_OK; k++) {
        const nas_value v = o->layers[probes[k].layer];
        tell(o, phase, (double)k, (double)n);
        status = copy_layer(ctx, t->graphs[probes[k].level], work, v);
        if (status == NAS_OK) status = nas_oneshot_divergence(ctx, o, work, dense, &out[k]);
        if (status == NAS_OK) status = copy_layer(ctx, graph, work, v); /* scales do no harm here */
    }
    if (status == NAS_OK) tell(o, phase, (double)n, (double)n);
    nas_graph_free(work);
    return status;
}

nas_status nas_oneshot_table_probe(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                   const nas_graph *graph, const nas_oneshot_reference *dense,
                                   const nas_oneshot_probe *probes, size_t n, const char *phase,
                                   double *out) {
    return nas__oneshot_is_coded(graph)
               ? probe_codes(ctx, o, t, graph, dense, probes, n, phase, out)
               : probe_floats(ctx, o, t, graph, dense, probes, n, phase, out);
}

/* ---- losses ---------------------------------------------------------------------------------------------------------------- */

/* The level of the largest output error. */
static size_t worst_level(const nas_oneshot_table *t, size_t layer) {
    const nas_layer_result *r = t->results + layer * t->n_levels;
    size_t worst = 0;
    for (size_t k = 1; k < t->n_levels; k++) {
        if (r[k].relative_loss > r[worst].relative_loss) worst = k;
    }
    return worst;
}

/* What there is to measure: every level, or the worst one of each layer. */
static size_t list_probes(const nas_oneshot_table *t, bool all, nas_oneshot_probe *probes) {
    size_t n = 0;
    for (size_t i = 0; i < t->n_layers; i++) {
        const size_t worst = worst_level(t, i);
        for (size_t k = 0; k < t->n_levels; k++) {
            if (t->results[i * t->n_levels + k].relative_loss > 0 && (all || k == worst))
                probes[n++] = (nas_oneshot_probe){i, (int32_t)k};
        }
    }
    return n;
}

/* A layer that nothing seems to hurt still prefers its smaller errors. */
static void weigh_layer(nas_oneshot_table *t, size_t layer, bool all) {
    const nas_layer_result *r = t->results + layer * t->n_levels;
    nas_budget_level *entries = t->entries + layer * t->n_levels;
    const size_t worst = worst_level(t, layer);
    const double scale =
        r[worst].relative_loss > 0 ? entries[worst].loss / r[worst].relative_loss : 0;
    for (size_t k = 0; k < t->n_levels; k++)
        entries[k].loss = all ? entries[k].loss + 1e-6 * r[k].relative_loss
                              : fmax(scale, 1e-6) * r[k].relative_loss;
}

static nas_status measure_losses(nas_ctx *ctx, const nas_oneshot *o, nas_oneshot_table *t,
                                 bool all) {
    nas_oneshot_reference dense = {0};
    const size_t cells = t->n_layers * t->n_levels;
    nas_oneshot_probe *probes = nas_alloc_array(ctx, cells, sizeof *probes);
    double *found = nas_alloc_array(ctx, cells, sizeof *found);
    nas_status status = probes == NULL || found == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK)
        status = nas_oneshot_reference_take(ctx, o, o->model, NAS_CLASS_REWARD, SIZE_MAX, &dense);
    const size_t n = status == NAS_OK ? list_probes(t, all, probes) : 0;
    if (status == NAS_OK)
        status = nas_oneshot_table_probe(ctx, o, t, o->model, &dense, probes, n,
                                         "sensitivity of layers", found);
    for (size_t k = 0; k < n && status == NAS_OK; k++)
        t->entries[probes[k].layer * t->n_levels + (size_t)probes[k].level].loss = found[k];
    nas_oneshot_reference_deinit(&dense);
    nas_free(probes);
    nas_free(found);
    return nas_wrap(ctx, status, "sensitivity");
}

static nas_status weigh(nas_ctx *ctx, const nas_oneshot *o, nas_oneshot_table *t,
                        nas_oneshot_sensitivity kind) {
    const bool all = kind == NAS_ONESHOT_MEASURED;
    if (kind == NAS_ONESHOT_ERROR) {
        for (size_t i = 0; i < t->n_layers * t->n_levels; i++)
            t->entries[i].loss = t->results[i].relative_loss;
        return NAS_OK;
    }
    const nas_status status = measure_losses(ctx, o, t, all);
    for (size_t i = 0; i < t->n_layers && status == NAS_OK; i++)
        weigh_layer(t, i, all);
    return status;
}

/* ---- the table -------------------------------------------------------------------------------------------------------------- */

void nas_oneshot_table_deinit(nas_oneshot_table *t) {
    for (size_t k = 0; t->graphs != NULL && k < t->n_levels; k++)
        nas_graph_free(t->graphs[k]);
    nas_free(t->graphs);
    nas_free(t->schemes);
    nas_free(t->results);
    nas_free(t->entries);
    nas_free(t->dense);
    *t = (nas_oneshot_table){0};
}

static nas_status add_level(nas_ctx *ctx, nas_oneshot *o, nas_oneshot_table *t, size_t level,
                            const nas_layer_options *options) {
    const nas_layer_scheme *schemes = t->schemes + level * t->n_layers;
    nas_layer_result *results = nas_alloc_array(ctx, t->n_layers, sizeof *results);
    nas_status status = results == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK)
        status = nas_oneshot_apply(ctx, o, schemes, options, results, &t->graphs[level]);
    for (size_t i = 0; status == NAS_OK && i < t->n_layers; i++) {
        t->results[i * t->n_levels + level] = results[i];
        status = nas_oneshot_layer_cost(ctx, o, t->graphs[level], i, &schemes[i], t->cost,
                                        &t->entries[i * t->n_levels + level].cost);
    }
    nas_free(results);
    return status;
}

nas_status nas_oneshot_table_make(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes,
                                  size_t n_levels, const nas_layer_options *options,
                                  nas_oneshot_cost cost, nas_oneshot_sensitivity sensitivity,
                                  nas_oneshot_table *out) {
    *out = (nas_oneshot_table){0};
    if (n_levels == 0 || o->moments == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "a budget needs levels, and a calibrated model");
    nas_oneshot_table t = {.n_layers = o->n_layers, .n_levels = n_levels, .cost = cost};
    const size_t cells = t.n_layers * n_levels;
    t.schemes = nas_alloc_array(ctx, cells, sizeof *t.schemes);
    t.graphs = nas_alloc_array(ctx, n_levels, sizeof *t.graphs);
    t.results = nas_alloc_array(ctx, cells, sizeof *t.results);
    t.entries = nas_alloc_array(ctx, cells, sizeof *t.entries);
    t.dense = nas_alloc_array(ctx, t.n_layers, sizeof *t.dense);
    nas_status status = t.schemes == NULL || t.graphs == NULL || t.results == NULL ||
                                t.entries == NULL || t.dense == NULL
                            ? NAS_ERR_NOMEM
                            : NAS_OK;
    if (status == NAS_OK) memcpy(t.schemes, schemes, cells * sizeof *schemes);
    const nas_layer_scheme nothing = nas_layer_scheme_default();
    for (size_t i = 0; status == NAS_OK && i < t.n_layers; i++)
        status = nas_oneshot_layer_cost(ctx, o, o->model, i, &nothing, cost, &t.dense[i]);
    for (size_t k = 0; k < n_levels && status == NAS_OK; k++)
        status = add_level(ctx, o, &t, k, options);
    if (status == NAS_OK) status = weigh(ctx, o, &t, sensitivity);
    if (status != NAS_OK) {
        nas_oneshot_table_deinit(&t);
        return status;
    }
    *out = t;
    return NAS_OK;
}

/* Where the level is dense, scales that the layer had before stay and say nothing. */
static nas_status put_level(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                            size_t layer, int32_t level, nas_graph *graph) {
    return copy_layer(ctx, t->graphs[level], graph, o->layers[layer]);
}

nas_status nas_oneshot_table_network(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                     const int32_t *choice, nas_graph **out) {
    nas_graph *graph = NULL;
    nas_status status = nas_graph_clone(ctx, o->model, &graph);
    for (size_t i = 0; status == NAS_OK && i < t->n_layers; i++)
        status = put_level(ctx, o, t, i, choice[i], graph);
    if (status == NAS_OK) {
        *out = graph;
        return NAS_OK;
    }
    nas_graph_free(graph);
    return status;
}

nas_status nas_oneshot_table_pick(nas_ctx *ctx, const nas_oneshot *o, const nas_oneshot_table *t,
                                  double limit, int32_t *choice, nas_budget_total *total,
                                  nas_graph **out) {
    nas_budget_layer *layers = nas_alloc_array(ctx, t->n_layers, sizeof *layers);
    nas_status status = layers == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; status == NAS_OK && i < t->n_layers; i++)
        layers[i] = (nas_budget_layer){t->entries + i * t->n_levels, (int32_t)t->n_levels};
    if (status == NAS_OK) status = nas_budget_solve(ctx, layers, t->n_layers, limit, choice, total);
    if (status == NAS_OK) status = nas_oneshot_table_network(ctx, o, t, choice, out);
    nas_free(layers);
    return status;
}
