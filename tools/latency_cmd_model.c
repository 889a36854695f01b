/* latency_cmd_model.c - `nas-latency fit`, `transfer`, `eval`: models from rows, judged on rows they have not seen. */
#include "tools/latency_commands.h"
#include "tools/latency_data.h"
#include "tools/latency_study.h"

#include <string.h>

/* ---- models in the database -------------------------------------------------------------------------------------------- */

nas_status nas_latency_model_store(nas_ctx *ctx, nas_db *db, const nas_db_series *series,
                                   const nas_device_model *model, const nas_buf *options,
                                   const char *quality) {
    nas_buf text = {0};
    nas_status status = nas_device_model_save(ctx, model, &text);
    if (status == NAS_OK) status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas_buf_status(ctx, options);
    if (status == NAS_OK) {
        const nas_db_model row = {.series_id = series->id,
                                  .predictor = (char *)(uintptr_t)nas_device_model_id(model),
                                  .options = options->data,
                                  .quality = (char *)(uintptr_t)quality,
                                  .model = text.data};
        int64_t id = 0;
        status = nas_db_model_put(ctx, db, &row, &id);
    }
    nas_buf_deinit(&text);
    return status;
}

void nas_loaded_model_deinit(nas_loaded_model *m) {
    nas_db_model_deinit(&m->row);
    nas_device_model_free(m->model);
    nas_encoder_free(m->encoder);
    *m = (nas_loaded_model){0};
}

nas_status nas_latency_model_load(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                                  const char *space, nas_loaded_model *out) {
    nas_loaded_model m = {0};
    nas_status status = nas_db_series_find(ctx, db, args->device, space, args->quantity, &m.series);
    if (status == NAS_OK) status = nas_db_model_latest(ctx, db, &m.series, &m.row);
    if (status == NAS_OK) status = nas_encoder_new(ctx, m.series.space, &m.encoder);
    if (status == NAS_OK)
        status = nas_device_model_load(ctx, m.row.model, strlen(m.row.model), &m.model);
    if (status != NAS_OK) {
        nas_loaded_model_deinit(&m);
        return status;
    }
    *out = m;
    return NAS_OK;
}

/* ---- what is printed ----------------------------------------------------------------------------------------------------- */

static void put_text(nas_json *j, const char *key, const char *value) {
    nas_json_key(j, key);
    nas_json_string(j, value);
}

/* The members of `quality` (an object) after device, space and model, as one object. */
static void report(const nas_db_series *series, const nas_device_model *model, const char *quality,
                   const char *options, nas_buf *out) {
    nas_json j = nas_json_begin(out);
    nas_json_object(&j);
    put_text(&j, "device", series->device);
    put_text(&j, "space", series->space);
    put_text(&j, "quantity", nas_db_quantity_text(series->quantity));
    put_text(&j, "unit", series->quantity == NAS_DB_LATENCY ? "ms" : "mJ");
    put_text(&j, "model", nas_device_model_id(model));
    const char *open = quality == NULL ? NULL : strchr(quality, '{');
    const char *close = quality == NULL ? NULL : strrchr(quality, '}');
    if (open != NULL && close != NULL && close > open + 1) {
        nas_buf_puts(out, ",");
        nas_buf_append(out, open + 1, (size_t)(close - open - 1));
    }
    nas_json_key(&j, "options");
    nas_json_raw(&j, options);
    nas_json_object_end(&j);
}

static nas_status finish(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                         const nas_db_series *series, const nas_device_model *model,
                         const char *quality, const nas_buf *options) {
    nas_buf json = {0};
    nas_status status = nas_latency_model_store(ctx, db, series, model, options, quality);
    if (status == NAS_OK) {
        report(series, model, quality, options->data, &json);
        status = nas_latency_print(ctx, args, &json);
    }
    nas_buf_deinit(&json);
    return status;
}

static nas_device_model_options model_options(const nas_latency_args *args) {
    nas_device_model_options o = nas_device_model_options_default();
    if (args->model != NULL) o.model = args->model;
    o.seed = args->seed;
    return o;
}

/* Quality on rows index[0..count) as JSON; fit_s is the caller's. Fewer than two rows: nothing. */
static nas_status judge(nas_ctx *ctx, const nas_encoder *encoder, const nas_device_model *model,
                        const nas_latency_data *data, const size_t *index, size_t count,
                        double fit_s, nas_buf *out) {
    if (count < 2) return NAS_OK;
    nas_owned_table test = {0};
    nas_device_model_quality quality = {0};
    nas_status status = nas_latency_data_table(ctx, encoder, data, index, count, &test);
    if (status == NAS_OK) status = nas_device_model_evaluate(ctx, model, &test.table, &quality);
    nas_owned_table_deinit(&test);
    if (status != NAS_OK) return status;
    if (fit_s > 0) quality.fit_s = fit_s;
    nas_device_model_quality_json(&quality, out);
    return nas_buf_status(ctx, out);
}

static double seconds_since(int64_t start_ns) {
    return (double)(nas_now_ns() - start_ns) * 1e-9;
}

/* ---- fit ----------------------------------------------------------------------------------------------------------------- */

/* How many rows train and test. Without --train: four fifths judge the kind of model, all rows make the one kept. */
static nas_status split(nas_ctx *ctx, const nas_latency_args *args, size_t n, size_t *train,
                        size_t *test) {
    *train = args->train > 0 ? (size_t)args->train : n - n / 5;
    if (*train > n)
        return nas_fail(ctx, NAS_ERR_RANGE, "--train %zu: the device has %zu rows", *train, n);
    *test = n - *train;
    if (args->test > 0 && (size_t)args->test > *test)
        return nas_fail(ctx, NAS_ERR_RANGE, "--test %" PRId64 ": %zu rows are left", args->test,
                        *test);
    if (args->test > 0) *test = (size_t)args->test;
    return NAS_OK;
}

static nas_status fit_rows(nas_ctx *ctx, const nas_latency_args *args, const nas_encoder *encoder,
                           const nas_latency_data *data, const size_t *index, size_t count,
                           nas_device_model **out, double *fit_s) {
    const nas_device_model_options options = model_options(args);
    nas_owned_table table = {0};
    nas_status status = nas_latency_data_table(ctx, encoder, data, index, count, &table);
    const int64_t start = nas_now_ns();
    if (status == NAS_OK) status = nas_device_model_fit(ctx, &table.table, &options, out);
    *fit_s = seconds_since(start);
    nas_owned_table_deinit(&table);
    return status;
}

/* What studies measured on the device since the last fit becomes rows first; *space: what is fitted when none is named. */
static nas_status take_studies(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                               const char **space) {
    nas_study_rows rows = {0};
    *space = args->space;
    if (args->quantity != NAS_DB_LATENCY) return NAS_OK;
    const nas_status status = nas_latency_take_studies(ctx, db, args->device, &rows);
    if (status != NAS_OK || rows.networks == 0) return status;
    nas_log(ctx, NAS_LOG_INFO,
            "device '%s': %zu networks and %zu layers of studies in this database; %zu "
            "measurements of another machine, target or number of threads are left out",
            args->device, rows.networks, rows.layers, rows.others);
    if (*space == NULL) *space = "network";
    return NAS_OK;
}

nas_status nas_latency_fit(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    nas_db_series series;
    nas_latency_data data = {0};
    nas_encoder *encoder = NULL;
    nas_device_model *model = NULL;
    size_t *index = NULL, train = 0, test = 0;
    nas_buf quality = {0}, options = {0};
    double fit_s = 0;
    const char *space = NULL;
    nas_status status = take_studies(ctx, db, args, &space);
    if (status == NAS_OK)
        status = nas_db_series_find(ctx, db, args->device, space, args->quantity, &series);
    if (status == NAS_OK) status = nas_latency_data_load(ctx, db, &series, &data);
    if (status == NAS_OK) status = nas_encoder_new(ctx, series.space, &encoder);
    if (status == NAS_OK) status = split(ctx, args, data.n, &train, &test);
    if (status == NAS_OK) {
        index = nas_alloc_array(ctx, data.n, sizeof *index);
        status = index == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status == NAS_OK) {
        nas_shuffled(args->seed, "split", data.n, index);
        status = fit_rows(ctx, args, encoder, &data, index, train, &model, &fit_s);
    }
    if (status == NAS_OK)
        status = judge(ctx, encoder, model, &data, index + train, test, fit_s, &quality);
    const bool refit = args->train == 0 && train < data.n;
    if (status == NAS_OK && refit) {
        nas_device_model_free(model);
        model = NULL;
        status = fit_rows(ctx, args, encoder, &data, index, data.n, &model, &fit_s);
    }
    if (status == NAS_OK) {
        nas_buf_printf(&options,
                       "{\"command\":\"fit\",\"seed\":%" PRIu64
                       ",\"train\":%zu,\"refit_on_all_rows\":%s}",
                       args->seed, refit ? data.n : train, refit ? "true" : "false");
        status = finish(ctx, db, args, &series, model, quality.data, &options);
    }
    nas_buf_deinit(&options);
    nas_buf_deinit(&quality);
    nas_free(index);
    nas_device_model_free(model);
    nas_encoder_free(encoder);
    nas_latency_data_deinit(&data);
    return status;
}

/* ---- transfer ------------------------------------------------------------------------------------------------------------ */

enum { SOURCES_MAX = 64 };

/* Everything a transfer holds. The pool: rows of the target whose architectures may be used for learning, in order of the
 * shuffle; all others of its rows are the test. */
typedef struct transfer {
    const nas_latency_args *args;
    nas_encoder *encoder;
    nas_latency_data target, sources[SOURCES_MAX];
    nas_device_model *models[SOURCES_MAX];
    size_t n_sources;
    size_t *order, pool;
    nas_device_model *model;
    double fit_s;
} transfer;

static void transfer_deinit(transfer *t) {
    nas_device_model_free(t->model);
    for (size_t i = 0; i < t->n_sources; i++) {
        nas_device_model_free(t->models[i]);
        nas_latency_data_deinit(&t->sources[i]);
    }
    nas_latency_data_deinit(&t->target);
    nas_encoder_free(t->encoder);
    nas_free(t->order);
}

static nas_status load_source(nas_ctx *ctx, nas_db *db, transfer *t, const char *name, size_t len) {
    char device[96];
    if (t->n_sources == SOURCES_MAX)
        return nas_fail(ctx, NAS_ERR_RANGE, "--from: more than %d devices", SOURCES_MAX);
    if (len == 0 || len >= sizeof device)
        return nas_fail(ctx, NAS_ERR_INVALID, "--from: a name of %zu characters", len);
    memcpy(device, name, len);
    device[len] = '\0';
    nas_db_series series;
    nas_status status =
        nas_db_series_find(ctx, db, device, t->target.series.space, t->args->quantity, &series);
    if (status == NAS_OK && series.id == t->target.series.id)
        status = nas_fail(ctx, NAS_ERR_INVALID, "--from names the target '%s' itself", device);
    if (status == NAS_OK)
        status = nas_latency_data_load(ctx, db, &series, &t->sources[t->n_sources]);
    if (status == NAS_OK) t->n_sources++;
    return status;
}

static nas_status transfer_load(nas_ctx *ctx, nas_db *db, transfer *t) {
    nas_db_series series;
    nas_status status =
        nas_db_series_find(ctx, db, t->args->device, t->args->space, t->args->quantity, &series);
    if (status == NAS_OK) status = nas_latency_data_load(ctx, db, &series, &t->target);
    if (status == NAS_OK) status = nas_encoder_new(ctx, series.space, &t->encoder);
    for (const char *at = t->args->from; status == NAS_OK; at++) {
        const size_t len = strcspn(at, ",");
        status = load_source(ctx, db, t, at, len);
        at += len;
        if (*at == '\0') break;
    }
    return status;
}

static nas_status choose_pool(nas_ctx *ctx, transfer *t) {
    const size_t n = t->target.n, samples = (size_t)t->args->samples;
    t->pool = (size_t)t->args->source_train;
    if (t->pool > n) t->pool = n;
    if (samples > t->pool)
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "--samples %zu: device '%s' has %zu rows within --source-train %" PRId64,
                        samples, t->target.series.device, t->pool, t->args->source_train);
    t->order = nas_alloc_array(ctx, n, sizeof *t->order);
    if (t->order == NULL) return NAS_ERR_NOMEM;
    nas_shuffled(t->args->seed, "split", n, t->order);
    return NAS_OK;
}

/* A source learns from its rows of the pool's architectures; when the pool has fewer than asked for, from other rows that
 * the target does not have. */
static nas_status fit_source(nas_ctx *ctx, transfer *t, size_t which, size_t *rows) {
    const nas_latency_data *source = &t->sources[which];
    const size_t most = (size_t)t->args->source_train;
    size_t count = 0;
    for (size_t i = 0; i < t->pool && count < most; i++) {
        const size_t row = nas_latency_data_find(source, t->target.rows[t->order[i]].arch);
        if (row < source->n) rows[count++] = row;
    }
    for (size_t i = 0; i < source->n && count < most; i++) {
        if (nas_latency_data_find(&t->target, source->rows[i].arch) == t->target.n)
            rows[count++] = i;
    }
    const nas_device_model_options options = model_options(t->args);
    nas_owned_table table = {0};
    nas_status status = nas_latency_data_table(ctx, t->encoder, source, rows, count, &table);
    if (status == NAS_OK)
        status = nas_device_model_fit(ctx, &table.table, &options, &t->models[which]);
    nas_owned_table_deinit(&table);
    return nas_wrap(ctx, status, "source '%s'", source->series.device);
}

static nas_status fit_sources(nas_ctx *ctx, transfer *t) {
    nas_status status = NAS_OK;
    for (size_t i = 0; i < t->n_sources && status == NAS_OK; i++) {
        size_t *rows = nas_alloc_array(ctx, t->sources[i].n, sizeof *rows);
        status = rows == NULL ? NAS_ERR_NOMEM : fit_source(ctx, t, i, rows);
        nas_free(rows);
        if (status == NAS_OK) status = nas_check_cancel(ctx);
    }
    return status;
}

/* picked: rows of the target to learn from, [samples]. */
static nas_status pick_and_fit(nas_ctx *ctx, transfer *t, size_t *picked) {
    const nas_device_model *const *models = (const nas_device_model *const *)t->models;
    const nas_device_model_options options = model_options(t->args);
    const size_t samples = (size_t)t->args->samples;
    nas_owned_table pool = {0}, few = {0};
    nas_status status =
        nas_latency_data_table(ctx, t->encoder, &t->target, t->order, t->pool, &pool);
    if (status == NAS_OK)
        status = nas_device_model_pick_from(ctx, models, t->n_sources, &pool.table, t->args->pick,
                                            samples, t->args->seed, picked);
    for (size_t i = 0; i < samples && status == NAS_OK; i++)
        picked[i] = t->order[picked[i]];
    if (status == NAS_OK)
        status = nas_latency_data_table(ctx, t->encoder, &t->target, picked, samples, &few);
    if (status == NAS_OK)
        status = nas_device_model_transfer_from(ctx, models, t->n_sources, &few.table, &options,
                                                &t->model);
    nas_owned_table_deinit(&few);
    nas_owned_table_deinit(&pool);
    return status;
}

static void transfer_options(const transfer *t, const size_t *picked, nas_buf *out) {
    nas_json j = nas_json_begin(out);
    nas_json_object(&j);
    put_text(&j, "command", "transfer");
    nas_json_key(&j, "seed");
    nas_json_int(&j, (int64_t)t->args->seed);
    nas_json_key(&j, "source_train");
    nas_json_int(&j, t->args->source_train);
    put_text(&j, "pick", t->args->pick == NAS_PICK_ACTIVE ? "active" : "random");
    nas_json_key(&j, "from");
    nas_json_array(&j);
    for (size_t i = 0; i < t->n_sources; i++)
        nas_json_string(&j, t->sources[i].series.device);
    nas_json_array_end(&j);
    nas_json_key(&j, "measured");
    nas_json_array(&j);
    for (int64_t i = 0; i < t->args->samples; i++)
        nas_json_string(&j, t->target.rows[picked[i]].arch);
    nas_json_array_end(&j);
    nas_json_object_end(&j);
}

nas_status nas_latency_transfer(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    transfer *t = nas_alloc_array(ctx, 1, sizeof *t);
    size_t *picked = nas_alloc_array(ctx, (size_t)args->samples, sizeof *picked);
    nas_status status = t == NULL || picked == NULL ? NAS_ERR_NOMEM : NAS_OK;
    nas_buf quality = {0}, options = {0};
    if (t != NULL) t->args = args;
    if (status == NAS_OK) status = transfer_load(ctx, db, t);
    if (status == NAS_OK) status = choose_pool(ctx, t);
    const int64_t start = nas_now_ns();
    if (status == NAS_OK) status = fit_sources(ctx, t);
    if (status == NAS_OK) status = pick_and_fit(ctx, t, picked);
    const double fit_s = seconds_since(start);
    if (status == NAS_OK)
        status = judge(ctx, t->encoder, t->model, &t->target, t->order + t->pool,
                       t->target.n - t->pool, fit_s, &quality);
    if (status == NAS_OK) {
        transfer_options(t, picked, &options);
        status = finish(ctx, db, args, &t->target.series, t->model, quality.data, &options);
    }
    nas_buf_deinit(&options);
    nas_buf_deinit(&quality);
    if (t != NULL) transfer_deinit(t);
    nas_free(t);
    nas_free(picked);
    return status;
}

/* ---- eval ---------------------------------------------------------------------------------------------------------------- */

/* Rows of a file as data; architectures the database has for this device are left out: the model may have seen them. */
static nas_status unseen_rows(nas_ctx *ctx, const nas_latency_args *args, const nas_loaded_model *m,
                              const nas_latency_data *known, nas_latency_data *out) {
    nas_import import = {0};
    nas_status status = nas_latency_read_csv(ctx, args, m->encoder, args->files[0], &import);
    out->series = m->series;
    if (status == NAS_OK) {
        out->rows = nas_alloc_array(ctx, import.n, sizeof *out->rows);
        status = out->rows == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    for (size_t i = 0; i < import.n && status == NAS_OK; i++) {
        if (nas_latency_data_find(known, import.rows[i].arch) < known->n) continue;
        out->rows[out->n++] =
            (nas_db_value){.arch = import.rows[i].arch, .value = import.rows[i].value};
        import.rows[i].arch = NULL; /* its owner is `out` now */
    }
    if (status == NAS_OK && out->n < 2)
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "%s: %zu of its %zu architectures are new: nothing to judge on",
                          args->files[0], out->n, import.n);
    nas_import_deinit(&import);
    return status;
}

static nas_status judge_file(nas_ctx *ctx, nas_db *db, const nas_latency_args *args,
                             const nas_loaded_model *m, nas_buf *quality) {
    nas_latency_data known = {0}, fresh = {0};
    size_t *index = NULL;
    nas_status status = nas_latency_data_load(ctx, db, &m->series, &known);
    if (status == NAS_OK) status = unseen_rows(ctx, args, m, &known, &fresh);
    if (status == NAS_OK) {
        index = nas_alloc_array(ctx, fresh.n, sizeof *index);
        status = index == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status == NAS_OK) {
        nas_shuffled(args->seed, "eval", fresh.n, index);
        status = judge(ctx, m->encoder, m->model, &fresh, index, fresh.n, 0, quality);
    }
    nas_free(index);
    nas_latency_data_deinit(&fresh);
    nas_latency_data_deinit(&known);
    return status;
}

nas_status nas_latency_eval(nas_ctx *ctx, nas_db *db, const nas_latency_args *args) {
    nas_loaded_model m = {0};
    nas_buf quality = {0}, json = {0};
    nas_status status = nas_latency_model_load(ctx, db, args, args->space, &m);
    if (status == NAS_OK && args->n_files > 1)
        status = nas_fail(ctx, NAS_ERR_INVALID, "eval takes one file");
    if (status == NAS_OK && args->n_files == 1) status = judge_file(ctx, db, args, &m, &quality);
    if (status == NAS_OK) {
        report(&m.series, m.model, args->n_files == 1 ? quality.data : m.row.quality, m.row.options,
               &json);
        status = nas_latency_print(ctx, args, &json);
    }
    nas_buf_deinit(&json);
    nas_buf_deinit(&quality);
    nas_loaded_model_deinit(&m);
    return status;
}
