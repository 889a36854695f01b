/* test_problem.c - every message of adb/problem.def, reached the way a user reaches it. */
#include "adb/phone_internal.h"
#include "fake_server.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
}
TestSuite(adb_problem, .init = setup, .fini = teardown, .timeout = 60);

static const struct {
    nas_status status;
    const char *what, *todo;
} table[] = {
#define NAS_ADB_PROBLEM(code, status, what, todo) {NAS_ERR_##status, what, todo},
#include "adb/problem.def"
#undef NAS_ADB_PROBLEM
};

/* The failure has the status of the problem, says what it is and what to do, and holds `said`. */
static void shows(nas__adb_problem problem, nas_status status, const char *said) {
    const char *message = nas_ctx_message(ctx);
    cr_assert(eq(int, (int)status, (int)table[problem].status), "%s: %s", table[problem].what,
              message);
    cr_assert(ne(ptr, strstr(message, table[problem].what), NULL), "want '%s', got '%s'",
              table[problem].what, message);
    cr_assert(ne(ptr, strstr(message, table[problem].todo), NULL), "%s", message);
    cr_assert(ne(ptr, strstr(message, said), NULL), "want '%s', got '%s'", said, message);
}

static fake_server fake;

static void begin(const fake_row *rows, size_t n) {
    fake_server_start(&fake, rows, n);
}
static void end(void) {
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
}

/* ---- the server ------------------------------------------------------------------------------------------------------ */

/* A server nobody runs: its port was free a moment ago. */
static nas_adb nobody(const char *program) {
    fake_server gone;
    fake_server_start(&gone, NULL, 0);
    fake_server_stop(&gone);
    gone.adb.program = program;
    return gone.adb;
}

Test(adb_problem, adb_is_not_installed) {
    const nas_adb adb = nobody("/no/such/adb");
    shows(NAS__ADB_NOT_INSTALLED, nas_adb_start(ctx, &adb), "apt-get install adb");
}

Test(adb_problem, the_server_does_not_start) {
    const nas_adb fails = nobody("false"), pretends = nobody("true");
    shows(NAS__ADB_SERVER_START, nas_adb_start(ctx, &fails), "adb start-server");
    shows(NAS__ADB_SERVER_START, nas_adb_start(ctx, &pretends), "nobody listens");
}

Test(adb_problem, something_else_listens_on_the_port) {
    static const fake_row rows[][1] = {{FAKE("host:version", FAKE_LAST, "HTTP/1.1 400\r\n")},
                                       {FAKE("host:version", FAKE_LAST, "")},
                                       {FAKE("host:version", FAKE_LAST, "OKAY0002no")},
                                       {FAKE("host:version", FAKE_LAST, "OKAYzzzz")}};
    for (size_t i = 0; i < 4; i++) {
        begin(rows[i], 1);
        const nas_status status = nas_adb_start(ctx, &fake.adb);
        end();
        shows(NAS__ADB_SERVER_FOREIGN, status, "ANDROID_ADB_SERVER_PORT");
    }
}

Test(adb_problem, the_server_is_too_old) {
    static const fake_row rows[] = {FAKE("host:version", FAKE_LAST, "OKAY0004001f")};
    begin(rows, 1);
    const nas_status status = nas_adb_start(ctx, &fake.adb);
    end();
    shows(NAS__ADB_SERVER_VERSION, status, "1.0.31");
}

/* ---- finding a phone --------------------------------------------------------------------------------------------------- */

Test(adb_problem, phones_that_cannot_be_used_say_why) {
    static const struct {
        const char *list, *serial, *said;
        nas__adb_problem problem;
    } rows[] = {
        {"", "", "USB debugging", NAS__ADB_NONE},
        {"t device\n", "s", "s: ", NAS__ADB_ABSENT},
        {"s device\nt device\n", "", "s, t", NAS__ADB_SEVERAL},
        {"s unauthorized\n", "s", "unlock its screen", NAS__ADB_UNAUTHORIZED},
        {"s unauthorized\n", "", "unlock its screen", NAS__ADB_UNAUTHORIZED},
        {"s authorizing\n", "s", "authorizing", NAS__ADB_CONNECTING},
        {"s connecting\n", "s", "connecting", NAS__ADB_CONNECTING},
        {"s no permissions; see [http]\n", "s", "udev", NAS__ADB_NO_PERMISSIONS},
        {"s offline\nt device\n", "s", "offline", NAS__ADB_OFFLINE},
        {"s recovery\n", "s", "recovery", NAS__ADB_ELSEWHERE},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char data[200];
        nas_adb_device device;
        const int n =
            snprintf(data, sizeof data, "OKAY%04zx%s", strlen(rows[i].list), rows[i].list);
        const fake_row script[] = {{"host:devices-l", FAKE_LAST, data, (size_t)n}};
        begin(script, 1);
        const nas_status status = nas_adb_find(ctx, &fake.adb, rows[i].serial, &device);
        end();
        shows(rows[i].problem, status, rows[i].said);
    }
}

Test(adb_problem, the_same_from_the_server_in_the_middle_of_things) {
    static const struct {
        const char *text;
        nas__adb_problem problem;
    } rows[] = {
        {"device 's' not found", NAS__ADB_ABSENT},
        {"device offline", NAS__ADB_OFFLINE},
        {"device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set",
         NAS__ADB_UNAUTHORIZED},
        {"device still authorizing", NAS__ADB_CONNECTING},
        {"device still connecting", NAS__ADB_CONNECTING},
        {"insufficient permissions for device", NAS__ADB_NO_PERMISSIONS},
        {"no devices/emulators found", NAS__ADB_NONE},
        {"more than one device/emulator", NAS__ADB_SEVERAL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char data[200];
        nas_adb_result r = {0};
        const int n =
            snprintf(data, sizeof data, "FAIL%04zx%s", strlen(rows[i].text), rows[i].text);
        const fake_row script[] = {FAKE_FEATURES, {"host:transport:s", FAKE_LAST, data, (size_t)n}};
        begin(script, 2);
        const nas_status status = nas_adb_shell(ctx, &fake.adb, "s", "true", NULL, 0, 10, &r);
        end();
        shows(rows[i].problem, status, "s: ");
    }
}

Test(adb_problem, the_phone_goes_away_in_the_middle) {
    static const fake_row rows[] = {FAKE_FEATURES, FAKE_TRANSPORT,
                                    FAKE("shell,v2,raw:", FAKE_LAST, "OKAY\1\1\0\0\0x")};
    nas_adb_result r = {0};
    begin(rows, 3);
    const nas_status status = nas_adb_shell(ctx, &fake.adb, "s", "true", NULL, 0, 10, &r);
    end();
    shows(NAS__ADB_GONE, status, "cable");
}

/* ---- files and programs -------------------------------------------------------------------------------------------------- */

static nas_status push(const char *text) {
    char data[200];
    memcpy(data, "FAIL", 4);
    memcpy(data + 4, (const char[]){(char)strlen(text), 0, 0, 0}, 4);
    memcpy(data + 8, text, strlen(text));
    const fake_row rows[] = {FAKE_TRANSPORT, {"sync:", FAKE_SYNC, data, 8 + strlen(text)}};
    begin(rows, 2);
    const nas_status status = nas_adb_push(ctx, &fake.adb, "s", "x", 1, "/data/x", 0700);
    end();
    return status;
}

Test(adb_problem, the_storage_is_full) {
    shows(NAS__ADB_NO_SPACE, push("couldn't create file: No space left on device"), "/data/x");
}

Test(adb_problem, the_folder_cannot_be_written) {
    shows(NAS__ADB_NOT_WRITABLE, push("couldn't create file: Permission denied"), "/data/x");
    shows(NAS__ADB_NOT_WRITABLE, push("secure_mkdirs failed: Read-only file system"), "/data/x");
}

/* What a command that failed on the phone means; `mounts` is the phone's /proc/mounts. */
static nas_status failed(const char *what, int code, const char *err, const char *mounts) {
    char data[600] = "OKAY\1";
    const size_t n = strlen(mounts);
    memcpy(data + 5, (const char[]){(char)(n & 255), (char)(n >> 8), 0, 0}, 4);
    memcpy(data + 9, mounts, n);
    memcpy(data + 9 + n, "\3\1\0\0\0\0", 6);
    const fake_row rows[] = {
        FAKE_FEATURES, FAKE_TRANSPORT, {"shell,v2,raw:cat /proc/mounts", FAKE_HOLD, data, 15 + n}};
    nas_adb_result r = {.exit_code = code};
    nas_buf_puts(&r.err, err);
    begin(rows, 3);
    const nas_status status = nas__phone_shell_failed(ctx, &fake.adb, "s", what, &r);
    end();
    nas_adb_result_deinit(&r);
    return status;
}

static const char mounts[] = "/dev/a / ext4 ro,noexec 0 0\n/dev/b /data f2fs rw,nosuid 0 0\n"
                             "tmpfs /data/local/tmporary tmpfs rw,noexec 0 0\n";
static const char mounts_noexec[] =
    "/dev/a / ext4 ro 0 0\n/dev/b /data f2fs rw,nosuid,noexec 0 0\n";

Test(adb_problem, programs_may_not_be_executed_there) {
    shows(NAS__ADB_NOEXEC,
          failed("start", 126, "sh: ./nas-agent: can't execute: Permission denied", mounts_noexec),
          "exit code 126");
}

Test(adb_problem, selinux_refuses_the_agent) {
    shows(NAS__ADB_SELINUX,
          failed("start", 126, "sh: ./nas-agent: can't execute: Permission denied", mounts),
          "avc: denied");
}

Test(adb_problem, the_processor_is_not_what_the_phone_says) {
    shows(NAS__ADB_WRONG_ABI,
          failed("start", 126, "sh: ./nas-agent: not executable: 64-bit ELF file", mounts),
          "not executable");
    shows(NAS__ADB_WRONG_ABI, failed("start", 127, "sh: ./nas-agent: not found", mounts), "127");
}

Test(adb_problem, the_agent_does_not_start) {
    shows(NAS__ADB_START_FAILED, failed("start", 4, "nas-agent: no memory", mounts), "no memory");
    shows(NAS__ADB_NO_SPACE, failed("start", 4, "agent.log: No space left on device", mounts),
          "rm -r");
}

Test(adb_problem, no_agent_for_the_processor) {
    static const fake_row rows[] = {
        FAKE_FEATURES, FAKE_TRANSPORT,
        FAKE("shell,v2,raw:getprop", FAKE_HOLD, "OKAY\1\20\0\0\0mips\nmips\nOld\n..\3\1\0\0\0\0")};
    nas_phone phone = {.serial = "s"};
    begin(rows, 3);
    const nas_status status = nas__phone_identify(ctx, &fake.adb, &phone);
    end();
    shows(NAS__ADB_UNKNOWN_ABI, status, "mips");
}

Test(adb_problem, the_agent_is_not_built) {
    const nas_phone phone = {.serial = "s", .arch = "aarch64"};
    nas__phone_program program;
    shows(NAS__ADB_NO_AGENT, nas__phone_program_read(ctx, "/no/such", &phone, &program),
          "/no/such/nas-agent-aarch64");
}

Test(adb_problem, what_arrives_is_not_what_was_sent) {
    static const fake_row rows[] = {
        FAKE_FEATURES, FAKE_TRANSPORT, FAKE("sync:", FAKE_SYNC, "OKAY\0\0\0\0"),
        FAKE("shell,v2,raw:sha256sum", FAKE_HOLD,
             "OKAY\1\102\0\0\0"
             "0000000000000000000000000000000000000000000000000000000000000000 x"
             "\3\1\0\0\0\0"),
        FAKE("shell,v2,raw:", FAKE_HOLD, "OKAY\3\1\0\0\0\0")};
    nas__phone_program program = {.sha256 = "11"};
    nas_buf_puts(&program.bytes, "program");
    begin(rows, 5);
    const nas_status status = nas__phone_send(ctx, &fake.adb, "s", &program);
    cr_assert(
        eq(ptr, strstr(fake.seen.data, "mv -f"), NULL)); /* it does not replace the good one */
    end();
    nas_buf_deinit(&program.bytes);
    shows(NAS__ADB_DAMAGED, status, "0000000000000000");
}

/* ---- the agent there ---------------------------------------------------------------------------------------------------- */

Test(adb_problem, another_controller_is_named) {
    const nas__phone_found found = {
        .agent = NAS_PHONE_AGENT_RUNS, .holder = "ann/lab3/77", .lease_left_ms = 41500};
    cr_assert(nas__phone_held(&found)); /* of another machine: nobody here can say that it ended */
    shows(NAS__ADB_HELD, nas__phone_refuse(ctx, "s", &found),
          "ann/lab3/77; its lease ends in 42 s");
}

Test(adb_problem, an_agent_with_another_key_is_told_from_none) {
    static const struct {
        const char *name, *data;
        nas_status status;
    } rows[] = {
        {"refuses our signature",
         "OKAYHTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n"
         "{\"nonce\":\"00112233445566778899aabbccddeeff\"}"
         "HTTP/1.1 401 X\r\nContent-Length: 2\r\n\r\n{}",
         NAS_ERR_DEVICE},
        {"no HTTP", "OKAYSSH-2.0-x\r\n\r\n", NAS_ERR_PARSE},
        {"no length", "OKAYHTTP/1.1 200 OK\r\n\r\n", NAS_ERR_PARSE},
        {"endless", "OKAYHTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n", NAS_ERR_PARSE},
        {"no nonce", "OKAYHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", NAS_ERR_PARSE},
    };
    const uint8_t key[NAS_AGENT_KEY_BYTES] = {1};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {
            FAKE_TRANSPORT, {"localabstract:", FAKE_HOLD, rows[i].data, strlen(rows[i].data)}};
        int http = 0;
        nas_buf body = {0};
        begin(script, 2);
        const nas_status status =
            nas__phone_ask(ctx, &fake.adb, "s", key, "GET", "/v1/info", &http, &body);
        end();
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        if (status == NAS_ERR_DEVICE) shows(NAS__ADB_OTHER_KEY, status, "nas-agent deploy adb:");
    }
    static const fake_row none[] = {FAKE_TRANSPORT}; /* "closed" */
    int http = 0;
    nas_buf body = {0};
    begin(none, 1);
    const nas_status status =
        nas__phone_ask(ctx, &fake.adb, "s", key, "GET", "/v1/info", &http, &body);
    end();
    cr_assert(eq(int, (int)status, (int)NAS_ERR_NOTFOUND));
}

Test(adb_problem, a_holder_of_this_machine_that_ended_holds_nothing) {
    char mine[NAS_PHONE_HOLDER_BYTES], dead[NAS_PHONE_HOLDER_BYTES + 24];
    nas_phone_holder(mine);
    cr_assert(not(nas__phone_holder_gone(mine)));
    (void)snprintf(dead, sizeof dead, "%.*s/2147483646", (int)(strrchr(mine, '/') - mine), mine);
    cr_assert(nas__phone_holder_gone(dead));
    cr_assert(not(nas__phone_holder_gone("ann/another-host/2147483646")));
    cr_assert(not(nas__phone_holder_gone("nonsense")));
    cr_assert(not(nas__phone_holder_gone("")));
    cr_assert(not(nas__phone_holder_gone("/")));
}

Test(adb_problem, processors_choose_their_agent) {
    static const struct {
        const char *abi, *arch;
    } rows[] = {{"arm64-v8a", "aarch64"},
                {"armeabi-v7a", "armv7"},
                {"x86_64", "x86_64"},
                {"riscv64", "riscv64"},
                {"x86,armeabi-v7a", "armv7"},
                {"arm64-v8a,armeabi-v7a,armeabi", "aarch64"},
                {"mips", NULL},
                {"", NULL},
                {"arm64-v8", NULL}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char arch[16] = "";
        const nas_status status = nas__phone_abi_arch(rows[i].abi, arch, sizeof arch);
        cr_assert(eq(int, status == NAS_OK, rows[i].arch != NULL), "%s", rows[i].abi);
        if (status == NAS_OK) cr_assert(eq(str, arch, (char *)(uintptr_t)rows[i].arch));
    }
}

Test(adb_problem, messages_hold_no_control_bytes_of_the_phone) {
    (void)nas__adb_problem_fail(ctx, NAS__ADB_OFFLINE, "s", "bad\x1b[2J\r\nline\n");
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "(bad?[2J line)"), NULL), "%s",
              nas_ctx_message(ctx));
}

Test(adb_problem, the_page_about_devices_lists_every_message) {
    nas_buf page = {0};
    if (nas_file_read(NULL, "docs/devices.md", 1 << 20, &page) != NAS_OK)
        cr_skip_test("docs/devices.md is not here: run it from the top of the tree");
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        cr_assert(ne(ptr, strstr(page.data, table[i].what), NULL), "%s", table[i].what);
        cr_assert(ne(ptr, strstr(page.data, table[i].todo), NULL), "%s", table[i].todo);
    }
    nas_buf_deinit(&page);
}
