/* test_quality.c - PSNR and SSIM against plain loops (oracle_image.py), and their edges. */
#include "image_files.h"
#include "oracle_image.h"

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

TestSuite(eval_quality, .init = setup, .fini = teardown);

/* Images are floats: levels are off by 1e-5, which moves these figures by less than this. */
static const double TOLERANCE = 1e-4;

static void expect(const nas_image *a, const nas_image *b, int32_t border, double want_psnr,
                   double want_ssim) {
    double psnr = 0.0, ssim = 0.0;
    cr_assert(eq(int, (int)nas_psnr_y(ctx, a, b, border, &psnr), NAS_OK));
    cr_assert(eq(int, (int)nas_ssim_y(ctx, a, b, border, &ssim), NAS_OK));
    cr_assert(fabs(psnr - want_psnr) < TOLERANCE, "PSNR %.6f, want %.6f", psnr, want_psnr);
    cr_assert(fabs(ssim - want_ssim) < TOLERANCE, "SSIM %.6f, want %.6f", ssim, want_ssim);
}

Test(eval_quality, figures_match_the_plain_definitions) {
    for (size_t i = 0; i < sizeof quality_cases / sizeof quality_cases[0]; i++) {
        const int32_t h = quality_cases[i].h, w = quality_cases[i].w,
                      border = quality_cases[i].border;
        nas_image a = pattern_image(ctx, 2, 1, h, w), b = pattern_image(ctx, 3, 1, h, w);
        for (int32_t k = 0; k < h * w; k++)
            b.data[k] = 0.75f * a.data[k] + 0.25f * b.data[k];
        expect(&a, &b, border, quality_cases[i].psnr, quality_cases[i].ssim);
        expect(&b, &a, border, quality_cases[i].psnr, quality_cases[i].ssim);
        nas_image_deinit(&b);
        nas_image_deinit(&a);
        a = pattern_image(ctx, 2, 3, h, w);
        b = pattern_image(ctx, 5, 3, h, w);
        expect(&a, &b, border, quality_cases[i].psnr_rgb, quality_cases[i].ssim_rgb);
        nas_image_deinit(&b);
        nas_image_deinit(&a);
    }
}

Test(eval_quality, identical_images_give_100_db_and_1) {
    nas_image a = pattern_image(ctx, 2, 3, 16, 16);
    expect(&a, &a, 2, 100.0, 1.0);
    nas_image_deinit(&a);
}

Test(eval_quality, one_level_everywhere_is_48_13_db) {
    nas_image a = pattern_image(ctx, 2, 1, 12, 12), b = pattern_image(ctx, 2, 1, 12, 12);
    for (int i = 0; i < 144; i++)
        b.data[i] += 1.0f / 255.0f;
    double psnr = 0.0;
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &a, &b, 0, &psnr), NAS_OK));
    cr_assert(fabs(psnr - 20.0 * log10(255.0)) < TOLERANCE, "%.6f", psnr);
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_quality, rgb_is_rounded_to_8_bit_and_left_unchanged) {
    nas_image a = pattern_image(ctx, 2, 3, 14, 14), b = pattern_image(ctx, 2, 3, 14, 14);
    for (int i = 0; i < 3 * 196; i++)
        b.data[i] += 0.3f / 255.0f;
    const float first = b.data[0];
    expect(&a, &b, 0, 100.0, 1.0);
    cr_assert(eq(flt, b.data[0], first));
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_quality, the_border_is_not_looked_at) {
    nas_image a = pattern_image(ctx, 2, 1, 19, 17), b = pattern_image(ctx, 2, 1, 19, 17);
    for (int y = 0; y < 19; y++) {
        for (int x = 0; x < 17; x++) {
            if (y < 3 || x < 3 || y >= 16 || x >= 14) b.data[y * 17 + x] = 0.0f;
        }
    }
    expect(&a, &b, 3, 100.0, 1.0);
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_quality, images_that_cannot_be_compared_are_refused) {
    nas_image a = pattern_image(ctx, 1, 3, 16, 16), b = pattern_image(ctx, 1, 3, 16, 15);
    nas_image one = pattern_image(ctx, 1, 1, 16, 16), two = pattern_image(ctx, 1, 2, 16, 16);
    double out = -1.0;
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &a, &b, 0, &out), (int)NAS_ERR_SHAPE));
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &a, &one, 0, &out), (int)NAS_ERR_SHAPE));
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &two, &two, 0, &out), (int)NAS_ERR_SHAPE));
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &a, &a, 8, &out), (int)NAS_ERR_SHAPE));
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &a, &a, -1, &out), (int)NAS_ERR_SHAPE));
    cr_assert(eq(int, (int)nas_ssim_y(ctx, &a, &a, 3, &out), (int)NAS_ERR_SHAPE));
    one.data[40] = NAN;
    cr_assert(eq(int, (int)nas_psnr_y(ctx, &one, &one, 0, &out), (int)NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_ssim_y(ctx, &one, &one, 0, &out), (int)NAS_ERR_INVALID));
    cr_assert(eq(dbl, out, -1.0));
    nas_image_deinit(&two);
    nas_image_deinit(&one);
    nas_image_deinit(&b);
    nas_image_deinit(&a);
}

Test(eval_quality, failed_allocations_leak_nothing) {
    nas_image a = pattern_image(ctx, 1, 3, 16, 16);
    const long before = nas_mem_live();
    nas_status (*const measures[2])(nas_ctx *, const nas_image *, const nas_image *, int32_t,
                                    double *) = {nas_psnr_y, nas_ssim_y};
    for (int m = 0; m < 2; m++) {
        for (long n = 1;; n++) {
            double out = 0.0;
            nas_mem_fail_after(n);
            const nas_status status = measures[m](ctx, &a, &a, 0, &out);
            nas_mem_fail_after(0);
            cr_assert(eq(long, nas_mem_live(), before));
            if (status == NAS_OK) break;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        }
    }
    nas_image_deinit(&a);
}
