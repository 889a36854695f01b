/* image.c - planar float images: making, cropping, rounding to 8 bit, luma. Part of the module eval; everything that
 * reads, resamples or scores images stands on the layout kept here: [C][H][W], rows without padding. */
#include "eval/image.h"

#include <math.h>
#include <string.h>

nas_status nas_image_init(nas_ctx *ctx, int32_t c, int32_t h, int32_t w, nas_image *out) {
    if (c < 1 || h < 1 || w < 1 || h > NAS_IMAGE_SIDE_MAX || w > NAS_IMAGE_SIDE_MAX || c > 4) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "image of %" PRId32 " channels, %" PRId32 "x%" PRId32
                        " pixels: 1..4 channels and sides 1..%d are possible",
                        c, w, h, (int)NAS_IMAGE_SIDE_MAX);
    }
    const size_t pixels = (size_t)h * (size_t)w;
    if (pixels > (size_t)NAS_IMAGE_PIXELS_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "image of %" PRId32 "x%" PRId32 " = %zu pixels, limit %d: make it smaller",
                        w, h, pixels, (int)NAS_IMAGE_PIXELS_MAX);
    }
    float *data = nas_alloc_array(ctx, pixels * (size_t)c, sizeof *data);
    if (data == NULL) return NAS_ERR_NOMEM;
    *out = (nas_image){.c = c, .h = h, .w = w, .data = data};
    return NAS_OK;
}

void nas_image_deinit(nas_image *image) {
    if (image == NULL) return;
    nas_free(image->data);
    *image = (nas_image){0};
}

nas_status nas_image_crop(nas_ctx *ctx, const nas_image *in, int32_t top, int32_t left, int32_t h,
                          int32_t w, nas_image *out) {
    if (h < 1 || w < 1 || top < 0 || left < 0 || top > in->h - h || left > in->w - w) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "crop of %" PRId32 "x%" PRId32 " at column %" PRId32 ", row %" PRId32
                        " is not inside the image of %" PRId32 "x%" PRId32,
                        w, h, left, top, in->w, in->h);
    }
    nas_image image = {0};
    const nas_status status = nas_image_init(ctx, in->c, h, w, &image);
    if (status != NAS_OK) return status;
    for (int32_t c = 0; c < in->c; c++) {
        const float *from =
            in->data + ((size_t)c * (size_t)in->h + (size_t)top) * (size_t)in->w + left;
        float *to = image.data + (size_t)c * (size_t)h * (size_t)w;
        for (int32_t y = 0; y < h; y++) {
            memcpy(to + (size_t)y * (size_t)w, from + (size_t)y * (size_t)in->w,
                   (size_t)w * sizeof *to);
        }
    }
    *out = image;
    return NAS_OK;
}

void nas_image_quantize8(nas_image *image) {
    const size_t n = (size_t)image->c * (size_t)image->h * (size_t)image->w;
    for (size_t i = 0; i < n; i++) {
        /* The comparisons send NaN to 0: a network that diverged scores badly and never crashes a study. */
        const float x = image->data[i];
        const float level = x > 0.0f ? (x < 1.0f ? x * 255.0f : 255.0f) : 0.0f;
        image->data[i] = floorf(level + 0.5f) / 255.0f;
    }
}

nas_status nas_image_luma(nas_ctx *ctx, const nas_image *rgb, nas_image *out) {
    if (rgb->c != 3) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "luma of an image of %" PRId32 " channels: 3 are needed", rgb->c);
    }
    nas_image luma = {0};
    const nas_status status = nas_image_init(ctx, 1, rgb->h, rgb->w, &luma);
    if (status != NAS_OK) return status;
    const size_t n = (size_t)rgb->h * (size_t)rgb->w;
    const float *r = rgb->data, *g = r + n, *b = g + n;
    for (size_t i = 0; i < n; i++) {
        luma.data[i] = (65.481f * r[i] + 128.553f * g[i] + 24.966f * b[i] + 16.0f) / 255.0f;
    }
    *out = luma;
    return NAS_OK;
}
