/* test_views.c - the documented views: columns, front, best, summary. */
#include "tests/db/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SUITE(db_views);

Test(db_views, every_documented_column_is_there_in_order) {
    static const struct {
        const char *view, *columns;
    } documented[] = {
        {"v_study",
         "study,space,strategy,seed,trials,waiting,running,complete,pruned,fail,front,best_trial,"
         "best_psnr_y,best_latency_p50_ms,best_latency_p90_ms,device,measurements,predictor,last_"
         "event,"
         "created,data_hash,study_id"},
        {"v_trial",
         "study,trial,number,state,point,origin,psnr_y,ssim_y,final_psnr_y,final_ssim_y,latency_"
         "p50_ms,"
         "latency_p50_lo_ms,latency_p50_hi_ms,latency_p90_ms,latency_pred_ms,latency_pred_lo_ms,"
         "latency_pred_hi_ms,macs,params,peak_activation_bytes,arena_bytes,feasible,violation,"
         "noisy,"
         "attempt,reason,final_select_psnr_y,hypervolume,predictor,simulated,graph_hash,worker,"
         "created,"
         "started,finished,study_id,trial_id,final_latency_p50_ms,final_latency_p50_lo_ms,"
         "final_latency_p50_hi_ms,final_latency_p90_ms,final_violation,queue,checked"},
        {"v_measurement",
         "study,trial,role,device,simulated,threads,latency_p50_ms,latency_p50_lo_ms,"
         "latency_p50_hi_ms,latency_p90_ms,latency_p10_ms,latency_min_ms,latency_mad_ms,init_ms,"
         "first_ms,noisy,drift_ratio,batch_size,batches,dropped,repeats,n_samples,artifact_sha256,"
         "target,compiler,flags,artifact_bytes,compile_s,fingerprint,passport,taken,study_id,"
         "trial_id,measurement_id,queue,device_info"},
        {"v_latency",
         "study,trial,role,queue,device,simulated,latency_p50_ms,latency_p50_lo_ms,"
         "latency_p50_hi_ms,latency_p90_ms,noisy,checked,study_id,trial_id,measurement_id"},
        {"v_prediction", "study,trial,device,predictor,latency_pred_ms,latency_pred_lo_ms,latency_"
                         "pred_hi_ms,decided,"
                         "in_sample,made,study_id,trial_id,prediction_id"},
        {"v_layer",
         "study,trial,layer,node,family,h,w,c_in,c_out,kernel,macs,macs_padded,bytes,flop_per_byte,"
         "study_id,trial_id"},
        {"v_event", "study,time,kind,text,study_id,event_id"},
    };
    close_db(open_db());
    for (size_t i = 0; i < sizeof documented / sizeof documented[0]; i++) {
        char sql[128];
        (void)snprintf(sql, sizeof sql, "SELECT group_concat(name) FROM pragma_table_info('%s')",
                       documented[i].view);
        char columns[1024];
        (void)snprintf(columns, sizeof columns, "%s", raw_text(db_path, sql));
        cr_assert(eq(str, columns, (char *)documented[i].columns), "%s", documented[i].view);
    }
    static const char *const like_trial[] = {"v_front", "v_best"};
    for (size_t i = 0; i < 2; i++) {
        char sql[160];
        (void)snprintf(sql, sizeof sql,
                       "SELECT (SELECT group_concat(name) FROM pragma_table_info('%s')) ="
                       " (SELECT group_concat(name) FROM pragma_table_info('v_trial'))",
                       like_trial[i]);
        cr_assert(eq(str, (char *)raw_text(db_path, sql), "1"), "%s", like_trial[i]);
    }
}

enum { N = 60 };

typedef struct candidate {
    double psnr, p50_us, violation;
    const char *origin;
} candidate;

/* The definition, pair by pair; equal values: the first stays. */
static bool on_front(const candidate *all, int i) {
    if (strncmp(all[i].origin, "baseline", 8) == 0) return false;
    for (int k = 0; k < N; k++) {
        if (k == i || strncmp(all[k].origin, "baseline", 8) == 0) continue;
        const bool as_good = all[k].psnr >= all[i].psnr && all[k].p50_us <= all[i].p50_us;
        const bool better = all[k].psnr > all[i].psnr || all[k].p50_us < all[i].p50_us;
        if (as_good && (better || k < i)) return false;
    }
    return true;
}

/* i beats k as the winner. */
static bool wins(const candidate *a, int i, int k) {
    if (a[i].psnr != a[k].psnr) return a[i].psnr > a[k].psnr;
    if (a[i].p50_us != a[k].p50_us) return a[i].p50_us < a[k].p50_us;
    return i < k;
}

static void check_random_study(nas_db *db, nas_rng *rng, int round) {
    static const char *const origins[] = {"strategy", "strategy", "seed", "baseline:fsrcnn"};
    candidate all[N];
    char name[16];
    (void)snprintf(name, sizeof name, "r%d", round);
    OK(nas_db_begin(ctx, db));
    const int64_t study = add_study(db, name);
    char expected[512] = "";
    int best = -1;
    for (int i = 0; i < N; i++) { /* coarse values, so that ties happen */
        all[i] =
            (candidate){30 + nas_rng_below(rng, 12) * 0.25, 1000.0 * (1 + nas_rng_below(rng, 15)),
                        nas_rng_below(rng, 3) == 0 ? 0.5 : 0, origins[nas_rng_below(rng, 4)]};
        (void)add_complete(db, study, i, all[i].origin, all[i].psnr, all[i].p50_us,
                           all[i].violation);
        const bool may_win = all[i].violation == 0 && strncmp(all[i].origin, "baseline", 8) != 0;
        if (may_win && (best < 0 || wins(all, i, best))) best = i;
    }
    OK(nas_db_commit(ctx, db));
    for (int i = 0; i < N; i++) {
        if (!on_front(all, i)) continue;
        const size_t len = strlen(expected);
        (void)snprintf(expected + len, sizeof expected - len, "%s%d", len == 0 ? "" : ",", i);
    }
    char sql[160];
    (void)snprintf(sql, sizeof sql,
                   "SELECT group_concat(trial) FROM (SELECT trial FROM v_front WHERE study = '%s'"
                   " ORDER BY trial)",
                   name);
    cr_assert(eq(str, (char *)raw_text(db_path, sql), expected));
    (void)snprintf(sql, sizeof sql, "SELECT trial FROM v_best WHERE study = '%s'", name);
    cr_assert(eq(long, best < 0 ? -1 : strtol(raw_text(db_path, sql), NULL, 10), (long)best));
}

Test(db_views, front_and_best_equal_their_definitions_on_random_studies) {
    nas_rng rng = nas_rng_stream(test_seed(), 0, "views");
    nas_db *db = open_db();
    for (int round = 0; round < 8; round++)
        check_random_study(db, &rng, round);
    close_db(db);
}

Test(db_views, unfinished_failed_and_unmeasured_trials_are_not_on_the_front) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    (void)add_complete(db, study, 0, "strategy", 30, 9000, 0);
    const nas_db_values great = {.psnr_y_db = nas_some_double(50),
                                 .latency_p50_us = nas_some_double(1),
                                 .violation = nas_some_double(0)};
    const nas_db_values unmeasured = {.psnr_y_db = nas_some_double(60)};
    int64_t ids[4];
    for (int i = 0; i < 4; i++) {
        ids[i] = add_trial(db, study, i + 1, "strategy");
        if (i > 0) OK(nas_db_trial_lease(ctx, db, ids[i], "w", 1000));
    }
    OK(nas_db_trial_set_values(ctx, db, ids[1], &great));
    OK(nas_db_trial_finish(ctx, db, ids[2], NAS_TRIAL_FAIL, "crashed", &great));
    OK(nas_db_trial_finish(ctx, db, ids[3], NAS_TRIAL_COMPLETE, NULL, &unmeasured));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(trial) FROM v_front"), "0"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT group_concat(trial) FROM v_best"), "0"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path, "SELECT feasible IS NULL FROM v_trial WHERE trial = 4"),
                 "1"));
    cr_assert(eq(str,
                 (char *)raw_text(db_path,
                                  "SELECT waiting || running || complete || pruned || fail || front"
                                  " FROM v_study"),
                 "112011"));
    close_db(db);
}

Test(db_views, the_summary_names_device_predictor_and_last_event) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const int64_t trial = add_complete(db, study, 0, "strategy", 30, 9000, 0);
    (void)add_measurement(db, trial, device, "search");
    int64_t simulated = 0;
    OK(nas_db_device_put(ctx, db, "sim", "simulated", "s", "{}", true, &simulated));
    nas_db_measurement row = {.trial_id = trial,
                              .device_id = simulated,
                              .role = "search",
                              .threads = 1,
                              .p50_us = 1,
                              .simulated = true};
    int64_t id = 0;
    OK(nas_db_measurement_insert(ctx, db, &row, &id));
    OK(nas_db_meta_set(ctx, db, study, "predictor_mape", "0.08"));
    OK(nas_db_meta_set(ctx, db, study, "predictor_n", "37"));
    OK(nas_db_meta_set(ctx, db, study, "phase", "search"));
    OK(nas_db_event(ctx, db, study, "resume", "at trial 12"));
    cr_assert(
        eq(str, (char *)raw_text(db_path, "SELECT device FROM v_study"), "local, sim (simulated)"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT predictor FROM v_study"),
                 "predictor_mape=0.08 predictor_n=37"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT last_event FROM v_study"),
                 "resume: at trial 12"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT best_latency_p50_ms FROM v_study"), "9.0"));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT simulated FROM v_trial"), "1"));
    close_db(db);
}

Test(db_views, the_best_is_judged_by_final_figures_where_there_are_any) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    (void)add_complete(db, study, 0, "strategy", 36, 9000,
                       0); /* no final figures: after those that have */
    const int64_t plain = add_complete(db, study, 1, "strategy", 33, 5000, 0);
    const int64_t tuned = add_complete(db, study, 2, "strategy", 32, 5000, 0);
    const int64_t slow = add_complete(db, study, 3, "strategy", 35, 8000, 0);
    nas_db_values final = {.final_select_psnr_y_db = nas_some_double(33.5),
                           .final_violation = nas_some_double(0)};
    OK(nas_db_trial_set_final(ctx, db, plain, &final));
    final.final_select_psnr_y_db = nas_some_double(34);
    OK(nas_db_trial_set_final(ctx, db, tuned, &final));
    final.final_select_psnr_y_db = nas_some_double(37);
    final.final_violation = nas_some_double(0.1); /* the fine-tuned binary misses the deadline */
    OK(nas_db_trial_set_final(ctx, db, slow, &final));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT trial FROM v_best"), "2"));
    close_db(db);
}
