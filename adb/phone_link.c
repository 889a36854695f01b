/* phone_link.c - signed questions to the agent on a phone, straight through the adb server: is it there, is it ours, who
 * holds it. Measuring goes through a forward and latency/agent_client.c. */
#include "adb/phone_internal.h"

#include <stdio.h>
#include <string.h>

enum { HEAD_MAX = NAS_AGENT_HEADER_MAX, BODY_MAX = 512 * 1024 };

typedef struct answer {
    int status;
    char mac[NAS_SHA256_HEX]; /* "" = unsigned */
    nas_buf body;
} answer;

/* The value of a header "\r\nName: value", "" when absent or too long. */
static void header(const char *head, const char *name, char *out, size_t size) {
    const char *at = strstr(head, name);
    out[0] = '\0';
    if (at == NULL) return;
    const char *value = at + strlen(name);
    const size_t n = strcspn(value, "\r\n");
    if (n < size) (void)snprintf(out, size, "%.*s", (int)n, value);
}

static nas_status read_head(nas_ctx *ctx, nas__adb_link *link, char *head, size_t size) {
    size_t len = 0;
    head[0] = '\0';
    while (len < 4 || memcmp(head + len - 4, "\r\n\r\n", 4) != 0) {
        if (len + 1 >= size)
            return nas_fail(ctx, NAS_ERR_PARSE, "%s: answer head over %zu bytes", link->who, size);
        const nas_status status = nas__adb_read(ctx, link, head + len, 1);
        if (status != NAS_OK) return status;
        if (head[len] == '\0') return nas_fail(ctx, NAS_ERR_PARSE, "%s: no HTTP answer", link->who);
        head[++len] = '\0';
    }
    return NAS_OK;
}

static nas_status read_answer(nas_ctx *ctx, nas__adb_link *link, answer *out) {
    char head[HEAD_MAX], text[24], code[4];
    int64_t length = 0, number = 0;
    nas_status status = read_head(ctx, link, head, sizeof head);
    if (status != NAS_OK) return status;
    (void)snprintf(code, sizeof code, "%.3s", strlen(head) > 12 ? head + 9 : "");
    header(head, "\r\nContent-Length: ", text, sizeof text);
    header(head, "\r\nX-Nas-Mac: ", out->mac, sizeof out->mac);
    if (strncmp(head, "HTTP/1.1 ", 9) != 0 ||
        nas_parse_i64(NULL, "status", code, 100, 599, &number) != NAS_OK ||
        nas_parse_i64(NULL, "length", text, 0, BODY_MAX, &length) != NAS_OK) {
        return nas_fail(ctx, NAS_ERR_PARSE, "%s: no HTTP answer of at most %d bytes", link->who,
                        (int)BODY_MAX);
    }
    out->status = (int)number;
    while (status == NAS_OK && length > 0) {
        char chunk[4096];
        const size_t n = length < (int64_t)sizeof chunk ? (size_t)length : sizeof chunk;
        status = nas__adb_read(ctx, link, chunk, n);
        if (status == NAS_OK) nas_buf_append(&out->body, chunk, n);
        length -= (int64_t)n;
    }
    return status == NAS_OK ? nas_buf_status(ctx, &out->body) : status;
}

static nas_status send_text(nas_ctx *ctx, nas__adb_link *link, nas_buf *text) {
    nas_status status = nas_buf_status(ctx, text);
    if (status == NAS_OK) status = nas__adb_write(ctx, link, text->data, text->len, NULL);
    return status;
}

static nas_status take_nonce(nas_ctx *ctx, nas__adb_link *link, char nonce[33]) {
    uint8_t raw[NAS_AGENT_NONCE_BYTES];
    nas_buf text = {0};
    answer a = {0};
    nas_buf_puts(&text, "GET /v1/nonce HTTP/1.1\r\nHost: agent\r\n\r\n");
    nas_status status = send_text(ctx, link, &text);
    if (status == NAS_OK) status = read_answer(ctx, link, &a);
    if (status == NAS_OK) {
        nas__phone_json_text(a.body.data != NULL ? a.body.data : "", "\"nonce\":", nonce, 33);
        if (a.status != 200 || !nas_unhex(nonce, sizeof raw, raw))
            status =
                nas_fail(ctx, NAS_ERR_PARSE, "%s: no nonce from what listens there", link->who);
    }
    nas_buf_deinit(&text);
    nas_buf_deinit(&a.body);
    return status;
}

nas_status nas__phone_exchange(nas_ctx *ctx, nas__adb_link *link,
                               const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                               const char *target, int *http_status, nas_buf *body) {
    char nonce[2 * NAS_AGENT_NONCE_BYTES + 1], mac[NAS_SHA256_HEX], expected[NAS_SHA256_HEX];
    nas_status status = take_nonce(ctx, link, nonce);
    if (status != NAS_OK) return status;
    nas_buf text = {0};
    answer a = {0};
    nas_agent_sign_request(key, method, target, NULL, 0, nonce, 1, mac);
    nas_buf_printf(&text,
                   "%s %s HTTP/1.1\r\nHost: agent\r\nContent-Length: 0\r\nX-Nas-Mac: %s\r\n"
                   "X-Nas-Counter: 1\r\n\r\n",
                   method, target, mac);
    status = send_text(ctx, link, &text);
    if (status == NAS_OK) status = read_answer(ctx, link, &a);
    nas_buf_deinit(&text);
    if (status == NAS_OK) {
        nas_agent_sign_answer(key, mac, a.status, a.body.data, a.body.len, expected);
        if (!nas_equal_constant_time(expected, a.mac, sizeof expected))
            status = nas__adb_problem_fail(ctx, NAS__ADB_OTHER_KEY, link->who, "");
    }
    if (status != NAS_OK) {
        nas_buf_deinit(&a.body);
        return status;
    }
    *http_status = a.status;
    *body = a.body;
    return NAS_OK;
}

nas_status nas__phone_ask(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                          const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                          const char *target, int *http_status, nas_buf *body) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_dial(ctx, adb, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host:transport:%s", serial);
    if (status == NAS_OK) {
        status = nas__adb_request(ctx, &link, "localabstract:%s", NAS_PHONE_SOCKET);
        if (status == NAS_ERR_NET ||
            status == NAS_ERR_DEVICE) /* the phone is there: nobody listens */
            status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: no agent listens there", serial);
    }
    if (status == NAS_OK) {
        status = nas__phone_exchange(ctx, &link, key, method, target, http_status, body);
        /* adb says OKAY first and closes when nobody listens, or the agent turned us away */
        if (status == NAS_ERR_NET)
            status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: no agent answers there", serial);
    }
    nas__adb_close(&link);
    return status;
}

/* ---- members of a document whose signature was checked -------------------------------------------------------------- */

void nas__phone_json_text(const char *json, const char *after, char *out, size_t size) {
    const char *at = strstr(json, after);
    out[0] = '\0';
    if (at == NULL) return;
    at += strlen(after);
    at += strspn(at, " ");
    if (*at != '"') return;
    const size_t n = strcspn(at + 1, "\"\\"); /* holder, version, nonce need no escapes */
    if (at[1 + n] == '"' && n < size) (void)snprintf(out, size, "%.*s", (int)n, at + 1);
}

int64_t nas__phone_json_int(const char *json, const char *after) {
    const char *at = strstr(json, after);
    char digits[20];
    int64_t number = 0;
    if (at == NULL) return 0;
    at += strlen(after);
    (void)snprintf(digits, sizeof digits, "%.*s", (int)strspn(at, "0123456789"), at);
    return nas_parse_i64(NULL, "number", digits, 0, INT64_MAX, &number) == NAS_OK ? number : 0;
}
