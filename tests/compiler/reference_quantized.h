/* reference_quantized.h - a quantized network computed as integer code has to: what programs are compared with bit for bit. */
#ifndef NAS_TESTS_COMPILER_REFERENCE_QUANTIZED_H
#define NAS_TESTS_COMPILER_REFERENCE_QUANTIZED_H

#include "ir/graph.h"

/* What computes a value. */
typedef enum reference_kind {
    REFERENCE_FLOAT, /* fp32 from dequantized operands; its result is quantized when it has a quantization */
    REFERENCE_QCONV, /* integers, see below */
    REFERENCE_QADD,
    REFERENCE_QMUL,
    REFERENCE_QMAX_POOL,
    REFERENCE_QAVG_POOL,
    REFERENCE_QPRELU
} reference_kind;

/* reference_quantized_kind - `*source` gets the node whose operands are read: v itself, or the convolution or sum right
 * before an activation v. Integers compute, when result and operands have a quantization,
 *   CONV whose weights have scales, ADD and MUL of operands with all channels (one row or column is repeated), MAX_POOL that keeps the quantization, AVG_POOL,
 *   PRELU;
 *   RELU and CLIP after a CONV, ADD or MUL as above without a quantization and without other readers: clamps of the codes. */
reference_kind reference_quantized_kind(const nas_graph *g, nas_value v, nas_value *source);

/* reference_quantized - planar [c][h][w] in and out, batch 1. Integers as in ir/quantize.h, ratios computed in double from
 * left to right as written there; everything else in fp32, one rounding for each operator. A result of fp32 arithmetic on
 * long sums (a convolution that is no integer operator, softmax ...) is more exact than any program's. Errors: RANGE where
 * ir/quantize.h has no multiplier or sum, NOMEM. */
nas_status reference_quantized(nas_ctx *ctx, const nas_graph *g, const float *in, float *out);

#endif
