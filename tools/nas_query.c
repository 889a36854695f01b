/* nas_query.c - `nas-query DB ...`: every question about a study's results, read-only, also while the study runs.
 *
 * Arguments are parsed into one struct, a command is one report of db/db.h, its rows go through core/rows.h. Results on
 * stdout, everything else on stderr. */
#include "db/db.h"
#include "core/rows.h"

#include <string.h>

typedef struct query_args {
    const char *db;
    const char *command; /* "" = summary */
    const char *operand; /* N of trial and layers, SQL of sql; NULL = none */
    const char *study;   /* NULL = the only one */
    nas_rows_format format;
    bool help, version;
} query_args;

static const char help_text[] =
    "nas-query - questions about a study's database; reads only, also while the study runs\n"
    "\n"
    "usage: nas-query [options] DB [command]\n"
    "\n"
    "commands\n"
    "  (none)          summary: study, trials by state, best, size of the front, device, last "
    "events\n"
    "  front           trials not dominated in (psnr_y, latency_p50_ms), fastest first\n"
    "  final           the front with the figures after fine-tuning; '*' marks the best\n"
    "  baselines       the networks the front is compared with\n"
    "  trials          every trial, by number\n"
    "  best            the feasible trial of the highest quality; ties to the faster\n"
    "  trial N         everything about trial N\n"
    "  events          the study's diary\n"
    "  measurements    every measurement, drift references included\n"
    "  profile N       the convolutions of trial N, each timed alone (nas-search --profile)\n"
    "  passport N      of each measurement of trial N: where, when, which program, how hot, which "
    "clock, which limits\n"
    "  measurement ID  the same of one measurement (column measurement_id), and what its device "
    "said "
    "of itself\n"
    "  layers N        the layers of trial N's network\n"
    "  sql \"SELECT..\"  one SELECT over the views v_study, v_trial, v_front, v_best, "
    "v_measurement, v_latency,\n"
    "                  v_prediction, v_layer, v_event (columns: db/db.h)\n"
    "\n"
    "options\n"
    "  -f, --format FORMAT   table (default, rounded for reading), json (array of objects), csv, "
    "value (bare)\n"
    "  --study NAME          which study, when the database holds several\n"
    "  -h, --help            this text\n"
    "  --version             the version\n"
    "\n"
    "examples\n"
    "  nas-query runs/sr720p/study.db\n"
    "  nas-query runs/sr720p/study.db front -f csv > front.csv\n"
    "  nas-query runs/sr720p/study.db best -f json\n"
    "  nas-query runs/sr720p/study.db passport 12\n"
    "  nas-query runs/sr720p/study.db layers 12\n"
    "  nas-query runs/sr720p/study.db sql \"SELECT state, count(*) FROM v_trial GROUP BY state\"\n"
    "\n"
    "exit codes: 0 done, 1 failed, 2 wrong usage, 3 best: no feasible trial\n";

static const struct command {
    const char *name;
    nas_db_report_kind kind;
    bool vertical;       /* a record of many columns */
    const char *operand; /* NULL = takes none */
} commands[] = {
    {"front", NAS_DB_REPORT_FRONT, false, NULL},
    {"final", NAS_DB_REPORT_FINAL, false, NULL},
    {"baselines", NAS_DB_REPORT_BASELINES, false, NULL},
    {"trials", NAS_DB_REPORT_TRIALS, false, NULL},
    {"best", NAS_DB_REPORT_BEST, true, NULL},
    {"trial", NAS_DB_REPORT_TRIAL, true, "the trial's number"},
    {"events", NAS_DB_REPORT_EVENTS, false, NULL},
    {"measurements", NAS_DB_REPORT_MEASUREMENTS, false, NULL},
    {"profile", NAS_DB_REPORT_PROFILE, false, "the trial's number"},
    {"passport", NAS_DB_REPORT_PASSPORT, false, "the trial's number"},
    {"measurement", NAS_DB_REPORT_MEASUREMENT, false, "a measurement_id"},
    {"layers", NAS_DB_REPORT_LAYERS, false, "the trial's number"},
    {"sql", NAS_DB_REPORT_COUNT, false, "one SELECT"},
    {"", NAS_DB_REPORT_STUDY, true, NULL},
};

static const struct command *find_command(const char *name) {
    for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    }
    return NULL;
}

/* ---- arguments ------------------------------------------------------------------------------------------------------ */

/* The value of option argv[*i], given as "--name=value" or as the next word; NULL with a message when missing. */
static const char *option_value(nas_ctx *ctx, int argc, char **argv, int *i) {
    const char *equals = strncmp(argv[*i], "--", 2) == 0 ? strchr(argv[*i], '=') : NULL;
    if (equals != NULL) return equals + 1;
    if (*i + 1 >= argc) {
        (void)nas_fail(ctx, NAS_ERR_INVALID, "%s needs a value", argv[*i]);
        return NULL;
    }
    (*i)++;
    return argv[*i];
}

static bool is_option(const char *word, const char *name) {
    const size_t len = strlen(name);
    return strncmp(word, name, len) == 0 && (word[len] == '\0' || word[len] == '=');
}

static nas_status parse_option(nas_ctx *ctx, int argc, char **argv, int *i, query_args *args) {
    const char *word = argv[*i];
    if (strcmp(word, "-h") == 0 || strcmp(word, "--help") == 0) {
        args->help = true;
        return NAS_OK;
    }
    if (strcmp(word, "--version") == 0) {
        args->version = true;
        return NAS_OK;
    }
    if (strcmp(word, "-f") == 0 || is_option(word, "--format")) {
        const char *value = option_value(ctx, argc, argv, i);
        return value == NULL ? NAS_ERR_INVALID : nas_rows_format_parse(ctx, value, &args->format);
    }
    if (is_option(word, "--study")) {
        args->study = option_value(ctx, argc, argv, i);
        return args->study == NULL ? NAS_ERR_INVALID : NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID, "option %s is unknown", word);
}

static nas_status check_args(nas_ctx *ctx, const query_args *args) {
    if (args->db == NULL) return nas_fail(ctx, NAS_ERR_INVALID, "which database? Give its path");
    const struct command *command = find_command(args->command);
    if (command == NULL) {
        return nas_fail(
            ctx, NAS_ERR_INVALID,
            "command '%s' is unknown: use front, final, baselines, trials, best, "
            "trial, events, measurements, measurement, passport, profile, layers or sql",
            args->command);
    }
    if (command->operand != NULL && args->operand == NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID, "%s needs %s", args->command, command->operand);
    }
    if (command->operand == NULL && args->operand != NULL) {
        return nas_fail(ctx, NAS_ERR_INVALID, "%s takes no '%s'", args->command, args->operand);
    }
    return NAS_OK;
}

static nas_status parse_args(nas_ctx *ctx, int argc, char **argv, query_args *args) {
    const char *words[3] = {NULL, "", NULL}; /* database, command, operand */
    size_t n = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        if (options && strcmp(argv[i], "--") == 0) {
            options = false;
        } else if (options && argv[i][0] == '-' && argv[i][1] != '\0') {
            const nas_status status = parse_option(ctx, argc, argv, &i, args);
            if (status != NAS_OK) return status;
        } else if (n < sizeof words / sizeof words[0]) {
            words[n++] = argv[i];
        } else {
            return nas_fail(ctx, NAS_ERR_INVALID, "'%s' is one word too many", argv[i]);
        }
    }
    args->db = words[0];
    args->command = words[1];
    args->operand = words[2];
    return args->help || args->version ? NAS_OK : check_args(ctx, args);
}

/* ---- which study ---------------------------------------------------------------------------------------------------- */

typedef struct study_list {
    nas_buf names; /* "a, b" */
    nas_buf first;
    const char *wanted;
    bool found;
    size_t n;
} study_list;

static nas_status note_study(nas_ctx *ctx, void *arg, int32_t n, const char *const *names,
                             const char *const *values, const bool *is_number) {
    (void)n;
    (void)names;
    (void)is_number;
    study_list *list = arg;
    if (list->n == 0) nas_buf_puts(&list->first, values[0]);
    nas_buf_printf(&list->names, "%s%s", list->n == 0 ? "" : ", ", values[0]);
    list->found = list->found || (list->wanted != NULL && strcmp(values[0], list->wanted) == 0);
    list->n++;
    const nas_status status = nas_buf_status(ctx, &list->first);
    return status == NAS_OK ? nas_buf_status(ctx, &list->names) : status;
}

/* Into `name`, empty for "all" (summary of several). *usage: the command line is at fault. */
static nas_status choose_study(nas_ctx *ctx, nas_db *db, const query_args *args, nas_buf *name,
                               bool *usage) {
    study_list list = {.wanted = args->study};
    nas_status status =
        nas_db_report(ctx, db, NAS_DB_REPORT_STUDY, NULL, 0, false, note_study, &list);
    if (status == NAS_OK && list.n == 0) {
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "%s holds no study yet", args->db);
    } else if (status == NAS_OK && args->study != NULL && !list.found) {
        *usage = true;
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "no study '%s' in %s; it holds: %s", args->study,
                          args->db, list.names.data);
    } else if (status == NAS_OK && args->study == NULL && list.n > 1 && args->command[0] != '\0') {
        *usage = true;
        status =
            nas_fail(ctx, NAS_ERR_INVALID, "%s holds several studies, choose one with --study: %s",
                     args->db, list.names.data);
    }
    if (status == NAS_OK && (args->study != NULL || list.n == 1)) {
        nas_buf_puts(name, args->study != NULL ? args->study : list.first.data);
        status = nas_buf_status(ctx, name);
    }
    nas_buf_deinit(&list.first);
    nas_buf_deinit(&list.names);
    return status;
}

/* ---- commands ------------------------------------------------------------------------------------------------------- */

static nas_status print_report(nas_ctx *ctx, nas_db *db, const query_args *args,
                               nas_db_report_kind kind, const char *study, int64_t number,
                               bool vertical, size_t *n) {
    nas_rows rows = nas_rows_new(args->format, vertical, stdout);
    nas_status status = nas_db_report(ctx, db, kind, study, number, args->format == NAS_ROWS_TABLE,
                                      nas_rows_add, &rows);
    *n = rows.n;
    if (status == NAS_OK) return nas_rows_end(ctx, &rows);
    nas_rows_deinit(&rows);
    return status;
}

static nas_status print_summary(nas_ctx *ctx, nas_db *db, const query_args *args,
                                const char *study) {
    size_t n = 0;
    nas_status status =
        print_report(ctx, db, args, NAS_DB_REPORT_STUDY, study, 0, study != NULL, &n);
    if (status != NAS_OK || args->format != NAS_ROWS_TABLE || study == NULL) return status;
    if (fputs("\nlast events\n", stdout) == EOF)
        return nas_fail(ctx, NAS_ERR_IO, "cannot write the output");
    return print_report(ctx, db, args, NAS_DB_REPORT_LAST_EVENTS, study, 0, false, &n);
}

static nas_status print_sql(nas_ctx *ctx, nas_db *db, const query_args *args) {
    nas_rows rows = nas_rows_new(args->format, false, stdout);
    const nas_status status = nas_db_query(ctx, db, args->operand, NULL, 0, nas_rows_add, &rows);
    if (status == NAS_OK) return nas_rows_end(ctx, &rows);
    nas_rows_deinit(&rows);
    return status;
}

static const char *missing_text(nas_db_report_kind kind) {
    if (kind == NAS_DB_REPORT_LAYERS) return "layers of trial ";
    if (kind == NAS_DB_REPORT_PROFILE) return "layers timed alone (nas-search --profile) of trial ";
    if (kind == NAS_DB_REPORT_PASSPORT) return "measurement of trial ";
    return kind == NAS_DB_REPORT_MEASUREMENT ? "measurement " : "trial ";
}

static nas_status run_command(nas_ctx *ctx, nas_db *db, const query_args *args, int *exit_code) {
    const struct command *command = find_command(args->command);
    if (command->kind == NAS_DB_REPORT_COUNT) return print_sql(ctx, db, args);
    int64_t number = 0;
    nas_status status = NAS_OK;
    bool usage = false;
    if (args->operand != NULL)
        status = nas_parse_i64(ctx, args->command, args->operand, 0, INT64_MAX, &number);
    usage = status != NAS_OK;
    nas_buf study = {0};
    if (status == NAS_OK) status = choose_study(ctx, db, args, &study, &usage);
    size_t n = 0;
    if (status == NAS_OK && command->kind == NAS_DB_REPORT_STUDY) {
        status = print_summary(ctx, db, args, study.data);
        n = 1;
    } else if (status == NAS_OK) {
        status =
            print_report(ctx, db, args, command->kind, study.data, number, command->vertical, &n);
    }
    if (usage) *exit_code = NAS_EXIT_USAGE;
    if (status == NAS_OK && n == 0 && command->operand != NULL) {
        status = nas_fail(ctx, NAS_ERR_NOTFOUND, "study '%s' has no %s%" PRId64, study.data,
                          missing_text(command->kind), number);
    } else if (status == NAS_OK && n == 0 && command->kind == NAS_DB_REPORT_BEST) {
        *exit_code = NAS_EXIT_INFEASIBLE;
        fprintf(stderr, "study '%s': no feasible trial is complete\n", study.data);
    } else if (status == NAS_OK && n == 0) {
        fprintf(stderr, "study '%s': no %s yet\n", study.data, args->command);
    }
    nas_buf_deinit(&study);
    return status;
}

static int query(nas_ctx *ctx, int argc, char **argv) {
    query_args args = {0};
    nas_status status = parse_args(ctx, argc, argv, &args);
    if (status != NAS_OK) {
        fprintf(stderr, "error: %s (nas-query -h)\n", nas_ctx_message(ctx));
        return NAS_EXIT_USAGE;
    }
    if (args.help || args.version) {
        const int wrote = args.help ? fputs(help_text, stdout) : puts("nas-query " NAS_VERSION);
        return wrote == EOF || fflush(stdout) == EOF ? NAS_EXIT_FAILED : NAS_EXIT_OK;
    }
    nas_db *db = NULL;
    int exit_code = NAS_EXIT_OK;
    status = nas_db_open_readonly(ctx, args.db, &db);
    if (status == NAS_OK) status = run_command(ctx, db, &args, &exit_code);
    if (status != NAS_OK) {
        fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
        if (exit_code == NAS_EXIT_OK) exit_code = nas_exit_code(status);
    }
    (void)nas_db_close(ctx, db); /* a reader has nothing to lose */
    return exit_code;
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) {
        fputs("error: out of memory\n", stderr);
        return NAS_EXIT_FAILED;
    }
    const int code = query(ctx, argc, argv);
    nas_ctx_free(ctx);
    return code;
}
