/* test_reference_quantized.c - the reference of integer networks against sums done by hand: scales are powers of two, so that
 * every product is exact and the only roundings are those named in the tables. Whole networks are in test_golden.c. */
#include "reference.h"
#include "reference_quantized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static nas_graph *g;

static void setup(void) {
    ctx = nas_ctx_new();
    g = nas_graph_new(ctx, "g");
    cr_assert_not_null(g);
}

static void teardown(void) {
    nas_graph_free(g);
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_reference_quantized, .init = setup, .fini = teardown);

static nas_value input(int32_t h, int32_t w, int32_t c) {
    nas_value v = NAS_VALUE_NONE;
    const nas_shape shape = {1, h, w, c};
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", shape, &v), NAS_OK));
    return v;
}

static nas_value node(const char *name, const nas_node *proto) {
    nas_value v = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, name, proto, &v), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return v;
}

static void store(nas_value v, bool is_signed, float scale, int32_t zero_point) {
    const nas_quant q = {true, is_signed, scale, zero_point};
    cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, v, q), NAS_OK));
}

static void check(nas_value out, const float *x, const float *expected, size_t count) {
    float y[16];
    cr_assert(count <= 16);
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, out), NAS_OK));
    cr_assert(eq(int, (int)reference_quantized(ctx, g, x, y), NAS_OK), "%s", nas_ctx_message(ctx));
    for (size_t i = 0; i < count; i++)
        cr_assert(y[i] == expected[i], "element %zu is %g, not %g", i, (double)y[i],
                  (double)expected[i]);
}

/* 1x3 on a row of 4 pixels, pads 1: weights 2, -1, 0.5 (codes 4, -2, 1 of 0.5), bias 0.25. Scale 0.25, zero point 3 in. */
static nas_value conv_row(bool integers) {
    const nas_value x = input(1, 4, 1);
    nas_node proto = {.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}};
    proto.conv = nas_conv_same(1, 1);
    proto.conv.kernel_w = 3;
    proto.conv.pad_left = proto.conv.pad_right = 1;
    const nas_value v = node("conv", &proto);
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    const int32_t *params = nas_graph_node(g, v)->params;
    static const float weight[] = {2, -1, 0.5F}, scale = 0.5F;
    memcpy(nas_graph_param(g, params[0])->data, weight, sizeof weight);
    nas_graph_param(g, params[1])->data[0] = 0.25F;
    if (integers)
        cr_assert(eq(int, (int)nas_graph_set_weight_scales(ctx, g, params[0], 8, &scale), NAS_OK));
    store(x, false, 0.25F, 3);
    return v;
}

/* Inputs: 1.1 is stored as 1 (code 7), -2 as -0.75 (code 0), 0.625 is a half and goes to the even code 2 + 3, 100 is 63. */
static const float row[] = {1.1F, -2, 0.625F, 100};
/* Exactly: 0.25 - 1 - 0.375, 0.25 + 2 + 0.75 + 0.25, 0.25 - 1.5 - 0.5 + 31.5, 0.25 + 1 - 63 */
static const float sums[] = {-1.125F, 3.25F, 29.75F, -61.75F};

Test(compiler_reference_quantized, convolution_pads_with_zero_and_rounds_halves_up) {
    const nas_value v = conv_row(true);
    nas_value source = NAS_VALUE_NONE;
    store(v, true, 0.5F, 10); /* codes 10 + -2.25, 6.5, 59.5, -123.5; the type ends at -128 */
    cr_assert(eq(int, (int)reference_quantized_kind(g, v, &source), (int)REFERENCE_QCONV));
    static const float expected[] = {-1, 3.5F, 30, -61.5F};
    check(v, row, expected, 4);
}

Test(compiler_reference_quantized, activation_of_a_convolution_clamps_its_codes) {
    const nas_value v = conv_row(true);
    const nas_value relu =
        node("relu", &(nas_node){.op = NAS_OP_RELU, .n_inputs = 1, .inputs = {v}});
    nas_value source = NAS_VALUE_NONE;
    store(relu, false, 0.5F, 10);
    cr_assert(eq(int, (int)reference_quantized_kind(g, relu, &source), (int)REFERENCE_QCONV));
    cr_assert(eq(int, source, v));
    static const float expected[] = {0, 3.5F, 30, 0};
    check(relu, row, expected, 4);
}

Test(compiler_reference_quantized, without_weight_scales_floats_round_halves_to_even) {
    const nas_value v = conv_row(false);
    nas_value source = NAS_VALUE_NONE;
    store(v, true, 0.5F, 10);
    cr_assert(eq(int, (int)reference_quantized_kind(g, v, &source), (int)REFERENCE_FLOAT));
    static const float expected[] = {-1, 3, 30, -62};
    check(v, row, expected, 4);
}

Test(compiler_reference_quantized, result_without_quantization_is_the_sum) {
    check(conv_row(true), row, sums, 4);
}

Test(compiler_reference_quantized, sum_and_pools_compute_in_codes) {
    const nas_value x = input(1, 4, 1);
    store(x, false, 0.25F, 3);
    const nas_pool_attributes window = {.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 1};
    const nas_value most = node(
        "most", &(nas_node){.op = NAS_OP_MAX_POOL, .n_inputs = 1, .inputs = {x}, .pool = window});
    store(most, false, 0.25F, 3);
    const nas_value mean = node(
        "mean", &(nas_node){.op = NAS_OP_AVG_POOL, .n_inputs = 1, .inputs = {x}, .pool = window});
    store(mean, true, 0.5F, -4);
    const nas_value sum =
        node("sum", &(nas_node){.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {most, mean}});
    store(sum, true, 1, 0);
    nas_value source = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)reference_quantized_kind(g, most, &source), (int)REFERENCE_QMAX_POOL));
    cr_assert(eq(int, (int)reference_quantized_kind(g, mean, &source), (int)REFERENCE_QAVG_POOL));
    cr_assert(eq(int, (int)reference_quantized_kind(g, sum, &source), (int)REFERENCE_QADD));
    /* stored 1, -0.75, 0.5, 63; most 1, 0.5, 63; mean 0.125, -0.125, 31.75 as 0, 0, 32; sums 1, 0.5, 95 */
    static const float expected[] = {1, 1, 95};
    check(sum, row, expected, 3);
}

Test(compiler_reference_quantized, sum_that_cannot_be_an_integer_is_an_error_with_the_node) {
    const nas_value x = input(1, 4, 1);
    store(x, false, 64, 0);
    const nas_value sum =
        node("sum", &(nas_node){.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {x, x}});
    store(sum, false, 1, 0);
    float y[4];
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, sum), NAS_OK));
    cr_assert(eq(int, (int)reference_quantized(ctx, g, row, y), NAS_ERR_RANGE));
    cr_assert_not_null(strstr(nas_ctx_message(ctx), "node 'sum'"));
}

/* Scales 0.5 and 0.25 in steps of 0.25: a product of codes is worth half a step. The one pixel of the mean is repeated. */
Test(compiler_reference_quantized, products_repeat_a_pixel) {
    const nas_value x = input(1, 2, 1);
    nas_node proto = {.op = NAS_OP_AVG_POOL, .n_inputs = 1, .inputs = {x}};
    proto.pool = (nas_pool_attributes){.kernel_h = 1, .kernel_w = 2, .stride_h = 1, .stride_w = 1};
    const nas_value mean = node("mean", &proto);
    proto = (nas_node){.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {x, mean}};
    const nas_value v = node("mul", &proto);
    store(x, false, 0.5F, 2);
    store(mean, true, 0.25F, 0);
    store(v, true, 0.25F, 0);
    /* codes 9 and 5 without 2: 7 and 3; their mean 2.5 is code 10; products 70*0.5 = 35 and 15 */
    static const float in[] = {3.5F, 1.5F}, out[] = {8.75F, 3.75F};
    check(v, in, out, 2);
}
