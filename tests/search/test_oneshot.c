/* test_oneshot.c - one-shot compression on the built-in network: second order against magnitude, budgets, and nas-compress from
 * its command line to a recipe that nas-compile takes. */
#include "search/oneshot.h"
#include "search/oneshot_budget.h"
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

Test(search_oneshot, a_budget_is_kept_and_splits_are_disjoint_from_the_report) {
    nas_oneshot_options options = small_options();
    options.train_steps = 20;
    options.data.report_max = 100;
    nas_oneshot o;
    nas_oneshot_table t;
    nas_layer_scheme levels[3];
    nas_layer_options layer = nas_layer_options_default();
    layer.solver = NAS_SOLVER_BLOCKED;
    for (int k = 0; k < 3; k++) {
        levels[k] = nas_layer_scheme_default();
        levels[k].bits = 2 * k + 2;
    }
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    cr_assert(strcmp(nas_class_data_hash(o.data, NAS_CLASS_REWARD),
                     nas_class_data_hash(o.data, NAS_CLASS_REPORT)) != 0);
    OK(nas_oneshot_table_make(ctx, &o, levels, 3, NULL, &layer, NAS_ONESHOT_BYTES,
                              NAS_ONESHOT_SCALED, &t));
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
            schemes[i] = levels[choice[i]];
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
        {"-o", out, "--bits", "2,4,8", "--budget", "bytes=12%", "--solver", "blocked", NULL}};
    for (int k = 0; k < 3; k++) {
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
        const char *args[8], *says;
        int code;
    } cases[] = {{{"--bits", "4"}, "-o DIR", 2},
                 {{"-o", "x"}, "--pattern, --bits", 2},
                 {{"-o", "x", "--bits", "9"}, "2 to 8", 2},
                 {{"-o", "x", "--bits", "2,4"}, "--budget", 2},
                 {{"-o", "x", "--pattern", "1x4"}, "--rate", 2},
                 {{"-o", "x", "--pattern", "4by4", "--rate", "0.5"}, "not known", 2},
                 {{"-o", "x", "--pattern", "2:4", "--rate", "0.5"}, "no --rate", 2},
                 {{"m.onnx", "-o", "x", "--bits", "4"}, "trained on", 2},
                 {{"-o", "x", "--bits", "4", "--budget", "joules=5"}, "bytes, macs or bops", 1},
                 {{"-o", "x", "--bits", "4,8", "--budget", "bytes=1%"}, "even the cheapest", 1},
                 {{"-o", "x", "--bits", "4", "--skip", "nobody"}, "nobody", 1}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        nas_process_result r = compress(cases[k].args);
        cr_assert(r.exit_code == cases[k].code, "case %zu: %d, %s", k, r.exit_code, r.err.data);
        cr_assert(strstr(r.err.data, cases[k].says) != NULL, "case %zu: %s", k, r.err.data);
        nas_process_result_deinit(&r);
    }
}
