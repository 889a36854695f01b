/* latency_kernels.h - single layers as architectures: "conv h56 w56 i64 o128 k3 s1", a convolution with bias and ReLU;
 * "dwconv h56 w56 i64 o64 k3 s1", the same for each channel apart. Extents are of the input; padding keeps the extent at
 * stride 1. Fields in this order, numbers decimal. Shared inside tools/. */
#ifndef NAS_TOOLS_LATENCY_KERNELS_H
#define NAS_TOOLS_LATENCY_KERNELS_H

#include "ir/graph.h"

typedef struct nas_kernel_shape {
    bool depthwise;                                 /* out = in */
    int32_t height, width, in, out, kernel, stride; /* 1..4096, 1..4096; 1..4096; 1..11 odd; 1..4 */
} nas_kernel_shape;

/* PARSE with the column, RANGE naming the field. */
nas_status nas_kernel_shape_parse(nas_ctx *ctx, const char *text, nas_kernel_shape *out);
void nas_kernel_shape_format(const nas_kernel_shape *shape, nas_buf *out);
nas_status nas_kernel_shape_graph(nas_ctx *ctx, const nas_kernel_shape *shape, nas_graph **out);

/* Families of shapes to draw from: "sr" (few channels, large images, stride 1), "conv" (classifiers), "dwconv",
 * "pointwise" (classifiers, 1x1, up to 960 channels on either side). */
enum { NAS_KERNEL_FAMILIES = 4 };
nas_status nas_kernel_family_parse(nas_ctx *ctx, const char *name, size_t len, int32_t *out);
void nas_kernel_shape_sample(int32_t family, nas_rng *rng, nas_kernel_shape *out);

#endif
