/* test_score.c - mean figures over a split, the bicubic baseline, and what a faulty upscaler gets. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_score, .init = setup, .fini = teardown, .timeout = 60);

static nas_sr_data *leaves(int32_t scale) {
    nas_sr_data_options o = nas_sr_data_options_default();
    o.scale = scale;
    o.threads = 1;
    o.leaves_train = 1;
    o.leaves_select = 3;
    o.leaves_report = 1;
    o.leaves_height = 48;
    o.leaves_width = 60;
    nas_sr_data *data = NULL;
    cr_assert(eq(int, (int)nas_sr_data_open(ctx, &o, &data), NAS_OK), "%s", nas_ctx_message(ctx));
    return data;
}

Test(eval_score, bicubic_is_the_mean_of_the_images_figures) {
    for (int32_t scale = 2; scale <= 4; scale++) {
        nas_sr_data *data = leaves(scale);
        double psnr_sum = 0.0, ssim_sum = 0.0;
        for (size_t i = 0; i < 3; i++) {
            const nas_sr_pair *pair = nas_sr_data_pair(data, NAS_SPLIT_SELECT, i);
            nas_image sr = {0};
            double psnr = 0.0, ssim = 0.0;
            cr_assert(eq(int,
                         (int)nas_image_resize_bicubic(ctx, &pair->lr, pair->hr.h, pair->hr.w, &sr),
                         NAS_OK));
            cr_assert(eq(int, (int)nas_psnr_y(ctx, &sr, &pair->hr, scale, &psnr), NAS_OK));
            cr_assert(eq(int, (int)nas_ssim_y(ctx, &sr, &pair->hr, scale, &ssim), NAS_OK));
            psnr_sum += psnr;
            ssim_sum += ssim;
            nas_image_deinit(&sr);
        }
        nas_sr_score score = {0};
        cr_assert(eq(int,
                     (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, scale,
                                             nas_upscale_bicubic, NULL, &score),
                     NAS_OK));
        cr_assert(eq(sz, score.images, 3));
        cr_assert(fabs(score.psnr_y_db - psnr_sum / 3.0) < 1e-9);
        cr_assert(fabs(score.ssim_y - ssim_sum / 3.0) < 1e-9);
        nas_sr_data_close(data);
    }
}

/* An upscaler that knows the answer: arg is the data, images are recognised by their LR pixels. */
static nas_status cheat(nas_ctx *c, void *arg, const nas_image *lr, nas_image *sr_out) {
    const nas_sr_data *data = arg;
    for (size_t i = 0; i < nas_sr_data_count(data, NAS_SPLIT_SELECT); i++) {
        const nas_sr_pair *pair = nas_sr_data_pair(data, NAS_SPLIT_SELECT, i);
        if (&pair->lr != lr) continue;
        memcpy(sr_out->data, pair->hr.data,
               3 * sizeof(float) * (size_t)pair->hr.h * (size_t)pair->hr.w);
        return NAS_OK;
    }
    return nas_fail(c, NAS_ERR_NOTFOUND, "unknown image");
}

static nas_status not_a_number(nas_ctx *c, void *arg, const nas_image *lr, nas_image *sr_out) {
    (void)c;
    (void)arg;
    (void)lr;
    sr_out->data[0] = NAN;
    sr_out->data[1] = INFINITY;
    return NAS_OK;
}

static nas_status fails(nas_ctx *c, void *arg, const nas_image *lr, nas_image *sr_out) {
    (void)lr;
    (void)sr_out;
    int *calls = arg;
    ++*calls;
    return nas_fail(c, NAS_ERR_UNSUPPORTED, "no such operator");
}

static nas_status replaces(nas_ctx *c, void *arg, const nas_image *lr, nas_image *sr_out) {
    (void)arg;
    nas_image_deinit(sr_out);
    return nas_image_crop(c, lr, 0, 0, lr->h, lr->w, sr_out);
}

Test(eval_score, a_perfect_upscaler_gets_100_db_and_a_diverged_one_a_finite_figure) {
    nas_sr_data *data = leaves(2);
    nas_sr_score score = {0};
    cr_assert(eq(int, (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 2, cheat, data, &score),
                 NAS_OK));
    cr_assert(eq(dbl, score.psnr_y_db, 100.0));
    cr_assert(fabs(score.ssim_y - 1.0) < 1e-9);
    cr_assert(
        eq(int, (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 2, not_a_number, NULL, &score),
           NAS_OK));
    cr_assert(isfinite(score.psnr_y_db) && isfinite(score.ssim_y) && score.psnr_y_db < 20.0);
    nas_sr_data_close(data);
}

Test(eval_score, a_failing_upscaler_ends_the_score_with_the_image_named) {
    nas_sr_data *data = leaves(2);
    nas_sr_score score = {.images = 77};
    int calls = 0;
    cr_assert(eq(int,
                 (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 2, fails, &calls, &score),
                 (int)NAS_ERR_UNSUPPORTED));
    cr_assert(eq(int, calls, 1));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "leaves-select-0000: no such operator"), NULL),
              "%s", nas_ctx_message(ctx));
    cr_assert(eq(int,
                 (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 2, replaces, NULL, &score),
                 (int)NAS_ERR_SHAPE));
    cr_assert(eq(
        int,
        (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 3, nas_upscale_bicubic, NULL, &score),
        (int)NAS_ERR_INVALID));
    volatile sig_atomic_t flag = 1;
    nas_ctx_set_cancel(ctx, &flag);
    cr_assert(eq(
        int,
        (int)nas_sr_score_split(ctx, data, NAS_SPLIT_SELECT, 2, nas_upscale_bicubic, NULL, &score),
        (int)NAS_ERR_CANCELLED));
    nas_ctx_set_cancel(ctx, NULL);
    cr_assert(eq(sz, score.images, 77)); /* outputs only on success */
    nas_sr_data_close(data);
}

/* With the benchmark images at hand: the published bicubic figures of Set5 (33.66 / 30.39 / 28.42 dB with luma rounded
 * to 8 bit; 0.02 more without, as here). The folder named by NAS_SR_IMAGES holds Set5/HR, Set5/LR_x2, ... */
Test(eval_score, bicubic_reproduces_the_published_figures_of_set5) {
    const char *images = getenv("NAS_SR_IMAGES");
    if (images == NULL || images[0] == '\0') {
        cr_skip("NAS_SR_IMAGES does not name a folder that holds Set5/");
    }
    static const double want_db[] = {33.68, 30.41, 28.43};
    for (int32_t scale = 2; scale <= 4; scale++) {
        char set5[1024];
        (void)snprintf(set5, sizeof set5, "%s/Set5", images);
        nas_sr_data_options o = nas_sr_data_options_default();
        o.scale = scale;
        o.report_dir = set5;
        o.leaves_train = o.leaves_select = 1;
        nas_sr_data *data = NULL;
        cr_assert(eq(int, (int)nas_sr_data_open(ctx, &o, &data), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_sr_score score = {0};
        cr_assert(eq(int,
                     (int)nas_sr_score_split(ctx, data, NAS_SPLIT_REPORT, scale,
                                             nas_upscale_bicubic, NULL, &score),
                     NAS_OK));
        cr_assert(eq(sz, score.images, 5));
        cr_assert(fabs(score.psnr_y_db - want_db[scale - 2]) < 0.03, "x%d: %.3f dB", (int)scale,
                  score.psnr_y_db);
        nas_sr_data_close(data);
    }
}
