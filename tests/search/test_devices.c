/* test_devices.c - studies on several devices: simulated ones, and agents on loopback that are killed on the way. */
#include "compiler/compiler.h"
#include "db/db.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char folder[128], config_path[192], set_dir[192], db_path[192];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
    (void)snprintf(set_dir, sizeof set_dir, "study.dir=%s/run", folder);
    (void)snprintf(db_path, sizeof db_path, "%s/run/study.db", folder);
    (void)snprintf(config_path, sizeof config_path, "%s/config.toml", folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
}

TestSuite(search_devices, .init = setup, .fini = teardown, .timeout = 300);

/* The quick study without its devices, objectives and bounds, followed by `rest`. */
static void write_config(const char *rest) {
    static const char common[] =
        "[study]\nname = \"devices\"\n[task]\nscale = 2\nout_width = 160\nout_height = 96\n"
        "[data]\nleaves_train = 6\nleaves_select = 2\nleaves_report = 2\nleaves_size = 64\n"
        "[space]\nblocks_max = 2\nresidual = [8, 16, 4]\nexpand = [16, 32, 16]\n"
        "project = [4, 12, 4]\nhead_kernels = [3]\ntail_kernels = [3]\nskip_kernels = [3]\n"
        "[eval]\nbatch = 4\npatch = 16\nsupernet_steps = 10\nfinetune_steps = 2\n"
        "finetune_max = 2\nbaseline_steps = 2\n[search]\ntrials = 8\npopulation = 4\n";
    nas_buf text = {0};
    nas_buf_puts(&text, common);
    nas_buf_puts(&text, rest);
    cr_assert(eq(int, (int)nas_file_write(ctx, config_path, text.data, text.len, 0600), NAS_OK));
    nas_buf_deinit(&text);
}

static nas_process_result search(void) {
    return test_run(ctx, "nas-search",
                    (const char *const[]){"--config", config_path, "--set", set_dir, NULL});
}

static nas_status collect(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                          const char *const *values, const bool *is_number) {
    (void)c;
    (void)names;
    (void)is_number;
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(arg, "%s%s", values[i] == NULL ? "-" : values[i], i + 1 < n ? "|" : "\n");
    return NAS_OK;
}

/* Rows of a query as text; valid until the next call. */
static const char *query(const char *sql) {
    static char text[16384];
    nas_buf rows = {0};
    nas_db *db = NULL;
    nas_status status = nas_db_open_readonly(ctx, db_path, &db);
    if (status == NAS_OK) status = nas_db_query(ctx, db, sql, NULL, 0, collect, &rows);
    cr_assert(eq(int, (int)status, NAS_OK), "%s: %s", sql, nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_db_close(ctx, db), NAS_OK));
    (void)snprintf(text, sizeof text, "%s", rows.data == NULL ? "" : rows.data);
    nas_buf_deinit(&rows);
    return text;
}

static void assert_says(const char *text, const char *words) {
    cr_assert(ne(ptr, (void *)(uintptr_t)strstr(text, words), NULL), "no '%s' in:\n%s", words,
              text);
}

/* ---- simulated devices ------------------------------------------------------------------------------------------------- */

static const char two_simulated[] =
    "[objectives]\nmaximise = [\"psnr_y\"]\n"
    "minimise = [\"latency_p50_ms@fast\", \"latency_p50_ms@slow\"]\n"
    "[constraints]\n\"latency_p90_ms@slow\" = \"<= 90%\"\n"
    "[[device]]\nname = \"fast\"\nconnect = \"simulated\"\n"
    "[[device]]\nname = \"s1\"\npool = \"slow\"\nconnect = \"simulated:2.5\"\n"
    "[[device]]\nname = \"s2\"\npool = \"slow\"\nconnect = \"simulated:2.5\"\n";

Test(search_devices, each_network_is_timed_in_every_queue_and_tables_show_each) {
    write_config(two_simulated);
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    assert_says(r.out.data, "latency_p50_ms@fast");
    assert_says(r.out.data, "latency_p90_ms@slow");
    assert_says(r.out.data, "ms on slow");
    nas_process_result_deinit(&r);
    cr_expect(eq(str,
                 (char *)query("SELECT count(*) FROM v_trial t WHERE state = 'COMPLETE' AND"
                               " (SELECT count(*) FROM v_latency l WHERE l.trial_id ="
                               " t.trial_id AND role = 'search') <> 2"),
                 "0\n"));
    cr_expect(eq(str,
                 (char *)query("SELECT count(*), count(DISTINCT round(b.latency_p50_ms /"
                               " a.latency_p50_ms, 9)), round(max(b.latency_p50_ms /"
                               " a.latency_p50_ms), 9) FROM v_latency a JOIN v_latency b"
                               " ON a.trial_id = b.trial_id AND a.role = b.role"
                               " WHERE a.queue = 'fast' AND b.queue = 'slow'"
                               " AND a.role = 'search'"),
                 "10|1|2.5\n"));
    cr_expect(eq(str, (char *)query("SELECT DISTINCT queue FROM v_trial"), "fast\n"));
    cr_expect(eq(str,
                 (char *)query("SELECT DISTINCT device FROM v_latency WHERE queue = 'slow'"
                               " ORDER BY device"),
                 "s1\ns2\n"),
              "both devices of the pool work");
    char recipe[256];
    (void)snprintf(recipe, sizeof recipe, "%s/run/best/recipe.json", folder);
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, recipe, 1 << 20, &text), NAS_OK));
    assert_says(text.data, "\"latencies\":[{\"device\":\"fast\"");
    assert_says(text.data, "{\"device\":\"slow\"");
    nas_buf_deinit(&text);
}

static char *everything_told(void) {
    return nas_strdup(ctx, query("SELECT t.trial, t.point, t.state, t.psnr_y, t.violation,"
                                 " l.role, l.queue, l.latency_p50_ms, l.latency_p90_ms"
                                 " FROM v_trial t LEFT JOIN v_latency l ON l.trial_id = t.trial_id"
                                 " ORDER BY t.trial, l.role, l.queue"));
}

Test(search_devices, the_same_study_twice_gives_the_same_whoever_answers_first) {
    write_config(two_simulated);
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    char *first = everything_told();
    (void)snprintf(set_dir, sizeof set_dir, "study.dir=%s/again", folder);
    (void)snprintf(db_path, sizeof db_path, "%s/again/study.db", folder);
    r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    char *second = everything_told();
    cr_expect(eq(str, first, second));
    nas_free(first);
    nas_free(second);
}

Test(search_devices, a_pool_of_different_devices_is_refused_with_the_difference) {
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n"
                 "[[device]]\nname = \"a\"\npool = \"p\"\nconnect = \"simulated:2\"\n"
                 "[[device]]\nname = \"b\"\npool = \"p\"\nconnect = \"simulated:3\"\n");
    nas_process_result r = search();
    cr_expect(eq(int, r.exit_code, NAS_EXIT_FAILED), "%s", r.err.data);
    assert_says(r.err.data, "pool 'p': devices 'a' and 'b' are not alike");
    assert_says(r.err.data, "x2\" and \"simulated roofline/1 x3\"");
    nas_process_result_deinit(&r);
}

Test(search_devices, a_device_that_nothing_names_is_left_alone_and_that_is_said) {
    write_config("[objectives]\nmaximise = [\"psnr_y\"]\nminimise = [\"latency_p50_ms@a\"]\n"
                 "[[device]]\nname = \"a\"\nconnect = \"simulated\"\n"
                 "[[device]]\nname = \"b\"\nconnect = \"http://127.0.0.1:9\"\nkey_file = \"x\"\n");
    nas_process_result r = search();
    cr_expect(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    assert_says(r.err.data, "device 'b' is not used");
    nas_process_result_deinit(&r);
}

Test(search_devices, a_program_of_another_processor_is_run_by_an_emulator_or_has_a_twin) {
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n[compile]\n"
                 "target = \"aarch64-dotprod\"\n[[device]]\nname = \"a\"\n"
                 "connect = \"simulated\"\n");
    if (access("/usr/bin/aarch64-linux-gnu-gcc", X_OK) != 0) cr_skip_test("no compiler for arm64");
    const bool emulated = access("/usr/bin/qemu-aarch64-static", X_OK) == 0 ||
                          access("/usr/bin/qemu-aarch64", X_OK) == 0;
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    assert_says(r.out.data, "by a native build of the timed network");
    nas_process_result_deinit(&r);
    cr_expect(
        eq(str, (char *)query("SELECT DISTINCT checked FROM v_trial WHERE state = 'COMPLETE'"),
           emulated ? "run by an emulator, one frame\n" : "only a native build of the network\n"));
    cr_expect(
        eq(str, (char *)query("SELECT DISTINCT target FROM v_measurement"), "aarch64-dotprod\n"));
}

/* Half precision: timed and delivered so, compared with the reference where an emulator runs it. */
Test(search_devices, programs_of_a_device_compute_in_half_precision_where_asked) {
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n[compile]\n"
                 "target = \"aarch64-fp16\"\ndtype = \"fp16\"\n[[device]]\nname = \"a\"\n"
                 "connect = \"simulated\"\n");
    if (access("/usr/bin/aarch64-linux-gnu-gcc", X_OK) != 0) cr_skip_test("no compiler for arm64");
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    assert_says(r.out.data, "compute in half precision (compile.dtype = \"fp16\")");
    nas_process_result_deinit(&r);
    cr_expect(
        eq(str, (char *)query("SELECT DISTINCT target FROM v_measurement"), "aarch64-fp16\n"));
    cr_expect(eq(str, (char *)query("SELECT count(*) FROM v_trial WHERE state = 'FAIL'"), "0\n"));
    nas_buf text = {0};
    char path[256];
    (void)snprintf(path, sizeof path, "%s/run/best/model.c", folder);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, SIZE_MAX, &text), NAS_OK), "%s",
              nas_ctx_message(ctx));
    nas_buf_append(&text, "", 1);
    assert_says(text.data, "_Float16");
    nas_buf_deinit(&text);
}

/* Without a target by name it is this processor's row for halves, which is not that for integers; else the reason. */
Test(search_devices, half_precision_here_takes_the_row_that_has_it) {
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n[compile]\n"
                 "target = \"auto\"\ndtype = \"fp16\"\n[[device]]\nname = \"a\"\n"
                 "connect = \"simulated\"\n");
    const nas_target *row = NULL;
    cr_assert(eq(int, (int)nas_target_native(ctx, NAS_DTYPE_FP16, &row), (int)NAS_OK));
    nas_process_result r = search();
    if (nas_target_check_dtype(ctx, row, NAS_DTYPE_FP16) != NAS_OK) {
        cr_assert(eq(int, r.exit_code, NAS_EXIT_FAILED), "%s", r.err.data);
        assert_says(r.err.data, "half precision (fp16)");
        nas_process_result_deinit(&r);
        return;
    }
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    char expected[64];
    (void)snprintf(expected, sizeof expected, "%s\n", row->name);
    cr_expect(eq(str, (char *)query("SELECT DISTINCT target FROM v_measurement"), expected));
    cr_expect(eq(str, (char *)query("SELECT count(*) FROM v_trial WHERE state = 'FAIL'"), "0\n"));
}

Test(search_devices, a_study_of_a_device_that_is_gone_names_what_changed) {
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n[[device]]\nname = \"a\"\n"
                 "connect = \"simulated\"\n");
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    write_config("[objectives]\nminimise = [\"latency_p50_ms\"]\n[[device]]\nname = \"a\"\n"
                 "connect = \"simulated:2\"\n");
    r = search();
    cr_expect(eq(int, r.exit_code, NAS_EXIT_FAILED));
    assert_says(r.err.data, "device[0].connect: \"simulated\" -> \"simulated:2\"");
    nas_process_result_deinit(&r);
}

Test(search_devices, a_profile_times_each_convolution_of_the_front_on_each_device) {
    write_config("[objectives]\nmaximise = [\"psnr_y\"]\n"
                 "minimise = [\"latency_p50_ms@a\", \"latency_p50_ms@b\"]\n"
                 "[[device]]\nname = \"a\"\nconnect = \"simulated\"\n"
                 "[[device]]\nname = \"b\"\nconnect = \"simulated:2\"\n");
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_expect(eq(str, (char *)query("SELECT count(*) FROM kernel_timings"), "0\n"));
    r = test_run(
        ctx, "nas-search", /* on demand, also of a study that has ended */
        (const char *const[]){"--config", config_path, "--set", set_dir, "--profile", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_expect(eq(str,
                 (char *)query("SELECT count(*) > 2, count(DISTINCT device), min(device LIKE"
                               " 'SIMULATED %'), max(way) FROM kernel_timings"),
                 "1|2|1|alone\n"));
    const char *trial = query("SELECT min(trial) FROM v_trial WHERE final_psnr_y IS NOT NULL"
                              " AND origin NOT LIKE 'baseline%'");
    char number[16];
    (void)snprintf(number, sizeof number, "%.*s", (int)strcspn(trial, "\n"), trial);
    r = test_run(ctx, "nas-query", (const char *const[]){db_path, "profile", number, NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    assert_says(r.out.data, "alone_ms");
    assert_says(r.out.data, "conv3x3");
    nas_process_result_deinit(&r);
}

/* ---- agents that die ----------------------------------------------------------------------------------------------------- */

typedef struct agent {
    pid_t pid;
    int port;
    char key[192], cache[192], listen[64];
} agent;

static bool answers(int port) {
    char address[64];
    (void)snprintf(address, sizeof address, "/dev/tcp/127.0.0.1/%d", port);
    char command[128];
    (void)snprintf(command, sizeof command, "exec 3<>%s", address);
    nas_process_options o = nas_process_options_default();
    o.argv = (const char *const[]){"bash", "-c", command, NULL};
    nas_process_result r = {0};
    const bool ok = nas_process_run(ctx, &o, &r) == NAS_OK && r.exit_code == 0;
    nas_process_result_deinit(&r);
    return ok;
}

/* A port of our own by our pid; agents of one test differ by `which`. */
static void agent_start(agent *a, int which) {
    char bin[512];
    test_bin("nas-agent", bin);
    if (a->port == 0) {
        a->port = 20000 + (int)(getpid() % 20000) + which * 7;
        (void)snprintf(a->key, sizeof a->key, "%s/key%d", folder, which);
        (void)snprintf(a->cache, sizeof a->cache, "%s/cache%d", folder, which);
        (void)snprintf(a->listen, sizeof a->listen, "127.0.0.1:%d", a->port);
        nas_process_result r =
            test_run(ctx, "nas-agent", (const char *const[]){"keygen", a->key, NULL});
        cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
        nas_process_result_deinit(&r);
    }
    char parent[24]; /* a test that fails leaves no agent behind */
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    a->pid = fork();
    cr_assert(a->pid >= 0);
    if (a->pid == 0) {
        (void)freopen("/dev/null", "w", stderr);
        (void)execl(bin, bin, "serve", "--key-file", a->key, "--cache-dir", a->cache, "--listen",
                    a->listen, "--abandon-ms", "1000", "--parent-pid", parent, (char *)NULL);
        _exit(127);
    }
    const int64_t until = nas_now_ns() + (int64_t)20 * 1000000000;
    while (!answers(a->port))
        cr_assert(nas_now_ns() < until, "the agent does not listen on %s", a->listen);
}

static void agent_kill(agent *a) {
    (void)kill(a->pid, SIGKILL);
    (void)waitpid(a->pid, NULL, 0);
}

static void write_remote_config(const agent *a, const char *more) {
    nas_buf text = {0};
    nas_buf_puts(&text, "[objectives]\nmaximise = [\"psnr_y\"]\n"
                        "minimise = [\"latency_p50_ms@remote\", \"latency_p50_ms@calm\"]\n"
                        "[measure]\nmin_time_ms = 20\nmax_time_ms = 60\nfinal_max_time_ms = 60\n"
                        "min_batches = 5\ndrift_limit = 1\n");
    nas_buf_puts(&text, more);
    nas_buf_printf(&text,
                   "[[device]]\nname = \"remote\"\nconnect = \"http://127.0.0.1:%d\"\n"
                   "key_file = \"%s\"\nthreads = 1\n"
                   "[[device]]\nname = \"calm\"\nconnect = \"simulated\"\n",
                   a->port, a->key);
    write_config(text.data);
    nas_buf_deinit(&text);
}

/* Starts the study and waits until the remote device has timed some trial; the study's pid. */
static pid_t start_until_measured(const char *log_path) {
    char bin[512];
    test_bin("nas-search", bin);
    const pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        cr_assert(ne(ptr, freopen(log_path, "w", stderr), NULL));
        (void)freopen("/dev/null", "w", stdout);
        (void)execl(bin, bin, "--config", config_path, "--set", set_dir, (char *)NULL);
        _exit(127);
    }
    const int64_t until = nas_now_ns() + (int64_t)60 * 1000000000;
    for (bool found = false; !found;) {
        if (nas_now_ns() >= until) (void)kill(pid, SIGKILL);
        cr_assert(nas_now_ns() < until, "nothing is measured");
        const struct timespec pause = {0, 20000000};
        (void)nanosleep(&pause, NULL);
        nas_db *db = NULL;
        nas_buf rows = {0};
        if (!nas_file_exists(db_path)) continue;
        if (nas_db_open_readonly(ctx, db_path, &db) == NAS_OK &&
            nas_db_query(ctx, db,
                         "SELECT 1 FROM v_measurement WHERE device = 'remote' AND role = 'search'",
                         NULL, 0, collect, &rows) == NAS_OK)
            found = rows.len > 0;
        (void)nas_db_close(ctx, db);
        nas_buf_deinit(&rows);
    }
    return pid;
}

static int ended(pid_t pid) {
    int status = 0;
    cr_assert(eq(int, (int)waitpid(pid, &status, 0), (int)pid));
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static const char standing_sql[] =
    "SELECT trial, role, queue, measurement_id, latency_p50_ms FROM v_latency"
    " WHERE role = 'search' ORDER BY trial, queue";

/* Every line of `before` is still there. */
static void assert_kept(char *before, const char *after) {
    char *rest = NULL;
    for (char *line = strtok_r(before, "\n", &rest); line != NULL;
         line = strtok_r(NULL, "\n", &rest))
        assert_says(after, line);
}

Test(search_devices, a_device_that_stays_away_ends_the_run_with_4_and_the_study_goes_on_later) {
    agent a = {0};
    char log[192];
    (void)snprintf(log, sizeof log, "%s/log", folder);
    agent_start(&a, 0);
    write_remote_config(&a, "away_s = 1\n");
    const pid_t pid = start_until_measured(log);
    agent_kill(&a);
    const int code = ended(pid);
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, log, 1 << 20, &text), NAS_OK));
    cr_assert(eq(int, code, NAS_EXIT_DEVICE), "%s", text.data);
    assert_says(text.data, "remote is lost, its work goes back to queue remote");
    assert_says(text.data, "everything measured is kept");
    nas_buf_deinit(&text);
    char *before = nas_strdup(ctx, query(standing_sql));
    cr_expect(
        eq(str, (char *)query("SELECT count(*) > 0 FROM v_trial WHERE state = 'FAIL'"), "0\n"),
        "nobody is blamed for a device that is gone");
    agent_start(&a, 0);
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    agent_kill(&a);
    assert_kept(before, query(standing_sql));
    nas_free(before);
    cr_expect(
        eq(str, (char *)query("SELECT count(*) FROM v_trial WHERE state = 'COMPLETE'"), "10\n"));
    cr_expect(
        eq(str, (char *)query("SELECT count(*) FROM v_latency WHERE role = 'search'"), "20\n"),
        "one latency a trial and queue: nothing lost, nothing twice");
}

Test(search_devices, a_device_that_comes_back_goes_on_where_it_was) {
    agent a = {0};
    char log[192];
    (void)snprintf(log, sizeof log, "%s/log", folder);
    agent_start(&a, 0);
    write_remote_config(&a, "away_s = 60\n");
    const pid_t pid = start_until_measured(log);
    agent_kill(&a);
    const struct timespec gone = {1, 0};
    (void)nanosleep(&gone, NULL);
    agent_start(&a, 0);
    const int code = ended(pid);
    agent_kill(&a);
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, log, 1 << 20, &text), NAS_OK));
    cr_assert(eq(int, code, NAS_EXIT_OK), "%s", text.data);
    nas_buf_deinit(&text);
    assert_says(query("SELECT text FROM v_event WHERE kind = 'device' ORDER BY event_id"),
                "remote is lost");
    assert_says(query("SELECT text FROM v_event WHERE kind = 'device' ORDER BY event_id"),
                "remote is back after");
    cr_expect(
        eq(str, (char *)query("SELECT count(*) FROM v_latency WHERE role = 'search'"), "20\n"));
}

Test(search_devices, a_pool_begins_without_one_of_its_devices) {
    agent a = {0}, b = {0};
    agent_start(&a, 0);
    agent_start(&b, 1);
    agent_kill(&b);
    nas_buf text = {0};
    nas_buf_printf(&text,
                   "[objectives]\nminimise = [\"latency_p50_ms\"]\n"
                   "[measure]\nmin_time_ms = 20\nmax_time_ms = 60\nfinal_max_time_ms = 60\n"
                   "min_batches = 5\ndrift_limit = 1\naway_s = 5\n"
                   "[[device]]\nname = \"a\"\npool = \"p\"\nconnect = \"http://127.0.0.1:%d\"\n"
                   "key_file = \"%s\"\n[[device]]\nname = \"b\"\npool = \"p\"\n"
                   "connect = \"http://127.0.0.1:%d\"\nkey_file = \"%s\"\n",
                   a.port, a.key, b.port, b.key);
    write_config(text.data);
    nas_buf_deinit(&text);
    nas_process_result r = search();
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_expect(eq(str, (char *)query("SELECT DISTINCT device, queue FROM v_measurement"), "a|p\n"));
    agent_start(&b, 1);
    r = test_run(
        ctx, "nas-search",
        (const char *const[]){"--config", config_path, "--set", set_dir, "--trials", "16", NULL});
    agent_kill(&a);
    agent_kill(&b);
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_expect(eq(str, (char *)query("SELECT DISTINCT device, queue FROM v_measurement ORDER BY 1"),
                 "a|p\nb|p\n"));
}
