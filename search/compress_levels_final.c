/* compress_levels_final.c - networks of the front of a study of levels: compressed in turn, kept with their recipe, delivered; and
 * the plan of such a study. */
#include "search/compress_joint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- finalists ------------------------------------------------------------------------------------------------------------ */

static void show(void *arg, const char *phase, double done, double planned) {
    nas__comp *c = arg;
    nas__progress_update(&c->progress, planned > 0 ? done / planned : 0, "%s", phase);
}

static nas_status as_scored(nas__comp *c, const nas_point *point, nas_graph **out) {
    nas__levels *l = c->levels;
    int32_t *level = nas_alloc_array(c->ctx, l->list.n_layers, sizeof *level);
    if (level == NULL) return NAS_ERR_NOMEM;
    nas_space_levels_of(c->space, point, level);
    const nas_status status = nas_space_decode(c->ctx, c->space, point, out);
    for (size_t i = 0; i < l->list.n_layers; i++)
        l->results[i] = l->cells[l->list.layers[i].first + (size_t)level[i]].result;
    nas_free(level);
    return status;
}

static nas_status in_turn(nas__comp *c, const nas_point *point, nas_graph **out) {
    nas__levels *l = c->levels;
    nas_layer_options options = nas_layer_options_default();
    nas_layer_scheme *schemes = nas_alloc_array(c->ctx, l->list.n_layers, sizeof *schemes);
    nas_status status = schemes == NULL ? NAS_ERR_NOMEM : nas__levels_schemes(c, point, schemes);
    options.threads = c->config->eval.threads;
    l->view.note = show;
    l->view.note_arg = c;
    if (status == NAS_OK)
        status = nas_oneshot_apply_sequential(c->ctx, &l->view, schemes, &options, l->results, out);
    l->view.note = NULL;
    nas_free(schemes);
    return status;
}

nas_status nas__levels_final(nas__comp *c, size_t index, nas_graph **out) {
    const nas_point *point = &c->trials[index].point;
    const bool scored = strcmp(c->config->compress.calibrate, "dense") == 0;
    nas_graph *graph = NULL;
    nas_status status = c->channels != NULL ? nas__joint_final(c, index, &graph)
                        : scored            ? as_scored(c, point, &graph)
                                            : in_turn(c, point, &graph);
    if (status == NAS_OK) status = nas__levels_code(c, SIZE_MAX, point, &graph);
    if (status == NAS_OK) {
        *out = graph;
    } else {
        nas_graph_free(graph);
    }
    return status;
}

/* ---- recipes -------------------------------------------------------------------------------------------------------------- */

static void put_number(nas_json *j, const char *key, nas_opt_double value) {
    nas_json_key(j, key);
    if (value.is_set) {
        nas_json_double(j, value.value);
    } else {
        nas_json_null(j);
    }
}

static void put_text(nas_json *j, const char *key, const char *text) {
    nas_json_key(j, key);
    nas_json_string(j, text);
}

static nas_status write_facts(const nas__comp *c, size_t index, nas_buf *out) {
    const nas__comp_trial *t = &c->trials[index], *original = &c->trials[0];
    nas_json j = nas_json_begin(out);
    nas_json_object(&j);
    put_text(&j, "study", c->config->study.name);
    nas_json_key(&j, "trial");
    nas_json_int(&j, t->row.number);
    put_text(&j, "point", t->row.point);
    put_text(&j, "target", c->target->name);
    put_text(&j, "device", nas_device_name(c->device));
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, nas_device_is_simulated(c->device));
    put_number(&j, "latency_p50_us", t->row.values.final_latency_p50_us);
    put_number(&j, "original_latency_p50_us", original->row.values.final_latency_p50_us);
    put_number(&j, "report_top1", t->top1.report_top1);
    put_number(&j, c->channels != NULL ? "original_tuned_report_top1" : "original_report_top1",
               original->top1.report_top1);
    put_number(&j, "reward_top1", t->top1.tuned_reward_top1);
    nas_json_key(&j, "weight_bytes");
    nas_json_int(&j, t->top1.weight_bytes.value);
    put_text(&j, "data", nas_class_data_describe(c->data));
    if (c->channels != NULL) nas__comp_group_facts(c, &c->trials[index].point, NULL, &j);
    nas_json_object_end(&j);
    return nas_buf_status(c->ctx, out);
}

nas_status nas__levels_keep(nas__comp *c, size_t index, const nas_graph *graph) {
    nas__levels *l = c->levels;
    char name[48], dir[NAS__COMP_PATH_MAX];
    nas_buf facts = {0};
    nas_layer_scheme *schemes = nas_alloc_array(c->ctx, l->list.n_layers, sizeof *schemes);
    nas_status status = schemes == NULL ? NAS_ERR_NOMEM : NAS_OK;
    (void)snprintf(name, sizeof name, "tuned/%zu", index);
    if (status == NAS_OK) status = nas__comp_path(c, name, dir);
    if (status == NAS_OK) status = nas__levels_schemes(c, &c->trials[index].point, schemes);
    if (status == NAS_OK) status = write_facts(c, index, &facts);
    if (status == NAS_OK)
        status = nas_oneshot_write(c->ctx, &l->view, graph, schemes, l->results, facts.data, dir);
    nas_buf_deinit(&facts);
    nas_free(schemes);
    return status;
}

/* ---- delivery ------------------------------------------------------------------------------------------------------------- */

/* Bits of what a layer reads in a point. */
static int32_t input_bits(const nas__comp *c, size_t layer, const int32_t *bits) {
    const nas__level_layer *at = &c->levels->list.layers[layer];
    return at->reads > 0 ? bits[at->reads - 1] : at->input_bits;
}

static nas_status write_row(nas__comp *c, size_t layer, int32_t at, int32_t input,
                            const nas_graph *graph, double alone, double ratio, nas_buf *text) {
    const nas__level *level = nas__levels_at(c, layer, at);
    const nas_layer_scheme *s = &level->scheme, nothing = nas_layer_scheme_default();
    const nas_value conv = c->levels->list.layers[layer].conv;
    const char *name = nas_graph_node(c->model, conv)->name;
    const nas_value v = nas_graph_find(graph, name);
    char pattern[NAS_SPARSITY_SHORT_MAX] = "dense";
    uint64_t bytes = 0, dense = 0, zeros = 0;
    if (v == NAS_VALUE_NONE)
        return nas_fail(c->ctx, NAS_ERR_INTERNAL, "layer '%s' is not in the kept network", name);
    const nas_param *weight = nas_graph_param_const(graph, nas_graph_node(graph, v)->params[0]);
    for (size_t i = 0; i < weight->count; i++)
        zeros += weight->data[i] == 0;
    nas_status status = nas_layer_bytes(c->ctx, graph, v, s, &bytes);
    if (status == NAS_OK) status = nas_layer_bytes(c->ctx, c->model, conv, &nothing, &dense);
    if (s->is_sparse) nas_sparsity_short(&s->sparsity, pattern);
    nas_buf_printf(text, "\"%s\",%s,%.4f,%d,%d,%zu,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.2f,%.2f,",
                   name, pattern, 1 - (double)level->kept / (double)weight->count,
                   s->bits > 0 ? (int)s->bits : 32, (int)input, weight->count, zeros, bytes, dense,
                   100 * alone, 100 * (c->trials[0].top1.reward_top1.value - alone));
    if (isfinite(ratio)) nas_buf_printf(text, "%.3f", ratio);
    nas_buf_puts(text, "\n");
    return status;
}

static nas_status write_layers(nas__comp *c, size_t index, const nas_graph *graph,
                               const char *path) {
    const size_t n = c->levels->list.n_layers;
    nas_buf text = {0};
    double *alone = nas_alloc_array(c->ctx, n, sizeof *alone);
    double *ratio = nas_alloc_array(c->ctx, n, sizeof *ratio);
    int32_t *level = nas_alloc_array(c->ctx, n, sizeof *level);
    int32_t *bits = nas_alloc_array(c->ctx, c->levels->list.n_values, sizeof *bits);
    nas_status status =
        alone == NULL || ratio == NULL || level == NULL || bits == NULL ? NAS_ERR_NOMEM : NAS_OK;
    nas_buf_puts(&text, "layer,pattern,rate,bits,input_bits,weights,zeros,weight_bytes,dense_bytes,"
                        "reward_top1_alone,points_lost_alone,measured_ratio\n");
    if (status == NAS_OK) nas_space_levels_of(c->space, &c->trials[index].point, level);
    if (status == NAS_OK) nas_space_levels_bits(c->space, &c->trials[index].point, bits);
    if (status == NAS_OK) status = nas__comp_alone(c, index, alone);
    if (status == NAS_OK) status = nas__comp_ratios(c, index, graph, ratio);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status =
            write_row(c, i, level[i], input_bits(c, i, bits), graph, alone[i], ratio[i], &text);
    if (status == NAS_OK) status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    nas_free(alone);
    nas_free(ratio);
    nas_free(level);
    nas_free(bits);
    return status;
}

static nas_status copy_kept(nas__comp *c, size_t index, const char *file, const char *folder) {
    enum { FILE_BYTES_MAX = INT32_MAX };
    char name[96], from[NAS__COMP_PATH_MAX], to[NAS__COMP_PATH_MAX];
    nas_buf text = {0};
    (void)snprintf(name, sizeof name, "tuned/%zu/%s", index, file);
    nas_status status = nas__comp_path(c, name, from);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, file, to);
    if (status == NAS_OK) status = nas_file_read(c->ctx, from, FILE_BYTES_MAX, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, to, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return status;
}

/* model_qdq.onnx is there where some layer has integer weights. */
static bool has_kept(nas__comp *c, size_t index, const char *file) {
    char name[96], path[NAS__COMP_PATH_MAX];
    (void)snprintf(name, sizeof name, "tuned/%zu/%s", index, file);
    const bool good = nas__comp_path(c, name, path) == NAS_OK;
    if (!good) nas_ctx_clear(c->ctx); /* the copy of another file tells */
    return good && nas_file_exists(path);
}

nas_status nas__levels_deliver(nas__comp *c, size_t index, const char *folder) {
    char path[NAS__COMP_PATH_MAX];
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    nas_graph *graph = NULL;
    nas_status status = nas__comp_path_in(c, folder, "", path);
    if (status == NAS_OK) status = nas_remove_tree(c->ctx, path); /* of an earlier report */
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, path);
    if (status == NAS_OK) status = copy_kept(c, index, "model.onnx", folder);
    if (status == NAS_OK) status = copy_kept(c, index, "recipe.json", folder);
    if (status == NAS_OK && has_kept(c, index, "model_qdq.onnx"))
        status = copy_kept(c, index, "model_qdq.onnx", folder);
    if (status == NAS_OK)
        status = nas__comp_path_in(
            c, folder, nas__has_acts(c->config) ? "model_qdq.onnx" : "model.onnx", path);
    if (status == NAS_OK) status = nas_onnx_import(c->ctx, path, &o, &graph);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "", path);
    if (status == NAS_OK) status = nas_emit_bundle(c->ctx, graph, &c->compile, path, NULL);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "layers.csv", path);
    if (status == NAS_OK)
        status = c->channels != NULL ? nas__joint_tables(c, index, graph, folder)
                                     : write_layers(c, index, graph, path);
    nas_graph_free(graph);
    return status;
}

/* ---- the plan ------------------------------------------------------------------------------------------------------------- */

static void print_layer(const nas_graph *g, const nas__level_list *list, size_t layer) {
    const nas__level_layer *at = &list->layers[layer];
    printf("          %-40s %8" PRIu64 " weights:", nas_graph_node(g, at->conv)->name, at->weights);
    for (int32_t k = 0; k < at->n_forms * at->n_bits; k++)
        printf(" %s", list->levels[at->first + (size_t)k].text);
    if (at->reads > 0) printf("; reads value %d", (int)at->reads);
    printf("\n");
}

static void print_values(const nas_graph *g, const nas__level_list *list) {
    for (size_t i = 0; i < list->n_values; i++) {
        printf("          value %zu, %s:", i + 1, nas_graph_node(g, list->values[i])->name);
        for (int32_t k = 0; k < list->acts.n_bits; k++)
            printf(" %d", (int)list->acts.bits[k]);
        printf(" bits\n");
    }
}

static void print_list(const nas_graph *g, const nas__level_list *list, bool channels) {
    double size = 1;
    int genes = 0;
    for (size_t i = 0; i < list->n_layers; i++) {
        const nas__level_layer *at = &list->layers[i];
        size *= (double)at->n_forms * at->n_bits;
        genes += (at->n_forms > 1) + (at->n_bits > 1);
    }
    for (size_t i = 0; i < list->n_values; i++, genes++)
        size *= list->acts.n_bits;
    printf("network   %s: %.3f MMACs, %.0f parameters, %zu layers with %d genes, %.3g networks%s\n",
           nas_graph_name(g), list->original[NAS_LEVEL_MACS] * 1e-6,
           list->original[NAS_LEVEL_PARAMS], list->n_layers, genes, size,
           channels ? " of given channels" : "");
    for (size_t i = 0; i < list->n_layers; i++)
        print_layer(g, list, i);
    print_values(g, list);
    if (list->dropped.len > 0)
        printf("not tried, since the device gains nothing:\n%s", list->dropped.data);
}

nas_status nas__levels_plan(nas_ctx *ctx, const nas_config *config, const nas_graph *graph) {
    char fingerprint[NAS_SHA256_HEX];
    nas__sparse_judge judge;
    nas__level_list list = {0};
    nas_status status = nas__levels_judge(ctx, config, NULL, NULL, fingerprint, &judge);
    if (status == NAS_OK) status = nas__level_list_make(ctx, config, graph, &judge, &list);
    if (status == NAS_OK) print_list(graph, &list, nas__space_has_channels(config->compress.space));
    nas__level_list_deinit(&list);
    if (judge.db != NULL) {
        const nas_status closed = nas_db_close(ctx, judge.db);
        if (status == NAS_OK) status = closed;
    }
    return status;
}
