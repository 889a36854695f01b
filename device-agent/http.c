/* http.c - the request head parser of http.h. No allocation, no state, no I/O: what the fuzzer gets is what the server
 * runs. */
#include "device-agent/http.h"
#include "device-agent/protocol.h"

#include <string.h>

bool nas__slice_is(nas__slice slice, const char *text) {
    return slice.len == strlen(text) && memcmp(slice.data, text, slice.len) == 0;
}

bool nas__slice_u64(nas__slice slice, uint64_t max, uint64_t *out) {
    uint64_t value = 0;
    if (slice.len == 0 || slice.len > 20) return false;
    for (size_t i = 0; i < slice.len; i++) {
        const char c = slice.data[i];
        if (c < '0' || c > '9') return false;
        const uint64_t digit = (uint64_t)(c - '0');
        if (value > (max - digit) / 10 || digit > max) return false;
        value = value * 10 + digit;
    }
    *out = value;
    return true;
}

bool nas__slice_after(nas__slice slice, const char *prefix, nas__slice *rest) {
    const size_t n = strlen(prefix);
    if (slice.len < n || memcmp(slice.data, prefix, n) != 0) return false;
    *rest = (nas__slice){slice.data + n, slice.len - n};
    return true;
}

bool nas__http_query_next(nas__slice *query, nas__slice *key, nas__slice *value) {
    if (query->len == 0) return false;
    const char *amp = memchr(query->data, '&', query->len);
    const size_t len = amp != NULL ? (size_t)(amp - query->data) : query->len;
    const char *equals = len > 0 ? memchr(query->data, '=', len) : NULL;
    *key = (nas__slice){query->data, equals != NULL ? (size_t)(equals - query->data) : len};
    *value = (nas__slice){NULL, 0};
    if (equals != NULL) *value = (nas__slice){equals + 1, len - key->len - 1};
    const size_t taken = amp != NULL ? len + 1 : len;
    *query = (nas__slice){query->data + taken, query->len - taken};
    return true;
}

static nas__http_result bad(nas__http_request *r, int status, const char *error) {
    r->error_status = status;
    r->error = error;
    return NAS__HTTP_BAD;
}

static char lower(char c) {
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Header names and keyword values compare without case; `text` is lower case. */
static bool same_word(nas__slice slice, const char *text) {
    if (slice.len != strlen(text)) return false;
    for (size_t i = 0; i < slice.len; i++) {
        if (lower(slice.data[i]) != text[i]) return false;
    }
    return true;
}

static bool is_alnum(char c) {
    return (c >= '0' && c <= '9') || (lower(c) >= 'a' && lower(c) <= 'z');
}

static bool target_ok(nas__slice target) {
    if (target.len == 0 || target.data[0] != '/') return false;
    for (size_t i = 0; i < target.len; i++) {
        const char c = target.data[i];
        if (c == '\0' || (!is_alnum(c) && strchr("._,/?&=-", c) == NULL)) return false;
    }
    return true;
}

/* "METHOD /target HTTP/1.1" */
static nas__http_result request_line(nas__slice line, nas__http_request *r) {
    const char *space = memchr(line.data, ' ', line.len);
    if (space == NULL || space == line.data)
        return bad(r, 400, "request line: need METHOD TARGET VERSION");
    r->method = (nas__slice){line.data, (size_t)(space - line.data)};
    for (size_t i = 0; i < r->method.len; i++) {
        if (r->method.data[i] < 'A' || r->method.data[i] > 'Z')
            return bad(r, 400, "method: need upper-case letters");
    }
    const nas__slice rest = {space + 1, line.len - r->method.len - 1};
    space = rest.len > 0 ? memchr(rest.data, ' ', rest.len) : NULL;
    if (space == NULL) return bad(r, 400, "request line: need METHOD TARGET VERSION");
    r->target = (nas__slice){rest.data, (size_t)(space - rest.data)};
    if (!target_ok(r->target))
        return bad(r, 400, "target: need /path?key=value of plain characters");
    const nas__slice version = {space + 1, rest.len - r->target.len - 1};
    if (!nas__slice_is(version, "HTTP/1.1")) return bad(r, 400, "version: need HTTP/1.1");
    const char *mark = memchr(r->target.data, '?', r->target.len);
    r->path = r->target;
    r->query = (nas__slice){r->target.data + r->target.len, 0};
    if (mark != NULL) {
        r->path.len = (size_t)(mark - r->target.data);
        r->query = (nas__slice){mark + 1, r->target.len - r->path.len - 1};
    }
    return NAS__HTTP_OK;
}

static nas__http_result header_line(nas__slice line, nas__http_request *r) {
    const char *colon = memchr(line.data, ':', line.len);
    if (colon == NULL || colon == line.data) return bad(r, 400, "header: need NAME: VALUE");
    const nas__slice name = {line.data, (size_t)(colon - line.data)};
    for (size_t i = 0; i < name.len; i++) {
        if (!is_alnum(name.data[i]) && name.data[i] != '-' && name.data[i] != '_') {
            return bad(r, 400, "header name: need letters, digits, '-', '_'");
        }
    }
    nas__slice value = {colon + 1, line.len - name.len - 1};
    while (value.len > 0 && (value.data[0] == ' ' || value.data[0] == '\t'))
        value.data++, value.len--;
    while (value.len > 0 && (value.data[value.len - 1] == ' ' || value.data[value.len - 1] == '\t'))
        value.len--;
    if (same_word(name, "content-length")) {
        if (r->has_length) return bad(r, 400, "Content-Length given twice");
        if (!nas__slice_u64(value, UINT64_MAX, &r->content_length))
            return bad(r, 400, "Content-Length: no number");
        r->has_length = true;
    } else if (same_word(name, "transfer-encoding")) {
        return bad(r, 411, "Transfer-Encoding is not supported: send Content-Length");
    } else if (same_word(name, "connection")) {
        r->keep_alive = !same_word(value, "close");
    } else if (same_word(name, "expect")) {
        if (!same_word(value, "100-continue"))
            return bad(r, 400, "Expect: only 100-continue is known");
        r->expect_continue = true;
    } else if (same_word(name, "x-nas-mac")) {
        if (r->mac.len > 0) return bad(r, 400, "X-Nas-Mac given twice");
        r->mac = value;
    } else if (same_word(name, "x-nas-counter")) {
        if (r->has_counter) return bad(r, 400, "X-Nas-Counter given twice");
        if (!nas__slice_u64(value, UINT64_MAX, &r->counter))
            return bad(r, 400, "X-Nas-Counter: no number");
        r->has_counter = true;
    }
    return NAS__HTTP_OK;
}

/* Takes one line that ends in CR LF off the input. MORE when its end has not come yet. */
static nas__http_result take_line(const char *data, size_t len, size_t *at, nas__slice *line,
                                  nas__http_request *r) {
    for (size_t i = *at; i < len; i++) {
        const unsigned char c = (unsigned char)data[i];
        if (c == '\r') {
            if (i + 1 == len) return NAS__HTTP_MORE;
            if (data[i + 1] != '\n') return bad(r, 400, "a line must end in CR LF");
            *line = (nas__slice){data + *at, i - *at};
            *at = i + 2;
            return NAS__HTTP_OK;
        }
        if ((c < 0x20 && c != '\t') || c == 0x7f)
            return bad(r, 400, "control byte in the request head");
    }
    return NAS__HTTP_MORE;
}

nas__http_result nas__http_parse(const char *data, size_t len, nas__http_request *out) {
    const bool cut = len > NAS_AGENT_HEADER_MAX;
    const size_t limit = cut ? NAS_AGENT_HEADER_MAX : len;
    nas__slice line = {NULL, 0};
    size_t at = 0;
    *out = (nas__http_request){.keep_alive = true};
    if (limit == 0) return NAS__HTTP_MORE;
    nas__http_result result = take_line(data, limit, &at, &line, out);
    if (result == NAS__HTTP_OK) result = request_line(line, out);
    while (result == NAS__HTTP_OK) {
        result = take_line(data, limit, &at, &line, out);
        if (result == NAS__HTTP_OK && line.len == 0) {
            out->head_bytes = at;
            return NAS__HTTP_OK;
        }
        if (result == NAS__HTTP_OK) result = header_line(line, out);
    }
    if (result == NAS__HTTP_MORE && (cut || len == NAS_AGENT_HEADER_MAX)) {
        return bad(out, 413, "request head larger than 8192 bytes");
    }
    return result;
}
