/* test_golden.c - ONNX files of many families of networks: the imported graph and the compiled program against what ONNX
 * Runtime computed. The files and the script that makes them are in golden_onnx/. A test visits all files and names each
 * that fails on stderr. Files named q_... are 8-bit networks, compared in steps of their output. */
#include "compiler/compiler.h"
#include "reference.h"
#include "reference_quantized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char folder[] = "tests/compiler/golden_onnx";
enum { FILES_MIN = 39, FILE_BYTES_MAX = 64 * 1024 };

/* fp32 against fp32 with other orders of summation, up to a dozen layers; Winograd adds about one digit. */
static const double tolerance = 1e-4; /* of the largest expected value */

/* Answers come from floats between QuantizeLinear and DequantizeLinear. Integers differ in few elements, where a sum lies
 * between two codes: halves go up there, to the even code in the file, and an average of 4 or 6 codes is often a half. */
typedef struct quantized_file {
    const char *name;
    double
        step; /* scale of the output, or a 255th of its range where it is in floats, as make_golden.py prints it */
    int32_t steps;    /* by which the answer may differ */
    int32_t integers; /* nodes that compute in integers */
    bool exact; /* to the end in integers: a program gives the reference's floats, bit for bit */
} quantized_file;

static const quantized_file quantized[] = {
    {"q_branches", 0.00828451011, 2, 10, true}, /* averages at its borders */
    {"q_float_head", 0.00570899131, 1, 3, false}, {"q_float_output", 0.0170893089, 1, 2, false},
    {"q_fsrcnn", 0.00714307511, 1, 6, true},      {"q_grouped", 0.0152577516, 1, 4, true},
    {"q_island", 0.00354893319, 1, 7, true},      {"q_mobilenet", 0.0288738273, 1, 11, true},
    {"q_per_tensor", 0.00472382409, 1, 5, true},  {"q_residual", 0.0139389429, 1, 11, true},
    {"q_signed", 0.0765412673, 1, 7, true},       {"q_sr", 0.0209908746, 1, 6, true},
};

/* NULL for a network of floats. */
static const quantized_file *find_quantized(const char *name) {
    for (size_t i = 0; i < sizeof quantized / sizeof quantized[0]; i++) {
        if (strcmp(quantized[i].name, name) == 0) return &quantized[i];
    }
    return NULL;
}

/* Largest difference; a little above whole steps for the rounding of the floats that are compared. */
static double limit_of(const quantized_file *file) {
    return file != NULL ? (file->steps + 0.01) * file->step : 0;
}

static nas_ctx *ctx;
static char work[64];
static nas_compile_options options;

static void setup(void) {
    ctx = nas_ctx_new();
    (void)snprintf(work, sizeof work, "/tmp/nas-golden-XXXXXX");
    cr_assert(ne(ptr, mkdtemp(work), NULL));
    options = nas_compile_options_default();
    options.cache_dir = work;
    options.max_threads = 2;
    cr_assert(eq(int, (int)nas_target_find(ctx, "native", &options.target), NAS_OK));
}

static void teardown(void) {
    cr_assert(eq(int, (int)nas_remove_tree(ctx, work), NAS_OK));
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(compiler_golden, .init = setup, .fini = teardown, .timeout = 600);

/* NAME.in or NAME.out: exactly the floats of value `v`. Free with nas_free. */
static nas_status read_floats(const char *name, const char *ending, const nas_graph *g, nas_value v,
                              float **out, size_t *count) {
    char path[512];
    nas_buf bytes = {0};
    const nas_shape s = nas_graph_node(g, v)->shape;
    *count = (size_t)s.n * (size_t)s.h * (size_t)s.w * (size_t)s.c;
    (void)snprintf(path, sizeof path, "%s/%s.%s", folder, name, ending);
    nas_status status = nas_file_read(ctx, path, FILE_BYTES_MAX, &bytes);
    if (status == NAS_OK && bytes.len != *count * sizeof(float)) {
        status =
            nas_fail(ctx, NAS_ERR_SHAPE, "%s: %zu bytes for %zu elements", path, bytes.len, *count);
    }
    *out = status == NAS_OK ? nas_alloc_array(ctx, *count, sizeof(float)) : NULL;
    if (*out != NULL) memcpy(*out, bytes.data, bytes.len);
    if (status == NAS_OK && *out == NULL) status = NAS_ERR_NOMEM;
    nas_buf_deinit(&bytes);
    return status;
}

static nas_status import(const char *name, nas_graph **out) {
    char path[512];
    const nas_onnx_import_options how = nas_onnx_import_options_default();
    (void)snprintf(path, sizeof path, "%s/%s.onnx", folder, name);
    return nas_onnx_import(ctx, path, &how, out);
}

/* `limit` > 0: absolute; 0: `tolerance`. */
static nas_status compare(const float *y, const float *expected, size_t count, double limit,
                          int32_t threads) {
    double worst = 0, magnitude = 0;
    for (size_t i = 0; i < count; i++) {
        const double error = fabs((double)y[i] - (double)expected[i]);
        magnitude = fmax(magnitude, fabs((double)expected[i]));
        worst = isfinite(error) ? fmax(worst, error) : INFINITY;
    }
    if (worst <= (limit > 0 ? limit : tolerance * magnitude)) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INTERNAL, "off by %g of %g with %d threads", worst, magnitude,
                    threads);
}

/* The graph, run by definition in double: an import that means something else shows here, whatever the compiler does. */
static nas_status import_and_run(const char *name) {
    nas_graph *g = NULL;
    float *x = NULL, *expected = NULL, *y = NULL;
    double *exact = NULL, magnitude = 0;
    size_t n_in = 0, n_out = 0;
    nas_status status = import(name, &g);
    if (status == NAS_OK) status = nas_graph_verify(ctx, g);
    if (status == NAS_OK) status = read_floats(name, "in", g, nas_graph_input(g), &x, &n_in);
    if (status == NAS_OK)
        status = read_floats(name, "out", g, nas_graph_output(g), &expected, &n_out);
    if (status == NAS_OK) {
        exact = nas_alloc_array(ctx, n_out, sizeof *exact);
        y = nas_alloc_array(ctx, n_out, sizeof *y);
        status = exact == NULL || y == NULL ? NAS_ERR_NOMEM : NAS_OK;
    }
    if (status == NAS_OK) {
        reference_forward_stored(ctx, g, x, exact, &magnitude);
        for (size_t i = 0; i < n_out; i++)
            y[i] = (float)exact[i];
        status = compare(y, expected, n_out, limit_of(find_quantized(name)), 1);
    }
    nas_free(x);
    nas_free(expected);
    nas_free(y);
    nas_free(exact);
    nas_graph_free(g);
    return status;
}

static nas_status check_integers(const nas_graph *g, int32_t expected) {
    int32_t n = 0;
    for (nas_value v = 0, source; v < nas_graph_node_count(g); v++)
        n += reference_quantized_kind(g, v, &source) != REFERENCE_FLOAT ? 1 : 0;
    if (n == expected) return NAS_OK;
    return nas_fail(ctx, NAS_ERR_INTERNAL, "%d nodes in integers, not %d", n, expected);
}

/* An 8-bit network in the integers that a program has to compute; others pass. */
static nas_status import_and_count(const char *name) {
    const quantized_file *file = find_quantized(name);
    if (file == NULL) return NAS_OK;
    nas_graph *g = NULL;
    float *x = NULL, *expected = NULL, *y = NULL;
    size_t n_in = 0, n_out = 0;
    nas_status status = import(name, &g);
    if (status == NAS_OK) status = read_floats(name, "in", g, nas_graph_input(g), &x, &n_in);
    if (status == NAS_OK)
        status = read_floats(name, "out", g, nas_graph_output(g), &expected, &n_out);
    if (status == NAS_OK) y = nas_alloc_array(ctx, n_out, sizeof *y);
    if (status == NAS_OK && y == NULL) status = NAS_ERR_NOMEM;
    if (status == NAS_OK) status = check_integers(g, file->integers);
    if (status == NAS_OK) status = reference_quantized(ctx, g, x, y);
    if (status == NAS_OK) status = compare(y, expected, n_out, limit_of(file), 1);
    nas_free(x);
    nas_free(expected);
    nas_free(y);
    nas_graph_free(g);
    return status;
}

/* Where all that matters is computed in integers the program gives the reference's floats, bit for bit. */
static nas_status compare_integers(const char *name, const nas_graph *g, const float *x,
                                   const float *y, size_t n) {
    const quantized_file *file = find_quantized(name);
    if (file == NULL || !file->exact) return NAS_OK;
    float *exact = nas_alloc_array(ctx, n, sizeof *exact);
    if (exact == NULL) return NAS_ERR_NOMEM;
    nas_status status = reference_quantized(ctx, g, x, exact);
    size_t differ = 0;
    for (size_t i = 0; i < n && status == NAS_OK; i++)
        differ += exact[i] != y[i] ? 1 : 0;
    if (differ > 0)
        status = nas_fail(ctx, NAS_ERR_INTERNAL, "%zu of %zu not as the reference", differ, n);
    nas_free(exact);
    return status;
}

static nas_status compile_and_run(const char *name) {
    nas_graph *g = NULL;
    nas_artifact artifact;
    float *x = NULL, *expected = NULL, *y = NULL;
    size_t n_in = 0, n_out = 0;
    nas_status status = import(name, &g);
    if (status == NAS_OK) status = read_floats(name, "in", g, nas_graph_input(g), &x, &n_in);
    if (status == NAS_OK)
        status = read_floats(name, "out", g, nas_graph_output(g), &expected, &n_out);
    if (status == NAS_OK) status = nas_compile(ctx, g, &options, &artifact);
    if (status == NAS_OK) y = nas_alloc_array(ctx, n_out, sizeof *y);
    if (status == NAS_OK && y == NULL) status = NAS_ERR_NOMEM;
    for (int32_t threads = 1; threads <= options.max_threads && status == NAS_OK; threads++) {
        status = nas_artifact_run(ctx, &artifact, g, 1, x, y, threads, work);
        if (status == NAS_OK)
            status = compare(y, expected, n_out, limit_of(find_quantized(name)), threads);
        if (status == NAS_OK) status = compare_integers(name, g, x, y, n_out);
    }
    nas_free(x);
    nas_free(expected);
    nas_free(y);
    nas_graph_free(g);
    return status;
}

static int is_onnx(const struct dirent *entry) {
    const char *ending = strrchr(entry->d_name, '.');
    return ending != NULL && strcmp(ending, ".onnx") == 0;
}

/* `check` on every file of the folder, or on the one that NAS_GOLDEN_ONLY names. */
static void for_each_file(nas_status (*check)(const char *name)) {
    struct dirent **entries = NULL;
    const char *only = getenv("NAS_GOLDEN_ONLY");
    const int n = scandir(folder, &entries, is_onnx, alphasort);
    int failed = 0;
    for (int i = 0; i < n; i++) {
        char *name = entries[i]->d_name;
        *strrchr(name, '.') = '\0';
        if ((only == NULL || strcmp(only, name) == 0) && check(name) != NAS_OK) {
            (void)fprintf(stderr, "golden %s: %s\n", name, nas_ctx_message(ctx));
            failed++;
        }
        free(entries[i]);
    }
    free(entries);
    cr_assert(n >= FILES_MIN, "%d files in %s, at least %d were written", n, folder, FILES_MIN);
    cr_assert(eq(int, failed, 0), "%d of %d files, named on stderr", failed, n);
}

Test(compiler_golden, imported_files_match_onnx_runtime) {
    for_each_file(import_and_run);
}

Test(compiler_golden, integers_of_imported_files_match_onnx_runtime) {
    for_each_file(import_and_count);
}

Test(compiler_golden, compiled_files_match_onnx_runtime) {
    for_each_file(compile_and_run);
}
