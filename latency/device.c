/* device.c - the handle of one device: a private local agent, an agent over HTTP, a phone, or the simulated stand-in. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

enum { REOPEN_FIRST_MS = 100, REOPEN_LAST_MS = 3000, MEETINGS_MAX = 8 };

static nas_status set_text(nas_ctx *ctx, char **slot, const char *text) {
    *slot = nas_strdup(ctx, text);
    return *slot != NULL ? NAS_OK : NAS_ERR_NOMEM;
}

/* ---- simulated ---------------------------------------------------------------------------------------------------- */

static nas_status open_simulated(nas_ctx *ctx, nas_device *d) {
    char hash[NAS_SHA256_HEX];
    nas_buf info = {0};
    d->simulated = true;
    d->simulated_factor = 1;
    const char *factor = strchr(d->connect, ':');
    if (factor != NULL) {
        const nas_status parsed =
            nas_parse_double(ctx, "factor", factor + 1, 0.001, 1000, &d->simulated_factor);
        if (parsed != NAS_OK) return nas_wrap(ctx, parsed, "connect '%s'", d->connect);
    }
    char id[96];
    (void)snprintf(id, sizeof id, "%s%s%.32s", nas__simulated_id, factor == NULL ? "" : " x",
                   factor == NULL ? "" : factor + 1);
    nas_sha256_hex(id, strlen(id), hash);
    nas_status status = set_text(ctx, &d->fingerprint, hash);
    if (status != NAS_OK) return status;
    nas_json j = nas_json_begin(&info);
    nas_json_object(&j);
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, true);
    nas_json_key(&j, "agent");
    nas_json_string(&j, id);
    nas_json_key(&j, "fingerprint");
    nas_json_string(&j, hash);
    nas_json_object_end(&j);
    status = nas_buf_status(ctx, &info);
    if (status == NAS_OK) status = set_text(ctx, &d->info, info.data);
    nas_buf_deinit(&info);
    return status;
}

/* ---- agents ------------------------------------------------------------------------------------------------------- */

static nas_status replace_text(nas_ctx *ctx, char **slot, const char *text) {
    char *fresh = nas_strdup(ctx, text);
    if (fresh == NULL) return NAS_ERR_NOMEM;
    nas_free(*slot);
    *slot = fresh;
    return NAS_OK;
}

/* Asks who is there; checks key (through the signature) and protocol. */
static nas_status greet(nas_ctx *ctx, nas_device *d) {
    const nas__request request = {
        .method = "GET", .target = "/v1/info", .timeout_ms = NAS__REQUEST_MS};
    nas__reply reply = {0};
    int64_t protocol = 0;
    char fingerprint[NAS_SHA256_HEX] = "";
    nas_status status = nas__client_send(ctx, d->client, &request, &reply);
    if (status != NAS_OK) return status;
    if (reply.status != 200) {
        status = nas__reply_error(ctx, "GET /v1/info", &reply);
    } else {
        status = nas__json_member_int(ctx, &reply.body, "protocol", &protocol);
    }
    if (status == NAS_OK && protocol != NAS_AGENT_PROTOCOL) {
        status =
            nas_fail(ctx, NAS_ERR_DEVICE,
                     "the agent speaks protocol %" PRId64 ", this program %d; update the older",
                     protocol, (int)NAS_AGENT_PROTOCOL);
    }
    if (status == NAS_OK) {
        status =
            nas__json_member_text(ctx, &reply.body, "fingerprint", fingerprint, sizeof fingerprint);
    }
    /* Measurements before and after a reopening must be comparable. */
    if (status == NAS_OK && d->fingerprint != NULL && strcmp(d->fingerprint, fingerprint) != 0) {
        status = nas_fail(ctx, NAS_ERR_DEVICE,
                          "another machine answers than before (fingerprint %.12s, was %.12s); "
                          "start a new study for it",
                          fingerprint, d->fingerprint);
    }
    if (status == NAS_OK) status = replace_text(ctx, &d->fingerprint, fingerprint);
    if (status == NAS_OK) status = replace_text(ctx, &d->info, reply.body.data);
    if (status == NAS_OK) status = nas__facts_read(ctx, d);
    nas_buf_deinit(&reply.body);
    return status;
}

static nas_status connect_local(nas_ctx *ctx, nas_device *d) {
    uint8_t key[NAS_AGENT_KEY_BYTES];
    char base[64];
    nas_status status = nas__agent_start(ctx, d->agent_path, d->work_dir, &d->process, key);
    if (status != NAS_OK) return status;
    (void)snprintf(base, sizeof base, "http://127.0.0.1:%d", d->process.port);
    status = nas__client_new(ctx, base, key, &d->client);
    return status == NAS_OK ? greet(ctx, d) : status;
}

/* "http://host:port", nothing after it. */
static bool base_ok(const char *text) {
    const char *host = text + strlen("http://"), *colon = strrchr(host, ':');
    int64_t port = 0;
    if (colon == NULL || colon == host || strchr(host, '/') != NULL || strchr(host, '@') != NULL)
        return false;
    return nas_parse_i64(NULL, "port", colon + 1, 1, 65535, &port) == NAS_OK;
}

static nas_status connect_http(nas_ctx *ctx, nas_device *d) {
    uint8_t key[NAS_AGENT_KEY_BYTES];
    if (!base_ok(d->connect)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "connect '%s': need http://HOST:PORT", d->connect);
    }
    if (d->key_file == NULL || d->key_file[0] == '\0') {
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "connect '%s': key_file is missing; copy the agent's key (nas-agent keygen)",
            d->connect);
    }
    nas_status status = nas_agent_key_read(ctx, d->key_file, key);
    if (status == NAS_OK) status = nas__client_new(ctx, d->connect, key, &d->client);
    if (status == NAS_OK) status = greet(ctx, d);
    return status == NAS_OK ? nas__loan_begin(ctx, d) : status;
}

/* Ends the session; what answers no longer is ended by force or left to its own deadlines. */
static void disconnect_device(nas_device *d) {
    if (d->process.pid > 0 && d->client != NULL) {
        const nas__request stop = {
            .method = "POST", .target = "/v1/stop", .timeout_ms = 1000, .no_cancel = true};
        nas__reply reply = {0};
        (void)nas__client_send(NULL, d->client, &stop,
                               &reply); /* if it does not listen, it is killed below */
        nas_buf_deinit(&reply.body);
    }
    nas__loan_end(d);
    nas__client_free(d->client);
    d->client = NULL;
    nas__agent_end(&d->process);
    nas_phone_close(&d->phone);
}

static nas_status connect_phone_once(nas_ctx *ctx, nas_device *d, const char *serial, bool again) {
    const nas_phone_options options = {
        .serial = serial, .agents_dir = d->agents_dir, .again = again};
    char base[64];
    nas_status status = nas_phone_open(ctx, &options, &d->phone);
    if (status != NAS_OK) return status;
    (void)snprintf(d->facts.serial, sizeof d->facts.serial, "%s", d->phone.serial);
    (void)snprintf(d->facts.model, sizeof d->facts.model, "%s", d->phone.model);
    (void)snprintf(base, sizeof base, "http://127.0.0.1:%d", d->phone.port);
    status = nas__client_new(ctx, base, d->phone.key, &d->client);
    if (status == NAS_OK) status = greet(ctx, d);
    if (status == NAS_OK) status = nas__loan_begin(ctx, d);
    return nas_wrap(ctx, status, "%s", d->phone.serial);
}

/* "adb:", "adb:SERIAL" or "adb:*"; whichever phone it was the first time is the one that is reopened. Two who take any
 * phone at the same moment may meet on one: who comes second looks again. */
static nas_status connect_phone(nas_ctx *ctx, nas_device *d) {
    char serial[NAS_ADB_SERIAL_BYTES];
    if (d->fingerprint != NULL) {
        (void)snprintf(serial, sizeof serial, "%s", d->facts.serial);
        return connect_phone_once(ctx, d, serial, true);
    }
    const bool any = strcmp(d->connect, "adb:*") == 0;
    nas_status status = NAS_ERR_DEVICE;
    for (int i = 0; i < (any ? MEETINGS_MAX : 1); i++) {
        status = connect_phone_once(ctx, d, d->connect + 4, false);
        if (status != NAS_ERR_DEVICE || d->phone.serial[0] == '\0' || d->fingerprint == NULL) break;
        if (i + 1 == MEETINGS_MAX || !any) break;
        disconnect_device(d);
        nas_free(d->fingerprint);
        d->fingerprint = NULL;
    }
    return status;
}

static nas_status connect_device(nas_ctx *ctx, nas_device *d) {
    switch (d->kind) {
    case NAS__DEVICE_SIMULATED: return NAS_OK;
    case NAS__DEVICE_LOCAL: return connect_local(ctx, d);
    case NAS__DEVICE_HTTP: return connect_http(ctx, d);
    case NAS__DEVICE_PHONE: return connect_phone(ctx, d);
    }
    return nas_fail(ctx, NAS_ERR_INTERNAL, "device kind %d", (int)d->kind);
}

/* ---- handle ------------------------------------------------------------------------------------------------------- */

nas_device_options nas_device_options_default(void) {
    return (nas_device_options){.name = "device",
                                .connect = "local",
                                .threads = 1,
                                .cores = "",
                                .mode = NAS_DEVICE_BURST,
                                .sustained_s = 300,
                                .frequency = ""};
}

/* "", a cluster, or numbers, commas and dashes: what the agent accepts. */
static bool cpus_ok(const char *cpus) {
    return strcmp(cpus, "big") == 0 || strcmp(cpus, "little") == 0 ||
           (strlen(cpus) < 64 && cpus[strspn(cpus, "0123456789,-")] == '\0');
}

/* "", "max", or MHz values; whether there is one for every cluster the agent knows. */
static bool frequency_ok(const char *text) {
    return text == NULL || text[0] == '\0' || strcmp(text, "max") == 0 ||
           (strlen(text) < 64 && text[strspn(text, "0123456789,")] == '\0');
}

static nas_status check_conditions(nas_ctx *ctx, const nas_device_options *o) {
    if (!cpus_ok(o->cores)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "cores '%s': need big, little or a list like 0,1 or 0-3", o->cores);
    }
    if (!frequency_ok(o->frequency)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "frequency '%s': need max, or MHz of each cluster from the smallest to the "
                        "largest, like 1800,2400",
                        o->frequency);
    }
    if (o->mode == NAS_DEVICE_SUSTAINED &&
        (o->sustained_s < 1 || o->sustained_s > NAS_AGENT_SUSTAINED_S_MAX)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "sustained_s %d: need 1 to %d", (int)o->sustained_s,
                        (int)NAS_AGENT_SUSTAINED_S_MAX);
    }
    if (!(o->max_temperature_c >= 0 && o->max_temperature_c <= 150)) {
        return nas_fail(ctx, NAS_ERR_RANGE, "max_temperature_c %g: need 0 (none) to 150",
                        o->max_temperature_c);
    }
    return NAS_OK;
}

static nas_status copy_optional(nas_ctx *ctx, char **slot, const char *text) {
    return text != NULL ? set_text(ctx, slot, text) : NAS_OK;
}

/* What a reopening needs again. */
static nas_status keep_options(nas_ctx *ctx, const nas_device_options *o, nas_device *d) {
    d->threads = o->threads;
    d->mode = o->mode;
    d->sustained_s = o->sustained_s;
    d->gate_ms = NAS_AGENT_GATE_MS;
    d->max_temperature_c = o->max_temperature_c;
    d->lease_ms = o->lease_ms;
    nas_status status = set_text(ctx, &d->name, o->name);
    if (status == NAS_OK)
        status = set_text(ctx, &d->frequency, o->frequency != NULL ? o->frequency : "");
    if (status == NAS_OK) status = set_text(ctx, &d->connect, o->connect);
    if (status == NAS_OK) status = set_text(ctx, &d->cpus, o->cores);
    if (status == NAS_OK) status = copy_optional(ctx, &d->agent_path, o->agent_path);
    if (status == NAS_OK) status = copy_optional(ctx, &d->agents_dir, o->agents_dir);
    if (status == NAS_OK) status = copy_optional(ctx, &d->key_file, o->key_file);
    if (status == NAS_OK) status = copy_optional(ctx, &d->work_dir, o->work_dir);
    return status;
}

static nas_status open_any(nas_ctx *ctx, const nas_device_options *o, nas_device *d) {
    if (o->threads < 1 || o->threads > 64) {
        return nas_fail(ctx, NAS_ERR_RANGE, "threads %d: need 1 to 64", (int)o->threads);
    }
    nas_status status = check_conditions(ctx, o);
    if (status == NAS_OK) status = keep_options(ctx, o, d);
    if (status != NAS_OK) return status;
    if (strcmp(o->connect, "simulated") == 0 || strncmp(o->connect, "simulated:", 10) == 0) {
        d->kind = NAS__DEVICE_SIMULATED;
        return open_simulated(ctx, d);
    }
    if (strcmp(o->connect, "local") == 0) {
        d->kind = NAS__DEVICE_LOCAL;
    } else if (strncmp(o->connect, "http://", 7) == 0) {
        d->kind = NAS__DEVICE_HTTP;
    } else if (strncmp(o->connect, "adb:", 4) == 0) {
        d->kind = NAS__DEVICE_PHONE;
    } else {
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "connect '%s': need local, simulated, http://HOST:PORT, adb:SERIAL or adb:*",
            o->connect);
    }
    return connect_device(ctx, d);
}

nas_status nas_device_open(nas_ctx *ctx, const nas_device_options *options, nas_device **out) {
    nas_device *d = nas_alloc_array(ctx, 1, sizeof *d);
    if (d == NULL) return NAS_ERR_NOMEM;
    const nas_status status = open_any(ctx, options, d);
    if (status != NAS_OK) {
        nas_device_close(d);
        return nas_wrap(ctx, status, "device %s", options->name);
    }
    *out = d;
    return NAS_OK;
}

void nas_device_close(nas_device *d) {
    if (d == NULL) return;
    disconnect_device(d);
    char *const texts[] = {d->name,        d->connect,    d->cpus,     d->info,
                           d->fingerprint, d->agent_path, d->features, d->key_file,
                           d->agents_dir,  d->work_dir,   d->frequency};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        nas_free(texts[i]);
    nas__repeat_deinit(&d->repeat);
    nas_free(d);
}

/* ---- lost and found ------------------------------------------------------------------------------------------------ */

static bool lost(nas_status status) {
    return status == NAS_ERR_NET || status == NAS_ERR_TIMEOUT;
}

/* Sleeps in naps, so that a cancel is seen. */
static nas_status wait_ms(nas_ctx *ctx, int64_t ms) {
    const int64_t end = nas_now_ns() + ms * 1000000;
    while (nas_now_ns() < end) {
        const struct timespec nap = {0, 20 * 1000000};
        const nas_status status = nas_check_cancel(ctx);
        if (status != NAS_OK) return status;
        (void)nanosleep(&nap, NULL); /* a signal may shorten it */
    }
    return NAS_OK;
}

/* A phone's return is told by the adb server; others are asked again after the pause. */
static nas_status wait_for_return(nas_ctx *ctx, const nas_device *d, int64_t ms) {
    const int64_t end = nas_now_ns() + ms * 1000000;
    nas_adb adb;
    if (d->facts.serial[0] != '\0' && nas_adb_default(ctx, &adb) == NAS_OK) {
        const nas_status status = wait_ms(ctx, ms < REOPEN_FIRST_MS ? ms : REOPEN_FIRST_MS);
        if (status != NAS_OK) return status;
        if (nas_adb_wait(ctx, &adb, d->facts.serial, ms) == NAS_OK) return NAS_OK;
    }
    const int64_t left = (end - nas_now_ns()) / 1000000;
    return wait_ms(ctx, left > 0 ? left : 0);
}

nas_status nas_device_reopen(nas_ctx *ctx, nas_device *d, int64_t deadline_ms) {
    const int64_t end = nas_now_ns() + deadline_ms * 1000000;
    int64_t pause = REOPEN_FIRST_MS;
    if (deadline_ms < 0)
        return nas_fail(ctx, NAS_ERR_RANGE, "device %s: deadline %" PRId64 " ms", d->name,
                        deadline_ms);
    for (;;) {
        disconnect_device(d);
        nas_status status = connect_device(ctx, d);
        if (!lost(status)) return nas_wrap(ctx, status, "device %s", d->name);
        const int64_t left = (end - nas_now_ns()) / 1000000;
        if (left <= 0) return nas_wrap(ctx, status, "device %s", d->name);
        nas_log(ctx, NAS_LOG_INFO, "device.lost name=%s retry_ms=%" PRId64 " reason=\"%s\"",
                d->name, pause < left ? pause : left, nas_ctx_message(ctx));
        status = wait_for_return(ctx, d, pause < left ? pause : left);
        if (status != NAS_OK) return status;
        pause = pause * 2 < REOPEN_LAST_MS ? pause * 2 : REOPEN_LAST_MS;
    }
}

/* ---- what is known --------------------------------------------------------------------------------------------------- */

const char *nas_device_name(const nas_device *device) {
    return device->name;
}

bool nas_device_is_simulated(const nas_device *device) {
    return device->simulated || device->facts.virtual_clock;
}

bool nas_device_is_local(const nas_device *device) {
    return device->kind == NAS__DEVICE_LOCAL;
}

const char *nas_device_info_json(const nas_device *device) {
    return device->info;
}

const char *nas_device_fingerprint(const nas_device *device) {
    return device->fingerprint;
}

nas_status nas_device_alive(nas_ctx *ctx, nas_device *device) {
    if (device->simulated) return NAS_OK;
    if (device->client == NULL)
        return nas_fail(ctx, NAS_ERR_NET, "device %s is not connected", device->name);
    const nas__request request = {
        .method = "GET", .target = "/v1/info", .timeout_ms = NAS__REQUEST_MS};
    nas__reply reply = {0};
    nas_status status = nas__client_send(ctx, device->client, &request, &reply);
    if (status == NAS_OK && reply.status != 200) {
        status = nas__reply_error(ctx, "GET /v1/info", &reply);
    }
    nas_buf_deinit(&reply.body);
    return status;
}
