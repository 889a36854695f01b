/* agent_process.c - a private agent: started with a fresh key, ended with its device.
 *
 * The agent gets its own process group, so that Ctrl-C reaches the controller alone, which then stops it; when the
 * controller is killed the agent notices by itself (--parent-pid). */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "latency/device_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { START_MS = 15 * 1000, STOP_MS = 2000, PATH_BYTES = 4096 };

extern char **environ;

static nas_status find_agent(nas_ctx *ctx, const char *given, char *out, size_t size) {
    if (given != NULL) {
        if ((size_t)snprintf(out, size, "%s", given) >= size)
            return nas_fail(ctx, NAS_ERR_RANGE, "agent path too long");
    } else {
        const ssize_t n = readlink("/proc/self/exe", out, size - 1);
        if (n <= 0) return nas_fail(ctx, NAS_ERR_IO, "/proc/self/exe: %s", strerror(errno));
        out[n] = '\0';
        char *slash = strrchr(out, '/');
        const size_t at = slash != NULL ? (size_t)(slash - out) + 1 : 0;
        if (at + sizeof "nas-agent" > size)
            return nas_fail(ctx, NAS_ERR_RANGE, "agent path too long");
        memcpy(out + at, "nas-agent", sizeof "nas-agent");
    }
    if (access(out, X_OK) == 0) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_DEVICE, "no agent at %s: %s; build it with make", out,
                    strerror(errno));
}

typedef struct start_paths {
    char agent[PATH_BYTES], key[PATH_BYTES], cache[PATH_BYTES], log[PATH_BYTES];
} start_paths;

static nas_status make_paths(nas_ctx *ctx, const char *agent_path, const char *work_dir,
                             start_paths *p) {
    nas_status status = find_agent(ctx, agent_path, p->agent, sizeof p->agent);
    if (status == NAS_OK) status = nas_mkdirs(ctx, work_dir);
    if (status != NAS_OK) return status;
    const int a = snprintf(p->key, sizeof p->key, "%s/agent-%ld.key", work_dir, (long)getpid());
    const int b = snprintf(p->cache, sizeof p->cache, "%s/agent-cache", work_dir);
    const int c = snprintf(p->log, sizeof p->log, "%s/agent.log", work_dir);
    if (a < 0 || b < 0 || c < 0 || a >= PATH_BYTES || b >= PATH_BYTES || c >= PATH_BYTES) {
        return nas_fail(ctx, NAS_ERR_RANGE, "work folder %s: path too long", work_dir);
    }
    return NAS_OK;
}

static int spawn_agent(const start_paths *p, int out, pid_t *pid) {
    static const int defaults[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE, SIGCHLD, SIGUSR1};
    char parent[32];
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    const char *const argv[] = {p->agent,       "serve", "--listen",    "127.0.0.1:0",
                                "--key-file",   p->key,  "--cache-dir", p->cache,
                                "--parent-pid", parent,  NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, reset;
    sigemptyset(&none);
    sigemptyset(&reset);
    for (size_t i = 0; i < sizeof defaults / sizeof *defaults; i++)
        sigaddset(&reset, defaults[i]);
    int code = posix_spawn_file_actions_init(&actions);
    if (code != 0) return code;
    code = posix_spawnattr_init(&attributes);
    if (code == 0) {
        code = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
        if (code == 0) code = posix_spawn_file_actions_adddup2(&actions, out, 1);
        if (code == 0) {
            code = posix_spawn_file_actions_addopen(&actions, 2, p->log,
                                                    O_WRONLY | O_CREAT | O_TRUNC, 0600);
        }
#if defined(__GLIBC__) && (__GLIBC__ > 2 || __GLIBC_MINOR__ >= 34)
        if (code == 0) code = posix_spawn_file_actions_addclosefrom_np(&actions, 3);
#endif
        if (code == 0) code = posix_spawnattr_setsigmask(&attributes, &none);
        if (code == 0) code = posix_spawnattr_setsigdefault(&attributes, &reset);
        if (code == 0) code = posix_spawnattr_setpgroup(&attributes, 0);
        if (code == 0) {
            code = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP |
                                                             POSIX_SPAWN_SETSIGMASK |
                                                             POSIX_SPAWN_SETSIGDEF);
        }
        if (code == 0) {
            code = posix_spawn(pid, p->agent, &actions, &attributes, (char *const *)(uintptr_t)argv,
                               environ);
        }
        (void)posix_spawnattr_destroy(&attributes);
    }
    (void)posix_spawn_file_actions_destroy(&actions);
    return code;
}

/* The agent's first line, without newline; false when it ended, took too long or wrote too much. */
static bool read_line(nas_ctx *ctx, int fd, char *line, size_t size) {
    const int64_t deadline = nas_now_ns() + (int64_t)START_MS * 1000000;
    size_t len = 0;
    while (len + 1 < size && nas_now_ns() < deadline && !nas_ctx_cancelled(ctx)) {
        struct pollfd wait = {.fd = fd, .events = POLLIN};
        if (poll(&wait, 1, 50) <= 0) continue;
        const ssize_t n = read(fd, line + len, 1);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        line[++len] = '\0';
        if (line[len - 1] != '\n') continue;
        line[len - 1] = '\0';
        return true;
    }
    return false;
}

static nas_status explain(nas_ctx *ctx, const start_paths *p, const char *line) {
    if (nas_ctx_cancelled(ctx))
        return nas_fail(ctx, NAS_ERR_CANCELLED, "local device: interrupted");
    nas_buf log = {0};
    const bool any = nas_file_read(NULL, p->log, 65536, &log) == NAS_OK && log.len > 0;
    const nas_status status =
        nas_fail(ctx, NAS_ERR_DEVICE, "local device: %s did not start (it said '%s'); %s: %.400s",
                 p->agent, line, p->log, any ? log.data : "empty");
    nas_buf_deinit(&log);
    return status;
}

nas_status nas__agent_start(nas_ctx *ctx, const char *agent_path, const char *work_dir,
                            nas__agent_process *out, uint8_t key[NAS_AGENT_KEY_BYTES]) {
    if (work_dir == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "local device: work_dir is missing");
    start_paths paths;
    nas_status status = make_paths(ctx, agent_path, work_dir, &paths);
    if (status == NAS_OK) status = nas_agent_key_create(ctx, paths.key, key);
    if (status != NAS_OK) return nas_wrap(ctx, status, "local device");
    int pipes[2];
    if (pipe2(pipes, O_CLOEXEC) != 0)
        return nas_fail(ctx, NAS_ERR_IO, "local device: pipe: %s", strerror(errno));
    pid_t pid = 0;
    const int code = spawn_agent(&paths, pipes[1], &pid);
    (void)close(pipes[1]);
    char line[128] = "";
    int port = 0, protocol = 0;
    const bool started = code == 0 && read_line(ctx, pipes[0], line, sizeof line);
    (void)close(pipes[0]);
    (void)unlink(paths.key); /* both sides know it now */
    if (code != 0)
        return nas_fail(ctx, NAS_ERR_DEVICE, "local device: %s: %s", paths.agent, strerror(code));
    *out = (nas__agent_process){.pid = pid};
    if (!started ||
        sscanf(line, "nas-agent listening 127.0.0.1:%d protocol %d", &port, &protocol) != 2 ||
        port < 1 || port > 65535) {
        status = explain(ctx, &paths, line);
    } else if (protocol != NAS_AGENT_PROTOCOL) {
        status = nas_fail(ctx, NAS_ERR_DEVICE,
                          "%s speaks protocol %d, this program %d; build both from one tree",
                          paths.agent, protocol, (int)NAS_AGENT_PROTOCOL);
    }
    out->port = port;
    if (status != NAS_OK) {
        (void)kill(pid, SIGKILL);
        nas__agent_end(out);
    }
    return status;
}

void nas__agent_end(nas__agent_process *process) {
    if (process->pid <= 0) return;
    const pid_t pid = (pid_t)process->pid;
    const int64_t deadline = nas_now_ns() + (int64_t)STOP_MS * 1000000;
    const struct timespec pause = {0, 2000000};
    for (;;) {
        const pid_t got = waitpid(pid, NULL, WNOHANG);
        if (got == pid || (got < 0 && errno != EINTR)) break;
        if (nas_now_ns() > deadline) (void)kill(pid, SIGKILL);
        (void)nanosleep(&pause, NULL);
    }
    *process = (nas__agent_process){0};
}
