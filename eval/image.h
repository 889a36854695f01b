/* image.h - images in memory, PNG/JPEG reading, MATLAB-style bicubic, PSNR and SSIM on luma.
 * Part of eval/eval.h. libpng and libjpeg are used in image_io.c only. */
#ifndef NAS_EVAL_IMAGE_H
#define NAS_EVAL_IMAGE_H

#include "core/core.h"

/* Planar [C][H][W] float, values 0..1 (RGB full range) unless said otherwise. */
typedef struct nas_image {
    int32_t c, h, w;
    float *data; /* owned; c*h*w */
} nas_image;

enum { NAS_IMAGE_SIDE_MAX = 65535, NAS_IMAGE_PIXELS_MAX = 64 * 1024 * 1024 };

nas_status nas_image_init(nas_ctx *ctx, int32_t c, int32_t h, int32_t w,
                          nas_image *out); /* zeroed */
void nas_image_deinit(nas_image *image);

/* nas_image_read - PNG or JPEG by content, not by name; grey becomes RGB, alpha is dropped, 16 bit reduced to 8.
 * Dimensions are checked against NAS_IMAGE_PIXELS_MAX before pixels are allocated. Errors: IO, PARSE (truncated or
 * not an image), RANGE (too large), UNSUPPORTED. The message names the file. */
nas_status nas_image_read(nas_ctx *ctx, const char *path, nas_image *out);
/* nas_image_decode - the same from memory (fuzz target). */
nas_status nas_image_decode(nas_ctx *ctx, const void *bytes, size_t len, nas_image *out);
nas_status nas_image_write_png(nas_ctx *ctx, const nas_image *image,
                               const char *path); /* 8-bit RGB or grey */

nas_status nas_image_crop(nas_ctx *ctx, const nas_image *in, int32_t top, int32_t left, int32_t h,
                          int32_t w, nas_image *out);
/* nas_image_quantize8 - clamp to [0,1] and round to multiples of 1/255, half away from zero. */
void nas_image_quantize8(nas_image *image);

/* nas_image_resize_bicubic - Keys a = -0.5; antialiasing (kernel stretched by the shrink factor) when shrinking;
 * borders by symmetric reflection: what MATLAB's imresize does. Any extents >= 1. */
nas_status nas_image_resize_bicubic(nas_ctx *ctx, const nas_image *in, int32_t out_h, int32_t out_w,
                                    nas_image *out);

/* nas_image_luma - Y of RGB in [0,1] -> [1][H][W] in [0,1]: (65.481 R + 128.553 G + 24.966 B + 16) / 255. */
nas_status nas_image_luma(nas_ctx *ctx, const nas_image *rgb, nas_image *out);

/* nas_psnr_y / nas_ssim_y - a, b: [1][H][W] luma or [3][H][W] RGB (both are rounded to 8 bit first when RGB), equal
 * extents; `border` pixels cropped on each side. PSNR in dB with peak 255; identical images give 100.
 * SSIM: 11-tap Gaussian sigma 1.5, K1 .01, K2 .03, valid windows (Wang et al. 2004). Errors: SHAPE, NOMEM. */
nas_status nas_psnr_y(nas_ctx *ctx, const nas_image *a, const nas_image *b, int32_t border,
                      double *out_db);
nas_status nas_ssim_y(nas_ctx *ctx, const nas_image *a, const nas_image *b, int32_t border,
                      double *out);

#endif
