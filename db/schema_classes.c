/* schema_classes.c - what studies of classifiers know of a trial beside the values that all studies share. */
#include "db/db_internal.h"

/* clang-format off */
const char *const nas__schema_classes[] = {
"CREATE TABLE class_values (\n"
"  trial_id          INTEGER PRIMARY KEY REFERENCES trials (id),\n"
"  reward_top1       REAL CHECK (reward_top1 BETWEEN 0 AND 1),       -- REWARD images, before fine-tuning\n"
"  tuned_reward_top1 REAL CHECK (tuned_reward_top1 BETWEEN 0 AND 1), -- after it\n"
"  report_top1       REAL CHECK (report_top1 BETWEEN 0 AND 1)        -- REPORT images, after fine-tuning\n"
") STRICT",
"CREATE VIEW v_class AS SELECT s.name AS study, t.number AS trial, t.state AS state, t.origin AS origin,\n"
"  100 * c.report_top1 AS report_top1, 100 * c.tuned_reward_top1 AS tuned_top1, 100 * c.reward_top1 AS reward_top1,\n"
"  coalesce(v.final_latency_p50_us, v.latency_p50_us) / 1000 AS latency_p50_ms,\n"
"  coalesce(v.final_latency_p50_lo_us, v.latency_p50_lo_us) / 1000 AS latency_p50_lo_ms,\n"
"  coalesce(v.final_latency_p50_hi_us, v.latency_p50_hi_us) / 1000 AS latency_p50_hi_ms,\n"
"  coalesce(v.final_latency_p90_us, v.latency_p90_us) / 1000 AS latency_p90_ms,\n"
"  v.macs AS macs, v.params AS params, coalesce(v.final_violation, v.violation) AS violation, t.point AS point,\n"
"  t.reason AS reason, s.id AS study_id, t.id AS trial_id\n"
"FROM trials t JOIN studies s ON s.id = t.study_id JOIN trial_values v ON v.trial_id = t.id\n"
"LEFT JOIN class_values c ON c.trial_id = t.id",
NULL};

/* Networks whose weights are stored as something else than floats. */
const char *const nas__schema_levels[] = {
"ALTER TABLE class_values ADD COLUMN weight_bytes INTEGER CHECK (weight_bytes >= 0)", /* absent: 4 a parameter */
"ALTER TABLE class_values ADD COLUMN bops INTEGER CHECK (bops >= 0)",                 /* absent: 1024 a MAC */
"DROP VIEW v_class",
"CREATE VIEW v_class AS SELECT s.name AS study, t.number AS trial, t.state AS state, t.origin AS origin,\n"
"  100 * c.report_top1 AS report_top1, 100 * c.tuned_reward_top1 AS tuned_top1, 100 * c.reward_top1 AS reward_top1,\n"
"  coalesce(v.final_latency_p50_us, v.latency_p50_us) / 1000 AS latency_p50_ms,\n"
"  coalesce(v.final_latency_p50_lo_us, v.latency_p50_lo_us) / 1000 AS latency_p50_lo_ms,\n"
"  coalesce(v.final_latency_p50_hi_us, v.latency_p50_hi_us) / 1000 AS latency_p50_hi_ms,\n"
"  coalesce(v.final_latency_p90_us, v.latency_p90_us) / 1000 AS latency_p90_ms,\n"
"  v.macs AS macs, v.params AS params, coalesce(c.weight_bytes, 4 * v.params) AS weight_bytes,\n"
"  coalesce(c.bops, 1024 * v.macs) AS bops, coalesce(v.final_violation, v.violation) AS violation,\n"
"  t.point AS point, t.reason AS reason, s.id AS study_id, t.id AS trial_id\n"
"FROM trials t JOIN studies s ON s.id = t.study_id JOIN trial_values v ON v.trial_id = t.id\n"
"LEFT JOIN class_values c ON c.trial_id = t.id",
NULL};

/* Candidates that were tuned for a while, to choose one of them. */
const char *const nas__schema_finalists[] = {
"ALTER TABLE class_values ADD COLUMN finalist_cross_entropy REAL CHECK (finalist_cross_entropy >= 0)", /* nats, REWARD images */
"DROP VIEW v_class",
"CREATE VIEW v_class AS SELECT s.name AS study, t.number AS trial, t.state AS state, t.origin AS origin,\n"
"  100 * c.report_top1 AS report_top1, 100 * c.tuned_reward_top1 AS tuned_top1, 100 * c.reward_top1 AS reward_top1,\n"
"  c.finalist_cross_entropy AS finalist_cross_entropy,\n"
"  coalesce(v.final_latency_p50_us, v.latency_p50_us) / 1000 AS latency_p50_ms,\n"
"  coalesce(v.final_latency_p50_lo_us, v.latency_p50_lo_us) / 1000 AS latency_p50_lo_ms,\n"
"  coalesce(v.final_latency_p50_hi_us, v.latency_p50_hi_us) / 1000 AS latency_p50_hi_ms,\n"
"  coalesce(v.final_latency_p90_us, v.latency_p90_us) / 1000 AS latency_p90_ms,\n"
"  v.macs AS macs, v.params AS params, coalesce(c.weight_bytes, 4 * v.params) AS weight_bytes,\n"
"  coalesce(c.bops, 1024 * v.macs) AS bops, coalesce(v.final_violation, v.violation) AS violation,\n"
"  t.point AS point, t.reason AS reason, s.id AS study_id, t.id AS trial_id\n"
"FROM trials t JOIN studies s ON s.id = t.study_id JOIN trial_values v ON v.trial_id = t.id\n"
"LEFT JOIN class_values c ON c.trial_id = t.id",
NULL};
/* clang-format on */
