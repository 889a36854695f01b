/* fake_agent.h - a server that answers from a script, to see what the client does with bad agents. */
#ifndef NAS_TESTS_LATENCY_FAKE_AGENT_H
#define NAS_TESTS_LATENCY_FAKE_AGENT_H

#include "device-agent/protocol.h"

#include <pthread.h>

/* How one answer is sent. */
typedef enum fake_kind {
    FAKE_SIGNED,    /* as an honest agent */
    FAKE_UNSIGNED,  /* without a mac */
    FAKE_WRONG_MAC, /* signed with another key */
    FAKE_RAW,       /* body is the whole answer, byte for byte */
    FAKE_HANG_UP    /* the connection is closed instead */
} fake_kind;

typedef struct fake_answer {
    fake_kind kind;
    int status;
    const char *body;
} fake_answer;

/* Answers "GET /v1/nonce" and requests for a session by itself and everything else from `script`, in order; the last entry repeats. */
typedef struct fake_agent {
    const fake_answer *script;
    size_t n, next;
    uint8_t key[NAS_AGENT_KEY_BYTES];
    const char *nonce_answer;          /* NULL: an honest nonce; else sent as the JSON body */
    const fake_answer *session_answer; /* NULL: whoever asks gets the session */
    int listener, port;
    volatile bool stop;
    pthread_t thread;
} fake_agent;

void fake_agent_start(fake_agent *fake, const fake_answer *script, size_t n,
                      const char *nonce_answer);
void fake_agent_stop(fake_agent *fake);

#endif
