/* config_document.c - the TOML document as a list of entries with positions, the overrides on top of it, and the list
 * of problems found. Nothing here knows which keys exist. Hostile text is expected: every size is bounded by the
 * file's, and whatever is repeated in a message goes through nas__config_shown. */
#include "search/config_internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARENA_BLOCK_BYTES = 16 * 1024, SHOWN_BYTES_MAX = 60, OVERRIDE_BYTES_MAX = 16 * 1024 };

nas_status nas__config_doc_init(nas_ctx *ctx, const char *name, nas__config_doc *out) {
    *out = (nas__config_doc){.ctx = ctx, .name = name};
    out->arena = nas_arena_new(ctx, ARENA_BLOCK_BYTES);
    return out->arena == NULL ? NAS_ERR_NOMEM : NAS_OK;
}

void nas__config_doc_deinit(nas__config_doc *doc) {
    nas_free(doc->problems);
    nas_free(doc->entries);
    nas_arena_free(doc->arena);
    *doc = (nas__config_doc){0};
}

/* ---- problems -------------------------------------------------------------------------------------------------- */

const char *nas__config_shown(nas__config_doc *doc, const char *text) {
    char shown[SHOWN_BYTES_MAX + 16];
    size_t n = 0;
    const unsigned char *p = (const unsigned char *)text;
    while (*p != '\0' && n < SHOWN_BYTES_MAX) {
        if (*p < 0x20 || *p == 0x7f) {
            n += (size_t)snprintf(shown + n, sizeof shown - n, "\\x%02x", *p);
        } else {
            shown[n++] = (char)*p;
        }
        p++;
    }
    while (*p != '\0' && n > 0 && (*p & 0xc0) == 0x80) { /* never cut inside a UTF-8 character */
        p--;
        n--;
    }
    shown[n] = '\0';
    const char *copy =
        nas_arena_printf(doc->ctx, doc->arena, "%s%s", shown, *p == '\0' ? "" : "...");
    if (copy == NULL) doc->failed = true;
    return copy == NULL ? "" : copy;
}

void nas__config_problem_add(nas__config_doc *doc, nas__config_place place, const char *path,
                             const char *format, ...) {
    nas_buf text = {0};
    nas_buf_printf(&text, "%s%s", nas__config_shown(doc, path), path[0] == '\0' ? "" : ": ");
    va_list args;
    va_start(args, format);
    nas_buf_vprintf(&text, format, args);
    va_end(args);
    const char *kept = NULL;
    if (nas_buf_status(doc->ctx, &text) == NAS_OK) {
        kept = nas_arena_printf(doc->ctx, doc->arena, "%s", text.data);
    }
    nas_buf_deinit(&text);
    if (kept == NULL || nas_grow(doc->ctx, &doc->problems, &doc->cap_problems, doc->n_problems + 1,
                                 sizeof *doc->problems) != NAS_OK) {
        doc->failed = true;
        return;
    }
    doc->problems[doc->n_problems++] = (nas__config_problem){place, kept};
}

/* The file from top to bottom, then the command line; problems of one place keep their order by text. */
static int by_place(const void *a, const void *b) {
    const nas__config_problem *x = a, *y = b;
    if ((x->place.line == 0) != (y->place.line == 0)) return x->place.line == 0 ? 1 : -1;
    if (x->place.line != y->place.line) return x->place.line < y->place.line ? -1 : 1;
    if (x->place.column != y->place.column) return x->place.column < y->place.column ? -1 : 1;
    return strcmp(x->text, y->text);
}

void nas__config_problems_print(nas__config_doc *doc, nas_buf *out) {
    if (doc->n_problems == 0) return;
    qsort(doc->problems, doc->n_problems, sizeof *doc->problems, by_place);
    for (size_t i = 0; i < doc->n_problems && i < NAS__PROBLEMS_SHOWN_MAX; i++) {
        const nas__config_problem *p = &doc->problems[i];
        if (p->place.line == 0) {
            nas_buf_printf(out, "command line: %s\n", p->text);
        } else {
            nas_buf_printf(out, "%s:%" PRId32 ":%" PRId32 ": %s\n", doc->name, p->place.line,
                           p->place.column, p->text);
        }
    }
    if (doc->n_problems > NAS__PROBLEMS_SHOWN_MAX) {
        nas_buf_printf(out, "%s: %zu more problems\n", doc->name,
                       doc->n_problems - NAS__PROBLEMS_SHOWN_MAX);
    }
}

/* ---- entries --------------------------------------------------------------------------------------------------- */

static const nas__config_entry *find_entry(const nas__config_doc *doc, const char *path) {
    for (size_t i = doc->n_entries; i-- > 0;) {
        const nas__config_entry *e = &doc->entries[i];
        if (!e->dropped && strcmp(e->path, path) == 0) return e;
    }
    return NULL;
}

bool nas__config_has(const nas__config_doc *doc, const char *path) {
    return find_entry(doc, path) != NULL;
}

nas__config_place nas__config_place_of(const nas__config_doc *doc, const char *path) {
    const nas__config_entry *entry = find_entry(doc, path);
    const char *dot = strchr(path, '.');
    if (entry == NULL && dot != NULL) {
        char section[64];
        const size_t len = (size_t)(dot - path);
        if (len < sizeof section) {
            memcpy(section, path, len);
            section[len] = '\0';
            entry = find_entry(doc, section);
        }
    }
    return entry == NULL ? (nas__config_place){1, 1} : entry->key;
}

int32_t nas__config_doc_devices(const nas__config_doc *doc) {
    int32_t n = 0;
    for (size_t i = 0; i < doc->n_entries; i++) {
        const nas__config_entry *e = &doc->entries[i];
        const bool element = strncmp(e->path, "device[", 7) == 0 && strchr(e->path, '.') == NULL;
        if (element && e->value.type == NAS__TOML_TABLE) n++;
    }
    return n;
}

static char *copied(nas__config_doc *doc, const char *text, size_t len) {
    char *copy = nas_arena_alloc(doc->ctx, doc->arena, len + 1, 1);
    if (copy != NULL && len > 0) memcpy(copy, text, len);
    return copy;
}

/* Deep copy of what the parser lends for the duration of the callback. */
static nas_status copy_value(nas__config_doc *doc, const nas__toml_value *from,
                             nas__toml_value *to) {
    *to = *from;
    if (from->type == NAS__TOML_TEXT) {
        to->text = copied(doc, from->text, from->text_len);
        if (to->text == NULL) return NAS_ERR_NOMEM;
    }
    to->items = NULL;
    if (from->type != NAS__TOML_LIST || from->n_items == 0) return NAS_OK;
    nas__toml_value *items = nas_arena_alloc(doc->ctx, doc->arena, from->n_items, sizeof *items);
    if (items == NULL) return NAS_ERR_NOMEM;
    for (size_t i = 0; i < from->n_items; i++) {
        const nas_status status = copy_value(doc, &from->items[i], &items[i]);
        if (status != NAS_OK) return status;
    }
    to->items = items;
    return NAS_OK;
}

static nas_status add_entry(nas__config_doc *doc, const char *path, nas__config_place key,
                            const nas__toml_value *value) {
    nas__config_entry entry = {.path = copied(doc, path, strlen(path)), .key = key};
    nas_status status = entry.path == NULL ? NAS_ERR_NOMEM : copy_value(doc, value, &entry.value);
    if (status == NAS_OK) {
        status = nas_grow(doc->ctx, &doc->entries, &doc->cap_entries, doc->n_entries + 1,
                          sizeof *doc->entries);
    }
    if (status != NAS_OK) {
        doc->failed = true;
        return status;
    }
    doc->entries[doc->n_entries++] = entry;
    return NAS_OK;
}

static int visit_file(void *user, const char *path, int32_t key_line, int32_t key_column,
                      const nas__toml_value *value) {
    return add_entry(user, path, (nas__config_place){key_line, key_column}, value) == NAS_OK ? 0
                                                                                             : 1;
}

nas_status nas__config_doc_read(nas__config_doc *doc, const char *text, size_t len) {
    nas__toml_error error = {0};
    const nas__toml_result result = nas__toml_parse(text, len, visit_file, doc, &error);
    switch (result) {
    case NAS__TOML_OK: return NAS_OK;
    case NAS__TOML_STOPPED: return nas_ctx_status(doc->ctx);
    case NAS__TOML_NO_MEMORY:
        doc->failed = true;
        return nas_fail(doc->ctx, NAS_ERR_NOMEM, "%s: out of memory in the TOML parser", doc->name);
    case NAS__TOML_SYNTAX:
    case NAS__TOML_BROKEN: break;
    }
    const nas__config_place place = {error.line < 1 ? 1 : error.line,
                                     error.column < 1 ? 1 : error.column};
    char words[sizeof error.text * 4];
    size_t n = 0;
    for (const char *p = error.text; *p != '\0'; p++) { /* one line, no control bytes */
        words[n++] = (unsigned char)*p < 0x20 || *p == 0x7f ? ' ' : *p;
    }
    words[n] = '\0';
    nas__config_problem_add(doc, place, "", "not valid TOML: %s", words);
    return doc->failed ? NAS_ERR_NOMEM : NAS_ERR_PARSE;
}

/* ---- overrides ------------------------------------------------------------------------------------------------- */

typedef struct override_state {
    nas__config_doc *doc;
    nas__toml_value value; /* of the key "v" */
    bool found, is_table;
} override_state;

static int visit_override(void *user, const char *path, int32_t key_line, int32_t key_column,
                          const nas__toml_value *value) {
    (void)key_line;
    (void)key_column;
    override_state *state = user;
    if (path[0] != 'v') return 0; /* not reached: the text is one line "v = ..." */
    if (path[1] != '\0' || value->type == NAS__TOML_TABLE) {
        state->is_table = true;
        return 0;
    }
    state->found = true;
    if (copy_value(state->doc, value, &state->value) == NAS_OK) return 0;
    state->doc->failed = true;
    return 1;
}

static nas_status set_one(nas__config_doc *doc, const char *path, const nas__toml_value *value) {
    for (size_t i = 0; i < doc->n_entries; i++) {
        if (strcmp(doc->entries[i].path, path) == 0) doc->entries[i].dropped = true;
    }
    return add_entry(doc, path, (nas__config_place){0, 0}, value);
}

/* A metric with its device is one quoted key in a file; the command line need not quote it. */
static nas_status set_bound(nas__config_doc *doc, const char *path, const nas__toml_value *value) {
    const char *leaf = strchr(path, '.') + 1;
    if (leaf[0] == '"') return set_one(doc, path, value);
    const char *quoted = nas_arena_printf(doc->ctx, doc->arena, "constraints.\"%s\"", leaf);
    if (quoted == NULL) doc->failed = true;
    return quoted == NULL ? NAS_ERR_NOMEM : set_one(doc, quoted, value);
}

static nas_status announce_device(nas__config_doc *doc, int32_t index) {
    char path[32];
    (void)snprintf(path, sizeof path, "device[%" PRId32 "]", index);
    const nas__toml_value table = {.type = NAS__TOML_TABLE};
    return add_entry(doc, path, (nas__config_place){0, 0}, &table);
}

/* "device.threads" is meant for every device; "device[1].threads" for one, the next free index adds a device. */
static nas_status set_device(nas__config_doc *doc, const char *path, const nas__toml_value *value) {
    const int32_t n = nas__config_doc_devices(doc);
    if (path[6] == '[') {
        char *end = NULL;
        const long index = strtol(path + 7, &end, 10);
        if (end == path + 7 || strncmp(end, "].", 2) != 0 || index < 0 || index > n ||
            index >= NAS_DEVICES_MAX) {
            nas__config_problem_add(
                doc, (nas__config_place){0, 0}, path,
                "no such device: write device[0]. to device[%d]., or device. for all",
                n < NAS_DEVICES_MAX ? (int)n : NAS_DEVICES_MAX - 1);
            return doc->failed ? NAS_ERR_NOMEM : NAS_OK;
        }
        const nas_status status = index == n ? announce_device(doc, n) : NAS_OK;
        if (status != NAS_OK) return status;
        char exact[128];
        (void)snprintf(exact, sizeof exact, "device[%ld].%.64s", index, end + 2);
        return set_one(doc, exact, value);
    }
    nas_status status = n == 0 ? announce_device(doc, 0) : NAS_OK;
    for (int32_t i = 0; i < (n == 0 ? 1 : n) && status == NAS_OK; i++) {
        char exact[128];
        (void)snprintf(exact, sizeof exact, "device[%" PRId32 "].%.64s", i, path + 7);
        status = set_one(doc, exact, value);
    }
    return status;
}

static bool is_path(const char *path) {
    if (path[0] == '\0' || strlen(path) > 100) return false;
    return strspn(path, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.[]@\"") ==
           strlen(path);
}

/* Not TOML, but plainly meant as text: no quote or bracket was opened. */
static bool is_bare_word(const char *value) {
    return value[0] != '\0' && strchr("\"'[{", value[0]) == NULL;
}

static nas_status read_override_value(nas__config_doc *doc, const char *path, const char *value,
                                      nas__toml_value *out) {
    const char *line = nas_arena_printf(doc->ctx, doc->arena, "v = %s\n", value);
    if (line == NULL) return NAS_ERR_NOMEM;
    override_state state = {.doc = doc};
    nas__toml_error error = {0};
    const nas__toml_result result =
        nas__toml_parse(line, strlen(line), visit_override, &state, &error);
    if (doc->failed) return NAS_ERR_NOMEM;
    if (result == NAS__TOML_NO_MEMORY) {
        doc->failed = true;
        return nas_fail(doc->ctx, NAS_ERR_NOMEM, "--set %s: out of memory in the TOML parser",
                        path);
    }
    if (result == NAS__TOML_OK && state.is_table) {
        nas__config_problem_add(doc, (nas__config_place){0, 0}, path,
                                "one override sets one key, not a table");
        return doc->failed ? NAS_ERR_NOMEM : NAS_ERR_PARSE;
    }
    if (result == NAS__TOML_OK && state.found) {
        *out = state.value;
        return NAS_OK;
    }
    if (!is_bare_word(value)) {
        nas__config_problem_add(doc, (nas__config_place){0, 0}, path, "'%s' is not a TOML value",
                                nas__config_shown(doc, value));
        return doc->failed ? NAS_ERR_NOMEM : NAS_ERR_PARSE;
    }
    *out = (nas__toml_value){.type = NAS__TOML_TEXT, .text = value, .text_len = strlen(value)};
    return NAS_OK;
}

/* Splits "key = value" in place; false when it has no key. */
static bool split_assignment(char *text, char **path, char **value) {
    char *equals = strchr(text, '=');
    if (equals == NULL) return false;
    *equals = '\0';
    *path = text + strspn(text, " \t");
    (*path)[strcspn(*path, " \t")] = '\0';
    *value = equals + 1 + strspn(equals + 1, " \t");
    size_t len = strlen(*value);
    while (len > 0 && ((*value)[len - 1] == ' ' || (*value)[len - 1] == '\t'))
        (*value)[--len] = '\0';
    return is_path(*path);
}

/* Length of the UTF-8 character at p (RFC 3629; surrogates and overlong forms refused), 0 when there is none. */
static size_t utf8_length(const unsigned char *p) {
    static const struct {
        unsigned char first_lo, first_hi, second_lo, second_hi;
        size_t length;
    } forms[] = {
        {0x01, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        if (p[0] < forms[i].first_lo || p[0] > forms[i].first_hi) continue;
        for (size_t k = 1; k < forms[i].length; k++) {
            const unsigned char lo = k == 1 ? forms[i].second_lo : 0x80;
            const unsigned char hi = k == 1 ? forms[i].second_hi : 0xbf;
            if (p[k] < lo || p[k] > hi) return 0;
        }
        return forms[i].length;
    }
    return 0;
}

/* One line of UTF-8: what a TOML file could hold. */
static bool is_line(const char *text) {
    const unsigned char *p = (const unsigned char *)text;
    while (*p != '\0') {
        const size_t length = utf8_length(p);
        if (length == 0 || (*p < 0x20 && *p != '\t') || *p == 0x7f) return false;
        p += length;
    }
    return true;
}

nas_status nas__config_doc_override(nas__config_doc *doc, const char *assignment) {
    const nas__config_place place = {0, 0};
    if (strlen(assignment) > OVERRIDE_BYTES_MAX || !is_line(assignment)) {
        nas__config_problem_add(doc, place, "--set",
                                "an override is one line of UTF-8, at most %d bytes",
                                OVERRIDE_BYTES_MAX);
        return doc->failed ? NAS_ERR_NOMEM : NAS_OK;
    }
    char *text = copied(doc, assignment, strlen(assignment));
    if (text == NULL) {
        doc->failed = true;
        return NAS_ERR_NOMEM;
    }
    char *path = NULL, *value = NULL;
    if (!split_assignment(text, &path, &value)) {
        nas__config_problem_add(doc, place, assignment, "not an override: write section.key=value");
        return doc->failed ? NAS_ERR_NOMEM : NAS_OK;
    }
    nas__toml_value parsed = {0};
    const nas_status status = read_override_value(doc, path, value, &parsed);
    if (status == NAS_ERR_PARSE) return NAS_OK; /* recorded; the rest is still looked at */
    if (status != NAS_OK) {
        doc->failed = true;
        return status;
    }
    if (strncmp(path, "device.", 7) == 0 || strncmp(path, "device[", 7) == 0) {
        return set_device(doc, path, &parsed);
    }
    if (strncmp(path, "constraints.", 12) == 0 && strchr(path, '@') != NULL) {
        return set_bound(doc, path, &parsed);
    }
    return set_one(doc, path, &parsed);
}
