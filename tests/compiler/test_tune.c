/* test_tune.c - measured ways of a convolution: plausible numbers, what is remembered, what is refused. Which way is the
 * fastest is never asserted: that is the machine's business. */
#include "compiler/layers_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double few_ms = 0.004;

static nas_ctx *ctx;
static char dir[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-tune-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_tune, .init = setup, .fini = teardown, .timeout = 240);

#define OK(expr) cr_assert(eq(int, (int)(expr), (int)NAS_OK), "%s", nas_ctx_message(ctx))
#define FAILS(status, expr)                                                                        \
    cr_assert(eq(int, (int)(expr), (int)(status)), "%s", nas_ctx_message(ctx))

/* A "same" convolution on buffers with a border of one pixel. */
static nas__conv same_conv(int32_t in_c, int32_t out_c, int32_t groups, int32_t size,
                           int32_t kernel) {
    nas__conv c = {.in_c = in_c,
                   .out_c = out_c,
                   .groups = groups,
                   .out_h = size,
                   .out_w = size,
                   .kernel_h = kernel,
                   .kernel_w = kernel,
                   .stride_h = 1,
                   .stride_w = 1,
                   .dilation_h = 1,
                   .dilation_w = 1,
                   .in_pitch = in_c,
                   .out_pitch = out_c,
                   .act = NAS__LACT_RELU};
    c.in_row = (size_t)((size + kernel - 1) * in_c);
    c.out_row = (size_t)((size + 2) * out_c);
    return c;
}

static void add_residual(nas__conv *c) {
    c->has_residual = true;
    c->residual_pitch = c->out_pitch;
    c->residual_row = c->out_row;
}

/* Files of the cache whose name ends in `suffix`; with "" also left folders. */
static int count_files(const char *path, const char *suffix) {
    DIR *d = opendir(path);
    if (d == NULL) return 0;
    int n = 0;
    for (struct dirent *e = readdir(d); e != NULL; e = readdir(d)) {
        if (e->d_name[0] == '.') continue;
        char below[1024];
        (void)snprintf(below, sizeof below, "%s/%s", path, e->d_name);
        const size_t len = strlen(e->d_name), tail = strlen(suffix);
        n += (len >= tail && strcmp(e->d_name + len - tail, suffix) == 0) +
             count_files(below, suffix);
    }
    (void)closedir(d);
    return n;
}

static void check_conv(const nas__conv *c) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    nas_tune_timing t[NAS__CONV_WAYS_MAX] = {0};
    const int32_t n = nas__conv_ways(options.target, c, ways);
    OK(nas__tune_convs(ctx, &options, c, ways, n, few_ms * n, t));
    for (int32_t i = 0; i < n; i++) {
        cr_assert(t[i].runs >= 3 && t[i].runs <= 65, "%d runs", t[i].runs);
        cr_assert(t[i].lo_ns > 0 && isfinite(t[i].hi_ns), "%g..%g", t[i].lo_ns, t[i].hi_ns);
        cr_assert(t[i].lo_ns <= t[i].p50_ns && t[i].p50_ns <= t[i].hi_ns);
    }
}

Test(compiler_tune, every_way_of_a_3x3_gets_a_time) {
    nas__conv c = same_conv(16, 19, 1, 14, 3);
    add_residual(&c);
    check_conv(&c);
    check_conv(&c);
    cr_assert(eq(int, count_files(dir, ".tune"), 1)); /* compiled once */
    cr_assert(eq(int, count_files(dir, "weights.raw"), 0));
}

Test(compiler_tune, other_kinds_of_convolutions_get_times_too) {
    nas__conv c = same_conv(24, 24, 24, 9, 3);
    c.act = NAS__LACT_PRELU;
    check_conv(&c);
    c = same_conv(40, 70, 1, 1, 1);
    check_conv(&c);
    c = same_conv(12, 8, 2, 7, 1);
    c.act = NAS__LACT_HARD_SWISH;
    check_conv(&c);
}

Test(compiler_tune, a_way_may_come_twice) {
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, ways);
    ways[1] = ways[0];
    nas_tune_timing t[2] = {0};
    OK(nas__tune_convs(ctx, &options, &c, ways, 2, few_ms, t));
    cr_assert(t[0].p50_ns > 0 && t[1].p50_ns > 0);
}

Test(compiler_tune, what_cannot_be_measured_is_refused) {
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways);
    nas_tune_timing t[NAS__CONV_WAYS_MAX] = {{.p50_ns = -1}};
    FAILS(NAS_ERR_INVALID, nas__tune_convs(ctx, &options, &c, ways, 0, few_ms, t));
    FAILS(NAS_ERR_INVALID,
          nas__tune_convs(ctx, &options, &c, ways, NAS__CONV_WAYS_MAX + 1, few_ms, t));
    FAILS(NAS_ERR_INVALID, nas__tune_convs(ctx, &options, &c, ways, n, 0, t));
    FAILS(NAS_ERR_INVALID, nas__tune_convs(ctx, &options, &c, ways, n, (double)NAN, t));
    OK(nas_target_find(ctx, "aarch64-android", &options.target));
    FAILS(NAS_ERR_UNSUPPORTED, nas__tune_convs(ctx, &options, &c, ways, n, few_ms, t));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "aarch64-android"), NULL));
    cr_assert(eq(dbl, t[0].p50_ns, -1.0)); /* untouched */
}

Test(compiler_tune, a_failing_compiler_is_reported_and_leaves_no_folder) {
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    nas_tune_timing t[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, ways);
    char path[128];
    (void)snprintf(path, sizeof path, "%s/cc", dir);
    static const char script[] = "#!/bin/sh\n[ \"$1\" = --version ] && { echo cc 1; exit; }\n"
                                 "echo this cannot work >&2\nexit 1\n";
    OK(nas_file_write(ctx, path, script, sizeof script - 1, 0755));
    options.compiler = path;
    FAILS(NAS_ERR_TOOLCHAIN, nas__tune_convs(ctx, &options, &c, ways, 1, few_ms, t));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "this cannot work"), NULL));
    cr_assert(eq(int, count_files(dir, ""), 1)); /* the script */
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

/* A list in memory; keys are joined texts. */
typedef struct list_memory {
    struct {
        char key[1200];
        double ns;
    } rows[2 * NAS__CONV_WAYS_MAX];
    int n, finds, stores;
    bool broken;
} list_memory;

static void join(char out[1200], const char *kernel, const char *way, const char *device) {
    const int n = snprintf(out, 1200, "%s\n%s\n%s", kernel, way, device);
    cr_assert(n > 0 && n < 1200);
}

static bool list_find(void *user, const char *kernel, const char *way, const char *device,
                      double *ns) {
    list_memory *m = user;
    char key[1200];
    join(key, kernel, way, device);
    m->finds++;
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->rows[i].key, key) != 0) continue;
        *ns = m->rows[i].ns;
        return true;
    }
    return false;
}

static nas_status list_store(nas_ctx *c, void *user, const char *kernel, const char *way,
                             const char *device, const nas_tune_timing *timing) {
    list_memory *m = user;
    char key[1200];
    join(key, kernel, way, device);
    m->stores++;
    if (m->broken) return nas_fail(c, NAS_ERR_DB, "the list is full");
    cr_assert(timing->p50_ns > 0 && timing->runs >= 3);
    int i = 0;
    while (i < m->n && strcmp(m->rows[i].key, key) != 0)
        i++;
    memcpy(m->rows[i].key, key, sizeof key);
    m->rows[i].ns = timing->p50_ns;
    if (i == m->n) m->n++;
    return NAS_OK;
}

Test(compiler_tune, what_was_measured_is_remembered_and_decides_without_running) {
    static list_memory list;
    const nas_tune_memory memory = {&list, list_find, list_store};
    nas__conv c = same_conv(8, 16, 1, 8, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways);
    cr_assert(n >= 2);
    int32_t best = -1;
    double ns[NAS__CONV_WAYS_MAX];
    OK(nas__tune_conv_best(ctx, &options, &memory, &c, ways, n, few_ms * n, &best, ns));
    cr_assert(best >= 0 && best < n);
    for (int32_t i = 0; i < n; i++)
        cr_assert(ns[i] >= ns[best]);
    cr_assert(eq(int, list.n, n)); /* no two ways share a key */
    const int files = count_files(dir, "");
    list.rows[n - 1].ns = ns[best] / 4; /* what the memory says counts */
    OK(nas__tune_conv_best(ctx, &options, &memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(i32, best, n - 1));
    cr_assert(eq(int, list.stores, n));
    cr_assert(eq(int, count_files(dir, ""), files));
    list.n--; /* one is missing: all are measured again */
    OK(nas__tune_conv_best(ctx, &options, &memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, list.stores, 2 * n));
    cr_assert(eq(int, list.n, n));
    c.act = NAS__LACT_NONE; /* another kernel */
    OK(nas__tune_conv_best(ctx, &options, &memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, list.n, 2 * n));
}

Test(compiler_tune, a_memory_that_fails_ends_the_tuning_and_none_is_fine) {
    static list_memory list = {.broken = true};
    const nas_tune_memory memory = {&list, list_find, list_store};
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, ways);
    int32_t best = -1;
    FAILS(NAS_ERR_DB,
          nas__tune_conv_best(ctx, &options, &memory, &c, ways, 1, few_ms, &best, NULL));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "the list is full"), NULL));
    cr_assert(eq(i32, best, -1));
    OK(nas__tune_conv_best(ctx, &options, NULL, &c, ways, 1, few_ms, &best, NULL));
    cr_assert(eq(i32, best, 0));
}

Test(compiler_tune, key_texts_name_all_that_the_time_depends_on) {
    nas__conv c[6];
    for (int i = 0; i < 6; i++)
        c[i] = same_conv(16, 16, 1, 8, 3);
    c[1].in_row += 16;
    c[2].act = NAS__LACT_CLIP;
    c[3].hi = 6;
    c[4].dilation_w = 2;
    add_residual(&c[5]);
    nas_buf texts[6] = {0}, device = {0};
    for (int i = 0; i < 6; i++) {
        nas__tune_kernel_text(&c[i], &texts[i]);
        for (int k = 0; k < i; k++)
            cr_assert(ne(str, texts[i].data, texts[k].data));
    }
    cr_assert(eq(ptr, strstr(texts[0].data, "conv f32 dense 3x3 16->16"), texts[0].data));
    OK(nas__tune_device_text(ctx, &options, &device));
    cr_assert(ne(ptr, strstr(device.data, options.target->name), NULL), "%s", device.data);
    cr_assert(ne(ptr, strstr(device.data, "-O2"), NULL), "%s", device.data);
    cr_assert(eq(ptr, strchr(device.data, '\n'), NULL), "%s", device.data);
    nas_buf_deinit(&device);
    for (int i = 0; i < 6; i++)
        nas_buf_deinit(&texts[i]);
}
