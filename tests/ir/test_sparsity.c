/* test_sparsity.c - masks by magnitude: exactly so many groups, of equal ones the same each time, legality, bytes. */
#include "ir/sparsity.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), 0L));
}

TestSuite(ir_sparsity, .init = setup, .fini = teardown);

enum { WEIGHTS_MAX = 4096 };

static size_t count_of(const int32_t dims[4]) {
    return (size_t)dims[0] * (size_t)dims[1] * (size_t)dims[2] * (size_t)dims[3];
}

static void fill(float *w, size_t n, uint64_t seed) {
    nas_rng rng = nas_rng_stream(seed, 0, "sparsity");
    for (size_t i = 0; i < n; i++)
        w[i] = (float)(2 * nas_rng_uniform(&rng) - 1);
}

static size_t mask_of(const nas_sparsity *s, const float *w, const int32_t dims[4], uint8_t *kept) {
    size_t ones = 0;
    cr_assert(eq(int, (int)nas_sparsity_mask(ctx, s, w, dims, kept), NAS_OK), "%s",
              nas_ctx_message(ctx));
    for (size_t i = 0; i < count_of(dims); i++)
        ones += kept[i];
    return ones;
}

Test(ir_sparsity, one_by_n_drops_the_blocks_of_least_magnitude) {
    const int32_t dims[4] = {8, 1, 1, 6};
    float w[48];
    uint8_t kept[48];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.5;
    fill(w, 48, 1);
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 24));
    /* every kept block outweighs every dropped one, and blocks are whole */
    double least = INFINITY, most = 0;
    for (int g = 0; g < 2; g++) {
        for (int c = 0; c < 6; c++) {
            double sum = 0;
            for (int t = 0; t < 4; t++) {
                sum += fabs((double)w[(4 * g + t) * 6 + c]);
                cr_assert(eq(int, kept[(4 * g + t) * 6 + c], kept[4 * g * 6 + c]));
            }
            if (kept[4 * g * 6 + c] != 0 && sum < least) least = sum;
            if (kept[4 * g * 6 + c] == 0 && sum > most) most = sum;
        }
    }
    cr_assert(least >= most);
}

Test(ir_sparsity, rates_are_exact_and_ties_are_broken_by_place) {
    const int32_t dims[4] = {10, 1, 1, 10};
    float w[100];
    uint8_t kept[100];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_UNSTRUCTURED);
    for (int i = 0; i < 100; i++)
        w[i] = 1;
    for (int percent = 0; percent <= 100; percent++) {
        s.rate = percent / 100.0;
        cr_assert(eq(sz, mask_of(&s, w, dims, kept), (size_t)(100 - percent)));
        for (int i = 0; i < 100; i++) /* the later ones go first */
            cr_assert(eq(int, kept[i], i < 100 - percent));
    }
}

Test(ir_sparsity, rearranged_blocks_join_outputs_of_similar_magnitude) {
    const int32_t dims[4] = {8, 1, 1, 4};
    float w[32];
    uint8_t kept[32];
    for (int o = 0; o < 8; o++) { /* even outputs are large */
        for (int i = 0; i < 4; i++)
            w[o * 4 + i] = o % 2 == 0 ? 10.0F + (float)o : 0.1F * (float)(o + i + 1);
    }
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.5;
    s.rearrange = true;
    (void)mask_of(&s, w, dims, kept);
    for (int o = 0; o < 8; o++) {
        for (int i = 0; i < 4; i++)
            cr_assert(eq(int, kept[o * 4 + i], o % 2 == 0));
    }
}

Test(ir_sparsity, n_of_m_keeps_as_many_of_every_group) {
    const int32_t dims[4] = {6, 3, 3, 10};
    float w[540];
    uint8_t kept[540];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_N_OF_M);
    s.keep = 1;
    s.outputs = 2;
    fill(w, 540, 2);
    (void)mask_of(&s, w, dims, kept);
    for (int row = 0; row < 6 * 9; row++) {
        for (int first = 0; first < 10; first += 4) { /* the rest of two keeps one as well */
            int n = 0;
            for (int i = first; i < first + 4 && i < 10; i++)
                n += kept[row * 10 + i];
            cr_assert(eq(int, n, 1));
        }
    }
    for (int k = 0; k < 90; k++)
        cr_assert(eq(int, kept[k], kept[90 + k])); /* two outputs share */
}

Test(ir_sparsity, punched_blocks_share_one_tap) {
    const int32_t dims[4] = {5, 3, 3, 7}; /* blocks of 2 x 4 end short */
    float w[315];
    uint8_t kept[315];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_PUNCHED);
    s.outputs = 2;
    s.inputs = 4;
    s.rate = 0.4;
    fill(w, 315, 3);
    (void)mask_of(&s, w, dims, kept);
    size_t dropped = 0;
    for (int o = 0; o < 5; o++) {
        for (int tap = 0; tap < 9; tap++) {
            for (int i = 0; i < 7; i++) {
                const int first = (o / 2 * 2 * 9 + tap) * 7 + i / 4 * 4;
                cr_assert(eq(int, kept[(o * 9 + tap) * 7 + i], kept[first]));
                dropped += o % 2 == 0 && i % 4 == 0 && kept[first] == 0;
            }
        }
    }
    cr_assert(eq(sz, dropped, (size_t)(0.4 * 3 * 9 * 2)));
}

Test(ir_sparsity, kernel_patterns_keep_the_centre_and_drop_whole_kernels) {
    const int32_t dims[4] = {4, 3, 3, 5};
    float w[180];
    uint8_t kept[180];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_PATTERN);
    s.rate = 0.25;
    fill(w, 180, 4);
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 4 * 15));
    for (int o = 0; o < 4; o++) {
        for (int i = 0; i < 5; i++) {
            int n = 0;
            for (int tap = 0; tap < 9; tap++)
                n += kept[(o * 9 + tap) * 5 + i];
            cr_assert(n == 0 || (n == 4 && kept[(o * 9 + 4) * 5 + i] == 1));
        }
    }
}

Test(ir_sparsity, periodic_patterns_are_the_same_in_every_output_and_period) {
    const int32_t dims[4] = {3, 3, 3, 8};
    float w[216];
    uint8_t kept[216];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_PERIODIC);
    s.entries = 5;
    fill(w, 216, 5);
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 3 * 8 * 5));
    for (int k = 0; k < 216; k++)
        cr_assert(eq(int, kept[k], kept[k % 72 / 8 * 8 + k % 4]));
}

Test(ir_sparsity, filters_channels_and_blocks_go_as_a_whole) {
    const int32_t dims[4] = {8, 1, 1, 8};
    float w[64];
    uint8_t kept[64];
    fill(w, 64, 6);
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_FILTER);
    s.rate = 0.25;
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 48));
    for (int k = 0; k < 64; k++)
        cr_assert(eq(int, kept[k], kept[k / 8 * 8]));
    s.pattern = NAS_SPARSITY_CHANNEL;
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 48));
    for (int k = 0; k < 64; k++)
        cr_assert(eq(int, kept[k], kept[k % 8]));
    s.pattern = NAS_SPARSITY_BLOCK;
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 48)); /* three of four 4x4 blocks */
    for (int k = 0; k < 64; k++)
        cr_assert(eq(int, kept[k], kept[k / 32 * 32 + k % 8 / 4 * 4]));
}

/* Every run of three inputs of a tap is shared out among three outputs, in the best of the six ways. */
Test(ir_sparsity, complementary_filters_do_not_overlap_and_keep_the_most_they_can) {
    static const int order[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                    {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    const int32_t dims[4] = {6, 1, 2, 9};
    float w[108];
    uint8_t kept[108];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_COMPLEMENTARY);
    s.outputs = 3;
    fill(w, 108, 8);
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), 36));
    for (int set = 0; set < 2; set++) {
        for (int run = 0; run < 6; run++) {
            const int at = set * 54 + run * 3;
            double best = 0, ours = 0;
            for (int k = 0; k < 6; k++) {
                double sum = 0;
                for (int o = 0; o < 3; o++)
                    sum += pow((double)w[at + o * 18 + order[k][o]], 2);
                best = fmax(best, sum);
            }
            for (int i = 0; i < 3; i++) {
                int owners = 0;
                for (int o = 0; o < 3; o++) {
                    owners += kept[at + o * 18 + i];
                    if (kept[at + o * 18 + i] != 0) ours += pow((double)w[at + o * 18 + i], 2);
                }
                cr_assert(eq(int, owners, 1));
            }
            cr_assert(fabs(ours - best) < 1e-12);
        }
    }
}

Test(ir_sparsity, complementary_sets_and_runs_may_be_short) {
    const int32_t dims[4] = {6, 1, 1, 10}; /* sets of 4 and 2, runs of 4, 4 and 2 */
    float w[60];
    uint8_t kept[60];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_COMPLEMENTARY);
    fill(w, 60, 9);
    cr_assert(eq(sz, mask_of(&s, w, dims, kept), (4 + 4 + 2) + (2 + 2 + 2)));
    for (int i = 0; i < 10; i++) {
        int owners[2] = {0, 0};
        for (int o = 0; o < 6; o++)
            owners[o / 4] += kept[o * 10 + i];
        cr_assert(owners[0] == 1 && owners[1] <= 1);
    }
    cr_assert(eq(u64, nas_sparsity_packed_bytes(dims, 4, 8), (uint64_t)2 * 10 * (8 + 2) / 8));
    s.outputs = 9;
    cr_assert(eq(int, (int)nas_sparsity_check(ctx, &s, dims, 1), NAS_ERR_RANGE));
}

static void refused(nas_sparsity s, const int32_t dims[4], int32_t groups, const char *text) {
    cr_assert(ne(int, (int)nas_sparsity_check(ctx, &s, dims, groups), NAS_OK));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), text), NULL), "'%s' lacks '%s'",
              nas_ctx_message(ctx), text);
}

Test(ir_sparsity, what_is_illegal_is_named_with_its_limit) {
    const int32_t one[4] = {8, 1, 1, 8}, depthwise[4] = {8, 3, 3, 1};
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.n = 3;
    refused(s, one, 1, "\"n\" is 3");
    s.n = 4;
    refused(s, depthwise, 8, "8 groups");
    s.rate = 1.5;
    refused(s, one, 1, "\"rate\" is 1.5");
    s.rate = (double)NAN;
    refused(s, one, 1, "\"rate\"");
    s = nas_sparsity_default(NAS_SPARSITY_PATTERN);
    refused(s, one, 1, "for 3x3 kernels, this one is 1x1");
    s = nas_sparsity_default(NAS_SPARSITY_N_OF_M);
    s.keep = 5;
    refused(s, one, 1, "\"keep\" is 5; it has to be 1 to 4");
    s = nas_sparsity_default(NAS_SPARSITY_BLOCK);
    s.inputs = 65;
    refused(s, one, 1, "\"inputs\" is 65");
}

Test(ir_sparsity, names_and_patterns_belong_together) {
    for (int p = 0; p < NAS_SPARSITY_PATTERN_COUNT; p++) {
        const char *name = nas_sparsity_pattern_name((nas_sparsity_pattern)p);
        cr_assert(eq(int, (int)nas_sparsity_pattern_find(name), p));
    }
    cr_assert(eq(int, (int)nas_sparsity_pattern_find("2xN"), NAS_SPARSITY_PATTERN_COUNT));
}

Test(ir_sparsity, bytes_count_the_indices) {
    const int32_t dims[4] = {8, 1, 1, 16};
    float w[128];
    uint8_t kept[128];
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.75;
    fill(w, 128, 7);
    (void)mask_of(&s, w, dims, kept);
    nas_sparsity_bytes b = nas_sparsity_storage(kept, dims, 4, 32);
    cr_assert(eq(u64, b.dense, 512));
    cr_assert(eq(u64, b.kept, 32));
    cr_assert(eq(u64, b.bitmask, 16 + 128));
    cr_assert(eq(u64, b.lists, 8 * 2 + 32 * 4 + 4 * 3));
    b = nas_sparsity_storage(kept, dims, 4, 8);
    cr_assert(eq(u64, b.lists, 8 * 2 + 32 + 4 * 3));
}

Test(ir_sparsity, apply_zeroes_the_weights_of_a_layer_and_names_it_when_it_cannot) {
    nas_graph *g = nas_graph_new(ctx, "g");
    nas_value x = 0, conv = 0, relu = 0;
    const nas_conv_attributes a = nas_conv_same(8, 1);
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "in", (nas_shape){1, 4, 4, 8}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "squeeze", x, &a, &conv), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "act", conv, &relu), NAS_OK));
    nas_sparsity s = nas_sparsity_default(NAS_SPARSITY_1XN);
    s.rate = 0.5;
    cr_assert(eq(int, (int)nas_sparsity_apply(ctx, g, conv, &s), NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    nas_param *p = nas_graph_param(g, nas_graph_node(g, conv)->params[0]);
    fill(p->data, p->count, 8);
    cr_assert(eq(int, (int)nas_sparsity_apply(ctx, g, conv, &s), NAS_OK));
    size_t zeros = 0;
    for (size_t i = 0; i < p->count; i++)
        zeros += p->data[i] == 0;
    cr_assert(eq(sz, zeros, p->count / 2));
    cr_assert(eq(int, (int)nas_sparsity_apply(ctx, g, relu, &s), NAS_ERR_UNSUPPORTED));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'act'"), NULL));
    nas_graph_free(g);
}
