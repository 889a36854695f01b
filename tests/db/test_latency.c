/* test_latency.c - several devices in a study: a latency of each queue, the front by all objectives, columns of each,
 * passports, and files of the schema before. */
#include "tests/db/fixture.h"

#include <stdio.h>
#include <string.h>

SUITE(db_latency);

static nas_db_latency latency(int64_t trial, const char *queue, double p50_us, bool final) {
    nas_db_latency row = {.trial_id = trial,
                          .final = final,
                          .p50_us = p50_us,
                          .p50_lo_us = p50_us * 0.9,
                          .p50_hi_us = p50_us * 1.1,
                          .p90_us = p50_us * 1.2,
                          .checked = "run here, one frame"};
    (void)snprintf(row.queue, sizeof row.queue, "%s", queue);
    return row;
}

static nas_status collect(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                          const char *const *values, const bool *is_number) {
    (void)c;
    (void)is_number;
    nas_buf *text = arg;
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(text, "%s=%s ", names[i], values[i] == NULL ? "-" : values[i]);
    nas_buf_puts(text, "\n");
    return NAS_OK;
}

static void assert_reports(nas_db *db, nas_db_report_kind kind, int64_t number, bool brief,
                           const char *words) {
    nas_buf text = {0};
    OK(nas_db_report(ctx, db, kind, "a", number, brief, collect, &text));
    cr_assert(text.data != NULL && strstr(text.data, words) != NULL, "no '%s' in\n%s", words,
              text.data == NULL ? "" : text.data);
    nas_buf_deinit(&text);
}

Test(db_latency, a_latency_is_replaced_until_the_trial_is_finished_and_read_back) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), trial = add_trial(db, study, 0, "strategy");
    OK(nas_db_trial_lease(ctx, db, trial, "w", 60000));
    nas_db_latency row = latency(trial, "s21", 1000, false);
    OK(nas_db_trial_latency_put(ctx, db, &row));
    row.p50_us = 900;
    row.noisy = true;
    OK(nas_db_trial_latency_put(ctx, db, &row));
    const nas_db_values none = {0};
    OK(nas_db_trial_finish(ctx, db, trial, NAS_TRIAL_COMPLETE, NULL, &none));
    row.p50_us = 800;
    cr_assert(eq(int, (int)nas_db_trial_latency_put(ctx, db, &row), (int)NAS_ERR_DB));
    cr_assert(says("never modified"));
    nas_db_latency last = latency(trial, "s21", 700, true);
    OK(nas_db_trial_latency_put(ctx, db, &last));
    cr_assert(eq(int, (int)nas_db_trial_latency_put(ctx, db, &last), (int)NAS_ERR_DB),
              "final ones are put once");
    nas_db_latency *rows = NULL;
    size_t n = 0;
    OK(nas_db_trial_latencies(ctx, db, study, &rows, &n));
    cr_assert(eq(sz, n, 2));
    cr_assert(rows[0].final && !rows[1].final);
    cr_assert(eq(dbl, rows[1].p50_us, 900.0));
    cr_assert(rows[1].noisy);
    cr_assert(eq(str, rows[1].queue, "s21"));
    cr_assert(eq(str, rows[1].checked, "run here, one frame"));
    nas_free(rows);
    close_db(db);
}

Test(db_latency, a_final_latency_needs_a_complete_trial) {
    nas_db *db = open_db();
    const int64_t trial = add_trial(db, add_study(db, "a"), 0, "strategy");
    const nas_db_latency row = latency(trial, "s21", 1000, true);
    cr_assert(eq(int, (int)nas_db_trial_latency_put(ctx, db, &row), (int)NAS_ERR_DB));
    cr_assert(says("only a COMPLETE trial"));
    close_db(db);
}

/* Two queues, two finished trials; the second is slower in the first queue and of lower quality, but on the front. */
static nas_db *two_queues(void) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    static const char *const names[] = {"s21", "it's \"odd\""};
    OK(nas_db_study_set_queues(ctx, db, study, names, 2));
    int64_t ids[2];
    for (int64_t i = 0; i < 2; i++) {
        ids[i] = add_trial(db, study, i, "strategy");
        OK(nas_db_trial_lease(ctx, db, ids[i], "w", 60000));
        const double us = i == 0 ? 1000 : 2000;
        nas_db_latency row = latency(ids[i], names[0], us, false);
        OK(nas_db_trial_latency_put(ctx, db, &row));
        row = latency(ids[i], names[1], 6000 - us, false);
        row.noisy = i == 1;
        OK(nas_db_trial_latency_put(ctx, db, &row));
        const nas_db_values values = {.psnr_y_db = nas_some_double(30.0 - (double)i),
                                      .latency_p50_us = nas_some_double(us),
                                      .violation = nas_some_double(0)};
        OK(nas_db_trial_finish(ctx, db, ids[i], NAS_TRIAL_COMPLETE, NULL, &values));
    }
    OK(nas_db_study_set_front(ctx, db, study, ids, 2));
    return db;
}

Test(db_latency, reports_of_a_study_with_two_queues_have_columns_of_each) {
    nas_db *db = two_queues();
    assert_reports(db, NAS_DB_REPORT_FRONT, 0, true, "latency_p50_ms@s21=1 ");
    assert_reports(db, NAS_DB_REPORT_FRONT, 0, false, "latency_p50_ms@it's \"odd\"=5 ");
    assert_reports(db, NAS_DB_REPORT_TRIALS, 0, true, "latency_p90_ms@s21=2.4 ");
    assert_reports(db, NAS_DB_REPORT_TRIALS, 0, true, "noisy=it's \"odd\" ");
    assert_reports(db, NAS_DB_REPORT_FINAL, 0, true, "lo@it's \"odd\"=3.6 ");
    assert_reports(db, NAS_DB_REPORT_BEST, 0, false, "latency_p50_ms@s21=1 ");
    close_db(db);
}

Test(db_latency, the_front_of_several_queues_is_the_one_that_was_told) {
    close_db(two_queues());
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(trial) FROM v_front"), "0,1"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT front FROM v_study"), "2"));
}

Test(db_latency, a_passport_lists_every_fact_of_a_measurement_by_its_path) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "strategy", 30, 1000, 0);
    const int64_t id = add_measurement(db, trial, device, "search");
    OK(nas_db_device_set_queue(ctx, db, device, "pool"));
    assert_reports(db, NAS_DB_REPORT_PASSPORT, 0, true, "key=passport.mhz value=2000 ");
    assert_reports(db, NAS_DB_REPORT_PASSPORT, 0, true, "key=queue value=pool ");
    assert_reports(db, NAS_DB_REPORT_PASSPORT, 0, true, "key=simulated value=no ");
    assert_reports(db, NAS_DB_REPORT_MEASUREMENT, id, true, "key=device_info.cpu value=x ");
    close_db(db);
}

Test(db_latency, the_last_device_of_a_name_is_found_by_its_measurements) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    char fingerprint[NAS_SHA256_HEX] = "";
    char *info = NULL;
    cr_assert(eq(int, (int)nas_db_device_last(ctx, db, study, "local", fingerprint, &info),
                 (int)NAS_ERR_NOTFOUND));
    const int64_t trial = add_complete(db, study, 0, "strategy", 30, 1000, 0);
    (void)add_measurement(db, trial, device, "search");
    OK(nas_db_device_last(ctx, db, study, "local", fingerprint, &info));
    cr_assert(eq(str, fingerprint, "f00d"));
    cr_assert(eq(str, info, "{\"cpu\":\"x\"}"));
    nas_free(info);
    close_db(db);
}

/* A file as the version before wrote it: no queue, no table of latencies. */
static void write_version_2(void) {
    int32_t n = 0;
    const nas_db_migration *list = nas_db_migrations(&n);
    cr_assert(n >= 3);
    nas_db *db = NULL;
    OK(nas_db_open_schema(ctx, db_path, list, 2, &db));
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "strategy", 30, 1000.5, 0);
    (void)add_measurement(db, trial, device, "search");
    const nas_db_values final = {.final_psnr_y_db = nas_some_double(31),
                                 .final_latency_p50_us = nas_some_double(900),
                                 .final_latency_p50_lo_us = nas_some_double(890),
                                 .final_latency_p50_hi_us = nas_some_double(910),
                                 .final_latency_p90_us = nas_some_double(950)};
    OK(nas_db_trial_set_final(ctx, db, trial, &final));
    (void)add_trial(db, study, 1, "strategy");
    close_db(db);
}

Test(db_latency, a_file_of_the_schema_before_gains_its_one_queue_and_loses_nothing) {
    write_version_2();
    cr_assert(eq(str, (char *)raw_text(db_path, "PRAGMA user_version"), "2"));
    close_db(open_db());
    assert_intact(db_path);
    cr_assert(
        eq(str, (char *)raw_text(db_path, "SELECT position || name FROM study_queues"), "0local"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT group_concat(role || ' ' || queue || ' ' ||"
                                           " latency_p50_ms || ' ' || coalesce(device, '?'), ', ')"
                                           " FROM (SELECT * FROM v_latency ORDER BY role DESC)"),
                 "search local 1.0005 local, final local 0.9 ?"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT queue || latency_p50_ms FROM v_trial"
                                           " WHERE trial = 0"),
                 "local1.0005"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(trial) FROM v_front"), "0"));
}

Test(db_latency, a_failed_allocation_while_reading_latencies_leaks_nothing) {
    nas_db *db = two_queues();
    for (long n = 1;; n++) {
        nas_db_latency *rows = NULL;
        size_t count = 0;
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas_db_trial_latencies(ctx, db, 1, &rows, &count);
        nas_mem_fail_after(0);
        if (status == NAS_OK) nas_free(rows);
        cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(n < 100);
    }
    close_db(db);
}
