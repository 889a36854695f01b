/* http.h - reading one HTTP/1.1 request head (RFC 9112) and one query string: pure functions over bytes.
 *
 * Stricter than the RFC asks: one spelling of everything, because the only clients are ours. Refused: bare CR or LF,
 * NUL and other control bytes, folded headers, Transfer-Encoding, a second Content-Length, targets outside
 * [A-Za-z0-9._,/?&=-], HTTP versions other than 1.1. Slices point into the input and are not NUL-terminated. */
#ifndef NAS_DEVICE_AGENT_HTTP_H
#define NAS_DEVICE_AGENT_HTTP_H

#include "core/core.h"

typedef struct nas__slice {
    const char *data;
    size_t len;
} nas__slice;

typedef enum nas__http_result {
    NAS__HTTP_MORE, /* a correct beginning: call again with more bytes */
    NAS__HTTP_OK,
    NAS__HTTP_BAD /* error_status and error say why; the connection cannot go on */
} nas__http_result;

typedef struct nas__http_request {
    nas__slice method;       /* upper-case letters */
    nas__slice target, path; /* path: target up to '?' */
    nas__slice query;        /* after '?', may be empty */
    size_t head_bytes;       /* with the empty line; the body begins there */
    bool has_length;
    uint64_t content_length; /* 0 when absent; not yet limited */
    bool keep_alive, expect_continue;
    nas__slice mac; /* X-Nas-Mac, empty when absent */
    bool has_counter;
    uint64_t counter; /* X-Nas-Counter */
    int error_status;
    const char *error; /* static text */
} nas__http_request;

/* nas__http_parse - looks for a complete head at the beginning of data; heads longer than NAS_AGENT_HEADER_MAX are
 * BAD with 413. */
nas__http_result nas__http_parse(const char *data, size_t len, nas__http_request *out);

/* nas__http_query_next - takes the next "key=value" off *query; false at its end. A pair without '=' has the value
 * {NULL, 0}. */
bool nas__http_query_next(nas__slice *query, nas__slice *key, nas__slice *value);

bool nas__slice_is(nas__slice slice, const char *text);
/* nas__slice_u64 - the whole slice as a decimal number <= max; false otherwise. */
bool nas__slice_u64(nas__slice slice, uint64_t max, uint64_t *out);
/* nas__slice_after - when slice begins with prefix, *rest is what follows. */
bool nas__slice_after(nas__slice slice, const char *prefix, nas__slice *rest);

#endif
