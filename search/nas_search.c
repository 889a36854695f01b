/* nas_search.c - the main program: command line, config, signals, one study. */
#include "search/deliver_members.h"
#include "search/search.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "usage: nas-search --config FILE [options]\n"
    "\n"
    "Searches networks for a task, a device and a deadline: every candidate is compiled to native "
    "code, timed on the\n"
    "device and scored; ends with the Pareto front and the best network in <study.dir>/best. The "
    "same command again\n"
    "resumes an interrupted run.\n"
    "\n"
    "  --config FILE        the study (TOML); keys: configs/README.md\n"
    "  --set KEY=VALUE      override a key, e.g. --set study.dir=runs/a --set "
    "constraints.latency_p90_ms='\"<= 20\"'\n"
    "  --trials N           same as --set search.trials=N\n"
    "  --time 90s|5m|1h     time budget of the whole study; same as --set budget.time_s=SECONDS\n"
    "  --seed N             same as --set study.seed=N\n"
    "  --profile            also time each layer of the finished front alone; same as --set "
    "measure.profile=true\n"
    "  --deliver front|N,N  of a finished run, also write these networks of its front: "
    "<study.dir>/trial-N\n"
    "  --fresh              start over; an old run is moved aside, never deleted\n"
    "  --dry-run            validate, print the space, the plan and what each trial costs; write "
    "nothing\n"
    "  -f FORMAT            table (default), json, csv or value: how the front is printed on "
    "stdout\n"
    "  --agent PATH         the nas-agent program (default: beside this one)\n"
    "  -q, --quiet          no progress line\n"
    "  -h, --help           this text\n"
    "      --version        version\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 usage or config error, 3 finished but nothing feasible,\n"
    "4 device or agent unavailable, 130 interrupted and resumable.\n"
    "\n"
    "examples:\n"
    "  nas-search --config configs/sr720p.toml\n"
    "  nas-search --config configs/sr720p.toml --set data.train=photos/ --trials 100 --time 30m\n"
    "  nas-search --config configs/sr720p.toml --dry-run\n"
    "  nas-search --config configs/sr720p.toml --deliver 34,14\n";

static volatile sig_atomic_t interrupted;

/* The first signal asks for a clean stop; a second one ends the program the default way. */
static void on_signal(int number) {
    interrupted = 1;
    (void)signal(number, SIG_DFL);
}

enum { OVERRIDES_MAX = 64, OPTION_TEXT_MAX = 1024 };

typedef struct command_line {
    const char *config, *format, *agent, *deliver;
    const char *overrides[OVERRIDES_MAX];
    char texts[8][OPTION_TEXT_MAX]; /* overrides made from --trials, --time, --seed */
    size_t n_overrides, n_texts;
    bool fresh, dry_run, quiet, done;
} command_line;

static int usage_error(const char *text, const char *value) {
    fprintf(stderr, "error: %s%s%s (see nas-search --help)\n", text, value == NULL ? "" : ": ",
            value == NULL ? "" : value);
    return NAS_EXIT_USAGE;
}

static int add_override(command_line *cl, const char *text) {
    if (cl->n_overrides == OVERRIDES_MAX) return usage_error("more than 64 --set options", NULL);
    cl->overrides[cl->n_overrides++] = text;
    return NAS_EXIT_OK;
}

static int add_override_for(command_line *cl, const char *key, const char *value) {
    if (cl->n_texts == sizeof cl->texts / sizeof *cl->texts)
        return usage_error("option given too often", key);
    char *text = cl->texts[cl->n_texts++];
    (void)snprintf(text, OPTION_TEXT_MAX, "%s=%s", key, value);
    return add_override(cl, text);
}

/* "90", "90s", "5m", "1h" -> seconds. */
static int add_time(command_line *cl, const char *value) {
    char *end = NULL;
    const double number = strtod(value, &end);
    double factor = 0;
    if (strcmp(end, "") == 0 || strcmp(end, "s") == 0) factor = 1;
    if (strcmp(end, "m") == 0) factor = 60;
    if (strcmp(end, "h") == 0) factor = 3600;
    if (end == value || factor == 0 || !(number > 0))
        return usage_error("--time wants e.g. 90s, 5m or 1h, not", value);
    char seconds[64];
    (void)snprintf(seconds, sizeof seconds, "%.3f", number * factor);
    return add_override_for(cl, "budget.time_s", seconds);
}

enum {
    OPT_CONFIG = 256,
    OPT_SET,
    OPT_TRIALS,
    OPT_TIME,
    OPT_SEED,
    OPT_FRESH,
    OPT_DRY_RUN,
    OPT_AGENT,
    OPT_PROFILE,
    OPT_DELIVER,
    OPT_VERSION
};

static int parse_option(command_line *cl, int option) {
    switch (option) {
    case OPT_CONFIG: cl->config = optarg; return NAS_EXIT_OK;
    case OPT_SET:
        if (strchr(optarg, '=') == NULL) return usage_error("--set wants KEY=VALUE, not", optarg);
        return add_override(cl, optarg);
    case OPT_TRIALS: return add_override_for(cl, "search.trials", optarg);
    case OPT_TIME: return add_time(cl, optarg);
    case OPT_SEED: return add_override_for(cl, "study.seed", optarg);
    case OPT_PROFILE: return add_override(cl, "measure.profile=true");
    case OPT_DELIVER:
        if (!nas__deliver_syntax(optarg))
            return usage_error("--deliver wants front, or trials with commas between, not", optarg);
        cl->deliver = optarg;
        return NAS_EXIT_OK;
    case OPT_FRESH: cl->fresh = true; return NAS_EXIT_OK;
    case OPT_DRY_RUN: cl->dry_run = true; return NAS_EXIT_OK;
    case OPT_AGENT: cl->agent = optarg; return NAS_EXIT_OK;
    case OPT_VERSION:
        printf("nas-search %s\n", NAS_VERSION);
        cl->done = true;
        return NAS_EXIT_OK;
    case 'f': cl->format = optarg; return NAS_EXIT_OK;
    case 'q': cl->quiet = true; return NAS_EXIT_OK;
    case 'h':
        fputs(help_text, stdout);
        cl->done = true;
        return NAS_EXIT_OK;
    default: return usage_error("bad option", NULL); /* getopt has named it */
    }
}

static int parse_command_line(int argc, char **argv, command_line *cl) {
    static const struct option options[] = {{"config", required_argument, NULL, OPT_CONFIG},
                                            {"set", required_argument, NULL, OPT_SET},
                                            {"trials", required_argument, NULL, OPT_TRIALS},
                                            {"time", required_argument, NULL, OPT_TIME},
                                            {"seed", required_argument, NULL, OPT_SEED},
                                            {"fresh", no_argument, NULL, OPT_FRESH},
                                            {"deliver", required_argument, NULL, OPT_DELIVER},
                                            {"profile", no_argument, NULL, OPT_PROFILE},
                                            {"dry-run", no_argument, NULL, OPT_DRY_RUN},
                                            {"format", required_argument, NULL, 'f'},
                                            {"agent", required_argument, NULL, OPT_AGENT},
                                            {"quiet", no_argument, NULL, 'q'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, OPT_VERSION},
                                            {NULL, 0, NULL, 0}};
    int option = 0;
    while ((option = getopt_long(argc, argv, "f:qh", options, NULL)) != -1) {
        const int code = parse_option(cl, option);
        if (code != NAS_EXIT_OK || cl->done) return code;
    }
    if (optind < argc) return usage_error("unexpected argument", argv[optind]);
    if (cl->config == NULL) return usage_error("--config FILE is missing", NULL);
    if (cl->deliver != NULL && cl->dry_run)
        return usage_error("--deliver writes files, --dry-run none: one of them", NULL);
    static const char *const formats[] = {"table", "json", "csv", "value"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        if (strcmp(cl->format, formats[i]) == 0) return NAS_EXIT_OK;
    }
    return usage_error("-f wants table, json, csv or value, not", cl->format);
}

static int run(nas_ctx *ctx, const command_line *cl) {
    nas_config config;
    nas_buf toml = {0}, json = {0}, errors = {0};
    const nas_config_source source = {cl->config, cl->overrides, cl->n_overrides};
    nas_status status = nas_config_load(ctx, &source, &config, &toml, &json, &errors);
    int code = NAS_EXIT_OK;
    bool feasible = false;
    if (status != NAS_OK) {
        if (errors.len > 0) fputs(errors.data, stderr);
        fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
        code = NAS_EXIT_USAGE;
    } else {
        const nas_study_options options = {.config = &config,
                                           .toml = toml.data,
                                           .json = json.data,
                                           .config_path = cl->config,
                                           .agent_path = cl->agent,
                                           .format = cl->format,
                                           .deliver = cl->deliver,
                                           .fresh = cl->fresh,
                                           .quiet = cl->quiet};
        status =
            cl->dry_run ? nas_study_plan(ctx, &options) : nas_study_run(ctx, &options, &feasible);
        if (status != NAS_OK) {
            if (status != NAS_ERR_CANCELLED) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
            code = nas_exit_code(status);
        } else if (!cl->dry_run && !feasible) {
            code = NAS_EXIT_INFEASIBLE;
        }
    }
    nas_buf_deinit(&toml);
    nas_buf_deinit(&json);
    nas_buf_deinit(&errors);
    return code;
}

int main(int argc, char **argv) {
    command_line cl = {.format = "table"};
    const int code = parse_command_line(argc, argv, &cl);
    if (code != NAS_EXIT_OK || cl.done) return code;
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) {
        fputs("error: out of memory\n", stderr);
        return NAS_EXIT_FAILED;
    }
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    nas_ctx_set_cancel(ctx, &interrupted);
    const int result = run(ctx, &cl);
    nas_ctx_free(ctx);
    if (fflush(stdout) != 0) return NAS_EXIT_FAILED;
    return result;
}
