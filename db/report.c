/* report.c - the ready-made questions of nas-query as SELECTs over the documented views. */
#include "db/db_internal.h"

#include <stdio.h>

#define TRIAL_BRIEF                                                                                \
    "psnr_y, ssim_y, final_psnr_y, latency_p50_ms, latency_p50_lo_ms, latency_p50_hi_ms, "         \
    "latency_p90_ms,"                                                                              \
    " latency_pred_ms, params, macs, feasible"
#define TRIAL_WIDE                                                                                 \
    "psnr_y, ssim_y, final_psnr_y, final_ssim_y, latency_p50_ms, latency_p50_lo_ms, "              \
    "latency_p50_hi_ms,"                                                                           \
    " latency_p90_ms, latency_pred_ms, latency_pred_lo_ms, latency_pred_hi_ms, macs, params, "     \
    "peak_activation_bytes,"                                                                       \
    " arena_bytes, feasible, violation, noisy, simulated, attempt, reason, point"
/* Final figures where there are any; a star marks the best under the constraints. */
#define FINAL                                                                                      \
    "iif(trial_id = (SELECT b.trial_id FROM v_best b WHERE b.study = ?1), '*', '') AS best,"       \
    " final_psnr_y AS psnr_y, final_ssim_y AS ssim_y,"                                             \
    " coalesce(final_latency_p50_ms, latency_p50_ms) AS latency_p50_ms,"                           \
    " coalesce(final_latency_p50_lo_ms, latency_p50_lo_ms) AS p50_lo,"                             \
    " coalesce(final_latency_p50_hi_ms, latency_p50_hi_ms) AS p50_hi,"                             \
    " coalesce(final_latency_p90_ms, latency_p90_ms) AS latency_p90_ms,"                           \
    " latency_pred_ms, params, macs, peak_activation_bytes,"                                       \
    " coalesce(final_violation, violation) = 0 AS feasible"
#define FINAL_MORE                                                                                 \
    ", psnr_y AS select_psnr_y, final_select_psnr_y, latency_pred_lo_ms, latency_pred_hi_ms,"      \
    " arena_bytes, noisy, simulated, point"
/* The members of the front that were finished (all while none was): the front is that of the search's values, the one
 * basis all trials share; the final figures of a network that was trained longer may dominate others. */
#define FINAL_FRONT                                                                                \
    "(WITH m AS MATERIALIZED (SELECT * FROM v_front WHERE study = ?1) SELECT * FROM m f WHERE"     \
    " f.final_psnr_y IS NOT NULL OR NOT EXISTS (SELECT 1 FROM m WHERE final_psnr_y IS NOT NULL))"

typedef struct report {
    const char *brief, *wide; /* columns */
    const char *from;
    bool by_number;
} report;

static const report reports[] = {
    [NAS_DB_REPORT_STUDY] = {"*", "*", "v_study WHERE ?1 IS NULL OR study = ?1 ORDER BY study_id",
                             false},
    [NAS_DB_REPORT_FRONT] = {"trial, " TRIAL_BRIEF, "study, trial, state, origin, " TRIAL_WIDE,
                             "v_front WHERE study = ?1 ORDER BY latency_p50_ms", false},
    [NAS_DB_REPORT_FINAL] = {"trial, " FINAL, "trial, " FINAL FINAL_MORE, FINAL_FRONT " ORDER BY 5",
                             false},
    [NAS_DB_REPORT_BASELINES] =
        {"origin AS baseline, " FINAL, "origin AS baseline, " FINAL FINAL_MORE,
         "v_trial WHERE study = ?1 AND origin LIKE 'baseline:%' ORDER BY trial", false},
    [NAS_DB_REPORT_TRIALS] = {"trial, state, origin, " TRIAL_BRIEF ", reason",
                              "study, trial, state, origin, " TRIAL_WIDE,
                              "v_trial WHERE study = ?1 ORDER BY trial", false},
    [NAS_DB_REPORT_BEST] = {"*", "*", "v_best WHERE study = ?1", false},
    [NAS_DB_REPORT_TRIAL] = {"*", "*", "v_trial WHERE study = ?1 AND trial = CAST(?2 AS INTEGER)",
                             true},
    [NAS_DB_REPORT_EVENTS] = {"time, kind, text", "study, time, kind, text",
                              "v_event WHERE study = ?1 ORDER BY event_id", false},
    [NAS_DB_REPORT_MEASUREMENTS] =
        {"trial, role, device, threads, latency_p50_ms, latency_p50_lo_ms,"
         " latency_p50_hi_ms, latency_p90_ms, latency_min_ms, batches, dropped, repeats,"
         " noisy, drift_ratio, simulated",
         "*", "v_measurement WHERE study = ?1 OR study IS NULL ORDER BY measurement_id", false},
    [NAS_DB_REPORT_LAYERS] =
        {"layer, node, family, h, w, c_in, c_out, kernel, macs, macs_padded, bytes,"
         " flop_per_byte",
         "*", "v_layer WHERE study = ?1 AND trial = CAST(?2 AS INTEGER) ORDER BY layer", true},
    [NAS_DB_REPORT_LAST_EVENTS] =
        {"time, kind, text", "study, time, kind, text",
         "(SELECT * FROM v_event WHERE study = ?1 ORDER BY event_id DESC LIMIT 5)"
         " ORDER BY event_id",
         false},
};
_Static_assert(sizeof reports / sizeof reports[0] == NAS_DB_REPORT_COUNT, "one row a report");

nas_status nas_db_report(nas_ctx *ctx, nas_db *db, nas_db_report_kind kind, const char *study,
                         int64_t number, bool brief, nas_db_row_fn fn, void *arg) {
    if ((unsigned)kind >= NAS_DB_REPORT_COUNT)
        return nas_fail(ctx, NAS_ERR_INVALID, "report %d", (int)kind);
    const report *r = &reports[kind];
    char sql[2048];
    const int n =
        snprintf(sql, sizeof sql, "SELECT %s FROM %s", brief ? r->brief : r->wide, r->from);
    if (n < 0 || (size_t)n >= sizeof sql)
        return nas_fail(ctx, NAS_ERR_INTERNAL, "report %d is cut", (int)kind);
    char number_text[24];
    (void)snprintf(number_text, sizeof number_text, "%" PRId64, number);
    const char *const params[] = {study, number_text};
    return nas_db_query(ctx, db, sql, params, r->by_number ? 2 : 1, fn, arg);
}
