/* db.h - the one SQLite file of a study: schema, migrations, typed rows. Full schema: db/schema.sql.
 *
 * One writer process owns the file (WAL, an advisory lock held for the life of the handle); readers open read-only.
 * A trial and the strategy state that produced it are committed in one transaction. Finished trials are never
 * modified. Unknown values are NULL, never 0. Units are in column names.
 * Schema changes: one numbered migration each, recorded in PRAGMA user_version.
 * Layer 1: includes core only; sqlite3.h stays in db/. */
#ifndef NAS_DB_DB_H
#define NAS_DB_DB_H

#include "core/core.h"

typedef struct nas_db nas_db;

/* nas_db_open - creates or migrates. Errors: DB with what to do: locked by another run (its pid when known), newer
 * schema, not a database, corrupt (quick_check); IO when the disk is full. */
nas_status nas_db_open(nas_ctx *ctx, const char *path, nas_db **out);
/* nas_db_open_readonly - for nas-query; works while a study writes. */
nas_status nas_db_open_readonly(nas_ctx *ctx, const char *path, nas_db **out);
/* nas_db_close - checkpoints; returns an error when that failed. NULL is a no-op. */
nas_status nas_db_close(nas_ctx *ctx, nas_db *db);
int32_t nas_db_schema_version(void);

/* Transactions do not nest. rollback after a failure inside; safe to call when none is open. */
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
    int64_t id;
    char name[96];
    char space[32];
    char strategy[32];
    uint64_t seed;
    char *config_toml;      /* owned by the row; freed by nas_db_study_deinit */
    char *config_json;      /* flattened key -> value, sorted: what "config changed" compares */
    char *strategy_state;   /* latest blob, may be NULL */
    char data_hash[NAS_SHA256_HEX];
} nas_db_study;
void nas_db_study_deinit(nas_db_study *row);
nas_status nas_db_study_insert(nas_ctx *ctx, nas_db *db, const nas_db_study *row, int64_t *id);
nas_status nas_db_study_get(nas_ctx *ctx, nas_db *db, const char *name, nas_db_study *out); /* NOTFOUND */
nas_status nas_db_study_set_strategy_state(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *state);
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
    nas_opt_double psnr_y_db, ssim_y;            /* on the SELECT split, inherited weights */
    nas_opt_double latency_p50_us, latency_p50_lo_us, latency_p50_hi_us, latency_p90_us; /* measured */
    nas_opt_i64 macs, params, peak_activation_bytes, arena_bytes;
    nas_opt_double violation;                    /* sum of relative constraint violations, 0 = feasible */
    nas_opt_double hypervolume;                  /* of the front after this trial */
    nas_opt_i64 noisy;                           /* 0/1 of the measurement used */
    /* final figures of front members: after fine-tuning, by the timed binary, on REPORT images */
    nas_opt_double final_psnr_y_db, final_ssim_y, final_select_psnr_y_db;
} nas_db_values;

typedef struct nas_db_trial {
    int64_t id;
    int64_t study_id;
    int64_t number;             /* 0.. within the study */
    nas_trial_state state;
    char *point;                /* text form of the space; owned */
    char graph_hash[NAS_SHA256_HEX];
    char origin[24];            /* "strategy", "seed", "baseline:fsrcnn", "baseline:supernet" */
    int32_t attempt;            /* 1.. */
    char *reason;               /* of PRUNED or FAIL, may be NULL; owned */
    nas_db_values values;
} nas_db_trial;
void nas_db_trial_deinit(nas_db_trial *row);

/* nas_db_trial_insert - state WAITING; number must be the next free one of the study (else DB error). */
nas_status nas_db_trial_insert(nas_ctx *ctx, nas_db *db, const nas_db_trial *row, int64_t *id);
/* nas_db_trial_lease - WAITING, or RUNNING with an expired lease or of another (dead) worker -> RUNNING;
 * attempt + 1. NOTFOUND when it is finished or leased by a living worker. */
nas_status nas_db_trial_lease(nas_ctx *ctx, nas_db *db, int64_t trial_id, const char *worker, int64_t lease_ms);
/* nas_db_trial_set_values - merges the set fields into a RUNNING trial (absent fields stay as they are). */
nas_status nas_db_trial_set_values(nas_ctx *ctx, nas_db *db, int64_t trial_id, const nas_db_values *values);
/* nas_db_trial_set_final - final figures of a COMPLETE trial; each may be set once. */
nas_status nas_db_trial_set_final(nas_ctx *ctx, nas_db *db, int64_t trial_id, const nas_db_values *values);
/* nas_db_trial_finish - RUNNING -> COMPLETE, PRUNED or FAIL with the remaining values. DB error from other states. */
nas_status nas_db_trial_finish(nas_ctx *ctx, nas_db *db, int64_t trial_id, nas_trial_state state,
                               const char *reason, const nas_db_values *values);
/* nas_db_trials - all trials of a study in order of number; caller frees with nas_db_trials_free. */
nas_status nas_db_trials(nas_ctx *ctx, nas_db *db, int64_t study_id, nas_db_trial **rows, size_t *n);
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
nas_status nas_db_trial_set_artifact(nas_ctx *ctx, nas_db *db, int64_t trial_id, int64_t artifact_id,
                                     const char *role);

/* nas_db_device_put - inserts or updates by (name, fingerprint). */
nas_status nas_db_device_put(nas_ctx *ctx, nas_db *db, const char *name, const char *connect,
                             const char *fingerprint, const char *info_json, bool simulated, int64_t *id);

typedef struct nas_db_measurement {
    int64_t trial_id;        /* 0 = none: the drift reference */
    int64_t artifact_id;     /* 0 = none: simulated */
    int64_t device_id;
    const char *role;        /* "search", "final", "reference", "baseline" */
    int32_t threads, batch_size, batches, dropped, repeats;
    bool noisy, simulated;
    double p50_us, p50_lo_us, p50_hi_us, p90_us, p10_us, min_us, mad_us;
    nas_opt_double init_us, first_us;
    nas_opt_double drift_ratio; /* reference now / reference at study start */
    const char *passport_json;  /* borrowed */
    const double *samples_us;   /* borrowed; stored as little-endian doubles in a BLOB */
    size_t n_samples;
} nas_db_measurement;
nas_status nas_db_measurement_insert(nas_ctx *ctx, nas_db *db, const nas_db_measurement *row, int64_t *id);

typedef struct nas_db_prediction {
    int64_t trial_id, device_id;
    const char *predictor;   /* id of the fitted model */
    double p50_us, lo_us, hi_us;
    bool decided;            /* the trial was skipped because of it */
} nas_db_prediction;
nas_status nas_db_prediction_insert(nas_ctx *ctx, nas_db *db, const nas_db_prediction *row);

/* nas_db_layers_put - per-layer rows of a trial's graph (v_layer); replaces those of the trial. */
typedef struct nas_db_layer {
    const char *node, *family;
    int32_t h, w, c_in, c_out, kernel;
    uint64_t macs, macs_padded, bytes;
    double intensity;
} nas_db_layer;
nas_status nas_db_layers_put(nas_ctx *ctx, nas_db *db, int64_t trial_id, const nas_db_layer *rows, size_t n);

/* nas_db_event - one line of the study's diary: kind "start", "resume", "interrupt", "train", "skip", "error" ... */
nas_status nas_db_event(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *kind, const char *text);
/* nas_db_meta_set / get - small durable facts of a study ("phase", "train_steps"); get: NOTFOUND; caller frees. */
nas_status nas_db_meta_set(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key, const char *value);
nas_status nas_db_meta_get(nas_ctx *ctx, nas_db *db, int64_t study_id, const char *key, char **value);

/* ---- rows for people ---------------------------------------------------------------------------------------------- */

/* nas_db_query - read-only SQL (one SELECT over the documented views) row by row: names and UTF-8 values, NULL for SQL
 * NULL; is_number tells JSON how to print. Stops early when the callback fails. Parameters are bound as text. */
typedef nas_status (*nas_db_row_fn)(nas_ctx *ctx, void *arg, int32_t n, const char *const *names,
                                    const char *const *values, const bool *is_number);
nas_status nas_db_query(nas_ctx *ctx, nas_db *db, const char *sql, const char *const *params, int32_t n_params,
                        nas_db_row_fn fn, void *arg);

#endif
