/* bench_main.c - main program of an emitted executable: --run, --bench and --info over the functions of model.h.
 *
 * Travels as text into emitted programs, so it stands on C99, pthreads and Linux alone: no core/, no libm. --bench is
 * the measuring loop of device-agent/protocol.h: pin, open, first inference, warm-up, batches, order statistics, one
 * JSON document on stdout. Here are the modes and options; bench_batches.h has that loop, bench_document.h the document. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "bench_batches.h"
#include "bench_document.h"
#include "bench_state.h"
#include "conditions.h"
#include "cpu_check.h"
#include "cpus.h"
#include "model.h"
#include "model_facts.h"
#include "npy.h"
#include "ranks.h"

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int parse_long(const char *name, const char *text, long lo, long hi, long *out) {
    char *end = NULL;
    errno = 0;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || errno != 0 || value < lo || value > hi) {
        fprintf(stderr, "%s %s: need a whole number from %ld to %ld\n", name, text, lo, hi);
        return -1;
    }
    *out = value;
    return 0;
}

/* ---- modes --------------------------------------------------------------------------------------------------- */

static int buffers_open(bench *b) {
    b->arena = memory("arena", (size_t)MODEL_ARENA_BYTES);
    b->in = memory("input", input_floats() * sizeof(float));
    b->out = memory("output", output_floats() * sizeof(float));
    return b->arena != NULL && b->in != NULL && b->out != NULL ? 0 : -1;
}

static void buffers_close(bench *b) {
    free(b->out);
    free(b->in);
    free(b->arena);
}

static int open_model(bench *b) {
    const int code = model_open(b->arena, (int)b->o.threads);
    if (code != 0)
        fprintf(stderr, "model_open with %ld threads: %s\n", b->o.threads, strerror(code));
    return code == 0 ? 0 : -1;
}

/* Same values in every process: an LCG mapped to [0, 1). */
static void fill_input(float *in, size_t n) {
    uint32_t x = 12345u;
    for (size_t i = 0; i < n; i++) {
        x = x * 1664525u + 1013904223u;
        in[i] = (float)(x >> 8) * (1.0f / 16777216.0f);
    }
}

/* The median time of each layer over some rounds; -1 when there is no memory. */
static int profile_layers(const bench *b, bench_result *r) {
    const size_t n = (size_t)the_model.layers;
    if (n == 0) {
        fprintf(stderr, "--profile: this program was compiled without times of single layers\n");
        return 0;
    }
    double *all = memory("profile", PROFILE_ROUNDS * n * sizeof *all);
    r->layer_us = memory("profile", n * sizeof *r->layer_us);
    if (all == NULL || r->layer_us == NULL) {
        free(all);
        return -1;
    }
    for (size_t round = 0; round < PROFILE_ROUNDS; round++)
        the_model.profile(b->arena, b->in, b->out, all + round * n);
    for (size_t i = 0; i < n; i++) {
        double t[PROFILE_ROUNDS];
        for (size_t round = 0; round < PROFILE_ROUNDS; round++)
            t[round] = all[round * n + i];
        qsort(t, PROFILE_ROUNDS, sizeof *t, compare_doubles);
        r->layer_us[i] = quantile_sorted(t, PROFILE_ROUNDS, 0.5);
    }
    free(all);
    return 0;
}

static int bench_opened(bench *b, const int *cpus, int n_cpus, bench_result *r) {
    const int64_t before_open = now_ns();
    if (open_model(b) != 0) return EXIT_FAILURE;
    r->init_us = (double)(now_ns() - before_open) / 1000.0;
    find_tasks(b);
    int code = pin_tasks(b, cpus, n_cpus) == 0 ? EXIT_SUCCESS : EXIT_USAGE;
    if (code == EXIT_SUCCESS) {
        r->first_us = (double)run_batch_ns(b, 1) / 1000.0;
        warm_up(b, r);
        conditions_open(&b->around, &b->o.around);
        r->mhz_before = current_mhz(&b->around);
        measure(b, r);
        r->mhz_after = current_mhz(&b->around);
        conditions_close(&b->around);
        r->peak_gflops = peak_gflops(0.02); /* after: a burst of it disturbs what follows */
        if (b->o.profile && profile_layers(b, r) != 0) code = EXIT_FAILURE;
        if (code == EXIT_SUCCESS) print_document(b, r);
        if (fflush(stdout) != 0 || ferror(stdout)) code = EXIT_FAILURE;
    }
    model_close(b->arena);
    for (int i = 0; i < b->n_tasks; i++) {
        if (b->schedstat[i] >= 0) (void)close(b->schedstat[i]);
    }
    return code;
}

static int run_bench(const bench_options *o) {
    bench b = {.o = *o, .idle_floor = 1.0};
    /* Few enough batches in the last third of a long run. */
    const long least_ms = o->sustained_s * 1000 / 3 / SUSTAINED_SAMPLES + 1;
    if (o->sustained_s > 0 && least_ms > b.o.batch_ms) b.o.batch_ms = least_ms;
    bench_result r = {0};
    int cpus[CPU_SETSIZE];
    const int n_cpus = parse_cpus(o->cpus, cpus, CPU_SETSIZE);
    if (n_cpus < 0 || (n_cpus > 0 && pin(0, cpus, n_cpus, o->cpus) != 0)) return EXIT_USAGE;
    r.samples_us = memory("samples", SAMPLES_MAX * sizeof(double));
    r.dropped_us = memory("samples", SAMPLES_MAX * sizeof(double));
    int code = EXIT_FAILURE;
    if (buffers_open(&b) == 0 && r.samples_us != NULL && r.dropped_us != NULL) {
        fill_input(b.in, input_floats());
        code = bench_opened(&b, cpus, n_cpus, &r);
    }
    buffers_close(&b);
    free(r.samples_us);
    free(r.dropped_us);
    free(r.layer_us);
    return code;
}

/* Frame by frame from `in` to `out`; a trailing part of a frame is an error. */
static int run_frames(const bench *b, FILE *in, const char *in_path, FILE *out,
                      const char *out_path) {
    const size_t n_in = input_floats(), n_out = output_floats();
    const int npy = is_npy(out_path);
    long frames = 0;
    if (is_npy(in_path) && npy_open(in, in_path) != 0) return EXIT_USAGE;
    if (npy && npy_header(out, 0) != 0) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        return EXIT_FAILURE;
    }
    for (;; frames++) {
        const size_t bytes = fread(b->in, 1, n_in * sizeof(float), in);
        if (bytes == 0 && !ferror(in) && frames > 0) {
            if (!npy || (fseek(out, 0, SEEK_SET) == 0 && npy_header(out, frames) == 0))
                return EXIT_SUCCESS;
            fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
            return EXIT_FAILURE;
        }
        if (bytes != n_in * sizeof(float)) {
            fprintf(stderr,
                    "%s: frame %ld has %zu bytes, the model reads %zu (%d x %d x %d floats)\n",
                    in_path, frames, bytes, n_in * sizeof(float), MODEL_INPUT_C, MODEL_INPUT_H,
                    MODEL_INPUT_W);
            return EXIT_FAILURE;
        }
        model_run(b->arena, b->in, b->out);
        if (fwrite(b->out, sizeof(float), n_out, out) != n_out) {
            fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
            return EXIT_FAILURE;
        }
    }
}

static int run_files(const char *in_path, const char *out_path, long threads) {
    bench b = {.o = {.threads = threads}};
    FILE *in = fopen(in_path, "rb");
    if (in == NULL) {
        fprintf(stderr, "%s: %s\n", in_path, strerror(errno));
        return EXIT_FAILURE;
    }
    FILE *out = fopen(out_path, "wb");
    if (out == NULL) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        (void)fclose(in);
        return EXIT_FAILURE;
    }
    int code = EXIT_FAILURE;
    if (buffers_open(&b) == 0 && open_model(&b) == 0) {
        code = run_frames(&b, in, in_path, out, out_path);
        model_close(b.arena);
    }
    buffers_close(&b);
    (void)fclose(in);
    if (fclose(out) != 0 && code == EXIT_SUCCESS) {
        fprintf(stderr, "%s: %s\n", out_path, strerror(errno));
        code = EXIT_FAILURE;
    }
    return code;
}

static int print_info(void) {
    printf("{\"name\": ");
    json_text(MODEL_NAME);
    printf(", \"graph_hash\": ");
    json_text(MODEL_GRAPH_HASH);
    printf(", \"input\": [%d, %d, %d], \"output\": [%d, %d, %d], \"arena_bytes\": %zu, "
           "\"max_threads\": %d}\n",
           MODEL_INPUT_C, MODEL_INPUT_H, MODEL_INPUT_W, MODEL_OUTPUT_C, MODEL_OUTPUT_H,
           MODEL_OUTPUT_W, (size_t)MODEL_ARENA_BYTES, MODEL_MAX_THREADS);
    return fflush(stdout) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int usage(const char *program, const char *problem) {
    if (problem[0] != '\0') fprintf(stderr, "%s: unknown or incomplete option\n", problem);
    fprintf(
        stderr,
        "usage: %s --run IN OUT [--threads N]   raw floats or .npy, planar [C][H][W], frames one "
        "after another\n"
        "       %s --bench [--threads N] [--cpus LIST] [--min-batches N] [--min-time-ms N] "
        "[--max-time-ms N]\n"
        "           [--batch-ms N] [--warmup-runs N] [--warmup-ms N] [--warmup-cap-ms N] "
        "[--profile]\n"
        "           [--sustained-s N] [--temperature FILE] [--rapl DIR].. [--battery DIR] "
        "[--idle-mw N] "
        "[--sys-root DIR]\n"
        "       %s --info\n",
        program, program, program);
    return EXIT_USAGE;
}

/* Where the value of an option that is no number goes; NULL for another option. */
static const char **text_option(const char *name, bench_options *o) {
    if (strcmp(name, "--cpus") == 0) return &o->cpus;
    if (strcmp(name, "--temperature") == 0) return &o->around.temperature;
    if (strcmp(name, "--battery") == 0) return &o->around.battery;
    if (strcmp(name, "--sys-root") == 0) return &o->around.sys_root;
    if (strcmp(name, "--rapl") == 0 && o->around.n_rapl < RAPL_MAX)
        return &o->around.rapl[o->around.n_rapl++];
    return NULL;
}

/* Options from argv[from] on; 0, or -1 after a message. */
static int parse_options(int argc, char **argv, int from, bench_options *o) {
    const struct {
        const char *name;
        long *value, lo, hi;
    } numbers[] = {
        {"--threads", &o->threads, 1, MODEL_MAX_THREADS},
        {"--min-batches", &o->min_batches, 1, SAMPLES_MAX},
        {"--min-time-ms", &o->min_time_ms, 0, 600000},
        {"--max-time-ms", &o->max_time_ms, 1, 600000},
        {"--batch-ms", &o->batch_ms, 1, 10000},
        {"--warmup-runs", &o->warmup_runs, 0, 1000000},
        {"--warmup-ms", &o->warmup_ms, 0, 600000},
        {"--warmup-cap-ms", &o->warmup_cap_ms, 0, 600000},
        {"--sustained-s", &o->sustained_s, 0, 3600},
        {"--idle-mw", &o->around.idle_mw, 0, 100000000},
    };
    const size_t n = sizeof numbers / sizeof *numbers;
    for (int i = from; i < argc; i += 2) {
        if (strcmp(argv[i], "--profile") == 0) {
            o->profile = 1;
            i--; /* takes no value */
            continue;
        }
        size_t at = 0;
        while (at < n && strcmp(argv[i], numbers[at].name) != 0)
            at++;
        const char **text = at == n ? text_option(argv[i], o) : NULL;
        if (i + 1 >= argc || (at == n && text == NULL)) {
            (void)usage(argv[0], argv[i]);
            return -1;
        }
        if (text != NULL) {
            *text = argv[i + 1];
        } else if (parse_long(argv[i], argv[i + 1], numbers[at].lo, numbers[at].hi,
                              numbers[at].value) != 0) {
            return -1;
        }
    }
    return 0;
}

/* Compiled without the vector flags of the model, so it runs where the model does not. */
static int check_cpu(const char *program) {
    size_t len = 0;
    const char *missing = cpu_missing(MODEL_NEEDS, &len);
    if (missing == NULL) return 0;
    fprintf(stderr, "%s: this processor has no %.*s; the program was built for %s\n", program,
            (int)len, missing, MODEL_NEEDS);
    return -1;
}

int main(int argc, char **argv) {
    if (check_cpu(argv[0]) != 0) return EXIT_USAGE;
    bench_options o = {.threads = 1,
                       .cpus = "",
                       .min_batches = 30,
                       .min_time_ms = 500,
                       .max_time_ms = 10000,
                       .batch_ms = 1,
                       .warmup_runs = 3,
                       .warmup_ms = 200,
                       .warmup_cap_ms = 2000,
                       .around = {.sys_root = "", .idle_mw = -1}};
    if (argc == 2 && strcmp(argv[1], "--info") == 0) return print_info();
    if (argc >= 2 && strcmp(argv[1], "--bench") == 0) {
        return parse_options(argc, argv, 2, &o) == 0 ? run_bench(&o) : EXIT_USAGE;
    }
    if (argc >= 4 && strcmp(argv[1], "--run") == 0) {
        return parse_options(argc, argv, 4, &o) == 0 ? run_files(argv[2], argv[3], o.threads)
                                                     : EXIT_USAGE;
    }
    return usage(argv[0], "");
}
