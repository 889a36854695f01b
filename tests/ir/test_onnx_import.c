/* test_onnx_import.c - files are built here from the message structures, so each test shows the model it reads. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include "onnx.pb-c.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static long live;

enum { LIST_MAX = 8, POOL_MAX = 64 };

/* One model under construction; everything has room for what these tests need. */
static Onnx__ModelProto model;
static Onnx__GraphProto graph;
static Onnx__OperatorSetIdProto opset, *opsets[1];
static Onnx__NodeProto nodes[LIST_MAX], *node_list[LIST_MAX];
static Onnx__TensorProto tensors[LIST_MAX], *tensor_list[LIST_MAX];
static Onnx__ValueInfoProto input, output, *inputs[1], *outputs[2];
static Onnx__TypeProto type;
static Onnx__TypeProto__Tensor tensor_type;
static Onnx__TensorShapeProto shape;
static Onnx__TensorShapeProto__Dimension dims[4], *dim_list[4];
static Onnx__AttributeProto attributes[POOL_MAX], *attribute_lists[LIST_MAX][LIST_MAX];
static char *name_lists[LIST_MAX][LIST_MAX], *output_lists[LIST_MAX][1];
static size_t n_attributes;
static nas_onnx_import_options options;

static char *text(const char *s) {
    return (char *)(uintptr_t)s; /* protobuf-c has no const */
}

/* An empty model of opset `version` with input "x" [n,c,h,w] and output "y"; h = 0 leaves the height open. */
static void begin(int64_t version, int64_t c, int64_t h, int64_t w) {
    onnx__model_proto__init(&model);
    onnx__graph_proto__init(&graph);
    onnx__operator_set_id_proto__init(&opset);
    onnx__value_info_proto__init(&input);
    onnx__value_info_proto__init(&output);
    onnx__type_proto__init(&type);
    onnx__type_proto__tensor__init(&tensor_type);
    onnx__tensor_shape_proto__init(&shape);
    n_attributes = 0;
    opset.domain = text("");
    opset.has_version = 1;
    opset.version = version;
    opsets[0] = &opset;
    model.opset_import = opsets;
    model.n_opset_import = 1;
    model.graph = &graph;
    graph.name = text("made");
    const int64_t extents[] = {1, c, h, w};
    for (int i = 0; i < 4; i++) {
        onnx__tensor_shape_proto__dimension__init(&dims[i]);
        if (extents[i] > 0) {
            dims[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            dims[i].dim_value = extents[i];
        }
        dim_list[i] = &dims[i];
    }
    shape.dim = dim_list;
    shape.n_dim = 4;
    tensor_type.has_elem_type = 1;
    tensor_type.elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor_type.shape = &shape;
    type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type.tensor_type = &tensor_type;
    input.name = text("x");
    input.type = &type;
    output.name = text("y");
    inputs[0] = &input;
    outputs[0] = outputs[1] = &output;
    graph.input = inputs;
    graph.n_input = 1;
    graph.output = outputs;
    graph.n_output = 1;
    graph.node = node_list;
    graph.initializer = tensor_list;
}

/* Inputs as "a b c". */
static void node(const char *op_type, const char *in, const char *out) {
    static char words[LIST_MAX][64];
    cr_assert(lt(sz, graph.n_node, LIST_MAX));
    const size_t at = graph.n_node++;
    Onnx__NodeProto *n = &nodes[at];
    onnx__node_proto__init(n);
    (void)snprintf(words[at], sizeof words[at], "%s", in);
    char *rest = NULL;
    for (char *w = strtok_r(words[at], " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest))
        name_lists[at][n->n_input++] = w;
    output_lists[at][0] = text(out);
    n->input = name_lists[at];
    n->output = output_lists[at];
    n->n_output = 1;
    n->op_type = text(op_type);
    n->name = text(out);
    n->attribute = attribute_lists[at];
    node_list[at] = n;
}

/* The next attribute of the last node. */
static Onnx__AttributeProto *attribute(const char *name) {
    cr_assert(lt(sz, n_attributes, POOL_MAX));
    Onnx__AttributeProto *a = &attributes[n_attributes++];
    onnx__attribute_proto__init(a);
    a->name = text(name);
    Onnx__NodeProto *n = node_list[graph.n_node - 1];
    n->attribute[n->n_attribute++] = a;
    return a;
}

static void ints(const char *name, int64_t *values, size_t n) {
    Onnx__AttributeProto *a = attribute(name);
    a->ints = values;
    a->n_ints = n;
}

static void integer(const char *name, int64_t value) {
    Onnx__AttributeProto *a = attribute(name);
    a->has_i = 1;
    a->i = value;
}

static Onnx__TensorProto *tensor(const char *name, int32_t data_type, int64_t *extents,
                                 size_t rank) {
    cr_assert(lt(sz, graph.n_initializer, LIST_MAX));
    Onnx__TensorProto *t = &tensors[graph.n_initializer];
    tensor_list[graph.n_initializer++] = t;
    onnx__tensor_proto__init(t);
    t->name = text(name);
    t->has_data_type = 1;
    t->data_type = data_type;
    t->dims = extents;
    t->n_dims = rank;
    return t;
}

static void floats(const char *name, int64_t *extents, size_t rank, float *values, size_t n) {
    Onnx__TensorProto *t = tensor(name, ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT, extents, rank);
    t->float_data = values;
    t->n_float_data = n;
}

static nas_status read_model(nas_graph **g) {
    static uint8_t bytes[1 << 16];
    cr_assert(lt(sz, onnx__model_proto__get_packed_size(&model), sizeof bytes));
    const size_t len = onnx__model_proto__pack(&model, bytes);
    return nas_onnx_import_bytes(ctx, bytes, len, "file", &options, g);
}

static nas_graph *legal(void) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)read_model(&g), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
    return g;
}

static const nas_node *last_node(const nas_graph *g) {
    return nas_graph_node(g, nas_graph_output(g));
}

static void refused(nas_status expected, const char *part) {
    nas_graph *g = NULL;
    cr_expect(eq(int, (int)read_model(&g), (int)expected), "%s", nas_ctx_message(ctx));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), part), NULL), "'%s' lacks '%s'",
              nas_ctx_message(ctx), part);
    cr_expect(eq(ptr, g, NULL));
}

static void setup(void) {
    live = nas_mem_live();
    ctx = nas_ctx_new();
    options = nas_onnx_import_options_default();
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_expect(eq(long, nas_mem_live(), live), "memory is left over");
}

TestSuite(ir_onnx_import, .init = setup, .fini = teardown);

static void is_shape(const nas_node *n, nas_op op, int32_t h, int32_t w, int32_t c) {
    cr_expect(eq(int, (int)n->op, (int)op));
    cr_expect(eq(i32, n->shape.h, h));
    cr_expect(eq(i32, n->shape.w, w));
    cr_expect(eq(i32, n->shape.c, c));
}

/* ---- operators ---------------------------------------------------------------------------------------------------- */

Test(ir_onnx_import, a_convolution_moves_its_weights_to_ohwi) {
    int64_t extents[] = {2, 3, 1, 2}, one[] = {2}, pads[] = {0, 1, 0, 1}, strides[] = {1, 2};
    float weight[12], bias[] = {5, 6};
    for (int i = 0; i < 12; i++)
        weight[i] = (float)i;
    begin(13, 3, 4, 6);
    node("Conv", "x w b", "y");
    ints("pads", pads, 4);
    ints("strides", strides, 2);
    floats("w", extents, 4, weight, 12);
    floats("b", one, 1, bias, 2);
    nas_graph *g = legal();
    const nas_node *n = last_node(g);
    is_shape(n, NAS_OP_CONV, 4, 4, 2);
    const float *w = nas_graph_param_const(g, n->params[0])->data;
    for (int o = 0; o < 2; o++) {
        for (int i = 0; i < 3; i++) {
            for (int k = 0; k < 2; k++)
                cr_expect(eq(flt, w[(o * 2 + k) * 3 + i], weight[(o * 3 + i) * 2 + k]));
        }
    }
    cr_expect(eq(flt, nas_graph_param_const(g, n->params[1])->data[1], 6.f));
    nas_graph_free(g);
}

Test(ir_onnx_import, same_upper_puts_the_odd_pad_at_the_end) {
    int64_t extents[] = {1, 1, 3, 3}, strides[] = {2, 2};
    float weight[9] = {0};
    begin(13, 1, 4, 4);
    node("Conv", "x w", "y");
    ints("strides", strides, 2);
    Onnx__AttributeProto *a = attribute("auto_pad");
    a->has_s = 1;
    a->s = (ProtobufCBinaryData){10, (uint8_t *)text("SAME_UPPER")};
    floats("w", extents, 4, weight, 9);
    nas_graph *g = legal();
    const nas_node *n = last_node(g);
    is_shape(n, NAS_OP_CONV, 2, 2, 1);
    cr_expect(eq(i32, n->conv.pad_top, 0));
    cr_expect(eq(i32, n->conv.pad_bottom, 1));
    nas_graph_free(g);
}

Test(ir_onnx_import, a_gemm_after_flatten_permutes_its_weights) {
    int64_t extents[] = {1, 8}; /* transB: [out, C*H*W] */
    float weight[] = {0, 1, 2, 3, 4, 5, 6, 7};
    begin(13, 2, 2, 2);
    node("Flatten", "x", "f");
    node("Gemm", "f w", "y");
    integer("transB", 1);
    floats("w", extents, 2, weight, 8);
    nas_graph *g = legal();
    /* NHWC input, so that the ONNX order c*4 + h*2 + w reads 0..7: the product is the sum of squares. */
    const float in[] = {0, 4, 1, 5, 2, 6, 3, 7};
    const nas_node *n = last_node(g);
    is_shape(n, n->op, 1, 1, 1);
    const float *w = nas_graph_param_const(g, n->params[0])->data;
    float sum = 0;
    for (int i = 0; i < 8; i++)
        sum += w[i] * in[i];
    cr_expect(eq(flt, sum, 140.f));
    nas_graph_free(g);
}

Test(ir_onnx_import, pools_and_global_pools_have_their_shapes) {
    int64_t kernel[] = {3, 3}, strides[] = {2, 2};
    begin(13, 4, 8, 8);
    node("MaxPool", "x", "p");
    ints("kernel_shape", kernel, 2);
    ints("strides", strides, 2);
    integer("ceil_mode", 1);
    node("GlobalAveragePool", "p", "y");
    nas_graph *g = legal();
    is_shape(last_node(g), NAS_OP_AVG_POOL, 1, 1, 4);
    is_shape(nas_graph_node(g, nas_graph_find(g, "p")), NAS_OP_MAX_POOL, 4, 4, 4);
    nas_graph_free(g);
}

Test(ir_onnx_import, elementwise_operators_and_constants) {
    int64_t scalar[1] = {1};
    float half[] = {0.5f};
    begin(13, 2, 3, 3);
    node("Relu", "x", "a");
    node("Sigmoid", "a", "b");
    node("Mul", "a b", "c");
    node("Add", "c x", "d");
    node("Add", "d k", "e");
    node("LeakyRelu", "e", "y");
    Onnx__AttributeProto *alpha = attribute("alpha");
    alpha->has_f = 1;
    alpha->f = 0.25f;
    floats("k", scalar, 0, half, 1);
    nas_graph *g = legal();
    const nas_node *n = last_node(g);
    is_shape(n, NAS_OP_UNARY, 3, 3, 2);
    cr_expect(eq(int, (int)n->unary, (int)NAS_UNARY_LEAKY_RELU));
    cr_expect(eq(flt, n->alpha, 0.25f));
    const nas_node *e = nas_graph_node(g, nas_graph_find(g, "e"));
    cr_expect(eq(int, (int)e->op, (int)NAS_OP_ADD_SCALAR));
    cr_expect(eq(flt, e->scalar, 0.5f));
    nas_graph_free(g);
}

Test(ir_onnx_import, concat_transpose_pad_and_depth_to_space) {
    int64_t perm[] = {0, 1, 3, 2}, pads[] = {0, 0, 1, 0, 0, 0, 0, 2}, extents[] = {8};
    begin(13, 2, 3, 5);
    node("Concat", "x x", "a");
    integer("axis", 1);
    node("Transpose", "a", "b");
    ints("perm", perm, 4);
    node("DepthToSpace", "b", "c");
    integer("blocksize", 2);
    Onnx__AttributeProto *a = attribute("mode");
    a->has_s = 1;
    a->s = (ProtobufCBinaryData){3, (uint8_t *)text("CRD")};
    node("Pad", "c p", "y");
    Onnx__TensorProto *t = tensor("p", ONNX__TENSOR_PROTO__DATA_TYPE__INT64, extents, 1);
    t->int64_data = pads;
    t->n_int64_data = 8;
    nas_graph *g = legal();
    is_shape(nas_graph_node(g, nas_graph_find(g, "a")), NAS_OP_CONCAT, 3, 5, 4);
    is_shape(nas_graph_node(g, nas_graph_find(g, "b")), NAS_OP_TRANSPOSE, 5, 3, 4);
    is_shape(last_node(g), NAS_OP_PAD, 11, 8, 1);
    nas_graph_free(g);
}

Test(ir_onnx_import, what_the_output_does_not_need_is_left_out) {
    begin(13, 2, 3, 3);
    node("Relu", "x", "y");
    node("NonZero", "x", "unused");
    nas_graph *g = legal();
    cr_expect(eq(i32, nas_graph_node_count(g), 2));
    nas_graph_free(g);
}

Test(ir_onnx_import, the_caller_gives_or_overrides_the_input_size) {
    begin(13, 2, 0, 3);
    node("Relu", "x", "y");
    options.h = 7;
    options.w = 9;
    nas_graph *g = legal();
    is_shape(last_node(g), NAS_OP_RELU, 7, 9, 2);
    nas_graph_free(g);
}

/* ---- errors ------------------------------------------------------------------------------------------------------- */

Test(ir_onnx_import, an_unsupported_operator_is_named_with_its_node) {
    begin(13, 2, 3, 3);
    node("NonZero", "x", "y");
    refused(NAS_ERR_UNSUPPORTED, "node 'y' (NonZero)");
}

Test(ir_onnx_import, another_domain_is_unsupported) {
    begin(13, 2, 3, 3);
    node("Relu", "x", "y");
    nodes[0].domain = text("com.example");
    refused(NAS_ERR_UNSUPPORTED, "com.example");
}

Test(ir_onnx_import, an_undefined_value_is_named) {
    begin(13, 2, 3, 3);
    node("Add", "x nowhere", "y");
    refused(NAS_ERR_PARSE, "'nowhere' is not defined");
}

Test(ir_onnx_import, a_cycle_is_an_undefined_value) {
    begin(13, 2, 3, 3);
    node("Add", "x b", "y");
    node("Relu", "y", "b");
    refused(NAS_ERR_PARSE, "'b' is not defined");
}

Test(ir_onnx_import, an_output_nobody_computes_is_refused) {
    begin(13, 2, 3, 3);
    node("Relu", "x", "z");
    refused(NAS_ERR_PARSE, "output 'y'");
}

Test(ir_onnx_import, several_outputs_are_unsupported) {
    begin(13, 2, 3, 3);
    node("Relu", "x", "y");
    graph.n_output = 2;
    refused(NAS_ERR_UNSUPPORTED, "2 outputs");
}

Test(ir_onnx_import, an_open_height_asks_for_the_size) {
    begin(13, 2, 0, 3);
    node("Relu", "x", "y");
    refused(NAS_ERR_UNSUPPORTED, "height");
}

Test(ir_onnx_import, data_that_does_not_fit_its_shape_is_refused) {
    int64_t extents[] = {1, 2, 3, 3};
    float weight[4] = {0};
    begin(13, 2, 3, 3);
    node("Conv", "x w", "y");
    floats("w", extents, 4, weight, 4);
    refused(NAS_ERR_PARSE, "'w' has 4 elements");
}

Test(ir_onnx_import, an_extent_beyond_any_memory_is_refused) {
    int64_t extents[] = {INT64_MAX, INT64_MAX};
    float weight[1] = {0};
    begin(13, 2, 3, 3);
    node("Add", "x w", "y");
    floats("w", extents, 2, weight, 1);
    refused(NAS_ERR_RANGE, "'w'");
}

Test(ir_onnx_import, weights_beyond_the_limit_are_refused) {
    int64_t extents[] = {4, 2, 3, 3};
    float weight[72] = {0};
    begin(13, 2, 3, 3);
    node("Conv", "x w", "y");
    floats("w", extents, 4, weight, 72);
    options.max_weight_bytes = 100;
    refused(NAS_ERR_RANGE, "exceed 100 bytes");
    options.max_file_bytes = 10;
    refused(NAS_ERR_RANGE, "at most 10");
}

Test(ir_onnx_import, external_data_is_unsupported) {
    int64_t extents[] = {1};
    float weight[1] = {0};
    begin(13, 2, 3, 3);
    node("Add", "x w", "y");
    floats("w", extents, 1, weight, 1);
    tensors[0].has_data_location = 1;
    tensors[0].data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    refused(NAS_ERR_UNSUPPORTED, "another file");
}

/* ---- whole files ---------------------------------------------------------------------------------------------------- */

static void exported(nas_buf *file, char hash[NAS_SHA256_HEX]) {
    char folder[] = "/tmp/nas-import-XXXXXX", path[64];
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    (void)snprintf(path, sizeof path, "%s/m.onnx", folder);
    nas_graph *g = NULL;
    nas_rng rng = nas_rng_stream(7, 0, "onnx");
    cr_assert(eq(int, (int)small_sr_graph(ctx, 5, 6, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    fill_weights(g, &rng);
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, hash), NAS_OK));
    cr_assert(eq(int, (int)nas_onnx_export(ctx, g, path), NAS_OK));
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 20, file), NAS_OK));
    nas_graph_free(g);
    nas_graph *again = NULL;
    cr_assert(eq(int, (int)nas_onnx_import(ctx, path, &options, &again), NAS_OK));
    nas_graph_free(again);
    cr_assert(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
}

Test(ir_onnx_import, an_exported_network_comes_back_equal) {
    nas_buf file = {0};
    char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
    exported(&file, before);
    nas_graph *g = NULL;
    cr_assert(
        eq(int, (int)nas_onnx_import_bytes(ctx, file.data, file.len, "m", &options, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, after), NAS_OK));
    cr_expect(eq(str, before, after));
    nas_graph_free(g);
    nas_buf_deinit(&file);
}

Test(ir_onnx_import, every_truncation_fails_or_is_a_legal_file) {
    nas_buf file = {0};
    char hash[NAS_SHA256_HEX];
    exported(&file, hash);
    for (size_t len = 0; len < file.len; len += len < 400 ? 1 : 37) {
        nas_graph *g = NULL;
        const nas_status status = nas_onnx_import_bytes(ctx, file.data, len, "m", &options, &g);
        cr_assert(status == NAS_OK || g == NULL, "%zu bytes", len);
        cr_assert(status == NAS_OK || nas_ctx_message(ctx)[0] != '\0', "%zu bytes", len);
        nas_graph_free(g);
    }
    nas_buf_deinit(&file);
}

Test(ir_onnx_import, every_failing_allocation_is_reported) {
    nas_buf file = {0};
    char hash[NAS_SHA256_HEX];
    exported(&file, hash);
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK; n++) {
        nas_graph *g = NULL;
        nas_mem_fail_after(n);
        status = nas_onnx_import_bytes(ctx, file.data, file.len, "m", &options, &g);
        nas_mem_fail_after(0);
        cr_assert(n < 100000 && (status == NAS_OK || g == NULL));
        nas_graph_free(g);
    }
    nas_buf_deinit(&file);
}

Test(ir_onnx_import, a_missing_file_and_noise_are_refused) {
    nas_graph *g = NULL;
    cr_expect(ne(int, (int)nas_onnx_import(ctx, "/nowhere/m.onnx", &options, &g), NAS_OK));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "/nowhere/m.onnx"), NULL));
    static const char noise[] = "this is no model";
    cr_expect(eq(int, (int)nas_onnx_import_bytes(ctx, noise, sizeof noise, "m", &options, &g),
                 NAS_ERR_PARSE));
}
