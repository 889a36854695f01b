/* test_oneshot_codes.c - activations of integers: what was scored is what the compiled program computes, code by code. */
#include "search/oneshot_codes.h"
#include "search/oneshot_tune.h"
#include "compiler/compiler.h"
#include "tests/ir/ir_support.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <jansson.h>

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
    cr_assert(nas_mem_live() == 0);
}

TestSuite(search_oneshot_codes, .init = setup, .fini = teardown, .timeout = 900);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

enum { IMAGES = 20, SIDE = 16, CLASSES = 10 };

static nas_oneshot opened(void) {
    nas_oneshot_options options = nas_oneshot_options_default();
    nas_oneshot o;
    options.side = SIDE;
    options.train_steps = 20;
    options.data.glyphs = 600;
    options.data.reward_max = 40;
    options.data.report_max = IMAGES;
    options.calibration_images = 64;
    options.positions = 8;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    return o;
}

/* Weights of every convolution in one group to 8 bits, but of the convolution `but`. */
static void round_weights(nas_graph *g, int32_t bits, const char *but) {
    const nas_layer_options options = nas_layer_options_default();
    nas_layer_scheme s = nas_layer_scheme_default();
    s.bits = bits;
    for (nas_value v = 0; v < nas_graph_node_count(g); v++) {
        const nas_node *node = nas_graph_node(g, v);
        if (node->op != NAS_OP_CONV || node->conv.groups > 1) continue;
        if (but != NULL && strcmp(node->name, but) == 0) continue;
        OK(nas_layer_compress(ctx, g, v, &s, NULL, &options, NULL));
    }
}

/* What the compiled program answers on REPORT images, [IMAGES][classes]. */
static void run_program(const nas_oneshot *o, const nas_graph *g, float *out) {
    nas_compile_options options = nas_compile_options_default();
    nas_artifact a;
    float in[IMAGES][3 * SIDE * SIDE], hwc[SIDE * SIDE * 3];
    options.cache_dir = folder;
    OK(nas_target_find(ctx, "native", &options.target));
    for (size_t i = 0; i < IMAGES; i++) {
        nas_class_data_read(o->data, NAS_CLASS_REPORT, i, false, 0, 0, hwc);
        for (int k = 0; k < 3 * SIDE * SIDE; k++)
            in[i][k] = hwc[k % (SIDE * SIDE) * 3 + k / (SIDE * SIDE)];
    }
    OK(nas_compile(ctx, g, &options, &a));
    OK(nas_artifact_run(ctx, &a, g, IMAGES, in[0], out, 2, folder));
}

static void run_codes(const nas_oneshot *o, const nas_graph *g, int32_t chunk, float *out) {
    const nas_exec_options e = {.chunk = chunk, .threads = 2};
    nas_class_reader reader = {o->data, NAS_CLASS_REPORT};
    OK(nas_codes_run(ctx, g, &e, IMAGES, nas_class_reader_read, &reader, out));
}

static double largest(const float *a, const float *b, size_t n) {
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
    return most;
}

static nas_value conv(nas_graph *g, const char *name, nas_value x, int32_t channels, int32_t kernel,
                      int32_t groups) {
    nas_conv_attributes c = nas_conv_same(channels, kernel);
    nas_value out = 0;
    c.groups = groups;
    OK(nas_graph_add_conv(ctx, g, name, x, &c, &out));
    return out;
}

static nas_value node(nas_graph *g, const char *name, const nas_node *proto) {
    nas_value out = 0;
    OK(nas_graph_add_node(ctx, g, name, proto, &out));
    return out;
}

/* Depthwise and wide convolutions, a clip, a gate, a sum, a concatenation, both pools. wide: a layer whose sums no float holds. */
static nas_graph *mobile(int32_t wide) {
    nas_graph *g = nas_graph_new(ctx, "mobile");
    nas_value x = 0, r = 0;
    OK(nas_graph_add_input(ctx, g, "image", (nas_shape){1, SIDE, SIDE, 3}, &x));
    OK(nas_graph_add_relu(ctx, g, "r1", conv(g, "c1", x, 16, 3, 1), &r));
    const nas_value most =
        node(g, "most",
             &(nas_node){.op = NAS_OP_MAX_POOL,
                         .n_inputs = 1,
                         .inputs = {r},
                         .pool = {.kernel_h = 2, .kernel_w = 2, .stride_h = 2, .stride_w = 2}});
    const nas_value deep = node(g, "six",
                                &(nas_node){.op = NAS_OP_UNARY,
                                            .n_inputs = 1,
                                            .inputs = {conv(g, "deep", most, 16, 3, 16)},
                                            .unary = NAS_UNARY_CLIP,
                                            .beta = 6});
    const nas_value thin = conv(g, "thin", deep, 16, 1, 1);
    nas_value sum = 0, wider = 0;
    OK(nas_graph_add_add(ctx, g, "sum", thin, most, &sum));
    OK(nas_graph_add_relu(ctx, g, "wider", conv(g, "wide", sum, wide, 3, 1), &wider));
    const nas_value pooled = node(
        g, "gate",
        &(nas_node){
            .op = NAS_OP_AVG_POOL,
            .n_inputs = 1,
            .inputs = {wider},
            .pool = {.kernel_h = SIDE / 2, .kernel_w = SIDE / 2, .stride_h = 1, .stride_w = 1}});
    const nas_value gated =
        node(g, "gated", &(nas_node){.op = NAS_OP_MUL, .n_inputs = 2, .inputs = {wider, pooled}});
    const nas_value narrow = conv(g, "narrow", gated, 8, 3, 1);
    const nas_value both =
        node(g, "both",
             &(nas_node){.op = NAS_OP_CONCAT, .n_inputs = 2, .inputs = {narrow, sum}, .axis = 3});
    const nas_value mean = node(
        g, "mean",
        &(nas_node){
            .op = NAS_OP_AVG_POOL,
            .n_inputs = 1,
            .inputs = {both},
            .pool = {.kernel_h = SIDE / 2, .kernel_w = SIDE / 2, .stride_h = 1, .stride_w = 1}});
    OK(nas_graph_set_output(ctx, g, conv(g, "classes", mean, CLASSES, 1, 1)));
    nas_rng rng = nas_rng_stream(1, 0, "mobile");
    OK(nas_class_init(ctx, g, &rng));
    return g;
}

enum { NETWORKS = 5 };

/* Integers alone; few bits; one layer in floats; a small and a wide mobile network. */
static nas_graph *network(const nas_oneshot *o, int k) {
    nas_graph *g = NULL, *coded = NULL;
    nas_oneshot_codes codes;
    if (k < 3)
        OK(nas_graph_clone(ctx, o->model, &g));
    else
        g = mobile(k == 3 ? 24 : 700);
    round_weights(g, k == 1 ? 3 : 8, k == 2 ? "block1.conv2" : NULL);
    OK(nas_oneshot_codes_find(ctx, o, g, k == 1 ? 4 : 8, &codes));
    OK(nas_oneshot_codes_apply(ctx, g, &codes, &coded));
    nas_oneshot_codes_deinit(&codes);
    nas_graph_free(g);
    return coded;
}

Test(search_oneshot_codes, what_is_scored_is_what_the_program_computes_code_by_code) {
    nas_oneshot o = opened();
    for (int k = 0; k < NETWORKS; k++) {
        nas_graph *coded = network(&o, k);
        float scored[IMAGES * CLASSES], alone[IMAGES * CLASSES], run[IMAGES * CLASSES];
        run_codes(&o, coded, 8, scored);
        run_codes(&o, coded, 3, alone);
        run_program(&o, coded, run);
        cr_assert(memcmp(scored, alone, sizeof run) == 0, "network %d: chunks differ", k);
        /* a layer that stays in floats may round a code otherwise: a few of them, in the last bit of the scores */
        const float scale = nas_graph_node(coded, nas_graph_output(coded))->quant.scale;
        cr_assert(scale > 0);
        cr_assert(largest(scored, run, IMAGES * CLASSES) <= (k == 2 ? 2.001F * scale : 0),
                  "network %d: %g", k, largest(scored, run, IMAGES * CLASSES));
        nas_graph_free(coded);
    }
    nas_oneshot_close(&o);
}

/* NAME.onnx with QuantizeLinear, and NAME.in and NAME.out of one image, for onnx_check.py. */
static void write_case(const nas_oneshot *o, const nas_graph *coded, int number,
                       const float *scored) {
    float planes[3 * SIDE * SIDE], hwc[SIDE * SIDE * 3];
    char path[200];
    const size_t image = (size_t)number % IMAGES;
    nas_class_data_read(o->data, NAS_CLASS_REPORT, image, false, 0, 0, hwc);
    for (int p = 0; p < 3 * SIDE * SIDE; p++)
        planes[p] = hwc[p % (SIDE * SIDE) * 3 + p / (SIDE * SIDE)];
    (void)snprintf(path, sizeof path, "%s/case%d.onnx", folder, number);
    OK(nas_onnx_export_quantized(ctx, coded, path));
    (void)snprintf(path, sizeof path, "%s/case%d.in", folder, number);
    OK(nas_file_write(ctx, path, planes, sizeof planes, 0600));
    (void)snprintf(path, sizeof path, "%s/case%d.out", folder, number);
    OK(nas_file_write(ctx, path, scored + image * CLASSES, CLASSES * sizeof *scored, 0600));
}

Test(search_oneshot_codes, a_file_with_quantize_linear_comes_back_code_by_code) {
    const nas_onnx_import_options options = nas_onnx_import_options_default();
    nas_oneshot o = opened();
    for (int k = 0; k < NETWORKS; k++) {
        nas_graph *coded = network(&o, k), *again = NULL;
        float scored[IMAGES * CLASSES], read[IMAGES * CLASSES];
        char path[200];
        run_codes(&o, coded, 8, scored);
        (void)snprintf(path, sizeof path, "%s/q.onnx", folder);
        OK(nas_onnx_export_quantized(ctx, coded, path));
        OK(nas_onnx_import(ctx, path, &options, &again));
        run_codes(&o, again, 8, read);
        cr_assert(memcmp(scored, read, sizeof read) == 0, "network %d: %g", k,
                  largest(scored, read, IMAGES * CLASSES));
        nas_graph_free(again);
        nas_graph_free(coded);
    }
    nas_oneshot_close(&o);
}

/* The checker, and answers by definition and by onnx.reference. */
Test(search_oneshot_codes, others_read_the_file_and_answer_within_four_steps) {
    nas_oneshot o = opened();
    for (int k = 0; k < NETWORKS; k++) {
        nas_graph *coded = network(&o, k);
        float scored[IMAGES * CLASSES];
        run_codes(&o, coded, 8, scored);
        for (int i = 0; i < 3; i++)
            write_case(&o, coded, NETWORKS * i + k, scored);
        nas_graph_free(coded);
    }
    nas_oneshot_close(&o);
    run_onnx_check(ctx, folder);
}

Test(search_oneshot_codes, fewer_bits_end_at_their_last_code) {
    nas_oneshot o = opened();
    nas_graph *g = NULL, *coded = NULL;
    nas_oneshot_codes codes;
    OK(nas_graph_clone(ctx, o.model, &g));
    round_weights(g, 8, NULL);
    OK(nas_oneshot_codes_find(ctx, &o, g, 3, &codes));
    OK(nas_oneshot_codes_apply(ctx, g, &codes, &coded));
    size_t clipped = 0;
    for (size_t i = 0; i < codes.n; i++) {
        const nas_node *now = nas_graph_node(coded, codes.list[i].value);
        cr_assert(now->quant.is_set && now->quant.scale == codes.list[i].scale);
        if (codes.list[i].bits == 8) continue;
        cr_assert(codes.list[i].bits == 3 && now->unary == NAS_UNARY_CLIP && now->alpha == 0);
        cr_assert(fabsf(now->beta - 7 * now->quant.scale) < 1e-6F);
        clipped++;
    }
    cr_assert(clipped == 13, "%zu", clipped); /* the ReLUs */
    nas_oneshot_codes_deinit(&codes);
    cr_assert(nas_oneshot_codes_find(ctx, &o, o.model, 8, &codes) == NAS_ERR_UNSUPPORTED);
    cr_assert(nas_oneshot_codes_find(ctx, &o, g, 9, &codes) == NAS_ERR_RANGE);
    nas_graph_free(coded);
    nas_graph_free(g);
    nas_oneshot_close(&o);
}

/* Every value with bits of its own: clips end where they say, and layers read what nas_oneshot_codes_inputs tells. */
Test(search_oneshot_codes, values_have_bits_of_their_own) {
    nas_oneshot o = opened();
    nas_graph *g = NULL, *coded = NULL;
    nas_oneshot_codes codes;
    const size_t n = (size_t)nas_graph_node_count(o.model);
    int32_t *bits = nas_alloc_array(ctx, n, sizeof *bits);
    int32_t *inputs = nas_alloc_array(ctx, o.n_layers, sizeof *inputs);
    bool *integers = nas_alloc_array(ctx, o.n_layers, sizeof *integers);
    for (size_t v = 0; v < n; v++)
        bits[v] = 2 + (int32_t)(v % 5);
    OK(nas_graph_clone(ctx, o.model, &g));
    round_weights(g, 8, NULL);
    OK(nas_oneshot_codes_find_each(ctx, &o, g, bits, &codes));
    OK(nas_oneshot_codes_apply(ctx, g, &codes, &coded));
    size_t clipped = 0;
    for (size_t i = 0; i < codes.n; i++) {
        const nas_oneshot_code *c = &codes.list[i];
        const nas_node *now = nas_graph_node(coded, c->value);
        if (c->bits == 8) continue; /* signed, or it meets such a value */
        cr_assert(now->unary == NAS_UNARY_CLIP && c->bits == bits[c->leader]);
        cr_assert(fabsf(now->beta - (float)((1 << c->bits) - 1) * now->quant.scale) < 1e-6F);
        clipped++;
    }
    cr_assert(clipped == 13, "%zu", clipped);
    for (size_t i = 0; i < o.n_layers; i++)
        integers[i] = true;
    OK(nas_oneshot_codes_inputs(ctx, &o, integers, 4, inputs));
    for (size_t i = 0; i < o.n_layers; i++) {
        const nas_value input = nas_graph_node(o.model, o.layers[i])->inputs[0];
        const bool relu = nas_graph_node(o.model, input)->op == NAS_OP_RELU;
        cr_assert(inputs[i] == (relu ? 4 : 8), "layer %zu reads %d bits", i, (int)inputs[i]);
    }
    nas_oneshot_codes_deinit(&codes);
    nas_graph_free(coded);
    nas_graph_free(g);
    nas_free(integers);
    nas_free(inputs);
    nas_free(bits);
    nas_oneshot_close(&o);
}

/* What nas-compile has to say about every layer. */
static nas_process_result explain(const char *const *args) {
    nas_process_result r = test_run(ctx, "nas-compile", args);
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    return r;
}

/* model_qdq.onnx alone makes the same kernels as model.onnx and the recipe, and the same answers. */
static void check_quantized_file(const char *onnx, const char *recipe, const float *answers,
                                 const char *in) {
    char quantized[300], app[300], program[330], answer[300];
    nas_buf scores = {0};
    (void)snprintf(quantized, sizeof quantized, "%s/out/model_qdq.onnx", folder);
    (void)snprintf(app, sizeof app, "%s/app_qdq", folder);
    (void)snprintf(program, sizeof program, "%s/model", app);
    (void)snprintf(answer, sizeof answer, "%s/answer_qdq.raw", folder);
    nas_process_result r =
        explain((const char *const[]){onnx, "--recipe", recipe, "--explain", NULL});
    nas_process_result again = explain((const char *const[]){quantized, "--explain", NULL});
    cr_assert(strcmp(r.out.data, again.out.data) == 0, "%s\n%s", r.out.data, again.out.data);
    cr_assert(strstr(r.out.data, "integer conv") != NULL);
    nas_process_result_deinit(&again);
    nas_process_result_deinit(&r);
    r = test_run(ctx, "nas-compile", (const char *const[]){quantized, "-o", app, NULL});
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    nas_process_options options = nas_process_options_default();
    options.argv = (const char *const[]){program, "--run", in, answer, NULL};
    OK(nas_process_run(ctx, &options, &r));
    cr_assert(r.exit_code == 0, "%s", r.err.data);
    nas_process_result_deinit(&r);
    OK(nas_file_read(ctx, answer, 1 << 20, &scores));
    cr_assert(scores.len == IMAGES * CLASSES * sizeof(float));
    cr_assert(memcmp(scores.data, answers, scores.len) == 0);
    nas_buf_deinit(&scores);
}

/* From the command line: the share of right answers in the recipe is that of the program which nas-compile makes of it. */
Test(search_oneshot_codes, the_reported_accuracy_is_that_of_the_compiled_recipe) {
    nas_oneshot o = opened();
    char out[256], onnx[300], recipe[300], app[300], program[330], in[300], answer[300];
    (void)snprintf(out, sizeof out, "%s/out", folder);
    (void)snprintf(onnx, sizeof onnx, "%s/model.onnx", out);
    (void)snprintf(recipe, sizeof recipe, "%s/recipe.json", out);
    (void)snprintf(app, sizeof app, "%s/app", folder);
    (void)snprintf(program, sizeof program, "%s/model", app);
    (void)snprintf(in, sizeof in, "%s/in.raw", folder);
    (void)snprintf(answer, sizeof answer, "%s/answer.raw", folder);
    const char *const bits[] = {"8", "4"};
    for (int k = 0; k < 2; k++) {
        const char *const compress[] = {
            "-q", "--train-steps",   "20",    "--side",     "16",    "--glyphs", "600", "--reward",
            "40", "--report-images", "20",    "--images",   "64",    "--places", "8",   "-o",
            out,  "--bits",          bits[k], "--act-bits", bits[k], NULL};
        nas_process_result r = test_run(ctx, "nas-compress", compress);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        cr_assert(strstr(r.out.data, "activations") != NULL);
        nas_process_result_deinit(&r);
        const char *const compile[] = {onnx, "--recipe", recipe, "-o", app, NULL};
        r = test_run(ctx, "nas-compile", compile);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        nas_process_result_deinit(&r);

        float planes[IMAGES][3 * SIDE * SIDE], hwc[SIDE * SIDE * 3];
        for (size_t i = 0; i < IMAGES; i++) {
            nas_class_data_read(o.data, NAS_CLASS_REPORT, i, false, 0, 0, hwc);
            for (int p = 0; p < 3 * SIDE * SIDE; p++)
                planes[i][p] = hwc[p % (SIDE * SIDE) * 3 + p / (SIDE * SIDE)];
        }
        OK(nas_file_write(ctx, in, planes, sizeof planes, 0600));
        const char *const argv[] = {program, "--run", in, answer, NULL};
        nas_process_options options = nas_process_options_default();
        options.argv = argv;
        OK(nas_process_run(ctx, &options, &r));
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        nas_process_result_deinit(&r);
        nas_buf scores = {0};
        OK(nas_file_read(ctx, answer, 1 << 20, &scores));
        cr_assert(scores.len == IMAGES * CLASSES * sizeof(float));
        float copy[IMAGES * CLASSES];
        memcpy(copy, scores.data, sizeof copy);
        nas_buf_deinit(&scores);
        json_t *j = json_load_file(recipe, 0, NULL);
        const double told =
            json_number_value(json_object_get(json_object_get(j, "compression"), "report_top1"));
        json_decref(j);
        cr_assert(told == nas_class_top1(o.data, NAS_CLASS_REPORT, copy, CLASSES), "%g", told);
        check_quantized_file(onnx, recipe, copy, in);
    }
    nas_oneshot_close(&o);
}

/* Weights on uneven grids have no such file, nor does one of an earlier network stay; weights alone have one. */
Test(search_oneshot_codes, an_uneven_grid_is_named_and_leaves_no_quantized_file) {
    static const struct {
        const char *grid;
        bool has_file;
    } rows[] = {{"symmetric", true}, {"power", false}};
    char out[200], quantized[230];
    (void)snprintf(out, sizeof out, "%s/grids", folder);
    (void)snprintf(quantized, sizeof quantized, "%s/model_qdq.onnx", out);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        const char *const args[] = {"-q", "--train-steps",   "2",          "--side",
                                    "16", "--glyphs",        "200",        "--reward",
                                    "20", "--report-images", "20",         "--images",
                                    "16", "--places",        "4",          "-o",
                                    out,  "--method",        "magnitude",  "--bits",
                                    "4",  "--grid",          rows[i].grid, NULL};
        nas_process_result r = test_run(ctx, "nas-compress", args);
        cr_assert(r.exit_code == 0, "%s", r.err.data);
        cr_assert(nas_file_exists(quantized) == rows[i].has_file, "%s", rows[i].grid);
        cr_assert((strstr(r.out.data, "weights of layer 'stem' lie on a grid of kind power") !=
                   NULL) == !rows[i].has_file,
                  "%s", r.out.data);
        nas_process_result_deinit(&r);
    }
}

/* ---- training -------------------------------------------------------------------------------------------------------------- */

Test(search_oneshot_codes, tuning_keeps_zeros_and_grids_and_helps) {
    nas_oneshot_options options = nas_oneshot_options_default();
    nas_oneshot o;
    options.side = SIDE;
    options.train_steps = 120;
    options.data.glyphs = 2000;
    options.data.reward_max = 400;
    options.data.report_max = IMAGES;
    options.calibration_images = 64;
    options.positions = 8;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    nas_layer_scheme schemes[32];
    nas_layer_result results[32];
    nas_graph *g = NULL, *before = NULL, *coded = NULL;
    nas_oneshot_codes codes;
    nas_oneshot_score rough, tuned;
    nas_layer_options layer = nas_layer_options_default();
    layer.solver = NAS_SOLVER_MAGNITUDE;
    for (size_t i = 0; i < o.n_layers; i++) {
        schemes[i] = nas_layer_scheme_default();
        schemes[i].bits = 3;
        schemes[i].is_sparse = i % 2 == 1;
        if (schemes[i].is_sparse) OK(nas_oneshot_pattern(ctx, "2:4", &schemes[i].sparsity));
    }
    OK(nas_oneshot_apply(ctx, &o, schemes, &layer, results, &g));
    OK(nas_oneshot_codes_find(ctx, &o, g, 4, &codes));
    OK(nas_graph_clone(ctx, g, &before));
    OK(nas_oneshot_codes_apply(ctx, g, &codes, &coded));
    OK(nas_oneshot_evaluate(ctx, &o, coded, NAS_CLASS_REWARD, &rough));
    nas_graph_free(coded);
    OK(nas_oneshot_tune(ctx, &o, g, schemes, 60, 0.01, &codes, results));
    OK(nas_oneshot_codes_apply(ctx, g, &codes, &coded));
    OK(nas_oneshot_evaluate(ctx, &o, coded, NAS_CLASS_REWARD, &tuned));
    cr_assert(tuned.top1 > rough.top1 + 0.05, "%g, tuned %g", rough.top1, tuned.top1);
    bool steps_moved = false;
    for (size_t i = 0; i < o.n_layers; i++) {
        const int32_t id = nas_graph_node(g, o.layers[i])->params[0];
        const nas_param *p = nas_graph_param_const(g, id), *was = nas_graph_param_const(before, id);
        const size_t n = p->count / (size_t)p->dims[0];
        for (size_t k = 0; k < p->count; k++) {
            const float s = p->scales[k / n], code = p->data[k] / s;
            cr_assert(fabsf(code - rintf(code)) < 1e-4F && fabsf(code) < 3.001F);
            if (schemes[i].is_sparse && was->data[k] == 0) cr_assert(p->data[k] == 0);
            steps_moved = steps_moved || s != was->scales[k / n];
        }
    }
    cr_assert(steps_moved);
    float scored[IMAGES * CLASSES], run[IMAGES * CLASSES];
    run_codes(&o, coded, 8, scored);
    run_program(&o, coded, run);
    cr_assert(memcmp(scored, run, sizeof run) == 0);
    nas_oneshot_codes_deinit(&codes);
    nas_graph_free(coded);
    nas_graph_free(before);
    nas_graph_free(g);
    nas_oneshot_close(&o);
}

/* What training on of integers leaves out, told before anything is trained. */
Test(search_oneshot_codes, what_cannot_be_tuned_is_refused) {
    static const char *const grids[][3] = {
        {"--grid", "affine", NULL}, {"--grid", "power", NULL}, {"--per-tensor", NULL, NULL}};
    for (size_t i = 0; i < sizeof grids / sizeof *grids; i++) {
        const char *const args[] = {"-o", folder,      "--bits",    "4", "--tune",
                                    "5",  grids[i][0], grids[i][1], NULL};
        nas_process_result r = test_run(ctx, "nas-compress", args);
        cr_assert(r.exit_code == 2, "%s: %d", grids[i][0], r.exit_code);
        cr_assert(strstr(r.err.data, "--tune learns a symmetric step for each channel") != NULL,
                  "%s", r.err.data);
        nas_process_result_deinit(&r);
    }
}

Test(search_oneshot_codes, a_grid_that_a_concatenation_shares_is_not_tuned) {
    nas_oneshot_options options = nas_oneshot_options_default();
    nas_graph *g = mobile(24);
    nas_oneshot o;
    char path[200];
    (void)snprintf(path, sizeof path, "%s/mobile.onnx", folder);
    OK(nas_onnx_export(ctx, g, path));
    nas_graph_free(g);
    options.onnx = path;
    options.data.glyphs = 200;
    options.data.reward_max = options.data.report_max = IMAGES;
    options.calibration_images = 16;
    options.positions = 4;
    OK(nas_oneshot_open(ctx, &options, NULL, NULL, &o));
    OK(nas_oneshot_calibrate(ctx, &o, 1));
    OK(nas_graph_clone(ctx, o.model, &g));
    round_weights(g, 8, NULL);
    nas_oneshot_codes codes;
    nas_layer_scheme schemes[16] = {{0}};
    nas_layer_result results[16] = {{0}};
    cr_assert(o.n_layers <= 16);
    OK(nas_oneshot_codes_find(ctx, &o, g, 8, &codes));
    cr_assert(nas_oneshot_tune(ctx, &o, g, schemes, 1, 0.01, &codes, results) ==
              NAS_ERR_UNSUPPORTED);
    cr_assert(strstr(nas_ctx_message(ctx), "shares the grid of") != NULL &&
                  strstr(nas_ctx_message(ctx), "leave out --act-bits or --tune") != NULL,
              "%s", nas_ctx_message(ctx));
    nas_oneshot_codes_deinit(&codes);
    nas_graph_free(g);
    nas_oneshot_close(&o);
}
