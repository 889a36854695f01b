#!/bin/sh
# compress_speed.sh - how much faster ResNet-56 with half of its MACs is than itself: both by our compiler, timed by turns.
#     bench/compress_speed.sh prepare|time NAS_SEARCH NAS_COMPILE DATA OUT
# prepare: the same share of every group, and STEPS: multiples of which widths are (default "4 8"), compiled. time: seconds.
set -eu
what=$1
search=$2
compile=$3
data=$4
out=$5
steps=${STEPS:-4 8}
rounds=${ROUNDS:-5}

prepare() { # step
    "$search" --config configs/agmc-resnet56.toml --quiet \
        --set "study.dir=$out/step$1" --set "study.name=step$1" --set device.connect=simulated \
        --set "compile.cache_dir=$out/cache" --set compress.channel_step="$1" \
        --set "model.onnx=$data/cifar_resnet_weights/resnet56.onnx" --set data.kind=cifar10 \
        --set "data.path=$data/cifar10/train_1.bin" --set "data.report_path=$data/cifar10/test_dev.bin" \
        --set 'data.mean=0.485 0.456 0.406' --set 'data.deviation=0.229 0.224 0.225' \
        --set data.reward_images=200 --set data.report_images=200 --set compress.calibration_images=200 \
        --set search.trials=1 --set search.population=4 --set eval.threads=1 \
        --set eval.finetune_steps=0 --set eval.finetune_max=1 >"$out/step$1.txt"
    "$compile" "$out/step$1/best/model.onnx" --threads 1 --cache "$out/cache" -o "$out/fast$1" >/dev/null
}

p50() { # program
    "$1/model" --bench --threads 1 | sed -n 's/.*"p50_us": \([0-9.]*\).*/\1/p' | head -n 1
}

mkdir -p "$out"
if [ "$what" = prepare ]; then
    for step in $steps; do prepare "$step"; done
    "$compile" "$data/cifar_resnet_weights/resnet56.onnx" --threads 1 --cache "$out/cache" -o "$out/dense" >/dev/null
    exit 0
fi
round=0
while [ "$round" -lt "$rounds" ]; do
    dense=$(p50 "$out/dense")
    for step in $steps; do
        fast=$(p50 "$out/fast$step")
        echo "$step $dense $fast"
    done
    round=$((round + 1))
done | awk '{ printf "step %d: dense %.1f us, pruned %.1f us, %.3fx\n", $1, $2, $3, $2 / $3 }' | sort -s -k2,2n
