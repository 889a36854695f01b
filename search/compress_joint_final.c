/* compress_joint_final.c - networks of the front of a study of channels and levels: sliced, fine-tuned, compressed; and their
 * tables. */
#include "search/compress_joint.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- finalists ------------------------------------------------------------------------------------------------------------ */

static void show(void *arg, const char *phase, double done, double planned) {
    nas__comp *c = arg;
    nas__progress_update(&c->progress, planned > 0 ? done / planned : 0, "%s", phase);
}

/* Against second moments of the sliced and tuned network itself. */
static nas_status compress(nas__comp *c, const nas_point *point, nas_graph *sliced,
                           nas_graph **out) {
    nas__levels *l = c->levels;
    const bool in_turn = strcmp(c->config->compress.calibrate, "sequential") == 0;
    nas_oneshot view = {.options = l->view.options,
                        .note = show,
                        .note_arg = c,
                        .model = sliced,
                        .data = c->data,
                        .layers = l->view.layers,
                        .n_layers = l->view.n_layers};
    nas_layer_options options = nas_layer_options_default();
    nas_layer_scheme *schemes = nas_alloc_array(c->ctx, l->list.n_layers, sizeof *schemes);
    options.threads = c->config->eval.threads;
    nas_status status = schemes == NULL ? NAS_ERR_NOMEM : nas__levels_schemes(c, point, schemes);
    if (status == NAS_OK) status = nas_oneshot_calibrate(c->ctx, &view, c->config->study.seed);
    if (status == NAS_OK)
        status = in_turn ? nas_oneshot_apply_sequential(c->ctx, &view, schemes, &options,
                                                        l->results, out)
                         : nas_oneshot_apply(c->ctx, &view, schemes, &options, l->results, out);
    view.model = NULL; /* what was lent */
    view.data = NULL;
    view.layers = NULL;
    nas_oneshot_close(&view);
    nas_free(schemes);
    return status;
}

nas_status nas__joint_final(nas__comp *c, size_t index, nas_graph **out) {
    const nas_point *point = &c->trials[index].point;
    nas_graph *sliced = NULL;
    char label[48];
    int32_t *kept = nas_alloc_array(c->ctx, nas__comp_parts(c), sizeof *kept);
    if (kept == NULL) return NAS_ERR_NOMEM;
    (void)snprintf(label, sizeof label, "fine-tuning trial %zu", index);
    nas__comp_kept(c, point, kept);
    nas_status status = nas__comp_decode(c->ctx, c, kept, &sliced);
    if (status == NAS_OK) status = nas__comp_tune(c, sliced, label, index);
    nas__progress_phase(&c->progress, "final networks", 0, 1);
    if (status == NAS_OK) status = compress(c, point, sliced, out);
    nas_graph_free(sliced);
    nas_free(kept);
    return status;
}

/* ---- tables --------------------------------------------------------------------------------------------------------------- */

/* Of one layer: what was asked for, what it has, and what that did. */
typedef struct row {
    size_t layer;
    int32_t asked, level, input_bits;
    double alone, sliced, ratio; /* sliced: share of the network with these channels and floats */
} row;

static nas_status write_row(nas__comp *c, const row *r, const nas_graph *graph, nas_buf *text) {
    const nas__level *level = nas__levels_at(c, r->layer, r->level);
    const nas_layer_scheme *s = &level->scheme, nothing = nas_layer_scheme_default();
    const nas_value conv = c->levels->list.layers[r->layer].conv;
    const nas_node *node = nas_graph_node(c->model, conv);
    const nas_value v = nas_graph_find(graph, node->name);
    char pattern[NAS_SPARSITY_SHORT_MAX] = "dense";
    uint64_t bytes = 0, dense = 0, zeros = 0;
    if (v == NAS_VALUE_NONE)
        return nas_fail(c->ctx, NAS_ERR_INTERNAL, "layer '%s' is not in the kept network",
                        node->name);
    const nas_param *weight = nas_graph_param_const(graph, nas_graph_node(graph, v)->params[0]);
    const nas_param *before = nas_graph_param_const(c->model, node->params[0]);
    for (size_t i = 0; i < weight->count; i++)
        zeros += weight->data[i] == 0;
    nas_status status = nas_layer_bytes(c->ctx, graph, v, s, &bytes);
    if (status == NAS_OK) status = nas_layer_bytes(c->ctx, c->model, conv, &nothing, &dense);
    if (s->is_sparse) nas_sparsity_short(&s->sparsity, pattern);
    const nas_layer_cost cost = nas_layer_expect(weight->dims, s);
    nas_buf_printf(text, "\"%s\",%d,%d,%d,%d,", node->name, (int)before->dims[3],
                   (int)weight->dims[3], (int)before->dims[0], (int)weight->dims[0]);
    nas_buf_printf(text, "%s,%s,%.4f,%d,%d,", nas__levels_at(c, r->layer, r->asked)->text, pattern,
                   1 - (double)cost.kept / (double)weight->count, s->bits > 0 ? (int)s->bits : 32,
                   (int)r->input_bits);
    nas_buf_printf(text, "%zu,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%.2f,%.2f,", weight->count, zeros,
                   bytes, dense, 100 * r->alone, 100 * (r->sliced - r->alone));
    if (isfinite(r->ratio)) nas_buf_printf(text, "%.3f", r->ratio);
    nas_buf_puts(text, "\n");
    return status;
}

static nas_status write_layers(nas__comp *c, size_t index, const nas_graph *graph,
                               const double *alone, const double *ratio, const char *path) {
    const nas__level_list *list = &c->levels->list;
    const size_t groups = (size_t)nas_channels_group_count(c->channels);
    const nas_point *point = &c->trials[index].point;
    nas_buf text = {0};
    int32_t *level = nas_alloc_array(c->ctx, list->n_layers, sizeof *level);
    int32_t *asked = nas_alloc_array(c->ctx, list->n_layers, sizeof *asked);
    int32_t *bits = nas_alloc_array(c->ctx, list->n_values, sizeof *bits);
    nas_status status = level == NULL || asked == NULL || bits == NULL ? NAS_ERR_NOMEM : NAS_OK;
    nas_buf_puts(&text, "layer,inputs,kept_inputs,outputs,kept_outputs,asked,pattern,rate,bits,"
                        "input_bits,weights,zeros,weight_bytes,dense_bytes,reward_top1_alone,"
                        "points_lost_alone,measured_ratio\n");
    if (status == NAS_OK) {
        nas_space_levels_of(c->space, point, level);
        nas_space_levels_asked(c->space, point, asked);
        nas_space_levels_bits(c->space, point, bits);
    }
    for (size_t i = 0; i < list->n_layers && status == NAS_OK; i++) {
        const nas__level_layer *at = &list->layers[i];
        const row r = {.layer = i,
                       .asked = asked[i],
                       .level = level[i],
                       .input_bits = at->reads > 0 ? bits[at->reads - 1] : at->input_bits,
                       .alone = alone[groups + 1 + i],
                       .sliced = alone[groups],
                       .ratio = ratio[groups + 1 + i]};
        status = write_row(c, &r, graph, &text);
    }
    if (status == NAS_OK) status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    nas_free(level);
    nas_free(asked);
    nas_free(bits);
    return status;
}

nas_status nas__joint_tables(nas__comp *c, size_t index, const nas_graph *graph,
                             const char *folder) {
    const size_t parts = nas__comp_parts(c);
    char path[NAS__COMP_PATH_MAX];
    double *alone = nas_alloc_array(c->ctx, parts, sizeof *alone);
    double *ratio = nas_alloc_array(c->ctx, parts, sizeof *ratio);
    nas_status status = alone == NULL || ratio == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas__comp_alone(c, index, alone);
    if (status == NAS_OK) status = nas__comp_ratios(c, index, graph, ratio);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "groups.csv", path);
    if (status == NAS_OK)
        status = nas__comp_write_groups(c, &c->trials[index].point, alone, ratio, path);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "layers.csv", path);
    if (status == NAS_OK) status = write_layers(c, index, graph, alone, ratio, path);
    nas_free(alone);
    nas_free(ratio);
    return status;
}
