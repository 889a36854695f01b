/* oneshot_choose.c - starts, moves between levels in the compressed network, and the last word on networks in turn. */
#include "search/oneshot_choose.h"

#include <math.h>
#include <string.h>

enum { TRIES = 4 }; /* a step with no charge on moves, then with charges */

static const char *const way_names[] = {"same everywhere", "least sum", "after moves"};

const char *nas_oneshot_way_name(nas_oneshot_way way) {
    return way < NAS_ONESHOT_WAY_COUNT ? way_names[way] : "none";
}

nas_oneshot_choose_options nas_oneshot_choose_options_default(void) {
    return (nas_oneshot_choose_options){
        .rounds = 6, .images = 512, .sequential = true, .layer = nas_layer_options_default()};
}

typedef struct chooser {
    nas_oneshot *o;
    const nas_oneshot_table *t;
    const nas_oneshot_choose_options *p;
    nas_oneshot_reference dense;
    nas_oneshot_choice *out;
} chooser;

static bool fits(const chooser *c, double cost) {
    return cost <= c->p->limit * (1 + 1e-12);
}

static const nas_budget_level *entry(const chooser *c, size_t layer, int32_t level) {
    return &c->t->entries[layer * c->t->n_levels + (size_t)level];
}

static nas_status divergence_of(nas_ctx *ctx, const chooser *c, const int32_t *choice,
                                double *out) {
    nas_graph *graph = NULL;
    nas_status status = nas_oneshot_table_network(ctx, c->o, c->t, choice, &graph);
    if (status == NAS_OK) status = nas_oneshot_divergence(ctx, c->o, graph, &c->dense, out);
    nas_graph_free(graph);
    return status;
}

static void sum_up(const chooser *c, nas_oneshot_candidate *candidate) {
    const bool exact = candidate->total.exact;
    candidate->total = (nas_budget_total){.exact = exact};
    for (size_t i = 0; i < c->t->n_layers; i++) {
        candidate->total.cost += entry(c, i, candidate->choice[i])->cost;
        candidate->total.loss += entry(c, i, candidate->choice[i])->loss;
    }
    candidate->is_set = true;
}

/* ---- starts --------------------------------------------------------------------------------------------------------------- */

static nas_status start_uniform(nas_ctx *ctx, chooser *c) {
    nas_oneshot_candidate *best = &c->out->candidates[NAS_ONESHOT_UNIFORM];
    const size_t n = c->t->n_layers;
    int32_t *choice = nas_alloc_array(ctx, n, sizeof *choice);
    nas_status status = choice == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t k = 0; k < c->t->n_levels && status == NAS_OK; k++) {
        double cost = 0, divergence = 0;
        for (size_t i = 0; i < n; i++) {
            choice[i] = (int32_t)k;
            cost += entry(c, i, (int32_t)k)->cost;
        }
        if (!fits(c, cost)) continue;
        status = divergence_of(ctx, c, choice, &divergence);
        if (status != NAS_OK || (best->is_set && divergence >= best->divergence)) continue;
        memcpy(best->choice, choice, n * sizeof *choice);
        best->divergence = divergence;
        sum_up(c, best);
    }
    nas_free(choice);
    return status;
}

static nas_status start_solved(nas_ctx *ctx, chooser *c) {
    nas_oneshot_candidate *s = &c->out->candidates[NAS_ONESHOT_SOLVED];
    nas_graph *graph = NULL;
    nas_status status =
        nas_oneshot_table_pick(ctx, c->o, c->t, c->p->limit, s->choice, &s->total, &graph);
    if (status == NAS_OK)
        status = nas_oneshot_divergence(ctx, c->o, graph, &c->dense, &s->divergence);
    if (status == NAS_OK) s->is_set = true;
    nas_graph_free(graph);
    return status;
}

/* ---- moves ---------------------------------------------------------------------------------------------------------------- */

enum { STAY, CHEAPER, DEARER, MOVES };

/* The three levels that a layer may have after a step, and what the divergence changes by in the compressed network. */
typedef struct moves {
    int32_t to[MOVES]; /* level, or that of STAY where there is none */
    nas_budget_level levels[MOVES];
} moves;

/* The next level in cost that is worth it: dearer ones lose less, cheaper ones lose less than all that are cheaper still. */
static int32_t neighbour(const chooser *c, size_t layer, int32_t from, bool dearer) {
    const nas_budget_level *at = entry(c, layer, from);
    int32_t best = from;
    for (int32_t k = 0; k < (int32_t)c->t->n_levels; k++) {
        const nas_budget_level *e = entry(c, layer, k), *b = entry(c, layer, best);
        if (dearer ? e->cost <= at->cost || e->loss >= at->loss : e->cost >= at->cost) continue;
        bool dominated = false;
        for (int32_t j = 0; j < (int32_t)c->t->n_levels && !dominated; j++)
            dominated = entry(c, layer, j)->cost <= e->cost && entry(c, layer, j)->loss < e->loss;
        if (dominated) continue;
        if (best == from || (dearer ? e->cost < b->cost : e->cost > b->cost)) best = k;
    }
    return best;
}

/* Every layer's next levels, and what they change in the network of `at`. */
static nas_status probe(nas_ctx *ctx, const chooser *c, const nas_oneshot_candidate *at,
                        moves *all) {
    const size_t layers = c->t->n_layers;
    nas_graph *graph = NULL;
    nas_oneshot_probe *probes = nas_alloc_array(ctx, layers * MOVES, sizeof *probes);
    double *found = nas_alloc_array(ctx, layers * MOVES, sizeof *found);
    size_t n = 0, next = 0;
    nas_status status = probes == NULL || found == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < layers; i++) {
        const int32_t stay = at->choice[i];
        const int32_t to[MOVES] = {stay, neighbour(c, i, stay, false), neighbour(c, i, stay, true)};
        memcpy(all[i].to, to, sizeof to);
        for (int m = 0; m < MOVES && status == NAS_OK; m++) {
            if (to[m] != stay) probes[n++] = (nas_oneshot_probe){i, to[m]};
        }
    }
    if (status == NAS_OK) status = nas_oneshot_table_network(ctx, c->o, c->t, at->choice, &graph);
    if (status == NAS_OK)
        status = nas_oneshot_table_probe(ctx, c->o, c->t, graph, &c->dense, probes, n,
                                         "moves between levels", found);
    for (size_t i = 0; i < layers && status == NAS_OK; i++) {
        for (int m = 0; m < MOVES; m++) {
            const bool changes = all[i].to[m] != all[i].to[STAY];
            all[i].levels[m] = (nas_budget_level){entry(c, i, all[i].to[m])->cost,
                                                  changes ? found[next++] - at->divergence : 0};
        }
    }
    nas_graph_free(graph);
    nas_free(probes);
    nas_free(found);
    return status;
}

/* The exact solver's step, when each layer that moves is charged. *moved: how many do. */
static nas_status solve_step(nas_ctx *ctx, const chooser *c, const moves *all, double charge,
                             int32_t *choice, nas_budget_total *total, size_t *moved) {
    const size_t n = c->t->n_layers;
    nas_budget_level *charged = nas_alloc_array(ctx, n * MOVES, sizeof *charged);
    nas_budget_layer *layers = nas_alloc_array(ctx, n, sizeof *layers);
    nas_status status = charged == NULL || layers == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        for (int m = 0; m < MOVES; m++) {
            charged[i * MOVES + (size_t)m] = all[i].levels[m];
            if (all[i].to[m] != all[i].to[STAY]) charged[i * MOVES + (size_t)m].loss += charge;
        }
        layers[i] = (nas_budget_layer){charged + i * MOVES, MOVES};
    }
    if (status == NAS_OK) status = nas_budget_solve(ctx, layers, n, c->p->limit, choice, total);
    *moved = 0;
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        choice[i] = all[i].to[choice[i]];
        *moved += choice[i] != all[i].to[STAY];
    }
    nas_free(charged);
    nas_free(layers);
    return status;
}

/* One step from `at`, which it changes; *better: whether a step was found. */
static nas_status step(nas_ctx *ctx, const chooser *c, nas_oneshot_candidate *at, moves *all,
                       int32_t *choice, bool *better) {
    double charge = 0;
    *better = false;
    nas_status status = probe(ctx, c, at, all);
    for (int i = 0; i < TRIES && status == NAS_OK && !*better; i++) {
        nas_budget_total total;
        double divergence = 0;
        size_t moved = 0;
        status = solve_step(ctx, c, all, charge, choice, &total, &moved);
        if (status != NAS_OK || moved == 0) break;
        status = divergence_of(ctx, c, choice, &divergence);
        if (status != NAS_OK) break;
        *better = divergence < at->divergence;
        if (*better) {
            memcpy(at->choice, choice, c->t->n_layers * sizeof *choice);
            at->divergence = divergence;
        }
        /* what a layer gains by moving, on average, as the sum has it */
        charge = charge > 0 ? 2 * charge : fmax(-total.loss, 0) / (double)moved;
        if (charge <= 0) break;
    }
    return status;
}

static nas_status move(nas_ctx *ctx, chooser *c) {
    nas_oneshot_candidate *all = c->out->candidates, *at = &all[NAS_ONESHOT_MOVED];
    const nas_oneshot_candidate *uniform = &all[NAS_ONESHOT_UNIFORM],
                                *solved = &all[NAS_ONESHOT_SOLVED],
                                *from = uniform->is_set && uniform->divergence < solved->divergence
                                            ? uniform
                                            : solved;
    const size_t n = c->t->n_layers;
    moves *list = nas_alloc_array(ctx, n, sizeof *list);
    int32_t *choice = nas_alloc_array(ctx, n, sizeof *choice);
    nas_status status = list == NULL || choice == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) {
        memcpy(at->choice, from->choice, n * sizeof *choice);
        at->divergence = from->divergence;
    }
    for (int32_t r = 0; r < c->p->rounds && status == NAS_OK; r++) {
        bool better = false;
        status = step(ctx, c, at, list, choice, &better);
        if (!better) break;
        c->out->rounds++;
    }
    if (status == NAS_OK && c->out->rounds > 0) sum_up(c, at);
    nas_free(list);
    nas_free(choice);
    return status;
}

/* ---- the last word -------------------------------------------------------------------------------------------------------- */

/* The network that a candidate stands for, and its divergence on all REWARD images. */
static nas_status finish(nas_ctx *ctx, chooser *c, const nas_oneshot_reference *all,
                         nas_oneshot_candidate *k) {
    const size_t n = c->t->n_layers;
    nas_layer_scheme *schemes = nas_alloc_array(ctx, n, sizeof *schemes);
    k->results = nas_alloc_array(ctx, n, sizeof *k->results);
    nas_status status = schemes == NULL || k->results == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        schemes[i] = c->t->schemes[(size_t)k->choice[i] * n + i];
    k->turn_cost = k->total.cost;
    if (status == NAS_OK && c->p->sequential) {
        double spent = 0;
        status =
            nas_oneshot_apply_sequential(ctx, c->o, schemes, &c->p->layer, k->results, &k->graph);
        if (status == NAS_OK)
            status = nas_oneshot_cost_of(ctx, c->o, k->graph, schemes, c->t->cost, &spent);
        k->turn_misses = status == NAS_OK && !fits(c, spent);
        if (!k->turn_misses) k->turn_cost = spent;
    }
    if (status == NAS_OK && (!c->p->sequential || k->turn_misses)) {
        nas_graph_free(k->graph);
        k->graph = NULL;
        status = nas_oneshot_table_network(ctx, c->o, c->t, k->choice, &k->graph);
        for (size_t i = 0; i < n; i++)
            k->results[i] = c->t->results[i * c->t->n_levels + (size_t)k->choice[i]];
    }
    if (status == NAS_OK)
        status = nas_oneshot_divergence(ctx, c->o, k->graph, all, &k->turn_divergence);
    k->has_turn = status == NAS_OK;
    nas_free(schemes);
    return status;
}

static nas_status decide(nas_ctx *ctx, chooser *c) {
    nas_oneshot_candidate *all = c->out->candidates, *uniform = &all[NAS_ONESHOT_UNIFORM];
    nas_oneshot_reference dense = {0};
    nas_oneshot_way best = NAS_ONESHOT_SOLVED;
    if (all[NAS_ONESHOT_MOVED].is_set)
        best = NAS_ONESHOT_MOVED; /* it started from the better one */
    if (uniform->is_set && uniform->divergence < all[best].divergence) best = NAS_ONESHOT_UNIFORM;
    nas_status status =
        nas_oneshot_reference_take(ctx, c->o, c->o->model, NAS_CLASS_REWARD, SIZE_MAX, &dense);
    if (status == NAS_OK) status = finish(ctx, c, &dense, &all[best]);
    if (status == NAS_OK && uniform->is_set && best != NAS_ONESHOT_UNIFORM &&
        memcmp(uniform->choice, all[best].choice, c->t->n_layers * sizeof *uniform->choice) != 0) {
        status = finish(ctx, c, &dense, uniform);
        if (status == NAS_OK && uniform->turn_divergence <= all[best].turn_divergence)
            best = NAS_ONESHOT_UNIFORM;
    }
    c->out->best = best;
    nas_oneshot_reference_deinit(&dense);
    return status;
}

void nas_oneshot_choice_deinit(nas_oneshot_choice *choice) {
    for (int i = 0; i < NAS_ONESHOT_WAY_COUNT; i++) {
        nas_free(choice->candidates[i].choice);
        nas_free(choice->candidates[i].results);
        nas_graph_free(choice->candidates[i].graph);
    }
    *choice = (nas_oneshot_choice){0};
}

nas_status nas_oneshot_choose(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_table *table,
                              const nas_oneshot_choose_options *options, nas_oneshot_choice *out) {
    chooser c = {.o = o, .t = table, .p = options, .out = out};
    *out = (nas_oneshot_choice){0};
    nas_status status =
        nas_oneshot_reference_take(ctx, o, o->model, NAS_CLASS_REWARD, options->images, &c.dense);
    for (int i = 0; i < NAS_ONESHOT_WAY_COUNT && status == NAS_OK; i++) {
        out->candidates[i].choice =
            nas_alloc_array(ctx, table->n_layers, sizeof *out->candidates[i].choice);
        if (out->candidates[i].choice == NULL) status = NAS_ERR_NOMEM;
    }
    if (status == NAS_OK) status = start_solved(ctx, &c);
    if (status == NAS_OK) status = start_uniform(ctx, &c);
    if (status == NAS_OK) status = move(ctx, &c);
    if (status == NAS_OK) status = decide(ctx, &c);
    nas_oneshot_reference_deinit(&c.dense);
    if (status != NAS_OK) nas_oneshot_choice_deinit(out);
    return status;
}

static void unfinish(nas_oneshot_candidate *k) {
    nas_graph_free(k->graph);
    nas_free(k->results);
    k->graph = NULL;
    k->results = NULL;
    k->has_turn = k->turn_misses = false;
}

nas_status nas_oneshot_choose_finish(nas_ctx *ctx, nas_oneshot *o, const nas_oneshot_table *table,
                                     const nas_oneshot_choose_options *options,
                                     nas_oneshot_choice *choice) {
    chooser c = {.o = o, .t = table, .p = options, .out = choice};
    for (int i = 0; i < NAS_ONESHOT_WAY_COUNT; i++)
        unfinish(&choice->candidates[i]);
    return decide(ctx, &c);
}
