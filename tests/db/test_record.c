/* test_record.c - studies, meta, events, artifacts, devices, measurements, predictions, layers. */
#include "tests/db/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

SUITE(db_record);

Test(db_record, a_study_reads_back_with_its_64_bit_seed) {
    nas_db *db = open_db();
    const int64_t id = add_study(db, "sr \xc3\xa4");
    nas_db_study row = {0};
    OK(nas_db_study_get(ctx, db, "sr \xc3\xa4", &row));
    cr_assert(eq(i64, row.id, id));
    cr_assert(eq(u64, row.seed, UINT64_MAX));
    cr_assert(eq(str, row.space, "sr"));
    cr_assert(eq(str, row.strategy, "nsga2"));
    cr_assert(eq(str, row.config_toml, "[study]\n"));
    cr_assert(eq(str, row.config_json, "{}"));
    cr_assert(eq(str, row.strategy_state, "s0"));
    cr_assert(eq(str, row.data_hash, ""));
    int64_t again = 0;
    FAILS(NAS_ERR_DB, nas_db_study_insert(ctx, db, &row, &again));
    cr_assert(says("UNIQUE"));
    nas_db_study_deinit(&row);
    char hash[NAS_SHA256_HEX];
    nas_sha256_hex("d", 1, hash);
    OK(nas_db_study_set_data_hash(ctx, db, id, hash));
    FAILS(NAS_ERR_NOTFOUND, nas_db_study_set_data_hash(ctx, db, id + 1, hash));
    OK(nas_db_study_set_strategy_state(ctx, db, id, "s1"));
    OK(nas_db_study_get(ctx, db, "sr \xc3\xa4", &row));
    cr_assert(eq(str, row.data_hash, hash));
    cr_assert(eq(str, row.strategy_state, "s1"));
    nas_db_study_deinit(&row);
    FAILS(NAS_ERR_NOTFOUND, nas_db_study_get(ctx, db, "none", &row));
    close_db(db);
}

Test(db_record, a_refused_study_leaves_no_strategy_state) {
    nas_db *db = open_db();
    char text[] = "x";
    nas_db_study row = {.space = "sr",
                        .strategy = "random",
                        .config_toml = text,
                        .config_json = text,
                        .strategy_state = text}; /* no name */
    int64_t id = 0;
    FAILS(NAS_ERR_DB, nas_db_study_insert(ctx, db, &row, &id));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM strategy_states"), "0"));
    cr_assert(eq(i64, id, 0));
    close_db(db);
}

Test(db_record, meta_is_replaced_and_events_are_kept) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    char *value = NULL;
    FAILS(NAS_ERR_NOTFOUND, nas_db_meta_get(ctx, db, study, "phase", &value));
    OK(nas_db_meta_set(ctx, db, study, "phase", "train"));
    OK(nas_db_meta_set(ctx, db, study, "phase", "search"));
    OK(nas_db_meta_get(ctx, db, study, "phase", &value));
    cr_assert(eq(str, value, "search"));
    nas_free(value);
    OK(nas_db_event(ctx, db, study, "start", "1"));
    OK(nas_db_event(ctx, db, study, "resume", "2"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(kind || text) FROM v_event"),
                 "start1,resume2"));
    FAILS(NAS_ERR_DB, nas_db_event(ctx, db, study + 1, "start", "no such study"));
    close_db(db);
}

Test(db_record, artifacts_are_found_again_by_hash) {
    nas_db *db = open_db();
    nas_db_artifact row = {
        .target = "x86-64", .compiler = "gcc 12", .flags = "-O2", .size_bytes = 10, .compile_s = 1};
    nas_sha256_hex("a", 1, row.sha256);
    int64_t first = 0, second = 0, other = 0;
    OK(nas_db_artifact_put(ctx, db, &row, &first));
    row.compile_s = 7;
    OK(nas_db_artifact_put(ctx, db, &row, &second));
    cr_assert(eq(i64, first, second));
    nas_sha256_hex("b", 1, row.sha256);
    OK(nas_db_artifact_put(ctx, db, &row, &other));
    cr_assert(ne(i64, first, other));
    row.size_bytes = UINT64_MAX;
    FAILS(NAS_ERR_RANGE, nas_db_artifact_put(ctx, db, &row, &other));
    const int64_t study = add_study(db, "a"),
                  trial = add_complete(db, study, 0, "seed", 30, 100, 0);
    OK(nas_db_trial_set_artifact(ctx, db, trial, first, "search"));
    OK(nas_db_trial_set_artifact(ctx, db, trial, first, "search"));
    FAILS(NAS_ERR_DB,
          nas_db_trial_set_artifact(ctx, db, trial, other, "search")); /* the trial is finished */
    OK(nas_db_trial_set_artifact(ctx, db, trial, other, "final"));
    FAILS(NAS_ERR_DB, nas_db_trial_set_artifact(ctx, db, trial, other, "guess"));
    FAILS(NAS_ERR_DB, nas_db_trial_set_artifact(ctx, db, trial, 99, "final"));
    close_db(db);
}

Test(db_record, a_device_is_the_same_only_with_the_same_fingerprint) {
    nas_db *db = open_db();
    int64_t a = 0, b = 0, c = 0;
    OK(nas_db_device_put(ctx, db, "local", "local", "f1", "{}", false, &a));
    OK(nas_db_device_put(ctx, db, "local", "http://h:1", "f1", "{\"x\":1}", false, &b));
    OK(nas_db_device_put(ctx, db, "local", "local", "f2", "{}", false, &c));
    cr_assert(eq(i64, a, b));
    cr_assert(ne(i64, a, c));
    cr_assert(eq(str,
                 (char *)raw_text(
                     db_path, "SELECT connect || info_json FROM devices WHERE fingerprint = 'f1'"),
                 "http://h:1{\"x\":1}"));
    close_db(db);
}

Test(db_record, raw_samples_are_stored_little_endian) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "seed", 30, 100, 0);
    (void)add_measurement(db, trial, device, "search");
    /* 1000.5 is 0x408f440000000000 in IEEE 754 */
    cr_assert(eq(
        str,
        (char *)raw_text(db_path, "SELECT lower(hex(substr(samples_us, 1, 8))) FROM measurements"),
        "0000000000448f40"));
    cr_assert(eq(str,
                 (char *)raw_text(
                     db_path, "SELECT n_samples || '/' || length(samples_us) FROM measurements"),
                 "3/24"));
    close_db(db);
}

Test(db_record, a_drift_reference_needs_no_trial_and_a_measurement_needs_valid_parts) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    nas_db_measurement row = {.study_id = study,
                              .device_id = device,
                              .role = "reference",
                              .threads = 1,
                              .p50_us = 10,
                              .drift_ratio = nas_some_double(1.02)};
    int64_t id = 0;
    OK(nas_db_measurement_insert(ctx, db, &row, &id)); /* no samples and no passport either */
    cr_assert(eq(str,
                 (char *)raw_text(db_path,
                                  "SELECT study || coalesce(trial, '-') || drift_ratio || n_samples"
                                  " FROM v_measurement"),
                 "a-1.020"));
    row.role = "search"; /* without a trial */
    FAILS(NAS_ERR_DB, nas_db_measurement_insert(ctx, db, &row, &id));
    row.role = "guess";
    FAILS(NAS_ERR_DB, nas_db_measurement_insert(ctx, db, &row, &id));
    row = (nas_db_measurement){
        .device_id = device + 1, .role = "reference", .threads = 1, .p50_us = 10};
    FAILS(NAS_ERR_DB, nas_db_measurement_insert(ctx, db, &row, &id));
    cr_assert(says("FOREIGN KEY"));
    row.device_id = device;
    row.p90_us = NAN;
    FAILS(NAS_ERR_INVALID, nas_db_measurement_insert(ctx, db, &row, &id));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM measurements"), "1"));
    close_db(db);
}

static void predict(nas_db *db, int64_t trial, int64_t device, double p50_us) {
    const nas_db_prediction row = {.trial_id = trial,
                                   .device_id = device,
                                   .predictor = "p n=3",
                                   .p50_us = p50_us,
                                   .lo_us = p50_us / 2,
                                   .hi_us = p50_us * 2};
    OK(nas_db_prediction_insert(ctx, db, &row));
}

Test(db_record, the_shown_prediction_is_the_last_one_made_before_the_measurement) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "strategy", 30, 1000, 0);
    const int64_t other = add_complete(db, study, 1, "strategy", 31, 2000, 0);
    predict(db, trial, device, 1500);
    predict(db, trial, device, 1200);
    (void)add_measurement(db, trial, device, "search");
    predict(db, trial, device, 1000.5); /* the model has seen the answer */
    (void)add_measurement(db, other, device, "search");
    predict(db, other, device, 1);
    cr_assert(
        eq(str,
           (char *)raw_text(db_path, "SELECT latency_pred_ms || ' ' || latency_pred_lo_ms || ' ' ||"
                                     " latency_pred_hi_ms FROM v_trial WHERE trial = 0"),
           "1.2 0.6 2.4"));
    cr_assert(
        eq(str,
           (char *)raw_text(db_path, "SELECT latency_pred_ms IS NULL FROM v_trial WHERE trial = 1"),
           "1"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(in_sample) FROM v_prediction"),
                 "0,0,1,1"));
    bool has = true;
    OK(nas_db_trial_has_prediction(ctx, db, other, &has));
    cr_assert(not(has)); /* an in-sample one is none */
    const nas_db_prediction held_out = {.trial_id = other,
                                        .device_id = device,
                                        .predictor = "p",
                                        .p50_us = 2500,
                                        .lo_us = 2000,
                                        .hi_us = 3000,
                                        .held_out = true};
    OK(nas_db_prediction_insert(ctx, db, &held_out));
    OK(nas_db_trial_has_prediction(ctx, db, other, &has));
    cr_assert(has);
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT latency_pred_ms FROM v_trial WHERE trial = 1"),
                 "2.5"));
    const nas_db_prediction bad = {
        .trial_id = trial, .device_id = device, .predictor = "p", .p50_us = INFINITY};
    FAILS(NAS_ERR_INVALID, nas_db_prediction_insert(ctx, db, &bad));
    close_db(db);
}

Test(db_record, layers_of_a_trial_are_replaced_as_a_whole) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), trial = add_trial(db, study, 0, "seed");
    nas_db_layer rows[3] = {{"head", "conv3x3", 360, 640, 3, 16, 3, 99532800, 99532800, 1000, 4.5},
                            {"b0", "conv1x1", 360, 640, 16, 96, 1, 1, 2, 3, 0.5},
                            {"tail", "conv5x5", 360, 640, 16, 12, 5, 1, 2, 3, 0.5}};
    OK(nas_db_layers_put(ctx, db, trial, rows, 3));
    OK(nas_db_layers_put(ctx, db, trial, rows, 2));
    cr_assert(eq(
        str, (char *)raw_text(db_path, "SELECT group_concat(layer || node || macs) FROM v_layer"),
        "0head99532800,1b01"));
    rows[1].intensity = NAN;
    FAILS(NAS_ERR_INVALID, nas_db_layers_put(ctx, db, trial, rows, 3));
    cr_assert(says("layer 1"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM v_layer"),
                 "2")); /* the old ones are back */
    OK(nas_db_layers_put(ctx, db, trial, NULL, 0));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM v_layer"), "0"));
    close_db(db);
}
