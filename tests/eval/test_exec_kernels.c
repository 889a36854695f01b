/* test_exec_kernels.c - the executor's convolutions and outer products of every instruction set against plain loops in doubles,
 * for every number of vectors that makes other blocks. */
#include "eval/exec_kernels.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

enum { LANES = NAS__EXEC_LANES, VECTORS_MAX = 9, PIXELS = 21, TAPS = 3, CHANNELS = 5 };
enum {
    IN = 128,
    OUT = PIXELS * VECTORS_MAX * LANES,
    WEIGHTS = TAPS * CHANNELS * VECTORS_MAX * LANES
};

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
    cr_assert(ctx != NULL);
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_exec_kernels, .init = setup, .fini = teardown);

static float *noise(size_t n, nas_rng *rng) {
    float *x = nas_alloc_aligned(ctx, n, sizeof *x, 64);
    cr_assert(x != NULL);
    for (size_t i = 0; i < n; i++)
        x[i] = (float)nas_rng_below(rng, 2001) / 1000.0F - 1;
    return x;
}

static const int32_t taps[TAPS] = {0, 7, 30};

/* Sum of one output of one pixel: weights are blocks of vectors, each [tap][channel][vector][lane]. */
static double sum_of(const nas__exec_kernels *k, const nas__exec_conv *job, int32_t pixel,
                     int32_t o) {
    int32_t first = 0, n = k->block(job->vectors);
    const float *w = job->weights;
    while (o >= (first + n) * LANES) {
        w += TAPS * CHANNELS * n * LANES;
        first += n;
        n = k->block(job->vectors - first);
    }
    double sum = (double)job->bias[o];
    for (int32_t t = 0; t < TAPS; t++) {
        for (int32_t c = 0; c < CHANNELS; c++)
            sum += (double)job->in[job->in_at[pixel] + taps[t] + c] *
                   (double)w[(t * CHANNELS + c) * n * LANES + o - first * LANES];
    }
    return sum;
}

Test(eval_exec_kernels, convolutions_are_sums_over_taps_and_channels) {
    const nas__exec_kernels *all[4];
    nas__exec_kernels_all(all);
    nas_rng rng = nas_rng_stream(1, 0, "conv");
    float *in = noise(IN, &rng), *weights = noise(WEIGHTS, &rng), *before = noise(OUT, &rng);
    float *bias = noise((size_t)VECTORS_MAX * LANES, &rng), *out = noise(OUT, &rng);
    int32_t in_at[PIXELS], out_at[PIXELS];
    for (int i = 0; all[i] != NULL; i++) {
        for (int32_t way = 0; way < 4 * VECTORS_MAX; way++) {
            const int32_t vectors = way / 4 + 1, width = vectors * LANES;
            const int32_t pixels = way % 2 == 0 ? PIXELS : 1 + way % PIXELS;
            for (int32_t p = 0; p < PIXELS; p++) {
                in_at[p] = 3 * p;
                out_at[p] = (PIXELS - 1 - p) * width;
            }
            const nas__exec_conv job = {.in = in,
                                        .out = out,
                                        .in_at = in_at,
                                        .out_at = out_at,
                                        .pixels = pixels,
                                        .taps = taps,
                                        .n_taps = TAPS,
                                        .channels = CHANNELS,
                                        .vectors = vectors,
                                        .weights = weights,
                                        .bias = bias,
                                        .lo = -1,
                                        .hi = 2,
                                        .accumulate = way % 4 >= 2};
            memcpy(out, before, OUT * sizeof *out);
            all[i]->conv(&job);
            for (int32_t p = 0; p < PIXELS; p++) {
                for (int32_t o = 0; o < width; o++) {
                    const double old = (double)before[out_at[p] + o];
                    const double sum = sum_of(all[i], &job, p, o) + (job.accumulate ? old : 0);
                    const double want = p < pixels ? fmin(fmax(sum, -1), 2) : old;
                    cr_assert(fabs((double)out[out_at[p] + o] - want) < 1e-5,
                              "%s: %d vectors, pixel %d of %d, output %d: %g, not %g", all[i]->name,
                              vectors, p, pixels, o, (double)out[out_at[p] + o], want);
                }
            }
        }
    }
    nas_free(in);
    nas_free(weights);
    nas_free(before);
    nas_free(bias);
    nas_free(out);
}

Test(eval_exec_kernels, outer_products_are_added_row_by_row) {
    enum { ROWS = 6, A = 40, ROW = VECTORS_MAX * LANES };
    const nas__exec_kernels *all[4];
    nas__exec_kernels_all(all);
    nas_rng rng = nas_rng_stream(2, 0, "outer");
    float *a = noise((size_t)ROWS * A, &rng), *b = noise((size_t)ROWS * ROW, &rng);
    float *before = noise((size_t)A * ROW, &rng), *out = noise((size_t)A * ROW, &rng);
    int32_t a_at[ROWS], b_at[ROWS];
    for (int32_t r = 0; r < ROWS; r++) {
        a_at[r] = (ROWS - 1 - r) * A;
        b_at[r] = r * ROW;
    }
    for (int i = 0; all[i] != NULL; i++) {
        for (int32_t n_a = 1; n_a <= A; n_a++) {
            const int32_t vectors = n_a % VECTORS_MAX + 1;
            const nas__exec_outer job = {.a = a,
                                         .b = b,
                                         .a_at = a_at,
                                         .b_at = b_at,
                                         .rows = ROWS,
                                         .n_a = n_a,
                                         .vectors = vectors,
                                         .out = out,
                                         .out_row = ROW};
            memcpy(out, before, (size_t)A * ROW * sizeof *out);
            all[i]->outer(&job);
            for (int32_t k = 0; k < A * ROW; k++) {
                double want = (double)before[k];
                for (int32_t r = 0; r < ROWS && k / ROW < n_a && k % ROW < vectors * LANES; r++)
                    want += (double)a[a_at[r] + k / ROW] * (double)b[b_at[r] + k % ROW];
                cr_assert(fabs((double)out[k] - want) < 1e-5,
                          "%s: %d of a, %d vectors, [%d][%d]: %g, not %g", all[i]->name, n_a,
                          vectors, k / ROW, k % ROW, (double)out[k], want);
            }
        }
    }
    nas_free(a);
    nas_free(b);
    nas_free(before);
    nas_free(out);
}

/* Squares of floats are exact in doubles: nothing to tolerate. */
Test(eval_exec_kernels, moments_are_added_pixel_by_pixel) {
    enum { PIXELS_MAX = 6, STEP = 3 * LANES };
    const nas__exec_kernels *all[4];
    nas__exec_kernels_all(all);
    nas_rng rng = nas_rng_stream(5, 0, "moments");
    for (int i = 0; all[i] != NULL; i++) {
        for (int32_t channels = 1; channels <= STEP; channels++) {
            const int32_t pixels = 1 + channels % PIXELS_MAX;
            float *x = noise((size_t)(pixels - 1) * STEP + (size_t)channels, &rng);
            double got[2][STEP + 1], want[2][STEP + 1];
            for (int32_t c = 0; c <= STEP; c++)
                got[0][c] = got[1][c] = want[0][c] = want[1][c] = (double)c / 8;
            all[i]->moments(x, STEP, pixels, channels, got[0], got[1]);
            for (int32_t p = 0; p < pixels; p++) {
                for (int32_t c = 0; c < channels; c++) {
                    const double v = (double)x[p * STEP + c];
                    want[0][c] += v;
                    want[1][c] += v * v;
                }
            }
            for (int32_t c = 0; c <= STEP; c++)
                cr_assert(got[0][c] == want[0][c] && got[1][c] == want[1][c],
                          "%s: channel %d of %d: %.17g, %.17g", all[i]->name, (int)c, (int)channels,
                          got[0][c] - want[0][c], got[1][c] - want[1][c]);
            nas_free(x);
        }
    }
}

/* One row against the formulas of eval/exec_kernels.h. */
Test(eval_exec_kernels, normalisations_of_a_row_are_their_formulas) {
    enum { PIXELS_MAX = 7, X_STEP = 3 * LANES, Y_STEP = 4 * LANES };
    const nas__exec_kernels *all[4];
    nas__exec_kernels_all(all);
    nas_rng rng = nas_rng_stream(3, 0, "norm");
    float *x = noise((size_t)PIXELS_MAX * X_STEP, &rng),
          *dy = noise((size_t)PIXELS_MAX * Y_STEP, &rng);
    float *before = noise((size_t)PIXELS_MAX * Y_STEP, &rng), *of = noise(6 * (size_t)X_STEP, &rng);
    float *y = noise((size_t)PIXELS_MAX * Y_STEP, &rng),
          *dx = noise((size_t)PIXELS_MAX * X_STEP, &rng);
    float sums[2][X_STEP], products[2][X_STEP];
    for (int i = 0; all[i] != NULL; i++) {
        for (int32_t way = 0; way < 3 * PIXELS_MAX; way++) {
            const int32_t pixels = 1 + way % PIXELS_MAX, channels = (1 + way / PIXELS_MAX) * LANES;
            nas__exec_norm_row row = {.x = x,
                                      .y = y,
                                      .dy = dy,
                                      .dx = dx,
                                      .x_step = X_STEP,
                                      .y_step = Y_STEP,
                                      .pixels = pixels,
                                      .channels = channels,
                                      .center = of,
                                      .scale = of + X_STEP,
                                      .shift = of + 2 * X_STEP,
                                      .slope = of + 3 * X_STEP};
            memcpy(y, before, (size_t)PIXELS_MAX * Y_STEP * sizeof *y);
            memcpy(dx, before, (size_t)PIXELS_MAX * X_STEP * sizeof *dx);
            for (int k = 0; k < 2; k++) {
                memcpy(sums[k], of + 4 * X_STEP, sizeof sums[k]);
                memcpy(products[k], of + 5 * X_STEP, sizeof products[k]);
                row.sums = sums[k];
                row.products = products[k];
                if (k == 0) all[i]->norm_moments(&row);
                if (k == 1) all[i]->norm_slopes(&row);
            }
            all[i]->norm_apply(&row, -0.5F, 0.75F);
            all[i]->norm_back(&row);
            for (int32_t c = 0; c < X_STEP; c++) {
                double want[4] = {(double)of[4 * X_STEP + c], (double)of[5 * X_STEP + c],
                                  (double)of[4 * X_STEP + c], (double)of[5 * X_STEP + c]};
                for (int32_t p = 0; p < PIXELS_MAX; p++) {
                    const bool inside = p < pixels && c < channels;
                    const double in = (double)x[p * X_STEP + c], d = (double)dy[p * Y_STEP + c];
                    const double apart = in - (double)of[c], scale = (double)of[X_STEP + c],
                                 shift = (double)of[2 * X_STEP + c];
                    double to[2] = {(double)before[p * Y_STEP + c], (double)before[p * X_STEP + c]};
                    if (inside) {
                        want[0] += apart;
                        want[1] += apart * apart;
                        want[2] += d;
                        want[3] += d * apart;
                        to[0] = fmin(fmax(scale * in + shift, -0.5), 0.75);
                        to[1] += scale * d + (double)of[3 * X_STEP + c] * apart + shift;
                    }
                    cr_assert(fabs((double)y[p * Y_STEP + c] - to[0]) < 1e-5 &&
                                  fabs((double)dx[p * X_STEP + c] - to[1]) < 1e-5,
                              "%s: %d pixels, [%d][%d]", all[i]->name, pixels, p, c);
                }
                const double got[4] = {(double)sums[0][c], (double)products[0][c],
                                       (double)sums[1][c], (double)products[1][c]};
                for (int k = 0; k < 4; k++)
                    cr_assert(fabs(got[k] - want[k]) < 1e-5, "%s: %d pixels, sum %d of %d: %g, %g",
                              all[i]->name, pixels, k, c, got[k], want[k]);
            }
        }
    }
    nas_free(x);
    nas_free(dy);
    nas_free(before);
    nas_free(of);
    nas_free(y);
    nas_free(dx);
}
