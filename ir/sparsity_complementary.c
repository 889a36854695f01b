/* sparsity_complementary.c - masks of filters that do not overlap (Hunter et al., arXiv:2112.13896): the filters of a set can
 * be laid over each other as one dense filter, each weight with the number of its owner.
 *
 * The partitioned form: steps of the sum in runs as long as the set has filters, and each filter owns one step of each run.
 * Which one is an assignment problem for each run; sets are small, so all subsets of steps are tried: the masks keep the
 * largest sum of squares that any such masks do. */
#include "ir/ir_internal.h"
#include "ir/sparsity.h"

#include <string.h>

enum { SET = NAS_SPARSITY_SET_MAX, SUBSETS = 1 << SET, NOTHING = SET };

/* One run: `steps` of them for `filters`, at most one each. */
typedef struct run {
    int32_t filters, steps;
    double energy[SET][SET]; /* of a filter at a step */
    double
        best[SUBSETS]; /* of the filters so far when they own just this subset; < 0: they cannot */
    uint8_t choice[SET][SUBSETS]; /* the step that a filter owns then, or NOTHING */
} run;

/* The next filter takes a step, or goes without where there are fewer steps than filters; of equal ones the first step. */
static void add_filter(run *r, int32_t filter) {
    for (int32_t subset = (1 << r->steps) - 1; subset >= 0;
         subset--) { /* smaller subsets are of before */
        double most = r->filters > r->steps ? r->best[subset] : -1;
        r->choice[filter][subset] = NOTHING;
        for (int32_t step = r->steps - 1; step >= 0; step--) {
            if ((subset >> step & 1) == 0) continue;
            const double before = r->best[subset ^ 1 << step];
            if (before < 0 || before + r->energy[filter][step] < most) continue;
            most = before + r->energy[filter][step];
            r->choice[filter][subset] = (uint8_t)step;
        }
        r->best[subset] = most;
    }
}

/* owner[step]: the filter, or -1. */
static void assign(run *r, int32_t owner[SET]) {
    const int32_t subsets = 1 << r->steps;
    int32_t subset = subsets - 1;
    for (int32_t s = 0; s < subsets; s++)
        r->best[s] = s == 0 ? 0 : -1;
    for (int32_t f = 0; f < r->filters; f++)
        add_filter(r, f);
    for (int32_t s = subsets - 1; s >= 0; s--) {
        if (r->best[s] > r->best[subset]) subset = s;
    }
    for (int32_t step = 0; step < r->steps; step++)
        owner[step] = -1;
    for (int32_t f = r->filters - 1; f >= 0; f--) {
        const int32_t step = r->choice[f][subset];
        if (step == NOTHING) continue;
        owner[step] = f;
        subset ^= 1 << step;
    }
}

void nas__complementary_mask(const float *weight, const int32_t dims[4], int32_t set,
                             uint8_t *kept) {
    const int32_t taps = dims[1] * dims[2], inputs = dims[3];
    const size_t filter = (size_t)taps * (size_t)inputs;
    run r;
    memset(kept, 0, (size_t)dims[0] * filter);
    for (int32_t first = 0; first < dims[0]; first += set) {
        r.filters = dims[0] - first < set ? dims[0] - first : set;
        for (int32_t k = 0; k < taps * inputs; k += r.steps) {
            const int32_t left = inputs - k % inputs; /* of this tap */
            const size_t at = (size_t)first * filter + (size_t)k;
            int32_t owner[SET];
            r.steps = left < set ? left : set;
            for (int32_t f = 0; f < r.filters; f++) {
                for (int32_t i = 0; i < r.steps; i++) {
                    const double w = (double)weight[at + (size_t)f * filter + (size_t)i];
                    r.energy[f][i] = w * w;
                }
            }
            assign(&r, owner);
            for (int32_t i = 0; i < r.steps; i++) {
                if (owner[i] >= 0) kept[at + (size_t)owner[i] * filter + (size_t)i] = 1;
            }
        }
    }
}

uint64_t nas_sparsity_packed_bytes(const int32_t dims[4], int32_t set, int32_t bits) {
    const uint64_t sets = ((uint64_t)dims[0] + (uint64_t)set - 1) / (uint64_t)set;
    const uint64_t steps = (uint64_t)dims[1] * (uint64_t)dims[2] * (uint64_t)dims[3];
    uint64_t owner_bits = 0;
    while (1 << owner_bits < set)
        owner_bits++;
    return (sets * steps * ((uint64_t)bits + owner_bits) + 7) / 8;
}
