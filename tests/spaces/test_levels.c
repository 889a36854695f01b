/* test_levels.c - spaces of levels: costs are sums, every way to a point keeps within the limits, texts round-trip. */
#include "spaces/levels.h"
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

TestSuite(spaces_levels, .init = fixture_setup, .fini = fixture_teardown);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* Three layers: the first fixed, the second with bits alone, the third with forms and bits. */
static const nas_level first[] = {{"8", {100, 10, 80}}};
static const nas_level second[] = {
    {"2", {50, 40, 80}}, {"4", {100, 40, 160}}, {"8", {200, 40, 320}}};
static const nas_level third[] = {{"1x4@0.5/2", {30, 20, 40}},
                                  {"1x4@0.5/8", {90, 20, 160}},
                                  {"dense/2", {50, 40, 80}},
                                  {"dense/8", {200, 40, 320}}};
enum { LAYERS = 3 };
static const nas_levels_layer layers[LAYERS] = {{.n_forms = 1, .n_bits = 1, .levels = first},
                                                {.n_forms = 1, .n_bits = 3, .levels = second},
                                                {.n_forms = 2, .n_bits = 2, .levels = third}};
static int32_t seen[LAYERS];

static nas_status no_graph(nas_ctx *c, void *arg, const int32_t *kept, const int32_t *level,
                           nas_graph **out) {
    (void)arg;
    (void)kept;
    (void)out;
    memcpy(seen, level, sizeof seen);
    return nas_fail(c, NAS_ERR_INTERNAL, "not decoded here");
}

static nas_levels_options options(double bytes_max, double bops_max) {
    return (nas_levels_options){.name = "mixed",
                                .layers = layers,
                                .n_layers = LAYERS,
                                .fixed = {7, 3, 24},
                                .limit = {bytes_max, 0, bops_max},
                                .decode = no_graph};
}

static nas_space *make(double bytes_max, double bops_max) {
    const nas_levels_options o = options(bytes_max, bops_max);
    nas_space *space = NULL;
    OK(nas_space_levels_new(ctx, &o, &space));
    return space;
}

static void check_text(const nas_space *space, const nas_point *p, const char *want) {
    nas_buf text = {0};
    nas_point again;
    OK(nas_space_format(ctx, space, p, &text));
    cr_assert(want == NULL || strcmp(text.data, want) == 0, "%s, not %s", text.data, want);
    OK(nas_space_parse(ctx, space, text.data, &again));
    cr_assert(nas_point_equal(p, &again), "%s", text.data);
    nas_buf_deinit(&text);
}

Test(spaces_levels, a_gene_for_each_choice_and_costs_are_sums) {
    nas_space *space = make(0, 0);
    nas_point p;
    cr_assert(nas_space_gene_count(space) == 3 && nas_space_size(space) == 3 * 2 * 2);
    nas_space_largest(space, &p);
    check_text(space, &p, "mixed 8,8,dense/8");
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_BYTES) == 7 + 100 + 200 + 200);
    nas_space_smallest(space, &p);
    check_text(space, &p, "mixed 8,2,1x4@0.5/2");
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_BYTES) == 7 + 100 + 50 + 30);
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_MACS) == 3 + 10 + 40 + 20);
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_BOPS) == 24 + 80 + 80 + 40);
    OK(nas_space_parse(ctx, space, "mixed 8,4,dense/2", &p));
    nas_graph *none = NULL;
    cr_assert(nas_space_decode(ctx, space, &p, &none) == NAS_ERR_INTERNAL);
    cr_assert(seen[0] == 0 && seen[1] == 1 && seen[2] == 2);
    nas_point same;
    nas_space_levels_point(space, seen, 1, &same);
    cr_assert(nas_point_equal(&p, &same));
    nas_space_free(space);
}

Test(spaces_levels, every_way_to_a_point_keeps_within_the_limits) {
    nas_space *space = make(320, 450);
    nas_rng rng = nas_rng_stream(fixture_seed(3), 0, "levels");
    nas_point a, b, c;
    nas_space_sample(space, &rng, &a);
    for (int round = 0; round < 500; round++) {
        nas_space_sample(space, &rng, &b);
        OK(nas_space_check(ctx, space, &b));
        check_text(space, &b, NULL);
        nas_space_mutate(space, &b, round % 2 == 0 ? 1e-9 : 0.5, &rng, &c);
        OK(nas_space_check(ctx, space, &c));
        cr_assert(!nas_point_equal(&b, &c));
        nas_space_crossover(space, &a, &b, &rng, &c);
        OK(nas_space_check(ctx, space, &c));
        a = b;
    }
    nas_space_largest(space, &a);
    OK(nas_space_check(ctx, space, &a));
    for (int32_t i = 0; i < a.n; i++) { /* nothing is left that one more choice would fit in */
        b = a;
        if (++b.gene[i] == nas_space_gene(space, i)->cardinality) continue;
        cr_assert(nas_space_check(ctx, space, &b) == NAS_ERR_RANGE);
        nas_ctx_clear(ctx);
    }
    nas_space_free(space);
}

Test(spaces_levels, both_genes_of_a_layer_come_from_one_parent) {
    nas_space *space = make(0, 0);
    nas_rng rng = nas_rng_stream(fixture_seed(4), 0, "levels");
    nas_point a, b, c;
    nas_space_largest(space, &a);
    nas_space_smallest(space, &b);
    for (int round = 0; round < 50; round++) {
        nas_space_crossover(space, &a, &b, &rng, &c);
        cr_assert((c.gene[1] == 1) == (c.gene[2] == 1));
    }
    nas_space_free(space);
}

Test(spaces_levels, decisions_one_after_another_end_within_the_limits) {
    nas_space *space = make(320, 0);
    nas_rng rng = nas_rng_stream(fixture_seed(5), 0, "levels");
    nas_space_steps *steps = NULL;
    OK(nas_space_steps_new(ctx, space, &steps));
    cr_assert(steps->n_steps == 3 && !steps->spend);
    nas_space_steps_free(steps);
    for (int round = 0; round < 100; round++) {
        nas_point p = {.n = nas_space_gene_count(space)};
        double reduced = 0;
        for (int32_t i = 0; i < p.n; i++) {
            nas_outlook o;
            nas_space_outlook(space, &p, i, &o);
            cr_assert(o.lo == 0 && o.hi < nas_space_gene(space, i)->cardinality);
            cr_assert(o.reduced >= reduced && o.rest >= 0 && o.rest <= 1);
            reduced = o.reduced;
            p.gene[i] = (int32_t)nas_rng_below(&rng, (uint32_t)o.hi + 1);
        }
        OK(nas_space_check(ctx, space, &p));
    }
    nas_space_free(space);
}

Test(spaces_levels, damaged_texts_and_impossible_spaces_are_refused) {
    static const struct {
        const char *text, *message;
        nas_status status;
    } rows[] = {{"bits 8,8,dense/8", "expected \"mixed \"", NAS_ERR_PARSE},
                {"mixed 8,8", "column 10", NAS_ERR_PARSE},
                {"mixed 8,8,dense/8,8", "the end", NAS_ERR_PARSE},
                {"mixed 8,,dense/8", "column 9: expected the level of layer 2", NAS_ERR_PARSE},
                {"mixed 8,3,dense/8", "layer 2 has no level '3'", NAS_ERR_RANGE}};
    nas_space *space = make(0, 0);
    nas_point p;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(nas_space_parse(ctx, space, rows[i].text, &p) == rows[i].status, "%s",
                  rows[i].text);
        cr_assert(strstr(nas_ctx_message(ctx), rows[i].message) != NULL, "%s: %s", rows[i].text,
                  nas_ctx_message(ctx));
        nas_ctx_clear(ctx);
    }
    nas_space_free(space);
    nas_levels_options o = options(186, 0);
    cr_assert(nas_space_levels_new(ctx, &o, &space) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "187 bytes of weights, the limit is 186") != NULL, "%s",
              nas_ctx_message(ctx));
    nas_ctx_clear(ctx);
    o = options(0, 0);
    o.n_layers = 1;
    cr_assert(nas_space_levels_new(ctx, &o, &space) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "0 choices vary") != NULL);
    nas_ctx_clear(ctx);
}

/* ---- channels and values ---------------------------------------------------------------------------------------------- */

/* Two groups (of 16 and 8 channels, in fours), two layers: 3 -> first group, first -> second group. The second layer reads value 1
 * and may be 1x8@0.5 (outputs in eights), 1x4@0.5 or dense, at 4 or 8 bits. */
static const nas_levels_group groups[] = {{16, {8, 1, 0, 2}}, {8, {4, 0, 0, 1}}};
static const nas_amc_term terms[] = {{0, 0, 1, false}, {1, 0, 1, true}, {1, 1, 1, false}};
static const nas_level plain[] = {{"4", {0}}, {"8", {0}}};
static const nas_level forms[] = {{"1x8@0.5/4", {0}}, {"1x8@0.5/8", {0}}, {"1x4@0.5/4", {0}},
                                  {"1x4@0.5/8", {0}}, {"dense/4", {0}},   {"dense/8", {0}}};
static const nas_levels_layer wide[] = {
    {1, 2, plain, 0, 3, 0},
    {3, 2, forms, 1, 0, 0},
};
static const nas_levels_value values[] = {{3, {2, 4, 8}}};
static const nas_levels_use uses[] = {{0, 0, 10}};
static int32_t seen_kept[2];

static bool form_fits(const void *arg, int32_t layer, int32_t form, int32_t in, int32_t out) {
    (void)arg;
    (void)in;
    return layer == 0 || form == 2 || out % (form == 0 ? 8 : 4) == 0;
}

/* A weight for each pair of channels, half of them in the forms; a pixel. */
static void price(const void *arg, int32_t layer, int32_t level, int32_t in, int32_t out,
                  double costs[NAS_LEVEL_COSTS]) {
    (void)arg;
    const double kept = in * out * (layer == 1 && level < 4 ? 0.5 : 1);
    const double bits = level % 2 == 0 ? 4 : 8;
    costs[NAS_LEVEL_PARAMS] = costs[NAS_LEVEL_MACS] = kept;
    costs[NAS_LEVEL_BYTES] = kept * bits / 8;
    costs[NAS_LEVEL_BOPS] = kept * bits * (layer == 0 ? 8 : 1);
}

static nas_status no_wide_graph(nas_ctx *c, void *arg, const int32_t *kept, const int32_t *level,
                                nas_graph **out) {
    memcpy(seen_kept, kept, sizeof seen_kept);
    return no_graph(c, arg, kept, level, out);
}

static nas_levels_options wide_options(double bops_max) {
    return (nas_levels_options){.name = "joint",
                                .layers = wide,
                                .n_layers = 2,
                                .fixed = {5, 0, 7, 0},
                                .limit = {0, 0, bops_max},
                                .groups = groups,
                                .n_groups = 2,
                                .step = 4,
                                .min_ratio = 0.2,
                                .terms = terms,
                                .n_terms = 3,
                                .values = values,
                                .n_values = 1,
                                .uses = uses,
                                .n_uses = 1,
                                .fits = form_fits,
                                .price = price,
                                .decode = no_wide_graph};
}

static nas_space *make_wide(double bops_max) {
    const nas_levels_options o = wide_options(bops_max);
    nas_space *space = NULL;
    OK(nas_space_levels_new(ctx, &o, &space));
    return space;
}

Test(spaces_levels, costs_follow_channels_levels_and_values) {
    nas_space *space = make_wide(0);
    nas_point p;
    cr_assert(nas_space_gene_count(space) == 2 + 3 + 1);
    cr_assert(nas_space_size(space) == 4 * 2 * 2 * 6 * 3);
    OK(nas_space_parse(ctx, space, "joint 12,8 | 8,1x4@0.5/4 | 2", &p));
    check_text(space, &p, "joint 12,8 | 8,1x4@0.5/4 | 2");
    /* 3 x 12 at 8 bits, half of 12 x 8 at 4 */
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_BYTES) ==
              5 + 12 * 8 + 8 * 4 + 36 + 48 * 0.5);
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_MACS) == 12 + 36 + 48);
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_BOPS) ==
              7 + 36 * 8 * 8 + 48 * 4 * 2 + 10 * 2 * 12);
    int32_t in = 0, out = 0, kept[2], bits[1];
    nas_space_levels_width(space, &p, 1, &in, &out);
    nas_space_levels_kept(space, &p, kept);
    nas_space_levels_bits(space, &p, bits);
    cr_assert(in == 12 && out == 8 && kept[0] == 12 && kept[1] == 8 && bits[0] == 2);
    nas_graph *none = NULL;
    cr_assert(nas_space_decode(ctx, space, &p, &none) == NAS_ERR_INTERNAL);
    nas_ctx_clear(ctx);
    cr_assert(seen_kept[0] == 12 && seen_kept[1] == 8 && seen[0] == 1 && seen[1] == 2);
    nas_space_free(space);
}

/* With 4 channels groups of eight do not fit: no lighter form is there, so the next heavier one stands in, and is named. */
Test(spaces_levels, a_form_that_does_not_fit_the_channels_is_replaced_and_named) {
    nas_space *space = make_wide(0);
    nas_point p;
    int32_t level[2];
    OK(nas_space_parse(ctx, space, "joint 16,4 | 4,1x8@0.5/8>1x4@0.5/8 | 8", &p));
    check_text(space, &p, "joint 16,4 | 4,1x8@0.5/8>1x4@0.5/8 | 8");
    nas_space_levels_of(space, &p, level);
    cr_assert(level[1] == 3);
    cr_assert(nas_space_levels_cost(space, &p, NAS_LEVEL_PARAMS) == 32 + 4 + 3 * 16 + 32);
    static const char *const wrong[] = {"joint 16,4 | 4,1x8@0.5/8 | 8",
                                        "joint 16,8 | 4,1x8@0.5/8>1x4@0.5/8 | 8",
                                        "joint 16,4 | 4,1x8@0.5/8>dense/8 | 8",
                                        "joint 16,4 | 4,dense/8",
                                        "joint 16,5 | 4,dense/8 | 8",
                                        "joint 16,4 | 4,dense/8 | 3",
                                        "joint 16,4,dense/8 | 8"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        cr_assert(nas_space_parse(ctx, space, wrong[i], &p) != NAS_OK, "%s", wrong[i]);
        nas_ctx_clear(ctx);
    }
    nas_space_free(space);
}

Test(spaces_levels, limits_hold_where_channels_vary_too) {
    nas_space *space = make_wide(1500);
    nas_rng rng = nas_rng_stream(fixture_seed(6), 0, "levels");
    nas_point a, b, c;
    nas_space_sample(space, &rng, &a);
    for (int round = 0; round < 500; round++) {
        nas_space_sample(space, &rng, &b);
        OK(nas_space_check(ctx, space, &b));
        check_text(space, &b, NULL);
        nas_space_mutate(space, &b, round % 2 == 0 ? 1e-9 : 0.5, &rng, &c);
        OK(nas_space_check(ctx, space, &c));
        cr_assert(!nas_point_equal(&b, &c));
        nas_space_crossover(space, &a, &b, &rng, &c);
        OK(nas_space_check(ctx, space, &c));
        nas_point p = {.n = nas_space_gene_count(space)};
        for (int32_t i = 0; i < p.n; i++) { /* as agents decide */
            nas_outlook o;
            nas_space_outlook(space, &p, i, &o);
            p.gene[i] = (int32_t)nas_rng_below(&rng, (uint32_t)o.hi + 1);
        }
        OK(nas_space_check(ctx, space, &p));
        a = b;
    }
    nas_space_largest(space, &a);
    OK(nas_space_check(ctx, space, &a));
    nas_space_levels_share(space, 1, 0, &b);
    nas_space_levels_share(space, 0, 1, &c);
    cr_assert(b.gene[0] == 3 && b.gene[1] == 1 && b.gene[2] == 0 && b.gene[5] == 0);
    cr_assert(c.gene[0] == 0 && c.gene[1] == 0 && c.gene[3] == 2 && c.gene[5] == 2);
    nas_space_free(space);
}

Test(spaces_levels, running_out_of_memory_leaks_nothing) {
    const nas_levels_options o = options(320, 0);
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; n < 30 && status != NAS_OK; n++) {
        nas_space *space = NULL;
        nas_mem_fail_after(n);
        status = nas_space_levels_new(ctx, &o, &space);
        nas_mem_fail_after(0);
        cr_assert(status == NAS_OK || status == NAS_ERR_NOMEM);
        nas_space_free(space);
    }
    cr_assert(status == NAS_OK);
    nas_ctx_clear(ctx);
}
