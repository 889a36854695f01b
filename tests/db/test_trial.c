/* test_trial.c - the life of a trial, and that the schema itself keeps what is finished. */
#include "tests/db/fixture.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

SUITE(db_trial);

Test(db_trial, everything_set_reads_back_and_the_rest_stays_absent) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    char point[] = "sr d=3;\xc3\xa4", hash[NAS_SHA256_HEX];
    nas_sha256_hex("g", 1, hash);
    nas_db_trial row = {.study_id = study, .point = point, .origin = "strategy"};
    memcpy(row.graph_hash, hash, sizeof hash);
    int64_t id = 0;
    OK(nas_db_trial_insert(ctx, db, &row, &id));
    OK(nas_db_trial_lease(ctx, db, id, "w1", 1000));
    const nas_db_values first = {.psnr_y_db = nas_some_double(33.125),
                                 .macs = nas_some_i64(INT64_MAX)};
    OK(nas_db_trial_set_values(ctx, db, id, &first));
    const nas_db_values second = {.latency_p90_us = nas_some_double(0.1), .noisy = nas_some_i64(0)};
    OK(nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, &second));
    nas_db_trial *rows = NULL;
    size_t n = 0;
    OK(nas_db_trials(ctx, db, study, &rows, &n));
    cr_assert(eq(sz, n, 1));
    cr_assert(eq(i64, rows[0].id, id));
    cr_assert(eq(i64, rows[0].study_id, study));
    cr_assert(eq(int, (int)rows[0].state, (int)NAS_TRIAL_COMPLETE));
    cr_assert(eq(str, rows[0].point, point));
    cr_assert(eq(str, rows[0].graph_hash, hash));
    cr_assert(eq(str, rows[0].origin, "strategy"));
    cr_assert(eq(i32, rows[0].attempt, 1));
    cr_assert(eq(ptr, rows[0].reason, NULL));
    const nas_db_values *v = &rows[0].values;
    cr_assert(v->psnr_y_db.is_set && v->macs.is_set && v->latency_p90_us.is_set && v->noisy.is_set);
    cr_assert(eq(dbl, v->psnr_y_db.value, 33.125));
    cr_assert(eq(i64, v->macs.value, INT64_MAX));
    cr_assert(eq(dbl, v->latency_p90_us.value, 0.1));
    cr_assert(eq(i64, v->noisy.value, 0));
    cr_assert(not(v->ssim_y.is_set || v->latency_p50_us.is_set || v->latency_p50_lo_us.is_set ||
                  v->latency_p50_hi_us.is_set || v->params.is_set ||
                  v->peak_activation_bytes.is_set || v->arena_bytes.is_set || v->violation.is_set ||
                  v->hypervolume.is_set || v->final_psnr_y_db.is_set || v->final_ssim_y.is_set ||
                  v->final_select_psnr_y_db.is_set));
    nas_db_trials_free(rows, n);
    close_db(db);
}

Test(db_trial, numbers_have_no_gap_and_no_repeat) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), other = add_study(db, "b");
    (void)add_trial(db, study, 0, "seed");
    (void)add_trial(db, study, 1, "seed");
    (void)add_trial(db, other, 0, "seed"); /* each study counts for itself */
    char point[] = "p";
    nas_db_trial row = {.study_id = study, .point = point, .origin = "seed"};
    const int64_t wrong[] = {1, 3, -1};
    int64_t id = 0;
    for (size_t i = 0; i < 3; i++) {
        row.number = wrong[i];
        FAILS(NAS_ERR_DB, nas_db_trial_insert(ctx, db, &row, &id));
        cr_assert(says("not the next free one"));
    }
    row = (nas_db_trial){.study_id = 77, .point = point, .origin = "seed"};
    FAILS(NAS_ERR_DB, nas_db_trial_insert(ctx, db, &row, &id)); /* no such study */
    close_db(db);
}

Test(db_trial, states_go_one_way) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), id = add_trial(db, study, 0, "strategy");
    const nas_db_values values = {.psnr_y_db = nas_some_double(30)};
    FAILS(NAS_ERR_DB, nas_db_trial_set_values(ctx, db, id, &values));
    cr_assert(says("trial 0 is WAITING"));
    FAILS(NAS_ERR_DB, nas_db_trial_finish(ctx, db, id, NAS_TRIAL_FAIL, "x", NULL));
    OK(nas_db_trial_lease(ctx, db, id, "w1", 1000));
    FAILS(NAS_ERR_INVALID, nas_db_trial_finish(ctx, db, id, NAS_TRIAL_RUNNING, NULL, NULL));
    FAILS(NAS_ERR_INVALID, nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, "why", NULL));
    OK(nas_db_trial_finish(ctx, db, id, NAS_TRIAL_PRUNED, "predicted 90 ms > 33 ms", &values));
    FAILS(NAS_ERR_DB, nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, NULL));
    cr_assert(says("trial 0 is PRUNED (worker w1)"));
    FAILS(NAS_ERR_DB, nas_db_trial_set_values(ctx, db, id, &values));
    FAILS(NAS_ERR_NOTFOUND, nas_db_trial_lease(ctx, db, id, "w1", 1000));
    FAILS(NAS_ERR_NOTFOUND, nas_db_trial_lease(ctx, db, 999, "w1", 1000));
    FAILS(NAS_ERR_INVALID, nas_db_trial_lease(ctx, db, id, "w1", 0));
    nas_db_trial *rows = NULL;
    size_t n = 0;
    OK(nas_db_trials(ctx, db, study, &rows, &n));
    cr_assert(eq(str, rows[0].reason, "predicted 90 ms > 33 ms"));
    nas_db_trials_free(rows, n);
    close_db(db);
}

Test(db_trial, a_lease_is_exclusive_until_it_expires_or_its_process_is_gone) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), id = add_trial(db, study, 0, "strategy");
    OK(nas_db_trial_lease(ctx, db, id, "w1", 60000));
    FAILS(NAS_ERR_NOTFOUND, nas_db_trial_lease(ctx, db, id, "w2", 60000));
    cr_assert(says("trial 0 is RUNNING (worker w1)"));
    close_db(db);
    db = open_db(); /* a later process: the old one's lease is dead although it has not expired */
    OK(nas_db_trial_lease(ctx, db, id, "w1", 1));
    const struct timespec pause = {.tv_nsec = 5000000};
    (void)nanosleep(&pause, NULL);
    OK(nas_db_trial_lease(ctx, db, id, "w2", 60000));
    nas_db_trial *rows = NULL;
    size_t n = 0;
    OK(nas_db_trials(ctx, db, study, &rows, &n));
    cr_assert(eq(i32, rows[0].attempt, 3));
    nas_db_trials_free(rows, n);
    close_db(db);
}

Test(db_trial, numbers_that_are_not_finite_never_enter) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), id = add_trial(db, study, 0, "strategy");
    OK(nas_db_trial_lease(ctx, db, id, "w1", 1000));
    const double bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        const nas_db_values values = {.macs = nas_some_i64(5),
                                      .psnr_y_db = nas_some_double(bad[i])};
        FAILS(NAS_ERR_INVALID, nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, &values));
        cr_assert(says("only finite numbers"));
    }
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT state FROM trials"), "RUNNING"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT macs FROM trial_values"),
                 "")); /* nothing of it was kept */
    const nas_db_values negative = {.violation = nas_some_double(-1)};
    FAILS(NAS_ERR_DB, nas_db_trial_set_values(ctx, db, id, &negative));
    close_db(db);
}

Test(db_trial, final_figures_are_set_once_and_only_for_complete_trials) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    const int64_t done = add_complete(db, study, 0, "strategy", 33, 5000, 0);
    const int64_t waiting = add_trial(db, study, 1, "strategy");
    const nas_db_values final = {.final_psnr_y_db = nas_some_double(34)};
    FAILS(NAS_ERR_DB, nas_db_trial_set_final(ctx, db, waiting, &final));
    cr_assert(says("trial 1 is WAITING"));
    OK(nas_db_trial_set_final(ctx, db, done, &final));
    OK(nas_db_trial_set_final(ctx, db, done, &final)); /* a resumed run may say the same again */
    const nas_db_values ssim = {.final_ssim_y = nas_some_double(0.95)};
    OK(nas_db_trial_set_final(ctx, db, done, &ssim)); /* the other figures may come later */
    const nas_db_values better = {.final_psnr_y_db = nas_some_double(35)};
    FAILS(NAS_ERR_DB, nas_db_trial_set_final(ctx, db, done, &better));
    cr_assert(says("final figures are set once"));
    const nas_db_values mixed = {.final_select_psnr_y_db = nas_some_double(1),
                                 .ssim_y = nas_some_double(1)};
    FAILS(NAS_ERR_INVALID, nas_db_trial_set_final(ctx, db, done, &mixed));
    FAILS(NAS_ERR_INVALID, nas_db_trial_set_values(ctx, db, waiting, &final));
    cr_assert(eq(str,
                 (char *)raw_text(
                     db_path, "SELECT final_psnr_y_db || ' ' || final_ssim_y FROM trial_values"),
                 "34.0 0.95"));
    close_db(db);
}

Test(db_trial, every_final_figure_is_set_once_and_reads_back) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    const int64_t id = add_complete(db, study, 0, "strategy", 33, 5000, 0);
    const nas_db_values final = {.final_psnr_y_db = nas_some_double(34),
                                 .final_ssim_y = nas_some_double(0.9),
                                 .final_select_psnr_y_db = nas_some_double(33.5),
                                 .final_latency_p50_us = nas_some_double(5100),
                                 .final_latency_p50_lo_us = nas_some_double(5000),
                                 .final_latency_p50_hi_us = nas_some_double(5200),
                                 .final_latency_p90_us = nas_some_double(6000),
                                 .final_violation = nas_some_double(0.25)};
    OK(nas_db_trial_set_final(ctx, db, id, &final));
    nas_db_trial *rows = NULL;
    size_t n = 0;
    OK(nas_db_trials(ctx, db, study, &rows, &n));
    const nas_db_values *v = &rows[0].values;
    const nas_opt_double got[] = {v->final_psnr_y_db,         v->final_ssim_y,
                                  v->final_select_psnr_y_db,  v->final_latency_p50_us,
                                  v->final_latency_p50_lo_us, v->final_latency_p50_hi_us,
                                  v->final_latency_p90_us,    v->final_violation};
    const double want[] = {34, 0.9, 33.5, 5100, 5000, 5200, 6000, 0.25};
    static const char *const columns[] = {"final_psnr_y_db",         "final_ssim_y",
                                          "final_select_psnr_y_db",  "final_latency_p50_us",
                                          "final_latency_p50_lo_us", "final_latency_p50_hi_us",
                                          "final_latency_p90_us",    "final_violation"};
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        cr_assert(got[i].is_set, "%s", columns[i]);
        cr_assert(eq(dbl, got[i].value, want[i]), "%s", columns[i]);
        char sql[128];
        (void)snprintf(sql, sizeof sql, "UPDATE trial_values SET %s = 1", columns[i]);
        cr_assert(eq(int, raw_sql(db_path, sql), SQLITE_CONSTRAINT), "%s", columns[i]);
    }
    nas_db_trials_free(rows, n);
    close_db(db);
}

Test(db_trial, a_database_shell_cannot_change_what_is_finished) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t done = add_complete(db, study, 0, "strategy", 33, 5000, 0);
    (void)add_trial(db, study, 1, "strategy");
    (void)add_measurement(db, done, device, "search");
    close_db(db);
    static const char *const attempts[] = {
        "UPDATE trial_values SET psnr_y_db = 40 WHERE trial_id = 1",
        "UPDATE trial_values SET latency_p50_us = 1",
        "UPDATE trial_values SET violation = NULL WHERE trial_id = 1",
        "DELETE FROM trial_values",
        "INSERT OR REPLACE INTO trial_values (trial_id, psnr_y_db) VALUES (1, 40)",
        "UPDATE trials SET state = 'WAITING' WHERE id = 1",
        "UPDATE trials SET reason = 'x' WHERE id = 1",
        "UPDATE trials SET attempt = 9 WHERE number = 0",
        "UPDATE trials SET point = 'other' WHERE number = 1",
        "UPDATE trials SET number = 5 WHERE number = 1",
        "UPDATE trials SET state = 'COMPLETE', finished_ms = 1 WHERE number = 1",
        "UPDATE trials SET state = 'DONE' WHERE number = 1",
        "DELETE FROM trials",
        ("REPLACE INTO trials (id, study_id, number, state, point, origin, created_ms)"
         " VALUES (1, 1, 2, 'WAITING', 'p', 'seed', 0)"),
        "DELETE FROM studies",
        "UPDATE measurements SET p50_us = 1",
        "DELETE FROM measurements",
    };
    const char *const before =
        "SELECT group_concat(state || number || point || attempt) || (SELECT"
        " group_concat(quote(psnr_y_db) || quote(latency_p50_us) || quote(violation))"
        " FROM trial_values) || (SELECT p50_us FROM measurements) FROM trials";
    char kept[512];
    (void)snprintf(kept, sizeof kept, "%s", raw_text(db_path, before));
    for (size_t i = 0; i < sizeof attempts / sizeof attempts[0]; i++) {
        cr_assert(eq(int, raw_sql(db_path, attempts[i]), SQLITE_CONSTRAINT), "%s", attempts[i]);
        cr_assert(eq(str, (char *)raw_text(db_path, before), kept), "%s", attempts[i]);
    }
}

Test(db_trial, trial_and_strategy_state_are_committed_together_or_not_at_all) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    OK(nas_db_begin(ctx, db));
    OK(nas_db_study_set_strategy_state(ctx, db, study, "s1"));
    (void)add_trial(db, study, 0, "strategy");
    nas_db_rollback(db);
    nas_db_study row = {0};
    OK(nas_db_study_get(ctx, db, "a", &row));
    cr_assert(eq(str, row.strategy_state, "s0"));
    nas_db_study_deinit(&row);
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM trials"), "0"));
    close_db(db);
}
