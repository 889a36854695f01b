/* test_patches.c - patches: LR and HR of one place, turned alike, from every image by area. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_ERROR);
    folder_make(dir);
}

static void teardown(void) {
    folder_remove(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(eval_patches, .init = setup, .fini = teardown, .timeout = 60);

/* coordinates - a picture whose red is the row, green the column and blue `tag`, in LR pixels of `scale`. */
static nas_image coordinates(int32_t h, int32_t w, int32_t scale, int tag) {
    nas_image image = {0};
    cr_assert(eq(int, (int)nas_image_init(ctx, 3, h, w, &image), NAS_OK));
    for (int32_t y = 0; y < h; y++) {
        for (int32_t x = 0; x < w; x++) {
            const size_t at = (size_t)y * (size_t)w + (size_t)x, plane = (size_t)h * (size_t)w;
            image.data[at] = (float)(y / scale) / 255.0f;
            image.data[plane + at] = (float)(x / scale) / 255.0f;
            image.data[2 * plane + at] = (float)tag / 255.0f;
        }
    }
    return image;
}

/* open_two - TRAIN: image tag 10 of 20x30 LR pixels and image tag 20 of 40x30; also the splits nobody looks at. */
static nas_sr_data *open_two(int32_t scale) {
    static const int32_t heights[2] = {20, 40};
    for (int i = 0; i < 2; i++) {
        char name[64];
        nas_image hr = coordinates(heights[i] * scale, 30 * scale, scale, 10 * (i + 1));
        nas_image lr = coordinates(heights[i], 30, 1, 10 * (i + 1));
        (void)snprintf(name, sizeof name, "HR/%d.png", i);
        write_image(ctx, dir, name, &hr);
        (void)snprintf(name, sizeof name, "LR_x%d/%d.png", (int)scale, i);
        write_image(ctx, dir, name, &lr);
        nas_image_deinit(&lr);
        nas_image_deinit(&hr);
    }
    char other[128];
    (void)snprintf(other, sizeof other, "%s-other", dir);
    for (int i = 0; i < 2; i++) {
        nas_image image = pattern_image(ctx, i, 3, 32, 32);
        write_image(ctx, other, i == 0 ? "s/a.png" : "r/a.png", &image);
        nas_image_deinit(&image);
    }
    char select[160], report[160];
    (void)snprintf(select, sizeof select, "%s/s", other);
    (void)snprintf(report, sizeof report, "%s/r", other);
    nas_sr_data_options o = nas_sr_data_options_default();
    o.scale = scale;
    o.train_dir = dir;
    o.select_dir = select;
    o.report_dir = report;
    o.threads = 1;
    nas_sr_data *data = NULL;
    const nas_status status = nas_sr_data_open(ctx, &o, &data);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    folder_remove(ctx, other);
    return data;
}

static uint64_t test_seed(void) {
    const char *text = getenv("SEED");
    return text == NULL ? 99 : strtoull(text, NULL, 10);
}

static int level(float v) {
    return (int)lrintf(v * 255.0f);
}

enum { SIZE = 6, COUNT = 400 };

/* turn_of - which of the eight symmetries the LR patch shows, -1 when rows and columns do not step by one. */
static int turn_of(const float *lr) {
    const float *row = lr, *column = lr + SIZE * SIZE;
    const bool transpose = level(row[1]) != level(row[0]);
    const int dy = transpose ? level(row[1]) - level(row[0]) : level(row[SIZE]) - level(row[0]);
    const int dx =
        transpose ? level(column[SIZE]) - level(column[0]) : level(column[1]) - level(column[0]);
    if (abs(dx) != 1 || abs(dy) != 1) return -1;
    return (dy < 0 ? 1 : 0) + (dx < 0 ? 2 : 0) + (transpose ? 4 : 0);
}

Test(eval_patches, hr_shows_the_place_of_lr_under_the_same_symmetry) {
    const uint64_t seed = test_seed();
    for (int32_t scale = 2; scale <= 4; scale++) {
        nas_sr_data *data = open_two(scale);
        const size_t hs = (size_t)(SIZE * scale);
        float *lr =
            calloc((size_t)COUNT * 3 * SIZE * SIZE, sizeof *lr); /* exactly the promised sizes */
        float *hr = calloc((size_t)COUNT * 3 * hs * hs, sizeof *hr);
        nas_rng rng = nas_rng_stream(seed, 0, "patches");
        cr_assert(eq(int, (int)nas_sr_data_patches(ctx, data, &rng, COUNT, SIZE, lr, hr), NAS_OK));
        int turns[8] = {0}, tall = 0;
        for (size_t i = 0; i < COUNT; i++) {
            const float *l = lr + i * 3 * SIZE * SIZE, *h = hr + i * 3 * hs * hs;
            const int turn = turn_of(l);
            cr_assert(turn >= 0, "SEED=%llu scale %d patch %zu", (unsigned long long)seed,
                      (int)scale, i);
            turns[turn]++;
            tall += level(l[2 * SIZE * SIZE]) == 20 ? 1 : 0;
            for (size_t c = 0; c < 3; c++) {
                for (size_t y = 0; y < hs; y++) {
                    for (size_t x = 0; x < hs; x++) {
                        const float want =
                            l[(c * SIZE + y / (size_t)scale) * SIZE + x / (size_t)scale];
                        cr_assert(eq(flt, h[(c * hs + y) * hs + x], want), "SEED=%llu",
                                  (unsigned long long)seed);
                    }
                }
            }
        }
        for (int t = 0; t < 8; t++)
            cr_assert(turns[t] > 20, "SEED=%llu: turn %d %d times of 400", (unsigned long long)seed,
                      t, turns[t]);
        /* By area the taller image gets 2/3 of 400 = 267, standard deviation 9.4. */
        cr_assert(tall > 220 && tall < 314, "SEED=%llu: %d of 400", (unsigned long long)seed, tall);
        free(hr);
        free(lr);
        nas_sr_data_close(data);
        folder_remove(ctx, dir);
    }
    cr_assert(eq(int, (int)nas_mkdirs(ctx, dir), NAS_OK));
}

Test(eval_patches, same_stream_same_patches_and_too_large_ones_are_refused) {
    nas_sr_data *data = open_two(2);
    float lr[2][2 * 3 * 30 * 30], hr[3 * 2 * 60 * 60];
    for (int i = 0; i < 2; i++) {
        nas_rng rng = nas_rng_stream(5, 1, "patches");
        cr_assert(eq(int, (int)nas_sr_data_patches(ctx, data, &rng, 2, 30, lr[i], hr), NAS_OK));
        cr_assert(eq(int, level(lr[i][2 * 900]), 20)); /* only the taller image holds 30x30 */
    }
    cr_assert(eq(int, memcmp(lr[0], lr[1], sizeof lr[0]), 0));
    nas_rng rng = nas_rng_stream(5, 1, "patches");
    cr_assert(
        eq(int, (int)nas_sr_data_patches(ctx, data, &rng, 1, 31, lr[0], hr), (int)NAS_ERR_RANGE));
    cr_assert(
        eq(int, (int)nas_sr_data_patches(ctx, data, &rng, 0, 8, lr[0], hr), (int)NAS_ERR_INVALID));
    cr_assert(
        eq(int, (int)nas_sr_data_patches(ctx, data, &rng, 1, 0, lr[0], hr), (int)NAS_ERR_INVALID));
    nas_sr_data_close(data);
}
