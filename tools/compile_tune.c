/* compile_tune.c - times of kernels for nas-compile: remembered in a database, measured here or on a device by its agent. */
#include "tools/compile_tune.h"
#include "tools/sparse_device.h"

#include <stdio.h>
#include <string.h>

/* ---- the database -------------------------------------------------------------------------------------------------- */

static nas_db_kernel_key db_key(const nas_tune_key *key) {
    return (nas_db_kernel_key){key->kernel, key->way, key->device, key->threads};
}

static bool find_time(void *user, const nas_tune_key *key, double *ns) {
    nas_compile_tune *t = user;
    bool found = false;
    nas_db_kernel_timing timing;
    const nas_db_kernel_key k = db_key(key);
    if (nas_db_kernel_timing_get(t->ctx, t->db, &k, &found, &timing) != NAS_OK || !found)
        return false;
    *ns = timing.p50_ns;
    return true;
}

static nas_status store_time(nas_ctx *ctx, void *user, const nas_tune_key *key,
                             const nas_tune_timing *timing) {
    nas_compile_tune *t = user;
    const nas_db_kernel_key k = db_key(key);
    const nas_db_kernel_timing row = {timing->p50_ns, timing->lo_ns, timing->hi_ns, timing->runs};
    t->measured++;
    if (strncmp(key->way, "break-even ", 11) != 0) /* those are the output */
        fprintf(stderr, "tuned %lld kernels: %s, %d %s: %.1f us\n", (long long)t->measured,
                key->way, key->threads, key->threads == 1 ? "thread" : "threads",
                timing->p50_ns * 1e-3);
    return nas_db_kernel_timing_put(ctx, t->db, &k, &row);
}

/* Opens the memory when it is asked for or there is one. */
static nas_status open_memory(nas_ctx *ctx, const nas_compile_tune_options *o,
                              const char *cache_dir, nas_compile_tune *t) {
    char path[1024];
    const int n = o->db_path != NULL ? snprintf(path, sizeof path, "%s", o->db_path)
                                     : snprintf(path, sizeof path, "%s/kernels.db", cache_dir);
    if (n < 0 || (size_t)n >= sizeof path)
        return nas_fail(ctx, NAS_ERR_RANGE, "path of the kernel times is longer than 1023 bytes");
    if (o->tune_s <= 0 && !o->needs_db && !nas_file_exists(path)) {
        if (o->db_path == NULL) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "--db %s: no such file; --tune makes one", path);
    }
    nas_status status = o->db_path == NULL ? nas_mkdirs(ctx, cache_dir) : NAS_OK;
    if (status == NAS_OK) status = nas_db_open(ctx, path, &t->db);
    t->ctx = nas_ctx_child(ctx);
    return status == NAS_OK && t->ctx == NULL ? NAS_ERR_NOMEM : status;
}

/* ---- the device ---------------------------------------------------------------------------------------------------- */

static nas_status run_on_device(nas_ctx *ctx, void *user, const char *path, const char *sha256,
                                double seconds, int32_t threads, nas_buf *timings) {
    nas_compile_tune *t = user;
    const nas_device_program program = {.path = path,
                                        .sha256 = sha256,
                                        .threads = threads,
                                        .seconds = seconds,
                                        .member = "timings"};
    return nas_device_run(ctx, t->device, &program, timings);
}

/* How a database knows the device: its connection alone may lead to another one tomorrow. This machine has the name of its
 * processor, whoever runs the programs. */
static const char *name_of(const nas_device *device, const char *connect, char *out, size_t size) {
    const nas_device_facts *f = nas_device_facts_of(device);
    if (strcmp(connect, "local") == 0) return NULL;
    (void)snprintf(out, size, "%s%s %s %s, %d processors",
                   nas_device_is_simulated(device) ? "SIMULATED " : "", connect, f->arch, f->model,
                   f->cpus);
    return out;
}

static nas_status open_device(nas_ctx *ctx, const nas_compile_tune_options *o, bool choose_target,
                              nas_compile_options *compile, nas_compile_tune *t) {
    nas_status status = nas_sparse_device_open(ctx, o->device, o->key_file, compile->cache_dir,
                                               compile->dtype, &t->device, &t->target);
    if (status != NAS_OK) return status;
    if (choose_target) compile->target = &t->target;
    status = nas_device_suits(ctx, t->device, compile->target->arch, compile->target->needs);
    if (status != NAS_OK) return nas_wrap(ctx, status, "--device %s", o->device);
    t->hooks = (nas_tune_device){
        .user = t,
        .name = name_of(t->device, o->device, t->device_name, sizeof t->device_name),
        .program_bytes_max = NAS_AGENT_BODY_MAX,
        .run = run_on_device};
    compile->tune_device = &t->hooks;
    return NAS_OK;
}

static int32_t timed_threads(const nas_compile_tune *t, int32_t threads) {
    const int32_t cpus =
        t->device != NULL ? nas_device_facts_of(t->device)->cpus : (int32_t)nas_cpu_count();
    return cpus > 0 && cpus < threads ? cpus : threads;
}

nas_status nas_compile_tune_open(nas_ctx *ctx, const nas_compile_tune_options *o,
                                 bool choose_target, nas_compile_options *compile,
                                 nas_compile_tune *t) {
    *t = (nas_compile_tune){0};
    nas_status status = open_memory(ctx, o, compile->cache_dir, t);
    if (status == NAS_OK && o->device != NULL)
        status = open_device(ctx, o, choose_target, compile, t);
    if (status != NAS_OK || t->db == NULL) return status;
    t->memory = (nas_tune_memory){.user = t, .find = find_time, .store = store_time};
    compile->memory = &t->memory;
    compile->tune_s = o->tune_s;
    compile->tune_threads = timed_threads(t, o->threads);
    return NAS_OK;
}

nas_status nas_compile_tune_close(nas_ctx *ctx, nas_compile_tune *t) {
    const nas_status status = t->db != NULL ? nas_db_close(ctx, t->db) : NAS_OK;
    nas_device_close(t->device);
    nas_ctx_free(t->ctx);
    *t = (nas_compile_tune){0};
    return status;
}
