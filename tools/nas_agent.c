/* nas_agent.c - the program nas-agent on the controller: the agent itself (device-agent/), and deploy, status, stop, logs
 * for the agent on a phone (adb/). The static agents for devices hold the first part alone. */
#include "adb/phone.h"
#include "device-agent/agent_main.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char phone_help[] =
    "\n"
    "phones (through adb; SERIAL as in 'adb devices', adb: alone means the only one attached):\n"
    "  nas-agent deploy adb:SERIAL [--agents DIR] [--key-file FILE]\n"
    "      sends the agent for the phone's processor (DIR: nas-agent-<arch>, made by 'make "
    "agents'), "
    "starts it, forwards\n"
    "      a port to it and writes its key to FILE (nas-agent-SERIAL.key). Doing it again changes "
    "nothing.\n"
    "  nas-agent status adb:SERIAL | adb:*\n"
    "      the phone, its agent and who uses it; adb:* lists every phone\n"
    "  nas-agent stop adb:SERIAL [--force]\n"
    "      ends the agent, removes its key and forwards; --force also when a controller uses it\n"
    "  nas-agent logs adb:SERIAL\n"
    "      prints the agent's log, also after its end\n"
    "\n"
    "examples:\n"
    "  nas-agent deploy adb:R5CR1234      then in a config: connect = \"http://127.0.0.1:PORT\", "
    "key_file = \"...\"\n"
    "  nas-agent status 'adb:*'\n"
    "a study does all this by itself with connect = \"adb:R5CR1234\"; docs/devices.md tells more\n";

static int report(nas_ctx *ctx, nas_status status) {
    if (status == NAS_OK) return NAS_EXIT_OK;
    fprintf(stderr, "nas-agent: %s\n", nas_ctx_message(ctx));
    return status == NAS_ERR_INVALID ? NAS_EXIT_USAGE : nas_exit_code(status);
}

static int usage(const char *what) {
    fprintf(stderr, "nas-agent: %s; see nas-agent --help\n", what);
    return NAS_EXIT_USAGE;
}

static int flushed(void) {
    if (fflush(stdout) == 0) return NAS_EXIT_OK;
    fprintf(stderr, "nas-agent: stdout: %s\n", strerror(errno));
    return NAS_EXIT_FAILED;
}

/* ---- options --------------------------------------------------------------------------------------------------------- */

typedef struct phone_args {
    const char *serial, *agents_dir, *key_file;
    bool force;
} phone_args;

/* NULL or what is wrong. */
static const char *parse(int argc, char **argv, phone_args *out) {
    const bool deploy = strcmp(argv[1], "deploy") == 0, stop = strcmp(argv[1], "stop") == 0;
    if (argc < 3 || strncmp(argv[2], "adb:", 4) != 0) return "which phone? adb:SERIAL";
    *out = (phone_args){.serial = argv[2] + 4};
    if (strlen(out->serial) >= NAS_ADB_SERIAL_BYTES) return "the serial is too long";
    for (int i = 3; i < argc; i++) {
        if (stop && strcmp(argv[i], "--force") == 0) {
            out->force = true;
            continue;
        }
        const bool agents = strcmp(argv[i], "--agents") == 0,
                   key = strcmp(argv[i], "--key-file") == 0;
        if (!deploy || (!agents && !key)) return "unknown option";
        if (i + 1 == argc) return "an option has no value";
        *(agents ? &out->agents_dir : &out->key_file) = argv[++i];
    }
    return NULL;
}

/* ---- commands -------------------------------------------------------------------------------------------------------- */

static nas_status write_key(nas_ctx *ctx, const char *path, const nas_phone *phone) {
    char hex[2 * NAS_AGENT_KEY_BYTES + 2];
    nas_hex(phone->key, sizeof phone->key, hex);
    (void)snprintf(hex + strlen(hex), 2, "\n");
    return nas_file_write(ctx, path, hex, strlen(hex), 0600);
}

static int deploy(nas_ctx *ctx, const phone_args *args) {
    const nas_phone_options options = {.serial = args->serial, .agents_dir = args->agents_dir};
    nas_phone phone = {0};
    char path[128];
    nas_status status = nas_phone_deploy(ctx, &options, &phone);
    if (status != NAS_OK) return report(ctx, status);
    (void)snprintf(path, sizeof path, "nas-agent-%s.key", phone.serial);
    for (char *p = path; *p != '\0'; p++) {
        if (*p == '/' || *p == ':') *p = '_'; /* serials of phones over Wi-Fi */
    }
    const char *key_file = args->key_file != NULL ? args->key_file : path;
    status = write_key(ctx, key_file, &phone);
    if (status != NAS_OK) return report(ctx, status);
    printf("phone    %s (%s, %s)\n", phone.serial, phone.model, phone.arch);
    printf("agent    %s%s\n", phone.sent ? "sent, " : "",
           phone.started ? "started" : "runs already");
    printf("connect  http://127.0.0.1:%d\n", phone.port);
    printf("key_file %s\n", key_file);
    return flushed();
}

static void print_status(const nas_phone_status *s) {
    printf("phone    %s (%s)\n", s->device.serial, s->device.model);
    switch (s->agent) {
    case NAS_PHONE_NO_AGENT: printf("agent    does not run\n"); break;
    case NAS_PHONE_AGENT_RUNS: printf("agent    runs, version %s\n", s->version); break;
    case NAS_PHONE_AGENT_OTHER_KEY:
        printf("agent    answers with another key: nas-agent stop adb:%s\n", s->device.serial);
        break;
    }
    if (s->agent == NAS_PHONE_AGENT_RUNS && s->holder[0] != '\0') {
        printf("used by  %s, for another %" PRId64 " s unless renewed\n", s->holder,
               (s->lease_left_ms + 999) / 1000);
    } else if (s->agent == NAS_PHONE_AGENT_RUNS) {
        printf("used by  nobody\n");
    }
    if (s->port > 0) printf("connect  http://127.0.0.1:%d\n", s->port);
}

static int status_of_all(nas_ctx *ctx) {
    nas_adb adb;
    nas_adb_device list[NAS_ADB_DEVICES_MAX];
    size_t n = 0;
    int code = NAS_EXIT_OK;
    nas_status status = nas_adb_default(ctx, &adb);
    if (status == NAS_OK) status = nas_adb_start(ctx, &adb);
    if (status == NAS_OK) status = nas_adb_devices(ctx, &adb, list, NAS_ADB_DEVICES_MAX, &n);
    if (status != NAS_OK) return report(ctx, status);
    if (n == 0) printf("no phone is attached ('adb devices -l' lists none)\n");
    for (size_t i = 0; i < n; i++) {
        nas_phone_status s;
        status = nas_phone_status_of(ctx, list[i].serial, &s);
        if (status == NAS_OK) {
            print_status(&s);
        } else {
            code = report(ctx, status); /* the others may be well */
        }
    }
    return code != NAS_EXIT_OK ? code : flushed();
}

static int status_command(nas_ctx *ctx, const phone_args *args) {
    nas_phone_status s;
    if (strcmp(args->serial, "*") == 0) return status_of_all(ctx);
    const nas_status status = nas_phone_status_of(ctx, args->serial, &s);
    if (status != NAS_OK) return report(ctx, status);
    print_status(&s);
    return flushed();
}

static int stop(nas_ctx *ctx, const phone_args *args) {
    bool was_running = false;
    const nas_status status = nas_phone_stop(ctx, args->serial, args->force, &was_running);
    if (status != NAS_OK) return report(ctx, status);
    printf("%s\n", was_running ? "stopped" : "no agent was running");
    return flushed();
}

static int logs(nas_ctx *ctx, const phone_args *args) {
    nas_buf text = {0};
    const nas_status status = nas_phone_log(ctx, args->serial, &text);
    if (status == NAS_OK && text.len > 0)
        (void)fwrite(text.data, 1, text.len, stdout); /* flushed() reports */
    nas_buf_deinit(&text);
    return status == NAS_OK ? flushed() : report(ctx, status);
}

/* ---- main -------------------------------------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    int (*run)(nas_ctx *ctx, const phone_args *args);
} commands[] = {{"deploy", deploy}, {"status", status_command}, {"stop", stop}, {"logs", logs}};

int main(int argc, char **argv) {
    for (size_t i = 0; argc > 1 && i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(argv[1], commands[i].name) != 0) continue;
        phone_args args;
        const char *wrong = parse(argc, argv, &args);
        if (wrong != NULL) return usage(wrong);
        if (strcmp(args.serial, "*") == 0 && commands[i].run != status_command)
            return usage("adb:* is for status alone; name one phone");
        nas_ctx *ctx = nas_ctx_new();
        if (ctx == NULL) return NAS_EXIT_FAILED;
        const int code = commands[i].run(ctx, &args);
        nas_ctx_free(ctx);
        return code;
    }
    const int code = nas_agent_main(argc, argv);
    const bool asked = argc > 1 && (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0);
    if (!asked || code != NAS_EXIT_OK) return code;
    return fputs(phone_help, stdout) >= 0 ? flushed() : NAS_EXIT_FAILED;
}
