/* test_layer_conv.c - the convolutions of the layer form: every way of many shapes against a plain double reference, names,
 * and what the estimate takes. */
#include "compile_fixture.h"
#include "layer_conv_cases.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const shape_row fixed_shapes[] = {
    {3, 16, 1, 7, 13, 7, 7, 2, 2, 1, 1, 0, 0, false, NAS__LACT_RELU},
    {64, 40, 1, 7, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_NONE},
    {16, 19, 1, 9, 10, 3, 3, 1, 1, 1, 1, 3, 5, true, NAS__LACT_RELU},
    {5, 8, 1, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_PRELU},
    {33, 100, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE},
    {8, 210, 1, 1, 1, 2, 2, 1, 1, 1, 1, 0, 0, false, NAS__LACT_CLIP},
    {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_LEAKY},
    {21, 21, 21, 6, 11, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_HARD_SWISH},
    {72, 72, 72, 5, 7, 5, 5, 2, 2, 1, 1, 4, 0, false, NAS__LACT_CLIP},
    {16, 16, 16, 4, 9, 3, 3, 1, 1, 2, 2, 0, 3, false, NAS__LACT_PRELU},
    {18, 30, 3, 5, 6, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_LEAKY},
    {6, 12, 6, 5, 5, 3, 3, 2, 2, 1, 1, 0, 0, false, NAS__LACT_RELU},
    {12, 20, 1, 3, 2, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_HARD_SWISH},
    {9, 35, 1, 17, 22, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU},
    {10, 24, 1, 4, 3, 3, 2, 1, 2, 3, 2, 2, 0, false, NAS__LACT_CLIP},
    /* weights or pixels that are asked for ahead; outputs far apart */
    {258, 264, 1, 3, 7, 1, 1, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU},
    {258, 40, 1, 33, 34, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_CLIP},
    {104, 150, 1, 5, 6, 3, 3, 1, 1, 1, 1, 2, 0, false, NAS__LACT_PRELU},
    /* SMALL of them: their outputs go past it, their inputs are asked for ahead */
    {8, 16, 1, 101, 103, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU},
    {3, 16, 1, 98, 108, 3, 3, 1, 1, 1, 1, 1, 16, false, NAS__LACT_RELU},
};
enum { FIXED = sizeof fixed_shapes / sizeof fixed_shapes[0], GENERATED = 12, SMALL = 2 };

TestSuite(compiler_layer_conv, .init = layer_conv_setup, .fini = layer_conv_teardown,
          .timeout = 240);

static shape_row generated_shape(nas_rng *rng) {
    shape_row r = {.groups = 1};
    const int32_t widths[] = {1, 3, 8, 13, 16, 31, 40};
    r.in_c = widths[nas_rng_below(rng, 7)];
    r.out_c = widths[nas_rng_below(rng, 7)];
    r.out_h = 1 + (int32_t)nas_rng_below(rng, 11);
    r.out_w = 1 + (int32_t)nas_rng_below(rng, 15);
    r.kh = 1 + (int32_t)nas_rng_below(rng, 3);
    r.kw = nas_rng_below(rng, 2) == 0 ? r.kh : 1 + (int32_t)nas_rng_below(rng, 5);
    r.sh = r.sw = nas_rng_below(rng, 3) == 0 ? 2 : 1;
    r.dh = r.dw = nas_rng_below(rng, 4) == 0 ? 2 : 1;
    r.in_extra = (int32_t)nas_rng_below(rng, 3);
    r.out_extra = (int32_t)nas_rng_below(rng, 3);
    r.residual = nas_rng_below(rng, 2) == 0;
    r.act = (nas__layer_act)nas_rng_below(rng, 6);
    return r;
}

static void check_target(const nas_target *target, const char *const *models) {
    shape_row rows[FIXED + GENERATED];
    nas_rng rng = nas_rng_stream(12, 0, "layer_conv");
    memcpy(rows, fixed_shapes, sizeof fixed_shapes);
    for (int i = FIXED; i < FIXED + GENERATED; i++)
        rows[i] = generated_shape(&rng);
    layer_conv_check(&(layer_conv_cases){.target = target,
                                         .models = models,
                                         .rows = rows,
                                         .n = FIXED + GENERATED,
                                         .small_from = FIXED - SMALL,
                                         .small_to = FIXED});
}

/* Rows of the table that this processor cannot run are skipped: nas_target_find refuses them. */
static void check_named(const char *name) {
    const nas_target *target = NULL;
    if (nas_target_find(layer_conv_ctx, name, &target) != NAS_OK || !target->runs_here) {
        cr_log_info("%s does not run here", name);
        return;
    }
    check_target(target, NULL);
}

Test(compiler_layer_conv, every_way_agrees_with_the_reference_16_bytes) {
    check_named("x86-64");
    check_named("aarch64-linux");
}
Test(compiler_layer_conv, every_way_agrees_with_the_reference_32_bytes) {
    check_named("x86-64-avx2");
}
Test(compiler_layer_conv, every_way_agrees_with_the_reference_64_bytes) {
    check_named("x86-64-avx512");
}
/* A cache so small that images are large beside it: outputs are stored past it, pixels asked for. */
Test(compiler_layer_conv, every_way_agrees_with_the_reference_beyond_the_caches) {
    const nas_target *target = NULL;
    if (nas_target_find(layer_conv_ctx, "x86-64-avx512", &target) != NAS_OK || !target->runs_here) {
        cr_log_info("x86-64-avx512 does not run here");
        return;
    }
    nas_target small = *target;
    small.l2_bytes = 256;
    check_target(&small, NULL);
}

/* Kernels cut for vectors of 16 lanes on a processor with 4, 8, 16 and 64 of them. */
Test(compiler_layer_conv, vectors_of_any_length_agree_with_the_reference_and_one_another) {
    static const char *const models[] = {
        "max,sve-default-vector-length=16", "max,sve-default-vector-length=32",
        "max,sve-default-vector-length=64", "max,sve-default-vector-length=256", NULL};
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "aarch64-sve", &target), NAS_OK));
    if (!compile_starts(layer_conv_ctx, target->compiler) ||
        !compile_starts(layer_conv_ctx, "qemu-aarch64")) {
        (void)fprintf(stderr,
                      "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
        cr_skip_test("no cross compiler or no emulator");
    }
    check_target(target, models);
}

/* Also of grouped convolutions, which have none: then nothing is compiled. */
Test(compiler_layer_conv, products_of_bf16_agree_with_the_reference) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "aarch64-bf16", &target), NAS_OK));
    if (!compile_starts(layer_conv_ctx, target->compiler) ||
        !compile_starts(layer_conv_ctx, "qemu-aarch64")) {
        (void)fprintf(stderr,
                      "skipped: needs gcc-aarch64-linux-gnu libc6-dev-arm64-cross qemu-user\n");
        cr_skip_test("no cross compiler or no emulator");
    }
    nas_target bf16 = *target;
    bf16.bf16 = true;
    check_target(&bf16, (const char *const[]){"max", NULL});
}

static void check_bf16_here(const char *name) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, name, &target), NAS_OK));
    if (!target->runs_here) {
        (void)fprintf(stderr, "skipped: this processor lacks what %s needs\n", name);
        cr_skip_test("not on this processor");
    }
    nas_target bf16 = *target;
    bf16.bf16 = true;
    check_target(&bf16, NULL);
}

Test(compiler_layer_conv, products_of_bf16_in_vectors_agree_with_the_reference) {
    check_bf16_here("x86-64-avx512bf16");
}
Test(compiler_layer_conv, products_of_bf16_in_tiles_agree_with_the_reference) {
    check_bf16_here("x86-64-amx");
}

Test(compiler_layer_conv, bf16_is_the_nearest_number_of_eight_bits) {
    static const struct {
        float value;
        uint16_t bf16;
    } rows[] = {{0, 0},
                {-0.0F, 0x8000},
                {1, 0x3f80},
                {-2, 0xc000},
                {1 + 0x1p-8F, 0x3f80}, /* ties: to the even one */
                {1 + 0x3p-8F, 0x3f82},
                {1 + 0x1.0002p-8F, 0x3f81},
                {0x1p-133F, 0x0001}, /* below the normal ones */
                {0x1.fffffep127F, 0x7f80},
                {INFINITY, 0x7f80}};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        cr_expect(nas__bf16_of(rows[i].value) == rows[i].bf16, "%a: %04x, not %04x",
                  (double)rows[i].value, nas__bf16_of(rows[i].value), rows[i].bf16);
    const uint16_t nan = nas__bf16_of(NAN);
    cr_expect(nan > 0x7f80, "%04x", nan);
}

/* The ways of `algorithm`, and where the first of them is in the order of the estimates; -1 without any. */
static int32_t count_ways(const nas_target *target, const nas__conv *c,
                          nas__conv_algorithm algorithm, int32_t *place) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, c, ways);
    int32_t count = 0;
    *place = -1;
    for (int32_t i = 0; i < n; i++) {
        if (ways[i].algorithm != algorithm) continue;
        if (count++ == 0) *place = i;
    }
    return count;
}

Test(compiler_layer_conv, long_vectors_compete_with_short_ones_where_the_processor_has_them) {
    static const struct {
        const char *cpu;
        bool offered;
    } rows[] = {{"neoverse-n1", false}, {"neoverse-n2", false}, {"cortex-a510", false},
                {"cortex-x2", false},   {"neoverse-v1", true},  {"a64fx", true}};
    const shape_row dense = {64, 64, 1, 28, 28, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const shape_row depthwise = {64, 64, 64, 28, 28, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const shape_row full = {128, 200, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE};
    const shape_row *const shapes[] = {&dense, &depthwise, &full};
    const nas__conv_algorithm algorithms[][2] = {{NAS__CONV_SVE, NAS__CONV_DIRECT},
                                                 {NAS__CONV_SVE_DEPTHWISE, NAS__CONV_DEPTHWISE},
                                                 {NAS__CONV_SVE, NAS__CONV_VECTOR}};
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "aarch64-linux", &target), NAS_OK));
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_target cpu;
        cr_assert(
            eq(int, (int)nas_target_find_cpu(layer_conv_ctx, target, rows[i].cpu, &cpu), NAS_OK));
        for (int k = 0; k < 3; k++) {
            const nas__conv c = layer_conv_of(shapes[k]);
            int32_t sve = -1, neon = -1;
            cr_expect(eq(int, count_ways(&cpu, &c, algorithms[k][0], &sve) > 0, rows[i].offered));
            cr_expect(count_ways(&cpu, &c, algorithms[k][1], &neon) > 0, "%s", rows[i].cpu);
            cr_expect(sve < neon || rows[i].offered == false, "%s, shape %d: %d, %d", rows[i].cpu,
                      k, sve, neon);
        }
    }
}

/* A block of weights has as many channels as vectors of the processor take: the texts are others. */
Test(compiler_layer_conv, names_tell_for_which_length_a_kernel_is_cut) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "aarch64-sve", &target), NAS_OK));
    nas_target shorter = *target;
    shorter.sve_bytes = 32;
    const nas__conv c = layer_conv_of(&fixed_shapes[1]);
    const nas__conv_way way = {.algorithm = NAS__CONV_SVE, .pixels = 7, .vectors = 2};
    nas_buf a = {0}, b = {0};
    nas__conv_name(target, &c, &way, &a);
    nas__conv_name(&shorter, &c, &way, &b);
    cr_assert(ne(str, a.data, b.data));
    nas_buf_deinit(&a);
    nas_buf_deinit(&b);
}

Test(compiler_layer_conv, names_depend_on_everything_that_the_text_depends_on) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "native", &target), NAS_OK));
    nas__conv a = layer_conv_of(&fixed_shapes[2]), b = a;
    b.out_row += 8;
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &a, ways) >= 2);
    nas_buf first = {0}, same = {0}, other = {0}, row = {0};
    nas__conv_name(target, &a, &ways[0], &first);
    nas__conv_name(target, &a, &ways[0], &same);
    nas__conv_name(target, &a, &ways[1], &other);
    nas__conv_name(target, &b, &ways[0], &row);
    cr_assert(eq(str, first.data, same.data));
    cr_assert(ne(str, first.data, other.data));
    cr_assert(ne(str, first.data, row.data));
    nas_buf_deinit(&first);
    nas_buf_deinit(&same);
    nas_buf_deinit(&other);
    nas_buf_deinit(&row);
}

/* How often a text asks for memory ahead: `what` is the macro with its bracket. */
static int asks(const nas_target *target, const nas__conv *c, nas__conv_algorithm algorithm,
                const char *what) {
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, c, ways);
    int32_t k = 0;
    while (k < n && ways[k].algorithm != algorithm)
        k++;
    cr_assert(k < n);
    nas_buf text = {0};
    nas__conv_emit(target, c, &ways[k], &text);
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &text), NAS_OK));
    int times = 0;
    for (const char *at = strstr(text.data, what); at != NULL; at = strstr(at + 1, what))
        times++;
    nas_buf_deinit(&text);
    return times;
}

Test(compiler_layer_conv, images_beyond_the_caches_are_stored_past_them) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512", &target), NAS_OK));
    const shape_row small = {16, 64, 1, 36, 64, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    shape_row large = small;
    large.out_h = 360;
    large.out_w = 640;
    const nas__conv a = layer_conv_of(&small), b = layer_conv_of(&large);
    cr_assert(eq(int, asks(target, &a, NAS__CONV_WINOGRAD_4, "stream("), 0));
    cr_assert(eq(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "stream("), 16));
    cr_assert(eq(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "STREAMED()"), 1));
    cr_assert(eq(int, asks(target, &a, NAS__CONV_WINOGRAD_4, "*ahead = (const char *)(next"), 0));
    cr_assert(ne(int, asks(target, &b, NAS__CONV_WINOGRAD_4, "*ahead = (const char *)(next"), 0));
}

Test(compiler_layer_conv, what_lies_beyond_l2_is_asked_for_ahead) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    const shape_row small = {.in_c = 64,
                             .out_c = 128,
                             .groups = 1,
                             .out_h = 7,
                             .out_w = 7,
                             .kh = 1,
                             .kw = 1,
                             .sh = 1,
                             .sw = 1,
                             .dh = 1,
                             .dw = 1};
    shape_row large = small, square = small, image = small;
    large.in_c = 1024;
    large.out_c = 1024;
    square.in_c = square.out_c = 256;
    square.kh = square.kw = 3;
    image.out_h = image.out_w = 112;
    const nas__conv a = layer_conv_of(&small), b = layer_conv_of(&large),
                    d = layer_conv_of(&square), e = layer_conv_of(&image);
    cr_assert(eq(int, asks(target, &a, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &b, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &d, NAS__CONV_WINOGRAD_2, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &e, NAS__CONV_DIRECT, "AHEAD("), 0));
    cr_assert(ne(int, asks(target, &e, NAS__CONV_DIRECT, "ahead = (const char *)(corner"), 0));
    cr_assert(ne(int, asks(target, &a, NAS__CONV_DIRECT, "NEAR(out"), 0));
    cr_assert(eq(int, asks(target, &d, NAS__CONV_DIRECT, "NEAR("), 0));
    nas_target wide = *target; /* the same layer where it fits */
    wide.l2_bytes = 64 << 20;
    cr_assert(eq(int, asks(&wide, &b, NAS__CONV_DIRECT, "AHEAD("), 0));
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &b, ways) >= 1);
    nas_buf here = {0}, there = {0};
    nas__conv_name(target, &b, &ways[0], &here);
    nas__conv_name(&wide, &b, &ways[0], &there);
    cr_assert(ne(str, here.data, there.data));
    nas_buf_deinit(&here);
    nas_buf_deinit(&there);
}

/* 3x3, 512 channels at 7x7 from memory, on an Emerald Rapids: 1.9 ms with the 16.8 MB of F(2,3), 1.4 ms directly with the
 * sum in parts. On a Zen 4, of half as many products a cycle, the fewer products win. */
Test(compiler_layer_conv, sums_in_parts_win_where_weights_of_winograd_come_from_memory) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512vnni", &target), NAS_OK));
    const shape_row row = {512, 512, 1, 7, 7, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    const nas__conv c = layer_conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_2));
    nas_target server;
    cr_assert(eq(int, (int)nas_target_find_cpu(layer_conv_ctx, target, "sapphirerapids", &server),
                 NAS_OK));
    cr_assert(nas__conv_ways(&server, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_DIRECT));
    cr_assert(ways[0].depth > 0);
}

/* 3x3, 256 channels at 14x14: F(4,3) reads 9 MB of weights, which the products hide: measured 1.3 ms against 1.8. */
Test(compiler_layer_conv, winograd_of_large_tiles_wins_where_products_hide_its_weights) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx2", &target), NAS_OK));
    shape_row row = {256, 256, 1, 14, 14, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU};
    nas__conv c = layer_conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_4));
    row.in_c = row.out_c = 512; /* four times the weights for as many products */
    row.out_h = row.out_w = 7;
    c = layer_conv_of(&row);
    cr_assert(nas__conv_ways(target, &c, ways) > 1);
    cr_assert(eq(int, (int)ways[0].algorithm, NAS__CONV_WINOGRAD_2));
}

/* 8x8 images have four tiles of F(4x4,3x3): one unit would leave a second thread without work. */
Test(compiler_layer_conv, winograd_of_few_tiles_leaves_work_for_a_second_thread) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, "x86-64-avx512vnni", &target), NAS_OK));
    nas_target server;
    cr_assert(eq(int, (int)nas_target_find_cpu(layer_conv_ctx, target, "sapphirerapids", &server),
                 NAS_OK));
    const shape_row row = {64, 64, 1, 8, 8, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU};
    const nas__conv c = layer_conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    cr_assert(nas__conv_ways(&server, &c, ways) > 1);
    cr_assert(ways[0].algorithm == NAS__CONV_WINOGRAD_4);
    cr_assert(nas__conv_winograd_units(&server, &c, &ways[0]) % 2 == 0);
}
