/* bench_reward.c - where the time of one evaluation of a channel search goes, and how far scores by bf16 are from those by fp32:
 * proposals at 45 to 50 % of the MACs are sliced, repaired, recalibrated and scored on 1,000 REWARD images of the CIFAR-10 copy.
 * Usage: bench_reward [--data FOLDER] [--net resnet20|resnet56] [--proposals N] [--threads N] [--chunk N] */
#include "compress/compress.h"
#include "eval/eval.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_MAX_BYTES = 1024, CALIBRATION = 500, POSITIONS = 10, MATCHED = 128, STEP = 4 };

typedef struct state {
    nas_ctx *ctx;
    nas_graph *model;
    nas_class_data *data;
    nas_channels *channels;
    nas_exec_gram *grams;
    nas_moments *moments;
    size_t n_moments;
    nas_exec_channel *outputs, *want;
    double *importance;
    int32_t *kept;
    bool *keep;
    int32_t threads, chunk;
    float *scores, *exact;
} state;

static double seconds_since(int64_t start) {
    return 1e-9 * (double)(nas_now_ns() - start);
}

static nas_status open_all(state *s, const char *folder, const char *net) {
    char path[2][PATH_MAX_BYTES];
    (void)snprintf(path[0], sizeof path[0], "%s/cifar_resnet_weights/%s.onnx", folder, net);
    (void)snprintf(path[1], sizeof path[1], "%s/cifar10/train_1.bin", folder);
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    nas_class_data_options d = nas_class_data_options_default();
    d.kind = "cifar10";
    d.path = path[1];
    const float mean[3] = {0.485F, 0.456F, 0.406F}, deviation[3] = {0.229F, 0.224F, 0.225F};
    memcpy(d.mean, mean, sizeof mean);
    memcpy(d.deviation, deviation, sizeof deviation);
    d.tune_max = 20000;
    nas_status status = nas_onnx_import(s->ctx, path[0], &o, &s->model);
    if (status == NAS_OK) status = nas_class_data_open(s->ctx, &d, &s->data);
    if (status == NAS_OK) status = nas_channels_find(s->ctx, s->model, &s->channels);
    return status;
}

static nas_status take_statistics(state *s) {
    const size_t nodes = (size_t)nas_graph_node_count(s->model);
    const size_t classes = (size_t)nas_channels_class_count(s->channels);
    const size_t all = nas_exec_channel_count(s->model) + 1;
    nas_value *convs = nas_alloc_array(s->ctx, nodes, sizeof *convs);
    s->grams = nas_alloc_array(s->ctx, nodes, sizeof *s->grams);
    s->moments = nas_alloc_array(s->ctx, nodes, sizeof *s->moments);
    s->outputs = nas_alloc_array(s->ctx, all, sizeof *s->outputs);
    s->want = nas_alloc_array(s->ctx, all, sizeof *s->want);
    s->importance = nas_alloc_array(s->ctx, classes, sizeof *s->importance);
    s->keep = nas_alloc_array(s->ctx, classes, sizeof *s->keep);
    s->kept = nas_alloc_array(s->ctx, classes, sizeof *s->kept);
    if (convs == NULL || s->grams == NULL || s->moments == NULL || s->outputs == NULL ||
        s->want == NULL || s->importance == NULL || s->keep == NULL || s->kept == NULL) {
        nas_free(convs);
        return NAS_ERR_NOMEM;
    }
    for (nas_value v = 0; v < (nas_value)nodes; v++) {
        const nas_node *node = nas_graph_node(s->model, v);
        if (node->op == NAS_OP_CONV && node->conv.groups == 1) convs[s->n_moments++] = v;
    }
    nas_class_reader reader = {s->data, NAS_CLASS_TUNE};
    const nas_exec_options o = {.chunk = 8, .threads = s->threads};
    const int64_t start = nas_now_ns();
    nas_status status = nas_exec_grams(s->ctx, s->model, &o, convs, s->n_moments, CALIBRATION,
                                       POSITIONS, 1, nas_class_reader_read, &reader, s->grams);
    nas_free(convs);
    if (status == NAS_OK)
        printf("once: moments of %d images %.3f s\n", CALIBRATION, seconds_since(start));
    for (size_t i = 0; i < s->n_moments && status == NAS_OK; i++)
        s->moments[i] = (nas_moments){
            .conv = s->grams[i].conv, .size = s->grams[i].size, .gram = s->grams[i].gram};
    if (status == NAS_OK)
        status = nas_exec_statistics(s->ctx, s->model, &o, MATCHED, nas_class_reader_read, &reader,
                                     s->outputs);
    if (status == NAS_OK)
        status =
            nas_channels_importance(s->ctx, s->channels, s->model, NAS_IMPORTANCE_RECONSTRUCTION,
                                    s->moments, s->n_moments, s->importance);
    return status;
}

/* A network at 45 to 50 % of the MACs: shares of groups drawn until one fits. */
static nas_status propose(state *s, nas_rng *rng, double macs_before, double *share,
                          nas_graph **out) {
    for (;;) {
        nas_graph_cost cost = {0};
        for (int32_t g = 0; g < nas_channels_group_count(s->channels); g++) {
            const int32_t steps = nas_channels_group(s->channels, g)->channels / STEP;
            const double part = 0.4 + 0.6 * nas_rng_uniform(rng);
            s->kept[g] = STEP * (int32_t)fmax(1, round(part * steps));
        }
        nas_status status =
            nas_channels_choose(s->ctx, s->channels, s->importance, s->kept, s->keep);
        if (status == NAS_OK)
            status = nas_channels_slice(s->ctx, s->channels, s->model, s->keep, out);
        if (status == NAS_OK) status = nas_graph_cost_total(s->ctx, *out, &cost);
        *share = (double)cost.macs / macs_before;
        if (status != NAS_OK || (*share >= 0.45 && *share <= 0.5)) return status;
        nas_graph_free(*out);
        *out = NULL;
    }
}

static void choose_wanted(state *s) {
    size_t from = 0, to = 0;
    for (nas_value v = 0; v < nas_graph_node_count(s->model); v++) {
        if (!nas_exec_is_matched(s->model, v)) continue;
        const int32_t *classes = nas_channels_of(s->channels, v);
        for (int32_t k = 0; k < nas_graph_node(s->model, v)->shape.c; k++, from++) {
            if (classes[k] == NAS_CLASS_FIXED || s->keep[classes[k]])
                s->want[to++] = s->outputs[from];
        }
    }
}

static nas_status score(state *s, const nas_graph *g, bool bf16, float *scores, double *top1,
                        double *spent) {
    const nas_exec_options o = {.chunk = s->chunk, .threads = s->threads, .bf16 = bf16};
    const size_t n = nas_class_data_count(s->data, NAS_CLASS_REWARD);
    nas_class_reader reader = {s->data, NAS_CLASS_REWARD};
    const int64_t start = nas_now_ns();
    nas_exec *e = NULL;
    nas_status status = nas_exec_new(s->ctx, g, &o, &e);
    if (status == NAS_OK)
        status = nas_exec_run(s->ctx, e, n, nas_class_reader_read, &reader, scores);
    nas_exec_free(e);
    *spent = seconds_since(start);
    if (status == NAS_OK)
        *top1 = 100 * nas_class_top1(s->data, NAS_CLASS_REWARD, scores,
                                     nas_graph_node(g, nas_graph_output(g))->shape.c);
    return status;
}

/* Largest difference of two networks' scores, in parts of the largest score. */
static double difference(const float *a, const float *b, size_t n) {
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)a[i] - (double)b[i]));
        largest = fmax(largest, fabs((double)a[i]));
    }
    return worst / largest;
}

static nas_status evaluate(state *s, int64_t index, nas_rng *rng, double macs, double *worst) {
    nas_class_reader reader = {s->data, NAS_CLASS_TUNE};
    const nas_exec_options o = {.chunk = 8, .threads = s->threads};
    const size_t values = nas_class_data_count(s->data, NAS_CLASS_REWARD) *
                          (size_t)nas_graph_node(s->model, nas_graph_output(s->model))->shape.c;
    nas_graph *g = NULL;
    int32_t repaired = 0;
    double share = 0, top1[2] = {0, 0}, spent[4] = {0, 0, 0, 0};
    nas_status status = propose(s, rng, macs, &share, &g);
    int64_t start = nas_now_ns();
    if (status == NAS_OK)
        status = nas_channels_repair(s->ctx, s->channels, s->model, s->keep, s->moments,
                                     s->n_moments, 1e-4, g, &repaired);
    spent[0] = seconds_since(start);
    start = nas_now_ns();
    if (status == NAS_OK) {
        choose_wanted(s);
        status = nas_exec_match(s->ctx, g, &o, MATCHED, nas_class_reader_read, &reader, s->want);
    }
    spent[1] = seconds_since(start);
    if (status == NAS_OK) status = score(s, g, false, s->exact, &top1[0], &spent[2]);
    if (status == NAS_OK && nas_exec_has_bf16())
        status = score(s, g, true, s->scores, &top1[1], &spent[3]);
    if (status == NAS_OK)
        printf("%3d  %4.1f %%  repair %.3f  recalibration %.3f  fp32 %.3f s %.1f %%", (int)index,
               100 * share, spent[0], spent[1], spent[2], top1[0]);
    if (status == NAS_OK && nas_exec_has_bf16()) {
        printf("  bf16 %.3f s %.1f %%, scores differ by %.4f", spent[3], top1[1],
               difference(s->exact, s->scores, values));
        *worst = fmax(*worst, fabs(top1[0] - top1[1]));
    }
    if (status == NAS_OK) printf("\n");
    nas_graph_free(g);
    return status;
}

static nas_status run(state *s, const char *folder, const char *net, int64_t proposals) {
    double worst = 0;
    nas_graph_cost cost = {0};
    nas_rng rng = nas_rng_stream(1, 0, "proposals");
    nas_status status = open_all(s, folder, net);
    if (status == NAS_OK) status = take_statistics(s);
    if (status == NAS_OK) status = nas_graph_cost_total(s->ctx, s->model, &cost);
    if (status != NAS_OK) return status;
    const size_t values = nas_class_data_count(s->data, NAS_CLASS_REWARD) *
                          (size_t)nas_graph_node(s->model, nas_graph_output(s->model))->shape.c;
    s->scores = nas_alloc_array(s->ctx, values, sizeof *s->scores);
    s->exact = nas_alloc_array(s->ctx, values, sizeof *s->exact);
    if (s->scores == NULL || s->exact == NULL) return NAS_ERR_NOMEM;
    for (int64_t i = 0; i < proposals && status == NAS_OK; i++)
        status = evaluate(s, i, &rng, (double)cost.macs, &worst);
    if (status == NAS_OK && nas_exec_has_bf16())
        printf("top1 by bf16 differs by %.1f points at most\n", worst);
    return status;
}

static void close_all(state *s) {
    for (size_t i = 0; i < s->n_moments && s->grams != NULL; i++)
        nas_exec_gram_deinit(&s->grams[i]);
    nas_free(s->grams);
    nas_free(s->moments);
    nas_free(s->outputs);
    nas_free(s->want);
    nas_free(s->importance);
    nas_free(s->keep);
    nas_free(s->kept);
    nas_free(s->scores);
    nas_free(s->exact);
    nas_channels_free(s->channels);
    if (s->data != NULL) nas_class_data_close(s->data);
    nas_graph_free(s->model);
    nas_ctx_free(s->ctx);
}

int main(int argc, char **argv) {
    const char *folder = "../shared/data", *net = "resnet56";
    int64_t proposals = 10;
    state s = {.ctx = nas_ctx_new(), .threads = 1, .chunk = 8};
    if (s.ctx == NULL) return NAS_EXIT_FAILED;
    for (int i = 1; i + 1 < argc; i += 2) {
        const char *value = argv[i + 1];
        if (strcmp(argv[i], "--data") == 0) folder = value;
        if (strcmp(argv[i], "--net") == 0) net = value;
        if (strcmp(argv[i], "--proposals") == 0) proposals = strtol(value, NULL, 10);
        if (strcmp(argv[i], "--threads") == 0) s.threads = (int32_t)strtol(value, NULL, 10);
        if (strcmp(argv[i], "--chunk") == 0) s.chunk = (int32_t)strtol(value, NULL, 10);
    }
    const nas_status status = run(&s, folder, net, proposals);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(s.ctx));
    close_all(&s);
    return nas_exit_code(status);
}
