/* compress_report.c - the table, front.csv, best/ and trial-<number>/: a network of the front as C bundle, ONNX and recipe. */
#include "search/compress_levels.h"
#include "search/deliver_members.h"
#include "core/rows.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Feasible by its final figures, most right REWARD images after fine-tuning, then the faster one. */
static bool pick_best(const nas__comp *c, size_t *index) {
    bool found = false;
    double best = 0, best_ms = 0;
    for (size_t i = 0; i < c->n_trials; i++) {
        const nas__comp_trial *t = &c->trials[i];
        double top1 = 0, ms = 0;
        if (!t->from_strategy || !t->top1.report_top1.is_set) continue;
        if (nas__comp_violation(c, t, true) > 0) continue;
        if (!nas__comp_metric(t, NAS_METRIC_TOP1, true, &top1) ||
            !nas__comp_metric(t, NAS_METRIC_LATENCY_P50_MS, true, &ms))
            continue;
        if (found && (top1 < best || (top1 <= best && ms >= best_ms))) continue;
        found = true;
        best = top1;
        best_ms = ms;
        *index = i;
    }
    return found;
}

/* ---- delivery --------------------------------------------------------------------------------------------------------- */

void nas__comp_group_facts(const nas__comp *c, const nas_point *point, const double *alone,
                           nas_json *j) {
    int32_t kept[NAS_POINT_GENES_MAX];
    nas__comp_kept(c, point, kept);
    nas_json_key(j, "channel_groups");
    nas_json_array(j);
    for (int32_t g = 0; g < nas_channels_group_count(c->channels); g++) {
        const nas_channel_group *group = nas_channels_group(c->channels, g);
        nas_json_object(j);
        nas_json_key(j, "first_layer");
        nas_json_string(j, group->name);
        nas_json_key(j, "channels");
        nas_json_int(j, group->channels);
        nas_json_key(j, "kept");
        nas_json_int(j, kept[g]);
        if (alone != NULL) { /* of the original with this group alone cut */
            nas_json_key(j, "reward_top1_alone");
            nas_json_double(j, alone[g]);
        }
        nas_json_object_end(j);
    }
    nas_json_array_end(j);
}

static void write_number(nas_json *j, const char *key, double value) {
    nas_json_key(j, key);
    nas_json_double(j, value);
}

/* layers.csv, or groups.csv: the same for people. */
nas_status nas__comp_write_groups(nas__comp *c, const nas_point *point, const double *alone,
                                  const double *ratio, const char *path) {
    int32_t kept[NAS_POINT_GENES_MAX];
    nas_buf text = {0};
    nas__comp_kept(c, point, kept);
    const double original = c->trials[0].top1.reward_top1.value;
    nas_buf_puts(&text,
                 "first_layer,channels,kept,reward_top1_alone,points_lost_alone,measured_ratio\n");
    for (int32_t g = 0; g < nas_channels_group_count(c->channels); g++) {
        const nas_channel_group *group = nas_channels_group(c->channels, g);
        nas_buf_printf(&text, "\"%s\",%" PRId32 ",%" PRId32 ",%.2f,%.2f,", group->name,
                       group->channels, kept[g], 100 * alone[g], 100 * (original - alone[g]));
        if (isfinite(ratio[g])) nas_buf_printf(&text, "%.3f", ratio[g]);
        nas_buf_puts(&text, "\n");
    }
    nas_status status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return status;
}

static nas_status write_recipe(nas__comp *c, size_t index, const nas_graph *graph,
                               const double *alone, const char *path) {
    const nas__comp_trial *t = &c->trials[index], *original = &c->trials[0];
    nas_buf text = {0}, graph_json = {0};
    nas_status status = nas_graph_to_json(c->ctx, graph, &graph_json);
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "schema");
    nas_json_int(&j, 1);
    nas_json_key(&j, "study");
    nas_json_string(&j, c->config->study.name);
    nas_json_key(&j, "trial");
    nas_json_int(&j, t->row.number);
    nas_json_key(&j, "point");
    nas_json_string(&j, t->row.point);
    nas_json_key(&j, "target");
    nas_json_string(&j, c->target->name);
    nas_json_key(&j, "device");
    nas_json_string(&j, nas_device_name(c->device));
    nas_json_key(&j, "simulated");
    nas_json_bool(&j, nas_device_is_simulated(c->device));
    write_number(&j, "latency_p50_us", t->row.values.final_latency_p50_us.value);
    write_number(&j, "original_latency_p50_us", original->row.values.final_latency_p50_us.value);
    write_number(&j, "report_top1", t->top1.report_top1.value);
    write_number(&j, "original_tuned_report_top1", original->top1.report_top1.value);
    write_number(&j, "before_tuning_reward_top1", t->top1.reward_top1.value);
    nas_json_key(&j, "data");
    nas_json_string(&j, nas_class_data_describe(c->data));
    nas__comp_group_facts(c, &t->point, alone, &j);
    nas_json_key(&j, "graph");
    nas_json_raw(&j, graph_json.data == NULL ? "null" : graph_json.data);
    nas_json_object_end(&j);
    nas_buf_puts(&text, "\n");
    if (status == NAS_OK) status = nas_buf_status(c->ctx, &text);
    if (status == NAS_OK) status = nas_file_write(c->ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    nas_buf_deinit(&graph_json);
    return status;
}

static nas_status deliver_channels(nas__comp *c, size_t index, const char *folder) {
    char name[48], path[NAS__COMP_PATH_MAX];
    const nas_onnx_import_options o = nas_onnx_import_options_default();
    nas_graph *graph = NULL;
    const size_t groups = (size_t)nas_channels_group_count(c->channels);
    double *alone = nas_alloc_array(c->ctx, groups, sizeof *alone);
    double *ratio = nas_alloc_array(c->ctx, groups, sizeof *ratio);
    nas_status status = alone == NULL || ratio == NULL ? NAS_ERR_NOMEM : NAS_OK;
    (void)snprintf(name, sizeof name, "tuned/%zu.onnx", index);
    if (status == NAS_OK) status = nas__comp_path(c, name, path);
    if (status == NAS_OK) status = nas_onnx_import(c->ctx, path, &o, &graph);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "", path);
    if (status == NAS_OK) status = nas_remove_tree(c->ctx, path); /* of an earlier report */
    if (status == NAS_OK) status = nas_mkdirs(c->ctx, path);
    if (status == NAS_OK) status = nas_emit_bundle(c->ctx, graph, &c->compile, path, NULL);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "model.onnx", path);
    if (status == NAS_OK) status = nas_onnx_export(c->ctx, graph, path);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "recipe.json", path);
    if (status == NAS_OK) status = nas__comp_alone(c, index, alone);
    if (status == NAS_OK) status = write_recipe(c, index, graph, alone, path);
    if (status == NAS_OK) status = nas__comp_ratios(c, index, graph, ratio);
    if (status == NAS_OK) status = nas__comp_path_in(c, folder, "layers.csv", path);
    if (status == NAS_OK)
        status = nas__comp_write_groups(c, &c->trials[index].point, alone, ratio, path);
    nas_free(ratio);
    nas_free(alone);
    nas_graph_free(graph);
    return status;
}

static nas_status deliver(void *study, size_t index, const char *folder) {
    nas__comp *c = study;
    const nas_status status = c->levels != NULL ? nas__levels_deliver(c, index, folder)
                                                : deliver_channels(c, index, folder);
    return nas_wrap(c->ctx, status, "writing %s/%s", c->dir, folder);
}

static bool is_member(const void *study, size_t trial) {
    const nas__comp_trial *t = &((const nas__comp *)study)->trials[trial];
    return t->from_strategy && t->top1.report_top1.is_set;
}

/* ---- tables ----------------------------------------------------------------------------------------------------------- */

static nas_status print_rows(nas__comp *c, nas_rows_format format, bool brief, FILE *out) {
    static const char *const columns =
        "trial, round(report_top1, 2) AS report_top1, round(tuned_top1, 2) AS tuned_top1,"
        " round(reward_top1, 2) AS reward_top1, round(latency_p50_ms, 4) AS latency_p50_ms,"
        " round(latency_p90_ms, 4) AS latency_p90_ms, macs, params, weight_bytes";
    char sql[512];
    (void)snprintf(sql, sizeof sql,
                   "SELECT %s%s FROM v_class WHERE study = ?1 AND state = 'COMPLETE' AND"
                   " report_top1 IS NOT NULL ORDER BY latency_p50_ms",
                   columns, brief ? "" : ", latency_p50_lo_ms, latency_p50_hi_ms, origin, point");
    const char *params[] = {c->config->study.name};
    nas_rows rows = nas_rows_new(format, false, out);
    const nas_status status = nas_db_query(c->ctx, c->db, sql, params, 1, nas_rows_add, &rows);
    if (status != NAS_OK) {
        nas_rows_deinit(&rows);
        return status;
    }
    return nas_rows_end(c->ctx, &rows);
}

static nas_status write_csv(nas__comp *c) {
    char path[NAS__COMP_PATH_MAX], fresh[NAS__COMP_PATH_MAX];
    nas_status status = nas__comp_path(c, "front.csv", path);
    if (status == NAS_OK) status = nas__comp_path(c, "front.csv.new", fresh);
    if (status != NAS_OK) return status;
    FILE *file = fopen(fresh, "w");
    if (file == NULL) return nas_fail(c->ctx, NAS_ERR_IO, "%s: %s", fresh, strerror(errno));
    status = print_rows(c, NAS_ROWS_CSV, false, file);
    if (fclose(file) != 0 && status == NAS_OK)
        status = nas_fail(c->ctx, NAS_ERR_IO, "%s: %s", fresh, strerror(errno));
    if (status == NAS_OK && rename(fresh, path) != 0)
        status = nas_fail(c->ctx, NAS_ERR_IO, "%s: %s", path, strerror(errno));
    return status;
}

static void print_heading(const nas__comp *c) {
    const bool tuned = c->channels != NULL;
    printf("\nfront of '%s' compressed on %s (%s%s), %d thread%s; trial 0 is the original%s\n",
           nas_graph_name(c->model), nas_device_name(c->device), c->target->name,
           nas_device_is_simulated(c->device) ? ", SIMULATED latency: nothing was timed" : "",
           (int)c->config->devices[0].threads, c->config->devices[0].threads == 1 ? "" : "s",
           tuned ? ", fine-tuned the same way" : "");
    if (c->compile.dtype == NAS_DTYPE_BF16)
        printf(
            "the timed programs have products of bf16 (compile.dtype = \"bf16\"); top1 is that of "
            "floats\n");
    printf("top1 in %%: %s. report_top1: after %s; tuned_top1, reward_top1: REWARD images "
           "after and before it\n",
           nas_class_data_describe(c->data),
           c->levels == NULL ? "fine-tuning"
           : tuned           ? "fine-tuning and compressing layers"
                             : "compressing layers in turn");
}

static void print_notes(const nas__comp *c, bool feasible, size_t best) {
    if (feasible) {
        const nas__comp_trial *t = &c->trials[best], *o = &c->trials[0];
        const double ms = t->row.values.final_latency_p50_us.value * 1e-3;
        const double before = o->row.values.final_latency_p50_us.value * 1e-3;
        const double share = 100 * (double)t->row.values.macs.value / c->baseline[NAS_METRIC_MACS];
        double bytes = 0;
        (void)nas__comp_metric(t, NAS_METRIC_WEIGHT_BYTES, true, &bytes); /* of every trial */
        printf(
            "\nbest under the constraints: trial %zu, top1 %.2f %% (%+.2f points to the "
            "%soriginal), "
            "p50 %.4f ms (%.2fx as fast), %.1f %% of the MACs, %.1f %% of the bytes -> %s/best\n",
            best, 100 * t->top1.report_top1.value,
            100 * (t->top1.report_top1.value - o->top1.report_top1.value),
            c->channels != NULL ? "fine-tuned " : "", ms, before / ms, share,
            100 * bytes / c->baseline[NAS_METRIC_WEIGHT_BYTES], c->dir);
    } else {
        printf("\nno trial satisfies the constraints:");
        for (int32_t i = 0; i < c->config->n_constraints; i++) {
            const nas_constraint *k = &c->config->constraints[i];
            double bound = 0;
            if (!nas__comp_bound(c, k, &bound)) continue;
            printf(" %s %s %g", nas_metric_name(k->metric), k->at_most ? "<=" : ">=", bound);
        }
        printf("; relax them, %s, or add trials\n",
               c->levels == NULL ? "lower compress.min_ratio" : "offer fewer bits or higher rates");
    }
    if (c->worst_difference > 0)
        printf("emitted code against the reference: at most %.1e of the largest output apart\n",
               c->worst_difference);
}

nas_status nas__comp_report(nas__comp *c, bool *feasible) {
    size_t best = 0;
    *feasible = pick_best(c, &best);
    nas_rows_format format = NAS_ROWS_TABLE;
    nas_status status = nas_rows_format_parse(c->ctx, c->options->format, &format);
    if (status == NAS_OK && *feasible) status = deliver(c, best, "best");
    if (status == NAS_OK) status = write_csv(c);
    const bool table = format == NAS_ROWS_TABLE;
    if (status == NAS_OK && table) print_heading(c);
    if (status == NAS_OK) status = print_rows(c, format, table, stdout);
    if (status == NAS_OK && table) print_notes(c, *feasible, best);
    const nas__members members = {c, c->dir, c->n_trials, is_member, deliver};
    if (status == NAS_OK) status = nas__deliver_members(c->ctx, c->options->deliver, &members);
    return nas_wrap(c->ctx, status, "report");
}
