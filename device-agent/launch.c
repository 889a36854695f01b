/* launch.c - the forked child of a run: its descriptors, its limits, and how it tells what went wrong before exec.
 *
 * The child tells through a close-on-exec pipe which limits it got and, if so, why it could not be executed; after that
 * only stdout and stderr connect it to us. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
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

/* ---- the parent ---- */

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
        nas__job_fail(job, NAS__JOB_FAILED, "sandbox", "the child ended before it could be set up");
    } else if (report.limits.failed_errno != 0) {
        (void)snprintf(text, sizeof text, "sandbox: %s: %s", report.limits.failed_step,
                       strerror(report.limits.failed_errno));
        nas__job_fail(job, NAS__JOB_FAILED, "sandbox", text);
    } else if (report.exec_errno != 0) {
        const char *slash = strrchr(program, '/');
        (void)snprintf(text, sizeof text, "cannot execute %.80s: %s%s",
                       slash != NULL ? slash + 1 : program, strerror(report.exec_errno),
                       report.exec_errno == EACCES ? " (is the cache folder mounted noexec?)"
                       : report.exec_errno == ENOEXEC || report.exec_errno == ENOENT
                           ? " (built for another machine, or its loader is missing?)"
                           : "");
        nas__job_fail(job, NAS__JOB_FAILED, "exec", text);
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

static int64_t cpu_seconds(int64_t deadline_ms) {
    return (deadline_ms / 1000 + 2) * nas_cpu_count() +
           5; /* all threads together; the deadline comes first */
}

nas_status nas__job_launch(nas_ctx *ctx, nas__job *job, const nas__argv *arguments) {
    char *argv[NAS__ARGV_MAX + 3] = {(char[]){"model"}, (char[]){"--bench"}};
    for (int i = 0; i < arguments->n; i++)
        argv[i + 2] = (char *)(uintptr_t)arguments->text[i];
    int pipes[3][2];
    const nas_status status = make_pipes(ctx, pipes);
    if (status != NAS_OK) return status;
    const child_plan plan = {
        job->program, job->dir,    argv,       getpid(), cpu_seconds(job->o.deadline_ms),
        pipes[0][1],  pipes[1][1], pipes[2][1]};
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
    job->pid = pid;
    job->out_fd = pipes[0][0];
    job->err_fd = pipes[1][0];
    (void)fcntl(job->out_fd, F_SETFL, O_NONBLOCK);
    (void)fcntl(job->err_fd, F_SETFL, O_NONBLOCK);
    read_report(job, pipes[2][0], job->program);
    (void)close(pipes[2][0]);
    return NAS_OK;
}
