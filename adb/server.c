/* server.c - is a server there, which phones does it know, and when is one usable again. */
#include "adb/adb_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_PORT = 5037, TIMEOUT_MS = 20 * 1000, START_MS = 20 * 1000 };
enum { VERSION_MIN = 36 }; /* the first that lists features, so that shell,v2 can be asked for */

nas_status nas_adb_default(nas_ctx *ctx, nas_adb *out) {
    const char *text = getenv("ANDROID_ADB_SERVER_PORT");
    int64_t port = DEFAULT_PORT;
    if (text != NULL && text[0] != '\0') {
        const nas_status status =
            nas_parse_i64(ctx, "ANDROID_ADB_SERVER_PORT", text, 1, 65535, &port);
        if (status != NAS_OK) return NAS_ERR_INVALID; /* the message names variable and range */
    }
    *out = (nas_adb){.port = (int)port, .program = "adb", .timeout_ms = TIMEOUT_MS};
    return NAS_OK;
}

/* ---- start ------------------------------------------------------------------------------------------------------ */

static nas_status check_version(nas_ctx *ctx, const nas_adb *adb, nas__adb_link *link) {
    nas_buf text = {0};
    uint8_t raw[2];
    char said[48];
    nas_status status = nas__adb_request(ctx, link, "host:version");
    if (status == NAS_OK) status = nas__adb_text(ctx, link, &text);
    if (status == NAS_ERR_NET || status == NAS_ERR_PARSE || status == NAS_ERR_TIMEOUT ||
        (status == NAS_OK && (text.len != 4 || !nas_unhex(text.data, sizeof raw, raw)))) {
        (void)snprintf(said, sizeof said, "127.0.0.1:%d", adb->port);
        status = nas__adb_problem_fail(ctx, NAS__ADB_SERVER_FOREIGN, "adb", said);
    }
    nas_buf_deinit(&text);
    if (status != NAS_OK) return status;
    const int version = raw[0] << 8 | raw[1];
    if (version >= VERSION_MIN) return NAS_OK;
    (void)snprintf(said, sizeof said, "1.0.%d, need 1.0.%d", version, (int)VERSION_MIN);
    return nas__adb_problem_fail(ctx, NAS__ADB_SERVER_VERSION, "adb", said);
}

static nas_status run_start_server(nas_ctx *ctx, const nas_adb *adb) {
    char port[16];
    (void)snprintf(port, sizeof port, "%d", adb->port);
    const char *const argv[] = {adb->program, "-P", port, "start-server", NULL};
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = argv;
    o.timeout_ms = START_MS;
    nas_status status = nas_process_run(ctx, &o, &r);
    if (status == NAS_ERR_NOTFOUND)
        return nas__adb_problem_fail(ctx, NAS__ADB_NOT_INSTALLED, "adb", "");
    if (status == NAS_ERR_CANCELLED) return status;
    if (status != NAS_OK)
        return nas__adb_problem_fail(ctx, NAS__ADB_SERVER_START, "adb", nas_ctx_message(ctx));
    if (r.exit_code != 0) {
        status = nas__adb_problem_fail(ctx, NAS__ADB_SERVER_START, "adb",
                                       r.err.len > 0 ? r.err.data : "");
    }
    nas_process_result_deinit(&r);
    return status;
}

nas_status nas_adb_start(nas_ctx *ctx, const nas_adb *adb) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_connect(ctx, adb, "adb", &link);
    if (status == NAS_ERR_NOTFOUND) {
        status = run_start_server(ctx, adb);
        if (status == NAS_OK) status = nas__adb_connect(ctx, adb, "adb", &link);
        if (status == NAS_ERR_NOTFOUND)
            status = nas__adb_problem_fail(ctx, NAS__ADB_SERVER_START, "adb", "nobody listens");
    }
    if (status == NAS_OK) status = check_version(ctx, adb, &link);
    nas__adb_close(&link);
    return status;
}

/* ---- phones ------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *text;
    nas_adb_state state;
} states[] = {{"device", NAS_ADB_READY},
              {"offline", NAS_ADB_OFFLINE},
              {"unauthorized", NAS_ADB_UNAUTHORIZED},
              {"authorizing", NAS_ADB_CONNECTING},
              {"connecting", NAS_ADB_CONNECTING},
              {"no permissions", NAS_ADB_NO_PERMISSIONS},
              {"recovery", NAS_ADB_ELSEWHERE},
              {"rescue", NAS_ADB_ELSEWHERE},
              {"sideload", NAS_ADB_ELSEWHERE},
              {"bootloader", NAS_ADB_ELSEWHERE},
              {"host", NAS_ADB_ELSEWHERE},
              {"detached", NAS_ADB_OFFLINE},
              {"unknown", NAS_ADB_OFFLINE}};

static bool plain(const char *text, size_t len) {
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] <= ' ' || (unsigned char)text[i] >= 0x7f) return false;
    }
    return len > 0;
}

static bool parse_line(const char *line, size_t len, nas_adb_device *out) {
    char text[512];
    if (len >= sizeof text || memchr(line, '\0', len) != NULL) return false;
    memcpy(text, line, len);
    text[len] = '\0';
    const size_t serial = strcspn(text, " \t");
    if (serial >= sizeof out->serial || !plain(text, serial)) return false;
    const char *state = text + serial + strspn(text + serial, " \t");
    for (size_t i = 0; i < sizeof states / sizeof states[0]; i++) {
        const size_t n = strlen(states[i].text);
        if (strncmp(state, states[i].text, n) != 0 ||
            (state[n] != '\0' && state[n] != ' ' && state[n] != ';'))
            continue;
        *out = (nas_adb_device){.state = states[i].state};
        memcpy(out->serial, text, serial);
        (void)snprintf(out->state_text, sizeof out->state_text, "%s", states[i].text);
        const char *model = strstr(state, " model:");
        if (model != NULL)
            (void)snprintf(out->model, sizeof out->model, "%.*s", (int)strcspn(model + 7, " "),
                           model + 7);
        return true;
    }
    return false;
}

size_t nas__adb_devices_parse(const char *text, size_t len, nas_adb_device *out, size_t max) {
    size_t n = 0;
    while (len > 0 && n < max) {
        const char *end = memchr(text, '\n', len);
        const size_t line = end != NULL ? (size_t)(end - text) : len;
        n += parse_line(text, line, &out[n]);
        const size_t used = line + (end != NULL);
        text += used;
        len -= used;
    }
    return n;
}

nas_status nas_adb_devices(nas_ctx *ctx, const nas_adb *adb, nas_adb_device *out, size_t max,
                           size_t *n) {
    nas__adb_link link = {.fd = -1};
    nas_buf text = {0};
    nas_status status = nas__adb_dial(ctx, adb, "adb", &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host:devices-l");
    if (status == NAS_OK) status = nas__adb_text(ctx, &link, &text);
    if (status == NAS_OK) *n = nas__adb_devices_parse(text.data, text.len, out, max);
    nas__adb_close(&link);
    nas_buf_deinit(&text);
    return status;
}

static nas_status several(nas_ctx *ctx, const nas_adb_device *list, size_t n) {
    nas_buf names = {0};
    for (size_t i = 0; i < n; i++)
        nas_buf_printf(&names, "%s%s", i > 0 ? ", " : "", list[i].serial);
    const nas_status status =
        nas__adb_problem_fail(ctx, NAS__ADB_SEVERAL, "adb", names.data != NULL ? names.data : "");
    nas_buf_deinit(&names);
    return status;
}

nas_status nas__adb_pick(nas_ctx *ctx, const nas_adb_device *list, size_t n, const char *serial,
                         nas_adb_device *out) {
    const nas_adb_device *found = serial[0] == '\0' && n == 1 ? &list[0] : NULL;
    for (size_t i = 0; i < n && serial[0] != '\0'; i++) {
        if (strcmp(list[i].serial, serial) == 0) found = &list[i];
    }
    if (serial[0] == '\0' && n > 1) return several(ctx, list, n);
    if (found == NULL)
        return nas__adb_problem_fail(ctx, serial[0] == '\0' ? NAS__ADB_NONE : NAS__ADB_ABSENT,
                                     serial[0] == '\0' ? "adb" : serial, "");
    const nas__adb_problem problem = nas__adb_problem_of_state(found->state);
    if (problem != NAS__ADB_PROBLEM_COUNT)
        return nas__adb_problem_fail(ctx, problem, found->serial, found->state_text);
    *out = *found;
    return NAS_OK;
}

nas_status nas_adb_find(nas_ctx *ctx, const nas_adb *adb, const char *serial, nas_adb_device *out) {
    nas_adb_device list[NAS_ADB_DEVICES_MAX];
    size_t n = 0;
    const nas_status status = nas_adb_devices(ctx, adb, list, NAS_ADB_DEVICES_MAX, &n);
    return status == NAS_OK ? nas__adb_pick(ctx, list, n, serial, out) : status;
}

nas_status nas_adb_wait(nas_ctx *ctx, const nas_adb *adb, const char *serial, int64_t deadline_ms) {
    nas_adb patient = *adb;
    nas__adb_link link = {.fd = -1};
    patient.timeout_ms = deadline_ms > 0 ? deadline_ms : 1;
    nas_status status = nas__adb_dial(ctx, &patient, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host:track-devices");
    for (bool ready = false; status == NAS_OK && !ready;) {
        nas_adb_device list[NAS_ADB_DEVICES_MAX];
        nas_buf text = {0};
        status = nas__adb_text(ctx, &link, &text);
        const size_t n = status == NAS_OK ? nas__adb_devices_parse(text.data, text.len, list,
                                                                   NAS_ADB_DEVICES_MAX)
                                          : 0;
        for (size_t i = 0; i < n; i++)
            ready |= strcmp(list[i].serial, serial) == 0 && list[i].state == NAS_ADB_READY;
        nas_buf_deinit(&text);
    }
    nas__adb_close(&link);
    return status;
}

bool nas__adb_feature(const char *list, const char *name) {
    const size_t len = strlen(name);
    for (const char *p = list; *p != '\0';) {
        const size_t n = strcspn(p, ",");
        if (n == len && memcmp(p, name, n) == 0) return true;
        p += n + (p[n] == ',');
    }
    return false;
}
