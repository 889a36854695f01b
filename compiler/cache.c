/* cache.c - content-addressed files. An entry appears by rename and never changes; a file `<entry>.sum` beside it holds
 * its SHA-256, so that a damaged entry, or one that a power failure cut short, counts as absent. Several threads and
 * processes may work on one folder: whoever renames last wins, with the same content. */
#include "compiler/compiler_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FREE_BYTES_MIN = 16 * 1024 * 1024 };

nas_status nas__cache_path(nas_ctx *ctx, const char *dir, const char *key, const char *suffix,
                           size_t size, char *out) {
    const int n = snprintf(out, size, "%s/%.2s/%s%s", dir, key, key, suffix);
    if (n < 0 || (size_t)n >= size) {
        return nas_fail(ctx, NAS_ERR_RANGE,
                        "cache folder '%s': path longer than %zu bytes; choose a shorter one", dir,
                        size);
    }
    return NAS_OK;
}

bool nas__cache_find(const char *path, char sha256[NAS_SHA256_HEX]) {
    char sum_path[1024];
    if (snprintf(sum_path, sizeof sum_path, "%s.sum", path) >= (int)sizeof sum_path) return false;
    if (!nas_file_exists(path) || !nas_file_exists(sum_path)) return false;
    nas_buf sum = {0};
    char found[NAS_SHA256_HEX];
    const bool whole = nas_file_read(NULL, sum_path, NAS_SHA256_HEX, &sum) == NAS_OK &&
                       nas_sha256_file_hex(NULL, path, found) == NAS_OK &&
                       sum.len == NAS_SHA256_HEX - 1 && memcmp(sum.data, found, sum.len) == 0;
    nas_buf_deinit(&sum);
    if (whole) memcpy(sha256, found, sizeof found);
    return whole;
}

static nas_status make_parent(nas_ctx *ctx, const char *path) {
    char parent[1024];
    const char *slash = strrchr(path, '/');
    (void)snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    return nas_mkdirs(ctx, parent);
}

/* Bytes on disk if `durable`, then the final mode. */
static nas_status settle(nas_ctx *ctx, const char *path, unsigned mode, bool durable) {
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    nas_status status = NAS_OK;
    if ((durable && fsync(fd) != 0) || fchmod(fd, (mode_t)mode) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    }
    (void)close(fd); /* only read */
    return status;
}

/* Replaces the sum by rename: the entry is never seen with half of one. */
static nas_status write_sum(nas_ctx *ctx, const char *path, const char *sum) {
    char temp[1024 + 16];
    (void)snprintf(temp, sizeof temp, "%s.XXXXXX", path);
    const int fd = mkstemp(temp);
    if (fd < 0) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", temp, strerror(errno));
    const bool wrote = write(fd, sum, NAS_SHA256_HEX - 1) == NAS_SHA256_HEX - 1;
    if ((close(fd) != 0) | !wrote || rename(temp, path) != 0) {
        (void)unlink(temp); /* best effort: the failure is reported */
        return nas_fail(ctx, NAS_ERR_IO, "%s: not written: %s; disk full?", path, strerror(errno));
    }
    return NAS_OK;
}

nas_status nas__cache_put(nas_ctx *ctx, const char *from, const char *path, unsigned mode,
                          bool durable, char sha256[NAS_SHA256_HEX]) {
    char sum_path[1024], sum[NAS_SHA256_HEX];
    if (snprintf(sum_path, sizeof sum_path, "%s.sum", path) >= (int)sizeof sum_path) {
        return nas_fail(ctx, NAS_ERR_RANGE, "path too long: %s", path);
    }
    nas_status status = make_parent(ctx, path);
    if (status == NAS_OK) status = settle(ctx, from, mode, durable);
    if (status == NAS_OK) status = nas_sha256_file_hex(ctx, from, sum);
    if (status == NAS_OK && rename(from, path) != 0) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: rename: %s", path, strerror(errno));
    }
    if (status == NAS_OK && durable)
        status = nas_file_write(ctx, sum_path, sum, NAS_SHA256_HEX - 1, 0444);
    if (status == NAS_OK && !durable) status = write_sum(ctx, sum_path, sum);
    if (status == NAS_OK) memcpy(sha256, sum, sizeof sum);
    return status;
}

nas_status nas__cache_work_dir(nas_ctx *ctx, const char *dir, size_t size, char *out) {
    nas_status status = nas_mkdirs(ctx, dir);
    uint64_t free_bytes = 0;
    if (status == NAS_OK) status = nas_disk_free_bytes(ctx, dir, &free_bytes);
    if (status != NAS_OK) return status;
    if (free_bytes < FREE_BYTES_MIN) {
        return nas_fail(ctx, NAS_ERR_IO,
                        "disk full: %s has %" PRIu64
                        " bytes left, compiling needs %d; free some space",
                        dir, free_bytes, FREE_BYTES_MIN);
    }
    const int n = snprintf(out, size, "%s/work-XXXXXX", dir);
    if (n < 0 || (size_t)n >= size)
        return nas_fail(ctx, NAS_ERR_RANGE, "cache folder '%s': path too long", dir);
    if (mkdtemp(out) == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", out, strerror(errno));
    return NAS_OK;
}
