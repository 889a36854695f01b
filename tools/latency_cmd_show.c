/* latency_cmd_show.c - `nas-latency predict`, `explain`, `list`, `export`, and how a record is printed. */
#include "tools/latency_commands.h"
#include "tools/latency_data.h"
#include "tools/latency_kernels.h"
#include "tools/latency_study.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- one record ---------------------------------------------------------------------------------------------------------- */

static nas_status write_text(nas_ctx *ctx, const char *text) {
    if (fputs(text, stdout) == EOF || fflush(stdout) == EOF)
        return nas_fail(ctx, NAS_ERR_IO, "cannot write the output");
    return NAS_OK;
}

/* Simple members become columns; lists and objects are only in the JSON. */
static nas_status print_members(nas_ctx *ctx, const nas_latency_args *args, json_t *root) {
    enum { COLUMNS_MAX = 40, TEXT = 64 };
    const char *names[COLUMNS_MAX], *values[COLUMNS_MAX];
    char texts[COLUMNS_MAX][TEXT];
    bool is_number[COLUMNS_MAX];
    int32_t n = 0;
    const char *key = NULL;
    json_t *value = NULL;
    json_object_foreach(root, key, value) {
        if (n == COLUMNS_MAX || json_is_object(value) || json_is_array(value)) continue;
        names[n] = key;
        is_number[n] = json_is_number(value);
        values[n] = json_string_value(value);
        if (json_is_integer(value)) {
            (void)snprintf(texts[n], TEXT, "%lld", (long long)json_integer_value(value));
            values[n] = texts[n];
        } else if (json_is_real(value)) {
            (void)snprintf(texts[n], TEXT, "%.9g", json_real_value(value));
            values[n] = texts[n];
        } else if (json_is_boolean(value)) {
            values[n] = json_is_true(value) ? "yes" : "no";
        }
        n++;
    }
    nas_rows rows = nas_rows_new(args->rows, true, stdout);
    const nas_status status = nas_rows_add(ctx, &rows, n, names, values, is_number);
    if (status == NAS_OK) return nas_rows_end(ctx, &rows);
    nas_rows_deinit(&rows);
    return status;
}

nas_status nas_latency_print(nas_ctx *ctx, const nas_latency_args *args, const nas_buf *json) {
    nas_status status = nas_buf_status(ctx, json);
    if (status != NAS_OK) return status;
    if (args->rows == NAS_ROWS_JSON) {
        status = write_text(ctx, json->data);
        return status == NAS_OK ? write_text(ctx, "\n") : status;
    }
    json_error_t error;
    json_t *root = json_loadb(json->data, json->len, 0, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return nas_fail(ctx, NAS_ERR_INTERNAL, "a result is no JSON object: %s", error.text);
    }
    status = print_members(ctx, args, root);
    json_decref(root);
    return status;
}

/* ---- predict --------------------------------------------------------------------------------------------------------------- */

/* What is to be predicted: an architecture of the model's space, or any network. */
typedef struct question {
    char *arch;       /* owned; NULL for an ONNX file */
    nas_graph *graph; /* owned */
    bool by_graph;    /* its features are those of the graph: the model's space is "network" */
} question;

static void question_deinit(question *q) {
    nas_free(q->arch);
    nas_graph_free(q->graph);
}

/* Input extents of the recipe's graph before the point: the text of a study's network. */
static nas_status recipe_arch(nas_ctx *ctx, const json_t *root, const char *path, const char *point,
                              char **out) {
    const json_t *shape = NULL;
    const json_t *nodes = json_object_get(json_object_get(root, "graph"), "nodes");
    for (size_t i = 0; i < json_array_size(nodes) && shape == NULL; i++) {
        const json_t *node = json_array_get(nodes, i);
        const char *op = json_string_value(json_object_get(node, "op"));
        if (op != NULL && strcmp(op, "input") == 0) shape = json_object_get(node, "shape");
    }
    const json_int_t h = json_integer_value(json_array_get(shape, 1)),
                     w = json_integer_value(json_array_get(shape, 2));
    if (h < 1 || w < 1 || h > 99999 || w > 99999)
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: its graph has no input with a shape", path);
    nas_buf text = {0};
    nas_buf_printf(&text, "%dx%d %s", (int)h, (int)w, point);
    const nas_status status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) *out = nas_strdup(ctx, text.data);
    nas_buf_deinit(&text);
    return status == NAS_OK && *out == NULL ? NAS_ERR_NOMEM : status;
}

/* Point and space of a recipe; `with_extents`: the point as a study's network is written. */
static nas_status read_recipe(nas_ctx *ctx, const char *path, bool with_extents, char **point,
                              char **space) {
    enum { RECIPE_BYTES_MAX = 1 << 26 };
    nas_buf text = {0};
    nas_status status = nas_file_read(ctx, path, RECIPE_BYTES_MAX, &text);
    if (status != NAS_OK) return status;
    json_error_t error;
    json_t *root = json_loadb(text.data, text.len, 0, &error);
    nas_buf_deinit(&text);
    if (root == NULL)
        return nas_fail(ctx, NAS_ERR_PARSE, "%s, line %d: %s", path, error.line, error.text);
    const char *p = json_string_value(json_object_get(root, "point")),
               *s = json_string_value(json_object_get(root, "space"));
    if (p == NULL || s == NULL) {
        status =
            nas_fail(ctx, NAS_ERR_PARSE, "%s: no recipe, it has no \"point\" and \"space\"", path);
    } else {
        *space = nas_strdup(ctx, s);
        if (!with_extents) *point = nas_strdup(ctx, p);
        if (with_extents) status = recipe_arch(ctx, root, path, p, point);
        if (status == NAS_OK && (*point == NULL || *space == NULL)) status = NAS_ERR_NOMEM;
    }
    json_decref(root);
    return status;
}

static nas_status ask(nas_ctx *ctx, const nas_latency_args *args, const nas_loaded_model *m,
                      question *q) {
    nas_status status = NAS_OK;
    char *space = NULL;
    q->by_graph = args->onnx != NULL || nas_encoder_is_network(m->encoder);
    if (args->onnx != NULL) {
        const nas_onnx_import_options options = nas_onnx_import_options_default();
        return nas_onnx_import(ctx, args->onnx, &options, &q->graph);
    }
    if (args->recipe != NULL && q->by_graph) {
        status = read_recipe(ctx, args->recipe, true, &q->arch, &space);
        if (status == NAS_OK && strcmp(space, "sr") != 0)
            status = nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                              "%s: a recipe of space '%s' names no network that can be built here: "
                              "give its ONNX file",
                              args->recipe, space);
        nas_free(space);
    } else if (args->recipe != NULL) {
        status = read_recipe(ctx, args->recipe, false, &q->arch, &space);
        const size_t len = strcspn(m->series.space, ":");
        if (status == NAS_OK && (strlen(space) != len || strncmp(space, m->series.space, len) != 0))
            status = nas_fail(ctx, NAS_ERR_INVALID,
                              "the recipe is of space '%s', the model of '%s': fit one of it",
                              space, m->series.space);
        nas_free(space);
    } else {
        q->arch = nas_strdup(ctx, args->arch);
        status = q->arch == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status != NAS_OK) return status;
    return q->by_graph && nas_latency_is_study_arch(q->arch)
               ? nas_latency_study_graph(ctx, q->arch, &q->graph)
               : nas_encoder_graph(ctx, m->encoder, q->arch, &q->graph);
}

static nas_status predict_row(nas_ctx *ctx, const nas_loaded_model *m, const double *x,
                              nas_prediction *out) {
    nas_latency_table table = {.device = m->series.device, .n_rows = 1, .x = x};
    table.features = nas_encoder_features(m->encoder, &table.n_features);
    return nas_device_model_predict(ctx, m->model, &table, out);
}

/* One convolution of a network as a kernel; false for every other layer. */
static bool layer_kernel(const nas_graph *graph, nas_value v, nas_kernel_shape *out) {
    const nas_node *node = nas_graph_node(graph, v);
    if (node->op != NAS_OP_CONV) return false;
    const nas_shape in = nas_graph_node(graph, node->inputs[0])->shape;
    const nas_conv_attributes *c = &node->conv;
    const bool depthwise = c->groups > 1 && c->groups == in.c;
    if (c->kernel_h != c->kernel_w || c->kernel_h % 2 == 0 || c->kernel_h > 11 ||
        c->stride_h != c->stride_w || c->stride_h > 4 || c->dilation_h != 1 || c->dilation_w != 1 ||
        (c->groups > 1 && !depthwise))
        return false;
    *out = (nas_kernel_shape){.depthwise = depthwise,
                              .height = in.h,
                              .width = in.w,
                              .in = in.c,
                              .out = node->shape.c,
                              .kernel = c->kernel_h,
                              .stride = c->stride_h};
    return true;
}

/* What a layer takes by the model of single kernels. */
static nas_status predict_layer(nas_ctx *ctx, const nas_loaded_model *kernels,
                                const nas_kernel_shape *shape, nas_prediction *out) {
    size_t n = 0;
    (void)nas_encoder_features(kernels->encoder, &n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    nas_buf text = {0};
    nas_kernel_shape_format(shape, &text);
    nas_status status = x == NULL ? NAS_ERR_NOMEM : nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas_encoder_row(ctx, kernels->encoder, text.data, x);
    if (status == NAS_OK) status = predict_row(ctx, kernels, x, out);
    nas_buf_deinit(&text);
    nas_free(x);
    return status;
}

/* Layers with their work; `kernels` NULL: without a time of their own. *sum: of the layers' predictions, *others: layers it
 * has no kernel for. */
static nas_status put_layers(nas_ctx *ctx, const nas_graph *graph, const nas_loaded_model *kernels,
                             nas_json *j, nas_prediction *sum, int32_t *others) {
    enum { LANES = 8 };
    size_t n = 0;
    nas_status status = nas_layer_features_of(ctx, graph, LANES, NULL, 0, &n);
    if (status != NAS_OK) return status;
    nas_layer_features *rows = nas_alloc_array(ctx, n, sizeof *rows);
    if (rows == NULL) return NAS_ERR_NOMEM;
    status = nas_layer_features_of(ctx, graph, LANES, rows, n, &n);
    *sum = (nas_prediction){0};
    *others = 0;
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)(rows[i].macs_padded + rows[i].bytes);
    nas_json_key(j, "layers");
    nas_json_array(j);
    for (size_t i = 0; i < n && status == NAS_OK; i++) {
        const nas_layer_features *r = &rows[i];
        nas_kernel_shape shape;
        nas_json_object(j);
        nas_json_key(j, "node");
        nas_json_string(j, r->node);
        nas_json_key(j, "family");
        nas_json_string(j, r->family);
        nas_json_key(j, "macs");
        nas_json_int(j, (int64_t)r->macs);
        nas_json_key(j, "macs_padded");
        nas_json_int(j, (int64_t)r->macs_padded);
        nas_json_key(j, "bytes");
        nas_json_int(j, (int64_t)r->bytes);
        nas_json_key(j, "work_share");
        nas_json_double(j, total > 0 ? (double)(r->macs_padded + r->bytes) / total : 0);
        if (kernels != NULL && layer_kernel(graph, nas_graph_find(graph, r->node), &shape)) {
            nas_prediction p = {0};
            status = predict_layer(ctx, kernels, &shape, &p);
            nas_json_key(j, "alone_ms");
            nas_json_double(j, p.p50_us);
            sum->p50_us += p.p50_us;
            sum->lo_us += p.lo_us;
            sum->hi_us += p.hi_us;
        } else {
            (*others)++;
        }
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
    nas_free(rows);
    return status;
}

static void put_prediction(nas_json *j, const nas_latency_args *args, const nas_loaded_model *m,
                           const question *q, const nas_prediction *p) {
    nas_json_key(j, "device");
    nas_json_string(j, m->series.device);
    nas_json_key(j, "space");
    nas_json_string(j, m->series.space);
    nas_json_key(j, "arch");
    nas_json_string(j, q->arch != NULL ? q->arch : args->onnx);
    nas_json_key(j, "quantity");
    nas_json_string(j, nas_db_quantity_text(m->series.quantity));
    nas_json_key(j, "unit");
    nas_json_string(j, m->series.quantity == NAS_DB_LATENCY ? "ms" : "mJ");
    nas_json_key(j, "value");
    nas_json_double(j, p->p50_us);
    nas_json_key(j, "lo");
    nas_json_double(j, p->lo_us);
    nas_json_key(j, "hi");
    nas_json_double(j, p->hi_us);
    nas_json_key(j, "level");
    nas_json_double(j, nas_device_model_level(m->model));
    nas_json_key(j, "model");
    nas_json_string(j, nas_device_model_id(m->model));
}

/* The whole network by its own model, or, when the device has only one of kernels, as the sum of its layers. */
static nas_status answer(nas_ctx *ctx, const nas_latency_args *args, const nas_loaded_model *m,
                         const nas_loaded_model *kernels, const question *q, nas_buf *out) {
    const bool as_sum = strcmp(m->series.space, "kernel") == 0 && q->arch == NULL;
    nas_buf layers = {0};
    nas_json lj = nas_json_begin(&layers);
    nas_json_object(&lj);
    nas_prediction sum = {0}, whole = {0};
    int32_t others = 0;
    nas_status status = put_layers(ctx, q->graph, as_sum ? m : kernels, &lj, &sum, &others);
    nas_json_object_end(&lj);
    size_t n = 0;
    (void)nas_encoder_features(m->encoder, &n);
    double *x = nas_alloc_array(ctx, n, sizeof *x);
    if (x == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK && !as_sum) {
        status = q->by_graph ? nas_encoder_graph_row(ctx, m->encoder, q->graph, x)
                             : nas_encoder_row(ctx, m->encoder, q->arch, x);
        if (status == NAS_OK) status = predict_row(ctx, m, x, &whole);
    }
    if (status == NAS_OK) status = nas_buf_status(ctx, &layers);
    if (status == NAS_OK) {
        nas_json j = nas_json_begin(out);
        nas_json_object(&j);
        put_prediction(&j, args, m, q, as_sum ? &sum : &whole);
        if (as_sum) {
            nas_json_key(&j, "layers_without_kernel");
            nas_json_int(&j, others);
        }
        nas_buf_puts(out, ",");
        nas_buf_append(out, layers.data + 1, layers.len - 2); /* "layers":[...] */
        nas_json_object_end(&j);
    }
    nas_free(x);
    nas_buf_deinit(&layers);
    return status;
}

/* The layers of a prediction as rows of a table below it. */
static nas_status print_layers(nas_ctx *ctx, const nas_latency_args *args, const nas_buf *json) {
    json_t *root = json_loadb(json->data, json->len, 0, NULL);
    const json_t *layers = json_object_get(root, "layers");
    nas_rows rows = nas_rows_new(args->rows, false, stdout);
    nas_status status = write_text(ctx, "\n");
    for (size_t i = 0; i < json_array_size(layers) && status == NAS_OK; i++) {
        static const char *const names[] = {"node",  "family",     "macs",    "macs_padded",
                                            "bytes", "work_share", "alone_ms"};
        enum { COLUMNS = sizeof names / sizeof names[0] };
        const char *values[COLUMNS];
        char texts[COLUMNS][64];
        bool is_number[COLUMNS];
        for (int k = 0; k < COLUMNS; k++) {
            const json_t *cell = json_object_get(json_array_get(layers, i), names[k]);
            is_number[k] = json_is_number(cell);
            values[k] = json_string_value(cell);
            if (!is_number[k]) continue;
            (void)snprintf(texts[k], sizeof texts[k], "%.9g", json_number_value(cell));
            values[k] = texts[k];
        }
        status = nas_rows_add(ctx, &rows, COLUMNS, names, values, is_number);
    }
    json_decref(root);
    if (status == NAS_OK) return nas_rows_end(ctx, &rows);
    nas_rows_deinit(&rows);
    return status;
}

/* Whose model answers when none is named: networks if there are any, for an ONNX file else kernels; NULL: the only one. */
static const char *space_of_question(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    nas_db_series networks;
    if (args->arch != NULL && !nas_latency_is_study_arch(args->arch)) return NULL;
    const bool has =
        nas_db_series_find(ctx, db, args->device, "network", args->quantity, &networks) == NAS_OK;
    nas_ctx_clear(ctx);
    return has ? "network" : args->onnx != NULL ? "kernel" : NULL;
}

nas_status nas_latency_predict(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    const int asked = (args->arch != NULL) + (args->onnx != NULL) + (args->recipe != NULL);
    if (asked != 1)
        return nas_fail(ctx, NAS_ERR_INVALID, "predict needs one of --arch, --onnx, --recipe");
    nas_loaded_model m = {0}, kernels = {0};
    question q = {0};
    nas_buf json = {0};
    const char *space = args->space != NULL ? args->space : space_of_question(ctx, db, args);
    nas_status status = nas_latency_model_load(ctx, db, args, space, &m);
    if (status == NAS_OK) status = ask(ctx, args, &m, &q);
    const bool has_kernels = status == NAS_OK && strcmp(m.series.space, "kernel") != 0 &&
                             nas_latency_model_load(ctx, db, args, "kernel", &kernels) == NAS_OK;
    if (status == NAS_OK) nas_ctx_clear(ctx); /* no kernels is no failure */
    if (status == NAS_OK) status = answer(ctx, args, &m, has_kernels ? &kernels : NULL, &q, &json);
    if (status == NAS_OK) status = nas_latency_print(ctx, args, &json);
    if (status == NAS_OK && args->rows == NAS_ROWS_TABLE) status = print_layers(ctx, args, &json);
    nas_buf_deinit(&json);
    question_deinit(&q);
    nas_loaded_model_deinit(&kernels);
    nas_loaded_model_deinit(&m);
    return status;
}

/* ---- explain, list, export ------------------------------------------------------------------------------------------------- */

nas_status nas_latency_explain(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    nas_loaded_model m = {0};
    nas_buf json = {0};
    nas_status status = nas_latency_model_load(ctx, db, args, args->space, &m);
    if (status == NAS_OK) status = nas_device_model_explain(ctx, m.model, &json);
    if (status == NAS_OK) status = nas_buf_status(ctx, &json);
    /* a nested document: JSON whatever -f says */
    if (status == NAS_OK) status = write_text(ctx, json.data);
    if (status == NAS_OK) status = write_text(ctx, "\n");
    nas_buf_deinit(&json);
    nas_loaded_model_deinit(&m);
    return status;
}

static nas_status query(nas_ctx *ctx, nas_db *db, const nas_latency_args *args, const char *sql,
                        const char *const *params, int32_t n) {
    nas_rows rows = nas_rows_new(args->rows, false, stdout);
    const nas_status status = nas_db_query(ctx, db, sql, params, n, nas_rows_add, &rows);
    if (status == NAS_OK) return nas_rows_end(ctx, &rows);
    nas_rows_deinit(&rows);
    return status;
}

nas_status nas_latency_list(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    return query(ctx, db, args,
                 args->rows == NAS_ROWS_TABLE
                     ? "SELECT device, space, quantity, rows, least, mean, most, unit, model FROM "
                       "v_latency_series ORDER BY space, device, quantity"
                     : "SELECT * FROM v_latency_series ORDER BY space, device, quantity",
                 NULL, 0);
}

nas_status nas_latency_export(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    nas_db_series series;
    nas_status status =
        nas_db_series_find(ctx, db, args->device, args->space, args->quantity, &series);
    if (status != NAS_OK) return status;
    if (args->model != NULL) { /* --model latest: the model itself, plain JSON */
        nas_db_model row = {0};
        status = nas_db_model_latest(ctx, db, &series, &row);
        if (status == NAS_OK) status = write_text(ctx, row.model);
        if (status == NAS_OK) status = write_text(ctx, "\n");
        nas_db_model_deinit(&row);
        return status;
    }
    char id[24];
    (void)snprintf(id, sizeof id, "%" PRId64, series.id);
    const char *params[] = {id};
    return query(ctx, db, args,
                 "SELECT device, space, quantity, arch, value, unit, source FROM v_latency_value"
                 " WHERE series_id = CAST(? AS INTEGER) ORDER BY arch",
                 params, 1);
}
