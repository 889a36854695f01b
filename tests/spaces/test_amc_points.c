/* test_amc_points.c - kept channels under a budget: every point meets it, whoever makes it. */
#include "spaces/amc.h"
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>

#include <string.h>

TestSuite(spaces_amc_points, .init = fixture_setup, .fini = fixture_teardown);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

/* Three convolutions in a row and a depthwise one: image 3 -> 16 -> 16 (depthwise) -> 24 -> 10 classes. */
static nas_status no_graph(nas_ctx *c, void *arg, const int32_t *kept, nas_graph **out) {
    (void)arg;
    (void)kept;
    (void)out;
    return nas_fail(c, NAS_ERR_INTERNAL, "not decoded here");
}

static nas_status make(double macs_max, double min_ratio, nas_space **out) {
    static const nas_amc_group groups[] = {{16}, {24}};
    static const nas_amc_layer layers[] = {{.unit = 900, .in_fixed = 3, .kernel = 3, .extent = 10},
                                           {.unit = 900, .in_fixed = 1, .kernel = 3, .extent = 10},
                                           {.unit = 100, .kernel = 1, .extent = 10},
                                           {.unit = 1, .out_fixed = 10, .kernel = 1, .extent = 1}};
    static const nas_amc_term terms[] = {
        {0, 0, 1, false}, {1, 0, 1, false}, {2, 0, 1, true}, {2, 1, 1, false}, {3, 1, 1, true}};
    const nas_amc_options o = {.groups = groups,
                               .n_groups = 2,
                               .layers = layers,
                               .n_layers = 4,
                               .terms = terms,
                               .n_terms = 5,
                               .step = 4,
                               .min_ratio = min_ratio,
                               .macs_max = macs_max,
                               .decode = no_graph};
    return nas_space_amc_new(ctx, &o, out);
}

static double by_hand(int a, int b) {
    return 900.0 * 3 * a + 900.0 * a + 100.0 * a * b + 10.0 * b;
}

Test(spaces_amc_points, costs_are_those_of_the_kept_channels) {
    nas_space *space = NULL;
    nas_point p;
    OK(make(0, 0.2, &space));
    nas_space_largest(space, &p);
    cr_assert(nas_space_amc_macs(space, &p) == by_hand(16, 24));
    nas_space_smallest(space, &p);
    cr_assert(nas_space_amc_kept(space, &p, 0) == 4 && nas_space_amc_kept(space, &p, 1) == 8);
    cr_assert(nas_space_amc_macs(space, &p) == by_hand(4, 8));
    nas_space_free(space);
}

Test(spaces_amc_points, samples_mutants_and_children_meet_the_budget) {
    nas_space *space = NULL;
    const double budget = by_hand(16, 24) / 2;
    nas_rng rng = nas_rng_stream(fixture_seed(3), 0, "amc");
    nas_point a, b, child;
    OK(make(budget, 0.2, &space));
    nas_space_largest(space, &a);
    OK(nas_space_check(ctx, space, &a));
    for (int i = 0; i < 500; i++) {
        nas_space_sample(space, &rng, &b);
        OK(nas_space_check(ctx, space, &b));
        nas_space_crossover(space, &a, &b, &rng, &child);
        OK(nas_space_check(ctx, space, &child));
        nas_space_mutate(space, &child, 0.3, &rng, &a);
        OK(nas_space_check(ctx, space, &a));
        cr_assert(!nas_point_equal(&a, &child));
        cr_assert(nas_space_amc_macs(space, &a) <= budget);
    }
    nas_space_free(space);
}

Test(spaces_amc_points, deciding_gene_by_gene_within_the_outlook_meets_the_budget) {
    nas_space *space = NULL;
    const double budget = by_hand(16, 24) * 0.4;
    nas_rng rng = nas_rng_stream(fixture_seed(4), 0, "amc");
    nas_space_steps *steps = NULL;
    OK(make(budget, 0.2, &space));
    OK(nas_space_steps_new(ctx, space, &steps));
    cr_assert(steps->n_steps == 2);
    for (int i = 0; i < 200; i++) {
        nas_point p = {.n = 2};
        for (int32_t k = 0; k < 2; k++) {
            nas_outlook o;
            nas_space_outlook(space, &p, k, &o);
            cr_assert(o.lo == 0 && o.hi < nas_space_gene(space, k)->cardinality);
            p.gene[k] = (int32_t)nas_rng_below(&rng, (uint32_t)o.hi + 1);
        }
        OK(nas_space_check(ctx, space, &p));
    }
    nas_space_steps_free(steps);
    nas_space_free(space);
}

Test(spaces_amc_points, texts_round_trip_and_mistakes_are_told_by_column) {
    nas_space *space = NULL;
    nas_point p, back;
    nas_buf text = {0};
    OK(make(0, 0.2, &space));
    OK(nas_space_parse(ctx, space, "amc 12,24", &p));
    OK(nas_space_format(ctx, space, &p, &text));
    cr_assert(strcmp(text.data, "amc 12,24") == 0);
    OK(nas_space_parse(ctx, space, text.data, &back));
    cr_assert(nas_point_equal(&p, &back));
    static const struct {
        const char *text, *says;
        nas_status status;
    } rows[] = {{"sr 12,24", "column 1", NAS_ERR_PARSE},
                {"amc 12", "column 7", NAS_ERR_PARSE},
                {"amc 12,24,8", "column 10", NAS_ERR_PARSE},
                {"amc 13,24", "13 channels of group 1", NAS_ERR_RANGE},
                {"amc ,24", "column 5", NAS_ERR_PARSE}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(nas_space_parse(ctx, space, rows[i].text, &p) == rows[i].status, "%s",
                  rows[i].text);
        cr_assert(strstr(nas_ctx_message(ctx), rows[i].says) != NULL, "%s: %s", rows[i].text,
                  nas_ctx_message(ctx));
    }
    nas_buf_deinit(&text);
    nas_space_free(space);
}

Test(spaces_amc_points, a_budget_that_nothing_meets_is_refused) {
    nas_space *space = NULL;
    cr_assert(make(by_hand(16, 24) * 0.1, 0.9, &space) == NAS_ERR_INVALID);
    cr_assert(strstr(nas_ctx_message(ctx), "the budget is") != NULL);
}
