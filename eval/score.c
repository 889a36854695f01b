/* score.c - mean PSNR and SSIM of an upscaler over a split, and the bicubic baseline. */
#include "eval/data_internal.h"

nas_status nas_upscale_bicubic(nas_ctx *ctx, void *arg, const nas_image *lr, nas_image *sr_out) {
    (void)arg;
    nas_image image = {0};
    const nas_status status = nas_image_resize_bicubic(ctx, lr, sr_out->h, sr_out->w, &image);
    if (status != NAS_OK) return status;
    const size_t n = (size_t)image.c * (size_t)image.h * (size_t)image.w;
    for (size_t i = 0; i < n; i++)
        sr_out->data[i] = image.data[i];
    nas_image_deinit(&image);
    return NAS_OK;
}

/* score_pair - one image: upscale into a fresh image of HR's extents, round, compare. */
static nas_status score_pair(nas_ctx *ctx, const nas_sr_pair *pair, int32_t scale,
                             nas_upscale_fn upscale, void *arg, double *psnr_db, double *ssim) {
    nas_image sr = {0};
    nas_status status = nas_image_init(ctx, 3, pair->hr.h, pair->hr.w, &sr);
    if (status != NAS_OK) return status;
    float *const pixels = sr.data;
    status = upscale(ctx, arg, &pair->lr, &sr);
    if (status == NAS_OK &&
        (sr.data != pixels || sr.c != 3 || sr.h != pair->hr.h || sr.w != pair->hr.w)) {
        status = nas_fail(ctx, NAS_ERR_SHAPE,
                          "the upscaler replaced its output (now [%" PRId32 ",%" PRId32 ",%" PRId32
                          "]); it must fill the [3,%" PRId32 ",%" PRId32 "] it is given",
                          sr.c, sr.h, sr.w, pair->hr.h, pair->hr.w);
    }
    if (status == NAS_OK) {
        nas_image_quantize8(&sr);
        status = nas_psnr_y(ctx, &sr, &pair->hr, scale, psnr_db);
    }
    if (status == NAS_OK) status = nas_ssim_y(ctx, &sr, &pair->hr, scale, ssim);
    nas_image_deinit(&sr);
    return status;
}

nas_status nas_sr_score_split(nas_ctx *ctx, const nas_sr_data *data, nas_split split, int32_t scale,
                              nas_upscale_fn upscale, void *arg, nas_sr_score *out) {
    if (scale != nas__sr_data_scale(data)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "score at scale %" PRId32 ", the data is for scale %" PRId32, scale,
                        nas__sr_data_scale(data));
    }
    const size_t n = nas_sr_data_count(data, split);
    if (n == 0) return nas_fail(ctx, NAS_ERR_NOTFOUND, "score of split %d: no images", (int)split);
    double psnr_sum = 0.0, ssim_sum = 0.0;
    for (size_t i = 0; i < n; i++) {
        nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        const nas_sr_pair *pair = nas_sr_data_pair(data, split, i);
        double psnr_db = 0.0, ssim = 0.0;
        status = score_pair(ctx, pair, scale, upscale, arg, &psnr_db, &ssim);
        if (status != NAS_OK) return nas_wrap(ctx, status, "score of %s", pair->name);
        psnr_sum += psnr_db;
        ssim_sum += ssim;
    }
    *out = (nas_sr_score){
        .psnr_y_db = psnr_sum / (double)n, .ssim_y = ssim_sum / (double)n, .images = n};
    return NAS_OK;
}
