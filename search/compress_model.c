/* compress_model.c - the network that is compressed: imported or trained here; its groups of channels, what its layers see,
 * and the space of smaller networks. */
#include "search/compress_levels.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- data ------------------------------------------------------------------------------------------------------------- */

/* "0.5" for all channels, or one number a channel. */
static nas_status read_list(nas_ctx *ctx, const char *key, const char *text, int32_t channels,
                            float *out) {
    int32_t n = 0;
    for (const char *at = text; *(at += strspn(at, " ,")) != '\0'; n++) {
        char *end = NULL;
        const double value = strtod(at, &end);
        if (end == at || !isfinite(value) || n == NAS_CLASS_CHANNELS_MAX)
            return nas_fail(ctx, NAS_ERR_INVALID, "%s = \"%s\": one number, or one a channel", key,
                            text);
        out[n] = (float)value;
        at = end;
    }
    if (n != 1 && n != channels)
        return nas_fail(ctx, NAS_ERR_INVALID, "%s = \"%s\": %d numbers for %d channels", key, text,
                        (int)n, (int)channels);
    for (; n < channels; n++)
        out[n] = out[0];
    return NAS_OK;
}

nas_status nas__comp_data(nas__comp *c, int32_t h, int32_t w, int32_t channels) {
    const nas_config *cfg = c->config;
    nas_class_data_options o = nas_class_data_options_default();
    o.kind = cfg->data.kind;
    o.path = cfg->data.path;
    o.report_path = cfg->data.report_path;
    o.h = h;
    o.w = w;
    o.c = channels;
    o.reward_max = cfg->data.reward_images;
    o.report_max = cfg->data.report_images;
    o.tune_max = cfg->data.tune_images;
    o.glyphs = cfg->data.glyphs;
    o.seed = cfg->study.seed;
    nas_status status = read_list(c->ctx, "data.mean", cfg->data.mean, channels, o.mean);
    if (status == NAS_OK)
        status = read_list(c->ctx, "data.deviation", cfg->data.deviation, channels, o.deviation);
    if (status == NAS_OK) status = nas_class_data_open(c->ctx, &o, &c->data);
    if (status != NAS_OK) return nas_wrap(c->ctx, status, "data");
    nas_log(c->ctx, NAS_LOG_INFO, "data: %s", nas_class_data_describe(c->data));
    static const char *const names[] = {"tune", "reward", "report"};
    nas_buf hashes = {0};
    for (int i = 0; i < NAS_CLASS_SPLIT_COUNT; i++)
        nas_buf_printf(&hashes, "%s%s %.16s", i == 0 ? "" : "  ", names[i],
                       nas_class_data_hash(c->data, (nas_class_split)i));
    status = nas_buf_status(c->ctx, &hashes);
    if (status == NAS_OK) {
        nas_log(c->ctx, NAS_LOG_INFO, "splits: %s", hashes.data);
        status = nas_db_event(c->ctx, c->db, c->id, "data", hashes.data);
    }
    nas_buf_deinit(&hashes);
    return status;
}

/* ---- the network -------------------------------------------------------------------------------------------------------- */

static nas_status show_step(nas_ctx *ctx, void *arg, int32_t step, double loss) {
    nas__comp *c = arg;
    (void)ctx;
    if (step % 10 == 9) nas__progress_update(&c->progress, step + 1, "loss %.3f", loss);
    return NAS_OK;
}

static nas_status train_built_in(nas__comp *c) {
    const nas_config *cfg = c->config;
    nas_rng rng = nas_rng_stream(cfg->study.seed, 0, "init classifier");
    nas_status status = nas_small_resnet_graph(c->ctx, cfg->model.side, cfg->model.side, 3,
                                               nas_class_data_classes(c->data), &c->model);
    if (status == NAS_OK) status = nas_class_init(c->ctx, c->model, &rng);
    nas_tune_options o = nas_tune_options_default();
    o.adam = true;
    o.steps = cfg->model.train_steps;
    o.learning_rate = cfg->model.train_rate;
    o.weight_decay = 0;
    o.threads = cfg->eval.threads;
    o.seed = cfg->study.seed;
    nas__progress_phase(&c->progress, "training", 0, o.steps);
    if (status == NAS_OK) status = nas_tune(c->ctx, c->model, NULL, c->data, &o, show_step, c);
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return nas_wrap(c->ctx, status, "training the built-in network");
}

static nas_status import(nas__comp *c, const char *path) {
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    return nas_onnx_import(c->ctx, path, &o, &c->model);
}

static nas_status check_output(nas__comp *c) {
    const nas_shape s = nas_graph_node(c->model, nas_graph_output(c->model))->shape;
    if (s.h == 1 && s.w == 1 && s.c >= nas_class_data_classes(c->data)) return NAS_OK;
    return nas_fail(
        c->ctx, NAS_ERR_SHAPE,
        "model '%s' answers %dx%dx%d, the data has %d classes: it must be a classifier with "
        "as many outputs at least",
        nas_graph_name(c->model), (int)s.h, (int)s.w, (int)s.c,
        (int)nas_class_data_classes(c->data));
}

nas_status nas__comp_model(nas__comp *c) {
    const nas_config *cfg = c->config;
    const bool built_in = cfg->model.onnx[0] == '\0';
    char copy[NAS__COMP_PATH_MAX];
    nas_status status = nas__comp_path(c, "model.onnx", copy);
    if (status != NAS_OK) return status;
    const bool kept =
        nas_file_exists(copy); /* the study stands alone, whatever becomes of the file */
    if (kept || !built_in) status = import(c, kept ? copy : cfg->model.onnx);
    if (status != NAS_OK) return nas_wrap(c->ctx, status, "model.onnx");
    nas_shape in = {1, cfg->model.side, cfg->model.side, 3};
    if (c->model != NULL) in = nas_graph_node(c->model, nas_graph_input(c->model))->shape;
    status = nas__comp_data(c, in.h, in.w, in.c);
    if (status == NAS_OK && c->model == NULL) status = train_built_in(c);
    if (status == NAS_OK) status = check_output(c);
    if (status == NAS_OK && !kept) status = nas_onnx_export(c->ctx, c->model, copy);
    return status;
}

/* ---- scores and tuning -------------------------------------------------------------------------------------------------- */

nas_status nas__comp_top1(nas__comp *c, const nas_graph *graph, nas_class_split split,
                          double *top1) {
    const nas_exec_options o = {.chunk = 8,
                                .threads = c->config->eval.threads,
                                .bf16 = c->bf16 && split == NAS_CLASS_REWARD};
    const nas_shape s = nas_graph_node(graph, nas_graph_output(graph))->shape;
    const size_t n = nas_class_data_count(c->data, split);
    nas_class_reader reader = {c->data, split};
    float *scores = nas_alloc_array(c->ctx, n * (size_t)s.c, sizeof *scores);
    nas_status status =
        scores == NULL ? NAS_ERR_NOMEM : nas__oneshot_run(c->ctx, graph, &o, n, &reader, scores);
    if (status == NAS_OK) *top1 = nas_class_top1(c->data, split, scores, s.c);
    nas_free(scores);
    return status;
}

/* The original as tuned/0.onnx has it, once: it is the first that is tuned. */
static nas_status load_tuned(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX];
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    if (c->tuned != NULL) return NAS_OK;
    const nas_status status = nas__comp_path(c, "tuned/0.onnx", path);
    return status == NAS_OK ? nas_onnx_import(c->ctx, path, &o, &c->tuned) : status;
}

nas_tune_options nas__comp_tune_options(const nas__comp *c, uint64_t stream) {
    const nas_config *cfg = c->config;
    nas_tune_options o = nas_tune_options_default();
    o.batch = cfg->eval.batch;
    o.steps = cfg->eval.finetune_steps;
    if (stream > 0 && cfg->compress.finalists > 0) o.steps -= cfg->compress.finalist_steps;
    o.adam = strcmp(cfg->compress.optimizer, "adam") == 0;
    if (o.adam) o.weight_decay = 0; /* Adam has none here */
    o.learning_rate = cfg->eval.finetune_learning_rate;
    o.distill = cfg->compress.distill;
    o.temperature = cfg->compress.temperature;
    o.flip = cfg->compress.flip;
    o.shift = cfg->compress.shift;
    o.epochs = cfg->compress.epochs;
    o.average = cfg->compress.average;
    o.normalise = cfg->compress.normalise;
    o.hint_weight = cfg->compress.hints;
    o.threads = cfg->eval.threads;
    o.seed = cfg->study.seed + 1 + stream;
    return o;
}

/* index: the trial; 0, the original, has itself as teacher and needs no hints. */
static nas_status tune(nas__comp *c, nas_graph *graph, const char *label, size_t index,
                       const nas_tune_options *options) {
    const bool by_tuned = index > 0 && strcmp(c->config->compress.teacher, "tuned") == 0;
    nas_tune_options o = *options;
    nas__comp_hints hints = {0};
    if (o.steps == 0) return NAS_OK;
    nas__progress_phase(&c->progress, label, 0, o.steps);
    nas_status status = by_tuned ? load_tuned(c) : NAS_OK;
    const nas_graph *teacher = by_tuned ? c->tuned : c->model;
    if (status == NAS_OK && index > 0 && o.hint_weight > 0)
        status = nas__comp_hints_take(c, &c->trials[index].point, graph, teacher, &hints);
    o.hints = hints.list;
    o.n_hints = hints.n;
    if (status == NAS_OK) status = nas_tune(c->ctx, graph, teacher, c->data, &o, show_step, c);
    nas__comp_hints_deinit(&hints);
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return nas_wrap(c->ctx, status, "%s", label);
}

nas_status nas__comp_tune(nas__comp *c, nas_graph *graph, const char *label, uint64_t stream) {
    const nas_tune_options o = nas__comp_tune_options(c, stream);
    return tune(c, graph, label, (size_t)stream, &o);
}

nas_status nas__comp_tune_finalist(nas__comp *c, nas_graph *graph, const char *label,
                                   size_t index) {
    nas_tune_options o = nas__comp_tune_options(c, NAS__COMP_FINALIST_STREAM);
    o.steps = c->config->compress.finalist_steps;
    return tune(c, graph, label, index, &o);
}

/* ---- the space ---------------------------------------------------------------------------------------------------------- */

static nas_status take_statistics(nas__comp *c) {
    const nas_config *cfg = c->config;
    const int32_t nodes = nas_graph_node_count(c->model);
    nas_value *convs = nas_alloc_array(c->ctx, (size_t)nodes, sizeof *convs);
    c->grams = nas_alloc_array(c->ctx, (size_t)nodes, sizeof *c->grams);
    c->moments = nas_alloc_array(c->ctx, (size_t)nodes, sizeof *c->moments);
    nas_status status =
        convs == NULL || c->grams == NULL || c->moments == NULL ? NAS_ERR_NOMEM : NAS_OK;
    for (nas_value v = 0; status == NAS_OK && v < nodes; v++) {
        const nas_node *node = nas_graph_node(c->model, v);
        if (node->op == NAS_OP_CONV && node->conv.groups == 1) convs[c->n_moments++] = v;
    }
    const size_t images = nas_class_data_count(c->data, NAS_CLASS_TUNE);
    const size_t want = (size_t)cfg->compress.calibration_images;
    nas_class_reader reader = {c->data, NAS_CLASS_TUNE};
    const nas_exec_options o = {.chunk = 8, .threads = cfg->eval.threads};
    if (status == NAS_OK)
        status = nas_exec_grams(c->ctx, c->model, &o, convs, c->n_moments,
                                images < want ? images : want, cfg->compress.positions,
                                cfg->study.seed, nas_class_reader_read, &reader, c->grams);
    for (size_t i = 0; i < c->n_moments && status == NAS_OK; i++)
        c->moments[i] = (nas_moments){
            .conv = c->grams[i].conv, .size = c->grams[i].size, .gram = c->grams[i].gram};
    nas_free(convs);
    return status;
}

static nas_status score_by_gradients(nas__comp *c) {
    const size_t images = nas_class_data_count(c->data, NAS_CLASS_TUNE),
                 want = (size_t)c->config->compress.calibration_images;
    size_t channels = 0;
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++)
        channels += (size_t)nas_graph_node(c->model, v)->shape.c;
    double *saliency = nas_alloc_array(c->ctx, channels, sizeof *saliency);
    nas_status status = saliency == NULL ? NAS_ERR_NOMEM
                                         : nas_tune_saliency(c->ctx, c->model, c->data,
                                                             images < want ? images : want,
                                                             c->config->eval.threads, saliency);
    if (status == NAS_OK)
        status = nas_channels_importance_taylor(c->ctx, c->channels, c->model, saliency, c->scores);
    nas_free(saliency);
    return nas_wrap(c->ctx, status, "importance taylor");
}

static nas_importance importance_of(const nas_config *cfg) {
    for (int i = 0; i < NAS_IMPORTANCE_COUNT; i++) {
        if (strcmp(nas_importance_name((nas_importance)i), cfg->compress.importance) == 0)
            return (nas_importance)i;
    }
    return NAS_IMPORTANCE_RECONSTRUCTION; /* the key's choices are these names */
}

static nas_status score_channels(nas__comp *c) {
    const nas_importance kind = importance_of(c->config);
    return kind == NAS_IMPORTANCE_TAYLOR
               ? score_by_gradients(c)
               : nas_channels_importance(c->ctx, c->channels, c->model, kind, c->moments,
                                         c->n_moments, c->scores);
}

static nas_status cut(nas_ctx *ctx, const nas__comp *c, const int32_t *kept, bool *keep,
                      nas_graph **out) {
    const nas_status status = nas_channels_choose(ctx, c->channels, c->scores, kept, keep);
    return status == NAS_OK ? nas_channels_slice(ctx, c->channels, c->model, keep, out) : status;
}

nas_status nas__comp_slice(nas_ctx *ctx, const nas__comp *c, const int32_t *kept, bool *keep,
                           nas_graph **out) {
    nas_graph *graph = NULL;
    int32_t repaired = 0;
    nas_status status = cut(ctx, c, kept, keep, &graph);
    if (status == NAS_OK && c->config->compress.repair)
        status = nas_channels_repair(ctx, c->channels, c->model, keep, c->moments, c->n_moments,
                                     c->config->compress.ridge, graph, &repaired);
    if (status != NAS_OK) {
        nas_graph_free(graph);
        return status;
    }
    *out = graph;
    return NAS_OK;
}

nas_status nas__comp_decode(nas_ctx *ctx, void *arg, const int32_t *kept, nas_graph **out) {
    const nas__comp *c = arg;
    bool *keep = nas_alloc_array(ctx, (size_t)nas_channels_class_count(c->channels), sizeof *keep);
    if (keep == NULL) return NAS_ERR_NOMEM;
    nas_graph *graph = NULL;
    nas_status status = c->shapes_only ? cut(ctx, c, kept, keep, &graph)
                                       : nas__comp_slice(ctx, c, kept, keep, &graph);
    if (c->shapes_only) {
        nas_free(keep);
        *out = graph;
        return status;
    }
    if (status == NAS_OK && c->refits) status = nas__comp_refit(ctx, c, keep, graph);
    if (status == NAS_OK && c->outputs != NULL) status = nas__comp_recalibrate(ctx, c, keep, graph);
    nas_free(keep);
    if (status != NAS_OK) {
        nas_graph_free(graph);
        return status;
    }
    *out = graph;
    return NAS_OK;
}

/* Channels of a value: of no group, or so many of each. */
static int32_t count_channels(const nas__comp *c, nas_value v, int32_t *of_group) {
    const int32_t groups = nas_channels_group_count(c->channels);
    const int32_t *classes = nas_channels_of(c->channels, v);
    int32_t fixed = 0;
    for (int32_t g = 0; g < groups; g++)
        of_group[g] = 0;
    for (int32_t k = 0; k < nas_graph_node(c->model, v)->shape.c; k++) {
        if (classes[k] == NAS_CLASS_FIXED) {
            fixed++;
        } else {
            of_group[nas_channels_group_of(c->channels, classes[k])]++;
        }
    }
    return fixed;
}

int32_t nas__comp_terms(const nas__comp *c, nas_value v, int32_t layer, bool is_input,
                        int32_t *of_group, nas_amc_term *terms, int32_t *n) {
    const int32_t fixed = count_channels(c, v, of_group);
    for (int32_t g = 0; g < nas_channels_group_count(c->channels); g++) {
        if (of_group[g] == 0) continue;
        const int32_t channels = nas_channels_group(c->channels, g)->channels;
        terms[(*n)++] = (nas_amc_term){
            .layer = layer, .group = g, .times = of_group[g] / channels, .is_input = is_input};
    }
    return fixed;
}

/* Every convolution as a layer of the space; other products are constant. */
static void describe_layers(const nas__comp *c, nas_amc_layer *layers, int32_t *n_layers,
                            nas_amc_term *terms, int32_t *n_terms, int32_t *of_group) {
    for (nas_value v = 0; v < nas_graph_node_count(c->model); v++) {
        const nas_node *node = nas_graph_node(c->model, v);
        const double macs = (double)nas_graph_node_cost(c->model, v).macs;
        if (macs <= 0) continue;
        const int32_t l = (*n_layers)++;
        nas_amc_layer *layer = &layers[l];
        *layer =
            (nas_amc_layer){.unit = macs, .in_fixed = 1, .out_fixed = 1, .extent = node->shape.h};
        if (node->op != NAS_OP_CONV) continue;
        const int32_t in = nas_graph_node(c->model, node->inputs[0])->shape.c;
        layer->kernel = node->conv.kernel_h;
        layer->stride = node->conv.stride_h;
        layer->out_fixed = nas__comp_terms(c, v, l, false, of_group, terms, n_terms);
        layer->unit = macs / node->shape.c;
        if (node->conv.groups > 1) continue; /* inputs of a filter do not change */
        layer->unit /= in;
        layer->in_fixed = nas__comp_terms(c, node->inputs[0], l, true, of_group, terms, n_terms);
    }
}

/* Bits do not vary here, so that bit operations are MACs in another unit. */
static bool limits_macs(const nas_constraint *k) {
    return k->at_most && (k->metric == NAS_METRIC_MACS || k->metric == NAS_METRIC_BOPS);
}

static double macs_budget(const nas__comp *c) {
    nas_graph_cost cost = {0};
    double least = 0;
    if (nas_graph_cost_total(c->ctx, c->model, &cost) != NAS_OK) return 0; /* verified at import */
    for (int32_t i = 0; i < c->config->n_constraints; i++) {
        const nas_constraint *k = &c->config->constraints[i];
        if (!limits_macs(k)) continue;
        const double each = k->metric == NAS_METRIC_BOPS ? NAS_BOPS_EACH : 1;
        const double bound = k->is_percent ? (double)cost.macs * k->bound / 100 : k->bound / each;
        if (least == 0 || bound < least) least = bound;
    }
    return least;
}

/* Nothing but accuracy is wanted, and nothing but MACs is limited. */
static bool spends_macs(const nas__comp *c) {
    const nas_config *cfg = c->config;
    bool all = cfg->n_objectives == 1 && cfg->objectives[0].metric == NAS_METRIC_TOP1;
    for (int32_t i = 0; i < cfg->n_constraints; i++)
        all = all && limits_macs(&cfg->constraints[i]);
    return all;
}

static nas_status open_space(nas__comp *c) {
    const size_t groups = (size_t)nas_channels_group_count(c->channels);
    const size_t nodes = (size_t)nas_graph_node_count(c->model);
    nas_amc_group *list = nas_alloc_array(c->ctx, groups, sizeof *list);
    nas_amc_layer *layers = nas_alloc_array(c->ctx, nodes, sizeof *layers);
    nas_amc_term *terms = nas_alloc_array(c->ctx, 2 * nodes * (groups + 1), sizeof *terms);
    int32_t *of_group = nas_alloc_array(c->ctx, groups, sizeof *of_group);
    nas_status status = list == NULL || layers == NULL || terms == NULL || of_group == NULL
                            ? NAS_ERR_NOMEM
                            : NAS_OK;
    if (status == NAS_OK) {
        nas_amc_options o = {.groups = list,
                             .n_groups = (int32_t)groups,
                             .layers = layers,
                             .terms = terms,
                             .step = c->config->compress.channel_step,
                             .min_ratio = c->config->compress.min_ratio,
                             .macs_max = macs_budget(c),
                             .spend = spends_macs(c),
                             .decode = nas__comp_decode,
                             .decode_arg = c};
        for (size_t i = 0; i < groups; i++)
            list[i].channels = nas_channels_group(c->channels, (int32_t)i)->channels;
        describe_layers(c, layers, &o.n_layers, terms, &o.n_terms, of_group);
        status = nas_space_amc_new(c->ctx, &o, &c->space);
    }
    nas_free(list);
    nas_free(layers);
    nas_free(terms);
    nas_free(of_group);
    return status;
}

nas_status nas__comp_channels(nas__comp *c) {
    nas_status status = nas_channels_find(c->ctx, c->model, &c->channels);
    if (status == NAS_OK && nas_channels_group_count(c->channels) == 0)
        status =
            nas_fail(c->ctx, NAS_ERR_UNSUPPORTED, "model '%s' has no channels that can be pruned",
                     nas_graph_name(c->model));
    if (status == NAS_OK && c->moments == NULL) status = take_statistics(c);
    if (status == NAS_OK) status = nas__comp_take_outputs(c);
    if (status == NAS_OK) {
        c->scores = nas_alloc_array(c->ctx, (size_t)nas_channels_class_count(c->channels),
                                    sizeof *c->scores);
        if (c->scores == NULL) status = NAS_ERR_NOMEM;
    }
    return status == NAS_OK ? score_channels(c) : status;
}

static nas_status open_parts(nas__comp *c) {
    if (nas__space_has_levels(c->config->compress.space)) return nas__levels_open(c);
    const nas_status status = nas__comp_channels(c);
    return status == NAS_OK ? open_space(c) : status;
}

nas_status nas__comp_space(nas__comp *c) {
    nas__progress_phase(&c->progress, "statistics", 0, 1);
    nas_status status = open_parts(c);
    if (status == NAS_OK)
        status = nas_strategy_new(c->ctx, c->config->search.strategy, c->space,
                                  &c->config->search.options, c->config->study.seed, &c->strategy);
    if (status == NAS_OK) status = nas__comp_take_encoder(c);
    if (status == NAS_OK) status = nas_front_new(c->ctx, c->config->n_objectives, &c->front);
    if (status == NAS_OK) nas__progress_end(&c->progress);
    return nas_wrap(c->ctx, status, "what can be compressed");
}
