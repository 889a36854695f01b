/* test_shape_inference.c - output shapes, and what is refused. */
#include "ir/graph.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static nas_graph *g;

static void setup(void) {
    ctx = nas_ctx_new();
    g = nas_graph_new(ctx, "test");
}

static void teardown(void) {
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

TestSuite(ir_shape_inference, .init = setup, .fini = teardown);

Test(ir_shape_inference, conv_extents_equal_the_count_of_kernel_positions) {
    for (int32_t in = 1; in <= 9; in++) {
        for (int32_t kernel = 1; kernel <= 4; kernel++) {
            for (int32_t stride = 1; stride <= 3; stride++) {
                for (int32_t dilation = 1; dilation <= 3; dilation++) {
                    for (int32_t pad = 0; pad <= 3; pad++) {
                        int32_t positions = 0; /* oracle: slide the kernel and count */
                        for (int32_t at = 0; at + dilation * (kernel - 1) < in + pad;
                             at += stride) {
                            positions++;
                        }
                        int32_t out = -7;
                        const nas_status status =
                            nas_conv_out_extent(ctx, in, kernel, stride, dilation, pad, &out);
                        if (positions == 0) {
                            cr_assert(eq(int, (int)status, (int)NAS_ERR_SHAPE));
                            cr_assert(eq(int, out, -7), "out is written on success only");
                        } else {
                            cr_assert(eq(int, (int)status, (int)NAS_OK));
                            cr_assert(eq(int, out, positions));
                        }
                    }
                }
            }
        }
    }
}

Test(ir_shape_inference, conv_extent_refuses_what_it_cannot_compute) {
    static const struct {
        const char *row;
        int32_t in, kernel, stride, dilation, pad;
        nas_status status;
    } rows[] = {
        {"no input", 0, 1, 1, 1, 0, NAS_ERR_INVALID},
        {"no kernel", 5, 0, 1, 1, 0, NAS_ERR_INVALID},
        {"no stride", 5, 1, 0, 1, 0, NAS_ERR_INVALID},
        {"no dilation", 5, 1, 1, 0, 0, NAS_ERR_INVALID},
        {"negative pad", 5, 1, 1, 1, -1, NAS_ERR_INVALID},
        {"reach beyond int32", 5, INT32_MAX, 1, INT32_MAX, 0, NAS_ERR_SHAPE},
        {"extent beyond int32", INT32_MAX, 1, 1, 1, INT32_MAX, NAS_ERR_RANGE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        int32_t out = 0;
        const nas_status status = nas_conv_out_extent(
            ctx, rows[i].in, rows[i].kernel, rows[i].stride, rows[i].dilation, rows[i].pad, &out);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s", rows[i].row);
    }
}

Test(ir_shape_inference, same_padding_keeps_the_extent_for_odd_kernels) {
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 7, 11, 3}, &x), NAS_OK));
    static const char *const names[] = {"a", "b", "c", "d"};
    for (int32_t i = 0; i < 4; i++) {
        const nas_conv_attributes conv = nas_conv_same(5, 2 * i + 1);
        nas_value y = 0;
        cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, names[i], x, &conv, &y), NAS_OK));
        const nas_shape s = nas_graph_node(g, y)->shape;
        cr_assert(eq(int, s.h, 7));
        cr_assert(eq(int, s.w, 11));
        cr_assert(eq(int, s.c, 5));
    }
}

Test(ir_shape_inference, conv_uses_each_attribute_on_its_own_axis) {
    nas_value x = 0, y = 0;
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){2, 20, 30, 4}, &x), NAS_OK));
    const nas_conv_attributes conv = {.out_channels = 6,
                                      .kernel_h = 3,
                                      .kernel_w = 5,
                                      .stride_h = 2,
                                      .stride_w = 3,
                                      .dilation_h = 2,
                                      .dilation_w = 1,
                                      .pad_top = 1,
                                      .pad_left = 0,
                                      .pad_bottom = 2,
                                      .pad_right = 4,
                                      .groups = 2,
                                      .has_bias = false};
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "y", x, &conv, &y), NAS_OK));
    const nas_node *node = nas_graph_node(g, y);
    cr_assert(eq(int, node->shape.n, 2));
    cr_assert(eq(int, node->shape.h, (20 + 3 - 2 * 2 - 1) / 2 + 1));
    cr_assert(eq(int, node->shape.w, (30 + 4 - 4 - 1) / 3 + 1));
    cr_assert(eq(int, node->shape.c, 6));
    cr_assert(eq(int, node->params[1], -1));
    const nas_param *weight = nas_graph_param_const(g, node->params[0]);
    const int32_t dims[] = {6, 3, 5, 2};
    cr_assert(eq(int, weight->rank, 4));
    for (int i = 0; i < 4; i++)
        cr_assert(eq(int, weight->dims[i], dims[i]));
    cr_assert(eq(sz, weight->count, (size_t)(6 * 3 * 5 * 2)));
}

Test(ir_shape_inference, depth_to_space_trades_channels_for_extent) {
    nas_value x = 0, y = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 5, 7, 27}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "y", x, 3, &y), NAS_OK));
    const nas_shape s = nas_graph_node(g, y)->shape;
    cr_assert(eq(int, s.h, 15));
    cr_assert(eq(int, s.w, 21));
    cr_assert(eq(int, s.c, 3));
}

/* Each row spoils one attribute of a convolution that is legal otherwise. */
Test(ir_shape_inference, conv_refuses_each_bad_attribute_and_names_the_node) {
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 8, 8, 6}, &x), NAS_OK));
    nas_conv_attributes bad[12];
    for (size_t i = 0; i < 12; i++)
        bad[i] = nas_conv_same(6, 3);
    nas_status expected[12] = {0};
    size_t n = 0;
    bad[n].out_channels = 0, expected[n++] = NAS_ERR_INVALID;
    bad[n].kernel_h = 0, expected[n++] = NAS_ERR_INVALID;
    bad[n].kernel_w = -3, expected[n++] = NAS_ERR_INVALID;
    bad[n].stride_w = 0, expected[n++] = NAS_ERR_INVALID;
    bad[n].dilation_h = 0, expected[n++] = NAS_ERR_INVALID;
    bad[n].pad_left = -1, expected[n++] = NAS_ERR_INVALID;
    bad[n].pad_top = INT32_MAX, expected[n++] = NAS_ERR_INVALID; /* top + bottom overflows */
    bad[n].groups = 0, expected[n++] = NAS_ERR_INVALID;
    bad[n].groups = 4, expected[n++] = NAS_ERR_SHAPE;
    bad[n].groups = 2, bad[n].out_channels = 5, expected[n++] = NAS_ERR_SHAPE;
    bad[n].kernel_h = 11, expected[n++] = NAS_ERR_SHAPE;
    bad[n].out_channels = INT32_MAX, bad[n].kernel_h = bad[n].kernel_w = INT32_MAX / 2;
    bad[n].pad_top = bad[n].pad_left = INT32_MAX / 2, expected[n++] = NAS_ERR_RANGE;
    for (size_t i = 0; i < n; i++) {
        nas_value y = -5;
        const nas_status status = nas_graph_add_conv(ctx, g, "spoilt", x, &bad[i], &y);
        cr_assert(eq(int, (int)status, (int)expected[i]), "row %zu: %s", i, nas_ctx_message(ctx));
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'spoilt'"), NULL));
        cr_assert(eq(int, y, -5));
        cr_assert(eq(int, nas_graph_node_count(g), 1));
        cr_assert(eq(int, nas_graph_param_count(g), 0));
    }
}

Test(ir_shape_inference, other_operators_refuse_shapes_that_do_not_fit) {
    nas_value a = 0, b = 0, c = 0, y = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "a", (nas_shape){1, 8, 8, 6}, &a), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "b", (nas_shape){1, 8, 8, 1}, &b), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "y", b, a, &y), (int)NAS_ERR_SHAPE));
    cr_assert(
        eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "y", a, 2, &y), (int)NAS_ERR_SHAPE));
    cr_assert(
        eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "y", a, 0, &y), (int)NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "y", a, INT32_MAX, &y),
                 (int)NAS_ERR_SHAPE));
    const nas_shape tall = {1, INT32_MAX / 2 + 1, 1, 4};
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "tall", tall, &c), NAS_OK));
    cr_assert(
        eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "y", c, 2, &y), (int)NAS_ERR_RANGE));
    const nas_shape huge = {INT32_MAX, INT32_MAX, INT32_MAX, INT32_MAX};
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "y", huge, &y), (int)NAS_ERR_RANGE));
    for (int axis = 0; axis < 4; axis++) {
        nas_shape s = {axis == 0 ? 0 : 1, axis == 1 ? -4 : 1, axis == 2 ? 0 : 1,
                       axis == 3 ? INT32_MIN : 1};
        cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "y", s, &y), (int)NAS_ERR_SHAPE));
    }
    cr_assert(eq(int, nas_graph_node_count(g), 3));
}
