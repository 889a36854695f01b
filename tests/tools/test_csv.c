/* test_csv.c - tables in their odd forms, and damaged ones. */
#include "tools/csv.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

static nas_ctx *ctx;
static long blocks_before;

static void setup(void) {
    blocks_before = nas_mem_live();
    ctx = nas_ctx_new();
}
static void teardown(void) {
    nas_ctx_free(ctx);
    cr_assert(eq(long, nas_mem_live(), blocks_before));
}
TestSuite(tools_csv, .init = setup, .fini = teardown, .timeout = 30);

/* All rows as "a|b;c|d", or the message of the failure. */
static void read_all(const char *text, nas_buf *out) {
    char *copy = nas_strdup(ctx, text);
    nas_csv csv;
    nas_csv_init(&csv, copy, strlen(copy));
    nas_status status = NAS_OK;
    for (bool more = true; status == NAS_OK;) {
        status = nas_csv_next(ctx, &csv, &more);
        if (status != NAS_OK || !more) break;
        if (out->len > 0) nas_buf_puts(out, ";");
        for (size_t i = 0; i < csv.n; i++)
            nas_buf_printf(out, "%s%s", i == 0 ? "" : "|", csv.fields[i]);
    }
    if (status != NAS_OK) {
        nas_buf_clear(out);
        nas_buf_puts(out, nas_ctx_message(ctx));
    }
    nas_csv_deinit(&csv);
    nas_free(copy);
}

Test(tools_csv, fields_are_read_as_rfc_4180_writes_them) {
    static const struct {
        const char *text, *rows;
    } cases[] = {
        {"a,b\n1,2\n", "a|b;1|2"},
        {"a,b\r\n1,2\r\n", "a|b;1|2"},
        {"a,b\r1,2", "a|b;1|2"}, /* old line ends, none at the end */
        {"\xef\xbb\xbf"
         "a,b\n1,2",
         "a|b;1|2"},
        {"a,b\n\n\n1,2\n\n", "a|b;1|2"},
        {"a,b\n\"1,5\",\"say \"\"x\"\"\"\n", "a|b;1,5|say \"x\""},
        {"a,b\n\"1\n2\",3\n", "a|b;1\n2|3"},
        {"a,b\n,\n", "a|b;|"},
        {"a,b\n\"\",\"\"", "a|b;|"},
        {"a\n1", "a;1"},
        {"", ""},
        {"a,b\n1\n", "row 2 has 1 fields, the header has 2"},
        {"a,b\n1,2,3\n", "row 2 has 3 fields, the header has 2"},
        {"a,b\n\n1\n", "row 3 has 1 fields, the header has 2"},
        {"a,b\n\"1,2\n", "row 2: a quote is not closed"},
        {"a,b\n\"1\"x,2\n", "row 2, field 1: text behind the closing quote"},
        {"a,b\n1\"2,3\n", "row 2, field 1: a quote inside"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        nas_buf rows = {0};
        read_all(cases[i].text, &rows);
        cr_assert(eq(str, rows.data == NULL ? (char *)"" : rows.data, (char *)cases[i].rows),
                  "case %zu", i);
        nas_buf_deinit(&rows);
    }
}

Test(tools_csv, too_many_fields_are_refused) {
    nas_buf text = {0}, rows = {0};
    for (int i = 0; i <= NAS_CSV_COLUMNS_MAX; i++)
        nas_buf_puts(&text, ",");
    read_all(text.data, &rows);
    cr_assert(eq(str, rows.data, (char *)"row 1: more than 4096 fields"));
    nas_buf_deinit(&rows);
    nas_buf_deinit(&text);
}

Test(tools_csv, gzip_files_are_unpacked_and_damaged_ones_refused) {
    char path[] = "/tmp/nas-csv-XXXXXX";
    const int fd = mkstemp(path);
    cr_assert(fd >= 0);
    gzFile file = gzdopen(fd, "wb");
    for (int i = 0; i < 2000; i++)
        cr_assert(gzprintf(file, "row %d,%d\n", i, i * 7919 % 1009) > 0);
    cr_assert(eq(int, gzclose(file), Z_OK));
    nas_buf text = {0}, raw = {0};
    cr_assert(eq(int, (int)nas_read_maybe_gzip(ctx, path, 1 << 20, &text), NAS_OK), "%s",
              nas_ctx_message(ctx));
    cr_assert(ne(ptr, strstr(text.data, "row 1999,"), NULL));
    cr_assert(eq(int, (int)nas_read_maybe_gzip(ctx, path, 1000, &raw), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 1 << 20, &raw), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, raw.data, raw.len / 2, 0600), NAS_OK));
    nas_buf_deinit(&text);
    cr_assert(eq(int, (int)nas_read_maybe_gzip(ctx, path, 1 << 20, &text), (int)NAS_ERR_IO));
    cr_assert(
        eq(int, (int)nas_read_maybe_gzip(ctx, "/nonexistent", 9, &text), (int)NAS_ERR_NOTFOUND));
    (void)remove(path);
    nas_buf_deinit(&raw);
}
