/* stored.c - rows of artifacts, measurements and strategies, and the options of a device: see stored.h. */
#include "search/stored.h"

#include <string.h>

nas_db_artifact nas__artifact_row(const nas_artifact *a) {
    nas_db_artifact row = {.target = a->target,
                           .compiler = a->compiler,
                           .flags = a->flags,
                           .size_bytes = a->size_bytes,
                           .arena_bytes = a->arena_bytes,
                           .compile_s = a->compile_s};
    memcpy(row.sha256, a->sha256, sizeof row.sha256);
    memcpy(row.source_sha256, a->source_sha256, sizeof row.source_sha256);
    return row;
}

nas_db_measurement nas__measurement_row(const nas_measurement *m) {
    nas_db_measurement row = {.threads = m->threads,
                              .batch_size = m->batch_size,
                              .batches = m->batches,
                              .dropped = m->dropped,
                              .repeats = m->repeats,
                              .noisy = m->noisy,
                              .simulated = m->simulated,
                              .p50_us = m->p50_us,
                              .p50_lo_us = m->p50_lo_us,
                              .p50_hi_us = m->p50_hi_us,
                              .p90_us = m->p90_us,
                              .p10_us = m->p10_us,
                              .min_us = m->min_us,
                              .mad_us = m->mad_us,
                              .passport_json = m->passport_json == NULL ? "{}" : m->passport_json,
                              .samples_us = m->samples_us,
                              .n_samples = m->n_samples};
    if (!m->simulated) {
        row.init_us = nas_some_double(m->init_us);
        row.first_us = nas_some_double(m->first_us);
    }
    return row;
}

nas_device_options nas__device_options(const nas_config_device *d, const char *agent_path) {
    nas_device_options o = nas_device_options_default();
    o.name = d->name;
    o.connect = d->connect;
    o.agent_path = agent_path;
    o.key_file = d->key_file[0] == '\0' ? NULL : d->key_file;
    o.threads = d->threads;
    o.cores = d->cores;
    o.mode = strcmp(d->mode, "sustained") == 0 ? NAS_DEVICE_SUSTAINED : NAS_DEVICE_BURST;
    o.sustained_s = d->sustained_s;
    o.frequency = d->frequency;
    o.max_temperature_c = d->max_temperature_c;
    return o;
}

nas_status nas__know_runs(nas_ctx *ctx, nas_db *db, int64_t device_id, int32_t threads,
                          nas_device *device) {
    enum { RUNS = 100 };
    nas_db_run *runs = NULL;
    size_t n = 0;
    nas_status status = nas_db_device_runs(ctx, db, device_id, threads, RUNS, &runs, &n);
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        status = nas_device_know_run(ctx, device, runs[i].sha256, runs[i].p50_us);
    nas_free(runs);
    return status;
}

nas_status nas__strategy_store(nas_ctx *ctx, nas_db *db, int64_t study_id, const nas_strategy *s) {
    nas_buf state = {0};
    nas_status status = nas_strategy_save(ctx, s, &state);
    if (status == NAS_OK) status = nas_db_study_set_strategy_state(ctx, db, study_id, state.data);
    nas_buf_deinit(&state);
    return status;
}
