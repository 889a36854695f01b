/* test_image.c - making, cropping, rounding, luma. */
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

TestSuite(eval_image, .init = setup, .fini = teardown);

Test(eval_image, extents_outside_the_limits_are_refused_before_memory_is_taken) {
    static const int32_t bad[][3] = {{0, 1, 1},  {5, 1, 1},     {3, 0, 1},
                                     {3, 1, -1}, {1, 65536, 1}, {3, 65535, 65535}};
    const long before = nas_mem_live();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        nas_image image = {0};
        cr_assert(eq(int, (int)nas_image_init(ctx, bad[i][0], bad[i][1], bad[i][2], &image),
                     (int)NAS_ERR_RANGE));
        cr_assert(eq(ptr, image.data, NULL));
    }
    cr_assert(eq(long, nas_mem_live(), before));
}

Test(eval_image, crop_takes_the_named_rectangle_of_every_plane) {
    nas_image whole = pattern_image(ctx, 1, 3, 9, 7), part = {0};
    cr_assert(eq(int, (int)nas_image_crop(ctx, &whole, 2, 3, 5, 4, &part), NAS_OK));
    for (int c = 0; c < 3; c++) {
        for (int y = 0; y < 5; y++) {
            for (int x = 0; x < 4; x++) {
                cr_assert(eq(flt, part.data[(c * 5 + y) * 4 + x],
                             whole.data[(c * 9 + y + 2) * 7 + x + 3]));
            }
        }
    }
    nas_image_deinit(&part);
    static const int32_t bad[][4] = {{-1, 0, 2, 2}, {0, -1, 2, 2}, {5, 0, 5, 2},
                                     {0, 4, 2, 4},  {0, 0, 0, 2},  {INT32_MAX, 0, 2, 2}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert(
            eq(int,
               (int)nas_image_crop(ctx, &whole, bad[i][0], bad[i][1], bad[i][2], bad[i][3], &part),
               (int)NAS_ERR_RANGE));
    }
    nas_image_deinit(&whole);
}

Test(eval_image, rounding_clamps_rounds_half_up_and_sends_nan_to_zero) {
    static const struct {
        float in;
        int level;
    } rows[] = {{-0.5f, 0},
                {0.0f, 0},
                {1.0f, 255},
                {1.7f, 255},
                {NAN, 0},
                {INFINITY, 255},
                {-INFINITY, 0},
                {0.5f, 128},
                {0.4f / 255.0f, 0},
                {0.6f / 255.0f, 1},
                {200.49f / 255.0f, 200},
                {200.51f / 255.0f, 201}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        float value = rows[i].in;
        nas_image image = {.c = 1, .h = 1, .w = 1, .data = &value};
        nas_image_quantize8(&image);
        cr_assert(eq(flt, value, (float)rows[i].level / 255.0f), "row %zu", i);
    }
    for (int level = 0; level < 256; level++) { /* what is 8-bit stays as it is */
        float value = (float)level / 255.0f;
        nas_image image = {.c = 1, .h = 1, .w = 1, .data = &value};
        nas_image_quantize8(&image);
        cr_assert(eq(flt, value, (float)level / 255.0f));
    }
}

Test(eval_image, luma_of_the_corners_of_the_cube_is_bt601) {
    static const struct {
        float rgb[3];
        double luma;
    } rows[] = {{{0, 0, 0}, 16.0},
                {{1, 1, 1}, 235.0},
                {{1, 0, 0}, 81.481},
                {{0, 1, 0}, 144.553},
                {{0, 0, 1}, 40.966}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        float rgb[3] = {rows[i].rgb[0], rows[i].rgb[1], rows[i].rgb[2]};
        const nas_image image = {.c = 3, .h = 1, .w = 1, .data = rgb};
        nas_image luma = {0};
        cr_assert(eq(int, (int)nas_image_luma(ctx, &image, &luma), NAS_OK));
        cr_assert(fabs(255.0 * (double)luma.data[0] - rows[i].luma) < 1e-4, "row %zu", i);
        nas_image_deinit(&luma);
    }
    float grey = 0.5f;
    const nas_image one = {.c = 1, .h = 1, .w = 1, .data = &grey};
    nas_image luma = {0};
    cr_assert(eq(int, (int)nas_image_luma(ctx, &one, &luma), (int)NAS_ERR_SHAPE));
}
