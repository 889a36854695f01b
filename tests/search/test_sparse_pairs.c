/* test_sparse_pairs.c - forms of layers that were measured to lose on a device are not tried there, and the line says why. */
#include "search/sparse_pairs.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

#include "tests/search/program.h"

static nas_ctx *ctx;
static nas_db *db;
static nas_graph *graph;
static nas_value conv, depthwise;

#define OK(call) cr_assert(eq(int, (call), NAS_OK), "%s", nas_ctx_message(ctx))

static void setup(void) {
    char folder[128], path[160];
    ctx = nas_ctx_new();
    test_folder(folder);
    (void)snprintf(path, sizeof path, "%s/t.db", folder);
    OK(nas_db_open(ctx, path, &db));
    graph = nas_graph_new(ctx, "net");
    nas_value x = 0;
    OK(nas_graph_add_input(ctx, graph, "input", (nas_shape){1, 28, 28, 64}, &x));
    nas_conv_attributes c = nas_conv_same(128, 1);
    c.stride_h = c.stride_w = 2;
    OK(nas_graph_add_conv(ctx, graph, "down", x, &c, &conv));
    nas_conv_attributes d = nas_conv_same(128, 3);
    d.groups = 128;
    OK(nas_graph_add_conv(ctx, graph, "dw", conv, &d, &depthwise));
    OK(nas_graph_set_output(ctx, graph, depthwise));
}

static void teardown(void) {
    OK(nas_db_close(ctx, db));
    nas_graph_free(graph);
    nas_ctx_free(ctx);
}

TestSuite(search_sparse_pairs, .init = setup, .fini = teardown);

static void measured(const char *pattern, double rate, double gain) {
    nas_db_sparse_cell c = {.fingerprint = "here",
                            .device = "native",
                            .layer = {1, 2, 64, 128, 14, 14, 32},
                            .rate = rate,
                            .dense_ns = 1e5,
                            .sparse_ns = 1e5 / gain};
    (void)snprintf(c.pattern, sizeof c.pattern, "%s", pattern);
    OK(nas_db_sparse_put(ctx, db, &c, NULL));
}

static nas_sparsity form(nas_sparsity_pattern pattern, double rate) {
    nas_sparsity s = nas_sparsity_default(pattern);
    s.rate = rate;
    return s;
}

Test(search_sparse_pairs, what_loses_is_dropped_by_name_and_what_nobody_measured_stays) {
    measured("1x4", 0.25, 0.8);
    measured("1x4", 0.75, 2.0);
    measured("N:4x4", 0.5, 0.9);
    const nas_sparsity forms[] = {form(NAS_SPARSITY_1XN, 0.25), form(NAS_SPARSITY_1XN, 0.6),
                                  form(NAS_SPARSITY_N_OF_M, 0), /* keeps 2 of 4 */
                                  form(NAS_SPARSITY_UNSTRUCTURED, 0.25)};
    const nas__sparse_judge judge = {.db = db, .fingerprint = "here", .bits = 32};
    bool use[4];
    nas_buf text = {0};
    OK(nas__sparse_drop(ctx, &judge, graph, conv, forms, 4, use, &text));
    cr_expect(not(use[0]));
    cr_expect(use[1] && use[3]);
    cr_expect(not(use[2]));
    cr_expect(eq(str, text.data,
                 "down: 1x4 at 25 % is 0.80 times as fast as dense here (faster from 42 %)\n"
                 "down: N:4x4 at 50 % is 0.90 times as fast as dense here (at no measured rate "
                 "faster)\n"));
    nas_buf_deinit(&text);
}

Test(search_sparse_pairs, other_devices_and_depthwise_layers_are_not_judged) {
    measured("1x4", 0.25, 0.8);
    const nas_sparsity f = form(NAS_SPARSITY_1XN, 0.25);
    nas__sparse_judge judge = {.db = db, .fingerprint = "there", .bits = 32};
    bool use = false;
    nas_buf text = {0};
    OK(nas__sparse_drop(ctx, &judge, graph, conv, &f, 1, &use, &text));
    cr_expect(use);
    judge.fingerprint = "here";
    use = false;
    OK(nas__sparse_drop(ctx, &judge, graph, depthwise, &f, 1, &use, &text));
    cr_expect(use);
    cr_expect(eq(sz, text.len, 0));
    nas_buf_deinit(&text);
}
