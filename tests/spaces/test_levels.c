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
static const nas_levels_layer layers[LAYERS] = {{1, 1, first}, {1, 3, second}, {2, 2, third}};
static int32_t seen[LAYERS];

static nas_status no_graph(nas_ctx *c, void *arg, const int32_t *level, nas_graph **out) {
    (void)arg;
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
    nas_space_levels_point(space, seen, &same);
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
