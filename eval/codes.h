/* codes.h - classifiers whose values and weights have quantizations (nas_node.quant, nas_param.scales), over many images as
 * programs of integers compute them; and samples of what values are, to find their grids. Part of eval/eval.h. */
#ifndef NAS_EVAL_CODES_H
#define NAS_EVAL_CODES_H

#include "eval/exec.h"

/* nas_codes_run - like nas_exec_run, with the arithmetic of ir/quantize.h. On codes run, where result and operands have a
 * quantization: convolutions whose weights have scales, sums and products of operands with all channels (one row or column is
 * repeated), average pools; a ReLU or clip behind one of the first two is a bound of its codes. These are exact: the same codes
 * as a compiled program's. Moves and largest values of codes are, too. Whatever else there is computes in floats from decoded
 * operands, and its result is coded where it has a quantization: equal to a program's but for rounding in floats. Polls cancel.
 * Errors: those of nas_exec_new; UNSUPPORTED names a convolution or sum that has a quantization in front of its activation,
 * operands of a concatenation with different ones, and PRELU on codes; RANGE as in ir/quantize.h. */
nas_status nas_codes_run(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                         size_t n, nas_exec_read_fn read, void *arg, float *out);

/* nas_exec_samples - what values are in floats: out [n_values][n][each], `each` elements (>= 1) of every value drawn by
 * `seed` for each image, with repetition. An activation that is computed with its producer cannot be told from it: ask
 * for the activation. Does not depend on the threads. */
nas_status nas_exec_samples(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                            const nas_value *values, size_t n_values, size_t n, int32_t each,
                            uint64_t seed, nas_exec_read_fn read, void *arg, float *out);

#endif
