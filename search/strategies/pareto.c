/* pareto.c - constraint domination, nondominated ranks and crowding distances (Deb et al. 2002, sections III and VI).
 * The result depends on the set of members only: ties are broken by trial number, never by position. */
#include "search/strategies/strategies_internal.h"

#include <math.h>
#include <stdlib.h>

bool nas_dominates(int32_t n, const double *a, double violation_a, const double *b,
                   double violation_b) {
    if (violation_a != violation_b) return violation_a < violation_b;
    bool better = false;
    for (int32_t i = 0; i < n; i++) {
        if (a[i] > b[i]) return false;
        if (a[i] < b[i]) better = true;
    }
    return better;
}

nas_status nas__ranking_init(nas_ctx *ctx, int32_t capacity, nas__ranking *out) {
    const size_t n = (size_t)capacity;
    nas__ranking r = {
        .rank = nas_alloc_array(ctx, n, sizeof *r.rank),
        .crowding = nas_alloc_array(ctx, n, sizeof *r.crowding),
        .dominators = nas_alloc_array(ctx, n, sizeof *r.dominators),
        .order = nas_alloc_array(ctx, n, sizeof *r.order),
        .keys = nas_alloc_array(ctx, n, sizeof *r.keys),
    };
    if (r.rank == NULL || r.crowding == NULL || r.dominators == NULL || r.order == NULL ||
        r.keys == NULL) {
        nas__ranking_deinit(&r);
        return NAS_ERR_NOMEM;
    }
    *out = r;
    return NAS_OK;
}

void nas__ranking_deinit(nas__ranking *r) {
    nas_free(r->keys);
    nas_free(r->order);
    nas_free(r->dominators);
    nas_free(r->crowding);
    nas_free(r->rank);
    *r = (nas__ranking){0};
}

static bool dominates(int32_t n_objectives, const nas__member *a, const nas__member *b) {
    return nas_dominates(n_objectives, a->values, a->violation, b->values, b->violation);
}

static int compare_keys(const void *pa, const void *pb) {
    const nas__sort_key *a = pa, *b = pb;
    if (a->value != b->value) return a->value < b->value ? -1 : 1;
    return (a->trial > b->trial) - (a->trial < b->trial);
}

/* Crowding of one rank, whose members are order[0..n): the sum over objectives of the gap between the two neighbours,
 * as a share of the rank's range. Halved before subtracting, so that no finite value overflows. */
static void crowd(nas__ranking *r, int32_t n_objectives, const nas__member *members,
                  const int32_t *order, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        r->crowding[order[i]] = 0;
    for (int32_t k = 0; k < n_objectives; k++) {
        for (int32_t i = 0; i < n; i++) {
            const nas__member *m = &members[order[i]];
            r->keys[i] =
                (nas__sort_key){.value = 0.5 * m->values[k], .trial = m->trial, .index = order[i]};
        }
        qsort(r->keys, (size_t)n, sizeof r->keys[0], compare_keys);
        const double range = r->keys[n - 1].value - r->keys[0].value;
        if (range <= 0) continue; /* tells nobody apart */
        r->crowding[r->keys[0].index] = INFINITY;
        r->crowding[r->keys[n - 1].index] = INFINITY;
        for (int32_t i = 1; i < n - 1; i++) {
            r->crowding[r->keys[i].index] += (r->keys[i + 1].value - r->keys[i - 1].value) / range;
        }
    }
}

void nas__rank(nas__ranking *r, int32_t n_objectives, const nas__member *members, int32_t n) {
    for (int32_t i = 0; i < n; i++) {
        r->rank[i] = -1;
        r->dominators[i] = 0;
        for (int32_t j = 0; j < n; j++)
            r->dominators[i] += dominates(n_objectives, &members[j], &members[i]);
    }
    /* Peels rank after rank: order[begin..end) is the current one. Domination has no cycles, so none is empty. */
    int32_t end = 0;
    for (int32_t rank = 0; end < n; rank++) {
        const int32_t begin = end;
        for (int32_t i = 0; i < n; i++) {
            if (r->rank[i] >= 0 || r->dominators[i] != 0) continue;
            r->rank[i] = rank;
            r->order[end++] = i;
        }
        for (int32_t i = begin; i < end; i++) {
            for (int32_t j = 0; j < n; j++) {
                if (r->rank[j] < 0 && dominates(n_objectives, &members[r->order[i]], &members[j])) {
                    r->dominators[j]--;
                }
            }
        }
        crowd(r, n_objectives, members, &r->order[begin], end - begin);
    }
}

bool nas__ranked_before(const nas__ranking *r, int32_t a, int32_t b) {
    if (r->rank[a] != r->rank[b]) return r->rank[a] < r->rank[b];
    return r->crowding[a] > r->crowding[b];
}
