/* test_operators.c - the operators of nas_graph_add_node: shapes and params, what is refused, and that text, JSON, hash,
 * clone, resize and verifier know each of them and each attribute. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(ir_operators, .init = setup, .fini = teardown);

/* One operator "op" on inputs "a" (and "b" where n_inputs is 2). */
typedef struct row {
    nas_node proto;
    nas_shape a, b;
    nas_shape out;
    uint64_t params, macs;
    const char *dump; /* after the operands, up to the params */
    const char *json; /* between shape and macs */
} row;

#define CONV_3X3                                                                                   \
    {                                                                                              \
        .out_channels = 6, .kernel_h = 3, .kernel_w = 3, .stride_h = 2, .stride_w = 3,             \
        .dilation_h = 1, .dilation_w = 2, .pad_top = 1, .pad_left = 0, .pad_bottom = 1,            \
        .pad_right = 2, .groups = 1, .has_bias = true                                              \
    }

static const row rows[] = {
    {{.op = NAS_OP_CONV_TRANSPOSE, .n_inputs = 1, .conv = CONV_3X3, .output_pad_h = 1},
     {1, 4, 5, 2},
     {0},
     {1, 8, 15, 6}, /* 3*2 - 2 + 3 + 1, 4*3 - 2 + 5 */
     6 * 9 * 2 + 6,
     4 * 5 * 2 * 9 * 6,
     " kernel=3x3 stride=2x3 dilation=1x2 pad=1,0,1,2 output_pad=1,0",
     "\"kernel\":[3,3],\"stride\":[2,3],\"dilation\":[1,2],\"pad\":[1,0,1,2],\"groups\":1,"
     "\"bias\":true,\"output_pad\":[1,0]"},
    {{.op = NAS_OP_BATCH_NORM, .n_inputs = 1, .epsilon = 0.5F},
     {1, 4, 5, 3},
     {0},
     {1, 4, 5, 3},
     12,
     0,
     " epsilon=0.5",
     "\"epsilon\":0.5"},
    {{.op = NAS_OP_UNARY, .n_inputs = 1, .unary = NAS_UNARY_CLIP, .alpha = -0.5F, .beta = 6},
     {1, 4, 5, 3},
     {0},
     {1, 4, 5, 3},
     0,
     0,
     " clip alpha=-0.5 beta=6",
     "\"function\":\"clip\",\"alpha\":-0.5,\"beta\":6"},
    {{.op = NAS_OP_ADD, .n_inputs = 2}, {1, 4, 5, 3}, {1, 1, 1, 3}, {1, 4, 5, 3}, 0, 0, "", ""},
    {{.op = NAS_OP_SUB, .n_inputs = 2}, {1, 4, 5, 3}, {1, 4, 1, 1}, {1, 4, 5, 3}, 0, 0, "", ""},
    {{.op = NAS_OP_MUL, .n_inputs = 2}, {2, 4, 5, 3}, {1, 1, 1, 1}, {2, 4, 5, 3}, 0, 0, "", ""},
    {{.op = NAS_OP_DIV, .n_inputs = 2}, {1, 4, 5, 3}, {1, 4, 5, 3}, {1, 4, 5, 3}, 0, 0, "", ""},
    {{.op = NAS_OP_CONCAT, .n_inputs = 2, .axis = 3},
     {1, 4, 5, 3},
     {1, 4, 5, 7},
     {1, 4, 5, 10},
     0,
     0,
     " axis=3",
     "\"axis\":3"},
    {{.op = NAS_OP_SLICE, .n_inputs = 1, .begin = {0, 1, 0, 2}, .end = {1, 3, 5, 3}},
     {1, 4, 5, 3},
     {0},
     {1, 2, 5, 1},
     0,
     0,
     " begin=0,1,0,2 end=1,3,5,3",
     "\"begin\":[0,1,0,2],\"end\":[1,3,5,3]"},
    {{.op = NAS_OP_PAD, .n_inputs = 1, .begin = {0, 1, 0, 2}, .end = {0, 0, 5, 3}, .scalar = 0.25F},
     {1, 4, 5, 3},
     {0},
     {1, 5, 10, 8},
     0,
     0,
     " begin=0,1,0,2 end=0,0,5,3 scalar=0.25",
     "\"begin\":[0,1,0,2],\"end\":[0,0,5,3],\"scalar\":0.25"},
    {{.op = NAS_OP_MAX_POOL,
      .n_inputs = 1,
      .pool = {.kernel_h = 3, .kernel_w = 2, .stride_h = 2, .stride_w = 1, .pad_bottom = 2}},
     {1, 4, 5, 3},
     {0},
     {1, 2, 4, 3},
     0,
     0,
     " kernel=3x2 stride=2x1 pad=0,0,2,0",
     "\"kernel\":[3,2],\"stride\":[2,1],\"pad\":[0,0,2,0],\"count_include_pad\":false"},
    {{.op = NAS_OP_AVG_POOL,
      .n_inputs = 1,
      .pool = {4, 5, 1, 1, .pad_left = 1, .count_include_pad = true}},
     {1, 4, 5, 3},
     {0},
     {1, 1, 2, 3},
     0,
     0,
     " kernel=4x5 stride=1x1 pad=0,1,0,0 count_include_pad",
     "\"kernel\":[4,5],\"stride\":[1,1],\"pad\":[0,1,0,0],\"count_include_pad\":true"},
    {{.op = NAS_OP_RESIZE,
      .n_inputs = 1,
      .resize = NAS_RESIZE_BILINEAR_HALF_PIXEL,
      .shape = {.h = 8, .w = 3}},
     {1, 4, 5, 3},
     {0},
     {1, 8, 3, 3},
     0,
     0,
     " mode=bilinear_half_pixel",
     "\"mode\":\"bilinear_half_pixel\""},
    {{.op = NAS_OP_SOFTMAX, .n_inputs = 1}, {1, 4, 5, 3}, {0}, {1, 4, 5, 3}, 0, 0, "", ""},
    {{.op = NAS_OP_LAYER_NORM, .n_inputs = 1, .epsilon = 0.5F},
     {1, 4, 5, 3},
     {0},
     {1, 4, 5, 3},
     6,
     0,
     " epsilon=0.5",
     "\"epsilon\":0.5"},
    {{.op = NAS_OP_LRN, .n_inputs = 1, .size = 5, .alpha = 0.5F, .beta = 0.75F, .epsilon = 2},
     {1, 4, 5, 3},
     {0},
     {1, 4, 5, 3},
     0,
     0,
     " size=5 alpha=0.5 beta=0.75 k=2",
     "\"size\":5,\"alpha\":0.5,\"beta\":0.75,\"k\":2"},
    {{.op = NAS_OP_MATMUL, .n_inputs = 2},
     {1, 4, 5, 3},
     {1, 1, 3, 7},
     {1, 4, 5, 7},
     0,
     4 * 5 * 7 * 3,
     "",
     "\"transpose_b\":false"},
    {{.op = NAS_OP_MATMUL, .n_inputs = 2, .transpose_b = true},
     {1, 4, 5, 3},
     {1, 4, 7, 3},
     {1, 4, 5, 7},
     0,
     4 * 5 * 7 * 3,
     " transpose_b",
     "\"transpose_b\":true"},
    {{.op = NAS_OP_RESHAPE, .n_inputs = 1, .shape = {1, 1, 2, 30}},
     {1, 4, 5, 3},
     {0},
     {1, 1, 2, 30},
     0,
     0,
     "",
     ""},
    {{.op = NAS_OP_TRANSPOSE, .n_inputs = 1, .perm = {0, 3, 1, 2}},
     {1, 4, 5, 3},
     {0},
     {1, 3, 4, 5},
     0,
     0,
     " perm=0,3,1,2",
     "\"perm\":[0,3,1,2]"},
    {{.op = NAS_OP_CHANNEL_SHUFFLE, .n_inputs = 1, .block = 3},
     {1, 4, 5, 6},
     {0},
     {1, 4, 5, 6},
     0,
     0,
     " groups=3",
     "\"groups\":3"},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

/* inputs a and b, then "op"; the status is that of adding it. */
static nas_status build(const row *r, nas_graph **out) {
    nas_graph *g = nas_graph_new(ctx, "net");
    cr_assert(ne(ptr, g, NULL));
    nas_node proto = r->proto;
    for (int32_t i = 0; i < proto.n_inputs && i < 2; i++) {
        cr_assert(eq(int,
                     (int)nas_graph_add_input(ctx, g, i == 0 ? "a" : "b", i == 0 ? r->a : r->b,
                                              &proto.inputs[i]),
                     NAS_OK),
                  "%s", nas_ctx_message(ctx));
    }
    nas_value y = NAS_VALUE_NONE;
    const nas_status status = nas_graph_add_node(ctx, g, "op", &proto, &y);
    if (status != NAS_OK) {
        cr_expect(eq(i32, nas_graph_node_count(g), r->proto.n_inputs), "a failed call left a node");
        cr_expect(eq(i32, nas_graph_param_count(g), 0), "a failed call left a param");
        nas_graph_free(g);
        return status;
    }
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
    *out = g;
    return NAS_OK;
}

static nas_graph *built(const row *r) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)build(r, &g), NAS_OK), "%s: %s", nas_op_name(r->proto.op),
              nas_ctx_message(ctx));
    return g;
}

static const nas_node *last(const nas_graph *g) {
    return nas_graph_node(g, nas_graph_output(g));
}

static void check_shape(const nas_node *node, nas_shape s) {
    cr_expect(node->shape.n == s.n && node->shape.h == s.h && node->shape.w == s.w &&
                  node->shape.c == s.c,
              "%s: [%d,%d,%d,%d]", nas_op_name(node->op), (int)node->shape.n, (int)node->shape.h,
              (int)node->shape.w, (int)node->shape.c);
}

static void hash(const nas_graph *g, bool with_weights, char out[NAS_SHA256_HEX]) {
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, with_weights, out), NAS_OK), "%s",
              nas_ctx_message(ctx));
}

/* ---- what is accepted -------------------------------------------------------------------------------------------- */

Test(ir_operators, have_the_documented_shape_params_and_costs) {
    for (size_t i = 0; i < N_ROWS; i++) {
        nas_graph *g = built(&rows[i]);
        const char *op = nas_op_name(rows[i].proto.op);
        check_shape(last(g), rows[i].out);
        const nas_node_cost cost = nas_graph_node_cost(g, nas_graph_output(g));
        cr_expect(eq(u64, cost.params, rows[i].params), "%s", op);
        cr_expect(eq(u64, cost.macs, rows[i].macs), "%s", op);
        cr_expect(eq(u64, cost.output_bytes, 4 * shape_count(rows[i].out)), "%s", op);
        cr_expect(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
        nas_graph_free(g);
    }
}

Test(ir_operators, params_have_their_names_and_extents) {
    static const struct {
        nas_op op;
        const char *names[NAS_NODE_PARAMS_MAX];
    } expected[] = {{NAS_OP_CONV_TRANSPOSE, {"op.weight", "op.bias"}},
                    {NAS_OP_BATCH_NORM, {"op.scale", "op.bias", "op.mean", "op.variance"}},
                    {NAS_OP_LAYER_NORM, {"op.scale", "op.bias"}}};
    for (size_t i = 0; i < N_ROWS; i++) {
        for (size_t k = 0; k < 3; k++) {
            if (rows[i].proto.op != expected[k].op) continue;
            nas_graph *g = built(&rows[i]);
            for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
                const int32_t index = last(g)->params[slot];
                cr_assert(eq(int, index >= 0, expected[k].names[slot] != NULL));
                if (index < 0) continue;
                const nas_param *p = nas_graph_param_const(g, index);
                cr_expect(eq(str, (char *)(uintptr_t)p->name,
                             (char *)(uintptr_t)expected[k].names[slot]));
                const bool matrix = slot == 0 && rows[i].proto.op == NAS_OP_CONV_TRANSPOSE;
                cr_expect(eq(i32, p->rank, matrix ? 4 : 1));
                cr_expect(eq(i32, p->dims[0], rows[i].out.c));
                if (matrix) cr_expect(eq(i32, p->dims[3], rows[i].a.c));
            }
            nas_graph_free(g);
        }
    }
}

Test(ir_operators, a_constant_has_its_shape_as_param) {
    const row r = {.proto = {.op = NAS_OP_CONSTANT, .shape = {1, 2, 3, 4}}};
    nas_graph *g = built(&r);
    check_shape(last(g), (nas_shape){1, 2, 3, 4});
    const nas_param *p = nas_graph_param_const(g, last(g)->params[0]);
    cr_expect(eq(str, (char *)(uintptr_t)p->name, "op.value"));
    cr_expect(eq(i32, p->rank, 4));
    cr_expect(eq(sz, p->count, (size_t)24));
    cr_expect(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_graph_free(g);
}

Test(ir_operators, every_function_has_a_name_and_keeps_the_shape) {
    for (int fn = 0; fn < NAS_UNARY_COUNT; fn++) {
        const row r = {.proto = {.op = NAS_OP_UNARY, .n_inputs = 1, .unary = (nas_unary)fn},
                       .a = {2, 3, 4, 5}};
        nas_graph *g = built(&r);
        check_shape(last(g), r.a);
        cr_expect(ne(str, (char *)(uintptr_t)nas_unary_name((nas_unary)fn), "unknown"));
        nas_graph_free(g);
    }
    cr_expect(eq(str, (char *)(uintptr_t)nas_unary_name(NAS_UNARY_COUNT), "unknown"));
}

Test(ir_operators, concat_takes_up_to_sixteen_on_every_axis) {
    for (int32_t axis = 0; axis < 4; axis++) {
        for (int32_t n = 1; n <= NAS_NODE_INPUTS_MAX; n += 5) {
            nas_graph *g = nas_graph_new(ctx, "net");
            nas_node proto = {.op = NAS_OP_CONCAT, .n_inputs = n, .axis = axis};
            nas_value x = 0, y = 0;
            (void)nas_graph_add_input(ctx, g, "x", (nas_shape){2, 2, 2, 2}, &x);
            for (int32_t i = 0; i < n; i++)
                proto.inputs[i] = x;
            cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, "op", &proto, &y), NAS_OK), "%s",
                      nas_ctx_message(ctx));
            const nas_shape s = nas_graph_node(g, y)->shape;
            const int32_t extents[] = {s.n, s.h, s.w, s.c};
            for (int32_t i = 0; i < 4; i++)
                cr_expect(eq(i32, extents[i], i == axis ? 2 * n : 2));
            nas_graph_free(g);
        }
    }
}

/* ---- what is refused --------------------------------------------------------------------------------------------- */

static const nas_shape small = {1, 4, 5, 3};

static void check_refused(row r, nas_status expected, const char *word, int line) {
    nas_graph *g = NULL;
    if (r.proto.n_inputs > 0 && r.a.n == 0) r.a = small;
    if (r.proto.n_inputs > 1 && r.b.n == 0) r.b = small;
    const nas_status status = build(&r, &g);
    cr_expect(eq(int, (int)status, (int)expected), "line %d", line);
    const char *message = status == NAS_OK ? "" : nas_ctx_message(ctx);
    char start[64];
    (void)snprintf(start, sizeof start, "add %s 'op': ", nas_op_name(r.proto.op));
    cr_expect(eq(int, strncmp(message, start, strlen(start)), 0), "line %d: %s", line, message);
    cr_expect(strstr(message, word) != NULL, "line %d: '%s' lacks '%s'", line, message, word);
    nas_graph_free(g);
}

#define REFUSED(status, word, ...) check_refused((row){__VA_ARGS__}, (status), (word), __LINE__)
#define ONE(code, ...) .proto = {.op = NAS_OP_##code, .n_inputs = 1, __VA_ARGS__}
#define TWO(code, ...) .proto = {.op = NAS_OP_##code, .n_inputs = 2, __VA_ARGS__}

Test(ir_operators, impossible_transposed_convolutions_are_refused) {
    nas_conv_attributes c[7];
    for (int i = 0; i < 7; i++)
        c[i] = nas_conv_same(4, 3);
    c[0].out_channels = 0;
    c[1].groups = 3;
    c[2].stride_h = 0;
    c[3].pad_left = -1;
    c[4].pad_top = 6;
    c[5].stride_w = INT32_MAX;
    c[6].kernel_w = 0;
    REFUSED(NAS_ERR_INVALID, "out_channels 0", ONE(CONV_TRANSPOSE, .conv = c[0]));
    REFUSED(NAS_ERR_INVALID, "groups 3", ONE(CONV_TRANSPOSE, .conv = c[1]));
    REFUSED(NAS_ERR_INVALID, "stride 0", ONE(CONV_TRANSPOSE, .conv = c[2]));
    REFUSED(NAS_ERR_INVALID, "padding -1", ONE(CONV_TRANSPOSE, .conv = c[3]));
    REFUSED(NAS_ERR_SHAPE, "no output", ONE(CONV_TRANSPOSE, .conv = c[4]));
    REFUSED(NAS_ERR_RANGE, "exceeds", ONE(CONV_TRANSPOSE, .conv = c[5]));
    REFUSED(NAS_ERR_INVALID, "kernel 0", ONE(CONV_TRANSPOSE, .conv = c[6]));
    const nas_conv_attributes same = nas_conv_same(4, 3);
    REFUSED(NAS_ERR_INVALID, "output padding 1",
            ONE(CONV_TRANSPOSE, .conv = same, .output_pad_h = 1)); /* stride 1: must be 0 */
    REFUSED(NAS_ERR_INVALID, "output padding -1",
            ONE(CONV_TRANSPOSE, .conv = same, .output_pad_w = -1));
}

Test(ir_operators, impossible_windows_are_refused) {
    for (int i = 0; i < 2; i++) {
        nas_node p = {.op = i == 0 ? NAS_OP_MAX_POOL : NAS_OP_AVG_POOL,
                      .n_inputs = 1,
                      .pool = {2, 2, 1, 1, 0, 0, 0, 0, false}};
        p.pool.pad_right = 2;
        REFUSED(NAS_ERR_INVALID, "window", .proto = p);
        p.pool.pad_right = -1;
        REFUSED(NAS_ERR_INVALID, "horizontal padding", .proto = p);
        p.pool.pad_right = 0;
        p.pool.stride_h = 0;
        REFUSED(NAS_ERR_INVALID, "stride 0", .proto = p);
        p.pool.stride_h = 1;
        p.pool.kernel_w = 6;
        REFUSED(NAS_ERR_SHAPE, "width", .proto = p);
        p.pool.kernel_w = 0;
        REFUSED(NAS_ERR_INVALID, "kernel 0", .proto = p);
    }
}

Test(ir_operators, numbers_that_poison_values_are_refused) {
    REFUSED(NAS_ERR_INVALID, "epsilon", ONE(BATCH_NORM, .epsilon = -1));
    REFUSED(NAS_ERR_INVALID, "epsilon", ONE(BATCH_NORM, .epsilon = NAN));
    REFUSED(NAS_ERR_INVALID, "epsilon", ONE(LAYER_NORM, .epsilon = 0));
    REFUSED(NAS_ERR_INVALID, "epsilon", ONE(LRN, .size = 1, .epsilon = 0));
    REFUSED(NAS_ERR_INVALID, "window", ONE(LRN, .size = 0, .epsilon = 1));
    REFUSED(NAS_ERR_INVALID, "alpha", ONE(LRN, .size = 1, .epsilon = 1, .alpha = -1));
    REFUSED(NAS_ERR_INVALID, "beta", ONE(LRN, .size = 1, .epsilon = 1, .beta = INFINITY));
    REFUSED(NAS_ERR_INVALID, "alpha", ONE(UNARY, .unary = NAS_UNARY_AFFINE, .alpha = INFINITY));
    REFUSED(NAS_ERR_INVALID, "clip", ONE(UNARY, .unary = NAS_UNARY_CLIP, .alpha = 1));
    REFUSED(NAS_ERR_INVALID, "function", ONE(UNARY, .unary = NAS_UNARY_COUNT));
    REFUSED(NAS_ERR_INVALID, "scalar", ONE(PAD, .scalar = NAN));
    REFUSED(NAS_ERR_INVALID, "scalar", ONE(ADD_SCALAR, .scalar = NAN));
}

Test(ir_operators, extents_that_do_not_fit_are_refused) {
    static const nas_op ops[] = {NAS_OP_ADD, NAS_OP_SUB, NAS_OP_MUL, NAS_OP_DIV};
    for (int i = 0; i < 4; i++) {
        const nas_node p = {.op = ops[i], .n_inputs = 2};
        REFUSED(NAS_ERR_SHAPE, "operands differ", .proto = p, .b = {1, 4, 5, 2});
        REFUSED(NAS_ERR_SHAPE, "operands differ", .proto = p, .a = {1, 1, 1, 3}, .b = small);
    }
    REFUSED(NAS_ERR_INVALID, "axis 4", TWO(CONCAT, .axis = 4));
    REFUSED(NAS_ERR_INVALID, "axis -1", TWO(CONCAT, .axis = -1));
    REFUSED(NAS_ERR_SHAPE, "axis 1", TWO(CONCAT, .axis = 3), .b = {1, 3, 5, 3});
    REFUSED(NAS_ERR_SHAPE, "axis 2", ONE(SLICE, .end = {1, 4, 6, 3}));
    REFUSED(NAS_ERR_SHAPE, "axis 0", ONE(SLICE, .begin = {-1}, .end = {1, 4, 5, 3}));
    REFUSED(NAS_ERR_SHAPE, "axis 1", ONE(SLICE, .begin = {0, 2}, .end = {1, 2, 5, 3}));
    REFUSED(NAS_ERR_INVALID, "axis 3", ONE(PAD, .begin = {0, 0, 0, -1}));
    REFUSED(NAS_ERR_RANGE, "axis 1", ONE(PAD, .end = {0, INT32_MAX}));
    REFUSED(NAS_ERR_SHAPE, "extent", ONE(RESIZE, .shape = {.h = 0, .w = 4}));
    REFUSED(NAS_ERR_INVALID, "mode",
            ONE(RESIZE, .shape = {.h = 4, .w = 4},
                .resize = (nas_resize_mode)(NAS_RESIZE_BILINEAR_ALIGN_CORNERS + 1)));
    REFUSED(NAS_ERR_SHAPE, "inner extents", TWO(MATMUL, .axis = 0));
    REFUSED(NAS_ERR_SHAPE, "transposed", TWO(MATMUL, .transpose_b = true), .b = {1, 4, 3, 7});
    REFUSED(NAS_ERR_SHAPE, "60 elements", ONE(RESHAPE, .shape = {1, 1, 1, 61}));
    REFUSED(NAS_ERR_SHAPE, "extent", ONE(RESHAPE, .shape = {1, 1, 60, 0}));
    REFUSED(NAS_ERR_INVALID, "perm", ONE(TRANSPOSE, .perm = {0, 1, 1, 3}));
    REFUSED(NAS_ERR_INVALID, "perm", ONE(TRANSPOSE, .perm = {0, 1, 2, 4}));
    REFUSED(NAS_ERR_INVALID, "groups 0", ONE(CHANNEL_SHUFFLE, .block = 0));
    REFUSED(NAS_ERR_SHAPE, "groups 2", ONE(CHANNEL_SHUFFLE, .block = 2));
    REFUSED(NAS_ERR_SHAPE, "extent", .proto = {.op = NAS_OP_CONSTANT});
}

Test(ir_operators, wrong_numbers_of_operands_are_refused) {
    REFUSED(NAS_ERR_INVALID, "2 inputs", TWO(SOFTMAX, .axis = 0));
    REFUSED(NAS_ERR_INVALID, "1 inputs", ONE(MATMUL, .axis = 0));
    REFUSED(NAS_ERR_INVALID, "0 inputs", .proto = {.op = NAS_OP_CONCAT});
    REFUSED(NAS_ERR_INVALID, "1 inputs", ONE(CONSTANT, .shape = {1, 1, 1, 1}));
    nas_graph *g = nas_graph_new(ctx, "net");
    const nas_node many = {.op = NAS_OP_CONCAT, .n_inputs = NAS_NODE_INPUTS_MAX + 1};
    nas_value y = 0;
    cr_expect(eq(int, (int)nas_graph_add_node(ctx, g, "op", &many, &y), (int)NAS_ERR_INVALID));
    nas_graph_free(g);
}

Test(ir_operators, names_of_params_are_reserved) {
    static const char *const endings[] = {"weight", "bias", "slope",    "scalar",
                                          "scale",  "mean", "variance", "value"};
    nas_graph *g = nas_graph_new(ctx, "net");
    nas_value x = 0;
    for (size_t i = 0; i < sizeof endings / sizeof endings[0]; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "a.%s", endings[i]);
        const nas_status status = nas_graph_add_input(ctx, g, name, small, &x);
        cr_expect(eq(int, (int)status, (int)NAS_ERR_INVALID), "%s", name);
    }
    nas_graph_free(g);
}

Test(ir_operators, the_verifier_wants_a_positive_variance) {
    const row r = {ONE(BATCH_NORM, .epsilon = 0.5F), .a = small};
    nas_graph *g = built(&r);
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    cr_expect(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK)); /* 0 + epsilon */
    nas_graph_param(g, last(g)->params[3])->data[2] = -0.25F;
    cr_expect(eq(int, (int)nas_graph_verify(ctx, g), (int)NAS_ERR_INVALID));
    cr_expect(strstr(nas_ctx_message(ctx), "'op'") != NULL, "%s", nas_ctx_message(ctx));
    nas_graph_free(g);
}

/* ---- text, hash, clone ------------------------------------------------------------------------------------------- */

Test(ir_operators, text_and_json_show_every_attribute) {
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        nas_graph *g = built(r);
        nas_buf dump = {0}, json = {0};
        char expected[512];
        cr_assert(eq(int, (int)nas_graph_dump(ctx, g, &dump), NAS_OK));
        (void)snprintf(expected, sizeof expected, "= %s 'op' (%s)%s -> [%d,%d,%d,%d]",
                       nas_op_name(r->proto.op), r->proto.n_inputs == 2 ? "%0, %1" : "%0", r->dump,
                       (int)r->out.n, (int)r->out.h, (int)r->out.w, (int)r->out.c);
        cr_expect(strstr(dump.data, expected) != NULL, "%s\nin\n%s", expected, dump.data);
        cr_assert(eq(int, (int)nas_graph_to_json(ctx, g, &json), NAS_OK));
        (void)snprintf(expected, sizeof expected,
                       "\"op\":\"%s\",\"inputs\":[%s],\"shape\":[%d,%d,%d,%d],%s%s\"macs\":%" PRIu64
                       ",\"params\":%" PRIu64,
                       nas_op_name(r->proto.op), r->proto.n_inputs == 2 ? "\"a\",\"b\"" : "\"a\"",
                       (int)r->out.n, (int)r->out.h, (int)r->out.w, (int)r->out.c, r->json,
                       r->json[0] == '\0' ? "" : ",", r->macs, r->params);
        cr_expect(strstr(json.data, expected) != NULL, "%s\nin\n%s", expected, json.data);
        nas_buf_deinit(&json);
        nas_buf_deinit(&dump);
        nas_graph_free(g);
    }
}

Test(ir_operators, clones_are_equal_in_text_and_hash) {
    nas_rng rng = nas_rng_stream(5, 0, "operators");
    for (size_t i = 0; i < N_ROWS; i++) {
        nas_graph *g = built(&rows[i]), *copy = NULL;
        cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
        fill_weights(g, &rng);
        cr_assert(eq(int, (int)nas_graph_clone(ctx, g, &copy), NAS_OK));
        char a[NAS_SHA256_HEX], b[NAS_SHA256_HEX];
        hash(g, true, a);
        hash(copy, true, b);
        cr_expect(eq(str, a, b));
        nas_buf text[2] = {{0}, {0}};
        cr_assert(eq(int, (int)nas_graph_dump(ctx, g, &text[0]), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_dump(ctx, copy, &text[1]), NAS_OK));
        cr_expect(eq(str, text[0].data, text[1].data));
        nas_buf_deinit(&text[0]);
        nas_buf_deinit(&text[1]);
        nas_graph_free(copy);
        nas_graph_free(g);
    }
}

Test(ir_operators, different_operators_hash_different) {
    char hashes[N_ROWS][NAS_SHA256_HEX];
    for (size_t i = 0; i < N_ROWS; i++) {
        nas_graph *g = built(&rows[i]);
        hash(g, false, hashes[i]);
        nas_graph_free(g);
        for (size_t k = 0; k < i; k++)
            cr_expect(ne(str, hashes[k], hashes[i]), "%s and %s", nas_op_name(rows[k].proto.op),
                      nas_op_name(rows[i].proto.op));
    }
}

static const row *row_of(nas_op op) {
    for (size_t i = 0; i < N_ROWS; i++) {
        if (rows[i].proto.op == op) return &rows[i];
    }
    cr_assert(false, "no row");
    return NULL;
}

static void check_changes_hash(nas_op op, const nas_node *changed, int line) {
    row r = *row_of(op);
    nas_graph *g = built(&r);
    char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
    hash(g, false, before);
    nas_graph_free(g);
    r.proto = *changed;
    g = built(&r);
    hash(g, false, after);
    nas_graph_free(g);
    cr_expect(ne(str, before, after), "line %d", line);
}

#define CHANGES(code, ...)                                                                         \
    do {                                                                                           \
        nas_node p = row_of(NAS_OP_##code)->proto;                                                 \
        __VA_ARGS__;                                                                               \
        check_changes_hash(NAS_OP_##code, &p, __LINE__);                                           \
    } while (0)

/* Also where the shape stays the same. */
Test(ir_operators, every_attribute_enters_the_hash) {
    CHANGES(CONV_TRANSPOSE, p.output_pad_h = 0);
    CHANGES(CONV_TRANSPOSE, p.output_pad_w = 1);
    CHANGES(CONV_TRANSPOSE, p.output_pad_w = 2, p.conv.pad_left = 2);
    CHANGES(CONV_TRANSPOSE, p.conv.has_bias = false);
    CHANGES(CONV_TRANSPOSE, p.conv.pad_left = 2, p.conv.pad_right = 0);
    CHANGES(BATCH_NORM, p.epsilon = 1);
    CHANGES(UNARY, p.unary = NAS_UNARY_HARD_SIGMOID);
    CHANGES(UNARY, p.alpha = 0);
    CHANGES(UNARY, p.beta = 5);
    CHANGES(PAD, p.begin[1] = 0, p.end[1] = 1);
    CHANGES(PAD, p.scalar = 0);
    CHANGES(SLICE, p.begin[1] = 0, p.end[1] = 2);
    CHANGES(MAX_POOL, p.op = NAS_OP_AVG_POOL);
    CHANGES(MAX_POOL, p.pool.pad_bottom = 1, p.pool.pad_top = 1);
    CHANGES(MAX_POOL, p.pool.stride_h = 3);
    CHANGES(AVG_POOL, p.pool.count_include_pad = false);
    CHANGES(AVG_POOL, p.pool.pad_left = 0, p.pool.pad_right = 1);
    CHANGES(RESIZE, p.resize = NAS_RESIZE_BILINEAR_ASYMMETRIC);
    CHANGES(RESIZE, p.shape.h = 7);
    CHANGES(LAYER_NORM, p.epsilon = 1);
    CHANGES(LRN, p.size = 3);
    CHANGES(LRN, p.alpha = 1);
    CHANGES(LRN, p.beta = 1);
    CHANGES(LRN, p.epsilon = 1);
    CHANGES(RESHAPE, p.shape = ((nas_shape){1, 2, 1, 30}));
    CHANGES(TRANSPOSE, p.perm[2] = 2, p.perm[3] = 1);
    CHANGES(CHANNEL_SHUFFLE, p.block = 2);
    CHANGES(SOFTMAX, p.quant = ((nas_quant){.is_set = true, .scale = 0.1F}));
}

Test(ir_operators, operands_of_equal_shape_are_told_apart) {
    static const nas_op ops[] = {NAS_OP_SUB, NAS_OP_DIV, NAS_OP_CONCAT, NAS_OP_MATMUL};
    for (int i = 0; i < 4; i++) {
        char hashes[2][NAS_SHA256_HEX];
        for (int32_t swapped = 0; swapped < 2; swapped++) {
            nas_graph *g = nas_graph_new(ctx, "net");
            nas_value a = 0, b = 0, y = 0;
            (void)nas_graph_add_input(ctx, g, "a", (nas_shape){1, 2, 3, 3}, &a);
            (void)nas_graph_add_relu(ctx, g, "b", a, &b);
            nas_node proto = {.op = ops[i], .n_inputs = 2, .inputs = {a, b}};
            proto.inputs[swapped] = a;
            proto.inputs[1 - swapped] = b;
            cr_assert(eq(int, (int)nas_graph_add_node(ctx, g, "y", &proto, &y), NAS_OK));
            cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
            hash(g, false, hashes[swapped]);
            nas_graph_free(g);
        }
        cr_expect(ne(str, hashes[0], hashes[1]), "%s", nas_op_name(ops[i]));
    }
}

Test(ir_operators, weights_enter_the_hash_in_every_slot) {
    for (size_t i = 0; i < N_ROWS; i++) {
        nas_graph *g = built(&rows[i]);
        cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
        for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
            char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
            hash(g, true, before);
            nas_graph_param(g, p)->data[0] += 1;
            hash(g, true, after);
            cr_expect(ne(str, before, after), "%s", nas_graph_param(g, p)->name);
        }
        nas_graph_free(g);
    }
}

/* ---- other extents ----------------------------------------------------------------------------------------------- */

static void check_resized(row r, int32_t h, int32_t w, nas_shape expected) {
    nas_graph *g = built(&r);
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, h, w), NAS_OK), "%s: %s",
              nas_op_name(r.proto.op), nas_ctx_message(ctx));
    check_shape(last(g), expected);
    cr_expect(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_graph_free(g);
}

/* Rows of one operand, from [1,4,5,c] to [1,8,10,c]: extents that follow the input, and those that do not. */
Test(ir_operators, operators_of_one_operand_follow_the_input) {
    static const struct {
        nas_op op;
        nas_shape out;
    } others[] = {{NAS_OP_CONV_TRANSPOSE, {1, 16, 30, 6}},
                  {NAS_OP_SLICE, {1, 2, 5, 1}},
                  {NAS_OP_PAD, {1, 9, 15, 8}},
                  {NAS_OP_MAX_POOL, {1, 4, 9, 3}},
                  {NAS_OP_AVG_POOL, {1, 5, 7, 3}},
                  {NAS_OP_RESIZE, {1, 16, 6, 3}},
                  {NAS_OP_TRANSPOSE, {1, 3, 8, 10}}};
    for (size_t i = 0; i < N_ROWS; i++) {
        const row *r = &rows[i];
        if (r->proto.n_inputs != 1 || r->proto.op == NAS_OP_RESHAPE) continue; /* fixed: below */
        nas_shape expected = {1, 8, 10, r->out.c};
        for (size_t k = 0; k < sizeof others / sizeof others[0]; k++) {
            if (others[k].op == r->proto.op) expected = others[k].out;
        }
        check_resized(*r, 8, 10, expected);
    }
}

Test(ir_operators, a_global_pool_stays_global) {
    row r = {ONE(AVG_POOL, .pool = {4, 5, 1, 1, 0, 0, 0, 0, false}), .a = small};
    check_resized(r, 9, 7, (nas_shape){1, 1, 1, 3});
    r.proto.pool.stride_h = r.proto.pool.stride_w = 4;
    check_resized(r, 9, 7, (nas_shape){1, 1, 1, 3});
}

Test(ir_operators, a_resize_that_cannot_follow_leaves_the_graph_as_it_was) {
    const row fixed[] = {{ONE(RESHAPE, .shape = {1, 1, 1, 60}), .a = small},
                         {ONE(SLICE, .end = {1, 4, 5, 3}), .a = small},
                         {ONE(RESIZE, .shape = {.h = 3, .w = 5}), .a = small}};
    for (int i = 0; i < 3; i++) {
        nas_graph *g = built(&fixed[i]);
        const nas_shape before = last(g)->shape;
        cr_expect(eq(int, (int)nas_graph_resize_input(ctx, g, 3, 5), (int)NAS_ERR_SHAPE));
        cr_expect(strstr(nas_ctx_message(ctx), "'op'") != NULL, "%s", nas_ctx_message(ctx));
        check_shape(last(g), before);
        cr_expect(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
        nas_graph_free(g);
    }
}
