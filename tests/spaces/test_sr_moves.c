/* test_sr_moves.c - sample, mutate, crossover and the corners: always legal and canonical, and useful. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(spaces_sr_moves, .init = fixture_setup, .fini = fixture_teardown);

static void assert_legal(const nas_space *space, const nas_point *p, const char *move, int round) {
    const nas_status status = nas_space_check(ctx, space, p);
    cr_assert(eq(int, (int)status, NAS_OK), "%s, round %d: %s", move, round, nas_ctx_message(ctx));
}

static int32_t kept(const nas_space *space, const nas_point *p) {
    int32_t n = 0;
    for (int32_t i = 0; i < p->n; i++) {
        if (nas_space_gene(space, i)->kind == NAS_GENE_BOOL) n += p->gene[i];
    }
    return n;
}

Test(spaces_sr_moves, every_move_gives_a_legal_canonical_point) {
    nas_rng rng = nas_rng_stream(fixture_seed(1), 0, "moves");
    static const double rates[] = {1e-9, 0.05, 0.3, 1.0};
    for (int v = 0; v < FIXTURE_SPACES; v++) {
        const nas_sr_options o = fixture_variant(v);
        nas_space *space = fixture_space(&o);
        nas_point a, b, c;
        for (int round = 0; round < 3000; round++) {
            nas_space_sample(space, &rng, &a);
            assert_legal(space, &a, "sample", round);
            nas_space_mutate(space, &a, rates[round % 4], &rng, &b);
            assert_legal(space, &b, "mutate", round);
            if (nas_space_size(space) > 1)
                cr_assert(not(nas_point_equal(&a, &b)), "round %d", round);
            nas_space_crossover(space, &a, &b, &rng, &c);
            assert_legal(space, &c, "crossover", round);
        }
        nas_space_free(space);
    }
}

Test(spaces_sr_moves, the_corners_are_the_extreme_networks) {
    for (int v = 0; v < FIXTURE_SPACES; v++) {
        const nas_sr_options o = fixture_variant(v);
        nas_space *space = fixture_space(&o);
        nas_point p;
        nas_space_largest(space, &p);
        assert_legal(space, &p, "largest", v);
        cr_assert(eq(int, kept(space, &p), o.blocks_max));
        for (int32_t i = 0; i < p.n; i++)
            cr_assert(eq(int, p.gene[i], nas_space_gene(space, i)->cardinality - 1));
        nas_space_smallest(space, &p);
        assert_legal(space, &p, "smallest", v);
        cr_assert(eq(int, kept(space, &p), o.blocks_min));
        int32_t sum = 0;
        for (int32_t i = 0; i < p.n; i++)
            sum += p.gene[i];
        cr_assert(eq(int, sum, o.blocks_min));
        nas_space_free(space);
    }
}

Test(spaces_sr_moves, samples_spread_evenly_over_depths_and_blocks) {
    enum { SAMPLES = 16000, BLOCKS = 16 };
    const nas_sr_options o = fixture_variant(0);
    nas_space *space = fixture_space(&o);
    nas_rng rng = nas_rng_stream(7, 0, "spread");
    int by_depth[BLOCKS + 1] = {0}, by_block[BLOCKS] = {0};
    for (int i = 0; i < SAMPLES; i++) {
        nas_point p;
        nas_space_sample(space, &rng, &p);
        by_depth[kept(space, &p)]++;
        for (int32_t g = 0, block = 0; g < p.n; g++) {
            if (nas_space_gene(space, g)->kind == NAS_GENE_BOOL) by_block[block++] += p.gene[g];
        }
    }
    /* Expected 1000 each (standard deviation 31) and 8500 each (about 60): bounds of five deviations. */
    for (int i = 1; i <= BLOCKS; i++)
        cr_assert(by_depth[i] > 845 && by_depth[i] < 1155, "%d: %d", i, by_depth[i]);
    for (int i = 0; i < BLOCKS; i++)
        cr_assert(by_block[i] > 8190 && by_block[i] < 8810, "%d: %d", i, by_block[i]);
    nas_space_free(space);
}

Test(spaces_sr_moves, samples_and_mutants_reach_every_point_of_a_tiny_space) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    enum { POINTS_MAX = 256 };
    const int size = (int)nas_space_size(space);
    cr_assert(size > 50 && size <= POINTS_MAX);
    for (int walk = 0; walk < 2; walk++) {
        nas_rng rng = nas_rng_stream(fixture_seed(3), (uint64_t)walk, "reach");
        nas_point found[POINTS_MAX], p;
        int n = 0;
        nas_space_smallest(space, &p);
        for (int round = 0; round < 20000 && n < size; round++) {
            if (walk == 0) nas_space_sample(space, &rng, &p);
            if (walk == 1)
                nas_space_mutate(space, &p, 1e-9, &rng, &p); /* single changes, in place */
            int i = 0;
            while (i < n && !nas_point_equal(&found[i], &p))
                i++;
            if (i == n) found[n++] = p;
        }
        cr_assert(eq(int, n, size));
    }
    nas_space_free(space);
}

Test(spaces_sr_moves, a_low_rate_changes_one_gene_or_one_block) {
    const nas_sr_options o = fixture_variant(0);
    nas_space *space = fixture_space(&o);
    nas_rng rng = nas_rng_stream(fixture_seed(4), 0, "low rate");
    for (int round = 0; round < 2000; round++) {
        nas_point a, b;
        nas_space_sample(space, &rng, &a);
        nas_space_mutate(space, &a, 1e-9, &rng, &b);
        int globals = 0, blocks = 0;
        for (int32_t i = 0; i < 4; i++)
            globals += a.gene[i] != b.gene[i];
        for (int32_t i = 4; i < a.n; i += 3) {
            blocks += memcmp(&a.gene[i], &b.gene[i], 3 * sizeof a.gene[0]) != 0;
        }
        const bool moved = kept(space, &a) == 1 && blocks == 2; /* the only block was moved */
        cr_assert(globals + blocks == 1 || (globals == 0 && moved), "round %d: %d, %d", round,
                  globals, blocks);
    }
    nas_space_free(space);
}

Test(spaces_sr_moves, a_child_has_every_gene_and_whole_block_from_a_parent) {
    nas_rng rng = nas_rng_stream(fixture_seed(5), 0, "crossover");
    for (int v = 0; v < FIXTURE_SPACES; v++) {
        const nas_sr_options o = fixture_variant(v);
        nas_space *space = fixture_space(&o);
        for (int round = 0; round < 1000; round++) {
            nas_point a, b, c;
            nas_space_sample(space, &rng, &a);
            nas_space_sample(space, &rng, &b);
            nas_space_crossover(space, &a, &b, &rng, &c);
            for (int32_t i = 0; i < 4; i++)
                cr_assert(c.gene[i] == a.gene[i] || c.gene[i] == b.gene[i]);
            for (int32_t i = 4; i < c.n; i += 3) {
                const size_t bytes = 3 * sizeof c.gene[0];
                cr_assert(memcmp(&c.gene[i], &a.gene[i], bytes) == 0 ||
                              memcmp(&c.gene[i], &b.gene[i], bytes) == 0,
                          "round %d, gene %d", round, (int)i);
            }
        }
        nas_space_free(space);
    }
}

Test(spaces_sr_moves, equal_streams_give_equal_points) {
    const nas_sr_options o = fixture_variant(0);
    nas_space *space = fixture_space(&o);
    nas_rng r1 = nas_rng_stream(9, 1, "equal"), r2 = r1;
    nas_point a, b;
    for (int round = 0; round < 100; round++) {
        nas_space_sample(space, &r1, &a);
        nas_space_sample(space, &r2, &b);
        cr_assert(nas_point_equal(&a, &b));
        nas_space_mutate(space, &a, 0.2, &r1, &a); /* also in place */
        nas_point c;
        nas_space_mutate(space, &b, 0.2, &r2, &c);
        cr_assert(nas_point_equal(&a, &c));
        cr_assert(eq(u64, nas_point_hash(&a), nas_point_hash(&c)));
        cr_assert(ne(u64, nas_point_hash(&b), nas_point_hash(&c)));
    }
    nas_space_free(space);
}

Test(spaces_sr_moves, the_point_hash_never_changes) {
    /* Stored in strategy states; the value is what the first version computed. */
    nas_point p = {.n = 5, .gene = {1, 0, 2, 0, 3}};
    cr_assert(eq(u64, nas_point_hash(&p), UINT64_C(11386315064943904307)));
}

/* ---- gene by gene -------------------------------------------------------------------------------------------- */

Test(spaces_sr_moves, what_the_outlook_leaves_open_makes_legal_points) {
    nas_rng rng = nas_rng_stream(7, 0, "walk");
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 6;
    o.blocks_min = 3;
    nas_space *of = NULL;
    cr_assert(eq(int, (int)nas_space_sr_new(ctx, &o, &of), NAS_OK));
    int points[7] = {0}; /* by blocks kept */
    for (int round = 0; round < 2000; round++) {
        nas_point p = {.n = nas_space_gene_count(of)};
        double rest = 2;
        for (int32_t i = 0; i < p.n; i++) {
            nas_outlook open;
            nas_space_outlook(of, &p, i, &open);
            cr_assert(open.lo >= 0 && open.lo <= open.hi &&
                      open.hi < nas_space_gene(of, i)->cardinality);
            cr_assert(open.rest < rest, "gene %d", (int)i);
            rest = open.rest;
            p.gene[i] = open.lo + (int32_t)nas_rng_below(&rng, (uint32_t)(open.hi - open.lo + 1));
        }
        cr_assert(eq(int, (int)nas_space_check(ctx, of, &p), NAS_OK), "%s", nas_ctx_message(ctx));
        points[kept(of, &p)]++;
    }
    for (int n = 0; n <= 6; n++) {
        const bool found = points[n] > 0;
        cr_assert(found == (n >= 3), "%d blocks: %d points", n, points[n]);
    }
    nas_space_free(of);
}

Test(spaces_sr_moves, steps_tell_roles_apart_and_join_neighbours) {
    const nas_sr_options o = nas_sr_options_default();
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_sr_new(ctx, &o, &space), NAS_OK));
    nas_space_steps *steps = NULL;
    cr_assert(eq(int, (int)nas_space_steps_new(ctx, space, &steps), NAS_OK));
    cr_assert(eq(int, steps->n_steps, nas_space_gene_count(space)));
    cr_assert(eq(int, steps->n_edges, steps->n_steps - 1));
    const size_t bytes = (size_t)(steps->n_features - 1) * sizeof(float); /* all but the place */
    const float *f = steps->features + 1;
    const int32_t stride = steps->n_features;
    cr_assert(eq(int, memcmp(f + 5 * stride, f + 8 * stride, bytes), 0)); /* two expands */
    cr_assert(ne(int, memcmp(f + 5 * stride, f + 6 * stride, bytes), 0)); /* expand, project */
    for (int32_t i = 0; i < steps->n_steps * stride; i++)
        cr_assert(steps->features[i] >= 0 && steps->features[i] <= 1);
    nas_space_steps_free(steps);
    nas_space_free(space);
}
