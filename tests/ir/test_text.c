/* test_text.c - the lines for people and the JSON for programs, word by word. */
#include "ir/graph.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

static nas_ctx *ctx;
static nas_graph *g;

static void setup(void) {
    ctx = nas_ctx_new();
    g = nas_graph_new(ctx, "tiny");
    nas_value x = 0, y = 0;
    nas_conv_attributes conv = nas_conv_same(4, 1);
    conv.stride_w = 2;
    conv.groups = 2;
    cr_assert(eq(int, (int)nas_graph_add_input(ctx, g, "x", (nas_shape){1, 2, 3, 2}, &x), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_conv(ctx, g, "c", x, &conv, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_add(ctx, g, "a", y, y, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_scalar(ctx, g, "s", y, 0.1f, &y), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_add_depth_to_space(ctx, g, "d", y, 2, &y), NAS_OK));
}

static void teardown(void) {
    nas_graph_free(g);
    nas_ctx_free(ctx);
}

TestSuite(ir_text, .init = setup, .fini = teardown);

Test(ir_text, dump_has_one_line_a_node) {
    nas_buf out = {0};
    cr_assert(eq(int, (int)nas_graph_dump(ctx, g, &out), NAS_OK));
    cr_assert(eq(str, out.data,
                 "graph 'tiny': 5 nodes, 8 params, 16 MACs, peak 128 bytes\n"
                 "%0 = input 'x' -> [1,2,3,2]\n"
                 "%1 = conv 'c' (%0) kernel=1x1 stride=1x2 pad=0,0,0,0 groups=2 -> [1,2,2,4]"
                 " weight[4,1,1,1] bias[4]\n"
                 "%2 = add 'a' (%1, %1) -> [1,2,2,4]\n"
                 "%3 = add_scalar 's' (%2) scalar=0.100000001 -> [1,2,2,4]\n"
                 "%4 = depth_to_space 'd' (%3) block=2 -> [1,4,4,1]\n"
                 "output not set\n"));
    nas_buf_clear(&out);
    cr_assert(eq(int, (int)nas_graph_alloc_weights(ctx, g), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, 4), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_dump(ctx, g, &out), NAS_OK));
    /* SHA-256 of 16 zero bytes begins 374708ff */
    cr_assert(ne(ptr, strstr(out.data, " weight[4,1,1,1]=374708ff bias[4]=374708ff\n"), NULL));
    cr_assert(ne(ptr, strstr(out.data, "\noutput %4\n"), NULL));
    nas_buf_deinit(&out);
}

Test(ir_text, json_is_the_documented_object) {
    nas_buf out = {0};
    cr_assert(eq(int, (int)nas_graph_to_json(ctx, g, &out), (int)NAS_ERR_INVALID)); /* no output */
    cr_assert(eq(sz, out.len, (size_t)0));
    cr_assert(eq(int, (int)nas_graph_set_output(ctx, g, 4), NAS_OK));
    cr_assert(eq(int, (int)nas_graph_to_json(ctx, g, &out), NAS_OK));
    char hash[NAS_SHA256_HEX];
    cr_assert(eq(int, (int)nas_graph_hash(ctx, g, false, hash), NAS_OK));
    nas_buf expected = {0};
    nas_buf_printf(
        &expected,
        "{\"name\":\"tiny\",\"structure_sha256\":\"%s\",\"output\":\"d\",\"macs\":16,\"params\":8,"
        "\"peak_activation_bytes\":128,\"nodes\":["
        "{\"name\":\"x\",\"op\":\"input\",\"inputs\":[],\"shape\":[1,2,3,2],\"macs\":0,\"params\":"
        "0},"
        "{\"name\":\"c\",\"op\":\"conv\",\"inputs\":[\"x\"],\"shape\":[1,2,2,4],\"kernel\":[1,1],"
        "\"stride\":[1,2],\"dilation\":[1,1],\"pad\":[0,0,0,0],\"groups\":2,\"bias\":true,\"macs\":"
        "16,"
        "\"params\":8},"
        "{\"name\":\"a\",\"op\":\"add\",\"inputs\":[\"c\",\"c\"],\"shape\":[1,2,2,4],\"macs\":0,"
        "\"params\":0},"
        "{\"name\":\"s\",\"op\":\"add_scalar\",\"inputs\":[\"a\"],\"shape\":[1,2,2,4],"
        "\"scalar\":0.10000000149011612,\"macs\":0,\"params\":0},"
        "{\"name\":\"d\",\"op\":\"depth_to_space\",\"inputs\":[\"s\"],\"shape\":[1,4,4,1],"
        "\"block\":2,"
        "\"macs\":0,\"params\":0}]}",
        hash);
    cr_assert(eq(str, out.data, expected.data));
    nas_buf_deinit(&expected);
    nas_buf_deinit(&out);
}
