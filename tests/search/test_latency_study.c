/* test_latency_study.c - nas-latency on the database that a search left: its networks and its profiled layers are rows. */
#include "db/db.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[128], db_path[256];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
    (void)snprintf(db_path, sizeof db_path, "%s/run/study.db", folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
}

TestSuite(search_latency_study, .init = setup, .fini = teardown, .timeout = 300);

static void search(void) {
    char dir[256];
    (void)snprintf(dir, sizeof dir, "study.dir=%s/run", folder);
    nas_process_result r =
        test_run(ctx, "nas-search",
                 (const char *const[]){"--config", "configs/sr720p-quick.toml", "--set", dir,
                                       "--trials", "24", "--set", "search.skip_by_prediction=false",
                                       "--profile", "-q", NULL});
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    nas_process_result_deinit(&r);
}

static json_t *ask(const char *const *args) {
    nas_process_result r = test_run(ctx, "nas-latency", args);
    cr_assert(eq(int, r.exit_code, NAS_EXIT_OK), "%s", r.err.data);
    json_t *root = json_loadb(r.out.data, r.out.len, 0, NULL);
    const bool is_object = json_is_object(root);
    cr_assert(is_object, "%s", r.out.data);
    nas_process_result_deinit(&r);
    return root;
}

static double number(const json_t *root, const char *key) {
    const bool is_number = json_is_number(json_object_get(root, key));
    cr_assert(is_number, "no number '%s'", key);
    return json_number_value(json_object_get(root, key));
}

/* What best/recipe.json says of the network's latency, in ms. */
static double recipe_ms(const char *path) {
    json_t *root = json_load_file(path, 0, NULL);
    const double us = number(json_object_get(root, "latency"), "p50_us");
    json_decref(root);
    return us * 1e-3;
}

#define DB "--db", db_path, "--device", "simulated"

Test(search_latency_study, a_search_is_fitted_and_its_best_network_predicted_with_its_layers) {
    char recipe[256], onnx[256];
    (void)snprintf(recipe, sizeof recipe, "%s/run/best/recipe.json", folder);
    (void)snprintf(onnx, sizeof onnx, "%s/run/best/model.onnx", folder);
    search();
    json_t *fit = ask((const char *const[]){"fit", DB, "-f", "json", NULL});
    cr_expect(
        eq(str, (char *)(uintptr_t)json_string_value(json_object_get(fit, "space")), "network"));
    cr_expect(number(fit, "n_train") + number(fit, "n_test") > 23);
    json_decref(fit);
    fit = ask((const char *const[]){"fit", DB, "--space", "kernel", "-f", "json", NULL});
    cr_expect(number(fit, "n_train") >= 8, "the layers that --profile timed");
    json_decref(fit);

    json_t *a = ask((const char *const[]){"predict", DB, "--recipe", recipe, "-f", "json", NULL});
    const double value = number(a, "value"), truth = recipe_ms(recipe);
    cr_expect(fabs(value / truth - 1) < 0.1, "%g ms, measured %g", value, truth);
    cr_expect(number(a, "lo") < value && value < number(a, "hi"));
    const json_t *layers = json_object_get(a, "layers");
    cr_assert(json_array_size(layers) > 4);
    size_t alone = 0;
    for (size_t i = 0; i < json_array_size(layers); i++)
        alone += json_is_number(json_object_get(json_array_get(layers, i), "alone_ms"));
    cr_expect(alone >= 3, "convolutions have a time of their own");

    json_t *b = ask((const char *const[]){"predict", DB, "--onnx", onnx, "-f", "json", NULL});
    cr_expect(fabs(number(b, "value") / value - 1) < 0.1, "%g of the ONNX file, %g of the recipe",
              number(b, "value"), value);
    const char *arch = json_string_value(json_object_get(a, "arch"));
    json_t *c = ask((const char *const[]){"predict", DB, "--arch", arch, "-f", "json", NULL});
    cr_expect(epsilon_eq(dbl, number(c, "value"), value, 1e-9));
    json_decref(c);
    json_decref(b);
    json_decref(a);
}

Test(search_latency_study, what_no_study_measured_is_told) {
    search();
    nas_process_result r = test_run(
        ctx, "nas-latency", (const char *const[]){"fit", "--db", db_path, "--device", "pi5", NULL});
    cr_expect(ne(int, r.exit_code, 0));
    cr_expect(ne(ptr, strstr(r.err.data, "pi5"), NULL), "%s", r.err.data);
    nas_process_result_deinit(&r);
    r = test_run(ctx, "nas-latency", (const char *const[]){"fit", DB, NULL});
    cr_assert(eq(int, r.exit_code, 0), "%s", r.err.data);
    nas_process_result_deinit(&r);
    r = test_run(ctx, "nas-latency",
                 (const char *const[]){"predict", DB, "--arch", "48x80 sr x2 f16 h3", NULL});
    cr_expect(ne(int, r.exit_code, 0), "half a point");
    nas_process_result_deinit(&r);
}
