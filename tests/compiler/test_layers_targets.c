/* test_layers_targets.c - the layer form for vectors of any length and products of bf16: whole networks, here or under an
 * emulator, and what is refused. */
#include "compile_fixture.h"
#include "layer_nets.h"
#include "reference.h"
#include "reference_quantized.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(compiler_layers_targets, .init = layer_nets_setup, .fini = layer_nets_teardown,
          .timeout = 240);

/* Two networks that all of these compile. */
static void (*const nets[])(void) = {resnet, mobilenet};
static const char *const network_names[] = {"resnet", "mobilenet"};

/* Takes a target for 64-bit Arm, whose programs run under an emulator. */
static void need_arm(const char *target) {
    cr_assert(eq(int, (int)nas_target_find(ctx, target, &options.target), NAS_OK));
    if (compile_starts(ctx, options.target->compiler) && compile_starts(ctx, "qemu-aarch64"))
        return;
    (void)fprintf(stderr, "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
    cr_skip_test("no cross compiler or no emulator");
}

static int32_t count_layers(const nas__layers *l, nas__conv_algorithm algorithm) {
    int32_t count = 0;
    for (int32_t k = 0; k < l->n_layers; k++)
        count += l->layers[k].kind == NAS__LAYER_CONV &&
                 l->layers[k].ways[l->layers[k].way].algorithm == algorithm;
    return count;
}

/* Network g compiled for options.target, one image, and what the reference makes of it, on 64-bit Arm under an emulator; g
 * and this are freed together. */
typedef struct emulated {
    nas_artifact artifact;
    size_t n;      /* outputs */
    float *in, *y; /* y: two answers */
    double *expected, magnitude;
} emulated;

static emulated emulated_new(void) {
    emulated e = {.n = reference_count(g, nas_graph_output(g))};
    e.in = reference_image(ctx, reference_count(g, nas_graph_input(g)), 5);
    e.y = nas_alloc_array(ctx, 2 * e.n, sizeof *e.y);
    e.expected = nas_alloc_array(ctx, e.n, sizeof *e.expected);
    reference_forward(ctx, g, e.in, e.expected, &e.magnitude);
    cr_assert(eq(int, (int)nas_compile(ctx, g, &options, &e.artifact), NAS_OK), "%s",
              nas_ctx_message(ctx));
    if (strcmp(options.target->arch, "aarch64") == 0)
        (void)snprintf(e.artifact.runner, sizeof e.artifact.runner, "qemu-aarch64");
    return e;
}

/* The largest difference of the first answer from the reference. */
static double emulated_error(const emulated *e) {
    double worst = 0;
    for (size_t k = 0; k < e->n; k++)
        worst = fmax(worst, fabs((double)e->y[k] - e->expected[k]));
    return worst;
}

static void emulated_free(emulated *e) {
    nas_free(e->in);
    nas_free(e->y);
    nas_free(e->expected);
    nas_graph_free(g);
}

/* One program for every length of the vectors, cut for 64 bytes: the same bits on all of them. */
Test(compiler_layers_targets, networks_on_vectors_of_any_length_match_the_reference) {
    static const char *const models[] = {
        "max,sve-default-vector-length=16", "max,sve-default-vector-length=32",
        "max,sve-default-vector-length=64", "max,sve-default-vector-length=256"};
    need_arm("aarch64-sve");
    for (int i = 0; i < 2; i++) {
        nets[i]();
        nas__layers *l = lowered();
        const int32_t vectors =
            count_layers(l, NAS__CONV_SVE) + count_layers(l, NAS__CONV_SVE_DEPTHWISE);
        nas__layers_free(l);
        cr_expect(vectors >= 3, "%s: %d layers", network_names[i], vectors);
        emulated e = emulated_new();
        for (int k = 0; k < 4; k++) {
            cr_assert(eq(int, setenv("QEMU_CPU", models[k], 1), 0));
            float *out = e.y + (k > 0 ? e.n : 0);
            cr_assert(eq(int,
                         (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, out, 1 + k % 2, dir),
                         NAS_OK),
                      "%s", nas_ctx_message(ctx));
            cr_expect(eq(int, memcmp(e.y, out, e.n * sizeof *e.y), 0), "%s: other bits for %s",
                      network_names[i], models[k]);
        }
        const double worst = emulated_error(&e);
        cr_expect(worst <= tolerance * e.magnitude, "%s: off by %g of %g", network_names[i], worst,
                  e.magnitude);
        emulated_free(&e);
    }
}

/* Every product is off by less than 2^-8 of itself, half a unit of each factor in its last place; what lies behind adds its own.
 * Largest difference over the largest value on the way (docs/half_precision.md). */
static const double bf16_tolerance = 5e-3;

static int32_t count_bf16(const nas__layers *l) {
    return count_layers(l, NAS__CONV_BF16) + count_layers(l, NAS__CONV_BF16_DOT) +
           count_layers(l, NAS__CONV_BF16_TILE);
}

/* least: layers that have such products. One and two threads agree to the last bit. */
static void check_bf16(const emulated *e, const char *name, int32_t least) {
    nas__layers *l = lowered();
    cr_expect(count_bf16(l) >= least, "%s: %d layers", name, count_bf16(l));
    nas__layers_free(l);
    for (int k = 0; k < 2; k++)
        cr_assert(eq(int,
                     (int)nas_artifact_run(ctx, &e->artifact, g, 1, e->in, e->y + (size_t)k * e->n,
                                           1 + k, dir),
                     NAS_OK),
                  "%s", nas_ctx_message(ctx));
    cr_expect(eq(int, memcmp(e->y, e->y + e->n, e->n * sizeof *e->y), 0));
    const double worst = emulated_error(e);
    if (getenv("NAS_HALF_VERBOSE") != NULL)
        (void)fprintf(stderr, "%s: %.2e\n", name, worst / e->magnitude);
    cr_expect(worst <= bf16_tolerance * e->magnitude, "%s: off by %g of %g", name, worst,
              e->magnitude);
    cr_expect(worst > 1e-5 * e->magnitude, "%s: as exact as floats", name);
}

static void check_bf16_here(const char *target) {
    cr_assert(eq(int, (int)nas_target_find(ctx, target, &options.target), NAS_OK));
    if (!options.target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what %s needs\n", target);
        cr_skip_test("not on this processor");
    }
    options.dtype = NAS_DTYPE_BF16;
    for (int i = 0; i < 2; i++) {
        nets[i]();
        emulated e = emulated_new();
        check_bf16(&e, network_names[i], 1); /* layers are small: floats win most of them */
        emulated_free(&e);
    }
}

Test(compiler_layers_targets, networks_with_products_of_bf16_in_tiles_stay_within_their_bound) {
    check_bf16_here("x86-64-amx");
}
Test(compiler_layers_targets, networks_with_products_of_bf16_in_vectors_stay_within_their_bound) {
    check_bf16_here("x86-64-avx512bf16");
}

/* This processor with one feature that none has: the program says so and ends. */
Test(compiler_layers_targets, programs_with_products_of_bf16_name_what_the_processor_lacks) {
    nas_target lacking;
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx512bf16", &options.target), NAS_OK));
    if (!options.target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what x86-64-avx512bf16 needs\n");
        cr_skip_test("not on this processor");
    }
    lacking = *options.target;
    char needs[256];
    (void)snprintf(needs, sizeof needs, "%s,avx512bf16_not", lacking.needs);
    lacking.needs = needs;
    options.target = &lacking;
    options.dtype = NAS_DTYPE_BF16;
    resnet();
    emulated e = emulated_new();
    cr_assert(
        eq(int, (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, e.y, 1, dir), NAS_ERR_DEVICE));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "avx512bf16_not"), NULL), "%s",
              nas_ctx_message(ctx));
    emulated_free(&e);
}

Test(compiler_layers_targets, networks_with_products_of_bf16_stay_within_their_bound) {
    need_arm("aarch64-bf16");
    options.dtype = NAS_DTYPE_BF16;
    for (int i = 0; i < 2; i++) {
        nets[i]();
        emulated e = emulated_new();
        check_bf16(&e, network_names[i], 4);
        cr_assert(eq(int, setenv("QEMU_CPU", "cortex-a76", 1), 0));
        cr_assert(eq(int, (int)nas_artifact_run(ctx, &e.artifact, g, 1, e.in, e.y, 1, dir),
                     NAS_ERR_DEVICE));
        cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), "bf16"), NULL), "%s", nas_ctx_message(ctx));
        cr_assert(eq(int, unsetenv("QEMU_CPU"), 0));
        emulated_free(&e);
    }
}

static void expect_refusal(const char *text) {
    nas_buf c = {0}, h = {0};
    cr_assert(eq(int, (int)nas_emit_source(ctx, g, &options, &c, &h), NAS_ERR_UNSUPPORTED));
    cr_expect(ne(ptr, strstr(nas_ctx_message(ctx), text), NULL), "%s", nas_ctx_message(ctx));
    nas_buf_deinit(&c);
    nas_buf_deinit(&h);
}

Test(compiler_layers_targets, bf16_is_refused_where_it_has_no_kernels) {
    resnet();
    options.dtype = NAS_DTYPE_BF16;
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-linux", &options.target), NAS_OK));
    expect_refusal("compute in bf16; take target aarch64-bf16, or name a processor that does: "
                   "neoverse-v1, neoverse-n2, cortex-a510");
    cr_assert(eq(int, (int)nas_target_find(ctx, "x86-64-avx2", &options.target), NAS_OK));
    expect_refusal("take target x86-64-avx512bf16, x86-64-amx");
    cr_assert(eq(int, (int)nas_target_find(ctx, "riscv64-rvv", &options.target), NAS_OK));
    expect_refusal("of other architectures do targets x86-64-avx512bf16, x86-64-amx, aarch64-bf16");
    cr_assert(eq(int, (int)nas_target_find(ctx, "aarch64-bf16", &options.target), NAS_OK));
    options.form = NAS_FORM_ROWS;
    expect_refusal("bf16 has kernels for layers alone");
    nas_graph_free(g);
    /* every layer has ways of floats beside those of bf16, and a network of floats none of bf16 */
    resnet();
    options.form = NAS_FORM_LAYERS;
    nas_buf text = {0};
    cr_assert(eq(int, (int)nas_compile_explain(ctx, g, &options, &text), NAS_OK));
    cr_expect(ne(ptr, strstr(text.data, "* bf16 "), NULL));
    cr_expect(ne(ptr, strstr(text.data, "  direct "), NULL));
    nas_buf_deinit(&text);
    options.dtype = NAS_DTYPE_FP32;
    nas__layers *l = lowered();
    cr_expect(eq(int, count_bf16(l), 0));
    nas__layers_free(l);
    nas_graph_free(g);
}
