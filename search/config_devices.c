/* config_devices.c - rules of [[device]]: names, addresses, cores, pools and what each is compiled for. */
#include "search/config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PROBLEM(doc, path, ...)                                                                    \
    nas__config_problem_add((doc), nas__config_place_of((doc), (path)), (path), __VA_ARGS__)

enum { DEVICE_PATH_MAX = 64 };

static void device_path(char path[DEVICE_PATH_MAX], int32_t index, const char *key) {
    (void)snprintf(path, DEVICE_PATH_MAX, "device[%" PRId32 "].%s", index, key);
}

/* ---- addresses --------------------------------------------------------------------------------------------------- */

/* "http://host:port" with a port of 1..65535 and nothing after it. */
static bool is_http_address(const char *connect) {
    if (strncmp(connect, "http://", 7) != 0) return false;
    const char *host = connect + 7;
    const char *colon = strrchr(host, ':');
    if (colon == NULL || colon == host) return false;
    const size_t legal =
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-[]:");
    if (legal != strlen(host)) return false;
    int64_t port = 0;
    return colon[1] != '\0' && strspn(colon + 1, "0123456789") == strlen(colon + 1) &&
           nas_parse_i64(NULL, "port", colon + 1, 1, 65535, &port) == NAS_OK;
}

static bool is_http(const char *connect) {
    return strncmp(connect, "http:", 5) == 0;
}

/* "adb:*", or the serial that `adb devices` prints, which may be an address. */
static bool is_adb_address(const char *connect) {
    if (strncmp(connect, "adb:", 4) != 0) return false;
    const char *serial = connect + 4;
    const size_t legal =
        strspn(serial, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._:-");
    return strcmp(serial, "*") == 0 || (serial[0] != '\0' && legal == strlen(serial));
}

static bool is_simulated(const char *connect) {
    if (strcmp(connect, "simulated") == 0) return true;
    double factor = 0;
    return strncmp(connect, "simulated:", 10) == 0 && connect[10] >= '0' && connect[10] <= '9' &&
           nas_parse_double(NULL, "factor", connect + 10, 0.001, 1000, &factor) == NAS_OK;
}

static void check_connect(nas__config_doc *doc, const nas_config_device *d, int32_t index) {
    char path[DEVICE_PATH_MAX];
    device_path(path, index, "connect");
    if (strcmp(d->connect, "local") != 0 && !is_simulated(d->connect) &&
        !is_http_address(d->connect) && !is_adb_address(d->connect)) {
        PROBLEM(doc, path,
                "\"%s\" is not \"local\", \"http://host:port\", \"adb:SERIAL\", \"adb:*\", "
                "\"simulated\" or \"simulated:FACTOR\" (0.001..1000)",
                nas__config_shown(doc, d->connect));
        return;
    }
    device_path(path, index, "key_file");
    if (is_http(d->connect) && d->key_file[0] == '\0') {
        PROBLEM(doc, path, "an http device needs the file with its agent's key");
    } else if (!is_http(d->connect) && d->key_file[0] != '\0') {
        PROBLEM(doc, path, "only http devices have a key file; remove it");
    }
}

/* ---- cores, targets ---------------------------------------------------------------------------------------------- */

/* "0,1", "0-3", "0-1,4"; *n = how many; false when malformed. */
static bool read_cores(const char *cores, int32_t *n) {
    *n = 0;
    for (const char *p = cores;;) {
        char *end = NULL;
        if (strspn(p, "0123456789") == 0 || strspn(p, "0123456789") > 4) return false;
        const long first = strtol(p, &end, 10);
        long last = first;
        if (*end == '-') {
            p = end + 1;
            if (strspn(p, "0123456789") == 0 || strspn(p, "0123456789") > 4) return false;
            last = strtol(p, &end, 10);
        }
        if (last < first) return false;
        *n += (int32_t)(last - first + 1);
        if (*end == '\0') return true;
        if (*end != ',') return false;
        p = end + 1;
    }
}

static void check_cores(nas__config_doc *doc, const nas_config_device *d, int32_t index) {
    if (d->cores[0] == '\0' || strcmp(d->cores, "big") == 0 || strcmp(d->cores, "little") == 0)
        return;
    char path[DEVICE_PATH_MAX];
    device_path(path, index, "cores");
    int32_t n = 0;
    if (!read_cores(d->cores, &n)) {
        PROBLEM(doc, path,
                "\"%s\" is not \"big\", \"little\" or core numbers such as \"0,1\", \"0-3\"",
                nas__config_shown(doc, d->cores));
    } else if (n < d->threads) {
        PROBLEM(doc, path, "%" PRId32 " cores for %" PRId32 " threads: name one core a thread", n,
                d->threads);
    }
}

/* A phone never runs what is made for this machine. */
static void check_target(nas__config_doc *doc, const nas_config *c, int32_t index) {
    const nas_config_device *d = &c->devices[index];
    const char *target = d->target[0] == '\0' ? c->compile.target : d->target;
    if (strncmp(d->connect, "adb:", 4) != 0 || strcmp(target, "native") != 0) return;
    char path[DEVICE_PATH_MAX];
    device_path(path, index, "target");
    if (d->target[0] == '\0') (void)snprintf(path, sizeof path, "compile.target");
    PROBLEM(doc, path,
            "\"native\" is this machine, and device '%s' is a phone: write \"auto\" or a target's "
            "name",
            nas__config_shown(doc, d->name));
}

/* ---- names and pools --------------------------------------------------------------------------------------------- */

static void check_name(nas__config_doc *doc, const nas_config *c, int32_t index) {
    const char *name = c->devices[index].name;
    char path[DEVICE_PATH_MAX];
    device_path(path, index, "name");
    if (!nas__config_is_plain_name(name)) {
        PROBLEM(doc, path, "\"%s\" must be letters, digits, '.', '_' and '-'",
                nas__config_shown(doc, name));
    }
    for (int32_t k = 0; k < index; k++) {
        if (strcmp(c->devices[k].name, name) != 0) continue;
        PROBLEM(doc, path, "\"%s\" is the name of device[%" PRId32 "], too: names must differ",
                nas__config_shown(doc, name), k);
        return;
    }
}

/* The first key in which two devices of a pool are measured differently, NULL when they agree. */
static const char *differs(const nas_config_device *a, const nas_config_device *b) {
    if (a->threads != b->threads) return "threads";
    if (strcmp(a->cores, b->cores) != 0) return "cores";
    if (strcmp(a->mode, b->mode) != 0) return "mode";
    if (a->sustained_s != b->sustained_s) return "sustained_s";
    if (strcmp(a->frequency, b->frequency) != 0) return "frequency";
    if (a->max_temperature_c > b->max_temperature_c || a->max_temperature_c < b->max_temperature_c)
        return "max_temperature_c";
    if (strcmp(a->target, b->target) != 0) return "target";
    if (strcmp(a->cpu, b->cpu) != 0) return "cpu";
    return NULL;
}

static void check_pool(nas__config_doc *doc, const nas_config *c, int32_t index) {
    const nas_config_device *d = &c->devices[index];
    if (d->pool[0] == '\0') return;
    char path[DEVICE_PATH_MAX];
    device_path(path, index, "pool");
    const char *pool = nas__config_shown(doc, d->pool);
    if (!nas__config_is_plain_name(d->pool)) {
        PROBLEM(doc, path, "\"%s\" must be letters, digits, '.', '_' and '-'", pool);
        return;
    }
    if (strcmp(d->connect, "local") == 0) {
        PROBLEM(doc, path, "this machine is one device: no pool");
        return;
    }
    for (int32_t k = 0; k < c->n_devices; k++) {
        const nas_config_device *other = &c->devices[k];
        if (other->pool[0] == '\0' && strcmp(other->name, d->pool) == 0) {
            PROBLEM(doc, path, "\"%s\" is the name of device[%" PRId32 "], which is in no pool",
                    pool, k);
            return;
        }
        const char *key = k < index && strcmp(other->pool, d->pool) == 0 ? differs(other, d) : NULL;
        if (key == NULL) continue;
        device_path(path, index, key);
        PROBLEM(doc, path,
                "differs from that of device[%" PRId32 "] in the same pool \"%s\": one queue, one "
                "way to measure",
                k, pool);
        return;
    }
}

void nas__config_devices_validate(nas__config_doc *doc, const nas_config *config) {
    for (int32_t i = 0; i < config->n_devices; i++) {
        check_name(doc, config, i);
        check_pool(doc, config, i);
        check_connect(doc, &config->devices[i], i);
        check_cores(doc, &config->devices[i], i);
        check_target(doc, config, i);
    }
}
