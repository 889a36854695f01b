/* topology.c - clusters: which CPUs are alike, which are big and which little.
 *
 * CPUs belong together when their cpu_capacity, or where the kernel has none their top clock, differs by less than 8 %
 * (favoured cores of one kind differ by less, kinds by more). Clusters are ordered from the slowest to the fastest;
 * all CPUs of one policy share a clock, and a cluster may have several policies. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double alike = 0.08;

/* "0-3,5" or "0 1 2 3" (related_cpus) -> set; false when it is no list. */
static bool parse_list(const char *text, nas__cpu_set *out) {
    *out = (nas__cpu_set){0};
    for (const char *p = text; *p != '\0';) {
        char *end = NULL;
        const long first = strtol(p, &end, 10);
        long last = first;
        if (end == p) return false;
        if (*end == '-') {
            p = end + 1;
            last = strtol(p, &end, 10);
            if (end == p) return false;
        }
        if (first < 0 || last < first || last >= NAS__CPUS_MAX) return false;
        for (long cpu = first; cpu <= last; cpu++)
            out->has[cpu] = true;
        if (*end != '\0' && *end != ',' && *end != ' ') return false;
        p = *end == '\0' ? end : end + 1;
    }
    return true;
}

void nas__cpu_list(const nas__cpu_set *set, char *out, size_t size) {
    size_t len = 0;
    out[0] = '\0';
    for (int cpu = 0; cpu < NAS__CPUS_MAX; cpu++) {
        if (!set->has[cpu]) continue;
        int last = cpu;
        while (last + 1 < NAS__CPUS_MAX && set->has[last + 1])
            last++;
        const char *comma = len > 0 ? "," : "";
        const int n = last > cpu ? snprintf(out + len, size - len, "%s%d-%d", comma, cpu, last)
                                 : snprintf(out + len, size - len, "%s%d", comma, cpu);
        if (n < 0 || (size_t)n >= size - len) return;
        len += (size_t)n;
        cpu = last;
    }
}

static int set_size(const nas__cpu_set *set) {
    int n = 0;
    for (int cpu = 0; cpu < NAS__CPUS_MAX; cpu++)
        n += set->has[cpu];
    return n;
}

/* The CPUs there are: /sys/devices/system/cpu/present, else those this process may use. */
static void present_cpus(nas__cpu_set *out) {
    char text[256];
    cpu_set_t set;
    if (nas__probe_text("/sys/devices/system/cpu/online", text, sizeof text) == 0 &&
        parse_list(text, out) && set_size(out) > 0)
        return;
    CPU_ZERO(&set);
    *out = (nas__cpu_set){0};
    if (sched_getaffinity(0, sizeof set, &set) != 0) return;
    for (int cpu = 0; cpu < NAS__CPUS_MAX && cpu < CPU_SETSIZE; cpu++)
        out->has[cpu] = CPU_ISSET((size_t)cpu, &set);
}

static int64_t cpu_number(int cpu, const char *file) {
    char path[128];
    int64_t value = 0;
    (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/%s", cpu, file);
    return nas__probe_i64(path, &value) == 0 ? value : -1;
}

static bool close_to(int64_t a, int64_t b) {
    const double high = (double)(a > b ? a : b), low = (double)(a > b ? b : a);
    return high - low <= alike * high;
}

static bool same_kind(const nas__cluster *c, int64_t capacity, int64_t max_khz) {
    if (capacity > 0 && c->capacity > 0 && !close_to(capacity, c->capacity)) return false;
    if ((capacity <= 0 || c->capacity <= 0) && max_khz > 0 && c->max_khz > 0)
        return close_to(max_khz, c->max_khz);
    return true;
}

/* Bytes of the cache of data at `level` that a CPU reads through, which its files give as "512K"; -1 unknown. */
static int64_t cache_bytes(int cpu, int64_t level) {
    enum { CACHES_MAX = 8 };
    for (int i = 0; i < CACHES_MAX; i++) {
        char file[32], path[128], text[32];
        (void)snprintf(file, sizeof file, "cache/index%d/level", i);
        if (cpu_number(cpu, file) != level) continue;
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/type", cpu,
                       i);
        if (nas__probe_text(path, text, sizeof text) != 0 || strcmp(text, "Instruction") == 0)
            continue;
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cache/index%d/size", cpu,
                       i);
        char *end = NULL;
        if (nas__probe_text(path, text, sizeof text) != 0) return -1;
        const long n = strtol(text, &end, 10);
        const int64_t unit = *end == 'M' ? 1 << 20 : 1 << 10;
        return n > 0 && n < 1 << 20 && (*end == 'K' || *end == 'M') && end[1] == '\0' ? n * unit
                                                                                      : -1;
    }
    return -1;
}

static void add_cpu(nas__topology *t, int cpu) {
    const int64_t capacity = cpu_number(cpu, "cpu_capacity"),
                  max_khz = cpu_number(cpu, "cpufreq/cpuinfo_max_freq"),
                  min_khz = cpu_number(cpu, "cpufreq/cpuinfo_min_freq");
    int at = 0;
    while (at < t->n && !same_kind(&t->cluster[at], capacity, max_khz))
        at++;
    if (at == NAS__CLUSTERS_MAX) at = NAS__CLUSTERS_MAX - 1; /* more kinds than exist anywhere */
    if (at == t->n) {
        t->cluster[t->n++] = (nas__cluster){.capacity = capacity,
                                            .max_khz = max_khz,
                                            .min_khz = min_khz,
                                            .l1d_bytes = cache_bytes(cpu, 1),
                                            .l2_bytes = cache_bytes(cpu, 2)};
    }
    nas__cluster *c = &t->cluster[at];
    c->cpus.has[cpu] = true;
    c->n_cpus++;
    if (max_khz > c->max_khz) c->max_khz = max_khz;
}

static int slower_first(const void *a, const void *b) {
    const nas__cluster *x = a, *y = b;
    if (x->capacity != y->capacity) return x->capacity < y->capacity ? -1 : 1;
    return (x->max_khz > y->max_khz) - (x->max_khz < y->max_khz);
}

static bool is_known(const nas__topology *t, int cpu) {
    for (int i = 0; i < t->n; i++) {
        if (t->cluster[i].cpus.has[cpu]) return true;
    }
    return false;
}

/* The clock domains: cpufreq's policy folders, named for a CPU of theirs. */
static void find_policies(nas__topology *t) {
    for (int cpu = 0; cpu < NAS__CPUS_MAX; cpu++) {
        if (!is_known(t, cpu)) continue;
        char path[128], text[512];
        nas__policy p = {.number = cpu, .cluster = -1};
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpufreq/policy%d/related_cpus",
                       cpu);
        if (nas__probe_text(path, text, sizeof text) != 0 || !parse_list(text, &p.cpus)) continue;
        for (int i = 0; i < t->n; i++) {
            for (int k = 0; k < NAS__CPUS_MAX && p.cluster < 0; k++) {
                if (p.cpus.has[k] && t->cluster[i].cpus.has[k]) p.cluster = i;
            }
        }
        if (t->n_policies < NAS__POLICIES_MAX) t->policy[t->n_policies++] = p;
    }
}

void nas__topology_read(nas__topology *out) {
    nas__cpu_set present;
    *out = (nas__topology){0};
    present_cpus(&present);
    for (int cpu = 0; cpu < NAS__CPUS_MAX; cpu++) {
        if (present.has[cpu]) add_cpu(out, cpu);
    }
    qsort(out->cluster, (size_t)out->n, sizeof *out->cluster, slower_first);
    find_policies(out);
}

const char *nas__topology_pick(const nas__topology *t, const char *asked, int threads, char *list,
                               size_t size) {
    const bool big = strcmp(asked, "big") == 0;
    nas__cpu_set picked = {0};
    if (!big && strcmp(asked, "little") != 0) {
        if (!parse_list(asked, &picked)) return "cores: need big, little or a list like 0,1 or 0-3";
        (void)snprintf(list, size, "%s", asked); /* in the order that was asked for */
        return NULL;
    }
    if (t->n == 0) return "cores: the clusters of this machine are unknown; name CPUs";
    int have = 0;
    for (int i = 0; i < t->n && (i == 0 || have < threads); i++) {
        const nas__cluster *c = &t->cluster[big ? t->n - 1 - i : i];
        for (int cpu = 0; cpu < NAS__CPUS_MAX; cpu++)
            picked.has[cpu] = picked.has[cpu] || c->cpus.has[cpu];
        have += c->n_cpus;
    }
    nas__cpu_list(&picked, list, size);
    return NULL;
}

static void number_or_reason(nas_json *j, const char *key, int64_t value) {
    nas_json_key(j, key);
    if (value > 0) {
        nas_json_int(j, value);
    } else {
        nas__probe_unavailable(j, ENOENT);
    }
}

void nas__topology_json(nas_json *j, const nas__topology *t) {
    nas_json_array(j);
    for (int i = 0; i < t->n; i++) {
        const nas__cluster *c = &t->cluster[i];
        char list[256];
        nas_json_object(j);
        nas__cpu_list(&c->cpus, list, sizeof list);
        nas_json_key(j, "cpus");
        nas_json_string(j, list);
        number_or_reason(j, "capacity", c->capacity);
        number_or_reason(j, "min_khz", c->min_khz);
        number_or_reason(j, "max_khz", c->max_khz);
        number_or_reason(j, "l1d_bytes", c->l1d_bytes);
        number_or_reason(j, "l2_bytes", c->l2_bytes);
        nas_json_key(j, "policies");
        nas_json_array(j);
        for (int k = 0; k < t->n_policies; k++) {
            if (t->policy[k].cluster != i) continue;
            nas__cpu_list(&t->policy[k].cpus, list, sizeof list);
            nas_json_string(j, list);
        }
        nas_json_array_end(j);
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
}
