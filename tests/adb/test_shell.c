/* test_shell.c - commands on phones that answer well, badly, or not to the end. */
#include "adb/adb_internal.h"
#include "fake_server.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static volatile sig_atomic_t cancel;

static void setup(void) {
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
}
TestSuite(adb_shell, .init = setup, .fini = teardown, .timeout = 30);

static nas_status run(const fake_row *rows, size_t n, const char *input, int64_t timeout_ms,
                      nas_adb_result *out) {
    fake_server fake;
    fake_server_start(&fake, rows, n);
    fake.adb.timeout_ms = timeout_ms;
    const nas_status status = nas_adb_shell(ctx, &fake.adb, "s", "cmd", input,
                                            input != NULL ? strlen(input) : 0, 16, out);
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
    return status;
}

Test(adb_shell, streams_and_exit_code_arrive_apart) {
    const fake_row rows[] = {FAKE_FEATURES, FAKE_TRANSPORT,
                             FAKE("shell,v2,raw:cmd", FAKE_HOLD,
                                  "OKAY\1\3\0\0\0out\2\3\0\0\0err\1\1\0\0\0!\3\1\0\0\0\7")};
    nas_adb_result r = {0};
    cr_assert(eq(int, (int)run(rows, 3, "some input", 10000, &r), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, r.exit_code, 7));
    cr_assert(eq(str, r.out.data, "out!"));
    cr_assert(eq(str, r.err.data, "err"));
    cr_assert(not(r.cut));
    nas_adb_result_deinit(&r);
}

Test(adb_shell, output_beyond_the_limit_is_dropped_and_said_so) {
    const fake_row rows[] = {FAKE_FEATURES, FAKE_TRANSPORT,
                             FAKE("shell,v2,raw:cmd", FAKE_HOLD,
                                  "OKAY\1\24\0\0\0"
                                  "01234567890123456789\3\1\0\0\0\0")};
    nas_adb_result r = {0};
    cr_assert(eq(int, (int)run(rows, 3, NULL, 10000, &r), NAS_OK));
    cr_assert(eq(str, r.out.data, "0123456789012345"));
    cr_assert(r.cut && r.exit_code == 0);
    nas_adb_result_deinit(&r);
}

Test(adb_shell, without_an_exit_frame_nothing_succeeded) {
    static const struct {
        const char *name, *data;
        size_t len;
        fake_kind kind;
        nas_status status;
    } rows[] = {
#define ROW(name, kind, data, status) {name, data, sizeof(data) - 1, kind, status}
        ROW("unplugged after the output", FAKE_LAST, "OKAY\1\2\0\0\0ok", NAS_ERR_NET),
        ROW("unplugged at once", FAKE_LAST, "OKAY", NAS_ERR_NET),
        ROW("cut head", FAKE_LAST, "OKAY\1\2", NAS_ERR_NET),
        ROW("cut data", FAKE_LAST, "OKAY\1\2\0\0\0o", NAS_ERR_NET),
        ROW("cut exit frame", FAKE_LAST, "OKAY\3\1\0\0\0", NAS_ERR_NET),
        ROW("refused", FAKE_LAST, "FAIL0006closed", NAS_ERR_NET),
        ROW("frame of 4 GB", FAKE_HOLD, "OKAY\1\377\377\377\377", NAS_ERR_PARSE),
        ROW("exit code of two bytes", FAKE_HOLD, "OKAY\3\2\0\0\0\0\0", NAS_ERR_PARSE),
        ROW("exit code of none", FAKE_HOLD, "OKAY\3\0\0\0\0", NAS_ERR_PARSE),
        ROW("no answer", FAKE_HOLD, "", NAS_ERR_TIMEOUT),
        ROW("hangs", FAKE_HOLD, "OKAY\1\1\0\0\0x", NAS_ERR_TIMEOUT),
        ROW("no adb server", FAKE_HOLD, "SSH-2.0", NAS_ERR_DEVICE),
        ROW("unknown frames, then the exit", FAKE_HOLD, "OKAY\5\1\0\0\0x\3\1\0\0\0\0", NAS_OK),
    };
    const long before = nas_mem_live();
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {FAKE_FEATURES,
                                   FAKE_TRANSPORT,
                                   {"shell,v2,raw:cmd", rows[i].kind, rows[i].data, rows[i].len}};
        nas_adb_result r = {0};
        const bool slow = rows[i].status == NAS_ERR_TIMEOUT;
        const nas_status status = run(script, 3, NULL, slow ? 200 : 10000, &r);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        nas_adb_result_deinit(&r);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before), "%s", rows[i].name);
    }
}

Test(adb_shell, a_cancel_ends_a_hanging_command) {
    const fake_row rows[] = {FAKE_FEATURES, FAKE_TRANSPORT,
                             FAKE("shell,v2,raw:cmd", FAKE_HOLD, "OKAY")};
    nas_adb_result r = {0};
    cancel = 1;
    nas_ctx_set_cancel(ctx, &cancel);
    cr_assert(eq(int, (int)run(rows, 3, NULL, 10000, &r), (int)NAS_ERR_CANCELLED));
}

Test(adb_shell, too_much_to_send_is_refused_before_anything_is_sent) {
    nas_adb adb = {.port = 9, .program = "adb", .timeout_ms = 100};
    static char big[70000];
    nas_adb_result r = {0};
    memset(big, 'x', sizeof big - 1);
    cr_assert(eq(int, (int)nas_adb_shell(ctx, &adb, "s", big, NULL, 0, 1, &r), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_adb_shell(ctx, &adb, "s", "", NULL, 0, 1, &r), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_adb_shell(ctx, &adb, "s", "cat", big, sizeof big, 1, &r),
                 (int)NAS_ERR_RANGE));
}

/* ---- before Android 7 ------------------------------------------------------------------------------------------------ */

Test(adb_shell, phones_without_the_newer_shell_echo_their_status) {
    static const struct {
        const char *name, *data, *out;
        nas_status status;
        int code;
    } rows[] = {
        {"good", "hello\r\n\r\nMARK:0\r\n", "hello", NAS_OK, 0},
        {"failed", "no such file\n\nMARK:1\n", "no such file", NAS_OK, 1},
        {"silent", "\nMARK:0\n", "", NAS_OK, 0},
        {"cut", "hello\n\nMAR", NULL, NAS_ERR_NET, 0},
        {"code cut", "hello\n\nMARK:", NULL, NAS_ERR_NET, 0},
        {"nothing", "", NULL, NAS_ERR_NET, 0},
        {"no code", "hello\n\nMARK:x\n", NULL, NAS_ERR_NET, 0},
        {"code too large", "hello\n\nMARK:256\n", NULL, NAS_ERR_NET, 0},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {{"go", FAKE_LAST, rows[i].data, strlen(rows[i].data)}};
        fake_server fake;
        nas__adb_link link = {.fd = -1};
        nas_adb_result r = {0};
        fake_server_start(&fake, script, 1);
        cr_assert(eq(int, (int)nas__adb_dial(ctx, &fake.adb, "s", &link), NAS_OK));
        cr_assert(eq(int, (int)nas__adb_write(ctx, &link, "0002go", 6, NULL), NAS_OK));
        const nas_status status = nas__adb_shell_plain(ctx, &link, "MARK", 100, &r);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        if (status == NAS_OK) {
            cr_assert(eq(str, r.out.data, (char *)(uintptr_t)rows[i].out), "%s", rows[i].name);
            cr_assert(eq(int, r.exit_code, rows[i].code), "%s", rows[i].name);
        }
        nas_adb_result_deinit(&r);
        nas__adb_close(&link);
        fake_server_stop(&fake);
        nas_buf_deinit(&fake.seen);
    }
}

Test(adb_shell, the_older_shell_takes_no_input) {
    const fake_row rows[] = {FAKE("host-serial:s:features", FAKE_LAST, "OKAY0003cmd")};
    nas_adb_result r = {0};
    cr_assert(eq(int, (int)run(rows, 1, "input", 10000, &r), (int)NAS_ERR_UNSUPPORTED));
}
