/* agent_internal.h - what the parts of the agent share: probes, sandbox, runs, blob store, routes, server.
 *
 *   nas_agent.c   the command line: run, doctor            serve.c   the command line of serve
 *   server.c      connections, the loop                    http.c    request heads
 *   listen.c      addresses, who may connect               session.c one controller at a time
 *   routes.c      what each request does                   sign.c    macs and keys
 *   agent_log.c   the log file                             probe_file.c files of /proc and /sys
 *   topology.c    clusters of CPUs                         features.c what the CPU can compute
 *   conditions.c  heat, clocks, power around a run
 *   job.c         one measured run: child, pipes, deadline sandbox.c what the child may not do
 *   blobs.c       artifacts by hash, least recently used   probe.c   state of the machine
 *   json_check.c  is a program's output one JSON object?
 * The agent is one process with one thread; everything waits in the one ppoll of the loop. */
#ifndef NAS_DEVICE_AGENT_AGENT_INTERNAL_H
#define NAS_DEVICE_AGENT_AGENT_INTERNAL_H

#include "device-agent/http.h"
#include "device-agent/protocol.h"

#include <sys/types.h>

/* ---- probe_file.c ---- */

/* nas__probe_set_root - /proc and /sys are looked for below `root` from now on: for tests and for looking at a copy of
 * another machine's files. Chosen on the command line by whoever starts the agent, never over the wire; info and every
 * run then say "sys_root". INVALID (no folder, too long). */
nas_status nas__probe_set_root(nas_ctx *ctx, const char *root);
const char *nas__probe_root(void); /* "" = the real ones */
/* nas__probe_path - root + path; false when it does not fit. */
bool nas__probe_path(char *out, size_t size, const char *path);
/* nas__probe_text - a small file without trailing white space, bytes that JSON or people could not take as '?'.
 * 0 or errno (ENODATA when empty). */
int nas__probe_text(const char *path, char *out, size_t size);
int nas__probe_i64(const char *path, int64_t *out); /* 0 or errno, EINVAL when it is no number */
int nas__probe_write(const char *path, const char *text); /* 0 or errno */
void nas__probe_unavailable(nas_json *j, int code);
void nas__probe_text_member(nas_json *j, const char *key, const char *path);
void nas__probe_number_member(nas_json *j, const char *key, const char *path);

/* ---- topology.c ---- */

enum { NAS__CPUS_MAX = 256, NAS__CLUSTERS_MAX = 8, NAS__POLICIES_MAX = 64 };

typedef struct nas__cpu_set {
    bool has[NAS__CPUS_MAX];
} nas__cpu_set;

typedef struct nas__cluster {
    nas__cpu_set cpus;
    int n_cpus;
    int64_t capacity, min_khz, max_khz; /* -1 unknown */
    int64_t l1d_bytes, l2_bytes;        /* of its first CPU; -1 unknown */
} nas__cluster;

typedef struct nas__policy {
    int number;  /* of its folder */
    int cluster; /* index, -1 = none */
    nas__cpu_set cpus;
} nas__policy;

typedef struct nas__topology {
    int n, n_policies;
    nas__cluster cluster[NAS__CLUSTERS_MAX]; /* slowest first */
    nas__policy policy[NAS__POLICIES_MAX];
} nas__topology;

void nas__topology_read(nas__topology *out);
/* nas__topology_pick - "big": the fastest cluster, and the next ones until every thread has a CPU; "little": the slowest,
 * likewise; else `asked` itself. NULL or a static error text. */
const char *nas__topology_pick(const nas__topology *t, const char *asked, int threads, char *list,
                               size_t size);
void nas__topology_json(nas_json *j, const nas__topology *t);
void nas__cpu_list(const nas__cpu_set *set, char *out, size_t size); /* "0-3,5" */

/* ---- features.c ---- */

/* nas__features_from_hwcap - names as /proc/cpuinfo spells them; false where the kernel gives none (x86). */
bool nas__features_from_hwcap(char *out, size_t size);
/* nas__features_add_vectors - RISC-V with vectors: appends "v" and, up to the length of its registers, zvl128b, zvl256b ... */
void nas__features_add_vectors(char *list, size_t size);
bool nas__features_has(const char *list, const char *name);
void nas__features_json(nas_json *j, const char *list); /* {"neon": true, ...} */

/* ---- probe.c ---- */

/* nas__probe_state - what changes while measuring, as one JSON object: time, clocks, governor, temperatures, load,
 * memory, stolen ticks. Every probe is a value or {"unavailable": "<errno text>"}. */
void nas__probe_state(nas_json *j);
/* nas__probe_machine - members of the surrounding object that do not change: host, kernel, CPU, caches of numbers
 * people compare, and "fingerprint" = SHA-256 over CPU model, features, CPU count and kernel release. */
void nas__probe_machine(nas_json *j);
int64_t nas__probe_available_bytes(void); /* 0 unknown */
/* nas__probe_copy_members - writes the members of the object text `object` into the surrounding object. */
void nas__probe_copy_members(nas_json *j, const nas_buf *object);

/* ---- conditions.c ---- */

#define NAS__FREQUENCY_MEMORY                                                                      \
    "clocks-before" /* file in the cache folder while clocks are changed */

typedef struct nas__temperature {
    bool found;
    double celsius; /* of the hottest zone of the CPU */
    char path[96], type[64];
    int code; /* errno when not found */
} nas__temperature;

bool nas__celsius_of(int64_t raw, double *out);
void nas__temperature_read(nas__temperature *out);
/* nas__temperature_parse_android - output of `dumpsys thermalservice`; path stays "" (no file to read it from). */
void nas__temperature_parse_android(const char *text, nas__temperature *out);

enum { NAS__PACKAGES_MAX = 4 };

typedef enum nas__power_kind {
    NAS__POWER_NONE,
    NAS__POWER_RAPL,   /* energy counters of the CPU packages */
    NAS__POWER_BATTERY /* current times voltage: the whole device, refreshed slowly */
} nas__power_kind;

typedef struct nas__power {
    nas__power_kind kind;
    int n;
    char path[NAS__PACKAGES_MAX][96]; /* folders */
    int code;                         /* errno when there is none */
    bool charging;                    /* a battery is there, but it is being charged */
} nas__power;

void nas__power_find(nas__power *out);

/* Power while nothing runs. */
typedef struct nas__idle {
    int64_t begin_ns;
    double joules, watts;
    int n;
    bool ok;
} nas__idle;

void nas__idle_begin(nas__idle *idle, const nas__power *power);
void nas__idle_sample(nas__idle *idle, const nas__power *power);
bool nas__idle_end(nas__idle *idle, const nas__power *power, double *watts);

typedef struct nas__pinned {
    int number;
    char cpus[64];
    int64_t old_min, old_max, asked_khz, min_khz, max_khz, cur_khz; /* min, max: read back */
    int code;
    bool pinned;
} nas__pinned;

typedef struct nas__frequency {
    char asked[64], memory[1000];
    int n;
    nas__pinned policy[NAS__POLICIES_MAX];
    bool pinned, restore_failed;
    int code; /* errno of what did not work */
} nas__frequency;

/* nas__frequency_check - "max", or one MHz value a cluster; NULL or a static error text. clusters 0: any number. */
const char *nas__frequency_check(const char *asked, int clusters);
/* nas__frequency_pin - sets and reads back; the old bounds go to the file `memory` until they are restored. */
void nas__frequency_pin(nas__frequency *f, const nas__topology *t, const char *asked,
                        const char *memory);
void nas__frequency_restore(nas__frequency *f);
/* nas__frequency_recover - puts back what a killed agent had changed. */
void nas__frequency_recover(nas_ctx *ctx, const char *memory);
void nas__frequency_json(nas_json *j, const nas__frequency *f);

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

/* ---- run_options.c ---- */

enum { NAS__OUT_MAX = 1024 * 1024, NAS__ERR_MAX = 16 * 1024, NAS__BENCH_OPTIONS = 11 };

/* Bench options of the wire, checked: argv for the program. */
typedef struct nas__bench_args {
    int n;
    char text[NAS__BENCH_OPTIONS * 2][64]; /* "--threads", "2", ... */
} nas__bench_args;

typedef struct nas__run_options {
    nas__bench_args args;
    unsigned given;      /* which of the following, to refuse a second time */
    int64_t deadline_ms; /* of the program; 0 = the most there is */
    int64_t gate_ms, idle_ms;
    double max_celsius; /* 0 = none */
    char frequency[64]; /* "" = as found */
} nas__run_options;

nas__run_options nas__run_options_default(void);
/* nas__run_option_add - "threads", "2" after checking name, form and double use; NULL or a static error text. */
const char *nas__run_option_add(nas__run_options *o, nas__slice name, nas__slice value);
/* nas__run_options_check - when all were added: completes the deadline. NULL or a static error text. */
const char *nas__run_options_check(nas__run_options *o);
const char *nas__bench_arg_add(nas__bench_args *args, nas__slice name, nas__slice value);
/* nas__bench_arg_get - value of "threads", NULL when it was not given. */
const char *nas__bench_arg_get(const nas__bench_args *args, const char *name);

/* ---- job.c, launch.c ---- */

/* nas__job_sweep - removes the run folders of agents that were killed: those of processes that are no more. */
void nas__job_sweep(const char *parent_dir);

/* The program's arguments after --bench. */
enum { NAS__ARGV_MAX = 2 * (NAS__BENCH_OPTIONS + NAS__PACKAGES_MAX + 3) };
typedef struct nas__argv {
    int n;
    char text[NAS__ARGV_MAX][360];
} nas__argv;

typedef enum nas__job_state {
    NAS__JOB_NONE,
    NAS__JOB_RUNNING,
    NAS__JOB_DONE,
    NAS__JOB_FAILED,
    NAS__JOB_KILLED
} nas__job_state;

typedef enum nas__job_phase {
    NAS__PHASE_COOLING, /* waits for the thermal gate */
    NAS__PHASE_IDLE,    /* measures power without load */
    NAS__PHASE_PROGRAM,
    NAS__PHASE_OVER
} nas__job_phase;

/* The machine's temperature when it does nothing; outlives the runs. */
typedef struct nas__baseline {
    bool is_set;
    double celsius;
    int64_t last_end_ns;
} nas__baseline;

typedef struct nas__job {
    nas__job_state state;
    nas__job_phase phase;
    nas__run_options o;
    char program[1024], parent_dir[900];
    char cpus[256];            /* the list that "big" stands for */
    int64_t asked_ns, next_ns; /* next look at heat or power */
    int64_t gate_waited_ms;
    nas__temperature gate;
    nas__baseline baseline;
    nas__power power;
    nas__idle idle;
    bool has_idle;
    double idle_w;
    nas__frequency frequency;
    int64_t id;
    pid_t pid;
    int out_fd, err_fd;                    /* -1 when closed; non-blocking */
    int64_t start_ns, deadline_ns, end_ns; /* start of the program */
    bool reaped, has_exit, stopped;
    int exit_code, signal;
    char error[512], reason[24]; /* "" = none */
    char dir[1024];              /* the run's own folder, removed afterwards */
    nas_buf out, err, before, after;
    nas__limits limits;
} nas__job;

/* nas__job_start - begins a run of `program --bench <args>` in a fresh folder below `parent_dir`; the program itself may
 * start later, when the device is cool. Errors: INVALID (clusters or clocks this machine does not have), IO (folder),
 * RANGE (path). Whatever else goes wrong is a failed job, not an error here. */
nas_status nas__job_start(nas_ctx *ctx, nas__job *job, int64_t id, const char *program,
                          const char *parent_dir, const nas__run_options *options);
/* nas__job_launch - forks and executes; job->program, dir and o are set. IO (fork, pipe). */
nas_status nas__job_launch(nas_ctx *ctx, nas__job *job, const nas__argv *arguments);
/* nas__job_fail - state and error unless there are some already; `reason` is a word for programs:
 * too_hot, deadline, killed, abandoned, lease, crash, memory, cpu_time, file_size, sandbox, exec, exit, output, agent. */
void nas__job_fail(nas__job *job, nas__job_state state, const char *reason, const char *error);
const char *nas__job_state_name(nas__job_state state);
/* nas__job_due_ns - when nas__job_step has something to do without an event. */
int64_t nas__job_due_ns(const nas__job *job);
/* nas__job_step - reads what is there, enforces the deadline, reaps. Call after every wake-up. */
void nas__job_step(nas_ctx *ctx, nas__job *job);
/* nas__job_kill - SIGKILL to the group; nas__job_step finishes it. */
void nas__job_kill(nas__job *job, const char *reason, const char *why);
bool nas__job_runs(const nas__job *job);              /* begun and not over */
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
/* nas__blob_put - `seen` is the SHA-256 of the data, as it was signed. *http_status 201, 200 (already there), 422, 507 or 500; a message is in ctx unless 20x.
 * `keep` names a blob that must not be evicted ("" = none). */
void nas__blob_put(nas_ctx *ctx, const nas__blobs *blobs, nas__slice hash, const void *data,
                   size_t len, const char *seen, const char *keep, int *http_status);
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

/* ---- sign.c ---- */

/* nas__sign_request_hashed - nas_agent_sign_request for a body whose SHA-256 is known. */
void nas__sign_request_hashed(const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                              const char *target, const char *body_hash, const char *nonce,
                              uint64_t counter, char mac[NAS_SHA256_HEX]);

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
    nas_buf machine; /* what does not change, as JSON members */
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
/* nas__route - carries out one authenticated request; `body_hash` is the body's SHA-256 in hex. */
void nas__route(nas__agent *agent, const nas__http_request *request, const char *body, size_t len,
                const char *body_hash, nas__answer *answer);
void nas__answer_error(nas__answer *answer, int status, const char *message);
/* nas__info_json - the /v1/info and doctor document; agent NULL for doctor. */
void nas__info_json(nas_json *j, const nas__limits *limits, const nas__agent *agent);

/* nas__lease_* - see session.c. take: POST /v1/session; release: DELETE /v1/session/<token>; admit: may a request
 * with this query act now (else the answer is filled)? check: ends what is over; `held`: a controller waits right
 * now. */
void nas__lease_take(nas__agent *agent, nas__slice query, nas__answer *answer);
void nas__lease_release(nas__agent *agent, nas__slice token, nas__answer *answer);
void nas__lease_end(nas__agent *agent, const char *reason, const char *why);
bool nas__lease_admit(nas__agent *agent, nas__slice query, nas__answer *answer);
void nas__lease_check(nas__agent *agent, bool held);
int64_t nas__lease_due_ns(const nas__agent *agent);
void nas__lease_json(nas_json *j, const nas__session *session);

/* ---- serve.c ---- */

/* nas__serve_command - `nas-agent serve ...`; *code is the exit code when it returns NAS_OK. */
nas_status nas__serve_command(nas_ctx *ctx, int argc, char **argv, int *code);

/* nas__serve - listens and answers until /v1/stop, SIGTERM or the end of the parent. */
nas_status nas__serve(nas_ctx *ctx, const nas__agent_options *options);

#endif
