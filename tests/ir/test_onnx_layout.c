/* test_onnx_layout.c - ONNX values of any rank: what an imported network computes is what its operators say, evaluated on
 * arrays that know nothing of four axes; and the import adds no node that it does not need. */
#include "ir/graph.h"
#include "tests/compiler/reference.h"
#include "tests/ir/ir_support.h"
#include "tests/ir/onnx_program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdarg.h>
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

TestSuite(ir_onnx_layout, .init = setup, .fini = teardown, .timeout = 120);

/* Weights that are means or halves are rounded to float; everything else is double on both sides. */
static const double tolerance = 2e-6; /* of the largest value on the way */

/* The network runs on planes [C,H,W], which must be the order of the file. */
static void check_values(const program *p, const nas_graph *g) {
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *x = reference_image(ctx, n_in, 3);
    for (size_t i = 0; i < n_in; i++)
        x[i] -= 0.5f;
    double *y = nas_alloc_array(ctx, n_out, sizeof *y), magnitude = 0, worst = 0;
    reference_forward(ctx, g, x, y, &magnitude);
    const program_array expected = program_run(p, x);
    cr_assert(eq(sz, expected.count, n_out), "%s", p->text);
    for (size_t i = 0; i < n_out; i++)
        worst = fmax(worst, fabs(y[i] - expected.data[i]));
    cr_expect(worst <= tolerance * fmax(magnitude, 1), "%s: off by %g of %g", p->text, worst,
              magnitude);
    nas_free(x);
    nas_free(y);
}

static int32_t count_of(const nas_graph *g, nas_op op) {
    int32_t count = 0;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        count += nas_graph_node(g, v)->op == op ? 1 : 0;
    return count;
}

static nas_graph *imported(const program *p) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)program_import(ctx, p, &g), NAS_OK), "%s: %s", p->text,
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", p->text);
    return g;
}

/* A rule of the import, and how many nodes that move elements it may take; -1: that does not matter. */
typedef struct rule {
    program p;
    int32_t moves;
} rule;

static void check_rules(const rule *rules, size_t n) {
    for (size_t i = 0; i < n; i++) {
        nas_graph *g = imported(&rules[i].p);
        const int32_t moves = count_of(g, NAS_OP_TRANSPOSE) + count_of(g, NAS_OP_RESHAPE);
        check_values(&rules[i].p, g);
        if (rules[i].moves >= 0) {
            nas_buf text = {0};
            cr_assert(eq(int, (int)nas_graph_dump(ctx, g, &text), NAS_OK));
            cr_expect(eq(i32, moves, rules[i].moves), "%s:\n%s", rules[i].p.text, text.data);
            nas_buf_deinit(&text);
        }
        nas_graph_free(g);
    }
}
#define CHECK_RULES(rules) check_rules(rules, sizeof rules / sizeof rules[0])

/* ---- reshapes and transposes ----------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, what_only_renames_axes_leaves_no_node) {
    static const rule rules[] = {
        {{17,
          {1, 3, 4, 5},
          "a = Transpose x perm=0,2,3,1; b = Relu a; y = Transpose b perm=0,3,1,2"},
         0},
        {{17,
          {1, 3, 4, 5},
          "a = Reshape x i[1,3,20]; b = Relu a; c = Reshape b i[3,4,5]; y = Unsqueeze c i[0]"},
         0},
        {{17,
          {1, 6, 4, 4},
          "a = Squeeze x i[0]; b = Sqrt p[6,4,4]; c = Mul a b; y = Unsqueeze c i[0]"},
         0},
        {{17,
          {1, 6, 2, 2},
          "a = Transpose x perm=0,2,3,1; b = MatMul a w[6,4]; c = LayerNormalization b w[4] w[4]; "
          "y = Transpose c perm=0,3,1,2"},
         0},
        {{17, {1, 4, 3, 3}, "a = Flatten x; y = MatMul a w[36,5]"}, 0},
        {{17, {1, 12}, "a = Reshape x i[1,12,1,1]; b = Relu a; y = Flatten b"}, 0},
        {{17, {1, 8, 1, 1}, "a = Reshape x i[1,2,4,1,1]; y = Reshape a i[1,8]"}, 0},
    };
    CHECK_RULES(rules);
}

Test(ir_onnx_layout, elements_move_where_their_order_changes) {
    static const rule rules[] = {
        {{17, {1, 3, 4, 5}, "y = Transpose x perm=0,2,3,1"}, 1},
        {{17, {1, 3, 4, 5}, "y = Transpose x perm=0,1,3,2"}, 1},
        {{17, {1, 3, 4}, "y = Transpose x perm=0,2,1"}, 1},
        {{17, {3, 4}, "y = Transpose x perm=1,0"}, -1},
        {{17, {1, 3, 4, 5}, "y = Reshape x i[1,5,3,4]"}, -1},
        {{17, {1, 12, 2, 3}, "y = Reshape x i[1,8,9]"}, -1},
        {{17,
          {1, 6, 4},
          "a = Reshape x i[1,2,3,4]; b = Transpose a perm=0,2,1,3; y = Reshape b i[1,6,4]"},
         -1},
        {{17,
          {1, 4, 6, 6},
          "a = Reshape x i[1,4,2,3,3,2]; b = Transpose a perm=0,2,4,3,5,1; y = Reshape b i[6,6,4]"},
         -1},
        {{17,
          {1, 4, 6, 6},
          "a = Reshape x i[1,2,2,3,2,6]; b = Transpose a perm=0,5,3,1,4,2; y = Reshape b "
          "i[1,72,2]"},
         -1},
        {{17, {1, 4, 6}, "a = Flatten x axis=0; y = Reshape a i[1,8,3,1]"}, -1},
    };
    CHECK_RULES(rules);
}

Test(ir_onnx_layout, a_channel_shuffle_is_one_node) {
    const program p = {17,
                       {1, 12, 3, 3},
                       "a = Reshape x i[1,3,4,3,3]; b = Transpose a perm=0,2,1,3,4; "
                       "y = Reshape b i[1,12,3,3]"};
    nas_graph *g = imported(&p);
    check_values(&p, g);
    cr_expect(eq(i32, nas_graph_node_count(g), 2));
    cr_expect(eq(i32, count_of(g, NAS_OP_CHANNEL_SHUFFLE), 1));
    nas_graph_free(g);
}

Test(ir_onnx_layout, a_batch_stays_in_its_axis) {
    static const rule rules[] = {
        {{17, {2, 3, 4, 5}, "y = Transpose x perm=0,2,3,1"}, 1},
        {{17, {2, 6, 4}, "a = Transpose x perm=0,2,1; y = MatMul a w[6,3]"}, -1},
        {{17,
          {2, 6, 4, 4},
          "a = Reshape x i[2,2,3,2,2,4]; b = Transpose a perm=0,3,2,5,4,1; y = Reshape b "
          "i[2,8,12]"},
         -1},
        {{17, {2, 4, 6}, "a = Transpose x perm=0,2,1; y = MatMul x a"}, -1},
    };
    CHECK_RULES(rules);
}

/* ---- products ---------------------------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, products_of_two_values) {
    static const rule rules[] = {
        {{17, {1, 4, 6}, "a = Transpose x perm=0,2,1; y = MatMul x a"}, -1},
        {{17, {1, 4, 6}, "a = Transpose x perm=0,2,1; y = MatMul a x"}, -1},
        {{17, {1, 2, 4, 6}, "a = Transpose x perm=0,1,3,2; y = MatMul x a"}, -1},
        {{17, {1, 2, 4, 6}, "y = MatMul x w[1,2,6,3]"}, -1},
        {{17, {1, 2, 4, 6}, "y = MatMul x w[1,1,6,3]"}, -1},
        {{17, {1, 2, 4, 6}, "y = MatMul w[3,4] x"}, -1}, /* the first is repeated */
        {{17, {1, 2, 4, 6}, "y = MatMul w[1,2,3,4] x"}, -1},
        {{17,
          {1, 4, 6},
          "a = Transpose x perm=0,2,1; b = Reshape a i[1,1,6,4]; "
          "c = Concat b b axis=1; y = MatMul x c"},
         -1},
        {{17, {4, 6}, "a = Transpose x perm=1,0; y = MatMul x a"}, -1},
        {{17, {4, 6}, "y = Gemm x x transA=1"}, -1},
        {{17, {4, 6}, "y = Gemm x x transB=1"}, -1},
        {{17, {4, 6}, "y = Gemm x w[4,5] w[5] transA=1"}, -1},
        {{17, {1, 6}, "y = Gemm x w[5,6] w[5] transB=1"}, 0},
    };
    CHECK_RULES(rules);
}

Test(ir_onnx_layout, a_second_operand_that_lies_transposed_is_taken_as_it_is) {
    const program p = {
        17, {1, 6, 2, 2}, "a = Reshape x i[1,6,4]; b = Transpose a perm=0,2,1; y = MatMul b a"};
    nas_graph *g = imported(&p);
    check_values(&p, g);
    nas_value product = NAS_VALUE_NONE;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        product = nas_graph_node(g, v)->op == NAS_OP_MATMUL ? v : product;
    cr_assert(ne(i32, product, NAS_VALUE_NONE));
    cr_expect(nas_graph_node(g, product)->transpose_b);
    nas_graph_free(g);
}

#define HEADS "q = MatMul x w[12,36]; r = Reshape q i[1,5,3,3,4]; t = Transpose r perm=2,0,3,1,4; "
#define ATTEND                                                                                     \
    "u = Transpose k perm=0,1,3,2; s = MatMul q1 u; d = Mul s s(0.5); p = Softmax d axis=-1; "     \
    "o = MatMul p v; m = Transpose o perm=0,2,1,3; z = Reshape m i[1,5,12]; y = Add x z"

/* Rank 5 from the projection of all three at once (Dosovitskiy et al., arXiv:2010.11929, as timm writes it). */
Test(ir_onnx_layout, heads_of_an_attention) {
    static const rule rules[] = {
        {{17,
          {1, 5, 12},
          HEADS "q1 = Gather t k(0) axis=0; k = Gather t k(1) axis=0; v = Gather t k(-1) "
                "axis=0; " ATTEND},
         -1},
        {{17,
          {1, 5, 12},
          HEADS "qs,ks,vs = Split t i[1,1,1] axis=0; q1 = Squeeze qs i[0]; k = Squeeze ks i[0]; "
                "v = Squeeze vs i[0]; " ATTEND},
         -1},
    };
    CHECK_RULES(rules);
    nas_graph *g = imported(&rules[0].p);
    cr_expect(eq(i32, count_of(g, NAS_OP_SLICE), 3));
    cr_expect(eq(i32, count_of(g, NAS_OP_MATMUL), 2));
    for (nas_value v = 0; v < nas_graph_node_count(g); v++)
        cr_expect(eq(i32, nas_graph_node(g, v)->shape.n, 1)); /* the compiler takes no other */
    nas_graph_free(g);
}

/* ---- over axes --------------------------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, softmax_and_layer_norm_over_any_axes) {
    static const rule rules[] = {
        {{17, {1, 3, 4, 5}, "y = Softmax x axis=1"}, 0},
        {{17, {1, 3, 4, 5}, "y = Softmax x axis=2"}, -1},
        {{17, {1, 3, 4, 5}, "y = Softmax x axis=-1"}, -1},
        {{17, {1, 3, 4}, "y = Softmax x axis=1"}, 0},
        {{17, {5, 4}, "y = Softmax x axis=0"}, -1},
        {{11, {1, 3, 4, 5}, "y = Softmax x axis=2"}, -1}, /* over two axes together */
        {{11, {1, 3, 4, 5}, "y = Softmax x"}, -1},
        {{17, {1, 3, 4}, "y = LayerNormalization x w[4] w[4] axis=-1 epsilon=0.01"}, -1},
        {{17, {1, 3, 4}, "y = LayerNormalization x w[3,4] w[3,4] axis=1 epsilon=0.01"}, -1},
        {{17, {1, 3, 4, 5}, "y = LayerNormalization x w[5] axis=3 epsilon=0.01"}, -1},
        {{17, {1, 3, 4, 5}, "y = LayerNormalization x w[3,4,5] w[3,4,5] axis=1"}, -1},
    };
    CHECK_RULES(rules);
}

Test(ir_onnx_layout, reductions_of_any_axes) {
    static const rule rules[] = {
        {{13, {1, 3, 4, 5}, "y = ReduceMean x axes=2,3"}, 0},
        {{13, {1, 3, 4, 5}, "y = ReduceMean x axes=2,3 keepdims=0"}, 0},
        {{13, {1, 3, 4, 5}, "y = ReduceMean x axes=1"}, 0},
        {{13, {1, 3, 4, 5}, "y = ReduceMean x axes=1,-1 keepdims=0"}, -1},
        {{13, {1, 3, 4, 5}, "y = ReduceMean x"}, -1},
        {{18, {1, 3, 4, 5}, "y = ReduceMean x i[2]"}, 0},
        {{13, {1, 6, 4}, "y = ReduceMean x axes=1 keepdims=0"}, 1},
        {{13, {1, 6, 4}, "y = ReduceMean x axes=-1 keepdims=0"}, 0},
        {{13, {5, 4}, "y = ReduceMean x axes=0 keepdims=0"}, -1},
        {{13, {1, 3, 4, 5}, "y = ReduceSum x i[1,2]"}, -1},
        {{13, {1, 3, 4, 5}, "y = ReduceSum x i[0]"}, 0},
        {{13, {1, 3, 4, 5}, "y = ReduceMax x axes=2"}, 0},
        {{13, {1, 3, 4, 5}, "y = ReduceMax x axes=1"}, -1},
        {{13, {1, 3, 4, 5}, "y = ReduceMax x axes=0,1,3 keepdims=0"}, -1},
        {{13, {2, 3, 4, 5}, "y = ReduceMean x axes=0,1"}, -1},
    };
    CHECK_RULES(rules);
}

/* ---- element by element ------------------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, operands_broadcast_in_the_layout_of_the_larger) {
    static const rule rules[] = {
        {{17, {1, 3, 4, 5}, "y = Add x w[3,1,1]"}, 0},
        {{17, {1, 3, 4, 5}, "y = Sub w[4,1] x"}, 0},
        {{17, {1, 3, 4, 5}, "y = Div x p[1,3,1,5]"}, 0},
        {{17, {1, 6, 4}, "y = Add x w[4]"}, 0},
        {{17,
          {1, 6, 4},
          "a = Transpose x perm=0,2,1; b = Reshape a i[1,2,2,6]; y = Mul b w[2,1,6]"},
         -1},
        {{17, {1, 1, 4}, "y = Add x w[1,6,4]"}, -1}, /* the constant is larger */
        {{17, {1, 1, 4}, "y = Sub x w[2,1,6,1]"}, -1},
        {{17, {4, 1}, "y = Sub x w[1,5]"}, -1}, /* both are repeated */
        {{17, {1, 3, 4, 5}, "a = ReduceMean x axes=2,3; y = Mul a x"}, 0},
        {{17, {1, 3, 4, 5}, "a = ReduceMean x axes=3; b = ReduceMean x axes=2; y = Sub a b"}, -1},
        {{17, {1, 3, 4}, "a = ReduceMean x axes=2 keepdims=0; b = Unsqueeze a i[2]; y = Sub b x"},
         -1},
        {{17, {1, 4, 4}, "a = Transpose x perm=0,2,1; y = Add x a"}, 1},
        {{17, {1, 3, 2, 2}, "a = Reshape x i[1,3,4]; b = ReduceMean a axes=1; y = Add b a"}, -1},
        {{17, {1, 3, 4}, "a = Reshape x i[3,4]; y = Add a x"}, -1},
        {{17, {1, 4, 3}, "y = Pow x s(2.0)"}, 0},
        {{17, {1, 4, 3}, "y = Pow x s(3.0)"}, 0},
        {{17, {1, 4, 3}, "a = Mul x x; y = Pow a s(0.5)"}, 0},
        {{17, {1, 1, 4}, "y = Expand x i[1,3,4]"}, -1},
        {{17, {1, 3, 1, 1}, "y = Expand x i[1,1,4,5]"}, -1},
        {{17, {1, 6, 4}, "a = Expand w[1,1,4] i[1,2,4]; y = Concat a x axis=1"}, -1},
        {{17, {1, 6, 4}, "a = Sqrt p[4]; y = Mul x a"}, 0},
        {{20, {1, 6, 4}, "y = Gelu x"}, 0},
        {{20, {1, 6, 4}, "y = Gelu x approximate=tanh"}, 0},
    };
    CHECK_RULES(rules);
}

/* ---- parts ------------------------------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, parts_of_any_axis) {
    static const rule rules[] = {
        {{17, {1, 6, 4}, "y = Slice x i[1] i[5] i[1]"}, 0},
        {{17, {1, 6, 4}, "y = Slice x i[1,-3] i[5,9999] i[1,2]"}, 0},
        {{17, {1, 6, 4}, "y = Slice x i[1] i[9999] i[1] i[2]"}, -1},
        {{17, {1, 3, 6, 8}, "y = Slice x i[1,0] i[9999,9999] i[2,3] i[2,2]"}, 0},
        {{17, {1, 8, 6, 3}, "y = Slice x i[0,1] i[8,6] i[1,3] i[3,2]"}, -1},
        {{17, {1, 12}, "a = Reshape x i[6,2]; y = Slice a i[2,1] i[3,2] i[0,1]"},
         -1}, /* of one IR axis */
        {{17, {1, 12}, "a = Reshape x i[1,2,2,3]; y = Slice a i[1,0] i[2,2] i[2,3]"}, -1},
        {{17, {1, 6, 4}, "a,b = Split x i[2,4] axis=1; y = ReduceMean b axes=1"}, 0},
        {{17, {1, 6, 4}, "a,b = Split x i[1,3] axis=-1; y = Mul a b"}, -1},
        {{17, {1, 6, 4}, "y = Gather x k(2) axis=1"}, 1},
        {{17, {1, 6, 4}, "y = Gather x k(-1) axis=2"}, 0},
        {{17, {1, 6, 4}, "y = Gather x i[2,3] axis=1"}, 0},
        {{17, {1, 6, 4}, "a = Gather w[3,4] k(1) axis=0; y = Add x a"}, 0},
        {{17, {1, 6, 4}, "a = Slice w[8,4] i[1] i[7] i[0]; y = Add x a"}, 0},
        {{17, {1, 6, 4}, "a = Transpose w[4,6] perm=1,0; y = Add x a"}, 0},
    };
    CHECK_RULES(rules);
}

Test(ir_onnx_layout, concatenations_and_pads_of_any_axis) {
    static const rule rules[] = {
        {{13, {1, 3, 4, 6}, "y = SpaceToDepth x blocksize=2"}, -1},
        {{27, {1, 3, 4, 6}, "y = SpaceToDepth x blocksize=2 mode=CRD"}, -1},
        {{17, {1, 6, 4}, "y = Concat w[1,1,4] x axis=1"}, 0},
        {{17, {1, 6, 4}, "y = Concat x x axis=2"}, 0},
        {{17, {1, 3, 4, 5}, "a = Transpose x perm=0,2,3,1; y = Concat a w[1,4,2,3] axis=2"}, -1},
        {{17, {1, 3, 4}, "a = Unsqueeze x i[0]; y = Concat a a axis=0"}, -1},
        {{17, {1, 3, 4}, "a = Unsqueeze x i[0,1]; y = Concat a w[1,2,1,3,4] axis=1"}, -1},
        {{17, {1, 3, 4, 5}, "a = Reshape x i[1,3,2,2,5]; y = Concat a a axis=3"}, -1},
        {{17, {1, 6, 4}, "a = Transpose x perm=0,2,1; y = Concat a w[1,4,1] axis=-1"}, -1},
        {{17, {1, 6, 4}, "y = Pad x i[0,1,2,0,0,1]"}, 0},
        {{17, {1, 6, 4}, "a = Reshape x i[1,2,3,4]; y = Pad a i[0,1,0,1,0,0,2,0]"}, -1},
        {{17, {1, 5}, "a = Reshape x i[1,1,1,5]; y = Pad a i[0,1,1,1,0,0,1,0]"}, -1},
    };
    CHECK_RULES(rules);
}

/* What torch writes for expand(batch, -1, -1) of a class token, and for the scale of an attention. */
Test(ir_onnx_layout, shapes_and_scales_that_the_file_calculates) {
    static const rule rules[] = {
        {{17,
          {1, 6, 4},
          "s = Shape x; g = Gather s k(0) axis=0; u = Unsqueeze g i[0]; n = Concat u i[-1,-1] "
          "axis=0; "
          "e = Equal n i[-1]; r = Where e i[1] n; t = Expand w[1,1,4] r; y = Concat t x axis=1"},
         0},
        {{17,
          {1, 6, 4},
          "s = Shape x; l = Slice s i[-1] i[9999]; f = Cast l to=1; r = Sqrt f; d = Div s(1.0) r; "
          "e = Sqrt d; y = Mul x e"},
         0},
        {{17, {1, 6, 4}, "t = Gather w[5,4] i[4,0,-1,2,2,1] axis=0; y = Add x t"}, 0},
        {{17,
          {1, 6, 4},
          "i = Reshape i[0,1,2,1,0,2] i[2,3]; t = Gather w[4,3] i axis=1; r = Reshape t i[4,6]; "
          "u = Transpose r perm=1,0; y = Add x u"},
         0},
    };
    CHECK_RULES(rules);
}

/* ---- patterns ---------------------------------------------------------------------------------------------------------- */

#define CENTRED(of, last) "m = ReduceMean " of " axes=" last "; c = Sub " of " m; "
#define DEVIATION(of, last)                                                                        \
    "q = Pow " of " s(2.0); v = ReduceMean q axes=" last "; e = Add v s(0.01); d = Sqrt e; "

Test(ir_onnx_layout, layer_norm_in_parts_is_one_operator) {
    static const struct {
        program p;
        bool norm;
    } rows[] = {
        {{17,
          {1, 8, 3, 3},
          "t = Transpose x perm=0,2,3,1; " CENTRED("t", "-1")
              DEVIATION("c", "-1") "n = Div c d; a = Mul n w[8]; y = Add a w[1,1,8]"},
         true},
        {{17,
          {1, 8, 3, 3},
          CENTRED("x", "1")
              DEVIATION("c", "1") "n = Div c d; a = Mul w[8,1,1] n; y = Add w[8,1,1] a"},
         true},
        {{17, {1, 8, 3, 3}, CENTRED("x", "1") DEVIATION("c", "1") "y = Div c d"}, true},
        {{17, {1, 8, 3, 3}, CENTRED("x", "1") "b = Sub x m; " DEVIATION("b", "1") "y = Div c d"},
         true},
        {{17, {1, 8, 3, 3}, CENTRED("x", "1") DEVIATION("x", "1") "y = Div c d"}, false},
        {{17, {1, 8, 3, 3}, CENTRED("x", "1") DEVIATION("c", "2") "y = Div c d"}, false},
        {{17, {1, 8, 3, 3}, CENTRED("x", "2") DEVIATION("c", "2") "y = Div c d"}, false},
        {{17,
          {1, 8, 3, 3},
          CENTRED("x", "1") DEVIATION("c", "1") "n = Div c d; y = Mul n w[8,3,3]"},
         true},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_graph *g = imported(&rows[i].p);
        check_values(&rows[i].p, g);
        cr_expect(eq(i32, count_of(g, NAS_OP_LAYER_NORM), rows[i].norm ? 1 : 0), "%s",
                  rows[i].p.text);
        cr_expect(eq(i32, count_of(g, NAS_OP_DIV), rows[i].norm ? 0 : 1), "%s", rows[i].p.text);
        nas_graph_free(g);
    }
}

Test(ir_onnx_layout, gelu_in_parts_is_one_operator) {
    static const program programs[] = {
        {17,
         {1, 5, 8},
         "d = Div x s(1.41421356); e = Erf d; o = Add e s(1.0); p = Mul x o; y = Mul p s(0.5)"},
        {17,
         {1, 5, 8},
         "d = Mul x s(0.70710678); e = Erf d; o = Add s(1.0) e; h = Mul x s(0.5); y = Mul h o"},
        {17,
         {1, 5, 8},
         "d = Div x s(1.41421356); e = Erf d; o = Add e s(1.0); h = Mul o s(0.5); y = Mul h x"},
        {17,
         {1, 5, 8},
         "d = Div x s(1.5); e = Erf d; o = Add e s(1.0); p = Mul x o; y = Mul p s(0.5)"},
    };
    for (size_t i = 0; i < 4; i++) { /* the last is none */
        nas_graph *g = imported(&programs[i]);
        check_values(&programs[i], g);
        const nas_node *last = nas_graph_node(g, nas_graph_output(g));
        const bool gelu = last->op == NAS_OP_UNARY && last->unary == NAS_UNARY_GELU;
        cr_expect(eq(int, (int)gelu, i < 3 ? 1 : 0), "%s", programs[i].text);
        cr_expect(eq(int, (int)(nas_graph_node_count(g) == 2), i < 3 ? 1 : 0));
        nas_graph_free(g);
    }
}

/* ---- refusals ---------------------------------------------------------------------------------------------------------- */

Test(ir_onnx_layout, what_has_no_form_is_refused_by_name) {
    static const struct {
        program p;
        nas_status status;
        const char *part;
    } rows[] = {
        {{17, {1, 1, 3, 4, 5}, "y = Relu x"}, NAS_ERR_UNSUPPORTED, "rank 5"},
        {{17, {7}, "y = Relu x"}, NAS_ERR_UNSUPPORTED, "rank 1"},
        {{17, {1, 3, 4}, "y = GlobalAveragePool x"}, NAS_ERR_UNSUPPORTED, "rank 3"},
        {{17, {1, 3, 4}, "y = MaxPool x kernel_shape=2"},
         NAS_ERR_UNSUPPORTED,
         "node 'y' (MaxPool)"},
        {{17, {1, 3, 4}, "y = MatMul x w[3,5]"}, NAS_ERR_SHAPE, "4 inputs, weights for 3"},
        {{17, {1, 3, 4}, "y = MatMul x x"}, NAS_ERR_SHAPE, "inner extents 4 and 3"},
        {{17, {1, 3, 4}, "y = MatMul x w[4]"}, NAS_ERR_UNSUPPORTED, "rank below 2"},
        {{17, {1, 2, 1, 3, 4}, "y = Relu x"}, NAS_ERR_UNSUPPORTED, "rank 5"},
        {{17, {1, 2, 3, 4}, "a = Reshape x i[2,1,3,4]; y = MatMul a w[1,2,4,3]"},
         NAS_ERR_UNSUPPORTED,
         "both operands"},
        {{17, {1, 6, 3, 4}, "a = Reshape x i[1,2,3,3,4]; y = MatMul a w[1,1,3,4,5]"},
         NAS_ERR_UNSUPPORTED,
         "some of several axes"},
        {{17, {3, 4}, "y = Gemm x x w[3] transB=1"}, NAS_ERR_UNSUPPORTED, "two values"},
        {{17, {1, 3, 4}, "y = Gemm x w[4,5]"}, NAS_ERR_UNSUPPORTED, "rank 2"},
        {{17, {1, 3, 4}, "y = LayerNormalization x x"}, NAS_ERR_UNSUPPORTED, "the scale"},
        {{17, {1, 3, 4}, "y = LayerNormalization x w[3] axis=-1"},
         NAS_ERR_UNSUPPORTED,
         "an element"},
        {{17, {1, 3, 4}, "y = Pow x s(1.7)"}, NAS_ERR_UNSUPPORTED, "exponent"},
        {{17, {1, 3, 4}, "y = Pow s(2.0) x"}, NAS_ERR_UNSUPPORTED, "the exponent is not"},
        {{17, {1, 3, 4}, "y = Gather x i[2,0] axis=1"}, NAS_ERR_UNSUPPORTED, "in a row"},
        {{17, {1, 3, 4}, "y = Gather x k(3) axis=1"}, NAS_ERR_RANGE, "index 3 of 3"},
        {{17, {1, 3, 4}, "y = Gather x x axis=1"}, NAS_ERR_UNSUPPORTED, "the index"},
        {{17, {1, 3, 4}, "y = Slice x i[-1] i[0] i[1] i[-1]"}, NAS_ERR_UNSUPPORTED, "a step of -1"},
        {{17, {1, 3, 4}, "y = Slice x i[2] i[1] i[1]"}, NAS_ERR_SHAPE, "an empty slice"},
        {{17, {1, 3, 4}, "a = Reshape x i[1,1,1,3,4]; y = Pad a i[0,0,0,0,0,1,1,1,1,1]"},
         NAS_ERR_UNSUPPORTED,
         "rank above 4"},
        {{17, {1, 3, 4}, "y = Concat x w[1,2,5] axis=1"}, NAS_ERR_SHAPE, "extent 5"},
        {{17, {1, 3, 4}, "y = Concat x w[3,4] axis=1"}, NAS_ERR_SHAPE, "rank"},
        {{17, {1, 3, 4}, "y = Add x w[5]"}, NAS_ERR_SHAPE, "extent 4 and 5"},
        {{17, {1, 3, 4}, "y = Reshape x i[1,5,3]"}, NAS_ERR_SHAPE, "12 elements to 15"},
        {{17, {1, 3, 4}, "y = Expand x i[1,2,4]"}, NAS_ERR_SHAPE, "extent 3 and 2"},
        {{17, {1, 3, 4}, "y = Expand x x"}, NAS_ERR_UNSUPPORTED, "while the network runs"},
        {{17, {1, 3, 4}, "y = Where x x x"}, NAS_ERR_UNSUPPORTED, "but constants"},
        {{17, {1, 3, 4}, "y = ReduceMax x axes=3"}, NAS_ERR_RANGE, "axis 3"},
        {{17, {1, 3, 4}, "y = ReduceL2 x axes=1"}, NAS_ERR_UNSUPPORTED, "not supported"},
        {{17, {1, 3, 4}, "y = Gelu x approximate=cubic"},
         NAS_ERR_UNSUPPORTED,
         "an unknown approximation"},
        {{17, {1, 3, 4, 5}, "y = SpaceToDepth x blocksize=2"}, NAS_ERR_RANGE, "blocksize 2"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_graph *g = NULL;
        cr_expect(eq(int, (int)program_import(ctx, &rows[i].p, &g), (int)rows[i].status), "%s: %s",
                  rows[i].p.text, nas_ctx_message(ctx));
        cr_expect(strstr(nas_ctx_message(ctx), rows[i].part) != NULL, "%s: '%s' lacks '%s'",
                  rows[i].p.text, nas_ctx_message(ctx), rows[i].part);
        nas_graph_free(g);
    }
}

Test(ir_onnx_layout, every_failing_allocation_is_reported) {
    const program p = {
        17,
        {1, 5, 12},
        HEADS
        "q1 = Gather t k(0) axis=0; k = Gather t k(1) axis=0; v = Gather t k(2) axis=0; " ATTEND};
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK; n++) {
        nas_graph *g = NULL;
        nas_mem_fail_after(n);
        status = program_import(ctx, &p, &g);
        nas_mem_fail_after(0);
        cr_assert(n < 100000 && (status == NAS_OK || g == NULL));
        nas_graph_free(g);
    }
}
