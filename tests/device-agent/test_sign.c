/* test_sign.c - macs against values from another implementation (Python's hmac, script in the comment), key files. */
#include "device-agent/protocol.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static nas_ctx *ctx;
static char dir[64];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-sign-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(device_agent_sign, .init = setup, .fini = teardown);

/* key = bytes(range(32)); sha = lambda b: hashlib.sha256(b).hexdigest()
 * r = hmac.new(key, b"\n".join([method, target, sha(body), nonce, counter]), "sha256").hexdigest()
 * a = hmac.new(key, "\n".join([r, "202", sha(answer)]).encode(), "sha256").hexdigest() */
Test(device_agent_sign, macs_match_another_implementation) {
    uint8_t key[NAS_AGENT_KEY_BYTES];
    char mac[NAS_SHA256_HEX], answer[NAS_SHA256_HEX];
    for (size_t i = 0; i < sizeof key; i++)
        key[i] = (uint8_t)i;
    nas_agent_sign_request(key, "POST", "/v1/run?blob=ab&threads=2", "hello", 5,
                           "000102030405060708090a0b0c0d0e0f", 7, mac);
    cr_assert(eq(str, mac, "62c097f59d1358b86159681653721bc19c455ab26f8d2732cc388eae20476bea"));
    nas_agent_sign_answer(key, mac, 202, "{\"id\":1}", 8, answer);
    cr_assert(eq(str, answer, "d99f2727df582182e8ca813d739d9273423971e02198e38afa55dbd831f696e7"));
}

Test(device_agent_sign, every_part_enters_the_mac) {
    uint8_t key[NAS_AGENT_KEY_BYTES] = {1}, other[NAS_AGENT_KEY_BYTES] = {2};
    char base[NAS_SHA256_HEX], changed[7][NAS_SHA256_HEX];
    nas_agent_sign_request(key, "GET", "/a", "b", 1, "n", 1, base);
    nas_agent_sign_request(other, "GET", "/a", "b", 1, "n", 1, changed[0]);
    nas_agent_sign_request(key, "PUT", "/a", "b", 1, "n", 1, changed[1]);
    nas_agent_sign_request(key, "GET", "/b", "b", 1, "n", 1, changed[2]);
    nas_agent_sign_request(key, "GET", "/a", "c", 1, "n", 1, changed[3]);
    nas_agent_sign_request(key, "GET", "/a", NULL, 0, "n", 1, changed[4]);
    nas_agent_sign_request(key, "GET", "/a", "b", 1, "m", 1, changed[5]);
    nas_agent_sign_request(key, "GET", "/a", "b", 1, "n", 2, changed[6]);
    for (size_t i = 0; i < 7; i++)
        cr_assert(ne(str, base, changed[i]), "part %zu does not enter", i);
}

Test(device_agent_sign, created_key_reads_back_and_is_private) {
    char path[128];
    uint8_t key[NAS_AGENT_KEY_BYTES], back[NAS_AGENT_KEY_BYTES];
    struct stat info;
    (void)snprintf(path, sizeof path, "%s/key", dir);
    cr_assert(eq(int, (int)nas_agent_key_create(ctx, path, key), NAS_OK));
    cr_assert(eq(int, stat(path, &info), 0));
    cr_assert(eq(int, (int)(info.st_mode & 0777), 0600));
    cr_assert(eq(int, (int)nas_agent_key_read(ctx, path, back), NAS_OK));
    cr_assert(eq(int, memcmp(key, back, sizeof key), 0));
}

Test(device_agent_sign, bad_key_files_are_refused) {
    static const struct {
        const char *name, *text;
        unsigned mode;
        nas_status status;
    } rows[] = {
        {"readable by others", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n",
         0644, NAS_ERR_INVALID},
        {"short", "0011\n", 0600, NAS_ERR_INVALID},
        {"no hex", "zz112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\n", 0600,
         NAS_ERR_INVALID},
        {"long", "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff0011\n", 0600,
         NAS_ERR_RANGE},
        {"empty", "", 0600, NAS_ERR_INVALID},
    };
    char path[128];
    uint8_t key[NAS_AGENT_KEY_BYTES];
    (void)snprintf(path, sizeof path, "%s/key", dir);
    cr_assert(eq(int, (int)nas_agent_key_read(ctx, path, key), (int)NAS_ERR_NOTFOUND));
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(eq(
            int, (int)nas_file_write(ctx, path, rows[i].text, strlen(rows[i].text), rows[i].mode),
            NAS_OK));
        cr_assert(eq(int, (int)nas_agent_key_read(ctx, path, key), (int)rows[i].status), "%s",
                  rows[i].name);
    }
}
