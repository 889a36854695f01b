/* test_nb201.c - cells of NAS-Bench-201: the benchmark's MACs, its two notations, and what pruning leaves. With
 * NAS_NB201_ARCHS=<csv with columns arch_idx,ops,iso_class,macs,split,arch_str> the whole table is compared. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

TestSuite(spaces_nb201, .init = fixture_setup, .fini = fixture_teardown, .timeout = 600);

static uint64_t macs_of(const nas_space *space, const char *text, int32_t *nodes) {
    nas_point p;
    nas_graph *g = NULL;
    nas_graph_cost cost;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, text, &p), NAS_OK), "%s: %s", text,
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(eq(int, (int)nas_graph_cost_total(ctx, g, &cost), NAS_OK));
    if (nodes != NULL) *nodes = nas_graph_node_count(g);
    nas_graph_free(g);
    return cost.macs;
}

static nas_space *open_space(const char *name) {
    nas_space *space = NULL;
    cr_assert(eq(int, (int)nas_space_new_named(ctx, name, &space), NAS_OK));
    return space;
}

static const struct known {
    const char *ops;
    uint64_t macs;
} known[] = {
    {"000000", UINT64_C(7783040)}, /* the least and the most of the benchmark */
    {"333333", UINT64_C(220119680)}, {"421211", UINT64_C(15647360)},
    {"440114", UINT64_C(7783040)},   {"330023", UINT64_C(117883520)},
    {"242031", UINT64_C(51036800)},  {"004433", UINT64_C(78561920)},
    {"404023", UINT64_C(47104640)},  {"242210", UINT64_C(19579520)},
    {"222432", UINT64_C(58901120)},  {"442232", UINT64_C(54968960)},
    {"223120", UINT64_C(54968960)},  {"243331", UINT64_C(117883520)},
    {"301130", UINT64_C(78561920)},  {"400144", UINT64_C(7783040)},
    {"321340", UINT64_C(82494080)},  {"332332", UINT64_C(157205120)},
    {"400141", UINT64_C(7783040)},   {"110232", UINT64_C(51036800)},
    {"131213", UINT64_C(82494080)},  {"131344", UINT64_C(78561920)},
    {"124313", UINT64_C(82494080)},  {"213444", UINT64_C(47104640)},
    {"323110", UINT64_C(82494080)},  {"331341", UINT64_C(113951360)},
    {"300241", UINT64_C(47104640)},  {"010003", UINT64_C(43172480)},
    {"421311", UINT64_C(47104640)},  {"423431", UINT64_C(82494080)},
    {"122324", UINT64_C(54968960)},  {"241101", UINT64_C(11715200)},
    {"440102", UINT64_C(11715200)},
};

Test(spaces_nb201, macs_are_those_of_the_benchmark) {
    nas_space *space = open_space("nb201");
    cr_assert(eq(dbl, nas_space_size(space), 15625.0));
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        cr_assert(eq(u64, macs_of(space, known[i].ops, NULL), known[i].macs), "%s", known[i].ops);
    nas_space_free(space);
}

Test(spaces_nb201, the_whole_table_agrees_where_it_is_given) {
    const char *path = getenv("NAS_NB201_ARCHS");
    if (path == NULL) cr_skip_test("set NAS_NB201_ARCHS to the table of 15,625 architectures");
    FILE *file = fopen(path, "r");
    cr_assert(ne(ptr, file, NULL), "cannot open %s", path);
    nas_space *space = open_space("nb201");
    char line[512];
    int rows = 0;
    while (fgets(line, sizeof line, file) != NULL) {
        char ops[8], official[256];
        uint64_t macs = 0;
        if (sscanf(line, "%*d,%6[0-9],%*d,%" SCNu64 ",%*[a-z],%255s", ops, &macs, official) != 3)
            continue;
        cr_assert(eq(u64, macs_of(space, ops, NULL), macs), "%s", ops);
        nas_point a, b;
        cr_assert(eq(int, (int)nas_space_parse(ctx, space, ops, &a), NAS_OK));
        cr_assert(eq(int, (int)nas_space_parse(ctx, space, official, &b), NAS_OK), "%s", official);
        cr_assert(nas_point_equal(&a, &b), "%s is not %s", official, ops);
        rows++;
    }
    (void)fclose(file);
    cr_assert(eq(int, rows, 15625));
    nas_space_free(space);
}

Test(spaces_nb201, the_official_notation_is_read) {
    static const struct {
        const char *text;
        nas_status status;
        const char *says; /* digits, or a part of the message */
    } rows[] = {
        {"|avg_pool_3x3~0|+|nor_conv_1x1~0|skip_connect~1|+|nor_conv_1x1~0|skip_connect~1|"
         "skip_connect~2|",
         NAS_OK, "421211"},
        {"|none~0|+|none~0|none~1|+|none~0|none~1|nor_conv_3x3~2|", NAS_OK, "000003"},
        {"|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", NAS_ERR_PARSE, "expected \"0|\""},
        {"|none~0|+|none~0|none~1|+|none~0|none~1|", NAS_ERR_RANGE, "edge 2->3"},
        {"|conv~0|", NAS_ERR_RANGE, "edge 0->1 has an unknown operation"},
        {"42121", NAS_ERR_PARSE, "column 6"},
        {"4212115", NAS_ERR_PARSE, "column 7"},
        {"521211", NAS_ERR_PARSE, "column 1"},
    };
    nas_space *space = open_space("nb201");
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_point p;
        nas_buf text = {0};
        const nas_status status = nas_space_parse(ctx, space, rows[i].text, &p);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "%s", rows[i].text);
        if (status == NAS_OK) cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &text), 0));
        const char *said = status == NAS_OK ? text.data : nas_ctx_message(ctx);
        cr_assert(ne(ptr, strstr(said, rows[i].says), NULL), "%s: %s", rows[i].text, said);
        nas_buf_deinit(&text);
    }
    nas_space_free(space);
}

Test(spaces_nb201, pruning_leaves_out_what_computes_zeros_or_reaches_nothing) {
    static const struct {
        const char *ops;
        int convs3; /* left in a cell */
    } rows[] = {
        {"333333", 6}, {"300000", 0}, /* node 1 is read by nobody */
        {"300030", 2}, {"003001", 0}, /* node 1 is zero */
        {"033003", 2}, {"000300", 1}, {"303001", 2},
    };
    nas_space *pruned = open_space("nb201-folded");
    const uint64_t conv3 = 35389440, rest = 7783040; /* 15 cells; all else */
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        cr_assert(
            eq(u64, macs_of(pruned, rows[i].ops, NULL), rest + conv3 * (uint64_t)rows[i].convs3),
            "%s", rows[i].ops);
    }
    nas_space *reached = open_space("nb201-reached");
    cr_assert(eq(u64, macs_of(reached, "300000", NULL), rest));         /* node 1 is not read */
    cr_assert(eq(u64, macs_of(reached, "003001", NULL), rest + conv3)); /* a conv of zeros runs */
    nas_space_free(reached);
    /* Kept: a product with zero stays a node, so the unpruned cell is larger. */
    nas_space *whole = open_space("nb201");
    int32_t n_whole = 0, n_pruned = 0;
    (void)macs_of(whole, "300000", &n_whole);
    (void)macs_of(pruned, "300000", &n_pruned);
    cr_assert(n_whole > n_pruned);
    nas_space_free(whole);
    nas_space_free(pruned);
}

Test(spaces_nb201, averages_of_a_pool_do_not_count_the_padding) {
    nas_space *space = open_space("nb201");
    nas_point p;
    nas_graph *g = NULL;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, "400000", &p), NAS_OK));
    cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK));
    const nas_node *pool = nas_graph_node(g, nas_graph_find(g, "s1c1.e01"));
    cr_assert(pool->op == NAS_OP_AVG_POOL && !pool->pool.count_include_pad);
    cr_assert(pool->pool.pad_top == 1 && pool->shape.h == 32);
    const nas_node *none = nas_graph_node(g, nas_graph_find(g, "s1c1.e02"));
    cr_assert(none->op == NAS_OP_UNARY && none->unary == NAS_UNARY_AFFINE && none->alpha == 0);
    nas_graph_free(g);
    nas_space_free(space);
}

Test(spaces_nb201, every_form_of_every_kind_of_cell_verifies) {
    static const char *const forms[] = {"nb201", "nb201-reached", "nb201-folded"};
    for (int f = 0; f < 3; f++) {
        nas_space *space = open_space(forms[f]);
        for (int number = 0; number < 15625; number += 13) { /* 13 and 5 have no common divisor */
            nas_point p = {.n = NAS_NB201_EDGES};
            for (int e = 0, rest = number; e < NAS_NB201_EDGES; e++, rest /= 5)
                p.gene[e] = rest % 5;
            nas_graph *g = NULL;
            cr_assert(eq(int, (int)nas_space_decode(ctx, space, &p, &g), NAS_OK), "%s %d: %s",
                      forms[f], number, nas_ctx_message(ctx));
            cr_assert(eq(int, (int)nas_graph_verify(ctx, g), NAS_OK), "%s", nas_ctx_message(ctx));
            nas_graph_free(g);
        }
        nas_space_free(space);
    }
}
