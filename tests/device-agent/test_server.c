/* test_server.c - the agent as a process on loopback: who is let in, limits, one run at a time, and how it ends. */
#include "agent_fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static fixture f;

static void setup(void) {
    fixture_start(&f);
}

static void teardown(void) {
    fixture_close(&f);
}

TestSuite(device_agent_server, .init = setup, .fini = teardown, .timeout = 60);

static int call(link_to *l, const char *method, const char *target, const void *body, size_t len,
                nas_buf *out) {
    answer a = link_call(&f, l, method, target, body, len);
    if (out != NULL) {
        nas_buf_clear(out);
        nas_buf_append(out, a.body.data != NULL ? a.body.data : "", a.body.len);
    }
    answer_free(&a);
    return a.status;
}

/* Uploads a shell script as the program; `hash` receives its name. */
static void put_script(link_to *l, const char *text, char hash[NAS_SHA256_HEX]) {
    nas_buf program = {0};
    char target[128];
    nas_buf_printf(&program, "#!/bin/sh\n%s\n", text);
    nas_sha256_hex(program.data, program.len, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s", hash);
    const int status = call(l, "PUT", target, program.data, program.len, NULL);
    nas_buf_deinit(&program);
    cr_assert(status == 200 || status == 201, "upload: %d", status);
}

static int start(link_to *l, const char *hash, const char *more, nas_buf *out) {
    char target[256];
    (void)snprintf(target, sizeof target, "/v1/run?blob=%s%s", hash, more);
    return call(l, "POST", target, NULL, 0, out);
}

Test(device_agent_server, info_is_signed_and_lists_the_limits) {
    link_to l = link_open(f.port);
    nas_buf body = {0};
    cr_assert(eq(int, call(&l, "GET", "/v1/info", NULL, 0, &body), 200));
    static const char *const keys[] = {"\"protocol\":1", "\"fingerprint\"", "\"limits\"",
                                       "no_new_privs", "\"cpu\""};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cr_assert(ne(ptr, strstr(body.data, keys[i]), NULL), "%s in %s", keys[i], body.data);
    }
    cr_assert(eq(int, call(&l, "GET", "/v1/nothing", NULL, 0, NULL), 404));
    nas_buf_deinit(&body);
    link_close(&l);
}

Test(device_agent_server, unsigned_forged_replayed_and_stale_requests_are_refused) {
    link_to l = link_open(f.port), other = link_open(f.port);
    uint8_t wrong[NAS_AGENT_KEY_BYTES] = {0};
    link_send(&l, "GET /v1/info HTTP/1.1\r\n\r\n", 25);
    answer a = link_read(&l);
    cr_assert(eq(int, a.status, 401)); /* no nonce */
    cr_assert(eq(str, a.mac, ""));
    answer_free(&a);
    link_nonce(&l);
    link_send(&l, "GET /v1/info HTTP/1.1\r\n\r\n", 25);
    a = link_read(&l);
    cr_assert(eq(int, a.status, 401)); /* no mac */
    answer_free(&a);
    link_write_signed(wrong, &l, "GET", "/v1/info", NULL, 0, 1);
    a = link_read(&l);
    cr_assert(eq(int, a.status, 401)); /* another key */
    answer_free(&a);
    link_write_signed(f.key, &l, "GET", "/v1/info", NULL, 0, 5);
    a = link_read(&l);
    cr_assert(eq(int, a.status, 200));
    answer_free(&a);
    for (uint64_t counter = 5; counter >= 4; counter--) {
        link_write_signed(f.key, &l, "GET", "/v1/info", NULL, 0, counter);
        a = link_read(&l);
        cr_assert(eq(int, a.status, 401), "counter %d", (int)counter); /* not rising */
        answer_free(&a);
    }
    link_nonce(&other);
    (void)snprintf(other.nonce, sizeof other.nonce, "%s", l.nonce);
    link_write_signed(f.key, &other, "GET", "/v1/info", NULL, 0, 6);
    a = link_read(&other);
    cr_assert(eq(int, a.status, 401)); /* nonce of another connection */
    answer_free(&a);
    link_nonce(&l);
    link_write_signed(f.key, &l, "GET", "/v1/info", NULL, 0, 1);
    a = link_read(&l);
    cr_assert(eq(int, a.status, 200)); /* a fresh nonce begins anew */
    answer_free(&a);
    link_close(&l);
    link_close(&other);
}

Test(device_agent_server, tampered_target_and_body_are_refused) {
    link_to l = link_open(f.port);
    nas_buf text = {0};
    char mac[NAS_SHA256_HEX], hash[NAS_SHA256_HEX];
    link_nonce(&l);
    nas_agent_sign_request(f.key, "GET", "/v1/info", NULL, 0, l.nonce, 1, mac);
    nas_buf_printf(&text, "GET /v1/info?x=1 HTTP/1.1\r\nX-Nas-Counter: 1\r\nX-Nas-Mac: %s\r\n\r\n",
                   mac);
    link_send(&l, text.data, text.len);
    answer a = link_read(&l);
    cr_assert(eq(int, a.status, 401));
    answer_free(&a);
    char target[128];
    nas_sha256_hex("good", 4, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s", hash);
    nas_agent_sign_request(f.key, "PUT", target, "good", 4, l.nonce, 2, mac);
    nas_buf_clear(&text);
    nas_buf_printf(
        &text,
        "PUT %s HTTP/1.1\r\nContent-Length: 4\r\nX-Nas-Counter: 2\r\nX-Nas-Mac: %s\r\n\r\nevil",
        target, mac);
    link_send(&l, text.data, text.len);
    a = link_read(&l);
    cr_assert(eq(int, a.status, 401));
    answer_free(&a);
    l.counter = 2;
    cr_assert(eq(int, call(&l, "GET", target, NULL, 0, NULL), 404));
    nas_buf_deinit(&text);
    link_close(&l);
}

Test(device_agent_server, blobs_are_checked_against_their_name) {
    link_to l = link_open(f.port);
    char hash[NAS_SHA256_HEX], target[128];
    nas_sha256_hex("abc", 3, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s", hash);
    cr_assert(eq(int, call(&l, "GET", target, NULL, 0, NULL), 404));
    cr_assert(eq(int, call(&l, "PUT", target, "abd", 3, NULL), 422));
    cr_assert(eq(int, call(&l, "PUT", target, "abc", 3, NULL), 201));
    cr_assert(eq(int, call(&l, "PUT", target, "abc", 3, NULL), 200));
    cr_assert(eq(int, call(&l, "GET", target, NULL, 0, NULL), 200));
    cr_assert(eq(int, call(&l, "PUT", "/v1/blob/../key", "abc", 3, NULL), 400));
    link_close(&l);
}

Test(device_agent_server, sizes_are_refused_before_they_are_read) {
    static const struct {
        const char *name, *head;
        int status;
    } rows[] = {
        {"blob over 64 MB", "PUT /v1/blob/ab HTTP/1.1\r\nContent-Length: 67108865\r\n\r\n", 413},
        {"huge number", "PUT /v1/blob/ab HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n",
         413},
        {"body of a run", "POST /v1/run HTTP/1.1\r\nContent-Length: 4097\r\n\r\n", 413},
        {"no length", "PUT /v1/blob/ab HTTP/1.1\r\n\r\n", 411},
        {"chunked", "PUT /v1/blob/ab HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411},
        {"nonsense", "hello\r\n\r\n", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        link_to l = link_open(f.port);
        link_send(&l, rows[i].head, strlen(rows[i].head));
        answer a = link_read(&l);
        cr_assert(eq(int, a.status, rows[i].status), "%s", rows[i].name);
        cr_assert(eq(str, a.mac, ""), "%s", rows[i].name); /* nothing is signed for strangers */
        answer_free(&a);
        a = link_read(&l);
        cr_assert(eq(int, a.status, 0), "%s: the connection ends", rows[i].name);
        link_close(&l);
    }
    link_to l = link_open(f.port);
    char *head = nas_alloc_array(f.ctx, 9000, 1);
    memset(head, 'a', 9000);
    memcpy(head, "GET /", 5);
    link_send(&l, head, 9000);
    answer a = link_read(&l);
    cr_assert(eq(int, a.status, 413));
    answer_free(&a);
    nas_free(head);
    link_close(&l);
}

Test(device_agent_server, a_request_in_pieces_and_two_in_one_are_both_understood) {
    link_to l = link_open(f.port);
    static const char one[] = "GET /v1/nonce HTTP/1.1\r\n\r\n",
                      two[] = "GET /v1/nonce HTTP/1.1\r\n\r\nGET /v1/nonce HTTP/1.1\r\n\r\n";
    for (size_t i = 0; i < sizeof one - 1; i++)
        link_send(&l, one + i, 1);
    link_send(&l, two, sizeof two - 1);
    for (int i = 0; i < 3; i++) {
        answer a = link_read(&l);
        cr_assert(eq(int, a.status, 200));
        answer_free(&a);
    }
    link_close(&l);
}

Test(device_agent_server, the_fifth_connection_is_turned_away) {
    link_to links[NAS_AGENT_CONNECTIONS_MAX];
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++) {
        links[i] = link_open(f.port);
        link_nonce(&links[i]);
    }
    link_to fifth = link_open(f.port);
    answer a = link_read(&fifth);
    cr_assert(eq(int, a.status, 503));
    answer_free(&a);
    link_close(&fifth);
    for (int i = 0; i < NAS_AGENT_CONNECTIONS_MAX; i++)
        link_close(&links[i]);
}

Test(device_agent_server, a_run_is_reported_and_a_second_one_meanwhile_is_409) {
    link_to l = link_open(f.port), other = link_open(f.port);
    char hash[NAS_SHA256_HEX], slow[NAS_SHA256_HEX];
    nas_buf body = {0};
    put_script(&l, "echo '{\"schema\": 1}'", hash);
    put_script(&l, "sleep 1000", slow);
    cr_assert(eq(int, start(&l, slow, "&threads=1", &body), 202));
    cr_assert(eq(str, body.data, "{\"id\":1}"));
    cr_assert(eq(int, start(&other, hash, "", NULL), 409));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"running\""), NULL), "%s", body.data);
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?wait_ms=30", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"running\""), NULL), "%s", body.data);
    cr_assert(eq(int, call(&other, "DELETE", "/v1/run/1", NULL, 0, NULL), 200));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?wait_ms=20000", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"killed\""), NULL), "%s", body.data);
    cr_assert(eq(int, start(&l, hash, "", &body), 202));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/2?wait_ms=20000", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"bench\":{\"schema\": 1}"), NULL), "%s", body.data);
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1", NULL, 0, NULL), 404));
    nas_buf_deinit(&body);
    link_close(&l);
    link_close(&other);
}

Test(device_agent_server, bad_runs_are_refused_with_a_reason) {
    link_to l = link_open(f.port);
    char hash[NAS_SHA256_HEX];
    put_script(&l, "echo '{}'", hash);
    static const struct {
        const char *more;
        int status;
    } rows[] = {
        {"&deadline_ms=0", 400},
        {"&deadline_ms=120001", 400},
        {"&deadline_ms=5&deadline_ms=5", 400},
        {"&shell=ls", 400},
        {"&threads=1&threads=2", 400},
        {"&threads", 400},
        {"&blob=00", 400},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(eq(int, start(&l, hash, rows[i].more, NULL), rows[i].status), "%s", rows[i].more);
    }
    nas_sha256_hex("absent", 6, hash);
    cr_assert(eq(int, start(&l, hash, "", NULL), 404));
    cr_assert(eq(int, call(&l, "POST", "/v1/run", NULL, 0, NULL), 400));
    link_close(&l);
}

Test(device_agent_server, deadline_and_crash_are_told_to_the_controller) {
    link_to l = link_open(f.port);
    char hash[NAS_SHA256_HEX];
    nas_buf body = {0};
    put_script(&l, "sleep 1000", hash);
    cr_assert(eq(int, start(&l, hash, "&deadline_ms=100", NULL), 202));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/1?wait_ms=20000", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"killed\""), NULL), "%s", body.data);
    put_script(&l, "echo broken >&2; kill -ABRT $$", hash);
    cr_assert(eq(int, start(&l, hash, "", NULL), 202));
    cr_assert(eq(int, call(&l, "GET", "/v1/run/2?wait_ms=20000", NULL, 0, &body), 200));
    cr_assert(ne(ptr, strstr(body.data, "\"state\":\"failed\""), NULL), "%s", body.data);
    cr_assert(ne(ptr, strstr(body.data, "\"signal\":6"), NULL), "%s", body.data);
    cr_assert(ne(ptr, strstr(body.data, "broken"), NULL), "%s", body.data);
    nas_buf_deinit(&body);
    link_close(&l);
}

Test(device_agent_server, stop_is_answered_and_ends_the_agent_with_its_run) {
    link_to l = link_open(f.port);
    char hash[NAS_SHA256_HEX];
    nas_buf body = {0};
    put_script(&l, "echo $$ > pid; sleep 1000", hash);
    cr_assert(eq(int, start(&l, hash, "", NULL), 202));
    cr_assert(eq(int, call(&l, "POST", "/v1/stop", NULL, 0, &body), 200));
    cr_assert(wait_gone(f.pid, true, 20000));
    f.pid = 0;
    nas_buf_deinit(&body);
    link_close(&l);
}

/* A parent that is killed without a chance to clean up: the agent and its run must not outlive it. */
Test(device_agent_server, the_agent_dies_with_a_killed_parent) {
    int report[2];
    cr_assert(eq(int, pipe(report), 0));
    const pid_t parent = fork();
    if (parent == 0) {
        char own[32];
        int values[2];
        (void)snprintf(own, sizeof own, "%ld", (long)getpid());
        values[0] = (int)fixture_spawn(
            (const char *const[]){f.program, "serve", "--listen", "127.0.0.1:0", "--key-file",
                                  f.key_path, "--cache-dir", f.cache, "--parent-pid", own, NULL},
            &values[1]);
        if (write(report[1], values, sizeof values) != (ssize_t)sizeof values) _exit(1);
        for (;;)
            (void)pause();
    }
    int values[2] = {0, 0};
    cr_assert(eq(int, (int)read(report[0], values, sizeof values), (int)sizeof values));
    cr_assert(values[1] > 0);
    link_to l = link_open(values[1]);
    char hash[NAS_SHA256_HEX];
    put_script(&l, "sleep 1000", hash);
    cr_assert(eq(int, start(&l, hash, "", NULL), 202));
    cr_assert(eq(int, kill(values[0], 0), 0));
    (void)kill(parent, SIGKILL);
    cr_assert(wait_gone(parent, true, 20000));
    cr_assert(eq(int, link_read(&l).status,
                 0)); /* the agent's sockets close: it is dead or a zombie of init */
    link_close(&l);
    (void)close(report[0]);
    (void)close(report[1]);
}

Test(device_agent_program, wrong_command_lines_exit_with_two, .timeout = 60) {
    fixture_open(&f);
    const char *const rows[][8] = {
        {f.program, NULL},
        {f.program, "dance", NULL},
        {f.program, "serve", NULL},
        {f.program, "serve", "--key-file", f.key_path, "--listen", "0.0.0.0:0", NULL},
        {f.program, "serve", "--key-file", f.key_path, "--listen", "localhost:0", NULL},
        {f.program, "serve", "--key-file", f.key_path, "--listen", "127.0.0.1:99999", NULL},
        {f.program, "serve", "--key-file", f.key_path, "--parent-pid", "1", NULL},
        {f.program, "serve", "--key-file", f.key_path, "--speed", "9", NULL},
        {f.program, "run", "/bin/true", "--threads", "x", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_process_options o = nas_process_options_default();
        nas_process_result r = {0};
        o.argv = rows[i];
        o.cwd = f.dir;
        cr_assert(eq(int, (int)nas_process_run(f.ctx, &o, &r), NAS_OK));
        cr_assert(eq(int, r.exit_code, 2), "row %zu: %s", i, r.err.data != NULL ? r.err.data : "");
        cr_assert(r.err.len > 0);
        nas_process_result_deinit(&r);
    }
    fixture_close(&f);
}
