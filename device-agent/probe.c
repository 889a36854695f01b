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
    *code = text == NULL ? ENOMEM : nas__probe_text("/proc/cpuinfo", text, CPUINFO_MAX);
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
        if (nas__probe_text(path, text, sizeof text) != 0) break;
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
        nas__probe_unavailable(j, code != 0 ? code : ENODATA);
    }
    nas_free(info);
}

static void probe_thermal(nas_json *j) {
    bool any = false;
    int code = 0;
    nas_json_key(j, "thermal");
    for (int zone = 0; zone < ZONES_MAX; zone++) {
        char path[96], type[128];
        int64_t raw = 0;
        double celsius = 0;
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        int missing = nas__probe_i64(path, &raw);
        if (missing == 0 && !nas__celsius_of(raw, &celsius)) missing = ERANGE;
        if (missing != 0) {
            if (code == 0) code = missing;
            if (missing == ENOENT) break;
            continue;
        }
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
        if (nas__probe_text(path, type, sizeof type) != 0)
            (void)snprintf(type, sizeof type, "zone%d", zone);
        if (!any) nas_json_array(j);
        any = true;
        nas_json_object(j);
        nas_json_key(j, "type");
        nas_json_string(j, type);
        nas_json_key(j, "celsius");
        nas_json_double(j, celsius);
        nas_json_object_end(j);
    }
    if (any) {
        nas_json_array_end(j);
    } else {
        nas__probe_unavailable(j, code);
    }
}

static void probe_battery(nas_json *j) {
    static const char *const files[] = {"capacity", "status", "temp", "current_now", "voltage_now"};
    bool any = false;
    char folder[512];
    DIR *dir =
        nas__probe_path(folder, sizeof folder, "/sys/class/power_supply") ? opendir(folder) : NULL;
    const int code = errno;
    nas_json_key(j, "power_supply");
    if (dir == NULL) {
        nas__probe_unavailable(j, code);
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
            if (nas__probe_text(path, text, sizeof text) != 0) continue;
            nas_json_key(j, files[i]);
            nas_json_string(j, text);
        }
        nas_json_object_end(j);
    }
    (void)closedir(dir);
    if (any) {
        nas_json_object_end(j);
    } else {
        nas__probe_unavailable(j, ENODEV);
    }
}

static void probe_load(nas_json *j) {
    char text[256];
    const int code = nas__probe_text("/proc/loadavg", text, sizeof text);
    nas_json_key(j, "load");
    if (code != 0) {
        nas__probe_unavailable(j, code);
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
    const int code = nas__probe_text("/proc/stat", text, sizeof text);
    nas_json_key(j, "steal_ticks");
    if (code != 0 || strncmp(text, "cpu ", 4) != 0) {
        nas__probe_unavailable(j, code != 0 ? code : EINVAL);
        return;
    }
    char *at = text + 4;
    long long ticks = 0;
    for (int i = 0; i < 8; i++)
        ticks = strtoll(at, &at, 10);
    nas_json_int(j, ticks);
}

/* Bytes of one line of /proc/meminfo; 0 or errno. */
static int memory_line(const char *line, int64_t *out) {
    char text[4096], number[64];
    const int code = nas__probe_text("/proc/meminfo", text, sizeof text);
    if (code != 0) return code;
    if (!field(text, line, number, sizeof number)) return ENODATA;
    *out = strtoll(number, NULL, 10) * 1024;
    return 0;
}

int64_t nas__probe_available_bytes(void) {
    int64_t bytes = 0;
    return memory_line("MemAvailable", &bytes) == 0 ? bytes : 0;
}

static void probe_memory(nas_json *j, const char *key, const char *line) {
    int64_t bytes = 0;
    const int code = memory_line(line, &bytes);
    nas_json_key(j, key);
    if (code != 0) {
        nas__probe_unavailable(j, code);
    } else {
        nas_json_int(j, bytes);
    }
}

void nas__probe_state(nas_json *j) {
    nas_json_object(j);
    nas_json_key(j, "unix_time_ms");
    nas_json_int(j, nas_unix_time_ms());
    probe_mhz(j);
    nas__probe_text_member(j, "governor", "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
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
        nas__probe_number_member(j, "capacity", path);
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%ld/cpufreq/cpuinfo_max_freq",
                       cpu);
        nas__probe_number_member(j, "max_khz", path);
        (void)snprintf(path, sizeof path,
                       "/sys/devices/system/cpu/cpu%ld/topology/thread_siblings_list", cpu);
        nas__probe_text_member(j, "siblings", path);
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
}

static void member(nas_json *j, nas_sha256 *hash, const char *key, const char *text) {
    nas_json_key(j, key);
    if (text[0] == '\0') {
        nas__probe_unavailable(j, ENODATA);
    } else {
        nas_json_string(j, text);
    }
    nas_sha256_update(hash, text, strlen(text) + 1);
}

static void probe_cpu(nas_json *j, nas_sha256 *hash) {
    char model[256] = "", features[4096] = "", vendor[32] = "", family[32] = "";
    int code = 0;
    char *info = cpuinfo_read(&code);
    if (code == 0) {
        static const char *const models[] = {"model name", "Hardware", "CPU part", "uarch"};
        static const char *const flags[] = {"flags", "Features", "isa"};
        for (size_t i = 0; i < 4 && model[0] == '\0'; i++)
            (void)field(info, models[i], model, sizeof model);
        for (size_t i = 0; i < 3 && features[0] == '\0'; i++)
            (void)field(info, flags[i], features, sizeof features);
        (void)field(info, "vendor_id", vendor, sizeof vendor);
        (void)field(info, "cpu family", family, sizeof family);
    }
    nas_free(info);
    /* "isa" lines of RISC-V say more than the letters of its HWCAP. */
    if (nas__probe_root()[0] == '\0' && strncmp(features, "rv", 2) != 0) {
        char own[1024];
        if (nas__features_from_hwcap(own, sizeof own))
            (void)snprintf(features, sizeof features, "%s", own);
    }
    if (nas__probe_root()[0] == '\0') nas__features_add_vectors(features, sizeof features);
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    char cpus[32];
    (void)snprintf(cpus, sizeof cpus, "%ld", online);
    nas_json_key(j, "cpu");
    nas_json_object(j);
    member(j, hash, "model", model);
    member(j, hash, "features", features);
    if (vendor[0] != '\0') { /* x86 alone; not hashed: the model says it, too */
        nas_json_key(j, "vendor");
        nas_json_string(j, vendor);
        nas_json_key(j, "family");
        nas_json_int(j, strtol(family, NULL, 10));
    }
    nas_json_key(j, "has");
    nas__features_json(j, features);
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
        nas__probe_unavailable(j, errno);
    }
    probe_clusters(j, online);
    nas__topology t;
    nas__topology_read(&t);
    nas_json_key(j, "clusters");
    nas__topology_json(j, &t);
    nas_json_object_end(j);
}

/* ---- what it is --------------------------------------------------------------------------------------------------- */

static bool is_android(void) {
    char path[512];
    return nas__probe_path(path, sizeof path, "/system/build.prop") && nas_file_exists(path);
}

/* The lines "[name]: [value]" of getprop that name the device. Static programs cannot read properties themselves, and
 * the files behind them are closed to the shell user. */
static void probe_properties(nas_json *j) {
    static const char *const names[] = {"ro.product.model",     "ro.product.device",
                                        "ro.board.platform",    "ro.soc.manufacturer",
                                        "ro.soc.model",         "ro.product.cpu.abi",
                                        "ro.build.version.sdk", "ro.build.version.release"};
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){"/system/bin/getprop", NULL};
    o.timeout_ms = 5000;
    nas_json_key(j, "android");
    if (nas__probe_root()[0] != '\0' || nas_process_run(NULL, &o, &r) != NAS_OK ||
        r.out.data == NULL) {
        nas__probe_unavailable(j, ENOENT);
        nas_process_result_deinit(&r);
        return;
    }
    nas_json_object(j);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char head[64], value[128];
        (void)snprintf(head, sizeof head, "[%s]: [", names[i]);
        const char *at = strstr(r.out.data, head);
        if (at == NULL) continue;
        at += strlen(head);
        (void)snprintf(value, sizeof value, "%.*s", (int)strcspn(at, "]\n"), at);
        for (char *c = value; *c != '\0'; c++) {
            if ((unsigned char)*c >= 0x7f || (unsigned char)*c < 0x20) *c = '?';
        }
        nas_json_key(j, names[i]);
        nas_json_string(j, value);
    }
    nas_json_object_end(j);
    nas_process_result_deinit(&r);
}

/* The system on the chip, from wherever this kind of machine tells it. */
static void probe_soc(nas_json *j) {
    static const struct {
        const char *key, *path;
    } sources[] = {
        {"machine", "/sys/devices/soc0/machine"},     {"family", "/sys/devices/soc0/family"},
        {"id", "/sys/devices/soc0/soc_id"},           {"revision", "/sys/devices/soc0/revision"},
        {"board", "/proc/device-tree/model"},         {"vendor", "/sys/class/dmi/id/sys_vendor"},
        {"product", "/sys/class/dmi/id/product_name"}};
    bool any = is_android();
    char text[256];
    nas_json_key(j, "soc");
    for (size_t i = 0; i < sizeof sources / sizeof *sources && !any; i++)
        any = nas__probe_text(sources[i].path, text, sizeof text) == 0;
    if (!any) {
        nas__probe_unavailable(j, ENOENT);
        return;
    }
    nas_json_object(j);
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        if (nas__probe_text(sources[i].path, text, sizeof text) != 0) continue;
        nas_json_key(j, sources[i].key);
        nas_json_string(j, text);
    }
    if (is_android()) probe_properties(j);
    nas_json_object_end(j);
}

/* May the clocks be set, is there a thermal zone for the gate, is power shown? */
static void probe_abilities(nas_json *j) {
    char path[512];
    nas__temperature heat;
    nas__power power;
    nas_json_key(j, "abilities");
    nas_json_object(j);
    nas_json_key(j, "frequency");
    const bool fits =
        nas__probe_path(path, sizeof path, "/sys/devices/system/cpu/cpu0/cpufreq/scaling_max_freq");
    if (fits && access(path, W_OK) == 0) {
        nas_json_string(j, "may be pinned");
    } else {
        nas__probe_unavailable(j, fits ? errno : ENAMETOOLONG);
    }
    nas__temperature_read(&heat);
    nas_json_key(j, "temperature");
    if (heat.found) {
        nas_json_string(j, heat.type);
    } else {
        nas__probe_unavailable(j, heat.code);
    }
    nas__power_find(&power);
    nas_json_key(j, "energy");
    switch (power.kind) {
    case NAS__POWER_RAPL: nas_json_string(j, "rapl"); break;
    case NAS__POWER_BATTERY:
        nas_json_string(j, "battery (coarse: the whole device, refreshed slowly)");
        break;
    case NAS__POWER_NONE:
        if (power.charging) {
            nas_json_object(j);
            nas_json_key(j, "unavailable");
            nas_json_string(j, "the battery is being charged");
            nas_json_object_end(j);
        } else {
            nas__probe_unavailable(j, power.code);
        }
        break;
    }
    nas_json_object_end(j);
}

static const char built_for[] =
#if defined(__aarch64__)
    "aarch64";
#elif defined(__arm__)
    "armv7";
#elif defined(__riscv) && __riscv_xlen == 64
    "riscv64";
#elif defined(__x86_64__)
    "x86_64";
#else
    "unknown";
#endif
static const char libc_name[] =
#if defined(__BIONIC__)
    "bionic";
#elif defined(__GLIBC__)
    "glibc";
#else
    "musl";
#endif

/* A clock called virtual... counts instructions (an emulator of the test rig): whatever is measured by it is simulated,
 * and comparable with what was measured by the same clock only. */
static void probe_clock(nas_json *j, nas_sha256 *hash) {
    static const char path[] = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
    static const char counted[] = "virtual";
    char text[64];
    nas__probe_text_member(j, "clock_source", path);
    if (nas__probe_text(path, text, sizeof text) == 0 &&
        strncmp(text, counted, sizeof counted - 1) == 0)
        nas_sha256_update(hash, text, strlen(text) + 1);
}

void nas__probe_machine(nas_json *j) {
    struct utsname host = {0};
    char built_with[128];
    (void)snprintf(built_with, sizeof built_with, "%s %s",
#ifdef __clang__
                   "clang",
#else
                   "gcc",
#endif
                   __VERSION__);
    (void)snprintf(built_with + strlen(built_with), sizeof built_with - strlen(built_with), ", %s",
                   libc_name);
    const bool named = uname(&host) == 0;
    nas_sha256 hash;
    nas_sha256_init(&hash);
    nas_json_key(j, "arch");
    nas_json_string(j, built_for);
    nas_json_key(j, "built_with");
    nas_json_string(j, built_with);
    if (nas__probe_root()[0] != '\0') {
        nas_json_key(j, "sys_root");
        nas_json_string(j, nas__probe_root());
    }
    probe_cpu(j, &hash);
    probe_soc(j);
    probe_abilities(j);
    nas_json_key(j, "system");
    nas_json_object(j);
    nas_json_key(j, "host");
    nas_json_string(j, named ? host.nodename : NULL);
    member(j, &hash, "kernel", named ? host.release : "");
    member(j, &hash, "machine", named ? host.machine : "");
    nas_json_key(j, "page_bytes");
    nas_json_int(j, sysconf(_SC_PAGESIZE));
    probe_memory(j, "memory_bytes", "MemTotal");
    nas_json_key(j, "os");
    nas_json_string(j, is_android() ? "android" : "linux");
    probe_clock(j, &hash);
    nas__probe_text_member(j, "cpu_quota", "/sys/fs/cgroup/cpu.max");
    nas__probe_text_member(j, "smt", "/sys/devices/system/cpu/smt/control");
    nas__probe_number_member(j, "perf_event_paranoid", "/proc/sys/kernel/perf_event_paranoid");
    nas_json_object_end(j);
    uint8_t raw[NAS_SHA256_BYTES];
    char hex[NAS_SHA256_HEX];
    nas_sha256_final(&hash, raw);
    nas_hex(raw, sizeof raw, hex);
    nas_json_key(j, "fingerprint");
    nas_json_string(j, hex);
}

void nas__probe_copy_members(nas_json *j, const nas_buf *object) {
    if (object->len < 3) return; /* "{}", or no memory for more */
    if (j->need_comma) nas_buf_puts(j->out, ",");
    nas_buf_append(j->out, object->data + 1, object->len - 2);
    j->need_comma = true;
}
