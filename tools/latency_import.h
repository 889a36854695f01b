/* latency_import.h - files of measurements into checked rows: CSV tables, logs of TFLite's benchmark_model, Google Benchmark's
 * JSON or console output. Parsers work on text in memory and write nothing: all mistakes are found, with their rows,
 * before anything is stored. Shared inside tools/ and by fuzz/. */
#ifndef NAS_TOOLS_LATENCY_IMPORT_H
#define NAS_TOOLS_LATENCY_IMPORT_H

#include "db/db.h"
#include "tools/latency_encode.h"

typedef enum nas_unit {
    NAS_UNIT_NONE,
    NAS_UNIT_S,
    NAS_UNIT_MS,
    NAS_UNIT_US,
    NAS_UNIT_NS,
    NAS_UNIT_J,
    NAS_UNIT_MJ,
    NAS_UNIT_UJ
} nas_unit;
nas_status nas_unit_parse(nas_ctx *ctx, const char *text, nas_unit *out); /* "ms", "us", ... "mJ" */
nas_db_quantity nas_unit_quantity(nas_unit unit);

typedef struct nas_import_row {
    char *arch;   /* canonical; owned */
    double value; /* us or uJ */
    size_t row;   /* in the file */
} nas_import_row;

typedef struct nas_import {
    nas_import_row *rows;
    size_t n, cap;
    /* mistakes: how many, and the first NAS_IMPORT_MISTAKES of them as lines "row 7: ..." */
    size_t n_mistakes;
    nas_buf mistakes;
} nas_import;
enum { NAS_IMPORT_MISTAKES = 20 };
void nas_import_deinit(nas_import *import);

typedef struct nas_import_options {
    const char
        *arch_columns; /* CSV: a name, or several with commas: "ks,expand,depth,resolution" become
                                 "ks=...; expand=...; ..." */
    const char *value_column; /* CSV */
    nas_unit unit;            /* CSV: NONE takes it from the column's name (..._ms) */
    const char *arch;         /* logs: the architecture of the one result; NULL: names in the log */
} nas_import_options;

/* Each changes `text` (len bytes and a NUL behind them). A row that is wrong is a mistake in `out`; a text that is not of
 * the format at all, or lacks a column, is an error. `encoder` decides what an architecture is. */
nas_status nas_import_csv(nas_ctx *ctx, const nas_encoder *encoder,
                          const nas_import_options *options, char *text, size_t len,
                          nas_import *out);
nas_status nas_import_benchmark_model(nas_ctx *ctx, const nas_encoder *encoder,
                                      const nas_import_options *options, char *text, size_t len,
                                      nas_import *out);
nas_status nas_import_google_benchmark(nas_ctx *ctx, const nas_encoder *encoder,
                                       const nas_import_options *options, char *text, size_t len,
                                       nas_import *out);
/* nas_import_check - architectures given twice become mistakes; INVALID with all of them when there are any, or no row. */
nas_status nas_import_check(nas_ctx *ctx, nas_import *import, const char *file);

#endif
