/* test_targets.c - targets and processors by name; programs where a feature is missing; cross-compiled programs under
 * qemu-user against the reference. What is not installed is skipped with its reason. */
#include "compiler/compiler.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-targets-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    options.form = NAS_FORM_ROWS;
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_targets, .init = setup, .fini = teardown, .timeout = 300);

static const nas_target *find(const char *name) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(ctx, name, &target), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return target;
}

static void expect_message(const char *text) {
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), text), NULL), "'%s' lacks '%s'",
              nas_ctx_message(ctx), text);
}

Test(compiler_targets, native_runs_here_and_other_architectures_do_not) {
    cr_assert(find("native")->runs_here);
    static const char *const names[] = {"aarch64-linux", "aarch64-dotprod", "aarch64-i8mm",
                                        "armv7-linux",   "riscv64-linux",   "aarch64-android"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const nas_target *t = find(names[i]);
        cr_assert(eq(int, strcmp(t->name, names[i]), 0));
        if (strcmp(t->arch, find("native")->arch) != 0 || i == 5) cr_assert(not(t->runs_here));
    }
}

Test(compiler_targets, a_processor_sets_flags_and_caches_and_keeps_the_vectors) {
    nas_target t;
    cr_assert(
        eq(int, (int)nas_target_find_cpu(ctx, find("aarch64-dotprod"), "cortex-a76", &t), NAS_OK));
    cr_assert(eq(str, (char *)t.flags, "-mcpu=cortex-a76 -fno-schedule-insns"));
    cr_assert(eq(str, (char *)t.name, "aarch64-dotprod"));
    cr_assert(t.l1_bytes == 64 * 1024 && t.l2_bytes == 512 * 1024 && t.vector_bytes == 16);
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, find("x86-64-avx2"), "znver3", &t), NAS_OK));
    cr_assert(eq(str, (char *)t.flags, "-march=znver3"));
}

/* Rows with vectors of 64 bytes assume Zen 4; a processor by name, and this one, are what they are. */
Test(compiler_targets, vectors_of_64_bytes_are_those_of_the_processor) {
    cr_assert(find("x86-64-avx512")->splits_vectors && find("x86-64-avx512vnni")->splits_vectors);
    cr_assert(not(find("x86-64-avx2")->splits_vectors || find("x86-64-amx")->splits_vectors));
    nas_target t;
    cr_assert(eq(int,
                 (int)nas_target_find_cpu(ctx, find("x86-64-avx512vnni"), "sapphirerapids", &t),
                 NAS_OK));
    cr_assert(t.l1_bytes == 48 * 1024 && t.l2_bytes == 2048 * 1024 && !t.splits_vectors);
    const nas_target *here = find("native"), *row = find(here->name);
    if (here->vector_bytes != 64) {
        cr_assert(here->l1_bytes == row->l1_bytes && here->l2_bytes == row->l2_bytes);
        return;
    }
#if defined(_SC_LEVEL2_CACHE_SIZE)
    const long l2 = sysconf(_SC_LEVEL2_CACHE_SIZE);
    cr_assert(here->l2_bytes == (l2 >= 256 * 1024 ? l2 : row->l2_bytes));
#endif
}

Test(compiler_targets, a_row_takes_what_a_processor_tells_of_itself) {
    enum { KIB = 1024 };
    static const struct {
        const char *row;
        nas_target_cpu cpu;
        bool splits;
        int32_t l1, l2;
    } cases[] = {
        {"x86-64-avx512vnni", {"GenuineIntel", 6, 48 * KIB, 2048 * KIB}, false, 48, 2048},
        {"x86-64-avx512vnni", {"AuthenticAMD", 0x19, 32 * KIB, 1024 * KIB}, true, 32, 1024},
        {"x86-64-avx512vnni", {"AuthenticAMD", 0x1a, 48 * KIB, 1024 * KIB}, false, 48, 1024},
        {"x86-64-avx512vnni", {"", 0, 0, 0}, true, 32, 1024}, /* told nothing: the table's */
        {"x86-64-avx512vnni", {"GenuineIntel", 6, 1, INT64_MAX}, false, 32, 1024}, /* no caches */
        {"x86-64-avx2", {"AuthenticAMD", 0x19, 48 * KIB, 512 * KIB}, false, 32, 1024}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nas_target t = *find(cases[i].row);
        nas_target_adapt(&t, &cases[i].cpu);
        cr_expect(eq(int, t.splits_vectors, cases[i].splits), "case %zu", i);
        cr_expect(eq(int, t.l1_bytes, cases[i].l1 *KIB), "case %zu", i);
        cr_expect(eq(int, t.l2_bytes, cases[i].l2 *KIB), "case %zu", i);
    }
}

Test(compiler_targets, processors_with_matrix_products_keep_them) {
    static const char *const names[] = {"neoverse-v1", "neoverse-n2", "cortex-a510", "cortex-a710",
                                        "cortex-x2"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        nas_target t;
        cr_assert(
            eq(int, (int)nas_target_find_cpu(ctx, find("aarch64-i8mm"), names[i], &t), NAS_OK),
            "%s", nas_ctx_message(ctx));
        cr_assert(ne(ptr, strstr(t.needs, "i8mm"), NULL));
    }
}

Test(compiler_targets, processors_that_do_not_fit_are_refused_with_the_reason) {
    nas_target t;
    const nas_target *i8mm = find("aarch64-i8mm");
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, i8mm, "cortex-a9000", &t), NAS_ERR_NOTFOUND));
    expect_message("cortex-a53, cortex-a55");
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, i8mm, "znver3", &t), NAS_ERR_NOTFOUND));
    cr_assert(eq(int, (int)nas_target_find_cpu(ctx, i8mm, "cortex-a53", &t), NAS_ERR_UNSUPPORTED));
    expect_message("cpu cortex-a53");
    cr_assert(
        eq(int, (int)nas_target_find_cpu(ctx, find("riscv64-linux"), "x", &t), NAS_ERR_NOTFOUND));
    expect_message("none");
}

Test(compiler_targets, missing_tool_chains_say_what_to_install) {
    nas_graph *g = reference_conv(ctx, 3, 5, 1, 2, 3, 3, false);
    reference_fill(ctx, g, 1);
    nas_artifact a;
    cr_assert(eq(int, unsetenv("ANDROID_NDK_HOME"), 0));
    options.target = find("aarch64-android");
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    expect_message("set ANDROID_NDK_HOME");
    cr_assert(eq(int, setenv("ANDROID_NDK_HOME", dir, 1), 0)); /* no tool chain in there */
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    expect_message("ANDROID_NDK_HOME");
    expect_message(dir);
    options.target = find("armv7-linux");
    options.compiler = "/nowhere/arm-linux-gnueabihf-gcc";
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    expect_message("gcc-arm-linux-gnueabihf libc6-dev-armhf-cross");
    nas_graph_free(g);
}

/* A path that begins with a variable: the compiler below $ANDROID_NDK_HOME is the one that is asked. */
Test(compiler_targets, the_android_compiler_comes_from_the_ndk_folder) {
    static const char script[] = "#!/bin/sh\n[ \"$1\" = --version ] && { echo ndk 27; exit; "
                                 "}\necho from the ndk >&2\nexit 1\n";
    char folder[256], path[512];
    (void)snprintf(folder, sizeof folder, "%s/toolchains/llvm/prebuilt/linux-x86_64/bin", dir);
    (void)snprintf(path, sizeof path, "%s/aarch64-linux-android21-clang", folder);
    cr_assert(eq(int, (int)nas_mkdirs(ctx, folder), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, script, sizeof script - 1, 0755), NAS_OK));
    cr_assert(eq(int, setenv("ANDROID_NDK_HOME", dir, 1), 0));
    nas_graph *g = reference_conv(ctx, 3, 5, 1, 2, 3, 3, false);
    reference_fill(ctx, g, 1);
    nas_artifact a;
    options.target = find("aarch64-android");
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    expect_message("from the ndk");
    nas_graph_free(g);
}

/* The reason goes to stderr too: Criterion prints those of skipped tests only when asked to be verbose. */
static void skip(const char *reason) {
    (void)fprintf(stderr, "skipped: %s\n", reason);
    cr_skip_test("%s", reason);
}

/* Runs argv to its end; the exit status. stderr goes to `err`. */
static int run(const char *const *argv, nas_buf *err) {
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.timeout_ms = 120 * 1000;
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, r.signal, 0), "%s died of signal %d", argv[0], r.signal);
    nas_buf_puts(err, r.err.data != NULL ? r.err.data : "");
    const int code = r.exit_code;
    nas_process_result_deinit(&r);
    return code;
}

Test(compiler_targets, a_program_for_absent_features_names_one_and_exits_with_2) {
    static const struct {
        const char *target, *feature;
    } rows[] = {{"x86-64-avx512", "avx512f"}, {"x86-64-amx", "avx512f"}};
    if (strcmp(find("native")->arch, "x86-64") != 0) skip("no x86-64 processor");
    if (find("x86-64-avx512")->runs_here) skip("this processor has AVX-512");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_graph *g = reference_conv(ctx, 9, 40, 4, 8, 3, 3, true);
        reference_fill(ctx, g, 1);
        options.target = find(rows[i].target);
        cr_assert(not(options.target->runs_here));
        nas_artifact a;
        cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        nas_buf err = {0};
        cr_assert(eq(int, run((const char *const[]){a.path, "--info", NULL}, &err), 2));
        cr_assert(ne(ptr, strstr(err.data, rows[i].feature), NULL), "%s", err.data);
        nas_buf_deinit(&err);
        float in[9 * 40 * 4] = {0}, out[9 * 40 * 8];
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &a, g, 1, in, out, 1, dir), NAS_ERR_DEVICE));
        expect_message(rows[i].feature);
        nas_graph_free(g);
    }
}

/* ---- under qemu-user ------------------------------------------------------------------------------------------------ */

/* See test_compile.c; 32-bit Arm flushes denormals, which lies far below. */
static const double tolerance = 3e-5;

static bool installed(const char *program) {
    const char *const argv[] = {program, "--version", NULL};
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    nas_process_result r = {0};
    const nas_status status = nas_process_run(ctx, &o, &r);
    const bool found = status == NAS_OK && r.exit_code == 0;
    if (status == NAS_OK) nas_process_result_deinit(&r);
    nas_ctx_clear(ctx);
    return found;
}

static void need(const char *program, const char *package) {
    if (installed(program)) return;
    char reason[256];
    (void)snprintf(reason, sizeof reason, "%s is not installed (Debian: apt-get install %s)",
                   program, package);
    skip(reason);
}

/* A compiled network with an image and the reference's answer to it, as files in `dir`. */
typedef struct emulated {
    nas_graph *g;
    nas_artifact a;
    char in[128], out[128];
    size_t n_out;
    double *expected, magnitude;
} emulated;

static emulated emulated_new(nas_graph *g, uint64_t seed) {
    emulated e = {.g = g};
    reference_fill(ctx, g, seed);
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &e.a), NAS_OK), "%s",
              nas_ctx_message(ctx));
    const size_t n_in = reference_count(g, nas_graph_input(g));
    e.n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(ctx, n_in, seed);
    e.expected = nas_alloc_array(ctx, e.n_out, sizeof *e.expected);
    reference_forward(ctx, g, in, e.expected, &e.magnitude);
    (void)snprintf(e.in, sizeof e.in, "%s/in.raw", dir);
    (void)snprintf(e.out, sizeof e.out, "%s/out.raw", dir);
    cr_assert(eq(int, (int)nas_file_write(ctx, e.in, in, n_in * sizeof *in, 0600), NAS_OK));
    nas_free(in);
    return e;
}

static void emulated_free(emulated *e) {
    nas_free(e->expected);
    nas_graph_free(e->g);
}

static int emulated_run(const emulated *e, const char *qemu, const char *cpu, const char *threads,
                        nas_buf *err) {
    return run((const char *const[]){qemu, "-cpu", cpu, e->a.path, "--run", e->in, e->out,
                                     "--threads", threads, NULL},
               err);
}

static void emulated_check(const emulated *e, const char *qemu, const char *cpu) {
    static const char *const threads[] = {"1", "2"};
    for (int i = 0; i < 2; i++) {
        nas_buf err = {0}, bytes = {0};
        cr_assert(eq(int, emulated_run(e, qemu, cpu, threads[i], &err), 0), "%s: %s", cpu,
                  err.data);
        cr_assert(
            eq(int, (int)nas_file_read(ctx, e->out, e->n_out * sizeof(float), &bytes), NAS_OK));
        cr_assert(eq(sz, bytes.len, e->n_out * sizeof(float)));
        double worst = 0;
        for (size_t k = 0; k < e->n_out; k++) {
            float y = 0;
            memcpy(&y, bytes.data + k * sizeof y, sizeof y);
            worst = fmax(worst, fabs((double)y - e->expected[k]));
        }
        cr_assert(worst <= tolerance * e->magnitude, "%s, %s threads: off by %g of %g", cpu,
                  threads[i], worst, e->magnitude);
        nas_buf_deinit(&bytes);
        nas_buf_deinit(&err);
    }
}

/* Both networks, also with Winograd kernels, on every processor of the NULL-terminated list. */
static void check_emulated(const char *target, const char *qemu, const char *const *models) {
    options.target = find(target);
    const sr_shape shape = {6, 37, 2, 1, 8, 16, 4, 3, 3, 5};
    for (uint64_t i = 0; i < 4; i++) {
        options.row_kernels = i < 2 ? NAS_ROW_KERNELS_AUTO : NAS_ROW_KERNELS_WINOGRAD;
        nas_graph *g = i % 2 == 0 ? reference_sr(ctx, &shape) : reference_chain(ctx, 7, 29);
        emulated e = emulated_new(g, 20 + i);
        for (const char *const *model = models; *model != NULL; model++)
            emulated_check(&e, qemu, *model);
        emulated_free(&e);
    }
}

Test(compiler_targets, aarch64_programs_match_the_reference_on_small_and_big_cores) {
    need(find("aarch64-linux")->compiler, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross");
    need("qemu-aarch64", "qemu-user");
    check_emulated("aarch64-linux", "qemu-aarch64",
                   (const char *const[]){"cortex-a53", "cortex-a76", "max", NULL});
}

Test(compiler_targets, aarch64_extensions_match_where_they_are_and_are_named_where_not) {
    need(find("aarch64-linux")->compiler, "gcc-aarch64-linux-gnu libc6-dev-arm64-cross");
    need("qemu-aarch64", "qemu-user");
    check_emulated("aarch64-dotprod", "qemu-aarch64",
                   (const char *const[]){"cortex-a76", "max", NULL});
    check_emulated("aarch64-i8mm", "qemu-aarch64", (const char *const[]){"max", NULL});
    emulated e = emulated_new(reference_conv(ctx, 4, 9, 2, 3, 3, 3, false), 3);
    nas_buf err = {0};
    cr_assert(eq(int, emulated_run(&e, "qemu-aarch64", "cortex-a76", "1", &err), 2));
    cr_assert(ne(ptr, strstr(err.data, "i8mm"), NULL), "%s", err.data);
    nas_buf_deinit(&err);
    emulated_free(&e);
}

Test(compiler_targets, armv7_programs_match_the_reference) {
    need(find("armv7-linux")->compiler, "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross");
    need("qemu-arm", "qemu-user");
    check_emulated("armv7-linux", "qemu-arm",
                   (const char *const[]){"cortex-a7", "cortex-a15", "max", NULL});
}

Test(compiler_targets, an_armv7_program_names_the_vectors_a_core_lacks) {
    need(find("armv7-linux")->compiler, "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross");
    need("qemu-arm", "qemu-user");
    options.target = find("armv7-linux");
    emulated e = emulated_new(reference_conv(ctx, 4, 9, 2, 3, 3, 3, false), 3);
    nas_buf err = {0};
    cr_assert(eq(int, emulated_run(&e, "qemu-arm", "cortex-a9", "1", &err), 2));
    cr_assert(ne(ptr, strstr(err.data, "vfpv4"), NULL), "%s", err.data);
    nas_buf_deinit(&err);
    emulated_free(&e);
}

Test(compiler_targets, riscv64_programs_match_the_reference) {
    need(find("riscv64-linux")->compiler, "gcc-riscv64-linux-gnu libc6-dev-riscv64-cross");
    need("qemu-riscv64", "qemu-user");
    check_emulated("riscv64-linux", "qemu-riscv64", (const char *const[]){"rv64", NULL});
}
