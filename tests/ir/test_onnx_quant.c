/* test_onnx_quant.c - QuantizeLinear and DequantizeLinear as onnxruntime writes them around a convolution. The message is
 * built here and packed. */
#include "ir/graph.h"
#include "ir/onnx_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(ir_onnx_quant, .init = setup, .fini = teardown);

enum { NODES_MAX = 8, TENSORS_MAX = 12 };

/* A message and everything it points to. */
typedef struct model {
    Onnx__ModelProto proto;
    Onnx__GraphProto graph;
    Onnx__OperatorSetIdProto opset;
    Onnx__OperatorSetIdProto *opsets[1];
    Onnx__NodeProto nodes[NODES_MAX], *node_list[NODES_MAX];
    char *inputs[NODES_MAX][3], *outputs[NODES_MAX][1];
    Onnx__AttributeProto axis, *attributes[1];
    Onnx__TensorProto tensors[TENSORS_MAX], *tensor_list[TENSORS_MAX];
    Onnx__ValueInfoProto in, out, *ins[1], *outs[1];
    Onnx__TypeProto type;
    Onnx__TypeProto__Tensor tensor_type;
    Onnx__TensorShapeProto shape;
    Onnx__TensorShapeProto__Dimension dims[4], *dim_list[4];
} model;

static void add_node(model *m, const char *op, const char *a, const char *b, const char *c,
                     const char *out) {
    const size_t i = m->graph.n_node++;
    const char *names[] = {a, b, c};
    Onnx__NodeProto *n = &m->nodes[i];
    onnx__node_proto__init(n);
    n->op_type = (char *)(uintptr_t)op;
    for (size_t k = 0; k < 3 && names[k] != NULL; k++)
        m->inputs[i][n->n_input++] = (char *)(uintptr_t)names[k];
    n->input = m->inputs[i];
    m->outputs[i][0] = (char *)(uintptr_t)out;
    n->output = m->outputs[i];
    n->n_output = 1;
    m->node_list[i] = n;
}

static void add_tensor(model *m, const char *name, int32_t type, const void *data, size_t size,
                       size_t n_dims, int64_t *dims) {
    const size_t i = m->graph.n_initializer++;
    Onnx__TensorProto *t = &m->tensors[i];
    onnx__tensor_proto__init(t);
    t->name = (char *)(uintptr_t)name;
    t->has_data_type = 1;
    t->data_type = type;
    t->n_dims = n_dims;
    t->dims = dims;
    t->has_raw_data = 1;
    t->raw_data.data = (uint8_t *)(uintptr_t)data;
    t->raw_data.len = size;
    m->tensor_list[i] = t;
}

enum {
    FLOAT = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT,
    UINT8 = ONNX__TENSOR_PROTO__DATA_TYPE__UINT8,
    INT8 = ONNX__TENSOR_PROTO__DATA_TYPE__INT8,
    INT32 = ONNX__TENSOR_PROTO__DATA_TYPE__INT32
};

static const float scale_x = 0.5F, scale_y = 0.25F, scale_other = 0.75F;
static const uint8_t zero_x = 7;
static const int8_t zero_y = -3, zero_w[2] = {0, 0}, zero_w_bad[2] = {0, 1};
static const int8_t weight[6] = {-127, 5, 127, 1, -2, 3};
static const float scale_w[2] = {0.125F, 0.0625F};
static const int32_t bias[2] = {8, -4};
static const float scale_b[2] = {0.0625F, 0.03125F};
static int64_t dims_w[4] = {2, 3, 1, 1}, dims_2[1] = {2};

/* x -> Q -> DQ -> Conv(DQ weight, DQ bias) -> Q -> DQ -> y, 3 -> 2 channels, 1x1, on 4x5 pixels */
static void build(model *m, const float *second_scale, const int8_t *weight_zero) {
    memset(m, 0, sizeof *m);
    onnx__model_proto__init(&m->proto);
    onnx__graph_proto__init(&m->graph);
    onnx__operator_set_id_proto__init(&m->opset);
    onnx__attribute_proto__init(&m->axis);
    m->opset.has_version = 1;
    m->opset.version = 13;
    m->opsets[0] = &m->opset;
    m->proto.opset_import = m->opsets;
    m->proto.n_opset_import = 1;
    m->proto.graph = &m->graph;
    m->graph.node = m->node_list;
    m->graph.initializer = m->tensor_list;
    add_tensor(m, "sx", FLOAT, &scale_x, 4, 0, NULL);
    add_tensor(m, "zx", UINT8, &zero_x, 1, 0, NULL);
    add_tensor(m, "s2", FLOAT, second_scale, 4, 0, NULL);
    add_tensor(m, "w", INT8, weight, 6, 4, dims_w);
    add_tensor(m, "sw", FLOAT, scale_w, 8, 1, dims_2);
    add_tensor(m, "zw", INT8, weight_zero, 2, 1, dims_2);
    add_tensor(m, "b", INT32, bias, 8, 1, dims_2);
    add_tensor(m, "sb", FLOAT, scale_b, 8, 1, dims_2);
    add_tensor(m, "sy", FLOAT, &scale_y, 4, 0, NULL);
    add_tensor(m, "zy", INT8, &zero_y, 1, 0, NULL);
    add_node(m, "QuantizeLinear", "x", "sx", "zx", "xq");
    add_node(m, "DequantizeLinear", "xq", "s2", "zx", "xd");
    add_node(m, "DequantizeLinear", "w", "sw", "zw", "wd");
    m->axis.name = (char *)(uintptr_t) "axis";
    m->axis.has_type = 1;
    m->axis.type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
    m->axis.has_i = 1;
    m->axis.i = 0;
    m->attributes[0] = &m->axis;
    m->nodes[2].attribute = m->attributes;
    m->nodes[2].n_attribute = 1;
    add_node(m, "DequantizeLinear", "b", "sb", NULL, "bd");
    m->nodes[3].attribute = m->attributes;
    m->nodes[3].n_attribute = 1;
    add_node(m, "Conv", "xd", "wd", "bd", "c");
    add_node(m, "QuantizeLinear", "c", "sy", "zy", "cq");
    add_node(m, "DequantizeLinear", "cq", "sy", "zy", "y");
    static const int64_t extents[4] = {1, 3, 4, 5};
    onnx__tensor_shape_proto__init(&m->shape);
    for (int i = 0; i < 4; i++) {
        onnx__tensor_shape_proto__dimension__init(&m->dims[i]);
        m->dims[i].value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        m->dims[i].dim_value = extents[i];
        m->dim_list[i] = &m->dims[i];
    }
    m->shape.dim = m->dim_list;
    m->shape.n_dim = 4;
    onnx__type_proto__tensor__init(&m->tensor_type);
    m->tensor_type.has_elem_type = 1;
    m->tensor_type.elem_type = FLOAT;
    m->tensor_type.shape = &m->shape;
    onnx__type_proto__init(&m->type);
    m->type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    m->type.tensor_type = &m->tensor_type;
    onnx__value_info_proto__init(&m->in);
    onnx__value_info_proto__init(&m->out);
    m->in.name = (char *)(uintptr_t) "x";
    m->in.type = &m->type;
    m->out.name = (char *)(uintptr_t) "y";
    m->ins[0] = &m->in;
    m->outs[0] = &m->out;
    m->graph.input = m->ins;
    m->graph.n_input = 1;
    m->graph.output = m->outs;
    m->graph.n_output = 1;
}

static nas_status import(const model *m, nas_graph **g) {
    uint8_t bytes[2048];
    const size_t len = onnx__model_proto__get_packed_size(&m->proto);
    cr_assert(len <= sizeof bytes);
    (void)onnx__model_proto__pack(&m->proto, bytes);
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    return nas_onnx_import_bytes(ctx, bytes, len, "quant", &options, g);
}

Test(ir_onnx_quant, pairs_become_declarations_of_values_and_weights) {
    model m;
    build(&m, &scale_x, zero_w);
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)import(&m, &g), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, nas_graph_node_count(g), 2));
    const nas_node *x = nas_graph_node(g, 0), *c = nas_graph_node(g, 1);
    cr_assert(x->quant.is_set && !x->quant.is_signed && x->quant.zero_point == 7);
    cr_assert(eq(flt, x->quant.scale, scale_x));
    cr_assert(c->quant.is_set && c->quant.is_signed && c->quant.zero_point == -3);
    cr_assert(eq(flt, c->quant.scale, scale_y));
    const nas_param *w = nas_graph_param_const(g, c->params[0]);
    cr_assert(w->scales != NULL && w->bits == 8);
    for (size_t o = 0; o < 2; o++) {
        cr_assert(eq(flt, w->scales[o], scale_w[o]));
        for (size_t i = 0; i < 3; i++)
            cr_assert(eq(flt, w->data[3 * o + i], (float)weight[3 * o + i] * scale_w[o]));
        cr_assert(
            eq(flt, nas_graph_param_const(g, c->params[1])->data[o], (float)bias[o] * scale_b[o]));
    }
    nas_graph_free(g);
}

Test(ir_onnx_quant, weights_with_zero_points_stay_floats) {
    model m;
    build(&m, &scale_x, zero_w_bad);
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)import(&m, &g), NAS_OK), "%s", nas_ctx_message(ctx));
    const nas_param *w = nas_graph_param_const(g, nas_graph_node(g, 1)->params[0]);
    cr_assert(eq(ptr, w->scales, NULL));
    cr_assert(eq(flt, w->data[3], (float)(weight[3] - 1) * scale_w[1]));
    nas_graph_free(g);
}

Test(ir_onnx_quant, what_a_graph_cannot_say_is_refused) {
    model m;
    nas_graph *g = NULL;
    build(&m, &scale_other, zero_w);
    cr_assert(eq(int, (int)import(&m, &g), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "not those of QuantizeLinear"), NULL));
    const float bad[] = {0, -1, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        build(&m, &bad[i], zero_w);
        cr_assert(eq(int, (int)import(&m, &g), NAS_ERR_RANGE));
    }
}
