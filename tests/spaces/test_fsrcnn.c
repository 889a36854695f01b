/* test_fsrcnn.c - the FSRCNN-shaped baseline: layers, published cost, errors. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>

TestSuite(spaces_fsrcnn, .init = fixture_setup, .fini = fixture_teardown);

Test(spaces_fsrcnn, the_graph_is_legal_and_upscales_luma) {
    for (int32_t scale = 2; scale <= 4; scale++) {
        nas_graph *g = NULL;
        cr_assert(eq(int, (int)nas_fsrcnn_graph(ctx, scale, 9, 7, &g), NAS_OK), "%s",
                  nas_ctx_message(ctx));
        cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
        const nas_shape out = nas_graph_node(g, nas_graph_output(g))->shape;
        cr_assert(out.n == 1 && out.h == 9 * scale && out.w == 7 * scale && out.c == 1);
        int32_t convs = 0, prelus = 0;
        for (int32_t i = 0; i < nas_graph_node_count(g); i++) {
            convs += nas_graph_node(g, i)->op == NAS_OP_CONV;
            prelus += nas_graph_node(g, i)->op == NAS_OP_PRELU;
        }
        cr_assert(eq(int, convs, 8));
        cr_assert(eq(int, prelus, 7));
        nas_graph_free(g);
    }
}

Test(spaces_fsrcnn, cost_is_that_of_the_layers) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)nas_fsrcnn_graph(ctx, 2, 360, 640, &g), NAS_OK));
    nas_graph_cost cost;
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
    const uint64_t weights = 25 * 56 + 56 * 12 + 4 * 9 * 12 * 12 + 12 * 56 + 25 * 56 * 4;
    cr_assert(eq(u64, cost.macs, weights * 360 * 640));
    cr_assert(eq(u64, cost.params, weights + 2 * (56 + 12 + 4 * 12 + 56) + 4)); /* biases, slopes */
    nas_graph_free(g);
}

Test(spaces_fsrcnn, bad_arguments_are_refused) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)nas_fsrcnn_graph(ctx, 1, 9, 7, &g), (int)NAS_ERR_INVALID));
    cr_assert(eq(int, (int)nas_fsrcnn_graph(ctx, 5, 9, 7, &g), (int)NAS_ERR_INVALID));
    cr_assert(ne(int, (int)nas_fsrcnn_graph(ctx, 2, 0, 7, &g), NAS_OK));
    cr_assert(eq(ptr, g, NULL));
}

Test(spaces_fsrcnn, a_failed_allocation_leaves_nothing_behind) {
    nas_graph *g = NULL;
    long n = 1;
    for (;; n++) {
        const long live = nas_mem_live();
        nas_mem_fail_after(n);
        const nas_status status = nas_fsrcnn_graph(ctx, 2, 9, 7, &g);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld", n);
        cr_assert(eq(long, nas_mem_live(), live), "allocation %ld", n);
    }
    cr_assert(n > 1);
    nas_graph_free(g);
}
