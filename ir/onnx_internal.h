/* onnx_internal.h - what the files of the ONNX import share. Never leaves ir/.
 *
 * onnx_import.c reads the message and walks its nodes, onnx_tensors.c knows constants, attributes and values,
 * onnx_import_ops.c and onnx_import_shape.c turn one node each into IR nodes. The message structures live until the
 * import ends, so constants are read in place and never copied before they become params. */
#ifndef NAS_IR_ONNX_INTERNAL_H
#define NAS_IR_ONNX_INTERNAL_H

#include "ir/ir_internal.h"

#include "onnx.pb-c.h"

enum { NAS__ONNX_RANK_MAX = 8, NAS__ONNX_NAME_MAX = 100 };

/* How an ONNX value exists in the import. */
typedef enum nas__onnx_kind {
    NAS__ONNX_CONST, /* known now */
    NAS__ONNX_PLAIN, /* rank 4 [N,C,H,W] or rank 2 [N,C], IR value [N,H,W,C] or [N,1,1,C] */
    NAS__ONNX_FLAT, /* rank 2 [N,C*H*W], IR value still [N,H,W,C]: a Gemm permutes its weights instead */
    NAS__ONNX_GROUPED, /* rank 5 [N,g,C/g,H,W], IR value still [N,H,W,C] */
    NAS__ONNX_SHUFFLED /* rank 5 [N,C/g,g,H,W] after Transpose, IR value still as before it */
} nas__onnx_kind;

/* Where the elements of a constant are: raw bytes, typed arrays of the message, our own arrays, or one repeated value. */
typedef enum nas__onnx_storage {
    NAS__ONNX_RAW,
    NAS__ONNX_FLOATS,
    NAS__ONNX_DOUBLES,
    NAS__ONNX_INT32S,
    NAS__ONNX_INT64S,
    NAS__ONNX_FILL
} nas__onnx_storage;

typedef struct nas__onnx_value {
    const char *name;
    nas__onnx_kind kind;
    int32_t rank;
    int64_t dims[NAS__ONNX_RANK_MAX]; /* as ONNX sees it */
    nas_value v;                      /* not CONST */
    int32_t groups;                   /* GROUPED, SHUFFLED */
    nas__onnx_storage storage;        /* CONST from here */
    int32_t data_type;                /* Onnx__TensorProto__DataType */
    size_t count;
    const void *data;
    double fill;
    const struct nas__onnx_value
        *scales;        /* of a constant made of symmetric int8 codes, else NULL */
    int32_t scale_axis; /* of scales with more than one element */
} nas__onnx_value;

typedef struct nas__onnx {
    nas_ctx *ctx;
    nas_arena *arena;
    nas_graph *g;
    const nas_onnx_import_options *options;
    int64_t opset;
    nas__onnx_value *values;
    size_t n_values, cap_values;
    int32_t *table; /* open addressing over names: value index + 1, 0 = free */
    size_t mask;
    uint64_t weight_floats;
} nas__onnx;

typedef Onnx__NodeProto nas__onnx_node;

/* ---- onnx_tensors.c ---- */

nas_status nas__onnx_tensor(nas__onnx *m, const Onnx__TensorProto *t, nas__onnx_value *out);
double nas__onnx_at(const nas__onnx_value *c, size_t index);
int64_t nas__onnx_int_at(const nas__onnx_value *c, size_t index);
bool nas__onnx_is_int(const nas__onnx_value *c);
/* nas__onnx_new_const - a constant of rank 0 or 1 with fresh elements in the arena. */
nas_status nas__onnx_new_const(nas__onnx *m, bool is_int, size_t count, nas__onnx_value *out);

const nas__onnx_value *nas__onnx_find(const nas__onnx *m, const char *name);
nas_status nas__onnx_define(nas__onnx *m, const char *name, nas__onnx_value value);
/* nas__onnx_input - input i of a node; NULL when it is left out. An undefined name was refused before. */
const nas__onnx_value *nas__onnx_input(const nas__onnx *m, const nas__onnx_node *n, size_t i);
nas_status nas__onnx_output(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value value);

const Onnx__AttributeProto *nas__onnx_attribute(const nas__onnx_node *n, const char *name);
int64_t nas__onnx_attr_int(const nas__onnx_node *n, const char *name, int64_t otherwise);
float nas__onnx_attr_float(const nas__onnx_node *n, const char *name, float otherwise);
bool nas__onnx_attr_is(const nas__onnx_node *n, const char *name, const char *text, bool otherwise);
/* nas__onnx_attr_ints - exactly `count` numbers in [lo, 2^20], all `otherwise` when the attribute is absent. */
nas_status nas__onnx_attr_ints(nas__onnx *m, const nas__onnx_node *n, const char *name,
                               size_t count, int32_t lo, int32_t otherwise, int32_t *out);
/* nas__onnx_int_list - from input `input` when it is there, else from the attribute; *count -1 when neither is. */
nas_status nas__onnx_int_list(nas__onnx *m, const nas__onnx_node *n, const char *name, size_t input,
                              int64_t out[2 * NAS__ONNX_RANK_MAX], int32_t *count);
nas_status nas__onnx_axis(nas__onnx *m, int64_t axis, int32_t rank, int32_t *out);

/* ---- onnx_import_ops.c, onnx_import_shape.c: one node each ---- */

/* nas__onnx_add - the IR node under the name of output `n->output[0]` plus suffix, made legal and unique. */
nas_status nas__onnx_add(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                         const nas_node *proto, nas_value *out);
/* nas__onnx_weights - allocates the params of node v, within the limit of the options. */
nas_status nas__onnx_weights(nas__onnx *m, nas_value v);
/* nas__onnx_flatten - x as rank 2 [N,...] in ONNX order with IR value [N,1,1,...]. */
nas_status nas__onnx_flatten(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x);
/* nas__onnx_plain - input i as a PLAIN value; a constant becomes a CONSTANT node. */
nas_status nas__onnx_plain(nas__onnx *m, const nas__onnx_node *n, size_t i, nas__onnx_value *out);
/* nas__onnx_emit - adds `proto` and defines output 0 as PLAIN of `rank` with the inferred shape. */
nas_status nas__onnx_emit(nas__onnx *m, const nas__onnx_node *n, const nas_node *proto,
                          int32_t rank);
nas__onnx_value nas__onnx_plain_value(const nas__onnx *m, nas_value v, int32_t rank);
nas_status nas__onnx_constant_node(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                                   const nas__onnx_value *c, nas_shape shape, nas_value *out);
nas_status nas__onnx_unsupported(nas__onnx *m, const char *reason);
/* nas__onnx_weight_scales - passes the scales of constant `w` on to the weight of node v, where they belong to its output
 * channels: axis `axis` of w. */
nas_status nas__onnx_weight_scales(nas__onnx *m, nas_value v, const nas__onnx_value *w,
                                   int32_t axis);

typedef struct nas__onnx_operator {
    const char *op_type;
    size_t inputs_min;
    nas_status (*import)(nas__onnx *m, const nas__onnx_node *n, int32_t arg);
    int32_t arg;
} nas__onnx_operator;
const nas__onnx_operator *nas__onnx_find_operator(const char *op_type);       /* arithmetic */
const nas__onnx_operator *nas__onnx_find_shape_operator(const char *op_type); /* movement */
const nas__onnx_operator *nas__onnx_find_quant_operator(const char *op_type); /* Q, DQ */

#endif
