/* onnx_program.c - see onnx_program.h. One parser feeds both sides: the message for the import and the evaluator, which
 * knows nothing of layouts. Limits are those of the tests; exceeding one fails the test. */
#include "onnx_program.h"

#include "onnx.pb-c.h"

#include <criterion/criterion.h>
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NODES = 48, OPERANDS = 8, LIST = 16, TENSORS = 96, POOL = 1 << 20, WORD = 48 };

/* ---- parsing ------------------------------------------------------------------------------------------------------- */

typedef struct setting {
    char name[WORD], word[WORD];
    size_t n;
    int64_t values[LIST];
    float number;
} setting;

typedef struct statement {
    char op[WORD];
    size_t n_outputs, n_operands, n_settings;
    char outputs[OPERANDS][WORD], operands[OPERANDS][WORD];
    setting settings[OPERANDS];
} statement;

static statement parsed[NODES];
static size_t n_parsed;

static size_t list_of(const char *text, int64_t out[LIST]) {
    size_t n = 0;
    for (const char *at = text; *at != '\0' && *at != ']' && *at != ')';) {
        char *end = NULL;
        const int64_t value = strtoll(at, &end, 10);
        if (end == at) break; /* the fraction of a number */
        cr_assert(n < LIST);
        out[n++] = value;
        at = *end == ',' ? end + 1 : end;
    }
    return n;
}

static void copy_word(char to[WORD], const char *from, size_t len) {
    cr_assert(len < WORD);
    memcpy(to, from, len);
    to[len] = '\0';
}

static void parse_setting(const char *word, const char *equals, setting *s) {
    copy_word(s->name, word, (size_t)(equals - word));
    copy_word(s->word, equals + 1, strlen(equals + 1));
    s->n = isalpha((unsigned char)s->word[0]) ? 0 : list_of(s->word, s->values);
    s->number = strtof(s->word, NULL);
}

static void parse_statement(char *text, statement *s) {
    char *rest = NULL;
    memset(s, 0, sizeof *s);
    char *outputs = strtok_r(text, " ", &rest), *equals = strtok_r(NULL, " ", &rest);
    cr_assert(equals != NULL && strcmp(equals, "=") == 0);
    char *op = strtok_r(NULL, " ", &rest);
    copy_word(s->op, op, strlen(op));
    for (char *w = strtok_r(NULL, " ", &rest); w != NULL; w = strtok_r(NULL, " ", &rest)) {
        const char *sign = strchr(w, '=');
        cr_assert(s->n_settings < OPERANDS && s->n_operands < OPERANDS);
        if (sign != NULL) {
            parse_setting(w, sign, &s->settings[s->n_settings++]);
        } else {
            copy_word(s->operands[s->n_operands++], w, strlen(w));
        }
    }
    for (char *w = strtok_r(outputs, ",", &rest); w != NULL; w = strtok_r(NULL, ",", &rest))
        copy_word(s->outputs[s->n_outputs++], w, strlen(w));
}

static void parse(const char *text) {
    static char copy[1 << 14];
    char *rest = NULL;
    cr_assert(strlen(text) < sizeof copy);
    memcpy(copy, text, strlen(text) + 1);
    n_parsed = 0;
    for (char *s = strtok_r(copy, ";", &rest); s != NULL; s = strtok_r(NULL, ";", &rest)) {
        cr_assert(n_parsed < NODES);
        while (*s == ' ')
            s++;
        if (*s != '\0') parse_statement(s, &parsed[n_parsed++]);
    }
}

/* ---- arrays -------------------------------------------------------------------------------------------------------- */

static double pool[POOL];
static size_t used;

static program_array array(int rank, const int64_t *dims) {
    program_array a = {.rank = rank, .count = 1};
    for (int i = 0; i < rank; i++) {
        a.dims[i] = dims[i];
        a.count *= (size_t)dims[i];
    }
    cr_assert(used + a.count <= POOL);
    a.data = pool + used;
    used += a.count;
    return a;
}

static bool is_literal(const char *operand) {
    return operand[1] == '[' || operand[1] == '(';
}

static bool is_integer(const char *operand) {
    return operand[0] == 'i' || operand[0] == 'k';
}

/* The same text is the same numbers. */
static program_array literal(const char *operand) {
    int64_t values[LIST];
    const bool scalar = operand[1] == '(';
    const size_t n = list_of(operand + 2, values);
    if (scalar || operand[0] == 'i') {
        const int64_t extent = (int64_t)n;
        program_array a = array(scalar ? 0 : 1, &extent);
        if (scalar) a.data[0] = (double)strtof(operand + 2, NULL);
        for (size_t i = 0; i < n && !scalar; i++)
            a.data[i] = (double)values[i];
        return a;
    }
    program_array a = array((int)n, values);
    uint64_t state = 88172645463325252u;
    for (const char *c = operand; *c != '\0'; c++)
        state = state * 31 + (uint64_t)*c;
    for (size_t i = 0; i < a.count; i++) { /* xorshift, Marsaglia 2003 */
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        const float size = 0.5f + (float)(state >> 40) / (float)(1 << 24);
        a.data[i] = (double)(operand[0] == 'w' && (state & 1) != 0 ? -size : size);
    }
    return a;
}

/* ---- the message --------------------------------------------------------------------------------------------------- */

static Onnx__NodeProto nodes[NODES], *node_list[NODES];
static Onnx__TensorProto tensors[TENSORS], *tensor_list[TENSORS];
static Onnx__AttributeProto attributes[NODES][OPERANDS], *attribute_lists[NODES][OPERANDS];
static char *in_lists[NODES][OPERANDS], *out_lists[NODES][OPERANDS];
static char names[TENSORS][16];
static size_t n_tensors;
static float float_pool[POOL];
static int64_t int_pool[POOL / 16], dim_pool[TENSORS][PROGRAM_RANK_MAX];
static size_t n_floats, n_ints;

static char *add_tensor(const char *operand) {
    cr_assert(n_tensors < TENSORS);
    const program_array a = literal(operand);
    Onnx__TensorProto *t = &tensors[n_tensors];
    onnx__tensor_proto__init(t);
    (void)snprintf(names[n_tensors], sizeof names[0], "const%zu", n_tensors);
    t->name = names[n_tensors];
    t->has_data_type = 1;
    memcpy(dim_pool[n_tensors], a.dims, sizeof a.dims);
    t->dims = dim_pool[n_tensors];
    t->n_dims = (size_t)a.rank;
    cr_assert(n_floats + a.count <= POOL && n_ints + a.count <= POOL / 16);
    if (is_integer(operand)) {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__INT64;
        t->int64_data = int_pool + n_ints;
        t->n_int64_data = a.count;
        for (size_t i = 0; i < a.count; i++)
            int_pool[n_ints++] = (int64_t)a.data[i];
    } else {
        t->data_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
        t->float_data = float_pool + n_floats;
        t->n_float_data = a.count;
        for (size_t i = 0; i < a.count; i++)
            float_pool[n_floats++] = (float)a.data[i];
    }
    tensor_list[n_tensors] = t;
    return names[n_tensors++];
}

/* The import asks for the kind that its operator has, so one value is given as all of them. */
static void add_attribute(size_t at, size_t k, setting *s) {
    Onnx__AttributeProto *a = &attributes[at][k];
    onnx__attribute_proto__init(a);
    a->name = s->name;
    a->has_i = s->n > 0;
    a->i = s->n > 0 ? s->values[0] : 0;
    a->ints = s->values;
    a->n_ints = s->n;
    a->has_f = 1;
    a->f = s->number;
    a->has_s = 1;
    a->s = (ProtobufCBinaryData){strlen(s->word), (uint8_t *)s->word};
    attribute_lists[at][k] = a;
}

static void add_node(size_t at) {
    static char empty[] = "";
    statement *s = &parsed[at];
    Onnx__NodeProto *n = &nodes[at];
    onnx__node_proto__init(n);
    for (size_t k = 0; k < s->n_operands; k++)
        in_lists[at][k] = strcmp(s->operands[k], "_") == 0 ? empty
                          : is_literal(s->operands[k])     ? add_tensor(s->operands[k])
                                                           : s->operands[k];
    for (size_t k = 0; k < s->n_outputs; k++)
        out_lists[at][k] = s->outputs[k];
    for (size_t k = 0; k < s->n_settings; k++)
        add_attribute(at, k, &s->settings[k]);
    n->input = in_lists[at];
    n->n_input = s->n_operands;
    n->output = out_lists[at];
    n->n_output = s->n_outputs;
    n->attribute = attribute_lists[at];
    n->n_attribute = s->n_settings;
    n->op_type = s->op;
    n->name = s->outputs[0];
    node_list[at] = n;
}

nas_status program_import(nas_ctx *ctx, const program *p, nas_graph **out) {
    Onnx__ModelProto model = ONNX__MODEL_PROTO__INIT;
    Onnx__GraphProto graph = ONNX__GRAPH_PROTO__INIT;
    Onnx__OperatorSetIdProto opset = ONNX__OPERATOR_SET_ID_PROTO__INIT, *opsets[] = {&opset};
    Onnx__ValueInfoProto in = ONNX__VALUE_INFO_PROTO__INIT, result = ONNX__VALUE_INFO_PROTO__INIT;
    Onnx__ValueInfoProto *ins[] = {&in}, *results[] = {&result};
    Onnx__TypeProto type = ONNX__TYPE_PROTO__INIT;
    Onnx__TypeProto__Tensor tensor = ONNX__TYPE_PROTO__TENSOR__INIT;
    Onnx__TensorShapeProto shape = ONNX__TENSOR_SHAPE_PROTO__INIT;
    Onnx__TensorShapeProto__Dimension dims[PROGRAM_RANK_MAX], *dim_list[PROGRAM_RANK_MAX];
    static uint8_t bytes[1 << 20];
    static char x[] = "x", y[] = "y", net[] = "net";
    used = n_tensors = n_floats = n_ints = 0;
    parse(p->text);
    for (size_t i = 0; i < n_parsed; i++)
        add_node(i);
    for (; p->input[shape.n_dim] != 0; shape.n_dim++) {
        Onnx__TensorShapeProto__Dimension *d = &dims[shape.n_dim];
        onnx__tensor_shape_proto__dimension__init(d);
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = p->input[shape.n_dim];
        dim_list[shape.n_dim] = d;
    }
    shape.dim = dim_list;
    tensor.has_elem_type = 1;
    tensor.elem_type = ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT;
    tensor.shape = &shape;
    type.value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type.tensor_type = &tensor;
    in.name = x;
    in.type = &type;
    result.name = y;
    opset.has_version = 1;
    opset.version = p->opset;
    model.opset_import = opsets;
    model.n_opset_import = 1;
    model.graph = &graph;
    graph.name = net;
    graph.node = node_list;
    graph.n_node = n_parsed;
    graph.initializer = tensor_list;
    graph.n_initializer = n_tensors;
    graph.input = ins;
    graph.output = results;
    graph.n_input = graph.n_output = 1;
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    cr_assert(onnx__model_proto__get_packed_size(&model) < sizeof bytes);
    const size_t len = onnx__model_proto__pack(&model, bytes);
    return nas_onnx_import_bytes(ctx, bytes, len, "net", &options, out);
}

/* ---- evaluation ---------------------------------------------------------------------------------------------------- */

static const statement *now; /* whose settings are asked for */

static const setting *find_setting(const char *name) {
    for (size_t i = 0; i < now->n_settings; i++) {
        if (strcmp(now->settings[i].name, name) == 0) return &now->settings[i];
    }
    return NULL;
}

static int64_t setting_or(const char *name, int64_t otherwise) {
    const setting *s = find_setting(name);
    return s != NULL ? s->values[0] : otherwise;
}

static int axis_in(int64_t axis, int rank) {
    return (int)(axis < 0 ? axis + rank : axis);
}

/* Integers from an operand or, without it, from a setting. */
static size_t integers(const program_array *operand, const char *name, int64_t out[LIST]) {
    const setting *s = find_setting(name);
    if (operand == NULL) {
        if (s != NULL) memcpy(out, s->values, sizeof s->values);
        return s != NULL ? s->n : 0;
    }
    for (size_t i = 0; i < operand->count; i++)
        out[i] = (int64_t)operand->data[i];
    return operand->count;
}

/* Indices of element e, and the element at indices that wrap where an extent is 1 and are right-aligned. */
static void index_of(const program_array *a, size_t e, int64_t at[PROGRAM_RANK_MAX]) {
    for (int i = a->rank; i-- > 0; e /= (size_t)a->dims[i])
        at[i] = (int64_t)(e % (size_t)a->dims[i]);
}

static double at_index(const program_array *a, const int64_t *at, int rank) {
    size_t e = 0;
    for (int i = 0; i < a->rank; i++)
        e = e * (size_t)a->dims[i] + (size_t)(a->dims[i] == 1 ? 0 : at[i + rank - a->rank]);
    return a->data[e];
}

static program_array reshaped(program_array a, const int64_t *dims, int rank) {
    program_array b = a;
    b.rank = rank;
    memcpy(b.dims, dims, (size_t)rank * sizeof *dims);
    return b;
}

static program_array eval_reshape(const program_array *a, const program_array *list) {
    int64_t dims[LIST];
    size_t known = 1;
    const size_t n = integers(list, "shape", dims);
    for (size_t i = 0; i < n; i++) {
        if (dims[i] == 0) dims[i] = a->dims[i];
        if (dims[i] > 0) known *= (size_t)dims[i];
    }
    for (size_t i = 0; i < n; i++)
        dims[i] = dims[i] < 0 ? (int64_t)(a->count / known) : dims[i];
    return reshaped(*a, dims, (int)n);
}

static program_array eval_flatten(const program_array *a) {
    int64_t dims[2] = {1, 1};
    const int axis = axis_in(setting_or("axis", 1), a->rank);
    for (int i = 0; i < a->rank; i++)
        dims[i >= axis] *= a->dims[i];
    return reshaped(*a, dims, 2);
}

static program_array eval_squeeze(const program_array *a, const program_array *list, bool adds) {
    int64_t axes[LIST], dims[PROGRAM_RANK_MAX];
    const size_t n = integers(list, "axes", axes);
    const int rank = a->rank + (adds ? (int)n : 0);
    bool marked[PROGRAM_RANK_MAX] = {false};
    int to = 0, from = 0;
    for (size_t i = 0; i < n; i++)
        marked[axis_in(axes[i], rank)] = true;
    for (int i = 0; i < rank; i++) {
        if (adds) {
            dims[to++] = marked[i] ? 1 : a->dims[from++];
        } else if (!marked[i]) {
            dims[to++] = a->dims[i];
        }
    }
    return reshaped(*a, dims, to);
}

static program_array eval_transpose(const program_array *a) {
    const setting *perm = find_setting("perm");
    int64_t dims[PROGRAM_RANK_MAX], at[PROGRAM_RANK_MAX], from[PROGRAM_RANK_MAX];
    for (int i = 0; i < a->rank; i++)
        dims[i] = a->dims[perm->values[i]];
    program_array b = array(a->rank, dims);
    for (size_t e = 0; e < b.count; e++) {
        index_of(&b, e, at);
        for (int i = 0; i < a->rank; i++)
            from[perm->values[i]] = at[i];
        b.data[e] = at_index(a, from, a->rank);
    }
    return b;
}

/* [begin, end) by `step` of one axis. */
static program_array range(const program_array *a, int axis, int64_t begin, int64_t end,
                           int64_t step) {
    int64_t at[PROGRAM_RANK_MAX];
    program_array shape = *a;
    shape.dims[axis] = (end - begin + step - 1) / step;
    program_array b = array(a->rank, shape.dims);
    for (size_t e = 0; e < b.count; e++) {
        index_of(&b, e, at);
        at[axis] = begin + at[axis] * step;
        b.data[e] = at_index(a, at, a->rank);
    }
    return b;
}

static program_array eval_slice(const program_array *const in[]) {
    program_array a = *in[0];
    int64_t begin[LIST], end[LIST], axes[LIST], steps[LIST];
    const size_t n = integers(in[1], "starts", begin);
    (void)integers(in[2], "ends", end);
    const size_t n_axes = integers(in[3], "axes", axes), n_steps = integers(in[4], "steps", steps);
    for (size_t i = 0; i < n; i++) {
        const int axis = n_axes > 0 ? axis_in(axes[i], a.rank) : (int)i;
        const int64_t extent = a.dims[axis], b = begin[i] < 0 ? begin[i] + extent : begin[i];
        const int64_t stop = end[i] < 0 ? end[i] + extent : end[i] > extent ? extent : end[i];
        a = range(&a, axis, b, stop, n_steps > 0 ? steps[i] : 1);
    }
    return a;
}

/* [n,c,y*r + i,x*r + j] to [n,k,y,x] with k of (i, j, c) or, of mode CRD, (c, i, j). */
static program_array eval_space_to_depth(const program_array *a) {
    const int64_t r = setting_or("blocksize", 1), channels = a->dims[1];
    const bool crd = find_setting("mode") != NULL && strcmp(find_setting("mode")->word, "CRD") == 0;
    const int64_t dims[4] = {a->dims[0], channels * r * r, a->dims[2] / r, a->dims[3] / r};
    int64_t at[PROGRAM_RANK_MAX];
    program_array b = array(4, dims);
    for (size_t e = 0; e < b.count; e++) {
        index_of(&b, e, at);
        const int64_t tap = crd ? at[1] % (r * r) : at[1] / channels;
        at[1] = crd ? at[1] / (r * r) : at[1] % channels;
        at[2] = at[2] * r + tap / r;
        at[3] = at[3] * r + tap % r;
        b.data[e] = at_index(a, at, 4);
    }
    return b;
}

static program_array eval_concat(const program_array *const in[], size_t n) {
    program_array shape = *in[0];
    const int axis = axis_in(setting_or("axis", 0), shape.rank);
    int64_t at[PROGRAM_RANK_MAX];
    for (size_t i = 1; i < n; i++)
        shape.dims[axis] += in[i]->dims[axis];
    program_array b = array(shape.rank, shape.dims);
    for (size_t e = 0; e < b.count; e++) {
        size_t i = 0;
        index_of(&b, e, at);
        for (; at[axis] >= in[i]->dims[axis]; i++)
            at[axis] -= in[i]->dims[axis];
        b.data[e] = at_index(in[i], at, b.rank);
    }
    return b;
}

static program_array eval_pad(const program_array *a, const program_array *list) {
    int64_t pads[LIST], at[PROGRAM_RANK_MAX];
    program_array shape = *a;
    (void)integers(list, "pads", pads);
    for (int i = 0; i < a->rank; i++)
        shape.dims[i] += pads[i] + pads[i + a->rank];
    program_array b = array(a->rank, shape.dims);
    for (size_t e = 0; e < b.count; e++) {
        bool inside = true;
        index_of(&b, e, at);
        for (int i = 0; i < a->rank; i++) {
            at[i] -= pads[i];
            inside = inside && at[i] >= 0 && at[i] < a->dims[i];
        }
        b.data[e] = inside ? at_index(a, at, a->rank) : 0;
    }
    return b;
}

static double binary(char op, double a, double b) {
    return op == '+'   ? a + b
           : op == '-' ? a - b
           : op == '*' ? a * b
           : op == '/' ? a / b
                       : pow(a, b);
}

static program_array eval_binary(char op, const program_array *a, const program_array *b) {
    const int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t dims[PROGRAM_RANK_MAX], at[PROGRAM_RANK_MAX];
    for (int i = 0; i < rank; i++) {
        const int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        const int64_t da = ia < 0 ? 1 : a->dims[ia], db = ib < 0 ? 1 : b->dims[ib];
        dims[i] = da > db ? da : db;
    }
    program_array c = array(rank, dims);
    for (size_t e = 0; e < c.count; e++) {
        index_of(&c, e, at);
        c.data[e] = binary(op, at_index(a, at, rank), at_index(b, at, rank));
    }
    return c;
}

static program_array eval_expand(const program_array *a, const program_array *list) {
    int64_t dims[LIST];
    program_array zeros = array((int)integers(list, "", dims), dims);
    memset(zeros.data, 0, zeros.count * sizeof *zeros.data);
    return eval_binary('+', a, &zeros);
}

static program_array swapped(const program_array *a) {
    setting s = {.name = "perm"};
    statement fake = {.n_settings = 1};
    const statement *was = now;
    for (int i = 0; i < a->rank; i++)
        s.values[i] = i < a->rank - 2 ? i : 2 * a->rank - 3 - i;
    fake.settings[0] = s;
    now = &fake;
    const program_array b = eval_transpose(a);
    now = was;
    return b;
}

static program_array eval_matmul(const program_array *a, const program_array *b) {
    const int rank = a->rank > b->rank ? a->rank : b->rank;
    int64_t dims[PROGRAM_RANK_MAX], at[PROGRAM_RANK_MAX], left[PROGRAM_RANK_MAX],
        right[PROGRAM_RANK_MAX];
    for (int i = 0; i < rank; i++) {
        const int ia = i - (rank - a->rank), ib = i - (rank - b->rank);
        const int64_t da = ia < 0 ? 1 : a->dims[ia], db = ib < 0 ? 1 : b->dims[ib];
        dims[i] = i == rank - 2 ? da : i == rank - 1 ? db : da > db ? da : db;
    }
    program_array c = array(rank, dims);
    for (size_t e = 0; e < c.count; e++) {
        double sum = 0;
        index_of(&c, e, at);
        memcpy(left, at, sizeof at);
        memcpy(right, at, sizeof at);
        for (int64_t k = 0; k < a->dims[a->rank - 1]; k++) {
            left[rank - 1] = right[rank - 2] = k;
            sum += at_index(a, left, rank) * at_index(b, right, rank);
        }
        c.data[e] = sum;
    }
    return c;
}

static program_array eval_gemm(const program_array *const in[]) {
    const program_array a = setting_or("transA", 0) != 0 ? swapped(in[0]) : *in[0];
    const program_array b = setting_or("transB", 0) != 0 ? swapped(in[1]) : *in[1];
    const program_array c = eval_matmul(&a, &b);
    return in[2] != NULL ? eval_binary('+', &c, in[2]) : c;
}

/* One number for all elements that agree on the axes not marked. */
static program_array reduced(const program_array *a, const bool *marked, char how) {
    int64_t dims[PROGRAM_RANK_MAX], at[PROGRAM_RANK_MAX];
    for (int i = 0; i < a->rank; i++)
        dims[i] = marked[i] ? 1 : a->dims[i];
    program_array b = array(a->rank, dims);
    for (size_t e = 0; e < b.count; e++)
        b.data[e] = how == 'x' ? -INFINITY : 0;
    for (size_t e = 0; e < a->count; e++) {
        size_t to = 0;
        index_of(a, e, at);
        for (int i = 0; i < a->rank; i++)
            to = to * (size_t)dims[i] + (size_t)(marked[i] ? 0 : at[i]);
        b.data[to] = how == 'x' ? fmax(b.data[to], a->data[e]) : b.data[to] + a->data[e];
    }
    for (size_t e = 0; e < b.count && how == 'm'; e++)
        b.data[e] /= (double)(a->count / b.count);
    return b;
}

static program_array eval_reduce(const program_array *a, const program_array *list, char how) {
    int64_t axes[LIST], dims[PROGRAM_RANK_MAX];
    bool marked[PROGRAM_RANK_MAX] = {false};
    int rank = 0;
    const size_t n = integers(list, "axes", axes);
    for (int i = 0; i < a->rank; i++)
        marked[i] = n == 0;
    for (size_t i = 0; i < n; i++)
        marked[axis_in(axes[i], a->rank)] = true;
    const program_array b = reduced(a, marked, how);
    for (int i = 0; i < a->rank; i++) {
        if (!marked[i] || setting_or("keepdims", 1) != 0) dims[rank++] = b.dims[i];
    }
    return reshaped(b, dims, rank);
}

static program_array mapped(const program_array *a, double (*f)(double)) {
    program_array b = array(a->rank, a->dims);
    for (size_t e = 0; e < b.count; e++)
        b.data[e] = f(a->data[e]);
    return b;
}

static program_array eval_softmax(const program_array *a, int64_t opset) {
    bool marked[PROGRAM_RANK_MAX] = {false};
    const int axis = axis_in(setting_or("axis", opset < 13 ? 1 : -1), a->rank);
    for (int i = axis; i < (opset < 13 ? a->rank : axis + 1); i++)
        marked[i] = true;
    const program_array e = mapped(a, exp), sum = reduced(&e, marked, 's');
    return eval_binary('/', &e, &sum);
}

static program_array eval_layer_norm(const program_array *const in[]) {
    bool marked[PROGRAM_RANK_MAX] = {false};
    const program_array *a = in[0];
    const setting *epsilon = find_setting("epsilon");
    for (int i = axis_in(setting_or("axis", -1), a->rank); i < a->rank; i++)
        marked[i] = true;
    const program_array mean = reduced(a, marked, 'm'), centred = eval_binary('-', a, &mean);
    const program_array square = eval_binary('*', &centred, &centred);
    program_array deviation = reduced(&square, marked, 'm');
    for (size_t e = 0; e < deviation.count; e++)
        deviation.data[e] =
            sqrt(deviation.data[e] + (epsilon != NULL ? (double)epsilon->number : 1e-5));
    const program_array unit = eval_binary('/', &centred, &deviation);
    const program_array scaled = eval_binary('*', &unit, in[1]);
    return in[2] != NULL ? eval_binary('+', &scaled, in[2]) : scaled;
}

static program_array eval_shape(const program_array *a) {
    const int64_t rank = a->rank;
    program_array b = array(1, &rank);
    for (int i = 0; i < a->rank; i++)
        b.data[i] = (double)a->dims[i];
    return b;
}

static program_array eval_where(const program_array *const in[]) {
    program_array zeros = eval_binary('*', in[0], in[1]);
    const program_array b = eval_binary('+', &zeros, in[2]); /* its shape */
    int64_t at[PROGRAM_RANK_MAX];
    for (size_t e = 0; e < b.count; e++) {
        index_of(&b, e, at);
        b.data[e] = at_index(at_index(in[0], at, b.rank) != 0 ? in[1] : in[2], at, b.rank);
    }
    return b;
}

static program_array eval_gather(const program_array *a, const program_array *index) {
    const int axis = axis_in(setting_or("axis", 0), a->rank);
    int64_t dims[PROGRAM_RANK_MAX], at[PROGRAM_RANK_MAX], from[PROGRAM_RANK_MAX];
    int rank = 0;
    for (int i = 0; i < a->rank; i++) {
        if (i != axis) dims[rank++] = a->dims[i];
        for (int k = 0; i == axis && k < index->rank; k++)
            dims[rank++] = index->dims[k];
    }
    program_array b = array(rank, dims);
    for (size_t e = 0; e < b.count; e++) {
        index_of(&b, e, at);
        int64_t k = 0;
        for (int i = 0; i < index->rank; i++)
            k = k * index->dims[i] + at[axis + i];
        k = (int64_t)index->data[k];
        for (int i = 0; i < a->rank; i++)
            from[i] = i < axis ? at[i] : i > axis ? at[i + index->rank - 1] : k;
        from[axis] = k < 0 ? k + a->dims[axis] : k;
        b.data[e] = at_index(a, from, a->rank);
    }
    return b;
}

static double same(double x) {
    return x;
}

static double gelu(double x) {
    return x * (1 + erf(x * sqrt(0.5))) / 2;
}

static double gelu_tanh(double x) {
    return x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))) / 2;
}

static double relu(double x) {
    return x > 0 ? x : 0;
}

static program_array evaluate(const program_array *const in[], size_t n, int64_t opset) {
    const char *op = now->op;
    if (strcmp(op, "Reshape") == 0) return eval_reshape(in[0], in[1]);
    if (strcmp(op, "Flatten") == 0) return eval_flatten(in[0]);
    if (strcmp(op, "Squeeze") == 0) return eval_squeeze(in[0], in[1], false);
    if (strcmp(op, "Unsqueeze") == 0) return eval_squeeze(in[0], in[1], true);
    if (strcmp(op, "Transpose") == 0) return eval_transpose(in[0]);
    if (strcmp(op, "Slice") == 0) return eval_slice(in);
    if (strcmp(op, "Gather") == 0) return eval_gather(in[0], in[1]);
    if (strcmp(op, "SpaceToDepth") == 0) return eval_space_to_depth(in[0]);
    if (strcmp(op, "Concat") == 0) return eval_concat(in, n);
    if (strcmp(op, "Pad") == 0) return eval_pad(in[0], in[1]);
    if (strcmp(op, "Expand") == 0) return eval_expand(in[0], in[1]);
    if (strcmp(op, "Add") == 0) return eval_binary('+', in[0], in[1]);
    if (strcmp(op, "Sub") == 0) return eval_binary('-', in[0], in[1]);
    if (strcmp(op, "Mul") == 0) return eval_binary('*', in[0], in[1]);
    if (strcmp(op, "Div") == 0) return eval_binary('/', in[0], in[1]);
    if (strcmp(op, "Pow") == 0) return eval_binary('^', in[0], in[1]);
    if (strcmp(op, "MatMul") == 0) return eval_matmul(in[0], in[1]);
    if (strcmp(op, "Gemm") == 0) return eval_gemm(in);
    if (strcmp(op, "ReduceMean") == 0) return eval_reduce(in[0], in[1], 'm');
    if (strcmp(op, "ReduceSum") == 0) return eval_reduce(in[0], in[1], 's');
    if (strcmp(op, "ReduceMax") == 0) return eval_reduce(in[0], in[1], 'x');
    if (strcmp(op, "Softmax") == 0) return eval_softmax(in[0], opset);
    if (strcmp(op, "LayerNormalization") == 0) return eval_layer_norm(in);
    if (strcmp(op, "Relu") == 0) return mapped(in[0], relu);
    if (strcmp(op, "Shape") == 0) return eval_shape(in[0]);
    if (strcmp(op, "Equal") == 0) return eval_binary('=', in[0], in[1]);
    if (strcmp(op, "Where") == 0) return eval_where(in);
    if (strcmp(op, "Cast") == 0) return mapped(in[0], same);
    if (strcmp(op, "Gelu") == 0)
        return mapped(in[0], find_setting("approximate") != NULL ? gelu_tanh : gelu);
    if (strcmp(op, "Sqrt") == 0) return mapped(in[0], sqrt);
    cr_assert(strcmp(op, "Erf") == 0, "%s: not evaluated", op);
    return mapped(in[0], erf);
}

program_array program_run(const program *p, const float *x) {
    static struct {
        char name[WORD];
        program_array value;
    } values[NODES * 2];
    size_t n_values = 1;
    used = 0;
    parse(p->text);
    int rank = 0;
    while (p->input[rank] != 0)
        rank++;
    program_array last = array(rank, p->input);
    for (size_t i = 0; i < last.count; i++)
        last.data[i] = (double)x[i];
    copy_word(values[0].name, "x", 1);
    values[0].value = last;
    for (size_t s = 0; s < n_parsed; s++) {
        program_array storage[OPERANDS];
        const program_array *in[OPERANDS] = {NULL};
        now = &parsed[s];
        for (size_t k = 0; k < now->n_operands; k++) {
            const char *name = now->operands[k];
            if (strcmp(name, "_") == 0) continue;
            if (is_literal(name)) storage[k] = literal(name);
            for (size_t v = n_values; v-- > 0 && !is_literal(name);) {
                if (strcmp(values[v].name, name) == 0) storage[k] = values[v].value;
            }
            in[k] = &storage[k];
        }
        int64_t begin = 0;
        for (size_t k = 0; k < now->n_outputs; k++) {
            if (strcmp(now->op, "Split") == 0) { /* sizes as second operand */
                const int axis = axis_in(setting_or("axis", 0), in[0]->rank);
                last = range(in[0], axis, begin, begin + (int64_t)in[1]->data[k], 1);
                begin += (int64_t)in[1]->data[k];
            } else {
                last = evaluate(in, now->n_operands, p->opset);
            }
            cr_assert(n_values < NODES * 2);
            copy_word(values[n_values].name, now->outputs[k], strlen(now->outputs[k]));
            values[n_values++].value = last;
        }
    }
    return last;
}
