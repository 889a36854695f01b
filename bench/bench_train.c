/* bench_train.c - throughput of the trainer: WDSR-B, 16 channels, 5 blocks, 16 patches of 48x48, x2.
 *
 * Prints images/s and GFLOP/s of whole steps (forward, backward, Adam) on one and two threads beside a register-only
 * multiply-add loop that ran just before each step, because the speed of a shared machine changes by the second.
 * Usage: bench_train [rounds] [channels] [blocks] */
#include "eval/eval.h"
#include "eval/train_kernels.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROUNDS = 15, ROUNDS_MAX = 1000, BATCH = 16, PATCH = 48, SCALE = 2 };

/* ---- the machine's peak ------------------------------------------------------------------------------------- */

#if defined(__x86_64__)
/* Instructions rather than intrinsics: this file is built for the baseline instruction set. Twelve independent
 * accumulators hide the latency of a fused multiply-add. */
static void spin_avx512(int64_t n) {
    __asm__ volatile(
        "1:\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm0\n vfmadd231ps %%zmm12, %%zmm13, %%zmm1\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm2\n vfmadd231ps %%zmm12, %%zmm13, %%zmm3\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm4\n vfmadd231ps %%zmm12, %%zmm13, %%zmm5\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm6\n vfmadd231ps %%zmm12, %%zmm13, %%zmm7\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm8\n vfmadd231ps %%zmm12, %%zmm13, %%zmm9\n"
        "vfmadd231ps %%zmm12, %%zmm13, %%zmm10\n vfmadd231ps %%zmm12, %%zmm13, %%zmm11\n"
        "dec %0\n jnz 1b\n vzeroupper\n"
        : "+r"(n)
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "cc");
}

static void spin_avx2(int64_t n) {
    __asm__ volatile(
        "1:\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm0\n vfmadd231ps %%ymm12, %%ymm13, %%ymm1\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm2\n vfmadd231ps %%ymm12, %%ymm13, %%ymm3\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm4\n vfmadd231ps %%ymm12, %%ymm13, %%ymm5\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm6\n vfmadd231ps %%ymm12, %%ymm13, %%ymm7\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm8\n vfmadd231ps %%ymm12, %%ymm13, %%ymm9\n"
        "vfmadd231ps %%ymm12, %%ymm13, %%ymm10\n vfmadd231ps %%ymm12, %%ymm13, %%ymm11\n"
        "dec %0\n jnz 1b\n vzeroupper\n"
        : "+r"(n)
        :
        : "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10",
          "xmm11", "xmm12", "xmm13", "cc");
}
#endif

static void *spin(void *arg) {
    const int64_t *n = arg;
#if defined(__x86_64__)
    if (nas__kernels_best() == &nas__kernels_avx512)
        spin_avx512(*n);
    else if (nas__kernels_best() == &nas__kernels_avx2)
        spin_avx2(*n);
#else
    (void)n;
#endif
    return NULL;
}

/* GFLOP/s of `threads` threads together; 0 where there is no loop for this CPU. */
static double measure_peak(int threads) {
    const int32_t lanes = nas__kernels_best()->lanes;
    if (lanes < 8) return 0.0;
    int64_t n = 2000000;
    pthread_t other;
    const int64_t begin = nas_now_ns();
    const bool second = threads > 1 && pthread_create(&other, NULL, spin, &n) == 0;
    (void)spin(&n);
    if (second) pthread_join(other, NULL);
    const double flops = (double)n * 12 * 2 * lanes * (second ? 2 : 1);
    return flops / (double)(nas_now_ns() - begin);
}

/* ---- the network ----------------------------------------------------------------------------------------------- */

typedef struct maker {
    nas_ctx *ctx;
    nas_graph *g;
    nas_status status;
} maker;

static nas_value conv(maker *m, const char *name, nas_value x, int32_t channels, int32_t kernel) {
    const nas_conv_attributes a = nas_conv_same(channels, kernel);
    nas_value out = NAS_VALUE_NONE;
    if (m->status == NAS_OK) m->status = nas_graph_add_conv(m->ctx, m->g, name, x, &a, &out);
    return out;
}

static nas_value block(maker *m, int32_t index, nas_value x, int32_t channels) {
    char name[64];
    nas_value relu = NAS_VALUE_NONE, sum = NAS_VALUE_NONE;
    (void)snprintf(name, sizeof name, "block%d.expand", (int)index);
    nas_value v = conv(m, name, x, channels * 6, 1);
    (void)snprintf(name, sizeof name, "block%d.relu", (int)index);
    if (m->status == NAS_OK) m->status = nas_graph_add_relu(m->ctx, m->g, name, v, &relu);
    (void)snprintf(name, sizeof name, "block%d.project", (int)index);
    v = conv(m, name, relu, channels * 3 / 4, 1);
    (void)snprintf(name, sizeof name, "block%d.conv", (int)index);
    v = conv(m, name, v, channels, 3);
    (void)snprintf(name, sizeof name, "block%d.add", (int)index);
    if (m->status == NAS_OK) m->status = nas_graph_add_add(m->ctx, m->g, name, x, v, &sum);
    return sum;
}

static nas_graph *wdsr_b(nas_ctx *ctx, int32_t channels, int32_t blocks) {
    maker m = {.ctx = ctx, .g = nas_graph_new(ctx, "wdsr_b")};
    if (m.g == NULL) return NULL;
    nas_value in = NAS_VALUE_NONE, x = NAS_VALUE_NONE, v = NAS_VALUE_NONE;
    const nas_shape shape = {1, PATCH, PATCH, 3};
    m.status = nas_graph_add_input(ctx, m.g, "input", shape, &in);
    if (m.status == NAS_OK) m.status = nas_graph_add_scalar(ctx, m.g, "center", in, -0.5f, &x);
    nas_value body = conv(&m, "head", x, channels, 3);
    for (int32_t i = 0; i < blocks; i++)
        body = block(&m, i, body, channels);
    const nas_value tail = conv(&m, "tail", body, 3 * SCALE * SCALE, 3);
    const nas_value skip = conv(&m, "skip", x, 3 * SCALE * SCALE, 5);
    if (m.status == NAS_OK) m.status = nas_graph_add_add(ctx, m.g, "sum", tail, skip, &v);
    if (m.status == NAS_OK)
        m.status = nas_graph_add_depth_to_space(ctx, m.g, "shuffle", v, SCALE, &v);
    if (m.status == NAS_OK) m.status = nas_graph_add_scalar(ctx, m.g, "restore", v, 0.5f, &v);
    if (m.status == NAS_OK) m.status = nas_graph_set_output(ctx, m.g, v);
    if (m.status == NAS_OK) return m.g;
    nas_graph_free(m.g);
    return NULL;
}

/* ---- steps -------------------------------------------------------------------------------------------------------- */

static int by_value(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y ? 1 : 0;
}

static nas_status one_step(nas_ctx *ctx, nas_trainer *t, const nas_graph *g, const float *lr,
                           const float *hr) {
    double loss = 0.0;
    nas_status status = nas_trainer_accumulate(ctx, t, g, lr, hr, &loss);
    if (status == NAS_OK) status = nas_trainer_apply(ctx, t);
    return status;
}

static nas_status measure(nas_ctx *ctx, const nas_graph *g, nas_weights *weights, const float *lr,
                          const float *hr, int threads, int rounds) {
    nas_train_options options = nas_train_options_default();
    options.threads = threads;
    options.batch = BATCH;
    options.patch = PATCH;
    options.scale = SCALE;
    options.learning_rate = 1e-4;
    nas_trainer *t = NULL;
    nas_status status = nas_trainer_new(ctx, weights, &options, &t);
    if (status != NAS_OK) return status;
    double seconds[ROUNDS_MAX], peaks[ROUNDS_MAX], shares[ROUNDS_MAX];
    status = one_step(ctx, t, g, lr, hr); /* warm-up */
    const double flops = (double)nas_trainer_flops(t);
    for (int r = 0; status == NAS_OK && r < rounds; r++) {
        peaks[r] = measure_peak(threads);
        const int64_t begin = nas_now_ns();
        status = one_step(ctx, t, g, lr, hr);
        seconds[r] = (double)(nas_now_ns() - begin) * 1e-9;
        shares[r] = peaks[r] > 0 ? flops / seconds[r] * 1e-9 / peaks[r] : 0;
    }
    nas_trainer_free(t);
    if (status != NAS_OK) return status;
    qsort(seconds, (size_t)rounds, sizeof *seconds, by_value);
    qsort(peaks, (size_t)rounds, sizeof *peaks, by_value);
    qsort(shares, (size_t)rounds, sizeof *shares, by_value);
    const double median = seconds[rounds / 2];
    printf("threads %d: median %.1f ms = %.0f images/s, %.0f GFLOP/s; best %.0f images/s; "
           "multiply-add peak %.0f GFLOP/s (best %.0f), share %.0f %%\n",
           threads, median * 1e3, BATCH / median, flops / median * 1e-9, BATCH / seconds[0],
           peaks[rounds / 2], peaks[rounds - 1], 100 * shares[rounds / 2]);
    return NAS_OK;
}

static nas_status run(nas_ctx *ctx, int rounds, int32_t channels, int32_t blocks) {
    nas_graph *g = wdsr_b(ctx, channels, blocks);
    const size_t small = (size_t)BATCH * 3 * PATCH * PATCH, large = small * SCALE * SCALE;
    float *lr = nas_alloc_array(ctx, small, sizeof *lr),
          *hr = nas_alloc_array(ctx, large, sizeof *hr);
    nas_weights *weights = NULL;
    nas_rng rng = nas_rng_stream(1, 0, "bench_train");
    nas_status status = g != NULL && lr != NULL && hr != NULL ? NAS_OK : nas_ctx_status(ctx);
    if (status == NAS_OK) status = nas_weights_new(ctx, g, &rng, &weights);
    if (status == NAS_OK) {
        for (size_t i = 0; i < small; i++)
            lr[i] = (float)nas_rng_uniform(&rng);
        for (size_t i = 0; i < large; i++)
            hr[i] = (float)nas_rng_uniform(&rng);
        nas_graph_cost cost;
        status = nas_graph_cost_total(ctx, g, &cost);
        printf("WDSR-B x%d, %d channels, %d blocks, %" PRIu64 " parameters, %d patches of %dx%d, "
               "fp32, kernels %s\n",
               SCALE, (int)channels, (int)blocks, cost.params, BATCH, PATCH, PATCH,
               nas__kernels_best()->name);
    }
    for (int threads = 1; status == NAS_OK && threads <= 2; threads++) {
        status = measure(ctx, g, weights, lr, hr, threads, rounds);
    }
    nas_weights_free(weights);
    nas_free(hr);
    nas_free(lr);
    nas_graph_free(g);
    return status;
}

static int32_t argument(int argc, char **argv, int index, int32_t fallback, int32_t max) {
    const long value = argc > index ? strtol(argv[index], NULL, 10) : fallback;
    return value < 1 || value > max ? fallback : (int32_t)value;
}

int main(int argc, char **argv) {
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) return NAS_EXIT_FAILED;
    const nas_status status = run(ctx, argument(argc, argv, 1, ROUNDS, ROUNDS_MAX),
                                  argument(argc, argv, 2, 16, 256), argument(argc, argv, 3, 5, 64));
    if (status != NAS_OK) fprintf(stderr, "bench_train: %s\n", nas_ctx_message(ctx));
    nas_ctx_free(ctx);
    return nas_exit_code(status);
}
