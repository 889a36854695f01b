/* phone.h - the agent on a phone: sent when the phone's differs, started, found again, ended.
 *
 * On the phone, all below /data/local/tmp/nas-search (0700): nas-agent, agent.key (0600), agent.log, agent.state, cache/.
 * The agent listens on the abstract socket @nas-search-agent, so one at a time can. Its key is new at each start and
 * stays there while it runs: whoever may use adb may use the agent, and nobody else on the phone. A second controller
 * finds agent and key, sees in the agent's signed answer who holds it, and is refused; an agent that nobody holds is
 * used as it is when it is the program we would send, and replaced otherwise. A holder that ran on this machine and is
 * gone holds nothing.
 * Layer 1, with adb.h. */
#ifndef NAS_ADB_PHONE_H
#define NAS_ADB_PHONE_H

#include "adb/adb.h"
#include "device-agent/protocol.h"

#define NAS_PHONE_SOCKET "nas-search-agent"
#define NAS_PHONE_DIR "/data/local/tmp/nas-search"

enum { NAS_PHONE_HOLDER_BYTES = 64 };

typedef struct nas_phone_options {
    const char *serial; /* "" = the only one attached, "*" = any one that nobody holds */
    const char *
        agents_dir; /* folder of nas-agent-<arch>; NULL = "agents" beside the folder of the running program, or
                               one above */
    bool
        again; /* this process had it before and comes back: its own session there is ended, not respected */
} nas_phone_options;

/* Plain data: what is known of a phone with our agent on it. */
typedef struct nas_phone {
    char serial[NAS_ADB_SERIAL_BYTES], model[64];
    char arch[16]; /* of the agent: "aarch64", "armv7", "x86_64", "riscv64" */
    bool sent;     /* the agent was sent: the phone had none, or another */
    bool started;  /* we started it; false: it ran already */
    int64_t pid;   /* on the phone; 0 = not known */
    int port;      /* 127.0.0.1:port leads to the agent */
    uint8_t key[NAS_AGENT_KEY_BYTES];
} nas_phone;

/* nas_phone_open - server, phone, agent, forward, as above. Errors: those of adb/problem.def, CANCELLED, TIMEOUT. */
nas_status nas_phone_open(nas_ctx *ctx, const nas_phone_options *options, nas_phone *out);
/* nas_phone_close - takes the forward away and, when we started it, ends the agent and removes its key. Best effort: a
 * phone that is gone keeps an agent that nobody holds; the next opening finds it. */
void nas_phone_close(nas_phone *phone);

/* nas_phone_holder - how this process is named to others: user/host/pid. */
void nas_phone_holder(char out[NAS_PHONE_HOLDER_BYTES]);

/* ---- for people (nas-agent deploy, status, stop, logs) ---------------------------------------------------------- */

typedef enum nas_phone_agent {
    NAS_PHONE_NO_AGENT,
    NAS_PHONE_AGENT_RUNS,
    NAS_PHONE_AGENT_OTHER_KEY /* somebody answers, not with the key that lies there */
} nas_phone_agent;

typedef struct nas_phone_status {
    nas_adb_device device;
    nas_phone_agent agent;
    char version[32];                    /* of the agent */
    char holder[NAS_PHONE_HOLDER_BYTES]; /* "" = nobody */
    int64_t lease_left_ms;
    int port; /* of a forward to it, 0 = none */
} nas_phone_status;

/* nas_phone_deploy - as nas_phone_open, for an agent that outlives this program: an existing forward is used again. */
nas_status nas_phone_deploy(nas_ctx *ctx, const nas_phone_options *options, nas_phone *out);
nas_status nas_phone_status_of(nas_ctx *ctx, const char *serial, nas_phone_status *out);
/* nas_phone_stop - ends the agent, removes key and forwards. DEVICE when another controller holds it, unless `force`.
 * *was_running may be NULL. */
nas_status nas_phone_stop(nas_ctx *ctx, const char *serial, bool force, bool *was_running);
/* nas_phone_log - the agent's log, also of one that has ended; NOTFOUND when there is none. */
nas_status nas_phone_log(nas_ctx *ctx, const char *serial, nas_buf *out);

#endif
