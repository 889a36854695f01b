/* model_new_device.c - the public side of transfer: checks, sources fitted or taken as they are, what to measure. */
#include "latency/model_internal.h"

#include <stdio.h>
#include <string.h>

static const char *device_of(const nas_latency_table *table) {
    return table->device != NULL ? table->device : "?";
}

static nas_status check_sources(nas_ctx *ctx, const nas_device_model *const *sources, size_t n,
                                const nas_latency_table *table) {
    if (n < 1 || n > NAS__SOURCES_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "transfer to device '%s' from %zu devices: 1..%d",
                        device_of(table), n, NAS__SOURCES_MAX);
    }
    for (size_t s = 0; s < n; s++) {
        if (sources[s]->transfer != NULL) {
            return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                            "source '%s' is itself transferred: give a model of its own rows",
                            sources[s]->device);
        }
        char what[128];
        (void)snprintf(what, sizeof what, "source '%s'", sources[s]->device);
        const nas_status status = nas__same_features(ctx, what, sources[s]->encoder.features,
                                                     sources[s]->encoder.n_features, table);
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

nas_status nas_device_model_transfer_from(nas_ctx *ctx, const nas_device_model *const *sources,
                                          size_t n_sources, const nas_latency_table *target,
                                          const nas_device_model_options *options,
                                          nas_device_model **out) {
    const int64_t start = nas_now_ns();
    nas_status status = nas_latency_table_check(ctx, target, true);
    if (status == NAS_OK) status = nas__check_options(ctx, options);
    if (status == NAS_OK) status = check_sources(ctx, sources, n_sources, target);
    if (status != NAS_OK) return status;
    nas_device_model *m = nas_alloc_array(ctx, 1, sizeof *m);
    if (m == NULL) return NAS_ERR_NOMEM;
    m->level = options->level;
    m->seed = options->seed;
    m->n_train = target->n_rows;
    m->device = nas_strdup(ctx, target->device != NULL ? target->device : "");
    status = m->device == NULL ? NAS_ERR_NOMEM : nas__merge_rows(ctx, target, &m->rows);
    if (status == NAS_OK && m->rows.n < NAS__TRANSFER_ROWS_MIN) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "device '%s': %zu different architectures, a transfer needs %d at least",
                          m->device, m->rows.n, NAS__TRANSFER_ROWS_MIN);
    }
    if (status == NAS_OK && m->rows.n > NAS__TRANSFER_ROWS_MAX) {
        status = nas_fail(ctx, NAS_ERR_RANGE,
                          "device '%s': %zu different architectures, a transfer takes %d at most: "
                          "fit its own model",
                          m->device, m->rows.n, NAS__TRANSFER_ROWS_MAX);
    }
    if (status == NAS_OK) status = nas__encoder_of(ctx, target, &m->encoder);
    if (status == NAS_OK) {
        status = nas__transfer_new(ctx, sources, n_sources, &m->rows, m->level, m->seed,
                                   &m->quantile, &m->transfer);
    }
    if (status != NAS_OK) {
        nas_device_model_free(m);
        return status;
    }
    (void)snprintf(m->id, sizeof m->id, "transfer-gp/1 n=%zu sources=%zu", m->n_train, n_sources);
    m->fit_s = (double)(nas_now_ns() - start) * 1e-9;
    *out = m;
    return NAS_OK;
}

static void free_models(nas_device_model **models, size_t n) {
    for (size_t s = 0; models != NULL && s < n; s++)
        nas_device_model_free(models[s]);
    nas_free(models);
}

static nas_status fit_sources(nas_ctx *ctx, const nas_latency_table *sources, size_t n_sources,
                              const nas_latency_table *target,
                              const nas_device_model_options *options, nas_device_model ***out) {
    if (n_sources < 1 || n_sources > NAS__SOURCES_MAX) {
        return nas_fail(ctx, NAS_ERR_INVALID, "transfer to device '%s' from %zu devices: 1..%d",
                        device_of(target), n_sources, NAS__SOURCES_MAX);
    }
    nas_device_model **models = nas_alloc_array(ctx, n_sources, sizeof *models);
    if (models == NULL) return NAS_ERR_NOMEM;
    nas_status status = NAS_OK;
    for (size_t s = 0; s < n_sources && status == NAS_OK; s++) {
        status = nas_device_model_fit(ctx, &sources[s], options, &models[s]);
        if (status != NAS_OK) {
            status = nas_wrap(ctx, status, "source %zu of the transfer", s);
        }
    }
    if (status != NAS_OK) {
        free_models(models, n_sources);
        return status;
    }
    *out = models;
    return NAS_OK;
}

nas_status nas_device_model_transfer(nas_ctx *ctx, const nas_latency_table *sources,
                                     size_t n_sources, const nas_latency_table *target,
                                     const nas_device_model_options *options,
                                     nas_device_model **out) {
    const int64_t start = nas_now_ns();
    nas_device_model **models = NULL;
    nas_status status = nas_latency_table_check(ctx, target, true);
    if (status == NAS_OK) status = nas__check_options(ctx, options);
    if (status == NAS_OK) status = fit_sources(ctx, sources, n_sources, target, options, &models);
    if (status != NAS_OK) return status;
    nas_device_model *m = NULL;
    status = nas_device_model_transfer_from(ctx, (const nas_device_model *const *)models, n_sources,
                                            target, options, &m);
    if (status != NAS_OK) {
        free_models(models, n_sources);
        return status;
    }
    nas__transfer_own(m->transfer, models);
    m->fit_s = (double)(nas_now_ns() - start) * 1e-9;
    *out = m;
    return NAS_OK;
}

/* ---- picks ------------------------------------------------------------------------------------------------------ */

/* order: [rows->n], the picks first. */
static void pick_randomly(const nas__merged_rows *rows, size_t count, uint64_t seed,
                          size_t *order) {
    nas_rng rng = nas_rng_stream(seed, rows->n, "device-model-pick");
    for (size_t i = 0; i < rows->n; i++)
        order[i] = i;
    for (size_t i = 0; i < count; i++) {
        const size_t j = i + nas_rng_below(&rng, (uint32_t)(rows->n - i)), t = order[i];
        order[i] = order[j];
        order[j] = t;
    }
}

/* Rows of the merged table as rows of the table: the first with the same features. */
static void rows_of_picks(const nas_latency_table *table, const nas__merged_rows *merged,
                          size_t *picks, size_t count) {
    const size_t width = table->n_features;
    for (size_t p = 0; p < count; p++) {
        const double *x = merged->x + picks[p] * width;
        for (size_t i = picks[p]; i < table->n_rows; i++) { /* merged rows keep the order */
            if (memcmp(table->x + i * width, x, width * sizeof *x) != 0) continue;
            picks[p] = i;
            break;
        }
    }
}

nas_status nas_device_model_pick_from(nas_ctx *ctx, const nas_device_model *const *sources,
                                      size_t n_sources, const nas_latency_table *candidates,
                                      nas_pick how, size_t count, uint64_t seed, size_t *index) {
    nas_status status = nas_latency_table_check(ctx, candidates, false);
    if (status == NAS_OK && how == NAS_PICK_ACTIVE) {
        status = check_sources(ctx, sources, n_sources, candidates);
    }
    if (status != NAS_OK) return status;
    nas__merged_rows merged = {0};
    nas_latency_table without = *candidates;
    without.y = NULL;
    status = nas__merge_rows(ctx, &without, &merged);
    if (status != NAS_OK) return status;
    if (count == 0 || count > merged.n) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "pick of %zu rows among %zu different candidates: must be 1..%zu", count,
                          merged.n, merged.n);
    }
    size_t *order = nas_alloc_array(ctx, merged.n, sizeof *order);
    if (status == NAS_OK && order == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) {
        switch (how) {
        case NAS_PICK_RANDOM: pick_randomly(&merged, count, seed, order); break;
        case NAS_PICK_ACTIVE:
            status = nas__transfer_pick(ctx, sources, n_sources, &merged, count, seed, order);
            break;
        }
    }
    if (status == NAS_OK) {
        rows_of_picks(candidates, &merged, order, count);
        memcpy(index, order, count * sizeof *index);
    }
    nas_free(order);
    nas__merged_rows_deinit(&merged);
    return status;
}

nas_status nas_device_model_pick(nas_ctx *ctx, const nas_latency_table *sources, size_t n_sources,
                                 const nas_latency_table *candidates, nas_pick how, size_t count,
                                 uint64_t seed, size_t *index) {
    if (how == NAS_PICK_RANDOM) {
        return nas_device_model_pick_from(ctx, NULL, 0, candidates, how, count, seed, index);
    }
    nas_device_model_options options = nas_device_model_options_default();
    options.seed = seed;
    nas_device_model **models = NULL;
    nas_status status = fit_sources(ctx, sources, n_sources, candidates, &options, &models);
    if (status != NAS_OK) return status;
    status = nas_device_model_pick_from(ctx, (const nas_device_model *const *)models, n_sources,
                                        candidates, how, count, seed, index);
    free_models(models, n_sources);
    return status;
}
