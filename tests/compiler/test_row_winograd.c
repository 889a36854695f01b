/* test_row_winograd.c - vertical Winograd in rows: the matrices, generated shapes against the naive reference, the same bits
 * for every number of threads, the choice and what --explain says of it. */
#include "compile_fixture.h"
#include "compiler/compiler_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static compile_fixture f;

static void setup(void) {
    compile_fixture_init(&f, 3);
    f.options.row_kernels = NAS_ROW_KERNELS_WINOGRAD;
}

static void teardown(void) {
    compile_fixture_deinit(&f);
}

TestSuite(compiler_row_winograd, .init = setup, .fini = teardown, .timeout = 300);

#define MUST(call) cr_assert_eq((int)(call), NAS_OK, "%s: %s", #call, nas_ctx_message(f.ctx))

/* ---- the matrices --------------------------------------------------------------------------------------------------- */

/* output * (weight k) * (input i), summed over the points, is 1 where row j of the result takes tap k from row i = j + k. */
Test(compiler_row_winograd, the_matrices_make_exact_correlations) {
    static const int32_t sizes[][2] = {{2, 3}, {4, 3}, {2, 5}, {4, 5}};
    for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
        const nas__winograd w = nas__winograd_of(sizes[s][0], sizes[s][1]);
        cr_assert(eq(int, w.points, sizes[s][0] + sizes[s][1] - 1));
        for (int32_t j = 0; j < w.rows; j++) {
            for (int32_t k = 0; k < w.height; k++) {
                for (int32_t i = 0; i < w.points; i++) {
                    double sum = 0;
                    for (int32_t p = 0; p < w.points; p++)
                        sum += w.output[j][p] * w.weight[p][k] * w.input[p][i];
                    cr_assert(fabs(sum - (i == j + k)) < 1e-12, "F(%d,%d): %d %d %d: %g", w.rows,
                              w.height, j, k, i, sum);
                }
            }
        }
    }
}

/* ---- whole programs --------------------------------------------------------------------------------------------------- */

/* Direct kernels stay below 3e-5 of the largest value, see test_compile.c; a layer by F(4,3) or F(4,5) rounds at most four
 * times as much. */
static const double tolerance = 1e-4;

static void check_graph(nas_graph *g, const char *what, uint64_t seed) {
    compile_check(&f, g, what, seed, tolerance);
}

static bool says(const nas_graph *g, const char *pass, const char *text) {
    return compile_says(&f, g, pass, text);
}

typedef struct layers {
    int32_t height, width, in, middle, out, kernel_h, kernel_w;
    int act; /* 0 none, 1 ReLU, 2 PReLU, of the first layer */
    bool residual;
} layers;

/* Two convolutions, between them an activation, behind them the value between added. */
static nas_graph *two_layers(const layers *s) {
    nas_value x = 0, y = 0;
    nas_graph *g = nas_graph_new(f.ctx, "layers");
    nas_conv_attributes c = nas_conv_same(s->middle, 1);
    c.kernel_h = s->kernel_h;
    c.kernel_w = s->kernel_w;
    c.pad_top = c.pad_bottom = s->kernel_h / 2;
    c.pad_left = c.pad_right = s->kernel_w / 2;
    MUST(nas_graph_add_input(f.ctx, g, "in", (nas_shape){1, s->height, s->width, s->in}, &x));
    MUST(nas_graph_add_conv(f.ctx, g, "first", x, &c, &x));
    if (s->act == 1) MUST(nas_graph_add_relu(f.ctx, g, "act", x, &x));
    if (s->act == 2) MUST(nas_graph_add_prelu(f.ctx, g, "act", x, &x));
    c.out_channels = s->residual ? s->middle : s->out;
    MUST(nas_graph_add_conv(f.ctx, g, "second", x, &c, &y));
    if (s->residual) MUST(nas_graph_add_add(f.ctx, g, "sum", y, x, &y));
    MUST(nas_graph_set_output(f.ctx, g, y));
    return g;
}

Test(compiler_row_winograd, generated_shapes_match_the_reference) {
    static const int32_t heights[] = {1, 2, 3, 4, 5, 8, 13, 23}, widths[] = {1, 3, 8, 17, 31, 64};
    static const int32_t channels[] = {1, 2, 3, 5, 7, 12, 13, 16};
    static const int32_t kernels[][2] = {{3, 3}, {5, 5}, {3, 1}, {5, 3}, {3, 5}};
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261126;
    nas_rng rng = nas_rng_stream(seed, 0, "row winograd");
#define ONE_OF(list) list[nas_rng_below(&rng, sizeof list / sizeof list[0])]
    for (int i = 0; i < 24; i++) {
        layers s = {i == 0 ? 1 : ONE_OF(heights),
                    i == 0 ? 1 : ONE_OF(widths),
                    ONE_OF(channels),
                    ONE_OF(channels),
                    ONE_OF(channels),
                    0,
                    0,
                    (int)nas_rng_below(&rng, 3),
                    nas_rng_below(&rng, 2) == 1};
        const int32_t *kernel = kernels[i < 5 ? (uint32_t)i : nas_rng_below(&rng, 5)];
        s.kernel_h = kernel[0];
        s.kernel_w = kernel[1];
        char what[160];
        (void)snprintf(what, sizeof what,
                       "SEED=%" PRIu64 " %d: %dx%d, %d -> %d -> %d, kernel %dx%d, act %d, sum %d",
                       seed, i, s.height, s.width, s.in, s.middle, s.out, s.kernel_h, s.kernel_w,
                       s.act, s.residual);
        nas_graph *g = two_layers(&s);
        cr_assert(says(g, "plan", "winograd 4 rows"), "%s", what);
        check_graph(g, what, seed + (uint64_t)i);
    }
#undef ONE_OF
}

/* Lags, bands and rings of a deep network, in one strip and in several, with rows above the input's resolution. */
Test(compiler_row_winograd, whole_networks_match_the_reference) {
    const nas_target wide = compile_cramped(&f, "native", 4096 * 1024),
                     narrow = compile_cramped(&f, "native", 48 * 1024);
    const sr_shape shape = {21, 333, 2, 3, 8, 16, 12, 3, 3, 5};
    for (int i = 0; i < 2; i++) {
        f.options.target = i == 0 ? &wide : &narrow;
        nas_graph *g = reference_sr(f.ctx, &shape);
        cr_assert(says(g, "plan", "bands of 4 rows"));
        cr_assert(says(g, "plan", "plan: 1 strips") == (i == 0), "strips: %d", i);
        check_graph(g, i == 0 ? "sr" : "sr in strips", 9);
        check_graph(reference_fsrcnn(f.ctx, 14 + i, 37, 3, 24, 6, 2), "fsrcnn", 7);
        check_graph(reference_chain(f.ctx, 11 + i, 53), "chain", 8);
        check_graph(reference_tangle(f.ctx, 10 + i, i == 0 ? 21 : 230, 5 + (uint64_t)i), "tangle",
                    5 + (uint64_t)i);
    }
}

Test(compiler_row_winograd, transposed_convolutions_match_the_reference) {
    static const struct {
        int32_t kernel, stride, pad_before, pad_behind, output_pad, out, channels;
    } rows[] = {
        {9, 2, 4, 3, 0, 1, 12}, /* FSRCNN x2: 5 rows of the window */
        {9, 3, 3, 3, 0, 1, 7},  /* x3: 3 */
        {9, 4, 4, 4, 3, 1, 6},  /* x4: phases of 2 and 3 taps */
        {9, 4, 2, 3, 0, 2, 4},  /* other pads, two channels */
        {3, 2, 0, 1, 0, 2, 4},  /* one phase with a single tap */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const nas_conv_attributes up = {.out_channels = rows[i].out,
                                        .kernel_h = rows[i].kernel,
                                        .kernel_w = rows[i].kernel,
                                        .stride_h = rows[i].stride,
                                        .stride_w = rows[i].stride,
                                        .pad_top = rows[i].pad_before,
                                        .pad_bottom = rows[i].pad_behind,
                                        .pad_left = rows[i].pad_before,
                                        .pad_right = rows[i].pad_behind,
                                        .dilation_h = 1,
                                        .dilation_w = 1,
                                        .groups = 1,
                                        .has_bias = true};
        nas_graph *g = compile_upscaling(&f, &up, rows[i].output_pad, rows[i].channels,
                                         6 + (int32_t)i, 45, i % 2 == 1);
        char what[32];
        (void)snprintf(what, sizeof what, "transposed row %zu", i);
        check_graph(g, what, 20 + i);
    }
}

/* ---- the choice ------------------------------------------------------------------------------------------------------- */

Test(compiler_row_winograd, the_estimate_chooses_and_explains) {
    const layers wide = {64, 640, 16, 16, 16, 3, 3, 1, true},
                 thin = {64, 640, 1, 1, 1, 3, 3, 0, false};
    const nas_target *avx2 = NULL;
    MUST(nas_target_find(f.ctx, "x86-64-avx2", &avx2));
    f.options.target = avx2;
    f.options.row_kernels = NAS_ROW_KERNELS_AUTO;
    nas_graph *many = two_layers(&wide), *one = two_layers(&thin);
    cr_assert(says(many, "plan", "winograd 4 rows"));
    cr_assert(says(many, NULL, "* F(4,3)"));
    cr_assert(says(many, NULL, "  direct"));
    cr_assert(not(says(one, "plan", "winograd")));
    cr_assert(says(one, NULL, "* direct"));
    f.options.row_kernels = NAS_ROW_KERNELS_DIRECT;
    cr_assert(not(says(many, "plan", "winograd")));
    cr_assert(not(says(many, "plan", "bands")));
    nas_graph_free(many);
    nas_graph_free(one);
}
