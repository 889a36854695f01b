/* test_graph_passes.c - simplified graphs compute the same, the nodes are gone, and numbers in weights decide nothing. */
#include "compiler/compiler_internal.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_graph_passes, .init = setup, .fini = teardown, .timeout = 60);

#define MUST(call) cr_assert(eq(int, (int)(call), NAS_OK), "%s: %s", #call, nas_ctx_message(ctx))

/* ---- building ---------------------------------------------------------------------------------------------------- */

static nas_graph *begin(nas_shape shape, nas_value *x) {
    nas_graph *g = nas_graph_new(ctx, "net");
    cr_assert(ne(ptr, g, NULL));
    MUST(nas_graph_add_input(ctx, g, "in", shape, x));
    return g;
}

static nas_value add(nas_graph *g, const char *name, nas_node proto, nas_value a, nas_value b) {
    nas_value v = NAS_VALUE_NONE;
    proto.inputs[0] = a;
    proto.inputs[1] = b;
    proto.n_inputs = a < 0 ? 0 : b < 0 ? 1 : 2;
    MUST(nas_graph_add_node(ctx, g, name, &proto, &v));
    return v;
}

static nas_value conv(nas_graph *g, const char *name, nas_value x, int32_t out, bool has_bias) {
    nas_conv_attributes c = nas_conv_same(out, 3);
    c.has_bias = has_bias;
    nas_value v = NAS_VALUE_NONE;
    MUST(nas_graph_add_conv(ctx, g, name, x, &c, &v));
    return v;
}

static nas_value constant(nas_graph *g, const char *name, nas_shape shape) {
    return add(g, name, (nas_node){.op = NAS_OP_CONSTANT, .shape = shape}, -1, -1);
}

static nas_value batch_norm(nas_graph *g, const char *name, nas_value x) {
    return add(g, name, (nas_node){.op = NAS_OP_BATCH_NORM, .epsilon = 1e-3F}, x, -1);
}

static nas_value relu(nas_graph *g, const char *name, nas_value x) {
    return add(g, name, (nas_node){.op = NAS_OP_RELU}, x, -1);
}

static nas_value affine(nas_graph *g, const char *name, nas_value x, float alpha, float beta) {
    const nas_node proto = {
        .op = NAS_OP_UNARY, .unary = NAS_UNARY_AFFINE, .alpha = alpha, .beta = beta};
    return add(g, name, proto, x, -1);
}

static nas_value binary(nas_graph *g, nas_op op, const char *name, nas_value a, nas_value b) {
    return add(g, name, (nas_node){.op = op}, a, b);
}

/* ---- checking ---------------------------------------------------------------------------------------------------- */

static nas_graph *optimized(const nas_graph *g) {
    nas_graph *out = NULL;
    MUST(nas__graph_optimize(ctx, g, NULL, NULL, &out));
    MUST(nas_graph_verify(ctx, out));
    return out;
}

static int32_t count(const nas_graph *g, nas_op op) {
    int32_t n = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        n += nas_graph_node(g, v)->op == op ? 1 : 0;
    return n;
}

static void check_same_result(const nas_graph *a, const nas_graph *b) {
    size_t n_in = 0;
    for (nas_value v = 0; v < nas_graph_node_count(a); v++)
        n_in += nas_graph_node(a, v)->op == NAS_OP_INPUT ? reference_count(a, v) : 0;
    const size_t n_out = reference_count(a, nas_graph_output(a));
    cr_assert(eq(sz, reference_count(b, nas_graph_output(b)), n_out));
    float *in = reference_image(ctx, n_in, 1);
    double *y = nas_alloc_array(ctx, 2 * n_out, sizeof *y), magnitude = 0, unused = 0;
    reference_forward(ctx, a, in, y, &magnitude);
    reference_forward(ctx, b, in, y + n_out, &unused);
    double worst = 0;
    for (size_t i = 0; i < n_out; i++)
        worst = fmax(worst, fabs(y[i] - y[n_out + i]));
    cr_assert(worst <= 1e-5 * magnitude, "off by %g of %g", worst, magnitude);
    nas_free(y);
    nas_free(in);
}

/* Fills `g`, optimizes it, compares the results and the structure without weights; frees g. */
static nas_graph *check(nas_graph *g, nas_value output) {
    MUST(nas_graph_set_output(ctx, g, output));
    reference_fill(ctx, g, 3);
    nas_graph *with = optimized(g);
    check_same_result(g, with);
    cr_assert(nas_graph_has_weights(with));
    nas_graph_drop_weights(g);
    nas_graph *without = optimized(g);
    char a[NAS_SHA256_HEX], b[NAS_SHA256_HEX];
    MUST(nas_graph_hash(ctx, with, false, a));
    MUST(nas_graph_hash(ctx, without, false, b));
    cr_assert(eq(str, a, b));
    cr_assert(nas_graph_param_count(without) == 0 || !nas_graph_has_weights(without));
    nas_graph_free(without);
    nas_graph_free(g);
    return with;
}

/* ---- constants --------------------------------------------------------------------------------------------------- */

Test(compiler_graph_passes, constants_are_computed) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 3, 4, 8}, &x);
    const nas_value a = constant(g, "a", (nas_shape){1, 1, 1, 8}),
                    b = constant(g, "b", (nas_shape){1, 1, 1, 8}),
                    one = constant(g, "one", (nas_shape){1, 1, 1, 1});
    nas_value k = binary(g, NAS_OP_DIV, "k0", a, one);
    k = binary(g, NAS_OP_SUB, "k1", k, b);
    k = binary(g, NAS_OP_MUL, "k2", k, a);
    k = binary(g, NAS_OP_ADD, "k3", k, one);
    k = add(g, "k4", (nas_node){.op = NAS_OP_SOFTMAX}, k, -1);
    k = add(g, "k5", (nas_node){.op = NAS_OP_LAYER_NORM, .epsilon = 1e-3F}, k, -1);
    k = add(g, "k6", (nas_node){.op = NAS_OP_PRELU}, k, -1);
    k = batch_norm(g, "k7", k);
    k = add(g, "k8", (nas_node){.op = NAS_OP_ADD_SCALAR, .scalar = 0.25F}, k, -1);
    k = relu(g, "k9", k);
    x = binary(g, NAS_OP_ADD, "sum", x, k);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 3));
    cr_expect(eq(i32, count(out, NAS_OP_CONSTANT), 1));
    cr_expect(ne(i32, nas_graph_find(out, "k9"), NAS_VALUE_NONE));
    nas_graph_free(out);
}

Test(compiler_graph_passes, constants_are_moved) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 4, 6, 3}, &x);
    const nas_value a = constant(g, "a", (nas_shape){1, 2, 3, 4}),
                    b = constant(g, "b", (nas_shape){1, 2, 3, 2});
    nas_node proto = {.op = NAS_OP_CONCAT, .axis = 3};
    nas_value k = add(g, "cat", proto, a, b);                         /* [1,2,3,6] */
    proto = (nas_node){.op = NAS_OP_TRANSPOSE, .perm = {0, 2, 3, 1}}; /* [1,3,6,2] */
    k = add(g, "transpose", proto, k, -1);
    proto = (nas_node){.op = NAS_OP_PAD, .begin = {0, 1, 0, 1}, .end = {0, 0, 0, 1}, .scalar = 2};
    k = add(g, "pad", proto, k, -1); /* [1,4,6,4] */
    proto = (nas_node){.op = NAS_OP_CHANNEL_SHUFFLE, .block = 2};
    k = add(g, "shuffle", proto, k, -1);
    proto = (nas_node){.op = NAS_OP_SLICE, .begin = {0, 0, 0, 1}, .end = {1, 4, 6, 4}};
    k = add(g, "slice", proto, k, -1); /* [1,4,6,3] */
    const nas_value c = constant(g, "c", (nas_shape){1, 2, 3, 12});
    nas_value d = add(g, "d2s", (nas_node){.op = NAS_OP_DEPTH_TO_SPACE, .block = 2}, c, -1);
    const nas_value e = constant(g, "e", (nas_shape){1, 1, 3, 3});
    d = add(g, "matmul", (nas_node){.op = NAS_OP_MATMUL, .transpose_b = true}, d, e);
    d = add(g, "flat", (nas_node){.op = NAS_OP_RESHAPE, .shape = {1, 1, 1, 72}}, d, -1);
    d = add(g, "square", (nas_node){.op = NAS_OP_RESHAPE, .shape = {1, 4, 6, 3}}, d, -1);
    x = binary(g, NAS_OP_MUL, "product", x, k);
    x = binary(g, NAS_OP_ADD, "sum", x, d);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 5));
    cr_expect(eq(i32, count(out, NAS_OP_CONSTANT), 2));
    nas_graph_free(out);
}

Test(compiler_graph_passes, every_function_of_a_constant) {
    for (int fn = 0; fn < NAS_UNARY_COUNT; fn++) {
        nas_value x = 0;
        nas_graph *g = begin((nas_shape){1, 1, 2, 9}, &x);
        nas_value k = constant(g, "k", (nas_shape){1, 1, 2, 9});
        if (fn == NAS_UNARY_SQRT)
            k = add(g, "abs", (nas_node){.op = NAS_OP_UNARY, .unary = NAS_UNARY_ABS}, k, -1);
        const nas_node proto = {.op = NAS_OP_UNARY,
                                .unary = (nas_unary)fn,
                                .alpha = fn == NAS_UNARY_CLIP ? -0.5F : 0.2F,
                                .beta = 0.5F};
        k = add(g, "fn", proto, k, -1);
        nas_graph *out = check(g, binary(g, NAS_OP_ADD, "sum", x, k));
        cr_expect(eq(i32, nas_graph_node_count(out), 3), "%s", nas_unary_name((nas_unary)fn));
        nas_graph_free(out);
    }
}

Test(compiler_graph_passes, a_constant_that_is_not_finite_is_an_error) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 1, 1, 2}, &x), *out = NULL;
    const nas_value a = constant(g, "a", (nas_shape){1, 1, 1, 2}),
                    b = constant(g, "b", (nas_shape){1, 1, 1, 2});
    x = binary(g, NAS_OP_ADD, "sum", x, binary(g, NAS_OP_DIV, "ratio", a, b));
    MUST(nas_graph_set_output(ctx, g, x));
    MUST(nas_graph_alloc_weights(ctx, g)); /* 0/0 */
    cr_assert(eq(int, (int)nas__graph_optimize(ctx, g, NULL, NULL, &out), NAS_ERR_INVALID));
    cr_expect(ne(ptr, (void *)strstr(nas_ctx_message(ctx), "'ratio'"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_graph_free(g);
}

Test(compiler_graph_passes, nodes_without_effect_go) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 4, 6, 6}, &x);
    x = relu(g, "relu", x);
    x = add(g, "add_scalar", (nas_node){.op = NAS_OP_ADD_SCALAR}, x, -1);
    x = affine(g, "affine", x, 1, 0);
    x = add(g, "transpose", (nas_node){.op = NAS_OP_TRANSPOSE, .perm = {0, 1, 2, 3}}, x, -1);
    x = add(g, "shuffle", (nas_node){.op = NAS_OP_CHANNEL_SHUFFLE, .block = 6}, x, -1);
    x = add(g, "pool",
            (nas_node){.op = NAS_OP_AVG_POOL,
                       .pool = {.kernel_h = 1, .kernel_w = 1, .stride_h = 1, .stride_w = 1}},
            x, -1);
    x = add(g, "concat", (nas_node){.op = NAS_OP_CONCAT, .axis = 2}, x, -1);
    x = add(g, "slice", (nas_node){.op = NAS_OP_SLICE, .end = {1, 4, 6, 6}}, x, -1);
    x = add(g, "pad", (nas_node){.op = NAS_OP_PAD}, x, -1);
    for (int mode = 0; mode <= NAS_RESIZE_BILINEAR_ALIGN_CORNERS; mode++) {
        char name[32];
        (void)snprintf(name, sizeof name, "resize%d", mode);
        const nas_node proto = {
            .op = NAS_OP_RESIZE, .resize = (nas_resize_mode)mode, .shape = {1, 4, 6, 6}};
        x = add(g, name, proto, x, -1);
    }
    x = add(g, "reshape", (nas_node){.op = NAS_OP_RESHAPE, .shape = {1, 4, 6, 6}}, x, -1);
    x = add(g, "d2s", (nas_node){.op = NAS_OP_DEPTH_TO_SPACE, .block = 1}, x, -1);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 2));
    nas_graph_free(out);
}

Test(compiler_graph_passes, nodes_with_effect_stay) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 4, 4, 4}, &x);
    x = add(g, "transpose", (nas_node){.op = NAS_OP_TRANSPOSE, .perm = {0, 2, 1, 3}}, x, -1);
    x = add(g, "shuffle", (nas_node){.op = NAS_OP_CHANNEL_SHUFFLE, .block = 2}, x, -1);
    x = affine(g, "affine", x, 1, 0.5F);
    x = add(g, "pool",
            (nas_node){.op = NAS_OP_MAX_POOL,
                       .pool = {.kernel_h = 3,
                                .kernel_w = 1,
                                .stride_h = 1,
                                .stride_w = 1,
                                .pad_top = 1,
                                .pad_bottom = 1}},
            x, -1);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 5));
    nas_graph_free(out);
}

Test(compiler_graph_passes, an_output_that_is_the_input_stays_computed) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 2, 2, 2}, &x);
    x = affine(g, "a", affine(g, "b", x, 1, 0), 1, 0);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 2));
    nas_graph_free(out);
}

/* ---- batch_norm -------------------------------------------------------------------------------------------------- */

Test(compiler_graph_passes, batch_norm_goes_into_the_convolution) {
    for (int bias = 0; bias < 2; bias++) {
        nas_value x = 0;
        nas_graph *g = begin((nas_shape){1, 5, 6, 3}, &x);
        x = relu(g, "relu", batch_norm(g, "norm", conv(g, "conv", x, 7, bias == 1)));
        nas_graph *out = check(g, x);
        cr_expect(eq(i32, nas_graph_node_count(out), 3));
        cr_expect(nas_graph_node(out, nas_graph_find(out, "conv"))->conv.has_bias);
        nas_graph_free(out);
    }
}

Test(compiler_graph_passes, chains_go_into_strided_grouped_and_transposed_convolutions) {
    for (int i = 0; i < 2; i++) {
        nas_value x = 0;
        nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
        nas_node proto = {.op = i == 0 ? NAS_OP_CONV : NAS_OP_CONV_TRANSPOSE,
                          .conv = nas_conv_same(8, 3)};
        proto.conv.stride_h = proto.conv.stride_w = 2;
        proto.conv.groups = i == 0 ? 4 : 1;
        proto.conv.has_bias = false;
        proto.output_pad_w = i;
        x = add(g, "conv", proto, x, -1);
        const nas_shape row = {1, 1, 1, 8}, one = {1, 1, 1, 1};
        x = batch_norm(g, "norm", x);
        x = binary(g, NAS_OP_MUL, "mul", x, constant(g, "k0", row));
        x = binary(g, NAS_OP_ADD, "add", x, constant(g, "k1", row));
        x = binary(g, NAS_OP_DIV, "div", x, constant(g, "k2", one));
        x = binary(g, NAS_OP_SUB, "sub", x, constant(g, "k3", one));
        x = affine(g, "affine", x, 0.5F, -0.25F);
        x = add(g, "neg", (nas_node){.op = NAS_OP_UNARY, .unary = NAS_UNARY_NEG}, x, -1);
        x = add(g, "shift", (nas_node){.op = NAS_OP_ADD_SCALAR, .scalar = 0.125F}, x, -1);
        nas_graph *out = check(g, x);
        cr_expect(eq(i32, nas_graph_node_count(out), 2));
        nas_graph_free(out);
    }
}

Test(compiler_graph_passes, a_factor_alone_adds_no_bias) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 3}, &x);
    x = conv(g, "conv", x, 4, false);
    x = affine(g, "half", x, 0.5F, 0);
    x = binary(g, NAS_OP_MUL, "mul", x, constant(g, "k", (nas_shape){1, 1, 1, 4}));
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 2));
    cr_expect(not(nas_graph_node(out, nas_graph_find(out, "conv"))->conv.has_bias));
    nas_graph_free(out);
}

/* Not the convolution's only reader, or no convolution, or not one number a channel. */
Test(compiler_graph_passes, what_cannot_go_into_a_convolution_stays) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
    const nas_value shared = conv(g, "shared", x, 4, true);
    x = binary(g, NAS_OP_ADD, "sum", batch_norm(g, "norm0", shared), shared);
    x = batch_norm(g, "norm1", x);
    x = conv(g, "conv", x, 4, true);
    x = binary(g, NAS_OP_MUL, "mul", x, constant(g, "k", (nas_shape){1, 5, 1, 4}));
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, count(out, NAS_OP_BATCH_NORM), 2));
    cr_expect(eq(i32, count(out, NAS_OP_MUL), 1));
    nas_graph_free(out);
}

/* The first goes in, and with it its second reader: then the convolution is read twice. */
Test(compiler_graph_passes, readers_of_a_folded_node_are_readers_of_the_convolution) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
    x = batch_norm(g, "norm", conv(g, "conv", x, 4, true));
    x = binary(g, NAS_OP_SUB, "difference", affine(g, "double", x, 2, 1), x);
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 4));
    cr_expect(ne(i32, nas_graph_find(out, "double"), NAS_VALUE_NONE));
    nas_graph_free(out);
}

Test(compiler_graph_passes, quantized_values_and_weights_are_left_alone) {
    for (int what = 0; what < 3; what++) {
        nas_value x = 0;
        nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
        const nas_value c = conv(g, "conv", x, 4, true), a = affine(g, "same", c, 1, 0),
                        n = batch_norm(g, "norm", a);
        const nas_quant quant = {.is_set = true, .scale = 0.1F, .zero_point = 128};
        const float scales[] = {0.1F, 0.2F, 0.3F, 0.4F};
        if (what == 0) MUST(nas_graph_set_quant(ctx, g, c, quant));
        if (what == 1) MUST(nas_graph_set_quant(ctx, g, n, quant));
        if (what == 2) {
            const int32_t weight = nas_graph_node(g, c)->params[0];
            MUST(nas_graph_set_weight_scales(ctx, g, weight, 8, scales));
        }
        nas_graph *out = check(g, n);
        cr_expect(eq(i32, count(out, NAS_OP_BATCH_NORM), 1), "case %d", what);
        const nas_node *kept = nas_graph_node(out, nas_graph_find(out, "conv"));
        const nas_param *weight = nas_graph_param_const(out, kept->params[0]);
        cr_expect(eq(int, kept->quant.is_set, what == 0));
        cr_expect(eq(int, weight->scales != NULL, what == 2));
        if (what == 2) cr_expect(eq(flt, weight->scales[3], 0.4F));
        nas_graph_free(out);
    }
}

/* ---- duplicates, dead -------------------------------------------------------------------------------------------- */

Test(compiler_graph_passes, equal_nodes_become_one) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
    nas_value sum = x;
    for (int i = 0; i < 2; i++) {
        char name[4][32];
        for (int k = 0; k < 4; k++)
            (void)snprintf(name[k], sizeof name[k], "n%d%d", i, k);
        nas_value y = relu(g, name[0], x);
        y = affine(g, name[1], y, 2, 1);
        y = add(g, name[2],
                (nas_node){.op = NAS_OP_MAX_POOL,
                           .pool = {.kernel_h = 2,
                                    .kernel_w = 2,
                                    .stride_h = 1,
                                    .stride_w = 1,
                                    .pad_top = 1,
                                    .pad_left = 1}},
                y, -1);
        sum = binary(g, NAS_OP_ADD, name[3], sum, y);
    }
    nas_graph *out = check(g, sum);
    cr_expect(eq(i32, nas_graph_node_count(out), 6)); /* in, relu, affine, pool, two sums */
    nas_graph_free(out);
}

Test(compiler_graph_passes, nodes_that_differ_stay_two) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
    const nas_value a = affine(g, "a", x, 2, 1), b = affine(g, "b", x, 2, 1.5F),
                    c = conv(g, "c", x, 4, true), d = conv(g, "d", x, 4, true);
    x = binary(g, NAS_OP_ADD, "s0", a, b);
    x = binary(g, NAS_OP_ADD, "s1", x, c);
    x = binary(g, NAS_OP_ADD, "s2", x, d); /* equal attributes, other weights */
    nas_graph *out = check(g, x);
    cr_expect(eq(i32, nas_graph_node_count(out), 8));
    nas_graph_free(out);
}

/* Every attribute that tells two nodes apart, on [1,4,4,4]; the operator and shape of a pair are equal. */
Test(compiler_graph_passes, every_attribute_tells_nodes_apart) {
    const nas_pool_attributes pool = {3, 3, 1, 1, 1, 1, 1, 1, false};
    nas_pool_attributes pools[] = {pool, pool, pool};
    pools[0].count_include_pad = true;
    pools[1].pad_top = 2; /* same extents, window elsewhere */
    pools[1].pad_bottom = 0;
    pools[2].kernel_w = 1;
    pools[2].pad_left = pools[2].pad_right = 0;
    const nas_node base[] = {{.op = NAS_OP_AVG_POOL, .pool = pool},
                             {.op = NAS_OP_UNARY, .unary = NAS_UNARY_AFFINE, .alpha = 2, .beta = 1},
                             {.op = NAS_OP_LRN, .size = 3, .alpha = 1, .beta = 0.5F, .epsilon = 1},
                             {.op = NAS_OP_SLICE, .begin = {0}, .end = {1, 2, 4, 4}},
                             {.op = NAS_OP_PAD, .begin = {0, 1}, .end = {0, 0, 1}, .scalar = 1},
                             {.op = NAS_OP_RESIZE, .shape = {1, 8, 8, 4}},
                             {.op = NAS_OP_TRANSPOSE, .perm = {0, 2, 1, 3}},
                             {.op = NAS_OP_ADD_SCALAR, .scalar = 1}};
    nas_node other[24];
    int first[24], n = 0;
#define OTHER(index, ...) (other[n] = base[index], first[n] = (index), __VA_ARGS__, n++)
    for (int i = 0; i < 3; i++)
        OTHER(0, other[n].pool = pools[i]);
    OTHER(1, other[n].unary = NAS_UNARY_HARD_SIGMOID);
    OTHER(1, other[n].alpha = 3);
    OTHER(1, other[n].beta = 2);
    OTHER(2, other[n].size = 1);
    OTHER(2, other[n].alpha = 2);
    OTHER(2, other[n].beta = 1);
    OTHER(2, other[n].epsilon = 2);
    OTHER(3, other[n].begin[1] = 2, other[n].end[1] = 4);
    OTHER(4, other[n].begin[1] = 0, other[n].end[1] = 1);
    OTHER(4, other[n].scalar = 2);
    OTHER(5, other[n].resize = NAS_RESIZE_BILINEAR_HALF_PIXEL);
    OTHER(6, other[n].perm[1] = 3, other[n].perm[3] = 1, other[n].perm[2] = 2);
    OTHER(7, other[n].scalar = 2);
#undef OTHER
    for (int i = 0; i < n; i++) {
        for (int same = 0; same < 2; same++) {
            nas_value x = 0;
            nas_graph *g = begin((nas_shape){1, 4, 4, 4}, &x);
            const nas_node *a = &base[first[i]], *b = same == 1 ? a : &other[i];
            const nas_value y =
                binary(g, NAS_OP_ADD, "y", add(g, "a", *a, x, -1), add(g, "b", *b, x, -1));
            const int32_t before = nas_graph_node_count(g);
            nas_graph *out = check(g, y);
            cr_expect(eq(i32, nas_graph_node_count(out), before - same), "pair %d", i);
            nas_graph_free(out);
        }
    }
}

Test(compiler_graph_passes, nodes_that_lead_nowhere_go) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x), *out = NULL;
    const nas_value y = conv(g, "conv", x, 4, true);
    (void)batch_norm(g, "unused", relu(g, "nowhere", y));
    MUST(nas_graph_set_output(ctx, g, y));
    MUST(nas__graph_optimize(ctx, g, NULL, NULL, &out));
    cr_expect(eq(i32, nas_graph_node_count(out), 2));
    nas_graph_free(out);
    nas_graph_free(g);
}

/* ---- as a whole -------------------------------------------------------------------------------------------------- */

Test(compiler_graph_passes, dumps_the_graph_after_a_pass) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x);
    MUST(nas_graph_set_output(ctx, g, batch_norm(g, "norm", conv(g, "conv", x, 4, true))));
    for (int32_t i = 0; nas__graph_pass(i) != NULL; i++) {
        nas_buf text = {0};
        nas_graph *out = NULL;
        MUST(nas__graph_optimize(ctx, g, nas__graph_pass(i), &text, &out));
        const bool before = strcmp(nas__graph_pass(i), "constants") == 0;
        cr_expect(eq(int, strstr(text.data, "batch_norm 'norm'") != NULL, before), "%s", text.data);
        nas_buf_deinit(&text);
        nas_graph_free(out);
    }
    nas_graph *out = NULL;
    cr_expect(eq(int, (int)nas__graph_optimize(ctx, g, "magic", NULL, &out), NAS_ERR_NOTFOUND));
    nas_graph_free(g);
}

Test(compiler_graph_passes, names_the_pass_when_the_result_is_no_legal_graph) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x), *out = NULL;
    MUST(nas_graph_set_output(ctx, g, conv(g, "conv", x, 4, true)));
    reference_fill(ctx, g, 1);
    nas_graph_param(g, 0)->data[0] = NAN;
    cr_expect(eq(int, (int)nas__graph_optimize(ctx, g, NULL, NULL, &out), NAS_ERR_INTERNAL));
    cr_expect(ne(ptr, (void *)strstr(nas_ctx_message(ctx), "graph pass 'constants'"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_graph_free(g);
}

Test(compiler_graph_passes, survives_every_failed_allocation) {
    nas_value x = 0;
    nas_graph *g = begin((nas_shape){1, 5, 6, 4}, &x), *out = NULL;
    const nas_value k = constant(g, "k", (nas_shape){1, 1, 1, 4});
    x = batch_norm(g, "norm", conv(g, "conv", x, 4, false));
    x = binary(g, NAS_OP_ADD, "sum", x, affine(g, "double", k, 2, 0));
    MUST(nas_graph_set_output(ctx, g, x));
    reference_fill(ctx, g, 1);
    const long live = nas_mem_live();
    for (long i = 1;; i++) {
        nas_mem_fail_after(i);
        const nas_status status = nas__graph_optimize(ctx, g, NULL, NULL, &out);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, NAS_ERR_NOMEM));
        cr_assert(eq(long, nas_mem_live(), live));
    }
    nas_graph_free(out);
    nas_graph_free(g);
}

/* Random nodes of few values, so that every pass finds work and its limits. */
static nas_value random_node(nas_graph *g, nas_rng *rng, const char *name, nas_value a,
                             nas_value b) {
    char k[32];
    (void)snprintf(k, sizeof k, "k_%s", name);
    static const nas_op ops[] = {NAS_OP_ADD, NAS_OP_SUB, NAS_OP_MUL};
    const nas_op op = ops[nas_rng_below(rng, 3)];
    const nas_shape row = {1, 1, 1, nas_rng_below(rng, 2) == 0 ? 1 : 4};
    switch (nas_rng_below(rng, 9)) {
    case 0: return conv(g, name, a, 4, nas_rng_below(rng, 2) == 0);
    case 1: return batch_norm(g, name, a);
    case 2: return relu(g, name, a);
    case 3: return affine(g, name, a, 0.5F * (float)nas_rng_below(rng, 3), 0);
    case 4: {
        const float shift = 0.5F * (float)nas_rng_below(rng, 2);
        return add(g, name, (nas_node){.op = NAS_OP_ADD_SCALAR, .scalar = shift}, a, -1);
    }
    case 5: return binary(g, op, name, a, b);
    case 6: return binary(g, op, name, a, constant(g, k, row));
    case 7: {
        const nas_shape whole = {1, 4, 5, 4};
        return binary(g, op, name, constant(g, k, whole), nas_rng_below(rng, 2) == 0 ? a : b);
    }
    default: return affine(g, name, constant(g, k, (nas_shape){1, 4, 5, 4}), 0.5F, 0.5F);
    }
}

Test(compiler_graph_passes, random_graphs_keep_their_results) {
    nas_rng rng = nas_rng_stream(11, 0, "passes");
    for (int round = 0; round < 60; round++) {
        nas_value values[24] = {0};
        nas_graph *g = begin((nas_shape){1, 4, 5, 4}, &values[0]);
        uint32_t n = 1;
        while (n < 24) {
            char name[16];
            (void)snprintf(name, sizeof name, "n%" PRIu32, n);
            const uint32_t near = n > 3 ? 3 : n; /* chains, so that folding finds producers */
            values[n] = random_node(g, &rng, name, values[n - 1 - nas_rng_below(&rng, near)],
                                    values[nas_rng_below(&rng, n)]);
            n++;
        }
        MUST(nas_graph_set_output(ctx, g, values[n - 1]));
        nas_graph *trimmed =
            optimized(g); /* with its dead nodes, which a graph with a result lacks */
        nas_graph_free(trimmed);
        nas_graph *out = check(g, values[n - 1]);
        nas_graph_free(out);
    }
}
