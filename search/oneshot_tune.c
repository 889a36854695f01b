/* oneshot_tune.c - fine-tuning of compressed networks: which zeros and codes hold, and what comes back. */
#include "search/oneshot_tune.h"

typedef struct watch {
    const nas_oneshot *o;
    int32_t steps;
} watch;

static nas_status show_step(nas_ctx *ctx, void *arg, int32_t step, double loss) {
    const watch *w = arg;
    (void)loss;
    if (w->o->note != NULL) w->o->note(w->o->note_arg, "tuning", step + 1, w->steps);
    return nas_check_cancel(ctx);
}

/* One code for each grid; a pool of largest values has that of what it reads without doing anything. */
static nas_status list_codes(nas_ctx *ctx, const nas_graph *graph, const nas_oneshot_codes *codes,
                             nas_tune_code *out, size_t *n) {
    *n = 0;
    for (size_t i = 0; i < codes->n; i++) {
        const nas_oneshot_code *c = &codes->list[i];
        const nas_node *node = nas_graph_node(graph, c->value);
        if (c->value != c->leader && node->op == NAS_OP_MAX_POOL) continue;
        if (c->value != c->leader)
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                            "tuning: value '%s' shares the grid of '%s' in a concatenation; leave "
                            "out --act-bits or --tune",
                            node->name, nas_graph_node(graph, c->leader)->name);
        out[(*n)++] = (nas_tune_code){.value = c->value,
                                      .scale = c->scale,
                                      .low = (float)-c->zero_point,
                                      .high = (float)((1 << c->bits) - 1 - c->zero_point)};
    }
    return NAS_OK;
}

static void take_back(const nas_tune_code *tuned, size_t n, nas_oneshot_codes *codes) {
    for (size_t i = 0; i < codes->n; i++) {
        for (size_t k = 0; k < n; k++) {
            if (tuned[k].value == codes->list[i].leader) codes->list[i].scale = tuned[k].scale;
        }
    }
}

static void count_zeros(const nas_oneshot *o, const nas_graph *graph, nas_layer_result *results) {
    for (size_t i = 0; i < o->n_layers; i++) {
        const nas_param *p =
            nas_graph_param_const(graph, nas_graph_node(graph, o->layers[i])->params[0]);
        results[i].has_loss = false;
        results[i].zeros = 0;
        for (size_t k = 0; k < p->count; k++)
            results[i].zeros += p->data[k] == 0;
    }
}

nas_status nas_oneshot_tune(nas_ctx *ctx, nas_oneshot *o, nas_graph *graph,
                            const nas_layer_scheme *schemes, int32_t steps, double rate,
                            nas_oneshot_codes *codes, nas_layer_result *results) {
    nas_tune_options options = nas_tune_options_default();
    watch w = {o, steps};
    size_t n = 0;
    bool *keep = nas_alloc_array(ctx, (size_t)nas_graph_param_count(graph), sizeof *keep);
    nas_tune_code *tuned = nas_alloc_array(ctx, codes->n, sizeof *tuned);
    nas_status status = keep == NULL || tuned == NULL ? NAS_ERR_NOMEM : NAS_OK;
    options.steps = steps;
    options.learning_rate = rate;
    options.threads = o->options.threads;
    options.seed = o->options.seed;
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++)
        keep[nas_graph_node(graph, o->layers[i])->params[0]] = schemes[i].is_sparse;
    if (status == NAS_OK) status = list_codes(ctx, graph, codes, tuned, &n);
    if (status == NAS_OK)
        status =
            nas_tune_codes(ctx, graph, o->model, o->data, &options, tuned, n, keep, show_step, &w);
    if (status == NAS_OK) {
        take_back(tuned, n, codes);
        count_zeros(o, graph, results);
    }
    nas_free(tuned);
    nas_free(keep);
    return status;
}
