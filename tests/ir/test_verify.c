/* test_verify.c - whole networks pass; every way to break one is found and named. Nodes are const for readers; the tests
 * break them through a cast, as a pass with a mistake would. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <string.h>

static nas_ctx *ctx;
static nas_graph *g;

static void setup(void) {
    ctx = nas_ctx_new();
    cr_assert(eq(int, (int)small_sr_graph(ctx, 6, 6, &g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
}

static void teardown(void) {
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

TestSuite(ir_verify, .init = setup, .fini = teardown);

static nas_node *writable(const char *name) {
    return (nas_node *)(uintptr_t)nas_graph_node(g, nas_graph_find(g, name));
}

static nas_param *slot(const char *name, int32_t index) {
    return nas_graph_param(g, writable(name)->params[index]);
}

/* The verifier answers `status` and its message has `part` in it; repairing is up to the caller. */
static void expect(nas_status status, const char *part, const char *row) {
    nas_ctx_clear(ctx);
    cr_assert(eq(int, (int)nas_graph_verify(ctx, g), (int)status), "%s: %s", row,
              nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), part), NULL), "%s: %s", row,
              nas_ctx_message(ctx));
}

Test(ir_verify, whole_networks_pass_with_and_without_weights) {
    expect(NAS_OK, "", "with weights");
    nas_graph_drop_weights(g);
    expect(NAS_OK, "", "without weights");
    const uint64_t seed = test_seed(3);
    cr_log_info("seed %" PRIu64, seed);
    nas_rng rng = nas_rng_stream(seed, 0, "verify");
    for (int round = 0; round < 50; round++) {
        nas_graph *random = NULL;
        cr_assert(eq(int, (int)random_graph(ctx, &rng, 12, &random), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_verify(ctx, random), NAS_OK), "%s", nas_ctx_message(ctx));
        nas_graph_free(random);
    }
}

Test(ir_verify, the_output_must_be_set_and_every_node_lead_to_it) {
    nas_value extra = 0;
    const nas_value output = nas_graph_output(g);
    cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "dead.end", output, &extra), NAS_OK));
    expect(NAS_ERR_INVALID, "'dead.end'", "dead node");
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, extra), NAS_OK));
    expect(NAS_OK, "", "now the output");
    nas_graph *empty = nas_graph_new(ctx, "empty");
    cr_assert(eq(int, (int)nas_graph_verify(ctx, empty), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "graph 'empty': the output is not set"), NULL));
    nas_graph_free(empty);
}

Test(ir_verify, broken_nodes_are_named) {
    nas_node *node = writable("block.add");
    const nas_node good = *node;
    node->inputs[1] = 10;
    expect(NAS_ERR_INVALID, "'block.add'", "input after the node");
    node->inputs[1] = nas_graph_find(g, "block.add");
    expect(NAS_ERR_INVALID, "'block.add'", "input is the node itself");
    node->inputs[1] = -1;
    expect(NAS_ERR_INVALID, "'block.add'", "negative input");
    *node = good;
    node->n_inputs = 1;
    expect(NAS_ERR_INVALID, "takes 2", "too few inputs");
    node->n_inputs = 100;
    expect(NAS_ERR_INVALID, "takes 2", "too many inputs");
    *node = good;
    node->op = NAS_OP_COUNT;
    expect(NAS_ERR_INVALID, "operator", "no such operator");
    *node = good;
    node->inputs[1] = nas_graph_find(g, "center");
    expect(NAS_ERR_SHAPE, "operands differ", "operands of different shape");
    *node = good;
    node->shape.w++;
    expect(NAS_ERR_SHAPE, "inference gives", "stale shape");
    *node = good;
    node->name = "tail.weight";
    expect(NAS_ERR_INVALID, "for params", "reserved name");
    node->name = "head";
    expect(NAS_ERR_INVALID, "same name", "name used twice");
    *node = good;
    expect(NAS_OK, "", "repaired");
}

Test(ir_verify, broken_attributes_are_named) {
    nas_node *conv = writable("block.conv");
    const nas_node good = *conv;
    conv->conv.out_channels = 9;
    expect(NAS_ERR_SHAPE, "'block.conv'", "more channels than the stored shape");
    *conv = good;
    conv->conv.stride_h = 0;
    expect(NAS_ERR_INVALID, "'block.conv'", "stride 0");
    *conv = good;
    conv->conv.groups = 2;
    expect(NAS_ERR_SHAPE, "'block.conv.weight'", "groups without matching weights");
    *conv = good;
    conv->conv.has_bias = false;
    expect(NAS_ERR_INVALID, "slot 1", "bias that is not declared");
    *conv = good;
    nas_node *scalar = writable("center");
    const nas_node good_scalar = *scalar;
    scalar->scalar = NAN;
    expect(NAS_ERR_INVALID, "'center'", "scalar NaN");
    *scalar = good_scalar;
    expect(NAS_OK, "", "repaired");
}

Test(ir_verify, broken_params_are_named) {
    nas_node *conv = writable("block.conv");
    const nas_node good = *conv;
    static const int32_t wrong[] = {-1, 8, INT32_MAX, INT32_MIN, 0}; /* 0 is head.weight */
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        conv->params[0] = wrong[i];
        expect(NAS_ERR_INVALID, "slot 0", "param index");
    }
    *conv = good;
    nas_node *relu = writable("block.relu");
    relu->params[0] = 0;
    expect(NAS_ERR_INVALID, "unused", "relu with a param");
    relu->params[0] = -1;
    nas_param *weight = slot("block.conv", 0);
    const nas_param good_weight = *weight;
    weight->dims[3]++;
    expect(NAS_ERR_SHAPE, "'block.conv.weight'", "dims");
    *weight = good_weight;
    weight->rank = 3;
    expect(NAS_ERR_SHAPE, "'block.conv.weight'", "rank");
    *weight = good_weight;
    weight->count--;
    expect(NAS_ERR_SHAPE, "'block.conv.weight'", "count");
    *weight = good_weight;
    weight->name = "block.conv.bias";
    expect(NAS_ERR_INVALID, "must be 'block.conv.weight'", "name");
    *weight = good_weight;
    expect(NAS_OK, "", "repaired");
}

Test(ir_verify, weights_must_be_finite) {
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        nas_param *bias = slot("skip", 1);
        bias->data[11] = bad[i]; /* the last element of the last param */
        expect(NAS_ERR_INVALID, "'skip.bias' element 11 of 12", "not finite");
        bias->data[11] = 0.0f;
    }
    expect(NAS_OK, "", "repaired");
}
