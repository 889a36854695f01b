/* test_latency_rows.c - values of devices and their models: kept, found, replaced only when asked. */
#include "tests/db/fixture.h"

#include <string.h>

SUITE(db_latency_rows);

#define SHA "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static nas_db_value value_of(int64_t series, int64_t import, const char *arch, double value) {
    return (nas_db_value){
        .series_id = series, .import_id = import, .arch = (char *)(uintptr_t)arch, .value = value};
}

Test(db_latency_rows, values_are_kept_by_architecture_and_replaced_only_when_asked) {
    nas_db *db = open_db();
    int64_t series = 0, again = 0, import = 0;
    OK(nas_db_series_put(ctx, db, "pi5", "nb201", NAS_DB_LATENCY, &series));
    OK(nas_db_series_put(ctx, db, "pi5", "nb201", NAS_DB_LATENCY, &again));
    cr_assert(eq(i64, series, again));
    OK(nas_db_import_put(ctx, db, "a.csv", "csv", "", &import));
    nas_db_value row = value_of(series, import, "b", 2.5);
    OK(nas_db_value_put(ctx, db, &row, false));
    row.arch = (char *)(uintptr_t) "a";
    OK(nas_db_value_put(ctx, db, &row, false));
    FAILS(NAS_ERR_DB, nas_db_value_put(ctx, db, &row, false));
    row.value = 7;
    OK(nas_db_value_put(ctx, db, &row, true));
    row.value = -1;
    FAILS(NAS_ERR_DB, nas_db_value_put(ctx, db, &row, true));
    nas_db_value *rows = NULL;
    size_t n = 0;
    OK(nas_db_series_values(ctx, db, series, &rows, &n));
    cr_assert(eq(sz, n, (size_t)2));
    cr_assert(eq(str, rows[0].arch, (char *)"a"));
    cr_assert(eq(dbl, rows[0].value, 7.0));
    nas_db_series_values_free(rows, n);
    nas_opt_double found = {0};
    OK(nas_db_value_get(ctx, db, series, "b", &found));
    cr_assert(found.is_set && found.value > 2.4 && found.value < 2.6);
    found = (nas_opt_double){0};
    OK(nas_db_value_get(ctx, db, series, "c", &found));
    cr_assert(not(found.is_set));
    close_db(db);
}

Test(db_latency_rows, a_device_of_several_spaces_must_be_told_apart) {
    nas_db *db = open_db();
    int64_t id = 0;
    nas_db_series series;
    OK(nas_db_series_put(ctx, db, "x", "nb201", NAS_DB_LATENCY, &id));
    OK(nas_db_series_put(ctx, db, "x", "nb201", NAS_DB_ENERGY, &id));
    OK(nas_db_series_find(ctx, db, "x", NULL, NAS_DB_LATENCY, &series));
    cr_assert(eq(str, series.space, (char *)"nb201"));
    OK(nas_db_series_put(ctx, db, "x", "fbnet", NAS_DB_LATENCY, &id));
    FAILS(NAS_ERR_INVALID, nas_db_series_find(ctx, db, "x", NULL, NAS_DB_LATENCY, &series));
    cr_assert(says("choose one with --space"));
    OK(nas_db_series_find(ctx, db, "x", "fbnet", NAS_DB_LATENCY, &series));
    FAILS(NAS_ERR_NOTFOUND, nas_db_series_find(ctx, db, "y", NULL, NAS_DB_LATENCY, &series));
    close_db(db);
}

Test(db_latency_rows, the_latest_model_is_the_one_in_use) {
    nas_db *db = open_db();
    nas_db_series series = {0};
    int64_t id = 0;
    OK(nas_db_series_put(ctx, db, "x", "nb201", NAS_DB_LATENCY, &id));
    OK(nas_db_series_find(ctx, db, "x", NULL, NAS_DB_LATENCY, &series));
    nas_db_model out = {0};
    FAILS(NAS_ERR_NOTFOUND, nas_db_model_latest(ctx, db, &series, &out));
    cr_assert(says("fit or transfer"));
    char first[] = "gp/1", second[] = "gp/2", json[] = "{}";
    nas_db_model row = {.series_id = series.id, .predictor = first, .options = json, .model = json};
    OK(nas_db_model_put(ctx, db, &row, &id));
    row.predictor = second;
    OK(nas_db_model_put(ctx, db, &row, &id));
    OK(nas_db_model_latest(ctx, db, &series, &out));
    cr_assert(eq(str, out.predictor, second));
    cr_assert(eq(ptr, out.quality, NULL));
    nas_db_model_deinit(&out);
    close_db(db);
}

Test(db_latency_rows, the_latest_runs_of_a_device_come_oldest_first) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "s"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "random", 30, 1000, 0);
    const nas_db_artifact program = {.target = "native",
                                     .sha256 = SHA,
                                     .source_sha256 = SHA,
                                     .compiler = "cc",
                                     .flags = "",
                                     .size_bytes = 1};
    int64_t artifact = 0;
    OK(nas_db_artifact_put(ctx, db, &program, &artifact));
    const double samples[] = {1};
    for (int i = 1; i <= 5; i++) {
        int64_t id = 0;
        nas_db_measurement row = {.study_id = study,
                                  .trial_id = trial,
                                  .device_id = device,
                                  .artifact_id = i == 5 ? 0 : artifact,
                                  .role = "search",
                                  .threads = i == 4 ? 2 : 1,
                                  .batch_size = 1,
                                  .batches = 1,
                                  .p50_us = i,
                                  .p50_lo_us = i,
                                  .p50_hi_us = i,
                                  .p90_us = i,
                                  .p10_us = i,
                                  .min_us = i,
                                  .passport_json = "{}",
                                  .samples_us = samples,
                                  .n_samples = 1};
        OK(nas_db_measurement_insert(ctx, db, &row, &id));
    }
    nas_db_run *runs = NULL;
    size_t n = 0;
    OK(nas_db_device_runs(ctx, db, device, 1, 2, &runs, &n));
    cr_assert(
        eq(sz, n, (size_t)2)); /* neither that with two threads nor that of no known program */
    cr_assert(eq(str, runs[0].sha256, (char *)SHA));
    cr_assert(epsilon_eq(dbl, runs[0].p50_us, 2, 1e-12));
    cr_assert(epsilon_eq(dbl, runs[1].p50_us, 3, 1e-12));
    nas_free(runs);
    close_db(db);
}
