/* test_kill.c - SIGKILL at random moments, then the same command again: no finished trial is lost or changed, no point is
 * proposed twice, the database stays sound. NAS_SOAK_ROUNDS sets the number of kills (make soak: 50). */
#include "db/db.h"
#include "tests/search/program.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <signal.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS_DEFAULT = 6, ROUNDS_TWO_DEVICES = 3, KILL_AFTER_MS_MAX = 4000 };

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(search_kill, .init = setup, .fini = teardown);

static nas_status collect(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                          const char *const *values, const bool *is_number) {
    (void)c;
    (void)names;
    (void)is_number;
    nas_buf *text = arg;
    for (int32_t i = 0; i < n; i++)
        nas_buf_printf(text, "%s|", values[i] == NULL ? "-" : values[i]);
    nas_buf_puts(text, "\n");
    return NAS_OK;
}

static void query(const char *db_path, const char *sql, nas_buf *out) {
    nas_db *db = NULL;
    nas_status status = nas_db_open_readonly(ctx, db_path, &db);
    if (status == NAS_OK) status = nas_db_query(ctx, db, sql, NULL, 0, collect, out);
    cr_assert(eq(int, (int)status, NAS_OK), "%s: %s", sql, nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_db_close(ctx, db), NAS_OK));
}

/* False while the program was killed before it had made the schema. */
static bool is_begun(const char *db_path) {
    nas_db *db = NULL;
    if (!nas_file_exists(db_path)) return false;
    const bool ok = nas_db_open_readonly(ctx, db_path, &db) == NAS_OK;
    (void)nas_db_close(ctx, db); /* only read */
    return ok;
}

static const char finished_sql[] =
    "SELECT number, state, point, psnr_y, latency_p50_ms, latency_p90_ms FROM v_trial "
    "WHERE state IN ('COMPLETE', 'PRUNED', 'FAIL') ORDER BY number";

/* Every line of `before` must still be there, unchanged. */
static void assert_nothing_lost(const nas_buf *before, const nas_buf *after) {
    const char *line = before->data == NULL ? "" : before->data;
    while (*line != '\0') {
        const char *end = strchr(line, '\n');
        const size_t len = (size_t)(end - line) + 1;
        char *copy = nas_alloc_array(ctx, len + 1, 1);
        memcpy(copy, line, len);
        cr_assert(after->data != NULL && strstr(after->data, copy) != NULL, "lost or changed: %s",
                  copy);
        nas_free(copy);
        line = end + 1;
    }
}

static void check_integrity(const char *path) {
    sqlite3 *raw = NULL;
    sqlite3_stmt *statement = NULL;
    cr_assert(eq(int, sqlite3_open_v2(path, &raw, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK));
    cr_assert(eq(int, sqlite3_prepare_v2(raw, "PRAGMA integrity_check", -1, &statement, NULL),
                 SQLITE_OK));
    cr_assert(eq(int, sqlite3_step(statement), SQLITE_ROW));
    const char *answer = (const char *)sqlite3_column_text(statement, 0);
    cr_assert(ne(ptr, (void *)(uintptr_t)answer, NULL));
    cr_assert(eq(int, strcmp(answer, "ok"), 0), "integrity_check: %s", answer);
    (void)sqlite3_finalize(statement);
    cr_assert(eq(int, sqlite3_close(raw), SQLITE_OK));
}

static void check_database(const char *path, nas_buf *finished) {
    nas_buf now = {0}, text = {0};
    query(path, finished_sql, &now);
    assert_nothing_lost(finished, &now);
    check_integrity(path);
    query(path,
          "SELECT point, count(*) FROM v_trial WHERE origin IN ('strategy', 'seed')"
          " GROUP BY point HAVING count(*) > 1",
          &text);
    cr_assert(eq(sz, text.len, 0), "proposed twice: %s", text.data);
    nas_buf_clear(&text);
    query(path, "SELECT count(*) - 1 - max(number) FROM v_trial", &text);
    const bool contiguous =
        strcmp(text.data, "0|\n") == 0 || strcmp(text.data, "-|\n") == 0; /* none yet */
    cr_assert(contiguous, "numbers have a gap: %s", text.data);
    nas_buf_deinit(&text);
    nas_buf_deinit(finished);
    *finished = now;
}

/* Kills a study of `config` so many times on the way, then lets it finish. */
static void kill_and_resume(const char *config, int default_rounds) {
    const char *rounds_text = getenv("NAS_SOAK_ROUNDS");
    const int rounds = rounds_text == NULL ? default_rounds : (int)strtol(rounds_text, NULL, 10);
    const char *seed_text = getenv("SEED");
    const uint64_t seed = seed_text == NULL ? 1 : (uint64_t)strtoull(seed_text, NULL, 10);
    nas_rng rng = nas_rng_stream(seed, 0, "kill");
    char dir[128], set_dir[192], db_path[192];
    test_folder(dir);
    (void)snprintf(set_dir, sizeof set_dir, "study.dir=%s/run", dir);
    (void)snprintf(db_path, sizeof db_path, "%s/run/study.db", dir);
    const char *const args[] = {"--config", config, "--set", set_dir, "-q", NULL};
    nas_buf finished = {0};
    int kills = 0;
    for (int i = 0; i < rounds; i++) {
        int code = 0;
        const int64_t after = 50 + (int64_t)nas_rng_below(&rng, KILL_AFTER_MS_MAX);
        const bool alive = test_run_killed("nas-search", args, after, SIGKILL, &code);
        kills += alive;
        cr_assert(alive || code == NAS_EXIT_OK || code == NAS_EXIT_INFEASIBLE,
                  "SEED=%" PRIu64 " round %d: exit code %d", seed, i, code);
        if (is_begun(db_path)) {
            check_database(db_path, &finished);
        } else {
            cr_assert(eq(sz, finished.len, 0), "the database of a begun study cannot be read");
        }
        if (!alive && i + 1 < rounds) { /* it finished: begin another study */
            nas_buf_deinit(&finished);
            cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
            cr_assert(eq(int, (int)nas_mkdirs(ctx, dir), NAS_OK));
        }
    }
    nas_process_result r = test_run(ctx, "nas-search", args);
    cr_assert(r.exit_code == NAS_EXIT_OK || r.exit_code == NAS_EXIT_INFEASIBLE, "final run: %s",
              r.err.data);
    nas_process_result_deinit(&r);
    check_database(db_path, &finished);
    nas_buf left = {0};
    query(db_path, "SELECT number FROM v_trial WHERE state IN ('WAITING', 'RUNNING')", &left);
    cr_assert(eq(sz, left.len, 0), "unfinished trials after the end: %s", left.data);
    cr_log_info("%d rounds, %d kills, SEED=%" PRIu64, rounds, kills, seed);
    nas_buf_deinit(&left);
    nas_buf_deinit(&finished);
    (void)nas_remove_tree(ctx, dir);
}

Test(search_kill, a_killed_study_resumes_without_loss_or_repetition, .timeout = 3600) {
    kill_and_resume("configs/sr720p-quick.toml", ROUNDS_DEFAULT);
}

Test(search_kill, a_killed_study_on_two_devices_resumes_without_loss_or_repetition,
     .timeout = 3600) {
    kill_and_resume("configs/two-devices.toml", ROUNDS_TWO_DEVICES);
}
