/* test_faults.c - what a broken or hostile program does to a run: each fault has its state, its word and its sentence,
 * and the agent goes on. */
#include "agent_fixture.h"
#include "device-agent/agent_internal.h"
#include "tests/support/machine_tree.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64];
static nas__job job;

static void setup(void) {
    ctx = nas_ctx_new();
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_ERROR);
    job = (nas__job){.out_fd = -1, .err_fd = -1};
    (void)snprintf(dir, sizeof dir, "/tmp/nas-fault-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    nas__job_deinit(ctx, &job);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(device_agent_faults, .init = setup, .fini = teardown, .timeout = 120);

static void pause_ms(long ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

static void compile(const char *source, const char *out, const char *flag) {
    char c_path[128];
    (void)snprintf(c_path, sizeof c_path, "%s/program.c", dir);
    cr_assert(eq(int, (int)nas_file_write(ctx, c_path, source, strlen(source), 0600), NAS_OK));
    nas_process_options o = nas_process_options_default();
    o.argv = (const char *const[]){"cc", "-w", "-fPIC", flag, "-o", out, c_path, NULL};
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK));
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    nas_process_result_deinit(&r);
}

/* Compiles and runs it to its end. */
static void run(const char *source, int64_t deadline_ms) {
    char path[128];
    nas__run_options o = nas__run_options_default();
    o.deadline_ms = deadline_ms;
    (void)snprintf(path, sizeof path, "%s/program", dir);
    compile(source, path, "-O1");
    cr_assert(eq(int, (int)nas__job_start(ctx, &job, 1, path, dir, &o), NAS_OK));
    while (nas__job_runs(&job)) {
        nas__job_step(ctx, &job);
        pause_ms(2);
    }
}

static void expect(nas__job_state state, const char *reason, const char *sentence) {
    cr_assert(eq(int, (int)job.state, (int)state), "%s", job.error);
    cr_assert(eq(str, job.reason, (char *)(uintptr_t)reason), "%s", job.error);
    cr_assert(ne(ptr, strstr(job.error, sentence), NULL), "%s", job.error);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__job_json(&j, &job);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    cr_assert(ne(ptr, strstr(text.data, "\"reason\":\""), NULL), "%s", text.data);
    nas_buf_deinit(&text);
}

Test(device_agent_faults, a_program_that_hangs_is_killed_at_its_deadline) {
    run("#include <signal.h>\nint main(void) { signal(SIGTERM, SIG_IGN); for (;;) ; }", 300);
    expect(NAS__JOB_KILLED, "deadline", "deadline of 300 ms");
    cr_assert(job.end_ns - job.start_ns < (int64_t)10 * 1000000000);
}

Test(device_agent_faults, a_program_that_crashes_says_by_which_signal) {
    run("int main(void) { volatile int *p = (int *)8; return *p; }", 20000);
    expect(NAS__JOB_FAILED, "crash", "signal 11");
    run("int main(void) { __builtin_trap(); }", 20000);
    expect(NAS__JOB_FAILED, "crash", "signal");
}

Test(device_agent_faults, a_program_that_eats_memory_gets_no_more_than_is_available) {
    char tree[96];
    (void)snprintf(tree, sizeof tree, "%s/tree", dir);
    tree_write(tree, "/proc/meminfo", "MemTotal: 2097152 kB\nMemAvailable: 524288 kB");
    cr_assert(eq(int, (int)nas__probe_set_root(ctx, tree), NAS_OK));
    run("#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n"
        "int main(void) { long mb = 0; for (;;) { char *p = malloc(16 << 20);\n"
        "  if (p == 0) { fprintf(stderr, \"no memory after %ld MB\\n\", mb); return 9; }\n"
        "  memset(p, 1, 16 << 20); mb += 16; if (mb > 1500) return 0; } }",
        60000);
    expect(NAS__JOB_FAILED, "exit", "exit code 9");
    cr_assert(ne(ptr, strstr(job.err.data, "no memory after "), NULL), "%s", job.err.data);
}

/* Processes that work in a folder whose path contains `mark`. */
static int count_processes(const char *mark) {
    int n = 0;
    DIR *proc = opendir("/proc");
    for (const struct dirent *e = readdir(proc); e != NULL; e = readdir(proc)) {
        char path[300], line[300] = "";
        if (e->d_name[0] < '0' || e->d_name[0] > '9') continue;
        (void)snprintf(path, sizeof path, "/proc/%s/cwd", e->d_name);
        if (readlink(path, line, sizeof line - 1) > 0 && strstr(line, mark) != NULL) n++;
    }
    (void)closedir(proc);
    return n;
}

Test(device_agent_faults, children_of_a_program_end_with_it_even_when_they_hide) {
    static const char source[] =
        "#include <stdio.h>\n#include <unistd.h>\n"
        "int main(void) { int n = 0; for (int i = 0; i < 40; i++) { int p = fork();\n"
        "  if (p == 0) { setsid(); setpgid(0, 0); if (fork() == 0) for (;;) pause(); for (;;) "
        "pause(); }\n"
        "  n += p > 0; }\n"
        "  usleep(100000); printf(\"{\\\"forked\\\": %d}\\n\", n); fflush(stdout); END; }\n";
    char text[sizeof source + 64];
    (void)snprintf(text, sizeof text, "#define END return 0\n%s", source);
    run(text, 20000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    cr_assert(eq(str, job.out.data, "{\"forked\": 40}\n"));
    if (!job.limits.seccomp) cr_skip_test("no seccomp here: a child may leave its group");
    for (int i = 0; i < 500 && count_processes(dir) > 0; i++)
        pause_ms(10);
    cr_assert(eq(int, count_processes(dir), 0));
    (void)snprintf(text, sizeof text, "#define END for (;;) pause()\n%s", source);
    run(text, 600);
    expect(NAS__JOB_KILLED, "deadline", "deadline of 600 ms");
    for (int i = 0; i < 500 && count_processes(dir) > 0; i++)
        pause_ms(10);
    cr_assert(eq(int, count_processes(dir), 0));
}

Test(device_agent_faults, a_program_that_writes_a_gigabyte_is_stopped_early) {
    run("#include <stdio.h>\nstatic char block[1 << 16];\nint main(void) { FILE *f = "
        "fopen(\"big\", "
        "\"w\");\n for (int i = 0; i < 16384; i++) fwrite(block, 1, sizeof block, f); return 0; }",
        60000);
    expect(NAS__JOB_FAILED, "file_size", "more into a file than the limit of 1 MB");
    run("#include <stdio.h>\nstatic char block[1 << 16];\nint main(void) {\n"
        " for (int i = 0; i < 16384; i++) fwrite(block, 1, sizeof block, stdout); return 0; }",
        60000); /* into the agent */
    expect(NAS__JOB_FAILED, "output", "a megabyte to stdout");
    cr_assert(job.out.cap < (size_t)4 << 20);
}

Test(device_agent_faults, garbage_is_no_result) {
    run("#include <stdio.h>\nint main(void) { unsigned x = 1; for (int i = 0; i < 5000; i++) { x = "
        "x "
        "* 1664525u + 1013904223u; putchar(x >> 24); } return 0; }",
        20000);
    expect(NAS__JOB_FAILED, "output", "5000 bytes");
    run("#include <stdio.h>\nint main(void) { puts(\"{\\\"p50_us\\\": 1}{\\\"p50_us\\\": 2}\"); "
        "return 0; }",
        20000);
    expect(NAS__JOB_FAILED, "output", "no JSON object");
}

Test(device_agent_faults, a_program_that_uses_its_cpu_time_up_is_told) {
    run("#include <signal.h>\n#include <unistd.h>\nint main(void) { kill(getpid(), SIGXCPU); for "
        "(;;) pause(); }",
        20000);
    expect(NAS__JOB_FAILED, "cpu_time", "more CPU time");
}

/* The agent's own wall clock leaps a day at every look; deadlines, leases and times of runs must not care. */
Test(device_agent_faults, a_jumping_clock_changes_nothing) {
#if defined(__SANITIZE_ADDRESS__)
    cr_skip_test("the sanitizer wants to be the first library");
#endif
    static const char shim[] =
        "#define _GNU_SOURCE\n#include <dlfcn.h>\n#include <sys/syscall.h>\n#include <time.h>\n"
        "#include <unistd.h>\nstatic long jump;\n"
        "int clock_gettime(clockid_t id, struct timespec *t) {\n"
        "  int code = (int)syscall(SYS_clock_gettime, id, t);\n"
        "  if (id == CLOCK_REALTIME) { jump = jump > 0 ? -86400 : 86400; t->tv_sec += jump; }\n"
        "  return code; }\n"
        "time_t time(time_t *p) { struct timespec t; clock_gettime(CLOCK_REALTIME, &t);\n"
        "  if (p) *p = t.tv_sec; return t.tv_sec; }\n";
    fixture f;
    char library[128], target[256], hash[NAS_SHA256_HEX], session[33] = "", parent[32];
    static const char program[] = "#!/bin/sh\nsleep 0.4\necho '{}'\n";
    fixture_open(&f);
    (void)snprintf(library, sizeof library, "%s/jump.so", dir);
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    compile(shim, library, "-shared");
    cr_assert(eq(int, setenv("LD_PRELOAD", library, 1), 0));
    f.pid = fixture_spawn((const char *const[]){f.program, "serve", "--listen", "127.0.0.1:0",
                                                "--key-file", f.key_path, "--cache-dir", f.cache,
                                                "--parent-pid", parent, NULL},
                          &f.port);
    (void)unsetenv("LD_PRELOAD");
    link_to l = link_open(f.port);
    answer a = link_call(&f, &l, "POST", "/v1/session?holder=me&lease_ms=3000", NULL, 0);
    cr_assert(eq(int, sscanf(a.body.data, "{\"session\":\"%32[0-9a-f]\"", session), 1));
    answer_free(&a);
    nas_sha256_hex(program, sizeof program - 1, hash);
    (void)snprintf(target, sizeof target, "/v1/blob/%s?session=%s", hash, session);
    a = link_call(&f, &l, "PUT", target, program, sizeof program - 1);
    answer_free(&a);
    (void)snprintf(target, sizeof target, "/v1/run?blob=%s&deadline_ms=20000&session=%s", hash,
                   session);
    a = link_call(&f, &l, "POST", target, NULL, 0);
    cr_assert(eq(int, a.status, 202), "%s", a.body.data);
    answer_free(&a);
    (void)snprintf(target, sizeof target, "/v1/run/1?wait_ms=20000&session=%s", session);
    a = link_call(&f, &l, "GET", target, NULL, 0);
    cr_assert(ne(ptr, strstr(a.body.data, "\"state\":\"done\""), NULL), "%s", a.body.data);
    const char *wall = strstr(a.body.data, "\"wall_s\":");
    const double seconds = wall != NULL ? strtod(wall + 9, NULL) : 0;
    cr_assert(seconds > 0.3 && seconds < 19, "%g", seconds);
    answer_free(&a);
    link_close(&l);
    fixture_close(&f);
}

Test(device_agent_faults, folders_of_killed_agents_are_swept_and_those_of_living_ones_stay) {
    const pid_t gone = fork();
    if (gone == 0) _exit(0);
    cr_assert(eq(int, (int)waitpid(gone, NULL, 0), (int)gone));
    char dead[128], alive[128], other[128], inside[160];
    (void)snprintf(dead, sizeof dead, "%s/run-%ld-3", dir, (long)gone);
    (void)snprintf(alive, sizeof alive, "%s/run-%ld-3", dir, (long)getppid());
    (void)snprintf(other, sizeof other, "%s/run-of-the-mill", dir);
    (void)snprintf(inside, sizeof inside, "%s/core", dead);
    cr_assert(eq(int, (int)nas_mkdirs(ctx, dead), NAS_OK));
    cr_assert(eq(int, (int)nas_mkdirs(ctx, alive), NAS_OK));
    cr_assert(eq(int, (int)nas_mkdirs(ctx, other), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, inside, "x", 1, 0600), NAS_OK));
    nas__job_sweep(dir);
    cr_assert(not(nas_file_exists(dead)));
    cr_assert(nas_file_exists(alive));
    cr_assert(nas_file_exists(other));
}
