/* test_data.c - which images land where: folders, stored LR, splits, repeats, unreadable files, leaves. */
#include "image_files.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIDE = 24 };

static nas_ctx *ctx;
static char dir[64];
static size_t warnings;

static void setup(void) {
    ctx = nas_ctx_new();
    warnings = 0;
    nas_ctx_set_log(ctx, count_lines, &warnings, NAS_LOG_WARN);
    folder_make(dir);
}

static void teardown(void) {
    folder_remove(ctx, dir);
    nas_ctx_free(ctx);
}

TestSuite(eval_data, .init = setup, .fini = teardown, .timeout = 60);

/* put - a picture of its own for every seed. */
static void put(const char *name, int seed, int32_t h, int32_t w) {
    nas_image image = pattern_image(ctx, seed, 3, h, w);
    write_image(ctx, dir, name, &image);
    nas_image_deinit(&image);
}

static void put_many(const char *sub, int first_seed, int n) {
    for (int i = 0; i < n; i++) {
        char name[64];
        (void)snprintf(name, sizeof name, "%s/p%02d.png", sub, i);
        put(name, first_seed + i, SIDE, SIDE + 2 * (i % 3));
    }
}

static const char *below(const char *sub, char out[128]) {
    (void)snprintf(out, 128, "%s/%s", dir, sub);
    return out;
}

static nas_sr_data_options options(void) {
    nas_sr_data_options o = nas_sr_data_options_default();
    o.threads = 1;
    o.leaves_train = 3;
    o.leaves_select = 2;
    o.leaves_report = 2;
    o.leaves_height = 40;
    o.leaves_width = 45;
    return o;
}

static nas_sr_data *opened(const nas_sr_data_options *o) {
    nas_sr_data *data = NULL;
    const nas_status status = nas_sr_data_open(ctx, o, &data);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return data;
}

/* expect_failure - opening ends with `status` and a message that holds `part`. */
static void expect_failure(const nas_sr_data_options *o, nas_status status, const char *part) {
    nas_sr_data *data = NULL;
    cr_assert(eq(int, (int)nas_sr_data_open(ctx, o, &data), (int)status), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(ptr, data, NULL));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), part), NULL), "'%s' is not in: %s", part,
              nas_ctx_message(ctx));
}

static void expect_counts(const nas_sr_data *data, size_t train, size_t select, size_t report) {
    cr_assert(eq(sz, nas_sr_data_count(data, NAS_SPLIT_TRAIN), train));
    cr_assert(eq(sz, nas_sr_data_count(data, NAS_SPLIT_SELECT), select));
    cr_assert(eq(sz, nas_sr_data_count(data, NAS_SPLIT_REPORT), report));
}

/* disjoint - no HR picture twice in the whole set. */
static void expect_disjoint(const nas_sr_data *data) {
    const nas_sr_pair *all[256];
    size_t n = 0;
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        for (size_t i = 0; i < nas_sr_data_count(data, (nas_split)s); i++) {
            cr_assert(n < 256);
            all[n++] = nas_sr_data_pair(data, (nas_split)s, i);
        }
    }
    for (size_t i = 0; i < n; i++) {
        for (size_t k = i + 1; k < n; k++) {
            const nas_image *a = &all[i]->hr, *b = &all[k]->hr;
            if (a->h != b->h || a->w != b->w) continue;
            cr_assert(largest_difference(a, b) > 0.0, "%s and %s", all[i]->name, all[k]->name);
        }
    }
}

Test(eval_data, held_out_images_are_disjoint_from_training_and_seeded) {
    char train[128];
    put_many("train", 10, 20);
    nas_sr_data_options o = options();
    o.train_dir = below("train", train);
    o.select_fraction = 0.2;
    o.report_max = 3;
    nas_sr_data *a = opened(&o);
    expect_counts(a, 13, 4, 3);
    expect_disjoint(a);
    cr_assert(ne(ptr, strstr(nas_sr_data_describe(a), "select 4 held out"), NULL), "%s",
              nas_sr_data_describe(a));
    nas_sr_data *again = opened(&o);
    cr_assert(eq(str, (char *)nas_sr_data_hash(a), (char *)nas_sr_data_hash(again)));
    o.seed = 2;
    nas_sr_data *other = opened(&o);
    cr_assert(ne(str, (char *)nas_sr_data_hash(a), (char *)nas_sr_data_hash(other)));
    nas_sr_data_close(other);
    nas_sr_data_close(again);
    nas_sr_data_close(a);
}

Test(eval_data, held_out_choice_follows_the_picture_not_its_name) {
    char train[128], renamed[128];
    put_many("train", 10, 9);
    for (int i = 0; i < 9; i++) { /* the same pictures in reverse order, in subfolders */
        char name[64];
        (void)snprintf(name, sizeof name, "renamed/%d/x.png", 8 - i);
        put(name, 10 + i, SIDE, SIDE + 2 * (i % 3));
    }
    nas_sr_data_options o = options();
    o.train_dir = below("train", train);
    nas_sr_data *a = opened(&o);
    o.train_dir = below("renamed", renamed);
    nas_sr_data *b = opened(&o);
    expect_counts(b, 7, 1, 1);
    const nas_image *x = &nas_sr_data_pair(a, NAS_SPLIT_SELECT, 0)->hr,
                    *y = &nas_sr_data_pair(b, NAS_SPLIT_SELECT, 0)->hr;
    cr_assert(eq(dbl, largest_difference(x, y), 0.0));
    nas_sr_data_close(b);
    nas_sr_data_close(a);
}

Test(eval_data, a_picture_in_two_folders_stays_in_report_then_select) {
    char train[128], select[128], report[128];
    put_many("train", 1, 6);  /* 1..6 */
    put_many("select", 4, 4); /* 4..7: other extents for some, so list them plainly */
    put_many("report", 1, 2); /* 1, 2 */
    nas_sr_data_options o = options();
    o.train_dir = below("train", train);
    o.select_dir = below("select", select);
    o.report_dir = below("report", report);
    nas_sr_data *data = opened(&o);
    /* seeds 1, 2 of train repeat report; 4, 5, 6 of train repeat select (equal extents: i % 3 agrees). */
    expect_counts(data, 1, 4, 2);
    expect_disjoint(data);
    cr_assert(eq(sz, nas_sr_data_skipped(data), 0));
    cr_assert(ne(ptr, strstr(nas_sr_data_describe(data), "5 repeated"), NULL), "%s",
              nas_sr_data_describe(data));
    nas_sr_data_close(data);
}

Test(eval_data, unreadable_files_are_named_counted_and_skipped) {
    char train[128], path[160];
    put_many("train", 1, 5);
    write_bytes(ctx, dir, "train/notes.txt", "hello", 5);
    write_bytes(ctx, dir, "train/empty.png", "", 0);
    write_bytes(ctx, dir, "train/.hidden", "x", 1);
    nas_buf file = {0};
    encode_png(2, 8, false, SIDE, SIDE, &file);
    write_bytes(ctx, dir, "train/deep/cut.png", file.data, file.len / 2);
    set_png_extents(&file, 10000, 10000);
    write_bytes(ctx, dir, "train/deep/huge.png", file.data, file.len);
    put("train/tiny.png", 50, 8, 30);
    (void)snprintf(path, sizeof path, "%s/train/broken-link.png", dir);
    cr_assert(eq(int, symlink("nowhere", path), 0));
    (void)snprintf(path, sizeof path, "%s/train/loop", dir);
    cr_assert(eq(int, symlink(".", path), 0));
    nas_sr_data_options o = options();
    o.train_dir = below("train", train);
    nas_sr_data *data = opened(&o);
    expect_counts(data, 3, 1, 1);
    cr_assert(eq(sz, nas_sr_data_skipped(data), 6));
    cr_assert(eq(sz, warnings, 6));
    cr_assert(ne(ptr, strstr(nas_sr_data_describe(data), "6 skipped"), NULL));
    nas_sr_data_close(data);
    nas_buf_deinit(&file);
}

Test(eval_data, a_folder_without_a_usable_image_is_an_error) {
    char train[128], none[128], report[128];
    nas_sr_data_options o = options();
    o.train_dir = below("none", none);
    expect_failure(&o, NAS_ERR_NOTFOUND, "none");
    write_bytes(ctx, dir, "train/a.png", "no", 2);
    o.train_dir = below("train", train);
    expect_failure(&o, NAS_ERR_NOTFOUND, "1 skipped");
    put_many("train", 1, 2); /* two images cannot make three splits */
    expect_failure(&o, NAS_ERR_NOTFOUND, "train");
    write_bytes(ctx, dir, "report/a.png", "no", 2);
    o.report_dir = below("report", report);
    expect_failure(&o, NAS_ERR_NOTFOUND, "report");
    o.report_dir = below("train/p00.png", report);
    expect_failure(&o, NAS_ERR_IO, "p00.png");
}

/* put_lr - an LR image that is no bicubic of its HR, so that its use shows. */
static void put_pair(const char *hr, const char *lr, int seed, int32_t hr_h, int32_t hr_w,
                     int32_t scale) {
    put(hr, seed, hr_h, hr_w);
    put(lr, seed + 100, hr_h / scale, hr_w / scale);
}

static double lr_difference(const nas_sr_pair *pair, int lr_seed) {
    nas_image want = pattern_image(ctx, lr_seed, 3, pair->lr.h, pair->lr.w);
    const double d = largest_difference(&pair->lr, &want);
    nas_image_deinit(&want);
    return d;
}

Test(eval_data, stored_lr_images_are_used_where_their_names_pair) {
    char report[128];
    /* Two cuts of picture 001: the one that fits the scale is taken. */
    put_pair("set/HR/001_48x45.png", "set/LR_x3/001.png", 1, 48, 45, 3);
    put_pair("set/HR/001_48x44.png", "set/LR_x2/001.png", 2, 48, 44, 2);
    put_pair("set/HR/002.png", "set/LR_x2/002x2.png", 3, 30, 31, 2); /* HR is cut to 30x30 */
    put("set/LR_x3/002.png", 200, 10, 10);
    nas_sr_data_options o = options();
    o.report_dir = below("set", report);
    nas_sr_data *data = opened(&o);
    expect_counts(data, 3, 2, 2);
    const nas_sr_pair *first = nas_sr_data_pair(data, NAS_SPLIT_REPORT, 0);
    const nas_sr_pair *second = nas_sr_data_pair(data, NAS_SPLIT_REPORT, 1);
    cr_assert(eq(str, (char *)first->name, "001_48x44.png"));
    cr_assert(eq(int, first->hr.w, 44));
    cr_assert(eq(dbl, lr_difference(first, 102), 0.0));
    cr_assert(eq(int, second->hr.w, 30));
    cr_assert(eq(dbl, lr_difference(second, 103), 0.0));
    cr_assert(ne(ptr, strstr(nas_sr_data_describe(data), "2 with stored LR"), NULL));
    nas_sr_data_close(data);
    o.scale = 3;
    data = opened(&o);
    first = nas_sr_data_pair(data, NAS_SPLIT_REPORT, 0);
    cr_assert(eq(int, first->hr.w, 45));
    cr_assert(eq(dbl, lr_difference(first, 101), 0.0));
    nas_sr_data_close(data);
    o.scale = 4; /* no LR_x4: the largest cut of each picture, LR made from it */
    data = opened(&o);
    expect_counts(data, 3, 2, 2);
    first = nas_sr_data_pair(data, NAS_SPLIT_REPORT, 0);
    cr_assert(eq(str, (char *)first->name, "001_48x45.png"));
    nas_image lr = {0};
    cr_assert(eq(int, (int)nas_image_resize_bicubic(ctx, &first->hr, 12, 11, &lr), NAS_OK));
    nas_image_quantize8(&lr);
    cr_assert(eq(dbl, largest_difference(&lr, &first->lr), 0.0));
    nas_image_deinit(&lr);
    nas_sr_data_close(data);
}

Test(eval_data, lr_images_with_other_names_pair_in_sorted_order_when_counts_agree) {
    char report[128];
    put_pair("set/HR/baby.png", "set/LR_x2/im1.png", 1, 30, 30, 2);
    put_pair("set/HR/bird.png", "set/LR_x2/im2.png", 2, 32, 30, 2);
    nas_sr_data_options o = options();
    o.report_dir = below("set", report);
    nas_sr_data *data = opened(&o);
    cr_assert(eq(dbl, lr_difference(nas_sr_data_pair(data, NAS_SPLIT_REPORT, 1), 102), 0.0));
    nas_sr_data_close(data);
    put("set/HR/woman.png", 3, 30, 30); /* now counts differ: LR is made, and a warning says so */
    const size_t before = warnings;
    data = opened(&o);
    cr_assert(eq(sz, nas_sr_data_count(data, NAS_SPLIT_REPORT), 3));
    cr_assert(lr_difference(nas_sr_data_pair(data, NAS_SPLIT_REPORT, 1), 102) > 0.0);
    cr_assert(eq(sz, warnings, before + 1));
    nas_sr_data_close(data);
}

Test(eval_data, an_lr_image_of_the_wrong_size_is_skipped_by_name) {
    char report[128];
    put_pair("set/HR/a.png", "set/LR_x2/a.png", 1, 30, 30, 2);
    put_pair("set/HR/b.png", "set/LR_x2/b.png", 2, 30, 30, 3);
    nas_sr_data_options o = options();
    o.report_dir = below("set", report);
    nas_sr_data *data = opened(&o);
    expect_counts(data, 3, 2, 1);
    cr_assert(eq(sz, nas_sr_data_skipped(data), 1));
    nas_sr_data_close(data);
}

Test(eval_data, several_folders_are_joined_and_a_repeated_one_counts_once) {
    char a[128], b[128], joined[400];
    put_many("a", 1, 5);
    put_many("b", 31, 4);
    (void)snprintf(joined, sizeof joined, "%s:%s/::%s", below("a", a), below("b", b), a);
    nas_sr_data_options o = options();
    o.train_dir = joined;
    nas_sr_data *data = opened(&o);
    expect_counts(data, 7, 1, 1);
    nas_sr_data_close(data);
}

Test(eval_data, larger_folders_are_cut_to_the_seeded_choice) {
    char select[128];
    put_many("select", 1, 7);
    nas_sr_data_options o = options();
    o.select_dir = below("select", select);
    o.select_max = 3;
    nas_sr_data *data = opened(&o);
    expect_counts(data, 3, 3, 2);
    cr_assert(strcmp(nas_sr_data_pair(data, NAS_SPLIT_SELECT, 0)->name,
                     nas_sr_data_pair(data, NAS_SPLIT_SELECT, 1)->name) < 0);
    cr_assert(eq(ptr, (void *)nas_sr_data_pair(data, NAS_SPLIT_SELECT, 3), NULL));
    nas_sr_data_close(data);
}

Test(eval_data, nothing_depends_on_the_number_of_threads) {
    char train[128];
    put_many("train", 1, 12);
    write_bytes(ctx, dir, "train/p03b.png", "no", 2);
    for (int with_folder = 0; with_folder < 2; with_folder++) {
        nas_sr_data_options o = options();
        if (with_folder == 1) o.train_dir = below("train", train);
        nas_sr_data *one = opened(&o);
        o.threads = 4;
        nas_sr_data *four = opened(&o);
        cr_assert(eq(str, (char *)nas_sr_data_hash(one), (char *)nas_sr_data_hash(four)));
        cr_assert(eq(str, (char *)nas_sr_data_describe(one), (char *)nas_sr_data_describe(four)));
        nas_sr_data_close(four);
        nas_sr_data_close(one);
    }
}

Test(eval_data, leaves_fill_every_split_that_has_no_folder) {
    nas_sr_data_options o = options();
    o.scale = 3;
    nas_sr_data *data = opened(&o);
    expect_counts(data, 3, 2, 2);
    expect_disjoint(data);
    for (int s = 0; s < NAS_SPLIT_COUNT; s++) {
        const nas_sr_pair *pair = nas_sr_data_pair(data, (nas_split)s, 1);
        cr_assert(pair->hr.h == 39 && pair->hr.w == 45 && pair->lr.h == 13 && pair->lr.w == 15);
    }
    cr_assert(ne(ptr, strstr(nas_sr_data_describe(data), "dead leaves"), NULL));
    nas_sr_data_close(data);
}

Test(eval_data, options_out_of_range_are_refused_with_their_name) {
    static const struct {
        const char *part;
        int32_t scale, threads, select_max, leaves_report, leaves_width;
        double fraction;
    } rows[] = {{"scale", 5, 1, 1, 1, 64, 0.1},          {"threads", 2, 0, 1, 1, 64, 0.1},
                {"select_max", 2, 1, 0, 1, 64, 0.1},     {"leaves_report", 2, 1, 1, 0, 64, 0.1},
                {"leaves_width", 2, 1, 1, 1, 17, 0.1},   {"select_fraction", 2, 1, 1, 1, 64, 0.6},
                {"select_fraction", 2, 1, 1, 1, 64, 0.0}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_sr_data_options o = options();
        o.scale = rows[i].scale;
        o.threads = rows[i].threads;
        o.select_max = rows[i].select_max;
        o.leaves_report = rows[i].leaves_report;
        o.leaves_width = rows[i].leaves_width;
        o.select_fraction = rows[i].fraction;
        expect_failure(&o, NAS_ERR_INVALID, rows[i].part);
    }
    nas_sr_data_options o = options();
    o.memory_max_bytes = 0;
    expect_failure(&o, NAS_ERR_INVALID, "memory_max_bytes");
    o.memory_max_bytes = 40 * 45 * 12; /* one HR image, not seven */
    expect_failure(&o, NAS_ERR_RANGE, "7 images");
}

Test(eval_data, cancelling_ends_it) {
    volatile sig_atomic_t flag = 1;
    char train[128];
    nas_ctx_set_cancel(ctx, &flag);
    nas_sr_data_options o = options();
    expect_failure(&o, NAS_ERR_CANCELLED, "");
    put_many("train", 1, 3);
    o.train_dir = below("train", train);
    expect_failure(&o, NAS_ERR_CANCELLED, "");
    nas_ctx_set_cancel(ctx, NULL);
}

Test(eval_data, failed_allocations_are_errors_and_leak_nothing) {
    char report[128];
    put_pair("set/HR/1_20x20.png", "set/LR_x2/1.png", 1, 20, 20, 2);
    put("set/HR/1_21x21.png", 9, 21, 21);
    put("set/extra/x.png", 5, 20, 22);
    nas_sr_data_options o = options();
    o.report_dir = below("set", report);
    o.leaves_train = o.leaves_select = 1;
    o.leaves_height = o.leaves_width = 20;
    const long before = nas_mem_live();
    int failures = 0;
    for (long n = 1;; n++) {
        nas_sr_data *data = NULL;
        nas_mem_fail_after(n);
        const nas_status status = nas_sr_data_open(ctx, &o, &data);
        nas_mem_fail_after(0);
        if (status == NAS_OK) nas_sr_data_close(data);
        cr_assert(eq(long, nas_mem_live(), before), "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld: %s", n,
                  nas_ctx_message(ctx));
        failures++;
    }
    cr_assert(failures > 30, "%d", failures);
}
