/* test_sr_decode.c - from points to graphs: structure, names, costs, and that small nets are slices of the largest. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(spaces_sr_decode, .init = fixture_setup, .fini = fixture_teardown);

static nas_graph *decode(const nas_space *space, const nas_point *p) {
    nas_graph *g = NULL;
    const nas_status status = nas_space_decode(ctx, space, p, &g);
    cr_assert(eq(int, (int)status, NAS_OK), "%s", nas_ctx_message(ctx));
    return g;
}

static nas_graph *decode_text(const nas_space *space, const char *text) {
    nas_point p;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, text, &p), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return decode(space, &p);
}

Test(spaces_sr_decode, nodes_have_their_documented_names_in_order) {
    static const char *const names[] = {
        "input",          "shift",       "head",       "block1.expand", "block1.relu",
        "block1.project", "block1.conv", "block1.add", "block3.expand", "block3.relu",
        "block3.project", "block3.conv", "block3.add", "tail",          "skip",
        "merge",          "shuffle",     "unshift",
    };
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_graph *g = decode_text(space, "sr x2 f12 h5 t3 s3 | 1:16,8 2:- 3:32,8");
    const int32_t n = nas_graph_node_count(g);
    cr_assert(eq(int, n, (int)(sizeof names / sizeof names[0])));
    for (int32_t i = 0; i < n; i++)
        cr_assert(eq(str, (char *)nas_graph_node(g, i)->name, (char *)names[i]));
    cr_assert(eq(int, nas_graph_output(g), n - 1));
    const nas_shape out = nas_graph_node(g, n - 1)->shape;
    cr_assert(out.n == 1 && out.h == 16 && out.w == 12 && out.c == 3);
    const nas_node *head = nas_graph_node(g, nas_graph_find(g, "head"));
    cr_assert(head->conv.out_channels == 12 && head->conv.kernel_h == 5 && head->conv.has_bias);
    cr_assert(eq(flt, nas_graph_node(g, 1)->scalar, -0.5f));
    cr_assert(eq(flt, nas_graph_node(g, n - 1)->scalar, 0.5f));
    const nas_node *skip = nas_graph_node(g, nas_graph_find(g, "skip"));
    cr_assert(eq(int, skip->inputs[0], nas_graph_find(g, "shift")));
    nas_graph_free(g);
    nas_space_free(space);
}

Test(spaces_sr_decode, costs_match_the_formula_of_the_block) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 2;
    nas_space *space = fixture_space(&o);
    nas_graph *g = decode_text(space, "sr x2 f16 h3 t3 s5 | 1:96,12 2:48,8");
    nas_graph_cost cost;
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
    const uint64_t block1 = 16 * 96 + 96 * 12 + 9 * 12 * 16, block2 = 16 * 48 + 48 * 8 + 9 * 8 * 16;
    const uint64_t rest = 9 * 3 * 16 + 9 * 16 * 12 + 25 * 3 * 12; /* head, tail, skip */
    cr_assert(eq(u64, cost.macs, (block1 + block2 + rest) * 360 * 640));
    const uint64_t biases = 16 + 96 + 12 + 16 + 48 + 8 + 16 + 12 + 12;
    cr_assert(eq(u64, cost.params, block1 + block2 + rest + biases));
    nas_graph_free(g);
    nas_space_free(space);
}

Test(spaces_sr_decode, every_point_decodes_to_a_graph_the_verifier_accepts) {
    nas_rng rng = nas_rng_stream(fixture_seed(21), 0, "decode");
    for (int v = 0; v < FIXTURE_SPACES; v++) {
        nas_sr_options o = fixture_variant(v);
        for (o.scale = 2; o.scale <= 4; o.scale++) {
            nas_space *space = fixture_space(&o);
            for (int round = 0; round < 40; round++) {
                nas_point p;
                nas_space_sample(space, &rng, &p);
                nas_graph *g = decode(space, &p);
                cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s",
                          nas_ctx_message(ctx));
                const nas_shape out = nas_graph_node(g, nas_graph_output(g))->shape;
                cr_assert(out.h == o.lr_height * o.scale && out.w == o.lr_width * o.scale &&
                          out.c == 3);
                nas_graph_free(g);
            }
            nas_space_free(space);
        }
    }
}

static const nas_param *find_param(const nas_graph *g, const char *name) {
    for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
        const nas_param *param = nas_graph_param_const(g, i);
        if (strcmp(param->name, name) == 0) return param;
    }
    return NULL;
}

Test(spaces_sr_decode, params_are_slices_of_the_largest_network) {
    nas_rng rng = nas_rng_stream(fixture_seed(22), 0, "slices");
    const nas_sr_options o = fixture_variant(0);
    nas_space *space = fixture_space(&o);
    nas_point p;
    nas_space_largest(space, &p);
    nas_graph *largest = decode(space, &p);
    for (int round = 0; round < 60; round++) {
        nas_space_sample(space, &rng, &p);
        nas_graph *g = decode(space, &p);
        for (int32_t i = 0; i < nas_graph_param_count(g); i++) {
            const nas_param *small = nas_graph_param_const(g, i);
            const nas_param *large = find_param(largest, small->name);
            cr_assert(ne(ptr, (void *)(uintptr_t)large, NULL), "%s", small->name);
            cr_assert(eq(int, small->rank, large->rank), "%s", small->name);
            for (int32_t d = 0; d < small->rank; d++) {
                cr_assert(small->dims[d] <= large->dims[d], "%s, dimension %d", small->name,
                          (int)d);
                const bool kernel_axis = small->rank == 4 && (d == 1 || d == 2);
                if (kernel_axis)
                    cr_assert(0 == (large->dims[d] - small->dims[d]) % 2, "%s", small->name);
            }
        }
        nas_graph_free(g);
    }
    nas_graph_free(largest);
    nas_space_free(space);
}

Test(spaces_sr_decode, different_points_give_different_networks) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_graph *a = decode_text(space, "sr x2 f8 h3 t3 s3 | 1:16,8 2:16,8 3:-");
    nas_graph *b = decode_text(space, "sr x2 f8 h3 t3 s3 | 1:16,8 2:- 3:16,8");
    char hash_a[NAS_SHA256_HEX], hash_b[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_graph_hash(ctx, a, false, hash_a), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, b, false, hash_b), NAS_OK));
    cr_assert(eq(str, hash_a, hash_b)); /* the same code and latency ... */
    cr_assert(eq(int, nas_graph_find(b, "block2.conv"),
                 NAS_VALUE_NONE)); /* ... with other shared weights */
    cr_assert(ne(int, nas_graph_find(b, "block3.conv"), NAS_VALUE_NONE));
    nas_graph_free(a);
    nas_graph_free(b);
    nas_space_free(space);
}

Test(spaces_sr_decode, illegal_points_are_refused) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_point p = {.n = nas_space_gene_count(space)}; /* no block kept */
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), (int)NAS_ERR_INVALID));
    cr_assert(eq(ptr, g, NULL));
    nas_space_free(space);
}

Test(spaces_sr_decode, a_failed_allocation_leaves_nothing_behind) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_point p;
    nas_space_smallest(space, &p);
    nas_graph *g = NULL;
    long n = 1;
    for (;; n++) {
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas_space_decode(ctx, space, &p, &g);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld", n);
        cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
    }
    cr_assert(n > 1);
    nas_graph_free(g);
    nas_space_free(space);
}
