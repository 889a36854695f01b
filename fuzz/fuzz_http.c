/* fuzz_http.c - libFuzzer target: any bytes as an HTTP request head, its query, and a program's JSON output. */
#include "device-agent/agent_internal.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Ends the process when a slice leaves the input: the sanitizer sees reads, this sees wrong arithmetic. */
static void inside(nas__slice slice, const char *data, size_t size) {
    if (slice.len == 0) return;
    if (slice.data < data || slice.data + slice.len > data + size) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const char *text = (const char *)data;
    nas__http_request r;
    nas__slice key, value;
    if (nas__http_parse(text, size, &r) == NAS__HTTP_OK) {
        if (r.head_bytes > size) abort();
        inside(r.method, text, size);
        inside(r.target, text, size);
        inside(r.path, text, size);
        inside(r.query, text, size);
        inside(r.mac, text, size);
        nas__run_options o = nas__run_options_default();
        while (nas__http_query_next(&r.query, &key, &value)) {
            inside(key, text, size);
            inside(value, text, size);
            (void)nas__run_option_add(&o, key, value);
        }
        (void)nas__run_options_check(&o);
        if (o.args.n > 2 * NAS__BENCH_OPTIONS) abort();
    }
    (void)nas__json_object_ok(text, size);
    return 0;
}
