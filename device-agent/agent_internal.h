/* agent_internal.h - what the parts of the agent share: probes, sandbox, runs, blob store, routes, server.
 *
 *   nas_agent.c   the command line: serve, run, doctor
 *   server.c      sockets, connections, the loop           http.c    request heads
 *   routes.c      what each request does                   sign.c    macs and keys
 *   job.c         one measured run: child, pipes, deadline sandbox.c what the child may not do
 *   blobs.c       artifacts by hash, least recently used   probe.c   state of the machine
 *   json_check.c  is a program's output one JSON object?
 * The agent is one process with one thread; everything waits in the one ppoll of the loop. */
#ifndef NAS_DEVICE_AGENT_AGENT_INTERNAL_H
#define NAS_DEVICE_AGENT_AGENT_INTERNAL_H

#include "device-agent/http.h"
#include "device-agent/protocol.h"

#include <sys/types.h>

/* ---- probe.c ---- */

/* nas__probe_state - what changes while measuring, as one JSON object: time, clocks, governor, temperatures, load,
 * memory, stolen ticks. Every probe is a value or {"unavailable": "<errno text>"}. */
void nas__probe_state(nas_json *j);
/* nas__probe_machine - members of the surrounding object that do not change: host, kernel, CPU, caches of numbers
 * people compare, and "fingerprint" = SHA-256 over CPU model, features, CPU count and kernel release. */
void nas__probe_machine(nas_json *j);

/* ---- sandbox.c ---- */

typedef struct nas__limits {
    bool rlimits, no_new_privs, process_group,
        parent_death; /* mandatory: a run does not start without */
    bool seccomp;
    int32_t landlock_abi; /* 0: not active */
    int32_t seccomp_errno, landlock_errno;
    int32_t failed_errno;    /* of a mandatory step, 0 = none */
    const char *failed_step; /* static text, valid in a forked copy too */
} nas__limits;

/* nas__sandbox_enter - in a forked child, before exec: applies everything and fills *out. false when a mandatory step
 * failed. `program` may be read and executed, `dir` written; cpu_seconds bounds CPU time of all threads together. */
bool nas__sandbox_enter(pid_t parent, const char *program, const char *dir, int64_t cpu_seconds,
                        nas__limits *out);
/* nas__sandbox_probe - what a run would get here, found out by a child that ends at once. */
nas_status nas__sandbox_probe(nas_ctx *ctx, nas__limits *out);
/* nas__limits_json - ["rlimits", "no_new_privs", ...]: the active ones. */
void nas__limits_json(nas_json *j, const nas__limits *limits);

/* ---- json_check.c ---- */

enum { NAS__JSON_DEPTH_MAX = 32 };
/* nas__json_object_ok - is text[0..len) exactly one JSON object (RFC 8259), nested at most NAS__JSON_DEPTH_MAX deep? */
bool nas__json_object_ok(const char *text, size_t len);

/* ---- job.c ---- */

enum { NAS__OUT_MAX = 1024 * 1024, NAS__ERR_MAX = 16 * 1024, NAS__BENCH_OPTIONS = 9 };

/* Bench options of the wire, checked: argv for the program. */
typedef struct nas__bench_args {
    int n;
    char text[NAS__BENCH_OPTIONS * 2][64]; /* "--threads", "2", ... */
} nas__bench_args;

/* nas__bench_arg_add - "threads", "2" after checking name, form and double use; NULL or a static error text. */
const char *nas__bench_arg_add(nas__bench_args *args, nas__slice name, nas__slice value);

typedef enum nas__job_state {
    NAS__JOB_NONE,
    NAS__JOB_RUNNING,
    NAS__JOB_DONE,
    NAS__JOB_FAILED,
    NAS__JOB_KILLED
} nas__job_state;

typedef struct nas__job {
    nas__job_state state;
    int64_t id;
    pid_t pid;
    int out_fd, err_fd; /* -1 when closed; non-blocking */
    int64_t start_ns, deadline_ns, end_ns;
    int64_t deadline_ms;
    bool reaped, has_exit, stopped;
    int exit_code, signal;
    char error[512]; /* "" = none */
    char dir[1024];  /* the run's own folder, removed afterwards */
    nas_buf out, err, before, after;
    nas__limits limits;
} nas__job;

/* nas__job_start - forks and executes `program --bench <args>` in a fresh folder below `parent_dir`.
 * Errors: IO (fork, pipe, folder). A program that cannot be executed is a failed job, not an error here. */
nas_status nas__job_start(nas_ctx *ctx, nas__job *job, int64_t id, const char *program,
                          const char *parent_dir, const nas__bench_args *args, int64_t deadline_ms);
/* nas__job_step - reads what is there, enforces the deadline, reaps. Call after every wake-up. */
void nas__job_step(nas_ctx *ctx, nas__job *job);
void nas__job_kill(nas__job *job,
                   const char *why); /* SIGKILL to the group; nas__job_step finishes it */
void nas__job_json(nas_json *j, const nas__job *job); /* the GET /v1/run/<id> object */
void nas__job_deinit(nas_ctx *ctx, nas__job *job);    /* kills and reaps what still runs */

/* ---- blobs.c ---- */

typedef struct nas__blobs {
    char dir[900];      /* <cache-dir>/blobs, mode 0700 */
    uint64_t max_bytes; /* of all blobs together */
} nas__blobs;

nas_status nas__blobs_init(nas_ctx *ctx, nas__blobs *blobs, const char *cache_dir,
                           uint64_t max_bytes);
/* nas__blob_path - false when `hash` is not 64 lower-case hex digits. */
bool nas__blob_path(const nas__blobs *blobs, nas__slice hash, char *out, size_t size);
bool nas__blob_present(const nas__blobs *blobs, nas__slice hash);
/* nas__blob_put - *http_status 201, 200 (already there), 422, 507 or 500; a message is in ctx unless 20x.
 * `keep` names a blob that must not be evicted ("" = none). */
void nas__blob_put(nas_ctx *ctx, const nas__blobs *blobs, nas__slice hash, const void *data,
                   size_t len, const char *keep, int *http_status);
/* nas__blob_use - checks the stored bytes against the name again and marks the blob as used now. */
nas_status nas__blob_use(nas_ctx *ctx, const nas__blobs *blobs, nas__slice hash);

/* ---- server.c, routes.c ---- */

typedef struct nas__agent_options {
    char host[64];
    int port; /* 0 = any free */
    const char *key_file, *cache_dir;
    uint64_t cache_bytes;
    int64_t parent_pid; /* 0 = none */
    bool allow_remote;
} nas__agent_options;

typedef struct nas__agent {
    nas_ctx *ctx;
    const nas__agent_options *o;
    uint8_t key[NAS_AGENT_KEY_BYTES];
    nas__blobs blobs;
    nas__job job;
    char job_blob[NAS_SHA256_HEX];
    int64_t next_id;
    nas__limits limits; /* found at the start */
    bool stopping;
} nas__agent;

typedef struct nas__answer {
    int status;
    nas_buf body;
    bool hold; /* not yet: ask again when the run ends or hold_ms are over */
    int64_t hold_ms;
} nas__answer;

/* nas__route_body_max - the largest body `request` may have; checked before one byte of it is read. */
uint64_t nas__route_body_max(const nas__http_request *request);
/* nas__route - carries out one authenticated request. */
void nas__route(nas__agent *agent, const nas__http_request *request, const char *body, size_t len,
                nas__answer *answer);
void nas__answer_error(nas__answer *answer, int status, const char *message);
/* nas__info_json - the /v1/info and doctor document. */
void nas__info_json(nas_json *j, const nas__limits *limits);

/* nas__serve - listens and answers until /v1/stop, SIGTERM or the end of the parent. */
nas_status nas__serve(nas_ctx *ctx, const nas__agent_options *options);

#endif
