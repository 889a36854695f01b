/* conditions.h - what surrounds a batch: clock and temperature of the CPU, and the energy of the whole loop.
 *
 * Read between batches, never inside one, and no oftener than it changes. Whoever starts the program names the files
 * (the agent knows which zone is the CPU's); what is not named or not readable is absent from the document. */
#ifndef CONDITIONS_H
#define CONDITIONS_H

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    RAPL_MAX = 4,
    POINTS_MAX = 64, /* batches shown with their surroundings: every n-th, n a power of two */
    MHZ_EVERY_MS = 10,
    CELSIUS_EVERY_MS = 100,
    BATTERY_EVERY_MS = 250,
    BATTERY_LEAST_S = 30 /* below it the gauge has not been refreshed often enough */
};

typedef struct conditions_options {
    const char *sys_root;    /* before /sys and /proc, "" usually */
    const char *temperature; /* file with (milli-)degrees, NULL = unknown */
    const char *rapl[RAPL_MAX];
    int n_rapl;
    const char *battery; /* folder with current_now and voltage_now, NULL = none */
    long idle_mw;        /* power of the machine at rest, -1 = unknown */
} conditions_options;

/* One batch with its surroundings. */
typedef struct point {
    double us, mhz, celsius, wait_us; /* mhz, celsius 0: unknown */
    long switches;
    int migrated, kept;
} point;

typedef struct conditions {
    conditions_options o;
    int celsius_fd, mhz_fd, mhz_cpu; /* -1: none */
    double mhz, celsius, celsius_max, mhz_min, mhz_max;
    int64_t mhz_ns, celsius_ns, battery_ns; /* of the last look */
    double battery_watts;                   /* sum of n_battery looks */
    long n_battery;
    double joules, joules_begin, seconds; /* of the loop */
    int64_t begin_ns;
    int energy_known;
    point points[POINTS_MAX];
    long n_points, every, seen;
} conditions;

static int open_number(const char *path) {
    return path != NULL ? open(path, O_RDONLY | O_CLOEXEC) : -1;
}

/* The number in an open file of /sys; 0 and *out, else -1. */
static int read_number(int fd, double *out) {
    char text[64];
    const ssize_t n = fd >= 0 ? pread(fd, text, sizeof text - 1, 0) : -1;
    if (n <= 0) return -1;
    text[n] = '\0';
    char *end = NULL;
    *out = strtod(text, &end);
    return end != text ? 0 : -1;
}

static int read_number_at(const char *folder, const char *name, double *out) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    const int fd = open_number(path);
    const int code = read_number(fd, out);
    if (fd >= 0) (void)close(fd);
    return code;
}

/* Zones report milli-degrees; some vendors tenths or whole degrees. 0: no temperature. */
static double read_celsius(int fd) {
    double raw = 0.0;
    if (read_number(fd, &raw) != 0) return 0.0;
    const double celsius = raw >= 1000.0 ? raw / 1000.0 : raw > 200.0 ? raw / 10.0 : raw;
    return celsius > 0.0 && celsius < 150.0 ? celsius : 0.0;
}

/* Clock of the CPU the calling thread runs on by cpufreq, in MHz; 0 when the system does not say. */
static double read_mhz(conditions *c) {
    const int cpu = sched_getcpu();
    double khz = 0.0;
    if (cpu != c->mhz_cpu || c->mhz_fd < 0) {
        char path[512];
        if (c->mhz_fd >= 0) (void)close(c->mhz_fd);
        (void)snprintf(path, sizeof path,
                       "%s/sys/devices/system/cpu/cpu%d/cpufreq/scaling_cur_freq", c->o.sys_root,
                       cpu);
        c->mhz_fd = open_number(path);
        c->mhz_cpu = cpu;
    }
    return read_number(c->mhz_fd, &khz) == 0 ? khz / 1000.0 : 0.0;
}

/* The same from /proc/cpuinfo, which takes long where there are many CPUs: before and after the loop alone. */
static double cpuinfo_mhz(const conditions *c) {
    const int cpu = sched_getcpu();
    char line[512];
    (void)snprintf(line, sizeof line, "%s/proc/cpuinfo", c->o.sys_root);
    FILE *f = fopen(line, "r");
    if (f == NULL) return 0.0;
    long processor = -1;
    double mhz = 0.0;
    while (mhz <= 0.0 && fgets(line, sizeof line, f) != NULL) {
        const char *colon = strchr(line, ':');
        if (colon == NULL) continue;
        if (strncmp(line, "processor", 9) == 0) processor = strtol(colon + 1, NULL, 10);
        if (strncmp(line, "cpu MHz", 7) == 0 && processor == cpu) mhz = strtod(colon + 1, NULL);
    }
    (void)fclose(f);
    return mhz;
}

static double current_mhz(conditions *c) {
    const double mhz = read_mhz(c);
    return mhz > 0.0 ? mhz : cpuinfo_mhz(c);
}

/* Joules the packages have counted; -1 when one does not tell. */
static double rapl_joules(const conditions *c) {
    double sum = 0.0, uj = 0.0;
    for (int i = 0; i < c->o.n_rapl; i++) {
        if (read_number_at(c->o.rapl[i], "energy_uj", &uj) != 0) return -1.0;
        sum += uj * 1e-6;
    }
    return c->o.n_rapl > 0 ? sum : -1.0;
}

/* By the kernel's rules micro-amperes and micro-volts; below 10000 only a vendor's milli-amperes make sense. The sign
 * differs between vendors. */
static void look_at_battery(conditions *c) {
    double current = 0.0, voltage = 0.0;
    if (read_number_at(c->o.battery, "current_now", &current) != 0 ||
        read_number_at(c->o.battery, "voltage_now", &voltage) != 0)
        return;
    const double amperes = current < 0.0 ? -current : current;
    c->battery_watts += (amperes < 10000.0 ? amperes * 1e-3 : amperes * 1e-6) * voltage * 1e-6;
    c->n_battery++;
}

static void conditions_open(conditions *c, const conditions_options *o) {
    memset(c, 0, sizeof *c);
    c->o = *o;
    c->mhz_fd = c->mhz_cpu = -1;
    c->celsius_fd = open_number(o->temperature);
    c->every = 1;
}

static void conditions_close(conditions *c) {
    if (c->celsius_fd >= 0) (void)close(c->celsius_fd);
    if (c->mhz_fd >= 0) (void)close(c->mhz_fd);
}

static int is_due(int64_t now, int64_t *last, int every_ms) {
    if (*last != 0 && now - *last < (int64_t)every_ms * 1000000) return 0;
    *last = now;
    return 1;
}

/* Between two batches. */
static void conditions_look(conditions *c, int64_t now) {
    if (is_due(now, &c->mhz_ns, MHZ_EVERY_MS)) {
        c->mhz = read_mhz(c);
        if (c->mhz > c->mhz_max) c->mhz_max = c->mhz;
        if (c->mhz > 0.0 && (c->mhz_min <= 0.0 || c->mhz < c->mhz_min)) c->mhz_min = c->mhz;
    }
    if (is_due(now, &c->celsius_ns, CELSIUS_EVERY_MS)) {
        c->celsius = read_celsius(c->celsius_fd);
        if (c->celsius > c->celsius_max) c->celsius_max = c->celsius;
    }
    if (c->o.battery != NULL && is_due(now, &c->battery_ns, BATTERY_EVERY_MS)) look_at_battery(c);
}

static void energy_begin(conditions *c, int64_t now) {
    c->joules_begin = rapl_joules(c);
    c->begin_ns = now;
}

static void energy_end(conditions *c, int64_t now) {
    const double joules = rapl_joules(c);
    c->seconds = (double)(now - c->begin_ns) * 1e-9;
    if (c->joules_begin >= 0.0 && joules >= c->joules_begin) { /* less: a counter wrapped */
        c->joules = joules - c->joules_begin;
        c->energy_known = 1;
    } else if (c->n_battery > 0 && c->seconds >= (double)BATTERY_LEAST_S) {
        c->joules = c->battery_watts / (double)c->n_battery * c->seconds;
        c->energy_known = 1;
    }
}

/* Keeps every n-th batch; when the room is full every second of them goes and n doubles. */
static void add_point(conditions *c, const point *p) {
    if (c->seen++ % c->every != 0) return;
    if (c->n_points == POINTS_MAX) {
        for (long i = 0; i < POINTS_MAX / 2; i++)
            c->points[i] = c->points[2 * i];
        c->n_points = POINTS_MAX / 2;
        c->every *= 2;
        if ((c->seen - 1) % c->every != 0) return;
    }
    c->points[c->n_points++] = *p;
}

/* ---- into the document --------------------------------------------------------------------------------------- */

static double point_value(const point *p, int what) {
    switch (what) {
    case 0: return p->us;
    case 1: return p->mhz;
    case 2: return p->celsius;
    case 3: return p->wait_us;
    case 4: return (double)p->switches;
    case 5: return (double)p->migrated;
    default: return (double)p->kept;
    }
}

static void print_points(const conditions *c) {
    static const char *const names[] = {"us",       "mhz",      "celsius", "wait_us",
                                        "switches", "migrated", "kept"};
    printf("  \"batch_log\": {\"every\": %ld", c->every);
    for (int what = 0; what < 7; what++) {
        if ((what == 1 && c->mhz_max <= 0.0) || (what == 2 && c->celsius_max <= 0.0)) continue;
        printf(", \"%s\": [", names[what]);
        for (long i = 0; i < c->n_points; i++)
            printf(i > 0 ? ", %.6g" : "%.6g", point_value(&c->points[i], what));
        printf("]");
    }
    printf("},\n");
}

/* `inferences` ran in the loop, all batches together. */
static void print_energy(const conditions *c, double inferences) {
    const int battery = c->o.n_rapl == 0;
    if (!c->energy_known || c->seconds <= 0.0 || inferences <= 0.0) return;
    const double idle = c->o.idle_mw >= 0 ? (double)c->o.idle_mw * 1e-3 * c->seconds : 0.0;
    printf("  \"energy\": {\"source\": \"%s\", \"coarse\": %s, \"joules\": %.6g, \"seconds\": %.6g",
           battery ? "battery" : "rapl", battery ? "true" : "false", c->joules, c->seconds);
    if (c->o.idle_mw >= 0) printf(", \"idle_w\": %.6g", (double)c->o.idle_mw * 1e-3);
    printf(", \"mj_per_inference\": %.6g, \"minus_idle\": %s},\n",
           (c->joules - idle) * 1e3 / inferences, c->o.idle_mw >= 0 ? "true" : "false");
}

static void print_conditions(const conditions *c, double inferences) {
    print_points(c);
    print_energy(c, inferences);
    if (c->mhz_max > 0.0)
        printf("  \"mhz_min\": %.3f, \"mhz_max\": %.3f,\n", c->mhz_min, c->mhz_max);
    if (c->celsius_max > 0.0) printf("  \"celsius_max\": %.3f,\n", c->celsius_max);
}

#endif
