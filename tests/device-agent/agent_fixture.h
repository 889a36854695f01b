/* agent_fixture.h - a real agent process and raw connections to it, with every byte under the test's control. */
#ifndef NAS_TESTS_DEVICE_AGENT_AGENT_FIXTURE_H
#define NAS_TESTS_DEVICE_AGENT_AGENT_FIXTURE_H

#include "device-agent/protocol.h"

#include <sys/types.h>

typedef struct fixture {
    nas_ctx *ctx;
    char dir[64], key_path[128], cache[128], program[512];
    uint8_t key[NAS_AGENT_KEY_BYTES];
    pid_t pid;
    int port;
} fixture;

typedef struct link_to {
    int fd;
    char nonce[40];
    uint64_t counter;
    char last_mac[NAS_SHA256_HEX]; /* of the last signed request */
} link_to;

typedef struct answer {
    int status; /* 0: the connection ended without an answer */
    char mac[NAS_SHA256_HEX];
    nas_buf body;
} answer;

/* fixture_open - folder, key, program path; fixture_start also runs the agent. */
void fixture_open(fixture *f);
void fixture_start(fixture *f);
/* fixture_spawn - runs argv with stdout read up to its first line; *port from it (0 when there was none). */
pid_t fixture_spawn(const char *const *argv, int *port);
void fixture_close(fixture *f);
/* wait_gone - true when process `pid` is dead within `ms`; `child` reaps it. */
bool wait_gone(pid_t pid, bool child, int ms);

link_to link_open(int port);
void link_nonce(link_to *l);
void link_close(link_to *l);
void link_send(const link_to *l, const void *data, size_t len);
answer link_read(const link_to *l);
void answer_free(answer *a);
/* link_call - one signed request; asserts that the answer is signed. */
answer link_call(const fixture *f, link_to *l, const char *method, const char *target,
                 const void *body, size_t len);
/* link_write_signed - sends with these values, whatever they are worth. */
void link_write_signed(const uint8_t *key, link_to *l, const char *method, const char *target,
                       const void *body, size_t len, uint64_t counter);

#endif
