/* test_onnx_operators.c - every operator out to an ONNX file and back: the same graph where ONNX has the same operator,
 * the same result where it has only parts; and the file judged from outside by onnx_check.py. */
#include "ir/graph.h"
#include "tests/compiler/reference.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "/tmp/nas-onnx-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
}

static void teardown(void) {
    cr_expect(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(ir_onnx_operators, .init = setup, .fini = teardown);

#define MUST(call) cr_assert(eq(int, (int)(call), NAS_OK), "%s: %s", #call, nas_ctx_message(ctx))

/* What comes back. */
typedef enum returns {
    SAME_GRAPH, /* equal hash, weights included */
    SAME_RESULT /* other operators, equal values */
} returns;

/* One operator on "x" of shape `in`, on [1,4,5,6] where that is absent; `b`: shape of a CONSTANT as second operand. */
typedef struct row {
    const char *name;
    returns back;
    nas_node proto;
    nas_shape in, b;
} row;

#define ONE(code, ...)                                                                             \
    { .op = NAS_OP_##code, .n_inputs = 1, __VA_ARGS__ }
#define TWO(code, ...)                                                                             \
    { .op = NAS_OP_##code, .n_inputs = 2, __VA_ARGS__ }
#define FUNCTION(code, ...) ONE(UNARY, .unary = NAS_UNARY_##code, __VA_ARGS__)

static const row rows[] = {
    {.name = "conv",
     .back = SAME_GRAPH,
     .proto = ONE(CONV, .conv = {8, 3, 2, 2, 1, 1, 2, 1, 0, 2, 1, 2, true})},
    {.name = "conv_transpose",
     .back = SAME_GRAPH,
     .proto = ONE(CONV_TRANSPOSE, .conv = {8, 3, 2, 2, 3, 1, 2, 1, 0, 0, 1, 1, true},
                  .output_pad_h = 1, .output_pad_w = 2)},
    {.name = "conv_transpose_unbiased",
     .back = SAME_GRAPH,
     .proto = ONE(CONV_TRANSPOSE, .conv = {3, 4, 4, 2, 2, 1, 1, 1, 1, 1, 1, 1, false})},
    {.name = "batch_norm", .back = SAME_GRAPH, .proto = ONE(BATCH_NORM, .epsilon = 0.001F)},
    {.name = "clip", .back = SAME_GRAPH, .proto = FUNCTION(CLIP, .alpha = 0.1F, .beta = 0.75F)},
    {.name = "relu6", .back = SAME_GRAPH, .proto = FUNCTION(CLIP, .alpha = 0, .beta = 6)},
    {.name = "leaky_relu", .back = SAME_GRAPH, .proto = FUNCTION(LEAKY_RELU, .alpha = 0.1F)},
    {.name = "sigmoid", .back = SAME_GRAPH, .proto = FUNCTION(SIGMOID, .alpha = 0)},
    {.name = "hard_sigmoid",
     .back = SAME_GRAPH,
     .proto = FUNCTION(HARD_SIGMOID, .alpha = 0.25F, .beta = 0.4F)},
    {.name = "hard_swish", .back = SAME_RESULT, .proto = FUNCTION(HARD_SWISH, .alpha = 0)},
    {.name = "swish", .back = SAME_RESULT, .proto = FUNCTION(SWISH, .alpha = 0)},
    {.name = "tanh", .back = SAME_GRAPH, .proto = FUNCTION(TANH, .alpha = 0)},
    {.name = "erf", .back = SAME_GRAPH, .proto = FUNCTION(ERF, .alpha = 0)},
    {.name = "gelu", .back = SAME_GRAPH, .proto = FUNCTION(GELU, .alpha = 0)},
    {.name = "exp", .back = SAME_GRAPH, .proto = FUNCTION(EXP, .alpha = 0)},
    {.name = "neg", .back = SAME_GRAPH, .proto = FUNCTION(NEG, .alpha = 0)},
    {.name = "abs", .back = SAME_GRAPH, .proto = FUNCTION(ABS, .alpha = 0)},
    {.name = "factor", .back = SAME_GRAPH, .proto = FUNCTION(AFFINE, .alpha = 3)},
    {.name = "affine", .back = SAME_RESULT, .proto = FUNCTION(AFFINE, .alpha = 3, .beta = -0.5F)},
    {.name = "add", .back = SAME_GRAPH, .proto = TWO(ADD, .axis = 0), .b = {1, 1, 1, 6}},
    {.name = "sub", .back = SAME_GRAPH, .proto = TWO(SUB, .axis = 0), .b = {1, 4, 1, 6}},
    {.name = "mul", .back = SAME_GRAPH, .proto = TWO(MUL, .axis = 0), .b = {1, 4, 5, 1}},
    {.name = "div", .back = SAME_GRAPH, .proto = TWO(DIV, .axis = 0), .b = {1, 4, 5, 6}},
    {.name = "add_one", .back = SAME_RESULT, .proto = TWO(ADD, .axis = 0), .b = {1, 1, 1, 1}},
    {.name = "concat_h", .back = SAME_GRAPH, .proto = TWO(CONCAT, .axis = 1), .b = {1, 2, 5, 6}},
    {.name = "concat_w", .back = SAME_GRAPH, .proto = TWO(CONCAT, .axis = 2), .b = {1, 4, 1, 6}},
    {.name = "concat_c", .back = SAME_GRAPH, .proto = TWO(CONCAT, .axis = 3), .b = {1, 4, 5, 3}},
    {.name = "slice",
     .back = SAME_GRAPH,
     .proto = ONE(SLICE, .begin = {0, 1, 0, 2}, .end = {1, 3, 4, 5})},
    {.name = "pad",
     .back = SAME_GRAPH,
     .proto = ONE(PAD, .begin = {0, 1, 0, 2}, .end = {0, 0, 3, 1}, .scalar = 0.25F)},
    {.name = "max_pool",
     .back = SAME_GRAPH,
     .proto = ONE(MAX_POOL, .pool = {3, 2, 2, 1, 1, 1, 2, 0, false})},
    {.name = "average",
     .back = SAME_GRAPH,
     .proto = ONE(AVG_POOL, .pool = {3, 2, 2, 1, 1, 1, 2, 0, false})},
    {.name = "average_padded",
     .back = SAME_GRAPH,
     .proto = ONE(AVG_POOL, .pool = {3, 3, 1, 1, 1, 1, 1, 1, true})},
    {.name = "average_global",
     .back = SAME_GRAPH,
     .proto = ONE(AVG_POOL, .pool = {4, 5, 1, 1, 0, 0, 0, 0, false})},
    {.name = "nearest",
     .back = SAME_GRAPH,
     .proto = ONE(RESIZE, .resize = NAS_RESIZE_NEAREST_ASYMMETRIC, .shape = {1, 7, 10, 6})},
    {.name = "nearest_half",
     .back = SAME_GRAPH,
     .proto = ONE(RESIZE, .resize = NAS_RESIZE_NEAREST_HALF_PIXEL, .shape = {1, 8, 15, 6})},
    {.name = "linear",
     .back = SAME_GRAPH,
     .proto = ONE(RESIZE, .resize = NAS_RESIZE_BILINEAR_ASYMMETRIC, .shape = {1, 7, 3, 6})},
    {.name = "linear_half",
     .back = SAME_GRAPH,
     .proto = ONE(RESIZE, .resize = NAS_RESIZE_BILINEAR_HALF_PIXEL, .shape = {1, 7, 3, 6})},
    {.name = "linear_corners",
     .back = SAME_GRAPH,
     .proto = ONE(RESIZE, .resize = NAS_RESIZE_BILINEAR_ALIGN_CORNERS, .shape = {1, 7, 1, 6})},
    {.name = "softmax", .back = SAME_GRAPH, .proto = ONE(SOFTMAX, .axis = 0)},
    {.name = "layer_norm", .back = SAME_GRAPH, .proto = ONE(LAYER_NORM, .epsilon = 0.001F)},
    {.name = "lrn_odd",
     .back = SAME_GRAPH,
     .proto = ONE(LRN, .size = 3, .alpha = 0.5F, .beta = 0.75F, .epsilon = 2)},
    {.name = "lrn_even",
     .back = SAME_GRAPH,
     .proto = ONE(LRN, .size = 4, .alpha = 0.5F, .beta = 0.75F, .epsilon = 1)},
    {.name = "matmul", .back = SAME_GRAPH, .proto = TWO(MATMUL, .axis = 0), .b = {1, 4, 6, 7}},
    {.name = "matmul_one", .back = SAME_GRAPH, .proto = TWO(MATMUL, .axis = 0), .b = {1, 1, 6, 7}},
    {.name = "matmul_transposed",
     .back = SAME_RESULT,
     .proto = TWO(MATMUL, .transpose_b = true),
     .b = {1, 4, 7, 6}},
    {.name = "flatten", .back = SAME_GRAPH, .proto = ONE(RESHAPE, .shape = {1, 1, 1, 120})},
    {.name = "reshape", .back = SAME_GRAPH, .proto = ONE(RESHAPE, .shape = {1, 2, 30, 2})},
    {.name = "unflatten",
     .back = SAME_GRAPH,
     .proto = ONE(RESHAPE, .shape = {1, 4, 5, 6}),
     .in = {1, 1, 1, 120}},
    {.name = "reshape_plane", .back = SAME_GRAPH, .proto = ONE(RESHAPE, .shape = {1, 3, 40, 1})},
    {.name = "transpose", .back = SAME_GRAPH, .proto = ONE(TRANSPOSE, .perm = {0, 3, 1, 2})},
    {.name = "transpose_back", .back = SAME_GRAPH, .proto = ONE(TRANSPOSE, .perm = {0, 2, 3, 1})},
    {.name = "transpose_hw", .back = SAME_GRAPH, .proto = ONE(TRANSPOSE, .perm = {0, 2, 1, 3})},
    {.name = "channel_shuffle", .back = SAME_GRAPH, .proto = ONE(CHANNEL_SHUFFLE, .block = 3)},
    {.name = "channel_shuffle_2", .back = SAME_GRAPH, .proto = ONE(CHANNEL_SHUFFLE, .block = 2)},
    {.name = "sqrt",
     .back = SAME_GRAPH,
     .proto = FUNCTION(SQRT, .alpha = 0)}, /* the image is not negative */
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

static nas_graph *build(const row *r, uint64_t seed) {
    nas_graph *g = nas_graph_new(ctx, "net");
    cr_assert(ne(ptr, g, NULL));
    nas_node proto = r->proto;
    nas_value y = 0;
    MUST(nas_graph_add_input(ctx, g, "x", r->in.n > 0 ? r->in : (nas_shape){1, 4, 5, 6},
                             &proto.inputs[0]));
    if (proto.n_inputs == 2) {
        const nas_node b = {.op = NAS_OP_CONSTANT, .shape = r->b};
        MUST(nas_graph_add_node(ctx, g, "b", &b, &proto.inputs[1]));
    }
    MUST(nas_graph_add_node(ctx, g, "y", &proto, &y));
    MUST(nas_graph_set_output(ctx, g, y));
    reference_fill(ctx, g, seed);
    return g;
}

static const char *path_of(const char *name, const char *suffix) {
    static char path[160];
    (void)snprintf(path, sizeof path, "%s/%s%s", folder, name, suffix);
    return path;
}

/* ---- and back ---------------------------------------------------------------------------------------------------- */

static void check_same_hash(const char *name, const nas_graph *a, const nas_graph *b) {
    char hash[2][NAS_SHA256_HEX];
    MUST(nas_graph_hash(ctx, a, true, hash[0]));
    MUST(nas_graph_hash(ctx, b, true, hash[1]));
    nas_buf text = {0};
    MUST(nas_graph_dump(ctx, a, &text));
    MUST(nas_graph_dump(ctx, b, &text));
    cr_expect(eq(str, hash[0], hash[1]), "%s:\n%s", name, text.data);
    nas_buf_deinit(&text);
}

static void check_same_result(const char *name, const nas_graph *a, const nas_graph *b) {
    const size_t n_in = reference_count(a, nas_graph_input(a)),
                 n_out = reference_count(a, nas_graph_output(a));
    cr_assert(eq(sz, reference_count(b, nas_graph_output(b)), n_out), "%s", name);
    float *in = reference_image(ctx, n_in, 2);
    double *y = nas_alloc_array(ctx, 2 * n_out, sizeof *y), magnitude = 0, worst = 0;
    reference_forward(ctx, b, in, y + n_out, &magnitude);
    reference_forward(ctx, a, in, y, &magnitude);
    for (size_t i = 0; i < n_out; i++)
        worst = fmax(worst, fabs(y[i] - y[n_out + i]));
    cr_expect(worst <= 1e-6 * magnitude, "%s: off by %g of %g", name, worst, magnitude);
    nas_free(y);
    nas_free(in);
}

Test(ir_onnx_operators, come_back_as_they_were) {
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        nas_graph *g = build(r, i), *back = NULL;
        const char *path = path_of(r->name, ".onnx");
        MUST(nas_onnx_export(ctx, g, path));
        const nas_status status = nas_onnx_import(ctx, path, &options, &back);
        cr_assert(eq(int, (int)status, NAS_OK), "%s: %s", r->name, nas_ctx_message(ctx));
        if (r->back == SAME_GRAPH) check_same_hash(r->name, g, back);
        check_same_result(r->name, g, back);
        nas_graph_free(back);
        nas_graph_free(g);
    }
}

/* Two CONCATs of 2 and 16, a constant that several nodes read, and values read twice. */
Test(ir_onnx_operators, networks_come_back_as_they_were) {
    nas_graph *g = nas_graph_new(ctx, "net"), *back = NULL;
    nas_value x = 0, k = 0, a = 0, b = 0;
    MUST(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 6, 6, 4}, &x));
    MUST(nas_graph_add_node(ctx, g, "k", &(nas_node){.op = NAS_OP_CONSTANT, .shape = {1, 6, 1, 4}},
                            &k));
    MUST(nas_graph_add_node(ctx, g, "a",
                            &(nas_node){.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {x, k}}, &a));
    MUST(nas_graph_add_node(ctx, g, "b",
                            &(nas_node){.op = NAS_OP_SUB, .n_inputs = 2, .inputs = {a, k}}, &b));
    nas_node many = {.op = NAS_OP_CONCAT, .n_inputs = NAS_NODE_INPUTS_MAX, .axis = 3};
    for (int32_t i = 0; i < NAS_NODE_INPUTS_MAX; i++)
        many.inputs[i] = i % 2 == 0 ? a : b;
    MUST(nas_graph_add_node(ctx, g, "c", &many, &x));
    MUST(nas_graph_set_output(ctx, g, x));
    reference_fill(ctx, g, 1);
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    MUST(nas_onnx_export(ctx, g, path_of("net", ".onnx")));
    MUST(nas_onnx_import(ctx, path_of("net", ".onnx"), &options, &back));
    check_same_result("net", g, back);
    nas_graph_free(back);
    nas_graph_free(g);
}

Test(ir_onnx_operators, a_constant_as_the_network_is_refused) {
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value k = 0;
    MUST(nas_graph_add_node(ctx, g, "k", &(nas_node){.op = NAS_OP_CONSTANT, .shape = {1, 1, 1, 4}},
                            &k));
    MUST(nas_graph_set_output(ctx, g, k));
    reference_fill(ctx, g, 1);
    const char *path = path_of("k", ".onnx");
    cr_expect(eq(int, (int)nas_onnx_export(ctx, g, path), (int)NAS_ERR_INVALID));
    cr_expect(not(nas_file_exists(path)));
    nas_graph_free(g);
}

Test(ir_onnx_operators, failed_allocations_leave_no_file_and_no_leak) {
    static const char *const in_parts[] = {"gelu", "layer_norm", "channel_shuffle", "matmul",
                                           "linear_half"};
    for (size_t i = 0; i < N_ROWS; i++) {
        bool wanted = false;
        for (size_t k = 0; k < sizeof in_parts / sizeof in_parts[0]; k++)
            wanted = wanted || strcmp(rows[i].name, in_parts[k]) == 0;
        if (!wanted) continue;
        nas_graph *g = build(&rows[i], 1);
        const char *path = path_of(rows[i].name, ".onnx");
        const long before = nas_mem_live();
        for (long n = 1;; n++) {
            nas_mem_fail_after(n);
            const nas_status status = nas_onnx_export(ctx, g, path);
            nas_mem_fail_after(0);
            cr_assert(eq(long, nas_mem_live(), before));
            if (status == NAS_OK) break;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
            cr_assert(not(nas_file_exists(path)));
        }
        nas_graph_free(g);
    }
}

/* ---- from outside ------------------------------------------------------------------------------------------------ */

/* NAME.onnx, NAME.in, NAME.out in the folder, planar floats, little-endian like every machine these tests run on. */
static void write_case(const row *r, uint64_t seed) {
    nas_graph *g = build(r, seed);
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(ctx, n_in, seed), *out = nas_alloc_array(ctx, n_out, sizeof *out);
    double *y = nas_alloc_array(ctx, n_out, sizeof *y), magnitude = 0;
    reference_forward(ctx, g, in, y, &magnitude);
    for (size_t i = 0; i < n_out; i++)
        out[i] = (float)y[i];
    MUST(nas_onnx_export(ctx, g, path_of(r->name, ".onnx")));
    MUST(nas_file_write(ctx, path_of(r->name, ".in"), in, n_in * sizeof *in, 0600));
    MUST(nas_file_write(ctx, path_of(r->name, ".out"), out, n_out * sizeof *out, 0600));
    nas_free(y);
    nas_free(out);
    nas_free(in);
    nas_graph_free(g);
}

Test(ir_onnx_operators, checker_and_evaluation_agree_with_the_reference, .timeout = 120) {
    for (size_t i = 0; i < N_ROWS; i++)
        write_case(&rows[i], i);
    run_onnx_check(ctx, folder);
}
