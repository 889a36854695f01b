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
    int64_t trial; /* study-wide trial number */
    nas_point point;
    nas_told_state state;
    int32_t n_values;
    double values[NAS_OBJECTIVES_MAX]; /* to minimise; finite; only read for COMPLETE */
    double violation; /* sum of relative constraint violations, 0 = feasible, >= 0 */
} nas_told;

typedef struct nas_strategy_options {
    int32_t population; /* 4..4096; batch size of NSGA-II and evolution's initial population */
    int32_t tournament; /* 2..population; evolution's sample size S; NSGA-II always compares two */
    double mutation_rate;  /* (0,1] per gene */
    double crossover_rate; /* [0,1], NSGA-II only */
    int32_t n_objectives;  /* 1..NAS_OBJECTIVES_MAX */
} nas_strategy_options;

/* nas_strategy_options_default - population 24, tournament 4, mutation 0.05, crossover 0.9, two objectives. */
nas_strategy_options nas_strategy_options_default(void);

/* The strategies. PRUNED and FAILED points count as told and never become parents.
 *   random     independent samples of the space; no batches.
 *   evolution  regularized (ageing) evolution, Real et al., arXiv:1802.01548. First batch: `population` samples. Then
 *              batches of population / 4: each point is a mutant of a tournament's winner; a batch's completed points
 *              join the population in trial order and its oldest members leave. Tournaments compare by constraint
 *              domination: nondominated rank in the population, then crowding distance; with one objective that is
 *              violation, then value.
 *   nsga2      Deb, Pratap, Agarwal & Meyarivan, IEEE Trans. Evol. Comp. 6(2), 2002, with constraint domination.
 *              Batches of `population`; the first is sampled. While fewer than population / 2 points survive, the next
 *              batch begins with as many samples as are missing; the rest are children.
 *   greedy     hill climbing: `population` samples, then batches of population / 4 small changes of the best point so
 *              far, by violation, then the first objective.
 *   ddpg       AMC (He et al., arXiv:1802.03494): an actor-critic agent decides the genes one after another from a
 *              description of each. First batch: `population` samples; then batches of population / 8, at least 1.
 *              Learns from the first objective and the violation; other objectives are not looked at.
 *   agmc       the same with states from a graph encoder and a recurrent decoder (Yu et al., arXiv:2011.12641).
 * ddpg and agmc need a space that can be decided gene by gene, else UNSUPPORTED. */
typedef struct nas_strategy nas_strategy;

/* nas_strategy_names - NULL-terminated: "random", "evolution", "nsga2", "greedy", "ddpg", "agmc". */
const char *const *nas_strategy_names(void);
/* nas_strategy_new - `space` is borrowed and must outlive it. NOTFOUND lists the known names; RANGE names the option. */
nas_status nas_strategy_new(nas_ctx *ctx, const char *name, const nas_space *space,
                            const nas_strategy_options *options, uint64_t seed, nas_strategy **out);
void nas_strategy_free(nas_strategy *s);
const char *nas_strategy_name(const nas_strategy *s);
/* nas_strategy_seed - a point to propose first (corner networks, baselines), in order; before the first ask (else
 * INVALID). The same point again changes nothing. */
nas_status nas_strategy_seed(nas_ctx *ctx, nas_strategy *s, const nas_point *point);
/* nas_strategy_encoder_write / read - the graph encoder of "agmc", after all that was told so far; another search of the same
 * space over another network may begin with it (as in GNN-RL, Yu et al., arXiv:2102.03214). read: before the first ask, and
 * before load, which checks that the state began with the same one. Errors: INVALID (a strategy without encoder, points were
 * asked), PARSE, UNSUPPORTED (another version), SHAPE (other features or width: what they are is said).
 *     nas-encoder 1 <features of a node> <weights>      and the weights as C hex floats, 4 a line
 *     end */
nas_status nas_strategy_encoder_write(nas_ctx *ctx, nas_strategy *s, nas_buf *out);
nas_status nas_strategy_encoder_read(nas_ctx *ctx, nas_strategy *s, const char *text);
/* nas_strategy_ready - how many points can be asked now without telling more: the rest of the batch, INT32_MAX for
 * random. 0 until the whole batch is told. */
int32_t nas_strategy_ready(const nas_strategy *s);
/* nas_strategy_asked - points asked so far, seeds included. */
int64_t nas_strategy_asked(const nas_strategy *s);
/* nas_strategy_ask - errors: INVALID when nothing is ready, NOTFOUND when the space is exhausted, NOMEM. After a failure
 * the state is what it was. */
nas_status nas_strategy_ask(nas_ctx *ctx, nas_strategy *s, nas_point *out);
/* nas_strategy_tell - the result of a point that was asked and not told yet, each once and with a trial number of its
 * own; else INVALID. RANGE for values or a violation that are not finite. Allocates nothing. */
nas_status nas_strategy_tell(nas_ctx *ctx, nas_strategy *s, const nas_told *told);
/* nas_strategy_save / load - versioned text; load into a fresh strategy of the same name, options and space. What was
 * asked and not told yet is part of it: those points are told after loading as if nothing had happened. save appends.
 * load: PARSE with the line, INVALID when the text is of another version, strategy, space or options; then the strategy
 * is what it was.
 *
 * The text, one item a line; doubles as C hex floats, 64-bit words as 16 hex digits, points in the space's text form:
 *     nas-strategy 1 <name>
 *     space <name> <hash of its genes and corner points>
 *     options <population> <tournament> <mutation_rate> <crossover_rate> <n_objectives>
 *     rng <word> <word> <word> <word>
 *     batches <completed batches>
 *     policy <word> [<word>]                            ddpg and agmc only: what its weights were drawn from; a hash of
 *                                                       the encoder it was given. The agent itself is learnt again
 *                                                       from the members, which are all here.
 *     seeds <n>                                         and n lines: <point>, those not proposed yet
 *     members <n>                                       and n lines: <trial> <violation> <value>... <point>
 *     batch <n>                                         and n lines, in the order asked:
 *         asked <point>  |  complete <trial> <violation> <value>... <point>  |  pruned <trial> <point>
 *         failed <trial> <point>
 *     seen <n>                                          and the nas_point_hash of all asked points, 8 a line
 *     end */
nas_status nas_strategy_save(nas_ctx *ctx, const nas_strategy *s, nas_buf *out);
nas_status nas_strategy_load(nas_ctx *ctx, nas_strategy *s, const char *text);

/* ---- fronts ---------------------------------------------------------------------------------------------------- */

/* nas_dominates - Deb's constraint domination: feasible beats infeasible, less violation beats more, else Pareto
 * (minimise) over n values. */
bool nas_dominates(int32_t n, const double *a, double violation_a, const double *b,
                   double violation_b);

/* The incrementally kept non-dominated set of feasible and infeasible points (Pareto over values only). */
typedef struct nas_front nas_front;
nas_status nas_front_new(nas_ctx *ctx, int32_t n_objectives, nas_front **out);
void nas_front_free(nas_front *front);
/* nas_front_add - *joined: not dominated by a member (then dominated members left). Equal values: first stays. RANGE for
 * a value that is not finite. After a failure the front is what it was. */
nas_status nas_front_add(nas_ctx *ctx, nas_front *front, int64_t trial, const double *values,
                         bool *joined);
size_t nas_front_size(const nas_front *front);
int64_t nas_front_trial(const nas_front *front, size_t index); /* ascending by values[0] */
/* nas_front_values - n_objectives values, borrowed until the next add. */
const double *nas_front_values(const nas_front *front, size_t index);
/* nas_front_hypervolume - volume dominated within the box below `reference`, exact. Members outside the box add nothing.
 * Work grows as size^(n_objectives - 1), with two objectives as size. */
double nas_front_hypervolume(const nas_front *front, const double *reference);

#endif
