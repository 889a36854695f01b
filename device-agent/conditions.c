/* conditions.c - the physical side of a run: how hot the CPU is, which clock it may have, where its power is shown.
 *
 * Nothing here fails a run by being absent: a machine without a thermal zone has no thermal gate, one whose clocks may
 * not be written runs with the clocks it has; either is said in the run's report. Clocks that were changed are put
 * back after the run, and by the next start of an agent when this one was killed (a file in the cache folder remembers
 * them). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ZONES_MAX = 128, HWMON_MAX = 32, HWMON_GAP_MAX = 4, DUMPSYS_MS = 3000 };

/* ---- temperature ------------------------------------------------------------------------------------------------- */

/* Zones report milli-degrees; some vendors tenths or whole degrees. NaN-free: false when it is no temperature. */
bool nas__celsius_of(int64_t raw, double *out) {
    const double value = (double)raw;
    *out = raw >= 1000 ? value / 1000.0 : raw > 200 ? value / 10.0 : value;
    return *out > 0.0 && *out < 150.0;
}

static bool contains_any(const char *text, const char *const *words) {
    for (size_t i = 0; words[i] != NULL; i++) {
        if (strstr(text, words[i]) != NULL) return true;
    }
    return false;
}

/* 2: a zone of the CPU; 1: some zone of the board; 0: another thing (battery, skin, charger, modem). */
static int zone_rank(const char *type) {
    static const char *const cpu[] = {"cpu", "CPU", "soc", "pkg", "core", "tsens", "Tctl", NULL};
    static const char *const other[] = {"batt", "skin", "charg",  "usb",   "gpu", "modem", "wifi",
                                        "pmic", "xo-",  "camera", "flash", "ddr", "pa_",   NULL};
    if (contains_any(type, cpu)) return 2;
    return contains_any(type, other) ? 0 : 1;
}

static void consider(nas__temperature *best, int *best_rank, int rank, const char *path,
                     const char *type, int64_t raw) {
    double celsius = 0;
    if (!nas__celsius_of(raw, &celsius) || rank == 0 || rank < *best_rank) return;
    if (rank == *best_rank && best->found && celsius <= best->celsius) return;
    *best_rank = rank;
    best->found = true;
    best->celsius = celsius;
    (void)snprintf(best->path, sizeof best->path, "%s", path);
    (void)snprintf(best->type, sizeof best->type, "%s", type);
}

/* Boards and PCs without thermal zones: the sensor chips of the CPU. */
static void read_hwmon(nas__temperature *out, int *rank) {
    static const char *const chips[] = {"coretemp", "k10temp", "zenpower", "cpu_thermal", NULL};
    int gap = 0; /* numbers of chips that went away are missing */
    for (int i = 0; i < HWMON_MAX && gap < HWMON_GAP_MAX; i++) {
        char path[96], name[64];
        int64_t raw = 0;
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/name", i);
        const int code = nas__probe_text(path, name, sizeof name);
        gap = code == 0 ? 0 : gap + 1;
        if (code != 0 || !contains_any(name, chips)) continue;
        (void)snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/temp1_input", i);
        if (nas__probe_i64(path, &raw) == 0) consider(out, rank, 2, path, name, raw);
    }
}

/* One "Temperature{mValue=38.3, mType=0, mName=CPU0, mStatus=0}" of dumpsys. */
static void read_android_line(const char *line, size_t len, nas__temperature *out, int *rank) {
    char text[256], name[64];
    double celsius = 0;
    (void)snprintf(text, sizeof text, "%.*s", (int)(len < 255 ? len : 255), line);
    const char *value = strstr(text, "mValue="), *at = strstr(text, "mName=");
    if (value == NULL || at == NULL || sscanf(value + 7, "%lf", &celsius) != 1) return;
    (void)snprintf(name, sizeof name, "%.*s", (int)strcspn(at + 6, ",}"), at + 6);
    for (char *c = name; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x7f || (unsigned char)*c < 0x20) *c = '?';
    }
    if (celsius > 0 && celsius < 150)
        consider(out, rank, zone_rank(name), "", name, (int64_t)(celsius * 1000.0));
}

void nas__temperature_parse_android(const char *text, nas__temperature *out) {
    int rank = 0;
    for (const char *line = text; line != NULL && *line != '\0';) {
        const char *end = strchr(line, '\n');
        read_android_line(line, end != NULL ? (size_t)(end - line) : strlen(line), out, &rank);
        line = end != NULL ? end + 1 : NULL;
    }
    if (out->found) out->code = 0;
}

/* Phones whose zones are closed to the shell user tell their service. Slow, and never while a program is timed. */
static void read_android(nas__temperature *out) {
    static const char program[] = "/system/bin/dumpsys";
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    if (nas__probe_root()[0] != '\0' || !nas_file_exists(program)) return;
    o.argv = (const char *const[]){program, "thermalservice", NULL};
    o.timeout_ms = DUMPSYS_MS;
    if (nas_process_run(NULL, &o, &r) == NAS_OK && r.out.data != NULL)
        nas__temperature_parse_android(r.out.data, out);
    nas_process_result_deinit(&r);
}

void nas__temperature_read(nas__temperature *out) {
    int rank = 0;
    *out = (nas__temperature){.code = ENOENT};
    for (int zone = 0; zone < ZONES_MAX; zone++) {
        char path[96], type[64];
        int64_t raw = 0;
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/type", zone);
        if (nas__probe_text(path, type, sizeof type) == ENOENT) break;
        (void)snprintf(path, sizeof path, "/sys/class/thermal/thermal_zone%d/temp", zone);
        const int code = nas__probe_i64(path, &raw);
        if (code != 0) {
            out->code = code;
            continue;
        }
        consider(out, &rank, zone_rank(type), path, type, raw);
    }
    if (rank < 2) read_hwmon(out, &rank);
    if (!out->found) read_android(out);
    if (out->found) out->code = 0;
}

/* ---- power -------------------------------------------------------------------------------------------------------- */

static bool find_rapl(nas__power *out) {
    for (int package = 0; package < NAS__PACKAGES_MAX; package++) {
        char path[96];
        int64_t uj = 0;
        (void)snprintf(path, sizeof path, "/sys/class/powercap/intel-rapl:%d/energy_uj", package);
        const int code = nas__probe_i64(path, &uj);
        if (code == ENOENT) break;
        if (code != 0) {
            out->code = code;
            continue;
        }
        (void)snprintf(out->path[out->n++], sizeof out->path[0],
                       "/sys/class/powercap/intel-rapl:%d", package);
    }
    return out->n > 0;
}

/* By its type; drivers without that file name it so. */
static bool is_battery(const char *name) {
    char path[128], text[32];
    (void)snprintf(path, sizeof path, "/sys/class/power_supply/%.60s/type", name);
    const int code = nas__probe_text(path, text, sizeof text);
    return code == 0 ? strcmp(text, "Battery") == 0 : strncmp(name, "batt", 4) == 0;
}

/* A battery that shows its current and is not being charged. */
static void consider_battery(nas__power *out, const char *name) {
    char path[128], text[32];
    int64_t value = 0;
    (void)snprintf(path, sizeof path, "/sys/class/power_supply/%.60s/voltage_now", name);
    if (nas__probe_i64(path, &value) != 0) return;
    (void)snprintf(path, sizeof path, "/sys/class/power_supply/%.60s/current_now", name);
    out->code = nas__probe_i64(path, &value);
    if (out->code != 0) return;
    (void)snprintf(path, sizeof path, "/sys/class/power_supply/%.60s/status", name);
    if (nas__probe_text(path, text, sizeof text) == 0 && strcmp(text, "Charging") == 0) {
        out->charging = true; /* its current is the charger's */
        return;
    }
    (void)snprintf(out->path[out->n++], sizeof out->path[0], "/sys/class/power_supply/%.60s", name);
}

static bool find_battery(nas__power *out) {
    char folder[512];
    if (!nas__probe_path(folder, sizeof folder, "/sys/class/power_supply")) return false;
    DIR *dir = opendir(folder);
    if (dir == NULL) return false;
    for (const struct dirent *e = readdir(dir); e != NULL && out->n == 0; e = readdir(dir)) {
        if (e->d_name[0] != '.' && strlen(e->d_name) <= 60 && is_battery(e->d_name))
            consider_battery(out, e->d_name);
    }
    (void)closedir(dir);
    return out->n > 0;
}

void nas__power_find(nas__power *out) {
    *out = (nas__power){.code = ENOENT};
    if (find_rapl(out)) {
        out->kind = NAS__POWER_RAPL;
    } else if (find_battery(out)) {
        out->kind = NAS__POWER_BATTERY;
    }
}

static double battery_watts(const char *folder) {
    char path[128];
    int64_t current = 0, voltage = 0;
    (void)snprintf(path, sizeof path, "%s/current_now", folder);
    if (nas__probe_i64(path, &current) != 0) return -1;
    (void)snprintf(path, sizeof path, "%s/voltage_now", folder);
    if (nas__probe_i64(path, &voltage) != 0) return -1;
    const double amperes = (double)(current < 0 ? -current : current);
    /* Micro-amperes by the kernel's rules; below 10000 only a vendor's milli-amperes make sense. */
    return (amperes < 10000 ? amperes * 1e-3 : amperes * 1e-6) * (double)voltage * 1e-6;
}

static bool rapl_joules(const nas__power *p, double *out) {
    double sum = 0;
    for (int i = 0; i < p->n; i++) {
        char path[128];
        int64_t uj = 0;
        (void)snprintf(path, sizeof path, "%s/energy_uj", p->path[i]);
        if (nas__probe_i64(path, &uj) != 0) return false;
        sum += (double)uj * 1e-6;
    }
    *out = sum;
    return true;
}

void nas__idle_begin(nas__idle *idle, const nas__power *power) {
    *idle = (nas__idle){.begin_ns = nas_now_ns()};
    idle->ok = power->kind != NAS__POWER_RAPL || rapl_joules(power, &idle->joules);
}

void nas__idle_sample(nas__idle *idle, const nas__power *power) {
    if (power->kind != NAS__POWER_BATTERY) return;
    const double watts = battery_watts(power->path[0]);
    if (watts < 0) return;
    idle->watts += watts;
    idle->n++;
}

bool nas__idle_end(nas__idle *idle, const nas__power *power, double *watts) {
    const double seconds = (double)(nas_now_ns() - idle->begin_ns) * 1e-9;
    double joules = 0;
    if (power->kind == NAS__POWER_BATTERY && idle->n > 0) {
        *watts = idle->watts / (double)idle->n;
        return true;
    }
    if (power->kind != NAS__POWER_RAPL || !idle->ok || seconds <= 0) return false;
    if (!rapl_joules(power, &joules) || joules < idle->joules) return false; /* wrapped */
    *watts = (joules - idle->joules) / seconds;
    return true;
}

/* ---- clocks ------------------------------------------------------------------------------------------------------- */

static void policy_path(char out[128], int policy, const char *file) {
    (void)snprintf(out, 128, "/sys/devices/system/cpu/cpufreq/policy%d/%s", policy, file);
}

static int policy_read(int policy, const char *file, int64_t *out) {
    char path[128];
    policy_path(path, policy, file);
    return nas__probe_i64(path, out);
}

static int policy_write(int policy, const char *file, int64_t khz) {
    char path[128], text[32];
    policy_path(path, policy, file);
    (void)snprintf(text, sizeof text, "%" PRId64, khz);
    return nas__probe_write(path, text);
}

/* Sets both bounds; the one that would cross the other goes second. */
static int set_bounds(int policy, int64_t min_khz, int64_t max_khz) {
    int64_t now_max = 0;
    const int code = policy_read(policy, "scaling_max_freq", &now_max);
    if (code != 0) return code;
    const bool up = min_khz > now_max;
    const int first = up ? policy_write(policy, "scaling_max_freq", max_khz)
                         : policy_write(policy, "scaling_min_freq", min_khz);
    if (first != 0) return first;
    return up ? policy_write(policy, "scaling_min_freq", min_khz)
              : policy_write(policy, "scaling_max_freq", max_khz);
}

/* MHz of cluster `index` in "1800,2400"; 0 when there is no such entry or no number. */
static int64_t wanted_mhz(const char *text, int index) {
    for (int i = 0; i < index; i++) {
        text = strchr(text, ',');
        if (text == NULL) return 0;
        text++;
    }
    char *end = NULL;
    const long mhz = strtol(text, &end, 10);
    return end != text && (*end == ',' || *end == '\0') && mhz > 0 && mhz < 100000 ? mhz : 0;
}

const char *nas__frequency_check(const char *asked, int clusters) {
    if (asked[0] == '\0' || strcmp(asked, "max") == 0) return NULL;
    int n = 1;
    for (const char *p = asked; *p != '\0'; p++)
        n += *p == ',';
    for (int i = 0; i < n; i++) {
        if (wanted_mhz(asked, i) == 0)
            return "frequency: need max, or MHz of each cluster from the smallest to the largest";
    }
    return n == clusters || clusters == 0
               ? NULL
               : "frequency: need one MHz value for each cluster of this machine (see doctor)";
}

static void remember(const nas__frequency *f, const char *file) {
    nas_buf text = {0};
    for (int i = 0; i < f->n; i++) {
        const nas__pinned *p = &f->policy[i];
        nas_buf_printf(&text, "%d %" PRId64 " %" PRId64 "\n", p->number, p->old_min, p->old_max);
    }
    if (!text.failed && text.len > 0)
        (void)nas_file_write(NULL, file, text.data, text.len, 0600); /* only needed when killed */
    nas_buf_deinit(&text);
}

static void pin_policy(nas__pinned *p, int64_t khz) {
    int64_t low = 0, high = 0;
    p->asked_khz = khz;
    p->code = set_bounds(p->number, khz, khz);
    if (policy_read(p->number, "scaling_min_freq", &low) == 0) p->min_khz = low;
    if (policy_read(p->number, "scaling_max_freq", &high) == 0) p->max_khz = high;
    const int64_t slack = khz / 100; /* the driver may round to its next step */
    p->pinned = p->code == 0 && low >= khz - slack && low <= khz + slack && high >= khz - slack &&
                high <= khz + slack;
}

/* What there is to pin: the policies whose bounds can be read. false when one of them cannot. */
static bool list_policies(nas__frequency *f, const nas__topology *t) {
    bool all = true;
    for (int i = 0; i < t->n_policies; i++) {
        const nas__policy *policy = &t->policy[i];
        nas__pinned p = {.number = policy->number};
        int64_t top = 0;
        int code = policy_read(p.number, "scaling_min_freq", &p.old_min);
        if (code == 0) code = policy_read(p.number, "scaling_max_freq", &p.old_max);
        if (code == 0) code = policy_read(p.number, "cpuinfo_max_freq", &top);
        if (code != 0) {
            f->code = code;
            all = false;
            continue;
        }
        nas__cpu_list(&policy->cpus, p.cpus, sizeof p.cpus);
        const int cluster = policy->cluster >= 0 ? policy->cluster : 0;
        p.asked_khz = strcmp(f->asked, "max") == 0 ? top : 1000 * wanted_mhz(f->asked, cluster);
        f->policy[f->n++] = p;
    }
    return all;
}

void nas__frequency_pin(nas__frequency *f, const nas__topology *t, const char *asked,
                        const char *memory) {
    *f = (nas__frequency){0};
    (void)snprintf(f->asked, sizeof f->asked, "%s", asked);
    (void)snprintf(f->memory, sizeof f->memory, "%s", memory);
    if (asked[0] == '\0') return;
    f->pinned = list_policies(f, t) && f->n > 0;
    if (f->n == 0 && f->code == 0) f->code = ENOENT;
    remember(f, f->memory);
    for (int i = 0; i < f->n; i++) {
        pin_policy(&f->policy[i], f->policy[i].asked_khz);
        f->pinned = f->pinned && f->policy[i].pinned;
        if (f->policy[i].code != 0) f->code = f->policy[i].code;
    }
}

void nas__frequency_restore(nas__frequency *f) {
    for (int i = 0; i < f->n; i++) {
        nas__pinned *p = &f->policy[i];
        (void)policy_read(p->number, "scaling_cur_freq", &p->cur_khz); /* 0: not shown */
        if (set_bounds(p->number, p->old_min, p->old_max) != 0 && p->code == 0)
            f->restore_failed = true;
    }
    if (f->n > 0) (void)unlink(f->memory);
}

void nas__frequency_recover(nas_ctx *ctx, const char *memory) {
    nas_buf text = {0};
    if (nas_file_read(NULL, memory, 16384, &text) != NAS_OK) return; /* the usual case */
    const char *line = text.data != NULL ? text.data : "";
    int policy = 0;
    int64_t low = 0, high = 0;
    while (sscanf(line, "%d %" SCNd64 " %" SCNd64, &policy, &low, &high) == 3) {
        const int code = policy >= 0 && policy < NAS__CPUS_MAX ? set_bounds(policy, low, high) : 0;
        nas_log(ctx, NAS_LOG_WARN,
                "clock put back after a killed agent policy=%d min_khz=%" PRId64 " max_khz=%" PRId64
                ": %s",
                policy, low, high, code == 0 ? "done" : strerror(code));
        line = strchr(line, '\n');
        if (line == NULL) break;
        line++;
    }
    (void)unlink(memory);
    nas_buf_deinit(&text);
}

void nas__frequency_json(nas_json *j, const nas__frequency *f) {
    nas_json_object(j);
    nas_json_key(j, "asked");
    nas_json_string(j, f->asked);
    nas_json_key(j, "pinned");
    nas_json_bool(j, f->pinned);
    if (!f->pinned && f->asked[0] != '\0') {
        nas_json_key(j, "unavailable");
        nas_json_string(j, f->code != 0 ? strerror(f->code) : "the clocks read back differ");
    }
    if (f->restore_failed) {
        nas_json_key(j, "restored");
        nas_json_bool(j, false);
    }
    nas_json_key(j, "policies");
    nas_json_array(j);
    for (int i = 0; i < f->n; i++) {
        const nas__pinned *p = &f->policy[i];
        nas_json_object(j);
        nas_json_key(j, "cpus");
        nas_json_string(j, p->cpus);
        nas_json_key(j, "asked_khz");
        nas_json_int(j, p->asked_khz);
        nas_json_key(j, "min_khz");
        nas_json_int(j, p->min_khz);
        nas_json_key(j, "max_khz");
        nas_json_int(j, p->max_khz);
        if (p->cur_khz > 0) {
            nas_json_key(j, "current_khz");
            nas_json_int(j, p->cur_khz);
        }
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
    nas_json_object_end(j);
}
