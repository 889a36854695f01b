/* blobs.c - artifacts stored by SHA-256 below the cache folder: written whole or not at all, executable by the owner
 * only, least recently used ones evicted when the total grows over its limit. */
#include "device-agent/agent_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HASH_HEX = NAS_SHA256_HEX - 1, TEMP_AGE_S = 3600 };
static const uint64_t spare_bytes = 4u << 20; /* left free on the disk for everything else */

/* ".tmp-XXXXXX" files of writers that died; young ones may belong to another agent on the same folder. */
static void remove_old_temporaries(const char *dir_path) {
    DIR *dir = opendir(dir_path);
    if (dir == NULL) return;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat info;
        if (strstr(e->d_name, ".tmp-") == NULL) continue;
        if (fstatat(dirfd(dir), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0) continue;
        if (nas_unix_time_ms() / 1000 - (int64_t)info.st_mtime < TEMP_AGE_S) continue;
        (void)unlinkat(dirfd(dir), e->d_name, 0); /* best effort */
    }
    (void)closedir(dir);
}

nas_status nas__blobs_init(nas_ctx *ctx, nas__blobs *blobs, const char *cache_dir,
                           uint64_t max_bytes) {
    const int n = snprintf(blobs->dir, sizeof blobs->dir, "%s/blobs", cache_dir);
    if (n < 0 || (size_t)n >= sizeof blobs->dir) {
        return nas_fail(ctx, NAS_ERR_RANGE, "cache folder %s: path longer than %zu bytes",
                        cache_dir, sizeof blobs->dir - 7);
    }
    blobs->max_bytes = max_bytes;
    const nas_status status = nas_mkdirs(ctx, blobs->dir);
    if (status != NAS_OK) return nas_wrap(ctx, status, "cache folder");
    if (chmod(blobs->dir, 0700) != 0) {
        return nas_fail(ctx, NAS_ERR_IO, "cache folder %s: %s; give one that you own", blobs->dir,
                        strerror(errno));
    }
    remove_old_temporaries(blobs->dir);
    return NAS_OK;
}

bool nas__blob_path(const nas__blobs *blobs, nas__slice hash, char *out, size_t size) {
    if (hash.len != HASH_HEX) return false;
    for (size_t i = 0; i < hash.len; i++) {
        const char c = hash.data[i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'))) return false;
    }
    const int n = snprintf(out, size, "%s/%.*s", blobs->dir, (int)hash.len, hash.data);
    return n > 0 && (size_t)n < size;
}

bool nas__blob_present(const nas__blobs *blobs, nas__slice hash) {
    char path[1024];
    struct stat info;
    return nas__blob_path(blobs, hash, path, sizeof path) && lstat(path, &info) == 0 &&
           S_ISREG(info.st_mode);
}

typedef struct blob_file {
    char name[NAS_SHA256_HEX];
    uint64_t bytes;
    struct timespec used;
} blob_file;

static int older_first(const void *a, const void *b) {
    const blob_file *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec) return x->used.tv_sec < y->used.tv_sec ? -1 : 1;
    if (x->used.tv_nsec != y->used.tv_nsec) return x->used.tv_nsec < y->used.tv_nsec ? -1 : 1;
    return strcmp(x->name, y->name);
}

static nas_status list_blobs(nas_ctx *ctx, DIR *dir, blob_file **files, size_t *n,
                             uint64_t *total) {
    size_t cap = 0;
    for (const struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        struct stat info;
        if (strlen(e->d_name) != HASH_HEX) continue;
        if (fstatat(dirfd(dir), e->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISREG(info.st_mode))
            continue;
        const nas_status status = nas_grow(ctx, files, &cap, *n + 1, sizeof **files);
        if (status != NAS_OK) return status;
        blob_file *file = &(*files)[(*n)++];
        memcpy(file->name, e->d_name, NAS_SHA256_HEX);
        file->bytes = (uint64_t)info.st_size;
        file->used = info.st_mtim;
        *total += file->bytes;
    }
    return NAS_OK;
}

/* Removes the least recently used blobs until `need` more bytes fit below the limit. */
static nas_status make_room(nas_ctx *ctx, const nas__blobs *blobs, uint64_t need,
                            const char *keep) {
    DIR *dir = opendir(blobs->dir);
    if (dir == NULL) return nas_fail(ctx, NAS_ERR_IO, "%s: %s", blobs->dir, strerror(errno));
    blob_file *files = NULL;
    size_t n = 0;
    uint64_t total = 0;
    const nas_status status = list_blobs(ctx, dir, &files, &n, &total);
    if (n > 0) qsort(files, n, sizeof *files, older_first);
    for (size_t i = 0; i < n && status == NAS_OK && total + need > blobs->max_bytes; i++) {
        if (strcmp(files[i].name, keep) == 0) continue;
        if (unlinkat(dirfd(dir), files[i].name, 0) == 0) total -= files[i].bytes;
    }
    nas_free(files);
    (void)closedir(dir);
    return status;
}

static int disk_status(nas_ctx *ctx, const nas__blobs *blobs, size_t len) {
    uint64_t room = 0;
    if (nas_disk_free_bytes(NULL, blobs->dir, &room) == NAS_OK && room < len + spare_bytes) {
        (void)nas_fail(ctx, NAS_ERR_IO,
                       "disk full: %s has %" PRIu64
                       " bytes free, the blob needs %zu: free some space on the device",
                       blobs->dir, room, len);
        return 507;
    }
    return 500;
}

void nas__blob_put(nas_ctx *ctx, const nas__blobs *blobs, nas__slice hash, const void *data,
                   size_t len, const char *seen, const char *keep, int *http_status) {
    char path[1024];
    if (!nas__blob_path(blobs, hash, path, sizeof path) || memcmp(seen, hash.data, HASH_HEX) != 0) {
        (void)nas_fail(ctx, NAS_ERR_INVALID,
                       "the %zu bytes received have SHA-256 %s, the path says %.*s", len, seen,
                       (int)hash.len, hash.data);
        *http_status = 422;
        return;
    }
    if (nas__blob_present(blobs, hash) && nas__blob_use(ctx, blobs, hash) == NAS_OK) {
        *http_status = 200;
        return;
    }
    if (len > blobs->max_bytes) {
        (void)nas_fail(ctx, NAS_ERR_RANGE, "blob of %zu bytes, the cache holds %" PRIu64, len,
                       blobs->max_bytes);
        *http_status = 507;
        return;
    }
    nas_status status = make_room(ctx, blobs, len, keep);
    if (status == NAS_OK && disk_status(ctx, blobs, len) == 507) {
        *http_status = 507;
        return;
    }
    if (status == NAS_OK) status = nas_file_write(ctx, path, data, len, 0500);
    *http_status = status == NAS_OK ? 201 : disk_status(ctx, blobs, len);
}

nas_status nas__blob_use(nas_ctx *ctx, const nas__blobs *blobs, nas__slice hash) {
    char path[1024], seen[NAS_SHA256_HEX];
    if (!nas__blob_path(blobs, hash, path, sizeof path)) {
        return nas_fail(ctx, NAS_ERR_INVALID, "blob name %.*s: need 64 lower-case hex digits",
                        (int)hash.len, hash.data);
    }
    if (!nas__blob_present(blobs, hash))
        return nas_fail(ctx, NAS_ERR_NOTFOUND, "no blob %.*s", (int)hash.len, hash.data);
    const nas_status status = nas_sha256_file_hex(ctx, path, seen);
    if (status != NAS_OK) return status;
    if (memcmp(seen, hash.data, HASH_HEX) != 0) {
        (void)unlink(path); /* damaged: the next upload replaces it */
        return nas_fail(ctx, NAS_ERR_IO,
                        "blob %.*s was damaged on disk and is removed; upload it again",
                        (int)hash.len, hash.data);
    }
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_NOW}};
    (void)utimensat(AT_FDCWD, path, now,
                    AT_SYMLINK_NOFOLLOW); /* only the order of eviction depends on it */
    return NAS_OK;
}
