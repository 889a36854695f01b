/* nas_latency.c - `nas-latency COMMAND --db FILE ...`: measured latencies and energies in, models of devices out.
 *
 * Arguments into one struct; a command is one function of latency_commands.h. Results on stdout, everything else on stderr. */
#include "tools/latency_commands.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

static const char help_text[] =
    "usage: nas-latency COMMAND --db FILE [options] [FILE ...]\n"
    "\n"
    "Latency (or energy) of a device, learned from measurements.\n"
    "\n"
    "commands\n"
    "  import    measurements from files; a file with any mistake is refused as a whole\n"
    "            CSV (also .gz):  --space, --arch-col, --value-col, --unit\n"
    "            --format benchmark_model | google-benchmark: logs; --arch or --onnx say which "
    "network it was\n"
    "  fit       a model of a device from its rows; prints what it is worth on rows it has not "
    "seen. Of a database\n"
    "            that nas-search left, the networks it timed on the device are the rows, and with "
    "--space kernel\n"
    "            the layers of nas-search --profile\n"
    "  transfer  a model of a new device from a few rows and other devices (--from, --to, "
    "--samples)\n"
    "  predict   value and interval of --arch TEXT, --onnx FILE or --recipe FILE, and its layers\n"
    "  collect   time layers (or, with --space, networks) on a device here, where the model knows\n"
    "            least, until --error is reached\n"
    "  eval      the stored model's quality, or on a CSV file of architectures it has not seen\n"
    "  explain   what the model looks at (JSON)\n"
    "  list      devices, rows, models\n"
    "  export    the rows of a device (-f csv, json), or --model latest: the model as JSON\n"
    "\n"
    "options\n"
    "  --db FILE             the database; import and collect create it\n"
    "  --device NAME         which device (--to is the same)\n"
    "  --space NAME          what an architecture is: nb201, nb201:HxWxC, fbnet, fbnet:32x32, ofa, "
    "ofa-w120, sr, sr720p,\n"
    "                        kernel (one layer), network (any, by its ONNX file)\n"
    "  --arch-col NAME       column of the architecture; several with commas: "
    "ks,expand,depth,resolution\n"
    "  --value-col NAME      column of the value\n"
    "  --unit UNIT           s, ms, us, ns; J, mJ, uJ are energies\n"
    "  --replace             new values of architectures that are there already\n"
    "  --energy              the device's energies instead of its latencies\n"
    "  --train N, --test rest|N   fit: rows to learn from and to judge on. Without --train four "
    "fifths\n"
    "                        are judged and the model is then made of all rows\n"
    "  --model NAME          auto (default) or a kind of model\n"
    "  --from A,B,C          transfer: the known devices\n"
    "  --samples N           transfer: rows of the new device (default 10)\n"
    "  --source-train N      transfer: rows of each known device (default 900); the rest is the "
    "test\n"
    "  --pick active|random  transfer: which architectures are the samples (default active)\n"
    "  --kernels LIST        collect: layers of sr, conv, dwconv, pointwise (default all)\n"
    "  --time TIME           collect: at most 60s, 10m, 1h (default 10m)\n"
    "  --error E             (or --until-error) collect: stop when the median error of new layers "
    "is below (default "
    "0.05)\n"
    "  --threads N           collect: of the measured program (default 1)\n"
    "  --seed N              of every random choice (default 1)\n"
    "  -f FORMAT             table (default), json, csv, value\n"
    "  -h, --help            this text\n"
    "      --version         version\n"
    "\n"
    "exit codes: 0 done, 1 failed, 2 wrong usage or file, 4 device unavailable, 130 interrupted "
    "(collect goes on\n"
    "where it was)\n"
    "\n"
    "examples\n"
    "  nas-latency import --db lat.db --space nb201 --device pi5 --arch-col ops --value-col "
    "pi5_lat_ms --unit ms t.csv.gz\n"
    "  nas-latency fit --db lat.db --device pi5 --train 900 -f json\n"
    "  nas-latency predict --db lat.db --device pi5 --arch 421211\n"
    "  nas-latency transfer --db lat.db --from pi4,pixel3,a50 --to pi5 --samples 10\n"
    "  nas-latency import --db lat.db --format benchmark_model --device pixel --onnx net.onnx "
    "run.log\n"
    "  nas-latency collect --db lat.db --device local --kernels conv,dwconv --time 10m\n"
    "  nas-latency collect --db lat.db --device local --space sr720p --threads 2 --time 10m\n"
    "  nas-latency fit --db runs/sr720p/study.db --device here\n"
    "  nas-latency predict --db runs/sr720p/study.db --device here --recipe "
    "runs/sr720p/best/recipe.json\n";

static volatile sig_atomic_t interrupted;

/* The first signal asks for a clean stop; a second one ends the program the default way. */
static void on_signal(int number) {
    interrupted = 1;
    (void)signal(number, SIG_DFL);
}

static const struct command {
    const char *name;
    nas_status (*run)(nas_ctx *ctx, nas_db *db, const nas_latency_args *args);
    bool writes, needs_device;
} commands[] = {
    {"import", nas_latency_import, true, true},     {"fit", nas_latency_fit, true, true},
    {"transfer", nas_latency_transfer, true, true}, {"predict", nas_latency_predict, false, true},
    {"collect", nas_latency_collect, true, true},   {"eval", nas_latency_eval, false, true},
    {"explain", nas_latency_explain, false, true},  {"list", nas_latency_list, false, false},
    {"export", nas_latency_export, false, true},
};

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    }
    return NULL;
}

/* ---- arguments ------------------------------------------------------------------------------------------------------ */

enum {
    OPT_DB = 256,
    OPT_DEVICE,
    OPT_SPACE,
    OPT_ARCH_COL,
    OPT_VALUE_COL,
    OPT_UNIT,
    OPT_FORMAT,
    OPT_REPLACE,
    OPT_ENERGY,
    OPT_TRAIN,
    OPT_TEST,
    OPT_MODEL,
    OPT_FROM,
    OPT_SAMPLES,
    OPT_SOURCE_TRAIN,
    OPT_PICK,
    OPT_KERNELS,
    OPT_TIME,
    OPT_ERROR,
    OPT_THREADS,
    OPT_SEED,
    OPT_ARCH,
    OPT_ONNX,
    OPT_RECIPE,
    OPT_VERSION
};

typedef struct command_line {
    nas_latency_args args;
    bool help, version;
} command_line;

/* "90", "90s", "5m", "1h" -> seconds. */
static nas_status parse_time(nas_ctx *ctx, const char *text, double *out) {
    nas_buf number = {0};
    const size_t len = strlen(text);
    const char last = len == 0 ? '\0' : text[len - 1];
    const double factor = last == 'm' ? 60 : last == 'h' ? 3600 : 1;
    nas_buf_append(&number, text, len - (last == 's' || last == 'm' || last == 'h'));
    nas_status status = nas_buf_status(ctx, &number);
    if (status == NAS_OK)
        status =
            nas_parse_double(ctx, "--time", number.data == NULL ? "" : number.data, 1e-3, 1e6, out);
    nas_buf_deinit(&number);
    if (status == NAS_OK) *out *= factor;
    return status;
}

static nas_status parse_seed(nas_ctx *ctx, uint64_t *out) {
    int64_t value = 0;
    const nas_status status = nas_parse_i64(ctx, "--seed", optarg, 0, INT64_MAX, &value);
    if (status == NAS_OK) *out = (uint64_t)value;
    return status;
}

static nas_status parse_pick(nas_ctx *ctx, nas_pick *out) {
    if (strcmp(optarg, "active") != 0 && strcmp(optarg, "random") != 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "--pick '%s': use active or random", optarg);
    *out = optarg[0] == 'a' ? NAS_PICK_ACTIVE : NAS_PICK_RANDOM;
    return NAS_OK;
}

static nas_status parse_option(nas_ctx *ctx, int option, command_line *cl) {
    enum { ROWS_MAX = 100000000 };
    nas_latency_args *a = &cl->args;
    switch (option) {
    case OPT_DB: a->db = optarg; return NAS_OK;
    case OPT_DEVICE: a->device = optarg; return NAS_OK;
    case OPT_SPACE: a->space = optarg; return NAS_OK;
    case OPT_ARCH_COL: a->arch_columns = optarg; return NAS_OK;
    case OPT_VALUE_COL: a->value_column = optarg; return NAS_OK;
    case OPT_UNIT: return nas_unit_parse(ctx, optarg, &a->unit);
    case OPT_FORMAT: a->format = optarg; return NAS_OK;
    case OPT_REPLACE: a->replace = true; return NAS_OK;
    case OPT_ENERGY: a->quantity = NAS_DB_ENERGY; return NAS_OK;
    case OPT_TRAIN: return nas_parse_i64(ctx, "--train", optarg, 1, ROWS_MAX, &a->train);
    case OPT_TEST:
        a->test = -1;
        if (strcmp(optarg, "rest") == 0) return NAS_OK;
        return nas_parse_i64(ctx, "--test", optarg, 2, ROWS_MAX, &a->test);
    case OPT_MODEL: a->model = optarg; return NAS_OK;
    case OPT_FROM: a->from = optarg; return NAS_OK;
    case OPT_SAMPLES: return nas_parse_i64(ctx, "--samples", optarg, 1, ROWS_MAX, &a->samples);
    case OPT_SOURCE_TRAIN:
        return nas_parse_i64(ctx, "--source-train", optarg, 1, ROWS_MAX, &a->source_train);
    case OPT_PICK: return parse_pick(ctx, &a->pick);
    case OPT_KERNELS: a->kernels = optarg; return NAS_OK;
    case OPT_TIME: return parse_time(ctx, optarg, &a->time_s);
    case OPT_ERROR: return nas_parse_double(ctx, "--error", optarg, 1e-4, 10, &a->target_error);
    case OPT_THREADS: return nas_parse_i64(ctx, "--threads", optarg, 1, 64, &a->threads);
    case OPT_SEED: return parse_seed(ctx, &a->seed);
    case OPT_ARCH: a->arch = optarg; return NAS_OK;
    case OPT_ONNX: a->onnx = optarg; return NAS_OK;
    case OPT_RECIPE: a->recipe = optarg; return NAS_OK;
    case 'f': return nas_rows_format_parse(ctx, optarg, &a->rows);
    case 'h': cl->help = true; return NAS_OK;
    case OPT_VERSION: cl->version = true; return NAS_OK;
    default: return nas_fail(ctx, NAS_ERR_INVALID, "bad option"); /* getopt has named it */
    }
}

static nas_status check_args(nas_ctx *ctx, const nas_latency_args *a) {
    const struct command *command = find_command(a->command);
    if (command == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "command '%s' is unknown: use import, fit, transfer, predict, collect, "
                        "eval, explain, list or export",
                        a->command);
    if (a->db == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "which database? Give --db FILE");
    if (command->needs_device && (a->device == NULL || a->device[0] == '\0'))
        return nas_fail(ctx, NAS_ERR_INVALID, "which device? Give --device NAME");
    if (strcmp(a->command, "transfer") == 0 && a->from == NULL)
        return nas_fail(ctx, NAS_ERR_INVALID, "from which devices? Give --from A,B,C");
    const bool takes_files = strcmp(a->command, "import") == 0 || strcmp(a->command, "eval") == 0;
    if (!takes_files && a->n_files > 0)
        return nas_fail(ctx, NAS_ERR_INVALID, "%s takes no file: '%s'", a->command, a->files[0]);
    return NAS_OK;
}

static nas_status parse_args(nas_ctx *ctx, int argc, char **argv, command_line *cl) {
    static const struct option options[] = {
        {"db", required_argument, NULL, OPT_DB},
        {"device", required_argument, NULL, OPT_DEVICE},
        {"to", required_argument, NULL, OPT_DEVICE},
        {"space", required_argument, NULL, OPT_SPACE},
        {"arch-col", required_argument, NULL, OPT_ARCH_COL},
        {"value-col", required_argument, NULL, OPT_VALUE_COL},
        {"unit", required_argument, NULL, OPT_UNIT},
        {"format", required_argument, NULL, OPT_FORMAT},
        {"replace", no_argument, NULL, OPT_REPLACE},
        {"energy", no_argument, NULL, OPT_ENERGY},
        {"train", required_argument, NULL, OPT_TRAIN},
        {"test", required_argument, NULL, OPT_TEST},
        {"model", required_argument, NULL, OPT_MODEL},
        {"from", required_argument, NULL, OPT_FROM},
        {"samples", required_argument, NULL, OPT_SAMPLES},
        {"source-train", required_argument, NULL, OPT_SOURCE_TRAIN},
        {"pick", required_argument, NULL, OPT_PICK},
        {"kernels", required_argument, NULL, OPT_KERNELS},
        {"time", required_argument, NULL, OPT_TIME},
        {"error", required_argument, NULL, OPT_ERROR},
        {"until-error", required_argument, NULL, OPT_ERROR},
        {"threads", required_argument, NULL, OPT_THREADS},
        {"seed", required_argument, NULL, OPT_SEED},
        {"arch", required_argument, NULL, OPT_ARCH},
        {"onnx", required_argument, NULL, OPT_ONNX},
        {"recipe", required_argument, NULL, OPT_RECIPE},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0}};
    int option = 0;
    while ((option = getopt_long(argc, argv, "f:h", options, NULL)) != -1) {
        const nas_status status = parse_option(ctx, option, cl);
        if (status != NAS_OK) return status;
    }
    if (cl->help || cl->version) return NAS_OK;
    if (optind >= argc) return nas_fail(ctx, NAS_ERR_INVALID, "which command?");
    cl->args.command = argv[optind++];
    cl->args.files = (const char *const *)(argv + optind);
    cl->args.n_files = (size_t)(argc - optind);
    return check_args(ctx, &cl->args);
}

static int run(nas_ctx *ctx, const nas_latency_args *args) {
    const struct command *command = find_command(args->command);
    nas_db *db = NULL;
    nas_status status = command->writes ? nas_db_open(ctx, args->db, &db)
                                        : nas_db_open_readonly(ctx, args->db, &db);
    if (status == NAS_OK) status = command->run(ctx, db, args);
    if (status != NAS_OK) fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    const nas_status closed = nas_db_close(ctx, db);
    if (status == NAS_OK && closed != NAS_OK) {
        fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
        status = closed;
    }
    /* what a command complains of is what it was given: a file, a name, a number */
    if (status == NAS_ERR_INVALID || status == NAS_ERR_PARSE) return NAS_EXIT_USAGE;
    return status == NAS_OK ? NAS_EXIT_OK : nas_exit_code(status);
}

static int latency(nas_ctx *ctx, int argc, char **argv) {
    command_line cl = {.args = {.format = "csv",
                                .test = -1,
                                .samples = 10,
                                .source_train = 900,
                                .threads = 1,
                                .seed = 1,
                                .time_s = 600,
                                .target_error = 0.05,
                                .pick = NAS_PICK_ACTIVE}};
    if (parse_args(ctx, argc, argv, &cl) != NAS_OK) {
        fprintf(stderr, "error: %s (nas-latency -h)\n", nas_ctx_message(ctx));
        return NAS_EXIT_USAGE;
    }
    if (cl.help || cl.version) {
        const int wrote = cl.help ? fputs(help_text, stdout) : puts("nas-latency " NAS_VERSION);
        return wrote == EOF || fflush(stdout) == EOF ? NAS_EXIT_FAILED : NAS_EXIT_OK;
    }
    return run(ctx, &cl.args);
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) {
        fputs("error: out of memory\n", stderr);
        return NAS_EXIT_FAILED;
    }
    (void)signal(SIGINT, on_signal);
    (void)signal(SIGTERM, on_signal);
    nas_ctx_set_cancel(ctx, &interrupted);
    const int code = latency(ctx, argc, argv);
    nas_ctx_free(ctx);
    return code;
}
