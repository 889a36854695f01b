/* config.h - a study's TOML config: one table of keys with type, unit, default, range; all errors at once.
 *
 * The table in config_keys.c is the only list of keys; configs/README.md is tested against it. Reading: toml++ behind
 * config_toml.cc flattens the document into typed key paths with line:column; the C side validates everything and
 * reports every error of the file, each as "file:line:column: key: problem (what to do)". */
#ifndef NAS_SEARCH_CONFIG_H
#define NAS_SEARCH_CONFIG_H

#include "core/core.h"
#include "search/strategies/strategy.h"
#include "spaces/space.h"

enum { NAS_CONSTRAINTS_MAX = 16, NAS_DEVICES_MAX = 8, NAS_TEXT_MAX = 512 };
enum { NAS_DEVICE_NAME_MAX = 64, NAS_METRIC_TEXT_MAX = 96 };

/* Metrics a study can optimise or bound; the name is what config, tables and database columns use. */
typedef enum nas_metric {
    NAS_METRIC_PSNR_Y,                /* "psnr_y", dB, maximise */
    NAS_METRIC_SSIM_Y,                /* "ssim_y", maximise */
    NAS_METRIC_LATENCY_P50_MS,        /* "latency_p50_ms" */
    NAS_METRIC_LATENCY_P90_MS,        /* "latency_p90_ms" */
    NAS_METRIC_MACS,                  /* "macs" */
    NAS_METRIC_PARAMS,                /* "params" */
    NAS_METRIC_PEAK_ACTIVATION_BYTES, /* "peak_activation_bytes" */
    NAS_METRIC_TOP1,                  /* "top1", percent, maximise; of classifiers */
    NAS_METRIC_WEIGHT_BYTES,          /* "weight_bytes": parameters as stored */
    NAS_METRIC_BOPS,                  /* "bops": MACs x bits of the weight x bits of the input */
    NAS_METRIC_COUNT
} nas_metric;
/* Networks of these studies are fp32 throughout. */
enum { NAS_WEIGHT_BYTES_EACH = 4, NAS_BOPS_EACH = 32 * 32 };
const char *nas_metric_name(nas_metric metric);
bool nas_metric_from_name(const char *name,
                          nas_metric *out); /* false when there is no such metric */
bool nas_metric_maximise(nas_metric metric);
bool nas_metric_is_timed(nas_metric metric); /* a latency: of one device */

/* What is optimised: "psnr_y", "latency_p50_ms", or "latency_p50_ms@s21" where there are several devices. */
typedef struct nas_objective {
    nas_metric metric;
    int32_t queue; /* as in nas_constraint */
} nas_objective;

/* "<= 33", ">= 30.5" absolute in the metric's unit, or "<= 60%" of the baseline (the full-width supernet), of a latency
 * on the same device. */
typedef struct nas_constraint {
    nas_metric metric;
    int32_t queue; /* of a latency: where it is measured, see nas_config.queues; else 0 */
    bool at_most;
    double bound;
    bool is_percent; /* bound is percent of the baseline's value */
} nas_constraint;

typedef struct nas_config_device {
    char name[NAS_DEVICE_NAME_MAX];
    char pool[NAS_DEVICE_NAME_MAX]; /* "": a queue of its own */
    char connect
        [NAS_TEXT_MAX]; /* "local", "http://127.0.0.1:7917", "adb:SERIAL", "adb:*", "simulated" */
    char key_file[NAS_TEXT_MAX];
    char cores[64];           /* "", "big", "little", "0-3", "0,1" */
    char mode[16];            /* "burst", "sustained" */
    char frequency[64];       /* "", "max", "1800,2400" */
    char target[64], cpu[64]; /* "": that of [compile], the target's own flags */
    double max_temperature_c; /* 0 = none */
    int32_t threads, sustained_s;
    int32_t queue; /* index into nas_config.queues */
} nas_config_device;

typedef struct nas_config {
    struct {
        char name[96];
        uint64_t seed;
        char dir[NAS_TEXT_MAX];
    } study; /* dir default "runs/<name>" */
    struct {
        char kind[16];
        int32_t scale, out_height, out_width;
    } task; /* kind "sr" or "classify" */
    struct {
        char onnx[NAS_TEXT_MAX];   /* the network to compress; "" = a built-in one, trained first */
        int32_t train_steps, side; /* of the built-in one */
        double train_rate;
    } model;
    struct {
        char train[NAS_TEXT_MAX * 4], select[NAS_TEXT_MAX * 4], report[NAS_TEXT_MAX * 4];
        double select_fraction;
        int32_t select_max, report_max, leaves_train, leaves_select, leaves_report, leaves_size;
        /* classify */
        char kind[16], path[NAS_TEXT_MAX], report_path[NAS_TEXT_MAX], mean[64], deviation[64];
        int32_t glyphs, reward_images, report_images, tune_images;
    } data;
    struct {
        char space[16], importance[24], measure[8], optimizer[8], teacher[16];
        int32_t channel_step, calibration_images, positions, shift;
        double min_ratio, ridge, distill, temperature, average, hints;
        bool repair, recalibrate, flip, epochs, normalise, refit;
        int32_t finalists, finalist_steps; /* finalists 0: the front as it is */
        /* spaces of levels: lists apart by commas (compress_choices.h) */
        char bits[64], patterns[NAS_TEXT_MAX], rates[128], calibrate[16];
        char gains[NAS_TEXT_MAX], gains_device[NAS_DEVICE_NAME_MAX];
        bool keep_edges, warm_start;
        char act_bits_list[64];     /* choices of each value; "" = act_bits for all */
        int32_t cache_mb, act_bits; /* act_bits 0: activations are floats */
    } compress;                     /* classify */
    nas_sr_options space;           /* lr extents and scale filled from task */
    struct {
        char dtype[8];
        int32_t threads, batch, patch, supernet_steps, finetune_steps, finetune_max, baseline_steps;
        int32_t winner_steps; /* further steps for the chosen network alone, 0 = none */
        char supernet_weights[NAS_TEXT_MAX]; /* "" = train */
        double learning_rate, finetune_learning_rate;
    } eval; /* steps are optimiser steps; finetune_max = front members fine-tuned */
    struct {
        char strategy[32];
        char encoder_from[NAS_TEXT_MAX]; /* agmc: encoder.txt of another study; "" = drawn */
        int32_t trials;                  /* candidates proposed by the strategy */
        nas_strategy_options options;
        bool skip_by_prediction; /* skip candidates that certainly miss a latency bound: */
        double skip_margin;      /* predicted lower bound > (1 + margin) * bound; >= 0, default 0 */
        bool skip_dominated;     /* and those that a measured, feasible one certainly beats */
        int32_t skip_min_rows;   /* measured rows before anything is skipped */
        double skip_confidence;  /* share of measurements that the interval is to hold */
        char skip_learn[16];     /* "study", "database" */
    } search;
    int32_t n_objectives;
    nas_objective objectives[NAS_OBJECTIVES_MAX];
    int32_t n_constraints;
    nas_constraint constraints[NAS_CONSTRAINTS_MAX];
    int32_t n_devices;
    nas_config_device devices[NAS_DEVICES_MAX];
    /* What candidates wait in line for: a device alone, or the devices of a pool. Latencies are called after it. */
    int32_t n_queues;
    char queues[NAS_DEVICES_MAX][NAS_DEVICE_NAME_MAX];
    struct {
        int32_t max_time_ms, min_time_ms, min_batches, final_max_time_ms, reference_every;
        double drift_limit;
        bool profile;   /* layers of the finished front are timed alone */
        int32_t away_s; /* patience with lost devices once nothing else is left to measure */
    } measure;
    struct {
        char compiler[NAS_TEXT_MAX], target[64], dtype[8], cache_dir[NAS_TEXT_MAX];
        int64_t timeout_s;
    } compile;
    struct {
        double time_s; /* 0 = none */
        int64_t disk_mb;
    } budget;
} nas_config;

/* nas_config_metric_text - how config, tables and messages call a metric: "latency_p50_ms@s21" when the study has more
 * than one queue, else without the '@'. */
void nas_config_metric_text(const nas_config *config, nas_metric metric, int32_t queue,
                            char out[NAS_METRIC_TEXT_MAX]);

/* An ordered list of "key=value" overrides from the command line (--set), values in TOML syntax; a bare word that is
 * not TOML is taken as a string. "device.threads" sets every device, "device[1].threads" the second one. */
typedef struct nas_config_source {
    const char *path;
    const char *const *overrides;
    size_t n_overrides;
} nas_config_source;

/* nas_config_default - every field at the default that the reference shows. */
void nas_config_default(nas_config *out);

/* nas_config_load - reads, applies overrides, fills defaults, validates. On errors: INVALID (or PARSE, IO) and every
 * problem appended to `errors`, one line each. `toml` receives the file's text, `json` the flattened effective
 * config (sorted keys, one JSON object): equal json, equal study. Any output may be NULL. */
nas_status nas_config_load(nas_ctx *ctx, const nas_config_source *source, nas_config *out,
                           nas_buf *toml, nas_buf *json, nas_buf *errors);

/* nas_config_parse - the same for a text of `len` bytes already in memory; `name` stands for the file in messages. */
nas_status nas_config_parse(nas_ctx *ctx, const char *name, const char *text, size_t len,
                            const char *const *overrides, size_t n_overrides, nas_config *out,
                            nas_buf *json, nas_buf *errors);

/* nas_config_diff - keys whose values differ between two effective JSON texts, "a.b: old -> new" one a line. Keys that
 * may change on resume (budget.*, search.trials upwards, eval.threads, measure.away_s and profile, where a real device is reached) are
 * left out; so are keys that a study begun by an older program did not have and that stand at their default. */
nas_status nas_config_diff(nas_ctx *ctx, const char *old_json, const char *new_json, nas_buf *out);

/* nas_config_reference - the Markdown table of all keys (what configs/README.md must contain). */
nas_status nas_config_reference(nas_ctx *ctx, nas_buf *out);

#endif
