#!/bin/sh
# search.sh - device-seconds that a search needs to reach a hypervolume: with the predictor, without it, and by chance.
#
#   bench/search.sh run DIR [SEED...]   trains one supernet, then three studies a seed on this machine, in DIR; what is
#                                       finished is not done again and an interrupted study is resumed; WAYS: which
#   bench/search.sh table DIR           the table, from the databases alone
#
# The job is configs/sr720p.toml (its space, its frames, its deadline, its strategy, its device) with less training: the
# supernet gets STEPS steps and no network of the front is fine-tuned. All studies share the supernet. ARGS: further
# options of nas-search, such as "--set device.connect=simulated".
#
# Hypervolume: (psnr_y above the smallest network's) x (latency_p50 below the deadline), of the networks within the
# deadline, in dB ms. A network counts from the moment its measurement was taken. Device-seconds: the time the device
# spent timing candidates and drift references, repeats included; not compiling, which the host does.
set -eu
BIN=${BIN:-build/release/bin}
STEPS=${STEPS:-500}
TRIALS=${TRIALS:-48}
DEADLINE=33
WAYS=${WAYS:-predictor none random}

die() {
    echo "search.sh: $*" >&2
    exit 2
}
[ $# -ge 2 ] || die "usage: bench/search.sh run|table DIR [SEED...]"
what=$1
dir=$2
shift 2

study() { # folder, further options
    out=$1
    shift
    # shellcheck disable=SC2086 # ARGS is a list
    "$BIN/nas-search" --config configs/sr720p.toml --set study.dir="$out" --set eval.supernet_steps="$STEPS" \
        --set eval.baseline_steps=0 --set eval.finetune_max=0 --set eval.winner_steps=0 --set budget.time_s=0 \
        --set data.leaves_size=192 --set data.leaves_select=4 --set measure.min_time_ms=100 \
        --set measure.max_time_ms=600 -q -f csv "$@" ${ARGS:-} > "$out.csv.new" || [ $? -eq 3 ]
    mv "$out.csv.new" "$out.csv"
}

finished() { [ -f "$1.csv" ]; }

run() {
    mkdir -p "$dir"
    finished "$dir/supernet" || study "$dir/supernet" --trials 1
    for seed in "$@"; do
        for way in $WAYS; do
            out="$dir/$way-$seed"
            finished "$out" && continue
            set -- --trials "$TRIALS" --seed "$seed" --set eval.supernet_weights="$dir/supernet/supernet.weights"
            case $way in
            predictor) set -- "$@" --set search.skip_by_prediction=true ;;
            none) set -- "$@" --set search.skip_by_prediction=false ;;
            random) set -- "$@" --set search.skip_by_prediction=false --set search.strategy=random ;;
            esac
            study "$out" "$@"
            echo "$out: $("$BIN/nas-query" "$out/study.db" sql \
                "SELECT count(*) FROM v_trial WHERE state = 'PRUNED'" -f value) skipped" >&2
        done
    done
}

# Rows "seconds,trial,psnr,p50,p90": every measurement in order; the trial's values with its last one.
measurements() {
    "$BIN/nas-query" "$1/study.db" sql "SELECT coalesce(json_extract(m.passport, '\$.run.bench.wall_s'), 0)
          * (1 + m.repeats) AS seconds, coalesce(m.trial, -1) AS trial,
        CASE WHEN l.measurement_id IS NULL THEN '' ELSE t.psnr_y END AS psnr, t.latency_p50_ms AS p50,
        t.latency_p90_ms AS p90
      FROM v_measurement m LEFT JOIN v_trial t ON t.trial_id = m.trial_id
      LEFT JOIN v_latency l ON l.trial_id = m.trial_id AND l.role = 'search' AND m.measurement_id =
        (SELECT max(n.measurement_id) FROM v_measurement n WHERE n.trial_id = m.trial_id AND n.role = 'search')
      WHERE m.role IN ('search', 'reference') ORDER BY m.measurement_id" -f csv
}

# Lines "way seed seconds hypervolume" after each network that was measured; the floor is the smallest network's psnr, on
# the images of that seed.
curve() {
    for way in predictor none random; do
        for db in "$dir/$way"-*/study.db; do
            [ -f "$db" ] || continue
            out=${db%/study.db}
            floor=$("$BIN/nas-query" "$db" sql "SELECT min(psnr_y) FROM v_trial WHERE origin = 'seed'" -f value)
            measurements "$out" | awk -F, -v way="$way" -v seed="${out##*-}" -v floor="$floor" \
                -v deadline="$DEADLINE" '
                function volume(   i, k, t, best, v, last) { # sorted by latency: steps of the best psnr so far
                    for (i = 1; i < n; i++) for (k = i + 1; k <= n; k++) if (ms[k] < ms[i]) {
                        t = ms[i]; ms[i] = ms[k]; ms[k] = t; t = db[i]; db[i] = db[k]; db[k] = t }
                    best = floor; v = 0
                    for (i = 1; i <= n; i++) if (db[i] > best) { v += (db[i] - best) * (deadline - ms[i]); best = db[i] }
                    return v
                }
                NR > 1 { seconds += $1
                    if ($3 == "") next
                    measured++
                    if ($5 <= deadline) { n++; ms[n] = $4 + 0; db[n] = $3 + 0 }
                    printf "%s %s %.3f %.6f %d\n", way, seed, seconds, volume(), measured }'
        done
    done
}

table() {
    curve > "$dir/curve.txt"
    [ -s "$dir/curve.txt" ] || die "$dir has no studies: bench/search.sh run $dir 1 2 3"
    awk '
        { key = $1 " " $2; if (!(key in seen)) { seen[key] = 1; order[++runs] = key }
          seconds[key] = $3; volume[key] = $4; measured[key] = $5; n[key]++; s[key, n[key]] = $3; v[key, n[key]] = $4
          if ($4 > top[$2]) top[$2] = $4 }
        function reach(key, share,   i, parts) { split(key, parts, " ")
            for (i = 1; i <= n[key]; i++) if (v[key, i] >= share * top[parts[2]]) return sprintf("%.1f/%d", s[key, i], i)
            return "-" }
        END {
            print "way        seed  measured  device-s  hypervolume    to 80 %    to 90 %    to 95 %    to 99 %"
            for (r = 1; r <= runs; r++) { key = order[r]; split(key, p, " ")
                printf "%-10s %4s %9d %9.1f %12.2f %10s %10s %10s %10s\n", p[1], p[2], measured[key], seconds[key],
                    volume[key], reach(key, .8), reach(key, .9), reach(key, .95), reach(key, .99) }
            print "to x %: device-seconds/networks timed until x % of the largest hypervolume of any way with that seed"
            print "        (device-seconds of a simulated device are 0); - never"
        }' "$dir/curve.txt"
}

case $what in
run) run "${@:-1}" ;;
table) table ;;
*) die "run or table, not '$what'" ;;
esac
