/* latency_commands.h - the command line of nas-latency in one struct, and its commands. Shared inside tools/. */
#ifndef NAS_TOOLS_LATENCY_COMMANDS_H
#define NAS_TOOLS_LATENCY_COMMANDS_H

#include "core/rows.h"
#include "db/db.h"
#include "latency/model.h"
#include "tools/latency_import.h"

typedef struct nas_latency_args {
    const char *command, *db;
    const char *space, *device, *from; /* space NULL: the device's only one; from: "A,B,C" */
    const char *arch_columns, *value_column, *format; /* import */
    const char *arch, *onnx, *recipe, *model, *kernels;
    nas_unit unit;
    nas_db_quantity quantity;
    nas_pick pick;
    int64_t train, test;           /* 0: not given; test -1: the rest */
    int64_t samples, source_train; /* transfer */
    int64_t threads;
    uint64_t seed;
    double time_s, target_error; /* collect */
    bool replace;
    nas_rows_format rows; /* -f */
    const char *const *files;
    size_t n_files;
} nas_latency_args;

nas_status nas_latency_import(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_fit(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_transfer(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_eval(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_predict(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_explain(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_list(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_export(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
nas_status nas_latency_collect(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);

/* nas_latency_print - one JSON object to stdout: as it is (json), or its simple members as a record. */
nas_status nas_latency_print(nas_ctx *ctx, const nas_latency_args *args, const nas_buf *json);

/* nas_latency_read_csv - a table of the columns that args name, checked. */
nas_status nas_latency_read_csv(nas_ctx *ctx, const nas_latency_args *args,
                                const nas_encoder *encoder, const char *file, nas_import *out);

/* A device's latest model with what is needed to use it. */
typedef struct nas_loaded_model {
    nas_db_series series;
    nas_encoder *encoder;
    nas_device_model *model;
    nas_db_model row;
} nas_loaded_model;
nas_status nas_latency_model_load(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                                  const char *space, nas_loaded_model *out);
void nas_loaded_model_deinit(nas_loaded_model *model);
/* nas_latency_model_store - keeps a model of the series with how it was made and what it is worth (quality NULL: unknown). */
nas_status nas_latency_model_store(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                                   const nas_device_model *model, const nas_buf *options,
                                   const char *quality);

#endif
