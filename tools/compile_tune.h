/* compile_tune.h - what nas-compile knows of kernels' times: the database they are kept in, and the device they are of. */
#ifndef NAS_TOOLS_COMPILE_TUNE_H
#define NAS_TOOLS_COMPILE_TUNE_H

#include "compiler/compiler.h"
#include "db/db.h"
#include "latency/latency.h"

typedef struct nas_compile_tune_options {
    const char *db_path;  /* NULL: kernels.db in the cache folder */
    const char *device;   /* NULL: this machine; else "local", "adb:SERIAL" or "http://HOST:PORT" */
    const char *key_file; /* of an agent at http */
    double tune_s;        /* 0: nothing is measured, what is known decides */
    int32_t threads; /* of the compiled program; no more than the device has processors are timed */
    bool needs_db;   /* even when nothing is tuned */
} nas_compile_tune_options;

typedef struct nas_compile_tune {
    nas_ctx *ctx; /* of questions to the database */
    nas_db *db;   /* NULL when nothing was ever measured */
    int64_t measured;
    nas_device *device; /* NULL: this machine */
    char device_name[256];
    nas_target target; /* of the device, where nobody chose another one */
    nas_tune_memory memory;
    nas_tune_device hooks;
} nas_compile_tune;

/* nas_compile_tune_open - opens the device and the database, and fills memory, tune_* and, with a device whose row nobody chose
 * (`choose_target`), the target of `compile`. To be closed also after a failure; `t` must not move in between. */
nas_status nas_compile_tune_open(nas_ctx *ctx, const nas_compile_tune_options *options,
                                 bool choose_target, nas_compile_options *compile,
                                 nas_compile_tune *t);
nas_status nas_compile_tune_close(nas_ctx *ctx, nas_compile_tune *t);

#endif
