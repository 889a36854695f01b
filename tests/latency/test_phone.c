/* test_phone.c - devices over adb: found, measured, lost, brought back, shared. Runs inside a lab of fake phones
 * (tests/rig/test_phone.py starts it with RIG_SERIALS, RIG_CONTROLS, RIG_ARTIFACT); elsewhere each test skips. */
#include "adb/adb.h"
#include "latency/device_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64], serials[2][64], controls[2][108];

/* The first two words of an environment variable; false when it has fewer. */
static bool two_words(const char *name, char *a, char *b, size_t size) {
    const char *text = getenv(name), *blank = text != NULL ? strchr(text, ' ') : NULL;
    if (blank == NULL) return false;
    (void)snprintf(a, size, "%.*s", (int)(blank - text), text);
    (void)snprintf(b, size, "%.*s", (int)strcspn(blank + 1, " "), blank + 1);
    return true;
}

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-phone-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}
static void teardown(void) {
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}
TestSuite(latency_phone, .init = setup, .fini = teardown, .timeout = 120);

#define NEEDS_A_LAB                                                                                \
    if (!two_words("RIG_SERIALS", serials[0], serials[1], sizeof serials[0]) ||                    \
        !two_words("RIG_CONTROLS", controls[0], controls[1], sizeof controls[0]))                  \
    cr_skip_test("no lab of fake phones: run it through make check-rig")

/* One order to a fake phone (tests/rig/fake_phone.py). */
static void order(int phone, const char *json) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    char answer[4096] = "";
    (void)snprintf(address.sun_path, sizeof address.sun_path, "%s", controls[phone]);
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    cr_assert(eq(int, connect(fd, (const struct sockaddr *)&address, sizeof address), 0));
    cr_assert(write(fd, json, strlen(json)) > 0 && write(fd, "\n", 1) == 1);
    cr_assert(read(fd, answer, sizeof answer - 1) > 0);
    (void)close(fd);
    cr_assert(ne(ptr, strstr(answer, "\"ok\": true"), NULL), "%s", answer);
}

static nas_device_options options(const char *connect) {
    nas_device_options o = nas_device_options_default();
    o.name = "phone";
    o.connect = connect;
    o.agents_dir = getenv("NAS_AGENTS_DIR");
    o.work_dir = dir;
    return o;
}

static const char *adb_name(int phone) {
    static char text[2][80];
    (void)snprintf(text[phone], sizeof text[phone], "adb:%s", serials[phone]);
    return text[phone];
}

static nas_device *open_phone(const char *connect) {
    const nas_device_options o = options(connect);
    nas_device *d = NULL;
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &d), NAS_OK), "%s", nas_ctx_message(ctx));
    return d;
}

static nas_status measure(nas_device *d, nas_measurement *m) {
    const char *path = getenv("RIG_ARTIFACT");
    char hash[NAS_SHA256_HEX];
    nas_measure_options o = nas_measure_options_default();
    o.min_batches = 3;
    o.min_time_ms = 10;
    o.max_time_ms = 200;
    o.max_repeats = 0;
    cr_assert(ne(ptr, (void *)(uintptr_t)path, NULL));
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, path, hash), NAS_OK));
    return nas_measure(ctx, d, NULL, path, hash, &o, m);
}

static void must_measure(nas_device *d) {
    nas_measurement m = {0};
    cr_assert(eq(int, (int)measure(d, &m), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(m.p50_us > 0 && m.n_samples > 0);
    nas_measurement_deinit(&m);
}

static bool on_phone(int phone, const char *name) {
    nas_adb adb;
    char path[128];
    uint32_t mode = 0, size = 0;
    (void)snprintf(path, sizeof path, "%s/%s", NAS_PHONE_DIR, name);
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), NAS_OK));
    cr_assert(eq(int, (int)nas_adb_stat(ctx, &adb, serials[phone], path, &mode, &size), NAS_OK),
              "%s", nas_ctx_message(ctx));
    return mode != 0;
}

Test(latency_phone, a_phone_is_found_measured_and_left_as_it_was) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    const nas_device_facts *f = nas_device_facts_of(d);
    cr_assert(eq(str, (char *)(uintptr_t)f->arch, "aarch64"));
    cr_assert(eq(str, (char *)(uintptr_t)f->os, "android"));
    cr_assert(eq(str, (char *)(uintptr_t)f->serial, serials[0]));
    cr_assert(not(nas_device_is_local(d)));
    cr_assert(nas_device_has_feature(d, "asimd"));
    cr_assert(on_phone(0, "agent.key"));
    must_measure(d);
    cr_assert(eq(int, (int)nas_device_alive(ctx, d), NAS_OK));
    nas_device_close(d);
    cr_assert(not(on_phone(0, "agent.key"))); /* its agent ended and no key stays */
    cr_assert(on_phone(0, "nas-agent"));      /* the next study need not send it again */
}

Test(latency_phone, a_program_for_another_processor_stays_here) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    nas_measurement m = {0};
    nas_measure_options o = nas_measure_options_default();
    char hash[NAS_SHA256_HEX], blob[160];
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, "/proc/self/exe", hash), NAS_OK));
    cr_assert(eq(int, (int)nas_measure(ctx, d, NULL, "/proc/self/exe", hash, &o, &m),
                 (int)NAS_ERR_UNSUPPORTED));
    (void)snprintf(blob, sizeof blob, "cache/blobs/%s", hash);
    cr_assert(not(on_phone(0, blob)));
    nas_device_close(d);
}

Test(latency_phone, after_an_unplugging_the_same_phone_comes_back) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    order(0, "{\"unplug\": 1.5}");
    const nas_status status = nas_device_alive(ctx, d);
    cr_assert(eq(int, (int)status, (int)NAS_ERR_NET), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), NAS_OK), "%s", nas_ctx_message(ctx));
    must_measure(d);
    nas_device_close(d);
}

Test(latency_phone, an_unplugging_in_the_middle_of_a_run_is_no_result) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    nas_measurement m = {0};
    must_measure(d); /* the program is there: the next run begins at once */
    const pid_t hand = fork();
    if (hand == 0) {
        const struct timespec later = {0, 700 * 1000000L};
        (void)nanosleep(&later, NULL);
        order(0, "{\"unplug\": 1}");
        _exit(0);
    }
    nas_measure_options o = nas_measure_options_default();
    char hash[NAS_SHA256_HEX];
    o.min_time_ms = 20000; /* far longer than the cable holds */
    o.max_time_ms = 20000;
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, getenv("RIG_ARTIFACT"), hash), NAS_OK));
    const nas_status status = nas_measure(ctx, d, NULL, getenv("RIG_ARTIFACT"), hash, &o, &m);
    cr_assert(eq(int, (int)status, (int)NAS_ERR_NET), "%s", nas_ctx_message(ctx));
    cr_assert(eq(ptr, (void *)m.samples_us, NULL));
    cr_assert(eq(int, waitpid(hand, NULL, 0), hand));
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), NAS_OK), "%s", nas_ctx_message(ctx));
    must_measure(
        d); /* the agent of before, and its run, have ended: this one is not refused as busy */
    nas_device_close(d);
}

Test(latency_phone, several_who_take_any_phone_get_different_ones) {
    NEEDS_A_LAB;
    int results[2];
    pid_t takers[3];
    cr_assert(eq(int, pipe(results), 0));
    for (int i = 0; i < 3; i++) {
        takers[i] = fork();
        if (takers[i] != 0) continue;
        nas_device *d = NULL;
        const nas_device_options o = options("adb:*");
        char got[NAS_ADB_SERIAL_BYTES] = "none";
        if (nas_device_open(ctx, &o, &d) == NAS_OK)
            (void)snprintf(got, sizeof got, "%s", nas_device_facts_of(d)->serial);
        if (write(results[1], got, sizeof got) != (ssize_t)sizeof got) _exit(1);
        for (;;)
            (void)pause(); /* holds it */
    }
    int first = 0, second = 0, none = 0;
    for (int i = 0; i < 3; i++) {
        char got[NAS_ADB_SERIAL_BYTES];
        cr_assert(eq(int, (int)read(results[0], got, sizeof got), (int)sizeof got));
        first += strcmp(got, serials[0]) == 0;
        second += strcmp(got, serials[1]) == 0;
        none += strcmp(got, "none") == 0;
    }
    for (int i = 0; i < 3; i++) {
        (void)kill(takers[i], SIGKILL);
        (void)waitpid(takers[i], NULL, 0);
    }
    cr_assert(first == 1 && second == 1 && none == 1, "%d %d %d", first, second, none);
    nas_device_close(open_phone(adb_name(0))); /* and their agents do not stay in the way */
    nas_device_close(open_phone(adb_name(1)));
}

Test(latency_phone, after_a_reboot_a_fresh_agent_runs) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    const int64_t pid = d->phone.pid;
    cr_assert(pid > 0);
    order(0, "{\"reboot\": 1.0}");
    cr_assert(ne(int, (int)nas_device_alive(ctx, d), NAS_OK));
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(d->phone.started);
    must_measure(d);
    nas_device_close(d);
}

Test(latency_phone, a_killed_agent_is_lost_and_replaced) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0));
    nas_measurement m = {0};
    order(0, "{\"kill\": \"nas-agent\"}");
    cr_assert(eq(int, (int)measure(d, &m), (int)NAS_ERR_NET), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_device_alive(ctx, d), (int)NAS_ERR_NET));
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), NAS_OK), "%s", nas_ctx_message(ctx));
    must_measure(d);
    nas_device_close(d);
}

Test(latency_phone, a_phone_that_stays_away_is_lost_at_the_deadline) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(1));
    order(1, "{\"unplug\": 600}");
    const int64_t start = nas_now_ns();
    const nas_status status = nas_device_reopen(ctx, d, 1500);
    const double took_s = (double)(nas_now_ns() - start) * 1e-9;
    order(1, "{\"replug\": true}");
    cr_assert(status == NAS_ERR_NET || status == NAS_ERR_TIMEOUT, "%s", nas_ctx_message(ctx));
    cr_assert(took_s >= 1.4, "%g s", took_s);
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device_close(d);
}

Test(latency_phone, a_second_controller_is_refused_and_told_who_is_there) {
    NEEDS_A_LAB;
    nas_device *d = open_phone(adb_name(0)), *second = NULL, *other = NULL;
    const nas_device_options o = options(adb_name(0)), any = options("adb:*");
    char holder[NAS_PHONE_HOLDER_BYTES];
    nas_phone_holder(holder);
    cr_assert(eq(int, (int)nas_device_open(ctx, &o, &second), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), holder), NULL), "%s", nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "another controller"), NULL));
    must_measure(d); /* it was not disturbed */
    cr_assert(eq(int, (int)nas_device_open(ctx, &any, &other), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(str, (char *)(uintptr_t)nas_device_facts_of(other)->serial, serials[1]));
    cr_assert(eq(int, (int)nas_device_open(ctx, &any, &second), (int)NAS_ERR_DEVICE));
    nas_device_close(other);
    nas_device_close(d);
}

Test(latency_phone, a_killed_controller_does_not_block_the_next) {
    NEEDS_A_LAB;
    int ready[2];
    char byte = 0;
    cr_assert(eq(int, pipe(ready), 0));
    const pid_t controller = fork();
    if (controller == 0) {
        nas_device *d = NULL;
        const nas_device_options o = options(adb_name(0));
        byte = nas_device_open(ctx, &o, &d) == NAS_OK;
        if (write(ready[1], &byte, 1) != 1) _exit(1);
        for (;;)
            (void)pause();
    }
    cr_assert(eq(int, (int)read(ready[0], &byte, 1), 1));
    cr_assert(eq(int, byte, 1));
    cr_assert(eq(int, kill(controller, SIGKILL), 0));
    cr_assert(eq(int, waitpid(controller, NULL, 0), controller));
    nas_device *d = open_phone(adb_name(0));
    must_measure(d);
    nas_device_close(d);
    nas_adb adb;
    int port = 0;
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), NAS_OK)); /* no forward of either stays */
    cr_assert(eq(int, (int)nas_adb_forward_find(ctx, &adb, serials[0], NAS_PHONE_SOCKET, &port),
                 (int)NAS_ERR_NOTFOUND));
    (void)close(ready[0]);
    (void)close(ready[1]);
}

Test(latency_phone, an_agent_whose_key_was_replaced_is_replaced_itself) {
    NEEDS_A_LAB;
    nas_adb adb;
    nas_adb_result r = {0};
    nas_device *d = open_phone(adb_name(0));
    d->phone.started = false; /* it stays when we leave, as a deployed one does */
    nas_device_close(d);
    cr_assert(on_phone(0, "agent.key"));
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), NAS_OK));
    cr_assert(eq(int,
                 (int)nas_adb_shell(ctx, &adb, serials[0],
                                    "cd " NAS_PHONE_DIR " && printf %064d 0 > agent.key", NULL, 0,
                                    100, &r),
                 NAS_OK));
    cr_assert(eq(int, r.exit_code, 0));
    nas_adb_result_deinit(&r);
    nas_phone_status s;
    cr_assert(eq(int, (int)nas_phone_status_of(ctx, serials[0], &s), NAS_OK));
    cr_assert(eq(int, (int)s.agent, (int)NAS_PHONE_AGENT_OTHER_KEY));
    d = open_phone(adb_name(0));
    must_measure(d);
    nas_device_close(d);
}

Test(latency_phone, a_deployed_agent_nobody_holds_is_used_and_stays) {
    NEEDS_A_LAB;
    const nas_phone_options po = {.serial = serials[0], .agents_dir = getenv("NAS_AGENTS_DIR")};
    nas_phone phone = {0}, again = {0};
    cr_assert(eq(int, (int)nas_phone_deploy(ctx, &po, &phone), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device *d = open_phone(adb_name(0));
    cr_assert(not(d->phone.started));
    nas_device_close(d);
    cr_assert(eq(int, (int)nas_phone_deploy(ctx, &po, &again), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, again.started || again.sent, 0));
    cr_assert(eq(int, again.port, phone.port));
    cr_assert(eq(int, memcmp(again.key, phone.key, sizeof phone.key), 0));
    bool was_running = false;
    cr_assert(eq(int, (int)nas_phone_stop(ctx, serials[0], false, &was_running), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(was_running);
    cr_assert(not(on_phone(0, "agent.key")));
}

Test(latency_phone, a_cancel_ends_waiting_for_a_phone) {
    NEEDS_A_LAB;
    static volatile sig_atomic_t cancel;
    nas_device *d = open_phone(adb_name(0));
    cancel = 1;
    nas_ctx_set_cancel(ctx, &cancel);
    const int64_t start = nas_now_ns();
    cr_assert(eq(int, (int)nas_device_reopen(ctx, d, 60000), (int)NAS_ERR_CANCELLED));
    cr_assert(nas_now_ns() - start < (int64_t)30 * 1000000000);
    nas_ctx_set_cancel(ctx, NULL);
    nas_device_close(d);
}
