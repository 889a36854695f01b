/* test_blobs.c - the artifact store: only what matches its name gets in, the least recently used goes out. */
#include "device-agent/agent_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64];
static nas__blobs blobs;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-blobs-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    cr_assert(eq(int, (int)nas__blobs_init(ctx, &blobs, dir, 1000), NAS_OK));
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(device_agent_blobs, .init = setup, .fini = teardown);

static nas__slice hash_of(const void *data, size_t len, char hex[NAS_SHA256_HEX]) {
    nas_sha256_hex(data, len, hex);
    return (nas__slice){hex, NAS_SHA256_HEX - 1};
}

static int put(nas__slice hash, const void *data, size_t len, const char *keep) {
    int status = 0;
    char seen[NAS_SHA256_HEX];
    nas_sha256_hex(data, len, seen);
    nas__blob_put(ctx, &blobs, hash, data, len, seen, keep, &status);
    return status;
}

/* Sets the time of last use apart from the clock, `age_s` seconds ago. */
static void age(nas__slice hash, int age_s) {
    char path[1024];
    cr_assert(nas__blob_path(&blobs, hash, path, sizeof path));
    const struct timespec then[2] = {{.tv_sec = time(NULL) - age_s},
                                     {.tv_sec = time(NULL) - age_s}};
    cr_assert(eq(int, utimensat(AT_FDCWD, path, then, 0), 0));
}

Test(device_agent_blobs, stored_once_and_executable_by_the_owner_only) {
    char hex[NAS_SHA256_HEX], path[1024];
    struct stat info;
    const nas__slice hash = hash_of("abc", 3, hex);
    cr_assert(not(nas__blob_present(&blobs, hash)));
    cr_assert(eq(int, put(hash, "abc", 3, ""), 201));
    cr_assert(eq(int, put(hash, "abc", 3, ""), 200));
    cr_assert(nas__blob_present(&blobs, hash));
    cr_assert(nas__blob_path(&blobs, hash, path, sizeof path));
    cr_assert(eq(int, stat(path, &info), 0));
    cr_assert(eq(int, (int)(info.st_mode & 07777), 0500));
}

Test(device_agent_blobs, wrong_bytes_and_wrong_names_are_refused) {
    char hex[NAS_SHA256_HEX];
    const nas__slice hash = hash_of("abc", 3, hex);
    cr_assert(eq(int, put(hash, "abd", 3, ""), 422));
    cr_assert(not(nas__blob_present(&blobs, hash)));
    cr_assert(eq(int, put((nas__slice){"../../etc/passwd", 16}, "abc", 3, ""), 422));
    hex[0] = 'A';
    cr_assert(eq(int, put(hash, "abc", 3, ""), 422));
    cr_assert(eq(int, (int)nas__blob_use(ctx, &blobs, (nas__slice){"x", 1}), (int)NAS_ERR_INVALID));
}

Test(device_agent_blobs, links_are_not_followed) {
    char hex[NAS_SHA256_HEX], path[1024];
    const nas__slice hash = hash_of("abc", 3, hex);
    cr_assert(nas__blob_path(&blobs, hash, path, sizeof path));
    cr_assert(eq(int, symlink("/etc/passwd", path), 0));
    cr_assert(not(nas__blob_present(&blobs, hash)));
    cr_assert(eq(int, (int)nas__blob_use(ctx, &blobs, hash), (int)NAS_ERR_NOTFOUND));
}

Test(device_agent_blobs, damaged_files_are_noticed_and_removed) {
    char hex[NAS_SHA256_HEX], path[1024];
    const nas__slice hash = hash_of("abc", 3, hex);
    cr_assert(eq(int, put(hash, "abc", 3, ""), 201));
    cr_assert(nas__blob_path(&blobs, hash, path, sizeof path));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, "abX", 3, 0500), NAS_OK));
    cr_assert(eq(int, (int)nas__blob_use(ctx, &blobs, hash), (int)NAS_ERR_IO));
    cr_assert(not(nas__blob_present(&blobs, hash)));
    cr_assert(eq(int, put(hash, "abc", 3, ""), 201));
}

Test(device_agent_blobs, the_least_recently_used_goes_first_but_never_the_running_one) {
    char data[4][400], hex[4][NAS_SHA256_HEX];
    nas__slice hash[4];
    for (int i = 0; i < 4; i++) {
        memset(data[i], 'a' + i, sizeof data[i]);
        hash[i] = hash_of(data[i], sizeof data[i], hex[i]);
    }
    cr_assert(eq(int, put(hash[0], data[0], 400, ""), 201));
    cr_assert(eq(int, put(hash[1], data[1], 400, ""), 201));
    age(hash[0], 50);
    age(hash[1], 100);
    cr_assert(eq(int, put(hash[2], data[2], 400, ""), 201)); /* limit 1000: one must go */
    cr_assert(nas__blob_present(&blobs, hash[0]));
    cr_assert(not(nas__blob_present(&blobs, hash[1])));
    age(hash[2], 10);
    cr_assert(eq(int, put(hash[3], data[3], 400, hex[0]), 201)); /* 0 is older, but runs */
    cr_assert(nas__blob_present(&blobs, hash[0]));
    cr_assert(not(nas__blob_present(&blobs, hash[2])));
    char big[1001] = {0}, big_hex[NAS_SHA256_HEX];
    cr_assert(eq(int, put(hash_of(big, sizeof big, big_hex), big, sizeof big, ""), 507));
}

Test(device_agent_blobs, failed_allocations_leave_no_blob_and_no_leak) {
    char hex[NAS_SHA256_HEX];
    const nas__slice hash = hash_of("abc", 3, hex);
    char other_hex[NAS_SHA256_HEX];
    cr_assert(eq(int, put(hash_of("x", 1, other_hex), "x", 1, ""), 201));
    const long before = nas_mem_live();
    int status = 0, failures = 0;
    for (long n = 1; status != 201; n++) {
        nas_mem_fail_after(n);
        status = put(hash, "abc", 3, "");
        nas_mem_fail_after(0);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before));
        if (status == 201) break;
        failures++;
        cr_assert(eq(int, status, 500));
        cr_assert(not(nas__blob_present(&blobs, hash)));
    }
    cr_assert(failures > 0);
}
