/* device.c - the handle of one device: a private local agent, an agent over HTTP, or the simulated stand-in. */
#include "latency/device_internal.h"

#include <stdio.h>
#include <string.h>

static nas_status set_text(nas_ctx *ctx, char **slot, const char *text) {
    *slot = nas_strdup(ctx, text);
    return *slot != NULL ? NAS_OK : NAS_ERR_NOMEM;
}

/* ---- simulated ---------------------------------------------------------------------------------------------------- */

static nas_status open_simulated(nas_ctx *ctx, nas_device *d) {
    char hash[NAS_SHA256_HEX];
    nas_buf info = {0};
    d->simulated = true;
    nas_sha256_hex(nas__simulated_id, strlen(nas__simulated_id), hash);
    nas_status status = set_text(ctx, &d->fingerprint, hash);
    if (status != NAS_OK) return status;
    nas_json j = nas_json_begin(&info);
    nas_json_object(&j);
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, true);
    nas_json_key(&j, "agent");
    nas_json_string(&j, nas__simulated_id);
    nas_json_key(&j, "fingerprint");
    nas_json_string(&j, hash);
    nas_json_object_end(&j);
    status = nas_buf_status(ctx, &info);
    if (status == NAS_OK) status = set_text(ctx, &d->info, info.data);
    nas_buf_deinit(&info);
    return status;
}

/* ---- agents ------------------------------------------------------------------------------------------------------- */

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
    if (status == NAS_OK) status = set_text(ctx, &d->fingerprint, fingerprint);
    if (status == NAS_OK) status = set_text(ctx, &d->info, reply.body.data);
    nas_buf_deinit(&reply.body);
    return status;
}

static nas_status open_local(nas_ctx *ctx, const nas_device_options *o, nas_device *d) {
    uint8_t key[NAS_AGENT_KEY_BYTES];
    char base[64];
    d->local = true;
    nas_status status = nas__agent_start(ctx, o->agent_path, o->work_dir, &d->process, key);
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

static nas_status open_http(nas_ctx *ctx, const nas_device_options *o, nas_device *d) {
    uint8_t key[NAS_AGENT_KEY_BYTES];
    if (!base_ok(o->connect)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "connect '%s': need http://HOST:PORT", o->connect);
    }
    if (o->key_file == NULL || o->key_file[0] == '\0') {
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "connect '%s': key_file is missing; copy the agent's key (nas-agent keygen)",
            o->connect);
    }
    nas_status status = nas_agent_key_read(ctx, o->key_file, key);
    if (status == NAS_OK) status = nas__client_new(ctx, o->connect, key, &d->client);
    return status == NAS_OK ? greet(ctx, d) : status;
}

/* ---- handle ------------------------------------------------------------------------------------------------------- */

/* "" or numbers, commas and dashes: what the agent accepts. */
nas_device_options nas_device_options_default(void) {
    return (nas_device_options){.name = "device",
                                .connect = "local",
                                .threads = 1,
                                .cores = "",
                                .mode = NAS_DEVICE_BURST,
                                .sustained_s = 300,
                                .frequency = ""};
}

static bool cpus_ok(const char *cpus) {
    return strlen(cpus) < 64 && cpus[strspn(cpus, "0123456789,-")] == '\0';
}

static nas_status open_any(nas_ctx *ctx, const nas_device_options *o, nas_device *d) {
    if (o->threads < 1 || o->threads > 64) {
        return nas_fail(ctx, NAS_ERR_RANGE, "threads %d: need 1 to 64", (int)o->threads);
    }
    if (!cpus_ok(o->cores))
        return nas_fail(ctx, NAS_ERR_INVALID, "cores '%s': need a list like 0,1 or 0-3", o->cores);
    d->threads = o->threads;
    nas_status status = set_text(ctx, &d->name, o->name);
    if (status == NAS_OK) status = set_text(ctx, &d->cpus, o->cores);
    if (status != NAS_OK) return status;
    if (strcmp(o->connect, "simulated") == 0) return open_simulated(ctx, d);
    if (strcmp(o->connect, "local") == 0) return open_local(ctx, o, d);
    if (strncmp(o->connect, "http://", 7) == 0) return open_http(ctx, o, d);
    return nas_fail(ctx, NAS_ERR_INVALID, "connect '%s': need local, simulated or http://HOST:PORT",
                    o->connect);
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
    if (d->process.pid > 0 && d->client != NULL) {
        const nas__request stop = {
            .method = "POST", .target = "/v1/stop", .timeout_ms = 1000, .no_cancel = true};
        nas__reply reply = {0};
        (void)nas__client_send(NULL, d->client, &stop,
                               &reply); /* if it does not listen, it is killed below */
        nas_buf_deinit(&reply.body);
    }
    nas__client_free(d->client);
    nas__agent_end(&d->process);
    nas_free(d->name);
    nas_free(d->cpus);
    nas_free(d->info);
    nas_free(d->fingerprint);
    nas_free(d);
}

const char *nas_device_name(const nas_device *device) {
    return device->name;
}

bool nas_device_is_simulated(const nas_device *device) {
    return device->simulated;
}

bool nas_device_is_local(const nas_device *device) {
    return device->local;
}

const char *nas_device_info_json(const nas_device *device) {
    return device->info;
}

const char *nas_device_fingerprint(const nas_device *device) {
    return device->fingerprint;
}

nas_status nas_device_alive(nas_ctx *ctx, nas_device *device) {
    if (device->simulated) return NAS_OK;
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
