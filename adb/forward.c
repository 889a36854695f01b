/* forward.c - ports of this machine that lead to a phone's abstract sockets. */
#include "adb/adb_internal.h"

#include <stdio.h>
#include <string.h>

/* host-serial requests answer twice: the request was understood, and it was done. */
static nas_status ask(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *what,
                      nas_buf *text) {
    nas__adb_link link = {.fd = -1};
    nas_status status = nas__adb_dial(ctx, adb, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host-serial:%s:%s", serial, what);
    if (status == NAS_OK) status = nas__adb_okay(ctx, &link);
    if (status == NAS_OK && text != NULL) status = nas__adb_text(ctx, &link, text);
    nas__adb_close(&link);
    return status;
}

nas_status nas_adb_forward(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *name,
                           int *port) {
    nas_buf what = {0}, text = {0};
    int64_t number = 0;
    nas_buf_printf(&what, "forward:tcp:0;localabstract:%s", name);
    nas_status status = nas_buf_status(ctx, &what);
    if (status == NAS_OK) status = ask(ctx, adb, serial, what.data, &text);
    if (status == NAS_OK &&
        (text.len == 0 || nas_parse_i64(NULL, "port", text.data, 1, 65535, &number) != NAS_OK)) {
        status = nas_fail(ctx, NAS_ERR_PARSE, "%s: the adb server named no port", serial);
    }
    if (status == NAS_OK) *port = (int)number;
    nas_buf_deinit(&what);
    nas_buf_deinit(&text);
    return status;
}

bool nas__adb_forward_line(const char *text, const char *serial, const char *name, int *port) {
    while (*text != '\0') {
        char who[NAS_ADB_SERIAL_BYTES], line[512], local[64], remote[256];
        const size_t n = strcspn(text, "\n");
        (void)snprintf(line, sizeof line, "%.*s", (int)n, text);
        text += n + (text[n] == '\n');
        int64_t number = 0;
        if (sscanf(line, "%63s tcp:%63s localabstract:%255s", who, local, remote) != 3) continue;
        if (strcmp(who, serial) != 0 || strcmp(remote, name) != 0 ||
            nas_parse_i64(NULL, "port", local, 1, 65535, &number) != NAS_OK) {
            continue;
        }
        *port = (int)number;
        return true;
    }
    return false;
}

nas_status nas_adb_forward_find(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                                const char *name, int *port) {
    nas__adb_link link = {.fd = -1};
    nas_buf text = {0};
    nas_status status = nas__adb_dial(ctx, adb, serial, &link);
    if (status == NAS_OK) status = nas__adb_request(ctx, &link, "host:list-forward");
    if (status == NAS_OK) status = nas__adb_text(ctx, &link, &text);
    if (status == NAS_OK &&
        !nas__adb_forward_line(text.data != NULL ? text.data : "", serial, name, port))
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: no forward to %s", serial, name);
    nas__adb_close(&link);
    nas_buf_deinit(&text);
    return status;
}

nas_status nas_adb_forward_remove(nas_ctx *ctx, const nas_adb *adb, const char *serial, int port) {
    nas_buf what = {0};
    nas_buf_printf(&what, "killforward:tcp:%d", port);
    nas_status status = nas_buf_status(ctx, &what);
    if (status == NAS_OK) status = ask(ctx, adb, serial, what.data, NULL);
    nas_buf_deinit(&what);
    return status;
}
