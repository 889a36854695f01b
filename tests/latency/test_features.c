/* test_features.c - rows of a graph against numbers worked out by hand. */
#include "latency/latency.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static long live_before;
static nas_graph
    *graph; /* input [1,4,20,3] -> 3x3 to 6 -> relu -> 1x1 to 12 -> shuffle by 2 -> [1,8,40,3] */

static nas_graph *small_graph(void) {
    nas_graph *g = nas_graph_new(ctx, "small");
    nas_value x = 0;
    const nas_conv_attributes a = nas_conv_same(6, 3), b = nas_conv_same(12, 1);
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 4, 20, 3}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "a", x, &a, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "r", x, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "b", x, &b, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "s", x, 2, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    return g;
}

static void setup(void) {
    live_before = nas_mem_live();
    ctx = nas_ctx_new();
    graph = small_graph();
}

static void teardown(void) {
    nas_graph_free(graph);
    nas_ctx_free(ctx);
    cr_expect(eq(long, nas_mem_live(), live_before));
}

TestSuite(latency_features, .init = setup, .fini = teardown);

Test(latency_features, rows_match_hand_computed_costs) {
    static const struct {
        const char *node, *family;
        int32_t h, w, c_in, c_out, kernel;
        uint64_t macs, macs_padded, bytes;
        double flops;
    } expected[] = {
        /* 4*20*6*27 MACs; padded: 20 -> 32 pixels, 6 -> 8 channels; 960 in, 1920 out, 168 weights */
        {"a", "conv3x3", 4, 20, 3, 6, 3, 12960, 27648, 960 + 1920 + 672, 25920},
        {"r", "elementwise", 4, 20, 6, 6, 1, 0, 0, 3840, 480},
        {"b", "conv1x1", 4, 20, 6, 12, 1, 5760, 9216, 1920 + 3840 + 336, 11520},
        {"s", "shuffle", 8, 40, 12, 3, 1, 0, 0, 7680, 0},
    };
    nas_layer_features rows[8];
    size_t n = 0;
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 16, rows, 8, &n), NAS_OK));
    cr_assert(eq(sz, n, (size_t)4));
    for (size_t i = 0; i < n; i++) {
        cr_expect(eq(str, (char *)rows[i].node, (char *)expected[i].node));
        cr_expect(eq(str, (char *)rows[i].family, (char *)expected[i].family));
        cr_expect(eq(int, rows[i].h, expected[i].h), "%s", expected[i].node);
        cr_expect(eq(int, rows[i].w, expected[i].w), "%s", expected[i].node);
        cr_expect(eq(int, rows[i].c_in, expected[i].c_in), "%s", expected[i].node);
        cr_expect(eq(int, rows[i].c_out, expected[i].c_out), "%s", expected[i].node);
        cr_expect(eq(int, rows[i].kernel, expected[i].kernel), "%s", expected[i].node);
        cr_expect(eq(u64, rows[i].macs, expected[i].macs), "%s", expected[i].node);
        cr_expect(eq(u64, rows[i].macs_padded, expected[i].macs_padded), "%s", expected[i].node);
        cr_expect(eq(u64, rows[i].bytes, expected[i].bytes), "%s", expected[i].node);
        const double intensity = expected[i].flops / (double)expected[i].bytes;
        cr_expect(epsilon_eq(dbl, rows[i].intensity, intensity, 1e-12), "%s", expected[i].node);
    }
}

Test(latency_features, padding_follows_the_lanes) {
    nas_layer_features row;
    size_t n = 0;
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 1, &row, 1, &n), NAS_OK));
    cr_expect(eq(u64, row.macs_padded, (uint64_t)(4 * 20 * 8 * 27)),
              "one lane pads channels alone");
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 4, &row, 1, &n), NAS_OK));
    cr_expect(eq(u64, row.macs_padded, (uint64_t)(4 * 20 * 8 * 27)), "20 is a multiple of 4");
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 8, &row, 1, &n), NAS_OK));
    cr_expect(eq(u64, row.macs_padded, (uint64_t)(4 * 24 * 8 * 27)));
}

Test(latency_features, count_is_told_when_there_is_no_room) {
    nas_layer_features rows[2] = {{0}};
    size_t n = 0;
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 16, NULL, 0, &n), NAS_OK));
    cr_expect(eq(sz, n, (size_t)4));
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, graph, 16, rows, 1, &n), NAS_OK));
    cr_expect(eq(sz, n, (size_t)4));
    cr_expect(eq(str, (char *)rows[0].node, "a"));
    cr_expect(eq(ptr, (void *)rows[1].node, NULL), "nothing is written past `max`");
}

Test(latency_features, unusual_kernels_have_a_family_of_their_own) {
    nas_graph *g = nas_graph_new(ctx, "odd");
    nas_value x = 0;
    nas_conv_attributes flat = nas_conv_same(4, 3);
    flat.kernel_w = 1;
    flat.pad_left = flat.pad_right = 0;
    const nas_conv_attributes big = nas_conv_same(4, 9);
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 16, 16, 4}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "flat", x, &flat, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "big", x, &big, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    nas_layer_features rows[2];
    size_t n = 0;
    cr_assert(eq(int, (int)nas_layer_features_of(ctx, g, 16, rows, 2, &n), NAS_OK));
    cr_expect(eq(str, (char *)rows[0].family, "conv"));
    cr_expect(eq(int, rows[0].kernel, 3));
    cr_expect(eq(str, (char *)rows[1].family, "conv9x9"));
    nas_graph_free(g);
}

Test(latency_features, impossible_lanes_are_refused) {
    static const int32_t lanes[] = {0, -16, 65};
    for (size_t i = 0; i < 3; i++) {
        size_t n = 7;
        cr_expect(eq(int, (int)nas_layer_features_of(ctx, graph, lanes[i], NULL, 0, &n),
                     (int)NAS_ERR_INVALID));
        cr_expect(eq(sz, n, (size_t)7), "no output on failure");
    }
}

Test(latency_features, padded_macs_beyond_int64_are_refused) {
    nas_graph *g = nas_graph_new(ctx, "wide");
    nas_value x = 0;
    const nas_conv_attributes conv = nas_conv_same(1, 1);
    /* one column: 64 lanes and the channel tile make 256 MACs out of each */
    cr_assert(eq(int,
                 (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1 << 26, 1 << 30, 1, 1}, &x),
                 NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "a", x, &conv, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    nas_layer_features row;
    size_t n = 0;
    cr_expect(eq(int, (int)nas_layer_features_of(ctx, g, 64, &row, 1, &n), (int)NAS_ERR_RANGE));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "'a'"), NULL), "%s", nas_ctx_message(ctx));
    nas_graph_free(g);
}
