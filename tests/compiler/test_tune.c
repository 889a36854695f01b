/* test_tune.c - measured ways of a convolution: plausible numbers, what is remembered, what is refused. Which way is the
 * fastest is never asserted: that is the machine's business. */
#include "compiler/tune_internal.h"

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

/* The ways of a convolution of floats. */
static nas_status tune_convs(const nas__conv *c, const nas__conv_way *ways, int32_t n,
                             double seconds, nas_tune_timing out[]) {
    const nas__tune_subject s = {.conv = c, .ways = ways, .n = n};
    return nas__tune_measure(ctx, &options, &s, seconds, out, NULL);
}

static nas_status tune_best(const nas_tune_memory *memory, const nas__conv *c,
                            const nas__conv_way *ways, int32_t n, double seconds, int32_t *best,
                            double ns[]) {
    const nas__tune_subject s = {.conv = c, .ways = ways, .n = n};
    return nas__tune_best(ctx, &options, memory, &s, seconds, best, ns);
}

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
    OK(tune_convs(c, ways, n, few_ms * n, t));
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

/* ---- a memory --------------------------------------------------------------------------------------------------- */

/* A list in memory; keys are joined texts. */
typedef struct list_memory {
    struct {
        char key[1200];
        double ns;
    } rows[2 * NAS__CONV_WAYS_MAX];
    int n, finds, stores;
    bool broken;
} list_memory;

static void join(char out[1200], const nas_tune_key *k) {
    const int n = snprintf(out, 1200, "%s\n%s\n%s\n%d", k->kernel, k->way, k->device, k->threads);
    cr_assert(n > 0 && n < 1200);
}

static bool list_find(void *user, const nas_tune_key *k, double *ns) {
    list_memory *m = user;
    char key[1200];
    join(key, k);
    m->finds++;
    for (int i = 0; i < m->n; i++) {
        if (strcmp(m->rows[i].key, key) != 0) continue;
        *ns = m->rows[i].ns;
        return true;
    }
    return false;
}

static nas_status list_store(nas_ctx *c, void *user, const nas_tune_key *k,
                             const nas_tune_timing *timing) {
    list_memory *m = user;
    char key[1200];
    join(key, k);
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

/* ---- integers ----------------------------------------------------------------------------------------------------- */

static nas__qconv codes_of(nas__conv conv, int32_t weight_bits) {
    conv.act = NAS__LACT_NONE;
    return (nas__qconv){.conv = conv, .weight_bits = weight_bits};
}

/* All ways compute the same codes, or the program says so and the request fails. */
static void check_qconv(const nas__qconv *q) {
    nas__qconv_way ways[NAS__QCONV_WAYS_MAX];
    nas_tune_timing t[NAS__QCONV_WAYS_MAX] = {{0}};
    const int32_t n = nas__qconv_ways(options.target, q, ways);
    const nas__tune_subject s = {.qconv = q, .qways = ways, .n = n};
    OK(nas__tune_measure(ctx, &options, &s, few_ms * n, t, NULL));
    for (int32_t i = 0; i < n; i++)
        cr_assert(t[i].lo_ns > 0 && t[i].lo_ns <= t[i].p50_ns && t[i].p50_ns <= t[i].hi_ns);
}

Test(compiler_tune, every_way_of_an_integer_convolution_gets_a_time) {
    nas__conv c = same_conv(16, 24, 1, 14, 3);
    add_residual(&c);
    nas__qconv q = codes_of(c, 8);
    check_qconv(&q);
    q.joins = true;
    q.residual_signed = true;
    check_qconv(&q);
    q = codes_of(same_conv(19, 9, 1, 7, 1), 5);
    q.in_signed = q.out_signed = true;
    check_qconv(&q);
    q = codes_of(same_conv(12, 8, 1, 9, 3), 3);
    q.has_left = true;
    check_qconv(&q);
    q = codes_of(same_conv(24, 24, 24, 9, 3), 7);
    check_qconv(&q);
    c = same_conv(1, 10, 1, 40, 3);
    if (!nas__qconv_pixels_legal(options.target, &c)) return;
    q = codes_of(c, 8); /* staged, and the result in planes */
    q.prelu = q.half = true;
    q.out_plane = nas__q_plane_bytes(40, 3);
    q.conv.out_pitch = 4;
    q.conv.out_row = 3 * q.out_plane;
    check_qconv(&q);
}

Test(compiler_tune, several_threads_share_the_units) {
    options.tune_threads = 3;
    const nas__conv c = same_conv(16, 19, 1, 14, 3);
    check_conv(&c);
    const nas__qconv q = codes_of(c, 8);
    check_qconv(&q);
    nas__conv_way way;
    nas_tune_timing t = {0};
    nas__conv_way all[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, all);
    way = all[0];
    options.tune_threads = 65;
    FAILS(NAS_ERR_INVALID, tune_convs(&c, &way, 1, few_ms, &t));
}

/* A memory in which every way takes 2 ns, and the favourite 1. */
typedef struct favourite_memory {
    int calls, favourite, ways;
} favourite_memory;

static bool favourite_find(void *user, const nas_tune_key *k, double *ns) {
    favourite_memory *m = user;
    cr_assert(eq(i32, k->threads, 1));
    cr_assert(ne(ptr, strstr(k->kernel, "u8->u8 w8"), NULL), "%s", k->kernel);
    *ns = m->calls++ == m->favourite ? 1 : 2;
    m->ways = m->calls;
    return true;
}

static nas_status never_store(nas_ctx *c, void *user, const nas_tune_key *k,
                              const nas_tune_timing *t) {
    (void)user;
    (void)k;
    (void)t;
    return nas_fail(c, NAS_ERR_INTERNAL, "something was measured");
}

/* relu(conv 3x3 of x), codes all of it. */
static nas_graph *integer_graph(void) {
    nas_graph *g = nas_graph_new(ctx, "codes");
    const nas_conv_attributes a = nas_conv_same(20, 3);
    const nas_quant quant = {.is_set = true, .scale = 0.05F, .zero_point = 110};
    nas_value v = NAS_VALUE_NONE;
    float scales[20];
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, 13, 13, 12}, &v));
    OK(nas_graph_set_quant(ctx, g, v, quant));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &a, &v));
    OK(nas_graph_add_relu(ctx, g, "act", v, &v));
    OK(nas_graph_set_quant(ctx, g, v, quant));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(7, 0, "codes");
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        for (size_t i = 0; i < param->count; i++)
            param->data[i] = (float)(0.2 * (2 * nas_rng_uniform(&rng) - 1));
    }
    for (int i = 0; i < 20; i++)
        scales[i] = 0.2F / 127;
    OK(nas_graph_set_weight_scales(ctx, g, nas_graph_node(g, 1)->params[0], 8, scales));
    return g;
}

Test(compiler_tune, whichever_way_wins_the_codes_are_the_same) {
    enum { IN = 13 * 13 * 12, OUT = 13 * 13 * 20 };
    static float in[IN], out[OUT], first[OUT];
    nas_rng rng = nas_rng_stream(3, 0, "image");
    for (int i = 0; i < IN; i++)
        in[i] = (float)(8 * nas_rng_uniform(&rng) - 4);
    nas_graph *g = integer_graph();
    favourite_memory memory = {.ways = 1};
    const nas_tune_memory hooks = {&memory, favourite_find, never_store};
    char paths[16][512];
    int different = 0;
    options.memory = &hooks;
    options.tune_s = 1;
    for (int i = 0; i < memory.ways && i < 16; i++) {
        nas_artifact a;
        memory.favourite = i;
        memory.calls = 0;
        OK(nas_compile(ctx, g, &options, &a));
        OK(nas_artifact_run(ctx, &a, g, 1, in, i == 0 ? first : out, 1, dir));
        cr_assert(i == 0 || memcmp(first, out, sizeof out) == 0, "way %d differs", i);
        (void)snprintf(paths[i], sizeof paths[i], "%s", a.path);
        bool seen = false;
        for (int k = 0; k < i; k++)
            seen = seen || strcmp(paths[k], paths[i]) == 0;
        different += !seen;
    }
    cr_assert(memory.ways >= 2 && different == memory.ways, "%d programs of %d ways", different,
              memory.ways);
    cr_assert(eq(int, count_files(dir, ".tune"), 0)); /* nothing was measured */
    nas_graph_free(g);
}

/* The mask as instructions is the fastest of all, if it is among them. */
static bool code_find(void *user, const nas_tune_key *k, double *ns) {
    const bool code = strstr(k->way, "sparse_code") != NULL;
    *(bool *)user = *(bool *)user || code;
    *ns = code ? 1 : 2;
    return true;
}

/* 1x1 of 32 channels, four of five weights zero. */
static nas_graph *sparse_graph(void) {
    enum { CHANNELS = 32, SIZE = 14 };
    nas_graph *g = nas_graph_new(ctx, "mask");
    const nas_conv_attributes a = nas_conv_same(CHANNELS, 1);
    nas_value v = NAS_VALUE_NONE;
    OK(nas_graph_add_input(ctx, g, "in", (nas_shape){1, SIZE, SIZE, CHANNELS}, &v));
    OK(nas_graph_add_conv(ctx, g, "conv", v, &a, &v));
    OK(nas_graph_set_output(ctx, g, v));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_rng rng = nas_rng_stream(9, 0, "mask");
    nas_param *weight = nas_graph_param(g, nas_graph_node(g, 1)->params[0]);
    for (size_t i = 0; i < weight->count; i++)
        weight->data[i] = nas_rng_uniform(&rng) < 0.8 ? 0 : (float)(2 * nas_rng_uniform(&rng) - 1);
    return g;
}

Test(compiler_tune, machine_code_goes_past_the_compiler_and_as_numbers_into_a_bundle) {
    enum { N = 14 * 14 * 32 };
    static float in[N], out[N], first[N];
    bool offered = false;
    const nas_tune_memory hooks = {&offered, code_find, never_store};
    nas_graph *g = sparse_graph();
    nas_artifact a;
    nas_rng rng = nas_rng_stream(3, 0, "image");
    for (int i = 0; i < N; i++)
        in[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
    options.form = NAS_FORM_LAYERS;
    OK(nas_compile(ctx, g, &options, &a));
    OK(nas_artifact_run(ctx, &a, g, 1, in, first, 1, dir));
    options.memory = &hooks;
    options.tune_s = 1;
    nas__form form = {0};
    nas__sources sources = {0};
    nas_buf text = {0};
    OK(nas__form_lower(ctx, g, &options, &form));
    OK(nas__form_emit(ctx, &form, &sources));
    nas__sources_text(&sources, &text);
    const bool x86 = strcmp(options.target->arch, "x86-64") == 0;
    const char *number = x86 ? ".quad 0x" : ".inst 0x";
    for (size_t i = 0; i < sources.n_units && offered; i++) {
        const nas__unit *unit = &sources.units[i];
        const bool is_code = strstr(unit->name, "sparse_code") != NULL;
        cr_assert(is_code == (unit->code.bytes.len > 0));
        cr_assert(eq(ptr, strstr(unit->text.data, number), NULL));
    }
    cr_assert(offered == (strstr(text.data, number) != NULL));
    nas_buf_deinit(&text);
    nas__sources_deinit(&sources);
    nas__form_free(&form);
    OK(nas_compile(ctx, g, &options, &a)); /* the assembler finds the file */
    OK(nas_artifact_run(ctx, &a, g, 1, in, out, 1, dir));
    for (int i = 0; i < N; i++)
        cr_assert(fabs((double)out[i] - (double)first[i]) < 1e-4, "%d: %g, %g", i, (double)out[i],
                  (double)first[i]);
    nas_graph_free(g);
    if (!offered) cr_skip_test("no machine code for masks on this processor");
}

Test(compiler_tune, kinds_of_integer_ways_compete_whatever_the_estimates) {
    nas_graph *g = integer_graph();
    static list_memory list;
    const nas_tune_memory hooks = {&list, list_find, list_store};
    options.memory = &hooks;
    options.tune_s = 0.05;
    nas_buf text = {0};
    OK(nas_compile_explain(ctx, g, &options, &text));
    cr_assert(list.stores >= 2);
    cr_assert(ne(ptr, strstr(text.data, "kcycles estimated; measured "), NULL), "%s", text.data);
    const int stores = list.stores;
    nas_buf again = {0};
    OK(nas_compile_explain(ctx, g, &options, &again));
    cr_assert(eq(int, list.stores, stores)); /* all of it was remembered */
    cr_assert(eq(str, again.data, text.data));
    nas_buf_deinit(&text);
    nas_buf_deinit(&again);
    nas_graph_free(g);
}

/* ---- devices ------------------------------------------------------------------------------------------------------ */

/* A device that is this machine, as an agent would start programs. */
static nas_status run_there(nas_ctx *c, void *user, const char *path, const char *sha256,
                            double seconds, int32_t threads, nas_buf *timings) {
    int *runs = user;
    char ms[32], n[16], sum[NAS_SHA256_HEX];
    ++*runs;
    OK(nas_sha256_file_hex(c, path, sum));
    cr_assert(eq(str, sum, (char *)(uintptr_t)sha256));
    (void)snprintf(ms, sizeof ms, "%d", (int)(seconds * 1000) + 1);
    (void)snprintf(n, sizeof n, "%d", threads);
    const char *const argv[] = {path, "--bench",       "--threads", n,   "--cpus",
                                "0",  "--max-time-ms", ms,          NULL};
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = argv;
    OK(nas_process_run(c, &o, &r));
    cr_assert(eq(int, r.exit_code, 0));
    static const char head[] = "{\"timings\": \"";
    cr_assert(eq(int, strncmp(r.out.data, head, sizeof head - 1), 0), "%s", r.out.data);
    for (const char *p = r.out.data + sizeof head - 1; *p != '"'; p++) {
        if (p[0] == '\\' && p[1] == 'n') {
            nas_buf_puts(timings, "\n");
            p++;
        } else {
            nas_buf_append(timings, p, 1);
        }
    }
    nas_process_result_deinit(&r);
    return NAS_OK;
}

Test(compiler_tune, a_device_gets_one_static_program_and_a_name_in_the_memory) {
    static list_memory list;
    const nas_tune_memory memory = {&list, list_find, list_store};
    int runs = 0;
    const nas_tune_device device = {&runs, "phone 7", 64 * 1024 * 1024, run_there};
    options.tune_device = &device;
    options.tune_threads = 2;
    const nas__conv c = same_conv(8, 16, 1, 8, 3);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways) < 4 ? 2 : 4;
    int32_t best = -1;
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, runs, 1));
    cr_assert(eq(int, list.stores, n));
    cr_assert(ne(ptr, strstr(list.rows[0].key, "\nphone 7 | "), NULL), "%s", list.rows[0].key);
    cr_assert(eq(str, list.rows[0].key + strlen(list.rows[0].key) - 2, "\n2"));
    options.tune_device = NULL; /* this machine is another one */
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, list.stores, 2 * n));
}

Test(compiler_tune, what_a_device_can_be_sent_bounds_the_ways) {
    int runs = 0;
    nas_tune_device device = {&runs, "small", 0, run_there};
    const nas__conv c = same_conv(64, 64, 1, 8, 3);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways);
    const nas__tune_subject s = {.conv = &c, .ways = ways, .n = n};
    cr_assert(eq(i32, nas__tune_fit(&options, &s), n));
    options.tune_device = &device;
    cr_assert(eq(i32, nas__tune_fit(&options, &s), 0));
    device.program_bytes_max =
        2 * 1024 * 1024 + nas__tune_weight_bytes(options.target, &s, 0) + 1000;
    cr_assert(eq(i32, nas__tune_fit(&options, &s), 1));
    device.program_bytes_max = 64 * 1024 * 1024;
    cr_assert(eq(i32, nas__tune_fit(&options, &s), n));
}

Test(compiler_tune, a_way_may_come_twice) {
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, ways);
    ways[1] = ways[0];
    nas_tune_timing t[2] = {0};
    OK(tune_convs(&c, ways, 2, few_ms, t));
    cr_assert(t[0].p50_ns > 0 && t[1].p50_ns > 0);
}

Test(compiler_tune, what_cannot_be_measured_is_refused) {
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways);
    nas_tune_timing t[NAS__CONV_WAYS_MAX] = {{.p50_ns = -1}};
    FAILS(NAS_ERR_INVALID, tune_convs(&c, ways, 0, few_ms, t));
    FAILS(NAS_ERR_INVALID, tune_convs(&c, ways, NAS__CONV_WAYS_MAX + 1, few_ms, t));
    FAILS(NAS_ERR_INVALID, tune_convs(&c, ways, n, 0, t));
    FAILS(NAS_ERR_INVALID, tune_convs(&c, ways, n, (double)NAN, t));
    OK(nas_target_find(ctx, "aarch64-android", &options.target));
    FAILS(NAS_ERR_UNSUPPORTED, tune_convs(&c, ways, n, few_ms, t));
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
    FAILS(NAS_ERR_TOOLCHAIN, tune_convs(&c, ways, 1, few_ms, t));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "this cannot work"), NULL));
    cr_assert(eq(int, count_files(dir, ""), 1)); /* the script */
}

/* ---- memory ------------------------------------------------------------------------------------------------------- */

Test(compiler_tune, what_was_measured_is_remembered_and_decides_without_running) {
    static list_memory list;
    const nas_tune_memory memory = {&list, list_find, list_store};
    nas__conv c = same_conv(8, 16, 1, 8, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(options.target, &c, ways);
    cr_assert(n >= 2);
    int32_t best = -1;
    double ns[NAS__CONV_WAYS_MAX];
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, ns));
    cr_assert(best >= 0 && best < n);
    for (int32_t i = 0; i < n; i++)
        cr_assert(ns[i] >= ns[best]);
    cr_assert(eq(int, list.n, n)); /* no two ways share a key */
    const int files = count_files(dir, "");
    list.rows[n - 1].ns = ns[best] / 4; /* what the memory says counts */
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(i32, best, n - 1));
    cr_assert(eq(int, list.stores, n));
    cr_assert(eq(int, count_files(dir, ""), files));
    list.n--; /* one is missing: all are measured again */
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, list.stores, 2 * n));
    cr_assert(eq(int, list.n, n));
    c.act = NAS__LACT_NONE; /* another kernel */
    OK(tune_best(&memory, &c, ways, n, few_ms * n, &best, NULL));
    cr_assert(eq(int, list.n, 2 * n));
}

Test(compiler_tune, a_memory_that_fails_ends_the_tuning_and_none_is_fine) {
    static list_memory list = {.broken = true};
    const nas_tune_memory memory = {&list, list_find, list_store};
    const nas__conv c = same_conv(8, 8, 1, 6, 1);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    (void)nas__conv_ways(options.target, &c, ways);
    int32_t best = -1;
    FAILS(NAS_ERR_DB, tune_best(&memory, &c, ways, 1, few_ms, &best, NULL));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "the list is full"), NULL));
    cr_assert(eq(i32, best, -1));
    OK(tune_best(NULL, &c, ways, 1, few_ms, &best, NULL));
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
