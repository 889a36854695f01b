/* compress_recalibrate.c - a pruned and repaired network whose layers give, on calibration images, the means and deviations
 * that they gave before (eval/exec.h). Imported networks have their normalisations folded into convolutions, so that there are
 * no stored statistics to take anew: the correction goes into weights and biases. */
#include "search/compress_internal.h"

/* Enough for a mean and a deviation, few enough for every proposal. */
enum { MATCHED_IMAGES = 128 };

static size_t matched_images(const nas__comp *c) {
    const size_t have = nas_class_data_count(c->data, NAS_CLASS_TUNE);
    const size_t want = (size_t)c->config->compress.calibration_images;
    const size_t n = have < want ? have : want;
    return n < MATCHED_IMAGES ? n : MATCHED_IMAGES;
}

nas_status nas__comp_take_outputs(nas__comp *c) {
    const nas_exec_options o = {.chunk = 8, .threads = c->config->eval.threads};
    nas_class_reader reader = {c->data, NAS_CLASS_TUNE};
    if (!c->config->compress.recalibrate) return NAS_OK;
    c->outputs = nas_alloc_array(c->ctx, nas_exec_channel_count(c->model) + 1, sizeof *c->outputs);
    if (c->outputs == NULL) return NAS_ERR_NOMEM;
    return nas_exec_statistics(c->ctx, c->model, &o, matched_images(c), nas_class_reader_read,
                               &reader, c->outputs);
}

nas_status nas__comp_recalibrate(nas_ctx *ctx, const nas__comp *c, const bool *keep,
                                 nas_graph *graph) {
    const nas_exec_options o = {.chunk = 8, .threads = c->config->eval.threads};
    nas_class_reader reader = {c->data, NAS_CLASS_TUNE};
    nas_exec_channel *want = nas_alloc_array(ctx, nas_exec_channel_count(graph) + 1, sizeof *want);
    if (want == NULL) return NAS_ERR_NOMEM;
    size_t from = 0, to = 0;
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++) {
        if (!nas_exec_is_matched(c->model, v)) continue;
        const int32_t *classes = nas_channels_of(c->channels, v);
        for (int32_t k = 0; k < nas_graph_node(c->model, v)->shape.c; k++, from++) {
            if (classes[k] == NAS_CLASS_FIXED || keep[classes[k]]) want[to++] = c->outputs[from];
        }
    }
    const nas_status status =
        nas_exec_match(ctx, graph, &o, matched_images(c), nas_class_reader_read, &reader, want);
    nas_free(want);
    return status;
}
