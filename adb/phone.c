/* phone.c - opening a phone: look who is there, use or replace or start the agent, lead a port to it. */
#include "adb/phone_internal.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { TRIES = 5, TRY_PAUSE_MS = 200, QUICK_MS = 3000, FORWARDS_MAX = 64 };

/* ---- holders --------------------------------------------------------------------------------------------------------- */

/* Characters that may be in a query. */
static void put_name(char *out, size_t size, const char *text) {
    size_t n = 0;
    for (; text[n] != '\0' && n + 1 < size; n++) {
        const char c = text[n];
        const bool ok = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
        out[n] = (char)(ok ? c : '_');
    }
    out[n] = '\0';
}

static void host_name(char *out, size_t size) {
    char host[64] = "";
    if (gethostname(host, sizeof host - 1) != 0 || host[0] == '\0')
        (void)snprintf(host, sizeof host, "host");
    put_name(out, size, host);
}

void nas_phone_holder(char out[NAS_PHONE_HOLDER_BYTES]) {
    const char *user = getenv("USER");
    char name[20], host[28];
    put_name(name, sizeof name, user != NULL && user[0] != '\0' ? user : "user");
    host_name(host, sizeof host);
    (void)snprintf(out, NAS_PHONE_HOLDER_BYTES, "%s/%s/%ld", name, host, (long)getpid());
}

bool nas__phone_holder_gone(const char *holder) {
    char host[28];
    int64_t pid = 0;
    const char *first = strchr(holder, '/'), *last = strrchr(holder, '/');
    host_name(host, sizeof host);
    if (first == NULL || last == first || (size_t)(last - first - 1) != strlen(host) ||
        memcmp(first + 1, host, strlen(host)) != 0 ||
        nas_parse_i64(NULL, "pid", last + 1, 1, INT32_MAX, &pid) != NAS_OK) {
        return false;
    }
    return kill((pid_t)pid, 0) != 0 && errno == ESRCH;
}

bool nas__phone_held(const nas__phone_found *found) {
    return found->agent == NAS_PHONE_AGENT_RUNS && found->holder[0] != '\0' &&
           !nas__phone_holder_gone(found->holder);
}

nas_status nas__phone_refuse(nas_ctx *ctx, const char *serial, const nas__phone_found *found) {
    char said[160];
    (void)snprintf(said, sizeof said, "%s; its lease ends in %" PRId64 " s unless renewed",
                   found->holder, (found->lease_left_ms + 999) / 1000);
    return nas__adb_problem_fail(ctx, NAS__ADB_HELD, serial, said);
}

/* ---- who is there ------------------------------------------------------------------------------------------------------- */

nas_status nas__phone_look(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                           nas__phone_found *out) {
    nas__phone_found found = {.agent = NAS_PHONE_NO_AGENT};
    int http = 0;
    nas_buf body = {0};
    nas_status status = nas__phone_key(ctx, adb, serial, found.key);
    const bool no_key = status == NAS_ERR_NOTFOUND;
    if (status == NAS_OK || no_key) /* without a key: any will do to see whether somebody listens */
        status = nas__phone_ask(ctx, adb, serial, found.key, "GET", "/v1/info", &http, &body);
    if (status == NAS_ERR_NOTFOUND) {
        status = NAS_OK;
    } else if (status == NAS_ERR_DEVICE || status == NAS_ERR_PARSE) {
        found.agent = NAS_PHONE_AGENT_OTHER_KEY;
        status = NAS_OK;
    } else if (status == NAS_OK) {
        const char *json = body.data != NULL ? body.data : "";
        const char *session = strstr(json, "\"session\":");
        found.agent = NAS_PHONE_AGENT_RUNS;
        nas__phone_json_text(json, "\"version\":", found.version, sizeof found.version);
        if (session != NULL && strncmp(session + 10, "null", 4) != 0) {
            nas__phone_json_text(session, "\"holder\":", found.holder, sizeof found.holder);
            found.lease_left_ms = nas__phone_json_int(session, "\"lease_left_ms\":");
        }
    }
    nas_buf_deinit(&body);
    if (status == NAS_OK) *out = found;
    return status;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------- */

typedef struct opening {
    nas_adb adb;
    nas_phone phone;
    nas__phone_program program;
    bool again;
} opening;

static nas_status ensure_program(nas_ctx *ctx, opening *o) {
    bool current = false;
    nas_status status = nas__phone_has(ctx, &o->adb, o->phone.serial, o->program.sha256, &current);
    if (status != NAS_OK || current) return status;
    status = nas__phone_send(ctx, &o->adb, o->phone.serial, &o->program);
    o->phone.sent = status == NAS_OK;
    return status;
}

static bool ours(const nas__phone_found *found) {
    char holder[NAS_PHONE_HOLDER_BYTES];
    nas_phone_holder(holder);
    return strcmp(holder, found->holder) == 0;
}

/* One look and what follows from it; *done when an agent with a key of ours runs. */
static nas_status step(nas_ctx *ctx, opening *o, bool last, bool *done) {
    nas__phone_found found = {0};
    const char *serial = o->phone.serial;
    bool current = false, taken = false;
    nas_status status = nas__phone_look(ctx, &o->adb, serial, &found);
    if (status != NAS_OK) return status;
    switch (found.agent) {
    case NAS_PHONE_AGENT_RUNS:
        if (nas__phone_held(&found) && !(o->again && ours(&found)))
            return nas__phone_refuse(ctx, serial, &found);
        status = nas__phone_has(ctx, &o->adb, serial, o->program.sha256, &current);
        if (status != NAS_OK) return status;
        if (current && found.holder[0] == '\0') {
            memcpy(o->phone.key, found.key, sizeof o->phone.key);
            *done = true;
            return NAS_OK;
        }
        status = nas__phone_end(ctx, &o->adb, serial, found.key);
        break;
    case NAS_PHONE_AGENT_OTHER_KEY:
        if (!last) return NAS_OK; /* its controller may be about to put the key in place */
        nas_log(ctx, NAS_LOG_WARN, "phone.other_key serial=%s: agent replaced", serial);
        status = nas__phone_end(ctx, &o->adb, serial, NULL);
        break;
    case NAS_PHONE_NO_AGENT: break;
    }
    if (status == NAS_OK) status = ensure_program(ctx, o);
    if (status == NAS_OK) status = nas__phone_start(ctx, &o->adb, &o->phone, &taken);
    *done = status == NAS_OK && !taken;
    return status;
}

static nas_status open_agent(nas_ctx *ctx, opening *o) {
    bool done = false;
    nas_status status = NAS_OK;
    for (int i = 0; i < TRIES && status == NAS_OK && !done; i++) {
        const struct timespec pause = {0, (long)TRY_PAUSE_MS * 1000000};
        if (i > 0) (void)nanosleep(&pause, NULL);
        status = step(ctx, o, i >= TRIES - 2, &done);
    }
    if (status == NAS_OK && !done)
        status = nas__adb_problem_fail(ctx, NAS__ADB_OTHER_KEY, o->phone.serial, "");
    return status;
}

static nas_status open_one(nas_ctx *ctx, const nas_phone_options *options, const nas_adb *adb,
                           const char *serial, nas_phone *out) {
    opening o = {.adb = *adb, .again = options->again};
    (void)snprintf(o.phone.serial, sizeof o.phone.serial, "%s", serial);
    nas_status status = nas__phone_identify(ctx, adb, &o.phone);
    if (status == NAS_OK)
        status = nas__phone_program_read(ctx, options->agents_dir, &o.phone, &o.program);
    if (status == NAS_OK) status = open_agent(ctx, &o);
    nas_buf_deinit(&o.program.bytes);
    if (status == NAS_OK) *out = o.phone;
    return status;
}

/* "adb:*": the first of all usable phones that opens; the last refusal when none does. */
static nas_status open_any(nas_ctx *ctx, const nas_phone_options *options, const nas_adb *adb,
                           nas_phone *out) {
    nas_adb_device list[NAS_ADB_DEVICES_MAX];
    size_t n = 0, ready = 0;
    nas_status status = nas_adb_devices(ctx, adb, list, NAS_ADB_DEVICES_MAX, &n);
    if (status != NAS_OK) return status;
    for (size_t i = 0; i < n; i++) {
        if (list[i].state != NAS_ADB_READY) continue;
        ready++;
        status = open_one(ctx, options, adb, list[i].serial, out);
        if (status == NAS_OK || status == NAS_ERR_CANCELLED) return status;
        nas_log(ctx, NAS_LOG_INFO, "phone.passed serial=%s reason=\"%s\"", list[i].serial,
                nas_ctx_message(ctx));
    }
    if (ready > 0) return status;
    if (n == 0) return nas__adb_problem_fail(ctx, NAS__ADB_NONE, "adb", "");
    return nas__adb_problem_fail(ctx, nas__adb_problem_of_state(list[0].state), list[0].serial,
                                 list[0].state_text);
}

static nas_status open_agent_of(nas_ctx *ctx, const nas_phone_options *options, nas_adb *adb,
                                nas_phone *out) {
    nas_adb_device device;
    nas_status status = nas_adb_default(ctx, adb);
    if (status == NAS_OK) status = nas_adb_start(ctx, adb);
    if (status != NAS_OK) return status;
    if (strcmp(options->serial, "*") == 0) return open_any(ctx, options, adb, out);
    status = nas_adb_find(ctx, adb, options->serial, &device);
    return status == NAS_OK ? open_one(ctx, options, adb, device.serial, out) : status;
}

/* Forwards of controllers that were killed; they lead to an agent that has ended. */
static void remove_forwards(const nas_adb *adb, const char *serial) {
    int port = 0;
    for (int i = 0; i < FORWARDS_MAX; i++) {
        if (nas_adb_forward_find(NULL, adb, serial, NAS_PHONE_SOCKET, &port) != NAS_OK ||
            nas_adb_forward_remove(NULL, adb, serial, port) != NAS_OK) {
            return; /* one that stays does no harm */
        }
    }
}

nas_status nas_phone_open(nas_ctx *ctx, const nas_phone_options *options, nas_phone *out) {
    nas_adb adb;
    nas_phone phone = {0};
    nas_status status = open_agent_of(ctx, options, &adb, &phone);
    if (status != NAS_OK) return status;
    if (phone.started) remove_forwards(&adb, phone.serial);
    status = nas_adb_forward(ctx, &adb, phone.serial, NAS_PHONE_SOCKET, &phone.port);
    if (status != NAS_OK) {
        nas_phone_close(&phone);
        return status;
    }
    *out = phone;
    return NAS_OK;
}

void nas_phone_close(nas_phone *phone) {
    nas_adb adb;
    if (phone->serial[0] == '\0' || nas_adb_default(NULL, &adb) != NAS_OK) return;
    adb.timeout_ms = QUICK_MS; /* at the end of a program nobody likes to wait for a lost phone */
    if (phone->port > 0) (void)nas_adb_forward_remove(NULL, &adb, phone->serial, phone->port);
    if (phone->started) (void)nas__phone_end(NULL, &adb, phone->serial, phone->key);
    *phone = (nas_phone){0};
}

nas_status nas_phone_deploy(nas_ctx *ctx, const nas_phone_options *options, nas_phone *out) {
    nas_adb adb;
    nas_phone phone = {0};
    nas_status status = open_agent_of(ctx, options, &adb, &phone);
    if (status != NAS_OK) return status;
    status = nas_adb_forward_find(ctx, &adb, phone.serial, NAS_PHONE_SOCKET, &phone.port);
    if (status == NAS_ERR_NOTFOUND)
        status = nas_adb_forward(ctx, &adb, phone.serial, NAS_PHONE_SOCKET, &phone.port);
    if (status == NAS_OK) *out = phone;
    return status;
}

/* ---- for people ------------------------------------------------------------------------------------------------------------ */

static nas_status find(nas_ctx *ctx, const char *serial, nas_adb *adb, nas_adb_device *device) {
    nas_status status = nas_adb_default(ctx, adb);
    if (status == NAS_OK) status = nas_adb_start(ctx, adb);
    if (status == NAS_OK) status = nas_adb_find(ctx, adb, serial, device);
    return status;
}

nas_status nas_phone_status_of(nas_ctx *ctx, const char *serial, nas_phone_status *out) {
    nas_adb adb;
    nas_phone_status s = {0};
    nas__phone_found found = {0};
    nas_status status = find(ctx, serial, &adb, &s.device);
    if (status == NAS_OK) status = nas__phone_look(ctx, &adb, s.device.serial, &found);
    if (status == NAS_OK)
        status = nas_adb_forward_find(ctx, &adb, s.device.serial, NAS_PHONE_SOCKET, &s.port);
    if (status == NAS_ERR_NOTFOUND) status = NAS_OK;
    if (status != NAS_OK) return status;
    s.agent = found.agent;
    s.lease_left_ms = found.lease_left_ms;
    memcpy(s.version, found.version, sizeof s.version);
    memcpy(s.holder, found.holder, sizeof s.holder);
    *out = s;
    return NAS_OK;
}

nas_status nas_phone_stop(nas_ctx *ctx, const char *serial, bool force, bool *was_running) {
    nas_adb adb;
    nas_adb_device device;
    nas__phone_found found = {0};
    nas_status status = find(ctx, serial, &adb, &device);
    if (status == NAS_OK) status = nas__phone_look(ctx, &adb, device.serial, &found);
    if (status != NAS_OK) return status;
    if (!force && nas__phone_held(&found)) return nas__phone_refuse(ctx, device.serial, &found);
    if (found.agent != NAS_PHONE_NO_AGENT) {
        const bool ours = found.agent == NAS_PHONE_AGENT_RUNS;
        status = nas__phone_end(ctx, &adb, device.serial, ours ? found.key : NULL);
    }
    if (status == NAS_OK) remove_forwards(&adb, device.serial);
    if (status == NAS_OK && was_running != NULL) *was_running = found.agent != NAS_PHONE_NO_AGENT;
    return status;
}

nas_status nas_phone_log(nas_ctx *ctx, const char *serial, nas_buf *out) {
    nas_adb adb;
    nas_adb_device device;
    const nas_status status = find(ctx, serial, &adb, &device);
    if (status != NAS_OK) return status;
    return nas_adb_pull(ctx, &adb, device.serial, NAS_PHONE_DIR "/agent.log", 2 * NAS_AGENT_LOG_MAX,
                        out);
}
