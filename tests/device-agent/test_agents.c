/* test_agents.c - the static agents for devices (make agents): small, at home on their machine, and idle in little
 * memory. What was not built or cannot be run here is skipped. */
#include "agent_fixture.h"
#include "device-agent/agent_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SIZE_MAX_BYTES = 256000, IDLE_MAX_KB = 4096 };

static const char *agents_dir(void) {
    const char *dir = getenv("NAS_AGENTS_DIR");
    return dir != NULL ? dir : "build/agents";
}

Test(device_agent_agents, each_is_small_and_tells_its_machine, .timeout = 120) {
    static const struct {
        const char *arch, *emulator, *model, *feature;
    } rows[] = {{"aarch64", "qemu-aarch64", "max", "asimddp"},
                {"armv7", "qemu-arm", "max", "vfpv4"},
                {"riscv64", "qemu-riscv64", "rv64,v=true,vext_spec=v1.0,vlen=256", "zvl256b"},
                {"x86_64", "qemu-x86_64", "max", "sse2"}};
    nas_ctx *ctx = nas_ctx_new();
    int seen = 0;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char path[512], expected[64];
        struct stat info;
        (void)snprintf(path, sizeof path, "%s/nas-agent-%s", agents_dir(), rows[i].arch);
        if (stat(path, &info) != 0) continue;
        seen++;
        cr_assert(info.st_size <= SIZE_MAX_BYTES, "%s: %lld bytes", path, (long long)info.st_size);
        nas_process_options o = nas_process_options_default();
        nas_process_result r = {0};
        o.argv =
            (const char *const[]){rows[i].emulator, "-cpu", rows[i].model, path, "doctor", NULL};
        if (nas_process_run(ctx, &o, &r) == NAS_OK) {
            (void)snprintf(expected, sizeof expected, "\"arch\":\"%s\"", rows[i].arch);
            cr_assert(eq(int, r.exit_code, 0), "%s: %s", path, r.err.data);
            cr_assert(ne(ptr, strstr(r.out.data, expected), NULL), "%s", r.out.data);
            cr_assert(ne(ptr, strstr(r.out.data, rows[i].feature), NULL), "%s", r.out.data);
            cr_assert(nas__json_object_ok(r.out.data, r.out.len), "%s", r.out.data);
        } else {
            cr_log_warn("%s is not installed: %s was not run", rows[i].emulator, path);
        }
        nas_process_result_deinit(&r);
    }
    nas_ctx_free(ctx);
    if (seen == 0) cr_skip_test("no agents for devices here: make agents");
}

/* A stand-in for Android's clang: the script must find it where an NDK has it, and use it for Android's two. */
Test(device_agent_agents, the_ndk_builds_the_androids_when_it_is_there, .timeout = 120) {
    static const char clang[] =
        "#!/bin/sh\nwhile [ $# -gt 0 ]; do [ \"$1\" = -o ] && out=$2; shift; "
        "done\necho stand-in >\"$out\"\n";
    static const char *const names[] = {"aarch64-linux-android24-clang",
                                        "armv7a-linux-androideabi24-clang"};
    static const char bin[] = "ndk/26.1/toolchains/llvm/prebuilt/linux-x86_64/bin";
    nas_ctx *ctx = nas_ctx_new();
    char dir[] = "/tmp/nas-ndk-XXXXXX", path[256], build[64];
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    for (int i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", dir, bin);
        cr_assert(eq(int, (int)nas_mkdirs(ctx, path), NAS_OK));
        (void)snprintf(path, sizeof path, "%s/%s/%s", dir, bin, names[i]);
        cr_assert(eq(int, (int)nas_file_write(ctx, path, clang, sizeof clang - 1, 0700), NAS_OK));
    }
    static const char properties[] = "Pkg.Desc = Android NDK\nPkg.Revision = 26.1.10909125\n";
    (void)snprintf(path, sizeof path, "%s/ndk/26.1/source.properties", dir);
    cr_assert(
        eq(int, (int)nas_file_write(ctx, path, properties, sizeof properties - 1, 0600), NAS_OK));
    (void)snprintf(build, sizeof build, "%s/build", dir);
    (void)snprintf(path, sizeof path, "%s/ndk/26.1", dir);
    for (int by_home = 0; by_home < 2; by_home++) {
        static const char *const others[] = {"ANDROID_NDK_HOME", "ANDROID_NDK_ROOT", "ANDROID_NDK",
                                             "ANDROID_HOME"};
        for (size_t i = 0; i < 4; i++)
            (void)unsetenv(others[i]);
        if (by_home) (void)snprintf(path, sizeof path, "%s", dir);
        (void)setenv(by_home ? "ANDROID_HOME" : "ANDROID_NDK_HOME", path, 1);
        (void)setenv("BUILD", build, 1);
        nas_process_options o = nas_process_options_default();
        nas_process_result r = {0};
        o.argv = (const char *const[]){"scripts/agents.sh", "aarch64", "armv7", NULL};
        cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK));
        cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
        cr_assert(
            ne(ptr, strstr(r.out.data, "nas-agent-aarch64 (NDK 26.1.10909125; 9 bytes)"), NULL),
            "%s", r.out.data);
        cr_assert(
            ne(ptr, strstr(r.out.data, "nas-agent-armv7 (NDK 26.1.10909125; 9 bytes)"), NULL));
        nas_process_result_deinit(&r);
        (void)nas_remove_tree(ctx, build);
    }
    (void)nas_remove_tree(ctx, dir);
    nas_ctx_free(ctx);
}

Test(device_agent_agents, an_idle_agent_takes_little_memory, .timeout = 60) {
#if !defined(__x86_64__)
    cr_skip_test("the native one of the four is for x86-64");
#endif
    fixture f;
    char line[256] = "", parent[32];
    long kb = 0;
    fixture_open(&f);
    (void)snprintf(parent, sizeof parent, "%ld", (long)getpid());
    (void)snprintf(f.program, sizeof f.program, "%s/nas-agent-x86_64", agents_dir());
    if (access(f.program, X_OK) != 0) cr_skip_test("no agents for devices here: make agents");
    f.pid = fixture_spawn((const char *const[]){f.program, "serve", "--listen", "127.0.0.1:0",
                                                "--key-file", f.key_path, "--cache-dir", f.cache,
                                                "--parent-pid", parent, NULL},
                          &f.port);
    cr_assert(f.port > 0);
    link_to l = link_open(f.port);
    answer a = link_call(&f, &l, "GET", "/v1/info", NULL, 0);
    cr_assert(eq(int, a.status, 200));
    answer_free(&a);
    link_close(&l);
    (void)snprintf(line, sizeof line, "/proc/%ld/status", (long)f.pid);
    FILE *status = fopen(line, "r");
    cr_assert(ne(ptr, status, NULL));
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, "VmRSS:", 6) == 0) kb = strtol(line + 6, NULL, 10);
    }
    (void)fclose(status);
    cr_log_info("idle: %ld KB", kb);
    cr_assert(kb > 0 && kb <= IDLE_MAX_KB, "%ld KB", kb);
    fixture_close(&f);
}
