/* schema_devices.c - schema version 3: several devices in one study.
 *
 * A study measures in one or more queues (a device, or a pool of identical ones). trial_values keeps the latency of the
 * first queue, which is what the views call latency_*; trial_latencies has those of all. */
#include "db/db_internal.h"
#include "db/schema_views.h"

/* clang-format off */
const char *const nas__schema_3[] = {
"ALTER TABLE devices ADD COLUMN queue TEXT", /* NULL: of its own name */

"CREATE TABLE study_queues (\n"
"  study_id INTEGER NOT NULL REFERENCES studies (id),\n"
"  position INTEGER NOT NULL CHECK (position >= 0), -- 0: the queue of trial_values\n"
"  name     TEXT NOT NULL CHECK (length(name) > 0),\n"
"  PRIMARY KEY (study_id, position),\n"
"  UNIQUE (study_id, name)\n"
") STRICT",

/* The latency that stands, of possibly several measurements in the queue. */
"CREATE TABLE trial_latencies (\n"
"  trial_id       INTEGER NOT NULL REFERENCES trials (id),\n"
"  role           TEXT NOT NULL CHECK (role IN ('search', 'final')),\n"
"  queue          TEXT NOT NULL CHECK (length(queue) > 0),\n"
"  measurement_id INTEGER REFERENCES measurements (id),\n"
"  p50_us         REAL NOT NULL CHECK (p50_us > 0),\n"
"  p50_lo_us      REAL NOT NULL,             -- 95 % interval of the median\n"
"  p50_hi_us      REAL NOT NULL,\n"
"  p90_us         REAL NOT NULL CHECK (p90_us > 0),\n"
"  noisy          INTEGER NOT NULL CHECK (noisy IN (0, 1)),\n"
"  checked        TEXT,                      -- how the output of this very program was compared\n"
"  PRIMARY KEY (trial_id, role, queue)\n"
") STRICT",

/* The front by the objectives of a study with several queues, as last told. */
"CREATE TABLE fronts (\n"
"  study_id INTEGER NOT NULL REFERENCES studies (id),\n"
"  trial_id INTEGER NOT NULL REFERENCES trials (id),\n"
"  PRIMARY KEY (study_id, trial_id)\n"
") STRICT",

/* Until now a study had one device. */
"INSERT INTO study_queues (study_id, position, name)\n"
"SELECT m.study_id, 0, max(d.name) FROM measurements m JOIN devices d ON d.id = m.device_id\n"
"WHERE m.study_id IS NOT NULL GROUP BY m.study_id",
"INSERT INTO trial_latencies\n"
"SELECT t.id, 'search', q.name, (SELECT max(m.id) FROM measurements m WHERE m.trial_id = t.id AND m.p50_us = v.latency_p50_us),\n"
"  v.latency_p50_us, v.latency_p50_lo_us, v.latency_p50_hi_us, v.latency_p90_us, coalesce(v.noisy, 0), NULL\n"
"FROM trials t JOIN trial_values v ON v.trial_id = t.id JOIN study_queues q ON q.study_id = t.study_id\n"
"WHERE v.latency_p50_us IS NOT NULL AND v.latency_p50_lo_us IS NOT NULL AND v.latency_p50_hi_us IS NOT NULL\n"
"  AND v.latency_p90_us IS NOT NULL",
"INSERT INTO trial_latencies\n"
"SELECT t.id, 'final', q.name, (SELECT max(m.id) FROM measurements m WHERE m.trial_id = t.id AND m.p50_us = v.final_latency_p50_us),\n"
"  v.final_latency_p50_us, v.final_latency_p50_lo_us, v.final_latency_p50_hi_us, v.final_latency_p90_us, 0, NULL\n"
"FROM trials t JOIN trial_values v ON v.trial_id = t.id JOIN study_queues q ON q.study_id = t.study_id\n"
"WHERE v.final_latency_p50_us IS NOT NULL AND v.final_latency_p50_lo_us IS NOT NULL\n"
"  AND v.final_latency_p50_hi_us IS NOT NULL AND v.final_latency_p90_us IS NOT NULL",

"CREATE TRIGGER latency_of_finished_is_frozen BEFORE INSERT ON trial_latencies\n"
"WHEN NEW.role = 'search' AND (SELECT finished_ms FROM trials WHERE id = NEW.trial_id) IS NOT NULL\n"
"BEGIN SELECT RAISE(ABORT, 'latencies of a finished trial are never modified'); END",
"CREATE TRIGGER latency_final_of_complete BEFORE INSERT ON trial_latencies\n"
"WHEN NEW.role = 'final' AND (SELECT state FROM trials WHERE id = NEW.trial_id) <> 'COMPLETE'\n"
"BEGIN SELECT RAISE(ABORT, 'only a COMPLETE trial has final latencies'); END",
"CREATE TRIGGER latency_once_told_is_frozen BEFORE UPDATE ON trial_latencies\n"
"WHEN OLD.role = 'final' OR (SELECT finished_ms FROM trials WHERE id = OLD.trial_id) IS NOT NULL\n"
"BEGIN SELECT RAISE(ABORT, 'latencies of a finished trial are never modified'); END",
"CREATE TRIGGER latency_is_kept BEFORE DELETE ON trial_latencies\n"
"BEGIN SELECT RAISE(ABORT, 'latencies are never deleted'); END",

"DROP VIEW v_trial", "DROP VIEW v_front", "DROP VIEW v_measurement",
NAS__SCHEMA_3_VIEWS
NULL,
};
/* clang-format on */
