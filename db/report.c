/* report.c - the ready-made questions of nas-query as SELECTs over the documented views. */
#include "db/db_internal.h"

#include <stdio.h>
#include <string.h>

/* What is noisy: the queues, or '~' where there is one. */
#define NOISY                                                                                      \
    "(SELECT iif((SELECT count(*) FROM study_queues k WHERE k.study_id = x.study_id) > 1,"         \
    " group_concat(l.queue, ' '), '~') FROM trial_latencies l WHERE l.trial_id = x.trial_id"       \
    " AND l.noisy = 1 AND l.role = iif(x.final_psnr_y IS NULL, 'search', 'final')"                 \
    " HAVING count(*) > 0) AS noisy"
#define TRIAL_BRIEF                                                                                \
    "psnr_y, ssim_y, final_psnr_y, latency_p50_ms, latency_p50_lo_ms, latency_p50_hi_ms, "         \
    "latency_p90_ms,"                                                                              \
    " latency_pred_ms, params, macs, feasible, " NOISY
#define TRIAL_BRIEF_PLACED "psnr_y, ssim_y, final_psnr_y, params, macs, feasible, " NOISY
#define TRIAL_WIDE                                                                                 \
    "psnr_y, ssim_y, final_psnr_y, final_ssim_y, latency_p50_ms, latency_p50_lo_ms, "              \
    "latency_p50_hi_ms,"                                                                           \
    " latency_p90_ms, latency_pred_ms, latency_pred_lo_ms, latency_pred_hi_ms, macs, params, "     \
    "peak_activation_bytes,"                                                                       \
    " arena_bytes, feasible, violation, noisy, simulated, attempt, reason, point"
/* Final figures where there are any; a star marks the best under the constraints. */
#define FINAL_HEAD                                                                                 \
    "iif(trial_id = (SELECT b.trial_id FROM v_best b WHERE b.study = ?1), '*', '') AS best,"       \
    " final_psnr_y AS psnr_y, final_ssim_y AS ssim_y,"
#define FINAL_TAIL                                                                                 \
    " params, macs, peak_activation_bytes,"                                                        \
    " coalesce(final_violation, violation) = 0 AS feasible, " NOISY
#define FINAL                                                                                      \
    FINAL_HEAD " coalesce(final_latency_p50_ms, latency_p50_ms) AS latency_p50_ms,"                \
               " coalesce(final_latency_p50_lo_ms, latency_p50_lo_ms) AS p50_lo,"                  \
               " coalesce(final_latency_p50_hi_ms, latency_p50_hi_ms) AS p50_hi,"                  \
               " coalesce(final_latency_p90_ms, latency_p90_ms) AS latency_p90_ms,"                \
               " latency_pred_ms," FINAL_TAIL
#define FINAL_PLACED FINAL_HEAD FINAL_TAIL
#define FINAL_MORE                                                                                 \
    ", psnr_y AS select_psnr_y, final_select_psnr_y, latency_pred_lo_ms, latency_pred_hi_ms,"      \
    " arena_bytes, simulated, point, checked"
/* The members of the front that were finished (all while none was): the front is that of the search's values, the one
 * basis all trials share; the final figures of a network that was trained longer may dominate others. */
#define FINAL_FRONT                                                                                \
    "(WITH m AS MATERIALIZED (SELECT * FROM v_front WHERE study = ?1) SELECT * FROM m f WHERE"     \
    " f.final_psnr_y IS NOT NULL OR NOT EXISTS (SELECT 1 FROM m WHERE final_psnr_y IS NOT NULL)) " \
    "x"

/* One fact a row, whatever a passport holds. Not a view: SQLite does not trust its JSON functions there. */
#define PASSPORT_FACTS                                                                             \
    "SELECT measurement_id, 0 AS place, 'simulated' AS key, iif(simulated, 'yes: nothing was "     \
    "timed', 'no') AS value FROM m"                                                                \
    " UNION ALL SELECT measurement_id, 1, 'study', study FROM m"                                   \
    " UNION ALL SELECT measurement_id, 2, 'trial', trial FROM m"                                   \
    " UNION ALL SELECT measurement_id, 3, 'role', role FROM m"                                     \
    " UNION ALL SELECT measurement_id, 4, 'taken', taken FROM m"                                   \
    " UNION ALL SELECT measurement_id, 5, 'device', device FROM m"                                 \
    " UNION ALL SELECT measurement_id, 6, 'queue', queue FROM m"                                   \
    " UNION ALL SELECT measurement_id, 7, 'fingerprint', fingerprint FROM m"                       \
    " UNION ALL SELECT measurement_id, 8, 'threads', threads FROM m"                               \
    " UNION ALL SELECT measurement_id, 9, 'latency_p50_ms', latency_p50_ms FROM m"                 \
    " UNION ALL SELECT measurement_id, 10, 'latency_p50_lo_ms', latency_p50_lo_ms FROM m"          \
    " UNION ALL SELECT measurement_id, 11, 'latency_p50_hi_ms', latency_p50_hi_ms FROM m"          \
    " UNION ALL SELECT measurement_id, 12, 'latency_p90_ms', latency_p90_ms FROM m"                \
    " UNION ALL SELECT measurement_id, 13, 'noisy', noisy FROM m"                                  \
    " UNION ALL SELECT measurement_id, 14, 'drift_ratio', drift_ratio FROM m"                      \
    " UNION ALL SELECT measurement_id, 15, 'batches', batches FROM m"                              \
    " UNION ALL SELECT measurement_id, 16, 'dropped', dropped FROM m"                              \
    " UNION ALL SELECT measurement_id, 17, 'repeats', repeats FROM m"                              \
    " UNION ALL SELECT measurement_id, 18, 'artifact_sha256', artifact_sha256 FROM m"              \
    " UNION ALL SELECT measurement_id, 19, 'target', target FROM m"                                \
    " UNION ALL SELECT measurement_id, 20, 'compiler', compiler FROM m"                            \
    " UNION ALL SELECT measurement_id, 21, 'flags', flags FROM m"                                  \
    " UNION ALL SELECT m.measurement_id, 100 + j.id, 'passport.' || replace(substr(j.fullkey, "    \
    "3), '\"', ''), j.atom FROM m,"                                                                \
    " json_tree(m.passport) j WHERE json_valid(m.passport) AND j.atom IS NOT NULL"
#define DEVICE_FACTS                                                                               \
    " UNION ALL SELECT m.measurement_id, 1000000 + j.id, 'device_info.' ||"                        \
    " replace(substr(j.fullkey, 3), '\"', ''),"                                                    \
    " j.atom FROM m, json_tree(m.device_info) j"                                                   \
    " WHERE json_valid(m.device_info) AND j.atom IS NOT NULL"

typedef struct report {
    const char *brief, *wide; /* columns */
    const char *from;
    bool by_number;
    const char *
        brief_placed; /* of trials, without latencies: columns of each queue follow; NULL = not of trials */
    const char *wide_placed;
} report;

static const report reports[] = {
    [NAS_DB_REPORT_STUDY] = {"*", "*", "v_study WHERE ?1 IS NULL OR study = ?1 ORDER BY study_id",
                             false, NULL, NULL},
    [NAS_DB_REPORT_FRONT] = {"trial, " TRIAL_BRIEF, "study, trial, state, origin, " TRIAL_WIDE,
                             "v_front x WHERE study = ?1 ORDER BY latency_p50_ms", false,
                             "trial, " TRIAL_BRIEF_PLACED,
                             "study, trial, state, origin, " TRIAL_WIDE},
    [NAS_DB_REPORT_FINAL] = {"trial, " FINAL, "trial, " FINAL FINAL_MORE,
                             FINAL_FRONT
                             " ORDER BY coalesce(x.final_latency_p50_ms, x.latency_p50_ms)",
                             false, "trial, " FINAL_PLACED, "trial, " FINAL_PLACED FINAL_MORE},
    [NAS_DB_REPORT_BASELINES] =
        {"origin AS baseline, " FINAL, "origin AS baseline, " FINAL FINAL_MORE,
         "v_trial x WHERE study = ?1 AND origin LIKE 'baseline:%' ORDER BY trial", false,
         "origin AS baseline, " FINAL_PLACED, "origin AS baseline, " FINAL_PLACED FINAL_MORE},
    [NAS_DB_REPORT_TRIALS] = {"trial, state, origin, " TRIAL_BRIEF ", reason",
                              "study, trial, state, origin, " TRIAL_WIDE,
                              "v_trial x WHERE study = ?1 ORDER BY trial", false,
                              "trial, state, origin, " TRIAL_BRIEF_PLACED ", reason",
                              "study, trial, state, origin, " TRIAL_WIDE},
    [NAS_DB_REPORT_BEST] = {"*", "*", "v_best x WHERE study = ?1", false, "*", "*"},
    [NAS_DB_REPORT_TRIAL] = {"*", "*", "v_trial x WHERE study = ?1 AND trial = CAST(?2 AS INTEGER)",
                             true, "*", "*"},
    [NAS_DB_REPORT_EVENTS] = {"time, kind, text", "study, time, kind, text",
                              "v_event WHERE study = ?1 ORDER BY event_id", false, NULL, NULL},
    [NAS_DB_REPORT_MEASUREMENTS] =
        {"measurement_id, trial, role, device, threads, latency_p50_ms, latency_p50_lo_ms,"
         " latency_p50_hi_ms, latency_p90_ms, latency_min_ms, batches, dropped, repeats,"
         " noisy, drift_ratio, simulated",
         "*", "v_measurement WHERE study = ?1 OR study IS NULL ORDER BY measurement_id", false,
         NULL, NULL},
    [NAS_DB_REPORT_LAYERS] =
        {"layer, node, family, h, w, c_in, c_out, kernel, macs, macs_padded, bytes,"
         " flop_per_byte",
         "*", "v_layer WHERE study = ?1 AND trial = CAST(?2 AS INTEGER) ORDER BY layer", true, NULL,
         NULL},
    [NAS_DB_REPORT_LAST_EVENTS] =
        {"time, kind, text", "study, time, kind, text",
         "(SELECT * FROM v_event WHERE study = ?1 ORDER BY event_id DESC LIMIT 5)"
         " ORDER BY event_id",
         false, NULL, NULL},
    [NAS_DB_REPORT_PROFILE] =
        {"layer, node, family, h, w, c_in, c_out, macs, alone_ms, lo_ms, hi_ms, gmacs_per_s,"
         " threads, device",
         "study, trial, layer, node, family, h, w, c_in, c_out, macs, alone_ms, lo_ms, hi_ms,"
         " gmacs_per_s, threads, device",
         "(SELECT l.*, k.p50_ns / 1e6 AS alone_ms, k.lo_ns / 1e6 AS lo_ms, k.hi_ns / 1e6 AS hi_ms,"
         " l.macs / k.p50_ns AS gmacs_per_s, k.threads, k.device FROM v_layer l"
         " JOIN kernel_timings k ON k.way = 'alone' AND k.kernel = printf('layer %s %dx%d %d>%d',"
         " l.family, l.h, l.w, l.c_in, l.c_out)"
         " WHERE l.study = ?1 AND l.trial = CAST(?2 AS INTEGER)) ORDER BY device, layer",
         true, NULL, NULL},
    [NAS_DB_REPORT_PASSPORT] = {"measurement_id, key, value", "measurement_id, key, value",
                                "(WITH m AS MATERIALIZED (SELECT * FROM v_measurement"
                                " WHERE study = ?1 AND trial = CAST(?2 AS INTEGER)) " PASSPORT_FACTS
                                ") WHERE value IS NOT NULL ORDER BY measurement_id, place",
                                true, NULL, NULL},
    [NAS_DB_REPORT_MEASUREMENT] =
        {"key, value", "measurement_id, key, value",
         "(WITH m AS MATERIALIZED (SELECT * FROM v_measurement WHERE (study = ?1 OR study IS NULL)"
         " AND measurement_id = CAST(?2 AS INTEGER)) " PASSPORT_FACTS DEVICE_FACTS
         ") WHERE value IS NOT NULL ORDER BY place",
         true, NULL, NULL},
};
_Static_assert(sizeof reports / sizeof reports[0] == NAS_DB_REPORT_COUNT, "one row a report");

/* ---- columns of each queue ------------------------------------------------------------------------------------------ */

typedef struct queue_columns {
    nas_buf text;
    bool final, brief;
    size_t n;
} queue_columns;

/* `text` between quotes, those inside doubled: names come from a file. */
static void put_quoted(nas_buf *out, char quote, const char *prefix, const char *text) {
    nas_buf_append(out, &quote, 1);
    nas_buf_puts(out, prefix);
    for (const char *p = text; *p != '\0'; p++) {
        if (*p == quote) nas_buf_append(out, &quote, 1);
        nas_buf_append(out, p, 1);
    }
    nas_buf_append(out, &quote, 1);
}

/* The value that stands in the queue; of final figures first where the report shows those. */
static void put_value(queue_columns *c, const char *column, const char *role, const char *queue) {
    nas_buf_printf(&c->text,
                   "(SELECT l.%s FROM trial_latencies l WHERE l.trial_id = x.trial_id AND"
                   " l.role = '%s' AND l.queue = ",
                   column, role);
    put_quoted(&c->text, '\'', "", queue);
    nas_buf_puts(&c->text, ")");
}

static void put_column(queue_columns *c, const char *column, const char *shown, const char *queue) {
    nas_buf_puts(&c->text, ", ");
    if (c->final) nas_buf_puts(&c->text, "coalesce(");
    if (c->final) put_value(c, column, "final", queue);
    if (c->final) nas_buf_puts(&c->text, ", ");
    put_value(c, column, "search", queue);
    nas_buf_puts(&c->text, c->final ? ") / 1000.0 AS " : " / 1000.0 AS ");
    put_quoted(&c->text, '"', shown, queue);
}

static nas_status add_queue(nas_ctx *ctx, void *arg, int32_t n, const char *const *names,
                            const char *const *values, const bool *is_number) {
    (void)n;
    (void)names;
    (void)is_number;
    queue_columns *c = arg;
    const char *queue = values[0] == NULL ? "" : values[0];
    put_column(c, "p50_us", "latency_p50_ms@", queue);
    put_column(c, "p50_lo_us", c->brief ? "lo@" : "latency_p50_lo_ms@", queue);
    put_column(c, "p50_hi_us", c->brief ? "hi@" : "latency_p50_hi_ms@", queue);
    put_column(c, "p90_us", "latency_p90_ms@", queue);
    c->n++;
    return nas_buf_status(ctx, &c->text);
}

static bool shows_final(nas_db_report_kind kind) {
    return kind == NAS_DB_REPORT_FINAL || kind == NAS_DB_REPORT_BASELINES ||
           kind == NAS_DB_REPORT_BEST || kind == NAS_DB_REPORT_TRIAL;
}

/* Fills `out` with columns when the study has several queues; else leaves it empty. */
static nas_status columns_of_queues(nas_ctx *ctx, nas_db *db, nas_db_report_kind kind,
                                    const char *study, bool brief, nas_buf *out) {
    queue_columns c = {.final = shows_final(kind), .brief = brief};
    const nas_status status =
        nas_db_query(ctx, db,
                     "SELECT k.name FROM study_queues k JOIN studies s ON s.id = k.study_id"
                     " WHERE s.name = ?1 ORDER BY k.position",
                     &study, 1, add_queue, &c);
    if (status != NAS_OK || c.n < 2) {
        nas_buf_deinit(&c.text);
        return status;
    }
    *out = c.text;
    return NAS_OK;
}

nas_status nas_db_report(nas_ctx *ctx, nas_db *db, nas_db_report_kind kind, const char *study,
                         int64_t number, bool brief, nas_db_row_fn fn, void *arg) {
    if ((unsigned)kind >= NAS_DB_REPORT_COUNT)
        return nas_fail(ctx, NAS_ERR_INVALID, "report %d", (int)kind);
    const report *r = &reports[kind];
    nas_buf placed = {0}, sql = {0};
    nas_status status = NAS_OK;
    if (r->brief_placed != NULL && study != NULL)
        status = columns_of_queues(ctx, db, kind, study, brief, &placed);
    const bool several = placed.len > 0;
    const char *columns =
        brief ? (several ? r->brief_placed : r->brief) : (several ? r->wide_placed : r->wide);
    nas_buf_printf(&sql, "SELECT %s%s FROM %s", columns, several ? placed.data : "", r->from);
    if (status == NAS_OK) status = nas_buf_status(ctx, &sql);
    char number_text[24];
    (void)snprintf(number_text, sizeof number_text, "%" PRId64, number);
    const char *const params[] = {study, number_text};
    /* The first use of json_tree declares its columns, which the fence around queries takes for a change. */
    if (status == NAS_OK && strstr(sql.data, "json_tree") != NULL)
        status = nas__db_exec(ctx, db, "read JSON", "SELECT 1 FROM json_tree('[]')");
    if (status == NAS_OK)
        status = nas_db_query(ctx, db, sql.data, params, r->by_number ? 2 : 1, fn, arg);
    nas_buf_deinit(&placed);
    nas_buf_deinit(&sql);
    return status;
}
