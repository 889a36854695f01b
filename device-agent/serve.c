/* serve.c - the command `nas-agent serve`: its options, and its life without a terminal (--detach).
 *
 * Detached: a child in its own session listens, prints the first line through the still open stdout, then lets go of
 * the terminal (stdin, stdout, stderr to /dev/null) and tells the waiting parent, which ends with 0. Started over
 * `adb shell` it so survives the shell; a failure before that reaches stderr and the exit code. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct serve_plan {
    nas__agent_options o;
    const char *log_file, *state_file;
    bool detach;
    int tell_fd; /* -1, or the pipe to the waiting parent */
} serve_plan;

static nas_status parse_option(nas_ctx *ctx, const char *name, const char *value, serve_plan *p) {
    nas__agent_options *o = &p->o;
    int64_t number = 0;
    nas_status status = NAS_OK;
    if (strcmp(name, "--listen") == 0) {
        status = nas__address_parse(ctx, value, &o->address);
    } else if (strcmp(name, "--key-file") == 0) {
        o->key_file = value;
    } else if (strcmp(name, "--cache-dir") == 0) {
        o->cache_dir = value;
    } else if (strcmp(name, "--cache-mb") == 0) {
        status = nas_parse_i64(ctx, name, value, 1, 1 << 20, &number);
        o->cache_bytes = (uint64_t)number << 20;
    } else if (strcmp(name, "--parent-pid") == 0) {
        status = nas_parse_i64(ctx, name, value, 1, INT32_MAX, &o->parent_pid);
    } else if (strcmp(name, "--abandon-ms") == 0) {
        status = nas_parse_i64(ctx, name, value, 100, NAS_AGENT_LEASE_MS_MAX, &o->abandon_ms);
    } else if (strcmp(name, "--log-file") == 0) {
        p->log_file = value;
    } else if (strcmp(name, "--state-file") == 0) {
        p->state_file = value;
    } else if (strcmp(name, "--sys-root") == 0) {
        status = nas__probe_set_root(ctx, value);
    } else {
        status = nas_fail(ctx, NAS_ERR_INVALID, "%s: unknown option", name);
    }
    return status;
}

static nas_status parse(nas_ctx *ctx, int argc, char **argv, serve_plan *p) {
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--allow-remote") == 0) {
            p->o.allow_remote = true;
            continue;
        }
        if (strcmp(argv[i], "--detach") == 0) {
            p->detach = true;
            continue;
        }
        if (i + 1 == argc)
            return nas_fail(ctx, NAS_ERR_INVALID, "%s: unknown option or no value", argv[i]);
        const nas_status status = parse_option(ctx, argv[i], argv[i + 1], p);
        if (status != NAS_OK) return nas_fail(ctx, NAS_ERR_INVALID, "%s", nas_ctx_message(ctx));
        i++;
    }
    if (p->detach && p->o.parent_pid > 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "serve: --detach has no parent to watch");
    if (p->o.key_file != NULL) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "serve: --key-file is missing; make one with: nas-agent keygen FILE");
}

/* What nas__serve calls once it listens: the first line, the state file, and with --detach the end of the terminal. */
static nas_status ready(nas_ctx *ctx, void *user, const char *where) {
    const serve_plan *p = user;
    char line[256];
    const int n = snprintf(line, sizeof line, "nas-agent listening %s protocol %d pid %ld\n", where,
                           (int)NAS_AGENT_PROTOCOL, (long)getpid());
    nas_status status = NAS_OK;
    if (p->state_file != NULL) status = nas_file_write(ctx, p->state_file, line, (size_t)n, 0600);
    if (status != NAS_OK) return status;
    if (fputs(line, stdout) < 0 || fflush(stdout) != 0)
        return nas_fail(ctx, NAS_ERR_IO, "stdout: %s", strerror(errno));
    nas_log(ctx, NAS_LOG_INFO, "listening address=%s pid=%ld version=%s", where, (long)getpid(),
            NAS_VERSION);
    if (!p->detach) return NAS_OK;
    const int null = open("/dev/null", O_RDWR);
    if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
        return nas_fail(ctx, NAS_ERR_IO, "/dev/null: %s", strerror(errno));
    if (null > 2) (void)close(null);
    const bool told = write(p->tell_fd, "", 1) == 1;
    (void)close(p->tell_fd);
    return told ? NAS_OK : nas_fail(ctx, NAS_ERR_IO, "serve: the starting process went away");
}

static nas_status serve(nas_ctx *ctx, serve_plan *p) {
    nas__log log = {.fd = -1};
    char absolute[PATH_MAX]; /* children change their folder */
    nas_status status = nas_mkdirs(ctx, p->o.cache_dir);
    if (status == NAS_OK && realpath(p->o.cache_dir, absolute) == NULL) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: %s", p->o.cache_dir, strerror(errno));
    }
    p->o.cache_dir = absolute;
    p->o.log_file = p->log_file;
    p->o.ready = ready;
    p->o.ready_user = p;
    if (status == NAS_OK && p->log_file != NULL) status = nas__log_open(ctx, &log, p->log_file);
    if (status == NAS_OK) status = nas__serve(ctx, &p->o);
    if (status != NAS_OK) nas_log(ctx, NAS_LOG_ERROR, "ends: %s", nas_ctx_message(ctx));
    if (status == NAS_OK) nas_log(ctx, NAS_LOG_INFO, "ends");
    nas__log_close(ctx, &log);
    return status;
}

/* Waits until the child listens (a byte) or failed (it ends): its exit code then. */
static int wait_for_child(pid_t pid, int from) {
    char byte;
    int wait_status = 0;
    ssize_t n;
    do {
        n = read(from, &byte, 1);
    } while (n < 0 && errno == EINTR);
    if (n == 1) return NAS_EXIT_OK;
    while (waitpid(pid, &wait_status, 0) < 0 && errno == EINTR)
        continue;
    return WIFEXITED(wait_status) && WEXITSTATUS(wait_status) != 0 ? WEXITSTATUS(wait_status)
                                                                   : NAS_EXIT_FAILED;
}

/* In the parent: -1 nowhere to go on, *code is the exit code. In the child: 0. */
static bool detach(nas_ctx *ctx, serve_plan *p, nas_status *status, int *code) {
    int pipes[2];
    *status = NAS_OK;
    if (pipe2(pipes, O_CLOEXEC) != 0) {
        *status = nas_fail(ctx, NAS_ERR_IO, "serve: pipe: %s", strerror(errno));
        return true;
    }
    const pid_t pid = fork();
    if (pid == 0) {
        (void)close(pipes[0]);
        p->tell_fd = pipes[1];
        (void)setsid(); /* cannot fail in a fresh child */
        return false;
    }
    const int fork_errno = errno;
    (void)close(pipes[1]);
    if (pid < 0) {
        *status = nas_fail(ctx, NAS_ERR_IO, "serve: fork: %s", strerror(fork_errno));
    } else {
        *code = wait_for_child(pid, pipes[0]);
    }
    (void)close(pipes[0]);
    return true;
}

nas_status nas__serve_command(nas_ctx *ctx, int argc, char **argv, int *code) {
    serve_plan p = {.o = {.address = {.kind = NAS__ADDRESS_TCP, .name = "127.0.0.1", .port = 7917},
                          .cache_dir = "nas-agent-cache",
                          .cache_bytes = (uint64_t)512 << 20,
                          .abandon_ms = NAS_AGENT_ABANDON_MS},
                    .tell_fd = -1};
    *code = NAS_EXIT_OK;
    nas_status status = parse(ctx, argc, argv, &p);
    if (status == NAS_OK && p.detach) {
        if (detach(ctx, &p, &status, code)) return status;
    }
    return status == NAS_OK ? serve(ctx, &p) : status;
}
