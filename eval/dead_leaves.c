/* dead_leaves.c - synthetic photographs: opaque leaves dropped until the whole picture is covered.
 *
 * Model: Lee, Mumford & Huang, IJCV 41, 2001 (occlusion, sizes with density ~ r^-3, so that every octave of sizes
 * covers the same area); textures and their use as training data: Baradad et al., arXiv:2106.05963, and Achddou,
 * Gousseau & Ladjal, SSVM 2021. Leaves are dropped front to back: a pixel that is covered is finished, so every pixel
 * is coloured about once however many leaves lie below. Edges are antialiased by the covered share of the pixel. */
#include "eval/data.h"
#include "eval/leaves_internal.h"

#include <math.h>

/* The picture while leaves fall: `left` is how much of each pixel is still uncovered, 1 at first. */
typedef struct canvas {
    int32_t h, w;
    float *rgb;           /* [3][h][w] */
    float *left;          /* [h][w] */
    int32_t *open_in_row; /* [h] pixels that are not finished */
    size_t open;
} canvas;

static const float FINISHED = 1.0f / 1024.0f; /* of a pixel; a quarter of an 8-bit level */
static const float LEAF_SOFT_MAX = 5.0f;      /* widest edge, pixels */

static float uniform(nas_rng *rng, float lo, float hi) {
    return lo + (hi - lo) * (float)nas_rng_uniform(rng);
}

static float log_uniform(nas_rng *rng, float lo, float hi) {
    return lo * powf(hi / lo, (float)nas_rng_uniform(rng));
}

/* paint - puts `share` of colour on pixel `at` of row y. */
static void paint(canvas *cv, int32_t y, size_t at, float share, const float rgb[3]) {
    const size_t plane = (size_t)cv->h * (size_t)cv->w;
    const float weight = cv->left[at] * share;
    for (size_t c = 0; c < 3; c++)
        cv->rgb[c * plane + at] += weight * rgb[c];
    cv->left[at] -= weight;
    if (cv->left[at] >= FINISHED) return;
    cv->open_in_row[y]--;
    cv->open--;
}

/* drop_leaf - `soft` is the width of the edge in pixels, >= 1. */
static void drop_leaf(canvas *cv, const nas__shape *shape, const nas__surface *surface,
                      float soft) {
    const float margin = 0.5f * soft;
    const float reach = shape->reach + margin;
    const int32_t top = (int32_t)fmaxf(0.0f, floorf(shape->y - reach));
    const int32_t bottom = (int32_t)fminf((float)cv->h - 1.0f, ceilf(shape->y + reach));
    for (int32_t y = top; y <= bottom; y++) {
        const float dy = (float)y - shape->y;
        float lo = 0.0f, hi = 0.0f;
        if (cv->open_in_row[y] == 0 || !nas__shape_span(shape, dy, margin, &lo, &hi)) continue;
        const int32_t from = (int32_t)fmaxf(0.0f, floorf(shape->x + lo));
        const int32_t to = (int32_t)fminf((float)cv->w - 1.0f, ceilf(shape->x + hi));
        for (int32_t x = from; x <= to; x++) {
            const size_t at = (size_t)y * (size_t)cv->w + (size_t)x;
            if (cv->left[at] < FINISHED) continue;
            const float dx = (float)x - shape->x;
            const float share = 0.5f - nas__shape_distance(shape, dx, dy) / soft;
            if (share <= 0.0f) continue;
            float rgb[3];
            nas__surface_colour(surface, dx, dy, rgb);
            paint(cv, y, at, share < 1.0f ? share : 1.0f, rgb);
        }
    }
}

/* draw_soft - width of an edge: most are as sharp as a lens makes them, some out of focus. */
static float draw_soft(nas_rng *rng, float sharpest, float r) {
    if (nas_rng_below(rng, 4) != 0) return sharpest;
    const float widest = fminf(LEAF_SOFT_MAX, fmaxf(sharpest, 0.5f * r));
    return log_uniform(rng, sharpest, widest);
}

/* draw_radius - density ~ r^-3 between lo and hi, by inverting its distribution. */
static float draw_radius(nas_rng *rng, float lo, float hi) {
    const float a = 1.0f / (lo * lo), b = 1.0f / (hi * hi);
    return 1.0f / sqrtf(a - (float)nas_rng_uniform(rng) * (a - b));
}

/* fill_rest - what is still open after the last leaf shows one large leaf behind all. */
static void fill_rest(canvas *cv, const nas__surface *surface) {
    for (int32_t y = 0; y < cv->h; y++) {
        for (int32_t x = 0; x < cv->w && cv->open_in_row[y] > 0; x++) {
            const size_t at = (size_t)y * (size_t)cv->w + (size_t)x;
            if (cv->left[at] < FINISHED) continue;
            float rgb[3];
            nas__surface_colour(surface, (float)x - 0.5f * (float)cv->w,
                                (float)y - 0.5f * (float)cv->h, rgb);
            paint(cv, y, at, 1.0f, rgb);
        }
    }
}

/* cover - leaves until hardly a pixel is open. */
static void cover(canvas *cv, nas_rng *rng, const nas__grain *grain) {
    const nas__palette palette = nas__palette_draw(rng, (float)(cv->h < cv->w ? cv->h : cv->w));
    const float side = (float)(cv->h < cv->w ? cv->h : cv->w);
    const float largest = fmaxf(4.0f, side * uniform(rng, 0.3f, 0.8f));
    const float smallest = fminf(log_uniform(rng, 1.5f, 16.0f), 0.5f * largest);
    const float sharpest = nas_rng_below(rng, 2) == 0 ? 1.0f : uniform(rng, 1.0f, 1.8f);
    const size_t pixels = (size_t)cv->h * (size_t)cv->w, enough = pixels / 256;
    /* Twelve times the picture's area of leaves leaves about e^-12 of it open; bars cover less than disks. */
    double area = 24.0 * (double)pixels;
    while (cv->open > enough && area > 0.0) {
        const float r = draw_radius(rng, smallest, largest);
        const float x = uniform(rng, -r, (float)cv->w + r), y = uniform(rng, -r, (float)cv->h + r);
        const nas__shape shape = nas__shape_draw(rng, x, y, r);
        const nas__surface surface = nas__surface_draw(rng, &palette, grain, x, y, r);
        drop_leaf(cv, &shape, &surface, draw_soft(rng, sharpest, r));
        area -= (double)r * (double)r;
    }
    const nas__surface behind = nas__surface_draw(rng, &palette, grain, 0.0f, 0.0f, side);
    fill_rest(cv, &behind);
}

/* convolve_line - [side, 1 - 2*side, side] along n samples `step` apart, ends repeated. */
static void convolve_line(float *p, size_t n, size_t step, float side) {
    float before = p[0];
    for (size_t i = 0; i < n; i++) {
        const float here = p[i * step], after = i + 1 < n ? p[(i + 1) * step] : here;
        p[i * step] = here + side * (before + after - 2.0f * here);
        before = here;
    }
}

/* develop - what a camera adds: a little blur or sharpening of the whole picture, and noise. */
static void develop(nas_rng *rng, nas_image *image) {
    const float side = uniform(rng, -0.1f, 0.1f);
    const float sigma =
        uniform(rng, 0.0f, 1.0f) < 0.5f ? 0.0f : log_uniform(rng, 0.3f, 2.0f) / 255.0f;
    const size_t h = (size_t)image->h, w = (size_t)image->w;
    for (size_t c = 0; c < 3; c++) {
        float *plane = image->data + c * h * w;
        for (size_t y = 0; y < h; y++)
            convolve_line(plane + y * w, w, 1, side);
        for (size_t x = 0; x < w; x++)
            convolve_line(plane + x, h, w, side);
    }
    for (size_t i = 0; sigma > 0.0f && i < 3 * h * w; i++) {
        image->data[i] += sigma * (float)nas_rng_normal(rng);
    }
    nas_image_quantize8(image);
}

nas_status nas_dead_leaves(nas_ctx *ctx, uint64_t seed, uint64_t index, int32_t h, int32_t w,
                           nas_image *out) {
    nas_image image = {0}, left = {0};
    nas_status status = nas_image_init(ctx, 3, h, w, &image);
    if (status == NAS_OK) status = nas_image_init(ctx, 1, h, w, &left);
    int32_t *open_in_row = NULL;
    nas__grain *grain = NULL;
    if (status == NAS_OK) {
        open_in_row = nas_alloc_array(ctx, (size_t)h, sizeof *open_in_row);
        grain = nas_alloc_array(ctx, 1, sizeof *grain);
        if (open_in_row == NULL || grain == NULL) status = NAS_ERR_NOMEM;
    }
    if (status == NAS_OK) {
        nas_rng rng = nas_rng_stream(seed, index, "dead-leaves");
        canvas cv = {.h = h, .w = w, .rgb = image.data, .left = left.data};
        cv.open_in_row = open_in_row;
        cv.open = (size_t)h * (size_t)w;
        for (size_t i = 0; i < cv.open; i++)
            left.data[i] = 1.0f;
        for (int32_t y = 0; y < h; y++)
            open_in_row[y] = w;
        nas__grain_fill(&rng, grain);
        cover(&cv, &rng, grain);
        develop(&rng, &image);
    }
    nas_free(grain);
    nas_free(open_in_row);
    nas_image_deinit(&left);
    if (status != NAS_OK) {
        nas_image_deinit(&image);
        return nas_wrap(ctx, status, "dead leaves %" PRIu64, index);
    }
    *out = image;
    return NAS_OK;
}
