/* layer_nets.c - see layer_nets.h. */
#include "layer_nets.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

nas_ctx *ctx;
const double tolerance = 2e-4;
char dir[64];
nas_compile_options options;

void layer_nets_setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-layers-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    options.max_threads = 3;
    options.form = NAS_FORM_LAYERS;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

void layer_nets_teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

/* ---- building ------------------------------------------------------------------------------------------------------ */

nas_graph *g;
static int32_t serial;

nas_value add(nas_node proto) {
    char name[32];
    (void)snprintf(name, sizeof name, "n%d", serial++);
    nas_value v = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, name, &proto, &v), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return v;
}

nas_value input(int32_t h, int32_t w, int32_t c) {
    nas_value v = NAS_VALUE_NONE;
    serial = 0;
    g = nas_graph_new(ctx, "net");
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, h, w, c}, &v), NAS_OK));
    return v;
}

nas_value conv(nas_value x, int32_t out, int32_t kernel, int32_t stride, int32_t groups) {
    nas_conv_attributes a = nas_conv_same(out, kernel);
    a.stride_h = a.stride_w = stride;
    a.groups = groups;
    return add((nas_node){.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}, .conv = a});
}

nas_value relu(nas_value x) {
    return add((nas_node){.op = NAS_OP_RELU, .n_inputs = 1, .inputs = {x}});
}

nas_value unary(nas_value x, nas_unary fn, float alpha, float beta) {
    return add((nas_node){.op = NAS_OP_UNARY,
                          .n_inputs = 1,
                          .inputs = {x},
                          .unary = fn,
                          .alpha = alpha,
                          .beta = beta});
}

nas_value sum(nas_value a, nas_value b) {
    return add((nas_node){.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {a, b}});
}

nas_value pool(nas_op op, nas_value x, int32_t kernel, int32_t stride, int32_t pad) {
    return add((nas_node){.op = op,
                          .n_inputs = 1,
                          .inputs = {x},
                          .pool = {.kernel_h = kernel,
                                   .kernel_w = kernel,
                                   .stride_h = stride,
                                   .stride_w = stride,
                                   .pad_top = pad,
                                   .pad_left = pad,
                                   .pad_bottom = pad,
                                   .pad_right = pad}});
}

nas_value global_pool(nas_value x) {
    const nas_shape s = nas_graph_node(g, x)->shape;
    return add(
        (nas_node){.op = NAS_OP_AVG_POOL,
                   .n_inputs = 1,
                   .inputs = {x},
                   .pool = {.kernel_h = s.h, .kernel_w = s.w, .stride_h = 1, .stride_w = 1}});
}

nas_value concat(int32_t n, const nas_value *members) {
    nas_node proto = {.op = NAS_OP_CONCAT, .n_inputs = n, .axis = 3};
    for (int32_t i = 0; i < n; i++)
        proto.inputs[i] = members[i];
    return add(proto);
}

nas_value dense(nas_value x, int32_t out) {
    const nas_shape s = nas_graph_node(g, x)->shape;
    const nas_conv_attributes a = {.out_channels = out,
                                   .kernel_h = s.h,
                                   .kernel_w = s.w,
                                   .stride_h = 1,
                                   .stride_w = 1,
                                   .dilation_h = 1,
                                   .dilation_w = 1,
                                   .groups = 1,
                                   .has_bias = true};
    return add((nas_node){.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}, .conv = a});
}

void finish(nas_value v) {
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, v), NAS_OK));
    reference_fill(ctx, g, 7);
}

/* ---- networks ------------------------------------------------------------------------------------------------------ */

void resnet(void) {
    nas_value x = relu(conv(input(21, 18, 3), 16, 7, 2, 1));
    x = pool(NAS_OP_MAX_POOL, x, 3, 2, 1);
    x = relu(sum(conv(relu(conv(x, 16, 3, 1, 1)), 16, 3, 1, 1), x));
    const nas_value shortcut = conv(x, 24, 1, 2, 1);
    x = relu(sum(conv(relu(conv(x, 24, 3, 2, 1)), 24, 3, 1, 1), shortcut));
    finish(dense(global_pool(x), 10));
}

void mobilenet(void) {
    nas_value x = unary(conv(input(20, 23, 3), 12, 3, 2, 1), NAS_UNARY_CLIP, 0, 6);
    for (int32_t i = 0; i < 2; i++) {
        nas_value y = unary(conv(x, 30, 1, 1, 1), NAS_UNARY_CLIP, 0, 6);
        y = unary(conv(y, 30, 3, 1, 30), NAS_UNARY_HARD_SWISH, 0, 0);
        y = conv(y, 12, 1, 1, 1);
        x = sum(y, x);
    }
    x = unary(conv(x, 12, 5, 2, 12), NAS_UNARY_LEAKY_RELU, 0.1F, 0);
    finish(dense(x, 7));
}

nas__layers *lowered(void) {
    nas__layers *l = NULL;
    cr_assert(eq(int, (int)nas__layers_lower(ctx, g, &options, &l), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return l;
}
