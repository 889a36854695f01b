/* test_http.c - the request head parser: what passes, what is refused, and that no byte string breaks it. */
#include "device-agent/http.h"
#include "device-agent/protocol.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char good[] =
    "POST /v1/run?blob=ab&cpus=0,1&flag HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:  12 \r\n"
    "X-Nas-Counter: 18446744073709551615\r\nX-Nas-Mac: abc\r\nConnection: Close\r\n\r\n";

/* Parses from memory of exactly this size, so that the sanitizer sees the first byte too far. */
static nas__http_result parse(const char *data, size_t len, nas__http_request *r) {
    char *exact = nas_alloc_array(NULL, len, 1);
    memcpy(exact, data, len);
    const nas__http_result result = nas__http_parse(exact, len, r);
    nas_free(exact);
    return result;
}

Test(device_agent_http, reads_every_part_of_a_head) {
    nas__http_request r;
    cr_assert(eq(int, (int)nas__http_parse(good, sizeof good - 1, &r), (int)NAS__HTTP_OK));
    cr_assert(nas__slice_is(r.method, "POST"));
    cr_assert(nas__slice_is(r.path, "/v1/run"));
    cr_assert(nas__slice_is(r.query, "blob=ab&cpus=0,1&flag"));
    cr_assert(eq(u64, r.content_length, (uint64_t)12));
    cr_assert(eq(u64, r.counter, UINT64_MAX));
    cr_assert(nas__slice_is(r.mac, "abc"));
    cr_assert(not(r.keep_alive));
    cr_assert(eq(sz, r.head_bytes, sizeof good - 1));
    nas__slice key, value;
    cr_assert(nas__http_query_next(&r.query, &key, &value));
    cr_assert(nas__slice_is(key, "blob") && nas__slice_is(value, "ab"));
    cr_assert(nas__http_query_next(&r.query, &key, &value));
    cr_assert(nas__slice_is(key, "cpus") && nas__slice_is(value, "0,1"));
    cr_assert(nas__http_query_next(&r.query, &key, &value));
    cr_assert(nas__slice_is(key, "flag") && value.data == NULL);
    cr_assert(not(nas__http_query_next(&r.query, &key, &value)));
}

Test(device_agent_http, every_proper_prefix_asks_for_more) {
    nas__http_request r;
    for (size_t n = 0; n < sizeof good - 1; n++) {
        cr_assert(eq(int, (int)parse(good, n, &r), (int)NAS__HTTP_MORE), "prefix of %zu bytes", n);
    }
}

Test(device_agent_http, malformed_heads_are_refused_with_their_status) {
    static const struct {
        const char *name, *head;
        int status;
    } rows[] = {
        {"no target", "GET\r\n\r\n", 400},
        {"lower-case method", "get / HTTP/1.1\r\n\r\n", 400},
        {"empty method", " / HTTP/1.1\r\n\r\n", 400},
        {"old version", "GET / HTTP/1.0\r\n\r\n", 400},
        {"fourth word", "GET / HTTP/1.1 x\r\n\r\n", 400},
        {"percent escape", "GET /%2e HTTP/1.1\r\n\r\n", 400},
        {"absolute target", "GET http://x/ HTTP/1.1\r\n\r\n", 400},
        {"bare line feed", "GET / HTTP/1.1\n\n", 400},
        {"bare carriage return", "GET / HTTP/1.1\rX", 400},
        {"folded header", "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n", 400},
        {"blank before the colon", "GET / HTTP/1.1\r\nA : b\r\n\r\n", 400},
        {"header without colon", "GET / HTTP/1.1\r\nA\r\n\r\n", 400},
        {"two lengths", "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", 400},
        {"negative length", "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400},
        {"length of 2^64", "PUT / HTTP/1.1\r\nContent-Length: 18446744073709551616\r\n\r\n", 400},
        {"chunked", "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 411},
        {"counter is no number", "GET / HTTP/1.1\r\nX-Nas-Counter: 1x\r\n\r\n", 400},
        {"two macs", "GET / HTTP/1.1\r\nX-Nas-Mac: a\r\nX-Nas-Mac: b\r\n\r\n", 400},
        {"unknown expectation", "GET / HTTP/1.1\r\nExpect: miracles\r\n\r\n", 400},
    };
    nas__http_request r;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        cr_assert(eq(int, (int)parse(rows[i].head, strlen(rows[i].head), &r), (int)NAS__HTTP_BAD),
                  "%s", rows[i].name);
        cr_assert(eq(int, r.error_status, rows[i].status), "%s", rows[i].name);
    }
    cr_assert(eq(int, (int)parse("GET /\0 HTTP/1.1\r\n\r\n", 19, &r), (int)NAS__HTTP_BAD));
}

Test(device_agent_http, long_heads_end_with_413) {
    static char head[3 * NAS_AGENT_HEADER_MAX];
    nas__http_request r;
    memset(head, 'a', sizeof head);
    memcpy(head, "GET /", 5);
    cr_assert(
        eq(int, (int)nas__http_parse(head, NAS_AGENT_HEADER_MAX - 1, &r), (int)NAS__HTTP_MORE));
    cr_assert(eq(int, (int)nas__http_parse(head, NAS_AGENT_HEADER_MAX, &r), (int)NAS__HTTP_BAD));
    cr_assert(eq(int, r.error_status, 413));
    cr_assert(eq(int, (int)nas__http_parse(head, sizeof head, &r), (int)NAS__HTTP_BAD));
    cr_assert(eq(int, r.error_status, 413));
}

/* A head is OK only when its slices lie inside it; mutated heads must keep that or be refused. */
Test(device_agent_http, mutated_heads_never_leave_their_bytes, .timeout = 60) {
    const char *given = getenv("SEED");
    const uint64_t seed = given != NULL ? strtoull(given, NULL, 10) : 20240611;
    nas_rng rng = nas_rng_stream(seed, 0, "http");
    size_t accepted = 0, refused = 0;
    for (int round = 0; round < 20000; round++) {
        char data[sizeof good];
        size_t len = sizeof good - 1;
        memcpy(data, good, len);
        for (uint32_t k = nas_rng_below(&rng, 3); k < 3; k++) {
            const uint32_t at = nas_rng_below(&rng, (uint32_t)len);
            static const char bytes[] = "\r\n :?&=\0x9\x80";
            data[at] = bytes[nas_rng_below(&rng, sizeof bytes - 1)];
        }
        len = len - nas_rng_below(&rng, 4);
        nas__http_request r;
        const nas__http_result result = parse(data, len, &r);
        if (result == NAS__HTTP_BAD) refused++;
        if (result != NAS__HTTP_OK) continue;
        accepted++;
        cr_assert(r.head_bytes <= len && r.path.len <= r.target.len && r.target.len < len,
                  "SEED=%llu round %d", (unsigned long long)seed, round);
    }
    cr_assert(accepted > 100 && refused > 100, "SEED=%llu: %zu accepted, %zu refused",
              (unsigned long long)seed, accepted, refused);
}

Test(device_agent_http, numbers_are_bounded) {
    uint64_t v = 0;
    cr_assert(nas__slice_u64((nas__slice){"120000", 6}, 120000, &v) && v == 120000);
    cr_assert(not(nas__slice_u64((nas__slice){"120001", 6}, 120000, &v)));
    cr_assert(not(nas__slice_u64((nas__slice){"5", 1}, 4, &v)));
    cr_assert(not(nas__slice_u64((nas__slice){"", 0}, 9, &v)));
    cr_assert(not(nas__slice_u64((nas__slice){"+1", 2}, 9, &v)));
    cr_assert(nas__slice_u64((nas__slice){"0", 1}, 0, &v) && v == 0);
}
