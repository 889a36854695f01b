/* strategy.h - how points are proposed: pure ask/tell, no clock, no I/O, the seed handed in.
 *
 * Contract: for equal (name, options, space, seed) and equal told results the proposals are equal. Results may be told
 * in any order within a batch: a strategy acts on a batch only when all its asked points were told, in trial order.
 * No point is proposed twice while the space has unseen points (bounded retries, then NAS_ERR_NOTFOUND "exhausted").
 * The whole state, RNG included, goes into one text blob that the database stores with each ask and tell.
 * All objective values are minimised here; the study negates the maximised ones.
 * Layer 3: includes core, ir, spaces. */
#ifndef NAS_SEARCH_STRATEGIES_STRATEGY_H
#define NAS_SEARCH_STRATEGIES_STRATEGY_H

#include "spaces/space.h"

enum { NAS_OBJECTIVES_MAX = 4 };

typedef enum nas_told_state { NAS_TOLD_COMPLETE, NAS_TOLD_PRUNED, NAS_TOLD_FAILED } nas_told_state;

typedef struct nas_told {
    int64_t trial;                       /* study-wide trial number */
    nas_point point;
    nas_told_state state;
    int32_t n_values;
    double values[NAS_OBJECTIVES_MAX];   /* to minimise; finite; only read for COMPLETE */
    double violation;                    /* sum of relative constraint violations, 0 = feasible, >= 0 */
} nas_told;

typedef struct nas_strategy_options {
    int32_t population;      /* 4..4096; batch size of NSGA-II and evolution's initial population */
    int32_t tournament;      /* 2..population; evolution's sample size S (Real et al., arXiv:1802.01548), NSGA-II 2 */
    double mutation_rate;    /* (0,1] per gene */
    double crossover_rate;   /* [0,1], NSGA-II only */
    int32_t n_objectives;    /* 1..NAS_OBJECTIVES_MAX */
} nas_strategy_options;

nas_strategy_options nas_strategy_options_default(void);

typedef struct nas_strategy nas_strategy;

/* nas_strategy_names - NULL-terminated: "random", "evolution", "nsga2". */
const char *const *nas_strategy_names(void);
/* nas_strategy_new - `space` is borrowed and must outlive it. NOTFOUND lists the known names. */
nas_status nas_strategy_new(nas_ctx *ctx, const char *name, const nas_space *space,
                            const nas_strategy_options *options, uint64_t seed, nas_strategy **out);
void nas_strategy_free(nas_strategy *s);
const char *nas_strategy_name(const nas_strategy *s);
/* nas_strategy_seed - a point to propose first (corner networks, baselines); before the first ask. */
nas_status nas_strategy_seed(nas_ctx *ctx, nas_strategy *s, const nas_point *point);
/* nas_strategy_ready - how many points can be asked now without telling more (NSGA-II: rest of the generation). */
int32_t nas_strategy_ready(const nas_strategy *s);
nas_status nas_strategy_ask(nas_ctx *ctx, nas_strategy *s, nas_point *out);
nas_status nas_strategy_tell(nas_ctx *ctx, nas_strategy *s, const nas_told *told);
/* nas_strategy_save / load - versioned text; load into a fresh strategy of the same name, options and space. */
nas_status nas_strategy_save(nas_ctx *ctx, const nas_strategy *s, nas_buf *out);
nas_status nas_strategy_load(nas_ctx *ctx, nas_strategy *s, const char *text);

/* ---- fronts ---------------------------------------------------------------------------------------------------- */

/* nas_dominates - Deb's constraint domination: feasible beats infeasible, less violation beats more, else Pareto
 * (minimise) over n values. */
bool nas_dominates(int32_t n, const double *a, double violation_a, const double *b, double violation_b);

/* The incrementally kept non-dominated set of feasible and infeasible points (Pareto over values only). */
typedef struct nas_front nas_front;
nas_status nas_front_new(nas_ctx *ctx, int32_t n_objectives, nas_front **out);
void nas_front_free(nas_front *front);
/* nas_front_add - *joined: not dominated by a member (then dominated members left). Equal values: first stays. */
nas_status nas_front_add(nas_ctx *ctx, nas_front *front, int64_t trial, const double *values, bool *joined);
size_t nas_front_size(const nas_front *front);
int64_t nas_front_trial(const nas_front *front, size_t index); /* ascending by values[0] */
const double *nas_front_values(const nas_front *front, size_t index);
/* nas_front_hypervolume - volume dominated within the box below `reference` (exact, 2 or 3 objectives). */
double nas_front_hypervolume(const nas_front *front, const double *reference);

#endif
