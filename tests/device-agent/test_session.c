/* test_session.c - one controller at a time, what becomes of a run whose controller died, and how an agent is reached
 * and started without a terminal. */
#include "agent_fixture.h"
#include "device-agent/agent_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static fixture f;

static void setup(void) {
    char parent[32];
    fixture_open(&f);
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    f.pid =
        fixture_spawn((const char *const[]){f.program, "serve", "--listen", "127.0.0.1:0",
                                            "--key-file", f.key_path, "--cache-dir", f.cache,
                                            "--parent-pid", parent, "--abandon-ms", "1500", NULL},
                      &f.port);
    cr_assert(f.port > 0);
}

static void teardown(void) {
    fixture_close(&f);
}

TestSuite(device_agent_session, .init = setup, .fini = teardown, .timeout = 60);

static int call(link_to *l, const char *method, const char *target, nas_buf *out) {
    answer a = link_call(&f, l, method, target, NULL, 0);
    if (out != NULL) {
        nas_buf_clear(out);
        nas_buf_append(out, a.body.data != NULL ? a.body.data : "", a.body.len);
    }
    answer_free(&a);
    return a.status;
}

static void take(link_to *l, const char *query, char token[33]) {
    char target[128];
    nas_buf body = {0};
    (void)snprintf(target, sizeof target, "/v1/session?%s", query);
    cr_assert(eq(int, call(l, "POST", target, &body), 201), "%s", body.data);
    cr_assert(eq(int, sscanf(body.data, "{\"session\":\"%32[0-9a-f]\"", token), 1));
    nas_buf_deinit(&body);
}

/* Uploads a script that sleeps and starts it; `session` "" or "&session=...". */
static int start_sleeper(link_to *l, const char *session) {
    static const char program[] = "#!/bin/sh\nsleep 1000\n";
    char hash[NAS_SHA256_HEX], target[256];
    nas_sha256_hex(program, sizeof program - 1, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s?x=1%s", hash, session);
    answer a = link_call(&f, l, "PUT", target, program, sizeof program - 1);
    answer_free(&a);
    if (a.status != 200 && a.status != 201) return a.status;
    (void)snprintf(target, sizeof target, "/v1/run?blob=%s%s", hash, session);
    return call(l, "POST", target, NULL);
}

static void pause_ms(long ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

Test(device_agent_session, a_second_controller_is_refused_with_the_holders_name) {
    link_to first = link_open(f.port), second = link_open(f.port);
    char token[33], target[128], session[64];
    nas_buf body = {0};
    take(&first, "holder=desk-7", token);
    cr_assert(eq(int, call(&second, "POST", "/v1/session?holder=other", &body), 409));
    cr_assert(ne(ptr, strstr(body.data, "in use by desk-7"), NULL), "%s", body.data);
    cr_assert(ne(ptr, strstr(body.data, "\"holder\":\"desk-7\""), NULL), "%s", body.data);
    cr_assert(eq(int, start_sleeper(&second, ""), 409)); /* neither upload nor run */
    cr_assert(eq(int, call(&second, "GET", "/v1/info", &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"session\":{\"holder\":\"desk-7\""), NULL), "%s",
              body.data);
    (void)snprintf(session, sizeof session, "&session=%s", token);
    cr_assert(eq(int, start_sleeper(&first, session), 202));
    cr_assert(eq(int, call(&second, "GET", "/v1/run/1", NULL), 409));
    cr_assert(eq(int, call(&second, "DELETE", "/v1/run/1", NULL), 409));
    (void)snprintf(target, sizeof target, "/v1/session/%s", token);
    cr_assert(eq(int, call(&first, "DELETE", target, NULL), 200)); /* ends its run, too */
    char other[33];
    take(&second, "holder=other", other);
    (void)snprintf(target, sizeof target, "/v1/run/1?session=%s&wait_ms=20000", other);
    cr_assert(eq(int, call(&second, "GET", target, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"killed\""), NULL), "%s", body.data);
    cr_assert(eq(int, start_sleeper(&first, session), 410)); /* its session is over */
    nas_buf_deinit(&body);
    link_close(&first);
    link_close(&second);
}

Test(device_agent_session, a_lease_ends_with_its_silent_controller_and_kills_the_run) {
    link_to first = link_open(f.port), second = link_open(f.port);
    char token[33], session[64], other[33], target[128];
    nas_buf body = {0};
    take(&first, "holder=dies&lease_ms=1000", token);
    (void)snprintf(session, sizeof session, "&session=%s", token);
    cr_assert(eq(int, start_sleeper(&first, session), 202));
    link_close(&first);
    pause_ms(1200);
    take(&second, "holder=next", other);
    (void)snprintf(target, sizeof target, "/v1/run/1?session=%s&wait_ms=20000", other);
    cr_assert(eq(int, call(&second, "GET", target, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "the lease is over"), NULL), "%s", body.data);
    nas_buf_deinit(&body);
    link_close(&second);
}

Test(device_agent_session, a_run_nobody_asks_for_is_killed_and_a_waited_one_is_not) {
    link_to l = link_open(f.port);
    nas_buf body = {0};
    cr_assert(eq(int, start_sleeper(&l, ""), 202));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?wait_ms=2500", &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"running\""), NULL), "%s", body.data);
    link_close(&l);
    pause_ms(1800);
    l = link_open(f.port);
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?wait_ms=20000", &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "nobody has asked for this run for 1500 ms"), NULL), "%s",
              body.data);
    nas_buf_deinit(&body);
    link_close(&l);
}

Test(device_agent_session, bad_wishes_are_refused) {
    link_to l = link_open(f.port);
    static const char *const rows[] = {"/v1/session",
                                       "/v1/session?holder=",
                                       "/v1/session?holder=a&holder=b",
                                       "/v1/session?holder=a&lease_ms=1",
                                       "/v1/session?holder=a&lease_ms=3600001",
                                       "/v1/session?holder=a&more=1"};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        cr_assert(eq(int, call(&l, "POST", rows[i], NULL), 400), "%s", rows[i]);
    cr_assert(eq(int, call(&l, "DELETE", "/v1/session/00", NULL), 404));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?session=00", NULL), 410));
    link_close(&l);
}

/* ---- addresses ---------------------------------------------------------------------------------------------------- */

Test(device_agent_listen, addresses_are_read_and_nonsense_is_not) {
    nas_ctx *ctx = nas_ctx_new();
    static const struct {
        const char *text, *shown; /* NULL: refused */
    } rows[] = {{"127.0.0.1:0", "127.0.0.1:0"},
                {"@nas", "@nas"},
                {"unix-abstract:nas", "@nas"},
                {"/tmp/x", "unix:/tmp/x"},
                {"unix:x", "unix:x"},
                {"@", NULL},
                {"unix:", NULL},
                {"127.0.0.1", NULL},
                {":1", NULL},
                {"127.0.0.1:65536", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas__address a;
        char shown[160] = "";
        const nas_status status = nas__address_parse(ctx, rows[i].text, &a);
        cr_assert(eq(int, status == NAS_OK, rows[i].shown != NULL), "%s", rows[i].text);
        if (status == NAS_OK) nas__address_text(&a, shown, sizeof shown);
        if (status == NAS_OK) cr_assert(eq(str, shown, (char *)(uintptr_t)rows[i].shown));
    }
    nas_ctx_free(ctx);
}

Test(device_agent_listen, unix_sockets_are_for_root_the_shell_and_oneself) {
    cr_assert(nas__uid_allowed(0, 1000));
    cr_assert(nas__uid_allowed(2000, 1000));
    cr_assert(nas__uid_allowed(1000, 1000));
    cr_assert(not(nas__uid_allowed(1001, 1000)));
    cr_assert(not(nas__uid_allowed(10123, 2000))); /* an app on a phone */
}

static int connect_unix(const char *name, bool abstract) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const size_t at = abstract ? 1 : 0;
    memcpy(address.sun_path + at, name, strlen(name));
    const int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    const socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + at + strlen(name) +
                                       (abstract ? 0 : 1));
    return connect(fd, (const struct sockaddr *)&address, size) == 0 ? fd : -1;
}

static long pid_in(const char *line) {
    const char *at = strstr(line, " pid ");
    return at != NULL ? strtol(at + 5, NULL, 10) : 0;
}

Test(device_agent_listen, a_detached_agent_serves_an_abstract_socket_until_it_is_stopped,
     .timeout = 60) {
    char name[64], address[70], log[128], state[128];
    fixture_open(&f);
    (void)snprintf(name, sizeof name, "nas-agent-test-%ld", (long)getpid());
    (void)snprintf(address, sizeof address, "@%s", name);
    (void)snprintf(log, sizeof log, "%s/log", f.dir);
    (void)snprintf(state, sizeof state, "%s/state", f.dir);
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){
        f.program,     "serve", "--detach",   "--listen", address,        "--key-file", f.key_path,
        "--cache-dir", f.cache, "--log-file", log,        "--state-file", state,        NULL};
    cr_assert(eq(int, (int)nas_process_run(f.ctx, &o, &r), NAS_OK));
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data != NULL ? r.err.data : "");
    cr_assert(ne(ptr, strstr(r.out.data, "listening @nas-agent-test-"), NULL), "%s", r.out.data);
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_file_read(f.ctx, state, 4096, &text), NAS_OK));
    cr_assert(eq(str, text.data, r.out.data));
    const pid_t pid = (pid_t)pid_in(text.data);
    cr_assert(pid > 1 && getsid(pid) == pid && kill(pid, 0) == 0);
    nas_process_result again = {0};
    cr_assert(eq(int, (int)nas_process_run(f.ctx, &o, &again), NAS_OK));
    cr_assert(eq(int, again.exit_code, 4)); /* the name is taken, and that is said */
    cr_assert(ne(ptr, strstr(again.err.data, "another agent listens there"), NULL), "%s",
              again.err.data);
    link_to l = {.fd = connect_unix(name, true)};
    cr_assert(l.fd >= 0, "%s", strerror(errno));
    nas_buf_deinit(&text);
    cr_assert(eq(int, call(&l, "GET", "/v1/log", &text), 200));
    cr_assert(ne(ptr, strstr(text.data, "listening address=@nas-agent-test-"), NULL), "%s",
              text.data);
    cr_assert(eq(int, call(&l, "POST", "/v1/stop", NULL), 200));
    link_close(&l);
    for (int i = 0; i < 500 && connect_unix(name, true) >= 0; i++)
        pause_ms(10);
    cr_assert(connect_unix(name, true) < 0);
    nas_buf_deinit(&text);
    nas_process_result_deinit(&r);
    nas_process_result_deinit(&again);
    f.pid = 0;
    fixture_close(&f);
}

Test(device_agent_listen, a_socket_in_the_file_system_is_private_and_removed_at_the_end,
     .timeout = 60) {
    char path[128];
    int port = 0;
    struct stat info;
    fixture_open(&f);
    (void)snprintf(path, sizeof path, "%s/socket", f.dir);
    f.pid = fixture_spawn((const char *const[]){f.program, "serve", "--listen", path, "--key-file",
                                                f.key_path, "--cache-dir", f.cache, NULL},
                          &port);
    cr_assert(eq(int, stat(path, &info), 0));
    cr_assert(eq(int, (int)(info.st_mode & 0777), 0600));
    link_to l = {.fd = connect_unix(path, false)};
    cr_assert(l.fd >= 0);
    cr_assert(eq(int, call(&l, "GET", "/v1/info", NULL), 200));
    cr_assert(eq(int, call(&l, "POST", "/v1/stop", NULL), 200));
    cr_assert(wait_gone(f.pid, true, 20000));
    cr_assert(ne(int, stat(path, &info), 0));
    f.pid = 0;
    link_close(&l);
    fixture_close(&f);
}

Test(device_agent_log, the_file_is_bounded) {
    nas_ctx *ctx = nas_ctx_new();
    char dir[] = "/tmp/nas-log-XXXXXX", path[64], old[64];
    struct stat a, b;
    nas__log log;
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    (void)snprintf(path, sizeof path, "%s/log", dir);
    (void)snprintf(old, sizeof old, "%s/log.1", dir);
    cr_assert(eq(int, (int)nas__log_open(ctx, &log, path), NAS_OK));
    for (int i = 0; i < 10000; i++)
        nas_log(ctx, NAS_LOG_WARN, "line %d of many that say little", i);
    nas__log_close(ctx, &log);
    cr_assert(eq(int, stat(path, &a), 0));
    cr_assert(eq(int, stat(old, &b), 0));
    cr_assert(a.st_size <= NAS_AGENT_LOG_MAX && b.st_size <= NAS_AGENT_LOG_MAX);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__log_json(&j, path);
    cr_assert(nas__json_object_ok(text.data, text.len));
    cr_assert(ne(ptr, strstr(text.data, "line 9999 of"), NULL));
    nas_buf_deinit(&text);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}
