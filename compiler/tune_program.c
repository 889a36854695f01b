/* tune_program.c - the text of a tuning program: all kernels of one convolution, run by turns on random data.
 *
 *     tune [--threads N] [--max-time-ms N] [other options of a bench, each with a value: not read]
 * prints one line a way: "index p50 lo hi runs difference", times in ns, and last "peak" with GFLOP/s. With --bench as the
 * first argument, as an agent starts it, the lines are the text member "timings" of a JSON object. */
#include "compiler/tune_internal.h"

#include <string.h>

static const char program_head[] =
    "#define _GNU_SOURCE\n#include <errno.h>\n#include <stddef.h>\n#include <stdint.h>\n"
    "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n#include <time.h>\n\n";

static const char program_types[] =
    "typedef void kernel(const ELEMENT *, ELEMENT *, const ELEMENT *, const void *, void *, int, "
    "int);\n"
    "typedef struct candidate {\n"
    "    kernel *run;\n    size_t scratch;\n    int units;\n} candidate;\n\n"
    "/* The packed weights of all ways, each behind 64 bytes that begin with its size. */\n"
    "extern const unsigned char tune_weights[];\n\n";

static const char program_clock[] =
    "enum { N = sizeof ways / sizeof ways[0], ROUNDS_MIN = 3, ROUNDS_MAX = 65 };\n"
    "static double samples[N][ROUNDS_MAX], peaks[ROUNDS_MAX], difference[N];\n"
    "static const void *weights[N];\n"
    "static char *scratch[POOL_THREADS_MAX];\n"
    "static ELEMENT *in, *out, *first, *residual;\n"
    "static pool workers;\n\n"
    "static clockid_t work = CLOCK_THREAD_CPUTIME_ID; /* other programs' turns do not count */\n\n"
    "static double read_ns(clockid_t clock) {\n"
    "    struct timespec t;\n    clock_gettime(clock, &t);\n"
    "    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;\n}\n"
    "static double step_ns(void) {\n"
    "    const double start = read_ns(work);\n    double next = start;\n"
    "    for (long k = 0; next == start && k < 1000000; k++) next = read_ns(work);\n"
    "    return next - start;\n}\n"
    "static void choose_clock(int threads) { /* some systems count the work in ticks of "
    "milliseconds */\n"
    "    (void)step_ns();\n    const double step = step_ns();\n"
    "    if (threads > 1 || step <= 0 || step > 20e3) work = CLOCK_MONOTONIC;\n}\n"
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
    "static void *take(size_t bytes) {\n"
    "    void *p = NULL;\n"
    "    if (posix_memalign(&p, 64, bytes + 64) != 0) {\n"
    "        fprintf(stderr, \"no memory for %zu bytes\\n\", bytes);\n        exit(3);\n    }\n"
    "    return memset(p, 0, bytes + 64);\n}\n"
    "static unsigned next_random(unsigned *seed) {\n"
    "    return *seed = *seed * 1664525u + 1013904223u;\n}\n";

static const char floats_text[] =
    "static void *take_random(size_t n, unsigned seed) {\n"
    "    float *p = take(n);\n"
    "    for (size_t i = 0; i < n / sizeof *p; i++)\n"
    "        p[i] = (float)(next_random(&seed) >> 8) / 8388608.0f - 1.0f;\n"
    "    return p;\n}\n"
    "static void check(int i) { /* NaN stays: it differs from everything */\n"
    "    double most = 0, size = 0;\n"
    "    for (size_t k = 0; k < OUT / sizeof(float); k++) {\n"
    "        const double d = (double)out[k] - first[k], v = first[k];\n"
    "        if (most == most && !(d <= most && -d <= most)) most = d < 0 ? -d : d;\n"
    "        if (size == size && !(v <= size && -v <= size)) size = v < 0 ? -v : v;\n    }\n"
    "    difference[i] = most / (size + 1e-30);\n}\n";

static const char codes_text[] =
    "static void *take_random(size_t n, unsigned seed) {\n"
    "    unsigned char *p = take(n);\n"
    "    for (size_t i = 0; i < n; i++) p[i] = (unsigned char)(next_random(&seed) >> 24);\n"
    "    return p;\n}\n"
    "static void check(int i) { /* codes are equal or wrong */\n"
    "    difference[i] = memcmp(out, first, OUT) == 0 ? 0 : 1;\n}\n";

static const char program_run[] =
    "static void share(void *arg, int thread, int threads) {\n"
    "    const int i = *(const int *)arg;\n"
    "    const long long units = ways[i].units;\n"
    "    const int from = (int)(units * thread / threads), to = (int)(units * (thread + 1) / "
    "threads);\n"
    "    if (from < to) ways[i].run(in, out, residual, weights[i], scratch[thread], from, to);\n}\n"
    "static double run(int i, long times) {\n"
    "    const double start = read_ns(work);\n"
    "    for (long k = 0; k < times; k++) pool_run(&workers, share, &i);\n"
    "    return read_ns(work) - start;\n}\n"
    "static int by_value(const void *a, const void *b) {\n"
    "    const double x = *(const double *)a, y = *(const double *)b;\n"
    "    return (x > y) - (x < y);\n}\n\n"
    "static void open_all(int threads) {\n"
    "    size_t most = 0;\n"
    "    const unsigned char *at = tune_weights;\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        unsigned long long bytes = 0;\n"
    "        memcpy(&bytes, at, sizeof bytes);\n"
    "        weights[i] = at + 64;\n"
    "        at += 64 + bytes;\n"
    "        if (ways[i].scratch > most) most = ways[i].scratch;\n    }\n"
    "    for (int t = 0; t < threads; t++) scratch[t] = take(most);\n"
    "    in = take_random(IN, 1);\n    residual = RESIDUAL > 0 ? take_random(RESIDUAL, 2) : NULL;\n"
    "    out = take(OUT);\n    first = take(OUT);\n"
    "    if (pool_open(&workers, threads) != 0) {\n"
    "        fprintf(stderr, \"%d threads cannot be started\\n\", threads);\n        exit(3);\n    "
    "}\n}\n";

static const char program_main[] =
    "static int measure(double seconds) {\n"
    "    double slice_ns = seconds * 1e9 / (N * ROUNDS_MIN * 2.0);\n"
    "    if (slice_ns > 2e6) slice_ns = 2e6;\n"
    "    long times[N];\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        memset(out, 0, OUT);\n        (void)run(i, 1);\n"
    "        if (i == 0) memcpy(first, out, OUT);\n        check(i);\n"
    "        const double once = run(i, 1);\n"
    "        times[i] = once < slice_ns ? (long)(slice_ns / (once + 1)) + 1 : 1;\n    }\n"
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
    "    return rounds;\n}\n"
    "static void print(int rounds, const char *end) {\n"
    "    for (int i = 0; i < N; i++) {\n"
    "        qsort(samples[i], (size_t)rounds, sizeof samples[i][0], by_value);\n"
    "        printf(\"%d %.9g %.9g %.9g %d %.3g%s\", i, samples[i][rounds / 2],\n"
    "               samples[i][rounds / 4], samples[i][rounds - 1 - rounds / 4], rounds, "
    "difference[i], end);\n"
    "    }\n"
    "    qsort(peaks, (size_t)rounds, sizeof peaks[0], by_value);\n"
    "    printf(\"peak %.9g%s\", peaks[rounds / 2], end);\n}\n"
    "int main(int argc, char **argv) {\n"
    "    const int bench = argc > 1 && strcmp(argv[1], \"--bench\") == 0;\n"
    "    long threads = 1, ms = 100;\n"
    "    for (int i = 1 + bench; i + 1 < argc; i += 2) {\n"
    "        if (strcmp(argv[i], \"--threads\") == 0) threads = strtol(argv[i + 1], NULL, 10);\n"
    "        if (strcmp(argv[i], \"--max-time-ms\") == 0) ms = strtol(argv[i + 1], NULL, 10);\n"
    "    }\n"
    "    if (threads < 1 || threads > POOL_THREADS_MAX || ms < 1) return 2;\n"
    "    size_t len = 0;\n"
    "    const char *missing = cpu_missing(NEEDS, &len);\n"
    "    if (missing != NULL) {\n"
    "        fprintf(stderr, \"this processor lacks %.*s\\n\", (int)len, missing);\n"
    "        return 2;\n    }\n"
    "    choose_clock((int)threads);\n    open_all((int)threads);\n"
    "    const int rounds = measure((double)ms * 1e-3);\n"
    "    if (bench) printf(\"{\\\"timings\\\": \\\"\");\n"
    "    print(rounds, bench ? \"\\\\n\" : \"\\n\");\n"
    "    if (bench) printf(\"\\\"}\\n\");\n"
    "    pool_close(&workers);\n"
    "    return 0;\n}\n";

/* Elements from pixel (0,0) to the end of the last one that a kernel may touch. */
static size_t extent(int32_t height, int32_t width, size_t row, int32_t pitch, int32_t channels) {
    return (size_t)(height - 1) * row + (size_t)(width - 1) * (size_t)pitch + (size_t)channels;
}

static int32_t in_height(const nas__conv *c) {
    return (c->out_h - 1) * c->stride_h + (c->kernel_h - 1) * c->dilation_h + 1;
}

static size_t in_elements(const nas__conv *c) {
    const int32_t height = in_height(c);
    const int32_t width = (c->out_w - 1) * c->stride_w + (c->kernel_w - 1) * c->dilation_w + 1;
    return extent(height, width, c->in_row, c->in_pitch, c->in_c);
}

/* ---- what differs between floats and codes ------------------------------------------------------------------------- */

void nas__tune_emit_prelude(const nas_target *target, const nas__tune_subject *s, nas_buf *out) {
    if (s->rows != NULL) {
        nas__tune_rows_prelude(s, out);
        return;
    }
    nas__emit_vector_prelude(target, out);
    if (s->qconv != NULL) nas__emit_quant_prelude(target, out);
}

void nas__tune_emit_way(const nas_target *target, const nas__tune_subject *s, int32_t way,
                        nas_buf *out) {
    if (s->rows != NULL) {
        nas__tune_rows_emit_way(s, way, out);
    } else if (s->qconv != NULL) {
        nas__qconv_emit(target, s->qconv, &s->qways[way], out);
    } else {
        nas__conv_emit(target, s->conv, &s->ways[way], out);
    }
}

void nas__tune_function_name(const nas_target *target, const nas__tune_subject *s, int32_t way,
                             nas_buf *out) {
    if (s->rows != NULL) {
        nas__tune_rows_function_name(s, way, out);
    } else if (s->qconv != NULL) {
        nas__qconv_name(target, s->qconv, &s->qways[way], out);
    } else {
        nas__conv_name(target, s->conv, &s->ways[way], out);
    }
}

const char *nas__tune_way_name(const nas__tune_subject *s, int32_t way) {
    if (s->rows != NULL) return nas__tune_rows_way_name(s, way);
    return s->qconv != NULL ? nas__qconv_algorithm_name(s->qways[way].algorithm)
                            : nas__conv_algorithm_name(s->ways[way].algorithm);
}

static size_t scratch_bytes(const nas_target *target, const nas__tune_subject *s, int32_t way) {
    if (s->rows != NULL) return nas__tune_rows_scratch(s, way);
    return s->qconv != NULL
               ? nas__qconv_scratch_bytes(target, s->qconv, &s->qways[way])
               : nas__conv_scratch_floats(target, s->conv, &s->ways[way]) * sizeof(float);
}

static int32_t units_of(const nas_target *target, const nas__tune_subject *s, int32_t way) {
    if (s->rows != NULL) return nas__tune_rows_units(s, way);
    return s->qconv != NULL ? nas__qconv_units(target, s->qconv, &s->qways[way])
                            : nas__conv_units(target, s->conv, &s->ways[way]);
}

static bool equal_ways(const nas__tune_subject *s, int32_t i, int32_t k) {
    if (s->rows != NULL) return false;
    if (s->qconv != NULL) {
        const nas__qconv_way *a = &s->qways[i], *b = &s->qways[k];
        return a->algorithm == b->algorithm && a->pixels == b->pixels && a->vectors == b->vectors &&
               a->stored_bits == b->stored_bits && a->split == b->split && a->sums16 == b->sums16 &&
               a->batch == b->batch && a->group == b->group;
    }
    const nas__conv_way *a = &s->ways[i], *b = &s->ways[k];
    return a->algorithm == b->algorithm && a->pixels == b->pixels && a->vectors == b->vectors &&
           a->outer == b->outer && a->batch == b->batch && a->depth == b->depth &&
           a->group == b->group && a->joined == b->joined;
}

/* ---- the text ------------------------------------------------------------------------------------------------------ */

static void emit_kernels(const nas_target *target, const nas__tune_subject *s, nas_buf *out) {
    for (int32_t i = 0; i < s->n; i++) {
        bool seen = false;
        for (int32_t k = 0; k < i; k++)
            seen = seen || equal_ways(s, i, k);
        if (!seen) nas__tune_emit_way(target, s, i, out);
    }
}

static void emit_sizes(const nas__tune_subject *s, nas_buf *out) {
    static const char sizes[] = "\n#define ELEMENT %s\n#define IN ((size_t)%zu)\n"
                                "#define OUT ((size_t)%zu)\n#define RESIDUAL ((size_t)%zu)\n";
    if (s->rows != NULL) {
        nas_buf_printf(out, sizes, "float", sizeof(float) * nas__tune_rows_in(s),
                       sizeof(float) * nas__tune_rows_out(s), (size_t)0);
        return;
    }
    const nas__conv *c = s->qconv != NULL ? &s->qconv->conv : s->conv;
    const size_t element = s->qconv != NULL ? 1 : sizeof(float);
    size_t residual = c->has_residual
                          ? extent(c->out_h, c->out_w, c->residual_row, c->residual_pitch, c->out_c)
                          : 0;
    size_t in = in_elements(c),
           result = extent(c->out_h, c->out_w, c->out_row, c->out_pitch, c->out_c);
    if (s->qconv != NULL && s->qconv->out_plane > 0) { /* whole rows of planes */
        if (s->qconv->in_plane > 0) in = (size_t)in_height(c) * c->in_row;
        result = (size_t)c->out_h * c->out_row;
        residual = (size_t)c->out_h * c->residual_row;
    }
    nas_buf_printf(out, sizes, s->qconv != NULL ? "void" : "float", element * in, element * result,
                   element * residual);
}

void nas__tune_emit_program(const nas_target *target, const nas__tune_subject *s, nas_buf *out) {
    nas_buf_puts(out, program_head);
    nas_buf_puts(out, "#define POOL_THREADS_MAX 64\n");
    nas_buf_puts(out, nas__rt_file("pool.c"));
    nas_buf_puts(out, nas__rt_file("cpu_check.h"));
    nas_buf_printf(out, "#define NEEDS \"%s\"\n", target->needs != NULL ? target->needs : "");
    nas__tune_emit_prelude(target, s, out);
    emit_kernels(target, s, out);
    emit_sizes(s, out);
    nas_buf_puts(out, program_types);
    nas_buf_puts(out, "static const candidate ways[] = {\n");
    for (int32_t i = 0; i < s->n; i++) {
        nas_buf_puts(out, "    {");
        nas__tune_function_name(target, s, i, out);
        nas_buf_printf(out, ", %zu, %d},\n", scratch_bytes(target, s, i), units_of(target, s, i));
    }
    nas_buf_puts(out, "};\n");
    nas_buf_puts(out, program_clock);
    nas_buf_puts(out, s->qconv != NULL ? codes_text : floats_text);
    nas_buf_puts(out, program_run);
    nas_buf_puts(out, program_main);
}
