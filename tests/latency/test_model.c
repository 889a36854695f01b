/* Device models from tables: a synthetic device whose truth is known. */
#include "latency/model.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FEATURES = 6, ROWS = 400, TEST_ROWS = 200 };

static const nas_feature features[FEATURES] = {
    {"convs", NAS_FEATURE_TERM},  {"pools", NAS_FEATURE_TERM},     {"macs", NAS_FEATURE_TERM},
    {"width", NAS_FEATURE_SHAPE}, {"operation", NAS_FEATURE_CODE}, {"bias", NAS_FEATURE_SHAPE}};

typedef struct world {
    double x[ROWS + TEST_ROWS][FEATURES];
    double y[ROWS + TEST_ROWS];
} world;

/* Device `kind`: costs of its own, one of them with an operation that is slow and a step in the width. */
static double truth(int kind, const double *x) {
    const double convs = 1 + 0.35 * kind, pools = 0.2 + 0.05 * kind, macs = 0.004 * (1 + kind);
    const double slow = x[4] == 2 ? 1.3 + 0.1 * kind : 1;
    return (0.5 + convs * x[0] + pools * x[1] + macs * x[2]) * slow *
           (1 + 0.1 * sin(3 * x[3] + kind));
}

static world make_world(int kind, double noise, uint64_t seed) {
    world w;
    nas_rng rng = nas_rng_stream(seed, 0, "architectures"),
            of_noise = nas_rng_stream(seed, 1, "noise");
    for (size_t i = 0; i < ROWS + TEST_ROWS; i++) {
        double *x = w.x[i];
        x[0] = nas_rng_below(&rng, 7);
        x[1] = nas_rng_below(&rng, 5);
        x[2] = 100 * nas_rng_uniform(&rng);
        x[3] = nas_rng_uniform(&rng);
        x[4] = nas_rng_below(&rng, 4);
        x[5] = 1; /* constant: no information */
        w.y[i] = truth(kind, x) * exp(noise * nas_rng_normal(&of_noise));
    }
    return w;
}

static nas_latency_table table_of(const world *w, size_t first, size_t n) {
    return (nas_latency_table){.device = "synthetic",
                               .features = features,
                               .n_features = FEATURES,
                               .n_rows = n,
                               .x = w->x[first],
                               .y = w->y + first};
}

static nas_device_model *fitted(nas_ctx *ctx, const world *w, size_t n) {
    const nas_latency_table table = table_of(w, 0, n);
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    const nas_status status = nas_device_model_fit(ctx, &table, &options, &model);
    cr_assert(status == NAS_OK, "%s", nas_ctx_message(ctx));
    return model;
}

static nas_device_model_quality judged(nas_ctx *ctx, const nas_device_model *model,
                                       const world *w) {
    const nas_latency_table test = table_of(w, ROWS, TEST_ROWS);
    nas_device_model_quality q;
    const nas_status status = nas_device_model_evaluate(ctx, model, &test, &q);
    cr_assert(status == NAS_OK, "%s", nas_ctx_message(ctx));
    return q;
}

Test(latency_model, noiseless_truth_is_found_within_a_percent) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(0, 0, 1);
    nas_device_model *model = fitted(ctx, &w, ROWS);
    const nas_device_model_quality q = judged(ctx, model, &w);
    cr_assert(q.mape < 0.01, "mape %g", q.mape);
    cr_assert(q.spearman > 0.999, "spearman %g", q.spearman);
    cr_assert(q.within5 > 0.99, "within 5 %% %g", q.within5);
    cr_assert(q.n_train == ROWS && q.n_test == TEST_ROWS);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

Test(latency_model, intervals_hold_the_share_they_promise) {
    nas_ctx *ctx = nas_ctx_new();
    double coverage = 0, width = 0;
    for (uint64_t seed = 0; seed < 4; seed++) {
        const world w = make_world(1, 0.05, seed);
        nas_device_model *model = fitted(ctx, &w, 250);
        const nas_device_model_quality q = judged(ctx, model, &w);
        coverage += q.coverage90 / 4;
        width += q.width90 / 4;
        nas_device_model_free(model);
    }
    /* 800 test rows: three standard deviations are 0.032; a normal error of 5 % needs a width of 0.165 */
    cr_assert(coverage > 0.86 && coverage < 0.95, "coverage %g", coverage);
    cr_assert(width > 0.14 && width < 0.21, "width %g", width);
    nas_ctx_free(ctx);
}

Test(latency_model, disturbed_measurements_do_not_bend_the_fit) {
    nas_ctx *ctx = nas_ctx_new();
    world w = make_world(0, 0.01, 3);
    for (size_t i = 0; i < ROWS; i += 17)
        w.y[i] *= 4; /* something else ran */
    nas_device_model *model = fitted(ctx, &w, ROWS);
    const nas_device_model_quality q = judged(ctx, model, &w);
    cr_assert(q.within10 > 0.9, "within 10 %% %g", q.within10);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

Test(latency_model, rows_beyond_the_basis_are_used) {
    nas_ctx *ctx = nas_ctx_new();
    enum { MANY = 1300 };
    double(*x)[FEATURES] = nas_alloc_array(ctx, MANY, sizeof *x);
    double *y = nas_alloc_array(ctx, MANY, sizeof *y);
    for (uint64_t part = 0; part < 3; part++) {
        const world w = make_world(0, 0.02, 40 + part);
        const size_t n = part < 2 ? 500 : 300;
        memcpy(x[500 * part], w.x, n * sizeof *x);
        memcpy(y + 500 * part, w.y, n * sizeof *y);
    }
    const nas_latency_table table = {.device = "many",
                                     .features = features,
                                     .n_features = FEATURES,
                                     .n_rows = MANY,
                                     .x = x[0],
                                     .y = y};
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    cr_assert(nas_device_model_fit(ctx, &table, &options, &model) == NAS_OK, "%s",
              nas_ctx_message(ctx));
    const world fresh = make_world(0, 0, 50);
    const nas_device_model_quality q = judged(ctx, model, &fresh);
    cr_assert(q.mape < 0.015, "mape %g", q.mape);
    nas_device_model_free(model);
    nas_free(y);
    nas_free(x);
    nas_ctx_free(ctx);
}

Test(latency_model, equal_seeds_give_equal_bits) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(2, 0.03, 4);
    nas_device_model *a = fitted(ctx, &w, 150), *b = fitted(ctx, &w, 150);
    const nas_latency_table test = table_of(&w, ROWS, TEST_ROWS);
    nas_prediction pa[TEST_ROWS], pb[TEST_ROWS];
    double fast[TEST_ROWS];
    cr_assert(nas_device_model_predict(ctx, a, &test, pa) == NAS_OK);
    cr_assert(nas_device_model_predict(ctx, b, &test, pb) == NAS_OK);
    cr_assert(nas_device_model_predict_fast(ctx, a, &test, fast) == NAS_OK);
    cr_assert(memcmp(pa, pb, sizeof pa) == 0);
    for (size_t i = 0; i < TEST_ROWS; i++) {
        cr_assert(fast[i] == pa[i].p50_us);
        cr_assert(pa[i].lo_us < pa[i].p50_us && pa[i].p50_us < pa[i].hi_us);
    }
    nas_device_model_free(b);
    nas_device_model_free(a);
    nas_ctx_free(ctx);
}

/* ---- ten rows of a new device -------------------------------------------------------------------------------------- */

enum { SOURCES = 3, SAMPLES = 10 };

typedef struct family {
    world sources[SOURCES], target;
    nas_latency_table tables[SOURCES];
} family;

/* Target kind 3; the sources hold architectures of their own. */
static void make_family(family *f) {
    for (int s = 0; s < SOURCES; s++) {
        f->sources[s] = make_world(s, 0.01, 10 + (uint64_t)s);
        f->tables[s] = table_of(&f->sources[s], 0, 200);
    }
    f->target = make_world(3, 0.01, 20);
}

static nas_device_model *transferred(nas_ctx *ctx, const family *f, nas_pick how) {
    const nas_latency_table candidates = table_of(&f->target, 0, ROWS);
    size_t picks[SAMPLES];
    cr_assert(nas_device_model_pick(ctx, f->tables, SOURCES, &candidates, how, SAMPLES, 1, picks) ==
                  NAS_OK,
              "%s", nas_ctx_message(ctx));
    double x[SAMPLES][FEATURES], y[SAMPLES];
    for (size_t i = 0; i < SAMPLES; i++) {
        for (size_t j = 0; j < i; j++)
            cr_assert(picks[i] != picks[j]);
        memcpy(x[i], f->target.x[picks[i]], sizeof x[i]);
        y[i] = f->target.y[picks[i]];
    }
    const nas_latency_table few = {.device = "new",
                                   .features = features,
                                   .n_features = FEATURES,
                                   .n_rows = SAMPLES,
                                   .x = x[0],
                                   .y = y};
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    cr_assert(nas_device_model_transfer(ctx, f->tables, SOURCES, &few, &options, &model) == NAS_OK,
              "%s", nas_ctx_message(ctx));
    return model;
}

Test(latency_model, ten_samples_and_other_devices_rank_a_new_device) {
    nas_ctx *ctx = nas_ctx_new();
    static family f;
    make_family(&f);
    nas_device_model *model = transferred(ctx, &f, NAS_PICK_ACTIVE);
    const nas_device_model_quality q = judged(ctx, model, &f.target);
    cr_assert(q.spearman > 0.95, "spearman %g", q.spearman);
    cr_assert(q.mape < 0.12, "mape %g", q.mape);
    cr_assert(q.coverage90 > 0.7, "coverage %g", q.coverage90);
    cr_assert(q.n_train == SAMPLES);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

Test(latency_model, random_samples_serve_too) {
    nas_ctx *ctx = nas_ctx_new();
    static family f;
    make_family(&f);
    nas_device_model *model = transferred(ctx, &f, NAS_PICK_RANDOM);
    cr_assert(judged(ctx, model, &f.target).spearman > 0.95);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

/* ---- JSON ----------------------------------------------------------------------------------------------------------- */

static void assert_same_after_loading(nas_ctx *ctx, const nas_device_model *model, const world *w) {
    nas_buf text = {0};
    nas_device_model *loaded = NULL;
    cr_assert(nas_device_model_save(ctx, model, &text) == NAS_OK);
    const nas_status status = nas_device_model_load(ctx, text.data, text.len, &loaded);
    cr_assert(status == NAS_OK, "%s", nas_ctx_message(ctx));
    const nas_latency_table test = table_of(w, ROWS, TEST_ROWS);
    nas_prediction before[TEST_ROWS], after[TEST_ROWS];
    cr_assert(nas_device_model_predict(ctx, model, &test, before) == NAS_OK);
    cr_assert(nas_device_model_predict(ctx, loaded, &test, after) == NAS_OK);
    cr_assert(memcmp(before, after, sizeof before) == 0);
    cr_assert(strcmp(nas_device_model_id(model), nas_device_model_id(loaded)) == 0);
    nas_buf again = {0};
    cr_assert(nas_device_model_save(ctx, loaded, &again) == NAS_OK);
    cr_assert(again.len == text.len && memcmp(again.data, text.data, text.len) == 0);
    nas_device_model_free(loaded);
    nas_buf_deinit(&again);
    nas_buf_deinit(&text);
}

Test(latency_model, saved_and_loaded_models_predict_the_same_bits) {
    nas_ctx *ctx = nas_ctx_new();
    const long live = nas_mem_live();
    static family f;
    make_family(&f);
    nas_device_model *own = fitted(ctx, &f.target, 60),
                     *moved = transferred(ctx, &f, NAS_PICK_ACTIVE);
    assert_same_after_loading(ctx, own, &f.target);
    assert_same_after_loading(ctx, moved, &f.target);
    nas_device_model_free(moved);
    nas_device_model_free(own);
    cr_assert(nas_mem_live() == live, "%ld blocks stay", nas_mem_live() - live);
    nas_ctx_free(ctx);
}

Test(latency_model, damaged_texts_are_refused) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(0, 0.01, 5);
    nas_device_model *model = fitted(ctx, &w, 20), *loaded = NULL;
    nas_buf text = {0};
    cr_assert(nas_device_model_save(ctx, model, &text) == NAS_OK);
    const long live = nas_mem_live();
    static const char *const bad[] = {"", "{}", "[1]",
                                      "{\"format\": \"nas-device-model\", \"version\": 2}"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        cr_assert(nas_device_model_load(ctx, bad[i], strlen(bad[i]), &loaded) != NAS_OK, "%s",
                  bad[i]);
    for (size_t cut = 1; cut < text.len; cut += 97)
        cr_assert(nas_device_model_load(ctx, text.data, cut, &loaded) == NAS_ERR_PARSE);
    static const char *const keys[] = {"\"weight\"", "\"x\"", "\"hyper\"", "\"coordinates\"",
                                       "\"level\""};
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char *at = strstr(text.data, keys[i]);
        cr_assert(at != NULL);
        at[1] = '_'; /* the key is gone */
        cr_assert(nas_device_model_load(ctx, text.data, text.len, &loaded) != NAS_OK, "%s",
                  keys[i]);
        at[1] = keys[i][1];
    }
    cr_assert(nas_mem_live() == live);
    nas_buf_deinit(&text);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

Test(latency_model, explanation_finds_what_costs) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(0, 0.01, 6);
    nas_device_model *model = fitted(ctx, &w, 200);
    nas_buf text = {0};
    cr_assert(nas_device_model_explain(ctx, model, &text) == NAS_OK);
    double effect[FEATURES];
    for (int k = 0; k < FEATURES; k++) {
        char name[64];
        (void)snprintf(name, sizeof name, "\"name\":\"%s\"", features[k].name);
        const char *at = strstr(text.data, name);
        cr_assert(at != NULL, "%s in %s", name, text.data);
        effect[k] = strtod(strstr(at, "\"effect\":") + 9, NULL);
    }
    cr_assert(effect[0] > effect[1] && effect[1] > effect[5]);
    cr_assert(effect[5] == 0); /* constant */
    nas_buf_deinit(&text);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

/* ---- bad input -------------------------------------------------------------------------------------------------- */

static void assert_refused(nas_ctx *ctx, const nas_latency_table *table, const char *word) {
    const nas_device_model_options options = nas_device_model_options_default();
    nas_device_model *model = NULL;
    cr_assert(nas_device_model_fit(ctx, table, &options, &model) == NAS_ERR_INVALID);
    cr_assert(model == NULL);
    cr_assert(strstr(nas_ctx_message(ctx), word) != NULL, "'%s' in: %s", word,
              nas_ctx_message(ctx));
}

Test(latency_model, bad_tables_are_refused_by_row_and_feature) {
    nas_ctx *ctx = nas_ctx_new();
    static const struct {
        size_t feature;
        double value;
        const char *word;
    } cells[] = {{0, NAN, "convs"},
                 {0, -1, "convs"},
                 {3, INFINITY, "width"},
                 {4, 1.5, "operation"},
                 {4, 32, "operation"}};
    for (size_t i = 0; i < sizeof cells / sizeof cells[0]; i++) {
        world w = make_world(0, 0, 7);
        w.x[13][cells[i].feature] = cells[i].value;
        const nas_latency_table table = table_of(&w, 0, 20);
        assert_refused(ctx, &table, cells[i].word);
        assert_refused(ctx, &table, "row 13");
    }
    static const double values[] = {0, -3, NAN, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        world w = make_world(0, 0, 7);
        w.y[4] = values[i];
        const nas_latency_table table = table_of(&w, 0, 20);
        assert_refused(ctx, &table, "row 4");
    }
    const world w = make_world(0, 0, 7);
    nas_latency_table table = table_of(&w, 0, 0);
    assert_refused(ctx, &table, "no rows");
    table = table_of(&w, 0, 7);
    assert_refused(ctx, &table, "transfer");
    nas_feature twice[FEATURES];
    memcpy(twice, features, sizeof twice);
    twice[3].name = "convs";
    table = table_of(&w, 0, 20);
    table.features = twice;
    assert_refused(ctx, &table, "convs");
    nas_ctx_free(ctx);
}

Test(latency_model, tables_of_other_features_are_refused) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(0, 0.01, 8);
    nas_device_model *model = fitted(ctx, &w, 30), *moved = NULL;
    nas_feature other[FEATURES];
    memcpy(other, features, sizeof other);
    other[1].name = "adds";
    nas_latency_table table = table_of(&w, 0, 20);
    table.features = other;
    nas_prediction out[20];
    cr_assert(nas_device_model_predict(ctx, model, &table, out) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "adds") != NULL);
    const nas_device_model_options options = nas_device_model_options_default();
    const nas_device_model *const sources[] = {model};
    cr_assert(nas_device_model_transfer_from(ctx, sources, 1, &table, &options, &moved) ==
              NAS_ERR_INVALID);
    table.features = features;
    table.n_rows = 2;
    cr_assert(nas_device_model_transfer_from(ctx, sources, 1, &table, &options, &moved) ==
              NAS_ERR_INVALID);
    cr_assert(nas_device_model_transfer_from(ctx, sources, 0, &table, &options, &moved) ==
              NAS_ERR_INVALID);
    nas_device_model_options wrong = options;
    wrong.model = "oracle";
    table.n_rows = 20;
    cr_assert(nas_device_model_fit(ctx, &table, &wrong, &moved) == NAS_ERR_INVALID);
    wrong = options;
    wrong.level = 1;
    cr_assert(nas_device_model_fit(ctx, &table, &wrong, &moved) == NAS_ERR_RANGE);
    size_t picks[20];
    cr_assert(nas_device_model_pick_from(ctx, sources, 1, &table, NAS_PICK_ACTIVE, 21, 1, picks) ==
              NAS_ERR_INVALID);
    nas_device_model_free(model);
    nas_ctx_free(ctx);
}

Test(latency_model, one_failed_allocation_leaks_nothing) {
    nas_ctx *ctx = nas_ctx_new();
    const world w = make_world(0, 0.01, 9);
    const nas_latency_table table = table_of(&w, 0, 12);
    const nas_device_model_options options = nas_device_model_options_default();
    const long live = nas_mem_live();
    for (long n = 1;; n += n < 40 ? 1 : 17) {
        nas_device_model *model = NULL;
        nas_mem_fail_after(n);
        const nas_status status = nas_device_model_fit(ctx, &table, &options, &model);
        nas_mem_fail_after(0);
        nas_device_model_free(model);
        cr_assert(nas_mem_live() == live, "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(model == NULL);
    }
    nas_ctx_free(ctx);
}

/* ---- ranks -------------------------------------------------------------------------------------------------------- */

Test(latency_model, rank_correlations_agree_with_counting_pairs) {
    nas_ctx *ctx = nas_ctx_new();
    nas_rng rng = nas_rng_stream(1, 2, "ranks");
    double a[40], b[40], rho = 0, tau = 0;
    for (size_t i = 0; i < 40; i++) {
        a[i] = nas_rng_below(&rng, 12); /* many ties */
        b[i] = a[i] + nas_rng_below(&rng, 9);
    }
    double concordant = 0, untied_a = 0, untied_b = 0;
    for (size_t i = 0; i < 40; i++) {
        for (size_t j = 0; j < i; j++) {
            const double p = (a[i] - a[j]) * (b[i] - b[j]);
            concordant += p > 0 ? 1 : p < 0 ? -1 : 0;
            untied_a += a[i] != a[j];
            untied_b += b[i] != b[j];
        }
    }
    cr_assert(nas_rank_correlation(ctx, a, b, 40, &rho, &tau) == NAS_OK);
    cr_assert(fabs(tau - concordant / sqrt(untied_a * untied_b)) < 1e-12, "tau %g", tau);
    cr_assert(rho > tau && rho < 1);
    const double up[] = {1, 2, 3, 10}, down[] = {4, 3, 2, 1}, same[] = {5, 5, 5, 5};
    cr_assert(nas_rank_correlation(ctx, up, down, 4, &rho, &tau) == NAS_OK);
    cr_assert(fabs(rho + 1) < 1e-12 && fabs(tau + 1) < 1e-12);
    cr_assert(nas_rank_correlation(ctx, up, same, 4, &rho, &tau) == NAS_OK);
    cr_assert(rho == 0 && tau == 0);
    cr_assert(nas_rank_correlation(ctx, up, up, 1, &rho, &tau) == NAS_ERR_INVALID);
    nas_ctx_free(ctx);
}
