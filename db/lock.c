/* lock.c - the advisory lock that makes one process the writer.
 *
 * flock on "<db>.lock": it belongs to the open file, so the kernel drops it when the process ends in any way. The file
 * holds "pid\ncommand\n" for the message of whoever comes second; it is never removed, because a removed lock file can
 * be locked twice. Close-on-exec: a child (an agent, a compiler) must not keep the study locked. */
#include "db/db_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

enum { COMMAND_MAX = 256, LOCK_TRIES = 10, LOCK_PAUSE_MS = 50 };

static nas_status lock_path(nas_ctx *ctx, const nas_db *db, char out[NAS__DB_PATH_MAX + 8]) {
    const int n = snprintf(out, NAS__DB_PATH_MAX + 8, "%s.lock", db->path);
    if (n < 0) return nas_fail(ctx, NAS_ERR_INTERNAL, "cannot name the lock file of %s", db->path);
    return NAS_OK;
}

/* A reader may hold the lock for the milliseconds of a snapshot, and a stopped run may still be ending: half a second
 * of tries before giving up. EWOULDBLOCK in errno when another process has it. */
static bool try_lock(int fd, int operation, int tries) {
    for (int i = 0;; i++) {
        if (flock(fd, operation | LOCK_NB) == 0) return true;
        if ((errno != EWOULDBLOCK && errno != EINTR) || i + 1 >= tries) return false;
        const struct timespec pause = {.tv_nsec = LOCK_PAUSE_MS * 1000000L};
        (void)nanosleep(&pause, NULL); /* a shorter pause is as good */
    }
}

static size_t read_some(int fd, char *out, size_t size) {
    const ssize_t n = pread(fd, out, size - 1, 0);
    const size_t len = n > 0 ? (size_t)n : 0;
    out[len] = '\0';
    return len;
}

static nas_status locked_by_other(nas_ctx *ctx, const nas_db *db, int fd) {
    char text[COMMAND_MAX + 32];
    (void)read_some(fd, text, sizeof text);
    char *command = strchr(text, '\n');
    const long pid = strtol(text, NULL, 10);
    if (command == NULL || pid <= 0) {
        return nas_fail(ctx, NAS_ERR_DB, "%s is locked by another process: wait for it or stop it",
                        db->path);
    }
    command++;
    command[strcspn(command, "\n")] = '\0';
    return nas_fail(ctx, NAS_ERR_DB, "%s is locked by process %ld (%s): wait for it or stop it",
                    db->path, pid, command[0] != '\0' ? command : "command unknown");
}

/* This process's command line, words joined by blanks; "" where /proc is missing. */
static void own_command(char out[COMMAND_MAX]) {
    out[0] = '\0';
    const int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0) return;
    const size_t len = read_some(fd, out, COMMAND_MAX);
    (void)close(fd); /* only read */
    for (size_t i = 0; i < len; i++) {
        const unsigned char c = (unsigned char)out[i];
        if (c < 0x20 || c == 0x7f) out[i] = i + 1 < len ? ' ' : '\0';
    }
}

static nas_status write_owner(nas_ctx *ctx, const nas_db *db, int fd) {
    char command[COMMAND_MAX];
    own_command(command);
    char text[COMMAND_MAX + 32];
    const int n = snprintf(text, sizeof text, "%ld\n%s\n", (long)getpid(), command);
    if (n < 0 || ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)n, 0) != n) {
        return nas_fail(ctx, NAS_ERR_IO, "cannot write %s.lock: %s%s", db->path, strerror(errno),
                        errno == ENOSPC ? " (free some space and run the same command again)" : "");
    }
    return NAS_OK;
}

nas_status nas__db_lock(nas_ctx *ctx, nas_db *db) {
    char path[NAS__DB_PATH_MAX + 8];
    nas_status status = lock_path(ctx, db, path);
    if (status != NAS_OK) return status;
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0) {
        return nas_fail(ctx, NAS_ERR_IO, "cannot open the lock %s: %s%s", path, strerror(errno),
                        errno == ENOENT ? " (make the folder first)" : "");
    }
    if (!try_lock(fd, LOCK_EX, LOCK_TRIES)) {
        status = errno == EWOULDBLOCK
                     ? locked_by_other(ctx, db, fd)
                     : nas_fail(ctx, NAS_ERR_IO, "cannot lock %s: %s (put the run on a local disk)",
                                path, strerror(errno));
    }
    if (status == NAS_OK) status = write_owner(ctx, db, fd);
    if (status != NAS_OK) {
        (void)close(fd); /* nothing of ours is in it */
        return status;
    }
    db->lock_fd = fd;
    return NAS_OK;
}

nas_status nas__db_lock_shared(nas_ctx *ctx, const nas_db *db, int *fd, bool *held_by_writer) {
    char path[NAS__DB_PATH_MAX + 8];
    const nas_status status = lock_path(ctx, db, path);
    if (status != NAS_OK) return status;
    *held_by_writer = false;
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    if (*fd < 0) {
        if (errno == ENOENT)
            return NAS_OK; /* a copied database: nobody can be its writer without making the lock */
        return nas_fail(ctx, NAS_ERR_IO, "cannot open the lock %s: %s", path, strerror(errno));
    }
    if (try_lock(*fd, LOCK_SH, 1)) return NAS_OK;
    *held_by_writer = errno == EWOULDBLOCK;
    const int code = errno;
    (void)close(*fd); /* only read */
    *fd = -1;
    if (*held_by_writer) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_IO, "cannot lock %s: %s", path, strerror(code));
}
