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
        const char *arch, *emulator;
    } rows[] = {{"aarch64", "qemu-aarch64"},
                {"armv7", "qemu-arm"},
                {"riscv64", "qemu-riscv64"},
                {"x86_64", "qemu-x86_64"}};
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
        o.argv = (const char *const[]){rows[i].emulator, path, "doctor", NULL};
        if (nas_process_run(ctx, &o, &r) == NAS_OK) {
            (void)snprintf(expected, sizeof expected, "\"arch\":\"%s\"", rows[i].arch);
            cr_assert(eq(int, r.exit_code, 0), "%s: %s", path, r.err.data);
            cr_assert(ne(ptr, strstr(r.out.data, expected), NULL), "%s", r.out.data);
            cr_assert(nas__json_object_ok(r.out.data, r.out.len), "%s", r.out.data);
        } else {
            cr_log_warn("%s is not installed: %s was not run", rows[i].emulator, path);
        }
        nas_process_result_deinit(&r);
    }
    nas_ctx_free(ctx);
    if (seen == 0) cr_skip_test("no agents for devices here: make agents");
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
