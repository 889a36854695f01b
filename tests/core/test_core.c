/* test_core.c - status, buffers, JSON, random streams, hashes, files, processes, the parallel loop. */
#include "core/core.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static nas_ctx *ctx;

static void setup(void) {
    ctx = nas_ctx_new();
}

static void teardown(void) {
    nas_ctx_free(ctx);
}

TestSuite(core_core, .init = setup, .fini = teardown);

Test(core_core, wrap_puts_context_before_the_message) {
    cr_assert(
        eq(int, (int)nas_fail(ctx, NAS_ERR_RANGE, "width %d, limit %d", 9, 8), (int)NAS_ERR_RANGE));
    (void)nas_wrap(ctx, NAS_ERR_RANGE, "block %d", 3);
    cr_assert(eq(str, (char *)nas_ctx_message(ctx), "block 3: width 9, limit 8"));
}

Test(core_core, json_escapes_and_round_trips) {
    nas_buf buf = {0};
    nas_json j = nas_json_begin(&buf);
    nas_json_object(&j);
    nas_json_key(&j, "a\"b");
    nas_json_array(&j);
    nas_json_double(&j, 0.1);
    nas_json_double(&j, 1.0 / 0.0);
    nas_json_int(&j, -7);
    nas_json_array_end(&j);
    nas_json_key(&j, "t");
    nas_json_string(&j, "x\n\x01");
    nas_json_object_end(&j);
    cr_assert(eq(str, buf.data, "{\"a\\\"b\":[0.1,null,-7],\"t\":\"x\\n\\u0001\"}"));
    nas_buf_deinit(&buf);
}

Test(core_core, sha256_and_hmac_match_the_published_vectors) {
    char hex[NAS_SHA256_HEX];
    nas_sha256_hex("abc", 3, hex); /* FIPS 180-4 example */
    cr_assert(eq(str, hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    uint8_t mac[NAS_SHA256_BYTES];
    nas_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, mac); /* RFC 4231 case 2 */
    nas_hex(mac, sizeof mac, hex);
    cr_assert(eq(str, hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"));
}

Test(core_core, streams_differ_by_seed_trial_and_purpose) {
    nas_rng a = nas_rng_stream(1, 2, "x"), b = nas_rng_stream(1, 2, "x");
    const uint64_t first = nas_rng_u64(&a);
    cr_assert(eq(u64, first, nas_rng_u64(&b)));
    nas_rng others[] = {nas_rng_stream(2, 2, "x"), nas_rng_stream(1, 3, "x"),
                        nas_rng_stream(1, 2, "y")};
    for (size_t i = 0; i < 3; i++)
        cr_assert(ne(u64, first, nas_rng_u64(&others[i])));
    for (int i = 0; i < 1000; i++)
        cr_assert(nas_rng_below(&a, 7) < 7);
}

Test(core_core, file_write_is_atomic_and_reads_back) {
    char dir[] = "/tmp/nas-core-XXXXXX";
    cr_assert(ne(ptr, mkdtemp(dir), NULL));
    char path[128];
    (void)snprintf(path, sizeof path, "%s/a/b/c.txt", dir);
    char folder[128];
    (void)snprintf(folder, sizeof folder, "%s/a/b", dir);
    cr_assert(eq(int, (int)nas_mkdirs(ctx, folder), NAS_OK));
    cr_assert(eq(int, (int)nas_file_write(ctx, path, "hello", 5, 0600), NAS_OK));
    nas_buf buf = {0};
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 100, &buf), NAS_OK));
    cr_assert(eq(str, buf.data, "hello"));
    nas_buf_deinit(&buf);
    cr_assert(eq(int, (int)nas_file_read(ctx, path, 4, &buf), (int)NAS_ERR_RANGE));
    cr_assert(eq(int, (int)nas_remove_tree(ctx, dir), NAS_OK));
    cr_assert(not(nas_file_exists(dir)));
}

Test(core_core, process_gives_code_output_and_kills_at_the_deadline, .timeout = 20) {
    nas_process_options o = nas_process_options_default();
    o.argv = (const char *const[]){"sh", "-c", "echo out; echo err >&2; exit 3", NULL};
    nas_process_result r = {0};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), NAS_OK));
    cr_assert(eq(int, r.exit_code, 3));
    cr_assert(eq(str, r.out.data, "out\n"));
    cr_assert(eq(str, r.err.data, "err\n"));
    nas_process_result_deinit(&r);
    o.argv = (const char *const[]){"sleep", "60", NULL};
    o.timeout_ms = 100;
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), (int)NAS_ERR_TIMEOUT));
    o.argv = (const char *const[]){"/no/such/program", NULL};
    cr_assert(eq(int, (int)nas_process_run(ctx, &o, &r), (int)NAS_ERR_NOTFOUND));
}

static nas_status square(nas_ctx *c, void *arg, size_t index, int worker) {
    (void)worker;
    int *values = arg;
    if (values[index] < 0) return nas_fail(c, NAS_ERR_INVALID, "value %zu is negative", index);
    values[index] *= values[index];
    return NAS_OK;
}

/* Probes of the agent run without a context: a program that takes a while was what found it missing. */
Test(core_core, a_process_that_takes_its_time_needs_no_context, .timeout = 20) {
    nas_process_options o = nas_process_options_default();
    nas_process_result r = {0};
    o.argv = (const char *const[]){"sh", "-c", "sleep 0.05; echo out", NULL};
    cr_assert(eq(int, (int)nas_process_run(NULL, &o, &r), NAS_OK));
    cr_assert(eq(str, r.out.data, "out\n"));
    nas_process_result_deinit(&r);
}

Test(core_core, parallel_visits_all_and_reports_the_lowest_failure, .timeout = 20) {
    int values[100];
    for (int i = 0; i < 100; i++)
        values[i] = i;
    cr_assert(eq(int, (int)nas_parallel(ctx, 4, 100, square, values), NAS_OK));
    for (int i = 0; i < 100; i++)
        cr_assert(eq(int, values[i], i *i));
    values[5] = -1;
    cr_assert(eq(int, (int)nas_parallel(ctx, 4, 100, square, values), (int)NAS_ERR_INVALID));
    cr_assert(eq(str, (char *)nas_ctx_message(ctx), "value 5 is negative"));
}

Test(core_core, failed_allocations_are_reported_and_nothing_leaks) {
    const long before = nas_mem_live();
    for (long n = 1;; n++) {
        nas_mem_fail_after(n);
        nas_buf buf = {0};
        for (int i = 0; i < 50; i++)
            nas_buf_printf(&buf, "line %d\n", i);
        nas_mem_fail_after(0);
        const nas_status status = nas_buf_status(ctx, &buf);
        nas_buf_deinit(&buf);
        cr_assert(eq(i64, (int64_t)nas_mem_live(), (int64_t)before));
        if (status == NAS_OK) break;
        cr_assert(eq(int, (int)status, (int)NAS_ERR_NOMEM));
    }
}
