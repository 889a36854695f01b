/* test_rows.c - the four output formats of rows. */
#include "core/rows.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdlib.h>
#include <string.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(core_rows, .init = setup, .fini = teardown);

enum { COLUMNS = 4 };
static const char *const names[COLUMNS] = {"trial", "psnr_y", "macs", "reason"};
static const bool numbers[COLUMNS] = {true, true, true, false};
static const char *const rows_of[][COLUMNS] = {
    {"3", "33.1", "1200000", "he said \"no\", twice\nand left"}, {"12", "9", NULL, NULL}};

/* All rows in the format; owned by the caller. */
static char *printed(nas_rows_format format, bool vertical, size_t n_rows) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    nas_rows rows = nas_rows_new(format, vertical, out);
    for (size_t i = 0; i < n_rows; i++) {
        cr_assert(
            eq(int, (int)nas_rows_add(ctx, &rows, COLUMNS, names, rows_of[i], numbers), NAS_OK));
    }
    cr_assert(eq(int, (int)nas_rows_end(ctx, &rows), NAS_OK));
    (void)fclose(out);
    return text;
}

Test(core_rows, each_format_prints_its_own_way) {
    static const struct {
        nas_rows_format format;
        bool vertical;
        const char *text;
    } cases[] = {
        {NAS_ROWS_TABLE, false,
         "trial  psnr_y     macs  reason\n"
         "    3   33.10  1200000  he said \"no\", twice and left\n"
         "   12    9.00        -  -\n"},
        {NAS_ROWS_TABLE, true,
         "trial   3\npsnr_y  33.10\nmacs    1200000\nreason  he said \"no\", twice and left\n"
         "\ntrial   12\npsnr_y  9\nmacs    -\nreason  -\n"},
        {NAS_ROWS_JSON, false,
         "[\n{\"trial\":3,\"psnr_y\":33.1,\"macs\":1200000,\"reason\":\"he said \\\"no\\\","
         " twice\\nand left\"},\n{\"trial\":12,\"psnr_y\":9,\"macs\":null,\"reason\":null}\n]\n"},
        {NAS_ROWS_CSV, false,
         "trial,psnr_y,macs,reason\n3,33.1,1200000,\"he said \"\"no\"\", twice\nand left\"\n"
         "12,9,,\n"},
        {NAS_ROWS_VALUE, false, "3\t33.1\t1200000\the said \"no\", twice and left\n12\t9\t\t\n"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = printed(cases[i].format, cases[i].vertical, 2);
        cr_assert(eq(str, text, (char *)cases[i].text), "case %zu", i);
        free(text);
    }
}

Test(core_rows, no_row_is_an_empty_array_or_nothing) {
    static const struct {
        nas_rows_format format;
        const char *text;
    } cases[] = {
        {NAS_ROWS_TABLE, ""}, {NAS_ROWS_JSON, "[]\n"}, {NAS_ROWS_CSV, ""}, {NAS_ROWS_VALUE, ""}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char *text = printed(cases[i].format, false, 0);
        cr_assert(eq(str, text, (char *)cases[i].text), "case %zu", i);
        free(text);
    }
}

static char *one_column(nas_rows_format format, const char *name, const char *const *values,
                        size_t n, bool number) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    nas_rows rows = nas_rows_new(format, false, out);
    for (size_t i = 0; i < n; i++) {
        cr_assert(eq(int, (int)nas_rows_add(ctx, &rows, 1, &name, &values[i], &number), NAS_OK));
    }
    cr_assert(eq(int, (int)nas_rows_end(ctx, &rows), NAS_OK));
    (void)fclose(out);
    return text;
}

Test(core_rows, a_table_shows_about_four_digits_of_a_column) {
    const char *const large[] = {"12345.678", "1"}, *const middle[] = {"33.456789", "1.25",
                                                                       "-0.0001"};
    const char *const small[] = {"0.91234567", "0", "0.00001"};
    char *text = one_column(NAS_ROWS_TABLE, "x", large, 2, true);
    cr_assert(eq(str, text, "      x\n12345.7\n    1.0\n"));
    free(text);
    text = one_column(NAS_ROWS_TABLE, "x", middle, 3, true);
    cr_assert(eq(str, text, "        x\n    33.46\n     1.25\n-1.00e-04\n"));
    free(text);
    text = one_column(NAS_ROWS_TABLE, "x", small, 3, true);
    cr_assert(eq(str, text, "       x\n  0.9123\n  0.0000\n1.00e-05\n"));
    free(text);
}

Test(core_rows, table_columns_align_by_characters_and_long_text_is_cut) {
    const char *const values[] = {
        "\xc3\xa4\xc3\xa4", "ab",
        "0123456789012345678901234567890123456789012345\xc3\xa4\xe2\x82\xac-cut"};
    char *text = one_column(NAS_ROWS_TABLE, "t", values, 3, false);
    cr_assert(eq(str, text,
                 "t\n\xc3\xa4\xc3\xa4\nab\n0123456789012345678901234567890123456789012345"
                 "\xc3\xa4\xe2\x82\xac\xe2\x80\xa6\n"));
    free(text);
}

Test(core_rows, control_characters_never_reach_the_terminal) {
    const char *const values[] = {"a\x1b[31mb\x7f\r\tc"};
    char *text = one_column(NAS_ROWS_TABLE, "t", values, 1, false);
    cr_assert(eq(str, text, "t\na [31mb   c\n"));
    free(text);
    text = one_column(NAS_ROWS_VALUE, "t", values, 1, false);
    cr_assert(eq(str, text, "a [31mb   c\n"));
    free(text);
}

Test(core_rows, long_output_is_streamed_and_complete) {
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    nas_rows rows = nas_rows_new(NAS_ROWS_CSV, false, out);
    enum { N = 20000 };
    for (int i = 0; i < N; i++) {
        cr_assert(
            eq(int, (int)nas_rows_add(ctx, &rows, COLUMNS, names, rows_of[1], numbers), NAS_OK));
        cr_assert(rows.text.len < 100000);
    }
    cr_assert(eq(int, (int)nas_rows_end(ctx, &rows), NAS_OK));
    (void)fclose(out);
    cr_assert(eq(sz, len, strlen("trial,psnr_y,macs,reason\n") + N * strlen("12,9,,\n")));
    free(text);
}

Test(core_rows, a_full_output_is_an_error) {
    FILE *full = fopen("/dev/full", "w");
    if (full == NULL) cr_skip_test("no /dev/full");
    nas_rows rows = nas_rows_new(NAS_ROWS_JSON, false, full);
    cr_assert(eq(int, (int)nas_rows_end(ctx, &rows), (int)NAS_ERR_IO));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "cannot write the output"), NULL));
    (void)fclose(full);
}

Test(core_rows, failed_allocations_are_errors_without_leak) {
    const long before = nas_mem_live();
    static const nas_rows_format formats[] = {NAS_ROWS_TABLE, NAS_ROWS_JSON, NAS_ROWS_CSV,
                                              NAS_ROWS_VALUE};
    FILE *out = fopen("/dev/null", "w");
    for (size_t f = 0; f < 5; f++) { /* the fifth: vertical table */
        for (long n = 1;; n++) {
            nas_rows rows = nas_rows_new(formats[f % 4], f == 4, out);
            nas_status status = NAS_OK;
            nas_mem_fail_after(n);
            for (int i = 0; i < 40 && status == NAS_OK; i++) {
                status = nas_rows_add(ctx, &rows, COLUMNS, names, rows_of[i % 2], numbers);
            }
            if (status == NAS_OK) {
                status = nas_rows_end(ctx, &rows);
            } else {
                nas_rows_deinit(&rows);
            }
            nas_mem_fail_after(0);
            cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before),
                      "format %zu, allocation %ld", f, n);
            if (status == NAS_OK) break;
            cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
        }
    }
    (void)fclose(out);
}

Test(core_rows, format_names_are_the_documented_ones) {
    nas_rows_format format = NAS_ROWS_TABLE;
    cr_assert(eq(int, (int)nas_rows_format_parse(ctx, "csv", &format), NAS_OK));
    cr_assert(eq(int, (int)format, (int)NAS_ROWS_CSV));
    cr_assert(eq(int, (int)nas_rows_format_parse(ctx, "xml", &format), (int)NAS_ERR_INVALID));
    cr_assert(ne(ptr, strstr(nas_ctx_message(ctx), "table, json, csv or value"), NULL));
}
