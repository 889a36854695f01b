/* test_dead_leaves.c - the generator: repeatable, covered, and with the statistics it promises. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_dead_leaves, .init = setup, .fini = teardown, .timeout = 60);

static nas_image leaves(uint64_t seed, uint64_t index, int32_t h, int32_t w) {
    nas_image image = {0};
    const nas_status status = nas_dead_leaves(ctx, seed, index, h, w, &image);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(image.c == 3 && image.h == h && image.w == w);
    return image;
}

Test(eval_dead_leaves, same_seed_same_pixels_other_index_other_picture) {
    nas_image a = leaves(3, 1, 50, 70), b = leaves(3, 1, 50, 70), c = leaves(3, 2, 50, 70),
              d = leaves(4, 1, 50, 70);
    cr_assert(eq(dbl, largest_difference(&a, &b), 0.0));
    cr_assert(largest_difference(&a, &c) > 0.1);
    cr_assert(largest_difference(&a, &d) > 0.1);
    nas_image_deinit(&d);
    nas_image_deinit(&c);
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_dead_leaves, every_value_is_an_8_bit_level) {
    nas_image a = leaves(5, 0, 33, 47), b = leaves(5, 0, 33, 47);
    nas_image_quantize8(&b);
    cr_assert(eq(dbl, largest_difference(&a, &b), 0.0));
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_dead_leaves, any_extents_work) {
    static const int32_t extents[][2] = {{1, 1}, {1, 90}, {90, 1}, {2, 3}, {16, 16}, {17, 130}};
    for (size_t i = 0; i < sizeof extents / sizeof extents[0]; i++) {
        nas_image image = leaves(7, i, extents[i][0], extents[i][1]);
        nas_image_deinit(&image);
    }
    nas_image image = {0};
    cr_assert(eq(int, (int)nas_dead_leaves(ctx, 1, 1, 0, 5, &image), (int)NAS_ERR_RANGE));
}

/* Differences of neighbours at distance d, all pictures together: mean square over the luminance. */
static double roughness(const nas_image *luma, int d) {
    double sum = 0.0;
    for (int y = 0; y < luma->h; y++) {
        for (int x = 0; x + d < luma->w; x++) {
            const double e =
                (double)luma->data[y * luma->w + x + d] - (double)luma->data[y * luma->w + x];
            sum += e * e;
        }
    }
    return sum / ((double)luma->h * (luma->w - d));
}

static double deviation(const float *p, size_t n) {
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++) {
        sum += (double)p[i];
        squares += (double)p[i] * (double)p[i];
    }
    return sqrt(squares / (double)n - sum / (double)n * (sum / (double)n));
}

Test(eval_dead_leaves, statistics_resemble_photographs) {
    enum { PICTURES = 16, SIDE = 128 };
    double near = 0.0, far = 0.0, light = 0.0, chroma = 0.0, sharp = 0.0;
    for (uint64_t i = 0; i < PICTURES; i++) {
        nas_image image = leaves(11, i, SIDE, SIDE), luma = {0};
        cr_assert(eq(int, (int)nas_image_luma(ctx, &image, &luma), NAS_OK));
        const size_t n = (size_t)SIDE * SIDE;
        near += roughness(&luma, 1);
        far += roughness(&luma, 8);
        light += deviation(luma.data, n);
        for (size_t k = 0; k < n; k++)
            image.data[k] -= image.data[n + k]; /* red - green */
        chroma += deviation(image.data, n);
        for (size_t k = 1; k < n; k++)
            sharp = fmax(sharp, fabs((double)luma.data[k] - (double)luma.data[k - 1]));
        nas_image_deinit(&luma);
        nas_image_deinit(&image);
    }
    /* Neighbours are alike, distant pixels are not; colour varies less than light; edges are there. The same figures of
     * BSD200 and T91 photographs: far/near 4.8 and 6.8, chroma/light 0.43 and 0.70, light 0.17 and 0.16. */
    cr_assert(far / near > 3.0 && far / near < 12.0, "far/near %.2f", far / near);
    cr_assert(chroma / light > 0.15 && chroma / light < 0.9, "chroma/light %.2f", chroma / light);
    cr_assert(light / PICTURES > 0.1 && light / PICTURES < 0.25, "light %.3f", light / PICTURES);
    cr_assert(sharp > 0.5, "sharpest step %.2f", sharp);
}

Test(eval_dead_leaves, failed_allocations_leak_nothing) {
    const long before = nas_mem_live();
    for (long n = 1;; n++) {
        nas_image image = {0};
        nas_mem_fail_after(n);
        const nas_status status = nas_dead_leaves(ctx, 1, 1, 20, 20, &image);
        nas_mem_fail_after(0);
        nas_image_deinit(&image);
        cr_assert(eq(long, nas_mem_live(), before));
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
    }
}
