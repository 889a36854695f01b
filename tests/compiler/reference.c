/* reference.c - see reference.h. Written from the definitions in ir/graph.h, sharing no code with the compiler. */
#include "reference.h"

#include <criterion/criterion.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Builders in tests cannot fail except by a mistake in the test. */
#define MUST(call) cr_assert_eq((int)(call), NAS_OK, "%s: %s", #call, nas_ctx_message(ctx))

static nas_value conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, int32_t out,
                      int32_t kernel) {
    const nas_conv_attributes c = nas_conv_same(out, kernel);
    nas_value v = NAS_VALUE_NONE;
    MUST(nas_graph_add_conv(ctx, g, name, x, &c, &v));
    return v;
}

static nas_graph *begin(nas_ctx *ctx, const char *name, int32_t h, int32_t w, int32_t c,
                        nas_value *x) {
    nas_graph *g = nas_graph_new(ctx, name);
    cr_assert_not_null(g);
    MUST(nas_graph_add_input(ctx, g, "input", (nas_shape){1, h, w, c}, x));
    return g;
}

static nas_value block(nas_ctx *ctx, nas_graph *g, const sr_shape *s, int32_t index, nas_value x) {
    char name[5][32];
    static const char *const parts[] = {"expand", "relu", "project", "conv", "add"};
    for (int i = 0; i < 5; i++)
        (void)snprintf(name[i], sizeof name[i], "block%d.%s", index, parts[i]);
    nas_value v = conv(ctx, g, name[0], x, s->expand, 1);
    MUST(nas_graph_add_relu(ctx, g, name[1], v, &v));
    v = conv(ctx, g, name[2], v, s->project, 1);
    v = conv(ctx, g, name[3], v, s->residual, 3);
    MUST(nas_graph_add_add(ctx, g, name[4], v, x, &v));
    return v;
}

nas_graph *reference_sr(nas_ctx *ctx, const sr_shape *s) {
    nas_value x = 0, skip = 0, y = 0;
    nas_graph *g = begin(ctx, "sr", s->height, s->width, 3, &x);
    MUST(nas_graph_add_scalar(ctx, g, "shift", x, -0.5F, &x));
    y = conv(ctx, g, "head", x, s->residual, s->head_kernel);
    for (int32_t i = 0; i < s->blocks; i++)
        y = block(ctx, g, s, i + 1, y);
    y = conv(ctx, g, "tail", y, 3 * s->scale * s->scale, s->tail_kernel);
    skip = conv(ctx, g, "skip", x, 3 * s->scale * s->scale, s->skip_kernel);
    MUST(nas_graph_add_add(ctx, g, "sum", y, skip, &y));
    MUST(nas_graph_add_depth_to_space(ctx, g, "shuffle", y, s->scale, &y));
    MUST(nas_graph_add_scalar(ctx, g, "unshift", y, 0.5F, &y));
    MUST(nas_graph_set_output(ctx, g, y));
    return g;
}

nas_graph *reference_fsrcnn(nas_ctx *ctx, int32_t height, int32_t width, int32_t scale,
                            int32_t wide, int32_t narrow, int32_t middle) {
    nas_value x = 0;
    nas_graph *g = begin(ctx, "fsrcnn", height, width, 1, &x);
    const int32_t layers = middle + 3;
    for (int32_t i = 0; i < layers; i++) {
        const bool ends = i == 0 || i == layers - 1, shrinks = i == 1;
        char name[32], act[32];
        (void)snprintf(name, sizeof name, "conv%d", i);
        (void)snprintf(act, sizeof act, "act%d", i);
        x = conv(ctx, g, name, x, ends ? wide : narrow, i == 0 ? 5 : ends || shrinks ? 1 : 3);
        MUST(nas_graph_add_prelu(ctx, g, act, x, &x));
    }
    x = conv(ctx, g, "deconv", x, scale * scale, 5);
    MUST(nas_graph_add_depth_to_space(ctx, g, "shuffle", x, scale, &x));
    MUST(nas_graph_set_output(ctx, g, x));
    return g;
}

static nas_value conv_rect(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, int32_t out,
                           int32_t kernel_h, int32_t kernel_w) {
    nas_conv_attributes c = nas_conv_same(out, 1);
    c.kernel_h = kernel_h;
    c.kernel_w = kernel_w;
    c.pad_top = c.pad_bottom = kernel_h / 2;
    c.pad_left = c.pad_right = kernel_w / 2;
    nas_value v = NAS_VALUE_NONE;
    MUST(nas_graph_add_conv(ctx, g, name, x, &c, &v));
    return v;
}

nas_graph *reference_conv(nas_ctx *ctx, int32_t height, int32_t width, int32_t in, int32_t out,
                          int32_t kernel_h, int32_t kernel_w, bool relu) {
    nas_value x = 0;
    nas_graph *g = begin(ctx, "layer", height, width, in, &x);
    x = conv_rect(ctx, g, "conv", x, out, kernel_h, kernel_w);
    if (relu) MUST(nas_graph_add_relu(ctx, g, "relu", x, &x));
    MUST(nas_graph_set_output(ctx, g, x));
    return g;
}

nas_graph *reference_chain(nas_ctx *ctx, int32_t height, int32_t width) {
    static const struct {
        int32_t out, kernel_h, kernel_w, act;
    } rows[] = {{1, 9, 9, 0}, {64, 1, 3, 1}, {5, 3, 1, 2}, {37, 1, 1, 2}, {11, 1, 1, 0},
                {2, 7, 5, 1}, {13, 1, 9, 0}, {3, 5, 7, 2}, {25, 1, 1, 1}, {7, 3, 3, 0}};
    nas_value x = 0;
    nas_graph *g = begin(ctx, "chain", height, width, 5, &x);
    for (int i = 0; i < (int)(sizeof rows / sizeof rows[0]); i++) {
        char name[32], act[32];
        (void)snprintf(name, sizeof name, "conv%d", i);
        (void)snprintf(act, sizeof act, "act%d", i);
        x = conv_rect(ctx, g, name, x, rows[i].out, rows[i].kernel_h, rows[i].kernel_w);
        if (rows[i].act == 1) MUST(nas_graph_add_relu(ctx, g, act, x, &x));
        if (rows[i].act == 2) MUST(nas_graph_add_prelu(ctx, g, act, x, &x));
    }
    MUST(nas_graph_set_output(ctx, g, x));
    return g;
}

/* Values of equal shape to build on, and whether a node reads them already. */
typedef struct pool {
    nas_value value[16];
    bool used[16];
    uint32_t n;
} pool;

static nas_value take(pool *p, uint32_t index) {
    p->used[index] = true;
    return p->value[index];
}

/* One random node on top of the pool joins it. */
static void tangle_node(nas_ctx *ctx, nas_graph *g, nas_rng *rng, pool *p, int32_t channels,
                        const char *name) {
    const nas_value a = take(p, nas_rng_below(rng, p->n));
    nas_value v = 0;
    switch (nas_rng_below(rng, 6)) {
    case 0: MUST(nas_graph_add_relu(ctx, g, name, a, &v)); break;
    case 1: MUST(nas_graph_add_prelu(ctx, g, name, a, &v)); break;
    case 2: MUST(nas_graph_add_add(ctx, g, name, a, take(p, nas_rng_below(rng, p->n)), &v)); break;
    case 3: MUST(nas_graph_add_scalar(ctx, g, name, a, 0.25F, &v)); break;
    default: v = conv(ctx, g, name, a, channels, 1 + 2 * (int32_t)nas_rng_below(rng, 3)); break;
    }
    p->value[p->n++] = v;
}

/* The sum of everything that nobody reads yet: a graph must lead to its output whole. */
static nas_value tangle_sum(nas_ctx *ctx, nas_graph *g, pool *p, const char *prefix) {
    nas_value sum = take(p, p->n - 1);
    for (uint32_t i = 0; i < p->n; i++) {
        if (p->used[i]) continue;
        char name[32];
        (void)snprintf(name, sizeof name, "%s%u", prefix, i);
        MUST(nas_graph_add_add(ctx, g, name, sum, take(p, i), &sum));
    }
    return sum;
}

nas_graph *reference_tangle(nas_ctx *ctx, int32_t height, int32_t width, uint64_t seed) {
    nas_rng rng = nas_rng_stream(seed, 0, "tangle");
    nas_value x = 0;
    const int32_t channels = 1 + (int32_t)nas_rng_below(&rng, 7),
                  block = 2 + (int32_t)nas_rng_below(&rng, 2);
    nas_graph *g = begin(ctx, "tangle", height, width, channels, &x);
    pool low = {.value = {x}, .n = 1}, high = {.n = 2};
    char name[32];
    while (low.n < 9) {
        (void)snprintf(name, sizeof name, "low%u", low.n);
        tangle_node(ctx, g, &rng, &low, channels, name);
    }
    x = tangle_sum(ctx, g, &low, "low_sum");
    for (int i = 0; i < 2; i++) {
        (void)snprintf(name, sizeof name, "widen%d", i);
        const nas_value wide = conv(ctx, g, name, x, 2 * block * block, 1 + 2 * i);
        (void)snprintf(name, sizeof name, "shuffle%d", i);
        MUST(nas_graph_add_depth_to_space(ctx, g, name, wide, block, &high.value[i]));
    }
    while (high.n < 8) {
        (void)snprintf(name, sizeof name, "high%u", high.n);
        tangle_node(ctx, g, &rng, &high, 2, name);
    }
    MUST(nas_graph_set_output(ctx, g, tangle_sum(ctx, g, &high, "high_sum")));
    return g;
}

/* Value k of a param, from one normal deviate: such that no operator divides by almost nothing and values stay near 1. */
static double param_value(const nas_param *p, const char *suffix, double z) {
    if (strcmp(suffix, "scale") == 0) return 1 + 0.1 * z;
    if (strcmp(suffix, "variance") == 0) return 0.5 + fabs(z);
    if (strcmp(suffix, "value") ==
        0) /* constants: [1,1,1,C] to add or divide by, [.,.,K,C] to multiply with */
        return (z + copysign(0.5, z)) / sqrt((double)p->dims[2]);
    const double fan_in = (double)p->count / p->dims[0];
    return z * (p->rank == 4 ? 1.0 / sqrt(fan_in) : 0.1);
}

void reference_fill(nas_ctx *ctx, nas_graph *g, uint64_t seed) {
    MUST(nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(seed, 0, "weights");
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        nas_param *p = nas_graph_param(g, i);
        const char *suffix = strrchr(p->name, '.') + 1; /* "<node>.<suffix>" */
        for (size_t k = 0; k < p->count; k++)
            p->data[k] = (float)param_value(p, suffix, nas_rng_normal(&rng));
    }
}

float *reference_image(nas_ctx *ctx, size_t count, uint64_t seed) {
    float *image = nas_alloc_array(ctx, count, sizeof *image);
    cr_assert_not_null(image);
    nas_rng rng = nas_rng_stream(seed, 0, "image");
    for (size_t i = 0; i < count; i++)
        image[i] = (float)nas_rng_uniform(&rng);
    return image;
}

size_t reference_count(const nas_graph *g, nas_value v) {
    const nas_shape s = nas_graph_node(g, v)->shape;
    return (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
}
