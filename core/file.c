/* file.c - clocks and files: whole reads with a limit, atomic writes, folders. */
#include "core/core.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

int64_t nas_now_ns(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t); /* cannot fail with this clock */
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t nas_unix_time_ms(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_REALTIME, &t); /* cannot fail with this clock */
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

nas_status nas_file_read(nas_ctx *ctx, const char *path, size_t max_bytes, nas_buf *out) {
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        return nas_fail(ctx, errno == ENOENT ? NAS_ERR_NOTFOUND : NAS_ERR_IO, "%s: %s", path,
                        strerror(errno));
    }
    nas_buf buf = {0};
    char chunk[16384];
    size_t n = 0;
    do {
        n = fread(chunk, 1, sizeof chunk, file);
        nas_buf_append(&buf, chunk, n);
    } while (n == sizeof chunk && buf.len <= max_bytes && !buf.failed);
    const bool bad = ferror(file) != 0;
    const int saved = errno;
    (void)fclose(file); /* only read */
    nas_status status = nas_buf_status(ctx, &buf);
    if (bad) status = nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(saved));
    if (status == NAS_OK && buf.len > max_bytes) {
        status = nas_fail(ctx, NAS_ERR_RANGE, "%s: larger than %zu bytes", path, max_bytes);
    }
    if (status != NAS_OK) {
        nas_buf_deinit(&buf);
        return status;
    }
    *out = buf;
    return NAS_OK;
}

static nas_status write_all(nas_ctx *ctx, int fd, const char *path, const char *data, size_t len) {
    while (len > 0) {
        const ssize_t n = write(fd, data, len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) {
            return nas_fail(ctx, NAS_ERR_IO, "%s: %s%s", path, strerror(errno),
                            errno == ENOSPC ? " (free some space and run the same command again)"
                                            : "");
        }
        data += n;
        len -= (size_t)n;
    }
    if (fsync(fd) != 0) return nas_fail(ctx, NAS_ERR_IO, "%s: fsync: %s", path, strerror(errno));
    return NAS_OK;
}

nas_status nas_file_write(nas_ctx *ctx, const char *path, const void *data, size_t len,
                          unsigned mode) {
    char temp[4096];
    const int n = snprintf(temp, sizeof temp, "%s.tmp-XXXXXX", path);
    if (n < 0 || (size_t)n >= sizeof temp)
        return nas_fail(ctx, NAS_ERR_RANGE, "path too long: %s", path);
    const int fd = mkstemp(temp);
    if (fd < 0) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", temp, strerror(errno));
    nas_status status = write_all(ctx, fd, path, data, len);
    if (status == NAS_OK && fchmod(fd, (mode_t)mode) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: chmod: %s", path, strerror(errno));
    }
    if (close(fd) != 0 && status == NAS_OK) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: close: %s", path, strerror(errno));
    }
    if (status == NAS_OK && rename(temp, path) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: rename: %s", path, strerror(errno));
    }
    if (status != NAS_OK) (void)unlink(temp); /* best effort: the failure is already reported */
    return status;
}

bool nas_file_exists(const char *path) {
    struct stat info;
    return stat(path, &info) == 0;
}

nas_status nas_mkdirs(nas_ctx *ctx, const char *path) {
    char part[4096];
    const size_t len = strlen(path);
    if (len == 0 || len >= sizeof part)
        return nas_fail(ctx, NAS_ERR_INVALID, "folder path '%s'", path);
    memcpy(part, path, len + 1);
    for (size_t i = 1; i <= len; i++) {
        if (part[i] != '/' && part[i] != '\0') continue;
        const char saved = part[i];
        part[i] = '\0';
        if (mkdir(part, 0755) != 0 && errno != EEXIST) {
            return nas_fail(ctx, NAS_ERR_IO, "cannot make folder %s: %s", part, strerror(errno));
        }
        part[i] = saved;
    }
    struct stat info;
    if (stat(path, &info) != 0 || !S_ISDIR(info.st_mode)) {
        return nas_fail(ctx, NAS_ERR_IO, "%s exists and is not a folder", path);
    }
    return NAS_OK;
}

nas_status nas_disk_free_bytes(nas_ctx *ctx, const char *path, uint64_t *out) {
    struct statvfs info;
    if (statvfs(path, &info) != 0)
        return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    *out = (uint64_t)info.f_bavail * info.f_frsize;
    return NAS_OK;
}

static nas_status remove_below(nas_ctx *ctx, const char *path, int depth) {
    enum { DEPTH_MAX = 64 };
    struct stat info;
    if (lstat(path, &info) != 0) {
        if (errno == ENOENT) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    }
    if (!S_ISDIR(info.st_mode)) {
        if (unlink(path) == 0) return NAS_OK;
        return nas_fail(ctx, NAS_ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    }
    if (depth >= DEPTH_MAX) return nas_fail(ctx, NAS_ERR_RANGE, "%s: folders too deep", path);
    DIR *dir = opendir(path);
    if (dir == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    nas_status status = NAS_OK;
    for (struct dirent *entry = readdir(dir); entry != NULL && status == NAS_OK;
         entry = readdir(dir)) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char child[4096];
        const int n = snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (n < 0 || (size_t)n >= sizeof child) {
            status = nas_fail(ctx, NAS_ERR_RANGE, "path too long below %s", path);
        } else {
            status = remove_below(ctx, child, depth + 1);
        }
    }
    (void)closedir(dir); /* only read */
    if (status == NAS_OK && rmdir(path) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "cannot remove %s: %s", path, strerror(errno));
    }
    return status;
}

nas_status nas_remove_tree(nas_ctx *ctx, const char *path) {
    return remove_below(ctx, path, 0);
}
