/* deliver.c - best/, trial-<number>/: a network of the front as a C bundle, as ONNX, and as a recipe that says what it is and what it does. */
#include "search/deliver_members.h"
#include "search/study_internal.h"

#include <stdio.h>
#include <string.h>

/* Weights of a finalist: those of the winner's longer training, of its fine-tuning, or the supernet's slices. */
static nas_status load_weights(nas__study *s, size_t index, const nas_graph *graph,
                               nas_weights **out) {
    nas_status status = nas_weights_inherit(s->ctx, s->weights, graph, out);
    static const char *const suffixes[] = {".winner", ""};
    for (size_t i = 0; i < sizeof suffixes / sizeof *suffixes && status == NAS_OK; i++) {
        char name[64], path[NAS__PATH_MAX];
        (void)snprintf(name, sizeof name, "finetune/%zu%s.weights", index, suffixes[i]);
        status = nas__study_path(s, name, path);
        if (status != NAS_OK || !nas_file_exists(path)) continue;
        return nas_weights_load(s->ctx, *out, path);
    }
    return status;
}

/* One device: how its name, threads and target go with the figures of its queue. */
static void write_device(nas_json *j, const nas__study *s, const nas__device *d,
                         const nas__latency *l) {
    nas_json_object(j);
    nas_json_key(j, "device");
    nas_json_string(j, nas__queue_name(s, d->queue));
    nas_json_key(j, "simulated");
    nas_json_bool(j, d->handle != NULL && nas_device_is_simulated(d->handle));
    nas_json_key(j, "target");
    nas_json_string(j, s->targets[d->target].row.name);
    nas_json_key(j, "threads");
    nas_json_int(j, d->config->threads);
    nas_json_key(j, "p50_us");
    nas_json_double(j, l->p50_us);
    nas_json_key(j, "p50_lo_us");
    nas_json_double(j, l->p50_lo_us);
    nas_json_key(j, "p50_hi_us");
    nas_json_double(j, l->p50_hi_us);
    nas_json_key(j, "p90_us");
    nas_json_double(j, l->p90_us);
    nas_json_key(j, "noisy");
    nas_json_bool(j, l->noisy);
    nas_json_key(j, "checked");
    nas_json_string(j, l->checked);
    nas_json_object_end(j);
}

/* "latency": of the first queue; "latencies": of all. */
static void write_latency(nas_json *j, const nas__study *s, const nas__figures *figures) {
    for (int all = 0; all <= 1; all++) {
        nas_json_key(j, all ? "latencies" : "latency");
        if (all) nas_json_array(j);
        for (int32_t q = 0; q < s->config->n_queues; q++) {
            const nas__device *d = NULL;
            for (int32_t i = 0; i < s->n_devices && d == NULL; i++)
                d = s->devices[i].queue == q ? &s->devices[i] : NULL;
            if (d == NULL || (!all && q != s->first_queue)) continue;
            write_device(j, s, d, &figures->latency[q]);
        }
        if (all) nas_json_array_end(j);
    }
}

static nas_status write_recipe(nas__study *s, size_t index, const nas_graph *graph,
                               const char *path) {
    const nas_db_trial *row = &s->trials[index].row;
    const nas__figures figures = nas__final_figures(&s->trials[index]);
    nas_buf text = {0}, graph_json = {0};
    nas_status status = nas_graph_to_json(s->ctx, graph, &graph_json);
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "schema");
    nas_json_int(&j, 1);
    nas_json_key(&j, "study");
    nas_json_string(&j, s->config->study.name);
    nas_json_key(&j, "seed");
    nas_json_int(&j, (int64_t)s->config->study.seed);
    nas_json_key(&j, "trial");
    nas_json_int(&j, row->number);
    nas_json_key(&j, "space");
    nas_json_string(&j, nas_space_name(s->space));
    nas_json_key(&j, "point");
    nas_json_string(&j, row->point);
    nas_json_key(&j, "graph_hash");
    nas_json_string(&j, row->graph_hash);
    nas_json_key(&j, "target");
    nas_json_string(&j, nas__first_target(s)->row.name);
    write_latency(&j, s, &figures);
    nas_json_key(&j, "report_psnr_y_db");
    nas_json_double(&j, row->values.final_psnr_y_db.value);
    nas_json_key(&j, "report_ssim_y");
    nas_json_double(&j, row->values.final_ssim_y.value);
    nas_json_key(&j, "data");
    nas_json_string(&j, nas_sr_data_describe(s->data));
    nas_json_key(&j, "graph");
    nas_json_raw(&j, graph_json.data == NULL ? "null" : graph_json.data);
    nas_json_object_end(&j);
    nas_buf_puts(&text, "\n");
    if (status == NAS_OK) status = nas_buf_status(s->ctx, &text);
    if (status == NAS_OK) status = nas_file_write(s->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    nas_buf_deinit(&graph_json);
    return status;
}

/* folder/file of the study; an empty file: the folder. */
static nas_status path_in(nas__study *s, const char *folder, const char *file,
                          char out[NAS__PATH_MAX]) {
    char name[96];
    (void)snprintf(name, sizeof name, "%s%s%s", folder, *file == '\0' ? "" : "/", file);
    return nas__study_path(s, name, out);
}

static nas_status write_files(nas__study *s, size_t index, const nas_graph *graph,
                              const char *folder) {
    nas_ctx *ctx = s->ctx;
    char path[NAS__PATH_MAX];
    nas_status status = path_in(s, folder, "", path);
    if (status == NAS_OK)
        status = nas_remove_tree(ctx, path); /* derived files of an earlier report */
    if (status == NAS_OK) status = nas_mkdirs(ctx, path);
    if (status == NAS_OK)
        status = nas_emit_bundle(ctx, graph, &nas__first_target(s)->compile, path, NULL);
    if (status == NAS_OK) status = path_in(s, folder, "model.onnx", path);
    if (status == NAS_OK) status = nas_onnx_export(ctx, graph, path);
    if (status == NAS_OK) status = path_in(s, folder, "recipe.json", path);
    if (status == NAS_OK) status = write_recipe(s, index, graph, path);
    return status;
}

nas_status nas__deliver(nas__study *s, size_t index, const char *folder) {
    nas_graph *graph = NULL;
    nas_weights *weights = NULL;
    nas_status status = nas__study_decode(s, &s->trials[index].point, &graph);
    if (status == NAS_OK) status = load_weights(s, index, graph, &weights);
    if (status == NAS_OK) status = nas_weights_fill(s->ctx, weights, graph);
    if (status == NAS_OK) status = write_files(s, index, graph, folder);
    nas_weights_free(weights);
    nas_graph_free(graph);
    return nas_wrap(s->ctx, status, "writing %s/%s", s->dir, folder);
}

static bool is_member(const void *study, size_t trial) {
    const nas__trial *t = &((const nas__study *)study)->trials[trial];
    return t->from_strategy && t->row.state == NAS_TRIAL_COMPLETE &&
           t->row.values.final_psnr_y_db.is_set;
}

static nas_status write_trial(void *study, size_t trial, const char *folder) {
    return nas__deliver(study, trial, folder);
}

nas_status nas__deliver_wanted(nas__study *s) {
    const nas__members members = {s, s->dir, s->n_trials, is_member, write_trial};
    return nas__deliver_members(s->ctx, s->options->deliver, &members);
}
