/* test_layers.c - the layer form: whole small networks against the naive reference; fusion, places, meeting points. */
#include "compile_fixture.h"
#include "layer_nets.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(compiler_layers, .init = layer_nets_setup, .fini = layer_nets_teardown, .timeout = 240);

/* ---- networks ------------------------------------------------------------------------------------------------------ */

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

/* A cache so small that everything leaves it: bands of a row or two, whose rows are moved where the next one reads them
 * again, in every network. */
Test(compiler_layers, networks_in_bands_of_few_rows_match_the_reference) {
    nas_target target = *options.target;
    target.l2_bytes = 16 * 1024;
    options.target = &target;
    int32_t moved = 0;
    for (size_t i = 0; i < NETWORKS; i++) {
        networks[i]();
        nas__layers *l = lowered();
        for (nas_value v = 0; v < l->n_values; v++)
            moved += l->places[v].slides;
        nas__layers_free(l);
        check(network_names[i]);
    }
    cr_assert(ge(int, moved, 6));
}

/* Zeros in blocks of four outputs, a third of them left; empty rows and columns among them. */
static void leave_weights_out(void) {
    enum { GROUP = 4, KEPT = 3 };
    for (int32_t i = 0; i < nas_graph_node_count(g); i++) {
        const nas_node *n = nas_graph_node(g, i);
        if (n->op != NAS_OP_CONV || n->conv.groups != 1 || n->conv.kernel_h != 1) continue;
        nas_param *w = nas_graph_param(g, n->params[0]);
        const size_t in_c = w->count / (size_t)n->shape.c;
        for (size_t k = 0; k < w->count; k++) {
            const size_t block = k / in_c / GROUP, c = k % in_c;
            if ((block * 5 + c) % KEPT != 0 || block == 1 || c == in_c / 2) w->data[k] = 0;
        }
    }
}

/* Blocks of MobileNet-V2 whose rows are 61 pixels, and 31: no tile of 16 lanes ends with them. */
static void sparse_bands(void) {
    const nas_value x = conv(input(56, 61, 3), 32, 3, 1, 1);
    nas_value y = unary(conv(x, 128, 1, 1, 1), NAS_UNARY_CLIP, 0, 6);
    y = relu(conv(y, 128, 3, 1, 128));
    y = relu(conv(sum(conv(y, 32, 1, 1, 1), x), 128, 1, 1, 1));
    y = relu(conv(y, 128, 3, 2, 128));
    finish(conv(y, 64, 1, 1, 1));
    leave_weights_out();
}

Test(compiler_layers, sparse_layers_in_bands_match_the_reference) {
    nas_target target = *options.target;
    target.l2_bytes = 64 * 1024;
    options.target = &target;
    sparse_bands();
    check("sparse bands");
}

Test(compiler_layers, sparse_layers_belong_to_chains_on_avx512) {
    const nas_target *found = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512", &found), NAS_OK));
    nas_target target = *found;
    target.l2_bytes = 512 * 1024;
    options.target = &target;
    sparse_bands();
    nas__layers *l = lowered();
    int32_t inside = 0;
    for (int32_t i = 0; i < l->n_layers; i++) {
        const nas__layer *layer = &l->layers[i];
        if (layer->kind != NAS__LAYER_CONV || layer->chain == 1) continue;
        const nas__conv_algorithm a = layer->ways[layer->way].algorithm;
        inside += a == NAS__CONV_SPARSE_PANEL || a == NAS__CONV_SPARSE_CODE;
    }
    cr_assert(ge(int, inside, 3));
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
