/* test_compress.c - nas-search compresses a classifier from end to end: tiny training, latencies that nothing was timed for. */
#include "compiler/compiler.h"
#include "eval/exec.h"
#include "ir/graph.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[128];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
}

TestSuite(search_compress, .init = setup, .fini = teardown, .timeout = 600);

/* Runs the config with small numbers and `more` overrides (NULL-terminated). */
static nas_process_result run(const char *config, const char *name, const char *const *more) {
    static const char *const less[] = {"eval.finetune_steps=2", "eval.finetune_max=2",
                                       "eval.batch=16", "compress.calibration_images=40", NULL};
    return test_small_study(ctx, folder, config, name, less, more);
}

static bool exists(const char *name) {
    return test_exists(folder, name);
}

/* --deliver of a finished study: the files of each network of its front. */
static void check_delivered(const char *const *options) {
    char name[64] = "";
    char *members = test_query(
        ctx, folder, "a", "SELECT trial FROM v_class WHERE report_top1 IS NOT NULL AND trial > 0");
    nas_process_result r = run("configs/compress.toml", "a", options);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    for (char *line = strtok(members, "\n"); line != NULL; line = strtok(NULL, "\n")) {
        static const char *const files[] = {"model.onnx", "model.c", "recipe.json", "layers.csv"};
        for (int i = 0; i < 4; i++) {
            (void)snprintf(name, sizeof name, "a/trial-%s/%s", line, files[i]);
            cr_assert(exists(name), "%s", name);
        }
    }
    cr_assert(name[0] != '\0', "a front without members");
    nas_free(members);
}

Test(search_compress, a_study_ends_with_a_front_and_a_smaller_network_and_prints_it_again) {
    static const char *const bound[] = {"constraints.macs=<= 50%",
                                        "constraints.latency_p50_ms=<= 100%", NULL};
    nas_process_result first = run("configs/compress.toml", "a", bound);
    cr_assert(first.exit_code == 0, "%d: %s", first.exit_code, first.err.data);
    cr_assert(strstr(first.out.data, "baseline:original") != NULL);
    cr_assert(strstr(first.out.data, "amc ") != NULL);
    cr_assert(exists("a/best/model.onnx") && exists("a/best/model.c") &&
              exists("a/best/recipe.json"));
    cr_assert(exists("a/front.csv") && exists("a/model.onnx") && exists("a/best/layers.csv"));
    nas_process_result again = run("configs/compress.toml", "a", bound);
    cr_assert(again.exit_code == 0, "%s", again.err.data);
    cr_assert(strcmp(first.out.data, again.out.data) == 0);
    const char *const front[] = {bound[0], bound[1], "--deliver=front", NULL};
    check_delivered(front);
    /* its own result is a network that can be compressed again */
    char onnx[300];
    (void)snprintf(onnx, sizeof onnx, "model.onnx=%s/a/best/model.onnx", folder);
    const char *const more[] = {onnx, "constraints.latency_p50_ms=<= 100%",
                                "search.strategy=random", NULL};
    nas_process_result second = run("configs/compress.toml", "b", more);
    cr_assert(second.exit_code == 0, "%s", second.err.data);
    /* and fewer bits and patterns go on from fewer channels */
    const char *const codes[] = {onnx,
                                 "eval.finetune_max=1",
                                 "compress.calibration_images=20",
                                 "compress.positions=10",
                                 "compress.bits=4,8",
                                 "compress.patterns=1x4",
                                 "compress.rates=\"0.75\"",
                                 NULL};
    nas_process_result third =
        test_small_study(ctx, folder, "configs/mixed.toml", "c", codes, NULL);
    cr_assert(third.exit_code == 0, "%s", third.err.data);
    cr_assert(exists("c/best/recipe.json") && exists("c/best/model_qdq.onnx"));
    nas_process_result_deinit(&third);
    nas_process_result_deinit(&first);
    nas_process_result_deinit(&again);
    nas_process_result_deinit(&second);
}

/* Timed and delivered with products of bf16, where this processor has them; else refused. */
Test(search_compress, programs_have_products_of_bf16_where_asked) {
    static const char *const bf16[] = {"compile.dtype=bf16", "constraints.latency_p50_ms=<= 100%",
                                       NULL};
    const nas_target *native = NULL;
    cr_assert(nas_target_native(ctx, NAS_DTYPE_BF16, &native) == NAS_OK);
    const bool has = nas_target_check_dtype(ctx, native, NAS_DTYPE_BF16) == NAS_OK;
    nas_process_result r = run("configs/compress.toml", "bf16", bf16);
    cr_assert(r.exit_code == (has ? 0 : 1), "%d: %s", r.exit_code, r.err.data);
    if (has) {
        nas_buf text = {0};
        char path[300];
        (void)snprintf(path, sizeof path, "%s/bf16/best/model.c", folder);
        cr_assert(nas_file_read(ctx, path, SIZE_MAX, &text) == NAS_OK);
        nas_buf_append(&text, "", 1);
        cr_expect(strstr(text.data, "conv_bf16_") != NULL);
        nas_buf_deinit(&text);
    } else {
        cr_expect(strstr(r.err.data, "compile.dtype") != NULL, "%s", r.err.data);
    }
    nas_process_result_deinit(&r);
}

/* Scores by bf16 say so, or that the processor has none; "auto" is never an error. */
Test(search_compress, scores_by_bf16_need_the_processor) {
    static const char *const ways[] = {"eval.dtype=bf16", "eval.dtype=auto", "eval.dtype=fp32"};
    static const char *const names[] = {"half", "auto", "single"};
    const bool has = nas_exec_has_bf16();
    for (int i = 0; i < 3; i++) {
        const char *const more[] = {ways[i], "eval.finetune_steps=0", "search.trials=2", NULL};
        nas_process_result r = run("configs/amc-resnet20.toml", names[i], more);
        const bool told = strstr(r.err.data, "REWARD images are scored by bf16") != NULL;
        cr_assert(r.exit_code == (has || i > 0 ? 0 : 1), "%d %s", r.exit_code, r.err.data);
        cr_assert(told == (has && i < 2), "%s", r.err.data);
        if (!has && i == 0) cr_assert(strstr(r.err.data, "AMX-BF16") != NULL, "%s", r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_compress, agents_meet_the_budget_with_every_proposal) {
    static const char *const configs[] = {"configs/amc-resnet20.toml",
                                          "configs/agmc-resnet56.toml"};
    for (int i = 0; i < 2; i++) {
        nas_process_result r = run(configs[i], i == 0 ? "amc" : "agmc", NULL);
        cr_assert(r.exit_code == 0, "%s: %s", configs[i], r.err.data);
        nas_process_result_deinit(&r);
    }
}

/* The first study has another network (images of 20 pixels); the second begins with its encoder, also when it is resumed. */
Test(search_compress, an_encoder_of_one_network_starts_the_search_of_another) {
    char from[300], path[300];
    (void)snprintf(from, sizeof from, "search.encoder_from=%s/teacher/encoder.txt", folder);
    static const char *const wide[] = {"model.side=20", NULL};
    const char *const taken[] = {from, NULL};
    const char *const wrong[] = {"search.encoder_from=/nonexistent.txt", NULL};
    nas_process_result r = run("configs/agmc-resnet56.toml", "teacher", wide);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    for (int start = 0; start < 2; start++) {
        r = run("configs/agmc-resnet56.toml", "pupil", taken);
        cr_assert(r.exit_code == 0, "start %d: %s", start, r.err.data);
        nas_process_result_deinit(&r);
        cr_assert(exists("pupil/encoder_from.txt") && exists("pupil/encoder.txt"));
        (void)snprintf(path, sizeof path, "%s/teacher/encoder.txt", folder);
        (void)remove(path); /* the copy serves */
    }
    r = run("configs/agmc-resnet56.toml", "orphan", wrong);
    cr_assert(r.exit_code == 1 && strstr(r.err.data, "nonexistent.txt") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
    r = run("configs/amc-resnet20.toml", "ddpg", taken);
    cr_assert(r.exit_code == 2 && strstr(r.err.data, "no encoder") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
}

Test(search_compress, mistakes_of_the_config_are_told_with_exit_code_2) {
    static const char *const rows[][2] = {
        {"data.kind=cifar10", "\"cifar10\" needs data.path"},
        {"objectives.maximise=[\"psnr_y\"]", "use top1"},
        {"data.path=x", "built-in digits have no path"},
        {"compress.importance=luck", "l1"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const more[] = {rows[i][0], NULL};
        nas_process_result r = run("configs/compress.toml", "bad", more);
        cr_assert(r.exit_code == 2, "%s: %d", rows[i][0], r.exit_code);
        cr_assert(strstr(r.err.data, rows[i][1]) != NULL, "%s: %s", rows[i][0], r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_compress, an_unfit_model_or_an_unreachable_budget_says_what_is_wrong) {
    static const char *const missing[] = {"model.onnx=/nonexistent.onnx", "data.kind=cifar10",
                                          "data.path=/nonexistent.bin", NULL};
    static const char *const tight[] = {"constraints.macs=<= 1%", NULL};
    nas_process_result r = run("configs/compress.toml", "m", missing);
    cr_assert(r.exit_code == 1, "%d", r.exit_code);
    cr_assert(strstr(r.err.data, "nonexistent.onnx") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
    r = run("configs/compress.toml", "t", tight);
    cr_assert(r.exit_code == 1 && strstr(r.err.data, "lower space.min_ratio") == NULL, "%s",
              r.err.data);
    cr_assert(strstr(r.err.data, "the budget is") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
}

/* ---- what is timed -------------------------------------------------------------------------------------------------- */

static long count_timed(const char *name) {
    return (long)test_ask(
        ctx, folder, name,
        "SELECT count(*) FROM v_class WHERE trial > 0 AND reward_top1 IS NOT NULL "
        "AND latency_p50_ms IS NOT NULL");
}

Test(search_compress, candidates_that_another_beats_are_not_compiled) {
    static const char *const common[] = {"objectives.minimise=[\"latency_p50_ms\"]",
                                         "search.strategy=nsga2", "search.trials=12"};
    const char *const front[] = {common[0], common[1], common[2], NULL};
    const char *const all[] = {common[0], common[1], common[2], "compress.measure=all", NULL};
    nas_process_result r = run("configs/amc-resnet20.toml", "front", front);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    r = run("configs/amc-resnet20.toml", "all", all);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    const long timed = count_timed("front");
    cr_assert(timed >= 1 && timed < 12, "%ld of 12 timed", timed);
    cr_assert(count_timed("all") == 12, "%ld", count_timed("all"));
    cr_assert(test_ask(ctx, folder, "front",
                       "SELECT count(*) FROM v_class WHERE reward_top1 IS NOT NULL") == 13);
    cr_assert(test_ask(ctx, folder, "front",
                       "SELECT count(*) FROM v_class WHERE report_top1 IS NOT NULL AND "
                       "latency_p50_ms IS NULL") == 0);
}

Test(search_compress, under_a_latency_bound_only_what_is_near_it_is_compiled) {
    static const char *const tight[] = {"constraints.latency_p50_ms=<= 20%",
                                        "search.strategy=random", "search.trials=12", NULL};
    nas_process_result r = run("configs/compress.toml", "near", tight);
    cr_assert(r.exit_code == 0 || r.exit_code == 3, "%d: %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    const long timed = count_timed("near");
    cr_assert(timed < 12, "%ld of 12 timed", timed);
    cr_assert(test_ask(ctx, folder, "near",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND latency_p50_ms IS NULL"
                       " AND violation <= 0") == 0);
}

/* Accuracy is the only objective: the front of all is the most accurate network, which is too slow. */
Test(search_compress, under_a_latency_bound_the_best_feasible_network_is_finished) {
    static const char *const bound[] = {"objectives.minimise=[]",
                                        "constraints.latency_p50_ms=<= 40%",
                                        "compress.measure=all",
                                        "search.strategy=random",
                                        "search.trials=12",
                                        "eval.finetune_max=1",
                                        NULL};
    nas_process_result r = run("configs/compress.toml", "bound", bound);
    cr_assert(r.exit_code == 0, "%d: %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(test_ask(ctx, folder, "bound",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND report_top1 IS NOT NULL"
                       " AND violation <= 0 AND reward_top1 = (SELECT max(reward_top1) FROM v_class"
                       " WHERE trial > 0 AND violation <= 0)") == 1);
    cr_assert(test_ask(ctx, folder, "bound",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND violation > 0 AND"
                       " reward_top1 > (SELECT max(reward_top1) FROM v_class WHERE trial > 0 AND"
                       " violation <= 0)") > 0,
              "the bound leaves nothing out");
}

/* Lines of layers.csv after the heading, and how many of them end with a number: a measured ratio. */
static void count_ratios(const char *name, size_t *rows, size_t *measured) {
    char path[256], line[512];
    (void)snprintf(path, sizeof path, "%s/%s/best/layers.csv", folder, name);
    FILE *file = fopen(path, "r");
    cr_assert(file != NULL, "%s", path);
    cr_assert(fgets(line, sizeof line, file) != NULL);
    cr_assert(strstr(line, ",measured_ratio\n") != NULL, "%s", line);
    *rows = *measured = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        const double ratio = strtod(strrchr(line, ',') + 1, NULL);
        (*rows)++;
        *measured += ratio > 0.01 && ratio < 10; /* the machine may be busy */
    }
    (void)fclose(file);
}

Test(search_compress, the_layers_of_the_result_are_timed_against_dense_ones_where_something_runs) {
    static const char *const here[] = {"device.connect=local",
                                       "measure.min_time_ms=20",
                                       "measure.max_time_ms=300",
                                       "measure.final_max_time_ms=300",
                                       "constraints.latency_p50_ms=<= 1000%",
                                       "constraints.macs=<= 50%",
                                       "search.trials=4",
                                       "search.strategy=random",
                                       "eval.finetune_max=1",
                                       NULL};
    size_t rows = 0, measured = 0;
    nas_process_result r = run("configs/compress.toml", "here", here);
    cr_assert(r.exit_code == 0, "%d: %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    count_ratios("here", &rows, &measured);
    cr_assert(rows > 3 && measured == rows, "%zu of %zu measured", measured, rows);
    cr_assert(test_ask(ctx, folder, "here",
                       "SELECT count(*) FROM meta WHERE key LIKE 'layer times %'") == 1);
    static const char *const there[] = {"constraints.latency_p50_ms=<= 100%",
                                        "search.strategy=random", NULL};
    r = run("configs/compress.toml", "there", there);
    cr_assert(r.exit_code == 0, "%d: %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    count_ratios("there", &rows, &measured);
    cr_assert(rows > 3 && measured == 0, "%zu of %zu measured by nothing", measured, rows);
}

/* ---- what can be limited ---------------------------------------------------------------------------------------------- */

Test(search_compress, every_kind_of_limit_is_kept_in_percent_and_absolute) {
    static const char *const rows[][2] = {
        {"constraints.macs=<= 60%", "macs > 0.6 * (SELECT macs FROM v_class WHERE trial = 0)"},
        {"constraints.bops=<= 60%", "macs > 0.6 * (SELECT macs FROM v_class WHERE trial = 0)"},
        {"constraints.params=<= 60%",
         "params > 0.6 * (SELECT params FROM v_class WHERE trial = 0)"},
        {"constraints.params=<= 100000", "params > 100000"},
        {"constraints.weight_bytes=<= 400000", "4 * params > 400000"},
        {"constraints.weight_bytes=<= 60%",
         "params > 0.6 * (SELECT params FROM v_class WHERE trial = 0)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[16], sql[256];
        (void)snprintf(name, sizeof name, "limit%zu", i);
        const char *const more[] = {rows[i][0], "constraints.latency_p50_ms=<= 100%",
                                    "search.strategy=random", "search.trials=10", NULL};
        nas_process_result r = run("configs/compress.toml", name, more);
        cr_assert(r.exit_code == 0, "%s: %d %s", rows[i][0], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        (void)snprintf(sql, sizeof sql,
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND "
                       "report_top1 IS NOT NULL AND (%s)",
                       rows[i][1]);
        cr_assert(test_ask(ctx, folder, name, sql) == 0, "%s", rows[i][0]);
    }
}

/* ---- recalibration ---------------------------------------------------------------------------------------------------- */

/* Without any tuning the two networks differ by what was recalibrated alone. */
Test(search_compress, recalibration_changes_the_weights_of_a_result) {
    static const char *const keys[] = {"compress.recalibrate=false", "compress.recalibrate=true"};
    char hash[2][NAS_SHA256_HEX], path[256];
    for (int i = 0; i < 2; i++) {
        const char *const more[] = {keys[i], "eval.finetune_steps=0", "search.trials=1",
                                    "search.strategy=random", NULL};
        const char *name = i == 0 ? "plain" : "recalibrated";
        nas_process_result r = run("configs/amc-resnet20.toml", name, more);
        cr_assert(r.exit_code == 0, "%s: %d %s", keys[i], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        (void)snprintf(path, sizeof path, "%s/%s/best/model.onnx", folder, name);
        cr_assert(nas_sha256_file_hex(ctx, path, hash[i]) == NAS_OK, "%s", nas_ctx_message(ctx));
    }
    cr_assert(strcmp(hash[0], hash[1]) != 0);
}

/* ---- fine-tuning ------------------------------------------------------------------------------------------------------- */

/* Hash of a network of the study `name`. */
static void hash_of(const char *name, const char *file, char *hash) {
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s/%s", folder, name, file);
    cr_assert(nas_sha256_file_hex(ctx, path, hash) == NAS_OK, "%s", nas_ctx_message(ctx));
}

/* The teacher is another for compressed networks alone, the optimiser for the original, too. */
Test(search_compress, teacher_and_optimiser_of_fine_tuning_can_be_chosen) {
    static const char *const keys[][2] = {{"compress.optimizer=sgd", "compress.teacher=original"},
                                          {"compress.optimizer=sgd", "compress.teacher=tuned"},
                                          {"compress.optimizer=adam", "compress.teacher=original"}};
    static const char *const names[] = {"sgd", "taught", "adam"};
    char first[3][NAS_SHA256_HEX], best[3][NAS_SHA256_HEX];
    for (int i = 0; i < 3; i++) {
        const char *const more[] = {keys[i][0],
                                    keys[i][1],
                                    "eval.finetune_steps=3",
                                    "eval.finetune_learning_rate=0.01",
                                    "search.trials=1",
                                    "search.strategy=random",
                                    NULL};
        nas_process_result r = run("configs/amc-resnet20.toml", names[i], more);
        cr_assert(r.exit_code == 0, "%s: %d %s", names[i], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        hash_of(names[i], "tuned/0.onnx", first[i]);
        hash_of(names[i], "best/model.onnx", best[i]);
    }
    cr_assert(strcmp(first[0], first[1]) == 0 && strcmp(best[0], best[1]) != 0);
    cr_assert(strcmp(first[0], first[2]) != 0 && strcmp(best[0], best[2]) != 0);
}

/* The only tuned-<hash>.onnx of the cache becomes `content`. */
static void damage_tuned_original(const char *content) {
    char command[512];
    (void)snprintf(
        command, sizeof command,
        "set -- %s/cache/tuned-*.onnx && [ $# = 1 ] && [ -e \"$1\" ] && printf %%s '%s' >\"$1\"",
        folder, content);
    cr_assert(system(command) == 0, "%s", command);
}

/* Fine-tuning of the original is shared by studies that would all do the same, and by no others. */
Test(search_compress, the_original_is_fine_tuned_once_for_all_studies) {
    static const char *const names[] = {"one",    "two",     "other",    "again",
                                        "epochs", "average", "normalise"};
    static const char *const strategies[] = {"random", "greedy", "random", "random",
                                             "random", "random", "random"};
    static const char *const tuning[] = {"compress.distill=0.5",   "compress.distill=0.5",
                                         "compress.distill=0.25",  "compress.distill=0.5",
                                         "compress.epochs=true",   "compress.average=0.5",
                                         "compress.normalise=true"};
    static const bool before[] = {false, true, false, false, false, false, false};
    enum { STUDIES = 7 };
    char hash[STUDIES][NAS_SHA256_HEX];
    for (int i = 0; i < STUDIES; i++) {
        char strategy[64];
        (void)snprintf(strategy, sizeof strategy, "search.strategy=%s", strategies[i]);
        const char *const more[] = {strategy, tuning[i], "eval.finetune_steps=3", "search.trials=1",
                                    NULL};
        if (i == 2) damage_tuned_original("no model");
        nas_process_result r = run("configs/amc-resnet20.toml", names[i], more);
        cr_assert(r.exit_code == 0, "%s: %d %s", names[i], r.exit_code, r.err.data);
        cr_assert((strstr(r.err.data, "was fine-tuned before") != NULL) == before[i], "%s: %s",
                  names[i], r.err.data);
        cr_assert((strstr(r.err.data, "is fine-tuned again") != NULL) == (i == 3), "%s: %s",
                  names[i], r.err.data);
        nas_process_result_deinit(&r);
        hash_of(names[i], "tuned/0.onnx", hash[i]);
    }
    cr_assert(strcmp(hash[0], hash[1]) == 0 && strcmp(hash[0], hash[3]) == 0);
    cr_assert(strcmp(hash[0], hash[2]) != 0 && strcmp(hash[0], hash[4]) != 0 &&
              strcmp(hash[0], hash[5]) != 0 && strcmp(hash[0], hash[6]) != 0);
}

/* Normalisations are there while it trains and gone afterwards: the pruned network has the nodes of the original. */
Test(search_compress, a_study_fine_tunes_with_normalisations_put_back) {
    static const char *const more[] = {"compress.normalise=true", "eval.finetune_steps=12",
                                       "search.trials=2", "compress.optimizer=sgd", NULL};
    nas_process_result r = run("configs/agmc-resnet56.toml", "n", more);
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    nas_graph *g[3] = {NULL};
    static const char *const names[] = {"n/model.onnx", "n/tuned/0.onnx", "n/best/model.onnx"};
    for (int i = 0; i < 3; i++) {
        char path[512];
        const nas_onnx_import_options as_is = nas_onnx_import_options_default();
        (void)snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        cr_assert(nas_onnx_import(ctx, path, &as_is, &g[i]) == NAS_OK, "%s", nas_ctx_message(ctx));
        cr_assert_eq(nas_graph_node_count(g[i]), nas_graph_node_count(g[0]), "%s", names[i]);
        for (nas_value v = 0; v < nas_graph_node_count(g[i]); v++)
            cr_assert(nas_graph_node(g[i], v)->op != NAS_OP_BATCH_NORM, "%s", names[i]);
    }
    for (int i = 0; i < 3; i++)
        nas_graph_free(g[i]);
}

/* With hints, with or without normalisations, another network comes out, of the same nodes; the original has none. */
Test(search_compress, a_study_holds_values_against_those_of_the_teacher) {
    static const char *const ways[] = {"compress.hints=0", "compress.hints=2", "compress.hints=2"};
    static const char *const norms[] = {"compress.normalise=false", "compress.normalise=false",
                                        "compress.normalise=true"};
    static const char *const names[] = {"off", "on", "norms"};
    char original[3][NAS_SHA256_HEX], best[3][NAS_SHA256_HEX];
    for (int i = 0; i < 3; i++) {
        const char *const more[] = {ways[i],
                                    norms[i],
                                    "compress.teacher=tuned",
                                    "eval.finetune_steps=3",
                                    "search.trials=2",
                                    "eval.finetune_max=1",
                                    NULL};
        nas_process_result r = run("configs/agmc-resnet56.toml", names[i], more);
        cr_assert(r.exit_code == 0, "%s: %d %s", names[i], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        hash_of(names[i], "tuned/0.onnx", original[i]);
        hash_of(names[i], "best/model.onnx", best[i]);
    }
    cr_assert(strcmp(original[0], original[1]) == 0);
    cr_assert(strcmp(best[0], best[1]) != 0 && strcmp(best[1], best[2]) != 0);
}

/* Fitting the layers in turn is what changes a finalist that is not trained. */
Test(search_compress, finalists_are_fitted_in_turn) {
    static const char *const ways[] = {"compress.refit=false", "compress.refit=true"};
    static const char *const names[] = {"as-it-was", "fitted"};
    char hash[2][NAS_SHA256_HEX];
    for (int i = 0; i < 2; i++) {
        const char *const more[] = {ways[i], "eval.finetune_steps=0", "search.trials=2",
                                    "eval.finetune_max=1", NULL};
        nas_process_result r = run("configs/agmc-resnet56.toml", names[i], more);
        cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        char *row =
            test_query(ctx, folder, names[i],
                       "SELECT max(tuned_top1 - reward_top1), max(trial) FROM v_class WHERE "
                       "trial > 0 AND report_top1 IS NOT NULL");
        const double gained = strtod(row, NULL);
        cr_assert(i == 0 ? gained == 0 : gained > -5, "%s: %s", names[i], row);
        nas_free(row);
        hash_of(names[i], "best/model.onnx", hash[i]);
    }
    cr_assert(strcmp(hash[0], hash[1]) != 0);
}

/* ---- finalists --------------------------------------------------------------------------------------------------------- */

static nas_process_result run_finalists(const char *name) {
    static const char *const more[] = {"compress.finalists=3", "compress.finalist_steps=2",
                                       "eval.finetune_steps=5", "search.trials=6", NULL};
    return run("configs/agmc-resnet56.toml", name, more);
}

/* A folder where a network is to be written: that write fails. */
static void block(const char *name, const char *file, bool blocked) {
    char command[512];
    (void)snprintf(command, sizeof command, blocked ? "mkdir -p %s/%s/%s" : "rmdir %s/%s/%s",
                   folder, name, file);
    cr_assert(system(command) == 0, "%s", command);
}

/* The best by reward are tuned for a while; the one with the least cross-entropy goes on alone, for the rest of the steps. */
Test(search_compress, finalists_are_chosen_by_their_answers_after_a_short_tuning) {
    nas_process_result r = run_finalists("f");
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    cr_assert(strstr(r.err.data, "finalist 3 of 3: trial ") != NULL, "%s", r.err.data);
    cr_assert(strstr(r.err.data, " goes on, for 3 of 5 steps") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(test_ask(ctx, folder, "f",
                       "SELECT count(DISTINCT point) FROM v_class WHERE finalist_cross_entropy > "
                       "0") == 3);
    cr_assert(test_ask(ctx, folder, "f",
                       "SELECT min(CASE WHEN finalist_cross_entropy > 0 THEN reward_top1 END) >= "
                       "max(CASE WHEN finalist_cross_entropy IS NULL THEN reward_top1 END) FROM "
                       "v_class WHERE trial > 0") == 1);
    cr_assert(test_ask(ctx, folder, "f",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND report_top1 IS NOT NULL "
                       "AND finalist_cross_entropy = (SELECT min(finalist_cross_entropy) FROM "
                       "v_class)") == 1);
    cr_assert(test_ask(ctx, folder, "f",
                       "SELECT count(*) FROM v_class WHERE report_top1 IS NOT NULL") == 2);
    r = run_finalists("f"); /* finished: nothing is tuned again */
    cr_assert(r.exit_code == 0 && strstr(r.err.data, "finalist") == NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
}

/* The order in which they are tuned, from the log of a whole study, tells where to break another one. */
Test(search_compress, an_interrupted_choice_of_finalists_goes_on_where_it_was) {
    char file[64], whole[NAS_SHA256_HEX], resumed[NAS_SHA256_HEX];
    nas_process_result r = run_finalists("whole");
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    const char *second = strstr(r.err.data, "finalist 2 of 3: trial ");
    cr_assert(second != NULL, "%s", r.err.data);
    (void)snprintf(file, sizeof file, "finalists/%ld.onnx",
                   strtol(second + strlen("finalist 2 of 3: trial "), NULL, 10));
    nas_process_result_deinit(&r);
    block("broken", file, true);
    r = run_finalists("broken");
    cr_assert(r.exit_code != 0 && strstr(r.err.data, "finalist 1 of 3: trial ") != NULL, "%s",
              r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(test_ask(ctx, folder, "broken",
                       "SELECT count(*) FROM v_class WHERE finalist_cross_entropy > 0") == 1);
    block("broken", file, false);
    r = run_finalists("broken");
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    cr_assert(strstr(r.err.data, "finalist 1 of 3 was tuned before") != NULL &&
                  strstr(r.err.data, "finalist 2 of 3: trial ") != NULL,
              "%s", r.err.data);
    nas_process_result_deinit(&r);
    hash_of("whole", "best/model.onnx", whole);
    hash_of("broken", "best/model.onnx", resumed);
    cr_assert(strcmp(whole, resumed) == 0);
}

Test(search_compress, finalists_that_nothing_can_be_chosen_of_are_mistakes_of_the_config) {
    static const char *const rows[][3] = {
        {"configs/agmc-resnet56.toml", "compress.finalist_steps=20", "must be less"},
        {"configs/compress.toml", "compress.finalist_steps=1", "top1 must be the only objective"},
        {"configs/mixed.toml", "compress.finalist_steps=1", "has no finalists"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const more[] = {"compress.finalists=2", rows[i][1], NULL};
        nas_process_result r = run(rows[i][0], "bad", more);
        cr_assert(r.exit_code == 2 && strstr(r.err.data, rows[i][2]) != NULL, "%s: %d %s",
                  rows[i][0], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
    }
}
