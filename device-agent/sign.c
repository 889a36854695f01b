/* sign.c - macs of requests and answers, and the key file both ends share. The formulas are in protocol.h. */
#include "device-agent/agent_internal.h"

#include <string.h>
#include <sys/stat.h>

enum { KEY_HEX = 2 * NAS_AGENT_KEY_BYTES };

/* HMAC over parts joined by newlines; parts are short except the target, so they are hashed as one text. */
static void mac_of(const uint8_t *key, const nas_buf *text, char mac[NAS_SHA256_HEX]) {
    uint8_t raw[NAS_SHA256_BYTES];
    nas_hmac_sha256(key, NAS_AGENT_KEY_BYTES, text->data, text->len, raw);
    nas_hex(raw, sizeof raw, mac);
    if (text->failed)
        memset(mac, '0', NAS_SHA256_HEX - 1); /* no memory: a mac that matches nothing */
}

void nas_agent_sign_request(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                            const char *target, const void *body, size_t len, const char *nonce,
                            uint64_t counter, char mac[NAS_SHA256_HEX]) {
    char body_hex[NAS_SHA256_HEX];
    nas_sha256_hex(len > 0 ? body : "", len, body_hex);
    nas__sign_request_hashed(key, method, target, body_hex, nonce, counter, mac);
}

void nas__sign_request_hashed(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                              const char *target, const char *body_hash, const char *nonce,
                              uint64_t counter, char mac[NAS_SHA256_HEX]) {
    nas_buf text = {0};
    nas_buf_printf(&text, "%s\n%s\n%s\n%s\n%" PRIu64, method, target, body_hash, nonce, counter);
    mac_of(key, &text, mac);
    nas_buf_deinit(&text);
}

void nas_agent_sign_answer(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *request_mac,
                           int http_status, const void *body, size_t len,
                           char mac[NAS_SHA256_HEX]) {
    char body_hex[NAS_SHA256_HEX];
    nas_sha256_hex(len > 0 ? body : "", len, body_hex);
    nas_buf text = {0};
    nas_buf_printf(&text, "%s\n%d\n%s", request_mac, http_status, body_hex);
    mac_of(key, &text, mac);
    nas_buf_deinit(&text);
}

nas_status nas_agent_key_read(nas_ctx *ctx, const char *path, uint8_t key[NAS_AGENT_KEY_BYTES]) {
    struct stat info;
    nas_buf text = {0};
    nas_status status = nas_file_read(ctx, path, KEY_HEX + 2, &text);
    if (status != NAS_OK) return nas_wrap(ctx, status, "agent key");
    while (text.len > 0 && (text.data[text.len - 1] == '\n' || text.data[text.len - 1] == '\r')) {
        text.data[--text.len] = '\0';
    }
    if (stat(path, &info) == 0 && (info.st_mode & 077) != 0) {
        status = nas_fail(ctx, NAS_ERR_INVALID,
                          "agent key %s: mode %04o lets others read it; chmod 600 %s", path,
                          (unsigned)(info.st_mode & 07777), path);
    } else if (text.len != KEY_HEX || !nas_unhex(text.data, NAS_AGENT_KEY_BYTES, key)) {
        status = nas_fail(ctx, NAS_ERR_INVALID, "agent key %s: need exactly %d hex digits", path,
                          KEY_HEX);
    }
    nas_buf_deinit(&text);
    return status;
}

nas_status nas_agent_key_create(nas_ctx *ctx, const char *path, uint8_t key[NAS_AGENT_KEY_BYTES]) {
    uint8_t fresh[NAS_AGENT_KEY_BYTES];
    char hex[KEY_HEX + 2];
    nas_status status = nas_random_bytes(ctx, fresh, sizeof fresh);
    if (status != NAS_OK) return status;
    nas_hex(fresh, sizeof fresh, hex);
    hex[KEY_HEX] = '\n';
    status = nas_file_write(ctx, path, hex, KEY_HEX + 1, 0600);
    if (status != NAS_OK) return nas_wrap(ctx, status, "agent key");
    memcpy(key, fresh, sizeof fresh);
    return NAS_OK;
}
