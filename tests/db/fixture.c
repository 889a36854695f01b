/* fixture.c - see fixture.h. */
#include "tests/db/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

nas_ctx *ctx;
char folder[64];
char db_path[128];

void fixture_setup(void) {
    ctx = nas_ctx_new();
    /* In memory where possible: killing a process does not depend on the disk, and fsync is what takes time. */
    (void)snprintf(folder, sizeof folder, "%s/nas-db-XXXXXX",
                   access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    cr_assert(ne(ptr, mkdtemp(folder), NULL));
    (void)snprintf(db_path, sizeof db_path, "%s/study.db", folder);
}

void fixture_teardown(void) {
    OK(nas_remove_tree(ctx, folder));
    nas_ctx_free(ctx);
}

bool says(const char *text) {
    const bool found = strstr(nas_ctx_message(ctx), text) != NULL;
    if (!found) fprintf(stderr, "the message is: %s\n", nas_ctx_message(ctx));
    return found;
}

nas_db *open_db(void) {
    nas_db *db = NULL;
    OK(nas_db_open(ctx, db_path, &db));
    return db;
}

void close_db(nas_db *db) {
    OK(nas_db_close(ctx, db));
}

int64_t add_study(nas_db *db, const char *name) {
    char toml[] = "[study]\n", json[] = "{}", state[] = "s0";
    nas_db_study row = {.space = "sr",
                        .strategy = "nsga2",
                        .seed = UINT64_MAX,
                        .config_toml = toml,
                        .config_json = json,
                        .strategy_state = state};
    (void)snprintf(row.name, sizeof row.name, "%s", name);
    int64_t id = 0;
    OK(nas_db_study_insert(ctx, db, &row, &id));
    return id;
}

int64_t add_trial(nas_db *db, int64_t study, int64_t number, const char *origin) {
    char point[64];
    (void)snprintf(point, sizeof point, "sr d=%" PRId64, number);
    nas_db_trial row = {.study_id = study, .number = number, .point = point};
    (void)snprintf(row.origin, sizeof row.origin, "%s", origin);
    int64_t id = 0;
    OK(nas_db_trial_insert(ctx, db, &row, &id));
    return id;
}

int64_t add_complete(nas_db *db, int64_t study, int64_t number, const char *origin, double psnr,
                     double p50_us, double violation) {
    const int64_t id = add_trial(db, study, number, origin);
    OK(nas_db_trial_lease(ctx, db, id, "w1", 60000));
    const nas_db_values values = {.psnr_y_db = nas_some_double(psnr),
                                  .ssim_y = nas_some_double(0.9),
                                  .latency_p50_us = nas_some_double(p50_us),
                                  .latency_p50_lo_us = nas_some_double(p50_us * 0.99),
                                  .latency_p50_hi_us = nas_some_double(p50_us * 1.01),
                                  .latency_p90_us = nas_some_double(p50_us * 1.1),
                                  .macs = nas_some_i64(1000000000),
                                  .params = nas_some_i64(27000),
                                  .violation = nas_some_double(violation)};
    OK(nas_db_trial_finish(ctx, db, id, NAS_TRIAL_COMPLETE, NULL, &values));
    return id;
}

int64_t add_device(nas_db *db) {
    int64_t id = 0;
    OK(nas_db_device_put(ctx, db, "local", "local", "f00d", "{\"cpu\":\"x\"}", false, &id));
    return id;
}

int64_t add_measurement(nas_db *db, int64_t trial, int64_t device, const char *role) {
    const double samples[] = {1000.5, 1001.25, 999.75};
    const nas_db_measurement row = {.trial_id = trial,
                                    .device_id = device,
                                    .role = role,
                                    .threads = 2,
                                    .batch_size = 4,
                                    .batches = 3,
                                    .repeats = 1,
                                    .p50_us = 1000.5,
                                    .p50_lo_us = 999.75,
                                    .p50_hi_us = 1001.25,
                                    .p90_us = 1001.25,
                                    .p10_us = 999.75,
                                    .min_us = 999.75,
                                    .mad_us = 0.75,
                                    .first_us = nas_some_double(1500),
                                    .passport_json = "{\"mhz\":2000}",
                                    .samples_us = samples,
                                    .n_samples = 3};
    int64_t id = 0;
    OK(nas_db_measurement_insert(ctx, db, &row, &id));
    return id;
}

int raw_sql(const char *path, const char *sql) {
    sqlite3 *handle = NULL;
    cr_assert(eq(int, sqlite3_open(path, &handle), SQLITE_OK));
    (void)sqlite3_exec(handle, "PRAGMA foreign_keys = ON", NULL, NULL, NULL);
    const int code = sqlite3_exec(handle, sql, NULL, NULL, NULL);
    (void)sqlite3_close(handle);
    return code;
}

const char *raw_text(const char *path, const char *sql) {
    static char text[1024];
    text[0] = '\0';
    sqlite3 *handle = NULL;
    sqlite3_stmt *s = NULL;
    cr_assert(eq(int, sqlite3_open(path, &handle), SQLITE_OK));
    cr_assert(eq(int, sqlite3_prepare_v2(handle, sql, -1, &s, NULL), SQLITE_OK), "%s",
              sqlite3_errmsg(handle));
    if (sqlite3_step(s) == SQLITE_ROW && sqlite3_column_text(s, 0) != NULL) {
        (void)snprintf(text, sizeof text, "%s", (const char *)sqlite3_column_text(s, 0));
    }
    (void)sqlite3_finalize(s);
    (void)sqlite3_close(handle);
    return text;
}

void assert_intact(const char *path) {
    cr_assert(eq(str, (char *)raw_text(path, "PRAGMA integrity_check"), "ok"));
    cr_assert(
        eq(str, (char *)raw_text(path, "SELECT count(*) FROM pragma_foreign_key_check"), "0"));
}

uint64_t test_seed(void) {
    const char *given = getenv("SEED");
    const uint64_t seed =
        given != NULL ? strtoull(given, NULL, 10) : (uint64_t)nas_now_ns() % 1000000;
    fprintf(stderr, "seed %" PRIu64 " (SEED=%" PRIu64 " replays)\n", seed, seed);
    return seed;
}
