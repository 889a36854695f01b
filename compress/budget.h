/* budget.h - one level for each layer, so that the sum of costs stays within a limit and the sum of losses is least.
 *
 * Two solvers. Buckets: dynamic programming over costs rounded up to limit/buckets (SPDY, arXiv:2201.13096; they round to the
 * nearest, which lets sums exceed the limit). Its answer always fits; it is optimal but for the rounding. Exact: partial sums
 * that no other one dominates, pruned by the linear relaxation of what is left against the best answer known. Sums fit when
 * they are at most limit*(1 + 1e-12).
 * Levels may cost more and lose more than others (measured times are not monotone): such ones are never chosen.
 * Layer 2: includes core only. */
#ifndef NAS_COMPRESS_BUDGET_H
#define NAS_COMPRESS_BUDGET_H

#include "core/core.h"

enum {
    NAS_BUDGET_LAYERS_MAX = 8192,
    NAS_BUDGET_LEVELS_MAX = 4096, /* of one layer */
    NAS_BUDGET_BUCKETS_MAX = 1000000,
    NAS_BUDGET_STATES_MAX = 4000000, /* partial sums of the exact solver, all layers together */
};

typedef struct nas_budget_level {
    double cost; /* finite, >= 0 */
    double loss; /* finite */
} nas_budget_level;

typedef struct nas_budget_layer {
    const nas_budget_level *levels;
    int32_t n_levels; /* 1..LEVELS_MAX */
} nas_budget_layer;

typedef struct nas_budget_total {
    double cost, loss;
    bool exact; /* proved to be the least loss */
} nas_budget_total;

/* nas_budget_buckets - choice[layer] = number of a level. buckets 1..BUCKETS_MAX. Errors: INVALID (a number not finite, a cost
 * < 0, no levels), RANGE (too many of something; even the cheapest levels exceed the limit, in buckets). */
nas_status nas_budget_buckets(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                              double limit, int32_t buckets, int32_t *choice,
                              nas_budget_total *total);

/* nas_budget_solve - the exact one. When it would need more than STATES_MAX partial sums, the answer of 10,000 buckets (or the
 * best relaxed one) stands and total->exact is false. Of equal losses any. Errors as above. */
nas_status nas_budget_solve(nas_ctx *ctx, const nas_budget_layer *layers, size_t n_layers,
                            double limit, int32_t *choice, nas_budget_total *total);

#endif
