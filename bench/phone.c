/* phone.c - what talking to a phone costs: sending a file of 1 MB, one command, a look at its state. Fake phones show the
 * cost of protocol and adb, not of a USB cable:
 *     python3 tests/rig/lab.py --phone little -- build/release/bench/phone
 * Times are medians of interleaved rounds, with the least and the most. */
#include "adb/adb.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 21, FILE_BYTES = 1 << 20 };

typedef struct series {
    const char *what;
    double ms[ROUNDS];
} series;

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print(series *s) {
    qsort(s->ms, ROUNDS, sizeof *s->ms, by_value);
    printf("  %-42s %7.2f ms  (%.2f to %.2f, n=%d)\n", s->what, s->ms[ROUNDS / 2], s->ms[0],
           s->ms[ROUNDS - 1], (int)ROUNDS);
}

static nas_status one_round(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *data,
                            double *push_ms, double *shell_ms, double *find_ms) {
    nas_adb_result r = {0};
    nas_adb_device found;
    const int64_t start = nas_now_ns();
    nas_status status =
        nas_adb_push(ctx, adb, serial, data, FILE_BYTES, "/data/local/tmp/nas-bench", 0600);
    const int64_t pushed = nas_now_ns();
    if (status == NAS_OK) status = nas_adb_shell(ctx, adb, serial, "true", NULL, 0, 16, &r);
    const int64_t ran = nas_now_ns();
    if (status == NAS_OK) nas_adb_result_deinit(&r);
    if (status == NAS_OK) status = nas_adb_find(ctx, adb, serial, &found);
    *push_ms = (double)(pushed - start) * 1e-6;
    *shell_ms = (double)(ran - pushed) * 1e-6;
    *find_ms = (double)(nas_now_ns() - ran) * 1e-6;
    return status;
}

static nas_status measure(nas_ctx *ctx, const char *serial) {
    static series push = {.what = "push of 1 MB"},
                  shell = {.what = "one command, with its exit code"},
                  find = {.what = "state of a phone"};
    nas_adb adb;
    nas_adb_result r = {0};
    nas_status status = nas_adb_default(ctx, &adb);
    if (status == NAS_OK) status = nas_adb_start(ctx, &adb);
    char *data = nas_alloc_array(ctx, FILE_BYTES, 1);
    if (data == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < FILE_BYTES; i++)
        data[i] = (char)(i * 2654435761U >> 13);
    for (int i = -1; i < ROUNDS && status == NAS_OK; i++) {
        const int at = i < 0 ? 0 : i; /* the first round warms up */
        status = one_round(ctx, &adb, serial, data, &push.ms[at], &shell.ms[at], &find.ms[at]);
    }
    nas_free(data);
    if (status == NAS_OK)
        status =
            nas_adb_shell(ctx, &adb, serial, "rm -f /data/local/tmp/nas-bench", NULL, 0, 16, &r);
    if (status != NAS_OK) return status;
    nas_adb_result_deinit(&r);
    print(&push);
    print(&shell);
    print(&find);
    return NAS_OK;
}

int main(void) {
    const char *serials = getenv("RIG_SERIALS");
    char serial[NAS_ADB_SERIAL_BYTES];
    if (serials == NULL) {
        printf("  skipped: no lab of fake phones; see bench/phone.c\n");
        return 0;
    }
    (void)snprintf(serial, sizeof serial, "%.*s", (int)strcspn(serials, " "), serials);
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return 1;
    const nas_status status = measure(ctx, serial);
    if (status != NAS_OK) fprintf(stderr, "bench phone: %s\n", nas_ctx_message(ctx));
    nas_ctx_free(ctx);
    return status == NAS_OK ? 0 : 1;
}
