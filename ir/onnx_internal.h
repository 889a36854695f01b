/* onnx_internal.h - what the files of the ONNX import share. Never leaves ir/.
 *
 * onnx_import.c reads the message and walks its nodes, onnx_tensors.c knows constants, attributes and values,
 * onnx_layout.c how a value of any rank lies in one of four axes, onnx_import_*.c turn one node each into IR nodes. The
 * message structures live until the import ends, so constants are read in place and never copied before they become
 * params. */
#ifndef NAS_IR_ONNX_INTERNAL_H
#define NAS_IR_ONNX_INTERNAL_H

#include "ir/ir_internal.h"

#include "onnx.pb-c.h"

enum { NAS__ONNX_RANK_MAX = 8, NAS__ONNX_FACTORS_MAX = 12, NAS__ONNX_NAME_MAX = 100 };

/* How an ONNX value exists in the import. */
typedef enum nas__onnx_kind {
    NAS__ONNX_CONST, /* known now */
    NAS__ONNX_VALUE  /* an IR value and a layout */
} nas__onnx_kind;

/* Where the elements of a value are. Each ONNX axis is a product of factors, and each factor lies in one IR axis; ONNX
 * numbers the elements by the factors in list order, memory by IR axis and, within one, by place. So transposing permutes
 * the list, reshaping splits and joins its members, and neither costs a node until an operator asks for another layout:
 * [N,C,H,W] in [N,H,W,C] has the factors N, C, H, W in the IR axes n, c, h, w. */
typedef struct nas__onnx_factor {
    int32_t extent; /* > 1 */
    int16_t axis;   /* 0 n, 1 h, 2 w, 3 c */
    int16_t place;  /* 0.. within the IR axis, outermost first */
} nas__onnx_factor;

typedef struct nas__onnx_layout {
    nas_shape shape; /* of the IR value */
    int32_t n;
    nas__onnx_factor f[NAS__ONNX_FACTORS_MAX];
} nas__onnx_layout;

/* A layout that needs no factors: the IR axis of each ONNX axis; those of one IR axis lie there in ONNX order. */
typedef struct nas__onnx_axes {
    int32_t of[NAS__ONNX_RANK_MAX];
} nas__onnx_axes;

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
    nas__onnx_layout layout;          /* not CONST */
    nas__onnx_storage storage;        /* CONST from here */
    int32_t data_type;                /* Onnx__TensorProto__DataType */
    size_t count;
    const void *data;
    double fill;
    const struct nas__onnx_value
        *scales;        /* of a constant made of symmetric int8 codes, else NULL */
    int32_t scale_axis; /* of scales with more than one element */
    int32_t bits;       /* with scales: 2..8, as many as the codes need */
} nas__onnx_value;

typedef struct nas__onnx {
    nas_ctx *ctx;
    nas_arena *arena;
    nas_graph *g;
    const nas_onnx_import_options *options;
    int64_t opset;
    int32_t batch; /* leading extent of the first input */
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

/* ---- onnx_layout.c ---- */

/* Axes: those of an image ([N,C,H,W], [N,C,W], [N,C] in n, c, h, w; rank <= 4); with the last axis as the channels, the
 * one before it as w and the rest in h; with one axis as w, those before it in h, those after it in c; with the axes of
 * `last` as the channels and the others as in rows. A leading axis of the extent of the batch is n. */
nas__onnx_axes nas__onnx_image(int32_t rank);
nas__onnx_axes nas__onnx_rows(const nas__onnx *m, const int64_t *dims, int32_t rank);
nas__onnx_axes nas__onnx_around(const nas__onnx *m, const int64_t *dims, int32_t rank,
                                int32_t axis);
nas__onnx_axes nas__onnx_last(const nas__onnx *m, const int64_t *dims, int32_t rank,
                              const bool *last);
/* nas__onnx_layout_of - RANGE when an IR extent does not fit. */
nas_status nas__onnx_layout_of(nas__onnx *m, const int64_t *dims, int32_t rank,
                               const nas__onnx_axes *axes, nas__onnx_layout *out);
bool nas__onnx_same_layout(const nas__onnx_layout *a, const nas__onnx_layout *b);
/* nas__onnx_axes_of - the axes of x; false when it needs factors. Axes of extent 1 get an IR axis that is free, -1 when
 * there is none. */
bool nas__onnx_axes_of(nas__onnx *m, const nas__onnx_value *x, nas__onnx_axes *out);
/* nas__onnx_span - factors [first, first + count) are ONNX axis `axis`. */
void nas__onnx_span(const nas__onnx_value *x, int32_t axis, int32_t *first, int32_t *count);
/* nas__onnx_arrange - gives x the layout `to`, by as few TRANSPOSE and RESHAPE nodes as it takes; a constant becomes a
 * CONSTANT node. */
nas_status nas__onnx_arrange(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const nas__onnx_layout *to);
nas_status nas__onnx_arrange_axes(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                                  const nas__onnx_axes *axes);
/* nas__onnx_moves - would that take more than a RESHAPE? */
bool nas__onnx_moves(nas__onnx *m, const nas__onnx_value *x, const nas__onnx_axes *axes);
/* nas__onnx_constant - a CONSTANT node: c broadcast to `dims`, in layout `to`. */
nas_status nas__onnx_constant(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                              const nas__onnx_value *c, const int64_t *dims, int32_t rank,
                              const nas__onnx_layout *to, nas__onnx_value *out);
/* nas__onnx_permute, nas__onnx_regroup - Transpose and Reshape of x; dims of as many elements. What joins factors that are
 * apart in memory is moved together, except into rank 2: a matrix product permutes its weights instead. */
nas_status nas__onnx_permute(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const int32_t *perm);
nas_status nas__onnx_regroup(nas__onnx *m, const nas__onnx_node *n, nas__onnx_value *x,
                             const int64_t *dims, int32_t rank);
/* nas__onnx_set_axis - the layout after IR axis `ir`, which holds ONNX axis `axis` alone or outermost, changed that axis to
 * `extent`: dims and layout of x; x.v is the caller's. */
void nas__onnx_set_axis(nas__onnx_value *x, int32_t axis, int32_t ir, int64_t extent);
/* nas__onnx_pad_rank - leading axes of extent 1 up to `rank`. */
void nas__onnx_pad_rank(nas__onnx_value *x, int32_t rank);
void nas__onnx_set_dims(nas__onnx_value *x, const int64_t *dims, int32_t rank);

/* ---- onnx_import_shape.c: constants ---- */

/* nas__onnx_count - elements: RANGE unless each extent is in 0..2^31 - 1 and their product at most 2^40. */
nas_status nas__onnx_count(nas__onnx *m, const int64_t *dims, int32_t rank, int64_t *out);
/* nas__onnx_steps - elements from one index of each axis of a constant to the next. */
void nas__onnx_steps(const nas__onnx_value *x, size_t step[NAS__ONNX_RANK_MAX]);
/* nas__onnx_reindex - a constant of `dims` whose element i is element from + sum of i[k]*step[k] of x. */
nas_status nas__onnx_reindex(nas__onnx *m, const nas__onnx_value *x, const int64_t *dims,
                             int32_t rank, const size_t *step, size_t from, nas__onnx_value *out);
nas_status nas__onnx_expand_const(nas__onnx *m, const nas__onnx_node *n, const nas__onnx_value *x,
                                  const int64_t *dims);
nas_status nas__onnx_concat_consts(nas__onnx *m, const nas__onnx_node *n);

/* ---- onnx_import_*.c: one node each ---- */

/* nas__onnx_add - the IR node under the name of output `n->output[0]` plus suffix, made legal and unique. */
nas_status nas__onnx_add(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                         const nas_node *proto, nas_value *out);
/* nas__onnx_weights - allocates the params of node v, within the limit of the options. */
nas_status nas__onnx_weights(nas__onnx *m, nas_value v);
/* nas__onnx_plain - input i in the layout of an image, rank 2 to 4. */
nas_status nas__onnx_plain(nas__onnx *m, const nas__onnx_node *n, size_t i, nas__onnx_value *out);
/* nas__onnx_activation - input i in whatever layout it has; a constant becomes a CONSTANT node. */
nas_status nas__onnx_activation(nas__onnx *m, const nas__onnx_node *n, size_t i,
                                nas__onnx_value *out);
/* nas__onnx_emit - adds `proto` and defines output 0 as the image [N,C,H,W] or, of rank 2, the vector [N,C]. */
nas_status nas__onnx_emit(nas__onnx *m, const nas__onnx_node *n, const nas_node *proto,
                          int32_t rank);
/* nas__onnx_plain_value - IR value v as rank 4 or 2. */
nas__onnx_value nas__onnx_plain_value(const nas__onnx *m, nas_value v, int32_t rank);
/* nas__onnx_elementwise - one operand, every layout: the output lies as x does. */
nas_status nas__onnx_elementwise(nas__onnx *m, const nas__onnx_node *n, nas_node proto,
                                 nas__onnx_value x);
/* nas__onnx_add_pattern - adds `last` under the name of output 0, or, when it completes a layer norm or a gelu that the file
 * has in parts, that one: onnx_patterns.c. */
nas_status nas__onnx_add_pattern(nas__onnx *m, const nas__onnx_node *n, const nas_node *last,
                                 nas_value *out);
nas_status nas__onnx_need_const(nas__onnx *m, const nas__onnx_node *n, size_t i, const char *what,
                                const nas__onnx_value **out);
float *nas__onnx_param(nas__onnx *m, nas_value v, int32_t slot); /* NULL when there is none */
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
const nas__onnx_operator *
nas__onnx_find_operator(const char *op_type); /* convolutions, pools ... */
const nas__onnx_operator *nas__onnx_find_math_operator(const char *op_type);  /* arithmetic, sums */
const nas__onnx_operator *nas__onnx_find_dense_operator(const char *op_type); /* products, norms */
const nas__onnx_operator *nas__onnx_find_move_operator(const char *op_type);  /* movement */
const nas__onnx_operator *nas__onnx_find_shape_operator(const char *op_type); /* known now */
const nas__onnx_operator *nas__onnx_find_quant_operator(const char *op_type); /* Q, DQ */

#endif
