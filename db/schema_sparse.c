/* schema_sparse.c - the migration that makes room for what sparse layers gain on a device. */
#include "db/db_internal.h"

/* clang-format off */
const char *const nas__schema_sparse[] = {
"CREATE TABLE sparse_cells (\n"
"  fingerprint  TEXT NOT NULL CHECK (length(fingerprint) > 0),\n"
"  device       TEXT NOT NULL CHECK (length(device) > 0),\n"
"  target       TEXT NOT NULL,\n"
"  kernel       INTEGER NOT NULL CHECK (kernel >= 1),\n"
"  stride       INTEGER NOT NULL CHECK (stride >= 1),\n"
"  in_c         INTEGER NOT NULL CHECK (in_c >= 1),\n"
"  out_c        INTEGER NOT NULL CHECK (out_c >= 1),\n"
"  out_h        INTEGER NOT NULL CHECK (out_h >= 1),\n"
"  out_w        INTEGER NOT NULL CHECK (out_w >= 1),\n"
"  bits         INTEGER NOT NULL CHECK (bits IN (8, 32)),\n"
"  pattern      TEXT NOT NULL CHECK (length(pattern) > 0),\n"
"  rate         REAL NOT NULL CHECK (rate BETWEEN 0 AND 1),\n"
"  dense        TEXT NOT NULL,\n"
"  sparse       TEXT NOT NULL,\n"
"  dense_ns     REAL NOT NULL CHECK (dense_ns > 0),\n"
"  sparse_ns    REAL NOT NULL CHECK (sparse_ns > 0),\n"
"  direct_ns    REAL CHECK (direct_ns > 0),\n"
"  peak_gflops  REAL CHECK (peak_gflops > 0),\n"
"  passport     TEXT,\n"
"  measured_ms  INTEGER NOT NULL,\n"
"  PRIMARY KEY (fingerprint, kernel, stride, in_c, out_c, out_h, out_w, bits, pattern, rate)\n"
") STRICT",
"CREATE VIEW v_sparse AS SELECT device, kernel, stride, in_c, out_c, out_h, out_w, bits, pattern, rate, dense, sparse,\n"
"  dense_ns / 1000 AS dense_us, sparse_ns / 1000 AS sparse_us, direct_ns / 1000 AS direct_us,\n"
"  dense_ns / sparse_ns AS gain, peak_gflops, target, fingerprint, passport,\n"
"  strftime('%Y-%m-%dT%H:%M:%SZ', measured_ms / 1000, 'unixepoch') AS measured FROM sparse_cells",
NULL,
};
/* clang-format on */
