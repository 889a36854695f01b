/* nas_compile.c - `nas-compile MODEL.onnx -o DIR`: one network to native code for one target.
 *
 * Arguments into one struct; import, recipe, memory of kernel times, then one of: explain, dump, bundle, executable.
 * What was asked for goes to stdout or the output folder, everything else to stderr. */
#include "compiler/compiler.h"
#include "tools/compile_tune.h"
#include "tools/recipe.h"
#include "tools/sparse_device.h"
#include "tools/sparse_gain.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help_text[] =
    "usage: nas-compile MODEL.onnx -o DIR [options]\n"
    "       nas-compile --break-even [--layers MODEL.onnx] [--shapes LIST] [options]\n"
    "\n"
    "Compiles one network to native code: DIR/model, a program that runs and times it, or a bundle "
    "of C for an app.\n"
    "\n"
    "  -o DIR               where the result goes; created\n"
    "  --target NAME        native (default), x86-64, x86-64-avx2, x86-64-avx512, "
    "x86-64-avx512fp16,\n"
    "                       x86-64-avx512bf16, x86-64-avx512vnni, x86-64-amx, aarch64-linux,\n"
    "                       aarch64-fp16, aarch64-bf16, aarch64-sve, aarch64-dotprod, "
    "aarch64-i8mm,\n"
    "                       aarch64-android, armv7-linux, riscv64-linux, riscv64-rvv, "
    "riscv64-rvv256\n"
    "  --cpu NAME           a processor of that target, e.g. cortex-a76: its flags and caches\n"
    "  --dtype fp32|fp16|bf16  what it computes in and keeps weights in (default fp32); fp16 "
    "halves "
    "the memory on\n"
    "                       processors that compute in it, of networks that compile by rows "
    "(docs/half_precision.md);\n"
    "                       bf16: dense convolutions of networks by layers multiply it, on Xeons "
    "with AMX,\n"
    "                       on AVX512-BF16 and on 64-bit Arm\n"
    "  --threads N          most threads that the program can use (default 2, at most 64)\n"
    "  --height H, --width W  of the input, where the model leaves them open or for another size\n"
    "  --emit exe|c         a program (default), or a bundle: model.c, model.h, weights.c, "
    "example.c, README.txt\n"
    "  --max-code-kb N      of a bundle: bound of the machine code, weights apart (default 4096); "
    "slower and smaller\n"
    "                       kernels are taken where it is exceeded\n"
    "  --weights fast|small kernels by speed (default), or those whose weights take the fewest "
    "bytes: packed 2-bit,\n"
    "                       4-bit and power-of-two weights, lists of what zeros leave; "
    "compile.json "
    "says how many\n"
    "  --form auto|rows|layers  how the code is organised (default: by network and image size); "
    "also rows-direct,\n"
    "                       rows-winograd: rows without Winograd kernels, or with them wherever "
    "they can be\n"
    "  --tune TIME          measure kernel candidates for about 60s, 5m ..., with up to --threads "
    "threads; remembered\n"
    "                       in --db for ever\n"
    "  --device DEVICE      measure them there, and use what is remembered of it: local, "
    "adb:SERIAL "
    "or\n"
    "                       http://HOST:PORT, by its nas-agent; without --target also compiles for "
    "its processor\n"
    "  --key FILE           of the agent at http://\n"
    "  --db FILE            where times of kernels are kept (default: kernels.db in the cache "
    "folder)\n"
    "  --recipe FILE        per layer, JSON: weight_bits 2..8, activation scale and zero point, "
    "sparsity\n"
    "                       (pattern and rate, or the zeros of the model: docs/sparse.md); "
    "refused\n"
    "                       when it belongs to another model\n"
    "  --compiler NAME      another gcc or clang than the target's\n"
    "  --cache DIR          compiled kernels (default build/cache)\n"
    "  --explain            print per layer which kernels were candidates and which one won; no -o "
    "needed\n"
    "  --dump-after PASS    print the network after a pass: constants, batch_norm, duplicates, "
    "dead (of the graph),\n"
    "                       import, fold, fuse, plan (of the rows), layers; no -o needed\n"
    "  --break-even         measure here from which rate on sparse layers are faster than dense "
    "ones; kept in --db\n"
    "    --layers MODEL.onnx  for its convolutions\n"
    "    --shapes LIST        for KERNEL:IN:OUT:SIZE[:STRIDE], commas between, e.g. "
    "1:256:64:56,3:64:128:28:2\n"
    "    --patterns LIST      default 1x4,1x16,N:8x4; also block4x4, punched8x8, pattern, "
    "periodic, "
    "unstructured, complementary ...\n"
    "    --rates LIST         default 0.125,0.25,0.375,0.5,0.625,0.75,0.9\n"
    "    --dtype LIST         f32, int8 or both (default: f32, of a model what its layers are)\n"
    "    --cell TIME          of measuring one cell (default 0.4s)\n"
    "    --target DEVICE      also local, adb:SERIAL or http://HOST:PORT: timed there by its "
    "nas-agent\n"
    "    -f, --format FORMAT  table (default), json, csv or value\n";

static const char help_end[] =
    "  -h, --help           this text\n"
    "      --version        version\n"
    "\n"
    "The program: DIR/model --bench --threads 2 [--profile]; DIR/model --run in.npy out.npy; "
    "DIR/model --info\n"
    "\n"
    "Exit codes: 0 done, 1 failed, 2 usage error, 130 interrupted.\n"
    "\n"
    "examples:\n"
    "  nas-compile resnet50.onnx -o out && out/model --bench --threads 2\n"
    "  nas-compile fsrcnn.onnx --height 360 --width 640 --target aarch64-linux --cpu cortex-a76 "
    "--emit c -o app/\n"
    "  nas-compile mobilenet.onnx --explain --tune 60s\n"
    "  nas-compile mobilenet.onnx --tune 5m --device adb:R58M123456 --threads 4 -o out\n";

static volatile sig_atomic_t interrupted;

/* The first signal asks for a clean stop; a second one ends the program the default way. */
static void on_signal(int number) {
    interrupted = 1;
    (void)signal(number, SIG_DFL);
}

typedef struct command_line {
    const char *model, *out, *target, *cpu, *emit, *form, *db, *recipe, *compiler, *cache, *dump;
    const char *layers, *shapes, *patterns, *rates, *format, *key, *device, *dtype, *weights;
    long threads, height, width, max_code_kb; /* max_code_kb: 0 = not asked for */
    double tune_s, cell_s;
    bool explain, break_even, done;
} command_line;

/* ---- arguments ------------------------------------------------------------------------------------------------------ */

static int usage_error(const char *text, const char *value) {
    fprintf(stderr, "error: %s%s%s (see nas-compile --help)\n", text, value == NULL ? "" : ": ",
            value == NULL ? "" : value);
    return NAS_EXIT_USAGE;
}

static int parse_number(const char *what, const char *text, long most, long *out) {
    char *end = NULL;
    const long value = strtol(text, &end, 10);
    if (end == text || *end != '\0' || value < 1 || value > most) {
        fprintf(stderr,
                "error: %s %s: need a whole number from 1 to %ld (see nas-compile --help)\n", what,
                text, most);
        return NAS_EXIT_USAGE;
    }
    *out = value;
    return NAS_EXIT_OK;
}

/* "90", "90s", "5m", "1h" -> seconds. */
static int parse_time(const char *option, const char *text, double *out) {
    char *end = NULL;
    const double number = strtod(text, &end);
    double factor = 0;
    if (strcmp(end, "") == 0 || strcmp(end, "s") == 0) factor = 1;
    if (strcmp(end, "m") == 0) factor = 60;
    if (strcmp(end, "h") == 0) factor = 3600;
    if (end == text || factor == 0 || !(number > 0) || number * factor > 1e6) {
        fprintf(stderr, "error: %s wants e.g. 60s, 5m or 1h, not: %s (see nas-compile --help)\n",
                option, text);
        return NAS_EXIT_USAGE;
    }
    *out = number * factor;
    return NAS_EXIT_OK;
}

enum {
    OPT_TARGET = 256,
    OPT_CPU,
    OPT_THREADS,
    OPT_HEIGHT,
    OPT_WIDTH,
    OPT_EMIT,
    OPT_FORM,
    OPT_TUNE,
    OPT_DB,
    OPT_RECIPE,
    OPT_COMPILER,
    OPT_CACHE,
    OPT_EXPLAIN,
    OPT_DUMP,
    OPT_BREAK_EVEN,
    OPT_LAYERS,
    OPT_SHAPES,
    OPT_PATTERNS,
    OPT_RATES,
    OPT_DTYPE,
    OPT_CELL,
    OPT_KEY,
    OPT_DEVICE,
    OPT_MAX_CODE,
    OPT_WEIGHTS,
    OPT_VERSION
};
/* Cycles a byte: more than any layer takes; among equals the faster one. */
static const double SMALL_WEIGHTS_PRICE = 1e9;
enum { THREADS_MAX = 64, EXTENT_MAX = 16384, CODE_KB = 4096, CODE_KB_MAX = 1024 * 1024 };

static int parse_option(command_line *cl, int option) {
    switch (option) {
    case 'o': cl->out = optarg; return NAS_EXIT_OK;
    case OPT_TARGET: cl->target = optarg; return NAS_EXIT_OK;
    case OPT_CPU: cl->cpu = optarg; return NAS_EXIT_OK;
    case OPT_THREADS: return parse_number("--threads", optarg, THREADS_MAX, &cl->threads);
    case OPT_HEIGHT: return parse_number("--height", optarg, EXTENT_MAX, &cl->height);
    case OPT_WIDTH: return parse_number("--width", optarg, EXTENT_MAX, &cl->width);
    case OPT_EMIT:
        cl->emit = optarg;
        if (strcmp(optarg, "c") == 0 || strcmp(optarg, "exe") == 0) return NAS_EXIT_OK;
        return usage_error("--emit wants exe or c, not", optarg);
    case OPT_MAX_CODE: return parse_number("--max-code-kb", optarg, CODE_KB_MAX, &cl->max_code_kb);
    case OPT_WEIGHTS: cl->weights = optarg; return NAS_EXIT_OK;
    case OPT_FORM: cl->form = optarg; return NAS_EXIT_OK;
    case OPT_TUNE: return parse_time("--tune", optarg, &cl->tune_s);
    case OPT_DB: cl->db = optarg; return NAS_EXIT_OK;
    case OPT_RECIPE: cl->recipe = optarg; return NAS_EXIT_OK;
    case OPT_COMPILER: cl->compiler = optarg; return NAS_EXIT_OK;
    case OPT_CACHE: cl->cache = optarg; return NAS_EXIT_OK;
    case OPT_EXPLAIN: cl->explain = true; return NAS_EXIT_OK;
    case OPT_DUMP: cl->dump = optarg; return NAS_EXIT_OK;
    case OPT_BREAK_EVEN: cl->break_even = true; return NAS_EXIT_OK;
    case OPT_LAYERS: cl->layers = optarg; return NAS_EXIT_OK;
    case OPT_SHAPES: cl->shapes = optarg; return NAS_EXIT_OK;
    case OPT_PATTERNS: cl->patterns = optarg; return NAS_EXIT_OK;
    case OPT_RATES: cl->rates = optarg; return NAS_EXIT_OK;
    case OPT_DTYPE: cl->dtype = optarg; return NAS_EXIT_OK;
    case OPT_KEY: cl->key = optarg; return NAS_EXIT_OK;
    case OPT_DEVICE:
        cl->device = optarg;
        if (nas_sparse_device_is(optarg)) return NAS_EXIT_OK;
        return usage_error("--device wants local, adb:SERIAL or http://HOST:PORT, not", optarg);
    case OPT_CELL: return parse_time("--cell", optarg, &cl->cell_s);
    case 'f': cl->format = optarg; return NAS_EXIT_OK;
    case OPT_VERSION:
        printf("nas-compile %s\n", NAS_VERSION);
        cl->done = true;
        return NAS_EXIT_OK;
    case 'h':
        fputs(help_text, stdout);
        fputs(help_end, stdout);
        cl->done = true;
        return NAS_EXIT_OK;
    default: return usage_error("bad option", NULL); /* getopt has named it */
    }
}

static int parse_command_line(int argc, char **argv, command_line *cl) {
    static const struct option options[] = {{"target", required_argument, NULL, OPT_TARGET},
                                            {"cpu", required_argument, NULL, OPT_CPU},
                                            {"threads", required_argument, NULL, OPT_THREADS},
                                            {"height", required_argument, NULL, OPT_HEIGHT},
                                            {"width", required_argument, NULL, OPT_WIDTH},
                                            {"emit", required_argument, NULL, OPT_EMIT},
                                            {"form", required_argument, NULL, OPT_FORM},
                                            {"weights", required_argument, NULL, OPT_WEIGHTS},
                                            {"max-code-kb", required_argument, NULL, OPT_MAX_CODE},
                                            {"tune", required_argument, NULL, OPT_TUNE},
                                            {"db", required_argument, NULL, OPT_DB},
                                            {"recipe", required_argument, NULL, OPT_RECIPE},
                                            {"compiler", required_argument, NULL, OPT_COMPILER},
                                            {"cache", required_argument, NULL, OPT_CACHE},
                                            {"explain", no_argument, NULL, OPT_EXPLAIN},
                                            {"dump-after", required_argument, NULL, OPT_DUMP},
                                            {"break-even", no_argument, NULL, OPT_BREAK_EVEN},
                                            {"layers", required_argument, NULL, OPT_LAYERS},
                                            {"shapes", required_argument, NULL, OPT_SHAPES},
                                            {"patterns", required_argument, NULL, OPT_PATTERNS},
                                            {"rates", required_argument, NULL, OPT_RATES},
                                            {"dtype", required_argument, NULL, OPT_DTYPE},
                                            {"cell", required_argument, NULL, OPT_CELL},
                                            {"key", required_argument, NULL, OPT_KEY},
                                            {"device", required_argument, NULL, OPT_DEVICE},
                                            {"format", required_argument, NULL, 'f'},
                                            {"output", required_argument, NULL, 'o'},
                                            {"help", no_argument, NULL, 'h'},
                                            {"version", no_argument, NULL, OPT_VERSION},
                                            {NULL, 0, NULL, 0}};
    int option = 0;
    while ((option = getopt_long(argc, argv, "o:f:h", options, NULL)) != -1) {
        const int code = parse_option(cl, option);
        if (code != NAS_EXIT_OK || cl->done) return code;
    }
    if (cl->break_even) {
        if (optind < argc)
            return usage_error("--break-even takes its model by --layers, not as", argv[optind]);
        if (cl->device != NULL)
            return usage_error("--break-even takes its device by --target, not by --device", NULL);
        cl->model = cl->layers;
        return NAS_EXIT_OK;
    }
    if (cl->layers != NULL || cl->shapes != NULL || cl->patterns != NULL || cl->rates != NULL ||
        cl->format != NULL)
        return usage_error("--layers, --shapes, --patterns, --rates and -f belong to --break-even",
                           NULL);
    if (cl->dtype != NULL && strcmp(cl->dtype, "fp32") != 0 && strcmp(cl->dtype, "fp16") != 0 &&
        strcmp(cl->dtype, "bf16") != 0)
        return usage_error("--dtype wants fp32, fp16 or bf16 here; lists of f32 and int8 belong to "
                           "--break-even, not",
                           cl->dtype);
    if (cl->dtype != NULL && strcmp(cl->dtype, "bf16") == 0 && cl->tune_s > 0)
        return usage_error("--tune has no kernels of bf16 to measure: leave it or --dtype bf16 out",
                           NULL);
    if (cl->key != NULL && cl->device == NULL)
        return usage_error("--key belongs to --device http://HOST:PORT or --break-even", NULL);
    if (cl->max_code_kb > 0 && strcmp(cl->emit, "c") != 0)
        return usage_error("--max-code-kb belongs to --emit c", NULL);
    if (nas_sparse_device_is(cl->target))
        return usage_error("--target wants a name of --help; a device is given as --device",
                           cl->target);
    if (optind >= argc) return usage_error("which model? Give an ONNX file", NULL);
    cl->model = argv[optind];
    if (optind + 1 < argc) return usage_error("unexpected argument", argv[optind + 1]);
    if (cl->out == NULL && !cl->explain && cl->dump == NULL)
        return usage_error("-o DIR is missing", NULL);
    return NAS_EXIT_OK;
}

static nas_status options_of(nas_ctx *ctx, const command_line *cl, nas_target *cpu,
                             nas_compile_options *out) {
    *out = nas_compile_options_default();
    /* a device's row is known once it is open */
    const char *target = nas_sparse_device_is(cl->target) ? "native" : cl->target;
    nas_status status = nas_target_find(ctx, target, &out->target);
    if (status == NAS_OK && cl->cpu != NULL) {
        status = nas_target_find_cpu(ctx, out->target, cl->cpu, cpu);
        out->target = cpu;
    }
    if (status != NAS_OK) return status;
    out->max_threads = (int32_t)cl->threads;
    if (!cl->break_even && cl->dtype != NULL && strcmp(cl->dtype, "fp16") == 0)
        out->dtype = NAS_DTYPE_FP16;
    if (!cl->break_even && cl->dtype != NULL && strcmp(cl->dtype, "bf16") == 0)
        out->dtype = NAS_DTYPE_BF16;
    out->compiler = cl->compiler;
    if (cl->cache != NULL) out->cache_dir = cl->cache;
    if (cl->weights != NULL && strcmp(cl->weights, "small") == 0) {
        out->weight_price = SMALL_WEIGHTS_PRICE;
    } else if (cl->weights != NULL && strcmp(cl->weights, "fast") != 0) {
        return nas_fail(ctx, NAS_ERR_INVALID, "--weights wants fast or small, not '%s'",
                        cl->weights);
    }
    static const struct {
        const char *name;
        nas_form form;
        nas_row_kernels kernels;
    } forms[] = {{"auto", NAS_FORM_AUTO, NAS_ROW_KERNELS_AUTO},
                 {"rows", NAS_FORM_ROWS, NAS_ROW_KERNELS_AUTO},
                 {"rows-direct", NAS_FORM_ROWS, NAS_ROW_KERNELS_DIRECT},
                 {"rows-winograd", NAS_FORM_ROWS, NAS_ROW_KERNELS_WINOGRAD},
                 {"layers", NAS_FORM_LAYERS, NAS_ROW_KERNELS_AUTO}};
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (strcmp(cl->form, forms[i].name) != 0) continue;
        out->form = forms[i].form;
        out->row_kernels = forms[i].kernels;
        return NAS_OK;
    }
    return nas_fail(ctx, NAS_ERR_INVALID,
                    "--form wants auto, rows, rows-direct, rows-winograd or layers, not '%s'",
                    cl->form);
}

/* ---- model ---------------------------------------------------------------------------------------------------------- */

/* Bytes that this machine has left, a generous figure where the system does not say. */
static uint64_t memory_left(void) {
    FILE *f = fopen("/proc/meminfo", "r");
    char line[128];
    unsigned long long kib = 4ULL * 1024 * 1024;
    while (f != NULL && fgets(line, sizeof line, f) != NULL) {
        if (strncmp(line, "MemAvailable:", 13) == 0) kib = strtoull(line + 13, NULL, 10);
    }
    if (f != NULL) (void)fclose(f);
    return kib * 1024;
}

static nas_status import(nas_ctx *ctx, const command_line *cl, nas_graph **out) {
    nas_onnx_import_options o = nas_onnx_import_options_default();
    o.h = (int32_t)cl->height;
    o.w = (int32_t)cl->width;
    /* the file, the graph and the packed weights are in memory together */
    const uint64_t most = memory_left() / 4;
    if (most < o.max_file_bytes) o.max_file_bytes = (size_t)most;
    if (most < o.max_weight_bytes) o.max_weight_bytes = (size_t)most;
    return nas_onnx_import(ctx, cl->model, &o, out);
}

/* What the command line says of the type of numbers goes before what the recipe says. */
static nas_status use_recipe(nas_ctx *ctx, const command_line *cl, nas_graph *graph,
                             nas_compile_options *options) {
    nas_recipe_dtype dtype;
    const nas_status status = nas_recipe_apply(ctx, cl->recipe, graph, &dtype);
    if (status == NAS_OK && dtype == NAS_RECIPE_FP16 && cl->dtype == NULL)
        options->dtype = NAS_DTYPE_FP16;
    return status;
}

/* Without a target or a processor it is the best row for what the network computes in. */
static nas_status settle_target(nas_ctx *ctx, const command_line *cl,
                                nas_compile_options *options) {
    if (strcmp(cl->target, "native") != 0 || cl->cpu != NULL) return NAS_OK;
    return nas_target_native(ctx, options->dtype, &options->target);
}

/* ---- results -------------------------------------------------------------------------------------------------------- */

static nas_status print(nas_ctx *ctx, const nas_buf *text) {
    if (fwrite(text->data, 1, text->len, stdout) != text->len)
        return nas_fail(ctx, NAS_ERR_IO, "standard output: cannot write");
    return NAS_OK;
}

/* DIR/compile.json: what both kinds of result say, then `members`. */
static nas_status write_facts(nas_ctx *ctx, const command_line *cl, const nas_graph *graph,
                              nas_dtype dtype, const char *const made[3],
                              void (*members)(nas_json *, const void *), const void *facts) {
    static const char *const names[3] = {"target", "compiler", "flags"};
    char hash[NAS_SHA256_HEX], path[1024];
    nas_status status = nas_graph_hash(ctx, graph, false, hash);
    nas_buf text = {0};
    nas_json j = nas_json_begin(&text);
    nas_json_object(&j);
    nas_json_key(&j, "name");
    nas_json_string(&j, nas_graph_name(graph));
    nas_json_key(&j, "graph_hash");
    nas_json_string(&j, hash);
    nas_json_key(&j, "cpu");
    nas_json_string(&j, cl->cpu);
    if (dtype != NAS_DTYPE_FP32) {
        nas_json_key(&j, "dtype");
        nas_json_string(&j, dtype == NAS_DTYPE_FP16 ? "fp16" : "bf16");
    }
    for (int i = 0; i < 3; i++) {
        nas_json_key(&j, names[i]);
        nas_json_string(&j, made[i]);
    }
    members(&j, facts);
    nas_json_object_end(&j);
    nas_buf_puts(&text, "\n");
    (void)snprintf(path, sizeof path, "%s/compile.json", cl->out);
    if (status == NAS_OK) status = nas_buf_status(ctx, &text);
    if (status == NAS_OK) status = nas_file_write(ctx, path, text.data, text.len, 0644);
    nas_buf_deinit(&text);
    return status;
}

static void put_number(nas_json *j, const char *name, uint64_t value) {
    nas_json_key(j, name);
    nas_json_int(j, (int64_t)value);
}

static void program_members(nas_json *j, const void *facts) {
    const nas_artifact *a = facts;
    put_number(j, "arena_bytes", a->arena_bytes);
    put_number(j, "weight_bytes", a->weight_bytes);
    put_number(j, "program_bytes", a->size_bytes);
    nas_json_key(j, "sha256");
    nas_json_string(j, a->sha256);
}

static void bundle_members(nas_json *j, const void *facts) {
    const nas_bundle_facts *f = facts;
    put_number(j, "arena_bytes", f->arena_bytes);
    put_number(j, "weight_bytes", f->weight_bytes);
    nas_json_key(j, "code_bytes");
    if (f->code_known)
        nas_json_int(j, (int64_t)f->code_bytes);
    else
        nas_json_null(j);
    nas_json_key(j, "made_smaller");
    nas_json_bool(j, f->made_smaller);
}

/* The default bound holds where the code can be measured; one that was asked for needs the compiler. */
static nas_status write_bundle(nas_ctx *ctx, const command_line *cl, const nas_graph *graph,
                               const nas_compile_options *options) {
    nas_compile_options o = *options;
    nas_bundle_facts f = {0};
    const bool asked = cl->max_code_kb > 0;
    o.max_code_bytes = 1024 * (uint64_t)(asked ? cl->max_code_kb : CODE_KB);
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet == NULL) return NAS_ERR_NOMEM;
    if (!asked && nas_toolchain_check(quiet, &o) == NAS_ERR_TOOLCHAIN) {
        o.max_code_bytes = 0;
        fprintf(stderr, "note: the size of the code is not known: %s\n", nas_ctx_message(quiet));
    }
    nas_ctx_free(quiet);
    nas_status status = nas_emit_bundle(ctx, graph, &o, cl->out, &f);
    const char *const made[3] = {o.target->name, f.compiler, f.flags};
    if (status == NAS_OK) status = write_facts(ctx, cl, graph, o.dtype, made, bundle_members, &f);
    if (status != NAS_OK) return status;
    fprintf(stderr, "%s: model.c, model.h, weights.c, example.c, README.txt; ", cl->out);
    if (f.code_known)
        fprintf(stderr, "%.1f KB of code%s, ", (double)f.code_bytes / 1024,
                f.made_smaller ? " (slower kernels, to keep within the bound)" : "");
    fprintf(stderr, "%.1f KB of weights, %.1f MB of memory besides\n",
            (double)f.weight_bytes / 1024, (double)f.arena_bytes * 1e-6);
    return NAS_OK;
}

static nas_status write_program(nas_ctx *ctx, const command_line *cl, const nas_graph *graph,
                                const nas_compile_options *options) {
    enum { PROGRAM_MODE = 0755 };
    nas_artifact a;
    char path[1024];
    nas_buf program = {0};
    const int n = snprintf(path, sizeof path, "%s/model", cl->out);
    if (n < 0 || (size_t)n >= sizeof path)
        return nas_fail(ctx, NAS_ERR_RANGE, "-o: path longer than %zu bytes", sizeof path);
    nas_status status = nas_compile(ctx, graph, options, &a);
    if (status == NAS_OK) status = nas_mkdirs(ctx, cl->out);
    if (status == NAS_OK) status = nas_file_read(ctx, a.path, SIZE_MAX, &program);
    if (status == NAS_OK)
        status = nas_file_write(ctx, path, program.data, program.len, PROGRAM_MODE);
    nas_buf_deinit(&program);
    const char *const made[3] = {a.target, a.compiler, a.flags};
    if (status == NAS_OK)
        status = write_facts(ctx, cl, graph, options->dtype, made, program_members, &a);
    if (status != NAS_OK) return status;
    fprintf(stderr, "%s: %.1f MB for %s, %.1f MB of memory besides; %s\n", path,
            (double)a.size_bytes * 1e-6, a.target, (double)a.arena_bytes * 1e-6,
            a.from_cache ? "from the cache" : "compiled");
    return NAS_OK;
}

static nas_status produce(nas_ctx *ctx, const command_line *cl, const nas_graph *graph,
                          const nas_compile_options *options) {
    nas_buf text = {0};
    nas_status status = NAS_OK;
    if (cl->dump != NULL) {
        status = nas_dump_after(ctx, graph, options, cl->dump, &text);
        if (status == NAS_OK) status = print(ctx, &text);
        nas_buf_clear(&text);
    }
    if (status == NAS_OK && cl->explain) {
        status = nas_compile_explain(ctx, graph, options, &text);
        if (status == NAS_OK) status = print(ctx, &text);
    }
    nas_buf_deinit(&text);
    if (status != NAS_OK || cl->out == NULL) return status;
    if (strcmp(cl->emit, "exe") == 0) return write_program(ctx, cl, graph, options);
    return write_bundle(ctx, cl, graph, options);
}

/* Whose numbers they will be; `row`: room for what that device is compiled for. Without an agent this machine can still be
 * measured, only not for searches. */
static nas_status find_device(nas_ctx *ctx, const command_line *cl, nas_compile_options *options,
                              nas_target *row, nas_sparse_gain *request) {
    request->on_device = nas_sparse_device_is(cl->target);
    request->device_name = request->on_device ? cl->target : "native";
    if (request->on_device) {
        const nas_status status = nas_sparse_device_open(
            ctx, cl->target, cl->key, options->cache_dir, options->dtype, &request->device, row);
        if (status == NAS_OK && cl->cpu == NULL) options->target = row;
        return status;
    }
    nas_ctx *quiet = nas_ctx_child(ctx);
    if (quiet == NULL) return NAS_ERR_NOMEM;
    if (nas_sparse_device_open(quiet, "local", NULL, options->cache_dir, options->dtype,
                               &request->device, row) != NAS_OK) {
        fprintf(stderr, "note: the table is not kept for searches: %s\n", nas_ctx_message(quiet));
        request->device = NULL;
    }
    nas_ctx_free(quiet);
    return NAS_OK;
}

static nas_status break_even(nas_ctx *ctx, const command_line *cl, const nas_graph *graph,
                             nas_compile_options *options, nas_db *db) {
    nas_sparse_gain request = {.graph = graph,
                               .shapes = cl->shapes,
                               .patterns = cl->patterns,
                               .rates = cl->rates,
                               .dtype = cl->dtype,
                               .seconds = cl->cell_s,
                               .db = db};
    nas_target row;
    nas_status status =
        nas_rows_format_parse(ctx, cl->format != NULL ? cl->format : "table", &request.format);
    if (status == NAS_OK) status = find_device(ctx, cl, options, &row, &request);
    if (status == NAS_OK) status = nas_sparse_gain_print(ctx, options, &request);
    nas_device_close(request.device);
    return status;
}

static nas_status open_tune(nas_ctx *ctx, const command_line *cl, nas_compile_options *options,
                            nas_compile_tune *tune) {
    const nas_compile_tune_options o = {.db_path = cl->db,
                                        .device = cl->device,
                                        .key_file = cl->key,
                                        .tune_s = cl->tune_s,
                                        .threads = cl->break_even ? 1 : (int32_t)cl->threads,
                                        .needs_db = cl->break_even};
    const bool choose_target = strcmp(cl->target, "native") == 0 && cl->cpu == NULL;
    return nas_compile_tune_open(ctx, &o, choose_target, options, tune);
}

static int run(nas_ctx *ctx, const command_line *cl) {
    nas_target cpu;
    nas_compile_options options;
    nas_graph *graph = NULL;
    nas_compile_tune tune = {0};
    nas_status status = options_of(ctx, cl, &cpu, &options);
    const bool wrong_usage = status != NAS_OK;
    if (status == NAS_OK && cl->model != NULL) status = import(ctx, cl, &graph);
    if (status == NAS_OK && cl->recipe != NULL) status = use_recipe(ctx, cl, graph, &options);
    if (status == NAS_OK) status = settle_target(ctx, cl, &options);
    if (status == NAS_OK) status = open_tune(ctx, cl, &options, &tune);
    if (status == NAS_OK)
        status = cl->break_even ? break_even(ctx, cl, graph, &options, tune.db)
                                : produce(ctx, cl, graph, &options);
    if (status != NAS_OK && status != NAS_ERR_CANCELLED)
        fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    const nas_status closed = nas_compile_tune_close(ctx, &tune);
    if (status == NAS_OK && closed != NAS_OK) {
        status = closed;
        fprintf(stderr, "error: %s\n", nas_ctx_message(ctx));
    }
    nas_graph_free(graph);
    return wrong_usage ? NAS_EXIT_USAGE : nas_exit_code(status);
}

int main(int argc, char **argv) {
    command_line cl = {
        .target = "native", .emit = "exe", .form = "auto", .threads = 2, .cell_s = 0.4};
    const int code = parse_command_line(argc, argv, &cl);
    if (code != NAS_EXIT_OK || cl.done) return code;
    nas_ctx *ctx = nas_ctx_new();
    if (ctx == NULL) {
        fputs("error: out of memory\n", stderr);
        return NAS_EXIT_FAILED;
    }
    struct sigaction action = {.sa_handler = on_signal};
    (void)sigaction(SIGINT, &action, NULL);
    (void)sigaction(SIGTERM, &action, NULL);
    (void)signal(SIGPIPE, SIG_IGN);
    nas_ctx_set_cancel(ctx, &interrupted);
    const int result = run(ctx, &cl);
    nas_ctx_free(ctx);
    if (fflush(stdout) != 0) return NAS_EXIT_FAILED;
    return result;
}
