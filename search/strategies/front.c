/* front.c - the Pareto front, kept one addition at a time, and its hypervolume.
 *
 * The members are held once per objective but the last, each list ascending by "its" objective; with them the
 * hypervolume sweeps without sorting or scratch memory: slabs along the first objective, in each slab slabs along the
 * second, and so on (hypervolume by slicing objectives; While, Hingston, Barone & Huband, IEEE Trans. Evol. Comp.
 * 10(1), 2006). */
#include "search/strategies/strategy.h"

#include <assert.h>
#include <math.h>
#include <string.h>

typedef struct front_member {
    int64_t trial;
    double values[NAS_OBJECTIVES_MAX];
} front_member;

struct nas_front {
    int32_t n_objectives;
    size_t n;
    int32_t n_lists;
    front_member
        *by[NAS_OBJECTIVES_MAX]; /* by[k], k < n_lists: the n members, ascending by values[k] */
    size_t cap[NAS_OBJECTIVES_MAX];
};

nas_status nas_front_new(nas_ctx *ctx, int32_t n_objectives, nas_front **out) {
    if (n_objectives < 1 || n_objectives > NAS_OBJECTIVES_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "front: %" PRId32 " objectives, limit 1..%d",
                        n_objectives, (int)NAS_OBJECTIVES_MAX);
    }
    nas_front *front = nas_alloc_array(ctx, 1, sizeof *front);
    if (front == NULL) return NAS_ERR_NOMEM;
    front->n_objectives = n_objectives;
    front->n_lists = n_objectives == 1 ? 1 : n_objectives - 1;
    *out = front;
    return NAS_OK;
}

void nas_front_free(nas_front *front) {
    if (front == NULL) return;
    for (int32_t k = 0; k < front->n_objectives; k++)
        nas_free(front->by[k]);
    nas_free(front);
}

static bool weakly_dominates(int32_t n, const double *a, const double *b) {
    for (int32_t i = 0; i < n; i++) {
        if (a[i] > b[i]) return false;
    }
    return true;
}

/* Drops what `fresh` dominates, inserts it at its place by objective k; returns the new length. */
static size_t insert(front_member *list, size_t n, int32_t n_objectives, int32_t k,
                     const front_member *fresh) {
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (!weakly_dominates(n_objectives, fresh->values, list[i].values)) list[kept++] = list[i];
    }
    size_t at = kept;
    while (at > 0 && list[at - 1].values[k] > fresh->values[k])
        at--;
    memmove(&list[at + 1], &list[at], (kept - at) * sizeof list[0]);
    list[at] = *fresh;
    return kept + 1;
}

nas_status nas_front_add(nas_ctx *ctx, nas_front *front, int64_t trial, const double *values,
                         bool *joined) {
    const int32_t n_objectives = front->n_objectives;
    front_member fresh = {.trial = trial};
    for (int32_t k = 0; k < n_objectives; k++) {
        if (!isfinite(values[k])) {
            return nas_fail(ctx, NAS_ERR_RANGE,
                            "front: value %" PRId32 " of trial %" PRId64 " is %g", k, trial,
                            values[k]);
        }
        fresh.values[k] = values[k];
    }
    for (size_t i = 0; i < front->n; i++) {
        if (weakly_dominates(n_objectives, front->by[0][i].values, values)) {
            *joined = false;
            return NAS_OK;
        }
    }
    for (int32_t k = 0; k < front->n_lists; k++) {
        const nas_status status =
            nas_grow(ctx, &front->by[k], &front->cap[k], front->n + 1, sizeof *front->by[k]);
        if (status != NAS_OK) return status;
    }
    size_t n = 0;
    for (int32_t k = 0; k < front->n_lists; k++)
        n = insert(front->by[k], front->n, n_objectives, k, &fresh);
    front->n = n;
    *joined = true;
    return NAS_OK;
}

size_t nas_front_size(const nas_front *front) {
    return front->n;
}

int64_t nas_front_trial(const nas_front *front, size_t index) {
    assert(index < front->n);
    return front->by[0][index].trial;
}

const double *nas_front_values(const nas_front *front, size_t index) {
    assert(index < front->n);
    return front->by[0][index].values;
}

static bool within(const front_member *m, int32_t level, const double *limits) {
    return weakly_dominates(level, m->values, limits);
}

/* Volume, in objectives level.., dominated by the members whose values[0..level) are within `limits`. Slabs reach from
 * one member to the next along objective `level`; within a slab everything up to its lower side counts. */
static double volume(const nas_front *front, const double *reference, int32_t level,
                     double *limits) {
    const int32_t last = front->n_objectives - 1;
    const front_member *list = front->by[level];
    double sum = 0, begin = 0,
           lowest = reference[last]; /* lowest: running minimum, used at the last level but one */
    bool open = false;
    for (size_t i = 0; i < front->n && list[i].values[level] < reference[level]; i++) {
        if (!within(&list[i], level, limits)) continue;
        if (open && list[i].values[level] > begin) {
            limits[level] = begin;
            const double below = level == last - 1 ? reference[last] - lowest
                                                   : volume(front, reference, level + 1, limits);
            sum += (list[i].values[level] - begin) * below;
        }
        open = true;
        begin = list[i].values[level];
        lowest = fmin(lowest, list[i].values[last]);
    }
    if (!open) return 0;
    limits[level] = begin;
    const double below =
        level == last - 1 ? reference[last] - lowest : volume(front, reference, level + 1, limits);
    return sum + (reference[level] - begin) * below;
}

double nas_front_hypervolume(const nas_front *front, const double *reference) {
    double limits[NAS_OBJECTIVES_MAX] = {0};
    if (front->n == 0) return 0;
    if (front->n_objectives == 1) return fmax(0, reference[0] - front->by[0][0].values[0]);
    return volume(front, reference, 0, limits);
}
