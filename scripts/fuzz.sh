#!/bin/sh
# fuzz.sh - builds every fuzz/fuzz_*.c with clang's libFuzzer, AddressSanitizer and UndefinedBehaviorSanitizer and runs
# each for FUZZ_SECONDS (default 20). A find stops with the input's path; add it to fuzz/corpus/<target>/ with the fix.
# needs: apt-get install clang libclang-rt-14-dev
set -eu
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-20}
out=build/fuzz
command -v clang >/dev/null 2>&1 || { echo 'fuzz: clang is missing (apt-get install clang libclang-rt-14-dev)' >&2; exit 1; }
mkdir -p "$out"
make --no-print-directory CC=clang CXX=clang++ BUILD="$out" MODE=asan \
    CFLAGS='-fsanitize=fuzzer-no-link,undefined -fno-sanitize-recover=undefined' \
    CXXFLAGS='-fsanitize=fuzzer-no-link,undefined -fno-sanitize-recover=undefined' fuzz-targets
for source in fuzz/fuzz_*.c; do
    name=$(basename "$source" .c)
    mkdir -p "$out/corpus/$name" "fuzz/corpus/$name"
    echo "== $name ($seconds s)"
    "$out/asan/fuzz/$name" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$out/$name-" "$out/corpus/$name" "fuzz/corpus/$name" 2>"$out/$name.log" ||
        { tail -40 "$out/$name.log"; exit 1; }
    grep -E 'number_of_executed_units|average_exec_per_sec' "$out/$name.log" || true
done
echo 'fuzz: no finds'
