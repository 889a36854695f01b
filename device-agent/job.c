/* job.c - one measured run: a limited child in its own folder, its output, its deadline, its result as JSON.
 *
 * The child tells through a close-on-exec pipe which limits it got and, if so, why it could not be executed; after that
 * only stdout and stderr connect it to us. Whatever happens the whole process group is dead when the run is over. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* What the child writes: once before exec, and again with exec_errno when exec came back. */
typedef struct child_report {
    nas__limits limits;
    int exec_errno;
} child_report;

typedef struct child_plan {
    const char *program, *dir;
    char *const *argv;
    pid_t parent;
    int64_t cpu_seconds;
    int out, err, report;
} child_plan;

/* ---- bench options ------------------------------------------------------------------------------------------------ */

static bool plain(nas__slice value, bool number) {
    for (size_t i = 0; i < value.len; i++) {
        const char c = value.data[i];
        if ((c < '0' || c > '9') && (number || (c != ',' && c != '-'))) return false;
    }
    return !number || (value.len > 0 && value.len <= 9);
}

const char *nas__bench_arg_add(nas__bench_args *args, nas__slice name, nas__slice value) {
    static const char *const names[NAS__BENCH_OPTIONS] = {
        "threads",  "cpus",        "min-batches", "min-time-ms",  "max-time-ms",
        "batch-ms", "warmup-runs", "warmup-ms",   "warmup-cap-ms"};
    size_t at = 0;
    while (at < NAS__BENCH_OPTIONS && !nas__slice_is(name, names[at]))
        at++;
    if (at == NAS__BENCH_OPTIONS) return "unknown bench option";
    if (value.data == NULL || !plain(value, strcmp(names[at], "cpus") != 0) ||
        value.len >= sizeof args->text[0]) {
        return "bench option: need a number of at most 9 digits, for cpus a list like 0,1";
    }
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

/* ---- the child ---------------------------------------------------------------------------------------------------- */

static void close_from(int first) {
#ifdef SYS_close_range
    if (syscall(SYS_close_range, (unsigned)first, ~0u, 0u) == 0) return;
#endif
    const long most = sysconf(_SC_OPEN_MAX);
    for (int fd = first; fd < (most > 0 && most < 65536 ? (int)most : 65536); fd++)
        (void)close(fd);
}

static void default_signals(void) {
    static const int handled[] = {SIGINT, SIGTERM, SIGPIPE, SIGCHLD, SIGUSR1, SIGHUP};
    sigset_t none;
    for (size_t i = 0; i < sizeof handled / sizeof *handled; i++)
        (void)signal(handled[i], SIG_DFL);
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

static void tell(const child_report *report) {
    const ssize_t n = write(3, report, sizeof *report);
    if (n != (ssize_t)sizeof *report) _exit(125);
}

/* Runs in the forked child and never returns. The agent has one thread, so any function may be called. */
static void child_main(const child_plan *plan) {
    char *const no_environment[] = {NULL};
    child_report report = {{0}, 0};
    default_signals();
    const int null = open("/dev/null", O_RDONLY);
    /* away from 0..3 first, so that no dup2 closes what the next one needs */
    const int out = fcntl(plan->out, F_DUPFD, 10), err = fcntl(plan->err, F_DUPFD, 10);
    const int to = fcntl(plan->report, F_DUPFD, 10), in = fcntl(null, F_DUPFD, 10);
    if (dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0 || dup2(to, 3) < 0) _exit(125);
    (void)fcntl(3, F_SETFD, FD_CLOEXEC);
    close_from(4);
    if (chdir(plan->dir) != 0) {
        report.limits.failed_errno = errno;
        report.limits.failed_step = "own folder";
    } else if (nas__sandbox_enter(plan->parent, plan->program, plan->dir, plan->cpu_seconds,
                                  &report.limits)) {
        tell(&report);
        (void)execve(plan->program, plan->argv, no_environment);
        report.exec_errno = errno;
    }
    tell(&report);
    _exit(127);
}

/* ---- start -------------------------------------------------------------------------------------------------------- */

static void fail_job(nas__job *job, nas__job_state state, const char *error) {
    if (job->state == NAS__JOB_RUNNING) job->state = state;
    if (job->error[0] == '\0') (void)snprintf(job->error, sizeof job->error, "%s", error);
}

/* Reads the child's reports up to exec; keeps the last one. */
static void read_report(nas__job *job, int fd, const char *program) {
    child_report report = {{0}, 0}, next;
    bool any = false;
    for (;;) {
        const ssize_t n = read(fd, &next, sizeof next);
        if (n < 0 && errno == EINTR) continue;
        if (n != (ssize_t)sizeof next) break;
        report = next;
        any = true;
    }
    job->limits = report.limits;
    char text[300];
    if (!any) {
        fail_job(job, NAS__JOB_FAILED, "the child ended before it could be set up");
    } else if (report.limits.failed_errno != 0) {
        (void)snprintf(text, sizeof text, "sandbox: %s: %s", report.limits.failed_step,
                       strerror(report.limits.failed_errno));
        fail_job(job, NAS__JOB_FAILED, text);
    } else if (report.exec_errno != 0) {
        const char *slash = strrchr(program, '/');
        (void)snprintf(text, sizeof text, "cannot execute %.80s: %s%s",
                       slash != NULL ? slash + 1 : program, strerror(report.exec_errno),
                       report.exec_errno == EACCES ? " (is the cache folder mounted noexec?)"
                       : report.exec_errno == ENOEXEC || report.exec_errno == ENOENT
                           ? " (built for another machine, or its loader is missing?)"
                           : "");
        fail_job(job, NAS__JOB_FAILED, text);
    }
}

static nas_status make_pipes(nas_ctx *ctx, int pipes[3][2]) {
    for (int i = 0; i < 3; i++) {
        if (pipe2(pipes[i], O_CLOEXEC) == 0) continue;
        const int code = errno;
        for (int k = 0; k < i; k++) {
            (void)close(pipes[k][0]);
            (void)close(pipes[k][1]);
        }
        return nas_fail(ctx, NAS_ERR_IO, "run: pipe: %s", strerror(code));
    }
    return NAS_OK;
}

static void probe_into(nas_buf *out) {
    nas_json j = nas_json_begin(out);
    nas_buf_clear(out);
    nas__probe_state(&j);
}

static nas_status make_folder(nas_ctx *ctx, nas__job *job, const char *parent_dir) {
    const int n = snprintf(job->dir, sizeof job->dir, "%s/run-%ld-%" PRId64, parent_dir,
                           (long)getpid(), job->id);
    if (n < 0 || (size_t)n >= sizeof job->dir) {
        job->dir[0] = '\0';
        return nas_fail(ctx, NAS_ERR_RANGE, "run folder below %s: path too long", parent_dir);
    }
    if (nas_file_exists(job->dir)) {
        const nas_status status =
            nas_remove_tree(ctx, job->dir); /* left by a dead agent with the same process id */
        if (status != NAS_OK) return status;
    }
    if (mkdir(job->dir, 0700) == 0) return NAS_OK;
    const nas_status status =
        nas_fail(ctx, NAS_ERR_IO, "run folder %s: %s", job->dir, strerror(errno));
    job->dir[0] = '\0';
    return status;
}

static int64_t cpu_seconds(int64_t deadline_ms) {
    return (deadline_ms / 1000 + 2) * nas_cpu_count() +
           5; /* all threads together; the deadline comes first */
}

nas_status nas__job_start(nas_ctx *ctx, nas__job *job, int64_t id, const char *program,
                          const char *parent_dir, const nas__bench_args *args,
                          int64_t deadline_ms) {
    char *argv[NAS__BENCH_OPTIONS * 2 + 3] = {(char[]){"model"}, (char[]){"--bench"}};
    for (int i = 0; i < args->n; i++)
        argv[i + 2] = (char *)(uintptr_t)args->text[i];
    nas__job_deinit(ctx, job);
    job->id = id;
    nas_status status = make_folder(ctx, job, parent_dir);
    if (status != NAS_OK) return status;
    int pipes[3][2];
    status = make_pipes(ctx, pipes);
    if (status != NAS_OK) return status;
    probe_into(&job->before);
    job->start_ns = nas_now_ns();
    job->deadline_ms = deadline_ms;
    job->deadline_ns = job->start_ns + deadline_ms * 1000000;
    const child_plan plan = {
        program,     job->dir,    argv,       getpid(), cpu_seconds(deadline_ms),
        pipes[0][1], pipes[1][1], pipes[2][1]};
    const pid_t pid = fork();
    if (pid == 0) child_main(&plan);
    const int fork_errno = errno;
    for (int i = 0; i < 3; i++)
        (void)close(pipes[i][1]);
    if (pid < 0) {
        for (int i = 0; i < 3; i++)
            (void)close(pipes[i][0]);
        return nas_fail(ctx, NAS_ERR_IO, "run: fork: %s", strerror(fork_errno));
    }
    (void)setpgid(pid, pid); /* the child does the same: either wins */
    job->state = NAS__JOB_RUNNING;
    job->pid = pid;
    job->out_fd = pipes[0][0];
    job->err_fd = pipes[1][0];
    (void)fcntl(job->out_fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(job->err_fd, F_SETFL, O_NONBLOCK);
    read_report(job, pipes[2][0], program);
    (void)close(pipes[2][0]);
    return NAS_OK;
}

/* ---- while it runs ------------------------------------------------------------------------------------------------ */

static void drain(int *fd, nas_buf *into, size_t limit) {
    char chunk[16384];
    while (*fd >= 0) {
        const ssize_t n = read(*fd, chunk, sizeof chunk);
        if (n > 0) {
            const size_t room = into->len < limit ? limit - into->len : 0;
            nas_buf_append(into, chunk, (size_t)n < room ? (size_t)n : room);
        } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
            (void)close(*fd);
            *fd = -1;
        } else if (errno == EAGAIN) {
            return;
        }
    }
}

static void kill_group(const nas__job *job) {
    (void)kill(-job->pid, SIGKILL);
    if (!job->reaped) (void)kill(job->pid, SIGKILL);
}

void nas__job_kill(nas__job *job, const char *why) {
    if (job->pid <= 0 || job->reaped || job->stopped) return;
    job->stopped = true;
    fail_job(job, NAS__JOB_KILLED, why);
    kill_group(job);
}

static void judge(nas__job *job) {
    char text[160];
    if (job->stopped || job->error[0] != '\0') {
        if (job->state == NAS__JOB_RUNNING) job->state = NAS__JOB_FAILED;
    } else if (job->signal != 0) {
        (void)snprintf(text, sizeof text, "the program was ended by signal %d (%s)", job->signal,
                       strsignal(job->signal));
        fail_job(job, NAS__JOB_FAILED, text);
    } else if (job->exit_code != 0) {
        (void)snprintf(text, sizeof text, "the program ended with exit code %d", job->exit_code);
        fail_job(job, NAS__JOB_FAILED, text);
    } else if (job->out.failed) {
        fail_job(job, NAS__JOB_FAILED, "the agent ran out of memory for the program's output");
    } else if (!nas__json_object_ok(job->out.data, job->out.len)) {
        (void)snprintf(text, sizeof text,
                       "the program's output (%zu bytes, limit %d) is no JSON object", job->out.len,
                       (int)NAS__OUT_MAX);
        fail_job(job, NAS__JOB_FAILED, text);
    } else {
        job->state = NAS__JOB_DONE;
    }
}

static void finish(nas_ctx *ctx, nas__job *job, int wait_status) {
    job->reaped = true;
    job->end_ns = nas_now_ns();
    (void)kill(-job->pid, SIGKILL); /* what it left behind in its group */
    drain(&job->out_fd, &job->out, NAS__OUT_MAX);
    drain(&job->err_fd, &job->err, NAS__ERR_MAX);
    if (job->out_fd >= 0) (void)close(job->out_fd);
    if (job->err_fd >= 0) (void)close(job->err_fd);
    job->out_fd = job->err_fd = -1;
    job->has_exit = true;
    job->exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    job->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    judge(job);
    probe_into(&job->after);
    if (job->dir[0] != '\0' && nas_remove_tree(ctx, job->dir) != NAS_OK) {
        nas_log(ctx, NAS_LOG_WARN, "run folder stays dir=%s: %s", job->dir, nas_ctx_message(ctx));
    }
    job->dir[0] = '\0';
}

void nas__job_step(nas_ctx *ctx, nas__job *job) {
    if (job->pid <= 0 || job->reaped) return;
    drain(&job->out_fd, &job->out, NAS__OUT_MAX);
    drain(&job->err_fd, &job->err, NAS__ERR_MAX);
    if (!job->stopped && nas_now_ns() >= job->deadline_ns) {
        char text[80];
        (void)snprintf(text, sizeof text, "killed at the deadline of %" PRId64 " ms",
                       job->deadline_ms);
        nas__job_kill(job, text);
    }
    int wait_status = 0;
    if (waitpid(job->pid, &wait_status, WNOHANG) == job->pid) finish(ctx, job, wait_status);
}

void nas__job_deinit(nas_ctx *ctx, nas__job *job) {
    if (job->pid > 0 && !job->reaped) {
        int wait_status = 0;
        nas__job_kill(job, "the agent ends");
        while (waitpid(job->pid, &wait_status, 0) < 0 && errno == EINTR)
            continue;
        finish(ctx, job, wait_status);
    }
    if (job->dir[0] != '\0')
        (void)nas_remove_tree(ctx, job->dir); /* a start that failed; best effort */
    nas_buf_deinit(&job->out);
    nas_buf_deinit(&job->err);
    nas_buf_deinit(&job->before);
    nas_buf_deinit(&job->after);
    *job = (nas__job){.out_fd = -1, .err_fd = -1};
}

/* ---- result ------------------------------------------------------------------------------------------------------- */

static const char *state_name(nas__job_state state) {
    switch (state) {
    case NAS__JOB_NONE: return "none";
    case NAS__JOB_RUNNING: return "running";
    case NAS__JOB_DONE: return "done";
    case NAS__JOB_FAILED: return "failed";
    case NAS__JOB_KILLED: return "killed";
    }
    return "none";
}

/* stderr of a foreign program: bytes that JSON could not take become '?'. */
static void write_stderr(nas_json *j, const nas_buf *err) {
    nas_buf text = {0};
    nas_buf_append(&text, err->data != NULL ? err->data : "", err->len);
    for (size_t i = 0; i < text.len; i++) {
        if ((unsigned char)text.data[i] >= 0x7f || text.data[i] == '\0') text.data[i] = '?';
    }
    nas_json_key(j, "stderr");
    nas_json_string(j, text.data != NULL ? text.data : "");
    nas_buf_deinit(&text);
}

bool nas__job_runs(const nas__job *job) {
    return job->pid > 0 && !job->reaped;
}

void nas__job_json(nas_json *j, const nas__job *job) {
    const bool over = job->reaped;
    nas_json_object(j);
    nas_json_key(j, "id");
    nas_json_int(j, job->id);
    nas_json_key(j, "state");
    nas_json_string(j, state_name(over ? job->state : NAS__JOB_RUNNING));
    if (over) {
        nas_json_key(j, "exit_code");
        nas_json_int(j, job->exit_code);
        nas_json_key(j, "signal");
        nas_json_int(j, job->signal);
        nas_json_key(j, "wall_s");
        nas_json_double(j, (double)(job->end_ns - job->start_ns) * 1e-9);
    }
    if (over && job->error[0] != '\0') {
        nas_json_key(j, "error");
        nas_json_string(j, job->error);
    }
    if (over) write_stderr(j, &job->err);
    nas_json_key(j, "before");
    nas_json_raw(j, job->before.data != NULL ? job->before.data : "null");
    if (over) {
        nas_json_key(j, "after");
        nas_json_raw(j, job->after.data != NULL ? job->after.data : "null");
    }
    nas_json_key(j, "limits");
    nas__limits_json(j, &job->limits);
    if (over && job->state == NAS__JOB_DONE) {
        nas_json_key(j, "bench");
        nas_json_raw(j, job->out.data);
    }
    nas_json_object_end(j);
}
