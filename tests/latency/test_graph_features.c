/* test_graph_features.c - networks as rows of numbers. */
#include "latency/graph_features.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static long blocks_before;

static void setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}
TestSuite(latency_graph_features, .init = setup, .fini = teardown);

/* 16x16x4 -> 3x3 conv to 8 -> relu -> (1x1 conv to 8) + itself -> 2x2 pool -> 1x1 conv to 3. */
static nas_graph *small_net(void) {
    nas_graph *g = nas_graph_new(ctx, "small");
    nas_value x = 0, y = 0;
    nas_conv_attributes c3 = nas_conv_same(8, 3), c1 = nas_conv_same(8, 1),
                        last = nas_conv_same(3, 1);
    nas_status status = nas_graph_add_input(ctx, g, "in", (nas_shape){1, 16, 16, 4}, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "a", x, &c3, &x);
    if (status == NAS_OK) status = nas_graph_add_relu(ctx, g, "r", x, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "b", x, &c1, &y);
    if (status == NAS_OK) status = nas_graph_add_add(ctx, g, "s", x, y, &x);
    const nas_node pool = {.op = NAS_OP_AVG_POOL,
                           .n_inputs = 1,
                           .inputs = {x},
                           .pool = {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2}};
    if (status == NAS_OK) status = nas_graph_add_node(ctx, g, "p", &pool, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "c", x, &last, &x);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return g;
}

static double feature(const double *x, const char *name) {
    size_t n = 0;
    const nas_feature *list = nas_graph_features_list(&n);
    for (size_t i = 0; i < n; i++) {
        if (strcmp(list[i].name, name) == 0) return x[i];
    }
    cr_assert(false, "no feature '%s'", name);
    return 0;
}

Test(latency_graph_features, work_is_counted_by_kind_path_and_image_size) {
    nas_graph *g = small_net();
    size_t n = 0;
    (void)nas_graph_features_list(&n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    cr_assert(eq(int, (int)nas_graph_features_of(ctx, g, 8, x), NAS_OK));
    const struct {
        const char *name;
        double value;
    } rows[] = {
        {"layers.conv3x3", 1},
        {"layers.conv1x1", 2},
        {"layers.pool", 1},
        {"layers.add", 1},
        {"layers.activation", 1},
        {"macs.conv3x3", 256 * 9 * 4 * 8 * 1e-6},
        {"macs.conv1x1", (256 * 8 * 8 + 64 * 8 * 3) * 1e-6},
        {"elements.pool", 64 * 8 * 1e-3},
        {"path.layers", 6},
        {"path.convs", 3},
        {"macs.level0", (256 * 9 * 4 * 8 + 256 * 8 * 8) * 1e-6},
        {"macs.level1", 64 * 8 * 3 * 1e-6},
        {"layers.level1", 2},
        {"shared.reads", 2}, /* the ReLU is read by the convolution and the sum */
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_assert(epsilon_eq(dbl, feature(x, rows[i].name), rows[i].value, 1e-12), "%s: %g, not %g",
                  rows[i].name, feature(x, rows[i].name), rows[i].value);
    nas_graph_cost cost;
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
    cr_assert(epsilon_eq(dbl, feature(x, "bytes.peak"), (double)cost.peak_activation_bytes * 1e-6,
                         1e-12));
    nas_free(x);
    nas_graph_free(g);
}

Test(latency_graph_features, padding_shows_only_where_lanes_stay_empty) {
    nas_graph *g = small_net();
    size_t n = 0;
    (void)nas_graph_features_list(&n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    cr_assert(eq(int, (int)nas_graph_features_of(ctx, g, 8, x), NAS_OK));
    cr_assert(epsilon_eq(dbl, feature(x, "padded.conv3x3"), feature(x, "macs.conv3x3"), 1e-12));
    /* the last layer has 3 channels: 4 with rows of 8 in the lanes */
    cr_assert(
        epsilon_eq(dbl, feature(x, "padded.conv1x1"), (256 * 8 * 8 + 64 * 8 * 4) * 1e-6, 1e-12));
    cr_assert(eq(int, (int)nas_graph_features_of(ctx, g, 0, x), (int)NAS_ERR_INVALID));
    nas_mem_fail_after(1);
    cr_assert(eq(int, (int)nas_graph_features_of(ctx, g, 8, x), (int)NAS_ERR_NOMEM));
    nas_mem_fail_after(0);
    nas_free(x);
    nas_graph_free(g);
}
