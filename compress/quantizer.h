/* quantizer.h - grids that weights and activations are rounded to after training, and how their steps are found.
 *
 *   symmetric  value = scale*q, q of -(2^(bits-1) - 1) .. 2^(bits-1) - 1: what the integer kernels store (ir/quantize.h)
 *   affine     value = scale*(q - zero_point), q of 0 .. 2^bits - 1, 0 <= zero_point <= 2^bits - 1, so that 0 is exact
 *   power      value = 0 or +-scale*2^-i, i of 0 .. 2^(bits-1) - 2: products are shifts (for programs that have such kernels)
 * Layer 2: includes core only. */
#ifndef NAS_COMPRESS_QUANTIZER_H
#define NAS_COMPRESS_QUANTIZER_H

#include "core/core.h"

typedef enum nas_grid_kind {
    NAS_GRID_SYMMETRIC,
    NAS_GRID_AFFINE,
    NAS_GRID_POWER,
    NAS_GRID_KIND_COUNT
} nas_grid_kind;
const char *nas_grid_kind_name(nas_grid_kind kind);
nas_grid_kind nas_grid_kind_find(const char *name); /* KIND_COUNT when there is none of that name */

/* bits 2..8, scale finite and > 0 */
typedef struct nas_grid {
    nas_grid_kind kind;
    int32_t bits;
    float scale;
    int32_t zero_point; /* AFFINE */
} nas_grid;

/* nas_grid_round - the nearest value of the grid; halves go to the even code; NaN gives 0. */
float nas_grid_round(const nas_grid *grid, float x);

/* nas_grid_of_range - the grid that just covers [low, high] (0 is taken into it) shrunk by `share`, 0 < share <= 1. */
nas_grid nas_grid_of_range(nas_grid_kind kind, int32_t bits, float low, float high, float share);

/* nas_grid_fit - of the ranges that are 1, 0.99 ... 0.21 of that of x[n], the one with the least sum of |error|^2, weighted by
 * weight[n] (>= 0) unless NULL. All zeros: scale 1. Values have to be finite. */
nas_grid nas_grid_fit(nas_grid_kind kind, int32_t bits, const float *x, const double *weight,
                      size_t n);

/* ---- activations -------------------------------------------------------------------------------------------------------- */

typedef enum nas_calibration {
    NAS_CALIBRATION_MIN_MAX,    /* everything seen */
    NAS_CALIBRATION_PERCENTILE, /* 0.01 % of the samples are cut at each end */
    NAS_CALIBRATION_MSE,        /* least squared error */
    NAS_CALIBRATION_COUNT
} nas_calibration;
const char *nas_calibration_name(nas_calibration method);
nas_calibration nas_calibration_find(const char *name);

/* nas_grid_calibrate - an AFFINE grid for samples of one value. x is sorted in place. INVALID: n 0, or a sample is not finite. */
nas_status nas_grid_calibrate(nas_ctx *ctx, nas_calibration method, int32_t bits, float *x,
                              size_t n, nas_grid *out);

#endif
