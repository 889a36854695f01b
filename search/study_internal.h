/* study_internal.h - the state of a running study, shared by the phase files of search/. Never leaves this folder. */
#ifndef NAS_SEARCH_STUDY_INTERNAL_H
#define NAS_SEARCH_STUDY_INTERNAL_H

#include "search/search.h"
#include "compiler/compiler.h"
#include "db/db.h"
#include "eval/eval.h"
#include "latency/latency.h"
#include "search/progress.h"
#include "search/skip.h"

#include <pthread.h>

enum { NAS__PATH_MAX = 1024, NAS__REASON_MAX = 512 };

/* What the devices of a study are compiled for; several may share one. */
typedef struct nas__target {
    nas_target row;
    nas_compile_options compile; /* its target is `row` */
    char runner[256];            /* emulator of another architecture; "" = none, or none needed */
} nas__target;

/* A network that became programs, one a target. */
typedef struct nas__built {
    nas_graph *graph; /* with weights, owned */
    nas_artifact artifacts[NAS_DEVICES_MAX];
    char checked[NAS_DEVICES_MAX][NAS_DB_CHECKED_MAX]; /* how each one's output was compared */
    nas_artifact here; /* runs on this machine: the first target's program, or its native twin */
    double max_difference;
} nas__built;

/* The latency of a program in one queue. */
typedef struct nas__latency {
    bool is_set, noisy;
    double p50_us, p50_lo_us, p50_hi_us, p90_us;
    int64_t measurement_id;
    char checked[NAS_DB_CHECKED_MAX];
} nas__latency;

/* What a trial is judged by: its values and its latency in each queue. */
typedef struct nas__figures {
    nas_db_values values;
    nas__latency latency[NAS_DEVICES_MAX]; /* by queue */
} nas__figures;

/* A trial in memory: the row of the database and what its values mean to the strategy. */
typedef struct nas__trial {
    nas_db_trial row; /* owned */
    nas_point point;
    bool from_strategy; /* proposed by the strategy (or a seed), not a baseline */
    nas__latency search[NAS_DEVICES_MAX], final[NAS_DEVICES_MAX]; /* by queue */
    nas__forecast forecast[NAS_DEVICES_MAX]; /* by queue, made before it was measured */
} nas__trial;

/* One device of the study. `away` and what follows are changed under the study's lock. */
typedef struct nas__device {
    const nas_config_device *config;
    nas_device *handle; /* NULL while it was never reached */
    int64_t id;         /* in the database */
    int32_t queue, target;
    double reference_best_us, reference_last_us; /* drift reference: lowest, latest p50; 0 = none */
    bool away;
    int64_t away_since_ns;
    char why[NAS__REASON_MAX];
} nas__device;

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
    pthread_mutex_t
        lock; /* of the database and of devices' states while devices measure in parallel */
    bool has_lock;
    nas__device devices[NAS_DEVICES_MAX];
    int32_t n_devices;
    bool needed[NAS_DEVICES_MAX]; /* queues that an objective or a bound names */
    int32_t first_queue;          /* the needed one whose latency is nas_db_values.latency_* */
    nas__target targets[NAS_DEVICES_MAX];
    int32_t n_targets;
    nas__target native;                         /* for twins of programs that do not run here */
    nas_predictor *predictors[NAS_DEVICES_MAX]; /* by queue; NULL where none is needed */
    size_t predictor_rows[NAS_DEVICES_MAX];     /* they were given, those of earlier studies too */
    double foretold_error[NAS_DEVICES_MAX]; /* |log| error of earlier forecasts: least half-width */
    double drift[NAS_DEVICES_MAX];          /* of the rows learned from, mean: >= 1 */
    nas_front *front;                       /* over strategy trials, by the objectives */

    nas__trial *trials; /* all, by number */
    size_t n_trials, cap_trials;

    nas__built reference;    /* the drift reference network */
    size_t n_seeds;          /* points proposed before the strategy's own */
    nas__figures baseline;   /* of the full-width supernet, for percent bounds; unset = unknown */
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

/* ---- devices.c: opening, losing and finding devices ---------------------------------------------------------------- */
/* nas__devices_check - targets and compilers that are named, before anything is opened. */
nas_status nas__devices_check(nas__study *s);
/* nas__devices_open - opens all that are needed, chooses their targets, compares those of a pool. */
nas_status nas__devices_open(nas__study *s);
void nas__devices_close(nas__study *s);
/* nas__device_connect - a fresh session with a device that is away, one try. The lock must not be held. */
nas_status nas__device_connect(nas_ctx *ctx, nas__study *s, nas__device *d);
/* nas__device_is_lost - does a failed measurement mean that the device is gone (not that the program failed)? */
bool nas__device_is_lost(nas_ctx *ctx, const nas__device *d, nas_status status);
const char *nas__queue_name(const nas__study *s, int32_t queue);
/* nas__queue_device_id - database id of a device of the queue: whom predictions are for. */
int64_t nas__queue_device_id(const nas__study *s, int32_t queue);
/* nas__queue_device - a device of the queue that was reached; NULL when there is none. */
const nas__device *nas__queue_device(const nas__study *s, int32_t queue);
/* nas__first_target - that of the first queue. */
const nas__target *nas__first_target(const nas__study *s);

/* ---- trials.c: the life of a trial -------------------------------------------------------------------------------- */
bool nas__trial_is_finished(const nas__trial *trial);
nas_status nas__trial_start(nas__study *s, size_t index); /* leases it: RUNNING */
/* nas__trial_finish - adds the search latencies, violation, front membership and hypervolume, then RUNNING -> state. */
nas_status nas__trial_finish(nas__study *s, size_t index, nas_trial_state state, const char *reason,
                             const nas_db_values *values);
/* nas__trial_set_final - final figures; those of latency are taken from trial->final. */
nas_status nas__trial_set_final(nas__study *s, size_t index, const nas_db_values *final);
void nas__note_difference(nas__study *s,
                          double difference); /* of emitted code against the reference forward */
nas__figures nas__search_figures(const nas__trial *trial);
/* nas__final_figures - what a finished trial is judged by at the end: the figures of the fine-tuned weights and the
 * "final" measurements where there are any, else the search's. */
nas__figures nas__final_figures(const nas__trial *trial);

/* ---- values.c: metrics, constraints, objectives ------------------------------------------------------------------- */
/* Which value of a latency counts: a noisy one stands for its interval, the other ones for themselves. */
typedef enum nas__reading { NAS__POINT, NAS__UPPER, NAS__LOWER } nas__reading;
/* nas__metric_value - false when the trial does not know it. In the metric's unit (ms, dB, ...). */
bool nas__metric_value(const nas__figures *figures, nas_metric metric, int32_t queue,
                       nas__reading reading, double *out);
/* nas__violation - sum over constraints of relative violation; unknown values count as violated by 1. A noisy latency
 * satisfies a bound when the far end of its interval does. */
double nas__violation(const nas__study *s, const nas__figures *figures);
/* nas__constraint_bound - absolute bound; false while it is a percentage of a baseline not yet measured. */
bool nas__constraint_bound(const nas__study *s, const nas_constraint *constraint, double *bound);
/* nas__objective_values - to minimise; false when one is unknown. A noisy latency counts at its upper end. */
bool nas__objective_values(const nas__study *s, const nas__figures *figures,
                           double out[NAS_OBJECTIVES_MAX]);
/* nas__hypervolume - of the current front against the study's reference point. */
double nas__hypervolume(const nas__study *s);

/* ---- build.c: graph -> artifacts, checked against the reference forward -------------------------------------------- */
void nas__built_deinit(nas__built *built);
/* nas__build - fills weights, compiles for every target, runs one frame of each and compares with nas_forward: TOOLCHAIN
 * when they differ by more than the documented bound. A program that cannot run here is run by an emulator; without one
 * the native build of the same network is compared, and `checked` says so. Thread-safe (own ctx). */
nas_status nas__build(nas_ctx *ctx, const nas__study *s, nas_graph *take_graph,
                      const nas_weights *weights, nas__built *out);
/* nas__build_here - makes `built->here` where no program of a target runs on this machine. */
nas_status nas__build_here(nas_ctx *ctx, const nas__study *s, nas__built *built);
/* nas__score_artifact - PSNR/SSIM of a split, computed by `built->here` (frame with replicated border). */
nas_status nas__score_artifact(nas_ctx *ctx, const nas__study *s, const nas__built *built,
                               nas_split split, nas_sr_score *out);

/* ---- timing.c: one measurement, stored ------------------------------------------------------------------------------ */
nas_measure_options nas__measure_options(const nas__study *s, const nas__device *d, bool final);
/* nas__time_artifact - times the program of the device's target and stores the measurement. Any thread; takes the lock. */
nas_status nas__time_artifact(nas_ctx *ctx, nas__study *s, nas__device *d, const nas__built *built,
                              size_t trial_index, const char *role, bool final, nas__latency *out);
/* nas__store_layers - per-layer rows of a trial's graph (v_layer). */
nas_status nas__store_layers(nas__study *s, size_t trial_index, const nas_graph *graph);
/* nas__build_reference - the drift reference's programs; a no-op when they are there. */
nas_status nas__build_reference(nas__study *s);
/* nas__time_reference - times the drift reference network on a device. */
nas_status nas__time_reference(nas_ctx *ctx, nas__study *s, nas__device *d, double *p50_us);
/* nas__slowdown - how far the device is from the calmest state seen in the study, 0 = equal, given the reference's p50
 * before and after. */
double nas__slowdown(const nas__device *d, double before_us, double after_us);
/* Of several measurements of one program the fastest stands: what shares the machine with us only ever adds time. All
 * are in the database. When none was taken in a state within measure.drift_limit of the calmest, it is flagged noisy. */
enum { NAS__ROUNDS_MAX = 2 }; /* tries to measure in a calm state */
typedef struct nas__kept {
    nas__latency latency;
    double slowdown;
    bool is_set;
} nas__kept;
void nas__keep_calmer(const nas__study *s, nas__kept *kept, const nas__latency *fresh,
                      double slowdown);

/* ---- schedule.c: the queues of a batch ------------------------------------------------------------------------------ */
/* A network to be timed in every needed queue where its trial has no latency of the role yet. */
typedef struct nas__job {
    size_t index; /* into s->trials */
    const nas__built *built;
    bool failed; /* its program, or it lost too many devices */
    char reason[NAS__REASON_MAX];
} nas__job;
/* nas__measure_jobs - devices work through their queues in parallel, local ones alone after the others. Latencies go to
 * the database and to trial->search (final: trial->final) as soon as they stand. A lost device's work goes back to its
 * queue; while nobody works on a queue that has work left, devices are waited for (measure.away_s).
 * role: of the measurements. Errors: DEVICE (devices stayed away; resumable), IO, DB, CANCELLED ... */
nas_status nas__measure_jobs(nas__study *s, nas__job *jobs, size_t n, const char *role, bool final);

/* ---- predict.c: the predictors, and what is skipped for their forecasts -------------------------------------------- */
/* nas__predictor_learn - from the finished trials of [first, end) in order, then refits. */
nas_status nas__predictor_learn(nas__study *s, size_t first, size_t end);
/* nas__predictor_note_drift - how calm the devices were while the study's rows were taken; inside the transaction that
 * ends a batch. nas__predictor_load_drift - the same as it was when the last batch ended. */
nas_status nas__predictor_note_drift(nas__study *s);
nas_status nas__predictor_load_drift(nas__study *s);
/* nas__predictor_learn_earlier - search.skip_learn = "database": rows of earlier studies of the same file on the same
 * kind of device; of those measured before this study began, however often it is resumed. */
nas_status nas__predictor_learn_earlier(nas__study *s);
/* nas__predictor_foretell - trial->forecast of each queue, where it has none yet and the predictor is fitted. */
nas_status nas__predictor_foretell(nas__study *s, size_t index);
/* nas__predictor_store - the trial's forecasts, unless they are stored; inside the caller's transaction. */
nas_status nas__predictor_store(nas__study *s, size_t index, bool decided);

/* A candidate that is skipped: why, and by how much it misses the bounds. */
typedef struct nas__skipping {
    bool skip, beaten;
    char reason[NAS__REASON_MAX];
    double violation; /* when it is not `beaten` */
} nas__skipping;
/* What a candidate must not be certainly beaten by: the measured, feasible members of the front. */
typedef struct nas__rivals {
    double (*values)[NAS_OBJECTIVES_MAX];
    size_t *trials, n;
} nas__rivals;
nas_status nas__rivals_of(nas__study *s, nas__rivals *out);
void nas__rivals_deinit(nas__rivals *rivals);
/* nas__decide_feasible - skips a trial whose forecast certainly misses a latency bound. */
void nas__decide_feasible(const nas__study *s, size_t index, nas__skipping *out);
/* nas__decide_beaten - skips one that a rival certainly beats in every objective, given its score. */
void nas__decide_beaten(const nas__study *s, size_t index, const nas_sr_score *score,
                        const nas__rivals *rivals, nas__skipping *out);

/* nas__predictor_foresight - forecasts of the study against the measurements made after them. */
nas_status nas__predictor_foresight(nas__study *s, int32_t queue, nas__foresight *out);
typedef struct nas__skip_counts {
    size_t measured, infeasible, beaten;
} nas__skip_counts;
nas__skip_counts nas__count_skips(const nas__study *s);

/* ---- phases ---------------------------------------------------------------------------------------------------------- */
nas_status nas__phase_train(nas__study *s);                  /* train_phase.c */
nas_status nas__phase_baselines(nas__study *s);              /* baselines.c */
nas_status nas__phase_search(nas__study *s);                 /* search_phase.c */
nas_status nas__phase_final(nas__study *s);                  /* final_phase.c */
nas_status nas__phase_profile(nas__study *s);                /* profile.c */
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
/* nas__deliver - writes a network of the front to <study.dir>/<folder>. deliver.c */
nas_status nas__deliver(nas__study *s, size_t index, const char *folder);
nas_status nas__deliver_wanted(nas__study *s); /* those of --deliver */

#endif
