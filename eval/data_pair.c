/* data_pair.c - one HR/LR pair: read from files or made from an image. Keeps the invariant of nas_sr_pair: HR is RGB
 * with extents scale times those of LR, both hold 8-bit values. */
#include "eval/data_internal.h"

#include <stdio.h>
#include <string.h>

void nas__sr_pair_deinit(nas_sr_pair *pair) {
    nas_image_deinit(&pair->lr);
    nas_image_deinit(&pair->hr);
}

/* least_side - the SSIM window must fit inside the border that scoring leaves out. */
static int32_t least_side(int32_t scale) {
    return 12 + 2 * scale;
}

/* crop_to - the top left h x w of take_hr; no copy when nothing is cut off. */
static nas_status crop_to(nas_ctx *ctx, nas_image *take_hr, int32_t h, int32_t w, nas_image *out) {
    if (take_hr->h == h && take_hr->w == w) {
        *out = *take_hr;
        *take_hr = (nas_image){0};
        return NAS_OK;
    }
    const nas_status status = nas_image_crop(ctx, take_hr, 0, 0, h, w, out);
    nas_image_deinit(take_hr);
    return status;
}

static nas_status check_size(nas_ctx *ctx, const nas_image *hr, int32_t scale) {
    const int32_t least = least_side(scale);
    if (hr->h >= least && hr->w >= least) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_RANGE,
                    "image of %" PRId32 "x%" PRId32 " pixels is too small: at least %" PRId32
                    " a side at scale %" PRId32,
                    hr->w, hr->h, least, scale);
}

nas_status nas__sr_pair_make(nas_ctx *ctx, nas_image *take_hr, int32_t scale, nas_sr_pair *out) {
    nas_sr_pair pair = {0};
    nas_status status = check_size(ctx, take_hr, scale);
    if (status == NAS_OK) {
        status =
            crop_to(ctx, take_hr, take_hr->h / scale * scale, take_hr->w / scale * scale, &pair.hr);
    }
    if (status == NAS_OK) {
        status =
            nas_image_resize_bicubic(ctx, &pair.hr, pair.hr.h / scale, pair.hr.w / scale, &pair.lr);
    }
    if (status != NAS_OK) {
        nas_image_deinit(take_hr);
        nas__sr_pair_deinit(&pair);
        return status;
    }
    nas_image_quantize8(&pair.lr);
    *out = pair;
    return NAS_OK;
}

/* read_cut - reads the HR files until one fits the stored LR image: exactly, else when cropped. */
static nas_status read_cut(nas_ctx *ctx, const nas__sr_source *source, int32_t scale,
                           const nas_image *lr, nas_image *out) {
    nas_image cropped = {0}; /* the first that fits after cropping */
    nas_image seen = {0};    /* extents only, for the message */
    nas_status status = NAS_OK;
    for (size_t i = 0; i < source->n_hr && status == NAS_OK; i++) {
        nas_image hr = {0};
        status = nas_image_read(ctx, source->hr[i], &hr);
        if (status != NAS_OK) break;
        if (hr.h == lr->h * scale && hr.w == lr->w * scale) {
            nas_image_deinit(&cropped);
            *out = hr;
            return NAS_OK;
        }
        seen = (nas_image){.h = hr.h, .w = hr.w};
        const bool fits = hr.h / scale == lr->h && hr.w / scale == lr->w;
        if (fits && cropped.data == NULL) {
            status = crop_to(ctx, &hr, lr->h * scale, lr->w * scale, &cropped);
        }
        nas_image_deinit(&hr);
    }
    if (status == NAS_OK && cropped.data == NULL) {
        status =
            nas_fail(ctx, NAS_ERR_SHAPE,
                     "%s is %" PRId32 "x%" PRId32 ", but %s is %" PRId32 "x%" PRId32
                     ": not %" PRId32 " times as large",
                     source->hr[source->n_hr - 1], seen.w, seen.h, source->lr, lr->w, lr->h, scale);
    }
    if (status != NAS_OK) {
        nas_image_deinit(&cropped);
        return status;
    }
    *out = cropped;
    return NAS_OK;
}

static nas_status load_stored(nas_ctx *ctx, const nas__sr_source *source, int32_t scale,
                              nas_sr_pair *out) {
    nas_sr_pair pair = {0};
    nas_status status = nas_image_read(ctx, source->lr, &pair.lr);
    if (status == NAS_OK) status = read_cut(ctx, source, scale, &pair.lr, &pair.hr);
    if (status == NAS_OK) {
        status = nas_wrap(ctx, check_size(ctx, &pair.hr, scale), "%s", source->hr[0]);
    }
    if (status != NAS_OK) {
        nas__sr_pair_deinit(&pair);
        return status;
    }
    *out = pair;
    return NAS_OK;
}

static void set_name(const char *path, nas_sr_pair *pair) {
    const char *slash = strrchr(path, '/');
    (void)snprintf(pair->name, sizeof pair->name, "%s", slash == NULL ? path : slash + 1);
}

nas_status nas__sr_pair_load(nas_ctx *ctx, const nas__sr_source *source, int32_t scale,
                             nas_sr_pair *out) {
    nas_sr_pair pair = {0};
    nas_status status = NAS_OK;
    if (source->lr != NULL) {
        status = load_stored(ctx, source, scale, &pair);
    } else {
        nas_image hr = {0};
        status = nas_image_read(ctx, source->hr[0], &hr);
        if (status == NAS_OK) {
            status = nas_wrap(ctx, nas__sr_pair_make(ctx, &hr, scale, &pair), "%s", source->hr[0]);
        }
    }
    if (status != NAS_OK) return status;
    set_name(source->hr[0], &pair);
    *out = pair;
    return NAS_OK;
}
