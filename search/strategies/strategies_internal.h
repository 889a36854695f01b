/* strategies_internal.h - shared inside search/strategies/ only.
 *
 * All state of all strategies is one plain struct: the random stream, the points asked so far, the batch that is out and
 * the members (parents). A strategy is a const struct of three functions on it; saving, loading, duplicates, seeds and
 * batches are common. What is not saved (the ranking) is recomputed from the members. */
#ifndef NAS_SEARCH_STRATEGIES_STRATEGIES_INTERNAL_H
#define NAS_SEARCH_STRATEGIES_STRATEGIES_INTERNAL_H

#include "search/strategies/strategy.h"

/* A point with its result. */
typedef struct nas__member {
    nas_point point;
    int64_t trial;
    double values[NAS_OBJECTIVES_MAX];
    double violation;
} nas__member;

/* A point that was asked; values and violation are set when state is COMPLETE. */
typedef struct nas__slot {
    nas__member member;
    nas_told_state state;
    bool told;
} nas__slot;

/* ---- the set of asked points (seen.c) -------------------------------------------------------------------------- */

/* By 64-bit hash: of two points with equal hashes the second is never proposed, which is harmless. */
typedef struct nas__seen {
    uint64_t *hashes; /* in the order added */
    size_t n, cap;
    uint32_t *
        table; /* open addressing: index into hashes + 1, 0 = free; table_size is 0 or a power of two */
    size_t table_size;
} nas__seen;

bool nas__seen_has(const nas__seen *seen, uint64_t hash);
/* nas__seen_reserve - after it, one nas__seen_add cannot fail. */
nas_status nas__seen_reserve(nas_ctx *ctx, nas__seen *seen);
void nas__seen_add(nas__seen *seen, uint64_t hash); /* a new hash */
void nas__seen_deinit(nas__seen *seen);

/* ---- nondominated sorting (pareto.c) ---------------------------------------------------------------------------- */

typedef struct nas__sort_key {
    double value;
    int64_t trial;
    int32_t index;
} nas__sort_key;

/* rank[i]: 0 = not dominated, 1 = dominated by rank 0 only, ...; crowding[i] >= 0, INFINITY at the ends of a rank. */
typedef struct nas__ranking {
    int32_t *rank;
    double *crowding;
    int32_t *dominators; /* scratch */
    int32_t *order;      /* scratch: indices by rank */
    nas__sort_key *keys; /* scratch */
} nas__ranking;

nas_status nas__ranking_init(nas_ctx *ctx, int32_t capacity, nas__ranking *out);
void nas__ranking_deinit(nas__ranking *r);
/* nas__rank - Deb et al. 2002, with constraint domination; n <= capacity. Depends on the set of members only, not on
 * their order. */
void nas__rank(nas__ranking *r, int32_t n_objectives, const nas__member *members, int32_t n);
/* nas__ranked_before - lower rank, then larger crowding: the crowded comparison. False both ways: equal. */
bool nas__ranked_before(const nas__ranking *r, int32_t a, int32_t b);

/* ---- strategies --------------------------------------------------------------------------------------------------- */

typedef struct nas__strategy_ops {
    const char *name;
    /* Points in the batch that is now out; NULL: no batches, points are asked without end. */
    int32_t (*batch_size)(const nas_strategy *s);
    /* One candidate from s->rng and the members; called again when it was asked before. */
    void (*propose)(nas_strategy *s, nas_point *out);
    /* The whole batch is told and in order of trials: brings the members up to date. NULL when batch_size is. */
    void (*advance)(nas_strategy *s);
    /* Of strategies that learn from all members and forget none; both or none. */
    nas_status (*start)(nas_ctx *ctx, nas_strategy *s); /* makes s->agent, unless it is there */
    nas_status (*reserve)(nas_ctx *ctx, nas_strategy *s, size_t members); /* room to learn them */
} nas__strategy_ops;

typedef struct nas__agent nas__agent;

struct nas_strategy {
    const nas__strategy_ops *ops;
    const nas_space *space;
    nas_strategy_options options;
    nas_rng rng;
    int64_t batches;  /* completed */
    nas_point *seeds; /* not proposed yet: seeds[next_seed..n_seeds) */
    size_t n_seeds, next_seed, cap_seeds;
    nas__slot *batch; /* in the order asked */
    size_t n_batch, n_told, cap_batch;
    nas__member
        *members; /* evolution: oldest first; policies: all, in order of trials in a batch */
    int32_t
        n_members; /* at most 2 * population inside advance, population outside; policies: no limit */
    size_t cap_members;
    uint64_t seed;        /* policies only: what the weights were drawn from */
    nas__agent *agent;    /* policies only */
    double *encoder;      /* agmc only: the weights its encoder began with, NULL: drawn */
    nas__ranking ranking; /* of the members */
    nas__seen seen;
};

extern const nas__strategy_ops nas__random_ops;
extern const nas__strategy_ops nas__evolution_ops;
extern const nas__strategy_ops nas__nsga2_ops;
extern const nas__strategy_ops nas__greedy_ops;
extern const nas__strategy_ops nas__ddpg_ops;
extern const nas__strategy_ops nas__agmc_ops;

/* nas__members_reserve - room for n members, and for an agent to learn them. */
nas_status nas__members_reserve(nas_ctx *ctx, nas_strategy *s, size_t n);
/* nas__completed_join - appends the completed points of the batch to the members. */
void nas__completed_join(nas_strategy *s);
/* nas__members_rank - brings s->ranking up to date. */
void nas__members_rank(nas_strategy *s);
/* nas__batch_size - INT32_MAX without batches. */
int32_t nas__batch_size(const nas_strategy *s);

#endif
