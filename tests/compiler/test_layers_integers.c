/* test_layers_integers.c - networks of codes in the layer form: what stays codes, what lies in planes, what computes in floats. */
#include "compile_fixture.h"
#include "layer_nets.h"
#include "reference.h"
#include "reference_quantized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(compiler_layers_integers, .init = layer_nets_setup, .fini = layer_nets_teardown,
          .timeout = 240);

/* Both operands of the sum stay codes from the image to the caller's planes. */
static void quantized(void) {
    const nas_quant q = {.is_set = true, .scale = 0.05F, .zero_point = 120};
    const nas_value x = input(9, 7, 3), a = conv(x, 8, 3, 1, 1), b = relu(conv(a, 8, 3, 1, 1));
    nas_value sum = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "sum", a, b, &sum), NAS_OK));
    const nas_value coded[] = {x, a, b, sum};
    for (int32_t i = 0; i < 4; i++)
        cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, coded[i], q), NAS_OK));
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        const float scales[8] = {.01F, .02F, .01F, .03F, .01F, .01F, .02F, .01F};
        if (node->op == NAS_OP_CONV)
            cr_assert(eq(int, (int)nas_graph_set_weight_scales(ctx, g, node->params[0], 8, scales),
                         NAS_OK));
    }
    finish(sum);
}

Test(compiler_layers_integers, codes_stay_codes) {
    quantized();
    nas__layers *l = lowered();
    cr_assert(eq(int, l->n_layers, 4)); /* quantize, two convolutions, output */
    for (int32_t i = 0; i < 3; i++)
        cr_assert(
            eq(int, (int)l->layers[i].kind, (int)(i == 0 ? NAS__LAYER_QOP : NAS__LAYER_QCONV)));
    cr_assert(l->layers[2].qconv.joins && !l->layers[1].qconv.joins);
    nas__layers_free(l);
    nas_graph_free(g);
}

static void store(nas_value v, float scale, int32_t zero) {
    const nas_quant q = {.is_set = true, .scale = scale, .zero_point = zero};
    cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, v, q), NAS_OK));
}

static nas_value coded_conv(nas_value x, int32_t out, int32_t kernel, float scale, int32_t zero) {
    float scales[32];
    const nas_value v = conv(x, out, kernel, 1, 1);
    for (int32_t o = 0; o < out; o++)
        scales[o] = 0.004F + 0.0005F * (float)o;
    cr_assert(eq(
        int, (int)nas_graph_set_weight_scales(ctx, g, nas_graph_node(g, v)->params[0], 8, scales),
        NAS_OK));
    if (scale > 0) store(v, scale, zero);
    return v;
}

static nas_value coded_prelu(nas_value x, float scale, int32_t zero) {
    const nas_value v = add((nas_node){.op = NAS_OP_PRELU, .n_inputs = 1, .inputs = {x}});
    store(v, scale, zero);
    return v;
}

/* Super-resolution: wide, few channels, one at the begin, a shuffle at the end; too large for a cache. */
static void upscaler(int32_t h, int32_t w) {
    const nas_value x = input(h, w, 1);
    store(x, 0.03F, 128);
    const nas_value a = coded_prelu(coded_conv(x, 13, 5, 0.03F, 100), 0.04F, 90);
    const nas_value wide = relu(coded_conv(a, 24, 1, 0, 0));
    store(wide, 0.05F, 120);
    const nas_value b = coded_conv(wide, 13, 3, 0.04F, 140);
    const nas_value added = sum(b, a);
    store(added, 0.05F, 130);
    const nas_value last =
        coded_conv(coded_prelu(coded_conv(added, 20, 3, 0.06F, 110), 0.05F, 100), 9, 3, 0.07F, 128);
    const nas_value end =
        add((nas_node){.op = NAS_OP_DEPTH_TO_SPACE, .n_inputs = 1, .inputs = {last}, .block = 3});
    store(end, 0.07F, 128);
    finish(end);
}

/* Where there are kernels for them values lie in planes, all but the image of one channel; elsewhere nothing changes. */
Test(compiler_layers_integers, values_of_few_channels_lie_in_planes) {
    enum { H = 700, W = 70, IN = H * W, OUT = 9 * H * W };
    upscaler(H, W);
    const nas_compile_options native = options;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512vnni", &options.target), NAS_OK));
    nas__layers *l = lowered();
    cr_assert(eq(int, l->n_layers, 7)); /* the image, five convolutions, the output */
    for (int32_t i = 1; i < 6; i++) {
        const nas__qconv *q = &l->layers[i].qconv;
        cr_assert(eq(int, (int)l->layers[i].qways[0].algorithm, (int)NAS__QCONV_PIXELS));
        cr_assert(q->prelu == (i == 1 || i == 4) && (q->in_plane > 0) == (i > 1));
    }
    cr_assert(l->layers[2].chain > 1);
    nas__layers_free(l);
    options = native;
    float *in = nas_alloc_array(ctx, IN, sizeof *in), *want = nas_alloc_array(ctx, OUT, sizeof *in),
          *got = nas_alloc_array(ctx, OUT, sizeof *in);
    nas_rng rng = nas_rng_stream(6, 0, "codes");
    for (int i = 0; i < IN; i++)
        in[i] = (float)(6 * nas_rng_uniform(&rng) - 3);
    nas_artifact a;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)reference_quantized(ctx, g, in, want), NAS_OK));
    for (int32_t threads = 1; threads <= 3; threads++) {
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &a, g, 1, in, got, threads, dir), NAS_OK));
        cr_assert(memcmp(got, want, OUT * sizeof *got) == 0, "%d threads", threads);
    }
    nas_free(in);
    nas_free(want);
    nas_free(got);
    nas_graph_free(g);
}

/* Is the value of the second of several convolutions in planes? */
static bool takes_planes(const char *target) {
    const nas_compile_options native = options;
    cr_assert(eq(int, (int)nas_target_find(ctx, target, &options.target), NAS_OK));
    nas__layers *l = lowered();
    const bool planes = l->layers[2].qconv.out_plane > 0;
    for (int32_t i = 1; i + 1 < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        const int algorithm = (int)layer->qways[0].algorithm;
        cr_assert(planes == (layer->qconv.out_plane > 0));
        if (planes)
            cr_assert(algorithm == NAS__QCONV_PIXELS || algorithm == NAS__QCONV_PLANE_TILES);
        else
            cr_assert(eq(int, algorithm, (int)NAS__QCONV_MATRIX));
    }
    nas__layers_free(l);
    options = native;
    return planes;
}

/* Beside tile registers estimates decide: prelus of few channels in planes, many products in pixels. */
Test(compiler_layers_integers, planes_are_taken_where_they_are_faster) {
    upscaler(90, 130);
    cr_assert(takes_planes("x86-64-avx512vnni") && takes_planes("x86-64-amx"));
    nas_graph_free(g);
    const nas_value x = input(90, 130, 16);
    store(x, 0.03F, 128);
    const nas_value wide = coded_conv(x, 32, 3, 0.03F, 100);
    finish(coded_conv(coded_conv(wide, 32, 3, 0.04F, 120), 16, 3, 0.05F, 110));
    cr_assert(takes_planes("x86-64-avx512vnni") && !takes_planes("x86-64-amx"));
    nas_graph_free(g);
}

/* Squeeze and excitation, a shuffle, a resize: codes from the image to the caller's planes, as the reference has them. */
Test(compiler_layers_integers, products_and_moves_stay_codes) {
    enum { IN = 6 * 5 * 8, OUT = 18 * 15 * 2 };
    const nas_value x = input(6, 5, 8), mean = global_pool(x);
    const nas_value product = add((nas_node){.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {x, mean}});
    const nas_value shifted = sum(product, mean);
    const nas_value shuffled = add(
        (nas_node){.op = NAS_OP_DEPTH_TO_SPACE, .n_inputs = 1, .inputs = {shifted}, .block = 2});
    const nas_value large = add((nas_node){.op = NAS_OP_RESIZE,
                                           .n_inputs = 1,
                                           .inputs = {shuffled},
                                           .resize = NAS_RESIZE_NEAREST_HALF_PIXEL,
                                           .shape = {1, 18, 15, 2}});
    store(x, 0.031F, 120);
    store(mean, 0.02F, 101);
    store(product, 0.05F, 90);
    store(shifted, 0.06F, 110);
    store(shuffled, 0.06F, 110);
    store(large, 0.043F, 128); /* coded anew on the way */
    finish(large);
    nas__layers *l = lowered();
    for (int32_t i = 0; i + 1 < l->n_layers; i++)
        cr_assert(eq(int, (int)l->layers[i].kind, (int)NAS__LAYER_QOP));
    cr_assert(eq(int, l->n_layers, 7)); /* nothing is decoded in between */
    nas__layers_free(l);
    float in[IN], want[OUT], got[OUT];
    nas_rng rng = nas_rng_stream(5, 0, "codes");
    for (int i = 0; i < IN; i++)
        in[i] = (float)(8 * nas_rng_uniform(&rng) - 4);
    nas_artifact a;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)reference_quantized(ctx, g, in, want), NAS_OK));
    for (int32_t threads = 1; threads <= 3; threads++) {
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &a, g, 1, in, got, threads, dir), NAS_OK));
        for (int i = 0; i < OUT; i++)
            cr_assert(got[i] == want[i], "%d threads, %d: %g, not %g", threads, i, (double)got[i],
                      (double)want[i]);
    }
    nas_graph_free(g);
}

/* A value that is rounded is not the same as the sum it comes from, and what has no integer kernel computes in floats. */
Test(compiler_layers_integers, what_has_no_integer_kernel_is_decoded_and_coded_again) {
    const nas_quant q = {.is_set = true, .scale = 0.05F, .zero_point = 120};
    const nas_value x = input(9, 7, 3), a = conv(x, 8, 3, 1, 1);
    cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, x, q), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_quant(ctx, g, a, q), NAS_OK)); /* fp32 weights */
    finish(relu(a));
    nas__layers *l = lowered();
    /* quantize, decode, conv, encode, decode, relu, output */
    cr_assert(eq(int, l->n_layers, 7));
    cr_assert(eq(int, (int)l->layers[2].kind, (int)NAS__LAYER_CONV));
    cr_assert(eq(int, (int)l->layers[2].conv.act, (int)NAS__LACT_NONE));
    nas__layers_free(l);
    nas_graph_free(g);
}

Test(compiler_layers_integers, rows_refuse_integers) {
    quantized();
    options.form = NAS_FORM_ROWS;
    nas_artifact artifact;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &artifact), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "is quantized"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_graph_free(g);
}
