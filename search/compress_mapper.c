/* compress_mapper.c - what a search over levels begins with: the same level everywhere, the patterns that rules choose from
 * measured gains (after Gong et al., arXiv:2111.11581), and the levels of least estimated loss within a budget (as HAWQ-V3,
 * arXiv:2011.10680, and SPDY, arXiv:2201.13096, choose theirs).
 *
 * Losses are estimates that cost little: the relative output error of plain projection and rounding, times what the layer's worst
 * level raises the cross-entropy of REWARD images by for each unit of it. They decide the first proposals alone. */
#include "search/compress_levels.h"
#include "compress/budget.h"

#include <math.h>
#include <string.h>

typedef struct mapper {
    nas__comp *c;
    nas_graph *scratch; /* the model with one layer compressed at a time */
    double *losses;     /* [n_levels] */
    int32_t *choice;    /* [n_layers] */
    int32_t seeds;
} mapper;

/* ---- losses --------------------------------------------------------------------------------------------------------------- */

static nas_status try_level(mapper *m, size_t layer, size_t index, double *error) {
    nas__levels *l = m->c->levels;
    nas_layer_options o = nas_layer_options_default();
    nas_layer_result r = {0};
    o.solver = NAS_SOLVER_MAGNITUDE;
    o.threads = m->c->config->eval.threads;
    nas__cells_restore(m->c, layer, m->scratch);
    const nas_status status =
        nas_layer_compress(m->c->ctx, m->scratch, l->list.layers[layer].conv,
                           &l->list.levels[index].scheme, &l->view.moments[layer], &o, &r);
    *error = r.relative_loss;
    return status;
}

static nas_status estimate_layer(mapper *m, size_t layer, double dense) {
    nas__levels *l = m->c->levels;
    const nas__level_layer *at = &l->list.layers[layer];
    const size_t n = (size_t)(at->n_forms * at->n_bits);
    double *errors = m->losses + at->first, error = 0;
    nas_oneshot_score s = {0};
    size_t worst = 0;
    nas_status status = NAS_OK;
    for (size_t k = 0; k < n && status == NAS_OK; k++) {
        status = try_level(m, layer, at->first + k, &errors[k]);
        if (errors[k] > errors[worst]) worst = k;
    }
    if (status != NAS_OK || n < 2 || !(errors[worst] > 0)) return status;
    status = try_level(m, layer, at->first + worst, &error);
    if (status == NAS_OK)
        status = nas_oneshot_evaluate(m->c->ctx, &l->view, m->scratch, NAS_CLASS_REWARD, &s);
    nas__cells_restore(m->c, layer, m->scratch);
    /* a layer that nothing seems to hurt still prefers its smaller errors */
    const double scale = fmax((s.cross_entropy - dense) / errors[worst], 1e-6);
    for (size_t k = 0; k < n; k++)
        errors[k] *= scale;
    return status;
}

static nas_status estimate(mapper *m) {
    nas__comp *c = m->c;
    nas_oneshot_score dense = {0};
    nas_status status =
        nas_oneshot_evaluate(c->ctx, &c->levels->view, c->model, NAS_CLASS_REWARD, &dense);
    const size_t n = c->levels->list.n_layers;
    nas__progress_phase(&c->progress, "losses of layers", 0, (double)n);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        status = nas_check_cancel(c->ctx);
        if (status == NAS_OK) status = estimate_layer(m, i, dense.cross_entropy);
        nas__progress_update(&c->progress, (double)i + 1, "%s", "");
    }
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return status;
}

/* ---- proposals ------------------------------------------------------------------------------------------------------------ */

nas_status nas__levels_propose(nas__comp *c, const nas_point *p, const char *what, int32_t *seeds) {
    nas_buf text = {0};
    if (*seeds == c->config->search.options.population) return NAS_OK;
    if (nas_space_check(c->ctx, c->space, p) != NAS_OK) {
        nas_ctx_clear(c->ctx);
        return NAS_OK;
    }
    nas_status status = nas_strategy_seed(c->ctx, c->strategy, p);
    if (status == NAS_OK) status = nas_space_format(c->ctx, c->space, p, &text);
    if (status == NAS_OK) nas_log(c->ctx, NAS_LOG_INFO, "first proposals: %s: %s", what, text.data);
    *seeds += status == NAS_OK;
    nas_buf_deinit(&text);
    return status;
}

static nas_status propose(mapper *m, const nas_point *p, const char *what) {
    return nas__levels_propose(m->c, p, what, &m->seeds);
}

/* The rule: of the forms measured to gain, those within 20 % of the fastest; of these the one that loses least. Layers without
 * such a form stay dense. Bits are the most there are. */
static nas_status propose_rules(mapper *m) {
    static const double margin = 1.2;
    const nas__level_list *list = &m->c->levels->list;
    bool any = false;
    for (size_t i = 0; i < list->n_layers; i++) {
        const nas__level_layer *at = &list->layers[i];
        double fastest = 1, least = INFINITY;
        int32_t chosen = at->n_forms - 1;
        for (int32_t f = 0; f < at->n_forms; f++)
            fastest = fmax(fastest, list->levels[at->first + (size_t)(f * at->n_bits)].gain);
        for (int32_t f = 0; f + 1 < at->n_forms; f++) {
            const size_t top = at->first + (size_t)((f + 1) * at->n_bits - 1);
            const double gain = list->levels[top].gain;
            if (!(gain > 1 && gain * margin >= fastest) || m->losses[top] >= least) continue;
            least = m->losses[top];
            chosen = f;
            any = true;
        }
        m->choice[i] = (chosen + 1) * at->n_bits - 1;
    }
    nas_point p;
    nas_space_levels_point(m->c->space, m->choice, 1, &p);
    return any ? propose(m, &p, "by measured gains") : NAS_OK;
}

/* The levels of least loss within `limit` of a cost, all values with so many bits: `values` is their share of the choices. */
static nas_status propose_budget(mapper *m, nas_level_cost kind, double limit, double values) {
    nas__comp *c = m->c;
    const nas__level_list *list = &c->levels->list;
    const bool in_bits = kind == NAS_LEVEL_BOPS && list->n_values > 0;
    const double bits = !in_bits ? 1 : list->acts.bits[values < 1 ? 0 : list->acts.n_bits - 1];
    double fixed = list->fixed[kind];
    for (size_t i = 0; in_bits && i < list->n_uses; i++)
        fixed += list->uses[i].bops * bits;
    nas_budget_level *entries = nas_alloc_array(c->ctx, list->n_levels, sizeof *entries);
    nas_budget_layer *layers = nas_alloc_array(c->ctx, list->n_layers, sizeof *layers);
    nas_budget_total total;
    nas_point p;
    nas_status status = entries == NULL || layers == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        for (size_t i = 0; i < list->n_layers; i++) {
            const nas__level_layer *at = &list->layers[i];
            const int32_t n = at->n_forms * at->n_bits;
            for (size_t k = at->first; k < at->first + (size_t)n; k++)
                entries[k] = (nas_budget_level){
                    list->levels[k].costs[kind] * (at->reads > 0 ? bits : 1), m->losses[k]};
            layers[i] = (nas_budget_layer){entries + at->first, n};
        }
        status = nas_budget_solve(c->ctx, layers, list->n_layers, limit - fixed, m->choice, &total);
    }
    nas_free(entries);
    nas_free(layers);
    if (status == NAS_OK) {
        nas_space_levels_point(c->space, m->choice, values, &p);
        return propose(m, &p, "by losses of layers");
    }
    if (status != NAS_ERR_RANGE) return status;
    nas_ctx_clear(c->ctx); /* no level is small enough */
    return NAS_OK;
}

/* Without a limit: for every choice the same one everywhere, and what losses make of its cost. */
static nas_status propose_all(mapper *m) {
    nas__comp *c = m->c;
    const nas_level_cost kind =
        nas__space_has_bits(c->config->compress.space) ? NAS_LEVEL_BYTES : NAS_LEVEL_MACS;
    int32_t most = 1;
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < nas_space_gene_count(c->space); i++) {
        const int32_t n = nas_space_gene(c->space, i)->cardinality;
        most = n > most ? n : most;
    }
    for (int32_t k = most - 1; k-- > 0 && status == NAS_OK;) {
        nas_point p;
        nas_space_levels_share(c->space, (double)k / (most - 1), (double)k / (most - 1), &p);
        status = propose(m, &p, "the same share everywhere");
        if (status == NAS_OK && k > 0)
            status = propose_budget(m, kind, nas_space_levels_cost(c->space, &p, kind), 1);
    }
    return status;
}

static nas_status propose_learnt(mapper *m) {
    const nas__levels *l = m->c->levels;
    bool limited = false;
    nas_status status = estimate(m);
    if (status == NAS_OK) status = propose_rules(m);
    for (int k = 0; k < NAS_LEVEL_COSTS && status == NAS_OK; k++) {
        if (l->limit[k] <= 0) continue;
        limited = true;
        status = propose_budget(m, (nas_level_cost)k, l->limit[k], 1);
        if (status == NAS_OK &&
            l->list.n_values > 0) /* with narrow values more of the weights fit */
            status = propose_budget(m, (nas_level_cost)k, l->limit[k], 0);
    }
    return status == NAS_OK && !limited ? propose_all(m) : status;
}

nas_status nas__levels_seed(nas__comp *c) {
    mapper m = {.c = c};
    nas_point p;
    nas_space_largest(c->space, &p);
    nas_status status = propose(&m, &p, "the same share everywhere");
    if (status != NAS_OK || !c->config->compress.warm_start) return status;
    m.losses = nas_alloc_array(c->ctx, c->levels->list.n_levels, sizeof *m.losses);
    m.choice = nas_alloc_array(c->ctx, c->levels->list.n_layers, sizeof *m.choice);
    status = m.losses == NULL || m.choice == NULL ? NAS_ERR_NOMEM
                                                  : nas_graph_clone(c->ctx, c->model, &m.scratch);
    if (status == NAS_OK) status = propose_learnt(&m);
    nas_graph_free(m.scratch);
    nas_free(m.losses);
    nas_free(m.choice);
    return nas_wrap(c->ctx, status, "first proposals");
}
