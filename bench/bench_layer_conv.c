/* bench_layer_conv.c - single convolutions of the layer form, every way, one thread, each beside a peak loop of the same
 * moment. Direct FLOPs count for all ways, so Winograd may exceed the peak. One line a way with -v, one line a layer at
 * the end: the best measured way and the one that the estimates choose.
 *     bench_layer_conv [-v] [-b] [-t target] [part of a name]
 * -b: those with products of bf16 are among them. */
#include "bench/bench_common.h"
#include "compiler/layers_internal.h"

typedef struct layer {
    const char *name;
    int32_t in_c, out_c, groups, out_h, out_w, kernel, stride;
} layer;

static const layer layers[] = {
    {"resnet50 7x7 s2 3->64 @224", 3, 64, 1, 112, 112, 7, 2},
    {"resnet50 1x1 64->64 @56", 64, 64, 1, 56, 56, 1, 1},
    {"resnet50 1x1 64->256 @56", 64, 256, 1, 56, 56, 1, 1},
    {"resnet50 1x1 256->64 @56", 256, 64, 1, 56, 56, 1, 1},
    {"resnet50 1x1 s2 256->512 @28", 256, 512, 1, 28, 28, 1, 2},
    {"resnet50 1x1 512->128 @28", 512, 128, 1, 28, 28, 1, 1},
    {"resnet50 1x1 1024->256 @14", 1024, 256, 1, 14, 14, 1, 1},
    {"resnet50 1x1 256->1024 @14", 256, 1024, 1, 14, 14, 1, 1},
    {"resnet50 1x1 s2 1024->2048 @7", 1024, 2048, 1, 7, 7, 1, 2},
    {"resnet50 1x1 512->2048 @7", 512, 2048, 1, 7, 7, 1, 1},
    {"resnet50 1x1 2048->512 @7", 2048, 512, 1, 7, 7, 1, 1},
    {"resnet50 3x3 64->64 @56", 64, 64, 1, 56, 56, 3, 1},
    {"resnet50 3x3 128->128 @28", 128, 128, 1, 28, 28, 3, 1},
    {"resnet50 3x3 256->256 @14", 256, 256, 1, 14, 14, 3, 1},
    {"resnet50 3x3 512->512 @7", 512, 512, 1, 7, 7, 3, 1},
    {"resnet50 3x3 s2 128->128 @28", 128, 128, 1, 28, 28, 3, 2},
    {"resnet50 3x3 s2 512->512 @7", 512, 512, 1, 7, 7, 3, 2},
    {"resnet50 fc 2048->1000", 2048, 1000, 1, 1, 1, 1, 1},
    {"mobilenet 3x3 s2 3->32 @224", 3, 32, 1, 112, 112, 3, 2},
    {"mobilenet dw3x3 32 @112", 32, 32, 32, 112, 112, 3, 1},
    {"mobilenet dw3x3 s2 96 @56", 96, 96, 96, 56, 56, 3, 2},
    {"mobilenet dw3x3 144 @56", 144, 144, 144, 56, 56, 3, 1},
    {"mobilenet dw3x3 s2 144 @28", 144, 144, 144, 28, 28, 3, 2},
    {"mobilenet dw3x3 192 @28", 192, 192, 192, 28, 28, 3, 1},
    {"mobilenet dw3x3 384 @14", 384, 384, 384, 14, 14, 3, 1},
    {"mobilenet dw3x3 960 @7", 960, 960, 960, 7, 7, 3, 1},
    {"mobilenet 1x1 32->16 @112", 32, 16, 1, 112, 112, 1, 1},
    {"mobilenet 1x1 16->96 @112", 16, 96, 1, 112, 112, 1, 1},
    {"mobilenet 1x1 24->144 @56", 24, 144, 1, 56, 56, 1, 1},
    {"mobilenet 1x1 144->24 @56", 144, 24, 1, 56, 56, 1, 1},
    {"mobilenet 1x1 192->32 @28", 192, 32, 1, 28, 28, 1, 1},
    {"mobilenet 1x1 64->384 @14", 64, 384, 1, 14, 14, 1, 1},
    {"mobilenet 1x1 576->96 @14", 576, 96, 1, 14, 14, 1, 1},
    {"mobilenet 1x1 960->320 @7", 960, 320, 1, 7, 7, 1, 1},
    {"mobilenet 1x1 320->1280 @7", 320, 1280, 1, 7, 7, 1, 1},
    {"mobilenet fc 1280->1000", 1280, 1000, 1, 1, 1, 1, 1},
    {"resnet20 3x3 16->16 @32", 16, 16, 1, 32, 32, 3, 1},
    {"resnet20 3x3 32->32 @16", 32, 32, 1, 16, 16, 3, 1},
    {"resnet20 3x3 64->64 @8", 64, 64, 1, 8, 8, 3, 1},
    {"resnet20 3x3 s2 16->32 @16", 16, 32, 1, 16, 16, 3, 2},
    {"image 3x3 16->16 @640x360", 16, 16, 1, 360, 640, 3, 1},
};

static nas__conv conv_of(const layer *l) {
    nas__conv c = {.in_c = l->in_c,
                   .out_c = l->out_c,
                   .groups = l->groups,
                   .out_h = l->out_h,
                   .out_w = l->out_w,
                   .kernel_h = l->kernel,
                   .kernel_w = l->kernel,
                   .stride_h = l->stride,
                   .stride_w = l->stride,
                   .dilation_h = 1,
                   .dilation_w = 1,
                   .in_pitch = l->in_c,
                   .out_pitch = l->out_c,
                   .act = NAS__LACT_RELU};
    const int32_t width = (c.out_w - 1) * c.stride_w + c.kernel_w;
    c.in_row = (size_t)width * (size_t)c.in_pitch;
    c.out_row = (size_t)c.out_w * (size_t)c.out_pitch;
    return c;
}

/* Ten chains of multiply-adds in registers; all ways in turn, each after a peak loop; processor time. */
static const char main_head[] =
    "typedef void kernel(const float *, float *, const float *, const void *, void *, int, int);\n"
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
    "static volatile float sink;\n"
    "static double peak(void) {\n"
    "    vf x = splat(0.73f), y = splat(0.31f), a0 = x, a1 = y, a2 = x + y, a3 = x - y, a4 = x * "
    "y;\n"
    "    vf a5 = a2 * x, a6 = a2 * y, a7 = a3 * x, a8 = a3 * y, a9 = a4 * x;\n"
    "    const double start = now();\n"
    "    for (int i = 0; i < 100000; i++) {\n"
    "        a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y;\n"
    "        a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y;\n"
    "        __asm__ volatile(\"\" ::: \"memory\");\n"
    "    }\n"
    "    const double ns = now() - start;\n"
    "    sink = (a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9)[0];\n"
    "    return 2.0 * 100000 * 10 * LANES / ns;\n"
    "}\n"
    "static int order(const void *a, const void *b) {\n"
    "    const double x = *(const double *)a, y = *(const double *)b;\n"
    "    return (x > y) - (x < y);\n}\n";
static const char main_tail[] =
    "int main(void) {\n"
    "    enum { N = sizeof ways / sizeof ways[0] };\n"
    "    size_t len = 0;\n"
    "    if (cpu_missing(NEEDS, &len) != NULL) return 5;\n"
    "    static double ns[N][ROUNDS], share[N][ROUNDS], top[N][ROUNDS];\n"
    "    float *x = make(N_IN), *y = make(N_OUT), *w = make(N_WEIGHT), *s = make(N_SCRATCH);\n"
    "    for (int k = 0; k < ROUNDS; k++) {\n"
    "        for (int i = 0; i < N; i++) {\n"
    "            double start = now();\n"
    "            ways[i].k(x, y, NULL, w, s, 0, ways[i].units);\n"
    "            const int n = 1 + (int)(5e5 / (now() - start));\n"
    "            const double before = peak();\n"
    "            start = now();\n"
    "            for (int j = 0; j < n; j++) ways[i].k(x, y, NULL, w, s, 0, ways[i].units);\n"
    "            const double t = now() - start;\n"
    "            top[i][k] = 0.5 * (before + peak());\n"
    "            ns[i][k] = t / n;\n"
    "            share[i][k] = FLOP / ns[i][k] / top[i][k];\n"
    "        }\n"
    "    }\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        qsort(ns[i], ROUNDS, sizeof(double), order);\n"
    "        qsort(share[i], ROUNDS, sizeof(double), order);\n"
    "        qsort(top[i], ROUNDS, sizeof(double), order);\n"
    "        printf(\"%.0f %.4f %.2f\\n\", ns[i][ROUNDS / 4], share[i][ROUNDS * 3 / 4], "
    "top[i][ROUNDS / 2]);\n"
    "    }\n"
    "    return 0;\n}\n";

typedef struct figure {
    double ns, share, peak; /* share of the peak of the same moment */
} figure;

static size_t larger(size_t a, size_t b) {
    return a > b ? a : b;
}

static void program_text(const nas_target *target, const nas__conv *c, const nas__conv_way *ways,
                         int32_t n, double flop, nas_buf *text) {
    size_t weights = 0, scratch = 0;
    nas_buf_puts(text, "#define _DEFAULT_SOURCE\n#define _POSIX_C_SOURCE 200809L\n"
                       "#include <stdio.h>\n#include <stdlib.h>\n#include <time.h>\n");
    nas_buf_puts(text, nas__rt_file("cpu_check.h"));
    nas_buf_printf(text, "#define NEEDS \"%s\"\n", target->needs);
    nas__emit_vector_prelude(target, text);
    for (int32_t k = 0; k < n; k++) {
        nas__conv_emit(target, c, &ways[k], text);
        weights = larger(weights, nas__conv_weight_floats(target, c, &ways[k]));
        scratch = larger(scratch, nas__conv_scratch_floats(target, c, &ways[k]));
    }
    nas_buf_puts(text, main_head);
    nas_buf_puts(text, "static const struct { kernel *k; int units; } ways[] = {\n");
    for (int32_t k = 0; k < n; k++) {
        nas_buf_puts(text, "    {");
        nas__conv_name(target, c, &ways[k], text);
        nas_buf_printf(text, ", %d},\n", nas__conv_units(target, c, &ways[k]));
    }
    const size_t in = c->in_row * (size_t)((c->out_h - 1) * c->stride_h + c->kernel_h);
    nas_buf_printf(text,
                   "};\nenum { ROUNDS = %d };\n#define N_IN %zu\n#define N_OUT %zu\n"
                   "#define N_WEIGHT %zu\n#define N_SCRATCH %zu\n#define FLOP %.1f\n",
                   9, in, c->out_row * (size_t)c->out_h, weights, scratch, flop);
    nas_buf_puts(text, main_tail);
}

static void time_ways(nas_ctx *ctx, const nas_target *target, const nas__toolchain *t,
                      const nas__conv *c, const nas__conv_way *ways, int32_t n, double flop,
                      const char *dir, figure *out) {
    nas_buf text = {0};
    program_text(target, c, ways, n, flop, &text);
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
    options.timeout_ms = 600 * 1000;
    nas_process_result result = {0};
    bench_check(ctx, nas_process_run(ctx, &options, &result));
    if (result.exit_code != 0 || result.out.data == NULL) exit(NAS_EXIT_FAILED);
    char *at = result.out.data;
    for (int32_t k = 0; k < n; k++) {
        out[k].ns = strtod(at, &at);
        out[k].share = strtod(at, &at);
        out[k].peak = strtod(at, &at);
    }
    nas_process_result_deinit(&result);
}

static void print_way(const nas_target *target, const nas__conv *c, const nas__conv_way *w,
                      const figure *f) {
    char tile[32];
    (void)snprintf(tile, sizeof tile, "%dx%d/%d/%d", w->pixels, w->vectors,
                   w->batch > 0 ? w->batch : w->outer, w->depth > 0 ? w->depth : w->joined);
    printf("%-9s %-13s %8.1f us %4.0f %% (%d units)", nas__conv_algorithm_name(w->algorithm), tile,
           f->ns / 1e3, 100 * f->share, nas__conv_units(target, c, w));
}

int main(int argc, char **argv) {
    const char *wanted = "", *target = "native";
    bool verbose = false, bf16 = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "-v") == 0)
            verbose = true;
        else if (strcmp(argv[i], "-b") == 0)
            bf16 = true;
        else if (strcmp(argv[i], "-t") == 0 && i + 1 < argc)
            target = argv[++i];
        else
            wanted = argv[i];
    }
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    nas_compile_options options = nas_compile_options_default();
    options.cache_dir = "build/bench-cache";
    bench_check(ctx, nas_target_find(ctx, target, &options.target));
    nas_target row = *options.target;
    row.bf16 = bf16;
    options.target = &row;
    nas__toolchain t;
    bench_check(ctx, nas__toolchain_open(ctx, &options, &t));
    char dir[512];
    bench_check(ctx, nas__cache_work_dir(ctx, options.cache_dir, sizeof dir, dir));
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        if (strstr(layers[i].name, wanted) == NULL) continue;
        const nas__conv c = conv_of(&layers[i]);
        const double flop =
            2.0 * c.out_h * c.out_w * c.out_c * c.kernel_h * c.kernel_w * (c.in_c / c.groups);
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        figure figures[NAS__CONV_WAYS_MAX];
        const int32_t n = nas__conv_ways(options.target, &c, ways);
        time_ways(ctx, options.target, &t, &c, ways, n, flop, dir, figures);
        int32_t best = 0;
        for (int32_t k = 0; k < n; k++) {
            if (figures[k].share > figures[best].share) best = k;
            if (!verbose) continue;
            printf("    ");
            print_way(options.target, &c, &ways[k], &figures[k]);
            /* two multiply-adds a cycle */
            const double cycles = figures[k].ns * figures[k].peak / options.target->vector_bytes;
            printf(", estimate / measured cycles %.2f\n", ways[k].cycles / cycles);
        }
        printf("%-30s best ", layers[i].name);
        print_way(options.target, &c, &ways[best], &figures[best]);
        printf("  chosen ");
        print_way(options.target, &c, &ways[0], &figures[0]);
        printf("  ratio %.2f, peak loop %.0f\n", figures[0].share / figures[best].share,
               figures[0].peak);
        (void)fflush(stdout);
    }
    bench_check(ctx, nas_remove_tree(ctx, dir));
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
