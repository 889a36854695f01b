/* test_layer_cost.c - what a layer will cost, from its shape, is what a projected layer does cost. */
#include "compress/layer.h"
#include "tests/compress/nets.h"

#include <criterion/criterion.h>

TestSuite(compress_layer_cost, .init = nets_setup, .fini = nets_teardown, .timeout = 120);

#define OK(call) cr_assert((call) == NAS_OK, "%s", nas_ctx_message(ctx))

static nas_graph *one_layer(int32_t outputs, int32_t kernel, int32_t inputs, nas_rng *rng,
                            nas_value *v) {
    nas_graph *g = nas_graph_new(ctx, "one");
    nas_value x = 0;
    const nas_conv_attributes c = nas_conv_same(outputs, kernel);
    OK(nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 4, inputs}, &x));
    OK(nas_graph_add_conv(ctx, g, "c", x, &c, v));
    OK(nas_graph_set_output(ctx, g, *v));
    OK(nas_graph_alloc_weights(ctx, g));
    nas_param *w = nas_graph_param(g, nas_graph_node(g, *v)->params[0]);
    for (size_t i = 0; i < w->count; i++)
        w->data[i] = (float)nas_rng_normal(rng) + 0.01F;
    return g;
}

static nas_sparsity draw_pattern(nas_rng *rng) {
    static const int32_t sizes[] = {1, 2, 4, 8};
    nas_sparsity s =
        nas_sparsity_default((nas_sparsity_pattern)nas_rng_below(rng, NAS_SPARSITY_PATTERN_COUNT));
    s.rate = (double)nas_rng_below(rng, 100) / 100;
    s.n = sizes[1 + nas_rng_below(rng, 3)];
    s.group = sizes[1 + nas_rng_below(rng, 3)];
    s.keep = 1 + (int32_t)nas_rng_below(rng, (uint32_t)s.group);
    s.outputs = sizes[nas_rng_below(rng, 4)];
    if (s.pattern == NAS_SPARSITY_COMPLEMENTARY && s.outputs < 2) s.outputs = 2;
    s.inputs = sizes[nas_rng_below(rng, 4)];
    s.entries = 1 + (int32_t)nas_rng_below(rng, 8);
    s.period = sizes[nas_rng_below(rng, 4)];
    return s;
}

Test(compress_layer_cost, costs_from_shapes_are_those_of_projected_layers) {
    static const int32_t bits[] = {0, 2, 3, 4, 8};
    nas_rng rng = nas_rng_stream(5, 0, "costs");
    int checked[NAS_SPARSITY_PATTERN_COUNT] = {0}, refused = 0;
    for (int round = 0; round < 1500; round++) {
        const int32_t out = 1 + (int32_t)nas_rng_below(&rng, 40);
        const int32_t in = 1 + (int32_t)nas_rng_below(&rng, 40);
        const int32_t kernel = nas_rng_below(&rng, 2) == 0 ? 1 : 3;
        nas_layer_scheme scheme = nas_layer_scheme_default();
        scheme.is_sparse = true;
        scheme.sparsity = draw_pattern(&rng);
        scheme.bits = bits[nas_rng_below(&rng, 5)];
        nas_value v = 0;
        nas_graph *g = one_layer(out, kernel, in, &rng, &v);
        const nas_param *w = nas_graph_param_const(g, nas_graph_node(g, v)->params[0]);
        const bool legal = nas_sparsity_check(ctx, &scheme.sparsity, w->dims, 1) == NAS_OK;
        if (!legal) nas_ctx_clear(ctx);
        if (legal && nas_layer_is_whole(&scheme.sparsity, w->dims)) {
            const nas_layer_cost cost = nas_layer_expect(w->dims, &scheme);
            uint64_t kept = 0, bytes = 0;
            OK(nas_sparsity_apply(ctx, g, v, &scheme.sparsity));
            OK(nas_layer_bytes(ctx, g, v, &scheme, &bytes));
            for (size_t i = 0; i < w->count; i++)
                kept += w->data[i] != 0;
            const char *name = nas_sparsity_pattern_name(scheme.sparsity.pattern);
            cr_assert(cost.kept == kept, "%s %dx%d: %zu, not %zu", name, (int)out, (int)in,
                      (size_t)cost.kept, (size_t)kept);
            cr_assert(cost.bytes == bytes, "%s %dx%d at %d bits: %zu, not %zu", name, (int)out,
                      (int)in, (int)scheme.bits, (size_t)cost.bytes, (size_t)bytes);
            checked[scheme.sparsity.pattern]++;
        } else {
            refused++;
        }
        nas_graph_free(g);
    }
    cr_assert(refused > 0);
    for (int p = 0; p < NAS_SPARSITY_PATTERN_COUNT; p++)
        cr_assert(checked[p] > 5, "%s: %d", nas_sparsity_pattern_name((nas_sparsity_pattern)p),
                  checked[p]);
}

/* Filters that were sorted share lists with any others: the bytes are a bound. */
Test(compress_layer_cost, rearranged_filters_cost_no_more_than_expected) {
    nas_rng rng = nas_rng_stream(6, 0, "costs");
    nas_layer_scheme scheme = nas_layer_scheme_default();
    scheme.is_sparse = true;
    scheme.bits = 4;
    scheme.sparsity = nas_sparsity_default(NAS_SPARSITY_1XN);
    scheme.sparsity.rearrange = true;
    for (int round = 0; round < 40; round++) {
        scheme.sparsity.rate = (double)nas_rng_below(&rng, 100) / 100;
        nas_value v = 0;
        uint64_t bytes = 0;
        nas_graph *g = one_layer(16, 3, 12, &rng, &v);
        const nas_layer_cost cost = nas_layer_expect(
            nas_graph_param_const(g, nas_graph_node(g, v)->params[0])->dims, &scheme);
        OK(nas_sparsity_apply(ctx, g, v, &scheme.sparsity));
        OK(nas_layer_bytes(ctx, g, v, &scheme, &bytes));
        cr_assert(bytes <= cost.bytes, "%g", scheme.sparsity.rate);
        nas_graph_free(g);
    }
}
