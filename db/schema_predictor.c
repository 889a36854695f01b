/* schema_predictor.c - the migration that makes room for latencies measured elsewhere and the models learned from them. */
#include "db/db_internal.h"

/* clang-format off */
const char *const nas__schema_predictor[] = {
"CREATE TABLE latency_imports (\n"
"  id          INTEGER PRIMARY KEY,\n"
"  source      TEXT NOT NULL,\n" /* file name, or what measured */
"  format      TEXT NOT NULL,\n"
"  sha256      TEXT,             -- of the file\n"
"  imported_ms INTEGER NOT NULL\n"
") STRICT",
"CREATE TABLE latency_series (\n"
"  id       INTEGER PRIMARY KEY,\n"
"  device   TEXT NOT NULL CHECK (length(device) > 0),\n"
"  space    TEXT NOT NULL CHECK (length(space) > 0), -- what the architectures' texts mean\n"
"  quantity TEXT NOT NULL CHECK (quantity IN ('latency', 'energy')),\n"
"  UNIQUE (device, space, quantity)\n"
") STRICT",
"CREATE TABLE latency_values (\n"
"  series_id INTEGER NOT NULL REFERENCES latency_series (id),\n"
"  arch      TEXT NOT NULL CHECK (length(arch) > 0), -- canonical text\n"
"  value     REAL NOT NULL CHECK (value > 0),        -- us of a latency, uJ of an energy\n"
"  features  TEXT,                                   -- JSON array, of networks without a text of their own\n"
"  import_id INTEGER NOT NULL REFERENCES latency_imports (id),\n"
"  PRIMARY KEY (series_id, arch)\n"
") STRICT",
"CREATE TABLE latency_models (\n"
"  id        INTEGER PRIMARY KEY,\n"
"  series_id INTEGER NOT NULL REFERENCES latency_series (id),\n"
"  predictor TEXT NOT NULL,  -- id of the model\n"
"  options   TEXT NOT NULL,  -- JSON: how it was made\n"
"  quality   TEXT,           -- JSON: on rows it has not seen\n"
"  model     TEXT NOT NULL,  -- JSON: the whole of it\n"
"  made_ms   INTEGER NOT NULL\n"
") STRICT",
"CREATE INDEX latency_models_by_series ON latency_models (series_id, id)",
"CREATE VIEW v_latency_series AS SELECT s.device, s.space, s.quantity,\n"
"  (SELECT count(*) FROM latency_values v WHERE v.series_id = s.id) AS rows,\n"
"  (SELECT min(value) FROM latency_values v WHERE v.series_id = s.id) / 1000 AS least,\n"
"  (SELECT avg(value) FROM latency_values v WHERE v.series_id = s.id) / 1000 AS mean,\n"
"  (SELECT max(value) FROM latency_values v WHERE v.series_id = s.id) / 1000 AS most,\n"
"  CASE s.quantity WHEN 'latency' THEN 'ms' ELSE 'mJ' END AS unit,\n"
"  (SELECT predictor FROM latency_models m WHERE m.series_id = s.id ORDER BY id DESC LIMIT 1) AS model,\n"
"  (SELECT quality FROM latency_models m WHERE m.series_id = s.id ORDER BY id DESC LIMIT 1) AS quality,\n"
"  s.id AS series_id FROM latency_series s",
"CREATE VIEW v_latency_value AS SELECT s.device, s.space, s.quantity, v.arch, v.value / 1000 AS value,\n"
"  CASE s.quantity WHEN 'latency' THEN 'ms' ELSE 'mJ' END AS unit, i.source, i.format, s.id AS series_id\n"
"  FROM latency_values v JOIN latency_series s ON s.id = v.series_id JOIN latency_imports i ON i.id = v.import_id",
NULL,
};
/* clang-format on */
