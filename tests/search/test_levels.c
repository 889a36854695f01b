/* test_levels.c - nas-search chooses bits and patterns of layers: small studies from end to end, costs against hand counts,
 * resuming, mistakes. */
#include "tests/search/program.h"

#include "search/compress_levels.h"

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

TestSuite(search_levels, .init = setup, .fini = teardown, .timeout = 900);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

static nas_process_result run(const char *config, const char *name, const char *const *more) {
    static const char *const less[] = {"eval.finetune_max=1",
                                       "compress.positions=10",
                                       "compress.calibration_images=20",
                                       "compress.bits=4,8",
                                       "compress.rates=\"0.75\"",
                                       "compress.patterns=1x4",
                                       NULL};
    return test_small_study(ctx, folder, config, name, less, more);
}

static bool exists(const char *name) {
    return test_exists(folder, name);
}

Test(search_levels, a_study_of_each_space_ends_with_a_front_and_a_network_that_compiles) {
    static const struct {
        const char *config, *name, *limit, *excess;
    } rows[] = {
        {"configs/bits.toml", "bits", "constraints.weight_bytes=<= 20%",
         "weight_bytes > 0.2 * (SELECT weight_bytes FROM v_class WHERE trial = 0)"},
        {"configs/scheme.toml", "scheme", "constraints.macs=<= 60%",
         "macs > 0.6 * (SELECT macs FROM v_class WHERE trial = 0)"},
        {"configs/mixed.toml", "mixed", "constraints.bops=<= 20%",
         "bops > 0.2 * (SELECT bops FROM v_class WHERE trial = 0)"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const more[] = {rows[i].limit, NULL};
        char sql[256], file[64];
        nas_process_result r = run(rows[i].config, rows[i].name, more);
        cr_assert(r.exit_code == 0, "%s: %d %s", rows[i].name, r.exit_code, r.err.data);
        cr_assert(strstr(r.out.data, rows[i].name) != NULL, "%s", r.out.data);
        cr_assert(test_ask(ctx, folder, rows[i].name,
                           "SELECT count(*) FROM v_class WHERE trial > 0 AND "
                           "reward_top1 IS NOT NULL") == 5);
        (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM v_class WHERE trial > 0 AND (%s)",
                       rows[i].excess);
        cr_assert(test_ask(ctx, folder, rows[i].name, sql) == 0, "%s", rows[i].excess);
        static const char *const files[] = {"model.onnx", "model.c", "recipe.json", "layers.csv",
                                            "model_qdq.onnx"};
        for (int k = 0; k < 5; k++) {
            (void)snprintf(file, sizeof file, "%s/best/%s", rows[i].name, files[k]);
            cr_assert(exists(file) == (k < 4 || strcmp(rows[i].name, "scheme") != 0), "%s", file);
        }
        test_compile_best(ctx, folder, rows[i].name);
        const char *const deliver[] = {rows[i].limit, "--deliver=front", NULL};
        nas_process_result again = run(rows[i].config, rows[i].name, deliver);
        cr_assert(again.exit_code == 0, "%s", again.err.data);
        cr_assert(strcmp(r.out.data, again.out.data) == 0);
        const double member = test_ask(ctx, folder, rows[i].name,
                                       "SELECT max(trial) FROM v_class WHERE trial > 0 "
                                       "AND report_top1 IS NOT NULL");
        for (int k = 0; k < 5; k++) {
            (void)snprintf(file, sizeof file, "%s/trial-%.0f/%s", rows[i].name, member, files[k]);
            cr_assert(exists(file) == (k < 4 || strcmp(rows[i].name, "scheme") != 0), "%s", file);
        }
        nas_process_result_deinit(&again);
        nas_process_result_deinit(&r);
    }
}

/* Both files of best/ make the kernels of integers that the bundle has. */
static void check_integers(const char *name) {
    char onnx[256], quantized[256], recipe[256], source[256];
    nas_buf text = {0};
    (void)snprintf(onnx, sizeof onnx, "%s/%s/best/model.onnx", folder, name);
    (void)snprintf(quantized, sizeof quantized, "%s/%s/best/model_qdq.onnx", folder, name);
    (void)snprintf(recipe, sizeof recipe, "%s/%s/best/recipe.json", folder, name);
    (void)snprintf(source, sizeof source, "%s/%s/best/model.c", folder, name);
    nas_process_result r = test_run(
        ctx, "nas-compile", (const char *const[]){onnx, "--recipe", recipe, "--explain", NULL});
    nas_process_result q =
        test_run(ctx, "nas-compile", (const char *const[]){quantized, "--explain", NULL});
    cr_assert(r.exit_code == 0 && q.exit_code == 0, "%s%s", r.err.data, q.err.data);
    cr_assert(strstr(r.out.data, "integer conv") != NULL, "%s", r.out.data);
    cr_assert(strcmp(r.out.data, q.out.data) == 0, "%s\n%s", r.out.data, q.out.data);
    OK(nas_file_read(ctx, source, 1 << 24, &text));
    cr_assert(strstr(text.data, "q_") != NULL); /* helpers of integer kernels */
    nas_buf_deinit(&text);
    nas_process_result_deinit(&q);
    nas_process_result_deinit(&r);
}

/* Timed here: what is scored is compared with the integer program. A layer's 8 bits times those of what it reads, and no more. */
Test(search_levels, activations_of_integers_are_scored_timed_and_delivered) {
    static const char *const more[] = {"compress.act_bits=4",
                                       "compress.bits=\"8\"",
                                       "device.connect=local",
                                       "measure.max_time_ms=60",
                                       "measure.min_time_ms=20",
                                       "measure.final_max_time_ms=60",
                                       "search.trials=2",
                                       "constraints.weight_bytes=<= 50%",
                                       NULL};
    nas_process_result r = run("configs/mixed.toml", "codes", more);
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    cr_assert(test_ask(ctx, folder, "codes",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND bops > macs * 64 OR "
                       "trial > 0 AND bops < macs * 32") == 0);
    cr_assert(test_ask(ctx, folder, "codes",
                       "SELECT count(*) FROM v_class WHERE trial > 0 AND bops < macs * 60") > 0);
    check_integers("codes");
    nas_process_result_deinit(&r);
}

/* More trials of a finished study are what they are in one go; whatever does not fit the memory is in files. */
Test(search_levels, a_resumed_study_and_a_small_memory_propose_and_score_the_same) {
    static const char *const some[] = {"search.trials=4", "search.strategy=greedy",
                                       "compress.calibrate=dense",
                                       "constraints.weight_bytes=<= 20%", NULL};
    static const char *const all[] = {"search.trials=8", "search.strategy=greedy",
                                      "compress.calibrate=dense", "constraints.weight_bytes=<= 20%",
                                      NULL};
    static const char *const tight[] = {
        "search.trials=8",          "search.strategy=greedy",
        "compress.calibrate=dense", "constraints.weight_bytes=<= 20%",
        "compress.cache_mb=1",      NULL};
    static const char *const sum =
        "SELECT sum(reward_top1 * trial) + sum(weight_bytes % 1009 * trial) FROM v_class";
    const struct {
        const char *name;
        const char *const *more;
    } runs[] = {{"a", some}, {"a", all}, {"b", all}, {"c", tight}};
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        nas_process_result r = run("configs/bits.toml", runs[i].name, runs[i].more);
        cr_assert(r.exit_code == 0, "%s: %d %s", runs[i].name, r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
    }
    cr_assert(test_ask(ctx, folder, "b", "SELECT count(*) FROM v_class") == 9);
    cr_assert(test_ask(ctx, folder, "a", sum) == test_ask(ctx, folder, "b", sum), "%g, %g",
              test_ask(ctx, folder, "a", sum), test_ask(ctx, folder, "b", sum));
    cr_assert(test_ask(ctx, folder, "c", sum) == test_ask(ctx, folder, "b", sum), "%g, %g",
              test_ask(ctx, folder, "c", sum), test_ask(ctx, folder, "b", sum));
    cr_assert(exists("c/levels") && !exists("b/levels"));
}

Test(search_levels, agents_decide_layer_by_layer_within_the_limit) {
    static const char *const names[] = {"ddpg", "agmc"};
    for (int i = 0; i < 2; i++) {
        char strategy[64];
        (void)snprintf(strategy, sizeof strategy, "search.strategy=%s", names[i]);
        const char *const more[] = {strategy, "constraints.weight_bytes=<= 20%",
                                    "compress.calibrate=dense", "compress.warm_start=false", NULL};
        nas_process_result r = run("configs/bits.toml", names[i], more);
        cr_assert(r.exit_code == 0, "%s: %d %s", names[i], r.exit_code, r.err.data);
        nas_process_result_deinit(&r);
        cr_assert(test_ask(ctx, folder, names[i],
                           "SELECT max(violation) FROM v_class WHERE trial > 0") == 0);
    }
}

Test(search_levels, the_plan_lists_what_each_layer_may_become) {
    static const char *const plan[] = {"--dry-run", NULL};
    nas_process_result r = run("configs/mixed.toml", "plan", plan);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    cr_assert(strstr(r.out.data, " dense/8\n") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, " 1x4@0.75/4 ") != NULL, "%s", r.out.data);
    cr_assert(!exists("plan"));
    nas_process_result_deinit(&r);
}

Test(search_levels, mistakes_are_told) {
    static const struct {
        const char *set, *message;
        int code;
    } rows[] = {{"compress.patterns=\"1x4,zigzag\"", "pattern 'zigzag' is not known", 2},
                {"compress.patterns=\"1x4,1x4\"", "twice", 2},
                {"compress.bits=\"4,9\"", "'9': bits are 2 to 8", 2},
                {"compress.rates=\"0.5,1\"", "'1': rates are above 0 and below 1", 2},
                {"eval.finetune_steps=5", "does not train", 2},
                {"compress.act_bits=1", "activations have 2 to 8 bits", 2},
                {"compress.act_bits=9", "act_bits", 2},
                {"compress.gains_device=\"phone\"", "names a device of compress.gains", 2},
                {"compress.gains=\"/nonexistent.db\"", "compress.gains", 1},
                {"constraints.weight_bytes=\"<= 1%\"", "the smallest network has", 1}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[16];
        const char *const more[] = {rows[i].set, NULL};
        (void)snprintf(name, sizeof name, "bad%zu", i);
        nas_process_result r = run("configs/mixed.toml", name, more);
        cr_assert(r.exit_code == rows[i].code, "%s: %d %s", rows[i].set, r.exit_code, r.err.data);
        cr_assert(strstr(r.err.data, rows[i].message) != NULL, "%s: %s", rows[i].set, r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_levels, activations_of_integers_ask_for_integer_weights) {
    static const struct {
        const char *config, *set, *message;
    } rows[] = {{"configs/bits.toml", "compress.bits=\"4,32\"", "offers 32, floats"},
                {"configs/scheme.toml", "compress.act_bits=8", "leaves weights as floats"}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const more[] = {rows[i].set, NULL};
        nas_process_result r = run(rows[i].config, "no", more);
        cr_assert(r.exit_code == 2 && strstr(r.err.data, rows[i].message) != NULL, "%s",
                  r.err.data);
        nas_process_result_deinit(&r);
    }
}

/* ---- the list of levels ------------------------------------------------------------------------------------------------ */

static nas_graph *small_net(void) {
    nas_graph *g = NULL;
    nas_rng rng = nas_rng_stream(1, 0, "levels");
    OK(nas_small_resnet_graph(ctx, 16, 16, 3, 10, &g));
    OK(nas_class_init(ctx, g, &rng));
    return g;
}

static nas_config config_of(const char *space) {
    nas_config c;
    nas_config_default(&c);
    (void)snprintf(c.compress.space, sizeof c.compress.space, "%s", space);
    return c;
}

static const nas__level *find(const nas__level_list *list, size_t layer, const char *text) {
    const nas__level_layer *at = &list->layers[layer];
    const size_t end = at->first + (size_t)(at->n_forms * at->n_bits);
    size_t k = at->first;
    while (k < end && strcmp(list->levels[k].text, text) != 0)
        k++;
    cr_assert(k < end, "layer %zu has no level %s", layer, text);
    return &list->levels[k];
}

/* The second convolution is 3x3, 16 to 16 channels on 16 x 16: 2304 weights, 256 pixels. */
Test(search_levels, costs_are_those_counted_by_hand) {
    nas_graph *g = small_net();
    nas_config c = config_of("bits");
    nas__level_list list;
    OK(nas__level_list_make(ctx, &c, g, NULL, &list));
    const nas__level *l = find(&list, 1, "4");
    cr_assert(l->costs[NAS_LEVEL_BYTES] == 2304 * 4 / 8 + 4 * 16);
    cr_assert(l->costs[NAS_LEVEL_MACS] == 2304.0 * 256);
    cr_assert(l->costs[NAS_LEVEL_BOPS] == 2304.0 * 256 * 4 * 32);
    cr_assert(list.layers[0].is_edge && list.layers[0].n_bits == 1); /* 8 bits and no other */
    cr_assert(find(&list, 0, "8")->costs[NAS_LEVEL_BYTES] == 3 * 9 * 16 + 4 * 16);
    cr_assert(list.layers[list.n_layers - 1].is_edge && !list.layers[1].is_edge);
    nas__level_list_deinit(&list);
    c = config_of("mixed");
    OK(nas__level_list_make(ctx, &c, g, NULL, &list));
    l = find(&list, 1, "1x4@0.5/4");
    cr_assert(l->kept == 1152 && l->costs[NAS_LEVEL_PARAMS] == 1152);
    cr_assert(l->costs[NAS_LEVEL_BOPS] == 1152.0 * 256 * 4 * 32);
    /* lists: 288 groups of four share an index of 16 bits, four beginnings of 32; else 2304 bits of mask */
    const double lists = 288 * 2 + 1152 * 4 / 8 + 5 * 4, mask = 2304 / 8 + 1152 * 4 / 8;
    const double least = fmin(lists, mask);
    cr_assert(fabs(l->costs[NAS_LEVEL_BYTES] - least - 4 * 16) <= 4, "%g, %g",
              l->costs[NAS_LEVEL_BYTES], least);
    nas__level_list_deinit(&list);
    nas_graph_free(g);
}

Test(search_levels, a_pattern_is_offered_where_its_groups_fit) {
    nas_graph *g = small_net();
    nas_config c = config_of("scheme");
    nas__level_list list;
    c.compress.keep_edges = false;
    (void)snprintf(c.compress.patterns, sizeof c.compress.patterns, "1x32,2:4,pattern");
    OK(nas__level_list_make(ctx, &c, g, NULL, &list));
    for (size_t i = 0; i < list.n_layers; i++) {
        const nas__level_layer *at = &list.layers[i];
        const nas_node *node = nas_graph_node(g, at->conv);
        const int32_t in = nas_graph_node(g, node->inputs[0])->shape.c;
        int wide = 0, pairs = 0, shapes = 0;
        double before = 0;
        for (size_t k = at->first; k < at->first + (size_t)at->n_forms; k++) {
            const nas__level *l = &list.levels[k];
            wide += strncmp(l->text, "1x32", 4) == 0;
            pairs += strcmp(l->text, "2:4") == 0;
            shapes += strncmp(l->text, "pattern", 7) == 0;
            cr_assert((double)l->kept >= before, "levels rise");
            before = (double)l->kept;
        }
        cr_assert(wide == (node->shape.c % 32 == 0 ? 2 : 0), "%s", node->name);
        cr_assert(pairs == (in % 4 == 0), "%s", node->name);
        cr_assert(shapes == (node->conv.kernel_h == 3 ? 2 : 0), "%s", node->name);
        cr_assert(strcmp(list.levels[at->first + (size_t)at->n_forms - 1].text, "dense") == 0);
    }
    nas__level_list_deinit(&list);
    nas_graph_free(g);
}

/* One pair measured to lose, one to gain. */
Test(search_levels, pairs_by_which_the_device_does_not_gain_are_dropped_and_named) {
    nas_graph *g = small_net();
    nas_config c = config_of("scheme");
    char file[256];
    nas_db *db = NULL;
    nas_db_sparse_cell cell = {.fingerprint = "f",
                               .device = "native",
                               .target = "t",
                               .layer = {3, 1, 16, 16, 16, 16, 32},
                               .pattern = "1x4",
                               .dense = "d",
                               .sparse = "s",
                               .dense_ns = 100};
    (void)snprintf(file, sizeof file, "%s/cells.db", folder);
    OK(nas_mkdirs(ctx, folder));
    OK(nas_db_open(ctx, file, &db));
    cell.rate = 0.5;
    cell.sparse_ns = 125;
    OK(nas_db_sparse_put(ctx, db, &cell, NULL));
    cell.rate = 0.75;
    cell.sparse_ns = 80;
    OK(nas_db_sparse_put(ctx, db, &cell, NULL));
    const nas__sparse_judge judge = {.db = db, .fingerprint = "f", .bits = 32};
    nas__level_list list;
    OK(nas__level_list_make(ctx, &c, g, &judge, &list));
    cr_assert(strstr(list.dropped.data, "1x4 at 50 % is 0.80 times as fast as dense") != NULL, "%s",
              list.dropped.data);
    const nas__level_layer *at = &list.layers[1];
    for (size_t k = at->first; k < at->first + (size_t)at->n_forms; k++)
        cr_assert(strcmp(list.levels[k].text, "1x4@0.5") != 0);
    cr_assert(fabs(find(&list, 1, "1x4@0.75")->gain - 1.25) < 1e-9);
    cr_assert(list.unmeasured > 0 && list.unmeasured < list.asked);
    nas__level_list_deinit(&list);
    OK(nas_db_close(ctx, db));
    char gains[300];
    (void)snprintf(gains, sizeof gains, "compress.gains=%s", file);
    const char *const plan[] = {gains, "compress.rates=\"0.5,0.75\"", "--dry-run", NULL};
    nas_process_result r = run("configs/scheme.toml", "gains", plan);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    cr_assert(strstr(r.out.data, "1x4 at 50 % is 0.80 times") != NULL, "%s", r.out.data);
    nas_process_result_deinit(&r);
    nas_graph_free(g);
}

/* The first convolution reads the image, of 8 bits; the second a ReLU. Depthwise layers get 8-bit weights. */
Test(search_levels, bit_operations_count_the_bits_of_activations) {
    nas_graph *g = small_net();
    nas_config c = config_of("bits");
    nas__level_list list;
    c.compress.act_bits = 4;
    OK(nas__level_list_make(ctx, &c, g, NULL, &list));
    const nas__level *l = find(&list, 0, "8");
    cr_assert(l->costs[NAS_LEVEL_BOPS] == l->costs[NAS_LEVEL_MACS] * 8 * 8);
    l = find(&list, 1, "3");
    cr_assert(l->costs[NAS_LEVEL_BOPS] == 2304.0 * 256 * 3 * 4);
    cr_assert(list.fixed[NAS_LEVEL_BOPS] == 0);
    nas__level_list_deinit(&list);
    nas_graph_free(g);

    nas_value x = 0, deep = 0, out = 0;
    nas_conv_attributes each = nas_conv_same(8, 3), one = nas_conv_same(4, 1);
    each.groups = 8;
    g = nas_graph_new(ctx, "deep");
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 6, 6, 8}, &x));
    OK(nas_graph_add_conv(ctx, g, "deep", x, &each, &deep));
    OK(nas_graph_add_conv(ctx, g, "out", deep, &one, &out));
    OK(nas_graph_set_output(ctx, g, out));
    OK(nas_graph_alloc_weights(ctx, g));
    OK(nas__level_list_make(ctx, &c, g, NULL, &list));
    cr_assert(list.fixed[NAS_LEVEL_BOPS] == 8.0 * 9 * 36 * 8 * 8);
    cr_assert(list.fixed[NAS_LEVEL_BYTES] == 8 * 9 + 8 * 4 + (8 + 4) * 4); /* and biases */
    nas__level_list_deinit(&list);
    nas_graph_free(g);
}

/* Values that meet in a concatenation share a grid: two ReLUs stay narrow through it, a ReLU beside a signed value gets 8 bits. */
Test(search_levels, bit_operations_behind_a_concatenation_are_those_of_the_shared_grid) {
    static const struct {
        bool both; /* branches end in a ReLU */
        double bits;
    } rows[] = {{true, 4}, {false, 8}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        nas_config c = config_of("bits");
        nas__level_list list;
        nas_value x = 0, a = 0, b = 0, out = 0;
        const nas_conv_attributes four = nas_conv_same(4, 1);
        nas_graph *g = nas_graph_new(ctx, "branches");
        OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 6, 6, 8}, &x));
        OK(nas_graph_add_conv(ctx, g, "a", x, &four, &a));
        OK(nas_graph_add_relu(ctx, g, "a.act", a, &a));
        OK(nas_graph_add_conv(ctx, g, "b", x, &four, &b));
        if (rows[i].both) OK(nas_graph_add_relu(ctx, g, "b.act", b, &b));
        const nas_node concat = {.op = NAS_OP_CONCAT, .n_inputs = 2, .inputs = {a, b}, .axis = 3};
        OK(nas_graph_add_node(ctx, g, "concat", &concat, &x));
        OK(nas_graph_add_conv(ctx, g, "middle", x, &four, &x));
        OK(nas_graph_add_conv(ctx, g, "beside", a, &four, &b));
        OK(nas_graph_add_add(ctx, g, "sum", x, b, &x));
        OK(nas_graph_add_conv(ctx, g, "out", x, &four, &out));
        OK(nas_graph_set_output(ctx, g, out));
        OK(nas_graph_alloc_weights(ctx, g));
        c.compress.act_bits = 4;
        OK(nas__level_list_make(ctx, &c, g, NULL, &list));
        for (size_t layer = 2; layer < 4; layer++) { /* middle, beside */
            const nas__level *l = find(&list, layer, "3");
            cr_assert(l->costs[NAS_LEVEL_BOPS] == l->costs[NAS_LEVEL_MACS] * 3 * rows[i].bits,
                      "%zu, layer %zu: %g", i, layer, l->costs[NAS_LEVEL_BOPS]);
        }
        nas__level_list_deinit(&list);
        nas_graph_free(g);
    }
}

/* ---- first proposals ------------------------------------------------------------------------------------------------------ */

static void put_gain(nas_db *db, const char *pattern, double rate, double gain) {
    nas_db_sparse_cell cell = {.fingerprint = "f",
                               .device = "native",
                               .target = "t",
                               .layer = {3, 1, 16, 16, 16, 16, 32},
                               .rate = rate,
                               .dense = "d",
                               .sparse = "s",
                               .dense_ns = 1000,
                               .sparse_ns = 1000 / gain};
    (void)snprintf(cell.pattern, sizeof cell.pattern, "%s", pattern);
    OK(nas_db_sparse_put(ctx, db, &cell, NULL));
}

/* Among the forms within 20 % of the fastest the one that loses least; what is slower, or was not measured, is not chosen. */
Test(search_levels, the_rule_takes_the_form_that_loses_least_among_the_nearly_fastest) {
    nas_graph *g = small_net();
    nas_config c = config_of("scheme");
    char file[256], gains[300], sql[1024];
    nas_db *db = NULL;
    (void)snprintf(file, sizeof file, "%s/rules.db", folder);
    (void)snprintf(gains, sizeof gains, "compress.gains=%s", file);
    OK(nas_mkdirs(ctx, folder));
    OK(nas_db_open(ctx, file, &db));
    put_gain(db, "1x4", 0.75, 1.6);
    put_gain(db, "1x4", 0.5, 1.5);
    put_gain(db, "unstructured", 0.5, 1.1); /* loses less, but is too slow */
    put_gain(db, "unstructured", 0.75, 0.9);
    nas_buf point = {0};
    nas__level_list list;
    const nas__sparse_judge judge = {.db = db, .fingerprint = "f", .bits = 32};
    (void)snprintf(c.compress.patterns, sizeof c.compress.patterns, "1x4,unstructured");
    OK(nas__level_list_make(ctx, &c, g, &judge, &list));
    int chosen = 0;
    for (size_t i = 0; i < list.n_layers; i++) {
        const size_t first = list.layers[i].first;
        bool measured = false;
        for (size_t k = first; k + 1 < first + (size_t)list.layers[i].n_forms; k++)
            measured = measured || list.levels[k].gain > 1;
        nas_buf_printf(&point, "%s%s", i == 0 ? "scheme " : ",", measured ? "1x4@0.5" : "dense");
        chosen += measured;
    }
    cr_assert(chosen > 0 && (size_t)chosen < list.n_layers);
    nas__level_list_deinit(&list);
    OK(nas_db_close(ctx, db));
    const char *const more[] = {gains,
                                "compress.rates=\"0.5,0.75\"",
                                "compress.patterns=\"1x4,unstructured\"",
                                "constraints.macs=<= 100%",
                                "search.trials=3",
                                NULL};
    nas_process_result r = run("configs/scheme.toml", "rules", more);
    cr_assert(r.exit_code == 0, "%d %s", r.exit_code, r.err.data);
    nas_process_result_deinit(&r);
    (void)snprintf(sql, sizeof sql, "SELECT count(*) FROM v_class WHERE point = '%s'", point.data);
    cr_assert(test_ask(ctx, folder, "rules", sql) == 1, "%s", sql);
    nas_buf_deinit(&point);
    nas_graph_free(g);
}
