/* agent_internal.h - what the parts of the agent share: probes, sandbox, runs, blob store, routes, server.
 *
 *   nas_agent.c   the command line: run, doctor            serve.c   the command line of serve
 *   server.c      connections, the loop                    http.c    request heads
 *   listen.c      addresses, who may connect               session.c one controller at a time
 *   routes.c      what each request does                   sign.c    macs and keys
 *   agent_log.c   the log file
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

/* nas__probe_set_root - /proc and /sys are looked for below `root` from now on: for tests and for looking at a copy of
 * another machine's files. Chosen on the command line by whoever starts the agent, never over the wire; info and every
 * run then say "sys_root". INVALID (no folder, too long). */
nas_status nas__probe_set_root(nas_ctx *ctx, const char *root);
const char *nas__probe_root(void); /* "" = the real ones */

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
                   const char *why);     /* SIGKILL to the group; nas__job_step finishes it */
bool nas__job_runs(const nas__job *job); /* begun and not over */
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

/* ---- listen.c ---- */

typedef enum nas__address_kind {
    NAS__ADDRESS_TCP,      /* name: numeric IPv4 */
    NAS__ADDRESS_ABSTRACT, /* name without the leading NUL */
    NAS__ADDRESS_PATH
} nas__address_kind;

typedef struct nas__address {
    nas__address_kind kind;
    char name[108];
    int port; /* TCP: 0 = any free */
} nas__address;

/* nas__address_parse - "127.0.0.1:7917", "@name", "unix-abstract:name", "/path" or "unix:path". INVALID. */
nas_status nas__address_parse(nas_ctx *ctx, const char *text, nas__address *out);
/* nas__address_text - "127.0.0.1:7917", "@name", "unix:/path". */
void nas__address_text(const nas__address *address, char *out, size_t size);
/* nas__listen - INVALID for an address that is not local without allow_remote; NET. A port 0 becomes the real one. */
nas_status nas__listen(nas_ctx *ctx, nas__address *address, bool allow_remote, int *listener);
void nas__listen_end(const nas__address *address, int listener);
/* nas__peer_allowed - by SO_PEERCRED on unix sockets: root, Android's shell, this user. *uid -1 when not asked. */
bool nas__peer_allowed(const nas__address *address, int fd, int64_t *uid);
bool nas__uid_allowed(int64_t peer, int64_t self);

/* ---- agent_log.c ---- */

typedef struct nas__log {
    int fd; /* -1: none */
    int64_t bytes;
    char path[1000];
} nas__log;

/* nas__log_open - from now on ctx logs into the file. IO. */
nas_status nas__log_open(nas_ctx *ctx, nas__log *log, const char *path);
void nas__log_close(nas_ctx *ctx, nas__log *log);
void nas__log_json(nas_json *j, const char *path); /* {"log": text or null} */

/* ---- server.c, routes.c, session.c ---- */

typedef struct nas__agent_options {
    nas__address address;
    const char *key_file, *cache_dir, *log_file; /* log_file may be NULL */
    uint64_t cache_bytes;
    int64_t parent_pid; /* 0 = none */
    int64_t abandon_ms; /* a run nobody asks for is killed after this time */
    bool allow_remote;
    /* Called once when the agent listens; `where` as nas__address_text. */
    nas_status (*ready)(nas_ctx *ctx, void *user, const char *where);
    void *ready_user;
} nas__agent_options;

/* The controller that holds the agent; token "" = nobody does. */
typedef struct nas__session {
    char token[2 * NAS_AGENT_NONCE_BYTES + 1], holder[64];
    int64_t lease_ms, renewed_ns;
} nas__session;

typedef struct nas__agent {
    nas_ctx *ctx;
    const nas__agent_options *o;
    uint8_t key[NAS_AGENT_KEY_BYTES];
    nas__blobs blobs;
    nas__job job;
    char job_blob[NAS_SHA256_HEX];
    bool job_in_session;
    int64_t asked_ns; /* last authentic request */
    int64_t next_id;
    nas__limits limits; /* found at the start */
    nas__session session;
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
/* nas__info_json - the /v1/info and doctor document; session NULL for doctor. */
void nas__info_json(nas_json *j, const nas__limits *limits, const nas__session *session);

/* nas__session_* - see session.c. take: POST /v1/session; release: DELETE /v1/session/<token>; admit: may a request
 * with this query act now (else the answer is filled)? check: ends what is over; `held`: a controller waits right
 * now. */
void nas__session_take(nas__agent *agent, nas__slice query, nas__answer *answer);
void nas__session_release(nas__agent *agent, nas__slice token, nas__answer *answer);
void nas__session_end(nas__agent *agent, const char *why);
bool nas__session_admit(nas__agent *agent, nas__slice query, nas__answer *answer);
void nas__session_check(nas__agent *agent, bool held);
int64_t nas__session_due_ns(const nas__agent *agent);
void nas__session_json(nas_json *j, const nas__session *session);

/* ---- serve.c ---- */

/* nas__serve_command - `nas-agent serve ...`; *code is the exit code when it returns NAS_OK. */
nas_status nas__serve_command(nas_ctx *ctx, int argc, char **argv, int *code);

/* nas__serve - listens and answers until /v1/stop, SIGTERM or the end of the parent. */
nas_status nas__serve(nas_ctx *ctx, const nas__agent_options *options);

#endif
