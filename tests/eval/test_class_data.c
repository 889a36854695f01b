/* test_class_data.c - labelled images: splits, readers, what is refused. */
#include "eval/eval.h"

#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

static nas_ctx *ctx;
static char folder[] = "/tmp/nas-class-XXXXXX";

static void setup(void) {
    ctx = nas_ctx_new();
    nas_ctx_set_log(ctx, NULL, NULL, NAS_LOG_ERROR);
    cr_assert(mkdtemp(folder) != NULL);
}

static void teardown(void) {
    cr_assert(nas_remove_tree(ctx, folder) == NAS_OK);
    nas_ctx_free(ctx);
    cr_assert(nas_mem_live() == 0);
}

TestSuite(eval_class_data, .init = setup, .fini = teardown);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))
#define SAYS(text) cr_assert(strstr(nas_ctx_message(ctx), text) != NULL, "%s", nas_ctx_message(ctx))

static const char *path_of(const char *name) {
    static char path[4][256];
    static int next;
    char *out = path[next++ % 4];
    (void)snprintf(out, sizeof path[0], "%s/%s", folder, name);
    return out;
}

static void write_file(const char *name, const void *data, size_t len) {
    OK(nas_file_write(ctx, path_of(name), data, len, 0644));
}

static nas_class_data_options small(const char *kind, const char *path, int32_t side, int32_t c) {
    nas_class_data_options o = nas_class_data_options_default();
    o.kind = kind;
    o.path = path;
    o.h = o.w = side;
    o.c = c;
    o.reward_max = o.report_max = 4;
    for (int i = 0; i < NAS_CLASS_CHANNELS_MAX; i++) { /* pixels in 0..255 as they are */
        o.mean[i] = 0;
        o.deviation[i] = 1.0F / 255;
    }
    return o;
}

/* ---- splits --------------------------------------------------------------------------------------------------------- */

Test(eval_class_data, splits_are_disjoint_and_equal_pictures_are_kept_once) {
    enum { IMAGES = 40, RECORD = 1 + 12 };
    uint8_t records[IMAGES * RECORD];
    for (int i = 0; i < IMAGES; i++) {
        memset(records + i * RECORD, i % 30, RECORD); /* ten pictures come twice */
        records[i * RECORD] = (uint8_t)(i % 3);
    }
    write_file("a.bin", records, sizeof records);
    nas_class_data_options o = small("cifar10", path_of("a.bin"), 2, 3);
    nas_class_data *data = NULL;
    OK(nas_class_data_open(ctx, &o, &data));
    size_t total = 0;
    bool seen[30] = {false};
    for (int s = 0; s < NAS_CLASS_SPLIT_COUNT; s++) {
        const size_t n = nas_class_data_count(data, (nas_class_split)s);
        total += n;
        for (size_t i = 0; i < n; i++) {
            float hwc[12];
            nas_class_data_read(data, (nas_class_split)s, i, false, 0, 0, hwc);
            const int picture = (int)(hwc[0] + 0.5F);
            cr_assert(!seen[picture]);
            seen[picture] = true;
            cr_assert(nas_class_data_label(data, (nas_class_split)s, i) == picture % 3);
        }
    }
    cr_assert(total == 30);
    cr_assert(nas_class_data_count(data, NAS_CLASS_REWARD) == 4);
    cr_assert(nas_class_data_classes(data) == 3);
    nas_class_data_close(data);
}

Test(eval_class_data, pictures_of_the_report_leave_the_other_splits) {
    enum { IMAGES = 20, RECORD = 1 + 12 };
    uint8_t records[IMAGES * RECORD];
    for (int i = 0; i < IMAGES; i++)
        memset(records + i * RECORD, i, RECORD);
    write_file("all.bin", records, sizeof records);
    write_file("held.bin", records, 6 * RECORD);
    nas_class_data_options o = small("cifar10", path_of("all.bin"), 2, 3);
    o.report_path = path_of("held.bin");
    o.report_max = 100;
    nas_class_data *data = NULL;
    OK(nas_class_data_open(ctx, &o, &data));
    cr_assert(nas_class_data_count(data, NAS_CLASS_REPORT) == 6);
    for (int s = 0; s < NAS_CLASS_REPORT; s++) {
        for (size_t i = 0; i < nas_class_data_count(data, (nas_class_split)s); i++)
            cr_assert(nas_class_data_label(data, (nas_class_split)s, i) >= 6);
    }
    nas_class_data_close(data);
}

Test(eval_class_data, the_seed_decides_the_splits_and_nothing_else_does) {
    nas_class_data_options o = nas_class_data_options_default();
    o.h = o.w = 16;
    o.glyphs = 120;
    o.reward_max = o.report_max = 30;
    char hash[3][NAS_SHA256_HEX];
    for (int way = 0; way < 3; way++) {
        nas_class_data *data = NULL;
        o.seed = way == 2 ? 2 : 1;
        OK(nas_class_data_open(ctx, &o, &data));
        memcpy(hash[way], nas_class_data_hash(data, NAS_CLASS_REWARD), NAS_SHA256_HEX);
        cr_assert(strcmp(hash[way], nas_class_data_hash(data, NAS_CLASS_REPORT)) != 0);
        nas_class_data_close(data);
    }
    cr_assert(strcmp(hash[0], hash[1]) == 0);
    cr_assert(strcmp(hash[0], hash[2]) != 0);
}

Test(eval_class_data, a_picture_is_mirrored_and_moved_with_zeros_behind) {
    uint8_t records[12][1 + 4];
    for (int i = 0; i < 12; i++)
        memcpy(records[i],
               (uint8_t[]){0, (uint8_t)(10 * i + 1), (uint8_t)(10 * i + 2), (uint8_t)(10 * i + 3),
                           (uint8_t)(10 * i + 4)},
               5);
    write_file("a.bin", records, sizeof records);
    nas_class_data_options o = small("cifar10", path_of("a.bin"), 2, 1);
    nas_class_data *data = NULL;
    OK(nas_class_data_open(ctx, &o, &data));
    float plain[4], mirrored[4], moved[4];
    nas_class_data_read(data, NAS_CLASS_TUNE, 0, false, 0, 0, plain);
    nas_class_data_read(data, NAS_CLASS_TUNE, 0, true, 0, 0, mirrored);
    nas_class_data_read(data, NAS_CLASS_TUNE, 0, false, 1, 0, moved);
    cr_assert(mirrored[0] == plain[1] && mirrored[3] == plain[2]);
    cr_assert(moved[0] == plain[2] && moved[2] == 0 && moved[3] == 0);
    nas_class_data_close(data);
}

/* ---- readers -------------------------------------------------------------------------------------------------------- */

static void idx_files(uint8_t images[16 + 12 * 4], uint8_t labels[8 + 12]) {
    memcpy(images, (uint8_t[]){0, 0, 8, 3, 0, 0, 0, 12, 0, 0, 0, 2, 0, 0, 0, 2}, 16);
    memcpy(labels, (uint8_t[]){0, 0, 8, 1, 0, 0, 0, 12}, 8);
    for (int i = 0; i < 12; i++) {
        memset(images + 16 + i * 4, 20 * i, 4);
        labels[8 + i] = (uint8_t)i;
    }
}

Test(eval_class_data, idx_files_are_read_plain_and_packed) {
    uint8_t images[16 + 12 * 4], labels[8 + 12];
    char both[600];
    idx_files(images, labels);
    write_file("labels", labels, sizeof labels);
    write_file("images", images, sizeof images);
    gzFile packed = gzopen(path_of("images.gz"), "wb");
    cr_assert(gzwrite(packed, images, sizeof images) == (int)sizeof images);
    cr_assert(gzclose(packed) == Z_OK);
    for (int way = 0; way < 2; way++) {
        nas_class_data *data = NULL;
        (void)snprintf(both, sizeof both, "%s:%s", path_of(way == 0 ? "images" : "images.gz"),
                       path_of("labels"));
        nas_class_data_options o = small("idx", both, 2, 1);
        OK(nas_class_data_open(ctx, &o, &data));
        float hwc[4];
        nas_class_data_read(data, NAS_CLASS_REWARD, 1, false, 0, 0, hwc);
        cr_assert((int)(hwc[3] + 0.5F) == 20 * nas_class_data_label(data, NAS_CLASS_REWARD, 1));
        nas_class_data_close(data);
    }
}

Test(eval_class_data, raw_tensors_are_read_as_they_are) {
    float images[12][3][4];
    int32_t labels[12];
    char both[600];
    for (int i = 0; i < 12; i++) {
        labels[i] = i;
        for (int k = 0; k < 12; k++)
            images[i][k / 4][k % 4] = (float)(i + 100 * (k / 4)) - 7.5F;
    }
    write_file("x", images, sizeof images);
    write_file("y", labels, sizeof labels);
    (void)snprintf(both, sizeof both, "%s:%s", path_of("x"), path_of("y"));
    nas_class_data_options o = small("raw", both, 2, 3);
    nas_class_data *data = NULL;
    OK(nas_class_data_open(ctx, &o, &data));
    float hwc[12];
    nas_class_data_read(data, NAS_CLASS_TUNE, 0, false, 0, 0, hwc);
    const int32_t label = nas_class_data_label(data, NAS_CLASS_TUNE, 0);
    cr_assert(hwc[0] == (float)label - 7.5F && hwc[2] == (float)label + 192.5F);
    nas_class_data_close(data);
}

Test(eval_class_data, a_folder_a_class_is_read_in_order_of_name) {
    char name[64];
    for (int i = 0; i < 12; i++) {
        nas_image image = {0};
        OK(nas_image_init(ctx, 3, 4, 4, &image));
        for (int k = 0; k < 48; k++)
            image.data[k] = (float)i / 12;
        (void)snprintf(name, sizeof name, "set/%s", i % 2 == 0 ? "cat" : "dog");
        OK(nas_mkdirs(ctx, path_of(name)));
        (void)snprintf(name, sizeof name, "set/%s/%d.png", i % 2 == 0 ? "cat" : "dog", i);
        OK(nas_image_write_png(ctx, &image, path_of(name)));
        nas_image_deinit(&image);
    }
    nas_class_data_options o = small("folder", path_of("set"), 2, 3);
    nas_class_data *data = NULL;
    OK(nas_class_data_open(ctx, &o, &data));
    float hwc[12];
    nas_class_data_read(data, NAS_CLASS_TUNE, 0, false, 0, 0, hwc);
    const int number = (int)(hwc[0] * 12 / 255 + 0.5F);
    cr_assert(nas_class_data_label(data, NAS_CLASS_TUNE, 0) == number % 2);
    nas_class_data_close(data);
}

/* ---- what is refused ------------------------------------------------------------------------------------------------ */

Test(eval_class_data, damaged_and_unfit_files_are_refused_by_name) {
    uint8_t images[16 + 12 * 4], labels[8 + 12];
    char both[600];
    nas_class_data *data = NULL;
    idx_files(images, labels);
    write_file("labels", labels, sizeof labels);
    write_file("short", images, sizeof images - 1);
    write_file("images", images, sizeof images);
    nas_class_data_options o = small("cifar10", path_of("images"), 2, 3);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_PARSE);
    SAYS("no whole number of records of 13");
    (void)snprintf(both, sizeof both, "%s:%s", path_of("short"), path_of("labels"));
    o = small("idx", both, 2, 1);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_PARSE);
    SAYS("the header says 48");
    (void)snprintf(both, sizeof both, "%s:%s", path_of("images"), path_of("labels"));
    o = small("idx", both, 3, 1);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_SHAPE);
    SAYS("the network reads 3x3x1");
    o = small("idx", path_of("images"), 2, 1);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_INVALID);
    SAYS("images:labels");
    o = small("folder", path_of("nothing"), 2, 3);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_NOTFOUND);
    o = small("tape", "x", 2, 3);
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_INVALID);
    SAYS("use glyphs, cifar10, idx, folder or raw");
    (void)snprintf(both, sizeof both, "%s:%s", path_of("images"), path_of("labels"));
    o = small("idx", both, 2, 1);
    o.reward_max = 12;
    cr_assert(nas_class_data_open(ctx, &o, &data) == NAS_ERR_INVALID);
    SAYS("leave none for");
}
