/* resize.c - bicubic resampling as MATLAB's imresize defines it, one axis after the other.
 *
 * Every output sample is a weighted sum of a fixed number of input samples ("taps"), so a resize is two tables of
 * weights. Published super-resolution numbers depend on this definition: another antialiasing rule or another border
 * moves PSNR by tenths of a dB. Kernel: Keys, IEEE ASSP 29(6), 1981, a = -0.5. */
#include "eval/image.h"

#include <math.h>

/* One axis: output i = sum over k of weight[i*taps + k] * in[index[i*taps + k]]. */
typedef struct axis {
    int32_t in, out, taps;
    int32_t *index; /* [out][taps], 0..in-1 */
    float *weight;  /* [out][taps], each row sums to 1 */
} axis;

static void axis_deinit(axis *a) {
    nas_free(a->weight);
    nas_free(a->index);
    *a = (axis){0};
}

static double keys_cubic(double x) {
    const double t = fabs(x);
    if (t <= 1.0) return (1.5 * t - 2.5) * t * t + 1.0;
    if (t < 2.0) return ((-0.5 * t + 2.5) * t - 4.0) * t + 2.0;
    return 0.0;
}

/* reflect - symmetric continuation ... 1 0 | 0 1 2 ... n-1 | n-1 n-2 ... of any distance. */
static int32_t reflect(int64_t i, int64_t n) {
    int64_t r = i % (2 * n);
    if (r < 0) r += 2 * n;
    return (int32_t)(r < n ? r : 2 * n - 1 - r);
}

/* fill_row - weights of one output sample; `stretch` <= 1 widens the kernel when shrinking (antialiasing). */
static void fill_row(axis *a, int32_t i, double ratio, double stretch) {
    const double centre = (i + 0.5) / ratio - 0.5; /* in input samples, 0 = centre of the first */
    const int64_t first = (int64_t)floor(centre - 2.0 / stretch) + 1;
    int32_t *index = a->index + (size_t)i * (size_t)a->taps;
    float *weight = a->weight + (size_t)i * (size_t)a->taps;
    double sum = 0.0;
    for (int32_t k = 0; k < a->taps; k++) {
        sum += keys_cubic(stretch * (centre - (double)(first + k)));
    }
    for (int32_t k = 0; k < a->taps; k++) {
        index[k] = reflect(first + k, a->in);
        weight[k] = (float)(keys_cubic(stretch * (centre - (double)(first + k))) / sum);
    }
}

static nas_status axis_init(nas_ctx *ctx, int32_t in, int32_t out, axis *a) {
    const double ratio = (double)out / (double)in;
    const double stretch = ratio < 1.0 ? ratio : 1.0;
    *a = (axis){.in = in, .out = out, .taps = (int32_t)ceil(4.0 / stretch)};
    size_t n = 0;
    const nas_status status = nas_mul_size(ctx, (size_t)out, (size_t)a->taps, &n);
    if (status != NAS_OK) return status;
    a->index = nas_alloc_array(ctx, n, sizeof *a->index);
    a->weight = nas_alloc_array(ctx, n, sizeof *a->weight);
    if (a->index == NULL || a->weight == NULL) {
        axis_deinit(a);
        return NAS_ERR_NOMEM;
    }
    for (int32_t i = 0; i < out; i++)
        fill_row(a, i, ratio, stretch);
    return NAS_OK;
}

/* resize_columns - [in->h][w] -> [out->h][w]: whole rows are added up, so the inner loop is over neighbours. */
static void resize_vertical(const axis *a, int32_t w, const float *from, float *to) {
    for (int32_t y = 0; y < a->out; y++) {
        float *row = to + (size_t)y * (size_t)w;
        for (int32_t k = 0; k < a->taps; k++) {
            const size_t at = (size_t)y * (size_t)a->taps + (size_t)k;
            const float weight = a->weight[at];
            if (weight == 0.0f) continue; /* the outer taps mostly: rows start zeroed */
            const float *src = from + (size_t)a->index[at] * (size_t)w;
            for (int32_t x = 0; x < w; x++)
                row[x] += weight * src[x];
        }
    }
}

/* resize_horizontal - [h][in] -> [h][out]. */
static void resize_horizontal(const axis *a, int32_t h, const float *from, float *to) {
    for (int32_t y = 0; y < h; y++) {
        const float *src = from + (size_t)y * (size_t)a->in;
        float *row = to + (size_t)y * (size_t)a->out;
        for (int32_t x = 0; x < a->out; x++) {
            const size_t at = (size_t)x * (size_t)a->taps;
            float sum = 0.0f;
            for (int32_t k = 0; k < a->taps; k++) {
                sum += a->weight[at + (size_t)k] * src[a->index[at + (size_t)k]];
            }
            row[x] = sum;
        }
    }
}

nas_status nas_image_resize_bicubic(nas_ctx *ctx, const nas_image *in, int32_t out_h, int32_t out_w,
                                    nas_image *out) {
    nas_image middle = {0}, image = {0};
    axis vertical = {0}, horizontal = {0};
    nas_status status = nas_image_init(ctx, in->c, out_h, in->w, &middle);
    if (status == NAS_OK) status = nas_image_init(ctx, in->c, out_h, out_w, &image);
    if (status == NAS_OK) status = axis_init(ctx, in->h, out_h, &vertical);
    if (status == NAS_OK) status = axis_init(ctx, in->w, out_w, &horizontal);
    for (int32_t c = 0; status == NAS_OK && c < in->c; c++) {
        const size_t plane = (size_t)c * (size_t)out_h;
        float *half = middle.data + plane * (size_t)in->w;
        resize_vertical(&vertical, in->w, in->data + (size_t)c * (size_t)in->h * (size_t)in->w,
                        half);
        resize_horizontal(&horizontal, out_h, half, image.data + plane * (size_t)out_w);
    }
    axis_deinit(&horizontal);
    axis_deinit(&vertical);
    nas_image_deinit(&middle);
    if (status != NAS_OK) {
        nas_image_deinit(&image);
        return nas_wrap(ctx, status, "resize %" PRId32 "x%" PRId32 " to %" PRId32 "x%" PRId32,
                        in->w, in->h, out_w, out_h);
    }
    *out = image;
    return NAS_OK;
}
