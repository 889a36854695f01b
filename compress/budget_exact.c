/* budget_exact.c - the least loss, proved: layer after layer all partial sums that are neither dominated nor hopeless. A sum is
 * hopeless when even the linear relaxation of the layers left (each moves along the lower convex hull of its levels, the
 * steepest steps first) cannot bring it below the best answer known. */
#include "compress/budget_internal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { BUCKETS = 10000 };

/* A step of a hull: so much more cost, so much less loss. */
typedef struct hull_step {
    double cost, gain;
    size_t layer;
    int32_t level; /* it leads to */
} hull_step;

typedef struct state {
    double cost, loss;
    size_t parent;
    int32_t level;
} state;

typedef struct solver {
    const nas_budget_layer *layers;
    size_t n_layers;
    double limit;
    hull_step *steps; /* of all layers, steepest first */
    size_t n_steps;
    double *least_cost,
        *least_loss; /* [n_layers + 1]: of the layers from here on: cheapest levels, and their losses */
    int32_t *cheapest; /* [n_layers] */
    int32_t *choice;   /* the best answer known */
    double loss;
    state *states; /* of all layers, one after another */
    size_t n_states, cap_states;
    size_t *first; /* [n_layers + 1] */
    double *sum_cost,
        *sum_gain; /* of the relaxation of the layers from here on, after each of its steps */
    size_t n_sums;
} solver;

/* ---- hulls ------------------------------------------------------------------------------------------------------------ */

static int by_cost(const void *a, const void *b) {
    const hull_step *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->gain != y->gain) return x->gain > y->gain ? -1 : 1; /* here gain = -loss */
    return x->level - y->level;
}

static int by_slope(const void *a, const void *b) {
    const hull_step *x = a, *y = b;
    const double left = x->gain * y->cost, right = y->gain * x->cost;
    if (left != right) return left > right ? -1 : 1;
    if (x->layer != y->layer) return x->layer < y->layer ? -1 : 1;
    return x->level - y->level;
}

/* The lower convex hull of one layer's levels, appended to the steps; points [n_levels] is scratch. */
static void add_hull(solver *s, size_t l, hull_step *points) {
    const nas_budget_layer *layer = &s->layers[l];
    size_t n = 0;
    for (int32_t k = 0; k < layer->n_levels; k++)
        points[k] = (hull_step){layer->levels[k].cost, -layer->levels[k].loss, l, k};
    qsort(points, (size_t)layer->n_levels, sizeof *points, by_cost);
    for (int32_t k = 0; k < layer->n_levels; k++) {
        const hull_step p = points[k];
        if (n > 0 && p.gain <= points[n - 1].gain) continue; /* dominated */
        while (n > 1 &&
               (p.gain - points[n - 1].gain) * (points[n - 1].cost - points[n - 2].cost) >=
                   (points[n - 1].gain - points[n - 2].gain) * (p.cost - points[n - 1].cost))
            n--;
        points[n++] = p;
    }
    s->cheapest[l] = points[0].level;
    for (size_t k = 1; k < n; k++)
        s->steps[s->n_steps++] =
            (hull_step){points[k].cost - points[k - 1].cost, points[k].gain - points[k - 1].gain, l,
                        points[k].level};
}

static nas_status make_hulls(nas_ctx *ctx, solver *s) {
    size_t all = 0, most = 0;
    for (size_t l = 0; l < s->n_layers; l++) {
        all += (size_t)s->layers[l].n_levels;
        if ((size_t)s->layers[l].n_levels > most) most = (size_t)s->layers[l].n_levels;
    }
    hull_step *points = nas_alloc_array(ctx, most, sizeof *points);
    s->steps = nas_alloc_array(ctx, all, sizeof *s->steps);
    s->sum_cost = nas_alloc_array(ctx, all + 1, sizeof *s->sum_cost);
    s->sum_gain = nas_alloc_array(ctx, all + 1, sizeof *s->sum_gain);
    const bool done =
        points != NULL && s->steps != NULL && s->sum_cost != NULL && s->sum_gain != NULL;
    for (size_t l = 0; done && l < s->n_layers; l++)
        add_hull(s, l, points);
    nas_free(points);
    if (!done) return NAS_ERR_NOMEM;
    qsort(s->steps, s->n_steps, sizeof *s->steps, by_slope);
    for (size_t l = s->n_layers; l-- > 0;) {
        const nas_budget_level *v = &s->layers[l].levels[s->cheapest[l]];
        s->least_cost[l] = s->least_cost[l + 1] + v->cost;
        s->least_loss[l] = s->least_loss[l + 1] + v->loss;
    }
    return NAS_OK;
}

/* ---- relaxation ---------------------------------------------------------------------------------------------------------- */

static void sum_steps(solver *s, size_t from_layer) {
    s->n_sums = 1;
    s->sum_cost[0] = s->sum_gain[0] = 0;
    for (size_t i = 0; i < s->n_steps; i++) {
        if (s->steps[i].layer < from_layer) continue;
        s->sum_cost[s->n_sums] = s->sum_cost[s->n_sums - 1] + s->steps[i].cost;
        s->sum_gain[s->n_sums] = s->sum_gain[s->n_sums - 1] + s->steps[i].gain;
        s->n_sums++;
    }
}

/* The most that the layers from here on can gain for `room` beyond their cheapest levels. */
static double most_gain(const solver *s, double room) {
    size_t low = 0, high = s->n_sums - 1; /* sum_cost[low] <= room */
    while (low < high) {
        const size_t mid = (low + high + 1) / 2;
        if (s->sum_cost[mid] <= room) {
            low = mid;
        } else {
            high = mid - 1;
        }
    }
    if (low + 1 == s->n_sums) return s->sum_gain[low];
    const double share = (room - s->sum_cost[low]) / (s->sum_cost[low + 1] - s->sum_cost[low]);
    return s->sum_gain[low] + share * (s->sum_gain[low + 1] - s->sum_gain[low]);
}

/* The relaxed answer with every step that still fits: where the search begins. */
static void greedy(solver *s) {
    nas_budget_total total;
    double room = nas__budget_slack(s->limit) - s->least_cost[0];
    memcpy(s->choice, s->cheapest, s->n_layers * sizeof *s->choice);
    for (size_t i = 0; i < s->n_steps; i++) {
        const hull_step *step = &s->steps[i];
        const nas_budget_level *levels = s->layers[step->layer].levels;
        const double more = levels[step->level].cost - levels[s->choice[step->layer]].cost;
        if (more > room) continue;
        room -= more;
        s->choice[step->layer] = step->level;
    }
    nas__budget_sum(s->layers, s->n_layers, s->choice, &total);
    if (total.cost > nas__budget_slack(s->limit)) { /* by rounding */
        memcpy(s->choice, s->cheapest, s->n_layers * sizeof *s->choice);
        nas__budget_sum(s->layers, s->n_layers, s->choice, &total);
    }
    s->loss = total.loss;
}

/* ---- partial sums ---------------------------------------------------------------------------------------------------------- */

static int by_state(const void *a, const void *b) {
    const state *x = a, *y = b;
    if (x->cost != y->cost) return x->cost < y->cost ? -1 : 1;
    if (x->loss != y->loss) return x->loss < y->loss ? -1 : 1;
    return x->level - y->level;
}

/* All sums of the layers before with each level of layer l, then only those that matter. */
static nas_status extend(nas_ctx *ctx, solver *s, size_t l, bool *fits) {
    const size_t begin = s->first[l], end = s->n_states;
    const nas_budget_layer *layer = &s->layers[l];
    const double slack = nas__budget_slack(s->limit);
    sum_steps(s, l + 1);
    for (size_t i = begin; i < end; i++) {
        if (s->n_states + (size_t)layer->n_levels > NAS_BUDGET_STATES_MAX) {
            *fits = false;
            return NAS_OK;
        }
        const nas_status status =
            nas_grow(ctx, &s->states, &s->cap_states, s->n_states + (size_t)layer->n_levels,
                     sizeof *s->states);
        if (status != NAS_OK) return status;
        for (int32_t k = 0; k < layer->n_levels; k++) {
            const state t = {s->states[i].cost + layer->levels[k].cost,
                             s->states[i].loss + layer->levels[k].loss, i, k};
            const double room = slack - t.cost - s->least_cost[l + 1];
            if (room < 0) continue;
            const double bound = t.loss + s->least_loss[l + 1] - most_gain(s, room);
            if (bound >= s->loss) continue;
            s->states[s->n_states++] = t;
        }
    }
    const size_t made = s->n_states - end;
    qsort(s->states + end, made, sizeof *s->states, by_state);
    s->n_states = end;
    for (size_t i = end; i < end + made; i++) {
        if (s->n_states > end && s->states[i].loss >= s->states[s->n_states - 1].loss) continue;
        s->states[s->n_states++] = s->states[i];
    }
    s->first[l + 1] = end;
    return nas_check_cancel(ctx);
}

static void take_best(solver *s) {
    size_t best = s->n_states;
    for (size_t i = s->first[s->n_layers]; i < s->n_states; i++) {
        if (s->states[i].loss < s->loss) {
            best = i;
            s->loss = s->states[i].loss;
        }
    }
    if (best == s->n_states) return; /* what was known is the best */
    for (size_t l = s->n_layers; l-- > 0; best = s->states[best].parent)
        s->choice[l] = s->states[best].level;
}

static nas_status solve(nas_ctx *ctx, solver *s, bool *exact) {
    nas_status status = make_hulls(ctx, s);
    if (status != NAS_OK) return status;
    greedy(s);
    int32_t *other = nas_alloc_array(ctx, s->n_layers, sizeof *other);
    if (other == NULL) return NAS_ERR_NOMEM;
    nas_budget_total total;
    /* rounding up may leave nothing that fits; the greedy answer does */
    if (nas_budget_buckets(ctx, s->layers, s->n_layers, s->limit, BUCKETS, other, &total) ==
            NAS_OK &&
        total.loss < s->loss && total.cost <= nas__budget_slack(s->limit)) {
        s->loss = total.loss;
        memcpy(s->choice, other, s->n_layers * sizeof *other);
    }
    nas_free(other);
    status = nas_check_cancel(ctx);
    if (status == NAS_OK) status = nas_grow(ctx, &s->states, &s->cap_states, 1, sizeof *s->states);
    if (status != NAS_OK) return status;
    s->states[0] = (state){0};
    s->n_states = 1;
    *exact = true;
    for (size_t l = 0; l < s->n_layers && status == NAS_OK && *exact; l++)
        status = extend(ctx, s, l, exact);
    if (status == NAS_OK && *exact) take_best(s);
    return status;
}

nas_status nas_budget_solve(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                            double limit, int32_t *choice, nas_budget_total *total) {
    nas_status status = nas__budget_check(ctx, layers, n_layers, limit);
    if (status != NAS_OK) return status;
    solver s = {.layers = layers, .n_layers = n_layers, .limit = limit};
    bool exact = false;
    s.least_cost = nas_alloc_array(ctx, n_layers + 1, sizeof *s.least_cost);
    s.least_loss = nas_alloc_array(ctx, n_layers + 1, sizeof *s.least_loss);
    s.cheapest = nas_alloc_array(ctx, n_layers, sizeof *s.cheapest);
    s.choice = nas_alloc_array(ctx, n_layers, sizeof *s.choice);
    s.first = nas_alloc_array(ctx, n_layers + 1, sizeof *s.first);
    if (s.least_cost == NULL || s.least_loss == NULL || s.cheapest == NULL || s.choice == NULL ||
        s.first == NULL)
        status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = solve(ctx, &s, &exact);
    if (status == NAS_OK) {
        memcpy(choice, s.choice, n_layers * sizeof *choice);
        nas__budget_sum(layers, n_layers, choice, total);
        total->exact = exact;
    }
    nas_free(s.least_cost);
    nas_free(s.least_loss);
    nas_free(s.cheapest);
    nas_free(s.choice);
    nas_free(s.first);
    nas_free(s.steps);
    nas_free(s.sum_cost);
    nas_free(s.sum_gain);
    nas_free(s.states);
    return status;
}
