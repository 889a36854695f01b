/* sr_decode.c - from a point of the "sr" space to its graph (WDSR-B, arXiv:1808.08718, without weight normalisation):
 *   y = depth_to_space(tail(body(head(x - 0.5))) + skip(x - 0.5)) + 0.5
 * Node names depend on the block's number alone, so that all points share params by name. */
#include "spaces/spaces_internal.h"

#include <stdio.h>
#include <string.h>

/* Appends nodes to one graph; after the first failure the rest does nothing, so that the network reads as prose. */
typedef struct builder {
    nas_ctx *ctx;
    nas_graph *graph;
    nas_status status;
} builder;

static nas_value conv(builder *b, const char *name, nas_value x, int32_t channels, int32_t kernel) {
    if (b->status != NAS_OK) return NAS_VALUE_NONE;
    const nas_conv_attributes attributes = nas_conv_same(channels, kernel);
    nas_value out = NAS_VALUE_NONE;
    b->status = nas_graph_add_conv(b->ctx, b->graph, name, x, &attributes, &out);
    return out;
}

static nas_value relu(builder *b, const char *name, nas_value x) {
    nas_value out = NAS_VALUE_NONE;
    if (b->status == NAS_OK) b->status = nas_graph_add_relu(b->ctx, b->graph, name, x, &out);
    return out;
}

static nas_value add(builder *b, const char *name, nas_value x, nas_value y) {
    nas_value out = NAS_VALUE_NONE;
    if (b->status == NAS_OK) b->status = nas_graph_add_add(b->ctx, b->graph, name, x, y, &out);
    return out;
}

static nas_value add_scalar(builder *b, const char *name, nas_value x, float scalar) {
    nas_value out = NAS_VALUE_NONE;
    if (b->status == NAS_OK)
        b->status = nas_graph_add_scalar(b->ctx, b->graph, name, x, scalar, &out);
    return out;
}

static nas_value depth_to_space(builder *b, const char *name, nas_value x, int32_t block) {
    nas_value out = NAS_VALUE_NONE;
    if (b->status == NAS_OK) {
        b->status = nas_graph_add_depth_to_space(b->ctx, b->graph, name, x, block, &out);
    }
    return out;
}

enum { BLOCK_NAME_MAX = 32 };

/* "block3.expand". By hand, because a search asks a predictor about every point it thinks of. */
static void block_name(int32_t block, const char *part, char out[BLOCK_NAME_MAX]) {
    char digits[16];
    size_t n = 0;
    for (int32_t rest = block + 1; rest > 0; rest /= 10)
        digits[n++] = (char)('0' + rest % 10);
    memcpy(out, "block", 5);
    char *next = out + 5;
    while (n > 0)
        *next++ = digits[--n];
    *next++ = '.';
    memcpy(next, part, strlen(part) + 1);
}

/* x + conv3x3(project(relu(expand(x)))); `block` counts from 0. */
static nas_value residual_block(builder *b, nas_value x, int32_t block, nas_range expand,
                                nas_range project, const nas_point *point, int32_t residual) {
    enum { PARTS = 5 };
    static const char *const parts[PARTS] = {"expand", "relu", "project", "conv", "add"};
    char names[PARTS][BLOCK_NAME_MAX];
    for (int i = 0; i < PARTS; i++)
        block_name(block, parts[i], names[i]);
    const int32_t expanded = nas__range_value(expand, point->gene[nas__sr_expand(block)]);
    const int32_t projected = nas__range_value(project, point->gene[nas__sr_project(block)]);
    nas_value y = conv(b, names[0], x, expanded, 1);
    y = relu(b, names[1], y);
    y = conv(b, names[2], y, projected, 1);
    y = conv(b, names[3], y, residual, 3);
    return add(b, names[4], x, y);
}

static void build(builder *b, const nas_sr_options *o, const nas_point *point) {
    enum { RGB = 3 };
    const int32_t *gene = point->gene;
    const int32_t residual = nas__range_value(o->residual, gene[NAS__SR_RESIDUAL]);
    const int32_t out_channels = RGB * o->scale * o->scale;
    const nas_shape shape = {.n = 1, .h = o->lr_height, .w = o->lr_width, .c = RGB};
    nas_value input = NAS_VALUE_NONE;
    b->status = nas_graph_add_input(b->ctx, b->graph, "input", shape, &input);
    const nas_value x = add_scalar(b, "shift", input, -0.5f);
    nas_value body = conv(b, "head", x, residual, o->head_kernels[gene[NAS__SR_HEAD]]);
    for (int32_t i = 0; i < o->blocks_max; i++) {
        if (gene[nas__sr_keep(i)] == 0) continue;
        body = residual_block(b, body, i, o->expand, o->project, point, residual);
    }
    const nas_value tail = conv(b, "tail", body, out_channels, o->tail_kernels[gene[NAS__SR_TAIL]]);
    const nas_value skip = conv(b, "skip", x, out_channels, o->skip_kernels[gene[NAS__SR_SKIP]]);
    const nas_value merge = add(b, "merge", tail, skip);
    const nas_value shuffle = depth_to_space(b, "shuffle", merge, o->scale);
    const nas_value y = add_scalar(b, "unshift", shuffle, 0.5f);
    if (b->status == NAS_OK) b->status = nas_graph_set_output(b->ctx, b->graph, y);
}

nas_status nas__sr_decode(nas_ctx *ctx, const nas_space *space, const nas_point *point,
                          nas_graph **out) {
    const nas__sr_space *sr = nas__sr(space);
    char name[16];
    (void)snprintf(name, sizeof name, "sr_x%d", (int)sr->options.scale);
    builder b = {.ctx = ctx, .graph = nas_graph_new(ctx, name), .status = NAS_OK};
    if (b.graph == NULL) return nas_ctx_status(ctx);
    build(&b, &sr->options, point);
    if (b.status != NAS_OK) {
        nas_graph_free(b.graph);
        return nas_wrap(ctx, b.status, "decode");
    }
    *out = b.graph;
    return NAS_OK;
}
