/* schema_views.h - the documented views of schema versions 1 and 3: what people, nas-query and scripts read.
 *
 * Column meanings: db/db.h, "Views". Latencies are shown in ms, stored in us. Tables may change with a migration;
 * a view keeps its columns (new ones are added at the end). */
#ifndef NAS_DB_SCHEMA_VIEWS_H
#define NAS_DB_SCHEMA_VIEWS_H

/* clang-format off */
#define NAS__TIME_OF(column) "strftime('%Y-%m-%dT%H:%M:%SZ', " column " / 1000, 'unixepoch')"

#define NAS__SCHEMA_1_VIEWS \
/* The prediction is the latest that could not know the answer: made before the trial's own measurement. */ \
"CREATE VIEW v_trial AS\n" \
"SELECT s.name AS study, t.number AS trial, t.number AS number, t.state, t.point, t.origin,\n" \
"  v.psnr_y_db AS psnr_y, v.ssim_y, v.final_psnr_y_db AS final_psnr_y, v.final_ssim_y,\n" \
"  v.latency_p50_us / 1000.0 AS latency_p50_ms, v.latency_p50_lo_us / 1000.0 AS latency_p50_lo_ms,\n" \
"  v.latency_p50_hi_us / 1000.0 AS latency_p50_hi_ms, v.latency_p90_us / 1000.0 AS latency_p90_ms,\n" \
"  p.p50_us / 1000.0 AS latency_pred_ms, p.lo_us / 1000.0 AS latency_pred_lo_ms,\n" \
"  p.hi_us / 1000.0 AS latency_pred_hi_ms,\n" \
"  v.macs, v.params, v.peak_activation_bytes, v.arena_bytes,\n" \
"  v.violation = 0 AS feasible, v.violation, v.noisy, t.attempt, t.reason,\n" \
"  v.final_select_psnr_y_db AS final_select_psnr_y, v.hypervolume, p.predictor,\n" \
"  (SELECT max(m.simulated) FROM measurements m WHERE m.trial_id = t.id) AS simulated,\n" \
"  t.graph_hash, t.worker, " NAS__TIME_OF("t.created_ms") " AS created,\n" \
"  " NAS__TIME_OF("t.started_ms") " AS started, " NAS__TIME_OF("t.finished_ms") " AS finished,\n" \
"  t.study_id, t.id AS trial_id,\n" \
"  v.final_latency_p50_us / 1000.0 AS final_latency_p50_ms,\n" \
"  v.final_latency_p50_lo_us / 1000.0 AS final_latency_p50_lo_ms,\n" \
"  v.final_latency_p50_hi_us / 1000.0 AS final_latency_p50_hi_ms,\n" \
"  v.final_latency_p90_us / 1000.0 AS final_latency_p90_ms, v.final_violation\n" \
"FROM trials t\n" \
"JOIN studies s ON s.id = t.study_id\n" \
"JOIN trial_values v ON v.trial_id = t.id\n" \
"LEFT JOIN predictions p ON p.id =\n" \
"  (SELECT max(q.id) FROM predictions q WHERE q.trial_id = t.id AND q.in_sample = 0)", \
/* Sorted by latency, a trial is on the front when its quality beats all that are at most as slow; of equal trials \
   the first stays. n log n, where comparing all pairs would take seconds at 10000 trials. */ \
"CREATE VIEW v_front AS\n" \
"SELECT t.* FROM v_trial t JOIN (\n" \
"  SELECT trial_id, psnr_y_db, max(psnr_y_db) OVER (PARTITION BY study_id\n" \
"    ORDER BY latency_p50_us, psnr_y_db DESC, number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS best_before\n" \
"  FROM trial_values JOIN trials ON trials.id = trial_id\n" \
"  WHERE state = 'COMPLETE' AND origin IN ('strategy', 'seed')\n" \
"    AND psnr_y_db IS NOT NULL AND latency_p50_us IS NOT NULL) f ON f.trial_id = t.trial_id\n" \
"WHERE f.best_before IS NULL OR f.psnr_y_db > f.best_before", \
"CREATE VIEW v_measurement AS\n" \
"SELECT s.name AS study, t.number AS trial, m.role, d.name AS device, m.simulated, m.threads,\n" \
"  m.p50_us / 1000.0 AS latency_p50_ms, m.p50_lo_us / 1000.0 AS latency_p50_lo_ms,\n" \
"  m.p50_hi_us / 1000.0 AS latency_p50_hi_ms, m.p90_us / 1000.0 AS latency_p90_ms,\n" \
"  m.p10_us / 1000.0 AS latency_p10_ms, m.min_us / 1000.0 AS latency_min_ms, m.mad_us / 1000.0 AS latency_mad_ms,\n" \
"  m.init_us / 1000.0 AS init_ms, m.first_us / 1000.0 AS first_ms, m.noisy, m.drift_ratio,\n" \
"  m.batch_size, m.batches, m.dropped, m.repeats, m.n_samples,\n" \
"  a.sha256 AS artifact_sha256, a.target, a.compiler, a.flags, a.size_bytes AS artifact_bytes, a.compile_s,\n" \
"  d.fingerprint, m.passport, " NAS__TIME_OF("m.taken_ms") " AS taken,\n" \
"  m.study_id, m.trial_id, m.id AS measurement_id\n" \
"FROM measurements m\n" \
"JOIN devices d ON d.id = m.device_id\n" \
"LEFT JOIN trials t ON t.id = m.trial_id\n" \
"LEFT JOIN studies s ON s.id = m.study_id\n" \
"LEFT JOIN artifacts a ON a.id = m.artifact_id", \
"CREATE VIEW v_prediction AS\n" \
"SELECT s.name AS study, t.number AS trial, d.name AS device, p.predictor, p.p50_us / 1000.0 AS latency_pred_ms,\n" \
"  p.lo_us / 1000.0 AS latency_pred_lo_ms, p.hi_us / 1000.0 AS latency_pred_hi_ms, p.decided, p.in_sample,\n" \
"  " NAS__TIME_OF("p.made_ms") " AS made, t.study_id, p.trial_id, p.id AS prediction_id\n" \
"FROM predictions p JOIN devices d ON d.id = p.device_id\n" \
"JOIN trials t ON t.id = p.trial_id JOIN studies s ON s.id = t.study_id", \
"CREATE VIEW v_layer AS\n" \
"SELECT s.name AS study, t.number AS trial, l.layer, l.node, l.family, l.h, l.w, l.c_in, l.c_out, l.kernel,\n" \
"  l.macs, l.macs_padded, l.bytes, l.flop_per_byte, t.study_id, l.trial_id\n" \
"FROM layers l JOIN trials t ON t.id = l.trial_id JOIN studies s ON s.id = t.study_id", \
"CREATE VIEW v_event AS\n" \
"SELECT s.name AS study, " NAS__TIME_OF("e.time_ms") " AS time, e.kind, e.text, e.study_id, e.id AS event_id\n" \
"FROM events e JOIN studies s ON s.id = e.study_id", \
/* The winner among feasible COMPLETE trials: judged by the final figures where a trial has them, such trials first;
   highest PSNR on SELECT images, ties to the faster, then to the earlier. */ \
"CREATE VIEW v_best AS\n" \
"SELECT t.* FROM v_trial t JOIN (\n" \
"  SELECT trial_id, row_number() OVER (PARTITION BY study_id\n" \
"    ORDER BY final_select_psnr_y_db IS NULL, coalesce(final_select_psnr_y_db, psnr_y_db) DESC,\n" \
"      coalesce(final_latency_p50_us, latency_p50_us) ASC NULLS LAST, number) AS place\n" \
"  FROM trial_values JOIN trials ON trials.id = trial_id\n" \
"  WHERE state = 'COMPLETE' AND origin IN ('strategy', 'seed') AND coalesce(final_violation, violation) = 0\n" \
"    AND psnr_y_db IS NOT NULL) b\n" \
"ON b.trial_id = t.trial_id AND b.place = 1", \
"CREATE VIEW v_study AS\n" \
"SELECT s.name AS study, s.space, s.strategy, s.seed,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id) AS trials,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id AND t.state = 'WAITING') AS waiting,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id AND t.state = 'RUNNING') AS running,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id AND t.state = 'COMPLETE') AS complete,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id AND t.state = 'PRUNED') AS pruned,\n" \
"  (SELECT count(*) FROM trials t WHERE t.study_id = s.id AND t.state = 'FAIL') AS fail,\n" \
"  (SELECT count(*) FROM v_front f WHERE f.study_id = s.id) AS front,\n" \
"  b.trial AS best_trial, b.psnr_y AS best_psnr_y, b.latency_p50_ms AS best_latency_p50_ms,\n" \
"  b.latency_p90_ms AS best_latency_p90_ms,\n" \
"  (SELECT group_concat(name, ', ') FROM (SELECT DISTINCT d.name || iif(d.simulated, ' (simulated)', '') AS name\n" \
"    FROM devices d JOIN measurements m ON m.device_id = d.id WHERE m.study_id = s.id ORDER BY d.id)) AS device,\n" \
"  (SELECT count(*) FROM measurements m WHERE m.study_id = s.id) AS measurements,\n" \
"  (SELECT group_concat(entry, ' ') FROM (SELECT key || '=' || value AS entry FROM meta\n" \
"    WHERE meta.study_id = s.id AND key LIKE 'predictor%' ORDER BY key)) AS predictor,\n" \
"  (SELECT kind || ': ' || text FROM events e WHERE e.study_id = s.id ORDER BY e.id DESC LIMIT 1) AS last_event,\n" \
"  " NAS__TIME_OF("s.created_ms") " AS created, s.data_hash, s.id AS study_id\n" \
"FROM studies s LEFT JOIN v_best b ON b.study_id = s.id",

/* Version 3: the same views with the queues of a study, and what several devices add. */
#define NAS__SCHEMA_3_VIEWS \
"CREATE VIEW v_trial AS\n" \
"SELECT s.name AS study, t.number AS trial, t.number AS number, t.state, t.point, t.origin,\n" \
"  v.psnr_y_db AS psnr_y, v.ssim_y, v.final_psnr_y_db AS final_psnr_y, v.final_ssim_y,\n" \
"  v.latency_p50_us / 1000.0 AS latency_p50_ms, v.latency_p50_lo_us / 1000.0 AS latency_p50_lo_ms,\n" \
"  v.latency_p50_hi_us / 1000.0 AS latency_p50_hi_ms, v.latency_p90_us / 1000.0 AS latency_p90_ms,\n" \
"  p.p50_us / 1000.0 AS latency_pred_ms, p.lo_us / 1000.0 AS latency_pred_lo_ms,\n" \
"  p.hi_us / 1000.0 AS latency_pred_hi_ms,\n" \
"  v.macs, v.params, v.peak_activation_bytes, v.arena_bytes,\n" \
"  v.violation = 0 AS feasible, v.violation, v.noisy, t.attempt, t.reason,\n" \
"  v.final_select_psnr_y_db AS final_select_psnr_y, v.hypervolume, p.predictor,\n" \
"  (SELECT max(m.simulated) FROM measurements m WHERE m.trial_id = t.id) AS simulated,\n" \
"  t.graph_hash, t.worker, " NAS__TIME_OF("t.created_ms") " AS created,\n" \
"  " NAS__TIME_OF("t.started_ms") " AS started, " NAS__TIME_OF("t.finished_ms") " AS finished,\n" \
"  t.study_id, t.id AS trial_id,\n" \
"  v.final_latency_p50_us / 1000.0 AS final_latency_p50_ms,\n" \
"  v.final_latency_p50_lo_us / 1000.0 AS final_latency_p50_lo_ms,\n" \
"  v.final_latency_p50_hi_us / 1000.0 AS final_latency_p50_hi_ms,\n" \
"  v.final_latency_p90_us / 1000.0 AS final_latency_p90_ms, v.final_violation,\n" \
"  k.name AS queue, (SELECT l.checked FROM trial_latencies l WHERE l.trial_id = t.id AND l.queue = k.name\n" \
"    ORDER BY l.role LIMIT 1) AS checked\n" \
"FROM trials t\n" \
"JOIN studies s ON s.id = t.study_id\n" \
"JOIN trial_values v ON v.trial_id = t.id\n" \
"LEFT JOIN study_queues k ON k.study_id = t.study_id AND k.position = 0\n" \
"LEFT JOIN predictions p ON p.id =\n" \
"  (SELECT max(q.id) FROM predictions q WHERE q.trial_id = t.id AND q.in_sample = 0\n" \
"   AND (k.name IS NULL OR q.device_id IN (SELECT d.id FROM devices d WHERE coalesce(d.queue, d.name) = k.name)))", \
"CREATE VIEW v_front AS\n" \
"SELECT t.* FROM v_trial t JOIN (\n" \
"  SELECT trial_id, psnr_y_db, max(psnr_y_db) OVER (PARTITION BY study_id\n" \
"    ORDER BY latency_p50_us, psnr_y_db DESC, number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS best_before\n" \
"  FROM trial_values JOIN trials ON trials.id = trial_id\n" \
"  WHERE state = 'COMPLETE' AND origin IN ('strategy', 'seed')\n" \
"    AND psnr_y_db IS NOT NULL AND latency_p50_us IS NOT NULL) f ON f.trial_id = t.trial_id\n" \
"WHERE (f.best_before IS NULL OR f.psnr_y_db > f.best_before)\n" \
"  AND (SELECT count(*) FROM study_queues k WHERE k.study_id = t.study_id) < 2\n" \
"UNION ALL SELECT t.* FROM v_trial t JOIN fronts f ON f.trial_id = t.trial_id\n" \
"WHERE (SELECT count(*) FROM study_queues k WHERE k.study_id = t.study_id) > 1", \
"CREATE VIEW v_measurement AS\n" \
"SELECT s.name AS study, t.number AS trial, m.role, d.name AS device, m.simulated, m.threads,\n" \
"  m.p50_us / 1000.0 AS latency_p50_ms, m.p50_lo_us / 1000.0 AS latency_p50_lo_ms,\n" \
"  m.p50_hi_us / 1000.0 AS latency_p50_hi_ms, m.p90_us / 1000.0 AS latency_p90_ms,\n" \
"  m.p10_us / 1000.0 AS latency_p10_ms, m.min_us / 1000.0 AS latency_min_ms, m.mad_us / 1000.0 AS latency_mad_ms,\n" \
"  m.init_us / 1000.0 AS init_ms, m.first_us / 1000.0 AS first_ms, m.noisy, m.drift_ratio,\n" \
"  m.batch_size, m.batches, m.dropped, m.repeats, m.n_samples,\n" \
"  a.sha256 AS artifact_sha256, a.target, a.compiler, a.flags, a.size_bytes AS artifact_bytes, a.compile_s,\n" \
"  d.fingerprint, m.passport, " NAS__TIME_OF("m.taken_ms") " AS taken,\n" \
"  m.study_id, m.trial_id, m.id AS measurement_id,\n" \
"  coalesce(d.queue, d.name) AS queue, d.info_json AS device_info\n" \
"FROM measurements m\n" \
"JOIN devices d ON d.id = m.device_id\n" \
"LEFT JOIN trials t ON t.id = m.trial_id\n" \
"LEFT JOIN studies s ON s.id = m.study_id\n" \
"LEFT JOIN artifacts a ON a.id = m.artifact_id", \
"CREATE VIEW v_latency AS\n" \
"SELECT s.name AS study, t.number AS trial, l.role, l.queue, d.name AS device, m.simulated,\n" \
"  l.p50_us / 1000.0 AS latency_p50_ms, l.p50_lo_us / 1000.0 AS latency_p50_lo_ms,\n" \
"  l.p50_hi_us / 1000.0 AS latency_p50_hi_ms, l.p90_us / 1000.0 AS latency_p90_ms, l.noisy, l.checked,\n" \
"  t.study_id, l.trial_id, l.measurement_id\n" \
"FROM trial_latencies l JOIN trials t ON t.id = l.trial_id JOIN studies s ON s.id = t.study_id\n" \
"LEFT JOIN measurements m ON m.id = l.measurement_id LEFT JOIN devices d ON d.id = m.device_id",

/* clang-format on */

#endif
