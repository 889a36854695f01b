/* quality.c - PSNR and SSIM on luma, as super-resolution papers report them.
 *
 * SSIM: Wang, Bovik, Sheikh & Simoncelli, IEEE TIP 13(4), 2004: 11-tap Gaussian, sigma 1.5, valid windows, peak 255.
 * Sums are double: variances are small differences of large squares. */
#include "eval/image.h"

#include <math.h>

enum { WINDOW = 11, MOMENTS = 5 }; /* moments: a, b, a*a, b*b, a*b */

static const double PEAK = 255.0;
static const double PSNR_OF_IDENTICAL_DB = 100.0;

/* luma_of - *out is what is compared: the image itself (1 channel) or the luma of its 8-bit rounding (3 channels).
 * *owned tells whether the caller has to deinit it. */
static nas_status luma_of(nas_ctx *ctx, const nas_image *in, nas_image *out, bool *owned) {
    *owned = false;
    if (in->c == 1) {
        *out = *in;
        return NAS_OK;
    }
    nas_image rounded = {0};
    nas_status status = nas_image_crop(ctx, in, 0, 0, in->h, in->w, &rounded);
    if (status != NAS_OK) return status;
    nas_image_quantize8(&rounded);
    status = nas_image_luma(ctx, &rounded, out);
    nas_image_deinit(&rounded);
    *owned = status == NAS_OK;
    return status;
}

typedef struct luma_pair {
    nas_image a, b;
    bool own_a, own_b;
    int32_t border, h, w; /* extents inside the border */
} luma_pair;

static void pair_deinit(luma_pair *p) {
    if (p->own_b) nas_image_deinit(&p->b);
    if (p->own_a) nas_image_deinit(&p->a);
}

/* pair_init - checks and converts; `least` is the smallest side that must remain inside the border. */
static nas_status pair_init(nas_ctx *ctx, const nas_image *a, const nas_image *b, int32_t border,
                            int32_t least, luma_pair *p) {
    *p = (luma_pair){0};
    if (a->c != b->c || a->h != b->h || a->w != b->w || (a->c != 1 && a->c != 3)) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "images to compare: [%" PRId32 ",%" PRId32 ",%" PRId32 "] and [%" PRId32
                        ",%" PRId32 ",%" PRId32 "], need equal extents and 1 or 3 channels",
                        a->c, a->h, a->w, b->c, b->h, b->w);
    }
    const int64_t h = (int64_t)a->h - 2 * (int64_t)border;
    const int64_t w = (int64_t)a->w - 2 * (int64_t)border;
    if (border < 0 || h < least || w < least) {
        return nas_fail(ctx, NAS_ERR_SHAPE,
                        "images of %" PRId32 "x%" PRId32 " with a border of %" PRId32
                        ": at least %" PRId32 " pixels a side must remain",
                        a->w, a->h, border, least);
    }
    p->border = border;
    p->h = (int32_t)h;
    p->w = (int32_t)w;
    nas_status status = luma_of(ctx, a, &p->a, &p->own_a);
    if (status == NAS_OK) status = luma_of(ctx, b, &p->b, &p->own_b);
    if (status != NAS_OK) pair_deinit(p);
    return status;
}

/* row_of - first pixel of row y inside the border. */
static const float *row_of(const luma_pair *p, const nas_image *image, int32_t y) {
    return image->data + (size_t)(y + p->border) * (size_t)image->w + p->border;
}

nas_status nas_psnr_y(nas_ctx *ctx, const nas_image *a, const nas_image *b, int32_t border,
                      double *out_db) {
    luma_pair p;
    const nas_status status = pair_init(ctx, a, b, border, 1, &p);
    if (status != NAS_OK) return status;
    double sum = 0.0;
    for (int32_t y = 0; y < p.h; y++) {
        const float *row_a = row_of(&p, &p.a, y), *row_b = row_of(&p, &p.b, y);
        for (int32_t x = 0; x < p.w; x++) {
            const double d = PEAK * ((double)row_a[x] - (double)row_b[x]);
            sum += d * d;
        }
    }
    const double mse = sum / ((double)p.h * (double)p.w);
    pair_deinit(&p);
    if (!isfinite(mse)) return nas_fail(ctx, NAS_ERR_INVALID, "PSNR: an image holds NaN or Inf");
    const double db = mse > 0.0 ? 10.0 * log10(PEAK * PEAK / mse) : PSNR_OF_IDENTICAL_DB;
    *out_db = db < PSNR_OF_IDENTICAL_DB ? db : PSNR_OF_IDENTICAL_DB;
    return NAS_OK;
}

static void gaussian_window(double window[WINDOW]) {
    const double sigma = 1.5;
    double sum = 0.0;
    for (int i = 0; i < WINDOW; i++) {
        const double d = i - WINDOW / 2;
        window[i] = exp(-d * d / (2.0 * sigma * sigma));
        sum += window[i];
    }
    for (int i = 0; i < WINDOW; i++)
        window[i] /= sum;
}

/* moments_of_row - the five moments of one row, blurred horizontally: out [MOMENTS][w - WINDOW + 1]. `raw` is
 * scratch of [MOMENTS][w]. */
static void moments_of_row(const luma_pair *p, int32_t y, const double window[WINDOW], double *raw,
                           double *out) {
    const float *row_a = row_of(p, &p->a, y), *row_b = row_of(p, &p->b, y);
    const size_t w = (size_t)p->w, n = w - WINDOW + 1;
    for (size_t x = 0; x < w; x++) {
        const double a = PEAK * (double)row_a[x], b = PEAK * (double)row_b[x];
        raw[x] = a;
        raw[w + x] = b;
        raw[2 * w + x] = a * a;
        raw[3 * w + x] = b * b;
        raw[4 * w + x] = a * b;
    }
    for (size_t m = 0; m < MOMENTS; m++) {
        for (size_t x = 0; x < n; x++) {
            double sum = 0.0;
            for (size_t k = 0; k < WINDOW; k++)
                sum += window[k] * raw[m * w + x + k];
            out[m * n + x] = sum;
        }
    }
}

/* ssim_of_row - sum of the SSIM map over one row, from WINDOW consecutive rows of blurred moments kept in a ring. */
static double ssim_of_row(const double *ring, size_t first, size_t n, const double window[WINDOW]) {
    const double c1 = (0.01 * PEAK) * (0.01 * PEAK), c2 = (0.03 * PEAK) * (0.03 * PEAK);
    double sum = 0.0;
    for (size_t x = 0; x < n; x++) {
        double m[MOMENTS] = {0};
        for (size_t k = 0; k < WINDOW; k++) {
            const double *row = ring + ((first + k) % WINDOW) * MOMENTS * n;
            for (size_t i = 0; i < MOMENTS; i++)
                m[i] += window[k] * row[i * n + x];
        }
        const double aa = m[0] * m[0], bb = m[1] * m[1], ab = m[0] * m[1];
        sum += (2.0 * ab + c1) * (2.0 * (m[4] - ab) + c2) /
               ((aa + bb + c1) * (m[2] - aa + m[3] - bb + c2));
    }
    return sum;
}

nas_status nas_ssim_y(nas_ctx *ctx, const nas_image *a, const nas_image *b, int32_t border,
                      double *out) {
    luma_pair p;
    const nas_status status = pair_init(ctx, a, b, border, WINDOW, &p);
    if (status != NAS_OK) return status;
    const size_t n = (size_t)p.w - WINDOW + 1;
    double *raw = nas_alloc_array(ctx, (size_t)p.w * MOMENTS, sizeof *raw);
    double *ring = nas_alloc_array(ctx, n * MOMENTS * WINDOW, sizeof *ring);
    double sum = 0.0;
    if (raw != NULL && ring != NULL) {
        double window[WINDOW];
        gaussian_window(window);
        for (int32_t y = 0; y < p.h; y++) {
            moments_of_row(&p, y, window, raw, ring + ((size_t)y % WINDOW) * MOMENTS * n);
            if (y >= WINDOW - 1) sum += ssim_of_row(ring, (size_t)(y + 1 - WINDOW), n, window);
        }
    }
    const double mean = sum / ((double)n * (double)(p.h - WINDOW + 1));
    const bool no_memory = raw == NULL || ring == NULL;
    nas_free(ring);
    nas_free(raw);
    pair_deinit(&p);
    if (no_memory) return NAS_ERR_NOMEM;
    if (!isfinite(mean)) return nas_fail(ctx, NAS_ERR_INVALID, "SSIM: an image holds NaN or Inf");
    *out = mean;
    return NAS_OK;
}
