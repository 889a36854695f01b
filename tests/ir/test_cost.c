/* test_cost.c - MACs, parameters, bytes and the peak by liveness, against numbers worked out by hand and against a
 * second definition. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(ir_cost, .init = setup, .fini = teardown);

Test(ir_cost, conv_costs_are_the_textbook_products) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0, dense = 0, grouped = 0;
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 360, 640, 16}, &x), NAS_OK));
    nas_conv_attributes conv = nas_conv_same(32, 3);
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "dense", x, &conv, &dense), NAS_OK));
    conv.groups = 4;
    conv.has_bias = false;
    conv.stride_h = conv.stride_w = 2;
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "grouped", x, &conv, &grouped), NAS_OK));
    nas_node_cost c = nas_graph_node_cost(g, dense);
    cr_assert(eq(u64, c.macs, UINT64_C(360) * 640 * 32 * 9 * 16));
    cr_assert(eq(u64, c.params, UINT64_C(32) * 9 * 16 + 32));
    cr_assert(eq(u64, c.input_bytes, UINT64_C(360) * 640 * 16 * 4));
    cr_assert(eq(u64, c.output_bytes, UINT64_C(360) * 640 * 32 * 4));
    cr_assert(eq(u64, c.weight_bytes, c.params * 4));
    c = nas_graph_node_cost(g, grouped);
    cr_assert(eq(u64, c.macs, UINT64_C(180) * 320 * 32 * 9 * 4));
    cr_assert(eq(u64, c.params, UINT64_C(32) * 9 * 4));
    nas_graph_free(g);
}

Test(ir_cost, operators_without_multiplications_have_no_macs) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)small_sr_graph(ctx, 4, 6, &g), NAS_OK));
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node_cost c = nas_graph_node_cost(g, v);
        const nas_op op = nas_graph_node(g, v)->op;
        cr_assert(eq(int, op == NAS_OP_CONV, c.macs > 0));
        cr_assert(eq(int, op == NAS_OP_CONV, c.params > 0));
        cr_assert(eq(u64, c.output_bytes, 4 * (uint64_t)shape_count(nas_graph_node(g, v)->shape)));
    }
    const nas_node_cost sum = nas_graph_node_cost(g, nas_graph_find(g, "sum"));
    cr_assert(eq(u64, sum.input_bytes, 2 * sum.output_bytes));
    nas_graph_free(g);
}

Test(ir_cost, totals_of_the_small_network_match_the_hand_count) {
    nas_graph *g = NULL;
    nas_graph_cost total;
    cr_assert(eq(int, (int)small_sr_graph(ctx, 10, 10, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), NAS_OK));
    /* head 3x3 3->8, block.conv 3x3 8->8, tail 3x3 8->12, skip 5x5 3->12 on 100 pixels */
    const uint64_t weights = 9 * 3 * 8 + 9 * 8 * 8 + 9 * 8 * 12 + 25 * 3 * 12;
    cr_assert(eq(u64, total.macs, 100 * weights));
    cr_assert(eq(u64, total.params, weights + 8 + 8 + 12 + 12));
    /* while block.conv runs or block.add: center (3) for the skip, head (8), relu or conv (8 + 8): 27 channels;
     * at skip: center 3 + tail 12 + skip 12 = 27; at sum: 12 + 12 + 12 = 36, the largest */
    cr_assert(eq(u64, total.peak_activation_bytes, UINT64_C(36) * 100 * 4));
    nas_graph_free(g);
}

Test(ir_cost, x_plus_x_frees_x_once) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0;
    nas_graph_cost total;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 5, 5, 4}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "a", x, x, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "b", x, x, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "c", x, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), NAS_OK));
    cr_assert(eq(u64, total.peak_activation_bytes, UINT64_C(2) * 5 * 5 * 4 * 4));
    nas_graph_free(g);
}

/* Is value v needed while node i runs? The definition in graph.h, one value and one moment at a time. */
static bool alive(const nas_graph *g, nas_value v, nas_value i) {
    if (nas_graph_node(g, v)->op != NAS_OP_INPUT && v > i) return false;
    if (v == i || (v == nas_graph_output(g) && v <= i)) return true;
    for (nas_value reader = i; reader < nas_graph_node_count(g); reader++) {
        const nas_node *node = nas_graph_node(g, reader);
        for (int32_t k = 0; k < node->n_inputs; k++) {
            if (node->inputs[k] == v) return true;
        }
    }
    return false;
}

Test(ir_cost, peak_equals_the_definition_on_random_networks) {
    const uint64_t seed = test_seed(5);
    cr_log_info("seed %" PRIu64, seed);
    nas_rng rng = nas_rng_stream(seed, 0, "peak");
    for (int round = 0; round < 200; round++) {
        nas_graph *g = NULL;
        nas_graph_cost total;
        cr_assert(eq(int, (int)random_graph(ctx, &rng, 10, &g), NAS_OK));
        /* an early output stays alive to the end */
        const int32_t n = nas_graph_node_count(g);
        const nas_value output =
            round % 2 == 0 ? n - 1 : (nas_value)nas_rng_below(&rng, (uint32_t)n);
        cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, output), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), NAS_OK));
        uint64_t peak = 0;
        for (nas_value i = 0; i < n; i++) {
            uint64_t live = 0;
            for (nas_value v = 0; v < n; v++) {
                if (alive(g, v, i)) live += nas_graph_node_cost(g, v).output_bytes;
            }
            if (live > peak) peak = live;
        }
        cr_assert(eq(u64, total.peak_activation_bytes, peak), "round %d of seed %" PRIu64, round,
                  seed);
        nas_graph_free(g);
    }
}

Test(ir_cost, totals_beyond_int64_are_an_error) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0;
    nas_graph_cost total = {.macs = 1};
    nas_conv_attributes conv = nas_conv_same(1 << 15, 2);
    conv.pad_top = conv.pad_left = 0; /* 2x2 keeps the extent with pads below and right */
    cr_assert(eq(
        int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 1 << 15, 1 << 15, 1 << 15}, &x),
        NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "a", x, &conv, &x), NAS_OK)); /* 2^62 MACs */
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), NAS_OK));
    cr_assert(eq(u64, total.macs, UINT64_C(1) << 62));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "b", x, &conv, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), (int)NAS_ERR_RANGE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'test'"), NULL));
    cr_assert(eq(u64, total.macs, UINT64_C(1) << 62), "written on success only");
    conv.kernel_h = 4;
    conv.pad_bottom = 3;
    cr_assert(
        eq(int, (int)nas_graph_add_conv(ctx, g, "c", x, &conv, &x), (int)NAS_ERR_RANGE)); /* 2^63 */
    nas_graph_free(g);
}

Test(ir_cost, activation_bytes_beyond_int64_are_an_error) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0, y = 0;
    nas_graph_cost total;
    const nas_shape huge = {1 << 30, 1 << 30, 1, 1}; /* 2^62 bytes */
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", huge, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "y", x, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &total), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "z", x, x, &y),
                 (int)NAS_ERR_RANGE)); /* reads 2^63 */
    nas_graph_free(g);
}
