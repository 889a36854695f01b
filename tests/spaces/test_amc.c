/* test_amc.c - the space of kept channels: every point meets the budget, however it comes about. */
#include "spaces/amc.h"
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

TestSuite(spaces_amc, .init = fixture_setup, .fini = fixture_teardown);

static nas_status no_graph(nas_ctx *c, void *arg, const int32_t *kept, nas_graph **out) {
    (void)arg;
    (void)kept;
    (void)out;
    return nas_fail(c, NAS_ERR_UNSUPPORTED, "no graph in this test");
}

/* A residual network of three layers: 3 -> A, A -> B, B -> A, and a classifier A -> 10. */
static nas_space *residual_that(double macs_max, bool spend) {
    static const nas_amc_group groups[] = {{16}, {24}};
    static const nas_amc_layer layers[] = {
        {900, 3, 0, 3, 1, 10}, {900, 0, 0, 3, 1, 10}, {900, 0, 0, 3, 1, 10}, {1, 0, 10, 1, 1, 1}};
    static const nas_amc_term terms[] = {{0, 0, 1, false}, {1, 0, 1, true},  {1, 1, 1, false},
                                         {2, 1, 1, true},  {2, 0, 1, false}, {3, 0, 1, true}};
    const nas_amc_options o = {.groups = groups,
                               .n_groups = 2,
                               .layers = layers,
                               .n_layers = 4,
                               .terms = terms,
                               .n_terms = 6,
                               .step = 4,
                               .min_ratio = 0.2,
                               .macs_max = macs_max,
                               .spend = spend,
                               .decode = no_graph};
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_amc_new(ctx, &o, &space), NAS_OK), "%s", nas_ctx_message(ctx));
    return space;
}

static nas_space *residual(double macs_max) {
    return residual_that(macs_max, false);
}

static const double full = 900.0 * (3 * 16 + 2 * 16 * 24) + 160;

Test(spaces_amc, macs_are_those_of_the_kept_channels) {
    nas_space *space = residual(0);
    nas_point p;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "amc 8,12", &p), NAS_OK));
    cr_assert(eq(dbl, nas_space_amc_macs(space, &p), 900.0 * (3 * 8 + 2 * 8 * 12) + 80));
    nas_space_largest(space, &p);
    cr_assert(eq(dbl, nas_space_amc_macs(space, &p), full));
    nas_space_free(space);
}

Test(spaces_amc, every_way_to_a_point_meets_the_budget) {
    const double budget = full / 2;
    nas_space *space = residual(budget);
    nas_rng rng = nas_rng_stream(fixture_seed(3), 0, "amc");
    nas_point p, q, other;
    nas_space_sample(space, &rng, &other);
    for (int round = 0; round < 1000; round++) {
        nas_space_sample(space, &rng, &p);
        nas_space_mutate(space, &p, 0.3, &rng, &q);
        cr_assert(nas_space_amc_macs(space, &p) <= budget &&
                  nas_space_amc_macs(space, &q) <= budget);
        nas_space_crossover(space, &p, &other, &rng, &q);
        cr_assert(eq(int, (int)nas_space_check(ctx, space, &q), NAS_OK));
        for (int32_t i = 0; i < q.n; i++) { /* gene by gene, always the most that is open */
            nas_outlook open;
            nas_space_outlook(space, &q, i, &open);
            cr_assert(open.lo == 0 && open.hi >= 0);
            q.gene[i] = round == 0 ? open.hi : (int32_t)nas_rng_below(&rng, (uint32_t)open.hi + 1);
        }
        cr_assert(eq(int, (int)nas_space_check(ctx, space, &q), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        other = p;
    }
    nas_space_free(space);
}

Test(spaces_amc, an_outlook_that_spends_leaves_nothing_another_step_would_fit_in) {
    const double budget = full / 2;
    nas_space *space = residual_that(budget, true);
    nas_rng rng = nas_rng_stream(fixture_seed(5), 0, "amc");
    bool bound = false;
    for (int round = 0; round < 200; round++) {
        nas_point p = {.n = 2};
        nas_outlook open;
        for (int32_t i = 0; i < p.n; i++) {
            nas_space_outlook(space, &p, i, &open);
            cr_assert(open.lo >= 0 && open.lo <= open.hi);
            bound = bound || open.lo > 0;
            p.gene[i] = open.lo + (int32_t)nas_rng_below(&rng, (uint32_t)(open.hi - open.lo) + 1);
        }
        cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), NAS_OK));
        cr_assert(open.lo == open.hi || nas_space_amc_macs(space, &p) >= 0.95 * budget);
    }
    cr_assert(bound);
    nas_space_free(space);
}

Test(spaces_amc, the_outlook_counts_what_was_saved_and_what_is_open) {
    nas_space *space = residual(0);
    nas_point p;
    nas_outlook open;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "amc 8,12", &p), NAS_OK));
    nas_space_outlook(space, &p, 0, &open);
    cr_assert(open.reduced == 0 && open.rest > 0.8);
    nas_space_outlook(space, &p, 1, &open);
    const double with = 900.0 * (3 * 8 + 2 * 8 * 24) + 80;
    cr_assert(fabs(open.reduced - (1 - with / full)) < 1e-9);
    nas_space_free(space);
}

Test(spaces_amc, steps_join_layers_and_the_groups_they_touch) {
    nas_space *space = residual(0);
    nas_space_steps *steps = NULL;
    cr_assert(eq(int, (int)nas_space_steps_new(ctx, space, &steps), NAS_OK));
    cr_assert(eq(int, steps->n_nodes, 2 + 4));
    cr_assert(eq(int, steps->n_edges, 6));
    cr_assert(steps->node_of[0] == 0 && steps->node_of[1] == 1);
    for (int32_t e = 0; e < steps->n_edges; e++)
        cr_assert(steps->edges[e][0] >= 2 && steps->edges[e][1] < 2);
    for (int32_t i = 0; i < steps->n_nodes * steps->n_node_features; i++)
        cr_assert(steps->nodes[i] >= 0 && steps->nodes[i] <= 1);
    nas_space_steps_free(steps);
    nas_space_free(space);
}

Test(spaces_amc, a_budget_below_the_smallest_network_says_what_that_needs) {
    const nas_amc_group group = {16};
    const nas_amc_layer layer = {100, 3, 0, 3, 1, 10};
    const nas_amc_term term = {0, 0, 1, false};
    const nas_amc_options o = {.groups = &group,
                               .n_groups = 1,
                               .layers = &layer,
                               .n_layers = 1,
                               .terms = &term,
                               .n_terms = 1,
                               .step = 4,
                               .min_ratio = 0.5,
                               .macs_max = 2000,
                               .decode = no_graph};
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_amc_new(ctx, &o, &space), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "smallest network has 2400 MACs"), NULL));
}

Test(spaces_amc, the_largest_network_leaves_no_step_of_the_budget_unused) {
    for (double share = 0.3; share < 1; share += 0.1) {
        nas_space *space = residual(full * share);
        nas_point p, more;
        nas_space_largest(space, &p);
        cr_assert(eq(int, (int)nas_space_check(ctx, space, &p), NAS_OK));
        for (int32_t i = 0; i < p.n; i++) {
            if (p.gene[i] == nas_space_gene(space, i)->cardinality - 1) continue;
            more = p;
            more.gene[i]++;
            cr_assert(nas_space_amc_macs(space, &more) > full * share, "share %g, group %d", share,
                      (int)i);
        }
        nas_space_free(space);
    }
}
