/* test_half.c - programs in half precision against the reference in doubles, on Arm under qemu-user, on x86-64 where this
 * processor computes in it, only compiled where it does not: generated shapes, whole networks, large values; what is refused,
 * and what a processor without the arithmetic says. */
#include "compile_fixture.h"
#include "compiler/compiler_internal.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static compile_fixture f;

static void setup_for(const char *target) {
    compile_fixture_init(&f, 3);
    f.options.dtype = NAS_DTYPE_FP16;
    cr_assert(eq(int, (int)nas_target_find(f.ctx, target, &f.options.target), (int)NAS_OK));
}

static void setup(void) {
    setup_for("aarch64-fp16");
}

static void setup_x86(void) {
    setup_for("x86-64-avx512fp16");
}

static void teardown(void) {
    compile_fixture_deinit(&f);
}

TestSuite(compiler_half, .init = setup, .fini = teardown, .timeout = 300);
TestSuite(compiler_half_x86, .init = setup_x86, .fini = teardown, .timeout = 300);

/* A claim about programs of both architectures; what follows is the body. */
#define CLAIM(name)                                                                                \
    static void check_##name(void);                                                                \
    Test(compiler_half, name) {                                                                    \
        check_##name();                                                                            \
    }                                                                                              \
    Test(compiler_half_x86, name) {                                                                \
        check_##name();                                                                            \
    }                                                                                              \
    static void check_##name(void)

#define MUST(call) cr_assert_eq((int)(call), NAS_OK, "%s: %s", #call, nas_ctx_message(f.ctx))

static bool installed(const char *program) {
    const char *const argv[] = {program, "--version", NULL};
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    nas_process_result r = {0};
    const nas_status status = nas_process_run(f.ctx, &o, &r);
    const bool found = status == NAS_OK && r.exit_code == 0;
    if (status == NAS_OK) nas_process_result_deinit(&r);
    nas_ctx_clear(f.ctx);
    return found;
}

static bool is_x86(void) {
    return strcmp(f.options.target->arch, "x86-64") == 0;
}

/* NULL: programs are only compiled. "": they run as they are. */
static const char *emulator(void) {
    if (!is_x86()) return "qemu-aarch64";
    return f.options.target->runs_here ? "" : NULL;
}

/* The reason goes to stderr too: Criterion prints those of skipped tests only when asked to be verbose. */
static void skip(const char *reason) {
    (void)fprintf(stderr, "skipped: %s\n", reason);
    cr_skip_test("%s", reason);
}

static void need_tools(void) {
    const bool compiles = installed(f.options.target->compiler);
    if (!is_x86() && (!compiles || !installed("qemu-aarch64")))
        skip("needs the aarch64 cross compiler and qemu-aarch64 (Debian: apt-get install "
             "gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user)");
    if (is_x86() && !compiles) skip("needs gcc for x86-64");
}

/* A graph with its program, an image and the reference's answer. */
typedef struct trial {
    nas_graph *g;
    nas_artifact a;
    size_t n_in, n_out;
    float *in, *out;
    double *expected, magnitude;
} trial;

static trial trial_new(nas_graph *g, uint64_t seed) {
    trial t = {.g = g,
               .n_in = reference_count(g, nas_graph_input(g)),
               .n_out = reference_count(g, nas_graph_output(g))};
    t.in = reference_image(f.ctx, t.n_in, seed);
    t.out = nas_alloc_array(f.ctx, t.n_out, sizeof *t.out);
    t.expected = nas_alloc_array(f.ctx, t.n_out, sizeof *t.expected);
    MUST(nas_compile(f.ctx, g, &f.options, &t.a));
    if (emulator() != NULL) (void)snprintf(t.a.runner, sizeof t.a.runner, "%s", emulator());
    return t;
}

static void trial_free(trial *t) {
    nas_free(t->in);
    nas_free(t->out);
    nas_free(t->expected);
    nas_graph_free(t->g);
}

static void trial_run(trial *t, int32_t threads) {
    MUST(nas_artifact_run(f.ctx, &t->a, t->g, 1, t->in, t->out, threads, f.dir));
}

/* Sums of up to 144 products are rounded after each, so that what is lost grows with the root of their number; values between
 * layers are rounded once. A layer stays within 3e-3 of the largest value on the way, half a percent for a whole network
 * (docs/half_precision.md). */
static const double layer_bound = 3e-3, network_bound = 5e-3;

static void check_graph(nas_graph *g, const char *what, uint64_t seed, double bound) {
    reference_fill(f.ctx, g, seed);
    trial t = trial_new(g, seed);
    if (emulator() == NULL) {
        trial_free(&t);
        return;
    }
    reference_forward(f.ctx, g, t.in, t.expected, &t.magnitude);
    float *first = nas_alloc_array(f.ctx, t.n_out, sizeof *first);
    for (int32_t threads = 1; threads <= f.options.max_threads; threads += 2) {
        trial_run(&t, threads);
        if (threads == 1) memcpy(first, t.out, t.n_out * sizeof *first);
        cr_assert(eq(int, memcmp(first, t.out, t.n_out * sizeof *first), 0),
                  "%s: %d threads change the result", what, threads);
    }
    double worst = 0, square = 0;
    for (size_t i = 0; i < t.n_out; i++) { /* a NaN sticks */
        const double off = fabs((double)t.out[i] - t.expected[i]);
        if (!(off <= worst)) worst = off;
        square += off * off;
    }
    if (getenv("NAS_HALF_VERBOSE") != NULL)
        (void)fprintf(stderr, "%-60s worst %.2e rms %.2e of %.3g\n", what, worst / t.magnitude,
                      sqrt(square / (double)t.n_out) / t.magnitude, t.magnitude);
    cr_assert(worst <= bound * t.magnitude, "%s: off by %g of %g", what, worst, t.magnitude);
    nas_free(first);
    trial_free(&t);
}

/* ---- shapes --------------------------------------------------------------------------------------------------------- */

CLAIM(generated_shapes_match_the_reference) {
    need_tools();
    static const int32_t heights[] = {1, 2, 3, 5, 8, 13}, widths[] = {1, 3, 7, 8, 17, 31, 64};
    static const int32_t channels[] = {1, 2, 3, 5, 7, 12, 13, 16, 33};
    static const int32_t kernels[][2] = {{1, 1}, {3, 3}, {5, 5}, {3, 1}, {1, 5}, {9, 9}};
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20261127;
    nas_rng rng = nas_rng_stream(seed, 0, "half");
#define ONE_OF(list) list[nas_rng_below(&rng, sizeof list / sizeof list[0])]
    for (int i = 0; i < 12; i++) {
        const int32_t height = i == 0 ? 1 : ONE_OF(heights), width = i == 0 ? 1 : ONE_OF(widths);
        const int32_t in = ONE_OF(channels), out = ONE_OF(channels);
        const int32_t *kernel = kernels[i < 6 ? (uint32_t)i : nas_rng_below(&rng, 6)];
        f.options.row_kernels = i % 3 == 2 ? NAS_ROW_KERNELS_WINOGRAD : NAS_ROW_KERNELS_AUTO;
        nas_graph *g = reference_conv(f.ctx, height, width, in, out, kernel[0], kernel[1], i % 2);
        char what[128];
        (void)snprintf(what, sizeof what, "SEED=%" PRIu64 " %d: %dx%d, %d -> %d, kernel %dx%d",
                       seed, i, height, width, in, out, kernel[0], kernel[1]);
        check_graph(g, what, seed + (uint64_t)i, layer_bound);
    }
#undef ONE_OF
}

/* Networks of every kind of stage, in one strip and in several. */
CLAIM(whole_networks_match_the_reference) {
    need_tools();
    const nas_target wide = compile_cramped(&f, f.options.target->name, 4096 * 1024),
                     narrow = compile_cramped(&f, f.options.target->name, 40 * 1024);
    const sr_shape shape = {13, 333, 2, 3, 8, 16, 12, 3, 3, 5};
    for (int i = 0; i < 2; i++) {
        f.options.target = i == 0 ? &wide : &narrow;
        nas_graph *g = reference_sr(f.ctx, &shape);
        cr_assert(compile_says(&f, g, "plan", "plan: 1 strips") == (i == 0), "strips: %d", i);
        check_graph(g, i == 0 ? "sr" : "sr in strips", 9, network_bound);
        check_graph(reference_fsrcnn(f.ctx, 9 + i, 37, 2 + i, 56, 12, 2), "fsrcnn", 7,
                    network_bound);
        check_graph(reference_chain(f.ctx, 7 + i, 53), "chain", 8, network_bound);
        check_graph(reference_tangle(f.ctx, 6 + i, i == 0 ? 21 : 230, 5 + (uint64_t)i), "tangle",
                    5 + (uint64_t)i, network_bound);
    }
}

/* Two Winograd kernels with all that can be merged into one: the rows that stick out of the image, additions, PReLU. */
CLAIM(winograd_of_two_rows_matches_the_reference) {
    need_tools();
    for (int i = 0; i < 4; i++) {
        nas_value x = 0, y = 0;
        const nas_conv_attributes c = nas_conv_same(13, 3);
        nas_graph *g = nas_graph_new(f.ctx, "pair");
        MUST(nas_graph_add_input(f.ctx, g, "in", (nas_shape){1, 1 + 3 * i, 9 + 40 * i, 5}, &x));
        MUST(nas_graph_add_conv(f.ctx, g, "first", x, &c, &x));
        MUST(nas_graph_add_prelu(f.ctx, g, "act", x, &x));
        MUST(nas_graph_add_conv(f.ctx, g, "second", x, &c, &y));
        MUST(nas_graph_add_add(f.ctx, g, "sum", y, x, &y));
        MUST(nas_graph_set_output(f.ctx, g, y));
        f.options.row_kernels = NAS_ROW_KERNELS_WINOGRAD;
        cr_assert(compile_says(&f, g, "plan", "winograd 2 rows"));
        cr_assert(not(compile_says(&f, g, "plan", "winograd 4 rows")));
        check_graph(g, "two convolutions", 30 + (uint64_t)i, network_bound);
    }
}

/* Long sums are widened between blocks: 9x9 of 33 channels add 2,673 products. */
CLAIM(long_sums_keep_their_accuracy) {
    need_tools();
    nas_graph *g = reference_conv(f.ctx, 5, 21, 33, 6, 9, 9, false);
    cr_assert(compile_says(&f, g, NULL, "sums go to floats after 144 products"));
    check_graph(g, "9x9 of 33 channels", 3, layer_bound);
    nas_graph *one = reference_conv(f.ctx, 5, 21, 1024, 6, 1, 1, false);
    check_graph(one, "1x1 of 1024 channels", 4, layer_bound);
}

/* 9x9 to `up` times the size, of `channels`; a 3x3 convolution behind it. */
static nas_graph *upscaling(int32_t up, int32_t channels) {
    const nas_conv_attributes c = {.out_channels = 2,
                                   .kernel_h = 9,
                                   .kernel_w = 9,
                                   .stride_h = up,
                                   .stride_w = up,
                                   .pad_top = 4,
                                   .pad_bottom = 4,
                                   .pad_left = 4,
                                   .pad_right = 4,
                                   .dilation_h = 1,
                                   .dilation_w = 1,
                                   .groups = 1,
                                   .has_bias = true};
    return compile_upscaling(&f, &c, up - 1, channels, 7, 45, true);
}

/* Phases of a few channels, and of so many that their sums are widened within a row of the window. */
CLAIM(transposed_convolutions_match_the_reference) {
    need_tools();
    check_graph(upscaling(2, 12), "9x9 of 12 channels up 2", 41, network_bound);
    check_graph(upscaling(3, 5), "9x9 of 5 channels up 3", 42, network_bound);
    check_graph(upscaling(2, 40), "9x9 of 40 channels up 2", 43, network_bound);
}

/* Broadcasts would take the ports of the multiply-adds: weights are operands in memory, and where few products share a vector, as
 * in phases of a transposed convolution, they lie twice for one broadcast of 32 bits. */
Test(compiler_half_x86, weights_are_operands_and_those_of_phases_lie_twice) {
    nas_graph *g = upscaling(2, 12);
    reference_fill(f.ctx, g, 1);
    nas_buf source = {0}, header = {0};
    MUST(nas_emit_source(f.ctx, g, &f.options, &source, &header));
    static const char *const texts[] = {"%{1to32%}", "SPLAT(b, w + 1); MADD(",
                                        "SPLAT_TWICE(b, w + 2); MADD_TWICE("};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        cr_assert(ne(ptr, strstr(source.data, texts[i]), NULL), "no '%s'", texts[i]);
    cr_assert(eq(ptr, strstr(source.data, "SPLAT_TWICE(b, w + 1)"), NULL));
    nas_buf_deinit(&source);
    nas_buf_deinit(&header);
    nas_graph_free(g);
}

/* ---- large values --------------------------------------------------------------------------------------------------- */

/* A 1x1 convolution of one channel by `weight`, behind it one by 1 with a ReLU. */
static nas_graph *scaled(float weight) {
    nas_value x = 0;
    const nas_conv_attributes c = nas_conv_same(1, 1);
    nas_graph *g = nas_graph_new(f.ctx, "scaled");
    MUST(nas_graph_add_input(f.ctx, g, "in", (nas_shape){1, 3, 19, 1}, &x));
    MUST(nas_graph_add_conv(f.ctx, g, "scale", x, &c, &x));
    MUST(nas_graph_add_conv(f.ctx, g, "copy", x, &c, &x));
    MUST(nas_graph_add_relu(f.ctx, g, "relu", x, &x));
    MUST(nas_graph_set_output(f.ctx, g, x));
    MUST(nas_graph_alloc_weights(f.ctx, g));
    nas_graph_param(g, nas_graph_node(g, 1)->params[0])->data[0] = weight;
    nas_graph_param(g, nas_graph_node(g, 2)->params[0])->data[0] = 1;
    return g;
}

CLAIM(what_half_precision_cannot_hold_becomes_infinite) {
    need_tools();
    static const struct {
        float in, out;
    } rows[] = {{1, 1024},
                {63.9688F, 65504},
                {64, INFINITY},
                {-3, 0},
                {1e30F, INFINITY},
                {NAN, 0} /* a ReLU */,
                {0x1p-24F, 0x1p-14F},
                {0x1p-26F, 0} /* the input rounds to 0 */};
    enum { ROWS = sizeof rows / sizeof rows[0] };
    trial t = trial_new(scaled(1024), 1);
    if (emulator() == NULL) {
        trial_free(&t);
        return;
    }
    for (size_t i = 0; i < t.n_in; i++)
        t.in[i] = rows[i % ROWS].in;
    trial_run(&t, 1);
    for (size_t i = 0; i < t.n_out; i++) {
        const float expected = rows[i % ROWS].out;
        cr_assert(t.out[i] == expected, "pixel %zu: %g becomes %g, not %g", i, (double)t.in[i],
                  (double)t.out[i], (double)expected);
    }
    trial_free(&t);
}

static void expect_error(nas_graph *g, nas_status status, const char *text) {
    nas_artifact a;
    cr_assert(eq(int, (int)nas_compile(f.ctx, g, &f.options, &a), (int)status), "%s",
              nas_ctx_message(f.ctx));
    cr_assert(ne(ptr, strstr(nas_ctx_message(f.ctx), text), NULL), "'%s' lacks '%s'",
              nas_ctx_message(f.ctx), text);
    nas_graph_free(g);
}

Test(compiler_half, weights_beyond_the_range_are_refused_by_name) {
    expect_error(scaled(65520), NAS_ERR_RANGE, "'scale': a weight of 65520; half precision ends");
}

Test(compiler_half, conversion_rounds_to_the_nearest_half) {
    static const struct {
        float value;
        uint16_t half;
    } rows[] = {{0, 0},
                {-0.0F, 0x8000},
                {1, 0x3c00},
                {-2, 0xc000},
                {65504, 0x7bff},
                {65519, 0x7bff},
                {0x1p-14F, 0x0400},
                {0x1.ff8p-15F, 0x03ff},
                {0x1.ffcp-15F, 0x0400}, /* a tie: to the even one */
                {0x1p-24F, 1},
                {0x1p-25F, 0},
                {0x1.8p-24F, 2},
                {1 + 0x1p-11F, 0x3c00},
                {1 + 0x3p-11F, 0x3c02},
                {1 + 0x1.002p-11F, 0x3c01}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        uint16_t half = 0;
        MUST(nas__half_weights(f.ctx, "w", &rows[i].value, 1, &half));
        cr_assert(half == rows[i].half, "%a: %04x, not %04x", (double)rows[i].value, half,
                  rows[i].half);
        const double back = nas__half_value(half);
        cr_assert(fabs(back - (double)rows[i].value) <= fmax(fabs(back) * 0x1p-11, 0x1p-25),
                  "%a becomes %a", (double)rows[i].value, back);
    }
}

/* ---- what is refused ------------------------------------------------------------------------------------------------ */

static nas_graph *small_conv(void) {
    nas_graph *g = reference_conv(f.ctx, 4, 9, 2, 3, 3, 3, true);
    reference_fill(f.ctx, g, 1);
    return g;
}

Test(compiler_half, targets_without_the_arithmetic_are_refused_with_what_to_do) {
    nas_target cpu;
    static const struct {
        const char *name, *advice;
    } rows[] = {{"aarch64-linux", "take target aarch64-fp16, or name a processor that does: "
                                  "cortex-a55, cortex-a75, cortex-a76"},
                {"aarch64-dotprod", "take target aarch64-fp16, or"},
                {"armv7-linux", "of other architectures do targets x86-64-avx512fp16, x86-64-amx, "
                                "aarch64-fp16"},
                {"riscv64-linux", "of other architectures do targets"},
                {"x86-64-avx2", "take target x86-64-avx512fp16, x86-64-amx; or take dtype fp32"},
                {"x86-64-avx512vnni", "take target x86-64-avx512fp16, x86-64-amx, or name a "
                                      "processor that does: sapphirerapids; or take dtype fp32"}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        MUST(nas_target_find(f.ctx, rows[i].name, &f.options.target));
        expect_error(small_conv(), NAS_ERR_UNSUPPORTED, rows[i].name);
        expect_error(small_conv(), NAS_ERR_UNSUPPORTED, rows[i].advice);
    }
    MUST(nas_target_find(f.ctx, "aarch64-linux", &f.options.target));
    MUST(nas_target_find_cpu(f.ctx, f.options.target, "cortex-a53", &cpu));
    f.options.target = &cpu;
    expect_error(small_conv(), NAS_ERR_UNSUPPORTED, "-mcpu=cortex-a53");
    MUST(nas_target_find(f.ctx, "x86-64-avx2", &f.options.target)); /* its vectors are too short */
    MUST(nas_target_find_cpu(f.ctx, f.options.target, "sapphirerapids", &cpu));
    f.options.target = &cpu;
    expect_error(small_conv(), NAS_ERR_UNSUPPORTED, "take target x86-64-avx512fp16");
}

/* What a processor has, one that computes in halves among others: the best row for integers is not the one for halves. */
static bool listed(void *user, const char *feature) {
    return strstr(user, feature) != NULL;
}

Test(compiler_half, without_a_target_the_best_one_that_computes_in_halves_is_taken) {
    static char cascade[] =
        "avx2,fma,f16c,bmi1,bmi2,lzcnt,movbe,avx512f,avx512bw,avx512dq,avx512vl,"
        "avx512cd,avx512vnni";
    char halves[256], products[256], phone[] = "asimd,atomics,asimddp,asimdhp", old[] = "asimd";
    (void)snprintf(halves, sizeof halves, "%s,avx512fp16", cascade);
    (void)snprintf(products, sizeof products, "%s,avx512bf16", cascade);
    char board[] = "i,m,a,f,d,c,v,zvl128b", long_board[] = "i,m,a,f,d,c,v,zvl128b,zvl256b";
    const struct {
        const char *arch;
        char *has;
        nas_dtype dtype;
        const char *target;
    } rows[] = {{"x86-64", halves, NAS_DTYPE_FP16, "x86-64-avx512fp16"},
                {"x86-64", halves, NAS_DTYPE_FP32, "x86-64-avx512vnni"},
                {"x86-64", cascade, NAS_DTYPE_FP16, "x86-64-avx512vnni"}, /* to be refused */
                {"x86-64", products, NAS_DTYPE_BF16, "x86-64-avx512bf16"},
                {"x86-64", products, NAS_DTYPE_FP32, "x86-64-avx512vnni"},
                {"aarch64", phone, NAS_DTYPE_FP16, "aarch64-fp16"},
                {"aarch64", phone, NAS_DTYPE_FP32, "aarch64-dotprod"},
                {"aarch64", old, NAS_DTYPE_FP16, "aarch64-linux"},
                {"riscv64", board, NAS_DTYPE_FP32, "riscv64-rvv"},
                {"riscv64", long_board, NAS_DTYPE_FP32, "riscv64-rvv256"}};
    const nas_target *row = NULL, *native = NULL;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_target best;
        MUST(nas_target_best(f.ctx, rows[i].arch, rows[i].dtype, listed, rows[i].has, NULL, &best));
        cr_assert(eq(str, (char *)best.name, (char *)rows[i].target), "row %zu", i);
    }
    const nas_target_cpu xeon = {"GenuineIntel", 6, 48 << 10, 2048 << 10, 0};
    nas_target told;
    MUST(nas_target_best(f.ctx, "x86-64", NAS_DTYPE_FP32, listed, halves, &xeon, &told));
    cr_assert(told.l2_bytes == xeon.l2_bytes && !told.splits_vectors);
    MUST(nas_target_native(f.ctx, NAS_DTYPE_FP32, &row));
    MUST(nas_target_find(f.ctx, "native", &native));
    cr_assert(eq(ptr, (void *)row, (void *)native));
    MUST(nas_target_native(f.ctx, NAS_DTYPE_FP16, &row));
    MUST(nas_target_find(f.ctx, "x86-64-avx512fp16", &native));
    cr_assert(row->runs_here);
    if (native->runs_here)
        cr_assert(eq(int, (int)nas_target_check_dtype(f.ctx, row, NAS_DTYPE_FP16), (int)NAS_OK));
}

Test(compiler_half, networks_that_are_no_rows_are_refused_naming_the_node) {
    nas_value x = 0;
    nas_conv_attributes c = nas_conv_same(4, 3);
    c.stride_h = c.stride_w = 2;
    nas_graph *g = nas_graph_new(f.ctx, "strided");
    MUST(nas_graph_add_input(f.ctx, g, "in", (nas_shape){1, 8, 8, 3}, &x));
    MUST(nas_graph_add_conv(f.ctx, g, "halving", x, &c, &x));
    MUST(nas_graph_set_output(f.ctx, g, x));
    MUST(nas_graph_alloc_weights(f.ctx, g));
    f.options.form = NAS_FORM_AUTO;
    expect_error(g, NAS_ERR_UNSUPPORTED, "'halving'");
    cr_assert(ne(ptr, strstr(nas_ctx_message(f.ctx), "needs dtype fp32"), NULL));
    g = small_conv();
    MUST(nas_graph_set_quant(f.ctx, g, 1, (nas_quant){.is_set = true, .scale = 0.1F}));
    expect_error(g, NAS_ERR_UNSUPPORTED, "quantized");
    f.options.form = NAS_FORM_LAYERS;
    expect_error(small_conv(), NAS_ERR_UNSUPPORTED, "form rows");
}

/* Prints what it is, or names what is missing. */
static void expect_exit(const char *const *argv, int code, const char *feature) {
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.timeout_ms = 120 * 1000;
    nas_process_result r = {0};
    MUST(nas_process_run(f.ctx, &o, &r));
    cr_assert(r.signal == 0 && r.exit_code == code, "%s: exit %d, signal %d: %s", argv[2],
              r.exit_code, r.signal, r.err.data);
    if (code != 0)
        cr_assert(ne(ptr, strstr(r.err.data, feature), NULL), "%s: %s", argv[2], r.err.data);
    nas_process_result_deinit(&r);
}

/* Compiled for a processor by name; one without the arithmetic says what is missing and ends with 2. */
Test(compiler_half, a_core_without_the_arithmetic_is_told_so) {
    need_tools();
    nas_target cpu;
    const nas_target *linux_row = NULL;
    MUST(nas_target_find(f.ctx, "aarch64-linux", &linux_row));
    MUST(nas_target_find_cpu(f.ctx, linux_row, "cortex-a76", &cpu));
    f.options.target = &cpu;
    nas_graph *g = small_conv();
    nas_artifact a;
    MUST(nas_compile(f.ctx, g, &f.options, &a));
    static const char qemu[] = "qemu-aarch64";
    expect_exit((const char *const[]){qemu, "-cpu", "cortex-a53", a.path, "--info", NULL}, 2,
                "asimdhp");
    expect_exit((const char *const[]){qemu, "-cpu", "cortex-a76", a.path, "--info", NULL}, 0, "");
    nas_graph_free(g);
}

/* The emulator has no AVX-512: the first of what is missing is named. */
Test(compiler_half_x86, a_core_without_the_arithmetic_is_told_so) {
    need_tools();
    if (!installed("qemu-x86_64")) skip("needs qemu-x86_64 (Debian: apt-get install qemu-user)");
    nas_graph *g = small_conv();
    nas_artifact a;
    MUST(nas_compile(f.ctx, g, &f.options, &a));
    expect_exit((const char *const[]){"qemu-x86_64", "-cpu", "Nehalem", a.path, "--info", NULL}, 2,
                "avx2");
    cr_assert(ne(ptr, strstr(f.options.target->needs, "avx512fp16"), NULL));
    nas_graph_free(g);
}

/* ---- the bundle ------------------------------------------------------------------------------------------------------- */

static void run(const char *const *argv) {
    nas_process_options o = nas_process_options_default();
    o.argv = argv;
    o.timeout_ms = 120 * 1000;
    nas_process_result r = {0};
    MUST(nas_process_run(f.ctx, &o, &r));
    cr_assert(r.exit_code == 0 && r.signal == 0, "%s: %s", argv[0], r.err.data);
    nas_process_result_deinit(&r);
}

/* Its build line makes a program of the same bits, its weights take half the bytes. */
CLAIM(the_bundle_builds_and_is_half_as_large) {
    need_tools();
    char dir[128], model[160], weights[160], example[160], program[160], in[160], out[160];
    const sr_shape shape = {6, 37, 2, 1, 8, 16, 4, 3, 3, 5};
    nas_graph *g = reference_sr(f.ctx, &shape);
    reference_fill(f.ctx, g, 3);
    trial t = trial_new(g, 3);
    nas_bundle_facts half, whole;
    (void)snprintf(dir, sizeof dir, "%s/bundle", f.dir);
    (void)snprintf(model, sizeof model, "%s/model.c", dir);
    (void)snprintf(weights, sizeof weights, "%s/weights.c", dir);
    (void)snprintf(example, sizeof example, "%s/example.c", dir);
    (void)snprintf(program, sizeof program, "%s/example", dir);
    (void)snprintf(in, sizeof in, "%s/in.raw", dir);
    (void)snprintf(out, sizeof out, "%s/out.raw", dir);
    f.options.row_kernels = NAS_ROW_KERNELS_DIRECT;
    f.options.dtype = NAS_DTYPE_FP32;
    MUST(nas_emit_bundle(f.ctx, g, &f.options, dir, &whole));
    f.options.dtype = NAS_DTYPE_FP16;
    MUST(nas_emit_bundle(f.ctx, g, &f.options, dir, &half));
    cr_assert(half.weight_bytes < 0.6 * (double)whole.weight_bytes);
    cr_assert(half.arena_bytes < whole.arena_bytes);
    f.options.row_kernels = NAS_ROW_KERNELS_AUTO;
    MUST(nas_emit_bundle(f.ctx, g, &f.options, dir, &half));
    cr_assert(eq(u64, half.weight_bytes, t.a.weight_bytes));
    run((const char *const[]){f.options.target->compiler, "-O2", "-std=gnu99", "-ffp-contract=fast",
                              is_x86() ? "-mavx512fp16" : "-march=armv8.2-a+fp16",
                              is_x86() ? "-march=cascadelake" : "-O2", "-Wall", "-Wextra",
                              "-Werror", "-static", "-pthread", model, weights, example, "-o",
                              program, NULL});
    if (emulator() == NULL) {
        trial_free(&t);
        return;
    }
    trial_run(&t, 1);
    MUST(nas_file_write(f.ctx, in, t.in, t.n_in * sizeof *t.in, 0600));
    const char *const argv[] = {emulator(), program, in, out, NULL};
    run(argv + (argv[0][0] == '\0'));
    nas_buf bytes = {0};
    MUST(nas_file_read(f.ctx, out, t.n_out * sizeof *t.out, &bytes));
    cr_assert(eq(sz, bytes.len, t.n_out * sizeof *t.out));
    cr_assert(eq(int, memcmp(bytes.data, t.out, bytes.len), 0));
    nas_buf_deinit(&bytes);
    trial_free(&t);
}
