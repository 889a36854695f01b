/* test_mobile.c - fbnet and ofa: costs by an independent count, texts of the published data, what a depth leaves out. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(spaces_mobile, .init = fixture_setup, .fini = fixture_teardown, .timeout = 60);

static nas_space *open_space(const char *name) {
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_new_named(ctx, name, &space), NAS_OK));
    return space;
}

static nas_graph *decode(const nas_space *space, const char *text) {
    nas_point p;
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, text, &p), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK), "%s",
              nas_ctx_message(ctx));
    return g;
}

static uint64_t macs_of(const nas_space *space, const char *text) {
    nas_graph *g = decode(space, text);
    nas_graph_cost cost;
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
    nas_graph_free(g);
    return cost.macs;
}

/* A second count, by block tables alone: no graph. */
static uint64_t fbnet_macs(const char *digits, int size, int classes) {
    static const int kernel[] = {3, 3, 3, 3, 5, 5, 5, 5}, wide[] = {1, 1, 3, 6, 1, 1, 3, 6};
    static const int channels[] = {16, 24, 32, 64, 112, 184, 352}, blocks[] = {1, 4, 4, 4, 4, 4, 1};
    const bool small = size < 64;
    const int strides[] = {1, small ? 1 : 2, 2, 2, 1, 2, 1};
    uint64_t h = (uint64_t)(small ? size : size / 2), total = h * h * 27 * 16;
    uint64_t in = 16;
    for (int s = 0, b = 0; s < 7; s++) {
        for (int i = 0; i < blocks[s]; i++, b++) {
            const int op = digits[b] - '0', stride = i == 0 ? strides[s] : 1;
            const uint64_t out = (uint64_t)channels[s], o = h / (uint64_t)stride;
            if (op == 8) {
                if (stride != 1 || in != out) total += o * o * in * out;
            } else {
                const uint64_t w = in * (uint64_t)wide[op], g = op % 4 == 1 ? 2 : 1;
                total += h * h * in * w / g + o * o * w * (uint64_t)(kernel[op] * kernel[op]) +
                         o * o * w * out / g;
            }
            h = o;
            in = out;
        }
    }
    const uint64_t head = small ? 1504 : 1984;
    return total + h * h * 352 * head + head * (uint64_t)classes;
}

Test(spaces_mobile, fbnet_costs_what_its_block_table_says) {
    static const char *const archs[] = {"7818488874147327324245", "5355047552024513726040",
                                        "8888888888888888888888", "7777777777777777777777",
                                        "0123456780123456780123"};
    nas_space *large = open_space("fbnet"), *small = open_space("fbnet:32x32");
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        cr_assert(eq(u64, macs_of(large, archs[i]), fbnet_macs(archs[i], 224, 1000)), "%s",
                  archs[i]);
        cr_assert(eq(u64, macs_of(small, archs[i]), fbnet_macs(archs[i], 32, 100)), "%s", archs[i]);
    }
    nas_space_free(large);
    nas_space_free(small);
}

Test(spaces_mobile, fbnet_reads_lists_and_names_what_is_wrong) {
    nas_space *space = open_space("fbnet");
    nas_point a, b;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "7818488874147327324245", &a), NAS_OK));
    cr_assert(
        eq(int,
           (int)nas_space_parse(ctx, space, "[7, 8, 1,8,4,8,8,8,7,4,1,4,7,3,2,7,3,2,4,2,4,5]", &b),
           NAS_OK));
    cr_assert(nas_point_equal(&a, &b));
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "781", &a), (int)NAS_ERR_PARSE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "3 choices"), NULL));
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "79", &a), (int)NAS_ERR_PARSE));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "column 2"), NULL));
    nas_space_free(space);
}

Test(spaces_mobile, ofa_reads_the_published_columns_and_ignores_blocks_beyond_the_depth) {
    nas_space *space = open_space("ofa");
    nas_point a, b;
    cr_assert(
        eq(int,
           (int)nas_space_parse(ctx, space,
                                "ks=3 5 5 7 3 3 5 3 3 3 5 5 3 5 3 3 5 7 7 3; expand=6 3 3 3 4 "
                                "3 3 4 4 4 4 4 6 6 4 4 6 4 3 6; depth=4 4 2 2 4; resolution=132",
                                &a),
           NAS_OK),
        "%s", nas_ctx_message(ctx));
    cr_assert(
        eq(int,
           (int)nas_space_parse(ctx, space,
                                "ofa r132 | 3,6 5,3 5,3 7,3 | 3,4 3,3 5,3 3,4 | 3,4 3,4 | 3,6 "
                                "5,6 | 5,6 7,4 7,3 3,6",
                                &b),
           NAS_OK),
        "%s", nas_ctx_message(ctx));
    cr_assert(nas_point_equal(&a, &b));
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"ofa r130 |", "resolution is 130"},
        {"ofa r132 | 3,6", "blocks, the space offers 2, 3, 4"},
        {"ofa r132 | 3,6 4,3", "kernel is 4"},
        {"ofa r132 | 3,6 3,5", "expansion is 5"},
        {"ks=3 5; expand=", "expected kernel"},
        {"depth=4 4 2 2 4; depth=4 4 2 2 4", "each once"},
        {"depth=4 4 2 2 5", "depth is 5"},
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        cr_assert(nas_space_parse(ctx, space, bad[i].text, &b) != NAS_OK, "%s", bad[i].text);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), bad[i].message), NULL), "%s: %s",
                  bad[i].text, nas_ctx_message(ctx));
    }
    nas_space_free(space);
}

static uint64_t rounded8(uint64_t c) { /* of whole multiples below only */
    uint64_t r = (c + 4) / 8 * 8;
    return r * 10 < c * 9 ? r + 8 : r;
}

Test(spaces_mobile, ofa_costs_what_its_block_table_says) {
    /* smallest network: depth 2, kernel 3, expansion 3, 128x128 */
    static const uint64_t channels[] = {24, 40, 80, 112, 160}, stride[] = {2, 2, 2, 1, 2};
    static const bool squeeze[] = {false, true, false, true, true};
    uint64_t h = 64, in = 16, total = h * h * 27 * 16 + h * h * 16 * 9 + h * h * 16 * 16;
    for (int u = 0; u < 5; u++) {
        for (int d = 0; d < 2; d++) {
            const uint64_t w = rounded8(in * 3), o = d == 0 ? h / stride[u] : h;
            total += h * h * in * w + o * o * w * 9 + o * o * w * channels[u];
            if (squeeze[u]) total += 2 * w * rounded8(w / 4);
            h = o;
            in = channels[u];
        }
    }
    total += h * h * 160 * 960 + 960 * 1280 + 1280 * 1000;
    nas_space *space = open_space("ofa");
    cr_assert(eq(u64, macs_of(space, "ofa r128 | 3,3 3,3 | 3,3 3,3 | 3,3 3,3 | 3,3 3,3 | 3,3 3,3"),
                 total));
    nas_space_free(space);
}
