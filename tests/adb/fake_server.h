/* fake_server.h - an adb server of a few lines: answers requests from a table, byte for byte, to see what the client does
 * with phones and servers that break. No adb, no phone. */
#ifndef NAS_TESTS_ADB_FAKE_SERVER_H
#define NAS_TESTS_ADB_FAKE_SERVER_H

#include "adb/adb.h"

#include <pthread.h>

typedef enum fake_kind {
    FAKE_ANSWER, /* `data`, then the next request of the same connection */
    FAKE_LAST,   /* `data`, then the connection is closed */
    FAKE_HOLD,   /* `data`, then silence until the client leaves */
    FAKE_SYNC,   /* OKAY, then `data` after a whole STAT, RECV or SEND .. DONE */
    FAKE_REFUSE  /* OKAY, then `data` at once after the path, as a full disk does */
} fake_kind;

typedef struct fake_row {
    const char *request; /* how the request begins */
    fake_kind kind;
    const char *data;
    size_t len;
} fake_row;

/* A row whose data is a string literal, NUL bytes included. */
#define FAKE(request, kind, data)                                                                  \
    { request, kind, data, sizeof(data) - 1 }
#define FAKE_TRANSPORT FAKE("host:transport:", FAKE_ANSWER, "OKAY")
#define FAKE_FEATURES FAKE("host-serial:s:features", FAKE_LAST, "OKAY0008shell_v2")

typedef struct fake_server {
    const fake_row *rows; /* the first whose request fits */
    size_t n;
    nas_buf seen; /* all requests, a line each, and "sent N" for a finished SEND of N bytes */
    nas_adb adb;  /* for the client */
    int listener;
    volatile bool stop;
    pthread_t thread;
} fake_server;

void fake_server_start(fake_server *fake, const fake_row *rows, size_t n);
void fake_server_stop(fake_server *fake); /* `seen` stays: nas_buf_deinit it */

#endif
