/* stored.h - what both kinds of studies put into the database, and how both ask for a device. Shared inside search/ only. */
#ifndef NAS_SEARCH_STORED_H
#define NAS_SEARCH_STORED_H

#include "compiler/compiler.h"
#include "db/db.h"
#include "latency/latency.h"
#include "search/config.h"
#include "search/strategies/strategy.h"

/* nas__artifact_row, nas__measurement_row - borrow the texts and samples of their arguments; ids, role and drift are the
 * caller's to set. What a simulated device does not know is absent. */
nas_db_artifact nas__artifact_row(const nas_artifact *artifact);
nas_db_measurement nas__measurement_row(const nas_measurement *m);
/* nas__device_options - as the config has them; texts are borrowed. The folder is the caller's to set. */
nas_device_options nas__device_options(const nas_config_device *device, const char *agent_path);
/* nas__know_runs - tells a device that was just opened its earlier runs. */
nas_status nas__know_runs(nas_ctx *ctx, nas_db *db, int64_t device_id, int32_t threads,
                          nas_device *device);
/* nas__strategy_store - the strategy's state into the study's row, inside the caller's transaction. */
nas_status nas__strategy_store(nas_ctx *ctx, nas_db *db, int64_t study_id, const nas_strategy *s);

#endif
