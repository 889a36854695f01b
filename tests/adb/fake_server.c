/* fake_server.c - see fake_server.h. */
#include "fake_server.h"

#include <arpa/inet.h>
#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static bool read_all(const fake_server *fake, int fd, void *data, size_t len) {
    for (size_t have = 0; have < len;) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (fake->stop) return false;
        if (poll(&wait, 1, 10) <= 0) continue;
        const ssize_t n = recv(fd, (char *)data + have, len - have, 0);
        if (n <= 0) return false;
        have += (size_t)n;
    }
    return true;
}

static bool send_all(int fd, const char *data, size_t len) {
    while (len > 0) {
        const ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
        if (n <= 0) return false;
        data += n;
        len -= (size_t)n;
    }
    return true;
}

static void swallow(const fake_server *fake, int fd) {
    char byte;
    while (read_all(fake, fd, &byte, 1))
        continue;
}

/* One packet of sync: 4 letters, length, data (DONE has none). */
static bool read_packet(fake_server *fake, int fd, char tag[5], size_t *len) {
    unsigned char head[8];
    char chunk[65536];
    if (!read_all(fake, fd, head, sizeof head)) return false;
    memcpy(tag, head, 4);
    tag[4] = '\0';
    *len = (size_t)head[4] | (size_t)head[5] << 8 | (size_t)head[6] << 16 | (size_t)head[7] << 24;
    if (strcmp(tag, "DONE") == 0 || strcmp(tag, "QUIT") == 0) return true;
    if (*len > sizeof chunk || !read_all(fake, fd, chunk, *len)) return false;
    if (strcmp(tag, "DATA") != 0) nas_buf_printf(&fake->seen, "%s %.*s\n", tag, (int)*len, chunk);
    return true;
}

static void serve_sync(fake_server *fake, int fd, const fake_row *row) {
    char tag[5];
    size_t len = 0, sent = 0;
    if (!send_all(fd, "OKAY", 4) || !read_packet(fake, fd, tag, &len)) return;
    const bool all = row->kind == FAKE_SYNC && strcmp(tag, "SEND") == 0;
    while (all && strcmp(tag, "DONE") != 0) {
        if (!read_packet(fake, fd, tag, &len)) return;
        if (strcmp(tag, "DATA") == 0) sent += len;
    }
    if (all) nas_buf_printf(&fake->seen, "sent %zu\n", sent);
    (void)send_all(fd, row->data, row->len);
    swallow(fake, fd);
}

static bool serve_one(fake_server *fake, int fd) {
    char hex[5] = "", text[5000];
    if (!read_all(fake, fd, hex, 4)) return false;
    const size_t len = strtoul(hex, NULL, 16);
    if (len >= sizeof text || !read_all(fake, fd, text, len)) return false;
    text[len] = '\0';
    nas_buf_printf(&fake->seen, "%s\n", text);
    const fake_row *row = NULL;
    for (size_t i = 0; i < fake->n && row == NULL; i++) {
        if (strncmp(text, fake->rows[i].request, strlen(fake->rows[i].request)) == 0)
            row = &fake->rows[i];
    }
    if (row == NULL) {
        (void)send_all(fd, "FAIL0006closed", 14);
        return false;
    }
    if (row->kind == FAKE_SYNC || row->kind == FAKE_REFUSE) {
        serve_sync(fake, fd, row);
        return false;
    }
    const bool ok = send_all(fd, row->data, row->len);
    if (ok && row->kind == FAKE_HOLD) swallow(fake, fd);
    return ok && row->kind == FAKE_ANSWER;
}

static void *serve(void *arg) {
    fake_server *fake = arg;
    while (!fake->stop) {
        struct pollfd wait = {.fd = fake->listener, .events = POLLIN};
        if (poll(&wait, 1, 10) <= 0) continue;
        const int fd = accept(fake->listener, NULL, NULL);
        if (fd < 0) continue;
        while (serve_one(fake, fd))
            continue;
        (void)shutdown(fd, SHUT_WR); /* what was sent arrives before the end does */
        char rest[4096];
        struct pollfd last = {.fd = fd, .events = POLLIN};
        while (poll(&last, 1, 200) > 0 && recv(fd, rest, sizeof rest, 0) > 0)
            continue;
        (void)close(fd);
    }
    return NULL;
}

void fake_server_start(fake_server *fake, const fake_row *rows, size_t n) {
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    *fake = (fake_server){.rows = rows, .n = n};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    fake->listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(fake->listener >= 0);
    cr_assert(eq(int, bind(fake->listener, (const struct sockaddr *)&address, sizeof address), 0));
    cr_assert(eq(int, listen(fake->listener, 8), 0));
    cr_assert(eq(int, getsockname(fake->listener, (struct sockaddr *)&address, &size), 0));
    fake->adb =
        (nas_adb){.port = ntohs(address.sin_port), .program = "/no/such/adb", .timeout_ms = 10000};
    cr_assert(eq(int, pthread_create(&fake->thread, NULL, serve, fake), 0));
}

void fake_server_stop(fake_server *fake) {
    fake->stop = true;
    (void)pthread_join(fake->thread, NULL);
    (void)close(fake->listener);
}
