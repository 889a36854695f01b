/* tune.c - measures the ways of a convolution here: one small program with all kernels, run by turns.
 *
 * The program gets its packed weights as a file, checks that every way computes what the first one does, and prints one
 * line a way: "index p50 lo hi runs difference", and last "peak" with GFLOP/s. Times are kept by the caller (nas_tune_memory). */
#include "compiler/layers_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_MAX = 1000 };

/* Largest difference between two ways, relative to the largest output. Rounding of the transforms of Winograd stays far
 * below (tests/compiler/test_layer_conv.c bounds it), a wrong kernel far above. */
static const double difference_max = 1e-2;

/* ---- the program ------------------------------------------------------------------------------------------------- */

static const char program_head[] =
    "#define _POSIX_C_SOURCE 200809L\n#include <stdio.h>\n#include <stdlib.h>\n"
    "#include <string.h>\n#include <time.h>\n\n";

static const char program_types[] =
    "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
    "typedef struct candidate {\n"
    "    kernel *run;\n    size_t scratch;\n    int units;\n} candidate;\n\n";

static const char program_tail[] =
    "enum { N = sizeof ways / sizeof ways[0], ROUNDS_MIN = 3, ROUNDS_MAX = 65 };\n"
    "static double samples[N][ROUNDS_MAX], peaks[ROUNDS_MAX], difference[N];\n"
    "static float *weights[N], *scratch[N], *in, *out, *first, *residual;\n\n"
    "static clockid_t work = CLOCK_THREAD_CPUTIME_ID; /* other programs' turns do not count */\n\n"
    "static double read_ns(clockid_t clock) {\n"
    "    struct timespec t;\n    clock_gettime(clock, &t);\n"
    "    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;\n}\n"
    "static double step_ns(void) {\n"
    "    const double start = read_ns(work);\n    double next = start;\n"
    "    for (long k = 0; next == start && k < 1000000; k++) next = read_ns(work);\n"
    "    return next - start;\n}\n"
    "static void choose_clock(void) { /* some systems count the work in ticks of milliseconds */\n"
    "    (void)step_ns();\n    const double step = step_ns();\n"
    "    if (step <= 0 || step > 20e3) work = CLOCK_MONOTONIC;\n}\n"
    "/* GFLOP/s of multiply-adds in registers, ten chains: what the core can do at this moment. "
    "*/\n"
    "static volatile float sink;\n"
    "static double peak(void) {\n"
    "    enum { TIMES = 20000 };\n"
    "    vf x = splat(0.73f), y = splat(0.31f), a0 = x, a1 = y, a2 = x + y, a3 = x - y, a4 = x * "
    "y;\n"
    "    vf a5 = a2 * x, a6 = a2 * y, a7 = a3 * x, a8 = a3 * y, a9 = a4 * x;\n"
    "    const double start = read_ns(work);\n"
    "    for (int i = 0; i < TIMES; i++) {\n"
    "        a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y;\n"
    "        a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y;\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n    }\n"
    "    const double ns = read_ns(work) - start;\n"
    "    sink = (a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9)[0];\n"
    "    return 2.0 * TIMES * 10 * LANES / (ns + 1);\n}\n"
    "static float *take(size_t n) {\n"
    "    void *p = NULL;\n"
    "    if (posix_memalign(&p, 64, n * sizeof(float) + 64) != 0) {\n"
    "        fprintf(stderr, \"no memory for %zu floats\\n\", n);\n        exit(3);\n    }\n"
    "    return memset(p, 0, n * sizeof(float) + 64);\n}\n"
    "static float *take_random(size_t n, unsigned seed) {\n"
    "    float *p = take(n);\n"
    "    for (size_t i = 0; i < n; i++) {\n"
    "        seed = seed * 1664525u + 1013904223u;\n"
    "        p[i] = (float)(seed >> 8) / 8388608.0f - 1.0f;\n    }\n    return p;\n}\n";

static const char program_main[] =
    "static double run(int i, long times) {\n"
    "    const double start = read_ns(work);\n"
    "    for (long k = 0; k < times; k++)\n"
    "        ways[i].run(in, out, residual, weights[i], scratch[i], 0, ways[i].units);\n"
    "    return read_ns(work) - start;\n}\n"
    "static void check(int i) { /* NaN stays: it differs from everything */\n"
    "    double most = 0, size = 0;\n"
    "    for (size_t k = 0; k < OUT; k++) {\n"
    "        const double d = (double)out[k] - first[k], v = first[k];\n"
    "        if (most == most && !(d <= most && -d <= most)) most = d < 0 ? -d : d;\n"
    "        if (size == size && !(v <= size && -v <= size)) size = v < 0 ? -v : v;\n    }\n"
    "    difference[i] = most / (size + 1e-30);\n}\n"
    "static int by_value(const void *a, const void *b) {\n"
    "    const double x = *(const double *)a, y = *(const double *)b;\n"
    "    return (x > y) - (x < y);\n}\n\n"
    "int main(int argc, char **argv) {\n"
    "    FILE *file = argc == 3 ? fopen(argv[1], \"rb\") : NULL;\n"
    "    const double seconds = argc == 3 ? strtod(argv[2], NULL) : 0;\n"
    "    if (file == NULL) return 2;\n    choose_clock();\n"
    "    in = take_random(IN, 1);\n    residual = RESIDUAL > 0 ? take_random(RESIDUAL, 2) : NULL;\n"
    "    out = take(OUT);\n    first = take(OUT);\n"
    "    double slice_ns = seconds * 1e9 / (N * ROUNDS_MIN * 2.0);\n"
    "    if (slice_ns > 2e6) slice_ns = 2e6;\n"
    "    long times[N];\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        unsigned long long n = 0; /* not in the text: other zeros, other sizes */\n"
    "        if (fread(&n, sizeof n, 1, file) != 1) n = (size_t)-1 / 16;\n"
    "        weights[i] = take((size_t)n);\n        scratch[i] = take(ways[i].scratch);\n"
    "        if (fread(weights[i], sizeof(float), (size_t)n, file) != n) {\n"
    "            fprintf(stderr, \"%s is too short\\n\", argv[1]);\n            return 3;\n        "
    "}\n"
    "        memset(out, 0, OUT * sizeof(float));\n        (void)run(i, 1);\n"
    "        if (i == 0) memcpy(first, out, OUT * sizeof(float));\n        check(i);\n"
    "        const double once = run(i, 1);\n"
    "        times[i] = once < slice_ns ? (long)(slice_ns / (once + 1)) + 1 : 1;\n    }\n"
    "    fclose(file);\n"
    "    for (int i = 0; i < N; i++) (void)run(i, times[i]); /* up to speed */\n"
    "    const double start = read_ns(CLOCK_MONOTONIC);\n"
    "    int rounds = 0;\n"
    "    for (; rounds < ROUNDS_MAX; rounds++) {\n"
    "        if (rounds >= ROUNDS_MIN && read_ns(CLOCK_MONOTONIC) - start > seconds * 1e9) break;\n"
    "        peaks[rounds] = peak();\n"
    "        for (int k = 0; k < N; k++) { /* each round begins with another one */\n"
    "            const int i = (k + rounds) % N;\n"
    "            (void)run(i, 1); /* its weights are back in the cache */\n"
    "            samples[i][rounds] = run(i, times[i]) / (double)times[i];\n        }\n    }\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        qsort(samples[i], (size_t)rounds, sizeof samples[i][0], by_value);\n"
    "        printf(\"%d %.9g %.9g %.9g %d %.3g\\n\", i, samples[i][rounds / 2],\n"
    "               samples[i][rounds / 4], samples[i][rounds - 1 - rounds / 4], rounds, "
    "difference[i]);\n"
    "    }\n"
    "    qsort(peaks, (size_t)rounds, sizeof peaks[0], by_value);\n"
    "    printf(\"peak %.9g\\n\", peaks[rounds / 2]);\n"
    "    return 0;\n}\n";

/* Floats from pixel (0,0) to the end of the last one that a kernel may touch. */
static size_t extent(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

static size_t in_floats(const nas__conv *c) {
    const int32_t height = (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
    const int32_t width = (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    return extent(height, width, c->in_row, c->in_pitch, c->in_c);
}

static bool equal_ways(const nas__conv_way *a, const nas__conv_way *b) {
    return a->algorithm == b->algorithm && a->pixels == b->pixels && a->vectors == b->vectors &&
           a->outer == b->outer && a->batch == b->batch && a->depth == b->depth &&
           a->group == b->group && a->joined == b->joined;
}

static void emit_program(const nas_target *target, const nas__conv *c, const nas__conv_way *ways,
                         int32_t n, nas_buf *out) {
    nas_buf_puts(out, program_head);
    nas__emit_vector_prelude(target, out);
    for (int32_t i = 0; i < n; i++) {
        bool seen = false;
        for (int32_t k = 0; k < i; k++)
            seen = seen || equal_ways(&ways[i], &ways[k]);
        if (!seen) nas__conv_emit(target, c, &ways[i], out);
    }
    nas_buf_printf(
        out,
        "\n#define IN ((size_t)%zu)\n#define OUT ((size_t)%zu)\n#define RESIDUAL ((size_t)%zu)\n",
        in_floats(c), extent(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c),
        c->has_residual ? extent(c->out_h, c->out_w, c->residual_row, c->residual_pitch, c->out_c)
                        : 0);
    nas_buf_puts(out, program_types);
    nas_buf_puts(out, "static const candidate ways[] = {\n");
    for (int32_t i = 0; i < n; i++) {
        nas_buf_puts(out, "    {");
        nas__conv_name(target, c, &ways[i], out);
        nas_buf_printf(out, ", %zu, %d},\n", nas__conv_scratch_floats(target, c, &ways[i]),
                       nas__conv_units(target, c, &ways[i]));
    }
    nas_buf_puts(out, "};\n");
    nas_buf_puts(out, program_tail);
    nas_buf_puts(out, program_main);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

typedef struct random_weights {
    float *weight, *bias, *slope;
} random_weights;

static void weights_free(random_weights *w) {
    nas_free(w->weight);
    nas_free(w->bias);
    nas_free(w->slope);
}

/* Small enough that outputs stay near the size of the inputs, whatever the number of products. */
static nas_status weights_new(nas_ctx *ctx, const nas__conv *c, random_weights *out) {
    const size_t products = (size_t)(c->kernel_h * c->kernel_w) * (size_t)(c->in_c / c->groups);
    const size_t outputs = (size_t)c->out_c;
    size_t n = 0;
    const nas_status status = nas_mul_size(ctx, products, outputs, &n);
    if (status != NAS_OK) return status;
    random_weights w = {0};
    w.weight = nas_alloc_array(ctx, n, sizeof *w.weight);
    w.bias = nas_alloc_array(ctx, outputs, sizeof *w.bias);
    w.slope = nas_alloc_array(ctx, outputs, sizeof *w.slope);
    if (w.weight == NULL || w.bias == NULL || w.slope == NULL) {
        weights_free(&w);
        return NAS_ERR_NOMEM;
    }
    nas_rng rng = nas_rng_stream(1, 0, "tune");
    const double scale = sqrt(3.0 / (double)products);
    for (size_t i = 0; i < n; i++)
        w.weight[i] = (float)(scale * (2 * nas_rng_uniform(&rng) - 1));
    for (size_t i = 0; i < n && c->kept != NULL; i++)
        w.weight[i] = c->kept[i] != 0 ? w.weight[i] : 0;
    for (size_t i = 0; i < outputs; i++) {
        w.bias[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
        w.slope[i] = (float)nas_rng_uniform(&rng);
    }
    *out = w;
    return NAS_OK;
}

/* The block of each way, one after another: one at a time, those of Winograd are large. */
static nas_status write_blocks(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                               const nas__conv_way *ways, int32_t n, const random_weights *w,
                               FILE *file) {
    for (int32_t i = 0; i < n; i++) {
        const size_t size = nas__conv_weight_floats(target, c, &ways[i]);
        float *block = nas_alloc_array(ctx, size, sizeof *block);
        if (block == NULL) return NAS_ERR_NOMEM;
        nas_status status =
            nas__conv_pack(ctx, target, c, &ways[i], w->weight, w->bias, w->slope, block);
        const unsigned long long words = size;
        if (status == NAS_OK && (fwrite(&words, sizeof words, 1, file) != 1 ||
                                 fwrite(block, sizeof *block, size, file) != size)) {
            status = nas_fail(ctx, NAS_ERR_IO,
                              "disk full? %zu bytes of weights were not written; free some space",
                              size * sizeof *block);
        }
        nas_free(block);
        if (status != NAS_OK) return status;
    }
    return NAS_OK;
}

static nas_status write_weights(nas_ctx *ctx, const nas_target *target, const nas__conv *c,
                                const nas__conv_way *ways, int32_t n, const char *path) {
    random_weights w;
    nas_status status = weights_new(ctx, c, &w);
    if (status != NAS_OK) return status;
    FILE *file = fopen(path, "wb");
    if (file == NULL) {
        status = nas_fail(ctx, NAS_ERR_IO, "%s: cannot be written", path);
    } else {
        status = write_blocks(ctx, target, c, ways, n, &w, file);
        if (fclose(file) != 0 && status == NAS_OK) {
            status = nas_fail(ctx, NAS_ERR_IO, "disk full? %s: free some space", path);
        }
    }
    weights_free(&w);
    return status;
}

/* ---- compile and run --------------------------------------------------------------------------------------------- */

static void program_key(const nas__toolchain *t, const nas_buf *text, char out[NAS_SHA256_HEX]) {
    const char *const parts[] = {t->compiler, t->version, t->flags};
    uint8_t digest[NAS_SHA256_BYTES];
    nas_sha256 h;
    nas_sha256_init(&h);
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        nas_sha256_update(&h, parts[i], strlen(parts[i]) + 1);
    nas_sha256_update(&h, text->data, text->len);
    nas_sha256_final(&h, digest);
    nas_hex(digest, sizeof digest, out);
}

/* The program at `path`, compiled in `work` when the cache lacks it. */
static nas_status need_program(nas_ctx *ctx, const nas__toolchain *toolchain, const nas_buf *text,
                               const char *work, const char *path) {
    char sum[NAS_SHA256_HEX], file[600];
    if (nas__cache_find(path, sum)) return NAS_OK;
    (void)snprintf(file, sizeof file, "%s/tune.c", work);
    nas_status status = nas_file_write(ctx, file, text->data, text->len, 0644);
    const char *const args[] = {"tune.c", "-o", "tune", NULL};
    if (status == NAS_OK) status = nas__cc(ctx, toolchain, work, args);
    if (status != NAS_OK) return status;
    (void)snprintf(file, sizeof file, "%s/tune", work);
    return nas__cache_put(ctx, file, path, 0555, false, sum);
}

static nas_status read_timings(nas_ctx *ctx, const char *text, const nas__conv_way *ways, int32_t n,
                               nas_tune_timing out[], double *peak) {
    const char *line = text != NULL ? text : "";
    for (int32_t i = 0; i < n; i++) {
        nas_tune_timing t = {0};
        double difference = 0;
        int index = -1, runs = 0;
        if (sscanf(line, "%d %lf %lf %lf %d %lf", &index, &t.p50_ns, &t.lo_ns, &t.hi_ns, &runs,
                   &difference) != 6 ||
            index != i || runs < 1 || !isfinite(t.hi_ns) || !(t.lo_ns > 0) ||
            !(t.p50_ns >= t.lo_ns) || !(t.hi_ns >= t.p50_ns)) {
            return nas_fail(ctx, NAS_ERR_DEVICE, "tuning: line %d of the program is '%.*s'", i + 1,
                            (int)strcspn(line, "\n"), line);
        }
        if (!(difference <= difference_max)) {
            return nas_fail(ctx, NAS_ERR_INTERNAL,
                            "tuning: way %d (%s) differs from way 0 by %g of the largest output", i,
                            nas__conv_algorithm_name(ways[i].algorithm), difference);
        }
        t.runs = runs;
        out[i] = t;
        line += strcspn(line, "\n");
        line += *line == '\n';
    }
    if (peak != NULL && (sscanf(line, "peak %lf", peak) != 1 || !(*peak > 0)))
        return nas_fail(ctx, NAS_ERR_DEVICE, "tuning: the last line of the program is '%.*s'",
                        (int)strcspn(line, "\n"), line);
    return NAS_OK;
}

static nas_status run_program(nas_ctx *ctx, const char *path, const char *weights, double seconds,
                              int64_t timeout_ms, nas_process_result *result) {
    char limit[40];
    (void)snprintf(limit, sizeof limit, "%.6f", seconds);
    const char *const argv[] = {path, weights, limit, NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.timeout_ms = timeout_ms + (int64_t)(seconds * 2000);
    nas_status status = nas_process_run(ctx, &options, result);
    if (status != NAS_OK) return nas_wrap(ctx, status, "tuning");
    if (result->exit_code == 0) return NAS_OK;
    status =
        nas_fail(ctx, NAS_ERR_DEVICE, "tuning: exit code %d, signal %d: %.*s", result->exit_code,
                 result->signal, MESSAGE_MAX, result->err.data != NULL ? result->err.data : "");
    nas_process_result_deinit(result);
    return status;
}

static nas_status tune_in(nas_ctx *ctx, const nas_compile_options *options,
                          const nas__toolchain *toolchain, const nas_buf *text,
                          const nas__conv *conv, const nas__conv_way *ways, int32_t n,
                          double seconds, const char *work, nas_tune_timing out[], double *peak) {
    char key[NAS_SHA256_HEX], path[512], weights[600];
    program_key(toolchain, text, key);
    (void)snprintf(weights, sizeof weights, "%s/weights.raw", work);
    nas_status status = nas__cache_path(ctx, options->cache_dir, key, ".tune", sizeof path, path);
    if (status == NAS_OK) status = need_program(ctx, toolchain, text, work, path);
    if (status == NAS_OK) status = write_weights(ctx, options->target, conv, ways, n, weights);
    nas_process_result result = {0};
    if (status == NAS_OK)
        status = run_program(ctx, path, weights, seconds, options->timeout_ms, &result);
    if (status != NAS_OK) return status;
    nas_tune_timing timings[NAS__CONV_WAYS_MAX];
    status = read_timings(ctx, result.out.data, ways, n, timings, peak);
    nas_process_result_deinit(&result);
    if (status == NAS_OK) memcpy(out, timings, (size_t)n * sizeof *out);
    return status;
}

static nas_status check_request(nas_ctx *ctx, const nas_compile_options *options, int32_t n,
                                double seconds) {
    if (options->target == NULL || n < 1 || n > NAS__CONV_WAYS_MAX || !(seconds > 0) ||
        !(seconds <= 24 * 3600)) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "tuning needs a target, 1..%d ways (got %d) and up to a day (got %g s)",
                        NAS__CONV_WAYS_MAX, n, seconds);
    }
    if (!options->target->runs_here) {
        return nas_fail(ctx, NAS_ERR_UNSUPPORTED,
                        "tuning measures here, programs of target %s do not run here",
                        options->target->name);
    }
    return NAS_OK;
}

nas_status nas__tune_convs(nas_ctx *ctx, const nas_compile_options *options, const nas__conv *conv,
                           const nas__conv_way *ways, int32_t n, double seconds,
                           nas_tune_timing out[]) {
    return nas__tune_beside_peak(ctx, options, conv, ways, n, seconds, out, NULL);
}

nas_status nas__tune_beside_peak(nas_ctx *ctx, const nas_compile_options *options,
                                 const nas__conv *conv, const nas__conv_way *ways, int32_t n,
                                 double seconds, nas_tune_timing out[], double *peak) {
    nas__toolchain toolchain;
    char work[512];
    nas_status status = check_request(ctx, options, n, seconds);
    if (status == NAS_OK) status = nas__toolchain_open(ctx, options, &toolchain);
    if (status != NAS_OK) return status;
    nas_buf text = {0};
    emit_program(options->target, conv, ways, n, &text);
    status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas__cache_work_dir(ctx, options->cache_dir, sizeof work, work);
    if (status == NAS_OK) {
        status = tune_in(ctx, options, &toolchain, &text, conv, ways, n, seconds, work, out, peak);
        nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of a failure above */
        if (quiet != NULL) (void)nas_remove_tree(quiet, work);
        nas_ctx_free(quiet);
    }
    nas_buf_deinit(&text);
    return status;
}

/* ---- keys and memory --------------------------------------------------------------------------------------------- */

static const char *act_text(nas__layer_act act) {
    switch (act) {
    case NAS__LACT_NONE: return "none";
    case NAS__LACT_RELU: return "relu";
    case NAS__LACT_CLIP: return "clip";
    case NAS__LACT_PRELU: return "prelu";
    case NAS__LACT_LEAKY: return "leaky";
    case NAS__LACT_HARD_SWISH: return "hard_swish";
    }
    return "";
}

void nas__tune_kernel_text(const nas__conv *c, nas_buf *out) {
    nas_buf_printf(out,
                   "conv f32 dense %dx%d %d->%d groups %d @%dx%d stride %dx%d dilation %dx%d "
                   "pitch %d,%d,%d row %zu,%zu,%zu%s act %s %a %a",
                   c->kernel_h, c->kernel_w, c->in_c, c->out_c, c->groups, c->out_h, c->out_w,
                   c->stride_h, c->stride_w, c->dilation_h, c->dilation_w, c->in_pitch,
                   c->out_pitch, c->residual_pitch, c->in_row, c->out_row, c->residual_row,
                   c->has_residual ? " residual" : "", act_text(c->act), (double)c->lo,
                   (double)c->hi);
}

void nas__tune_way_text(const nas_target *target, const nas__conv *c, const nas__conv_way *way,
                        nas_buf *out) {
    nas_buf text = {0};
    nas__emit_vector_prelude(target, &text);
    nas__conv_emit(target, c, way, &text);
    if (text.failed || text.data == NULL) {
        out->failed = true;
    } else {
        char hash[NAS_SHA256_HEX];
        nas_sha256_hex(text.data, text.len, hash);
        nas_buf_printf(out, "%s %dx%d outer %d batch %d depth %d #%.12s",
                       nas__conv_algorithm_name(way->algorithm), way->pixels, way->vectors,
                       way->outer, way->batch, way->depth, hash);
        if (nas__conv_is_sparse(way)) /* how long the lists are, whatever is in them */
            nas_buf_printf(out, " group %d joined %d entries %d", way->group, way->joined,
                           way->entries);
    }
    nas_buf_deinit(&text);
}

/* Name and numbers of the first core: x86, then Arm, then RISC-V. */
static void cpu_text(nas_buf *out) {
    static const char *const names[] = {"model name", "cpu family",  "model", "CPU implementer",
                                        "CPU part",   "CPU variant", "uarch"};
    bool seen[sizeof names / sizeof names[0]] = {false};
    const size_t before = out->len;
    FILE *file = fopen("/proc/cpuinfo", "r");
    char line[512];
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
            const size_t len = strlen(names[i]);
            if (seen[i] || strncmp(line, names[i], len) != 0) continue;
            const char *value = line + len + strspn(line + len, " \t");
            if (*value != ':') continue;
            seen[i] = true;
            value += 1 + strspn(value + 1, " \t");
            nas_buf_printf(out, "%s%.*s", out->len > before ? " " : "", (int)strcspn(value, "\r\n"),
                           value);
        }
    }
    if (file != NULL) (void)fclose(file); /* only read */
    if (out->len == before) nas_buf_puts(out, "unknown cpu");
}

nas_status nas__tune_device_text(nas_ctx *ctx, const nas_compile_options *options, nas_buf *out) {
    nas__toolchain t;
    const nas_status status = nas__toolchain_open(ctx, options, &t);
    if (status != NAS_OK) return status;
    cpu_text(out);
    nas_buf_printf(out, " | %s | %s | %s", options->target->name, t.version, t.flags);
    return nas_buf_status(ctx, out);
}

/* The key texts of one request. */
typedef struct key_texts {
    nas_buf kernel, device, ways[NAS__CONV_WAYS_MAX];
} key_texts;

static void keys_deinit(key_texts *k) {
    nas_buf_deinit(&k->kernel);
    nas_buf_deinit(&k->device);
    for (int32_t i = 0; i < NAS__CONV_WAYS_MAX; i++)
        nas_buf_deinit(&k->ways[i]);
}

static nas_status keys_make(nas_ctx *ctx, const nas_compile_options *options, const nas__conv *conv,
                            const nas__conv_way *ways, int32_t n, key_texts *k) {
    nas_status status = nas__tune_device_text(ctx, options, &k->device);
    nas__tune_kernel_text(conv, &k->kernel);
    if (status == NAS_OK) status = nas_buf_status(ctx, &k->kernel);
    for (int32_t i = 0; i < n && status == NAS_OK; i++) {
        nas__tune_way_text(options->target, conv, &ways[i], &k->ways[i]);
        status = nas_buf_status(ctx, &k->ways[i]);
    }
    return status;
}

static bool recall(const nas_tune_memory *memory, const key_texts *k, int32_t n, double p50_ns[]) {
    for (int32_t i = 0; i < n; i++) {
        if (!memory->find(memory->user, k->kernel.data, k->ways[i].data, k->device.data,
                          &p50_ns[i]) ||
            !isfinite(p50_ns[i]) || !(p50_ns[i] > 0))
            return false;
    }
    return true;
}

static nas_status remember(nas_ctx *ctx, const nas_tune_memory *memory, const key_texts *k,
                           int32_t n, const nas_tune_timing *timings) {
    nas_status status = NAS_OK;
    for (int32_t i = 0; i < n && status == NAS_OK; i++) {
        status = memory->store(ctx, memory->user, k->kernel.data, k->ways[i].data, k->device.data,
                               &timings[i]);
    }
    return nas_wrap(ctx, status, "keeping a timing");
}

static int32_t fastest_of(const double *times, int32_t n) {
    int32_t fastest = 0; /* ties: the smaller estimate, which comes first */
    for (int32_t i = 1; i < n; i++) {
        if (times[i] < times[fastest]) fastest = i;
    }
    return fastest;
}

nas_status nas__tune_recall(nas_ctx *ctx, const nas_compile_options *options,
                            const nas_tune_memory *memory, const nas__conv *conv,
                            const nas__conv_way *ways, int32_t n, bool *known, int32_t *best,
                            double p50_ns[]) {
    key_texts keys = {0};
    const nas_status status = keys_make(ctx, options, conv, ways, n, &keys);
    *known = status == NAS_OK && recall(memory, &keys, n, p50_ns);
    if (*known) *best = fastest_of(p50_ns, n);
    keys_deinit(&keys);
    return status;
}

nas_status nas__tune_conv_best(nas_ctx *ctx, const nas_compile_options *options,
                               const nas_tune_memory *memory, const nas__conv *conv,
                               const nas__conv_way *ways, int32_t n, double seconds, int32_t *best,
                               double p50_ns[]) {
    nas_status status = check_request(ctx, options, n, seconds);
    if (status != NAS_OK) return status;
    key_texts keys = {0};
    double times[NAS__CONV_WAYS_MAX] = {0};
    if (memory != NULL) status = keys_make(ctx, options, conv, ways, n, &keys);
    if (status == NAS_OK && (memory == NULL || !recall(memory, &keys, n, times))) {
        nas_tune_timing timings[NAS__CONV_WAYS_MAX];
        status = nas__tune_convs(ctx, options, conv, ways, n, seconds, timings);
        for (int32_t i = 0; i < n && status == NAS_OK; i++)
            times[i] = timings[i].p50_ns;
        if (status == NAS_OK && memory != NULL) status = remember(ctx, memory, &keys, n, timings);
    }
    keys_deinit(&keys);
    if (status != NAS_OK) return status;
    *best = fastest_of(times, n);
    if (p50_ns != NULL) memcpy(p50_ns, times, (size_t)n * sizeof *p50_ns);
    return NAS_OK;
}
