/* test_kernel_timing.c - timings of kernels: replaced, found, the best of them, and files from before they were there. */
#include "tests/db/fixture.h"

#include <math.h>

SUITE(db_kernel_timing);

static const nas_db_kernel_key key = {
    .kernel = "conv f32 3x3 16->16 @56x56", .way = "direct 6x2", .device = "cpu a", .threads = 1};

static nas_db_kernel_timing timing(double p50_ns) {
    return (nas_db_kernel_timing){
        .p50_ns = p50_ns, .lo_ns = p50_ns * 0.75, .hi_ns = p50_ns * 1.5, .runs = 9};
}

static void put(nas_db *db, nas_db_kernel_key k, double p50_ns) {
    const nas_db_kernel_timing t = timing(p50_ns);
    OK(nas_db_kernel_timing_put(ctx, db, &k, &t));
}

/* -1 when there is none. */
static double get(nas_db *db, nas_db_kernel_key k) {
    bool found = false;
    nas_db_kernel_timing t = {.p50_ns = -1};
    OK(nas_db_kernel_timing_get(ctx, db, &k, &found, &t));
    cr_assert(found == (t.p50_ns > 0));
    return t.p50_ns;
}

static void expect_best(nas_db *db, nas_db_kernel_key k, const char *way, double p50_ns) {
    char *best = NULL;
    nas_db_kernel_timing t = {0};
    OK(nas_db_kernel_timing_best(ctx, db, &k, &best, &t));
    cr_assert(ne(ptr, best, NULL));
    cr_assert(eq(str, best, (char *)way));
    cr_assert(eq(dbl, t.p50_ns, p50_ns));
    nas_free(best);
}

Test(db_kernel_timing, a_timing_is_kept_for_ever_and_replaced_by_the_next_one) {
    nas_db *db = open_db();
    cr_assert(eq(dbl, get(db, key), -1.0));
    put(db, key, 1000.5);
    close_db(db);
    db = open_db();
    bool found = false;
    nas_db_kernel_timing t = {0};
    OK(nas_db_kernel_timing_get(ctx, db, &key, &found, &t));
    cr_assert(found);
    cr_assert(eq(dbl, t.p50_ns, 1000.5));
    cr_assert(eq(dbl, t.lo_ns, 1000.5 * 0.75));
    cr_assert(eq(dbl, t.hi_ns, 1000.5 * 1.5));
    cr_assert(eq(i32, t.runs, 9));
    cr_assert(
        eq(str, (char *)raw_text(db_path, "SELECT measured_ms > 0 FROM kernel_timings"), "1"));
    put(db, key, 900);
    cr_assert(eq(dbl, get(db, key), 900.0));
    cr_assert(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM kernel_timings"), "1"));
    close_db(db);
    assert_intact(db_path);
}

Test(db_kernel_timing, every_part_of_the_key_counts) {
    nas_db *db = open_db();
    nas_db_kernel_key other[4] = {key, key, key, key};
    other[0].kernel = "conv f32 3x3 16->16 @56x57";
    other[1].way = "direct 4x3";
    other[2].device = "cpu b";
    other[3].threads = 2;
    put(db, key, 1);
    for (int i = 0; i < 4; i++) {
        cr_assert(eq(dbl, get(db, other[i]), -1.0));
        put(db, other[i], 2 + i);
    }
    cr_assert(eq(dbl, get(db, key), 1.0));
    for (int i = 0; i < 4; i++)
        cr_assert(eq(dbl, get(db, other[i]), 2.0 + i));
    close_db(db);
}

Test(db_kernel_timing, the_best_way_is_that_of_the_smallest_median_on_this_device) {
    nas_db *db = open_db();
    char *way = NULL;
    nas_db_kernel_timing t = {0};
    OK(nas_db_kernel_timing_best(ctx, db, &key, &way, &t));
    cr_assert(eq(ptr, way, NULL));
    nas_db_kernel_key k = key;
    k.way = "winograd4";
    put(db, k, 700);
    k.way = "direct 6x2";
    put(db, k, 800);
    k.way = "direct 4x3";
    put(db, k, 700);
    expect_best(db, key, "direct 4x3", 700); /* a tie: first by text */
    k.way = "direct 6x2";
    put(db, k, 600);
    expect_best(db, key, "direct 6x2", 600);
    k.device = "cpu b";
    k.way = "winograd2";
    put(db, k, 1);
    expect_best(db, key, "direct 6x2", 600);
    expect_best(db, k, "winograd2", 1);
    close_db(db);
}

Test(db_kernel_timing, nonsense_is_refused_and_what_was_there_stays) {
    nas_db *db = open_db();
    put(db, key, 5);
    nas_db_kernel_timing bad = timing(7);
    bad.hi_ns = NAN;
    FAILS(NAS_ERR_INVALID, nas_db_kernel_timing_put(ctx, db, &key, &bad));
    cr_assert(says(key.kernel));
    bad = timing(0);
    FAILS(NAS_ERR_DB, nas_db_kernel_timing_put(ctx, db, &key, &bad));
    bad = timing(7);
    bad.lo_ns = 8;
    FAILS(NAS_ERR_DB, nas_db_kernel_timing_put(ctx, db, &key, &bad));
    bad = timing(7);
    bad.runs = 0;
    FAILS(NAS_ERR_DB, nas_db_kernel_timing_put(ctx, db, &key, &bad));
    nas_db_kernel_key k = key;
    k.device = "";
    bad = timing(7);
    FAILS(NAS_ERR_DB, nas_db_kernel_timing_put(ctx, db, &k, &bad));
    k.device = NULL;
    FAILS(NAS_ERR_DB, nas_db_kernel_timing_put(ctx, db, &k, &bad));
    cr_assert(eq(dbl, get(db, key), 5.0));
    close_db(db);
}

Test(db_kernel_timing, a_file_from_before_gets_the_table_and_keeps_its_studies) {
    int32_t n = 0;
    const nas_db_migration *list = nas_db_migrations(&n);
    nas_db *db = NULL;
    OK(nas_db_open_schema(ctx, db_path, list, 1, &db));
    (void)add_study(db, "old");
    close_db(db);
    cr_assert(eq(str,
                 (char *)raw_text(
                     db_path, "SELECT count(*) FROM sqlite_schema WHERE name = 'kernel_timings'"),
                 "0"));
    db = open_db();
    put(db, key, 3);
    cr_assert(eq(dbl, get(db, key), 3.0));
    nas_db_study study = {0};
    OK(nas_db_study_get(ctx, db, "old", &study));
    nas_db_study_deinit(&study);
    close_db(db);
    assert_intact(db_path);
}
