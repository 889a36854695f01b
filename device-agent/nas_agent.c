/* nas_agent.c - the program nas-agent: serve, run, doctor, keygen. Runs on the device that is measured; needs libc
 * alone. The wire is specified in protocol.h, the parts are listed in agent_internal.h. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "device-agent/agent_internal.h"
#include "device-agent/agent_main.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
    "nas-agent " NAS_VERSION " - times compiled networks on this machine\n"
    "\n"
    "  nas-agent serve --key-file FILE [--listen 127.0.0.1:7917 | @NAME | /PATH] [--cache-dir "
    "DIR]\n"
    "                  [--cache-mb 512] [--parent-pid PID] [--abandon-ms 20000] [--allow-remote]\n"
    "                  [--detach] [--log-file FILE] [--state-file FILE] [--sys-root DIR]\n"
    "      answers signed requests of a controller until it is stopped. @NAME is an abstract unix "
    "socket, open to this\n"
    "      user, root and Android's shell. --detach: returns when it listens and stays without a "
    "terminal.\n"
    "  nas-agent run ARTIFACT [--deadline-ms N] [--threads N] [--cpus big|little|LIST] "
    "[--min-batches N] "
    "[--min-time-ms N]\n"
    "                [--max-time-ms N] [--batch-ms N] [--warmup-runs N] [--warmup-ms N] "
    "[--warmup-cap-ms N]\n"
    "                [--sustained-s N] [--profile 1] [--frequency max|MHZ,..] [--gate-ms 60000] "
    "[--max-celsius "
    "C] "
    "[--idle-ms N]\n"
    "      times one artifact here, in the same limited child, and prints the result as JSON. It "
    "starts when the CPU is\n"
    "      within 5 C of its idle temperature (--gate-ms: how long to wait for that, 0 = not at "
    "all) and below\n"
    "      --max-celsius. --frequency pins the clocks where that is permitted and puts them back. "
    "--sustained-s runs\n"
    "      back to back and counts the last third. --profile 1 adds the time of each layer. "
    "--idle-ms measures the "
    "power at\n"
    "      rest first.\n"
    "  nas-agent doctor [--sys-root DIR]\n"
    "      prints what this machine tells about CPU, clocks, temperatures and limits, as JSON; "
    "--sys-root: with\n"
    "      another machine's /proc and /sys below DIR\n"
    "  nas-agent keygen FILE\n"
    "      writes a fresh key, mode 0600\n"
    "  nas-agent -h | --help | --version\n"
    "\n"
    "examples:\n"
    "  nas-agent doctor\n"
    "  nas-agent run runs/sr720p/best/model --threads 2 --cpus 0,1\n"
    "  nas-agent keygen agent.key && nas-agent serve --key-file agent.key\n"
    "\n"
    "serve listens on loopback only: reach it through an ssh or adb forward. A run is a child with "
    "its own folder,\n"
    "resource limits and a deadline; `doctor` lists under \"limits\" which protections this kernel "
    "gives.\n"
    "exit codes: 0 done, 1 failed, 2 usage, 4 address or device unavailable\n";

static int report(nas_ctx *ctx, nas_status status) {
    if (status != NAS_OK) fprintf(stderr, "nas-agent: %s\n", nas_ctx_message(ctx));
    return status == NAS_ERR_INVALID ? NAS_EXIT_USAGE : nas_exit_code(status);
}

static int usage(const char *what) {
    fprintf(stderr, "nas-agent: %s; see nas-agent --help\n", what);
    return NAS_EXIT_USAGE;
}

static int print_json(nas_ctx *ctx, nas_buf *text) {
    const nas_status status = nas_buf_status(ctx, text);
    if (status != NAS_OK) return report(ctx, status);
    const bool ok = printf("%s\n", text->data) > 0 && fflush(stdout) == 0;
    if (!ok) fprintf(stderr, "nas-agent: stdout: %s\n", strerror(errno));
    return ok ? NAS_EXIT_OK : NAS_EXIT_FAILED;
}

static int run_doctor(nas_ctx *ctx, int argc, char **argv) {
    nas__limits limits = {0};
    if (argc != 2 && (argc != 4 || strcmp(argv[2], "--sys-root") != 0))
        return usage("doctor takes --sys-root DIR and nothing else");
    if (argc == 4 && nas__probe_set_root(ctx, argv[3]) != NAS_OK)
        return report(ctx, nas_ctx_status(ctx));
    const nas_status status = nas__sandbox_probe(ctx, &limits);
    if (status != NAS_OK) fprintf(stderr, "nas-agent: %s\n", nas_ctx_message(ctx));
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas__info_json(&j, &limits, NULL);
    const int code = print_json(ctx, &text);
    nas_buf_deinit(&text);
    return status == NAS_OK ? code : NAS_EXIT_FAILED;
}

/* ---- run ---------------------------------------------------------------------------------------------------------- */

static nas_status wait_for_job(nas_ctx *ctx, nas__job *job) {
    while (!job->reaped) {
        /* the pipes close when the program ends; the pause bounds the wait for one that closed them early */
        struct pollfd fds[2] = {{.fd = job->out_fd, .events = POLLIN},
                                {.fd = job->err_fd, .events = POLLIN}};
        const int64_t left_ms = (nas__job_due_ns(job) - nas_now_ns()) / 1000000;
        const bool open = job->out_fd >= 0 || job->err_fd >= 0;
        (void)poll(fds, 2, !open || left_ms < 20 ? 5 : left_ms > 1000 ? 1000 : (int)left_ms);
        nas__job_step(ctx, job);
    }
    return NAS_OK;
}

static nas_status parse_run(nas_ctx *ctx, int argc, char **argv, nas__run_options *o) {
    for (int i = 3; i < argc; i += 2) {
        if (strncmp(argv[i], "--", 2) != 0 || i + 1 == argc) {
            return nas_fail(ctx, NAS_ERR_INVALID, "%s: unknown option or no value", argv[i]);
        }
        if (strcmp(argv[i], "--sys-root") == 0) {
            const nas_status status = nas__probe_set_root(ctx, argv[i + 1]);
            if (status != NAS_OK) return status;
            continue;
        }
        const char *text = strcmp(argv[i], "--deadline-ms") == 0 ? "deadline_ms" : argv[i] + 2;
        const nas__slice name = {text, strlen(text)}, value = {argv[i + 1], strlen(argv[i + 1])};
        const char *error = nas__run_option_add(o, name, value);
        if (error != NULL)
            return nas_fail(ctx, NAS_ERR_INVALID, "%s %s: %s", argv[i], argv[i + 1], error);
    }
    const char *error = nas__run_options_check(o);
    return error == NULL ? NAS_OK : nas_fail(ctx, NAS_ERR_INVALID, "run: %s", error);
}

static int run_artifact(nas_ctx *ctx, int argc, char **argv) {
    if (argc < 3 || argv[2][0] == '-') return usage("run: which artifact?");
    nas__run_options o = nas__run_options_default();
    nas_status status = parse_run(ctx, argc, argv, &o);
    if (status != NAS_OK) return report(ctx, status);
    char resolved[PATH_MAX];
    const char *path = realpath(argv[2], resolved);
    const char *temporary = getenv("TMPDIR");
    char folder[512];
    (void)snprintf(folder, sizeof folder, "%s/nas-agent-XXXXXX",
                   temporary != NULL ? temporary : "/tmp");
    if (path == NULL || mkdtemp(folder) == NULL) {
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s: %s", path == NULL ? argv[2] : folder,
                          strerror(errno));
        return report(ctx, status);
    }
    nas__job job = {.out_fd = -1, .err_fd = -1};
    nas_buf text = {0};
    int code = NAS_EXIT_FAILED;
    status = nas__job_start(ctx, &job, 1, path, folder, &o);
    if (status == NAS_OK) status = wait_for_job(ctx, &job);
    if (status == NAS_OK) {
        nas_json j = nas_json_begin(&text);
        nas__job_json(&j, &job);
        code = print_json(ctx, &text);
        if (job.state != NAS__JOB_DONE) {
            fprintf(stderr, "nas-agent: %s\n", job.error);
            code = NAS_EXIT_FAILED;
        }
    }
    nas_buf_deinit(&text);
    nas__job_deinit(ctx, &job);
    (void)rmdir(folder); /* empty by now; a leftover is not worth an error */
    return status == NAS_OK ? code : report(ctx, status);
}

int nas_agent_main(int argc, char **argv) {
    if (argc < 2) return usage("which command?");
    if (strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "--help") == 0) {
        return fputs(help, stdout) >= 0 && fflush(stdout) == 0 ? NAS_EXIT_OK : NAS_EXIT_FAILED;
    }
    if (strcmp(argv[1], "--version") == 0) {
        return printf("nas-agent %s protocol %d\n", NAS_VERSION, (int)NAS_AGENT_PROTOCOL) > 0
                   ? NAS_EXIT_OK
                   : NAS_EXIT_FAILED;
    }
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    if (strcmp(argv[1], "serve") != 0) nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_WARN);
    int code = NAS_EXIT_USAGE;
    if (strcmp(argv[1], "serve") == 0) {
        const nas_status status = nas__serve_command(ctx, argc, argv, &code);
        if (status != NAS_OK) code = report(ctx, status);
    } else if (strcmp(argv[1], "run") == 0) {
        code = run_artifact(ctx, argc, argv);
    } else if (strcmp(argv[1], "doctor") == 0) {
        code = run_doctor(ctx, argc, argv);
    } else if (strcmp(argv[1], "keygen") == 0) {
        uint8_t key[NAS_AGENT_KEY_BYTES];
        code =
            argc == 3 ? report(ctx, nas_agent_key_create(ctx, argv[2], key)) : usage("keygen FILE");
    } else {
        code = usage("unknown command");
    }
    nas_ctx_free(ctx);
    return code;
}

#ifndef NAS_AGENT_HOST /* on a device; the controller's program has its own main: tools/nas_agent.c */
int main(int argc, char **argv) {
    return nas_agent_main(argc, argv);
}
#endif
