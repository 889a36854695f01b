/* fake_agent.c - see fake_agent.h. */
#include "fake_agent.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static bool send_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        const ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

/* Reads one request without looking at its body; false at the end of the connection. */
static bool read_request(const fake_agent *fake, int fd, char *head, size_t size) {
    size_t len = 0;
    head[0] = '\0';
    while (len + 1 < size && strstr(head, "\r\n\r\n") == NULL) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (fake->stop) return false;
        if (poll(&wait, 1, 20) <= 0) continue;
        if (recv(fd, head + len, 1, 0) != 1) return false;
        head[++len] = '\0';
    }
    const char *length = strstr(head, "Content-Length: ");
    for (long left = length != NULL ? strtol(length + 16, NULL, 10) : 0; left > 0; left--) {
        char c;
        if (recv(fd, &c, 1, 0) != 1) return false;
    }
    return true;
}

static bool answer_one(fake_agent *fake, int fd, const char *head) {
    static const fake_answer nonce = {FAKE_UNSIGNED, 200,
                                      "{\"nonce\":\"00112233445566778899aabbccddeeff\"}"};
    static const fake_answer session = {FAKE_SIGNED, 201,
                                        "{\"session\":\"00112233445566778899aabbccddeeff\"}"};
    fake_answer a = nonce;
    if (strstr(head, " /v1/session") != NULL) {
        a = fake->session_answer != NULL ? *fake->session_answer : session;
    } else if (strncmp(head, "GET /v1/nonce ", 14) != 0) {
        a = fake->script[fake->next < fake->n ? fake->next : fake->n - 1];
        fake->next++;
    } else if (fake->nonce_answer != NULL) {
        a.body = fake->nonce_answer;
    }
    if (a.kind == FAKE_HANG_UP) return false;
    if (a.kind == FAKE_RAW) {
        (void)send_all(fd, a.body, strlen(a.body));
        return false;
    }
    char mac[NAS_SHA256_HEX] = "", request_mac[NAS_SHA256_HEX] = "";
    const char *at = strstr(head, "X-Nas-Mac: ");
    if (at != NULL) (void)snprintf(request_mac, sizeof request_mac, "%.64s", at + 11);
    uint8_t key[NAS_AGENT_KEY_BYTES];
    memcpy(key, fake->key, sizeof key);
    if (a.kind == FAKE_WRONG_MAC) key[0] ^= 1;
    nas_agent_sign_answer(key, request_mac, a.status, a.body, strlen(a.body), mac);
    nas_buf out = {0};
    nas_buf_printf(&out, "HTTP/1.1 %d X\r\nContent-Length: %zu\r\n", a.status, strlen(a.body));
    if (a.kind != FAKE_UNSIGNED) nas_buf_printf(&out, "X-Nas-Mac: %s\r\n", mac);
    nas_buf_printf(&out, "\r\n%s", a.body);
    const bool ok = send_all(fd, out.data, out.len);
    nas_buf_deinit(&out);
    return ok;
}

static void *serve(void *arg) {
    fake_agent *fake = arg;
    while (!fake->stop) {
        struct pollfd wait = {.fd = fake->listener, .events = POLLIN};
        char head[8192];
        if (poll(&wait, 1, 20) <= 0) continue;
        const int fd = accept(fake->listener, NULL, NULL);
        if (fd < 0) continue;
        while (read_request(fake, fd, head, sizeof head) && answer_one(fake, fd, head))
            continue;
        (void)close(fd);
    }
    return NULL;
}

void fake_agent_start(fake_agent *fake, const fake_answer *script, size_t n,
                      const char *nonce_answer) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    *fake = (fake_agent){.script = script, .n = n, .nonce_answer = nonce_answer, .key = {1, 2, 3}};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fake->listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(fake->listener >= 0);
    cr_assert(eq(int, bind(fake->listener, (const struct sockaddr *)&address, sizeof address), 0));
    cr_assert(eq(int, listen(fake->listener, 4), 0));
    cr_assert(eq(int, getsockname(fake->listener, (struct sockaddr *)&address, &size), 0));
    fake->port = ntohs(address.sin_port);
    cr_assert(eq(int, pthread_create(&fake->thread, NULL, serve, fake), 0));
}

void fake_agent_stop(fake_agent *fake) {
    fake->stop = true;
    (void)pthread_join(fake->thread, NULL);
    (void)close(fake->listener);
}
