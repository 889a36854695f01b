/* test_sparse_cells.c - what sparse layers gain on a device: kept, replaced, and asked for between measured rates. */
#include "tests/db/fixture.h"

#include "db/sparse_cells.h"

#include <math.h>
#include <string.h>
#include <stdio.h>

SUITE(db_sparse_cells);

static const nas_db_sparse_layer layer = {1, 1, 64, 256, 56, 56, 32};

static void put(nas_db *db, const char *fingerprint, const char *pattern, double rate,
                double gain) {
    nas_db_sparse_cell c = {.device = "native",
                            .target = "x",
                            .layer = layer,
                            .rate = rate,
                            .dense = "direct",
                            .sparse = "sparse_px/4",
                            .dense_ns = 1000,
                            .sparse_ns = 1000 / gain};
    (void)snprintf(c.fingerprint, sizeof c.fingerprint, "%s", fingerprint);
    (void)snprintf(c.pattern, sizeof c.pattern, "%s", pattern);
    OK(nas_db_sparse_put(ctx, db, &c, "{\"cpu\":\"x\"}"));
}

static nas_db_sparse_answer ask(nas_db *db, const char *fingerprint, const char *pattern,
                                double rate) {
    nas_db_sparse_answer a = {0};
    OK(nas_db_sparse_gain(ctx, db, fingerprint, &layer, pattern, rate, &a));
    return a;
}

Test(db_sparse_cells, gains_lie_on_a_line_of_time_between_the_measured_rates) {
    nas_db *db = open_db();
    put(db, "a", "1x4", 0.25, 0.8);
    put(db, "a", "1x4", 0.75, 4);
    const nas_db_sparse_answer a = ask(db, "a", "1x4", 0.5);
    cr_assert(a.known && a.measured && a.even.is_set);
    cr_expect(epsilon_eq(dbl, a.gain, 1 / ((1 / 0.8 + 0.25) / 2), 1e-12));
    cr_expect(epsilon_eq(dbl, a.even.value, 0.25 + 0.5 * 0.25 / (0.25 + 0.75), 1e-12));
    cr_expect(epsilon_eq(dbl, ask(db, "a", "1x4", 0.75).gain, 4, 1e-12));
    close_db(db);
}

Test(db_sparse_cells, beyond_the_measured_rates_the_nearest_speaks_and_says_so) {
    nas_db *db = open_db();
    put(db, "a", "1x4", 0.5, 0.5);
    put(db, "a", "1x4", 0.9, 0.9);
    const nas_db_sparse_answer low = ask(db, "a", "1x4", 0.1), high = ask(db, "a", "1x4", 0.95);
    cr_expect(low.known && !low.measured && !low.even.is_set);
    cr_expect(epsilon_eq(dbl, low.gain, 0.5, 1e-12));
    cr_expect(epsilon_eq(dbl, high.gain, 0.9, 1e-12));
    cr_expect(not(high.measured));
    close_db(db);
}

Test(db_sparse_cells, other_devices_patterns_and_layers_do_not_answer) {
    nas_db *db = open_db();
    put(db, "a", "1x4", 0.5, 2);
    cr_expect(not(ask(db, "b", "1x4", 0.5).known));
    cr_expect(not(ask(db, "a", "1x8", 0.5).known));
    nas_db_sparse_layer other = layer;
    other.bits = 8;
    nas_db_sparse_answer a = {.known = true};
    OK(nas_db_sparse_gain(ctx, db, "a", &other, "1x4", 0.5, &a));
    cr_expect(not(a.known));
    close_db(db);
}

Test(db_sparse_cells, a_cell_measured_again_is_replaced_and_nonsense_refused) {
    nas_db *db = open_db();
    put(db, "a", "1x4", 0.5, 2);
    put(db, "a", "1x4", 0.5, 3);
    cr_expect(epsilon_eq(dbl, ask(db, "a", "1x4", 0.5).gain, 3, 1e-12));
    cr_expect(eq(str, (char *)raw_text(db_path, "SELECT count(*) FROM v_sparse"), "1"));
    nas_db_sparse_cell bad = {.fingerprint = "a",
                              .device = "d",
                              .layer = layer,
                              .pattern = "1x4",
                              .rate = 0.5,
                              .dense_ns = 1,
                              .sparse_ns = (double)NAN};
    cr_expect(eq(int, nas_db_sparse_put(ctx, db, &bad, NULL), NAS_ERR_INVALID));
    bad.sparse_ns = -1;
    cr_expect(eq(int, nas_db_sparse_put(ctx, db, &bad, NULL), NAS_ERR_DB));
    nas_db_sparse_answer a;
    cr_expect(eq(int, nas_db_sparse_gain(ctx, db, "a", &layer, "1x4", 1.5, &a), NAS_ERR_INVALID));
    close_db(db);
}

Test(db_sparse_cells, a_device_is_found_by_name_or_fingerprint_and_several_are_listed) {
    nas_db *db = open_db();
    char found[NAS_SHA256_HEX];
    cr_expect(eq(int, nas_db_sparse_device(ctx, db, NULL, found), NAS_ERR_NOTFOUND));
    put(db, "a", "1x4", 0.5, 2);
    put(db, "a", "1x4", 0.75, 2);
    OK(nas_db_sparse_device(ctx, db, NULL, found));
    cr_expect(eq(str, found, "a"));
    put(db, "b", "1x4", 0.5, 2);
    cr_expect(eq(int, nas_db_sparse_device(ctx, db, NULL, found), NAS_ERR_INVALID));
    cr_expect(strstr(nas_ctx_message(ctx), "(a), ") != NULL, "%s", nas_ctx_message(ctx));
    OK(nas_db_sparse_device(ctx, db, "b", found));
    cr_expect(eq(str, found, "b"));
    cr_expect(eq(int, nas_db_sparse_device(ctx, db, "c", found), NAS_ERR_NOTFOUND));
    close_db(db);
}
