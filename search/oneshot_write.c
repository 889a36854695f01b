/* oneshot_write.c - patterns as text, and what a compressed network leaves on disk. */
#include "search/oneshot.h"

#include <stdio.h>
#include <string.h>

/* ---- patterns ------------------------------------------------------------------------------------------------------------ */

bool nas_oneshot_pattern_has_rate(nas_sparsity_pattern pattern) {
    return nas_sparsity_has_rate(pattern);
}

/* "AxB" after a name. */
static bool two_numbers(const char *text, int32_t *a, int32_t *b) {
    int x = 0, y = 0, used = 0;
    if (sscanf(text, "%4dx%4d%n", &x, &y, &used) != 2 || text[used] != '\0') return false;
    *a = x;
    *b = y;
    return true;
}

nas_status nas_oneshot_pattern(nas_ctx *ctx, const char *text, nas_sparsity *out) {
    int keep = 0, group = 0, outputs = 1, n = 0, used = 0;
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_N_OF_M);
    const nas_sparsity_pattern named = nas_sparsity_pattern_find(text);
    if (sscanf(text, "%4d:%4d%n", &keep, &group, &used) == 2 &&
        (text[used] == '\0' ||
         sscanf(text, "%4d:%4dx%4d%n", &keep, &group, &outputs, &used) == 3) &&
        text[used] == '\0') {
        s.keep = keep;
        s.group = group;
        s.outputs = outputs;
    } else if (sscanf(text, "1x%4d%n", &n, &used) == 1 &&
               (text[used] == '\0' || strcmp(text + used, "r") == 0)) {
        s = nas_sparsity_default(NAS_SPARSITY_1XN);
        s.n = n;
        s.rearrange = text[used] == 'r';
    } else if (strncmp(text, "block", 5) == 0) {
        s = nas_sparsity_default(NAS_SPARSITY_BLOCK);
        if (text[5] != '\0' && !two_numbers(text + 5, &s.outputs, &s.inputs)) goto unknown;
    } else if (strncmp(text, "punched", 7) == 0) {
        s = nas_sparsity_default(NAS_SPARSITY_PUNCHED);
        if (text[7] != '\0' && !two_numbers(text + 7, &s.outputs, &s.inputs)) goto unknown;
    } else if (named != NAS_SPARSITY_PATTERN_COUNT && named != NAS_SPARSITY_N_OF_M &&
               named != NAS_SPARSITY_1XN) {
        s = nas_sparsity_default(named);
    } else {
        goto unknown;
    }
    *out = s;
    return NAS_OK;
unknown:
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "pattern '%s' is not known: 2:4, 2:4x8, 1x4, 1x4r, block4x4, punched8x4, "
                    "filter, channel, pattern, periodic, unstructured",
                    text);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------- */

static void write_activation(nas_json *j, const nas_quant *q) {
    nas_json_key(j, "activation");
    nas_json_object(j);
    nas_json_key(j, "scale");
    nas_json_double(j, (double)q->scale);
    nas_json_key(j, "zero_point");
    nas_json_int(j, q->zero_point);
    nas_json_object_end(j);
}

/* Weights of a convolution and how its result, or that of any other node, is stored; zeros: the layer has a pattern. */
static void write_node(nas_json *j, const nas_graph *graph, nas_value v, bool zeros) {
    const nas_node *node = nas_graph_node(graph, v);
    const nas_param *weight =
        node->op == NAS_OP_CONV ? nas_graph_param_const(graph, node->params[0]) : NULL;
    nas_json_key(j, node->name);
    nas_json_object(j);
    if (zeros) {
        nas_json_key(j, "sparsity");
        nas_json_object(j);
        nas_json_key(j, "from");
        nas_json_string(j, "weights");
        nas_json_object_end(j);
    }
    if (weight != NULL &&
        weight->scales != NULL) { /* symmetric grids: what integer kernels store */
        nas_json_key(j, "weight_bits");
        nas_json_int(j, weight->bits);
        nas_json_key(j, "weight_scales");
        nas_json_array(j);
        for (int32_t o = 0; o < weight->dims[0]; o++)
            nas_json_double(j, (double)weight->scales[o]);
        nas_json_array_end(j);
    }
    if (node->quant.is_set) write_activation(j, &node->quant);
    nas_json_object_end(j);
}

/* Every layer, and what else has integers. */
static nas_status write_nodes(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                              const nas_graph *again, const nas_layer_scheme *schemes,
                              const nas_layer_result *results, nas_json *j) {
    size_t layer = 0;
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        const bool is_layer = layer < o->n_layers && o->layers[layer] == v;
        const bool has_scales = node->op == NAS_OP_CONV &&
                                nas_graph_param_const(graph, node->params[0])->scales != NULL;
        const bool zeros = is_layer && schemes[layer].is_sparse && results[layer].zeros > 0;
        layer += is_layer;
        if (!is_layer && !has_scales && !node->quant.is_set) continue;
        if (nas_graph_find(again, node->name) == NAS_VALUE_NONE)
            return nas_fail(ctx, NAS_ERR_INTERNAL, "layer '%s' has another name in the ONNX file",
                            node->name);
        write_node(j, graph, v, zeros);
    }
    return NAS_OK;
}

/* The hash is that of the file as it is read again. */
static nas_status write_recipe(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                               const nas_layer_scheme *schemes, const nas_layer_result *results,
                               const char *facts, const char *onnx, const char *path) {
    const nas_onnx_import_options import = nas_onnx_import_options_default();
    nas_graph *again = NULL;
    char hash[NAS_SHA256_HEX];
    nas_status status = nas_onnx_import(ctx, onnx, &import, &again);
    if (status == NAS_OK) status = nas_graph_hash(ctx, again, false, hash);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "schema");
    nas_json_int(&j, 1);
    nas_json_key(&j, "graph_hash");
    nas_json_string(&j, status == NAS_OK ? hash : "");
    nas_json_key(&j, "compression");
    nas_json_raw(&j, facts != NULL ? facts : "{}");
    nas_json_key(&j, "layers");
    nas_json_object(&j);
    if (status == NAS_OK) status = write_nodes(ctx, o, graph, again, schemes, results, &j);
    nas_json_object_end(&j);
    nas_json_object_end(&j);
    nas_buf_puts(&text, "\n");
    if (status == NAS_OK) status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas_file_write(ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    nas_graph_free(again);
    return status;
}

static nas_status write_table(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                              const nas_layer_scheme *schemes, const nas_layer_result *results,
                              const char *path) {
    nas_buf text = {0};
    nas_status status = NAS_OK;
    nas_buf_puts(&text,
                 "layer,pattern,bits,solver,weights,zeros,relative_error,bytes,dense_bytes\n");
    for (size_t i = 0; i < o->n_layers && status == NAS_OK; i++) {
        const nas_layer_scheme *s = &schemes[i], nothing = nas_layer_scheme_default();
        uint64_t bytes = 0, dense = 0;
        status = nas_layer_bytes(ctx, graph, o->layers[i], s, &bytes);
        if (status == NAS_OK)
            status = nas_layer_bytes(ctx, o->model, o->layers[i], &nothing, &dense);
        nas_buf_printf(&text, "%s,%s,%d,%s,%" PRIu64 ",%" PRIu64 ",",
                       nas_graph_node(graph, o->layers[i])->name,
                       s->is_sparse ? nas_sparsity_pattern_name(s->sparsity.pattern) : "dense",
                       s->bits > 0 ? (int)s->bits : 32, nas_layer_solver_name(results[i].solver),
                       results[i].weights, results[i].zeros);
        if (results[i].has_loss) nas_buf_printf(&text, "%.6g", results[i].relative_loss);
        nas_buf_printf(&text, ",%" PRIu64 ",%" PRIu64 "\n", bytes, dense);
    }
    if (status == NAS_OK) status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas_file_write(ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return status;
}

const char *nas_oneshot_uneven(const nas_oneshot *o, const nas_layer_scheme *schemes) {
    for (size_t i = 0; i < o->n_layers; i++) {
        if (schemes[i].bits > 0 && schemes[i].grid != NAS_GRID_SYMMETRIC)
            return nas_graph_node(o->model, o->layers[i])->name;
    }
    return NULL;
}

static bool has_integers(const nas_graph *graph) {
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        const nas_node *node = nas_graph_node(graph, v);
        if (node->quant.is_set || (node->op == NAS_OP_CONV &&
                                   nas_graph_param_const(graph, node->params[0])->scales != NULL))
            return true;
    }
    return false;
}

/* What an earlier network left must not pass for this one's. */
static nas_status write_quantized(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                  const nas_layer_scheme *schemes, const char *path) {
    if (has_integers(graph) && nas_oneshot_uneven(o, schemes) == NULL)
        return nas_onnx_export_quantized(ctx, graph, path);
    return nas_remove_tree(ctx, path);
}

nas_status nas_oneshot_write(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                             const nas_layer_scheme *schemes, const nas_layer_result *results,
                             const char *facts, const char *dir) {
    char onnx[1024], quantized[1024], recipe[1024], table[1024];
    const int n = snprintf(onnx, sizeof onnx, "%s/model.onnx", dir);
    if (n < 0 || (size_t)n + 8 >= sizeof onnx)
        return nas_fail(ctx, NAS_ERR_RANGE, "folder '%s': longer than 1000 bytes", dir);
    (void)snprintf(quantized, sizeof quantized, "%s/model_qdq.onnx", dir);
    (void)snprintf(recipe, sizeof recipe, "%s/recipe.json", dir);
    (void)snprintf(table, sizeof table, "%s/layers.csv", dir);
    nas_status status = nas_mkdirs(ctx, dir);
    if (status == NAS_OK) status = nas_onnx_export(ctx, graph, onnx);
    if (status == NAS_OK) status = write_quantized(ctx, o, graph, schemes, quantized);
    if (status == NAS_OK)
        status = write_recipe(ctx, o, graph, schemes, results, facts, onnx, recipe);
    if (status == NAS_OK) status = write_table(ctx, o, graph, schemes, results, table);
    return nas_wrap(ctx, status, "writing %s", dir);
}
