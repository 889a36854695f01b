/* oneshot.c - the network and its images, calibration, layers one after another, scores. */
#include "search/oneshot.h"
#include "spaces/space.h"

#include <math.h>
#include <string.h>

nas_oneshot_options nas_oneshot_options_default(void) {
    nas_oneshot_options o = {.data = nas_class_data_options_default(),
                             .side = 24,
                             .train_steps = 450,
                             .train_rate = 0.002,
                             .calibration_images = 512,
                             .positions = 64,
                             .threads = 2,
                             .seed = 1};
    o.data.kind = "glyphs";
    return o;
}

static void tell(const nas_oneshot *o, const char *phase, double done, double planned) {
    if (o->note != NULL) o->note(o->note_arg, phase, done, planned);
}

/* ---- model and data ------------------------------------------------------------------------------------------------------- */

static nas_status show_step(nas_ctx *ctx, void *arg, int32_t step, double loss) {
    const nas_oneshot *o = arg;
    (void)loss;
    if (step % 20 == 19) tell(o, "training", step + 1, o->options.train_steps);
    return nas_check_cancel(ctx);
}

static nas_status train_built_in(nas_ctx *ctx, nas_oneshot *o) {
    const nas_oneshot_options *p = &o->options;
    nas_rng rng = nas_rng_stream(p->seed, 0, "init classifier");
    nas_status status = nas_small_resnet_graph(ctx, p->side, p->side, 3,
                                               nas_class_data_classes(o->data), &o->model);
    if (status == NAS_OK) status = nas_class_init(ctx, o->model, &rng);
    nas_tune_options t = nas_tune_options_default();
    t.adam = true;
    t.steps = p->train_steps;
    t.learning_rate = p->train_rate;
    t.weight_decay = 0;
    t.threads = p->threads;
    t.seed = p->seed;
    if (status == NAS_OK) status = nas_tune(ctx, o->model, NULL, o->data, &t, show_step, o);
    return nas_wrap(ctx, status, "training the built-in network");
}

static nas_status check_output(nas_ctx *ctx, const nas_oneshot *o) {
    const nas_shape s = nas_graph_node(o->model, nas_graph_output(o->model))->shape;
    const int32_t classes = nas_class_data_classes(o->data);
    if (s.h == 1 && s.w == 1 && s.c >= classes) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_SHAPE,
                    "model '%s' answers %dx%dx%d, the data has %d classes: it must be a "
                    "classifier with as many outputs at least",
                    nas_graph_name(o->model), (int)s.h, (int)s.w, (int)s.c, (int)classes);
}

static nas_status list_layers(nas_ctx *ctx, nas_oneshot *o) {
    const nas_value n = nas_graph_node_count(o->model);
    o->layers = nas_alloc_array(ctx, (size_t)n, sizeof *o->layers);
    if (o->layers == NULL) return NAS_ERR_NOMEM;
    for (nas_value v = 0; v < n; v++) {
        const nas_node *node = nas_graph_node(o->model, v);
        if (node->op == NAS_OP_CONV && node->conv.groups == 1) o->layers[o->n_layers++] = v;
    }
    if (o->n_layers > 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                    "model '%s' has no convolution in one group and no fully connected layer: "
                    "there is nothing to compress",
                    nas_graph_name(o->model));
}

static nas_status open_parts(nas_ctx *ctx, nas_oneshot *o) {
    nas_oneshot_options *p = &o->options;
    nas_shape in = {1, p->side, p->side, 3};
    if (p->onnx != NULL) {
        const nas_onnx_import_options import = nas_onnx_import_options_default();
        const nas_status status = nas_onnx_import(ctx, p->onnx, &import, &o->model);
        if (status != NAS_OK) return status;
        in = nas_graph_node(o->model, nas_graph_input(o->model))->shape;
    }
    p->data.h = in.h;
    p->data.w = in.w;
    p->data.c = in.c;
    nas_status status = nas_class_data_open(ctx, &p->data, &o->data);
    if (status != NAS_OK) return nas_wrap(ctx, status, "data");
    if (o->model == NULL) status = train_built_in(ctx, o);
    if (status == NAS_OK) status = check_output(ctx, o);
    return status == NAS_OK ? list_layers(ctx, o) : status;
}

nas_status nas_oneshot_open(nas_ctx *ctx, const nas_oneshot_options *options, nas_oneshot_note note,
                            void *note_arg, nas_oneshot *out) {
    *out = (nas_oneshot){.options = *options, .note = note, .note_arg = note_arg};
    if (options->calibration_images < 1 || options->positions < 1 || options->threads < 1)
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "%d calibration images, %d places, %d threads: one at least of each",
                        (int)options->calibration_images, (int)options->positions,
                        (int)options->threads);
    const nas_status status = open_parts(ctx, out);
    if (status != NAS_OK) nas_oneshot_close(out);
    return status;
}

static void drop_calibration(nas_oneshot *o) {
    for (size_t i = 0; o->grams != NULL && i < o->n_layers; i++)
        nas_exec_gram_deinit(&o->grams[i]);
    nas_free(o->grams);
    nas_free(o->moments);
    nas_free(o->sample);
    o->sample = NULL;
    o->grams = NULL;
    o->moments = NULL;
}

void nas_oneshot_close(nas_oneshot *o) {
    drop_calibration(o);
    nas_free(o->layers);
    nas_graph_free(o->model);
    if (o->data != NULL) nas_class_data_close(o->data);
    *o = (nas_oneshot){0};
}

/* ---- calibration ---------------------------------------------------------------------------------------------------------- */

void nas__oneshot_read_sample(void *arg, size_t index, float *hwc) {
    const nas_oneshot *o = arg;
    nas_class_data_read(o->data, NAS_CLASS_TUNE, o->sample[index], false, 0, 0, hwc);
}

/* The first n of a shuffle. */
static nas_status draw_sample(nas_ctx *ctx, nas_oneshot *o, uint64_t seed) {
    const size_t images = nas_class_data_count(o->data, NAS_CLASS_TUNE);
    const size_t want = (size_t)o->options.calibration_images, n = images < want ? images : want;
    nas_rng rng = nas_rng_stream(seed, 0, "calibration images");
    o->sample = nas_alloc_array(ctx, images, sizeof *o->sample);
    if (o->sample == NULL) return NAS_ERR_NOMEM;
    o->n_sample = n;
    o->sample_seed = seed;
    for (size_t i = 0; i < images; i++)
        o->sample[i] = (uint32_t)i;
    for (size_t i = 0; i < n; i++) {
        const size_t k = i + nas_rng_below(&rng, (uint32_t)(images - i));
        const uint32_t t = o->sample[i];
        o->sample[i] = o->sample[k];
        o->sample[k] = t;
    }
    return NAS_OK;
}

nas_status nas_oneshot_calibrate(nas_ctx *ctx, nas_oneshot *o, uint64_t seed) {
    const nas_exec_options e = {.chunk = 8, .threads = o->options.threads};
    drop_calibration(o);
    tell(o, "calibrating", 0, 1);
    o->grams = nas_alloc_array(ctx, o->n_layers, sizeof *o->grams);
    o->moments = nas_alloc_array(ctx, o->n_layers, sizeof *o->moments);
    nas_status status =
        o->grams == NULL || o->moments == NULL ? NAS_ERR_NOMEM : draw_sample(ctx, o, seed);
    if (status == NAS_OK)
        status = nas_exec_grams(ctx, o->model, &e, o->layers, o->n_layers, o->n_sample,
                                o->options.positions, seed, nas__oneshot_read_sample, o, o->grams);
    for (size_t i = 0; status == NAS_OK && i < o->n_layers; i++)
        o->moments[i] = (nas_moments){
            .conv = o->grams[i].conv, .size = o->grams[i].size, .gram = o->grams[i].gram};
    if (status != NAS_OK) drop_calibration(o);
    if (status == NAS_OK) tell(o, "calibrating", 1, 1);
    return nas_wrap(ctx, status, "calibration");
}

/* ---- compression ---------------------------------------------------------------------------------------------------------- */

nas_status nas_oneshot_apply(nas_ctx *ctx, nas_oneshot *o, const nas_layer_scheme *schemes,
                             const nas_layer_options *options, nas_layer_result *results,
                             nas_graph **out) {
    nas_graph *graph = NULL;
    nas_status status = nas_graph_clone(ctx, o->model, &graph);
    for (size_t i = 0; i < o->n_layers && status == NAS_OK; i++) {
        tell(o, "compressing", (double)i, (double)o->n_layers);
        status = nas_layer_compress(ctx, graph, o->layers[i], &schemes[i],
                                    o->moments != NULL ? &o->moments[i] : NULL, options,
                                    results != NULL ? &results[i] : NULL);
    }
    if (status == NAS_OK) {
        tell(o, "compressing", (double)o->n_layers, (double)o->n_layers);
        *out = graph;
        return NAS_OK;
    }
    nas_graph_free(graph);
    return status;
}

/* ---- scores --------------------------------------------------------------------------------------------------------------- */

/* What is added to a score of `scores` to get the log of its class's share. */
static double log_offset(const float *scores, int32_t classes) {
    double top = -INFINITY, sum = 0;
    for (int32_t k = 0; k < classes; k++)
        top = fmax(top, (double)scores[k]);
    for (int32_t k = 0; k < classes; k++)
        sum += exp((double)scores[k] - top);
    return -log(fmax(sum, 1)) - top; /* the top alone adds 1 */
}

static double surprise(const float *scores, int32_t classes, int32_t label, bool is_softmax) {
    if (is_softmax) return -log(fmax((double)scores[label], 1e-30));
    return -log_offset(scores, classes) - (double)scores[label];
}

bool nas__oneshot_is_coded(const nas_graph *graph) {
    for (nas_value v = 0; v < nas_graph_node_count(graph); v++) {
        if (nas_graph_node(graph, v)->quant.is_set) return true;
    }
    return false;
}

/* Where values are stored as codes, integers decide. */
nas_status nas__oneshot_run(nas_ctx *ctx, const nas_graph *graph, const nas_exec_options *options,
                            size_t n, nas_class_reader *reader, float *scores) {
    nas_exec *e = NULL;
    nas_exec_options exact = *options;
    exact.bf16 = false;
    if (nas__oneshot_is_coded(graph))
        return nas_codes_run(ctx, graph, &exact, n, nas_class_reader_read, reader, scores);
    nas_status status = nas_exec_new(ctx, graph, options, &e);
    if (status == NAS_OK) status = nas_exec_run(ctx, e, n, nas_class_reader_read, reader, scores);
    nas_exec_free(e);
    return status;
}

nas_status nas_oneshot_evaluate(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                nas_class_split split, nas_oneshot_score *out) {
    const nas_exec_options options = {.chunk = 8, .threads = o->options.threads};
    const nas_node *output = nas_graph_node(graph, nas_graph_output(graph));
    const int32_t classes = output->shape.c;
    const size_t n = nas_class_data_count(o->data, split);
    nas_class_reader reader = {o->data, split};
    float *scores = nas_alloc_array(ctx, n * (size_t)classes, sizeof *scores);
    nas_status status =
        scores == NULL ? NAS_ERR_NOMEM : nas__oneshot_run(ctx, graph, &options, n, &reader, scores);
    if (status == NAS_OK) {
        double sum = 0;
        for (size_t i = 0; i < n; i++)
            sum += surprise(scores + i * (size_t)classes, classes,
                            nas_class_data_label(o->data, split, i), output->op == NAS_OP_SOFTMAX);
        out->top1 = nas_class_top1(o->data, split, scores, classes);
        out->cross_entropy = sum / (double)n;
        out->images = n;
    }
    nas_free(scores);
    return status;
}

/* The log of the share of one class; offset: log_offset of the scores. */
static double log_of(float score, double offset, bool is_softmax) {
    return is_softmax ? log(fmax((double)score, 1e-30)) : (double)score + offset;
}

/* Scores of the first n images. *scores: the caller frees. */
static nas_status take_scores(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                              nas_class_split split, size_t n, float **scores) {
    const nas_exec_options options = {.chunk = 8, .threads = o->options.threads};
    const int32_t classes = nas_graph_node(graph, nas_graph_output(graph))->shape.c;
    nas_class_reader reader = {o->data, split};
    *scores = nas_alloc_array(ctx, n * (size_t)classes, sizeof **scores);
    if (*scores == NULL) return NAS_ERR_NOMEM;
    return nas__oneshot_run(ctx, graph, &options, n, &reader, *scores);
}

nas_status nas_oneshot_reference_take(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                      nas_class_split split, size_t most,
                                      nas_oneshot_reference *out) {
    const size_t all = nas_class_data_count(o->data, split), n = all < most ? all : most;
    const nas_node *output = nas_graph_node(graph, nas_graph_output(graph));
    const int32_t classes = output->shape.c;
    float *scores = NULL;
    *out = (nas_oneshot_reference){.images = n, .classes = classes, .split = split};
    out->logs = nas_alloc_array(ctx, n * (size_t)classes, sizeof *out->logs);
    nas_status status =
        out->logs == NULL ? NAS_ERR_NOMEM : take_scores(ctx, o, graph, split, n, &scores);
    for (size_t i = 0; status == NAS_OK && i < n; i++) {
        const float *of = scores + i * (size_t)classes;
        const double offset = log_offset(of, classes);
        for (int32_t k = 0; k < classes; k++)
            out->logs[i * (size_t)classes + (size_t)k] =
                log_of(of[k], offset, output->op == NAS_OP_SOFTMAX);
    }
    nas_free(scores);
    if (status != NAS_OK) nas_oneshot_reference_deinit(out);
    return status;
}

void nas_oneshot_reference_deinit(nas_oneshot_reference *reference) {
    nas_free(reference->logs);
    *reference = (nas_oneshot_reference){0};
}

double nas__oneshot_diverge(const double *logs, const float *scores, int32_t classes,
                            bool is_softmax) {
    const double offset = log_offset(scores, classes);
    double sum = 0;
    for (int32_t k = 0; k < classes; k++)
        sum += exp(logs[k]) * (logs[k] - log_of(scores[k], offset, is_softmax));
    return sum;
}

nas_status nas_oneshot_divergence(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                                  const nas_oneshot_reference *reference, double *out) {
    const bool is_softmax = nas_graph_node(graph, nas_graph_output(graph))->op == NAS_OP_SOFTMAX;
    const size_t classes = (size_t)reference->classes;
    double sum = 0;
    float *scores = NULL;
    const nas_status status =
        take_scores(ctx, o, graph, reference->split, reference->images, &scores);
    for (size_t i = 0; status == NAS_OK && i < reference->images; i++)
        sum += nas__oneshot_diverge(reference->logs + i * classes, scores + i * classes,
                                    reference->classes, is_softmax);
    *out = sum / (double)reference->images;
    nas_free(scores);
    return status;
}

nas_status nas_oneshot_bytes(nas_ctx *ctx, const nas_oneshot *o, const nas_graph *graph,
                             const nas_layer_scheme *schemes, uint64_t *out) {
    uint64_t sum = 0;
    for (size_t i = 0; i < o->n_layers; i++) {
        uint64_t bytes = 0;
        const nas_status status = nas_layer_bytes(ctx, graph, o->layers[i], &schemes[i], &bytes);
        if (status != NAS_OK) return status;
        sum += bytes;
    }
    *out = sum;
    return NAS_OK;
}
