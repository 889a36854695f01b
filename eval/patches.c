/* patches.c - random training patches: one of the eight symmetries of the square, image by area, place uniform. */
#include "eval/data_internal.h"

#include <string.h>

/* Where a patch comes from and how it is turned. */
typedef struct cut {
    const nas_sr_pair *pair;
    int32_t top, left; /* LR pixels */
    bool flip_rows, flip_columns, transpose;
} cut;

/* area_of - LR pixels of an image that can hold the patch, else 0. */
static double area_of(const nas_sr_pair *pair, int32_t size) {
    if (pair->lr.h < size || pair->lr.w < size) return 0.0;
    return (double)pair->lr.h * (double)pair->lr.w;
}

static cut draw(const nas_sr_data *data, nas_rng *rng, int32_t size, double total) {
    const size_t n = nas_sr_data_count(data, NAS_SPLIT_TRAIN);
    double at = nas_rng_uniform(rng) * total;
    cut c = {0};
    for (size_t i = 0; i < n; i++) {
        const nas_sr_pair *pair = nas_sr_data_pair(data, NAS_SPLIT_TRAIN, i);
        const double area = area_of(pair, size);
        if (area == 0.0) continue;
        c.pair = pair; /* rounding may leave `at` past the end: then the last one is taken */
        if (at < area) break;
        at -= area;
    }
    c.top = (int32_t)nas_rng_below(rng, (uint32_t)(c.pair->lr.h - size + 1));
    c.left = (int32_t)nas_rng_below(rng, (uint32_t)(c.pair->lr.w - size + 1));
    const uint32_t turn = nas_rng_below(rng, 8);
    c.flip_rows = (turn & 1) != 0;
    c.flip_columns = (turn & 2) != 0;
    c.transpose = (turn & 4) != 0;
    return c;
}

/* copy_patch - the square of `side` pixels at (top, left) into to [3][side][side], flipped, then transposed. */
static void copy_patch(const nas_image *from, int32_t top, int32_t left, int32_t side, const cut *c,
                       float *to) {
    const size_t s = (size_t)side, w = (size_t)from->w, plane = (size_t)from->h * w;
    for (size_t channel = 0; channel < 3; channel++) {
        for (size_t y = 0; y < s; y++) {
            const size_t row = (size_t)top + (c->flip_rows ? s - 1 - y : y);
            const float *src = from->data + channel * plane + row * w + (size_t)left;
            float *dst = to + channel * s * s;
            for (size_t x = 0; x < s; x++) {
                const float v = src[c->flip_columns ? s - 1 - x : x];
                dst[c->transpose ? x * s + y : y * s + x] = v;
            }
        }
    }
}

nas_status nas_sr_data_patches(nas_ctx *ctx, const nas_sr_data *data, nas_rng *rng, int32_t count,
                               int32_t size, float *lr, float *hr) {
    if (count < 1 || size < 1) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "patches: %" PRId32 " of %" PRId32 " pixels, both must be >= 1", count,
                        size);
    }
    const size_t n = nas_sr_data_count(data, NAS_SPLIT_TRAIN);
    double total = 0.0;
    for (size_t i = 0; i < n; i++) {
        total += area_of(nas_sr_data_pair(data, NAS_SPLIT_TRAIN, i), size);
    }
    if (total == 0.0) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "patches: none of the %zu training images holds an LR patch of %" PRId32
                        "x%" PRId32 ": use smaller patches or larger images",
                        n, size, size);
    }
    const int32_t scale = nas__sr_data_scale(data);
    const size_t lr_floats = 3 * (size_t)size * (size_t)size;
    const size_t hr_floats = lr_floats * (size_t)scale * (size_t)scale;
    for (int32_t i = 0; i < count; i++) {
        const cut c = draw(data, rng, size, total);
        copy_patch(&c.pair->lr, c.top, c.left, size, &c, lr + (size_t)i * lr_floats);
        copy_patch(&c.pair->hr, c.top * scale, c.left * scale, size * scale, &c,
                   hr + (size_t)i * hr_floats);
    }
    return NAS_OK;
}
