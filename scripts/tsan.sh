#!/bin/sh
# tsan.sh BIN [CC]: what has threads, under ThreadSanitizer. Criterion's sandboxes do not start under it, so whole programs run
# instead: a study on two agents that share a queue (one thread a device, heartbeats, parallel training and building), and
# a compiled network that divides its work among three threads. BIN holds the programs of MODE=tsan.
set -eu
bin=$1 cc=${2:-cc}
dir=$(mktemp -d /tmp/nas-tsan-XXXXXX)
one='' two=''
# shellcheck disable=SC2086 # no agent, no argument
trap '[ -z "$one$two" ] || kill $one $two; rm -rf "$dir"' EXIT
# Agents and parents of candidates fork while other threads live, on purpose: they exec at once.
export TSAN_OPTIONS="die_after_fork=0 exitcode=66 ${TSAN_OPTIONS:-}"

say() { echo "tsan: $*"; }

serve() { # NAME
    "$bin/nas-agent" keygen "$dir/$1.key" >"$dir/$1.log"
    "$bin/nas-agent" serve --key-file "$dir/$1.key" --listen 127.0.0.1:0 --cache-dir "$dir/$1.cache" >"$dir/$1.out" 2>>"$dir/$1.log" &
}

address() { # NAME
    tries=0
    while ! grep -q listening "$dir/$1.out"; do
        tries=$((tries + 1))
        [ "$tries" -lt 40 ] || { cat "$dir/$1.log" >&2; exit 1; }
        sleep 0.25
    done
    sed -n 's/^nas-agent listening \([^ ]*\).*/\1/p' "$dir/$1.out"
}

say "a study on a pool of two agents"
serve a && one=$!
serve b && two=$!
sed -n '1,/^\[compile\]/p' configs/two-devices.toml |
    sed 's/@desk/@pool/; s/, "latency_p50_ms@board"//; /@board/d' >"$dir/study.toml"
cat >>"$dir/study.toml" <<EOF
target = "native"
cache_dir = "$dir/cache"
[[device]]
name = "a"
pool = "pool"
connect = "http://$(address a)"
key_file = "$dir/a.key"
threads = 2
[[device]]
name = "b"
pool = "pool"
connect = "http://$(address b)"
key_file = "$dir/b.key"
threads = 2
EOF
"$bin/nas-search" --config "$dir/study.toml" --set study.dir="$dir/study" --set measure.min_time_ms=20 --set measure.max_time_ms=60 \
    >"$dir/study.txt" 2>"$dir/study.err" || { tail -40 "$dir/study.err" >&2; exit 1; }
tail -4 "$dir/study.txt"
kill "$one" "$two"
for agent in a b; do
    if grep -q 'WARNING: ThreadSanitizer' "$dir/$agent.log"; then cat "$dir/$agent.log" >&2; exit 1; fi
done
one='' two=''

say "a network on three threads"
"$bin/nas-compile" "$dir/study/best/model.onnx" --emit c --threads 3 -o "$dir/app" >/dev/null
"$cc" -std=c99 -O1 -g -fsanitize=thread -march=native -I"$dir/app" "$dir"/app/*.c -lm -lpthread -o "$dir/app/example"
head -c 46080 /dev/zero >"$dir/in" # one image of 80x48, 3 channels of floats
for _ in 1 2 3; do "$dir/app/example" "$dir/in" "$dir/out" >/dev/null; done
say "clean"
