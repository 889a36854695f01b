/* fsrcnn.c - the baseline of FSRCNN shape, d=56, s=12, m=4 (Dong et al., arXiv:1608.00367). It belongs to no space:
 * its point of comparison is fixed. */
#include "spaces/space.h"

#include <stdio.h>

typedef struct layer {
    const char *name;
    int32_t channels, kernel;
} layer;

static const layer layers[] = {
    {"extract", 56, 5}, {"shrink", 12, 1}, {"map1", 12, 3},   {"map2", 12, 3},
    {"map3", 12, 3},    {"map4", 12, 3},   {"expand", 56, 1},
};

static nas_status build(nas_ctx *ctx, nas_graph *g, int32_t scale, int32_t lr_height,
                        int32_t lr_width) {
    const nas_shape shape = {.n = 1, .h = lr_height, .w = lr_width, .c = 1};
    nas_value x = NAS_VALUE_NONE;
    nas_status status = nas_graph_add_input(ctx, g, "input", shape, &x);
    for (size_t i = 0; status == NAS_OK && i < sizeof layers / sizeof layers[0]; i++) {
        const nas_conv_attributes conv = nas_conv_same(layers[i].channels, layers[i].kernel);
        char activation[32];
        (void)snprintf(activation, sizeof activation, "%s.prelu", layers[i].name);
        status = nas_graph_add_conv(ctx, g, layers[i].name, x, &conv, &x);
        if (status == NAS_OK) status = nas_graph_add_prelu(ctx, g, activation, x, &x);
    }
    /* Paper: 9x9 transposed convolution of stride `scale`. Its phases reach at most 5x5 input pixels, so a 5x5 conv with
     * one output channel a phase computes the same (for x3 and x4 with taps to spare). */
    const nas_conv_attributes upsample = nas_conv_same(scale * scale, 5);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "upsample", x, &upsample, &x);
    if (status == NAS_OK) status = nas_graph_add_depth_to_space(ctx, g, "shuffle", x, scale, &x);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    return status;
}

nas_status nas_fsrcnn_graph(nas_ctx *ctx, int32_t scale, int32_t lr_height, int32_t lr_width,
                            nas_graph **out) {
    if (scale < 2 || scale > 4) {
        return nas_fail(ctx, NAS_ERR_INVALID, "fsrcnn: scale is %" PRId32 ", limit 2..4", scale);
    }
    char name[24];
    (void)snprintf(name, sizeof name, "fsrcnn_x%d", (int)scale);
    nas_graph *g = nas_graph_new(ctx, name);
    if (g == NULL) return nas_ctx_status(ctx);
    const nas_status status = build(ctx, g, scale, lr_height, lr_width);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return nas_wrap(ctx, status, "fsrcnn");
    }
    *out = g;
    return NAS_OK;
}
