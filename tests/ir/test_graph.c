/* test_graph.c - building, copying, resizing; what is refused; failed allocations. */
#include "ir/graph.h"
#include "tests/ir/ir_support.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(ir_graph, .init = setup, .fini = teardown);

Test(ir_graph, a_built_network_reads_back) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)small_sr_graph(ctx, 6, 8, &g), NAS_OK));
    cr_assert(eq(str, (char *)nas_graph_name(g), "small-sr"));
    cr_assert(eq(int, nas_graph_node_count(g), 11));
    cr_assert(eq(int, nas_graph_input(g), 0));
    cr_assert(eq(int, nas_graph_output(g), 10));
    const nas_value head = nas_graph_find(g, "head");
    const nas_node *node = nas_graph_node(g, head);
    cr_assert(eq(str, (char *)nas_op_name(node->op), "conv"));
    cr_assert(eq(int, node->n_inputs, 1));
    cr_assert(eq(int, node->inputs[0], nas_graph_find(g, "center")));
    cr_assert(eq(int, nas_graph_param_count(g), 8));
    cr_assert(eq(str, (char *)nas_graph_param_const(g, node->params[0])->name, "head.weight"));
    cr_assert(eq(str, (char *)nas_graph_param_const(g, node->params[1])->name, "head.bias"));
    const nas_shape out = nas_graph_node(g, nas_graph_output(g))->shape;
    cr_assert(eq(int, out.h, 12));
    cr_assert(eq(int, out.w, 16));
    cr_assert(eq(int, out.c, 3));
    cr_assert(eq(int, nas_graph_find(g, "absent"), NAS_VALUE_NONE));
    nas_graph_free(g);
}

Test(ir_graph, every_operator_has_a_name) {
    for (int op = 0; op < NAS_OP_COUNT; op++) {
        cr_assert(ne(str, (char *)nas_op_name((nas_op)op), "unknown"));
    }
    cr_assert(eq(str, (char *)nas_op_name(NAS_OP_COUNT), "unknown"));
}

Test(ir_graph, illegal_names_are_refused) {
    char longest[NAS_GRAPH_NAME_MAX + 2];
    memset(longest, 'a', sizeof longest);
    longest[NAS_GRAPH_NAME_MAX + 1] = '\0';
    const char *const bad[] = {NULL,          "",         "a b",  "a/b",      "a-b",
                               "caf\xc3\xa9", "a\n",      "\"a",  "%s%s%s%n", longest,
                               "x.weight",    "x.scalar", ".bias"};
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = -5;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const nas_status status = nas_graph_add_input(ctx, g, bad[i], (nas_shape){1, 2, 2, 1}, &x);
        cr_assert(eq(int, (int)status, (int)NAS_ERR_INVALID), "name %zu", i);
        cr_assert(eq(int, nas_graph_node_count(g), 0));
    }
    longest[NAS_GRAPH_NAME_MAX] = '\0'; /* exactly the limit */
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, longest, (nas_shape){1, 2, 2, 1}, &x), NAS_OK));
    const nas_conv_attributes conv = nas_conv_same(1, 1);
    cr_assert(
        eq(int, (int)nas_graph_add_conv(ctx, g, longest, x, &conv, &x), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "taken"), NULL));
    longest[0] = 'b';
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, longest, x, &conv, &x), NAS_OK));
    nas_graph_free(g);
    static const char *const bad_graph[] = {"", "a b", "a/b", "../x"};
    for (size_t i = 0; i < 4; i++)
        cr_assert(eq(ptr, nas_graph_new(ctx, bad_graph[i]), NULL));
}

Test(ir_graph, unknown_values_and_scalars_are_refused) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0, y = -5;
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, 0), (int)NAS_ERR_INVALID));
    cr_assert(eq(int, nas_graph_input(g), NAS_VALUE_NONE));
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 2, 2, 1}, &x), NAS_OK));
    static const nas_value bad[] = {-1, 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        cr_assert(eq(int, (int)nas_graph_add_relu(ctx, g, "y", bad[i], &y), (int)NAS_ERR_INVALID));
        cr_assert(
            eq(int, (int)nas_graph_add_add(ctx, g, "y", x, bad[i], &y), (int)NAS_ERR_INVALID));
        cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, bad[i]), (int)NAS_ERR_INVALID));
    }
    static const float scalars[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        cr_assert(eq(int, (int)nas_graph_add_scalar(ctx, g, "y", x, scalars[i], &y),
                     (int)NAS_ERR_INVALID));
    }
    cr_assert(eq(int, y, -5));
    cr_assert(eq(int, nas_graph_node_count(g), 1));
    cr_assert(eq(int, nas_graph_output(g), NAS_VALUE_NONE));
    nas_graph_free(g);
}

Test(ir_graph, the_node_limit_is_an_error) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 1, 1, 1}, &x), NAS_OK));
    nas_status status = NAS_OK;
    for (int i = 0; status == NAS_OK; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "n%d", i);
        status = nas_graph_add_relu(ctx, g, name, x, &x);
    }
    cr_assert(eq(int, (int)status, (int)NAS_ERR_RANGE));
    cr_assert(eq(int, nas_graph_node_count(g), NAS_GRAPH_NODES_MAX));
    nas_graph_free(g);
}

Test(ir_graph, weights_come_zeroed_and_aligned_and_stay_when_there) {
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)small_sr_graph(ctx, 4, 4, &g), NAS_OK));
    cr_assert(not(nas_graph_has_weights(g)));
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    cr_assert(nas_graph_has_weights(g));
    for (int32_t p = 0; p < nas_graph_param_count(g); p++) {
        nas_param *param = nas_graph_param(g, p);
        cr_assert(eq(sz, (size_t)((uintptr_t)param->data % NAS_PARAM_ALIGN), (size_t)0));
        for (size_t i = 0; i < param->count; i++)
            cr_assert(param->data[i] == 0.0f);
    }
    nas_graph_param(g, 2)->data[3] = 1.5f;
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    cr_assert(nas_graph_param_const(g, 2)->data[3] == 1.5f);
    nas_graph_drop_weights(g);
    cr_assert(not(nas_graph_has_weights(g)));
    cr_assert(eq(ptr, nas_graph_param_const(g, 2)->data, NULL));
    nas_graph_free(g);
}

Test(ir_graph, a_clone_is_equal_and_independent) {
    const uint64_t seed = test_seed(11);
    cr_log_info("seed %" PRIu64, seed);
    nas_rng rng = nas_rng_stream(seed, 0, "clone");
    for (int round = 0; round < 20; round++) {
        nas_graph *g = NULL, *copy = NULL;
        cr_assert(eq(int, (int)random_graph(ctx, &rng, 8, &g), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_clone(ctx, g, &copy), NAS_OK));
        char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
        cr_assert(eq(int, (int)nas_graph_hash(ctx, g, true, before), NAS_OK));
        nas_graph_free(g); /* the copy owns everything it needs */
        cr_assert(eq(int, (int)nas_graph_verify(ctx, copy), NAS_OK));
        cr_assert(eq(int, (int)nas_graph_hash(ctx, copy, true, after), NAS_OK));
        cr_assert(eq(str, before, after));
        nas_graph_free(copy);
    }
}

Test(ir_graph, resizing_gives_what_building_at_that_size_gives) {
    nas_graph *g = NULL, *built = NULL;
    cr_assert(eq(int, (int)small_sr_graph(ctx, 4, 5, &g), NAS_OK));
    cr_assert(eq(int, (int)small_sr_graph(ctx, 17, 9, &built), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, 17, 9), NAS_OK));
    char a[NAS_SHA256_HEX], b[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, a), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, built, false, b), NAS_OK));
    cr_assert(eq(str, a, b));
    cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK));
    nas_graph_free(built);
    nas_graph_free(g);
}

Test(ir_graph, a_failed_resize_changes_nothing) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0;
    nas_conv_attributes conv = nas_conv_same(2, 3);
    conv.pad_top = conv.pad_bottom = 0; /* needs 3 rows */
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 8, 8, 1}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "a", x, &conv, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "b", x, &conv, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    char before[NAS_SHA256_HEX], after[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, before), NAS_OK));
    cr_assert(
        eq(int, (int)nas_graph_resize_input(ctx, g, 4, 8), (int)NAS_ERR_SHAPE)); /* fails at b */
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "'b'"), NULL));
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, 0, 8), (int)NAS_ERR_SHAPE));
    cr_assert(
        eq(int, (int)nas_graph_resize_input(ctx, g, INT32_MAX, INT32_MAX), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, after), NAS_OK));
    cr_assert(eq(str, before, after));
    nas_value second = 0;
    cr_assert(
        eq(int, (int)nas_graph_add_input(ctx, g, "x2", (nas_shape){1, 8, 8, 1}, &second), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_resize_input(ctx, g, 9, 9), (int)NAS_ERR_INVALID));
    nas_graph_free(g);
}

/* Everything a study does with a graph, without files. */
static nas_status live_a_life(nas_buf *text) {
    nas_graph *g = NULL, *copy = NULL;
    nas_graph_cost cost;
    char hash[NAS_SHA256_HEX];
    nas_status s = small_sr_graph(ctx, 4, 4, &g);
    if (s == NAS_OK) s = nas_graph_alloc_weights(ctx, g);
    if (s == NAS_OK) s = nas_graph_clone(ctx, g, &copy);
    if (s == NAS_OK) s = nas_graph_resize_input(ctx, copy, 6, 5);
    if (s == NAS_OK) s = nas_graph_verify(ctx, copy);
    if (s == NAS_OK) s = nas_graph_cost_total(ctx, copy, &cost);
    if (s == NAS_OK) s = nas_graph_hash(ctx, copy, true, hash);
    if (s == NAS_OK) s = nas_graph_dump(ctx, copy, text);
    if (s == NAS_OK) s = nas_graph_to_json(ctx, copy, text);
    nas_graph_free(copy);
    nas_graph_free(g);
    return s;
}

Test(ir_graph, failed_allocations_are_reported_and_nothing_leaks) {
    const long before = nas_mem_live();
    long n = 1;
    for (;; n++) {
        nas_buf text = {0};
        nas_ctx_clear(ctx);
        nas_mem_fail_after(n);
        const nas_status status = live_a_life(&text);
        nas_mem_fail_after(0);
        nas_buf_deinit(&text);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before), "allocation %ld", n);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM), "allocation %ld", n);
        cr_assert(ne(str, (char *)nas_ctx_message(ctx), ""), "allocation %ld", n);
    }
    cr_assert(n > 60, "the life of a graph has more allocations than %ld", n);
}

Test(ir_graph, a_builder_that_runs_out_of_memory_leaves_the_graph_as_it_was) {
    nas_graph *g = nas_graph_new(ctx, "test");
    nas_value x = 0, y = -5;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 4, 4, 2}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, x), NAS_OK));
    const nas_conv_attributes conv = nas_conv_same(3, 3);
    nas_status status = NAS_ERR_NOMEM;
    for (long n = 1; status != NAS_OK; n++) {
        nas_mem_fail_after(n);
        status = nas_graph_add_conv(ctx, g, "y", x, &conv, &y);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        cr_assert(eq(int, y, -5));
        cr_assert(eq(int, nas_graph_node_count(g), 1));
        cr_assert(eq(int, nas_graph_param_count(g), 0));
        cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK));
    }
    for (long n = 1;; n++) {
        nas_mem_fail_after(n);
        status = nas_graph_alloc_weights(ctx, g);
        nas_mem_fail_after(0);
        if (status == NAS_OK) break;
        for (int32_t p = 0; p < 2; p++)
            cr_assert(eq(ptr, nas_graph_param_const(g, p)->data, NULL));
    }
    nas_graph_free(g);
}
