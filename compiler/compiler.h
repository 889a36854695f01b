/* compiler.h - graph in, native code out.
 *
 * passes (fold, fuse, layout, memory plan) -> readable C with GCC/Clang vector extensions -> gcc or clang ->
 * executable with bench and run modes, or a self-contained bundle. Emitted text is deterministic: same graph, target
 * and options, same bytes. Layer 2: includes core and ir. compiler/rt/ is what goes into emitted programs (C99 +
 * pthreads only).
 *
 * Emitted model.h (the contract between generated code, compiler/rt/ and an app):
 *     #define MODEL_INPUT_C / MODEL_INPUT_H / MODEL_INPUT_W, MODEL_OUTPUT_C / _H / _W      ints
 *     #define MODEL_ARENA_BYTES     size_t constant: everything the model needs besides in, out and its weights
 *     #define MODEL_MAX_THREADS     int constant
 *     #define MODEL_NAME, MODEL_GRAPH_HASH                                                  strings
 *     int  model_open(void *arena, int threads);  arena: MODEL_ARENA_BYTES, 64-byte aligned, caller-owned;
 *                                                 threads 1..MODEL_MAX_THREADS; starts threads - 1 workers; 0 = ok,
 *                                                 otherwise an errno value
 *     void model_run(void *arena, const float *in, float *out);   one inference; planar [C][H][W] fp32 in and out,
 *                                                 any alignment; in and out must not overlap
 *     void model_close(void *arena);              ends the workers
 * Files of a bundle: model.c, model.h, weights.c (the constant `model_weights`), example.c, README.txt (build line).
 *
 * Executable (model.c + weights.c + compiler/rt/bench_main.c):
 *     model --run IN OUT [--threads N]            raw float tensors, planar [C][H][W]; sizes must match exactly;
 *                                                 IN may hold several frames one after another
 *     model --bench [--threads N] ...             the measuring loop; prints one JSON document; see
 *                                                 device-agent/protocol.h for options and fields
 *     model --info                                JSON: name, graph_hash, shapes, arena_bytes, max_threads */
#ifndef NAS_COMPILER_COMPILER_H
#define NAS_COMPILER_COMPILER_H

#include "ir/graph.h"

/* One row of the target table. */
typedef struct nas_target {
    const char *name;           /* "x86-64", "x86-64-avx2", "x86-64-avx512", "aarch64-linux" ... */
    int32_t vector_bytes;       /* 16, 32 or 64: lanes = vector_bytes / 4, of halves / 2 */
    int32_t vector_registers;   /* architectural, bounds the register tile */
    int32_t l1_bytes, l2_bytes; /* assumed per core; the planner keeps strips below l2_bytes */
    const char *compiler;       /* "gcc", ...; "$NAME/path" starts with an environment variable */
    const char *flags;          /* space-separated -m/-march flags */
    bool runs_here;             /* false: cross target, or features that this CPU lacks */
    const char *arch;           /* "x86-64", "aarch64", "armv7", "riscv64" */
    const char *needs;          /* features a program needs, comma-separated: rt/cpu_check.h */
    const char *base_flags;     /* for the main program, which has to start anywhere on `arch` */
    bool
        splits_vectors; /* computes a vector in two parts: one multiply-add of a vector a cycle, not two */
    /* 0: no kernels of SVE. Else the length that their tiles are cut for, 16 to 256; they run on any length. */
    int32_t sve_bytes;
    /* In the time of two multiply-adds of SVE vectors it starts four of 16 bytes. */
    bool sve_halves;
    /* Convolutions may have products of bf16: set by the compiler, in a copy of the row, for NAS_DTYPE_BF16. */
    bool bf16;
} nas_target;

/* What a network computes in, and its activations and weights are kept in. Its input and output are floats either way. */
typedef enum nas_dtype {
    NAS_DTYPE_FP32, /* and integers where the network is quantized */
    NAS_DTYPE_FP16, /* half precision, on processors that compute in it; networks by rows */
    NAS_DTYPE_BF16 /* products of bf16 in dense convolutions of networks by layers, whose values stay floats */
} nas_dtype;

/* nas_target_find - "native" picks the best row this CPU can run, with the caches and `splits_vectors` of the CPU where the
 * row has vectors of 64 bytes; else by name, also a row that does not run here (its runs_here is false: it compiles, its
 * program names the missing feature). NOTFOUND lists the names. */
nas_status nas_target_find(nas_ctx *ctx, const char *name, const nas_target **out);

/* nas_target_native - the best row of those that this CPU can run and that compute in `dtype`: the one for integers need not
 * compute in half precision. Where none does, "native", which nas_target_check_dtype refuses. */
nas_status nas_target_native(nas_ctx *ctx, nas_dtype dtype, const nas_target **out);

/* What a processor tells of itself. */
typedef struct nas_target_cpu {
    const char *vendor; /* as CPUID and /proc/cpuinfo spell it, "AuthenticAMD"; "" = not told */
    int32_t family;
    int64_t l1_bytes, l2_bytes; /* of one core; 0 = not told */
    int32_t sve_bytes;          /* of a vector of SVE; 0 = not told */
} nas_target_cpu;

/* nas_target_adapt - gives a row with vectors of 64 bytes, which covers processors that want different kernels, the caches and
 * `splits_vectors` of one of them, and one with SVE its length, as far as they were told. Other rows stay as they are. */
void nas_target_adapt(nas_target *row, const nas_target_cpu *told);

/* nas_target_best - the last row for `arch` that computes in `dtype`, whose needs are all there and whose compiler is a
 * packaged one, adapted to what the processor tells (NULL: nothing): what a device that is not this machine gets. Where no such row
 * computes in `dtype`, the one for FP32. NOTFOUND when there is none. */
typedef bool (*nas_target_has)(void *user, const char *feature);
nas_status nas_target_best(nas_ctx *ctx, const char *arch, nas_dtype dtype, nas_target_has has,
                           void *user, const nas_target_cpu *told, nas_target *out);

/* nas_target_check_dtype - UNSUPPORTED naming the target, and targets and processors that do, where it does not compute in
 * `dtype`. */
nas_status nas_target_check_dtype(nas_ctx *ctx, const nas_target *target, nas_dtype dtype);

/* nas_target_find_cpu - a copy of `target` with the flags and caches of one processor ("cortex-a76", "znver3").
 * NOTFOUND lists the names known for its architecture; UNSUPPORTED names a feature the target needs and it lacks. */
nas_status nas_target_find_cpu(nas_ctx *ctx, const nas_target *target, const char *name,
                               nas_target *out);

/* ---- tuning -------------------------------------------------------------------------------------------------------- */

/* Time of one call of a kernel, in ns: median and quartiles of `runs` samples. */
typedef struct nas_tune_timing {
    double p50_ns, lo_ns, hi_ns;
    int32_t runs;
} nas_tune_timing;

/* What was measured before, kept by the caller. The three texts and the number of threads are the whole key; any of them may
 * change with a new version of this program, so unknown keys are normal. */
typedef struct nas_tune_key {
    const char *kernel, *way, *device; /* borrowed for the call */
    int32_t threads;
} nas_tune_key;

typedef struct nas_tune_memory {
    void *user;
    /* false: never measured; else *ns is the median */
    bool (*find)(void *user, const nas_tune_key *key, double *ns);
    /* replaces what was there; a failure ends the tuning */
    nas_status (*store)(nas_ctx *ctx, void *user, const nas_tune_key *key,
                        const nas_tune_timing *timing);
} nas_tune_memory;

/* Another machine that times kernels; layers above provide it. */
typedef struct nas_tune_device {
    void *user;
    const char *
        name; /* of the device and its processor, part of the key; NULL: it is this machine after all */
    size_t program_bytes_max; /* of what it can be sent */
    /* Runs the program there as `--bench --threads N --max-time-ms N`; it prints one JSON object, whose text member "timings"
     * is appended to `timings`. */
    nas_status (*run)(nas_ctx *ctx, void *user, const char *path, const char *sha256,
                      double seconds, int32_t threads, nas_buf *timings);
} nas_tune_device;

/* How the code of a network is organised. */
typedef enum nas_form {
    NAS_FORM_AUTO, /* ROWS where they can express the network and the image is large, else LAYERS */
    NAS_FORM_ROWS, /* all layers at once, a row at a time, pixels in lanes: image to image networks of stride 1 */
    NAS_FORM_LAYERS /* layer after layer over whole images, channels in lanes */
} nas_form;

/* Kernels of the row form. */
typedef enum nas_row_kernels {
    NAS_ROW_KERNELS_AUTO,    /* Winograd where an estimate says that it is faster */
    NAS_ROW_KERNELS_DIRECT,  /* no Winograd */
    NAS_ROW_KERNELS_WINOGRAD /* wherever it can compute the layer */
} nas_row_kernels;

typedef struct nas_compile_options {
    const nas_target *target;
    const char *compiler;  /* NULL = the target's; else a path or name of gcc/clang */
    const char *cache_dir; /* content-addressed cache, survives runs; created; never NULL */
    int32_t max_threads;   /* 1..64; MODEL_MAX_THREADS */
    nas_form form;
    nas_row_kernels row_kernels;
    nas_dtype dtype;
    const nas_tune_memory
        *memory; /* NULL, or kernels' times: they decide instead of the estimates */
    double
        tune_s; /* > 0: measure kernels that the memory does not know for about so many seconds; needs `memory` */
    int32_t tune_threads; /* 1..64: threads that a kernel is timed with, part of the memory's key */
    const nas_tune_device
        *tune_device; /* NULL: kernels are timed here, and the target must run here */
    uint64_t
        max_code_bytes; /* of a bundle: slower and smaller kernels are taken until it fits; 0: no bound */
    double
        weight_price; /* estimated cycles that one byte of a layer's weights is worth; 0: speed alone decides */
    double
        code_price; /* estimated cycles that one byte of a kernel's text is worth; 0: speed alone decides */
    int64_t timeout_ms; /* of one compiler run */
} nas_compile_options;

/* nas_compile_options_default - cache "build/cache", 2 threads, 120 s; `target` is NULL: the caller finds one. */
nas_compile_options nas_compile_options_default(void);

/* A finished executable. `path` points into the cache and is never rewritten. */
typedef struct nas_artifact {
    char path[512];
    char sha256[NAS_SHA256_HEX]; /* of the file */
    char source_sha256
        [NAS_SHA256_HEX]; /* of emitted text + flags + compiler version: the cache key */
    uint64_t size_bytes;
    uint64_t arena_bytes;  /* MODEL_ARENA_BYTES: true activation memory of the compiled form */
    uint64_t weight_bytes; /* of size_bytes: the weights as kernels read them */
    double compile_s;      /* 0 when it came from the cache */
    bool from_cache;
    char target[64];
    char compiler[128]; /* first line of --version */
    char flags[256];
    char runner
        [256]; /* program that runs it here, an emulator; "" (as compiled) = it runs by itself */
} nas_artifact;

/* ---- compiling ------------------------------------------------------------------------------------------------------ */

/* nas_compile - emits, compiles and links `graph` (with weights). Objects are cached apart: equal code with other
 * weights compiles only weights. Safe to call from several threads (own ctx each) on one cache_dir.
 * Errors: UNSUPPORTED (operator or shape, node named), TOOLCHAIN (compiler missing or failed, its stderr in the
 * message), IO (disk full named as such), TIMEOUT, CANCELLED. */
nas_status nas_compile(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                       nas_artifact *out);

/* What a bundle takes on a device. */
typedef struct nas_bundle_facts {
    bool code_known; /* false: the compiler is not installed here */
    uint64_t
        code_bytes; /* machine code and its constants, as the build line of the bundle makes them */
    uint64_t weight_bytes, arena_bytes;
    bool made_smaller;              /* slower kernels were taken to keep within max_code_bytes */
    char compiler[128], flags[256]; /* "" while unknown */
} nas_bundle_facts;

/* nas_emit_bundle - writes the self-contained bundle into directory `dir` (created). With `facts` (may be NULL) or a bound of
 * the code its kernels are compiled, as cached objects, to see how large they are.
 * Errors: those of nas_compile; RANGE when even the smallest kernels exceed max_code_bytes, the largest ones named; TOOLCHAIN
 * when there is a bound and no compiler. */
nas_status nas_emit_bundle(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                           const char *dir, nas_bundle_facts *facts);

/* nas_emit_source - emitted model.c and model.h text alone: for goldens and people. */
nas_status nas_emit_source(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                           nas_buf *model_c, nas_buf *model_h);

/* nas_dump_after - graph text after pass `pass` ("import", "fold", "fuse", "plan"); NOTFOUND lists the passes. */
nas_status nas_dump_after(nas_ctx *ctx, const nas_graph *graph, const nas_compile_options *options,
                          const char *pass, nas_buf *out);

/* nas_compile_explain - for people: each layer with its kernel candidates, what the cost model expects of them, measured
 * times where a tuner knows them, and which one is used ('*'). Errors: those of nas_compile's first steps. */
nas_status nas_compile_explain(nas_ctx *ctx, const nas_graph *graph,
                               const nas_compile_options *options, nas_buf *out);

/* nas_toolchain_check - is the compiler there and able to build a one-line program? TOOLCHAIN says what to install. */
nas_status nas_toolchain_check(nas_ctx *ctx, const nas_compile_options *options);

/* nas_artifact_run - runs `artifact --run` here on `frames` frames: in [frames][C][H][W] floats, out likewise with
 * the output's extents. Raw files live in work_dir and are removed. */
nas_status nas_artifact_run(nas_ctx *ctx, const nas_artifact *artifact, const nas_graph *graph,
                            int32_t frames, const float *in, float *out, int32_t threads,
                            const char *work_dir);

#endif
