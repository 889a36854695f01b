/* fixture.h - a temporary folder, a study and trials for the tests of db/. Every suite uses the same set-up. */
#ifndef NAS_TESTS_DB_FIXTURE_H
#define NAS_TESTS_DB_FIXTURE_H

#include "db/db.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <sqlite3.h>

extern nas_ctx *ctx;
extern char folder[64];   /* removed after the test */
extern char db_path[128]; /* folder/study.db, not made yet */

void fixture_setup(void);
void fixture_teardown(void);

#define SUITE(name) TestSuite(name, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60)
#define OK(expr) cr_assert(eq(int, (int)(expr), (int)NAS_OK), "%s", nas_ctx_message(ctx))
#define FAILS(status, expr)                                                                        \
    cr_assert(eq(int, (int)(expr), (int)(status)), "%s", nas_ctx_message(ctx))

/* The last message contains the text. */
bool says(const char *text);
nas_db *open_db(void);
void close_db(nas_db *db);
int64_t add_study(nas_db *db, const char *name);
int64_t add_trial(nas_db *db, int64_t study, int64_t number, const char *origin);
/* A trial of the number brought to COMPLETE; its id. */
int64_t add_complete(nas_db *db, int64_t study, int64_t number, const char *origin, double psnr,
                     double p50_us, double violation);
int64_t add_device(nas_db *db);
int64_t add_measurement(nas_db *db, int64_t trial, int64_t device, const char *role);

/* Through a connection of its own, as a database shell would: SQLite's result code. */
int raw_sql(const char *path, const char *sql);
/* First column of the first row as text, "" when none. */
const char *raw_text(const char *path, const char *sql);
void assert_intact(const char *path);
/* SEED of the environment, else one from the clock; printed. */
uint64_t test_seed(void);

#endif
