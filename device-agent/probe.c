/* probe.c - the state of the machine from /proc and /sys, each probe a value or {"unavailable": errno text}.
 *
 * Nothing here may fail a run: phones hide thermal and battery nodes, virtual machines have no cpufreq. Only numeric
 * and short text files are read, by fixed paths. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { CPUS_MAX = 256, ZONES_MAX = 64, CPUINFO_MAX = 64 * 1024 };

static void unavailable(nas_json *j, int code) {
    nas_json_object(j);
    nas_json_key(j, "unavailable");
    nas_json_string(j, strerror(code));
    nas_json_object_end(j);
}

/* Set once at the start, before anything is read. */
static char root[256];

nas_status nas__probe_set_root(nas_ctx *ctx, const char *path) {
    if (strlen(path) >= sizeof root || !nas_file_exists(path)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--sys-root %.200s: %s", path,
                        strlen(path) >= sizeof root ? "longer than 255 bytes" : strerror(ENOENT));
    }
    (void)snprintf(root, sizeof root, "%s", strcmp(path, "/") == 0 ? "" : path);
    return NAS_OK;
}

const char *nas__probe_root(void) {
    return root;
}

/* Reads a small file, cuts trailing white space, replaces bytes that JSON or people could not take. 0 or errno. */
static int read_text(const char *path, char *out, size_t size) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno;
    size_t len = 0;
    int code = 0;
    while (len + 1 < size) {
        const ssize_t n = read(fd, out + len, size - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) code = errno;
        if (n <= 0) break;
        len += (size_t)n;
    }
    (void)close(fd); /* only read */
    while (len > 0 && (out[len - 1] == '\n' || out[len - 1] == ' ' || out[len - 1] == '\0'))
        len--;
    out[len] = '\0';
    for (size_t i = 0; i < len; i++) {
        const unsigned char u = (unsigned char)out[i];
        if (u >= 0x7f || (u < 0x20 && u != '\n' && u != '\t')) out[i] = '?';
    }
    return code != 0 ? code : len == 0 ? ENODATA : 0;
}

static void text_file(nas_json *j, const char *key, const char *path) {
    char text[512];
    const int code = read_text(path, text, sizeof text);
    nas_json_key(j, key);
    if (code != 0) {
        unavailable(j, code);
    } else {
        nas_json_string(j, text);
    }
}

static void number_file(nas_json *j, const char *key, const char *path) {
    char text[64];
    char *end = NULL;
    int code = read_text(path, text, sizeof text);
    const long long number = code == 0 ? strtoll(text, &end, 10) : 0;
    if (code == 0 && (end == text || *end != '\0')) code = EINVAL;
    nas_json_key(j, key);
    if (code != 0) {
        unavailable(j, code);
    } else {
        nas_json_int(j, number);
    }
}

/* Value of the first line "name<blanks>: value" in text like /proc/cpuinfo; false when there is none. */
static bool field(const char *text, const char *name, char *out, size_t size) {
    const size_t n = strlen(name);
    for (const char *line = text; line != NULL;) {
        const char *end = strchr(line, '\n');
        if (strncmp(line, name, n) == 0 && line[n + strspn(line + n, " \t")] == ':') {
            const char *value = strchr(line + n, ':') + 1;
            value += strspn(value, " \t");
            const size_t len = end == NULL   ? strlen(value)
                               : end > value ? (size_t)(end - value)
                                             : 0;
            (void)snprintf(out, size, "%.*s", (int)len, value);
            return true;
        }
        line = end != NULL ? end + 1 : NULL;
    }
    return false;
}

static char *cpuinfo_read(int *code) {
    char *text = nas_alloc_array(NULL, CPUINFO_MAX, 1);
    *code = text == NULL ? ENOMEM : read_text("/proc/cpuinfo", text, CPUINFO_MAX);
    return text;
}

/* Clock of each CPU in MHz: cpufreq, else the "cpu MHz" lines of /proc/cpuinfo (in CPU order). */
static void probe_mhz(nas_json *j) {
    int code = ENODATA;
    bool any = false;
    nas_json_key(j, "mhz");
    for (int cpu = 0; cpu < CPUS_MAX; cpu++) {
        char path[96], text[64];
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq",
                       cpu);
        if (read_text(path, text, sizeof text) != 0) break;
        if (!any) nas_json_array(j);
        any = true;
        nas_json_double(j, strtod(text, NULL) / 1000.0);
    }
    char *info = any ? NULL : cpuinfo_read(&code);
    const char *line = info != NULL && code == 0 ? strstr(info, "cpu MHz") : NULL;
    for (; line != NULL; line = strstr(line + 1, "cpu MHz")) {
        const char *colon = strchr(line, ':');
        if (colon == NULL) break;
        if (!any) nas_json_array(j);
        any = true;
        nas_json_double(j, strtod(colon + 1, NULL));
    }
    if (any) {
        nas_json_array_end(j);
    } else {
        unavailable(j, code != 0 ? code : ENODATA);
    }
    nas_free(info);
}

static void probe_thermal(nas_json *j) {
    bool any = false;
    int code = 0;
    nas_json_key(j, "thermal");
    for (int zone = 0; zone < ZONES_MAX; zone++) {
        char path[96], type[128], value[64];
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        const int missing = read_text(path, value, sizeof value);
        if (missing != 0) {
            if (code == 0) code = missing;
            if (missing == ENOENT) break;
            continue;
        }
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
        if (read_text(path, type, sizeof type) != 0)
            (void)snprintf(type, sizeof type, "zone%d", zone);
        if (!any) nas_json_array(j);
        any = true;
        nas_json_object(j);
        nas_json_key(j, "type");
        nas_json_string(j, type);
        nas_json_key(j, "celsius");
        nas_json_double(j, strtod(value, NULL) / 1000.0);
        nas_json_object_end(j);
    }
    if (any) {
        nas_json_array_end(j);
    } else {
        unavailable(j, code);
    }
}

static void probe_battery(nas_json *j) {
    static const char *const files[] = {"capacity", "status", "temp", "current_now", "voltage_now"};
    bool any = false;
    DIR *dir = opendir("/sys/class/power_supply");
    const int code = errno;
    nas_json_key(j, "power_supply");
    if (dir == NULL) {
        unavailable(j, code);
        return;
    }
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        char path[512], text[64];
        if (e->d_name[0] == '.') continue;
        if (!any) nas_json_object(j);
        any = true;
        nas_json_key(j, e->d_name);
        nas_json_object(j);
        for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
            (void)snprintf(path, sizeof path, "/sys/class/power_supply/%s/%s", e->d_name, files[i]);
            if (read_text(path, text, sizeof text) != 0) continue;
            nas_json_key(j, files[i]);
            nas_json_string(j, text);
        }
        nas_json_object_end(j);
    }
    (void)closedir(dir);
    if (any) {
        nas_json_object_end(j);
    } else {
        unavailable(j, ENODEV);
    }
}

static void probe_load(nas_json *j) {
    char text[256];
    const int code = read_text("/proc/loadavg", text, sizeof text);
    nas_json_key(j, "load");
    if (code != 0) {
        unavailable(j, code);
        return;
    }
    nas_json_array(j);
    char *at = text;
    for (int i = 0; i < 3; i++)
        nas_json_double(j, strtod(at, &at));
    nas_json_array_end(j);
}

/* Ticks the hypervisor gave to others, over all CPUs: the eighth number of the first line of /proc/stat. */
static void probe_steal(nas_json *j) {
    char text[512];
    const int code = read_text("/proc/stat", text, sizeof text);
    nas_json_key(j, "steal_ticks");
    if (code != 0 || strncmp(text, "cpu ", 4) != 0) {
        unavailable(j, code != 0 ? code : EINVAL);
        return;
    }
    char *at = text + 4;
    long long ticks = 0;
    for (int i = 0; i < 8; i++)
        ticks = strtoll(at, &at, 10);
    nas_json_int(j, ticks);
}

static void probe_memory(nas_json *j, const char *key, const char *line) {
    char text[4096], number[64];
    const int code = read_text("/proc/meminfo", text, sizeof text);
    nas_json_key(j, key);
    if (code != 0 || !field(text, line, number, sizeof number)) {
        unavailable(j, code != 0 ? code : ENODATA);
    } else {
        nas_json_int(j, strtoll(number, NULL, 10) * 1024);
    }
}

void nas__probe_state(nas_json *j) {
    nas_json_object(j);
    nas_json_key(j, "unix_time_ms");
    nas_json_int(j, nas_unix_time_ms());
    probe_mhz(j);
    text_file(j, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
    probe_thermal(j);
    probe_battery(j);
    probe_load(j);
    probe_steal(j);
    probe_memory(j, "memory_available_bytes", "MemAvailable");
    nas_json_object_end(j);
}

/* Capacity and top clock of each CPU: what tells big cores from little ones. */
static void probe_clusters(nas_json *j, long n) {
    nas_json_key(j, "cores");
    nas_json_array(j);
    for (long cpu = 0; cpu < n && cpu < CPUS_MAX; cpu++) {
        char path[96];
        nas_json_object(j);
        nas_json_key(j, "cpu");
        nas_json_int(j, cpu);
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/cpu_capacity", cpu);
        number_file(j, "capacity", path);
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/cpufreq/cpuinfo_max_freq",
                       cpu);
        number_file(j, "max_khz", path);
        (void)snprintf(path, sizeof path,
                       "/sys/devices/system/cpu/cpu%ld/topology/thread_siblings_list", cpu);
        text_file(j, "siblings", path);
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
}

static void member(nas_json *j, nas_sha256 *hash, const char *key, const char *text) {
    nas_json_key(j, key);
    if (text[0] == '\0') {
        unavailable(j, ENODATA);
    } else {
        nas_json_string(j, text);
    }
    nas_sha256_update(hash, text, strlen(text) + 1);
}

static void probe_cpu(nas_json *j, nas_sha256 *hash) {
    char model[256] = "", features[4096] = "";
    int code = 0;
    char *info = cpuinfo_read(&code);
    if (code == 0) {
        static const char *const models[] = {"model name", "Hardware", "CPU part", "uarch"};
        static const char *const flags[] = {"flags", "Features", "isa"};
        for (size_t i = 0; i < 4 && model[0] == '\0'; i++)
            (void)field(info, models[i], model, sizeof model);
        for (size_t i = 0; i < 3 && features[0] == '\0'; i++)
            (void)field(info, flags[i], features, sizeof features);
    }
    nas_free(info);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    char cpus[32];
    (void)snprintf(cpus, sizeof cpus, "%ld", online);
    nas_json_key(j, "cpu");
    nas_json_object(j);
    member(j, hash, "model", model);
    member(j, hash, "features", features);
    nas_json_key(j, "online");
    nas_json_int(j, online);
    nas_sha256_update(hash, cpus, strlen(cpus) + 1);
    cpu_set_t set;
    CPU_ZERO(&set);
    nas_json_key(j, "usable");
    if (sched_getaffinity(0, sizeof set, &set) == 0) {
        nas_json_array(j);
        for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
            if (CPU_ISSET(cpu, &set)) nas_json_int(j, (int64_t)cpu);
        }
        nas_json_array_end(j);
    } else {
        unavailable(j, errno);
    }
    probe_clusters(j, online);
    nas_json_object_end(j);
}

/* A clock called virtual... counts instructions (an emulator of the test rig): whatever is measured by it is simulated,
 * and comparable with what was measured by the same clock only. */
static void probe_clock(nas_json *j, nas_sha256 *hash) {
    static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    static const char counted[] = "virtual";
    char text[64];
    text_file(j, "clock_source", path);
    if (read_text(path, text, sizeof text) == 0 && strncmp(text, counted, sizeof counted - 1) == 0)
        nas_sha256_update(hash, text, strlen(text) + 1);
}

void nas__probe_machine(nas_json *j) {
    struct utsname host = {0};
    const bool named = uname(&host) == 0;
    nas_sha256 hash;
    nas_sha256_init(&hash);
    probe_cpu(j, &hash);
    nas_json_key(j, "system");
    nas_json_object(j);
    nas_json_key(j, "host");
    nas_json_string(j, named ? host.nodename : NULL);
    member(j, &hash, "kernel", named ? host.release : "");
    member(j, &hash, "machine", named ? host.machine : "");
    nas_json_key(j, "page_bytes");
    nas_json_int(j, sysconf(_SC_PAGESIZE));
    probe_memory(j, "memory_bytes", "MemTotal");
    probe_clock(j, &hash);
    text_file(j, "cpu_quota", "/sys/fs/cgroup/cpu.max");
    text_file(j, "smt", "/sys/devices/system/cpu/smt/control");
    number_file(j, "perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid");
    nas_json_object_end(j);
    uint8_t raw[NAS_SHA256_BYTES];
    char hex[NAS_SHA256_HEX];
    nas_sha256_final(&hash, raw);
    nas_hex(raw, sizeof raw, hex);
    nas_json_key(j, "fingerprint");
    nas_json_string(j, hex);
}
