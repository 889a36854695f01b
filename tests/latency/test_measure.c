/* test_measure.c - the whole way: a tiny model compiled with the real measuring loop, timed by a real agent. */
#include "latency/device_internal.h"
#include "tests/support/machine_tree.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64], agent[512], artifact[128], hash[NAS_SHA256_HEX];
static nas_device *device;

/* 8x8 floats doubled; `WORK` is spliced into model_run. Two threads are offered, the second one only counts. */
static const char model_h[] =
    "#ifndef MODEL_H\n#define MODEL_H\n#include <stddef.h>\n"
    "#define MODEL_INPUT_C 1\n#define MODEL_INPUT_H 8\n#define MODEL_INPUT_W 8\n"
    "#define MODEL_OUTPUT_C 1\n#define MODEL_OUTPUT_H 8\n#define MODEL_OUTPUT_W 8\n"
    "#define MODEL_ARENA_BYTES ((size_t)64)\n#define MODEL_MAX_THREADS 2\n"
    "#define MODEL_NAME \"tiny\"\n#define MODEL_GRAPH_HASH \"00ff\"\n#define MODEL_NEEDS \"\"\n"
    "#define MODEL_MACS 64ULL\n#define MODEL_LAYERS 0\n"
    "int model_open(void *arena, int threads);\n"
    "void model_run(void *arena, const float *in, float *out);\n"
    "void model_close(void *arena);\n#endif\n";
static const char model_c[] =
    "#include \"model.h\"\n#include <stdio.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
    "static volatile int rounds = 200;\n"
    "int model_open(void *a, int threads) { (void)a; (void)threads; return 0; }\n"
    "void model_run(void *a, const float *in, float *out) {\n"
    "    (void)a;\n    WORK;\n"
    "    for (int r = 0; r < rounds; r++) for (int i = 0; i < 64; i++) out[i] = 2.0f * in[i];\n}\n"
    "void model_close(void *a) { (void)a; }\n";

static void write_file(const char *name, const char *text) {
    char path[160];
    (void)snprintf(path, sizeof path, "%s/%s", dir, name);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, text, strlen(text), 0600), NAS_OK));
}

/* Compiles the model with compiler/rt/bench_main.c into `artifact` and hashes it. */
static void build(const char *work) {
    char model_path[128], include[96], define[128];
    const char *cc = getenv("CC");
    write_file("model.h", model_h);
    write_file("model.c", model_c);
    (void)snprintf(model_path, sizeof model_path, "%s/model.c", dir);
    (void)snprintf(artifact, sizeof artifact, "%s/model", dir);
    (void)snprintf(include, sizeof include, "-I%s", dir);
    (void)snprintf(define, sizeof define, "-DWORK=%s", work);
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){cc != NULL ? cc : "cc",
                                   "-std=c99",
                                   "-O0",
                                   "-Wall",
                                   "-Wextra",
                                   "-Werror",
                                   define,
                                   include,
                                   model_path,
                                   "compiler/rt/bench_main.c",
                                   "compiler/rt/peak.c",
                                   "-o",
                                   artifact,
                                   "-pthread",
                                   NULL};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, artifact, hash), NAS_OK));
}

static void setup(void) {
    const char *bin = getenv("NAS_BIN_DIR");
    ctx = nas_ctx_new();
    device = NULL;
    (void)snprintf(dir, sizeof dir, "/tmp/nas-measure-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(agent, sizeof agent, "%s/nas-agent", bin != NULL ? bin : "build/release/bin");
}

static void open_device(const char *cpus) {
    const nas_device_options o = {.name = "here",
                                  .connect = "local",
                                  .agent_path = agent,
                                  .work_dir = dir,
                                  .threads = 1,
                                  .cores = cpus};
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &device), NAS_OK), "%s", nas_ctx_message(ctx));
}

static void teardown(void) {
    nas_device_close(device);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(latency_measure, .init = setup, .fini = teardown, .timeout = 120);

/* Short, and any interval will do: the tests run on busy machines. */
static nas_measure_options quick(void) {
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = 10;
    o.min_time_ms = 20;
    o.max_time_ms = 300;
    o.max_repeats = 0;
    o.accept_half_width = 1000;
    o.deadline_ms = 60000;
    return o;
}

Test(latency_measure, a_real_program_gives_consistent_numbers_and_a_passport) {
    nas_measurement m = {0};
    nas_sample_stats s;
    const nas_measure_options o = quick();
    build("(void)0");
    open_device("0");
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(not(m.simulated));
    cr_assert(eq(int, m.threads, 1));
    cr_assert(m.min_us > 0 && m.min_us <= m.p50_us && m.p50_lo_us < m.p50_us &&
              m.p50_us <= m.p50_hi_us);
    cr_assert(m.batches >= 1 && m.batch_size >= 1 && m.init_us >= 0 && m.first_us > 0);
    cr_assert(m.n_samples >= 1 && m.n_samples <= (size_t)m.batches);
    cr_assert(eq(int, (int)nas_sample_stats_of(ctx, m.samples_us, m.n_samples, &s), NAS_OK));
    if (m.n_samples ==
        (size_t)
            m.batches) { /* program and client agree on every statistic; samples have 9 digits */
        cr_assert(epsilon_eq(dbl, s.median, m.p50_us, 1e-6 * m.p50_us));
        /* The run's own interval joined with the scatter that is assumed of a first run. */
        const double down = hypot(log(s.median / s.median_lo), device->repeat.reach_down);
        const double up = hypot(log(s.median_hi / s.median), device->repeat.reach_up);
        cr_assert(epsilon_eq(dbl, s.median * exp(-down), m.p50_lo_us, 1e-6 * m.p50_us));
        if (m.n_samples >= 6 || m.dropped == 0) /* else up to the longest disturbed one */
            cr_assert(epsilon_eq(dbl, s.median * exp(up), m.p50_hi_us, 1e-6 * m.p50_us));
        cr_assert(epsilon_eq(dbl, s.p90, m.p90_us, 1e-6 * m.p90_us));
        cr_assert(epsilon_eq(dbl, s.p10, m.p10_us, 1e-6 * m.p10_us));
        cr_assert(epsilon_eq(dbl, s.mad, m.mad_us, 1e-6 * m.p50_us));
    }
    static const char *const keys[] = {
        "\"simulated\":false", "\"artifact_sha256\"", "\"before\"",
        "\"after\"",           "\"limits\"",          "\"cpus_effective\":[\"0\"]",
        "\"attempts\"",        "\"fingerprint\"",     "\"peak_rss_bytes\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cr_assert(ne(ptr, strstr(m.passport_json, keys[i]), NULL), "%s in %s", keys[i],
                  m.passport_json);
    }
    cr_assert(eq(ptr, strstr(m.passport_json, "samples_us"), NULL));
    nas_measurement_deinit(&m);
}

Test(latency_measure, a_warm_up_of_fixed_length_is_as_long_as_that) {
    nas_measurement m = {0};
    nas_measure_options o = quick();
    build("(void)0");
    open_device("0");
    o.warmup_ms = 1;
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(m.passport_json, "\"warmup_ms\":1,"), NULL), "%s", m.passport_json);
    char *at = strstr(m.passport_json, "\"warmup_runs\":");
    cr_assert(ne(ptr, at, NULL), "%s", m.passport_json);
    const double runs = strtod(at + strlen("\"warmup_runs\":"), NULL);
    nas_measurement_deinit(&m);
    o.warmup_ms = 0; /* at least 200 ms: many more, however slow the machine has become */
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    at = strstr(m.passport_json, "\"warmup_runs\":");
    cr_assert(at != NULL && strtod(at + strlen("\"warmup_runs\":"), NULL) > runs, "%g, %s", runs,
              m.passport_json);
    nas_measurement_deinit(&m);
}

Test(latency_measure, a_sustained_run_counts_its_last_third_and_shows_its_course) {
    nas_measurement m = {0};
    nas_device_options o = nas_device_options_default();
    const nas_measure_options how = quick();
    build("(void)0");
    o.agent_path = agent;
    o.work_dir = dir;
    o.mode = NAS_DEVICE_SUSTAINED;
    o.sustained_s = 2;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &device), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &how, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(m.rate_per_s > 0 && m.wall_s >= 2.0 && m.wall_s < 30.0, "%g", m.wall_s);
    cr_assert(eq(int, m.repeats, 0)); /* however noisy */
    static const char *const keys[] = {"\"mode\":\"sustained\"", "\"curve\":[{\"t_s\":0.01",
                                       "\"first_third_rate_per_s\"", "\"batch_log\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_assert(ne(ptr, strstr(m.passport_json, keys[i]), NULL), "%s in %s", keys[i],
                  m.passport_json);
    nas_measurement_deinit(&m);
}

Test(latency_measure, the_program_notes_heat_clock_and_energy_where_they_are_named) {
    char tree[96], heat[200], rapl[200];
    build("(void)0");
    (void)snprintf(tree, sizeof tree, "%s/tree", dir);
    (void)snprintf(heat, sizeof heat, "%s/sys/class/thermal/thermal_zone1/temp", tree);
    (void)snprintf(rapl, sizeof rapl, "%s/sys/class/powercap/intel-rapl:0", tree);
    tree_phone(tree);
    tree_write(tree, "/sys/class/powercap/intel-rapl:0/energy_uj", "5000000");
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){artifact,
                                   "--bench",
                                   "--min-time-ms",
                                   "20",
                                   "--max-time-ms",
                                   "300",
                                   "--sys-root",
                                   tree,
                                   "--temperature",
                                   heat,
                                   "--rapl",
                                   rapl,
                                   "--idle-mw",
                                   "0",
                                   "--warmup-cap-ms",
                                   "200",
                                   NULL};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK));
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    static const char *const keys[] = {"\"mhz_min\": 1200.000, \"mhz_max\": 1200.000",
                                       "\"celsius_max\": 34.000",
                                       "\"celsius\": [34",
                                       "\"energy\": {\"source\": \"rapl\", \"coarse\": false, "
                                       "\"joules\": 0",
                                       "\"minus_idle\": true",
                                       "\"mhz_before\": 1200.000",
                                       "\"wait_us\": [",
                                       "\"mode\": \"burst\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        cr_assert(ne(ptr, strstr(r.out.data, keys[i]), NULL), "%s in %s", keys[i], r.out.data);
    nas_process_result_deinit(&r);
}

Test(latency_measure, an_interval_never_narrow_enough_is_repeated_and_flagged) {
    nas_measurement m = {0};
    nas_measure_options o = quick();
    o.max_repeats = 2;
    o.accept_half_width = 1e-15;
    build("(void)0");
    open_device("");
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(m.noisy);
    cr_assert(eq(int, m.repeats, 2));
    int attempts = 0;
    for (const char *at = strstr(m.passport_json, "\"p50_hi_us\""); at != NULL;
         at = strstr(at + 1, "\"p50_hi_us\""))
        attempts++;
    cr_assert(eq(int, attempts, 4), "%s", m.passport_json); /* three attempts and the kept run */
    nas_measurement_deinit(&m);
}

Test(latency_measure, crashes_deadlines_and_changed_files_are_told_apart) {
    nas_measurement m = {0};
    nas_measure_options o = quick();
    open_device("");
    build("abort()");
    cr_assert(
        eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "signal 6"), NULL), "%s", nas_ctx_message(ctx));
    build("(fputs(\"no such kernel\",stderr),_exit(9))");
    cr_assert(
        eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "no such kernel"), NULL), "%s",
              nas_ctx_message(ctx));
    build("sleep(1000)");
    o.deadline_ms = 200;
    cr_assert(
        eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), (int)NAS_ERR_TIMEOUT));
    hash[0] = hash[0] == '0' ? '1' : '0';
    cr_assert(
        eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "changed"), NULL), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, "short", &o, &m),
                 (int)NAS_ERR_INVALID));
}

static volatile sig_atomic_t cancel;

static void *cancel_later(void *unused) {
    const struct timespec t = {0, 300000000};
    (void)nanosleep(&t, NULL);
    cancel = 1;
    return unused;
}

Test(latency_measure, cancelling_ends_the_run_on_the_device) {
    nas_measurement m = {0};
    nas_measure_options o = quick();
    pthread_t thread;
    build("sleep(1000)");
    open_device("");
    cancel = 0;
    nas_ctx_set_cancel(ctx, &cancel);
    cr_assert(eq(int, pthread_create(&thread, NULL, cancel_later, NULL), 0));
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m),
                 (int)NAS_ERR_CANCELLED));
    (void)pthread_join(thread, NULL);
    cancel = 0;
    build(
        "(void)0"); /* the device is free again: the next measurement does not wait for the deadline */
    cr_assert(eq(int, (int)nas_measure(ctx, device, NULL, artifact, hash, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    nas_measurement_deinit(&m);
}

Test(latency_measure, a_vanished_agent_is_a_net_error) {
    nas_measurement m = {0};
    const nas_measure_options o = quick();
    build("(void)0");
    open_device("");
    cr_assert(device->process.pid > 1);
    cr_assert(eq(int, kill((pid_t)device->process.pid, SIGKILL), 0));
    const nas_status status = nas_measure(ctx, device, NULL, artifact, hash, &o, &m);
    cr_assert(eq(int, (int)status, (int)NAS_ERR_NET), "%s", nas_ctx_message(ctx));
}

Test(latency_measure, options_out_of_range_are_refused) {
    nas_measurement m = {0};
    const nas_device_options simulated = {
        .name = "s", .connect = "simulated", .threads = 1, .cores = ""};
    cr_assert(eq(int, (int)nas_device_open(ctx, &simulated, &device), NAS_OK));
    for (int row = 0; row < 8; row++) {
        nas_measure_options o = nas_measure_options_default();
        if (row == 6) o.warmup_ms = -1;
        if (row == 7) o.warmup_ms = 60001;
        if (row == 0) o.min_batches = 0;
        if (row == 1) o.min_time_ms = o.max_time_ms + 1;
        if (row == 2) o.max_repeats = -1;
        if (row == 3) o.accept_half_width = NAN;
        if (row == 4) o.deadline_ms = 0;
        if (row == 5) o.deadline_ms = NAS_AGENT_RUN_MS_MAX + 1;
        cr_assert(
            eq(int, (int)nas_measure(ctx, device, NULL, NULL, NULL, &o, &m), (int)NAS_ERR_RANGE),
            "row %d", row);
    }
}

/* ---- the program itself ---------------------------------------------------------------------------------------------- */

static int run_program(const char *const *argv, nas_buf *out, nas_buf *err) {
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = argv;
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_buf_clear(out);
    nas_buf_clear(err);
    nas_buf_append(out, r.out.data != NULL ? r.out.data : "", r.out.len);
    nas_buf_append(err, r.err.data != NULL ? r.err.data : "", r.err.len);
    nas_process_result_deinit(&r);
    return r.exit_code;
}

Test(latency_measure, the_program_runs_frames_and_describes_itself) {
    nas_buf out = {0}, err = {0}, result = {0};
    char in_path[128], out_path[128];
    float frames[3][64];
    build("(void)0");
    for (int i = 0; i < 3 * 64; i++)
        ((float *)frames)[i] = (float)i;
    (void)snprintf(in_path, sizeof in_path, "%s/in.raw", dir);
    (void)snprintf(out_path, sizeof out_path, "%s/out.raw", dir);
    cr_assert(eq(int, (int)nas_file_write(ctx, in_path, frames, sizeof frames, 0600), NAS_OK));
    cr_assert(eq(int,
                 run_program((const char *const[]){artifact, "--run", in_path, out_path, NULL},
                             &out, &err),
                 0),
              "%s", err.data);
    cr_assert(eq(int, (int)nas_file_read(ctx, out_path, 1 << 20, &result), NAS_OK));
    cr_assert(eq(sz, result.len, sizeof frames));
    for (int i = 0; i < 3 * 64; i++) {
        float value;
        memcpy(&value, result.data + (size_t)i * sizeof value, sizeof value);
        cr_assert(eq(flt, value, 2.0f * (float)i));
    }
    cr_assert(eq(int, (int)nas_file_write(ctx, in_path, frames, sizeof frames - 4, 0600), NAS_OK));
    cr_assert(eq(
        int,
        run_program((const char *const[]){artifact, "--run", in_path, out_path, NULL}, &out, &err),
        1));
    cr_assert(ne(ptr, strstr(err.data, "252 bytes, the model reads 256"), NULL), "%s", err.data);
    cr_assert(eq(int, run_program((const char *const[]){artifact, "--info", NULL}, &out, &err), 0));
    cr_assert(ne(ptr, strstr(out.data, "\"input\": [1, 8, 8]"), NULL), "%s", out.data);
    nas_buf_deinit(&out);
    nas_buf_deinit(&err);
    nas_buf_deinit(&result);
}

Test(latency_measure, the_program_refuses_bad_options) {
    nas_buf out = {0}, err = {0};
    build("(void)0");
    const char *const rows[][5] = {
        {artifact, NULL},
        {artifact, "--bench", "--threads", "3", NULL},
        {artifact, "--bench", "--threads", NULL},
        {artifact, "--bench", "--speed", "1", NULL},
        {artifact, "--bench", "--cpus", "0,", NULL},
        {artifact, "--bench", "--cpus", "1-0", NULL},
        {artifact, "--bench", "--cpus", "1023", NULL},
        {artifact, "--bench", "--batch-ms", "1x", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(eq(int, run_program(rows[i], &out, &err), 2), "row %zu", i);
        cr_assert(err.len > 0 && out.len == 0, "row %zu", i);
    }
    nas_buf_deinit(&out);
    nas_buf_deinit(&err);
}
