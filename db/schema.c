/* schema.c - the schema as numbered migrations: the text below is what every study database contains.
 *
 * Migration i (from 1) takes a file from user_version i - 1 to i; all that are missing run in one transaction. A
 * released migration is never edited: a change is a new list at the end of nas_db_migrations, which may rebuild tables
 * and views (foreign keys are off meanwhile and checked before the commit).
 *
 * Conventions: STRICT tables (with rowids: SQLite 3.40's integrity_check reports false NULLs in some tables without); ids are rowids; times *_ms are milliseconds since 1970 UTC; unknown is NULL; every number
 * carries its unit in its name. The rules a program error must not break are CHECKs and triggers, so that they also
 * hold for a database shell. The views for people are in schema_views.c. */
#include "db/db_internal.h"
#include "db/schema_views.h"

/* clang-format off */
const char *const nas__schema_1[] = {
"CREATE TABLE studies (\n"
"  id          INTEGER PRIMARY KEY,\n"
"  name        TEXT NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 95),\n"
"  space       TEXT NOT NULL CHECK (length(space) BETWEEN 1 AND 31),\n"
"  strategy    TEXT NOT NULL CHECK (length(strategy) BETWEEN 1 AND 31),\n"
"  seed        INTEGER NOT NULL,             -- the 64 bits of the unsigned seed\n"
"  config_toml TEXT NOT NULL,                -- the file as it was read\n"
"  config_json TEXT NOT NULL,                -- every effective key, sorted\n"
"  data_hash   TEXT CHECK (length(data_hash) = 64),\n"
"  created_ms  INTEGER NOT NULL\n"
") STRICT",

/* The strategy's state (its RNG included), written in the transaction of the ask or tell that changed it. */
"CREATE TABLE strategy_states (\n"
"  study_id   INTEGER PRIMARY KEY REFERENCES studies (id),\n"
"  state      TEXT NOT NULL,\n"
"  updated_ms INTEGER NOT NULL\n"
") STRICT",

"CREATE TABLE trials (\n"
"  id             INTEGER PRIMARY KEY,\n"
"  study_id       INTEGER NOT NULL REFERENCES studies (id),\n"
"  number         INTEGER NOT NULL CHECK (number >= 0),\n"
"  state          TEXT NOT NULL CHECK (state IN ('WAITING', 'RUNNING', 'COMPLETE', 'PRUNED', 'FAIL')),\n"
"  point          TEXT NOT NULL,             -- text form of the search space\n"
"  graph_hash     TEXT CHECK (length(graph_hash) = 64),\n"
"  origin         TEXT NOT NULL CHECK (length(origin) BETWEEN 1 AND 23), -- strategy, seed, baseline:<name>\n"
"  attempt        INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0),      -- leases so far\n"
"  worker         TEXT,                      -- who runs it, or ran it last\n"
"  lease_owner    TEXT,                      -- handle that gave the lease; another handle's process is dead\n"
"  lease_until_ms INTEGER,\n"
"  reason         TEXT,                      -- why PRUNED or FAIL\n"
"  created_ms     INTEGER NOT NULL,\n"
"  started_ms     INTEGER,                   -- of the last attempt\n"
"  finished_ms    INTEGER,\n"
"  UNIQUE (study_id, number),\n"
"  CHECK ((finished_ms IS NOT NULL) = (state IN ('COMPLETE', 'PRUNED', 'FAIL'))),\n"
"  CHECK (state <> 'RUNNING' OR (worker IS NOT NULL AND lease_owner IS NOT NULL AND lease_until_ms IS NOT NULL)),\n"
"  CHECK (reason IS NULL OR state IN ('PRUNED', 'FAIL'))\n"
") STRICT",

/* One row a trial, made with it: what it has learned. latency_* are measured, never predicted. */
"CREATE TABLE trial_values (\n"
"  trial_id              INTEGER PRIMARY KEY REFERENCES trials (id),\n"
"  psnr_y_db             REAL,               -- SELECT images, inherited weights\n"
"  ssim_y                REAL,\n"
"  latency_p50_us        REAL CHECK (latency_p50_us > 0),\n"
"  latency_p50_lo_us     REAL,               -- 95 % interval of the median\n"
"  latency_p50_hi_us     REAL,\n"
"  latency_p90_us        REAL CHECK (latency_p90_us > 0),\n"
"  macs                  INTEGER CHECK (macs >= 0),\n"
"  params                INTEGER CHECK (params >= 0),\n"
"  peak_activation_bytes INTEGER CHECK (peak_activation_bytes >= 0),\n"
"  arena_bytes           INTEGER CHECK (arena_bytes >= 0),\n"
"  violation             REAL CHECK (violation >= 0), -- sum of relative violations, 0 = feasible\n"
"  hypervolume           REAL,               -- of the front after this trial\n"
"  noisy                 INTEGER CHECK (noisy IN (0, 1)),\n"
"  final_psnr_y_db       REAL,               -- REPORT images, after fine-tuning, by the timed binary\n"
"  final_ssim_y          REAL,\n"
"  final_select_psnr_y_db REAL,              -- SELECT images, after fine-tuning\n"
"  final_latency_p50_us  REAL CHECK (final_latency_p50_us > 0), -- measurement with role 'final'\n"
"  final_latency_p50_lo_us REAL,\n"
"  final_latency_p50_hi_us REAL,\n"
"  final_latency_p90_us  REAL CHECK (final_latency_p90_us > 0),\n"
"  final_violation       REAL CHECK (final_violation >= 0) -- of the constraints, by the final figures\n"
") STRICT",

"CREATE TABLE artifacts (\n"
"  id            INTEGER PRIMARY KEY,\n"
"  sha256        TEXT NOT NULL UNIQUE CHECK (length(sha256) = 64),\n"
"  source_sha256 TEXT CHECK (length(source_sha256) = 64),\n"
"  target        TEXT NOT NULL,\n"
"  compiler      TEXT NOT NULL,\n"
"  flags         TEXT NOT NULL,\n"
"  size_bytes    INTEGER NOT NULL CHECK (size_bytes >= 0),\n"
"  arena_bytes   INTEGER NOT NULL CHECK (arena_bytes >= 0),\n"
"  compile_s     REAL NOT NULL CHECK (compile_s >= 0),\n"
"  created_ms    INTEGER NOT NULL\n"
") STRICT",

"CREATE TABLE trial_artifacts (\n"
"  trial_id    INTEGER NOT NULL REFERENCES trials (id),\n"
"  artifact_id INTEGER NOT NULL REFERENCES artifacts (id),\n"
"  role        TEXT NOT NULL CHECK (role IN ('search', 'final')),\n"
"  PRIMARY KEY (trial_id, role)\n"
") STRICT",

"CREATE TABLE devices (\n"
"  id            INTEGER PRIMARY KEY,\n"
"  name          TEXT NOT NULL,\n"
"  connect       TEXT NOT NULL,\n"
"  fingerprint   TEXT NOT NULL,              -- numbers of two fingerprints are not compared\n"
"  info_json     TEXT NOT NULL,\n"
"  simulated     INTEGER NOT NULL CHECK (simulated IN (0, 1)),\n"
"  first_seen_ms INTEGER NOT NULL,\n"
"  last_seen_ms  INTEGER NOT NULL,\n"
"  UNIQUE (name, fingerprint)\n"
") STRICT",

/* Rows are only added. A reference measurement (drift control) belongs to no trial. */
"CREATE TABLE measurements (\n"
"  id           INTEGER PRIMARY KEY,\n"
"  study_id     INTEGER REFERENCES studies (id),\n"
"  trial_id     INTEGER REFERENCES trials (id),\n"
"  artifact_id  INTEGER REFERENCES artifacts (id),\n"
"  device_id    INTEGER NOT NULL REFERENCES devices (id),\n"
"  role         TEXT NOT NULL CHECK (role IN ('search', 'final', 'reference', 'baseline')),\n"
"  threads      INTEGER NOT NULL CHECK (threads >= 1),\n"
"  batch_size   INTEGER NOT NULL CHECK (batch_size >= 0),\n"
"  batches      INTEGER NOT NULL CHECK (batches >= 0),\n"
"  dropped      INTEGER NOT NULL CHECK (dropped >= 0),\n"
"  repeats      INTEGER NOT NULL CHECK (repeats >= 0),\n"
"  noisy        INTEGER NOT NULL CHECK (noisy IN (0, 1)),\n"
"  simulated    INTEGER NOT NULL CHECK (simulated IN (0, 1)),\n"
"  p50_us       REAL NOT NULL CHECK (p50_us > 0),\n"
"  p50_lo_us    REAL NOT NULL,\n"
"  p50_hi_us    REAL NOT NULL,\n"
"  p90_us       REAL NOT NULL,\n"
"  p10_us       REAL NOT NULL,\n"
"  min_us       REAL NOT NULL,\n"
"  mad_us       REAL NOT NULL,\n"
"  init_us      REAL,\n"
"  first_us     REAL,\n"
"  drift_ratio  REAL,                        -- reference now / reference at study start\n"
"  passport     TEXT,                        -- JSON: probes before and after, limits, pinning, agent version\n"
"  samples_us   BLOB NOT NULL,               -- little-endian float64, kept samples in order\n"
"  n_samples    INTEGER NOT NULL CHECK (length(samples_us) = 8 * n_samples),\n"
"  taken_ms     INTEGER NOT NULL,\n"
"  CHECK (trial_id IS NOT NULL OR role = 'reference')\n"
") STRICT",
"CREATE INDEX measurements_by_trial ON measurements (trial_id, device_id)",

/* in_sample 1: the trial was already measured on the device, so the model may have seen the answer. */
"CREATE TABLE predictions (\n"
"  id        INTEGER PRIMARY KEY,\n"
"  trial_id  INTEGER NOT NULL REFERENCES trials (id),\n"
"  device_id INTEGER NOT NULL REFERENCES devices (id),\n"
"  predictor TEXT NOT NULL,\n"
"  p50_us    REAL NOT NULL,\n"
"  lo_us     REAL NOT NULL,\n"
"  hi_us     REAL NOT NULL,\n"
"  decided   INTEGER NOT NULL CHECK (decided IN (0, 1)), -- the trial was skipped because of it\n"
"  in_sample INTEGER NOT NULL CHECK (in_sample IN (0, 1)),\n"
"  made_ms   INTEGER NOT NULL\n"
") STRICT",
"CREATE INDEX predictions_by_trial ON predictions (trial_id)",

"CREATE TABLE layers (\n"
"  trial_id    INTEGER NOT NULL REFERENCES trials (id),\n"
"  layer       INTEGER NOT NULL CHECK (layer >= 0), -- order of execution\n"
"  node        TEXT NOT NULL,\n"
"  family      TEXT NOT NULL,\n"
"  h           INTEGER NOT NULL,\n"
"  w           INTEGER NOT NULL,\n"
"  c_in        INTEGER NOT NULL,\n"
"  c_out       INTEGER NOT NULL,\n"
"  kernel      INTEGER NOT NULL,\n"
"  macs        INTEGER NOT NULL,\n"
"  macs_padded INTEGER NOT NULL,\n"
"  bytes       INTEGER NOT NULL,\n"
"  flop_per_byte REAL NOT NULL,\n"
"  PRIMARY KEY (trial_id, layer)\n"
") STRICT",

"CREATE TABLE meta (\n"
"  study_id   INTEGER NOT NULL REFERENCES studies (id),\n"
"  key        TEXT NOT NULL,\n"
"  value      TEXT NOT NULL,\n"
"  updated_ms INTEGER NOT NULL,\n"
"  PRIMARY KEY (study_id, key)\n"
") STRICT",

"CREATE TABLE events (\n"
"  id       INTEGER PRIMARY KEY,\n"
"  study_id INTEGER NOT NULL REFERENCES studies (id),\n"
"  time_ms  INTEGER NOT NULL,\n"
"  kind     TEXT NOT NULL,\n"
"  text     TEXT NOT NULL\n"
") STRICT",
"CREATE INDEX events_by_study ON events (study_id)",

/* ---- rules: numbers without gaps, one way through the states, finished means frozen ---- */
"CREATE TRIGGER trial_number_is_the_next BEFORE INSERT ON trials\n"
"WHEN NEW.number <> (SELECT coalesce(max(number) + 1, 0) FROM trials WHERE study_id = NEW.study_id)\n"
"BEGIN SELECT RAISE(ABORT, 'the number is not the next free one of the study'); END",
"CREATE TRIGGER trial_starts_waiting BEFORE INSERT ON trials WHEN NEW.state <> 'WAITING'\n"
"BEGIN SELECT RAISE(ABORT, 'a new trial is WAITING'); END",
"CREATE TRIGGER trial_has_values AFTER INSERT ON trials\n"
"BEGIN INSERT INTO trial_values (trial_id) VALUES (NEW.id); END",
"CREATE TRIGGER trial_finished_is_frozen BEFORE UPDATE ON trials WHEN OLD.finished_ms IS NOT NULL\n"
"BEGIN SELECT RAISE(ABORT, 'a finished trial is never modified'); END",
"CREATE TRIGGER trial_identity_is_frozen BEFORE UPDATE OF id, study_id, number, point, graph_hash, origin ON trials\n"
"BEGIN SELECT RAISE(ABORT, 'number, point and origin of a trial never change'); END",
"CREATE TRIGGER trial_finishes_from_running BEFORE UPDATE OF state ON trials\n"
"WHEN NEW.state IN ('COMPLETE', 'PRUNED', 'FAIL') AND OLD.state <> 'RUNNING'\n"
"BEGIN SELECT RAISE(ABORT, 'only a RUNNING trial can finish'); END",
"CREATE TRIGGER trial_is_kept BEFORE DELETE ON trials\n"
"BEGIN SELECT RAISE(ABORT, 'trials are never deleted'); END",

"CREATE TRIGGER trial_values_are_one_row BEFORE INSERT ON trial_values\n"
"WHEN EXISTS (SELECT 1 FROM trial_values WHERE trial_id = NEW.trial_id)\n"
"BEGIN SELECT RAISE(ABORT, 'a trial has one row of values'); END",
"CREATE TRIGGER trial_values_are_kept BEFORE DELETE ON trial_values\n"
"BEGIN SELECT RAISE(ABORT, 'values of a trial are never deleted'); END",
"CREATE TRIGGER trial_values_finished_are_frozen BEFORE UPDATE OF trial_id, psnr_y_db, ssim_y, latency_p50_us,\n"
"  latency_p50_lo_us, latency_p50_hi_us, latency_p90_us, macs, params, peak_activation_bytes, arena_bytes,\n"
"  violation, hypervolume, noisy ON trial_values\n"
"WHEN (SELECT finished_ms FROM trials WHERE id = OLD.trial_id) IS NOT NULL\n"
"BEGIN SELECT RAISE(ABORT, 'search values of a finished trial are never modified'); END",
"CREATE TRIGGER trial_values_final_of_complete BEFORE UPDATE OF final_psnr_y_db, final_ssim_y, final_select_psnr_y_db, final_latency_p50_us,\n"
"  final_latency_p50_lo_us, final_latency_p50_hi_us, final_latency_p90_us, final_violation ON trial_values\n"
"WHEN (SELECT state FROM trials WHERE id = OLD.trial_id) <> 'COMPLETE'\n"
"BEGIN SELECT RAISE(ABORT, 'only a COMPLETE trial has final figures'); END",
"CREATE TRIGGER trial_values_final_once BEFORE UPDATE OF final_psnr_y_db, final_ssim_y, final_select_psnr_y_db, final_latency_p50_us,\n"
"  final_latency_p50_lo_us, final_latency_p50_hi_us, final_latency_p90_us, final_violation ON trial_values\n"
"WHEN (OLD.final_psnr_y_db IS NOT NULL AND NEW.final_psnr_y_db IS NOT OLD.final_psnr_y_db)\n"
"  OR (OLD.final_ssim_y IS NOT NULL AND NEW.final_ssim_y IS NOT OLD.final_ssim_y)\n"
"  OR (OLD.final_select_psnr_y_db IS NOT NULL AND NEW.final_select_psnr_y_db IS NOT OLD.final_select_psnr_y_db)\n"
"  OR (OLD.final_latency_p50_us IS NOT NULL AND NEW.final_latency_p50_us IS NOT OLD.final_latency_p50_us)\n"
"  OR (OLD.final_latency_p50_lo_us IS NOT NULL AND NEW.final_latency_p50_lo_us IS NOT OLD.final_latency_p50_lo_us)\n"
"  OR (OLD.final_latency_p50_hi_us IS NOT NULL AND NEW.final_latency_p50_hi_us IS NOT OLD.final_latency_p50_hi_us)\n"
"  OR (OLD.final_latency_p90_us IS NOT NULL AND NEW.final_latency_p90_us IS NOT OLD.final_latency_p90_us)\n"
"  OR (OLD.final_violation IS NOT NULL AND NEW.final_violation IS NOT OLD.final_violation)\n"
"BEGIN SELECT RAISE(ABORT, 'final figures are set once'); END",
"CREATE TRIGGER trial_artifact_of_finished_is_frozen BEFORE UPDATE ON trial_artifacts\n"
"WHEN OLD.role = 'search' AND NEW.artifact_id <> OLD.artifact_id\n"
"  AND (SELECT finished_ms FROM trials WHERE id = OLD.trial_id) IS NOT NULL\n"
"BEGIN SELECT RAISE(ABORT, 'the artifact of a finished trial never changes'); END",
"CREATE TRIGGER measurement_is_frozen BEFORE UPDATE ON measurements\n"
"BEGIN SELECT RAISE(ABORT, 'measurements are never modified'); END",
"CREATE TRIGGER measurement_is_kept BEFORE DELETE ON measurements\n"
"BEGIN SELECT RAISE(ABORT, 'measurements are never deleted'); END",

NAS__SCHEMA_1_VIEWS
NULL,
};

/* What a tuner has measured. Belongs to no study: it stays true as long as kernel text, compiler and processor are the
 * same, and all of them are in the key. The order of the key serves "best way of this kernel on this device". */
const char *const nas__schema_2[] = {
"CREATE TABLE kernel_timings (\n"
"  kernel      TEXT NOT NULL CHECK (length(kernel) > 0), -- shape, type and pattern\n"
"  device      TEXT NOT NULL CHECK (length(device) > 0), -- processor, target and compiler\n"
"  threads     INTEGER NOT NULL CHECK (threads >= 1),\n"
"  way         TEXT NOT NULL CHECK (length(way) > 0),    -- algorithm and its tile\n"
"  p50_ns      REAL NOT NULL CHECK (p50_ns > 0),\n"
"  lo_ns       REAL NOT NULL CHECK (lo_ns > 0 AND lo_ns <= p50_ns), -- quartiles\n"
"  hi_ns       REAL NOT NULL CHECK (hi_ns >= p50_ns),\n"
"  runs        INTEGER NOT NULL CHECK (runs >= 1),\n"
"  measured_ms INTEGER NOT NULL,\n"
"  PRIMARY KEY (kernel, device, threads, way)\n"
") STRICT",
NULL,
};
/* clang-format on */

const nas_db_migration *nas_db_migrations(int32_t *n) {
    static const nas_db_migration list[] = {
        {"studies, trials, measurements, predictions and their views", nas__schema_1},
        {"timings of kernels", nas__schema_2},
        {"several devices in one study", nas__schema_3},
        {"top-1 of classifiers", nas__schema_classes},
        {"latencies measured elsewhere and models of devices", nas__schema_predictor},
        {"what sparse layers gain", nas__schema_sparse},
        {"bytes and bit operations of compressed classifiers", nas__schema_levels},
        {"finalists among compressed classifiers", nas__schema_finalists},
    };
    *n = (int32_t)(sizeof list / sizeof list[0]);
    return list;
}

int32_t nas_db_schema_version(void) {
    int32_t n = 0;
    (void)nas_db_migrations(&n);
    return n;
}
