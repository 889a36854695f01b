/* quantize.c - see quantize.h, which specifies every rounding. */
#include "ir/quantize.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>

static int32_t clamp(int32_t v, int32_t low, int32_t high) {
    return v < low ? low : v > high ? high : v;
}

/* Right shift that rounds down, whatever the compiler does with negative numbers. */
static int64_t shift_down(int64_t v, int bits) {
    return v >= 0 ? v >> bits : ~(~v >> bits);
}

/* Half to even, independent of the rounding mode of the thread. */
static double round_even(double v) {
    const double down = floor(v), rest = v - down;
    if (rest != 0.5) return rest < 0.5 ? down : down + 1;
    return fmod(down, 2) == 0 ? down : down + 1;
}

int32_t nas_quant_value(double real, double scale, int32_t zero_point, int32_t low, int32_t high) {
    const double v = round_even(real / scale) + zero_point;
    if (isnan(v)) return clamp(zero_point, low, high);
    return v < low ? low : v > high ? high : (int32_t)v;
}

void nas_quant_weights(const float *weight, size_t n, double scale, int32_t bits, int8_t *out) {
    const int32_t most = (1 << (bits - 1)) - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (int8_t)nas_quant_value((double)weight[i], scale, 0, -most, most);
}

static double squared_error(const float *weight, size_t n, double scale, int32_t most) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        const double w = (double)weight[i];
        const double error = w - scale * nas_quant_value(w, scale, 0, -most, most);
        sum += error * error;
    }
    return sum;
}

float nas_quant_weight_scale(const float *weight, size_t n, int32_t bits) {
    const int32_t most = (1 << (bits - 1)) - 1;
    double largest = 0, best = 1, least = INFINITY;
    for (size_t i = 0; i < n; i++)
        largest = fmax(largest, fabs((double)weight[i]));
    if (!(largest / most > (double)FLT_MIN)) return 1;
    for (int32_t percent = 100; percent >= 40; percent--) {
        const double scale = (double)(float)(largest / most * percent / 100);
        const double error = squared_error(weight, n, scale, most);
        if (error < least) {
            least = error;
            best = scale;
        }
    }
    return (float)best;
}

nas_status nas_quant_bias(nas_ctx *ctx, double bias, double scale_in, double scale_weight,
                          int32_t *out) {
    const double v = round_even(bias / (scale_in * scale_weight));
    if (!(fabs(v) <= (double)NAS_QUANT_ACC_MAX)) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "bias %g with scales %g (input) and %g (weights): code beyond 2^30", bias,
                        scale_in, scale_weight);
    }
    *out = (int32_t)v;
    return NAS_OK;
}

nas_status nas_quant_accumulator(nas_ctx *ctx, const int8_t *weight, size_t n, int32_t bias) {
    int64_t most = bias < 0 ? -(int64_t)bias : bias;
    for (size_t i = 0; i < n; i++)
        most += 255 * (weight[i] < 0 ? -(int64_t)weight[i] : weight[i]);
    if (most > NAS_QUANT_ACC_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "a sum of %zu products and bias %" PRId32 " may reach %" PRId64
                        ", the limit is 2^30",
                        n, bias, most);
    }
    return NAS_OK;
}

nas_status nas_quant_left(nas_ctx *ctx, double ratio_max, int32_t *left) {
    if (!(isfinite(ratio_max) && ratio_max > 0))
        return nas_fail(ctx, NAS_ERR_INVALID, "ratio %g of scales", ratio_max);
    int32_t n = 0;
    while (n <= NAS_QUANT_LEFT_MAX && ldexp(ratio_max, -n) >= 1)
        n++;
    if (n > NAS_QUANT_LEFT_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "ratio %g of scales: the limit is 2^%d", ratio_max,
                        (int)NAS_QUANT_LEFT_MAX);
    }
    *left = n;
    return NAS_OK;
}

nas_status nas_quant_multiplier(nas_ctx *ctx, double ratio, int32_t left, int32_t *multiplier) {
    if (!(isfinite(ratio) && ratio > 0) || left < 0 || left > NAS_QUANT_LEFT_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "ratio %g of scales, left shift %" PRId32, ratio,
                        left);
    }
    if (ldexp(ratio, -left) >= 1) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "ratio %g of scales needs more than left shift %" PRId32, ratio, left);
    }
    const double m = round_even(ldexp(ratio, 31 - left));
    *multiplier = m > (double)INT32_MAX ? INT32_MAX : (int32_t)m;
    return NAS_OK;
}

nas_status nas_quant_add_multiplier(nas_ctx *ctx, double ratio, int32_t *multiplier) {
    if (!(isfinite(ratio) && ratio > 0))
        return nas_fail(ctx, NAS_ERR_INVALID, "ratio %g of scales", ratio);
    if (ratio >= NAS_QUANT_ADD_RATIO_MAX) {
        return nas_fail(ctx, NAS_ERR_RANGE, "ratio %g of an added operand: the limit is %d", ratio,
                        (int)NAS_QUANT_ADD_RATIO_MAX);
    }
    *multiplier = (int32_t)round_even(ldexp(ratio, NAS_QUANT_ADD_BITS));
    return NAS_OK;
}

nas_status nas_quant_slope_multiplier(nas_ctx *ctx, double ratio, double slope,
                                      int32_t *multiplier) {
    *multiplier = 0;
    if (slope == 0) return NAS_OK;
    const nas_status status = nas_quant_add_multiplier(ctx, ratio * fabs(slope), multiplier);
    if (status == NAS_OK && slope < 0) *multiplier = -*multiplier;
    return status;
}

int32_t nas_quant_scale(int32_t acc, int32_t multiplier, int32_t left) {
    const int32_t most = NAS_QUANT_ACC_MAX >> left;
    const int64_t shifted = (int64_t)clamp(acc, -most, most) * ((int64_t)1 << left);
    return (int32_t)shift_down(shifted * multiplier + ((int64_t)1 << 30), 31);
}

int32_t nas_requantize(int32_t acc, int32_t multiplier, const nas_requant *r) {
    return clamp(nas_quant_scale(acc, multiplier, r->left) + r->zero_out, r->low, r->high);
}

int32_t nas_requantize_add(int32_t acc, int32_t multiplier, int32_t residual,
                           const nas_requant *r) {
    enum { DROP = NAS_QUANT_ADD_BITS - NAS_QUANT_FRACTION };
    const int32_t t = nas_quant_scale(acc, multiplier, r->left);
    const int32_t product = (residual - r->zero_residual) * r->multiplier_residual;
    const int64_t second = shift_down((int64_t)product + (1 << (DROP - 1)), DROP);
    const int64_t sum =
        shift_down(t + second + (1 << (NAS_QUANT_FRACTION - 1)), NAS_QUANT_FRACTION);
    return clamp((int32_t)sum + r->zero_out, r->low, r->high);
}

int32_t nas_quant_add(int32_t a, int32_t multiplier_a, int32_t b, int32_t multiplier_b,
                      const nas_requant *r) {
    const int64_t sum = (int64_t)a * multiplier_a + (int64_t)b * multiplier_b;
    const int64_t t =
        shift_down(sum + ((int64_t)1 << (NAS_QUANT_ADD_BITS - 1)), NAS_QUANT_ADD_BITS);
    return clamp((int32_t)t + r->zero_out, r->low, r->high);
}
