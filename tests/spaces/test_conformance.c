/* test_conformance.c - what every space promises, whatever it maps: legal moves, corners, texts, graphs. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

TestSuite(spaces_conformance, .init = fixture_setup, .fini = fixture_teardown, .timeout = 120);

static const char *const names[] = {"nb201", "nb201-reached", "nb201-folded", "nb201:52x16x1",
                                    "fbnet", "fbnet:32x32",   "ofa",          "ofa-w120",
                                    "sr",    "sr720p"};
enum { SPACES = sizeof names / sizeof names[0] };

static nas_space *open_space(const char *name) {
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_new_named(ctx, name, &space), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return space;
}

static void assert_legal(const nas_space *space, const nas_point *p, const char *move) {
    const nas_status status = nas_space_check(ctx, space, p);
    cr_assert(eq(int, (int)status, NAS_OK), "%s %s: %s", nas_space_name(space), move,
              nas_ctx_message(ctx));
    for (int32_t i = 0; i < p->n; i++)
        cr_assert(p->gene[i] == 0 || nas_space_gene_matters(space, p, i), "%s %s: gene %d", move,
                  nas_space_name(space), (int)i);
}

Test(spaces_conformance, every_move_gives_a_legal_canonical_point) {
    static const double rates[] = {1e-9, 0.05, 0.3, 1.0};
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = open_space(names[s]);
        nas_rng rng = nas_rng_stream(fixture_seed(21), (uint64_t)s, "moves");
        nas_point a, b, c, d;
        nas_space_sample(space, &rng, &d);
        for (int round = 0; round < 1000; round++) {
            nas_space_sample(space, &rng, &a);
            assert_legal(space, &a, "sample");
            nas_space_mutate(space, &a, rates[round % 4], &rng, &b);
            assert_legal(space, &b, "mutate");
            cr_assert(not(nas_point_equal(&a, &b)), "%s, round %d", names[s], round);
            nas_space_crossover(space, &a, &d, &rng, &c);
            assert_legal(space, &c, "crossover");
            d = b;
        }
        nas_space_largest(space, &a);
        assert_legal(space, &a, "largest");
        nas_space_smallest(space, &b);
        assert_legal(space, &b, "smallest");
        cr_assert(nas_space_size(space) > 1);
        nas_space_free(space);
    }
}

Test(spaces_conformance, a_child_has_every_gene_that_matters_from_a_parent) {
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = open_space(names[s]);
        nas_rng rng = nas_rng_stream(fixture_seed(22), (uint64_t)s, "crossover");
        for (int round = 0; round < 300; round++) {
            nas_point a, b, c;
            nas_space_sample(space, &rng, &a);
            nas_space_sample(space, &rng, &b);
            nas_space_crossover(space, &a, &b, &rng, &c);
            for (int32_t i = 0; i < c.n; i++)
                cr_assert(c.gene[i] == a.gene[i] || c.gene[i] == b.gene[i] ||
                              !nas_space_gene_matters(space, &c, i),
                          "%s, round %d, gene %d", names[s], round, (int)i);
            nas_space_crossover(space, &a, &a, &rng, &c);
            cr_assert(nas_point_equal(&a, &c), "%s: twice the same parent", names[s]);
        }
        nas_space_free(space);
    }
}

Test(spaces_conformance, equal_streams_give_equal_points) {
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = open_space(names[s]);
        nas_rng r1 = nas_rng_stream(9, 1, "equal"), r2 = r1;
        nas_point a, b;
        for (int round = 0; round < 50; round++) {
            nas_space_sample(space, &r1, &a);
            nas_space_sample(space, &r2, &b);
            cr_assert(nas_point_equal(&a, &b));
            nas_space_mutate(space, &a, 0.2, &r1, &a); /* also in place */
            nas_space_mutate(space, &b, 0.2, &r2, &b);
            cr_assert(nas_point_equal(&a, &b));
        }
        nas_space_free(space);
    }
}

Test(spaces_conformance, texts_round_trip_and_damage_is_refused_or_legal) {
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = open_space(names[s]);
        nas_rng rng = nas_rng_stream(fixture_seed(23), (uint64_t)s, "texts");
        nas_buf text = {0};
        for (int round = 0; round < 500; round++) {
            nas_point p, q;
            nas_space_sample(space, &rng, &p);
            nas_buf_clear(&text);
            cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &text), NAS_OK));
            cr_assert(eq(int, (int)nas_space_parse(ctx, space, text.data, &q), NAS_OK), "%s: %s",
                      text.data, nas_ctx_message(ctx));
            cr_assert(nas_point_equal(&p, &q), "%s", text.data);
            text.data[nas_rng_below(&rng, (uint32_t)text.len)] = (char)nas_rng_below(&rng, 256);
            if (nas_space_parse(ctx, space, text.data, &q) == NAS_OK)
                assert_legal(space, &q, "damaged text");
        }
        nas_buf_deinit(&text);
        nas_space_free(space);
    }
}

Test(spaces_conformance, points_decode_to_networks_that_verify) {
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = open_space(names[s]);
        nas_rng rng = nas_rng_stream(fixture_seed(24), (uint64_t)s, "decode");
        uint64_t extremes[2] = {0, 0};
        for (int round = 0; round < 8; round++) {
            nas_point p;
            if (round == 0) nas_space_smallest(space, &p);
            if (round == 1) nas_space_largest(space, &p);
            if (round > 1) nas_space_sample(space, &rng, &p);
            nas_graph *g = NULL;
            cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK), "%s: %s",
                      names[s], nas_ctx_message(ctx));
            cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s: %s", names[s],
                      nas_ctx_message(ctx));
            nas_graph_cost cost;
            cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
            if (round < 2) extremes[round] = cost.macs;
            if (round > 1) cr_assert(cost.macs >= extremes[0] && cost.macs <= extremes[1]);
            nas_graph_free(g);
        }
        nas_space_free(space);
    }
}

Test(spaces_conformance, running_out_of_memory_leaks_nothing) {
    for (int s = 0; s < SPACES; s++) {
        nas_space *space = NULL;
        nas_status status = NAS_ERR_NOMEM;
        for (long n = 1; n < 20 && status != NAS_OK; n++) {
            nas_mem_fail_after(n);
            status = nas_space_new_named(ctx, names[s], &space);
            nas_mem_fail_after(0);
        }
        cr_assert(eq(int, (int)status, NAS_OK));
        nas_point p;
        nas_space_largest(space, &p);
        for (long n = 1; n < 200; n += 37) {
            nas_graph *g = NULL;
            nas_mem_fail_after(n);
            status = nas_space_decode(ctx, space, &p, &g);
            nas_mem_fail_after(0);
            cr_assert(status == NAS_ERR_NOMEM || status == NAS_OK);
            nas_graph_free(g);
        }
        nas_space_free(space);
    }
}

Test(spaces_conformance, an_unknown_name_or_size_says_what_there_is) {
    static const struct {
        const char *name;
        nas_status status;
        const char *message;
    } rows[] = {
        {"nb301", NAS_ERR_NOTFOUND, "nb201, nb201-reached, nb201-folded, fbnet, ofa"},
        {"", NAS_ERR_NOTFOUND, "no space ''"},
        {"ofa:32x32", NAS_ERR_INVALID, "takes no input size"},
        {"fbnet:32", NAS_ERR_INVALID, "write e.g. 32x32"},
        {"fbnet:32x32x3", NAS_ERR_INVALID, "write e.g. 32x32"},
        {"fbnet:33x32", NAS_ERR_INVALID, "height is 33"},
        {"nb201:30x32", NAS_ERR_INVALID, "height is 30"},
        {"nb201:32x32x3x", NAS_ERR_INVALID, "write e.g."},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_space *space = NULL;
        cr_assert(eq(int, (int)nas_space_new_named(ctx, rows[i].name, &space), (int)rows[i].status),
                  "%s", rows[i].name);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), rows[i].message), NULL), "'%s': %s",
                  rows[i].name, nas_ctx_message(ctx));
    }
}
