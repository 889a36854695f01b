/* compress_study.c - a study that compresses a classifier, from end to end. */
#define _GNU_SOURCE /* gethostname */
#include "search/compress_levels.h"
#include "search/stored.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

static nas_status open_toolchain(nas__comp *c) {
    const nas_config *cfg = c->config;
    const nas_config_device *d = &cfg->devices[0];
    if (cfg->n_devices != 1)
        return nas_fail(c->ctx, NAS_ERR_UNSUPPORTED,
                        "%d devices in the config: a study of task.kind = \"classify\" has one",
                        (int)cfg->n_devices);
    if (d->cpu[0] != '\0')
        return nas_fail(c->ctx, NAS_ERR_UNSUPPORTED,
                        "device.cpu = \"%s\": a study of task.kind = \"classify\" compiles for a "
                        "target alone",
                        d->cpu);
    const char *target = d->target[0] != '\0' ? d->target : cfg->compile.target;
    const nas_dtype dtype =
        strcmp(cfg->compile.dtype, "bf16") == 0 ? NAS_DTYPE_BF16 : NAS_DTYPE_FP32;
    nas_status status = strcmp(target, "native") == 0 ? nas_target_native(c->ctx, dtype, &c->target)
                                                      : nas_target_find(c->ctx, target, &c->target);
    if (status != NAS_OK) return nas_wrap(c->ctx, status, "compile.target");
    status = nas_target_check_dtype(c->ctx, c->target, dtype);
    if (status != NAS_OK) return nas_wrap(c->ctx, status, "compile.dtype");
    if (!c->target->runs_here && strcmp(cfg->devices[0].connect, "local") == 0)
        return nas_fail(c->ctx, NAS_ERR_INVALID,
                        "compile.target '%s' does not run on device '%s' (local)", c->target->name,
                        cfg->devices[0].name);
    c->compile = nas_compile_options_default();
    c->compile.target = c->target;
    c->compile.compiler = cfg->compile.compiler[0] == '\0' ? NULL : cfg->compile.compiler;
    c->compile.cache_dir = cfg->compile.cache_dir;
    c->compile.dtype = dtype;
    c->compile.max_threads = cfg->devices[0].threads;
    c->compile.timeout_ms = cfg->compile.timeout_s * 1000;
    return nas_toolchain_check(c->ctx, &c->compile);
}

/* Never deletes: runs/x becomes runs/x.1, runs/x.2, ... */
static nas_status move_aside(nas__comp *c) {
    char target[NAS__COMP_PATH_MAX + 16];
    int number = 1;
    if (!nas_file_exists(c->dir)) return NAS_OK;
    do {
        (void)snprintf(target, sizeof target, "%s.%d", c->dir, number++);
    } while (nas_file_exists(target));
    if (rename(c->dir, target) != 0)
        return nas_fail(c->ctx, NAS_ERR_IO, "cannot move '%s' to '%s': %s", c->dir, target,
                        strerror(errno));
    nas_log(c->ctx, NAS_LOG_INFO, "fresh start: the old run is now %s", target);
    return NAS_OK;
}

static nas_status check_disk(nas__comp *c) {
    uint64_t free_bytes = 0;
    const nas_status status = nas_disk_free_bytes(c->ctx, c->dir, &free_bytes);
    const uint64_t need = (uint64_t)c->config->budget.disk_mb * 1000 * 1000;
    if (status != NAS_OK || free_bytes >= need) return status;
    return nas_fail(
        c->ctx, NAS_ERR_IO,
        "%s: %" PRIu64 " MB free, %" PRId64
        " MB needed: free some space, choose another study.dir, or lower budget.disk_mb",
        c->dir, free_bytes / 1000000, c->config->budget.disk_mb);
}

static nas_status open_folder(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX];
    const int n = snprintf(c->dir, sizeof c->dir, "%s", c->config->study.dir);
    if (n < 0 || (size_t)n >= sizeof c->dir)
        return nas_fail(c->ctx, NAS_ERR_RANGE, "study.dir is too long");
    nas_status status = c->options->fresh ? move_aside(c) : NAS_OK;
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, c->dir);
    if (status == NAS_OK) status = check_disk(c);
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, c->config->compile.cache_dir);
    if (status == NAS_OK) status = nas__comp_path(c, "study.db", path);
    if (status == NAS_OK) status = nas_db_open(c->ctx, path, &c->db);
    return status;
}

static nas_status insert_study(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX];
    nas_db_study row = {.seed = c->config->study.seed};
    (void)snprintf(row.name, sizeof row.name, "%s", c->config->study.name);
    (void)snprintf(row.space, sizeof row.space, "%s", c->config->compress.space);
    (void)snprintf(row.strategy, sizeof row.strategy, "%s", c->config->search.strategy);
    row.config_toml = nas_strdup(c->ctx, c->options->toml);
    row.config_json = nas_strdup(c->ctx, c->options->json);
    nas_status status = row.config_toml == NULL || row.config_json == NULL ? NAS_ERR_NOMEM : NAS_OK;
    if (status == NAS_OK) status = nas_db_study_insert(c->ctx, c->db, &row, &c->id);
    nas_db_study_deinit(&row);
    if (status == NAS_OK) status = nas__comp_path(c, "config.toml", path);
    if (status == NAS_OK)
        status = nas_file_write(c->ctx, path, c->options->toml, strlen(c->options->toml), 0644);
    if (status == NAS_OK)
        status = nas_db_event(c->ctx, c->db, c->id, "start", c->options->config_path);
    return status;
}

static nas_status check_same_config(nas__comp *c, const nas_db_study *row) {
    nas_buf diff = {0};
    nas_status status = nas_config_diff(c->ctx, row->config_json, c->options->json, &diff);
    if (status == NAS_OK && diff.len > 0)
        status =
            nas_fail(c->ctx, NAS_ERR_DB,
                     "the config changed since this study began:\n%s"
                     "put the old values back, give the study another name, or start over with "
                     "--fresh (the old run is moved aside, not deleted)",
                     diff.data);
    nas_buf_deinit(&diff);
    return status;
}

static nas_status open_row(nas__comp *c, nas_db_study *row, bool *resumed) {
    nas_status status = nas_db_study_get(c->ctx, c->db, c->config->study.name, row);
    *resumed = status == NAS_OK;
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(c->ctx);
        return insert_study(c);
    }
    if (status != NAS_OK) return status;
    c->id = row->id;
    status = check_same_config(c, row);
    if (status == NAS_OK) status = nas_db_event(c->ctx, c->db, c->id, "resume", "");
    return status;
}

/* The images of all splits, so that a resumed study is not scored on others. */
static nas_status check_same_data(nas__comp *c, const nas_db_study *row) {
    nas_sha256 h;
    uint8_t digest[NAS_SHA256_BYTES];
    char hash[NAS_SHA256_HEX];
    nas_sha256_init(&h);
    for (int i = 0; i < NAS_CLASS_SPLIT_COUNT; i++)
        nas_sha256_update(&h, nas_class_data_hash(c->data, (nas_class_split)i), NAS_SHA256_HEX - 1);
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, hash);
    if (row->data_hash[0] == '\0') return nas_db_study_set_data_hash(c->ctx, c->db, c->id, hash);
    if (strcmp(row->data_hash, hash) == 0) return NAS_OK;
    return nas_fail(
        c->ctx, NAS_ERR_DB,
        "the images changed since this study began (%.12s... then, %.12s... now): put them "
        "back, or start over with --fresh",
        row->data_hash, hash);
}

static nas_status open_device(nas__comp *c) {
    const nas_config_device *d = &c->config->devices[0];
    char work[NAS__COMP_PATH_MAX];
    nas_device_options o = nas__device_options(d, c->options->agent_path);
    nas_status status = nas__comp_path(c, "agent", work);
    o.work_dir = work;
    if (status == NAS_OK) status = nas_device_open(c->ctx, &o, &c->device);
    if (status != NAS_OK) return nas_wrap(c->ctx, status, "device '%s'", d->name);
    status = nas_db_device_put(c->ctx, c->db, d->name, d->connect,
                               nas_device_fingerprint(c->device), nas_device_info_json(c->device),
                               nas_device_is_simulated(c->device), &c->device_id);
    return status == NAS_OK ? nas__know_runs(c->ctx, c->db, c->device_id, d->threads, c->device)
                            : status;
}

/* How REWARD images are scored: as it was when the study began. */
static nas_status choose_dtype(nas__comp *c, bool resumed) {
    const char *wanted = c->config->eval.dtype;
    char *begun = NULL;
    nas_status status = NAS_ERR_NOTFOUND;
    if (resumed) status = nas_db_meta_get(c->ctx, c->db, c->id, "reward_dtype", &begun);
    if (status == NAS_OK) {
        c->bf16 = strcmp(begun, "bf16") == 0;
    } else if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(c->ctx);
        c->bf16 =
            strcmp(wanted, "bf16") == 0 || (strcmp(wanted, "auto") == 0 && nas_exec_has_bf16());
        status = nas_db_meta_set(c->ctx, c->db, c->id, "reward_dtype", c->bf16 ? "bf16" : "fp32");
    }
    nas_free(begun);
    if (status != NAS_OK || !c->bf16) return status;
    if (!nas_exec_has_bf16())
        return nas_fail(c->ctx, NAS_ERR_UNSUPPORTED,
                        "%s by bf16, which wants AMX-BF16 of the processor and the system: %s",
                        resumed ? "this study scores" : "eval.dtype = \"bf16\" scores",
                        resumed ? "go on where it began, or start over with --fresh"
                                : "set it to \"auto\" or \"fp32\"");
    nas_log(c->ctx, NAS_LOG_INFO, "REWARD images are scored by bf16");
    return NAS_OK;
}

static nas_status open_all(nas__comp *c) {
    nas_db_study row = {0};
    bool resumed = false;
    nas_status status = open_toolchain(c);
    if (status == NAS_OK) status = open_folder(c);
    if (status == NAS_OK) status = open_row(c, &row, &resumed);
    if (status == NAS_OK) status = choose_dtype(c, resumed);
    if (status == NAS_OK) status = open_device(c);
    if (status == NAS_OK) status = nas__comp_model(c);
    if (status == NAS_OK) status = check_same_data(c, &row);
    if (status == NAS_OK) status = nas__comp_space(c);
    if (status == NAS_OK && resumed && row.strategy_state != NULL)
        status = nas_strategy_load(c->ctx, c->strategy, row.strategy_state);
    if (status == NAS_OK && resumed) status = nas__comp_load(c);
    nas_db_study_deinit(&row);
    return status;
}

/* ---- phases --------------------------------------------------------------------------------------------------------------- */

/* Trial 0: the network as it came. */
static nas_status baseline(nas__comp *c) {
    size_t index = 0;
    nas_status status = NAS_OK;
    nas__progress_phase(&c->progress, "baseline", 0, 1);
    if (c->n_trials == 0) {
        status = nas_db_begin(c->ctx, c->db);
        if (status == NAS_OK)
            status = nas__comp_add(c, NULL, c->model, "baseline:original", &index);
        if (status == NAS_OK) status = nas_db_commit(c->ctx, c->db);
        if (status != NAS_OK) nas_db_rollback(c->db);
    }
    if (status == NAS_OK && c->trials[0].row.state != NAS_TRIAL_COMPLETE)
        status = nas__comp_evaluate(c, 0, c->model, "baseline");
    for (int m = 0; m < NAS_METRIC_COUNT && status == NAS_OK; m++)
        (void)nas__comp_metric(&c->trials[0], (nas_metric)m, false, &c->baseline[m]); /* else NAN */
    if (status == NAS_OK) {
        nas__progress_update(&c->progress, 1, "top1 %.2f %% at %.3f ms",
                             c->baseline[NAS_METRIC_TOP1], c->baseline[NAS_METRIC_LATENCY_P50_MS]);
        nas__progress_end(&c->progress);
    }
    return nas_wrap(c->ctx, status, "the original network");
}

static void note_end(nas__comp *c, nas_status status) {
    char message[1024];
    if (c->db == NULL || c->id == 0) return;
    nas_db_rollback(c->db);
    (void)snprintf(message, sizeof message, "%s",
                   status == NAS_OK ? "report printed" : nas_ctx_message(c->ctx));
    const char *kind = status == NAS_OK              ? "end"
                       : status == NAS_ERR_CANCELLED ? "interrupt"
                                                     : "error";
    if (nas_db_event(c->ctx, c->db, c->id, kind, message) != NAS_OK)
        nas_log(c->ctx, NAS_LOG_WARN, "the end of the run could not be recorded: %s",
                nas_ctx_message(c->ctx));
    if (status != NAS_OK)
        (void)nas_fail(c->ctx, status, "%s", message); /* the first failure is the one to report */
}

static nas_status close_all(nas__comp *c) {
    nas_device_close(c->device);
    nas_class_data_close(c->data);
    nas_strategy_free(c->strategy);
    nas_space_free(c->space);
    nas_front_free(c->front);
    nas__levels_close(c);
    nas_channels_free(c->channels);
    for (size_t i = 0; i < c->n_moments; i++)
        nas_exec_gram_deinit(&c->grams[i]);
    nas_free(c->grams);
    nas_free(c->moments);
    nas_free(c->scores);
    nas_free(c->outputs);
    nas_graph_free(c->model);
    nas_graph_free(c->tuned);
    for (size_t i = 0; i < c->n_trials; i++)
        nas_db_trial_deinit(&c->trials[i].row);
    nas_free(c->trials);
    return c->db == NULL ? NAS_OK : nas_db_close(c->ctx, c->db);
}

static void init(nas_ctx *ctx, const nas_study_options *options, nas__comp *c) {
    *c = (nas__comp){
        .ctx = ctx, .options = options, .config = options->config, .started_ns = nas_now_ns()};
    char host[32] = "host";
    for (int m = 0; m < NAS_METRIC_COUNT; m++)
        c->baseline[m] = NAN;
    (void)gethostname(host, sizeof host - 1); /* a label; "host" serves as well */
    (void)snprintf(c->worker, sizeof c->worker, "%s:%ld", host, (long)getpid());
    nas__progress_init(&c->progress, options->quiet);
}

nas_status nas__compress_run(nas_ctx *ctx, const nas_study_options *options, bool *feasible) {
    nas__comp c;
    init(ctx, options, &c);
    nas_ctx_set_log(ctx, nas__progress_log, &c.progress, NAS_LOG_INFO);
    nas_status status = open_all(&c);
    if (status == NAS_OK) status = baseline(&c);
    if (status == NAS_OK) status = nas__comp_search(&c);
    if (status == NAS_OK) status = nas__comp_put_encoder(&c);
    if (status == NAS_OK) status = nas__comp_final(&c);
    if (status == NAS_OK) status = nas__comp_report(&c, feasible);
    note_end(&c, status);
    if (status == NAS_ERR_CANCELLED)
        nas_log(ctx, NAS_LOG_INFO, "interrupted; run the same command again to continue in %s",
                c.dir);
    const nas_status closed = close_all(&c);
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_INFO);
    return status == NAS_OK ? closed : status;
}

/* ---- plan --------------------------------------------------------------------------------------------------------------- */

static nas_status print_channels(nas_ctx *ctx, const nas_graph *g) {
    nas_graph_cost cost = {0};
    nas_channels *channels = NULL;
    nas_status status = nas_graph_cost_total(ctx, g, &cost);
    if (status == NAS_OK) status = nas_channels_find(ctx, g, &channels);
    if (status != NAS_OK) return status;
    printf("network   %s: %.3f MMACs, %" PRIu64 " parameters, %d groups of channels\n",
           nas_graph_name(g), (double)cost.macs * 1e-6, cost.params,
           (int)nas_channels_group_count(channels));
    for (int32_t i = 0; i < nas_channels_group_count(channels); i++) {
        const nas_channel_group *group = nas_channels_group(channels, i);
        printf("          %-40s %4d channels, written by %d and read by %d convolutions\n",
               group->name, (int)group->channels, (int)group->producers, (int)group->readers);
    }
    nas_channels_free(channels);
    return NAS_OK;
}

/* Costs of levels need weights, though not good ones. */
static nas_status print_network(nas_ctx *ctx, const nas_config *cfg, nas_graph *g) {
    nas_rng rng = nas_rng_stream(cfg->study.seed, 0, "init classifier");
    nas_status status = NAS_OK;
    if (nas__space_has_channels(cfg->compress.space)) status = print_channels(ctx, g);
    if (status != NAS_OK || !nas__space_has_levels(cfg->compress.space)) return status;
    if (cfg->model.onnx[0] == '\0') status = nas_class_init(ctx, g, &rng);
    return status == NAS_OK ? nas__levels_plan(ctx, cfg, g) : status;
}

static void print_trials(const nas_config *cfg) {
    const bool channels = nas__space_has_channels(cfg->compress.space);
    const bool levels = nas__space_has_levels(cfg->compress.space);
    const bool in_turn = strcmp(cfg->compress.calibrate, "dense") != 0;
    printf("search    %d trials by %s; each: ", (int)cfg->search.trials, cfg->search.strategy);
    if (channels) {
        printf("pruned%s%s%s", cfg->compress.repair ? ", repaired by least squares" : "",
               levels ? ", its layers compressed" : "",
               cfg->compress.recalibrate ? ", recalibrated" : "");
    } else {
        printf("put together from layers that were compressed once");
    }
    printf(", scored on at most %d images, compiled, timed for %.1f s at most on %s\n",
           (int)cfg->data.reward_images, cfg->measure.max_time_ms * 1e-3, cfg->devices[0].name);
    if (cfg->compress.finalists > 0) {
        printf("final     at most %d proposals: %d steps each; the best of them goes on, and the "
               "original: %d steps in all\n",
               (int)cfg->compress.finalists, (int)cfg->compress.finalist_steps,
               (int)cfg->eval.finetune_steps);
    } else if (channels) {
        printf("final     the original and at most %d front members: %d steps each%s\n",
               (int)cfg->eval.finetune_max, (int)cfg->eval.finetune_steps,
               !levels   ? ""
               : in_turn ? ", then layers compressed in turn"
                         : ", then each layer compressed for itself");
    } else {
        printf("final     at most %d front members: %s\n", (int)cfg->eval.finetune_max,
               in_turn ? "layers compressed in turn" : "as they were scored");
    }
}

nas_status nas__compress_plan(nas_ctx *ctx, const nas_study_options *options) {
    const nas_config *cfg = options->config;
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    nas_graph *g = NULL;
    nas_status status =
        cfg->model.onnx[0] != '\0'
            ? nas_onnx_import(ctx, cfg->model.onnx, &o, &g)
            : nas_small_resnet_graph(ctx, cfg->model.side, cfg->model.side, 3, 10, &g);
    if (status == NAS_OK) {
        printf("study     %s, seed %" PRIu64 ", folder %s\n", cfg->study.name, cfg->study.seed,
               cfg->study.dir);
        status = print_network(ctx, cfg, g);
    }
    if (status == NAS_OK) {
        if (cfg->model.onnx[0] == '\0')
            printf("training  the built-in network: %d steps\n", (int)cfg->model.train_steps);
        print_trials(cfg);
    }
    nas_graph_free(g);
    return status;
}
