/* test_resize.c - bicubic against exact fractions (oracle_image.py) and against what any such resize must keep. */
#include "image_files.h"
#include "oracle_image.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdlib.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_resize, .init = setup, .fini = teardown);

/* Sums of at most 144 float products of values below 1.2: some 1e-6, in levels some 3e-4. */
static const double LEVEL_TOLERANCE = 1e-3;

static nas_image resized(const nas_image *in, int32_t h, int32_t w) {
    nas_image out = {0};
    const nas_status status = nas_image_resize_bicubic(ctx, in, h, w, &out);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(out.c == in->c && out.h == h && out.w == w);
    return out;
}

Test(eval_resize, values_match_exact_fractions_when_shrinking_and_growing) {
    for (size_t i = 0; i < sizeof resize_cases / sizeof resize_cases[0]; i++) {
        nas_image in = pattern_image(ctx, 1, 1, resize_cases[i].h, resize_cases[i].w);
        nas_image out = resized(&in, resize_cases[i].out_h, resize_cases[i].out_w);
        for (int32_t k = 0; k < out.h * out.w; k++) {
            const double level = 255.0 * (double)out.data[k], want = resize_cases[i].values[k];
            cr_assert(fabs(level - want) < LEVEL_TOLERANCE, "case %zu, sample %d: %.6f, want %.6f",
                      i, k, level, want);
        }
        nas_image_deinit(&out);
        nas_image_deinit(&in);
    }
}

Test(eval_resize, equal_extents_change_nothing) {
    nas_image in = pattern_image(ctx, 2, 3, 14, 23);
    nas_image out = resized(&in, 14, 23);
    cr_assert(eq(dbl, largest_difference(&in, &out), 0.0));
    nas_image_deinit(&out);
    nas_image_deinit(&in);
}

Test(eval_resize, a_flat_picture_stays_flat_at_any_extents) {
    const char *text = getenv("SEED");
    const uint64_t seed = text == NULL ? 7 : strtoull(text, NULL, 10);
    nas_rng rng = nas_rng_stream(seed, 0, "flat");
    for (int round = 0; round < 40; round++) {
        nas_image in = {0};
        const int32_t h = 1 + (int32_t)nas_rng_below(&rng, 40),
                      w = 1 + (int32_t)nas_rng_below(&rng, 40);
        const int32_t out_h = 1 + (int32_t)nas_rng_below(&rng, 60),
                      out_w = 1 + (int32_t)nas_rng_below(&rng, 60);
        cr_assert(eq(int, (int)nas_image_init(ctx, 1, h, w, &in), NAS_OK));
        for (int32_t i = 0; i < h * w; i++)
            in.data[i] = 0.7f;
        nas_image out = resized(&in, out_h, out_w);
        for (int32_t i = 0; i < out_h * out_w; i++) {
            cr_assert(fabs((double)out.data[i] - 0.7) < 1e-5, "SEED=%llu round %d",
                      (unsigned long long)seed, round);
        }
        nas_image_deinit(&out);
        nas_image_deinit(&in);
    }
}

/* mirrored - left and right exchanged. */
static nas_image mirrored(const nas_image *in) {
    nas_image out = pattern_image(ctx, 0, in->c, in->h, in->w);
    for (int32_t row = 0; row < in->c * in->h; row++) {
        for (int32_t x = 0; x < in->w; x++)
            out.data[row * in->w + x] = in->data[row * in->w + in->w - 1 - x];
    }
    return out;
}

Test(eval_resize, mirroring_and_resizing_commute) {
    nas_image in = pattern_image(ctx, 3, 2, 13, 18);
    nas_image flipped = mirrored(&in);
    static const int32_t widths[] = {9, 6, 36, 54, 11, 25};
    for (size_t i = 0; i < 6; i++) {
        nas_image a = resized(&in, 7, widths[i]), b = resized(&flipped, 7, widths[i]);
        nas_image c = mirrored(&b);
        cr_assert(largest_difference(&a, &c) < 1e-5);
        nas_image_deinit(&c);
        nas_image_deinit(&b);
        nas_image_deinit(&a);
    }
    nas_image_deinit(&flipped);
    nas_image_deinit(&in);
}

Test(eval_resize, a_ramp_is_continued_between_its_samples) {
    nas_image in = {0};
    cr_assert(eq(int, (int)nas_image_init(ctx, 1, 4, 32, &in), NAS_OK));
    for (int y = 0; y < 4; y++) {
        for (int x = 0; x < 32; x++)
            in.data[y * 32 + x] = (float)x / 32.0f;
    }
    nas_image out = resized(&in, 4, 96);
    for (int x = 9; x < 87; x++) { /* away from the mirrored borders */
        const double want = ((x + 0.5) / 3.0 - 0.5) / 32.0;
        cr_assert(fabs((double)out.data[96 + x] - want) < 1e-5);
    }
    nas_image_deinit(&out);
    nas_image_deinit(&in);
}

Test(eval_resize, impossible_extents_and_failed_memory_are_errors_without_leaks) {
    nas_image in = pattern_image(ctx, 1, 3, 8, 8), out = {0};
    cr_assert(eq(int, (int)nas_image_resize_bicubic(ctx, &in, 0, 4, &out), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_image_resize_bicubic(ctx, &in, 4, -1, &out), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_image_resize_bicubic(ctx, &in, 65536, 1, &out), (int)NAS_ERR_RANGE));
    const long before = nas_mem_live();
    for (long n = 1;; n++) {
        nas_mem_fail_after(n);
        const nas_status status = nas_image_resize_bicubic(ctx, &in, 4, 16, &out);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        cr_assert(eq(long, nas_mem_live(), before));
    }
    nas_image_deinit(&out);
    cr_assert(eq(long, nas_mem_live(), before));
    nas_image_deinit(&in);
}
