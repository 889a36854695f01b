/* test_sr_text.c - the text form of points: round trip, exact messages for bad text, hostile text. */
#include "tests/spaces/fixture.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <string.h>

TestSuite(spaces_sr_text, .init = fixture_setup, .fini = fixture_teardown);

Test(spaces_sr_text, the_form_is_as_documented) {
    nas_sr_options o = nas_sr_options_default();
    o.blocks_max = 3;
    nas_space *space = fixture_space(&o);
    static const char text[] = "sr x2 f16 h3 t3 s5 | 1:48,12 2:- 3:96,12";
    nas_point p;
    cr_assert(eq(int, (int)nas_space_parse(ctx, space, text, &p), NAS_OK), "%s",
              nas_ctx_message(ctx));
    const int32_t expected[] = {2, 0, 0, 1, 1, 2, 1, 0, 0, 0, 1, 5, 1};
    for (int32_t i = 0; i < p.n; i++)
        cr_assert(eq(int, p.gene[i], expected[i]), "gene %d", (int)i);
    nas_buf buf = {0};
    nas_buf_puts(&buf, "point: ");
    cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &buf), NAS_OK));
    cr_assert(eq(str, buf.data, "point: sr x2 f16 h3 t3 s5 | 1:48,12 2:- 3:96,12"));
    nas_buf_deinit(&buf);
    cr_assert(
        eq(int, (int)nas_space_parse(ctx, space, "sr  x2 f16 h3 t3 s5 |   1:48,12 2:- 3:96,12", &p),
           NAS_OK));
    nas_space_free(space);
}

Test(spaces_sr_text, every_point_survives_a_round_trip) {
    nas_rng rng = nas_rng_stream(fixture_seed(11), 0, "round trip");
    for (int v = 0; v < FIXTURE_SPACES; v++) {
        const nas_sr_options o = fixture_variant(v);
        nas_space *space = fixture_space(&o);
        nas_buf buf = {0};
        for (int round = 0; round < 500; round++) {
            nas_point p, q;
            nas_space_sample(space, &rng, &p);
            nas_buf_clear(&buf);
            cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &buf), NAS_OK));
            cr_assert(eq(int, (int)nas_space_parse(ctx, space, buf.data, &q), NAS_OK), "%s: %s",
                      buf.data, nas_ctx_message(ctx));
            cr_assert(nas_point_equal(&p, &q), "%s", buf.data);
        }
        nas_buf_deinit(&buf);
        nas_space_free(space);
    }
}

Test(spaces_sr_text, bad_text_is_refused_with_its_column_or_field) {
    static const struct {
        const char *text;
        nas_status status;
        const char *message; /* part that must appear */
    } rows[] = {
        {"", NAS_ERR_PARSE, "column 1: expected \"sr\", found the end"},
        {"ssr", NAS_ERR_PARSE, "column 1: expected \"sr\", found 's'"},
        {"srx2", NAS_ERR_PARSE, "column 3: expected a blank, found 'x'"},
        {"sr\tx2", NAS_ERR_PARSE, "column 3: expected a blank, found byte 0x09"},
        {"sr x\xff", NAS_ERR_PARSE, "column 5: expected a number, found byte 0xff"},
        {"sr x-2", NAS_ERR_PARSE, "column 5: expected a number, found '-'"},
        {"sr x3 f8 h3 t3 s3 | 1:16,8 2:16,8 3:-", NAS_ERR_INVALID,
         "column 5: scale is x3, the space has x2"},
        {"sr x02 f8", NAS_ERR_PARSE, "column 5: number with a leading zero"},
        {"sr x2 f9999999", NAS_ERR_PARSE, "column 8: number of more than 6 digits"},
        {"sr x2 f10 h3", NAS_ERR_RANGE,
         "column 8: residual is 10, the space offers 8..12 in steps of 4"},
        {"sr x2 f0 h3", NAS_ERR_RANGE, "column 8: residual is 0"},
        {"sr x2 f8 h7 t3", NAS_ERR_RANGE, "column 11: head is kernel 7, the space offers 3 5"},
        {"sr x2 f8 h3 t5 s3", NAS_ERR_RANGE, "column 14: tail is kernel 5, the space offers 3"},
        {"sr x2 f8 h3 t3 s5 |", NAS_ERR_RANGE, "column 17: skip is kernel 5"},
        {"sr x2 f8 h3 t3 s3 1:16,8", NAS_ERR_PARSE, "column 19: expected \"|\", found '1'"},
        {"sr x2 f8 h3 t3 s3 |", NAS_ERR_PARSE, "column 20: expected a blank, found the end"},
        {"sr x2 f8 h3 t3 s3 | 2:16,8", NAS_ERR_PARSE, "column 21: expected \"1:\", found '2'"},
        {"sr x2 f8 h3 t3 s3 | 1:x", NAS_ERR_PARSE, "column 23: expected a width or '-', found 'x'"},
        {"sr x2 f8 h3 t3 s3 | 1:20,8", NAS_ERR_RANGE,
         "column 23: block1.expand is 20, the space offers 16..32"},
        {"sr x2 f8 h3 t3 s3 | 1:16 2:", NAS_ERR_PARSE, "column 25: expected \",\", found ' '"},
        {"sr x2 f8 h3 t3 s3 | 1:16,8 2:32,9", NAS_ERR_RANGE, "column 33: block2.project is 9"},
        {"sr x2 f8 h3 t3 s3 | 1:16,8 2:16,8", NAS_ERR_PARSE,
         "column 34: expected a blank, found the end"},
        {"sr x2 f8 h3 t3 s3 | 1:16,8 2:16,8 3:- ", NAS_ERR_PARSE,
         "column 38: expected the end, found ' '"},
        {"sr x2 f8 h3 t3 s3 | 1:16,8 2:16,8 3:- 4:-", NAS_ERR_PARSE, "column 38: expected the end"},
        {"sr x2 f8 h3 t3 s3 | 1:16,8 2:- 3:-", NAS_ERR_INVALID,
         "in 1 blocks, the space wants at least 2"},
    };
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    const nas_point untouched = {.n = 77};
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        nas_point p = untouched;
        const nas_status status = nas_space_parse(ctx, space, rows[i].text, &p);
        cr_assert(eq(int, (int)status, (int)rows[i].status), "'%s'", rows[i].text);
        cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), rows[i].message), NULL),
                  "'%s': wanted '%s' in '%s'", rows[i].text, rows[i].message, nas_ctx_message(ctx));
        cr_assert(eq(int, p.n, untouched.n), "'%s' wrote its output", rows[i].text);
    }
    nas_space_free(space);
}

Test(spaces_sr_text, damaged_text_is_refused_or_reads_as_another_legal_point) {
    const nas_sr_options o = fixture_variant(0);
    nas_space *space = fixture_space(&o);
    nas_rng rng = nas_rng_stream(fixture_seed(12), 0, "damage");
    nas_buf buf = {0};
    int refused = 0;
    for (int round = 0; round < 5000; round++) {
        nas_point p, q;
        nas_space_sample(space, &rng, &p);
        nas_buf_clear(&buf);
        cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &buf), NAS_OK));
        const size_t at = nas_rng_below(&rng, (uint32_t)buf.len);
        buf.data[at] = (char)nas_rng_below(&rng, 256); /* 0 cuts it */
        if (nas_space_parse(ctx, space, buf.data, &q) == NAS_OK) {
            cr_assert(eq(int, (int)nas_space_check(ctx, space, &q), NAS_OK), "%s", buf.data);
        } else {
            refused++;
        }
    }
    cr_assert(refused > 4000);
    nas_buf_deinit(&buf);
    nas_space_free(space);
}

Test(spaces_sr_text, an_illegal_point_is_not_written) {
    const nas_sr_options o = fixture_tiny();
    nas_space *space = fixture_space(&o);
    nas_point p = {.n = nas_space_gene_count(space)};
    nas_buf buf = {0};
    cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &buf), (int)NAS_ERR_INVALID));
    cr_assert(eq(sz, buf.len, (size_t)0));
    nas_space_smallest(space, &p);
    nas_mem_fail_after(1);
    cr_assert(eq(int, (int)nas_space_format(ctx, space, &p, &buf), (int)NAS_ERR_NOMEM));
    nas_mem_fail_after(0);
    nas_buf_deinit(&buf);
    nas_space_free(space);
}
