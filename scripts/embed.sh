#!/bin/sh
# embed.sh FILE... - C tables of the runtime files that travel inside the compiler, on stdout:
#   EMBED_FILE(symbol, "name", byte, byte, ..., 0)
# Byte arrays, because standard C need not accept string literals of more than 4095 characters.
set -eu
for file in "$@"; do
    name=$(basename "$file")
    printf 'EMBED_FILE(file_%s, "%s",\n' "$(printf '%s' "$name" | tr -c 'A-Za-z0-9' '_')" "$name"
    od -An -v -tu1 "$file" | sed -e 's/^ *//' -e 's/  */,/g' -e 's/$/,/'
    printf '0)\n'
done
