/* test_layers.c - the layer form: whole small networks against the naive reference; fusion, places, meeting points. */
#include "compiler/layers_network_internal.h"
#include "compile_fixture.h"
#include "reference.h"
#include "reference_quantized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char dir[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-layers-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    options.max_threads = 3;
    options.form = NAS_FORM_LAYERS;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_layers, .init = setup, .fini = teardown, .timeout = 240);

/* ---- building ------------------------------------------------------------------------------------------------------ */

static nas_graph *g;
static int32_t serial;

static nas_value add(nas_node proto) {
    char name[32];
    (void)snprintf(name, sizeof name, "n%d", serial++);
    nas_value v = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, name, &proto, &v), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return v;
}

static nas_value input(int32_t h, int32_t w, int32_t c) {
    nas_value v = NAS_VALUE_NONE;
    serial = 0;
    g = nas_graph_new(ctx, "net");
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, h, w, c}, &v), NAS_OK));
    return v;
}

static nas_value conv(nas_value x, int32_t out, int32_t kernel, int32_t stride, int32_t groups) {
    nas_conv_attributes a = nas_conv_same(out, kernel);
    a.stride_h = a.stride_w = stride;
    a.groups = groups;
    return add((nas_node){.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}, .conv = a});
}

static nas_value relu(nas_value x) {
    return add((nas_node){.op = NAS_OP_RELU, .n_inputs = 1, .inputs = {x}});
}

static nas_value unary(nas_value x, nas_unary fn, float alpha, float beta) {
    return add((nas_node){.op = NAS_OP_UNARY,
                          .n_inputs = 1,
                          .inputs = {x},
                          .unary = fn,
                          .alpha = alpha,
                          .beta = beta});
}

static nas_value sum(nas_value a, nas_value b) {
    return add((nas_node){.op = NAS_OP_ADD, .n_inputs = 2, .inputs = {a, b}});
}

static nas_value pool(nas_op op, nas_value x, int32_t kernel, int32_t stride, int32_t pad) {
    return add((nas_node){.op = op,
                          .n_inputs = 1,
                          .inputs = {x},
                          .pool = {.kernel_h = kernel,
                                   .kernel_w = kernel,
                                   .stride_h = stride,
                                   .stride_w = stride,
                                   .pad_top = pad,
                                   .pad_left = pad,
                                   .pad_bottom = pad,
                                   .pad_right = pad}});
}

static nas_value global_pool(nas_value x) {
    const nas_shape s = nas_graph_node(g, x)->shape;
    return add(
        (nas_node){.op = NAS_OP_AVG_POOL,
                   .n_inputs = 1,
                   .inputs = {x},
                   .pool = {.kernel_h = s.h, .kernel_w = s.w, .stride_h = 1, .stride_w = 1}});
}

static nas_value concat(int32_t n, const nas_value *members) {
    nas_node proto = {.op = NAS_OP_CONCAT, .n_inputs = n, .axis = 3};
    for (int32_t i = 0; i < n; i++)
        proto.inputs[i] = members[i];
    return add(proto);
}

static nas_value dense(nas_value x, int32_t out) {
    const nas_shape s = nas_graph_node(g, x)->shape;
    const nas_conv_attributes a = {.out_channels = out,
                                   .kernel_h = s.h,
                                   .kernel_w = s.w,
                                   .stride_h = 1,
                                   .stride_w = 1,
                                   .dilation_h = 1,
                                   .dilation_w = 1,
                                   .groups = 1,
                                   .has_bias = true};
    return add((nas_node){.op = NAS_OP_CONV, .n_inputs = 1, .inputs = {x}, .conv = a});
}

static void finish(nas_value v) {
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, v), NAS_OK));
    reference_fill(ctx, g, 7);
}

/* ---- networks ------------------------------------------------------------------------------------------------------ */

static void resnet(void) {
    nas_value x = relu(conv(input(21, 18, 3), 16, 7, 2, 1));
    x = pool(NAS_OP_MAX_POOL, x, 3, 2, 1);
    x = relu(sum(conv(relu(conv(x, 16, 3, 1, 1)), 16, 3, 1, 1), x));
    const nas_value shortcut = conv(x, 24, 1, 2, 1);
    x = relu(sum(conv(relu(conv(x, 24, 3, 2, 1)), 24, 3, 1, 1), shortcut));
    finish(dense(global_pool(x), 10));
}

static void mobilenet(void) {
    nas_value x = unary(conv(input(20, 23, 3), 12, 3, 2, 1), NAS_UNARY_CLIP, 0, 6);
    for (int32_t i = 0; i < 2; i++) {
        nas_value y = unary(conv(x, 30, 1, 1, 1), NAS_UNARY_CLIP, 0, 6);
        y = unary(conv(y, 30, 3, 1, 30), NAS_UNARY_HARD_SWISH, 0, 0);
        y = conv(y, 12, 1, 1, 1);
        x = sum(y, x);
    }
    x = unary(conv(x, 12, 5, 2, 12), NAS_UNARY_LEAKY_RELU, 0.1F, 0);
    finish(dense(x, 7));
}

/* Members of members, a member with two homes, a member that is read elsewhere, an activation after the concatenation. */
static void dense_block(void) {
    const nas_value x = relu(conv(input(9, 11, 2), 6, 3, 1, 1));
    const nas_value a = relu(conv(x, 5, 3, 1, 1));
    const nas_value xa = concat(2, (const nas_value[]){x, a});
    const nas_value b = conv(xa, 7, 3, 1, 1);
    const nas_value xab = concat(2, (const nas_value[]){xa, b});
    const nas_value twice = concat(3, (const nas_value[]){b, xab, b});
    const nas_value r = relu(twice);
    finish(conv(sum(conv(r, 8, 1, 1, 1), conv(xab, 8, 3, 1, 1)), 3, 5, 1, 1));
}

/* Sums whose operands come in every order; activations that cannot join; the input read twice. */
static void orders(void) {
    const nas_value x = input(8, 10, 4);
    const nas_value a = conv(x, 4, 3, 1, 1), b = conv(x, 4, 1, 1, 1);
    const nas_value early = relu(sum(a, b)); /* two convolutions: the later one takes it */
    const nas_value c = conv(early, 4, 3, 1, 1), d = relu(c);
    const nas_value both = sum(sum(c, d), x); /* c has two readers */
    const nas_value twice = sum(both, both);
    const nas_value e = conv(twice, 4, 3, 1, 4), f = unary(e, NAS_UNARY_SIGMOID, 0, 0);
    finish(sum(f, conv(twice, 4, 3, 1, 2)));
}

/* Values too large for the cache: bands of rows, strides and paddings at both ends, a residual into the chain. */
static void bands(void) {
    const nas_value x = conv(input(70, 61, 3), 8, 3, 1, 1);
    nas_value y = unary(conv(x, 96, 1, 1, 1), NAS_UNARY_CLIP, 0, 6);
    y = relu(conv(y, 96, 5, 1, 96));
    y = relu(sum(conv(y, 8, 1, 1, 1), x));
    y = relu(conv(y, 100, 3, 1, 1));
    y = relu(conv(y, 100, 3, 2, 100));
    finish(conv(y, 4, 1, 1, 1));
}

/* As bands, with values that one band holds far from the end of the chain: its rows are more than those of the result. */
static void long_bands(void) {
    nas_value y = relu(conv(input(60, 64, 3), 100, 3, 1, 1));
    y = relu(conv(y, 96, 1, 1, 1));
    y = relu(conv(y, 96, 5, 1, 96));
    y = relu(conv(y, 100, 1, 1, 1));
    y = relu(conv(y, 100, 3, 2, 100));
    finish(conv(y, 64, 1, 1, 1));
}

/* Blocks of planes that are turned, with rests on both axes. */
static void planes(void) {
    finish(relu(input(5, 19, 17)));
}

/* Narrower than a vector of 16, and of 8, on either axis. */
static void narrow_planes(void) {
    finish(relu(input(3, 11, 40)));
}
static void few_planes(void) {
    finish(relu(input(4, 37, 6)));
}

/* Planes that are turned band by band: into a band of its own, or with a border. */
static void turned_bands(void) {
    finish(conv(input(41, 45, 100), 104, 1, 1, 1));
}
static void turned_border(void) {
    finish(relu(conv(input(41, 45, 100), 100, 3, 1, 100)));
}

static nas_value one(nas_op op, nas_value x, nas_node proto) {
    proto.op = op;
    proto.n_inputs = 1;
    proto.inputs[0] = x;
    return add(proto);
}

static nas_value two(nas_op op, nas_value a, nas_value b) {
    return add((nas_node){.op = op, .n_inputs = 2, .inputs = {a, b}});
}

/* Every elementwise function, second operands of every broadcast shape. */
static void elementwise(void) {
    const nas_value x = input(6, 5, 11);
    nas_value y = x;
    for (int32_t fn = 0; fn < NAS_UNARY_COUNT; fn++) {
        if (fn == NAS_UNARY_SQRT) y = unary(y, NAS_UNARY_ABS, 0, 0);
        y = unary(y, (nas_unary)fn, fn == NAS_UNARY_CLIP ? -0.5F : 0.2F, 0.5F);
    }
    const nas_value pixel =
        one(NAS_OP_SLICE, x, (nas_node){.begin = {0, 2, 3, 0}, .end = {1, 3, 4, 11}});
    const nas_value column =
        one(NAS_OP_SLICE, x, (nas_node){.begin = {0, 0, 1, 4}, .end = {1, 6, 2, 5}});
    const nas_value row =
        one(NAS_OP_SLICE, x, (nas_node){.begin = {0, 5, 0, 0}, .end = {1, 6, 5, 11}});
    y = relu(two(NAS_OP_MUL, y, pixel));
    y = two(NAS_OP_SUB, y, column);
    y = unary(two(NAS_OP_ADD, y, row), NAS_UNARY_HARD_SWISH, 0, 0);
    y = two(NAS_OP_DIV, y, unary(x, NAS_UNARY_AFFINE, 0.5F, 2));
    y = one(NAS_OP_BATCH_NORM, y, (nas_node){.epsilon = 1e-3F});
    y = one(NAS_OP_PRELU, y, (nas_node){0});
    finish(one(NAS_OP_ADD_SCALAR, y, (nas_node){.scalar = 0.25F}));
}

/* Moves, resizes, and a concatenation along rows. */
static void moves(void) {
    nas_value x = conv(input(6, 8, 3), 12, 3, 1, 1);
    const nas_value shuffled = one(NAS_OP_CHANNEL_SHUFFLE, x, (nas_node){.block = 3});
    const nas_value padded =
        one(NAS_OP_PAD, shuffled,
            (nas_node){.begin = {0, 1, 2, 0}, .end = {0, 0, 1, 3}, .scalar = 0.5F});
    const nas_value part =
        one(NAS_OP_SLICE, padded, (nas_node){.begin = {0, 1, 2, 0}, .end = {1, 7, 10, 12}});
    x = add((nas_node){.op = NAS_OP_CONCAT, .n_inputs = 2, .inputs = {part, x}, .axis = 1});
    x = one(NAS_OP_TRANSPOSE, x, (nas_node){.perm = {0, 2, 3, 1}});
    x = one(NAS_OP_RESHAPE, x, (nas_node){.shape = {1, 16, 6, 12}});
    x = one(NAS_OP_DEPTH_TO_SPACE, x, (nas_node){.block = 2});
    static const nas_resize_mode modes[] = {
        NAS_RESIZE_NEAREST_ASYMMETRIC, NAS_RESIZE_NEAREST_HALF_PIXEL,
        NAS_RESIZE_BILINEAR_ASYMMETRIC, NAS_RESIZE_BILINEAR_HALF_PIXEL,
        NAS_RESIZE_BILINEAR_ALIGN_CORNERS};
    for (int32_t i = 0; i < 5; i++)
        x = one(NAS_OP_RESIZE, x,
                (nas_node){.resize = modes[i], .shape = {1, 20 - 3 * i, 7 + 4 * i, 3}});
    finish(x);
}

/* Norms, pools of odd windows, products of two values, transposed convolutions. */
static void mixers(void) {
    nas_value x = conv(input(7, 6, 2), 18, 3, 1, 1);
    x = one(NAS_OP_LAYER_NORM, x, (nas_node){.epsilon = 1e-5F});
    x = one(NAS_OP_LRN, x, (nas_node){.size = 5, .alpha = 0.3F, .beta = 0.75F, .epsilon = 1});
    const nas_value scores =
        add((nas_node){.op = NAS_OP_MATMUL, .n_inputs = 2, .inputs = {x, x}, .transpose_b = true});
    const nas_value shares = one(NAS_OP_SOFTMAX, scores, (nas_node){0});
    x = add((nas_node){.op = NAS_OP_MATMUL, .n_inputs = 2, .inputs = {shares, x}});
    x = one(NAS_OP_MAX_POOL, x,
            (nas_node){.pool = {.kernel_h = 3,
                                .kernel_w = 2,
                                .stride_h = 2,
                                .stride_w = 1,
                                .pad_top = 1,
                                .pad_right = 1}});
    x = one(NAS_OP_AVG_POOL, x,
            (nas_node){.pool = {.kernel_h = 2,
                                .kernel_w = 3,
                                .stride_h = 1,
                                .stride_w = 2,
                                .pad_left = 1,
                                .pad_bottom = 1}});
    x = one(NAS_OP_AVG_POOL, x,
            (nas_node){.pool = {.kernel_h = 3,
                                .kernel_w = 3,
                                .stride_h = 1,
                                .stride_w = 1,
                                .pad_top = 1,
                                .pad_left = 1,
                                .pad_bottom = 1,
                                .pad_right = 1,
                                .count_include_pad = true}});
    nas_conv_attributes a = nas_conv_same(37, 3);
    a.stride_h = 2;
    a.stride_w = 3;
    nas_node up = {.conv = a, .output_pad_h = 1, .output_pad_w = 2};
    x = relu(one(NAS_OP_CONV_TRANSPOSE, x, up));
    a = nas_conv_same(2, 5);
    a.has_bias = false;
    finish(one(NAS_OP_CONV_TRANSPOSE, x, (nas_node){.conv = a}));
}

static void one_pixel(void) {
    nas_value x = relu(conv(input(1, 1, 5), 33, 3, 1, 1));
    finish(conv(x, 9, 1, 1, 1));
}

static void no_kernel_but_a_copy(void) {
    finish(input(3, 2, 4));
}

typedef void build(void);
static build *const networks[] = {resnet,     mobilenet,    dense_block,   orders,
                                  bands,      long_bands,   planes,        narrow_planes,
                                  few_planes, turned_bands, turned_border, elementwise,
                                  moves,      mixers,       one_pixel,     no_kernel_but_a_copy};
static const char *const network_names[] = {
    "resnet",     "mobilenet",    "dense_block",   "orders",
    "bands",      "long_bands",   "planes",        "narrow_planes",
    "few_planes", "turned_bands", "turned_border", "elementwise",
    "moves",      "mixers",       "one_pixel",     "no_kernel_but_a_copy"};
enum { NETWORKS = sizeof networks / sizeof networks[0] };

/* ---- tests --------------------------------------------------------------------------------------------------------- */

/* Of the largest value on the way: rounding of direct sums, and of Winograd where a way uses it. */
static const double tolerance = 2e-4;

static void check(const char *what) {
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(ctx, n_in, 5), *out = nas_alloc_array(ctx, 3 * n_out, sizeof *out);
    double *expected = nas_alloc_array(ctx, n_out, sizeof *expected), magnitude = 0;
    reference_forward(ctx, g, in, expected, &magnitude);
    nas_artifact artifact;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &artifact), NAS_OK), "%s: %s", what,
              nas_ctx_message(ctx));
    for (int32_t threads = 1; threads <= 3; threads++) {
        float *y = out + (size_t)(threads - 1) * n_out;
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &artifact, g, 1, in, y, threads, dir), NAS_OK),
                  "%s: %s", what, nas_ctx_message(ctx));
        double worst = 0;
        for (size_t i = 0; i < n_out; i++)
            worst = fmax(worst, fabs((double)y[i] - expected[i]));
        cr_assert(worst <= tolerance * magnitude, "%s, %d threads: off by %g of %g", what, threads,
                  worst, magnitude);
        cr_assert(eq(int, memcmp(out, y, n_out * sizeof *out), 0), "%s: threads change the result",
                  what);
    }
    nas_free(in);
    nas_free(out);
    nas_free(expected);
    nas_graph_free(g);
}

Test(compiler_layers, networks_match_the_reference) {
    for (size_t i = 0; i < NETWORKS; i++) {
        networks[i]();
        check(network_names[i]);
    }
}

Test(compiler_layers, narrow_vectors_match_the_reference) {
    if (options.target->vector_bytes == 16) cr_skip_test("the vectors are as narrow as can be");
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64", &options.target), NAS_OK));
    for (size_t i = 0; i < NETWORKS; i++) {
        networks[i]();
        check(network_names[i]);
    }
}

static nas__layers *lowered(void) {
    nas__layers *l = NULL;
    cr_assert(eq(int, (int)nas__layers_lower(ctx, g, &options, &l), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return l;
}

/* Takes a target for 64-bit Arm, whose programs run under an emulator. */
static void need_arm(const char *target) {
    cr_assert(eq(int, (int)nas_target_find(ctx, target, &options.target), NAS_OK));
    if (compile_starts(ctx, options.target->compiler) && compile_starts(ctx, "qemu-aarch64"))
        return;
    (void)fprintf(stderr, "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
    cr_skip_test("no cross compiler or no emulator");
}

static int32_t count_layers(const nas__layers *l, nas__conv_algorithm algorithm) {
    int32_t count = 0;
    for (int32_t k = 0; k < l->n_layers; k++)
        count += l->layers[k].kind == NAS__LAYER_CONV &&
                 l->layers[k].ways[l->layers[k].way].algorithm == algorithm;
    return count;
}

/* Network g compiled for options.target, one image, and what the reference makes of it, on 64-bit Arm under an emulator; g
 * and this are freed together. */
typedef struct emulated {
    nas_artifact artifact;
    size_t n;      /* outputs */
    float *in, *y; /* y: two answers */
    double *expected, magnitude;
} emulated;

static emulated emulated_new(void) {
    emulated e = {.n = reference_count(g, nas_graph_output(g))};
    e.in = reference_image(ctx, reference_count(g, nas_graph_input(g)), 5);
    e.y = nas_alloc_array(ctx, 2 * e.n, sizeof *e.y);
    e.expected = nas_alloc_array(ctx, e.n, sizeof *e.expected);
    reference_forward(ctx, g, e.in, e.expected, &e.magnitude);
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &e.artifact), NAS_OK), "%s",
              nas_ctx_message(ctx));
    if (strcmp(options.target->arch, "aarch64") == 0)
        (void)snprintf(e.artifact.runner, sizeof e.artifact.runner, "qemu-aarch64");
    return e;
}

/* The largest difference of the first answer from the reference. */
static double emulated_error(const emulated *e) {
    double worst = 0;
    for (size_t k = 0; k < e->n; k++)
        worst = fmax(worst, fabs((double)e->y[k] - e->expected[k]));
    return worst;
}

static void emulated_free(emulated *e) {
    nas_free(e->in);
    nas_free(e->y);
    nas_free(e->expected);
    nas_graph_free(g);
}

/* One program for every length of the vectors, cut for 64 bytes: the same bits on all of them. */
Test(compiler_layers, networks_on_vectors_of_any_length_match_the_reference) {
    static const char *const models[] = {
        "max,sve-default-vector-length=16", "max,sve-default-vector-length=32",
        "max,sve-default-vector-length=64", "max,sve-default-vector-length=256"};
    need_arm("aarch64-sve");
    for (int i = 0; i < 2; i++) {
        networks[i]();
        nas__layers *l = lowered();
        const int32_t vectors =
            count_layers(l, NAS__CONV_SVE) + count_layers(l, NAS__CONV_SVE_DEPTHWISE);
        nas__layers_free(l);
        cr_expect(vectors >= 3, "%s: %d layers", network_names[i], vectors);
        emulated e = emulated_new();
        for (int k = 0; k < 4; k++) {
            cr_assert(eq(int, setenv("QEMU_CPU", models[k], 1), 0));
            float *out = e.y + (k > 0 ? e.n : 0);
            cr_assert(eq(int,
                         (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, out, 1 + k % 2, dir),
                         NAS_OK),
                      "%s", nas_ctx_message(ctx));
            cr_expect(eq(int, memcmp(e.y, out, e.n * sizeof *e.y), 0), "%s: other bits for %s",
                      network_names[i], models[k]);
        }
        const double worst = emulated_error(&e);
        cr_expect(worst <= tolerance * e.magnitude, "%s: off by %g of %g", network_names[i], worst,
                  e.magnitude);
        emulated_free(&e);
    }
}

/* Every product is off by less than 2^-8 of itself, half a unit of each factor in its last place; what lies behind adds its own.
 * Largest difference over the largest value on the way (docs/half_precision.md). */
static const double bf16_tolerance = 5e-3;

static int32_t count_bf16(const nas__layers *l) {
    return count_layers(l, NAS__CONV_BF16) + count_layers(l, NAS__CONV_BF16_DOT) +
           count_layers(l, NAS__CONV_BF16_TILE);
}

/* least: layers that have such products. One and two threads agree to the last bit. */
static void check_bf16(const emulated *e, const char *name, int32_t least) {
    nas__layers *l = lowered();
    cr_expect(count_bf16(l) >= least, "%s: %d layers", name, count_bf16(l));
    nas__layers_free(l);
    for (int k = 0; k < 2; k++)
        cr_assert(eq(int,
                     (int)nas_artifact_run(ctx, &e->artifact, g, 1, e->in, e->y + (size_t)k * e->n,
                                           1 + k, dir),
                     NAS_OK),
                  "%s", nas_ctx_message(ctx));
    cr_expect(eq(int, memcmp(e->y, e->y + e->n, e->n * sizeof *e->y), 0));
    const double worst = emulated_error(e);
    if (getenv("NAS_HALF_VERBOSE") != NULL)
        (void)fprintf(stderr, "%s: %.2e\n", name, worst / e->magnitude);
    cr_expect(worst <= bf16_tolerance * e->magnitude, "%s: off by %g of %g", name, worst,
              e->magnitude);
    cr_expect(worst > 1e-5 * e->magnitude, "%s: as exact as floats", name);
}

static void check_bf16_here(const char *target) {
    cr_assert(eq(int, (int)nas_target_find(ctx, target, &options.target), NAS_OK));
    if (!options.target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what %s needs\n", target);
        cr_skip_test("not on this processor");
    }
    options.dtype = NAS_DTYPE_BF16;
    for (int i = 0; i < 2; i++) {
        networks[i]();
        emulated e = emulated_new();
        check_bf16(&e, network_names[i], 1); /* layers are small: floats win most of them */
        emulated_free(&e);
    }
}

Test(compiler_layers, networks_with_products_of_bf16_in_tiles_stay_within_their_bound) {
    check_bf16_here("x86-64-amx");
}
Test(compiler_layers, networks_with_products_of_bf16_in_vectors_stay_within_their_bound) {
    check_bf16_here("x86-64-avx512bf16");
}

/* This processor with one feature that none has: the program says so and ends. */
Test(compiler_layers, programs_with_products_of_bf16_name_what_the_processor_lacks) {
    nas_target lacking;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512bf16", &options.target), NAS_OK));
    if (!options.target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what x86-64-avx512bf16 needs\n");
        cr_skip_test("not on this processor");
    }
    lacking = *options.target;
    char needs[256];
    (void)snprintf(needs, sizeof needs, "%s,avx512bf16_not", lacking.needs);
    lacking.needs = needs;
    options.target = &lacking;
    options.dtype = NAS_DTYPE_BF16;
    resnet();
    emulated e = emulated_new();
    cr_assert(
        eq(int, (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, e.y, 1, dir), NAS_ERR_DEVICE));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "avx512bf16_not"), NULL), "%s",
              nas_ctx_message(ctx));
    emulated_free(&e);
}

Test(compiler_layers, networks_with_products_of_bf16_stay_within_their_bound) {
    need_arm("aarch64-bf16");
    options.dtype = NAS_DTYPE_BF16;
    for (int i = 0; i < 2; i++) {
        networks[i]();
        emulated e = emulated_new();
        check_bf16(&e, network_names[i], 4);
        cr_assert(eq(int, setenv("QEMU_CPU", "cortex-a76", 1), 0));
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, e.y, 1, dir),
                     NAS_ERR_DEVICE));
        cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "bf16"), NULL), "%s", nas_ctx_message(ctx));
        cr_assert(eq(int, unsetenv("QEMU_CPU"), 0));
        emulated_free(&e);
    }
}

static void expect_refusal(const char *text) {
    nas_buf c = {0}, h = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, &options, &c, &h), NAS_ERR_UNSUPPORTED));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), text), NULL), "%s", nas_ctx_message(ctx));
    nas_buf_deinit(&c);
    nas_buf_deinit(&h);
}

Test(compiler_layers, bf16_is_refused_where_it_has_no_kernels) {
    resnet();
    options.dtype = NAS_DTYPE_BF16;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-linux", &options.target), NAS_OK));
    expect_refusal("compute in bf16; take target aarch64-bf16, or name a processor that does: "
                   "neoverse-v1, neoverse-n2, cortex-a510");
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx2", &options.target), NAS_OK));
    expect_refusal("take target x86-64-avx512bf16, x86-64-amx");
    cr_assert(eq(int, (int)nas_target_find(ctx, "riscv64-rvv", &options.target), NAS_OK));
    expect_refusal("of other architectures do targets x86-64-avx512bf16, x86-64-amx, aarch64-bf16");
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-bf16", &options.target), NAS_OK));
    options.form = NAS_FORM_ROWS;
    expect_refusal("bf16 has kernels for layers alone");
    nas_graph_free(g);
    /* every layer has ways of floats beside those of bf16, and a network of floats none of bf16 */
    resnet();
    options.form = NAS_FORM_LAYERS;
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_compile_explain(ctx, g, &options, &text), NAS_OK));
    cr_expect(ne(ptr, strstr(text.data, "* bf16 "), NULL));
    cr_expect(ne(ptr, strstr(text.data, "  direct "), NULL));
    nas_buf_deinit(&text);
    options.dtype = NAS_DTYPE_FP32;
    nas__layers *l = lowered();
    cr_expect(eq(int, count_bf16(l), 0));
    nas__layers_free(l);
    nas_graph_free(g);
}

Test(compiler_layers, sums_and_activations_join_their_convolutions) {
    resnet();
    nas__layers *l = lowered();
    /* input, 7x7, pool, four 3x3, shortcut, global pool, dense, output */
    cr_assert(eq(int, l->n_layers, 11));
    int32_t residuals = 0, activations = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        residuals += l->layers[i].conv.has_residual;
        activations += l->layers[i].conv.act == NAS__LACT_RELU;
    }
    cr_assert(eq(int, residuals, 2));
    cr_assert(eq(int, activations, 5));
    nas__layers_free(l);
    nas_graph_free(g);
}

Test(compiler_layers, members_of_a_concatenation_are_computed_in_its_buffer) {
    dense_block();
    nas__layers *l = lowered();
    int32_t copies = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        copies += layer->kind == NAS__LAYER_OP && layer->op.node->op == NAS_OP_CONCAT;
    }
    cr_assert(eq(int, copies, 2)); /* b, which the second concatenation names twice */
    nas__layers_free(l);
    nas_graph_free(g);
}

/* Brute force over what the plan promises: who lives at the same time does not share memory. */
Test(compiler_layers, living_buffers_never_share_memory) {
    for (size_t i = 0; i < NETWORKS; i++) {
        networks[i]();
        nas__layers *l = lowered();
        for (int32_t a = 0; a < l->n_buffers; a++) {
            const nas__layer_buffer *x = &l->buffers[a];
            cr_assert(le(sz, x->at + x->floats, l->value_floats));
            for (int32_t b = 0; b < a; b++) {
                const nas__layer_buffer *y = &l->buffers[b];
                const bool together = x->first <= y->last && y->first <= x->last;
                cr_assert(not(together && x->at < y->at + y->floats && y->at < x->at + x->floats),
                          "%s: buffers %d and %d", network_names[i], a, b);
            }
        }
        nas__layers_free(l);
        nas_graph_free(g);
    }
}

Test(compiler_layers, large_values_go_through_chains_in_bands) {
    bands();
    nas_target target = *options.target;
    target.l2_bytes = 512 * 1024; /* whatever runs the tests may have more */
    options.target = &target;
    nas__layers *l = lowered();
    int32_t chains = 0, inside = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        chains += l->layers[i].chain > 1;
        inside += l->layers[i].chain == 0;
    }
    cr_assert(ge(int, chains, 1));
    cr_assert(ge(int, inside, 2));
    nas__layers_free(l);
    nas_graph_free(g);
}

/* The caller's planes are turned a band at a time, too, where their pixels do not fit the cache. */
Test(compiler_layers, both_ends_belong_to_the_chain) {
    nas_target small = *options.target; /* so that the values leave the cache */
    small.l2_bytes = small.l2_bytes < 1 << 20 ? small.l2_bytes : 1 << 20;
    options.target = &small;
    static build *const ends[] = {turned_bands, turned_border};
    for (int32_t i = 0; i < 2; i++) {
        ends[i]();
        nas__layers *l = lowered();
        cr_assert(eq(int, l->n_layers, 3));
        cr_assert(eq(int, l->layers[0].chain, 3));
        cr_assert(eq(int, l->layers[2].chain, 0));
        nas__layers_free(l);
        nas_graph_free(g);
    }
}

Test(compiler_layers, what_cannot_be_compiled_is_named) {
    nas_value v = NAS_VALUE_NONE;
    g = nas_graph_new(ctx, "batch");
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "frames", (nas_shape){2, 4, 4, 1}, &v), NAS_OK));
    finish(v);
    nas__layers *l = NULL;
    cr_assert(eq(int, (int)nas__layers_lower(ctx, g, &options, &l), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "frames"), NULL));
    nas_graph_free(g);
    resnet();
    options.max_threads = 0;
    cr_assert(eq(int, (int)nas__layers_lower(ctx, g, &options, &l), NAS_ERR_INVALID));
    nas_graph_free(g);
}

static bool goes_by_rows(nas_value end) {
    finish(end);
    options.form = NAS_FORM_AUTO;
    nas__form form = {0};
    cr_assert(eq(int, (int)nas__form_lower(ctx, g, &options, &form), NAS_OK), "%s",
              nas_ctx_message(ctx));
    const bool rows = form.rows != NULL;
    nas__form_free(&form);
    nas_graph_free(g);
    return rows;
}

/* Winograd pays for the traffic of whole images where 3x3 convolutions have many channels, not for 1x1 ones. */
Test(compiler_layers, the_form_follows_the_network) {
    nas_value v = conv(input(128, 128, 3), 64, 3, 1, 1);
    cr_assert(not(goes_by_rows(conv(relu(conv(v, 64, 3, 1, 1)), 64, 3, 1, 1))));
    v = conv(input(128, 128, 3), 16, 3, 1, 1);
    cr_assert(goes_by_rows(conv(relu(conv(v, 96, 1, 1, 1)), 12, 1, 1, 1)));
    v = conv(input(40, 40, 3), 16, 3, 1, 1); /* small images always by layers */
    cr_assert(not(goes_by_rows(conv(relu(conv(v, 96, 1, 1, 1)), 12, 1, 1, 1))));
}

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

Test(compiler_layers, codes_stay_codes) {
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
Test(compiler_layers, values_of_few_channels_lie_in_planes) {
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
Test(compiler_layers, planes_are_taken_where_they_are_faster) {
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
Test(compiler_layers, products_and_moves_stay_codes) {
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

/* By layers a transposed convolution is one of its phases, and the shuffle. */
Test(compiler_layers, transposed_convolutions_become_phases) {
    const nas_value x = input(5, 6, 3);
    nas_node proto = {.op = NAS_OP_CONV_TRANSPOSE, .n_inputs = 1, .inputs = {x}};
    proto.conv = nas_conv_same(2, 5);
    proto.conv.stride_h = proto.conv.stride_w = 2;
    proto.output_pad_h = proto.output_pad_w = 1;
    nas_value v = NAS_VALUE_NONE;
    cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, "up", &proto, &v), NAS_OK), "%s",
              nas_ctx_message(ctx));
    finish(v);
    nas_graph *phases = NULL;
    cr_assert(eq(int, (int)nas__graph_phases(ctx, g, &phases), NAS_OK));
    cr_assert(eq(int, nas_graph_node_count(phases), 3));
    const nas_node *conv_node = nas_graph_node(phases, 1);
    cr_assert(eq(int, (int)conv_node->op, (int)NAS_OP_CONV));
    cr_assert(eq(int, conv_node->conv.out_channels, 8));
    cr_assert(eq(int, conv_node->conv.kernel_h, 3)); /* 5 taps reach one pixel to each side */
    cr_assert(eq(int, (int)nas_graph_verify(ctx, phases), NAS_OK));
    nas_graph_free(phases);
    check("phases");
    g = NULL;
}

/* A value that is rounded is not the same as the sum it comes from, and what has no integer kernel computes in floats. */
Test(compiler_layers, what_has_no_integer_kernel_is_decoded_and_coded_again) {
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

Test(compiler_layers, rows_refuse_integers) {
    quantized();
    options.form = NAS_FORM_ROWS;
    nas_artifact artifact;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &artifact), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "is quantized"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_graph_free(g);
}

Test(compiler_layers, every_failed_allocation_is_reported_and_nothing_leaks) {
    dense_block();
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK && n < 100000; n++) {
        nas__layers *l = NULL;
        nas__sources sources = {0};
        nas_mem_fail_after(n);
        status = nas__layers_lower(ctx, g, &options, &l);
        if (status == NAS_OK) status = nas__layers_emit(ctx, l, &sources);
        nas_mem_fail_after(0);
        nas__sources_deinit(&sources);
        nas__layers_free(l);
        cr_assert(status == NAS_OK || status == NAS_ERR_NOMEM, "allocation %ld: %s", n,
                  nas_ctx_message(ctx));
    }
    cr_assert(eq(int, (int)status, NAS_OK));
    nas_graph_free(g);
}
