/* test_hold.c - an agent that others can reach: one controller at a time, and what a device's options make of a run. The
 * machine is made up (--sys-root), the program a script that shows its arguments. */
#include "latency/device_internal.h"
#include "tests/support/machine_tree.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64], tree[96], key_path[96], cache[96], program[128], hash[NAS_SHA256_HEX],
    connect_to[64];
static pid_t agent;

/* A finished document; its arguments as one more member. */
static const char script[] =
    "#!/bin/sh\n"
    "echo \"{\\\"schema\\\": 1, \\\"threads\\\": 1, \\\"init_us\\\": 1, \\\"first_us\\\": 2, "
    "\\\"batch_size\\\": 1, \\\"batches\\\": 1, \\\"dropped\\\": 0, \\\"p50_us\\\": 5, "
    "\\\"p50_lo_us\\\": 5, \\\"p50_hi_us\\\": 5, \\\"p90_us\\\": 5, \\\"p10_us\\\": 5, "
    "\\\"min_us\\\": 5, \\\"mad_us\\\": 0, \\\"wall_s\\\": 1, \\\"samples_us\\\": [5], "
    "\\\"celsius_max\\\": 41.5, \\\"sustained\\\": {\\\"rate_per_s\\\": 7}, \\\"energy\\\": "
    "{\\\"mj_per_inference\\\": 0.25, \\\"coarse\\\": true}, \\\"argv\\\": \\\"$*\\\"}\"\n";

static void setup(void) {
    char own[32], line[128] = "", path[512];
    uint8_t key[NAS_AGENT_KEY_BYTES];
    int pipes[2], port = 0;
    size_t n = 0;
    const char *bin = getenv("NAS_BIN_DIR");
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-hold-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(tree, sizeof tree, "%s/tree", dir);
    (void)snprintf(key_path, sizeof key_path, "%s/key", dir);
    (void)snprintf(cache, sizeof cache, "%s/cache", dir);
    (void)snprintf(program, sizeof program, "%s/program", dir);
    (void)snprintf(own, sizeof own, "%ld", (long)getpid());
    (void)snprintf(path, sizeof path, "%s/nas-agent", bin != NULL ? bin : "build/release/bin");
    tree_phone(tree);
    cr_assert(eq(int, (int)nas_file_write(ctx, program, script, sizeof script - 1, 0500), NAS_OK));
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, program, hash), NAS_OK));
    cr_assert(eq(int, (int)nas_agent_key_create(ctx, key_path, key), NAS_OK));
    cr_assert(eq(int, pipe(pipes), 0));
    agent = fork();
    if (agent == 0) {
        (void)dup2(pipes[1], 1);
        (void)close(pipes[0]);
        (void)close(pipes[1]);
        (void)execl(path, path, "serve", "--listen", "127.0.0.1:0", "--key-file", key_path,
                    "--cache-dir", cache, "--parent-pid", own, "--sys-root", tree, (char *)NULL);
        _exit(127);
    }
    (void)close(pipes[1]);
    while (n + 1 < sizeof line && read(pipes[0], line + n, 1) == 1 && line[n] != '\n')
        n++;
    (void)close(pipes[0]);
    cr_assert(eq(int, sscanf(line, "nas-agent listening 127.0.0.1:%d", &port), 1), "%s", line);
    (void)snprintf(connect_to, sizeof connect_to, "http://127.0.0.1:%d", port);
}

static void teardown(void) {
    (void)kill(agent, SIGTERM);
    (void)waitpid(agent, NULL, 0);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(latency_hold, .init = setup, .fini = teardown, .timeout = 60);

static nas_device_options options(void) {
    nas_device_options o = nas_device_options_default();
    o.name = "board";
    o.connect = connect_to;
    o.key_file = key_path;
    return o;
}

static nas_measure_options quick(void) {
    nas_measure_options o = nas_measure_options_default();
    o.max_repeats = 0;
    o.accept_half_width = 1;
    return o;
}

Test(latency_hold, a_second_controller_is_told_who_has_the_device) {
    const nas_device_options o = options();
    nas_device *first = NULL, *second = NULL;
    char mine[32];
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &first), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &second), NAS_ERR_DEVICE));
    (void)snprintf(mine, sizeof mine, "/%ld;", (long)getpid());
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "in use by "), NULL), "%s",
              nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), mine), NULL), "%s", nas_ctx_message(ctx));
    nas_device_close(first);
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &second), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device_close(second);
}

Test(latency_hold, a_lapsed_lease_is_taken_anew) {
    const nas_device_options o = options();
    const nas_measure_options how = quick();
    nas_measurement m = {0};
    nas_device *d = NULL;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    char token[33], target[64];
    (void)snprintf(token, sizeof token, "%s", nas__client_session_of(d->client));
    (void)snprintf(target, sizeof target, "/v1/session/%s", token);
    const nas__request release = {
        .method = "DELETE", .target = target, .timeout_ms = NAS__REQUEST_MS};
    nas__reply reply = {0}; /* as a lease that is over */
    cr_assert(eq(int, (int)nas__client_send(ctx, d->client, &release, &reply), NAS_OK));
    cr_assert(eq(int, reply.status, 200));
    nas_buf_deinit(&reply.body);
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, program, hash, &how, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(ne(str, (char *)(uintptr_t)nas__client_session_of(d->client), token));
    nas_measurement_deinit(&m);
    nas__client_session(d->client, "00112233445566778899aabbccddeeff", 60000); /* not ours */
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, program, hash, &how, &m), NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "in use by "), NULL), "%s",
              nas_ctx_message(ctx)); /* the real one is still in force */
    nas_device_close(d);
}

Test(latency_hold, a_devices_options_reach_the_run_and_its_conditions_come_back) {
    nas_device_options o = options();
    const nas_measure_options how = quick();
    nas_measurement m = {0};
    nas_device *d = NULL;
    o.cores = "little";
    o.mode = NAS_DEVICE_SUSTAINED;
    o.sustained_s = 60;
    o.frequency = "1200,2000";
    o.max_temperature_c = 40.5;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, program, hash, &how, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    static const char *const parts[] = {"--cpus 0 ",
                                        "--sustained-s 60",
                                        "--idle-mw 1648",
                                        "thermal_zone1/temp",
                                        "\"mode\":\"sustained\"",
                                        "\"frequency\":\"1200,2000\"",
                                        "\"asked\":\"little\"",
                                        "\"pinned\":true",
                                        "\"limit_celsius\":39",
                                        "\"max_temperature_c\":40.5",
                                        "\"rate_per_s\":7",
                                        "\"sys_root\""};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_assert(ne(ptr, strstr(m.passport_json, parts[i]), NULL), "%s in %s", parts[i],
                  m.passport_json);
    cr_assert(m.frequency_pinned && m.has_energy && m.energy_coarse);
    cr_assert(m.rate_per_s > 6.9 && m.energy_mj > 0.24 && m.celsius_max > 41);
    nas_measurement_deinit(&m);
    nas_device_close(d);
}

Test(latency_hold, a_device_that_is_too_hot_is_an_error_with_the_temperatures) {
    nas_device_options o = options();
    const nas_measure_options how = quick();
    nas_measurement m = {0};
    nas_device *d = NULL;
    tree_write(tree, "/sys/class/thermal/thermal_zone1/temp", "52000");
    o.max_temperature_c = 45;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    d->gate_ms = 400; /* a minute otherwise */
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, program, hash, &how, &m), NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "too hot: 52.0 C"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_device_close(d);
}

Test(latency_hold, impossible_conditions_are_refused_when_the_device_is_opened) {
    static const struct {
        const char *cores, *frequency;
        int32_t sustained_s;
        double celsius;
    } rows[] = {{"fast", "", 60, 0}, {"", "quick", 60, 0}, {"", "", 0, 0},
                {"", "", 3601, 0},   {"", "", 60, -1},     {"", "", 60, 151}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_device_options o = options();
        nas_device *d = NULL;
        o.cores = rows[i].cores;
        o.frequency = rows[i].frequency;
        o.mode = NAS_DEVICE_SUSTAINED;
        o.sustained_s = rows[i].sustained_s;
        o.max_temperature_c = rows[i].celsius;
        const nas_status status = nas_device_open(ctx, &o, &d);
        cr_assert(status == NAS_ERR_INVALID || status == NAS_ERR_RANGE, "row %zu: %s", i,
                  nas_ctx_message(ctx));
    }
    nas_device_options o = options();
    nas_device *d = NULL;
    const nas_measure_options how = quick();
    nas_measurement m = {0};
    o.frequency = "1200"; /* two clusters */
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK));
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, program, hash, &how, &m), NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "one MHz value for each cluster"), NULL), "%s",
              nas_ctx_message(ctx));
    nas_device_close(d);
}
