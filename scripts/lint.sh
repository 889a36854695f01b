#!/bin/sh
# lint.sh - formatter in check mode, include layers, banned calls, static analysis. Exit status 1 on any finding.
# A tool that is not installed is an error, not a pass: apt-get install clang-format cppcheck shellcheck
set -u
cd "$(dirname "$0")/.." || exit 1
failed=0
complain() {
    echo "lint: $1" >&2
    failed=1
}
for tool in clang-format cppcheck shellcheck; do
    command -v "$tool" >/dev/null 2>&1 || { echo "lint: $tool is missing (apt-get install $tool)" >&2; exit 1; }
done

sources=$(git ls-files -c -o --exclude-standard '*.c' '*.h' | grep -v '/golden/')

# shellcheck disable=SC2086 # a list of files
clang-format --dry-run -Werror $sources 2>/tmp/nas-lint.$$ || { head -20 /tmp/nas-lint.$$; complain "run 'make fmt'"; }
rm -f /tmp/nas-lint.$$

# ---- layers: which project folders each folder may include (style: includes go down, never up or sideways) ----------
allowed() {
    case "$1" in
    core) echo 'core' ;;
    ir) echo 'ir core' ;;
    db) echo 'db core' ;;
    device-agent) echo 'device-agent core' ;;
    adb) echo 'adb device-agent/protocol.h core' ;;
    spaces) echo 'spaces ir core' ;;
    compress) echo 'compress ir core' ;;
    compiler) echo 'compiler ir core' ;;
    eval) echo 'eval ir core' ;;
    latency) echo 'latency adb device-agent/protocol.h ir core' ;;
    search/strategies) echo 'search/strategies spaces ir core' ;;
    search) echo 'search spaces compress compiler eval latency db ir core device-agent/protocol.h' ;;
    tools) echo 'compiler latency spaces db adb device-agent/agent_main.h device-agent/protocol.h ir core tools' ;;
    *) echo '*' ;;
    esac
}
for file in $sources; do
    folder=$(dirname "$file")
    case "$folder" in
    tests/* | bench | fuzz | compiler/rt) continue ;;
    esac
    includes=$(sed -n 's/^#include "\(.*\)".*/\1/p' "$file")
    for include in $includes; do
        case "$include" in
        */*) ;;
        *) continue ;; # generated files
        esac
        ok=''
        for prefix in $(allowed "$folder"); do
            case "$include" in
            "$prefix" | "$prefix"/*) ok=1 ;;
            esac
        done
        [ -n "$ok" ] || complain "$file: includes \"$include\" across the layers"
        case "$include" in
        *_internal.h) [ "$(dirname "$include")" = "$folder" ] || complain "$file: $include never leaves its folder" ;;
        esac
    done
done

# ---- third-party headers stay with their owner -------------------------------------------------------------------------
owner() { # pattern, folder
    # shellcheck disable=SC2086
    users=$(grep -lE "^#include <($1)" $sources)
    for file in $users; do
        case "$file" in
        "$2"/* | tests/* | bench/* | fuzz/*) ;;
        *) complain "$file: <$1> belongs to $2/" ;;
        esac
    done
}
owner 'sqlite3' db
owner 'curl/' latency
owner 'png|jpeglib' eval
owner 'cblas|lapacke' compress

# ---- banned calls --------------------------------------------------------------------------------------------------------
# shellcheck disable=SC2086
banned=$(grep -nE '(^|[^a-zA-Z0-9_.>])(sprintf|vsprintf|strcpy|strcat|gets|atoi|atol|atof|strtok|rand|srand|system|popen)[ ]*\(' \
    $sources | grep -vE '^(compiler/rt/|tests/)|^[^:]*:[0-9]*: *(\*|//|/\*)')
[ -z "$banned" ] || { echo "$banned"; complain 'banned calls'; }
# shellcheck disable=SC2086
heap=$(grep -nE '(^|[^a-zA-Z0-9_])(malloc|calloc|realloc|free)[ ]*\(' $sources |
    grep -vE '^(core/mem\.c|compiler/rt/|tests/|fuzz/|bench/)|^[^:]*:[0-9]*: *(\*|//|/\*)|_free\(|own memory|"')
[ -z "$heap" ] || { echo "$heap"; complain 'malloc and friends belong to core/mem.c'; }
# shellcheck disable=SC2086
exits=$(grep -nE '(^|[^a-zA-Z0-9_])(exit|abort)[ ]*\(' $sources |
    grep -vE '^(search/nas_search\.c|device-agent/nas_agent\.c|tools/nas_query\.c|tools/nas_latency\.c|compiler/rt/|tests/|fuzz/|bench/)|^[^:]*:[0-9]*: *(\*|//|/\*)|"')
[ -z "$exits" ] || { echo "$exits"; complain 'exit and abort belong to main'; }

checked=$(echo "$sources" | grep -E '\.c$' | grep -vE '^(tests|fuzz)/')
# shellcheck disable=SC2086
cppcheck --quiet --std=c11 --error-exitcode=1 --inline-suppr --enable=warning,portability \
    --suppress=missingIncludeSystem --suppress=unknownMacro --suppress=preprocessorErrorDirective \
    --suppress='memleak:compiler/rt/example.c' --suppress='uninitvar:bench/*' -I. \
    $checked || complain 'cppcheck'
shellcheck scripts/*.sh .ci/run || complain 'shellcheck'

[ "$failed" -eq 0 ] && echo 'lint: clean'
exit "$failed"
