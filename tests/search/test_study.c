/* test_study.c - the whole loop as a user runs it: quick config, simulated device, real training, real compiling. */
#include "db/db.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[128], set_dir[192];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
    (void)snprintf(set_dir, sizeof set_dir, "study.dir=%s/run", folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
}

TestSuite(search_study, .init = setup, .fini = teardown, .timeout = 600);

#define QUICK "--config", "configs/sr720p-quick.toml", "--set", set_dir, "-q"

static bool exists(const char *name) {
    return test_exists(folder, name);
}

/* Column `point` of all trials, from nas-query. */
static char *proposals(const char *run) {
    char db[256];
    (void)snprintf(db, sizeof db, "%s/%s/study.db", folder, run);
    nas_process_result r =
        test_run(ctx, "nas-query",
                 (const char *const[]){db, "sql", "SELECT point FROM v_trial ORDER BY number", "-f",
                                       "csv", NULL});
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    char *text = nas_strdup(ctx, r.out.data);
    nas_process_result_deinit(&r);
    return text;
}

Test(search_study, quick_run_ends_with_front_baselines_and_best_network) {
    nas_process_result r = test_run(ctx, "nas-search", (const char *const[]){QUICK, NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s\n%s", r.out.data, r.err.data);
    static const char *const expected[] = {
        "psnr_y", "ssim_y",  "latency_p50_ms", "latency_p90_ms", "latency_pred_ms", "params",
        "macs",   "bicubic", "fsrcnn",         "supernet",       "simulated"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
        cr_assert(ne(ptr, (void *)strstr(r.out.data, expected[i]), NULL), "no '%s' in:\n%s",
                  expected[i], r.out.data);
    }
    nas_process_result_deinit(&r);
    static const char *const files[] = {
        "run/study.db",       "run/config.toml",     "run/front.csv",
        "run/best/model.c",   "run/best/model.h",    "run/best/weights.c",
        "run/best/example.c", "run/best/model.onnx", "run/best/recipe.json"};
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        cr_assert(exists(files[i]), "%s is missing", files[i]);

    char command[512]; /* the bundle builds with nothing but a C compiler, and runs */
    (void)snprintf(command, sizeof command,
                   "cd %s/run/best && $(sed -n 's/^ *\\(gcc .*\\)$/\\1/p' README.txt | head -1)",
                   folder);
    nas_process_options o = nas_process_options_default();
    o.argv = (const char *const[]){"sh", "-c", command, NULL};
    nas_process_result build = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &build), NAS_OK));
    cr_assert(eq(int, build.exit_code, 0), "%s", build.err.data);
    nas_process_result_deinit(&build);
}

/* What recipe.json of a folder of the run calls its trial. */
static int64_t trial_of(const char *name) {
    char path[256];
    nas_buf text = {0};
    (void)snprintf(path, sizeof path, "%s/run/%s/recipe.json", folder, name);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 24, &text), NAS_OK), "%s", path);
    const char *key = strstr(text.data, "\"trial\":");
    cr_assert(ne(ptr, (void *)key, NULL), "%s", text.data);
    const int64_t trial = strtoll(key + strlen("\"trial\":"), NULL, 10);
    nas_buf_deinit(&text);
    return trial;
}

Test(search_study, any_network_of_the_front_is_delivered_when_asked_for) {
    nas_process_result r =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "--deliver", "front", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    char db[256], name[64], list[64] = "";
    (void)snprintf(db, sizeof db, "%s/run/study.db", folder);
    r = test_run(ctx, "nas-query",
                 (const char *const[]){db, "sql",
                                       "SELECT trial FROM v_trial WHERE final_psnr_y IS NOT NULL "
                                       "AND origin NOT LIKE 'baseline:%' ORDER BY trial",
                                       "-f", "value", NULL});
    int members = 0;
    for (char *line = strtok(r.out.data, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        (void)snprintf(name, sizeof name, "trial-%s", line);
        cr_assert(eq(i64, trial_of(name), strtoll(line, NULL, 10)));
        (void)snprintf(name, sizeof name, "run/trial-%s/model.onnx", line);
        cr_assert(exists(name), "%s", name);
        (void)snprintf(list, sizeof list, "%s,999", line);
        members++;
    }
    cr_assert(gt(int, members, 1), "a front of one shows nothing");
    nas_process_result_deinit(&r);
    const char *const wrong[] = {QUICK, "--deliver", list, NULL};
    r = test_run(ctx, "nas-search", wrong); /* all or nothing */
    cr_assert(eq(int, r.exit_code, NAS_EXIT_FAILED));
    cr_assert(ne(ptr, (void *)strstr(r.err.data, "trial 999 is not in the final front"), NULL),
              "%s", r.err.data);
    nas_process_result_deinit(&r);
    static const char *const bad[] = {"", "best", "1,", ",1", "1 2", "-1", "9999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        r = test_run(ctx, "nas-search", (const char *const[]){QUICK, "--deliver", bad[i], NULL});
        cr_assert(eq(int, r.exit_code, NAS_EXIT_USAGE), "'%s'", bad[i]);
        nas_process_result_deinit(&r);
    }
}

Test(search_study, the_feasible_best_is_finished_where_the_bound_is_on_no_objective) {
    nas_process_result r =
        test_run(ctx, "nas-search",
                 (const char *const[]){QUICK, "--set", "objectives.maximise=[\"psnr_y\"]", "--set",
                                       "objectives.minimise=[]", "--set", "eval.finetune_max=1",
                                       "--set", "constraints.params=<= 4000", "--set",
                                       "search.strategy=random", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s\n%s", r.out.data, r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(test_ask(ctx, folder, "run",
                       "SELECT count(*) FROM v_trial WHERE final_psnr_y IS NOT NULL AND"
                       " origin NOT LIKE 'baseline:%' AND params <= 4000") == 1);
    cr_assert(test_ask(ctx, folder, "run",
                       "SELECT count(*) FROM v_trial WHERE params > 4000 AND psnr_y >"
                       " (SELECT max(psnr_y) FROM v_trial WHERE params <= 4000)") > 0,
              "the bound leaves nothing out");
}

Test(search_study, a_finished_study_prints_the_same_front_again_without_work) {
    nas_process_result a =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "-f", "csv", NULL});
    nas_process_result b =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "-f", "csv", NULL});
    cr_assert(eq(int, a.exit_code, NAS_EXIT_OK), "%s", a.err.data);
    cr_assert(eq(str, a.out.data, b.out.data));
    nas_process_result_deinit(&a);
    nas_process_result_deinit(&b);
}

Test(search_study, same_seed_proposes_the_same_networks_and_another_seed_others) {
    char other_dir[192];
    (void)snprintf(other_dir, sizeof other_dir, "study.dir=%s/other", folder);
    nas_process_result r = test_run(ctx, "nas-search", (const char *const[]){QUICK, NULL});
    nas_process_result_deinit(&r);
    r = test_run(ctx, "nas-search",
                 (const char *const[]){QUICK, "--set", other_dir, "--set", "eval.threads=1", NULL});
    nas_process_result_deinit(&r);
    char *a = proposals("run"), *b = proposals("other");
    cr_assert(eq(str, a, b), "the same seed must propose the same, whatever the number of threads");
    (void)snprintf(other_dir, sizeof other_dir, "study.dir=%s/third", folder);
    r = test_run(ctx, "nas-search",
                 (const char *const[]){QUICK, "--set", other_dir, "--seed", "77", NULL});
    nas_process_result_deinit(&r);
    char *c = proposals("third");
    cr_assert(ne(str, a, c));
    nas_free(a);
    nas_free(b);
    nas_free(c);
}

Test(search_study, fresh_moves_the_old_run_aside) {
    const char *const args[] = {QUICK, "--trials", "4", NULL};
    nas_process_result r = test_run(ctx, "nas-search", args);
    nas_process_result_deinit(&r);
    r = test_run(ctx, "nas-search", (const char *const[]){QUICK, "--trials", "4", "--fresh", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(exists("run.1/study.db"));
    cr_assert(exists("run/study.db"));
}

Test(search_study, a_changed_config_is_refused_with_the_keys_named) {
    nas_process_result r =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "--trials", "4", NULL});
    nas_process_result_deinit(&r);
    r = test_run(
        ctx, "nas-search",
        (const char *const[]){QUICK, "--trials", "4", "--set", "eval.finetune_steps=9", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_FAILED));
    cr_assert(ne(ptr, (void *)strstr(r.err.data, "eval.finetune_steps"), NULL), "%s", r.err.data);
    cr_assert(ne(ptr, (void *)strstr(r.err.data, "--fresh"), NULL), "%s", r.err.data);
    nas_process_result_deinit(&r);
}

Test(search_study, more_trials_extend_a_finished_study) {
    nas_process_result r =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "--trials", "4", NULL});
    nas_process_result_deinit(&r);
    char *before = proposals("run");
    r = test_run(ctx, "nas-search", (const char *const[]){QUICK, "--trials", "8", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
    char *after = proposals("run");
    cr_assert(eq(int, strncmp(before, after, strlen(before)), 0));
    cr_assert(strlen(after) > strlen(before));
    nas_free(before);
    nas_free(after);
}

Test(search_study, an_interrupt_ends_with_130_and_the_same_command_finishes) {
    int code = 0;
    const char *const args[] = {QUICK, NULL};
    const bool alive = test_run_killed("nas-search", args, 900, SIGINT, &code);
    cr_assert(eq(int, code, alive ? NAS_EXIT_INTERRUPTED : NAS_EXIT_OK));
    nas_process_result r = test_run(ctx, "nas-search", args);
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
}

Test(search_study, dry_run_prints_the_plan_and_writes_nothing) {
    nas_process_result r =
        test_run(ctx, "nas-search", (const char *const[]){QUICK, "--dry-run", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    cr_assert(ne(ptr, (void *)strstr(r.out.data, "networks"), NULL), "%s", r.out.data);
    cr_assert(not(exists("run")));
    nas_process_result_deinit(&r);
}

typedef struct bad_case {
    const char *name;
    const char *args[5];
    int exit_code;
    const char *says;
} bad_case;

Test(search_study, bad_input_gives_its_exit_code_and_says_what_to_do) {
    static const bad_case cases[] = {
        {"unknown key", {"--set", "serach.trials=3", NULL}, NAS_EXIT_USAGE, "search"},
        {"no compiler",
         {"--set", "compile.compiler=/no/such/cc", NULL},
         NAS_EXIT_FAILED,
         "/no/such/cc"},
        {"unknown target", {"--set", "compile.target=z80", NULL}, NAS_EXIT_FAILED, "x86-64"},
        {"halves",
         {"--set", "compile.dtype=fp16", "--set", "compile.target=x86-64-avx2", NULL},
         NAS_EXIT_FAILED,
         "compile.dtype, device"},
        {"disk", {"--set", "budget.disk_mb=1000000000", NULL}, NAS_EXIT_FAILED, "free some space"},
        {"data folder",
         {"--set", "data.train=/no/such/folder", NULL},
         NAS_EXIT_FAILED,
         "/no/such/folder"},
        {"override form", {"--set", "novalue", NULL}, NAS_EXIT_USAGE, "KEY=VALUE"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *args[12] = {QUICK};
        size_t n = 5;
        for (size_t k = 0; cases[i].args[k] != NULL; k++)
            args[n++] = cases[i].args[k];
        nas_process_result r = test_run(ctx, "nas-search", args);
        cr_assert(eq(int, r.exit_code, cases[i].exit_code), "%s: %s", cases[i].name, r.err.data);
        cr_assert(ne(ptr, (void *)strstr(r.err.data, cases[i].says), NULL), "%s: %s", cases[i].name,
                  r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_study, an_unreachable_device_gives_exit_code_4) {
    char config[256];
    (void)snprintf(config, sizeof config, "%s/remote.toml", folder);
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, "configs/sr720p-quick.toml", 100000, &text), NAS_OK));
    char *connect = strstr(text.data, "connect = \"simulated\"");
    cr_assert(ne(ptr, connect, NULL));
    connect += strlen("connect = ");
    nas_buf changed = {0};
    nas_buf_append(&changed, text.data, (size_t)(connect - text.data));
    nas_buf_puts(&changed, "\"http://127.0.0.1:9\"\nkey_file = \"");
    nas_buf_printf(&changed, "%s/key\"", folder);
    nas_buf_puts(&changed, connect + strlen("\"simulated\""));
    cr_assert(eq(int, (int)nas_file_write(ctx, config, changed.data, changed.len, 0600), NAS_OK));
    char key_file[256];
    (void)snprintf(key_file, sizeof key_file, "%s/key", folder);
    nas_process_result key =
        test_run(ctx, "nas-agent", (const char *const[]){"keygen", key_file, NULL});
    cr_assert(eq(int, key.exit_code, 0), "%s", key.err.data);
    nas_process_result_deinit(&key);
    nas_process_result r = test_run(
        ctx, "nas-search", (const char *const[]){"--config", config, "--set", set_dir, "-q", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_DEVICE), "%s", r.err.data);
    nas_process_result_deinit(&r);
    nas_buf_deinit(&text);
    nas_buf_deinit(&changed);
}

Test(search_study, a_second_run_on_the_same_folder_is_told_who_holds_it) {
    char db_path[256], dir[256];
    (void)snprintf(dir, sizeof dir, "%s/run", folder);
    (void)snprintf(db_path, sizeof db_path, "%s/run/study.db", folder);
    cr_assert(eq(int, (int)nas_mkdirs(ctx, dir), NAS_OK));
    nas_db *db = NULL;
    cr_assert(eq(int, (int)nas_db_open(ctx, db_path, &db), NAS_OK));
    nas_process_result r = test_run(ctx, "nas-search", (const char *const[]){QUICK, NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_FAILED));
    cr_assert(ne(ptr, (void *)strstr(r.err.data, "locked"), NULL), "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(eq(int, (int)nas_db_close(ctx, db), NAS_OK));
}
