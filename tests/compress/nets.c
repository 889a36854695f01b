#include "tests/compress/nets.h"
#include "tests/compiler/reference.h"

#include <criterion/criterion.h>

#include <string.h>

nas_ctx *ctx;

void nets_setup(void) {
    ctx = nas_ctx_new();
    cr_assert(ctx != NULL);
}

void nets_teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(nas_mem_live() == 0, "%ld blocks leaked", nas_mem_live());
}

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

static nas_value conv(nas_graph *g, const char *name, nas_value x, int32_t channels, int32_t kernel,
                      int32_t stride, int32_t groups) {
    nas_conv_attributes c = nas_conv_same(channels, kernel);
    c.stride_h = c.stride_w = stride;
    c.groups = groups;
    nas_value out = 0;
    OK(nas_graph_add_conv(ctx, g, name, x, &c, &out));
    return out;
}

static nas_value relu(nas_graph *g, const char *name, nas_value x) {
    nas_value out = 0;
    OK(nas_graph_add_relu(ctx, g, name, x, &out));
    return out;
}

static nas_value node(nas_graph *g, const char *name, nas_node proto, nas_value a, nas_value b) {
    nas_value out = 0;
    proto.n_inputs = b == NAS_VALUE_NONE ? 1 : 2;
    proto.inputs[0] = a;
    proto.inputs[1] = b == NAS_VALUE_NONE ? 0 : b;
    OK(nas_graph_add_node(ctx, g, name, &proto, &out));
    return out;
}

static nas_value unary(nas_graph *g, const char *name, nas_value x, nas_unary fn, float a,
                       float b) {
    return node(g, name, (nas_node){.op = NAS_OP_UNARY, .unary = fn, .alpha = a, .beta = b}, x,
                NAS_VALUE_NONE);
}

static nas_value pool(nas_graph *g, const char *name, nas_value x, nas_op op, int32_t kernel,
                      int32_t stride, int32_t pad) {
    const nas_pool_attributes p = {.kernel_h = kernel,
                                   .kernel_w = kernel,
                                   .stride_h = stride,
                                   .stride_w = stride,
                                   .pad_top = pad,
                                   .pad_left = pad,
                                   .pad_bottom = pad,
                                   .pad_right = pad};
    return node(g, name, (nas_node){.op = op, .pool = p}, x, NAS_VALUE_NONE);
}

static void finish(nas_graph *g, nas_value x) {
    const int32_t side = nas_graph_node(g, x)->shape.h;
    x = pool(g, "mean", x, NAS_OP_AVG_POOL, side, 1, 0);
    OK(nas_graph_set_output(ctx, g, conv(g, "classes", x, NET_CLASSES, 1, 1, 1)));
}

static void residual(nas_graph *g, nas_value x) {
    x = relu(g, "r0", conv(g, "stem", x, 8, 3, 1, 1));
    nas_value y = conv(g, "a2", relu(g, "ar", conv(g, "a1", x, 12, 3, 1, 1)), 8, 3, 1, 1);
    x = relu(g, "asum", node(g, "aadd", (nas_node){.op = NAS_OP_ADD}, y, x));
    /* every second pixel, and zeros as the new channels: the shortcut without weights */
    nas_value s = pool(g, "skip", x, NAS_OP_MAX_POOL, 1, 2, 0);
    s = node(g, "wide", (nas_node){.op = NAS_OP_PAD, .begin = {0, 0, 0, 4}, .end = {0, 0, 0, 4}}, s,
             NAS_VALUE_NONE);
    y = conv(g, "b2", relu(g, "br", conv(g, "b1", x, 10, 3, 2, 1)), 16, 3, 1, 1);
    x = relu(g, "bsum", node(g, "badd", (nas_node){.op = NAS_OP_ADD}, y, s));
    y = conv(g, "c2", relu(g, "cr", conv(g, "c1", x, 9, 3, 2, 1)), 20, 3, 1, 1);
    s = conv(g, "cs", x, 20, 1, 2, 1);
    finish(g, relu(g, "csum", node(g, "cadd", (nas_node){.op = NAS_OP_ADD}, y, s)));
}

static void branches(nas_graph *g, nas_value x) {
    const nas_value a = relu(g, "ar", conv(g, "a", x, 6, 3, 1, 1));
    const nas_value b = conv(g, "b", x, 10, 5, 1, 1);
    nas_value y = node(g, "join", (nas_node){.op = NAS_OP_CONCAT, .axis = 3}, a, b);
    y = node(g, "norm", (nas_node){.op = NAS_OP_BATCH_NORM, .epsilon = 1e-5F}, y, NAS_VALUE_NONE);
    y = pool(g, "half", relu(g, "nr", y), NAS_OP_MAX_POOL, 3, 2, 1);
    const nas_value c = conv(g, "c", y, 7, 3, 1, 1);
    y = node(g, "again", (nas_node){.op = NAS_OP_CONCAT, .axis = 3}, y, c); /* dense connection */
    finish(g, unary(g, "leaky", conv(g, "d", y, 12, 1, 1, 1), NAS_UNARY_LEAKY_RELU, 0.1F, 0));
}

static void depthwise(nas_graph *g, nas_value x) {
    x = unary(g, "s6", conv(g, "stem", x, 8, 3, 2, 1), NAS_UNARY_CLIP, 0, 6);
    nas_value y = unary(g, "e6", conv(g, "expand", x, 18, 1, 1, 1), NAS_UNARY_CLIP, 0, 6);
    y = unary(g, "d6", conv(g, "deep", y, 18, 3, 1, 18), NAS_UNARY_HARD_SWISH, 0, 0);
    nas_value gate = conv(g, "squeeze", pool(g, "see", y, NAS_OP_AVG_POOL, 6, 1, 0), 5, 1, 1, 1);
    gate = unary(g, "gate", conv(g, "excite", relu(g, "sr", gate), 18, 1, 1, 1),
                 NAS_UNARY_HARD_SIGMOID, 0.2F, 0.5F);
    y = node(g, "gated", (nas_node){.op = NAS_OP_MUL}, y, gate);
    finish(g, node(g, "add", (nas_node){.op = NAS_OP_ADD}, conv(g, "project", y, 8, 1, 1, 1), x));
}

static void grouped(nas_graph *g, nas_value x) {
    x = relu(g, "sr", conv(g, "stem", x, 12, 3, 1, 1));
    nas_value y = relu(g, "gr", conv(g, "g1", x, 18, 3, 2, 3));
    y = node(g, "mix", (nas_node){.op = NAS_OP_CHANNEL_SHUFFLE, .block = 3}, y, NAS_VALUE_NONE);
    y = conv(g, "after", y, 14, 1, 1, 1);
    const nas_value cut =
        node(g, "cut", (nas_node){.op = NAS_OP_SLICE, .begin = {0, 0, 0, 2}, .end = {1, 6, 6, 12}},
             y, NAS_VALUE_NONE);
    finish(g, unary(g, "sw", pool(g, "p", cut, NAS_OP_AVG_POOL, 2, 2, 0), NAS_UNARY_SWISH, 0, 0));
}

nas_graph *nets_new(int number) {
    static void (*const build[NETS])(nas_graph *, nas_value) = {residual, branches, depthwise,
                                                                grouped};
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0;
    cr_assert(g != NULL);
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, NET_SIDE, NET_SIDE, 3}, &x));
    build[number](g, x);
    reference_fill(ctx, g, (uint64_t)number + 1);
    OK(nas_graph_verify(ctx, g));
    return g;
}

float *nets_image(uint64_t seed) {
    return reference_image(ctx, (size_t)3 * NET_SIDE * NET_SIDE, seed);
}

float *nets_noise(size_t n) {
    float *all = nas_alloc_array(ctx, n * NET_FLOATS, sizeof *all);
    for (size_t k = 0; k < n; k++) {
        float *one = nets_image(k + 7);
        memcpy(all + k * NET_FLOATS, one, NET_FLOATS * sizeof *one);
        nas_free(one);
    }
    return all;
}

void nets_read_noise(void *arg, size_t index, float *hwc) {
    const float *images = arg;
    for (size_t i = 0; i < NET_FLOATS; i++)
        hwc[i] = images[index * NET_FLOATS + i % 3 * NET_PLANE + i / 3];
}

void nets_output(const nas_graph *g, const float *image, double *out) {
    double magnitude = 0;
    reference_forward(ctx, g, image, out, &magnitude);
}
