/* rt_embed.c - the files of compiler/rt/ as text, so that emitted programs need nothing but a C compiler.
 * The table is generated from the files by scripts/embed.sh; each text is a byte array ending in NUL. */
#include "compiler/compiler_internal.h"

#include <string.h>

#define EMBED_FILE(symbol, name, ...) static const unsigned char symbol[] = {__VA_ARGS__};
#include "rt_embed.inc"
#undef EMBED_FILE

#define EMBED_FILE(symbol, name, ...) {name, symbol},
static const struct {
    const char *name;
    const unsigned char *text;
} files[] = {
#include "rt_embed.inc"
};
#undef EMBED_FILE

const char *nas__rt_file(const char *name) {
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        if (strcmp(files[i].name, name) == 0) return (const char *)files[i].text;
    }
    return NULL;
}
