/* toolchain.c - the C compiler as a child process: is it there, which one is it, run it. */
#include "compiler/compiler_internal.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* -O2 and nothing above: -O3 spills some tiles, -ffast-math breaks the multiply-add chains. */
static const char common_flags[] = "-O2 -std=gnu99 -ffp-contract=fast -pthread";

enum { MESSAGE_MAX = 2000, PROBE_TIMEOUT_MS = 20 * 1000 };

nas_compile_options nas_compile_options_default(void) {
    return (nas_compile_options){
        .cache_dir = "build/cache", .max_threads = 2, .tune_threads = 1, .timeout_ms = 120 * 1000};
}

static const char *base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash != NULL ? slash + 1 : path;
}

/* What a cross compiler links with; Debian's compiler package does not bring it. */
static const char *libc_of(const char *package) {
    static const struct {
        const char *compiler, *libc;
    } rows[] = {{"gcc-aarch64-linux-gnu", " libc6-dev-arm64-cross"},
                {"gcc-arm-linux-gnueabihf", " libc6-dev-armhf-cross"},
                {"gcc-riscv64-linux-gnu", " libc6-dev-riscv64-cross"},
                {"clang-16", " gcc-riscv64-linux-gnu libc6-dev-riscv64-cross"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        if (strcmp(rows[i].compiler, package) == 0) return rows[i].libc;
    }
    return "";
}

static nas_status missing(nas_ctx *ctx, const char *compiler) {
    const char *base = base_name(compiler);
    char package[64] = "gcc";
    if (strstr(base, "-linux-android") != NULL) {
        return nas_fail(ctx, NAS_ERR_TOOLCHAIN,
                        "compiler '%s' not found: set ANDROID_NDK_HOME to the folder of an Android "
                        "NDK for Linux on x86-64",
                        compiler);
    }
    const char *suffix = strstr(base, "-gcc");
    if (strstr(base, "clang") != NULL) {
        (void)snprintf(package, sizeof package, "%.20s",
                       strncmp(base, "clang", 5) == 0 ? base : "clang");
    } else if (suffix != NULL && suffix != base && suffix[4] == '\0') {
        (void)snprintf(package, sizeof package, "gcc-%.*s", (int)(suffix - base), base);
    }
    return nas_fail(
        ctx, NAS_ERR_TOOLCHAIN,
        "compiler '%s' not found: install it (Debian: apt-get install %s%s) or choose another",
        compiler, package, libc_of(package));
}

/* Names a missing program, keeps TIMEOUT and CANCELLED. */
static nas_status run(nas_ctx *ctx, const char *const *argv, const char *cwd, int64_t timeout_ms,
                      nas_process_result *result) {
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = cwd;
    options.timeout_ms = timeout_ms;
    const nas_status status = nas_process_run(ctx, &options, result);
    return status == NAS_ERR_NOTFOUND ? missing(ctx, argv[0]) : status;
}

static nas_status ask_version(nas_ctx *ctx, nas__toolchain *t) {
    const char *const argv[] = {t->compiler, "--version", NULL};
    nas_process_result result = {0};
    nas_status status = run(ctx, argv, NULL, PROBE_TIMEOUT_MS, &result);
    if (status != NAS_OK) return status;
    const size_t line = result.out.data != NULL ? strcspn(result.out.data, "\n") : 0;
    if (result.exit_code != 0 || line == 0) {
        status = nas_fail(ctx, NAS_ERR_TOOLCHAIN,
                          "'%s --version' answered nothing (exit code %d); is it a C compiler?",
                          t->compiler, result.exit_code);
    } else {
        (void)snprintf(t->version, sizeof t->version, "%.*s", (int)(line < 120 ? line : 120),
                       result.out.data);
    }
    nas_process_result_deinit(&result);
    return status;
}

/* Asking costs a process, and a search asks for every candidate: the answers of this process, with the file that gave
 * them. Another file under the same name is asked again. */
typedef struct known_version {
    char compiler[256], version[128];
    dev_t device;
    ino_t inode;
    struct timespec changed;
} known_version;
enum { KNOWN_MAX = 16 };
static pthread_mutex_t known_lock = PTHREAD_MUTEX_INITIALIZER;
static known_version known[KNOWN_MAX];
static size_t known_next;

/* The file that execvp would start. */
static bool find_program(const char *compiler, struct stat *info) {
    if (strchr(compiler, '/') != NULL) return stat(compiler, info) == 0;
    const char *path = getenv("PATH");
    while (path != NULL && *path != '\0') {
        const size_t len = strcspn(path, ":");
        char file[1024];
        const int n = snprintf(file, sizeof file, "%.*s/%s", (int)len, path, compiler);
        if (n > 0 && (size_t)n < sizeof file && access(file, X_OK) == 0)
            return stat(file, info) == 0;
        path += len + (path[len] == ':');
    }
    return false;
}

static bool same_file(const known_version *k, const char *compiler, const struct stat *info) {
    return strcmp(k->compiler, compiler) == 0 && k->device == info->st_dev &&
           k->inode == info->st_ino && k->changed.tv_sec == info->st_mtim.tv_sec &&
           k->changed.tv_nsec == info->st_mtim.tv_nsec;
}

static nas_status find_version(nas_ctx *ctx, nas__toolchain *t) {
    struct stat info;
    const bool there = find_program(t->compiler, &info);
    bool found = false;
    (void)pthread_mutex_lock(&known_lock);
    for (int i = 0; i < KNOWN_MAX && there && !found; i++) {
        found = same_file(&known[i], t->compiler, &info);
        if (found) memcpy(t->version, known[i].version, sizeof t->version);
    }
    (void)pthread_mutex_unlock(&known_lock);
    if (found) return NAS_OK;
    const nas_status status = ask_version(ctx, t);
    if (status != NAS_OK || !there) return status;
    (void)pthread_mutex_lock(&known_lock);
    known_version *k = &known[known_next++ % KNOWN_MAX];
    *k = (known_version){.device = info.st_dev, .inode = info.st_ino, .changed = info.st_mtim};
    memcpy(k->compiler, t->compiler, sizeof k->compiler);
    memcpy(k->version, t->version, sizeof k->version);
    (void)pthread_mutex_unlock(&known_lock);
    return NAS_OK;
}

/* "$NAME/path": the value of the variable takes the place of "$NAME". */
static nas_status expand(nas_ctx *ctx, const nas_compile_options *options, const char *compiler,
                         size_t size, char *out) {
    char name[64];
    const char *value = "", *rest = compiler;
    if (compiler[0] == '$') {
        rest = compiler + strcspn(compiler, "/");
        (void)snprintf(name, sizeof name, "%.*s", (int)(rest - compiler - 1), compiler + 1);
        value = getenv(name);
        if (value == NULL || value[0] == '\0') {
            return nas_fail(ctx, NAS_ERR_TOOLCHAIN,
                            "target %s: set %s to the folder of its tool chain (for "
                            "ANDROID_NDK_HOME an unpacked Android NDK) or name a compiler",
                            options->target->name, name);
        }
    }
    const int n = snprintf(out, size, "%s%s", value, rest);
    if (n < 1 || (size_t)n >= size) {
        return nas_fail(ctx, NAS_ERR_INVALID, "compiler name too long or empty: '%s'", compiler);
    }
    return NAS_OK;
}

nas_status nas__toolchain_open(nas_ctx *ctx, const nas_compile_options *options,
                               nas__toolchain *out) {
    if (options->target == NULL || options->cache_dir == NULL || options->timeout_ms <= 0) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "compile options need a target, a cache folder and a timeout");
    }
    nas__toolchain t = {.timeout_ms = options->timeout_ms};
    const char *compiler =
        options->compiler != NULL ? options->compiler : options->target->compiler;
    const int a = snprintf(t.base_flags, sizeof t.base_flags, "%s %s", common_flags,
                           options->target->base_flags);
    const int b = snprintf(t.flags, sizeof t.flags, "%s %s", common_flags, options->target->flags);
    if (a < 0 || (size_t)a >= sizeof t.base_flags || b < 0 || (size_t)b >= sizeof t.flags) {
        return nas_fail(ctx, NAS_ERR_INVALID, "flags of target %s are too long",
                        options->target->name);
    }
    nas_status status = expand(ctx, options, compiler, sizeof t.compiler, t.compiler);
    if (status == NAS_OK) status = find_version(ctx, &t);
    if (status == NAS_OK) *out = t;
    return status;
}

static nas_status compiler_failed(nas_ctx *ctx, const nas__toolchain *t,
                                  const nas_process_result *r) {
    const char *text = r->err.data != NULL ? r->err.data : "";
    if (strstr(text, "No space left on device") != NULL) {
        return nas_fail(
            ctx, NAS_ERR_IO,
            "disk full while compiling: free some space and run the same command again");
    }
    char how[48];
    (void)snprintf(how, sizeof how,
                   r->signal != 0 ? "was killed by signal %d" : "failed with exit code %d",
                   r->signal != 0 ? r->signal : r->exit_code);
    return nas_fail(ctx, NAS_ERR_TOOLCHAIN, "%s (%s) %s: %.*s", t->compiler, t->version, how,
                    MESSAGE_MAX, text);
}

nas_status nas__cc(nas_ctx *ctx, const nas__toolchain *t, const char *cwd,
                   const char *const *args) {
    char flags[sizeof t->flags];
    memcpy(flags, t->flags, sizeof flags);
    const char *argv[NAS__CC_ARGS_MAX * 2];
    int n = 0;
    argv[n++] = t->compiler;
    argv[n++] = "-pipe";
    for (char *word = flags; *word != '\0' && n < NAS__CC_ARGS_MAX;) {
        char *end = word + strcspn(word, " ");
        const bool last = *end == '\0';
        *end = '\0';
        if (end != word) argv[n++] = word;
        word = last ? end : end + 1;
    }
    for (; *args != NULL; args++) {
        if (n + 1 >= NAS__CC_ARGS_MAX * 2)
            return nas_fail(ctx, NAS_ERR_INTERNAL, "too many compiler arguments");
        argv[n++] = *args;
    }
    argv[n] = NULL;
    nas_process_result result = {0};
    nas_status status = run(ctx, argv, cwd, t->timeout_ms, &result);
    if (status != NAS_OK) return nas_wrap(ctx, status, "compiling");
    if (result.exit_code != 0) status = compiler_failed(ctx, t, &result);
    nas_process_result_deinit(&result);
    return status;
}

nas_status nas_toolchain_check(nas_ctx *ctx, const nas_compile_options *options) {
    nas__toolchain t;
    nas_status status = nas__toolchain_open(ctx, options, &t);
    if (status != NAS_OK) return status;
    char work[512];
    status = nas__cache_work_dir(ctx, options->cache_dir, sizeof work, work);
    if (status != NAS_OK) return status;
    static const char program[] =
        "#include <pthread.h>\n#include <stdio.h>\nint main(void) { return 0; }\n";
    char path[600];
    (void)snprintf(path, sizeof path, "%s/probe.c", work);
    status = nas_file_write(ctx, path, program, sizeof program - 1, 0644);
    const char *const args[] = {"probe.c", "-o", "probe", NULL};
    if (status == NAS_OK) status = nas__cc(ctx, &t, work, args);
    if (status == NAS_ERR_TOOLCHAIN) {
        (void)nas_wrap(ctx, status,
                       "cannot build a one-line program (Debian: apt-get install gcc libc6-dev)");
    }
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet != NULL)
        (void)nas_remove_tree(quiet, work); /* best effort: left-overs are harmless */
    nas_ctx_free(quiet);
    return status;
}
