/* test_device.c - opening devices: the simulated one, private agents, and agents that lie or break. */
#include "fake_agent.h"
#include "latency/device_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64], agent[512];

static void setup(void) {
    const char *bin = getenv("NAS_BIN_DIR");
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-device-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(agent, sizeof agent, "%s/nas-agent", bin != NULL ? bin : "build/release/bin");
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(latency_device, .init = setup, .fini = teardown, .timeout = 60);

static nas_device_options options(const char *connect) {
    return (nas_device_options){.name = "dev",
                                .connect = connect,
                                .agent_path = agent,
                                .work_dir = dir,
                                .threads = 1,
                                .cores = ""};
}

/* input 32x32xc -> conv k x k to `out` channels */
static nas_graph *conv_graph(int32_t width, int32_t c, int32_t out, int32_t kernel) {
    nas_graph *g = nas_graph_new(ctx, "g");
    const nas_conv_attributes conv = nas_conv_same(out, kernel);
    nas_value x, y;
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 32, width, c}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "conv", x, &conv, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, y), NAS_OK));
    return g;
}

static double simulate(nas_device *d, int32_t width, int32_t c, int32_t out, int32_t kernel) {
    const nas_measure_options o = nas_measure_options_default();
    nas_measurement m = {0};
    nas_graph *g = conv_graph(width, c, out, kernel);
    cr_assert(eq(int, (int)nas_measure(ctx, d, g, NULL, NULL, &o, &m), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(m.simulated && !m.noisy && m.n_samples == 1);
    cr_assert(ne(ptr, strstr(m.passport_json, "\"simulated\":true"), NULL), "%s", m.passport_json);
    const double us = m.p50_us;
    nas_measurement_deinit(&m);
    nas_graph_free(g);
    return us;
}

Test(latency_device, simulated_is_deterministic_and_labelled) {
    nas_device *a = NULL, *b = NULL;
    const nas_device_options o = options("simulated");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &a), NAS_OK));
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &b), NAS_OK));
    cr_assert(nas_device_is_simulated(a) && !nas_device_is_local(a));
    cr_assert(eq(str, (char *)nas_device_name(a), "dev"));
    cr_assert(ne(ptr, strstr(nas_device_info_json(a), "\"simulated\":true"), NULL));
    cr_assert(eq(str, (char *)nas_device_fingerprint(a), (char *)nas_device_fingerprint(b)));
    const double first = simulate(a, 128, 16, 16, 3), second = simulate(b, 128, 16, 16, 3);
    cr_assert(first > 0 && memcmp(&first, &second, sizeof first) == 0);
    nas_device_close(a);
    nas_device_close(b);
}

Test(latency_device, simulated_time_rises_with_work_and_pads_to_lanes) {
    nas_device *d = NULL, *two = NULL;
    nas_device_options o = options("simulated");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK));
    o.threads = 2;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &two), NAS_OK));
    const double base = simulate(d, 256, 32, 32, 3);
    cr_assert(simulate(d, 256, 32, 64, 3) > base);
    cr_assert(simulate(d, 256, 32, 32, 5) > base);
    cr_assert(simulate(two, 256, 32, 32, 3) < base);
    /* 33..36 output channels fill the same register tiles; 241..256 pixels the same vectors */
    const double tile33 = simulate(d, 256, 32, 33, 3), tile36 = simulate(d, 256, 32, 36, 3);
    cr_assert(tile33 > base && tile33 == tile36, "%g %g", tile33, tile36);
    cr_assert(simulate(d, 241, 32, 32, 3) == base);
    nas_device_close(d);
    nas_device_close(two);
}

Test(latency_device, simulated_needs_a_graph) {
    nas_device *d = NULL;
    nas_measurement m = {0};
    const nas_measure_options m_options = nas_measure_options_default();
    const nas_device_options o = options("simulated");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK));
    cr_assert(
        eq(int, (int)nas_measure(ctx, d, NULL, NULL, NULL, &m_options, &m), (int)NAS_ERR_INVALID));
    nas_device_close(d);
}

Test(latency_device, failed_allocations_leave_nothing_behind) {
    const nas_measure_options m_options = nas_measure_options_default();
    const nas_device_options o = options("simulated");
    nas_graph *g = conv_graph(32, 4, 4, 3);
    const long before = nas_mem_live();
    nas_status status = NAS_ERR_NOMEM;
    int failures = 0;
    for (long n = 1; status != NAS_OK; n++) {
        nas_device *d = NULL;
        nas_measurement m = {0};
        nas_mem_fail_after(n);
        status = nas_device_open(ctx, &o, &d);
        if (status == NAS_OK) status = nas_measure(ctx, d, g, NULL, NULL, &m_options, &m);
        nas_mem_fail_after(0);
        cr_assert(status == NAS_OK || status == NAS_ERR_NOMEM);
        failures += status != NAS_OK;
        nas_measurement_deinit(&m);
        nas_device_close(d);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before), "allocation %ld", n);
    }
    cr_assert(failures > 4);
    nas_graph_free(g);
}

Test(latency_device, bad_options_say_what_is_wrong) {
    const struct {
        const char *connect, *cpus, *key_file;
        int32_t threads;
        nas_status status;
    } rows[] = {
        {"telepathy", "", NULL, 1, NAS_ERR_INVALID},
        {"http://127.0.0.1", "", "k", 1, NAS_ERR_INVALID},
        {"http://127.0.0.1:0", "", "k", 1, NAS_ERR_INVALID},
        {"http://127.0.0.1:80/x", "", "k", 1, NAS_ERR_INVALID},
        {"http://127.0.0.1:9", "", NULL, 1, NAS_ERR_INVALID},
        {"http://127.0.0.1:9", "", "/no/such/key", 1, NAS_ERR_NOTFOUND},
        {"simulated", "", NULL, 0, NAS_ERR_RANGE},
        {"simulated", "", NULL, 65, NAS_ERR_RANGE},
        {"simulated", "0;1", NULL, 1, NAS_ERR_INVALID},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_device *d = NULL;
        nas_device_options o = options(rows[i].connect);
        o.cores = rows[i].cpus;
        o.key_file = rows[i].key_file;
        o.threads = rows[i].threads;
        cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), (int)rows[i].status), "row %zu: %s", i,
                  nas_ctx_message(ctx));
        cr_assert(eq(ptr, strstr(nas_ctx_message(ctx), "device dev: "),
                     (void *)(uintptr_t)nas_ctx_message(ctx)));
    }
}

/* ---- private agents ------------------------------------------------------------------------------------------------ */

static bool child_gone(void) {
    return waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD;
}

Test(latency_device, a_private_agent_is_started_and_stopped) {
    nas_device *d = NULL;
    const nas_device_options o = options("local");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(nas_device_is_local(d) && !nas_device_is_simulated(d));
    cr_assert(ne(ptr, strstr(nas_device_info_json(d), "no_new_privs"), NULL));
    cr_assert(eq(sz, strlen(nas_device_fingerprint(d)), (size_t)64));
    cr_assert(eq(int, (int)nas_device_alive(ctx, d), NAS_OK));
    nas_device_close(d);
    cr_assert(child_gone());
    char key[128];
    (void)snprintf(key, sizeof key, "%s/agent-%ld.key", dir, (long)getpid());
    cr_assert(not(nas_file_exists(key))); /* the key does not stay on disk */
}

Test(latency_device, a_missing_or_broken_agent_is_a_device_error) {
    nas_device *d = NULL;
    nas_device_options o = options("local");
    char path[128];
    o.agent_path = "/no/such/agent";
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "/no/such/agent"), NULL));
    (void)snprintf(path, sizeof path, "%s/broken", dir);
    static const char script[] = "#!/bin/sh\necho out of order >&2\nexit 1\n";
    cr_assert(eq(int, (int)nas_file_write(ctx, path, script, sizeof script - 1, 0700), NAS_OK));
    o.agent_path = path;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "out of order"), NULL), "%s",
              nas_ctx_message(ctx));
    cr_assert(child_gone());
}

static bool dead(long pid) {
    char path[64], state = 'Z';
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return true;
    const bool read_ok = fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    (void)fclose(file);
    return !read_ok || state == 'Z' || state == 'X';
}

Test(latency_device, a_killed_controller_takes_its_agent_along) {
    int ready[2];
    int64_t agent_pid = 0;
    cr_assert(eq(int, pipe(ready), 0));
    const pid_t controller = fork();
    if (controller == 0) {
        nas_device *d = NULL;
        const nas_device_options o = options("local");
        const int64_t pid = nas_device_open(ctx, &o, &d) == NAS_OK ? d->process.pid : 0;
        if (write(ready[1], &pid, sizeof pid) != (ssize_t)sizeof pid) _exit(1);
        for (;;)
            (void)pause();
    }
    cr_assert(eq(int, (int)read(ready[0], &agent_pid, sizeof agent_pid), (int)sizeof agent_pid));
    cr_assert(agent_pid > 1 && !dead(agent_pid));
    cr_assert(eq(int, kill(controller, SIGKILL), 0));
    cr_assert(eq(int, waitpid(controller, NULL, 0), controller));
    bool gone = false;
    for (int i = 0; i < 2000 && !gone; i++) {
        const struct timespec t = {0, 10000000};
        gone = dead(agent_pid);
        if (!gone) (void)nanosleep(&t, NULL);
    }
    cr_assert(gone);
    (void)close(ready[0]);
    (void)close(ready[1]);
}

Test(latency_device, a_dead_agent_is_noticed) {
    nas_device *d = NULL;
    const nas_device_options o = options("local");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, kill((pid_t)d->process.pid, SIGKILL), 0));
    const nas_status status = nas_device_alive(ctx, d);
    cr_assert(status == NAS_ERR_NET || status == NAS_ERR_DEVICE, "%s", nas_status_text(status));
    nas_device_close(d);
    cr_assert(child_gone());
}

Test(latency_device, a_killed_agent_is_replaced_by_reopening) {
    nas_device *d = NULL;
    const nas_device_options o = options("local");
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    const int64_t first = d->process.pid;
    cr_assert(eq(int, kill((pid_t)first, SIGKILL), 0));
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 10000), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(ne(i64, d->process.pid, first));
    cr_assert(eq(int, (int)nas_device_alive(ctx, d), NAS_OK));
    nas_device_close(d);
    cr_assert(child_gone());
}

Test(latency_device, a_program_for_another_processor_is_never_sent) {
    nas_device *d = NULL;
    nas_measurement m = {0};
    nas_measure_options mo = nas_measure_options_default();
    const nas_device_options o = options("local");
    char path[128], hash[NAS_SHA256_HEX], blob[400];
    unsigned char head[64] = {0x7f, 'E', 'L', 'F', 2, 1};
    head[19] = 0x7f; /* no machine: as a script, the device judges it */
    (void)snprintf(path, sizeof path, "%s/artifact", dir);
    nas_sha256_hex(head, sizeof head, hash);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, head, sizeof head, 0700), NAS_OK));
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(ne(str, (char *)(uintptr_t)nas_device_facts_of(d)->arch, ""));
    mo.needs = "warp_drive";
    cr_assert(
        eq(int, (int)nas_measure(ctx, d, NULL, path, hash, &mo, &m), (int)NAS_ERR_UNSUPPORTED));
    (void)snprintf(blob, sizeof blob, "%s/agent-cache/blobs/%s", dir, hash);
    cr_assert(not(nas_file_exists(blob)));
    nas_device_close(d);
}

/* ---- bad agents ------------------------------------------------------------------------------------------------------ */

static nas_status open_fake(const fake_agent *fake, nas_device **out) {
    char connect[64], key_path[128], hex[80];
    (void)snprintf(connect, sizeof connect, "http://127.0.0.1:%d", fake->port);
    (void)snprintf(key_path, sizeof key_path, "%s/key", dir);
    nas_hex(fake->key, sizeof fake->key, hex);
    cr_assert(eq(int, (int)nas_file_write(ctx, key_path, hex, strlen(hex), 0600), NAS_OK));
    nas_device_options o = options(connect);
    o.key_file = key_path;
    return nas_device_open(ctx, &o, out);
}

#define INFO "{\"protocol\":1,\"fingerprint\":\"ab\",\"version\":\"x\"}"

Test(latency_device, bad_greetings_are_errors_never_crashes) {
    static const struct {
        const char *name, *nonce;
        fake_answer answer;
        nas_status status;
    } rows[] = {
        {"no nonce", "{}", {FAKE_SIGNED, 200, INFO}, NAS_ERR_NET},
        {"nonce is no hex",
         "{\"nonce\":\"zz112233445566778899aabbccddeeff\"}",
         {FAKE_SIGNED, 200, INFO},
         NAS_ERR_NET},
        {"nonce is no JSON", "<html>", {FAKE_SIGNED, 200, INFO}, NAS_ERR_NET},
        {"unsigned info", NULL, {FAKE_UNSIGNED, 200, INFO}, NAS_ERR_DEVICE},
        {"info signed with another key", NULL, {FAKE_WRONG_MAC, 200, INFO}, NAS_ERR_DEVICE},
        {"key refused", NULL, {FAKE_UNSIGNED, 401, "{\"error\":\"signature\"}"}, NAS_ERR_DEVICE},
        {"refused without a reason", NULL, {FAKE_UNSIGNED, 500, ""}, NAS_ERR_DEVICE},
        {"signed failure", NULL, {FAKE_SIGNED, 500, "{\"error\":\"x\"}"}, NAS_ERR_DEVICE},
        {"another protocol",
         NULL,
         {FAKE_SIGNED, 200, "{\"protocol\":2,\"fingerprint\":\"ab\"}"},
         NAS_ERR_DEVICE},
        {"no protocol", NULL, {FAKE_SIGNED, 200, "{\"fingerprint\":\"ab\"}"}, NAS_ERR_PARSE},
        {"protocol is a text",
         NULL,
         {FAKE_SIGNED, 200, "{\"protocol\":\"1\",\"fingerprint\":\"ab\"}"},
         NAS_ERR_PARSE},
        {"no fingerprint", NULL, {FAKE_SIGNED, 200, "{\"protocol\":1}"}, NAS_ERR_PARSE},
        {"signed nonsense", NULL, {FAKE_SIGNED, 200, "{\"protocol\":1,"}, NAS_ERR_PARSE},
        {"signed nothing", NULL, {FAKE_SIGNED, 200, ""}, NAS_ERR_PARSE},
        {"an array", NULL, {FAKE_SIGNED, 200, "[1]"}, NAS_ERR_PARSE},
        {"no HTTP", NULL, {FAKE_RAW, 0, "SSH-2.0-x\r\n\r\n"}, NAS_ERR_NET},
        {"cut answer",
         NULL,
         {FAKE_RAW, 0, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"},
         NAS_ERR_NET},
        {"endless length",
         NULL,
         {FAKE_RAW, 0, "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n"},
         NAS_ERR_DEVICE},
        {"connection closed", NULL, {FAKE_HANG_UP, 0, ""}, NAS_ERR_NET},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        fake_agent fake;
        nas_device *d = NULL;
        fake_agent_start(&fake, &rows[i].answer, 1, rows[i].nonce);
        const nas_status status = open_fake(&fake, &d);
        fake_agent_stop(&fake);
        cr_assert(ne(int, (int)status, NAS_OK), "%s", rows[i].name);
        cr_assert(status == rows[i].status || rows[i].answer.kind == FAKE_RAW, "%s: %s: %s",
                  rows[i].name, nas_status_text(status), nas_ctx_message(ctx));
    }
}

Test(latency_device, a_lost_agent_is_waited_for_and_another_machine_refused) {
    static const fake_answer mine = {FAKE_SIGNED, 200, INFO},
                             other = {FAKE_SIGNED, 200, "{\"protocol\":1,\"fingerprint\":\"cd\"}"};
    fake_agent fake;
    nas_device *d = NULL;
    fake_agent_start(&fake, &mine, 1, NULL);
    cr_assert(eq(int, (int)open_fake(&fake, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    fake.script = &other;
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 5000), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "another machine"), NULL));
    fake.script = &mine;
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 0), NAS_OK), "%s", nas_ctx_message(ctx));
    fake_agent_stop(&fake);
    const int64_t start = nas_now_ns();
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 300), (int)NAS_ERR_NET));
    cr_assert(nas_now_ns() - start >= (int64_t)300 * 1000000); /* it did try for so long */
    cr_assert(eq(int, (int)nas_device_alive(ctx, d), (int)NAS_ERR_NET));
    nas_device_close(d);
}

Test(latency_device, nobody_listening_is_a_net_error) {
    fake_agent fake;
    nas_device *d = NULL;
    const fake_answer unused = {FAKE_SIGNED, 200, INFO};
    fake_agent_start(&fake, &unused, 1, NULL);
    fake_agent_stop(&fake);
    cr_assert(eq(int, (int)open_fake(&fake, &d), (int)NAS_ERR_NET));
}

Test(latency_device, hostile_results_are_errors_never_numbers) {
#define BENCH(p50, samples, batches)                                                               \
    "{\"id\":1,\"state\":\"done\",\"bench\":{\"schema\":1,\"threads\":1,\"init_us\":1,\"first_"    \
    "us\":1,\"wall_s\":1,"                                                                         \
    "\"batch_size\":1,\"dropped\":0,\"batches\":" batches ",\"p50_us\":" p50                       \
    ",\"p50_lo_us\":2,\"p50_hi_us\":2,\"p90_us\":2,\"p10_us\":2,\"min_us\":2,\"mad_us\":0,"        \
    "\"samples_us\":" samples "}}"
    static const struct {
        const char *name, *result;
        nas_status status;
    } rows[] = {
        {"good", BENCH("2", "[2,2]", "2"), NAS_OK},
        {"no state", "{}", NAS_ERR_PARSE},
        {"unknown state", "{\"state\":\"happy\"}", NAS_ERR_PARSE},
        {"done without bench", "{\"state\":\"done\"}", NAS_ERR_PARSE},
        {"bench of another type", "{\"state\":\"done\",\"bench\":[]}", NAS_ERR_PARSE},
        {"other schema", "{\"state\":\"done\",\"bench\":{\"schema\":2}}", NAS_ERR_PARSE},
        {"negative time", BENCH("-2", "[2,2]", "2"), NAS_ERR_PARSE},
        {"time is a text", BENCH("\"2\"", "[2,2]", "2"), NAS_ERR_PARSE},
        {"time is null", BENCH("null", "[2,2]", "2"), NAS_ERR_PARSE},
        {"time too long", BENCH("1e300", "[2,2]", "2"), NAS_ERR_PARSE},
        {"median outside its interval", BENCH("1", "[1,1]", "2"), NAS_ERR_PARSE},
        {"median not of the samples", BENCH("2", "[3,3]", "2"), NAS_ERR_PARSE},
        {"no samples", BENCH("2", "[]", "2"), NAS_ERR_PARSE},
        {"more samples than batches", BENCH("2", "[2,2]", "1"), NAS_ERR_PARSE},
        {"sample of zero", BENCH("2", "[2,0]", "2"), NAS_ERR_PARSE},
        {"sample of another type", BENCH("2", "[2,{}]", "2"), NAS_ERR_PARSE},
        {"no batches", BENCH("2", "[2]", "0"), NAS_ERR_PARSE},
        {"batches overflow", BENCH("2", "[2]", "4294967297"), NAS_ERR_PARSE},
        {"layers", BENCH("2", "[2,2],\"layers\":[{\"name\":\"a\",\"p50_us\":1}]", "2"), NAS_OK},
        {"layer without a name", BENCH("2", "[2,2],\"layers\":[{\"p50_us\":1}]", "2"),
         NAS_ERR_PARSE},
        {"layer of negative time",
         BENCH("2", "[2,2],\"layers\":[{\"name\":\"a\",\"p50_us\":-1}]", "2"), NAS_ERR_PARSE},
        {"layer of another type",
         BENCH("2", "[2,2],\"layers\":[{\"name\":\"a\",\"p50_us\":1},7]", "2"), NAS_ERR_PARSE},
        {"one member twice", "{\"state\":\"done\",\"state\":\"done\"}", NAS_ERR_PARSE},
        {"crashed", "{\"state\":\"failed\",\"error\":\"signal 11\",\"signal\":11}", NAS_ERR_DEVICE},
        {"deadline", "{\"state\":\"killed\",\"error\":\"deadline\"}", NAS_ERR_TIMEOUT},
    };
    const char hash[] = "0000000000000000000000000000000000000000000000000000000000000000";
    nas_measure_options o = nas_measure_options_default();
    o.max_repeats = 0; /* two batches are never enough to accept */
    const long before = nas_mem_live();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_answer script[] = {{FAKE_SIGNED, 200, INFO},
                                      {FAKE_SIGNED, 200, "{\"present\":true}"},
                                      {FAKE_SIGNED, 202, "{\"id\":1}"},
                                      {FAKE_SIGNED, 200, rows[i].result}};
        fake_agent fake;
        nas_device *d = NULL;
        nas_measurement m = {0};
        fake_agent_start(&fake, script, 4, NULL);
        cr_assert(eq(int, (int)open_fake(&fake, &d), NAS_OK), "%s", nas_ctx_message(ctx));
        const nas_status status = nas_measure(ctx, d, NULL, "/no/such/file", hash, &o, &m);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        cr_assert(eq(sz, m.n_layers, strcmp(rows[i].name, "layers") == 0 ? 1 : 0));
        nas_measurement_deinit(&m);
        nas_device_close(d);
        fake_agent_stop(&fake);
    }
    cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before));
}
