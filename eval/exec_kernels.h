/* exec_kernels.h - the inner loops of the batched executor, one table per instruction set.
 *
 * Tensors are [image][row][column][channel] with the channels of a pixel padded to whole vectors of NAS__EXEC_LANES
 * floats; padding lanes are zero in what a kernel reads. A convolution is an implicit matrix product: pixels are given
 * by the offsets of their first tap, so that rows, images, strides and borders are all the same to the kernel.
 * Internal to eval/. */
#ifndef NAS_EVAL_EXEC_KERNELS_H
#define NAS_EVAL_EXEC_KERNELS_H

#include "core/core.h"

enum { NAS__EXEC_LANES = 8 };

/* out[out_at[p] + o] = clamp(bias[o] + sum over taps t and channels c of in[in_at[p] + taps[t] + c] * w), for all
 * pixels p and outputs o. Weights: blocks of the kernels' block() vectors of outputs, each [tap][channel][vector][lane].
 * With `accumulate` the sum is added to what is in out (distinct pixels, distinct places). */
typedef struct nas__exec_conv {
    const float *in;
    float *out;
    const int32_t *in_at, *out_at; /* in floats */
    int32_t pixels;
    const int32_t *taps;
    int32_t n_taps, channels, vectors;
    const float *weights, *bias; /* bias [vectors * lanes] */
    float lo, hi;
    bool accumulate;
} nas__exec_conv;

/* out[i*out_row + o] += sum over rows r of a[a_at[r] + i] * b[b_at[r] + o], i < n_a, o < vectors * lanes. */
typedef struct nas__exec_outer {
    const float *a, *b;
    const int32_t *a_at, *b_at;
    int32_t rows, n_a, vectors;
    float *out;
    ptrdiff_t out_row;
} nas__exec_outer;

/* One row of pixels of a normalisation over a chunk's own statistics, [channels] all: x what it reads, y what it gives. */
typedef struct nas__exec_norm_row {
    const float *x;
    float *y;                 /* or, on the way back, NULL */
    const float *dy;          /* on the way back */
    float *dx;                /* on the way back: added to */
    ptrdiff_t x_step, y_step; /* floats from pixel to pixel; of dx and dy, too */
    int32_t pixels, channels; /* channels: whole vectors */
    const float *center, *scale, *shift, *slope;
    float *sums, *products; /* added to */
} nas__exec_norm_row;

typedef struct nas__exec_kernels {
    const char *name;
    int32_t (*block)(int32_t left); /* vectors of the next block when `left` are left */
    void (*conv)(const nas__exec_conv *job);
    /* One channel in, one out: weights [tap][vectors * lanes]. */
    void (*depthwise)(const nas__exec_conv *job);
    void (*outer)(const nas__exec_outer *job);
    /* Flat loops over n floats, n a multiple of the lanes; in place is allowed. */
    void (*add_clamp)(const float *a, const float *b, float *out, size_t n, float lo, float hi);
    void (*clamp)(const float *a, float *out, size_t n, float lo, float hi);
    void (*max)(const float *a, float *inout, size_t n);
    void (*add_scaled)(const float *a, float factor, float *inout,
                       size_t n); /* inout += factor*a */
    void (*multiply_add)(const float *a, const float *b, float *inout, size_t n); /* inout += a*b */
    /* out = clamp(a*scale + bias), scale and bias [n] */
    void (*affine)(const float *a, const float *scale, const float *bias, float *out, size_t n,
                   float lo, float hi);
    /* out = dy where lo < y < hi, else 0 */
    void (*gate)(const float *y, const float *dy, float *out, size_t n, float lo, float hi);
    /* sums += x - center, products += (x - center)^2 */
    void (*norm_moments)(const nas__exec_norm_row *row);
    /* y = clamp(scale*x + shift) */
    void (*norm_apply)(const nas__exec_norm_row *row, float lo, float hi);
    /* sums += x, squares += x^2 for c < channels, pixel after pixel */
    void (*moments)(const float *x, ptrdiff_t step, int32_t pixels, int32_t channels, double *sums,
                    double *squares);
    /* sums += dy, products += dy*(x - center) */
    void (*norm_slopes)(const nas__exec_norm_row *row);
    /* dx += scale*dy + slope*(x - center) + shift */
    void (*norm_back)(const nas__exec_norm_row *row);
} nas__exec_kernels;

const nas__exec_kernels *nas__exec_kernels_best(void);
/* nas__exec_kernels_all - NULL-terminated list of what this CPU runs; for tests. */
void nas__exec_kernels_all(const nas__exec_kernels *out[4]);

extern const nas__exec_kernels nas__exec_kernels_base, nas__exec_kernels_avx2,
    nas__exec_kernels_avx512;

#endif
