/* run_options.c - the options of one run as the wire and the command line spell them, checked: what the program gets as
 * it is, and what the agent does around it. */
#include "device-agent/agent_internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DIGITS_MAX = 9 };

static bool is_number(nas__slice value) {
    for (size_t i = 0; i < value.len; i++) {
        if (value.data[i] < '0' || value.data[i] > '9') return false;
    }
    return value.len > 0 && value.len <= DIGITS_MAX;
}

static bool is_cpus(nas__slice value) {
    if (nas__slice_is(value, "big") || nas__slice_is(value, "little")) return true;
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.data[i];
        if ((c < '0' || c > '9') && c != ',' && c != '-') return false;
    }
    return true;
}

const char *nas__bench_arg_add(nas__bench_args *args, nas__slice name, nas__slice value) {
    static const char *const names[NAS__BENCH_OPTIONS] = {
        "threads",     "cpus",      "min-batches",   "min-time-ms", "max-time-ms", "batch-ms",
        "warmup-runs", "warmup-ms", "warmup-cap-ms", "sustained-s", "profile"};
    size_t at = 0;
    while (at < NAS__BENCH_OPTIONS && !nas__slice_is(name, names[at]))
        at++;
    if (at == NAS__BENCH_OPTIONS) return "unknown bench option";
    const bool good = strcmp(names[at], "cpus") == 0 ? is_cpus(value) : is_number(value);
    if (value.data == NULL || !good || value.len >= sizeof args->text[0]) {
        return "bench option: need a number of at most 9 digits, for cpus big, little or a list "
               "like 0,1";
    }
    if (strcmp(names[at], "profile") == 0 && !nas__slice_is(value, "1")) return "profile: need 1";
    char text[64];
    (void)snprintf(text, sizeof text, "--%s", names[at]);
    for (int i = 0; i < args->n; i += 2) {
        if (strcmp(args->text[i], text) == 0) return "bench option given twice";
    }
    memcpy(args->text[args->n], text, sizeof text);
    (void)snprintf(args->text[args->n + 1], sizeof args->text[0], "%.*s", (int)value.len,
                   value.data);
    args->n += 2;
    return NULL;
}

const char *nas__bench_arg_get(const nas__bench_args *args, const char *name) {
    for (int i = 0; i < args->n; i += 2) {
        if (strcmp(args->text[i] + 2, name) == 0) return args->text[i + 1];
    }
    return NULL;
}

nas__run_options nas__run_options_default(void) {
    return (nas__run_options){.gate_ms = NAS_AGENT_GATE_MS};
}

static const char *read_celsius(nas__slice value, double *out) {
    char text[16], *end = NULL;
    static const char wrong[] = "max-celsius: need 1 to 150";
    if (value.len == 0 || value.len >= sizeof text) return wrong;
    (void)snprintf(text, sizeof text, "%.*s", (int)value.len, value.data);
    const double celsius = strtod(text, &end);
    if (*end != '\0' || !isfinite(celsius) || celsius < 1 || celsius > 150) return wrong;
    *out = celsius;
    return NULL;
}

static const char *read_ms(nas__slice value, uint64_t least, uint64_t most, const char *wrong,
                           int64_t *out) {
    uint64_t number = 0;
    if (!nas__slice_u64(value, most, &number) || number < least) return wrong;
    *out = (int64_t)number;
    return NULL;
}

static const char *read_frequency(nas__slice value, nas__run_options *o) {
    if (value.len == 0 || value.len >= sizeof o->frequency)
        return "frequency: need max, or MHz of each cluster from the smallest to the largest";
    (void)snprintf(o->frequency, sizeof o->frequency, "%.*s", (int)value.len, value.data);
    return nas__frequency_check(o->frequency, 0);
}

const char *nas__run_option_add(nas__run_options *o, nas__slice name, nas__slice value) {
    static const char *const names[] = {"deadline_ms", "gate-ms", "idle-ms", "max-celsius",
                                        "frequency"};
    static const char *const twice[] = {"deadline_ms given twice", "gate-ms given twice",
                                        "idle-ms given twice", "max-celsius given twice",
                                        "frequency given twice"};
    unsigned at = 0;
    while (at < sizeof names / sizeof *names && !nas__slice_is(name, names[at]))
        at++;
    if (at == sizeof names / sizeof *names) return nas__bench_arg_add(&o->args, name, value);
    if ((o->given >> at & 1u) != 0) return twice[at];
    o->given |= 1u << at;
    switch (at) {
    case 0:
        return read_ms(value, 1, NAS_AGENT_RUN_MS_MAX + 1000 * (uint64_t)NAS_AGENT_SUSTAINED_S_MAX,
                       "deadline_ms: need 1 to 120000, and for a sustained run its time more",
                       &o->deadline_ms);
    case 1:
        return read_ms(value, 0, NAS_AGENT_GATE_MS_MAX, "gate-ms: need 0 to 600000", &o->gate_ms);
    case 2:
        return read_ms(value, 0, NAS_AGENT_IDLE_POWER_MS_MAX, "idle-ms: need 0 to 60000",
                       &o->idle_ms);
    case 3: return read_celsius(value, &o->max_celsius);
    default: return read_frequency(value, o);
    }
}

const char *nas__run_options_check(nas__run_options *o) {
    const char *sustained = nas__bench_arg_get(&o->args, "sustained-s");
    const int64_t seconds = sustained != NULL ? strtol(sustained, NULL, 10) : 0;
    if (sustained != NULL && (seconds < 1 || seconds > NAS_AGENT_SUSTAINED_S_MAX))
        return "sustained-s: need 1 to 3600";
    const int64_t most = NAS_AGENT_RUN_MS_MAX + 1000 * seconds;
    if (o->deadline_ms == 0) o->deadline_ms = most;
    return o->deadline_ms <= most
               ? NULL
               : "deadline_ms: need 1 to 120000, and for a sustained run its time more";
}
