/* test_joint.c - nas-search chooses channels, patterns and bits in one study: from end to end, limits, resuming, what does not
 * fit; and bits of each value. */
#include "tests/search/program.h"

#include "search/compress_joint.h"

#include <criterion/criterion.h>

#include <math.h>
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

TestSuite(search_joint, .init = setup, .fini = teardown, .timeout = 900);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

static nas_process_result run(const char *config, const char *name, const char *const *more) {
    static const char *const less[] = {"eval.finetune_steps=3",
                                       "eval.finetune_max=1",
                                       "compress.positions=10",
                                       "compress.calibration_images=20",
                                       "search.trials=8",
                                       "compile.timeout_s=250", /* a busy machine */
                                       NULL};
    return test_small_study(ctx, folder, config, name, less, more);
}

static void done(nas_process_result *r, const char *name) {
    cr_assert(r->exit_code == 0, "%s: %d %s", name, r->exit_code, r->err.data);
    nas_process_result_deinit(r);
}

/* ---- tables ------------------------------------------------------------------------------------------------------------- */

static nas_buf read_best(const char *name, const char *file) {
    char path[256];
    nas_buf text = {0};
    (void)snprintf(path, sizeof path, "%s/%s/best/%s", folder, name, file);
    OK(nas_file_read(ctx, path, 1 << 20, &text));
    return text;
}

/* Number `column` (from 0, names are in column 0 and have no commas) of a line. */
static double field(const char *line, int column) {
    for (; column > 0; column--)
        line += strcspn(line, ",\n") + 1;
    return strtod(line, NULL);
}

static const char *next_line(const char *line) {
    line += strcspn(line, "\n");
    return *line == '\n' && line[1] != '\0' ? line + 1 : NULL;
}

enum {
    KEPT_IN = 2,
    OUT = 3,
    KEPT_OUT = 4,
    RATE = 7,
    BITS = 8,
    INPUT_BITS = 9,
    WEIGHTS = 10,
    BYTES = 12
};

/* The delivered network has fewer channels and fewer bits, layers.csv tells them, and the row of its trial counted what is there:
 * weights that stay, and a bias for each output. */
static void check_tables(const char *name) {
    nas_buf recipe = read_best(name, "recipe.json");
    const char *trial = strstr(recipe.data, "\"trial\":");
    char sql[96];
    cr_assert(trial != NULL && strstr(recipe.data, "channel_groups") != NULL);
    (void)snprintf(sql, sizeof sql, "SELECT params FROM v_class WHERE trial = %ld",
                   strtol(trial + strlen("\"trial\":"), NULL, 10));
    nas_buf_deinit(&recipe);
    nas_buf layers = read_best(name, "layers.csv"), groups = read_best(name, "groups.csv");
    double narrow = 0, coarse = 0, lines = 0, params = 0;
    for (const char *l = next_line(layers.data); l != NULL; l = next_line(l), lines++) {
        narrow += field(l, KEPT_OUT) < field(l, OUT);
        coarse += field(l, BITS) < 8;
        params += nearbyint(field(l, WEIGHTS) * (1 - field(l, RATE))) + field(l, KEPT_OUT);
        cr_assert(field(l, INPUT_BITS) == 4 || field(l, INPUT_BITS) == 8, "%s", l);
        cr_assert(field(l, BYTES) <=
                      field(l, WEIGHTS) * field(l, BITS) / 8 + 4 * field(l, KEPT_OUT) + 1,
                  "%s", l);
    }
    cr_assert(lines == 16 && narrow > 0 && coarse > 0, "%s", layers.data);
    cr_assert(test_ask(ctx, folder, name, sql) == params, "%g, not %g",
              test_ask(ctx, folder, name, sql), params);
    for (const char *l = next_line(groups.data); l != NULL; l = next_line(l))
        cr_assert(field(l, 2) >= 4 && field(l, 2) <= field(l, 1), "%s", l);
    nas_buf_deinit(&layers);
    nas_buf_deinit(&groups);
}

/* ---- studies ------------------------------------------------------------------------------------------------------------ */

Test(search_joint, a_study_ends_with_a_network_of_fewer_channels_and_fewer_bits_that_compiles) {
    static const char *const limits[] = {"constraints.bops=<= 2%", "constraints.weight_bytes=<= 8%",
                                         "constraints.params=<= 60%", "constraints.macs=<= 55%",
                                         NULL};
    nas_process_result r = run("configs/joint.toml", "all", limits);
    done(&r, "all");
    cr_assert(
        test_ask(ctx, folder, "all",
                 "SELECT count(*) FROM v_class WHERE trial > 0 AND reward_top1 IS NOT NULL") == 8);
    static const char *const over =
        "SELECT count(*) FROM v_class AS t, (SELECT * FROM v_class WHERE trial = 0) AS o WHERE "
        "t.trial > 0 AND (t.bops > 0.02 * o.bops OR t.weight_bytes > 0.08 * o.weight_bytes OR "
        "t.params > 0.6 * o.params OR t.macs > 0.55 * o.macs)";
    cr_assert(test_ask(ctx, folder, "all", over) == 0);
    cr_assert(test_ask(ctx, folder, "all", "SELECT max(violation) FROM v_class WHERE trial > 0") ==
              0);
    cr_assert(test_ask(ctx, folder, "all",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND report_top1 IS NOT "
                       "NULL") > 0);
    check_tables("all");
    test_compile_best(ctx, folder, "all");
    cr_assert(test_exists(folder, "all/best/model_qdq.onnx") &&
              test_exists(folder, "all/best/model.c"));
}

/* Nothing is left out: channels and bits alone. */
Test(search_joint, patterns_can_be_left_out) {
    static const char *const plan[] = {"compress.patterns=none", "--dry-run", NULL};
    nas_process_result r = run("configs/joint.toml", "bare", plan);
    cr_assert(strstr(r.out.data, "weights: dense/3 dense/4 dense/6 dense/8;") != NULL, "%s",
              r.out.data);
    done(&r, "bare");
}

/* Candidates are timed and compared with the integer program, and the recipe's program is the file's. */
Test(search_joint, candidates_are_timed_under_a_bound_on_the_latency) {
    static const char *const more[] = {"device.connect=local",
                                       "measure.max_time_ms=60",
                                       "measure.min_time_ms=20",
                                       "measure.final_max_time_ms=60",
                                       "search.trials=1",
                                       "constraints.latency_p50_ms=<= 90%",
                                       NULL};
    nas_process_result r = run("configs/joint.toml", "timed", more);
    cr_assert(r.exit_code == 0 || r.exit_code == 3, "%d %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    cr_assert(test_ask(ctx, folder, "timed",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND latency_p50_ms > 0") > 0);
}

Test(search_joint, a_resumed_study_and_a_small_memory_propose_and_score_the_same) {
    static const char *const some[] = {"search.trials=5", "constraints.bops=<= 3%", NULL};
    static const char *const all[] = {"search.trials=9", "constraints.bops=<= 3%", NULL};
    static const char *const tight[] = {"search.trials=9", "constraints.bops=<= 3%",
                                        "compress.cache_mb=1", NULL};
    static const char *const sum = "SELECT group_concat(point || reward_top1 || weight_bytes || "
                                   "bops) FROM v_class WHERE trial > 0";
    const struct {
        const char *name;
        const char *const *more;
    } runs[] = {{"a", some}, {"a", all}, {"b", all}, {"c", tight}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        nas_process_result r = run("configs/joint.toml", runs[i].name, runs[i].more);
        done(&r, runs[i].name);
    }
    char *a = test_query(ctx, folder, "a", sum), *b = test_query(ctx, folder, "b", sum),
         *c = test_query(ctx, folder, "c", sum);
    cr_assert(strlen(b) > 100 && strcmp(a, b) == 0 && strcmp(b, c) == 0, "%s\n%s\n%s", a, b, c);
    nas_free(a);
    nas_free(b);
    nas_free(c);
}

Test(search_joint, every_strategy_keeps_within_the_limits) {
    static const char *const names[] = {"greedy", "ddpg", "agmc"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char strategy[64];
        (void)snprintf(strategy, sizeof strategy, "search.strategy=%s", names[i]);
        const char *const more[] = {strategy,
                                    "constraints.bops=<= 2%",
                                    "constraints.weight_bytes=<= 8%",
                                    "compress.warm_start=false",
                                    "compress.calibrate=dense",
                                    "search.trials=6",
                                    NULL};
        nas_process_result r = run("configs/joint.toml", names[i], more);
        done(&r, names[i]);
        cr_assert(test_ask(ctx, folder, names[i],
                           "SELECT max(violation) FROM v_class WHERE trial > 0") == 0);
    }
}

/* Groups of four outputs do not fit 6 channels: the point says what the layer has instead. */
Test(search_joint, levels_that_do_not_fit_are_named_in_the_row) {
    static const char *const more[] = {"compress.channel_step=2",   "compress.patterns=1x4",
                                       "search.strategy=random",    "compress.warm_start=false",
                                       "compress.keep_edges=false", NULL};
    nas_process_result r = run("configs/joint.toml", "fit", more);
    done(&r, "fit");
    cr_assert(test_ask(ctx, folder, "fit",
                       "SELECT count(*) FROM v_class WHERE point LIKE '%1x4@0.5/_>dense/_%'") > 0);
}

Test(search_joint, the_plan_lists_groups_layers_and_values) {
    static const char *const plan[] = {"--dry-run", NULL};
    nas_process_result r = run("configs/joint.toml", "plan", plan);
    cr_assert(strstr(r.out.data, "9 groups of channels") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, " 1x4@0.5/3 ") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, "value 1, stem.relu: 4 8 bits") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, "then layers compressed in turn") != NULL, "%s", r.out.data);
    done(&r, "plan");
    cr_assert(!test_exists(folder, "plan"));
}

/* ---- bits of each value --------------------------------------------------------------------------------------------------- */

Test(search_joint, values_have_bits_of_their_own_in_spaces_of_levels) {
    static const char *const more[] = {
        "compress.act_bits=0",       "compress.act_bits_list=\"4,8\"",
        "compress.bits=\"8\"",       "search.strategy=random",
        "compress.warm_start=false", "constraints.weight_bytes=<= 50%",
        "constraints.bops=<= 4.5%",  NULL};
    const char *config = "configs/bits.toml";
    static const char *const less[] = {"eval.finetune_max=1", "compress.positions=10",
                                       "compress.calibration_images=20", "compile.timeout_s=250",
                                       NULL};
    nas_process_result r = test_small_study(ctx, folder, config, "acts", less, more);
    done(&r, "acts");
    /* all weights have 8 bits: what differs are the activations */
    cr_assert(test_ask(ctx, folder, "acts",
                       "SELECT count(DISTINCT bops) FROM v_class WHERE trial > 0") > 1);
    cr_assert(test_ask(ctx, folder, "acts",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND (bops > macs * 64 OR "
                       "bops < macs * 32)") == 0);
    nas_buf layers = read_best("acts", "layers.csv");
    int narrow = 0, wide = 0;
    for (const char *l = next_line(layers.data); l != NULL; l = next_line(l)) {
        narrow += field(l, 4) == 4;
        wide += field(l, 4) == 8;
    }
    cr_assert(narrow > 0 && wide > 1, "%s", layers.data); /* the image has 8 */
    nas_buf_deinit(&layers);
    test_compile_best(ctx, folder, "acts");
}

Test(search_joint, mistakes_are_told) {
    static const struct {
        const char *config, *set, *message;
        int code;
    } rows[] = {
        {"configs/joint.toml", "compress.act_bits_list=\"4,9\"", "'9': bits are 2 to 8", 2},
        {"configs/joint.toml", "compress.act_bits=8", "leave one of them out", 2},
        {"configs/joint.toml", "compress.bits=\"8,32\"", "offers 32, floats", 2},
        {"configs/scheme.toml", "compress.act_bits_list=\"4,8\"", "use bits, mixed or joint", 2},
        {"configs/joint.toml", "constraints.weight_bytes=<= 0.1%", "the smallest network has", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[16];
        const char *const more[] = {rows[i].set, NULL};
        static const char *const none[] = {NULL};
        (void)snprintf(name, sizeof name, "bad%zu", i);
        nas_process_result r = test_small_study(ctx, folder, rows[i].config, name, none, more);
        cr_assert(r.exit_code == rows[i].code, "%s: %d %s", rows[i].set, r.exit_code, r.err.data);
        cr_assert(strstr(r.err.data, rows[i].message) != NULL, "%s: %s", rows[i].set, r.err.data);
        nas_process_result_deinit(&r);
    }
}
