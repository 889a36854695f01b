#!/bin/sh
# check_symbols.sh - no function or object has the same name in two modules. The linker takes the first definition it
# meets in an archive and says nothing, so a call may land in another module's function.
# Usage: check_symbols.sh LIBRARY...
set -eu
doubles=$(nm -A --defined-only "$@" 2>/dev/null | awk '
    NF > 2 && $(NF - 1) ~ /^[TDBR]$/ {
        split($1, part, ":")
        if ($NF in home && home[$NF] != part[1]) print $NF ": " home[$NF] " and " part[1]
        home[$NF] = part[1]
    }')
[ -z "$doubles" ] && exit 0
echo "names defined in two modules:" >&2
echo "$doubles" >&2
exit 1
