/* compile_fixture.h - what tests of whole programs share: a folder, options for rows on this machine, a graph compiled and run
 * with every number of threads against the naive reference, targets with small caches. */
#ifndef TESTS_COMPILER_COMPILE_FIXTURE_H
#define TESTS_COMPILER_COMPILE_FIXTURE_H

#include "compiler/compiler.h"
#include "reference.h"

typedef struct compile_fixture {
    nas_ctx *ctx;
    char dir[64]; /* the cache, and where programs run */
    nas_compile_options options;
} compile_fixture;

void compile_fixture_init(compile_fixture *f, int32_t max_threads);
/* compile_fixture_deinit - and nothing may be left of the memory. */
void compile_fixture_deinit(compile_fixture *f);

/* compile_check - fills the graph, compiles it and runs it with 1 to options.max_threads threads: the same bits, and nowhere more
 * than `tolerance` of the largest value away from the reference. Frees the graph. */
void compile_check(compile_fixture *f, nas_graph *g, const char *what, uint64_t seed,
                   double tolerance);
/* compile_says - has the program after the pass (NULL: what --explain prints) this text? */
bool compile_says(compile_fixture *f, const nas_graph *g, const char *pass, const char *text);
/* compile_cramped - a target like `name` with a cache of its own size; a small one makes the planner cut strips. */
nas_target compile_cramped(compile_fixture *f, const char *name, int32_t l2_bytes);
/* compile_starts - is there such a program, a compiler or an emulator? */
bool compile_starts(nas_ctx *ctx, const char *program);
/* compile_upscaling - the end of a deconvolution network: `channels` -> transposed convolution -> optionally a ReLU and a 3x3
 * convolution behind it. */
nas_graph *compile_upscaling(compile_fixture *f, const nas_conv_attributes *c, int32_t output_pad,
                             int32_t channels, int32_t height, int32_t width, bool behind);

#endif
