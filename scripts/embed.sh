#!/bin/sh
# embed.sh FILE... - C initialisers for the runtime files that travel inside the compiler, on stdout:
#   EMBED_FILE("name", "escaped text")
# One string literal a line of the file, so that the generated text stays readable.
set -eu
for file in "$@"; do
    printf 'EMBED_FILE("%s",\n' "$(basename "$file")"
    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/^/    "/' -e 's/$/\\n"/' "$file"
    printf ')\n'
done
