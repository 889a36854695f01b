/* nets.h - small classifiers with the structures that pruning meets, and their outputs in doubles. */
#ifndef TESTS_COMPRESS_NETS_H
#define TESTS_COMPRESS_NETS_H

#include "compress/compress.h"

extern nas_ctx *ctx;
void nets_setup(void);
void nets_teardown(void); /* asserts that nothing leaked */

enum { NETS = 4, NET_SIDE = 12, NET_CLASSES = 10 };
enum { NET_PLANE = NET_SIDE * NET_SIDE, NET_FLOATS = 3 * NET_PLANE };
/* nets_new - with weights: 0 residual blocks with a padded and a convolved shortcut, 1 branches that are concatenated, with
 * normalisation, 2 depthwise convolutions with clips and a squeeze-and-excitation gate, 3 grouped convolutions with a
 * shuffle, a slice of channels and pools. [1,12,12,3] in, [1,1,1,10] out. */
nas_graph *nets_new(int number);
/* nets_image - planar noise [3][12][12]; freed by nas_free. */
float *nets_image(uint64_t seed);
/* nets_noise - n of them, one after another; freed by nas_free. nets_read_noise - one of those as an executor reads it. */
float *nets_noise(size_t n);
void nets_read_noise(void *images, size_t index, float *hwc);
/* nets_output - by the naive reference: NET_CLASSES doubles. */
void nets_output(const nas_graph *g, const float *image, double *out);

#endif
