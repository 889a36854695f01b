/* tune.c - times the ways of a convolution, here or on a device: one program with all kernels, run by turns.
 *
 * The compiled program is kept in the cache, the weights are linked to it anew: their sizes are not in its text. */
#include "compiler/tune_internal.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { MESSAGE_MAX = 1000 };

/* Largest difference between two ways, relative to the largest output. Rounding of the transforms of Winograd stays far
 * below (tests/compiler/test_layer_conv.c bounds it), a wrong kernel far above. Codes differ by 0 or 1. */
static const double difference_max = 1e-2;

/* One run on a device ends within its deadline. */
static const double device_seconds_max = 20;

/* ---- compile ----------------------------------------------------------------------------------------------------- */

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

/* The object at `path`, compiled in `work` when the cache lacks it. */
static nas_status need_object(nas_ctx *ctx, const nas__toolchain *toolchain, const nas_buf *text,
                              const char *work, const char *path) {
    char sum[NAS_SHA256_HEX], file[600];
    if (nas__cache_find(path, sum)) return NAS_OK;
    (void)snprintf(file, sizeof file, "%s/tune.c", work);
    nas_status status = nas_file_write(ctx, file, text->data, text->len, 0644);
    const char *const args[] = {"-c", "tune.c", "-o", "tune.o", NULL};
    if (status == NAS_OK) status = nas__cc(ctx, toolchain, work, args);
    if (status != NAS_OK) return status;
    (void)snprintf(file, sizeof file, "%s/tune.o", work);
    return nas__cache_put(ctx, file, path, 0444, false, sum);
}

/* `work`/tune: the object and the weights. */
static nas_status link_program(nas_ctx *ctx, const nas_compile_options *options,
                               const nas__toolchain *toolchain, const nas__tune_subject *s,
                               const char *object, const char *work) {
    static const char weights_s[] =
        "    .section .rodata\n    .globl tune_weights\n    .balign 64\n"
        "    .type tune_weights, %object\ntune_weights:\n    .incbin \"weights.raw\"\n"
        "    .size tune_weights, . - tune_weights\n"
        "    .section .note.GNU-stack,\"\",%progbits\n";
    char path[600];
    (void)snprintf(path, sizeof path, "%s/weights.raw", work);
    nas_status status = nas__tune_write_weights(ctx, options->target, s, path);
    (void)snprintf(path, sizeof path, "%s/weights.s", work);
    if (status == NAS_OK) status = nas_file_write(ctx, path, weights_s, sizeof weights_s - 1, 0644);
    (void)snprintf(path, sizeof path, "%s/tune.o", work);
    nas_buf bytes = {0};
    if (status == NAS_OK) status = nas_file_read(ctx, object, SIZE_MAX, &bytes);
    if (status == NAS_OK) status = nas_file_write(ctx, path, bytes.data, bytes.len, 0644);
    nas_buf_deinit(&bytes);
    const char *args[] = {"tune.o", "weights.s", "-o", "tune", NULL, NULL};
    if (options->tune_device != NULL || !options->target->runs_here)
        args[4] = "-static"; /* a device need not have our C library */
    return status == NAS_OK ? nas__cc(ctx, toolchain, work, args) : status;
}

/* ---- run --------------------------------------------------------------------------------------------------------- */

static nas_status read_timings(nas_ctx *ctx, const char *text, const nas__tune_subject *s,
                               nas_tune_timing out[], double *peak) {
    const char *line = text != NULL ? text : "";
    for (int32_t i = 0; i < s->n; i++) {
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
                            "tuning: way %d (%s) differs from way 0 (%s) by %g of the largest "
                            "output",
                            i, nas__tune_way_name(s, i), nas__tune_way_name(s, 0), difference);
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

static nas_status run_here(nas_ctx *ctx, const nas_compile_options *o, const char *path,
                           double seconds, nas_buf *timings) {
    char limit[40], threads[16];
    (void)snprintf(limit, sizeof limit, "%.0f", ceil(seconds * 1000));
    (void)snprintf(threads, sizeof threads, "%d", o->tune_threads);
    const char *const argv[] = {path, "--threads", threads, "--max-time-ms", limit, NULL};
    nas_process_options options = nas_process_options_default();
    options.argv = argv;
    options.timeout_ms = o->timeout_ms + (int64_t)(seconds * 2000);
    nas_process_result result = {0};
    nas_status status = nas_process_run(ctx, &options, &result);
    if (status != NAS_OK) return nas_wrap(ctx, status, "tuning");
    if (result.exit_code != 0)
        status =
            nas_fail(ctx, NAS_ERR_DEVICE, "tuning: exit code %d, signal %d: %.*s", result.exit_code,
                     result.signal, MESSAGE_MAX, result.err.data != NULL ? result.err.data : "");
    else
        nas_buf_append(timings, result.out.data, result.out.len);
    nas_process_result_deinit(&result);
    return status;
}

static nas_status run_program(nas_ctx *ctx, const nas_compile_options *o, const char *work,
                              double seconds, nas_buf *timings) {
    char path[600], sum[NAS_SHA256_HEX];
    (void)snprintf(path, sizeof path, "%s/tune", work);
    if (o->tune_device == NULL) return run_here(ctx, o, path, seconds, timings);
    nas_status status = nas_sha256_file_hex(ctx, path, sum);
    if (status == NAS_OK)
        status = o->tune_device->run(ctx, o->tune_device->user, path, sum,
                                     seconds < device_seconds_max ? seconds : device_seconds_max,
                                     o->tune_threads, timings);
    return nas_wrap(ctx, status, "tuning");
}

/* ---- one request ------------------------------------------------------------------------------------------------- */

static nas_status tune_in(nas_ctx *ctx, const nas_compile_options *options,
                          const nas__toolchain *toolchain, const nas__tune_subject *s,
                          double seconds, const char *work, nas_tune_timing out[], double *peak) {
    char key[NAS_SHA256_HEX], object[512];
    nas_buf text = {0}, lines = {0};
    nas__tune_emit_program(options->target, s, &text);
    nas_status status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) {
        program_key(toolchain, &text, key);
        status = nas__cache_path(ctx, options->cache_dir, key, ".tune", sizeof object, object);
    }
    if (status == NAS_OK) status = need_object(ctx, toolchain, &text, work, object);
    nas_buf_deinit(&text);
    if (status == NAS_OK) status = link_program(ctx, options, toolchain, s, object, work);
    if (status == NAS_OK) status = run_program(ctx, options, work, seconds, &lines);
    nas_tune_timing timings[NAS__CONV_WAYS_MAX];
    if (status == NAS_OK) status = nas_buf_status(ctx, &lines);
    if (status == NAS_OK) status = read_timings(ctx, lines.data, s, timings, peak);
    nas_buf_deinit(&lines);
    if (status == NAS_OK) memcpy(out, timings, (size_t)s->n * sizeof *out);
    return status;
}

static nas_status check_request(nas_ctx *ctx, const nas_compile_options *options, int32_t n,
                                double seconds) {
    if (options->target == NULL || n < 1 || n > NAS__CONV_WAYS_MAX || !(seconds > 0) ||
        !(seconds <= 24 * 3600) || options->tune_threads < 1 || options->tune_threads > 64) {
        return nas_fail(ctx, NAS_ERR_INVALID,
                        "tuning needs a target, 1..%d ways (got %d), 1..64 threads (got %d) and up "
                        "to a day (got %g s)",
                        NAS__CONV_WAYS_MAX, n, options->tune_threads, seconds);
    }
    if (options->tune_device == NULL && !options->target->runs_here) {
        return nas_fail(
            ctx, NAS_ERR_UNSUPPORTED,
            "tuning measures here, programs of target %s do not run here; name a device "
            "that runs them",
            options->target->name);
    }
    return NAS_OK;
}

int32_t nas__tune_fit(const nas_compile_options *options, const nas__tune_subject *s) {
    enum { PROGRAM_BYTES = 2 * 1024 * 1024 }; /* of code, and a C library */
    if (options->tune_device == NULL) return s->n;
    size_t left = options->tune_device->program_bytes_max;
    left = left > PROGRAM_BYTES ? left - PROGRAM_BYTES : 0;
    int32_t n = 0;
    for (; n < s->n; n++) {
        const size_t bytes = nas__tune_weight_bytes(options->target, s, n);
        if (bytes > left) break;
        left -= bytes;
    }
    return n;
}

nas_status nas__tune_measure(nas_ctx *ctx, const nas_compile_options *options,
                             const nas__tune_subject *subject, double seconds,
                             nas_tune_timing out[], double *peak) {
    nas__toolchain toolchain;
    char work[512];
    nas_status status = check_request(ctx, options, subject->n, seconds);
    if (status == NAS_OK) status = nas__toolchain_open(ctx, options, &toolchain);
    if (status == NAS_OK) status = nas__cache_work_dir(ctx, options->cache_dir, sizeof work, work);
    if (status != NAS_OK) return status;
    status = tune_in(ctx, options, &toolchain, subject, seconds, work, out, peak);
    nas_ctx *quiet = nas_ctx_child(ctx); /* keeps the message of a failure above */
    if (quiet != NULL) (void)nas_remove_tree(quiet, work);
    nas_ctx_free(quiet);
    return status;
}
