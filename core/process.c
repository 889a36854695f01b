/* process.c - child processes: argv array, own process group, deadline, bounded output. fork is followed at once by
 * exec, so it is safe from threaded callers. */
#include "core/core.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

nas_process_options nas_process_options_default(void) {
    return (nas_process_options){.timeout_ms = 60 * 1000, .max_output_bytes = 1024 * 1024};
}

void nas_process_result_deinit(nas_process_result *result) {
    nas_buf_deinit(&result->out);
    nas_buf_deinit(&result->err);
}

extern char **environ;

/* Async-signal-safe only: runs between fork and exec. exec errors travel as errno through `report`. */
static void child_main(const nas_process_options *o, int out, int err, int report) {
    (void)setpgid(0, 0); /* the parent does the same: either wins */
    const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
    sigset_t none;
    sigemptyset(&none);
    (void)sigprocmask(SIG_SETMASK, &none, NULL);
    (void)signal(SIGINT, SIG_DFL);
    (void)signal(SIGTERM, SIG_DFL);
    (void)signal(SIGPIPE, SIG_DFL);
    if (null >= 0 && dup2(null, 0) >= 0 && dup2(out, 1) >= 0 && dup2(err, 2) >= 0 &&
        (o->cwd == NULL || chdir(o->cwd) == 0)) {
        if (o->envp != NULL) environ = (char **)(uintptr_t)o->envp;
        (void)execvp(o->argv[0], (char *const *)(uintptr_t)o->argv); /* returns only on failure */
    }
    const int code = errno;
    const ssize_t ignored = write(report, &code, sizeof code);
    (void)ignored; /* nobody left to tell */
    _exit(127);
}

static void drain(int *fd, nas_buf *into, size_t limit) {
    char chunk[8192];
    const ssize_t n = read(*fd, chunk, sizeof chunk);
    if (n > 0) {
        const size_t room = into->len < limit ? limit - into->len : 0;
        nas_buf_append(into, chunk, (size_t)n < room ? (size_t)n : room);
    } else if (n == 0 || (errno != EINTR && errno != EAGAIN)) {
        (void)close(*fd);
        *fd = -1;
    }
}

/* Reads both pipes until they close and the child is reaped, or the deadline or a cancel kills the group. */
static nas_status supervise(nas_ctx *ctx, const nas_process_options *o, pid_t pid, int out, int err,
                            nas_process_result *r) {
    const int64_t deadline = nas_now_ns() + o->timeout_ms * 1000000;
    int wait_status = 0;
    bool reaped = false, cancelled = false, killed = false;
    while (!reaped) {
        struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
        /* Most children close both pipes by ending: then it is a matter of moments. */
        const int ready = poll(fds, 2, out < 0 && err < 0 ? 1 : 5);
        if (ready > 0 && fds[0].revents != 0) drain(&out, &r->out, o->max_output_bytes);
        if (ready > 0 && fds[1].revents != 0) drain(&err, &r->err, o->max_output_bytes);
        reaped = waitpid(pid, &wait_status, WNOHANG) == pid;
        if (!killed && !reaped) {
            r->timed_out = nas_now_ns() > deadline;
            cancelled = !o->no_cancel && nas_ctx_cancelled(ctx);
            if (r->timed_out || cancelled) {
                (void)kill(-pid, SIGKILL);
                (void)kill(pid, SIGKILL);
                killed = true;
            }
        }
    }
    while (out >= 0 ||
           err >= 0) { /* what is still in the pipes; a grandchild may hold them: 100 ms at most */
        struct pollfd fds[2] = {{.fd = out, .events = POLLIN}, {.fd = err, .events = POLLIN}};
        if (poll(fds, 2, 100) <= 0) break;
        if (fds[0].revents != 0) drain(&out, &r->out, o->max_output_bytes);
        if (fds[1].revents != 0) drain(&err, &r->err, o->max_output_bytes);
    }
    if (out >= 0) (void)close(out);
    if (err >= 0) (void)close(err);
    r->exit_code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : -1;
    r->signal = WIFSIGNALED(wait_status) ? WTERMSIG(wait_status) : 0;
    if (cancelled) return nas_fail(ctx, NAS_ERR_CANCELLED, "%s: interrupted", o->argv[0]);
    if (r->timed_out) {
        return nas_fail(ctx, NAS_ERR_TIMEOUT, "%s: killed after %" PRId64 " ms", o->argv[0],
                        o->timeout_ms);
    }
    return NAS_OK;
}

static void close_pair(int pair[2]) {
    for (int i = 0; i < 2; i++) {
        if (pair[i] >= 0) (void)close(pair[i]);
    }
}

static nas_status pipe_cloexec(nas_ctx *ctx, int pair[2]) {
    if (pipe(pair) != 0) return nas_fail(ctx, NAS_ERR_IO, "pipe: %s", strerror(errno));
    (void)fcntl(pair[0], F_SETFD, FD_CLOEXEC);
    (void)fcntl(pair[1], F_SETFD, FD_CLOEXEC);
    return NAS_OK;
}

nas_status nas_process_run(nas_ctx *ctx, const nas_process_options *options,
                           nas_process_result *result) {
    if (options->argv == NULL || options->argv[0] == NULL || options->timeout_ms <= 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "process: empty argv or no timeout");
    }
    int out[2] = {-1, -1}, err[2] = {-1, -1}, report[2] = {-1, -1};
    nas_status status = pipe_cloexec(ctx, out);
    if (status == NAS_OK) status = pipe_cloexec(ctx, err);
    if (status == NAS_OK) status = pipe_cloexec(ctx, report);
    const int64_t start = nas_now_ns();
    const pid_t pid = status == NAS_OK ? fork() : -1;
    if (pid == 0) child_main(options, out[1], err[1], report[1]);
    if (pid < 0) {
        if (status == NAS_OK) status = nas_fail(ctx, NAS_ERR_IO, "fork: %s", strerror(errno));
        close_pair(out);
        close_pair(err);
        close_pair(report);
        return status;
    }
    (void)setpgid(pid, pid);
    (void)close(out[1]);
    (void)close(err[1]);
    (void)close(report[1]);
    int exec_errno = 0;
    ssize_t n = 0;
    do {
        n = read(report[0], &exec_errno, sizeof exec_errno); /* closes on exec */
    } while (n < 0 && errno == EINTR);
    (void)close(report[0]);
    nas_process_result r = {0};
    status = supervise(ctx, options, pid, out[0], err[0], &r);
    r.wall_s = (double)(nas_now_ns() - start) * 1e-9;
    if (n == (ssize_t)sizeof exec_errno) {
        status = nas_fail(ctx, exec_errno == ENOENT ? NAS_ERR_NOTFOUND : NAS_ERR_IO,
                          "cannot run %s: %s", options->argv[0], strerror(exec_errno));
    }
    if (status == NAS_OK) {
        *result = r;
    } else {
        nas_process_result_deinit(&r);
    }
    return status;
}
