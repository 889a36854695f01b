/* test_train_gradient.c - gradients of every operator and fusion against central differences of a double-precision
 * reference. */
#include "tests/eval/train_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <math.h>
#include <stdio.h>

enum { SIDE = 7, BATCH = 2 };

/* Elements compared in each tensor: every one where there are fewer, else a random choice. */
enum { SAMPLES = 12 };

/* Single precision sums of a few thousand terms against an exact difference quotient: relative to the largest
 * gradient of the tensor. A wrong tap or sign is off by O(1). */
static const double tolerance = 2e-4;
static const double difference = 1e-6;

typedef struct problem {
    nas_ctx *ctx;
    nas_graph *g;
    int32_t channels, scale;
    double *lr, *hr; /* what the graph sees */
} problem;

static double reference_loss(const problem *p, double *const *params) {
    const size_t in = (size_t)p->channels * SIDE * SIDE;
    const size_t out = in * (size_t)p->scale * (size_t)p->scale;
    double sum = 0.0;
    for (size_t b = 0; b < BATCH; b++) {
        double *y = reference_forward(p->ctx, p->g, params, p->lr + b * in, SIDE, SIDE);
        for (size_t i = 0; i < out; i++)
            sum += fabs(y[i] - p->hr[b * out + i]);
        nas_free(y);
    }
    return sum / ((double)out * BATCH);
}

/* As the trainer sees the batch: RGB, or the luma of RGB. */
static double *as_seen(nas_ctx *ctx, const float *rgb, size_t pixels, int32_t channels) {
    double *out = nas_alloc_array(ctx, BATCH * (size_t)channels * pixels, sizeof *out);
    for (size_t b = 0; b < BATCH; b++) {
        const float *p = rgb + b * 3 * pixels;
        for (size_t i = 0; i < pixels; i++) {
            if (channels == 1) {
                out[b * pixels + i] = (65.481 * (double)p[i] + 128.553 * (double)p[pixels + i] +
                                       24.966 * (double)p[2 * pixels + i] + 16.0) /
                                      255.0;
                continue;
            }
            for (size_t c = 0; c < 3; c++)
                out[(b * 3 + c) * pixels + i] = (double)p[c * pixels + i];
        }
    }
    return out;
}

static double difference_quotient(const problem *p, double **params, int32_t param, size_t k) {
    const double kept = params[param][k];
    params[param][k] = kept + difference;
    const double above = reference_loss(p, params);
    params[param][k] = kept - difference;
    const double below = reference_loss(p, params);
    params[param][k] = kept;
    return (above - below) / (2 * difference);
}

static void compare_gradients(const problem *p, const nas_trainer *t, double **params, nas_rng *rng,
                              const char *what) {
    for (int32_t i = 0; i < nas_graph_param_count(p->g); i++) {
        const nas_param *param = nas_graph_param_const(p->g, i);
        size_t count = 0;
        const float *gradient = nas_trainer_gradient(t, param->name, &count);
        cr_assert(gradient != NULL && count == param->count, "%s: %s", what, param->name);
        double worst = 0.0, largest = 1e-3;
        for (size_t n = 0; n < count && n < SAMPLES; n++) {
            const size_t k = count <= SAMPLES ? n : nas_rng_below(rng, (uint32_t)count);
            const double expected = difference_quotient(p, params, i, k);
            worst = fmax(worst, fabs(expected - (double)gradient[k]));
            largest = fmax(largest, fabs(expected));
        }
        cr_expect(worst <= tolerance * largest, "%s: %s is off by %g of %g", what, param->name,
                  worst, largest);
    }
}

static void check_net(nas_ctx *ctx, nas_graph *g, int32_t scale, const char *what) {
    nas_rng rng = nas_rng_stream(test_seed(), 0, what);
    const size_t small = SIDE * SIDE, large = small * (size_t)scale * (size_t)scale;
    float *lr = noise(ctx, BATCH * 3 * small, &rng), *hr = noise(ctx, BATCH * 3 * large, &rng);
    problem p = {.ctx = ctx,
                 .g = g,
                 .scale = scale,
                 .channels = nas_graph_node(g, nas_graph_input(g))->shape.c};
    p.lr = as_seen(ctx, lr, small, p.channels);
    p.hr = as_seen(ctx, hr, large, p.channels);
    nas_weights *weights = NULL;
    nas_trainer *t = NULL;
    nas_train_options options = nas_train_options_default();
    options.batch = BATCH;
    options.patch = SIDE;
    options.scale = scale;
    options.threads = 2;
    double loss = 0.0;
    cr_assert(eq(int, (int)nas_weights_new(ctx, g, &rng, &weights), NAS_OK));
    cr_assert(eq(int, (int)nas_trainer_new(ctx, weights, &options, &t), NAS_OK));
    cr_assert(eq(int, (int)nas_trainer_accumulate(ctx, t, g, lr, hr, &loss), NAS_OK), "%s: %s",
              what, nas_ctx_message(ctx));
    double **params = params_of(ctx, weights, g);
    const double expected = reference_loss(&p, params);
    cr_expect(fabs(loss - expected) < 1e-5, "%s: loss %g, reference %g", what, loss, expected);
    compare_gradients(&p, t, params, &rng, what);
    params_free(params, g);
    nas_trainer_free(t);
    nas_weights_free(weights);
    nas_free(p.hr);
    nas_free(p.lr);
    nas_free(hr);
    nas_free(lr);
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

Test(eval_train_gradient, convolutions_of_any_kernel_and_width_agree, .timeout = 60) {
    static const int32_t rows[][2] = {{1, 1}, {3, 4}, {5, 3}, {7, 2}, {9, 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_ctx *ctx = quiet_ctx();
        nas_value x = NAS_VALUE_NONE;
        nas_graph *g = net_new(ctx, 3, SIDE, &x);
        x = net_conv(ctx, g, "a", x, rows[i][1], rows[i][0]);
        net_finish(ctx, g, x, 3, 1);
        char what[64];
        (void)snprintf(what, sizeof what, "%dx%d to %d channels", (int)rows[i][0], (int)rows[i][0],
                       (int)rows[i][1]);
        check_net(ctx, g, 1, what);
    }
}

Test(eval_train_gradient, fused_relu_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    x = net_relu(ctx, g, "r", net_conv(ctx, g, "a", x, 5, 3));
    net_finish(ctx, g, x, 3, 2);
    check_net(ctx, g, 2, "conv and relu");
}

Test(eval_train_gradient, relu_with_two_readers_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    const nas_value a = net_conv(ctx, g, "a", x, 4, 3);
    const nas_value r = net_relu(ctx, g, "r", a);
    const nas_value b = net_conv(ctx, g, "b", r, 4, 1);
    const nas_value s = net_relu(ctx, g, "s", a); /* a second reader of the convolution */
    x = net_add(ctx, g, "t", net_add(ctx, g, "sum", r, b), s);
    net_finish(ctx, g, x, 3, 1);
    check_net(ctx, g, 1, "shared relu");
}

Test(eval_train_gradient, fused_pair_agrees, .timeout = 60) {
    static const int32_t rows[][2] = {
        {7, 3}, {30, 5}, {50, 4}}; /* hidden, outputs: less and more than a chunk */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_ctx *ctx = quiet_ctx();
        nas_value x = NAS_VALUE_NONE;
        nas_graph *g = net_new(ctx, 3, SIDE, &x);
        x = net_conv(ctx, g, "head", x, 3, 3);
        x = net_relu(ctx, g, "r", net_conv(ctx, g, "a", x, rows[i][0], 1));
        x = net_conv(ctx, g, "b", x, rows[i][1], 1);
        net_finish(ctx, g, x, 3, 1);
        check_net(ctx, g, 1, "pair");
    }
}

Test(eval_train_gradient, fused_pair_with_residual_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    x = net_conv(ctx, g, "head", x, 4, 1);
    const nas_value r = net_relu(ctx, g, "r", net_conv(ctx, g, "a", x, 26, 1));
    x = net_add(ctx, g, "sum", net_conv(ctx, g, "b", r, 4, 1), x);
    net_finish(ctx, g, x, 3, 1);
    check_net(ctx, g, 1, "residual pair");
}

Test(eval_train_gradient, chain_of_pointwise_layers_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    x = net_relu(ctx, g, "ra", net_conv(ctx, g, "a", x, 6, 1));
    x = net_relu(ctx, g, "rb", net_conv(ctx, g, "b", x, 5, 1));
    x = net_relu(ctx, g, "rc", net_conv(ctx, g, "c", x, 7, 1));
    net_finish(ctx, g, x, 3, 1);
    check_net(ctx, g, 1, "pointwise chain");
}

Test(eval_train_gradient, prelu_on_luma_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 1, SIDE, &x);
    x = net_prelu(ctx, g, "p", net_conv(ctx, g, "a", x, 6, 5));
    const nas_value q = net_prelu(ctx, g, "q", x); /* p has two readers: gradients meet */
    x = net_add(ctx, g, "sum", x, net_conv(ctx, g, "b", q, 6, 1));
    net_finish(ctx, g, x, 1, 3);
    check_net(ctx, g, 3, "prelu on luma");
}

Test(eval_train_gradient, value_added_to_itself_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    x = net_conv(ctx, g, "a", x, 4, 3);
    x = net_scalar(ctx, g, "s", net_add(ctx, g, "sum", x, x), 0.25f);
    net_finish(ctx, g, x, 3, 1);
    check_net(ctx, g, 1, "doubled value");
}

Test(eval_train_gradient, convolution_added_to_its_own_input_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    x = net_conv(ctx, g, "a", x, 4, 3);
    x = net_add(ctx, g, "sum", x, net_conv(ctx, g, "b", x, 4, 3));
    x = net_add(ctx, g, "more", net_conv(ctx, g, "c", x, 4, 1), x);
    net_finish(ctx, g, x, 3, 1);
    check_net(ctx, g, 1, "residual convolutions");
}

Test(eval_train_gradient, shuffle_read_twice_agrees) {
    nas_ctx *ctx = quiet_ctx();
    nas_value x = NAS_VALUE_NONE, s = NAS_VALUE_NONE, t = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 3, SIDE, &x);
    const nas_value a = net_conv(ctx, g, "a", x, 12, 3);
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "s", a, 2, &s), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "t", a, 2, &t), NAS_OK));
    x = net_add(ctx, g, "sum", net_conv(ctx, g, "b", s, 3, 3), net_relu(ctx, g, "r", t));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    check_net(ctx, g, 2, "two shuffles");
}

Test(eval_train_gradient, whole_wdsr_agrees_at_every_scale, .timeout = 60) {
    for (int32_t scale = 2; scale <= 4; scale++) {
        nas_ctx *ctx = quiet_ctx();
        const wdsr_shape shape = {.channels = 4,
                                  .expand = 9,
                                  .project = 3,
                                  .blocks = 2,
                                  .head = 3,
                                  .tail = 3,
                                  .skip = 5,
                                  .scale = scale,
                                  .side = SIDE};
        char what[32];
        (void)snprintf(what, sizeof what, "WDSR x%d", (int)scale);
        check_net(ctx, net_wdsr(ctx, &shape), scale, what);
    }
}
