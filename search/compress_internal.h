/* compress_internal.h - the state of a study that compresses a classifier, shared by the files search/compress_*.c.
 *
 * Phases: model (imported, or built in and trained), statistics of its layers, baseline (scored, timed), search (ask, prune
 * and repair, score on REWARD images, compile, check, time, tell), final (front members fine-tuned with the original as
 * teacher, compiled, timed beside the original, scored on REPORT images), report. What is finished is in study.db or in a
 * file of the run's folder: model.onnx, finalists/<trial>.onnx, tuned/<trial>.onnx, front.csv, best/, trial-<number>/ (of --deliver). */
#ifndef NAS_SEARCH_COMPRESS_INTERNAL_H
#define NAS_SEARCH_COMPRESS_INTERNAL_H

#include "search/search.h"
#include "compiler/compiler.h"
#include "compress/compress.h"
#include "db/db.h"
#include "eval/eval.h"
#include "latency/latency.h"
#include "search/progress.h"
#include "spaces/amc.h"

enum { NAS__COMP_PATH_MAX = 1024 };
/* What finalists draw their images by: the number of no trial. */
#define NAS__COMP_FINALIST_STREAM ((uint64_t)1 << 40)

typedef struct nas__comp_trial {
    nas_db_trial row; /* owned */
    nas_db_class_values top1;
    nas_point point;
    bool from_strategy; /* proposed by the strategy, not the baseline */
} nas__comp_trial;

typedef struct nas__comp {
    nas_ctx *ctx;
    const nas_study_options *options;
    const nas_config *config;
    char dir[NAS__COMP_PATH_MAX];
    int64_t started_ns;
    char worker[64];
    nas__progress progress;

    nas_db *db;
    int64_t id;
    nas_graph *model; /* with weights */
    nas_graph *tuned; /* the same, fine-tuned: teacher of the others; NULL until one is tuned */
    nas_class_data *data;
    nas_channels *channels;
    nas_exec_gram *grams;
    nas_moments *moments; /* of the same convolutions */
    size_t n_moments;
    nas_exec_channel *outputs; /* what its layers give; NULL: no recalibration */
    double *scores;            /* [class] importance */
    struct nas__levels
        *levels; /* of spaces of levels, which need none of the five above where channels
                                 * stay as they are; else NULL */
    nas_space *space;
    nas_strategy *strategy;
    nas_front *front; /* over strategy trials, by the objectives */
    nas_device *device;
    int64_t device_id;
    const nas_target *target;
    nas_compile_options compile;

    nas__comp_trial *trials; /* by number; 0 is the original */
    bool refits;             /* networks are decoded for their last figures, with compress.refit */
    bool shapes_only;        /* nas__comp_decode leaves out what changes weights alone */
    bool bf16;               /* REWARD images are scored by bf16: eval.dtype, as the study began */
    size_t n_trials, cap_trials;
    double baseline[NAS_METRIC_COUNT]; /* of the original; NAN = unknown */
    double worst_difference;           /* emitted code against the executor, relative */
    double
        original_tuned_top1; /* REPORT share of the original fine-tuned like the others; NAN = not yet */
} nas__comp;

/* ---- compress_model.c ---- */
/* nas__comp_model - the network to compress, from the config or from an earlier start of the study. */
nas_status nas__comp_model(nas__comp *c);
nas_status nas__comp_data(nas__comp *c, int32_t h, int32_t w, int32_t channels);
/* nas__comp_space - groups, statistics, importance and the space over them. */
nas_status nas__comp_space(nas__comp *c);
/* nas__comp_channels - groups, statistics (unless c->moments are there) and importance. */
nas_status nas__comp_channels(nas__comp *c);
/* nas__comp_slice - kept[group] channels of the original, repaired; keep[class] says which. */
nas_status nas__comp_slice(nas_ctx *ctx, const nas__comp *c, const int32_t *kept, bool *keep,
                           nas_graph **out);
/* nas__comp_terms - channels of value `v` that are of groups become terms of `layer`; returns how many are of none. of_group:
 * room for a number a group. */
int32_t nas__comp_terms(const nas__comp *c, nas_value v, int32_t layer, bool is_input,
                        int32_t *of_group, nas_amc_term *terms, int32_t *n);
/* nas__comp_refit - the convolutions of the original without classes that keep[] leaves out, fitted one after another. */
nas_status nas__comp_refit(nas_ctx *ctx, const nas__comp *c, const bool *keep, nas_graph *sliced);
/* nas__comp_top1 - share of a split's images that `graph` gets right. */
nas_status nas__comp_top1(nas__comp *c, const nas_graph *graph, nas_class_split split,
                          double *top1);
/* nas__comp_tune_options - how trial `stream` is fine-tuned. */
nas_tune_options nas__comp_tune_options(const nas__comp *c, uint64_t stream);
/* nas__comp_tune - fine-tunes in place. stream: number of the trial; 0, the original, learns from itself as it came, and
 * others from compress.teacher. */
nas_status nas__comp_tune(nas__comp *c, nas_graph *graph, const char *label, uint64_t stream);
/* nas__comp_tune_finalist - the same of trial `index` for compress.finalist_steps, of every finalist with the same images. */
nas_status nas__comp_tune_finalist(nas__comp *c, nas_graph *graph, const char *label, size_t index);

/* ---- compress_hints.c ---- */
typedef struct nas__comp_hints {
    nas_tune_hint *list; /* owned, as are the numbers that they point to */
    int32_t *of;
    size_t n, n_of;
} nas__comp_hints;

/* nas__comp_hints_take - values of `graph`, which has the channels of `point`, beside those of the teacher, which has all of them:
 * what additions give, or convolutions where there is none, of more than one pixel. */
nas_status nas__comp_hints_take(nas__comp *c, const nas_point *point, const nas_graph *graph,
                                const nas_graph *teacher, nas__comp_hints *out);
void nas__comp_hints_deinit(nas__comp_hints *hints);

/* ---- compress_finalists.c ---- */
/* A trial where the most accurate come first, of equal ones the older; nas__comp_by_top1 - for qsort. */
typedef struct nas__comp_place {
    size_t index;
    double top1;
} nas__comp_place;
int nas__comp_by_top1(const void *a, const void *b);

/* nas__comp_finalist - the best of compress.finalists proposals (by their rewards, feasible ones if there are any) after a short
 * tuning: *index has the least cross-entropy of REWARD images, *out is it as tuned. What an earlier start has tuned is not done
 * again. */
nas_status nas__comp_finalist(nas__comp *c, size_t *index, nas_graph **out);

/* ---- compress_tuned.c ---- */
/* nas__comp_tuned_original - the original, fine-tuned as trial 0 is; from compile.cache_dir, as tuned-<hash>.onnx, when a study
 * with the same network, TUNE images, seed and options has done it. A file that cannot be read is a warning and made again. */
nas_status nas__comp_tuned_original(nas__comp *c, const char *label, nas_graph **out);

/* ---- compress_trial.c ---- */
nas_status nas__comp_path(nas__comp *c, const char *name, char out[NAS__COMP_PATH_MAX]);
/* nas__comp_path_in - folder/file; an empty file: the folder. */
nas_status nas__comp_path_in(nas__comp *c, const char *folder, const char *file,
                             char out[NAS__COMP_PATH_MAX]);
/* nas__comp_measure - compiles `graph`, compares the program with the executor on one image and times it. */
nas_status nas__comp_measure(nas__comp *c, const nas_graph *graph, size_t index, const char *role,
                             bool final, nas_db_values *values);
bool nas__comp_metric(const nas__comp_trial *trial, nas_metric metric, bool final, double *out);
double nas__comp_violation(const nas__comp *c, const nas__comp_trial *trial, bool final);
/* nas__comp_bound - absolute bound of a constraint; false while it is a percentage of something unknown. */
bool nas__comp_bound(const nas__comp *c, const nas_constraint *k, double *bound);
bool nas__comp_objectives(const nas__comp *c, const nas__comp_trial *trial,
                          double out[NAS_OBJECTIVES_MAX]);
nas_status nas__comp_add(nas__comp *c, const nas_point *point, const nas_graph *graph,
                         const char *origin, size_t *index);
nas_status nas__comp_load(nas__comp *c); /* trials of an earlier start */
/* nas__comp_evaluate - scores, times and finishes a WAITING trial. */
nas_status nas__comp_evaluate(nas__comp *c, size_t index, const nas_graph *graph, const char *role);

/* nas__comp_decode - kept[group] channels of the original, repaired and recalibrated; `arg` is the study. */
nas_status nas__comp_decode(nas_ctx *ctx, void *arg, const int32_t *kept, nas_graph **out);

/* ---- compress_layers.c ---- */
/* nas__comp_parts - what is chosen for: groups of channels, or layers; of both: groups, all groups at once, layers. */
size_t nas__comp_parts(const nas__comp *c);
/* nas__comp_kept - kept[group] of a point. */
void nas__comp_kept(const nas__comp *c, const nas_point *point, int32_t *kept);
/* nas__comp_alone - top1[part]: share of REWARD images when only that part is cut as in trial `index`; of layers of sliced
 * networks: when all groups are cut, and that layer alone is compressed. */
nas_status nas__comp_alone(nas__comp *c, size_t index, double *top1);

/* nas__comp_ratios - ratio[part]: time of the layer, or of the convolutions that write or read the group's channels, in trial
 * `index` as delivered, over the time in the original; NAN where nothing was measured (simulated device, failed measurement: a
 * warning). */
nas_status nas__comp_ratios(nas__comp *c, size_t index, const nas_graph *delivered, double *ratio);

/* ---- compress_encoder.c ---- */
/* nas__comp_take_encoder - search.encoder_from, before anything is asked; a copy in the study's folder serves later starts. */
nas_status nas__comp_take_encoder(nas__comp *c);
nas_status nas__comp_put_encoder(nas__comp *c); /* encoder.txt, of agmc alone */

/* ---- compress_recalibrate.c ---- */
/* nas__comp_take_outputs - the original's, when the config wants them. */
nas_status nas__comp_take_outputs(nas__comp *c);
/* nas__comp_recalibrate - `graph`, which has the channels keep[class] of the original, corrected in place. */
nas_status nas__comp_recalibrate(nas_ctx *ctx, const nas__comp *c, const bool *keep,
                                 nas_graph *graph);

/* ---- compress_times.c ---- */
/* nas__comp_time_groups - measures them, now. NAN: a program whose layers have no times of their own. */
nas_status nas__comp_time_parts(nas__comp *c, const nas_graph *delivered, double *ratio);

/* ---- compress_promise.c ---- */
/* nas__comp_worth_timing - a scored candidate that can end in the table, or whose latency a bound asks for. */
bool nas__comp_worth_timing(const nas__comp *c, size_t index);
/* nas__comp_estimate - latency of a candidate that was not timed, from earlier ones; for the strategy alone. */
bool nas__comp_estimate(const nas__comp *c, size_t index, nas_metric metric, double *out);

/* ---- compress_report.c ---- */
/* nas__comp_group_facts - what a recipe says of the channels; alone[group] or NULL. */
void nas__comp_group_facts(const nas__comp *c, const nas_point *point, const double *alone,
                           nas_json *j);
/* nas__comp_write_groups - a line for each group as a table: channels, kept ones, alone[group], ratio[group]. */
nas_status nas__comp_write_groups(nas__comp *c, const nas_point *point, const double *alone,
                                  const double *ratio, const char *path);

/* ---- phases ---- */
nas_status nas__comp_search(nas__comp *c);                 /* compress_search.c */
nas_status nas__comp_final(nas__comp *c);                  /* compress_final.c */
nas_status nas__comp_report(nas__comp *c, bool *feasible); /* compress_report.c */

/* nas__compress_run, nas__compress_plan - nas_study_run and nas_study_plan of task.kind = "classify". compress_study.c */
nas_status nas__compress_run(nas_ctx *ctx, const nas_study_options *options, bool *feasible);
nas_status nas__compress_plan(nas_ctx *ctx, const nas_study_options *options);

#endif
