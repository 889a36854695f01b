/* test_query.c - read-only SQL and the ready-made reports. */
#include "tests/db/fixture.h"

#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

SUITE(db_query);

/* Rows as "name=value" with '#' after numbers, ';' between rows. */
static nas_status collect(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                          const char *const *values, const bool *is_number) {
    nas_buf *out = arg;
    if (out->len > 0) nas_buf_puts(out, ";");
    for (int32_t i = 0; i < n; i++) {
        nas_buf_printf(out, "%s%s=%s%s", i > 0 ? " " : "", names[i],
                       values[i] == NULL ? "NULL" : values[i], is_number[i] ? "#" : "");
    }
    return nas_buf_status(c, out);
}

static void expect(nas_db *db, const char *sql, const char *expected) {
    nas_buf out = {0};
    OK(nas_db_query(ctx, db, sql, NULL, 0, collect, &out));
    cr_assert(eq(str, out.data == NULL ? "" : out.data, (char *)expected), "%s", sql);
    nas_buf_deinit(&out);
}

Test(db_query, values_keep_type_null_and_precision) {
    nas_db *db = open_db();
    expect(db, "SELECT 1 AS a, 'x' AS b, NULL AS c, '1' AS d", "a=1# b=x c=NULL d=1");
    expect(db, "SELECT 9223372036854775807 AS big, -9223372036854775807 - 1 AS low",
           "big=9223372036854775807# low=-9223372036854775808#");
    expect(db, "SELECT 0.1 AS x, 1.0 / 3 AS y, 1e300 * 1e300 AS inf",
           "x=0.1# y=0.3333333333333333# inf=NULL#");
    expect(db, "SELECT x'00ff10' AS b, x'' AS e", "b=00ff10 e=");
    expect(db, "SELECT 1 AS a WHERE 0", "");
    expect(db, "SELECT 1 AS a UNION ALL SELECT 2 ; -- done\n /* really */ ;", "a=1#;a=2#");
    const double third = 1.0 / 3;
    cr_assert(eq(dbl, strtod("0.3333333333333333", NULL), third));
    close_db(db);
}

Test(db_query, text_that_is_not_utf8_is_made_so) {
    nas_db *db = open_db();
    expect(db, "SELECT CAST(x'61ff62' AS TEXT) AS t",
           "t=a\xef\xbf\xbd"
           "b");
    expect(db, "SELECT CAST(x'c3a4e282acf09f9880' AS TEXT) AS t",
           "t=\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80");
    expect(
        db,
        "SELECT CAST(x'c0afe08080eda080f4908080c3' AS TEXT) AS t", /* overlong, surrogate, beyond, cut */
        "t=\xef\xbf\xbd\xef\xbf\xbd"
        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
        "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"
        "\xef\xbf\xbd");
    close_db(db);
}

Test(db_query, only_one_select_is_run) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    static const char *const refused[] = {
        "DELETE FROM studies",
        "UPDATE studies SET name = 'b'",
        "INSERT INTO meta VALUES (1, 'a', 'b', 1)",
        "DROP TABLE studies",
        "CREATE TABLE t (x)",
        "CREATE TEMP TABLE t (x)",
        "PRAGMA user_version = 7",
        "PRAGMA user_version",
        "ATTACH '/tmp/nas-attached.db' AS x",
        "DETACH main",
        "BEGIN",
        "COMMIT",
        "SAVEPOINT s",
        "VACUUM",
        "VACUUM INTO '/tmp/nas-copy.db'",
        "REINDEX",
        "ANALYZE",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM studies",
        "SELECT 1; SELECT 2",
        "",
        "  ; -- nothing",
        "EXPLAIN SELECT 1; DELETE FROM meta",
        "WITH a AS (SELECT 1) DELETE FROM studies",
        "INSERT INTO meta SELECT 1, 'a', 'b', 1 RETURNING key",
    };
    nas_buf out = {0};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++) {
        FAILS(NAS_ERR_INVALID, nas_db_query(ctx, db, refused[i], NULL, 0, collect, &out));
        cr_assert(eq(sz, out.len, 0), "%s", refused[i]);
    }
    FAILS(NAS_ERR_DB, nas_db_query(ctx, db, "SELECT nope FROM v_trial", NULL, 0, collect, &out));
    cr_assert(says("no such column: nope"));
    FAILS(NAS_ERR_DB, nas_db_query(ctx, db, "SELEC 1", NULL, 0, collect, &out));
    FAILS(NAS_ERR_INVALID, nas_db_query(ctx, db, "SELECT ?", NULL, 0, collect, &out));
    cr_assert(says("1 parameters, 0 were given"));
    expect(db, "SELECT name FROM studies", "name=a");
    (void)add_study(db, "b"); /* the fence is down again for the writer itself */
    close_db(db);
}

Test(db_query, parameters_are_bound_as_text_never_pasted) {
    nas_db *db = open_db();
    (void)add_study(db, "a");
    nas_buf out = {0};
    const char *const hostile[] = {"a' OR 1 = 1 --"};
    OK(nas_db_query(ctx, db, "SELECT study FROM v_study WHERE study = ?", hostile, 1, collect,
                    &out));
    cr_assert(eq(sz, out.len, 0));
    OK(nas_db_report(ctx, db, NAS_DB_REPORT_STUDY, hostile[0], 0, true, collect, &out));
    cr_assert(eq(sz, out.len, 0));
    close_db(db);
}

static nas_status stop_at_two(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                              const char *const *values, const bool *is_number) {
    (void)n, (void)names, (void)values, (void)is_number;
    int *seen = arg;
    ++*seen;
    return *seen == 2 ? nas_fail(c, NAS_ERR_RANGE, "enough") : NAS_OK;
}

Test(db_query, a_failing_callback_ends_the_query) {
    nas_db *db = open_db();
    int seen = 0;
    const char *const sql = "SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3";
    FAILS(NAS_ERR_RANGE, nas_db_query(ctx, db, sql, NULL, 0, stop_at_two, &seen));
    cr_assert(eq(int, seen, 2));
    cr_assert(says("enough"));
    close_db(db);
}

Test(db_query, a_query_without_end_is_cancelled) {
    nas_db *db = open_db();
    const volatile sig_atomic_t flag = 1;
    nas_ctx_set_cancel(ctx, &flag);
    nas_buf out = {0};
    FAILS(NAS_ERR_CANCELLED,
          nas_db_query(ctx, db,
                       "WITH RECURSIVE c (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"
                       " SELECT count(*) FROM c",
                       NULL, 0, collect, &out));
    nas_ctx_set_cancel(ctx, NULL);
    close_db(db);
}

static nas_status first_names(nas_ctx *c, void *arg, int32_t n, const char *const *names,
                              const char *const *values, const bool *is_number) {
    (void)is_number;
    nas_buf *out = arg;
    for (int32_t i = 0; i < n; i++) {
        if (strcmp(names[i], "trial") == 0)
            nas_buf_printf(out, "%s ", values[i] == NULL ? "-" : values[i]);
    }
    return nas_buf_status(c, out);
}

Test(db_query, reports_are_of_one_study_and_ordered) {
    nas_db *db = open_db();
    const int64_t a = add_study(db, "a"), b = add_study(db, "b"), device = add_device(db);
    const int64_t first = add_complete(db, a, 0, "strategy", 34, 9000, 0);
    (void)add_complete(db, a, 1, "strategy", 32, 3000, 0);
    (void)add_complete(db, a, 2, "baseline:supernet", 35, 20000, 0);
    const int64_t other = add_complete(db, b, 0, "strategy", 31, 1000, 0);
    (void)add_measurement(db, first, device, "search");
    (void)add_measurement(db, other, device, "search");
    const nas_db_layer layer = {"n", "conv3x3", 1, 1, 1, 1, 3, 1, 1, 1, 1};
    OK(nas_db_layers_put(ctx, db, first, &layer, 1));
    static const struct {
        nas_db_report_kind kind;
        int64_t number;
        const char *trials;
    } rows[] = {{NAS_DB_REPORT_FRONT, 0, "1 0 "}, {NAS_DB_REPORT_TRIALS, 0, "0 1 2 "},
                {NAS_DB_REPORT_BEST, 0, "0 "},    {NAS_DB_REPORT_TRIAL, 2, "2 "},
                {NAS_DB_REPORT_TRIAL, 9, ""},     {NAS_DB_REPORT_MEASUREMENTS, 0, "0 "},
                {NAS_DB_REPORT_LAYERS, 1, ""}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        for (int brief = 0; brief < 2; brief++) {
            nas_buf out = {0};
            OK(nas_db_report(ctx, db, rows[i].kind, "a", rows[i].number, brief == 1, first_names,
                             &out));
            cr_assert(eq(str, out.data == NULL ? "" : out.data, (char *)rows[i].trials),
                      "report %zu", i);
            nas_buf_deinit(&out);
        }
    }
    FAILS(NAS_ERR_INVALID,
          nas_db_report(ctx, db, NAS_DB_REPORT_COUNT, "a", 0, true, first_names, NULL));
    close_db(db);
}

Test(db_query, the_last_events_are_five_in_order) {
    nas_db *db = open_db();
    const int64_t study = add_study(db, "a");
    static const char *const texts[] = {"1", "2", "3", "4", "5", "6", "7"};
    for (size_t i = 0; i < 7; i++)
        OK(nas_db_event(ctx, db, study, "k", texts[i]));
    nas_buf out = {0};
    OK(nas_db_report(ctx, db, NAS_DB_REPORT_LAST_EVENTS, "a", 0, true, collect, &out));
    const char *at = out.data;
    for (size_t i = 2; i < 7; i++) {
        char wanted[16];
        (void)snprintf(wanted, sizeof wanted, "text=%s", texts[i]);
        at = strstr(at, wanted);
        cr_assert(ne(ptr, (void *)at, NULL), "%s", out.data);
    }
    cr_assert(eq(ptr, strstr(out.data, "text=2"), NULL));
    nas_buf_deinit(&out);
    close_db(db);
}
