/* reference.h - graphs to compile, and an independent answer for each: a naive forward pass in double precision. */
#ifndef TESTS_COMPILER_REFERENCE_H
#define TESTS_COMPILER_REFERENCE_H

#include "ir/graph.h"

/* A network of the sr space's form: y = d2s(tail(body(head(x - 0.5))) + skip(x - 0.5)) + 0.5. */
typedef struct sr_shape {
    int32_t height, width, scale, blocks, residual, expand, project;
    int32_t head_kernel, tail_kernel, skip_kernel;
} sr_shape;

nas_graph *reference_sr(nas_ctx *ctx, const sr_shape *s);
/* FSRCNN form with `wide` and `narrow` channels and `middle` 3x3 layers, one channel in and out. */
nas_graph *reference_fsrcnn(nas_ctx *ctx, int32_t height, int32_t width, int32_t scale,
                            int32_t wide, int32_t narrow, int32_t middle);
/* One convolution, kernel_h x kernel_w, optionally with ReLU. */
nas_graph *reference_conv(nas_ctx *ctx, int32_t height, int32_t width, int32_t in, int32_t out,
                          int32_t kernel_h, int32_t kernel_w, bool relu);
/* A chain of convolutions of many shapes: kernels 1 to 9, square and not, 1 to 64 channels, some with ReLU, PReLU. */
nas_graph *reference_chain(nas_ctx *ctx, int32_t height, int32_t width);
/* Branches, reused values, activations that cannot merge, two shuffles, convolutions above the input's resolution. */
nas_graph *reference_tangle(nas_ctx *ctx, int32_t height, int32_t width, uint64_t seed);

/* Weights N(0, 1/fan-in), biases, slopes and means N(0, 0.1), scales near 1, variances >= 0.5, constants of magnitude
 * >= 0.5 (over the root of their width): values stay near 1 through any depth and nothing divides by 0. */
void reference_fill(nas_ctx *ctx, nas_graph *g, uint64_t seed);
/* `count` values in [0, 1). */
float *reference_image(nas_ctx *ctx, size_t count, uint64_t seed);
size_t reference_count(const nas_graph *g, nas_value v);
/* Forward pass, planar [C][H][W] in and out; `magnitude` gets the largest absolute value on the way. Every operator of
 * ir/ops.def; several inputs lie one after another in `in`, in list order. Quantization is ignored: floats. */
void reference_forward(nas_ctx *ctx, const nas_graph *g, const float *in, double *out,
                       double *magnitude);
/* The same; after each node `finish` sees its value, [n][h][w][c], and may change it before it is read. An error ends it. */
typedef nas_status (*reference_finish)(nas_ctx *ctx, const nas_graph *g, nas_value v, double *value,
                                       void *user);
nas_status reference_forward_with(nas_ctx *ctx, const nas_graph *g, const float *in,
                                  reference_finish finish, void *user, double *out,
                                  double *magnitude);
/* The same, each value with a quantization rounded to its codes and back: what QuantizeLinear and DequantizeLinear mean. */
void reference_forward_stored(nas_ctx *ctx, const nas_graph *g, const float *in, double *out,
                              double *magnitude);

#endif
