/* test_fault.c - no memory and no space: an error comes back, nothing leaks, what was stored is unchanged. */
#include "tests/db/fixture.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

SUITE(db_fault);

static nas_status ignore_row(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                             const char *const *values, const bool *is_number) {
    (void)c, (void)arg, (void)n, (void)names, (void)values, (void)is_number;
    return NAS_OK;
}

/* Everything a study does with one trial, in one transaction that is rolled back on failure. */
static nas_status whole_story(nas_db *db, int64_t study, int64_t device) {
    char point[] = "sr d=1";
    nas_db_trial row = {.study_id = study, .number = 0, .point = point, .origin = "strategy"};
    nas_db_artifact artifact = {.target = "x86-64", .compiler = "gcc", .flags = "-O2"};
    nas_sha256_hex("a", 1, artifact.sha256);
    const double samples[] = {1, 2, 3};
    const nas_db_layer layers[] = {{"head", "conv3x3", 8, 8, 3, 16, 3, 1, 1, 1, 1}};
    const nas_db_values values = {.psnr_y_db = nas_some_double(30)};
    int64_t id = 0, artifact_id = 0, m_id = 0;
    nas_status status = nas_db_begin(ctx, db);
    if (status == NAS_OK) status = nas_db_trial_insert(ctx, db, &row, &id);
    if (status == NAS_OK) status = nas_db_study_set_strategy_state(ctx, db, study, "s1");
    if (status == NAS_OK) status = nas_db_trial_lease(ctx, db, id, "w", 1000);
    if (status == NAS_OK) status = nas_db_artifact_put(ctx, db, &artifact, &artifact_id);
    if (status == NAS_OK) status = nas_db_trial_set_artifact(ctx, db, id, artifact_id, "search");
    if (status == NAS_OK) status = nas_db_layers_put(ctx, db, id, layers, 1);
    const nas_db_measurement m = {.trial_id = id,
                                  .device_id = device,
                                  .role = "search",
                                  .threads = 1,
                                  .p50_us = 1,
                                  .samples_us = samples,
                                  .n_samples = 3};
    if (status == NAS_OK) status = nas_db_measurement_insert(ctx, db, &m, &m_id);
    if (status == NAS_OK)
        status = nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, &values);
    if (status == NAS_OK) status = nas_db_event(ctx, db, study, "done", "trial 0");
    nas_db_trial *rows = NULL;
    size_t n = 0;
    nas_db_study found = {0};
    if (status == NAS_OK) status = nas_db_trials(ctx, db, study, &rows, &n);
    if (status == NAS_OK) nas_db_trials_free(rows, n);
    if (status == NAS_OK) status = nas_db_study_get(ctx, db, "a", &found);
    if (status == NAS_OK) nas_db_study_deinit(&found);
    if (status == NAS_OK)
        status = nas_db_query(ctx, db, "SELECT * FROM v_front", NULL, 0, ignore_row, NULL);
    if (status == NAS_OK) status = nas_db_commit(ctx, db);
    if (status != NAS_OK) nas_db_rollback(db);
    return status;
}

static void assert_nothing_stored(void) {
    cr_assert(
        eq(str,
           (char *)raw_text(db_path,
                            "SELECT ((SELECT count(*) FROM trials) + (SELECT count(*) FROM events)"
                            " + (SELECT count(*) FROM measurements) + (SELECT count(*) FROM"
                            " artifacts)) || (SELECT state FROM strategy_states)"),
           "0s0"));
}

Test(db_fault, failing_any_allocation_of_ours_changes_nothing_and_leaks_nothing) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const long before = nas_mem_live();
    long n = 1;
    for (;; n++) {
        nas_mem_fail_after(n);
        const nas_status status = whole_story(db, study, device);
        nas_mem_fail_after(0);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before), "allocation %ld", n);
        if (status == NAS_OK) break;
        FAILS(NAS_ERR_NOMEM, status);
        assert_nothing_stored();
    }
    cr_assert(n > 5, "only %ld allocations were tried", n);
    close_db(db);
    assert_intact(db_path);
}

Test(db_fault, failing_an_allocation_while_opening_leaves_no_lock_and_no_leak) {
    const long before = nas_mem_live();
    for (long n = 1;; n++) {
        nas_db *db = NULL;
        nas_mem_fail_after(n);
        const nas_status status = nas_db_open(ctx, db_path, &db);
        nas_mem_fail_after(0);
        if (status == NAS_OK) {
            close_db(db);
            cr_assert(n > 1);
            break;
        }
        FAILS(NAS_ERR_NOMEM, status);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before));
    }
    cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before));
}

/* ---- SQLite's own allocations ------------------------------------------------------------------------------------- */

static sqlite3_mem_methods real_methods;
static long sqlite_fail_after; /* 0 = never; once reached, that one allocation fails */

static bool sqlite_fails_now(void) {
    return sqlite_fail_after > 0 && --sqlite_fail_after == 0;
}

static void *failing_malloc(int n) {
    return sqlite_fails_now() ? NULL : real_methods.xMalloc(n);
}

static void *failing_realloc(void *p, int n) {
    return sqlite_fails_now() ? NULL : real_methods.xRealloc(p, n);
}

static void install_failing_allocator(void) {
    cr_assert(eq(int, sqlite3_config(SQLITE_CONFIG_GETMALLOC, &real_methods), SQLITE_OK));
    sqlite3_mem_methods methods = real_methods;
    methods.xMalloc = failing_malloc;
    methods.xRealloc = failing_realloc;
    cr_assert(eq(int, sqlite3_config(SQLITE_CONFIG_MALLOC, &methods), SQLITE_OK));
    cr_assert(eq(int, sqlite3_config(SQLITE_CONFIG_LOOKASIDE, 0, 0), SQLITE_OK));
}

Test(db_fault, failing_allocations_of_sqlite_change_nothing_and_leak_nothing) {
    install_failing_allocator();
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a"), device = add_device(db);
    const long ours = nas_mem_live();
    const sqlite3_int64 idle = sqlite3_memory_used();
    long n = 1, failures = 0;
    for (;; n += 1 + n / 12) { /* every one at first, then sampled: there are thousands */
        sqlite_fail_after = n;
        const nas_status status = whole_story(db, study, device);
        const bool reached = sqlite_fail_after == 0;
        sqlite_fail_after = 0;
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)ours), "allocation %ld", n);
        if (!reached) {
            OK(status);
            break;
        }
        if (status ==
            NAS_OK) { /* SQLite may do without (a cache page): then the whole story must be there */
            cr_assert(
                eq(str, (char *)raw_text(db_path, "SELECT state FROM strategy_states"), "s1"));
            break;
        }
        failures++;
        FAILS(NAS_ERR_NOMEM, status);
        assert_nothing_stored();
    }
    cr_assert(failures > 10, "only %ld failures", failures);
    close_db(db);
    fprintf(stderr, "%ld failures, %ld KiB of SQLite when idle\n", failures, (long)(idle / 1024));
    cr_assert(
        eq(i64, (int64_t)sqlite3_memory_used(), (int64_t)0)); /* nothing of the handle is left */
    assert_intact(db_path);
}

Test(db_fault, failing_allocations_of_sqlite_while_opening_are_errors_without_leak) {
    install_failing_allocator();
    close_db(open_db());
    for (long n = 1;; n += 1 + n / 6) {
        nas_db *db = NULL;
        sqlite_fail_after = n;
        const nas_status status =
            n % 2 == 0 ? nas_db_open(ctx, db_path, &db) : nas_db_open_readonly(ctx, db_path, &db);
        const bool reached = sqlite_fail_after == 0;
        sqlite_fail_after = 0;
        if (status == NAS_OK) {
            close_db(db);
        } else {
            FAILS(NAS_ERR_NOMEM, status);
        }
        cr_assert(eq(i64, (int64_t)sqlite3_memory_used(), (int64_t)0), "allocation %ld", n);
        if (!reached) break;
    }
}

/* ---- no space ----------------------------------------------------------------------------------------------------- */

/* Commits events of 4 KiB one by one until one fails; how many were kept. */
static int fill(nas_db *db, int64_t study, nas_status *status) {
    static char line[4097];
    memset(line, 'x', sizeof line - 1);
    int kept = 0;
    while (kept < 1000) {
        *status = nas_db_begin(ctx, db);
        if (*status == NAS_OK) *status = nas_db_event(ctx, db, study, "note", line);
        if (*status == NAS_OK) *status = nas_db_commit(ctx, db);
        if (*status != NAS_OK) break;
        kept++;
    }
    return kept;
}

static int64_t events_stored(void) {
    return strtoll(raw_text(db_path, "SELECT count(*) FROM events"), NULL, 10);
}

Test(db_fault, a_full_disk_is_reported_and_the_study_goes_on_when_there_is_space) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    (void)add_complete(db, study, 0, "seed", 30, 1000, 0);
    (void)signal(SIGXFSZ, SIG_IGN); /* writing then fails as on a full disk */
    struct rlimit limit, small;
    cr_assert(eq(int, getrlimit(RLIMIT_FSIZE, &limit), 0));
    small = limit;
    small.rlim_cur = 500 * 1024;
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &small), 0));
    nas_status status = NAS_OK;
    const int kept = fill(db, study, &status);
    FAILS(NAS_ERR_IO, status);
    cr_assert(says("no space left"));
    cr_assert(says("free some space and run the same command again"));
    nas_db_rollback(db);
    cr_assert(kept > 0);
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &limit), 0));
    cr_assert(eq(i64, events_stored(), kept));
    OK(nas_db_event(ctx, db, study, "note", "there is space again"));
    (void)add_complete(db, study, 1, "seed", 31, 1000, 0);
    close_db(db);
    cr_assert(eq(i64, events_stored(), kept + 1));
    assert_intact(db_path);
}

Test(db_fault, a_full_disk_while_the_schema_is_made_leaves_a_usable_file) {
    (void)signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit, small;
    cr_assert(eq(int, getrlimit(RLIMIT_FSIZE, &limit), 0));
    small = limit;
    for (rlim_t kib = 0; kib < 120; kib += 20) {
        small.rlim_cur = kib * 1024;
        nas_db *db = NULL;
        cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &small), 0));
        const nas_status status = nas_db_open(ctx, db_path, &db);
        cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &limit), 0));
        FAILS(NAS_ERR_IO, status);
    }
    close_db(open_db());
    assert_intact(db_path);
}

Test(db_fault, after_sqlite_undid_a_transaction_nothing_is_kept_alone) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    (void)signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit, small;
    cr_assert(eq(int, getrlimit(RLIMIT_FSIZE, &limit), 0));
    small = limit;
    small.rlim_cur = 400 * 1024;
    OK(nas_db_begin(ctx, db));
    OK(nas_db_event(ctx, db, study, "note", "first"));
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &small), 0));
    static char
        big[6 * 1024 * 1024]; /* more than SQLite's page cache: it must write before the commit */
    memset(big, 'x', sizeof big - 1);
    nas_status status = nas_db_event(ctx, db, study, "note", big);
    cr_assert(eq(int, setrlimit(RLIMIT_FSIZE, &limit), 0));
    FAILS(NAS_ERR_IO, status);
    status = nas_db_event(ctx, db, study, "note", "after the failure");
    if (status == NAS_OK) status = nas_db_commit(ctx, db);
    nas_db_rollback(db);
    const int64_t stored = events_stored();
    cr_assert(status == NAS_OK ? stored == 2 : stored == 0, "status %d, %" PRId64 " events",
              (int)status, stored);
    close_db(db);
    assert_intact(db_path);
}
