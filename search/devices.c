/* devices.c - the devices of a study: which are needed, what each is compiled for, which are alike, which came back. */
#include "search/stored.h"
#include "search/study_internal.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const char *nas__queue_name(const nas__study *s, int32_t queue) {
    return s->config->queues[queue];
}

int64_t nas__queue_device_id(const nas__study *s, int32_t queue) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        if (s->devices[i].queue == queue && s->devices[i].id != 0) return s->devices[i].id;
    }
    return 0;
}

const nas__device *nas__queue_device(const nas__study *s, int32_t queue) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        if (s->devices[i].queue == queue && s->devices[i].handle != NULL) return &s->devices[i];
    }
    return NULL;
}

const nas__target *nas__first_target(const nas__study *s) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        if (s->devices[i].queue == s->first_queue) return &s->targets[s->devices[i].target];
    }
    return &s->targets[0];
}

/* ---- which are needed ------------------------------------------------------------------------------------------------ */

/* The first queue is that of the first latency named: objectives before bounds. */
static void find_needed(nas__study *s) {
    const nas_config *c = s->config;
    int32_t first = -1;
    for (int32_t i = 0; i < c->n_objectives; i++) {
        if (!nas_metric_is_timed(c->objectives[i].metric)) continue;
        s->needed[c->objectives[i].queue] = true;
        if (first < 0) first = c->objectives[i].queue;
    }
    for (int32_t i = 0; i < c->n_constraints; i++) {
        if (!nas_metric_is_timed(c->constraints[i].metric)) continue;
        s->needed[c->constraints[i].queue] = true;
        if (first < 0) first = c->constraints[i].queue;
    }
    s->first_queue = first < 0 ? 0 : first;
    s->needed[s->first_queue] = true; /* tables and ties want a latency in any case */
}

static nas_status store_queues(nas__study *s) {
    const char *names[NAS_DEVICES_MAX];
    size_t n = 0;
    names[n++] = nas__queue_name(s, s->first_queue);
    for (int32_t q = 0; q < s->config->n_queues; q++) {
        if (s->needed[q] && q != s->first_queue) names[n++] = nas__queue_name(s, q);
    }
    return nas_db_study_set_queues(s->ctx, s->db, s->id, names, n);
}

/* ---- targets --------------------------------------------------------------------------------------------------------- */

static const char *target_name(const nas__study *s, const nas_config_device *d) {
    return d->target[0] != '\0' ? d->target : s->config->compile.target;
}

static bool device_has(void *user, const char *feature) {
    return nas_device_has_feature(user, feature);
}

static nas_dtype dtype_of(const nas__study *s) {
    return strcmp(s->config->compile.dtype, "fp16") == 0 ? NAS_DTYPE_FP16 : NAS_DTYPE_FP32;
}

/* The best row for a device that is not this machine, as far as its agent tells. */
static nas_status best_target(nas__study *s, nas_device *handle, nas_target *out) {
    const nas_device_facts *f = nas_device_facts_of(handle);
    const nas_target_cpu cpu = {f->vendor, f->family, f->l1_bytes, f->l2_bytes, 0};
    return nas_target_best(s->ctx, f->arch, dtype_of(s), device_has, handle, &cpu, out);
}

/* handle NULL: not yet opened. */
static nas_status find_row(nas__study *s, const nas_config_device *d, nas_device *handle,
                           nas_target *out) {
    const nas_target *row = NULL;
    const char *name = target_name(s, d);
    const bool here = strcmp(d->connect, "local") == 0 || handle == NULL ||
                      nas_device_facts_of(handle)->arch[0] == '\0'; /* or nothing runs at all */
    nas_status status = NAS_OK;
    if (strcmp(name, "auto") == 0 && !here) return best_target(s, handle, out);
    if (strcmp(name, "auto") == 0 || strcmp(name, "native") == 0) {
        status = nas_target_native(s->ctx, dtype_of(s), &row);
    } else {
        status = nas_target_find(s->ctx, name, &row);
    }
    if (status == NAS_OK) *out = *row;
    return status;
}

/* Row and processor that a device is compiled for; handle NULL: not yet opened, "auto" is this machine. */
static nas_status find_target(nas__study *s, const nas_config_device *d, nas_device *handle,
                              nas_target *out) {
    nas_target row;
    nas_status status = find_row(s, d, handle, &row);
    if (status != NAS_OK)
        return nas_wrap(s->ctx, status, "%s target", d->target[0] != '\0' ? d->name : "compile");
    *out = row;
    if (d->cpu[0] != '\0') status = nas_target_find_cpu(s->ctx, &row, d->cpu, out);
    if (status == NAS_OK) status = nas_target_check_dtype(s->ctx, out, dtype_of(s));
    if (status == NAS_ERR_UNSUPPORTED && dtype_of(s) != NAS_DTYPE_FP32)
        return nas_wrap(s->ctx, status, "compile.dtype, device '%s'", d->name);
    if (status == NAS_OK && !out->runs_here && strcmp(d->connect, "local") == 0) {
        status =
            nas_fail(s->ctx, NAS_ERR_INVALID,
                     "compile.target '%s' does not run on device '%s' (local)", out->name, d->name);
    }
    return status;
}

/* Emulators of other architectures, as packages name them. */
static void find_runner(const nas_target *row, const nas_target *native, char out[256]) {
    static const struct {
        const char *arch, *emulator;
    } known[] = {{"aarch64", "qemu-aarch64"}, {"armv7", "qemu-arm"}, {"riscv64", "qemu-riscv64"}};
    out[0] = '\0';
    if (row->runs_here || strcmp(row->arch, native->arch) == 0) return;
    const char *path = getenv("PATH");
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        if (strcmp(known[i].arch, row->arch) != 0) continue;
        for (const char *p = path == NULL ? "" : path; *p != '\0';) {
            const int len = (int)strcspn(p, ":");
            static const char *const suffixes[] = {"-static", ""};
            for (int k = 0; k < 2; k++) {
                const int n =
                    snprintf(out, 256, "%.*s/%s%s", len, p, known[i].emulator, suffixes[k]);
                if (n > 0 && n < 256 && access(out, X_OK) == 0) return;
            }
            p += len + (p[len] == ':');
        }
    }
    out[0] = '\0';
}

/* The compiler of the config is for the target of the config: other targets have their own. */
static void make_target(const nas__study *s, const nas_target *row, const nas_config_device *d,
                        nas__target *out) {
    const nas_config *c = s->config;
    const bool named = c->compile.compiler[0] != '\0' && (row->runs_here || d->target[0] == '\0');
    out->row = *row;
    out->compile = nas_compile_options_default();
    out->compile.target = &out->row;
    out->compile.compiler = named ? c->compile.compiler : NULL;
    out->compile.cache_dir = c->compile.cache_dir;
    out->compile.max_threads = d->threads;
    out->compile.dtype = dtype_of(s);
    out->compile.timeout_ms = c->compile.timeout_s * 1000;
}

/* Devices of equal targets share their programs, made for as many threads as the most demanding one starts. */
static nas_status add_target(nas__study *s, const nas_target *row, const nas_config_device *d,
                             int32_t *index) {
    for (int32_t i = 0; i < s->n_targets; i++) {
        nas__target *t = &s->targets[i];
        if (strcmp(t->row.name, row->name) != 0 || strcmp(t->row.flags, row->flags) != 0) continue;
        if (t->compile.max_threads < d->threads) t->compile.max_threads = d->threads;
        *index = i;
        return NAS_OK;
    }
    nas__target *t = &s->targets[s->n_targets];
    make_target(s, row, d, t);
    find_runner(row, &s->native.row, t->runner);
    *index = s->n_targets++;
    return nas_toolchain_check(s->ctx, &t->compile);
}

nas_status nas__devices_check(nas__study *s) {
    const nas_target *native = NULL;
    find_needed(s);
    nas_status status = nas_target_find(s->ctx, "native", &native);
    if (status == NAS_OK) {
        make_target(s, native, &s->config->devices[0], &s->native);
        s->native.compile.dtype = NAS_DTYPE_FP32; /* this CPU need not compute in halves */
    }
    for (int32_t i = 0; i < s->config->n_devices && status == NAS_OK; i++) {
        const nas_config_device *d = &s->config->devices[i];
        nas_target row;
        nas__target t;
        if (!s->needed[d->queue] || strcmp(target_name(s, d), "auto") == 0) continue;
        status = find_target(s, d, NULL, &row);
        if (status != NAS_OK) break;
        make_target(s, &row, d, &t);
        status = nas_toolchain_check(s->ctx, &t.compile);
    }
    return status;
}

/* ---- pools ----------------------------------------------------------------------------------------------------------- */

static const json_t *member(const json_t *root, const char *section, const char *name) {
    return json_object_get(json_object_get(root, section), name);
}

/* What makes the fingerprints differ, for people: "system.kernel: ... and ...". */
static void describe_difference(const char *info_a, const char *info_b, char *out, size_t size) {
    static const char *const parts[][2] = {{"cpu", "model"},     {"cpu", "features"},
                                           {"cpu", "online"},    {"system", "machine"},
                                           {"system", "kernel"}, {"device", "model"}};
    json_t *a = json_loads(info_a, 0, NULL), *b = json_loads(info_b, 0, NULL);
    (void)snprintf(out, size, "their fingerprints differ");
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++) {
        const json_t *x = member(a, parts[i][0], parts[i][1]);
        const json_t *y = member(b, parts[i][0], parts[i][1]);
        if (x == NULL || y == NULL || json_equal(x, y) == 1) continue;
        char *tx = json_dumps(x, JSON_ENCODE_ANY), *ty = json_dumps(y, JSON_ENCODE_ANY);
        (void)snprintf(out, size, "%s.%s is %.80s and %.80s", parts[i][0], parts[i][1],
                       tx == NULL ? "?" : tx, ty == NULL ? "?" : ty);
        free(tx); /* jansson's own memory */
        free(ty); /* its own memory */
        break;
    }
    const json_t *x = json_object_get(a, "agent"), *y = json_object_get(b, "agent");
    if (json_is_true(json_object_get(a, "simulated")) && json_is_string(x) && json_is_string(y)) {
        (void)snprintf(out, size, "\"%.60s\" and \"%.60s\"", json_string_value(x),
                       json_string_value(y));
    }
    json_decref(a);
    json_decref(b);
}

/* Numbers of a pool are compared with each other: all its devices must be of one kind. */
static nas_status check_pool(nas_ctx *ctx, const nas__study *s, const nas__device *d) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        const nas__device *other = &s->devices[i];
        if (other == d || other->queue != d->queue || other->handle == NULL) continue;
        if (strcmp(nas_device_fingerprint(other->handle), nas_device_fingerprint(d->handle)) == 0)
            continue;
        char what[300];
        describe_difference(nas_device_info_json(other->handle), nas_device_info_json(d->handle),
                            what, sizeof what);
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "pool '%s': devices '%s' and '%s' are not alike (%s); give each a queue of "
                        "its own",
                        nas__queue_name(s, d->queue), other->config->name, d->config->name, what);
    }
    return NAS_OK;
}

/* A device that changed since the study's last measurement on it gives other numbers: told, not refused. */
static nas_status note_change(nas__study *s, const nas__device *d) {
    char before[NAS_SHA256_HEX] = "", what[300], text[500];
    char *info = NULL;
    nas_status status = nas_db_device_last(s->ctx, s->db, s->id, d->config->name, before, &info);
    if (status == NAS_ERR_NOTFOUND) {
        nas_ctx_clear(s->ctx);
        return NAS_OK;
    }
    if (status == NAS_OK && strcmp(before, nas_device_fingerprint(d->handle)) != 0) {
        describe_difference(info, nas_device_info_json(d->handle), what, sizeof what);
        (void)snprintf(text, sizeof text,
                       "%s is not the device it was: %s; old and new latencies are mixed",
                       d->config->name, what);
        nas_log(s->ctx, NAS_LOG_WARN, "%s", text);
        status = nas_db_event(s->ctx, s->db, s->id, "device", text);
    }
    nas_free(info);
    return status;
}

/* ---- opening --------------------------------------------------------------------------------------------------------- */

static nas_status open_handle(nas_ctx *ctx, nas__study *s, const nas_config_device *c,
                              nas_device **out) {
    nas_device_options o = nas__device_options(c, s->options->agent_path);
    char work[NAS__PATH_MAX], name[NAS_DEVICE_NAME_MAX + 8];
    const bool only = s->config->n_devices == 1;
    (void)snprintf(name, sizeof name, only ? "agent" : "agent-%s", c->name);
    nas_status status = nas__study_path(s, name, work);
    o.work_dir = work;
    if (status == NAS_OK) status = nas_device_open(ctx, &o, out);
    return status;
}

/* Database row of a device that was just reached. The caller holds the lock where one is needed. */
static nas_status put_device(nas_ctx *ctx, nas__study *s, nas__device *d) {
    nas_status status = nas_db_device_put(
        ctx, s->db, d->config->name, d->config->connect, nas_device_fingerprint(d->handle),
        nas_device_info_json(d->handle), nas_device_is_simulated(d->handle), &d->id);
    if (status == NAS_OK)
        status = nas_db_device_set_queue(ctx, s->db, d->id, nas__queue_name(s, d->queue));
    return status;
}

static bool is_absent(nas_status status) {
    return status == NAS_ERR_NET || status == NAS_ERR_TIMEOUT || status == NAS_ERR_DEVICE;
}

static void mark_away(nas__device *d, const char *why) {
    if (!d->away) d->away_since_ns = nas_now_ns();
    d->away = true;
    (void)snprintf(d->why, sizeof d->why, "%s", why);
}

static nas_status open_one(nas__study *s, nas__device *d) {
    nas_target row;
    nas_status status = open_handle(s->ctx, s, d->config, &d->handle);
    if (status != NAS_OK) {
        const bool mate = d->config->pool[0] != '\0' && is_absent(status);
        if (!mate) return status;
        mark_away(d, nas_ctx_message(s->ctx)); /* its pool may do without it */
        nas_log(s->ctx, NAS_LOG_WARN, "%s", d->why);
        return NAS_OK;
    }
    status = find_target(s, d->config, d->handle, &row);
    if (status == NAS_OK) status = nas_device_suits(s->ctx, d->handle, row.arch, row.needs);
    if (status == NAS_OK) status = add_target(s, &row, d->config, &d->target);
    if (status == NAS_OK) status = check_pool(s->ctx, s, d);
    if (status == NAS_OK) status = note_change(s, d);
    if (status == NAS_OK) status = put_device(s->ctx, s, d);
    if (status == NAS_OK)
        status = nas__know_runs(s->ctx, s->db, d->id, d->config->threads, d->handle);
    return nas_wrap(s->ctx, status, "device '%s'", d->config->name);
}

/* A pool needs one device to begin with; those that are away get its target. */
static nas_status check_queues(nas__study *s) {
    for (int32_t i = 0; i < s->n_devices; i++) {
        nas__device *d = &s->devices[i];
        const nas__device *mate = NULL;
        for (int32_t k = 0; k < s->n_devices; k++) {
            if (s->devices[k].queue == d->queue && !s->devices[k].away) mate = &s->devices[k];
        }
        if (mate == NULL) {
            return nas_fail(s->ctx, NAS_ERR_DEVICE, "no device of pool '%s' answers; the last: %s",
                            nas__queue_name(s, d->queue), d->why);
        }
        if (d->away) d->target = mate->target;
    }
    return NAS_OK;
}

nas_status nas__devices_open(nas__study *s) {
    nas_status status = store_queues(s);
    for (int32_t i = 0; i < s->config->n_devices && status == NAS_OK; i++) {
        const nas_config_device *c = &s->config->devices[i];
        if (!s->needed[c->queue]) {
            nas_log(s->ctx, NAS_LOG_WARN, "device '%s' is not used: no objective or bound names it",
                    c->name);
            continue;
        }
        nas__device *d = &s->devices[s->n_devices++];
        *d = (nas__device){.config = c, .queue = c->queue};
        status = open_one(s, d);
    }
    return status == NAS_OK ? check_queues(s) : status;
}

void nas__devices_close(nas__study *s) {
    for (int32_t i = 0; i < s->n_devices; i++)
        nas_device_close(s->devices[i].handle);
}

/* ---- lost and found -------------------------------------------------------------------------------------------------- */

bool nas__device_is_lost(nas_ctx *ctx, const nas__device *d, nas_status status) {
    if (status == NAS_ERR_NET) return true;
    if (status != NAS_ERR_DEVICE && status != NAS_ERR_TIMEOUT) return false;
    char message[NAS__REASON_MAX];
    (void)snprintf(message, sizeof message, "%s", nas_ctx_message(ctx));
    const bool lost = nas_device_alive(ctx, d->handle) != NAS_OK;
    (void)nas_fail(ctx, status, "%s", message); /* what failed first is the one to report */
    return lost;
}

nas_status nas__device_connect(nas_ctx *ctx, nas__study *s, nas__device *d) {
    const bool known = d->handle != NULL;
    nas_status status =
        known ? nas_device_reopen(ctx, d->handle, 0) : open_handle(ctx, s, d->config, &d->handle);
    if (status != NAS_OK && !is_absent(status)) return status;
    pthread_mutex_lock(&s->lock);
    if (status == NAS_OK && !known) status = check_pool(ctx, s, d);
    const nas_target *row = &s->targets[d->target].row;
    if (status == NAS_OK) status = nas_device_suits(ctx, d->handle, row->arch, row->needs);
    if (status == NAS_OK) status = put_device(ctx, s, d);
    if (status == NAS_OK && !known)
        status = nas__know_runs(ctx, s->db, d->id, d->config->threads, d->handle);
    if (status == NAS_OK) {
        d->away = false;
        char text[200];
        (void)snprintf(text, sizeof text, "%s is back after %.0f s", d->config->name,
                       (double)(nas_now_ns() - d->away_since_ns) * 1e-9);
        status = nas_db_event(ctx, s->db, s->id, "device", text);
        nas_log(ctx, NAS_LOG_INFO, "%s", text);
    } else {
        mark_away(d, nas_ctx_message(ctx));
    }
    pthread_mutex_unlock(&s->lock);
    return status;
}
