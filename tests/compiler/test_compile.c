/* test_compile.c - executables against the naive reference; the cache; errors of the tool chain. */
#include "compile_fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static compile_fixture f;

static void setup(void) {
    compile_fixture_init(&f, 2);
}

static void teardown(void) {
    compile_fixture_deinit(&f);
}

TestSuite(compiler_compile, .init = setup, .fini = teardown, .timeout = 120);

/* fp32 sums of up to ~1000 products of values near 1, a few layers deep, against doubles: each layer adds rounding of
 * some 2^-24 * sqrt(terms) of its magnitude. 2^-24 * 32 * 16 layers = 3e-5. */
static const double tolerance = 3e-5;

static void check_graph(nas_graph *g, const char *what, uint64_t seed) {
    compile_check(&f, g, what, seed, tolerance);
}

Test(compiler_compile, super_resolution_networks_match_the_reference) {
    static const sr_shape rows[] = {
        {5, 7, 2, 1, 8, 20, 4, 3, 3, 5},
        {1, 33, 3, 2, 12, 16, 8, 5, 3, 3},
        {17, 100, 4, 3, 24, 48, 20, 3, 5, 9},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char what[32];
        (void)snprintf(what, sizeof what, "sr row %zu", i);
        check_graph(reference_sr(f.ctx, &rows[i]), what, i);
    }
}

/* The plan must show more than one strip, or the test would not test what it says. */
static void expect_strips(const nas_graph *g) {
    cr_assert(not(compile_says(&f, g, "plan", "plan: 1 strips")));
}

Test(compiler_compile, fsrcnn_networks_match_the_reference) {
    check_graph(reference_fsrcnn(f.ctx, 13, 37, 3, 24, 6, 2), "fsrcnn x3", 7);
}

Test(compiler_compile, transposed_convolutions_match_the_reference) {
    static const struct {
        int32_t kernel, stride, pad_top, pad_bottom, pad_left, pad_right, output_pad, out, channels;
        bool behind;
    } rows[] = {
        {9, 2, 4, 3, 4, 3, 0, 1, 12, false}, /* FSRCNN x2 */
        {9, 2, 4, 4, 4, 4, 1, 1, 5, false},  /* as PyTorch writes it */
        {9, 3, 3, 3, 3, 3, 0, 1, 7, false},  /* x3 */
        {9, 3, 4, 4, 4, 4, 2, 2, 3, true},   /* lopsided: taps one pixel before, two behind */
        {9, 4, 4, 4, 4, 4, 3, 1, 6, false},  /* x4 */
        {9, 4, 2, 3, 3, 2, 0, 2, 4, true},   /* other pads, two channels, convolutions behind */
        {2, 2, 0, 0, 0, 0, 0, 3, 8, true},   /* each input pixel its own block */
        {3, 2, 0, 1, 1, 0, 0, 2, 4, false},  /* one phase with a single tap */
    };
    const nas_target wide = *f.options.target, narrow = compile_cramped(&f, "x86-64", 24 * 1024);
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const nas_conv_attributes c = {.out_channels = rows[i].out,
                                       .kernel_h = rows[i].kernel,
                                       .kernel_w = rows[i].kernel,
                                       .stride_h = rows[i].stride,
                                       .stride_w = rows[i].stride,
                                       .pad_top = rows[i].pad_top,
                                       .pad_bottom = rows[i].pad_bottom,
                                       .pad_left = rows[i].pad_left,
                                       .pad_right = rows[i].pad_right,
                                       .dilation_h = 1,
                                       .dilation_w = 1,
                                       .groups = 1,
                                       .has_bias = true};
        char what[32];
        (void)snprintf(what, sizeof what, "transposed row %zu", i);
        const bool strips = i % 2 == 1 && narrow.runs_here;
        f.options.target = strips ? &narrow : &wide;
        nas_graph *g = compile_upscaling(&f, &c, rows[i].output_pad, rows[i].channels,
                                         7 + (int32_t)i, strips ? 230 : 45, rows[i].behind);
        if (strips) expect_strips(g);
        check_graph(g, what, 20 + i);
    }
}

Test(compiler_compile, convolutions_of_every_shape_match_the_reference) {
    check_graph(reference_chain(f.ctx, 11, 53), "chain", 8);
}

Test(compiler_compile, column_strips_change_nothing) {
    const sr_shape shape = {9, 333, 2, 3, 8, 16, 12, 3, 3, 5};
    const nas_target target = compile_cramped(&f, "native", 48 * 1024);
    f.options.target = &target;
    nas_graph *g = reference_sr(f.ctx, &shape);
    expect_strips(g);
    check_graph(g, "sr in strips", 9);
}

Test(compiler_compile, any_dag_matches_the_reference) {
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261121;
    for (uint64_t i = 0; i < 2; i++) {
        const nas_target target = compile_cramped(&f, "native", i == 1 ? 24 * 1024 : 1024 * 1024);
        char what[64];
        (void)snprintf(what, sizeof what, "tangle, SEED=%" PRIu64, seed + i);
        f.options.target = &target;
        nas_graph *g = reference_tangle(f.ctx, 10 + (int32_t)i, i == 1 ? 230 : 21, seed + i);
        if (i == 1) expect_strips(g);
        check_graph(g, what, seed + i);
    }
}

Test(compiler_compile, narrower_vectors_match_the_reference) {
    static const char *const names[] = {"x86-64", "x86-64-avx2"};
    if (f.options.target->vector_bytes == 16 && strncmp(f.options.target->name, "x86", 3) != 0) {
        cr_skip_test("no x86-64 processor");
    }
    for (int i = 0; i < 2; i++) {
        const sr_shape shape = {6, 150, 2, 2, 8, 16, 4, 3, 3, 5};
        const nas_target target = compile_cramped(&f, names[i], 12 * 1024);
        if (!target.runs_here) cr_skip_test("no AVX2 here");
        f.options.target = &target;
        nas_graph *g =
            i == 0 ? reference_fsrcnn(f.ctx, 7, 129, 2, 8, 4, 1) : reference_sr(f.ctx, &shape);
        expect_strips(g);
        check_graph(g, names[i], 10);
    }
}

static int count_of(const char *text, const char *what) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++)
        n++;
    return n;
}

/* A row at a time through all layers, and still each has its time: a pair one of both together. */
Test(compiler_compile, layers_of_rows_have_times_of_their_own) {
    static const char *const names[] = {"\"input\"", "\"head\"",
                                        "\"block1.relu and block1.project\"", "\"shuffle\"",
                                        "\"unshift\""};
    const sr_shape shape = {40, 90, 2, 1, 8, 20, 4, 3, 3, 5};
    nas_graph *g = reference_sr(f.ctx, &shape);
    nas_artifact a;
    cr_assert(eq(int, (int)nas_graph_alloc_weights(f.ctx, g), NAS_OK));
    cr_assert(eq(int, (int)nas_compile(f.ctx, g, &f.options, &a), NAS_OK));
    for (int threads = 1; threads <= 2; threads++) {
        const char *const argv[] = {
            a.path,          "--bench", "--profile",       "--threads", threads == 1 ? "1" : "2",
            "--max-time-ms", "20",      "--warmup-cap-ms", "5",         NULL};
        nas_process_options o = nas_process_options_default();
        nas_process_result r = {0};
        o.argv = argv;
        cr_assert(eq(int, (int)nas_process_run(f.ctx, &o, &r), NAS_OK));
        cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
        const char *const layers = strstr((const char *)r.out.data, "\"layers\": [");
        cr_assert(layers != NULL, "%s", r.out.data);
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
            cr_assert(strstr(layers, names[i]) != NULL, "no %s in %s", names[i], layers);
        cr_assert(eq(int, count_of(layers, "\"name\": "), 6), "%s", layers);
        cr_assert(eq(int, count_of(layers, "\"p50_us\": 0}"), 0), "%s", layers);
        nas_process_result_deinit(&r);
    }
    nas_graph_free(g);
}
