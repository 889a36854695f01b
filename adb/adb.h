/* adb.h - Android phones through the user's adb server: its local socket protocol, spoken from C.
 *
 * The adb program is run for one purpose, `adb start-server` when no server listens; the server is never ended. What the
 * command line hides is seen here: a command succeeded only when its exit frame arrived, a file only when the phone
 * said OKAY, and a phone that goes away in the middle is NET, never a success.
 *
 * Server protocol (127.0.0.1:port): request = 4 hex digits of length, text. Answer OKAY, or FAIL + 4 hex + text.
 *   host:version, host:devices-l, host:track-devices          4 hex + text after OKAY, the last one again and again
 *   host-serial:S:features                                     4 hex + text
 *   host-serial:S:forward:tcp:0;localabstract:NAME             OKAY OKAY 4 hex + port
 *   host:transport:S, then on the same socket one service:     shell,v2,raw:CMD   shell:CMD   sync:   localabstract:NAME
 * shell,v2 frames: id u8, length u32 little endian, data; 0 stdin, 1 stdout, 2 stderr, 3 exit (one byte), 4 close stdin.
 * sync packets: 4 letters, u32 little endian, data: STAT, SEND DATA* DONE -> OKAY | FAIL, RECV -> DATA* DONE | FAIL.
 *
 * Every call has a deadline, looks at the cancel flag every 50 ms and compares each length with its limit before it
 * reads. Statuses: NET (lost: unplugged, offline, rebooting; later it may work), DEVICE (a person has to act; the
 * message says what to do on the phone or here), TIMEOUT, CANCELLED, PARSE (the server broke the protocol).
 * Layer 1: includes core and device-agent/protocol.h. */
#ifndef NAS_ADB_ADB_H
#define NAS_ADB_ADB_H

#include "core/core.h"

/* ---- the server ------------------------------------------------------------------------------------------------ */

typedef struct nas_adb {
    int port;            /* of the server on 127.0.0.1 */
    const char *program; /* "adb", looked up in PATH */
    int64_t timeout_ms;  /* of one call, > 0 */
} nas_adb;

/* nas_adb_default - port from $ANDROID_ADB_SERVER_PORT (5037 without it), 20 s. INVALID when that is no port. */
nas_status nas_adb_default(nas_ctx *ctx, nas_adb *out);
/* nas_adb_start - makes sure that a server listens and is one we can talk to. */
nas_status nas_adb_start(nas_ctx *ctx, const nas_adb *adb);

/* ---- phones ---------------------------------------------------------------------------------------------------- */

enum { NAS_ADB_SERIAL_BYTES = 64, NAS_ADB_DEVICES_MAX = 64 };

typedef enum nas_adb_state {
    NAS_ADB_READY, /* "device": usable */
    NAS_ADB_OFFLINE,
    NAS_ADB_UNAUTHORIZED,
    NAS_ADB_CONNECTING, /* also authorizing */
    NAS_ADB_NO_PERMISSIONS,
    NAS_ADB_ELSEWHERE /* recovery, sideload, bootloader, ... */
} nas_adb_state;

typedef struct nas_adb_device {
    char serial[NAS_ADB_SERIAL_BYTES];
    nas_adb_state state;
    char state_text[64]; /* as the server said it */
    char model[64];      /* "" when not told */
} nas_adb_device;

/* nas_adb_devices - all the server knows; *n <= max. Lines that are no device are left out. */
nas_status nas_adb_devices(nas_ctx *ctx, const nas_adb *adb, nas_adb_device *out, size_t max,
                           size_t *n);
/* nas_adb_find - one usable phone: the one of that serial; for "" the only one attached. The message of a failure says
 * what to do (see adb/problem.def). */
nas_status nas_adb_find(nas_ctx *ctx, const nas_adb *adb, const char *serial, nas_adb_device *out);
/* nas_adb_wait - until that phone is usable, told by the server. NET or TIMEOUT when it is not by the deadline. */
nas_status nas_adb_wait(nas_ctx *ctx, const nas_adb *adb, const char *serial, int64_t deadline_ms);

/* ---- commands and files of one phone --------------------------------------------------------------------------- */

typedef struct nas_adb_result {
    int exit_code; /* 0..255; 128 + signal when killed */
    bool cut;      /* more output came than asked for; the rest was dropped */
    nas_buf out;   /* also stderr where the phone cannot tell them apart (before Android 7) */
    nas_buf err;
} nas_adb_result;
void nas_adb_result_deinit(nas_adb_result *result);

/* nas_adb_shell - runs `command` in the phone's shell; NAS_OK for any exit code, but only when it arrived.
 * command     for the shell: quote what is not fixed text; at most 4096 bytes
 * input, len  its stdin, at most 64 KiB; NULL, 0 for none
 * max_output  bytes of each stream that are kept */
nas_status nas_adb_shell(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *command,
                         const void *input, size_t len, size_t max_output, nas_adb_result *out);
/* nas_adb_push - the file is there in full, or an error. The phone gives others the owner's rights: keep secrets below
 * a folder that is closed to them. */
nas_status nas_adb_push(nas_ctx *ctx, const nas_adb *adb, const char *serial, const void *data,
                        size_t len, const char *path, unsigned mode);
/* nas_adb_pull - RANGE when the file is larger than max; NOTFOUND. Appends to *out. */
nas_status nas_adb_pull(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *path,
                        size_t max, nas_buf *out);
/* nas_adb_stat - mode 0 when there is no such file. */
nas_status nas_adb_stat(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *path,
                        uint32_t *mode, uint32_t *size);

/* nas_adb_forward - connections to 127.0.0.1:*port reach the phone's abstract socket `name`. */
nas_status nas_adb_forward(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *name,
                           int *port);
/* nas_adb_forward_find - the port of one that is there already; NOTFOUND. */
nas_status nas_adb_forward_find(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                                const char *name, int *port);
nas_status nas_adb_forward_remove(nas_ctx *ctx, const nas_adb *adb, const char *serial, int port);

#endif
