/* test_train_kernels.c - every instruction set's kernels against plain loops in doubles. Buffers have exactly the
 * size that the contract in train_kernels.h promises. */
#include "eval/train_kernels.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <math.h>
#include <string.h>

/* Sums of up to 15*15*7 products of numbers below one. */
static const double tolerance = 2e-4;

typedef struct image {
    int32_t c, h, w, radius;
    ptrdiff_t pitch;
    float *block;
    size_t floats;
    nas__view view;
} image;

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
    cr_assert(ctx != NULL);
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_train_kernels, .init = setup, .fini = teardown);

static image image_new(int32_t c, int32_t h, int32_t w, int32_t radius, nas_rng *rng) {
    image m = {.c = c, .h = h, .w = w, .radius = radius};
    m.pitch = (w + NAS__LANES_MAX - 1) / NAS__LANES_MAX * NAS__LANES_MAX + NAS__PAD;
    const ptrdiff_t rows = (ptrdiff_t)(h + 2 * radius) * c + NAS__OVERREAD;
    m.floats = (size_t)(rows * m.pitch) + 2 * NAS__PAD;
    m.block = nas_alloc_aligned(ctx, m.floats, sizeof *m.block, 64);
    m.view = (nas__view){
        .at = m.block + NAS__PAD + radius * c * m.pitch, .row = c * m.pitch, .channel = m.pitch};
    for (int32_t y = 0; y < h; y++) {
        for (int32_t k = 0; k < c; k++) {
            for (int32_t x = 0; x < w; x++) {
                m.view.at[y * m.view.row + k * m.pitch + x] = (float)(nas_rng_uniform(rng) - 0.5);
            }
        }
    }
    return m;
}

static double at(const image *m, int32_t c, int32_t y, int32_t x) {
    return (double)m->view.at[y * m->view.row + c * m->view.channel + x];
}

static void fill_taps(const image *m, int32_t k, ptrdiff_t *taps) {
    for (int32_t t = 0; t < k * k; t++)
        taps[t] = (t / k - k / 2) * m->view.row + (t % k - k / 2);
}

typedef struct conv_case {
    int32_t inputs, outputs, kernel, h, w;
    bool bias;
} conv_case;

static const conv_case conv_cases[] = {{1, 1, 1, 1, 1, false},  {3, 16, 3, 5, 48, true},
                                       {12, 5, 3, 4, 17, true}, {20, 3, 1, 3, 31, true},
                                       {2, 7, 5, 6, 16, false}, {3, 6, 7, 9, 5, true},
                                       {4, 4, 15, 3, 33, true}, {5, 9, 3, 2, 100, true}};
static const nas__finish finishes[] = {NAS__FINISH_PLAIN, NAS__FINISH_RELU, NAS__FINISH_ADD,
                                       NAS__FINISH_GATE};

static double conv_expected(const conv_case *row, const image *in, const float *weights,
                            const float *bias, int32_t o, int32_t y, int32_t x) {
    const int32_t taps = row->kernel * row->kernel, half = row->kernel / 2;
    double sum = row->bias ? (double)bias[o] : 0.0;
    for (int32_t t = 0; t < taps; t++) {
        for (int32_t i = 0; i < row->inputs; i++) {
            const ptrdiff_t k = (((ptrdiff_t)(o / 4) * taps + t) * row->inputs + i) * 4 + o % 4;
            sum += (double)weights[k] *
                   at(in, i, y + t / row->kernel - half, x + t % row->kernel - half);
        }
    }
    return sum;
}

static double finished(nas__finish finish, double sum, double extra) {
    switch (finish) {
    case NAS__FINISH_PLAIN: return sum;
    case NAS__FINISH_RELU: return sum > 0 ? sum : 0;
    case NAS__FINISH_ADD: return sum + extra;
    case NAS__FINISH_GATE: return extra > 0 ? sum : 0;
    }
    return NAN;
}

static void check_conv(const nas__kernels *k, const conv_case *row, nas__finish finish,
                       nas_rng *rng) {
    const int32_t taps = row->kernel * row->kernel, blocks = (row->outputs + 3) / 4;
    image in = image_new(row->inputs, row->h, row->w, row->kernel / 2, rng);
    image out = image_new(row->outputs, row->h, row->w, 0, rng);
    image before = image_new(row->outputs, row->h, row->w, 0, rng);
    memcpy(before.block, out.block, out.floats * sizeof *out.block);
    const size_t n = (size_t)(blocks * taps * row->inputs * 4);
    float *weights = nas_alloc_array(ctx, n, sizeof *weights);
    float *bias = nas_alloc_array(ctx, (size_t)row->outputs, sizeof *bias);
    ptrdiff_t offsets[NAS__KERNEL_MAX * NAS__KERNEL_MAX];
    fill_taps(&in, row->kernel, offsets);
    for (size_t i = 0; i < n; i++)
        weights[i] = (float)(nas_rng_uniform(rng) - 0.5);
    for (int32_t i = 0; i < row->outputs; i++)
        bias[i] = (float)nas_rng_uniform(rng);
    const nas__conv_job job = {.in = in.view,
                               .out = out.view,
                               .extra = out.view,
                               .weights = weights,
                               .bias = row->bias ? bias : NULL,
                               .taps = offsets,
                               .n_taps = taps,
                               .weight_block = (ptrdiff_t)taps * row->inputs * 4,
                               .inputs = row->inputs,
                               .outputs = row->outputs,
                               .rows = row->h,
                               .width = row->w,
                               .finish = finish,
                               .zero_tail = true};
    k->conv(&job);
    double worst = 0.0, tail = 0.0;
    for (int32_t o = 0; o < row->outputs; o++) {
        for (int32_t y = 0; y < row->h; y++) {
            for (int32_t x = 0; x < out.pitch; x++) {
                if (x >= row->w) {
                    tail += fabs(at(&out, o, y, x));
                    continue;
                }
                const double sum = conv_expected(row, &in, weights, bias, o, y, x);
                const double expected = finished(finish, sum, at(&before, o, y, x));
                worst = fmax(worst, fabs(expected - at(&out, o, y, x)));
            }
        }
    }
    cr_expect(worst < tolerance, "%s %d->%d k%d w%d finish %d: off by %g", k->name,
              (int)row->inputs, (int)row->outputs, (int)row->kernel, (int)row->w, (int)finish,
              worst);
    cr_expect(tail <= 0.0, "%s w%d: padding is not zero", k->name, (int)row->w);
    nas_free(bias);
    nas_free(weights);
    nas_free(before.block);
    nas_free(out.block);
    nas_free(in.block);
}

Test(eval_train_kernels, convolution_matches_plain_loops) {
    const nas__kernels *all[4];
    nas__kernels_all(all);
    nas_rng rng = nas_rng_stream(7, 0, "conv");
    for (int i = 0; all[i] != NULL; i++) {
        for (size_t r = 0; r < sizeof conv_cases / sizeof *conv_cases; r++) {
            for (size_t f = 0; f < sizeof finishes / sizeof *finishes; f++) {
                check_conv(all[i], &conv_cases[r], finishes[f], &rng);
            }
        }
    }
}

static void check_pairs(const nas__kernels *k, const conv_case *row, nas_rng *rng) {
    const int32_t taps = row->kernel * row->kernel, half = row->kernel / 2;
    image a = image_new(row->outputs, row->h, row->w, 0, rng);
    image b = image_new(row->inputs, row->h, row->w, half, rng);
    ptrdiff_t offsets[NAS__KERNEL_MAX * NAS__KERNEL_MAX];
    fill_taps(&b, row->kernel, offsets);
    const size_t lanes_n = k->pairs_size(row->outputs, row->inputs, taps);
    float *lanes = nas_alloc_aligned(ctx, lanes_n, sizeof *lanes, 64);
    float *sums = nas_alloc_array(ctx, (size_t)(row->outputs * taps * row->inputs), sizeof *sums);
    const nas__pairs_job job = {.a = a.view,
                                .b = b.view,
                                .n_a = row->outputs,
                                .n_b = row->inputs,
                                .taps = offsets,
                                .n_taps = taps,
                                .rows = row->h,
                                .width = row->w,
                                .lanes = lanes};
    k->pairs(&job);
    k->pairs_reduce(lanes, row->outputs, row->inputs, taps, (ptrdiff_t)taps * row->inputs, 1,
                    row->inputs, sums);
    double worst = 0.0;
    const float *sum = sums;
    for (int32_t o = 0; o < row->outputs; o++) {
        for (int32_t t = 0; t < taps; t++) {
            for (int32_t i = 0; i < row->inputs; i++) {
                double expected = 0.0;
                for (int32_t p = 0; p < row->h * row->w; p++) {
                    const int32_t y = p / row->w, x = p % row->w;
                    expected += at(&a, o, y, x) *
                                at(&b, i, y + t / row->kernel - half, x + t % row->kernel - half);
                }
                worst = fmax(worst, fabs(expected - (double)*sum++));
            }
        }
    }
    cr_expect(worst < tolerance, "%s %dx%d k%d w%d: off by %g", k->name, (int)row->outputs,
              (int)row->inputs, (int)row->kernel, (int)row->w, worst);
    nas_free(sums);
    nas_free(lanes);
    nas_free(b.block);
    nas_free(a.block);
}

Test(eval_train_kernels, pair_sums_match_plain_loops) {
    const nas__kernels *all[4];
    nas__kernels_all(all);
    nas_rng rng = nas_rng_stream(8, 0, "pairs");
    for (int i = 0; all[i] != NULL; i++) {
        for (size_t r = 0; r < sizeof conv_cases / sizeof *conv_cases; r++) {
            check_pairs(all[i], &conv_cases[r], &rng);
        }
    }
}

enum { FLAT = 48 };

static void check_flat(const nas__kernels *k, const float *a, const float *b) {
    float out[FLAT], acc[FLAT], half_a[2 * FLAT], even[FLAT], odd[FLAT];
    k->add(a, b, out, FLAT);
    for (int i = 0; i < FLAT; i++)
        cr_expect(eq(flt, out[i], a[i] + b[i]));
    k->relu(a, out, FLAT);
    for (int i = 0; i < FLAT; i++)
        cr_expect(eq(flt, out[i], a[i] > 0 ? a[i] : 0));
    memcpy(acc, b, sizeof acc);
    k->relu_back(a, b, acc, FLAT, true);
    for (int i = 0; i < FLAT; i++)
        cr_expect(eq(flt, acc[i], a[i] > 0 ? 2 * b[i] : b[i]));
    k->prelu(a, 0.25f, out, FLAT);
    for (int i = 0; i < FLAT; i++)
        cr_expect(eq(flt, out[i], a[i] > 0 ? a[i] : 0.25f * a[i]));
    double slope = 0.0;
    for (int i = 0; i < FLAT; i++)
        slope += a[i] > 0 ? 0 : (double)a[i] * (double)b[i];
    const float got = k->prelu_back(a, b, 0.25f, out, FLAT, false);
    cr_expect(fabs(slope - (double)got) < tolerance, "%s: slope %g, got %g", k->name, slope,
              (double)got);
    for (int i = 0; i < FLAT; i++)
        cr_expect(eq(flt, out[i], a[i] > 0 ? b[i] : 0.25f * b[i]));
    k->zip(a, b, half_a, FLAT);
    for (int i = 0; i < 2 * FLAT; i++)
        cr_expect(eq(flt, half_a[i], i % 2 == 0 ? a[i / 2] : b[i / 2]));
    k->unzip(half_a, even, odd, FLAT);
    cr_expect(memcmp(even, a, sizeof even) == 0 && memcmp(odd, b, sizeof odd) == 0, "%s", k->name);
}

Test(eval_train_kernels, flat_loops_match_plain_loops) {
    const nas__kernels *all[4];
    nas__kernels_all(all);
    nas_rng rng = nas_rng_stream(9, 0, "flat");
    float a[FLAT], b[FLAT];
    for (int i = 0; i < FLAT; i++) {
        a[i] = (float)(nas_rng_uniform(&rng) - 0.5);
        b[i] = (float)(nas_rng_uniform(&rng) - 0.5);
    }
    a[3] = 0.0f; /* no gradient at zero */
    for (int i = 0; all[i] != NULL; i++)
        check_flat(all[i], a, b);
}

Test(eval_train_kernels, l1_of_any_length_gives_signs) {
    const nas__kernels *all[4];
    nas__kernels_all(all);
    for (int i = 0; all[i] != NULL; i++) {
        for (int32_t n = 1; n <= FLAT; n++) {
            float y[FLAT], target[FLAT], dy[FLAT];
            double expected = 0.0;
            for (int32_t k = 0; k < n; k++) {
                y[k] = (float)(k % 3) * 0.5f;
                target[k] = 0.5f;
                expected += fabs((double)y[k] - 0.5);
            }
            const double sum = all[i]->l1(y, target, dy, 0.125f, n);
            cr_expect(fabs(sum - expected) < tolerance, "%s n=%d", all[i]->name, (int)n);
            for (int32_t k = 0; k < n; k++)
                cr_expect(eq(flt, dy[k], (float)(k % 3 - 1) * 0.125f));
        }
    }
}

Test(eval_train_kernels, channel_sums_match_plain_loops) {
    const nas__kernels *all[4];
    nas__kernels_all(all);
    nas_rng rng = nas_rng_stream(10, 0, "channels");
    for (int i = 0; all[i] != NULL; i++) {
        image m = image_new(5, 7, 19, 0, &rng);
        float lanes[5 * NAS__LANES_MAX] = {0}, sums[5] = {0};
        all[i]->channel_lanes(m.view, 5, 7, 19, lanes);
        all[i]->lanes_sum(lanes, 5, sums);
        for (int32_t c = 0; c < 5; c++) {
            double expected = 0.0;
            for (int32_t p = 0; p < 7 * 19; p++)
                expected += at(&m, c, p / 19, p % 19);
            cr_expect(fabs(expected - (double)sums[c]) < tolerance, "%s channel %d", all[i]->name,
                      (int)c);
        }
        nas_free(m.block);
    }
}
