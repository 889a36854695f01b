/* fixture.h - what the tests of search/strategies/ share: a context, a space, an invented task, a driver. */
#ifndef NAS_TESTS_STRATEGIES_FIXTURE_H
#define NAS_TESTS_STRATEGIES_FIXTURE_H

#include "search/strategies/strategy.h"

extern nas_ctx *ctx;
extern nas_space *space; /* the default "sr" space */

void fixture_setup(void);
void fixture_teardown(void); /* asserts that nothing leaked */

/* fixture_seed - SEED from the environment, else `usual`; prints the one used so that a failure can be replayed. */
uint64_t fixture_seed(uint64_t usual);

/* A space of few points: 2 blocks, at least 1, two widths each. 16 points, or 64 with both kernels. */
nas_space *fixture_small_space(bool kernels);

nas_strategy *fixture_strategy(const char *name, const nas_space *of, int32_t population,
                               int32_t n_objectives, uint64_t seed);

/* fixture_trials - `usual`, or a third of it for the policies, which compute much more a trial. */
int32_t fixture_trials(const char *name, int32_t usual);

/* fixture_result - what the invented task says of a point of the default space: values[0] = multiply-accumulates per
 * pixel in thousands, values[1] = minus a quality that saturates in width and depth and in which blocks differ,
 * values[2] = parameter-like count. Points that cost above `budget` (0 = none) violate it by the relative excess.
 * Deterministic; about every eighth point is PRUNED or FAILED when `flaky`. */
nas_told fixture_result(const nas_point *point, int64_t trial, int32_t n_objectives, double budget,
                        bool flaky);

/* fixture_run - asks and tells `trials` points one by one; the front of the feasible ones goes to *front when given. */
void fixture_run(nas_strategy *s, int32_t trials, int32_t n_objectives, double budget,
                 nas_front *front);

/* fixture_hypervolume - of the two-objective task after `trials` trials, reference (60, 0). */
double fixture_hypervolume(const char *name, int32_t population, int32_t trials, double budget,
                           uint64_t seed);

#endif
