/* train_support.c - see train_support.h. */
#include "tests/eval/train_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

nas_ctx *quiet_ctx(void) {
    nas_ctx *ctx = nas_ctx_new();
    cr_assert(ctx != NULL);
    return ctx;
}

static nas_value added(nas_ctx *ctx, nas_status status, nas_value v) {
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return v;
}

nas_graph *net_new(nas_ctx *ctx, int32_t channels, int32_t side, nas_value *input) {
    nas_graph *g = nas_graph_new(ctx, "net");
    cr_assert(g != NULL);
    const nas_shape shape = {1, side, side, channels};
    (void)added(ctx, nas_graph_add_input(ctx, g, "input", shape, input), *input);
    return g;
}

nas_value net_conv(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, int32_t channels,
                   int32_t kernel) {
    const nas_conv_attributes a = nas_conv_same(channels, kernel);
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_conv(ctx, g, name, x, &a, &v);
    return added(ctx, status, v);
}

nas_value net_relu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_relu(ctx, g, name, x, &v);
    return added(ctx, status, v);
}

nas_value net_prelu(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_prelu(ctx, g, name, x, &v);
    return added(ctx, status, v);
}

nas_value net_add(nas_ctx *ctx, nas_graph *g, const char *name, nas_value a, nas_value b) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_add(ctx, g, name, a, b, &v);
    return added(ctx, status, v);
}

nas_value net_scalar(nas_ctx *ctx, nas_graph *g, const char *name, nas_value x, float scalar) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_scalar(ctx, g, name, x, scalar, &v);
    return added(ctx, status, v);
}

static nas_value net_shuffle(nas_ctx *ctx, nas_graph *g, nas_value x, int32_t scale) {
    nas_value v = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_depth_to_space(ctx, g, "shuffle", x, scale, &v);
    return added(ctx, status, v);
}

void net_finish(nas_ctx *ctx, nas_graph *g, nas_value x, int32_t channels, int32_t scale) {
    nas_value v = net_conv(ctx, g, "last", x, channels * scale * scale, 3);
    v = net_shuffle(ctx, g, v, scale);
    (void)added(ctx, nas_graph_set_output(ctx, g, v), v);
}

nas_graph *net_wdsr(nas_ctx *ctx, const wdsr_shape *s) {
    nas_value in = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, s->side, &in);
    const nas_value x = net_scalar(ctx, g, "center", in, -0.5f);
    nas_value body = net_conv(ctx, g, "head", x, s->channels, s->head);
    for (int32_t i = 0; i < s->blocks; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "block%d.expand", (int)i);
        nas_value v = net_conv(ctx, g, name, body, s->expand, 1);
        (void)snprintf(name, sizeof name, "block%d.relu", (int)i);
        v = net_relu(ctx, g, name, v);
        (void)snprintf(name, sizeof name, "block%d.project", (int)i);
        v = net_conv(ctx, g, name, v, s->project, 1);
        (void)snprintf(name, sizeof name, "block%d.conv", (int)i);
        v = net_conv(ctx, g, name, v, s->channels, 3);
        (void)snprintf(name, sizeof name, "block%d.add", (int)i);
        body = net_add(ctx, g, name, body, v);
    }
    const int32_t out = 3 * s->scale * s->scale;
    const nas_value tail = net_conv(ctx, g, "tail", body, out, s->tail);
    const nas_value skip = net_conv(ctx, g, "skip", x, out, s->skip);
    nas_value v = net_shuffle(ctx, g, net_add(ctx, g, "sum", tail, skip), s->scale);
    v = net_scalar(ctx, g, "restore", v, 0.5f);
    (void)added(ctx, nas_graph_set_output(ctx, g, v), v);
    return g;
}

/* ---- reference -------------------------------------------------------------------------------------------------- */

typedef struct plane {
    double *at; /* [c][h][w] */
    int32_t c, h, w;
} plane;

static double pixel(const plane *p, int32_t c, int32_t y, int32_t x) {
    if (y < 0 || x < 0 || y >= p->h || x >= p->w) return 0.0;
    return p->at[((ptrdiff_t)c * p->h + y) * p->w + x];
}

static double conv_at(const nas_param *weight, const double *w, const plane *in, int32_t o,
                      int32_t y, int32_t x) {
    double sum = 0.0;
    const int32_t kh = weight->dims[1], kw = weight->dims[2], n = weight->dims[3];
    for (int32_t ky = 0; ky < kh; ky++) {
        for (int32_t kx = 0; kx < kw; kx++) {
            const double *row = w + (((ptrdiff_t)o * kh + ky) * kw + kx) * n;
            for (int32_t i = 0; i < n; i++) {
                sum += row[i] * pixel(in, i, y + ky - kh / 2, x + kx - kw / 2);
            }
        }
    }
    return sum;
}

static double value_at(const nas_graph *g, const nas_node *n, double *const *params,
                       const plane *values, int32_t c, int32_t y, int32_t x) {
    const plane *in = &values[n->inputs[0]];
    const int32_t r = n->block;
    double v = 0.0;
    switch (n->op) {
    case NAS_OP_CONV:
        v = conv_at(nas_graph_param_const(g, n->params[0]), params[n->params[0]], in, c, y, x);
        return n->params[1] < 0 ? v : v + params[n->params[1]][c];
    case NAS_OP_RELU: v = pixel(in, c, y, x); return v > 0 ? v : 0;
    case NAS_OP_PRELU: v = pixel(in, c, y, x); return v > 0 ? v : v * params[n->params[0]][c];
    case NAS_OP_ADD: return pixel(in, c, y, x) + pixel(&values[n->inputs[1]], c, y, x);
    case NAS_OP_ADD_SCALAR: return pixel(in, c, y, x) + (double)n->scalar;
    case NAS_OP_DEPTH_TO_SPACE: return pixel(in, c * r * r + y % r * r + x % r, y / r, x / r);
    case NAS_OP_INPUT:
    case NAS_OP_CONV_TRANSPOSE:
    case NAS_OP_BATCH_NORM:
    case NAS_OP_UNARY:
    case NAS_OP_SUB:
    case NAS_OP_MUL:
    case NAS_OP_DIV:
    case NAS_OP_CONSTANT:
    case NAS_OP_CONCAT:
    case NAS_OP_SLICE:
    case NAS_OP_PAD:
    case NAS_OP_MAX_POOL:
    case NAS_OP_AVG_POOL:
    case NAS_OP_RESIZE:
    case NAS_OP_SOFTMAX:
    case NAS_OP_LAYER_NORM:
    case NAS_OP_LRN:
    case NAS_OP_MATMUL:
    case NAS_OP_RESHAPE:
    case NAS_OP_TRANSPOSE:
    case NAS_OP_CHANNEL_SHUFFLE:
    case NAS_OP_COUNT: break;
    }
    cr_fatal("reference: operator %d", (int)n->op);
    return 0.0;
}

static void fill_plane(const nas_graph *g, const nas_node *n, double *const *params,
                       const plane *values, plane *out) {
    for (int32_t c = 0; c < out->c; c++) {
        for (int32_t y = 0; y < out->h; y++) {
            for (int32_t x = 0; x < out->w; x++) {
                out->at[((ptrdiff_t)c * out->h + y) * out->w + x] =
                    value_at(g, n, params, values, c, y, x);
            }
        }
    }
}

double *reference_forward(nas_ctx *ctx, const nas_graph *g, double *const *params, const double *in,
                          int32_t h, int32_t w) {
    const int32_t n = nas_graph_node_count(g);
    plane *values = nas_alloc_array(ctx, (size_t)n, sizeof *values);
    for (int32_t v = 0; v < n; v++) {
        const nas_node *node = nas_graph_node(g, v);
        plane *p = &values[v];
        const int32_t r = node->op == NAS_OP_DEPTH_TO_SPACE ? node->block : 1;
        *p = (plane){.c = node->shape.c, .h = h, .w = w};
        if (node->op != NAS_OP_INPUT) {
            p->h = values[node->inputs[0]].h * r;
            p->w = values[node->inputs[0]].w * r;
        }
        const size_t floats = (size_t)p->c * (size_t)p->h * (size_t)p->w;
        p->at = nas_alloc_array(ctx, floats, sizeof *p->at);
        if (node->op == NAS_OP_INPUT)
            memcpy(p->at, in, floats * sizeof *in);
        else
            fill_plane(g, node, params, values, p);
    }
    double *out = values[nas_graph_output(g)].at;
    for (int32_t v = 0; v < n; v++) {
        if (v != nas_graph_output(g)) nas_free(values[v].at);
    }
    nas_free(values);
    return out;
}

double **params_of(nas_ctx *ctx, const nas_weights *weights, nas_graph *g) {
    cr_assert(eq(int, (int)nas_weights_fill(ctx, weights, g), NAS_OK), "%s", nas_ctx_message(ctx));
    const int32_t n = nas_graph_param_count(g);
    double **params = nas_alloc_array(ctx, (size_t)n, sizeof *params);
    for (int32_t i = 0; i < n; i++) {
        const nas_param *p = nas_graph_param_const(g, i);
        params[i] = nas_alloc_array(ctx, p->count, sizeof **params);
        for (size_t k = 0; k < p->count; k++)
            params[i][k] = (double)p->data[k];
    }
    return params;
}

void params_free(double **params, const nas_graph *g) {
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        nas_free(params[i]);
    nas_free(params);
}

float *noise(nas_ctx *ctx, size_t n, nas_rng *rng) {
    float *data = nas_alloc_array(ctx, n, sizeof *data);
    for (size_t i = 0; i < n; i++)
        data[i] = (float)nas_rng_uniform(rng);
    return data;
}

uint64_t test_seed(void) {
    const char *text = getenv("SEED");
    const uint64_t seed = text == NULL ? 1 : strtoull(text, NULL, 10);
    fprintf(stderr, "seed %" PRIu64 " (SEED=n replays)\n", seed);
    return seed;
}
