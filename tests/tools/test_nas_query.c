/* test_nas_query.c - the program as people start it: answers, formats, exit codes, beside a living or killed study. */
#include "db/db.h"
#include "tests/tools/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static nas_ctx *ctx;
static char folder[64], db_path[128], program[4096];

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(folder, sizeof folder, "%s/nas-query-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    (void)snprintf(db_path, sizeof db_path, "%s/study.db", folder);
    tool_program("nas-query", program);
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, folder), NAS_OK));
    nas_ctx_free(ctx);
}

TestSuite(tools_nas_query, .init = setup, .fini = teardown, .timeout = 60);

#define OK(expr) cr_assert(eq(int, (int)(expr), (int)NAS_OK), "%s", nas_ctx_message(ctx))

static int64_t add_study(nas_db *db, const char *name) {
    char text[] = "{}";
    nas_db_study row = {
        .space = "sr", .strategy = "nsga2", .seed = 7, .config_toml = text, .config_json = text};
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    int64_t id = 0;
    OK(nas_db_study_insert(ctx, db, &row, &id));
    return id;
}

static int64_t add_trial(nas_db *db, int64_t study, int64_t number, double psnr, double p50_us,
                         double violation) {
    char point[] = "sr d=3";
    nas_db_trial row = {.study_id = study, .number = number, .point = point, .origin = "strategy"};
    int64_t id = 0;
    OK(nas_db_trial_insert(ctx, db, &row, &id));
    OK(nas_db_trial_lease(ctx, db, id, "w", 60000));
    const nas_db_values values = {.psnr_y_db = nas_some_double(psnr),
                                  .latency_p50_us = nas_some_double(p50_us),
                                  .latency_p90_us = nas_some_double(p50_us * 1.25),
                                  .macs = nas_some_i64(1000000),
                                  .params = nas_some_i64(27000),
                                  .violation = nas_some_double(violation)};
    OK(nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, &values));
    return id;
}

/* A study "a" of three trials; number 1 is infeasible, 2 the winner. */
static nas_db *sample(void) {
    nas_db *db = NULL;
    OK(nas_db_open(ctx, db_path, &db));
    const int64_t study = add_study(db, "a");
    (void)add_trial(db, study, 0, 31.5, 4000, 0);
    (void)add_trial(db, study, 1, 35, 50000, 0.5);
    const int64_t winner = add_trial(db, study, 2, 33.25, 16000, 0);
    int64_t device = 0, id = 0;
    OK(nas_db_device_put(ctx, db, "local", "local", "f", "{}", false, &device));
    const double samples[] = {16000, 16001};
    const nas_db_measurement m = {.trial_id = winner,
                                  .device_id = device,
                                  .role = "search",
                                  .threads = 2,
                                  .p50_us = 16000,
                                  .p50_lo_us = 15900,
                                  .p50_hi_us = 16100,
                                  .p90_us = 20000,
                                  .samples_us = samples,
                                  .n_samples = 2};
    OK(nas_db_measurement_insert(ctx, db, &m, &id));
    const nas_db_layer layers[] = {{"head", "conv3x3", 360, 640, 3, 16, 3, 1, 1, 1, 2.5},
                                   {"tail", "conv5x5", 360, 640, 16, 12, 5, 1, 1, 1, 2.5}};
    OK(nas_db_layers_put(ctx, db, winner, layers, 2));
    OK(nas_db_event(ctx, db, study, "start", "trial 0"));
    return db;
}

/* Runs nas-query with up to five words after the database; result of the last run. */
static nas_process_result last;

static int query(const char *a, const char *b, const char *c, const char *d, const char *e) {
    const char *const argv[] = {program, db_path, a, b, c, d, e, NULL};
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    nas_process_result_deinit(&last);
    OK(nas_process_run(ctx, &o, &last));
    return last.exit_code;
}

static const char *out(void) {
    return last.out.data == NULL ? "" : last.out.data;
}

static const char *err(void) {
    return last.err.data == NULL ? "" : last.err.data;
}

#define PRINTS(text) cr_assert(ne(ptr, strstr(out(), (text)), NULL), "%s%s", out(), err())
/* A line "name   value" of the last output, whatever the width of the names. */
static bool has_line(const char *name, const char *value) {
    const size_t len = strlen(name);
    for (const char *line = out(); *line != '\0';
         line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, name, len) != 0 || line[len] != ' ') continue;
        const char *at = line + len + strspn(line + len, " ");
        return strncmp(at, value, strlen(value)) == 0 && at[strlen(value)] == '\n';
    }
    return false;
}

#define HAS_LINE(name, value) cr_assert(has_line((name), (value)), "%s%s", out(), err())
#define COMPLAINS(text) cr_assert(ne(ptr, strstr(err(), (text)), NULL), "%s%s", out(), err())

Test(tools_nas_query, every_command_answers_about_the_study) {
    OK(nas_db_close(ctx, sample()));
    cr_assert(eq(int, query(NULL, NULL, NULL, NULL, NULL), 0), "%s", err());
    HAS_LINE("strategy", "nsga2");
    HAS_LINE("best_trial", "2");
    HAS_LINE("best_psnr_y", "33.25");
    HAS_LINE("device", "local");
    PRINTS("last events\n");
    cr_assert(eq(int, query("front", "-f", "value", NULL, NULL), 0));
    cr_assert(eq(int, query("trials", NULL, NULL, NULL, NULL), 0));
    PRINTS("trial  state     origin");
    cr_assert(eq(int, query("trial", "1", NULL, NULL, NULL), 0));
    HAS_LINE("violation", "0.5000");
    cr_assert(eq(int, query("final", "-f", "value", NULL, NULL), 0));
    PRINTS("\n2\t*\t"); /* the best is marked */
    cr_assert(eq(int, query("baselines", "-f", "json", NULL, NULL), 0));
    cr_assert(eq(str, (char *)out(), "[]\n"));
    COMPLAINS("no baselines yet");
    cr_assert(eq(int, query("events", NULL, NULL, NULL, NULL), 0));
    PRINTS("start  trial 0\n");
    cr_assert(eq(int, query("measurements", "-f", "csv", NULL, NULL), 0));
    PRINTS("a,2,search,local,0,2,16,15.9,16.1,20,");
    cr_assert(eq(int, query("layers", "2", NULL, NULL, NULL), 0));
    PRINTS("conv3x3");
    cr_assert(eq(int, query("measurement", "1", NULL, NULL, NULL), 0));
    PRINTS("fingerprint");
    cr_assert(eq(int, query("layers", "2", NULL, NULL, NULL), 0));
    PRINTS("    1  tail  conv5x5  360  640    16     12       5");
    cr_assert(eq(int, query("sql", "SELECT count(*) FROM v_trial", "-f", "value", NULL), 0));
    cr_assert(eq(str, (char *)out(), "3\n"));
    cr_assert(eq(int, query("best", "--format=json", NULL, NULL, NULL), 0));
    PRINTS("\"trial\":2,");
    cr_assert(eq(str, (char *)err(), ""));
}

Test(tools_nas_query, json_rows_have_the_documented_columns) {
    OK(nas_db_close(ctx, sample()));
    cr_assert(eq(int, query("front", "-f", "json", NULL, NULL), 0));
    PRINTS("[\n{\"study\":\"a\",\"trial\":0,\"state\":\"COMPLETE\",\"origin\":\"strategy\",\"psnr_"
           "y\":31.5,");
    static const char *const columns[] = {"\"trial\":2,",
                                          "\"psnr_y\":33.25,",
                                          "\"latency_p50_ms\":16,",
                                          "\"latency_p90_ms\":20,",
                                          "\"latency_pred_ms\":null,",
                                          "\"macs\":1000000,",
                                          "\"params\":27000,",
                                          "\"feasible\":1,",
                                          "\"violation\":0.5,",
                                          "\"point\":\"sr d=3\"}\n]\n"};
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        PRINTS(columns[i]);
}

Test(tools_nas_query, best_without_a_feasible_trial_exits_3) {
    nas_db *db = NULL;
    OK(nas_db_open(ctx, db_path, &db));
    const int64_t study = add_study(db, "a");
    OK(nas_db_close(ctx, db));
    cr_assert(eq(int, query("best", "-f", "json", NULL, NULL), 3));
    cr_assert(eq(str, (char *)out(), "[]\n"));
    COMPLAINS("no feasible trial");
    OK(nas_db_open(ctx, db_path, &db));
    (void)add_trial(db, study, 0, 40, 1000, 0.1);
    OK(nas_db_close(ctx, db));
    cr_assert(eq(int, query("best", NULL, NULL, NULL, NULL), 3));
    cr_assert(eq(int, query("front", NULL, NULL, NULL, NULL), 0));
}

Test(tools_nas_query, several_studies_need_a_name) {
    nas_db *db = sample();
    const int64_t study = add_study(db, "b");
    (void)add_trial(db, study, 0, 20, 1000, 0);
    OK(nas_db_close(ctx, db));
    cr_assert(eq(int, query(NULL, NULL, NULL, NULL, NULL), 0));
    PRINTS("\na      sr");
    PRINTS("\nb      sr");
    cr_assert(eq(int, query("best", NULL, NULL, NULL, NULL), 2));
    COMPLAINS("--study: a, b");
    cr_assert(eq(int, query("best", "--study", "b", "-f", "json"), 0));
    PRINTS("\"psnr_y\":20,");
    cr_assert(eq(int, query("best", "--study=c", NULL, NULL, NULL), 2));
    COMPLAINS("no study 'c'");
    cr_assert(eq(int, query("sql", "SELECT count(*) FROM v_study", "-f", "value", NULL), 0));
}

Test(tools_nas_query, wrong_usage_exits_2_and_says_what_is_right) {
    OK(nas_db_close(ctx, sample()));
    static const struct {
        const char *words[3], *says;
    } cases[] = {{{"frunt", NULL, NULL}, "use front, final, baselines"},
                 {{"trial", NULL, NULL}, "trial needs the trial's number"},
                 {{"trial", "x", NULL}, "'x' is not a whole number"},
                 {{"trial", "-1", NULL}, "option -1 is unknown"},
                 {{"trial", "99999999999999999999", NULL}, "is outside"},
                 {{"front", "3", NULL}, "front takes no '3'"},
                 {{"layers", NULL, NULL}, "layers needs"},
                 {{"sql", NULL, NULL}, "sql needs one SELECT"},
                 {{"front", "-f", "xml"}, "table, json, csv or value"},
                 {{"front", "-f", NULL}, "-f needs a value"},
                 {{"front", "--fast", NULL}, "option --fast is unknown"},
                 {{"trial", "1", "2"}, "one word too many"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *const *w = cases[i].words;
        cr_assert(eq(int, query(w[0], w[1], w[2], NULL, NULL), 2), "case %zu: %s", i, err());
        COMPLAINS(cases[i].says);
        cr_assert(eq(str, (char *)out(), ""));
    }
    cr_assert(eq(int, query("-h", NULL, NULL, NULL, NULL), 0));
    PRINTS("examples\n");
    cr_assert(eq(int, query("--version", NULL, NULL, NULL, NULL), 0));
    cr_assert(eq(str, (char *)out(), "nas-query " NAS_VERSION "\n"));
}

Test(tools_nas_query, failures_exit_1_with_one_line) {
    cr_assert(eq(int, query("front", NULL, NULL, NULL, NULL), 1));
    COMPLAINS("no database");
    cr_assert(not(nas_file_exists(db_path))); /* asking never makes a file */
    OK(nas_file_write(ctx, db_path, "not a database, but long enough to be looked at", 47, 0644));
    cr_assert(eq(int, query("front", NULL, NULL, NULL, NULL), 1));
    COMPLAINS("not a study database");
    cr_assert(eq(int, unlink(db_path), 0));
    nas_db *db = NULL;
    OK(nas_db_open(ctx, db_path, &db));
    OK(nas_db_close(ctx, db));
    cr_assert(eq(int, query("front", NULL, NULL, NULL, NULL), 1));
    COMPLAINS("holds no study yet");
    OK(nas_db_close(ctx, sample()));
    cr_assert(eq(int, query("trial", "3", NULL, NULL, NULL), 1));
    COMPLAINS("study 'a' has no trial 3");
    cr_assert(eq(int, query("layers", "0", NULL, NULL, NULL), 1));
    COMPLAINS("no layers of trial 0");
    cr_assert(eq(int, query("passport", "77", NULL, NULL, NULL), 1));
    COMPLAINS("no measurement of trial 77");
    cr_assert(eq(int, query("measurement", "77", NULL, NULL, NULL), 1));
    COMPLAINS("no measurement 77");
    cr_assert(eq(int, query("profile", "0", NULL, NULL, NULL), 1));
    COMPLAINS("no layers timed alone (nas-search --profile) of trial 0");
    cr_assert(eq(int, query("sql", "DELETE FROM events", NULL, NULL, NULL), 1));
    COMPLAINS("only one SELECT is allowed");
    cr_assert(eq(int, query("sql", "SELECT x FROM v_front", NULL, NULL, NULL), 1));
    COMPLAINS("no such column: x");
    cr_assert(eq(int, query("events", NULL, NULL, NULL, NULL), 0)); /* and nothing was deleted */
    PRINTS("start");
}

/* ---- beside a study ------------------------------------------------------------------------------------------------- */

/* A writer that adds trials until it is killed; tells its first commit through the pipe. */
static void write_forever(int ready) {
    (void)alarm(30); /* ends it even when the test failed before it could */
    nas_db *db = sample();
    nas_db_study study = {0};
    OK(nas_db_study_get(ctx, db, "a", &study));
    const char byte = 1;
    if (write(ready, &byte, 1) != 1) _exit(1);
    for (int64_t number = 3;; number++)
        (void)add_trial(db, study.id, number, 30, 1000000, 0);
}

static int64_t trials_told(void) {
    cr_assert(eq(int, query("sql", "SELECT count(*) FROM v_trial", "-f", "value", NULL), 0), "%s",
              err());
    return strtoll(out(), NULL, 10);
}

Test(tools_nas_query, it_reads_beside_a_writing_study_and_after_kill_9) {
    int pipes[2];
    cr_assert(eq(int, pipe(pipes), 0));
    const pid_t pid = fork();
    if (pid == 0) write_forever(pipes[1]);
    char byte = 0;
    cr_assert(eq(int, (int)read(pipes[0], &byte, 1), 1));
    int64_t seen = 3;
    for (int i = 0; i < 5; i++) {
        const int64_t now = trials_told();
        cr_assert(now >= seen);
        seen = now;
        cr_assert(eq(int, query("best", "-f", "json", NULL, NULL), 0), "%s", err());
        PRINTS("\"psnr_y\":33.25,");
    }
    cr_assert(eq(int, kill(pid, SIGKILL), 0));
    cr_assert(eq(int, (int)waitpid(pid, NULL, 0), (int)pid));
    const int64_t after = trials_told();
    cr_assert(after >= seen);
    char shm[160];
    (void)snprintf(shm, sizeof shm, "%s-shm", db_path);
    cr_assert(eq(int, unlink(shm), 0)); /* as after a reboot: the log alone must do */
    cr_assert(eq(i64, trials_told(), after));
    nas_db *db = NULL;
    OK(nas_db_open(ctx, db_path, &db)); /* the study resumes and has what was shown */
    nas_db_study study = {0};
    OK(nas_db_study_get(ctx, db, "a", &study));
    nas_db_trial *rows = NULL;
    size_t n = 0;
    OK(nas_db_trials(ctx, db, study.id, &rows, &n));
    cr_assert(eq(i64, (int64_t)n, after));
    nas_db_trials_free(rows, n);
    nas_db_study_deinit(&study);
    OK(nas_db_close(ctx, db));
}
