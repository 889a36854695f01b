/* config_keys.c - the one table of all config keys, their defaults, and what is derived from the table: look-up,
 * nearest names, legal ranges, the reference in Markdown (configs/README.md is tested against it). */
#include "search/config_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Largest integer that doubles and JSON readers keep exactly: 2^53 - 1. */
#define SEED_MAX 9007199254740991.0

#define FIELD(member)                                                                              \
    .offset = offsetof(nas_config, member), .size = sizeof(((nas_config *)0)->member)
#define DEVICE_FIELD(member)                                                                       \
    .offset = offsetof(nas_config_device, member), .size = sizeof(((nas_config_device *)0)->member)
#define TEXT(key, member, unit_, choices_, doc_)                                                   \
    {                                                                                              \
        .path = key, .type = NAS__KEY_TEXT, FIELD(member), .unit = unit_, .choices = choices_,     \
        .doc = doc_                                                                                \
    }
#define INTEGER(key, member, lo_, hi_, unit_, doc_)                                                \
    {                                                                                              \
        .path = key, .type = NAS__KEY_INTEGER, FIELD(member), .lo = lo_, .hi = hi_, .unit = unit_, \
        .doc = doc_                                                                                \
    }
#define NUMBER(key, member, open, lo_, hi_, unit_, doc_)                                           \
    {                                                                                              \
        .path = key, .type = NAS__KEY_NUMBER, FIELD(member), .lo = lo_, .hi = hi_,                 \
        .lo_open = open, .unit = unit_, .doc = doc_                                                \
    }
#define RANGE(key, member, lo_, hi_, doc_)                                                         \
    {                                                                                              \
        .path = key, .type = NAS__KEY_RANGE, FIELD(member), .lo = lo_, .hi = hi_,                  \
        .unit = "channels", .doc = doc_                                                            \
    }
#define KERNELS(key, count, member, doc_)                                                          \
    {                                                                                              \
        .path = key, .type = NAS__KEY_KERNELS, FIELD(member),                                      \
        .count_offset = offsetof(nas_config, count), .lo = 1, .hi = 9, .unit = "pixels",           \
        .doc = doc_                                                                                \
    }
#define DEVICE_TEXT(key, member, shown, doc_)                                                      \
    {                                                                                              \
        .path = key, .type = NAS__KEY_TEXT, DEVICE_FIELD(member), .unit = "",                      \
        .shown_default = shown, .doc = doc_                                                        \
    }
#define BOUND(metric, unit_, doc_)                                                                 \
    {                                                                                              \
        .path = "constraints." metric, .type = NAS__KEY_BOUND, .unit = unit_,                      \
        .shown_default = "none", .doc = doc_                                                       \
    }

static const nas__config_section sections[] = {
    {"study", "who this run is"},
    {"task", "what the network has to do"},
    {"model", "classify: the network that is compressed"},
    {"data", "images to learn from and to score with"},
    {"space", "what may vary between candidates"},
    {"compress", "classify: what may be taken from the network, and how it is mended"},
    {"eval", "training: one supernet for all candidates, then fine-tuning of the best"},
    {"search", "how candidates are proposed"},
    {"objectives", "what is optimised: one to four metrics, all lists together"},
    {"constraints", "bounds: \"<= 33\" or \">= 30.5\" in the metric's unit, or \"<= 60%\" of the "
                    "full-width supernet's value; "
                    "a list of texts gives several bounds"},
    {"device",
     "where candidates are timed: one [[device]] table each; none means one local device. With "
     "several, a latency is that of one: `latency_p50_ms@name`"},
    {"measure", "the measuring protocol"},
    {"compile", "from generated C to an executable"},
    {"budget", "limits of the whole run"},
};

static const nas__config_key keys[] = {
    TEXT("study.name", study.name, "", NULL,
         "names the run and its folder: letters, digits, '.', '_' and '-'"),
    INTEGER("study.seed", study.seed, 0, SEED_MAX, "",
            "every random stream of the study derives from it: same seed, same proposals"),
    {.path = "study.dir",
     .type = NAS__KEY_TEXT,
     FIELD(study.dir),
     .unit = "",
     .shown_default = "`runs/<study.name>`",
     .doc = "folder of the database, the tables and the best network"},

    TEXT("task.kind", task.kind, "", "sr|classify",
         "sr: search a super-resolution network; classify: compress a trained classifier"),
    INTEGER("task.scale", task.scale, 2, 4, "", "upscaling factor"),
    INTEGER("task.out_height", task.out_height, 32, 4320, "pixels",
            "rows of the upscaled frame; a multiple of the scale"),
    INTEGER("task.out_width", task.out_width, 32, 7680, "pixels",
            "columns of the upscaled frame; a multiple of the scale"),

    TEXT("model.onnx", model.onnx, "", NULL,
         "the trained network; empty: a small residual one is trained on built-in digits first"),
    INTEGER("model.side", model.side, 16, 64, "pixels", "built-in network: side of its images"),
    INTEGER("model.train_steps", model.train_steps, 1, 1000000, "steps",
            "built-in network: optimiser steps of 64 images"),
    NUMBER("model.train_rate", model.train_rate, true, 0, 1, "",
           "built-in network: learning rate (Adam)"),

    TEXT("data.kind", data.kind, "", "glyphs|cifar10|idx|folder|raw",
         "classify: built-in digits; CIFAR binary batches; IDX `images:labels` (gzip or not); a "
         "folder of PNG or JPEG files a class; raw float tensors `images:labels`"),
    TEXT("data.path", data.path, "", NULL, "classify: the file, folder or `images:labels` pairs"),
    TEXT("data.report_path", data.report_path, "", NULL,
         "classify: images of the final table alone; empty: some of data.path are set aside"),
    TEXT("data.mean", data.mean, "", NULL,
         "classify: subtracted from pixels in 0..1, one number or one a channel: \"0.485 0.456 "
         "0.406\""),
    TEXT("data.deviation", data.deviation, "", NULL, "classify: then divided by this"),
    INTEGER("data.glyphs", data.glyphs, 100, 1000000, "images",
            "classify: built-in digits to render"),
    INTEGER("data.reward_images", data.reward_images, 1, 1000000, "images",
            "classify: at most this many score a trial"),
    INTEGER("data.report_images", data.report_images, 1, 1000000, "images",
            "classify: at most this many in the final table"),
    INTEGER("data.tune_images", data.tune_images, 1, 10000000, "images",
            "classify: at most this many teach"),
    TEXT("data.train", data.train, "", NULL,
         "folders of PNG or JPEG images joined by ':'; empty: built-in dead-leaves images"),
    TEXT("data.select", data.select, "", NULL,
         "folders whose images score trials; empty: some training images are set aside"),
    TEXT("data.report", data.report, "", NULL,
         "folders whose images are looked at once, for the final table; empty: some are set aside"),
    NUMBER("data.select_fraction", data.select_fraction, true, 0, 0.5, "",
           "share of the training images set aside for scoring when data.select is empty"),
    INTEGER("data.select_max", data.select_max, 1, 10000, "images",
            "at most this many score a trial"),
    INTEGER("data.report_max", data.report_max, 1, 10000, "images",
            "at most this many in the final table"),
    INTEGER("data.leaves_train", data.leaves_train, 1, 10000, "images",
            "built-in images to train on"),
    INTEGER("data.leaves_select", data.leaves_select, 1, 10000, "images",
            "built-in images that score trials"),
    INTEGER("data.leaves_report", data.leaves_report, 1, 10000, "images",
            "built-in images of the final table"),
    INTEGER("data.leaves_size", data.leaves_size, 32, 4096, "pixels", "side of a built-in image"),

    INTEGER("space.blocks_min", space.blocks_min, 1, NAS_SR_BLOCKS_MAX, "blocks",
            "fewest blocks kept"),
    INTEGER("space.blocks_max", space.blocks_max, 1, NAS_SR_BLOCKS_MAX, "blocks",
            "blocks of the supernet"),
    RANGE("space.residual", space.residual, 1, 256,
          "width between blocks, one for the whole network"),
    RANGE("space.expand", space.expand, 1, 1024,
          "width inside a block after its first 1x1, per block"),
    RANGE("space.project", space.project, 1, 256, "width before a block's 3x3, per block"),
    KERNELS("space.head_kernels", space.n_head_kernels, space.head_kernels, "first convolution"),
    KERNELS("space.tail_kernels", space.n_tail_kernels, space.tail_kernels, "last convolution"),
    KERNELS("space.skip_kernels", space.n_skip_kernels, space.skip_kernels,
            "convolution straight from input to output"),

    TEXT("compress.space", compress.space, "", "amc|agmc|bits|scheme|mixed|joint",
         "amc, agmc: channels of each group of layers that hang together; bits: of each layer's "
         "weights; scheme: which weights of each layer are left out; mixed: both; joint: channels, "
         "bits and patterns"),
    TEXT("compress.bits", compress.bits, "bits", NULL,
         "bits, mixed, joint: precisions that a layer may have, 2 to 8, or 32: floats"),
    INTEGER("compress.act_bits", compress.act_bits, 0, 8, "bits",
            "bits, mixed, joint: activations as integers, 2 to 8 bits: candidates are scored and "
            "timed as integer programs; 0: floats"),
    TEXT(
        "compress.act_bits_list", compress.act_bits_list, "bits", NULL,
        "bits, mixed, joint: the same with a choice, such as 4,8, for each value that layers read; "
        "in place of compress.act_bits"),
    TEXT("compress.patterns", compress.patterns, "", NULL,
         "scheme, mixed, joint: patterns that a layer may have besides being dense: 2:4, 2:4x8, "
         "1x4, 1x4r, "
         "block4x4, punched8x4, filter, channel, pattern, periodic, unstructured; none: dense "
         "alone"),
    TEXT("compress.rates", compress.rates, "", NULL,
         "scheme, mixed, joint: shares of a pattern's groups that are left out (2:4 and periodic "
         "have "
         "their own)"),
    {.path = "compress.keep_edges",
     .type = NAS__KEY_FLAG,
     FIELD(compress.keep_edges),
     .unit = "",
     .doc = "bits, scheme, mixed, joint: first and last layers stay dense, and have 8 bits where "
            "bits are chosen"},
    TEXT("compress.gains", compress.gains, "", NULL,
         "scheme, mixed, joint: what `nas-compile --break-even --db FILE` measured: (layer, "
         "pattern, rate) "
         "that are no faster than dense are not tried; empty: what is in the study's own database"),
    TEXT("compress.gains_device", compress.gains_device, "", NULL,
         "the device of compress.gains, where the file has several"),
    {.path = "compress.warm_start",
     .type = NAS__KEY_FLAG,
     FIELD(compress.warm_start),
     .unit = "",
     .doc = "bits, scheme, mixed: the first proposals are the same level everywhere, what rules "
            "make of the measured gains, and what losses of layers alone make of a budget; joint: "
            "several shares of the channels, each with the most of the rest that the limits allow"},
    TEXT("compress.calibrate", compress.calibrate, "", "sequential|dense",
         "bits, scheme, mixed, joint: layers of the final front are compressed in turn, against "
         "what the "
         "compressed ones before them give, or taken as they were scored"),
    INTEGER("compress.cache_mb", compress.cache_mb, 1, 1000000, "MB",
            "bits, scheme, mixed, joint: compressed layers in memory; more of them go to files, or "
            "(joint) are compressed again when they are asked for"),
    INTEGER("compress.channel_step", compress.channel_step, 1, 64, "channels",
            "kept channels are multiples of this, or all; a device computes whole vectors of "
            "them (16 floats with AVX-512, 8 with AVX2, 4 on Arm)"),
    NUMBER("compress.min_ratio", compress.min_ratio, true, 0, 1, "",
           "least share of a group's channels that stays"),
    TEXT("compress.importance", compress.importance, "", "l1|l2|norm_scale|reconstruction|taylor",
         "which channels stay: weights' norms, scales of normalisations, what the readers lose, or "
         "gradient x value over the calibration images"),
    {.path = "compress.repair",
     .type = NAS__KEY_FLAG,
     FIELD(compress.repair),
     .unit = "",
     .doc = "least-squares repair of the layers that lost inputs"},
    NUMBER("compress.ridge", compress.ridge, false, 0, 1, "",
           "repair: added to the diagonal, as a share of its mean"),
    {.path = "compress.refit",
     .type = NAS__KEY_FLAG,
     FIELD(compress.refit),
     .unit = "",
     .doc =
         "amc and agmc: before fine-tuning, every convolution is fitted to the original's outputs "
         "from what the pruned layers before it give"},
    INTEGER("compress.finalists", compress.finalists, 0, 1000, "networks",
            "amc and agmc, with top1 as the only objective: so many of the best proposals are "
            "fine-tuned for compress.finalist_steps each, and the one with the least cross-entropy "
            "of REWARD images goes on alone; 0: the front as it is"),
    INTEGER("compress.finalist_steps", compress.finalist_steps, 1, 10000000, "steps",
            "optimiser steps of each finalist; those of the chosen one are part of its "
            "eval.finetune_steps"),
    {.path = "compress.recalibrate",
     .type = NAS__KEY_FLAG,
     FIELD(compress.recalibrate),
     .unit = "",
     .doc =
         "after slicing and repair: mean and deviation of every layer's channels brought back to "
         "those of the original"},
    INTEGER("compress.calibration_images", compress.calibration_images, 1, 100000, "images",
            "statistics of layers are taken from so many"),
    INTEGER("compress.positions", compress.positions, 1, 10000, "pixels",
            "output positions of each layer and image that are sampled"),
    TEXT("compress.measure", compress.measure, "", "front|all",
         "where a latency decides, front: time candidates that no other one beats in both top1 and "
         "MACs, and under a bound on the latency those near or below it; all: every one"),
    TEXT("compress.optimizer", compress.optimizer, "", "adam|sgd",
         "fine-tuning: Adam (imported networks have no normalisations left, and layers of very "
         "different scales), or SGD with momentum"),
    TEXT("compress.teacher", compress.teacher, "", "tuned|original",
         "fine-tuning: whose answers compressed networks learn from, the original's after its own "
         "fine-tuning or as it came; the original learns from itself as it came"),
    NUMBER("compress.distill", compress.distill, false, 0, 1, "",
           "fine-tuning: share of the teacher's answers in the loss"),
    NUMBER("compress.temperature", compress.temperature, true, 0, 100, "",
           "fine-tuning: softens both answers"),
    {.path = "compress.flip",
     .type = NAS__KEY_FLAG,
     FIELD(compress.flip),
     .unit = "",
     .doc = "fine-tuning: mirrors images at random"},
    INTEGER("compress.shift", compress.shift, 0, 64, "pixels",
            "fine-tuning: moves images by up to so many"),
    {.path = "compress.epochs",
     .type = NAS__KEY_FLAG,
     FIELD(compress.epochs),
     .unit = "",
     .doc = "fine-tuning: every image once before any comes again; else each is drawn from all of "
            "them"},
    {.path = "compress.normalise",
     .type = NAS__KEY_FLAG,
     FIELD(compress.normalise),
     .unit = "",
     .doc = "fine-tuning: with normalisations put behind the convolutions that have a bias, "
            "statistics taken from 32 images at a time, and folded into them again in the end"},
    NUMBER("compress.hints", compress.hints, false, 0, 1000, "",
           "fine-tuning of networks with fewer channels: weight of how far the values behind their "
           "additions (without any: convolutions) are from the teacher's; 0: not looked at"),
    NUMBER("compress.average", compress.average, false, 0, 0.99999, "",
           "fine-tuning: a running mean of the weights keeps this share at each step, and the "
           "network ends with the mean; 0: with the weights of the last step"),

    INTEGER("eval.threads", eval.threads, 1, 64, "threads",
            "training and scoring; results do not depend on it"),
    TEXT("eval.dtype", eval.dtype, "", "fp32|bf16|auto",
         "compression: how a search's candidates are scored on REWARD images. bf16: values and "
         "weights of ungrouped convolutions rounded to bf16 (AMX-BF16; elsewhere an error), which "
         "moves scores a little; auto: where the processor has it, and elsewhere fp32, so that "
         "machines differ. Resuming keeps what the study began with; all else is fp32"),
    INTEGER("eval.batch", eval.batch, 1, 1024, "patches", "patches of one optimiser step"),
    INTEGER("eval.patch", eval.patch, 8, 512, "pixels", "side of a low-resolution training patch"),
    INTEGER("eval.supernet_steps", eval.supernet_steps, 0, 10000000, "steps",
            "optimiser steps of the weight-sharing supernet, before the search"),
    INTEGER("eval.finetune_steps", eval.finetune_steps, 0, 10000000, "steps",
            "optimiser steps of each fine-tuned network of the front"),
    INTEGER("eval.winner_steps", eval.winner_steps, 0, 10000000, "steps",
            "further steps for the network that satisfies the constraints best"),
    INTEGER("eval.finetune_max", eval.finetune_max, 0, 1000, "networks",
            "at most this many networks of the front are fine-tuned and re-measured"),
    INTEGER("eval.baseline_steps", eval.baseline_steps, 0, 10000000, "steps",
            "optimiser steps of the FSRCNN-shaped baseline; 0 leaves that baseline out"),
    TEXT("eval.supernet_weights", eval.supernet_weights, "", NULL,
         "supernet.weights of an earlier study with the same space: it is not trained again"),
    NUMBER("eval.learning_rate", eval.learning_rate, true, 0, 1, "", "Adam, supernet and baseline"),
    NUMBER("eval.finetune_learning_rate", eval.finetune_learning_rate, true, 0, 1, "",
           "fine-tuning"),

    TEXT("search.strategy", search.strategy, "", "random|evolution|nsga2|greedy|ddpg|agmc",
         "random sampling, regularized evolution, NSGA-II, hill climbing, or a learnt policy (AMC, "
         "AGMC)"),
    INTEGER("search.trials", search.trials, 1, 1000000, "trials",
            "candidates the strategy proposes"),
    TEXT("search.encoder_from", search.encoder_from, "", NULL,
         "agmc: encoder.txt of a study of another network, to begin with what its encoder learnt"),
    INTEGER("search.population", search.options.population, 4, 4096, "candidates",
            "NSGA-II: one generation; evolution: the living candidates; ddpg, agmc: "
            "samples before the policy decides"),
    INTEGER("search.tournament", search.options.tournament, 2, 4096, "candidates",
            "drawn to pick one parent; at most the population"),
    NUMBER("search.mutation_rate", search.options.mutation_rate, true, 0, 1, "",
           "probability that a gene changes"),
    NUMBER("search.crossover_rate", search.options.crossover_rate, false, 0, 1, "",
           "probability that a child has two parents; NSGA-II only"),
    {.path = "search.skip_by_prediction",
     .type = NAS__KEY_FLAG,
     FIELD(search.skip_by_prediction),
     .unit = "",
     .doc = "do not compile and time candidates that certainly miss a latency bound; false: "
            "every candidate is timed, and predictions are only written down"},
    NUMBER("search.skip_margin", search.skip_margin, false, 0, 100, "",
           "certainly: the predicted interval's lower end is above (1 + margin) x the bound"),
    {.path = "search.skip_dominated",
     .type = NAS__KEY_FLAG,
     FIELD(search.skip_dominated),
     .unit = "",
     .doc = "with skip_by_prediction: nor those that a measured, feasible one certainly beats in "
            "every objective, were they as fast as the interval's lower end"},
    INTEGER("search.skip_min_rows", search.skip_min_rows, 8, 1000000, "rows",
            "measured networks before a prediction decides anything"),
    NUMBER("search.skip_confidence", search.skip_confidence, false, 0.5, 0.999, "",
           "share of measurements that the predicted interval is to hold"),
    TEXT("search.skip_learn", search.skip_learn, "", "study|database",
         "rows the predictor learns from: this study's, or also those of earlier studies in the "
         "same database, on the same kind of device, target, threads and frame"),

    {.path = "objectives.maximise",
     .type = NAS__KEY_METRICS,
     .unit = "",
     .lo = 1,
     .doc = "metrics where more is better: psnr_y, ssim_y; classify: top1"},
    {.path = "objectives.minimise",
     .type = NAS__KEY_METRICS,
     .unit = "",
     .doc = "metrics where less is better: latency_p50_ms, latency_p90_ms, macs, params, "
            "peak_activation_bytes, weight_bytes, bops; with several devices latency_p50_ms@name"},

    BOUND("psnr_y", "dB", "quality on luma; lower bounds, not in percent"),
    BOUND("ssim_y", "", "structural similarity on luma; lower bounds, not in percent"),
    BOUND("top1", "%", "classify: share of REWARD images that are right; lower bounds"),
    BOUND("latency_p50_ms", "ms",
          "median of the measured latency; with several devices `\"latency_p50_ms@name\"`"),
    BOUND("latency_p90_ms", "ms",
          "90th percentile of the measured latency; with several devices "
          "`\"latency_p90_ms@name\"`"),
    BOUND("macs", "MACs", "multiply-accumulates of one frame; patterns: of weights that stay"),
    BOUND("params", "parameters", "weights and biases"),
    BOUND("weight_bytes", "bytes",
          "storage of the parameters: 4 bytes each, or what bits and patterns leave of it, with "
          "scales and "
          "indices"),
    BOUND("bops", "",
          "bit operations: MACs x bits of the weight x bits of the input, 1024 a MAC of floats"),
    BOUND("peak_activation_bytes", "bytes", "most activation memory alive at once, without fusion"),

    DEVICE_TEXT("device.name", name, "`local`, `simulated` or `device<number>`",
                "how tables, messages and metrics (`latency_p50_ms@name`) call it; unique"),
    DEVICE_TEXT("device.connect", connect, NULL,
                "`local`; `http://host:port` of a running agent; `adb:SERIAL` of a phone or "
                "`adb:*` for any one phone; `simulated`, an analytic model that times nothing, or "
                "`simulated:2.5`, the same 2.5 times as slow"),
    DEVICE_TEXT("device.pool", pool, "none",
                "identical devices of one pool share its queue: each network is timed on one of "
                "them, and metrics carry the pool's name"),
    DEVICE_TEXT("device.key_file", key_file, NULL, "http: file with the agent's key"),
    {.path = "device.threads",
     .type = NAS__KEY_INTEGER,
     DEVICE_FIELD(threads),
     .lo = 1,
     .hi = 64,
     .unit = "threads",
     .doc = "of the measured program"},
    DEVICE_TEXT("device.cores", cores, NULL,
                "pins thread i to the i-th core of the list, as `0,1` or `0-3`, or of the `big` or "
                "`little` cluster; empty: no pinning"),
    {.path = "device.mode",
     .type = NAS__KEY_TEXT,
     DEVICE_FIELD(mode),
     .unit = "",
     .choices = "burst|sustained",
     .doc = "burst: cool, short runs; sustained: back to back for sustained_s, the last third "
            "counts"},
    {.path = "device.sustained_s",
     .type = NAS__KEY_INTEGER,
     DEVICE_FIELD(sustained_s),
     .lo = 10,
     .hi = 3600,
     .unit = "s",
     .doc = "length of a sustained measurement"},
    {.path = "device.frequency",
     .type = NAS__KEY_FREQUENCY,
     DEVICE_FIELD(frequency),
     .lo = 1,
     .hi = 20000,
     .unit = "",
     .doc = "clock to pin where the device permits it, read back and recorded; empty: as found"},
    {.path = "device.max_temperature_c",
     .type = NAS__KEY_NUMBER,
     DEVICE_FIELD(max_temperature_c),
     .lo = 0,
     .hi = 150,
     .unit = "C",
     .doc = "no run starts on a hotter device; 0: no limit of its own"},
    DEVICE_TEXT("device.target", target, "that of [compile]",
                "row of the target table, `native` for this machine's CPU, or `auto`: what the "
                "device says it has"),
    DEVICE_TEXT("device.cpu", cpu, "none",
                "a processor by name, such as `cortex-a76`, for its "
                "flags and caches"),

    INTEGER("measure.min_batches", measure.min_batches, 5, 1000, "batches",
            "samples of one measurement"),
    INTEGER("measure.min_time_ms", measure.min_time_ms, 1, 60000, "ms", "shortest measurement"),
    INTEGER("measure.max_time_ms", measure.max_time_ms, 10, 100000, "ms",
            "longest measurement of a trial"),
    INTEGER("measure.final_max_time_ms", measure.final_max_time_ms, 10, 100000, "ms",
            "longest measurement of a network of the final front"),
    INTEGER("measure.reference_every", measure.reference_every, 1, 10000, "trials",
            "the reference network is timed again after so many trials, to see drift"),
    NUMBER("measure.drift_limit", measure.drift_limit, true, 0, 1, "",
           "relative move of the reference that asks for measuring again"),
    {.path = "measure.profile",
     .type = NAS__KEY_FLAG,
     FIELD(measure.profile),
     .unit = "",
     .doc = "time each convolution of the finished front alone on each device, too: `nas-query DB "
            "profile N`"},
    INTEGER("measure.away_s", measure.away_s, 0, 86400, "s",
            "how long to wait for a lost device once nothing else is left to measure; then the run "
            "ends with code 4 and can be resumed"),

    TEXT("compile.compiler", compile.compiler, "", NULL,
         "gcc or clang, name or path; empty: the target's own"),
    TEXT(
        "compile.target", compile.target, "", NULL,
        "row of the target table; `native` is this CPU; `auto`: each device's own, by the features "
        "it reports"),
    TEXT("compile.dtype", compile.dtype, "", "fp32|fp16|bf16",
         "what programs of the devices compute in and keep weights in; fp16 (super-resolution) and "
         "bf16 (classifiers, products of convolutions) need processors that have it, see "
         "docs/half_precision.md"),
    TEXT("compile.cache_dir", compile.cache_dir, "", NULL,
         "executables by content, shared by all studies"),
    INTEGER("compile.timeout_s", compile.timeout_s, 1, 3600, "s", "of one compiler run"),

    NUMBER("budget.time_s", budget.time_s, false, 0, 31536000, "s",
           "for the whole study; training, search and fine-tuning each end at their share; 0: no "
           "limit"),
    INTEGER("budget.disk_mb", budget.disk_mb, 1, 1000000000, "MB",
            "free space the run must find at its start"),
};

#define COUNT(table) (sizeof(table) / sizeof((table)[0]))

static const struct {
    const char *name;
    bool maximise;
} metrics[] = {
    [NAS_METRIC_PSNR_Y] = {"psnr_y", true},
    [NAS_METRIC_SSIM_Y] = {"ssim_y", true},
    [NAS_METRIC_LATENCY_P50_MS] = {"latency_p50_ms", false},
    [NAS_METRIC_LATENCY_P90_MS] = {"latency_p90_ms", false},
    [NAS_METRIC_MACS] = {"macs", false},
    [NAS_METRIC_PARAMS] = {"params", false},
    [NAS_METRIC_PEAK_ACTIVATION_BYTES] = {"peak_activation_bytes", false},
    [NAS_METRIC_TOP1] = {"top1", true},
    [NAS_METRIC_WEIGHT_BYTES] = {"weight_bytes", false},
    [NAS_METRIC_BOPS] = {"bops", false},
};
_Static_assert(COUNT(metrics) == NAS_METRIC_COUNT, "one row a metric");

const char *nas_metric_name(nas_metric metric) {
    return metrics[metric].name;
}

bool nas_metric_maximise(nas_metric metric) {
    return metrics[metric].maximise;
}

bool nas_metric_is_timed(nas_metric metric) {
    return metric == NAS_METRIC_LATENCY_P50_MS || metric == NAS_METRIC_LATENCY_P90_MS;
}

void nas_config_metric_text(const nas_config *config, nas_metric metric, int32_t queue,
                            char out[NAS_METRIC_TEXT_MAX]) {
    const bool placed = nas_metric_is_timed(metric) && config->n_queues > 1;
    (void)snprintf(out, NAS_METRIC_TEXT_MAX, "%s%s%.63s", nas_metric_name(metric),
                   placed ? "@" : "", placed ? config->queues[queue] : "");
}

bool nas_metric_from_name(const char *name, nas_metric *out) {
    for (size_t i = 0; i < COUNT(metrics); i++) {
        if (strcmp(metrics[i].name, name) != 0) continue;
        *out = (nas_metric)i;
        return true;
    }
    return false;
}

/* ---- defaults -------------------------------------------------------------------------------------------------- */

nas_config_device nas__config_device_default(void) {
    return (nas_config_device){
        .name = "local", .connect = "local", .mode = "burst", .sustained_s = 300, .threads = 2};
}

void nas_config_default(nas_config *out) {
    *out = (nas_config){
        .study = {.name = "study", .seed = 1},
        .task = {.kind = "sr", .scale = 2, .out_height = 720, .out_width = 1280},
        .model = {.train_steps = 450, .side = 24, .train_rate = 0.002},
        .compress = {.space = "amc",
                     .importance = "reconstruction",
                     .measure = "front",
                     .optimizer = "sgd",
                     .teacher = "original",
                     .channel_step = 4,
                     .calibration_images = 500,
                     .positions = 10,
                     .shift = 2,
                     .min_ratio = 0.2,
                     .ridge = 1e-4,
                     .bits = "2,3,4,6,8",
                     .patterns = "1x4,2:4,unstructured",
                     .rates = "0.5,0.75",
                     .calibrate = "sequential",
                     .keep_edges = true,
                     .warm_start = true,
                     .finalist_steps = 100,
                     .cache_mb = 512,
                     .distill = 0.5,
                     .temperature = 3,
                     .repair = true,
                     .recalibrate = true},
        .data = {.kind = "glyphs",
                 .mean = "0.5",
                 .deviation = "0.25",
                 .glyphs = 8000,
                 .reward_images = 1000,
                 .report_images = 1000,
                 .tune_images = 10000000,
                 .select_fraction = 0.1,
                 .select_max = 8,
                 .report_max = 100,
                 .leaves_train = 96,
                 .leaves_select = 8,
                 .leaves_report = 8,
                 .leaves_size = 256},
        .space = nas_sr_options_default(),
        .eval = {.dtype = "fp32",
                 .threads = 2,
                 .batch = 16,
                 .patch = 48,
                 .supernet_steps = 3000,
                 .finetune_steps = 600,
                 .winner_steps = 0,
                 .finetune_max = 12,
                 .baseline_steps = 600,
                 .learning_rate = 0.001,
                 .finetune_learning_rate = 0.0005},
        .search = {.strategy = "nsga2",
                   .trials = 48,
                   .options = nas_strategy_options_default(),
                   .skip_by_prediction = true,
                   .skip_margin = 0,
                   .skip_dominated = true,
                   .skip_min_rows = 12,
                   .skip_confidence = 0.95,
                   .skip_learn = "study"},
        .n_objectives = 2,
        .objectives = {{NAS_METRIC_PSNR_Y, 0}, {NAS_METRIC_LATENCY_P50_MS, 0}},
        .n_devices = 1,
        .devices = {nas__config_device_default()},
        .n_queues = 1,
        .queues = {"local"},
        .measure = {.max_time_ms = 10000,
                    .min_time_ms = 500,
                    .min_batches = 30,
                    .final_max_time_ms = 60000,
                    .reference_every = 8,
                    .drift_limit = 0.03,
                    .away_s = 120},
        .compile = {.target = "native",
                    .dtype = "fp32",
                    .cache_dir = "runs/cache",
                    .timeout_s = 60},
        .budget = {.time_s = 0, .disk_mb = 512},
    };
    out->search.options.n_objectives = out->n_objectives;
    out->space.scale = out->task.scale;
    out->space.lr_height = out->task.out_height / out->task.scale;
    out->space.lr_width = out->task.out_width / out->task.scale;
}

/* ---- look-up --------------------------------------------------------------------------------------------------- */

const nas__config_section *nas__config_sections(size_t *n) {
    *n = COUNT(sections);
    return sections;
}

const nas__config_key *nas__config_keys(size_t *n) {
    *n = COUNT(keys);
    return keys;
}

const nas__config_key *nas__config_key_find(const char *path) {
    for (size_t i = 0; i < COUNT(keys); i++) {
        if (strcmp(keys[i].path, path) == 0) return &keys[i];
    }
    return NULL;
}

bool nas__config_is_section(const char *name, size_t len) {
    for (size_t i = 0; i < COUNT(sections); i++) {
        if (strlen(sections[i].name) == len && memcmp(sections[i].name, name, len) == 0)
            return true;
    }
    return false;
}

bool nas__config_is_device_key(const nas__config_key *key) {
    return strncmp(key->path, "device.", 7) == 0;
}
