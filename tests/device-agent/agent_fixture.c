/* agent_fixture.c - see agent_fixture.h. */
#include "agent_fixture.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void fixture_open(fixture *f) {
    const char *bin = getenv("NAS_BIN_DIR");
    *f = (fixture){.ctx = nas_ctx_new()};
    (void)snprintf(f->dir, sizeof f->dir, "/tmp/nas-agent-test-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(f->dir), NULL));
    (void)snprintf(f->program, sizeof f->program, "%s/nas-agent",
                   bin != NULL ? bin : "build/release/bin");
    cr_assert(eq(int, access(f->program, X_OK), 0), "%s is missing: run the tests through make",
              f->program);
    (void)snprintf(f->key_path, sizeof f->key_path, "%s/key", f->dir);
    (void)snprintf(f->cache, sizeof f->cache, "%s/cache", f->dir);
    cr_assert(eq(int, (int)nas_agent_key_create(f->ctx, f->key_path, f->key), NAS_OK));
}

pid_t fixture_spawn(const char *const *argv, int *port) {
    int pipes[2];
    char line[200] = "";
    size_t n = 0;
    cr_assert(eq(int, pipe(pipes), 0));
    const pid_t pid = fork();
    if (pid == 0) {
        (void)dup2(pipes[1], 1);
        (void)close(pipes[0]);
        (void)close(pipes[1]);
        (void)execv(argv[0], (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    (void)close(pipes[1]);
    while (n + 1 < sizeof line && read(pipes[0], line + n, 1) == 1 && line[n] != '\n')
        n++;
    (void)close(pipes[0]);
    *port = 0;
    (void)sscanf(line, "nas-agent listening 127.0.0.1:%d protocol 1", port);
    return pid;
}

void fixture_start(fixture *f) {
    char parent[32];
    fixture_open(f);
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    f->pid = fixture_spawn((const char *const[]){f->program, "serve", "--listen", "127.0.0.1:0",
                                                 "--key-file", f->key_path, "--cache-dir", f->cache,
                                                 "--parent-pid", parent, NULL},
                           &f->port);
    cr_assert(f->port > 0, "the agent said nothing");
}

void fixture_close(fixture *f) {
    if (f->pid > 0) {
        (void)kill(f->pid, SIGTERM);
        cr_assert(wait_gone(f->pid, true, 20000), "the agent ignores SIGTERM");
    }
    (void)nas_remove_tree(f->ctx, f->dir);
    nas_ctx_free(f->ctx);
}

bool wait_gone(pid_t pid, bool child, int ms) {
    for (int waited = 0; waited <= ms; waited += 5) {
        const struct timespec t = {0, 5000000};
        if (child ? waitpid(pid, NULL, WNOHANG) == pid : kill(pid, 0) != 0 && errno == ESRCH)
            return true;
        (void)nanosleep(&t, NULL);
    }
    return false;
}

link_to link_open(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    const struct timeval patience = {20, 0};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    link_to l = {.fd = socket(AF_INET, SOCK_STREAM, 0)};
    cr_assert(l.fd >= 0);
    cr_assert(eq(int, setsockopt(l.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience), 0));
    cr_assert(eq(int, connect(l.fd, (const struct sockaddr *)&address, sizeof address), 0), "%s",
              strerror(errno));
    return l;
}

void link_close(link_to *l) {
    if (l->fd >= 0) (void)close(l->fd);
    l->fd = -1;
}

void link_send(const link_to *l, const void *data, size_t len) {
    const char *at = data;
    while (len > 0) {
        const ssize_t n = send(l->fd, at, len, MSG_NOSIGNAL);
        if (n <= 0) return; /* the answer tells */
        at += n;
        len -= (size_t)n;
    }
}

/* Value of a header in `head`, "" when absent. */
static void header(const char *head, const char *name, char *out, size_t size) {
    const char *at = strstr(head, name);
    out[0] = '\0';
    if (at != NULL)
        (void)snprintf(out, size, "%.*s", (int)strcspn(at + strlen(name), "\r\n"),
                       at + strlen(name));
}

answer link_read(const link_to *l) {
    answer a = {0};
    nas_buf head = {0};
    char c = 0, text[80];
    while (head.data == NULL || strstr(head.data, "\r\n\r\n") == NULL) {
        if (recv(l->fd, &c, 1, 0) != 1) {
            nas_buf_deinit(&head);
            return a;
        }
        nas_buf_append(&head, &c, 1);
    }
    cr_assert(eq(int, sscanf(head.data, "HTTP/1.1 %d", &a.status), 1), "%s", head.data);
    if (a.status == 100) {
        nas_buf_deinit(&head);
        return link_read(l);
    }
    header(head.data, "X-Nas-Mac: ", a.mac, sizeof a.mac);
    header(head.data, "Content-Length: ", text, sizeof text);
    for (long left = strtol(text, NULL, 10); left > 0; left--) {
        if (recv(l->fd, &c, 1, 0) != 1) break;
        nas_buf_append(&a.body, &c, 1);
    }
    nas_buf_deinit(&head);
    return a;
}

void answer_free(answer *a) {
    nas_buf_deinit(&a->body);
}

void link_nonce(link_to *l) {
    static const char request[] = "GET /v1/nonce HTTP/1.1\r\n\r\n";
    link_send(l, request, sizeof request - 1);
    answer a = link_read(l);
    cr_assert(eq(int, a.status, 200));
    cr_assert(eq(int, sscanf(a.body.data, "{\"nonce\":\"%32[0-9a-f]\"", l->nonce), 1), "%s",
              a.body.data);
    l->counter = 0;
    answer_free(&a);
}

void link_write_signed(const uint8_t *key, link_to *l, const char *method, const char *target,
                       const void *body, size_t len, uint64_t counter) {
    nas_buf head = {0};
    nas_agent_sign_request(key, method, target, body, len, l->nonce, counter, l->last_mac);
    nas_buf_printf(
        &head,
        "%s %s HTTP/1.1\r\nContent-Length: %zu\r\nX-Nas-Counter: %llu\r\nX-Nas-Mac: %s\r\n\r\n",
        method, target, len, (unsigned long long)counter, l->last_mac);
    link_send(l, head.data, head.len);
    if (len > 0) link_send(l, body, len);
    nas_buf_deinit(&head);
}

answer link_call(const fixture *f, link_to *l, const char *method, const char *target,
                 const void *body, size_t len) {
    char expected[NAS_SHA256_HEX];
    if (l->nonce[0] == '\0') link_nonce(l);
    link_write_signed(f->key, l, method, target, body, len, ++l->counter);
    answer a = link_read(l);
    nas_agent_sign_answer(f->key, l->last_mac, a.status, a.body.data, a.body.len, expected);
    cr_assert(eq(str, a.mac, expected), "%s %s: status %d: %s", method, target, a.status,
              a.body.data != NULL ? a.body.data : "");
    return a;
}
