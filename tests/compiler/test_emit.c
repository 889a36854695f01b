/* test_emit.c - what the passes do, as text; the golden model; unsupported graphs; running out of memory. */
#include "compiler/compiler.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static const nas_target *target;
static nas_row_kernels kernels;

/* The rows for this number of threads; valid until the next call. */
static const nas_compile_options *rows(int32_t threads) {
    static nas_compile_options o;
    o = nas_compile_options_default();
    o.target = target;
    o.max_threads = threads;
    o.form = NAS_FORM_ROWS;
    o.row_kernels = kernels;
    return &o;
}

static void setup(void) {
    ctx = nas_ctx_new();
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-linux", &target), NAS_OK));
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_emit, .init = setup, .fini = teardown, .timeout = 60);

static const sr_shape tiny = {6, 20, 2, 1, 4, 8, 4, 3, 3, 5};

/* Does the program after `pass` contain `text`? */
static bool after(nas_graph *g, const char *pass, const char *text) {
    nas_buf dump = {0};
    cr_assert(eq(int, (int)nas_dump_after(ctx, g, rows(1), pass, &dump), NAS_OK), "%s",
              nas_ctx_message(ctx));
    const bool found = strstr(dump.data, text) != NULL;
    nas_buf_deinit(&dump);
    return found;
}

Test(compiler_emit, constants_leave_the_program) {
    nas_graph *g = reference_sr(ctx, &tiny);
    cr_assert(after(g, "import", "shift: 3 ch x1 = input"));
    cr_assert(after(g, "fold", "input: 3 ch x1 = input -0.5"));
    cr_assert(not(after(g, "fold", "unshift: 3 ch x2 = shuffle +")));
    nas_graph_free(g);
}

Test(compiler_emit, residual_skip_activation_and_pairs_fuse) {
    nas_graph *g = reference_sr(ctx, &tiny);
    cr_assert(after(g, "fuse", "block1.relu: 8 ch x1 = 1x1(head) relu"));
    cr_assert(after(g, "fuse", "block1.add: 4 ch x1 = 3x3(block1.project) + head\n"));
    cr_assert(after(g, "fuse", "3x3(block1.add) + 5x5(input)"));
    cr_assert(after(g, "plan", "block1.relu: 8 ch x1 = 1x1(head) relu  scratch"));
    cr_assert(after(g, "plan", "to the output"));
    nas_graph_free(g);
}

Test(compiler_emit, unknown_passes_and_targets_list_the_known_ones) {
    nas_graph *g = reference_sr(ctx, &tiny);
    nas_buf out = {0};
    const nas_target *none = NULL;
    cr_assert(eq(int, (int)nas_dump_after(ctx, g, rows(1), "melt", &out), NAS_ERR_NOTFOUND));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "import, fold, fuse, plan"), NULL));
    cr_assert(eq(int, (int)nas_target_find(ctx, "z80", &none), NAS_ERR_NOTFOUND));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "aarch64-linux"), NULL));
    nas_graph_free(g);
}

Test(compiler_emit, emitted_text_depends_on_the_graph_alone) {
    nas_graph *a = reference_sr(ctx, &tiny), *b = reference_sr(ctx, &tiny);
    reference_fill(ctx, b, 1); /* weights are not part of the code */
    nas_buf c[2] = {{0}}, h[2] = {{0}};
    cr_assert(eq(int, (int)nas_emit_source(ctx, a, rows(2), &c[0], &h[0]), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_emit_source(ctx, b, rows(2), &c[1], &h[1]), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(str, c[0].data, c[1].data));
    cr_assert(eq(str, h[0].data, h[1].data));
    for (int i = 0; i < 2; i++) {
        nas_buf_deinit(&c[i]);
        nas_buf_deinit(&h[i]);
    }
    nas_graph_free(a);
    nas_graph_free(b);
}

Test(compiler_emit, the_golden_model_is_unchanged) {
    static const char path[] = "tests/compiler/golden/tiny_sr.c";
    nas_graph *g = reference_sr(ctx, &tiny);
    nas_buf c = {0}, h = {0}, golden = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, rows(1), &c, &h), NAS_OK), "%s",
              nas_ctx_message(ctx));
    if (getenv("NAS_GOLDEN_WRITE") != NULL) {
        cr_assert(eq(int, (int)nas_file_write(ctx, path, c.data, c.len, 0644), NAS_OK), "%s",
                  nas_ctx_message(ctx));
    }
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 20, &golden), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, strcmp(golden.data, c.data), 0),
              "emitted C changed: `make golden` rewrites it; review the diff");
    nas_buf_deinit(&c);
    nas_buf_deinit(&h);
    nas_buf_deinit(&golden);
    nas_graph_free(g);
}

static void expect_unsupported(nas_graph *g, const char *node) {
    nas_buf c = {0}, h = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, rows(1), &c, &h), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), node), NULL), "%s", nas_ctx_message(ctx));
    cr_assert(eq(ptr, c.data, NULL));
    nas_graph_free(g);
}

static nas_graph *one_conv(nas_conv_attributes c, nas_shape shape) {
    nas_graph *g = nas_graph_new(ctx, "odd");
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "in", shape, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "culprit", x, &c, &x), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    return g;
}

Test(compiler_emit, unsupported_nodes_are_named) {
    nas_conv_attributes c = nas_conv_same(4, 3);
    c.stride_h = c.stride_w = 2;
    expect_unsupported(one_conv(c, (nas_shape){1, 8, 8, 4}), "culprit");
    c = nas_conv_same(4, 3);
    c.dilation_h = c.dilation_w = 2;
    c.pad_top = c.pad_left = c.pad_bottom = c.pad_right = 2;
    expect_unsupported(one_conv(c, (nas_shape){1, 8, 8, 4}), "culprit");
    c = nas_conv_same(4, 3);
    c.groups = 2;
    expect_unsupported(one_conv(c, (nas_shape){1, 8, 8, 4}), "culprit");
    c = nas_conv_same(4, 3);
    c.pad_left = 0;
    expect_unsupported(one_conv(c, (nas_shape){1, 8, 8, 4}), "culprit");
    expect_unsupported(one_conv(nas_conv_same(4, 11), (nas_shape){1, 8, 8, 4}), "culprit");
    expect_unsupported(one_conv(nas_conv_same(4, 3), (nas_shape){2, 8, 8, 4}), "in");
    expect_unsupported(one_conv(nas_conv_same(4, 3), (nas_shape){1, 8, 20000, 4}), "in");
}

/* 12 channels -> one, transposed. */
static nas_graph *one_transposed(int32_t kernel, int32_t stride, int32_t pad, int32_t out_pad) {
    nas_graph *g = nas_graph_new(ctx, "odd");
    nas_node up = {.op = NAS_OP_CONV_TRANSPOSE,
                   .n_inputs = 1,
                   .conv = {.out_channels = 1,
                            .kernel_h = kernel,
                            .kernel_w = kernel,
                            .stride_h = stride,
                            .stride_w = stride,
                            .pad_top = pad,
                            .pad_left = pad,
                            .pad_bottom = pad,
                            .pad_right = pad,
                            .dilation_h = 1,
                            .dilation_w = 1,
                            .groups = 1,
                            .has_bias = true},
                   .output_pad_h = out_pad,
                   .output_pad_w = out_pad};
    cr_assert(eq(int,
                 (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 8, 8, 12}, &up.inputs[0]),
                 NAS_OK));
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, "culprit", &up, &x), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    return g;
}

Test(compiler_emit, phases_of_a_transposed_convolution_have_no_zero_taps) {
    /* One bias a phase and each of the 81 taps of 12 channels once, to a multiple of 16. */
    static const struct {
        int32_t stride;
        const char *weights;
    } rows[] = {{2, " 976 weights"}, {3, " 992 weights"}, {4, " 992 weights"}};
    kernels = NAS_ROW_KERNELS_DIRECT; /* Winograd ones have points for taps */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_graph *g = one_transposed(9, rows[i].stride, 4, rows[i].stride - 1);
        cr_assert(after(g, "plan", rows[i].weights), "stride %d", rows[i].stride);
        cr_assert(after(g, "plan", "culprit.phases: "));
        nas_graph_free(g);
    }
}

Test(compiler_emit, transposed_convolutions_beyond_the_pipeline_are_named) {
    expect_unsupported(one_transposed(9, 5, 2, 0), "culprit");   /* stride */
    expect_unsupported(one_transposed(9, 2, 4, 0), "culprit");   /* 15 rows from 8 */
    expect_unsupported(one_transposed(32, 2, 15, 0), "culprit"); /* reaches 8 pixels */
}

Test(compiler_emit, options_out_of_range_are_refused) {
    nas_graph *g = reference_sr(ctx, &tiny);
    nas_buf c = {0}, h = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, rows(0), &c, &h), NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, rows(65), &c, &h), NAS_ERR_RANGE));
    nas_compile_options o = nas_compile_options_default();
    o.target = target;
    o.form = NAS_FORM_ROWS;
    cr_assert(eq(int, (int)nas_emit_bundle(ctx, g, &o, "/tmp/never-made", NULL),
                 NAS_ERR_INVALID)); /* no weights */
    cr_assert(not(nas_file_exists("/tmp/never-made")));
    nas_graph_free(g);
}

Test(compiler_emit, every_failed_allocation_is_reported_and_nothing_leaks) {
    nas_graph *g = reference_sr(ctx, &tiny);
    const long before = nas_mem_live();
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK; n++) {
        nas_buf c = {0}, h = {0};
        nas_mem_fail_after(n);
        status = nas_emit_source(ctx, g, rows(2), &c, &h);
        nas_mem_fail_after(0);
        if (status != NAS_OK) {
            cr_assert(eq(int, (int)status, NAS_ERR_NOMEM), "allocation %ld: %s", n,
                      nas_ctx_message(ctx));
            cr_assert(eq(long, nas_mem_live(), before), "allocation %ld leaks", n);
        }
        nas_buf_deinit(&c);
        nas_buf_deinit(&h);
        cr_assert(n < 10000);
    }
    nas_graph_free(g);
}
