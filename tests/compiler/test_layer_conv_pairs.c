/* test_layer_conv_pairs.c - Winograd with vectors that two tiles share: shapes with a short last vector of inputs or outputs
 * against the reference, in buffers of exactly their size. */
#include "layer_conv_cases.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(compiler_layer_conv_pairs, .init = layer_conv_setup, .fini = layer_conv_teardown,
          .timeout = 240);

enum { FIXED = 5, SHAPES = 24 };

/* Whole and partial tiles, odd and even numbers of them, all activations, residuals, gaps between pixels. */
static void make_shapes(shape_row rows[SHAPES]) {
    static const int32_t outs[] = {1,  2,  3,  4,  5,  7,  8,  9,  12, 17,
                                   18, 20, 23, 24, 25, 33, 36, 40, 52};
    static const int32_t ins[] = {1, 2, 3, 4, 5, 7, 8, 9, 11, 12, 17, 20, 24, 25, 37};
    static const shape_row fixed[FIXED] = {
        {16, 8, 1, 32, 32, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_RELU},
        {8, 16, 1, 12, 12, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_RELU},
        {24, 20, 1, 16, 16, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_NONE},
        /* weights, then pixels that are asked for ahead */
        {200, 136, 1, 6, 9, 3, 3, 1, 1, 1, 1, 0, 0, true, NAS__LACT_PRELU},
        {3, 4, 1, 97, 105, 3, 3, 1, 1, 1, 1, 1, 2, true, NAS__LACT_CLIP},
    };
    nas_rng rng = nas_rng_stream(5, 0, "layer_conv_pairs");
    memcpy(rows, fixed, sizeof fixed);
    for (int i = FIXED; i < SHAPES; i++) {
        rows[i] = (shape_row){.groups = 1, .kh = 3, .kw = 3, .sh = 1, .sw = 1, .dh = 1, .dw = 1};
        rows[i].out_c = outs[i - FIXED];
        rows[i].in_c = ins[nas_rng_below(&rng, sizeof ins / sizeof ins[0])];
        rows[i].out_h = 2 + (int32_t)nas_rng_below(&rng, 13);
        rows[i].out_w = 2 + (int32_t)nas_rng_below(&rng, 13);
        rows[i].in_extra = (int32_t)nas_rng_below(&rng, 3);
        rows[i].out_extra = (int32_t)nas_rng_below(&rng, 3);
        rows[i].residual = nas_rng_below(&rng, 2) == 0;
        rows[i].act = (nas__layer_act)(i % 6);
    }
}

static void check_named(const char *name) {
    const nas_target *target = NULL;
    if (nas_target_find(layer_conv_ctx, name, &target) != NAS_OK || !target->runs_here) {
        cr_log_info("%s does not run here", name);
        return;
    }
    shape_row rows[SHAPES];
    make_shapes(rows);
    layer_conv_check(&(layer_conv_cases){.target = target,
                                         .rows = rows,
                                         .n = SHAPES,
                                         .small_from = FIXED - 2,
                                         .small_to = FIXED,
                                         .winograd = true});
}

Test(compiler_layer_conv_pairs, short_vectors_agree_with_the_reference_32_bytes) {
    check_named("x86-64-avx2");
}
Test(compiler_layer_conv_pairs, short_vectors_agree_with_the_reference_64_bytes) {
    check_named("x86-64-avx512");
}

/* Does the first way of F(4x4) of in -> out channels at 16x16 contain `what`? cycles: its estimate. */
static bool says(const char *name, int32_t in_c, int32_t out_c, const char *what, double *cycles) {
    const nas_target *target = NULL;
    cr_assert(eq(int, (int)nas_target_find(layer_conv_ctx, name, &target), NAS_OK));
    const shape_row row = {in_c, out_c, 1, 16, 16, 3, 3, 1, 1, 1, 1, 0, 0, false, NAS__LACT_NONE};
    const nas__conv c = layer_conv_of(&row);
    nas__conv_way ways[NAS__CONV_WAYS_MAX];
    const int32_t n = nas__conv_ways(target, &c, ways);
    int32_t k = 0;
    while (k < n && ways[k].algorithm != NAS__CONV_WINOGRAD_4)
        k++;
    cr_assert(k < n);
    nas_buf text = {0};
    nas__conv_emit(target, &c, &ways[k], &text);
    cr_assert(eq(int, (int)nas_buf_status(layer_conv_ctx, &text), NAS_OK));
    const bool found = strstr(text.data, what) != NULL;
    nas_buf_deinit(&text);
    if (cycles != NULL) *cycles = ways[k].cycles;
    return found;
}

Test(compiler_layer_conv_pairs, tiles_share_a_vector_that_is_at_most_half_used) {
    static const char products[] = "_mul_pairs(", inputs[] = "_in2(";
    cr_assert(says("x86-64-avx512", 16, 8, products, NULL));
    cr_assert(says("x86-64-avx512", 16, 24, products, NULL));
    cr_assert(not(says("x86-64-avx512", 16, 9, products, NULL)));
    cr_assert(not(says("x86-64-avx512", 16, 16, products, NULL)));
    cr_assert(says("x86-64-avx512", 8, 16, inputs, NULL));
    cr_assert(not(says("x86-64-avx512", 12, 16, inputs, NULL)));
    cr_assert(says("x86-64-avx2", 8, 12, products, NULL));
    cr_assert(not(says("x86-64-avx2", 8, 13, products, NULL)));
    cr_assert(says("x86-64-avx2", 4, 8, inputs, NULL));
    cr_assert(not(says("x86-64", 2, 2, products, NULL)));
    cr_assert(not(says("aarch64-linux", 2, 2, inputs, NULL)));
}

Test(compiler_layer_conv_pairs, the_estimate_knows_what_sharing_saves) {
    double half, most, few, more;
    (void)says("x86-64-avx512", 32, 8, "", &half);
    (void)says("x86-64-avx512", 32, 9, "", &most);
    cr_assert(half < 0.8 * most);
    (void)says("x86-64-avx512", 8, 32, "", &few);
    (void)says("x86-64-avx512", 9, 32, "", &more);
    cr_assert(few < 0.95 * more);
}
