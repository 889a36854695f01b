/* ir_support.h - networks for the tests of ir/ and an independent forward pass to judge exported ones by. */
#ifndef NAS_TESTS_IR_IR_SUPPORT_H
#define NAS_TESTS_IR_IR_SUPPORT_H

#include "ir/graph.h"

/* small_sr_graph - x - 0.5 -> head -> relu -> conv -> + -> tail, and a skip; depth_to_space, + 0.5. 10 nodes; output
 * [1,2h,2w,3]. */
nas_status small_sr_graph(nas_ctx *ctx, int32_t h, int32_t w, nas_graph **out);

/* random_graph - a valid network of `nodes` to 2*nodes nodes with every operator, odd strides, dilations, pads and groups;
 * every node leads to the output; weights and scalars in [-1, 1]. */
nas_status random_graph(nas_ctx *ctx, nas_rng *rng, int32_t nodes, nas_graph **out);

void fill_weights(nas_graph *g, nas_rng *rng);

/* naive_forward - outputs of all nodes by the definitions in ir/graph.h, straight loops, double sums; in: NHWC floats
 * of the one input. *out: fresh NHWC doubles of the network output (nas_free). */
nas_status naive_forward(nas_ctx *ctx, const nas_graph *g, const float *in, double **out);

size_t shape_count(nas_shape shape);

/* run_onnx_check - judges the files in `folder` by onnx_check.py with the first python3 that has the modules; fails the test
 * on a verdict, skips it where there is none. */
void run_onnx_check(nas_ctx *ctx, const char *folder);

/* test_seed - the seed of a property test: SEED from the environment, `usual` without it. */
uint64_t test_seed(uint64_t usual);

#endif
