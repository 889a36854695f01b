/* machine_tree.c - see machine_tree.h. */
#include "tests/support/machine_tree.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <string.h>

void tree_write(const char *root, const char *path, const char *text) {
    char full[512], folder[512];
    (void)snprintf(full, sizeof full, "%s%s", root, path);
    (void)snprintf(folder, sizeof folder, "%s", full);
    *strrchr(folder, '/') = '\0';
    cr_assert(eq(int, (int)nas_mkdirs(NULL, folder), NAS_OK));
    FILE *file = fopen(full, "w");
    cr_assert(ne(ptr, file, NULL), "%s", full);
    cr_assert(fprintf(file, "%s\n", text) > 0 && fclose(file) == 0);
}

void tree_read(const char *root, const char *path, char *out, size_t size) {
    char full[512];
    nas_buf text = {0};
    (void)snprintf(full, sizeof full, "%s%s", root, path);
    cr_assert(eq(int, (int)nas_file_read(NULL, full, 4096, &text), NAS_OK), "%s", full);
    (void)snprintf(out, size, "%.*s", (int)strcspn(text.data, "\n"), text.data);
    nas_buf_deinit(&text);
}

void tree_phone(const char *root) {
    static const struct {
        const char *capacity, *max;
    } cpus[2] = {{"384", "1785600"}, {"1024", "2419200"}};
    for (int cpu = 0; cpu < 2; cpu++) {
        char path[160], number[8];
        (void)snprintf(number, sizeof number, "%d", cpu);
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/cpu_capacity", cpu);
        tree_write(root, path, cpus[cpu].capacity);
        for (int i = 0; i < 2; i++) {
            const struct {
                const char *file, *text;
            } files[] = {{"related_cpus", number},
                         {"cpuinfo_min_freq", "576000"},
                         {"cpuinfo_max_freq", cpus[cpu].max},
                         {"scaling_min_freq", "576000"},
                         {"scaling_max_freq", cpus[cpu].max},
                         {"scaling_cur_freq", "1200000"},
                         {"scaling_governor", "schedutil"}};
            char folder[96];
            (void)snprintf(folder, sizeof folder, "%s%d%s",
                           i == 0 ? "/sys/devices/system/cpu/cpu"
                                  : "/sys/devices/system/cpu/cpufreq/policy",
                           cpu, i == 0 ? "/cpufreq" : "");
            for (size_t k = 0; k < sizeof files / sizeof *files; k++) {
                (void)snprintf(path, sizeof path, "%s/%s", folder, files[k].file);
                tree_write(root, path, files[k].text);
            }
        }
    }
    tree_write(root, "/sys/devices/system/cpu/online", "0-1");
    tree_write(root, "/sys/class/thermal/thermal_zone0/type", "battery");
    tree_write(root, "/sys/class/thermal/thermal_zone0/temp", "29000");
    tree_write(root, "/sys/class/thermal/thermal_zone1/type", "cpu-1-0");
    tree_write(root, "/sys/class/thermal/thermal_zone1/temp", "34000");
    tree_write(root, "/sys/class/power_supply/battery/type", "Battery");
    tree_write(root, "/sys/class/power_supply/battery/status", "Discharging");
    tree_write(root, "/sys/class/power_supply/battery/current_now", "-412000");
    tree_write(root, "/sys/class/power_supply/battery/voltage_now", "4000000");
    tree_write(root, "/proc/cpuinfo",
               "processor\t: 0\nFeatures\t: fp asimd asimdhp asimddp\nCPU part\t: 0xd05");
    tree_write(root, "/proc/meminfo", "MemTotal: 6291456 kB\nMemAvailable: 4194304 kB");
}
