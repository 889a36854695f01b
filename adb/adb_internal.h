/* adb_internal.h - parts of the adb client.
 *
 *   connection.c  one socket: deadline, cancel, requests     shell.c    commands and their frames
 *   server.c      start, list, find, wait                    sync.c     files
 *   problem.c     what went wrong, and what to do            forward.c  ports
 *   phone.c       the agent on a phone: deployed, found, ended
 *   phone_link.c  signed questions to that agent */
#ifndef NAS_ADB_ADB_INTERNAL_H
#define NAS_ADB_ADB_INTERNAL_H

#include "adb/adb.h"

enum {
    NAS__ADB_REQUEST_MAX = 4600,      /* text of one request */
    NAS__ADB_TEXT_MAX = 64 * 1024,    /* 4 hex digits cannot say more */
    NAS__ADB_FRAME_MAX = 1024 * 1024, /* data of one shell frame */
    NAS__ADB_SYNC_MAX = 64 * 1024,    /* data of one sync packet */
    NAS__ADB_PATH_MAX = 1024
};

/* ---- problem.c ---- */

typedef enum nas__adb_problem {
#define NAS_ADB_PROBLEM(code, status, what, todo) NAS__ADB_##code,
#include "adb/problem.def"
#undef NAS_ADB_PROBLEM
    NAS__ADB_PROBLEM_COUNT
} nas__adb_problem;

/* nas__adb_problem_fail - records the message of the table; `who` is a serial or "adb", `said` may be "". */
nas_status nas__adb_problem_fail(nas_ctx *ctx, nas__adb_problem problem, const char *who,
                                 const char *said);
/* nas__adb_problem_of_text - which one a FAIL text, or the text of a tool on the phone, means; COUNT when none. */
nas__adb_problem nas__adb_problem_of_text(const char *text);
nas__adb_problem nas__adb_problem_of_state(nas_adb_state state); /* COUNT for READY */

/* ---- connection.c ---- */

typedef struct nas__adb_link {
    int fd;
    int64_t end_ns;  /* of the whole call */
    const char *who; /* serial, or "adb" for the server itself */
} nas__adb_link;

/* nas__adb_connect - to the server. NOTFOUND when nobody listens; the caller knows what that means. */
nas_status nas__adb_connect(nas_ctx *ctx, const nas_adb *adb, const char *who, nas__adb_link *out);
/* nas__adb_dial - the same where a server was there a moment ago: NET when nobody listens. */
nas_status nas__adb_dial(nas_ctx *ctx, const nas_adb *adb, const char *who, nas__adb_link *out);
void nas__adb_close(nas__adb_link *link);
/* nas__adb_read - exactly len bytes. nas__adb_read_some - at least one, or *n = 0 at the end of the stream. */
nas_status nas__adb_read(nas_ctx *ctx, nas__adb_link *link, void *data, size_t len);
nas_status nas__adb_read_some(nas_ctx *ctx, nas__adb_link *link, void *data, size_t cap, size_t *n);
/* nas__adb_write - *answered becomes true, and the rest stays unsent, when the other side speaks or leaves before all
 * was sent; NULL: write on. */
nas_status nas__adb_write(nas_ctx *ctx, nas__adb_link *link, const void *data, size_t len,
                          bool *answered);
/* nas__adb_request - sends "LLLLtext" and reads OKAY; FAIL gives its problem. */
nas_status nas__adb_request(nas_ctx *ctx, nas__adb_link *link, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
nas_status nas__adb_okay(nas_ctx *ctx, nas__adb_link *link);               /* reads OKAY or FAIL */
nas_status nas__adb_text(nas_ctx *ctx, nas__adb_link *link, nas_buf *out); /* 4 hex + text */
/* nas__adb_service - a fresh connection, host:transport:SERIAL, then the service. */
nas_status nas__adb_service(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                            const char *service, nas__adb_link *out);
uint32_t nas__adb_u32(const uint8_t bytes[4]);

/* ---- server.c ---- */

/* nas__adb_devices_parse - the text of host:devices-l or host:devices; pure. */
size_t nas__adb_devices_parse(const char *text, size_t len, nas_adb_device *out, size_t max);
/* nas__adb_pick - the rule of nas_adb_find over a list. */
nas_status nas__adb_pick(nas_ctx *ctx, const nas_adb_device *list, size_t n, const char *serial,
                         nas_adb_device *out);
/* nas__adb_feature - is `name` one of the comma-separated list? */
bool nas__adb_feature(const char *list, const char *name);

/* ---- forward.c ---- */

/* nas__adb_forward_line - finds "serial tcp:PORT localabstract:NAME" among lines; pure. */
bool nas__adb_forward_line(const char *text, const char *serial, const char *name, int *port);

/* ---- shell.c, sync.c: conversations on an open service ---- */

nas_status nas__adb_shell_frames(nas_ctx *ctx, nas__adb_link *link, const void *input, size_t len,
                                 size_t max_output, nas_adb_result *out);
/* nas__adb_shell_plain - before Android 7: output ends with "\n<mark>:<exit code>". */
nas_status nas__adb_shell_plain(nas_ctx *ctx, nas__adb_link *link, const char *mark,
                                size_t max_output, nas_adb_result *out);
nas_status nas__adb_sync_send(nas_ctx *ctx, nas__adb_link *link, const void *data, size_t len,
                              const char *path, unsigned mode);
nas_status nas__adb_sync_recv(nas_ctx *ctx, nas__adb_link *link, const char *path, size_t max,
                              nas_buf *out);
nas_status nas__adb_sync_stat(nas_ctx *ctx, nas__adb_link *link, const char *path, uint32_t *mode,
                              uint32_t *size);

#endif
