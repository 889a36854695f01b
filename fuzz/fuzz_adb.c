/* fuzz_adb.c - libFuzzer target: any bytes as what an adb server, a phone or somebody in the agent's place answers.
 *
 * The first byte chooses the conversation, the others are the whole of the other side's words, then it leaves. */
#include "adb/phone_internal.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { OUTPUT_MAX = 512, FILE_MAX = 700 };

static void must(bool ok) {
    if (!ok) abort();
}

static void shell(nas_ctx *ctx, nas__adb_link *link, bool plain) {
    nas_adb_result r = {0};
    const nas_status status = plain ? nas__adb_shell_plain(ctx, link, "m4rk", OUTPUT_MAX, &r)
                                    : nas__adb_shell_frames(ctx, link, "in", 2, OUTPUT_MAX, &r);
    if (status == NAS_OK) {
        must(r.exit_code >= 0 && r.exit_code <= 255);
        must(plain || (r.out.len <= OUTPUT_MAX && r.err.len <= OUTPUT_MAX));
    } else {
        must(r.out.data == NULL && r.err.data == NULL); /* nothing is owed */
    }
    nas_adb_result_deinit(&r);
}

static void files(nas_ctx *ctx, nas__adb_link *link, int which) {
    nas_buf out = {0};
    uint32_t mode = 0, bytes = 0;
    if (which == 0) (void)nas__adb_sync_send(ctx, link, "content", 7, "/x", 0700);
    if (which == 1) (void)nas__adb_sync_stat(ctx, link, "/x", &mode, &bytes);
    if (which == 2) {
        (void)nas__adb_sync_recv(ctx, link, "/x", FILE_MAX, &out);
        must(out.len <= FILE_MAX);
    }
    nas_buf_deinit(&out);
}

static void list(nas_ctx *ctx, const char *text, size_t len) {
    nas_adb_device devices[4], one;
    const size_t n = nas__adb_devices_parse(text, len, devices, 4);
    must(n <= 4);
    for (size_t i = 0; i < n; i++) {
        must(memchr(devices[i].serial, '\0', sizeof devices[i].serial) != NULL);
        must(devices[i].serial[0] != '\0' && strchr(devices[i].serial, ' ') == NULL);
        must(memchr(devices[i].model, '\0', sizeof devices[i].model) != NULL);
    }
    (void)nas__adb_pick(ctx, devices, n, "", &one);
    (void)nas__adb_pick(ctx, devices, n, n > 0 ? devices[0].serial : "s", &one);
}

/* Text that ends in a NUL, as documents of the agent and features of a phone do. */
static void texts(const char *text, size_t len) {
    char copy[2048], out[33], arch[16];
    const size_t n = len < sizeof copy - 1 ? len : sizeof copy - 1;
    memcpy(copy, text, n);
    copy[n] = '\0';
    nas__phone_json_text(copy, "\"holder\":", out, sizeof out);
    must(nas__phone_json_int(copy, "\"lease_left_ms\":") >= 0);
    (void)nas__phone_holder_gone(copy);
    (void)nas__phone_abi_arch(copy, arch, sizeof arch);
    (void)nas__adb_feature(copy, "shell_v2");
    (void)nas__adb_problem_of_text(copy);
}

static void talk(nas_ctx *ctx, nas__adb_link *link, int which) {
    static const uint8_t key[NAS_AGENT_KEY_BYTES] = {1};
    nas_buf text = {0}, body = {0};
    int http = 0, port = 0;
    switch (which) {
    case 0: shell(ctx, link, false); break;
    case 1: shell(ctx, link, true); break;
    case 2:
    case 3:
    case 4: files(ctx, link, which - 2); break;
    case 5:
        if (nas__adb_request(ctx, link, "host:devices-l") == NAS_OK &&
            nas__adb_text(ctx, link, &text) == NAS_OK) {
            list(ctx, text.data != NULL ? text.data : "", text.len);
        }
        break;
    case 6:
        if (nas__phone_exchange(ctx, link, key, "GET", "/v1/info", &http, &body) == NAS_OK)
            abort(); /* nobody can guess a signature */
        break;
    default:
        if (nas__adb_text(ctx, link, &text) == NAS_OK && text.len > 0 &&
            nas__adb_forward_line(text.data, "s", "n", &port)) {
            must(port >= 1 && port <= 65535);
        }
        break;
    }
    nas_buf_deinit(&text);
    nas_buf_deinit(&body);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int pair[2];
    if (size < 1 || size > 100000) return 0;
    list(NULL, (const char *)data + 1, size - 1);
    texts((const char *)data + 1, size - 1);
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return 0;
    const bool sent = send(pair[1], data + 1, size - 1, MSG_NOSIGNAL) == (ssize_t)(size - 1);
    (void)shutdown(pair[1], SHUT_WR);
    (void)fcntl(pair[0], F_SETFL, O_NONBLOCK);
    nas_ctx *ctx = nas_ctx_new();
    nas__adb_link link = {
        .fd = pair[0], .who = "s", .end_ns = nas_now_ns() + (int64_t)5 * 1000000000};
    const long before = nas_mem_live();
    if (sent && ctx != NULL) talk(ctx, &link, data[0] % 8);
    must(nas_mem_live() == before);
    nas_ctx_free(ctx);
    (void)close(pair[0]);
    (void)close(pair[1]);
    return 0;
}
