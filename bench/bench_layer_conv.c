/* bench_layer_conv.c - single convolutions of the layer form, every way, one thread, beside a peak loop. Direct FLOPs
 * count for all ways, so Winograd may exceed the peak. */
#include "bench/bench_common.h"
#include "compiler/layers_internal.h"

static const struct {
    const char *name;
    int32_t in_c, out_c, groups, out, kernel, stride;
} layers[] = {
    {"3x3 64->64 @56", 64, 64, 1, 56, 3, 1},    {"1x1 256->64 @56", 256, 64, 1, 56, 1, 1},
    {"1x1 576->96 @14", 576, 96, 1, 14, 1, 1},  {"3x3 s2 64->128 @56", 64, 128, 1, 28, 3, 2},
    {"7x7 s2 3->64 @224", 3, 64, 1, 112, 7, 2}, {"dw3x3 144 @56", 144, 144, 144, 56, 3, 1},
    {"3x3 512->512 @7", 512, 512, 1, 7, 3, 1},
};

static nas__conv conv_of(size_t i) {
    nas__conv c = {.in_c = layers[i].in_c,
                   .out_c = layers[i].out_c,
                   .groups = layers[i].groups,
                   .out_h = layers[i].out,
                   .out_w = layers[i].out,
                   .kernel_h = layers[i].kernel,
                   .kernel_w = layers[i].kernel,
                   .stride_h = layers[i].stride,
                   .stride_w = layers[i].stride,
                   .dilation_h = 1,
                   .dilation_w = 1,
                   .in_pitch = layers[i].in_c,
                   .out_pitch = layers[i].out_c,
                   .act = NAS__LACT_RELU};
    const int32_t width = (c.out_w - 1) * c.stride_w + c.kernel_w;
    c.in_row = (size_t)width * (size_t)c.in_pitch;
    c.out_row = (size_t)c.out_w * (size_t)c.out_pitch;
    return c;
}

/* The program prints the ns of one call, the median of nine samples of at least 8 ms of processor time. */
static const char main_head[] =
    "static float *make(size_t n) {\n"
    "    float *p = NULL;\n"
    "    if (posix_memalign((void **)&p, 64, (n + 16) * 4) != 0) exit(4);\n"
    "    unsigned s = 1;\n"
    "    for (size_t i = 0; i < n; i++) p[i] = (float)((s = s * 1664525u + 1013904223u) >> 8) * "
    "0x1p-23f - 1;\n"
    "    return p;\n"
    "}\n"
    "static double now(void) {\n"
    "    struct timespec t;\n    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);\n"
    "    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;\n"
    "}\n"
    "static int order(const void *a, const void *b) {\n"
    "    const double x = *(const double *)a, y = *(const double *)b;\n    return (x > y) - (x < "
    "y);\n}\n"
    "int main(void) {\n";

static double time_way(nas_ctx *ctx, const nas_target *target, const nas__toolchain *t,
                       const nas__conv *c, const nas__conv_way *way, const char *dir) {
    nas_buf text = {0};
    nas_buf_puts(&text, "#define _POSIX_C_SOURCE 200809L\n#include <stdio.h>\n#include <stdlib.h>\n"
                        "#include <time.h>\n");
    nas__emit_vector_prelude(target, &text);
    nas__conv_emit(target, c, way, &text);
    nas_buf_puts(&text, main_head);
    const size_t in = c->in_row * (size_t)((c->out_h - 1) * c->stride_h + c->kernel_h);
    nas_buf_printf(&text,
                   "    float *x = make(%zu), *y = make(%zu), *w = make(%zu), *s = make(%zu);\n",
                   in, c->out_row * (size_t)c->out_h, nas__conv_weight_floats(target, c, way),
                   nas__conv_scratch_floats(target, c, way));
    nas_buf_puts(&text, "    double best[9];\n    for (int k = 0; k < 9; k++) {\n"
                        "        const double start = now();\n        double ns = 0;\n"
                        "        int n = 0;\n        do {\n            ");
    nas__conv_name(target, c, way, &text);
    nas_buf_printf(&text, "(x, y, NULL, w, s, 0, %d);\n", nas__conv_units(target, c, way));
    nas_buf_puts(&text, "            n++;\n            ns = now() - start;\n        } while (ns < "
                        "8e6);\n        best[k] = ns / n;\n    }\n"
                        "    qsort(best, 9, sizeof *best, order);\n"
                        "    printf(\"%.0f\\n\", best[4]);\n    return 0;\n}\n");
    bench_check(ctx, nas_buf_status(ctx, &text));
    char path[600];
    (void)snprintf(path, sizeof path, "%s/bench.c", dir);
    bench_check(ctx, nas_file_write(ctx, path, text.data, text.len, 0644));
    nas_buf_deinit(&text);
    const char *const args[] = {"bench.c", "-o", "bench", NULL};
    bench_check(ctx, nas__cc(ctx, t, dir, args));
    const char *const argv[] = {"./bench", NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.cwd = dir;
    nas_process_result result = {0};
    bench_check(ctx, nas_process_run(ctx, &options, &result));
    if (result.exit_code != 0 || result.out.data == NULL) exit(NAS_EXIT_FAILED);
    const double ns = strtod(result.out.data, NULL);
    nas_process_result_deinit(&result);
    return ns;
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = "build/bench-cache";
    bench_check(ctx, nas_target_find(ctx, "native", &options.target));
    nas__toolchain t;
    bench_check(ctx, nas__toolchain_open(ctx, &options, &t));
    char dir[512];
    bench_check(ctx, nas__cache_work_dir(ctx, options.cache_dir, sizeof dir, dir));
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        if (argc > 1 && strstr(layers[i].name, argv[1]) == NULL) continue;
        const nas__conv c = conv_of(i);
        const double flop =
            2.0 * c.out_h * c.out_w * c.out_c * c.kernel_h * c.kernel_w * (c.in_c / c.groups);
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        const int32_t n = nas__conv_ways(options.target, &c, ways);
        for (int32_t k = 0; k < n; k++) {
            const nas__conv_way *w = &ways[k];
            const double before = bench_peak(options.target);
            const double ns = time_way(ctx, options.target, &t, &c, w, dir);
            const double peak = 0.5 * (before + bench_peak(options.target));
            printf(
                "%-20s %-10s %2dx%-2d outer %d batch %3d %8.1f us %7.1f GFLOP/s, peak loop %5.1f, "
                "share %3.0f %%, estimate %9.0f cycles\n",
                layers[i].name, nas__conv_algorithm_name(w->algorithm), w->pixels, w->vectors,
                w->outer, w->batch, ns / 1e3, flop / ns, peak, 100 * flop / ns / peak, w->cycles);
            (void)fflush(stdout);
        }
    }
    bench_check(ctx, nas_remove_tree(ctx, dir));
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
