/* bench_layer_qconv.c - integer convolutions beside the direct fp32 kernels of the same layer, one pinned thread. Both are in
 * one program and take turns, so that the state of the machine is the same for both; times are processor time.
 *     bench_layer_qconv [part of a layer's name [ways [skip]]]
 * ways: how many of the integer ways to time, 3; skip: how many of the direct fp32 ways to leave out, 0 */
#include "compiler/layers_q_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void bench_check(const nas_ctx *ctx, nas_status status) {
    if (status == NAS_OK) return;
    (void)fprintf(stderr, "%s\n", nas_ctx_message(ctx));
    exit(NAS_EXIT_FAILED);
}

static const struct {
    const char *name;
    int32_t in_c, out_c, groups, out_h, out_w, kernel, stride;
} layers[] = {
    {"3x3 16->16 @640x360", 16, 16, 1, 360, 640, 3, 1},
    {"3x3 64->64 @56", 64, 64, 1, 56, 56, 3, 1},
    {"1x1 256->64 @56", 256, 64, 1, 56, 56, 1, 1},
    {"1x1 64->256 @56", 64, 256, 1, 56, 56, 1, 1},
    {"3x3 s2 64->128 @56", 64, 128, 1, 28, 28, 3, 2},
    {"3x3 512->512 @7", 512, 512, 1, 7, 7, 3, 1},
    {"7x7 s2 3->64 @224", 3, 64, 1, 112, 112, 7, 2},
    {"fc 2048->1000", 2048, 1000, 1, 1, 1, 1, 1},
    {"dw3x3 144 @56", 144, 144, 144, 56, 56, 3, 1},
};

static nas__conv conv_of(size_t i) {
    nas__conv c = {.in_c = layers[i].in_c,
                   .out_c = layers[i].out_c,
                   .groups = layers[i].groups,
                   .out_h = layers[i].out_h,
                   .out_w = layers[i].out_w,
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

static const char main_head[] =
    "static void *make(size_t n) {\n"
    "    void *p = NULL;\n"
    "    if (posix_memalign(&p, 64, n + 64) != 0) exit(4);\n"
    "    memset(p, 0, n + 64);\n    return p;\n}\n"
    "static double now(void) {\n"
    "    struct timespec t;\n    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);\n"
    "    return 1e9 * (double)t.tv_sec + (double)t.tv_nsec;\n}\n"
    "static int order(const void *a, const void *b) {\n"
    "    const double x = *(const double *)a, y = *(const double *)b;\n"
    "    return (x > y) - (x < y);\n}\n"
    "int main(void) {\n"
    "    cpu_set_t one;\n    CPU_ZERO(&one);\n    CPU_SET(0, &one);\n"
    "    (void)sched_setaffinity(0, sizeof one, &one);\n"
    "    double ns[2][21], ratio[21];\n";

/* Times one pair; ns[0] fp32, ns[1] int8, ns[2] the median of the ratios. */
static void time_pair(nas_ctx *ctx, const nas_target *target, const nas__toolchain *t,
                      const nas__conv *c, const nas__conv_way *way, const nas__qconv *q,
                      const nas__qconv_way *qway, const char *dir, double ns[3]) {
    nas_buf text = {0};
    nas_buf_puts(&text, "#define _GNU_SOURCE\n#include <sched.h>\n#include <stdio.h>\n"
                        "#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n");
    nas__emit_vector_prelude(target, &text);
    nas__emit_quant_prelude(target, &text);
    nas__conv_emit(target, c, way, &text);
    nas__qconv_emit(target, q, qway, &text);
    nas_buf_puts(&text, main_head);
    const size_t in = c->in_row * (size_t)((c->out_h - 1) * c->stride_h + c->kernel_h);
    const size_t out = c->out_row * (size_t)c->out_h;
    nas_buf_printf(&text,
                   "    void *x = make(%zu), *y = make(%zu), *w = make(%zu), *s = make(%zu);\n",
                   4 * in, 4 * out, 4 * nas__conv_weight_floats(target, c, way),
                   4 * nas__conv_scratch_floats(target, c, way));
    nas_buf_printf(
        &text, "    void *qx = make(%zu), *qy = make(%zu), *qw = make(%zu), *qs = make(%zu);\n", in,
        out, nas__qconv_weight_bytes(target, q, qway), nas__qconv_scratch_bytes(target, q, qway));
    nas_buf_puts(&text, "    for (int k = 0; k < 42; k++) {\n"
                        "        const double start = now();\n        int n = 0;\n"
                        "        double spent = 0;\n        do {\n"
                        "            if (k % 2 == 0) ");
    nas__conv_name(target, c, way, &text);
    nas_buf_printf(&text, "(x, y, NULL, w, s, 0, %d);\n            else ",
                   nas__conv_units(target, c, way));
    nas__qconv_name(target, q, qway, &text);
    nas_buf_printf(&text, "(qx, qy, NULL, qw, qs, 0, %d);\n", nas__qconv_units(target, q, qway));
    nas_buf_puts(&text, "            n++;\n            spent = now() - start;\n"
                        "        } while (spent < 4e6);\n        ns[k % 2][k / 2] = spent / n;\n"
                        "        ratio[k / 2] = ns[0][k / 2] / ns[1][k / 2];\n    }\n"
                        "    qsort(ns[0], 21, 8, order);\n    qsort(ns[1], 21, 8, order);\n"
                        "    qsort(ratio, 21, 8, order);\n"
                        "    printf(\"%.0f %.0f %.4f\\n\", ns[0][10], ns[1][10], ratio[10]);\n"
                        "    return 0;\n}\n");
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
    if (result.exit_code != 0 || result.out.data == NULL ||
        sscanf(result.out.data, "%lf %lf %lf", &ns[0], &ns[1], &ns[2]) != 3)
        exit(NAS_EXIT_FAILED);
    nas_process_result_deinit(&result);
}

static bool is_direct(nas__conv_algorithm algorithm) {
    return algorithm != NAS__CONV_WINOGRAD_2 && algorithm != NAS__CONV_WINOGRAD_4;
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
    const int32_t most = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 3;
    for (size_t i = 0; i < sizeof layers / sizeof layers[0]; i++) {
        if (argc > 1 && strstr(layers[i].name, argv[1]) == NULL) continue;
        const nas__conv c = conv_of(i);
        nas__conv_way ways[NAS__CONV_WAYS_MAX];
        const int32_t n = nas__conv_ways(options.target, &c, ways);
        int32_t direct = 0, skip = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 0;
        while (direct + 1 < n && (!is_direct(ways[direct].algorithm) || skip-- > 0))
            direct++;
        for (int32_t bits = 8; bits >= 4; bits -= 4) {
            const nas__qconv q = {.conv = c, .weight_bits = bits};
            nas__qconv_way qways[NAS__QCONV_WAYS_MAX];
            const int32_t qn = nas__qconv_ways(options.target, &q, qways);
            for (int32_t k = 0; k < qn && k < (bits == 8 ? most : qn); k++) {
                if (bits == 4 && (qways[k].stored_bits != 4 || k > 3)) continue;
                double ns[3];
                time_pair(ctx, options.target, &t, &c, &ways[direct], &q, &qways[k], dir, ns);
                const double macs = (double)c.out_h * c.out_w * c.out_c * c.kernel_h * c.kernel_w *
                                    (c.in_c / c.groups);
                printf("%-20s fp32 %-9s %2dx%d %9.1f us | int8 %-9s w%-2d %2dx%-2d %9.1f us, %6.1f "
                       "GMAC/s, estimate %9.0f cycles | %.2fx\n",
                       layers[i].name, nas__conv_algorithm_name(ways[direct].algorithm),
                       ways[direct].pixels, ways[direct].vectors, ns[0] / 1e3,
                       nas__qconv_algorithm_name(qways[k].algorithm), qways[k].stored_bits,
                       qways[k].pixels, qways[k].vectors, ns[1] / 1e3, macs / ns[1],
                       qways[k].cycles, ns[2]);
                (void)fflush(stdout);
            }
        }
    }
    bench_check(ctx, nas_remove_tree(ctx, dir));
    nas_ctx_free(ctx);
    return NAS_EXIT_OK;
}
