/* test_predict.c - a search that skips by prediction, as a user runs it: tiny study, simulated device, real training and
 * compiling. What is skipped costs nothing, nothing foretold is reported as measured, a resumed study decides alike. */
#include "db/db.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;
static char folder[128], set_dir[192];

static void setup(void) {
    ctx = nas_ctx_new();
    test_folder(folder);
    (void)snprintf(set_dir, sizeof set_dir, "study.dir=%s/run", folder);
}

static void teardown(void) {
    (void)nas_remove_tree(ctx, folder);
    nas_ctx_free(ctx);
}

TestSuite(search_predict, .init = setup, .fini = teardown, .timeout = 600);

#define TINY                                                                                       \
    "--config", "configs/sr720p-quick.toml", "--set", "search.population=10", "--trials", "40",    \
        "--set", "eval.finetune_max=0", "--set", "eval.baseline_steps=0", "--set",                 \
        "budget.time_s=0"

static long count(const char *run, const char *sql) {
    return (long)test_ask(ctx, folder, run, sql);
}

static char *search(const char *const *args) {
    nas_process_result r = test_run(ctx, "nas-search", args);
    cr_assert(r.exit_code == 0 || r.exit_code == NAS_EXIT_INFEASIBLE, "%s\n%s", r.out.data,
              r.err.data);
    nas_buf text = {0};
    nas_buf_puts(&text, r.out.data == NULL ? "" : r.out.data);
    nas_buf_puts(&text, r.err.data == NULL ? "" : r.err.data);
    nas_process_result_deinit(&r);
    return text.data;
}

Test(search_predict, what_is_skipped_costs_no_measurement_and_all_of_the_front_is_measured) {
    char *text = search((const char *const[]){TINY, "--set", set_dir, "-q", NULL});
    static const char *const expected[] = {
        "candidates: ", " skipped: ", "certain to be beaten",
        "foretold before they were measured: ", "inside the 95 % interval"};
    for (size_t i = 0; i < sizeof expected / sizeof *expected; i++)
        cr_expect(ne(ptr, strstr(text, expected[i]), NULL), "no '%s' in:\n%s", expected[i], text);
    nas_free(text);
    cr_expect(count("run", "SELECT count(*) FROM v_trial WHERE state = 'PRUNED'") > 5);
    cr_expect(
        count("run", "SELECT count(*) FROM v_trial WHERE state = 'PRUNED' AND violation > 0") > 0,
        "the deadline is missed by some");
    cr_expect(count("run",
                    "SELECT count(*) FROM v_trial WHERE state = 'PRUNED' AND violation IS NULL"
                    " AND psnr_y IS NOT NULL") > 0,
              "some are beaten");
    static const char *const none[] = {
        "SELECT count(*) FROM v_trial WHERE state = 'PRUNED' AND latency_p50_ms IS NOT NULL",
        "SELECT count(*) FROM v_measurement m JOIN v_trial t ON t.trial_id = m.trial_id"
        " WHERE t.state = 'PRUNED'",
        "SELECT count(*) FROM v_trial WHERE state = 'PRUNED' AND arena_bytes IS NOT NULL",
        "SELECT count(*) FROM v_front f WHERE f.state <> 'COMPLETE' OR NOT EXISTS (SELECT 1 FROM"
        " v_measurement m WHERE m.trial_id = f.trial_id AND m.role = 'search')",
        "SELECT count(*) FROM v_trial t WHERE t.state = 'PRUNED' AND NOT EXISTS (SELECT 1 FROM"
        " v_prediction p WHERE p.trial_id = t.trial_id AND p.decided = 1)",
        "SELECT count(*) FROM v_prediction p JOIN v_trial t ON t.trial_id = p.trial_id"
        " WHERE p.decided = 1 AND t.state <> 'PRUNED'"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        cr_expect(eq(long, count("run", none[i]), 0), "%s", none[i]);
}

Test(search_predict, without_skipping_every_candidate_is_measured) {
    char *text = search((const char *const[]){TINY, "--set", set_dir, "--set",
                                              "search.skip_by_prediction=false", "-q", NULL});
    cr_expect(ne(ptr, strstr(text, "40 measured, 0 skipped"), NULL), "%s", text);
    nas_free(text);
    cr_expect(count("run", "SELECT count(*) FROM v_prediction") > 0, "they are written down");
}

static const char decisions[] =
    "SELECT number, point, state, reason, latency_p50_ms, latency_pred_ms, latency_pred_lo_ms,"
    " latency_pred_hi_ms, predictor, hypervolume, attempt > 0 FROM v_trial ORDER BY number";

Test(search_predict, a_resumed_study_decides_as_one_that_was_not_interrupted) {
    char other[192];
    (void)snprintf(other, sizeof other, "study.dir=%s/other", folder);
    nas_free(search((const char *const[]){TINY, "--set", set_dir, "-q", NULL}));
    const char *const args[] = {TINY, "--set", other, "-q", NULL};
    int code = 0, stops = 0;
    bool alive = true;
    for (int64_t ms = 250; alive && ms < 60000; ms += ms / 4) {
        alive = test_run_killed("nas-search", args, ms, stops % 2 == 0 ? SIGKILL : SIGINT, &code);
        stops += alive;
    }
    cr_assert(not(alive));
    cr_expect(stops > 0, "it was never interrupted");
    char *a = test_query(ctx, folder, "run", decisions),
         *b = test_query(ctx, folder, "other", decisions);
    cr_expect(eq(str, a, b));
    nas_free(a);
    nas_free(b);
}

Test(search_predict, rows_of_an_earlier_study_on_the_same_device_are_learned_from_when_asked) {
    nas_free(search((const char *const[]){TINY, "--set", set_dir, "-q", NULL}));
    const char *const args[] = {TINY,
                                "--set",
                                set_dir,
                                "--set",
                                "study.name=second",
                                "--set",
                                "study.seed=5",
                                "--set",
                                "search.skip_learn=database",
                                NULL};
    char *text = search(args);
    cr_expect(ne(ptr, strstr(text, "rows of earlier studies"), NULL), "%s", text);
    nas_free(text);
    static const char first[] =
        "SELECT count(*) FROM v_prediction WHERE study = 'second' AND trial < 11";
    cr_expect(eq(long, count("run", first), 10), "the first generation is foretold already");
    text = search(args); /* a finished study prints the same without learning from itself twice */
    nas_free(text);
    nas_free(search((const char *const[]){TINY, "--set", set_dir, "--set", "study.name=third",
                                          "--set", "device.threads=1", "--set",
                                          "search.skip_learn=database", "-q", NULL}));
    cr_expect(eq(long,
                 count("run", "SELECT count(*) FROM v_prediction WHERE study = 'third' AND"
                              " trial < 11"),
                 0),
              "one thread is another device");
}
