/* test_oneshot.c - one-shot compression on the built-in network: second order against magnitude, budgets, and nas-compress from
 * its command line to a recipe that nas-compile takes. */
#include "search/oneshot.h"
#include "search/oneshot_budget.h"
#include "search/oneshot_gains.h"
#include "search/sparse_pairs.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>

#include <math.h>
#include <stdio.h>
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

TestSuite(search_oneshot, .init = setup, .fini = teardown, .timeout = 900);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

enum { LAYERS_MAX = 32 };

static nas_oneshot_options small_options(void) {
    nas_oneshot_options o = nas_oneshot_options_default();
    o.side = 16;
    o.train_steps = 120;
    o.data.glyphs = 3000;
    o.data.reward_max = 200;
    o.data.report_max = 600;
    o.calibration_images = 200;
    o.positions = 32;
    return o;
}

static nas_oneshot_score score(nas_oneshot *o, const nas_layer_scheme *s, nas_layer_solver solver) {
    nas_layer_scheme all[LAYERS_MAX];
    nas_layer_options options = nas_layer_options_default();
    nas_oneshot_score out;
    nas_graph *g = NULL;
    cr_assert(o->n_layers <= LAYERS_MAX);
    for (size_t i = 0; i < o->n_layers; i++)
        all[i] = *s;
    options.solver = solver;
    options.exact_macs = 3e8; /* larger layers blocked: quick, and both ways are met */
    OK(nas_oneshot_apply(ctx, o, all, &options, NULL, &g));
    OK(nas_oneshot_evaluate(ctx, o, g, NAS_CLASS_REPORT, &out));
    nas_graph_free(g);
    return out;
}

Test(search_oneshot, second_order_is_within_noise_of_magnitude_or_better_at_every_level) {
    static const char *const patterns[] = {"2:4", "1x4", "unstructured", "unstructured",
                                           "unstructured"};
    static const double rates[] = {0, 0.5, 0.5, 0.7, 0.9};
    const nas_oneshot_options options = small_options();
    nas_oneshot o;
    double better = 0;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    for (int k = 0; k < 8; k++) {
        nas_layer_scheme s = nas_layer_scheme_default();
        if (k < 5) {
            s.is_sparse = true;
            OK(nas_oneshot_pattern(ctx, patterns[k], &s.sparsity));
            if (rates[k] > 0) s.sparsity.rate = rates[k];
        } else {
            s.bits = 7 - k + 2; /* 4, 3, 2 */
        }
        const nas_oneshot_score plain = score(&o, &s, NAS_SOLVER_MAGNITUDE),
                                obs = score(&o, &s, NAS_SOLVER_AUTO);
        const double p = plain.top1, noise = 2 * sqrt(p * (1 - p) / (double)plain.images) + 1e-9;
        cr_assert(obs.top1 >= p - noise, "level %d: %.3f, magnitude %.3f", k, obs.top1, p);
        better += obs.top1 - p;
    }
    cr_assert(better > 0, "no better on the whole: %g", better);
    nas_oneshot_close(&o);
}

/* Mean square of what the outputs of two networks differ by on REWARD images. */
static double output_error(const nas_oneshot *o, const nas_graph *a, const nas_graph *b) {
    const nas_exec_options options = {.chunk = 8, .threads = 2};
    const size_t n = nas_class_data_count(o->data, NAS_CLASS_REWARD);
    const size_t classes = (size_t)nas_graph_node(a, nas_graph_output(a))->shape.c;
    const nas_graph *const graphs[2] = {a, b};
    nas_class_reader reader = {o->data, NAS_CLASS_REWARD};
    float *out[2];
    double sum = 0;
    for (int k = 0; k < 2; k++) {
        nas_exec *e = NULL;
        out[k] = nas_alloc_array(ctx, n * classes, sizeof *out[k]);
        OK(nas_exec_new(ctx, graphs[k], &options, &e));
        OK(nas_exec_run(ctx, e, n, nas_class_reader_read, &reader, out[k]));
        nas_exec_free(e);
    }
    for (size_t i = 0; i < n * classes; i++)
        sum += (double)(out[0][i] - out[1][i]) * (double)(out[0][i] - out[1][i]);
    nas_free(out[0]);
    nas_free(out[1]);
    return sum / (double)n;
}

Test(search_oneshot, layers_in_turn_make_up_for_what_earlier_ones_lost) {
    const nas_oneshot_options options = small_options();
    nas_layer_options layer = nas_layer_options_default();
    nas_oneshot o;
    layer.exact_macs = 3e8;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    for (int k = 0; k < 3; k++) {
        nas_layer_scheme all[LAYERS_MAX], s = nas_layer_scheme_default();
        nas_layer_result results[LAYERS_MAX];
        nas_graph *alone = NULL, *turn = NULL;
        s.is_sparse = k < 2;
        OK(nas_oneshot_pattern(ctx, k == 0 ? "2:4" : "unstructured", &s.sparsity));
        if (k == 1) s.sparsity.rate = 0.8;
        if (k == 2) s.bits = 2;
        for (size_t i = 0; i < o.n_layers; i++)
            all[i] = i == 1 ? nas_layer_scheme_default() : s;
        OK(nas_oneshot_apply(ctx, &o, all, &layer, NULL, &alone));
        OK(nas_oneshot_apply_sequential(ctx, &o, all, &layer, results, &turn));
        const double lost = output_error(&o, o.model, alone),
                     left = output_error(&o, o.model, turn);
        cr_assert(left < 0.8 * lost, "level %d: %g alone, %g in turn", k, lost, left);
        cr_assert(results[2].has_loss && results[2].loss > 0);
        const int32_t id = nas_graph_node(turn, o.layers[1])->params[0]; /* nothing to do there */
        const nas_param *a = nas_graph_param_const(turn, id),
                        *b = nas_graph_param_const(o.model, id);
        cr_assert(memcmp(a->data, b->data, a->count * sizeof *a->data) == 0);
        nas_graph_free(alone);
        nas_graph_free(turn);
    }
    nas_oneshot_close(&o);
}

Test(search_oneshot, a_budget_is_kept_and_splits_are_disjoint_from_the_report) {
    nas_oneshot_options options = small_options();
    options.train_steps = 20;
    options.data.report_max = 100;
    nas_oneshot o;
    nas_oneshot_table t;
    nas_layer_scheme levels[3 * LAYERS_MAX];
    nas_layer_options layer = nas_layer_options_default();
    layer.solver = NAS_SOLVER_BLOCKED;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    for (size_t k = 0; k < 3 * o.n_layers; k++) {
        levels[k] = nas_layer_scheme_default();
        levels[k].bits = 2 * (int32_t)(k / o.n_layers) + 2;
    }
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    cr_assert(strcmp(nas_class_data_hash(o.data, NAS_CLASS_REWARD),
                     nas_class_data_hash(o.data, NAS_CLASS_REPORT)) != 0);
    OK(nas_oneshot_table_make(ctx, &o, levels, 3, &layer, NAS_ONESHOT_BYTES, NAS_ONESHOT_SCALED,
                              &t));
    for (int percent = 9; percent <= 15; percent += 3) {
        int32_t choice[LAYERS_MAX];
        nas_layer_scheme schemes[LAYERS_MAX];
        nas_budget_total total;
        nas_graph *g = NULL;
        double whole = 0;
        uint64_t bytes = 0;
        for (size_t i = 0; i < o.n_layers; i++)
            whole += t.dense[i];
        OK(nas_oneshot_table_pick(ctx, &o, &t, whole * percent / 100, choice, &total, &g));
        for (size_t i = 0; i < o.n_layers; i++)
            schemes[i] = levels[(size_t)choice[i] * o.n_layers + i];
        OK(nas_oneshot_bytes(ctx, &o, g, schemes, &bytes));
        cr_assert(total.exact && (double)bytes <= whole * percent / 100);
        cr_assert(fabs(total.cost - (double)bytes) < 0.5);
        nas_graph_free(g);
    }
    nas_oneshot_table_deinit(&t);
    nas_oneshot_close(&o);
}

/* ---- the program --------------------------------------------------------------------------------------------------------- */

static nas_process_result compress(const char *const *more) {
    static const char *const small[] = {
        "-q", "--train-steps",   "3",  "--side",   "16", "--glyphs", "300", "--reward",
        "40", "--report-images", "40", "--images", "1",  "--places", "4"};
    const char *args[PROGRAM_ARGS_MAX] = {NULL};
    size_t n = 0;
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        args[n++] = small[i];
    for (size_t i = 0; more[i] != NULL; i++)
        args[n++] = more[i];
    return test_run(ctx, "nas-compress", args);
}

Test(search_oneshot, nas_compress_calibrated_with_one_image_writes_what_nas_compile_takes) {
    char out[256], onnx[300], recipe[300];
    (void)snprintf(out, sizeof out, "%s/out", folder);
    (void)snprintf(onnx, sizeof onnx, "%s/model.onnx", out);
    (void)snprintf(recipe, sizeof recipe, "%s/recipe.json", out);
    const char *const ways[][10] = {
        {"-o", out, "--pattern", "1x4r", "--rate", "0.5", "--bits", "4", NULL},
        {"-o", out, "--pattern", "2:4", "--method", "magnitude", "--skip", "first,last", NULL},
        {"-o", out, "--bits", "2,4,8", "--budget", "bytes=12%", "--solver", "blocked", NULL},
        {"-o", out, "--bits", "4", "--calibrate", "dense", NULL},
        {"-o", out, "--bits", "4,8", "--budget", "bytes=20%", "--method", "magnitude", NULL}};
    for (int k = 0; k < 5; k++) {
        nas_process_result r = compress(ways[k]);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        cr_assert(strstr(r.out.data, "top-1") != NULL && strstr(r.out.data, "solver") != NULL);
        nas_process_result_deinit(&r);
        const char *const check[] = {onnx, "--recipe", recipe, "--explain", NULL};
        r = test_run(ctx, "nas-compile", check);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_oneshot, nas_compress_says_what_is_wrong_with_its_arguments) {
    static const struct {
        const char *args[12], *says;
        int code;
    } cases[] = {
        {{"-o", "x", "--bits", "4", "--sensitivity", "error"}, "--budget", 2},
        {{"-o", "x", "--bits", "4,8", "--budget", "bytes=50%", "--method", "magnitude",
          "--sensitivity", "scaled"},
         "needs --method obs",
         2},
        {{"-o", "x", "--bits", "4", "--method", "magnitude", "--calibrate", "sequential"},
         "see no inputs",
         2},
        {{"-o", "x", "--bits", "4", "--method", "magnitude", "--solver", "exact"},
         "--solver is a way",
         2},
        {{"-o", "x", "--bits", "4", "--calibrate", "never"}, "sequential or dense", 2},
        {{"-o", "x", "--bits", "4", "--gains", "g.db"}, "say --pattern", 2},
        {{"-o", "x", "--bits", "4", "--device", "native"}, "--gains FILE", 2},
        {{"-o", "x", "--pattern", "2:4", "--gains", "no.db"}, "no.db", 1},
        {{"--bits", "4"}, "-o DIR", 2},
        {{"-o", "x"}, "--pattern, --bits", 2},
        {{"-o", "x", "--bits", "9"}, "2 to 8", 2},
        {{"-o", "x", "--bits", "2,4"}, "--budget", 2},
        {{"-o", "x", "--pattern", "1x4"}, "--rate", 2},
        {{"-o", "x", "--pattern", "4by4", "--rate", "0.5"}, "not known", 2},
        {{"-o", "x", "--pattern", "2:4", "--rate", "0.5"}, "no --rate", 2},
        {{"m.onnx", "-o", "x", "--bits", "4"}, "trained on", 2},
        {{"-o", "x", "--bits", "4", "--budget", "joules=5"}, "bytes, macs, bops or time", 1},
        {{"-o", "x", "--bits", "4", "--act-bits", "1"}, "2 to 8", 2},
        {{"-o", "x", "--pattern", "2:4", "--act-bits", "8"}, "integer weights", 2},
        {{"-o", "x", "--bits", "4", "--act-bits", "8", "--grid", "power"}, "symmetric", 2},
        {{"-o", "x", "--bits", "4,8", "--budget", "time=60%"}, "--gains FILE", 2},
        {{"-o", "x", "--bits", "4,8", "--budget", "bytes=1%"}, "even the cheapest", 1},
        {{"-o", "x", "--bits", "4", "--skip", "nobody"}, "nobody", 1}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        nas_process_result r = compress(cases[k].args);
        cr_assert(r.exit_code == cases[k].code, "case %zu: %d, %s", k, r.exit_code, r.err.data);
        cr_assert(strstr(r.err.data, cases[k].says) != NULL, "case %zu: %s", k, r.err.data);
        nas_process_result_deinit(&r);
    }
}

/* ---- what the device gains ------------------------------------------------------------------------------------------------ */

/* Every layer of the built-in network on device `name`: the first gains nothing by 2:4, the others twice the speed. */
static void measure_gains(const nas_oneshot *o, nas_db *db, const char *name) {
    for (size_t i = 0; i < o->n_layers; i++) {
        nas_db_sparse_cell c = {.rate = 0.5, .dense_ns = 1e5, .sparse_ns = i == 0 ? 2e5 : 5e4};
        if (!nas__sparse_layer_of(o->model, o->layers[i], 32, &c.layer)) continue;
        (void)snprintf(c.fingerprint, sizeof c.fingerprint, "finger of %s", name);
        (void)snprintf(c.device, sizeof c.device, "%s", name);
        (void)snprintf(c.pattern, sizeof c.pattern, "N:4x1");
        OK(nas_db_sparse_put(ctx, db, &c, NULL));
    }
}

Test(search_oneshot, a_layer_that_gains_nothing_on_the_device_stays_dense_and_says_why) {
    char out[256], file[256], table[300];
    nas_oneshot_options options = small_options();
    nas_oneshot o;
    nas_db *db = NULL;
    (void)snprintf(out, sizeof out, "%s/out", folder);
    (void)snprintf(file, sizeof file, "%s/gains.db", folder);
    (void)snprintf(table, sizeof table, "%s/layers.csv", out);
    options.train_steps = 1;
    options.data.glyphs = 600;
    options.data.reward_max = options.data.report_max = 40;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_db_open(ctx, file, &db));
    measure_gains(&o, db, "near");
    const char *const uniform[] = {"-o", out, "--pattern", "2:4", "--gains", file, NULL},
                      *const budget[] = {"-o",      out,  "--pattern", "2:4",      "--rate", "0,1",
                                         "--gains", file, "--budget",  "macs=60%", NULL},
                      *const named[] = {"-o", out,        "--pattern", "2:4", "--gains",
                                        file, "--device", "far",       NULL};
    const char *const *const ways[] = {uniform, budget};
    const char *first = nas_graph_node(o.model, o.layers[0])->name;
    char expected[200];
    (void)snprintf(expected, sizeof expected,
                   "stays dense     %s: N:4x1 at 50 %% is 0.50 times as fast as dense here", first);
    for (int k = 0; k < 2; k++) {
        nas_process_result r = compress(ways[k]);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        cr_assert(strstr(r.out.data, expected) != NULL, "%s", r.out.data);
        cr_assert(strstr(strstr(r.out.data, expected) + 1, "stays dense") == NULL);
        nas_process_result_deinit(&r);
    }
    nas_layer_scheme schemes[LAYERS_MAX];
    nas_oneshot_gains gains;
    for (size_t i = 0; i < o.n_layers; i++) {
        schemes[i] = nas_layer_scheme_default();
        schemes[i].is_sparse = true;
        schemes[i].bits = 4;
        OK(nas_oneshot_pattern(ctx, "2:4", &schemes[i].sparsity));
    }
    OK(nas_db_close(ctx, db));
    nas_oneshot_times times;
    OK(nas_oneshot_times_open(ctx, file, NULL, &schemes[1].sparsity, false, &times));
    OK(nas_oneshot_gains_drop(ctx, &o, &times, schemes, 1, &gains));
    OK(nas_oneshot_times_close(ctx, &times));
    cr_assert(!schemes[0].is_sparse && schemes[0].bits == 4 && schemes[1].is_sparse);
    cr_assert(gains.asked == o.n_layers && gains.unmeasured == 0);
    nas_oneshot_gains_deinit(&gains);
    OK(nas_db_open(ctx, file, &db));
    measure_gains(&o, db, "far");
    OK(nas_db_close(ctx, db));
    nas_process_result r = compress(uniform);
    cr_assert(r.exit_code == 1 && strstr(r.err.data, "far") != NULL && strstr(r.err.data, "near"));
    nas_process_result_deinit(&r);
    r = compress(named);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    nas_oneshot_close(&o);
}

/* Layers take 100 us dense and 50 us with the pattern; the first gains nothing, the last was not measured. */
Test(search_oneshot, a_budget_of_measured_time_is_kept) {
    char out[256], file[256], table[300];
    nas_oneshot_options options = small_options();
    nas_oneshot o;
    nas_db *db = NULL;
    (void)snprintf(out, sizeof out, "%s/out", folder);
    (void)snprintf(file, sizeof file, "%s/gains.db", folder);
    (void)snprintf(table, sizeof table, "%s/layers.csv", out);
    options.train_steps = 1;
    options.data.glyphs = 600;
    options.data.reward_max = options.data.report_max = 40;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_db_open(ctx, file, &db));
    o.n_layers--;
    measure_gains(&o, db, "near");
    o.n_layers++;
    OK(nas_db_close(ctx, db));
    const char *const args[] = {"-o",      out,  "--pattern", "2:4",      "--rate", "0,1",
                                "--gains", file, "--budget",  "time=70%", NULL};
    nas_process_result r = compress(args);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    cr_assert(strstr(r.out.data, "not timed       1 of") != NULL, "%s", r.out.data);
    cr_assert(strstr(r.out.data, "us measured") != NULL, "%s", r.out.data);
    nas_process_result_deinit(&r);
    nas_buf text = {0};
    OK(nas_file_read(ctx, table, 1 << 16, &text));
    double us = 0;
    size_t sparse = 0, line = 0;
    for (const char *at = strchr(text.data, '\n') + 1; *at != '\0'; at = strchr(at, '\n') + 1) {
        const char *pattern = strchr(at, ',') + 1;
        const bool dense = strncmp(pattern, "dense", 5) == 0;
        cr_assert(dense || (line > 0 && line + 1 < o.n_layers), "layer %zu", line);
        if (line + 1 < o.n_layers) us += dense ? 100 : 50;
        sparse += !dense;
        line++;
    }
    const double whole = 100 * (double)(o.n_layers - 1);
    cr_assert(line == o.n_layers && us <= 0.7 * whole && us > 0.7 * whole - 50, "%g of %g", us,
              whole);
    cr_assert(sparse > 0);
    nas_buf_deinit(&text);
    const char *const never[] = {"-o",      out,  "--pattern", "2:4",      "--rate", "0,1",
                                 "--gains", file, "--budget",  "time=10%", NULL};
    r = compress(never);
    cr_assert(r.exit_code == 1 && strstr(r.err.data, "cheapest") != NULL, "%s", r.err.data);
    nas_process_result_deinit(&r);
    nas_oneshot_close(&o);
}
