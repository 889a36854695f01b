/* fixture.h - what the tests of spaces/ share: a context, spaces of several shapes, a replayable seed. */
#ifndef NAS_TESTS_SPACES_FIXTURE_H
#define NAS_TESTS_SPACES_FIXTURE_H

#include "spaces/space.h"

extern nas_ctx *ctx;

void fixture_setup(void);
void fixture_teardown(void); /* asserts that nothing leaked */

/* fixture_seed - SEED from the environment, else `usual`; prints the one used so that a failure can be replayed. */
uint64_t fixture_seed(uint64_t usual);

/* Options with few points, cheap to enumerate: 3 blocks, at least 2; widths {8,12}, {16,32}, {8}; one kernel each but
 * two for the head. 8x6 input. */
nas_sr_options fixture_tiny(void);
/* fixture_space - `options` must be good. */
nas_space *fixture_space(const nas_sr_options *options);

enum { FIXTURE_SPACES = 4 };
/* fixture_variant - the default space on a small image, the tiny one, one with a fixed depth, one of a single point. */
nas_sr_options fixture_variant(int index);

#endif
