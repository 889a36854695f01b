/* latency_kernels.c - see latency_kernels.h. */
#include "tools/latency_kernels.h"

#include <string.h>

enum { EXTENT_MAX = 4096, KERNEL_MAX = 11, STRIDE_MAX = 4 };

static nas_status read_field(nas_ctx *ctx, const char *text, size_t *at, char letter, int32_t hi,
                             int32_t *out) {
    if (text[*at] != ' ' || text[*at + 1] != letter) {
        return nas_fail(ctx, NAS_ERR_PARSE,
                        "kernel '%s', column %zu: expected \" %c\": the form is conv h56 w56 i64 "
                        "o128 k3 s1",
                        text, *at + 1, letter);
    }
    *at += 2;
    int32_t value = 0;
    size_t digits = 0;
    for (; digits < 5 && text[*at] >= '0' && text[*at] <= '9'; digits++, (*at)++)
        value = value * 10 + (text[*at] - '0');
    if (digits == 0 || value < 1 || value > hi) {
        return nas_fail(ctx, NAS_ERR_RANGE, "kernel '%s': %c is no whole number 1..%" PRId32, text,
                        letter, hi);
    }
    *out = value;
    return NAS_OK;
}

nas_status nas_kernel_shape_parse(nas_ctx *ctx, const char *text, nas_kernel_shape *out) {
    nas_kernel_shape s = {.depthwise = strncmp(text, "dwconv", 6) == 0};
    size_t at = s.depthwise ? 6 : 4;
    if (!s.depthwise && strncmp(text, "conv", 4) != 0)
        return nas_fail(ctx, NAS_ERR_PARSE, "kernel '%s': begins with neither conv nor dwconv",
                        text);
    const struct {
        char letter;
        int32_t hi;
        int32_t *to;
    } fields[] = {{'h', EXTENT_MAX, &s.height}, {'w', EXTENT_MAX, &s.width},
                  {'i', EXTENT_MAX, &s.in},     {'o', EXTENT_MAX, &s.out},
                  {'k', KERNEL_MAX, &s.kernel}, {'s', STRIDE_MAX, &s.stride}};
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const nas_status status =
            read_field(ctx, text, &at, fields[i].letter, fields[i].hi, fields[i].to);
        if (status != NAS_OK) return status;
    }
    if (text[at] != '\0')
        return nas_fail(ctx, NAS_ERR_PARSE, "kernel '%s', column %zu: expected the end", text,
                        at + 1);
    if (s.kernel % 2 == 0)
        return nas_fail(ctx, NAS_ERR_RANGE, "kernel '%s': k is even, use 1, 3, 5 ...", text);
    if (s.depthwise && s.in != s.out)
        return nas_fail(ctx, NAS_ERR_RANGE, "kernel '%s': dwconv has as many o as i", text);
    *out = s;
    return NAS_OK;
}

void nas_kernel_shape_format(const nas_kernel_shape *s, nas_buf *out) {
    nas_buf_printf(
        out, "%s h%" PRId32 " w%" PRId32 " i%" PRId32 " o%" PRId32 " k%" PRId32 " s%" PRId32,
        s->depthwise ? "dwconv" : "conv", s->height, s->width, s->in, s->out, s->kernel, s->stride);
}

nas_status nas_kernel_shape_graph(nas_ctx *ctx, const nas_kernel_shape *s, nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "kernel");
    if (g == NULL) return nas_ctx_status(ctx);
    nas_conv_attributes conv = nas_conv_same(s->out, s->kernel);
    conv.stride_h = conv.stride_w = s->stride;
    conv.groups = s->depthwise ? s->in : 1;
    nas_value x = NAS_VALUE_NONE;
    const nas_shape shape = {.n = 1, .h = s->height, .w = s->width, .c = s->in};
    nas_status status = nas_graph_add_input(ctx, g, "input", shape, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(ctx, g, "conv", x, &conv, &x);
    if (status == NAS_OK) status = nas_graph_add_relu(ctx, g, "relu", x, &x);
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return nas_wrap(ctx, status, "kernel");
    }
    *out = g;
    return NAS_OK;
}

/* ---- families --------------------------------------------------------------------------------------------------- */

typedef enum family { SR, CONV, DWCONV, POINTWISE } family;
static const char *const family_names[NAS_KERNEL_FAMILIES] = {
    [SR] = "sr", [CONV] = "conv", [DWCONV] = "dwconv", [POINTWISE] = "pointwise"};

nas_status nas_kernel_family_parse(nas_ctx *ctx, const char *name, size_t len, int32_t *out) {
    for (int32_t i = 0; i < NAS_KERNEL_FAMILIES; i++) {
        if (strlen(family_names[i]) != len || strncmp(family_names[i], name, len) != 0) continue;
        *out = i;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "kernels '%.*s' are unknown: use sr, conv, dwconv, pointwise", (int)len, name);
}

static int32_t pick(nas_rng *rng, const int32_t *values, uint32_t n) {
    return values[nas_rng_below(rng, n)];
}

/* A width around a round one: half of them a multiple of 8, the others any, because padding to lanes is the point. */
static int32_t channels(nas_rng *rng, int32_t lo, int32_t hi) {
    const int32_t value = lo + (int32_t)nas_rng_below(rng, (uint32_t)(hi - lo + 1));
    if (nas_rng_below(rng, 2) == 0) return value;
    return value < 8 ? 8 : value / 8 * 8;
}

void nas_kernel_shape_sample(int32_t which, nas_rng *rng, nas_kernel_shape *out) {
    static const int32_t small[] = {7, 14, 28, 56, 112}, odd[] = {1, 3, 5, 7},
                         large[] = {90, 135, 180, 270, 360, 540};
    nas_kernel_shape s = {.stride = 1};
    switch ((family)which) {
    case SR:
        s.height = pick(rng, large, 6);
        s.width = s.height * 16 / 9;
        s.in = channels(rng, 3, 96);
        s.out = channels(rng, 3, 96);
        s.kernel = pick(rng, odd, 3);
        break;
    case CONV:
        s.height = s.width = pick(rng, small, 5);
        /* channels grow as images shrink, as in classifiers: work stays within a decade or two */
        s.in = channels(rng, 3, 3600 / s.height > 512 ? 512 : 3600 / s.height);
        s.out = channels(rng, 3, 3600 / s.height > 512 ? 512 : 3600 / s.height);
        s.kernel = pick(rng, odd, 3);
        s.stride = 1 + (int32_t)nas_rng_below(rng, 2);
        break;
    case DWCONV:
        s.depthwise = true;
        s.height = s.width = pick(rng, small, 5);
        s.in = s.out = channels(rng, 3, 7200 / s.height > 960 ? 960 : 7200 / s.height);
        s.kernel = odd[1 + nas_rng_below(rng, 3)];
        s.stride = 1 + (int32_t)nas_rng_below(rng, 2);
        break;
    case POINTWISE: /* the two of an inverted bottleneck: wide on one side */
        s.height = s.width = pick(rng, small, 5);
        s.in = channels(rng, 3, 7200 / s.height > 960 ? 960 : 7200 / s.height);
        s.out = channels(rng, 3, 7200 / s.height > 960 ? 960 : 7200 / s.height);
        s.kernel = 1;
        break;
    }
    *out = s;
}
