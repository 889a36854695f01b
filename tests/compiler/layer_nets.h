/* layer_nets.h - networks of the tests of the layer form: what builds them, and two whole ones. */
#ifndef TESTS_COMPILER_LAYER_NETS_H
#define TESTS_COMPILER_LAYER_NETS_H

#include "compiler/layers_network_internal.h"

extern nas_ctx *ctx;
extern char dir[64];                /* the cache, gone after a test */
extern nas_compile_options options; /* by layers, for this processor, up to 3 threads */
extern nas_graph *g;                /* being built; a test frees it */
/* Of the largest value on the way: rounding of direct sums, and of Winograd where a way uses it. */
extern const double tolerance;
void layer_nets_setup(void);
void layer_nets_teardown(void); /* asserts that nothing leaked */

/* input begins g, finish ends it; the others add a node with noise for weights. */
nas_value add(nas_node proto);
nas_value input(int32_t h, int32_t w, int32_t c);
nas_value conv(nas_value x, int32_t out, int32_t kernel, int32_t stride, int32_t groups);
nas_value relu(nas_value x);
nas_value unary(nas_value x, nas_unary fn, float alpha, float beta);
nas_value sum(nas_value a, nas_value b);
nas_value pool(nas_op op, nas_value x, int32_t kernel, int32_t stride, int32_t pad);
nas_value global_pool(nas_value x);
nas_value concat(int32_t n, const nas_value *members);
nas_value dense(nas_value x, int32_t out);
void finish(nas_value v);
void resnet(void);
void mobilenet(void);
/* lowered - g by layers, planned; freed by nas__layers_free. */
nas__layers *lowered(void);

#endif
