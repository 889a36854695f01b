/* cpus.h - lists of CPUs: reading one, pinning a thread to it, and printing what the kernel made of it. */
#ifndef CPUS_H
#define CPUS_H

#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

/* "0,2-3" -> list of CPU numbers in that order; -1 with a message when it is none. */
static int parse_cpus(const char *text, int *list, int max) {
    int n = 0;
    const char *p = text;
    while (*p != '\0') {
        char *end = NULL;
        const long first = strtol(p, &end, 10);
        long last = first;
        int bad = end == p || *p == '-' || *p == '+' || *p == ' ';
        if (!bad && *end == '-') {
            p = end + 1;
            last = strtol(p, &end, 10);
            bad = end == p || *p == '-' || *p == '+' || *p == ' ';
        }
        bad = bad || (*end != '\0' && *end != ',') || (*end == ',' && end[1] == '\0');
        if (bad || first < 0 || last < first || last >= CPU_SETSIZE || last - first >= max - n) {
            fprintf(stderr, "--cpus %s: need CPU numbers like 0,1 or 0-3, each below %d\n", text,
                    CPU_SETSIZE);
            return -1;
        }
        for (long cpu = first; cpu <= last; cpu++)
            list[n++] = (int)cpu;
        p = *end == ',' ? end + 1 : end;
    }
    return n;
}

static int pin(pid_t task, const int *cpus, int n, const char *asked) {
    cpu_set_t set;
    CPU_ZERO(&set);
    for (int i = 0; i < n; i++)
        CPU_SET((size_t)cpus[i], &set);
    if (sched_setaffinity(task, sizeof set, &set) == 0) return 0;
    fprintf(stderr, "--cpus %s: %s; name CPUs this process may use\n", asked, strerror(errno));
    return -1;
}

/* The CPUs that the kernel lets a thread run on, as ranges "0-1,4"; nothing when it does not say. */
static void print_mask(pid_t task) {
    cpu_set_t set;
    const char *comma = "";
    CPU_ZERO(&set);
    if (sched_getaffinity(task, sizeof set, &set) != 0) return;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET((size_t)cpu, &set)) continue;
        int last = cpu;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET((size_t)last + 1, &set))
            last++;
        printf(last > cpu ? "%s%d-%d" : "%s%d", comma, cpu, last);
        comma = ",";
        cpu = last;
    }
}

#endif
