#!/bin/sh
# compare_strategies.sh SUPERNET [SEEDS] [TRIALS] [STRATEGIES] - strategies at equal numbers of trials.
# SUPERNET: supernet.weights of a finished study of configs/sr720p.toml. Quality is scored with these weights; latency
# comes from the simulated device (at 320x180, to compile quickly), so that the comparison repeats exactly. Prints the hypervolume (dB x ms, against
# bicubic and the full-width supernet; larger is better) and the best feasible PSNR at 60 % of the supernet's latency.
set -eu
cd "$(dirname "$0")/.."
weights=${1:?usage: compare_strategies.sh SUPERNET [SEEDS] [TRIALS] [STRATEGIES]}
seeds=${2:-5}
trials=${3:-48}
strategies=${4:-nsga2 evolution random}
bin=${NAS_BIN_DIR:-build/release/bin}
dir=$(mktemp -d "${TMPDIR:-/tmp}/nas-compare-XXXXXX")
trap 'rm -rf "$dir"' EXIT
printf '%-10s %-5s %12s %14s %8s\n' strategy seed hypervolume best_feasible trials
seed=1
while [ "$seed" -le "$seeds" ]; do
    for strategy in $strategies; do
        run="$dir/$strategy-$seed"
        "$bin/nas-search" --config configs/sr720p.toml --seed "$seed" --trials "$trials" -q -f csv \
            --set study.dir="$run" --set search.strategy="$strategy" --set device.connect=simulated \
            --set eval.supernet_weights="$weights" --set eval.baseline_steps=0 --set eval.winner_steps=0 \
            --set eval.finetune_max=0 --set task.out_width=320 --set task.out_height=180 --set data.leaves_train=8 --set budget.time_s=0 --set search.skip_by_prediction=false \
            --set constraints.latency_p90_ms='"<= 60%"' --set compile.cache_dir="$dir/cache" \
            >"$run.csv" 2>"$run.log" || { cat "$run.log" >&2; exit 1; }
        row=$("$bin/nas-query" "$run/study.db" -f value sql "SELECT printf('%.3f', max(hypervolume)),
            printf('%.3f', max(iif(feasible, psnr_y, NULL))), count(*) FROM v_trial WHERE origin IN ('strategy', 'seed')")
        # shellcheck disable=SC2086 # three words
        printf '%-10s %-5s %12s %14s %8s\n' "$strategy" "$seed" $row
    done
    seed=$((seed + 1))
done
