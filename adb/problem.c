/* problem.c - one message for each thing that is wrong with a phone, and how its signs are recognized. */
#include "adb/adb_internal.h"

#include <stdio.h>
#include <string.h>

static const struct {
    nas_status status;
    const char *what, *todo;
} problems[] = {
#define NAS_ADB_PROBLEM(code, status, what, todo) {NAS_ERR_##status, what, todo},
#include "adb/problem.def"
#undef NAS_ADB_PROBLEM
};

/* Signs in the words of the server, of adbd and of the phone's tools; the first that fits decides. */
static const struct {
    const char *sign;
    nas__adb_problem problem;
} signs[] = {
    {"still authorizing", NAS__ADB_CONNECTING},
    {"still connecting", NAS__ADB_CONNECTING},
    {"unauthorized", NAS__ADB_UNAUTHORIZED},
    {"no permissions", NAS__ADB_NO_PERMISSIONS},
    {"insufficient permissions", NAS__ADB_NO_PERMISSIONS},
    {"offline", NAS__ADB_OFFLINE},
    {"more than one device", NAS__ADB_SEVERAL},
    {"more than one emulator", NAS__ADB_SEVERAL},
    {"no devices", NAS__ADB_NONE},
    {"no emulators", NAS__ADB_NONE},
    {"device not found", NAS__ADB_ABSENT},
    {"' not found", NAS__ADB_ABSENT},
    {"No space left", NAS__ADB_NO_SPACE},
    {"Disk quota exceeded", NAS__ADB_NO_SPACE},
    {"Read-only file system", NAS__ADB_NOT_WRITABLE},
    {"Permission denied", NAS__ADB_NOT_WRITABLE},
    {"Operation not permitted", NAS__ADB_NOT_WRITABLE},
};

nas__adb_problem nas__adb_problem_of_text(const char *text) {
    for (size_t i = 0; i < sizeof signs / sizeof signs[0]; i++) {
        if (strstr(text, signs[i].sign) != NULL) return signs[i].problem;
    }
    return NAS__ADB_PROBLEM_COUNT;
}

nas__adb_problem nas__adb_problem_of_state(nas_adb_state state) {
    switch (state) {
    case NAS_ADB_READY: return NAS__ADB_PROBLEM_COUNT;
    case NAS_ADB_OFFLINE: return NAS__ADB_OFFLINE;
    case NAS_ADB_UNAUTHORIZED: return NAS__ADB_UNAUTHORIZED;
    case NAS_ADB_CONNECTING: return NAS__ADB_CONNECTING;
    case NAS_ADB_NO_PERMISSIONS: return NAS__ADB_NO_PERMISSIONS;
    case NAS_ADB_ELSEWHERE: return NAS__ADB_ELSEWHERE;
    }
    return NAS__ADB_PROBLEM_COUNT;
}

/* What others said, on one line and without bytes that a terminal would obey. */
static void one_line(const char *text, char *out, size_t size) {
    size_t n = 0;
    for (const char *p = text; *p != '\0' && n + 1 < size; p++) {
        const unsigned char c = (unsigned char)*p;
        if (c == '\n' || c == '\r' || c == '\t') {
            if (n > 0 && out[n - 1] != ' ') out[n++] = ' ';
        } else {
            out[n++] = (char)(c < 0x20 || c == 0x7f ? '?' : c);
        }
    }
    while (n > 0 && out[n - 1] == ' ')
        n--;
    out[n] = '\0';
}

nas_status nas__adb_problem_fail(nas_ctx *ctx, nas__adb_problem problem, const char *who,
                                 const char *said) {
    char line[300];
    one_line(said, line, sizeof line);
    const bool any = line[0] != '\0';
    return nas_fail(ctx, problems[problem].status, "%s: %s%s%s%s; %s", who, problems[problem].what,
                    any ? " (" : "", line, any ? ")" : "", problems[problem].todo);
}
