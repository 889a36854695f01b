/* test_forward.c - the forward pass on whole images, and upscaling by a network. */
#include "tests/eval/train_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

#include <math.h>
#include <string.h>

/* Values of order one after a few layers of single-precision sums. */
static const double tolerance = 1e-4;

static const wdsr_shape net = {.channels = 7,
                               .expand = 53,
                               .project = 6,
                               .blocks = 2,
                               .head = 3,
                               .tail = 3,
                               .skip = 5,
                               .scale = 2,
                               .side = 8};
static nas_ctx *ctx;

static void setup(void) {
    ctx = quiet_ctx();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_forward, .init = setup, .fini = teardown);

static nas_image random_image(int32_t c, int32_t h, int32_t w) {
    nas_image m = {0};
    nas_rng rng = nas_rng_stream((uint64_t)(h * 1000 + w), 0, "image");
    cr_assert(eq(int, (int)nas_image_init(ctx, c, h, w, &m), NAS_OK));
    for (int32_t i = 0; i < c * h * w; i++)
        m.data[i] = (float)nas_rng_uniform(&rng);
    return m;
}

static void randomise(nas_graph *g) {
    nas_rng rng = nas_rng_stream(5, 0, "weights");
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        nas_param *p = nas_graph_param(g, i);
        const double fan = p->rank == 4 ? (double)p->dims[1] * p->dims[2] * p->dims[3] : 4.0;
        for (size_t k = 0; k < p->count; k++)
            p->data[k] = (float)(nas_rng_normal(&rng) / sqrt(fan));
    }
}

static double **doubles_of(nas_graph *g) {
    double **params = nas_alloc_array(ctx, (size_t)nas_graph_param_count(g), sizeof *params);
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        const nas_param *p = nas_graph_param(g, i);
        params[i] = nas_alloc_array(ctx, p->count, sizeof **params);
        for (size_t k = 0; k < p->count; k++)
            params[i][k] = (double)p->data[k];
    }
    return params;
}

static void compare(nas_graph *g, const nas_image *in, const char *what) {
    nas_image out = {0};
    cr_assert(eq(int, (int)nas_forward(ctx, g, in, &out, 2), NAS_OK), "%s: %s", what,
              nas_ctx_message(ctx));
    double **params = doubles_of(g);
    const size_t n = (size_t)(in->c * in->h * in->w), m = (size_t)(out.c * out.h * out.w);
    double *exact = nas_alloc_array(ctx, n, sizeof *exact);
    for (size_t i = 0; i < n; i++)
        exact[i] = (double)in->data[i];
    double *expected = reference_forward(ctx, g, params, exact, in->h, in->w);
    double worst = 0.0;
    for (size_t i = 0; i < m; i++)
        worst = fmax(worst, fabs(expected[i] - (double)out.data[i]));
    cr_expect(worst < tolerance, "%s %dx%d: off by %g", what, (int)in->h, (int)in->w, worst);
    nas_free(expected);
    nas_free(exact);
    params_free(params, g);
    nas_image_deinit(&out);
}

Test(eval_forward, any_extent_matches_the_reference, .timeout = 60) {
    static const int32_t extents[][2] = {{1, 1}, {1, 40}, {33, 1}, {9, 16}, {21, 97}, {5, 230}};
    nas_graph *g = net_wdsr(ctx, &net);
    randomise(g);
    for (size_t i = 0; i < sizeof extents / sizeof *extents; i++) {
        nas_image in = random_image(3, extents[i][0], extents[i][1]);
        compare(g, &in, "wdsr");
        nas_image_deinit(&in);
    }
    nas_graph_free(g);
}

static nas_graph *luma_net(int32_t scale) {
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, 1, 8, &x);
    x = net_prelu(ctx, g, "pa", net_conv(ctx, g, "a", x, 9, 5));
    const nas_value b = net_relu(ctx, g, "rb", net_conv(ctx, g, "b", x, 9, 3));
    x = net_add(ctx, g, "sum", x, b);
    net_finish(ctx, g, x, 1, scale);
    randomise(g);
    return g;
}

Test(eval_forward, unfused_operators_match_the_reference) {
    for (int32_t scale = 1; scale <= 4; scale++) {
        nas_graph *g = luma_net(scale);
        nas_image in = random_image(1, 19, 35);
        compare(g, &in, "luma");
        nas_image_deinit(&in);
        nas_graph_free(g);
    }
}

Test(eval_forward, threads_do_not_change_a_bit) {
    nas_graph *g = net_wdsr(ctx, &net);
    randomise(g);
    nas_image in = random_image(3, 45, 31), first = {0};
    cr_assert(eq(int, (int)nas_forward(ctx, g, &in, &first, 1), NAS_OK));
    for (int32_t threads = 2; threads <= 4; threads++) {
        nas_image out = {0};
        cr_assert(eq(int, (int)nas_forward(ctx, g, &in, &out, threads), NAS_OK));
        cr_expect(memcmp(out.data, first.data, (size_t)(3 * 90 * 62) * sizeof(float)) == 0,
                  "%d threads", (int)threads);
        nas_image_deinit(&out);
    }
    nas_image_deinit(&first);
    nas_image_deinit(&in);
    nas_graph_free(g);
}

/* A net that repeats each pixel: one 1x1 convolution with the weights of a nearest-neighbour upscaler. */
static nas_graph *repeating_net(int32_t channels) {
    nas_value x = NAS_VALUE_NONE;
    nas_graph *g = net_new(ctx, channels, 8, &x);
    net_finish(ctx, g, x, channels, 2);
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    nas_param *p = nas_graph_param(g, 0);
    for (int32_t o = 0; o < channels * 4; o++) {
        p->data[((o * 3 + 1) * 3 + 1) * channels + o / 4] =
            1.0f; /* the centre tap of its own channel */
    }
    return g;
}

Test(eval_forward, upscaling_fills_the_callers_image) {
    for (int32_t channels = 1; channels <= 3; channels += 2) {
        nas_graph *g = repeating_net(channels);
        nas_image lr = random_image(3, 12, 10), sr = {0}, wrong = {0};
        for (int32_t i = 0; i < 3 * 120; i++)
            lr.data[i] = 0.25f + 0.05f * (float)(i / 120); /* flat colour */
        cr_assert(eq(int, (int)nas_image_init(ctx, 3, 24, 20, &sr), NAS_OK));
        cr_assert(eq(int, (int)nas_image_init(ctx, 3, 23, 20, &wrong), NAS_OK));
        nas_upscale_graph arg = {.graph = g, .threads = 1};
        cr_assert(eq(int, (int)nas_upscale_by_graph(ctx, &arg, &lr, &sr), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        for (int32_t i = 0; i < 3 * 480; i++) {
            const double expected = 0.25 + 0.05 * (i / 480);
            cr_expect(fabs((double)sr.data[i] - expected) < 1e-3, "%d channels: %g, not %g",
                      (int)channels, (double)sr.data[i], expected);
        }
        cr_expect(eq(int, (int)nas_upscale_by_graph(ctx, &arg, &lr, &wrong), NAS_ERR_SHAPE));
        nas_image_deinit(&wrong);
        nas_image_deinit(&sr);
        nas_image_deinit(&lr);
        nas_graph_free(g);
    }
}

Test(eval_forward, a_graph_without_weights_or_with_other_channels_is_refused) {
    nas_graph *g = net_wdsr(ctx, &net);
    nas_image in = random_image(3, 8, 8), grey = random_image(1, 8, 8), out = {0};
    cr_expect(eq(int, (int)nas_forward(ctx, g, &in, &out, 1), NAS_ERR_INVALID));
    randomise(g);
    cr_expect(eq(int, (int)nas_forward(ctx, g, &grey, &out, 1), NAS_ERR_SHAPE));
    cr_expect(eq(int, (int)nas_forward(ctx, g, &in, &out, 0), NAS_ERR_RANGE));
    cr_expect(out.data == NULL, "an output was written");
    nas_image_deinit(&grey);
    nas_image_deinit(&in);
    nas_graph_free(g);
}

Test(eval_forward, every_failed_allocation_is_reported_and_leaks_nothing) {
    nas_graph *g = luma_net(2);
    nas_image in = random_image(3, 6, 5), sr = {0};
    cr_assert(eq(int, (int)nas_image_init(ctx, 3, 12, 10, &sr), NAS_OK));
    nas_upscale_graph arg = {.graph = g, .threads = 2};
    const long live = nas_mem_live();
    bool clean = false;
    for (long n = 1; n < 500 && !clean; n++) {
        nas_mem_fail_after(n);
        const nas_status status = nas_upscale_by_graph(ctx, &arg, &in, &sr);
        nas_mem_fail_after(0);
        clean = status == NAS_OK;
        cr_expect(clean || status == NAS_ERR_NOMEM, "allocation %ld: %s", n,
                  nas_status_text(status));
        cr_expect(eq(long, nas_mem_live(), live), "allocation %ld leaks", n);
    }
    cr_expect(clean, "never ran to the end");
    nas_image_deinit(&sr);
    nas_image_deinit(&in);
    nas_graph_free(g);
}
