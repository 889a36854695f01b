/* test_conditions.c - clusters, heat, clocks and power on a made-up machine: what is found, what a run waits for, what is
 * put back. */
#include "device-agent/agent_internal.h"
#include "tests/support/machine_tree.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char root[64];
static nas__job job;

static void setup(void) {
    ctx = nas_ctx_new();
    job = (nas__job){.out_fd = -1, .err_fd = -1};
    (void)snprintf(root, sizeof root, "/tmp/nas-tree-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(root), NULL));
    tree_phone(root);
    cr_assert(eq(int, (int)nas__probe_set_root(ctx, root), NAS_OK));
}

static void teardown(void) {
    nas__job_deinit(ctx, &job);
    (void)nas_remove_tree(ctx, root);
    nas_ctx_free(ctx);
}

TestSuite(device_agent_conditions, .init = setup, .fini = teardown, .timeout = 60);

static bool near(double a, double b) {
    return fabs(a - b) < 1e-6;
}

static void start(const char *program_text, const nas__run_options *o) {
    char path[128];
    nas_buf text = {0};
    (void)snprintf(path, sizeof path, "%s/program", root);
    nas_buf_printf(&text, "#!/bin/sh\n%s\n", program_text);
    (void)unlink(path);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, text.data, text.len, 0500), NAS_OK));
    nas_buf_deinit(&text);
    cr_assert(eq(int, (int)nas__job_start(ctx, &job, 1, path, root, o), NAS_OK), "%s",
              nas_ctx_message(ctx));
}

static void run_to_end(void) {
    while (nas__job_runs(&job)) {
        const struct timespec t = {0, 2000000};
        nas__job_step(ctx, &job);
        (void)nanosleep(&t, NULL);
    }
}

static nas__run_options options(const char *const *names_values) {
    nas__run_options o = nas__run_options_default();
    for (; names_values[0] != NULL; names_values += 2) {
        const nas__slice name = {names_values[0], strlen(names_values[0])},
                         value = {names_values[1], strlen(names_values[1])};
        const char *error = nas__run_option_add(&o, name, value);
        cr_assert(eq(ptr, (void *)(uintptr_t)error, NULL), "%s: %s", names_values[0], error);
    }
    cr_assert(eq(ptr, (void *)(uintptr_t)nas__run_options_check(&o), NULL));
    return o;
}

Test(device_agent_conditions, clusters_are_found_and_picked_by_name) {
    nas__topology t;
    char list[64];
    nas__topology_read(&t);
    cr_assert(eq(int, t.n, 2));
    cr_assert(eq(int, t.n_policies, 2));
    cr_assert(t.cluster[0].capacity == 384 && t.cluster[1].max_khz == 2419200);
    static const struct {
        const char *asked, *list;
        int threads;
    } rows[] = {
        {"big", "1", 1}, {"little", "0", 1}, {"big", "0-1", 2}, {"1,0", "1,0", 2}, {"", "", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *error =
            nas__topology_pick(&t, rows[i].asked, rows[i].threads, list, sizeof list);
        cr_assert(eq(ptr, (void *)(uintptr_t)error, NULL));
        cr_assert(eq(str, list, (char *)(uintptr_t)rows[i].list), "%s", rows[i].asked);
    }
    cr_assert(
        ne(ptr, (void *)(uintptr_t)nas__topology_pick(&t, "fast", 1, list, sizeof list), NULL));
}

Test(device_agent_conditions, caches_of_a_cluster_are_those_of_its_first_cpu) {
    static const struct {
        const char *file, *text;
    } files[] = {{"index0/level", "1"}, {"index0/type", "Instruction"}, {"index0/size", "64K"},
                 {"index1/level", "1"}, {"index1/type", "Data"},        {"index1/size", "32K"},
                 {"index2/level", "2"}, {"index2/type", "Unified"},     {"index2/size", "1M"}};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char path[96];
        (void)snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu1/cache/%s", files[i].file);
        tree_write(root, path, files[i].text);
    }
    nas__topology t;
    nas__topology_read(&t);
    cr_assert(t.cluster[0].l1d_bytes == -1 && t.cluster[0].l2_bytes == -1);
    cr_assert(t.cluster[1].l1d_bytes == 32 << 10 && t.cluster[1].l2_bytes == 1 << 20);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__topology_json(&j, &t);
    cr_assert(ne(ptr, strstr(text.data, "\"l1d_bytes\":32768,\"l2_bytes\":1048576"), NULL), "%s",
              text.data);
    nas_buf_deinit(&text);
    tree_write(root, "/sys/devices/system/cpu/cpu1/cache/index2/size", "a lot");
    nas__topology_read(&t);
    cr_assert(t.cluster[1].l2_bytes == -1 && t.cluster[1].l1d_bytes == 32 << 10);
}

Test(device_agent_conditions, cpus_without_capacity_are_told_apart_by_their_top_clock) {
    char path[160];
    nas__topology t;
    for (int cpu = 0; cpu < 2; cpu++) {
        (void)snprintf(path, sizeof path, "%s/sys/devices/system/cpu/cpu%d/cpu_capacity", root,
                       cpu);
        cr_assert(eq(int, unlink(path), 0));
    }
    nas__topology_read(&t);
    cr_assert(eq(int, t.n, 2));
    /* favoured cores of one kind are one cluster */
    tree_write(root, "/sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq", "2350000");
    nas__topology_read(&t);
    cr_assert(eq(int, t.n, 1));
    cr_assert(eq(int, t.cluster[0].n_cpus, 2));
}

Test(device_agent_conditions, the_cpus_zone_is_taken_and_nonsense_is_not) {
    nas__temperature heat;
    nas__temperature_read(&heat);
    cr_assert(heat.found);
    cr_assert(eq(str, heat.type, "cpu-1-0"));
    cr_assert(near(heat.celsius, 34.0));
    tree_write(root, "/sys/class/thermal/thermal_zone1/temp", "-40000");
    nas__temperature_read(&heat);
    cr_assert(not(heat.found)); /* the battery's heat is not the CPU's */
    double celsius = 0;
    static const struct {
        int64_t raw;
        double celsius; /* 0: none */
    } rows[] = {{41500, 41.5}, {415, 41.5}, {41, 41.0}, {0, 0}, {-5, 0}, {999999, 0}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const bool ok = nas__celsius_of(rows[i].raw, &celsius);
        cr_assert(eq(int, ok, rows[i].celsius > 0), "%lld", (long long)rows[i].raw);
        if (ok) cr_assert(near(celsius, rows[i].celsius));
    }
}

Test(device_agent_conditions, androids_service_tells_where_the_zones_are_closed) {
    nas__temperature heat = {.code = EACCES};
    nas__temperature_parse_android("Current temperatures from HAL:\n"
                                   "\tTemperature{mValue=45.2, mType=3, mName=skin, mStatus=0}\n"
                                   "\tTemperature{mValue=38.5, mType=0, mName=CPU0, mStatus=0}\n"
                                   "\tTemperature{mValue=41.25, mType=0, mName=CPU4, mStatus=0}\n"
                                   "\tTemperature{mValue=, mName=CPU5}\nnonsense",
                                   &heat);
    cr_assert(heat.found && near(heat.celsius, 41.25));
    cr_assert(eq(str, heat.type, "CPU4"));
    heat = (nas__temperature){.code = EACCES};
    nas__temperature_parse_android("no such service", &heat);
    cr_assert(not(heat.found));
    cr_assert(eq(int, heat.code, EACCES));
}

Test(device_agent_conditions, a_hot_device_is_waited_for) {
    const nas__run_options o = options((const char *[]){"gate-ms", "20000", NULL});
    start("echo '{}'", &o); /* cool: the baseline is 34 C */
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    tree_write(root, "/sys/class/thermal/thermal_zone1/temp", "45000");
    start("echo '{}'", &o);
    for (int i = 0; i < 100; i++) {
        const struct timespec t = {0, 5000000};
        nas__job_step(ctx, &job);
        (void)nanosleep(&t, NULL);
    }
    cr_assert(eq(int, (int)job.phase, (int)NAS__PHASE_COOLING));
    tree_write(root, "/sys/class/thermal/thermal_zone1/temp", "38000");
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    cr_assert(job.gate_waited_ms >= 400 && near(job.baseline.celsius, 34.0));
}

Test(device_agent_conditions, a_device_that_stays_hot_fails_the_run_with_the_temperatures) {
    const nas__run_options o =
        options((const char *[]){"gate-ms", "300", "max-celsius", "30.5", NULL});
    start("echo '{}'", &o);
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_FAILED));
    cr_assert(eq(str, job.reason, "too_hot"));
    cr_assert(ne(ptr, strstr(job.error, "34.0 C"), NULL), "%s", job.error);
    cr_assert(ne(ptr, strstr(job.error, "30.5 C"), NULL), "%s", job.error);
    const nas__run_options never =
        options((const char *[]){"gate-ms", "0", "max-celsius", "30.5", NULL});
    start("echo '{}'", &never);
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
}

Test(device_agent_conditions, a_run_that_waits_can_be_killed) {
    const nas__run_options o = options((const char *[]){"max-celsius", "20", NULL});
    start("echo '{}'", &o);
    nas__job_kill(&job, "killed", "killed on request");
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_KILLED));
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__job_json(&j, &job);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    cr_assert(eq(ptr, strstr(text.data, "exit_code"), NULL));
    nas_buf_deinit(&text);
}

#define POLICY1 "/sys/devices/system/cpu/cpufreq/policy1/"

Test(device_agent_conditions, clocks_are_pinned_read_back_and_put_back) {
    char now[32], target[200];
    const nas__run_options o = options((const char *[]){"frequency", "1200,2000", NULL});
    (void)snprintf(target, sizeof target, "cat %s" POLICY1 "scaling_m*_freq >&2; echo '{}'", root);
    start(target, &o);
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    cr_assert(eq(str, job.err.data, "20000002000000")); /* both bounds, while it ran */
    cr_assert(job.frequency.pinned);
    tree_read(root, POLICY1 "scaling_min_freq", now, sizeof now);
    cr_assert(eq(str, now, "576000"));
    tree_read(root, POLICY1 "scaling_max_freq", now, sizeof now);
    cr_assert(eq(str, now, "2419200"));
    (void)snprintf(target, sizeof target, "%s/" NAS__FREQUENCY_MEMORY, root);
    cr_assert(not(nas_file_exists(target)));
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__job_json(&j, &job);
    cr_assert(
        ne(ptr, strstr(text.data, "\"frequency\":{\"asked\":\"1200,2000\",\"pinned\":true"), NULL),
        "%s", text.data);
    nas_buf_deinit(&text);
}

Test(device_agent_conditions, clocks_that_cannot_be_set_are_said_and_the_run_goes_on) {
    char path[128];
    const nas__run_options o = options((const char *[]){"frequency", "max", NULL});
    (void)snprintf(path, sizeof path, "%s" POLICY1 "scaling_min_freq", root);
    cr_assert(eq(int, unlink(path), 0));
    cr_assert(eq(int, mkdir(path, 0700), 0)); /* root may write anything but a folder */
    start("echo '{}'", &o);
    run_to_end();
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__frequency_json(&j, &job.frequency);
    cr_assert(ne(ptr, strstr(text.data, "\"pinned\":false,\"unavailable\":\""), NULL), "%s",
              text.data);
    nas_buf_deinit(&text);
}

Test(device_agent_conditions, clocks_of_a_killed_agent_are_put_back_at_the_next_start) {
    nas__topology t;
    nas__frequency f;
    char memory[128], now[32];
    (void)snprintf(memory, sizeof memory, "%s/" NAS__FREQUENCY_MEMORY, root);
    nas__topology_read(&t);
    nas__frequency_pin(&f, &t, "max", memory); /* and then the agent is gone */
    tree_read(root, POLICY1 "scaling_min_freq", now, sizeof now);
    cr_assert(eq(str, now, "2419200"));
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_ERROR);
    nas__frequency_recover(ctx, memory);
    tree_read(root, POLICY1 "scaling_min_freq", now, sizeof now);
    cr_assert(eq(str, now, "576000"));
    cr_assert(not(nas_file_exists(memory)));
    nas__frequency_recover(ctx, memory); /* nothing to do */
}

Test(device_agent_conditions, options_of_a_run_are_checked) {
    static const struct {
        const char *name, *value;
    } rows[] = {{"frequency", ""},     {"frequency", "fast"},  {"frequency", "1000,"},
                {"gate-ms", "600001"}, {"max-celsius", "nan"}, {"max-celsius", "151"},
                {"idle-ms", "60001"},  {"cpus", "biggest"},    {"deadline_ms", "0"},
                {"sys-root", "/tmp"},  {"temperature", "/etc"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas__run_options o = nas__run_options_default();
        const nas__slice name = {rows[i].name, strlen(rows[i].name)},
                         value = {rows[i].value, strlen(rows[i].value)};
        cr_assert(ne(ptr, (void *)(uintptr_t)nas__run_option_add(&o, name, value), NULL), "%s=%s",
                  rows[i].name, rows[i].value);
    }
    nas__run_options o = nas__run_options_default();
    const nas__slice name = {"deadline_ms", 11}, value = {"200000", 6};
    cr_assert(eq(ptr, (void *)(uintptr_t)nas__run_option_add(&o, name, value), NULL));
    cr_assert(ne(ptr, (void *)(uintptr_t)nas__run_options_check(&o), NULL)); /* no sustained run */
    cr_assert(ne(ptr, (void *)(uintptr_t)nas__run_option_add(&o, name, value), NULL)); /* twice */
    o = options((const char *[]){"deadline_ms", "200000", "sustained-s", "90", NULL});
    char path[128];
    (void)snprintf(path, sizeof path, "%s/program", root);
    o = options((const char *[]){"frequency", "1000", NULL}); /* this machine has two clusters */
    cr_assert(eq(int, (int)nas__job_start(ctx, &job, 1, path, root, &o), NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "one MHz value for each cluster"), NULL));
}

Test(device_agent_conditions, power_at_rest_is_measured_where_it_is_shown) {
    const nas__run_options o = options((const char *[]){"idle-ms", "600", NULL});
    start("echo \"{\\\"argv\\\": \\\"$*\\\"}\"", &o);
    run_to_end();
    cr_assert(job.has_idle && near(job.idle_w, 0.412 * 4.0), "%g", job.idle_w);
    cr_assert(ne(ptr, strstr(job.out.data, "--battery"), NULL), "%s", job.out.data);
    cr_assert(ne(ptr, strstr(job.out.data, "--idle-mw 1648"), NULL), "%s", job.out.data);
    nas__power power;
    tree_write(root, "/sys/class/power_supply/battery/status", "Charging");
    nas__power_find(&power);
    cr_assert(power.kind == NAS__POWER_NONE && power.charging);
    tree_write(root, "/sys/class/powercap/intel-rapl:0/energy_uj", "1000000");
    nas__power_find(&power);
    cr_assert(power.kind == NAS__POWER_RAPL && power.n == 1);
}

Test(device_agent_conditions, doctor_tells_clusters_features_and_what_cannot_be_had) {
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    const nas__limits limits = {.rlimits = true};
    nas__info_json(&j, &limits, NULL);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    static const char *const parts[] = {
        "\"sys_root\":\"/tmp/nas-tree-",
        "\"clusters\":[{\"cpus\":\"0\",\"capacity\":384,\"min_khz\":576000,\"max_khz\":1785600",
        "\"features\":\"fp asimd asimdhp asimddp\"",
        "\"neon\":true,\"dotprod\":true,\"i8mm\":false,\"fp16\":true",
        "\"temperature\":\"cpu-1-0\"",
        "\"energy\":\"battery (coarse",
        "\"soc\":{\"unavailable\":\"No such file or directory\"}",
        "\"memory_bytes\":6442450944",
        "\"os\":\"linux\""};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        cr_assert(ne(ptr, strstr(text.data, parts[i]), NULL), "%s in %s", parts[i], text.data);
    tree_write(root, "/system/build.prop", "x=y");
    nas_buf_clear(&text);
    j = nas_json_begin(&text);
    nas__info_json(&j, &limits, NULL);
    cr_assert(ne(ptr, strstr(text.data, "\"os\":\"android\""), NULL));
    nas_buf_deinit(&text);
}

Test(device_agent_features, names_are_whole_words_and_letters_of_an_isa) {
    nas_buf text = {0};
    static const struct {
        const char *list, *part;
    } rows[] = {
        {"avx2 fma avx512f avx512_vnni amx_tile", "\"avx512\":true,\"vnni\":true,\"amx\":true"},
        {"avx512f_not", "\"avx512\":false"},
        {"rv64imafdcv_zicsr", "\"rvv\":true"},
        {"rv64imafdc_zve32x", "\"rvv\":false"},
        {"asimd sve i8mm bf16", "\"i8mm\":true,\"fp16\":false,\"bf16\":true,\"sve\":true"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_buf_clear(&text);
        nas_json j = nas_json_begin(&text);
        nas__features_json(&j, rows[i].list);
        cr_assert(ne(ptr, strstr(text.data, rows[i].part), NULL), "%s: %s", rows[i].list,
                  text.data);
    }
    nas_buf_deinit(&text);
}
