/* test_identity.c - equal networks hash equal, different ones do not, and the byte stream is the documented one. */
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

TestSuite(ir_identity, .init = setup, .fini = teardown);

static void put(nas_buf *out, const int32_t *values, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const uint32_t v = (uint32_t)values[i];
        const uint8_t bytes[] = {(uint8_t)v, (uint8_t)(v >> 8), (uint8_t)(v >> 16),
                                 (uint8_t)(v >> 24)};
        nas_buf_append(out, bytes, 4);
    }
}

static void put_text(nas_buf *out, const char *text) {
    nas_buf_append(out, text, strlen(text) + 1);
}

#define PUT(out, ...)                                                                              \
    put((out), (const int32_t[]){__VA_ARGS__},                                                     \
        sizeof((const int32_t[]){__VA_ARGS__}) / sizeof(int32_t))

Test(ir_identity, the_stream_is_the_documented_one) {
    nas_graph *g = nas_graph_new(ctx, "any");
    nas_value x = 0, y = 0;
    nas_conv_attributes conv = nas_conv_same(8, 3);
    conv.pad_right = 2;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 5, 2}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "a", x, &conv, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_prelu(ctx, g, "p", y, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_scalar(ctx, g, "s", y, -1.5f, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "d", y, 2, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
    nas_buf stream = {0};
    put_text(&stream, "nas-graph-1");
    PUT(&stream, 5);
    put_text(&stream, "input");
    PUT(&stream, 0, 1, 4, 5, 2, 0);
    put_text(&stream, "conv");
    PUT(&stream, 1, 0, 1, 4, 6, 8, 8, 3, 3, 1, 1, 1, 1, 1, 1, 1, 2, 1, 1);
    put_text(&stream, "prelu");
    PUT(&stream, 1, 1, 1, 4, 6, 8);
    put_text(&stream, "add_scalar");
    PUT(&stream, 1, 2, 1, 4, 6, 8, (int32_t)0xbfc00000); /* -1.5f */
    put_text(&stream, "depth_to_space");
    PUT(&stream, 1, 3, 1, 8, 12, 2, 2);
    PUT(&stream, 4);
    char expected[NAS_SHA256_HEX], hash[NAS_SHA256_HEX];
    nas_sha256_hex(stream.data, stream.len, expected);
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, hash), NAS_OK));
    cr_assert(eq(str, hash, expected));
    nas_buf_deinit(&stream);
    nas_graph_free(g);
}

static void put_floats(nas_buf *out, size_t n, const float *values) {
    for (size_t i = 0; i < n; i++) {
        int32_t bits = 0;
        memcpy(&bits, &values[i], sizeof bits);
        put(out, &bits, 1);
    }
}

#define PUT_FLOATS(out, ...)                                                                       \
    put_floats((out), sizeof((const float[]){__VA_ARGS__}) / sizeof(float),                        \
               (const float[]){__VA_ARGS__})

/* A chain with the attributes of most operators that have some, a quantized value and quantized weights. */
Test(ir_identity, the_stream_of_the_other_operators_is_the_documented_one) {
    const nas_node chain[] = {
        {.op = NAS_OP_CONV_TRANSPOSE,
         .conv = {2, 3, 3, 2, 2, 1, 1, 1, 1, 0, 0, 1, false},
         .output_pad_h = 1},
        {.op = NAS_OP_AVG_POOL, .pool = {3, 2, 2, 1, 1, 0, 0, 1, true}},
        {.op = NAS_OP_UNARY, .unary = NAS_UNARY_CLIP, .alpha = -1, .beta = 6},
        {.op = NAS_OP_LRN, .size = 3, .alpha = 0.5f, .beta = 0.75f, .epsilon = 2},
        {.op = NAS_OP_PAD, .begin = {0, 1, 0, 0}, .end = {0, 0, 2, 0}, .scalar = 0.25f},
        {.op = NAS_OP_TRANSPOSE, .perm = {0, 3, 1, 2}},
        {.op = NAS_OP_RESIZE, .shape = {.h = 4, .w = 3}, .resize = NAS_RESIZE_BILINEAR_HALF_PIXEL},
        {.op = NAS_OP_SOFTMAX}};
    enum { N = sizeof chain / sizeof chain[0] };
    nas_graph *g = nas_graph_new(ctx, "any");
    nas_value y = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 5, 2}, &y), NAS_OK));
    for (int32_t i = 0; i < N; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        nas_node proto = chain[i];
        proto.n_inputs = 1;
        proto.inputs[0] = y;
        cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, name, &proto, &y), NAS_OK), "%s",
                  nas_ctx_message(ctx));
    }
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
    const float scales[] = {0.5f, 0.25f};
    const nas_quant quant = {.is_set = true, .is_signed = true, .scale = 0.5f, .zero_point = -3};
    cr_assert(eq(int, (int)nas_graph_set_weight_scales(ctx, g, 0, 4, scales), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, 2, quant), NAS_OK));
    nas_buf s = {0};
    put_text(&s, "nas-graph-1");
    PUT(&s, N + 1);
    put_text(&s, "input");
    PUT(&s, 0, 1, 4, 5, 2, 0);
    for (int32_t i = 0; i < N; i++) {
        const nas_shape shape = nas_graph_node(g, i + 1)->shape;
        put_text(&s, nas_op_name(chain[i].op));
        PUT(&s, 1, i, shape.n, shape.h, shape.w, shape.c);
        if (i == 0) PUT(&s, 2, 3, 3, 2, 2, 1, 1, 1, 1, 0, 0, 1, 0, 1, 0);
        if (i == 0) put_text(&s, "bits");
        if (i == 0) PUT(&s, 0, 4);
        if (i == 1) PUT(&s, 3, 2, 2, 1, 1, 0, 0, 1, 1);
        if (i == 1) put_text(&s, "quant");
        if (i == 1) PUT(&s, 1);
        if (i == 1) PUT_FLOATS(&s, 0.5f);
        if (i == 1) PUT(&s, -3);
        if (i == 2) put_text(&s, "clip");
        if (i == 2) PUT_FLOATS(&s, -1, 6);
        if (i == 3) PUT(&s, 3);
        if (i == 3) PUT_FLOATS(&s, 0.5f, 0.75f, 2);
        if (i == 4) PUT(&s, 0, 1, 0, 0, 0, 0, 2, 0);
        if (i == 4) PUT_FLOATS(&s, 0.25f);
        if (i == 5) PUT(&s, 0, 3, 1, 2);
        if (i == 6) PUT(&s, 3);
    }
    PUT(&s, N);
    char expected[NAS_SHA256_HEX], got[NAS_SHA256_HEX];
    nas_sha256_hex(s.data, s.len, expected);
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, got), NAS_OK));
    cr_assert(eq(str, got, expected));
    nas_buf_deinit(&s);
    nas_graph_free(g);
}

/* relu(x) + prelu(x), the two branches in either order of building. */
static nas_graph *two_branches(const char *name, bool relu_first, bool swap_operands) {
    nas_graph *g = nas_graph_new(ctx, name);
    nas_value x = 0, relu = 0, prelu = 0, y = 0;
    cr_assert(eq(
        int, (int)nas_graph_add_input(ctx, g, relu_first ? "x" : "in", (nas_shape){1, 3, 3, 2}, &x),
        NAS_OK));
    if (relu_first) cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "r", x, &relu), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_prelu(ctx, g, "p", x, &prelu), NAS_OK));
    if (!relu_first) cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "q", x, &relu), NAS_OK));
    cr_assert(eq(int,
                 (int)nas_graph_add_add(ctx, g, "sum", swap_operands ? prelu : relu,
                                        swap_operands ? relu : prelu, &y),
                 NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    return g;
}

Test(ir_identity, names_and_building_order_do_not_matter_operands_do) {
    nas_graph *graphs[] = {two_branches("a", true, false), two_branches("b", false, false),
                           two_branches("c", true, true)};
    for (int weights = 0; weights < 2; weights++) {
        char hash[3][NAS_SHA256_HEX];
        for (size_t i = 0; i < 3; i++) {
            cr_assert(eq(int, (int)nas_graph_hash(ctx, graphs[i], weights == 1, hash[i]), NAS_OK));
        }
        cr_assert(eq(str, hash[0], hash[1]));
        cr_assert(ne(str, hash[0], hash[2]));
    }
    for (size_t i = 0; i < 3; i++)
        nas_graph_free(graphs[i]);
}

static void hash_of_conv(nas_conv_attributes conv, char out[NAS_SHA256_HEX]) {
    nas_graph *g = nas_graph_new(ctx, "conv");
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 9, 9, 4}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "y", x, &conv, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, out), NAS_OK));
    nas_graph_free(g);
}

Test(ir_identity, every_conv_attribute_matters) {
    enum { VARIANTS = 14 };
    nas_conv_attributes conv[VARIANTS];
    for (size_t i = 0; i < VARIANTS; i++)
        conv[i] = nas_conv_same(4, 3);
    conv[1].out_channels = 8;
    conv[2].kernel_h = 5;
    conv[3].kernel_w = 5;
    conv[4].stride_h = 2;
    conv[5].stride_w = 2;
    conv[6].dilation_h = 2;
    conv[7].dilation_w = 2;
    conv[8].pad_top = 2;
    conv[9].pad_left = 2;
    conv[10].pad_bottom = 2;
    conv[11].pad_right = 2;
    conv[12].groups = 2;
    conv[13].has_bias = false;
    char hash[VARIANTS][NAS_SHA256_HEX];
    for (size_t i = 0; i < VARIANTS; i++) {
        hash_of_conv(conv[i], hash[i]);
        for (size_t k = 0; k < i; k++)
            cr_assert(ne(str, hash[i], hash[k]), "variants %zu and %zu", i, k);
    }
}

Test(ir_identity, sharing_a_node_differs_from_computing_it_twice) {
    char hash[2][NAS_SHA256_HEX];
    for (int twice = 0; twice < 2; twice++) {
        nas_graph *g = nas_graph_new(ctx, "share");
        nas_value x = 0, a = 0, b = 0;
        cr_assert(
            eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 3, 3, 2}, &x), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "a", x, &a), NAS_OK));
        b = a;
        if (twice == 1) cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "b", x, &b), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "y", a, b, &a), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, a), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, hash[twice]), NAS_OK));
        nas_graph_free(g);
    }
    cr_assert(ne(str, hash[0], hash[1]));
}

Test(ir_identity, input_size_output_and_each_weight_matter) {
    nas_graph *g = NULL;
    char base[NAS_SHA256_HEX], other[NAS_SHA256_HEX], structure[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)small_sr_graph(ctx, 4, 4, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, base),
                 (int)NAS_ERR_INVALID)); /* no weights yet */
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, structure), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, base), NAS_OK));
    cr_assert(ne(str, base, structure));
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        const size_t last = param->count - 1;
        param->data[last] = 1e-30f;
        cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, other), NAS_OK));
        cr_assert(ne(str, base, other), "'%s'", param->name);
        cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, other), NAS_OK));
        cr_assert(eq(str, structure, other));
        param->data[last] = 0.0f;
    }
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, 4, 5), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, other), NAS_OK));
    cr_assert(ne(str, structure, other));
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, 4, 4), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, 9), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, other), NAS_OK));
    cr_assert(ne(str, structure, other));
    nas_graph_free(g);
    nas_graph *unset = nas_graph_new(ctx, "unset");
    memcpy(other, "untouched", sizeof "untouched");
    cr_assert(eq(int, (int)nas_graph_hash(ctx, unset, false, other), (int)NAS_ERR_INVALID));
    cr_assert(eq(str, other, "untouched"));
    nas_graph_free(unset);
}
