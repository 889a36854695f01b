/* phone_internal.h - parts of the agent on a phone: phone.c opens and closes, phone_agent.c sends, starts and ends the
 * program, phone_link.c asks it. */
#ifndef NAS_ADB_PHONE_INTERNAL_H
#define NAS_ADB_PHONE_INTERNAL_H

#include "adb/adb_internal.h"
#include "adb/phone.h"

/* ---- phone_link.c ---- */

/* nas__phone_ask - one signed request; *body is the caller's. NOTFOUND: nobody listens; DEVICE: its key is another. */
nas_status nas__phone_ask(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                          const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                          const char *target, int *http_status, nas_buf *body);
/* nas__phone_exchange - the same on an open connection. */
nas_status nas__phone_exchange(nas_ctx *ctx, nas__adb_link *link,
                               const uint8_t key[NAS_AGENT_KEY_BYTES], const char *method,
                               const char *target, int *http_status, nas_buf *body);
/* nas__phone_json_text - the text after `after` ("\"holder\":"), "" when it is not one without escapes. */
void nas__phone_json_text(const char *json, const char *after, char *out, size_t size);
int64_t nas__phone_json_int(const char *json, const char *after);

/* ---- phone_agent.c ---- */

/* A program to send. */
typedef struct nas__phone_program {
    char path[1024];
    nas_buf bytes;
    char sha256[NAS_SHA256_HEX];
} nas__phone_program;

/* nas__phone_program_read - <agents_dir>/nas-agent-<arch>, or beside the running program. */
nas_status nas__phone_program_read(nas_ctx *ctx, const char *agents_dir, const nas_phone *phone,
                                   nas__phone_program *out);
/* nas__phone_identify - model and arch of the phone (getprop). */
nas_status nas__phone_identify(nas_ctx *ctx, const nas_adb *adb, nas_phone *phone);
nas_status nas__phone_abi_arch(const char *abi, char *arch, size_t size); /* NOTFOUND; pure */
/* nas__phone_has - has the phone exactly this program? */
nas_status nas__phone_has(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *sha256,
                          bool *out);
nas_status nas__phone_send(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                           const nas__phone_program *program);
/* nas__phone_start - fresh key, then the agent; *taken: another one listens there already, and nothing was changed. */
nas_status nas__phone_start(nas_ctx *ctx, const nas_adb *adb, nas_phone *phone, bool *taken);
/* nas__phone_key - the key that lies on the phone; NOTFOUND. */
nas_status nas__phone_key(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                          uint8_t key[NAS_AGENT_KEY_BYTES]);
/* nas__phone_end - asks the agent to stop, else ends it by the pid it left, and waits until nobody listens. `key` may be
 * NULL. DEVICE when it does not end. */
nas_status nas__phone_end(nas_ctx *ctx, const nas_adb *adb, const char *serial, const uint8_t *key);
/* nas__phone_shell_failed - the problem that an exit code and its words mean. */
nas_status nas__phone_shell_failed(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                                   const char *what, const nas_adb_result *r);

/* ---- phone.c ---- */

typedef struct nas__phone_found {
    nas_phone_agent agent;
    uint8_t key[NAS_AGENT_KEY_BYTES]; /* when it runs */
    char version[32], holder[NAS_PHONE_HOLDER_BYTES];
    int64_t lease_left_ms;
} nas__phone_found;

/* nas__phone_look - who is there now? */
nas_status nas__phone_look(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                           nas__phone_found *out);
/* nas__phone_held - is the agent held by a controller that lives? */
bool nas__phone_held(const nas__phone_found *found);
bool nas__phone_holder_gone(const char *holder); /* ran on this machine, runs no longer */
nas_status nas__phone_refuse(nas_ctx *ctx, const char *serial, const nas__phone_found *found);

#endif
