/* config_toml.h - the C face of the TOML parser: a document comes out as a stream of typed key paths with positions.
 *
 * Used by config_document.c only; the other side is config_toml.cc, the one C++ file. Standard types alone, so that
 * both languages read this header.
 *
 * Paths: components joined by '.', elements of an array of tables as "device[0]". A component that is not a bare TOML
 * key ([A-Za-z0-9_-]+) is written in double quotes with backslashes before '"' and '\\', so that the key "a.b" never
 * looks like the path a.b.
 * Order: every table before its content; an array of scalars is one value with items. */
#ifndef NAS_SEARCH_CONFIG_TOML_H
#define NAS_SEARCH_CONFIG_TOML_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum nas__toml_type {
    NAS__TOML_TEXT,
    NAS__TOML_INTEGER,
    NAS__TOML_NUMBER,
    NAS__TOML_FLAG,
    NAS__TOML_LIST, /* of scalars; nested lists and tables inside appear as items without content */
    NAS__TOML_TABLE, /* announces a section or one element of an array of tables */
    NAS__TOML_DATE   /* any date or time: nothing here takes one */
} nas__toml_type;

typedef struct nas__toml_value {
    nas__toml_type type;
    const char *text; /* TEXT: `text_len` bytes and a NUL; may hold NULs inside */
    size_t text_len;
    int64_t integer;
    double number; /* NUMBER, and INTEGER converted */
    bool flag;
    const struct nas__toml_value *items; /* LIST */
    size_t n_items;
    int32_t line, column; /* of the value, from 1 */
} nas__toml_value;

/* nas__toml_visit - one value; everything pointed to lives until the callback returns. Non-zero stops the walk. */
typedef int (*nas__toml_visit)(void *user, const char *path, int32_t key_line, int32_t key_column,
                               const nas__toml_value *value);

typedef enum nas__toml_result {
    NAS__TOML_OK,
    NAS__TOML_SYNTAX,    /* `error` says what and where */
    NAS__TOML_STOPPED,   /* by the callback */
    NAS__TOML_NO_MEMORY, /* of the C++ side */
    NAS__TOML_BROKEN     /* the parser failed in a way it should not; `error` has its words */
} nas__toml_result;

typedef struct nas__toml_error {
    char text[256];
    int32_t line, column;
} nas__toml_error;

/* nas__toml_parse - parses `len` bytes of UTF-8 TOML 1.0 and calls `visit` for every key. No exception leaves it. */
nas__toml_result nas__toml_parse(const char *text, size_t len, nas__toml_visit visit, void *user,
                                 nas__toml_error *error);

#ifdef __cplusplus
}
#endif

#endif
