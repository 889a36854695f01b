/* class_values.c - top-1 and size of trials of classifiers: one row a trial, each figure set once it is known. */
#include "db/db_internal.h"

nas_status nas_db_class_values_put(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   const nas_db_class_values *values) {
    nas__stmt s = nas__stmt_prepare(
        ctx, db, "store the top-1 of a trial",
        "INSERT INTO class_values (trial_id, reward_top1, tuned_reward_top1, report_top1,"
        " weight_bytes, bops, finalist_cross_entropy) VALUES (?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (trial_id) DO UPDATE SET"
        " reward_top1 = coalesce(excluded.reward_top1, reward_top1),"
        " tuned_reward_top1 = coalesce(excluded.tuned_reward_top1, tuned_reward_top1),"
        " report_top1 = coalesce(excluded.report_top1, report_top1),"
        " weight_bytes = coalesce(excluded.weight_bytes, weight_bytes),"
        " bops = coalesce(excluded.bops, bops), finalist_cross_entropy ="
        " coalesce(excluded.finalist_cross_entropy, finalist_cross_entropy)");
    nas__bind_i64(&s, 1, trial_id);
    nas__bind_opt_double(&s, 2, values->reward_top1);
    nas__bind_opt_double(&s, 3, values->tuned_reward_top1);
    nas__bind_opt_double(&s, 4, values->report_top1);
    nas__bind_opt_i64(&s, 5, values->weight_bytes);
    nas__bind_opt_i64(&s, 6, values->bops);
    nas__bind_opt_double(&s, 7, values->finalist_cross_entropy);
    return nas__stmt_run(&s);
}

nas_status nas_db_class_values_get(nas_ctx *ctx, nas_db *db, int64_t trial_id,
                                   nas_db_class_values *out) {
    nas__stmt s = nas__stmt_prepare(ctx, db, "read the top-1 of a trial",
                                    "SELECT reward_top1, tuned_reward_top1, report_top1,"
                                    " weight_bytes, bops, finalist_cross_entropy"
                                    " FROM class_values WHERE trial_id = ?");
    nas__bind_i64(&s, 1, trial_id);
    nas_db_class_values values = {0};
    if (nas__stmt_row(&s)) {
        values.reward_top1 = nas__column_opt_double(&s, 0);
        values.tuned_reward_top1 = nas__column_opt_double(&s, 1);
        values.report_top1 = nas__column_opt_double(&s, 2);
        values.weight_bytes = nas__column_opt_i64(&s, 3);
        values.bops = nas__column_opt_i64(&s, 4);
        values.finalist_cross_entropy = nas__column_opt_double(&s, 5);
    }
    const nas_status status = nas__stmt_end(&s);
    if (status == NAS_OK) *out = values;
    return status;
}
