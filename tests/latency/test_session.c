/* test_session.c - an agent that several controllers can reach (a board with a key file) serves one at a time. */
#include "latency/device_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64], agent[512], connect_text[64], key_path[128];
static nas__agent_process process;

static void setup(void) {
    const char *bin = getenv("NAS_BIN_DIR");
    uint8_t key[NAS_AGENT_KEY_BYTES];
    char hex[80];
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-session-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(agent, sizeof agent, "%s/nas-agent", bin != NULL ? bin : "build/release/bin");
    cr_assert(eq(int, (int)nas__agent_start(ctx, agent, dir, &process, key), NAS_OK), "%s",
              nas_ctx_message(ctx));
    (void)snprintf(connect_text, sizeof connect_text, "http://127.0.0.1:%d", process.port);
    (void)snprintf(key_path, sizeof key_path, "%s/key", dir);
    nas_hex(key, sizeof key, hex);
    cr_assert(eq(int, (int)nas_file_write(ctx, key_path, hex, strlen(hex), 0600), NAS_OK));
}

static void teardown(void) {
    (void)kill((pid_t)process.pid, SIGTERM);
    nas__agent_end(&process);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(latency_session, .init = setup, .fini = teardown, .timeout = 60);

static nas_status open_for(const char *folder, int32_t lease_ms, nas_device **out) {
    static char work[128];
    (void)snprintf(work, sizeof work, "%s/%s", dir, folder);
    nas_device_options o = nas_device_options_default();
    o.name = "board";
    o.connect = connect_text;
    o.key_file = key_path;
    o.work_dir = work;
    o.lease_ms = lease_ms;
    return nas_device_open(ctx, &o, out);
}

static nas_status open_from(const char *folder, nas_device **out) {
    return open_for(folder, 0, out);
}

Test(latency_session, a_second_controller_waits_for_its_turn) {
    nas_device *first = NULL, *second = NULL;
    char holder[NAS_PHONE_HOLDER_BYTES];
    nas_phone_holder(holder);
    cr_assert(eq(int, (int)open_from("a", &first), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)open_from("b", &second), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), holder), NULL), "%s", nas_ctx_message(ctx));
    nas_device_close(first);
    cr_assert(eq(int, (int)open_from("b", &second), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device_close(second);
}

/* It trains, say: three leases pass without a question about a run. */
Test(latency_session, a_silent_controller_keeps_its_device) {
    nas_device *first = NULL, *second = NULL;
    const struct timespec training = {3, 0};
    char token[33];
    cr_assert(eq(int, (int)open_for("a", 1000, &first), NAS_OK), "%s", nas_ctx_message(ctx));
    (void)snprintf(token, sizeof token, "%s", nas__client_session_of(first->client));
    (void)nanosleep(&training, NULL);
    cr_assert(eq(int, (int)open_from("b", &second), (int)NAS_ERR_DEVICE));
    cr_assert(eq(str, (char *)(uintptr_t)nas__client_session_of(first->client), token));
    nas_device_close(first);
    cr_assert(eq(int, (int)open_from("b", &second), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device_close(second);
}

Test(latency_session, a_killed_study_does_not_wait_for_itself) {
    int ready[2];
    char byte = 0;
    nas_device *d = NULL;
    cr_assert(eq(int, pipe(ready), 0));
    const pid_t study = fork();
    if (study == 0) {
        byte = open_from("a", &d) == NAS_OK;
        if (write(ready[1], &byte, 1) != 1) _exit(1);
        for (;;)
            (void)pause();
    }
    cr_assert(eq(int, (int)read(ready[0], &byte, 1), 1));
    cr_assert(eq(int, byte, 1));
    cr_assert(eq(int, kill(study, SIGKILL), 0));
    cr_assert(eq(int, waitpid(study, NULL, 0), study));
    cr_assert(eq(int, (int)open_from("b", &d), (int)NAS_ERR_DEVICE)); /* the lease still runs */
    cr_assert(eq(int, (int)open_from("a", &d), NAS_OK), "%s", nas_ctx_message(ctx));
    nas_device_close(d);
}

Test(latency_session, a_session_that_ended_is_taken_anew) {
    nas_device *d = NULL;
    nas__reply reply = {0};
    char target[96];
    const char *token = NULL;
    cr_assert(eq(int, (int)open_from("a", &d), NAS_OK), "%s", nas_ctx_message(ctx));
    token = nas__client_session_of(d->client);
    cr_assert(eq(sz, strlen(token), (size_t)32));
    (void)snprintf(target, sizeof target, "/v1/session/%s", token);
    const nas__request end = {.method = "DELETE", .target = target, .timeout_ms = 5000};
    cr_assert(eq(int, (int)nas__client_send(ctx, d->client, &end, &reply), NAS_OK));
    nas_buf_deinit(&reply.body);
    (void)snprintf(target, sizeof target, "/v1/run/1");
    const nas__request ask = {.method = "GET", .target = target, .timeout_ms = 5000};
    cr_assert(eq(int, (int)nas__client_send(ctx, d->client, &ask, &reply), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, reply.status, 404)); /* admitted: there is no such run */
    nas_buf_deinit(&reply.body);
    nas_device_close(d);
}

Test(latency_session, a_key_of_another_start_is_told_as_such) {
    nas_device *d = NULL;
    char hex[80];
    memset(hex, '0', 64);
    hex[64] = '\0';
    cr_assert(eq(int, (int)nas_file_write(ctx, key_path, hex, 64, 0600), NAS_OK));
    cr_assert(eq(int, (int)open_from("a", &d), (int)NAS_ERR_DEVICE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "refuses our key"), NULL), "%s",
              nas_ctx_message(ctx));
}
