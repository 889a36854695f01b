/* test_compile.c - executables against the naive reference; the cache; errors of the tool chain. */
#include "compiler/compiler.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char dir[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-compiler-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    options.max_threads = 2;
    options.form = NAS_FORM_ROWS;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_compile, .init = setup, .fini = teardown, .timeout = 120);

/* fp32 sums of up to ~1000 products of values near 1, a few layers deep, against doubles: each layer adds rounding of
 * some 2^-24 * sqrt(terms) of its magnitude. 2^-24 * 32 * 16 layers = 3e-5. */
static const double tolerance = 3e-5;

/* Compiles, runs with 1 and 2 threads, compares; frees the graph. */
static void check_graph(nas_graph *g, const char *what, uint64_t seed) {
    reference_fill(ctx, g, seed);
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(ctx, n_in, seed);
    float *out = nas_alloc_array(ctx, 2 * n_out, sizeof *out);
    double *expected = nas_alloc_array(ctx, n_out, sizeof *expected), magnitude = 0;
    reference_forward(ctx, g, in, expected, &magnitude);
    nas_artifact artifact;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &artifact), NAS_OK), "%s: %s", what,
              nas_ctx_message(ctx));
    for (int32_t threads = 1; threads <= options.max_threads && threads <= 2; threads++) {
        float *y = out + (size_t)(threads - 1) * n_out;
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &artifact, g, 1, in, y, threads, dir), NAS_OK),
                  "%s: %s", what, nas_ctx_message(ctx));
        double worst = 0;
        for (size_t i = 0; i < n_out; i++)
            worst = fmax(worst, fabs((double)y[i] - expected[i]));
        cr_assert(worst <= tolerance * magnitude, "%s, %d threads: off by %g of %g", what, threads,
                  worst, magnitude);
    }
    if (options.max_threads > 1) {
        cr_assert(eq(int, memcmp(out, out + n_out, n_out * sizeof *out), 0),
                  "%s: threads change the result", what);
    }
    nas_free(in);
    nas_free(out);
    nas_free(expected);
    nas_graph_free(g);
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
        check_graph(reference_sr(ctx, &rows[i]), what, i);
    }
}

/* A target like `name` with so small a cache that the planner cuts strips. */
static nas_target cramped(const char *name, int32_t l2_bytes) {
    const nas_target *found = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, name, &found), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_target target = *found;
    target.l2_bytes = l2_bytes;
    return target;
}

/* The plan, as text, must show more than one strip, or the test would not test what it says. */
static void expect_strips(const nas_graph *g, const nas_target *target) {
    nas_buf text = {0};
    cr_assert(
        eq(int,
           (int)nas_dump_after(ctx, g, &(nas_compile_options){.target = target}, "plan", &text),
           NAS_OK),
        "%s", nas_ctx_message(ctx));
    cr_assert(eq(ptr, strstr(text.data, "plan: 1 strips"), NULL), "%s", text.data);
    nas_buf_deinit(&text);
}

Test(compiler_compile, fsrcnn_networks_match_the_reference) {
    check_graph(reference_fsrcnn(ctx, 13, 37, 3, 24, 6, 2), "fsrcnn x3", 7);
}

/* The end of a deconvolution network: `channels` -> transposed convolution -> optionally something behind it. */
static nas_graph *upscaling(const nas_conv_attributes *c, int32_t output_pad, int32_t channels,
                            int32_t height, int32_t width, bool behind) {
    nas_graph *g = nas_graph_new(ctx, "upscaling");
    nas_value x = 0;
    const nas_conv_attributes first = nas_conv_same(channels, 3), last = nas_conv_same(3, 3);
    nas_node up = {.op = NAS_OP_CONV_TRANSPOSE,
                   .n_inputs = 1,
                   .conv = *c,
                   .output_pad_h = output_pad,
                   .output_pad_w = output_pad};
    nas_status status = nas_graph_add_input(ctx, g, "in", (nas_shape){1, height, width, 2}, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "features", x, &first, &x);
    if (status == NAS_OK) status = nas_graph_add_prelu(ctx, g, "features.act", x, &x);
    up.inputs[0] = x;
    if (status == NAS_OK) status = nas_graph_add_node(ctx, g, "deconv", &up, &x);
    if (status == NAS_OK && behind) status = nas_graph_add_relu(ctx, g, "relu", x, &x);
    if (status == NAS_OK && behind) status = nas_graph_add_conv(ctx, g, "last", x, &last, &x);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return g;
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
    const nas_target wide = *options.target, narrow = cramped("x86-64", 24 * 1024);
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
        options.target = strips ? &narrow : &wide;
        nas_graph *g = upscaling(&c, rows[i].output_pad, rows[i].channels, 7 + (int32_t)i,
                                 strips ? 230 : 45, rows[i].behind);
        if (strips) expect_strips(g, &narrow);
        check_graph(g, what, 20 + i);
    }
}

Test(compiler_compile, convolutions_of_every_shape_match_the_reference) {
    check_graph(reference_chain(ctx, 11, 53), "chain", 8);
}

Test(compiler_compile, column_strips_change_nothing) {
    const sr_shape shape = {9, 333, 2, 3, 8, 16, 12, 3, 3, 5};
    const nas_target target = cramped("native", 48 * 1024);
    options.target = &target;
    nas_graph *g = reference_sr(ctx, &shape);
    expect_strips(g, &target);
    check_graph(g, "sr in strips", 9);
}

Test(compiler_compile, any_dag_matches_the_reference) {
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261121;
    for (uint64_t i = 0; i < 2; i++) {
        const nas_target target = cramped("native", i == 1 ? 24 * 1024 : 1024 * 1024);
        char what[64];
        (void)snprintf(what, sizeof what, "tangle, SEED=%" PRIu64, seed + i);
        options.target = &target;
        nas_graph *g = reference_tangle(ctx, 10 + (int32_t)i, i == 1 ? 230 : 21, seed + i);
        if (i == 1) expect_strips(g, &target);
        check_graph(g, what, seed + i);
    }
}

Test(compiler_compile, narrower_vectors_match_the_reference) {
    static const char *const names[] = {"x86-64", "x86-64-avx2"};
    if (options.target->vector_bytes == 16 && strncmp(options.target->name, "x86", 3) != 0) {
        cr_skip_test("no x86-64 processor");
    }
    for (int i = 0; i < 2; i++) {
        const sr_shape shape = {6, 150, 2, 2, 8, 16, 4, 3, 3, 5};
        const nas_target target = cramped(names[i], 12 * 1024);
        if (!target.runs_here) cr_skip_test("no AVX2 here");
        options.target = &target;
        nas_graph *g =
            i == 0 ? reference_fsrcnn(ctx, 7, 129, 2, 8, 4, 1) : reference_sr(ctx, &shape);
        expect_strips(g, &target);
        check_graph(g, names[i], 10);
    }
}
