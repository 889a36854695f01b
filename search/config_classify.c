/* config_classify.c - rules of task.kind = "classify": other objectives by default, keys that belong together. */
#include "search/compress_choices.h"
#include "search/config_internal.h"

#include <string.h>

#define PROBLEM(doc, path, ...)                                                                    \
    nas__config_problem_add((doc), nas__config_place_of((doc), (path)), (path), __VA_ARGS__)

static bool is_quality_of(nas_metric metric, bool classify) {
    const bool image = metric == NAS_METRIC_PSNR_Y || metric == NAS_METRIC_SSIM_Y;
    return classify ? metric == NAS_METRIC_TOP1 : image;
}

static void check_metrics(nas__config_doc *doc, const nas_config *c, bool classify) {
    for (int32_t i = 0; i < c->n_objectives + c->n_constraints; i++) {
        const bool objective = i < c->n_objectives;
        const nas_metric metric =
            objective ? c->objectives[i].metric : c->constraints[i - c->n_objectives].metric;
        if (!nas_metric_maximise(metric) || is_quality_of(metric, classify)) continue;
        PROBLEM(doc, objective ? "objectives.maximise" : "constraints",
                "%s is not known of task.kind = \"%s\": use %s", nas_metric_name(metric),
                c->task.kind, classify ? "top1" : "psnr_y or ssim_y");
    }
}

typedef nas_status (*read_list)(nas_ctx *ctx, const char *text, nas__choices *out);

static void check_list(nas__config_doc *doc, const char *path, const char *text, read_list read) {
    nas__choices choices = {0};
    nas_ctx *quiet = nas_ctx_child(doc->ctx);
    if (quiet == NULL) {
        doc->failed = true;
        return;
    }
    if (read(quiet, text, &choices) != NAS_OK) PROBLEM(doc, path, "%s", nas_ctx_message(quiet));
    nas_ctx_free(quiet);
}

/* Integers of activations need integer weights in every layer, or grids would depend on the candidate. */
static void check_act_bits(nas__config_doc *doc, const nas_config *c) {
    const bool listed = c->compress.act_bits_list[0] != '\0';
    const char *path = listed ? "compress.act_bits_list" : "compress.act_bits";
    nas__choices choices = {0};
    if (!nas__has_acts(c)) return;
    if (listed) check_list(doc, path, c->compress.act_bits_list, nas__choices_acts);
    if (listed && c->compress.act_bits > 0)
        PROBLEM(doc, path,
                "compress.act_bits = %d gives all values that many: leave one of them out",
                (int)c->compress.act_bits);
    if (c->compress.act_bits == 1) PROBLEM(doc, path, "1: activations have 2 to 8 bits, 0: floats");
    if (!nas__space_has_bits(c->compress.space)) {
        PROBLEM(doc, path,
                "compress.space = \"%s\" leaves weights as floats: use bits, mixed or joint",
                c->compress.space);
        return;
    }
    nas_ctx *quiet = nas_ctx_child(doc->ctx);
    if (quiet == NULL) {
        doc->failed = true;
        return;
    }
    if (nas__choices_bits(quiet, c->compress.bits, &choices) == NAS_OK &&
        choices.bits[choices.n_bits - 1] == 32)
        PROBLEM(doc, path, "compress.bits = \"%s\" offers 32, floats: leave it out",
                c->compress.bits);
    nas_ctx_free(quiet);
}

/* Keys of spaces of levels. */
static void check_levels(nas__config_doc *doc, const nas_config *c) {
    static const char *const steps = "eval.finetune_steps";
    check_list(doc, "compress.bits", c->compress.bits, nas__choices_bits);
    check_list(doc, "compress.patterns", c->compress.patterns, nas__choices_patterns);
    check_list(doc, "compress.rates", c->compress.rates, nas__choices_rates);
    check_act_bits(doc, c);
    if (!nas__space_has_levels(c->compress.space)) return;
    if (nas__config_has(doc, steps) && c->eval.finetune_steps > 0 &&
        !nas__space_has_channels(c->compress.space))
        PROBLEM(doc, steps,
                "%d steps: compress.space = \"%s\" does not train, since training would leave the "
                "grids and fill the zeros: leave the key out",
                (int)c->eval.finetune_steps, c->compress.space);
    if (c->compress.gains_device[0] != '\0' && c->compress.gains[0] == '\0')
        PROBLEM(doc, "compress.gains_device", "names a device of compress.gains, which is empty");
}

/* Halves have kernels for networks by rows, bf16 for those by layers, neither for integers. */
static void check_dtype(nas__config_doc *doc, const nas_config *c, bool classify) {
    const bool bf16 = strcmp(c->compile.dtype, "bf16") == 0;
    if (!classify && bf16)
        PROBLEM(doc, "compile.dtype",
                "\"bf16\" is for classifiers; super-resolution networks compute in fp32 or fp16");
    if (classify && strcmp(c->compile.dtype, "fp16") == 0)
        PROBLEM(
            doc, "compile.dtype",
            "\"fp16\" is for super-resolution networks; classifiers compute in fp32 or bf16, or "
            "in integers by compress.act_bits");
    if (classify && bf16 && nas__space_has_bits(c->compress.space))
        PROBLEM(
            doc, "compile.dtype",
            "\"bf16\": compress.space = \"%s\" makes integers of weights, which are compiled as "
            "such: take amc, agmc or scheme, or leave the key out",
            c->compress.space);
}

/* The choice is by one figure, among networks that channels alone make. */
static void check_finalists(nas__config_doc *doc, const nas_config *c) {
    static const char *const path = "compress.finalists";
    if (c->compress.finalists == 0) return;
    if (nas__space_has_levels(c->compress.space))
        PROBLEM(doc, path,
                "compress.space = \"%s\" has no finalists: use amc or agmc, or leave it out",
                c->compress.space);
    if (c->n_objectives != 1 || c->objectives[0].metric != NAS_METRIC_TOP1)
        PROBLEM(doc, path,
                "one network of %d is chosen by its answers: top1 must be the only objective",
                (int)c->compress.finalists);
    if (c->compress.finalist_steps >= c->eval.finetune_steps)
        PROBLEM(
            doc, path,
            "compress.finalist_steps = %d are part of eval.finetune_steps = %d, and must be less",
            (int)c->compress.finalist_steps, (int)c->eval.finetune_steps);
}

void nas__config_classify(nas__config_doc *doc, nas_config *c) {
    const bool classify = strcmp(c->task.kind, "classify") == 0;
    const bool named =
        nas__config_has(doc, "objectives.maximise") || nas__config_has(doc, "objectives.minimise");
    if (classify && !named) {
        c->objectives[0] = (nas_objective){.metric = NAS_METRIC_TOP1};
        c->objectives[1] = (nas_objective){.metric = NAS_METRIC_LATENCY_P50_MS};
        c->n_objectives = c->search.options.n_objectives = 2;
    }
    check_metrics(doc, c, classify);
    if (c->search.encoder_from[0] != '\0' && (!classify || strcmp(c->search.strategy, "agmc") != 0))
        PROBLEM(doc, "search.encoder_from",
                "search.strategy = \"%s\" has no encoder: only \"agmc\" of classifiers has one",
                c->search.strategy);
    check_dtype(doc, c, classify);
    if (!classify) return;
    const bool built_in = strcmp(c->data.kind, "glyphs") == 0;
    if (built_in && c->data.path[0] != '\0')
        PROBLEM(doc, "data.path", "built-in digits have no path: set data.kind, or leave it out");
    if (!built_in && c->data.path[0] == '\0')
        PROBLEM(doc, "data.kind", "\"%s\" needs data.path", c->data.kind);
    if (!built_in && c->model.onnx[0] == '\0')
        PROBLEM(doc, "data.kind", "the built-in network knows glyphs only: give model.onnx");
    check_levels(doc, c);
    check_finalists(doc, c);
}
