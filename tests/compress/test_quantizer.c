/* test_quantizer.c - grids: what they hold, how they are fitted, what calibration makes of samples. */
#include "compress/quantizer.h"
#include "ir/quantize.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

#include <math.h>

TestSuite(compress_quantizer, .init = nets_setup, .fini = nets_teardown, .timeout = 60);

enum { N = 200 };

static void noise(uint64_t seed, float *x, float shift) {
    nas_rng rng = nas_rng_stream(seed, 0, "quantizer");
    for (int i = 0; i < N; i++)
        x[i] = (float)nas_rng_normal(&rng) + shift;
}

static double error_of(const nas_grid *g, const float *x) {
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += pow((double)nas_grid_round(g, x[i]) - (double)x[i], 2);
    return sum;
}

Test(compress_quantizer, rounding_gives_a_nearest_value_of_the_grid) {
    float x[N];
    noise(1, x, 0.3F);
    for (int kind = 0; kind < NAS_GRID_KIND_COUNT; kind++) {
        for (int32_t bits = 2; bits <= 8; bits++) {
            const nas_grid g = nas_grid_of_range((nas_grid_kind)kind, bits, -3, 2, 0.9F);
            for (int i = 0; i < N; i++) {
                const float y = nas_grid_round(&g, x[i]);
                cr_assert(nas_grid_round(&g, y) == y, "a value of the grid stays");
                for (int k = 0; k < N; k++) { /* no other value that occurs is nearer */
                    const float other = nas_grid_round(&g, x[k]);
                    cr_assert(fabsf(x[i] - y) <= fabsf(x[i] - other) * (1 + 1e-6F) + 1e-7F,
                              "kind %d, %d bits: %g to %g, not %g", kind, (int)bits, (double)x[i],
                              (double)y, (double)other);
                }
            }
            cr_assert(nas_grid_round(&g, 0) == 0 && nas_grid_round(&g, NAN) == 0);
        }
    }
}

Test(compress_quantizer, a_fit_is_no_worse_than_the_whole_range_and_better_with_more_bits) {
    float x[N];
    noise(2, x, 0);
    x[7] = 9; /* an outlier: a shrunk range pays */
    for (int kind = 0; kind < NAS_GRID_KIND_COUNT; kind++) {
        double before = INFINITY;
        for (int32_t bits = 2; bits <= 8; bits++) {
            const nas_grid whole = nas_grid_of_range((nas_grid_kind)kind, bits, -9, 9, 1);
            const nas_grid fit = nas_grid_fit((nas_grid_kind)kind, bits, x, NULL, N);
            const double error = error_of(&fit, x);
            cr_assert(error <= error_of(&whole, x) + 1e-9 || kind == NAS_GRID_AFFINE);
            cr_assert(error <= before * (1 + 1e-6), "kind %d, %d bits", kind, (int)bits);
            before = error;
        }
    }
}

Test(compress_quantizer, symmetric_codes_are_those_of_the_integer_kernels) {
    float x[N];
    int8_t codes[N];
    noise(3, x, 0);
    for (int32_t bits = 2; bits <= 8; bits++) {
        const nas_grid g = nas_grid_fit(NAS_GRID_SYMMETRIC, bits, x, NULL, N);
        nas_quant_weights(x, N, (double)g.scale, bits, codes);
        for (int i = 0; i < N; i++)
            cr_assert(fabsf(nas_grid_round(&g, x[i]) - (float)codes[i] * g.scale) < 1e-6F);
    }
}

Test(compress_quantizer, zeros_and_single_values_have_a_grid) {
    float zeros[4] = {0}, one[1] = {-2.5F};
    for (int kind = 0; kind < NAS_GRID_KIND_COUNT; kind++) {
        const nas_grid a = nas_grid_fit((nas_grid_kind)kind, 4, zeros, NULL, 4);
        const nas_grid b = nas_grid_fit((nas_grid_kind)kind, 4, one, NULL, 1);
        cr_assert(a.scale == 1 && nas_grid_round(&a, 0) == 0);
        cr_assert(fabsf(nas_grid_round(&b, one[0]) - one[0]) < 1e-5F);
    }
}

Test(compress_quantizer, calibration_cuts_outliers_or_keeps_them_as_asked) {
    enum { SAMPLES = 20001 };
    float *x = nas_alloc_array(ctx, SAMPLES, sizeof *x);
    nas_grid g[NAS_CALIBRATION_COUNT];
    for (int method = 0; method < NAS_CALIBRATION_COUNT; method++) {
        for (int i = 0; i < SAMPLES; i++)
            x[i] = (float)i / SAMPLES;
        x[5] = 100;
        cr_assert(nas_grid_calibrate(ctx, (nas_calibration)method, 8, x, SAMPLES, &g[method]) ==
                  NAS_OK);
        cr_assert(g[method].kind == NAS_GRID_AFFINE && g[method].zero_point == 0);
    }
    cr_assert(fabsf(g[NAS_CALIBRATION_MIN_MAX].scale * 255 - 100) < 1e-3F);
    cr_assert(g[NAS_CALIBRATION_PERCENTILE].scale * 255 < 1.01F);
    cr_assert(g[NAS_CALIBRATION_MSE].scale <= g[NAS_CALIBRATION_MIN_MAX].scale);
    x[0] = INFINITY;
    cr_assert(nas_grid_calibrate(ctx, NAS_CALIBRATION_MSE, 8, x, SAMPLES, &g[0]) ==
              NAS_ERR_INVALID);
    cr_assert(nas_grid_calibrate(ctx, NAS_CALIBRATION_MSE, 8, x, 0, &g[0]) == NAS_ERR_INVALID);
    nas_free(x);
}
