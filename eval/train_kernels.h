/* train_kernels.h - the inner loops of training and of the forward pass, one table per instruction set.
 *
 * All tensors are "row-planar": element (y, c, x) lies at view.at[y*row + c*channel + x], pixels of a row are
 * contiguous and go into vector lanes, so that any channel count costs exactly what it is. The memory contract every
 * view of a tensor keeps: NAS__PAD floats before and after each row of each channel and `radius` rows above and
 * below are readable; where a convolution looks at them they are zero. Kernels compute whole vectors; lanes past
 * `width` are written as zero by every kernel that says so.
 * Internal to eval/. */
#ifndef NAS_EVAL_TRAIN_KERNELS_H
#define NAS_EVAL_TRAIN_KERNELS_H

#include "core/core.h"

enum {
    NAS__PAD = 16,        /* floats between rows: zero padding of a kernel up to NAS__KERNEL_MAX */
    NAS__LANES_MAX = 16,  /* rows are padded to this many floats whatever the instruction set */
    NAS__BLOCK = 4,       /* outputs of a register tile */
    NAS__KERNEL_MAX = 15, /* widest convolution kernel */
    NAS__OVERREAD = 6     /* channels past the last one that a weight-gradient tile may read */
};

typedef struct nas__view {
    float *at; /* element (0,0,0) */
    ptrdiff_t row, channel;
} nas__view;

typedef enum nas__finish {
    NAS__FINISH_PLAIN, /* out = sum */
    NAS__FINISH_RELU,  /* out = max(sum, 0) */
    NAS__FINISH_ADD,   /* out = sum + extra; extra may be out itself */
    NAS__FINISH_GATE   /* out = extra > 0 ? sum : 0 */
} nas__finish;

/* A convolution of `rows` x `width` pixels: sum = bias + sum over taps, inputs of weight * in. A tap is an offset in
 * floats into `in`. Weights: [outputs/4 rounded up][taps][inputs][4], zero beyond the last output; the blocks of
 * four outputs lie weight_block floats apart (so that a range of inputs can be used alone). */
typedef struct nas__conv_job {
    nas__view in, out, extra;
    const float *weights, *bias; /* bias [outputs], NULL = 0 */
    ptrdiff_t weight_block;
    const ptrdiff_t *taps;
    int32_t n_taps, inputs, outputs;
    int32_t rows, width;
    nas__finish finish;
    bool zero_tail; /* write lanes past width as zero; else they hold anything finite */
} nas__conv_job;

/* Sums over pixels of a[i] * b[j shifted by tap] for all pairs of channels, kept per lane in `lanes`: the gradient
 * of weights. At least one of a and b is zero past width. Reads up to NAS__OVERREAD channels too far. */
typedef struct nas__pairs_job {
    nas__view a, b;
    int32_t n_a, n_b;
    const ptrdiff_t *taps; /* added to b */
    int32_t n_taps;
    int32_t rows, width;
    float *lanes; /* nas__kernels.pairs_size floats, 64-byte aligned, zeroed before the first job */
} nas__pairs_job;

typedef struct nas__kernels {
    const char *name;
    int32_t lanes;
    void (*conv)(const nas__conv_job *job);
    size_t (*pairs_size)(int32_t n_a, int32_t n_b, int32_t n_taps); /* floats */
    void (*pairs)(const nas__pairs_job *job);
    /* sums[i*stride_a + j*stride_b + t*stride_tap] += the lanes' sums of pair (i, j) at tap t. */
    void (*pairs_reduce)(const float *lanes, int32_t n_a, int32_t n_b, int32_t n_taps,
                         ptrdiff_t stride_a, ptrdiff_t stride_b, ptrdiff_t stride_tap, float *sums);
    /* lanes[c][nas__kernels.lanes] += a channel's pixels, per lane; a is zero past width. lanes_sum then adds the
     * lanes of n channels up: sums[c] += ... */
    void (*channel_lanes)(nas__view a, int32_t channels, int32_t rows, int32_t width, float *lanes);
    void (*lanes_sum)(const float *lanes, int32_t n, float *sums);
    /* Flat loops over n floats, n a multiple of 16. In-place is allowed. */
    void (*add)(const float *a, const float *b, float *out, size_t n);
    void (*relu)(const float *x, float *out, size_t n);
    void (*relu_back)(const float *y, const float *dy, float *dx, size_t n, bool accumulate);
    /* One channel row of n floats (a multiple of 16). back: dx from dy, returns the slope's gradient. */
    void (*prelu)(const float *x, float slope, float *out, size_t n);
    float (*prelu_back)(const float *x, const float *dy, float slope, float *dx, size_t n,
                        bool accumulate);
    /* L1: returns sum |y - target|; dy = sign(y - target) * step. n any. */
    double (*l1)(const float *y, const float *target, float *dy, float step, int32_t n);
    /* One output row of pixel shuffle by two: even and odd columns from two channels; n columns each (rounded up to
     * lanes; the caller's padding takes the rest). split is its inverse. */
    void (*zip)(const float *even, const float *odd, float *out, int32_t n);
    void (*unzip)(const float *in, float *even, float *odd, int32_t n);
} nas__kernels;

/* nas__kernels_best - the widest table this CPU can run. */
const nas__kernels *nas__kernels_best(void);
/* nas__kernels_all - NULL-terminated list of the tables this CPU can run; for tests and benchmarks. */
void nas__kernels_all(const nas__kernels *out[4]);

extern const nas__kernels nas__kernels_base, nas__kernels_avx2, nas__kernels_avx512;

#endif
