/* test_server.c - which phones a server knows, when one comes back, and servers that are none. */
#include "adb/adb_internal.h"
#include "fake_server.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
}
TestSuite(adb_server, .init = setup, .fini = teardown, .timeout = 30);

Test(adb_server, the_list_of_phones_is_read_whatever_state_they_are_in) {
    static const char text[] =
        "R5CR1234               device usb:1-1 product:o1s model:SM_G991B device:o1s "
        "transport_id:1\n"
        "10.0.0.7:5555          offline product:x transport_id:2\n"
        "0123456789ABCDEF0123456789 unauthorized usb:1-2 transport_id:3\n"
        "nexus\tno permissions (user in plugdev group; are your udev rules wrong?); see "
        "[http://developer.android.com/tools/device.html] usb:1-3 transport_id:4\n"
        "booting                authorizing transport_id:5\n"
        "flashing               recovery\n"
        "odd                    weather model:none\n"
        "deviceless\n"
        "\n"
        "a                      devices";
    static const struct {
        const char *serial, *model;
        nas_adb_state state;
    } rows[] = {{"R5CR1234", "SM_G991B", NAS_ADB_READY},
                {"10.0.0.7:5555", "", NAS_ADB_OFFLINE},
                {"0123456789ABCDEF0123456789", "", NAS_ADB_UNAUTHORIZED},
                {"nexus", "", NAS_ADB_NO_PERMISSIONS},
                {"booting", "", NAS_ADB_CONNECTING},
                {"flashing", "", NAS_ADB_ELSEWHERE}};
    nas_adb_device list[8];
    cr_assert(eq(sz, nas__adb_devices_parse(text, sizeof text - 1, list, 8), (size_t)6));
    for (size_t i = 0; i < 6; i++) {
        cr_assert(eq(str, list[i].serial, (char *)(uintptr_t)rows[i].serial));
        cr_assert(eq(str, list[i].model, (char *)(uintptr_t)rows[i].model));
        cr_assert(eq(int, (int)list[i].state, (int)rows[i].state), "%s", rows[i].serial);
    }
    cr_assert(eq(sz, nas__adb_devices_parse(text, sizeof text - 1, list, 2), (size_t)2));
}

Test(adb_server, a_return_is_told_by_the_server) {
    const fake_row rows[] = {FAKE("host:track-devices", FAKE_HOLD,
                                  "OKAY0000"
                                  "000as\toffline\n"
                                  "0009t\tdevice\n"
                                  "0009s\tdevice\n")};
    fake_server fake;
    fake_server_start(&fake, rows, 1);
    const nas_status back = nas_adb_wait(ctx, &fake.adb, "s", 10000),
                     never = nas_adb_wait(ctx, &fake.adb, "u", 200);
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
    cr_assert(eq(int, (int)back, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, (int)never, (int)NAS_ERR_TIMEOUT));
    cr_assert(eq(int, (int)nas_adb_wait(ctx, &fake.adb, "s", 200), (int)NAS_ERR_NET)); /* ended */
}

Test(adb_server, a_running_server_is_used_as_it_is) {
    const fake_row rows[] = {FAKE("host:version", FAKE_LAST, "OKAY00040029")};
    fake_server fake;
    fake_server_start(&fake, rows, 1); /* its adb.program does not exist */
    const nas_status status = nas_adb_start(ctx, &fake.adb);
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
}

Test(adb_server, the_port_comes_from_the_environment_and_is_checked) {
    nas_adb adb;
    cr_assert(eq(int, setenv("ANDROID_ADB_SERVER_PORT", "5999", 1), 0));
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), NAS_OK));
    cr_assert(eq(int, adb.port, 5999));
    cr_assert(eq(int, setenv("ANDROID_ADB_SERVER_PORT", "70000", 1), 0));
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "ANDROID_ADB_SERVER_PORT"), NULL));
    cr_assert(eq(int, unsetenv("ANDROID_ADB_SERVER_PORT"), 0));
    cr_assert(eq(int, (int)nas_adb_default(ctx, &adb), NAS_OK));
    cr_assert(eq(int, adb.port, 5037));
}

Test(adb_server, a_forward_needs_both_answers_and_a_port) {
    static const struct {
        const char *name, *data;
        size_t len;
        int port;
        nas_status status;
    } rows[] = {
#define ROW(name, data, port, status) {name, data, sizeof(data) - 1, port, status}
        ROW("good", "OKAYOKAY000543811", 43811, NAS_OK),
        ROW("one answer", "OKAY", 0, NAS_ERR_NET),
        ROW("refused", "OKAYFAIL0006closed", 0, NAS_ERR_NET),
        ROW("no port", "OKAYOKAY0000", 0, NAS_ERR_PARSE),
        ROW("port too large", "OKAYOKAY000570000", 0, NAS_ERR_PARSE),
        ROW("no number", "OKAYOKAY0003abc", 0, NAS_ERR_PARSE),
        ROW("length is no hex", "OKAYOKAYxyz1", 0, NAS_ERR_PARSE),
        ROW("the phone went away", "FAIL0014device 's' not found", 0, NAS_ERR_NET),
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const fake_row script[] = {
            {"host-serial:s:forward:tcp:0;localabstract:n", FAKE_LAST, rows[i].data, rows[i].len}};
        fake_server fake;
        int port = 0;
        fake_server_start(&fake, script, 1);
        const nas_status status = nas_adb_forward(ctx, &fake.adb, "s", "n", &port);
        fake_server_stop(&fake);
        nas_buf_deinit(&fake.seen);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s: %s", rows[i].name,
                  nas_ctx_message(ctx));
        cr_assert(eq(int, port, rows[i].port), "%s", rows[i].name);
    }
}

Test(adb_server, a_forward_that_exists_is_found_by_phone_and_name) {
    static const char list[] = "OKAY005e"
                               "t tcp:1111 localabstract:n\n"
                               "s tcp:2222 localabstract:other\n"
                               "nonsense\n"
                               "s tcp:3333 localabstract:n\n";
    char data[sizeof list];
    memcpy(data, list, sizeof list);
    (void)snprintf(data + 4, 5, "%04zx", sizeof list - 1 - 8);
    data[8] = list[8];
    const fake_row rows[] = {{"host:list-forward", FAKE_LAST, data, sizeof list - 1}};
    fake_server fake;
    int port = 0;
    fake_server_start(&fake, rows, 1);
    const nas_status found = nas_adb_forward_find(ctx, &fake.adb, "s", "n", &port),
                     none = nas_adb_forward_find(ctx, &fake.adb, "u", "n", &port);
    fake_server_stop(&fake);
    nas_buf_deinit(&fake.seen);
    cr_assert(eq(int, (int)found, NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, port, 3333));
    cr_assert(eq(int, (int)none, (int)NAS_ERR_NOTFOUND));
}
