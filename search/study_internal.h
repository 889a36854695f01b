/* study_internal.h - the state of a running study, shared by the phase files of search/. Never leaves this folder. */
#ifndef NAS_SEARCH_STUDY_INTERNAL_H
#define NAS_SEARCH_STUDY_INTERNAL_H

#include "search/search.h"
#include "compiler/compiler.h"
#include "db/db.h"
#include "eval/eval.h"
#include "latency/latency.h"
#include "search/progress.h"

enum { NAS__PATH_MAX = 1024 };

/* A network that became a program. */
typedef struct nas__built {
    nas_graph *graph; /* with weights, owned */
    nas_artifact artifact;
    double max_difference;
} nas__built;

/* A trial in memory: the row of the database and what its values mean to the strategy. */
typedef struct nas__trial {
    nas_db_trial row; /* owned */
    nas_point point;
    bool from_strategy; /* proposed by the strategy (or a seed), not a baseline */
} nas__trial;

typedef struct nas__study {
    nas_ctx *ctx;
    const nas_study_options *options;
    const nas_config *config;
    char dir[NAS__PATH_MAX];
    int64_t started_ns;      /* of this invocation */
    double elapsed_before_s; /* of earlier invocations, for the time budget */
    char worker[64];

    nas_db *db;
    int64_t id;
    nas_space *space;
    nas_strategy *strategy;
    nas_sr_data *data;
    nas_weights *weights; /* supernet */
    nas_weights *fsrcnn_weights;
    nas_graph *largest; /* shape-only */
    nas_graph *fsrcnn;
    nas_device *device;
    int64_t device_id;
    const nas_target *target;
    nas_compile_options compile;
    nas_predictor *predictor;
    nas_front *front; /* over strategy trials, by the objectives */

    nas__trial *trials; /* all, by number */
    size_t n_trials, cap_trials;

    nas__built reference;     /* the drift reference network */
    size_t n_seeds;           /* points proposed before the strategy's own */
    double reference_best_us; /* drift reference: lowest and latest p50; 0 = not yet measured */
    double reference_last_us;
    double baseline_values
        [NAS_METRIC_COUNT];  /* of the full-width supernet, for percent bounds; NAN = unknown */
    double worst_difference; /* max |emitted - reference forward| seen */
    int64_t checked_networks;
    nas_sr_score bicubic_select, bicubic_report;
    nas__progress progress;
} nas__study;

/* ---- study_state.c: opening, trials, values ---------------------------------------------------------------------- */
nas_status nas__study_open(nas_ctx *ctx, const nas_study_options *options, nas__study *s);
nas_status nas__study_close(nas__study *s); /* NULL-safe members; reports a failed close */
double nas__study_elapsed_s(const nas__study *s);
/* nas__study_out_of_time - the budget (if any) has passed `fraction` of its time. */
bool nas__study_out_of_time(const nas__study *s, double fraction);
/* nas__study_path - dir/name into out; RANGE when too long. */
nas_status nas__study_path(nas__study *s, const char *name, char out[NAS__PATH_MAX]);
/* nas__study_add_trial - appends a WAITING trial to the database (inside the caller's transaction) and memory. */
nas_status nas__study_add_trial(nas__study *s, const nas_point *point, const nas_graph *graph,
                                const char *origin, size_t *index);
nas_status nas__study_decode(nas__study *s, const nas_point *point, nas_graph **out);
nas_status nas__meta_set_double(nas__study *s, const char *key, double value);
nas_status nas__meta_get_double(nas__study *s, const char *key, double *value, bool *found);

/* ---- trials.c: the life of a trial -------------------------------------------------------------------------------- */
bool nas__trial_is_finished(const nas__trial *trial);
nas_status nas__trial_start(nas__study *s, size_t index); /* leases it: RUNNING */
/* nas__trial_finish - adds violation, front membership and hypervolume, then RUNNING -> state. */
nas_status nas__trial_finish(nas__study *s, size_t index, nas_trial_state state, const char *reason,
                             const nas_db_values *values);
nas_status nas__trial_set_final(nas__study *s, size_t index, const nas_db_values *final);
void nas__note_difference(nas__study *s,
                          double difference); /* of emitted code against the reference forward */
/* nas__final_values - what a finished trial is judged by at the end: the figures of the fine-tuned weights and the
 * "final" measurement where there are any, else the search's. */
nas_db_values nas__final_values(const nas_db_values *values);

/* ---- values.c: metrics, constraints, objectives ------------------------------------------------------------------- */
/* nas__metric_value - false when the trial does not know it. In the metric's unit (ms, dB, ...). */
bool nas__metric_value(const nas_db_values *values, nas_metric metric, double *out);
/* nas__violation - sum over constraints of relative violation; unknown values count as violated by 1. */
double nas__violation(const nas__study *s, const nas_db_values *values);
/* nas__constraint_bound - absolute bound; false while it is a percentage of a baseline not yet measured. */
bool nas__constraint_bound(const nas__study *s, const nas_constraint *constraint, double *bound);
/* nas__objective_values - to minimise; false when one is unknown. */
bool nas__objective_values(const nas__study *s, const nas_db_values *values,
                           double out[NAS_OBJECTIVES_MAX]);
/* nas__hypervolume - of the current front against the study's reference point. */
double nas__hypervolume(const nas__study *s);

/* ---- build.c: graph -> artifact, checked against the reference forward --------------------------------------------- */
void nas__built_deinit(nas__built *built);
/* nas__build - fills weights, compiles, runs one frame and compares with nas_forward: TOOLCHAIN when they differ by more
 * than the documented bound. Thread-safe (own ctx). */
nas_status nas__build(nas_ctx *ctx, const nas__study *s, nas_graph *take_graph,
                      const nas_weights *weights, nas__built *out);
/* nas__score_artifact - PSNR/SSIM of a split, computed by the compiled program itself (frame with replicated border). */
nas_status nas__score_artifact(nas_ctx *ctx, const nas__study *s, const nas__built *built,
                               nas_split split, nas_sr_score *out);

/* ---- timing.c: one measurement, stored ------------------------------------------------------------------------------ */
nas_status nas__time_artifact(nas__study *s, const nas__built *built, size_t trial_index,
                              const char *role, bool final, nas_db_values *values);
/* nas__store_layers - per-layer rows of a trial's graph (v_layer). */
nas_status nas__store_layers(nas__study *s, size_t trial_index, const nas_graph *graph);
/* nas__time_reference - times the drift reference network. */
nas_status nas__time_reference(nas__study *s, double *p50_us);
/* nas__slowdown - how far the device is from the calmest state seen in the study, 0 = equal, given the reference's p50
 * before and after. */
double nas__slowdown(const nas__study *s, double before_us, double after_us);
/* Of several measurements of one program the fastest stands: what shares the machine with us only ever adds time. All
 * are in the database. When none was taken in a state within measure.drift_limit of the calmest, it is flagged noisy. */
enum { NAS__ROUNDS_MAX = 2 }; /* tries to measure in a calm state */
typedef struct nas__kept {
    nas_db_values values;
    double slowdown;
    bool is_set;
} nas__kept;
void nas__keep_calmer(const nas__study *s, nas__kept *kept, const nas_db_values *fresh,
                      double slowdown);

/* ---- phases ---------------------------------------------------------------------------------------------------------- */
nas_status nas__phase_train(nas__study *s);                  /* train_phase.c */
nas_status nas__phase_baselines(nas__study *s);              /* baselines.c */
nas_status nas__phase_search(nas__study *s);                 /* search_phase.c */
nas_status nas__phase_final(nas__study *s);                  /* final_phase.c */
nas_status nas__phase_report(nas__study *s, bool *feasible); /* report.c */

/* nas__train_steps - trains `weights` to `steps` optimiser steps with checkpoints in `path`.
 * Resumes from the checkpoint; same seed, same result wherever it was interrupted. */
typedef struct nas__training {
    const char *label; /* progress and stream name */
    uint64_t trial;    /* stream */
    char path[NAS__PATH_MAX];
    int32_t steps;
    double learning_rate;
    double until_fraction;  /* of the time budget */
    const nas_graph *graph; /* the one graph trained, or NULL: sandwich sampling of the space */
} nas__training;
nas_status nas__train(nas__study *s, nas_weights *weights, const nas__training *training);

/* nas__pick_best - index of the strategy trial that satisfies the constraints best: highest final SELECT PSNR when any
 * trial has one, else highest search value; ties go to the lower p50. false when none is feasible. */
bool nas__pick_best(const nas__study *s, size_t *index);
nas_status nas__deliver(nas__study *s, size_t index); /* deliver.c: best/ */

#endif
