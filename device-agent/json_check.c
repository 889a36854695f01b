/* json_check.c - is a program's output one well-formed JSON object? The agent embeds it in its own answer, so nothing
 * else may pass. Recursion is bounded by NAS__JSON_DEPTH_MAX. */
#include "device-agent/agent_internal.h"

#include <string.h>

typedef struct cursor {
    const char *at, *end;
} cursor;

static bool value(cursor *c, int depth);

static void space(cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

static bool take(cursor *c, char wanted) {
    if (c->at == c->end || *c->at != wanted) return false;
    c->at++;
    return true;
}

static bool word(cursor *c, const char *text) {
    const size_t n = strlen(text);
    if ((size_t)(c->end - c->at) < n || memcmp(c->at, text, n) != 0) return false;
    c->at += n;
    return true;
}

static bool digits(cursor *c) {
    const char *start = c->at;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9')
        c->at++;
    return c->at > start;
}

static bool number(cursor *c) {
    (void)take(c, '-');
    const char *start = c->at;
    if (!digits(c) || (*start == '0' && c->at - start > 1)) return false;
    if (take(c, '.') && !digits(c)) return false;
    if (take(c, 'e') || take(c, 'E')) {
        if (!take(c, '+')) (void)take(c, '-');
        return digits(c);
    }
    return true;
}

/* One UTF-8 sequence of two to four bytes; overlong forms and surrogates are refused. */
static bool utf8(cursor *c) {
    const unsigned char lead = (unsigned char)*c->at;
    const int n = lead >= 0xc2 && lead <= 0xdf   ? 1
                  : lead >= 0xe0 && lead <= 0xef ? 2
                  : lead >= 0xf0 && lead <= 0xf4 ? 3
                                                 : 0;
    if (n == 0 || c->end - c->at <= n) return false;
    uint32_t code = lead & (0x3fu >> n);
    for (int i = 1; i <= n; i++) {
        const unsigned char u = (unsigned char)c->at[i];
        if ((u & 0xc0) != 0x80) return false;
        code = code << 6 | (u & 0x3fu);
    }
    static const uint32_t least[] = {0, 0x80, 0x800, 0x10000};
    c->at += n + 1;
    return code >= least[n] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
}

static bool escape(cursor *c) {
    if (c->at == c->end) return false;
    const char e = *c->at++;
    if (e != 'u') return e != '\0' && strchr("\"\\/bfnrt", e) != NULL;
    for (int i = 0; i < 4; i++, c->at++) {
        if (c->at == c->end || *c->at == '\0' || strchr("0123456789abcdefABCDEF", *c->at) == NULL)
            return false;
    }
    return true;
}

static bool string(cursor *c) {
    if (!take(c, '"')) return false;
    while (c->at < c->end) {
        const unsigned char u = (unsigned char)*c->at;
        if (u >= 0x80) {
            if (!utf8(c)) return false;
            continue;
        }
        c->at++;
        if (u == '"') return true;
        if (u < 0x20 || (u == '\\' && !escape(c))) return false;
    }
    return false;
}

/* Elements up to `close`; with `keys`, each begins with a string and a colon. The opening bracket is taken. */
static bool elements(cursor *c, char close, bool keys, int depth) {
    space(c);
    if (take(c, close)) return true;
    for (;;) {
        space(c);
        if (keys && !string(c)) return false;
        if (keys) space(c);
        if (keys && !take(c, ':')) return false;
        if (!value(c, depth + 1)) return false;
        space(c);
        if (take(c, close)) return true;
        if (!take(c, ',')) return false;
    }
}

static bool value(cursor *c, int depth) {
    if (depth > NAS__JSON_DEPTH_MAX) return false;
    space(c);
    if (c->at == c->end) return false;
    switch (*c->at) {
    case '{': c->at++; return elements(c, '}', true, depth);
    case '[': c->at++; return elements(c, ']', false, depth);
    case '"': return string(c);
    case 't': return word(c, "true");
    case 'f': return word(c, "false");
    case 'n': return word(c, "null");
    default: return number(c);
    }
}

bool nas__json_object_ok(const char *text, size_t len) {
    if (len == 0) return false;
    cursor c = {text, text + len};
    space(&c);
    if (c.at == c.end || *c.at != '{' || !value(&c, 1)) return false;
    space(&c);
    return c.at == c.end;
}
