/* onnx_import.c - reads an ONNX file: message, inputs, initializers, then node by node in the order of the file, which
 * ONNX requires to be topological. What does not lead to the output is left out. See ir/onnx_internal.h. */
#include "ir/onnx_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    ARENA_BLOCK = 1 << 16,
    MESSAGE_DEPTH_MAX = 16, /* of nested messages; a model without subgraphs needs 8 */
    VALUES_MAX = 1 << 20
};

nas_onnx_import_options nas_onnx_import_options_default(void) {
    return (nas_onnx_import_options){
        .batch = 1, .max_file_bytes = INT32_MAX, .max_weight_bytes = INT32_MAX};
}

/* ---- the message ------------------------------------------------------------------------------------------------- */

static bool varint(const uint8_t **at, const uint8_t *end, uint64_t *out) {
    *out = 0;
    for (unsigned shift = 0; shift < 64 && *at < end; shift += 7) {
        const uint8_t byte = *(*at)++;
        *out |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0) return true;
    }
    return false;
}

/* protobuf-c unpacks nested messages by recursion without a limit: a hostile file would end the stack. false: too deep
 * (malformed input is left to the unpacker). */
static bool depth_ok(const ProtobufCMessageDescriptor *type, const uint8_t *at, size_t len,
                     int32_t depth) {
    if (depth > MESSAGE_DEPTH_MAX) return false;
    const uint8_t *const end = at + len;
    uint64_t key = 0, value = 0;
    while (at < end && varint(&at, end, &key)) {
        const unsigned wire = (unsigned)(key & 7);
        if (wire == 0) {
            if (!varint(&at, end, &value)) return true;
            continue;
        }
        if (wire == 1 || wire == 5) {
            value = wire == 1 ? 8 : 4;
        } else if (wire != 2 || !varint(&at, end, &value)) {
            return true;
        }
        if (value > (uint64_t)(end - at)) return true;
        const ProtobufCFieldDescriptor *f =
            key >> 3 > INT32_MAX
                ? NULL
                : protobuf_c_message_descriptor_get_field(type, (unsigned)(key >> 3));
        if (wire == 2 && f != NULL && f->type == PROTOBUF_C_TYPE_MESSAGE &&
            !depth_ok(f->descriptor, at, (size_t)value, depth + 1))
            return false;
        at += value;
    }
    return true;
}

static void *message_alloc(void *ctx, size_t size) {
    return nas_alloc_array(ctx, size, 1);
}

static void message_free(void *ctx, void *p) {
    (void)ctx;
    nas_free(p);
}

/* ---- names and nodes ----------------------------------------------------------------------------------------------- */

/* Without "/float", which our files add to what is behind a stored output. */
static size_t own_length(const char *name) {
    const size_t len = strlen(name), tail = sizeof NAS__ONNX_FLOAT - 1;
    return len > tail && strcmp(name + len - tail, NAS__ONNX_FLOAT) == 0 ? len - tail : len;
}

static void legal_name(const char *name, const char *suffix, char out[NAS_GRAPH_NAME_MAX + 1]) {
    static const char letters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.";
    const char *const end = name + own_length(name);
    size_t n = 0;
    for (const char *p = name; p < end && n < NAS__ONNX_NAME_MAX; p++)
        out[n++] = strchr(letters, *p) != NULL ? *p : '_';
    if (n == 0) out[n++] = 'x';
    for (const char *p = suffix; *p != '\0'; p++)
        out[n++] = *p;
    out[n] = '\0';
}

nas_status nas__onnx_add(nas__onnx *m, const nas__onnx_node *n, const char *suffix,
                         const nas_node *proto, nas_value *out) {
    char name[NAS_GRAPH_NAME_MAX + 1];
    legal_name(n->output[0], suffix, name);
    const size_t len = strlen(name);
    /* The number of nodes grows, so that a name is rarely tried twice. */
    for (int32_t k = nas_graph_node_count(m->g); nas_graph_find(m->g, name) != NAS_VALUE_NONE; k++)
        (void)snprintf(name + len, sizeof name - len, "_%" PRId32, k);
    if (nas__check_node_name(m->ctx, name) != NAS_OK) /* the name of a param */
        (void)snprintf(name + strlen(name), sizeof name - strlen(name), "_");
    return nas_graph_add_node(m->ctx, m->g, name, proto, out);
}

nas_status nas__onnx_weights(nas__onnx *m, nas_value v) {
    const nas_node *node = nas_graph_node(m->g, v);
    for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
        if (node->params[slot] < 0) continue;
        m->weight_floats += nas_graph_param(m->g, node->params[slot])->count;
        if (m->weight_floats > m->options->max_weight_bytes / sizeof(float)) {
            return nas_fail(m->ctx, NAS_ERR_RANGE, "weights up to here exceed %zu bytes",
                            m->options->max_weight_bytes);
        }
    }
    return nas_graph_alloc_weights(m->ctx, m->g);
}

nas_status nas__onnx_unsupported(nas__onnx *m, const char *reason) {
    return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "%s", reason);
}

/* ---- inputs -------------------------------------------------------------------------------------------------------- */

static const char *axis_name(size_t rank, size_t axis) {
    if (rank == 3) return axis == 1 ? "second" : "last";
    return axis == 1 ? "channels" : axis == 2 ? "height" : "width";
}

static nas_status input_extents(nas__onnx *m, const Onnx__TensorShapeProto *shape,
                                nas__onnx_value *x) {
    const bool image = shape->n_dim == 4;
    if (shape->n_dim < 2 || shape->n_dim > 4) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                        "rank %zu: rank 4 [N,C,H,W], 3 and 2 [N,C] are known", shape->n_dim);
    }
    x->rank = (int32_t)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *d = shape->dim[i];
        int64_t extent = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                             ? d->dim_value
                             : 0;
        if (i == 0 && extent <= 0) extent = m->options->batch;
        if (image && i == 2 && m->options->h > 0) extent = m->options->h;
        if (image && i == 3 && m->options->w > 0) extent = m->options->w;
        if (extent <= 0) {
            return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED,
                            "the file leaves axis %zu (%s) open: give the input size", i,
                            axis_name(shape->n_dim, i));
        }
        if (extent > INT32_MAX)
            return nas_fail(m->ctx, NAS_ERR_RANGE, "extent %" PRId64 " of axis %zu", extent, i);
        x->dims[i] = extent;
    }
    return NAS_OK;
}

static nas_status add_input(nas__onnx *m, const Onnx__ValueInfoProto *info) {
    if (info->type == NULL || info->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
        info->type->tensor_type == NULL || info->type->tensor_type->shape == NULL)
        return nas__onnx_unsupported(m, "not a tensor with a shape");
    const int32_t type = info->type->tensor_type->elem_type;
    if (type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT &&
        type != ONNX__TENSOR_PROTO__DATA_TYPE__FLOAT16)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "data type %" PRId32 ", only float is known",
                        type);
    nas__onnx_value x = {.kind = NAS__ONNX_VALUE};
    nas_status status = input_extents(m, info->type->tensor_type->shape, &x);
    /* The caller gives planes [C,H,W], which is the order of the file when the layout is that of an image. */
    const nas__onnx_axes axes = nas__onnx_image(x.rank);
    if (status == NAS_OK) status = nas__onnx_layout_of(m, x.dims, x.rank, &axes, &x.layout);
    if (status != NAS_OK) return status;
    if (m->batch == 0) m->batch = (int32_t)x.dims[0];
    const nas_shape shape = x.layout.shape;
    char name[NAS_GRAPH_NAME_MAX + 1];
    legal_name(info->name, "", name);
    if (nas__check_node_name(m->ctx, name) != NAS_OK || nas_graph_find(m->g, name) >= 0)
        legal_name(info->name, "_in", name);
    status = nas_graph_add_input(m->ctx, m->g, name, shape, &x.v);
    return status == NAS_OK ? nas__onnx_define(m, info->name, x) : status;
}

static nas_status add_constants_and_inputs(nas__onnx *m, const Onnx__GraphProto *graph) {
    if (graph->n_sparse_initializer > 0)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "sparse initializers");
    for (size_t i = 0; i < graph->n_initializer; i++) {
        nas__onnx_value c;
        nas_status status = nas__onnx_tensor(m, graph->initializer[i], &c);
        if (status == NAS_OK) status = nas__onnx_define(m, graph->initializer[i]->name, c);
        if (status != NAS_OK) return nas_wrap(m->ctx, status, "initializer %zu", i);
    }
    for (size_t i = 0; i < graph->n_input; i++) {
        const Onnx__ValueInfoProto *info = graph->input[i];
        if (info->name == NULL || info->name[0] == '\0')
            return nas_fail(m->ctx, NAS_ERR_PARSE, "input %zu has no name", i);
        const nas__onnx_value *known = nas__onnx_find(m, info->name);
        if (known != NULL && known->kind == NAS__ONNX_CONST)
            continue; /* files of IR version 3 list them */
        const nas_status status = add_input(m, info);
        if (status != NAS_OK) return nas_wrap(m->ctx, status, "input '%.60s'", info->name);
    }
    return NAS_OK;
}

/* ---- nodes --------------------------------------------------------------------------------------------------------- */

static nas_status check_node(nas__onnx *m, const nas__onnx_node *n,
                             const nas__onnx_operator **operator_out) {
    if (n->op_type == NULL) return nas_fail(m->ctx, NAS_ERR_PARSE, "no op_type");
    if (n->domain != NULL && n->domain[0] != '\0' && strcmp(n->domain, "ai.onnx") != 0)
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "operators of domain '%.60s'", n->domain);
    const nas__onnx_operator *o = nas__onnx_find_operator(n->op_type);
    if (o == NULL) o = nas__onnx_find_math_operator(n->op_type);
    if (o == NULL) o = nas__onnx_find_dense_operator(n->op_type);
    if (o == NULL) o = nas__onnx_find_move_operator(n->op_type);
    if (o == NULL) o = nas__onnx_find_shape_operator(n->op_type);
    if (o == NULL) o = nas__onnx_find_quant_operator(n->op_type);
    if (o == NULL) return nas__onnx_unsupported(m, "this operator is not supported");
    if (n->n_output < 1 || n->output[0][0] == '\0')
        return nas_fail(m->ctx, NAS_ERR_PARSE, "no output");
    for (size_t i = 0; i < n->n_input; i++) {
        if (n->input[i][0] != '\0' && nas__onnx_find(m, n->input[i]) == NULL) {
            return nas_fail(m->ctx, NAS_ERR_PARSE, "input '%.60s' is not defined before this node",
                            n->input[i]);
        }
    }
    for (size_t i = 0; i < o->inputs_min; i++) {
        if (nas__onnx_input(m, n, i) == NULL)
            return nas_fail(m->ctx, NAS_ERR_PARSE, "%zu inputs, needs %zu", n->n_input,
                            o->inputs_min);
    }
    *operator_out = o;
    return NAS_OK;
}

static nas_status add_nodes(nas__onnx *m, const Onnx__GraphProto *graph, const bool *needed) {
    for (size_t i = 0; i < graph->n_node; i++) {
        if (!needed[i]) continue;
        const nas__onnx_node *n = graph->node[i];
        const nas__onnx_operator *o = NULL;
        nas_status status = check_node(m, n, &o);
        if (status == NAS_OK) status = o->import(m, n, o->arg);
        if (status != NAS_OK) {
            const char *name = n->name != NULL && n->name[0] != '\0' ? n->name
                               : n->n_output > 0                     ? n->output[0]
                                                                     : "?";
            return nas_wrap(m->ctx, status, "node '%.80s' (%.40s)", name,
                            n->op_type != NULL ? n->op_type : "?");
        }
    }
    return NAS_OK;
}

/* Which nodes the output needs: backwards over the list, names marked in a table of the same kind as the values. */
static nas_status find_needed(nas__onnx *m, const Onnx__GraphProto *graph, const char *output,
                              bool *needed) {
    size_t names = 1;
    for (size_t i = 0; i < graph->n_node; i++)
        names += graph->node[i]->n_input;
    nas__onnx marks = {.ctx = m->ctx, .mask = 1, .cap_values = names};
    while (marks.mask < 2 * names)
        marks.mask *= 2;
    marks.mask--;
    marks.values = nas_alloc_array(m->ctx, names, sizeof *marks.values);
    marks.table = nas_alloc_array(m->ctx, marks.mask + 1, sizeof *marks.table);
    nas_status status = marks.values == NULL || marks.table == NULL
                            ? NAS_ERR_NOMEM
                            : nas__onnx_define(&marks, output, (nas__onnx_value){0});
    for (size_t i = graph->n_node; i-- > 0 && status == NAS_OK;) {
        const nas__onnx_node *n = graph->node[i];
        for (size_t k = 0; k < n->n_output; k++)
            needed[i] = needed[i] ||
                        (n->output[k][0] != '\0' && nas__onnx_find(&marks, n->output[k]) != NULL);
        for (size_t k = 0; k < n->n_input && needed[i] && status == NAS_OK; k++) {
            if (n->input[k][0] != '\0' && nas__onnx_find(&marks, n->input[k]) == NULL)
                status = nas__onnx_define(&marks, n->input[k], (nas__onnx_value){0});
        }
    }
    nas_free(marks.values);
    nas_free(marks.table);
    return status;
}

/* Folding may leave nodes that nobody reads; a legal graph has none. */
static void drop_unread(nas__onnx *m, nas_value output, bool *read, int32_t *place) {
    nas_graph *g = m->g;
    read[output] = true;
    for (size_t i = g->n_nodes; i-- > 0;) {
        for (int32_t k = 0; k < g->nodes[i].n_inputs && read[i]; k++)
            read[g->nodes[i].inputs[k]] = true;
    }
    size_t n_nodes = 0, n_params = 0;
    for (size_t i = 0; i < g->n_nodes; i++) {
        nas_node node = g->nodes[i];
        for (int32_t k = 0; k < node.n_inputs && read[i]; k++)
            node.inputs[k] = place[node.inputs[k]];
        for (int32_t slot = 0; slot < NAS_NODE_PARAMS_MAX; slot++) {
            if (node.params[slot] < 0) continue;
            nas_param *p = &g->params[node.params[slot]]; /* params are in node order */
            if (read[i]) {
                g->params[n_params] = *p;
                node.params[slot] = (int32_t)n_params++;
            } else {
                nas_free(p->data);
                nas_free(p->scales);
            }
        }
        if (read[i]) {
            place[i] = (int32_t)n_nodes;
            g->nodes[n_nodes++] = node;
        } else {
            nas_free((void *)(uintptr_t)node.name); /* its params' names with it */
        }
    }
    g->n_nodes = n_nodes;
    g->n_params = n_params;
    g->output = place[output];
}

/* Axes such that planes [C,H,W], which the caller gets, are the order of the file; the batch apart. */
static nas__onnx_axes planes(const nas__onnx *m, const nas__onnx_value *y) {
    const int32_t lead = y->rank > 0 && y->dims[0] == m->batch ? 1 : 0;
    nas__onnx_axes axes = {{0}};
    for (int32_t i = lead; i < y->rank; i++)
        axes.of[i] = i == lead ? 3 : i == lead + 1 && y->rank - lead > 2 ? 1 : 2;
    return axes;
}

static nas_status finish(nas__onnx *m, const char *output) {
    const nas__onnx_value *found = nas__onnx_find(m, output);
    if (found == NULL || found->kind == NAS__ONNX_CONST)
        return nas_fail(m->ctx, NAS_ERR_PARSE, "output '%.60s' is not computed by any node",
                        output);
    nas__onnx_value y = *found;
    char name[] = "output";
    char *names[] = {name};
    nas__onnx_node at = ONNX__NODE_PROTO__INIT;
    at.output = names;
    at.n_output = 1;
    const nas__onnx_axes axes = planes(m, &y);
    nas_status status = nas__onnx_arrange_axes(m, &at, &y, &axes);
    if (status != NAS_OK) return nas_wrap(m->ctx, status, "output '%.60s'", output);
    bool *read = nas_alloc_array(m->ctx, m->g->n_nodes, sizeof *read);
    int32_t *place = nas_alloc_array(m->ctx, m->g->n_nodes, sizeof *place);
    if (read == NULL || place == NULL) {
        status = NAS_ERR_NOMEM;
    } else {
        drop_unread(m, y.v, read, place);
    }
    nas_free(read);
    nas_free(place);
    return status == NAS_OK ? nas_graph_verify(m->ctx, m->g) : status;
}

/* ---- whole files --------------------------------------------------------------------------------------------------- */

static nas_status import_graph(nas__onnx *m, const Onnx__GraphProto *graph) {
    if (graph->n_output != 1) {
        return nas_fail(m->ctx, NAS_ERR_UNSUPPORTED, "the network has %zu outputs, 1 is supported",
                        graph->n_output);
    }
    const char *output = graph->output[0]->name;
    if (output == NULL || output[0] == '\0')
        return nas_fail(m->ctx, NAS_ERR_PARSE, "the output has no name");
    size_t n = graph->n_initializer + graph->n_input + 1;
    for (size_t i = 0; i < graph->n_node; i++)
        n += graph->node[i]->n_output;
    if (n > VALUES_MAX || graph->n_node > VALUES_MAX)
        return nas_fail(m->ctx, NAS_ERR_RANGE, "%zu values, at most %d", n, VALUES_MAX);
    m->cap_values = n;
    m->mask = 1;
    while (m->mask < 2 * n)
        m->mask *= 2;
    m->mask--;
    m->values = nas_alloc_array(m->ctx, n, sizeof *m->values);
    m->table = nas_alloc_array(m->ctx, m->mask + 1, sizeof *m->table);
    bool *needed = nas_alloc_array(m->ctx, graph->n_node, sizeof *needed);
    nas_status status = NAS_OK;
    if (m->values == NULL || m->table == NULL || needed == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = find_needed(m, graph, output, needed);
    if (status == NAS_OK) status = add_constants_and_inputs(m, graph);
    if (status == NAS_OK) status = add_nodes(m, graph, needed);
    if (status == NAS_OK) status = finish(m, output);
    nas_free(needed);
    nas_free(m->values);
    nas_free(m->table);
    return status;
}

static nas_status import_model(nas_ctx *ctx, const Onnx__ModelProto *model, const char *name,
                               const nas_onnx_import_options *options, nas_graph **out) {
    if (model->graph == NULL) return nas_fail(ctx, NAS_ERR_PARSE, "the file holds no graph");
    nas__onnx m = {.ctx = ctx, .options = options, .opset = 1};
    for (size_t i = 0; i < model->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *o = model->opset_import[i];
        if (o->domain == NULL || o->domain[0] == '\0' || strcmp(o->domain, "ai.onnx") == 0)
            m.opset = o->version;
    }
    char graph_name[NAS_GRAPH_NAME_MAX + 1];
    const char *given = model->graph->name;
    legal_name(given != NULL && given[0] != '\0' ? given : name, "", graph_name);
    m.arena = nas_arena_new(ctx, ARENA_BLOCK);
    m.g = m.arena != NULL ? nas_graph_new(ctx, graph_name) : NULL;
    nas_status status = m.g != NULL ? import_graph(&m, model->graph) : NAS_ERR_NOMEM;
    if (status == NAS_OK) {
        *out = m.g;
    } else {
        nas_graph_free(m.g);
    }
    nas_arena_free(m.arena);
    return status;
}

nas_status nas_onnx_import_bytes(nas_ctx *ctx, const void *data, size_t len, const char *name,
                                 const nas_onnx_import_options *options, nas_graph **out) {
    if (options->batch < 1 || options->h < 0 || options->w < 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "ONNX import: batch %" PRId32 ", input %" PRId32 " x %" PRId32,
                        options->batch, options->h, options->w);
    }
    if (len > options->max_file_bytes) {
        return nas_fail(ctx, NAS_ERR_RANGE, "ONNX import: %zu bytes, at most %zu", len,
                        options->max_file_bytes);
    }
    if (!depth_ok(&onnx__model_proto__descriptor, data, len, 0)) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "ONNX import: messages nested deeper than %d (subgraphs are not supported)",
                        MESSAGE_DEPTH_MAX);
    }
    ProtobufCAllocator allocator = {message_alloc, message_free, ctx};
    Onnx__ModelProto *model = onnx__model_proto__unpack(&allocator, len, data);
    if (model == NULL)
        return nas_fail(ctx, NAS_ERR_PARSE, "ONNX import: not an ONNX file, or a damaged one");
    const nas_status status = import_model(ctx, model, name, options, out);
    onnx__model_proto__free_unpacked(model, &allocator);
    return nas_wrap(ctx, status, "ONNX import");
}

nas_status nas_onnx_import(nas_ctx *ctx, const char *path, const nas_onnx_import_options *options,
                           nas_graph **out) {
    nas_buf file = {0};
    nas_status status = nas_file_read(ctx, path, options->max_file_bytes, &file);
    const char *name = strrchr(path, '/');
    if (status == NAS_OK) {
        status = nas_onnx_import_bytes(ctx, file.data, file.len, name != NULL ? name + 1 : path,
                                       options, out);
        status = nas_wrap(ctx, status, "%s", path);
    }
    nas_buf_deinit(&file);
    return status;
}
