#!/bin/sh
# compress_strategies.sh - strategies that choose channels, with equal evaluations: ResNet-20 on CIFAR-10 under half of its MACs.
#     bench/compress_strategies.sh NAS_SEARCH NAS_QUERY DATA OUT
# DATA holds cifar10/ and cifar_resnet_weights/. OUT keeps one study a run, so that the same command continues and prints.
# No latency decides anything here: the device is simulated and nothing is timed. Every run ends with the same fine-tuning of
# the original and of its best network: ten epochs of all TUNE images by default, by Adam, the tuned original as teacher.
# SEEDS, TRIALS, STRATEGIES, IMAGES (of the reward) and TUNE (steps of 64 images) can be set.
set -eu
search=$1
query=$2
data=$3
out=$4
seeds=${SEEDS:-1 2 3}
trials=${TRIALS:-200}
strategies=${STRATEGIES:-random greedy nsga2 ddpg agmc}
images=${IMAGES:-500}
tune=${TUNE:-1484}

for file in cifar10/train_1.bin cifar10/test_dev.bin cifar_resnet_weights/resnet20.onnx; do
    [ -e "$data/$file" ] || { echo "compress_strategies: no $data/$file" >&2; exit 1; }
done

study() { # strategy, seed
    config=configs/amc-resnet20.toml
    [ "$1" != agmc ] || config=configs/agmc-resnet56.toml # its space shows the agent the graph
    "$search" --config "$config" --quiet \
        --set "study.dir=$out/$1-$2" --set "study.name=$1-$2" --set "study.seed=$2" \
        --set "compile.cache_dir=$out/cache" --set device.connect=simulated \
        --set "model.onnx=$data/cifar_resnet_weights/resnet20.onnx" --set data.kind=cifar10 \
        --set "data.path=$data/cifar10/train_1.bin" --set "data.report_path=$data/cifar10/test_dev.bin" \
        --set 'data.mean=0.485 0.456 0.406' --set 'data.deviation=0.229 0.224 0.225' \
        --set "data.reward_images=$images" --set data.report_images=5000 \
        --set "search.strategy=$1" --set "search.trials=$trials" --set search.population=20 \
        --set eval.threads=1 --set "eval.finetune_steps=$tune" --set eval.finetune_max=1 \
        --set compress.optimizer=adam --set eval.finetune_learning_rate=0.0003 --set compress.flip=true \
        --set compress.teacher=tuned \
        >"$out/$1-$2.txt" 2>"$out/$1-$2.log" || { cat "$out/$1-$2.log" >&2; exit 1; }
}

# Best reward after the first N evaluations (trial 0 is the original).
best() { # strategy, seed, N
    "$query" --study "$1-$2" -f value "$out/$1-$2/study.db" sql \
        "SELECT round(max(reward_top1), 2) FROM v_class WHERE study = '$1-$2' AND trial BETWEEN 1 AND $3"
}

tuned() { # strategy, seed, condition: report_top1 of the one that was tuned
    "$query" --study "$1-$2" -f value "$out/$1-$2/study.db" sql "SELECT round(report_top1, 2) FROM v_class
        WHERE study = '$1-$2' AND report_top1 IS NOT NULL AND trial $3 0"
}

mkdir -p "$out"
for seed in $seeds; do
    for s in $strategies; do study "$s" "$seed"; done
done

echo "best reward (top1 of $images images, %) after so many evaluations; report: top1 of 5,000 images after $tune steps,"
echo "and of the original after as many"
printf '%-8s %4s' strategy seed
points=
for n in 1 20 50 100 150 200; do
    [ "$n" -gt "$trials" ] || { points="$points $n"; printf ' %7s' "$n"; }
done
printf ' %8s %8s\n' report original
for s in $strategies; do
    for seed in $seeds; do
        printf '%-8s %4s' "$s" "$seed"
        for n in $points; do printf ' %7s' "$(best "$s" "$seed" "$n")"; done
        printf ' %8s %8s\n' "$(tuned "$s" "$seed" '>')" "$(tuned "$s" "$seed" '=')"
    done
done
