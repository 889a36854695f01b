/* bench_agent.c - what the agent costs beside the runs: round trips of the client on loopback, upload of a megabyte, and a
 * run of a program that does nothing, less what starting that program takes by itself. Medians of interleaved rounds. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ROUNDS = 100, UPLOADS = 20, BYTES = 1000000 };

typedef struct series {
    const char *what;
    double ms[ROUNDS];
    int n;
} series;

static int compare(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double quantile(series *s, double q) {
    qsort(s->ms, (size_t)s->n, sizeof *s->ms, compare);
    return s->ms[(int)(q * (double)(s->n - 1))];
}

static void print(series *s, const char *limit) {
    printf("%-44s median %7.3f ms  p90 %7.3f ms  (n %d)%s\n", s->what, quantile(s, 0.5),
           quantile(s, 0.9), s->n, limit);
}

static void fail(nas_ctx *ctx, const char *what) {
    fprintf(stderr, "bench_agent: %s: %s\n", what, nas_ctx_message(ctx));
    exit(1);
}

/* One request; its time is added to `s` (NULL: not counted). The answer's body goes to *body. */
static void ask(nas_ctx *ctx, nas_device *d, const nas__request *request, int expected, series *s,
                nas_buf *body) {
    nas__reply reply = {0};
    const int64_t start = nas_now_ns();
    if (nas__client_send(ctx, d->client, request, &reply) != NAS_OK) fail(ctx, request->target);
    if (s != NULL) s->ms[s->n++] = (double)(nas_now_ns() - start) * 1e-6;
    if (reply.status != expected) {
        (void)nas__reply_error(ctx, request->target, &reply);
        fail(ctx, "answer");
    }
    if (body != NULL) {
        nas_buf_deinit(body);
        *body = reply.body;
    } else {
        nas_buf_deinit(&reply.body);
    }
}

static void put(nas_ctx *ctx, nas_device *d, const void *bytes, size_t len,
                char hash[NAS_SHA256_HEX], series *s) {
    char target[96];
    nas_sha256_hex(bytes, len, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s", hash);
    const nas__request request = {"PUT", target, bytes, len, NAS__REQUEST_MS, false};
    ask(ctx, d, &request, 201, s, NULL);
}

/* Start, wait, report of a run; both requests count. */
static void run(nas_ctx *ctx, nas_device *d, const char *hash, series *s) {
    char target[160];
    nas_buf body = {0};
    int64_t id = 0;
    (void)snprintf(target, sizeof target, "/v1/run?blob=%s&gate-ms=0", hash);
    const nas__request start_run = {"POST", target, NULL, 0, NAS__REQUEST_MS, false};
    const int64_t start = nas_now_ns();
    ask(ctx, d, &start_run, 202, NULL, &body);
    if (nas__json_member_int(ctx, &body, "id", &id) != NAS_OK) fail(ctx, "id");
    (void)snprintf(target, sizeof target, "/v1/run/%" PRId64 "?wait_ms=10000", id);
    const nas__request get = {"GET", target, NULL, 0, NAS__REQUEST_MS, false};
    ask(ctx, d, &get, 200, NULL, &body);
    s->ms[s->n++] = (double)(nas_now_ns() - start) * 1e-6;
    if (strstr(body.data, "\"state\":\"done\"") == NULL) {
        fprintf(stderr, "bench_agent: %s\n", body.data);
        exit(1);
    }
    nas_buf_deinit(&body);
}

/* Processor time the agent has used, in ms: what others on this machine do does not enter it. */
static double agent_cpu_ms(const nas_device *d) {
    char path[64];
    double ns = 0;
    (void)snprintf(path, sizeof path, "/proc/%" PRId64 "/schedstat", d->process.pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return 0;
    if (fscanf(file, "%lf", &ns) != 1) ns = 0;
    (void)fclose(file);
    return ns * 1e-6;
}

/* The same program started directly. */
static void run_directly(nas_ctx *ctx, const char *path, series *s) {
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){path, "--bench", NULL};
    const int64_t start = nas_now_ns();
    if (nas_process_run(ctx, &o, &r) != NAS_OK || r.exit_code != 0) fail(ctx, path);
    s->ms[s->n++] = (double)(nas_now_ns() - start) * 1e-6;
    nas_process_result_deinit(&r);
}

static void measure(nas_ctx *ctx, nas_device *d, const char *dir) {
    static const char text[] = "#!/bin/sh\necho '{}'\n";
    static uint8_t megabyte[BYTES];
    char path[128], hash[NAS_SHA256_HEX], other[NAS_SHA256_HEX];
    const nas__request get_absent = {"GET", "/v1/blob/00", NULL, 0, NAS__REQUEST_MS, false};
    const nas__request get_info = {"GET", "/v1/info", NULL, 0, NAS__REQUEST_MS, false};
    series small = {.what = "round trip, smallest signed request"};
    series info = {.what = "round trip, /v1/info"};
    series upload = {.what = "upload of 1 MB, hashed and on disk"};
    series whole = {.what = "run of an empty program, start to report"};
    series direct = {.what = "the empty program itself"};
    series beside = {.what = "agent's share of the run"};
    series cpu_small = {.what = "  agent's processor time of it"};
    series cpu_run = {.what = "  agent's processor time of it"};
    (void)snprintf(path, sizeof path, "%s/program", dir);
    if (nas_file_write(ctx, path, text, sizeof text - 1, 0700) != NAS_OK) fail(ctx, path);
    put(ctx, d, text, sizeof text - 1, hash, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        const double before = agent_cpu_ms(d);
        ask(ctx, d, &get_absent, 400, &small, NULL);
        cpu_small.ms[cpu_small.n++] = agent_cpu_ms(d) - before;
        ask(ctx, d, &get_info, 200, &info, NULL);
        const double between = agent_cpu_ms(d);
        run(ctx, d, hash, &whole);
        cpu_run.ms[cpu_run.n++] = agent_cpu_ms(d) - between;
        run_directly(ctx, path, &direct);
        beside.ms[beside.n++] = whole.ms[i] - direct.ms[i];
        if (i >= UPLOADS) continue;
        megabyte[0] = (uint8_t)i;
        put(ctx, d, megabyte, BYTES, other, &upload);
    }
    print(&small, "  limit 3 ms");
    print(&cpu_small, "");
    print(&info, "");
    print(&upload, "  limit 50 ms (over adb)");
    print(&whole, "");
    print(&cpu_run, "");
    print(&direct, "");
    print(&beside, "  limit 3 ms");
}

int main(int argc, char **argv) {
    char dir[] = "/tmp/nas-bench-agent-XXXXXX", agent[4096];
    nas_ctx *ctx = nas_ctx_new();
    nas_device *d = NULL;
    if (ctx == NULL || mkdtemp(dir) == NULL) return 1;
    if (argc > 1) {
        (void)snprintf(agent, sizeof agent, "%s", argv[1]);
    } else { /* build/<mode>/bench/bench_agent -> build/<mode>/bin/nas-agent */
        const char *slash = strrchr(argv[0], '/');
        (void)snprintf(agent, sizeof agent, "%.*s/../bin/nas-agent",
                       slash != NULL ? (int)(slash - argv[0]) : 1, slash != NULL ? argv[0] : ".");
    }
    nas_device_options o = nas_device_options_default();
    o.agent_path = agent;
    o.work_dir = dir;
    if (nas_device_open(ctx, &o, &d) != NAS_OK) fail(ctx, "local agent");
    measure(ctx, d, dir);
    nas_device_close(d);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
    return 0;
}
