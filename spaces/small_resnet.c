/* small_resnet.c - the classifier that is compressed when the user brings none: a residual network of the shape of He et al.,
 * arXiv:1512.03385 (CIFAR form), without normalisation. */
#include "spaces/space.h"

#include <stdio.h>

typedef struct builder {
    nas_ctx *ctx;
    nas_graph *g;
    nas_status status;
} builder;

static nas_value add_conv(builder *b, const char *name, nas_value x, int32_t channels,
                          int32_t kernel, int32_t stride) {
    nas_conv_attributes conv = nas_conv_same(channels, kernel);
    conv.stride_h = conv.stride_w = stride;
    nas_value out = x;
    if (b->status == NAS_OK) b->status = nas_graph_add_conv(b->ctx, b->g, name, x, &conv, &out);
    return out;
}

static nas_value add_relu(builder *b, const char *name, nas_value x) {
    nas_value out = x;
    if (b->status == NAS_OK) b->status = nas_graph_add_relu(b->ctx, b->g, name, x, &out);
    return out;
}

static nas_value add_block(builder *b, int32_t number, nas_value x, int32_t channels,
                           int32_t stride) {
    char name[6][32];
    static const char *const parts[6] = {"conv1", "relu1", "conv2", "shortcut", "add", "relu2"};
    for (int i = 0; i < 6; i++)
        (void)snprintf(name[i], sizeof name[i], "block%d.%s", (int)number, parts[i]);
    nas_value y = add_relu(b, name[1], add_conv(b, name[0], x, channels, 3, stride));
    y = add_conv(b, name[2], y, channels, 3, 1);
    if (stride != 1) x = add_conv(b, name[3], x, channels, 1, stride);
    nas_value sum = y;
    if (b->status == NAS_OK) b->status = nas_graph_add_add(b->ctx, b->g, name[4], y, x, &sum);
    return add_relu(b, name[5], sum);
}

static nas_value add_global_pool(builder *b, nas_value x) {
    if (b->status != NAS_OK) return x;
    const nas_shape s = nas_graph_node(b->g, x)->shape;
    const nas_node pool = {
        .op = NAS_OP_AVG_POOL,
        .n_inputs = 1,
        .inputs = {x},
        .pool = {.kernel_h = s.h, .kernel_w = s.w, .stride_h = 1, .stride_w = 1}};
    nas_value out = x;
    b->status = nas_graph_add_node(b->ctx, b->g, "pool", &pool, &out);
    return out;
}

nas_status nas_small_resnet_graph(nas_ctx *ctx, int32_t h, int32_t w, int32_t c, int32_t classes,
                                  nas_graph **out) {
    static const struct {
        int32_t channels, stride;
    } blocks[] = {{16, 1}, {16, 1}, {32, 2}, {32, 1}, {64, 2}, {64, 1}};
    builder b = {.ctx = ctx, .g = nas_graph_new(ctx, "small_resnet")};
    if (b.g == NULL) return NAS_ERR_NOMEM;
    nas_value x = 0;
    b.status = nas_graph_add_input(ctx, b.g, "image", (nas_shape){1, h, w, c}, &x);
    x = add_relu(&b, "stem.relu", add_conv(&b, "stem", x, 16, 3, 1));
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++)
        x = add_block(&b, (int32_t)i + 1, x, blocks[i].channels, blocks[i].stride);
    x = add_conv(&b, "classes", add_global_pool(&b, x), classes, 1, 1);
    if (b.status == NAS_OK) b.status = nas_graph_set_output(ctx, b.g, x);
    if (b.status == NAS_OK) b.status = nas_graph_verify(ctx, b.g);
    if (b.status != NAS_OK) {
        nas_graph_free(b.g);
        return nas_wrap(ctx, b.status, "the built-in classifier");
    }
    *out = b.g;
    return NAS_OK;
}
