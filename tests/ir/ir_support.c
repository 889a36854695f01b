/* ir_support.c - see ir_support.h. Slow and plain on purpose: it must be right by reading. */
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>

size_t shape_count(nas_shape s) {
    return (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
}

uint64_t test_seed(uint64_t usual) {
    const char *text = getenv("SEED");
    int64_t seed = 0;
    if (text == NULL || nas_parse_i64(NULL, "SEED", text, 0, INT64_MAX, &seed) != NAS_OK)
        return usual;
    return (uint64_t)seed;
}

nas_status small_sr_graph(nas_ctx *ctx, int32_t h, int32_t w, nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "small-sr");
    if (g == NULL) return NAS_ERR_NOMEM;
    const nas_conv_attributes head = nas_conv_same(8, 3), tail = nas_conv_same(12, 3);
    const nas_conv_attributes skip = nas_conv_same(12, 5);
    nas_value x = 0, a = 0, b = 0, s = 0;
    nas_status st = nas_graph_add_input(ctx, g, "image", (nas_shape){1, h, w, 3}, &x);
    if (st == NAS_OK) st = nas_graph_add_scalar(ctx, g, "center", x, -0.5f, &x);
    if (st == NAS_OK) st = nas_graph_add_conv(ctx, g, "head", x, &head, &a);
    if (st == NAS_OK) st = nas_graph_add_relu(ctx, g, "block.relu", a, &b);
    if (st == NAS_OK) st = nas_graph_add_conv(ctx, g, "block.conv", b, &head, &b);
    if (st == NAS_OK) st = nas_graph_add_add(ctx, g, "block.add", a, b, &a);
    if (st == NAS_OK) st = nas_graph_add_conv(ctx, g, "tail", a, &tail, &a);
    if (st == NAS_OK) st = nas_graph_add_conv(ctx, g, "skip", x, &skip, &s);
    if (st == NAS_OK) st = nas_graph_add_add(ctx, g, "sum", a, s, &a);
    if (st == NAS_OK) st = nas_graph_add_depth_to_space(ctx, g, "shuffle", a, 2, &a);
    if (st == NAS_OK) st = nas_graph_add_scalar(ctx, g, "uncenter", a, 0.5f, &a);
    if (st == NAS_OK) st = nas_graph_set_output(ctx, g, a);
    if (st != NAS_OK) {
        nas_graph_free(g);
        return st;
    }
    *out = g;
    return NAS_OK;
}

void fill_weights(nas_graph *g, nas_rng *rng) {
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++) {
            param->data[i] = (float)(2.0 * nas_rng_uniform(rng) - 1.0);
        }
    }
}

/* ---- random networks --------------------------------------------------------------------------------------------- */

static int32_t between(nas_rng *rng, int32_t low, int32_t high) {
    return low + (int32_t)nas_rng_below(rng, (uint32_t)(high - low + 1));
}

/* Attributes that may be impossible for the input: the builder then refuses and the caller draws again. */
static nas_conv_attributes random_conv(nas_rng *rng, int32_t in_channels) {
    nas_conv_attributes a = {.kernel_h = between(rng, 1, 3),
                             .kernel_w = between(rng, 1, 4),
                             .stride_h = between(rng, 1, 2),
                             .stride_w = between(rng, 1, 2),
                             .dilation_h = between(rng, 1, 2),
                             .dilation_w = between(rng, 1, 3),
                             .pad_top = between(rng, 0, 2),
                             .pad_left = between(rng, 0, 2),
                             .pad_bottom = between(rng, 0, 3),
                             .pad_right = between(rng, 0, 3),
                             .groups = in_channels % 2 == 0 ? between(rng, 1, 2) : 1,
                             .has_bias = between(rng, 0, 2) > 0};
    if (between(rng, 0, 4) == 0) a.groups = in_channels; /* depthwise */
    a.out_channels = a.groups * between(rng, 1, a.groups > 2 ? 2 : 4);
    return a;
}

/* An earlier value of the same shape, the value itself when there is no other. */
static nas_value same_shape(const nas_graph *g, nas_rng *rng, nas_value x) {
    const nas_shape s = nas_graph_node(g, x)->shape;
    const nas_value start = between(rng, 0, x);
    for (nas_value v = start; v < x; v++) {
        const nas_shape t = nas_graph_node(g, v)->shape;
        if (s.n == t.n && s.h == t.h && s.w == t.w && s.c == t.c) return v;
    }
    return x;
}

static nas_status random_node(nas_ctx *ctx, nas_rng *rng, nas_graph *g, int32_t id, nas_value *x) {
    char name[32];
    (void)snprintf(name, sizeof name, "n%d", (int)id);
    const nas_shape in = nas_graph_node(g, *x)->shape;
    switch (between(rng, 0, 7)) {
    case 0: return nas_graph_add_relu(ctx, g, name, *x, x);
    case 1: return nas_graph_add_prelu(ctx, g, name, *x, x);
    case 2: return nas_graph_add_add(ctx, g, name, same_shape(g, rng, *x), *x, x);
    case 3:
        return nas_graph_add_scalar(ctx, g, name, *x, (float)(2.0 * nas_rng_uniform(rng) - 1.0), x);
    case 4:
        if (in.h > 12 || in.w > 12) return nas_graph_add_relu(ctx, g, name, *x, x); /* stay small */
        return nas_graph_add_depth_to_space(ctx, g, name, *x, between(rng, 1, 2), x);
    default: {
        const nas_conv_attributes conv = random_conv(rng, in.c);
        return nas_graph_add_conv(ctx, g, name, *x, &conv, x);
    }
    }
}

nas_status random_graph(nas_ctx *ctx, nas_rng *rng, int32_t nodes, nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "random");
    if (g == NULL) return NAS_ERR_NOMEM;
    nas_value x = 0;
    const nas_shape shape = {between(rng, 1, 2), between(rng, 4, 9), between(rng, 4, 9),
                             between(rng, 1, 4)};
    nas_status status = nas_graph_add_input(ctx, g, "in", shape, &x);
    const int32_t wanted = between(rng, nodes, 2 * nodes);
    for (int32_t tries = 0; tries < 100 * wanted && status == NAS_OK; tries++) {
        if (nas_graph_node_count(g) > wanted) break;
        const nas_status one = random_node(ctx, rng, g, tries, &x);
        if (one == NAS_ERR_NOMEM) status = one; /* SHAPE only says: draw again */
    }
    if (status == NAS_OK) status = nas_graph_set_output(ctx, g, x);
    if (status == NAS_OK) status = nas_graph_alloc_weights(ctx, g);
    if (status != NAS_OK) {
        nas_graph_free(g);
        return status;
    }
    fill_weights(g, rng);
    *out = g;
    return NAS_OK;
}

/* ---- naive forward ------------------------------------------------------------------------------------------------ */

static size_t at(nas_shape s, int32_t n, int32_t h, int32_t w, int32_t c) {
    return (((size_t)n * (size_t)s.h + (size_t)h) * (size_t)s.w + (size_t)w) * (size_t)s.c +
           (size_t)c;
}

/* One output element of a convolution. */
static double conv_at(const nas_node *node, const nas_param *weight, const nas_param *bias,
                      nas_shape is, const double *in, int32_t n, int32_t oh, int32_t ow,
                      int32_t o) {
    const nas_conv_attributes *a = &node->conv;
    const int32_t per_group = is.c / a->groups;
    const int32_t first = o / (a->out_channels / a->groups) * per_group;
    double sum = bias == NULL ? 0.0 : (double)bias->data[o];
    for (int32_t kh = 0; kh < a->kernel_h; kh++) {
        for (int32_t kw = 0; kw < a->kernel_w; kw++) {
            const int32_t h = oh * a->stride_h + kh * a->dilation_h - a->pad_top;
            const int32_t w = ow * a->stride_w + kw * a->dilation_w - a->pad_left;
            if (h < 0 || h >= is.h || w < 0 || w >= is.w) continue;
            for (int32_t i = 0; i < per_group; i++) {
                const nas_shape ks = {a->out_channels, a->kernel_h, a->kernel_w, per_group};
                sum += (double)weight->data[at(ks, o, kh, kw, i)] * in[at(is, n, h, w, first + i)];
            }
        }
    }
    return sum;
}

static double element(const nas_graph *g, const nas_node *node, double *const *values, int32_t n,
                      int32_t h, int32_t w, int32_t c) {
    const nas_shape is = nas_graph_node(g, node->inputs[0])->shape;
    const double *in = values[node->inputs[0]];
    const nas_param *p0 = node->params[0] < 0 ? NULL : nas_graph_param_const(g, node->params[0]);
    const nas_param *p1 = node->params[1] < 0 ? NULL : nas_graph_param_const(g, node->params[1]);
    const int32_t r = node->block;
    if (node->op == NAS_OP_CONV) return conv_at(node, p0, p1, is, in, n, h, w, c);
    if (node->op == NAS_OP_DEPTH_TO_SPACE) {
        return in[at(is, n, h / r, w / r, c * r * r + (h % r) * r + w % r)];
    }
    const double x = in[at(is, n, h, w, c)];
    if (node->op == NAS_OP_RELU) return x > 0 ? x : 0.0;
    if (node->op == NAS_OP_PRELU) return x > 0 ? x : (double)p0->data[c] * x;
    if (node->op == NAS_OP_ADD) return x + values[node->inputs[1]][at(is, n, h, w, c)];
    return x + (double)node->scalar; /* ADD_SCALAR */
}

static void run_node(const nas_graph *g, const nas_node *node, double *const *values, double *out) {
    const nas_shape s = node->shape;
    for (int32_t n = 0; n < s.n; n++) {
        for (int32_t h = 0; h < s.h; h++) {
            for (int32_t w = 0; w < s.w; w++) {
                for (int32_t c = 0; c < s.c; c++) {
                    out[at(s, n, h, w, c)] = element(g, node, values, n, h, w, c);
                }
            }
        }
    }
}

nas_status naive_forward(nas_ctx *ctx, const nas_graph *g, const float *in, double **out) {
    const int32_t n = nas_graph_node_count(g);
    double **values = nas_alloc_array(ctx, (size_t)n, sizeof *values);
    if (values == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    for (int32_t v = 0; v < n && status == NAS_OK; v++) {
        const nas_node *node = nas_graph_node(g, v);
        const size_t count = shape_count(node->shape);
        values[v] = nas_alloc_array(ctx, count, sizeof(double));
        if (values[v] == NULL) {
            status = NAS_ERR_NOMEM;
        } else if (node->op == NAS_OP_INPUT) {
            for (size_t i = 0; i < count; i++)
                values[v][i] = (double)in[i];
        } else {
            run_node(g, node, values, values[v]);
        }
    }
    for (int32_t v = 0; v < n; v++) {
        if (status == NAS_OK && v == nas_graph_output(g)) {
            *out = values[v];
        } else {
            nas_free(values[v]);
        }
    }
    nas_free(values);
    return status;
}

/* ---- from outside ---------------------------------------------------------------------------------------------------- */

static const char *or_empty(const char *text) {
    return text == NULL ? "" : text;
}

void run_onnx_check(nas_ctx *ctx, const char *folder) {
    static const char *const pythons[] = {"python3", "/usr/bin/python3"};
    for (size_t i = 0; i < sizeof pythons / sizeof pythons[0]; i++) {
        nas_process_options o = nas_process_options_default();
        o.argv = (const char *const[]){pythons[i], "tests/ir/onnx_check.py", folder, NULL};
        o.timeout_ms = 100000;
        nas_process_result r = {0};
        const nas_status status = nas_process_run(ctx, &o, &r);
        if (status == NAS_ERR_NOTFOUND) continue;
        cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
        const int code = r.exit_code;
        cr_assert(code == 0 || code == 77, "%s: exit %d\n%s%s", pythons[i], code, r.out.data,
                  r.err.data);
        if (code == 0) cr_log_info("%s", or_empty(r.out.data));
        nas_process_result_deinit(&r);
        if (code == 0) return;
    }
    cr_skip_test("needs python3 with the modules onnx and numpy (apt-get install python3-onnx)");
}
