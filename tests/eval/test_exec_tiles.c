/* test_exec_tiles.c - convolutions by bf16 tiles on generated shapes: against sums in doubles over the rounded values, and within
 * the bound of rounding both operands against fp32. */
#include "eval/eval.h"

#include <criterion/criterion.h>

#include <math.h>
#include <string.h>

enum { SHAPES = 60, IMAGES = 5, SIDE_MAX = 40, CHANNELS_MAX = 70 };

/* Up to 25 * 70 products are added in fp32; seen: 2e-7 of the sum of their sizes. */
static const double sum_tolerance = 5e-6;
/* Both operands are off by up to 2^-8 of themselves: (1 + 2^-8)^2 - 1, and the rounding of fp32. */
static const double bf16_bound = 0.00784;

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
    cr_assert(ctx != NULL);
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(eval_exec_tiles, .init = setup, .fini = teardown, .timeout = 300);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

typedef struct images {
    float *data;
    size_t each;
} images;

static void read_image(void *arg, size_t index, float *hwc) {
    const images *i = arg;
    memcpy(hwc, i->data + index * i->each, i->each * sizeof *hwc);
}

static void fill(float *x, size_t n, nas_rng *rng) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)nas_rng_normal(rng);
}

static float rounded(float x) {
    uint32_t bits = 0;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fffU + (bits >> 16 & 1U)) & 0xffff0000U;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static int32_t between(nas_rng *rng, int32_t least, int32_t most) {
    return least + (int32_t)nas_rng_below(rng, (uint32_t)(most - least + 1));
}

/* A convolution with a ReLU behind it in every second network. */
static nas_graph *network(nas_rng *rng, nas_shape *in) {
    nas_graph *g = nas_graph_new(ctx, "conv");
    nas_value x = 0;
    const int32_t kernel_h = between(rng, 1, 5), kernel_w = between(rng, 1, 5);
    const nas_conv_attributes conv = {.out_channels = between(rng, 1, CHANNELS_MAX),
                                      .kernel_h = kernel_h,
                                      .kernel_w = kernel_w,
                                      .stride_h = between(rng, 1, 3),
                                      .stride_w = between(rng, 1, 3),
                                      .dilation_h = between(rng, 1, 2),
                                      .dilation_w = between(rng, 1, 2),
                                      .pad_top = between(rng, 0, kernel_h - 1),
                                      .pad_left = between(rng, 0, kernel_w - 1),
                                      .pad_bottom = between(rng, 0, kernel_h - 1),
                                      .pad_right = between(rng, 0, kernel_w - 1),
                                      .groups = 1,
                                      .has_bias = nas_rng_below(rng, 2) == 0};
    *in = (nas_shape){1, between(rng, 9, SIDE_MAX), between(rng, 9, SIDE_MAX),
                      between(rng, 1, CHANNELS_MAX)};
    OK(nas_graph_add_input(ctx, g, "image", *in, &x));
    OK(nas_graph_add_conv(ctx, g, "conv", x, &conv, &x));
    if (nas_rng_below(rng, 2) == 0) OK(nas_graph_add_relu(ctx, g, "relu", x, &x));
    OK(nas_graph_set_output(ctx, g, x));
    OK(nas_graph_alloc_weights(ctx, g));
    for (int32_t i = 0; i < nas_graph_param_count(g); i++)
        fill(nas_graph_param(g, i)->data, nas_graph_param(g, i)->count, rng);
    return g;
}

/* One output: its sum over rounded values, over those as they are, and the sum of the sizes of its products. */
typedef struct sums {
    double of_rounded, exact, sizes;
} sums;

static sums sum_of(const nas_graph *g, const float *image, nas_shape in, int32_t oy, int32_t ox,
                   int32_t o) {
    const nas_node *node = nas_graph_node(g, 1);
    const nas_conv_attributes *c = &node->conv;
    const float *w = nas_graph_param_const(g, node->params[0])->data;
    const double bias =
        c->has_bias ? (double)nas_graph_param_const(g, node->params[1])->data[o] : 0;
    sums s = {bias, bias, fabs(bias)};
    for (int32_t t = 0; t < c->kernel_h * c->kernel_w; t++) {
        const int32_t y = oy * c->stride_h - c->pad_top + t / c->kernel_w * c->dilation_h;
        const int32_t x = ox * c->stride_w - c->pad_left + t % c->kernel_w * c->dilation_w;
        if (y < 0 || y >= in.h || x < 0 || x >= in.w) continue;
        for (int32_t i = 0; i < in.c; i++) {
            const float a = image[(y * in.w + x) * in.c + i];
            const float b = w[(o * c->kernel_h * c->kernel_w + t) * in.c + i];
            s.of_rounded += (double)rounded(a) * (double)rounded(b);
            s.exact += (double)a * (double)b;
            s.sizes += fabs((double)a * (double)b);
        }
    }
    return s;
}

static void answers(const nas_graph *g, images *from, int32_t chunk, int32_t threads, float *out) {
    const nas_exec_options o = {.chunk = chunk, .threads = threads, .bf16 = true};
    nas_exec *e = NULL;
    OK(nas_exec_new(ctx, g, &o, &e));
    OK(nas_exec_run(ctx, e, IMAGES, read_image, from, out));
    nas_exec_free(e);
}

static void check(const nas_graph *g, const images *from, nas_shape in, const float *got,
                  int32_t number) {
    const nas_shape out = nas_graph_node(g, nas_graph_output(g))->shape;
    const bool relu = nas_graph_output(g) > 1;
    for (int32_t i = 0; i < IMAGES * out.h * out.w * out.c; i++) {
        const int32_t o = i % out.c, x = i / out.c % out.w, y = i / out.c / out.w % out.h;
        const int32_t image = i / out.c / out.w / out.h;
        if ((i + number) % 7 != 0) continue; /* every output now and then */
        sums s = sum_of(g, from->data + (size_t)image * from->each, in, y, x, o);
        if (relu) {
            s.of_rounded = fmax(s.of_rounded, 0);
            s.exact = fmax(s.exact, 0);
        }
        cr_assert(fabs((double)got[i] - s.of_rounded) <= sum_tolerance * s.sizes,
                  "shape %d image %d [%d][%d][%d]: %g, not %g of %g", (int)number, (int)image,
                  (int)y, (int)x, (int)o, (double)got[i], s.of_rounded, s.sizes);
        cr_assert(fabs((double)got[i] - s.exact) <= bf16_bound * s.sizes,
                  "shape %d image %d [%d][%d][%d]: %g by bf16, %g by fp32 of %g", (int)number,
                  (int)image, (int)y, (int)x, (int)o, (double)got[i], s.exact, s.sizes);
    }
}

Test(eval_exec_tiles, generated_convolutions_are_sums_of_rounded_values_for_any_chunk_and_threads) {
    if (!nas_exec_has_bf16()) cr_skip("no AMX-BF16 here");
    for (int32_t k = 0; k < SHAPES; k++) {
        nas_rng rng = nas_rng_stream(1, (uint64_t)k, "tiles");
        nas_shape in = {0};
        nas_graph *g = network(&rng, &in);
        const nas_shape out = nas_graph_node(g, nas_graph_output(g))->shape;
        const size_t floats = (size_t)IMAGES * (size_t)(out.h * out.w * out.c);
        images from = {.each = (size_t)(in.h * in.w * in.c)};
        from.data = nas_alloc_array(ctx, IMAGES * from.each, sizeof *from.data);
        float *got = nas_alloc_array(ctx, floats, sizeof *got);
        float *again = nas_alloc_array(ctx, floats, sizeof *again);
        cr_assert(from.data != NULL && got != NULL && again != NULL);
        fill(from.data, IMAGES * from.each, &rng);
        answers(g, &from, IMAGES, 1, got);
        check(g, &from, in, got, k);
        for (int32_t chunk = 1; chunk < IMAGES; chunk++) {
            answers(g, &from, chunk, 1 + chunk % 2, again);
            cr_assert(memcmp(got, again, floats * sizeof *got) == 0, "shape %d chunk %d", (int)k,
                      (int)chunk);
        }
        nas_free(from.data);
        nas_free(got);
        nas_free(again);
        nas_graph_free(g);
    }
}

Test(eval_exec_tiles, bf16_is_refused_where_it_is_not_to_be_had_and_for_statistics) {
    nas_rng rng = nas_rng_stream(2, 0, "tiles");
    nas_shape in = {0};
    nas_graph *g = network(&rng, &in);
    const nas_exec_options o = {.chunk = 1, .threads = 1, .bf16 = true};
    const nas_value conv = 1;
    nas_exec *e = NULL;
    nas_exec_gram gram = {0};
    images none = {0};
    if (!nas_exec_has_bf16()) {
        cr_assert(nas_exec_new(ctx, g, &o, &e) == NAS_ERR_UNSUPPORTED);
        cr_expect(strstr(nas_ctx_message(ctx), "AMX-BF16") != NULL);
    }
    cr_assert(nas_exec_grams(ctx, g, &o, &conv, 1, 1, 1, 1, read_image, &none, &gram) ==
              NAS_ERR_UNSUPPORTED);
    cr_expect(strstr(nas_ctx_message(ctx), "bf16") != NULL);
    nas_graph_free(g);
}
