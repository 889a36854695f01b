/* budget.c - checks, and the dynamic programme over buckets. The exact solver is budget_exact.c. */
#include "compress/budget.h"
#include "compress/budget_internal.h"

#include <math.h>
#include <string.h>

nas_status nas__budget_check(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                             double limit) {
    if (n_layers < 1 || n_layers > NAS_BUDGET_LAYERS_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "budget over %zu layers; 1 to %d are possible",
                        n_layers, NAS_BUDGET_LAYERS_MAX);
    if (!isfinite(limit) || limit < 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "budget of %g: it has to be a number >= 0", limit);
    double least = 0;
    for (size_t l = 0; l < n_layers; l++) {
        double cheapest = INFINITY;
        if (layers[l].n_levels < 1 || layers[l].n_levels > NAS_BUDGET_LEVELS_MAX)
            return nas_fail(ctx, NAS_ERR_RANGE, "budget: layer %zu has %d levels; 1 to %d", l,
                            (int)layers[l].n_levels, NAS_BUDGET_LEVELS_MAX);
        for (int32_t k = 0; k < layers[l].n_levels; k++) {
            const nas_budget_level *v = &layers[l].levels[k];
            if (!isfinite(v->cost) || v->cost < 0 || !isfinite(v->loss))
                return nas_fail(ctx, NAS_ERR_INVALID,
                                "budget: layer %zu, level %d costs %g and loses %g: finite "
                                "numbers, costs >= 0",
                                l, (int)k, v->cost, v->loss);
            cheapest = fmin(cheapest, v->cost);
        }
        least += cheapest;
    }
    if (least <= nas__budget_slack(limit)) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE,
                    "budget of %g: even the cheapest level of every layer needs %g", limit, least);
}

double nas__budget_slack(double limit) {
    return limit * (1 + 1e-12);
}

void nas__budget_sum(const nas_budget_layer *layers, size_t n_layers, const int32_t *choice,
                     nas_budget_total *total) {
    total->cost = total->loss = 0;
    for (size_t l = 0; l < n_layers; l++) {
        total->cost += layers[l].levels[choice[l]].cost;
        total->loss += layers[l].levels[choice[l]].loss;
    }
}

/* best[b]: least loss of the layers so far with exactly b buckets used; INFINITY: impossible. */
static void add_layer(const nas_budget_layer *layer, double bucket, int32_t buckets,
                      const double *best, double *next, int16_t *level) {
    for (int32_t b = 0; b <= buckets; b++)
        next[b] = INFINITY;
    for (int32_t k = 0; k < layer->n_levels; k++) {
        const double need = bucket > 0 ? ceil(layer->levels[k].cost / bucket)
                                       : (layer->levels[k].cost > 0 ? INFINITY : 0);
        if (need > buckets) continue;
        const int32_t used = (int32_t)need;
        for (int32_t b = used; b <= buckets; b++) {
            const double loss = best[b - used] + layer->levels[k].loss;
            if (loss < next[b]) {
                next[b] = loss;
                level[b] = (int16_t)k;
            }
        }
    }
}

static nas_status trace(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                        double bucket, int32_t buckets, const double *best, const int16_t *level,
                        int32_t *choice) {
    int32_t b = 0;
    for (int32_t k = 1; k <= buckets; k++) {
        if (best[k] < best[b]) b = k;
    }
    if (isinf(best[b]))
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "budget: nothing fits once costs are rounded up to %d buckets; take more",
                        (int)buckets);
    for (size_t l = n_layers; l-- > 0;) {
        choice[l] = level[l * ((size_t)buckets + 1) + (size_t)b];
        const double cost = layers[l].levels[choice[l]].cost;
        b -= bucket > 0 ? (int32_t)ceil(cost / bucket) : 0;
    }
    return NAS_OK;
}

nas_status nas_budget_buckets(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                              double limit, int32_t buckets, int32_t *choice,
                              nas_budget_total *total) {
    nas_status status = nas__budget_check(ctx, layers, n_layers, limit);
    if (status != NAS_OK) return status;
    if (buckets < 1 || buckets > NAS_BUDGET_BUCKETS_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "budget in %d buckets; 1 to %d", (int)buckets,
                        NAS_BUDGET_BUCKETS_MAX);
    const double bucket = limit / buckets;
    const size_t row = (size_t)buckets + 1;
    size_t cells = 0;
    status = nas_mul_size(ctx, row, n_layers, &cells);
    double *best = nas_alloc_array(ctx, row, sizeof *best);
    double *next = nas_alloc_array(ctx, row, sizeof *next);
    int16_t *level = status == NAS_OK ? nas_alloc_array(ctx, cells, sizeof *level) : NULL;
    int32_t *chosen = nas_alloc_array(ctx, n_layers, sizeof *chosen);
    if (best == NULL || next == NULL || level == NULL || chosen == NULL) status = NAS_ERR_NOMEM;
    for (size_t b = 1; status == NAS_OK && b < row; b++)
        best[b] = INFINITY;
    for (size_t l = 0; l < n_layers && status == NAS_OK; l++) {
        status = nas_check_cancel(ctx);
        if (status != NAS_OK) break;
        add_layer(&layers[l], bucket, buckets, best, next, level + l * row);
        double *t = best;
        best = next;
        next = t;
    }
    if (status == NAS_OK)
        status = trace(ctx, layers, n_layers, bucket, buckets, best, level, chosen);
    if (status == NAS_OK) {
        memcpy(choice, chosen, n_layers * sizeof *choice);
        *total = (nas_budget_total){0};
        nas__budget_sum(layers, n_layers, choice, total);
    }
    nas_free(best);
    nas_free(next);
    nas_free(level);
    nas_free(chosen);
    return status;
}
