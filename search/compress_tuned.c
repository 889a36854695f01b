/* compress_tuned.c - the original after fine-tuning, kept in the compiler's cache for other studies of the same network: it takes
 * as long as a network of the front, and does not depend on what a study searches. */
#include "search/compress_levels.h"

#include <stdio.h>

enum { VERSION = 1 }; /* another one where training itself changes */

/* Everything that fine-tuning of the original depends on. */
static nas_status key_of(nas__comp *c, const nas_tune_options *o, char hex[NAS_SHA256_HEX]) {
    char model[NAS__COMP_PATH_MAX], model_hash[NAS_SHA256_HEX];
    nas_buf text = {0};
    nas_status status = nas__comp_path(c, "model.onnx", model);
    if (status == NAS_OK) status = nas_sha256_file_hex(c->ctx, model, model_hash);
    if (status != NAS_OK) return status;
    nas_buf_printf(&text, "%d %s %s mean %s deviation %s ", VERSION, model_hash,
                   nas_class_data_hash(c->data, NAS_CLASS_TUNE), c->config->data.mean,
                   c->config->data.deviation);
    nas_buf_printf(&text, "batch %d steps %d rate %.17g warm-up %d adam %d ", (int)o->batch,
                   (int)o->steps, o->learning_rate, (int)o->warmup, (int)o->adam);
    nas_buf_printf(&text, "momentum %.17g decay %.17g clip %.17g distill %.17g at %.17g ",
                   o->momentum, o->weight_decay, o->gradient_clip, o->distill, o->temperature);
    nas_buf_printf(&text, "flip %d shift %d epochs %d average %.17g normalise %d seed %llu",
                   (int)o->flip, (int)o->shift, (int)o->epochs, o->average, (int)o->normalise,
                   (unsigned long long)o->seed);
    status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) nas_sha256_hex(text.data, text.len, hex);
    nas_buf_deinit(&text);
    return status;
}

static nas_status path_of(nas__comp *c, const nas_tune_options *o, char path[NAS__COMP_PATH_MAX]) {
    char hex[NAS_SHA256_HEX];
    const nas_status status = key_of(c, o, hex);
    if (status != NAS_OK) return status;
    const int n =
        snprintf(path, NAS__COMP_PATH_MAX, "%s/tuned-%s.onnx", c->config->compile.cache_dir, hex);
    if (n < 0 || n >= NAS__COMP_PATH_MAX)
        return nas_fail(c->ctx, NAS_ERR_RANGE, "compile.cache_dir '%s': path longer than %d bytes",
                        c->config->compile.cache_dir, NAS__COMP_PATH_MAX - 1);
    return NAS_OK;
}

nas_status nas__comp_tuned_original(nas__comp *c, const char *label, nas_graph **out) {
    const nas_tune_options o = nas__comp_tune_options(c, 0);
    const nas_onnx_import_options as_is = nas_onnx_import_options_default();
    char path[NAS__COMP_PATH_MAX];
    nas_graph *graph = NULL;
    nas_status status = path_of(c, &o, path);
    if (status != NAS_OK) return status;
    if (o.steps > 0 && nas_file_exists(path)) {
        if (nas_onnx_import(c->ctx, path, &as_is, out) == NAS_OK) {
            nas_log(c->ctx, NAS_LOG_INFO, "the original was fine-tuned before: '%s'", path);
            return NAS_OK;
        }
        nas_log(c->ctx, NAS_LOG_WARN, "'%s' is fine-tuned again: %s", path,
                nas_ctx_message(c->ctx));
    }
    status = nas_graph_clone(c->ctx, c->model, &graph);
    if (status == NAS_OK) status = nas__comp_tune(c, graph, label, 0);
    if (status == NAS_OK && o.steps > 0) status = nas_onnx_export(c->ctx, graph, path);
    if (status == NAS_OK) {
        *out = graph;
        return NAS_OK;
    }
    nas_graph_free(graph);
    return status;
}
