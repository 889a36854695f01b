/* test_toolchain.c - the cache of executables, missing and failing compilers, bundles built by their own README. */
#include "compiler/compiler.h"
#include "reference.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static nas_ctx *ctx;
static char dir[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(dir, sizeof dir, "/tmp/nas-toolchain-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    options = nas_compile_options_default();
    options.cache_dir = dir;
    options.form = NAS_FORM_ROWS;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_toolchain, .init = setup, .fini = teardown, .timeout = 120);

static nas_graph *small_net(uint64_t seed) {
    nas_graph *g = reference_conv(ctx, 5, 9, 2, 3, 3, 3, true);
    reference_fill(ctx, g, seed);
    return g;
}

/* Files below `path` whose name ends in `suffix`; folders of failed builds count as "work-". */
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

Test(compiler_toolchain, equal_networks_compile_once_and_other_weights_reuse_the_object) {
    nas_graph *g = small_net(1);
    nas_artifact first, again, other;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &first), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(not(first.from_cache));
    cr_assert(first.compile_s > 0 && first.arena_bytes > 0 && first.size_bytes > 1000);
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &again), NAS_OK));
    cr_assert(again.from_cache && again.compile_s == 0);
    cr_assert(eq(str, first.path, again.path));
    cr_assert(eq(str, first.sha256, again.sha256));
    const int objects = count_files(dir, ".o");
    reference_fill(ctx, g, 2);
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &other), NAS_OK));
    cr_assert(not(other.from_cache));
    cr_assert(ne(str, first.path, other.path));
    cr_assert(eq(int, count_files(dir, ".model"), 2));
    cr_assert(eq(int, count_files(dir, ".o"), objects));
    struct stat info;
    cr_assert(eq(int, stat(first.path, &info), 0));
    cr_assert(eq(int, (int)(info.st_mode & 07777), 0555));
    nas_graph_free(g);
}

Test(compiler_toolchain, networks_of_equal_layers_share_all_objects_but_the_driver) {
    const sr_shape shapes[] = {{5, 320, 2, 2, 8, 16, 4, 3, 3, 5},
                               {9, 320, 2, 1, 8, 16, 4, 3, 3, 5}};
    int objects[2];
    for (size_t i = 0; i < 2; i++) {
        nas_graph *g = reference_sr(ctx, &shapes[i]);
        reference_fill(ctx, g, i);
        nas_artifact a;
        cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        cr_assert(not(a.from_cache));
        objects[i] = count_files(dir, ".o");
        nas_graph_free(g);
    }
    cr_assert(objects[0] > 5, "%d objects", objects[0]);
    cr_assert(eq(int, objects[1], objects[0] + 1));
    cr_assert(eq(int, count_files(dir, "model.c"), 0)); /* no work folder is left */
}

Test(compiler_toolchain, a_damaged_executable_is_built_again) {
    nas_graph *g = small_net(1);
    nas_artifact first, again;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &first), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_file_write(ctx, first.path, "torn", 4, 0555), NAS_OK));
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &again), NAS_OK));
    cr_assert(not(again.from_cache));
    cr_assert(eq(str, first.sha256, again.sha256));
    nas_graph_free(g);
}

static nas_status compile_same(nas_ctx *child, void *arg, size_t index, int worker) {
    (void)worker;
    nas_artifact *artifacts = arg;
    nas_graph *g = nas_graph_new(child, "same");
    if (g == NULL) return NAS_ERR_NOMEM;
    nas_value x = 0;
    const nas_conv_attributes c = nas_conv_same(2, 3);
    nas_status status = nas_graph_add_input(child, g, "in", (nas_shape){1, 4, 4, 1}, &x);
    if (status == NAS_OK) status = nas_graph_add_conv(child, g, "conv", x, &c, &x);
    if (status == NAS_OK) status = nas_graph_set_output(child, g, x);
    if (status == NAS_OK) status = nas_graph_alloc_weights(child, g);
    if (status == NAS_OK) status = nas_compile(child, g, &options, &artifacts[index]);
    nas_graph_free(g);
    return status;
}

Test(compiler_toolchain, threads_share_one_cache) {
    nas_artifact artifacts[3];
    cr_assert(eq(int, (int)nas_parallel(ctx, 3, 3, compile_same, artifacts), NAS_OK), "%s",
              nas_ctx_message(ctx));
    for (int i = 1; i < 3; i++)
        cr_assert(eq(str, artifacts[0].path, artifacts[i].path));
    char sha[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_sha256_file_hex(ctx, artifacts[0].path, sha), NAS_OK));
    cr_assert(eq(str, sha, artifacts[2].sha256));
    cr_assert(eq(int, count_files(dir, ".model"), 1));
}

Test(compiler_toolchain, missing_and_failing_compilers_are_named) {
    nas_graph *g = small_net(1);
    nas_artifact a;
    options.compiler = "no-such-gcc";
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "apt-get install gcc-no-such"), NULL), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_toolchain_check(ctx, &options), NAS_ERR_TOOLCHAIN));
    options.compiler = "false";
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    char fake[128];
    (void)snprintf(fake, sizeof fake, "%s/fake-cc", dir);
    static const char script[] = "#!/bin/sh\n[ \"$1\" = --version ] && { echo fake 1; exit; "
                                 "}\necho broken on purpose >&2\nexit 3\n";
    cr_assert(eq(int, (int)nas_file_write(ctx, fake, script, sizeof script - 1, 0755), NAS_OK));
    options.compiler = fake;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TOOLCHAIN));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "broken on purpose"), NULL), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, count_files(dir, ".model"), 0));
    static const char full[] = "#!/bin/sh\n[ \"$1\" = --version ] && { echo full 1; exit; }\necho "
                               "x.o: No space left on device >&2\nexit 1\n";
    cr_assert(eq(int, (int)nas_file_write(ctx, fake, full, sizeof full - 1, 0755), NAS_OK));
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_IO));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "disk full"), NULL), "%s", nas_ctx_message(ctx));
    static const char slow[] =
        "#!/bin/sh\n[ \"$1\" = --version ] && { echo slow 1; exit; }\nsleep 60\n";
    cr_assert(eq(int, (int)nas_file_write(ctx, fake, slow, sizeof slow - 1, 0755), NAS_OK));
    options.timeout_ms = 200;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_TIMEOUT));
    nas_graph_free(g);
}

Test(compiler_toolchain, a_cache_folder_that_cannot_be_made_is_an_io_error) {
    nas_graph *g = small_net(1);
    nas_artifact a;
    char file[128], below[160];
    (void)snprintf(file, sizeof file, "%s/file", dir);
    (void)snprintf(below, sizeof below, "%s/cache", file);
    cr_assert(eq(int, (int)nas_file_write(ctx, file, "x", 1, 0644), NAS_OK));
    options.cache_dir = below;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_ERR_IO));
    nas_graph_free(g);
}

Test(compiler_toolchain, the_installed_compiler_passes_the_check) {
    cr_assert(eq(int, (int)nas_toolchain_check(ctx, &options), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, count_files(dir, "probe"), 0));
}

/* The indented line after "Build the example:". */
static void build_line(const char *readme, char *out, size_t size) {
    const char *line = strstr(readme, "Build the example:");
    cr_assert(ne(ptr, (void *)(size_t)line, NULL));
    line = strstr(line, "    ") + 4;
    (void)snprintf(out, size, "%.*s", (int)strcspn(line, "\n"), line);
}

static void run_in(const char *cwd, const char *const *argv) {
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.cwd = cwd;
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK), "%s", nas_ctx_message(ctx));
    cr_assert(eq(int, r.exit_code, 0), "%s: %s", argv[0], r.err.data != NULL ? r.err.data : "");
    nas_process_result_deinit(&r);
}

/* The bundle of g, built by its README, gives what the program gives. */
static void check_bundle(const nas_graph *g) {
    char bundle[128], path[256], line[512];
    (void)snprintf(bundle, sizeof bundle, "%s/a/bundle", dir);
    cr_assert(eq(int, (int)nas_emit_bundle(ctx, g, &options, bundle, NULL), NAS_OK), "%s",
              nas_ctx_message(ctx));
    nas_buf readme = {0};
    (void)snprintf(path, sizeof path, "%s/README.txt", bundle);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 65536, &readme), NAS_OK));
    build_line(readme.data, line, sizeof line);
    nas_buf_deinit(&readme);
    (void)strncat(line, " -Wall -Wextra -Werror", sizeof line - strlen(line) - 1);
    run_in(bundle, (const char *const[]){"sh", "-c", line, NULL});
    const size_t n_in = reference_count(g, nas_graph_input(g)),
                 n_out = reference_count(g, nas_graph_output(g));
    float *in = reference_image(ctx, n_in, 6), *out = nas_alloc_array(ctx, n_out, sizeof *out);
    (void)snprintf(path, sizeof path, "%s/in.raw", bundle);
    cr_assert(eq(int, (int)nas_file_write(ctx, path, in, n_in * sizeof *in, 0644), NAS_OK));
    run_in(bundle, (const char *const[]){"./example", "in.raw", "out.raw", NULL});
    nas_artifact a;
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &a), NAS_OK));
    cr_assert(eq(int, (int)nas_artifact_run(ctx, &a, g, 1, in, out, 1, dir), NAS_OK), "%s",
              nas_ctx_message(ctx));
    nas_buf bytes = {0};
    (void)snprintf(path, sizeof path, "%s/out.raw", bundle);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, n_out * sizeof *out, &bytes), NAS_OK));
    cr_assert(eq(sz, bytes.len, n_out * sizeof *out));
    cr_assert(eq(int, memcmp(bytes.data, out, bytes.len), 0));
    nas_buf_deinit(&bytes);
    nas_free(in);
    nas_free(out);
}

Test(compiler_toolchain, a_bundle_builds_by_its_readme_and_answers_like_the_artifact) {
    const sr_shape shape = {6, 20, 2, 1, 8, 16, 4, 3, 3, 5};
    nas_graph *g = reference_sr(ctx, &shape);
    reference_fill(ctx, g, 5);
    check_bundle(g);
    nas_graph_free(g);
}

/* An app does not ask the system for tile registers: the bundle does. */
Test(compiler_toolchain, a_bundle_with_tile_registers_needs_no_help_of_the_app) {
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-amx", &options.target), NAS_OK));
    if (!options.target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what x86-64-amx needs\n");
        cr_skip_test("not on this processor");
    }
    nas_graph *g = nas_graph_new(ctx, "tiles");
    nas_value v = NAS_VALUE_NONE;
    const nas_conv_attributes a = nas_conv_same(48, 3);
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 20, 20, 40}, &v), 0));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "conv", v, &a, &v), 0));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, v), 0));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), 0));
    reference_fill(ctx, g, 7);
    options.form = NAS_FORM_LAYERS;
    options.dtype = NAS_DTYPE_BF16;
    nas_buf c = {0}, h = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, &options, &c, &h), NAS_OK));
    cr_assert(ne(ptr, strstr(c.data, "conv_bf16_tile"), NULL));
    nas_buf_deinit(&c);
    nas_buf_deinit(&h);
    check_bundle(g);
    nas_graph_free(g);
}

/* Own main for the sanitizers: buffers of exactly the promised size, twice, 1 and 2 threads. */
static const char exact_main[] =
    "#define _POSIX_C_SOURCE 200809L\n#include \"model.h\"\n#include <stdlib.h>\n#include "
    "<string.h>\n"
    "int main(void) {\n"
    "    const size_t n = (size_t)MODEL_INPUT_C * MODEL_INPUT_H * MODEL_INPUT_W;\n"
    "    const size_t m = (size_t)MODEL_OUTPUT_C * MODEL_OUTPUT_H * MODEL_OUTPUT_W;\n"
    "    float *in = malloc(n * sizeof *in), *out = malloc(m * sizeof *out), *again = malloc(m * "
    "sizeof *out);\n"
    "    for (size_t i = 0; i < n; i++) in[i] = (float)(i * 37 % 101) / 101;\n"
    "    void *arena = NULL;\n"
    "    if (posix_memalign(&arena, 64, MODEL_ARENA_BYTES) != 0) return 3;\n"
    "    memset(arena, 0xff, MODEL_ARENA_BYTES);\n"
    "    for (int threads = 1; threads <= 2; threads++) {\n"
    "        if (model_open(arena, threads) != 0) return 1;\n"
    "        model_run(arena, in, threads == 1 ? out : again);\n"
    "        model_run(arena, in, threads == 1 ? out : again);\n"
    "        model_close(arena);\n"
    "    }\n"
    "    if (model_open(arena, 0) == 0 || model_open(arena, 99) == 0 || model_open((char *)arena + "
    "4, 1) == 0) return 2;\n"
    "    const int differ = memcmp(out, again, m * sizeof *out) != 0;\n"
    "    free(in);\n    free(out);\n    free(again);\n    free(arena);\n    return differ;\n}\n";

/* Built and run with these sanitizers; ThreadSanitizer of older compilers wants addresses that are not random. */
static void check_with(const char *sanitizers, nas_graph *g, const nas_target *target,
                       const char *name) {
    reference_fill(ctx, g, 3);
    options.target = target;
    char bundle[128], path[256], line[512];
    (void)snprintf(bundle, sizeof bundle, "%s/%s", dir, name);
    cr_assert(eq(int, (int)nas_emit_bundle(ctx, g, &options, bundle, NULL), NAS_OK), "%s",
              nas_ctx_message(ctx));
    (void)snprintf(path, sizeof path, "%s/main.c", bundle);
    cr_assert(
        eq(int, (int)nas_file_write(ctx, path, exact_main, sizeof exact_main - 1, 0644), NAS_OK));
    (void)snprintf(line, sizeof line,
                   "gcc -O0 -std=gnu99 %s %s -pthread model.c weights.c main.c -o main && "
                   "if setarch -R true; then setarch -R ./main; else ./main; fi",
                   target->flags, sanitizers);
    run_in(bundle, (const char *const[]){"sh", "-c", line, NULL});
    nas_graph_free(g);
}

static void check_sanitized(nas_graph *g, const nas_target *target, const char *name) {
    check_with("-fsanitize=address,undefined -fno-sanitize-recover=undefined", g, target, name);
}

Test(compiler_toolchain, emitted_code_stays_inside_exactly_sized_buffers) {
    const sr_shape shape = {4, 83, 2, 1, 4, 6, 4, 3, 3, 3};
    nas_target cramped = *options.target;
    cramped.l2_bytes = 12 * 1024; /* several strips */
    check_sanitized(reference_sr(ctx, &shape), &cramped, "strips");
    const nas_target *narrow = options.target;
    if (options.target->vector_bytes > 16) {
        cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64", &narrow), NAS_OK));
    }
    check_sanitized(reference_conv(ctx, 1, 3, 1, 5, 7, 7, false), narrow, "tiny");
    options.row_kernels = NAS_ROW_KERNELS_WINOGRAD;
    check_sanitized(reference_sr(ctx, &shape), &cramped, "winograd strips");
    check_sanitized(reference_conv(ctx, 3, 5, 3, 7, 3, 3, true), narrow, "winograd tiny");
    check_sanitized(reference_chain(ctx, 9, 43), narrow, "winograd chain");
}

/* Groups of rows of a Winograd kernel reach beyond the rows of a thread; what it writes to the image does not. */
Test(compiler_toolchain, no_two_threads_write_a_row_of_the_output) {
    options.row_kernels = NAS_ROW_KERNELS_WINOGRAD;
    nas_graph *g = reference_conv(ctx, 37, 64, 3, 5, 3, 3, false);
    nas_buf plan = {0};
    cr_assert(eq(int, (int)nas_dump_after(ctx, g, &options, "plan", &plan), NAS_OK));
    cr_assert(strstr(plan.data, "to the output tile") != NULL &&
                  strstr(plan.data, "winograd 4 rows") != NULL,
              "%s", plan.data);
    nas_buf_deinit(&plan);
    check_with("-fsanitize=thread", g, options.target, "threads");
}
