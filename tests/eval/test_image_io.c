/* test_image_io.c - PNG and JPEG: every kind of pixel, every truncation, damage, hostile headers, failed memory. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <png.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_image_io, .init = setup, .fini = teardown);

/* level_of - what channel c of pixel (y, x) of encode_png must decode to. */
static int level_of(int colour_type, int depth, int c, int y, int x) {
    const int mask = depth < 8 ? (1 << depth) - 1 : 255;
    const int first = pattern_level(0, y, x) & mask;
    switch (colour_type) {
    case PNG_COLOR_TYPE_PALETTE: return c == 0 ? first : c == 1 ? 255 - first : first / 2;
    case PNG_COLOR_TYPE_GRAY:
    case PNG_COLOR_TYPE_GRAY_ALPHA: return first * 255 / mask;
    default: return pattern_level(c, y, x);
    }
}

Test(eval_image_io, every_kind_of_png_becomes_8_bit_rgb) {
    static const struct {
        const char *name;
        int colour_type, depth;
        bool interlaced;
    } rows[] = {
        {"rgb", PNG_COLOR_TYPE_RGB, 8, false},
        {"rgb interlaced", PNG_COLOR_TYPE_RGB, 8, true},
        {"rgb 16", PNG_COLOR_TYPE_RGB, 16, false},
        {"rgba", PNG_COLOR_TYPE_RGBA, 8, false},
        {"rgba 16", PNG_COLOR_TYPE_RGBA, 16, true},
        {"grey", PNG_COLOR_TYPE_GRAY, 8, false},
        {"grey 1", PNG_COLOR_TYPE_GRAY, 1, false},
        {"grey 2", PNG_COLOR_TYPE_GRAY, 2, false},
        {"grey 4", PNG_COLOR_TYPE_GRAY, 4, true},
        {"grey 16", PNG_COLOR_TYPE_GRAY, 16, false},
        {"grey alpha", PNG_COLOR_TYPE_GRAY_ALPHA, 8, false},
        {"palette 8", PNG_COLOR_TYPE_PALETTE, 8, false},
        {"palette 2", PNG_COLOR_TYPE_PALETTE, 2, true},
    };
    enum { H = 11, W = 13 };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_buf file = {0};
        encode_png(rows[i].colour_type, rows[i].depth, rows[i].interlaced, H, W, &file);
        nas_image image = {0};
        const nas_status status = nas_image_decode(ctx, file.data, file.len, &image);
        cr_assert(eq(int, (int)status, NAS_OK), "%s: %s", rows[i].name, nas_ctx_message(ctx));
        cr_assert(image.c == 3 && image.h == H && image.w == W);
        for (int c = 0; c < 3; c++) {
            for (int y = 0; y < H; y++) {
                for (int x = 0; x < W; x++) {
                    const float want =
                        (float)level_of(rows[i].colour_type, rows[i].depth, c, y, x) / 255.0f;
                    cr_assert(eq(flt, image.data[(c * H + y) * W + x], want), "%s at %d,%d",
                              rows[i].name, y, x);
                }
            }
        }
        nas_image_deinit(&image);
        nas_buf_deinit(&file);
    }
}

/* JPEG at quality 95 of a smooth picture. Colour is stored at half resolution, and blue takes 1.8 times its error. */
static const double GREY_TOLERANCE = 4.0 / 255.0;
static const double COLOUR_TOLERANCE = 14.0 / 255.0;

Test(eval_image_io, jpeg_colour_grey_and_progressive_come_close) {
    nas_image want = smooth_image(ctx, 1, 40, 56);
    static const jpeg_kind kinds[] = {JPEG_COLOUR, JPEG_PROGRESSIVE, JPEG_GREY};
    for (size_t i = 0; i < 3; i++) {
        nas_buf file = {0};
        encode_jpeg(&want, kinds[i], &file);
        nas_image image = {0};
        const nas_status status = nas_image_decode(ctx, file.data, file.len, &image);
        cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
        cr_assert(eq(int, image.c, 3));
        if (kinds[i] == JPEG_GREY) { /* the grey plane is the first one of `want`, three times */
            const size_t n = 40 * 56;
            for (size_t k = 0; k < 3 * n; k++) {
                cr_assert(fabs((double)image.data[k] - (double)want.data[k % n]) < GREY_TOLERANCE);
            }
        } else {
            cr_assert(largest_difference(&image, &want) < COLOUR_TOLERANCE, "%.1f levels",
                      255.0 * largest_difference(&image, &want));
        }
        nas_image_deinit(&image);
        nas_buf_deinit(&file);
    }
    nas_buf file = {0};
    nas_image image = {0};
    encode_jpeg(&want, JPEG_CMYK, &file);
    cr_assert(
        eq(int, (int)nas_image_decode(ctx, file.data, file.len, &image), (int)NAS_ERR_UNSUPPORTED));
    nas_buf_deinit(&file);
    nas_image_deinit(&want);
}

/* no_prefix_decodes - every proper prefix, in a buffer of exactly its size, is an error that leaks nothing. */
static void no_prefix_decodes(const nas_buf *file, const char *what) {
    const long before = nas_mem_live();
    for (size_t len = 0; len < file->len; len++) {
        uint8_t *exact = malloc(len == 0 ? 1 : len);
        cr_assert(ne(ptr, exact, NULL));
        memcpy(exact, file->data, len);
        nas_image image = {0};
        const nas_status status = nas_image_decode(ctx, exact, len, &image);
        cr_assert(eq(int, (int)status, (int)NAS_ERR_PARSE), "%s cut to %zu of %zu bytes: %s", what,
                  len, file->len, nas_ctx_message(ctx));
        cr_assert(eq(ptr, image.data, NULL));
        free(exact);
    }
    cr_assert(eq(long, nas_mem_live(), before));
}

Test(eval_image_io, a_truncated_file_of_any_length_is_an_error) {
    nas_image picture = smooth_image(ctx, 2, 17, 19);
    nas_buf file = {0};
    encode_png(PNG_COLOR_TYPE_RGB, 8, false, 7, 9, &file);
    no_prefix_decodes(&file, "png");
    nas_buf_clear(&file);
    encode_png(PNG_COLOR_TYPE_PALETTE, 8, true, 7, 9, &file);
    no_prefix_decodes(&file, "interlaced png");
    nas_buf_clear(&file);
    encode_jpeg(&picture, JPEG_COLOUR, &file);
    no_prefix_decodes(&file, "jpeg");
    nas_buf_clear(&file);
    encode_jpeg(&picture, JPEG_PROGRESSIVE, &file);
    no_prefix_decodes(&file, "progressive jpeg");
    nas_buf_deinit(&file);
    nas_image_deinit(&picture);
}

static uint64_t test_seed(void) {
    const char *text = getenv("SEED");
    return text == NULL ? 20240611 : strtoull(text, NULL, 10);
}

Test(eval_image_io, random_damage_gives_a_picture_or_an_error_never_a_leak, .timeout = 60) {
    const uint64_t seed = test_seed();
    nas_rng rng = nas_rng_stream(seed, 0, "damage");
    nas_image picture = smooth_image(ctx, 3, 24, 24);
    nas_buf files[3] = {0};
    encode_png(PNG_COLOR_TYPE_RGBA, 8, true, 12, 12, &files[0]);
    encode_jpeg(&picture, JPEG_COLOUR, &files[1]);
    encode_jpeg(&picture, JPEG_PROGRESSIVE, &files[2]);
    const long before = nas_mem_live();
    int bad = 0;
    for (int round = 0; round < 1500; round++) {
        const nas_buf *file = &files[round % 3];
        uint8_t copy[4096];
        cr_assert(file->len <= sizeof copy);
        memcpy(copy, file->data, file->len);
        const uint32_t flips = 1 + nas_rng_below(&rng, 4);
        for (uint32_t i = 0; i < flips; i++) {
            copy[nas_rng_below(&rng, (uint32_t)file->len)] = (uint8_t)nas_rng_below(&rng, 256);
        }
        nas_image image = {0};
        const nas_status status = nas_image_decode(ctx, copy, file->len, &image);
        bad += status != NAS_OK ? 1 : 0;
        const bool has_pixels = image.data != NULL;
        cr_assert(eq(int, has_pixels, status == NAS_OK), "SEED=%llu round %d",
                  (unsigned long long)seed, round);
        nas_image_deinit(&image);
    }
    cr_assert(eq(long, nas_mem_live(), before), "SEED=%llu", (unsigned long long)seed);
    cr_assert(bad > 500, "SEED=%llu: only %d of 1500 damaged files were refused",
              (unsigned long long)seed, bad);
    for (int i = 0; i < 3; i++)
        nas_buf_deinit(&files[i]);
    nas_image_deinit(&picture);
}

Test(eval_image_io, huge_extents_in_a_header_are_refused_before_pixels_are_allocated) {
    static const uint32_t extents[][2] = {
        {10000, 10000}, {65536, 8}, {8, 65536}, {0x7fffffff, 0x7fffffff}};
    nas_buf file = {0};
    encode_png(PNG_COLOR_TYPE_RGB, 8, false, 4, 4, &file);
    for (size_t i = 0; i < 4; i++) {
        set_png_extents(&file, extents[i][0], extents[i][1]);
        nas_image image = {0};
        cr_assert(
            eq(int, (int)nas_image_decode(ctx, file.data, file.len, &image), (int)NAS_ERR_RANGE),
            "%s", nas_ctx_message(ctx));
    }
    nas_buf_clear(&file);
    nas_image picture = smooth_image(ctx, 1, 16, 16);
    encode_jpeg(&picture, JPEG_COLOUR, &file);
    size_t at = 2; /* frame header: marker 2, length 2, precision 1, height 2, width 2 */
    while (at + 9 < file.len &&
           !((uint8_t)file.data[at] == 0xff && (uint8_t)file.data[at + 1] == 0xc0))
        at++;
    cr_assert(at + 9 < file.len);
    memcpy(file.data + at + 5, "\xff\x00\xff\x00", 4); /* 65280 x 65280 */
    nas_image image = {0};
    cr_assert(eq(int, (int)nas_image_decode(ctx, file.data, file.len, &image), (int)NAS_ERR_RANGE));
    nas_buf_deinit(&file);
    nas_image_deinit(&picture);
}

Test(eval_image_io, what_is_no_image_is_named_as_such) {
    static const char text[] = "GIF89a and then some";
    nas_image image = {0};
    cr_assert(eq(int, (int)nas_image_decode(ctx, text, sizeof text, &image), (int)NAS_ERR_PARSE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "neither PNG nor JPEG"), NULL));
    cr_assert(eq(int, (int)nas_image_decode(ctx, text, 0, &image), (int)NAS_ERR_PARSE));
    cr_assert(
        eq(int, (int)nas_image_decode(ctx, "\x89PNG\r\n\x1a\n", 8, &image), (int)NAS_ERR_PARSE));
    cr_assert(eq(int, (int)nas_image_decode(ctx, "\xff\xd8\xff", 3, &image), (int)NAS_ERR_PARSE));
}

Test(eval_image_io, written_png_reads_back_exactly) {
    char dir[64], path[128];
    folder_make(dir);
    (void)snprintf(path, sizeof path, "%s/p.png", dir);
    for (int32_t c = 1; c <= 3; c += 2) {
        nas_image want = pattern_image(ctx, 4, c, 21, 10), got = {0};
        cr_assert(eq(int, (int)nas_image_write_png(ctx, &want, path), NAS_OK));
        cr_assert(eq(int, (int)nas_image_read(ctx, path, &got), NAS_OK));
        for (size_t i = 0; i < 3 * 210; i++) {
            cr_assert(eq(flt, got.data[i], want.data[c == 3 ? i : i % 210]));
        }
        nas_image_deinit(&got);
        nas_image_deinit(&want);
    }
    nas_image two = pattern_image(ctx, 4, 2, 5, 5);
    cr_assert(eq(int, (int)nas_image_write_png(ctx, &two, path), (int)NAS_ERR_SHAPE));
    nas_image_deinit(&two);
    folder_remove(ctx, dir);
}

Test(eval_image_io, a_path_that_cannot_be_read_is_named, .timeout = 20) {
    char dir[64], path[128];
    folder_make(dir);
    nas_image image = {0};
    (void)snprintf(path, sizeof path, "%s/none.png", dir);
    cr_assert(eq(int, (int)nas_image_read(ctx, path, &image), (int)NAS_ERR_IO));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "none.png"), NULL));
    cr_assert(eq(int, (int)nas_image_read(ctx, dir, &image), (int)NAS_ERR_IO));
    (void)snprintf(path, sizeof path, "%s/pipe.png", dir);
    cr_assert(eq(int, mkfifo(path, 0600), 0));
    cr_assert(
        eq(int, (int)nas_image_read(ctx, path, &image), (int)NAS_ERR_IO)); /* and does not wait */
    write_bytes(ctx, dir, "empty.png", "", 0);
    (void)snprintf(path, sizeof path, "%s/empty.png", dir);
    cr_assert(eq(int, (int)nas_image_read(ctx, path, &image), (int)NAS_ERR_PARSE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "empty.png"), NULL));
    (void)snprintf(path, sizeof path, "%s/no/such/folder.png", dir);
    nas_image small = pattern_image(ctx, 1, 3, 4, 4);
    cr_assert(eq(int, (int)nas_image_write_png(ctx, &small, path), (int)NAS_ERR_IO));
    nas_image_deinit(&small);
    folder_remove(ctx, dir);
}

Test(eval_image_io, a_failed_allocation_is_reported_and_nothing_leaks) {
    nas_image picture = smooth_image(ctx, 1, 16, 16);
    nas_buf files[2] = {0};
    encode_png(PNG_COLOR_TYPE_RGB, 8, false, 8, 8, &files[0]);
    encode_jpeg(&picture, JPEG_COLOUR, &files[1]);
    for (int f = 0; f < 2; f++) {
        const long before = nas_mem_live();
        int failures = 0;
        for (long n = 1;; n++) {
            nas_image image = {0};
            nas_mem_fail_after(n);
            const nas_status status = nas_image_decode(ctx, files[f].data, files[f].len, &image);
            nas_mem_fail_after(0);
            nas_image_deinit(&image);
            cr_assert(eq(long, nas_mem_live(), before), "file %d, allocation %ld", f, n);
            if (status == NAS_OK) break;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld: %s", n,
                      nas_ctx_message(ctx));
            failures++;
        }
        cr_assert(failures >= 4, "file %d: %d", f, failures);
    }
    nas_buf_deinit(&files[0]);
    nas_buf_deinit(&files[1]);
    nas_image_deinit(&picture);
}
