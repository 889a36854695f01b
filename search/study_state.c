/* study_state.c - opening and closing a study: folder, database, data, space, device; trials in memory.
 * Order of opening: cheap checks first, so that a wrong config, a missing compiler or a full disk is told at once. */
#define _GNU_SOURCE /* gethostname */
#include "search/study_internal.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

double nas__study_elapsed_s(const nas__study *s) {
    return s->elapsed_before_s + (double)(nas_now_ns() - s->started_ns) * 1e-9;
}

bool nas__study_out_of_time(const nas__study *s, double fraction) {
    const double budget = s->config->budget.time_s;
    return budget > 0 && nas__study_elapsed_s(s) >= budget * fraction;
}

nas_status nas__study_path(nas__study *s, const char *name, char out[NAS__PATH_MAX]) {
    const int n = snprintf(out, NAS__PATH_MAX, "%s/%s", s->dir, name);
    if (n < 0 || n >= NAS__PATH_MAX) {
        return nas_fail(s->ctx, NAS_ERR_RANGE, "study folder '%s': path longer than %d bytes",
                        s->dir, NAS__PATH_MAX - 1);
    }
    return NAS_OK;
}

nas_status nas__meta_set_double(nas__study *s, const char *key, double value) {
    char text[40];
    (void)snprintf(text, sizeof text, "%.17g", value);
    return nas_db_meta_set(s->ctx, s->db, s->id, key, text);
}

nas_status nas__meta_get_double(nas__study *s, const char *key, double *value, bool *found) {
    char *text = NULL;
    const nas_status status = nas_db_meta_get(s->ctx, s->db, s->id, key, &text);
    *found = status == NAS_OK;
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(s->ctx);
        return NAS_OK;
    }
    if (status != NAS_OK) return status;
    const nas_status parsed = nas_parse_double(s->ctx, key, text, -INFINITY, INFINITY, value);
    nas_free(text);
    return parsed;
}

/* ---- folder -------------------------------------------------------------------------------------------------------- */

/* Never deletes: runs/x becomes runs/x.1, runs/x.2, ... The database's lock is taken first, so that a run which is
 * still going is not moved away under its feet. */
static nas_status move_aside(nas__study *s) {
    char db_path[NAS__PATH_MAX];
    nas_status status = nas__study_path(s, "study.db", db_path);
    if (status != NAS_OK || !nas_file_exists(s->dir)) return status;
    nas_db *old = NULL;
    if (nas_file_exists(db_path)) {
        status = nas_db_open(s->ctx, db_path, &old);
        if (status == NAS_ERR_DB && strstr(nas_ctx_message(s->ctx), "locked") != NULL)
            return status;
        if (status != NAS_OK)
            nas_ctx_clear(s->ctx); /* damaged or of a newer version: moving it is safe */
    }
    char target[NAS__PATH_MAX + 16];
    int number = 1;
    do {
        (void)snprintf(target, sizeof target, "%s.%d", s->dir, number++);
    } while (nas_file_exists(target));
    status = NAS_OK;
    if (rename(s->dir, target) != 0) {
        status = nas_fail(s->ctx, NAS_ERR_IO, "cannot move '%s' to '%s': %s", s->dir, target,
                          strerror(errno));
    } else {
        nas_log(s->ctx, NAS_LOG_INFO, "fresh start: the old run is now %s", target);
    }
    const nas_status closed = nas_db_close(s->ctx, old);
    return status == NAS_OK && old != NULL ? closed : status;
}

static nas_status check_disk(nas__study *s, const char *path) {
    uint64_t free_bytes = 0;
    const nas_status status = nas_disk_free_bytes(s->ctx, path, &free_bytes);
    if (status != NAS_OK) return status;
    const uint64_t need = (uint64_t)s->config->budget.disk_mb * 1000 * 1000;
    if (free_bytes < need) {
        return nas_fail(s->ctx, NAS_ERR_IO,
                        "%s: %" PRIu64 " MB free, %" PRId64
                        " MB needed: free some space, choose another "
                        "study.dir, or lower budget.disk_mb",
                        path, free_bytes / 1000000, s->config->budget.disk_mb);
    }
    return NAS_OK;
}

static nas_status open_folder(nas__study *s) {
    nas_ctx *ctx = s->ctx;
    const int n = snprintf(s->dir, sizeof s->dir, "%s", s->config->study.dir);
    if (n < 0 || (size_t)n >= sizeof s->dir)
        return nas_fail(ctx, NAS_ERR_RANGE, "study.dir is too long");
    nas_status status = NAS_OK;
    if (s->options->fresh) status = move_aside(s);
    if (status == NAS_OK) status = nas_mkdirs(ctx, s->dir);
    if (status == NAS_OK) status = check_disk(s, s->dir);
    if (status == NAS_OK) status = nas_mkdirs(ctx, s->config->compile.cache_dir);
    char path[NAS__PATH_MAX];
    if (status == NAS_OK) status = nas__study_path(s, "study.db", path);
    if (status == NAS_OK) status = nas_db_open(ctx, path, &s->db);
    return status;
}

/* ---- study row ------------------------------------------------------------------------------------------------------ */

static nas_status check_same_config(nas__study *s, const nas_db_study *row) {
    nas_buf diff = {0};
    nas_status status = nas_config_diff(s->ctx, row->config_json, s->options->json, &diff);
    if (status == NAS_OK && diff.len > 0) {
        status = nas_fail(
            s->ctx, NAS_ERR_DB,
            "the config changed since this study began:\n%s"
            "put the old values back, give the study another name, or start over with --fresh "
            "(the old run is moved aside, not deleted)",
            diff.data);
    }
    nas_buf_deinit(&diff);
    return status;
}

static nas_status insert_study(nas__study *s) {
    nas_db_study row = {.seed = s->config->study.seed};
    (void)snprintf(row.name, sizeof row.name, "%s", s->config->study.name);
    (void)snprintf(row.space, sizeof row.space, "%s", nas_space_name(s->space));
    (void)snprintf(row.strategy, sizeof row.strategy, "%s", s->config->search.strategy);
    row.config_toml = nas_strdup(s->ctx, s->options->toml);
    row.config_json = nas_strdup(s->ctx, s->options->json);
    nas_status status = row.config_toml == NULL || row.config_json == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas_db_study_insert(s->ctx, s->db, &row, &s->id);
    nas_db_study_deinit(&row);
    char path[NAS__PATH_MAX];
    if (status == NAS_OK) status = nas__study_path(s, "config.toml", path);
    if (status == NAS_OK) {
        status = nas_file_write(s->ctx, path, s->options->toml, strlen(s->options->toml), 0644);
    }
    if (status == NAS_OK)
        status = nas_db_event(s->ctx, s->db, s->id, "start", s->options->config_path);
    return status;
}

static nas_status append_trial(nas__study *s, nas_db_trial take_row) {
    nas__trial trial = {.row = take_row};
    trial.from_strategy =
        strcmp(take_row.origin, "strategy") == 0 || strcmp(take_row.origin, "seed") == 0;
    nas_status status = NAS_OK;
    if (trial.from_strategy)
        status = nas_space_parse(s->ctx, s->space, take_row.point, &trial.point);
    if (status == NAS_OK) {
        status = nas_grow(s->ctx, &s->trials, &s->cap_trials, s->n_trials + 1, sizeof *s->trials);
    }
    if (status != NAS_OK) {
        nas_db_trial_deinit(&take_row);
        return status;
    }
    s->trials[s->n_trials++] = trial;
    return NAS_OK;
}

/* Latencies of the queues that the study still has; those of a trial that was under way count, too. */
static nas_status load_latencies(nas__study *s) {
    nas_db_latency *rows = NULL;
    size_t n = 0, at = 0;
    const nas_status status = nas_db_trial_latencies(s->ctx, s->db, s->id, &rows, &n);
    for (size_t i = 0; status == NAS_OK && i < n; i++) {
        const nas_db_latency *r = &rows[i];
        while (at < s->n_trials && s->trials[at].row.id != r->trial_id) /* both by number */
            at++;
        if (at == s->n_trials) break;
        for (int32_t q = 0; q < s->config->n_queues; q++) {
            if (strcmp(nas__queue_name(s, q), r->queue) != 0) continue;
            nas__latency *l = r->final ? &s->trials[at].final[q] : &s->trials[at].search[q];
            *l = (nas__latency){.is_set = true,
                                .noisy = r->noisy,
                                .p50_us = r->p50_us,
                                .p50_lo_us = r->p50_lo_us,
                                .p50_hi_us = r->p50_hi_us,
                                .p90_us = r->p90_us,
                                .measurement_id = r->measurement_id};
            memcpy(l->checked, r->checked, sizeof l->checked);
        }
    }
    nas_free(rows);
    return status;
}

/* What was foretold of trials before they were measured. */
static nas_status load_forecasts(nas__study *s) {
    nas_db_forecast *rows = NULL;
    size_t n = 0, at = 0;
    const nas_status status = nas_db_study_forecasts(s->ctx, s->db, s->id, &rows, &n);
    for (size_t i = 0; status == NAS_OK && i < n; i++) {
        const nas_db_forecast *r = &rows[i];
        while (at < s->n_trials && s->trials[at].row.id != r->trial_id) /* both by number */
            at++;
        if (at == s->n_trials) break;
        for (int32_t q = 0; q < s->config->n_queues; q++) {
            if (strcmp(nas__queue_name(s, q), r->queue) != 0) continue;
            s->trials[at].forecast[q] = (nas__forecast){true, r->p50_us, r->lo_us, r->hi_us};
        }
    }
    nas_free(rows);
    return status;
}

static nas_status load_trials(nas__study *s) {
    nas_db_trial *rows = NULL;
    size_t n = 0;
    nas_status status = nas_db_trials(s->ctx, s->db, s->id, &rows, &n);
    if (status != NAS_OK) return status;
    size_t finished = 0;
    for (size_t i = 0; i < n; i++) {
        const nas_trial_state state = rows[i].state;
        finished +=
            state == NAS_TRIAL_COMPLETE || state == NAS_TRIAL_PRUNED || state == NAS_TRIAL_FAIL;
        if (status == NAS_OK) {
            status = append_trial(s, rows[i]);
            rows[i] = (nas_db_trial){0}; /* moved */
        }
    }
    nas_db_trials_free(rows, n);
    if (status == NAS_OK) status = load_latencies(s);
    if (status == NAS_OK) status = load_forecasts(s);
    if (status == NAS_OK) {
        char text[160];
        (void)snprintf(text, sizeof text, "%zu trials finished, %zu begun", finished, n - finished);
        nas_log(s->ctx, NAS_LOG_INFO, "resuming %s: %s", s->config->study.name, text);
        status = nas_db_event(s->ctx, s->db, s->id, "resume", text);
    }
    return status;
}

static nas_status open_study_row(nas__study *s) {
    nas_db_study row = {0};
    nas_status status = nas_db_study_get(s->ctx, s->db, s->config->study.name, &row);
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(s->ctx);
        return insert_study(s);
    }
    if (status != NAS_OK) return status;
    s->id = row.id;
    status = check_same_config(s, &row);
    if (status == NAS_OK && row.strategy_state != NULL) {
        status = nas_strategy_load(s->ctx, s->strategy, row.strategy_state);
    }
    nas_db_study_deinit(&row);
    bool found = false;
    if (status == NAS_OK)
        status = nas__meta_get_double(s, "elapsed_s", &s->elapsed_before_s, &found);
    if (status == NAS_OK) status = load_trials(s);
    return status;
}

/* ---- parts ---------------------------------------------------------------------------------------------------------- */

static nas_status open_space(nas__study *s) {
    nas_ctx *ctx = s->ctx;
    const nas_config *c = s->config;
    nas_status status = nas_space_sr_new(ctx, &c->space, &s->space);
    if (status == NAS_OK) {
        status = nas_strategy_new(ctx, c->search.strategy, s->space, &c->search.options,
                                  c->study.seed, &s->strategy);
    }
    nas_point point;
    if (status == NAS_OK) {
        nas_space_largest(s->space, &point);
        status = nas_space_decode(ctx, s->space, &point, &s->largest);
    }
    if (status == NAS_OK) {
        status =
            nas_fsrcnn_graph(ctx, c->task.scale, c->space.lr_height, c->space.lr_width, &s->fsrcnn);
    }
    if (status == NAS_OK) status = nas_front_new(ctx, c->n_objectives, &s->front);
    return status;
}

static nas_status open_predictors(nas__study *s) {
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < s->n_devices && status == NAS_OK; i++) {
        const nas__device *d = &s->devices[i];
        const int32_t lanes = s->targets[d->target].row.vector_bytes / (int32_t)sizeof(float);
        if (s->predictors[d->queue] == NULL)
            status = nas_predictor_new(s->ctx, lanes, &s->predictors[d->queue]);
        if (status == NAS_OK)
            status = nas_predictor_set_level(s->ctx, s->predictors[d->queue],
                                             s->config->search.skip_confidence);
    }
    return status;
}

static nas_status open_data(nas__study *s) {
    const nas_config *c = s->config;
    nas_sr_data_options o = nas_sr_data_options_default();
    o.scale = c->task.scale;
    o.seed = c->study.seed;
    o.train_dir = c->data.train;
    o.select_dir = c->data.select;
    o.report_dir = c->data.report;
    o.select_fraction = c->data.select_fraction;
    o.select_max = c->data.select_max;
    o.report_max = c->data.report_max;
    o.leaves_train = c->data.leaves_train;
    o.leaves_select = c->data.leaves_select;
    o.leaves_report = c->data.leaves_report;
    o.leaves_height = o.leaves_width = c->data.leaves_size;
    o.threads = c->eval.threads;
    nas_status status = nas_sr_data_open(s->ctx, &o, &s->data);
    if (status != NAS_OK) return status;
    nas_log(s->ctx, NAS_LOG_INFO, "data: %s", nas_sr_data_describe(s->data));
    nas_db_study row = {0};
    status = nas_db_study_get(s->ctx, s->db, c->study.name, &row);
    if (status != NAS_OK) return status;
    const char *hash = nas_sr_data_hash(s->data);
    if (row.data_hash[0] == '\0') {
        status = nas_db_study_set_data_hash(s->ctx, s->db, s->id, hash);
    } else if (strcmp(row.data_hash, hash) != 0) {
        status = nas_fail(
            s->ctx, NAS_ERR_DB,
            "the images changed since this study began (%.12s... then, %.12s... now): put them "
            "back, or start over with --fresh",
            row.data_hash, hash);
    }
    nas_db_study_deinit(&row);
    for (int i = 0; i < 2 && status == NAS_OK; i++) {
        status = nas_sr_score_split(s->ctx, s->data, i == 0 ? NAS_SPLIT_SELECT : NAS_SPLIT_REPORT,
                                    o.scale, nas_upscale_bicubic, NULL,
                                    i == 0 ? &s->bicubic_select : &s->bicubic_report);
    }
    if (status == NAS_OK) {
        status = nas__meta_set_double(s, "bicubic_report_psnr_y", s->bicubic_report.psnr_y_db);
    }
    if (status == NAS_OK)
        status = nas__meta_set_double(s, "bicubic_report_ssim_y", s->bicubic_report.ssim_y);
    return status;
}

nas_status nas__study_open(nas_ctx *ctx, const nas_study_options *options, nas__study *s) {
    *s = (nas__study){
        .ctx = ctx, .options = options, .config = options->config, .started_ns = nas_now_ns()};
    if (pthread_mutex_init(&s->lock, NULL) != 0)
        return nas_fail(ctx, NAS_ERR_NOMEM, "no mutex for the study");
    s->has_lock = true;
    char host[32] = "host";
    (void)gethostname(host, sizeof host - 1); /* a label; "host" serves as well */
    (void)snprintf(s->worker, sizeof s->worker, "%s:%ld", host, (long)getpid());
    nas__progress_init(&s->progress, options->quiet);
    nas_status status = nas__devices_check(s);
    if (status == NAS_OK) status = open_folder(s);
    if (status == NAS_OK) status = open_space(s);
    if (status == NAS_OK) status = open_study_row(s);
    if (status == NAS_OK) status = nas__devices_open(s);
    if (status == NAS_OK) status = open_predictors(s);
    if (status == NAS_OK) status = open_data(s);
    return status;
}

nas_status nas__study_close(nas__study *s) {
    nas__devices_close(s);
    nas__built_deinit(&s->reference);
    nas_sr_data_close(s->data);
    nas_weights_free(s->weights);
    nas_weights_free(s->fsrcnn_weights);
    nas_graph_free(s->largest);
    nas_graph_free(s->fsrcnn);
    nas_strategy_free(s->strategy);
    nas_space_free(s->space);
    nas_front_free(s->front);
    for (int32_t i = 0; i < NAS_DEVICES_MAX; i++)
        nas_predictor_free(s->predictors[i]);
    for (size_t i = 0; i < s->n_trials; i++)
        nas_db_trial_deinit(&s->trials[i].row);
    nas_free(s->trials);
    nas_status status = NAS_OK;
    if (s->db != NULL) {
        if (s->id != 0) status = nas__meta_set_double(s, "elapsed_s", nas__study_elapsed_s(s));
        const nas_status closed = nas_db_close(s->ctx, s->db);
        if (status == NAS_OK) status = closed;
    }
    if (s->has_lock) pthread_mutex_destroy(&s->lock);
    return status;
}

/* ---- trials --------------------------------------------------------------------------------------------------------- */

nas_status nas__study_decode(nas__study *s, const nas_point *point, nas_graph **out) {
    return nas_space_decode(s->ctx, s->space, point, out);
}

nas_status nas__study_add_trial(nas__study *s, const nas_point *point, const nas_graph *graph,
                                const char *origin, size_t *index) {
    nas_ctx *ctx = s->ctx;
    nas_db_trial row = {
        .study_id = s->id, .number = (int64_t)s->n_trials, .state = NAS_TRIAL_WAITING};
    (void)snprintf(row.origin, sizeof row.origin, "%s", origin);
    nas_buf text = {0};
    nas_status status = NAS_OK;
    if (point != NULL) {
        status = nas_space_format(ctx, s->space, point, &text);
    } else {
        nas_buf_puts(&text, nas_graph_name(graph));
        status = nas_buf_status(ctx, &text);
    }
    if (status == NAS_OK) status = nas_graph_hash(ctx, graph, false, row.graph_hash);
    nas_graph_cost cost = {0};
    if (status == NAS_OK) status = nas_graph_cost_total(ctx, graph, &cost);
    if (status == NAS_OK) {
        row.point = nas_strdup(ctx, text.data);
        if (row.point == NULL) status = NAS_ERR_NOMEM;
    }
    nas_buf_deinit(&text);
    row.values.macs = nas_some_i64((int64_t)cost.macs);
    row.values.params = nas_some_i64((int64_t)cost.params);
    row.values.peak_activation_bytes = nas_some_i64((int64_t)cost.peak_activation_bytes);
    if (status == NAS_OK) status = nas_db_trial_insert(ctx, s->db, &row, &row.id);
    if (status != NAS_OK) {
        nas_db_trial_deinit(&row);
        return status;
    }
    status = append_trial(s, row);
    if (status == NAS_OK) *index = s->n_trials - 1;
    return status;
}
