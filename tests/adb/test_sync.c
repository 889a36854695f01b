/* test_sync.c - files of phones that answer well, badly, or not to the end. */
#include "adb/adb_internal.h"
#include "fake_server.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
}
TestSuite(adb_sync, .init = setup, .fini = teardown, .timeout = 60);

static const char okay[] = "OKAY\0\0\0";

Test(adb_sync, a_file_is_sent_whole_and_confirmed) {
    static char data[3 * 65536 + 7];
    const fake_row rows[] = {FAKE_TRANSPORT, {"sync:", FAKE_SYNC, okay, 8}};
    fake_server fake;
    fake_server_start(&fake, rows, 2);
    const nas_status status =
        nas_adb_push(ctx, &fake.adb, "s", data, sizeof data, "/data/local/tmp/x", 0700);
    fake_server_stop(&fake);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(fake.seen.data, "SEND /data/local/tmp/x,33216\n"), NULL), "%s",
              fake.seen.data);
    cr_assert(ne(ptr, strstr(fake.seen.data, "sent 196615\n"), NULL), "%s", fake.seen.data);
    nas_buf_deinit(&fake.seen);
}

#define ROW(name, kind, data, status)                                                              \
    { name, data, sizeof(data) - 1, kind, status }

typedef struct row {
    const char *name, *data;
    size_t len;
    fake_kind kind;
    nas_status status;
} row;

Test(adb_sync, a_file_not_confirmed_was_not_sent) {
    static const row rows[] = {
        ROW("unplugged", FAKE_SYNC, "", NAS_ERR_TIMEOUT),
        ROW("cut", FAKE_SYNC, "OKA", NAS_ERR_TIMEOUT),
        ROW("disk full", FAKE_SYNC, "FAIL\31\0\0\0write: No space left on..", NAS_ERR_DEVICE),
        ROW("disk full, told early", FAKE_REFUSE, "FAIL\31\0\0\0write: No space left on..",
            NAS_ERR_DEVICE),
        ROW("error text of 4 GB", FAKE_SYNC, "FAIL\377\377\377\377", NAS_ERR_PARSE),
        ROW("another answer", FAKE_SYNC, "WHAT\0\0\0\0", NAS_ERR_PARSE),
        ROW("confirmed before the end", FAKE_REFUSE, "OKAY\0\0\0\0", NAS_ERR_PARSE),
    };
    static char data[4 * 1024 * 1024]; /* does not fit into the socket's buffers */
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {FAKE_TRANSPORT,
                                   {"sync:", rows[i].kind, rows[i].data, rows[i].len}};
        fake_server fake;
        fake_server_start(&fake, script, 2);
        if (rows[i].status == NAS_ERR_TIMEOUT) fake.adb.timeout_ms = 500;
        const nas_status status = nas_adb_push(ctx, &fake.adb, "s", data, sizeof data, "/x", 0644);
        fake_server_stop(&fake);
        nas_buf_deinit(&fake.seen);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
    }
}

Test(adb_sync, a_fetched_file_is_whole_within_its_limit_or_an_error) {
    static const row rows[] = {
        ROW("good", FAKE_SYNC, "DATA\3\0\0\0abcDATA\2\0\0\0deDONE\0\0\0\0", NAS_OK),
        ROW("too large", FAKE_SYNC, "DATA\3\0\0\0abcDATA\3\0\0\0defDONE\0\0\0\0", NAS_ERR_RANGE),
        ROW("packet too large", FAKE_SYNC, "DATA\1\0\1\0", NAS_ERR_PARSE),
        ROW("absent", FAKE_SYNC, "FAIL\31\0\0\0No such file or directory", NAS_ERR_NOTFOUND),
        ROW("closed to us", FAKE_SYNC, "FAIL\21\0\0\0Permission denied", NAS_ERR_DEVICE),
        ROW("another answer", FAKE_SYNC, "OKAY\0\0\0\0", NAS_ERR_PARSE),
        ROW("cut", FAKE_SYNC, "DATA\3\0\0\0ab", NAS_ERR_TIMEOUT),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {FAKE_TRANSPORT,
                                   {"sync:", rows[i].kind, rows[i].data, rows[i].len}};
        fake_server fake;
        nas_buf out = {0};
        fake_server_start(&fake, script, 2);
        if (rows[i].status == NAS_ERR_TIMEOUT) fake.adb.timeout_ms = 300;
        const nas_status status = nas_adb_pull(ctx, &fake.adb, "s", "/x", 5, &out);
        fake_server_stop(&fake);
        nas_buf_deinit(&fake.seen);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        if (status == NAS_OK) cr_assert(eq(str, out.data, "abcde"));
        nas_buf_deinit(&out);
    }
}

Test(adb_sync, a_file_that_is_not_there_has_mode_0) {
    const fake_row rows[] = {FAKE_TRANSPORT,
                             FAKE("sync:", FAKE_SYNC, "STAT\0\0\0\0\0\0\0\0\0\0\0\0")};
    fake_server fake;
    uint32_t mode = 1, size = 1;
    fake_server_start(&fake, rows, 2);
    const nas_status status = nas_adb_stat(ctx, &fake.adb, "s", "/x", &mode, &size);
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(mode == 0 && size == 0);
}

Test(adb_sync, paths_are_bounded) {
    char path[2000];
    nas__adb_link link = {.fd = -1, .who = "s", .end_ns = nas_now_ns() + 1000000};
    uint32_t mode, size;
    memset(path, 'x', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    cr_assert(eq(int, (int)nas__adb_sync_stat(ctx, &link, path, &mode, &size), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas__adb_sync_stat(ctx, &link, "", &mode, &size), (int)NAS_ERR_RANGE));
}
