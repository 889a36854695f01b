/* device_internal.h - parts of the measuring client.
 *
 *   device.c         the handle: local, http, simulated      measure.c     the protocol of one measurement
 *   agent_client.c   signed requests (curl)                  bench_parse.c the program's document (jansson)
 *   agent_process.c  a private agent's life                  simulated.c   the analytic stand-in
 *   facts.c          what a program must suit                loan.c     one controller at a time
 *   repeat.c         how far runs of one program scatter */
#ifndef NAS_LATENCY_DEVICE_INTERNAL_H
#define NAS_LATENCY_DEVICE_INTERNAL_H

#include "adb/phone.h"
#include "latency/latency.h"

#include <pthread.h>

/* ---- agent_client.c ---- */

enum { NAS__REPLY_MAX = 4 * 1024 * 1024, NAS__REQUEST_MS = 20 * 1000 };

typedef struct nas__client nas__client;

typedef struct nas__reply {
    int status;
    nas_buf body; /* caller deinits */
} nas__reply;

typedef struct nas__request {
    const char *method, *target;
    const void *body;
    size_t len;
    int64_t timeout_ms;
    bool no_cancel; /* for cleaning up after a cancel */
} nas__request;

/* nas__client_new - `base` is "http://host:port"; nothing is sent yet. */
nas_status nas__client_new(nas_ctx *ctx, const char *base, const uint8_t key[NAS_AGENT_KEY_BYTES],
                           nas__client **out);
void nas__client_free(nas__client *client);
/* nas__client_send - one signed request; the answer's mac is verified before anything of it is believed. Reconnects
 * and takes a new nonce by itself. Threads take turns. Errors: NET (no connection, broken answer), DEVICE (key refused, answer not signed
 * with our key), TIMEOUT, CANCELLED. HTTP errors are answers: see reply->status. */
nas_status nas__client_send(nas_ctx *ctx, nas__client *client, const nas__request *request,
                            nas__reply *out);
/* nas__client_session - requests that need one carry this session from now on ("" = none). A session that has ended is
 * taken anew, once, under a lease of so many ms, unless somebody else has it. */
void nas__client_session(nas__client *client, const char *token, int lease_ms);
const char *nas__client_session_of(const nas__client *client);
/* nas__client_silent_ms - since the end of the latest exchange; waits for one that is under way. */
int64_t nas__client_silent_ms(nas__client *client);
/* nas__reply_error - a DEVICE failure with the agent's {"error": ...} text. */
nas_status nas__reply_error(nas_ctx *ctx, const char *what, const nas__reply *reply);

/* ---- agent_process.c ---- */

typedef struct nas__agent_process {
    int64_t pid; /* 0: none */
    int port;
} nas__agent_process;

/* nas__agent_start - starts `agent_path serve` (NULL: beside the running program) on a free loopback port with a fresh
 * key below work_dir and waits for its first line. DEVICE says what is missing and quotes its stderr. */
nas_status nas__agent_start(nas_ctx *ctx, const char *agent_path, const char *work_dir,
                            nas__agent_process *out, uint8_t key[NAS_AGENT_KEY_BYTES]);
/* nas__agent_end - waits up to two seconds for an agent that was told to stop, then kills it. */
void nas__agent_end(nas__agent_process *process);

/* ---- simulated.c ---- */

/* nas__simulated_us - roofline time of one inference on a nominal CPU: per node the larger of padded arithmetic and
 * memory traffic, plus a launch cost. Same graph and threads, same number. INVALID without a graph. */
nas_status nas__simulated_us(nas_ctx *ctx, const nas_graph *graph, int32_t threads, double *out);
extern const char nas__simulated_id[]; /* "simulated roofline/1" */

/* ---- bench_parse.c ---- */

/* One finished run as the agent reported it. */
typedef struct nas__run {
    char state[16];
    char error[1200];  /* with the program's stderr; "" = none */
    nas_measurement m; /* samples_us owned; repeats, noisy, passport unset */
    bool all_disturbed;
    char *report; /* the report without samples and id, as JSON text, owned */
    char *text;   /* what the program said, when that was asked for; owned */
} nas__run;

/* nas__run_parse - PARSE when the report lacks a member, holds a number out of range, or its median does not follow
 * from its samples. A running report gives state "running" and nothing else. */
nas_status nas__run_parse(nas_ctx *ctx, const nas_buf *json, nas__run *out);
/* nas__run_parse_text - the same of a program that is no model: `member` of its document is a text, m is not filled. */
nas_status nas__run_parse_text(nas_ctx *ctx, const nas_buf *json, const char *member,
                               nas__run *out);
void nas__run_deinit(nas__run *run);
/* nas__json_member_* - one member of a JSON object text; PARSE names it. */
nas_status nas__json_member_int(nas_ctx *ctx, const nas_buf *json, const char *name, int64_t *out);
nas_status nas__json_member_text(nas_ctx *ctx, const nas_buf *json, const char *name, char *out,
                                 size_t size);

/* ---- repeat.c ---- */

typedef struct nas__repeat_run {
    char sha256[NAS_SHA256_HEX]; /* of the program */
    double log_us;
} nas__repeat_run;

/* The latest runs of a device and what they say together. */
typedef struct nas__repeat {
    nas__repeat_run *runs;
    size_t n, capacity;
    double freedom;              /* runs of programs that ran before */
    double scatter;              /* standard deviation of log p50 from run to run */
    double reach_down, reach_up; /* of the 95 % interval it makes, in log p50 */
} nas__repeat;

nas_status nas__repeat_add(nas_ctx *ctx, nas__repeat *r, const char *sha256, double p50_us);
/* nas__repeat_widen - p50_lo_us and p50_hi_us, so far of one run, become those of any run. */
void nas__repeat_widen(const nas__repeat *r, nas_measurement *m);
void nas__repeat_deinit(nas__repeat *r);

/* ---- loan.c ---- */

/* What keeps a session alive while nothing is measured. */
typedef struct nas__heartbeat {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    nas__client *client;
    int lease_ms;
    bool runs, ends;
} nas__heartbeat;

/* nas__loan_begin - takes the agent for us, and keeps it however long we are silent. DEVICE names who has it. NAS_OK
 * without a session when the agent knows none. nas__loan_end - gives it back. nas__loan_take - asks for one. */
nas_status nas__loan_begin(nas_ctx *ctx, nas_device *d);
void nas__loan_end(nas_device *d);
nas_status nas__loan_take(nas_ctx *ctx, nas__client *client, int lease_ms, char token[33]);

/* ---- facts.c ---- */

/* nas__facts_read - d->info -> d->facts, d->features. */
nas_status nas__facts_read(nas_ctx *ctx, nas_device *d);
/* nas__artifact_suits - UNSUPPORTED when the device could not run this program. */
nas_status nas__artifact_suits(nas_ctx *ctx, const nas_device *d, const void *bytes, size_t len,
                               const char *needs);

/* ---- device.c ---- */

typedef enum nas__device_kind {
    NAS__DEVICE_SIMULATED,
    NAS__DEVICE_LOCAL,
    NAS__DEVICE_HTTP,
    NAS__DEVICE_PHONE
} nas__device_kind;

struct nas_device {
    nas__device_kind kind;
    char *name, *cpus, *info, *fingerprint;
    char *connect, *agent_path, *agents_dir, *key_file, *work_dir; /* as given; NULL = not given */
    char *features; /* canonical names, a blank between them; NULL = not told */
    nas_device_facts facts;
    int32_t threads;
    nas_device_mode mode;
    int32_t sustained_s;
    char *frequency; /* "" = as found */
    double max_temperature_c;
    int32_t lease_ms; /* as asked for; 0 = the usual one */
    int32_t gate_ms;  /* how long a run may wait for the device to cool */
    bool simulated;
    double simulated_factor; /* times the nominal CPU's latency */
    nas__client *client;     /* NULL when simulated, or lost */
    nas__heartbeat heartbeat;
    nas__agent_process process;
    nas_phone phone; /* serial "" unless a phone is connected */
    nas__repeat repeat;
};

#endif
