/* program.c - see program.h. */
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

void test_bin(const char *name, char out[512]) {
    const char *dir = getenv("NAS_BIN_DIR");
    (void)snprintf(out, 512, "%s/%s", dir == NULL ? "build/release/bin" : dir, name);
}

void test_folder(char out[128]) {
    (void)snprintf(out, 128, "/tmp/nas-study-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(out), NULL), "no temporary folder");
}

static void make_argv(const char *program, const char *path, const char *const *args,
                      const char *argv[PROGRAM_ARGS_MAX]) {
    (void)program;
    size_t n = 0;
    argv[n++] = path;
    for (size_t i = 0; args[i] != NULL && n < PROGRAM_ARGS_MAX - 1; i++)
        argv[n++] = args[i];
    argv[n] = NULL;
}

nas_process_result test_run(nas_ctx *ctx, const char *program, const char *const *args) {
    char path[512];
    test_bin(program, path);
    const char *argv[PROGRAM_ARGS_MAX];
    make_argv(program, path, args, argv);
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.timeout_ms = 300 * 1000;
    o.max_output_bytes = 4 * 1024 * 1024;
    nas_process_result r = {0};
    const nas_status status = nas_process_run(ctx, &o, &r);
    cr_assert(eq(int, (int)status, NAS_OK), "%s: %s", program, nas_ctx_message(ctx));
    return r;
}

bool test_run_killed(const char *program, const char *const *args, int64_t after_ms,
                     int signal_number, int *exit_code) {
    char path[512];
    test_bin(program, path);
    const char *argv[PROGRAM_ARGS_MAX];
    make_argv(program, path, args, argv);
    const pid_t pid = fork();
    cr_assert(pid >= 0);
    if (pid == 0) {
        const int null = open("/dev/null", O_WRONLY);
        (void)dup2(null, 1);
        (void)dup2(null, 2);
        (void)execv(path, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    const int64_t deadline = nas_now_ns() + after_ms * 1000000;
    int status = 0;
    pid_t ended = 0;
    while (ended == 0 && nas_now_ns() < deadline) {
        ended = waitpid(pid, &status, WNOHANG);
        const struct timespec nap = {.tv_nsec = 2000000};
        if (ended == 0) (void)nanosleep(&nap, NULL);
    }
    const bool alive = ended == 0;
    if (alive) {
        (void)kill(pid, signal_number);
        (void)waitpid(pid, &status, 0);
    }
    *exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return alive;
}

static size_t add_keys(const char **args, size_t n, const char *const *keys) {
    for (size_t i = 0; keys != NULL && keys[i] != NULL; i++) {
        cr_assert(n + 3 <= PROGRAM_ARGS_MAX, "too many keys at '%s'", keys[i]);
        if (strncmp(keys[i], "--", 2) != 0) args[n++] = "--set";
        args[n++] = keys[i];
    }
    return n;
}

nas_process_result test_small_study(nas_ctx *ctx, const char *folder, const char *config,
                                    const char *name, const char *const *less,
                                    const char *const *more) {
    char dir[256], cache[256];
    (void)snprintf(dir, sizeof dir, "study.dir=%s/%s", folder, name);
    (void)snprintf(cache, sizeof cache, "compile.cache_dir=%s/cache", folder);
    const char *const small[] = {"model.train_steps=3",
                                 "model.side=16",
                                 "data.glyphs=200",
                                 "data.reward_images=40",
                                 "data.report_images=40",
                                 "search.trials=5",
                                 "search.population=4",
                                 "budget.disk_mb=1",
                                 "device.connect=simulated",
                                 dir,
                                 cache,
                                 NULL};
    const char *args[PROGRAM_ARGS_MAX] = {"--config", config, "-q", "-f", "csv"};
    size_t n = add_keys(args, 5, small);
    n = add_keys(args, n, less);
    (void)add_keys(args, n, more);
    return test_run(ctx, "nas-search", args);
}

bool test_exists(const char *folder, const char *name) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    return nas_file_exists(path);
}

char *test_query(nas_ctx *ctx, const char *folder, const char *name, const char *sql) {
    char db[256];
    (void)snprintf(db, sizeof db, "%s/%s/study.db", folder, name);
    const char *const args[] = {"-f", "value", db, "sql", sql, NULL};
    nas_process_result r = test_run(ctx, "nas-query", args);
    cr_assert(r.exit_code == 0, "%s: %s", sql, r.err.data);
    char *text = nas_strdup(ctx, r.out.data == NULL ? "" : r.out.data);
    nas_process_result_deinit(&r);
    return text;
}

double test_ask(nas_ctx *ctx, const char *folder, const char *name, const char *sql) {
    char *text = test_query(ctx, folder, name, sql);
    const double value = strtod(text, NULL);
    nas_free(text);
    return value;
}

void test_compile_best(nas_ctx *ctx, const char *folder, const char *name) {
    char onnx[256], recipe[256], out[256];
    (void)snprintf(onnx, sizeof onnx, "%s/%s/best/model.onnx", folder, name);
    (void)snprintf(recipe, sizeof recipe, "%s/%s/best/recipe.json", folder, name);
    (void)snprintf(out, sizeof out, "%s/%s-app", folder, name);
    const char *const args[] = {onnx, "--recipe", recipe, "--emit", "c", "-o", out, NULL};
    nas_process_result r = test_run(ctx, "nas-compile", args);
    cr_assert(r.exit_code == 0, "%s: %s", name, r.err.data);
    nas_process_result_deinit(&r);
}
