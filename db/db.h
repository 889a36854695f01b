/* db.h - the one SQLite file of a study: schema, migrations, typed rows, views. Full schema: db/schema.c.
 *
 * One writer process owns the file (WAL, an advisory lock held for the life of the handle); readers open read-only.
 * A trial and the strategy state that produced it are committed in one transaction. Finished trials are never
 * modified (triggers see to it). Unknown values are NULL, never 0. Units are in column names.
 * Schema changes: one numbered migration each, recorded in PRAGMA user_version.
 *
 * Durability: synchronous=FULL. A commit is on the disk when nas_db_commit returns, so neither kill -9 nor a power
 * cut loses a finished trial; a trial takes seconds and the fsync milliseconds, so NORMAL would save nothing.
 * The lock: flock on "<db>.lock" (pid and command inside); the kernel drops it however the process ends, the file
 * stays. Full disk, locked, damaged, foreign or newer file: a message that says what to do; what was committed is kept.
 * A handle belongs to one thread at a time and does not survive fork.
 * Layer 1: includes core only; sqlite3.h stays in db/. */
#ifndef NAS_DB_DB_H
#define NAS_DB_DB_H

#include "core/core.h"

typedef struct nas_db nas_db;

/* nas_db_open - creates or migrates. Errors: DB with what to do: locked by another run (its pid when known), newer
 * schema, not a database, corrupt (quick_check); IO when the disk is full. */
nas_status nas_db_open(nas_ctx *ctx, const char *path, nas_db **out);
/* nas_db_open_readonly - for nas-query; works while a study writes and after it was killed (reads the log it left).
 * In a folder it may not write to, a file that no writer holds is read into memory as it is now.
 * Errors: NOTFOUND; DB: not ours, damaged, newer or older schema; IO: a log is left but the folder is read-only. */
nas_status nas_db_open_readonly(nas_ctx *ctx, const char *path, nas_db **out);
/* nas_db_close - checkpoints; returns an error when that failed. NULL is a no-op. */
nas_status nas_db_close(nas_ctx *ctx, nas_db *db);
int32_t nas_db_schema_version(void);

/* A step of the schema: statements[0..] (NULL-terminated) take a file from version i to i + 1 for list entry i. */
typedef struct nas_db_migration {
    const char *what;
    const char *const *statements;
} nas_db_migration;
/* nas_db_migrations - all steps, *n = nas_db_schema_version(); static. */
const nas_db_migration *nas_db_migrations(int32_t *n);
/* nas_db_open_schema - nas_db_open with another list of steps: missing ones run in one transaction, foreign keys are
 * checked before it is committed, a failure leaves the file as it was. */
nas_status nas_db_open_schema(nas_ctx *ctx, const char *path, const nas_db_migration *list,
                              int32_t n, nas_db **out);

/* Transactions do not nest. rollback after a failure inside; safe to call when none is open. When a failure made
 * SQLite undo the transaction (full disk), every further call fails until nas_db_rollback. */
nas_status nas_db_begin(nas_ctx *ctx, nas_db *db);
nas_status nas_db_commit(nas_ctx *ctx, nas_db *db);
void nas_db_rollback(nas_db *db);

/* ---- optional values ------------------------------------------------------------------------------------------- */

typedef struct nas_opt_double {
    bool is_set;
    double value;
} nas_opt_double;
typedef struct nas_opt_i64 {
    bool is_set;
    int64_t value;
} nas_opt_i64;
nas_opt_double nas_some_double(double value);
nas_opt_i64 nas_some_i64(int64_t value);

/* ---- study ------------------------------------------------------------------------------------------------------ */

typedef struct nas_db_study {
    int64_t id; /* set by get; insert ignores it */
    char name[96];
    char space[32];
    char strategy[32];
    uint64_t seed;
    char *config_toml;    /* owned by the row; freed by nas_db_study_deinit */
    char *config_json;    /* flattened key -> value, sorted: what "config changed" compares */
    char *strategy_state; /* latest blob, may be NULL */
    char data_hash[NAS_SHA256_HEX];
} nas_db_study;
void nas_db_study_deinit(nas_db_study *row);
/* nas_db_study_insert - name is unique; strategy_state may be NULL, data_hash "". */
nas_status nas_db_study_insert(nas_ctx *ctx, nas_db *db, const nas_db_study *row, int64_t *id);
nas_status nas_db_study_get(nas_ctx *ctx, nas_db *db, const char *name,
                            nas_db_study *out); /* NOTFOUND */
nas_status nas_db_study_set_strategy_state(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                           const char *state);
nas_status nas_db_study_set_data_hash(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *hash);

/* ---- trials ----------------------------------------------------------------------------------------------------- */

typedef enum nas_trial_state {
    NAS_TRIAL_WAITING,
    NAS_TRIAL_RUNNING,
    NAS_TRIAL_COMPLETE,
    NAS_TRIAL_PRUNED,
    NAS_TRIAL_FAIL,
    NAS_TRIAL_STATE_COUNT
} nas_trial_state;
const char *nas_trial_state_text(nas_trial_state state); /* "WAITING" ... */

/* What a trial has learned so far; every field may be absent. */
typedef struct nas_db_values {
    nas_opt_double psnr_y_db, ssim_y; /* on the SELECT split, inherited weights */
    nas_opt_double latency_p50_us, latency_p50_lo_us, latency_p50_hi_us,
        latency_p90_us; /* measured */
    nas_opt_i64 macs, params, peak_activation_bytes, arena_bytes;
    nas_opt_double violation;   /* sum of relative constraint violations, 0 = feasible */
    nas_opt_double hypervolume; /* of the front after this trial */
    nas_opt_i64 noisy;          /* 0/1 of the measurement used */
    /* final figures of front members: after fine-tuning, by the timed binary, on REPORT images */
    nas_opt_double final_psnr_y_db, final_ssim_y, final_select_psnr_y_db;
    /* of the measurement with role "final": the artifact with the fine-tuned weights */
    nas_opt_double final_latency_p50_us, final_latency_p50_lo_us, final_latency_p50_hi_us,
        final_latency_p90_us;
    nas_opt_double final_violation; /* of the constraints, by the final figures */
} nas_db_values;

typedef struct nas_db_trial {
    int64_t id;
    int64_t study_id;
    int64_t number; /* 0.. within the study */
    nas_trial_state state;
    char *point; /* text form of the space; owned */
    char graph_hash[NAS_SHA256_HEX];
    char origin[24]; /* "strategy", "seed", "baseline:fsrcnn", "baseline:supernet" */
    int32_t attempt; /* leases so far: 0 while it never ran; insert ignores it */
    char *reason;    /* of PRUNED or FAIL, may be NULL; owned */
    nas_db_values values;
} nas_db_trial;
void nas_db_trial_deinit(nas_db_trial *row);

/* nas_db_trial_insert - state WAITING; number must be the next free one of the study (else DB error); graph_hash may
 * be "". The row's values are ignored: they are set once the trial runs. */
nas_status nas_db_trial_insert(nas_ctx *ctx, nas_db *db, const nas_db_trial *row, int64_t *id);
/* nas_db_trial_lease - WAITING, or RUNNING with an expired lease or of another (dead) worker -> RUNNING;
 * attempt + 1. NOTFOUND when it is finished or leased by a living worker. A lease given through an earlier handle is
 * of a dead worker: while this handle is open no other process writes. Values of the lost attempt stay until they are
 * set again. */
nas_status nas_db_trial_lease(nas_ctx *ctx, nas_db *db, int64_t trial_id, const char *worker,
                              int64_t lease_ms);
/* nas_db_trial_set_values - merges the set fields into a RUNNING trial (absent fields stay as they are). INVALID when a
 * number is NaN or infinite or a final_* field is set; DB when the trial is not RUNNING. */
nas_status nas_db_trial_set_values(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   const nas_db_values *values);
/* nas_db_trial_set_final - final figures of a COMPLETE trial; each may be set once (again with the same value: no-op).
 * INVALID when another field is set. */
nas_status nas_db_trial_set_final(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                  const nas_db_values *values);
/* nas_db_trial_finish - RUNNING -> COMPLETE, PRUNED or FAIL with the remaining values. DB error from other states. */
nas_status nas_db_trial_finish(nas_ctx *ctx, nas_db *db, int64_t trial_id, nas_trial_state state,
                               const char *reason, const nas_db_values *values);
/* nas_db_trials - all trials of a study in order of number; caller frees with nas_db_trials_free. */
nas_status nas_db_trials(nas_ctx *ctx, nas_db *db, int64_t study_id, nas_db_trial **rows,
                         size_t *n);
void nas_db_trials_free(nas_db_trial *rows, size_t n);

/* ---- artifacts, devices, measurements, predictions --------------------------------------------------------------- */

typedef struct nas_db_artifact {
    char sha256[NAS_SHA256_HEX], source_sha256[NAS_SHA256_HEX];
    const char *target, *compiler, *flags; /* borrowed for the call */
    uint64_t size_bytes, arena_bytes;
    double compile_s;
} nas_db_artifact;
/* nas_db_artifact_put - inserts or finds by sha256. */
nas_status nas_db_artifact_put(nas_ctx *ctx, nas_db *db, const nas_db_artifact *row, int64_t *id);
/* nas_db_trial_set_artifact - links a trial with the artifact it was timed with; role "search" or "final". */
nas_status nas_db_trial_set_artifact(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                     int64_t artifact_id, const char *role);

/* nas_db_device_put - inserts or updates by (name, fingerprint). */
nas_status nas_db_device_put(nas_ctx *ctx, nas_db *db, const char *name, const char *connect,
                             const char *fingerprint, const char *info_json, bool simulated,
                             int64_t *id);

/* nas_db_device_set_queue - what candidates wait in line for: the device's pool, or itself. */
nas_status nas_db_device_set_queue(nas_ctx *ctx, nas_db *db, int64_t device_id, const char *queue);
/* nas_db_device_last - the device of that name as a study last measured on it. NOTFOUND when it never did; the caller
 * frees *info_json. */
nas_status nas_db_device_last(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *name,
                              char fingerprint[NAS_SHA256_HEX], char **info_json);

typedef struct nas_db_run {
    char sha256[NAS_SHA256_HEX]; /* of the program */
    double p50_us;
} nas_db_run;
/* nas_db_device_runs - the latest `max` runs of a device with so many threads, oldest first; the caller frees *rows. */
nas_status nas_db_device_runs(nas_ctx *ctx, nas_db *db, int64_t device_id, int32_t threads,
                              size_t max, nas_db_run **rows, size_t *n);

typedef struct nas_db_measurement {
    int64_t
        study_id; /* 0 = that of the trial; set it for a drift reference, so that reports list it */
    int64_t trial_id;    /* 0 = none: the drift reference (role "reference") */
    int64_t artifact_id; /* 0 = none: simulated */
    int64_t device_id;
    const char *role; /* "search", "final", "reference", "baseline" */
    int32_t threads, batch_size, batches, dropped, repeats;
    bool noisy, simulated;
    double p50_us, p50_lo_us, p50_hi_us, p90_us, p10_us, min_us, mad_us;
    nas_opt_double init_us, first_us;
    nas_opt_double drift_ratio; /* reference now / reference at study start */
    const char *passport_json;  /* borrowed */
    const double *samples_us;   /* borrowed; stored as little-endian doubles in a BLOB */
    size_t n_samples;
} nas_db_measurement;
/* nas_db_measurement_insert - rows are never changed afterwards; several may belong to one trial. INVALID for a number
 * that is not finite; DB for an unknown trial, artifact, device or role. */
nas_status nas_db_measurement_insert(nas_ctx *ctx, nas_db *db, const nas_db_measurement *row,
                                     int64_t *id);

typedef struct nas_db_prediction {
    int64_t trial_id, device_id;
    const char *predictor; /* id of the fitted model */
    double p50_us, lo_us, hi_us;
    bool decided;  /* the trial was skipped because of it */
    bool held_out; /* made after the measurement, by a model that never saw it: not in-sample */
} nas_db_prediction;
/* nas_db_prediction_insert - call it when the prediction is made, before the trial's own measurement is inserted: one
 * that comes later on the same device is stored as in_sample and never shown as latency_pred_ms, unless held_out. */
nas_status nas_db_prediction_insert(nas_ctx *ctx, nas_db *db, const nas_db_prediction *row);
/* nas_db_trial_has_prediction - was a prediction stored for this trial? */
nas_status nas_db_trial_has_prediction(nas_ctx *ctx, nas_db *db, int64_t trial_id, bool *out);

/* What was foretold of a trial before anything of it was measured in the queue. */
typedef struct nas_db_forecast {
    int64_t trial_id;
    char queue[64]; /* NAS_DB_QUEUE_MAX */
    double p50_us, lo_us, hi_us;
    bool decided;
} nas_db_forecast;
/* nas_db_study_forecasts - one a trial and queue, the first that was made, by trial; caller frees with nas_free. */
nas_status nas_db_study_forecasts(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                  nas_db_forecast **rows, size_t *n);

/* nas_db_study_drift - mean drift_ratio of the candidates' measurements that stand in a queue: how much slower than at
 * its calmest the device was when the rows were taken. Absent without any. */
nas_status nas_db_study_drift(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *queue,
                              nas_opt_double *out);

/* A search's measurement that stands, with what it may be compared by. */
typedef struct nas_db_study_latency {
    int64_t study_id, measurement_id, trial; /* trial: its number */
    char *study, *point, *target;            /* owned; target "" when nothing was compiled */
    char device[96], queue[64], fingerprint[NAS_SHA256_HEX];
    int32_t threads, scale, out_height, out_width; /* task.* of the study's config, 0 = none */
    double p50_us;
    bool noisy, simulated;
} nas_db_study_latency;
/* nas_db_study_latencies - of all studies of a space in this file, baselines left out, by measurement; caller frees. */
nas_status nas_db_study_latencies(nas_ctx *ctx, nas_db *db, const char *space,
                                  nas_db_study_latency **rows, size_t *n);
void nas_db_study_latencies_free(nas_db_study_latency *rows, size_t n);

/* ---- several devices ----------------------------------------------------------------------------------------------- */

enum { NAS_DB_QUEUE_MAX = 64, NAS_DB_CHECKED_MAX = 64 };

/* The latency that stands for a trial in one queue (a device, or a pool of identical ones). */
typedef struct nas_db_latency {
    int64_t trial_id;
    bool final; /* of the artifact with the fine-tuned weights */
    char queue[NAS_DB_QUEUE_MAX];
    int64_t measurement_id; /* 0 = unknown */
    double p50_us, p50_lo_us, p50_hi_us, p90_us;
    bool noisy;
    char checked[NAS_DB_CHECKED_MAX]; /* how the program's output was compared; "" = unknown */
} nas_db_latency;

/* nas_db_study_set_queues - the queues of a study in order; the first is that of nas_db_values.latency_*. */
nas_status nas_db_study_set_queues(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                   const char *const *names, size_t n);
/* nas_db_trial_latency_put - of a search: until the trial is finished, replaces what was there. Final: once, of a
 * COMPLETE trial. DB error otherwise. */
nas_status nas_db_trial_latency_put(nas_ctx *ctx, nas_db *db, const nas_db_latency *row);
/* nas_db_trial_latencies - all of a study, by trial; caller frees with nas_free. */
nas_status nas_db_trial_latencies(nas_ctx *ctx, nas_db *db, int64_t study_id, nas_db_latency **rows,
                                  size_t *n);
/* nas_db_study_set_front - the front by a study's objectives: what v_front shows when it has several queues. */
nas_status nas_db_study_set_front(nas_ctx *ctx, nas_db *db, int64_t study_id,
                                  const int64_t *trial_ids, size_t n);

/* nas_db_layers_put - per-layer rows of a trial's graph (v_layer); replaces those of the trial. */
typedef struct nas_db_layer {
    const char *node, *family;
    int32_t h, w, c_in, c_out, kernel;
    uint64_t macs, macs_padded, bytes;
    double intensity;
} nas_db_layer;
nas_status nas_db_layers_put(nas_ctx *ctx, nas_db *db, int64_t trial_id, const nas_db_layer *rows,
                             size_t n);

/* ---- classifiers --------------------------------------------------------------------------------------------------- */

/* Of a classifier; every field may be absent. Top-1 are shares in 0..1. */
typedef struct nas_db_class_values {
    nas_opt_double reward_top1;       /* REWARD images, before fine-tuning */
    nas_opt_double tuned_reward_top1; /* REWARD images, after it */
    nas_opt_double report_top1;       /* REPORT images, after it */
    nas_opt_i64 weight_bytes;         /* as stored; absent: 4 a parameter */
    nas_opt_i64 bops;                 /* absent: 1024 a MAC */
    nas_opt_double
        finalist_cross_entropy; /* nats, REWARD images, after the short tuning of finalists */
} nas_db_class_values;
/* nas_db_class_values_put - sets the fields that are given, keeps the others. DB: unknown trial, a share beyond 0..1,
 * a number below 0. */
nas_status nas_db_class_values_put(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   const nas_db_class_values *values);
/* nas_db_class_values_get - all absent when nothing was stored. */
nas_status nas_db_class_values_get(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   nas_db_class_values *out);

/* ---- timings of kernels -------------------------------------------------------------------------------------------- */

/* What a tuner remembers for ever. The key names everything that the time depends on; texts are the caller's, not empty.
 *   kernel    shape, type and pattern of the layer
 *   way       how it is computed: algorithm, register tile ...
 *   device    processor model, target and compiler version
 *   threads   >= 1 */
typedef struct nas_db_kernel_key {
    const char *kernel, *way, *device; /* borrowed for the call */
    int32_t threads;
} nas_db_kernel_key;

typedef struct nas_db_kernel_timing {
    double p50_ns;       /* of one call, > 0 */
    double lo_ns, hi_ns; /* quartiles, lo <= p50 <= hi */
    int32_t runs;        /* samples behind them, >= 1 */
} nas_db_kernel_timing;

/* nas_db_kernel_timing_put - replaces what was there. INVALID: not finite; DB: empty text or numbers out of range. */
nas_status nas_db_kernel_timing_put(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                    const nas_db_kernel_timing *timing);
/* nas_db_kernel_timing_get - *found false (and *out untouched) when it was never measured. */
nas_status nas_db_kernel_timing_get(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                    bool *found, nas_db_kernel_timing *out);
/* nas_db_kernel_timing_best - the way with the smallest median among the measured ones (ties: first by text); the
 * key's way is not read. *way NULL when there is none, else the caller frees it. */
nas_status nas_db_kernel_timing_best(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                     char **way, nas_db_kernel_timing *out);

/* nas_db_kernel_timings - all kernels with a timing of this way, device and number of threads, by kernel; *kernels and
 * *timings [n] are freed with nas_db_kernel_timings_free. */
nas_status nas_db_kernel_timings(nas_ctx *ctx, nas_db *db, const nas_db_kernel_key *key,
                                 char ***kernels, nas_db_kernel_timing **timings, size_t *n);
void nas_db_kernel_timings_free(char **kernels, nas_db_kernel_timing *timings, size_t n);

/* ---- latencies measured elsewhere, and models of devices ------------------------------------------------------------ */

typedef enum nas_db_quantity { NAS_DB_LATENCY, NAS_DB_ENERGY } nas_db_quantity;
const char *nas_db_quantity_text(nas_db_quantity quantity); /* "latency", "energy" */

/* All that is known of one device in one space of architectures. */
typedef struct nas_db_series {
    int64_t id;
    char device[96], space[64];
    nas_db_quantity quantity;
    size_t n_rows;
} nas_db_series;
/* nas_db_import_put - where the rows to come are from; sha256 of the file, "" when there is none. */
nas_status nas_db_import_put(nas_ctx *ctx, nas_db *db, const char *source, const char *format,
                             const char *sha256, int64_t *id);
/* nas_db_series_put - inserts or finds. */
nas_status nas_db_series_put(nas_ctx *ctx, nas_db *db, const char *device, const char *space,
                             nas_db_quantity quantity, int64_t *id);
/* nas_db_series_find - space NULL: the only one. NOTFOUND; INVALID when there are several. */
nas_status nas_db_series_find(nas_ctx *ctx, nas_db *db, const char *device, const char *space,
                              nas_db_quantity quantity, nas_db_series *out);

typedef struct nas_db_value {
    int64_t series_id, import_id;
    char *arch;     /* canonical text; owned by rows that nas_db_series_values gives */
    double value;   /* > 0; us or uJ */
    char *features; /* JSON array, NULL where the text says all; owned likewise */
} nas_db_value;
/* nas_db_value_put - DB error when the architecture is there already, unless `replace`. */
nas_status nas_db_value_put(nas_ctx *ctx, nas_db *db, const nas_db_value *row, bool replace);
/* nas_db_value_get - absent when the architecture was never measured. */
nas_status nas_db_value_get(nas_ctx *ctx, nas_db *db, int64_t series_id, const char *arch,
                            nas_opt_double *value);
/* nas_db_values - by architecture; caller frees. */
nas_status nas_db_series_values(nas_ctx *ctx, nas_db *db, int64_t series_id, nas_db_value **rows,
                                size_t *n);
void nas_db_series_values_free(nas_db_value *rows, size_t n);

typedef struct nas_db_model {
    int64_t series_id;
    char *predictor, *options, *quality, *model; /* quality may be NULL; owned by rows read */
} nas_db_model;
void nas_db_model_deinit(nas_db_model *row);
nas_status nas_db_model_put(nas_ctx *ctx, nas_db *db, const nas_db_model *row, int64_t *id);
/* nas_db_model_latest - NOTFOUND when there is none. */
nas_status nas_db_model_latest(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                               nas_db_model *out);

/* ---- diary --------------------------------------------------------------------------------------------------------- */

/* nas_db_event - one line of the study's diary: kind "start", "resume", "interrupt", "train", "skip", "error" ... */
nas_status nas_db_event(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *kind,
                        const char *text);
/* nas_db_meta_set / get - small durable facts of a study ("phase", "train_steps"); get: NOTFOUND; caller frees. */
nas_status nas_db_meta_set(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key,
                           const char *value);
nas_status nas_db_meta_get(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key,
                           char **value);

/* ---- rows for people ---------------------------------------------------------------------------------------------- */

/* Views (stable: columns are only added, at the end). Latencies in ms; `study` is a name, `trial` a trial's number
 * within it; *_id columns join the views and tables. Unknown is NULL.
 *   v_study        study, space, strategy, seed, trials, waiting, running, complete, pruned, fail, front (its size),
 *                  best_trial, best_psnr_y, best_latency_p50_ms, best_latency_p90_ms, device, measurements,
 *                  predictor (the meta entries "predictor..." as key=value), last_event, created, data_hash, study_id
 *   v_trial        study, trial, number (= trial), state, point, origin,
 *                  psnr_y [dB], ssim_y                 SELECT images, inherited weights
 *                  final_psnr_y [dB], final_ssim_y     REPORT images, fine-tuned, by the timed binary
 *                  latency_p50_ms, latency_p50_lo_ms, latency_p50_hi_ms (95 % interval), latency_p90_ms   measured
 *                  latency_pred_ms, latency_pred_lo_ms, latency_pred_hi_ms   the latest prediction made before the
 *                                                      trial's own measurement could enter the model
 *                  macs, params, peak_activation_bytes, arena_bytes,
 *                  feasible (1 when violation is 0), violation (sum of relative constraint violations),
 *                  noisy (1: interval still wide after repeats), attempt, reason (of PRUNED and FAIL),
 *                  final_select_psnr_y [dB], hypervolume, predictor, simulated (1: no device was timed), graph_hash,
 *                  worker, created, started, finished, study_id, trial_id,
 *                  final_latency_p50_ms, final_latency_p50_lo_ms, final_latency_p50_hi_ms, final_latency_p90_ms
 *                                                      of the artifact with the fine-tuned weights
 *                  final_violation                     of the constraints, by the final figures
 *                  queue                               the device or pool that latency_* are of: the study's first
 *                  checked                             how the output of the timed program was compared
 *   v_front        v_trial's columns; COMPLETE trials of origin "strategy" or "seed" not dominated in
 *                  (psnr_y max, latency_p50_ms min): the search values, the one basis all trials share. In a study
 *                  of several queues: the front by its objectives, as last told to the strategy
 *   v_best         v_trial's columns; of each study the feasible COMPLETE trial (origin as in v_front) that is best:
 *                  trials with final figures first and judged by them; highest PSNR on SELECT images, ties to the
 *                  lower latency, then to the earlier trial
 *   v_measurement  study, trial (NULL: drift reference), role, device, simulated, threads, latency_p50_ms,
 *                  latency_p50_lo_ms, latency_p50_hi_ms, latency_p90_ms, latency_p10_ms, latency_min_ms,
 *                  latency_mad_ms, init_ms, first_ms, noisy, drift_ratio, batch_size, batches, dropped, repeats,
 *                  n_samples, artifact_sha256, target, compiler, flags, artifact_bytes, compile_s, fingerprint,
 *                  passport (JSON), taken, study_id, trial_id, measurement_id, queue, device_info (JSON)
 *   v_latency      study, trial, role (search, final), queue, device, simulated, latency_p50_ms, latency_p50_lo_ms,
 *                  latency_p50_hi_ms, latency_p90_ms, noisy, checked, study_id, trial_id, measurement_id: of each
 *                  queue the measurement that stands
 *   v_prediction   study, trial, device, predictor, latency_pred_ms, latency_pred_lo_ms, latency_pred_hi_ms, decided,
 *                  in_sample (1: the trial had been measured), made, study_id, trial_id, prediction_id
 *   v_layer        study, trial, layer (order), node, family, h, w, c_in, c_out, kernel, macs, macs_padded, bytes,
 *                  flop_per_byte, study_id, trial_id
 *   v_class        of studies of classifiers: study, trial, state, origin, report_top1 [%] (REPORT images, fine-tuned),
 *                  tuned_top1 [%] and reward_top1 [%] (REWARD images, after and before fine-tuning), latency_p50_ms,
 *                  latency_p50_lo_ms, latency_p50_hi_ms, latency_p90_ms (the final measurement where there is one), macs,
 *                  params, violation, point, reason, study_id, trial_id
 *   v_event        study, time, kind, text, study_id, event_id
 *   v_latency_series  device, space, quantity, rows, least, mean, most, unit (ms or mJ), model, quality (JSON), series_id
 *   v_sparse       device, kernel, stride, in_c, out_c, out_h, out_w, bits, pattern, rate, dense and sparse (kernels), dense_us,
 *                  sparse_us, direct_us, gain, peak_gflops, target, fingerprint, passport (JSON), measured: what sparse
 *                  layers gain there (nas-compile --break-even, db/sparse_cells.h)
 *   v_latency_value   device, space, quantity, arch, value, unit, source, format, series_id */

/* nas_db_query - read-only SQL (one SELECT over the documented views) row by row: names and UTF-8 values, NULL for SQL
 * NULL; is_number tells JSON how to print. Stops early when the callback fails. Parameters are bound as text.
 * Numbers read back equal; a BLOB is given in hex; bytes that are not UTF-8 become U+FFFD. When no row comes, the
 * callback is not called. INVALID: not exactly one SELECT; DB: SQLite's message; CANCELLED. */
typedef nas_status (*nas_db_row_fn)(nas_ctx *ctx, void *arg, int32_t n, const char *const *names,
                                    const char *const *values, const bool *is_number);
nas_status nas_db_query(nas_ctx *ctx, nas_db *db, const char *sql, const char *const *params,
                        int32_t n_params, nas_db_row_fn fn, void *arg);

/* The questions of nas-query, ready made. */
typedef enum nas_db_report_kind {
    NAS_DB_REPORT_STUDY, /* v_study */
    NAS_DB_REPORT_FRONT, /* v_front by rising latency */
    NAS_DB_REPORT_FINAL, /* the front by final figures where there are any: the table of nas-search */
    NAS_DB_REPORT_BASELINES,    /* trials with origin baseline:*, the same columns */
    NAS_DB_REPORT_TRIALS,       /* v_trial by number */
    NAS_DB_REPORT_BEST,         /* v_best */
    NAS_DB_REPORT_TRIAL,        /* v_trial of one number, every column */
    NAS_DB_REPORT_EVENTS,       /* v_event, oldest first */
    NAS_DB_REPORT_MEASUREMENTS, /* v_measurement, oldest first; also rows of no study */
    NAS_DB_REPORT_LAYERS,       /* v_layer of one number */
    NAS_DB_REPORT_LAST_EVENTS,  /* the last five of EVENTS */
    NAS_DB_REPORT_PROFILE, /* layers of one trial that were timed alone: alone_ms on each device */
    NAS_DB_REPORT_PASSPORT, /* v_passport of the measurements of one trial, without the device's info */
    NAS_DB_REPORT_MEASUREMENT, /* v_passport of one measurement, everything */
    NAS_DB_REPORT_COUNT
} nas_db_report_kind;
/* nas_db_report - rows of one study; study NULL lists all with STUDY. `number` is read by TRIAL, LAYERS, PROFILE, PASSPORT and MEASUREMENT. In a
 * study of several queues the trials' reports have columns of each: "latency_p50_ms@s21". `brief`: the columns that fit a
 * terminal, else all that people and scripts need; the names are the views'. */
nas_status nas_db_report(nas_ctx *ctx, nas_db *db, nas_db_report_kind kind, const char *study,
                         int64_t number, bool brief, nas_db_row_fn fn, void *arg);

#endif
