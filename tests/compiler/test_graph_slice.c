/* test_graph_slice.c - networks without the channels that need no computing compute the same; what has to stay stays. */
#include "compiler/compiler_internal.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LANES = 4 };

static nas_ctx *ctx;
static nas_graph *g;
static int32_t serial;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_graph_free(g);
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_graph_slice, .init = setup, .fini = teardown, .timeout = 120);

#define MUST(call) cr_assert(eq(int, (int)(call), NAS_OK), "%s: %s", #call, nas_ctx_message(ctx))

/* ---- building ----------------------------------------------------------------------------------------------------- */

static nas_value add(nas_node proto, nas_value a, nas_value b) {
    char name[32];
    nas_value v = NAS_VALUE_NONE;
    (void)snprintf(name, sizeof name, "n%d", serial++);
    proto.inputs[0] = a;
    proto.inputs[1] = b;
    proto.n_inputs = a < 0 ? 0 : b < 0 ? 1 : 2;
    MUST(nas_graph_add_node(ctx, g, name, &proto, &v));
    return v;
}

static nas_value begin(int32_t h, int32_t w, int32_t c) {
    nas_value v = NAS_VALUE_NONE;
    serial = 0;
    g = nas_graph_new(ctx, "net");
    MUST(nas_graph_add_input(ctx, g, "in", (nas_shape){1, h, w, c}, &v));
    return v;
}

static nas_value conv(nas_value x, int32_t out, int32_t kernel, int32_t groups, bool bias) {
    nas_node proto = {.op = NAS_OP_CONV, .conv = nas_conv_same(out, kernel)};
    proto.conv.groups = groups;
    proto.conv.has_bias = bias;
    return add(proto, x, -1);
}

static nas_value depthwise(nas_value x) {
    const int32_t c = nas_graph_node(g, x)->shape.c;
    return conv(x, c, 3, c, true);
}

static nas_value relu(nas_value x) {
    return add((nas_node){.op = NAS_OP_RELU}, x, -1);
}

static nas_value sum(nas_value a, nas_value b) {
    return add((nas_node){.op = NAS_OP_ADD}, a, b);
}

static nas_value concat(nas_value a, nas_value b) {
    return add((nas_node){.op = NAS_OP_CONCAT, .axis = 3}, a, b);
}

static nas_value pool(nas_op op, nas_value x) {
    const nas_pool_attributes p = {.kernel_h = 3,
                                   .kernel_w = 3,
                                   .stride_h = 1,
                                   .stride_w = 1,
                                   .pad_top = 1,
                                   .pad_left = 1,
                                   .pad_bottom = 1,
                                   .pad_right = 1};
    return add((nas_node){.op = op, .pool = p}, x, -1);
}

static void finish(nas_value output) {
    MUST(nas_graph_set_output(ctx, g, output));
    reference_fill(ctx, g, 5);
}

static float *weights(nas_value v, int32_t slot) {
    return nas_graph_param(g, nas_graph_node(g, v)->params[slot])->data;
}

/* Filter o of a convolution is zero; its bias is `bias`. */
static void empty_filter(nas_value v, int32_t o, float bias) {
    const nas_param *p = nas_graph_param(g, nas_graph_node(g, v)->params[0]);
    const size_t per = p->count / (size_t)p->dims[0];
    memset(p->data + (size_t)o * per, 0, per * sizeof *p->data);
    if (nas_graph_node(g, v)->conv.has_bias) weights(v, 1)[o] = bias;
}

/* No filter of a convolution reads input i. */
static void unread(nas_value v, int32_t i) {
    nas_param *p = nas_graph_param(g, nas_graph_node(g, v)->params[0]);
    for (size_t k = (size_t)i; k < p->count; k += (size_t)p->dims[3])
        p->data[k] = 0;
}

/* ---- checking ----------------------------------------------------------------------------------------------------- */

static void check_same_result(const nas_graph *a, const nas_graph *b) {
    const size_t n_in = reference_count(a, nas_graph_input(a));
    const size_t n_out = reference_count(a, nas_graph_output(a));
    cr_assert(eq(sz, reference_count(b, nas_graph_output(b)), n_out));
    float *in = reference_image(ctx, n_in, 1);
    double *y = nas_alloc_array(ctx, 2 * n_out, sizeof *y), magnitude = 0, unused = 0, worst = 0;
    reference_forward(ctx, a, in, y, &magnitude);
    reference_forward(ctx, b, in, y + n_out, &unused);
    for (size_t i = 0; i < n_out; i++)
        worst = fmax(worst, fabs(y[i] - y[n_out + i]));
    cr_assert(worst <= 1e-5 * (magnitude + 1), "off by %g of %g", worst, magnitude);
    nas_free(y);
    nas_free(in);
}

/* The sliced network, checked; NULL when nothing went. */
static nas_graph *sliced(int32_t lanes) {
    nas_graph *out = NULL;
    MUST(nas__graph_slice(ctx, g, lanes, &out));
    if (out == NULL) return NULL;
    MUST(nas_graph_verify(ctx, out));
    check_same_result(g, out);
    return out;
}

static int32_t channels(const nas_graph *in, nas_value v) {
    return nas_graph_node(in, nas_graph_find(in, nas_graph_node(g, v)->name))->shape.c;
}

Test(compiler_graph_slice, empty_filters_go_and_their_number_joins_the_reader_s_bias) {
    const nas_value a = conv(begin(5, 6, 3), 12, 3, 1, true), r = relu(a);
    const nas_value b = conv(r, 8, 1, 1, false);
    finish(relu(b));
    for (int32_t o = 0; o < 4; o++)
        empty_filter(a, 3 * o, 0.5F - 0.4F * (float)o);
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, a), 8));
    cr_assert(eq(int, channels(s, r), 8));
    cr_assert(nas_graph_node(s, nas_graph_find(s, nas_graph_node(g, b)->name))->conv.has_bias);
    nas_graph_free(s);
}

/* Zeros around the image are no constant other than 0. */
Test(compiler_graph_slice, constants_stay_where_a_reader_pads_unless_they_are_0) {
    const nas_value a = conv(begin(5, 6, 3), 12, 1, 1, true);
    const nas_value b = conv(relu(a), 8, 3, 1, true);
    finish(b);
    for (int32_t o = 0; o < 8; o++)
        empty_filter(a, o, o < 4 ? 0.5F : -0.5F); /* relu makes 0 of the latter */
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, a), 8));
    nas_graph_free(s);
}

Test(compiler_graph_slice, channels_that_nobody_reads_go_through_depthwise_convolutions) {
    const nas_value x = conv(begin(6, 6, 3), 8, 3, 1, true);
    const nas_value a = conv(x, 24, 1, 1, true), d = depthwise(relu(a)),
                    b = conv(relu(d), 8, 1, 1, true);
    finish(sum(x, b));
    for (int32_t i = 0; i < 8; i++)
        unread(b, 2 * i);
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, a), 16));
    cr_assert(eq(int, channels(s, d), 16));
    cr_assert(
        eq(int, nas_graph_node(s, nas_graph_find(s, nas_graph_node(g, d)->name))->conv.groups, 16));
    cr_assert(eq(int, channels(s, x), 8));
    nas_graph_free(s);
}

Test(compiler_graph_slice, a_filter_that_reads_constants_alone_is_constant) {
    const nas_value a = conv(begin(5, 5, 3), 8, 1, 1, true), b = conv(a, 8, 1, 1, true);
    const nas_value c = conv(b, 4, 1, 1, true);
    finish(c);
    for (int32_t o = 0; o < 4; o++) {
        empty_filter(a, o, 1);
        for (int32_t i = 4; i < 8; i++)
            weights(b, 0)[o * 8 + i] = 0;
    }
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, a), 4));
    cr_assert(eq(int, channels(s, b), 4));
    nas_graph_free(s);
}

/* Once an output goes, what it alone has read goes too. */
Test(compiler_graph_slice, what_only_unneeded_filters_read_is_unneeded) {
    const nas_value a = conv(begin(5, 5, 3), 8, 1, 1, true), b = conv(relu(a), 8, 3, 1, true);
    const nas_value c = conv(relu(b), 4, 3, 1, true);
    finish(c);
    for (int32_t k = 0; k < 4; k++) {
        unread(c, k);
        for (int32_t o = 4; o < 8; o++) { /* inputs 0 to 3 of b are read by its outputs 0 to 3 */
            for (int32_t t = 0; t < 9; t++)
                weights(b, 0)[(o * 9 + t) * 8 + k] = 0;
        }
    }
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, b), 4));
    cr_assert(eq(int, channels(s, a), 4));
    nas_graph_free(s);
}

Test(compiler_graph_slice, a_sum_keeps_a_channel_that_one_side_computes) {
    for (int both = 0; both < 2; both++) {
        const nas_value x = begin(5, 5, 3), a = conv(x, 8, 1, 1, true), b = conv(x, 8, 1, 1, true);
        const nas_value y = sum(a, b), c = conv(y, 4, 1, 1, true);
        finish(c);
        for (int32_t o = 0; o < 4; o++) {
            empty_filter(a, o, 0.25F);
            if (both == 1) empty_filter(b, o, -1);
        }
        nas_graph *s = sliced(LANES);
        const bool shrunk = s != NULL, want = both == 1;
        cr_assert(shrunk == want);
        if (s != NULL) cr_assert(eq(int, channels(s, y), 4));
        nas_graph_free(s);
        nas_graph_free(g);
        g = NULL;
    }
}

Test(compiler_graph_slice, members_of_a_concatenation_shrink) {
    const nas_value x = begin(5, 5, 3), a = conv(x, 8, 1, 1, true), b = conv(x, 12, 3, 1, true);
    const nas_value y = concat(relu(a), b), c = conv(pool(NAS_OP_MAX_POOL, y), 4, 1, 1, true);
    finish(c);
    for (int32_t o = 0; o < 4; o++) {
        empty_filter(a, 2 * o, 0.5F);
        empty_filter(b, 3 * o, -0.5F);
    }
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, a), 4));
    cr_assert(eq(int, channels(s, b), 8));
    cr_assert(eq(int, channels(s, y), 12));
    nas_graph_free(s);
}

Test(compiler_graph_slice, image_and_result_keep_their_channels) {
    const nas_value a = conv(begin(5, 5, 8), 8, 1, 1, true);
    finish(relu(a));
    for (int32_t k = 0; k < 4; k++) {
        empty_filter(a, k, 1);
        unread(a, k);
    }
    cr_assert(eq(ptr, sliced(LANES), NULL));
}

/* A part of a vector costs as much as a whole one. */
Test(compiler_graph_slice, channels_stay_in_whole_vectors_and_never_none) {
    const nas_value a = conv(begin(5, 5, 3), 24, 1, 1, true), b = conv(relu(a), 16, 1, 1, true);
    const nas_value c = conv(b, 4, 1, 1, true);
    finish(c);
    for (int32_t o = 0; o < 24; o++) {
        if (o < 10) empty_filter(a, o, 1);
        if (o < 16) empty_filter(b, o, 1);
    }
    nas_graph *s = sliced(8);
    cr_assert(ne(ptr, s, NULL));
    cr_assert(eq(int, channels(s, b), 8));
    nas_graph_free(s);
}

Test(compiler_graph_slice, without_empty_filters_weights_or_floats_nothing_changes) {
    const nas_value a = conv(begin(5, 5, 3), 8, 1, 1, true), b = conv(a, 8, 1, 1, true);
    finish(b);
    cr_assert(eq(ptr, sliced(LANES), NULL));
    for (int32_t o = 0; o < 4; o++)
        empty_filter(a, o, 1);
    nas_graph *s = sliced(LANES);
    cr_assert(ne(ptr, s, NULL));
    nas_graph_free(s);
    MUST(nas_graph_set_quant(ctx, g, a, (nas_quant){.is_set = true, .scale = 0.5F}));
    cr_assert(eq(ptr, sliced(LANES), NULL));
    nas_graph_drop_weights(g);
    cr_assert(eq(ptr, sliced(LANES), NULL));
}

/* What is compiled has them no more, says so, and computes the same. */
Test(compiler_graph_slice, programs_leave_them_out_and_explain_counts_them) {
    char dir[64] = "/tmp/nas-slice-XXXXXX";
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    nas_compile_options o = nas_compile_options_default();
    o.cache_dir = dir;
    o.form = NAS_FORM_LAYERS;
    MUST(nas_target_find(ctx, "native", &o.target));
    const nas_value a = conv(begin(6, 5, 3), 48, 3, 1, true), b = conv(relu(a), 8, 1, 1, true);
    finish(b);
    for (int32_t i = 0; i < 16; i++)
        empty_filter(a, i, 0.5F);
    nas_buf text = {0};
    MUST(nas_compile_explain(ctx, g, &o, &text));
    cr_assert(ne(ptr, strstr(text.data, "16 of 48 outputs are not computed"), NULL), "%s",
              text.data);
    cr_assert(ne(ptr, strstr(text.data, "conv 3x3 stride 1, 3 -> 32 channels"), NULL), "%s",
              text.data);
    nas_buf_deinit(&text);
    nas_artifact program;
    MUST(nas_compile(ctx, g, &o, &program));
    enum { IN = 6 * 5 * 3, OUT = 6 * 5 * 8 };
    float *in = reference_image(ctx, IN, 2), out[OUT];
    double want[OUT], magnitude = 0;
    reference_forward(ctx, g, in, want, &magnitude);
    MUST(nas_artifact_run(ctx, &program, g, 1, in, out, 1, dir));
    for (int i = 0; i < OUT; i++)
        cr_assert(fabs((double)out[i] - want[i]) <= 3e-5 * magnitude);
    nas_free(in);
    MUST(nas_remove_tree(ctx, dir));
}

/* ---- any network -------------------------------------------------------------------------------------------------- */

static nas_value random_node(nas_rng *rng, const nas_value *values, int32_t n) {
    const nas_value x = values[nas_rng_below(rng, (uint64_t)n)];
    const nas_value y = values[nas_rng_below(rng, (uint64_t)n)];
    const bool alike = nas_graph_node(g, x)->shape.c == nas_graph_node(g, y)->shape.c;
    const int32_t out = 4 + 4 * (int32_t)nas_rng_below(rng, 3);
    switch (nas_rng_below(rng, 11)) {
    case 0: return relu(x);
    case 1: return add((nas_node){.op = NAS_OP_PRELU}, x, -1);
    case 2: return depthwise(x);
    case 3: return pool(NAS_OP_MAX_POOL, x);
    case 4: return pool(NAS_OP_AVG_POOL, x);
    case 5: return concat(x, y);
    case 6:
        if (alike) return sum(x, y);
        break;
    case 7:
        if (alike) return add((nas_node){.op = NAS_OP_MUL}, x, y);
        break;
    case 8: return conv(x, out, 3, 1, nas_rng_below(rng, 2) == 0);
    default: break;
    }
    return conv(x, out, 1, 1, nas_rng_below(rng, 2) == 0);
}

static void empty_some(nas_rng *rng) {
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV) continue;
        for (int32_t o = 0; o < node->shape.c; o++) {
            if (nas_rng_below(rng, 2) == 0)
                empty_filter(v, o, nas_rng_below(rng, 2) == 0 ? 0 : 0.5F);
        }
        const int32_t inputs = nas_graph_node(g, node->inputs[0])->shape.c;
        for (int32_t i = 0; i < inputs && node->conv.groups == 1; i++) {
            if (nas_rng_below(rng, 3) == 0) unread(v, i);
        }
    }
}

Test(compiler_graph_slice, random_networks_compute_the_same) {
    int32_t shrunk = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        nas_rng rng = nas_rng_stream(seed, 0, "slice");
        nas_value values[16] = {begin(5, 4, 4)};
        int32_t n = 1;
        while (n < 12) {
            values[n] = random_node(&rng, values, n);
            n++;
        }
        nas_value all = values[1]; /* everything leads to the output */
        for (int32_t i = 2; i < n; i++)
            all = concat(all, values[i]);
        finish(conv(all, 4, 1, 1, true));
        empty_some(&rng);
        nas_graph *s = sliced(seed % 2 == 0 ? 1 : LANES);
        shrunk += s != NULL;
        nas_graph_free(s);
        nas_graph_free(g);
        g = NULL;
    }
    cr_assert(shrunk > 40, "%d of 60", shrunk);
}
