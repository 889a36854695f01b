/* phone_agent.c - the agent's program on a phone: which one it needs, sending, starting, ending it.
 *
 * Commands for the phone's shell are fixed text with names we made ourselves, so nothing has to be quoted. */
#include "adb/phone_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define IN_DIR "cd " NAS_PHONE_DIR " && "

enum { PROGRAM_MAX = 16 * 1024 * 1024, OUTPUT_MAX = 16 * 1024, KEY_FILE_MAX = 128 };
enum { END_MS = 5000, END_PAUSE_MS = 50 };

/* ---- which program -------------------------------------------------------------------------------------------------- */

nas_status nas__phone_abi_arch(const char *abi, char *arch, size_t size) {
    static const struct {
        const char *abi, *arch;
    } rows[] = {{"arm64-v8a", "aarch64"},
                {"armeabi-v7a", "armv7"},
                {"x86_64", "x86_64"},
                {"riscv64", "riscv64"}};
    for (const char *p = abi; *p != '\0';) { /* one, or a list from the best to the worst */
        const size_t n = strcspn(p, ", \r\n");
        for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
            if (strlen(rows[i].abi) == n && memcmp(rows[i].abi, p, n) == 0) {
                (void)snprintf(arch, size, "%s", rows[i].arch);
                return NAS_OK;
            }
        }
        p += n + (p[n] != '\0');
    }
    return NAS_ERR_NOTFOUND;
}

/* Takes the next line off *text. */
static void take_line(const char **text, char *out, size_t size) {
    const size_t n = strcspn(*text, "\r\n");
    (void)snprintf(out, size, "%.*s", (int)n, *text);
    *text += n;
    *text += **text == '\r';
    *text += **text == '\n';
}

nas_status nas__phone_identify(nas_ctx *ctx, const nas_adb *adb, nas_phone *phone) {
    nas_adb_result r = {0};
    char abi[128], list[256], said[400];
    nas_status status = nas_adb_shell(ctx, adb, phone->serial,
                                      "getprop ro.product.cpu.abi; getprop ro.product.cpu.abilist; "
                                      "getprop ro.product.model",
                                      NULL, 0, OUTPUT_MAX, &r);
    if (status != NAS_OK) return status;
    const char *text = r.out.data != NULL ? r.out.data : "";
    take_line(&text, abi, sizeof abi);
    take_line(&text, list, sizeof list);
    take_line(&text, phone->model, sizeof phone->model);
    nas_adb_result_deinit(&r);
    if (nas__phone_abi_arch(abi, phone->arch, sizeof phone->arch) == NAS_OK ||
        nas__phone_abi_arch(list, phone->arch, sizeof phone->arch) == NAS_OK) {
        return NAS_OK;
    }
    (void)snprintf(said, sizeof said, "%s %s", abi, list);
    return nas__adb_problem_fail(ctx, NAS__ADB_UNKNOWN_ABI, phone->serial, said);
}

/* "agents" beside the folder of the running program (a package), or one above (a build tree). */
static void beside_program(const char *arch, char *out, size_t size) {
    char self[900];
    const ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    char *slash = strrchr(self, '/');
    if (slash != NULL) *slash = '\0';
    (void)snprintf(out, size, "%s/../agents/nas-agent-%s", self, arch);
    if (access(out, R_OK) != 0)
        (void)snprintf(out, size, "%s/../../agents/nas-agent-%s", self, arch);
}

nas_status nas__phone_program_read(nas_ctx *ctx, const char *agents_dir, const nas_phone *phone,
                                   nas__phone_program *out) {
    nas__phone_program p = {0};
    if (agents_dir == NULL) {
        beside_program(phone->arch, p.path, sizeof p.path);
    } else if ((size_t)snprintf(p.path, sizeof p.path, "%s/nas-agent-%s", agents_dir,
                                phone->arch) >= sizeof p.path) {
        return nas_fail(ctx, NAS_ERR_RANGE, "agents folder: path too long");
    }
    nas_status status = nas_file_read(ctx, p.path, PROGRAM_MAX, &p.bytes);
    if (status == NAS_ERR_NOTFOUND || (status == NAS_OK && p.bytes.len == 0)) {
        nas_buf_deinit(&p.bytes);
        return nas__adb_problem_fail(ctx, NAS__ADB_NO_AGENT, phone->serial, p.path);
    }
    if (status != NAS_OK) return status;
    nas_sha256_hex(p.bytes.data, p.bytes.len, p.sha256);
    *out = p;
    return NAS_OK;
}

/* ---- failures on the phone ---------------------------------------------------------------------------------------------- */

/* Is the file system that holds our folder mounted noexec? */
static bool mounted_noexec(nas_ctx *ctx, const nas_adb *adb, const char *serial) {
    nas_adb_result r = {0};
    bool noexec = false;
    size_t longest = 0;
    if (nas_adb_shell(ctx, adb, serial, "cat /proc/mounts", NULL, 0, 256 * 1024, &r) != NAS_OK)
        return false;
    const char *text = r.out.data != NULL ? r.out.data : "";
    while (*text != '\0') {
        char line[1024], at[256], options[512];
        take_line(&text, line, sizeof line);
        if (sscanf(line, "%*s %255s %*s %511s", at, options) != 2) continue;
        const size_t n = strcmp(at, "/") == 0 ? 0 : strlen(at);
        if (strncmp(NAS_PHONE_DIR, at, n) != 0 ||
            (n > 0 && NAS_PHONE_DIR[n] != '/' && NAS_PHONE_DIR[n] != '\0') || n < longest) {
            continue;
        }
        longest = n;
        noexec = nas__adb_feature(options, "noexec");
    }
    nas_adb_result_deinit(&r);
    return noexec;
}

nas_status nas__phone_shell_failed(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                                   const char *what, const nas_adb_result *r) {
    const char *err = r->err.len > 0 ? r->err.data : r->out.len > 0 ? r->out.data : "";
    char said[400];
    (void)snprintf(said, sizeof said, "%s: exit code %d: %.300s", what, r->exit_code, err);
    nas__adb_problem problem = nas__adb_problem_of_text(err);
    const bool starting = strcmp(what, "start") == 0;
    if (starting && (r->exit_code == 127 || strstr(err, "Exec format") != NULL ||
                     strstr(err, "not executable") != NULL)) {
        problem = NAS__ADB_WRONG_ABI;
    } else if (starting && r->exit_code == 126) {
        problem = mounted_noexec(ctx, adb, serial) ? NAS__ADB_NOEXEC : NAS__ADB_SELINUX;
    } else if (problem == NAS__ADB_PROBLEM_COUNT || (starting && problem != NAS__ADB_NO_SPACE)) {
        problem = starting ? NAS__ADB_START_FAILED : NAS__ADB_NOT_WRITABLE;
    }
    return nas__adb_problem_fail(ctx, problem, serial, said);
}

/* A command that has to end with 0. *out may be NULL. */
static nas_status must(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *what,
                       const char *command, nas_buf *out) {
    nas_adb_result r = {0};
    nas_status status = nas_adb_shell(ctx, adb, serial, command, NULL, 0, OUTPUT_MAX, &r);
    if (status != NAS_OK) return status;
    if (r.exit_code != 0) {
        status = nas__phone_shell_failed(ctx, adb, serial, what, &r);
    } else if (out != NULL) {
        *out = r.out;
        r.out = (nas_buf){0};
    }
    nas_adb_result_deinit(&r);
    return status;
}

/* ---- sending ------------------------------------------------------------------------------------------------------------ */

/* SHA-256 of a file on the phone, "" when it is not there. Phones without sha256sum hand the file back instead. */
static nas_status hash_of(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *name,
                          char hex[NAS_SHA256_HEX]) {
    char command[256], path[256];
    uint8_t raw[NAS_SHA256_BYTES];
    nas_adb_result r = {0};
    hex[0] = '\0';
    (void)snprintf(command, sizeof command, "sha256sum %s/%s", NAS_PHONE_DIR, name);
    nas_status status = nas_adb_shell(ctx, adb, serial, command, NULL, 0, OUTPUT_MAX, &r);
    if (status != NAS_OK) return status;
    const bool no_tool = r.exit_code == 127;
    if (r.exit_code == 0 && r.out.len > 64) {
        r.out.data[64] = '\0';
        if (nas_unhex(r.out.data, sizeof raw, raw))
            (void)snprintf(hex, NAS_SHA256_HEX, "%s", r.out.data);
    }
    nas_adb_result_deinit(&r);
    if (!no_tool) return NAS_OK;
    nas_buf bytes = {0};
    (void)snprintf(path, sizeof path, "%s/%s", NAS_PHONE_DIR, name);
    status = nas_adb_pull(ctx, adb, serial, path, PROGRAM_MAX, &bytes);
    if (status == NAS_OK) nas_sha256_hex(bytes.data != NULL ? bytes.data : "", bytes.len, hex);
    nas_buf_deinit(&bytes);
    return status == NAS_ERR_NOTFOUND ? NAS_OK : status;
}

nas_status nas__phone_has(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *sha256,
                          bool *out) {
    char hex[NAS_SHA256_HEX];
    const nas_status status = hash_of(ctx, adb, serial, "nas-agent", hex);
    if (status == NAS_OK) *out = strcmp(hex, sha256) == 0;
    return status;
}

nas_status nas__phone_send(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                           const nas__phone_program *program) {
    char hex[NAS_SHA256_HEX];
    nas_status status = must(ctx, adb, serial, "mkdir",
                             "mkdir -p " NAS_PHONE_DIR " && chmod 0700 " NAS_PHONE_DIR, NULL);
    if (status == NAS_OK)
        status = nas_adb_push(ctx, adb, serial, program->bytes.data, program->bytes.len,
                              NAS_PHONE_DIR "/nas-agent.new", 0700);
    if (status == NAS_OK) status = hash_of(ctx, adb, serial, "nas-agent.new", hex);
    if (status == NAS_OK && strcmp(hex, program->sha256) != 0) {
        (void)must(ctx, adb, serial, "rm", "rm -f " NAS_PHONE_DIR "/nas-agent.new", NULL);
        return nas__adb_problem_fail(ctx, NAS__ADB_DAMAGED, serial, hex);
    }
    /* a running agent keeps its old file */
    if (status == NAS_OK)
        status = must(ctx, adb, serial, "rename",
                      IN_DIR "chmod 0700 nas-agent.new && mv -f nas-agent.new nas-agent", NULL);
    return status;
}

/* ---- starting --------------------------------------------------------------------------------------------------------------- */

/* The key never is in an argument list, and its file is closed to others from the beginning. */
static nas_status put_key(nas_ctx *ctx, const nas_adb *adb, const char *serial, const char *name,
                          const uint8_t key[NAS_AGENT_KEY_BYTES]) {
    char command[256], path[256], hex[2 * NAS_AGENT_KEY_BYTES + 1];
    nas_adb_result r = {0};
    nas_hex(key, NAS_AGENT_KEY_BYTES, hex);
    (void)snprintf(command, sizeof command, IN_DIR "umask 077 && cat > %s", name);
    nas_status status =
        nas_adb_shell(ctx, adb, serial, command, hex, sizeof hex - 1, OUTPUT_MAX, &r);
    if (status == NAS_ERR_UNSUPPORTED) { /* no stdin before Android 7; the folder is closed */
        (void)snprintf(path, sizeof path, "%s/%s", NAS_PHONE_DIR, name);
        (void)snprintf(command, sizeof command, IN_DIR "chmod 0600 %s", name);
        status = nas_adb_push(ctx, adb, serial, hex, sizeof hex - 1, path, 0600);
        return status == NAS_OK ? must(ctx, adb, serial, "key", command, NULL) : status;
    }
    if (status == NAS_OK && r.exit_code != 0)
        status = nas__phone_shell_failed(ctx, adb, serial, "key", &r);
    if (status == NAS_OK) nas_adb_result_deinit(&r);
    return status;
}

static nas_status read_start(nas_ctx *ctx, nas_phone *phone, const nas_adb_result *r) {
    int protocol = 0;
    long pid = 0;
    const char *text = r->out.data != NULL ? r->out.data : "";
    if (sscanf(text, "nas-agent listening @" NAS_PHONE_SOCKET " protocol %d pid %ld", &protocol,
               &pid) != 2) {
        return nas__adb_problem_fail(ctx, NAS__ADB_START_FAILED, phone->serial, text);
    }
    if (protocol != NAS_AGENT_PROTOCOL) {
        char said[96];
        (void)snprintf(said, sizeof said, "it speaks protocol %d, this program %d: make agents",
                       protocol, (int)NAS_AGENT_PROTOCOL);
        return nas__adb_problem_fail(ctx, NAS__ADB_START_FAILED, phone->serial, said);
    }
    phone->pid = pid;
    phone->started = true;
    return NAS_OK;
}

static nas_status run_start(nas_ctx *ctx, const nas_adb *adb, nas_phone *phone, const char *key,
                            bool *taken) {
    char command[600];
    nas_adb_result r = {0};
    (void)snprintf(command, sizeof command,
                   IN_DIR "./nas-agent serve --detach --listen @%s --key-file %s --cache-dir cache "
                          "--log-file agent.log --state-file agent.state </dev/null",
                   NAS_PHONE_SOCKET, key);
    nas_status status = nas_adb_shell(ctx, adb, phone->serial, command, NULL, 0, OUTPUT_MAX, &r);
    if (status != NAS_OK) return status;
    *taken = r.exit_code != 0 && r.err.len > 0 &&
             strstr(r.err.data, "another agent listens there") != NULL;
    if (r.exit_code == 0) {
        status = read_start(ctx, phone, &r);
    } else if (!*taken) {
        status = nas__phone_shell_failed(ctx, adb, phone->serial, "start", &r);
    }
    nas_adb_result_deinit(&r);
    return status;
}

nas_status nas__phone_start(nas_ctx *ctx, const nas_adb *adb, nas_phone *phone, bool *taken) {
    uint8_t raw[8], key[NAS_AGENT_KEY_BYTES];
    char hex[17], name[32], command[160];
    nas_status status = nas_random_bytes(ctx, raw, sizeof raw);
    if (status == NAS_OK) status = nas_random_bytes(ctx, key, sizeof key);
    if (status != NAS_OK) return status;
    nas_hex(raw, sizeof raw, hex);
    (void)snprintf(name, sizeof name, "key-%s", hex); /* two who start at once do not mix keys */
    status = put_key(ctx, adb, phone->serial, name, key);
    if (status == NAS_OK) status = run_start(ctx, adb, phone, name, taken);
    const bool ours = status == NAS_OK && !*taken;
    (void)snprintf(command, sizeof command, ours ? IN_DIR "mv -f %s agent.key" : IN_DIR "rm -f %s",
                   name);
    if (ours) {
        status = must(ctx, adb, phone->serial, "key", command, NULL);
        memcpy(phone->key, key, sizeof key);
    } else if (status != NAS_ERR_NET && status != NAS_ERR_CANCELLED) {
        nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of the failure */
        (void)must(quiet, adb, phone->serial, "key", command, NULL);
        nas_ctx_free(quiet);
    }
    return status;
}

nas_status nas__phone_key(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                          uint8_t key[NAS_AGENT_KEY_BYTES]) {
    nas_buf text = {0};
    nas_status status =
        nas_adb_pull(ctx, adb, serial, NAS_PHONE_DIR "/agent.key", KEY_FILE_MAX, &text);
    if (status == NAS_OK) {
        while (text.len > 0 && text.data[text.len - 1] == '\n')
            text.data[--text.len] = '\0';
        if (text.len != 2 * NAS_AGENT_KEY_BYTES || !nas_unhex(text.data, NAS_AGENT_KEY_BYTES, key))
            status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: agent.key holds no key", serial);
    }
    nas_buf_deinit(&text);
    return status;
}

/* ---- ending ----------------------------------------------------------------------------------------------------------------- */

/* Kills the process that the state file names, when it is an agent. */
static const char kill_command[] =
    IN_DIR "p=$(sed -n 's/.* pid //p' agent.state); case \"$(tr '\\0' ' ' < /proc/$p/cmdline)\" in "
           "*nas-agent*serve*) kill $p;; *) false;; esac";

/* Does anybody accept connections there? A wrong key is an answer as well. */
static nas_status somebody(nas_ctx *ctx, const nas_adb *adb, const char *serial, bool *out) {
    static const uint8_t any_key[NAS_AGENT_KEY_BYTES] = {0};
    int http = 0;
    nas_buf body = {0};
    const nas_status status =
        nas__phone_ask(ctx, adb, serial, any_key, "GET", "/v1/info", &http, &body);
    nas_buf_deinit(&body);
    *out = status != NAS_ERR_NOTFOUND;
    return status == NAS_ERR_NET || status == NAS_ERR_CANCELLED ? status : NAS_OK;
}

nas_status nas__phone_end(nas_ctx *ctx, const nas_adb *adb, const char *serial,
                          const uint8_t *key) {
    int http = 0;
    nas_buf body = {0};
    nas_status status = NAS_ERR_NOTFOUND;
    if (key != NULL)
        status = nas__phone_ask(ctx, adb, serial, key, "POST", "/v1/stop", &http, &body);
    nas_buf_deinit(&body);
    if (status != NAS_OK) {
        nas_adb_result r = {0};
        status = nas_adb_shell(ctx, adb, serial, kill_command, NULL, 0, OUTPUT_MAX, &r);
        if (status != NAS_OK) return status;
        nas_adb_result_deinit(&r); /* what listens afterwards tells whether it worked */
    }
    const int64_t end = nas_now_ns() + (int64_t)END_MS * 1000000;
    for (bool there = true;;) {
        const struct timespec pause = {0, (long)END_PAUSE_MS * 1000000};
        status = somebody(ctx, adb, serial, &there);
        if (status != NAS_OK || !there) break;
        if (nas_now_ns() > end)
            return nas__adb_problem_fail(ctx, NAS__ADB_OTHER_KEY, serial,
                                         "it does not end; another user's (adb root?)");
        (void)nanosleep(&pause, NULL);
    }
    if (status == NAS_OK)
        status = must(ctx, adb, serial, "rm", IN_DIR "rm -f agent.key agent.state key-*", NULL);
    return status;
}
