/* test_job.c - one limited run: its result, its end at the deadline, and what its program may not do. */
#include "device-agent/agent_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64];
static nas__job job;

static void setup(void) {
    ctx = nas_ctx_new();
    job = (nas__job){.out_fd = -1, .err_fd = -1};
    (void)snprintf(dir, sizeof dir, "/tmp/nas-job-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
}

static void teardown(void) {
    nas__job_deinit(ctx, &job);
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(device_agent_job, .init = setup, .fini = teardown);

static void pause_ms(long ms) {
    const struct timespec t = {ms / 1000, ms % 1000 * 1000000};
    (void)nanosleep(&t, NULL);
}

/* A program that is a shell script: quick to make, and it goes through the same exec. */
static void script(const char *text, char path[128]) {
    nas_buf buf = {0};
    (void)snprintf(path, 128, "%s/program", dir);
    nas_buf_printf(&buf, "#!/bin/sh\n%s\n", text);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, buf.data, buf.len, 0500), NAS_OK));
    nas_buf_deinit(&buf);
}

static void run(const char *program, int64_t deadline_ms) {
    nas__run_options o = nas__run_options_default();
    o.deadline_ms = deadline_ms;
    cr_assert(eq(int, (int)nas__job_start(ctx, &job, 1, program, dir, &o), NAS_OK));
    while (!job.reaped) {
        nas__job_step(ctx, &job);
        if (!job.reaped) pause_ms(2);
    }
}

static void run_script(const char *text, int64_t deadline_ms) {
    char path[128];
    script(text, path);
    run(path, deadline_ms);
}

/* Compiles a C program; its output names what it was allowed to do. */
static void compile(const char *source, char path[128]) {
    char c_path[128];
    (void)snprintf(c_path, sizeof c_path, "%s/probe.c", dir);
    (void)snprintf(path, 128, "%s/probe", dir);
    cr_assert(eq(int, (int)nas_file_write(ctx, c_path, source, strlen(source), 0600), NAS_OK));
    nas_process_options o = nas_process_options_default();
    o.argv = (const char *const[]){"cc", "-w", "-o", path, c_path, "-pthread", NULL};
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK));
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    nas_process_result_deinit(&r);
}

Test(device_agent_job, output_of_a_good_program_becomes_the_bench_member, .timeout = 30) {
    run_script("echo '{\"schema\": 1}'; echo note >&2", 10000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__job_json(&j, &job);
    cr_assert(ne(ptr, strstr(text.data, "\"bench\":{\"schema\": 1}"), NULL), "%s", text.data);
    cr_assert(ne(ptr, strstr(text.data, "\"stderr\":\"note\\n\""), NULL), "%s", text.data);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    nas_buf_deinit(&text);
    cr_assert(eq(str, job.dir, "")); /* its folder is gone */
}

Test(device_agent_job, options_reach_the_program_and_the_environment_does_not, .timeout = 30) {
    char path[128];
    nas__run_options o = nas__run_options_default();
    o.deadline_ms = 10000;
    script("echo \"{\\\"argv\\\": \\\"$*\\\", \\\"home\\\": \\\"$HOME\\\", \\\"pwd\\\": "
           "\\\"$(pwd)\\\"}\"",
           path);
    cr_assert(eq(int, setenv("HOME", "/root", 1), 0));
    cr_assert(eq(ptr,
                 (void *)(uintptr_t)nas__bench_arg_add(&o.args, (nas__slice){"threads", 7},
                                                       (nas__slice){"2", 1}),
                 NULL));
    cr_assert(eq(ptr,
                 (void *)(uintptr_t)nas__bench_arg_add(&o.args, (nas__slice){"cpus", 4},
                                                       (nas__slice){"0,1", 3}),
                 NULL));
    cr_assert(eq(ptr,
                 (void *)(uintptr_t)nas__bench_arg_add(&o.args, (nas__slice){"profile", 7},
                                                       (nas__slice){"1", 1}),
                 NULL));
    cr_assert(eq(int, (int)nas__job_start(ctx, &job, 7, path, dir, &o), NAS_OK));
    while (!job.reaped) {
        nas__job_step(ctx, &job);
        pause_ms(2);
    }
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    cr_assert(
        ne(ptr, strstr(job.out.data, "\"argv\": \"--bench --threads 2 --cpus 0,1 --profile"), NULL),
        "%s", job.out.data);
    cr_assert(ne(ptr, strstr(job.out.data, "\"home\": \"\""), NULL), "%s", job.out.data);
    cr_assert(ne(ptr, strstr(job.out.data, "/run-"), NULL), "%s", job.out.data);
}

Test(device_agent_job, bad_bench_options_are_refused) {
    nas__bench_args args = {0};
    static const char *const rows[][2] = {
        {"run", "1"},      {"threads", ""},           {"threads", "1;ls"},
        {"threads", "-1"}, {"threads", "1234567890"}, {"cpus", "a"},
        {"profile", ""},   {"profile", "2"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const nas__slice name = {rows[i][0], strlen(rows[i][0])},
                         value = {rows[i][1], strlen(rows[i][1])};
        cr_assert(ne(ptr, (void *)(uintptr_t)nas__bench_arg_add(&args, name, value), NULL), "%s=%s",
                  rows[i][0], rows[i][1]);
    }
    const nas__slice name = {"threads", 7}, value = {"2", 1};
    cr_assert(eq(ptr, (void *)(uintptr_t)nas__bench_arg_add(&args, name, value), NULL));
    cr_assert(ne(ptr, (void *)(uintptr_t)nas__bench_arg_add(&args, name, value), NULL)); /* twice */
    cr_assert(eq(int, args.n, 2));
}

/* Gone, or a zombie that only waits for init to take note. */
static bool dead(long pid) {
    char path[64], state = 'Z';
    (void)snprintf(path, sizeof path, "/proc/%ld/stat", pid);
    FILE *file = fopen(path, "r");
    if (file == NULL) return true;
    const bool read_ok = fscanf(file, "%*d (%*[^)]) %c", &state) == 1;
    (void)fclose(file);
    return !read_ok || state == 'Z' || state == 'X';
}

Test(device_agent_job, the_deadline_kills_the_program_and_its_children, .timeout = 30) {
    run_script("sleep 1000 & echo $!; sleep 1000", 150);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_KILLED));
    cr_assert(eq(int, job.signal, SIGKILL));
    cr_assert(ne(ptr, strstr(job.error, "deadline of 150 ms"), NULL), "%s", job.error);
    const long grandchild = strtol(job.out.data, NULL, 10);
    cr_assert(grandchild > 1);
    bool gone = false;
    for (int i = 0; i < 1000 && !gone; i++) {
        gone = dead(grandchild);
        if (!gone) pause_ms(10);
    }
    cr_assert(gone);
}

Test(device_agent_job, crashes_exits_and_nonsense_are_failures_that_say_why, .timeout = 30) {
    run_script("kill -SEGV $$", 10000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_FAILED));
    cr_assert(eq(int, job.signal, SIGSEGV));
    cr_assert(ne(ptr, strstr(job.error, "signal 11"), NULL), "%s", job.error);
    run_script("exit 3", 10000);
    cr_assert(eq(int, job.exit_code, 3));
    cr_assert(ne(ptr, strstr(job.error, "exit code 3"), NULL), "%s", job.error);
    run_script("echo nonsense", 10000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_FAILED));
    cr_assert(ne(ptr, strstr(job.error, "no JSON object"), NULL), "%s", job.error);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/text", dir);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, "not a program", 13, 0500), NAS_OK));
    run(path, 10000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_FAILED));
    cr_assert(ne(ptr, strstr(job.error, "cannot execute text: Exec format error"), NULL), "%s",
              job.error);
}

Test(device_agent_job, endless_output_is_cut_and_refused, .timeout = 60) {
    run_script("head -c 3000000 /dev/zero | tr '\\0' 'x'", 30000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_FAILED));
    cr_assert(eq(sz, job.out.len, (size_t)NAS__OUT_MAX));
}

Test(device_agent_job, the_sandbox_forbids_what_it_claims_to, .timeout = 60) {
    static const char source[] =
        "#include <errno.h>\n#include <fcntl.h>\n#include <signal.h>\n#include <stdio.h>\n#include "
        "<sys/prctl.h>\n"
        "#include <sys/resource.h>\n#include <sys/socket.h>\n#include <unistd.h>\n"
        "int main(void) {\n"
        "  struct rlimit core, files; getrlimit(RLIMIT_CORE, &core); getrlimit(RLIMIT_NOFILE, "
        "&files);\n"
        "  int own = open(\"own.txt\", O_CREAT | O_WRONLY, 0600), in = open(\"/etc/passwd\", "
        "O_RDONLY);\n"
        "  int out = open(\"/tmp/nas-job-escape\", O_CREAT | O_WRONLY, 0600);\n"
        "  int other = dup(0);\n"
        "  printf(\"{\\\"socket\\\": %d, \\\"kill\\\": %d, \\\"setsid\\\": %d, \\\"own\\\": %d, "
        "\\\"read\\\": %d, \\\"write\\\": %d, \"\n"
        "         \"\\\"nnp\\\": %d, \\\"core\\\": %d, \\\"files\\\": %d, \\\"first_fd\\\": "
        "%d}\\n\",\n"
        "         socket(AF_INET, SOCK_STREAM, 0) < 0, kill(getppid(), 0) < 0, setsid() < 0, own "
        ">= 0, in < 0, out < 0,\n"
        "         prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), (int)core.rlim_max, "
        "(int)files.rlim_max,\n"
        "         own >= 0 ? own : other);\n"
        "  return 0;\n}\n";
    char path[128];
    (void)unlink("/tmp/nas-job-escape");
    compile(source, path);
    run(path, 20000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    cr_assert(job.limits.rlimits && job.limits.no_new_privs && job.limits.process_group &&
              job.limits.parent_death);
    char expected[256];
    const int seccomp = job.limits.seccomp, landlock = job.limits.landlock_abi > 0;
    (void)snprintf(
        expected, sizeof expected,
        "\"setsid\": %d, \"own\": 1, \"read\": %d, \"write\": %d, \"nnp\": 1, \"core\": 0, "
        "\"files\": 256, \"first_fd\": 3}",
        seccomp, landlock, landlock);
    if (!seccomp || !landlock)
        cr_log_warn("this kernel lacks seccomp or Landlock: partly untested");
    cr_assert(ne(ptr, strstr(job.out.data, expected), NULL), "%s, expected ...%s", job.out.data,
              expected);
    if (seccomp)
        cr_assert(ne(ptr, strstr(job.out.data, "{\"socket\": 1, \"kill\": 1,"), NULL), "%s",
                  job.out.data);
    (void)unlink("/tmp/nas-job-escape");
}

Test(device_agent_job, a_program_gets_no_namespace_of_its_own, .timeout = 60) {
    static const char source[] =
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <sched.h>\n#include <signal.h>\n"
        "#include <stdio.h>\n#include <sys/syscall.h>\n#include <sys/wait.h>\n#include "
        "<unistd.h>\n"
        "static int try(long flags) { long p = syscall(SYS_clone, flags | SIGCHLD, 0, 0, 0, 0);\n"
        "  if (p == 0) _exit(0); return p > 0 ? 0 : errno; }\n"
        "int main(void) { long big[11] = {CLONE_NEWUSER}; errno = 0;\n"
        "  int plain = try(0), user = try(CLONE_NEWUSER), net = try(CLONE_NEWNET | CLONE_NEWNS);\n"
        "  int three = syscall(435, big, sizeof big) < 0 ? errno : 0;\n"
        "  printf(\"{\\\"plain\\\": %d, \\\"user\\\": %d, \\\"net\\\": %d, \\\"clone3\\\": "
        "%d}\\n\", plain, user, net, three); return 0; }\n";
    char path[128];
    compile(source, path);
    run(path, 20000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s", job.error);
    if (!job.limits.seccomp) cr_skip_test("this kernel lacks seccomp");
    cr_assert(eq(str, job.out.data, "{\"plain\": 0, \"user\": 1, \"net\": 1, \"clone3\": 38}\n"));
}

Test(device_agent_job, threads_and_signals_to_itself_still_work, .timeout = 60) {
    static const char source[] =
        "#include <pthread.h>\n#include <signal.h>\n#include <stdio.h>\n#include "
        "<stdlib.h>\n#include <string.h>\n"
        "static void *work(void *p) { memset(p, 1, 1 << 20); return p; }\n"
        "static volatile sig_atomic_t got; static void on(int s) { got = s; }\n"
        "int main(void) { pthread_t t; void *r; char *m = malloc(1 << 20); signal(SIGUSR1, on); "
        "raise(SIGUSR1);\n"
        "  if (pthread_create(&t, 0, work, m) || pthread_join(t, &r)) return 1;\n"
        "  printf(\"{\\\"got\\\": %d, \\\"sum\\\": %d}\\n\", got == SIGUSR1, m[0] + m[1000]); "
        "return 0; }\n";
    char path[128];
    compile(source, path);
    run(path, 20000);
    cr_assert(eq(int, (int)job.state, (int)NAS__JOB_DONE), "%s %s", job.error,
              job.err.data != NULL ? job.err.data : "");
    cr_assert(eq(str, job.out.data, "{\"got\": 1, \"sum\": 2}\n"));
}

Test(device_agent_job, the_probe_tells_what_a_run_gets, .timeout = 30) {
    nas__limits limits = {0};
    cr_assert(eq(int, (int)nas__sandbox_probe(ctx, &limits), NAS_OK));
    run_script("echo '{}'", 10000);
    cr_assert(eq(int, job.limits.seccomp, limits.seccomp));
    cr_assert(eq(int, job.limits.landlock_abi, limits.landlock_abi));
}

Test(device_agent_job, probes_give_a_value_or_a_reason) {
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__probe_state(&j);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    static const char *const keys[] = {"unix_time_ms", "mhz",          "governor",
                                       "thermal",      "power_supply", "load"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        cr_assert(ne(ptr, strstr(text.data, keys[i]), NULL), "%s", keys[i]);
    }
    nas_buf_clear(&text);
    nas__limits limits = {.rlimits = true, .seccomp_errno = ENOSYS, .landlock_errno = ENOSYS};
    j = nas_json_begin(&text);
    nas__info_json(&j, &limits, NULL);
    cr_assert(nas__json_object_ok(text.data, text.len), "%s", text.data);
    cr_assert(ne(ptr, strstr(text.data, "\"limits\":[\"deadline\",\"rlimits\"]"), NULL));
    cr_assert(ne(ptr, strstr(text.data, "seccomp_unavailable"), NULL));
    nas_buf_deinit(&text);
}
