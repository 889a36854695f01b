/* test_quantize.c - integer semantics: roundings, saturation, limits, and how far a result may lie from real numbers. */
#include "ir/quantize.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <float.h>
#include <math.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(ir_quantize, .init = setup, .fini = teardown);

Test(ir_quantize, values_round_half_to_even_and_saturate) {
    static const struct {
        double real, scale;
        int32_t zero, low, high, want;
    } rows[] = {
        {0.5, 1, 0, -128, 127, 0},      {1.5, 1, 0, -128, 127, 2},
        {2.5, 1, 0, -128, 127, 2},      {-0.5, 1, 0, -128, 127, 0},
        {-1.5, 1, 0, -128, 127, -2},    {-2.5, 1, 0, -128, 127, -2},
        {0.5000001, 1, 0, 0, 255, 1},   {1e300, 1e-5, 0, -128, 127, 127},
        {-1e300, 1e-5, 3, 0, 255, 0},   {INFINITY, 1, 0, 0, 255, 255},
        {-INFINITY, 1, 0, 0, 255, 0},   {NAN, 1, 7, 0, 255, 7},
        {1.0, 0.5, 128, 0, 255, 130},   {0.25, 0.5, 128, 0, 255, 128},
        {127.49, 1, 0, -127, 127, 127}, {-128, 1, 0, -127, 127, -127},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_expect(eq(int,
                     nas_quant_value(rows[i].real, rows[i].scale, rows[i].zero, rows[i].low,
                                     rows[i].high),
                     rows[i].want),
                  "row %zu", i);
    }
}

Test(ir_quantize, weights_never_take_the_most_negative_code) {
    const float w[] = {-10, -1, -0.6F, 0, 0.5F, 1.5F, 10};
    for (int32_t bits = 2; bits <= 8; bits++) {
        int8_t q[7];
        nas_quant_weights(w, 7, 1, bits, q);
        const int most = (1 << (bits - 1)) - 1;
        cr_assert(eq(int, q[0], most < 10 ? -most : -10));
        cr_assert(eq(int, q[1], -1));
        cr_assert(eq(int, q[2], -1));
        cr_assert(eq(int, q[4], 0));
        cr_assert(eq(int, q[5], most < 2 ? most : 2));
        cr_assert(eq(int, q[6], most < 10 ? most : 10));
    }
}

/* No scale of a fine grid is better by more than the step of ours; a clipped outlier beats a coarse grid for the others. */
Test(ir_quantize, weight_scales_have_the_least_error) {
    float w[40];
    for (int i = 0; i < 40; i++)
        w[i] = sinf((float)(i * i) * 1.7F);
    w[7] = 1.8F;
    for (int32_t bits = 2; bits <= 8; bits++) {
        const double most = (1 << (bits - 1)) - 1;
        double error[2] = {0, INFINITY};
        for (int32_t k = -1; k < 2000; k++) {
            const double scale =
                k < 0 ? (double)nas_quant_weight_scale(w, 40, bits) : 1.8 / most * (k + 1) / 2000;
            double sum = 0;
            for (int i = 0; i < 40; i++) {
                const double q = fmin(fmax(nearbyint((double)w[i] / scale), -most), most);
                sum += ((double)w[i] - q * scale) * ((double)w[i] - q * scale);
            }
            if (k < 0)
                error[0] = sum;
            else
                error[1] = fmin(error[1], sum);
        }
        cr_assert(error[0] <= 1.1 * error[1], "%d bits: %g, best %g", bits, error[0], error[1]);
    }
    cr_assert(nas_quant_weight_scale(w, 40, 2) < 1.7F);
    memset(w, 0, sizeof w);
    cr_assert(eq(flt, nas_quant_weight_scale(w, 40, 8), 1.0F));
}

Test(ir_quantize, biases_and_sums_beyond_the_limit_are_refused) {
    int32_t q = 0;
    cr_assert(eq(int, (int)nas_quant_bias(ctx, -0.75, 0.5, 0.5, &q), NAS_OK));
    cr_assert(eq(int, q, -3));
    cr_assert(eq(int, (int)nas_quant_bias(ctx, 1, ldexp(1, -15), ldexp(1, -15), &q), NAS_OK));
    cr_assert(eq(int, q, NAS_QUANT_ACC_MAX));
    cr_assert(
        eq(int, (int)nas_quant_bias(ctx, 2, ldexp(1, -15), ldexp(1, -15), &q), NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_quant_bias(ctx, NAN, 1, 1, &q), NAS_ERR_RANGE));
    const int8_t w[] = {127, -127, 1};
    cr_assert(
        eq(int, (int)nas_quant_accumulator(ctx, w, 3, NAS_QUANT_ACC_MAX - 255 * 255), NAS_OK));
    cr_assert(
        eq(int, (int)nas_quant_accumulator(ctx, w, 3, 255 * 255 - NAS_QUANT_ACC_MAX), NAS_OK));
    cr_assert(eq(int, (int)nas_quant_accumulator(ctx, w, 3, NAS_QUANT_ACC_MAX - 255 * 255 + 1),
                 NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_quant_accumulator(ctx, w, 3, INT32_MIN), NAS_ERR_RANGE));
}

Test(ir_quantize, multipliers_keep_their_limits) {
    int32_t left = 9, m = 9;
    cr_assert(eq(int, (int)nas_quant_left(ctx, 0.999, &left), NAS_OK));
    cr_assert(eq(int, left, 0));
    cr_assert(eq(int, (int)nas_quant_left(ctx, 1.0, &left), NAS_OK));
    cr_assert(eq(int, left, 1));
    cr_assert(eq(int, (int)nas_quant_left(ctx, 32767.9, &left), NAS_OK));
    cr_assert(eq(int, left, 15));
    cr_assert(eq(int, (int)nas_quant_left(ctx, 32768, &left), NAS_ERR_RANGE));
    const double bad[] = {0, -1, NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 5; i++) {
        cr_assert(eq(int, (int)nas_quant_left(ctx, bad[i], &left), NAS_ERR_INVALID));
        cr_assert(eq(int, (int)nas_quant_multiplier(ctx, bad[i], 0, &m), NAS_ERR_INVALID));
        cr_assert(eq(int, (int)nas_quant_add_multiplier(ctx, bad[i], &m), NAS_ERR_INVALID));
    }
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, 0.5, -1, &m), NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, 0.5, 16, &m), NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, 1.0, 0, &m), NAS_ERR_RANGE));
    cr_assert(eq(int, m, 9)); /* outputs only on success */
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, 0.5, 0, &m), NAS_OK));
    cr_assert(eq(int, m, 1 << 30));
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, nextafter(1, 0), 0, &m), NAS_OK));
    cr_assert(eq(int, m, INT32_MAX));
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, ldexp(1, -33), 0, &m), NAS_OK));
    cr_assert(eq(int, m, 0));
    cr_assert(eq(int, (int)nas_quant_multiplier(ctx, DBL_MIN, 0, &m), NAS_OK));
    cr_assert(eq(int, m, 0));
    cr_assert(eq(int, (int)nas_quant_add_multiplier(ctx, 1, &m), NAS_OK));
    cr_assert(eq(int, m, 1 << 16));
    cr_assert(eq(int, (int)nas_quant_add_multiplier(ctx, 32, &m), NAS_ERR_RANGE));
}

/* floor(x + 1/2) in exact arithmetic, from quotient and remainder. */
static int64_t scaled(int32_t acc, int32_t m, int32_t left) {
    const int64_t most = NAS_QUANT_ACC_MAX >> left;
    int64_t a = acc < -most ? -most : acc > most ? most : acc;
    const int64_t p = a * ((int64_t)1 << left) * m + ((int64_t)1 << 30), d = (int64_t)1 << 31;
    return p / d - (p % d < 0);
}

Test(ir_quantize, scaling_is_exact_at_every_edge) {
    static const int32_t edges[] = {0,       1,         2,         3,        255,        32767,
                                    32768,   65535,     (1 << 24), 1 << 29,  1073741823, 1073741824,
                                    1 << 30, INT32_MAX, 715827882, 123456789};
    enum { EDGES = sizeof edges / sizeof edges[0] };
    for (int32_t left = 0; left <= NAS_QUANT_LEFT_MAX; left++) {
        for (int i = 0; i < EDGES; i++) {
            for (int k = 0; k < 2 * EDGES; k++) {
                const int32_t acc = k < EDGES ? edges[k] : -edges[k - EDGES];
                cr_assert(
                    eq(i64, nas_quant_scale(acc, edges[i], left), scaled(acc, edges[i], left)));
            }
            cr_assert(eq(i64, nas_quant_scale(INT32_MIN, edges[i], left),
                         scaled(INT32_MIN, edges[i], left)));
        }
    }
    /* halves go up */
    cr_assert(eq(int, nas_quant_scale(1, 1 << 30, 0), 1));
    cr_assert(eq(int, nas_quant_scale(-1, 1 << 30, 0), 0));
    cr_assert(eq(int, nas_quant_scale(3, 1 << 30, 0), 2));
    cr_assert(eq(int, nas_quant_scale(-3, 1 << 30, 0), -1));
}

Test(ir_quantize, results_stay_within_half_a_step_of_real_numbers) {
    nas_rng rng = nas_rng_stream(5, 0, "quantize");
    for (int i = 0; i < 200000; i++) {
        const double ratio = exp2(-16 + 18 * nas_rng_uniform(&rng));
        int32_t left = 0, m = 0, fine = 0, second = 0;
        cr_assert(eq(int, (int)nas_quant_left(ctx, ratio * 64, &left), NAS_OK));
        cr_assert(eq(int, (int)nas_quant_multiplier(ctx, ratio * 64, left, &fine), NAS_OK));
        const double ratio_r = exp2(-4 + 8 * nas_rng_uniform(&rng));
        cr_assert(eq(int, (int)nas_quant_add_multiplier(ctx, ratio_r, &second), NAS_OK));
        const int32_t acc = (int32_t)((2 * nas_rng_uniform(&rng) - 1) * 300 / ratio);
        const nas_requant wide = {.left = left,
                                  .zero_out = 100,
                                  .low = -1000000,
                                  .high = 1000000,
                                  .zero_residual = 17,
                                  .multiplier_residual = second};
        const int32_t r = (int32_t)nas_rng_below(&rng, 256);
        const double sum = acc * ratio + (r - 17) * ratio_r + 100;
        /* 1/128 from rounding t, 1/128 and 255*2^-17 from the second operand, m */
        cr_assert(fabs(nas_requantize_add(acc, fine, r, &wide) - sum) <= 0.5 + 0.025, "%g", ratio);
        int32_t coarse_left = 0;
        cr_assert(eq(int, (int)nas_quant_left(ctx, ratio, &coarse_left), NAS_OK));
        cr_assert(eq(int, (int)nas_quant_multiplier(ctx, ratio, coarse_left, &m), NAS_OK));
        nas_requant plain = wide;
        plain.left = coarse_left;
        cr_assert(fabs(nas_requantize(acc, m, &plain) - (acc * ratio + 100)) <= 0.5 + 0.004);
    }
}

Test(ir_quantize, clamping_and_zero_points_apply_last) {
    const nas_requant relu = {.zero_out = 10, .low = 10, .high = 200};
    cr_assert(eq(int, nas_requantize(-1000, 1 << 30, &relu), 10));
    cr_assert(eq(int, nas_requantize(100, 1 << 30, &relu), 60));
    cr_assert(eq(int, nas_requantize(1000, 1 << 30, &relu), 200));
    cr_assert(eq(int, nas_requantize(INT32_MAX, INT32_MAX, &relu), 200));
    cr_assert(eq(int, nas_requantize(INT32_MIN, INT32_MAX, &relu), 10));
    const nas_requant sum = {.zero_out = -3, .low = -128, .high = 127};
    for (int32_t a = -255; a <= 255; a++) {
        for (int32_t b = -255; b <= 255; b++) {
            const int32_t plain = a + b - 3;
            const int32_t want = plain < -128 ? -128 : plain > 127 ? 127 : plain;
            cr_assert(eq(int, nas_quant_add(a, 1 << 16, b, 1 << 16, &sum), want));
            const double half = floor((a * 0.5 + b * 0.25) + 0.5) - 3;
            const double limited = half < -128 ? -128 : half > 127 ? 127 : half;
            cr_assert(eq(int, nas_quant_add(a, 1 << 15, b, 1 << 14, &sum), (int)limited));
        }
    }
}
